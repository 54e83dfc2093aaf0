// Views of many rows of samples, and the values that every kernel of torch_iir takes and returns.
//
// A batch is an index space of up to max_batch_dims dimensions, row-major. An operand is a pointer, a stride for each
// of these dimensions and a step along time, all counted in elements. A stride of 0 broadcasts: a bank of filters reads
// its one row of input through stride 0, and nothing is expanded in memory.
//
// The inline functions here are forced inline: the kernels are compiled once per instruction set, and an out-of-line
// copy made for one of them could be picked by the linker for all.
#pragma once

#include <cstdint>

#include "torch_iir/export.h"
#include "torch_iir/status.h"

namespace torch_iir {

inline constexpr int max_batch_dims = 16;

struct Batch {
  int dims = 0;
  std::int64_t size[max_batch_dims] = {};

  [[gnu::always_inline]] TORCH_IIR_HOST_DEVICE std::int64_t rows() const noexcept {
    std::int64_t count = 1;
    for (int d = 0; d < dims; ++d) count *= size[d];
    return count;
  }
};

template <class T>
struct Rows {
  T* data = nullptr;
  std::int64_t step = 1;                     // between neighbours in time
  std::int64_t stride[max_batch_dims] = {};  // between neighbours in each batch dimension; 0 broadcasts
  T* const* each = nullptr;  // where rows lie anywhere: a pointer to each, in place of data; no stride is 0 then

  TORCH_IIR_HOST_DEVICE explicit operator bool() const noexcept { return data != nullptr || each != nullptr; }

  // Where row number `row` of the batch begins.
  [[gnu::always_inline]] TORCH_IIR_HOST_DEVICE T* row(const Batch& batch, std::int64_t row) const noexcept {
    if (each != nullptr) return each[row];
    if (batch.dims == 1) return data + row * stride[0];  // no division
    T* pointer = data;
    for (int d = batch.dims - 1; d >= 0; --d) {
      pointer += (row % batch.size[d]) * stride[d];
      row /= batch.size[d];
    }
    return pointer;
  }
};

// One matrix for each element of the batch: `step` is between neighbours in a row of it, `down` in a column.
template <class T>
struct Matrices : Rows<T> {
  std::int64_t down = 0;
};

// How an operation's small operands, coefficients and states, lie in memory: as what the kernel computes in. The other
// way, in memory of any type, is AnyOperands in dtype.h.
struct PlainOperands {
  template <class T>
  using Rows = torch_iir::Rows<T>;
  template <class T>
  using Matrices = torch_iir::Matrices<T>;
};

// Storage formats that C++20 has no type for. Bits only: the kernels convert on load and on store.
struct Half {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

// How a kernel spreads independent ranges of work over threads: `run` calls body(argument, first, last) for ranges that
// cover [0, count), each at least `grain` long where there is that much, from any threads, at the same time or one
// after the other, and returns when all are done. The default runs everything on the calling thread.
struct ParallelFor {
  using Body = void (*)(void* argument, std::int64_t first, std::int64_t last);
  void (*run)(void* context, std::int64_t count, std::int64_t grain, Body body, void* argument) = nullptr;
  void* context = nullptr;
};

}  // namespace torch_iir
