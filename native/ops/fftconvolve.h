// Convolutions and correlations by FFT: the operator, whose schema is in registration.cpp, and what it and
// lfilter make of tensors.
#pragma once

#include <cstdint>

#include "spectra.h"

namespace torch_iir::ops {

//   y[t] = Σ_k h[k] x[t + start − k]      or, reverse,      y[t] = Σ_k conj(h[k]) x[t + start + k]         0 ≤ t < size
//
// A result whose stride is 0 in a dimension of the batch is summed over that dimension. What is long is cut: x into
// windows that overlap by the length of h (overlap-save), or, for long h and few results, h and x into pieces whose
// products are added up.
struct Convolution {
  const OnDevice& on;
  Batch batch = {};
  Samples x = {}, h = {}, y = {};
  const Samples* plus = nullptr;  // added to y
  std::int64_t start = 0;
  bool reverse = false;
  std::int64_t n_fft = 0;  // points of a transform; 0: the fastest
};

// In the precision of C. False if a result is not finite: then those around it may not be either.
template <class C>
bool convolve(const Convolution& f);

Returned fftconvolve(AtenTensorHandle in1, AtenTensorHandle in2, std::int64_t start, std::int64_t size, bool reverse,
                     std::int64_t summed, std::int64_t n_fft);

}  // namespace torch_iir::ops
