// The recurrence whose coefficients change, orders 1 to 32, by warps.
//
// One warp runs over a row, or a chunk of it, step after step: lane l has what is pending for steps n ≡ l modulo 32.
// The lane whose step it is tells the others v, and each adds its coefficient times v to what it has.
//
// Chunks      so that a few rows fill the machine. Of each chunk, a group of lanes computes how it answers to each unit
//             state and to its own drive from rest (order + 1 recurrences over the same coefficients, 3 of a lane, or 2
//             above order 23); a scan over the chunks' maps, in groups where a row has many, gives every chunk the
//             state that it begins with; then each chunk runs as a row does
// Precision   double throughout, coefficients are converted once, on the way to shared memory
// Cost        counted, not measured. A run: 1 multiply-add of each lane, 2 shuffles and a read of shared memory a step,
//             about 45 clocks from step to step; 16 to 20 warps on a multiprocessor (11.3 KB of shared memory a warp at
//             order 22, 17 KB at 32) are 0.2 to 0.35 samples a clock, what memory has at order 22 (96 bytes each).
//             Answers: (order + 1) · order multiply-adds a step rounded up to 3 · 8 · 24 at order 22, 9 clocks of a
//             multiprocessor's double units. Coefficients are read twice where rows are cut, once where they are not:
//             [64, 480000] at order 22 moves 5.7 GB, 1.4 ms, beside 1.3 ms of arithmetic
// Bits        chunks depend on the shape and the number of multiprocessors
// Overflow    a map that is not finite is not used: the scan runs over the chunk itself. A chunk of which only the
//             drive is not finite goes on as it would step by step: all that comes after is not finite either
// Races       a warp uses shared memory of its own, between sync_warp()s; kernels hand on through global memory
#pragma once

#include "lfilter_tv_recurrence.h"

