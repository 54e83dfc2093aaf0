// lfilter_backward of banks: several filters of order up to 2 have read one row of input, a signal, whose gradient is
// the sum of what they give.
//
//   gx[t] = Σ_filters Σ_k b[k] v[t+k]
//
// A block has a slice of the filters of a signal, at most 16. Tile after tile, from the end (lfilter_backward_tiles.h
// says how a tile is run over backwards), it takes one filter after another: their g and y come while those of the
// filter before are used; x stays; gx is summed in registers, in double. Then the blocks of a cluster, each of which
// has a slice of the same signal, add up what they have, by each other's shared memory: one row of gx leaves the
// cluster, rounded once where the signal has one cluster, as a row of double sums otherwise.
//
// Bytes       counted, float32: 8 an output (g and y), x and gx once for all filters; sums of gx, where a signal has G
//             clusters, 16 G for each sample of x: 1/8 of the traffic at most. Nothing of the size of the output is
//             made
// Flops       counted, an output: 2 multiply-adds for v from rest, 10 again with gx and the sums, 3 for the scan, 2 for
//             adding up the sums: 17 in double; 4 conversions
// Shared      80 B a thread and buffer: 2 for each of g, y, x, and 0.9 KB a filter: 76 KB, 3 blocks on a
//             multiprocessor. 32 signals × 128 filters: 256 blocks, all under way at once on 132 of them
// Order       gx: filters of a block in turn, blocks by rank, clusters by number. gb, ga: threads of a warp as a tree,
//             tiles in turn, warps by number
// Races       a buffer is filled again behind the barrier that ends its use; `state` has two places, one is read in a
//             tile while the last thread writes the other; the exchange lies between two barriers of the cluster
#pragma once

#include "lfilter_backward_tiles.h"

namespace torch_iir::cuda {

template <class Sample>
struct BankBackward {
  static constexpr int N = 2, K = 64 / sizeof(Sample), block_threads = 128, warps = block_threads / warp_size;
  static constexpr int most_filters = 16, resident = 3;
  static constexpr int squares_of_thread = K == 16 ? 4 : 3;
  static_assert(1 << squares_of_thread == K);
  using TileOf = Tile<Sample, K, block_threads>;
  using Tiles = BackwardTiles<Sample, N, K, block_threads>;
  static constexpr int tile = TileOf::samples, per_chunk = TileOf::per_chunk, chunks = K / per_chunk;

  struct Filter {
    Powers<N> powers;
    Coefficients<N> c;
    Vector<N> gamma, state[2];
    CorrelationsOfWarps<N, warps> sums;
    const Sample *g, *y;
    bool usable;  // the powers are finite
  };
  struct Buffers {
    alignas(16) unsigned char g[TileOf::bytes];
    alignas(16) unsigned char y[TileOf::bytes];
  };
  // Of gx, where g and y have been: doubles, in the order of Tile.
  static constexpr int exchange_of_thread = K * sizeof(double) + 16;
  static_assert(block_threads * exchange_of_thread <= sizeof(Buffers));
  struct Shared {
    Buffers buffers[2];
    alignas(16) unsigned char x[2][TileOf::bytes];
    int free;  // of the buffers, while gx is exchanged: blocks have not all had as many filters
    WarpStates<N, warps> warp_states;
    double rest[per_chunk];  // gx of the samples behind the last whole chunk
    Filter filters[most_filters];
  };

