// States that travel: from thread to thread of a tile, from tile to tile of a row.
//
// A linear recurrence whose coefficients stay the same makes of a state e, over so many samples, M e + s, where s is
// the state that the samples leave behind from rest and M = A^samples is known beforehand. A tile is threads × K
// consecutive samples, K of them a thread's own. Each thread runs over its samples from rest and has s; the states s
// are combined here to the state that each thread really begins with; then it runs again, from that.
//
//   in a warp           Kogge-Stone: after step j, a lane's state takes in those of 2^j lanes, by A^(K 2^j)
//   in a tile           warp after warp, by A^(32 K)
//   in a row            how depends on the form of the kernel: RowCarry, ClusterCarry, LookBack below
//
// Everything is in double, and in an order that depends on indices alone. A state that is not finite makes all later
// ones so, and none before it. Where a power of A is not finite, build() says so, and the row must be filtered one
// sample after another: 1.1^8192 · 0 is not what the recurrence gives.
#pragma once

#include <cstdint>

#include "simt.h"

namespace torch_iir::cuda {

template <int N>
struct Vector {
  double v[N];

  TORCH_IIR_HOST_DEVICE double& operator[](int i) { return v[i]; }
  TORCH_IIR_HOST_DEVICE double operator[](int i) const { return v[i]; }
};

template <int N>
TORCH_IIR_GPU Vector<N> zero_vector() {
  Vector<N> result;
  TORCH_IIR_UNROLL
  for (int i = 0; i < N; ++i) result[i] = 0;
  return result;
}

// Row-major.
template <int N>
struct Matrix {
  double m[N][N];
};

// M e + s
template <int N>
TORCH_IIR_GPU Vector<N> carried(const Matrix<N>& matrix, const Vector<N>& e, const Vector<N>& s) {
  Vector<N> result = s;
  TORCH_IIR_UNROLL
  for (int j = 0; j < N; ++j) {
    TORCH_IIR_UNROLL
    for (int i = 0; i < N; ++i) result[i] = fma(matrix.m[i][j], e[j], result[i]);
  }
  return result;
}

template <int N>
TORCH_IIR_GPU Vector<N> shuffle_up(const Vector<N>& value, int by) {
  Vector<N> result;
  TORCH_IIR_UNROLL
  for (int i = 0; i < N; ++i) result[i] = shuffle_up(value[i], by);
  return result;
}
template <int N>
TORCH_IIR_GPU Vector<N> shuffle(const Vector<N>& value, int from) {
  Vector<N> result;
  TORCH_IIR_UNROLL
  for (int i = 0; i < N; ++i) result[i] = shuffle(value[i], from);
  return result;
}

inline constexpr int lane_steps = 5;    // 2^5 lanes
inline constexpr int look_steps = 8;    // 2^8 tiles of a group, see LookBack
inline constexpr int look_own = 8;      // tiles that one lane looks back at
inline constexpr int look_group = 256;  // look_own × 32

// high + low: a matrix in twice the precision of a double. Each squaring doubles the relative error of a power and adds
// its own, which the powers' growth multiplies where A is far from normal: with double alone, a state of a filter of
// 20 Hz, Q 10 loses 9 of its 16 digits on its way through a tile, and with this none that the recurrence has.
template <int N>
struct Precise {
  Matrix<N> high, low;
};

// Entry i, j of the square.
template <int N>
TORCH_IIR_GPU void put_squared(Precise<N>& to, const Precise<N>& from, int i, int j) {
  double sum = 0, rest = 0;
  TORCH_IIR_UNROLL
  for (int k = 0; k < N; ++k) {
    const double a = from.high.m[i][k], b = from.high.m[k][j];
    const double product = fma(a, b, 0.0), next = sum + product, added = next - sum;  // by fma: never part of another
    rest += ((sum - (next - added)) + (product - added)) + fma(a, b, -product) +
            fma(a, from.low.m[k][j], from.low.m[i][k] * b);
    sum = next;
  }
  const double high = sum + rest;
  to.high.m[i][j] = high;
  to.low.m[i][j] = rest - (high - sum);
}

// The powers of A that a tile of `warps` warps needs, in shared memory.
template <int N>
struct Powers {
  Matrix<N> lanes[lane_steps + 1];  // A^(K 2^j); the last is that of a warp
  Matrix<N> tile;                   // A^(tile)
  Matrix<N> look[look_steps + 1];   // A^(tile 2^j), only where build() is told to; the last is that of a group
  Precise<N> now[2];                // while they are built
};

// Fills the powers from powers.tile, in which the caller has put A and then called sync(). K and the warps of the block
// are powers of two. False if one is not finite. The whole block calls it.
template <int N>
TORCH_IIR_GPU bool build(Powers<N>& powers, int K, bool looks_back) {
  // A^(2^square) for one square after another; the powers wanted are among them.
  int of_lanes = 0;
  for (int k = K; k > 1; k /= 2) ++of_lanes;
  const int of_warp = of_lanes + lane_steps;
  int of_tile = of_warp;
  for (int warps = threads() / warp_size; warps > 1; warps /= 2) ++of_tile;
  const int last = looks_back ? of_tile + look_steps : of_tile;
  for (int entry = thread(); entry < N * N; entry += threads()) {
    const int i = entry / N, j = entry % N;
    powers.now[0].high.m[i][j] = powers.tile.m[i][j];
    powers.now[0].low.m[i][j] = 0;
  }
  sync();
  bool overflow = false;
  TORCH_IIR_NO_UNROLL
  for (int square = 0; square <= last; ++square) {
    const Precise<N>& now = powers.now[square % 2];
    for (int entry = thread(); entry < N * N; entry += threads()) {
      const int i = entry / N, j = entry % N;
      const double value = now.high.m[i][j];
      overflow |= !isfinite(value);
      if (square >= of_lanes && square <= of_warp) powers.lanes[square - of_lanes].m[i][j] = value;
      if (square == of_tile) powers.tile.m[i][j] = value;
      if (square >= of_tile) powers.look[square - of_tile].m[i][j] = value;
      if (square < last) put_squared(powers.now[(square + 1) % 2], now, i, j);
    }
    sync();
  }
  return !sync_any(overflow);
}

// What the warps of a tile leave for each other in shared memory. One for tile after tile, as the barriers stand.
template <int N, int warps>
struct WarpStates {
  Vector<N> total[warps];
};

// Of each lane the state at the end of its samples, had its warp begun at rest. `s`: had the lane.
template <int N>
TORCH_IIR_GPU Vector<N> scan_warp(const Powers<N>& powers, Vector<N> s) {
  TORCH_IIR_UNROLL
  for (int j = 0; j < lane_steps; ++j) {
    const Vector<N> before = shuffle_up(s, 1 << j);
    if (lane() >= 1 << j) s = carried(powers.lanes[j], before, s);
  }
  return s;
}

// The state that a thread begins with, where its warp begins with `entry`; `scanned` comes from scan_warp.
template <int N>
TORCH_IIR_GPU Vector<N> enter_thread(const Powers<N>& powers, const Vector<N>& scanned, Vector<N> entry) {
  TORCH_IIR_UNROLL
  for (int j = 0; j < lane_steps; ++j) {
    if ((lane() >> j & 1) != 0) entry = carried(powers.lanes[j], entry, zero_vector<N>());
  }
  const Vector<N> before = shuffle_up(scanned, 1);
  if (lane() > 0) {
    TORCH_IIR_UNROLL
    for (int i = 0; i < N; ++i) entry[i] += before[i];
  }
  return entry;
}

// The state after so many warps of a tile that begins with `entry`.
template <int N, int warps>
TORCH_IIR_GPU Vector<N> after_warps(const Powers<N>& powers, const WarpStates<N, warps>& states, int count,
                                    Vector<N> entry) {
  for (int w = 0; w < count; ++w) entry = carried(powers.lanes[lane_steps], entry, states.total[w]);
  return entry;
}

// --- from tile to tile. Each form has enter(total): what the tile leaves behind from rest goes in, the state that it
// begins with comes out, to all threads; `state` is what the next tile of this block begins with, where it follows.

// One block has all tiles of a row, one after another.
template <int N>
struct RowCarry {
  Vector<N> state;

