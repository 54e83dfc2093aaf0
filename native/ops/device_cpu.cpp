#include "device_cpu.h"

#include <torch/csrc/stable/c/shim.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <complex>
#include <cstdint>
#include <cstring>

#include "large_outputs.h"

namespace torch_iir::ops {
namespace {

// Calls f with a null pointer to the C++ type of dtype.
template <class F>
void visit(DType dtype, F&& f) {
  switch (dtype) {
    case DType::float16: return f(static_cast<torch::headeronly::Half*>(nullptr));
    case DType::bfloat16: return f(static_cast<torch::headeronly::BFloat16*>(nullptr));
    case DType::float32: return f(static_cast<float*>(nullptr));
    case DType::float64: return f(static_cast<double*>(nullptr));
    case DType::complex64: return f(static_cast<std::complex<float>*>(nullptr));
    case DType::complex128: return f(static_cast<std::complex<double>*>(nullptr));
  }
}

template <class T>
constexpr bool is_complex_type = false;
template <class T>
constexpr bool is_complex_type<std::complex<T>> = true;

template <class To, class From>
To convert(From value) {
  if constexpr (is_complex_type<From> && is_complex_type<To>) {
    return To(value);
  } else if constexpr (is_complex_type<From>) {
    return convert<To>(value.real());
  } else if constexpr (is_complex_type<To>) {
    return To(static_cast<typename To::value_type>(value));
  } else if constexpr (sizeof(To) == 2 || sizeof(From) == 2) {
    return static_cast<To>(static_cast<float>(value));
  } else {
    return static_cast<To>(value);
  }
}

Handle empty_strided(int dims, const std::int64_t* size, const std::int64_t* stride, std::int32_t code) {
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dims, size, stride, code, device_type(), 0, &handle));
  return Handle(handle);
}

}  // namespace

Handle empty(int dims, const std::int64_t* size, DType dtype) {
  std::int64_t stride[max_dims + 1];
  contiguous_strides(dims, size, stride);
  AtenTensorHandle handle;
  const std::int32_t code = code_of(dtype);
  const std::int64_t bytes = count(dims, size) * bytes_of(dtype);
  if (void* const block = bytes >= large_output ? take_large(bytes) : nullptr) {
    const auto give_back = [](void* data, void* bytes) {
      give_back_large(data, static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(bytes)));
    };
    STABLE_TORCH_ERROR_CODE_CHECK(torch_from_blob(block, dims, size, stride, 0, code, device_type(), -1, &handle,
                                                  aoti_torch_layout_strided(), nullptr, 0, give_back,
                                                  reinterpret_cast<void*>(static_cast<std::intptr_t>(bytes))));
    return Handle(handle);
  }
  return empty_strided(dims, size, stride, code);
}

Handle empty_int32(int dims, const std::int64_t* size) {
  std::int64_t stride[max_dims + 1];
  contiguous_strides(dims, size, stride);
  return empty_strided(dims, size, stride, aoti_torch_dtype_int32());
}

void fill_zero(const Handle& handle, int dims, const std::int64_t* size, DType dtype) {
  const std::int64_t bytes = count(dims, size) * bytes_of(dtype);
  if (bytes > 0) std::memset(data(handle), 0, static_cast<std::size_t>(bytes));
}

