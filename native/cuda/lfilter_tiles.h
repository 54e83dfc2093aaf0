// lfilter of orders up to 8: tiles whose threads run over their samples twice, see carry.h.
//
// A tile lies in shared memory all the time. Each thread runs over its own samples there from rest; the states are put
// together; it runs over them again, from the state that it really begins with, and puts the outputs in their place. So
// no thread has its samples in registers, and samples are converted twice, which costs less than registers do.
//
// Forms, all by one scheme (how many tiles of a row are under way at a time, and who has them):
//   row        a block has all tiles of its row
//   cluster    the blocks of a cluster, 2 to 8, have a tile each, then the next ones: totals go to all of them by their
//              shared memory
//   lookback   any number of blocks has a row; they draw its tiles, in order
//
// Counted, not measured, for order 2, float (double, half), a tile of 4096 (2048, 8192) samples, 128 threads:
//   global memory     8 (16, 4) bytes a sample; with look-back 32 bytes more a tile, and 4 KB on average from the cache
//   shared memory     5 accesses to a sample, 38 KB a block: 5 blocks on a multiprocessor of 227 KB, 80 KB under way
//   registers         96 at most, no stack, for 5 (5, 4) blocks
//   flops in double   10 multiply-adds a sample in the two runs, 48 a thread to scan: 11.5 (13, 10.8) a sample. At the
//                     speed of a copy a multiprocessor has time for 27 (55, 14)
//   latency           16 cycles a sample and run, as each waits for two multiply-adds: 5 warps on a scheduler hide it
// Order 4: 23 multiply-adds of the 27, 128 registers, 4 blocks. Order 8, float: 64 threads of 64 samples, 34 + 10
// multiply-adds a sample, which is 60 % of a copy's speed; 244 registers, 4 blocks, 48 KB.
// A row's filter takes some 2 microseconds to be prepared, mostly the powers, while the first tile is on its way.
#pragma once

#include "carry.h"
#include "launch.h"
#include "numbers.h"
#include "tile.h"

namespace torch_iir::cuda {

// How a row's tiles are spread over blocks.
enum class Form { row, cluster, lookback };

// Where a row begins: rows of one dimension, the usual ones, take no division.
template <class T>
TORCH_IIR_GPU std::int64_t row_offset(const T& rows, const Batch& batch, std::int64_t row) {
  if (batch.dims <= 1) return row * rows.stride[0];
  std::int64_t elements = 0;
  TORCH_IIR_NO_UNROLL
  for (int d = batch.dims - 1; d >= 0; --d) {
    const std::int64_t rest = row / batch.size[d];
    elements += (row - rest * batch.size[d]) * rows.stride[d];
    row = rest;
  }
  return elements;
}
template <class T>
TORCH_IIR_GPU T* row_pointer(const Rows<T>& rows, const Batch& batch, std::int64_t row) {
  return rows.each != nullptr ? rows.each[row] : rows.data + row_offset(rows, batch, row);
}

// The coefficients of a filter of order up to N, divided by a[0].
template <int N>
struct Coefficients {
  double b[N + 1], a[N + 1];

