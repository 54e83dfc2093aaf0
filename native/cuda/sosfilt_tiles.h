// sosfilt: tiles of a row, in which one section follows the other over samples that stay in registers.
//
// A thread has K consecutive samples as doubles. A section runs over them twice: once from rest, for the state that it
// leaves behind, once from the state that carry.h makes of those of all threads; then the next section does. So every
// section has a carry of its own, of 2 numbers, and any number of sections is one kernel. (One carry of 2 S numbers for
// S sections would save barriers, and cost more: its matrices have S times as many numbers as all of theirs.)
//
// From rest only the poles run: w = x / A, and the state at the end is what the last four w and two x make it. K
// samples from rest are too few for w to outgrow x by more than K² / 2, so that little is lost where zeros lie next to
// poles.
//
// Counted, not measured, of a float tile of 128 × 32 samples
//   bytes             one read of x, one write of y: 8 a sample, copied 16 at a time where x and y are aligned to that
//   double precision  8.3 instructions a sample and section: 2 from rest, 5 on the way, 1.3 for the scan; and 2
//                     conversions a sample. Four sections: 33, or 1.9 samples a cycle and multiprocessor of a H100,
//                     whose memory brings 2.3 in the same time: 1.2 times what memory alone would take
//   shared memory     36 KiB and 584 bytes a section, 20 KiB for half, 68 KiB for double
//   registers         168 at most, none spilled: 3 blocks on a multiprocessor; 64 of them are the samples
//
// Races         A tile's buffer is fetched into after the barrier at which the tile after it began. What warps leave
//               each other has two places that take turns, and a barrier between being written and read: nobody
//               comes to the same place again before a barrier that all readers have come to. The states between
//               tiles are read before, and written after, the barrier of their section. Between blocks: see carry.h.
//               In the form `lookback` the initial state of a row is read by the block of its first tile alone,
//               which makes it a part of what it says to the others: so the final state, which may lie in the same
//               place, is written behind that. In a cluster, all blocks have read it before the first cluster_sync;
//               where a row is done directly, those that do not write the final state read the initial one for
//               nothing.
#pragma once

#include "carry.h"
#include "launch.h"
#include "numbers.h"
#include "tile.h"

namespace torch_iir::cuda {

// How a row's tiles are spread over blocks; or one warp has a row, one sample after another.
enum class SectionForm { row, cluster, lookback, direct };

inline constexpr int stretch_between_states = 2048;  // samples between the states that backward begins again from
inline constexpr int stretch_directly = 512;         // the same for what runs one sample after another
inline constexpr std::int64_t most_shared_bytes = 200 << 10;

// --- samples: Half stands for all storage of 16 bits

template <class Sample>
TORCH_IIR_GPU auto widen_any(Sample x, bool) {
  return widen(x);
}
TORCH_IIR_GPU double widen_any(Half x, bool brain) {
  return brain ? bfloat16_to_double(x.bits) : half_to_double(x.bits);
}
template <class Sample, class Value>
TORCH_IIR_GPU Sample narrow_any(Value x, bool brain) {
  if constexpr (std::is_same_v<Sample, Half>) {
    return {brain ? bfloat16_of(x) : half_of(x)};
  } else {
    return narrow<Sample>(x);
  }
}
template <class T>
Rows<std::conditional_t<std::is_const_v<T>, const Half, Half>> as_half(const Rows<T>& rows) {
  using To = std::conditional_t<std::is_const_v<T>, const Half, Half>;
  Rows<To> result{reinterpret_cast<To*>(rows.data), rows.step, {}, reinterpret_cast<To* const*>(rows.each)};
  for (int d = 0; d < max_batch_dims; ++d) result.stride[d] = rows.stride[d];
  return result;
}

// --- a section

TORCH_IIR_GPU double multiply_add(double a, double b, double c) { return fma(a, b, c); }
TORCH_IIR_GPU Complex multiply_add(Complex a, Complex b, Complex c) { return a * b + c; }

// Divided by a0.
template <class Value>
struct Section {
  Value b[3], a[2];  // b0 b1 b2, a1 a2

