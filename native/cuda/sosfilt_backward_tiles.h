// Gradients of sosfilt: tiles of a row, the last first, over which the sections run once more, and then back.
//
// With g the gradient of a section's output and γ that of its final state, v[T] = γ0, v[T + 1] = γ1, and back in time
//
//   v[t] = g[t] − a1 v[t+1] − a2 v[t+2]      gradient of its input: b0 v[t] + b1 v[t+1] + b2 v[t+2]
//   gradient of b_k: Σ v[t+k] u[t], of a_k: −Σ v[t+k] w[t], for its input u and its output w
//
// u and w are not in memory. The forward kernels leave the states of all sections at each stretch of 2048 samples,
// which are the tiles here: a tile runs forward from there, and what goes into each section, and comes out of the last,
// stays in shared memory, each thread's samples in places of its own, for four sections at a time (more: in groups of
// four, the last first, for each of which the sections before it run again). Then each section runs back. (v[t],
// v[t+1]) is the state that travels, from thread to thread and tile to tile as carry.h has it, in reverse. Its
// transition is that of the forward state transposed: one table of powers serves both ways.
//
// γ enters at the thread that has the row's last sample, as the state that it begins with; what lies behind is at rest.
//
// Counted, not measured, of a float tile of 128 × 16 samples, four sections or fewer
//   bytes             x twice, g once, the input's gradient once: 16 a sample, and 8 S / 1024 for the states
//   double precision  32 instructions a sample and section: 8.3 in the first pass; forward 2 + 5, and 2.5 for a scan;
//                     back 2 + 10, and 2.5. Four sections: 0.5 samples a cycle and multiprocessor of a H100
//   shared memory     16 KiB for each of min(S, 4) + 1 signals, 20 KiB for tiles, 0.8 KiB a section: one section
//                     54 KiB, four 104 KiB
//   registers         255 at most, of which rows and clusters spill 3: 2 blocks on a multiprocessor
//
// Where rows share the input's gradient, a block has some of these rows, or all: tile by tile, of each tile row after
// row, which it adds up in shared memory. The blocks of one gradient leave a sum each in scratch memory, of at most a
// quarter of the size of gy together.
//
// Races         as in sosfilt_tiles.h. What is fetched next is asked for behind a barrier that comes after all threads
//               have read this tile. The signals' memory serves for the way out, too, between two barriers of its own.
//               Sums in shared memory are added to by one lane of each warp, always the same for a number. A row's v in
//               global memory is written and read by the threads of one block, with barriers between.
#pragma once

#include "partial_sums.h"
#include "sosfilt_tiles.h"

