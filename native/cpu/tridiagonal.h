// Symmetric tridiagonal systems, one in each lane.
#pragma once

#include "simd.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

struct Row {
  Doubles pivot, right;  // the element of the diagonal, and of the right-hand side
};

// Solves for `solution`, a tile of rows × lanes, rows ≥ 2. row(i, v) is row number i of vector number v of the lanes;
// `beside` is a tile of the elements (i, i + 1). Elimination runs from both ends to the middle, which halves the chain
// of operations that wait for each other. `factor` and `partial` are tiles to work in.
template <class RowOf>
TORCH_IIR_INLINE void solve_tridiagonal(std::int64_t rows, RowOf row, const double* beside, double* factor,
                                        double* partial, double* solution) {
  const std::int64_t half = rows / 2;
  struct Carried {
    Doubles factor, partial;
  };
  Carried above[2], below[2];
  // solution[i] = partial[i] − factor[i] · solution of the neighbour towards the middle
  const auto eliminate = [&](Carried(&carried)[2], std::int64_t i, std::int64_t outer, std::int64_t inner)
                             TORCH_IIR_INLINE_LAMBDA {
#pragma GCC unroll 2
                               for (int v = 0; v < 2; ++v) {
                                 const std::int64_t at = i * lanes + v * width;
                                 Row r = row(i, v);
                                 if (outer >= 0) {
                                   const Doubles coupling = load<Doubles>(beside + outer * lanes + v * width);
                                   r.pivot -= coupling * carried[v].factor;
                                   r.right -= coupling * carried[v].partial;
                                 }
                                 const Doubles inverse = 1 / r.pivot;
                                 carried[v].factor = load<Doubles>(beside + inner * lanes + v * width) * inverse;
                                 carried[v].partial = r.right * inverse;
                                 store(factor + at, carried[v].factor);
                                 store(partial + at, carried[v].partial);
                               }
                             };
  const auto from_above = [&](std::int64_t i) TORCH_IIR_INLINE_LAMBDA { eliminate(above, i, i - 1, i); };
  const auto from_below = [&](std::int64_t i)
                              TORCH_IIR_INLINE_LAMBDA { eliminate(below, i, i == rows - 1 ? -1 : i, i - 1); };
  from_above(0);
  for (std::int64_t i = 1; i < half; ++i) {
    from_below(rows - i);
    from_above(i);
  }
  from_below(rows - half);
  if (rows % 2 != 0) from_below(half);

  Doubles up[2], down[2];
  for (int v = 0; v < 2; ++v) {
    up[v] = (above[v].partial - above[v].factor * below[v].partial) / (1 - above[v].factor * below[v].factor);
    down[v] = below[v].partial - below[v].factor * up[v];
    store(solution + (half - 1) * lanes + v * width, up[v]);
    store(solution + half * lanes + v * width, down[v]);
  }
  const auto substitute = [&](std::int64_t i, Doubles(&value)[2]) TORCH_IIR_INLINE_LAMBDA {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const std::int64_t at = i * lanes + v * width;
      value[v] = load<Doubles>(partial + at) - load<Doubles>(factor + at) * value[v];
      store(solution + at, value[v]);
    }
  };
  for (std::int64_t i = 1; i < half; ++i) {
    substitute(half - 1 - i, up);
    substitute(half + i, down);
  }
  if (rows % 2 != 0) substitute(rows - 1, down);
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