  // One sample through the transposed direct form II.
  template <class State>
  TORCH_IIR_GPU Value step(State& z, Value x) const {
    const Value once = multiply_add(b[1], x, z[1]), twice = b[2] * x;
    const Value y = multiply_add(b[0], x, z[0]);
    z[0] = multiply_add(-a[0], y, once);
    z[1] = multiply_add(-a[1], y, twice);
    return y;
  }
};

template <class Value, class Problem>
TORCH_IIR_GPU Section<Value> load_section(const Problem& p, std::int64_t row, int s, Value& a0) {
  const std::int64_t at = p.sos.row(p.batch, row) + s * p.sos.down;
  a0 = load(p.sos, at + 3 * p.sos.step);
  Section<Value> c;
  TORCH_IIR_UNROLL
  for (int k = 0; k < 3; ++k) c.b[k] = load(p.sos, at + k * p.sos.step) / a0;
  TORCH_IIR_UNROLL
  for (int k = 0; k < 2; ++k) c.a[k] = load(p.sos, at + (4 + k) * p.sos.step) / a0;
  return c;
}

// Number k of section s of states that may not be there: zero.
template <class Value, class States>
TORCH_IIR_GPU Value load_state(const States& states, const Batch& batch, std::int64_t row, int s, int k) {
  if (!states) return Value(0.0);
  return load(states, states.row(batch, row) + s * states.down + k * states.step);
}

// The state of a section at the end of K samples that began at rest.
template <int K>
TORCH_IIR_GPU Vector<2> end_from_rest(const Section<double>& c, const double (&x)[K]) {
  double w[4] = {0, 0, 0, 0};  // the latest first
  TORCH_IIR_UNROLL
  for (int k = 0; k < K; ++k) {
    const double now = fma(-c.a[0], w[0], fma(-c.a[1], w[1], x[k]));
    w[3] = w[2], w[2] = w[1], w[1] = w[0], w[0] = now;
  }
  const double y = fma(c.b[0], w[0], fma(c.b[1], w[1], c.b[2] * w[2]));
  const double before = fma(c.b[0], w[1], fma(c.b[1], w[2], c.b[2] * w[3]));
  const double older = fma(c.b[2], x[K - 2], -c.a[1] * before);
  return {fma(c.b[1], x[K - 1], fma(-c.a[0], y, older)), fma(c.b[2], x[K - 1], -c.a[1] * y)};
}

// By one thread: fills the powers of `a` for tiles of warps of 32 × K samples, as build() of carry.h does by many.
// False if they are not finite; a power of one that is not is not, either.
TORCH_IIR_GPU bool build_alone(Powers<2>& powers, Matrix<2> a, int K, int warps, bool looks_back) {
  const auto square = [&a] {
    const double p = a.m[0][0], q = a.m[0][1], r = a.m[1][0], s = a.m[1][1];
    a = {{{fma(p, p, q * r), fma(p, q, q * s)}, {fma(r, p, s * r), fma(s, s, r * q)}}};
  };
  for (int k = 1; k < K; k *= 2) square();
  powers.lanes[0] = a;
  for (int j = 1; j <= lane_steps; ++j) {
    square();
    powers.lanes[j] = a;
  }
  for (int w = 1; w < warps; w *= 2) square();
  powers.tile = powers.look[0] = a;
  for (int j = 1; looks_back && j <= look_steps; ++j) {
    square();
    powers.look[j] = a;
  }
  return isfinite(a.m[0][0]) && isfinite(a.m[0][1]) && isfinite(a.m[1][0]) && isfinite(a.m[1][1]);
}

// The states of all sections at the beginning of each stretch of a row.
template <class Value>
struct EntryStates {
  Value* data = nullptr;  // null: not wanted
  std::int64_t stretches = 0;
  int sections = 0;

