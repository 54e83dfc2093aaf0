// torch_iir::lfilter and lfilter_backward: from tensors to the kernels' parameters.
#include "lfilter.h"

#include <algorithm>

#include "fir.h"
#include "storage.h"
#include "torch_iir/lfilter.h"

namespace torch_iir::ops {
namespace {

struct Arguments {
  Tensor x, b, a, zi;
  Storage storage;
  OnDevice on;
  std::int64_t samples = 0, order = 0;

  Arguments(Handle x_, Handle b_, Handle a_, Handle zi_)
      : x(argument("x", std::move(x_))),
        b(argument("b", std::move(b_))),
        a(argument("a", std::move(a_))),
        zi(argument("zi", std::move(zi_))),
        storage(x, {&b, &a}, zi),
        on({&x, &b, &a, &zi}) {
    STD_TORCH_CHECK(b.length() > 0, "b must have at least one coefficient, got ", describe({&b}));
    STD_TORCH_CHECK(a.length() > 0, "a must have at least one coefficient, got ", describe({&a}));
    samples = x.length();
    order = std::max(b.length(), a.length()) - 1;
    STD_TORCH_CHECK(!zi || zi.length() == order, "the last dimension of zi must be max(len b, len a) - 1 = ", order,
                    ", got ", describe({&zi, &b, &a}));
  }
};

// Whether rows of a filter without recursion, a = [1], are convolved by FFT, on the CPU: where that is faster, or
// forced. What has another a, or needs its gradient, is not.
[[maybe_unused]] bool by_fft(const Arguments& args, std::int64_t rows, bool a_has_gradient = false) {
  constexpr std::int64_t shortest = 192, least_work = 1 << 21;  // coefficients, multiply-adds
  const std::int64_t length = args.b.length();
  const bool faster = length >= shortest && args.samples >= shortest && rows * args.samples >= least_work / length;
  if (algorithm() != Algorithm::fft && (algorithm() != Algorithm::automatic || !faster)) return false;
  return args.a.length() == 1 && !is_complex(args.storage.result) && !a_has_gradient && only_ones(args.a);
}

template <class T>
std::tuple<Returned, Returned> forward(const Arguments& args) {
  using Type = Types<T>;
  const typename Type::In x(args.x);
  const SmallIn<typename Type::State> b(args.b), a(args.a);
  const typename Type::HeldIn zi(args.zi);

  Strides x_stride, b_stride, a_stride, zi_stride, y_stride, zf_stride;
  const Operand operands[] = {x.operand(x_stride), b.operand(b_stride), a.operand(a_stride), zi.operand(zi_stride)};
  Shape shape;
  Batch batch;
  check(broadcast({operands, args.zi ? 4u : 3u}, shape, batch), {&args.x, &args.b, &args.a, &args.zi});

  shape.size[shape.dims] = args.samples;
  Handle y = empty(shape.dims + 1, shape.size, args.storage.result);
  typename Type::Out y_out(y, args.storage.result, shape.dims + 1, shape.size);
  row_major(batch, args.samples, y_stride);
  shape.size[shape.dims] = args.order;
  Handle zf = empty(shape.dims + 1, shape.size, args.storage.state);
  typename Type::HeldOut zf_out(zf, args.storage.state, shape.dims + 1, shape.size);
  row_major(batch, args.order, zf_stride);

  Algorithm chosen = algorithm();
  const auto convolved = [&] {
    if constexpr (on_cpu) {
      if (!by_fft(args, batch.rows())) return false;
      chosen = Algorithm::automatic;  // if this fails
      const Samples of_zi = args.zi ? Samples(args.zi, zi_stride, batch) : Samples();
      return filter_by_fft(batch, Samples(args.x, x_stride, batch), Samples(args.b, b_stride, batch),
                           args.zi ? &of_zi : nullptr,
                           Samples(data(y), args.storage.result, args.samples, 1, y_stride, batch),
                           Samples(data(zf), args.storage.state, args.order, 1, zf_stride, batch));
    }
    return false;
  };
  if (batch.rows() > 0 && !convolved()) {
    kernels::LFilter<typename Type::Sample, typename Type::State> kernel;
    kernel.batch = with_pairs(batch, Type::pairs);
    kernel.samples = args.samples;
    kernel.b_length = static_cast<int>(args.b.length());
    kernel.a_length = static_cast<int>(args.a.length());
    kernel.x = rows_of<Type::pairs>(x.data, x.step(), x_stride, batch);
    kernel.b = rows(b.data, b.step(), b_stride, batch);
    kernel.a = rows(a.data, a.step(), a_stride, batch);
    if (args.zi) kernel.zi = rows_of<Type::pairs>(zi.data, zi.step(), zi_stride, batch);
    kernel.y = rows_of<Type::pairs>(y_out.data, 1, y_stride, batch);
    kernel.zf = rows_of<Type::pairs>(zf_out.data, 1, zf_stride, batch);
    const auto run = [](const auto&... with) { return kernels::lfilter(with...); };
    check(args.on.run(run, kernel, chosen), chosen, "a[..., 0]");
    y_out.store();
    zf_out.store();
  }
  return {Returned{y.release()}, Returned{zf.release()}};
}

struct Gradients {
  Tensor gy, gzf, y;
  bool wanted[4];  // gx, gb, ga, gzi
};

template <class T>
std::tuple<Returned, Returned, Returned, Returned> backward(const Arguments& args, const Gradients& given) {
  using Type = Types<T>;
  const typename Type::In x(args.x), y(given.y), gy(given.gy);
  const SmallIn<typename Type::State> b(args.b), a(args.a);
  const typename Type::HeldIn gzf(given.gzf);

  Handle gx = empty_gradient(given.wanted[0], args.x, args.storage.result),
         gb = empty_gradient(given.wanted[1], args.b, args.storage.result),
         ga = empty_gradient(given.wanted[2], args.a, args.storage.result),
         gzi = empty_gradient(given.wanted[3], args.zi, args.storage.state);
  const Handle none;
  const bool wants_gzi = given.wanted[3] && args.zi;
  typename Type::Out gx_out(given.wanted[0] ? gx : none, args.x.dtype, args.x.dims, args.x.size);
  SmallOut<typename Type::State> gb_out(given.wanted[1] ? gb : none, args.b.dtype, args.b.dims, args.b.size);
  SmallOut<typename Type::State> ga_out(given.wanted[2] ? ga : none, args.a.dtype, args.a.dims, args.a.size);
  typename Type::HeldOut gzi_out(wants_gzi ? gzi : none, args.zi.dtype, args.zi.dims, args.zi.size);

  Strides x_stride, y_stride, b_stride, a_stride, gy_stride, gzf_stride, gx_stride, gb_stride, ga_stride, gzi_stride;
  Operand operands[10] = {x.operand(x_stride), b.operand(b_stride), a.operand(a_stride), y.operand(y_stride)};
  std::size_t count = 4;
  const auto add = [&](bool wanted, const auto& operand, std::int64_t* stride) {
    if (wanted) operands[count++] = operand.operand(stride);
  };
  add(bool(given.gy), gy, gy_stride);
  add(bool(given.gzf), gzf, gzf_stride);
  add(given.wanted[0], gx_out, gx_stride);
  add(given.wanted[1], gb_out, gb_stride);
  add(given.wanted[2], ga_out, ga_stride);
  add(wants_gzi, gzi_out, gzi_stride);
  Shape shape;
  Batch batch;
  check(broadcast({operands, count}, shape, batch),
        {&args.x, &args.b, &args.a, &args.zi, &given.y, &given.gy, &given.gzf});
  check_shape(given.y, shape, {args.samples}, "the output of lfilter");
  check_shape(given.gy, shape, {args.samples}, "y");
  check_shape(given.gzf, shape, {args.order}, "zf");

  Algorithm chosen = algorithm();
  const auto convolved = [&] {
    if constexpr (on_cpu) {
      if (!by_fft(args, batch.rows(), given.wanted[2])) return false;
      chosen = Algorithm::automatic;  // if this fails
      Samples g;
      if (given.gy) g = Samples(given.gy, gy_stride, batch);
      g.length = args.samples;
      const Samples of_zf = given.gzf ? Samples(given.gzf, gzf_stride, batch) : Samples();
      if (given.gzf) g.rest = &of_zf;
      const auto target = [&](bool wanted, const Handle& handle, const Tensor& like, const std::int64_t* stride) {
        return wanted ? Samples(data(handle), like.dtype, like.length(), 1, stride, batch) : Samples();
      };
      return gradients_by_fft(batch, g, Samples(args.x, x_stride, batch), Samples(args.b, b_stride, batch),
                              target(given.wanted[0], gx, args.x, gx_stride),
                              target(given.wanted[1], gb, args.b, gb_stride),
                              target(wants_gzi, gzi, args.zi, gzi_stride));
    }
    return false;
  };
  const auto results = [&] {
    return std::tuple{Returned{gx.release()}, Returned{gb.release()}, Returned{ga.release()}, Returned{gzi.release()}};
  };
  if (batch.rows() > 0 && convolved()) return results();
  if (batch.rows() > 0) {
    kernels::LFilterBackward<typename Type::Sample, typename Type::State> kernel;
    kernel.batch = with_pairs(batch, Type::pairs);
    kernel.samples = args.samples;
    kernel.b_length = static_cast<int>(args.b.length());
    kernel.a_length = static_cast<int>(args.a.length());
    if (given.gy) kernel.gy = rows_of<Type::pairs>(gy.data, gy.step(), gy_stride, batch);
    if (given.gzf) kernel.gzf = rows_of<Type::pairs>(gzf.data, gzf.step(), gzf_stride, batch);
    kernel.x = rows_of<Type::pairs>(x.data, x.step(), x_stride, batch);
    kernel.y = rows_of<Type::pairs>(y.data, y.step(), y_stride, batch);
    kernel.b = rows(b.data, b.step(), b_stride, batch);
    kernel.a = rows(a.data, a.step(), a_stride, batch);
    if (given.wanted[0]) kernel.gx = rows_of<Type::pairs>(gx_out.data, 1, gx_stride, batch);
    if (given.wanted[1]) kernel.gb = rows(gb_out.data, 1, gb_stride, batch);
    if (given.wanted[2]) kernel.ga = rows(ga_out.data, 1, ga_stride, batch);
    if (wants_gzi) kernel.gzi = rows_of<Type::pairs>(gzi_out.data, 1, gzi_stride, batch);
    const auto run = [](const auto&... with) { return kernels::lfilter_backward(with...); };
    check(args.on.run(run, kernel, chosen), chosen, "a[..., 0]");
  } else {
    gx_out.fill_zero();  // sums over no rows
    gb_out.fill_zero();
    ga_out.fill_zero();
    gzi_out.fill_zero();
  }
  gx_out.store();
  gb_out.store();
  ga_out.store();
  gzi_out.store();
  return results();
}

}  // namespace

std::tuple<Returned, Returned> lfilter(AtenTensorHandle x, AtenTensorHandle b, AtenTensorHandle a,
                                       std::optional<AtenTensorHandle> zi) {
  const Arguments args(Handle{x}, Handle{b}, Handle{a}, Handle{zi.value_or(nullptr)});
  return args.storage.visit([&]<class T>() { return forward<T>(args); });
}

std::tuple<Returned, Returned, Returned, Returned> lfilter_backward(
    std::optional<AtenTensorHandle> gy_, std::optional<AtenTensorHandle> gzf_, AtenTensorHandle x_, AtenTensorHandle b_,
    AtenTensorHandle a_, std::optional<AtenTensorHandle> zi_, AtenTensorHandle y_, std::int64_t output_mask) {
  Handle gy(gy_.value_or(nullptr)), gzf(gzf_.value_or(nullptr)), x(x_), b(b_), a(a_), zi(zi_.value_or(nullptr)), y(y_);
  const Arguments args(std::move(x), std::move(b), std::move(a), std::move(zi));
  const Gradients given{
      argument("gy", std::move(gy)),
      argument("gzf", std::move(gzf)),
      argument("y", std::move(y)),
      {(output_mask & 1) != 0, (output_mask & 2) != 0, (output_mask & 4) != 0, (output_mask & 8) != 0}};
  args.on.check({&given.gy, &given.gzf, &given.y});
  STD_TORCH_CHECK(given.y.dtype == args.storage.result, "y must have the dtype that lfilter returned");
  STD_TORCH_CHECK(!given.gy || given.gy.dtype == args.storage.result, "gy must have the dtype of y");
  return args.storage.visit([&]<class T>() { return backward<T>(args, given); });
}

}  // namespace torch_iir::ops
