#include "emulator/scheduler.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <new>
#include <numeric>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace torch_iir::cuda::emulator {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t stack_bytes = 512 << 10;
#else
constexpr std::size_t stack_bytes = 128 << 10;
#endif
constexpr int warp_size = 32;
constexpr std::int64_t endless = 20'000'000;  // pauses in a row in which nothing else happens

// Saves where this stack stands in *from, and goes on where `to` stands: what a function keeps for its caller is on the
// stack. Our own, because swapcontext makes a system call, and under a sanitizer clears the whole stack each time.
extern "C" void torch_iir_switch_stack(void** from, void* to);
#if defined(__x86_64__)
asm(".text\n"
    ".type torch_iir_switch_stack, @function\n"
    "torch_iir_switch_stack:\n"
    "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
    "  mov %rsp, (%rdi)\n"
    "  mov %rsi, %rsp\n"
    "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n"
    "  ret\n");
constexpr int return_word = 6, words_of_frame = 8;  // the last aligns
#elif defined(__aarch64__)
asm(".text\n"
    ".type torch_iir_switch_stack, %function\n"
    "torch_iir_switch_stack:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n"
    "  mov sp, x1\n"
    "  ldp x19, x20, [sp]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n");
constexpr int return_word = 11, words_of_frame = 20;
#else
#error "the emulator knows how to switch stacks on x86-64 and 64-bit ARM only"
#endif

// A stack, and where it stands.
struct Context {
  void* stands = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  const void* bottom = nullptr;
  std::size_t size = 0;
#endif
};

void switch_to(Context& from, Context& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.bottom, to.size);
  torch_iir_switch_stack(&from.stands, to.stands);
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#else
  torch_iir_switch_stack(&from.stands, to.stands);
#endif
}

struct Block;

struct Copy {
  void* to;
  const void* from;
  int bytes;
};

struct Fiber {
  Context context;
  Block* block = nullptr;
  int index = 0;
  const char* waits = nullptr;  // what for
  std::vector<Copy> copies;     // not yet in a group
  std::deque<std::vector<Copy>> groups;
};

struct Warp {
  std::uint64_t values[2][warp_size] = {};  // those of the last exchange and of the one under way
  const char* what = nullptr;
  int arrived = 0, generation = 0;
};

struct Barrier {
  int arrived = 0, generation = 0;
  bool any[2] = {};
  std::vector<Fiber*> waiting;
};

struct Cluster;

struct DeleteAligned {
  void operator()(unsigned char* memory) const { ::operator delete(memory, std::align_val_t{128}); }
};

struct Block {
  Cluster* cluster = nullptr;
  std::int64_t index = 0;
  int rank = 0, running = 0;
  std::unique_ptr<unsigned char, DeleteAligned> memory;
  unsigned char* shared = nullptr;
  std::vector<Warp> warps;
  std::vector<Fiber*> fibers;
  Barrier barrier;
};

struct Cluster {
  std::vector<std::unique_ptr<Block>> blocks;
  int running = 0;
  Barrier barrier;
};

struct Runner {
  Grid grid;
  const std::function<void()>* kernel = nullptr;
  Context home;
  Fiber* current = nullptr;
  std::vector<Fiber*> runnable;
  std::vector<std::unique_ptr<Cluster>> clusters;
  std::vector<Fiber*> idle;
  std::uint64_t state = 1;
  std::int64_t pauses = 0;
  std::string error;

  std::uint64_t random() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
  }
};

thread_local Runner* runner = nullptr;

struct Stack {
  void operator()(char* stack) const { munmap(stack, stack_bytes); }
};

// The fibers of this system thread, which stay for later runs. Those of a run that failed are left where they stand.
struct Pool {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<std::unique_ptr<char, Stack>> stacks;
  std::vector<Fiber*> idle;
};
thread_local Pool pool;

void wake(Fiber* fiber) {
  fiber->waits = nullptr;
  runner->runnable.push_back(fiber);
}

void wait(const char* what) {
  Fiber& fiber = *runner->current;
  fiber.waits = what;
  switch_to(fiber.context, runner->home);
}

// No string of the caller's: nobody comes back to destroy it.
[[noreturn]] void fail(const char* what, const char* more = "", const char* still_more = "") {
  const Fiber& fiber = *runner->current;
  runner->error = std::string(what) + more + still_more + " (block " + std::to_string(fiber.block->index) +
                  ", thread " + std::to_string(fiber.index) + ")";
  switch_to(runner->current->context, runner->home);
  std::abort();
}

void finish(Fiber& fiber) {
  Block& block = *fiber.block;
  fiber.waits = nullptr;
  if (--block.running == 0) {
    std::memset(block.shared, 0xff, static_cast<std::size_t>(runner->grid.shared_bytes));  // gone, for others, too
    --block.cluster->running;
  }
  runner->pauses = 0;
  runner->idle.push_back(&fiber);
  switch_to(fiber.context, runner->home);
}

