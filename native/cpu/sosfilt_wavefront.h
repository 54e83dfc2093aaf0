// A cascade of up to `depth` sections, 4 or 8, as a wavefront: a section in each lane, each `delay` samples behind the
// one before it. A step computes one sample of every section, and a shift by one lane hands the outputs on to the next
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

// The values of all sections in as many vectors as they fill.
template <int depth>
inline constexpr int part = width < depth ? width : depth;
template <int depth>
using Part = Vector<double, part<depth>>;

inline constexpr int delay = 5;
template <int depth>
inline constexpr int fill = (depth - 1) * delay;

// A value of every section, by lane.
template <int depth>
struct alignas(64) Wave {
  double lane[depth] = {};

  double& of(int section) { return lane[depth - 1 - section]; }
  double of(int section) const { return lane[depth - 1 - section]; }
};
template <int depth>
struct WaveVectors {
  static constexpr int lanes_of_part = part<depth>, parts = depth / lanes_of_part;
  using Part = TORCH_IIR_ISA::Part<depth>;
  static constexpr auto all = std::make_index_sequence<lanes_of_part>{};
  Part v[parts];

  TORCH_IIR_INLINE static WaveVectors load(const double* from) {
    WaveVectors result;
#pragma GCC unroll 4
    for (int i = 0; i < parts; ++i) result.v[i] = TORCH_IIR_ISA::load<Part>(from + i * lanes_of_part);
    return result;
  }
  TORCH_IIR_INLINE void store(double* to) const {
#pragma GCC unroll 4
    for (int i = 0; i < parts; ++i) TORCH_IIR_ISA::store(to + i * lanes_of_part, v[i]);
  }

  // Every lane from the one above it, the top one from `enters`; and from the one below it.
  TORCH_IIR_INLINE WaveVectors shifted_down(double enters) const {
    WaveVectors result;
#pragma GCC unroll 4
    for (int i = 0; i < parts; ++i) {
      const Part above = i + 1 < parts ? v[i + 1] : enters - Part{};
      result.v[i] = permute<Window<1>>(v[i], above, all);
    }
    return result;
  }
  TORCH_IIR_INLINE WaveVectors shifted_up(double enters) const {
    WaveVectors result;
#pragma GCC unroll 4
    for (int i = 0; i < parts; ++i) {
      const Part below = i > 0 ? v[i - 1] : enters - Part{};
      result.v[i] = permute<Window<lanes_of_part - 1>>(below, v[i], all);
    }
    return result;
  }
};

template <int depth>
struct WaveSections {
  Wave<depth> b[3], a[3];  // normalised
};

// Which sections have a sample at step n of a stretch of `count` samples.
template <int depth>
class ActiveLanes {
 public:
  static constexpr bool all = false;
  TORCH_IIR_INLINE ActiveLanes(int n, int count) {
#pragma GCC unroll 4
    for (int i = 0; i < depth / part<depth>; ++i) {
      Mask first;
#pragma GCC unroll 8
      for (int l = 0; l < part<depth>; ++l) first[l] = (depth - 1 - i * part<depth> - l) * delay;
      mask_[i] = (first <= n) & (n - first < count);
    }
  }
  TORCH_IIR_INLINE Part<depth> choose(int i, Part<depth> yes, Part<depth> no) const { return mask_[i] ? yes : no; }

 private:
  using Mask = Vector<std::int64_t, part<depth>>;
  Mask mask_[depth / part<depth>];
};
struct AllLanes {
  static constexpr bool all = true;
  template <class V>
  TORCH_IIR_INLINE V choose(int, V yes, V) const {
    return yes;
  }
};

// What was handed on in the last `delay` steps, the newest first.
template <int depth>
using Past = WaveVectors<depth>[delay];

// step(n, lanes, slot) for every step of a stretch, in order; reversed: from the last. `slot` holds what was handed on
// `delay` steps before, and takes what this step hands on.
template <bool reversed, int depth, class Step>
TORCH_IIR_INLINE void for_steps(int count, Past<depth>& past, Step step) {
  constexpr int ramp = fill<depth>;
  const int total = count + ramp, whole = count < ramp ? 0 : (count - ramp) / delay * delay;
  const auto ends = [&](int first, int last) TORCH_IIR_INLINE_LAMBDA {
    for (int i = first; i < last; ++i) {
      const int n = reversed ? total - 1 - i : i;
      step(n, ActiveLanes<depth>(n, count), past[delay - 1]);
      const WaveVectors<depth> newest = past[delay - 1];
#pragma GCC unroll 8
      for (int d = delay - 1; d > 0; --d) past[d] = past[d - 1];
      past[0] = newest;
    }
  };
  const int begin = whole == 0 ? total : ramp, end = begin + whole;
  ends(0, begin);
  for (int i = begin; i < end; i += delay) {
#pragma GCC unroll 8
    for (int k = 0; k < delay; ++k) {  // without moving what is past
      step(reversed ? total - 1 - i - k : i + k, AllLanes{}, past[delay - 1 - k]);
    }
  }
  ends(end, total);
}

