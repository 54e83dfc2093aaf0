// torch_iir::lfilter_fsm and lfilter_fsm_backward on the CPU.
//
//   y = P irfft(H rfft(x)),   H = freqz(b, a) at 2πk/n,   P keeps T samples
//
// With X = rfft(x), G = rfft(gy): gx = P irfft(conj(H) G), and ∂L/∂H = w conj(X) G / n, where w = 2, but 1 at the
// bins 0 and n/2, which stand for themselves alone.
#include "lfilter_fsm.h"

#include <algorithm>
#include <vector>

#include "cascade.h"
#include "spectra.h"
#include "torch_iir/freqz.h"

namespace torch_iir::ops {
namespace {

constexpr double pi = 3.14159265358979323846;

struct Arguments {
  Tensor x;
  Cascade filter;
  std::int64_t samples, n;

  Arguments(Handle x_, Handle b, Handle a, std::int64_t n_fft)
      : x(argument("x", std::move(x_))), filter(std::move(b), std::move(a)), samples(x.length()), n(n_fft) {
    for (const Tensor* tensor : {&x, &filter.b, &filter.a})
      STD_TORCH_CHECK(!is_complex(tensor->dtype), tensor->name, " must be real");
    STD_TORCH_CHECK(n == 0 || n >= std::max<std::int64_t>(samples, 1),
                    "n_fft must be 0 or at least the number of samples of x, T, got n_fft ", n, ", T ", samples);
    if (n == 0) n = fast_length(2 * samples);
  }
  bool wide() const { return x.dtype == DType::float64; }
};

// One of the filters' coefficients over a batch.
struct Coefficients {
  As<double> values;
  Strides stride;
  Matrices<const double> matrices;

  explicit Coefficients(const Tensor& tensor) : values(tensor) {}
  Operand operand() { return values.operand(stride, 2); }
  void lay_over(const Batch& batch) {
    matrices = matrices_of<false>(values.data, values.down(), values.step(), stride, batch);
  }
  // Of one row of the batch, one section after another.
  void copy(const Batch& batch, std::int64_t row, int sections, std::int64_t length, std::vector<double>& to) const {
    const double* from = matrices.row(batch, row);
    for (int s = 0; s < sections; ++s) {
      for (std::int64_t k = 0; k < length; ++k) to.push_back(from[s * matrices.down + k * matrices.step]);
    }
  }
};

// The responses of the filters, for the distinct pairs of b and a.
template <class C>
class Responses : public Spectra<C> {
 public:
  Responses(const Arguments& args, const Batch& batch, const Coefficients& b, const Coefficients& a)
      : Spectra<C>(Distinct(batch, {b.stride, a.stride}), args.n, 1), batch_(batch), b_(b), a_(a) {
    kernel_.sections = args.filter.sections();
    kernel_.b_length = static_cast<int>(args.filter.b.length());
    kernel_.a_length = static_cast<int>(args.filter.a.length());
    kernel_.angles = bins_of<C>(args.n);
    kernel_.step = 2 * pi / static_cast<double>(args.n);
  }

 protected:
  Array make(std::int64_t first, std::int64_t count) const override {
    std::vector<double> b, a;
    for (std::int64_t i = first; i < first + count; ++i) {
      b_.copy(batch_, this->rows_.first(i), kernel_.sections, kernel_.b_length, b);
      a_.copy(batch_, this->rows_.first(i), kernel_.sections, kernel_.a_length, a);
    }
    const Array h = empty_rows<Spectral<C>>(count, kernel_.angles);
    auto kernel = kernel_;
    kernel.batch = {1, {count}};
    const auto matrices = [&](const std::vector<double>& values, std::int64_t length) {
      const std::int64_t stride[] = {kernel.sections * length};
      return matrices_of<false>(values.data(), length, 1, stride, kernel.batch);
    };
    kernel.b = matrices(b, kernel.b_length);
    kernel.a = matrices(a, kernel.a_length);
    const std::int64_t stride[] = {kernel.angles};
    kernel.h = rows(numbers<Spectral<C>>(h), 1, stride, kernel.batch);
    check(torch_iir::freqz(kernel, parallel_for()), Algorithm::automatic, "a");
    return h;
  }

