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
// gradient of y and v. With `divided`, the coefficients begin with a[0], whose inverse is given. From one output to the
// next the chain is a single multiply-add (and the division).
template <int order, bool reversed, bool divided>
class LaneState {
 public:
  static constexpr int length = order + divided;

  // z(k) is number k of the state.
  template <class Z>
  TORCH_IIR_INLINE explicit LaneState(Z z) {
    if constexpr (reversed) v_ = everywhere(-1);
#pragma GCC unroll 2
    for (int k = 0; k < order; ++k) {
      z_[k] = reversed ? Doubles{} : z(k);
      if constexpr (reversed) a_[k] = z(k);
    }
  }
  // The state whose number j is 1; at rest for j = order. All of them begin with the same coefficients, so that they
  // share registers.
  TORCH_IIR_INLINE static LaneState unit(int j) {
    LaneState state([](int) { return Doubles{}; });
    if constexpr (reversed) state.v_ = everywhere(j == order - 1 ? -1 : 0);
#pragma GCC unroll 2
    for (int k = 0; k < order; ++k) {
      const bool last = reversed && k == order - 1;
      state.z_[k] = everywhere(k == j && !last ? 1 : 0);
      if constexpr (reversed) state.a_[k] = everywhere(last ? 1 : 0);
    }
    return state;
  }
  TORCH_IIR_INLINE Doubles z(int k) const {
    if constexpr (reversed) return z_[k] - a_[k] * v_;
    return z_[k];
  }

  // `in` is Doubles, or Nothing.
  template <class In, class T>
  TORCH_IIR_INLINE Doubles step(In in, const T* taps, Doubles inverse = Doubles{}) {
    constexpr bool driven = std::is_same_v<In, Doubles>;
    const auto a = [&](int k) TORCH_IIR_INLINE_LAMBDA {
      return load_doubles(taps + place<reversed>(k, length, order) * lanes);
    };
    Doubles out{};
    if constexpr (driven) out = in;
    if constexpr (reversed) {
      if constexpr (order > 1) out = driven ? out + z_[0] : z_[0];
      out -= a_[0] * v_;
#pragma GCC unroll 2
      for (int k = 1; k < order; ++k) z_[k - 1] = z_[k] - a_[k] * v_;
      if constexpr (divided) out *= inverse;
      v_ = out;
#pragma GCC unroll 2
      for (int k = 0; k < order; ++k) a_[k] = kept(a(k + 1));
    } else {
#pragma GCC unroll 2
      for (int k = order; k >= 1; --k) out -= a(k) * z_[k - 1];
      if constexpr (divided) out *= inverse;
#pragma GCC unroll 2
      for (int k = order - 1; k >= 1; --k) z_[k] = z_[k - 1];
      z_[0] = out;
    }
    return out;
  }

 private:
  // Forwards the past outputs. Backwards what is pending but for the products of the last v with its coefficients,
  // which are still to be subtracted; the last of z_ is 0 then.
  Doubles z_[order];
  Doubles v_, a_[order];
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

  template <class In>
  TORCH_IIR_INLINE Doubles step(State& state, int i, int lane, In in) const {
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
    State low([&](int k) TORCH_IIR_INLINE_LAMBDA { return load_doubles(states + k * lanes); });
    State high([&](int k) TORCH_IIR_INLINE_LAMBDA { return load_doubles(states + k * lanes + width); });
    put([&](int i) TORCH_IIR_INLINE_LAMBDA {
      return Pair{step(low, i, 0, input(i, 0)), step(high, i, width, input(i, width))};
    });
#pragma GCC unroll 2
    for (int k = 0; k < order; ++k) store_pair(states + k * lanes, {low.z(k), high.z(k)});
  }

  static constexpr int lanes_at_once = vector_bytes == 64 ? lanes : width;  // with 32 registers, and with 16

