// lfilter on NumPy arrays.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "arrays.h"
#include "errors.h"
#include "module.h"
#include "torch_iir/broadcast.h"
#include "torch_iir/lfilter.h"

namespace torch_iir::python {
namespace {

// An array's memory with strides counted in elements.
template <class T>
struct Elements {
  const T* data;
  int dims;
  std::array<std::int64_t, max_dims> size, stride;

  explicit Elements(const py::array& array)
      : data(static_cast<const T*>(array.data())), dims(static_cast<int>(array.ndim())) {
    for (int d = 0; d < dims; ++d) {
      size[d] = array.shape(d);
      stride[d] = array.strides(d) / static_cast<std::int64_t>(sizeof(T));
    }
  }
  std::int64_t length() const { return size[dims - 1]; }
  Operand operand(std::int64_t* batch_stride) const { return {dims - 1, size.data(), stride.data(), batch_stride}; }
  Rows<const T> rows(const std::int64_t* batch_stride, const Batch& batch) const {
    Rows<const T> result{data, stride[dims - 1]};
    std::copy_n(batch_stride, batch.dims, result.stride);
    return result;
  }
};

void check_dims(const char* name, const py::array& array, bool may_be_empty) {
  if (array.ndim() < 1 || array.ndim() > max_dims)
    throw py::value_error(std::string(name) + " must have 1 to 64 dimensions, got " + std::to_string(array.ndim()));
  if (!may_be_empty && array.shape(array.ndim() - 1) == 0)
    throw py::value_error(std::string(name) + " must have at least one coefficient");
}

template <class Sample>
py::tuple lfilter_of(const py::array_t<Sample>& given_x, const Doubles& given_b, const Doubles& given_a,
                     const std::optional<Doubles>& given_zi, const std::string& algorithm_name) {
  const auto x_ = aligned(given_x);
  const auto b_ = aligned(given_b), a_ = aligned(given_a);
  const auto zi_ = given_zi ? std::optional(aligned(*given_zi)) : std::nullopt;
  const Algorithm algorithm = algorithm_of(algorithm_name);
  check_dims("x", x_, true);
  check_dims("b", b_, false);
  check_dims("a", a_, false);
  if (zi_) check_dims("zi", *zi_, true);
  const Elements<Sample> x(x_);
  const Elements<double> b(b_), a(a_), zi(zi_.value_or(b_));
  const std::int64_t order = std::max(b.length(), a.length()) - 1;
  if (zi_ && zi.length() != order)
    throw py::value_error("the last dimension of zi must be max(len b, len a) - 1 = " + std::to_string(order) +
                          ", got " + std::to_string(zi.length()));

  std::int64_t x_stride[max_batch_dims], b_stride[max_batch_dims], a_stride[max_batch_dims], zi_stride[max_batch_dims];
  const Operand operands[] = {x.operand(x_stride), b.operand(b_stride), a.operand(a_stride), zi.operand(zi_stride)};
  Shape shape;
  LFilter<Sample> filter;
  switch (broadcast({operands, zi_ ? 4u : 3u}, shape, filter.batch)) {
    case BroadcastStatus::ok: break;
    case BroadcastStatus::mismatch:
      throw py::value_error("the dimensions of x, b, a and zi before the last must broadcast together");
    case BroadcastStatus::too_many_dims: throw py::value_error("too many dimensions that cannot be merged: at most 16");
  }
  const Batch& batch = filter.batch;

  std::vector<py::ssize_t> size(shape.size, shape.size + shape.dims);
  size.push_back(x.length());
  py::array_t<Sample> y(size);
  size.back() = order;
  py::array_t<double> zf(size);
  filter.samples = x.length();
  filter.b_length = static_cast<int>(b.length());
  filter.a_length = static_cast<int>(a.length());
  filter.x = x.rows(x_stride, batch);
  filter.b = b.rows(b_stride, batch);
  filter.a = a.rows(a_stride, batch);
  if (zi_) filter.zi = zi.rows(zi_stride, batch);
  filter.y.data = y.mutable_data();
  row_major(batch, filter.samples, filter.y.stride);
  filter.zf.data = zf.mutable_data();
  row_major(batch, order, filter.zf.stride);
  Status status = Status::ok;
  if (batch.rows() > 0) {
    py::gil_scoped_release released;
    status = lfilter(filter, algorithm);
  }
  if (status != Status::ok) raise(status, {.unsupported = cannot_run(algorithm_name)});
  return py::make_tuple(std::move(y), std::move(zf));
}

}  // namespace

void add_lfilter(py::module_& module) {
  module.def(
      "lfilter",
      [](const py::array& x, const Doubles& b, const Doubles& a, const std::optional<Doubles>& zi,
         const std::string& algorithm) {
        if (py::isinstance<py::array_t<float>>(x)) return lfilter_of<float>(py::array_t<float>(x), b, a, zi, algorithm);
        return lfilter_of<double>(py::array_t<double, py::array::forcecast>(x), b, a, zi, algorithm);
      },
      py::arg("x"), py::arg("b"), py::arg("a"), py::arg("zi") = py::none(), py::kw_only(),
      py::arg("algorithm") = "automatic",
      "Filters the last axis of x; returns (y, zf). Leading dimensions broadcast. float32 and float64 are not copied.");
}

}  // namespace torch_iir::python
