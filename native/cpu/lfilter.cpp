// lfilter and its gradient: reads the parameters, chooses the algorithm, runs it over the rows.
#include "torch_iir/lfilter.h"

#include <type_traits>

#include "lfilter_blocks.h"
#include "lfilter_direct.h"
#include "lfilter_long.h"
#include "lfilter_segments.h"
#include "lfilter_tiles.h"
#include "rows.h"
#include "scratch.h"
#include "simd.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

inline constexpr int tile_rows = 64;       // samples of each lane in a tile
inline constexpr int bank_tile_rows = 32;  // the same on the way back through a bank: faster by a tenth
// Samples of each lane in a tile that keeps a history of `order` of them.
constexpr int tile_length(int order) { return order <= 32 ? tile_rows : 2 * tile_rows; }
inline constexpr int largest_order = 1024;  // of the algorithms whose tables and histories have to stay in the caches
// Samples between two looks at what the blocks put out. Not a multiple of 4 KiB of doubles: what is stored in one
// buffer and loaded from the next to it would agree in the bits by which the machine looks for dependences.
inline constexpr int chunk = 1280;

// f(Number<n>) for an n from `least` to `most`.
template <int least, int most, class F>
TORCH_IIR_INLINE void with_number(int n, F&& f) {
  if constexpr (least == most) {
    f(Number<most>{});
  } else if (n == least) {
    f(Number<least>{});
  } else {
    with_number<least + 1, most>(n, f);
  }
}
template <class F>
TORCH_IIR_INLINE void with_order(int order, F&& f) {
  with_number<0, register_order>(order, f);
}

// Whether an algorithm can run filters of this order.
template <class State>
bool takes(Algorithm algorithm, int order) {
  if (algorithm == Algorithm::direct) return true;
  if (std::is_same_v<State, Complex>) return false;
  if (algorithm == Algorithm::segments) return order >= 1 && order <= register_order;
  return (algorithm == Algorithm::rows || algorithm == Algorithm::blocks) && order <= largest_order;
}

// The filters of a batch, normalised row by row.
template <class State>
struct Filters {
  const Batch& batch;
  Rows<const State> b, a;
  int b_length, a_length, order;

  // b[0 … order] and a[0 … order], padded with zeros; returns a[0] as it was given.
  State read_row(std::int64_t row, State* normal_b, State* normal_a) const {
    const State *p = b.row(batch, row), *q = a.row(batch, row);
    const State a0 = q[0];
    for (int k = 0; k <= order; ++k) {
      normal_b[k] = k < b_length ? p[k * b.step] / a0 : State(0);
      normal_a[k] = k < a_length ? q[k * a.step] / a0 : State(0);
    }
    return a0;
  }

  bool some_a0_is_zero() const {
    const Batch filters = distinct(batch, a);
    const std::int64_t count = filters.rows();
    for (std::int64_t row = 0; row < count; ++row) {
      if (*a.row(filters, row) == State(0)) return true;
    }
    return false;
  }
};

// What the difference equation still owes the outputs after the last sample: `x` and `y` point behind the last of them.
template <class State>
void final_state(const State* x, const State* y, int order, const State* b, const State* a, State* z) {
  for (int j = 0; j < order; ++j) {
    State total(0);
    for (int k = j + 1; k <= order; ++k) total += b[k] * x[j - k] - a[k] * y[j - k];
    z[j] = total;
  }
}

// ---- forward -------------------------------------------------------------------------------------------------

template <class Sample, class State>
class Forward {
 public:
  Forward(const LFilter<Sample, State>& f, int order, const Context& context)
      : f_(f), context_(context), filters_{f_.batch, f.b, f.a, f.b_length, f.a_length, order}, order_(order) {
    share(f_.batch, f_.x, {f_.b.stride, f_.a.stride, f_.zi.stride, f_.y.stride, f_.zf.stride, f_.x.stride});
    filters_.b = f_.b;
    filters_.a = f_.a;
  }

  Status run(Algorithm algorithm) {
    const std::int64_t rows = f_.batch.rows();
    if (rows == 0) return Status::ok;
    if (context_.loads() && filters_.some_a0_is_zero()) return Status::zero_a0;
    if (algorithm == Algorithm::automatic)
      algorithm = lfilter_algorithm(rows, f_.samples, order_, std::is_same_v<State, Complex>);
    if (!takes<State>(algorithm, order_)) return Status::unsupported;
    if constexpr (std::is_same_v<State, double>) {
      if (algorithm == Algorithm::rows) {
        return for_groups(context_, rows, lanes, f_.samples, [&](std::int64_t first, std::int64_t count) {
          return group_rows(first, static_cast<int>(count));
        });
      }
      if (algorithm == Algorithm::segments) return each_row(rows, &Forward::segments_row);
      if (algorithm == Algorithm::blocks) return each_row(rows, &Forward::blocks_row);
    }
    return each_row(rows, &Forward::direct_row);
  }

 private:
  using RowFunction = bool (Forward::*)(std::int64_t row);

  Status each_row(std::int64_t rows, RowFunction function) {
    return for_groups(context_, rows, 1, f_.samples,
                      [&](std::int64_t row, std::int64_t) { return (this->*function)(row); });
  }

  void read_state(std::int64_t row, State* z) const {
    const State* from = f_.zi ? f_.zi.row(f_.batch, row) : nullptr;
    for (int k = 0; k < order_; ++k) z[k] = from != nullptr ? from[k * f_.zi.step] : State(0);
  }
  void write_state(std::int64_t row, const State* z) const {
    if (!f_.zf) return;
    State* to = f_.zf.row(f_.batch, row);
    for (int k = 0; k < order_; ++k) to[k * f_.zf.step] = z[k];
  }

