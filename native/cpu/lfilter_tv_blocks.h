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
  bool fetched;           // into the cache, before they are read

  // Whether the block that begins with sample t can be read in whole vectors.
  bool reaches(int t) const { return (t + width - 1) * pitch + width - 1 + whole_vectors(order) <= readable; }
};

// Keeps the first elements of a vector: those that are coefficients of a row, and not what lies behind it.
TORCH_IIR_INLINE Doubles first_of(Doubles values, int count) {
  using Bits = Vector<std::int64_t, width>;
  static constexpr auto masks = [] {
    struct {
      std::int64_t bits[2 * width] = {};
    } table;
    for (int i = 0; i < width; ++i) table.bits[i] = -1;
    return table;
  }();
  const int kept = count < 0 ? 0 : count < width ? count : width;
  return (Doubles)((Bits)values & load<Bits>(masks.bits + width - kept));
}

inline constexpr int known_orders = 6;  // up to here the state lives in registers, one by one

// f(Number<order>) for an order up to known_orders, else f(Number<0>).
template <class F>
TORCH_IIR_INLINE void with_known_order(int order, F f) {
  static_assert(known_orders == 6);
  switch (order) {
    case 1: return f(Number<1>{});
    case 2: return f(Number<2>{});
    case 3: return f(Number<3>{});
    case 4: return f(Number<4>{});
    case 5: return f(Number<5>{});
    case 6: return f(Number<6>{});
    default: return f(Number<0>{});
  }
}

// past[s] = y at t = count − 1 − s, s < count; behind them stand the outputs before the chunk. From sample `begin` on.
template <class Value, class State>
void recur_one_by_one(const Recurrence<Value, State>& a, const State* drive, int begin, int count, State* past) {
  with_known_order(a.order, [&](auto known) {
    constexpr int order = known.value;
    const Value* row = a.rows + begin * a.pitch;
    State z[order + 1];
    for (int k = 0; k < order; ++k) z[k] = past[count - begin + k];
    for (int t = begin; t < count; ++t, row += a.pitch) {
      State* y = past + count - 1 - t;
      State total = drive[t];
      if constexpr (order > 0) {
#pragma GCC unroll 8
        for (int k = order; k >= 1; --k) total -= read(row[k - 1]) * z[k - 1];
      } else {
#pragma GCC unroll 4
        for (int k = a.order; k >= 1; --k) total -= read(row[k - 1]) * y[k];
      }
      if (a.inverse != nullptr) total = total * a.inverse[t];
      *y = total;
      if constexpr (order > 0) {
#pragma GCC unroll 8
        for (int k = order - 1; k >= 1; --k) z[k] = z[k - 1];
        z[0] = total;
      }
    }
  });
}

// What the samples of a block owe each other. Forwards and backwards, sample m of the run takes the coefficient of lag
// m − n from row(n, m), for n < m. `through` says that the order reaches through the block.
template <bool through, bool divided, class Value, class Row>
TORCH_IIR_INLINE Doubles solve_block(int order, Doubles totals, const double* inverse, std::int64_t inverse_step,
                                     Row row) {
  double out[width];
  Doubles result = totals;
#pragma GCC unroll 8
  for (int m = 0; m < width; ++m) {
    double value = totals[m];
#pragma GCC unroll 8
    for (int n = 0; n < m; ++n) {
      if (through || m - n <= order) value -= read(row(n, m)[m - n - 1]) * out[n];
    }
    out[m] = divided ? value * inverse[m * inverse_step] : value;
    result[m] = out[m];
  }
  return result;
}

// What a block reads of the coefficients at a time: a vector of each sample.
template <class Value>
inline constexpr int square_bytes = width * width * static_cast<int>(sizeof(Value));

// past[s] as above, for t < count, as far as blocks go; returns where that is.
template <bool through, bool divided, class Value>
int recur_in_blocks(const Recurrence<Value, double>& a, const double* drive, int count, double* past) {
  constexpr auto every = std::make_index_sequence<width>{};
  const int order = a.order, whole = order - 2 * width + 2;  // from q < whole on, every row of a block has all lags
  const std::int64_t pitch = a.pitch;
  Doubles newest = load_doubles(past + count);  // the outputs before the block
  int t = 0;
  for (; t + width <= count && a.reaches(t); t += width) {
    const Value* row = a.rows + t * pitch;
    double* const y = past + count - t;  // y[0] is the output before the block
    Doubles totals[width] = {};
    Fetch lines(reinterpret_cast<const char*>(row) + bytes_ahead);
    int q = whole_vectors(order) - width;
    const auto add = [&](Doubles window, bool all) {
      if (a.fetched) lines.template next<square_bytes<Value>>();
#pragma GCC unroll 8
      for (int i = 0; i < width; ++i) {
        const Doubles lags = load_doubles(row + i * pitch + q + i);
        totals[i] += (all ? lags : first_of(lags, order - q - i)) * window;
      }
    };
    for (; q > 0 && q >= whole; q -= width) add(load_doubles(y + q), false);
    for (; q > 0; q -= width) add(load_doubles(y + q), true);
    add(newest, whole > 0);  // last, since they are known last
    const Doubles out = solve_block<through, divided, Value>(order, load_doubles(drive + t) - sums_of(totals),
                                                             divided ? a.inverse + t : nullptr, 1,
                                                             [&](int, int m) { return row + m * pitch; });
    newest = permute<Backwards>(out, out, every);
    store_doubles(y - width, newest);
  }
  return t;
}

