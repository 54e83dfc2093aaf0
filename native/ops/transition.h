// The operators _matrix_power and _chained_states on the CPU; their schemas are in registration.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <tuple>

#include "tensor.h"

namespace torch_iir::ops {

// Of matrix (..., N, N).
std::tuple<Returned, Returned> matrix_power(AtenTensorHandle matrix, std::int64_t n);

// (..., R + 1, N), of power and rest (..., R, N, N), inputs (..., R, N) and first (..., N).
Returned chained_states(AtenTensorHandle power, std::optional<AtenTensorHandle> rest, AtenTensorHandle inputs,
                        AtenTensorHandle first);

}  // namespace torch_iir::ops