  TORCH_IIR_GPU Value* at(std::int64_t row, std::int64_t stretch) const {
    return data + (row * stretches + stretch) * 2 * sections;
  }
};

// --- directly: the sections are the lanes of a warp, each one sample behind the lane before it

TORCH_IIR_GPU double from_lane_below(double value) { return shuffle_up(value, 1); }
TORCH_IIR_GPU Complex from_lane_below(Complex value) {
  const double re = shuffle_up(value.re, 1);
  return {re, shuffle_up(value.im, 1)};
}

// `count` samples from `in` through the sections of the first `active` lanes to `out`, which may be `in`. What section
// l > 0 is given stays at in + l * slot, if a slot is given. For a warp; all in shared memory.
template <class Value>
TORCH_IIR_GPU void wave_forward(const Section<Value>& own, Value (&z)[2], int active, Value* in, Value* out, int count,
                                int slot) {
  Value y = 0.0;
  for (int i = 0; i < count + active - 1; ++i) {
    sync_warp();
    const Value before = from_lane_below(y);
    const int t = i - lane();
    if (lane() >= active || t < 0 || t >= count) continue;
    const Value x = lane() == 0 ? in[t] : before;
    if (slot > 0 && lane() > 0) in[lane() * slot + t] = x;
    y = own.step(z, x);
    if (lane() == active - 1) out[t] = y;
  }
  sync_warp();
}

// A row by a warp. `signal`: room for a stretch; `states`: for 2 numbers of each section.
template <class Sample, class Problem, class Value>
TORCH_IIR_GPU void filter_directly(const Problem& p, std::int64_t row, bool brain, Value* signal, Value* states,
                                   int stretch, const EntryStates<Value>& save) {
  for (int i = lane(); i < 2 * p.sections; i += warp_size)
    states[i] = load_state<Value>(p.zi, p.batch, row, i / 2, i % 2);
  sync_warp();
  const Sample* const x = p.x.row(p.batch, row);
  for (std::int64_t first = 0; first < p.samples; first += stretch) {
    const int count = static_cast<int>(minimum<std::int64_t>(p.samples - first, stretch));
    for (int i = lane(); i < count; i += warp_size) signal[i] = widen_any(x[(first + i) * p.x.step], brain);
    if (save.data != nullptr) {
      Value* const to = save.at(row, first / stretch);
      for (int i = lane(); i < 2 * p.sections; i += warp_size) to[i] = states[i];
    }
    for (int done = 0; done < p.sections; done += warp_size) {
      const int active = minimum(p.sections - done, warp_size), s = done + minimum(lane(), active - 1);
      Value a0, z[2] = {states[2 * s], states[2 * s + 1]};
      const Section<Value> own = load_section<Value>(p, row, s, a0);
      wave_forward(own, z, active, signal, signal, count, 0);
      if (lane() < active) states[2 * s] = z[0], states[2 * s + 1] = z[1];
    }
    sync_warp();
    if (p.y) {
      Sample* const y = p.y.row(p.batch, row);
      for (int i = lane(); i < count; i += warp_size) y[(first + i) * p.y.step] = narrow_any<Sample>(signal[i], brain);
    }
    sync_warp();
  }
  if (!p.zf) return;
  const std::int64_t at = p.zf.row(p.batch, row);
  for (int i = lane(); i < 2 * p.sections; i += warp_size)
    store(p.zf, at + i / 2 * p.zf.down + i % 2 * p.zf.step, states[i]);
}

// `far`: room for states, for more sections than shared memory has.
template <class Sample, class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(warp_size, 1)
    sosfilt_directly(SOSFilt<Sample, State> p, std::int64_t rows, bool brain, EntryStates<Computed<State>> save,
                     Computed<State>* far) {
  using Value = Computed<State>;
  auto* const signal = reinterpret_cast<Value*>(shared_memory());
  Value* const states = far != nullptr ? far + block() * 2 * p.sections : signal + stretch_directly;
  for (std::int64_t row = block(); row < rows; row += blocks())
    filter_directly<Sample>(p, row, brain, signal, states, stretch_directly, save);
}

template <class Sample, class State>
Status run_sosfilt_directly(const SOSFilt<Sample, State>& p, const Queue& queue, bool brain,
                            const EntryStates<Computed<State>>& save) {
  using Value = Computed<State>;
  const std::int64_t rows = p.batch.rows();
  std::int64_t blocks = minimum(rows, most_blocks);
  std::int64_t shared_bytes =
      (stretch_directly + 2 * std::int64_t{p.sections}) * static_cast<std::int64_t>(sizeof(Value));
  Scratch scratch(queue);
  Value* far = nullptr;
  if (shared_bytes > 40 << 10) {
    shared_bytes = stretch_directly * static_cast<std::int64_t>(sizeof(Value));
    blocks = minimum<std::int64_t>(blocks, 32 * device().processors);
    far = scratch.take<Value>(blocks * 2 * p.sections);
    if (!scratch.ok()) return Status::out_of_memory;
  }
  return launch(queue, {blocks, warp_size, shared_bytes}, sosfilt_directly<Sample, State>, p, rows, brain, save, far);
}

// --- tiles

template <class Sample>
struct SectionTiles {
  static constexpr int K = 32, block_threads = 128, warps = block_threads / warp_size;
  using TileOf = Tile<Sample, K, block_threads>;
  static constexpr int tile = TileOf::samples;
  static_assert(stretch_between_states % K == 0 && tile % stretch_between_states == 0);

