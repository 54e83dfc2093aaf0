// lfilter of banks: several filters of order up to 2 read one row of input.
//
// A block has a row of x, a signal, and a slice of up to 8 filters. A tile of x is fetched once and widened once, into
// registers, where it stays while all filters of the slice run over it: first each from rest, which gives what the tile
// does to its state, then, after one exchange for all of them, from the state that it really has. A cluster has a tile
// a block at a time, where signals and slices alone are too few blocks; see lfilter_tiles.h.
//
// From rest, samples of 32 bits go through w[t] = x[t] − a1 w[t−1] − a2 w[t−2] alone, 2 multiply-adds in place of 5, as
// only the state at the end is asked for, which follows from the last two w:
//
//   z0 = (b1 − a1 b0) w[t] + (b2 − a2 b0) w[t−1]       z1 = (b2 − a2 b0) w[t] + (b2 a1 − a2 b1) w[t−1]
//
// Over a thread's 32 samples w grows to at most some 500 times x where |poles| ≤ 1, and with it the rounding of double:
// nothing to a float, but something to a double, whose states come from the transposed form as elsewhere.
//
// Counted, not measured, for float (double), a tile of 4096 (2048) samples: 4 (8) bytes an output written, half a byte
// (one) read; 8.3 (12.5) multiply-adds in double an output, of 14 (27) that there is time for at the speed of a copy;
// one conversion an output; 9 (18) bytes of shared memory an output; 55 KB of it and 128 registers a thread at most: 4
// blocks on a multiprocessor. 32 signals × 128 filters: 512 blocks, all under way at once on 132 of them.
#pragma once

#include "carry.h"
#include "launch.h"
#include "lfilter_tiles.h"
#include "numbers.h"
#include "tile.h"

namespace torch_iir::cuda {

struct BankPlan {
  std::int64_t signals, filters, slices;
  int filters_of_slice, cluster_size;
};

template <class Sample>
struct LFilterBank {
  static constexpr int N = 2, K = 128 / sizeof(Sample), block_threads = 128, warps = 4, most_filters = 8;
  static constexpr bool by_all_pole = sizeof(Sample) == 4;
  using TileOf = Tile<Sample, K, block_threads>;
  static constexpr int tile = TileOf::samples;

