// lfilter of any order, real or complex: what has too many states for the registers of lfilter_tiles.h.
//
// Segments    real of order ≤ 32, complex of order ≤ 8. A row is cut into segments, as many as keep the device busy,
//             and each thread has one. Pass 1 runs over it from rest (transposed direct form II, all states and
//             coefficients in registers); the states that the segments leave behind are chained, e ← M e + s with M =
//             A^segment, by a lane per state, in groups, groups of groups, and back down; pass 2 runs again from the
//             true states. Each pass is a launch: no thread waits for one of another block. Where rows alone keep the
//             device busy, pass 2 alone remains
// Soundness   where poles lie close together, M is large and its products cancel: what rounding leaves in a state
//             grows by ‖M‖ from segment to segment, without end in the worst case. In trials with clusters of poles,
//             ‖M‖ (the largest sum of magnitudes in a row) up to 256 kept the error below 20 times that of the direct
//             form, up to 8192 below 1000 times, which is still little beside the rounding of float32. Beyond, or
//             where a power overflows, the first thread of a row has all of it
// Powers      M is what the recurrence itself makes of a unit state in pass 1, by one more thread: as exact as the
//             direct form. The powers for groups are squared in twice the precision
// Rows        any order: a block has a row. All products that do not depend on each other are spread over its threads;
//             32 outputs at a time remain to one warp
// Direct      a thread has a row, one sample after another: the yardstick
//
// Samples are converted as they come to shared memory and leave it, by their type at run time, so that each kernel is
// compiled once for real and once for complex numbers.
//
// Cost of segments, counted, not measured, per sample of order N: 2 (2 N + 1) multiply-adds, N² / segment more for the
// chain; x is read twice, y is written once: 12 B for float32. With 64 double multiply-adds a clock on each of 132
// multiprocessors at 1.7 GHz that is at most 217 G samples a second at order 16, 110 at order 32: 40 and 20 % of the
// 538 G of a copy at 4.3 TB/s. 8.4 KB of shared memory and 158 registers (order 16; 12 warps on a multiprocessor) or
// 255 (order 32, 72 B spilled; 8). Scratch: N doubles a segment, of which there are at most as many as threads on the
// device (6.5 MB at order 16, 8.7 at 32), N² for each level of each filter, and the coefficients in double.
//
// Races: within a warp, tiles in shared memory change hands at sync_warp(); between launches the stream orders; else
// every word is written and read by one thread.
#pragma once

#include <type_traits>

#include "launch.h"
#include "numbers.h"

namespace torch_iir::cuda {

// Of samples in memory.
template <class Sample>
TORCH_IIR_HOST_DEVICE constexpr DType dtype_of() {
  if constexpr (std::is_same_v<Sample, Half>) {
    return DType::float16;
  } else if constexpr (std::is_same_v<Sample, BFloat16>) {
    return DType::bfloat16;
  } else if constexpr (std::is_same_v<Sample, float>) {
    return DType::float32;
  } else if constexpr (std::is_same_v<Sample, double>) {
    return DType::float64;
  } else {
    return DType::complex128;
  }
}

// Samples of one type as rows of any.
template <class State, class Sample>
auto any_samples(const Rows<Sample>& rows) {
  AnyRows<std::conditional_t<std::is_const_v<Sample>, const State, State>> result(
      rows.data, dtype_of<std::remove_const_t<Sample>>(), rows.step);
  for (int d = 0; d < max_batch_dims; ++d) result.stride[d] = rows.stride[d];
  return result;
}

TORCH_IIR_GPU double multiply_add(double a, double b, double c) { return fma(a, b, c); }
TORCH_IIR_GPU Complex multiply_add(Complex a, Complex b, Complex c) {
  return {fma(-a.im, b.im, fma(a.re, b.re, c.re)), fma(a.im, b.re, fma(a.re, b.im, c.im))};
}
TORCH_IIR_GPU double magnitude(double x) { return x < 0 ? -x : x; }
TORCH_IIR_GPU double from_lane(double x, int from) { return shuffle(x, from); }
TORCH_IIR_GPU Complex from_lane(Complex x, int from) {
  const double re = shuffle(x.re, from);
  return {re, shuffle(x.im, from)};
}

// ---------------------------------------------------------------------------------------------------- the filters

// What is computed of each filter, padded with zeros to order N.
template <class Value>
struct FilterTables {
  Value* coefficients;  // filters × (2 N + 3): b[0 … N], a[0 … N], normalised (conjugates, for backward), a[0] as given
  Value* powers;        // filters × levels × N × N: what carries a state over a segment, a group, a group of groups
  int* usable;          // filters: whether the powers are sound; null without levels
  std::int64_t filters;
  int order;  // N
  int levels;
  int squarings;  // from level to level
  double most;    // that the powers may have as a norm
  bool backward;  // a state is what came out last, the latest first, and not that of transposed direct form II

