// Marks what libtorch_iir_core offers to other libraries; everything else in it is hidden.
#pragma once

#define TORCH_IIR_API __attribute__((visibility("default")))

// For functions that CUDA's kernels call as well as the CPU's.
#ifdef __CUDACC__
#define TORCH_IIR_HOST_DEVICE __host__ __device__
#else
#define TORCH_IIR_HOST_DEVICE
#endif
