// Runs a compiled model without Python: effects PACKAGE CASES [LIBRARY]
//
// PACKAGE and CASES are what export.py writes. LIBRARY is libtorch_iir_ops.so, for a program that was built without
// torch_iir::ops: to load the library is to register the operators that the model calls.
#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <string>

#include "cases.h"

namespace {

using Model = torch::inductor::AOTIModelPackageLoader;

constexpr double bound = 1e-6;  // of the largest sample: what Inductor computes itself it rounds in its own order

bool is_in_this_process(const std::string& library) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find(library) != std::string::npos) return true;
  }
  return false;
}

double microseconds_a_call(Model& model, const std::vector<at::Tensor>& inputs) {
  using Clock = std::chrono::steady_clock;
  double best = INFINITY;
  for (int i = 0; i < 10; ++i) {
    const Clock::time_point start = Clock::now();
    model.run(inputs);
    best = std::min(best, std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  return best;
}

bool runs_as_in_python(const char* package, const char* cases) {
  Model model(package);
  bool equal = true;
  for (const Case& one : CasesFile(cases).read()) {
    const std::vector<at::Tensor> outputs = model.run(one.inputs);
    double off = outputs.size() == one.outputs.size() ? 0 : NAN;
    for (std::size_t i = 0; i < outputs.size() && !std::isnan(off); ++i) {
      const double here = difference(outputs[i], one.outputs[i]);
      off = std::isnan(here) ? NAN : std::max(off, here);
    }
    for (const std::int64_t length : one.inputs.front().sizes()) std::printf("%ld ", static_cast<long>(length));
    std::printf("samples: %.0f us a call, off by %.1e\n", microseconds_a_call(model, one.inputs), off);
    equal = equal && off <= bound;
  }
  return equal;
}

}  // namespace

int main(int count, char** arguments) try {
  if (count != 3 && count != 4) {
    std::fprintf(stderr, "usage: %s PACKAGE CASES [LIBRARY]\n", arguments[0]);
    return 2;
  }
  if (count == 4 && dlopen(arguments[3], RTLD_NOW) == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  if (!runs_as_in_python(arguments[1], arguments[2])) {
    std::fprintf(stderr, "not what Python computed\n");
    return 1;
  }
  std::printf("libpython is%s in this process\n", is_in_this_process("libpython") ? "" : " not");
  return 0;
} catch (const c10::Error& error) {
  std::fprintf(stderr, "%s\n", error.what_without_backtrace());
  if (!is_in_this_process("libtorch_iir_ops")) {
    std::fprintf(stderr, "libtorch_iir_ops.so is not loaded: link torch_iir::ops, or name the file after CASES\n");
  }
  return 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