void entry() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &runner->home.bottom, &runner->home.size);
#endif
  for (;;) {  // a fiber serves one thread after another
    (*runner->kernel)();
    Fiber& fiber = *runner->current;
    for (fiber.groups.push_back(std::exchange(fiber.copies, {})); !fiber.groups.empty(); fiber.groups.pop_front()) {
      if (!fiber.groups.front().empty()) fail("a thread ended before its asynchronous copies");
    }
    finish(fiber);
  }
}

Fiber* take_fiber() {
  if (!runner->idle.empty()) {
    Fiber* const fiber = runner->idle.back();
    runner->idle.pop_back();
    return fiber;
  }
  auto fiber = std::make_unique<Fiber>();
  void* const stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) std::abort();
  pool.stacks.emplace_back(static_cast<char*>(stack));
  auto* const frame = static_cast<std::uintptr_t*>(stack) + stack_bytes / sizeof(std::uintptr_t) - words_of_frame;
  frame[return_word] = reinterpret_cast<std::uintptr_t>(&entry);
  fiber->context.stands = frame;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack, stack_bytes);  // it may have been that of a run that failed
  fiber->context.bottom = stack;
  fiber->context.size = stack_bytes;
#endif
  pool.fibers.push_back(std::move(fiber));
  return pool.fibers.back().get();
}

void start_cluster(std::int64_t index) {
  auto cluster = std::make_unique<Cluster>();
  const Grid& grid = runner->grid;
  cluster->running = grid.cluster;
  for (int rank = 0; rank < grid.cluster; ++rank) {
    auto block = std::make_unique<Block>();
    block->cluster = cluster.get();
    block->index = index * grid.cluster + rank;
    block->rank = rank;
    block->running = grid.threads;
    block->warps.resize(static_cast<std::size_t>((grid.threads + warp_size - 1) / warp_size));
    // Exactly as large as asked for, so that a sanitizer sees what lies beyond.
    const auto bytes = static_cast<std::size_t>(grid.shared_bytes);
    block->memory.reset(static_cast<unsigned char*>(::operator new(bytes, std::align_val_t{128})));
    block->shared = block->memory.get();
    std::memset(block->shared, 0xff, bytes);
    for (int i = 0; i < grid.threads; ++i) {
      Fiber* const fiber = take_fiber();
      fiber->block = block.get();
      fiber->index = i;
      block->fibers.push_back(fiber);
      runner->runnable.push_back(fiber);
    }
    cluster->blocks.push_back(std::move(block));
  }
  runner->clusters.push_back(std::move(cluster));
}

std::string deadlock() {
  for (const auto& cluster : runner->clusters) {
    for (const auto& block : cluster->blocks) {
      for (const Fiber* fiber : block->fibers) {
        if (fiber->block == block.get() && fiber->waits != nullptr)
          return std::string("threads wait for ever: thread ") + std::to_string(fiber->index) + " of block " +
                 std::to_string(block->index) + " in " + fiber->waits;
      }
    }
  }
  return "threads wait for ever";
}

bool arrive(Barrier& barrier, int all, bool value, const char* what) {
  runner->pauses = 0;
  const int now = barrier.generation & 1;
  barrier.any[now] |= value;
  if (++barrier.arrived == all) {
    barrier.arrived = 0;
    ++barrier.generation;
    barrier.any[now ^ 1] = false;
    for (Fiber* fiber : std::exchange(barrier.waiting, {})) wake(fiber);
  } else {
    barrier.waiting.push_back(runner->current);
    wait(what);
  }
  return barrier.any[now];
}

}  // namespace

Machine& machine() {
  thread_local Machine instance;
  return instance;
}

