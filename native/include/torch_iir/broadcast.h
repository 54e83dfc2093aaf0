// Lays operands of NumPy-like shapes over one Batch: broadcasts their leading dimensions through strides of 0, drops
// dimensions of size 1, and merges neighbours that every operand runs through as one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "torch_iir/batch.h"

namespace torch_iir {

inline constexpr int max_dims = 64;  // of any array, as in NumPy

struct Operand {
  int dims = 0;  // leading dimensions only
  const std::int64_t* size = nullptr;
  const std::int64_t* stride = nullptr;  // in elements
  std::int64_t* batch_stride = nullptr;  // out: max_batch_dims of them
};

// The common shape, before anything is dropped or merged.
struct Shape {
  int dims = 0;
  std::int64_t size[max_dims + 2];  // two to spare, for what an operator adds below the batch
};

enum class [[nodiscard]] BroadcastStatus { ok, mismatch, too_many_dims };

inline BroadcastStatus broadcast(std::span<const Operand> operands, Shape& shape, Batch& batch) noexcept {
  shape.dims = 0;
  for (const Operand& operand : operands) shape.dims = std::max(shape.dims, operand.dims);
  if (shape.dims > max_dims) return BroadcastStatus::too_many_dims;
  batch.dims = 0;
  for (int d = 0; d < shape.dims; ++d) {  // from the innermost outwards; reversed below
    std::int64_t size = 1;
    for (const Operand& operand : operands) {
      const std::int64_t own = d < operand.dims ? operand.size[operand.dims - 1 - d] : 1;
      if (own == 1 || own == size) continue;
      if (size != 1) return BroadcastStatus::mismatch;
      size = own;
    }
    shape.size[shape.dims - 1 - d] = size;
    if (size == 1) continue;
    const auto stride = [d](const Operand& operand) {
      const int own = operand.dims - 1 - d;
      return own >= 0 && operand.size[own] != 1 ? operand.stride[own] : 0;
    };
    const int last = batch.dims - 1;
    if (last >= 0 && std::ranges::all_of(operands, [&](const Operand& operand) {
          return stride(operand) == operand.batch_stride[last] * batch.size[last];
        })) {
      batch.size[last] *= size;
      continue;
    }
    if (batch.dims == max_batch_dims) return BroadcastStatus::too_many_dims;
    for (const Operand& operand : operands) operand.batch_stride[batch.dims] = stride(operand);
    batch.size[batch.dims++] = size;
  }
  std::reverse(batch.size, batch.size + batch.dims);
  for (const Operand& operand : operands) std::reverse(operand.batch_stride, operand.batch_stride + batch.dims);
  return BroadcastStatus::ok;
}

// Strides over `batch` of a row-major array of rows of `length` elements, in the order of the batch.
inline void row_major(const Batch& batch, std::int64_t length, std::int64_t* stride) noexcept {
  for (int d = batch.dims - 1; d >= 0; --d) {
    stride[d] = length;
    length *= batch.size[d];
  }
}

}  // namespace torch_iir
