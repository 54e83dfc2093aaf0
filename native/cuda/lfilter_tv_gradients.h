// What lfilter_tv_backward makes of v, the adjoint of the drive, which lies in scratch memory in double, for a stretch
// of samples at a time, and some samples behind it:
//
//   gx[t] = Σ_k conj(b[t+k,k]) v[t+k]        gb[t,k] = v[t] conj(x[t−k])        ga[t,k] = −v[t] conj(y[t−k])
//
// Sums        rows that share a gradient are added up in their order by the thread, or the warp, that has it; samples
//             that share a frame by the lanes of a warp, lane l those of t ≡ l modulo 32 from the first on, then in a
//             tree, then stretch after stretch. Nothing depends on which block came first
// Cost        each thread reads what it needs from the caches: v once for each lag, coefficients once, signals once for
//             each lag; writes lie side by side
// Memory      for frames that several samples share: sums in double, one for each number of the gradient
#pragma once

#include "lfilter_tv_recurrence.h"

namespace torch_iir::cuda {

// Rows that share a gradient: those that differ only in dimensions where its stride is 0.
struct Sharing {
  std::int64_t owners = 1, members = 1;  // places of the gradient, rows of each
  int kept = 0, shared = 0;
  std::int64_t kept_size[max_batch_dims], kept_rows[max_batch_dims];
  std::int64_t shared_size[max_batch_dims], shared_rows[max_batch_dims];

  template <class State>
  static Sharing of(const AnyRows<State>& gradient, const Batch& batch) {
    Sharing result;
    std::int64_t rows = 1;  // from index to index of the dimension
    for (int d = batch.dims - 1; d >= 0; --d) {
      const std::int64_t size = batch.size[d];
      if (size != 1 && gradient.stride[d] == 0) {
        result.shared_size[result.shared] = size;
        result.shared_rows[result.shared++] = rows;
        result.members *= size;
      } else if (size != 1) {
        result.kept_size[result.kept] = size;
        result.kept_rows[result.kept++] = rows;
        result.owners *= size;
      }
      rows *= size;
    }
    return result;
  }
  TORCH_IIR_GPU std::int64_t row(std::int64_t owner, std::int64_t member) const {
    std::int64_t result = 0;
    for (int d = 0; d < kept; ++d) {
      result += owner % kept_size[d] * kept_rows[d];
      owner /= kept_size[d];
    }
    for (int d = 0; d < shared; ++d) {
      result += member % shared_size[d] * shared_rows[d];
      member /= shared_size[d];
    }
    return result;
  }
};

// v of samples [begin, end), and of some behind them that are known already: row · pitch + t − begin.
template <class State>
struct Adjoint {
  Computed<State>* values = nullptr;
  std::int64_t pitch = 0, begin = 0, end = 0;

