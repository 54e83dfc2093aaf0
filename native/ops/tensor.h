// What every operator needs of torch: arguments as plain pointers, sizes and strides, fetched once; the error sentences
// that all operators share. What differs from device to device is in device.h.
#pragma once

#include <torch/csrc/stable/library.h>

#include <complex>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>

#include "torch_iir/algorithm.h"
#include "torch_iir/batch.h"
#include "torch_iir/broadcast.h"
#include "torch_iir/dtype.h"

namespace torch_iir::ops {

// Operators take and return bare handles through TORCH_BOX: torch::stable::Tensor would add a shared_ptr to each.
struct DeleteTensor {
  void operator()(AtenTensorOpaque* tensor) const { aoti_torch_delete_tensor_object(tensor); }
};
using Handle = std::unique_ptr<AtenTensorOpaque, DeleteTensor>;

// A handle on its way out, as a type of our own: for the bare pointer, TORCH_BOX finds two functions that convert it.
struct Returned {
  AtenTensorHandle handle;
};

struct Tensor {
  const char* name = "";  // of the argument, for errors
  Handle handle;          // null: None, or not wanted
  void* data = nullptr;
  int dims = 0;
  const std::int64_t* size = nullptr;
  const std::int64_t* stride = nullptr;  // in elements
  DType dtype = DType::float32;

  explicit operator bool() const { return handle != nullptr; }
  std::int64_t length() const { return size[dims - 1]; }  // of the last dimension
  // The dimensions before the last `core`.
  Operand operand(std::int64_t* batch_stride, int core = 1) const { return {dims - core, size, stride, batch_stride}; }
};

// Takes the argument over, and checks that it is a tensor of the kind of device that this library is for, of a floating
// or complex dtype, with a last dimension. A null handle is None.
Tensor argument(const char* name, Handle handle);

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, Half>) return DType::float16;
  if constexpr (std::is_same_v<T, BFloat16>) return DType::bfloat16;
  if constexpr (std::is_same_v<T, double>) return DType::float64;
  if constexpr (std::is_same_v<T, std::complex<float>>) return DType::complex64;
  if constexpr (std::is_same_v<T, std::complex<double>>) return DType::complex128;
  return DType::float32;
}
std::int32_t code_of(DType dtype);   // torch's number for it
std::int64_t bytes_of(DType dtype);  // of an element
void* data(const Handle& handle);

Handle empty_for_nothing(DType dtype);  // what stands for an output that is not wanted: shape [0]
Handle empty_gradient(bool wanted, const Tensor& like, DType otherwise = DType::float32);  // `otherwise`: without like

// "x [3, 100], b [3], zi None"
std::string describe(std::initializer_list<const Tensor*> tensors);

void contiguous_strides(int dims, const std::int64_t* size, std::int64_t* stride);
std::int64_t count(int dims, const std::int64_t* size);

// The algorithm that torch_iir.algorithm(…) forces, for the whole process: the operators' library for the CPU has it,
// for those of all devices.
TORCH_IIR_API Algorithm algorithm();

// Forces another, and returns the one before.
std::int64_t force_algorithm(std::int64_t algorithm);

// `a0` names the coefficient that must not be zero.
void check(Status status, Algorithm algorithm, const char* a0);
void check(BroadcastStatus status, std::initializer_list<const Tensor*> tensors);

}  // namespace torch_iir::ops
