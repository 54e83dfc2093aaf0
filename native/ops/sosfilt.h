// The operators of sosfilt, on the CPU and on CUDA; their schemas are in registration.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <tuple>

#include "tensor.h"

namespace torch_iir::ops {

std::tuple<Returned, Returned> sosfilt(AtenTensorHandle x, AtenTensorHandle sos, std::optional<AtenTensorHandle> zi);

// output_mask: bit 0 for gx, 1 for gsos, 2 for gzi; what is not wanted comes back as a tensor of shape [0].
std::tuple<Returned, Returned, Returned> sosfilt_backward(std::optional<AtenTensorHandle> gy,
                                                          std::optional<AtenTensorHandle> gzf, AtenTensorHandle x,
                                                          AtenTensorHandle sos, std::optional<AtenTensorHandle> zi,
                                                          std::int64_t output_mask);

}  // namespace torch_iir::ops