namespace torch_iir::cuda {

// What the blocks leave for what comes behind them.
template <class Value>
struct SectionGradients {
  EntryStates<Value> entry;   // null: the gradient of sos is not wanted
  Value* sos = nullptr;       // rows × parts × sections × 6
  Value* v = nullptr;         // rows × sections × 2: v[t], v[t + 1] between tiles, and in the end those of t = 0
  Value* gx = nullptr;        // null: what is wanted goes to p.gx; else targets × slices × samples
  std::int64_t parts = 1;     // of a row: the blocks or tiles that have sums of their own
  std::int64_t slices = 1;    // of the rows that share a gradient of the input
  std::int64_t in_slice = 1;  // rows of a slice, but for the last one
  Sharing sharing;            // of the input's gradient
};

// From the sums of v with a section's input (0 … 2) and output (1, 2) to the gradients of its b0 b1 b2 a0 a1 a2, added
// to what is there or not.
template <class Value>
TORCH_IIR_GPU void put_section_gradient(const Section<Value>& c, Value a0, const Value (&sums)[5], bool add,
                                        Value* to) {
  const Value scale = Value(1.0) / conjugate(a0);
  Value of_a0 = 0.0;
  TORCH_IIR_UNROLL
  for (int k = 0; k < 3; ++k) of_a0 = of_a0 + -(sums[k] * conjugate(c.b[k]));
  TORCH_IIR_UNROLL
  for (int k = 0; k < 2; ++k) of_a0 = of_a0 + sums[3 + k] * conjugate(c.a[k]);
  const Value all[6] = {sums[0], sums[1], sums[2], of_a0, -sums[3], -sums[4]};
  TORCH_IIR_UNROLL
  for (int k = 0; k < 6; ++k) {
    const Value value = all[k] * scale;
    to[k] = add ? to[k] + value : value;
  }
}

// --- directly

TORCH_IIR_GPU double from_lane_above(double value) { return shuffle_down(value, 1); }
TORCH_IIR_GPU Complex from_lane_above(Complex value) {
  const double re = shuffle_down(value.re, 1);
  return {re, shuffle_down(value.im, 1)};
}

// `count` samples back through the sections of the first `active` lanes: g(t) goes into the last, the gradient of what
// the first was given to `to`, which may be where g(t) or what came out of the last section lies. `signals`: what
// wave_forward has kept; null: no sums.
template <class Value, class Gradient>
TORCH_IIR_GPU void wave_backward(const Section<Value>& own, Value (&v)[2], int active, Gradient&& g,
                                 const Value* signals, int slot, Value* to, int count, Value (&sums)[5]) {
  Value out = 0.0;
  for (int i = 0; i < count + active - 1; ++i) {
    sync_warp();
    const Value before = from_lane_above(out);
    const int t = count + active - 2 - lane() - i;
    if (lane() >= active || t < 0 || t >= count) continue;
    const Value in = lane() == active - 1 ? g(t) : before;
    const Value now = multiply_add(-conjugate(own.a[0]), v[0], multiply_add(-conjugate(own.a[1]), v[1], in));
    if (signals != nullptr) {
      const Value u = conjugate(signals[lane() * slot + t]), w = conjugate(signals[(lane() + 1) * slot + t]);
      sums[0] = multiply_add(u, now, sums[0]);
      sums[1] = multiply_add(u, v[0], sums[1]);
      sums[2] = multiply_add(u, v[1], sums[2]);
      sums[3] = multiply_add(w, v[0], sums[3]);
      sums[4] = multiply_add(w, v[1], sums[4]);
    }
    out = multiply_add(conjugate(own.b[0]), now, multiply_add(conjugate(own.b[1]), v[0], conjugate(own.b[2]) * v[1]));
    v[1] = v[0], v[0] = now;
    if (lane() == 0) to[t] = out;
  }
  sync_warp();
}

// A stretch of a row by a warp: `count` samples from `first` on. `slots`: room for most + 1 stretches (without `entry`,
// for one); the gradient of the input comes to the last of them, which is returned. `v`, `sums`: 2 and 5 numbers of
// each section, those of the next one `sums_step` on.
template <class Sample, class Problem, class Value>
TORCH_IIR_GPU Value* back_directly(const Problem& p, std::int64_t row, std::int64_t first, int count, int stretch,
                                   bool brain, const Value* entry, int most, Value* slots, Value* v, Value* sums,
                                   int sums_step) {
  Value* const to = slots + (entry != nullptr ? most : 0) * stretch;
  const int wave = entry == nullptr ? warp_size : p.sections <= most ? p.sections : most - 1;
  for (int end = p.sections; end > 0; end -= wave) {
    const int begin = maximum(end - wave, 0), active = end - begin, s = begin + minimum(lane(), active - 1);
    Value a0, own_sums[5] = {};
    const Section<Value> own = load_section<Value>(p, row, s, a0);
    if (entry != nullptr) {
      const Sample* const x = p.x.row(p.batch, row);
      for (int i = lane(); i < count; i += warp_size) slots[i] = widen_any(x[(first + i) * p.x.step], brain);
      for (int done = 0; done < begin; done += warp_size) {
        const int before = minimum(begin - done, warp_size), other = done + minimum(lane(), before - 1);
        Value other_a0, z[2] = {entry[2 * other], entry[2 * other + 1]};
        wave_forward(load_section<Value>(p, row, other, other_a0), z, before, slots, slots, count, 0);
      }
      Value z[2] = {entry[2 * s], entry[2 * s + 1]};
      wave_forward(own, z, active, slots, slots + active * stretch, count, stretch);
    }
    const Sample* const gy = p.gy ? p.gy.row(p.batch, row) : nullptr;
    const auto g = [&](int t) -> Value {
      if (end < p.sections) return to[t];
      if (gy == nullptr) return 0.0;
      return widen_any(gy[(first + t) * p.gy.step], brain);
    };
    Value own_v[2] = {v[2 * s], v[2 * s + 1]};
    wave_backward(own, own_v, active, g, entry != nullptr ? slots : nullptr, stretch, to, count, own_sums);
    if (lane() < active) {
      v[2 * s] = own_v[0], v[2 * s + 1] = own_v[1];
      if (entry != nullptr) {
        TORCH_IIR_UNROLL
        for (int k = 0; k < 5; ++k) sums[s * sums_step + k] += own_sums[k];
      }
    }
    sync_warp();
  }
  return to;
}

inline constexpr int most_signals_directly = 8;

// A warp has a slice of the rows that share a gradient of the input. `far`: 7 numbers of each section for each block.
template <class Sample, class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(warp_size, 1)
    sosfilt_backward_directly(SOSFiltBackward<Sample, State> p, bool brain, SectionGradients<Computed<State>> to,
                              Computed<State>* far) {
  using Value = Computed<State>;
  constexpr int stretch = stretch_directly;
  const int most = minimum(p.sections, most_signals_directly), sections = p.sections;
  const bool correlates = to.entry.data != nullptr;
  auto* const slots = reinterpret_cast<Value*>(shared_memory());
  Value* const total = slots + (correlates ? most + 1 : 1) * stretch;  // of a slice of several rows
  Value* const v = far + block() * 7 * sections;
  Value* const sums = v + 2 * sections;
  const std::int64_t stretches = (p.samples + stretch - 1) / stretch;

  for (std::int64_t unit = block(); unit < to.sharing.targets * to.slices; unit += blocks()) {
    const std::int64_t target = unit / to.slices, sharer = unit % to.slices * to.in_slice;
    const std::int64_t in_slice = minimum(to.in_slice, to.sharing.sharers - sharer);
    for (std::int64_t turn = 0; turn < maximum<std::int64_t>(stretches, 1); ++turn) {
      const bool is_last = turn + 1 >= stretches;  // of the turns: the first in time
      const std::int64_t first = maximum<std::int64_t>(stretches - 1 - turn, 0) * stretch;
      const int count = static_cast<int>(minimum<std::int64_t>(p.samples - first, stretch));
      for (std::int64_t i = 0; i < in_slice; ++i) {
        const std::int64_t row = to.sharing.row(target, sharer + i);
        Value* const row_v = to.v + row * 2 * sections;
        for (int k = lane(); k < 2 * sections; k += warp_size) {
          if (turn == 0) v[k] = load_state<Value>(p.gzf, p.batch, row, k / 2, k % 2);
          else if (in_slice > 1) v[k] = row_v[k];
        }
        for (int k = lane(); k < 5 * sections; k += warp_size) {
          if (turn == 0 || in_slice > 1) sums[k] = 0.0;
        }
        sync_warp();
        const Value* const gx = back_directly<Sample>(
            p, row, first, count, stretch, brain, correlates && count > 0 ? to.entry.at(row, first / stretch) : nullptr,
            most, slots, v, sums, 5);
        if (is_last || in_slice > 1) {
          for (int k = lane(); k < 2 * sections; k += warp_size) row_v[k] = v[k];
          for (int s = lane(); correlates && s < sections; s += warp_size) {
            Value a0, own[5];
            const Section<Value> c = load_section<Value>(p, row, s, a0);
            TORCH_IIR_UNROLL
            for (int k = 0; k < 5; ++k) own[k] = sums[5 * s + k];
            put_section_gradient(c, a0, own, turn > 0 && in_slice > 1, to.sos + (row * sections + s) * 6);
          }
        }
        if (!p.gx) continue;
        for (int t = lane(); t < count; t += warp_size) {
          Value value = gx[t];
          if (in_slice > 1) {
            if (i > 0) value += total[t];
            total[t] = value;
            if (i + 1 < in_slice) continue;
          }
          if (to.gx != nullptr) {
            to.gx[unit * p.samples + first + t] = value;
          } else {
            p.gx.row(p.batch, row)[(first + t) * p.gx.step] = narrow_any<Sample>(value, brain);
          }
        }
        sync_warp();
      }
    }
  }
}

// --- tiles

// A state from thread to thread, both ways. The powers are those of back in time, [[−a1, −a2], [1, 0]]; forwards, they
// are taken transposed, lanes and warps from the first on; back in time from the last.
template <bool back>
TORCH_IIR_GPU Vector<2> carried_by(const Matrix<2>& m, const Vector<2>& e, const Vector<2>& s) {
  if constexpr (back) {
    return carried(m, e, s);
  } else {
    return {fma(m.m[0][0], e[0], fma(m.m[1][0], e[1], s[0])), fma(m.m[0][1], e[0], fma(m.m[1][1], e[1], s[1]))};
  }
}
template <bool back>
TORCH_IIR_GPU int place_in_warp() {
  return back ? warp_size - 1 - lane() : lane();
}
template <bool back>
TORCH_IIR_GPU Vector<2> from_before(const Vector<2>& value, int by) {
  if constexpr (back) {
    const double first = shuffle_down(value[0], by);
    return {first, shuffle_down(value[1], by)};
  } else {
    return shuffle_up(value, by);
  }
}
template <bool back>
TORCH_IIR_GPU Vector<2> scan_warp_by(const Powers<2>& powers, Vector<2> s) {
  TORCH_IIR_UNROLL
  for (int j = 0; j < lane_steps; ++j) {
    const Vector<2> before = from_before<back>(s, 1 << j);
    if (place_in_warp<back>() >= 1 << j) s = carried_by<back>(powers.lanes[j], before, s);
  }
  return s;
}
template <bool back>
TORCH_IIR_GPU Vector<2> enter_thread_by(const Powers<2>& powers, const Vector<2>& scanned, Vector<2> entry) {
  TORCH_IIR_UNROLL
  for (int j = 0; j < lane_steps; ++j) {
    if ((place_in_warp<back>() >> j & 1) != 0) entry = carried_by<back>(powers.lanes[j], entry, zero_vector<2>());
  }
  const Vector<2> before = from_before<back>(scanned, 1);
  if (place_in_warp<back>() > 0) entry[0] += before[0], entry[1] += before[1];
  return entry;
}
template <bool back, int warps>
TORCH_IIR_GPU Vector<2> after_warps_by(const Powers<2>& powers, const WarpStates<2, warps>& states, int count,
                                       Vector<2> entry) {
  for (int w = 0; w < count; ++w)
    entry = carried_by<back>(powers.lanes[lane_steps], entry, states.total[back ? warps - 1 - w : w]);
  return entry;
}

// Of 5 numbers of each lane the sums over the warp: number i in the lanes 4 i to 4 i + 3.
TORCH_IIR_GPU double add_up_in_warp(const double (&five)[5]) {
  const bool upper = (lane() & 16) != 0, second = (lane() & 8) != 0, odd = (lane() & 4) != 0;
  double four[4], two[2];
  TORCH_IIR_UNROLL
  for (int i = 0; i < 4; ++i) {
    const double far = i == 0 ? five[4] : 0.0;
    four[i] = (upper ? far : five[i]) + shuffle_xor(upper ? five[i] : far, 16);
  }
  TORCH_IIR_UNROLL
  for (int i = 0; i < 2; ++i)
    two[i] = (second ? four[2 + i] : four[i]) + shuffle_xor(second ? four[i] : four[2 + i], 8);
  double one = (odd ? two[1] : two[0]) + shuffle_xor(odd ? two[0] : two[1], 4);
  one += shuffle_xor(one, 2);
  return one + shuffle_xor(one, 1);
}

template <class Sample>
struct SectionTilesBack {
  static constexpr int K = 16, block_threads = 128, warps = block_threads / warp_size, most_signals = 4;
  using TileOf = Tile<Sample, K, block_threads>;
  static constexpr int tile = TileOf::samples;
  static_assert(tile == stretch_between_states);

