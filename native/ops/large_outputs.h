// Memory of large outputs.
//
// The allocator beneath torch returns blocks above 32 MiB to the system, and gets zeroed pages for the next: for the
// output of a bank of filters that costs more time than the filters. So the last few large blocks are kept, in huge
// pages, for outputs of about their size. What is kept is marked as free (MADV_FREE): the system takes it back, without
// asking, as soon as anybody is short of memory.
#pragma once

#include <cstdint>

namespace torch_iir::ops {

inline constexpr std::int64_t large_output = 32 << 20;  // bytes

// A block of at least so many bytes, not initialised; null if there is no memory.
void* take_large(std::int64_t bytes);

// Gives a block back that take_large returned for so many bytes. From any thread.
void give_back_large(void* data, std::int64_t bytes);

}  // namespace torch_iir::ops
