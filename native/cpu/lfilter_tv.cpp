// lfilter_tv and its gradient: reads the parameters, chooses the algorithm, runs it over the rows.
#include "torch_iir/lfilter_tv.h"

#include <type_traits>

#include "lfilter_tv_blocks.h"
#include "lfilter_tv_lanes.h"
#include "lfilter_tv_taps.h"
#include "rows.h"
#include "scratch.h"
#include "simd.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

inline constexpr int coefficients_at_once = 2048;  // doubles that lie in the first cache beside the signals
inline constexpr int longest_chunk = 256;

// How many samples have so many values each in the cache: whole blocks.
int chunk_of(int values) {
  const int fit = coefficients_at_once / (values + 1) / width * width;
  return fit > longest_chunk ? longest_chunk : fit < 2 * width ? 2 * width : fit;
}

// Tiles in lanes are for samples that are stored as they are computed on; others are converted chunk by chunk.
template <class Sample>
inline constexpr bool in_lanes = std::is_same_v<Sample, float> || std::is_same_v<Sample, double>;

template <class Sample>
bool takes(Algorithm algorithm, int order) {
  if (algorithm == Algorithm::direct) return true;
  if (std::is_same_v<Sample, Complex> || order == 0) return false;
  if (algorithm == Algorithm::blocks) return true;
  return in_lanes<Sample> && ((algorithm == Algorithm::rows && order <= lane_order) ||
                              (algorithm == Algorithm::segments && order <= segment_order));
}

// Coefficients that begin at lag 0, and end before it.
template <class T>
bool lacks_first(const Taps<T>& a) {
  return a.first == 0 && a.length == 0;
}

// What runs where nothing else is asked for.
template <class Sample>
Algorithm chosen(Algorithm asked, std::int64_t rows, std::int64_t samples, int order) {
  if (asked != Algorithm::automatic) return asked;
  const Algorithm best = lfilter_tv_algorithm(rows, samples, order, std::is_same_v<Sample, Complex>);
  return takes<Sample>(best, order) ? best : Algorithm::blocks;
}

// How long a segment is, at most, for tiles of T: the tiles, and the memory that they come from, go to and come from
// next, lie in the first cache. Whole squares of a transpose.
template <class T, bool reversed>
inline constexpr int segment_samples = (reversed ? 48 : 80) / static_cast<int>(sizeof(T) / sizeof(float));

// How long segments of so many samples are; 0: too few samples to cut.
template <class T, bool reversed>
int segment_in(std::int64_t samples) {
  constexpr int least = 8, longest = segment_samples<T, reversed>;
  return samples >= lanes * longest ? longest : samples >= lanes * least ? static_cast<int>(samples / lanes) : 0;
}

// Samples of rows in lanes at once, for coefficients that many a sample.
int lane_tile(int length) {
  const int fit = 256 / (length + 1) / width * width;
  return fit > 128 ? 128 : fit < 16 ? 16 : fit;
}

inline constexpr int ahead_in_rows = 128;  // samples by which rows are fetched into the cache

// Tiles hold floats where drive and coefficients are floats and lie in memory as they are wanted; else doubles.
template <class Sample, class Coefficient>
inline constexpr bool all_float = std::is_same_v<Sample, float> && std::is_same_v<Coefficient, float>;

// f(order, divided) for what a kernel in lanes is compiled for.
template <class F>
TORCH_IIR_INLINE void with_lanes(int order, bool divided, F&& f) {
  if (order == 1) {
    divided ? f(Number<1>{}, Choice<true>{}) : f(Number<1>{}, Choice<false>{});
  } else {
    divided ? f(Number<2>{}, Choice<true>{}) : f(Number<2>{}, Choice<false>{});
  }
}

// ---- what both directions need of a row ----------------------------------------------------------------------

// The drive of a stretch of samples: B x.
template <class Sample, class Coefficient, class State>
class Drive {
 public:
  Drive(int lag, int length, int chunk) : lag_(lag), length_(length), chunk_(chunk) {}
  std::size_t bytes() const {
    return Scratch::bytes<State>(static_cast<std::size_t>(chunk_) * length_) +
           Scratch::bytes<State>(static_cast<std::size_t>(chunk_) + lag_);
  }
  void take(Scratch& scratch) {
    rows_ = scratch.take<State>(static_cast<std::size_t>(chunk_) * length_);
    past_ = scratch.take<State>(static_cast<std::size_t>(chunk_) + lag_);
  }

  // to[0 … count) for the samples from t on, count ≤ chunk.
  void read(const RowOfTaps<Coefficient>& b, const Sample* x, std::int64_t x_step, const State* zx,
            std::int64_t zx_step, std::int64_t t, int count, State* to) const {
    if (b.data == nullptr) return read_samples(to, x + t * x_step, x_step, count);
    read_samples(past_, x + (t + count - 1) * x_step, -x_step, count);
    read_past(past_ + count, x, x_step, t, zx, zx_step, lag_);
    b.read(t, count, rows_, length_);
    drive_of(rows_, length_, b.first, past_, count, to);
  }

 private:
  int lag_, length_, chunk_;
  State *rows_ = nullptr, *past_ = nullptr;
};

// The coefficients of the recurrence, chunk by chunk: where they lie if they lie well, else copied.
template <class Coefficient, class State>
class Poles {
 public:
  Poles(const Taps<const Coefficient>& a, int chunk)
      : order_(a.largest_lag()),
        length_(a.length),
        first_(a.first),
        chunk_(chunk),
        pitch_(whole_vectors(a.length + 1) - 1) {}  // blocks read row t from element t on: all at whole vectors
  std::size_t bytes() const {
    return Scratch::bytes<State>(size()) + Scratch::bytes<State>(first_ == 0 ? static_cast<std::size_t>(chunk_) : 0);
  }
  void take(Scratch& scratch) {
    State* const rows = scratch.take<State>(size());
    State* const inverse = scratch.take<State>(first_ == 0 ? static_cast<std::size_t>(chunk_) : 0);
    copies_ = rows + (first_ == 0 ? width - 1 : 0);  // so that the coefficient of lag 1 begins a vector
    inverse_ = first_ == 0 ? inverse : nullptr;
  }

  // f(recurrence) for samples [t, t + count) of `samples`; false if some a[0] is 0.
  template <class F>
  bool with(const RowOfTaps<Coefficient>& a, std::int64_t t, int count, std::int64_t samples, F f) const {
    constexpr bool readable = std::is_same_v<Coefficient, State> || std::is_same_v<Coefficient, float>;
    if constexpr (readable) {
      if (a.packed())
        return run(a.data + t * length_, length_, (samples - t) * length_, is_long_row<Coefficient>(length_), count, f);
    }
    a.read(t, count, copies_, pitch_);
    const std::int64_t there = static_cast<std::int64_t>(chunk_ + 2) * pitch_;
    return run(static_cast<const State*>(copies_), pitch_, there, false, count, f);
  }

 private:
  // So many copied rows, and behind them what blocks read over the end of the last.
  std::size_t size() const { return static_cast<std::size_t>(chunk_ + 2) * pitch_ + 2 * width; }

