// The recurrence whose coefficients change, orders 1 and 2: tiles whose threads run over their samples twice.
//
// A thread has 8 steps. It finds the map by which its state before and after them hang together (columns: where each
// unit state ends, and where rest ends), maps are composed by a scan over the lanes, and from the state that the thread
// then begins with it runs once more. From tile to tile: a block, or the blocks of a cluster side by side, go on along
// the row; or blocks have chunks of it, say what their map is, and run once a scan over these has been made (Chunks).
//
// Samples     as stored, where samples and coefficients are floats that lie one behind the other: they come by
//             asynchronous copies while the tile before is computed. Everything else is converted on its way to shared
//             memory: a0, a1, a2 in double
// Cost        counted, not measured. Order 2 in float, forwards: 16 bytes a sample (28 in chunks), 9 + 3 multiply-adds
//             of the two runs, 17 of the scan, 10 shuffles; a multiprocessor has 1.2 samples a clock at the speed of a
//             copy, which leaves 53 multiply-adds and 106 instructions for each. In float 34 KB of shared memory and
//             128 registers, 4 blocks of a multiprocessor, else 75 KB, 3 blocks. [64, 480000]: clusters of 8, 512
//             blocks
// Precision   order 2 in differences, see there: the companion form would lose 1e-6 at 20 Hz of 44.1 kHz
// Overflow    a tile with a map that is not finite is run by one thread, one step after another
// Races       what a tile leaves in shared memory is read behind a barrier, and written again behind the one with which
//             the next tile arrives. What a cluster's blocks say alternates between two places: the next writing of one
//             comes after a barrier of the cluster to which a block comes only when it has read it
#pragma once

#include "lfilter_tv_recurrence.h"
#include "lfilter_tv_warps.h"
#include "tile.h"

namespace torch_iir::cuda {

// A state after some steps from the state before: column c is where unit state c ends, column N where rest does.
template <int N>
struct StateMap {
  Vector<N> column[N + 1];

  TORCH_IIR_GPU Vector<N> operator()(const Vector<N>& state) const {
    Vector<N> result = column[N];
    TORCH_IIR_UNROLL
    for (int c = 0; c < N; ++c) {
      TORCH_IIR_UNROLL
      for (int i = 0; i < N; ++i) result[i] = fma(column[c][i], state[c], result[i]);
    }
    return result;
  }
  // This one first, then the other.
  TORCH_IIR_GPU StateMap then(const StateMap& other) const {
    StateMap result;
    TORCH_IIR_UNROLL
    for (int c = 0; c <= N; ++c) {
      TORCH_IIR_UNROLL
      for (int i = 0; i < N; ++i) {
        double sum = c == N ? other.column[N][i] : 0;
        TORCH_IIR_UNROLL
        for (int j = 0; j < N; ++j) sum = fma(other.column[j][i], column[c][j], sum);
        result.column[c][i] = sum;
      }
    }
    return result;
  }
  TORCH_IIR_GPU StateMap from_lane_before(int by) const {
    StateMap result;
    TORCH_IIR_UNROLL
    for (int c = 0; c <= N; ++c) result.column[c] = shuffle_up(column[c], by);
    return result;
  }
  // Whether it may be applied: what rest ends in need not be finite.
  TORCH_IIR_GPU bool sound() const {
    bool result = true;
    TORCH_IIR_UNROLL
    for (int c = 0; c < N; ++c) {
      TORCH_IIR_UNROLL
      for (int i = 0; i < N; ++i) result &= isfinite(column[c][i]);
    }
    return result;
  }
  static TORCH_IIR_GPU StateMap identity() {
    StateMap result;
    TORCH_IIR_UNROLL
    for (int c = 0; c <= N; ++c) {
      TORCH_IIR_UNROLL
      for (int i = 0; i < N; ++i) result.column[c][i] = c == i ? 1 : 0;
    }
    return result;
  }
};

template <class Stored_, int N, bool backward>
struct TVTiles {
  using Stored = Stored_;
  static constexpr bool as_stored = std::is_same_v<Stored, float>;  // else in double, with a0
  static constexpr int K = 8, block_threads = 128, warps = block_threads / warp_size, tile = K * block_threads;
  static constexpr int taps = as_stored ? N : N + 1;
  // Outputs take the place of inputs, or of coefficients where they need more room than those.
  using Result = std::conditional_t<as_stored && !backward, float, double>;
  using InTile = Tile<Stored, K, block_threads>;
  using TapTile = Tile<Stored, K * taps, block_threads>;
  using OutTile = Tile<Result, K, block_threads>;
  static constexpr bool over_taps = sizeof(Result) > sizeof(Stored);
  static constexpr std::int64_t tap_bytes = over_taps ? maximum(TapTile::bytes, OutTile::bytes) : TapTile::bytes;

