// device.h for CUDA: kernels run in the current stream of the arguments' device, and convert coefficients and states as
// they read and write them. What else they see of another type is converted by torch, in the same stream: nothing here
// waits for the device.
//
// With TORCH_IIR_EMULATED, for tests: the same on the CPU, the kernels run by the emulator.
#pragma once

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <complex>
#include <cstdint>
#include <initializer_list>
#include <type_traits>
#include <vector>

#include "tensor.h"
#include "torch_iir/cuda.h"

namespace torch_iir::ops {

namespace kernels = torch_iir::cuda;

inline constexpr bool on_cpu = false;
#if defined(TORCH_IIR_EMULATED)
inline constexpr const char* device_name = "the CPU";
inline std::int32_t device_type() { return aoti_torch_device_type_cpu(); }
#else
inline constexpr const char* device_name = "a CUDA device";
inline std::int32_t device_type() { return aoti_torch_device_type_cuda(); }
#endif

// A contiguous tensor on the current device, which an OnDevice has chosen; not initialised.
Handle empty(int dims, const std::int64_t* size, DType dtype);
Handle empty_int32(int dims, const std::int64_t* size);
// Zeros in a contiguous tensor: a sum over nothing.
void fill_zero(const Handle& handle, int dims, const std::int64_t* size, DType dtype);

// The device of the first of the arguments, the current one as long as this lives. All others must be there, too.
class OnDevice {
 public:
  explicit OnDevice(std::initializer_list<const Tensor*> arguments);
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  void check(std::initializer_list<const Tensor*> arguments) const;

  // function(kernel, queue, …) with what says how, the algorithm or the solver. What the kernels leave each other goes
  // back to torch's allocator when all of them are in the stream: only what is put there later gets it again.
  template <class Function, class Kernel, class... How>
  Status run(const Function& function, const Kernel& kernel, How... how) const {
    std::vector<Handle> scratch;
    const Status status = function(kernel, queue(scratch), how...);
    if (status == Status::device_failed) fail();
    return status;
  }

 private:
  cuda::Queue queue(std::vector<Handle>& scratch) const;
  [[noreturn]] static void fail();

  const Tensor& first_;
  std::int32_t index_ = 0;
  void* stream_ = nullptr;
  DeviceGuardHandle guard_ = nullptr;
};

// Memory of a type known at run time only, in which the kernel sees numbers T: for AnyRows.
template <class T>
struct AnyPointer {
  typename AnyRows<T>::Pointer data = nullptr;
  DType dtype = DType::float64;
};

template <class T>
AnyRows<T> rows(AnyPointer<T> pointer, std::int64_t step, const std::int64_t* stride, const Batch& batch) {
  AnyRows<T> result(pointer.data, pointer.dtype, step);
  std::copy_n(stride, batch.dims, result.stride);
  return result;
}

template <bool as_pairs, class T>
auto rows_of(AnyPointer<T> pointer, std::int64_t step, const std::int64_t* stride, const Batch& batch) {
  if constexpr (as_pairs) {
    using Real = std::conditional_t<std::is_const_v<T>, const double, double>;
    const DType real = is_wide(pointer.dtype) ? DType::float64 : DType::float32;
    AnyRows<Real> result(pointer.data, real, 2 * step);
    for (int d = 0; d < batch.dims; ++d) result.stride[d] = 2 * stride[d];
    result.stride[batch.dims] = 1;
    return result;
  } else {
    return rows(pointer, step, stride, batch);
  }
}

template <bool as_pairs, class T>
auto matrices_of(AnyPointer<T> pointer, std::int64_t down, std::int64_t step, const std::int64_t* stride,
                 const Batch& batch) {
  const auto base = rows_of<as_pairs>(pointer, step, stride, batch);
  using Element = std::conditional_t<as_pairs, std::conditional_t<std::is_const_v<T>, const double, double>, T>;
  return AnyMatrices<Element>(base, (as_pairs ? 2 : 1) * down);
}

// An argument as a tensor of one dtype: itself where it has that, else a copy of its distinct elements, so that
// dimensions of stride 0 stay so.
class Converted {
 public:
  Converted(const Tensor& tensor, DType dtype);

  std::int64_t stride[max_dims] = {};
  std::int64_t step() const { return data_ == nullptr ? 0 : stride[dims_ - 1]; }
  std::int64_t down() const { return data_ == nullptr ? 0 : stride[dims_ - 2]; }  // of the dimension before
  Operand operand(std::int64_t* batch_stride, int core = 1) const {
    return {dims_ - core, size_, stride, batch_stride};
  }

 protected:
  void* data_ = nullptr;

 private:
  int dims_;
  const std::int64_t* size_;
  Handle copy_;
};

// A contiguous output that is computed in another dtype: the tensor itself where it has that, else one that store()
// rounds to it. Complex to real drops the imaginary part: the gradient of a real argument.
class Computed {
 public:
  // A null handle is not wanted.
  Computed(const Handle& handle, DType stored, DType computed, int dims, const std::int64_t* size);
  void fill_zero();  // a sum over no rows
  void store();

  std::int64_t stride[max_dims] = {};
  Operand operand(std::int64_t* batch_stride, int core = 1) const {
    return {dims_ - core, size_, stride, batch_stride};
  }

 protected:
  void* data_ = nullptr;

 private:
  AtenTensorHandle target_;
  DType stored_, computed_;
  int dims_;
  const std::int64_t* size_;
  Handle buffer_;
};

// An operand as T.
template <class T>
class As : public Converted {
 public:
  explicit As(const Tensor& tensor) : Converted(tensor, dtype_of<T>()), data(static_cast<const T*>(data_)) {}
  const T* data;
};

// Samples in the tensor's own memory, of which T is the type.
template <class T>
using View = As<T>;

// A contiguous output of which the kernel writes T.
template <class T>
class Into : public Computed {
 public:
  Into(const Handle& handle, DType dtype, int dims, const std::int64_t* size)
      : Computed(handle, dtype, dtype_of<T>(), dims, size), data(static_cast<T*>(data_)) {}
  T* data;
};

// A contiguous output, in the tensor's own memory.
template <class T>
using Fresh = Into<T>;

// Coefficients and states in whatever dtype they have. With pairs those of complex samples that the kernel sees as two
// rows of real ones: these are complex in memory.
template <class State, bool pairs = false>
class SmallIn : public Converted {
 public:
  explicit SmallIn(const Tensor& tensor)
      : Converted(tensor, dtype_for(tensor.dtype)), data{data_, dtype_for(tensor.dtype)} {}
  AnyPointer<const State> data;

 private:
  static DType dtype_for(DType dtype) { return pairs && !is_complex(dtype) ? complex_of(is_wide(dtype)) : dtype; }
};

template <class State, bool pairs = false>
class SmallOut : public Computed {
 public:
  SmallOut(const Handle& handle, DType dtype, int dims, const std::int64_t* size)
      : Computed(handle, dtype, dtype_for(dtype), dims, size), data{data_, dtype_for(dtype)} {}
  AnyPointer<State> data;

 private:
  static DType dtype_for(DType dtype) { return pairs && !is_complex(dtype) ? complex_of(is_wide(dtype)) : dtype; }
};

}  // namespace torch_iir::ops
