// torch_iir::lfilter_tv and lfilter_tv_backward: from tensors to the kernels' parameters.
#include "lfilter_tv.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "storage.h"
#include "torch_iir/lfilter_tv.h"

namespace torch_iir::ops {
namespace {

constexpr const char* a0_name = "a[..., 0]";

// The numbers beside the tensors.
struct Shifts {
  std::int64_t b_first, a_first, period;
};

struct Arguments {
  Tensor x, b, a, zx, zi;
  int b_first, a_first;
  std::int64_t period, samples = 0, lag = 0, order = 0;  // lag, order: past samples of x and of y
  Storage storage;
  OnDevice on;

  Arguments(Handle x_, Handle b_, Handle a_, Handle zx_, Handle zi_, const Shifts& shifts)
      : x(argument("x", std::move(x_))),
        b(argument("b", std::move(b_))),
        a(argument("a", std::move(a_))),
        zx(argument("zx", std::move(zx_))),
        zi(argument("zi", std::move(zi_))),
        b_first(checked_first("b_first", shifts.b_first)),
        a_first(checked_first("a_first", shifts.a_first)),
        period(shifts.period),
        samples(x.length()),
        storage(x, {&b, &a}, zi, &zx),
        on({&x, &b, &a, &zx, &zi}) {
    STD_TORCH_CHECK(period >= 1, "period must be at least 1, got ", period);
    if (b) lag = largest_lag(b, b_first);
    order = largest_lag(a, a_first);
    STD_TORCH_CHECK(a_first == 1 || a.length() > 0, "a must have at least one coefficient, got ", describe({&a}));
    STD_TORCH_CHECK(!zx || zx.length() == lag, "the last dimension of zx must be the largest lag of b, ", lag, ", got ",
                    describe({&zx, &b}));
    STD_TORCH_CHECK(!zi || zi.length() == order, "the last dimension of zi must be the largest lag of a, ", order,
                    ", got ", describe({&zi, &a}));
  }

  // Whether the kernel reads the coefficients where they are: they have the dtype of the samples.
  bool in_place() const {
    const DType real = is_complex(x.dtype) ? (is_wide(x.dtype) ? DType::float64 : DType::float32) : x.dtype;
    return a.dtype == real && (!b || b.dtype == real);
  }