  struct Said {
    StateMap<N> map;
    int unsound;
  };
  struct Shared {
    alignas(16) unsigned char in[2][InTile::bytes];
    alignas(16) unsigned char taps[2][tap_bytes];
    StateMap<N> total[warps];
    Said said[2];
    Vector<N> behind;
  };

  // What a step does to a state, from the coefficients of its sample in shared memory. Of order 2 it is in differences,
  // with c = a0 + sign a1 + a2:
  //   forwards    d ← (in − sign c y + sign a2 d) / a0      y ← sign y + d
  //   backwards   v = (in + p − sign q) / a0      p ← sign (in + p − c v)      q ← −a2 v
  struct Step {
    double sign = 1, inverse = 1, first, second = 0;

    template <class Values>
    TORCH_IIR_GPU Step(const Values& tap, double sign_, bool divided) : sign(sign_) {
      const auto a = [&](int lag) { return static_cast<double>(tap[as_stored ? lag - 1 : lag]); };
      double a0 = 1;
      if (!as_stored && divided) {
        a0 = a(0);
        inverse = 1 / a0;
      }
      if constexpr (N == 1) {
        first = a(1);
      } else {
        first = fma(sign, a(1), a0) + a(2);
        second = a(2);
        if (!backward) {
          first *= sign;
          second *= sign;
        }
      }
    }
    TORCH_IIR_GPU double operator()(Vector<N>& z, double in) const {
      double v;
      if constexpr (N == 1) {
        v = (backward ? in + z[0] : fma(-first, z[0], in)) * inverse;
        z[0] = backward ? -first * v : v;
      } else if constexpr (backward) {
        const double with = in + z[0];
        v = fma(-sign, z[N - 1], with) * inverse;
        z[0] = sign * fma(-first, v, with);
        z[N - 1] = -second * v;
      } else {
        z[N - 1] = fma(second, z[N - 1], fma(-first, z[0], in)) * inverse;
        z[0] = v = fma(sign, z[0], z[N - 1]);
      }
      return v;
    }
  };