  static TORCH_IIR_HOST_DEVICE constexpr std::int64_t width(int n) { return 2 * n + 3; }

  TORCH_IIR_GPU std::int64_t filter(std::int64_t row) const { return filters == 1 ? 0 : row; }
  TORCH_IIR_GPU const Value* b(std::int64_t row) const { return coefficients + filter(row) * width(order); }
  TORCH_IIR_GPU const Value* a(std::int64_t row) const { return b(row) + order + 1; }
  TORCH_IIR_GPU Value a0(std::int64_t row) const { return b(row)[2 * order + 2]; }
  TORCH_IIR_GPU bool is_usable(std::int64_t row) const { return usable == nullptr || usable[filter(row)] != 0; }
  TORCH_IIR_GPU Value* power(std::int64_t row, int level) const {
    return powers + (filter(row) * levels + level) * order * order;
  }
};

inline constexpr int wide_threads = 256;

// A block has a filter.
template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(wide_threads, 1)
    normalise_filters(Batch batch, AnyRows<const State> b, AnyRows<const State> a, int b_length, int a_length,
                      FilterTables<Computed<State>> tables) {
  using Value = Computed<State>;
  const int n = tables.order;
  for (std::int64_t filter = block(); filter < tables.filters; filter += blocks()) {
    Value* const to = tables.coefficients + filter * tables.width(n);
    const std::int64_t b_at = b.row(batch, filter), a_at = a.row(batch, filter);
    const Value a0 = load(a, a_at);
    for (int i = thread(); i <= n; i += threads()) {
      const Value p = i < b_length ? load(b, b_at + i * b.step) / a0 : Value(0.0);
      const Value q = i < a_length ? load(a, a_at + i * a.step) / a0 : Value(0.0);
      to[i] = tables.backward ? conjugate(p) : p;
      to[n + 1 + i] = tables.backward ? conjugate(q) : q;
    }
    if (thread() == 0) to[2 * n + 2] = a0;
  }
}

// A complex matrix of n × n as a real one of 2 n × 2 n, whose squares are those of the complex one.
template <class Value>
TORCH_IIR_GPU double real_entry(const Value* matrix, int n, int i, int j) {
  if constexpr (std::is_same_v<Value, Complex>) {
    const Complex value = matrix[i / 2 * n + j / 2];
    return i % 2 == j % 2 ? value.re : i % 2 == 0 ? -value.im : value.im;
  } else {
    return matrix[i * n + j];
  }
}

// The powers of all levels from that of level 0, and whether they are sound. A block has a filter. Each entry is kept
// as a sum of two numbers: near the unit circle the squares of rounded numbers would be far off.
template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(wide_threads, 1) raise_powers(FilterTables<Computed<State>> tables) {
  using Value = Computed<State>;
  constexpr int parts = sizeof(Value) / sizeof(double);
  const int n = tables.order, size = parts * n, entries = size * size;
  auto* high = reinterpret_cast<double*>(shared_memory());
  auto *low = high + entries, *next_high = low + entries, *next_low = next_high + entries;
  for (std::int64_t filter = block(); filter < tables.filters; filter += blocks()) {
    sync();
    for (int entry = thread(); entry < entries; entry += threads()) {
      high[entry] = real_entry(tables.power(filter, 0), n, entry / size, entry % size);
      low[entry] = 0;
    }
    sync();
    bool sound = true;
    const auto check = [&] {  // a NaN is not sound either
      if (thread() >= size) return;
      double norm = 0;
      for (int j = 0; j < size; ++j) norm += magnitude(high[thread() * size + j]);
      sound &= norm <= tables.most;
    };
    check();
    for (int level = 1; level < tables.levels; ++level) {
      for (int squaring = 0; squaring < tables.squarings; ++squaring) {
        for (int entry = thread(); entry < entries; entry += threads()) {
          const int i = entry / size * size, j = entry % size;
          double sum = 0, rest = 0;
          for (int k = 0; k < size; ++k) {
            const double a = high[i + k], b = high[k * size + j];
            const double product = fma(a, b, 0.0), next = sum + product, added = next - sum;  // fma: never contracted
            rest += ((sum - (next - added)) + (product - added)) + fma(a, b, -product) +
                    fma(a, low[k * size + j], low[i + k] * b);
            sum = next;
          }
          next_high[entry] = sum + rest;
          next_low[entry] = rest - (next_high[entry] - sum);
        }
        sync();
        double *const old_high = high, *const old_low = low;
        high = next_high;
        low = next_low;
        next_high = old_high;
        next_low = old_low;
      }
      Value* const to = tables.power(filter, level);
      for (int entry = thread(); entry < n * n; entry += threads()) {
        const double* const from = high + parts * (entry / n) * size + parts * (entry % n);
        if constexpr (parts == 2) {
          to[entry] = {from[0], from[size]};
        } else {
          to[entry] = from[0];
        }
      }
      check();
    }
    sound = !sync_any(!sound);
    if (thread() == 0) tables.usable[filter] = sound;
  }
}

// False for an operand that has a row of its own for some rows of the batch.
template <class Operand>
bool is_one_row(const Batch& batch, const Operand& operand) {
  for (int d = 0; d < batch.dims; ++d) {
    if (batch.size[d] > 1 && operand.stride[d] != 0) return false;
  }
  return true;
}

template <class State, class Problem>
[[nodiscard]] Status make_filter_tables(const Problem& p, const Queue& queue, Scratch& scratch,
                                        FilterTables<Computed<State>>& tables) {
  using Value = Computed<State>;
  const int n = tables.order;
  tables.filters = is_one_row(p.batch, p.b) && is_one_row(p.batch, p.a) ? 1 : p.batch.rows();
  tables.coefficients = scratch.take<Value>(tables.filters * tables.width(n));
  tables.powers = scratch.take<Value>(tables.filters * tables.levels * n * n);
  tables.usable = tables.levels > 0 ? scratch.take<int>(tables.filters) : nullptr;
  if (!scratch.ok()) return Status::out_of_memory;
  return launch(queue, {minimum(tables.filters, most_blocks), wide_threads}, normalise_filters<State>, p.batch, p.b,
                p.a, p.b_length, p.a_length, tables);
}

// ------------------------------------------------------------------------------------------------------- segments

// How rows are cut. A row has `segments` of them: 1, 2, 4, 8, 16 or a multiple of 32, so that a warp either has whole
// rows or a part of one; those from `used` on are empty.
struct Cut {
  std::int64_t segments = 1, length = 0, used = 1;