 private:
  Freqz<Real<C>> kernel_;
  const Batch& batch_;
  const Coefficients &b_, &a_;
};

template <class C>
Returned forward(const Arguments& args) {
  Coefficients b(args.filter.b), a(args.filter.a);
  Strides x_stride, y_stride;
  const Operand operands[] = {args.x.operand(x_stride), b.operand(), a.operand()};
  Shape shape;
  Batch batch;
  check(broadcast(operands, shape, batch), {&args.x, &args.filter.b, &args.filter.a});
  shape.size[shape.dims] = args.samples;
  Handle y = empty(shape.dims + 1, shape.size, args.x.dtype);
  if (batch.rows() == 0 || args.samples == 0) return {y.release()};
  row_major(batch, args.samples, y_stride);
  b.lay_over(batch);
  a.lay_over(batch);

  const Samples x(args.x, x_stride, batch), to(data(y), args.x.dtype, args.samples, 1, y_stride, batch);
  WindowSpectra<C> spectra(batch, x, args.n, {0, 0, args.samples, 1});
  Responses<C> responses(args, batch, b, a);
  const Distinct rows(batch, {to.stride});
  const Destination destination{batch, to, nullptr, 1, 0, args.samples, args.samples, 0};
  const Product<C> product{responses, false, rows, 1,
                           [&](std::int64_t first, std::int64_t count, const Array& products) {
                             static_cast<void>(destination.store(rows, first, count, inverse(products, args.n, true)));
                           }};
  multiply<C>(batch, 1, args.n, spectra, {&product, 1});
  return {y.release()};
}

// Products of spectra, single or double, with the weights of their bins.
void weigh(const Array& products, std::int64_t count, std::int64_t n, std::complex<double>* to) {
  const std::int64_t bins = bins_of<double>(n);
  const double scale = 2 / static_cast<double>(n);
  const auto run = [&](const auto* from) {
    for_each_range(count, bins, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row) {
        std::complex<double>* weighed = to + row * bins;
        for (std::int64_t k = 0; k < bins; ++k) weighed[k] = std::complex<double>(from[row * bins + k]) * scale;
        weighed[0] *= 0.5;
        if (n % 2 == 0) weighed[bins - 1] *= 0.5;
      }
    });
  };
  if (products.scalar_type() == torch::headeronly::ScalarType::ComplexFloat) {
    run(numbers<std::complex<float>>(products));
  } else {
    run(numbers<std::complex<double>>(products));
  }
}