  struct Table {
    Section<double> c;
    double a0;
    Powers<2> powers;
    double sums[warps][8];  // 5 of each, of this row so far
  };
  // Behind it: a table of each section; the state that each begins with in the tile that comes next; the signals; the
  // sum of a tile's gradients over rows.
  struct Shared {
    alignas(16) unsigned char x[TileOf::bytes], g[TileOf::bytes];  // of the tile, or of the next
    WarpStates<2, warps> warp_states[2];
    ClusterCarry<2>::Shared cluster;
    Vector<2> entry;
    const double* directly;
    unsigned ticket;

    TORCH_IIR_GPU Table* tables() { return reinterpret_cast<Table*>(this + 1); }
    TORCH_IIR_GPU Vector<2>* states(int sections) { return reinterpret_cast<Vector<2>*>(tables() + sections); }
    TORCH_IIR_GPU double* signals(int sections) { return states(sections)[sections].v; }
  };
  static_assert(sizeof(Shared) % 16 == 0 && sizeof(Table) % 16 == 0);

  static std::int64_t signal_bytes(std::int64_t sections, bool correlates) {
    const std::int64_t signals = correlates ? minimum<std::int64_t>(sections, most_signals) + 1 : 1;
    return maximum<std::int64_t>(signals * tile * static_cast<std::int64_t>(sizeof(double)), TileOf::bytes);
  }
  static std::int64_t shared_bytes(std::int64_t sections, bool correlates = true, bool adds_up = true) {
    return static_cast<std::int64_t>(sizeof(Shared)) +
           sections * static_cast<std::int64_t>(sizeof(Table) + sizeof(Vector<2>)) +
           signal_bytes(sections, correlates) + (adds_up ? tile * static_cast<std::int64_t>(sizeof(double)) : 0);
  }
};

// Back in time over a thread's samples, from v = (v[t], v[t+1]) behind them. Where ends is true, the row's last sample
// is the thread's own − 1st if `injects`, and γ is v behind it; sums leave out what lies behind it.
template <bool ends, int K>
TORCH_IIR_GPU void back_from_rest(const Section<double>& c, const double (&g)[K], int own, bool injects,
                                  const Vector<2>& gamma, Vector<2>& v) {
  TORCH_IIR_UNROLL
  for (int k = K - 1; k >= 0; --k) {
    if (ends && injects && k == own - 1) v = gamma;
    const double now = fma(-c.a[0], v[0], fma(-c.a[1], v[1], g[k]));
    v[1] = v[0], v[0] = now;
  }
}
// g becomes the gradient of the section's input. `signals`: the thread's, of the section's input and, `slot` on, of its
// output; sample after sample block_threads apart.
template <bool ends, bool correlates, int block_threads, int K>
TORCH_IIR_GPU void back_through(const Section<double>& c, double (&g)[K], int own, bool injects, const Vector<2>& gamma,
                                Vector<2> v, const double* signals, int slot, double (&sums)[5]) {
  TORCH_IIR_UNROLL
  for (int k = K - 1; k >= 0; --k) {
    if (ends && injects && k == own - 1) v = gamma;
    const double now = fma(-c.a[0], v[0], fma(-c.a[1], v[1], g[k]));
    if (correlates && (!ends || k < own)) {
      const double u = signals[k * block_threads], w = signals[slot + k * block_threads];
      sums[0] = fma(u, now, sums[0]);
      sums[1] = fma(u, v[0], sums[1]);
      sums[2] = fma(u, v[1], sums[2]);
      sums[3] = fma(w, v[0], sums[3]);
      sums[4] = fma(w, v[1], sums[4]);
    }
    g[k] = fma(c.b[0], now, fma(c.b[1], v[0], c.b[2] * v[1]));
    v[1] = v[0], v[0] = now;
  }
}

template <class Sample>
struct BackwardBlock {
  using Tiles = SectionTilesBack<Sample>;
  using TileOf = typename Tiles::TileOf;
  static constexpr int K = Tiles::K, warps = Tiles::warps, block_threads = Tiles::block_threads;