  Cut(std::int64_t samples, std::int64_t wanted, std::int64_t shortest) {
    const std::int64_t most = minimum(wanted, (samples + shortest - 1) / shortest);
    if (most >= warp_size) {
      segments = most / warp_size * warp_size;
    } else {
      while (segments * 2 <= most) segments *= 2;
    }
    constexpr std::int64_t whole = 16;  // so that segments of contiguous rows begin at whole sectors of memory
    length = ((samples + segments - 1) / segments + whole - 1) / whole * whole;
    used = length > 0 ? maximum<std::int64_t>((samples + length - 1) / length, 1) : 1;
  }
};

inline constexpr std::int64_t shortest_segment = 128;  // shorter ones are less often sound, see above
inline constexpr int most_levels = 8;

// The states at the segments of all rows, and of groups of them.
template <class Value>
struct Chain {
  int levels = 0, group = 32, squarings = 5;  // members of a group, 2^squarings
  Value* states[most_levels] = {};  // rows × count × N: what segments leave behind from rest, then what they begin with
  std::int64_t count[most_levels] = {};

  // In groups of 32 or 64: of 64 where that saves a level.
  void plan(std::int64_t segments) {
    if (segments <= 1) return;
    const auto levels_of = [&](std::int64_t length) {
      int result = 1;
      for (std::int64_t left = segments; left > length; left = (left + length - 1) / length) ++result;
      return result;
    };
    if (levels_of(2 * group) < levels_of(group)) {
      group *= 2;
      ++squarings;
    }
    for (count[levels++] = segments; count[levels - 1] > group; ++levels)
      count[levels] = (count[levels - 1] + group - 1) / group;
  }
  void take(Scratch& scratch, std::int64_t rows, int n) {
    for (int level = 0; level < levels; ++level) states[level] = scratch.take<Value>(rows * count[level] * n);
  }
};

// From level to level: a group is some neighbours, and N lanes have it, a state each. Upwards, above = what the group
// leaves behind from rest. Downwards, from the state that the group begins with, above or, at the top, the row's
// `first`, each member's state becomes the one that it begins with. N² multiply-adds a member, with the latency of
// about N.
template <class State, int N>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(warp_size, 1)
    chain_states(Batch batch, AnyRows<const State> first, int order, FilterTables<Computed<State>> tables, int level,
                 int group, std::int64_t rows, std::int64_t count, Computed<State>* states, Computed<State>* above,
                 bool down) {
  using Value = Computed<State>;
  constexpr int teams = warp_size / N, ahead = 8;
  const int team = lane() / N, own = lane() % N;
  auto* const shared = reinterpret_cast<Value*>(shared_memory());  // 2 × teams × N
  const std::int64_t groups = (count + group - 1) / group, items = rows * groups;
  for (std::int64_t begin = block() * teams; begin < items; begin += blocks() * teams) {
    const bool there = begin + team < items;
    const std::int64_t item = there ? begin + team : 0, row = item / groups, member = item % groups * group;
    const int members = there ? static_cast<int>(minimum<std::int64_t>(count - member, group)) : 0;
    const Value* const matrix = tables.power(row, level) + own * N;
    Value m[N];
    TORCH_IIR_UNROLL
    for (int j = 0; j < N; ++j) m[j] = matrix[j];
    Value state = 0.0;
    if (down && above != nullptr) {
      state = above[item * N + own];
    } else if (down && first && own < order) {
      state = load(first, first.row(batch, row) + own * first.step);
    }
    Value* const place = states + (row * count + member) * N + own;
    for (int k0 = 0; warp_any(k0 < members); k0 += ahead) {
      Value left[ahead];
      TORCH_IIR_UNROLL
      for (int k = 0; k < ahead; ++k) left[k] = k0 + k < members ? place[(k0 + k) * N] : Value(0.0);
      TORCH_IIR_UNROLL
      for (int k = 0; k < ahead; ++k) {
        Value* const all = shared + ((k & 1) * teams + team) * N;  // read two steps, and a barrier, before its next use
        all[own] = state;
        sync_warp();
        if (k0 + k < members) {
          if (down) place[(k0 + k) * N] = state;
          Value sums[4] = {left[k], 0.0, 0.0, 0.0};
          TORCH_IIR_UNROLL
          for (int j = 0; j < N; ++j) sums[j % 4] = multiply_add(m[j], all[j], sums[j % 4]);
          state = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        }
      }
    }
    sync_warp();
    if (!down && there) above[item * N + own] = state;
  }
}

// The samples of one row as a thread goes through them: element `base` is the first of its own.
struct Signal {
  const void* data;
  DType dtype;
  std::int64_t base, step;
};

// C samples for each thread of a warp, side by side in global memory, and each thread's own in a row in shared memory.
template <class Value, int C>
struct WarpTile {
  static constexpr int pitch = C + 1;  // threads that access the same place of theirs do so in different banks
  static constexpr int values = warp_size * pitch;
  static constexpr int owners = warp_size / C, at_once = 8;  // threads whose samples are accessed in one go

