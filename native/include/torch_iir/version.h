// The one place where the version stands: CMake and the Python package read the line with the string.
#pragma once

#include <string_view>

#define TORCH_IIR_VERSION "0.1.0"
#define TORCH_IIR_VERSION_MAJOR 0
#define TORCH_IIR_VERSION_MINOR 1
#define TORCH_IIR_VERSION_PATCH 0

// For comparisons: #if TORCH_IIR_VERSION_NUMBER >= 102  // 0.1.2
#define TORCH_IIR_VERSION_NUMBER \
  (TORCH_IIR_VERSION_MAJOR * 10000 + TORCH_IIR_VERSION_MINOR * 100 + TORCH_IIR_VERSION_PATCH)

#define TORCH_IIR_DOTTED_(major, minor, patch) #major "." #minor "." #patch
#define TORCH_IIR_DOTTED(...) TORCH_IIR_DOTTED_(__VA_ARGS__)
static_assert(std::string_view(TORCH_IIR_VERSION) ==
                  TORCH_IIR_DOTTED(TORCH_IIR_VERSION_MAJOR, TORCH_IIR_VERSION_MINOR, TORCH_IIR_VERSION_PATCH),
              "the numbers of the version are not those of its text");
#undef TORCH_IIR_DOTTED
#undef TORCH_IIR_DOTTED_
