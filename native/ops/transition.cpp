// torch_iir::_matrix_power and _chained_states on the CPU: from tensors to arrays.
#include "transition.h"

#include <algorithm>

#include "storage.h"
#include "torch_iir/transition.h"

namespace torch_iir::ops {
namespace {

// An argument of doubles whose last `core` dimensions lie one after the other.
Tensor doubles(const char* name, AtenTensorHandle handle, int core) {
  Tensor tensor = argument(name, Handle(handle));
  if (!tensor) return tensor;
  STD_TORCH_CHECK(tensor.dtype == DType::float64, name, " must be float64");
  STD_TORCH_CHECK(tensor.dims >= core, name, " must have at least ", core, " dimensions, got ", describe({&tensor}));
  std::int64_t stride[max_dims];
  contiguous_strides(tensor.dims, tensor.size, stride);
  for (int d = tensor.dims - core; d < tensor.dims; ++d)
    STD_TORCH_CHECK(tensor.size[d] <= 1 || tensor.stride[d] == stride[d], name, " must be contiguous in its last ",
                    core, " dimensions");
  return tensor;
}

void check_core(const Tensor& tensor, std::initializer_list<std::int64_t> core, const Tensor& of) {
  STD_TORCH_CHECK(!tensor || std::equal(core.begin(), core.end(), tensor.size + tensor.dims - core.size()),
                  "shapes do not fit together: ", describe({&tensor, &of}));
}

}  // namespace

std::tuple<Returned, Returned> matrix_power(AtenTensorHandle handle, std::int64_t n) {
  const Tensor matrix = doubles("matrix", handle, 2);
  std::int64_t stride[max_dims];
  contiguous_strides(matrix.dims, matrix.size, stride);
  STD_TORCH_CHECK(std::equal(stride, stride + matrix.dims, matrix.stride), "matrix must be contiguous");
  check_core(matrix, {matrix.length(), matrix.length()}, matrix);
  STD_TORCH_CHECK(n >= 0, "n must not be negative, got ", n);

  Handle power = empty(matrix.dims, matrix.size, DType::float64),
         rest = empty(matrix.dims, matrix.size, DType::float64);
  const Status status =
      torch_iir::matrix_power(static_cast<const double*>(matrix.data), count(matrix.dims - 2, matrix.size),
                              matrix.length(), n, static_cast<double*>(data(power)), static_cast<double*>(data(rest)));
  STD_TORCH_CHECK(status == Status::ok, message(status));
  return {Returned{power.release()}, Returned{rest.release()}};
}

Returned chained_states(AtenTensorHandle power_, std::optional<AtenTensorHandle> rest_, AtenTensorHandle inputs_,
                        AtenTensorHandle first_) {
  const Tensor power = doubles("power", power_, 3), rest = doubles("rest", rest_.value_or(nullptr), 3),
               inputs = doubles("inputs", inputs_, 2), first = doubles("first", first_, 1);
  const std::int64_t parts = inputs.size[inputs.dims - 2], size = inputs.length();
  check_core(power, {parts, size, size}, inputs);
  check_core(rest, {parts, size, size}, inputs);
  check_core(first, {size}, inputs);

  Strides power_stride, rest_stride, inputs_stride, first_stride, states_stride;
  const Operand operands[] = {power.operand(power_stride, 3), inputs.operand(inputs_stride, 2),
                              first.operand(first_stride), rest.operand(rest_stride, 3)};
  Shape shape;
  Batch batch;
  check(broadcast({operands, rest ? 4u : 3u}, shape, batch), {&power, &inputs, &first, &rest});
  shape.size[shape.dims] = parts + 1;
  shape.size[shape.dims + 1] = size;
  Handle states = empty(shape.dims + 2, shape.size, DType::float64);
  row_major(batch, (parts + 1) * size, states_stride);

  const auto read = [&](const Tensor& tensor, const std::int64_t* stride) {
    return rows(static_cast<const double*>(tensor.data), 1, stride, batch);
  };
  const Rows<const double> powers = read(power, power_stride), all_inputs = read(inputs, inputs_stride),
                           firsts = read(first, first_stride);
  const Rows<const double> rests = rest ? read(rest, rest_stride) : Rows<const double>{};
  const Rows<double> out = rows(static_cast<double*>(data(states)), 1, states_stride, batch);
  for (std::int64_t row = 0; row < batch.rows(); ++row)
    torch_iir::chained_states(powers.row(batch, row), rests ? rests.row(batch, row) : nullptr,
                              all_inputs.row(batch, row), firsts.row(batch, row), parts, size, out.row(batch, row));
  return {states.release()};
}

}  // namespace torch_iir::ops