  struct Filter {
    Coefficients<N> c;
    Matrix<N> lanes[lane_steps + 1], tile;  // powers of A, as in Powers
    Matrix<N> from_all_pole;
    Vector<N> state;            // at the beginning of the next tile, or of the cluster's next tiles
    Vector<N> of_warps[warps];  // totals, then what each warp begins with
    Sample* y;
    bool usable;  // the powers are finite
  };
  struct Shared {
    alignas(16) unsigned char x[TileOf::bytes], y[TileOf::bytes];
    Vector<N> before[most_filters][block_threads];  // that a thread begins with, had its warp begun at rest
    Filter filters[most_filters];
  };
  struct ClusterShared : Shared {
    Vector<N> of_blocks[2][most_filters][most_in_cluster];  // totals of the cluster's tiles, now and the time before
  };
};

// By one thread, from A in tile. K and the block's warps are powers of two.
template <class Bank>
TORCH_IIR_GPU void build_filter(typename Bank::Filter& f) {
  constexpr int N = Bank::N;
  const auto squared = [](const Precise<N>& of) {
    Precise<N> result;
    TORCH_IIR_UNROLL
    for (int i = 0; i < N; ++i) {
      TORCH_IIR_UNROLL
      for (int j = 0; j < N; ++j) put_squared(result, of, i, j);
    }
    return result;
  };
  const double b0 = f.c.b[0], b1 = f.c.b[1], b2 = f.c.b[2], a1 = f.c.a[1], a2 = f.c.a[2];
  f.from_all_pole = {{{b1 - a1 * b0, b2 - a2 * b0}, {b2 - a2 * b0, b2 * a1 - a2 * b1}}};
  Precise<N> power{{{{-a1, 1}, {-a2, 0}}}, {}};
  TORCH_IIR_NO_UNROLL
  for (int k = 1; k < Bank::K; k *= 2) power = squared(power);
  TORCH_IIR_NO_UNROLL
  for (int j = 0; j < lane_steps; ++j) {
    f.lanes[j] = power.high;
    power = squared(power);
  }
  f.lanes[lane_steps] = power.high;
  TORCH_IIR_NO_UNROLL
  for (int w = 1; w < Bank::warps; w *= 2) power = squared(power);
  f.tile = power.high;
  // What is not finite stays so as it is squared: inf · 0 is NaN, and no sum of it is a number.
  bool usable = true;
  TORCH_IIR_UNROLL
  for (int i = 0; i < N; ++i) {
    TORCH_IIR_UNROLL
    for (int j = 0; j < N; ++j) usable = usable && isfinite(power.high.m[i][j]) && isfinite(f.from_all_pole.m[i][j]);
  }
  f.usable = usable;
}

// One thread, one sample after another: a filter whose powers overflow.
template <class Sample, int N>
TORCH_IIR_GPU void filter_directly(const LFilter<Sample>& p, std::int64_t row, int order, const Coefficients<N>& c,
                                   const Sample* x, Sample* y) {
  Vector<N> z = load_state<Sample, N>(p, row, order);
  TORCH_IIR_NO_UNROLL
  for (std::int64_t t = 0; t < p.samples; ++t) y[t * p.y.step] = narrow<Sample>(c.step(z, widen(x[t * p.x.step])));
  store_state<Sample, N>(p, row, order, z);
}

// Rows are signals × filters. zf may be zi, as in lfilter_rows. What is written to shared memory in one phase is read
// in the next one by others only behind a barrier; before[][t] is the thread's own, and a warp's part of y the warp's.
template <class Sample>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS((LFilterBank<Sample>::block_threads), 4)
    lfilter_bank(LFilter<Sample> p, BankPlan plan) {
  using Bank = LFilterBank<Sample>;
  using TileOf = typename Bank::TileOf;
  constexpr int N = Bank::N, K = Bank::K, per_chunk = TileOf::per_chunk, of_warp = K * warp_size;
  struct alignas(16) Chunk {
    Sample samples[per_chunk];
  };
  auto& shared = *reinterpret_cast<typename Bank::ClusterShared*>(shared_memory());  // of_blocks only in a cluster
  const TileOf x_tile{shared.x}, y_tile{shared.y};
  const std::int64_t tiles = (p.samples + Bank::tile - 1) / Bank::tile, items = plan.signals * plan.slices;
  const int order = maximum(p.b_length, p.a_length) - 1, cluster_size = plan.cluster_size;
  const int rank = cluster_size > 1 ? cluster_rank() : 0;
  int turn = 0;
  if (cluster_size > 1) cluster_sync();  // from now on all blocks are there, and their shared memory can be written to

  TORCH_IIR_NO_UNROLL
  for (std::int64_t item = block() / cluster_size; item < items; item += blocks() / cluster_size) {
    sync();  // the item before has left shared memory
    const std::int64_t signal = item / plan.slices, slice = item - signal * plan.slices;
    const std::int64_t first_filter = slice * plan.filters_of_slice;
    const std::int64_t first_row = signal * plan.filters + first_filter;
    const int filters = static_cast<int>(minimum<std::int64_t>(plan.filters - first_filter, plan.filters_of_slice));
    const Sample* const x = row_pointer(p.x, p.batch, first_row);
    const auto count = [&](std::int64_t tile) {
      return static_cast<int>(minimum<std::int64_t>(p.samples - tile * Bank::tile, Bank::tile));
    };
    const auto fetch = [&](std::int64_t tile) {
      x_tile.fetch(x + tile * Bank::tile * p.x.step, p.x.step, count(tile));
    };
    if (rank < tiles) fetch(rank);

    // Four threads a filter load its coefficients; then one has it to itself.
    {
      const int f = thread() / 4, i = thread() % 4;
      const bool loads = f < filters && i <= N;
      double a0 = 1;
      if (loads) {
        const std::int64_t b = row_offset(p.b, p.batch, first_row + f), a = row_offset(p.a, p.batch, first_row + f);
        shared.filters[f].c.b[i] = i < p.b_length ? load(p.b, b + i * p.b.step) : 0.0;
        shared.filters[f].c.a[i] = i < p.a_length ? load(p.a, a + i * p.a.step) : 0.0;
      }
      sync();
      if (loads) a0 = shared.filters[f].c.a[0];
      sync();
      if (loads) {
        shared.filters[f].c.b[i] /= a0;
        shared.filters[f].c.a[i] /= a0;
      }
      sync();
    }
    if (thread() < filters) {
      typename Bank::Filter& filter = shared.filters[thread()];
      build_filter<Bank>(filter);
      filter.state = load_state<Sample, N>(p, first_row + thread(), order);
      filter.y = row_pointer(p.y, p.batch, first_row + thread());
    }

    TORCH_IIR_NO_UNROLL
    for (std::int64_t first = 0; first < tiles; first += cluster_size) {
      const std::int64_t tile = first + rank, next = tile + cluster_size;
      TileOf::arrive();
      if (tile >= tiles) {  // the last round has no tile for this block, and nobody waits for a total behind the last
        cluster_sync();
        turn ^= 1;
        continue;
      }
      double v[K];  // samples behind the row's end are whatever lies there: what they do comes to no one's ears
      {
        const auto* const chunks = reinterpret_cast<const Chunk*>(shared.x + thread() * TileOf::bytes_of_thread);
        TORCH_IIR_UNROLL
        for (int c = 0; c < TileOf::chunks; ++c) {
          const Chunk chunk = chunks[c];
          TORCH_IIR_UNROLL
          for (int i = 0; i < per_chunk; ++i) v[c * per_chunk + i] = widen(chunk.samples[i]);
        }
      }
      sync();  // all have read: the next tile may come. The row's last one stays, for the final state
      if (next < tiles) fetch(next);

      TORCH_IIR_NO_UNROLL
      for (int f = 0; f < filters; ++f) {
        typename Bank::Filter& filter = shared.filters[f];
        if (!filter.usable) continue;
        Vector<N> s = zero_vector<N>();
        if constexpr (Bank::by_all_pole) {
          const double a1 = filter.c.a[1], a2 = filter.c.a[2];
          Vector<N> w = zero_vector<N>();
          TORCH_IIR_UNROLL
          for (int k = 0; k < K; ++k) {
            const double now = fma(-a1, w[0], fma(-a2, w[1], v[k]));
            w[1] = w[0];
            w[0] = now;
          }
          s = carried(filter.from_all_pole, w, s);
        } else {
          const Coefficients<N> c = filter.c;
          TORCH_IIR_UNROLL
          for (int k = 0; k < K; ++k) c.step(s, v[k]);
        }
        TORCH_IIR_UNROLL
        for (int j = 0; j < lane_steps; ++j) {
          const Vector<N> others = shuffle_up(s, 1 << j);
          if (lane() >= 1 << j) s = carried(filter.lanes[j], others, s);
        }
        if (lane() == warp_size - 1) filter.of_warps[warp()] = s;
        s = shuffle_up(s, 1);
        shared.before[f][thread()] = lane() > 0 ? s : zero_vector<N>();
      }
      sync();

      // A thread has a filter: from the totals of its warps to what they begin with.
      const bool has_filter = thread() < filters && shared.filters[thread() < filters ? thread() : 0].usable;
      if (cluster_size > 1) {
        if (has_filter) {
          const typename Bank::Filter& filter = shared.filters[thread()];
          Vector<N> total = filter.of_warps[0];
          TORCH_IIR_NO_UNROLL
          for (int w = 1; w < Bank::warps; ++w) total = carried(filter.lanes[lane_steps], total, filter.of_warps[w]);
          TORCH_IIR_NO_UNROLL
          for (int other = 0; other < cluster_size; ++other)
            in_cluster(&shared, other)->of_blocks[turn][thread()][rank] = total;
        }
        cluster_sync();
      }
      if (has_filter) {
        typename Bank::Filter& filter = shared.filters[thread()];
        Vector<N> entry = filter.state;
        if (cluster_size > 1) {
          Vector<N> state = entry;
          TORCH_IIR_NO_UNROLL
          for (int other = 0; other < cluster_size; ++other) {
            if (other == rank) entry = state;
            state = carried(filter.tile, state, shared.of_blocks[turn][thread()][other]);
          }
          filter.state = state;
        }
        TORCH_IIR_NO_UNROLL
        for (int w = 0; w < Bank::warps; ++w) {
          const Vector<N> total = filter.of_warps[w];
          filter.of_warps[w] = entry;
          entry = carried(filter.lanes[lane_steps], entry, total);
        }
        if (cluster_size == 1) filter.state = entry;
      }
      turn ^= 1;
      sync();

      const int samples = count(tile), own = samples - thread() * K;
      const int sent = maximum(minimum(samples - warp() * of_warp, of_warp), 0);  // by this warp
      const std::int64_t sent_from = tile * Bank::tile + warp() * of_warp;
      const bool ends = p.zf && own > 0 && own <= K && tile * Bank::tile + samples == p.samples;
      TORCH_IIR_NO_UNROLL
      for (int f = 0; f < filters; ++f) {
        const typename Bank::Filter& filter = shared.filters[f];
        if (!filter.usable) continue;
        const Coefficients<N> c = filter.c;
        Vector<N> z = filter.of_warps[warp()];
        TORCH_IIR_UNROLL
        for (int j = 0; j < lane_steps; ++j) {
          if ((lane() >> j & 1) != 0) z = carried(filter.lanes[j], z, zero_vector<N>());
        }
        if (lane() > 0) {
          const Vector<N> before = shared.before[f][thread()];
          TORCH_IIR_UNROLL
          for (int i = 0; i < N; ++i) z[i] += before[i];
        }
        if (ends) {
          Vector<N> end = z;
          TORCH_IIR_NO_UNROLL
          for (int k = 0; k < own; ++k) c.step(end, widen(*x_tile.place(thread() * K + k)));
          store_state<Sample, N>(p, first_row + f, order, end);
        }
        auto* const chunks = reinterpret_cast<Chunk*>(shared.y + thread() * TileOf::bytes_of_thread);
        TORCH_IIR_UNROLL
        for (int part = 0; part < TileOf::chunks; ++part) {
          Chunk chunk;
          TORCH_IIR_UNROLL
          for (int i = 0; i < per_chunk; ++i) chunk.samples[i] = narrow<Sample>(c.step(z, v[part * per_chunk + i]));
          chunks[part] = chunk;
        }
        sync_warp();
        // The warp's own samples, side by side.
        Sample* const to = filter.y + sent_from * p.y.step;
        int done = 0;
        if (p.y.step == 1 && reinterpret_cast<std::uintptr_t>(to) % 16 == 0) {
          done = sent / per_chunk * per_chunk;
          for (int i = lane() * per_chunk; i < done; i += warp_size * per_chunk)
            *reinterpret_cast<Chunk*>(to + i) = *reinterpret_cast<const Chunk*>(y_tile.place(warp() * of_warp + i));
        }
        for (int i = done + lane(); i < sent; i += warp_size) to[i * p.y.step] = *y_tile.place(warp() * of_warp + i);
        sync_warp();
      }
    }
    if (rank == 0 && thread() < filters && !shared.filters[thread()].usable) {
      const typename Bank::Filter& filter = shared.filters[thread()];
      filter_directly<Sample, N>(p, first_row + thread(), order, filter.c, x, filter.y);
    }
  }
}

// unsupported where the problem is no bank, or too small a one for this device.
template <class Sample>
Status run_lfilter_bank(const LFilter<Sample>& p, const Queue& queue) {
  using Bank = LFilterBank<Sample>;
  constexpr std::int64_t fewest_filters = 4;
  if (p.samples == 0 || p.x.each != nullptr || p.y.each != nullptr) return Status::unsupported;
  // The dimensions in which x moves come first.
  LFilter<Sample> bank = p;
  BankPlan plan{1, 1, 1, 1, 1};
  int to = 0;
  const auto take = [&](bool moves) {
    for (int d = 0; d < p.batch.dims; ++d) {
      if ((p.x.stride[d] != 0) != moves) continue;
      (moves ? plan.signals : plan.filters) *= p.batch.size[d];
      bank.batch.size[to] = p.batch.size[d];
      bank.x.stride[to] = p.x.stride[d];
      bank.y.stride[to] = p.y.stride[d];
      bank.b.stride[to] = p.b.stride[d];
      bank.a.stride[to] = p.a.stride[d];
      bank.zi.stride[to] = p.zi.stride[d];
      bank.zf.stride[to] = p.zf.stride[d];
      ++to;
    }
  };
  take(true);
  take(false);
  if (plan.filters < fewest_filters) return Status::unsupported;

  const std::int64_t tiles = (p.samples + Bank::tile - 1) / Bank::tile;
  const Device here = device();
  plan.filters_of_slice = static_cast<int>(minimum<std::int64_t>(plan.filters, Bank::most_filters));
  const auto blocks = [&] {
    plan.slices = (plan.filters + plan.filters_of_slice - 1) / plan.filters_of_slice;
    return plan.signals * plan.slices * plan.cluster_size;
  };
  // Blocks enough for two on each multiprocessor: by clusters, then by smaller slices, which read x more often.
  const std::int64_t enough = 2 * std::int64_t{here.processors};
  while (here.clusters && blocks() < enough && plan.cluster_size < most_in_cluster && plan.cluster_size < tiles)
    plan.cluster_size *= 2;
  while (blocks() < enough && plan.filters_of_slice > 2) plan.filters_of_slice = (plan.filters_of_slice + 1) / 2;
  constexpr std::int64_t many_tiles = 32;
  if (2 * blocks() < here.processors && tiles > many_tiles) return Status::unsupported;

  const std::int64_t items = plan.signals * plan.slices;
  const auto shared_bytes = static_cast<std::int64_t>(plan.cluster_size > 1 ? sizeof(typename Bank::ClusterShared)
                                                                            : sizeof(typename Bank::Shared));
  return launch(queue,
                {minimum(items, most_blocks / plan.cluster_size) * plan.cluster_size, Bank::block_threads, shared_bytes,
                 plan.cluster_size},
                lfilter_bank<Sample>, bank, plan);
}

}  // namespace torch_iir::cuda
