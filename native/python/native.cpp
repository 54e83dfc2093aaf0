// _native: the kernels and plans on NumPy arrays, and facts about the build. No torch.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "module.h"
#include "torch_iir/instruction_sets.h"
#include "torch_iir/lfilter.h"
#include "torch_iir/lfilter_tv.h"
#include "torch_iir/sosfilt.h"
#include "torch_iir/version.h"

namespace torch_iir::python {
namespace py = pybind11;
namespace {

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

void add_facts(py::module_& module) {
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

}  // namespace
}  // namespace torch_iir::python

PYBIND11_MODULE(_native, module) {
  using namespace torch_iir;
  if (isa_error() != nullptr) throw pybind11::import_error(isa_error());
  python::add_facts(module);
  python::add_lfilter(module);
  python::add_filter_plans(module);
  python::add_inverse_mel(module);
}
