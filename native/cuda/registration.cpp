// The CUDA implementations of the operators: none yet.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_IMPL(torch_iir, CUDA, library) { static_cast<void>(library); }
