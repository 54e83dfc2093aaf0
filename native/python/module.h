// The parts of the module _native.
#pragma once

#include <pybind11/pybind11.h>

namespace torch_iir::python {

void add_lfilter(pybind11::module_& module);
void add_filter_plans(pybind11::module_& module);
void add_inverse_mel(pybind11::module_& module);

}  // namespace torch_iir::python
