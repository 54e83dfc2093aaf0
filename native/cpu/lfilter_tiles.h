// The recurrences of lfilter on one tile, with the state in registers: `lanes` signals side by side, each lane with a
// filter of its own.
//
// Coefficients are normalised, b[k][lane] and a[k][lane] for k = 0…order ≤ register_order. Backward, time runs from the
// end, so that tiles are loaded in reverse.
#pragma once

#include "simd.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

inline constexpr int register_order = 6;
// Up to this order the states of half of the lanes do, and the coefficients come from memory, one with each
// multiply-add.
inline constexpr int half_register_order = many_registers ? 16 : 12;

// The filter in the `width` lanes from lane `at`, from the transposed direct form II state z[k][lane], which `finish`
// writes back:
//   y = b0 x + z1,  z_k ← z_{k+1} + c_k x − a_k z1,  c_k = b_k − a_k b0.
// With y replaced in the update, the chain from one sample to the next is a single multiply-add. The way through the
// higher states is as short where they are kept without their last product, r_k = z_k + a_k z1_before (`late`):
//   r_k ← (r_{k+1} + c_k x) − a_{k+1} z1_before,  z1 ← r_1 − a_1 z1.
// That takes a register more: where there are few, it is slower for some and faster for others of those who use it.
// `monic`: b0 is 1 in all lanes, which saves a multiplication.
template <int order, bool monic = false, bool late = many_registers>
class LaneFilter {
 public:
  TORCH_IIR_INLINE LaneFilter(const double* b, const double* a, const double* z, int at)
      : b0_(load_doubles(b + at)), before_{} {
#pragma GCC unroll 32
    for (int k = 0; k < order; ++k) {
      a_[k] = load_doubles(a + (k + 1) * lanes + at);
      c_[k] = load_doubles(b + (k + 1) * lanes + at) - a_[k] * b0_;
      r_[k] = load_doubles(z + k * lanes + at);
    }
  }
  TORCH_IIR_INLINE Doubles step(Doubles x) {
    if constexpr (order == 0) {
      return b0_ * x;
    } else {
      const Doubles head = r_[0], y = monic ? x + head : b0_ * x + head;
      // The product with the past is the one that is fused with the subtraction: written so, and in this order.
      if constexpr (late) {
#pragma GCC unroll 32
        for (int k = 0; k + 1 < order; ++k) {
          const Doubles drive = r_[k + 1] + c_[k] * x;
          r_[k] = drive - a_[k + 1] * before_;
        }
        // Not left to the compiler: in an unrolled loop it would merge this product with the next sample's sum, and the
        // bits would depend on how the samples lie in memory.
        r_[order - 1] = rounded_product(c_[order - 1], x);
        const Doubles back = a_[0] * head;
        r_[0] -= back;
        before_ = head;
      } else {
#pragma GCC unroll 32
        for (int k = 0; k < order; ++k) {
          const Doubles back = a_[k] * head;
          const Doubles drive = k + 1 < order ? r_[k + 1] + c_[k] * x : c_[k] * x;
          r_[k] = drive - back;
        }
      }
      return y;
    }
  }
  TORCH_IIR_INLINE void finish(double* z, int at) const {
#pragma GCC unroll 32
    for (int k = 0; k < order; ++k) store_doubles(z + k * lanes + at, late && k > 0 ? r_[k] - a_[k] * before_ : r_[k]);
  }

 private:
  static constexpr int states = order > 0 ? order : 1;
  Doubles b0_, a_[states], c_[states], r_[states], before_;  // r_[0] is z1
};

// The filter in every lane.
template <int order, bool monic = false, bool late = many_registers>
class TileFilter {
 public:
  TORCH_IIR_INLINE TileFilter(const double* b, const double* a, const double* z)
      : low_(b, a, z, 0), high_(b, a, z, width) {}
  TORCH_IIR_INLINE Pair step(Pair x) { return {low_.step(x.low), high_.step(x.high)}; }
  TORCH_IIR_INLINE void finish(double* z) const {
    low_.finish(z, 0);
    high_.finish(z, width);
  }

 private:
  LaneFilter<order, monic, late> low_, high_;
};

// Where the lanes take their samples from: each from a lane of its own, or all of them the same.
template <class T>
struct OfTile {
  const T* tile;
  TORCH_IIR_INLINE Doubles at(int t, int lane) const { return load_doubles(tile + t * lanes + lane); }
  TORCH_IIR_INLINE Pair pair(int t) const { return load_pair(tile + t * lanes); }
  TORCH_IIR_INLINE OfTile from(int t) const { return {tile + t * lanes}; }
};
template <class T>
struct OfReversedTile {
  const T* tile;
  int count;
  TORCH_IIR_INLINE Doubles at(int t, int lane) const { return load_doubles(tile + (count - 1 - t) * lanes + lane); }
};
struct Shared {
  const double* samples;
  TORCH_IIR_INLINE Doubles at(int t, int) const { return everywhere(samples[t]); }
  TORCH_IIR_INLINE Pair pair(int t) const { return {at(t, 0), at(t, 0)}; }
  TORCH_IIR_INLINE Shared from(int t) const { return {samples + t}; }
};

template <int order, bool late, class Source>
[[gnu::noinline]] void filter_into(double* tile, Source x, int count, const double* b, const double* a, double* z) {
  TileFilter<order, false, late> filter(b, a, z);
  for (int t = 0; t < count; ++t) store_pair(tile + t * lanes, filter.step(x.pair(t)));
  filter.finish(z);
}