  TORCH_IIR_GPU Vector<N> enter(const Powers<N>& powers, const Vector<N>& total) {
    const Vector<N> entry = state;
    state = carried(powers.tile, entry, total);
    return entry;
  }
};

// The blocks of a cluster have as many tiles of a row at a time, in the order of their ranks.
template <int N>
struct ClusterCarry {
  struct Shared {
    Vector<N> total[2];  // of the tile now, and of the one before, which others may still read
  };
  Shared* shared;
  int size;
  int turn;
  Vector<N> state;  // at the beginning of the first tile of the cluster's

  TORCH_IIR_GPU Vector<N> enter(const Powers<N>& powers, const Vector<N>& total) {
    if (thread() == 0) shared->total[turn] = total;
    cluster_sync();
    Vector<N> entry = state;
    for (int rank = 0; rank < size; ++rank) {
      if (rank == cluster_rank()) entry = state;
      state = carried(powers.tile, state, in_cluster(shared, rank)->total[turn]);
    }
    turn ^= 1;
    return entry;
  }
  // Before the end of the kernel: nobody reads from a block that is gone.
  TORCH_IIR_GPU void leave() { cluster_sync(); }
};

// A number that another block says.
TORCH_IIR_GPU double await(const Word* word) {
  double value;
  std::uint64_t flag;
  for (load_word(word, value, flag); flag == 0; load_word(word, value, flag)) pause();
  return value;
}

// Any block has any tile: each says what its tile leaves behind from rest, and looks back at what others have said.
// Groups of look_group tiles: the last tile of a group says what the row's state is behind it, so that nobody looks
// further back than the beginning of its own group, and what is added up to what depends on the tile alone. A number
// and its flag are one word: nothing else has to be ordered, no fence is needed. The words begin as zeros. No tile
// waits for one of a higher number, and tiles are handed out in their order: some block can always go on.
template <int N>
struct LookBack {
  Word* totals;     // tiles × N of this row
  Word* behind;     // groups × N of this row
  Vector<N> first;  // the state that the row begins with
  std::int64_t tile;

