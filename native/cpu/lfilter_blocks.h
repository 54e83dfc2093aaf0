// One row of any order, a block of outputs at once.
//
// The outputs of a block of B samples at t are  Σ_m X_m x[t − b_order + m] + Σ_j Y_j y[t − j], with column vectors of
// length B: Y_j is the block's response to the past output y[t − j], X_m that to one input, of the block or before it.
// That is (b_order + a_order + B) / B vector multiply-adds a sample, on broadcast scalars: no shuffles, and a chain of
// one block. The columns of X have zeros above the diagonal, where NaN · 0 would reach samples before it: the caller
// looks at what came out and redoes a non-finite chunk by the direct form.
#pragma once

#include "simd.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

inline constexpr int block = 8;
inline constexpr int block_vectors = block / width;
inline constexpr int blocks_at_once = 4;  // share each load of X; their outputs follow one another

// Y has a column for each output of the block before, though a_order be less: they are at hand in a register.
constexpr int past_columns(int a_order) { return a_order > block ? a_order : block; }
// Samples of history before a chunk of blocks, at least the order and a block; whole blocks, so that all are aligned.
constexpr int block_history(int order) { return (order + 2 * block - 1) / block * block; }
constexpr int block_table_size(int b_order, int a_order) { return (b_order + block + past_columns(a_order)) * block; }

// X (b_order + block columns) and then Y (past_columns(a_order), the oldest output's first). `h` receives the impulse
// response of 1/A.
void build_block_tables(const double* b, int b_order, const double* a, int a_order, double* tables, double* h) {
  for (int n = 0; n < block; ++n) {
    h[n] = n == 0;
    for (int k = 1; k <= n && k <= a_order; ++k) h[n] -= a[k] * h[n - k];
  }
  for (int m = 0; m < b_order + block; ++m) {  // input i = m − b_order drives u[q] = b[q − i], which h carries to n ≥ q
    const int i = m - b_order;
    for (int n = 0; n < block; ++n) {
      double total = 0;
      for (int q = i > 0 ? i : 0; q <= n && q - i <= b_order; ++q) total += h[n - q] * b[q - i];
      tables[m * block + n] = total;
    }
  }
  double* past = tables + (b_order + block) * block;
  for (int j = past_columns(a_order); j >= 1; --j, past += block) {
    for (int n = 0; n < block; ++n) {
      double total = 0;
      for (int q = 0; q <= n && q + j <= a_order; ++q) total -= h[n - q] * a[q + j];
      past[n] = total;
    }
  }
}

// Outputs are predicted up to `block` samples ahead. Where poles lie close together, the weights of such a prediction
// are large and cancel: the rounding of the past outputs would grow by their sum, where the direct form's grows by that
// of a.
bool blocks_are_sound(const double* tables, int b_order, const double* a, int a_order) {
  constexpr double most = 32;
  double direct = 0, largest = 0;
  for (int k = 0; k <= a_order; ++k) direct += __builtin_fabs(a[k]);
  for (int n = 0; n < block; ++n) {
    double total = 0;
    for (int j = 0; j < a_order; ++j) {
      total += __builtin_fabs(tables[(b_order + block + past_columns(a_order) - a_order + j) * block + n]);
    }
    largest = total > largest ? total : largest;
  }
  return largest <= most * direct;  // false, too, if it is not a number
}

template <int lane, std::size_t... i>
TORCH_IIR_INLINE Doubles repeat(Doubles v, std::index_sequence<i...>) {
  return __builtin_shufflevector(v, v, (static_cast<int>(i) * 0 + lane)...);
}

// Adds what output j of the block before contributes, for every j: broadcast from registers, since the way through
// memory would double the time from block to block.
template <std::size_t... j>
TORCH_IIR_INLINE void add_recent(Doubles (&sums)[4][block_vectors], const Doubles (&recent)[block][block_vectors],
                                 const Doubles (&last)[block_vectors], std::index_sequence<j...>) {
  const auto add = [&](auto column, Doubles output) {
#pragma GCC unroll 4
    for (int v = 0; v < block_vectors; ++v) sums[column.value % 4][v] += recent[column.value][v] * output;
  };
  (add(Number<static_cast<int>(j)>{},
       repeat<static_cast<int>(j) % width>(last[j / width], std::make_index_sequence<width>{})),
   ...);
}

