// Calls a compiled model as often as it is told: calls PACKAGE CASES
//
// A line of the input is the number of the first case and a number of calls, each of which takes the next case. After
// them the answer is the difference of the last output from the expected one.
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdio>
#include <exception>

#include "cases.h"

int main(int, char** arguments) try {
  torch::inductor::AOTIModelPackageLoader model(arguments[1]);
  const std::vector<Case> cases = CasesFile(arguments[2]).read();
  std::size_t first = 0, count = 0;
  while (std::scanf("%zu %zu", &first, &count) == 2) {
    std::vector<at::Tensor> outputs;
    for (std::size_t i = 0; i < count; ++i) {
      outputs.clear();
      outputs = model.run(cases[(first + i) % cases.size()].inputs);
    }
    std::printf("%g\n", difference(outputs.front(), cases[(first + count - 1) % cases.size()].outputs.front()));
    std::fflush(stdout);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
