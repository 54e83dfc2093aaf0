// The recurrence on a chunk of one row: one sample after another, or a block of as many samples as a vector holds.
//
// Outputs and gradients lie in reversed time. Forwards, the products of a block with the outputs before it are dot
// products, for all samples of the block with the same outputs; what the samples of a block owe each other follows one
// by one, with a chain of one multiply-add a sample. Backwards, a block of v is subtracted from what is pending at the
// times before it. Either way the arithmetic is that of the difference equation, in another order of summation.
#pragma once

#include "lfilter_tv_taps.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

constexpr int whole_vectors(int count) { return (count + width - 1) / width * width; }

// The coefficients of a chunk where they lie, or as they were copied: lag k of sample t at rows[t * pitch + k − 1].
template <class Value, class State>
struct Recurrence {
  const Value* rows;
  const State* inverse;  // 1/a[0] of each sample; null: 1
  int order;
  std::int64_t pitch;
  std::int64_t readable;  // values from `rows` on that are there, if only to be masked out

  // Whether the block that begins with sample t can be read in whole vectors.
  bool reaches(int t) const { return (t + width - 1) * pitch + width - 1 + whole_vectors(order) <= readable; }
};

// Coefficients k0 + 1, … of a row of `order`, 0 beyond its end.
template <class Value>
TORCH_IIR_INLINE Doubles load_lags(const Value* row, int k0, int order) {
  const Doubles values = load_doubles(row + k0);
  if (k0 + width <= order) return values;
  Doubles number;
#pragma GCC unroll 8
  for (int i = 0; i < width; ++i) number[i] = i;
  return number < order - k0 ? values : Doubles{};
}

// past[s] = y at t = count − 1 − s, s < count; behind them stand the outputs before the chunk. From sample `begin` on.
template <class Value, class State>
void recur_one_by_one(const Recurrence<Value, State>& a, const State* drive, int begin, int count, State* past) {
  for (int t = begin; t < count; ++t) {
    const Value* row = a.rows + t * a.pitch;
    State* y = past + count - 1 - t;
    State total = drive[t];
    for (int k = a.order; k >= 1; --k) total -= read(row[k - 1]) * y[k];
    *y = a.inverse != nullptr ? total * a.inverse[t] : total;
  }
}

// What the samples of a block owe each other. Forwards and backwards, sample m of the run takes coefficient lag m − n
// of row(m, n), for n < m. `all` says that the order reaches through the block.
template <bool all, class Value, class Row>
TORCH_IIR_INLINE Doubles solve_block(const Recurrence<Value, double>& a, Doubles totals, const double* inverse,
                                     std::int64_t inverse_step, Row row) {
  double out[width];
  Doubles result;
#pragma GCC unroll 8
  for (int m = 0; m < width; ++m) {
    double value = totals[m];
#pragma GCC unroll 8
    for (int n = 0; n < m; ++n) {
      if (all || m - n <= a.order) value -= read(row(m, n)[m - n - 1]) * out[n];
    }
    out[m] = inverse != nullptr ? value * inverse[m * inverse_step] : value;
    result[m] = out[m];
  }
  return result;
}

template <bool all, class Value>
void recur_in_blocks(const Recurrence<Value, double>& a, const double* drive, int count, double* past) {
  constexpr auto every = std::make_index_sequence<width>{};
  int t = 0;
  for (; t + width <= count && a.reaches(t); t += width) {
    const Value* row = a.rows + t * a.pitch;
    double* const y = past + count - t;  // y[0] is the output before the block
    Doubles totals[width] = {};
    for (int q = whole_vectors(a.order) - width; q >= 0; q -= width) {  // the newest outputs last
      const Doubles window = load_doubles(y + q);
#pragma GCC unroll 8
      for (int i = 0; i < width; ++i) totals[i] += load_lags(row + i * a.pitch, q + i, a.order) * window;
    }
    const Doubles in = load_doubles(drive + t) - sums_of(totals);
    const Doubles out = solve_block<all>(a, in, a.inverse != nullptr ? a.inverse + t : nullptr, 1,
                                         [&](int m, int) { return row + m * a.pitch; });
    store_doubles(y - width, permute<Backwards>(out, out, every));
  }
  recur_one_by_one(a, drive, t, count, past);
}

// The same in blocks. Behind the past there stand zeros up to a whole number of vectors.
template <class Value>
void recur_in_blocks(const Recurrence<Value, double>& a, const double* drive, int count, double* past) {
  return a.order >= width - 1 ? recur_in_blocks<true>(a, drive, count, past)
                              : recur_in_blocks<false>(a, drive, count, past);
}

// v[s] for t = count − 1 − s from g + pending, g at the same s; pending[count …] is left to the times before the chunk.
// Samples from s = begin to end.
template <class Value, class State>
void adjoint_one_by_one(const Recurrence<Value, State>& a, const State* g, int begin, int end, int count,
                        State* pending, State* v) {
  for (int s = begin; s < end; ++s) {
    const int t = count - 1 - s;
    const Value* row = a.rows + t * a.pitch;
    State* to = pending + s;
    State value = g[s] + to[0];
    if (a.inverse != nullptr) value = value * conjugate(a.inverse[t]);
    for (int k = 1; k <= a.order; ++k) to[k] -= conjugate(read(row[k - 1])) * value;
    v[s] = value;
  }
}

template <bool all, class Value>
void adjoint_in_blocks(const Recurrence<Value, double>& a, const double* g, int count, double* pending, double* v) {
  int s = 0;
  while (s < count && !a.reaches(count - width - s)) ++s;  // the last rows, behind which there may be nothing to read
  adjoint_one_by_one(a, g, 0, s, count, pending, v);
  for (; s + width <= count; s += width) {
    const int t = count - 1 - s;
    const Value* row = a.rows + t * a.pitch;  // and those in front of it
    const Doubles in = load_doubles(g + s) + load_doubles(pending + s);
    const Doubles out = solve_block<all>(a, in, a.inverse != nullptr ? a.inverse + t : nullptr, -1,
                                         [&](int, int n) { return row - n * a.pitch; });
    store_doubles(v + s, out);
    double* to = pending + s + width;
    for (int q = 0; q < a.order; q += width) {
      Doubles left = load_doubles(to + q);
#pragma GCC unroll 8
      for (int m = 0; m < width; ++m) {
        left -= load_lags(row - m * a.pitch, width - 1 - m + q, a.order) * everywhere(out[m]);
      }
      store_doubles(to + q, left);
    }
  }
  adjoint_one_by_one(a, g, s, count, count, pending, v);
}

// The same in blocks. Behind `pending` there is room for width values more.
template <class Value>
void adjoint_in_blocks(const Recurrence<Value, double>& a, const double* g, int count, double* pending, double* v) {
  return a.order >= width - 1 ? adjoint_in_blocks<true>(a, g, count, pending, v)
                              : adjoint_in_blocks<false>(a, g, count, pending, v);
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
