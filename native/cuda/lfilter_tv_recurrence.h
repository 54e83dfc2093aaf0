// The recurrence that lfilter_tv and its gradient share, and the coefficients that it reads.
//
// A stretch is what one call of a kernel has of every row: samples [begin, end), in steps n = 0, 1, …: forwards of
// sample t = begin + n, backwards of t = end − 1 − n. In both directions a step is
//
//   v[n] = (in[n] + z[0]) / a[t,0]        z[k−1] ← z[k] − c[n,k] v[n],  k = 1 … N
//
// where z[j] is what is pending for step n + j. Forwards c[n,k] = a[t+k,k] and v is y, backwards c[n,k] = conj(a[t,k])
// and v is the adjoint of the drive. The state between stretches is, forwards, the N outputs before it, newest first;
// backwards it is z. Both are linear, so that a state crosses many steps by one matrix.
#pragma once

#include <complex>
#include <cstdint>

#include "carry.h"
#include "launch.h"
#include "numbers.h"

namespace torch_iir::cuda {

template <class T>
TORCH_IIR_HOST_DEVICE constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, Half>) return DType::float16;
  else if constexpr (std::is_same_v<T, BFloat16>) return DType::bfloat16;
  else if constexpr (std::is_same_v<T, float>) return DType::float32;
  else if constexpr (std::is_same_v<T, double>) return DType::float64;
  else return DType::complex128;
}

// Rows of samples as rows of a type known at run time.
template <class State, class T>
AnyRows<State> any_type(const Rows<T>& rows) {
  AnyRows<State> result(rows.data, dtype_of<std::remove_const_t<T>>(), rows.step);
  for (int d = 0; d < max_batch_dims; ++d) result.stride[d] = rows.stride[d];
  return result;
}

// Scratch of `length` values for each row.
template <class State>
AnyRows<State> own_rows(void* data, const Batch& batch, std::int64_t length) {
  AnyRows<State> result(data, dtype_of<std::remove_const_t<State>>());
  for (int d = batch.dims - 1; d >= 0; --d) {
    result.stride[d] = length;
    length *= batch.size[d];
  }
  return result;
}

template <class State>
struct AnyTaps : AnyMatrices<const State> {
  int length = 0, first = 0;
  std::int64_t frames = 1, period = 1;

  AnyTaps() = default;
  template <class Coefficient>
  AnyTaps(const Taps<const Coefficient>& taps, std::int64_t samples_per_frame)
      : AnyMatrices<const State>(any_type<const State>(static_cast<const Rows<const Coefficient>&>(taps)), taps.down),
        length(taps.length),
        first(taps.first),
        frames(taps.frames),
        period(samples_per_frame) {}

  TORCH_IIR_HOST_DEVICE int largest_lag() const { return length > 0 ? first + length - 1 : 0; }
  TORCH_IIR_HOST_DEVICE bool interpolated() const { return frames > 1 && period > 1; }
  // Between neighbours in time, where nothing is interpolated.
  TORCH_IIR_HOST_DEVICE std::int64_t apart() const { return frames > 1 ? this->down : 0; }
};

// The frame that sample t lies on or behind, the one after it, and how near t is to that.
struct Between {
  std::int64_t frame, next;
  double weight;

  template <class State>
  TORCH_IIR_GPU Between(const AnyTaps<State>& taps, std::int64_t t) {
    const bool narrow_enough = t <= 0xffffffff && taps.period <= 0xffffffff;  // a division in 64 bits takes its time
    frame = narrow_enough ? static_cast<std::uint32_t>(t) / static_cast<std::uint32_t>(taps.period) : t / taps.period;
    weight = static_cast<double>(t - frame * taps.period) / static_cast<double>(taps.period);
    frame = minimum(frame, taps.frames - 1);
    next = minimum(frame + 1, taps.frames - 1);
  }
};

// The coefficient of lag first + j of sample t; the row begins `row` elements on.
template <class State>
TORCH_IIR_GPU Computed<State> tap(const AnyTaps<State>& taps, std::int64_t row, std::int64_t t, int j) {
  const AnyRows<const State>& values = taps;
  row += j * taps.step;
  if (!taps.interpolated()) return load(values, row + t * taps.apart());
  const Between at(taps, t);
  const Computed<State> here = load(values, row + at.frame * taps.down);
  return here + Computed<State>(at.weight) * (load(values, row + at.next * taps.down) - here);
}

