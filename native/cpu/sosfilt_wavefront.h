// A cascade of up to `depth` sections as a wavefront: a section in each lane, each `delay` samples behind the one
// before it. A step computes one sample of every section, and a shift by one lane hands the outputs on to the next
// section.
//
//   lane l holds section s = depth − 1 − l; at step n it is at sample n − s · delay
//
// so that the input enters at the top lane and the output leaves at the bottom one. The chain from one step to the next
// is a single multiply-add; the delay hides the shift. Sections that are missing at the end pass their input on. At the
// first and the last `fill` steps some sections have no sample, and are masked.
#pragma once

#include "simd.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

inline constexpr int depth = 8;
inline constexpr int delay = 4;
inline constexpr int fill = (depth - 1) * delay;
inline constexpr int wave_vectors = depth / width;

// A value of every section, by lane.
struct alignas(64) Wave {
  double lane[depth] = {};

  double& of(int section) { return lane[depth - 1 - section]; }
  double of(int section) const { return lane[depth - 1 - section]; }
};
struct WaveVectors {
  Doubles v[wave_vectors];
};
TORCH_IIR_INLINE WaveVectors load_wave(const double* from) {
  WaveVectors result;
#pragma GCC unroll 4
  for (int i = 0; i < wave_vectors; ++i) result.v[i] = load_doubles(from + i * width);
  return result;
}
TORCH_IIR_INLINE void store_wave(double* to, const WaveVectors& wave) {
#pragma GCC unroll 4
  for (int i = 0; i < wave_vectors; ++i) store_doubles(to + i * width, wave.v[i]);
}

struct WaveSections {
  Wave b[3], a[3];  // normalised
};

// Every lane from the one above it, the top one from `enters`; and from the one below it.
TORCH_IIR_INLINE WaveVectors shifted_down(const WaveVectors& wave, double enters) {
  WaveVectors result;
#pragma GCC unroll 4
  for (int i = 0; i < wave_vectors; ++i) {
    const Doubles above = i + 1 < wave_vectors ? wave.v[i + 1] : everywhere(enters);
    result.v[i] = permute<Window<1>>(wave.v[i], above, std::make_index_sequence<width>{});
  }
  return result;
}
TORCH_IIR_INLINE WaveVectors shifted_up(const WaveVectors& wave, double enters) {
  WaveVectors result;
#pragma GCC unroll 4
  for (int i = 0; i < wave_vectors; ++i) {
    const Doubles below = i > 0 ? wave.v[i - 1] : everywhere(enters);
    result.v[i] = permute<Window<width - 1>>(below, wave.v[i], std::make_index_sequence<width>{});
  }
  return result;
}

// Which sections have a sample at step n of a stretch of `count` samples.
class ActiveLanes {
 public:
  static constexpr bool all = false;
  TORCH_IIR_INLINE ActiveLanes(int n, int count) {
#pragma GCC unroll 4
    for (int i = 0; i < wave_vectors; ++i) {
      Vector<std::int64_t, width> first;
#pragma GCC unroll 8
      for (int l = 0; l < width; ++l) first[l] = (depth - 1 - i * width - l) * delay;
      mask_[i] = (first <= n) & (n - first < count);
    }
  }
  TORCH_IIR_INLINE Doubles choose(int vector, Doubles yes, Doubles no) const { return mask_[vector] ? yes : no; }

 private:
  using Mask = Vector<std::int64_t, width>;
  Mask mask_[wave_vectors];
};
struct AllLanes {
  static constexpr bool all = true;
  TORCH_IIR_INLINE Doubles choose(int, Doubles yes, Doubles) const { return yes; }
};

// What was handed on in the last `delay` steps, the newest first.
using Past = WaveVectors[delay];

// step(n, lanes, slot) for every step of a stretch, in order; reversed: from the last. `slot` holds what was handed on
// `delay` steps before, and takes what this step hands on.
template <bool reversed, class Step>
TORCH_IIR_INLINE void for_steps(int count, Past& past, Step step) {
  const int total = count + fill, whole = count < fill ? 0 : (count - fill) / delay * delay;
  const auto ends = [&](int first, int last) __attribute__((always_inline)) {
    for (int i = first; i < last; ++i) {
      const int n = reversed ? total - 1 - i : i;
      step(n, ActiveLanes(n, count), past[delay - 1]);
      const WaveVectors newest = past[delay - 1];
#pragma GCC unroll 4
      for (int d = delay - 1; d > 0; --d) past[d] = past[d - 1];
      past[0] = newest;
    }
  };
  const int begin = whole == 0 ? total : fill, end = begin + whole;
  ends(0, begin);
  for (int i = begin; i < end; i += delay) {
#pragma GCC unroll 4
    for (int k = 0; k < delay; ++k) {  // without moving what is past
      step(reversed ? total - 1 - i - k : i + k, AllLanes{}, past[delay - 1 - k]);
    }
  }
  ends(end, total);
}

