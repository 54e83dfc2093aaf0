// Numbers in memory and in a kernel: samples of any storage, computed with in double; operands of a type that is known
// at run time only; complex numbers.
#pragma once

#include <complex>
#include <cstdint>
#include <type_traits>

#include "simt.h"
#include "torch_iir/dtype.h"

namespace torch_iir::cuda {

// std::complex<double>, in the same memory, with functions that a GPU has.
struct Complex {
  double re = 0, im = 0;

  Complex() = default;
  TORCH_IIR_HOST_DEVICE Complex(double re_, double im_ = 0) : re(re_), im(im_) {}

  TORCH_IIR_HOST_DEVICE Complex operator-() const { return {-re, -im}; }
  TORCH_IIR_HOST_DEVICE Complex operator+(Complex o) const { return {re + o.re, im + o.im}; }
  TORCH_IIR_HOST_DEVICE Complex operator-(Complex o) const { return {re - o.re, im - o.im}; }
  TORCH_IIR_HOST_DEVICE Complex operator*(Complex o) const { return {re * o.re - im * o.im, re * o.im + im * o.re}; }
  TORCH_IIR_HOST_DEVICE Complex operator/(Complex o) const {  // scaled: no overflow where the quotient has none
    const double scale = (o.re < 0 ? -o.re : o.re) > (o.im < 0 ? -o.im : o.im) ? o.re : o.im;
    const double r = o.re / scale, i = o.im / scale, norm = (r * o.re + i * o.im);
    return {(re * r + im * i) / norm, (im * r - re * i) / norm};
  }
  TORCH_IIR_HOST_DEVICE Complex& operator+=(Complex o) { return *this = *this + o; }
};
static_assert(sizeof(Complex) == sizeof(std::complex<double>));

TORCH_IIR_HOST_DEVICE inline double conjugate(double x) { return x; }
TORCH_IIR_HOST_DEVICE inline Complex conjugate(Complex x) { return {x.re, -x.im}; }

// What a kernel computes in for a State of a parameter struct.
template <class State>
struct ComputedIn {
  using Type = double;
};
template <>
struct ComputedIn<std::complex<double>> {
  using Type = Complex;
};
template <class State>
using Computed = typename ComputedIn<std::remove_const_t<State>>::Type;

// --- samples: float, double, Half, BFloat16, std::complex<double>

TORCH_IIR_GPU double widen(float x) { return x; }
TORCH_IIR_GPU double widen(double x) { return x; }
TORCH_IIR_GPU double widen(Half x) { return half_to_double(x.bits); }
TORCH_IIR_GPU double widen(BFloat16 x) { return bfloat16_to_double(x.bits); }
TORCH_IIR_GPU Complex widen(const std::complex<double>& x) { return reinterpret_cast<const Complex&>(x); }

template <class Sample>
TORCH_IIR_GPU Sample narrow(double x) {
  if constexpr (std::is_same_v<Sample, Half>) {
    return {half_of(x)};
  } else if constexpr (std::is_same_v<Sample, BFloat16>) {
    return {bfloat16_of(x)};
  } else {
    return static_cast<Sample>(x);
  }
}
template <class Sample>
TORCH_IIR_GPU Sample narrow(Complex x) {
  static_assert(std::is_same_v<Sample, std::complex<double>>);
  return reinterpret_cast<const Sample&>(x);
}

// --- numbers of a type known at run time, `at` elements on

template <class T>
TORCH_IIR_GPU Computed<T> load(const AnyRows<T>& rows, std::int64_t at) {
  const void* const data = rows.data;
  switch (rows.dtype) {
    case DType::float16: return widen(static_cast<const Half*>(data)[at]);
    case DType::bfloat16: return widen(static_cast<const BFloat16*>(data)[at]);
    case DType::float32: return widen(static_cast<const float*>(data)[at]);
    case DType::float64: return static_cast<const double*>(data)[at];
    default: break;
  }
  if constexpr (std::is_same_v<Computed<T>, Complex>) {
    if (rows.dtype == DType::complex128) return static_cast<const Complex*>(data)[at];
    const float* const parts = static_cast<const float*>(data) + 2 * at;
    return {parts[0], parts[1]};
  }
  return 0.0;
}

TORCH_IIR_GPU double real_part(double x) { return x; }
TORCH_IIR_GPU double real_part(Complex x) { return x.re; }

template <class T>
TORCH_IIR_GPU void store(const AnyRows<T>& rows, std::int64_t at, Computed<T> value) {
  void* const data = rows.data;
  switch (rows.dtype) {
    case DType::float16: static_cast<Half*>(data)[at] = narrow<Half>(real_part(value)); return;
    case DType::bfloat16: static_cast<BFloat16*>(data)[at] = narrow<BFloat16>(real_part(value)); return;
    case DType::float32: static_cast<float*>(data)[at] = static_cast<float>(real_part(value)); return;
    case DType::float64: static_cast<double*>(data)[at] = real_part(value); return;
    default: break;
  }
  if constexpr (std::is_same_v<Computed<T>, Complex>) {
    if (rows.dtype == DType::complex128) {
      static_cast<Complex*>(data)[at] = value;
    } else {
      float* const parts = static_cast<float*>(data) + 2 * at;
      parts[0] = static_cast<float>(value.re);
      parts[1] = static_cast<float>(value.im);
    }
  }
}

}  // namespace torch_iir::cuda
