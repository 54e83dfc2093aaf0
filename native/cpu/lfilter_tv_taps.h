// Coefficients that change over time, read as the recurrences want them, and the gradients of such coefficients.
//
// The signals that they meet lie in reversed time, the newest first: the samples at lags 0, 1, 2, … of one sample are
// then neighbours in the order of the coefficients, and the past of a chunk is what a state holds.
#pragma once

#include <type_traits>

#include "rows.h"
#include "simd.h"
#include "torch_iir/lfilter_tv.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

// The elements of a vector in reverse.
struct Backwards {
  static constexpr int of(int i) { return width - 1 - i; }
};

// Values that vectors of doubles are loaded from and stored to.
template <class Value, class State>
inline constexpr bool plain_double = std::is_same_v<State, double> && std::is_same_v<Value, Tile<Value>>;

// Fetches `count` values into a cache.
template <bool to_write = false, int cache = first_cache, class T>
TORCH_IIR_INLINE void fetch(const T* from, std::int64_t count) {
  const auto* bytes = reinterpret_cast<const char*>(from);
  for (std::int64_t i = 0; i < count * static_cast<std::int64_t>(sizeof(T)); i += cache_line)
    __builtin_prefetch(bytes + i, to_write, cache);
}

// Fetches a stretch of memory, from its beginning on or from its end back, some bytes at a call.
class Fetch {
 public:
  TORCH_IIR_INLINE explicit Fetch(const void* from) : at_(static_cast<const char*>(from)) {}
  template <int bytes, bool to_write = false, int cache = first_cache>
  TORCH_IIR_INLINE void next() {
    fetch<to_write, cache>(at_, bytes);
    at_ += bytes;
  }
  template <int bytes>
  TORCH_IIR_INLINE void previous() {
    at_ -= bytes;
    fetch(at_, bytes);
  }

 private:
  const char* at_;
};

// How long before they are wanted rows of coefficients, and of their gradients, are fetched: by itself the machine
// follows rows of some lines each too late.
inline constexpr int bytes_ahead = 8192;
template <class Value>
bool is_long_row(std::int64_t length) {
  return length * static_cast<std::int64_t>(sizeof(Value)) > cache_line;
}

// Which two frames a sample lies between, and how near to the second; from sample to sample without a division.
class Between {
 public:
  Between(std::int64_t t, std::int64_t period, std::int64_t frames)
      : frame_(t / period),
        within_(t % period),
        period_(period),
        last_(frames - 1),
        part_(1 / static_cast<double>(period)) {}
  std::int64_t frame() const { return frame_; }
  std::int64_t next() const { return frame_ < last_ ? frame_ + 1 : frame_; }
  double weight() const { return static_cast<double>(within_) * part_; }
  void advance() {
    if (++within_ == period_) within_ = 0, ++frame_;
  }
  void go_back() {
    if (within_-- == 0) within_ = period_ - 1, --frame_;
  }

 private:
  std::int64_t frame_, within_, period_, last_;
  double part_;
};

// The coefficients of one row of the batch.
template <class Coefficient>
struct RowOfTaps {
  const Coefficient* data = nullptr;
  std::int64_t step = 1, down = 0, frames = 1, period = 1;
  int length = 0, first = 0;

  RowOfTaps() = default;
  RowOfTaps(const Taps<const Coefficient>& taps, std::int64_t samples_per_frame, const Batch& batch, std::int64_t row)
      : data(taps ? taps.row(batch, row) : nullptr),
        step(taps.step),
        down(taps.frames == 1 ? 0 : taps.down),
        frames(taps.frames),
        period(samples_per_frame),
        length(taps.length),
        first(taps.first) {}

  bool interpolated() const { return period > 1 && frames > 1; }
  // Each sample has its own, one behind the other: rows that a tile can be loaded from.
  bool packed() const { return !interpolated() && (step == 1 || length == 1) && down == length; }

