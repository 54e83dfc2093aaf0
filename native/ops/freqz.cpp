// torch_iir::freqz and freqz_backward: from tensors to the kernels' parameters.
#include "freqz.h"

#include "cascade.h"
#include "torch_iir/freqz.h"

namespace torch_iir::ops {
namespace {

struct Arguments {
  Cascade filter;
  Tensor w;
  OnDevice on;

  Arguments(Handle b, Handle a, Handle w_)
      : filter(std::move(b), std::move(a)), w(argument("w", std::move(w_))), on({&filter.b, &filter.a, &w}) {
    STD_TORCH_CHECK(!is_complex(w.dtype), "w must be real");
  }

  // Calls f.operator()<Value, State>() with the types of the response's parts and of the coefficients.
  template <class F>
  auto visit(bool wide, F&& f) const {
    if (filter.complex())
      return wide ? f.template operator()<double, Complex>() : f.template operator()<float, Complex>();
    return wide ? f.template operator()<double, double>() : f.template operator()<float, double>();
  }
};

template <class Value, class State>
Returned forward(const Arguments& args) {
  const SmallIn<State> b(args.filter.b), a(args.filter.a);
  const SmallIn<double> w(args.w);
  Strides b_stride, a_stride, w_stride, h_stride;
  const Operand operands[] = {b.operand(b_stride, 2), a.operand(a_stride, 2), w.operand(w_stride)};
  Shape shape;
  kernels::Freqz<Value, State> kernel;
  Batch& batch = kernel.batch;
  check(broadcast(operands, shape, batch), {&args.filter.b, &args.filter.a, &args.w});

  kernel.angles = args.w.length();
  shape.size[shape.dims] = kernel.angles;
  Handle h = empty(shape.dims + 1, shape.size, complex_of(sizeof(Value) == sizeof(double)));
  row_major(batch, kernel.angles, h_stride);
  args.filter.give(kernel, b, b_stride, a, a_stride);
  kernel.w = rows(w.data, w.step(), w_stride, batch);
  kernel.h = rows(static_cast<std::complex<Value>*>(data(h)), 1, h_stride, batch);
  const auto run = [](const auto&... with) { return kernels::freqz(with...); };
  check(args.on.run(run, kernel), Algorithm::automatic, "a");
  return {h.release()};
}

template <class Value, class State>
std::tuple<Returned, Returned, Returned> backward(const Arguments& args, const Tensor& g, const bool (&wanted)[3]) {
  const SmallIn<State> b(args.filter.b), a(args.filter.a);
  const SmallIn<double> w(args.w);
  const View<std::complex<Value>> g_view(g);
  Handle gb = empty_gradient(wanted[0], args.filter.b), ga = empty_gradient(wanted[1], args.filter.a),
         gw = empty_gradient(wanted[2], args.w);
  const Handle none;
  SmallOut<State> gb_out(wanted[0] ? gb : none, args.filter.b.dtype, args.filter.b.dims, args.filter.b.size);
  SmallOut<State> ga_out(wanted[1] ? ga : none, args.filter.a.dtype, args.filter.a.dims, args.filter.a.size);
  SmallOut<double> gw_out(wanted[2] ? gw : none, args.w.dtype, args.w.dims, args.w.size);

  Strides b_stride, a_stride, w_stride, g_stride, gb_stride, ga_stride, gw_stride;
  Operand operands[7] = {b.operand(b_stride, 2), a.operand(a_stride, 2), w.operand(w_stride), g_view.operand(g_stride)};
  std::size_t count = 4;
  if (wanted[0]) operands[count++] = gb_out.operand(gb_stride, 2);
  if (wanted[1]) operands[count++] = ga_out.operand(ga_stride, 2);
  if (wanted[2]) operands[count++] = gw_out.operand(gw_stride);
  Shape shape;
  kernels::FreqzBackward<Value, State> kernel;
  Batch& batch = kernel.batch;
  check(broadcast({operands, count}, shape, batch), {&args.filter.b, &args.filter.a, &args.w, &g});
  kernel.angles = args.w.length();
  check_shape(g, shape, {kernel.angles}, "the response");

  args.filter.give(kernel, b, b_stride, a, a_stride);
  kernel.w = rows(w.data, w.step(), w_stride, batch);
  kernel.g = rows(g_view.data, g_view.step(), g_stride, batch);
  if (wanted[0]) kernel.gb = matrices_of<false>(gb_out.data, args.filter.b.length(), 1, gb_stride, batch);
  if (wanted[1]) kernel.ga = matrices_of<false>(ga_out.data, args.filter.a.length(), 1, ga_stride, batch);
  if (wanted[2]) kernel.gw = rows(gw_out.data, 1, gw_stride, batch);
  if (batch.rows() > 0) {
    const auto run = [](const auto&... with) { return kernels::freqz_backward(with...); };
    check(args.on.run(run, kernel), Algorithm::automatic, "a");
  } else {
    gb_out.fill_zero();  // sums over no rows
    ga_out.fill_zero();
    gw_out.fill_zero();
  }
  gb_out.store();
  ga_out.store();
  gw_out.store();
  return {Returned{gb.release()}, Returned{ga.release()}, Returned{gw.release()}};
}

}  // namespace

Returned freqz(AtenTensorHandle b_, AtenTensorHandle a_, AtenTensorHandle w_, bool wide) {
  Handle b(b_), a(a_), w(w_);
  const Arguments args(std::move(b), std::move(a), std::move(w));
  return args.visit(wide, [&]<class Value, class State>() { return forward<Value, State>(args); });
}

std::tuple<Returned, Returned, Returned> freqz_backward(AtenTensorHandle g_, AtenTensorHandle b_, AtenTensorHandle a_,
                                                        AtenTensorHandle w_, std::int64_t output_mask) {
  Handle b(b_), a(a_), w(w_), given(g_);
  const Arguments args(std::move(b), std::move(a), std::move(w));
  const Tensor g = argument("g", std::move(given));
  args.on.check({&g});
  STD_TORCH_CHECK(is_complex(g.dtype), "g must be complex");
  const bool wanted[3] = {(output_mask & 1) != 0, (output_mask & 2) != 0, (output_mask & 4) != 0};
  return args.visit(is_wide(g.dtype),
                    [&]<class Value, class State>() { return backward<Value, State>(args, g, wanted); });
}

}  // namespace torch_iir::ops