  Value* memory;

  TORCH_IIR_GPU Value* own() const { return memory + lane() * pitch; }

  // access(owner, sample, whether there is one, element) for all of the tile, of which a thread has `count`.
  template <class Access>
  static TORCH_IIR_GPU void each(std::int64_t base, std::int64_t step, int count, Access access) {
    TORCH_IIR_NO_UNROLL
    for (int turn = 0; turn < C; turn += at_once) {
      TORCH_IIR_UNROLL
      for (int i = 0; i < at_once; ++i) {
        const int owner = (turn + i) * owners + lane() / C, sample = lane() % C;
        const std::int64_t at = shuffle(base, owner);
        access(owner, sample, sample < shuffle(count, owner), at + sample * step);
      }
    }
  }
  template <class Sample>
  TORCH_IIR_GPU void fetch_as(const Signal& from, int count) const {
    const auto* const data = static_cast<const Sample*>(from.data);
    each(from.base, from.step, count, [&](int owner, int sample, bool there, std::int64_t at) {
      memory[owner * pitch + sample] = there ? Value(widen(data[at])) : Value(0.0);
    });
  }
  template <class Sample>
  TORCH_IIR_GPU void send_as(const Signal& to, int count, bool add) const {
    auto* const data = static_cast<Sample*>(const_cast<void*>(to.data));
    each(to.base, to.step, count, [&](int owner, int sample, bool there, std::int64_t at) {
      if (!there) return;
      Value value = memory[owner * pitch + sample];
      if (add) value += widen(data[at]);
      data[at] = narrow<Sample>(value);
    });
  }

