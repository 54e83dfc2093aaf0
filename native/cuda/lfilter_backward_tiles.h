// lfilter_backward of orders up to 8: time runs backwards over tiles, whose threads run over their samples twice, see
// carry.h.
//
//   v[t] = g[t] − Σ_{k≥1} a[k] v[t+k]
//   gx[t] = Σ_k b[k] v[t+k]    gb[k] = Σ_t x[t] v[t+k]    ga[k] = −Σ_t y[t] v[t+k]    gzi[j] = v[j]
//
// Tiles       number 0 has the last samples of a row; the first thread of a block has the last samples of a tile. Tiles
//             begin at multiples of their length from the row's first sample on, so that its alignment is theirs: it is
//             tile 0 that may be short. Its threads without samples come before the one that has the last sample, which
//             begins with γ; the row itself begins at rest
// State       the next N values of v, which the recurrence, gx and the correlations all take: no sample of a neighbour
//             is needed, and what lies behind the end, γ, is in the state, too
// Sums        gb and ga in each thread's registers, in double, over all tiles that a block has of a row (look-back:
//             over one tile), then over the block as a tree: one vector for each row and block (or tile), already in
//             terms of the given coefficients, which partial_sums.h adds up
// gx          if rows share it (a bank), a block takes such rows one after another and adds in double to a row of
//             scratch memory; there are as few of these as keep the device busy
//
// Counted, not measured:
//
// Bytes       float32: g, x, y read once, gx written once, 16 a sample; x and y only where gb or ga are wanted.
//             cp.async fetches the next tile's g while this tile is computed, x and y from when the last have been used
// Flops       a sample of order 2: 2 + 2 multiply-adds for v, 3 for gx, 5 for the sums; 5 more for the scan of states
//             (16 samples a thread): 17 in double, 5 conversions. At the speed of a copy a multiprocessor of 132 has
//             0.84 cycles a sample, time for 54. Order 8 (32 samples a thread): 45 + 28, which is 70 % of a copy's
//             speed
// Shared      a signal's tile takes 80 B a thread (order > 4: 144), twice for g, once for x and y; order > 2: the
//             thread's sums, too. In blocks of 128 threads 42 KB (53, 103): 4 (3, 2) blocks on a multiprocessor
// Registers   float32, sm_90: 128 (168, 255) of a bound of as many, none spilled where the order is up to 4
// Races       in a block: a tile's buffers are refilled behind the barrier that ends their use, named where it is done.
//             Sums of gx: the same thread has the same samples in every row of its unit, but in rows that are done one
//             sample after another, which barriers separate from the others. Between blocks: only by carry.h
#pragma once

#include "carry.h"
#include "launch.h"
#include "lfilter_tiles.h"
#include "numbers.h"
#include "partial_sums.h"
#include "tile.h"

namespace torch_iir::cuda {

// What a launch works by beside its problem.
struct BackwardPlan {
  Form form = Form::row;
  int blocks_of_unit = 1;  // of its cluster, or that draw its tiles
  int order = 0;
  // A unit is a run of rows, of those that share one gx: row = sharing.row(unit / slices, one of the sharers of slice
  // unit % slices). A unit is one row where none share.
  Sharing sharing;
  std::int64_t slices = 1, per_slice = 1;
  // Scratch memory.
  double* gx = nullptr;            // units × T; null: rows have their own
  double* coefficients = nullptr;  // rows × parts × (len b + len a); null: not wanted
  double* gzi = nullptr;           // rows × N; null: stored at once, or not wanted
  std::int64_t parts = 1;
  LookBackMemory memory{};