  const SOSFiltBackward<Sample>& p;
  const SectionGradients<double>& to;
  typename Tiles::Shared& shared;
  bool brain;

  TORCH_IIR_GPU bool correlates() const { return to.entry.data != nullptr; }
  TORCH_IIR_GPU std::int64_t tiles() const { return (p.samples + Tiles::tile - 1) / Tiles::tile; }
  TORCH_IIR_GPU int count_of(std::int64_t tile) const {
    return static_cast<int>(minimum<std::int64_t>(p.samples - tile * Tiles::tile, Tiles::tile));
  }

  TORCH_IIR_GPU void fetch(std::int64_t row, std::int64_t tile) const {
    const std::int64_t first = tile * Tiles::tile;
    const int count = count_of(tile);
    if (correlates()) TileOf{shared.x}.fetch(p.x.row(p.batch, row) + first * p.x.step, p.x.step, count);
    if (p.gy) TileOf{shared.g}.fetch(p.gy.row(p.batch, row) + first * p.gy.step, p.gy.step, count);
  }

  // False if the row must be done directly. Ends with a barrier.
  TORCH_IIR_GPU bool prepare(std::int64_t row, bool looks_back) const {
    bool finite = true;
    for (int s = thread(); s < p.sections; s += block_threads) {
      auto& table = shared.tables()[s];
      table.c = load_section<double>(p, row, s, table.a0);
      finite &= build_alone(table.powers, {{{-table.c.a[0], -table.c.a[1]}, {1, 0}}}, K, warps, looks_back);
      for (int w = 0; w < warps; ++w)
        for (int k = 0; k < 5; ++k) table.sums[w][k] = 0;
    }
    return !sync_any(!finite);
  }
  // The states of all sections at the beginning of a row's last tile, or as they were left between tiles. For the
  // threads that then call a barrier.
  TORCH_IIR_GPU void set_states(std::int64_t row, bool begins, bool usable) const {
    for (int s = thread(); s < p.sections; s += block_threads) {
      Vector<2>& state = shared.states(p.sections)[s];
      TORCH_IIR_UNROLL
      for (int k = 0; k < 2; ++k) {
        if (!begins) state[k] = to.v[(row * p.sections + s) * 2 + k];
        else state[k] = usable ? 0.0 : load_state<double>(p.gzf, p.batch, row, s, k);
      }
    }
  }

