// Wrong calls become Python's exceptions.
#pragma once

#include <pybind11/pybind11.h>

#include <iterator>
#include <new>
#include <string>
#include <string_view>

#include "torch_iir/algorithm.h"
#include "torch_iir/status.h"

namespace torch_iir::python {

namespace py = pybind11;

// What a status means for the call at hand; where nothing is said, it is the library's own sentence.
struct Meaning {
  std::string zero_a0 = "a[..., 0]";  // the coefficient
  std::string unsupported = {}, wrong_shape = {}, out_of_range = {};
};

[[noreturn]] inline void raise(Status status, const Meaning& meaning) {
  const auto sentence = [&](const std::string& own) { return own.empty() ? std::string(message(status)) : own; };
  switch (status) {
    case Status::zero_a0: throw py::value_error(meaning.zero_a0 + " must not be zero: the filter is divided by it");
    case Status::out_of_memory: throw std::bad_alloc();
    case Status::unsupported: throw py::value_error(sentence(meaning.unsupported));
    case Status::wrong_shape: throw py::value_error(sentence(meaning.wrong_shape));
    case Status::out_of_range: throw py::value_error(sentence(meaning.out_of_range));
    case Status::ok:
    case Status::device_failed:
    case Status::not_made:
    case Status::no_data: break;
  }
  throw py::value_error(message(status));
}

inline std::string cannot_run(const std::string& algorithm) {
  return "algorithm \"" + algorithm + "\" cannot run this filter";
}

// The number of a name in a list of names.
template <std::size_t Count>
int one_of(const char* const (&names)[Count], const char* argument, std::string_view name) {
  std::string all;
  for (std::size_t i = 0; i < Count; ++i) {
    if (name == names[i]) return static_cast<int>(i);
    all += std::string(i == 0 ? "" : ", ") + names[i];
  }
  throw py::value_error(std::string(argument) + " must be one of " + all + "; got \"" + std::string(name) + '"');
}

inline Algorithm algorithm_of(std::string_view name) {
  return static_cast<Algorithm>(one_of(algorithm_names, "algorithm", name));
}

}  // namespace torch_iir::python
