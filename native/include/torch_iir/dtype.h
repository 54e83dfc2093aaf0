// Operands whose type is known at run time only: the kernels for CUDA convert them as they read and write them, where a
// conversion apart would cost a launch.
#pragma once

#include <complex>
#include <cstdint>
#include <type_traits>

#include "torch_iir/batch.h"

namespace torch_iir {

enum class DType : std::int32_t { float16, bfloat16, float32, float64, complex64, complex128 };

constexpr bool is_complex(DType dtype) { return dtype >= DType::complex64; }
constexpr bool is_wide(DType dtype) { return dtype == DType::float64 || dtype == DType::complex128; }
constexpr DType complex_of(bool wide) { return wide ? DType::complex128 : DType::complex64; }

// Rows of numbers that a kernel computes with as T, double or std::complex<double>, and that lie in memory as `dtype`.
// A complex number loses its imaginary part where it is written as a real one.
template <class T>
struct AnyRows {
  using Pointer = std::conditional_t<std::is_const_v<T>, const void*, void*>;
  Pointer data = nullptr;
  DType dtype = std::is_same_v<std::remove_const_t<T>, double> ? DType::float64 : DType::complex128;
  std::int64_t step = 1;  // as in Rows, in elements
  std::int64_t stride[max_batch_dims] = {};

  constexpr AnyRows() noexcept = default;
  constexpr AnyRows(Pointer data_, DType dtype_, std::int64_t step_ = 1) noexcept
      : data(data_), dtype(dtype_), step(step_) {}
  constexpr AnyRows(const Rows<T>& rows) noexcept : data(rows.data), step(rows.step) {
    for (int d = 0; d < max_batch_dims; ++d) stride[d] = rows.stride[d];
  }

  TORCH_IIR_HOST_DEVICE explicit operator bool() const noexcept { return data != nullptr; }

  // Where row number `row` of the batch begins, in elements.
  TORCH_IIR_HOST_DEVICE std::int64_t row(const Batch& batch, std::int64_t row) const noexcept {
    std::int64_t elements = 0;
    for (int d = batch.dims - 1; d >= 0; --d) {
      elements += (row % batch.size[d]) * stride[d];
      row /= batch.size[d];
    }
    return elements;
  }
};

// One matrix for each element of the batch, as Matrices.
template <class T>
struct AnyMatrices : AnyRows<T> {
  std::int64_t down = 0;

  constexpr AnyMatrices() noexcept = default;
  constexpr AnyMatrices(const AnyRows<T>& rows, std::int64_t down_) noexcept : AnyRows<T>(rows), down(down_) {}
  constexpr AnyMatrices(const Matrices<T>& matrices) noexcept : AnyRows<T>(matrices), down(matrices.down) {}
};

struct AnyOperands {
  template <class T>
  using Rows = AnyRows<T>;
  template <class T>
  using Matrices = AnyMatrices<T>;
};

}  // namespace torch_iir