  TORCH_IIR_HOST_DEVICE std::int64_t units() const { return sharing.targets * slices; }
};

// v, backwards, and what is summed with it.
template <int N>
struct Correlations {
  double b[N + 1], a[N];
};

template <int N>
TORCH_IIR_GPU Correlations<N> no_correlations() {
  Correlations<N> result;
  TORCH_IIR_UNROLL
  for (int k = 0; k <= N; ++k) result.b[k] = 0;
  TORCH_IIR_UNROLL
  for (int k = 0; k < N; ++k) result.a[k] = 0;
  return result;
}

// v[t] from g[t] and the state w = v[t+1] … v[t+N]. The latest value comes last: it is waited for.
template <int N>
TORCH_IIR_GPU double next_value(const Coefficients<N>& c, const Vector<N>& w, double g) {
  double v = g;
  TORCH_IIR_UNROLL
  for (int k = N; k >= 1; --k) v = fma(-c.a[k], w[k - 1], v);
  return v;
}
template <int N>
TORCH_IIR_GPU double input_gradient(const Coefficients<N>& c, const Vector<N>& w, double v) {
  double sum = c.b[0] * v;
  TORCH_IIR_UNROLL
  for (int k = 1; k <= N; ++k) sum = fma(c.b[k], w[k - 1], sum);
  return sum;
}
// `recursive`: the order is not 0, which the kernels of the lowest orders have to ask: a filter without memory forgets
// what is not finite, too.
template <int N>
TORCH_IIR_GPU void shift(Vector<N>& w, double v, bool recursive) {
  TORCH_IIR_UNROLL
  for (int k = N - 1; k > 0; --k) w[k] = w[k - 1];
  w[0] = N > 2 || recursive ? v : 0.0;
}
template <int N>
TORCH_IIR_GPU void correlate_x(Correlations<N>& sums, const Vector<N>& w, double v, double x) {
  sums.b[0] = fma(x, v, sums.b[0]);
  TORCH_IIR_UNROLL
  for (int k = 1; k <= N; ++k) sums.b[k] = fma(x, w[k - 1], sums.b[k]);
}
template <int N>
TORCH_IIR_GPU void correlate_y(Correlations<N>& sums, const Vector<N>& w, double y) {
  TORCH_IIR_UNROLL
  for (int k = 0; k < N; ++k) sums.a[k] = fma(y, w[k], sums.a[k]);
}

// A[0][j] = −a[j+1]; the other values move on by one.
template <int N>
TORCH_IIR_GPU void put_backward_transition(const Coefficients<N>& c, Matrix<N>& to) {
  for (int entry = thread(); entry < N * N; entry += threads()) {
    const int i = entry / N, j = entry % N;
    to.m[i][j] = i == 0 ? -c.a[j + 1] : j == i - 1 ? 1.0 : 0.0;
  }
  sync();
}

template <int N, int warps>
struct CorrelationsOfWarps {
  double b[N + 1][warps], a[N][warps];
};

// By 64 threads or more: a part of the gradients of a row's coefficients, in terms of those that were given. b/a[0] and
// a/a[0] depend on a[0], too.
template <class Sample, int N, int warps>
TORCH_IIR_GPU void put_totals(const LFilterBackward<Sample>& p, const BackwardPlan& plan, std::int64_t row,
                              std::int64_t part, const Coefficients<N>& c, const CorrelationsOfWarps<N, warps>& sums) {
  const auto total = [](const double (&of_warps)[warps]) {
    double sum = 0;
    for (int w = 0; w < warps; ++w) sum += of_warps[w];
    return sum;
  };
  double* const to = plan.coefficients + (row * plan.parts + part) * (p.b_length + p.a_length);
  const double scale = 1 / load(p.a, p.a.row(p.batch, row));
  if (thread() < p.b_length) to[thread()] = total(sums.b[thread()]) * scale;
  const int k = thread() - warp_size;
  if (k > 0 && k < p.a_length) to[p.b_length + k] = -total(sums.a[k - 1]) * scale;
  if (k == 0) {
    double of_a0 = 0;
    for (int i = 0; i <= plan.order; ++i) of_a0 = fma(-total(sums.b[i]), c.b[i], of_a0);
    for (int i = 1; i <= plan.order; ++i) of_a0 = fma(total(sums.a[i - 1]), c.a[i], of_a0);
    to[p.b_length] = of_a0 * scale;
  }
}

// Of each warp, by all of its threads; put(of_b, k, sum) for each of the sums by one of them.
template <int N, class Put>
TORCH_IIR_GPU void add_up_warp(const Correlations<N>& sums, Put&& put) {
  const auto of_warp = [](double value) {
    TORCH_IIR_UNROLL
    for (int mask = 1; mask < warp_size; mask *= 2) value += shuffle_xor(value, mask);
    return value;
  };
  TORCH_IIR_UNROLL
  for (int k = 0; k <= N; ++k) {
    const double sum = of_warp(sums.b[k]);
    if (lane() == 0) put(true, k, sum);
  }
  TORCH_IIR_UNROLL
  for (int k = 0; k < N; ++k) {
    const double sum = of_warp(sums.a[k]);
    if (lane() == 0) put(false, k, sum);
  }
}

// By the whole block, whose part of a row it is. `shared` is read until the next barrier.
template <class Sample, int N, int warps>
TORCH_IIR_GPU void put_correlations(const LFilterBackward<Sample>& p, const BackwardPlan& plan, std::int64_t row,
                                    std::int64_t part, const Coefficients<N>& c, const Correlations<N>& sums,
                                    CorrelationsOfWarps<N, warps>& shared) {
  if (plan.coefficients == nullptr) return;
  add_up_warp(sums, [&](bool of_b, int k, double sum) { (of_b ? shared.b[k] : shared.a[k])[warp()] = sum; });
  sync();
  put_totals(p, plan, row, part, c, shared);
}

// Where a row's gx goes.
struct SumOfInputGradients {
  double* row;  // null: to the row of gx itself
  bool first;   // of those that are summed here

