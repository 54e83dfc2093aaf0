// The linear system of the derivatives of nnls for a bank: one elimination for each column.
//
// A block has some neighbouring columns, a warp for each. First and last its threads run over the entries of the bank
// with the columns side by side, so that 8 of float32 are a sector of memory each time; between, a warp eliminates a
// column. Counted, not measured, for 128 × 1025 × 11 700 in float32: 8 columns a block, 41 KB of shared memory, 80
// registers, 3 blocks on a multiprocessor; w and g read twice, p written: 240 MB.
//
// Races: none. A column is written by the warp or the threads between two barriers, and read after the next.
#pragma once

#include "nnls_bank.h"
#include "nnls_tridiagonal.h"

namespace torch_iir::cuda {

inline constexpr int derivative_columns = 8, derivative_vectors = 5;  // of a block, of a column

// Doubles of a vector in memory: columns an odd number apart lie in different banks.
TORCH_IIR_HOST_DEVICE constexpr std::int64_t derivative_pitch(std::int64_t m) { return m | 1; }

// Vectors lie in shared memory, or where they are too long for it, in memory of each block's own.
template <bool outside>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(derivative_columns* warp_size, 3)
    banded_derivative(NNLSDerivativeProblem p, Stretch stretch, Banks banks, Choice choice, double* memory_outside) {
  const int usable = choice.banks();
  if (usable == 0) return;
  const int m = static_cast<int>(p.m), n = static_cast<int>(p.n);
  const std::int64_t pitch = derivative_pitch(m);
  const int columns = threads() / warp_size, own = thread() % columns, slot = thread() / columns;
  const std::int64_t groups = (p.k + columns - 1) / columns;
  double* memory;
  if constexpr (outside) {
    memory = memory_outside + block() * columns * derivative_vectors * pitch;
  } else {
    memory = reinterpret_cast<double*>(shared_memory());
  }
  const auto vector = [&](int which, int column) { return memory + (which * columns + column) * pitch; };
  enum { diagonal, beside, second, right, second_right };

  for (std::int64_t item = block(); item < stretch.rows * groups; item += blocks()) {
    const std::int64_t row = stretch.first_row + item / groups, first = item % groups * columns;
    const std::int64_t j = first + own;
    const bool there = j < p.k;
    const Banks::Bank bank = banks.bank(row / p.sharing - stretch.first_matrix);
    const std::int64_t w = p.w.row(p.batch, row), g = p.g ? p.g.row(p.batch, row) : 0;
    const auto weight = [&](int column) {
      const double value = load(p.w, w + column * p.w.down + j * p.w.step);
      if (p.support) return value > 0 ? 1.0 : value == value ? 0.0 : value;
      return value < 0 ? 0.0 : value;
    };
    const auto gradient = [&](int column) { return p.g ? load(p.g, g + column * p.g.down + j * p.g.step) : 0.0; };
    double* const u = p.u.row(p.batch, row);
    if (usable < 0) {
      for (int i = slot; there && i < m; i += warp_size) u[i * p.u.down + j * p.u.step] = not_a_number;
      const std::int64_t to = p.p ? p.p.row(p.batch, row) : 0;
      for (int i = slot; there && p.p && i < n; i += warp_size) {
        store(p.p, to + i * p.p.down + j * p.p.step, not_a_number);
      }
      continue;
    }

    sync();  // what is in memory is that of the columns before
    for (int s = slot; s < m; s += warp_size) {
      Sums sums;
      double to_first = 0, to_second = 0;
      for (int e = bank.begin[s]; there && e < bank.begin[s + 1]; ++e) {
        const Banks::Entry entry = bank.entries[e];
        const double value = weight(entry.column), driven = value * gradient(entry.column);
        sums.pp = fma(entry.p * entry.p, value, sums.pp);
        sums.pq = fma(entry.p * entry.q, value, sums.pq);
        sums.qq = fma(entry.q * entry.q, value, sums.qq);
        to_first = fma(entry.p, driven, to_first);
        to_second = fma(entry.q, driven, to_second);
      }
      vector(diagonal, own)[s] = sums.pp;
      vector(beside, own)[s] = sums.pq;
      vector(second, own)[s] = sums.qq;
      vector(right, own)[s] = to_first;
      vector(second_right, own)[s] = to_second;
    }
    sync();

    {
      const int column = warp();
      const bool in_use = first + column < p.k;
      const std::int64_t at = in_use ? first + column : first;
      const double mu = load(p.mu, column_at(p.mu, p.batch, row, at));
      const double* const h = p.h ? column_at(p.h, p.batch, row, at) : nullptr;
      double *const diagonals = vector(diagonal, column), *const rights = vector(right, column);
      for (int i = lane(); i < m; i += warp_size) {
        if (i > 0) {
          diagonals[i] += vector(second, column)[i - 1];
          rights[i] += vector(second_right, column)[i - 1];
        }
        if (h != nullptr) rights[i] += h[i * p.h.down];
      }
      sync_warp();
      const auto row_of = [&](int i) { return TridiagonalRow{diagonals[i] + mu, rights[i]}; };
      solve_tridiagonal(m, row_of, vector(beside, column), vector(second, column), vector(second_right, column),
                        rights);
      for (int i = lane(); in_use && i < m; i += warp_size) u[i * p.u.down + at * p.u.step] = rights[i];
    }
    sync();

    if (!p.p) continue;
    const std::int64_t to = p.p.row(p.batch, row);
    const auto solved = [&](int i) { return i < m ? vector(right, own)[i] : 0.0; };
    for (int e = slot; there && e < n; e += warp_size) {
      const Banks::Entry entry = bank.entries[e];
      const double applied = entry.p * solved(entry.segment) + entry.q * solved(entry.segment + 1);
      store(p.p, to + entry.column * p.p.down + j * p.p.step,
            weight(entry.column) * (gradient(entry.column) - applied));
    }
  }
}

}  // namespace torch_iir::cuda
