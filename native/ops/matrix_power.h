// The operator _matrix_power on the CPU; its schema is in registration.cpp.
#pragma once

#include <cstdint>

#include "tensor.h"

namespace torch_iir::ops {

Returned matrix_power(AtenTensorHandle matrix, std::int64_t n);

}  // namespace torch_iir::ops