template <class T>
struct TypeIs {
  using Type = T;
};

// f(TypeIs<what lies in memory>): for loops whose loads should all be under way at once.
template <class F>
TORCH_IIR_GPU void with_real_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::float16: f(TypeIs<Half>{}); return;
    case DType::bfloat16: f(TypeIs<BFloat16>{}); return;
    case DType::float32: f(TypeIs<float>{}); return;
    default: f(TypeIs<double>{}); return;
  }
}

template <class State>
struct Recurrence {
  Batch batch;
  std::int64_t rows = 0, begin = 0, end = 0;
  AnyTaps<State> a;
  AnyRows<const State> in;    // null: zeros
  std::int64_t in_begin = 0;  // the sample that lies at the beginning of its rows
  AnyRows<State> out;
  std::int64_t out_begin = 0;
  AnyRows<const State> from;  // null: at rest
  AnyRows<State> to;          // null: not wanted; may be `from`

  TORCH_IIR_HOST_DEVICE int order() const { return a.largest_lag(); }
  TORCH_IIR_HOST_DEVICE std::int64_t steps() const { return end - begin; }
  template <bool backward>
  TORCH_IIR_GPU std::int64_t time(std::int64_t step) const {
    return backward ? end - 1 - step : begin + step;
  }
  TORCH_IIR_GPU Computed<State> load_in(std::int64_t row, std::int64_t t) const {
    return in ? load(in, row + (t - in_begin) * in.step) : Computed<State>(0.0);
  }
  TORCH_IIR_GPU void store_out(std::int64_t row, std::int64_t t, Computed<State> value) const {
    store(out, row + (t - out_begin) * out.step, value);
  }
};

// States of order 2 as tiles keep them, so that the columns of their maps do not cancel where poles lie close to 1 or
// −1, at `sign`: forwards (y, y − sign · y before it), backwards what is dual to it, (z0 + sign · z1, z1). Of companion
// matrices, errors would grow by the inverse square of the poles' angle.
struct Differences {
  double sign;

  // By the coefficients of a row's first sample: which of the two the poles are nearer to.
  static TORCH_IIR_GPU Differences of(const Recurrence<double>& r, std::int64_t row) {
    if (r.order() < 2 || r.steps() == 0) return {1};
    return {tap(r.a, r.a.row(r.batch, row), r.begin, 1 - r.a.first) > 0 ? -1.0 : 1.0};
  }
  template <bool backward>
  TORCH_IIR_GPU Vector<2> made(Vector<2> state) const {
    if (backward) state[0] = fma(sign, state[1], state[0]);
    else state[1] = fma(-sign, state[1], state[0]);
    return state;
  }
  template <bool backward>
  TORCH_IIR_GPU Vector<2> undone(Vector<2> state) const {
    if (backward) state[0] = fma(-sign, state[1], state[0]);
    else state[1] = sign * (state[0] - state[1]);
    return state;
  }
};

// Chunks that rows are cut into, so that many warps or blocks have a row: each says by which map its states before and
// after hang together, a scan over these gives it the state to begin with, and it runs. A map is [order + 1][order]
// numbers: where each unit state ends, and then where rest ends.
struct Chunks {
  std::int64_t count = 1, length = 0;  // of a row; steps of each but the last
  std::int64_t group = 1, groups = 1;  // chunks of a group, but of the last; groups of a row
  bool differences = false;            // maps are of states as Differences has them
  double* maps = nullptr;              // rows × (count − 1)
  double* group_maps = nullptr;        // rows × (groups − 1)
  double* entries = nullptr;           // rows × count × order
  double* group_entries = nullptr;     // rows × groups × order
};

// Scratch that stretch after stretch uses again.
class Again {
 public:
  explicit Again(Scratch& scratch) : scratch_(scratch) {}
  double* take(std::int64_t count) {
    if (count > size_) {
      data_ = scratch_.take<double>(count);
      size_ = count;
    }
    return data_;
  }
  bool ok() const { return scratch_.ok(); }

 private:
  Scratch& scratch_;
  std::int64_t size_ = 0;
  double* data_ = nullptr;
};

}  // namespace torch_iir::cuda