  TORCH_IIR_GPU void put(std::int64_t t, double value) const { row[t] = first ? value : row[t] + value; }
};

// What a block knows of a row, in shared memory: found out once, by threads side by side.
template <class Sample, int N>
struct BackwardRow {
  const Sample *g, *x, *y;
  Sample* gx;
  SumOfInputGradients sum;
  Coefficients<N> coefficients;
  Vector<N> gamma;  // of the final state, zeros beyond the order
  Vector<N> v;      // the first values, which are the gradient of the initial state

  // By the whole block; ends with a barrier.
  TORCH_IIR_GPU void load(const LFilterBackward<Sample>& p, std::int64_t row, const SumOfInputGradients& sum_,
                          int order) {
    const int who = thread() - warp_size;  // side by side with those that load coefficients
    if (who == 0) {
      g = p.gy ? p.gy.row(p.batch, row) : nullptr;
      x = p.x.row(p.batch, row);
      y = p.y.row(p.batch, row);
      gx = p.gx ? p.gx.row(p.batch, row) : nullptr;
      sum = sum_;
    } else if (who > 0 && who <= N) {
      const int i = who - 1;
      gamma[i] = p.gzf && i < order ? cuda::load(p.gzf, p.gzf.row(p.batch, row) + i * p.gzf.step) : 0.0;
    }
    load_coefficients<N, double>(p, row, coefficients);
  }

  // By N threads, behind a barrier after `v` has been written.
  TORCH_IIR_GPU void store_state(const LFilterBackward<Sample>& p, const BackwardPlan& plan, std::int64_t row) const {
    const int i = thread();
    if (!p.gzi || i >= plan.order) return;
    if (plan.gzi != nullptr) {
      plan.gzi[row * plan.order + i] = v[i];
    } else {
      store(p.gzi, p.gzi.row(p.batch, row) + i * p.gzi.step, v[i]);
    }
  }
};

// One thread, one sample after another.
template <class Sample, int N>
TORCH_IIR_GPU Correlations<N> backward_directly(const LFilterBackward<Sample>& p, bool recursive,
                                                BackwardRow<Sample, N>& row, Format<Sample> format) {
  Correlations<N> sums = no_correlations<N>();
  Vector<N> w = row.gamma;
  const bool with_y = bool(p.ga), with_x = with_y || p.gb;
  TORCH_IIR_NO_UNROLL
  for (std::int64_t t = p.samples - 1; t >= 0; --t) {
    const double v = next_value(row.coefficients, w, p.gy ? format.widen(row.g[t * p.gy.step]) : 0.0);
    const double out = input_gradient(row.coefficients, w, v);
    if (row.sum.row != nullptr) {
      row.sum.put(t, out);
    } else if (p.gx) {
      row.gx[t * p.gx.step] = format.narrow(out);
    }
    if (with_x) correlate_x(sums, w, v, format.widen(row.x[t * p.x.step]));
    if (with_y) correlate_y(sums, w, format.widen(row.y[t * p.y.step]));
    shift(w, v, recursive);
  }
  row.v = w;
  return sums;
}

template <class Sample, int N_, int K_, int block_threads_>
struct BackwardTiles {
  static constexpr int N = N_, K = K_, block_threads = block_threads_, warps = block_threads / warp_size;
  using TileOf = Tile<Sample, K, block_threads>;
  using Chunk = typename TileOf::Chunk;
  static constexpr int tile = TileOf::samples, per_chunk = TileOf::per_chunk;