// Filters `count` samples of x and stores the result. It goes through a tile of doubles where there are no registers
// for filtering and transposing at the same time, and where halves are stored: the conversion is what takes their time,
// and the compiler sees the recurrences once for all of them. Where it does not, beside(t) is called with sample t.
template <int order, int ahead = 0, bool late = many_registers, class Sample, class Source, class Beside = Nothing>
void filter_tile(Sample* const (&rows)[lanes], int used, std::int64_t step, Source x, int count, const double* b,
                 const double* a, double* z, Beside beside = {}) {
  if constexpr (plain<Sample> && many_registers) {
    TileFilter<order, false, late> filter(b, a, z);
    store_rows<false, ahead>(rows, used, step, count, [&](int t) TORCH_IIR_INLINE_LAMBDA {
      beside(t);
      return filter.step(x.pair(t));
    });
    filter.finish(z);
  } else {
    constexpr int most = 64;
    alignas(64) double tile[most * lanes];
    for (int t = 0; t < count; t += most) {
      const int now = count - t < most ? count - t : most;
      Sample* to[lanes];
      for (int lane = 0; lane < lanes; ++lane) to[lane] = rows[lane] + t * step;
      filter_into<order, late>(tile, x.from(t), now, b, a, z);
      store_rows<false, ahead>(to, used, step, now,
                               [&](int i) TORCH_IIR_INLINE_LAMBDA { return load_pair(tile + i * lanes); });
    }
  }
}

// Filters the tile in its place, a half of the lanes after the other; beside(t, half) is called with each sample.
template <int order, class T, class Beside>
[[gnu::noinline]] void filter_in_place(T* tile, int count, const double* b, const double* a, double* z, Beside beside) {
  for (int at = 0; at < lanes; at += width) {
    LaneFilter<order, false, false> filter(b, a, z, at);
#pragma GCC unroll 1
    for (int t = 0; t < count; ++t) {
      beside(t, at / width);
      T* const now = tile + t * lanes + at;
      store_doubles(now, filter.step(load_doubles(now)));
    }
    filter.finish(z, at);
  }
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
  template <class T, class In, class Out>
  TORCH_IIR_INLINE Doubles step(int i, const T* g, In x, Out y) {
    Doubles now = load_doubles(g + i * lanes + at_);
#pragma GCC unroll 8
    for (int k = order - 1; k >= 0; --k) now -= a_[k] * v_[k];
    Doubles out = b_[0] * now;
#pragma GCC unroll 8
    for (int k = order - 1; k >= 0; --k) out += b_[k + 1] * v_[k];
    if constexpr (correlate) {
      const Doubles in = x.at(i, at_);
      gb_[0] += in * now;
#pragma GCC unroll 8
      for (int k = 0; k < order; ++k) gb_[k + 1] += in * v_[k];
      if constexpr (order > 0) {
        const Doubles past = y.at(i, at_);
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

// Backward through `count` samples in reverse, from g to the gradient of the input in its place. A half of the lanes
// after the other, and not transposed on the way: there are not registers enough for more.
template <int order, bool correlate, class T, class In, class Out>
[[gnu::noinline]] void backward_in_place(T* g, In x, Out y, int count, const double* b, const double* a, double* v,
                                         double* gb, double* ga) {
  for (int at = 0; at < lanes; at += width) {
    LaneBackward<order, correlate> half(b, a, v, at);
    for (int i = 0; i < count; ++i) store_doubles(g + i * lanes + at, half.step(i, g, x, y));
    half.finish(v, gb, ga);
  }
}

// The same; put(produce) is called once, and takes the gradients of the input of one row after the other from
// produce(0), produce(1), …; g may be overwritten. `unrounded` says that they are wanted as computed: to be added up.
// `once`: as for halves above, g being in double.
template <int order, bool correlate, bool once = false, class T, class In, class Out, class Put>
void backward_tile(T* g, In x, Out y, int count, const double* b, const double* a, double* v, double* gb, double* ga,
                   bool unrounded, Put put) {
  static_assert(!once || std::is_same_v<T, double>);
  if constexpr (!once) {
    if (unrounded) {
      LaneBackward<order, correlate> low(b, a, v, 0), high(b, a, v, width);
      put([&](int i) TORCH_IIR_INLINE_LAMBDA { return Pair{low.step(i, g, x, y), high.step(i, g, x, y)}; });
      low.finish(v, gb, ga);
      high.finish(v, gb, ga);
      return;
    }
  }
  backward_in_place<order, correlate>(g, x, y, count, b, a, v, gb, ga);
  put([&](int i) TORCH_IIR_INLINE_LAMBDA { return load_pair(g + i * lanes); });
}

// The input gradients of `count` samples in reverse, produce(0), produce(1), …: added up over the lanes into `sums`, or
// stored in `rows`, or neither where both are null. What lanes beyond `used` add must be 0.
template <int ahead, class Sample, class Produce>
TORCH_IIR_INLINE void put_gradient(Sample* const (&rows)[lanes], int used, std::int64_t step, int count, double* sums,
                                   Produce produce) {
  if (sums == nullptr && rows[0] != nullptr) return store_rows<true, -ahead>(rows, used, step, count, produce);
  int i = 0;
  for (; i + width <= count; i += width) {
    Doubles totals[width];
#pragma GCC unroll 8
    for (int k = 0; k < width; ++k) {  // the last in time first
      const Pair value = produce(i + k);
      totals[width - 1 - k] = value.low + value.high;
    }
    if (sums == nullptr) continue;
    double* to = sums + count - width - i;
    store_doubles(to, load_doubles(to) + sums_of(totals));
  }
  for (; i < count; ++i) {
    const Pair value = produce(i);
    if (sums != nullptr) sums[count - 1 - i] += sum(value.low + value.high);
  }
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
