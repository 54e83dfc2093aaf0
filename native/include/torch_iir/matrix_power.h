// What n samples of silence do to the state of a filter: the power n of what one sample does to it.
#pragma once

#include <cstdint>

#include "torch_iir/export.h"
#include "torch_iir/status.h"

namespace torch_iir {

// power = matrixⁿ for `count` matrices of size × size, row by row and one after the other, in either array; the two may
// be one. n is at least 0. Where an entry of a matrix is not finite, all of its power is NaN.
//
// Where poles lie close together the powers rise to 1e9 and far beyond before they fall, and squaring squares their
// errors: in double precision those of a Butterworth low-pass of order 8 end in NaN. So this counts in integers of 256
// bits, with one exponent a matrix. Some 10 ns for each product of two entries, 2 size³ log2 n of them at most.
[[nodiscard]] TORCH_IIR_API Status matrix_power(const double* matrix, std::int64_t count, std::int64_t size,
                                                std::int64_t n, double* power);

}  // namespace torch_iir