  template <class Value, class F>
  bool run(const Value* rows, std::int64_t pitch, std::int64_t there, bool fetched, int count, F f) const {
    bool sound = true;
    if (first_ == 0) {
      for (int i = 0; i < count; ++i) {
        const State a0 = read(rows[i * pitch]);
        sound &= !(a0 == State(0));
        inverse_[i] = State(1) / a0;
      }
    }
    const int skipped = 1 - first_;
    f(Recurrence<Value, State>{rows + skipped, inverse_, order_, pitch, there - skipped, fetched});
    return sound;
  }

  int order_, length_, first_, chunk_, pitch_;
  State *copies_ = nullptr, *inverse_ = nullptr;
};

template <class State>
void read_state(const Rows<const State>& rows, const Batch& batch, std::int64_t row, int count, State* to) {
  const State* from = rows ? rows.row(batch, row) : nullptr;
  for (int k = 0; k < count; ++k) to[k] = from != nullptr ? from[k * rows.step] : State(0);
}

// ---- forward -------------------------------------------------------------------------------------------------

template <class Sample, class Coefficient, class State>
class Forward {
 public:
  Forward(const LFilterTV<Sample, Coefficient, State>& f, const Context& context)
      : f_(f),
        context_(context),
        order_(f.a.largest_lag()),
        lag_(f.b ? f.b.largest_lag() : 0),
        b_length_(f.b ? f.b.length : 0) {}

  Status run(Algorithm algorithm) {
    const std::int64_t rows = f_.batch.rows();
    if (rows == 0) return Status::ok;
    algorithm = chosen<Sample>(algorithm, rows, f_.samples, order_);
    if (!takes<Sample>(algorithm, order_) || lacks_first(f_.a)) return Status::unsupported;
    Status status;
    if (algorithm == Algorithm::rows) {
      status = for_groups(context_, rows, lanes, f_.samples, [&](std::int64_t first, std::int64_t count) {
        return group_rows(first, static_cast<int>(count));
      });
    } else {
      status = for_groups(context_, rows, 1, f_.samples, [&](std::int64_t row, std::int64_t) {
        return algorithm == Algorithm::segments ? segments_row(row) : chunks_row(row, algorithm == Algorithm::blocks);
      });
    }
    return status == Status::ok && __atomic_load_n(&divided_by_zero_, __ATOMIC_RELAXED) ? Status::zero_a0 : status;
  }

 private:
  void sound(bool yes) {
    if (!yes) __atomic_store_n(&divided_by_zero_, true, __ATOMIC_RELAXED);
  }

  void write_state(std::int64_t row, const State* z) const {
    if (!f_.zf) return;
    State* to = f_.zf.row(f_.batch, row);
    for (int k = 0; k < order_; ++k) to[k * f_.zf.step] = z[k];
  }

  // A stretch of one row, chunk by chunk.
  class Chunks {
   public:
    Chunks(const Forward& forward, bool blocks)
        : f_(forward.f_),
          order_(forward.order_),
          blocks_(blocks),
          chunk_(chunk_of(f_.a.length + forward.b_length_)),
          drive_(forward.lag_, forward.b_length_, chunk_),
          poles_(f_.a, chunk_) {}
    std::size_t bytes() const {
      return drive_.bytes() + poles_.bytes() + Scratch::bytes<State>(static_cast<std::size_t>(chunk_)) +
             Scratch::bytes<State>(past_size());
    }
    void take(Scratch& scratch) {
      drive_.take(scratch);
      poles_.take(scratch);
      in_ = scratch.take<State>(static_cast<std::size_t>(chunk_));
      past_ = scratch.take<State>(past_size());
    }

    // Samples [t, end), from and to the past outputs z. False if some a[0] is 0.
    bool run(std::int64_t row, std::int64_t t, std::int64_t end, State* z) const {
      const RowOfTaps<Coefficient> b(f_.b, f_.period, f_.batch, row), a(f_.a, f_.period, f_.batch, row);
      const Sample* x = f_.x.row(f_.batch, row);
      Sample* y = f_.y.row(f_.batch, row);
      const State* zx = f_.zx ? f_.zx.row(f_.batch, row) : nullptr;
      bool sound = true;
      for (; t < end; t += chunk_) {
        const int count = end - t < chunk_ ? static_cast<int>(end - t) : chunk_;
        drive_.read(b, x, f_.x.step, zx, f_.zx.step, t, count, in_);
        for (int k = 0; k < order_; ++k) past_[count + k] = z[k];
        for (int k = order_; k < whole_vectors(order_); ++k) past_[count + k] = State(0);
        sound &= poles_.with(a, t, count, f_.samples, [&](const auto& recurrence) {
          if constexpr (std::is_same_v<State, double>) {
            if (blocks_) return recur_in_blocks(recurrence, in_, count, past_);
          }
          recur_one_by_one(recurrence, in_, 0, count, past_);
        });
        write_samples(y + (t + count - 1) * f_.y.step, -f_.y.step, past_, count);
        for (int k = 0; k < order_; ++k) z[k] = past_[k];
      }
      return sound;
    }

   private:
    std::size_t past_size() const { return static_cast<std::size_t>(chunk_ + whole_vectors(order_)); }

    const LFilterTV<Sample, Coefficient, State>& f_;
    int order_;
    bool blocks_;
    int chunk_;
    Drive<Sample, Coefficient, State> drive_;
    Poles<Coefficient, State> poles_;
    State *in_ = nullptr, *past_ = nullptr;
  };

  bool chunks_row(std::int64_t row, bool blocks) {
    Chunks chunks(*this, blocks);
    Scratch scratch(chunks.bytes() + Scratch::bytes<State>(static_cast<std::size_t>(order_)), context_, row);
    if (!scratch) return false;
    chunks.take(scratch);
    State* z = scratch.take<State>(static_cast<std::size_t>(order_));
    read_state(f_.zi, f_.batch, row, order_, z);
    sound(chunks.run(row, 0, f_.samples, z));
    write_state(row, z);
    return true;
  }

  // Rows in lanes; the last group may have lanes to spare.
  bool group_rows(std::int64_t first, int used) {
    if constexpr (!in_lanes<Sample>) {
      return true;  // taken by nobody
    } else {
      const RowOfTaps<Coefficient> a(f_.a, f_.period, f_.batch, first);
      if constexpr (all_float<Sample, Coefficient>) {
        if (!f_.b && a.packed() && a.first == 1) return lane_rows<float>(first, used);
      }
      return lane_rows<double>(first, used);
    }
  }