  // Runs the tile forward through the sections before `end`, and keeps what goes into them from `begin` on, and comes
  // out of the last.
  TORCH_IIR_GPU void run_forward(std::int64_t row, std::int64_t tile, int begin, int end, int own, bool holds,
                                 int& turn) const {
    double v[K];
    if (holds) {
      Sample x[K];
      TileOf{shared.x}.read(x, own);
      TORCH_IIR_UNROLL
      for (int k = 0; k < K; ++k) v[k] = widen_any(x[k], brain);
    }
    const double* const entry = to.entry.at(row, tile);
    TORCH_IIR_NO_UNROLL
    for (int s = 0; s < end; ++s) {
      const auto& powers = shared.tables()[s].powers;
      const Section<double> c = shared.tables()[s].c;
      auto& states = shared.warp_states[turn];
      turn ^= 1;
      const Vector<2> first = {entry[2 * s], entry[2 * s + 1]};
      Vector<2> scanned = zero_vector<2>();
      if (holds) scanned = scan_warp_by<false>(powers, end_from_rest(c, v));
      if (lane() == warp_size - 1) states.total[warp()] = scanned;
      sync();
      if (!holds) continue;
      Vector<2> z = enter_thread_by<false>(powers, scanned, after_warps_by<false>(powers, states, warp(), first));
      double* const signal = shared.signals(p.sections) + (s - begin) * Tiles::tile + thread();
      if (s >= begin) {
        TORCH_IIR_UNROLL
        for (int k = 0; k < K; ++k) signal[k * block_threads] = v[k];
      }
      TORCH_IIR_UNROLL
      for (int k = 0; k < K; ++k) {
        const double y = c.step(z, v[k]);
        v[k] = own > 0 ? y : v[k];  // as in filter_tile
      }
      if (s == end - 1) {
        TORCH_IIR_UNROLL
        for (int k = 0; k < K; ++k) signal[Tiles::tile + k * block_threads] = v[k];
      }
    }
  }

