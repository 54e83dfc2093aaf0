// simt.h by nvcc.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#define TORCH_IIR_KERNEL __global__
#define TORCH_IIR_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)  // registers for so many blocks at once
#define TORCH_IIR_GPU __device__ __forceinline__
#define TORCH_IIR_UNROLL _Pragma("unroll")
#define TORCH_IIR_NO_UNROLL _Pragma("unroll 1")

namespace torch_iir::cuda {

inline constexpr unsigned all_lanes = 0xffffffffu;

TORCH_IIR_GPU int thread() { return static_cast<int>(threadIdx.x); }
TORCH_IIR_GPU int threads() { return static_cast<int>(blockDim.x); }
TORCH_IIR_GPU std::int64_t block() { return blockIdx.x; }
TORCH_IIR_GPU std::int64_t blocks() { return gridDim.x; }

// The block's own memory, aligned to 128 bytes, as large as its launch asked for.
TORCH_IIR_GPU unsigned char* shared_memory() {
  extern __shared__ __align__(128) unsigned char torch_iir_shared[];
  return torch_iir_shared;
}

// --- a block

TORCH_IIR_GPU void sync() { __syncthreads(); }
TORCH_IIR_GPU bool sync_any(bool value) { return __syncthreads_or(value) != 0; }

// --- a warp. T is of 4 or 8 bytes.

TORCH_IIR_GPU void sync_warp() { __syncwarp(); }
template <class T>
TORCH_IIR_GPU T shuffle(T value, int from) {
  return __shfl_sync(all_lanes, value, from);
}
template <class T>
TORCH_IIR_GPU T shuffle_up(T value, int by) {  // its own value where there is no such lane
  return __shfl_up_sync(all_lanes, value, by);
}
template <class T>
TORCH_IIR_GPU T shuffle_down(T value, int by) {
  return __shfl_down_sync(all_lanes, value, by);
}
template <class T>
TORCH_IIR_GPU T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(all_lanes, value, mask);
}
TORCH_IIR_GPU bool warp_any(bool value) { return __any_sync(all_lanes, value) != 0; }
TORCH_IIR_GPU bool warp_all(bool value) { return __all_sync(all_lanes, value) != 0; }
TORCH_IIR_GPU unsigned ballot(bool value) { return __ballot_sync(all_lanes, value); }

// --- memory

// 4, 8 or 16 bytes, aligned to as many, from global to shared memory, without waiting. commit_async() closes a group of
// a thread's copies; wait_async<n>() waits until at most the n latest groups are under way. Other threads see them
// after a barrier.
template <int bytes>
TORCH_IIR_GPU void copy_async(void* shared, const void* global) {
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  if constexpr (bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(bytes) : "memory");
  }
}
TORCH_IIR_GPU void commit_async() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int groups>
TORCH_IIR_GPU void wait_async() {
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

// --- between blocks

TORCH_IIR_GPU unsigned fetch_add(unsigned* counter, unsigned by) { return atomicAdd(counter, by); }

struct Word;
// Both halves at once, in no order with anything else: what was written elsewhere before is not to be relied on.
TORCH_IIR_GPU void store_word(Word* to, double value, std::uint64_t flag) {
  asm volatile("{ .reg .b128 word; mov.b128 word, {%1, %2}; st.relaxed.gpu.global.b128 [%0], word; }" ::"l"(to),
               "l"(__double_as_longlong(value)), "l"(flag)
               : "memory");
}
TORCH_IIR_GPU void load_word(const Word* from, double& value, std::uint64_t& flag) {
  long long bits;
  asm volatile("{ .reg .b128 word; ld.relaxed.gpu.global.b128 word, [%2]; mov.b128 {%0, %1}, word; }"
               : "=l"(bits), "=l"(flag)
               : "l"(from)
               : "memory");
  value = __longlong_as_double(bits);
}
TORCH_IIR_GPU void pause() { __nanosleep(20); }  // in every loop that waits for another block

// --- clusters: blocks that run at the same time and see each other's shared memory. From compute capability 9.0 on.

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
TORCH_IIR_GPU int cluster_rank() { return 0; }
TORCH_IIR_GPU void cluster_sync() { __trap(); }
template <class T>
TORCH_IIR_GPU T* in_cluster(T* shared, int) {
  return shared;
}
#else
TORCH_IIR_GPU int cluster_rank() { return static_cast<int>(__clusterRelativeBlockRank()); }
TORCH_IIR_GPU void cluster_sync() {
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
}
// Where the same thing lies in the shared memory of another block.
template <class T>
TORCH_IIR_GPU T* in_cluster(T* shared, int rank) {
  return static_cast<T*>(__cluster_map_shared_rank(shared, static_cast<unsigned>(rank)));
}
#endif

// --- numbers

TORCH_IIR_GPU double half_to_double(std::uint16_t bits) {
  return static_cast<double>(__half2float(__ushort_as_half(bits)));
}
TORCH_IIR_GPU std::uint16_t half_of(double value) { return __half_as_ushort(__double2half(value)); }
TORCH_IIR_GPU double bfloat16_to_double(std::uint16_t bits) {
  return static_cast<double>(__uint_as_float(static_cast<unsigned>(bits) << 16));
}
TORCH_IIR_GPU std::uint16_t bfloat16_of(double value) { return __bfloat16_as_ushort(__double2bfloat16(value)); }

}  // namespace torch_iir::cuda
