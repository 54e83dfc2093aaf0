// Cascade of second-order sections over rows of samples, and its gradient.
//
//   u_0 = x,   u_s[t] = b0 u_{s−1}[t] + b1 u_{s−1}[t−1] + b2 u_{s−1}[t−2] − a1 u_s[t−1] − a2 u_s[t−2],   y = u_S
//
// with the coefficients of section s divided by its a0.
//
// Shapes      x, y: batch × T;  sos: batch × S × 6, rows b0 b1 b2 a0 a1 a2;  zi, zf: batch × S × 2, the states of the
//             sections in transposed direct form II: zi[s][0] is added to u_s[0], zi[s][1] to u_s[1]
// Layout      as for lfilter: any strides for what is read; the rows of y and of zf must not overlap each other or an
//             input, except that zf may be zi
// Precision   everything between x and y in double, whatever the storage
// Cost        one read of x, one write of y, 4 S to 6 S multiply-adds a sample; the sections are never in memory
// Threads     rows are independent; any split of them gives the same bits
#pragma once

#include <complex>

#include "torch_iir/algorithm.h"
#include "torch_iir/batch.h"
#include "torch_iir/export.h"

namespace torch_iir {

// Sample is float, double, Half or BFloat16 with State = double, or both are std::complex<double>.
template <class Sample, class State = double, class Operands = PlainOperands>
struct SOSFilt {
  Batch batch;
  std::int64_t samples = 0;  // T
  int sections = 0;          // S ≥ 1
  Rows<const Sample> x;
  typename Operands::template Matrices<const State> sos;
  typename Operands::template Matrices<const State> zi;  // null: at rest
  Rows<Sample> y;
  typename Operands::template Matrices<State> zf;  // null: not wanted
};

// Gradients of a real scalar for g = ∂/∂y and γ = ∂/∂zf: those of lfilter, section by section from the last. The inner
// signals are not kept by the forward pass but computed again, a stretch of time at a time, from states that backward's
// own first pass leaves at the stretches' beginnings. A gradient whose stride is 0 in a batch dimension is summed over
// that dimension. Every gradient may be null: not wanted.
template <class Sample, class State = double, class Operands = PlainOperands>
struct SOSFiltBackward {
  Batch batch;
  std::int64_t samples = 0;
  int sections = 0;
  Rows<const Sample> gy;                                  // null: zero
  typename Operands::template Matrices<const State> gzf;  // null: zero
  Rows<const Sample> x;
  typename Operands::template Matrices<const State> sos;
  typename Operands::template Matrices<const State> zi;  // null: at rest
  Rows<Sample> gx;
  typename Operands::template Matrices<State> gsos, gzi;
};

TORCH_IIR_API Status sosfilt(const SOSFilt<float>&, Algorithm = Algorithm::automatic, ParallelFor = {}) noexcept;
TORCH_IIR_API Status sosfilt(const SOSFilt<double>&, Algorithm = Algorithm::automatic, ParallelFor = {}) noexcept;
TORCH_IIR_API Status sosfilt(const SOSFilt<Half>&, Algorithm = Algorithm::automatic, ParallelFor = {}) noexcept;
TORCH_IIR_API Status sosfilt(const SOSFilt<BFloat16>&, Algorithm = Algorithm::automatic, ParallelFor = {}) noexcept;
TORCH_IIR_API Status sosfilt(const SOSFilt<std::complex<double>, std::complex<double>>&,
                             Algorithm = Algorithm::automatic, ParallelFor = {}) noexcept;

TORCH_IIR_API Status sosfilt_backward(const SOSFiltBackward<float>&, Algorithm = Algorithm::automatic,
                                      ParallelFor = {}) noexcept;
TORCH_IIR_API Status sosfilt_backward(const SOSFiltBackward<double>&, Algorithm = Algorithm::automatic,
                                      ParallelFor = {}) noexcept;
TORCH_IIR_API Status sosfilt_backward(const SOSFiltBackward<Half>&, Algorithm = Algorithm::automatic,
                                      ParallelFor = {}) noexcept;
TORCH_IIR_API Status sosfilt_backward(const SOSFiltBackward<BFloat16>&, Algorithm = Algorithm::automatic,
                                      ParallelFor = {}) noexcept;
TORCH_IIR_API Status sosfilt_backward(const SOSFiltBackward<std::complex<double>, std::complex<double>>&,
                                      Algorithm = Algorithm::automatic, ParallelFor = {}) noexcept;

// What `automatic` chooses for so many rows of so many samples.
TORCH_IIR_API Algorithm sosfilt_algorithm(std::int64_t rows, std::int64_t samples, int sections,
                                          bool complex = false) noexcept;

}  // namespace torch_iir
