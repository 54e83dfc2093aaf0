#include "tensor.h"

#include <algorithm>
#include <cstdint>
#include <sstream>

#include "device.h"

namespace torch_iir::ops {
namespace {

// In the order of DType.
const std::int32_t dtype_codes[] = {aoti_torch_dtype_float16(),   aoti_torch_dtype_bfloat16(),
                                    aoti_torch_dtype_float32(),   aoti_torch_dtype_float64(),
                                    aoti_torch_dtype_complex64(), aoti_torch_dtype_complex128()};
constexpr std::int64_t dtype_sizes[] = {2, 2, 4, 8, 8, 16};

}  // namespace

Tensor argument(const char* name, Handle owned) {
  AtenTensorOpaque* const handle = owned.get();
  Tensor tensor{name, std::move(owned)};
  if (handle == nullptr) return tensor;
  std::int64_t dims, *size, *stride;
  std::int32_t dtype, device;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(handle, &device));
  STD_TORCH_CHECK(device == device_type(), name, " must be on ", device_name, ", as the other arguments are");
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(handle, &dtype));
  const auto* code = std::find(std::begin(dtype_codes), std::end(dtype_codes), dtype);
  STD_TORCH_CHECK(code != std::end(dtype_codes), name, " must have a floating or complex dtype (not complex32)");
  tensor.dtype = static_cast<DType>(code - dtype_codes);
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(handle, &dims));
  STD_TORCH_CHECK(1 <= dims && dims <= max_dims, name, " must have 1 to ", max_dims, " dimensions, got ", dims);
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(handle, &size));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(handle, &stride));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(handle, &tensor.data));
  tensor.dims = static_cast<int>(dims);
  tensor.size = size;
  tensor.stride = stride;
  return tensor;
}

std::int32_t code_of(DType dtype) { return dtype_codes[static_cast<int>(dtype)]; }
std::int64_t bytes_of(DType dtype) { return dtype_sizes[static_cast<int>(dtype)]; }

void* data(const Handle& handle) {
  void* pointer;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(handle.get(), &pointer));
  return pointer;
}

Handle empty_for_nothing(DType dtype) {
  const std::int64_t size[] = {0};
  return empty(1, size, dtype);
}

Handle empty_gradient(bool wanted, const Tensor& like, DType otherwise) {
  return wanted && like ? empty(like.dims, like.size, like.dtype) : empty_for_nothing(like ? like.dtype : otherwise);
}

std::string describe(std::initializer_list<const Tensor*> tensors) {
  std::ostringstream text;
  const char* separator = "";
  for (const Tensor* tensor : tensors) {
    text << separator << tensor->name << ' ';
    separator = ", ";
    if (!*tensor) {
      text << "None";
      continue;
    }
    text << '[';
    for (int d = 0; d < tensor->dims; ++d) text << (d ? ", " : "") << tensor->size[d];
    text << ']';
  }
  return text.str();
}

void contiguous_strides(int dims, const std::int64_t* size, std::int64_t* stride) {
  std::int64_t elements = 1;
  for (int d = dims - 1; d >= 0; --d) {
    stride[d] = elements;
    elements *= std::max<std::int64_t>(size[d], 1);
  }
}

std::int64_t count(int dims, const std::int64_t* size) {
  std::int64_t elements = 1;
  for (int d = 0; d < dims; ++d) elements *= size[d];
  return elements;
}

void check(Status status, Algorithm algorithm, const char* a0) {
  switch (status) {
    case Status::ok: return;
    case Status::zero_a0: STD_TORCH_CHECK(false, a0, " must not be zero: the filter is divided by it"); break;
    case Status::out_of_memory: STD_TORCH_CHECK(false, "out of memory"); break;
    case Status::unsupported:
      STD_TORCH_CHECK(false, "algorithm \"", algorithm_names[static_cast<int>(algorithm)],
                      "\" is forced, and cannot run this filter");
    default: STD_TORCH_CHECK(false, message(status));
  }
}

void check(BroadcastStatus status, std::initializer_list<const Tensor*> tensors) {
  STD_TORCH_CHECK(status != BroadcastStatus::mismatch, "the dimensions before the last must broadcast together, got ",
                  describe(tensors));
  STD_TORCH_CHECK(status != BroadcastStatus::too_many_dims, "too many dimensions that cannot be merged: at most ",
                  max_batch_dims, ", got ", describe(tensors));
}

}  // namespace torch_iir::ops