  template <bool ends>
  TORCH_IIR_GPU void back_through_section(const Section<double>& c, double (&g)[K], int own, bool injects,
                                          const Vector<2>& gamma, const Vector<2>& v, int s, int begin) const {
    double sums[5] = {0, 0, 0, 0, 0};
    if (!correlates()) {
      back_through<ends, false, block_threads>(c, g, own, injects, gamma, v, nullptr, 0, sums);
      return;
    }
    const double* const signals = shared.signals(p.sections) + (s - begin) * Tiles::tile + thread();
    back_through<ends, true, block_threads>(c, g, own, injects, gamma, v, signals, Tiles::tile, sums);
    const double sum = add_up_in_warp(sums);
    if (lane() % 4 == 0 && lane() < 20) shared.tables()[s].sums[warp()][lane() / 4] += sum;
  }

  // The tile that has come, back through all sections. g: in the end the gradient of this thread's samples of x.
  // enter(s, state, total) gives the state that section s begins with, from what states[s] was and from what the tile
  // leaves behind from rest. next() is called once the tile has been read.
  template <class Enter, class Next>
  TORCH_IIR_GPU void run(std::int64_t row, std::int64_t tile, double (&g)[K], Enter&& enter, Next&& next) const {
    const int count = count_of(tile), own = maximum(minimum(count - thread() * K, K), 0);
    const bool holds = warp() * warp_size * K < count, ends = tile + 1 == tiles();
    const bool injects = ends && p.gzf && own > 0 && thread() * K + own == count;
    int turn = 0;
    for (int end = p.sections; end > 0;) {
      const int begin = correlates() ? maximum(end - Tiles::most_signals, 0) : 0;
      if (correlates()) run_forward(row, tile, begin, end, own, holds, turn);
      if (end == p.sections) {
        Sample gy[K];
        if (p.gy && holds) TileOf{shared.g}.read(gy, own);
        TORCH_IIR_UNROLL
        for (int k = 0; k < K; ++k) g[k] = p.gy && holds ? widen_any(gy[k], brain) : 0.0;
      }
      TORCH_IIR_NO_UNROLL
      for (int s = end - 1; s >= begin; --s) {
        const auto& powers = shared.tables()[s].powers;
        const Section<double> c = shared.tables()[s].c;
        auto& states = shared.warp_states[turn];
        turn ^= 1;
        Vector<2> gamma = zero_vector<2>(), scanned = zero_vector<2>();
        if (injects) {
          TORCH_IIR_UNROLL
          for (int k = 0; k < 2; ++k) gamma[k] = load_state<double>(p.gzf, p.batch, row, s, k);
        }
        const Vector<2> known = shared.states(p.sections)[s];
        if (holds) {
          ends ? back_from_rest<true>(c, g, own, injects, gamma, scanned)
               : back_from_rest<false>(c, g, own, injects, gamma, scanned);
          scanned = scan_warp_by<true>(powers, scanned);
        }
        if (lane() == 0) states.total[warp()] = scanned;
        sync();
        if (begin == 0 && s == end - 1) next();
        const Vector<2> total = after_warps_by<true>(powers, states, warps, zero_vector<2>());
        const Vector<2> entry = enter(s, known, total);
        if (thread() == 0 && (tile == 0 || to.in_slice > 1)) {
          const Vector<2> end_state = carried(powers.tile, entry, total);
          TORCH_IIR_UNROLL
          for (int k = 0; k < 2; ++k) to.v[(row * p.sections + s) * 2 + k] = end_state[k];
        }
        if (!holds) continue;
        const Vector<2> v =
            enter_thread_by<true>(powers, scanned, after_warps_by<true>(powers, states, warps - 1 - warp(), entry));
        ends ? back_through_section<true>(c, g, own, injects, gamma, v, s, begin)
             : back_through_section<false>(c, g, own, injects, gamma, v, s, begin);
      }
      end = begin;
    }
  }

