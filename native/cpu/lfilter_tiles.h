// The recurrences of lfilter on one tile: `lanes` signals side by side, each lane with a filter of its own.
//
// Coefficients are normalised, b[k][lane] and a[k][lane] for k = 0…order. Up to `register_order` the filter runs with its
// state in registers; above, FIR and all-pole parts run one after the other on tiles in double that carry `order` rows of
// history before them. Backward, time runs from the end, so that its tiles are loaded in reverse and the same two parts
// serve.
#pragma once

#include "simd.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

inline constexpr int register_order = 6;

// ---- up to register_order --------------------------------------------------------------------------------------------

// The filter in every lane, from the transposed direct form II state z[k][lane], which `finish` writes back:
//   y = b0 x + z1,  z_k ← z_{k+1} + c_k x − a_k z1,  c_k = b_k − a_k b0.
// With y replaced in the update, the chain from one sample to the next is a single multiply-add.
template <int order>
class TileFilter {
 public:
  TORCH_IIR_INLINE TileFilter(const double* b, const double* a, const double* z) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      b0_[v] = load_doubles(b + v * width);
#pragma GCC unroll 8
      for (int k = 0; k < order; ++k) {
        a_[k][v] = load_doubles(a + (k + 1) * lanes + v * width);
        c_[k][v] = load_doubles(b + (k + 1) * lanes + v * width) - a_[k][v] * b0_[v];
        z_[k][v] = load_doubles(z + k * lanes + v * width);
      }
    }
  }
  TORCH_IIR_INLINE Pair step(Pair x) {
    return {step(x.low, 0), step(x.high, 1)};
  }
  TORCH_IIR_INLINE void finish(double* z) const {
#pragma GCC unroll 8
    for (int k = 0; k < order; ++k) {
      store_doubles(z + k * lanes, z_[k][0]);
      store_doubles(z + k * lanes + width, z_[k][1]);
    }
  }

 private:
  TORCH_IIR_INLINE Doubles step(Doubles x, int v) {
    if constexpr (order == 0) {
      return b0_[v] * x;
    } else {
      const Doubles head = z_[0][v], y = b0_[v] * x + head;
#pragma GCC unroll 8
      for (int k = 0; k < order; ++k) {
        const Doubles drive = k + 1 < order ? z_[k + 1][v] + c_[k][v] * x : c_[k][v] * x;
        z_[k][v] = drive - a_[k][v] * head;
      }
      return y;
    }
  }

  static constexpr int states = order > 0 ? order : 1;
  Doubles b0_[2], a_[states][2], c_[states][2], z_[states][2];
};

// Filters a tile and stores the result.
template <int order, class Sample>
void filter_tile(Sample* const (&rows)[lanes], int used, std::int64_t step, std::int64_t ahead, const Tile<Sample>* tile, int count,
                 const double* b, const double* a, double* z) {
  TileFilter<order> filter(b, a, z);
  store_rows(rows, used, step, count, ahead, [&](int t) { return filter.step(load_pair(tile + t * lanes)); });
  filter.finish(z);
}

// The backward recurrence in every lane, in reversed time. v[k][lane] = v[t + 1 + k] is carried; gb[k][lane] and ga[k][lane]
// (k ≥ 1, without the sign) are added to. `correlate` is off where only the gradient of the input is wanted.
template <int order, bool correlate>
class TileBackward {
 public:
  TORCH_IIR_INLINE TileBackward(const double* b, const double* a, const double* v) {
#pragma GCC unroll 8
    for (int k = 0; k <= order; ++k) {
      b_[k] = load_pair(b + k * lanes);
      gb_[k] = ga_[k] = Pair{};
      if (k < order) {
        a_[k] = load_pair(a + (k + 1) * lanes);
        v_[k] = load_pair(v + k * lanes);
      }
    }
  }
  // The gradient of the input; x and y point to this sample of every lane.
  template <class T>
  TORCH_IIR_INLINE Pair step(Pair g, const T* x, const T* y) {
    Pair now = g, out;
#pragma GCC unroll 8
    for (int k = order - 1; k >= 0; --k) {
      now.low -= a_[k].low * v_[k].low;
      now.high -= a_[k].high * v_[k].high;
    }
    out = {b_[0].low * now.low, b_[0].high * now.high};
#pragma GCC unroll 8
    for (int k = order - 1; k >= 0; --k) add_product(out, b_[k + 1], v_[k]);
    if constexpr (correlate) {
      const Pair in = load_pair(x);
      add_product(gb_[0], in, now);
#pragma GCC unroll 8
      for (int k = 0; k < order; ++k) add_product(gb_[k + 1], in, v_[k]);
      if constexpr (order > 0) {
        const Pair past = load_pair(y);
#pragma GCC unroll 8
        for (int k = 0; k < order; ++k) add_product(ga_[k], past, v_[k]);
      }
    }
#pragma GCC unroll 8
    for (int k = order - 1; k > 0; --k) v_[k] = v_[k - 1];
    if constexpr (order > 0) v_[0] = now;
    return out;
  }
  TORCH_IIR_INLINE void finish(double* v, double* gb, double* ga) const {
#pragma GCC unroll 8
    for (int k = 0; k <= order; ++k) {
      if (k < order) store_pair(v + k * lanes, v_[k]);
      if constexpr (correlate) {
        add_to(gb + k * lanes, gb_[k]);
        if (k < order) add_to(ga + (k + 1) * lanes, ga_[k]);
      }
    }
  }

