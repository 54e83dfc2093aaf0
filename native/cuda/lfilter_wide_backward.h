// lfilter_backward of any order, real or complex: the forms of lfilter_wide.h in reversed time, i = T − 1 − t.
//
//   v[i] = g[i] − Σ_{k≥1} a_k v[i−k],  v[−1−j] = γ_j         (a, b conjugated)
//   gx[i] = Σ_k b_k v[i−k]    gb_k = Σ_i conj(x[i]) v[i−k]    ga_k = −Σ_i conj(y[i]) v[i−k]    gzi_j = v[T−1−j]
//
// Written so, all sums run over the row's samples alone, and over what came out of the recurrence before.
//
// Segments    a thread has a segment, 16 samples of it (complex: 8) at a time: v by the recurrence in registers, to
//             shared memory; then gx, gb and ga from windows of v and of samples in registers, 16 multiply-adds for
//             each number read. The state that travels from segment to segment is the last N values of v
// Sums        gb and ga are summed per thread in shared memory, then over the threads of a warp that have one row, and
//             left in scratch per row and warp, as the gradients of a and b as given (a[0] takes part in each of
//             them): partial_sums.h does the rest
// Shared gx   where rows share an input, the thread that has a segment goes through these rows one by one and adds to
//             sums in double, in scratch. For more threads the rows are cut into slices with sums of their own, as
//             long as these are at most a quarter of the incoming gradient (less than one slice there is not)
//
// Cost of segments, counted, not measured, per sample of order N: 5 N + 2 multiply-adds and 20 B for float32 (g is read
// twice). With 64 multiply-adds a clock on 132 multiprocessors at 1.7 GHz at most 175 G samples a second at order 16,
// 89 at order 32: 65 and 33 % of the copy of 16 B a sample. Shared memory 22 KB a warp at order 16, 34 at 32; 228
// and 255 registers (88 B spilled): 8 and 6 warps on a multiprocessor.
//
// Races: none, as in lfilter_wide.h. A sample of gx is always added to by the same thread, in the order of the rows.
#pragma once

#include "lfilter_wide.h"
#include "partial_sums.h"

namespace torch_iir::cuda {

// The rows that a thread or a block goes through one by one: a slice of those that share a gradient of x.
struct Slices {
  Sharing sharing;
  std::int64_t slices = 1, per_slice = 1;  // of a target's rows

  std::int64_t units() const { return sharing.targets * slices; }
  TORCH_IIR_GPU std::int64_t row(std::int64_t unit, std::int64_t index) const {
    return sharing.row(unit / slices, unit % slices * per_slice + index);
  }
  TORCH_IIR_GPU std::int64_t count(std::int64_t unit) const {
    return minimum(per_slice, sharing.sharers - unit % slices * per_slice);
  }
};

// The parameters of LFilterBackward, with samples of any type, and where the rows' parts of sums go.
template <class State>
struct WideBackward {
  Batch batch;
  std::int64_t rows, samples;
  int b_length, a_length, order;
  AnyRows<const State> gy, gzf, x, y, b, a;
  AnyRows<State> gx;
  Computed<State>* gx_sums;  // units × samples; null: gx itself is written
  Computed<State>*gb, *ga;   // rows × parts × (b_length, a_length); null: not wanted
  Computed<State>* gzi;      // rows × order
  std::int64_t parts;