template <class C>
std::tuple<Returned, Returned, Returned> backward(const Arguments& args, const Tensor& gy, const bool (&wanted)[3]) {
  Coefficients b(args.filter.b), a(args.filter.a);
  Handle gx = empty_gradient(wanted[0], args.x), gb = empty_gradient(wanted[1], args.filter.b),
         ga = empty_gradient(wanted[2], args.filter.a);
  const Handle none;
  Into<double> gb_out(wanted[1] ? gb : none, args.filter.b.dtype, args.filter.b.dims, args.filter.b.size);
  Into<double> ga_out(wanted[2] ? ga : none, args.filter.a.dtype, args.filter.a.dims, args.filter.a.size);
  std::int64_t gx_strides[max_dims];
  contiguous_strides(args.x.dims, args.x.size, gx_strides);

  // The gradients are laid out like what they belong to, but each element has a place of its own.
  Strides x_stride, gy_stride, gx_stride, gb_stride = {}, ga_stride = {};
  Operand operands[7] = {args.x.operand(x_stride),
                         b.operand(),
                         a.operand(),
                         gy.operand(gy_stride),
                         {args.x.dims - 1, args.x.size, gx_strides, gx_stride}};
  std::size_t count = 5;
  if (wanted[1]) operands[count++] = gb_out.operand(gb_stride, 2);
  if (wanted[2]) operands[count++] = ga_out.operand(ga_stride, 2);
  Shape shape;
  Batch batch;
  check(broadcast({operands, count}, shape, batch), {&args.x, &args.filter.b, &args.filter.a, &gy});
  check_shape(gy, shape, {args.samples}, "y");
  put_shared_last(batch, {gb_stride, ga_stride},
                  {x_stride, gy_stride, gx_stride, gb_stride, ga_stride, b.stride, a.stride});
  b.lay_over(batch);
  a.lay_over(batch);

  const bool wants_filter = wanted[1] || wanted[2];
  if (batch.rows() > 0 && args.samples > 0) {
    const Samples x(args.x, x_stride, batch), g(gy, gy_stride, batch);
    const Samples to(wanted[0] ? data(gx) : nullptr, args.x.dtype, args.samples, 1, gx_stride, batch);
    const Windows all{0, 0, args.samples, 1};
    WindowSpectra<C> of_x(batch, x, args.n, all), of_g(batch, g, args.n, all);
    Responses<C> responses(args, batch, b, a);
    const Distinct inputs(batch, {to.stride}), filters(batch, {gb_stride, ga_stride});
    const Destination destination{batch, to, nullptr, 1, 0, args.samples, args.samples, 0};
    const std::int64_t bins = bins_of<C>(args.n);
    const Array of_h = empty_rows<std::complex<double>>(wants_filter ? filters.count() : 0, bins);
    std::vector<Product<C>> products;
    if (wanted[0]) {
      products.push_back({responses, true, inputs, 1, [&](std::int64_t first, std::int64_t rows, const Array& spectra) {
                            static_cast<void>(destination.store(inputs, first, rows, inverse(spectra, args.n, true)));
                          }});
    }
    if (wants_filter) {
      products.push_back({of_x, true, filters, 1, [&](std::int64_t first, std::int64_t rows, const Array& spectra) {
                            weigh(spectra, rows, args.n, numbers<std::complex<double>>(of_h) + first * bins);
                          }});
    }
    multiply<C>(batch, 1, args.n, of_g, products);
    if (wants_filter) {
      FreqzBackward<double> kernel;
      kernel.batch = batch;
      for (int d = 0; d < batch.dims; ++d) {
        if (gb_stride[d] == 0 && ga_stride[d] == 0) kernel.batch.size[d] = 1;
      }
      Strides stride;
      row_major(kernel.batch, bins, stride);
      args.filter.give(kernel, b.values, b.stride, a.values, a.stride);
      kernel.angles = bins;
      kernel.step = 2 * pi / static_cast<double>(args.n);
      kernel.g = rows(static_cast<const std::complex<double>*>(numbers<std::complex<double>>(of_h)), 1, stride, batch);
      if (wanted[1]) kernel.gb = matrices_of<false>(gb_out.data, args.filter.b.length(), 1, gb_stride, batch);
      if (wanted[2]) kernel.ga = matrices_of<false>(ga_out.data, args.filter.a.length(), 1, ga_stride, batch);
      check(torch_iir::freqz_backward(kernel, parallel_for()), Algorithm::automatic, "a");
    }
  } else {  // sums over nothing
    if (wanted[0]) fill_zero(gx, args.x.dims, args.x.size, args.x.dtype);
    fill_zero(gb_out, args.filter.b, wanted[1]);
    fill_zero(ga_out, args.filter.a, wanted[2]);
  }
  gb_out.store();
  ga_out.store();
  return {Returned{gx.release()}, Returned{gb.release()}, Returned{ga.release()}};
}

}  // namespace

Returned lfilter_fsm(AtenTensorHandle x_, AtenTensorHandle b_, AtenTensorHandle a_, std::int64_t n_fft) {
  Handle x(x_), b(b_), a(a_);
  const Arguments args(std::move(x), std::move(b), std::move(a), n_fft);
  return args.wide() ? forward<double>(args) : forward<float>(args);
}

std::tuple<Returned, Returned, Returned> lfilter_fsm_backward(AtenTensorHandle gy_, AtenTensorHandle x_,
                                                              AtenTensorHandle b_, AtenTensorHandle a_,
                                                              std::int64_t n_fft, std::int64_t output_mask) {
  Handle x(x_), b(b_), a(a_), given(gy_);
  const Arguments args(std::move(x), std::move(b), std::move(a), n_fft);
  const Tensor gy = argument("gy", std::move(given));
  STD_TORCH_CHECK(!is_complex(gy.dtype), "gy must be real");
  STD_TORCH_CHECK(gy.dtype == args.x.dtype, "gy must have the dtype of y");
  const bool wanted[3] = {(output_mask & 1) != 0, (output_mask & 2) != 0, (output_mask & 4) != 0};
  return args.wide() ? backward<double>(args, gy, wanted) : backward<float>(args, gy, wanted);
}

}  // namespace torch_iir::ops