  template <class T>
  bool lane_rows(std::int64_t first, int used) {
    constexpr bool in_place = std::is_same_v<T, float>;
    const int length = f_.a.length, longest = lane_tile(length);
    const bool divided = f_.a.first == 0;
    const std::size_t tile = static_cast<std::size_t>(longest) * lanes;
    Drive<Sample, Coefficient, double> drive(lag_, b_length_, longest);
    Scratch scratch(drive.bytes() + Scratch::bytes<T>(tile) + Scratch::bytes<T>(tile * length) +
                        Scratch::bytes<double>(divided ? tile : 0) + Scratch::bytes<double>(in_place ? 0 : tile) +
                        Scratch::bytes<double>(in_place ? 0 : tile * length) +
                        Scratch::bytes<double>(tile + static_cast<std::size_t>(order_) * lanes),
                    context_, first / lanes);
    if (!scratch) return false;
    drive.take(scratch);
    T *in = scratch.take<T>(tile), *taps = scratch.take<T>(tile * length);
    double* inverse = scratch.take<double>(divided ? tile : 0);
    double *in_rows = scratch.take<double>(in_place ? 0 : tile),
           *tap_rows = scratch.take<double>(in_place ? 0 : tile * length);
    double* past = scratch.take<double>(tile + static_cast<std::size_t>(order_) * lanes);
    double* states = past;  // [order][lanes]; of rows in memory the oldest first, of those in registers the newest
    double* outputs = past + static_cast<std::size_t>(order_) * lanes;
    const bool in_registers = order_ <= segment_order;

    std::int64_t row[lanes];
    const Sample* x[lanes];
    const State* zx[lanes] = {};
    Sample* y[lanes];
    RowOfTaps<Coefficient> a[lanes], b[lanes];
    double z[lane_order];
    for (int lane = 0; lane < lanes; ++lane) {  // lanes without a row repeat the last one and are not stored
      row[lane] = first + (lane < used ? lane : used - 1);
      x[lane] = f_.x.row(f_.batch, row[lane]);
      y[lane] = f_.y.row(f_.batch, row[lane]);
      if (f_.zx) zx[lane] = f_.zx.row(f_.batch, row[lane]);
      a[lane] = {f_.a, f_.period, f_.batch, row[lane]};
      b[lane] = {f_.b, f_.period, f_.batch, row[lane]};
      read_state(f_.zi, f_.batch, row[lane], order_, z);
      for (int k = 0; k < order_; ++k) states[(in_registers ? k : order_ - 1 - k) * lanes + lane] = z[k];
    }
    bool nonzero = true;
    for (std::int64_t t = 0; t < f_.samples; t += longest) {
      const int count = f_.samples - t < longest ? static_cast<int>(f_.samples - t) : longest;
      if constexpr (in_place) {
        const Coefficient* from[lanes];
        const Sample* samples[lanes];
        for (int lane = 0; lane < lanes; ++lane) {
          samples[lane] = x[lane] + t * f_.x.step;
          from[lane] = a[lane].data + t * length;
        }
        load_tile<false, ahead_in_rows>(in, samples, f_.x.step, count);
        load_tile<false, 2 * ahead_in_rows>(taps, from, 1, count * length);
      } else {
        const double *samples[lanes], *from[lanes];
        for (int lane = 0; lane < lanes; ++lane) {
          const int own = lane < used ? lane : used - 1;
          samples[lane] = in_rows + own * longest;
          from[lane] = tap_rows + own * longest * length;
          if (lane >= used) continue;
          drive.read(b[lane], x[lane], f_.x.step, zx[lane], f_.zx.step, t, count, in_rows + lane * longest);
          a[lane].read(t, count, tap_rows + lane * longest * length, length);
        }
        load_tile(in, samples, 1, count);
        load_tile(taps, from, 1, count * length);
      }
      if (divided) {
        nonzero &= invert_first(taps + place<false>(0, length, order_) * lanes, length, count, inverse);
      }
      if (in_registers) {
        with_lanes(order_, divided, [&](auto order, auto divide) {
          const LaneTile<order.value, false, divide.value, T> lane_tile{in, taps, inverse, count};
          lane_tile.run(states,
                        [&](auto produce) { store_rows<false, ahead_in_rows>(y, used, f_.y.step, count, produce); });
        });
      } else {
        recur_in_lanes(in, taps, divided ? inverse : nullptr, count, order_, outputs);
        store_rows(y, used, f_.y.step, count,
                   [&](int i) TORCH_IIR_INLINE_LAMBDA { return load_pair(outputs + i * lanes); });
        std::memmove(states, outputs + (count - order_) * lanes, sizeof(double) * order_ * lanes);
      }
      for (int lane = 0; lane < lanes; ++lane) y[lane] += count * f_.y.step;
    }
    sound(nonzero);
    for (int lane = 0; lane < used; ++lane) {
      for (int k = 0; k < order_; ++k) z[k] = states[(in_registers ? k : order_ - 1 - k) * lanes + lane];
      write_state(row[lane], z);
    }
    return true;
  }

  bool segments_row(std::int64_t row) {
    if constexpr (!in_lanes<Sample>) {
      return true;  // taken by nobody
    } else {
      const RowOfTaps<Coefficient> a(f_.a, f_.period, f_.batch, row);
      bool memory = true;
      with_lanes(order_, a.first == 0, [&](auto order, auto divide) {
        if constexpr (all_float<Sample, Coefficient>) {
          if (!f_.b && a.packed()) {
            memory = segments<order.value, divide.value, float>(row, a);
            return;
          }
        }
        memory = segments<order.value, divide.value, double>(row, a);
      });
      return memory;
    }
  }

