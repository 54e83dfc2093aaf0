// The recurrences of lfilter on one tile, for any order: FIR and all-pole parts run one after the other on tiles in
// double that carry `order` rows of history before them. Backward, time runs from the end, and the same two parts
// serve.
#pragma once

#include "simd.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

// Four outputs of all lanes at once share each coefficient: a multiply-add takes four cycles and two begin in each, so
// that it takes eight sums to keep the machine busy. Where there are registers for it, a window of four rows slides
// along the taps, half a load for a multiply-add, and long recurrences have sixteen sums: eight suffice only if each
// multiply-add begins on time. Else each reads its row from memory.
inline constexpr int outputs = 4;
inline constexpr int long_order = 16;  // from here on adding up sixteen sums costs less than they save
inline constexpr int halves = lanes / width;

struct All {
  Doubles of[halves];
};
struct Four {
  All y[outputs];
};

TORCH_IIR_INLINE All load_all(const double* from) {
  All v;
#pragma GCC unroll 2
  for (int i = 0; i < halves; ++i) v.of[i] = load_doubles(from + i * width);
  return v;
}
TORCH_IIR_INLINE void store_all(double* to, All v) {
#pragma GCC unroll 2
  for (int i = 0; i < halves; ++i) store_doubles(to + i * width, v.of[i]);
}
TORCH_IIR_INLINE void add_product(All& to, All p, All q) {
#pragma GCC unroll 2
  for (int i = 0; i < halves; ++i) to.of[i] += p.of[i] * q.of[i];
}
TORCH_IIR_INLINE void subtract_product(All& from, All p, All q) {
#pragma GCC unroll 2
  for (int i = 0; i < halves; ++i) from.of[i] -= p.of[i] * q.of[i];
}

TORCH_IIR_INLINE void add(All& to, All p) {
#pragma GCC unroll 2
  for (int i = 0; i < halves; ++i) to.of[i] += p.of[i];
}

TORCH_IIR_INLINE Four load_four(const double* row) {
  return {{load_all(row), load_all(row + lanes), load_all(row + 2 * lanes), load_all(row + 3 * lanes)}};
}
TORCH_IIR_INLINE void store_four(double* row, const Four& v) {
#pragma GCC unroll 4
  for (int i = 0; i < outputs; ++i) store_all(row + i * lanes, v.y[i]);
}

// Σ_{k ≤ order} b[k] x[t − k] for four t; x points to the first.
TORCH_IIR_INLINE Four fir_four(const double* x, int order, const double* b) {
  Four sums{};
  if constexpr (many_registers) {
    Four others{};
    All w0 = load_all(x + lanes), w1 = load_all(x + 2 * lanes), w2 = load_all(x + 3 * lanes);
    int k = 0;
    const auto add_tap = [&](Four& to) TORCH_IIR_INLINE_LAMBDA {
      const All w3 = w2, c = load_all(b + k * lanes);
      w2 = w1, w1 = w0, w0 = load_all(x - k * lanes);
      add_product(to.y[0], c, w0), add_product(to.y[1], c, w1);
      add_product(to.y[2], c, w2), add_product(to.y[3], c, w3);
      ++k;
    };
    while (order >= long_order && k + 3 <= order) add_tap(sums), add_tap(others), add_tap(sums), add_tap(others);
#pragma GCC unroll 4
    while (k <= order) add_tap(sums);
#pragma GCC unroll 4
    for (int i = 0; i < outputs; ++i) add(sums.y[i], others.y[i]);
  } else {
#pragma GCC unroll 2
    for (int k = 0; k <= order; ++k) {
      const All c = load_all(b + k * lanes);
#pragma GCC unroll 4
      for (int i = 0; i < outputs; ++i) add_product(sums.y[i], c, load_all(x + (i - k) * lanes));
    }
  }
  return sums;
}

// Four outputs of the all-pole recurrence with drive u, order ≥ 4; y points to the first, and is preceded by the past.
TORCH_IIR_INLINE Four all_pole_four(Four u, const double* y, int order, const double* a) {
  All &y0 = u.y[0], &y1 = u.y[1], &y2 = u.y[2], &y3 = u.y[3];
  // the oldest first, so that the chain through the newest outputs is short
  if constexpr (many_registers) {
    All w0 = load_all(y - order * lanes), w1 = load_all(y - (order - 1) * lanes),
        w2 = load_all(y - (order - 2) * lanes);
    Four others{};
    int k = order;
    const auto subtract_tap = [&](Four& from) TORCH_IIR_INLINE_LAMBDA {
      const All w3 = load_all(y - (k - 3) * lanes), c = load_all(a + k * lanes);
      subtract_product(from.y[0], c, w0), subtract_product(from.y[1], c, w1);
      subtract_product(from.y[2], c, w2), subtract_product(from.y[3], c, w3);
      w0 = w1, w1 = w2, w2 = w3;
      --k;
    };
    while (order >= long_order && k - 3 >= outputs)
      subtract_tap(u), subtract_tap(others), subtract_tap(u), subtract_tap(others);
#pragma GCC unroll 4
    while (k >= outputs) subtract_tap(u);
#pragma GCC unroll 4
    for (int i = 0; i < outputs; ++i) add(u.y[i], others.y[i]);
  } else {
#pragma GCC unroll 2
    for (int k = order; k >= outputs; --k) {
      const All c = load_all(a + k * lanes);
#pragma GCC unroll 4
      for (int i = 0; i < outputs; ++i) subtract_product(u.y[i], c, load_all(y + (i - k) * lanes));
    }
  }
  const All w0 = load_all(y - 3 * lanes), w1 = load_all(y - 2 * lanes), w2 = load_all(y - lanes);
  const All a1 = load_all(a + lanes), a2 = load_all(a + 2 * lanes), a3 = load_all(a + 3 * lanes);
  subtract_product(y0, a3, w0), subtract_product(y1, a3, w1), subtract_product(y2, a3, w2);
  subtract_product(y0, a2, w1), subtract_product(y1, a2, w2);
  subtract_product(y0, a1, w2);
  subtract_product(y1, a1, y0), subtract_product(y2, a2, y0), subtract_product(y3, a3, y0);
  subtract_product(y2, a1, y1), subtract_product(y3, a2, y1);
  subtract_product(y3, a1, y2);
  return u;
}

