// Memory of large outputs.
//
// The allocator beneath torch returns large blocks to the system, and gets zeroed pages of 4 KiB for the next: for the
// output of a bank of filters that costs more time than the filters, and translating the addresses of small pages takes
// a tenth of the time of one that is all in the cache. So the last blocks are kept, in huge pages, for outputs of their
// size: 32 MiB as they are, and 1 GiB that is marked as free (MADV_FREE), which the system takes back, without asking,
// as soon as anybody is short of memory.
#pragma once

#include <cstdint>

namespace torch_iir::ops {

inline constexpr std::int64_t large_output = 7 << 18;  // bytes: little less than a huge page

// A block of at least so many bytes, not initialised; null if there is no memory.
void* take_large(std::int64_t bytes);

// Gives a block back that take_large returned for so many bytes. From any thread.
void give_back_large(void* data, std::int64_t bytes);

// Gives all that is kept to the system, and returns how many bytes that were.
std::int64_t empty_cache();

}  // namespace torch_iir::ops