// f(through, divided) for a recurrence.
template <class Value, class F>
TORCH_IIR_INLINE auto with_block_form(const Recurrence<Value, double>& a, F f) {
  if (a.inverse != nullptr) {
    return a.order >= width - 1 ? f(Choice<true>{}, Choice<true>{}) : f(Choice<false>{}, Choice<true>{});
  }
  return a.order >= width - 1 ? f(Choice<true>{}, Choice<false>{}) : f(Choice<false>{}, Choice<false>{});
}

// The same as one by one. Behind the past there stand zeros up to a whole number of vectors.
template <class Value>
void recur_in_blocks(const Recurrence<Value, double>& a, const double* drive, int count, double* past) {
  const int done = with_block_form(a, [&](auto through, auto divided) {
    return recur_in_blocks<through.value, divided.value>(a, drive, count, past);
  });
  recur_one_by_one(a, drive, done, count, past);
}

// v[s] for t = count − 1 − s from g + pending, g at the same s; pending[count …] is left to the times before the chunk.
// Samples from s = begin to end.
template <class Value, class State>
void adjoint_one_by_one(const Recurrence<Value, State>& a, const State* g, int begin, int end, int count,
                        State* pending, State* v) {
  with_known_order(a.order, [&](auto known) {
    constexpr int order = known.value;
    const Value* row = a.rows + (count - 1 - begin) * a.pitch;
    State z[order + 1];
    for (int k = 0; k < order; ++k) z[k] = pending[begin + k];
    for (int s = begin; s < end; ++s, row -= a.pitch) {
      State* to = pending + s;
      State value = g[s] + (order > 0 ? z[0] : to[0]);
      if (a.inverse != nullptr) value = value * conjugate(a.inverse[count - 1 - s]);
      v[s] = value;
      if constexpr (order > 0) {
        z[order] = to[order];
#pragma GCC unroll 8
        for (int k = 1; k <= order; ++k) z[k - 1] = z[k] - conjugate(read(row[k - 1])) * value;
      } else {
        for (int k = 1; k <= a.order; ++k) to[k] -= conjugate(read(row[k - 1])) * value;
      }
    }
    for (int k = 0; k < order; ++k) pending[end + k] = z[k];
  });
}

// v[s] as above, from s = begin on, as far as whole blocks go; returns where that is.
template <bool through, bool divided, class Value>
int adjoint_in_blocks(const Recurrence<Value, double>& a, const double* g, int begin, int count, double* pending,
                      double* v) {
  const int order = a.order, whole = order - 2 * width + 2;
  const std::int64_t pitch = a.pitch;
  Doubles now = load_doubles(pending + begin);
  int s = begin;
  for (; s + width <= count; s += width) {
    const int t = count - 1 - s;
    const Value* row = a.rows + t * pitch;  // and those in front of it
    const Doubles out =
        solve_block<through, divided, Value>(order, load_doubles(g + s) + now, divided ? a.inverse + t : nullptr, -1,
                                             [&](int n, int) { return row - n * pitch; });
    store_doubles(v + s, out);
    double* to = pending + s + width;
    Fetch lines(reinterpret_cast<const char*>(row + pitch) - bytes_ahead);
    const auto subtract = [&](int q, bool all) {
      if (a.fetched) lines.template previous<square_bytes<Value>>();
      Doubles left = load_doubles(to + q);
#pragma GCC unroll 8
      for (int m = 0; m < width; ++m) {
        const int k = width - 1 - m + q;
        const Doubles lags = load_doubles(row - m * pitch + k);
        left -= (all ? lags : first_of(lags, order - k)) * everywhere(out[m]);
      }
      return left;
    };
    now = subtract(0, whole > 0);  // what the next block waits for
    int q = width;
    for (; q < whole; q += width) store_doubles(to + q, subtract(q, true));
    for (; q < order; q += width) store_doubles(to + q, subtract(q, false));
  }
  store_doubles(pending + s, now);
  return s;
}

// The same as one by one. Behind `pending` there is room for width values more.
template <class Value>
void adjoint_in_blocks(const Recurrence<Value, double>& a, const double* g, int count, double* pending, double* v) {
  int s = 0;
  while (s < count && !a.reaches(count - width - s)) ++s;  // the last rows, behind which there may be nothing to read
  adjoint_one_by_one(a, g, 0, s, count, pending, v);
  s = with_block_form(a, [&](auto through, auto divided) {
    return adjoint_in_blocks<through.value, divided.value>(a, g, s, count, pending, v);
  });
  adjoint_one_by_one(a, g, s, count, count, pending, v);
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
