// Direct-form linear recurrence over rows of samples, and its gradient.
//
//   a[0] y[t] = Σ_{k≥0} b[k] x[t−k] − Σ_{k≥1} a[k] y[t−k]            order N = max(len b, len a) − 1
//
// Shapes      x, y: batch × T;  b: batch × len b;  a: batch × len a;  zi, zf: batch × N, the state in transposed direct
//             form II of the filter normalised to a[0] = 1: zi[j] is added to y[j], zf[j] to y[T + j]
// Layout      any strides and steps, 0 and negative ones included, for what is read; the rows of y and of zf must not
//             overlap each other or an input, except that zf may be zi
// Precision   recursion and drive in double, whatever the storage: the error of a float result is its rounding
// Cost        one read of x, one write of y, 2N + 1 multiply-adds a sample (3N + 1 for one row cut into segments)
// Threads     rows are independent; any split of them gives the same bits
#pragma once

#include <complex>

#include "torch_iir/algorithm.h"
#include "torch_iir/batch.h"
#include "torch_iir/export.h"

namespace torch_iir {

// Sample is float, double, Half or BFloat16 with State = double, or both are std::complex<double>.
template <class Sample, class State = double, class Operands = PlainOperands>
struct LFilter {
  Batch batch;
  std::int64_t samples = 0;  // T
  int b_length = 0, a_length = 0;
  Rows<const Sample> x;
  typename Operands::template Rows<const State> b, a;
  typename Operands::template Rows<const State> zi;  // null: at rest
  Rows<Sample> y;
  typename Operands::template Rows<State> zf;  // null: not wanted
};

// Gradients of a real scalar S for g = ∂S/∂y and γ = ∂S/∂zf (conjugated as torch does where State is complex):
//
//   v[t] = g[t] − Σ_{k≥1} a[k] v[t+k],  v[T+j] = γ[j]                 (a, b normalised; v conjugates them)
//   gx[t] = Σ_k b[k] v[t+k]    gb[k] = Σ_t v[t] x[t−k]    ga[k] = −Σ_t v[t] y[t−k]    gzi[j] = v[j]
//
// in one pass over time, backwards. A gradient whose stride is 0 in a batch dimension is summed over that dimension.
// Every gradient may be null: not wanted. gx, gb, ga and gzi are overwritten.
template <class Sample, class State = double, class Operands = PlainOperands>
struct LFilterBackward {
  Batch batch;
  std::int64_t samples = 0;
  int b_length = 0, a_length = 0;
  Rows<const Sample> gy;                              // null: zero
  typename Operands::template Rows<const State> gzf;  // null: zero
  Rows<const Sample> x, y;
  typename Operands::template Rows<const State> b, a;
  Rows<Sample> gx;
  typename Operands::template Rows<State> gb, ga, gzi;
};

TORCH_IIR_API Status lfilter(const LFilter<float>&, Algorithm = Algorithm::automatic, ParallelFor = {}) noexcept;
TORCH_IIR_API Status lfilter(const LFilter<double>&, Algorithm = Algorithm::automatic, ParallelFor = {}) noexcept;
TORCH_IIR_API Status lfilter(const LFilter<Half>&, Algorithm = Algorithm::automatic, ParallelFor = {}) noexcept;
TORCH_IIR_API Status lfilter(const LFilter<BFloat16>&, Algorithm = Algorithm::automatic, ParallelFor = {}) noexcept;
TORCH_IIR_API Status lfilter(const LFilter<std::complex<double>, std::complex<double>>&,
                             Algorithm = Algorithm::automatic, ParallelFor = {}) noexcept;

TORCH_IIR_API Status lfilter_backward(const LFilterBackward<float>&, Algorithm = Algorithm::automatic,
                                      ParallelFor = {}) noexcept;
TORCH_IIR_API Status lfilter_backward(const LFilterBackward<double>&, Algorithm = Algorithm::automatic,
                                      ParallelFor = {}) noexcept;
TORCH_IIR_API Status lfilter_backward(const LFilterBackward<Half>&, Algorithm = Algorithm::automatic,
                                      ParallelFor = {}) noexcept;
TORCH_IIR_API Status lfilter_backward(const LFilterBackward<BFloat16>&, Algorithm = Algorithm::automatic,
                                      ParallelFor = {}) noexcept;
TORCH_IIR_API Status lfilter_backward(const LFilterBackward<std::complex<double>, std::complex<double>>&,
                                      Algorithm = Algorithm::automatic, ParallelFor = {}) noexcept;

// What `automatic` chooses for so many rows of so many samples.
TORCH_IIR_API Algorithm lfilter_algorithm(std::int64_t rows, std::int64_t samples, int order,
                                          bool complex = false) noexcept;

}  // namespace torch_iir