  struct Shared {
    alignas(16) unsigned char g[2][TileOf::bytes];  // the tile, in which gx takes the place of g, and the next
    alignas(16) unsigned char x[TileOf::bytes];
    alignas(16) unsigned char y[TileOf::bytes];
    Powers<N> powers;
    BackwardRow<Sample, N> row;
    WarpStates<N, warps> warp_states;
    CorrelationsOfWarps<N, warps> correlations;
    typename ClusterCarry<N>::Shared cluster;
    Vector<N> entry;
    unsigned ticket;
    // Of each thread, where there are too many of them to stay in registers while states are combined.
    Correlations<N> sums[N > 2 ? block_threads : 1];
  };

  // Where the samples of this thread lie: those of the last are the first thread's.
  static TORCH_IIR_GPU int place() { return block_threads - 1 - thread(); }
  static TORCH_IIR_GPU unsigned char* own(unsigned char* tile) { return tile + place() * TileOf::bytes_of_thread; }

  // body(chunk, of_chunk) for the samples of a thread, the last first: whole chunks, and one by one those behind them.
  template <class One, class Whole>
  static TORCH_IIR_GPU void backwards(int count, One&& one, Whole&& whole) {
    const int chunks = count / per_chunk;
    for (int k = count - 1; k >= chunks * per_chunk; --k) one(k);
    TORCH_IIR_NO_UNROLL
    for (int chunk = chunks - 1; chunk >= 0; --chunk) whole(chunk);
  }

  static TORCH_IIR_GPU void read(Sample (&to)[per_chunk], const unsigned char* own, int chunk) {
    const Chunk values = reinterpret_cast<const Chunk*>(own)[chunk];
    memcpy(&to[0], &values, 16);
  }
  static TORCH_IIR_GPU void write(unsigned char* own, int chunk, const Sample (&from)[per_chunk]) {
    Chunk values;
    memcpy(&values, &from[0], 16);
    reinterpret_cast<Chunk*>(own)[chunk] = values;
  }

  // The state behind this thread's samples, had it begun with w before them.
  static TORCH_IIR_GPU Vector<N> run(const Coefficients<N>& c, Vector<N> w, const unsigned char* g, int count,
                                     bool recursive, Format<Sample> format) {
    backwards(
        count,
        [&](int k) { shift(w, next_value(c, w, format.widen(reinterpret_cast<const Sample*>(g)[k])), recursive); },
        [&](int chunk) {
          Sample values[per_chunk];
          read(values, g, chunk);
          TORCH_IIR_UNROLL
          for (int i = per_chunk - 1; i >= 0; --i) shift(w, next_value(c, w, format.widen(values[i])), recursive);
        });
    return w;
  }

