// The recurrence in SIMD lanes: each lane a row, or a segment of one row.
//
// Tiles hold the drive, [i][lane], and the coefficients, [i][k][lane]: both are transposed in registers on the way in.
// Backwards, i counts from the end, and the coefficients of a sample lie the other way round, since whole tiles are
// loaded in reverse.
//
// Segments: the state after a segment is H z + d, with z the state before it, d what the drive leaves in a filter at
// rest and the columns of H what is left of each unit state: order + 1 recurrences, side by side. A scan over the lanes
// gives every segment its entry state, from which the recurrence runs. Forwards the state is the past outputs, the
// newest first; backwards it is what is pending at the times to come.
#pragma once

#include "lfilter_tv_blocks.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

inline constexpr int lane_order = 16;    // largest order of rows in lanes
inline constexpr int segment_order = 2;  // largest order of segments

// Where the coefficient of lag k stands among those of a sample, `length` of them, whose first lag is order + 1 −
// length.
template <bool reversed>
TORCH_IIR_INLINE constexpr int place(int k, int length, int order) {
  return reversed ? order - k : k - (order + 1 - length);
}

// The recurrence in `width` lanes, with the state in registers. Forwards it takes the drive and gives y, backwards the
// gradient of y and v. With `divided`, the coefficients begin with a[0], whose inverse is given.
template <int order, bool reversed, bool divided>
struct LaneState {
  static constexpr int length = order + divided;
  Doubles z[order];

  template <class T>
  TORCH_IIR_INLINE Doubles step(Doubles in, const T* taps, Doubles inverse = Doubles{}) {
    const auto a = [&](int k) { return load_doubles(taps + place<reversed>(k, length, order) * lanes); };
    Doubles out = in;
    if constexpr (reversed) {
      out += z[0];
      if constexpr (divided) out *= inverse;
#pragma GCC unroll 2
      for (int k = 1; k < order; ++k) z[k - 1] = z[k] - a(k) * out;
      z[order - 1] = -(a(order) * out);
    } else {
#pragma GCC unroll 2
      for (int k = order; k >= 1; --k) out -= a(k) * z[k - 1];
      if constexpr (divided) out *= inverse;
#pragma GCC unroll 2
      for (int k = order - 1; k >= 1; --k) z[k] = z[k - 1];
      z[0] = out;
    }
    return out;
  }
};

// inverse[i][lane] = 1/a[0]; `taps` points to the first a[0]. False if one of them is 0.
template <class T>
bool invert_first(const T* taps, int length, int count, double* inverse) {
  Doubles zero{};
  for (int i = 0; i < count; ++i) {
    for (int lane = 0; lane < lanes; lane += width) {
      const Doubles a0 = load_doubles(taps + i * length * lanes + lane);
      zero = a0 == 0 ? everywhere(1) : zero;
      store_doubles(inverse + i * lanes + lane, 1 / a0);
    }
  }
  return sum(zero) == 0;
}

// The tiles of a stretch of `count` samples in all lanes, and how to run through them. T is float where drive and
// coefficients are.
template <int order, bool reversed, bool divided, class T>
struct LaneTile {
  using State = LaneState<order, reversed, divided>;
  static constexpr int length = order + divided, states = order;

  T* drive;         // [count][lanes]
  T* taps;          // [count][length][lanes]
  double* inverse;  // [count][lanes]
  int count;

  TORCH_IIR_INLINE Doubles step(State& state, int i, int lane, Doubles in) const {
    const T* row = taps + i * length * lanes + lane;
    if constexpr (divided) {
      return state.step(in, row, load_doubles(inverse + i * lanes + lane));
    } else {
      return state.step(in, row);
    }
  }
  TORCH_IIR_INLINE Doubles input(int i, int lane) const { return load_doubles(drive + i * lanes + lane); }

  bool invert() const {
    return !divided || invert_first(taps + place<reversed>(0, length, order) * lanes, length, count, inverse);
  }

  // From the states [order][lanes], which move to the end; put(produce) takes the outputs.
  template <class Put>
  void run(double* states, Put put) const {
    State low, high;
#pragma GCC unroll 2
    for (int k = 0; k < order; ++k) {
      low.z[k] = load_doubles(states + k * lanes);
      high.z[k] = load_doubles(states + k * lanes + width);
    }
    put([&](int i) { return Pair{step(low, i, 0, input(i, 0)), step(high, i, width, input(i, width))}; });
#pragma GCC unroll 2
    for (int k = 0; k < order; ++k) store_pair(states + k * lanes, {low.z[k], high.z[k]});
  }

  // ends[j][lane]: the state that the drive leaves at rest; powers[i][j][lane]: H.
  void respond(double* ends, double* powers) const {
    for (int lane = 0; lane < lanes; lane += width) {
      State driven, unit[order];
#pragma GCC unroll 2
      for (int j = 0; j < order; ++j) {
        driven.z[j] = Doubles{};
#pragma GCC unroll 2
        for (int i = 0; i < order; ++i) unit[j].z[i] = everywhere(i == j ? 1.0 : 0.0);
      }
      for (int i = 0; i < count; ++i) {
        step(driven, i, lane, input(i, lane));
#pragma GCC unroll 2
        for (int j = 0; j < order; ++j) step(unit[j], i, lane, Doubles{});
      }
#pragma GCC unroll 2
      for (int i = 0; i < order; ++i) {
        store_doubles(ends + i * lanes + lane, driven.z[i]);
#pragma GCC unroll 2
        for (int j = 0; j < order; ++j) store_doubles(powers + (i * order + j) * lanes + lane, unit[j].z[i]);
      }
    }
  }
};