  static TORCH_IIR_GPU double* exchange(Buffers& buffers, int sample) {
    return reinterpret_cast<double*>(buffers.g + sample / K * exchange_of_thread) + sample % K;
  }
};

// By one thread.
template <class Bank, class Sample>
TORCH_IIR_GPU void load_filter(const LFilterBackward<Sample>& p, std::int64_t row, int order,
                               typename Bank::Filter& f) {
  constexpr int N = Bank::N;
  const std::int64_t b = p.b.row(p.batch, row), a = p.a.row(p.batch, row);
  const double a0 = load(p.a, a);
  TORCH_IIR_NO_UNROLL
  for (int i = 0; i <= N; ++i) {
    f.c.b[i] = i < p.b_length ? load(p.b, b + i * p.b.step) / a0 : 0.0;
    f.c.a[i] = i < p.a_length ? load(p.a, a + i * p.a.step) / a0 : 0.0;
  }
  TORCH_IIR_NO_UNROLL
  for (int i = 0; i < N; ++i)
    f.gamma[i] = p.gzf && i < order ? load(p.gzf, p.gzf.row(p.batch, row) + i * p.gzf.step) : 0.0;
  f.state[0] = zero_vector<N>();
  f.g = p.gy.row(p.batch, row);
  f.y = p.y.row(p.batch, row);
  for (int w = 0; w < Bank::warps; ++w) {
    for (int k = 0; k <= N; ++k) f.sums.b[k][w] = 0;
    for (int k = 0; k < N; ++k) f.sums.a[k][w] = 0;
  }
  Precise<N> power{{{{-f.c.a[1], -f.c.a[2]}, {1, 0}}}, {}};
  constexpr int first = Bank::squares_of_thread, last = first + lane_steps;
  TORCH_IIR_NO_UNROLL
  for (int square = 0; square <= last; ++square) {
    if (square >= first) f.powers.lanes[square - first] = power.high;
    const Precise<N> now = power;
    TORCH_IIR_UNROLL
    for (int i = 0; i < N; ++i) {
      TORCH_IIR_UNROLL
      for (int j = 0; j < N; ++j) put_squared(power, now, i, j);
    }
  }
  // What is not finite stays so as it is squared: inf · 0 is NaN, and no sum of it is a number.
  const Matrix<N>& of_warp = f.powers.lanes[lane_steps];
  f.usable =
      isfinite(of_warp.m[0][0]) && isfinite(of_warp.m[0][1]) && isfinite(of_warp.m[1][0]) && isfinite(of_warp.m[1][1]);
}

template <class Sample>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS((BankBackward<Sample>::block_threads), (BankBackward<Sample>::resident))
    lfilter_bank_backward(LFilterBackward<Sample> p, BackwardPlan plan, int filters_of_block) {
  using Bank = BankBackward<Sample>;
  using Tiles = typename Bank::Tiles;
  using TileOf = typename Bank::TileOf;
  constexpr int N = Bank::N, K = Bank::K, per_chunk = Bank::per_chunk, block_threads = Bank::block_threads;
  auto& shared = *reinterpret_cast<typename Bank::Shared*>(shared_memory());
  const int ranks = plan.blocks_of_unit, rank = ranks > 1 ? cluster_rank() : 0;
  const auto sync_ranks = [&] { ranks > 1 ? cluster_sync() : sync(); };
  const std::int64_t tiles = (p.samples + Bank::tile - 1) / Bank::tile;
  const bool with_y = bool(p.ga), with_x = with_y || p.gb, recursive = plan.order > 0;

  for (std::int64_t unit = block() / ranks; unit < plan.units(); unit += blocks() / ranks) {
    const std::int64_t signal = unit / plan.slices, slice = unit % plan.slices;
    const std::int64_t begin = slice * plan.per_slice + rank * filters_of_block;
    const std::int64_t end =
        minimum(begin + filters_of_block, minimum((slice + 1) * plan.per_slice, plan.sharing.sharers));
    const int filters = static_cast<int>(maximum<std::int64_t>(end - begin, 0));
    const auto row_of = [&](int f) { return plan.sharing.row(signal, begin + f); };
    const Sample* const x = p.x.row(p.batch, plan.sharing.row(signal, 0));
    const auto first_of = [&](std::int64_t tile) { return (tiles - 1 - tile) * Bank::tile; };
    const auto count_of = [&](std::int64_t tile) {
      return static_cast<int>(minimum<std::int64_t>(p.samples - first_of(tile), Bank::tile));
    };
    sync();
    if (thread() < filters) load_filter<Bank>(p, row_of(thread()), plan.order, shared.filters[thread()]);
    sync();

    const auto fetch = [&](const Sample* signal_of, std::int64_t step, std::int64_t tile, unsigned char* to) {
      TileOf{to}.fetch(signal_of + first_of(tile) * step, step, count_of(tile));
    };
    const auto fetch_filter = [&](std::int64_t tile, int f, int buffer) {
      fetch(shared.filters[f].g, p.gy.step, tile, shared.buffers[buffer].g);
      if (with_y) fetch(shared.filters[f].y, p.y.step, tile, shared.buffers[buffer].y);
    };
    int buffer = 0;
    if (filters > 0 && tiles > 0) {
      if (with_x) fetch(x, p.x.step, 0, shared.x[0]);
      fetch_filter(0, 0, 0);
    }
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      const int now = static_cast<int>(tile % 2), count = count_of(tile);
      const int at = Tiles::place() * K, own = maximum(minimum(count - at, K), 0), whole = own / per_chunk;
      const bool last_sample = tile == 0 && own > 0 && at + own == count;
      const unsigned char* const own_x = Tiles::own(shared.x[now]);
      double gx[K];
      TORCH_IIR_UNROLL
      for (int k = 0; k < K; ++k) gx[k] = 0;
      if (whole * per_chunk < own) {
        for (int i = 0; i < per_chunk; ++i) shared.rest[i] = 0;  // this thread's alone
      }
      TORCH_IIR_NO_UNROLL
      for (int f = 0; f < filters; ++f) {
        typename Bank::Filter& filter = shared.filters[f];
        TileOf::arrive();  // and the other buffer, and warp_states, are done with
        if (f + 1 < filters) fetch_filter(tile, f + 1, buffer ^ 1);
        else if (tile + 1 < tiles) fetch_filter(tile + 1, 0, buffer ^ 1);
        if (f == 0 && with_x && tile + 1 < tiles) fetch(x, p.x.step, tile + 1, shared.x[now ^ 1]);
        const unsigned char* const g = Tiles::own(shared.buffers[buffer].g);
        const unsigned char* const y = Tiles::own(shared.buffers[buffer].y);
        const bool usable = filter.usable;
        const Coefficients<N> c = filter.c;
        Vector<N> w = last_sample ? filter.gamma : zero_vector<N>();
        if (usable) {
          const Vector<N> scanned = scan_warp(filter.powers, Tiles::run(c, w, g, own, recursive, Format<Sample>{}));
          if (lane() == warp_size - 1) shared.warp_states.total[warp()] = scanned;
          sync();
          w = enter_thread(filter.powers, scanned,
                           after_warps(filter.powers, shared.warp_states, warp(), filter.state[now]));
          if (last_sample) w = filter.gamma;
        }
        Correlations<N> sums = no_correlations<N>();
        // All threads at once; one after another, each from the state that the one before leaves, where they must.
        const int turns = usable ? 1 : block_threads;
        TORCH_IIR_NO_UNROLL
        for (int turn = 0; turn < turns; ++turn) {
          if (!usable) {
            sync();
            if (turn > 0 && turn == thread() && !last_sample) w = filter.state[now ^ 1];
            else if (turn == 0 && thread() == 0 && tile > 0) w = filter.state[now];
          }
          if (!usable && turn != thread()) continue;
          TORCH_IIR_NO_UNROLL
          for (int k = own - 1; k >= whole * per_chunk; --k) {
            const double v = next_value(c, w, widen(reinterpret_cast<const Sample*>(g)[k]));
            shared.rest[k % per_chunk] += input_gradient(c, w, v);
            if (with_x) correlate_x(sums, w, v, widen(reinterpret_cast<const Sample*>(own_x)[k]));
            if (with_y) correlate_y(sums, w, widen(reinterpret_cast<const Sample*>(y)[k]));
            shift(w, v, recursive);
          }
          TORCH_IIR_UNROLL
          for (int chunk = Bank::chunks - 1; chunk >= 0; --chunk) {
            if (chunk >= whole) continue;
            Sample of_g[per_chunk], of_x[per_chunk] = {}, of_y[per_chunk] = {};
            Tiles::read(of_g, g, chunk);
            if (with_x) Tiles::read(of_x, own_x, chunk);
            if (with_y) Tiles::read(of_y, y, chunk);
            TORCH_IIR_UNROLL
            for (int i = per_chunk - 1; i >= 0; --i) {
              const double v = next_value(c, w, widen(of_g[i]));
              gx[chunk * per_chunk + i] += input_gradient(c, w, v);
              if (with_x) correlate_x(sums, w, v, widen(of_x[i]));
              if (with_y) correlate_y(sums, w, widen(of_y[i]));
              shift(w, v, recursive);
            }
          }
          if (at == 0 || !usable) filter.state[now ^ 1] = w;
        }
        if (with_x) {
          add_up_warp(
              sums, [&](bool of_b, int k, double sum) { (of_b ? filter.sums.b[k] : filter.sums.a[k])[warp()] += sum; });
        }
        buffer ^= 1;
      }

      // The tile's gx: each rank has its share of the samples. The buffer that is not being filled is free.
      typename Bank::Buffers& free = shared.buffers[buffer ^ 1];
      sync();
      if (thread() == 0) shared.free = buffer ^ 1;
      TORCH_IIR_UNROLL
      for (int k = 0; k < K; ++k) *Bank::exchange(free, at + k) = gx[k];
      for (int k = whole * per_chunk; k < own && filters > 0; ++k)
        *Bank::exchange(free, at + k) = shared.rest[k % per_chunk];
      sync_ranks();
      const auto of_rank = [&](int other) ->
          typename Bank::Shared& { return ranks > 1 ? *in_cluster(&shared, other) : shared; };
      unsigned frees = 0;
      for (int other = 0; other < ranks; ++other) frees |= static_cast<unsigned>(of_rank(other).free) << other;
      Sample* const to = plan.gx == nullptr ? p.gx.row(p.batch, plan.sharing.row(signal, 0)) : nullptr;
      for (int i = rank * block_threads + thread(); i < count; i += ranks * block_threads) {
        double sum = 0;
        for (int other = 0; other < ranks; ++other)
          sum += *Bank::exchange(of_rank(other).buffers[frees >> other & 1], i);
        const std::int64_t t = first_of(tile) + i;
        if (plan.gx == nullptr) to[t * p.gx.step] = narrow<Sample>(sum);
        else plan.gx[unit * p.samples + t] = sum;
      }
      sync_ranks();
    }
    sync();
    for (int f = 0; f < filters; ++f) {
      const typename Bank::Filter& filter = shared.filters[f];
      const std::int64_t row = row_of(f);
      if (plan.coefficients != nullptr) put_totals(p, plan, row, 0, filter.c, filter.sums);
      if (!p.gzi || thread() >= plan.order) continue;
      const double v = tiles == 0 ? filter.gamma[thread()] : filter.state[tiles % 2][thread()];
      if (plan.gzi != nullptr) plan.gzi[row * plan.order + thread()] = v;
      else store(p.gzi, p.gzi.row(p.batch, row) + thread() * p.gzi.step, v);
    }
  }
}