template <class State>
As<State>::As(const Tensor& tensor) : dims_(tensor.dims), size_(tensor.size) {
  if (!tensor) return;
  if (tensor.dtype == dtype_of<State>()) {
    data = static_cast<const State*>(tensor.data);
    std::copy_n(tensor.stride, dims_, stride);
    return;
  }
  if (count(dims_, size_) == 0) return;  // nothing to copy, and perhaps no memory to copy it from
  std::int64_t distinct = 1;
  for (int d = dims_ - 1; d >= 0; --d) {
    if (tensor.stride[d] == 0 || size_[d] == 1) continue;  // stride stays 0
    stride[d] = distinct;
    distinct *= size_[d];
  }
  State* copy = reinterpret_cast<State*>(stack_);
  if (distinct > on_stack) {
    heap_.reset(new State[distinct]);
    copy = heap_.get();
  }
  data = copy;
  visit(tensor.dtype, [&]<class From>(From*) {
    // Runs over the dimensions that were kept, the last of them in the inner loop.
    const auto* from = static_cast<const From*>(tensor.data);
    std::int64_t index[max_dims] = {};
    int inner = dims_ - 1;
    while (inner > 0 && stride[inner] == 0) --inner;
    const std::int64_t length = stride[inner] == 0 ? 1 : size_[inner];
    const std::int64_t step = tensor.stride[inner];
    for (std::int64_t done = 0; done < distinct; done += length) {
      for (std::int64_t i = 0; i < length; ++i) copy[done + i] = convert<State>(from[i * step]);
      for (int d = inner - 1; d >= 0; --d) {
        if (stride[d] == 0) continue;
        from += tensor.stride[d];
        if (++index[d] < size_[d]) break;
        from -= index[d] * tensor.stride[d];
        index[d] = 0;
      }
    }
  });
}

template <class State>
Into<State>::Into(const Handle& handle, DType dtype, int dims, const std::int64_t* size)
    : dtype_(dtype), dims_(dims), size_(size) {
  if (!handle) return;
  target_ = ops::data(handle);
  contiguous_strides(dims, size, stride);
  count_ = count(dims, size);
  if (dtype == dtype_of<State>()) {
    data = static_cast<State*>(target_);
  } else if (count_ > on_stack) {
    heap_.reset(new State[count_]);
    data = heap_.get();
  } else {
    data = reinterpret_cast<State*>(stack_);
  }
}

template <class State>
void Into<State>::store() {
  if (target_ == nullptr || dtype_ == dtype_of<State>()) return;
  visit(dtype_, [this]<class To>(To*) {
    auto* to = static_cast<To*>(target_);
    for (std::int64_t i = 0; i < count_; ++i) to[i] = convert<To>(data[i]);
  });
}

template <class C>
void convert_from(DType dtype, const void* from, std::int64_t step, std::int64_t count, C* to) {
  visit(dtype, [&]<class From>(From*) {
    const auto* values = static_cast<const From*>(from);
    if (step == 1) {  // a loop of its own: vectors
      for (std::int64_t i = 0; i < count; ++i) to[i] = convert<C>(values[i]);
    } else {
      for (std::int64_t i = 0; i < count; ++i) to[i] = convert<C>(values[i * step]);
    }
  });
}

template <class C>
void convert_to(DType dtype, const C* from, std::int64_t count, void* to, std::int64_t step) {
  visit(dtype, [&]<class To>(To*) {
    auto* values = static_cast<To*>(to);
    if (step == 1) {
      for (std::int64_t i = 0; i < count; ++i) values[i] = convert<To>(from[i]);
    } else {
      for (std::int64_t i = 0; i < count; ++i) values[i * step] = convert<To>(from[i]);
    }
  });
}

void* offset(void* data, DType dtype, std::int64_t elements) {
  return static_cast<char*>(data) + elements * bytes_of(dtype);
}

#define TORCH_IIR_CONVERSIONS(C)                                                  \
  template void convert_from(DType, const void*, std::int64_t, std::int64_t, C*); \
  template void convert_to(DType, const C*, std::int64_t, void*, std::int64_t);
TORCH_IIR_CONVERSIONS(float)
TORCH_IIR_CONVERSIONS(double)
TORCH_IIR_CONVERSIONS(std::complex<float>)
TORCH_IIR_CONVERSIONS(std::complex<double>)

template class As<double>;
template class As<std::complex<double>>;
template class Into<double>;
template class Into<std::complex<double>>;

ParallelFor parallel_for() {
  return {[](void*, std::int64_t count, std::int64_t grain, ParallelFor::Body body, void* argument) {
            struct Call {
              ParallelFor::Body body;
              void* argument;
            } call{body, argument};
            STABLE_TORCH_ERROR_CODE_CHECK(torch_parallel_for(
                0, count, grain,
                [](std::int64_t first, std::int64_t last, void* context) {
                  const auto* call = static_cast<const Call*>(context);
                  call->body(call->argument, first, last);
                },
                &call));
          },
          nullptr};
}

}  // namespace torch_iir::ops
