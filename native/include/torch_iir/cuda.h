// What libtorch_iir_cuda was built for.
#pragma once

#include "torch_iir/export.h"

namespace torch_iir {

// Compute capabilities with machine code in the library, as "90" or "90;100".
TORCH_IIR_API const char* cuda_architectures() noexcept;

}  // namespace torch_iir
