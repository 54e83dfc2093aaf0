// What every operator needs of torch: arguments as plain pointers, sizes and strides, fetched once; fresh outputs;
// small operands in double; the error sentences that all operators share.
#pragma once

#include <torch/csrc/stable/library.h>

#include <complex>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>

#include "torch_iir/algorithm.h"
#include "torch_iir/batch.h"
#include "torch_iir/broadcast.h"

namespace torch_iir::ops {

enum class DType { float16, bfloat16, float32, float64, complex64, complex128 };

constexpr bool is_complex(DType dtype) { return dtype >= DType::complex64; }
constexpr bool is_wide(DType dtype) { return dtype == DType::float64 || dtype == DType::complex128; }
constexpr DType complex_of(bool wide) { return wide ? DType::complex128 : DType::complex64; }

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

// Takes the argument over, and checks that it is a CPU tensor of a floating or complex dtype with a last dimension.
// A null handle is None.
Tensor argument(const char* name, Handle handle);

// A contiguous tensor, not initialised. Large ones lie in huge pages: filling them costs a fifth.
Handle empty(int dims, const std::int64_t* size, DType dtype);
Handle empty_int32(int dims, const std::int64_t* size);
Handle empty_for_nothing(DType dtype);  // what stands for an output that is not wanted: shape [0]
Handle empty_gradient(bool wanted, const Tensor& like, DType otherwise = DType::float32);  // `otherwise`: without like
void* data(const Handle& handle);
// Zeros in a contiguous tensor: a sum over nothing.
void fill_zero(const Handle& handle, int dims, const std::int64_t* size, DType dtype);

// "x [3, 100], b [3], zi None"
std::string describe(std::initializer_list<const Tensor*> tensors);

void contiguous_strides(int dims, const std::int64_t* size, std::int64_t* stride);
std::int64_t count(int dims, const std::int64_t* size);

// Samples in the tensor's own memory.
template <class T>
class View {
 public:
  explicit View(const Tensor& tensor)
      : data(static_cast<const T*>(tensor.data)), stride(tensor.stride), tensor_(tensor) {}

  const T* data;
  const std::int64_t* stride;
  std::int64_t step() const { return data == nullptr ? 0 : stride[tensor_.dims - 1]; }
  std::int64_t down() const { return data == nullptr ? 0 : stride[tensor_.dims - 2]; }  // of the dimension before
  Operand operand(std::int64_t* batch_stride, int core = 1) const { return tensor_.operand(batch_stride, core); }

 private:
  const Tensor& tensor_;
};

// A contiguous output, in the tensor's own memory.
template <class T>
class Fresh {
 public:
  Fresh(const Handle& handle, DType, int dims, const std::int64_t* size) : dims_(dims), size_(size) {
    if (!handle) return;
    data = static_cast<T*>(ops::data(handle));
    contiguous_strides(dims, size, stride);
  }
  void store() {}

  T* data = nullptr;
  std::int64_t stride[max_dims];
  Operand operand(std::int64_t* batch_stride, int core = 1) const {
    return {dims_ - core, size_, stride, batch_stride};
  }

 private:
  int dims_;
  const std::int64_t* size_;
};

// An operand as State (double or std::complex<double>): the tensor's own memory where it is that already, else a copy
// of its distinct elements, so that dimensions of stride 0 stay so.
template <class State>
class As {
 public:
  explicit As(const Tensor& tensor);

  const State* data = nullptr;
  std::int64_t stride[max_dims] = {};
  std::int64_t step() const { return data == nullptr ? 0 : stride[dims_ - 1]; }
  std::int64_t down() const { return data == nullptr ? 0 : stride[dims_ - 2]; }  // of the dimension before
  Operand operand(std::int64_t* batch_stride, int core = 1) const {
    return {dims_ - core, size_, stride, batch_stride};
  }

 private:
  int dims_ = 0;
  const std::int64_t* size_ = nullptr;
  std::unique_ptr<State[]> heap_;
  static constexpr int on_stack = 64;  // an allocation is a large part of a short call
  alignas(State) unsigned char stack_[on_stack * sizeof(State)];
};

// A contiguous output of which the kernel writes State: the tensor's own memory where that is its dtype, else a buffer
// that store() rounds to it. Complex to real drops the imaginary part: the gradient of a real argument.
template <class State>
class Into {
 public:
  Into(const Handle& handle, DType dtype, int dims, const std::int64_t* size);
  void store();

  State* data = nullptr;
  std::int64_t stride[max_dims] = {};
  Operand operand(std::int64_t* batch_stride, int core = 1) const {
    return {dims_ - core, size_, stride, batch_stride};
  }

 private:
  void* target_ = nullptr;
  DType dtype_;
  int dims_ = 0;
  const std::int64_t* size_ = nullptr;
  std::int64_t count_ = 0;
  std::unique_ptr<State[]> heap_;
  static constexpr int on_stack = 64;
  alignas(State) unsigned char stack_[on_stack * sizeof(State)];
};

// Samples of any dtype as C, which is real or complex, of one precision or the other; and back, rounded once. A complex
// number loses its imaginary part where it becomes a real one.
template <class C>
void convert_from(DType dtype, const void* from, std::int64_t step, std::int64_t count, C* to);
template <class C>
void convert_to(DType dtype, const C* from, std::int64_t count, void* to, std::int64_t step);
// `data`, so many elements on.
void* offset(void* data, DType dtype, std::int64_t elements);

// torch's thread pool.
ParallelFor parallel_for();

// The algorithm that torch_iir.algorithm(…) forces, for the whole process.
Algorithm algorithm();

// Forces another, and returns the one before.
std::int64_t force_algorithm(std::int64_t algorithm);

// `a0` names the coefficient that must not be zero.
void check(Status status, Algorithm algorithm, const char* a0);
void check(BroadcastStatus status, std::initializer_list<const Tensor*> tensors);

}  // namespace torch_iir::ops