  // One sample through the transposed direct form II.
  TORCH_IIR_GPU double step(Vector<N>& z, double x) const {
    const double y = fma(b[0], x, z[0]);
    TORCH_IIR_UNROLL
    for (int i = 0; i < N; ++i) {
      const double next = i + 1 < N ? z[i + 1 < N ? i + 1 : i] : 0;
      z[i] = fma(-a[i + 1], y, fma(b[i + 1], x, next));  // y, which comes last, waits for one product alone
    }
    return y;
  }
};

// By the whole block: the coefficients of a row, from wherever they lie, to shared memory. Ends with a barrier.
template <int N, class State, class Problem>
TORCH_IIR_GPU void load_coefficients(const Problem& p, std::int64_t row, Coefficients<N>& to) {
  const std::int64_t b = row_offset(p.b, p.batch, row), a = row_offset(p.a, p.batch, row);
  if (thread() <= N) {
    const int i = thread();
    const double a0 = load(p.a, a);
    to.b[i] = i < p.b_length ? load(p.b, b + i * p.b.step) / a0 : 0.0;
    to.a[i] = i < p.a_length ? load(p.a, a + i * p.a.step) / a0 : 0.0;
  }
  sync();
}

// A, as build() wants it: what a sample does to a state.
template <int N>
TORCH_IIR_GPU void put_transition(const Coefficients<N>& c, Matrix<N>& to) {
  for (int entry = thread(); entry < N * N; entry += threads()) {
    const int i = entry / N, j = entry % N;
    to.m[i][j] = (j == 0 ? -c.a[i + 1] : 0.0) + (j == i + 1 ? 1.0 : 0.0);
  }
  sync();
}

template <class Sample, int N>
TORCH_IIR_GPU Vector<N> load_state(const LFilter<Sample>& p, std::int64_t row, int order) {
  Vector<N> state = zero_vector<N>();
  if (p.zi) {
    const std::int64_t at = row_offset(p.zi, p.batch, row);
    TORCH_IIR_UNROLL
    for (int i = 0; i < N; ++i) {
      if (i < order) state[i] = load(p.zi, at + i * p.zi.step);
    }
  }
  return state;
}

template <class Sample, int N>
TORCH_IIR_GPU void store_state(const LFilter<Sample>& p, std::int64_t row, int order, const Vector<N>& state) {
  if (!p.zf) return;
  const std::int64_t at = row_offset(p.zf, p.batch, row);
  TORCH_IIR_UNROLL
  for (int i = 0; i < N; ++i) {
    if (i < order) store(p.zf, at + i * p.zf.step, state[i]);
  }
}

// Samples of 16 bits are Half to the compiler, so that one kernel serves both of their formats.
template <class Sample>
struct Format {
  bool bfloat16 = false;

  TORCH_IIR_GPU double widen(Sample x) const {
    if constexpr (std::is_same_v<Sample, Half>) {
      return bfloat16 ? bfloat16_to_double(x.bits) : half_to_double(x.bits);
    } else {
      return cuda::widen(x);
    }
  }
  TORCH_IIR_GPU Sample narrow(double x) const {
    if constexpr (std::is_same_v<Sample, Half>) {
      return {bfloat16 ? bfloat16_of(x) : half_of(x)};
    } else {
      return cuda::narrow<Sample>(x);
    }
  }
};

inline constexpr int most_in_cluster = 8;
inline constexpr int look_own_steps = 3;  // 2^3 = look_own
static_assert(1 << look_own_steps == look_own && look_own_steps + lane_steps == look_steps);

template <class Sample, int N>
struct LFilterTiles {
  static constexpr int bytes_of_thread = N > 4 ? 256 : 128;
  static constexpr int K = bytes_of_thread / sizeof(Sample);
  static constexpr int block_threads = N > 4 ? 64 : 128;
  static constexpr int warps = block_threads / warp_size;
  static constexpr int resident_blocks = N > 2 || sizeof(Sample) == 2 ? 4 : 5;  // on a multiprocessor
  using TileOf = Tile<Sample, K, block_threads>;
  static constexpr int tile = TileOf::samples;

  // A thread goes over its samples in parts of this many.
  static constexpr int part = 64 / sizeof(Sample), parts = K / part;

  struct Shared {
    alignas(16) unsigned char samples[2][TileOf::bytes];  // the tile, and the one that comes next
    Powers<N> powers;
    Coefficients<N> coefficients;
    Vector<N> totals[warps], entries[warps];  // what each warp leaves behind from rest, and what it begins with
    Vector<N> state;                          // at the beginning of the next tile, or of the cluster's next tiles
    Vector<N> of_blocks[2][most_in_cluster];  // totals of the tiles of the cluster, now and the time before
  };
  struct LookBackShared : Shared {
    Vector<N> seen[look_group];  // totals of the tiles of the group before this one
    unsigned ticket[2];
  };
};

// What the blocks of a row leave each other: the totals of its tiles, and the state at the beginning of each group of
// look_group tiles. A number and its flag are one word, so nothing else has to be ordered and no fence is needed.
struct LookBackMemory {
  unsigned* ticket;  // of each row: tiles drawn so far
  Word* totals;      // rows × tiles × N
  Word* behind;      // rows × (groups + 1) × N
};

// What a block does with a row. All threads call every function.
template <class Sample, int N>
struct LFilterRow {
  using Tiles = LFilterTiles<Sample, N>;
  using Shared = typename Tiles::Shared;
  static constexpr int K = Tiles::K;