  template <int order, bool divided, class T>
  bool segments(std::int64_t row, const RowOfTaps<Coefficient>& a) {
    constexpr int length = order + divided, longest = segment_samples<T, false>, tile = longest * lanes;
    constexpr int row_bytes = lanes * static_cast<int>(sizeof(T));  // a row of a tile, and as many samples in memory
    constexpr int passes = lanes / LaneTile<order, false, divided, T>::lanes_at_once;
    const bool in_place = a.packed();  // else rows of doubles come in between
    Chunks chunks(*this, false);
    Drive<Sample, Coefficient, double> drive(lag_, b_length_, longest);
    Scratch scratch(chunks.bytes() + drive.bytes() + Scratch::bytes<T>(tile) + Scratch::bytes<T>(tile * length) +
                        Scratch::bytes<double>(divided ? tile : 0) + Scratch::bytes<double>(f_.b ? tile : 0) +
                        Scratch::bytes<double>(in_place ? 0 : tile * length),
                    context_, row);
    if (!scratch) return false;
    chunks.take(scratch);
    drive.take(scratch);
    T *in = scratch.take<T>(tile), *taps = scratch.take<T>(tile * length);
    double* inverse = scratch.take<double>(divided ? tile : 0);
    double *in_rows = scratch.take<double>(f_.b ? tile : 0),
           *tap_rows = scratch.take<double>(in_place ? 0 : tile * length);

    alignas(64) double entry[order * lanes];
    double state[order];
    read_state(f_.zi, f_.batch, row, order, state);
    const RowOfTaps<Coefficient> b(f_.b, f_.period, f_.batch, row);
    const Sample* x = f_.x.row(f_.batch, row);
    Sample* y = f_.y.row(f_.batch, row);
    const State* zx = f_.zx ? f_.zx.row(f_.batch, row) : nullptr;
    std::int64_t t = 0;
    bool nonzero = true;
    while (const int count = segment_in<T, false>(f_.samples - t)) {
      const LaneTile<order, false, divided, T> lane_tile{in, taps, inverse, count};
      const auto load = [&](T* to, const auto* from, std::int64_t step, std::int64_t segment, int values, auto fetch) {
        std::remove_reference_t<decltype(from)> rows[lanes];
        for (int lane = 0; lane < lanes; ++lane) rows[lane] = from + lane * segment;
        load_tile(to, rows, step, values, fetch);
      };
      const std::int64_t here = lanes * count, next = f_.samples - t < 2 * here ? t : t + here;
      Fetch fetch_y(y + t * f_.y.step), fetch_x(x + next * f_.x.step),
          fetch_a(in_place ? static_cast<const void*>(a.data + next * length) : tap_rows);
      // The first cache takes but a few lines at a time from as far as memory: those of a tile later go into the
      // second, spread over the work on this one.
      const std::int64_t later = f_.samples - t < 3 * here ? t : t + 2 * here;
      Fetch far_x(x + later * f_.x.step),
          far_a(in_place ? static_cast<const void*>(a.data + later * length) : tap_rows);
      if (f_.b) {
        for (int lane = 0; lane < lanes; ++lane)
          drive.read(b, x, f_.x.step, zx, f_.zx.step, t + lane * count, count, in_rows + lane * count);
        if constexpr (!std::is_same_v<T, float>) load(in, in_rows, 1, count, count, Nothing{});
      } else {
        load(in, x + t * f_.x.step, f_.x.step, count * f_.x.step, count,
             [&](int) TORCH_IIR_INLINE_LAMBDA { fetch_y.template next<row_bytes, true>(); });
      }
      if (in_place) {
        load(taps, a.data + t * length, 1, count * length, count * length, Nothing{});
      } else {
        a.read(t, lanes * count, tap_rows, length);
        if constexpr (!std::is_same_v<T, float>) load(taps, tap_rows, 1, count * length, count * length, Nothing{});
      }
      nonzero &= lane_tile.invert();
      const auto fetch_taps = [&]() TORCH_IIR_INLINE_LAMBDA {
        fetch_a.template next<row_bytes * length / passes>();
        far_a.template next<row_bytes * length / passes / 2, false, second_cache>();
      };
      if (enter_lanes<std::is_same_v<Sample, double>>(lane_tile, state, entry, fetch_taps)) {
        Sample* rows[lanes];
        for (int lane = 0; lane < lanes; ++lane) rows[lane] = y + (t + lane * count) * f_.y.step;
        lane_tile.run(entry, [&](auto produce) {
          store_rows(rows, lanes, f_.y.step, count, [&](int i) TORCH_IIR_INLINE_LAMBDA {
            fetch_x.template next<row_bytes>();
            far_x.template next<row_bytes, false, second_cache>();
            far_a.template next<row_bytes * length / 2, false, second_cache>();
            return produce(i);
          });
        });
      } else {  // what is not finite reaches no sample before it, and powers may overflow where the signal does not
        nonzero &= chunks.run(row, t, t + lanes * count, state);
      }
      t += lanes * count;
    }
    nonzero &= chunks.run(row, t, f_.samples, state);
    sound(nonzero);
    write_state(row, state);
    return true;
  }

  const LFilterTV<Sample, Coefficient, State>& f_;
  const Context& context_;
  int order_, lag_, b_length_;
  bool divided_by_zero_ = false;
};

// ---- backward ------------------------------------------------------------------------------------------------

template <class Sample, class Coefficient, class State>
class Backward {
 public:
  explicit Backward(const LFilterTVBackward<Sample, Coefficient, State>& f)
      : f_(f),
        order_(f.a.largest_lag()),
        lag_(f.b ? f.b.largest_lag() : 0),
        a_length_(f.a.length),
        b_length_(f.b ? f.b.length : 0) {
    // Rows that add to one gradient lie side by side.
    Rows<const char> shared{""};
    for (int d = 0; d < f_.batch.dims; ++d) shared.stride[d] = adds_over(d) ? 0 : 1;
    together_ = share(f_.batch, shared,
                      {f_.gy.stride, f_.gzf.stride, f_.x.stride, f_.y.stride, f_.b.stride, f_.a.stride, f_.zx.stride,
                       f_.zi.stride, f_.gx.stride, f_.gb.stride, f_.ga.stride, f_.gzx.stride, f_.gzi.stride});
    if (together_ == 0) together_ = 1;
    for (std::int64_t size = 1; size < together_; ++inner_dims_) size *= f_.batch.size[f_.batch.dims - 1 - inner_dims_];
  }

  Status run(Algorithm algorithm, const ParallelFor& parallel_for) {
    const std::int64_t rows = f_.batch.rows();
    if (rows == 0) return Status::ok;
    algorithm = chosen<Sample>(algorithm, rows, f_.samples, order_);
    if (!takes<Sample>(algorithm, order_) || lacks_first(f_.a)) return Status::unsupported;
    clear(f_.batch, f_.gzx, lag_);
    clear(f_.batch, f_.gzi, order_);
    const std::int64_t at_once = algorithm == Algorithm::rows ? (lanes + together_ - 1) / together_ : 1;
    const Status status = for_groups(
        parallel_for, rows / together_, at_once, f_.samples * together_,
        [&](std::int64_t first, std::int64_t count) { return group(algorithm, first * together_, count * together_); });
    return status == Status::ok && __atomic_load_n(&divided_by_zero_, __ATOMIC_RELAXED) ? Status::zero_a0 : status;
  }

 private:
  bool adds_over(int d) const {
    const auto over = [d](const auto& gradient) { return gradient && gradient.stride[d] == 0; };
    return f_.batch.size[d] != 1 && (over(f_.gx) || over(f_.gb) || over(f_.ga) || over(f_.gzx) || over(f_.gzi));
  }

  void sound(bool yes) {
    if (!yes) __atomic_store_n(&divided_by_zero_, true, __ATOMIC_RELAXED);
  }

  // Sums in State of a gradient that several rows or samples add to; empty where each writes its own.
  struct Sums {
    State* data = nullptr;
    std::int64_t length = 0, per_task = 0;
    std::int64_t stride[max_batch_dims] = {};

    State* row(const Batch& inner, std::int64_t task, std::int64_t row) const {
      State* pointer = data + task * per_task;
      for (int d = inner.dims - 1; d >= 0; --d) {
        pointer += (row % inner.size[d]) * stride[d];
        row /= inner.size[d];
      }
      return pointer;
    }
  };

  Batch inner_batch() const {
    Batch inner;
    inner.dims = inner_dims_;
    for (int d = 0; d < inner_dims_; ++d) inner.size[d] = f_.batch.size[f_.batch.dims - inner_dims_ + d];
    return inner;
  }

  // How the sums of a gradient with `length` values a row lie; `always`: samples add up, though rows do not.
  template <class T>
  Sums sums_for(const Rows<T>& gradient, const Batch& inner, std::int64_t length, bool always) const {
    Sums sums;
    if (!gradient) return sums;
    bool shared = always;
    std::int64_t size = length;
    for (int d = inner.dims - 1; d >= 0; --d) {
      if (inner.size[d] == 1) continue;
      if (gradient.stride[f_.batch.dims - inner.dims + d] == 0) {
        shared = true;
        continue;
      }
      sums.stride[d] = size;
      size *= inner.size[d];
    }
    if (shared) sums.length = length, sums.per_task = size;
    return sums;
  }