  bool direct_row(std::int64_t row) {
    constexpr int small = 16;
    const std::size_t n = static_cast<std::size_t>(order_) + 1;
    const bool on_stack = order_ < small && context_.step == Step::everything;
    State local[3 * small];
    Scratch scratch(on_stack ? 0 : 3 * Scratch::bytes<State>(n), context_, row);
    if (!scratch) return false;
    State* b = on_stack ? local : scratch.take<State>(n);
    State* a = on_stack ? local + small : scratch.take<State>(n);
    State* z = on_stack ? local + 2 * small : scratch.take<State>(n);
    if (context_.loads()) {
      filters_.read_row(row, b, a);
      read_state(row, z);
    }
    if (context_.runs()) {
      direct_filter(f_.x.row(f_.batch, row), f_.x.step, f_.y.row(f_.batch, row), f_.y.step, f_.samples, order_, b, a,
                    z);
    }
    if (context_.stores()) write_state(row, z);
    return true;
  }

  // Where the states of rows in lanes live.
  bool in_registers() const { return order_ <= register_order; }
  bool half_in_registers() const {  // where b or a is much the shorter, its zeros would cost more than memory does
    return !in_registers() && order_ <= half_register_order && 2 * (f_.b_length + f_.a_length - 2) >= 3 * order_;
  }

  // Rows in lanes; the last group may have lanes to spare.
  bool group_rows(std::int64_t first, int used) {
    const std::size_t n = static_cast<std::size_t>(order_) + 1, state = n * lanes;
    const bool recurse_in_registers = in_registers() || half_in_registers();
    const int length = tile_length(order_);
    const std::size_t tile_size = recurse_in_registers ? static_cast<std::size_t>(length) * lanes : 0;
    const std::size_t rows_of_tiles = recurse_in_registers ? 0 : static_cast<std::size_t>(order_ + 1 + length) * lanes;
    Scratch scratch(3 * Scratch::bytes<double>(state) + 2 * Scratch::bytes<double>(n) +
                        2 * Scratch::bytes<double>(rows_of_tiles) + Scratch::bytes<Tile<Sample>>(tile_size),
                    context_, first / lanes);
    if (!scratch) return false;
    double *b = scratch.take<double>(state), *a = scratch.take<double>(state), *z = scratch.take<double>(state);
    double *one_b = scratch.take<double>(n), *one_a = scratch.take<double>(n);
    auto* tile = scratch.take<Tile<Sample>>(tile_size);

    double* xs = scratch.take<double>(rows_of_tiles) + (order_ + 1) * lanes;  // preceded by the history
    double* ys = scratch.take<double>(rows_of_tiles) + (order_ + 1) * lanes;

    if (context_.loads()) {
      for (int lane = 0; lane < lanes; ++lane) {  // lanes without a row repeat the last one and are not stored
        const std::int64_t row = first + (lane < used ? lane : used - 1);
        filters_.read_row(row, one_b, one_a);
        for (int k = 0; k <= order_; ++k) b[k * lanes + lane] = one_b[k], a[k * lanes + lane] = one_a[k];
        read_state(row, one_b);
        for (int k = 0; k < order_; ++k) z[k * lanes + lane] = one_b[k];
      }
    }
    if (context_.runs()) run_group(first, used, tile, xs, ys, b, a, z);
    if (!context_.stores()) return true;
    for (int lane = 0; lane < used; ++lane) {
      for (int k = 0; k < order_; ++k) one_b[k] = z[k * lanes + lane];
      write_state(first + lane, one_b);
    }
    return true;
  }

  // The tile is `tile` where the states live in registers, else `xs` and `ys`.
  void run_group(std::int64_t first, int used, Tile<Sample>* tile, double* xs, double* ys, const double* b,
                 const double* a, double* z) {
    const int length = tile_length(order_);
    const Sample* x[lanes];
    Sample* y[lanes];
    for (int lane = 0; lane < lanes; ++lane) {
      const std::int64_t row = first + (lane < used ? lane : used - 1);
      x[lane] = f_.x.row(f_.batch, row);
      y[lane] = f_.y.row(f_.batch, row);
    }
    // body(t, count) for the samples [t, t + count) after which x and y move on.
    const auto for_tiles = [&](int most, auto&& body) {
      for (std::int64_t t = 0; t < f_.samples; t += most) {
        const int count = f_.samples - t < most ? static_cast<int>(f_.samples - t) : most;
        body(t, count);
        for (int lane = 0; lane < lanes; ++lane) x[lane] += count * f_.x.step, y[lane] += count * f_.y.step;
      }
    };
    // The next tile is fetched into the first cache, and of the inputs the one after it into the second, beside the
    // arithmetic; or, where there are few registers or it may be over too soon for that, as without recursion, all
    // lines of the next while this one is loaded and stored.
    constexpr bool beside = many_registers;
    constexpr Number<tile_rows> at_once;
    constexpr Number<beside ? 0 : tile_rows> unless_beside;
    const auto fetch_inputs = [&](int t) TORCH_IIR_INLINE_LAMBDA {
      if constexpr (beside) fetch_share(x, t, length);
    };
    const auto fetch_others = [&](int t) TORCH_IIR_INLINE_LAMBDA {
      if constexpr (beside) fetch_share<true>(y, t, length), fetch_share<false, second_cache>(x, t, 2 * length);
    };
    const auto load = [&](auto* to, int count, auto ahead) { load_tile<false, ahead.value>(to, x, f_.x.step, count); };
    const auto store_tile = [&](const auto* from, int count, auto ahead) {
      store_rows<false, ahead.value>(y, used, f_.y.step, count,
                                     [&](int i) TORCH_IIR_INLINE_LAMBDA { return load_row(from + i * lanes); });
    };

    if (in_registers() && all_the_same(x)) {
      alignas(64) double shared[chunk];
      with_order(order_, [&](auto order) {
        for_tiles(chunk, [&](std::int64_t, int count) {
          read_samples(shared, x[0], f_.x.step, count);
          filter_tile<order.value>(y, used, f_.y.step, Shared{shared}, count, b, a, z);
        });
      });
    } else if (in_registers()) {
      with_order(order_, [&](auto order) {
        for_tiles(length, [&](std::int64_t, int count) {
          load(tile, count, unless_beside);
          filter_tile<order.value, unless_beside.value>(y, used, f_.y.step, OfTile<Tile<Sample>>{tile}, count, b, a, z,
                                                        [&](int t) TORCH_IIR_INLINE_LAMBDA {
                                                          fetch_inputs(t);
                                                          fetch_others(t);
                                                        });
        });
      });
    } else if (half_in_registers()) {
      with_number<register_order + 1, half_register_order>(order_, [&](auto order) {
        for_tiles(length, [&](std::int64_t, int count) {
          load(tile, count, unless_beside);
          filter_in_place<order.value>(tile, count, b, a, z, [&](int t, int half) TORCH_IIR_INLINE_LAMBDA {
            half == 0 ? fetch_inputs(t) : fetch_others(t);
          });
          store_tile(tile, count, unless_beside);
        });
      });
    } else {
      std::memset(xs - (order_ + 1) * lanes, 0, sizeof(double) * (order_ + 1) * lanes);
      std::memset(ys - (order_ + 1) * lanes, 0, sizeof(double) * (order_ + 1) * lanes);
      for_tiles(length, [&](std::int64_t t, int count) {
        load(xs, count, at_once);
        const int driven = t >= order_ ? 0 : order_ - t < count ? static_cast<int>(order_ - t) : count;
        std::memcpy(ys, z + t * lanes, sizeof(double) * driven * lanes);
        pole_zero_tile(xs, ys, count, f_.b_length - 1, b, f_.a_length - 1, a, driven);
        store_tile(ys, count, at_once);
        std::memmove(xs - order_ * lanes, xs + (count - order_) * lanes, sizeof(double) * order_ * lanes);
        std::memmove(ys - order_ * lanes, ys + (count - order_) * lanes, sizeof(double) * order_ * lanes);
      });
      for (int j = 0; j < order_; ++j) {  // in place: state j takes from the old states above it alone
        for (int at = 0; at < lanes; at += width) {
          Doubles total = f_.samples + j < order_ ? load_doubles(z + (f_.samples + j) * lanes + at) : Doubles{};
          for (int k = j + 1; k <= order_; ++k) {
            const int past = (j - k) * lanes + at;
            total += load_doubles(b + k * lanes + at) * load_doubles(xs + past) -
                     load_doubles(a + k * lanes + at) * load_doubles(ys + past);
          }
          store_doubles(z + j * lanes + at, total);
        }
      }
    }
  }

