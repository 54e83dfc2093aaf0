// The operators of nnls, on the CPU and on CUDA; their schemas are in registration.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <tuple>

#include "tensor.h"

namespace torch_iir::ops {

// solver: the number of an NNLSSolver.
std::tuple<Returned, Returned, Returned> nnls(AtenTensorHandle b, AtenTensorHandle a, AtenTensorHandle mu,
                                              std::optional<AtenTensorHandle> prior, std::int64_t solver,
                                              double tolerance, std::int64_t max_iterations);

// p is a tensor of shape [0] where it is not needed.
std::tuple<Returned, Returned> nnls_derivative(std::optional<AtenTensorHandle> g, std::optional<AtenTensorHandle> h,
                                               AtenTensorHandle w, AtenTensorHandle a, AtenTensorHandle mu,
                                               bool support, std::int64_t solver, bool needs_p);

}  // namespace torch_iir::ops
