// device.h for the CPU: kernels run on torch's threads, and convert nothing.
#pragma once

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <complex>
#include <cstdint>
#include <initializer_list>
#include <memory>

#include "tensor.h"

namespace torch_iir::ops {

namespace kernels = torch_iir;

inline constexpr bool on_cpu = true;
inline constexpr const char* device_name = "the CPU";
inline std::int32_t device_type() { return aoti_torch_device_type_cpu(); }

// A contiguous tensor, not initialised. Large ones lie in huge pages: filling them costs a fifth.
Handle empty(int dims, const std::int64_t* size, DType dtype);
Handle empty_int32(int dims, const std::int64_t* size);
// Zeros in a contiguous tensor: a sum over nothing.
void fill_zero(const Handle& handle, int dims, const std::int64_t* size, DType dtype);

// torch's thread pool.
ParallelFor parallel_for();

// argument() has looked at the devices.
class OnDevice {
 public:
  explicit OnDevice(std::initializer_list<const Tensor*>) {}
  void check(std::initializer_list<const Tensor*>) const {}

  // function(kernel, …) with what says how, the algorithm or the solver.
  template <class Function, class Kernel, class... How>
  Status run(const Function& function, const Kernel& kernel, How... how) const {
    return function(kernel, how..., parallel_for());
  }
};

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
  void fill_zero() {  // a sum over no rows
    if (data != nullptr) std::fill_n(data, count(dims_, size_), T{});
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
  void fill_zero() {  // a sum over no rows
    if (data != nullptr) std::fill_n(data, count_, State{});
  }
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

// Coefficients and states, with pairs those of complex samples that the kernel sees as two rows of real ones.
template <class State, bool pairs = false>
using SmallIn = As<State>;
template <class State, bool pairs = false>
using SmallOut = Into<State>;

// Samples of any dtype as C, which is real or complex, of one precision or the other; and back, rounded once. A complex
// number loses its imaginary part where it becomes a real one.
template <class C>
void convert_from(DType dtype, const void* from, std::int64_t step, std::int64_t count, C* to);
template <class C>
void convert_to(DType dtype, const C* from, std::int64_t count, void* to, std::int64_t step);
// `data`, so many elements on.
void* offset(void* data, DType dtype, std::int64_t elements);

}  // namespace torch_iir::ops