// Whether each of the rows that share gx reads the same x, and has a gradient to go back from.
template <class Sample>
bool is_bank(const LFilterBackward<Sample>& p) {
  if (!p.gx || !p.gy || p.gx.each != nullptr || p.x.each != nullptr) return false;
  for (int d = 0; d < p.batch.dims; ++d) {
    if (p.batch.size[d] > 1 && p.gx.stride[d] == 0 && p.x.stride[d] != 0) return false;
  }
  return is_shared(p.batch, p.gx);
}

// unsupported where the problem is none, or where its rows are better cut along time.
template <class Sample>
Status run_lfilter_bank_backward(const LFilterBackward<Sample>& p, const Queue& queue) {
  using Bank = BankBackward<Sample>;
  if (!is_bank(p)) return Status::unsupported;
  const Device here = device();
  Scratch scratch(queue);
  BackwardPlan plan;
  plan.order = maximum(p.b_length, p.a_length) - 1;
  plan.sharing = sharing_of(p.batch, p.gx);
  const std::int64_t filters = plan.sharing.sharers;
  int ranks = 1;
  while (here.clusters && ranks < most_in_cluster && 2 * ranks <= filters) ranks *= 2;
  const auto up = [](std::int64_t count, std::int64_t by) { return (count + by - 1) / by; };

  const std::int64_t blocks = plan.sharing.targets * ranks, most = most_slices(p, plan.sharing);
  const std::int64_t least = up(filters, ranks * Bank::most_filters), whole = up(filters, ranks);
  plan.slices = maximum(least, minimum(up(2 * here.processors, blocks), minimum(most, whole)));
  constexpr std::int64_t many_tiles = 16;
  if (2 * plan.slices * blocks < here.processors && most >= filters && p.samples > many_tiles * Bank::tile)
    return Status::unsupported;
  plan.per_slice = up(filters, plan.slices);
  plan.slices = up(filters, plan.per_slice);
  plan.blocks_of_unit = ranks;
  if (plan.slices > 1) plan.gx = scratch.take<double>(plan.units() * p.samples);
  take_sums(p, scratch, plan);
  if (!scratch.ok()) return Status::out_of_memory;
  const std::int64_t units = minimum(plan.units(), most_blocks / ranks);
  const Status status = launch(
      queue, {units * ranks, Bank::block_threads, static_cast<std::int64_t>(sizeof(typename Bank::Shared)), ranks},
      lfilter_bank_backward<Sample>, p, plan, static_cast<int>(up(plan.per_slice, ranks)));
  return status == Status::ok ? finish_backward(p, queue, scratch, plan, Format<Sample>{}) : status;
}

}  // namespace torch_iir::cuda