  // The same, once more, with all that comes of it; gx takes the place of g, or goes to `sum`, by the thread's first
  // sample.
  struct Wanted {
    bool gx, x, y;
  };
  static TORCH_IIR_GPU Vector<N> run(const Coefficients<N>& c, Vector<N> w, unsigned char* g, const unsigned char* x,
                                     const unsigned char* y, int count, bool recursive, Wanted wanted,
                                     Format<Sample> format, Correlations<N>& sums, const SumOfInputGradients& sum) {
    const auto put = [&](int k, Sample& to, double v) {
      if (sum.row == nullptr) {
        to = format.narrow(v);
      } else {
        sum.put(k, v);
      }
    };
    backwards(
        count,
        [&](int k) {
          Sample& at = reinterpret_cast<Sample*>(g)[k];
          const double v = next_value(c, w, format.widen(at));
          if (wanted.gx) put(k, at, input_gradient(c, w, v));
          if (wanted.x) correlate_x(sums, w, v, format.widen(reinterpret_cast<const Sample*>(x)[k]));
          if (wanted.y) correlate_y(sums, w, format.widen(reinterpret_cast<const Sample*>(y)[k]));
          shift(w, v, recursive);
        },
        [&](int chunk) {
          Sample of_g[per_chunk], of_x[per_chunk] = {}, of_y[per_chunk] = {};
          read(of_g, g, chunk);
          if (wanted.x) read(of_x, x, chunk);
          if (wanted.y) read(of_y, y, chunk);
          TORCH_IIR_UNROLL
          for (int i = per_chunk - 1; i >= 0; --i) {
            const double v = next_value(c, w, format.widen(of_g[i]));
            if (wanted.gx) put(chunk * per_chunk + i, of_g[i], input_gradient(c, w, v));
            if (wanted.x) correlate_x(sums, w, v, format.widen(of_x[i]));
            if (wanted.y) correlate_y(sums, w, format.widen(of_y[i]));
            shift(w, v, recursive);
          }
          if (wanted.gx && sum.row == nullptr) write(g, chunk, of_g);
        });
    return w;
  }
};

template <class Sample, int N, int K, int block_threads, int resident>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(block_threads, resident)
    lfilter_backward_tiles(LFilterBackward<Sample> p, BackwardPlan plan, Format<Sample> format) {
  using Tiles = BackwardTiles<Sample, N, K, block_threads>;
  using TileOf = typename Tiles::TileOf;
  auto& shared = *reinterpret_cast<typename Tiles::Shared*>(shared_memory());
  const std::int64_t tiles = (p.samples + Tiles::tile - 1) / Tiles::tile;
  const bool with_y = bool(p.ga), with_x = with_y || p.gb;  // the gradient of a[0] takes both
  const bool recursive = plan.order > 0;
  const bool in_cluster = plan.form == Form::cluster, looks_back = plan.form == Form::lookback;
  const int rank = in_cluster ? cluster_rank() : 0, side_by_side = in_cluster ? plan.blocks_of_unit : 1;

  const auto first_of = [&](std::int64_t tile) { return (tiles - 1 - tile) * Tiles::tile; };
  const auto count_of = [&](std::int64_t tile) {
    return static_cast<int>(minimum<std::int64_t>(p.samples - first_of(tile), Tiles::tile));
  };
  // Each commits one group of copies, wherever there is a tile and whatever is wanted of it.
  const auto fetch = [&](bool wanted, const Sample* signal, std::int64_t step, std::int64_t tile, unsigned char* to) {
    if (!wanted || tile >= tiles) return commit_async();
    const std::int64_t first = first_of(tile);
    TileOf{to}.fetch(signal + first * step, step, count_of(tile));
  };
  const auto fetch_g = [&](std::int64_t tile, int buffer) {
    fetch(bool(p.gy), shared.row.g, p.gy.step, tile, shared.g[buffer]);
    if (p.gy || tile >= tiles) return;
    const int count = count_of(tile);
    for (int i = thread(); i < count; i += block_threads) *TileOf{shared.g[buffer]}.place(i) = Sample{};
  };
  const auto fetch_xy = [&](std::int64_t tile) {
    fetch(with_x, shared.row.x, p.x.step, tile, shared.x);
    fetch(with_y, shared.row.y, p.y.step, tile, shared.y);
  };

  // One after another: rows, of which this block has all tiles, or every one of its rank; or tiles, by look-back.
  const std::int64_t units_at_once = blocks() / plan.blocks_of_unit;
  std::int64_t unit = block() / plan.blocks_of_unit, sharer = unit % plan.slices * plan.per_slice, prepared = -1;
  bool usable = false;
  while (unit < plan.units()) {
    const std::int64_t first_sharer = unit % plan.slices * plan.per_slice;
    std::int64_t tile = rank;
    bool at_end = sharer == minimum(first_sharer + plan.per_slice, plan.sharing.sharers);
    if (looks_back) {
      if (thread() == 0) shared.ticket = fetch_add(plan.memory.ticket + unit, 1);
      sync();
      tile = shared.ticket;
      at_end = tile >= tiles;
    }
    sync();  // shared memory is done with, sums of gx in this block are written, the ticket is read
    if (at_end) {
      unit += units_at_once;
      sharer = unit % plan.slices * plan.per_slice;
      continue;
    }
    const std::int64_t row = plan.sharing.row(unit / plan.slices, sharer);
    if (row != prepared) {
      double* const sum = plan.gx != nullptr ? plan.gx + unit * p.samples : nullptr;
      shared.row.load(p, row, {sum, sharer == first_sharer}, plan.order);
      put_backward_transition(shared.row.coefficients, shared.powers.tile);
      usable = build(shared.powers, K, looks_back) && tiles > 0;
      prepared = row;
    }
    if (!looks_back) ++sharer;
    Correlations<N> sums = no_correlations<N>();
    if constexpr (N > 2) shared.sums[thread()] = sums;
    const std::int64_t end = looks_back ? tile + 1 : tiles;  // of this block's tiles
    bool has_first_samples = false;
    if (!usable) {
      if (in_cluster) cluster_sync();  // sums of gx: from all threads' to one's …
      has_first_samples = tile == 0;
      if (has_first_samples && thread() == 0) sums = backward_directly(p, recursive, shared.row, format);
      if (in_cluster) cluster_sync();  // … and back
      sync();
    } else {
      ClusterCarry<N> carry{&shared.cluster, side_by_side, 0, zero_vector<N>()};
      int buffer = 0;
      fetch_g(tile, 0);
      fetch_xy(tile);
      for (std::int64_t begin = tile - rank; begin < end; begin += side_by_side) {
        tile = begin + rank;
        const std::int64_t next = looks_back ? tiles : tile + side_by_side;
        wait_async<2>();  // g, before the latest x and y
        sync();
        fetch_g(next, buffer ^ 1);
        unsigned char* const g = Tiles::own(shared.g[buffer]);
        const int count = tile < tiles ? count_of(tile) : 0;
        const int at = Tiles::place() * K, own = maximum(minimum(count - at, K), 0);
        const bool last_sample = tile == 0 && own > 0 && at + own == count;
        Vector<N> w = last_sample ? shared.row.gamma : zero_vector<N>();
        const Vector<N> scanned =
            scan_warp(shared.powers, Tiles::run(shared.row.coefficients, w, g, own, recursive, format));
        if (lane() == warp_size - 1) shared.warp_states.total[warp()] = scanned;
        wait_async<1>();  // x and y, before the next g
        sync();
        Vector<N> entry = after_warps(shared.powers, shared.warp_states, Tiles::warps, zero_vector<N>());
        if (looks_back) {
          LookBack<N> look{plan.memory.totals + unit * tiles * N,
                           plan.memory.behind + unit * ((tiles + look_group - 1) / look_group) * N, zero_vector<N>(),
                           tile};
          entry = look.enter(shared.powers, entry, &shared.entry);
        } else if (in_cluster) {
          entry = carry.enter(shared.powers, entry);
        } else {
          RowCarry<N> row_carry{carry.state};
          entry = row_carry.enter(shared.powers, entry);
          carry.state = row_carry.state;
        }
        w = enter_thread(shared.powers, scanned, after_warps(shared.powers, shared.warp_states, warp(), entry));
        if (last_sample) w = shared.row.gamma;
        SumOfInputGradients sum = shared.row.sum;
        if (sum.row != nullptr) sum.row += first_of(tile) + at;
        if constexpr (N > 2) sums = shared.sums[thread()];
        w = Tiles::run(shared.row.coefficients, w, g, Tiles::own(shared.x), Tiles::own(shared.y), own, recursive,
                       {bool(p.gx), with_x, with_y}, format, sums, sum);
        if constexpr (N > 2) shared.sums[thread()] = sums;
        if (tile == tiles - 1) {
          has_first_samples = true;
          if (at == 0) shared.row.v = w;
        }
        sync();  // from here on x and y may be fetched anew; g once this has been sent, behind the next barrier
        if (p.gx && sum.row == nullptr && count > 0)
          TileOf{shared.g[buffer]}.send(shared.row.gx + first_of(tile) * p.gx.step, p.gx.step, count);
        fetch_xy(next);
        buffer ^= 1;
      }
      if (in_cluster) carry.leave();
    }
    if constexpr (N > 2) {
      if (usable) sums = shared.sums[thread()];
    }
    if (has_first_samples) shared.row.store_state(p, plan, row);
    put_correlations(p, plan, row, looks_back ? tile : rank, shared.row.coefficients, sums, shared.correlations);
  }
}

// The stages behind the first: sums of what it has left.
template <class Sample>
[[nodiscard]] Status finish_backward(const LFilterBackward<Sample>& p, const Queue& queue, Scratch& scratch,
                                     const BackwardPlan& plan, Format<Sample> format) {
  const std::int64_t length = p.b_length + p.a_length;
  Status status = Status::ok;
  if (plan.coefficients != nullptr) {
    status = sum_partials(queue, scratch, p.batch, p.gb,
                          Partials<double>{plan.coefficients, p.b_length, plan.parts, plan.parts * length, length});
    if (status != Status::ok) return status;
    status = sum_partials(
        queue, scratch, p.batch, p.ga,
        Partials<double>{plan.coefficients + p.b_length, p.a_length, plan.parts, plan.parts * length, length});
    if (status != Status::ok) return status;
  }
  if (plan.gzi != nullptr) {
    status =
        sum_partials(queue, scratch, p.batch, p.gzi, Partials<double>{plan.gzi, plan.order, 1, plan.order, plan.order});
    if (status != Status::ok) return status;
  }
  if (plan.gx == nullptr) return Status::ok;
  const Partials<double> of_gx{plan.gx, p.samples, plan.slices, plan.slices * p.samples, p.samples};
  if constexpr (std::is_same_v<Sample, Half>) {
    if (format.bfloat16) return sum_partials(queue, scratch, plan.sharing.distinct, rows_as<BFloat16>(p.gx), of_gx);
  }
  return sum_partials(queue, scratch, plan.sharing.distinct, p.gx, of_gx);
}

// The scratch memory that a plan's sums take, but those of gx.
template <class Sample>
void take_sums(const LFilterBackward<Sample>& p, Scratch& scratch, BackwardPlan& plan) {
  const std::int64_t rows = p.batch.rows();
  if (p.gb || p.ga) plan.coefficients = scratch.take<double>(rows * plan.parts * (p.b_length + p.a_length));
  if (p.gzi && plan.order > 0 && is_shared(p.batch, p.gzi)) plan.gzi = scratch.take<double>(rows * plan.order);
}

// In how many slices, each with a sum of its own, the rows that share one gx may be cut: sums take a quarter of the
// memory of the output's gradient, or some MB.
template <class Sample>
std::int64_t most_slices(const LFilterBackward<Sample>& p, const Sharing& sharing) {
  constexpr std::int64_t little = std::int64_t{64} << 20;
  const std::int64_t of_slice = sharing.targets * maximum<std::int64_t>(p.samples, 1) * 8;
  const std::int64_t share = sharing.sharers * static_cast<std::int64_t>(sizeof(Sample)) / 32;
  return minimum(maximum<std::int64_t>(maximum(share, little / of_slice), 1), sharing.sharers);
}

// Which rows share gx; none where it is not wanted.
template <class Sample>
Sharing sharing_of_input(const LFilterBackward<Sample>& p) {
  if (p.gx) return sharing_of(p.batch, p.gx);
  Rows<const Sample> own;
  for (std::int64_t& stride : own.stride) stride = 1;
  return sharing_of(p.batch, own);
}

// unsupported where look-back is asked for and rows share too large a gx.
template <class Sample, int N, int K, int block_threads, int resident>
Status run_lfilter_backward_tiles(const LFilterBackward<Sample>& p, const Queue& queue, Algorithm algorithm,
                                  Format<Sample> format) {
  using Tiles = BackwardTiles<Sample, N, K, block_threads>;
  constexpr auto shared_bytes = static_cast<std::int64_t>(sizeof(typename Tiles::Shared));
  const std::int64_t rows = p.batch.rows(), tiles = (p.samples + Tiles::tile - 1) / Tiles::tile;
  const Device here = device();
  Scratch scratch(queue);
  BackwardPlan plan;
  plan.order = maximum(p.b_length, p.a_length) - 1;
  plan.sharing = sharing_of_input(p);
  const std::int64_t sharers = plan.sharing.sharers, most = most_slices(p, plan.sharing);

  // Where rows share gx, as many slices as keep the device busy, or as there may be.
  const std::int64_t enough = std::int64_t{resident} * here.processors;
  plan.slices = minimum((enough + plan.sharing.targets - 1) / plan.sharing.targets, most);
  const Plan chosen = plan_lfilter(plan.sharing.targets * plan.slices, tiles, here, algorithm);
  plan.form = tiles == 0 ? Form::row : chosen.form;
  if (plan.form == Form::lookback && most < sharers) {
    if (algorithm == Algorithm::lookback) return Status::unsupported;
    plan.form = here.clusters ? Form::cluster : Form::row;
  }
  if (plan.form == Form::cluster && !here.clusters) return Status::unsupported;
  if (plan.form == Form::cluster)
    plan.blocks_of_unit = chosen.form == Form::cluster ? chosen.cluster_size : most_in_cluster;
  if (plan.form == Form::lookback) plan.slices = sharers;
  plan.per_slice = (sharers + plan.slices - 1) / plan.slices;
  plan.slices = (sharers + plan.per_slice - 1) / plan.per_slice;
  if (plan.form == Form::lookback)
    plan.blocks_of_unit = static_cast<int>(minimum(maximum<std::int64_t>((enough + rows - 1) / rows, 1), tiles));
  plan.parts = plan.form == Form::lookback ? tiles : plan.blocks_of_unit;
  if (sharers > 1) plan.gx = scratch.take<double>(plan.units() * p.samples);
  take_sums(p, scratch, plan);

  const std::int64_t groups = (tiles + look_group - 1) / look_group, words = rows * (tiles + groups) * N;
  const std::int64_t look_bytes =
      words * static_cast<std::int64_t>(sizeof(Word)) + rows * static_cast<std::int64_t>(sizeof(unsigned));
  unsigned char* const memory = plan.form == Form::lookback ? scratch.take<unsigned char>(look_bytes) : nullptr;
  if (!scratch.ok()) return Status::out_of_memory;
  if (memory != nullptr) {
    const Status status = set_zero(queue, memory, look_bytes);
    if (status != Status::ok) return status;
    auto* const totals = reinterpret_cast<Word*>(memory);
    plan.memory = {reinterpret_cast<unsigned*>(totals + words), totals, totals + rows * tiles * N};
  }
  const std::int64_t blocks = minimum(plan.units(), most_blocks / plan.blocks_of_unit) * plan.blocks_of_unit;
  const Status status =
      launch(queue, {blocks, block_threads, shared_bytes, plan.form == Form::cluster ? plan.blocks_of_unit : 1},
             lfilter_backward_tiles<Sample, N, K, block_threads, resident>, p, plan, format);
  return status == Status::ok ? finish_backward(p, queue, scratch, plan, format) : status;
}

}  // namespace torch_iir::cuda
