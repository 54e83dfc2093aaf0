#include "large_outputs.h"

#include <algorithm>
#include <cstdlib>
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
        all.blocks[std::size(all.blocks) - 1] = {};
        return data;
      }
    }
  }
  void* const data = std::aligned_alloc(page, static_cast<std::size_t>(wanted));
#if defined(__linux__)
  if (data != nullptr) static_cast<void>(madvise(data, static_cast<std::size_t>(wanted), MADV_HUGEPAGE));
#endif
  return data;
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
  std::free(block.data);
}

}  // namespace torch_iir::ops
