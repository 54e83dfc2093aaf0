// torch_iir::sosfilt and sosfilt_backward: from tensors to the kernels' parameters.
#include "sosfilt.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "storage.h"
#include "torch_iir/sosfilt.h"

namespace torch_iir::ops {
namespace {

constexpr int section_length = 6, state_length = 2;

struct Arguments {
  Tensor x, sos, zi;
  Storage storage;
  OnDevice on;
  std::int64_t samples = 0, sections = 0;

  Arguments(Handle x_, Handle sos_, Handle zi_)
      : x(argument("x", std::move(x_))),
        sos(argument("sos", std::move(sos_))),
        zi(argument("zi", std::move(zi_))),
        storage(x, {&sos}, zi),
        on({&x, &sos, &zi}) {
    STD_TORCH_CHECK(sos.dims >= 2 && sos.length() == section_length && sos.size[sos.dims - 2] > 0,
                    "sos must have the shape (..., S, 6) with S at least 1, got ", describe({&sos}));
    samples = x.length();
    sections = sos.size[sos.dims - 2];
    STD_TORCH_CHECK(sections <= std::numeric_limits<int>::max() / 64, "sos has too many sections: ", sections);
    STD_TORCH_CHECK(!zi || (zi.dims >= 2 && zi.length() == state_length && zi.size[zi.dims - 2] == sections),
                    "the last two dimensions of zi must be the sections of sos and 2: ", sections, " x 2, got ",
                    describe({&zi, &sos}));
  }
};

// A fresh tensor of the shape's dimensions and two more.
Handle empty_sections(Shape& shape, std::int64_t sections, DType dtype) {
  STD_TORCH_CHECK(shape.dims + 2 <= max_dims, "x must have at most ", max_dims - 1, " dimensions, got ",
                  shape.dims + 1);
  shape.size[shape.dims] = sections;
  shape.size[shape.dims + 1] = state_length;
  return empty(shape.dims + 2, shape.size, dtype);
}

template <class T>
std::tuple<Returned, Returned> forward(const Arguments& args) {
  using Type = Types<T>;
  const typename Type::In x(args.x);
  const SmallIn<typename Type::State> sos(args.sos);
  const typename Type::HeldIn zi(args.zi);

  Strides x_stride, sos_stride, zi_stride, y_stride, zf_stride;
  const Operand operands[] = {x.operand(x_stride), sos.operand(sos_stride, 2), zi.operand(zi_stride, 2)};
  Shape shape;
  Batch batch;
  check(broadcast({operands, args.zi ? 3u : 2u}, shape, batch), {&args.x, &args.sos, &args.zi});

  shape.size[shape.dims] = args.samples;
  Handle y = empty(shape.dims + 1, shape.size, args.storage.result);
  typename Type::Out y_out(y, args.storage.result, shape.dims + 1, shape.size);
  row_major(batch, args.samples, y_stride);
  Handle zf = empty_sections(shape, args.sections, args.storage.state);
  typename Type::HeldOut zf_out(zf, args.storage.state, shape.dims + 2, shape.size);
  row_major(batch, args.sections * state_length, zf_stride);

  if (batch.rows() > 0) {
    kernels::SOSFilt<typename Type::Sample, typename Type::State> kernel;
    kernel.batch = with_pairs(batch, Type::pairs);
    kernel.samples = args.samples;
    kernel.sections = static_cast<int>(args.sections);
    kernel.x = rows_of<Type::pairs>(x.data, x.step(), x_stride, batch);
    kernel.sos = matrices_of<false>(sos.data, sos.down(), sos.step(), sos_stride, batch);
    if (args.zi) kernel.zi = matrices_of<Type::pairs>(zi.data, zi.down(), zi.step(), zi_stride, batch);
    kernel.y = rows_of<Type::pairs>(y_out.data, 1, y_stride, batch);
    kernel.zf = matrices_of<Type::pairs>(zf_out.data, state_length, 1, zf_stride, batch);
    const auto run = [](const auto&... with) { return kernels::sosfilt(with...); };
    check(args.on.run(run, kernel, algorithm()), algorithm(), "sos[..., 3]");
    y_out.store();
    zf_out.store();
  }
  return {Returned{y.release()}, Returned{zf.release()}};
}

struct Gradients {
  Tensor gy, gzf;
  bool wanted[3];  // gx, gsos, gzi
};

template <class T>
std::tuple<Returned, Returned, Returned> backward(const Arguments& args, const Gradients& given) {
  using Type = Types<T>;
  const typename Type::In x(args.x), gy(given.gy);
  const SmallIn<typename Type::State> sos(args.sos);
  const typename Type::HeldIn zi(args.zi), gzf(given.gzf);

  Handle gx = empty_gradient(given.wanted[0], args.x, args.storage.result),
         gsos = empty_gradient(given.wanted[1], args.sos, args.storage.result),
         gzi = empty_gradient(given.wanted[2], args.zi, args.storage.state);
  const Handle none;
  const bool wants_gzi = given.wanted[2] && args.zi;
  typename Type::Out gx_out(given.wanted[0] ? gx : none, args.x.dtype, args.x.dims, args.x.size);
  SmallOut<typename Type::State> gsos_out(given.wanted[1] ? gsos : none, args.sos.dtype, args.sos.dims, args.sos.size);
  typename Type::HeldOut gzi_out(wants_gzi ? gzi : none, args.zi.dtype, args.zi.dims, args.zi.size);

  Strides x_stride, sos_stride, zi_stride, gy_stride, gzf_stride, gx_stride, gsos_stride, gzi_stride;
  Operand operands[8] = {x.operand(x_stride), sos.operand(sos_stride, 2)};
  std::size_t count = 2;
  const auto add = [&](bool wanted, Operand operand) {
    if (wanted) operands[count++] = operand;
  };
  add(bool(args.zi), zi.operand(zi_stride, 2));
  add(bool(given.gy), gy.operand(gy_stride));
  add(bool(given.gzf), gzf.operand(gzf_stride, 2));
  add(given.wanted[0], gx_out.operand(gx_stride));
  add(given.wanted[1], gsos_out.operand(gsos_stride, 2));
  add(wants_gzi, gzi_out.operand(gzi_stride, 2));
  Shape shape;
  Batch batch;
  check(broadcast({operands, count}, shape, batch), {&args.x, &args.sos, &args.zi, &given.gy, &given.gzf});
  check_shape(given.gy, shape, {args.samples}, "y");
  check_shape(given.gzf, shape, {args.sections, state_length}, "zf");

  if (batch.rows() > 0) {
    kernels::SOSFiltBackward<typename Type::Sample, typename Type::State> kernel;
    kernel.batch = with_pairs(batch, Type::pairs);
    kernel.samples = args.samples;
    kernel.sections = static_cast<int>(args.sections);
    if (given.gy) kernel.gy = rows_of<Type::pairs>(gy.data, gy.step(), gy_stride, batch);
    if (given.gzf) kernel.gzf = matrices_of<Type::pairs>(gzf.data, gzf.down(), gzf.step(), gzf_stride, batch);
    kernel.x = rows_of<Type::pairs>(x.data, x.step(), x_stride, batch);
    kernel.sos = matrices_of<false>(sos.data, sos.down(), sos.step(), sos_stride, batch);
    if (args.zi) kernel.zi = matrices_of<Type::pairs>(zi.data, zi.down(), zi.step(), zi_stride, batch);
    if (given.wanted[0]) kernel.gx = rows_of<Type::pairs>(gx_out.data, 1, gx_stride, batch);
    if (given.wanted[1]) kernel.gsos = matrices_of<false>(gsos_out.data, section_length, 1, gsos_stride, batch);
    if (wants_gzi) kernel.gzi = matrices_of<Type::pairs>(gzi_out.data, state_length, 1, gzi_stride, batch);
    const auto run = [](const auto&... with) { return kernels::sosfilt_backward(with...); };
    check(args.on.run(run, kernel, algorithm()), algorithm(), "sos[..., 3]");
  } else {
    gx_out.fill_zero();  // sums over no rows
    gsos_out.fill_zero();
    gzi_out.fill_zero();
  }
  gx_out.store();
  gsos_out.store();
  gzi_out.store();
  return {Returned{gx.release()}, Returned{gsos.release()}, Returned{gzi.release()}};
}

}  // namespace

std::tuple<Returned, Returned> sosfilt(AtenTensorHandle x, AtenTensorHandle sos, std::optional<AtenTensorHandle> zi) {
  const Arguments args(Handle{x}, Handle{sos}, Handle{zi.value_or(nullptr)});
  return args.storage.visit([&]<class T>() { return forward<T>(args); });
}

std::tuple<Returned, Returned, Returned> sosfilt_backward(std::optional<AtenTensorHandle> gy_,
                                                          std::optional<AtenTensorHandle> gzf_, AtenTensorHandle x_,
                                                          AtenTensorHandle sos_, std::optional<AtenTensorHandle> zi_,
                                                          std::int64_t output_mask) {
  Handle gy(gy_.value_or(nullptr)), gzf(gzf_.value_or(nullptr)), x(x_), sos(sos_), zi(zi_.value_or(nullptr));
  const Arguments args(std::move(x), std::move(sos), std::move(zi));
  const Gradients given{argument("gy", std::move(gy)),
                        argument("gzf", std::move(gzf)),
                        {(output_mask & 1) != 0, (output_mask & 2) != 0, (output_mask & 4) != 0}};
  args.on.check({&given.gy, &given.gzf});
  STD_TORCH_CHECK(!given.gy || given.gy.dtype == args.storage.result, "gy must have the dtype of y");
  STD_TORCH_CHECK(!given.gzf || given.gzf.dims >= 2, "gzf must have the shape of zf, got ", describe({&given.gzf}));
  return args.storage.visit([&]<class T>() { return backward<T>(args, given); });
}

}  // namespace torch_iir::ops
