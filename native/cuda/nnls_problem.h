// What the kernels of nnls are given: the parameters of a call, whatever the type of its samples, so that each kernel
// is compiled once and not for every type.
#pragma once

#include <initializer_list>
#include <limits>
#include <type_traits>

#include "launch.h"
#include "numbers.h"
#include "torch_iir/nnls.h"

namespace torch_iir::cuda {

inline constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
inline constexpr double infinity = std::numeric_limits<double>::infinity();
inline constexpr double epsilon = std::numeric_limits<double>::epsilon();
inline constexpr double least_normal = std::numeric_limits<double>::min();

// The rows of a batch are put in such an order that the `sharing` rows of a matrix follow one another.
struct NNLSProblem {
  Batch batch;
  std::int64_t m, n, k, sharing = 1;
  double tolerance;
  int max_iterations;
  AnyMatrices<const double> a, b, prior;
  AnyRows<const double> mu;
  AnyMatrices<double> x;
  Matrices<double> dual;
  Rows<Outcome> outcome;
};

struct NNLSDerivativeProblem {
  Batch batch;
  std::int64_t m, n, k, sharing = 1;
  bool support;
  AnyMatrices<const double> a, w, g;
  AnyRows<const double> mu;
  Matrices<const double> h;
  Matrices<double> u;
  AnyMatrices<double> p;
};

template <class Sample>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<Sample, Half>) return DType::float16;
  else if constexpr (std::is_same_v<Sample, BFloat16>) return DType::bfloat16;
  else if constexpr (std::is_same_v<Sample, float>) return DType::float32;
  else return DType::float64;
}

// Samples as numbers of a type that is known at run time.
template <class T, class Sample>
AnyMatrices<T> any_matrices(const Matrices<Sample>& of) {
  AnyMatrices<T> to({of.data, dtype_of<std::remove_const_t<Sample>>(), of.step}, of.down);
  for (int d = 0; d < max_batch_dims; ++d) to.stride[d] = of.stride[d];
  return to;
}

// Moves the dimensions in which rows share a matrix to the end, for every operand that has one of `strides`; says how
// many rows share one.
inline std::int64_t share(Batch& batch, const AnyRows<const double>& a, std::initializer_list<std::int64_t*> strides) {
  std::int64_t sharing = 1;
  int order[max_batch_dims], next = 0;
  const auto shared = [&](int d) { return a.stride[d] == 0 && batch.size[d] != 1; };
  for (int d = 0; d < batch.dims; ++d) {
    if (!shared(d)) order[next++] = d;
  }
  for (int d = 0; d < batch.dims; ++d) {
    if (!shared(d)) continue;
    order[next++] = d;
    sharing *= batch.size[d];
  }
  const auto permute = [&](std::int64_t* values) {
    std::int64_t before[max_batch_dims];
    for (int d = 0; d < batch.dims; ++d) before[d] = values[d];
    for (int d = 0; d < batch.dims; ++d) values[d] = before[order[d]];
  };
  for (std::int64_t* values : strides) permute(values);
  permute(batch.size);
  return sharing;
}

// Which rows a launch is about, and the number of the first of their matrices.
struct Stretch {
  std::int64_t first_matrix, matrices, first_row, rows;
};

// Whether all matrices of a call are banks is known on the device only: a kernel counts what speaks against it, and
// those of either method look at the count. With `instead`, the other method is there for matrices that are none.
struct Choice {
  const unsigned* violations = nullptr;
  bool instead = false;

  // For a method that takes banks alone: 1 run, 0 leave it to the other, −1 there is no other: the result is nan.
  TORCH_IIR_GPU int banks() const { return *violations == 0 ? 1 : instead ? 0 : -1; }
  // For the method that takes any matrix.
  TORCH_IIR_GPU bool any() const { return violations == nullptr || *violations != 0; }
};

// Where column j of a row begins: a pointer, or for operands of any type an offset.
template <class Operand>
TORCH_IIR_GPU auto column_at(const Operand& operand, const Batch& batch, std::int64_t row, std::int64_t j) {
  return operand.row(batch, row) + j * operand.step;
}

// Over a warp, the same bits in every lane.
TORCH_IIR_GPU double warp_sum(double value) {
  TORCH_IIR_UNROLL
  for (int mask = 1; mask < warp_size; mask *= 2) value += shuffle_xor(value, mask);
  return value;
}
TORCH_IIR_GPU double warp_largest(double value) {  // of numbers: nan is passed over
  TORCH_IIR_UNROLL
  for (int mask = 1; mask < warp_size; mask *= 2) {
    const double other = shuffle_xor(value, mask);
    value = other > value ? other : value;
  }
  return value;
}
TORCH_IIR_GPU int count_bits(unsigned bits) {
  bits -= bits >> 1 & 0x55555555u;
  bits = (bits & 0x33333333u) + (bits >> 2 & 0x33333333u);
  bits = (bits + (bits >> 4)) & 0x0f0f0f0fu;
  return static_cast<int>(bits * 0x01010101u >> 24);
}

}  // namespace torch_iir::cuda