  TORCH_IIR_GPU Computed<State> at(std::int64_t row, std::int64_t t) const { return values[row * pitch + t - begin]; }
};

inline constexpr int gradient_threads = 256;

inline Shape gradient_shape(std::int64_t count) {
  return {maximum<std::int64_t>(minimum((count + gradient_threads - 1) / gradient_threads, most_blocks), 1),
          gradient_threads};
}

// --- of x

template <class State>
struct InputGradient {
  Batch batch;
  std::int64_t samples = 0;
  Sharing sharing;
  Adjoint<State> v;
  AnyTaps<State> b;  // null: the drive is x
  AnyRows<State> gx;
};

// Of sample t of a row: negative ones are the past.
template <class State>
TORCH_IIR_GPU Computed<State> input_gradient(const InputGradient<State>& g, std::int64_t row, std::int64_t t) {
  if (!g.b) return g.v.at(row, t);
  const std::int64_t b = g.b.row(g.batch, row);
  Computed<State> sum = 0.0;
  for (int j = 0; j < g.b.length; ++j) {
    const std::int64_t at = t + g.b.first + j;
    if (at >= 0 && at < g.samples) sum += conjugate(tap(g.b, b, at, j)) * g.v.at(row, at);
  }
  return sum;
}

// A thread for each sample of an owner.
template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(gradient_threads, 4) tv_input_gradient(InputGradient<State> g) {
  const std::int64_t length = g.v.end - g.v.begin, pieces = (length + threads() - 1) / threads();
  for (std::int64_t item = block(); item < g.sharing.owners * pieces; item += blocks()) {
    const std::int64_t owner = item / pieces, t = g.v.begin + item % pieces * threads() + thread();
    if (t >= g.v.end) continue;
    Computed<State> sum = 0.0;
    for (std::int64_t member = 0; member < g.sharing.members; ++member)
      sum += input_gradient(g, g.sharing.row(owner, member), t);
    store(g.gx, g.gx.row(g.batch, g.sharing.row(owner, 0)) + t * g.gx.step, sum);
  }
}

// Of the past x: a thread for each number of an owner. v is there from sample 0 on.
template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(gradient_threads, 4) tv_past_gradient(InputGradient<State> g, int lag) {
  const std::int64_t count = g.sharing.owners * lag;
  for (std::int64_t i = block() * threads() + thread(); i < count; i += blocks() * threads()) {
    const std::int64_t owner = i / lag, j = i % lag;
    Computed<State> sum = 0.0;
    for (std::int64_t member = 0; member < g.sharing.members; ++member)
      sum += input_gradient(g, g.sharing.row(owner, member), -1 - j);
    store(g.gx, g.gx.row(g.batch, g.sharing.row(owner, 0)) + j * g.gx.step, sum);
  }
}

// Of the past outputs: what is pending for the times before the first sample.
template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(gradient_threads, 4)
    tv_state_gradient(Batch batch, Sharing sharing, const Computed<State>* states, int order, AnyRows<State> to) {
  const std::int64_t count = sharing.owners * order;
  for (std::int64_t i = block() * threads() + thread(); i < count; i += blocks() * threads()) {
    const std::int64_t owner = i / order, j = i % order;
    Computed<State> sum = 0.0;
    for (std::int64_t member = 0; member < sharing.members; ++member)
      sum += states[sharing.row(owner, member) * order + j];
    store(to, to.row(batch, sharing.row(owner, 0)) + j * to.step, sum);
  }
}

// --- of coefficients

template <class State>
struct TapGradient {
  Batch batch;
  Sharing sharing;
  Adjoint<State> v;
  AnyRows<const State> signal, past;  // what the coefficients were multiplied by, and what came before it
  bool minus = false;
  int length = 0, first = 0;
  std::int64_t frames = 1, period = 1;
  AnyMatrices<State> to;