 private:
  TORCH_IIR_INLINE static void add_product(Pair& total, const Pair& p, const Pair& q) {
    total.low += p.low * q.low;
    total.high += p.high * q.high;
  }
  TORCH_IIR_INLINE static void add_to(double* to, const Pair& value) {
    const Pair old = load_pair(to);
    store_pair(to, {old.low + value.low, old.high + value.high});
  }

  Pair b_[order + 1], a_[order + 1], v_[order + 1], gb_[order + 1], ga_[order + 1];
};

// ---- any order -------------------------------------------------------------------------------------------------------

// Four outputs at once share each coefficient, and a window of four rows slides along the taps: two loads for four
// multiply-adds.
inline constexpr int outputs = 4;

// to[t] = Σ_{k ≤ order} b[k] from[t − k] in every lane, for rows −order…count − 1 of `from`.
void fir_tile(const double* from, double* to, int count, int order, const double* b) {
  int t = 0;
  for (; t + outputs <= count; t += outputs) {
    for (int at = 0; at < lanes; at += width) {
      const double* x = from + t * lanes + at;
      Doubles w0 = load_doubles(x), w1 = load_doubles(x + lanes), w2 = load_doubles(x + 2 * lanes), w3 = load_doubles(x + 3 * lanes);
      Doubles c = load_doubles(b + at);
      Doubles y0 = c * w0, y1 = c * w1, y2 = c * w2, y3 = c * w3;
      for (int k = 1; k <= order; ++k) {
        w3 = w2, w2 = w1, w1 = w0, w0 = load_doubles(x - k * lanes);
        c = load_doubles(b + k * lanes + at);
        y0 += c * w0, y1 += c * w1, y2 += c * w2, y3 += c * w3;
      }
      double* y = to + t * lanes + at;
      store_doubles(y, y0), store_doubles(y + lanes, y1), store_doubles(y + 2 * lanes, y2), store_doubles(y + 3 * lanes, y3);
    }
  }
  for (; t < count; ++t) {
    for (int at = 0; at < lanes; at += width) {
      Doubles y{};
      for (int k = 0; k <= order; ++k) y += load_doubles(b + k * lanes + at) * load_doubles(from + (t - k) * lanes + at);
      store_doubles(to + t * lanes + at, y);
    }
  }
}

// y[t] ← y[t] − Σ_{1 ≤ k ≤ order} a[k] y[t − k] in place, from the history in rows −order…−1.
void all_pole_tile(double* tile, int count, int order, const double* a) {
  int t = 0;
  if (order >= outputs) {
    for (; t + outputs <= count; t += outputs) {
      for (int at = 0; at < lanes; at += width) {
        double* y = tile + t * lanes + at;
        const double* coefficient = a + at;
        Doubles y0 = load_doubles(y), y1 = load_doubles(y + lanes), y2 = load_doubles(y + 2 * lanes), y3 = load_doubles(y + 3 * lanes);
        // the oldest first, so that the chain through the newest outputs is short
        Doubles w0 = load_doubles(y - order * lanes), w1 = load_doubles(y - (order - 1) * lanes), w2 = load_doubles(y - (order - 2) * lanes);
        for (int k = order; k >= outputs; --k) {
          const Doubles w3 = load_doubles(y - (k - 3) * lanes), c = load_doubles(coefficient + k * lanes);
          y0 -= c * w0, y1 -= c * w1, y2 -= c * w2, y3 -= c * w3;
          w0 = w1, w1 = w2, w2 = w3;
        }
        const Doubles a1 = load_doubles(coefficient + lanes), a2 = load_doubles(coefficient + 2 * lanes), a3 = load_doubles(coefficient + 3 * lanes);
        y0 -= a3 * w0, y1 -= a3 * w1, y2 -= a3 * w2;
        y0 -= a2 * w1, y1 -= a2 * w2;
        y0 -= a1 * w2;
        y1 -= a1 * y0, y2 -= a2 * y0, y3 -= a3 * y0;
        y2 -= a1 * y1, y3 -= a2 * y1;
        y3 -= a1 * y2;
        store_doubles(y, y0), store_doubles(y + lanes, y1), store_doubles(y + 2 * lanes, y2), store_doubles(y + 3 * lanes, y3);
      }
    }
  }
  for (; t < count; ++t) {
    for (int at = 0; at < lanes; at += width) {
      double* y = tile + t * lanes + at;
      Doubles now = load_doubles(y);
      for (int k = order; k >= 1; --k) now -= load_doubles(a + k * lanes + at) * load_doubles(y - k * lanes);
      store_doubles(y, now);
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
      for (int t = 0; t < count; ++t) total += load_doubles(x + t * lanes + at) * load_doubles(v + (t - k) * lanes + at);
      double* to = sums + k * lanes + at;
      store_doubles(to, load_doubles(to) + total);
    }
  }
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