  // `entry` is a place in shared memory.
  TORCH_IIR_GPU Vector<N> enter(const Powers<N>& powers, const Vector<N>& total, Vector<N>* entry) {
    const std::int64_t group = tile / look_group;
    const int before = static_cast<int>(tile % look_group);  // tiles of the group before this one
    if (warp() == 0) {
      if (lane() < N) {
        double own = total[0];
        TORCH_IIR_UNROLL
        for (int i = 1; i < N; ++i) {
          if (lane() == i) own = total[i];
        }
        store_word(totals + tile * N + lane(), own, 1);
      }
      // Lane l takes the look_own tiles from l · look_own on, as many of them as lie before this tile …
      Vector<N> sum = zero_vector<N>();
      for (int k = 0; k < look_own; ++k) {
        const int other = lane() * look_own + k;
        if (other >= before) break;
        Vector<N> theirs;
        TORCH_IIR_UNROLL
        for (int i = 0; i < N; ++i) theirs[i] = await(totals + (group * look_group + other) * N + i);
        sum = carried(powers.look[0], sum, theirs);
      }
      // … the lane in which this tile lies has the state behind the last of them; the whole lanes before it are
      // scanned.
      const int last = before / look_own, own = before % look_own;
      sync_warp();
      Vector<N> scanned = sum;
      TORCH_IIR_UNROLL
      for (int j = 0; j < lane_steps; ++j) {
        const Vector<N> others = shuffle_up(scanned, 1 << j);
        if (lane() >= 1 << j) scanned = carried(powers.look[3 + j], others, scanned);
      }
      const Vector<N> whole = shuffle(scanned, last > 0 ? last - 1 : 0),
                      part = shuffle(sum, last < warp_size ? last : 0);
      Vector<N> state;
      TORCH_IIR_UNROLL
      for (int i = 0; i < N; ++i) state[i] = group == 0 ? first[i] : await(behind + (group - 1) * N + i);
      // state over `last` · look_own tiles, plus what these leave; then over `own` tiles, plus what those leave.
      TORCH_IIR_UNROLL
      for (int j = 0; j < lane_steps; ++j) {
        if ((last >> j & 1) != 0) state = carried(powers.look[3 + j], state, zero_vector<N>());
      }
      if (last > 0) {
        TORCH_IIR_UNROLL
        for (int i = 0; i < N; ++i) state[i] += whole[i];
      }
      TORCH_IIR_UNROLL
      for (int j = 0; j < 3; ++j) {
        if ((own >> j & 1) != 0) state = carried(powers.look[j], state, zero_vector<N>());
      }
      if (own > 0) {
        TORCH_IIR_UNROLL
        for (int i = 0; i < N; ++i) state[i] += part[i];
      }
      if (lane() == 0) *entry = state;
      if (before == look_group - 1 && lane() == 0) {
        const Vector<N> end = carried(powers.tile, state, total);
        TORCH_IIR_UNROLL
        for (int i = 0; i < N; ++i) store_word(behind + group * N + i, end[i], 1);
      }
    }
    sync();
    const Vector<N> result = *entry;
    return result;
  }
};

}  // namespace torch_iir::cuda