  // The same by one warp, from the states that states[] has, which it moves on.
  template <class Next>
  TORCH_IIR_GPU void run_directly(std::int64_t row, std::int64_t tile, double (&g)[K], Next&& next) const {
    const int count = count_of(tile);
    if (warp() == 0) {
      Vector<2>* const states = shared.states(p.sections);
      const double* const gx = back_directly<Sample>(
          p, row, tile * Tiles::tile, count, Tiles::tile, brain, correlates() ? to.entry.at(row, tile) : nullptr,
          minimum(p.sections, Tiles::most_signals), shared.signals(p.sections), states[0].v,
          &shared.tables()[0].sums[0][0], static_cast<int>(sizeof(typename Tiles::Table) / sizeof(double)));
      for (int i = lane(); (tile == 0 || to.in_slice > 1) && i < 2 * p.sections; i += warp_size)
        to.v[row * p.sections * 2 + i] = states[i / 2][i % 2];
      if (lane() == 0) shared.directly = gx;
    }
    sync();
    next();
    TORCH_IIR_UNROLL
    for (int k = 0; k < K; ++k) g[k] = thread() * K + k < count ? shared.directly[thread() * K + k] : 0.0;
  }

  // g to p.gx. Other threads may still read the signals, before, and the next tile may begin with a barrier only,
  // after.
  TORCH_IIR_GPU void put(std::int64_t row, std::int64_t tile, const double (&g)[K]) const {
    if (!p.gx) return;
    const TileOf out{reinterpret_cast<unsigned char*>(shared.signals(p.sections))};
    Sample values[K];
    TORCH_IIR_UNROLL
    for (int k = 0; k < K; ++k) values[k] = narrow_any<Sample>(g[k], brain);
    sync();
    out.write(values);
    sync();
    out.send(p.gx.row(p.batch, row) + tile * Tiles::tile * p.gx.step, p.gx.step, count_of(tile));
  }

  // All tiles of a row, in place of run().
  TORCH_IIR_GPU void run_row_directly(std::int64_t row) const {
    set_states(row, true, false);
    for (std::int64_t tile = tiles() - 1; tile >= 0; --tile) {
      sync();
      double g[K];
      run_directly(row, tile, g, [] {});
      put(row, tile, g);
    }
  }