  struct Table {
    Section<double> c;
    Powers<2> powers;
  };
  // Behind it: a table of each section, then its state at the beginning of the tile that comes next.
  struct Shared {
    alignas(16) unsigned char samples[2][TileOf::bytes];  // the tile, and the one that comes next
    WarpStates<2, warps> warp_states[2];
    ClusterCarry<2>::Shared cluster;
    Vector<2> entry;
    double last[2];  // of the thread with the row's last sample alone
    unsigned ticket;

    TORCH_IIR_GPU Table* tables() { return reinterpret_cast<Table*>(this + 1); }
    TORCH_IIR_GPU Vector<2>* states(int sections) { return reinterpret_cast<Vector<2>*>(tables() + sections); }
  };
  static_assert(2 * TileOf::bytes >= stretch_between_states * static_cast<std::int64_t>(sizeof(double)));

  static std::int64_t shared_bytes(std::int64_t sections) {
    return static_cast<std::int64_t>(sizeof(Shared)) +
           sections * static_cast<std::int64_t>(sizeof(Table) + sizeof(Vector<2>));
  }
};

// values[i], where i is known at run time only and the values are in registers.
template <int K>
TORCH_IIR_GPU double pick(const double (&values)[K], int i) {
  double result = 0;
  TORCH_IIR_UNROLL
  for (int k = 0; k < K; ++k) {
    if (k == i) result = values[k];
  }
  return result;
}

// The tile that has come to `samples`. enter(s, state, total) gives the state that section s begins with in this tile,
// from what states[s] was and from what the tile leaves behind from rest.
template <class Sample, class Enter>
TORCH_IIR_GPU void filter_tile(const SOSFilt<Sample>& p, typename SectionTiles<Sample>::Shared& shared,
                               unsigned char* samples, std::int64_t row, std::int64_t first, bool brain,
                               const EntryStates<double>& save, Enter&& enter) {
  using Tiles = SectionTiles<Sample>;
  constexpr int K = Tiles::K, warps = Tiles::warps;
  const typename Tiles::TileOf tile{samples};
  const int count = static_cast<int>(minimum<std::int64_t>(p.samples - first, Tiles::tile));
  const int own = maximum(minimum(count - thread() * K, K), 0);
  const bool holds = warp() * warp_size * K < count;  // whether there is anything for this warp
  const bool last = p.zf && first + count == p.samples && own > 0 && thread() * K + own == count;
  double v[K];
  Sample x[K];
  if (holds) {
    tile.read(x, own);
    TORCH_IIR_UNROLL
    for (int k = 0; k < K; ++k) v[k] = widen_any(x[k], brain);
  }

  TORCH_IIR_NO_UNROLL
  for (int s = 0; s < p.sections; ++s) {
    const auto& powers = shared.tables()[s].powers;
    const Section<double> c = shared.tables()[s].c;
    auto& states = shared.warp_states[s % 2];
    const Vector<2> known = shared.states(p.sections)[s];
    Vector<2> scanned = zero_vector<2>();
    if (holds) scanned = scan_warp(powers, end_from_rest(c, v));
    if (lane() == warp_size - 1) states.total[warp()] = scanned;
    sync();
    const Vector<2> entry = enter(s, known, after_warps(powers, states, warps, zero_vector<2>()));
    if (!holds) continue;
    Vector<2> z = enter_thread(powers, scanned, after_warps(powers, states, warp(), entry));
    if (save.data != nullptr && own > 0 && thread() * K % stretch_between_states == 0) {
      double* const to = save.at(row, (first + thread() * K) / stretch_between_states) + 2 * s;
      to[0] = z[0], to[1] = z[1];
    }
    if (last) {
      shared.last[0] = pick(v, own - 1);
      shared.last[1] = own > 1 ? pick(v, own - 2) : z[1];
    }
    TORCH_IIR_UNROLL
    for (int k = 0; k < K; ++k) {
      const double y = c.step(z, v[k]);
      v[k] = own > 0 ? y : v[k];  // y in the register of x: without a choice, both arrays are kept to the end
    }
    if (last) {
      const double x = shared.last[0], y = pick(v, own - 1);
      const double older = own > 1 ? fma(-c.a[1], pick(v, own - 2), c.b[2] * shared.last[1]) : shared.last[1];
      const std::int64_t at = p.zf.row(p.batch, row) + s * p.zf.down;
      store(p.zf, at, fma(-c.a[0], y, fma(c.b[1], x, older)));
      store(p.zf, at + p.zf.step, fma(-c.a[1], y, c.b[2] * x));
    }
  }
  if (!p.y) return;
  if (holds) {
    TORCH_IIR_UNROLL
    for (int k = 0; k < K; ++k) x[k] = narrow_any<Sample>(v[k], brain);
    tile.write(x);
  }
  sync();
  tile.send(p.y.row(p.batch, row) + first * p.y.step, p.y.step, count);
}

struct SectionWords {
  unsigned* ticket;
  Word* totals;  // rows × sections × tiles × 2
  Word* behind;  // rows × sections × groups × 2
};

template <class Sample, SectionForm form>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(SectionTiles<Sample>::block_threads, 3)
    sosfilt_tiles(SOSFilt<Sample> p, std::int64_t rows, bool brain, int cluster_size, EntryStates<double> save,
                  SectionWords words) {
  using Tiles = SectionTiles<Sample>;
  auto& shared = *reinterpret_cast<typename Tiles::Shared*>(shared_memory());
  Vector<2>* const states = shared.states(p.sections);
  const std::int64_t tiles = (p.samples + Tiles::tile - 1) / Tiles::tile;

  const auto fetch = [&](std::int64_t row, std::int64_t tile, int buffer) {
    const std::int64_t first = tile * Tiles::tile;
    const int count = static_cast<int>(minimum<std::int64_t>(p.samples - first, Tiles::tile));
    typename Tiles::TileOf{shared.samples[buffer]}.fetch(p.x.row(p.batch, row) + first * p.x.step, p.x.step, count);
  };
  const auto prepare = [&](std::int64_t row) {
    bool finite = true;
    for (int s = thread(); s < p.sections; s += Tiles::block_threads) {
      double a0;
      const Section<double> c = load_section<double>(p, row, s, a0);
      shared.tables()[s].c = c;
      finite &= build_alone(shared.tables()[s].powers, {{{-c.a[0], 1}, {-c.a[1], 0}}}, Tiles::K, Tiles::warps,
                            form == SectionForm::lookback);
      if constexpr (form != SectionForm::lookback) {
        for (int k = 0; k < 2; ++k) states[s][k] = load_state<double>(p.zi, p.batch, row, s, k);
      }
    }
    return !sync_any(!finite);
  };
  // After arrive(), in place of all tiles of the row.
  const auto run_directly = [&](std::int64_t row) {
    if (warp() == 0)
      filter_directly<Sample>(p, row, brain, reinterpret_cast<double*>(shared.samples[0]), states[0].v,
                              stretch_between_states, save);
  };

  if constexpr (form == SectionForm::row || form == SectionForm::cluster) {
    constexpr bool clustered = form == SectionForm::cluster;
    const int side_by_side = clustered ? cluster_size : 1, rank = clustered ? cluster_rank() : 0;
    int turn = 0;
    for (std::int64_t row = block() / side_by_side; row < rows; row += blocks() / side_by_side) {
      sync();
      if (rank < tiles) fetch(row, rank, 0);
      const bool usable = prepare(row);
      if (!usable || tiles == 0) {
        Tiles::TileOf::arrive();
        if (rank == 0) run_directly(row);
        continue;
      }
      const auto enter = [&](int s, const Vector<2>& known, const Vector<2>& total) {
        Vector<2> entry, next;
        if constexpr (clustered) {
          ClusterCarry<2> carry{&shared.cluster, side_by_side, turn, known};
          entry = carry.enter(shared.tables()[s].powers, total);
          next = carry.state;
          turn = carry.turn;
        } else {
          RowCarry<2> carry{known};
          entry = carry.enter(shared.tables()[s].powers, total);
          next = carry.state;
        }
        if (thread() == 0) states[s] = next;
        return entry;
      };
      int buffer = 0;
      for (std::int64_t tile = rank; tile - rank < tiles; tile += side_by_side) {
        Tiles::TileOf::arrive();
        if (tile + side_by_side < tiles) fetch(row, tile + side_by_side, buffer ^ 1);
        if (tile < tiles) {
          filter_tile<Sample>(p, shared, shared.samples[buffer], row, tile * Tiles::tile, brain, save, enter);
        } else {
          for (int s = 0; s < p.sections; ++s) static_cast<void>(enter(s, states[s], zero_vector<2>()));
        }
        buffer ^= 1;
      }
      if constexpr (clustered) cluster_sync();  // nobody reads from a block that is gone
    }
  } else {
    const std::int64_t groups = (tiles + look_group - 1) / look_group;
    std::int64_t prepared = -1;
    bool usable = false;
    for (;;) {
      if (thread() == 0) shared.ticket = fetch_add(words.ticket, 1);
      sync();
      const std::int64_t ticket = shared.ticket;
      sync();
      if (ticket >= rows * tiles) return;
      const std::int64_t tile = ticket / rows, row = ticket % rows;
      fetch(row, tile, 0);
      if (row != prepared) usable = prepare(row);
      prepared = row;
      Tiles::TileOf::arrive();
      if (!usable) {
        if (tile == 0) run_directly(row);
        continue;
      }
      filter_tile<Sample>(p, shared, shared.samples[0], row, tile * Tiles::tile, brain, save,
                          [&](int s, const Vector<2>&, Vector<2> total) {
                            const Powers<2>& powers = shared.tables()[s].powers;
                            Vector<2> begin = zero_vector<2>();
                            if (tile == 0) {
                              for (int k = 0; k < 2; ++k) begin[k] = load_state<double>(p.zi, p.batch, row, s, k);
                              total = carried(powers.tile, begin, total);
                            }
                            const std::int64_t at = row * p.sections + s;
                            LookBack<2> carry{words.totals + at * tiles * 2, words.behind + at * groups * 2, begin,
                                              tile};
                            return carry.enter(powers, total, &shared.entry);
                          });
    }
  }
}

// Blocks of a cluster for so many rows of so many tiles: as few as fill the device.
inline int section_cluster(std::int64_t rows, std::int64_t tiles, const Device& here) {
  int size = 8;
  while (size > 2 && (size / 2 >= tiles || size * rows > 4 * here.processors)) size /= 2;
  return size;
}

// One block a row where the rows alone fill the device, or are one tile; a cluster where 8 blocks a row do, or are all
// that there is work for; look-back for a few long rows.
inline SectionForm section_form(Algorithm algorithm, std::int64_t rows, std::int64_t tiles) {
  const Device here = device();
  if (algorithm == Algorithm::direct) return SectionForm::direct;
  if (algorithm == Algorithm::rows || tiles == 0) return SectionForm::row;
  if (algorithm == Algorithm::clusters) return SectionForm::cluster;
  if (algorithm == Algorithm::lookback) return SectionForm::lookback;
  if (tiles == 1 || rows >= 2 * here.processors) return SectionForm::row;
  if (here.clusters && (tiles <= 8 || 8 * rows >= here.processors)) return SectionForm::cluster;
  return rows * tiles < std::int64_t{1} << 31 ? SectionForm::lookback : SectionForm::row;  // tickets have 32 bits
}

// Which algorithms there are; clusters are not on every device.
inline bool has_form(Algorithm algorithm, bool complex) {
  switch (algorithm) {
    case Algorithm::automatic:
    case Algorithm::direct: return true;
    case Algorithm::rows:
    case Algorithm::lookback: return !complex;
    case Algorithm::clusters: return !complex && device().clusters;
    default: return false;
  }
}

template <class Sample>
Status run_sosfilt_tiles(const SOSFilt<Sample>& p, const Queue& queue, SectionForm form, bool brain,
                         const EntryStates<double>& save) {
  using Tiles = SectionTiles<Sample>;
  const std::int64_t shared_bytes = Tiles::shared_bytes(p.sections), rows = p.batch.rows();
  const std::int64_t tiles = (p.samples + Tiles::tile - 1) / Tiles::tile;
  const Device here = device();
  constexpr int threads = Tiles::block_threads;
  switch (form) {
    case SectionForm::row:
      return launch(queue, {minimum(rows, most_blocks), threads, shared_bytes}, sosfilt_tiles<Sample, SectionForm::row>,
                    p, rows, brain, 1, save, SectionWords{});
    case SectionForm::cluster: {
      const int size = section_cluster(rows, tiles, here);
      return launch(queue, {minimum(rows, most_blocks / size) * size, threads, shared_bytes, size},
                    sosfilt_tiles<Sample, SectionForm::cluster>, p, rows, brain, size, save, SectionWords{});
    }
    case SectionForm::lookback: {
      if (rows * tiles >= std::int64_t{1} << 31) return Status::unsupported;
      const std::int64_t groups = (tiles + look_group - 1) / look_group, at = 2 * rows * p.sections;
      const std::int64_t words = at * (tiles + groups);
      Scratch scratch(queue);
      Word* const memory = scratch.take<Word>(words + 1);
      if (!scratch.ok()) return Status::out_of_memory;
      const Status status = set_zero(queue, memory, (words + 1) * static_cast<std::int64_t>(sizeof(Word)));
      if (status != Status::ok) return status;
      return launch(queue, {minimum<std::int64_t>(rows * tiles, 4 * here.processors), threads, shared_bytes},
                    sosfilt_tiles<Sample, SectionForm::lookback>, p, rows, brain, 1, save,
                    SectionWords{reinterpret_cast<unsigned*>(memory + words), memory, memory + at * tiles});
    }
    case SectionForm::direct: break;
  }
  return Status::unsupported;
}

// Whether the tables of so many sections are too large for shared memory: then all is done directly.
template <class Tiles>
bool too_many_sections(std::int64_t sections) {
  return Tiles::shared_bytes(sections) > minimum(most_shared_bytes, device().shared_bytes);
}

// The states that backward begins again from, by the forward kernels, which then write nothing else. `save` is one of
// stretch_between_states, or, for the form `direct`, of stretch_directly.
Status sosfilt_states(const SOSFilt<float>&, const Queue&, SectionForm, bool, const EntryStates<double>&);
Status sosfilt_states(const SOSFilt<double>&, const Queue&, SectionForm, bool, const EntryStates<double>&);
Status sosfilt_states(const SOSFilt<Half>&, const Queue&, SectionForm, bool, const EntryStates<double>&);
Status sosfilt_states(const SOSFilt<std::complex<double>, std::complex<double>>&, const Queue&, SectionForm, bool,
                      const EntryStates<Complex>&);

}  // namespace torch_iir::cuda