// entry[i][lane] = the state with which lane begins, from `state` before the first; that moves behind the last.
template <int order>
void scan_lanes(const double* ends, const double* powers, double* state, double* entry) {
  for (int lane = 0; lane < lanes; ++lane) {
    double after[order];
#pragma GCC unroll 2
    for (int i = 0; i < order; ++i) {
      after[i] = ends[i * lanes + lane];
      for (int j = 0; j < order; ++j) after[i] += powers[(i * order + j) * lanes + lane] * state[j];
    }
    for (int i = 0; i < order; ++i) {
      entry[i * lanes + lane] = state[i];
      state[i] = after[i];
    }
  }
}

// What runs from the entry states end in, against the entry states of the lanes that follow: carried on in the same
// way, the differences correct them. Where the columns of H are large and cancel, what the scan lost comes back, and
// the outputs are as exact as those of one run.
template <int order>
void correct_lanes(const double* reached, const double* powers, double* state, double* entry) {
  double correction[order] = {};
  for (int lane = 0; lane < lanes; ++lane) {
    double after[order];
    for (int i = 0; i < order; ++i) {
      after[i] = reached[i * lanes + lane] - (lane + 1 < lanes ? entry[i * lanes + lane + 1] : state[i]);
      for (int j = 0; j < order; ++j) after[i] += powers[(i * order + j) * lanes + lane] * correction[j];
    }
    for (int i = 0; i < order; ++i) {
      entry[i * lanes + lane] += correction[i];
      correction[i] = after[i];
    }
  }
  for (int i = 0; i < order; ++i) state[i] += correction[i];
}

// entry[i][lane] = the state with which each lane begins, from `state` before the first, which moves behind the last.
// `exactly`: what the scan lost is made up for. False, with nothing moved, where a state is not finite.
template <bool exactly, class LaneTile>
bool enter_lanes(const LaneTile& tile, double* state, double* entry) {
  constexpr int order = LaneTile::states;
  alignas(64) double ends[order * lanes], powers[order * order * lanes];
  double last[order];
  for (int k = 0; k < order; ++k) last[k] = state[k];
  tile.respond(ends, powers);
  scan_lanes<order>(ends, powers, last, entry);
  if constexpr (exactly) {
    alignas(64) double reached[order * lanes];
    std::memcpy(reached, entry, sizeof(reached));
    tile.run(reached, [&](auto produce) {
      for (int i = 0; i < tile.count; ++i) produce(i);
    });
    correct_lanes<order>(reached, powers, last, entry);
  }
  Doubles probe{};
  for (int i = 0; i < order * lanes; i += width) probe += load_doubles(entry + i) * 0;
  double rest = sum(probe);
  for (const double value : last) rest += value * 0;
  if (rest != 0) return false;  // also where it is not a number
  for (int k = 0; k < order; ++k) state[k] = last[k];
  return true;
}

// Rows of any order up to lane_order, whose outputs and pending values stand in memory.

// past[i][lane] = y, from the first sample on; in front of it stand `order` rows of the past, the newest last.
template <class T>
void recur_in_lanes(const T* drive, const T* taps, const double* inverse, int count, int order, double* past) {
  const int length = order + (inverse != nullptr);
  const T* row = taps + place<false>(1, length, order) * lanes;
  for (int i = 0; i < count; ++i, row += length * lanes) {
    for (int lane = 0; lane < lanes; lane += width) {
      double* y = past + i * lanes + lane;
      Doubles total = load_doubles(drive + i * lanes + lane);
      for (int k = order; k >= 1; --k)
        total -= load_doubles(row + (k - 1) * lanes + lane) * load_doubles(y - k * lanes);
      if (inverse != nullptr) total *= load_doubles(inverse + i * lanes + lane);
      store_doubles(y, total);
    }
  }
}

// pending[i][lane] becomes the v of sample i; behind them, what is left to the times before.
template <class T>
void adjoint_in_lanes(const T* g, const T* taps, const double* inverse, int count, int order, double* pending) {
  const int length = order + (inverse != nullptr);
  const T* row = taps + place<true>(1, length, order) * lanes;
  for (int i = 0; i < count; ++i, row += length * lanes) {
    for (int lane = 0; lane < lanes; lane += width) {
      double* to = pending + i * lanes + lane;
      Doubles v = load_doubles(g + i * lanes + lane) + load_doubles(to);
      if (inverse != nullptr) v *= load_doubles(inverse + i * lanes + lane);
      store_doubles(to, v);
      for (int k = 1; k <= order; ++k) {
        store_doubles(to + k * lanes, load_doubles(to + k * lanes) - load_doubles(row - (k - 1) * lanes + lane) * v);
      }
    }
  }
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
