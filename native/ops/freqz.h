// The operators of freqz, on the CPU and on CUDA; their schemas are in registration.cpp.
#pragma once

#include <cstdint>
#include <tuple>

#include "tensor.h"

namespace torch_iir::ops {

Returned freqz(AtenTensorHandle b, AtenTensorHandle a, AtenTensorHandle w, bool wide);

// output_mask: bit 0 for gb, 1 for ga, 2 for gw; what is not wanted comes back as a tensor of shape [0].
std::tuple<Returned, Returned, Returned> freqz_backward(AtenTensorHandle g, AtenTensorHandle b, AtenTensorHandle a,
                                                        AtenTensorHandle w, std::int64_t output_mask);

}  // namespace torch_iir::ops
