// The recurrences of lfilter on one tile, for any order: FIR and all-pole parts run one after the other on tiles in
// double that carry `order` rows of history before them. Backward, time runs from the end, and the same two parts
// serve.
#pragma once

#include "simd.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

// Four outputs at once share each coefficient, and a window of four rows slides along the taps: two loads for four
// multiply-adds. A multiply-add takes four cycles and two begin in each, so that only all lanes together, as far as
// there are registers, are sums enough to keep the machine busy.
inline constexpr int outputs = 4;
inline constexpr int vectors_at_once = many_registers ? lanes / width : 1;
inline constexpr int lanes_at_once = vectors_at_once * width;

struct Some {
  Doubles of[vectors_at_once];
};
struct Four {
  Some y[outputs];
};

TORCH_IIR_INLINE Some load_some(const double* from) {
  Some v;
#pragma GCC unroll 2
  for (int i = 0; i < vectors_at_once; ++i) v.of[i] = load_doubles(from + i * width);
  return v;
}
TORCH_IIR_INLINE void store_some(double* to, Some v) {
#pragma GCC unroll 2
  for (int i = 0; i < vectors_at_once; ++i) store_doubles(to + i * width, v.of[i]);
}
TORCH_IIR_INLINE void add_product(Some& to, Some p, Some q) {
#pragma GCC unroll 2
  for (int i = 0; i < vectors_at_once; ++i) to.of[i] += p.of[i] * q.of[i];
}
TORCH_IIR_INLINE void subtract_product(Some& from, Some p, Some q) {
#pragma GCC unroll 2
  for (int i = 0; i < vectors_at_once; ++i) from.of[i] -= p.of[i] * q.of[i];
}

TORCH_IIR_INLINE Four load_four(const double* row) {
  return {{load_some(row), load_some(row + lanes), load_some(row + 2 * lanes), load_some(row + 3 * lanes)}};
}
TORCH_IIR_INLINE void store_four(double* row, const Four& v) {
#pragma GCC unroll 4
  for (int i = 0; i < outputs; ++i) store_some(row + i * lanes, v.y[i]);
}

// Σ_{k ≤ order} b[k] x[t − k] for four t; x points to the first, b to its lane.
TORCH_IIR_INLINE Four fir_four(const double* x, int order, const double* b) {
  Four sums{}, w = load_four(x);
  Some c = load_some(b);
#pragma GCC unroll 4
  for (int i = 0; i < outputs; ++i) add_product(sums.y[i], c, w.y[i]);
#pragma GCC unroll 4
  for (int k = 1; k <= order; ++k) {
    w.y[3] = w.y[2], w.y[2] = w.y[1], w.y[1] = w.y[0], w.y[0] = load_some(x - k * lanes);
    c = load_some(b + k * lanes);
#pragma GCC unroll 4
    for (int i = 0; i < outputs; ++i) add_product(sums.y[i], c, w.y[i]);
  }
  return sums;
}

// Four outputs of the all-pole recurrence with drive u, order ≥ 4; y points to the first, and is preceded by the past.
TORCH_IIR_INLINE Four all_pole_four(Four u, const double* y, int order, const double* a) {
  Some &y0 = u.y[0], &y1 = u.y[1], &y2 = u.y[2], &y3 = u.y[3];
  // the oldest first, so that the chain through the newest outputs is short
  Some w0 = load_some(y - order * lanes), w1 = load_some(y - (order - 1) * lanes),
       w2 = load_some(y - (order - 2) * lanes);
#pragma GCC unroll 4
  for (int k = order; k >= outputs; --k) {
    const Some w3 = load_some(y - (k - 3) * lanes), c = load_some(a + k * lanes);
    subtract_product(y0, c, w0), subtract_product(y1, c, w1);
    subtract_product(y2, c, w2), subtract_product(y3, c, w3);
    w0 = w1, w1 = w2, w2 = w3;
  }
  const Some a1 = load_some(a + lanes), a2 = load_some(a + 2 * lanes), a3 = load_some(a + 3 * lanes);
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
    for (int at = t * lanes, lane = 0; lane < lanes; at += lanes_at_once, lane += lanes_at_once)
      store_four(to + at, fir_four(from + at, order, b + lane));
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
    for (int at = t * lanes, lane = 0; lane < lanes; at += lanes_at_once, lane += lanes_at_once) {
      store_four(y + at, all_pole_four(load_four(y + at), y + at, order, a + lane));
    }
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
    for (int at = t * lanes, lane = 0; lane < lanes; at += lanes_at_once, lane += lanes_at_once) {
      store_four(y + at, all_pole_four(fir_four(x + at, b_order, b + lane), y + at, a_order, a + lane));
    }
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
