// Frequency responses of cascades of rational filters, and their gradient.
//
//   h[k] = Π_s B_s(z_k) / A_s(z_k),   B_s(z) = Σ_i b[s][i] z^−i,   A_s(z) = Σ_i a[s][i] z^−i,   z_k = e^{j w[k]}
//
// Shapes      b, a: batch × S × length;  w: batch × W angles;  h: batch × W
// Layout      any strides and steps, 0 included, for what is read; what is written must not overlap itself or an input
// Precision   double, whatever the storage of h. Where no section has more than 3 coefficients, B and A are evaluated
// as
//             b1 + (b0 + b2) cos w + j (b0 − b2) sin w, with cos w as a difference from ±1: exact to rounding also next
//             to zeros and poles at z = ±1
// Non-finite  inf or nan where an A_s is 0
// Cost        14 operations a section and angle, 2 · 4 · length for longer ones, about three times that backwards; two
//             functions of libm an angle, once for all filters that share it
// Threads     any split gives the same bits
#pragma once

#include <complex>

#include "torch_iir/batch.h"
#include "torch_iir/export.h"

namespace torch_iir {

// Value is float or double, Coefficient is double or std::complex<double>.
template <class Value, class Coefficient = double, class Operands = PlainOperands>
struct Freqz {
  Batch batch;
  std::int64_t angles = 0;         // W
  int sections = 1;                // S ≥ 1
  int b_length = 1, a_length = 1;  // coefficients of a section, ≥ 1
  typename Operands::template Matrices<const Coefficient> b, a;
  typename Operands::template Rows<const double> w;  // null: the grid w[k] = step · k
  double step = 0;
  Rows<std::complex<Value>> h;
};

// Gradients of a real scalar L for g = ∂L/∂Re h + j ∂L/∂Im h, the same way for complex coefficients. A gradient whose
// stride is 0 in a batch dimension is summed over that dimension. Every gradient may be null: not wanted. Where
// a section is 0, the gradient of its b is still exact: nothing is divided by a B_s.
template <class Value, class Coefficient = double, class Operands = PlainOperands>
struct FreqzBackward {
  Batch batch;
  std::int64_t angles = 0;
  int sections = 1;
  int b_length = 1, a_length = 1;
  Rows<const std::complex<Value>> g;
  typename Operands::template Matrices<const Coefficient> b, a;
  typename Operands::template Rows<const double> w;  // null: the grid w[k] = step · k
  double step = 0;
  typename Operands::template Matrices<Coefficient> gb, ga;
  typename Operands::template Rows<double> gw;
};

TORCH_IIR_API Status freqz(const Freqz<float>&, ParallelFor = {}) noexcept;
TORCH_IIR_API Status freqz(const Freqz<double>&, ParallelFor = {}) noexcept;
TORCH_IIR_API Status freqz(const Freqz<float, std::complex<double>>&, ParallelFor = {}) noexcept;
TORCH_IIR_API Status freqz(const Freqz<double, std::complex<double>>&, ParallelFor = {}) noexcept;

TORCH_IIR_API Status freqz_backward(const FreqzBackward<float>&, ParallelFor = {}) noexcept;
TORCH_IIR_API Status freqz_backward(const FreqzBackward<double>&, ParallelFor = {}) noexcept;
TORCH_IIR_API Status freqz_backward(const FreqzBackward<float, std::complex<double>>&, ParallelFor = {}) noexcept;
TORCH_IIR_API Status freqz_backward(const FreqzBackward<double, std::complex<double>>&, ParallelFor = {}) noexcept;

}  // namespace torch_iir
