// The operators of lfilter_fsm; their schemas are in registration.cpp.
#pragma once

#include <cstdint>
#include <tuple>

#include "tensor.h"

namespace torch_iir::ops {

Returned lfilter_fsm(AtenTensorHandle x, AtenTensorHandle b, AtenTensorHandle a, std::int64_t n_fft);

// output_mask: bit 0 for gx, 1 for gb, 2 for ga; what is not wanted comes back as a tensor of shape [0].
std::tuple<Returned, Returned, Returned> lfilter_fsm_backward(AtenTensorHandle gy, AtenTensorHandle x,
                                                              AtenTensorHandle b, AtenTensorHandle a,
                                                              std::int64_t n_fft, std::int64_t output_mask);

}  // namespace torch_iir::ops