// y[0 … count) for count a multiple of `block`; x is preceded by b_order samples of history and followed by readable
// ones, up to a multiple of blocks_at_once * block; y is preceded by past_columns(a_order), of which those before
// a_order count for nothing but have to be finite. `extra`, if not null, is added to the outputs (the response to the
// initial state). read(t) is called before the inputs [t, t + block) are read, write(t, outputs) when these are there:
// the chain from block to block leaves time for both.
template <class Read = Nothing, class Write = Nothing>
void filter_blocks(const double* x, double* y, int count, int b_order, int a_order, const double* tables,
                   const double* extra, Read read = {}, Write write = {}) {
  const double* const past = tables + (b_order + block) * block;
  const int older = past_columns(a_order) - block;
  Doubles last[block_vectors], recent[block][block_vectors];  // the block before; the columns that answer to it
#pragma GCC unroll 4
  for (int v = 0; v < block_vectors; ++v) {
    last[v] = load_doubles(y - block + v * width);
#pragma GCC unroll 8
    for (int j = 0; j < block; ++j) recent[j][v] = load_doubles(past + (older + j) * block + v * width);
  }
  // What the inputs contribute to the outputs is summed up a group of blocks ahead, a quarter of it before each block:
  // it fills the time that the chain from block to block leaves.
  const int columns = b_order + block, quarter = (columns + blocks_at_once - 1) / blocks_at_once;
  Doubles drive[blocks_at_once][block_vectors], next[blocks_at_once][block_vectors] = {};
  const auto add_inputs = [&](int t, int first, int last_column) {
    const double* in = x + t - b_order;
    for (int m = first; m < last_column; ++m) {
#pragma GCC unroll 4
      for (int v = 0; v < block_vectors; ++v) {
        const Doubles column = load_doubles(tables + m * block + v * width);
#pragma GCC unroll 4
        for (int q = 0; q < blocks_at_once; ++q) next[q][v] += column * in[m + q * block];
      }
    }
  };
  constexpr int group = blocks_at_once * block, read_ahead = 2 * group;
  for (int t = 0; t < read_ahead && t < count; t += block) read(t);
  add_inputs(0, 0, columns);
  for (int t = 0; t < count; t += group) {
    const int here = count - t < group ? (count - t) / block : blocks_at_once;
    const bool more = t + group < count;
#pragma GCC unroll 4
    for (int q = 0; q < blocks_at_once; ++q) {
#pragma GCC unroll 4
      for (int v = 0; v < block_vectors; ++v) drive[q][v] = next[q][v], next[q][v] = Doubles{};
    }
#pragma GCC unroll 4
    for (int q = 0; q < blocks_at_once; ++q) {
      if (q >= here) break;
      if (more) {
        const int from_column = q * quarter,
                  to_column = from_column + quarter < columns ? from_column + quarter : columns;
        add_inputs(t + group, from_column, to_column);
      }
      if (t + read_ahead + q * block < count) read(t + read_ahead + q * block);
      double* out = y + t + q * block;
      const double* from = out - older - block;
      Doubles sums[4][block_vectors];
#pragma GCC unroll 4
      for (int v = 0; v < block_vectors; ++v) {
        sums[0][v] = drive[q][v];
        if (extra != nullptr) sums[0][v] += load_doubles(extra + t + q * block + v * width);
        sums[1][v] = sums[2][v] = sums[3][v] = Doubles{};
      }
      int j = 0;  // written long enough ago to be read from memory
      for (; j + 4 <= older; j += 4) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 4
          for (int v = 0; v < block_vectors; ++v)
            sums[i][v] += load_doubles(past + (j + i) * block + v * width) * from[j + i];
        }
      }
      for (; j < older; ++j) {
#pragma GCC unroll 4
        for (int v = 0; v < block_vectors; ++v) sums[1][v] += load_doubles(past + j * block + v * width) * from[j];
      }
      if (a_order > 0) add_recent(sums, recent, last, std::make_index_sequence<block>{});
#pragma GCC unroll 4
      for (int v = 0; v < block_vectors; ++v) {
        last[v] = (sums[0][v] + sums[1][v]) + (sums[2][v] + sums[3][v]);
        store_doubles(out + v * width, last[v]);
      }
      write(t + q * block, last);
    }
  }
}

// sums[k] += Σ_{t < count} x[t] v[t − k], k ≤ order, for count a multiple of `block`.
void correlate(const double* x, const double* v, int count, int order, double* sums) {
  constexpr int taps = 8;
  int k = 0;
  for (; k + taps <= order + 1; k += taps) {
    Doubles total[taps] = {};
    for (int t = 0; t < count; t += width) {
      const Doubles in = load_doubles(x + t);
#pragma GCC unroll 8
      for (int i = 0; i < taps; ++i) total[i] += in * load_doubles(v + t - k - i);
    }
    for (int i = 0; i < taps; ++i) sums[k + i] += sum(total[i]);
  }
  for (; k <= order; ++k) {
    Doubles total{};
    for (int t = 0; t < count; t += width) total += load_doubles(x + t) * load_doubles(v + t - k);
    sums[k] += sum(total);
  }
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