  // Of the signal, `lag` samples before t.
  TORCH_IIR_GPU Computed<State> partner(std::int64_t signal_row, std::int64_t past_row, std::int64_t t) const {
    if (t >= 0) return conjugate(load(signal, signal_row + t * signal.step));
    return past ? conjugate(load(past, past_row + (-1 - t) * past.step)) : Computed<State>(0.0);
  }
};

// Where each sample has a frame: a thread for each number of an owner.
template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(gradient_threads, 4) tv_tap_gradient(TapGradient<State> g) {
  const std::int64_t numbers = (g.v.end - g.v.begin) * g.length, pieces = (numbers + threads() - 1) / threads();
  const AnyRows<State>& to = g.to;
  for (std::int64_t item = block(); item < g.sharing.owners * pieces; item += blocks()) {
    const std::int64_t owner = item / pieces, number = item % pieces * threads() + thread();
    if (number >= numbers) continue;
    const std::int64_t t = g.v.begin + number / g.length;
    const auto j = static_cast<int>(number % g.length);
    Computed<State> sum = 0.0;
    for (std::int64_t member = 0; member < g.sharing.members; ++member) {
      const std::int64_t row = g.sharing.row(owner, member);
      sum += g.v.at(row, t) * g.partner(g.signal.row(g.batch, row), g.past.row(g.batch, row), t - g.first - j);
    }
    store(to, to.row(g.batch, g.sharing.row(owner, 0)) + t * g.to.down + j * to.step, g.minus ? -sum : sum);
  }
}

TORCH_IIR_GPU double sum_of_lanes(double value) {
  TORCH_IIR_UNROLL
  for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
TORCH_IIR_GPU Complex sum_of_lanes(Complex value) { return {sum_of_lanes(value.re), sum_of_lanes(value.im)}; }

// Where samples share frames: a warp for each frame of an owner that the stretch reaches, or, of a single frame, for
// each of `pieces` of the stretch. sums[owner][frame][length] are added to; of pieces it is parts[owner][piece][length]
// that are written.
template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(gradient_threads, 4)
    tv_frame_gradient(TapGradient<State> g, std::int64_t first_frame, std::int64_t frames, std::int64_t pieces,
                      Computed<State>* sums, Computed<State>* parts) {
  const std::int64_t per_owner = frames * pieces, count = g.sharing.owners * per_owner;
  const std::int64_t warps = threads() / warp_size, piece_length = (g.v.end - g.v.begin + pieces - 1) / pieces;
  for (std::int64_t item = block() * warps + warp(); item < count; item += blocks() * warps) {
    const std::int64_t owner = item / per_owner, frame = first_frame + item % per_owner / pieces;
    const std::int64_t piece = item % pieces;
    std::int64_t begin = g.v.begin + piece * piece_length, end = minimum(begin + piece_length, g.v.end);
    if (g.frames > 1) {
      begin = maximum(begin, (frame - 1) * g.period + 1);
      if (frame + 1 < g.frames) end = minimum(end, (frame + 1) * g.period);  // the last one stays
    }
    for (int j = 0; j < g.length; ++j) {
      Computed<State> sum = 0.0;
      for (std::int64_t member = 0; member < g.sharing.members; ++member) {
        const std::int64_t row = g.sharing.row(owner, member);
        const std::int64_t signal = g.signal.row(g.batch, row), past = g.past.row(g.batch, row);
        for (std::int64_t t = begin + lane(); t < end; t += warp_size) {
          const Computed<State> product = g.v.at(row, t) * g.partner(signal, past, t - g.first - j);
          if (g.frames == 1) {
            sum += product;
            continue;
          }
          const std::int64_t behind = t - frame * g.period;  // negative before the frame
          const double weight = behind < 0              ? static_cast<double>(behind + g.period)
                                : frame + 1 == g.frames ? static_cast<double>(g.period)
                                                        : static_cast<double>(g.period - behind);
          sum += Computed<State>(weight / static_cast<double>(g.period)) * product;
        }
      }
      sum = sum_of_lanes(sum);
      if (lane() != 0) continue;
      if (parts != nullptr) {
        parts[item * g.length + j] = sum;
      } else {
        sums[(owner * g.frames + frame) * g.length + j] += sum;
      }
    }
  }
}

// The parts of a single frame, one after the other, to its sums.
template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(gradient_threads, 4)
    tv_add_parts(std::int64_t owners, std::int64_t pieces, int length, const Computed<State>* parts,
                 Computed<State>* sums) {
  const std::int64_t count = owners * length;
  for (std::int64_t i = block() * threads() + thread(); i < count; i += blocks() * threads()) {
    const std::int64_t owner = i / length, j = i % length;
    Computed<State> sum = sums[i];
    for (std::int64_t piece = 0; piece < pieces; ++piece) sum += parts[(owner * pieces + piece) * length + j];
    sums[i] = sum;
  }
}

template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(gradient_threads, 4)
    tv_store_sums(TapGradient<State> g, const Computed<State>* sums) {
  const std::int64_t numbers = g.frames * g.length, count = g.sharing.owners * numbers;
  const AnyRows<State>& to = g.to;
  for (std::int64_t i = block() * threads() + thread(); i < count; i += blocks() * threads()) {
    const std::int64_t owner = i / numbers, number = i % numbers;
    store(to, to.row(g.batch, g.sharing.row(owner, 0)) + number / g.length * g.to.down + number % g.length * to.step,
          g.minus ? -sums[i] : sums[i]);
  }
}

// The v behind the next stretch, which lies before this one: moved from the beginning of rows to behind `length`.
template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(gradient_threads, 4)
    tv_keep(std::int64_t rows, std::int64_t pitch, std::int64_t length, std::int64_t kept, Computed<State>* v) {
  const std::int64_t count = rows * kept;
  for (std::int64_t i = block() * threads() + thread(); i < count; i += blocks() * threads()) {
    Computed<State>* const row = v + i / kept * pitch;
    row[length + i % kept] = row[i % kept];
  }
}

}  // namespace torch_iir::cuda
