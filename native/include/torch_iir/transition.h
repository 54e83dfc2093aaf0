// A signal in parts: what parts of silence do to the state of a filter, and the states between the parts.
#pragma once

#include <cstdint>

#include "torch_iir/export.h"
#include "torch_iir/status.h"

namespace torch_iir {

// power + rest = matrixⁿ to twice double precision, for `count` matrices of size × size, row by row and one after the
// other; power may be the same array as matrix, and rest null. n is at least 0. Where an entry of a matrix is not
// finite, all of its power is NaN.
//
// With what one sample does to the state for the matrix, this is what n samples do. Where poles lie close together the
// powers rise to 1e9 and far beyond before they fall, and squaring squares their errors: in double precision those of a
// Butterworth low-pass of order 8 end in NaN. So this counts in integers of 256 bits, with one exponent a matrix. Some
// 10 ns for each product of two entries, 2 size³ log2 n of them at most.
[[nodiscard]] TORCH_IIR_API Status matrix_power(const double* matrix, std::int64_t count, std::int64_t size,
                                                std::int64_t n, double* power, double* rest) noexcept;

// s_0 = first, s_{r+1} = M_r s_r + z_r: the states before, between and after `parts` parts, size numbers each, one
// after the other. M_r = power + rest, as above, one matrix after the other; rest may be null. What is summed is
// rounded once: it cancels where the powers are large. What is not finite in M_r says nothing of an entry 0 of s_r.
TORCH_IIR_API void chained_states(const double* power, const double* rest, const double* inputs, const double* first,
                                  std::int64_t parts, std::int64_t size, double* states) noexcept;

}  // namespace torch_iir