  bool own_frames(const Taps<const Coefficient>& taps) const {
    return taps.frames == f_.samples && (f_.period == 1 || taps.frames == 1);
  }

  // What one row reads and where its gradients go.
  struct Row {
    const Sample *gy = nullptr, *x = nullptr, *y = nullptr;
    RowOfTaps<Coefficient> b, a;
    const State *zx = nullptr, *zi = nullptr;
    Sample* gx = nullptr;
    State* gx_sums = nullptr;
    TapsGradient<Coefficient, State> gb, ga;
    std::int64_t number = 0;
  };

  struct Group {
    Batch inner;
    Sums gx, gb, ga;
    std::int64_t first;
  };

  TapsGradient<Coefficient, State> gradient_of(const Matrices<Coefficient>& gradient, const Sums& sums,
                                               const Taps<const Coefficient>& taps, std::int64_t number,
                                               State* sum_row) const {
    TapsGradient<Coefficient, State> result;
    if (!gradient) return result;
    result.step = gradient.step;
    result.down = gradient.down;
    result.frames = taps.frames;
    result.period = f_.period;
    result.length = taps.length;
    result.first = taps.first;
    if (sums.per_task > 0) {
      result.sums = sum_row;
    } else {
      result.rows = gradient.row(f_.batch, number);
    }
    return result;
  }

  Row row_of(const Group& group, std::int64_t number) const {
    const std::int64_t task = (number - group.first) / together_, inside = (number - group.first) % together_;
    const auto sums = [&](const Sums& of) { return of.per_task > 0 ? of.row(group.inner, task, inside) : nullptr; };
    State *const of_b = sums(group.gb), *const of_a = sums(group.ga), *const of_x = sums(group.gx);
    return {f_.gy ? f_.gy.row(f_.batch, number) : nullptr,
            f_.x.row(f_.batch, number),
            f_.y.row(f_.batch, number),
            RowOfTaps<Coefficient>(f_.b, f_.period, f_.batch, number),
            RowOfTaps<Coefficient>(f_.a, f_.period, f_.batch, number),
            f_.zx ? f_.zx.row(f_.batch, number) : nullptr,
            f_.zi ? f_.zi.row(f_.batch, number) : nullptr,
            f_.gx && of_x == nullptr ? f_.gx.row(f_.batch, number) : nullptr,
            of_x,
            gradient_of(f_.gb, group.gb, f_.b, number, of_b),
            gradient_of(f_.ga, group.ga, f_.a, number, of_a),
            number};
  }

  bool group(Algorithm algorithm, std::int64_t first, std::int64_t count) {
    Group group{inner_batch(), {}, {}, {}, first};
    group.gx = sums_for(f_.gx, group.inner, f_.samples, false);
    group.gb = sums_for(f_.gb, group.inner, f_.b.frames * b_length_, !own_frames(f_.b));
    group.ga = sums_for(f_.ga, group.inner, f_.a.frames * a_length_, !own_frames(f_.a));
    const std::int64_t tasks = count / together_;
    const auto size = [&](const Sums& sums) { return static_cast<std::size_t>(sums.per_task * tasks); };
    Scratch scratch(Scratch::bytes<State>(size(group.gx)) + Scratch::bytes<State>(size(group.gb)) +
                    Scratch::bytes<State>(size(group.ga)));
    if (!scratch) return false;
    for (Sums* sums : {&group.gx, &group.gb, &group.ga}) {
      sums->data = scratch.take<State>(size(*sums));
      for (std::size_t i = 0; i < size(*sums); ++i) sums->data[i] = State(0);
    }
    bool memory = true;
    if (algorithm == Algorithm::rows) {
      for (std::int64_t done = 0; done < count; done += lanes) {
        memory &= lane_rows(group, first + done, static_cast<int>(count - done < lanes ? count - done : lanes));
      }
    } else {
      for (std::int64_t row = first; row < first + count; ++row) {
        memory &= algorithm == Algorithm::segments ? segments_row(group, row)
                                                   : chunks_row(group, row, algorithm == Algorithm::blocks);
      }
    }
    // Each sum to the one place that its rows share.
    for (std::int64_t task = 0; task < tasks; ++task) {
      for_distinct(f_.gx, group, group.gx, task, [&](Sample* to, const State* sums) {
        for (std::int64_t t = 0; t < f_.samples; ++t) write(to[t * f_.gx.step], sums[t]);
      });
      store_sums(f_.gb, group, group.gb, f_.b, task);
      store_sums(f_.ga, group, group.ga, f_.a, task);
    }
    return memory;
  }

  void store_sums(const Matrices<Coefficient>& gradient, const Group& group, const Sums& sums,
                  const Taps<const Coefficient>& taps, std::int64_t task) const {
    for_distinct(gradient, group, sums, task, [&](Coefficient* to, const State* from) {
      for (std::int64_t f = 0; f < taps.frames; ++f) {
        for (int k = 0; k < taps.length; ++k)
          write(to[f * gradient.down + k * gradient.step], from[f * taps.length + k]);
      }
    });
  }

  template <class T, class F>
  void for_distinct(const Rows<T>& gradient, const Group& group, const Sums& sums, std::int64_t task, F f) const {
    if (sums.per_task == 0) return;
    Rows<T> inside;
    inside.data = gradient.row(f_.batch, group.first + task * together_);
    Batch own = group.inner;
    for (int d = 0; d < own.dims; ++d) {
      inside.stride[d] = gradient.stride[f_.batch.dims - own.dims + d];
      if (inside.stride[d] == 0) own.size[d] = 1;
    }
    const std::int64_t rows = own.rows();
    for (std::int64_t row = 0; row < rows; ++row) f(inside.row(own, row), sums.row(own, task, row));
  }

  // From v to the gradients, chunk by chunk from the end: what all algorithms share.
  class Spending {
   public:
    Spending(const Backward& backward, int chunk)
        : f_(backward.f_), order_(backward.order_), lag_(backward.lag_), b_length_(backward.b_length_), chunk_(chunk) {}
    std::size_t bytes() const {
      const auto n = static_cast<std::size_t>(chunk_);
      return Scratch::bytes<State>(n * b_length_) + 2 * Scratch::bytes<State>(n + lag_) +
             Scratch::bytes<State>(n + order_) + Scratch::bytes<State>(n);
    }
    void take(Scratch& scratch) {
      const auto n = static_cast<std::size_t>(chunk_);
      rows_ = scratch.take<State>(n * b_length_);
      x_past_ = scratch.take<State>(n + lag_);
      pending_ = scratch.take<State>(n + lag_);
      y_past_ = scratch.take<State>(n + order_);
      minus_v_ = scratch.take<State>(n);
    }

