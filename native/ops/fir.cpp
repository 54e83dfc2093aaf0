#include "fir.h"

#include <algorithm>
#include <vector>

#include "fftconvolve.h"

namespace torch_iir::ops {

bool only_ones(const Tensor& tensor) {
  const std::int64_t values = count(tensor.dims, tensor.size);
  for (std::int64_t i = 0; i < values; ++i) {
    std::int64_t elements = 0, left = i;
    for (int d = tensor.dims - 1; d >= 0; --d) {
      elements += left % tensor.size[d] * tensor.stride[d];
      left /= tensor.size[d];
    }
    double value;
    convert_from(tensor.dtype, offset(tensor.data, tensor.dtype, elements), 1, 1, &value);
    if (value != 1) return false;
  }
  return values > 0;
}

bool filter_by_fft(const Batch& batch, const Samples& x, const Samples& b, const Samples* zi, const Samples& y,
                   const Samples& zf) {
  Samples y_and_zf = y;  // the state is what would come next
  y_and_zf.rest = &zf;
  const OnDevice on({});
  return convolve<double>({on, batch, x, b, y_and_zf, zi});
}

bool gradients_by_fft(const Batch& batch, const Samples& g, const Samples& x, const Samples& b, const Samples& gx,
                      const Samples& gb, const Samples& gzi) {
  const OnDevice on({});
  Convolution f{on, batch, g, b};
  f.reverse = true;
  if (gx.data != nullptr) {
    f.y = gx;
    if (!convolve<double>(f)) return false;
  }
  if (gb.data != nullptr) {
    f.h = x;
    f.y = gb;
    if (!convolve<double>(f)) return false;
  }
  if (gzi.data == nullptr) return true;
  // zi is added to the first outputs and, beyond them, to zf.
  const Distinct results(batch, {gzi.stride});
  const std::size_t length = static_cast<std::size_t>(gzi.length);
  std::vector<double> sums(static_cast<std::size_t>(results.count()) * length), one(length);
  for (std::int64_t row = 0; row < batch.rows(); ++row) {
    std::int64_t at = 0;
    for (const Samples* stretch = &g; stretch != nullptr && at < gzi.length; stretch = stretch->rest) {
      const std::int64_t count = std::min(stretch->length, gzi.length - at);
      std::fill_n(one.data() + at, count, 0.0);
      if (stretch->data != nullptr)
        convert_from(stretch->dtype, stretch->row(batch, row), stretch->step, count, one.data() + at);
      at += count;
    }
    double* sum = sums.data() + static_cast<std::size_t>(results.of_row(row)) * length;
    for (std::size_t k = 0; k < static_cast<std::size_t>(at); ++k) sum[k] += one[k];
  }
  for (std::int64_t i = 0; i < results.count(); ++i) {
    convert_to(gzi.dtype, sums.data() + static_cast<std::size_t>(i) * length, gzi.length,
               gzi.row(batch, results.first(i)), gzi.step);
  }
  return true;
}

}  // namespace torch_iir::ops
