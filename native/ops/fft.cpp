#include "fft.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <array>
#include <utility>
#include <vector>

namespace torch_iir::ops {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::detail::from;

template <std::size_t n>
Array call(const char* op, const char* overload, std::array<StableIValue, n> stack) {
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(op, overload, stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Array>(stack[0]);
}

std::vector<std::int64_t> last_dimension(const Array& x) { return {x.dim() - 1}; }

Norm norm_of(std::int64_t norm) {
  STD_TORCH_CHECK(0 <= norm && norm <= 2, "norm must be 0 (none), 1 (by sqrt(n)) or 2 (by n), got ", norm);
  return static_cast<Norm>(norm);
}

bool is_complex(const Array& x) {
  const ScalarType type = x.scalar_type();
  return type == ScalarType::ComplexFloat || type == ScalarType::ComplexDouble || type == ScalarType::ComplexHalf;
}

void check_input(const Array& x, std::int64_t n, std::int64_t length = 0) {
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK(is_complex(x) || type == ScalarType::Half || type == ScalarType::BFloat16 ||
                      type == ScalarType::Float || type == ScalarType::Double,
                  "input must have a floating or complex dtype");
  STD_TORCH_CHECK(x.dim() >= 1, "input must have at least one dimension, got a scalar");
  STD_TORCH_CHECK(n >= 1, "n must be at least 1, got ", n);
  STD_TORCH_CHECK(length >= 0, "length must be at least 0, got ", length);
}

void check_real(const Array& x) { STD_TORCH_CHECK(!is_complex(x), "input must be real"); }

void check_bins(const Array& x, std::int64_t bins, std::int64_t n) {
  const std::int64_t size = x.size(x.dim() - 1);
  STD_TORCH_CHECK(size == bins, "the last dimension of input must be what n = ", n, " points give, ", bins, ", got ",
                  size);
}

Array as_complex(const Array& x) {
  switch (x.scalar_type()) {
    case ScalarType::Half: return torch::stable::to(x, ScalarType::ComplexHalf);
    case ScalarType::Float: return torch::stable::to(x, ScalarType::ComplexFloat);
    case ScalarType::Double: return torch::stable::to(x, ScalarType::ComplexDouble);
    default:
      STD_TORCH_CHECK(is_complex(x), "input must have a floating or complex dtype that torch's FFT takes");
      return x;
  }
}

// Zeros at the end, or what is beyond it left away.
Array resized(Array x, std::int64_t size) {
  const std::int64_t dim = x.dim() - 1, own = x.size(dim);
  if (size < own) return torch::stable::narrow(x, dim, 0, size);
  if (size == own) return x;
  return torch::stable::pad(x, std::vector<std::int64_t>{0, size - own});
}

// What stands for a transform of no rows, of which MKL makes an error: the last dimension and the dtype changed.
bool no_rows(const Array& x) {
  for (std::int64_t d = 0; d + 1 < x.dim(); ++d) {
    if (x.size(d) == 0) return true;
  }
  return false;
}
Array nothing(const Array& x, std::int64_t size, bool complex) {
  std::vector<std::int64_t> sizes(x.sizes().begin(), x.sizes().end());
  sizes.back() = size;
  ScalarType type = x.scalar_type();
  for (const auto& [real, pairs] :
       {std::pair{ScalarType::Half, ScalarType::ComplexHalf}, std::pair{ScalarType::Float, ScalarType::ComplexFloat},
        std::pair{ScalarType::Double, ScalarType::ComplexDouble}}) {
    if (type == real || type == pairs) type = complex ? pairs : real;
  }
  return torch::stable::new_empty(x, sizes, type);
}

// Fresh and contiguous, as the fakes say.
Array output(const Array& x) { return torch::stable::contiguous(x); }

// Multiplies the bins that stand for two, those but 0 and, of an even number of points, the last.
void scale_inside(Array& spectrum, std::int64_t n, double factor) {
  const std::int64_t count = (n - 1) / 2;
  if (count < 1) return;
  Array inside = torch::stable::narrow(spectrum, spectrum.dim() - 1, 1, count);
  const Array by = torch::stable::full({}, factor, ScalarType::Double);  // the stable ABI passes no scalars
  call<2>("aten::mul_", "Tensor", {from(inside), from(by)});
}

}  // namespace

Array fft_r2c(const Array& x, Norm norm) {
  if (no_rows(x)) return nothing(x, x.size(x.dim() - 1) / 2 + 1, true);
  return call<4>("aten::_fft_r2c", "",
                 {from(x), from(last_dimension(x)), from(static_cast<std::int64_t>(norm)), from(true)});
}

Array fft_c2r(const Array& spectrum, std::int64_t n, Norm norm) {
  if (no_rows(spectrum)) return nothing(spectrum, n, false);
  return call<4>("aten::_fft_c2r", "",
                 {from(spectrum), from(last_dimension(spectrum)), from(static_cast<std::int64_t>(norm)), from(n)});
}

Array fft_c2c(const Array& x, bool forward, Norm norm) {
  if (no_rows(x)) return nothing(x, x.size(x.dim() - 1), true);
  return call<4>("aten::_fft_c2c", "",
                 {from(x), from(last_dimension(x)), from(static_cast<std::int64_t>(norm)), from(forward)});
}

Array fft(Array input, std::int64_t n, std::int64_t norm) {
  check_input(input, n);
  return output(fft_c2c(as_complex(resized(input, n)), true, norm_of(norm)));
}

Array ifft(Array input, std::int64_t n, std::int64_t norm) {
  check_input(input, n);
  return output(fft_c2c(as_complex(resized(input, n)), false, norm_of(norm)));
}

Array rfft(Array input, std::int64_t n, std::int64_t norm) {
  check_input(input, n);
  check_real(input);
  return output(fft_r2c(resized(input, n), norm_of(norm)));
}

Array irfft(Array input, std::int64_t n, std::int64_t norm) {
  check_input(input, n);
  return output(fft_c2r(as_complex(resized(input, n / 2 + 1)), n, norm_of(norm)));
}

Array fft_adjoint(Array input, std::int64_t n, std::int64_t length, std::int64_t norm) {
  check_input(input, n, length);
  check_bins(input, n, n);
  return output(resized(fft_c2c(as_complex(input), false, norm_of(norm)), length));
}

Array ifft_adjoint(Array input, std::int64_t n, std::int64_t length, std::int64_t norm) {
  check_input(input, n, length);
  check_bins(input, n, n);
  return output(resized(fft_c2c(as_complex(input), true, norm_of(norm)), length));
}

Array rfft_adjoint(Array input, std::int64_t n, std::int64_t length, std::int64_t norm) {
  check_input(input, n, length);
  check_bins(input, n / 2 + 1, n);
  Array half = torch::stable::clone(as_complex(input));
  scale_inside(half, n, 0.5);
  return output(resized(fft_c2r(half, n, norm_of(norm)), length));
}

Array irfft_adjoint(Array input, std::int64_t n, std::int64_t length, std::int64_t norm) {
  check_input(input, n, length);
  check_real(input);
  check_bins(input, n, n);
  Array spectrum = fft_r2c(input, norm_of(norm));
  scale_inside(spectrum, n, 2.0);
  return output(resized(spectrum, length));
}

}  // namespace torch_iir::ops
