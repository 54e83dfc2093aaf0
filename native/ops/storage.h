// How the kernels of a recurrence see an operator's tensors: samples in the signal's own dtype, coefficients and states
// in double; complex samples through real coefficients as pairs of real rows; everything in complex128 where a
// coefficient is complex.
#pragma once

#include <algorithm>
#include <complex>
#include <initializer_list>
#include <type_traits>

#include "device.h"

namespace torch_iir::ops {

using Complex = std::complex<double>;

// Complex samples through real coefficients: their real and imaginary parts are two rows of the real kernel.
template <class T>
struct Pairs {};

template <class T>
struct Types {
  using Sample = T;
  using State = double;  // of coefficients
  using In = View<T>;
  using Out = Fresh<T>;
  using HeldIn = SmallIn<double>;
  using HeldOut = SmallOut<double>;
  static constexpr bool pairs = false;
};
template <class T>
struct Types<Pairs<T>> {
  using Sample = T;
  using State = double;
  using In = View<std::complex<T>>;
  using Out = Fresh<std::complex<T>>;
  using HeldIn = SmallIn<Complex, true>;
  using HeldOut = SmallOut<Complex, true>;
  static constexpr bool pairs = true;
};
template <>
struct Types<Complex> {
  using Sample = Complex;
  using State = Complex;
  using In = As<Complex>;
  using Out = Into<Complex>;
  using HeldIn = SmallIn<Complex>;
  using HeldOut = SmallOut<Complex>;
  static constexpr bool pairs = false;
};

// Calls f.operator()<T>() with the storage type of a real dtype.
template <class F>
auto visit_real(DType dtype, F&& f) {
  switch (dtype) {
    case DType::float16: return f.template operator()<Half>();
    case DType::bfloat16: return f.template operator()<BFloat16>();
    case DType::float64: return f.template operator()<double>();
    default: return f.template operator()<float>();
  }
}

class Storage {
 public:
  // `past` is a state beside zi; what is absent may be anywhere.
  Storage(const Tensor& x, std::initializer_list<const Tensor*> coefficients, const Tensor& zi,
          const Tensor* past = nullptr)
      : sample_(x.dtype) {
    const auto complex = [](const Tensor* t) { return t != nullptr && *t && is_complex(t->dtype); };
    const bool complex_coefficients = std::any_of(coefficients.begin(), coefficients.end(), complex);
    const bool any_complex = complex_coefficients || complex(&x) || complex(&zi) || complex(past);
    const bool wide = is_wide(x.dtype), wide_state = wide || (zi && is_wide(zi.dtype));
    result = any_complex ? complex_of(wide) : x.dtype;
    state = any_complex ? complex_of(wide_state) : wide_state ? DType::float64 : DType::float32;
    pairs_ = is_complex(x.dtype) && !complex_coefficients;
  }

  DType result, state;  // dtypes of y and zf

  // Calls f.operator()<T>() with what Types describes.
  template <class F>
  auto visit(F&& f) const {
    if (pairs_)
      return is_wide(sample_) ? f.template operator()<Pairs<double>>() : f.template operator()<Pairs<float>>();
    if (is_complex(result)) return f.template operator()<Complex>();
    return visit_real(sample_, f);
  }

 private:
  DType sample_;
  bool pairs_;
};

using Strides = std::int64_t[max_batch_dims];

template <class T>
Rows<T> rows(T* data, std::int64_t step, const std::int64_t* stride, const Batch& batch) {
  Rows<T> result{data, step};
  std::copy_n(stride, batch.dims, result.stride);
  return result;
}

template <bool as_pairs, class T>
auto rows_of(T* data, std::int64_t step, const std::int64_t* stride, const Batch& batch) {
  if constexpr (as_pairs) {
    using Number = std::remove_const_t<T>;
    using Real = std::conditional_t<std::is_const_v<T>, const typename Number::value_type, typename Number::value_type>;
    Rows<Real> result{reinterpret_cast<Real*>(data), 2 * step};
    for (int d = 0; d < batch.dims; ++d) result.stride[d] = 2 * stride[d];
    result.stride[batch.dims] = 1;
    return result;
  } else {
    return rows(data, step, stride, batch);
  }
}

template <bool as_pairs, class T>
auto matrices_of(T* data, std::int64_t down, std::int64_t step, const std::int64_t* stride, const Batch& batch) {
  const auto base = rows_of<as_pairs>(data, step, stride, batch);
  using Element = std::remove_reference_t<decltype(*base.data)>;
  return Matrices<Element>{base, (as_pairs ? 2 : 1) * down};
}

// The pair as one more dimension of the batch, the innermost, in which coefficients have stride 0.
inline Batch with_pairs(Batch batch, bool pairs) {
  if (!pairs) return batch;
  STD_TORCH_CHECK(batch.dims < max_batch_dims, "too many dimensions that cannot be merged: at most ",
                  max_batch_dims - 1, " for complex x, got ", batch.dims);
  batch.size[batch.dims++] = 2;
  return batch;
}

// `core`: the sizes that the tensor must have after the batch dimensions.
inline void check_shape(const Tensor& tensor, const Shape& shape, std::initializer_list<std::int64_t> core,
                        const char* of) {
  STD_TORCH_CHECK(!tensor || (tensor.dims == shape.dims + static_cast<int>(core.size()) &&
                              std::equal(shape.size, shape.size + shape.dims, tensor.size) &&
                              std::equal(core.begin(), core.end(), tensor.size + shape.dims)),
                  tensor.name, " must have the shape of ", of, ", got ", describe({&tensor}));
}

}  // namespace torch_iir::ops