  bool segments_row(std::int64_t row) {
    bool memory = true;
    with_order(order_, [&](auto order) {
      if constexpr (order.value > 0) memory = segments<order.value>(row);
    });
    return memory;
  }

  template <int order>
  struct SegmentFilter {
    double b[order + 1], a[order + 1], z[order];
    SegmentTables<order> tables;
    bool sound;  // else the filter grows so fast that its powers overflow: the direct form takes over
  };

  template <int order>
  bool segments(std::int64_t row) {
    using Filter = SegmentFilter<order>;
    Filter local;
    const bool on_stack = context_.step == Step::everything;
    Scratch scratch(on_stack ? 0 : Scratch::bytes<Filter>(1), context_, row);
    if (!scratch) return false;
    Filter& filter = on_stack ? local : *scratch.take<Filter>(1);
    if (context_.loads()) {
      filters_.read_row(row, filter.b, filter.a);
      read_state(row, filter.z);
      // A plan's blocks may have any length.
      load_segments_of(filter, on_stack ? segment_in(f_.samples) : segment_length);
    }
    if (context_.runs()) run_segments(filter, f_.x.row(f_.batch, row), f_.y.row(f_.batch, row));
    if (context_.stores()) write_state(row, filter.z);
    return true;
  }

  template <int order>
  static void load_segments_of(SegmentFilter<order>& filter, int longest) {
    double step[order * order] = {}, input[order];
    for (int k = 0; k < order; ++k) {  // z_k ← z_{k+1} − a_{k+1} z_0 + (b_{k+1} − a_{k+1} b_0) x
      step[k * order] = -filter.a[k + 1];
      if (k + 1 < order) step[k * order + k + 1] = 1;
      input[k] = filter.b[k + 1] - filter.a[k + 1] * filter.b[0];
    }
    filter.sound = longest == 0 || filter.tables.build(longest, step, input);
  }

  template <int order>
  void run_segments(SegmentFilter<order>& filter, const Sample* x, Sample* y) {
    std::int64_t left = f_.samples;
    if (filter.sound && segment_in(left) > 0) {
      Extended carry[order];
      for (int k = 0; k < order; ++k) carry[k] = {filter.z[k], 0};
      alignas(64) Tile<Sample> tile[segment_length * lanes];
      alignas(64) double lane_b[(order + 1) * lanes], lane_a[(order + 1) * lanes], entry[order * lanes];
      for (int k = 0; k <= order; ++k) {
        for (int lane = 0; lane < lanes; ++lane)
          lane_b[k * lanes + lane] = filter.b[k], lane_a[k * lanes + lane] = filter.a[k];
      }
      while (const int count = segment_in(left)) {
        const Sample* from[lanes];
        Sample* to[lanes];
        for (int lane = 0; lane < lanes; ++lane) {
          from[lane] = x + lane * count * f_.x.step;
          to[lane] = y + lane * count * f_.y.step;
        }
        load_segments<false, segment_length>(tile, from, f_.x.step, count, filter.tables, entry);
        scan_segments<order>(filter.tables.power_of(count), carry, entry);
        filter_tile<order, next_tile(segment_length), true>(to, lanes, f_.y.step, OfTile<Tile<Sample>>{tile}, count,
                                                            lane_b, lane_a, entry);
        x += lanes * count * f_.x.step;
        y += lanes * count * f_.y.step;
        left -= lanes * count;
      }
      for (int k = 0; k < order; ++k) filter.z[k] = carry[k].high + carry[k].low;
    }
    direct_filter(x, f_.x.step, y, f_.y.step, left, order, filter.b, filter.a, filter.z);
  }

