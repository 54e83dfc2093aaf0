// Marks what libtorch_iir_core offers to other libraries; everything else in it is hidden.
#pragma once

#define TORCH_IIR_API __attribute__((visibility("default")))