// `count` samples through the cascade, from the states z[k] on. With `keep`, what goes into each section and what comes
// out of it, step by step, for the way back: 2 (count + fill) waves. In and out may be the same.
template <bool keep, int depth>
void wave_filter(const double* in, double* out, int count, const WaveSections<depth>& sections, Wave<depth>* z,
                 double* kept) {
  using V = WaveVectors<depth>;
  constexpr int ramp = fill<depth>;
  V b0 = V::load(sections.b[0].lane), a1 = V::load(sections.a[1].lane), a2 = V::load(sections.a[2].lane),
    c1 = V::load(sections.b[1].lane), c2 = V::load(sections.b[2].lane);
  for (int i = 0; i < V::parts; ++i) {
    c1.v[i] -= a1.v[i] * b0.v[i];
    c2.v[i] -= a2.v[i] * b0.v[i];
  }
  // y = b0 x + z1,  z1 ← c1 x + c2 x′ − a2 z1′ − a1 z1, where ′ is a step before: written so, the chain through z1 is a
  // single multiply-add a step. c2 x′ − a2 z1′ is the second state.
  V z1 = V::load(z[0].lane), ahead = V::load(z[1].lane), before = {};
  Past<depth> past = {};
  for_steps<false, depth>(count, past, [&](int n, auto lanes, V& slot) TORCH_IIR_INLINE_LAMBDA {
    const V x = slot.shifted_down(lanes.all || n < count ? in[n] : 0);
    V y;
#pragma GCC unroll 4
    for (int i = 0; i < V::parts; ++i) {
      const typename V::Part head = z1.v[i];
      y.v[i] = b0.v[i] * x.v[i] + head;
      const typename V::Part drive = (ahead.v[i] + c1.v[i] * x.v[i]) - a2.v[i] * before.v[i];
      z1.v[i] = lanes.choose(i, drive - a1.v[i] * head, head);
      ahead.v[i] = lanes.choose(i, c2.v[i] * x.v[i], ahead.v[i]);
      before.v[i] = lanes.choose(i, head, before.v[i]);
    }
    slot = y;
    if constexpr (keep) {
      x.store(kept + 2 * n * depth);
      y.store(kept + (2 * n + 1) * depth);
    }
    if (lanes.all || n >= ramp) out[n - ramp] = y.v[0][0];
  });
  for (int i = 0; i < V::parts; ++i) ahead.v[i] -= a2.v[i] * before.v[i];
  z1.store(z[0].lane);
  ahead.store(z[1].lane);
}

// The way back. g holds the gradients of the outputs, and then those of the inputs. v[k] is the adjoint recursion's
// v[t + 1 + k] of each section; gb[k] and ga[k] (k ≥ 1, without the sign) are added to.
template <int depth>
void wave_backward(double* g, int count, const WaveSections<depth>& sections, const double* kept, Wave<depth>* v,
                   Wave<depth>* gb, Wave<depth>* ga) {
  using V = WaveVectors<depth>;
  constexpr int ramp = fill<depth>;
  const V b0 = V::load(sections.b[0].lane), b1 = V::load(sections.b[1].lane), b2 = V::load(sections.b[2].lane),
          a1 = V::load(sections.a[1].lane), a2 = V::load(sections.a[2].lane);
  V v1 = V::load(v[0].lane), v2 = V::load(v[1].lane);
  Past<depth> past = {};
  V gb0 = V::load(gb[0].lane), gb1 = V::load(gb[1].lane), gb2 = V::load(gb[2].lane), ga1 = V::load(ga[1].lane),
    ga2 = V::load(ga[2].lane);
  for_steps<true, depth>(count, past, [&](int n, auto lanes, V& slot) TORCH_IIR_INLINE_LAMBDA {
    const int t = n - ramp;  // of the last section
    const V from = slot.shifted_up(lanes.all || t >= 0 ? g[t] : 0);
    const V x = V::load(kept + 2 * n * depth), y = V::load(kept + (2 * n + 1) * depth);
    V out;
#pragma GCC unroll 4
    for (int i = 0; i < V::parts; ++i) {
      const typename V::Part zero{}, in = x.v[i], past_y = y.v[i];
      const typename V::Part now = (from.v[i] - a2.v[i] * v2.v[i]) - a1.v[i] * v1.v[i];
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
    if (lanes.all || n < count) g[n] = out.v[V::parts - 1][V::lanes_of_part - 1];
  });
  v1.store(v[0].lane);
  v2.store(v[1].lane);
  gb0.store(gb[0].lane);
  gb1.store(gb[1].lane);
  gb2.store(gb[2].lane);
  ga1.store(ga[1].lane);
  ga2.store(ga[2].lane);
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