  bool blocks_row(std::int64_t row) {
    const int b_order = f_.b_length - 1, a_order = f_.a_length - 1, start = block_history(order_);
    const std::size_t n = static_cast<std::size_t>(order_) + 1, buffer = static_cast<std::size_t>(start) + chunk;
    Scratch scratch(4 * Scratch::bytes<double>(n + block) + 2 * Scratch::bytes<double>(buffer) +
                        Scratch::bytes<double>(block_table_size(b_order, a_order)) + Scratch::bytes<double>(block) +
                        Scratch::bytes<bool>(1),
                    context_, row);
    if (!scratch) return false;
    double *b = scratch.take<double>(n + block), *a = scratch.take<double>(n + block),
           *z = scratch.take<double>(n + block);
    double* extra = scratch.take<double>(n + block);
    double *xs = scratch.take<double>(buffer) + start, *ys = scratch.take<double>(buffer) + start;
    double* tables = scratch.take<double>(block_table_size(b_order, a_order));
    double* h = scratch.take<double>(block);
    bool& sound = *scratch.take<bool>(1);
    if (context_.loads()) {
      filters_.read_row(row, b, a);
      read_state(row, z);
      build_block_tables(b, b_order, a, a_order, tables, h);
      sound = blocks_are_sound(tables, b_order, a, a_order);
    }
    if (context_.runs()) {
      const Sample* x = f_.x.row(f_.batch, row);
      Sample* y = f_.y.row(f_.batch, row);
      const std::int64_t done = sound ? run_blocks(x, y, tables, h, b, a, z, extra, xs, ys) : 0;
      direct_filter(x + done * f_.x.step, f_.x.step, y + done * f_.y.step, f_.y.step, f_.samples - done, order_, b, a,
                    z);
    }
    if (context_.stores()) write_state(row, z);
    return true;
  }

  // `count` samples by blocks; false if some output is not finite: y is of no use then, and x as it was.
  bool filter_chunk(const Sample* x, Sample* y, int count, const double* tables, const double* extra, double* xs,
                    double* ys) {
    const int b_order = f_.b_length - 1, a_order = f_.a_length - 1;
    if constexpr (plain<Sample>) {
      if (f_.x.step == 1 && f_.y.step == 1) {
        Doubles probe{};
        filter_blocks(
            xs, ys, count, b_order, a_order, tables, extra,
            [&](int t) TORCH_IIR_INLINE_LAMBDA {
              for (int i = t; i < t + block; i += width) store_doubles(xs + i, load_doubles(x + i));
            },
            [&](int t, const Doubles(&outputs)[block_vectors]) TORCH_IIR_INLINE_LAMBDA {
              for (int v = 0; v < block_vectors; ++v) {
                probe += outputs[v] * 0;
                store_doubles(y + t + v * width, outputs[v]);
              }
            });
        if (sum(probe) == 0) return true;
        write_samples(y, 1, xs, count);  // y may be x
        return false;
      }
    }
    read_samples(xs, x, f_.x.step, count);
    filter_blocks(xs, ys, count, b_order, a_order, tables, extra);
    if (!finite(ys, count)) return false;
    write_samples(y, f_.y.step, ys, count);
    return true;
  }

  // As many samples as blocks are good for, and how many these are; z moves past them. xs and ys are preceded by room
  // for the history.
  std::int64_t run_blocks(const Sample* x, Sample* y, const double* tables, const double* h, const double* b,
                          const double* a, double* z, double* extra, double* xs, double* ys) {
    const int start = block_history(order_);
    const int initial = (order_ + block - 1) / block * block;  // outputs to which the initial state adds
    for (int t = 0; t < initial; ++t) {
      extra[t] = 0;
      for (int q = t / block * block; q <= t && q < order_; ++q) extra[t] += h[t - q] * z[q];
    }
    std::memset(xs - start, 0, sizeof(double) * start);
    std::memset(ys - start, 0, sizeof(double) * start);
    std::int64_t t = 0;
    const std::int64_t whole = f_.samples / block * block;
    while (t < whole) {
      // a chunk has the initial state's response in all of its outputs or in none
      const int most = t < initial && initial - t < chunk ? static_cast<int>(initial - t) : chunk;
      const int count = whole - t < most ? static_cast<int>(whole - t) : most;
      if (!filter_chunk(x + t * f_.x.step, y + t * f_.y.step, count, tables, t < initial ? extra + t : nullptr, xs, ys))
        break;  // the direct form takes over
      std::memmove(xs - order_, xs + count - order_, sizeof(double) * order_);
      std::memmove(ys - order_, ys + count - order_, sizeof(double) * order_);
      t += count;
    }
    double* rest = extra;
    final_state(xs, ys, order_, b, a, rest);
    for (int j = 0; t + j < order_; ++j) rest[j] += z[t + j];
    for (int j = 0; j < order_; ++j) z[j] = rest[j];
    return t;
  }

  LFilter<Sample, State> f_;
  const Context& context_;
  Filters<State> filters_;
  int order_;
};

// ---- backward ------------------------------------------------------------------------------------------------

template <class Sample, class State>
class Backward {
 public:
  Backward(const LFilterBackward<Sample, State>& f, int order)
      : f_(f), filters_{f_.batch, f_.b, f_.a, f.b_length, f.a_length, order}, order_(order), correlate_(f.gb || f.ga) {
    sharing_ = share(f_.batch, f_.gx,
                     {f_.gy.stride, f_.gzf.stride, f_.x.stride, f_.y.stride, f_.b.stride, f_.a.stride, f_.gb.stride,
                      f_.ga.stride, f_.gzi.stride, f_.gx.stride});
    filters_.b = f_.b;
    filters_.a = f_.a;
  }