TORCH_IIR_INLINE Doubles fir_one(const double* x, int order, const double* b) {
  Doubles y = load_doubles(b) * load_doubles(x);
  for (int k = 1; k <= order; ++k) y += load_doubles(b + k * lanes) * load_doubles(x - k * lanes);
  return y;
}
TORCH_IIR_INLINE Doubles all_pole_one(Doubles u, const double* y, int order, const double* a) {
  for (int k = order; k >= 1; --k) u -= load_doubles(a + k * lanes) * load_doubles(y - k * lanes);
  return u;
}

// The tiles below are preceded by `order` rows of history, as far as they are read.

// to[t] = Σ_{k ≤ order} b[k] from[t − k] in every lane.
void fir_tile(const double* from, double* to, int count, int order, const double* b) {
  int t = 0;
  for (; t + outputs <= count; t += outputs) {
    store_four(to + t * lanes, fir_four(from + t * lanes, order, b));
  }
  for (; t < count; ++t) {
    for (int at = t * lanes, lane = 0; lane < lanes; at += width, lane += width)
      store_doubles(to + at, fir_one(from + at, order, b + lane));
  }
}

// y[t] ← y[t] − Σ_{1 ≤ k ≤ order} a[k] y[t − k] in place.
void all_pole_tile(double* y, int count, int order, const double* a) {
  int t = 0;
  for (; order >= outputs && t + outputs <= count; t += outputs) {
    double* const four = y + t * lanes;
    store_four(four, all_pole_four(load_four(four), four, order, a));
  }
  for (; t < count; ++t) {
    for (int at = t * lanes, lane = 0; lane < lanes; at += width, lane += width) {
      store_doubles(y + at, all_pole_one(load_doubles(y + at), y + at, order, a + lane));
    }
  }
}

// y = (B/A) x: both at once, but for the first `driven` rows, where y holds what the initial state adds.
void pole_zero_tile(const double* x, double* y, int count, int b_order, const double* b, int a_order, const double* a,
                    int driven) {
  int t = 0;
  for (; t < driven; ++t) {
    for (int at = t * lanes, lane = 0; lane < lanes; at += width, lane += width) {
      const Doubles u = load_doubles(y + at) + fir_one(x + at, b_order, b + lane);
      store_doubles(y + at, all_pole_one(u, y + at, a_order, a + lane));
    }
  }
  for (; a_order >= outputs && t + outputs <= count; t += outputs) {
    double* const four = y + t * lanes;
    store_four(four, all_pole_four(fir_four(x + t * lanes, b_order, b), four, a_order, a));
  }
  if (a_order < outputs) {
    fir_tile(x + t * lanes, y + t * lanes, count - t, b_order, b);
    return all_pole_tile(y + t * lanes, count - t, a_order, a);
  }
  for (; t < count; ++t) {
    for (int at = t * lanes, lane = 0; lane < lanes; at += width, lane += width) {
      store_doubles(y + at, all_pole_one(fir_one(x + at, b_order, b + lane), y + at, a_order, a + lane));
    }
  }
}

// sums[k] += Σ_{t < count} x[t] v[t − k] in every lane, k ≤ order.
void correlate_tile(const double* x, const double* v, int count, int order, double* sums) {
  constexpr int taps = 8;
  for (int at = 0; at < lanes; at += width) {
    int k = 0;
    for (; k + taps <= order + 1; k += taps) {
      Doubles total[taps] = {};
      for (int t = 0; t < count; ++t) {
        const Doubles in = load_doubles(x + t * lanes + at);
#pragma GCC unroll 8
        for (int i = 0; i < taps; ++i) total[i] += in * load_doubles(v + (t - k - i) * lanes + at);
      }
      for (int i = 0; i < taps; ++i) {
        double* to = sums + (k + i) * lanes + at;
        store_doubles(to, load_doubles(to) + total[i]);
      }
    }
    for (; k <= order; ++k) {
      Doubles total{};
      for (int t = 0; t < count; ++t)
        total += load_doubles(x + t * lanes + at) * load_doubles(v + (t - k) * lanes + at);
      double* to = sums + k * lanes + at;
      store_doubles(to, load_doubles(to) + total);
    }
  }
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
