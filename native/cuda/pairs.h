// Complex numbers in global memory, both parts at a time, of either precision.
#pragma once

#include <cstdint>
#include <cstring>

#include "numbers.h"
#include "simt.h"

namespace torch_iir::cuda {

template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T re, im;
};

// `data` is aligned to its numbers, as torch has them.
TORCH_IIR_GPU Complex load_pair(const void* data, bool wide, std::int64_t at) {
  if (wide) {
    const Pair<double> pair = static_cast<const Pair<double>*>(data)[at];
    return {pair.re, pair.im};
  }
  const Pair<float> pair = static_cast<const Pair<float>*>(data)[at];
  return {pair.re, pair.im};
}
TORCH_IIR_GPU void store_pair(void* data, bool wide, std::int64_t at, Complex value) {
  if (wide) {
    static_cast<Pair<double>*>(data)[at] = {value.re, value.im};
  } else {
    static_cast<Pair<float>*>(data)[at] = {static_cast<float>(value.re), static_cast<float>(value.im)};
  }
}

// Elements on to a row of the batch. Divisions of 64 bits take a hundred instructions: few rows need them.
TORCH_IIR_GPU std::int64_t offset_of(const Batch& batch, const std::int64_t (&stride)[max_batch_dims],
                                     std::int64_t row) {
  if (batch.dims == 1) return row * stride[0];
  std::int64_t elements = 0;
  if (row >> 31 == 0) {
    auto rest = static_cast<unsigned>(row);
    for (int d = batch.dims - 1; d >= 0; --d) {
      const auto size = static_cast<unsigned>(minimum<std::int64_t>(batch.size[d], 0xffffffff));
      elements += static_cast<std::int64_t>(rest % size) * stride[d];
      rest /= size;
    }
  } else {
    for (int d = batch.dims - 1; d >= 0; --d) {
      elements += row % batch.size[d] * stride[d];
      row /= batch.size[d];
    }
  }
  return elements;
}

}  // namespace torch_iir::cuda