  // ends[j][lane]: the state that the drive leaves at rest; powers[i][j][lane]: H. meanwhile() is called `count` times
  // for every lanes_at_once lanes.
  template <class Meanwhile>
  void respond(double* ends, double* powers, Meanwhile meanwhile) const {
    if constexpr (lanes_at_once == lanes) {
      Response low(*this, 0), high(*this, width);
      for (int i = 0; i < count; ++i) {
        low.step(i);
        high.step(i);
        meanwhile();
      }
      low.finish(ends, powers);
      high.finish(ends, powers);
    } else {
      for (int lane = 0; lane < lanes; lane += width) {
        Response response(*this, lane);
        for (int i = 0; i < count; ++i) {
          response.step(i);
          meanwhile();
        }
        response.finish(ends, powers);
      }
    }
  }

 private:
  class Response {
   public:
    TORCH_IIR_INLINE Response(const LaneTile& tile, int lane)
        : tile_(tile), lane_(lane), driven_(State::unit(order)), first_(State::unit(0)), second_(State::unit(1)) {}
    TORCH_IIR_INLINE void step(int i) {
      tile_.step(driven_, i, lane_, tile_.input(i, lane_));
      tile_.step(first_, i, lane_, Nothing{});
      if constexpr (order == 2) tile_.step(second_, i, lane_, Nothing{});
    }
    TORCH_IIR_INLINE void finish(double* ends, double* powers) const {
#pragma GCC unroll 2
      for (int i = 0; i < order; ++i) {
        store_doubles(ends + i * lanes + lane_, driven_.z(i));
        store_doubles(powers + i * order * lanes + lane_, first_.z(i));
        if constexpr (order == 2) store_doubles(powers + (i * order + 1) * lanes + lane_, second_.z(i));
      }
    }

   private:
    const LaneTile& tile_;
    int lane_;
    State driven_, first_, second_;
  };
};

// entry[i][lane] = the state with which lane begins, from `state` before the first; that moves behind the last.
template <int order>
void scan_lanes(const double* ends, const double* powers, double* state, double* entry) {
  double now[order];  // in registers: a state that may lie in `entry`, for all the compiler knows, would not
#pragma GCC unroll 2
  for (int i = 0; i < order; ++i) now[i] = state[i];
  for (int lane = 0; lane < lanes; ++lane) {
    double after[order];
#pragma GCC unroll 2
    for (int i = 0; i < order; ++i) {
      after[i] = ends[i * lanes + lane];
#pragma GCC unroll 2
      for (int j = 0; j < order; ++j) after[i] += powers[(i * order + j) * lanes + lane] * now[j];
    }
#pragma GCC unroll 2
    for (int i = 0; i < order; ++i) {
      entry[i * lanes + lane] = now[i];
      now[i] = after[i];
    }
  }
#pragma GCC unroll 2
  for (int i = 0; i < order; ++i) state[i] = now[i];
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
// `exactly`: what the scan lost is made up for. False, with nothing moved, where a state is not finite. meanwhile() as
// in LaneTile::respond.
template <bool exactly, class LaneTile, class Meanwhile>
bool enter_lanes(const LaneTile& tile, double* state, double* entry, Meanwhile meanwhile) {
  constexpr int order = LaneTile::states;
  alignas(64) double ends[order * lanes], powers[order * order * lanes];
  double last[order];
  for (int k = 0; k < order; ++k) last[k] = state[k];
  tile.respond(ends, powers, meanwhile);
  scan_lanes<order>(ends, powers, last, entry);
  if constexpr (exactly) {
    alignas(64) double reached[order * lanes];
    std::memcpy(reached, entry, sizeof(reached));
    tile.run(reached, [&](auto produce) {
      for (int i = 0; i < tile.count; ++i) produce(i);
    });
    correct_lanes<order>(reached, powers, last, entry);
  }
  if (!finite(entry, order * lanes) || !finite(last, order)) return false;
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