bool run(const Grid& grid, const std::function<void()>& kernel) {
  Machine& settings = machine();
  ++settings.launches;
  const auto refuse = [&](const char* why) {
    if (settings.error.empty()) settings.error = why;
    return false;
  };
  if (grid.threads < 1 || grid.threads > 1024 || grid.threads % warp_size != 0) return refuse("threads of a block");
  if (grid.blocks < 1 || grid.blocks > 0x7fffffff || grid.blocks % grid.cluster != 0) return refuse("blocks of a grid");
  if (grid.shared_bytes < 0 || grid.shared_bytes > 227 << 10) return refuse("shared memory of a block");
  if (grid.cluster < 1 || grid.cluster > 8 || (grid.cluster > 1 && !settings.clusters)) return refuse("cluster");

  Runner here;
  if (runner != nullptr) return refuse("a kernel launches a kernel");
  runner = &here;
  here.grid = grid;
  here.kernel = &kernel;
  here.idle = std::move(pool.idle);
  here.state = settings.seed * 0x9e3779b97f4a7c15u + static_cast<std::uint64_t>(settings.launches);
  here.state |= 1;
  const std::int64_t count = grid.blocks / grid.cluster;
  const std::int64_t resident = std::max<std::int64_t>(settings.resident_blocks / grid.cluster, 1);
  // In any order, up to some thousands of blocks; beyond, any of the next thousands.
  std::vector<std::int64_t> upcoming;
  std::int64_t next = 0;
  const auto refill = [&] {
    while (next < count && upcoming.size() < 4096) upcoming.push_back(next++);
  };
  refill();
  while (here.error.empty()) {
    while (static_cast<std::int64_t>(here.clusters.size()) < resident && !upcoming.empty()) {
      std::swap(upcoming[here.random() % upcoming.size()], upcoming.back());
      start_cluster(upcoming.back());
      upcoming.pop_back();
      refill();
    }
    if (here.runnable.empty()) {
      if (!here.clusters.empty()) here.error = deadlock();
      break;
    }
    std::swap(here.runnable[here.random() % here.runnable.size()], here.runnable.back());
    here.current = here.runnable.back();
    here.runnable.pop_back();
    switch_to(here.home, here.current->context);
    if (here.pauses > endless) here.error = "threads poll for ever";
    std::erase_if(here.clusters, [](const auto& cluster) { return cluster->running == 0; });
  }
  if (here.error.empty()) {
    pool.idle = std::move(here.idle);
  } else {
    pool = {};
  }
  runner = nullptr;
  return here.error.empty() ? true : refuse(here.error.c_str());
}

int thread() { return runner->current->index; }
int threads() { return runner->grid.threads; }
std::int64_t block() { return runner->current->block->index; }
std::int64_t blocks() { return runner->grid.blocks; }
int cluster_rank() { return runner->current->block->rank; }

unsigned char* shared_memory(int rank) {
  const auto& blocks = runner->current->block->cluster->blocks;
  if (rank < 0 || rank >= static_cast<int>(blocks.size())) fail("no such block in the cluster");
  return blocks[static_cast<std::size_t>(rank)]->shared;
}

bool block_barrier(bool value) {
  Block& block = *runner->current->block;
  return arrive(block.barrier, runner->grid.threads, value, "sync");
}

void cluster_barrier() {
  Cluster& cluster = *runner->current->block->cluster;
  static_cast<void>(arrive(cluster.barrier, runner->grid.threads * runner->grid.cluster, false, "cluster_sync"));
}

std::uint64_t warp_exchange(std::uint64_t bits, int from, const char* what) {
  runner->pauses = 0;
  Fiber& fiber = *runner->current;
  Block& block = *fiber.block;
  const int first = fiber.index / warp_size * warp_size;
  Warp& warp = block.warps[static_cast<std::size_t>(fiber.index / warp_size)];
  if (warp.arrived == 0) warp.what = what;
  if (std::strcmp(warp.what, what) != 0) fail(what, " meets ", warp.what);
  const int now = warp.generation & 1;
  warp.values[now][fiber.index - first] = bits;
  if (++warp.arrived == warp_size) {
    warp.arrived = 0;
    ++warp.generation;
    for (int i = first; i < first + warp_size; ++i) {
      if (i != fiber.index) wake(block.fibers[static_cast<std::size_t>(i)]);
    }
  } else {
    wait(what);
  }
  return warp.values[now][from];
}

unsigned warp_ballot(bool value) {
  const int now = runner->current->block->warps[static_cast<std::size_t>(thread() / warp_size)].generation & 1;
  static_cast<void>(warp_exchange(value, 0, "ballot"));
  const Warp& warp = runner->current->block->warps[static_cast<std::size_t>(thread() / warp_size)];
  unsigned result = 0;
  for (int i = 0; i < warp_size; ++i) result |= static_cast<unsigned>(warp.values[now][i] & 1) << i;
  return result;
}

void copy_async(void* shared, const void* global, int bytes) {
  if ((reinterpret_cast<std::uintptr_t>(shared) | reinterpret_cast<std::uintptr_t>(global)) % bytes != 0)
    fail("copy_async of a misaligned address");
  runner->current->copies.push_back({shared, global, bytes});
}

void commit_async() { runner->current->groups.push_back(std::exchange(runner->current->copies, {})); }

void wait_async(int groups) {
  Fiber& fiber = *runner->current;
  while (static_cast<int>(fiber.groups.size()) > groups) {
    for (const Copy& copy : fiber.groups.front()) std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.bytes));
    fiber.groups.pop_front();
  }
}

void pause() {
  ++runner->pauses;
  runner->runnable.push_back(runner->current);
  wait("pause");
}

}  // namespace torch_iir::cuda::emulator
