#include "large_outputs.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <mutex>
#include <utility>

#if defined(__linux__)
#include <pthread.h>
#include <sys/mman.h>
#endif

namespace torch_iir::ops {
namespace {

constexpr std::int64_t page = 2 << 20, small_page = 64 << 10;  // the largest of those that systems have as small ones
// Of what is kept, in bytes: the latest blocks as they are, since marking and using them again costs as much as
// filtering a tenth of them; those behind them marked as free; the rest not at all.
constexpr std::int64_t most_unmarked = 32 << 20, most_kept = 1 << 30;

struct Block {
  void* data = nullptr;
  std::int64_t bytes = 0;
  bool marked = false;  // as free
};

constexpr int places = 32;

struct Kept {
  std::mutex mutex;
  Block blocks[places];  // the latest first
};

// Never destroyed: the last tensors may go after the destructors of this library have run.
Kept& kept() {
  static Kept* const instance = [] {
#if defined(__linux__)
    // The child of a fork has none of the threads that might unlock it.
    const auto lock = [] { kept().mutex.lock(); };
    const auto unlock = [] { kept().mutex.unlock(); };
    pthread_atfork(lock, unlock, unlock);
#endif
    return new Kept;
  }();
  return *instance;
}

// Huge pages, and small ones after them for what does not nearly fill another.
std::int64_t rounded(std::int64_t bytes) {
  const auto up = [](std::int64_t count, std::int64_t unit) { return (count + unit - 1) / unit * unit; };
  return bytes % page < large_output ? up(bytes, small_page) : up(bytes, page);
}

#if defined(__linux__)
// From the system, not from malloc: what malloc gets back it may keep.
void* allocate(std::int64_t bytes) {
  const std::int64_t all = bytes + page;  // the ends are cut off so that huge pages fit
  void* const mapped = mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(mapped);
  char* const data = begin + (page - reinterpret_cast<std::uintptr_t>(begin) % page) % page;
  if (data > begin) munmap(begin, data - begin);
  if (data + bytes < begin + all) munmap(data + bytes, begin + all - (data + bytes));
  static_cast<void>(madvise(data, bytes, MADV_HUGEPAGE));
  return data;
}
void release(const Block& block) {
  if (block.data != nullptr) munmap(block.data, block.bytes);
}
// False if that cannot be.
bool mark_as_free(Block& block) {
#if defined(MADV_FREE)
  if (block.data == nullptr || block.marked) return true;
  block.marked = madvise(block.data, block.bytes, MADV_FREE) == 0;
#endif
  return block.marked;
}
#else
void* allocate(std::int64_t bytes) { return std::aligned_alloc(small_page, static_cast<std::size_t>(bytes)); }
void release(const Block& block) { std::free(block.data); }
bool mark_as_free(Block&) { return false; }
#endif

}  // namespace

void* take_large(std::int64_t bytes) {
  const std::int64_t wanted = rounded(bytes);
  {
    Kept& all = kept();
    const std::lock_guard lock(all.mutex);
    for (Block& block : all.blocks) {  // of this size, so that giving back needs no record of another
      if (block.data != nullptr && block.bytes == wanted) {
        void* const data = block.data;
        std::move(&block + 1, std::end(all.blocks), &block);
        *std::rbegin(all.blocks) = {};
        return data;
      }
    }
  }
  return allocate(wanted);
}

void give_back_large(void* data, std::int64_t bytes) {
  Block out[places + 1];  // given to the system at last, without holding up others
  {
    Kept& all = kept();
    const std::lock_guard lock(all.mutex);
    Block block{data, rounded(bytes)};
    for (Block& place : all.blocks) {
      std::swap(block, place);
      if (block.data == nullptr) break;
    }
    out[places] = block;  // the oldest, if all places were taken
    std::int64_t total = 0;
    for (int i = 0; i < places; ++i) {
      Block& each = all.blocks[i];
      total += each.bytes;
      if ((i > 0 && total > most_kept) || (total > most_unmarked && !mark_as_free(each))) std::swap(out[i], each);
    }
  }
  for (const Block& each : out) release(each);
}

std::int64_t empty_cache() {
  Block out[places];
  {
    Kept& all = kept();
    const std::lock_guard lock(all.mutex);
    std::swap(out, all.blocks);
  }
  std::int64_t total = 0;
  for (const Block& each : out) {
    total += each.bytes;
    release(each);
  }
  return total;
}

}  // namespace torch_iir::ops