  // to[i * pitch + k] = the coefficients of sample t + i, i < count.
  template <class State>
  void read(std::int64_t t, int count, State* to, std::int64_t pitch) const {
    if (interpolated()) {
      Between at(t, period, frames);
      for (int i = 0; i < count; ++i, to += pitch, at.advance()) {
        const Coefficient *p = data + at.frame() * down, *q = data + at.next() * down;
        const double weight = at.weight();
        int k = 0;
        if constexpr (plain_double<Coefficient, State>) {
          for (; step == 1 && k + width <= length; k += width) {
            const Doubles here = load_doubles(p + k);
            store_doubles(to + k, here + weight * (load_doubles(q + k) - here));
          }
        }
        for (; k < length; ++k) {
          const State here = torch_iir::TORCH_IIR_ISA::read(p[k * step]);
          to[k] = here + weight * (torch_iir::TORCH_IIR_ISA::read(q[k * step]) - here);
        }
      }
    } else if (packed() && pitch == length) {
      read_samples(to, data + t * down, 1, count * length);
    } else {
      for (int i = 0; i < count; ++i) read_samples(to + i * pitch, data + (t + i) * down, step, length);
    }
  }
};

// Where the gradient of one row's coefficients goes: to the row itself, where nothing else adds to it, or to sums.
template <class Coefficient, class State>
struct TapsGradient {
  Coefficient* rows = nullptr;
  State* sums = nullptr;  // frames × length
  std::int64_t step = 1, down = 0, frames = 1, period = 1;
  int length = 0, first = 0;

  explicit operator bool() const { return rows != nullptr || sums != nullptr; }

  // One or two coefficients a sample, from lag 1 on, that lie one behind the other, and nothing else adds to them.
  bool packed() const { return rows != nullptr && step == 1 && down == length && length <= 2 && first == 1; }
  // Their gradients for t, t + 1, …: −v[i] past[i − k], past[0] being the sample before t.
  template <class Sample>
  void put_in_order(std::int64_t t, int count, const State* v, const Sample* past) const {
    const int taps = length;
    Coefficient* to = rows + t * taps;
    int i = 0;
    if constexpr (plain_double<Coefficient, State> && plain_double<Sample, State>) {
      for (; i + width <= count; i += width) {
        const Doubles now = -load_doubles(v + i), p = now * load_doubles(past + i);
        if (taps == 1) {
          store_doubles(to + i, p);
        } else {
          store_pairs<InPairs>(to + 2 * i, p, now * load_doubles(past + i - 1));
        }
      }
    }
    for (; i < count; ++i) {
      for (int k = 0; k < taps; ++k) write(to[i * taps + k], -(v[i] * conjugate(read(past[i - k]))));
    }
  }

  // Gradient of sample t, lag first + k: v[s] conj(past[s + first + k]), for t = last − s and s < count.
  void put(std::int64_t last, int count, const State* v, const State* past) const {
    past += first;
    int s = 0;
    if constexpr (plain_double<Coefficient, State>) {
      if (rows != nullptr && step == 1 && down == length && length <= 2) s = put_vectors(last, count, v, past);
    }
    if (rows != nullptr) return put_rows(last, s, count, v, past);
    Between at(last, period, frames);
    for (; s < count; ++s, at.go_back()) {
      if (frames == 1) {
        add(sums, v[s], past + s);
      } else if (period == 1) {
        add(sums + at.frame() * length, v[s], past + s);
      } else {
        const double weight = at.weight();
        add(sums + at.frame() * length, v[s] * (1 - weight), past + s);
        add(sums + at.next() * length, v[s] * weight, past + s);
      }
    }
  }

 private:
  void put_rows(std::int64_t last, int begin, int count, const State* v, const State* past) const {
    const std::int64_t apart = step;  // stores in vectors might change members, for all the compiler knows
    const int taps = length, in_vectors = plain_double<Coefficient, State> && step == 1 ? length / width * width : 0;
    const int fetched = is_long_row<Coefficient>(in_vectors) ? in_vectors : 0;
    for (int s = begin; s < count; ++s) {
      const State value = v[s];
      Coefficient* to = rows + (last - s) * down;
      int k = 0;
      if constexpr (plain_double<Coefficient, State>) {
        fetch<true>(to - bytes_ahead / static_cast<int>(sizeof(Coefficient)), fetched);
        for (; k < in_vectors; k += width) store_doubles(to + k, value * load_doubles(past + s + k));
      }
      for (; k < taps; ++k) write(to[k * apart], value * conjugate(past[s + k]));
    }
  }

  void add(State* to, State value, const State* in) const {
    int k = 0;
    if constexpr (std::is_same_v<State, double>) {
      for (; k + width <= length; k += width)
        store_doubles(to + k, load_doubles(to + k) + value * load_doubles(in + k));
    }
    for (; k < length; ++k) to[k] += value * conjugate(in[k]);
  }