  // What the row's sums have come to, as part number `part`; then they begin anew.
  TORCH_IIR_GPU void flush(std::int64_t row, std::int64_t part, bool add) const {
    if (!correlates()) return;
    sync();
    for (int s = thread(); s < p.sections; s += block_threads) {
      auto& table = shared.tables()[s];
      double sums[5] = {0, 0, 0, 0, 0};
      for (int w = 0; w < warps; ++w) {
        TORCH_IIR_UNROLL
        for (int k = 0; k < 5; ++k) {
          sums[k] += table.sums[w][k];
          table.sums[w][k] = 0;
        }
      }
      put_section_gradient(table.c, table.a0, sums, add, to.sos + ((row * to.parts + part) * p.sections + s) * 6);
    }
  }
};

// The form `row` is that of clusters, too.
template <class Sample, SectionForm form>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(SectionTilesBack<Sample>::block_threads, 2)
    sosfilt_backward_tiles(SOSFiltBackward<Sample> p, std::int64_t rows, bool brain, int cluster_size,
                           SectionGradients<double> to, SectionWords words) {
  using Tiles = SectionTilesBack<Sample>;
  constexpr int K = Tiles::K;
  auto& shared = *reinterpret_cast<typename Tiles::Shared*>(shared_memory());
  const BackwardBlock<Sample> work{p, to, shared, brain};
  Vector<2>* const states = shared.states(p.sections);
  const std::int64_t tiles = work.tiles();
  double g[K];

  if constexpr (form == SectionForm::row) {  // or a cluster: in_slice is 1, then
    double* const total = shared.signals(p.sections) +
                          Tiles::tile * (work.correlates() ? minimum(p.sections, Tiles::most_signals) + 1 : 1);
    const bool clustered = cluster_size > 1, several = to.in_slice > 1;
    const int rank = clustered ? cluster_rank() : 0;
    int place = 0;
    const auto enter = [&](int s, const Vector<2>& known, const Vector<2>& leaves) {
      const Powers<2>& powers = shared.tables()[s].powers;
      Vector<2> entry, next;
      if (clustered) {
        ClusterCarry<2> carry{&shared.cluster, cluster_size, place, known};
        entry = carry.enter(powers, leaves);
        next = carry.state;
        place = carry.turn;
      } else {
        RowCarry<2> carry{known};
        entry = carry.enter(powers, leaves);
        next = carry.state;
      }
      if (thread() == 0) states[s] = next;
      return entry;
    };
    for (std::int64_t unit = block() / cluster_size; unit < to.sharing.targets * to.slices;
         unit += blocks() / cluster_size) {
      const std::int64_t target = unit / to.slices, sharer = unit % to.slices * to.in_slice;
      const std::int64_t in_slice = minimum(to.in_slice, to.sharing.sharers - sharer), turns = tiles * in_slice;
      const auto row_of = [&](std::int64_t turn) { return to.sharing.row(target, sharer + turn % in_slice); };
      const auto tile_of = [&](std::int64_t turn) { return tiles - 1 - turn / in_slice; };
      sync();
      if (rank < turns) work.fetch(row_of(rank), tile_of(rank));
      bool usable = false;
      int step = cluster_size;
      for (std::int64_t turn = rank; turn - rank < turns; turn += step) {
        const std::int64_t row = row_of(turn), tile = tile_of(turn);
        const bool begins = several ? turn < in_slice : turn == rank;
        if (begins || several) {
          sync();
          usable = work.prepare(row, false);
          work.set_states(row, begins, usable);
          if (!usable) step = 1;
        }
        Tiles::TileOf::arrive();
        if (!usable && rank > 0) break;  // the first block has all of the row
        if (turn >= turns) {
          for (int s = p.sections - 1; s >= 0; --s) static_cast<void>(enter(s, states[s], zero_vector<2>()));
          continue;
        }
        const auto next = [&] {
          if (turn + step < turns) work.fetch(row_of(turn + step), tile_of(turn + step));
        };
        if (usable) work.run(row, tile, g, enter, next);
        else work.run_directly(row, tile, g, next);
        if (several) {
          work.flush(row, 0, !begins);
          TORCH_IIR_UNROLL
          for (int k = 0; k < K; ++k) {
            double& sum = total[k * Tiles::block_threads + thread()];
            if (turn % in_slice > 0) g[k] += sum;
            sum = g[k];
          }
          if (turn % in_slice + 1 < in_slice) continue;
        }
        if (to.gx == nullptr) {
          work.put(row, tile, g);
        } else {
          double* const sums = to.gx + unit * p.samples;
          const std::int64_t first = tile * Tiles::tile + thread() * K;
          TORCH_IIR_UNROLL
          for (int k = 0; k < K; ++k) {
            if (first + k < p.samples) sums[first + k] = g[k];
          }
        }
      }
      if (!several) work.flush(row_of(0), rank, false);
      if (clustered) cluster_sync();  // nobody reads from a block that is gone
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
      const std::int64_t turn = ticket / rows, row = ticket % rows, tile = tiles - 1 - turn;
      work.fetch(row, tile);
      if (row != prepared) usable = work.prepare(row, true);
      prepared = row;
      Tiles::TileOf::arrive();
      if (usable) {
        work.run(
            row, tile, g,
            [&](int s, const Vector<2>&, const Vector<2>& leaves) {
              const std::int64_t at = row * p.sections + s;
              LookBack<2> carry{words.totals + at * tiles * 2, words.behind + at * groups * 2, zero_vector<2>(), turn};
              return carry.enter(shared.tables()[s].powers, leaves, &shared.entry);
            },
            [] {});
        work.put(row, tile, g);
      } else if (turn == 0) {
        work.run_row_directly(row);
      }
      work.flush(row, turn, false);
    }
  }
}

}  // namespace torch_iir::cuda