    // v of samples [t, t + count) in reversed time, any count; `owed` is what is pending for gx before them.
    void spend(const Row& row, std::int64_t t, std::int64_t count, const State* v, State* owed) const {
      for (; count > 0; v += chunk_, count -= chunk_) {
        const int here = count < chunk_ ? static_cast<int>(count) : chunk_;
        spend_chunk(row, t + count - here, here, v, owed);
      }
    }

    // Where the gradients of a row are v itself, and −v times neighbours of y: they need no copies, nor v reversed.
    bool in_order(const Row& row) const {
      return std::is_same_v<State, double> && row.b.data == nullptr && row.gx_sums == nullptr && f_.y.step == 1 &&
             (row.gx == nullptr || f_.gx.step == 1) && (!row.ga || row.ga.packed());
    }
    // v in the order of time.
    void spend_in_order(const Row& row, std::int64_t t, int count, const State* v) const {
      if (row.gx != nullptr) write_samples(row.gx + t, 1, v, count);
      if (!row.ga) return;
      int i = 0;
      for (; i < count && t + i < order_; ++i) {
        read_past(y_past_, row.y, 1, t + i, row.zi, f_.zi.step, order_);
        for (int k = 0; k < order_; ++k) write(row.ga.rows[(t + i) * order_ + k], -(v[i] * conjugate(y_past_[k])));
      }
      row.ga.put_in_order(t + i, count - i, v + i, row.y + t + i - 1);
    }

   private:
    void spend_chunk(const Row& row, std::int64_t t, int count, const State* v, State* owed) const {
      const std::int64_t last = t + count - 1;
      const State* gx = v;
      const bool wants_gx = row.gx != nullptr || row.gx_sums != nullptr;
      if (row.b.data != nullptr && (wants_gx || f_.gzx)) {
        row.b.read(t, count, rows_, b_length_);
        for (int j = 0; j < lag_; ++j) pending_[j] = owed[j];
        for (int j = lag_; j < count + lag_; ++j) pending_[j] = State(0);
        spread(rows_, b_length_, row.b.first, v, count, pending_);
        for (int j = 0; j < lag_; ++j) owed[j] = pending_[count + j];
        gx = pending_;
      }
      if (row.gx_sums != nullptr) {
        for (int s = 0; s < count; ++s) row.gx_sums[last - s] += gx[s];
      } else if (wants_gx) {
        write_samples(row.gx + last * f_.gx.step, -f_.gx.step, gx, count);
      }
      if (row.gb) {
        read_samples(x_past_, row.x + last * f_.x.step, -f_.x.step, count);
        read_past(x_past_ + count, row.x, f_.x.step, t, row.zx, f_.zx.step, lag_);
        row.gb.put(last, count, v, x_past_);
      }
      if (row.ga) {
        read_samples(y_past_, row.y + last * f_.y.step, -f_.y.step, count);
        read_past(y_past_ + count, row.y, f_.y.step, t, row.zi, f_.zi.step, order_);
        for (int s = 0; s < count; ++s) minus_v_[s] = -v[s];
        row.ga.put(last, count, minus_v_, y_past_);
      }
    }

    const LFilterTVBackward<Sample, Coefficient, State>& f_;
    int order_, lag_, b_length_, chunk_;
    State *rows_ = nullptr, *x_past_ = nullptr, *pending_ = nullptr, *y_past_ = nullptr, *minus_v_ = nullptr;
  };

  // A stretch of one row, chunk by chunk from its end.
  class Chunks {
   public:
    Chunks(const Backward& backward, bool blocks)
        : f_(backward.f_),
          order_(backward.order_),
          blocks_(blocks),
          chunk_(chunk_of(f_.a.length + backward.b_length_)),
          poles_(f_.a, chunk_),
          spending_(backward, chunk_) {}
    std::size_t bytes() const {
      return poles_.bytes() + spending_.bytes() + 2 * Scratch::bytes<State>(static_cast<std::size_t>(chunk_)) +
             Scratch::bytes<State>(pending_size());
    }
    void take(Scratch& scratch) {
      poles_.take(scratch);
      spending_.take(scratch);
      g_ = scratch.take<State>(static_cast<std::size_t>(chunk_));
      v_ = scratch.take<State>(static_cast<std::size_t>(chunk_));
      pending_ = scratch.take<State>(pending_size());
    }
    const Spending& spending() const { return spending_; }

    // Samples [begin, end), with what is pending for v and for gx before `end` and then before `begin`.
    bool run(const Row& row, std::int64_t begin, std::int64_t end, State* pending, State* owed) const {
      bool sound = true;
      while (end > begin) {
        const int count = end - begin < chunk_ ? static_cast<int>(end - begin) : chunk_;
        const std::int64_t t = end - count;
        if (row.gy != nullptr) {
          read_samples(g_, row.gy + (end - 1) * f_.gy.step, -f_.gy.step, count);
        } else {
          for (int s = 0; s < count; ++s) g_[s] = State(0);
        }
        for (int j = 0; j < order_; ++j) pending_[j] = pending[j];
        for (std::size_t j = static_cast<std::size_t>(order_); j < pending_size(); ++j) pending_[j] = State(0);
        sound &= poles_.with(row.a, t, count, f_.samples, [&](const auto& recurrence) {
          if constexpr (std::is_same_v<State, double>) {
            if (blocks_) return adjoint_in_blocks(recurrence, g_, count, pending_, v_);
          }
          adjoint_one_by_one(recurrence, g_, 0, count, count, pending_, v_);
        });
        for (int j = 0; j < order_; ++j) pending[j] = pending_[count + j];
        spending_.spend(row, t, count, v_, owed);
        end = t;
      }
      return sound;
    }

   private:
    std::size_t pending_size() const { return static_cast<std::size_t>(chunk_ + order_ + width); }

    const LFilterTVBackward<Sample, Coefficient, State>& f_;
    int order_;
    bool blocks_;
    int chunk_;
    Poles<Coefficient, State> poles_;
    Spending spending_;
    State *g_ = nullptr, *v_ = nullptr, *pending_ = nullptr;
  };

  // What is pending before the first sample are the gradients of the states.
  void finish(std::int64_t row, const State* pending, const State* owed) const {
    if (f_.gzi) {
      State* to = f_.gzi.row(f_.batch, row);
      for (int k = 0; k < order_; ++k) to[k * f_.gzi.step] += pending[k];
    }
    if (f_.gzx) {
      State* to = f_.gzx.row(f_.batch, row);
      for (int k = 0; k < lag_; ++k) to[k * f_.gzx.step] += owed[k];
    }
  }

  bool chunks_row(const Group& group, std::int64_t number, bool blocks) {
    const auto n = static_cast<std::size_t>(order_), m = static_cast<std::size_t>(lag_);
    Chunks chunks(*this, blocks);
    Scratch scratch(chunks.bytes() + Scratch::bytes<State>(n) + Scratch::bytes<State>(m));
    if (!scratch) return false;
    chunks.take(scratch);
    State *pending = scratch.take<State>(n), *owed = scratch.take<State>(m);
    read_state(f_.gzf, f_.batch, number, order_, pending);
    for (std::size_t j = 0; j < m; ++j) owed[j] = State(0);
    sound(chunks.run(row_of(group, number), 0, f_.samples, pending, owed));
    finish(number, pending, owed);
    return true;
  }