  Status run(Algorithm algorithm, const ParallelFor& parallel_for) {
    const std::int64_t rows = f_.batch.rows();
    clear(f_.batch, f_.gb, f_.b_length);
    clear(f_.batch, f_.ga, f_.a_length);
    clear(f_.batch, f_.gzi, order_);
    if (rows == 0) {
      clear(f_.batch, f_.gx, f_.samples);
      return Status::ok;
    }
    if (filters_.some_a0_is_zero()) return Status::zero_a0;
    if (algorithm == Algorithm::automatic)
      algorithm = lfilter_algorithm(rows, f_.samples, order_, std::is_same_v<State, Complex>);
    if (!takes<State>(algorithm, order_)) return Status::unsupported;
    algorithm_ = algorithm;

    Scratch totals(Scratch::bytes<State>(static_cast<std::size_t>(rows) * row_totals()));
    if (!totals) return Status::out_of_memory;
    totals_ = totals.template take<State>(static_cast<std::size_t>(rows) * row_totals());

    // A task is a run of rows that no other task shares an input's gradient with.
    const std::int64_t group = sharing_ == 1 && algorithm == Algorithm::rows ? lanes : sharing_;
    const Status status = for_groups(parallel_for, rows, group, f_.samples,
                                     [&](std::int64_t first, std::int64_t count) { return task(first, count); });
    if (status != Status::ok) return status;
    for (std::int64_t row = 0; row < rows; ++row) add_up(row);  // in this order, whatever the threads: the same bits
    return Status::ok;
  }

 private:
  // A row's totals: gb, ga (order + 1 each, explicit) and gzi (order).
  std::size_t row_totals() const { return 3 * static_cast<std::size_t>(order_) + 2; }
  State* totals_of(std::int64_t row) const { return totals_ + static_cast<std::size_t>(row) * row_totals(); }

  void read_history(std::int64_t row, State* v) const {  // v[T + j] = γ_j
    const State* from = f_.gzf ? f_.gzf.row(f_.batch, row) : nullptr;
    for (int k = 0; k < order_; ++k) v[k] = from != nullptr ? from[k * f_.gzf.step] : State(0);
  }

  // A row's totals from the gradients of its normalised coefficients.
  void finish(std::int64_t row, const State* b, const State* a, State a0, const State* gb, const State* ga,
              const State* v) const {
    State *to_b = totals_of(row), *to_a = to_b + order_ + 1, *to_z = to_a + order_ + 1;
    finish_gradients(order_, b, a, a0, gb, ga, to_b, to_a);
    for (int k = 0; k < order_; ++k) to_z[k] = v[k];
  }

  void add_up(std::int64_t row) const {
    const State *b = totals_of(row), *a = b + order_ + 1, *z = a + order_ + 1;
    const auto add = [&](const Rows<State>& gradient, const State* from, int length) {
      if (!gradient) return;
      State* to = gradient.row(f_.batch, row);
      for (int k = 0; k < length; ++k) to[k * gradient.step] += from[k];
    };
    add(f_.gb, b, f_.b_length);
    add(f_.ga, a, f_.a_length);
    add(f_.gzi, z, order_);
  }

  // Rows [first, first + count): they share one gradient of the input, or none of them shares.
  bool task(std::int64_t first, std::int64_t count) const {
    const std::int64_t at_once = algorithm_ == Algorithm::rows ? lanes : 1;
    return with_shared_gradient<State>(f_.batch, f_.gx, f_.samples, sharing_ > 1, first, count, at_once,
                                       [&](std::int64_t row, std::int64_t rows, State* sums) {
                                         if constexpr (std::is_same_v<State, double>) {
                                           switch (algorithm_) {
                                             case Algorithm::rows: return group_rows(row, static_cast<int>(rows), sums);
                                             case Algorithm::segments: return segments_row(row, sums);
                                             case Algorithm::blocks: return blocks_row(row, sums);
                                             default: break;
                                           }
                                         }
                                         return direct_row(row, sums);
                                       });
  }

  // Where row `row` puts its input's gradient.
  InputGradient<Sample, State> input_gradient(std::int64_t row, State* sums) const {
    if (!f_.gx) return {};
    if (sums != nullptr) return {nullptr, 1, sums};
    return {f_.gx.row(f_.batch, row), f_.gx.step, nullptr};
  }
  const Sample* gradient_row(std::int64_t row) const { return f_.gy ? f_.gy.row(f_.batch, row) : nullptr; }

  bool direct_row(std::int64_t row, State* sums) const {
    const std::size_t n = static_cast<std::size_t>(order_) + 1;
    Scratch scratch(5 * Scratch::bytes<State>(n) + Scratch::bytes<State>(n + direct_window));
    if (!scratch) return false;
    State *b = scratch.take<State>(n), *a = scratch.take<State>(n), *v = scratch.take<State>(n);
    State *gb = scratch.take<State>(n), *ga = scratch.take<State>(n), *window = scratch.take<State>(n + direct_window);
    const State a0 = filters_.read_row(row, b, a);
    read_history(row, v);
    for (std::size_t k = 0; k < n; ++k) gb[k] = ga[k] = State(0);
    direct_backward(gradient_row(row), f_.gy.step, f_.x.row(f_.batch, row), f_.x.step, f_.y.row(f_.batch, row),
                    f_.y.step, f_.samples, order_, b, a, v, correlate_ ? gb : nullptr, ga, input_gradient(row, sums),
                    window);
    finish(row, b, a, a0, gb, ga, v);
    return true;
  }

