#include "device_cuda.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(TORCH_IIR_EMULATED)
#include "emulator/scheduler.h"
#endif

namespace torch_iir::ops {
namespace {

#if defined(TORCH_IIR_EMULATED)
constexpr std::int32_t current_device = 0;
#else
constexpr std::int32_t current_device = -1;
#endif

// Null where there is no memory; torch has written why.
AtenTensorHandle try_empty(int dims, const std::int64_t* size, std::int32_t code) {
  std::int64_t stride[max_dims + 2];
  contiguous_strides(dims, size, stride);
  AtenTensorHandle handle = nullptr;
  if (aoti_torch_empty_strided(dims, size, stride, code, device_type(), current_device, &handle) != 0) return nullptr;
#if defined(TORCH_IIR_EMULATED)
  void* memory;
  std::int64_t bytes;
  if (aoti_torch_get_storage_size(handle, &bytes) == 0 && bytes > 0 && aoti_torch_get_data_ptr(handle, &memory) == 0)
    std::memset(memory, 0xff, static_cast<std::size_t>(bytes));  // nobody may count on what is there
#endif
  return handle;
}

Handle empty(int dims, const std::int64_t* size, std::int32_t code) {
  Handle handle(try_empty(dims, size, code));
  STD_TORCH_CHECK(handle != nullptr, "out of memory");
  return handle;
}

void copy(AtenTensorHandle to, AtenTensorHandle from) { STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_copy_(to, from, 1)); }

std::int32_t device_index(const Tensor& tensor) {
  std::int32_t index;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(tensor.handle.get(), &index));
  return index;
}

}  // namespace

Handle empty(int dims, const std::int64_t* size, DType dtype) { return empty(dims, size, code_of(dtype)); }
Handle empty_int32(int dims, const std::int64_t* size) { return empty(dims, size, aoti_torch_dtype_int32()); }

void fill_zero(const Handle& handle, int, const std::int64_t*, DType) {
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_zero_(handle.get()));
}

OnDevice::OnDevice(std::initializer_list<const Tensor*> arguments)
    : first_(**arguments.begin()), index_(device_index(first_)) {
  check(arguments);
#if !defined(TORCH_IIR_EMULATED)
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream_));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_create_device_guard(index_, &guard_));
#endif
}

OnDevice::~OnDevice() {
  if (guard_ != nullptr) static_cast<void>(aoti_torch_delete_device_guard(guard_));
}

void OnDevice::check(std::initializer_list<const Tensor*> arguments) const {
  for (const Tensor* tensor : arguments) {
    if (!*tensor) continue;
    const std::int32_t index = device_index(*tensor);
    STD_TORCH_CHECK(index == index_, tensor->name, " must be on the device of ", first_.name, ", number ", index_,
                    ", and is on number ", index);
  }
}

cuda::Queue OnDevice::queue(std::vector<Handle>& scratch) const {
  const auto allocate = [](void* context, std::int64_t bytes) -> void* {
    constexpr std::int64_t alignment = 256;
    const std::int64_t size[] = {bytes + alignment - 1};
    Handle memory(try_empty(1, size, aoti_torch_dtype_uint8()));
    void* start;
    if (memory == nullptr || aoti_torch_get_data_ptr(memory.get(), &start) != 0) return nullptr;
    static_cast<std::vector<Handle>*>(context)->push_back(std::move(memory));
    const auto address = reinterpret_cast<std::uintptr_t>(start);
    return static_cast<char*>(start) + (alignment - address % alignment) % alignment;
  };
  return {stream_, allocate, &scratch};
}

void OnDevice::fail() {
#if defined(TORCH_IIR_EMULATED)
  STD_TORCH_CHECK(false, "emulator: ", std::exchange(cuda::emulator::machine().error, {}));
#else
  STD_TORCH_CHECK(false, message(Status::device_failed));
#endif
}

Converted::Converted(const Tensor& tensor, DType dtype) : dims_(tensor.dims), size_(tensor.size) {
  if (!tensor) return;
  if (tensor.dtype == dtype) {
    data_ = tensor.data;
    std::copy_n(tensor.stride, dims_, stride);
    return;
  }
  if (count(dims_, size_) == 0) return;
  std::int64_t distinct[max_dims], elements = 1;
  for (int d = dims_ - 1; d >= 0; --d) {
    distinct[d] = tensor.stride[d] == 0 ? 1 : size_[d];
    if (distinct[d] == 1) continue;  // stride stays 0
    stride[d] = elements;
    elements *= size_[d];
  }
  AtenTensorHandle from;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_as_strided(tensor.handle.get(), distinct, tensor.stride, &from));
  const Handle owned(from);
  copy_ = empty(dims_, distinct, dtype);
  copy(copy_.get(), from);
  data_ = data(copy_);
}

Computed::Computed(const Handle& handle, DType stored, DType computed, int dims, const std::int64_t* size)
    : target_(handle.get()), stored_(stored), computed_(computed), dims_(dims), size_(size) {
  if (!handle) return;
  contiguous_strides(dims, size, stride);
  if (stored == computed) {
    data_ = data(handle);
  } else {
    buffer_ = empty(dims, size, computed);
    data_ = data(buffer_);
  }
}

void Computed::fill_zero() {
  if (target_ == nullptr) return;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_zero_(buffer_ ? buffer_.get() : target_));
}

void Computed::store() {
  if (!buffer_) return;
  if (!is_complex(computed_) || is_complex(stored_)) return copy(target_, buffer_.get());
  std::int64_t real_stride[max_dims + 2];
  for (int d = 0; d < dims_; ++d) real_stride[d] = 2 * stride[d];
  AtenTensorHandle real;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_create_tensor_from_blob_v2(
      data_, dims_, size_, real_stride, 0, code_of(is_wide(computed_) ? DType::float64 : DType::float32), device_type(),
      current_device, &real, aoti_torch_layout_strided(), nullptr, 0));
  const Handle owned(real);
  copy(target_, real);
}

}  // namespace torch_iir::ops