  bool lane_rows(const Group& group, std::int64_t first, int used) {
    if constexpr (!in_lanes<Sample>) {
      return true;  // taken by nobody
    } else {
      if constexpr (all_float<Sample, Coefficient>) {
        const RowOfTaps<Coefficient> a(f_.a, f_.period, f_.batch, first);
        if (a.packed() && a.first == 1) return lane_rows_of<float>(group, first, used);
      }
      return lane_rows_of<double>(group, first, used);
    }
  }

  template <class T>
  bool lane_rows_of(const Group& group, std::int64_t first, int used) {
    constexpr bool in_place = std::is_same_v<T, float>;
    const int length = a_length_, longest = lane_tile(length);
    const bool divided = f_.a.first == 0, in_registers = order_ <= segment_order;
    const std::size_t tile = static_cast<std::size_t>(longest) * lanes, n = static_cast<std::size_t>(order_) * lanes,
                      m = static_cast<std::size_t>(lag_) * lanes;
    Spending spending(*this, longest);
    Scratch scratch(spending.bytes() + Scratch::bytes<T>(tile) + Scratch::bytes<T>(tile * length) +
                    Scratch::bytes<double>(divided ? tile : 0) + Scratch::bytes<double>(in_place ? 0 : tile * length) +
                    Scratch::bytes<double>(tile + n) + Scratch::bytes<double>(tile) + Scratch::bytes<double>(m));
    if (!scratch) return false;
    spending.take(scratch);
    T *g = scratch.take<T>(tile), *taps = scratch.take<T>(tile * length);
    double* inverse = scratch.take<double>(divided ? tile : 0);
    double* tap_rows = scratch.take<double>(in_place ? 0 : tile * length);
    double* pending = scratch.take<double>(tile + n);  // [i][lane], of samples from the end
    double *v = scratch.take<double>(tile), *owed = scratch.take<double>(m);
    for (std::size_t j = 0; j < m; ++j) owed[j] = 0;

    Row row[lanes];
    double z[lane_order];
    for (int lane = 0; lane < lanes; ++lane) {  // lanes without a row repeat the last one, and nothing is made of them
      row[lane] = row_of(group, first + (lane < used ? lane : used - 1));
      read_state(f_.gzf, f_.batch, row[lane].number, order_, z);
      for (int k = 0; k < order_; ++k) pending[k * lanes + lane] = z[k];
    }
    double* to[lanes];
    for (int lane = 0; lane < lanes; ++lane) to[lane] = v + lane * longest;
    bool nonzero = true;
    for (std::int64_t end = f_.samples; end > 0;) {
      const int count = end < longest ? static_cast<int>(end) : longest;
      const std::int64_t t = end - count;
      if (f_.gy) {
        const Sample* rows[lanes];
        for (int lane = 0; lane < lanes; ++lane) rows[lane] = row[lane].gy + t * f_.gy.step;
        load_tile<true, -ahead_in_rows>(g, rows, f_.gy.step, count);
      } else {
        std::memset(static_cast<void*>(g), 0, sizeof(T) * count * lanes);
      }
      if constexpr (in_place) {
        const Coefficient* rows[lanes];
        for (int lane = 0; lane < lanes; ++lane) rows[lane] = row[lane].a.data + t * length;
        load_tile<true, -2 * ahead_in_rows>(taps, rows, 1, count * length);
      } else {
        const double* rows[lanes];
        for (int lane = 0; lane < lanes; ++lane) {
          rows[lane] = tap_rows + (lane < used ? lane : used - 1) * longest * length;
          if (lane >= used) continue;
          row[lane].a.read(t, count, tap_rows + lane * longest * length, length);
        }
        load_tile<true>(taps, rows, 1, count * length);
      }
      if (divided) nonzero &= invert_first(taps + place<true>(0, length, order_) * lanes, length, count, inverse);
      if (in_registers) {
        with_lanes(order_, divided, [&](auto order, auto divide) {
          const LaneTile<order.value, true, divide.value, T> lane_tile{g, taps, inverse, count};
          lane_tile.run(pending, [&](auto produce) { store_rows(to, used, 1, count, produce); });
        });
      } else {
        std::memset(pending + n, 0, sizeof(double) * count * lanes);
        adjoint_in_lanes(g, taps, divided ? inverse : nullptr, count, order_, pending);
        store_rows(to, used, 1, count, [&](int i) TORCH_IIR_INLINE_LAMBDA { return load_pair(pending + i * lanes); });
        std::memmove(pending, pending + count * lanes, sizeof(double) * n);
      }
      for (int lane = 0; lane < used; ++lane) {
        if (t >= longest) {  // these are more streams than the machine follows by itself
          if (f_.y.step == 1) fetch<false, second_cache>(row[lane].y + t - longest, longest);
          if (row[lane].gx != nullptr) fetch<true, second_cache>(row[lane].gx + t - longest, longest);
          if (row[lane].ga.rows != nullptr)
            fetch<true, second_cache>(row[lane].ga.rows + (t - longest) * length, longest * length);
        }
        spending.spend(row[lane], t, count, v + lane * longest, owed + lane * lag_);
      }
      end = t;
    }
    sound(nonzero);
    for (int lane = 0; lane < used; ++lane) {
      for (int k = 0; k < order_; ++k) z[k] = pending[k * lanes + lane];
      finish(row[lane].number, z, owed + lane * lag_);
    }
    return true;
  }

  bool segments_row(const Group& group, std::int64_t number) {
    if constexpr (!in_lanes<Sample>) {
      return true;  // taken by nobody
    } else {
      const Row row = row_of(group, number);
      bool memory = true;
      with_lanes(order_, row.a.first == 0, [&](auto order, auto divide) {
        if constexpr (all_float<Sample, Coefficient>) {
          if (row.a.packed()) {
            memory = segments<order.value, divide.value, float>(row);
            return;
          }
        }
        memory = segments<order.value, divide.value, double>(row);
      });
      return memory;
    }
  }