  bool group_rows(std::int64_t first, int used, double* sums) const {
    const std::size_t n = static_cast<std::size_t>(order_) + 1, state = n * lanes;
    const bool in_registers = order_ <= register_order;
    const int length = tile_length(order_);
    const std::size_t samples = static_cast<std::size_t>(length) * lanes;
    const std::size_t tile_size = in_registers ? samples : 0, history = in_registers ? 0 : samples + state;
    Scratch scratch(5 * Scratch::bytes<double>(state) + 5 * Scratch::bytes<double>(n) +
                    3 * Scratch::bytes<Tile<Sample>>(tile_size) + 2 * Scratch::bytes<double>(history));
    if (!scratch) return false;
    double *b = scratch.take<double>(state), *a = scratch.take<double>(state), *v = scratch.take<double>(state);
    double *gb = scratch.take<double>(state), *ga = scratch.take<double>(state);
    double *one_b = scratch.take<double>(n), *one_a = scratch.take<double>(n), *one_v = scratch.take<double>(n);
    double *one_gb = scratch.take<double>(n), *one_ga = scratch.take<double>(n);

    const Sample *g[lanes], *x[lanes], *y[lanes];
    Sample* gx[lanes];
    double a0[lanes];
    for (int lane = 0; lane < lanes; ++lane) {  // lanes without a row repeat the last one, with a gradient of zero
      const std::int64_t row = first + (lane < used ? lane : used - 1);
      g[lane] = gradient_row(row);
      x[lane] = f_.x.row(f_.batch, row), y[lane] = f_.y.row(f_.batch, row);
      gx[lane] = f_.gx ? f_.gx.row(f_.batch, row) : nullptr;
      a0[lane] = filters_.read_row(row, one_b, one_a);
      read_history(row, one_v);
      for (int k = 0; k <= order_; ++k) b[k * lanes + lane] = one_b[k], a[k * lanes + lane] = one_a[k];
      for (int k = 0; k < order_; ++k) v[k * lanes + lane] = lane < used ? one_v[k] : 0;
    }
    for (std::size_t i = 0; i < state; ++i) gb[i] = ga[i] = 0;

    const bool shared = in_registers && all_the_same(x);
    const int most = shared ? bank_tile_rows : length;

    // Tiles from the end: body(t, count) for the samples [t, t + count), in reverse.
    const auto for_tiles = [&](auto&& body) {
      for (std::int64_t end = f_.samples; end > 0;) {
        const int count = end < most ? static_cast<int>(end) : most;
        body(end -= count, count);
      }
    };
    const auto load_reversed = [&](auto* tile, const Sample* const(&rows)[lanes], std::int64_t step, std::int64_t t,
                                   int count) {
      const Sample* at[lanes];
      for (int lane = 0; lane < lanes; ++lane) at[lane] = rows[lane] + t * step;
      load_tile<true, -tile_rows>(tile, at, step, count);
    };
    const auto load_gradient = [&](auto* tile, std::int64_t t, int count) {
      if (f_.gy) {
        load_reversed(tile, g, f_.gy.step, t, count);
        if (used < lanes) clear_lanes(tile, used, count);
      } else {
        std::memset(static_cast<void*>(tile), 0, sizeof(*tile) * static_cast<std::size_t>(count) * lanes);
      }
    };
    const auto put = [&](std::int64_t t, int count, auto produce) {
      Sample* to[lanes];
      for (int lane = 0; lane < lanes; ++lane) to[lane] = f_.gx ? gx[lane] + t * f_.gx.step : nullptr;
      put_gradient<tile_rows>(to, used, f_.gx.step, count, sums != nullptr ? sums + t : nullptr, produce);
    };

    if (in_registers) {
      auto *g_tile = scratch.take<Tile<Sample>>(tile_size), *x_tile = scratch.take<Tile<Sample>>(tile_size);
      auto* y_tile = scratch.take<Tile<Sample>>(tile_size);
      with_order(order_, [&](auto order) {
        const auto run = [&](auto correlate) {
          for_tiles([&](std::int64_t t, int count) {
            load_gradient(g_tile, t, count);
            if constexpr (correlate.value) load_reversed(y_tile, y, f_.y.step, t, count);
            const auto backward = [&](auto source) {
              backward_tile<order.value, correlate.value, !plain<Sample>>(
                  g_tile, source, OfTile<Tile<Sample>>{y_tile}, count, b, a, v, gb, ga, sums != nullptr,
                  [&](auto produce) { put(t, count, produce); });
            };
            if (correlate.value && shared) {
              alignas(64) double samples[bank_tile_rows];
              read_samples(samples, x[0] + (t + count - 1) * f_.x.step, -f_.x.step, count);
              backward(Shared{samples});
            } else {
              if constexpr (correlate.value) load_reversed(x_tile, x, f_.x.step, t, count);
              backward(OfTile<Tile<Sample>>{x_tile});
            }
          });
        };
        if (correlate_) {
          run(Choice<true>{});
        } else {
          run(Choice<false>{});
        }
      });
    } else {
      double* vs =
          scratch.take<double>(history) + state;  // preceded by the history, the newest last: row −1 − k is v_k
      double* wide = scratch.take<double>(history);
      for (int k = 0; k < order_; ++k) std::memcpy(vs - (k + 1) * lanes, v + k * lanes, sizeof(double) * lanes);
      std::memset(vs - (order_ + 1) * lanes, 0, sizeof(double) * lanes);
      for_tiles([&](std::int64_t t, int count) {
        load_gradient(vs, t, count);
        all_pole_tile(vs, count, f_.a_length - 1, a);
        if (correlate_) {
          load_reversed(wide, x, f_.x.step, t, count);
          correlate_tile(wide, vs, count, order_, gb);
          load_reversed(wide, y, f_.y.step, t, count);
          correlate_tile(wide, vs, count, order_, ga);
        }
        if (f_.gx) {
          fir_tile(vs, wide, count, f_.b_length - 1, b);
          put(t, count, [&](int i) TORCH_IIR_INLINE_LAMBDA { return load_pair(wide + i * lanes); });
        }
        std::memmove(vs - order_ * lanes, vs + (count - order_) * lanes, sizeof(double) * order_ * lanes);
      });
      for (int k = 0; k < order_; ++k) std::memcpy(v + k * lanes, vs - (k + 1) * lanes, sizeof(double) * lanes);
    }

    for (int lane = 0; lane < used; ++lane) {
      for (int k = 0; k <= order_; ++k) {
        one_b[k] = b[k * lanes + lane], one_a[k] = a[k * lanes + lane];
        one_gb[k] = gb[k * lanes + lane], one_ga[k] = ga[k * lanes + lane];
        if (k < order_) one_v[k] = v[k * lanes + lane];
      }
      finish(first + lane, one_b, one_a, a0[lane], one_gb, one_ga, one_v);
    }
    return true;
  }

