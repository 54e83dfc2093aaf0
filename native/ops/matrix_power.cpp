// torch_iir::_matrix_power on the CPU: from tensors to the kernel's arrays.
#include "matrix_power.h"

#include <algorithm>

#include "torch_iir/matrix_power.h"

namespace torch_iir::ops {

Returned matrix_power(AtenTensorHandle handle, std::int64_t n) {
  const Tensor matrix = argument("matrix", Handle(handle));
  STD_TORCH_CHECK(matrix.dims >= 2 && matrix.size[matrix.dims - 2] == matrix.length(),
                  "matrix must be (..., N, N), got ", describe({&matrix}));
  std::int64_t stride[max_dims];
  contiguous_strides(matrix.dims, matrix.size, stride);
  STD_TORCH_CHECK(matrix.dtype == DType::float64 && std::equal(stride, stride + matrix.dims, matrix.stride),
                  "matrix must be float64 and contiguous");
  STD_TORCH_CHECK(n >= 0, "n must not be negative, got ", n);

  Handle power = empty(matrix.dims, matrix.size, DType::float64);
  const Status status =
      torch_iir::matrix_power(static_cast<const double*>(matrix.data), count(matrix.dims - 2, matrix.size),
                              matrix.length(), n, static_cast<double*>(data(power)));
  STD_TORCH_CHECK(status == Status::ok, message(status));
  return {power.release()};
}

}  // namespace torch_iir::ops
