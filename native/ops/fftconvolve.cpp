// torch_iir::fftconvolve: how a convolution is cut, and from tensors to windows of samples.
#include "fftconvolve.h"

#include <algorithm>
#include <cmath>

namespace torch_iir::ops {
namespace {

enum class Cut { none, outputs, sum };

struct Plan {
  Cut cut;
  std::int64_t n, hop, pieces;  // points of a transform, results or terms of a piece
  double cost;                  // about, in nanoseconds on one core; on CUDA in numbers that go through memory
};

// What a transform of n real floats takes a number, with what is done around it; measured. A plan, which torch makes
// anew in each call, costs as much as some rows.
double cost_of(std::int64_t n, std::int64_t transforms) {
  const double points = static_cast<double>(n);
  if constexpr (!on_cpu) {
    // A transform goes through memory once as long as shared memory holds it, and so does what is before and after it.
    const int passes = n <= 1 << 13 ? 1 : n <= 1 << 24 ? 2 : 3;
    return points * static_cast<double>(transforms) * (2 + passes);
  }
  const double beyond_the_caches = n > 1 << 17 ? 1.8 : 1;
  const double each = (0.12 * std::log2(points) + 0.7) * beyond_the_caches,
               plans = 3 * std::min(points / 4096 + 2, 10.0);
  return points * (static_cast<double>(transforms) * each + plans) + 20000;
}

struct Counts {
  std::int64_t x, h, y;  // distinct rows
};

Plan plan_of(const Convolution& f, Counts rows) {
  const std::int64_t T = f.x.whole_length(), K = f.h.length, size = f.y.whole_length();
  const auto outputs = [&](std::int64_t n) {
    const std::int64_t hop = n - K + 1, pieces = (size + hop - 1) / hop;
    return Plan{Cut::outputs, n, hop, pieces, cost_of(n, (rows.x + rows.y) * pieces + rows.h)};
  };
  const auto sum = [&](std::int64_t n) {
    const std::int64_t hop = n - size + 1, pieces = (K + hop - 1) / hop;
    return Plan{Cut::sum, n, hop, pieces, cost_of(n, (rows.x + rows.h) * pieces + rows.y)};
  };
  const bool few_results = size < K;
  if (f.n_fft != 0) {
    STD_TORCH_CHECK(f.n_fft >= std::min(K, size), "n_fft must be 0 or at least the smaller of size and in2's length, ",
                    std::min(K, size), ", got ", f.n_fft);
    return few_results ? sum(f.n_fft) : outputs(f.n_fft);
  }
  const std::int64_t whole = fast_length(T + K - 1);
  Plan best{Cut::none, whole, size, 1, cost_of(whole, rows.x + rows.h + rows.y)};
  const std::int64_t least = few_results ? size : K, most = 2 * (size + K);
  for (std::int64_t power = 64; power <= most; power *= 2) {
    for (const std::int64_t n : {power, power / 2 * 3}) {
      if (n < least + least / 8) continue;
      const Plan plan = few_results ? sum(n) : outputs(n);
      if (plan.cost < best.cost) best = plan;
    }
  }
  return best;
}

Counts counts_of(const Convolution& f) {
  const auto rows = [&](const Samples& samples) {
    std::int64_t count = 1;
    for (int d = 0; d < f.batch.dims; ++d) {
      if (samples.stride[d] != 0) count *= f.batch.size[d];
    }
    return count;
  };
  return {rows(f.x), rows(f.h), rows(f.y)};
}

}  // namespace

template <class C>
bool convolve(const Convolution& f) {
  const std::int64_t T = f.x.whole_length(), K = f.h.length, size = f.y.whole_length();
  const Distinct results(f.batch, {f.y.stride, (f.y.rest ? f.y.rest : &f.y)->stride});
  Destination destination{f.on, f.batch, f.y, f.plus};
  if (f.batch.rows() == 0 || size == 0) return true;
  if (T == 0 || K == 0) {
    destination.clear(results);
    return true;
  }
  const Plan plan = plan_of(f, counts_of(f));
  const std::int64_t n = plan.n, hop = plan.hop;
  Windows of_x{f.start, 0, n, plan.pieces}, of_h{0, 0, K, 1};
  destination.end = size;
  destination.per_piece = hop;
  std::int64_t result_pieces = plan.pieces;
  if (plan.cut == Cut::none) {
    // All of x: for a correlation behind as many zeros as h is long, so that its results lie in a row as well.
    of_x = {f.reverse ? 1 - K : 0, 0, f.reverse ? T + K - 1 : T, 1};
    const std::int64_t first = f.start + (f.reverse ? K - 1 : 0);  // the number of result 0
    destination.begin = std::clamp<std::int64_t>(-first, 0, size);
    destination.end = std::clamp<std::int64_t>(T + K - 1 - first, destination.begin, size);
    destination.from = std::max<std::int64_t>(first, 0);
    destination.per_piece = destination.end - destination.begin;
    if (destination.per_piece < size) destination.clear(results);
    if (destination.per_piece == 0) return true;
  } else if (plan.cut == Cut::outputs) {
    of_x.hop = hop;
    if (!f.reverse) {
      of_x.begin -= K - 1;
      destination.from = K - 1;
    }
  } else {
    result_pieces = 1;
    destination.per_piece = size;
    of_x.hop = f.reverse ? hop : -hop;
    of_h = {0, hop, hop, plan.pieces};
    if (!f.reverse) {
      of_x.begin -= hop - 1;
      destination.from = hop - 1;
    }
  }
  destination.pieces = result_pieces;

  WindowSpectra<C> x(f.on, f.batch, f.x, n, of_x), h(f.on, f.batch, f.h, n, of_h);
  bool finite = true;
  const Product<C> product{h, f.reverse, results, result_pieces,
                           [&](std::int64_t first, std::int64_t count, const Array& spectra) {
                             finite &= destination.store(results, first, count, inverse(spectra, n, is_real<C>));
                           }};
  multiply<C>(f.on, f.batch, plan.pieces, n, x, {&product, 1});
  return finite;
}

template bool convolve<float>(const Convolution&);
template bool convolve<double>(const Convolution&);
template bool convolve<std::complex<float>>(const Convolution&);
template bool convolve<std::complex<double>>(const Convolution&);

Returned fftconvolve(AtenTensorHandle in1, AtenTensorHandle in2, std::int64_t start, std::int64_t size, bool reverse,
                     std::int64_t summed, std::int64_t n_fft) {
  Handle first(in1), second(in2);
  const Tensor x = argument("in1", std::move(first)), h = argument("in2", std::move(second));
  const OnDevice on({&x, &h});
  STD_TORCH_CHECK(size >= 0, "size must not be negative, got ", size);
  STD_TORCH_CHECK(n_fft >= 0, "n_fft must not be negative, got ", n_fft);
  const std::int64_t lengths = x.length() + h.length() + size + std::abs(start);
  STD_TORCH_CHECK(lengths < std::int64_t{1} << 40, "in1, in2, start and size must be below 2^40, got ",
                  describe({&x, &h}), ", start ", start, ", size ", size);
  const bool complex = is_complex(x.dtype) || is_complex(h.dtype), wide = is_wide(x.dtype) || is_wide(h.dtype);
  const bool half = !complex && !wide && x.dtype == h.dtype;
  const DType dtype = complex ? complex_of(wide) : wide ? DType::float64 : half ? x.dtype : DType::float32;

  Strides x_stride, h_stride, y_stride;
  Shape shape;
  Convolution f{on};
  Operand operands[3] = {x.operand(x_stride), h.operand(h_stride)};
  check(broadcast({operands, 2}, shape, f.batch), {&x, &h});
  for (int d = 0; d < shape.dims && d < 63; ++d) {
    if (summed >> d & 1) shape.size[shape.dims - 1 - d] = 1;
  }
  shape.size[shape.dims] = size;
  Handle y = empty(shape.dims + 1, shape.size, dtype);
  std::int64_t strides[max_dims + 1];
  contiguous_strides(shape.dims + 1, shape.size, strides);
  operands[2] = {shape.dims, shape.size, strides, y_stride};
  Shape joint;
  check(broadcast(operands, joint, f.batch), {&x, &h});
  f.x = Samples(x, x_stride, f.batch);
  f.h = Samples(h, h_stride, f.batch);
  f.y = Samples(data(y), dtype, size, 1, y_stride, f.batch);
  f.start = start;
  f.reverse = reverse;
  f.n_fft = n_fft;
  if (f.batch.rows() == 0) fill_zero(y, shape.dims + 1, shape.size, dtype);
  if (complex) {
    static_cast<void>(wide ? convolve<std::complex<double>>(f) : convolve<std::complex<float>>(f));
  } else {
    static_cast<void>(wide ? convolve<double>(f) : convolve<float>(f));
  }
  return {y.release()};
}

}  // namespace torch_iir::ops