  TORCH_IIR_HOST_DEVICE bool correlates() const { return gb != nullptr || ga != nullptr; }
  TORCH_IIR_HOST_DEVICE bool wants_gx() const { return gx_sums != nullptr || static_cast<bool>(gx); }
  // Of x and y in reversed time, at sample `first`.
  TORCH_IIR_GPU Signal reversed(const AnyRows<const State>& rows_, std::int64_t row, std::int64_t first) const {
    return {rows_.data, rows_.dtype, rows_.row(batch, row) + (samples - 1 - first) * rows_.step, -rows_.step};
  }
};

// The parts of the gradients of b and a that `part` of a row gives: from gb and ga of the normalised coefficients (ga
// without its sign), by `by` threads, of which this is `index`.
template <class State>
TORCH_IIR_GPU void put_coefficient_gradients(const WideBackward<State>& p, const FilterTables<Computed<State>>& tables,
                                             std::int64_t row, std::int64_t part, const Computed<State>* gb,
                                             const Computed<State>* ga, int index, int by) {
  using Value = Computed<State>;
  const Value *const b = tables.b(row), *const a = tables.a(row), scale = Value(1.0) / conjugate(tables.a0(row));
  if (p.gb != nullptr) {
    Value* const to = p.gb + (row * p.parts + part) * p.b_length;
    for (int k = index; k < p.b_length; k += by) to[k] = gb[k] * scale;
  }
  if (p.ga != nullptr) {
    Value* const to = p.ga + (row * p.parts + part) * p.a_length;
    for (int k = index; k < p.a_length; k += by) {
      if (k > 0) {
        to[k] = -(ga[k] * scale);
        continue;
      }
      Value sum = -(gb[0] * b[0]);
      for (int j = 1; j <= p.order; ++j) sum = multiply_add(ga[j], a[j], multiply_add(-gb[j], b[j], sum));
      to[0] = sum * scale;
    }
  }
}

// ------------------------------------------------------------------------------------------------------- segments

// Σ_i x[i] w[(i + shift) % B], in four sums.
template <int B, class Value>
TORCH_IIR_GPU Value product_sum(const Value (&x)[B], const Value (&w)[B], int shift) {
  Value sums[4] = {0.0, 0.0, 0.0, 0.0};
  TORCH_IIR_UNROLL
  for (int i = 0; i < B; ++i) sums[i % 4] = multiply_add(x[i], w[(i + shift) % B], sums[i % 4]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// visit(k, w, shift) for k = 0 … N, where w[(i + shift) % B] = v[i − k] for i < B. A step reads one number.
template <int N, int B, class Value, class Visit>
TORCH_IIR_GPU void slide(const Value* v, Visit visit) {
  Value w[B];
  TORCH_IIR_UNROLL
  for (int i = 0; i < B; ++i) w[i] = v[i];
  visit(0, w, 0);
  TORCH_IIR_NO_UNROLL
  for (int k = 1; k <= N; k += B) {
    TORCH_IIR_UNROLL
    for (int j = 0; j < B; ++j) {
      w[B - 1 - j] = v[-k - j];
      visit(k + j, w, B - 1 - j);
    }
  }
}

template <class State, int N>
struct WideBackwardSegments {
  using Value = Computed<State>;
  static constexpr int B = std::is_same_v<Value, Complex> ? 8 : 16;
  static_assert(N % B == 0);
  using Tile = WarpTile<Value, B>;
  static constexpr int v_pitch = N + B + 1, sums_pitch = warp_size + 1;
  static constexpr int v_values = warp_size * v_pitch, sums_values = 2 * (N + 1) * sums_pitch;
  static constexpr int warps = N * sizeof(Value) > 128 ? 6 : 8;  // of a multiprocessor, by registers and shared memory

  static constexpr std::int64_t shared_bytes(bool correlates) {
    return (Tile::values + v_values + (correlates ? sums_values : 0)) * static_cast<std::int64_t>(sizeof(Value));
  }
};

template <class State, int N>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(warp_size, (WideBackwardSegments<State, N>::warps))
    backward_segments(WideBackward<State> p, FilterTables<Computed<State>> tables, Slices slices, Cut cut,
                      Computed<State>* states, bool from_rest) {
  using Value = Computed<State>;
  using Segments = WideBackwardSegments<State, N>;
  constexpr int B = Segments::B, pitch = Segments::sums_pitch;
  const typename Segments::Tile tile{reinterpret_cast<Value*>(shared_memory())};
  Value* const v = tile.memory + Segments::Tile::values + lane() * Segments::v_pitch;  // N old values, then B new ones
  Value* const sums = tile.memory + Segments::Tile::values + Segments::v_values;       // gb, ga: a column per thread
  const std::int64_t slots = slices.sharing.targets * slices.slices * cut.segments;
  const std::int64_t all = slots + (from_rest ? tables.filters : 0);
  const int team = static_cast<int>(minimum<std::int64_t>(cut.segments, warp_size));  // threads with one row

  for (std::int64_t begin = block() * warp_size; begin < all; begin += blocks() * warp_size) {
    const std::int64_t slot = minimum(begin + lane(), slots - 1), unit = slot / cut.segments;
    const std::int64_t segment = slot % cut.segments, filter = begin + lane() - slots;
    const bool makes_power = filter >= 0 && begin + lane() < all;  // in pass 1, as in filter_segments()
    const std::int64_t rows = filter < 0 ? slices.count(unit) : makes_power ? 1 : 0;
    // Rows that add to the same gx must be cut alike: else two threads would add to one sample.
    bool usable = true;
    for (std::int64_t index = 0; index < rows && !from_rest; ++index)
      usable &= tables.is_usable(slices.row(unit, index));
    const std::int64_t first = usable ? minimum(segment * cut.length, p.samples) : 0;
    const bool is_last = segment == (usable ? cut.used - 1 : 0);
    const std::int64_t length = usable ? minimum(cut.length, p.samples - first) : segment == 0 ? p.samples : 0;

    for (std::int64_t index = 0; warp_any(index < rows); ++index) {
      const bool there = filter < 0 && index < rows, last = there && is_last;
      const std::int64_t row = makes_power ? filter : slices.row(unit, there ? index : 0);
      const std::int64_t count = makes_power ? cut.length : there && !(from_rest && last) ? length : 0;
      Value* const state = states + (row * cut.segments + segment) * N;
      sync_warp();
      // The values of v before the segment's, the oldest first, and the state that they make.
      TORCH_IIR_NO_UNROLL
      for (int j = 0; j < N; ++j) {
        Value value = 0.0;
        if (!from_rest && segment > 0) {
          value = state[j];
        } else if (!from_rest && p.gzf && j < p.order) {
          value = load(p.gzf, p.gzf.row(p.batch, row) + j * p.gzf.step);
        }
        v[N - 1 - j] = value;
      }
      Value a[N], z[N];
      const Value *const b = tables.b(row), *const row_a = tables.a(row);
      TORCH_IIR_UNROLL
      for (int i = 0; i < N; ++i) {
        a[i] = -row_a[i + 1];
        z[i] = makes_power && i == N - 1 ? 1.0 : 0.0;
      }
      const auto carry_on = [&](Value out) {
        TORCH_IIR_UNROLL
        for (int i = 0; i < N; ++i) {
          const Value next = i + 1 < N ? z[i + 1 < N ? i + 1 : i] : Value(0.0);
          z[i] = multiply_add(a[i], out, next);
        }
      };
      if (!from_rest) {
        TORCH_IIR_NO_UNROLL
        for (int j = 0; j < N; ++j) carry_on(v[j]);
      }
      if (!from_rest && p.correlates()) {
        for (int k = 0; k <= 2 * N + 1; ++k) sums[k * pitch + lane()] = 0.0;
      }

      const bool wants_gx = !from_rest && p.wants_gx(), correlates = !from_rest && p.correlates();
      Signal gx = p.gx_sums != nullptr
                      ? Signal{p.gx_sums, dtype_of<State>(), unit * p.samples + p.samples - 1 - first, -1}
                      : Signal{p.gx.data, p.gx.dtype, 0, -p.gx.step};
      if (p.gx_sums == nullptr && p.gx) gx.base = p.gx.row(p.batch, row) + (p.samples - 1 - first) * p.gx.step;
      for (std::int64_t done = 0; warp_any(done < count); done += B) {
        const int own = static_cast<int>(maximum<std::int64_t>(minimum<std::int64_t>(count - done, B), 0));
        Value* const samples = tile.own();
        if (p.gy) {
          sync_warp();
          tile.fetch(p.reversed(p.gy, row, first + done), makes_power ? 0 : own);
          sync_warp();
        }
        for (int i = 0; i < own; ++i) {
          const Value out = p.gy ? samples[i] + z[0] : z[0];
          carry_on(out);
          v[N + i] = out;
        }
        for (int i = own; i < B; ++i) v[N + i] = 0.0;
        if (wants_gx) {
          Value out[B];
          TORCH_IIR_UNROLL
          for (int i = 0; i < B; ++i) out[i] = 0.0;
          slide<N, B>(v + N, [&](int k, const Value(&w)[B], int shift) {
            const Value coefficient = b[k];
            TORCH_IIR_UNROLL
            for (int i = 0; i < B; ++i) out[i] = multiply_add(coefficient, w[(i + shift) % B], out[i]);
          });
          TORCH_IIR_UNROLL
          for (int i = 0; i < B; ++i) samples[i] = out[i];
          sync_warp();
          tile.send(gx, own, index > 0);
          gx.base += B * gx.step;
        }
        if (correlates) {
          TORCH_IIR_NO_UNROLL
          for (int signal = 0; signal < (p.ga != nullptr ? 2 : 1); ++signal) {
            const Signal with = signal == 0 ? p.reversed(p.x, row, first + done) : p.reversed(p.y, row, first + done);
            sync_warp();
            tile.fetch(with, own);
            sync_warp();
            if (own == 0) continue;
            Value values[B];
            TORCH_IIR_UNROLL
            for (int i = 0; i < B; ++i) values[i] = conjugate(samples[i]);
            Value* const to = sums + signal * (N + 1) * pitch + lane();
            slide<N, B>(v + N,
                        [&](int k, const Value(&w)[B], int shift) { to[k * pitch] += product_sum(values, w, shift); });
          }
        }
        // Upwards: a value is read before its place is written.
        TORCH_IIR_NO_UNROLL
        for (int j = 0; own > 0 && j < N; ++j) v[j] = v[j + own];
      }
      sync_warp();

      if (from_rest) {
        for (int j = 0; there && j < N; ++j) state[j] = v[N - 1 - j];
        if (makes_power) put_power<N>(tables.power(row, 0), tables.backward, z, [&] { carry_on(z[0]); });
      } else if (last && p.gzi != nullptr) {
        for (int j = 0; j < p.order; ++j) p.gzi[row * p.order + j] = v[N - 1 - j];
      }
      if (correlates) {
        Value* const total = tile.memory + Segments::Tile::values;  // over v, which nobody needs now
        sync_warp();
        for (int leader = 0; leader < warp_size; leader += team) {
          for (int k = lane(); k <= 2 * N + 1; k += warp_size) {
            Value sum = 0.0;
            for (int other = leader; other < leader + team; ++other) sum += sums[k * pitch + other];
            total[k] = sum;
          }
          sync_warp();
          const std::int64_t row_of_team = shuffle(row, leader), part = shuffle(segment, leader) / warp_size;
          if (shuffle(there ? 1 : 0, leader) != 0)
            put_coefficient_gradients(p, tables, row_of_team, part, total, total + N + 1, lane(), warp_size);
          sync_warp();
        }
      }
    }
  }
}

// ----------------------------------------------------------------------------------------------- one block a row

template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(wide_threads, 1)
    backward_rows(WideBackward<State> p, FilterTables<Computed<State>> tables, Slices slices,
                  Workspace<Computed<State>> workspace) {
  using Value = Computed<State>;
  const int order = p.order;
  Value *const v = workspace.of_block(), *const samples = v + order + wide_tile, *const partial = samples + wide_tile;
  Value *const gb = partial + wide_threads, *const ga = gb + order + 1;
  const std::int64_t units = slices.sharing.targets * slices.slices;
  for (std::int64_t unit = block(); unit < units; unit += blocks()) {
    for (std::int64_t index = 0; index < slices.count(unit); ++index) {
      const std::int64_t row = slices.row(unit, index);
      const Value *const b = tables.b(row), *const a = tables.a(row);
      sync();
      for (int j = thread(); j < order; j += threads())
        v[order - 1 - j] = p.gzf ? load(p.gzf, p.gzf.row(p.batch, row) + j * p.gzf.step) : Value(0.0);
      for (int k = thread(); k <= order; k += threads()) gb[k] = ga[k] = 0.0;
      for (std::int64_t first = 0; first < p.samples; first += wide_tile) {
        const int count = static_cast<int>(minimum<std::int64_t>(p.samples - first, wide_tile)), i = thread();
        const std::int64_t t = p.samples - 1 - first - i;
        if (i < count) v[order + i] = p.gy ? load(p.gy, p.gy.row(p.batch, row) + t * p.gy.step) : Value(0.0);
        sync();
        recur(v + order, count, a, order, partial);
        if (i < count && p.wants_gx()) {
          const Value out = convolved(v + order + i, b, order);
          if (p.gx_sums == nullptr) {
            store(p.gx, p.gx.row(p.batch, row) + t * p.gx.step, out);
          } else {
            Value& sum = p.gx_sums[unit * p.samples + t];
            sum = index == 0 ? out : sum + out;
          }
        }
        const auto correlate = [&](const AnyRows<const State>& with, Value* to) {  // a warp has a lag
          if (i < count) samples[i] = conjugate(load(with, with.row(p.batch, row) + t * with.step));
          sync();
          for (int k = warp(); k <= order; k += wide_warps) {
            Value sum = 0.0;
            for (int j = lane(); j < count; j += warp_size) sum = multiply_add(samples[j], v[order + j - k], sum);
            for (int mask = 1; mask < warp_size; mask *= 2) sum += shuffle_number(sum, mask);
            if (lane() == 0) to[k] += sum;
          }
          sync();
        };
        if (p.correlates()) correlate(p.x, gb);
        if (p.ga != nullptr) correlate(p.y, ga);
        move_to_front(v, order, count);
      }
      sync();
      for (int j = thread(); p.gzi != nullptr && j < order; j += threads()) p.gzi[row * order + j] = v[order - 1 - j];
      if (p.correlates()) put_coefficient_gradients(p, tables, row, 0, gb, ga, thread(), threads());
    }
  }
}

// ---------------------------------------------------------------------------------------------- one thread a row

template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(warp_size, 1)
    backward_one_by_one(WideBackward<State> p, FilterTables<Computed<State>> tables, Slices slices,
                        Workspace<Computed<State>> workspace) {
  using Value = Computed<State>;
  const int order = p.order;
  // Of a thread, one after the other: here they are added up without any other.
  Value* const v = workspace.of_block() + std::int64_t{lane()} * (3 * order + 2);
  Value *const gb = v + order, *const ga = gb + order + 1;
  const std::int64_t units = slices.sharing.targets * slices.slices;
  for (std::int64_t unit = block() * warp_size + lane(); unit < units; unit += blocks() * warp_size) {
    for (std::int64_t index = 0; index < slices.count(unit); ++index) {
      const std::int64_t row = slices.row(unit, index);
      const Value *const b = tables.b(row), *const a = tables.a(row);
      for (int j = 0; j < order; ++j) v[j] = p.gzf ? load(p.gzf, p.gzf.row(p.batch, row) + j * p.gzf.step) : Value(0.0);
      for (int k = 0; k <= order; ++k) gb[k] = ga[k] = 0.0;
      for (std::int64_t t = p.samples - 1; t >= 0; --t) {
        Value now = p.gy ? load(p.gy, p.gy.row(p.batch, row) + t * p.gy.step) : Value(0.0), out = 0.0;
        for (int k = order; k >= 1; --k) {
          now = multiply_add(-a[k], v[k - 1], now);
          out = multiply_add(b[k], v[k - 1], out);
        }
        out = multiply_add(b[0], now, out);
        if (p.gx_sums != nullptr) {
          Value& sum = p.gx_sums[unit * p.samples + t];
          sum = index == 0 ? out : sum + out;
        } else if (p.gx) {
          store(p.gx, p.gx.row(p.batch, row) + t * p.gx.step, out);
        }
        if (p.correlates()) {
          const Value x = conjugate(load(p.x, p.x.row(p.batch, row) + t * p.x.step));
          gb[0] = multiply_add(x, now, gb[0]);
          for (int k = 1; k <= order; ++k) gb[k] = multiply_add(x, v[k - 1], gb[k]);
          if (p.ga != nullptr) {
            const Value y = conjugate(load(p.y, p.y.row(p.batch, row) + t * p.y.step));
            for (int k = 1; k <= order; ++k) ga[k] = multiply_add(y, v[k - 1], ga[k]);
          }
        }
        for (int k = order - 1; k >= 1; --k) v[k] = v[k - 1];
        if (order > 0) v[0] = now;
      }
      for (int j = 0; p.gzi != nullptr && j < order; ++j) p.gzi[row * order + j] = v[j];
      if (p.correlates()) put_coefficient_gradients(p, tables, row, 0, gb, ga, 0, 1);
    }
  }
}

// --------------------------------------------------------------------------------------------------------- choice

template <class Sample, class State>
class WideBackwardRun {
 public:
  using Value = Computed<State>;

  WideBackwardRun(const LFilterBackward<Sample, State>& p, const Queue& queue)
      : queue_(queue), scratch_(queue), gb_(p.gb), ga_(p.ga), gzi_(p.gzi) {
    p_ = {p.batch,
          p.batch.rows(),
          p.samples,
          p.b_length,
          p.a_length,
          maximum(p.b_length, p.a_length) - 1,
          any_samples<State>(p.gy),
          p.gzf,
          any_samples<State>(p.x),
          any_samples<State>(p.y),
          p.b,
          p.a,
          any_samples<State>(p.gx),
          nullptr,
          nullptr,
          nullptr,
          nullptr,
          1};
    slices_.sharing = p_.gx ? sharing_of(p.batch, p_.gx) : Sharing{p_.rows, 1, 1, {p_.rows}, {false}, p.batch};
    slices_.per_slice = slices_.sharing.sharers;
  }

  [[nodiscard]] Status one_by_one() {
    Status status = prepare(p_.order, 0, 0, 1);
    Workspace<Value> workspace;
    const std::int64_t blocks =
        minimum((slices_.units() + warp_size - 1) / warp_size, std::int64_t{device().processors} * 32);
    if (status == Status::ok) status = workspace.plan(scratch_, (3 * std::int64_t{p_.order} + 2) * warp_size, blocks);
    if (status == Status::ok)
      status = launch(queue_, {blocks, warp_size, workspace.shared_bytes}, backward_one_by_one<State>, p_, tables_,
                      slices_, workspace);
    return finish(status);
  }

  [[nodiscard]] Status rows() {
    slice(device().processors);
    Status status = prepare(p_.order, 0, 0, 1);
    Workspace<Value> workspace;
    const std::int64_t blocks = minimum(slices_.units(), std::int64_t{device().processors} * 8);
    const std::int64_t values = 3 * std::int64_t{p_.order} + 2 + 2 * wide_tile + wide_threads;
    if (status == Status::ok) status = workspace.plan(scratch_, values, blocks);
    if (status == Status::ok)
      status = launch(queue_, {blocks, wide_threads, workspace.shared_bytes}, backward_rows<State>, p_, tables_,
                      slices_, workspace);
    return finish(status);
  }

  template <int N>
  [[nodiscard]] Status segments() {
    using Segments = WideBackwardSegments<State, N>;
    const bool correlates = gb_ || ga_;
    const std::int64_t threads_at_once = std::int64_t{device().processors} * Segments::warps * warp_size;
    slice(threads_at_once / maximum<std::int64_t>(p_.samples / shortest_segment, 1));
    // Shared inputs leave few threads for a pass over all rows: shorter segments, whose states are an eighth of the
    // incoming gradient at most.
    const std::int64_t shortest =
        slices_.sharing.sharers > 1
            ? maximum<std::int64_t>(8 * N * static_cast<std::int64_t>(sizeof(Value) / sizeof(Sample)), shortest_segment)
            : shortest_segment;
    const Cut cut(p_.samples, threads_at_once / slices_.units(), shortest);
    Chain<Value> chain;
    chain.plan(cut.segments);
    chain.take(scratch_, p_.rows, N);
    Status status = prepare(N, chain.levels, chain.squarings, (cut.segments + warp_size - 1) / warp_size);
    if (status != Status::ok) return status;
    const auto run = [&](const Slices& slices, bool from_rest) {
      const std::int64_t threads = slices.units() * cut.segments + (from_rest ? tables_.filters : 0);
      const std::int64_t blocks = (threads + warp_size - 1) / warp_size;
      return launch(queue_, {minimum(blocks, most_blocks), warp_size, Segments::shared_bytes(correlates && !from_rest)},
                    backward_segments<State, N>, p_, tables_, slices, cut, chain.states[0], from_rest);
    };
    if (chain.levels > 0) {
      status = run({{p_.rows, 1, 1, {p_.rows}, {false}, p_.batch}, 1, 1}, true);
      if (status == Status::ok)
        status = run_chain<State, N>(queue_, p_.batch, p_.rows, p_.order, p_.gzf, tables_, chain);
    }
    if (status == Status::ok) status = run(slices_, false);
    return finish(status);
  }

 private:
  // Into slices of rows that share gx, for about so many units.
  void slice(std::int64_t wanted) {
    const std::int64_t sharers = slices_.sharing.sharers;
    if (sharers <= 1) return;
    const std::int64_t most = sharers * static_cast<std::int64_t>(sizeof(Sample)) / (4 * sizeof(Value));
    const std::int64_t slices = maximum<std::int64_t>(minimum(most, wanted / slices_.sharing.targets), 1);
    slices_.per_slice = (sharers + slices - 1) / slices;
    slices_.slices = (sharers + slices_.per_slice - 1) / slices_.per_slice;
  }

  // Tables, and scratch for what rows leave: `parts` of the gradients of coefficients each.
  [[nodiscard]] Status prepare(int table_order, int levels, int squarings, std::int64_t parts) {
    p_.parts = parts;
    if (slices_.sharing.sharers != 1 && p_.gx) p_.gx_sums = scratch_.template take<Value>(slices_.units() * p_.samples);
    if (gb_) p_.gb = scratch_.template take<Value>(p_.rows * parts * p_.b_length);
    if (ga_) p_.ga = scratch_.template take<Value>(p_.rows * parts * p_.a_length);
    if (gzi_) p_.gzi = scratch_.template take<Value>(p_.rows * p_.order);
    if (!scratch_.ok()) return Status::out_of_memory;
    tables_.order = table_order;
    tables_.levels = levels;
    tables_.squarings = squarings;
    tables_.most = most_sound<Sample>;
    tables_.backward = true;
    return make_filter_tables<State>(p_, queue_, scratch_, tables_);
  }

  [[nodiscard]] Status finish(Status status) {
    const auto add_up = [&](const AnyRows<State>& to, const Value* data, std::int64_t length) {
      if (status != Status::ok || !to) return;
      status = sum_partials(queue_, scratch_, p_.batch, to,
                            Partials<Value>{data, length, p_.parts, p_.parts * length, length});
    };
    add_up(gb_, p_.gb, p_.b_length);
    add_up(ga_, p_.ga, p_.a_length);
    p_.parts = 1;
    add_up(gzi_, p_.gzi, p_.order);
    if (status != Status::ok || !p_.gx || slices_.sharing.sharers == 1) return status;
    // A target is one row for each of its slices.
    const std::int64_t slices = slices_.slices;
    return sum_partials(queue_, scratch_, slices_.sharing.distinct, p_.gx,
                        Partials<Value>{p_.gx_sums, p_.samples, slices, slices * p_.samples, p_.samples});
  }

  const Queue& queue_;
  Scratch scratch_;
  WideBackward<State> p_;
  AnyRows<State> gb_, ga_, gzi_;
  Slices slices_;
  FilterTables<Value> tables_{};
};

// `automatic`, `direct`, `rows` for any order; the other forms are those of lower orders. There are rows.
template <class Sample, class State>
[[nodiscard]] Status run_lfilter_wide_backward(const LFilterBackward<Sample, State>& p, const Queue& queue,
                                               Algorithm algorithm) {
  WideBackwardRun<Sample, State> run(p, queue);
  const int order = maximum(p.b_length, p.a_length) - 1;
  if (algorithm == Algorithm::direct) return run.one_by_one();
  if (algorithm != Algorithm::automatic && algorithm != Algorithm::rows) return Status::unsupported;
  if (algorithm == Algorithm::automatic) {
    if constexpr (std::is_same_v<Computed<State>, Complex>) {
      if (order <= 8) return run.template segments<8>();
    } else {
      if (order <= 16) return run.template segments<16>();
      if (order <= 32) return run.template segments<32>();
    }
  }
  return run.rows();
}

}  // namespace torch_iir::cuda