// `count` samples through the cascade, from the states z[k] on. With `keep`, what goes into each section and what comes
// out of it, step by step, for the way back: 2 (count + fill) waves. In and out may be the same.
template <bool keep>
void wave_filter(const double* in, double* out, int count, const WaveSections& sections, Wave* z, double* kept) {
  WaveVectors b0 = load_wave(sections.b[0].lane), a1 = load_wave(sections.a[1].lane),
              a2 = load_wave(sections.a[2].lane), c1 = load_wave(sections.b[1].lane),
              c2 = load_wave(sections.b[2].lane);
  for (int i = 0; i < wave_vectors; ++i) {
    c1.v[i] -= a1.v[i] * b0.v[i];
    c2.v[i] -= a2.v[i] * b0.v[i];
  }
  // y = b0 x + z1,  z1 ← c1 x + c2 x′ − a2 z1′ − a1 z1, where ′ is a step before: written so, the chain through z1 is a
  // single multiply-add a step. c2 x′ − a2 z1′ is the second state.
  WaveVectors z1 = load_wave(z[0].lane), ahead = load_wave(z[1].lane), before = {};
  Past past = {};
  for_steps<false>(count, past, [&](int n, auto lanes, WaveVectors& slot) __attribute__((always_inline)) {
    const WaveVectors x = shifted_down(slot, lanes.all || n < count ? in[n] : 0);
    WaveVectors y;
#pragma GCC unroll 4
    for (int i = 0; i < wave_vectors; ++i) {
      const Doubles head = z1.v[i];
      y.v[i] = b0.v[i] * x.v[i] + head;
      const Doubles drive = (ahead.v[i] + c1.v[i] * x.v[i]) - a2.v[i] * before.v[i];
      z1.v[i] = lanes.choose(i, drive - a1.v[i] * head, head);
      ahead.v[i] = lanes.choose(i, c2.v[i] * x.v[i], ahead.v[i]);
      before.v[i] = lanes.choose(i, head, before.v[i]);
    }
    slot = y;
    if constexpr (keep) {
      store_wave(kept + 2 * n * depth, x);
      store_wave(kept + (2 * n + 1) * depth, y);
    }
    if (lanes.all || n >= fill) out[n - fill] = y.v[0][0];
  });
  for (int i = 0; i < wave_vectors; ++i) ahead.v[i] -= a2.v[i] * before.v[i];
  store_wave(z[0].lane, z1);
  store_wave(z[1].lane, ahead);
}

// The way back. g holds the gradients of the outputs, and then those of the inputs. v[k] is the adjoint recursion's
// v[t + 1 + k] of each section; gb[k] and ga[k] (k ≥ 1, without the sign) are added to.
void wave_backward(double* g, int count, const WaveSections& sections, const double* kept, Wave* v, Wave* gb,
                   Wave* ga) {
  const WaveVectors b0 = load_wave(sections.b[0].lane), b1 = load_wave(sections.b[1].lane),
                    b2 = load_wave(sections.b[2].lane), a1 = load_wave(sections.a[1].lane),
                    a2 = load_wave(sections.a[2].lane);
  WaveVectors v1 = load_wave(v[0].lane), v2 = load_wave(v[1].lane);
  Past past = {};
  WaveVectors gb0 = load_wave(gb[0].lane), gb1 = load_wave(gb[1].lane), gb2 = load_wave(gb[2].lane),
              ga1 = load_wave(ga[1].lane), ga2 = load_wave(ga[2].lane);
  for_steps<true>(count, past, [&](int n, auto lanes, WaveVectors& slot) __attribute__((always_inline)) {
    const int t = n - fill;  // of the last section
    const WaveVectors from = shifted_up(slot, lanes.all || t >= 0 ? g[t] : 0);
    const WaveVectors x = load_wave(kept + 2 * n * depth), y = load_wave(kept + (2 * n + 1) * depth);
    WaveVectors out;
#pragma GCC unroll 4
    for (int i = 0; i < wave_vectors; ++i) {
      const Doubles zero{}, in = x.v[i], past_y = y.v[i];
      const Doubles now = (from.v[i] - a2.v[i] * v2.v[i]) - a1.v[i] * v1.v[i];
      out.v[i] = (b2.v[i] * v2.v[i] + b1.v[i] * v1.v[i]) + b0.v[i] * now;
      // Lanes without a sample hold anything, NaN too, and are left out behind the products.
      gb0.v[i] += lanes.choose(i, in * now, zero);
      gb1.v[i] += lanes.choose(i, in * v1.v[i], zero);
      gb2.v[i] += lanes.choose(i, in * v2.v[i], zero);
      ga1.v[i] += lanes.choose(i, past_y * v1.v[i], zero);
      ga2.v[i] += lanes.choose(i, past_y * v2.v[i], zero);
      v2.v[i] = lanes.choose(i, v1.v[i], v2.v[i]);
      v1.v[i] = lanes.choose(i, now, v1.v[i]);
    }
    slot = out;
    if (lanes.all || n < count) g[n] = out.v[wave_vectors - 1][width - 1];
  });
  store_wave(v[0].lane, v1);
  store_wave(v[1].lane, v2);
  store_wave(gb[0].lane, gb0);
  store_wave(gb[1].lane, gb1);
  store_wave(gb[2].lane, gb2);
  store_wave(ga[1].lane, ga1);
  store_wave(ga[2].lane, ga2);
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
