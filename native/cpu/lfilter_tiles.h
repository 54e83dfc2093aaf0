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

// Filters the tile in place from the transposed direct form II state z[k][lane], which it carries on:
//   y = b0 x + z1,  z_k ← z_{k+1} + c_k x − a_k z1,  c_k = b_k − a_k b0.
// With y replaced in the update, the chain from one sample to the next is a single multiply-add.
template <int order, class T>
void filter_tile(T* tile, int count, const double* b, const double* a, double* z) {
  constexpr int vectors = order <= 2 ? 2 : 1;  // two independent chains where the registers suffice
  for (int first = 0; first < lanes; first += vectors * width) {
    Doubles b0[vectors], c[order + 1][vectors], m[order + 1][vectors], s[order + 1][vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      const int at = first + v * width;
      b0[v] = load_doubles(b + at);
      s[order][v] = Doubles{};
#pragma GCC unroll 8
      for (int k = 0; k < order; ++k) {
        m[k][v] = load_doubles(a + (k + 1) * lanes + at);
        c[k][v] = load_doubles(b + (k + 1) * lanes + at) - m[k][v] * b0[v];
        s[k][v] = load_doubles(z + k * lanes + at);
      }
    }
    T* p = tile + first;
    for (int t = 0; t < count; ++t, p += lanes) {
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) {
        const Doubles x = load_doubles(p + v * width), head = s[0][v];
        store_doubles(p + v * width, b0[v] * x + head);
#pragma GCC unroll 8
        for (int k = 0; k < order; ++k) {
          const Doubles drive = k + 1 < order ? s[k + 1][v] + c[k][v] * x : c[k][v] * x;
          s[k][v] = drive - m[k][v] * head;
        }
      }
    }
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
#pragma GCC unroll 8
      for (int k = 0; k < order; ++k) store_doubles(z + k * lanes + first + v * width, s[k][v]);
    }
  }
}

// One reversed tile of the backward pass: g becomes gx; v[k][lane] = v[t + 1 + k] is carried; gb[k][lane] and
// ga[k][lane] (k ≥ 1, without the sign) are added to. `correlate` is off where only gx is wanted.
template <int order, bool correlate, class T>
void filter_tile_backward(T* g, const T* x, const T* y, int count, const double* b, const double* a, double* v, double* gb,
                          double* ga) {
  constexpr int vectors = order <= 2 ? 2 : 1;
  for (int first = 0; first < lanes; first += vectors * width) {
    Doubles p[order + 1][vectors], m[order + 1][vectors], s[order + 1][vectors], sum_b[order + 1][vectors], sum_a[order + 1][vectors];
#pragma GCC unroll 2
    for (int i = 0; i < vectors; ++i) {
      const int at = first + i * width;
#pragma GCC unroll 8
      for (int k = 0; k <= order; ++k) {
        p[k][i] = load_doubles(b + k * lanes + at);
        sum_b[k][i] = sum_a[k][i] = Doubles{};
        if (k < order) {
          m[k][i] = load_doubles(a + (k + 1) * lanes + at);
          s[k][i] = load_doubles(v + k * lanes + at);
        }
      }
    }
    for (int t = 0; t < count; ++t) {
      const int row = t * lanes + first;
#pragma GCC unroll 2
      for (int i = 0; i < vectors; ++i) {
        const int at = row + i * width;
        Doubles now = load_doubles(g + at);
#pragma GCC unroll 8
        for (int k = order - 1; k >= 0; --k) now -= m[k][i] * s[k][i];
        Doubles out = p[0][i] * now;
#pragma GCC unroll 8
        for (int k = order - 1; k >= 0; --k) out += p[k + 1][i] * s[k][i];
        store_doubles(g + at, out);
        if constexpr (correlate) {
          const Doubles in = load_doubles(x + at);
          sum_b[0][i] += in * now;
#pragma GCC unroll 8
          for (int k = 0; k < order; ++k) sum_b[k + 1][i] += in * s[k][i];
          if constexpr (order > 0) {
            const Doubles past = load_doubles(y + at);
#pragma GCC unroll 8
            for (int k = 0; k < order; ++k) sum_a[k][i] += past * s[k][i];
          }
        }
#pragma GCC unroll 8
        for (int k = order - 1; k > 0; --k) s[k][i] = s[k - 1][i];
        if constexpr (order > 0) s[0][i] = now;
      }
    }
#pragma GCC unroll 2
    for (int i = 0; i < vectors; ++i) {
      const int at = first + i * width;
#pragma GCC unroll 8
      for (int k = 0; k <= order; ++k) {
        if (k < order) store_doubles(v + k * lanes + at, s[k][i]);
        if constexpr (correlate) {
          store_doubles(gb + k * lanes + at, load_doubles(gb + k * lanes + at) + sum_b[k][i]);
          if (k < order) store_doubles(ga + (k + 1) * lanes + at, load_doubles(ga + (k + 1) * lanes + at) + sum_a[k][i]);
        }
      }
    }
  }
}

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
