// _native: the kernels on NumPy arrays, and facts about the build. No torch.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "torch_iir/broadcast.h"
#include "torch_iir/instruction_sets.h"
#include "torch_iir/lfilter.h"
#include "torch_iir/lfilter_tv.h"
#include "torch_iir/sosfilt.h"
#include "torch_iir/version.h"

namespace py = pybind11;
using namespace torch_iir;

namespace {

Algorithm algorithm_of(std::string_view name) {
  std::string names;
  for (std::size_t i = 0; i < std::size(algorithm_names); ++i) {
    if (name == algorithm_names[i]) return static_cast<Algorithm>(i);
    names += std::string(i == 0 ? "" : ", ") + algorithm_names[i];
  }
  throw py::value_error("algorithm must be one of " + names + "; got \"" + std::string(name) + '"');
}

void check(Status status, const std::string& algorithm) {
  switch (status) {
    case Status::ok: return;
    case Status::zero_a0: throw py::value_error("a[..., 0] must not be zero: the filter is divided by it");
    case Status::out_of_memory: throw std::bad_alloc();
    case Status::unsupported: throw py::value_error("algorithm \"" + algorithm + "\" cannot run this filter");
    case Status::not_made:
    case Status::wrong_shape:
    case Status::no_data:
    case Status::out_of_range: throw py::value_error(message(status));
  }
}

// NumPy allows samples that are not aligned, inside of records; the kernels do not.
template <class Array>
Array aligned(const Array& array) {
  if ((array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0) return array;
  return Array(array.attr("copy")());
}

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

using Doubles = py::array_t<double, py::array::forcecast>;

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
  check(status, algorithm_name);
  return py::make_tuple(std::move(y), std::move(zf));
}

py::dict build_info() {
  py::list available;
  for (const InstructionSet& set : instruction_sets())
    if (set.supported) available.append(set.name);
  py::dict info;
  info["version"] = TORCH_IIR_VERSION;
  info["compiler"] = compiler();
  info["isa"] = isa();
  info["isas"] = available;
  return info;
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  if (isa_error() != nullptr) throw py::import_error(isa_error());

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
  module.def(
      "lfilter_algorithm",
      [](std::int64_t rows, std::int64_t samples, int order, bool complex) {
        return algorithm_names[static_cast<int>(lfilter_algorithm(rows, samples, order, complex))];
      },
      py::arg("rows"), py::arg("samples"), py::arg("order"), py::arg("complex") = false,
      "The algorithm that \"automatic\" stands for.");
  module.def(
      "lfilter_tv_algorithm",
      [](std::int64_t rows, std::int64_t samples, int order, bool complex) {
        return algorithm_names[static_cast<int>(lfilter_tv_algorithm(rows, samples, order, complex))];
      },
      py::arg("rows"), py::arg("samples"), py::arg("order"), py::arg("complex") = false,
      "The algorithm that \"automatic\" stands for.");
  module.def(
      "sosfilt_algorithm",
      [](std::int64_t rows, std::int64_t samples, int sections, bool complex) {
        return algorithm_names[static_cast<int>(sosfilt_algorithm(rows, samples, sections, complex))];
      },
      py::arg("rows"), py::arg("samples"), py::arg("sections"), py::arg("complex") = false,
      "The algorithm that \"automatic\" stands for.");
  module.def("build_info", &build_info, "Version, compiler, instruction set in use (isa) and available (isas).");
  module.def(
      "set_isa",
      [](const std::string& name) {
        if (set_isa(name.c_str())) return;
        std::string names;
        for (const InstructionSet& set : instruction_sets())
          if (set.supported) names += std::string(" ") + set.name;
        throw py::value_error("isa must be one that this machine runs:" + names + "; got \"" + name + '"');
      },
      py::arg("name"), "Uses the kernels for another instruction set from the next call on, in the whole process.");
}
