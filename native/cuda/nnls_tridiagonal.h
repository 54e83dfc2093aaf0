// Symmetric positive definite tridiagonal systems, one for each warp.
//
// Every lane has a chunk of consecutive rows. It eliminates all but the last of them, one after the other, which leaves
// a system of the 32 last rows; that one is solved by cyclic reduction (Hockney, J. ACM 12, 1965): in five steps every
// second row that is left eliminates its neighbours, and in five back they follow. Either is elimination in some order
// of the rows, which for such a matrix is stable in any: what is left of the equations is rounding, however near to
// singular they are. (Reducing all rows at once takes half of the steps, but solves each for itself: the errors of
// neighbours are then as large as the condition allows and do not belong together.) The chain of dependent divisions is
// (m / 32 + 6) long.
#pragma once

#include "nnls_problem.h"

namespace torch_iir::cuda {

// Rows of a lane. An odd number: 64-bit words so far apart lie in different banks of shared memory.
TORCH_IIR_GPU int rows_of_lane(int m) { return (m - 1 + warp_size) / warp_size | 1; }

struct TridiagonalRow {
  double pivot, right;  // the element of the diagonal, and of the right-hand side
};

// By a warp, which has synchronised what it reads: row(i) is row i, beside[i] the element (i, i + 1). factor, left and
// solution have m elements; right-hand sides may lie in `solution`. Ends with a barrier of the warp.
template <class RowOf>
TORCH_IIR_GPU void solve_tridiagonal(int m, RowOf row, const double* beside, double* factor, double* left,
                                     double* solution) {
  const int length = rows_of_lane(m), first = lane() * length, last = first + length - 1;
  // Beyond the last row of the matrix: those of the unit matrix.
  const auto row_at = [&](int i) { return i < m ? row(i) : TridiagonalRow{1, 0}; };
  const auto beside_at = [&](int i) { return i + 1 < m ? beside[i] : 0.0; };

  // Row i in terms of the next one and of the last of the lane before: x_i = right_i − factor_i x_{i+1} − left_i x_L.
  // `down` is what that leaves of the chunk in row L.
  TridiagonalRow here = row_at(first), down = {0, 0};
  double lower = first > 0 ? beside_at(first - 1) : 0.0;
  for (int i = first; i < last; ++i) {
    const double inverse = 1 / here.pivot, coupling = beside_at(i);
    const double f = coupling * inverse, l = lower * inverse, partial = here.right * inverse;
    down.pivot = fma(lower, l, down.pivot);
    down.right = fma(lower, partial, down.right);
    const TridiagonalRow next = row_at(i + 1);
    if (i < m) {
      factor[i] = f;
      left[i] = l;
      solution[i] = partial;
    }
    here.pivot = fma(-coupling, f, next.pivot);
    here.right = fma(-coupling, partial, next.right);
    lower = -coupling * l;
  }

  double upper = shuffle_down(lower, 1);
  const double below_pivot = shuffle_down(down.pivot, 1), below_right = shuffle_down(down.right, 1);
  if (lane() == warp_size - 1) {
    upper = 0;
  } else {
    here.pivot -= below_pivot;
    here.right -= below_right;
  }
  // Rows 2·by − 1, 4·by − 1 … eliminate those halfway between them.
  double inverse = 0;
  TORCH_IIR_UNROLL
  for (int by = 1; by < warp_size; by *= 2) {
    const bool stays = (lane() + 1) % (2 * by) == 0;
    inverse = (lane() + 1) % by == 0 ? 1 / here.pivot : inverse;
    const double l = lower * inverse, u = upper * inverse, partial = here.right * inverse;
    const double u_above = shuffle_up(u, by), l_above = shuffle_up(l, by), partial_above = shuffle_up(partial, by);
    const double u_below = shuffle_down(u, by), l_below = shuffle_down(l, by);
    const double partial_below = shuffle_down(partial, by);
    const bool below = lane() + by < warp_size;
    if (stays) {
      here.pivot = fma(-lower, u_above, here.pivot);
      here.right = fma(-lower, partial_above, here.right);
      lower = -lower * l_above;
      if (below) {
        here.pivot = fma(-upper, l_below, here.pivot);
        here.right = fma(-upper, partial_below, here.right);
      }
      upper = below ? -upper * u_below : 0;
    }
  }
  double value = here.right / here.pivot;  // of the last row; others' follow
  TORCH_IIR_UNROLL
  for (int by = warp_size / 2; by > 0; by /= 2) {
    const double above = shuffle_up(value, by), below = shuffle_down(value, by);
    if ((lane() + 1) % (2 * by) == by) {
      value = (here.right - lower * (lane() >= by ? above : 0.0) - upper * below) * inverse;
    }
  }
  const double of_last_lane = shuffle_up(value, 1), before = lane() > 0 ? of_last_lane : 0.0;
  if (last < m) solution[last] = value;
  for (int i = last - 1; i >= first; --i) {
    if (i >= m) continue;  // 0, and so is all that is coupled to it
    value = solution[i] - factor[i] * (i + 1 < m ? value : 0.0) - left[i] * before;
    solution[i] = value;
  }
  sync_warp();
}

}  // namespace torch_iir::cuda
