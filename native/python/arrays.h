// NumPy arrays as views. Signals are never copied; coefficients and states may be numbers of any kind.
#pragma once

#include <pybind11/numpy.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "torch_iir/view.h"

namespace torch_iir::python {

namespace py = pybind11;

using Doubles = py::array_t<double, py::array::forcecast>;

// NumPy allows samples that are not aligned, inside of records; the kernels do not.
inline bool is_aligned(const py::array& array) {
  return (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
}
template <class Array>
Array aligned(const Array& array) {
  return is_aligned(array) ? array : Array(array.attr("copy")());
}

// --- sizes

// As Python writes a shape, (2, 64), with a name for what is free, (2, T).
inline std::string text(const Sizes& sizes, const std::string& free = "") {
  std::string result = "(";
  const auto add = [&](const std::string& size) {
    if (result.size() > 1) result += ", ";
    result += size;
  };
  for (int d = 0; d < sizes.dims; ++d) add(std::to_string(sizes[d]));
  if (!free.empty()) add(free);
  return result + (sizes.dims + (free.empty() ? 0 : 1) == 1 ? ",)" : ")");
}
inline std::string text(const py::array& array) { return py::str(array.attr("shape")); }

inline void check_dims(const char* name, std::int64_t dims) {
  if (dims > max_view_dims)
    throw py::value_error(std::string(name) + " must have at most " + std::to_string(max_view_dims) +
                          " dimensions, got " + std::to_string(dims));
}

inline Sizes joined(const char* name, Sizes sizes, std::initializer_list<std::int64_t> more) {
  check_dims(name, sizes.dims + static_cast<std::int64_t>(more.size()));
  for (const std::int64_t size : more) sizes.size[sizes.dims++] = size;
  return sizes;
}

inline py::tuple tuple_of(const Sizes& sizes) {
  py::tuple result(sizes.dims);
  for (int d = 0; d < sizes.dims; ++d) result[d] = sizes[d];
  return result;
}

// --- views

template <class T>
void lay_out(const char* name, const py::array& array, View<T>& view) {
  check_dims(name, array.ndim());
  view.sizes.dims = static_cast<int>(array.ndim());
  for (int d = 0; d < view.sizes.dims; ++d) {
    view.sizes.size[d] = array.shape(d);
    view.stride[d] = array.strides(d) / static_cast<std::int64_t>(sizeof(T));
  }
}

template <class T>
View<const T> to_read(const char* name, const py::array& array) {
  View<const T> view;
  view.data = static_cast<const T*>(array.data());
  lay_out(name, array, view);
  return view;
}

template <class T>
View<T> to_write(const char* name, py::array& array) {
  View<T> view;
  view.data = static_cast<T*>(array.mutable_data());
  lay_out(name, array, view);
  return view;
}

template <class T>
py::array new_array(const Sizes& sizes) {
  return py::array_t<T>(std::vector<py::ssize_t>(sizes.size, sizes.size + sizes.dims));
}

// --- arguments

template <class T>
std::string dtype_name() {
  return py::str(py::dtype::of<T>());
}

// Coefficients and states.
inline Doubles doubles(const char* name, const py::object& given) {
  const auto array = py::array::ensure(given);
  if (!array || std::string_view("biuf").find(array.dtype().kind()) == std::string_view::npos)
    throw py::type_error(std::string(name) + " must be an array of real numbers, got " +
                         std::string(array ? py::str(array.dtype()) : py::str(py::type::of(given).attr("__name__"))));
  return aligned(Doubles(array));
}

// Samples, as they lie in memory.
template <class Sample>
py::array samples(const char* name, const py::object& given) {
  if (!py::isinstance<py::array_t<Sample>>(given)) {
    const bool is_array = py::isinstance<py::array>(given);
    throw py::type_error(
        std::string(name) + " must be a NumPy array of the plan's dtype, " + dtype_name<Sample>() + ", got " +
        std::string(is_array ? py::str(given.attr("dtype")) : py::str(py::type::of(given).attr("__name__"))));
  }
  auto array = py::reinterpret_borrow<py::array>(given);
  if (!is_aligned(array))
    throw py::value_error(std::string(name) + " must be aligned in memory, as " + name + ".copy() is");
  return array;
}

// Whether two indices of an array may lead to one element. In doubt, they do.
inline bool overlaps_itself(const py::array& array) {
  std::pair<std::int64_t, std::int64_t> dims[max_view_dims];  // stride and size, those that are stepped through
  int count = 0;
  for (py::ssize_t d = 0; d < array.ndim(); ++d) {
    if (array.shape(d) == 0) return false;
    if (array.shape(d) > 1) dims[count++] = {std::abs(array.strides(d)), array.shape(d)};
  }
  std::sort(dims, dims + count);
  std::int64_t reach = array.itemsize();  // of the dimensions with smaller strides
  for (int d = 0; d < count; ++d) {
    if (dims[d].first < reach) return true;
    reach += dims[d].first * (dims[d].second - 1);
  }
  return false;
}

// Where a run writes to: what the caller gave, or a new array.
template <class Sample>
py::array output(const py::object& given, const Sizes& sizes) {
  if (given.is_none()) return new_array<Sample>(sizes);
  auto array = samples<Sample>("out", given);
  if (!(array.ndim() == sizes.dims && std::equal(sizes.size, sizes.size + sizes.dims, array.shape())))
    throw py::value_error("out must have the shape " + text(sizes) + ", got " + text(array));
  if (!array.writeable()) throw py::value_error("out must be writeable");
  if (overlaps_itself(array)) throw py::value_error("out must not overlap itself, as stride_tricks make arrays do");
  return array;
}

enum class InPlace { no, yes };

// Refuses an output that shares memory with an input, unless it is the very same array and that may be.
inline void check_overlap(const char* name, const py::array& input, const py::array& out, InPlace in_place) {
  const auto bounds = [](const py::array& array) {  // of its memory, in bytes
    const auto data = reinterpret_cast<std::intptr_t>(array.data());
    std::pair<std::intptr_t, std::intptr_t> range(data, array.size() > 0 ? data + array.itemsize() : data);
    for (py::ssize_t d = 0; d < array.ndim() && array.size() > 0; ++d) {
      const std::intptr_t reach = array.strides(d) * (array.shape(d) - 1);
      (reach < 0 ? range.first : range.second) += reach;
    }
    return range;
  };
  const auto one = bounds(input), other = bounds(out);
  if (one.first >= other.second || other.first >= one.second) return;
  if (in_place == InPlace::yes && input.data() == out.data() && input.ndim() == out.ndim()) {
    bool same = true;
    for (py::ssize_t d = 0; d < out.ndim(); ++d)
      same = same && input.shape(d) == out.shape(d) && (out.shape(d) == 1 || input.strides(d) == out.strides(d));
    if (same) return;
  }
  // Channels of one interleaved array lie between each other: NumPy tells them apart.
  bool shared = true;
  try {
    shared = py::module_::import("numpy").attr("shares_memory")(input, out, py::arg("max_work") = 10'000).cast<bool>();
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_RuntimeError)) throw;  // else: too hard to tell
  }
  if (shared)
    throw py::value_error(std::string("out must not overlap ") + name +
                          (in_place == InPlace::yes ? ", unless it is the very same array" : ""));
}

}  // namespace torch_iir::python
