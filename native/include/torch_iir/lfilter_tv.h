// Direct-form linear recurrence whose coefficients change from sample to sample, over rows of samples, and its
// gradient.
//
//   Σ_k a[t,k] y[t−k] = Σ_k b[t,k] x[t−k]            lags k from `first` to `first + length − 1` of b and of a
//
// With a.first = 1 the coefficient a[t,0] is 1 and not there. Without b, y is driven by x itself.
//
// Shapes      x, y: batch × T;  b, a: batch × frames × length;  zx, zf, zi: batch × the largest lag of b, of a, of a:
//             the past x, and the y to come or past, the newest first
// Frames      with a period of 1, frames is T; with more, frame f holds the coefficients of sample f · period, between
//             frames they are interpolated linearly, after the last one they stay: frames is ⌈T / period⌉ or more. A
//             single frame holds for all samples, whatever the period.
// Layout      any strides and steps, 0 and negative ones included, for what is read; the rows of y and of zf must not
//             overlap each other or an input, except that zf may be zi
// Precision   recursion, drive and interpolation in double, whatever the storage
// Cost        one read of x, b and a, one write of y, length b + length a multiply-adds a sample (some more where a row
//             is cut into segments)
// Threads     rows are independent; any split of them gives the same bits
#pragma once

#include <complex>

#include "torch_iir/algorithm.h"
#include "torch_iir/batch.h"
#include "torch_iir/export.h"

namespace torch_iir {

// Coefficients over time: a row of the matrix for each frame.
template <class T>
struct Taps : Matrices<T> {
  int length = 0;           // coefficients of a frame
  int first = 0;            // lag of the first of them: 0, or 1
  std::int64_t frames = 1;  // T or ⌈T / period⌉ or more; 1: constant

  [[gnu::always_inline]] int largest_lag() const noexcept { return length > 0 ? first + length - 1 : 0; }
};

// Sample is float, double, Half or BFloat16 and Coefficient the same or double, with State = double; or all three are
// std::complex<double>.
template <class Sample, class Coefficient = Sample, class State = double, class Operands = PlainOperands>
struct LFilterTV {
  Batch batch;
  std::int64_t samples = 0;  // T
  std::int64_t period = 1;   // samples from frame to frame
  Rows<const Sample> x;
  Taps<const Coefficient> b;                             // null: the drive is x
  Taps<const Coefficient> a;                             // no data needed where its length is 0; its first is 1 then
  typename Operands::template Rows<const State> zx, zi;  // null: at rest
  Rows<Sample> y;
  typename Operands::template Rows<State> zf;  // null: not wanted
};

// Gradients of a real scalar S for g = ∂S/∂y and γ = ∂S/∂zf (conjugated as torch does where State is complex):
//
//   Σ_k a[t+k,k] v[t+k] = g[t]           for t < T, where v[t] = 0 from T on and γ[j] is added to the g of zf[j]'s
//   sample gx[t] = Σ_k b[t+k,k] v[t+k]    gb[t,k] = v[t] x[t−k]    ga[t,k] = −v[t] y[t−k] gzx, gzi: the same as gx and,
//   with −a in the place of b, at the times before the first sample
//
// in one pass over time, backwards (v conjugates a and b). A gradient whose stride is 0 in a batch dimension is summed
// over that dimension; gb and ga have the frames of b and of a, and are summed over the samples that a frame reaches.
// Every gradient may be null: not wanted. All are overwritten.
template <class Sample, class Coefficient = Sample, class State = double, class Operands = PlainOperands>
struct LFilterTVBackward {
  Batch batch;
  std::int64_t samples = 0;
  std::int64_t period = 1;
  Rows<const Sample> gy;                              // null: zero
  typename Operands::template Rows<const State> gzf;  // null: zero
  Rows<const Sample> x, y;
  Taps<const Coefficient> b, a;
  typename Operands::template Rows<const State> zx, zi;
  Rows<Sample> gx;
  Matrices<Coefficient> gb, ga;
  typename Operands::template Rows<State> gzx, gzi;
};

// Algorithms: direct; blocks, for real signals of order 1 or more; rows, up to order 16, and segments, of order 1 and
// 2, for samples in float and double. Where some a[t,0] is 0 the status says so, and what was written is of no use.
#define TORCH_IIR_LFILTER_TV(...)                                                                                   \
  TORCH_IIR_API Status lfilter_tv(const LFilterTV<__VA_ARGS__>&, Algorithm = Algorithm::automatic,                  \
                                  ParallelFor = {}) noexcept;                                                       \
  TORCH_IIR_API Status lfilter_tv_backward(const LFilterTVBackward<__VA_ARGS__>&, Algorithm = Algorithm::automatic, \
                                           ParallelFor = {}) noexcept
TORCH_IIR_LFILTER_TV(float);
TORCH_IIR_LFILTER_TV(float, double);
TORCH_IIR_LFILTER_TV(double);
TORCH_IIR_LFILTER_TV(Half);
TORCH_IIR_LFILTER_TV(Half, double);
TORCH_IIR_LFILTER_TV(BFloat16);
TORCH_IIR_LFILTER_TV(BFloat16, double);
TORCH_IIR_LFILTER_TV(std::complex<double>, std::complex<double>, std::complex<double>);
#undef TORCH_IIR_LFILTER_TV

// What `automatic` chooses for so many rows of so many samples; the order is the largest lag of a.
TORCH_IIR_API Algorithm lfilter_tv_algorithm(std::int64_t rows, std::int64_t samples, int order,
                                             bool complex = false) noexcept;

}  // namespace torch_iir