  // One or two coefficients a sample: several samples at once, turned back into the order of time.
  int put_vectors(std::int64_t last, int count, const double* v, const double* past) const {
    int s = 0;
    for (; s + width <= count; s += width) {
      const Doubles now = load_doubles(v + s);
      Coefficient* to = rows + (last - s - width + 1) * length;
      const Doubles p = now * load_doubles(past + s);
      if (length == 1) {
        store_doubles(to, permute<Backwards>(p, p, std::make_index_sequence<width>{}));
      } else {
        const Doubles q = now * load_doubles(past + s + 1);
        store_pairs<BackwardsInPairs>(to, p, q);
      }
    }
    return s;
  }
  template <int half>
  struct InPairs {
    static constexpr int of(int i) { return (i % 2) * width + (half * width + i) / 2; }
  };
  template <int half>
  struct BackwardsInPairs {
    static constexpr int of(int i) { return (i % 2) * width + width - 1 - (half * width + i) / 2; }
  };
  template <template <int> class Order>
  static void store_pairs(double* to, Doubles p, Doubles q) {
    constexpr auto all = std::make_index_sequence<width>{};
    store_doubles(to, permute<Order<0>>(p, q, all));
    store_doubles(to + width, permute<Order<1>>(p, q, all));
  }
  template <template <int> class Order>
  static void store_pairs(float* to, Doubles p, Doubles q) {
    using Some = Vector<float, width>;
    store(to, interleaved<Order<0>>(__builtin_convertvector(p, Some), __builtin_convertvector(q, Some),
                                    std::make_index_sequence<lanes>{}));
  }
  template <class Order, class V, std::size_t... i>
  static Floats interleaved(V p, V q, std::index_sequence<i...>) {
    return __builtin_shufflevector(p, q, Order::of(static_cast<int>(i))...);
  }
};

// to[j] = the sample j + 1 before t, j < count: of the signal, and of the state before its beginning.
template <class Sample, class State>
void read_past(State* to, const Sample* signal, std::int64_t step, std::int64_t t, const State* state,
               std::int64_t state_step, int count) {
  const int inside = t < count ? static_cast<int>(t) : count;
  if (inside > 0) read_samples(to, signal + (t - 1) * step, -step, inside);
  for (int j = inside; j < count; ++j) to[j] = state != nullptr ? state[(j - t) * state_step] : State(0);
}

// Σ_q rows[i * pitch + q] window[q − i] for `width` rows i, q < length, a multiple of `width`.
TORCH_IIR_INLINE Doubles dots(const double* rows, int pitch, int length, const double* window) {
  Doubles totals[width] = {};
  for (int q = 0; q < length; q += width) {
#pragma GCC unroll 8
    for (int i = 0; i < width; ++i) totals[i] += load_doubles(rows + i * pitch + q) * load_doubles(window + q - i);
  }
  return sums_of(totals);
}

// drive[t] = Σ_k rows[t * length + k] x[t − first − k] for t < count; past[s] is x at t = count − 1 − s.
template <class State>
void drive_of(const State* rows, int length, int first, const State* past, int count, State* drive) {
  if (length == 1) {  // a gain
    const State* x = past + count - 1 + first;
    for (int i = 0; i < count; ++i) drive[i] = rows[i] * x[-i];
    return;
  }
  int t = 0;
  if constexpr (std::is_same_v<State, double>) {
    const int whole = length / width * width;
    for (; whole > 0 && t + width <= count; t += width) {
      const double *row = rows + t * length, *window = past + (count - 1 - t) + first;
      store_doubles(drive + t, dots(row, length, whole, window));
      for (int k = whole; k < length; ++k) {  // no multiple of 0: the past may hold a nan
        for (int i = 0; i < width; ++i) drive[t + i] += row[i * length + k] * window[k - i];
      }
    }
  }
  for (; t < count; ++t) {
    const State *row = rows + t * length, *window = past + (count - 1 - t) + first;
    State total(0);
    for (int k = 0; k < length; ++k) total += row[k] * window[k];
    drive[t] = total;
  }
}

// pending[s + first + k] += conj(rows[t * length + k]) v[s] for t = count − 1 − s, s < count.
template <class State>
void spread(const State* rows, int length, int first, const State* v, int count, State* pending) {
  for (int s = 0; s < count; ++s) {
    const State* row = rows + (count - 1 - s) * length;
    State* to = pending + s + first;
    const State value = v[s];
#pragma GCC ivdep
    for (int k = 0; k < length; ++k) to[k] += conjugate(row[k]) * value;
  }
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
