// Products of spectra, row by row: what a convolution is between a transform and its inverse.
//
//   y[i][k] = x[i][k] h[i][k], or x[i][k] conj(h[i][k]) for a correlation          or this added to y[i][k]
//
// Shapes      x, h, y: `count` rows of `bins` complex numbers, contiguous each. Rows may be the same: one spectrum of a
//             filter for many signals; with Sum = double, products that are added up may share their y
// Precision   that of Value; sums in double
// Cost        one read of x and h, one write of y
// Threads     any split gives the same bits
#pragma once

#include <complex>

#include "torch_iir/batch.h"
#include "torch_iir/export.h"

namespace torch_iir {

// Value is float or double. Sum is Value, and y is overwritten; or `add` is set, Sum is double, and y is added to.
template <class Value, class Sum = Value>
struct SpectralProduct {
  std::int64_t count = 0, bins = 0;
  bool conjugate = false;  // h
  bool add = false;
  const std::complex<Value>* const* x = nullptr;
  const std::complex<Value>* const* h = nullptr;
  std::complex<Sum>* const* y = nullptr;
};

TORCH_IIR_API Status spectral_product(const SpectralProduct<float>&, ParallelFor = {}) noexcept;
TORCH_IIR_API Status spectral_product(const SpectralProduct<double>&, ParallelFor = {}) noexcept;
TORCH_IIR_API Status spectral_product(const SpectralProduct<float, double>&, ParallelFor = {}) noexcept;

}  // namespace torch_iir
