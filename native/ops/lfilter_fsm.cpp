// torch_iir::lfilter_fsm and lfilter_fsm_backward.
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
  OnDevice on;
  std::int64_t samples, n;

  Arguments(Handle x_, Handle b, Handle a, std::int64_t n_fft)
      : x(argument("x", std::move(x_))),
        filter(std::move(b), std::move(a)),
        on({&x, &filter.b, &filter.a}),
        samples(x.length()),
        n(n_fft) {
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
  SmallIn<double> values;
  Strides stride = {};
  std::int64_t sections, length;

  explicit Coefficients(const Tensor& tensor)
      : values(tensor), sections(tensor.size[tensor.dims - 2]), length(tensor.length()) {}
  Operand operand() { return values.operand(stride, 2); }
};

// The responses of the filters, for the distinct pairs of b and a.
template <class C>
class Responses : public Spectra<C> {
 public:
  Responses(const Arguments& args, const Batch& batch, const Coefficients& b, const Coefficients& a)
      : Spectra<C>(Distinct(batch, {b.stride, a.stride}), args.n, 1), on_(args.on), batch_(batch), b_(b), a_(a) {}

 protected:
  Array make(std::int64_t first, std::int64_t count) const override {
    const std::int64_t angles = bins_of<C>(this->n_);
    const Array h = empty_rows<Spectral<C>>(count, angles);
    kernels::Freqz<Real<C>> kernel;
    kernel.batch = {1, {count}};
    kernel.sections = static_cast<int>(b_.sections);
    kernel.b_length = static_cast<int>(b_.length);
    kernel.a_length = static_cast<int>(a_.length);
    kernel.angles = angles;
    kernel.step = 2 * pi / static_cast<double>(this->n_);
    const auto own = [&](const Coefficients& c) {
      return own_matrices(on_, batch_, this->rows_, first, count, c.values, c.stride, c.sections, c.length);
    };
    const auto b = own(b_), a = own(a_);
    const auto matrices = [&](const auto& values, std::int64_t length) {
      const std::int64_t stride[] = {kernel.sections * length};
      return matrices_of<false>(numbers_of(values), length, 1, stride, kernel.batch);
    };
    kernel.b = matrices(b, b_.length);
    kernel.a = matrices(a, a_.length);
    const std::int64_t stride[] = {angles};
    kernel.h = rows(numbers<Spectral<C>>(h), 1, stride, kernel.batch);
    const auto run = [](const auto&... with) { return kernels::freqz(with...); };
    check(on_.run(run, kernel), Algorithm::automatic, "a");
    return h;
  }

 private:
  const OnDevice& on_;
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

  const Samples x(args.x, x_stride, batch), to(data(y), args.x.dtype, args.samples, 1, y_stride, batch);
  WindowSpectra<C> spectra(args.on, batch, x, args.n, {0, 0, args.samples, 1});
  Responses<C> responses(args, batch, b, a);
  const Distinct rows(batch, {to.stride});
  const Destination destination{args.on, batch, to, nullptr, 1, 0, args.samples, args.samples, 0};
  const Product<C> product{responses, false, rows, 1,
                           [&](std::int64_t first, std::int64_t count, const Array& products) {
                             static_cast<void>(destination.store(rows, first, count, inverse(products, args.n, true)));
                           }};
  multiply<C>(args.on, batch, 1, args.n, spectra, {&product, 1});
  return {y.release()};
}

template <class C>
std::tuple<Returned, Returned, Returned> backward(const Arguments& args, const Tensor& gy, const bool (&wanted)[3]) {
  Coefficients b(args.filter.b), a(args.filter.a);
  Handle gx = empty_gradient(wanted[0], args.x), gb = empty_gradient(wanted[1], args.filter.b),
         ga = empty_gradient(wanted[2], args.filter.a);
  const Handle none;
  SmallOut<double> gb_out(wanted[1] ? gb : none, args.filter.b.dtype, args.filter.b.dims, args.filter.b.size);
  SmallOut<double> ga_out(wanted[2] ? ga : none, args.filter.a.dtype, args.filter.a.dims, args.filter.a.size);
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

  const bool wants_filter = wanted[1] || wanted[2];
  if (batch.rows() > 0 && args.samples > 0) {
    const Samples x(args.x, x_stride, batch), g(gy, gy_stride, batch);
    const Samples to(wanted[0] ? data(gx) : nullptr, args.x.dtype, args.samples, 1, gx_stride, batch);
    const Windows all{0, 0, args.samples, 1};
    WindowSpectra<C> of_x(args.on, batch, x, args.n, all), of_g(args.on, batch, g, args.n, all);
    Responses<C> responses(args, batch, b, a);
    const Distinct inputs(batch, {to.stride}), filters(batch, {gb_stride, ga_stride});
    const Destination destination{args.on, batch, to, nullptr, 1, 0, args.samples, args.samples, 0};
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
                            weigh(args.on, spectra, rows, args.n, numbers<std::complex<double>>(of_h) + first * bins);
                          }});
    }
    multiply<C>(args.on, batch, 1, args.n, of_g, products);
    if (wants_filter) {
      kernels::FreqzBackward<double> kernel;
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
      const auto run = [](const auto&... with) { return kernels::freqz_backward(with...); };
      check(args.on.run(run, kernel), Algorithm::automatic, "a");
    }
  } else {  // sums over nothing
    if (wanted[0]) fill_zero(gx, args.x.dims, args.x.size, args.x.dtype);
    gb_out.fill_zero();
    ga_out.fill_zero();
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
  args.on.check({&gy});
  STD_TORCH_CHECK(!is_complex(gy.dtype), "gy must be real");
  STD_TORCH_CHECK(gy.dtype == args.x.dtype, "gy must have the dtype of y");
  const bool wanted[3] = {(output_mask & 1) != 0, (output_mask & 2) != 0, (output_mask & 4) != 0};
  return args.wide() ? backward<double>(args, gy, wanted) : backward<float>(args, gy, wanted);
}

}  // namespace torch_iir::ops
