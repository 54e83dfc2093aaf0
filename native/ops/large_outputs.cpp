#include "large_outputs.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <mutex>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace torch_iir::ops {
namespace {

constexpr std::int64_t page = 2 << 20;  // a huge one

struct Block {
  void* data = nullptr;
  std::int64_t bytes = 0;
};

struct Kept {
  std::mutex mutex;
  Block blocks[4];  // the latest first
};

// Never destroyed: the last tensors may go after the destructors of this library have run.
Kept& kept() {
  static Kept* const instance = new Kept;
  return *instance;
}

std::int64_t rounded(std::int64_t bytes) { return (bytes + page - 1) / page * page; }

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
#else
void* allocate(std::int64_t bytes) { return std::aligned_alloc(page, static_cast<std::size_t>(bytes)); }
void release(const Block& block) { std::free(block.data); }
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
  Block block{data, rounded(bytes)};
#if defined(__linux__) && defined(MADV_FREE)
  if (madvise(data, static_cast<std::size_t>(block.bytes), MADV_FREE) == 0) {
    Kept& all = kept();
    const std::lock_guard lock(all.mutex);
    for (Block& place : all.blocks) std::swap(block, place);  // the oldest falls out
  }
#endif
  release(block);
}

}  // namespace torch_iir::ops
