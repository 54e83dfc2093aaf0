// The recurrences of lfilter on one tile: `lanes` signals side by side, each lane with a filter of its own.
//
// Coefficients are normalised, b[k][lane] and a[k][lane] for k = 0…order. Up to `register_order` the filter runs with
// its state in registers; above, FIR and all-pole parts run one after the other on tiles in double that carry `order`
// rows of history before them. Backward, time runs from the end, so that its tiles are loaded in reverse and the same
// two parts serve.
#pragma once

#include "simd.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

inline constexpr int register_order = 6;

// ---- up to register_order ------------------------------------------------------------------------------------

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
  TORCH_IIR_INLINE Pair step(Pair x) { return {step(x.low, 0), step(x.high, 1)}; }
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
template <int order, int ahead = 0, class Sample>
void filter_tile(Sample* const (&rows)[lanes], int used, std::int64_t step, const Tile<Sample>* tile, int count,
                 const double* b, const double* a, double* z) {
  TileFilter<order> filter(b, a, z);
  store_rows<false, ahead>(rows, used, step, count, [&](int t) { return filter.step(load_pair(tile + t * lanes)); });
  filter.finish(z);
}

// The backward recurrence in `width` lanes from lane `at`, in reversed time. v[k][lane] = v[t + 1 + k] is carried;
// gb[k][lane] and ga[k][lane] (k ≥ 1, without the sign) are added to. `correlate` is off where only the gradient of the
// input is wanted.
template <int order, bool correlate>
class LaneBackward {
 public:
  TORCH_IIR_INLINE LaneBackward(const double* b, const double* a, const double* v, int at) : at_(at) {
#pragma GCC unroll 8
    for (int k = 0; k <= order; ++k) {
      b_[k] = load_doubles(b + k * lanes + at);
      gb_[k] = ga_[k] = Doubles{};
      if (k < order) {
        a_[k] = load_doubles(a + (k + 1) * lanes + at);
        v_[k] = load_doubles(v + k * lanes + at);
      }
    }
  }
  // The gradient of the input for row i of the tiles.
  template <class T>
  TORCH_IIR_INLINE Doubles step(int i, const T* g, const T* x, const T* y) {
    const int from = i * lanes + at_;
    Doubles now = load_doubles(g + from);
#pragma GCC unroll 8
    for (int k = order - 1; k >= 0; --k) now -= a_[k] * v_[k];
    Doubles out = b_[0] * now;
#pragma GCC unroll 8
    for (int k = order - 1; k >= 0; --k) out += b_[k + 1] * v_[k];
    if constexpr (correlate) {
      const Doubles in = load_doubles(x + from);
      gb_[0] += in * now;
#pragma GCC unroll 8
      for (int k = 0; k < order; ++k) gb_[k + 1] += in * v_[k];
      if constexpr (order > 0) {
        const Doubles past = load_doubles(y + from);
#pragma GCC unroll 8
        for (int k = 0; k < order; ++k) ga_[k] += past * v_[k];
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
      if (k < order) store_doubles(v + k * lanes + at_, v_[k]);
      if constexpr (correlate) {
        double *to_b = gb + k * lanes + at_, *to_a = ga + (k + 1) * lanes + at_;
        store_doubles(to_b, load_doubles(to_b) + gb_[k]);
        if (k < order) store_doubles(to_a, load_doubles(to_a) + ga_[k]);
      }
    }
  }

 private:
  int at_;
  Doubles b_[order + 1], a_[order + 1], v_[order + 1], gb_[order + 1], ga_[order + 1];
};

// Backward through reversed tiles. put(produce) is called once, and takes the gradients of the input of one row after
// the other from produce(0), produce(1), …; g may be overwritten. `unrounded` says that they are wanted as computed: to
// be added up.
template <int order, bool correlate, class T, class Put>
void backward_tile(T* g, const T* x, const T* y, int count, const double* b, const double* a, double* v, double* gb,
                   double* ga, bool unrounded, Put put) {
  using Half = LaneBackward<order, correlate>;
  if (order <= 2 || unrounded) {
    Half low(b, a, v, 0), high(b, a, v, width);
    put([&](int i) { return Pair{low.step(i, g, x, y), high.step(i, g, x, y)}; });
    low.finish(v, gb, ga);
    high.finish(v, gb, ga);
  } else {  // the registers do not suffice for all lanes at once
    for (int at = 0; at < lanes; at += width) {
      Half half(b, a, v, at);
      for (int i = 0; i < count; ++i) store_doubles(g + i * lanes + at, half.step(i, g, x, y));
      half.finish(v, gb, ga);
    }
    put([&](int i) { return load_pair(g + i * lanes); });
  }
}

// ---- any order -----------------------------------------------------------------------------------------------

// Four outputs at once share each coefficient, and a window of four rows slides along the taps: two loads for four
// multiply-adds.
inline constexpr int outputs = 4;

struct Four {
  Doubles y[outputs];
};

TORCH_IIR_INLINE Four load_four(const double* row) {
  return {{load_doubles(row), load_doubles(row + lanes), load_doubles(row + 2 * lanes), load_doubles(row + 3 * lanes)}};
}
TORCH_IIR_INLINE void store_four(double* row, const Four& v) {
  for (int i = 0; i < outputs; ++i) store_doubles(row + i * lanes, v.y[i]);
}

// Σ_{k ≤ order} b[k] x[t − k] for four t; x points to the first, b to its lane.
TORCH_IIR_INLINE Four fir_four(const double* x, int order, const double* b) {
  Doubles w0 = load_doubles(x), w1 = load_doubles(x + lanes), w2 = load_doubles(x + 2 * lanes),
          w3 = load_doubles(x + 3 * lanes);
  Doubles c = load_doubles(b);
  Doubles y0 = c * w0, y1 = c * w1, y2 = c * w2, y3 = c * w3;
  for (int k = 1; k <= order; ++k) {
    w3 = w2, w2 = w1, w1 = w0, w0 = load_doubles(x - k * lanes);
    c = load_doubles(b + k * lanes);
    y0 += c * w0, y1 += c * w1, y2 += c * w2, y3 += c * w3;
  }
  return {{y0, y1, y2, y3}};
}

// Four outputs of the all-pole recurrence with drive u, order ≥ 4; y points to the first, and is preceded by the past.
TORCH_IIR_INLINE Four all_pole_four(const Four& u, const double* y, int order, const double* a) {
  Doubles y0 = u.y[0], y1 = u.y[1], y2 = u.y[2], y3 = u.y[3];
  // the oldest first, so that the chain through the newest outputs is short
  Doubles w0 = load_doubles(y - order * lanes), w1 = load_doubles(y - (order - 1) * lanes),
          w2 = load_doubles(y - (order - 2) * lanes);
  for (int k = order; k >= outputs; --k) {
    const Doubles w3 = load_doubles(y - (k - 3) * lanes), c = load_doubles(a + k * lanes);
    y0 -= c * w0, y1 -= c * w1, y2 -= c * w2, y3 -= c * w3;
    w0 = w1, w1 = w2, w2 = w3;
  }
  const Doubles a1 = load_doubles(a + lanes), a2 = load_doubles(a + 2 * lanes), a3 = load_doubles(a + 3 * lanes);
  y0 -= a3 * w0, y1 -= a3 * w1, y2 -= a3 * w2;
  y0 -= a2 * w1, y1 -= a2 * w2;
  y0 -= a1 * w2;
  y1 -= a1 * y0, y2 -= a2 * y0, y3 -= a3 * y0;
  y2 -= a1 * y1, y3 -= a2 * y1;
  y3 -= a1 * y2;
  return {{y0, y1, y2, y3}};
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
    for (int at = t * lanes, lane = 0; lane < lanes; at += width, lane += width)
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
    for (int at = t * lanes, lane = 0; lane < lanes; at += width, lane += width) {
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
    for (int at = t * lanes, lane = 0; lane < lanes; at += width, lane += width) {
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
