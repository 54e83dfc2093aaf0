// How host code puts work into a queue: the one place that launches kernels, sets memory to zero, asks for scratch
// memory and for what the device has.
#pragma once

#include <cstdint>
#include <type_traits>

#include "simt.h"
#include "torch_iir/cuda.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "emulator/scheduler.h"
#endif

namespace torch_iir::cuda {

struct Shape {
  std::int64_t blocks = 1;
  int threads = 32;
  std::int64_t shared_bytes = 0;
  int cluster = 1;  // blocks of a cluster, which divide the blocks; 8 at most
};

// More than a grid may have: kernels run over the rest in a loop.
inline constexpr std::int64_t most_blocks = 0x7fffffff;

struct Device {
  int processors = 1;             // multiprocessors
  std::int64_t shared_bytes = 0;  // that a block may ask for
  bool clusters = false;
};

#ifdef __CUDACC__

// Of the current device.
inline Device device() {
  int index = 0, processors = 1, shared_bytes = 48 << 10, major = 8;
  static_cast<void>(cudaGetDevice(&index));
  static_cast<void>(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, index));
  static_cast<void>(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
  static_cast<void>(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index));
  return {processors, shared_bytes, major >= 9};
}

template <class... P>
[[nodiscard]] Status launch(const Queue& queue, const Shape& shape, void (*kernel)(P...),
                            const std::type_identity_t<P>&... arguments) {
  constexpr std::int64_t without_asking = 48 << 10;
  if (shape.shared_bytes > without_asking &&
      cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(shape.shared_bytes)) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());  // it would be taken for somebody else's
    return Status::device_failed;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
  config.stream = static_cast<cudaStream_t>(queue.stream);
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = static_cast<unsigned>(shape.cluster);
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  config.attrs = &cluster;
  config.numAttrs = shape.cluster > 1 ? 1 : 0;
  if (cudaLaunchKernelEx(&config, kernel, arguments...) == cudaSuccess) return Status::ok;
  static_cast<void>(cudaGetLastError());
  return Status::device_failed;
}

[[nodiscard]] inline Status set_zero(const Queue& queue, void* data, std::int64_t bytes) {
  const cudaError_t error =
      cudaMemsetAsync(data, 0, static_cast<std::size_t>(bytes), static_cast<cudaStream_t>(queue.stream));
  return error == cudaSuccess ? Status::ok : Status::device_failed;
}

#else

inline Device device() {
  const emulator::Machine& machine = emulator::machine();
  return {machine.processors, 227 << 10, machine.clusters};
}

template <class... P>
[[nodiscard]] Status launch(const Queue&, const Shape& shape, void (*kernel)(P...),
                            const std::type_identity_t<P>&... arguments) {
  const emulator::Grid grid{shape.blocks, shape.threads, shape.shared_bytes, shape.cluster};
  return emulator::run(grid, [&] { kernel(arguments...); }) ? Status::ok : Status::device_failed;
}

[[nodiscard]] inline Status set_zero(const Queue&, void* data, std::int64_t bytes) {
  std::memset(data, 0, static_cast<std::size_t>(bytes));
  return Status::ok;
}

#endif

// Scratch memory of one call: null, and ok() false, once there is no more.
class Scratch {
 public:
  explicit Scratch(const Queue& queue) : queue_(queue) {}

  template <class T>
  T* take(std::int64_t count) {
    if (count <= 0) return nullptr;
    void* const data = queue_.allocate == nullptr
                           ? nullptr
                           : queue_.allocate(queue_.context, count * static_cast<std::int64_t>(sizeof(T)));
    if (data == nullptr) ok_ = false;
    return static_cast<T*>(data);
  }
  bool ok() const { return ok_; }

 private:
  const Queue& queue_;
  bool ok_ = true;
};

}  // namespace torch_iir::cuda
