// Calls a compiled model as often as it is told: calls PACKAGE CASES
//
// A line of the input is the number of the first case and a number of calls, each of which takes the next case; after
// them there is an empty line of output. After 0 calls it is the difference of the last output from the expected one.
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdio>
#include <exception>

#include "cases.h"

int main(int, char** arguments) try {
  torch::inductor::AOTIModelPackageLoader model(arguments[1]);
  const std::vector<Case> cases = CasesFile(arguments[2]).read();
  std::size_t first = 0, count = 0, last = 0;
  std::vector<at::Tensor> outputs = model.run(cases[last].inputs);
  while (std::scanf("%zu %zu", &first, &count) == 2) {
    for (std::size_t i = 0; i < count; ++i) {
      outputs.clear();
      last = (first + i) % cases.size();
      outputs = model.run(cases[last].inputs);
    }
    if (count == 0) std::printf("%g", difference(outputs.front(), cases[last].outputs.front()));
    std::puts("");
    std::fflush(stdout);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
