#include "torch_iir/cuda.h"

namespace torch_iir {

const char* cuda_architectures() noexcept { return TORCH_IIR_CUDA_ARCHITECTURES; }

}  // namespace torch_iir