  // By the whole warp, between barriers. What is not there is zero.
  TORCH_IIR_GPU void fetch(const Signal& from, int count) const {
    if constexpr (std::is_same_v<Value, Complex>) {
      fetch_as<std::complex<double>>(from, count);
    } else {
      switch (from.dtype) {
        case DType::float16: return fetch_as<Half>(from, count);
        case DType::bfloat16: return fetch_as<BFloat16>(from, count);
        case DType::float32: return fetch_as<float>(from, count);
        default: return fetch_as<double>(from, count);
      }
    }
  }
  TORCH_IIR_GPU void send(const Signal& to, int count, bool add = false) const {
    if constexpr (std::is_same_v<Value, Complex>) {
      send_as<std::complex<double>>(to, count, add);
    } else {
      switch (to.dtype) {
        case DType::float16: return send_as<Half>(to, count, add);
        case DType::bfloat16: return send_as<BFloat16>(to, count, add);
        case DType::float32: return send_as<float>(to, count, add);
        default: return send_as<double>(to, count, add);
      }
    }
  }
};

// The parameters of LFilter, with samples of any type.
template <class State>
struct WideFilter {
  Batch batch;
  std::int64_t rows, samples;
  int b_length, a_length, order;
  AnyRows<const State> x, b, a, zi;
  AnyRows<State> y, zf;
};

// Of the powers of the transition, for samples of this type.
template <class Sample>
inline constexpr double most_sound = dtype_of<Sample>() < DType::float64 ? 8192 : 256;

template <class State, int N>
struct WideSegments {
  using Value = Computed<State>;
  using Tile = WarpTile<Value, std::is_same_v<Value, Complex> ? 16 : 32>;
  static_assert(Tile::pitch >= N);
  static constexpr std::int64_t shared_bytes = Tile::values * sizeof(Value);
  static constexpr int warps = N * sizeof(Value) > 128 ? 8 : 12;  // of a multiprocessor, by their registers
};

// Where M goes column by column, the last first: what the recurrence makes of the last unit state over a segment is the
// last column; each sample more makes of a column the one before it.
template <int N, class Value, class Step>
TORCH_IIR_GPU void put_power(Value* to, bool transposed, const Value (&z)[N], Step step) {
  TORCH_IIR_NO_UNROLL
  for (int j = N - 1; j >= 0; --j) {
    TORCH_IIR_UNROLL
    for (int i = 0; i < N; ++i) to[transposed ? j * N + i : i * N + j] = z[i];
    step();
  }
}

// A thread has a segment of a row. From rest (pass 1), its last state is left in `states`, and one thread more for each
// filter makes M; else it begins with what stands there.
template <class State, int N>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(warp_size, (WideSegments<State, N>::warps))
    filter_segments(WideFilter<State> p, FilterTables<Computed<State>> tables, Cut cut, Computed<State>* states,
                    bool from_rest) {
  using Value = Computed<State>;
  using Tile = typename WideSegments<State, N>::Tile;
  constexpr int C = Tile::pitch - 1;
  const Tile tile{reinterpret_cast<Value*>(shared_memory())};
  const std::int64_t slots = p.rows * cut.segments, all = slots + (from_rest ? tables.filters : 0);
  for (std::int64_t begin = block() * warp_size; begin < all; begin += blocks() * warp_size) {
    const bool there = begin + lane() < slots, makes_power = !there && begin + lane() < all;
    const std::int64_t slot = there ? begin + lane() : 0, segment = slot % cut.segments;
    const std::int64_t row = makes_power ? begin + lane() - slots : slot / cut.segments;
    const bool usable = from_rest || tables.is_usable(row);
    const std::int64_t first = usable ? minimum(segment * cut.length, p.samples) : 0;
    const bool last = there && segment == (usable ? cut.used - 1 : 0);
    std::int64_t count = usable ? minimum(cut.length, p.samples - first) : segment == 0 ? p.samples : 0;
    if (!there || (from_rest && last)) count = 0;  // nobody asks for what the last one leaves behind
    if (makes_power) count = cut.length;

    Value b[N + 1], a[N + 1], z[N];
    const Value *const row_b = tables.b(row), *const row_a = tables.a(row);
    TORCH_IIR_UNROLL
    for (int i = 0; i <= N; ++i) {
      b[i] = row_b[i];
      a[i] = row_a[i];
    }
    TORCH_IIR_UNROLL
    for (int i = 0; i < N; ++i) z[i] = makes_power && i == N - 1 ? 1.0 : 0.0;
    const auto step = [&](Value in) {
      const Value out = multiply_add(b[0], in, z[0]);
      TORCH_IIR_UNROLL
      for (int i = 0; i < N; ++i) {
        const Value next = i + 1 < N ? z[i + 1 < N ? i + 1 : i] : Value(0.0);
        z[i] = multiply_add(-a[i + 1], out, multiply_add(b[i + 1], in, next));
      }
      return out;
    };
    if (!from_rest && segment == 0 && p.zi) {
      const std::int64_t at = p.zi.row(p.batch, row);
      TORCH_IIR_NO_UNROLL
      for (int i = 0; i < N; ++i) tile.own()[i] = i < p.order ? load(p.zi, at + i * p.zi.step) : Value(0.0);
      TORCH_IIR_UNROLL
      for (int i = 0; i < N; ++i) z[i] = tile.own()[i];
    } else if (!from_rest && segment > 0) {
      TORCH_IIR_UNROLL
      for (int i = 0; i < N; ++i) z[i] = states[slot * N + i];
    }

    Signal x{p.x.data, p.x.dtype, p.x.row(p.batch, row) + first * p.x.step, p.x.step};
    Signal y{p.y.data, p.y.dtype, p.y.row(p.batch, row) + first * p.y.step, p.y.step};
    for (std::int64_t done = 0; warp_any(done < count); done += C) {
      const int own = static_cast<int>(maximum<std::int64_t>(minimum<std::int64_t>(count - done, C), 0));
      sync_warp();
      tile.fetch(x, makes_power ? 0 : own);
      sync_warp();
      Value* const samples = tile.own();
      for (int t = 0; t < own; ++t) samples[t] = step(samples[t]);
      sync_warp();
      if (!from_rest) tile.send(y, own);
      x.base += C * x.step;
      y.base += C * y.step;
    }
    sync_warp();
    if (from_rest) {
      if (there) {
        TORCH_IIR_UNROLL
        for (int i = 0; i < N; ++i) states[slot * N + i] = z[i];
      }
      if (makes_power) put_power<N>(tables.power(row, 0), tables.backward, z, [&] { step(0.0); });
    } else if (last && p.zf) {
      TORCH_IIR_UNROLL
      for (int i = 0; i < N; ++i) tile.own()[i] = z[i];
      const std::int64_t at = p.zf.row(p.batch, row);
      TORCH_IIR_NO_UNROLL
      for (int i = 0; i < p.order; ++i) store(p.zf, at + i * p.zf.step, tile.own()[i]);
    }
    sync_warp();
  }
}

// After pass 1, chains the states of all segments: up, group by group, and down again.
template <class State, int N>
[[nodiscard]] Status run_chain(const Queue& queue, const Batch& batch, std::int64_t rows, int order,
                               const AnyRows<const State>& first, const FilterTables<Computed<State>>& tables,
                               const Chain<Computed<State>>& chain) {
  using Value = Computed<State>;
  constexpr std::int64_t teams = warp_size / N, shared_bytes = 2 * warp_size * sizeof(Value);
  constexpr std::int64_t matrix_bytes = N * N * sizeof(Value) * sizeof(Value) / sizeof(double);
  Status status = launch(queue, {minimum(tables.filters, most_blocks), wide_threads, 4 * matrix_bytes},
                         raise_powers<State>, tables);
  const auto step = [&](int level, bool down) {
    const bool top = level + 1 == chain.levels;
    const std::int64_t items = rows * ((chain.count[level] + chain.group - 1) / chain.group);
    if (status != Status::ok) return;
    status = launch(queue, {minimum((items + teams - 1) / teams, most_blocks), warp_size, shared_bytes},
                    chain_states<State, N>, batch, first, order, tables, level, chain.group, rows, chain.count[level],
                    chain.states[level], top ? nullptr : chain.states[level + 1], down);
  };
  for (int level = 0; level + 1 < chain.levels; ++level) step(level, false);
  for (int level = chain.levels - 1; level >= 0; --level) step(level, true);
  return status;
}

template <int N, class State>
[[nodiscard]] Status run_filter_segments(const WideFilter<State>& p, double most, const Queue& queue) {
  using Value = Computed<State>;
  const std::int64_t threads_at_once = std::int64_t{device().processors} * WideSegments<State, N>::warps * warp_size;
  const Cut cut(p.samples, threads_at_once / p.rows, shortest_segment);
  Scratch scratch(queue);
  Chain<Value> chain;
  chain.plan(cut.segments);
  chain.take(scratch, p.rows, N);
  FilterTables<Value> tables{};
  tables.order = N;
  tables.levels = chain.levels;
  tables.squarings = chain.squarings;
  tables.most = most;
  Status status = make_filter_tables<State>(p, queue, scratch, tables);
  if (status != Status::ok) return status;
  const auto shape = [&](std::int64_t threads) {
    return Shape{minimum((threads + warp_size - 1) / warp_size, most_blocks), warp_size,
                 WideSegments<State, N>::shared_bytes};
  };
  const std::int64_t threads = p.rows * cut.segments;
  if (chain.levels > 0) {
    status = launch(queue, shape(threads + tables.filters), filter_segments<State, N>, p, tables, cut, chain.states[0],
                    true);
    if (status == Status::ok) status = run_chain<State, N>(queue, p.batch, p.rows, p.order, p.zi, tables, chain);
    if (status != Status::ok) return status;
  }
  return launch(queue, shape(threads), filter_segments<State, N>, p, tables, cut, chain.states[0], false);
}

// ----------------------------------------------------------------------------------------------- one block a row

inline constexpr int wide_tile = wide_threads;  // samples
inline constexpr int wide_warps = wide_threads / warp_size;

// Numbers that a block works with: in shared memory, or where that is too small, in scratch.
template <class Value>
struct Workspace {
  Value* scratch = nullptr;  // of all blocks; null: shared
  std::int64_t values = 0;   // of a block
  std::int64_t shared_bytes = 0;