  bool segments_row(std::int64_t row, double* sums) const {
    bool tables_are_finite = true;
    with_order(order_, [&](auto order) {
      if constexpr (order.value > 0) tables_are_finite = segments<order.value>(row, sums);
    });
    return tables_are_finite || direct_row(row, sums);
  }

  template <int order>
  bool segments(std::int64_t row, double* sums) const {
    double b[order + 1], a[order + 1], v[order], step[order * order] = {}, input[order] = {1};
    Extended carry[order];
    const double a0 = filters_.read_row(row, b, a);
    for (int k = 0; k < order; ++k) {  // v_0 ← g − Σ a_{k+1} v_k, v_k ← v_{k−1}
      step[k] = -a[k + 1];
      if (k > 0) step[k * order + k - 1] = 1;
    }
    SegmentTables<order> tables;
    const int longest = segment_in(f_.samples);
    if (longest > 0 && !tables.build(longest, step, input)) return false;
    read_history(row, v);
    for (int k = 0; k < order; ++k) carry[k] = {v[k], 0};

    constexpr int tile_size = segment_length * lanes, state = (order + 1) * lanes;
    alignas(64) Tile<Sample> g_tile[tile_size], x_tile[tile_size], y_tile[tile_size];
    alignas(64) double lane_b[state], lane_a[state], entry[order * lanes], lane_gb[state] = {}, lane_ga[state] = {};
    for (int k = 0; k <= order; ++k) {
      for (int lane = 0; lane < lanes; ++lane) lane_b[k * lanes + lane] = b[k], lane_a[k * lanes + lane] = a[k];
    }
    const Sample *g = gradient_row(row), *x = f_.x.row(f_.batch, row), *y = f_.y.row(f_.batch, row);
    const InputGradient<Sample, double> gx = input_gradient(row, sums);
    std::int64_t left = f_.samples;
    while (const int count = segment_in(left)) {
      const Sample* rows[lanes];
      const auto segments_of = [&](const Sample* signal, std::int64_t signal_step) {  // lane 0 is the last in time
        for (int lane = 0; lane < lanes; ++lane) rows[lane] = signal + (left - (lane + 1) * count) * signal_step;
      };
      if (g != nullptr) {
        segments_of(g, f_.gy.step);
        load_segments<true, segment_length>(g_tile, rows, f_.gy.step, count, tables, entry);
      } else {
        std::memset(static_cast<void*>(g_tile), 0, sizeof(g_tile));
        std::memset(entry, 0, sizeof(entry));
      }
      scan_segments<order>(tables.power_of(count), carry, entry);
      if (correlate_) {
        segments_of(x, f_.x.step);
        load_tile<true, -next_tile(segment_length)>(x_tile, rows, f_.x.step, count);
        segments_of(y, f_.y.step);
        load_tile<true, -next_tile(segment_length)>(y_tile, rows, f_.y.step, count);
      }
      const auto put = [&](auto produce) {
        if (gx.rows != nullptr) {
          Sample* to[lanes];
          for (int lane = 0; lane < lanes; ++lane) to[lane] = gx.rows + (left - (lane + 1) * count) * gx.step;
          return store_rows<true, -next_tile(segment_length)>(to, lanes, gx.step, count, produce);
        }
        for (int i = 0; i < count; ++i) {
          alignas(64) double values[lanes];
          store_pair(values, produce(i));
          if (sums == nullptr) continue;
          for (int lane = 0; lane < lanes; ++lane) sums[left - lane * count - 1 - i] += values[lane];
        }
      };
      const auto run = [&](auto correlate) {
        backward_tile<order, correlate.value, !plain<Sample>>(g_tile, OfTile<Tile<Sample>>{x_tile},
                                                              OfTile<Tile<Sample>>{y_tile}, count, lane_b, lane_a,
                                                              entry, lane_gb, lane_ga, sums != nullptr, put);
      };
      if (correlate_) {
        run(Choice<true>{});
      } else {
        run(Choice<false>{});
      }
      left -= lanes * count;
    }
    for (int k = 0; k < order; ++k) v[k] = carry[k].high + carry[k].low;
    double gb[order + 1], ga[order + 1], window[order + direct_window];
    for (int k = 0; k <= order; ++k) {
      gb[k] = sum(load_doubles(lane_gb + k * lanes) + load_doubles(lane_gb + k * lanes + width));
      ga[k] = sum(load_doubles(lane_ga + k * lanes) + load_doubles(lane_ga + k * lanes + width));
    }
    direct_backward(g, f_.gy.step, x, f_.x.step, y, f_.y.step, left, order, b, a, v, correlate_ ? gb : nullptr, ga, gx,
                    window);
    finish(row, b, a, a0, gb, ga, v);
    return true;
  }