  template <int order, bool divided, class T>
  bool segments(const Row& row) {
    constexpr int length = order + divided, longest = segment_samples<T, true>, tile = longest * lanes;
    constexpr int row_bytes = lanes * static_cast<int>(sizeof(T));  // as above
    constexpr int passes = lanes / LaneTile<order, true, divided, T>::lanes_at_once;
    const RowOfTaps<Coefficient>& a = row.a;
    const bool in_place = a.packed();
    Chunks chunks(*this, false);
    Scratch scratch(chunks.bytes() + Scratch::bytes<T>(tile) + Scratch::bytes<T>(tile * length) +
                    Scratch::bytes<double>(divided ? tile : 0) + Scratch::bytes<double>(tile) +
                    Scratch::bytes<double>(in_place ? 0 : tile * length) +
                    Scratch::bytes<double>(static_cast<std::size_t>(lag_)));
    if (!scratch) return false;
    chunks.take(scratch);
    T *g = scratch.take<T>(tile), *taps = scratch.take<T>(tile * length);
    double* inverse = scratch.take<double>(divided ? tile : 0);
    double *v = scratch.take<double>(tile), *tap_rows = scratch.take<double>(in_place ? 0 : tile * length);
    double* owed = scratch.take<double>(static_cast<std::size_t>(lag_));
    for (int j = 0; j < lag_; ++j) owed[j] = 0;

    alignas(64) double entry[order * lanes];
    double state[order];
    read_state(f_.gzf, f_.batch, row.number, order, state);
    std::int64_t end = f_.samples;
    bool nonzero = true;
    while (const int count = segment_in<T, true>(end)) {  // lane 0 is the last in time
      const LaneTile<order, true, divided, T> lane_tile{g, taps, inverse, count};
      const auto load = [&](T* to, const auto* behind, std::int64_t step, std::int64_t segment, int values,
                            auto fetch) {
        std::remove_reference_t<decltype(behind)> rows[lanes];
        for (int lane = 0; lane < lanes; ++lane) rows[lane] = behind - (lane + 1) * segment;
        load_tile<true>(to, rows, step, values, fetch);
      };
      const std::int64_t here = lanes * count, t = end - here, next = t < here ? t : t - here;
      Fetch fetch_g(row.gy != nullptr ? static_cast<const void*>(row.gy + next * f_.gy.step) : g),
          fetch_y(row.y != nullptr ? static_cast<const void*>(row.y + t * f_.y.step) : v),
          fetch_a(in_place ? static_cast<const void*>(a.data + next * length) : tap_rows),
          fetch_gx(row.gx != nullptr ? static_cast<const void*>(row.gx + t * f_.gx.step) : v),
          fetch_ga(row.ga.rows != nullptr ? static_cast<const void*>(row.ga.rows + next * length) : v);
      if (row.gy != nullptr) {
        load(g, row.gy + end * f_.gy.step, f_.gy.step, count * f_.gy.step, count,
             [&](int) TORCH_IIR_INLINE_LAMBDA { fetch_gx.template next<row_bytes, true>(); });
      } else {
        std::memset(static_cast<void*>(g), 0, sizeof(T) * count * lanes);
      }
      if (in_place) {
        load(taps, a.data + end * length, 1, count * length, count * length, [&](int i) TORCH_IIR_INLINE_LAMBDA {
          if (i % length == 0) fetch_y.template next<row_bytes>();
        });
      } else {
        a.read(t, lanes * count, tap_rows, length);
        if constexpr (!std::is_same_v<T, float>)
          load(taps, tap_rows + lanes * count * length, 1, count * length, count * length, Nothing{});
      }
      nonzero &= lane_tile.invert();
      const auto fetch_taps = [&]() TORCH_IIR_INLINE_LAMBDA { fetch_a.template next<row_bytes * length / passes>(); };
      if (enter_lanes<std::is_same_v<Sample, double>>(lane_tile, state, entry, fetch_taps)) {
        const bool in_order = chunks.spending().in_order(row);
        double* rows[lanes];
        for (int lane = 0; lane < lanes; ++lane) rows[lane] = v + (in_order ? lanes - 1 - lane : lane) * count;
        lane_tile.run(entry, [&](auto produce) {
          const auto fetching = [&](int i) TORCH_IIR_INLINE_LAMBDA {
            fetch_g.template next<row_bytes>();
            fetch_ga.template next<row_bytes * length, false, second_cache>();
            return produce(i);
          };
          in_order ? store_rows<true>(rows, lanes, 1, count, fetching) : store_rows(rows, lanes, 1, count, fetching);
        });
        if (in_order) {
          chunks.spending().spend_in_order(row, t, lanes * count, v);
        } else {
          chunks.spending().spend(row, t, lanes * count, v, owed);
        }
      } else {
        nonzero &= chunks.run(row, end - lanes * count, end, state, owed);
      }
      end -= lanes * count;
    }
    nonzero &= chunks.run(row, 0, end, state, owed);
    sound(nonzero);
    finish(row.number, state, owed);
    return true;
  }

  LFilterTVBackward<Sample, Coefficient, State> f_;
  int order_, lag_, a_length_, b_length_, inner_dims_ = 0;
  std::int64_t together_ = 1;  // rows in a row that add to one gradient
  bool divided_by_zero_ = false;
};

template <class T>
Taps<ComplexLike<T>> as_complex(const Taps<T>& taps) {
  return with_layout_of<Taps<ComplexLike<T>>>(taps);
}
LFilterTV<Complex, Complex, Complex> with_complex(
    const LFilterTV<std::complex<double>, std::complex<double>, std::complex<double>>& f) {
  return {f.batch,         f.samples,        f.period,         as_complex(f.x), as_complex(f.b),
          as_complex(f.a), as_complex(f.zx), as_complex(f.zi), as_complex(f.y), as_complex(f.zf)};
}
LFilterTVBackward<Complex, Complex, Complex> with_complex(
    const LFilterTVBackward<std::complex<double>, std::complex<double>, std::complex<double>>& f) {
  return {f.batch,          f.samples,        f.period,          as_complex(f.gy), as_complex(f.gzf), as_complex(f.x),
          as_complex(f.y),  as_complex(f.b),  as_complex(f.a),   as_complex(f.zx), as_complex(f.zi),  as_complex(f.gx),
          as_complex(f.gb), as_complex(f.ga), as_complex(f.gzx), as_complex(f.gzi)};
}

}  // namespace

#define TORCH_IIR_LFILTER_TV(...)                                                                            \
  Status lfilter_tv(const LFilterTV<__VA_ARGS__>& f, Algorithm algorithm, const Context& context) noexcept { \
    return Forward<__VA_ARGS__>(f, context).run(algorithm);                                                  \
  }                                                                                                          \
  Status lfilter_tv_backward(const LFilterTVBackward<__VA_ARGS__>& f, Algorithm algorithm,                   \
                             const Context& context) noexcept {                                              \
    return Backward<__VA_ARGS__>(f).run(algorithm, context);                                                 \
  }
TORCH_IIR_LFILTER_TV(float, float, double)
TORCH_IIR_LFILTER_TV(float, double, double)
TORCH_IIR_LFILTER_TV(double, double, double)
TORCH_IIR_LFILTER_TV(Half, Half, double)
TORCH_IIR_LFILTER_TV(Half, double, double)
TORCH_IIR_LFILTER_TV(BFloat16, BFloat16, double)
TORCH_IIR_LFILTER_TV(BFloat16, double, double)

Status lfilter_tv(const LFilterTV<std::complex<double>, std::complex<double>, std::complex<double>>& f,
                  Algorithm algorithm, const Context& context) noexcept {
  return Forward<Complex, Complex, Complex>(with_complex(f), context).run(algorithm);
}
Status lfilter_tv_backward(const LFilterTVBackward<std::complex<double>, std::complex<double>, std::complex<double>>& f,
                           Algorithm algorithm, const Context& context) noexcept {
  return Backward<Complex, Complex, Complex>(with_complex(f)).run(algorithm, context);
}

}  // namespace torch_iir::TORCH_IIR_ISA