  [[nodiscard]] Status plan(Scratch& memory, std::int64_t values_of_block, std::int64_t blocks) {
    constexpr std::int64_t most_shared = 48 << 10, size = sizeof(Value);
    values = values_of_block;
    if (values * size <= most_shared) {
      shared_bytes = values * size;
    } else {
      scratch = memory.template take<Value>(values * blocks);
    }
    return memory.ok() ? Status::ok : Status::out_of_memory;
  }
  TORCH_IIR_GPU Value* of_block() const {
    return scratch != nullptr ? scratch + block() * values : reinterpret_cast<Value*>(shared_memory());
  }
};

// In place: out[i] −= Σ_{k ≥ 1} a[k] out[i − k] for `count` values, behind `order` earlier ones, between barriers. 32
// at a time: the products with what stands before these by all warps, those among them by one, a shuffle a value.
template <class Value>
TORCH_IIR_GPU void recur(Value* out, int count, const Value* a, int order, Value* partial) {
  for (int first = 0; first < count; first += warp_size) {
    const int i = lane(), n = minimum(count - first, warp_size);
    Value sum = 0.0;
    if (i < n) {
      for (int k = i + 1 + warp(); k <= order; k += wide_warps) sum = multiply_add(a[k], out[first + i - k], sum);
    }
    partial[thread()] = sum;
    sync();
    if (warp() == 0) {
      Value value = i < n ? out[first + i] : Value(0.0);
      for (int w = 0; w < wide_warps; ++w) value += -partial[w * warp_size + i];
      for (int j = 0; j + 1 < n; ++j) {
        const Value before = from_lane(value, j);
        if (i > j && i - j <= order) value = multiply_add(-a[i - j], before, value);
      }
      if (i < n) out[first + i] = value;
    }
    sync();
  }
}

// Σ_k b[k] in[−k]
template <class Value>
TORCH_IIR_GPU Value convolved(const Value* in, const Value* b, int order) {
  Value sum = 0.0;
  for (int k = 0; k <= order; ++k) sum = multiply_add(b[k], in[-k], sum);
  return sum;
}

// The last `order` of order + count values to the front, between barriers: each round of the threads reads what no
// earlier one wrote.
template <class Value>
TORCH_IIR_GPU void move_to_front(Value* values, int order, int count) {
  for (int first = 0; first < order; first += threads()) {
    const int i = first + thread();
    const Value value = i < order ? values[i + count] : Value(0.0);
    sync();
    if (i < order) values[i] = value;
    sync();
  }
}

template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(wide_threads, 1)
    filter_rows(WideFilter<State> p, FilterTables<Computed<State>> tables, Workspace<Computed<State>> workspace) {
  using Value = Computed<State>;
  const int order = p.order;
  Value *const xs = workspace.of_block(), *const ys = xs + order + wide_tile, *const partial = ys + order + wide_tile;
  for (std::int64_t row = block(); row < p.rows; row += blocks()) {
    const Value *const b = tables.b(row), *const a = tables.a(row);
    const std::int64_t x = p.x.row(p.batch, row), y = p.y.row(p.batch, row);
    const std::int64_t zi = p.zi ? p.zi.row(p.batch, row) : 0;
    const auto initial = [&](std::int64_t t) {  // what is added at time t
      return p.zi && t < order ? load(p.zi, zi + t * p.zi.step) : Value(0.0);
    };
    sync();
    for (int i = thread(); i < order; i += threads()) xs[i] = ys[i] = 0.0;
    for (std::int64_t first = 0; first < p.samples; first += wide_tile) {
      const int count = static_cast<int>(minimum<std::int64_t>(p.samples - first, wide_tile)), i = thread();
      if (i < count) xs[order + i] = load(p.x, x + (first + i) * p.x.step);
      sync();
      if (i < count) ys[order + i] = initial(first + i) + convolved(xs + order + i, b, order);
      sync();
      recur(ys + order, count, a, order, partial);
      if (i < count) store(p.y, y + (first + i) * p.y.step, ys[order + i]);
      move_to_front(xs, order, count);
      move_to_front(ys, order, count);
    }
    sync();
    if (p.zf) {
      const std::int64_t zf = p.zf.row(p.batch, row);
      for (int j = thread(); j < order; j += threads()) {
        Value sum = initial(p.samples + j);
        for (int k = j + 1; k <= order; ++k) {
          sum = multiply_add(b[k], xs[order + j - k], sum);
          sum = multiply_add(-a[k], ys[order + j - k], sum);
        }
        store(p.zf, zf + j * p.zf.step, sum);
      }
    }
  }
}

template <class State>
[[nodiscard]] Status run_filter_rows(const WideFilter<State>& p, const Queue& queue) {
  Scratch scratch(queue);
  FilterTables<Computed<State>> tables{};
  tables.order = p.order;
  const std::int64_t blocks = minimum(p.rows, std::int64_t{device().processors} * 8);
  Workspace<Computed<State>> workspace;
  Status status = workspace.plan(scratch, 2 * (p.order + wide_tile) + wide_threads, blocks);
  if (status == Status::ok) status = make_filter_tables<State>(p, queue, scratch, tables);
  if (status != Status::ok) return status;
  return launch(queue, {blocks, wide_threads, workspace.shared_bytes}, filter_rows<State>, p, tables, workspace);
}

// ---------------------------------------------------------------------------------------------- one thread a row

template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(warp_size, 1)
    filter_one_by_one(WideFilter<State> p, FilterTables<Computed<State>> tables, Workspace<Computed<State>> workspace) {
  using Value = Computed<State>;
  const int order = p.order;
  Value* const z = workspace.of_block() + lane();  // a state is every 32nd from here on
  for (std::int64_t row = block() * warp_size + lane(); row < p.rows; row += blocks() * warp_size) {
    const Value *const b = tables.b(row), *const a = tables.a(row);
    const std::int64_t x = p.x.row(p.batch, row), y = p.y.row(p.batch, row);
    const std::int64_t zi = p.zi ? p.zi.row(p.batch, row) : 0, zf = p.zf ? p.zf.row(p.batch, row) : 0;
    for (int i = 0; i < order; ++i) z[i * warp_size] = p.zi ? load(p.zi, zi + i * p.zi.step) : Value(0.0);
    for (std::int64_t t = 0; t < p.samples; ++t) {
      const Value in = load(p.x, x + t * p.x.step);
      const Value out = multiply_add(b[0], in, order > 0 ? z[0] : Value(0.0));
      for (int i = 0; i < order; ++i) {
        const Value next = i + 1 < order ? z[(i + 1) * warp_size] : Value(0.0);
        z[i * warp_size] = multiply_add(-a[i + 1], out, multiply_add(b[i + 1], in, next));
      }
      store(p.y, y + t * p.y.step, out);
    }
    for (int i = 0; p.zf && i < order; ++i) store(p.zf, zf + i * p.zf.step, z[i * warp_size]);
  }
}

template <class State>
[[nodiscard]] Status run_filter_one_by_one(const WideFilter<State>& p, const Queue& queue) {
  Scratch scratch(queue);
  FilterTables<Computed<State>> tables{};
  tables.order = p.order;
  const std::int64_t blocks = minimum((p.rows + warp_size - 1) / warp_size, std::int64_t{device().processors} * 32);
  Workspace<Computed<State>> workspace;
  Status status = workspace.plan(scratch, std::int64_t{p.order} * warp_size, blocks);
  if (status == Status::ok) status = make_filter_tables<State>(p, queue, scratch, tables);
  if (status != Status::ok) return status;
  return launch(queue, {blocks, warp_size, workspace.shared_bytes}, filter_one_by_one<State>, p, tables, workspace);
}

// `automatic`, `direct`, `rows` for any order; the other forms are those of lower orders.
template <class Sample, class State>
[[nodiscard]] Status run_lfilter_wide(const LFilter<Sample, State>& p, const Queue& queue, Algorithm algorithm) {
  const std::int64_t rows = p.batch.rows();
  if (rows == 0) return Status::ok;
  const int order = maximum(p.b_length, p.a_length) - 1;
  const WideFilter<State> wide{p.batch,
                               rows,
                               p.samples,
                               p.b_length,
                               p.a_length,
                               order,
                               any_samples<State>(p.x),
                               p.b,
                               p.a,
                               p.zi,
                               any_samples<State>(p.y),
                               p.zf};
  if (algorithm == Algorithm::direct) return run_filter_one_by_one(wide, queue);
  if (algorithm != Algorithm::automatic && algorithm != Algorithm::rows) return Status::unsupported;
  if (algorithm == Algorithm::automatic) {
    if constexpr (std::is_same_v<Computed<State>, Complex>) {
      if (order <= 8) return run_filter_segments<8>(wide, most_sound<Sample>, queue);
    } else {
      if (order <= 16) return run_filter_segments<16>(wide, most_sound<Sample>, queue);
      if (order <= 32) return run_filter_segments<32>(wide, most_sound<Sample>, queue);
    }
  }
  return run_filter_rows(wide, queue);
}

}  // namespace torch_iir::cuda