 private:
  static int checked_first(const char* name, std::int64_t first) {
    STD_TORCH_CHECK(first == 0 || first == 1, name, " must be 0 or 1, got ", first);
    return static_cast<int>(first);
  }
  std::int64_t largest_lag(const Tensor& taps, int first) const {
    STD_TORCH_CHECK(taps.dims >= 2, taps.name, " must have at least 2 dimensions, got ", describe({&taps}));
    STD_TORCH_CHECK(taps.length() <= std::numeric_limits<int>::max() / 64, taps.name,
                    " has too many coefficients: ", taps.length());
    const std::int64_t frames = taps.size[taps.dims - 2], whole = (samples + period - 1) / period;
    STD_TORCH_CHECK(frames == 1 || frames == whole || (period > 1 && frames == whole + 1), "the dimension of ",
                    taps.name, " before the last must be 1 or ",
                    period == 1 ? "the samples of x, " : "the frames of x, or one more: ", whole, ", got ",
                    describe({&taps, &x}));
    return taps.length() > 0 ? first + taps.length() - 1 : 0;
  }
};

// How the kernel sees the coefficients, and where it writes their gradients.
template <class T, bool in_place>
struct CoefficientsOf {
  using Value = std::conditional_t<in_place, typename Types<T>::Sample, typename Types<T>::State>;
  using In = std::conditional_t<in_place, View<Value>, As<typename Types<T>::State>>;
  using Out = std::conditional_t<in_place, Fresh<Value>, Into<typename Types<T>::State>>;
};

template <class In>
auto taps_of(const Tensor& tensor, const In& in, const std::int64_t* stride, const Batch& batch, int first) {
  using Value = std::remove_reference_t<decltype(*in.data)>;
  static Value nothing{};  // stands for coefficients that are given, but none: the kernel takes null for no argument
  Value* const data = in.data != nullptr ? in.data : &nothing;
  return Taps<Value>{matrices_of<false>(data, in.down(), in.step(), stride, batch), static_cast<int>(tensor.length()),
                     first, tensor.size[tensor.dims - 2]};
}

template <class T, bool in_place>
std::tuple<Returned, Returned> forward(const Arguments& args) {
  using Type = Types<T>;
  using Coefficients = CoefficientsOf<T, in_place>;
  const typename Type::In x(args.x);
  const typename Coefficients::In b(args.b), a(args.a);
  const typename Type::HeldIn zx(args.zx), zi(args.zi);

  Strides x_stride, b_stride, a_stride, zx_stride, zi_stride, y_stride, zf_stride;
  Operand operands[5] = {x.operand(x_stride), a.operand(a_stride, 2)};
  std::size_t count = 2;
  if (args.b) operands[count++] = b.operand(b_stride, 2);
  if (args.zx) operands[count++] = zx.operand(zx_stride);
  if (args.zi) operands[count++] = zi.operand(zi_stride);
  Shape shape;
  Batch batch;
  check(broadcast({operands, count}, shape, batch), {&args.x, &args.b, &args.a, &args.zx, &args.zi});

  shape.size[shape.dims] = args.samples;
  Handle y = empty(shape.dims + 1, shape.size, args.storage.result);
  typename Type::Out y_out(y, args.storage.result, shape.dims + 1, shape.size);
  row_major(batch, args.samples, y_stride);
  shape.size[shape.dims] = args.order;
  Handle zf = empty(shape.dims + 1, shape.size, args.storage.state);
  typename Type::HeldOut zf_out(zf, args.storage.state, shape.dims + 1, shape.size);
  row_major(batch, args.order, zf_stride);

  if (batch.rows() > 0) {
    kernels::LFilterTV<typename Type::Sample, typename Coefficients::Value, typename Type::State> kernel;
    kernel.batch = with_pairs(batch, Type::pairs);
    kernel.samples = args.samples;
    kernel.period = args.period;
    kernel.x = rows_of<Type::pairs>(x.data, x.step(), x_stride, batch);
    if (args.b) kernel.b = taps_of(args.b, b, b_stride, batch, args.b_first);
    kernel.a = taps_of(args.a, a, a_stride, batch, args.a_first);
    if (args.zx) kernel.zx = rows_of<Type::pairs>(zx.data, zx.step(), zx_stride, batch);
    if (args.zi) kernel.zi = rows_of<Type::pairs>(zi.data, zi.step(), zi_stride, batch);
    kernel.y = rows_of<Type::pairs>(y_out.data, 1, y_stride, batch);
    kernel.zf = rows_of<Type::pairs>(zf_out.data, 1, zf_stride, batch);
    const auto run = [](const auto&... with) { return kernels::lfilter_tv(with...); };
    check(args.on.run(run, kernel, algorithm()), algorithm(), a0_name);
    y_out.store();
    zf_out.store();
  }
  return {Returned{y.release()}, Returned{zf.release()}};
}

struct Gradients {
  Tensor gy, gzf, y;
  bool wanted[5];  // gx, gb, ga, gzx, gzi
};

template <class T, bool in_place>
std::tuple<Returned, Returned, Returned, Returned, Returned> backward(const Arguments& args, const Gradients& given) {
  using Type = Types<T>;
  using Coefficients = CoefficientsOf<T, in_place>;
  const typename Type::In x(args.x), y(given.y), gy(given.gy);
  const typename Coefficients::In b(args.b), a(args.a);
  const typename Type::HeldIn zx(args.zx), zi(args.zi), gzf(given.gzf);

  const bool wants_gb = given.wanted[1] && args.b, wants_gzx = given.wanted[3] && args.zx,
             wants_gzi = given.wanted[4] && args.zi;
  Handle gx = empty_gradient(given.wanted[0], args.x, args.storage.result),
         gb = empty_gradient(given.wanted[1], args.b, args.storage.result),
         ga = empty_gradient(given.wanted[2], args.a, args.storage.result),
         gzx = empty_gradient(given.wanted[3], args.zx, args.storage.state),
         gzi = empty_gradient(given.wanted[4], args.zi, args.storage.state);
  const Handle none;
  typename Type::Out gx_out(given.wanted[0] ? gx : none, args.x.dtype, args.x.dims, args.x.size);
  typename Coefficients::Out gb_out(wants_gb ? gb : none, args.b.dtype, args.b.dims, args.b.size);
  typename Coefficients::Out ga_out(given.wanted[2] ? ga : none, args.a.dtype, args.a.dims, args.a.size);
  typename Type::HeldOut gzx_out(wants_gzx ? gzx : none, args.zx.dtype, args.zx.dims, args.zx.size);
  typename Type::HeldOut gzi_out(wants_gzi ? gzi : none, args.zi.dtype, args.zi.dims, args.zi.size);

  Strides x_stride, y_stride, b_stride, a_stride, zx_stride, zi_stride, gy_stride, gzf_stride, gx_stride, gb_stride,
      ga_stride, gzx_stride, gzi_stride;
  Operand operands[13] = {x.operand(x_stride), a.operand(a_stride, 2), y.operand(y_stride)};
  std::size_t count = 3;
  const auto add = [&](bool wanted, const auto& operand, std::int64_t* stride, int core = 1) {
    if (wanted) operands[count++] = operand.operand(stride, core);
  };
  add(bool(args.b), b, b_stride, 2);
  add(bool(args.zx), zx, zx_stride);
  add(bool(args.zi), zi, zi_stride);
  add(bool(given.gy), gy, gy_stride);
  add(bool(given.gzf), gzf, gzf_stride);
  add(given.wanted[0], gx_out, gx_stride);
  add(wants_gb, gb_out, gb_stride, 2);
  add(given.wanted[2], ga_out, ga_stride, 2);
  add(wants_gzx, gzx_out, gzx_stride);
  add(wants_gzi, gzi_out, gzi_stride);
  Shape shape;
  Batch batch;
  check(broadcast({operands, count}, shape, batch),
        {&args.x, &args.b, &args.a, &args.zx, &args.zi, &given.y, &given.gy, &given.gzf});
  check_shape(given.y, shape, {args.samples}, "the output of lfilter_tv");
  check_shape(given.gy, shape, {args.samples}, "y");
  check_shape(given.gzf, shape, {args.order}, "zf");

  if (batch.rows() > 0) {
    kernels::LFilterTVBackward<typename Type::Sample, typename Coefficients::Value, typename Type::State> kernel;
    kernel.batch = with_pairs(batch, Type::pairs);
    kernel.samples = args.samples;
    kernel.period = args.period;
    if (given.gy) kernel.gy = rows_of<Type::pairs>(gy.data, gy.step(), gy_stride, batch);
    if (given.gzf) kernel.gzf = rows_of<Type::pairs>(gzf.data, gzf.step(), gzf_stride, batch);
    kernel.x = rows_of<Type::pairs>(x.data, x.step(), x_stride, batch);
    kernel.y = rows_of<Type::pairs>(y.data, y.step(), y_stride, batch);
    if (args.b) kernel.b = taps_of(args.b, b, b_stride, batch, args.b_first);
    kernel.a = taps_of(args.a, a, a_stride, batch, args.a_first);
    if (args.zx) kernel.zx = rows_of<Type::pairs>(zx.data, zx.step(), zx_stride, batch);
    if (args.zi) kernel.zi = rows_of<Type::pairs>(zi.data, zi.step(), zi_stride, batch);
    if (given.wanted[0]) kernel.gx = rows_of<Type::pairs>(gx_out.data, 1, gx_stride, batch);
    if (wants_gb) kernel.gb = matrices_of<false>(gb_out.data, args.b.length(), 1, gb_stride, batch);
    if (given.wanted[2]) kernel.ga = matrices_of<false>(ga_out.data, args.a.length(), 1, ga_stride, batch);
    if (wants_gzx) kernel.gzx = rows_of<Type::pairs>(gzx_out.data, 1, gzx_stride, batch);
    if (wants_gzi) kernel.gzi = rows_of<Type::pairs>(gzi_out.data, 1, gzi_stride, batch);
    const auto run = [](const auto&... with) { return kernels::lfilter_tv_backward(with...); };
    check(args.on.run(run, kernel, algorithm()), algorithm(), a0_name);
  } else {
    gx_out.fill_zero();  // sums over no rows
    gb_out.fill_zero();
    ga_out.fill_zero();
    gzx_out.fill_zero();
    gzi_out.fill_zero();
  }
  gx_out.store();
  gb_out.store();
  ga_out.store();
  gzx_out.store();
  gzi_out.store();
  return {Returned{gx.release()}, Returned{gb.release()}, Returned{ga.release()}, Returned{gzx.release()},
          Returned{gzi.release()}};
}

// Calls f.operator()<T, in_place>().
template <class F>
auto visit(const Arguments& args, F&& f) {
  return args.storage.visit([&]<class T>() {
    if constexpr (std::is_same_v<T, Complex>) {
      return f.template operator()<T, false>();
    } else {
      return args.in_place() ? f.template operator()<T, true>() : f.template operator()<T, false>();
    }
  });
}

}  // namespace

std::tuple<Returned, Returned> lfilter_tv(AtenTensorHandle x_, std::optional<AtenTensorHandle> b_, AtenTensorHandle a_,
                                          std::optional<AtenTensorHandle> zx_, std::optional<AtenTensorHandle> zi_,
                                          std::int64_t b_first, std::int64_t a_first, std::int64_t period) {
  Handle x(x_), b(b_.value_or(nullptr)), a(a_), zx(zx_.value_or(nullptr)), zi(zi_.value_or(nullptr));
  const Arguments args(std::move(x), std::move(b), std::move(a), std::move(zx), std::move(zi),
                       {b_first, a_first, period});
  return visit(args, [&]<class T, bool in_place>() { return forward<T, in_place>(args); });
}

std::tuple<Returned, Returned, Returned, Returned, Returned> lfilter_tv_backward(
    std::optional<AtenTensorHandle> gy_, std::optional<AtenTensorHandle> gzf_, AtenTensorHandle x_,
    std::optional<AtenTensorHandle> b_, AtenTensorHandle a_, std::optional<AtenTensorHandle> zx_,
    std::optional<AtenTensorHandle> zi_, AtenTensorHandle y_, std::int64_t b_first, std::int64_t a_first,
    std::int64_t period, std::int64_t output_mask) {
  Handle gy(gy_.value_or(nullptr)), gzf(gzf_.value_or(nullptr)), x(x_), b(b_.value_or(nullptr)), a(a_),
      zx(zx_.value_or(nullptr)), zi(zi_.value_or(nullptr)), y(y_);
  const Arguments args(std::move(x), std::move(b), std::move(a), std::move(zx), std::move(zi),
                       {b_first, a_first, period});
  const Gradients given{argument("gy", std::move(gy)),
                        argument("gzf", std::move(gzf)),
                        argument("y", std::move(y)),
                        {(output_mask & 1) != 0, (output_mask & 2) != 0, (output_mask & 4) != 0, (output_mask & 8) != 0,
                         (output_mask & 16) != 0}};
  args.on.check({&given.gy, &given.gzf, &given.y});
  STD_TORCH_CHECK(given.y.dtype == args.storage.result, "y must have the dtype that lfilter_tv returned");
  STD_TORCH_CHECK(!given.gy || given.gy.dtype == args.storage.result, "gy must have the dtype of y");
  return visit(args, [&]<class T, bool in_place>() { return backward<T, in_place>(args, given); });
}

}  // namespace torch_iir::ops
