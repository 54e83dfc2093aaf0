// lfilter without recursion, y = b * x + zi, as convolutions by FFT, in double.
//
// They return false where a result is not finite: a transform spreads it over its whole window, so that the kernels,
// in which it harms no earlier sample, have to run instead.
#pragma once

#include "spectra.h"

namespace torch_iir::ops {

bool only_ones(const Tensor& tensor);

bool filter_by_fft(const Batch& batch, const Samples& x, const Samples& b, const Samples* zi, const Samples& y,
                   const Samples& zf);

// `g` is the gradient of y, continued by that of zf. Gradients are summed over the dimensions in which they have stride
// 0; those without data are not wanted.
bool gradients_by_fft(const Batch& batch, const Samples& g, const Samples& x, const Samples& b, const Samples& gx,
                      const Samples& gb, const Samples& gzi);

}  // namespace torch_iir::ops