  const LFilter<Sample>& p;
  Format<Sample> format;
  Shared& shared;
  int order;
  std::int64_t row;
  const Sample* x;
  Sample* y;

  TORCH_IIR_GPU int count(std::int64_t tile) const {
    return static_cast<int>(minimum<std::int64_t>(p.samples - tile * Tiles::tile, Tiles::tile));
  }
  TORCH_IIR_GPU void fetch(std::int64_t tile, int buffer) const {
    typename Tiles::TileOf{shared.samples[buffer]}.fetch(x + tile * Tiles::tile * p.x.step, p.x.step, count(tile));
  }

  // False if a power of A is not finite.
  TORCH_IIR_GPU bool prepare(bool looks_back) const {
    load_coefficients<N, double>(p, row, shared.coefficients);
    put_transition(shared.coefficients, shared.powers.tile);
    return build(shared.powers, K, looks_back);
  }

  // One thread, one sample after another; the others fetch and send. Of a filter whose powers overflow.
  TORCH_IIR_GPU void run_directly() const {
    const typename Tiles::TileOf tile{shared.samples[0]};
    Vector<N> z = zero_vector<N>();
    if (thread() == 0) z = load_state<Sample, N>(p, row, order);
    TORCH_IIR_NO_UNROLL
    for (std::int64_t at = 0; at * Tiles::tile < p.samples; ++at) {
      const int samples = count(at);
      fetch(at, 0);
      Tiles::TileOf::arrive();
      if (thread() == 0) {
        TORCH_IIR_NO_UNROLL
        for (int i = 0; i < samples; ++i)
          *tile.place(i) = format.narrow(shared.coefficients.step(z, format.widen(*tile.place(i))));
      }
      sync();
      tile.send(y + at * Tiles::tile * p.y.step, p.y.step, samples);
      sync();
    }
    if (thread() == 0) store_state<Sample, N>(p, row, order, z);
  }

  TORCH_IIR_GPU Sample* own_part(int buffer, int part) const {
    return reinterpret_cast<Sample*>(shared.samples[buffer] + thread() * Tiles::TileOf::bytes_of_thread) +
           part * Tiles::part;
  }
  struct alignas(16) Chunk {
    Sample samples[Tiles::TileOf::per_chunk];
  };
  static TORCH_IIR_GPU void read(const Sample* from, Sample (&to)[Tiles::part]) {
    TORCH_IIR_UNROLL
    for (int c = 0; c < Tiles::part / Tiles::TileOf::per_chunk; ++c) {
      const Chunk chunk = reinterpret_cast<const Chunk*>(from)[c];
      TORCH_IIR_UNROLL
      for (int i = 0; i < Tiles::TileOf::per_chunk; ++i) to[c * Tiles::TileOf::per_chunk + i] = chunk.samples[i];
    }
  }
  static TORCH_IIR_GPU void write(Sample* to, const Sample (&from)[Tiles::part]) {
    TORCH_IIR_UNROLL
    for (int c = 0; c < Tiles::part / Tiles::TileOf::per_chunk; ++c) {
      Chunk chunk;
      TORCH_IIR_UNROLL
      for (int i = 0; i < Tiles::TileOf::per_chunk; ++i) chunk.samples[i] = from[c * Tiles::TileOf::per_chunk + i];
      reinterpret_cast<Chunk*>(to)[c] = chunk;
    }
  }

  // Samples behind the row's end are whatever lies there: what they do comes to no one's ears, as all that is
  // before them has been computed without them.
  TORCH_IIR_GPU Vector<N> run_from_rest(int buffer) const {
    const Coefficients<N> c = shared.coefficients;
    Vector<N> z = zero_vector<N>();
    TORCH_IIR_NO_UNROLL
    for (int part = 0; part < Tiles::parts; ++part) {
      Sample samples[Tiles::part];
      read(own_part(buffer, part), samples);
      TORCH_IIR_UNROLL
      for (int k = 0; k < Tiles::part; ++k) c.step(z, format.widen(samples[k]));
    }
    return z;
  }
  TORCH_IIR_GPU void run_in_place(int buffer, Vector<N> z) const {
    const Coefficients<N> c = shared.coefficients;
    TORCH_IIR_NO_UNROLL
    for (int part = 0; part < Tiles::parts; ++part) {
      Sample samples[Tiles::part];
      read(own_part(buffer, part), samples);
      TORCH_IIR_UNROLL
      for (int k = 0; k < Tiles::part; ++k) samples[k] = format.narrow(c.step(z, format.widen(samples[k])));
      write(own_part(buffer, part), samples);
    }
  }

