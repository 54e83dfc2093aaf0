// torch's own FFTs over the last dimension, and the operators that are made of them, on any device.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>

namespace torch_iir::ops {

using Array = torch::stable::Tensor;

// The scale of a transform of n points, as ATen numbers it.
enum class Norm : std::int64_t { none = 0, by_root_n = 1, by_n = 2 };

Array fft_r2c(const Array& x, Norm norm);  // the first n / 2 + 1 of n bins of real x
Array fft_c2r(const Array& spectrum, std::int64_t n,
              Norm norm);  // the inverse: the imaginary parts of the ends are ignored
Array fft_c2c(const Array& x, bool forward, Norm norm);

// The operators: `input` is padded with zeros or trimmed to what n points take, and transformed.
Array fft(Array input, std::int64_t n, std::int64_t norm);
Array ifft(Array input, std::int64_t n, std::int64_t norm);
Array rfft(Array input, std::int64_t n, std::int64_t norm);
Array irfft(Array input, std::int64_t n, std::int64_t norm);

// Their adjoints under Re⟨·,·⟩, for inputs of `length` values.
Array fft_adjoint(Array input, std::int64_t n, std::int64_t length, std::int64_t norm);
Array ifft_adjoint(Array input, std::int64_t n, std::int64_t length, std::int64_t norm);
Array rfft_adjoint(Array input, std::int64_t n, std::int64_t length, std::int64_t norm);
Array irfft_adjoint(Array input, std::int64_t n, std::int64_t length, std::int64_t norm);

}  // namespace torch_iir::ops