namespace torch_iir::cuda {

inline constexpr int warp_order = 32;   // largest order
inline constexpr int run_warps = 4;     // warps of a block
inline constexpr int answer_steps = 8;  // steps whose coefficients lie in shared memory at once

// Coefficients of steps to a ring in shared memory, [ring_rows][pitch], lag k at column k − 1: `rows` steps from
// `first` on, the first at row ring_at, by `width` lanes of which this is number `own`. Forwards a coefficient goes
// where the step stands whose v it meets, k rows further up. Steps from `limit` on have zeros.
template <bool backward>
TORCH_IIR_GPU void stage_rows(const Recurrence<double>& r, std::int64_t a, std::int64_t first, int rows,
                              std::int64_t limit, double* ring, int ring_rows, int ring_at, int pitch, int own,
                              int width) {
  const int order = r.order(), down = width / order, across = width % order;
  int i = own / order, k = own % order;
  const auto place = [&] {
    const int row = backward ? ring_at + i : ring_at + i - k - 1;
    return (row < 0 ? row + ring_rows : row) * pitch + k;
  };
  const auto advance = [&] {
    i += down;
    k += across;
    if (k >= order) k -= order, ++i;
  };
  const int skipped = 1 - r.a.first;
  if (r.a.interpolated()) {
    for (; i < rows; advance()) {
      const std::int64_t n = first + i;
      ring[place()] = n < limit ? tap(r.a, a, r.template time<backward>(n), k + skipped) : 0.0;
    }
    return;
  }
  const std::int64_t apart = r.a.apart() * (backward ? -1 : 1), step = r.a.step;
  const std::int64_t begin = a + r.template time<backward>(first) * r.a.apart() + skipped * step;
  const int valid = static_cast<int>(minimum<std::int64_t>(limit - first, rows));
  with_real_type(r.a.dtype, [&](auto type) {
    using Stored = typename decltype(type)::Type;
    const Stored* const data = static_cast<const Stored*>(r.a.data) + begin;
    constexpr int at_once = 8;  // loads of a lane that are under way
    while (i < rows) {
      Stored values[at_once];
      int places[at_once];
      TORCH_IIR_UNROLL
      for (int u = 0; u < at_once; ++u) {
        places[u] = i < rows ? place() : -1;
        values[u] = i < valid ? data[i * apart + k * step] : Stored{};
        advance();
      }
      TORCH_IIR_UNROLL
      for (int u = 0; u < at_once; ++u) {
        if (places[u] >= 0) ring[places[u]] = widen(values[u]);
      }
    }
  });
}

// Of a warp that runs.
TORCH_IIR_HOST_DEVICE constexpr int run_pitch(int order) { return (order + 1) / 2 * 2; }
template <bool backward>
TORCH_IIR_HOST_DEVICE constexpr int run_ring(int order) {
  return (backward ? 32 : 64) * run_pitch(order);
}

// A warp runs over the steps [first, last) of a row; lane j has number j of the state before them, and gets that of the
// state behind them.
template <bool backward>
TORCH_IIR_GPU double run_steps(const Recurrence<double>& r, std::int64_t row, std::int64_t first, std::int64_t last,
                               double state, double* ring, bool stores) {
  const int order = r.order(), pitch = run_pitch(order);
  constexpr int lead = backward ? 0 : 32, ring_rows = backward ? 32 : 64;
  const std::int64_t a = r.a.row(r.batch, row), x = r.in.row(r.batch, row), out = r.out.row(r.batch, row);
  const std::int64_t steps = lead + last - first;  // forwards the past comes first: its outputs are there already
  const double past = shuffle(state, 31 - lane());
  double pending = backward && lane() < order ? state : 0, latest = 0;
  for (std::int64_t m0 = 0; m0 < steps; m0 += 32) {
    const std::int64_t staged = m0 + lead;  // forwards, coefficients meet what came up to 32 steps before them
    if (first + staged - lead < last)
      stage_rows<backward>(r, a, first + staged - lead, 32, last, ring, ring_rows, static_cast<int>(staged % ring_rows),
                           pitch, lane(), 32);
    const bool before = !backward && m0 == 0;
    const std::int64_t n = first - lead + m0 + lane(), t = r.template time<backward>(n);
    double in = 0, inverse = 1;
    if (!before && n < last) {
      in = r.load_in(x, t);
      if (r.a.first == 0) inverse = 1 / tap(r.a, a, t, 0);
    }
    sync_warp();
    const int count = static_cast<int>(minimum<std::int64_t>(32, steps - m0));
    const double* const block = ring + (m0 % ring_rows) * pitch;
    for (int s = 0; s < count; ++s) {
      const double own = before ? (31 - lane() < order ? past : 0) : (pending + in) * inverse;
      const double v = shuffle(own, s);
      if (lane() == s) latest = v, pending = 0;
      const int k = ((lane() - s - 1) & 31) + 1;
      // What is pending for the past does not matter.
      if (k <= order && (!before || s + k >= 32)) pending = fma(-block[s * pitch + k - 1], v, pending);
    }
    sync_warp();
    if (stores && !before && lane() < count) r.store_out(out, t, latest);
  }
  const int from = static_cast<int>((backward ? steps + lane() : steps - 1 - lane()) & 31);
  return shuffle(backward ? pending : latest, from);
}

template <bool backward>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(run_warps* warp_size, 4) tv_run(Recurrence<double> r, Chunks c) {
  const int order = r.order();
  double* const ring = reinterpret_cast<double*>(shared_memory()) + warp() * run_ring<backward>(order);
  const std::int64_t count = r.rows * c.count, side_by_side = blocks() * run_warps;
  for (std::int64_t id = block() * run_warps + warp(); id < count; id += side_by_side) {
    const std::int64_t row = id / c.count, chunk = id % c.count, first = chunk * c.length;
    const std::int64_t last = minimum(first + c.length, r.steps());
    double state = 0;
    if (lane() < order) {
      if (c.entries != nullptr) state = c.entries[id * order + lane()];
      else if (r.from) state = load(r.from, r.from.row(r.batch, row) + lane() * r.from.step);
    }
    state = run_steps<backward>(r, row, first, last, state, ring, true);
    if (chunk == c.count - 1 && r.to && lane() < order) store(r.to, r.to.row(r.batch, row) + lane() * r.to.step, state);
  }
}

// How chunks answer to states. `width` lanes have a chunk, each of them `at_once` answers; N is the order or a little
// more.
TORCH_IIR_HOST_DEVICE constexpr int answer_ring(int order, bool backward) {
  return backward ? answer_steps : (order + answer_steps - 1) / answer_steps * answer_steps + answer_steps;
}
TORCH_IIR_HOST_DEVICE constexpr int answer_numbers(int order, int N, bool backward) {
  const int numbers = answer_ring(order, backward) * N + 2 * answer_steps;  // even
  return numbers + (18 - numbers % 16) % 16;                                // chunks begin in banks of their own
}

template <int N, int at_once, bool backward>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(run_warps* warp_size, 2) tv_answers(Recurrence<double> r, Chunks c, int width) {
  struct alignas(16) Pair {
    double first, second;
  };
  static_assert(N % 2 == 0);
  const int order = r.order(), ring_rows = answer_ring(order, backward), lead = ring_rows - answer_steps;
  const int numbers = answer_numbers(order, N, backward), together = warp_size / width;
  const int mine = minimum(lane() / width, together - 1), own = lane() % width;
  double* const of_warp = reinterpret_cast<double*>(shared_memory()) + warp() * together * numbers;
  double *const ring = of_warp + mine * numbers, *const in = ring + ring_rows * N, *const inverse = in + answer_steps;
  for (int i = lane(); i < together * numbers; i += warp_size) of_warp[i] = 0;  // columns from the order on stay so
  sync_warp();
  const std::int64_t per_row = c.count - 1, count = r.rows * per_row, side_by_side = blocks() * run_warps * together;
  for (std::int64_t id0 = (block() * run_warps + warp()) * together; id0 < count; id0 += side_by_side) {
    const bool active = lane() / width < together && id0 + mine < count;
    const std::int64_t id = active ? id0 + mine : id0, row = id / per_row, start = id % per_row * c.length;
    const std::int64_t a = r.a.row(r.batch, row), x = r.in.row(r.batch, row);
    double z[at_once][N];
    TORCH_IIR_UNROLL
    for (int i = 0; i < at_once; ++i) {
      TORCH_IIR_UNROLL
      for (int k = 0; k < N; ++k) z[i][k] = backward && k < order && k == own * at_once + i ? 1 : 0;
    }
    double* const map = c.maps + id * (order + 1) * order;
    for (std::int64_t m0 = 0; m0 < lead + c.length; m0 += answer_steps) {
      const bool before = m0 < lead;
      if (active) {
        stage_rows<backward>(r, a, start + m0, answer_steps, start + c.length, ring, ring_rows,
                             static_cast<int>((m0 + lead) % ring_rows), N, own, width);
        for (int q = own; q < answer_steps && !before; q += width) {
          const std::int64_t t = r.template time<backward>(start + m0 - lead + q);
          in[q] = r.load_in(x, t);
          inverse[q] = r.a.first == 0 ? 1 / tap(r.a, a, t, 0) : 1;
        }
      }
      sync_warp();
      const auto* row_of = reinterpret_cast<const Pair*>(ring + m0 % ring_rows * N);
      TORCH_IIR_NO_UNROLL
      for (int q = 0; q < answer_steps; ++q, row_of += N / 2) {
        const std::int64_t m = m0 + q;
        double v[at_once];
        TORCH_IIR_UNROLL
        for (int i = 0; i < at_once; ++i) {
          const int unit = own * at_once + i;
          v[i] = before ? (m == lead - 1 - unit ? 1.0 : 0.0) : (z[i][0] + (unit == order ? in[q] : 0.0)) * inverse[q];
        }
        TORCH_IIR_UNROLL
        for (int k = 0; k < N; k += 2) {
          const Pair pair = row_of[k / 2];
          TORCH_IIR_UNROLL
          for (int i = 0; i < at_once; ++i) {
            z[i][k] = fma(-pair.first, v[i], z[i][k + 1]);
            z[i][k + 1] = fma(-pair.second, v[i], k + 2 < N ? z[i][k + 2 < N ? k + 2 : k] : 0.0);
          }
        }
        const std::int64_t place = lead + c.length - 1 - m;
        if (!backward && active && place < order) {
          TORCH_IIR_UNROLL
          for (int i = 0; i < at_once; ++i) {
            if (own * at_once + i <= order) map[(own * at_once + i) * order + place] = v[i];
          }
        }
      }
      sync_warp();
    }
    if (backward && active) {
      TORCH_IIR_UNROLL
      for (int i = 0; i < at_once; ++i) {
        TORCH_IIR_UNROLL
        for (int k = 0; k < N; ++k) {
          if (k < order && own * at_once + i <= order) map[(own * at_once + i) * order + k] = z[i][k];
        }
      }
    }
  }
}

// A state, number j in lane j, by a map; `sound`: the map is finite. With `drive`, what rest ends in is added.
TORCH_IIR_GPU double by_map(const double* map, int order, double state, bool drive, bool& sound) {
  const int own = minimum(lane(), order - 1);
  double sum = drive ? map[order * order + own] : 0;
  bool finite = true;
  for (int j = 0; j < order; ++j) {
    const double value = map[j * order + own];
    finite &= isfinite(value);
    sum = fma(value, shuffle(state, j), sum);
  }
  sound = warp_all(finite);
  return sum;
}

// As Differences, of a state with number j in lane j.
template <bool backward>
TORCH_IIR_GPU double in_differences(const Recurrence<double>& r, std::int64_t row, double state, bool undone) {
  const Differences by = Differences::of(r, row);
  const Vector<2> here{{shuffle(state, 0), shuffle(state, 1)}};
  const Vector<2> there = undone ? by.undone<backward>(here) : by.made<backward>(here);
  return lane() < 2 ? there[lane()] : 0;
}

// What a row begins with.
TORCH_IIR_GPU double first_entry(const Recurrence<double>& r, std::int64_t row) {
  return r.from && lane() < r.order() ? load(r.from, r.from.row(r.batch, row) + lane() * r.from.step) : 0;
}

// By the map of a chunk, or a group.
template <bool backward>
TORCH_IIR_GPU double by_map_of(const double* map, const Recurrence<double>& r, const Chunks& c, std::int64_t row,
                               double state, bool& sound) {
  if (!c.differences) return by_map(map, r.order(), state, true, sound);
  const double next = by_map(map, r.order(), in_differences<backward>(r, row, state, false), true, sound);
  return in_differences<backward>(r, row, next, true);
}

template <bool backward>
TORCH_IIR_GPU double over_chunk(const Recurrence<double>& r, const Chunks& c, std::int64_t row, std::int64_t chunk,
                                double state, double* ring) {
  const int order = r.order();
  bool sound;
  const double* const map = c.maps + (row * (c.count - 1) + chunk) * (order + 1) * order;
  const double next = by_map_of<backward>(map, r, c, row, state, sound);
  if (sound) return next;
  return run_steps<backward>(r, row, chunk * c.length, (chunk + 1) * c.length, state, ring, false);
}

// The maps of groups, but of the last: a warp for each of their columns.
template <bool backward>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(run_warps* warp_size, 4) tv_compose(Recurrence<double> r, Chunks c) {
  const std::int64_t rows = r.rows;
  const int order = r.order();
  const std::int64_t per_row = (c.groups - 1) * (order + 1), count = rows * per_row;
  for (std::int64_t id = block() * run_warps + warp(); id < count; id += blocks() * run_warps) {
    const std::int64_t row = id / per_row, group = id % per_row / (order + 1);
    const auto column = static_cast<int>(id % (order + 1));
    double state = lane() == column ? 1 : 0;  // column `order` is rest
    if (lane() >= order) state = 0;
    for (std::int64_t chunk = group * c.group; chunk < (group + 1) * c.group; ++chunk) {
      bool sound;
      const double* const map = c.maps + (row * (c.count - 1) + chunk) * (order + 1) * order;
      state = by_map(map, order, state, column == order, sound);
    }
    if (lane() < order) c.group_maps[id * order + lane()] = state;
  }
}

// The states that groups begin with, a warp for each row.
template <bool backward>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(run_warps* warp_size, 4) tv_scan_groups(Recurrence<double> r, Chunks c) {
  const int order = r.order();
  double* const ring = reinterpret_cast<double*>(shared_memory()) + warp() * run_ring<backward>(order);
  for (std::int64_t row = block() * run_warps + warp(); row < r.rows; row += blocks() * run_warps) {
    double state = first_entry(r, row);
    for (std::int64_t group = 0; group < c.groups; ++group) {
      if (lane() < order) c.group_entries[(row * c.groups + group) * order + lane()] = state;
      if (group + 1 == c.groups) break;
      bool sound;
      const double* const map = c.group_maps + (row * (c.groups - 1) + group) * (order + 1) * order;
      const double next = by_map_of<backward>(map, r, c, row, state, sound);
      if (sound) {
        state = next;
      } else {
        for (std::int64_t chunk = group * c.group; chunk < (group + 1) * c.group; ++chunk)
          state = over_chunk<backward>(r, c, row, chunk, state, ring);
      }
    }
  }
}

// The states that chunks begin with, a warp for each group.
template <bool backward>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(run_warps* warp_size, 4) tv_scan(Recurrence<double> r, Chunks c) {
  const int order = r.order();
  double* const ring = reinterpret_cast<double*>(shared_memory()) + warp() * run_ring<backward>(order);
  const std::int64_t count = r.rows * c.groups;
  for (std::int64_t id = block() * run_warps + warp(); id < count; id += blocks() * run_warps) {
    const std::int64_t row = id / c.groups, group = id % c.groups, end = minimum((group + 1) * c.group, c.count);
    double state = 0;
    if (c.groups == 1) state = first_entry(r, row);
    else if (lane() < order) state = c.group_entries[id * order + lane()];
    for (std::int64_t chunk = group * c.group; chunk < end; ++chunk) {
      if (lane() < order) c.entries[(row * c.count + chunk) * order + lane()] = state;
      if (chunk + 1 < end) state = over_chunk<backward>(r, c, row, chunk, state, ring);
    }
  }
}

inline std::int64_t blocks_of_warps(std::int64_t warps) {
  return maximum<std::int64_t>(minimum((warps + run_warps - 1) / run_warps, most_blocks), 1);
}
template <bool backward>
std::int64_t run_bytes(int order) {
  return std::int64_t{run_warps} * run_ring<backward>(order) * static_cast<std::int64_t>(sizeof(double));
}

// Chunks of about `length` steps or more, `unit` of them a whole; memory for their maps and states.
inline bool cut(Chunks& c, std::int64_t rows, std::int64_t steps, int order, std::int64_t chunks_of_row,
                std::int64_t least, std::int64_t unit, Again& memory) {
  std::int64_t length = maximum((steps + chunks_of_row - 1) / chunks_of_row, least);
  length = (length + unit - 1) / unit * unit;
  c.length = length;
  c.count = maximum<std::int64_t>((steps + length - 1) / length, 1);
  if (c.count == 1) return true;
  c.group = c.count;
  c.groups = 1;
  if (c.count > 32) {
    for (c.group = 6; c.group * c.group < c.count;) ++c.group;
    c.groups = (c.count + c.group - 1) / c.group;
  }
  const std::int64_t map = std::int64_t{order} * (order + 1);
  const std::int64_t maps = rows * (c.count - 1) * map, group_maps = rows * (c.groups - 1) * map;
  const std::int64_t entries = rows * c.count * order, group_entries = rows * c.groups * order;
  double* const data = memory.take(maps + group_maps + entries + group_entries);
  if (!memory.ok()) return false;
  c.maps = data;
  c.group_maps = c.maps + maps;
  c.entries = c.group_maps + group_maps;
  c.group_entries = c.entries + entries;
  return true;
}

// The states that chunks begin with, once their maps are there.
template <bool backward>
Status scan_chunks(const Recurrence<double>& r, const Chunks& c, const Queue& queue) {
  const int order = r.order();
  if (c.groups > 1) {
    const std::int64_t columns = r.rows * (c.groups - 1) * (order + 1);
    Status status = launch(queue, {blocks_of_warps(columns), run_warps * warp_size}, tv_compose<backward>, r, c);
    if (status != Status::ok) return status;
    status = launch(queue, {blocks_of_warps(r.rows), run_warps * warp_size, run_bytes<backward>(order)},
                    tv_scan_groups<backward>, r, c);
    if (status != Status::ok) return status;
  }
  return launch(queue, {blocks_of_warps(r.rows * c.groups), run_warps * warp_size, run_bytes<backward>(order)},
                tv_scan<backward>, r, c);
}

template <bool backward>
Status run_rows(const Recurrence<double>& r, const Chunks& c, const Queue& queue) {
  return launch(queue, {blocks_of_warps(r.rows * c.count), run_warps * warp_size, run_bytes<backward>(r.order())},
                tv_run<backward>, r, c);
}

template <int N, int at_once, bool backward>
Status run_answers(const Recurrence<double>& r, const Chunks& c, const Queue& queue) {
  const int order = r.order(), width = (order + at_once) / at_once, together = warp_size / width;
  const std::int64_t numbers = std::int64_t{run_warps} * together * answer_numbers(order, N, backward);
  const std::int64_t warps = (r.rows * (c.count - 1) + together - 1) / together;
  return launch(queue,
                {blocks_of_warps(warps), run_warps * warp_size, numbers * static_cast<std::int64_t>(sizeof(double))},
                tv_answers<N, at_once, backward>, r, c, width);
}

// How many answers a lane has, and lanes a chunk.
inline int chunks_of_warp(int order) {
  const int at_once = order < 24 ? 3 : 2;
  return warp_size / ((order + at_once) / at_once);
}

template <bool backward>
Status run_warps_chunked(const Recurrence<double>& r, const Queue& queue, Again& memory) {
  const int order = r.order();
  const std::int64_t rows = maximum<std::int64_t>(r.rows, 1);
  const std::int64_t wanted = std::int64_t{8} * device().processors * chunks_of_warp(order);  // 8 warps of answers
  Chunks c;
  if (!cut(c, r.rows, r.steps(), order, maximum<std::int64_t>(wanted / rows, 1), 64, 32, memory))
    return Status::out_of_memory;
  if (c.count > 1) {
    Status status = order <= 4    ? run_answers<4, 3, backward>(r, c, queue)
                    : order <= 8  ? run_answers<8, 3, backward>(r, c, queue)
                    : order <= 16 ? run_answers<16, 3, backward>(r, c, queue)
                    : order < 24  ? run_answers<24, 3, backward>(r, c, queue)
                                  : run_answers<32, 2, backward>(r, c, queue);
    if (status == Status::ok) status = scan_chunks<backward>(r, c, queue);
    if (status != Status::ok) return status;
  } else {
    c.length = r.steps();
  }
  return run_rows<backward>(r, c, queue);
}

template <bool backward>
Status run_warps_directly(const Recurrence<double>& r, const Queue& queue) {
  Chunks c;
  c.length = r.steps();
  return run_rows<backward>(r, c, queue);
}

}  // namespace torch_iir::cuda
