// What kernels use of the machine that runs them: indices of threads, shuffles, barriers, shared memory, asynchronous
// copies, clusters, words that blocks talk through. Kernels are written against these functions alone and compile
// twice: by nvcc for the GPU, and by any C++ compiler for the emulator, which runs them thread by thread on the CPU, in
// random order, and finds what no reference could: barriers that not all threads come to, shared memory that is read
// before it is written, blocks that wait for blocks that were never started.
//
// Blocks and grids have one dimension; the threads of a block are a multiple of 32; every function below that warps or
// blocks do together is done by all of their threads.
#pragma once

#include <cstdint>

#include "torch_iir/export.h"

#ifdef __CUDACC__
#include "simt_gpu.h"
#else
#include "emulator/simt_cpu.h"
#endif

namespace torch_iir::cuda {

inline constexpr int warp_size = 32;

// A number and what says that it is there, written and read as one.
struct alignas(16) Word {
  double value;
  std::uint64_t flag;
};

TORCH_IIR_GPU int lane() { return thread() % warp_size; }
TORCH_IIR_GPU int warp() { return thread() / warp_size; }

template <class T>
TORCH_IIR_HOST_DEVICE constexpr T minimum(T a, T b) {
  return a < b ? a : b;
}
template <class T>
TORCH_IIR_HOST_DEVICE constexpr T maximum(T a, T b) {
  return a < b ? b : a;
}

}  // namespace torch_iir::cuda