  // Chunks from the end, in reverse: v by blocks of its recurrence, then gx and the correlations from v.
  bool blocks_row(std::int64_t row, double* sums) const {
    const int b_order = f_.b_length - 1, a_order = f_.a_length - 1, start = block_history(order_);
    const std::size_t n = static_cast<std::size_t>(order_) + 1, buffer = static_cast<std::size_t>(start) + chunk;
    Scratch scratch(5 * Scratch::bytes<double>(n) + Scratch::bytes<double>(n + direct_window) +
                    3 * Scratch::bytes<double>(buffer) + Scratch::bytes<double>(block_table_size(0, a_order)) +
                    Scratch::bytes<double>(block_table_size(b_order, 0)));
    if (!scratch) return false;
    double *b = scratch.take<double>(n), *a = scratch.take<double>(n), *v = scratch.take<double>(n);
    double *gb = scratch.take<double>(n), *ga = scratch.take<double>(n),
           *window = scratch.take<double>(n + direct_window);
    double *vs = scratch.take<double>(buffer) + start, *in = scratch.take<double>(buffer),
           *out = scratch.take<double>(buffer);
    double *poles = scratch.take<double>(block_table_size(0, a_order)),
           *zeros = scratch.take<double>(block_table_size(b_order, 0));
    const double a0 = filters_.read_row(row, b, a);
    read_history(row, v);
    double h[block];
    const double one = 1;
    build_block_tables(&one, 0, a, a_order, poles, h);
    if (!blocks_are_sound(poles, 0, a, a_order)) return direct_row(row, sums);
    build_block_tables(b, b_order, &one, 0, zeros, h);
    for (std::size_t k = 0; k < n; ++k) gb[k] = ga[k] = 0;
    std::memset(vs - start, 0, sizeof(double) * start);
    for (int k = 0; k < order_; ++k) vs[-1 - k] = v[k];

    const Sample *g = gradient_row(row), *x = f_.x.row(f_.batch, row), *y = f_.y.row(f_.batch, row);
    const InputGradient<Sample, double> gx = input_gradient(row, sums);
    std::int64_t left = f_.samples;
    while (left >= block) {
      const int count = left >= chunk ? chunk : static_cast<int>(left / block * block);
      const auto read_from = [&](const Sample* signal, std::int64_t step) {
        read_samples(in, signal + (left - 1) * step, -step, count);
      };
      if (g != nullptr) {
        read_from(g, f_.gy.step);
      } else {
        std::memset(in, 0, sizeof(double) * count);
      }
      filter_blocks(in, vs, count, 0, a_order, poles, nullptr);
      if (gx) filter_blocks(vs, out, count, b_order, 0, zeros, nullptr);
      if (!finite(vs, count) || (gx && !finite(out, count))) break;  // the direct form takes over
      if (gx.rows != nullptr) {
        write_samples(gx.rows + (left - 1) * gx.step, -gx.step, out, count);
      } else if (gx) {
        for (int i = 0; i < count; ++i) gx.put(left - 1 - i, out[i]);
      }
      if (correlate_) {
        read_from(x, f_.x.step);
        correlate(in, vs, count, order_, gb);
        read_from(y, f_.y.step);
        correlate(in, vs, count, order_, ga);
      }
      std::memmove(vs - order_, vs + count - order_, sizeof(double) * order_);
      left -= count;
    }
    for (int k = 0; k < order_; ++k) v[k] = vs[-1 - k];
    direct_backward(g, f_.gy.step, x, f_.x.step, y, f_.y.step, left, order_, b, a, v, correlate_ ? gb : nullptr, ga, gx,
                    window);
    finish(row, b, a, a0, gb, ga, v);
    return true;
  }

  LFilterBackward<Sample, State> f_;
  Filters<State> filters_;
  int order_;
  bool correlate_;
  Algorithm algorithm_ = Algorithm::direct;
  std::int64_t sharing_ = 1;  // rows with one input's gradient
  State* totals_ = nullptr;
};

// ---- entry points --------------------------------------------------------------------------------------------

int order_of(int b_length, int a_length) { return (b_length > a_length ? b_length : a_length) - 1; }

template <class Sample>
Status forward(const LFilter<Sample>& f, Algorithm algorithm, const Context& context) {
  return Forward<Sample, double>(f, order_of(f.b_length, f.a_length), context).run(algorithm);
}
template <class Sample>
Status backward(const LFilterBackward<Sample>& f, Algorithm algorithm, const Context& context) {
  return Backward<Sample, double>(f, order_of(f.b_length, f.a_length)).run(algorithm, context);
}

}  // namespace

Status lfilter(const LFilter<float>& f, Algorithm algorithm, const Context& context) noexcept {
  return forward(f, algorithm, context);
}
Status lfilter(const LFilter<double>& f, Algorithm algorithm, const Context& context) noexcept {
  return forward(f, algorithm, context);
}
Status lfilter(const LFilter<Half>& f, Algorithm algorithm, const Context& context) noexcept {
  return forward(f, algorithm, context);
}
Status lfilter(const LFilter<BFloat16>& f, Algorithm algorithm, const Context& context) noexcept {
  return forward(f, algorithm, context);
}
Status lfilter(const LFilter<std::complex<double>, std::complex<double>>& f, Algorithm algorithm,
               const Context& context) noexcept {
  LFilter<Complex, Complex> g{f.batch,         f.samples,       f.b_length,       f.a_length,      as_complex(f.x),
                              as_complex(f.b), as_complex(f.a), as_complex(f.zi), as_complex(f.y), as_complex(f.zf)};
  return Forward<Complex, Complex>(g, order_of(f.b_length, f.a_length), context).run(algorithm);
}

Status lfilter_backward(const LFilterBackward<float>& f, Algorithm algorithm, const Context& context) noexcept {
  return backward(f, algorithm, context);
}
Status lfilter_backward(const LFilterBackward<double>& f, Algorithm algorithm, const Context& context) noexcept {
  return backward(f, algorithm, context);
}
Status lfilter_backward(const LFilterBackward<Half>& f, Algorithm algorithm, const Context& context) noexcept {
  return backward(f, algorithm, context);
}
Status lfilter_backward(const LFilterBackward<BFloat16>& f, Algorithm algorithm, const Context& context) noexcept {
  return backward(f, algorithm, context);
}
Status lfilter_backward(const LFilterBackward<std::complex<double>, std::complex<double>>& f, Algorithm algorithm,
                        const Context& context) noexcept {
  LFilterBackward<Complex, Complex> g{f.batch,          f.samples,         f.b_length,       f.a_length,
                                      as_complex(f.gy), as_complex(f.gzf), as_complex(f.x),  as_complex(f.y),
                                      as_complex(f.b),  as_complex(f.a),   as_complex(f.gx), as_complex(f.gb),
                                      as_complex(f.ga), as_complex(f.gzi)};
  return Backward<Complex, Complex>(g, order_of(f.b_length, f.a_length)).run(algorithm, context);
}

}  // namespace torch_iir::TORCH_IIR_ISA