  // The same on a state that is not in differences: what is not finite then reaches what it should, and nothing else.
  template <class Values>
  static TORCH_IIR_GPU double plain_step(Vector<N>& z, double in, const Values& tap, bool divided) {
    const auto a = [&](int lag) { return static_cast<double>(tap[as_stored ? lag - 1 : lag]); };
    const double inverse = !as_stored && divided ? 1 / a(0) : 1;
    double v = backward ? in + z[0] : in;
    if (!backward) {
      TORCH_IIR_UNROLL
      for (int k = N; k >= 1; --k) v = fma(-a(k), z[k - 1], v);
    }
    v *= inverse;
    TORCH_IIR_UNROLL
    for (int k = 1; k <= N && backward; ++k) z[k - 1] = fma(-a(k), v, k < N ? z[k < N ? k : 0] : 0.0);
    TORCH_IIR_UNROLL
    for (int k = N - 1; k >= 1 && !backward; --k) z[k] = z[k - 1];
    if (!backward) z[0] = v;
    return v;
  }
};

template <class Tiles, int N, bool backward>
TORCH_IIR_GPU void fetch_tile(const Recurrence<double>& r, typename Tiles::Shared& shared, int buffer, std::int64_t row,
                              std::int64_t first, int count) {
  const typename Tiles::InTile in{shared.in[buffer]};
  const typename Tiles::TapTile taps{shared.taps[buffer]};
  const std::int64_t t = r.template time<backward>(backward ? first + count - 1 : first);  // the earliest
  const std::int64_t a = r.a.row(r.batch, row), x = r.in.row(r.batch, row) + (t - r.in_begin) * r.in.step;
  if constexpr (Tiles::as_stored) {
    in.fetch(static_cast<const float*>(r.in.data) + x, r.in.step, count);
    taps.fetch(static_cast<const float*>(r.a.data) + a + t * N, 1, count * N);
  } else {
    constexpr int K = Tiles::K, block_threads = Tiles::block_threads;
    if (r.in) {
      with_real_type(r.in.dtype, [&](auto type) {
        using Value = typename decltype(type)::Type;
        const Value* const from = static_cast<const Value*>(r.in.data) + x;
        Value values[K];
        TORCH_IIR_UNROLL
        for (int u = 0; u < K; ++u) {
          const int i = thread() + u * block_threads;
          values[u] = i < count ? from[i * r.in.step] : Value{};
        }
        TORCH_IIR_UNROLL
        for (int u = 0; u < K; ++u) *in.place(thread() + u * block_threads) = widen(values[u]);
      });
    } else {
      for (int i = thread(); i < Tiles::tile; i += block_threads) *in.place(i) = 0;
    }
    const int length = r.a.length, lag = r.a.first;
    for (int i = thread(); i < count; i += block_threads) {
      for (int k = lag + length; k <= N; ++k) *taps.place(i * Tiles::taps + k) = 0;
    }
    const auto put = [&](int i, int j, double value) { *taps.place(i * Tiles::taps + lag + j) = value; };
    const int all = count * length;
    if (r.a.interpolated()) {
      for (int e = thread(); e < all; e += block_threads)
        put(e / length, e % length, tap(r.a, a, t + e / length, e % length));
    } else {
      with_real_type(r.a.dtype, [&](auto type) {
        using Value = typename decltype(type)::Type;
        const std::int64_t apart = r.a.apart(), step = r.a.step;
        const Value* const from = static_cast<const Value*>(r.a.data) + a + t * apart;
        for (int e0 = thread(); e0 < all; e0 += K * block_threads) {
          Value values[K];
          TORCH_IIR_UNROLL
          for (int u = 0; u < K; ++u) {
            const int e = e0 + u * block_threads;
            values[u] = e < all ? from[e / length * apart + e % length * step] : Value{};
          }
          TORCH_IIR_UNROLL
          for (int u = 0; u < K; ++u) {
            const int e = e0 + u * block_threads;
            if (e < all) put(e / length, e % length, widen(values[u]));
          }
        }
      });
    }
  }
}

template <class Stored, int N, bool backward>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(128, (sizeof(Stored) == 4 && !backward ? 4 : 3))
    tv_tiles(Recurrence<double> r, Chunks c, int size, int answers) {
  using Tiles = TVTiles<Stored, N, backward>;
  using Map = StateMap<N>;
  constexpr int K = Tiles::K, taps = Tiles::taps;
  auto& shared = *reinterpret_cast<typename Tiles::Shared*>(shared_memory());
  const int rank = size > 1 ? cluster_rank() : 0, order = r.order();
  const std::int64_t per_row = answers ? c.count - 1 : c.count, items = r.rows * per_row;
  int turn = 0;
  for (std::int64_t item = block() / size; item < items; item += blocks() / size) {
    const std::int64_t row = item / per_row, chunk = item % per_row, begin = chunk * c.length;
    const std::int64_t end = minimum(begin + c.length, r.steps());
    const std::int64_t tiles = (end - begin + Tiles::tile - 1) / Tiles::tile;
    const Differences differences = Differences::of(r, row);
    const double sign = differences.sign;
    const bool divided = r.a.first == 0;
    // The state is plain at the beginning and behind a tile that one thread had, else in differences.
    Vector<N> state = zero_vector<N>();
    bool plain = true;
    TORCH_IIR_UNROLL
    for (int i = 0; i < N; ++i) {
      if (answers || i >= order) continue;
      if (c.entries != nullptr) state[i] = c.entries[item * order + i];
      else if (r.from) state[i] = load(r.from, r.from.row(r.batch, row) + i * r.from.step);
    }
    Map answer = Map::identity();
    const auto count_of = [&](std::int64_t tile) {
      const std::int64_t left = maximum<std::int64_t>(end - begin - tile * Tiles::tile, 0);
      return static_cast<int>(minimum<std::int64_t>(left, Tiles::tile));
    };
    sync();
    int buffer = 0;
    if (rank < tiles) fetch_tile<Tiles, N, backward>(r, shared, 0, row, begin + rank * Tiles::tile, count_of(rank));
    for (std::int64_t first = 0; first < tiles; first += size, buffer ^= 1) {
      const std::int64_t tile = first + rank, next = tile + size, start = begin + tile * Tiles::tile;
      Tiles::InTile::arrive();
      if (next < tiles)
        fetch_tile<Tiles, N, backward>(r, shared, buffer ^ 1, row, begin + next * Tiles::tile, count_of(next));
      // Backwards the threads' steps begin at the end of the tile, and are fewer in the threads that come first.
      const int count = count_of(tile), position = backward ? Tiles::block_threads - 1 - thread() : thread();
      const int own = maximum(minimum(count - position * K, K), 0), shift = position - thread();
      const typename Tiles::InTile own_in{shared.in[buffer] + shift * Tiles::InTile::bytes_of_thread};
      const typename Tiles::TapTile own_taps{shared.taps[buffer] + shift * Tiles::TapTile::bytes_of_thread};

      Map map = Map::identity();
      {
        Stored in[K], tap[K * taps];
        own_in.read(in, own);
        own_taps.read(tap, own * taps);
        TORCH_IIR_UNROLL
        for (int i = 0; i < K; ++i) {
          const int k = backward ? K - 1 - i : i;
          if (k < own) {
            const typename Tiles::Step step(tap + k * taps, sign, divided);
            TORCH_IIR_UNROLL
            for (int column = 0; column <= N; ++column)
              step(map.column[column], column == N ? static_cast<double>(in[k]) : 0.0);
          }
        }
      }
      TORCH_IIR_UNROLL
      for (int j = 0; j < lane_steps; ++j) {
        const Map before = map.from_lane_before(1 << j);
        if (lane() >= 1 << j) map = before.then(map);
      }
      if (lane() == warp_size - 1) shared.total[warp()] = map;
      bool unsound = sync_any(!map.sound());
      if (answers) {
        if (thread() == 0) {
          for (int w = 0; w < Tiles::warps; ++w) answer = answer.then(shared.total[w]);
        }
        continue;
      }
      // Backwards, what is not finite and only pending for a later step must not reach the one before it.
      const bool mixed = backward && plain && isfinite(state[0]) && !isfinite(state[N - 1]);
      unsound |= mixed;
      if constexpr (N == 2) {
        if (plain && !mixed) {
          state = differences.made<backward>(state);
          plain = false;
        }
      }
      Vector<N> entry = state;
      if (size > 1) {
        typename Tiles::Said& said = shared.said[turn];
        if (thread() == 0) {
          said.map = shared.total[0];
          for (int w = 1; w < Tiles::warps; ++w) said.map = said.map.then(shared.total[w]);
          said.unsound = unsound || !said.map.sound();
        }
        cluster_sync();
        unsound = false;
        for (int other = 0; other < size; ++other) unsound |= in_cluster(&said, other)->unsound != 0;
        for (int other = 0; other < size && !unsound; ++other) {
          if (other == rank) entry = state;
          state = in_cluster(&said, other)->map(state);
        }
        turn ^= 1;
      } else if (!unsound) {
        for (int w = 0; w < Tiles::warps; ++w) state = shared.total[w](state);
      }

      const typename Tiles::OutTile out{Tiles::over_taps ? shared.taps[buffer] : shared.in[buffer]};
      if (unsound) {
        // One thread after another, one tile after the other. Each output comes where nothing is read any more.
        const typename Tiles::InTile in_tile{shared.in[buffer]};
        const typename Tiles::TapTile tap_tile{shared.taps[buffer]};
        for (int other = 0; other < size; ++other) {
          if (other == rank && thread() == 0) {
            Vector<N> z = state;
            if constexpr (N == 2) {
              if (!plain) z = differences.undone<backward>(z);
            }
            for (int i = 0; i < count; ++i) {
              const int k = backward ? count - 1 - i : i;
              const double v = Tiles::plain_step(z, *in_tile.place(k), tap_tile.place(k * taps), divided);
              *out.place(k) = static_cast<typename Tiles::Result>(v);
            }
            shared.behind = z;
          }
          if (size > 1) cluster_sync();
          else sync();
          state = size > 1 ? *in_cluster(&shared.behind, other) : shared.behind;
          plain = true;
        }
      } else {
        for (int w = 0; w < warp(); ++w) entry = shared.total[w](entry);
        const Map before = map.from_lane_before(1);
        Vector<N> z = lane() > 0 ? before(entry) : entry;
        Stored in[K], tap[K * taps];  // once more: registers for them would lie idle during the scan
        own_in.read(in, own);
        own_taps.read(tap, own * taps);
        if (Tiles::over_taps) sync();  // now they may be overwritten
        typename Tiles::Result result[K];
        TORCH_IIR_UNROLL
        for (int i = 0; i < K; ++i) {
          const int k = backward ? K - 1 - i : i;
          result[k] = 0;
          if (k < own) {
            const double v = typename Tiles::Step(tap + k * taps, sign, divided)(z, in[k]);
            result[k] = static_cast<typename Tiles::Result>(v);
          }
        }
        typename Tiles::OutTile{out.memory + shift * Tiles::OutTile::bytes_of_thread}.write(result);
        sync();
      }
      const std::int64_t t = r.template time<backward>(backward ? start + count - 1 : start);
      const std::int64_t to = r.out.row(r.batch, row) + (t - r.out_begin) * r.out.step;
      if (r.out.step == 1 && r.out.dtype == dtype_of<typename Tiles::Result>()) {
        out.send(static_cast<typename Tiles::Result*>(r.out.data) + to, count);
      } else {
        for (int i = thread(); i < count; i += Tiles::block_threads) store(r.out, to + i * r.out.step, *out.place(i));
      }
    }
    if (thread() == 0 && rank == 0) {
      if constexpr (N == 2) {
        if (!plain) state = differences.undone<backward>(state);
      }
      TORCH_IIR_UNROLL
      for (int i = 0; i < N; ++i) {
        if (i >= order) continue;
        if (answers) {
          TORCH_IIR_UNROLL
          for (int column = 0; column <= N; ++column) {
            const int place = column < N ? column : order;
            if (column < order || column == N)
              c.maps[(item * (order + 1) + place) * order + i] = answer.column[column][i];
          }
        } else if (chunk == c.count - 1 && r.to) {
          store(r.to, r.to.row(r.batch, row) + i * r.to.step, state[i]);
        }
      }
    }
  }
  if (size > 1) cluster_sync();  // nobody reads from a block that is gone
}

enum class Form { row, cluster, chunks };

template <class Stored, int N, bool backward>
Status run_tiles(const Recurrence<double>& r, const Queue& queue, Form form, Again& memory) {
  using Tiles = TVTiles<Stored, N, backward>;
  constexpr auto bytes = static_cast<std::int64_t>(sizeof(typename Tiles::Shared));
  constexpr auto kernel = tv_tiles<Stored, N, backward>;
  const Device here = device();
  const std::int64_t tiles = (r.steps() + Tiles::tile - 1) / Tiles::tile;
  Chunks c;
  c.length = maximum<std::int64_t>(r.steps(), 1);
  c.differences = r.order() == 2;
  if (form == Form::cluster && tiles > 1) {
    int size = 8;
    while (size > 2 && (size / 2 >= tiles || size * r.rows > 4 * here.processors)) size /= 2;
    return launch(queue, {minimum(r.rows, most_blocks / size) * size, Tiles::block_threads, bytes, size}, kernel, r, c,
                  size, 0);
  }
  if (form == Form::chunks) {
    const std::int64_t all = std::int64_t{4} * here.processors, wanted = maximum<std::int64_t>(all / r.rows, 2);
    if (!cut(c, r.rows, r.steps(), r.order(), wanted, Tiles::tile, Tiles::tile, memory)) return Status::out_of_memory;
    if (c.count > 1) {
      Status status = launch(queue, {minimum(r.rows * (c.count - 1), most_blocks), Tiles::block_threads, bytes}, kernel,
                             r, c, 1, 1);
      if (status == Status::ok) status = scan_chunks<backward>(r, c, queue);
      if (status != Status::ok) return status;
    }
  }
  return launch(queue, {minimum(r.rows * c.count, most_blocks), Tiles::block_threads, bytes}, kernel, r, c, 1, 0);
}

}  // namespace torch_iir::cuda