  // Of what all warps leave behind from rest: what the tile does.
  TORCH_IIR_GPU Vector<N> total() const {
    Vector<N> state = shared.totals[0];
    TORCH_IIR_NO_UNROLL
    for (int w = 1; w < Tiles::warps; ++w) state = carried(shared.powers.lanes[lane_steps], state, shared.totals[w]);
    return state;
  }
  // By one thread: what each warp begins with, from what the tile begins with. Gives what the next tile begins with.
  TORCH_IIR_GPU Vector<N> put_entries(Vector<N> state) const {
    TORCH_IIR_NO_UNROLL
    for (int w = 0; w < Tiles::warps; ++w) {
      shared.entries[w] = state;
      state = carried(shared.powers.lanes[lane_steps], state, shared.totals[w]);
    }
    return state;
  }

  // The tile that has come to a buffer. `enter()` is called when shared.totals stand, and ends with a barrier behind
  // which shared.entries do. The outputs go to y; of the row's last tile the final state is stored.
  template <class Enter>
  TORCH_IIR_GPU void run(std::int64_t tile, int buffer, Enter&& enter) const {
    const Vector<N> scanned = scan_warp(shared.powers, run_from_rest(buffer));
    if (lane() == warp_size - 1) shared.totals[warp()] = scanned;
    sync();
    enter();
    const Vector<N> z = enter_thread(shared.powers, scanned, shared.entries[warp()]);

    const int samples = count(tile), own = samples - thread() * K;
    if (p.zf && own > 0 && own <= K && tile * Tiles::tile + samples == p.samples) {
      Vector<N> end = z;
      TORCH_IIR_NO_UNROLL
      for (int k = 0; k < own; ++k) shared.coefficients.step(end, format.widen(own_part(buffer, 0)[k]));
      store_state<Sample, N>(p, row, order, end);
    }
    run_in_place(buffer, z);
    sync();
    typename Tiles::TileOf{shared.samples[buffer]}.send(y + tile * Tiles::tile * p.y.step, p.y.step, samples);
  }
};

// A block has all tiles of its row, or one in cluster_size of them. zf may be zi: in a cluster, every block has read zi
// before it comes to the first cluster_sync(), and zf is written behind it.
template <class Sample, int N>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS((LFilterTiles<Sample, N>::block_threads),
                                       (LFilterTiles<Sample, N>::resident_blocks))
    lfilter_rows(LFilter<Sample> p, std::int64_t rows, Format<Sample> format, int cluster_size) {
  using Tiles = LFilterTiles<Sample, N>;
  auto& shared = *reinterpret_cast<typename Tiles::Shared*>(shared_memory());
  const std::int64_t tiles = (p.samples + Tiles::tile - 1) / Tiles::tile;
  const int rank = cluster_size > 1 ? cluster_rank() : 0;
  int turn = 0;
  if (cluster_size > 1) cluster_sync();  // from now on all blocks are there, and their shared memory can be written to

  TORCH_IIR_NO_UNROLL
  for (std::int64_t row = block() / cluster_size; row < rows; row += blocks() / cluster_size) {
    sync();  // the row before has left shared memory
    const int order = maximum(p.b_length, p.a_length) - 1;
    const LFilterRow<Sample, N> work{
        p, format, shared, order, row, row_pointer(p.x, p.batch, row), row_pointer(p.y, p.batch, row)};
    if (rank < tiles) work.fetch(rank, 0);
    const bool usable = work.prepare(false);
    if (!usable || tiles == 0) {
      Tiles::TileOf::arrive();
      if (rank == 0) work.run_directly();
      continue;
    }
    if (thread() == 0) shared.state = load_state<Sample, N>(p, row, order);

    const auto enter_row = [&] {
      if (thread() == 0) shared.state = work.put_entries(shared.state);
      sync();
    };
    // A block writes its total to where all others of the cluster read it, each in its own memory: to the places of
    // this turn, which none of them reads before the barrier below, and that of the next turn is behind their reading.
    const auto enter_cluster = [&] {
      if (warp() == 0) {
        const Vector<N> total = work.total();
        if (lane() < cluster_size) in_cluster(&shared, lane())->of_blocks[turn][rank] = total;
      }
      cluster_sync();
      if (thread() == 0) {
        Vector<N> state = shared.state, entry = state;
        TORCH_IIR_NO_UNROLL
        for (int other = 0; other < cluster_size; ++other) {
          if (other == rank) entry = state;
          state = carried(shared.powers.tile, state, shared.of_blocks[turn][other]);
        }
        shared.state = state;
        static_cast<void>(work.put_entries(entry));
      }
      turn ^= 1;
      sync();
    };
    int buffer = 0;
    TORCH_IIR_NO_UNROLL
    for (std::int64_t first = 0; first < tiles; first += cluster_size) {
      const std::int64_t tile = first + rank, next = tile + cluster_size;
      // Behind arrive()'s barrier nobody reads the other buffer, whose tile was sent before.
      Tiles::TileOf::arrive();
      if (tile >= tiles) {  // the last round has no tile for this block, and nobody waits for a total behind the last
        cluster_sync();
        turn ^= 1;
        continue;
      }
      if (next < tiles) work.fetch(next, buffer ^ 1);
      work.run(tile, buffer, [&] {
        if (cluster_size > 1) enter_cluster();
        else enter_row();
      });
      buffer ^= 1;
    }
  }
}

// per_row blocks have a row; each draws tile after tile. A block waits for tiles of lower numbers only, which blocks
// that run have drawn: the lowest that is not done can always go on. zf may be zi: only the block of tile 0 reads zi,
// and what the others begin with, and so the last tile's zf, is computed from what it passes on.
template <class Sample, int N>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS((LFilterTiles<Sample, N>::block_threads),
                                       (LFilterTiles<Sample, N>::resident_blocks))
    lfilter_look_back(LFilter<Sample> p, std::int64_t rows, Format<Sample> format, std::int64_t per_row,
                      LookBackMemory memory) {
  using Tiles = LFilterTiles<Sample, N>;
  auto& shared = *reinterpret_cast<typename Tiles::LookBackShared*>(shared_memory());
  const std::int64_t tiles = (p.samples + Tiles::tile - 1) / Tiles::tile;
  const std::int64_t groups = (tiles + look_group - 1) / look_group;
  // Tiles are drawn ahead only where there are many: with one for each block, some would have two and others none.
  const bool ahead = tiles > 2 * per_row;

  TORCH_IIR_NO_UNROLL
  for (std::int64_t row = block() / per_row; row < rows; row += blocks() / per_row) {
    unsigned* const tickets = memory.ticket + row;
    Word* const totals = memory.totals + row * tiles * N;
    Word* const begins = memory.behind + row * (groups + 1) * N;
    const auto draw = [&](int buffer) {
      if (thread() == 0) shared.ticket[buffer] = fetch_add(tickets, 1);
    };
    sync();  // the row before has left shared memory
    draw(0);
    sync();
    std::int64_t tile = shared.ticket[0];
    if (tile >= tiles) continue;
    const int order = maximum(p.b_length, p.a_length) - 1;
    const LFilterRow<Sample, N> work{
        p, format, shared, order, row, row_pointer(p.x, p.batch, row), row_pointer(p.y, p.batch, row)};
    work.fetch(tile, 0);
    const bool usable = work.prepare(true);
    if (!usable) {
      Tiles::TileOf::arrive();
      if (tile == 0) work.run_directly();
      continue;
    }

    // Fixed groups of tiles: the last tile of a group passes on the state behind it, so that nobody looks further back
    // than its own group, and what is added up to what depends on the tile alone. A row's length or who came first do
    // not change it, and a NaN is never left out.
    const auto enter = [&] {
      const std::int64_t group = tile / look_group;
      const int before = static_cast<int>(tile % look_group);  // tiles of the group before this one
      if (thread() == 0) {
        const Vector<N> total = work.total();
        TORCH_IIR_UNROLL
        for (int i = 0; i < N; ++i) store_word(totals + tile * N + i, total[i], 1);
        if (tile == 0) {
          const Vector<N> zi = load_state<Sample, N>(p, row, order);
          TORCH_IIR_UNROLL
          for (int i = 0; i < N; ++i) store_word(begins + i, zi[i], 1);
        }
      }
      // All threads gather, four words at a time, so that waiting for memory is waiting once.
      constexpr int at_once = 4;
      const Word* const from = totals + group * look_group * N;
      double* const to = &shared.seen[0][0];
      TORCH_IIR_NO_UNROLL
      for (int first = thread(); first < before * N; first += at_once * Tiles::block_threads) {
        double values[at_once];
        std::uint64_t flags[at_once];
        TORCH_IIR_UNROLL
        for (int k = 0; k < at_once; ++k) {
          const int i = first + k * Tiles::block_threads;
          flags[k] = 1;
          if (i < before * N) load_word(from + i, values[k], flags[k]);
        }
        TORCH_IIR_UNROLL
        for (int k = 0; k < at_once; ++k) {
          const int i = first + k * Tiles::block_threads;
          if (i < before * N) to[i] = flags[k] != 0 ? values[k] : await(from + i);
        }
      }
      sync();
      if (warp() == 0) {
        // Lane l takes the look_own tiles from l · look_own on, as many of them as lie before this tile …
        Vector<N> sum = zero_vector<N>();
        TORCH_IIR_NO_UNROLL
        for (int k = 0; k < look_own; ++k) {
          const int other = lane() * look_own + k;
          if (other < before) sum = carried(shared.powers.look[0], sum, shared.seen[other]);
        }
        // … the lane in which this tile lies has the state behind the last of them; the whole lanes before it are
        // scanned.
        const int last = before / look_own, own = before % look_own;
        Vector<N> scanned = sum;
        TORCH_IIR_NO_UNROLL
        for (int j = 0; j < lane_steps; ++j) {
          const Vector<N> others = shuffle_up(scanned, 1 << j);
          if (lane() >= 1 << j) scanned = carried(shared.powers.look[look_own_steps + j], others, scanned);
        }
        const Vector<N> whole = shuffle(scanned, last > 0 ? last - 1 : 0), part = shuffle(sum, last);
        // The state over `last` · look_own tiles, plus what these leave; then over `own` tiles, plus what those leave.
        // It comes last, as groups wait for each other in a chain: what follows is all that each link takes.
        if (lane() < N) shared.state[lane()] = await(begins + group * N + lane());
        sync_warp();
        Vector<N> state = shared.state;
        TORCH_IIR_NO_UNROLL
        for (int j = 0; j < lane_steps; ++j) {
          if ((last >> j & 1) != 0) state = carried(shared.powers.look[look_own_steps + j], state, zero_vector<N>());
        }
        TORCH_IIR_UNROLL
        for (int i = 0; i < N; ++i) state[i] += last > 0 ? whole[i] : 0.0;
        TORCH_IIR_NO_UNROLL
        for (int j = 0; j < look_own_steps; ++j) {
          if ((own >> j & 1) != 0) state = carried(shared.powers.look[j], state, zero_vector<N>());
        }
        TORCH_IIR_UNROLL
        for (int i = 0; i < N; ++i) state[i] += own > 0 ? part[i] : 0.0;
        if (lane() == 0) {
          const Vector<N> end = work.put_entries(state);
          if (before == look_group - 1) {
            TORCH_IIR_UNROLL
            for (int i = 0; i < N; ++i) store_word(begins + (group + 1) * N + i, end[i], 1);
          }
        }
      }
      sync();
    };

    int buffer = 0;
    while (tile < tiles) {
      std::int64_t next = tiles;
      if (ahead) draw(buffer ^ 1);
      // Behind arrive()'s barrier the ticket stands, and nobody reads the other buffer, whose tile was sent before.
      Tiles::TileOf::arrive();
      if (ahead) {
        next = shared.ticket[buffer ^ 1];
        if (next < tiles) work.fetch(next, buffer ^ 1);
      }
      work.run(tile, buffer, enter);
      if (!ahead) {
        draw(buffer ^ 1);
        sync();
        next = shared.ticket[buffer ^ 1];
        if (next < tiles) work.fetch(next, buffer ^ 1);
      }
      tile = next;
      buffer ^= 1;
    }
  }
}

template <class Sample, int N>
Status run_lfilter_tiles(const LFilter<Sample>& p, const Queue& queue, Form form, int cluster_size,
                         Format<Sample> format) {
  using Tiles = LFilterTiles<Sample, N>;
  const std::int64_t rows = p.batch.rows(), tiles = (p.samples + Tiles::tile - 1) / Tiles::tile;
  constexpr int block_threads = Tiles::block_threads;
  if (form != Form::lookback) {
    const int size = form == Form::cluster ? cluster_size : 1;
    constexpr auto shared_bytes = static_cast<std::int64_t>(sizeof(typename Tiles::Shared));
    return launch(queue, {minimum(rows, most_blocks / size) * size, block_threads, shared_bytes, size},
                  lfilter_rows<Sample, N>, p, rows, format, size);
  }
  constexpr auto shared_bytes = static_cast<std::int64_t>(sizeof(typename Tiles::LookBackShared));
  const std::int64_t groups = (tiles + look_group - 1) / look_group;
  const std::int64_t words = rows * (tiles + groups + 1) * N, bytes = words * static_cast<std::int64_t>(sizeof(Word));
  const std::int64_t ticket_bytes = rows * static_cast<std::int64_t>(sizeof(unsigned));
  Scratch scratch(queue);
  auto* const memory = scratch.take<unsigned char>(bytes + ticket_bytes);
  if (!scratch.ok()) return Status::out_of_memory;
  const Status status = set_zero(queue, memory, bytes + ticket_bytes);
  if (status != Status::ok) return status;
  auto* const totals = reinterpret_cast<Word*>(memory);
  const std::int64_t resident = std::int64_t{Tiles::resident_blocks} * device().processors;
  const std::int64_t per_row = minimum(maximum<std::int64_t>((resident + rows - 1) / rows, 1), tiles);
  return launch(queue, {minimum(rows, most_blocks / per_row) * per_row, block_threads, shared_bytes},
                lfilter_look_back<Sample, N>, p, rows, format, per_row,
                LookBackMemory{reinterpret_cast<unsigned*>(memory + bytes), totals, totals + rows * tiles * N});
}

// Samples of 16 bits as another of the types that they may be of.
template <class To, class From>
Rows<To> rows_as(const Rows<From>& from) {
  static_assert(sizeof(To) == sizeof(From));
  Rows<To> to{reinterpret_cast<To*>(from.data), from.step, {}, reinterpret_cast<To* const*>(from.each)};
  for (int d = 0; d < max_batch_dims; ++d) to.stride[d] = from.stride[d];
  return to;
}

// What form rows of so many tiles take, and of how many blocks a cluster is.
struct Plan {
  Form form;
  int cluster_size;
};

// All multiprocessors are to be at work, with some blocks on each, whose loads hide each other's waiting. Many rows are
// enough by themselves; a cluster divides fewer rows up; where even clusters are few, and there is much to do, a row
// gets as many blocks as there are.
inline Plan plan_lfilter(std::int64_t rows, std::int64_t tiles, const Device& device, Algorithm algorithm) {
  const std::int64_t enough = 4 * std::int64_t{device.processors};
  int size = 1;
  while (size < most_in_cluster && size < tiles && 2 * size * rows <= enough) size *= 2;
  constexpr std::int64_t many_tiles = 32;
  const bool few = 2 * most_in_cluster * rows < enough;
  switch (algorithm) {
    case Algorithm::rows: return {Form::row, 1};
    case Algorithm::clusters: return {Form::cluster, maximum(size, 2)};
    case Algorithm::lookback: return {tiles == 0 ? Form::row : Form::lookback, 1};
    default: break;
  }
  if (size == 1) return {Form::row, 1};
  if (!device.clusters || (few && tiles > many_tiles)) return {Form::lookback, 1};
  return {Form::cluster, size};
}

}  // namespace torch_iir::cuda
