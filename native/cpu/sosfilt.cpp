// sosfilt and its gradient: reads the parameters, chooses the algorithm, runs it over the rows.
#include "torch_iir/sosfilt.h"

#include <type_traits>

#include "lfilter_direct.h"
#include "lfilter_segments.h"
#include "lfilter_tiles.h"
#include "rows.h"
#include "scratch.h"
#include "simd.h"
#include "sosfilt_wavefront.h"
#include "torch_iir/lfilter.h"

namespace torch_iir::TORCH_IIR_ISA {

// A single section is a filter of order 2: lfilter.cpp.
Status lfilter(const LFilter<float>&, Algorithm, const Context&) noexcept;
Status lfilter(const LFilter<double>&, Algorithm, const Context&) noexcept;
Status lfilter(const LFilter<Half>&, Algorithm, const Context&) noexcept;
Status lfilter(const LFilter<BFloat16>&, Algorithm, const Context&) noexcept;

namespace {

inline constexpr int order = 2;           // of a section
inline constexpr int coefficients = 6;    // of a section
inline constexpr int stretch = 512;       // samples of a row between which its states are looked at
inline constexpr int tile_rows = 64;      // the same for rows in lanes
inline constexpr int ahead_in_rows = 64;  // samples by which rows are fetched into the cache

// The coefficients of a section divided by its a0.
template <class State>
struct Section {
  State b[order + 1], a[order + 1];
  State a0;
};

template <class State>
struct Cascades {
  const Batch& batch;
  const Matrices<const State>& sos;
  int sections;

  void read_row(std::int64_t row, Section<State>* to) const {
    const State* from = sos.row(batch, row);
    for (int s = 0; s < sections; ++s, from += sos.down) {
      to[s].a0 = from[(order + 1) * sos.step];
      for (int k = 0; k <= order; ++k) {
        to[s].b[k] = from[k * sos.step] / to[s].a0;
        to[s].a[k] = from[(order + 1 + k) * sos.step] / to[s].a0;
      }
    }
  }

  bool some_a0_is_zero() const {
    const Batch own = distinct(batch, sos);
    const std::int64_t rows = own.rows();
    for (std::int64_t row = 0; row < rows; ++row) {
      const State* from = sos.row(own, row);
      for (int s = 0; s < sections; ++s) {
        if (from[s * sos.down + (order + 1) * sos.step] == State(0)) return true;
      }
    }
    return false;
  }
};

// A row's states, z[(s * order + k) * apart], from and to where they are kept. Null: zero, not wanted.
template <class State>
void read_states(const Batch& batch, const Matrices<const State>& states, std::int64_t row, int sections, State* z,
                 int apart = 1) {
  const State* from = states ? states.row(batch, row) : nullptr;
  for (int s = 0; s < sections; ++s) {
    for (int k = 0; k < order; ++k)
      z[(s * order + k) * apart] = from != nullptr ? from[s * states.down + k * states.step] : State(0);
  }
}
template <class State>
void write_states(const Batch& batch, const Matrices<State>& states, std::int64_t row, int sections, const State* z) {
  if (!states) return;
  State* to = states.row(batch, row);
  for (int s = 0; s < sections; ++s) {
    for (int k = 0; k < order; ++k) to[s * states.down + k * states.step] = z[s * order + k];
  }
}

// The same for states times scale[s * apart].
template <class State>
void read_scaled(const Batch& batch, const Matrices<const State>& states, std::int64_t row, int sections, double* z,
                 const double* scale, int apart) {
  read_states(batch, states, row, sections, z, apart);
  if (!states) return;  // not even −0
  for (int s = 0; s < sections; ++s) {
    for (int k = 0; k < order; ++k) z[(s * order + k) * apart] *= scale[s * apart];
  }
}
template <class State>
void write_scaled(const Batch& batch, const Matrices<State>& states, std::int64_t row, int sections, const double* z,
                  const double* scale, int apart) {
  if (!states) return;
  State* to = states.row(batch, row);
  for (int s = 0; s < sections; ++s) {
    for (int k = 0; k < order; ++k)
      to[s * states.down + k * states.step] = z[(s * order + k) * apart] / scale[s * apart];
  }
}

// Moves the gains b[0] of all sections but the first into the first, where they are numbers that allow it: the others
// then cost a multiplication less. The states of section s are then scale[s] times what they were.
void make_monic(Section<double>* section, int sections, double* scale) {
  constexpr double largest = 0x1p300;  // far from overflow, and its inverse from underflow
  bool possible = true;
  double product = 1;
  for (int s = sections - 1; s > 0; --s) {
    const double gain = section[s].b[0];
    scale[s] = product;
    product *= gain;
    for (const double value : {product, 1 / product, section[s].b[1] / gain, section[s].b[2] / gain})
      possible &= __builtin_fabs(value) < largest;
  }
  scale[0] = product;
  for (int s = 0; s < sections; ++s) {
    if (!possible) {
      scale[s] = 1;
      continue;
    }
    const double gain = section[s].b[0];
    for (int k = 0; k <= order; ++k) section[s].b[k] = s == 0 ? section[s].b[k] * product : section[s].b[k] / gain;
  }
}

template <class State>
bool takes(Algorithm algorithm) {
  if (algorithm == Algorithm::direct) return true;
  return std::is_same_v<State, double> &&
         (algorithm == Algorithm::rows || algorithm == Algorithm::wavefront || algorithm == Algorithm::segments);
}

// ---- rows in lanes -------------------------------------------------------------------------------------------

// A cascade in every lane.
class TileCascade {
 public:
  TileCascade(Scratch& scratch, int sections)
      : section(scratch.take<Section<double>>(sections)),
        scale(scratch.take<double>(sections)),
        sections_(sections),
        b_(scratch.take<double>(static_cast<std::size_t>(sections) * size)),
        a_(scratch.take<double>(static_cast<std::size_t>(sections) * size)),
        monic_(scratch.take<bool>(sections)) {}
  static constexpr std::size_t bytes(std::size_t sections) {
    return Scratch::bytes<Section<double>>(sections) + Scratch::bytes<double>(sections) +
           2 * Scratch::bytes<double>(sections * size) + Scratch::bytes<bool>(sections);
  }

  Section<double>* section;  // of one lane, for set_lane
  double* scale;             // of one lane, for whoever scales the sections

  void set_lane(int lane) {
    for (int s = 0; s < sections_; ++s) {
      for (int k = 0; k <= order; ++k) {
        b_[s * size + k * lanes + lane] = section[s].b[k];
        a_[s * size + k * lanes + lane] = section[s].a[k];
      }
    }
  }
  // To be called when all lanes are set.
  void look_at_gains() {
    for (int s = 0; s < sections_; ++s) {
      monic_[s] = true;
      for (int lane = 0; lane < lanes; ++lane) monic_[s] &= b_of(s)[lane] == 1;
    }
  }
  const double* b_of(int s) const { return b_ + s * size; }
  const double* a_of(int s) const { return a_ + s * size; }

  // A tile through section s, to another tile or in place.
  void filter(int s, const double* from, double* to, int count, double* z) const {
    monic_[s] ? pass(from, to, count, make<true>(s, z)) : pass(from, to, count, make<false>(s, z));
  }
  // In place through section s, and through the next one, too, where that saves the way through memory. Returns through
  // how many.
  int filter_some(int s, double* tile, int count, double* z) const {
    if (s + 1 == sections_ || !monic_[s + 1]) {
      filter(s, tile, tile, count, z);
      return 1;
    }
    monic_[s] ? pass(tile, tile, count, make<true>(s, z), make<true>(s + 1, z))
              : pass(tile, tile, count, make<false>(s, z), make<true>(s + 1, z));
    return 2;
  }

 private:
  // A section with its states, which it writes back.
  template <bool monic>
  struct Stage {
    TileFilter<order, monic> filter;
    double* z;
  };
  template <bool monic>
  TORCH_IIR_INLINE Stage<monic> make(int s, double* z) const {
    double* const own = z + s * order * lanes;
    return {TileFilter<order, monic>(b_of(s), a_of(s), own), own};
  }
  template <class... Stages>
  TORCH_IIR_INLINE static void pass(const double* from, double* to, int count, Stages... stage) {
    for (int t = 0; t < count; ++t) {
      Pair value = load_pair(from + t * lanes);
      ((value = stage.filter.step(value)), ...);
      store_pair(to + t * lanes, value);
    }
    (stage.filter.finish(stage.z), ...);
  }

  static constexpr int size = (order + 1) * lanes;
  int sections_;
  double *b_, *a_;
  bool* monic_;
};

template <class Sample>
void load_tile_or_shared(double* tile, const Sample* const (&rows)[lanes], bool shared, std::int64_t step, int count) {
  if (!shared) return load_tile<false, ahead_in_rows>(tile, rows, step, count);
  for (int t = 0; t < count; ++t) {
    const Doubles value = everywhere(read(rows[0][t * step]));
    store_pair(tile + t * lanes, {value, value});
  }
}

// ---- sections in lanes ---------------------------------------------------------------------------------------

inline constexpr int long_stretch = 1024;  // the pipeline of sections is filled and emptied once in so many samples

template <int depth>
void to_waves(const Section<double>* section, const double* z, int sections, WaveSections<depth>* wave,
              Wave<depth>* states) {
  const int waves = (sections + depth - 1) / depth;
  for (int s = 0; s < waves * depth; ++s) {
    const int w = s / depth, at = s % depth;
    for (int k = 0; k <= order; ++k) {  // what is missing passes its input on
      wave[w].b[k].of(at) = s < sections ? section[s].b[k] : k == 0 ? 1 : 0;
      wave[w].a[k].of(at) = s < sections ? section[s].a[k] : k == 0 ? 1 : 0;
      if (k < order) states[w * order + k].of(at) = s < sections ? z[s * order + k] : 0;
    }
  }
}

// ---- forward -------------------------------------------------------------------------------------------------

template <class Sample, class State>
class Forward {
 public:
  Forward(const SOSFilt<Sample, State>& f, const Context& context)
      : f_(f), context_(context), cascades_{f_.batch, f_.sos, f.sections} {
    share(f_.batch, f_.x, {f_.sos.stride, f_.zi.stride, f_.y.stride, f_.zf.stride, f_.x.stride});
  }

  Status run(Algorithm algorithm) {
    const std::int64_t rows = f_.batch.rows();
    if (rows == 0) return Status::ok;
    if (context_.loads() && cascades_.some_a0_is_zero()) return Status::zero_a0;
    if (algorithm == Algorithm::automatic)
      algorithm = sosfilt_algorithm(rows, f_.samples, f_.sections, std::is_same_v<State, Complex>);
    if (!takes<State>(algorithm)) return Status::unsupported;
    if constexpr (std::is_same_v<State, double>) {
      if (f_.sections == 1 && (algorithm == Algorithm::segments || algorithm == Algorithm::rows))
        return lfilter(as_lfilter(), algorithm, context_);
    }
    const std::int64_t group = algorithm == Algorithm::rows ? lanes : 1;
    return for_groups(context_, rows, group, f_.samples * f_.sections, [&](std::int64_t row, std::int64_t count) {
      if constexpr (std::is_same_v<State, double>) {
        if (algorithm == Algorithm::rows) return group_rows(row, static_cast<int>(count));
        if (algorithm == Algorithm::segments) return segments_row(row);
        if (algorithm == Algorithm::wavefront) return f_.sections <= 4 ? wavefront_row<4>(row) : wavefront_row<8>(row);
      }
      return direct_row(row);
    });
  }

 private:
  // A single section is a filter of order 2.
  LFilter<Sample> as_lfilter() const {
    LFilter<Sample> f;
    f.batch = f_.batch;
    f.samples = f_.samples;
    f.b_length = f.a_length = order + 1;
    f.x = f_.x, f.y = f_.y;
    f.b = f_.sos, f.a = f_.sos;
    f.a.data += (order + 1) * f_.sos.step;
    f.zi = f_.zi, f.zf = f_.zf;
    return f;
  }

  bool direct_row(std::int64_t row) const {
    const auto sections = static_cast<std::size_t>(f_.sections);
    Scratch scratch(Scratch::bytes<Section<State>>(sections) + Scratch::bytes<State>(order * sections) +
                        Scratch::bytes<State>(stretch),
                    context_, row);
    if (!scratch) return false;
    auto* section = scratch.take<Section<State>>(sections);
    State *z = scratch.take<State>(order * sections), *u = scratch.take<State>(stretch);
    if (context_.loads()) {
      cascades_.read_row(row, section);
      read_states(f_.batch, f_.zi, row, f_.sections, z);
    }
    if (context_.runs()) run_direct(f_.x.row(f_.batch, row), f_.y.row(f_.batch, row), f_.samples, section, z, u);
    if (context_.stores()) write_states(f_.batch, f_.zf, row, f_.sections, z);
    return true;
  }
  void run_direct(const Sample* x, Sample* y, std::int64_t samples, const Section<State>* section, State* z,
                  State* u) const {
    for (std::int64_t t = 0; t < samples; t += stretch) {
      const int count = samples - t < stretch ? static_cast<int>(samples - t) : stretch;
      read_samples(u, x + t * f_.x.step, f_.x.step, count);
      for (int s = 0; s < f_.sections; ++s) {
        direct_filter(u, 1, u, 1, count, order, section[s].b, section[s].a, z + s * order);
      }
      write_samples(y + t * f_.y.step, f_.y.step, u, count);
    }
  }

  template <int depth>
  bool wavefront_row(std::int64_t row) const {
    const auto sections = static_cast<std::size_t>(f_.sections), waves = (sections + depth - 1) / depth;
    Scratch scratch(Scratch::bytes<Section<State>>(sections) + Scratch::bytes<State>(order * sections) +
                        Scratch::bytes<WaveSections<depth>>(waves) + Scratch::bytes<Wave<depth>>(order * waves) +
                        Scratch::bytes<double>(long_stretch),
                    context_, row);
    if (!scratch) return false;
    auto* section = scratch.take<Section<State>>(sections);
    State* z = scratch.take<State>(order * sections);
    auto* wave = scratch.take<WaveSections<depth>>(waves);
    auto* states = scratch.take<Wave<depth>>(order * waves);
    double* u = scratch.take<double>(long_stretch);
    if (context_.loads()) {
      cascades_.read_row(row, section);
      read_states(f_.batch, f_.zi, row, f_.sections, z);
      to_waves(section, z, f_.sections, wave, states);
    }
    if (context_.runs()) run_waves(f_.x.row(f_.batch, row), f_.y.row(f_.batch, row), wave, waves, states, u);
    if (!context_.stores()) return true;
    for (int s = 0; s < f_.sections; ++s) {
      for (int k = 0; k < order; ++k) z[s * order + k] = states[s / depth * order + k].of(s % depth);
    }
    write_states(f_.batch, f_.zf, row, f_.sections, z);
    return true;
  }
  template <int depth>
  void run_waves(const Sample* x, Sample* y, const WaveSections<depth>* wave, std::size_t waves, Wave<depth>* states,
                 double* u) const {
    for (std::int64_t t = 0; t < f_.samples; t += long_stretch) {
      const int count = f_.samples - t < long_stretch ? static_cast<int>(f_.samples - t) : long_stretch;
      read_samples(u, x + t * f_.x.step, f_.x.step, count);
      for (std::size_t w = 0; w < waves; ++w) wave_filter<false>(u, u, count, wave[w], states + order * w, nullptr);
      write_samples(y + t * f_.y.step, f_.y.step, u, count);
    }
  }

  // A section of a row that is cut into segments.
  struct SegmentSection {
    alignas(64) double b[(order + 1) * lanes], a[(order + 1) * lanes];  // the same in all lanes
    SegmentTables<order> tables;
    Extended carry[order];
  };

  // Segments in lanes, as in lfilter_segments.h. A tile of them passes through one section after the other.
  bool segments_row(std::int64_t row) const {
    const auto sections = static_cast<std::size_t>(f_.sections);
    Scratch scratch(Scratch::bytes<Section<double>>(sections) + 2 * Scratch::bytes<double>(sections) +
                        Scratch::bytes<double>(order * sections) + Scratch::bytes<SegmentSection>(sections) +
                        Scratch::bytes<double>(stretch) + Scratch::bytes<bool>(1),
                    context_, row);
    if (!scratch) return false;
    auto* section = scratch.take<Section<double>>(sections);
    double *scale = scratch.take<double>(sections), *z = scratch.take<double>(order * sections);
    auto* cut = scratch.take<SegmentSection>(sections);
    double* u = scratch.take<double>(stretch);
    bool& sound = *scratch.take<bool>(1);  // else a section grows so fast that its powers overflow
    if (context_.loads()) {
      cascades_.read_row(row, section);
      make_monic(section, f_.sections, scale);
      read_scaled(f_.batch, f_.zi, row, f_.sections, z, scale, 1);
      // A plan's blocks may have any length.
      const int longest =
          context_.step == Step::everything ? segment_in(f_.samples, cascade_segment_length) : cascade_segment_length;
      sound = cut_sections(section, f_.sections, longest, cut);
    }
    if (context_.runs()) {
      const Sample* x = f_.x.row(f_.batch, row);
      Sample* y = f_.y.row(f_.batch, row);
      const std::int64_t done = sound ? run_segments(x, y, cut, z) : 0;
      run_direct(x + done * f_.x.step, y + done * f_.y.step, f_.samples - done, section, z, u);
    }
    if (context_.stores()) write_scaled(f_.batch, f_.zf, row, f_.sections, z, scale, 1);
    return true;
  }
  // False where a power overflows.
  static bool cut_sections(const Section<double>* section, int sections, int longest, SegmentSection* cut) {
    bool sound = true;
    for (int s = 0; s < sections; ++s) {
      const double *b = section[s].b, *a = section[s].a;
      for (int k = 0; k <= order; ++k) {
        for (int lane = 0; lane < lanes; ++lane) cut[s].b[k * lanes + lane] = b[k], cut[s].a[k * lanes + lane] = a[k];
      }
      if (longest == 0) continue;
      sound &= cut[s].tables.build(longest, {-a[1], 1, -a[2], 0}, {b[1] - a[1] * b[0], b[2] - a[2] * b[0]});
    }
    return sound;
  }
  // As many samples as there are whole segments of, and how many these are; z moves past them.
  std::int64_t run_segments(const Sample* x, Sample* y, SegmentSection* cut, double* z) const {
    std::int64_t done = 0;
    alignas(64) double tile[cascade_segment_length * lanes], ends[order * lanes];
    for (int s = 0; s < f_.sections; ++s) {
      for (int k = 0; k < order; ++k) cut[s].carry[k] = {z[s * order + k], 0};
    }
    while (const int count = segment_in(f_.samples - done, cascade_segment_length)) {
      const Sample* from[lanes];
      Sample* to[lanes];
      for (int lane = 0; lane < lanes; ++lane) {
        from[lane] = x + (done + lane * count) * f_.x.step;
        to[lane] = y + (done + lane * count) * f_.y.step;
      }
      load_segments<false, cascade_segment_length>(tile, from, f_.x.step, count, cut[0].tables, ends);
      for (int s = 0; s < f_.sections; ++s) {
        scan_segments<order>(cut[s].tables.power_of(count), cut[s].carry, ends);
        const SegmentSection* next = s + 1 < f_.sections ? cut + s + 1 : nullptr;
        cut[s].b[0] == 1 ? pass_segments<true>(tile, count, cut[s], next, ends)
                         : pass_segments<false>(tile, count, cut[s], next, ends);
      }
      store_rows<false, next_tile(cascade_segment_length)>(
          to, lanes, f_.y.step, count, [&](int i) TORCH_IIR_INLINE_LAMBDA { return load_pair(tile + i * lanes); });
      done += std::int64_t{lanes} * count;
    }
    for (int s = 0; s < f_.sections; ++s) {
      for (int k = 0; k < order; ++k) z[s * order + k] = cut[s].carry[k].high + cut[s].carry[k].low;
    }
    return done;
  }
  // A tile through a section, whose states at the beginnings are in `ends`; then these are what its outputs leave in
  // the next section at rest.
  template <bool monic>
  static void pass_segments(double* tile, int count, const SegmentSection& section, const SegmentSection* next,
                            double* ends) {
    TileFilter<order, monic, true> filter(section.b, section.a, ends);
    if (next == nullptr) {
      for (int t = 0; t < count; ++t) store_pair(tile + t * lanes, filter.step(load_pair(tile + t * lanes)));
      return;
    }
    SegmentEnds<order> sums(next->tables, count);
    for (int t = 0; t < count; ++t) {
      const Pair value = filter.step(load_pair(tile + t * lanes));
      store_pair(tile + t * lanes, value);
      sums.add(t, value);
    }
    sums.finish(ends);
  }

  // Rows in lanes; the last group may have lanes to spare. A tile passes through one section after the other.
  bool group_rows(std::int64_t first, int used) const {
    const auto sections = static_cast<std::size_t>(f_.sections);
    Scratch scratch(TileCascade::bytes(sections) + Scratch::bytes<double>(order * sections * lanes) +
                        Scratch::bytes<double>(sections * lanes) + Scratch::bytes<double>(tile_rows * lanes),
                    context_, first / lanes);
    if (!scratch) return false;
    TileCascade cascade(scratch, f_.sections);
    double *z = scratch.take<double>(order * sections * lanes), *scale = scratch.take<double>(sections * lanes);
    double* tile = scratch.take<double>(tile_rows * lanes);
    if (context_.loads()) {
      for (int lane = 0; lane < lanes; ++lane) {  // lanes without a row repeat the last one and are not stored
        const std::int64_t row = first + (lane < used ? lane : used - 1);
        cascades_.read_row(row, cascade.section);
        make_monic(cascade.section, f_.sections, cascade.scale);
        cascade.set_lane(lane);
        for (int s = 0; s < f_.sections; ++s) scale[s * lanes + lane] = cascade.scale[s];
        read_scaled(f_.batch, f_.zi, row, f_.sections, z + lane, scale + lane, lanes);
      }
      cascade.look_at_gains();
    }
    if (context_.runs()) run_group(first, used, cascade, z, tile);
    for (int lane = 0; context_.stores() && lane < used; ++lane)
      write_scaled(f_.batch, f_.zf, first + lane, f_.sections, z + lane, scale + lane, lanes);
    return true;
  }
  void run_group(std::int64_t first, int used, const TileCascade& cascade, double* z, double* tile) const {
    const Sample* x[lanes];
    Sample* y[lanes];
    for (int lane = 0; lane < lanes; ++lane) {
      const std::int64_t row = first + (lane < used ? lane : used - 1);
      x[lane] = f_.x.row(f_.batch, row);
      y[lane] = f_.y.row(f_.batch, row);
    }
    const bool shared = all_the_same(x);
    for (std::int64_t t = 0; t < f_.samples; t += tile_rows) {
      const int count = f_.samples - t < tile_rows ? static_cast<int>(f_.samples - t) : tile_rows;
      load_tile_or_shared(tile, x, shared, f_.x.step, count);
      for (int s = 0; s < f_.sections;) s += cascade.filter_some(s, tile, count, z);
      // Not from the last sections' registers: two of them leave none for transposing.
      store_rows<false, ahead_in_rows>(y, used, f_.y.step, count,
                                       [&](int i) TORCH_IIR_INLINE_LAMBDA { return load_pair(tile + i * lanes); });
      for (int lane = 0; lane < lanes; ++lane) x[lane] += count * f_.x.step, y[lane] += count * f_.y.step;
    }
  }

  SOSFilt<Sample, State> f_;
  const Context& context_;
  Cascades<State> cascades_;
};

// ---- backward ------------------------------------------------------------------------------------------------

template <class Sample, class State>
class Backward {
 public:
  explicit Backward(const SOSFiltBackward<Sample, State>& f)
      : f_(f),
        cascades_{f_.batch, f_.sos, f.sections},
        totals_per_row_((coefficients + order) * static_cast<std::size_t>(f.sections)) {
    sharing_ = share(f_.batch, f_.gx,
                     {f_.gy.stride, f_.gzf.stride, f_.x.stride, f_.sos.stride, f_.zi.stride, f_.gsos.stride,
                      f_.gzi.stride, f_.gx.stride});
  }

  Status run(Algorithm algorithm, const ParallelFor& parallel_for) {
    const std::int64_t rows = f_.batch.rows();
    clear_sections(f_.gsos, coefficients);
    clear_sections(f_.gzi, order);
    if (rows == 0) {
      clear(f_.batch, f_.gx, f_.samples);
      return Status::ok;
    }
    if (cascades_.some_a0_is_zero()) return Status::zero_a0;
    if (algorithm == Algorithm::automatic)
      algorithm = sosfilt_algorithm(rows, f_.samples, f_.sections, std::is_same_v<State, Complex>);
    if (!takes<State>(algorithm)) return Status::unsupported;
    algorithm_ = algorithm == Algorithm::segments ? Algorithm::wavefront : algorithm;  // for want of the outputs

    Scratch totals(Scratch::bytes<State>(static_cast<std::size_t>(rows) * totals_per_row_));
    if (!totals) return Status::out_of_memory;
    totals_ = totals.template take<State>(static_cast<std::size_t>(rows) * totals_per_row_);
    // A task is a run of rows that no other task shares an input's gradient with.
    const std::int64_t group = sharing_ == 1 && algorithm == Algorithm::rows ? lanes : sharing_;
    const Status status = for_groups(parallel_for, rows, group, f_.samples * f_.sections,
                                     [&](std::int64_t first, std::int64_t count) { return task(first, count); });
    if (status != Status::ok) return status;
    for (std::int64_t row = 0; row < rows; ++row) add_up(row);  // in this order, whatever the threads: the same bits
    return Status::ok;
  }

 private:
  void clear_sections(Matrices<State> values, int length) const {
    for (int s = 0; values && s < f_.sections; ++s) {
      clear(f_.batch, values, length);
      values.data += values.down;
    }
  }
  State* totals_of(std::int64_t row) const { return totals_ + static_cast<std::size_t>(row) * totals_per_row_; }

  void add_up(std::int64_t row) const {
    const State* from = totals_of(row);
    const auto add = [&](const Matrices<State>& gradient, int length) {
      State* to = gradient ? gradient.row(f_.batch, row) : nullptr;
      for (int s = 0; s < f_.sections; ++s, from += length) {
        for (int k = 0; to != nullptr && k < length; ++k) to[s * gradient.down + k * gradient.step] += from[k];
      }
    };
    add(f_.gsos, coefficients);
    add(f_.gzi, order);
  }

  // A section's totals from the gradients of its normalised coefficients.
  static void finish(const Section<State>& section, const State* gb, const State* ga, State* to) {
    finish_gradients(order, section.b, section.a, section.a0, gb, ga, to, to + order + 1);
  }

  // Rows [first, first + count): they share one gradient of the input, or none of them shares.
  bool task(std::int64_t first, std::int64_t count) const {
    const std::int64_t at_once = algorithm_ == Algorithm::rows ? lanes : 1;
    return with_shared_gradient<State>(f_.batch, f_.gx, f_.samples, sharing_ > 1, first, count, at_once,
                                       [&](std::int64_t row, std::int64_t rows, State* sums) {
                                         if constexpr (std::is_same_v<State, double>) {
                                           if (algorithm_ == Algorithm::rows)
                                             return group_rows(row, static_cast<int>(rows), sums);
                                           if (algorithm_ == Algorithm::wavefront)
                                             return f_.sections <= 4 ? wavefront_row<4>(row, sums)
                                                                     : wavefront_row<8>(row, sums);
                                         }
                                         return direct_row(row, sums);
                                       });
  }

  // The way there and back through `stretches` of time. run(i, z, keep) filters stretch i on from states z, and keeps
  // the signals between the sections if told so; back(i, count) goes back through its `count` samples. `states`, `size`
  // of them for each stretch, begin with the initial ones; the first pass fills in those of the others.
  template <class States, class Run, class Back>
  static void there_and_back(std::size_t stretches, States* states, std::size_t size, Run run, Back back) {
    for (std::size_t i = 0; i + 1 < stretches; ++i) {
      States *z = states + i * size, *next = z + size;
      for (std::size_t k = 0; k < size; ++k) next[k] = z[k];
      run(i, next, Choice<false>{});
    }
    for (std::size_t i = stretches; i-- > 0;) back(i, run(i, states + i * size, Choice<true>{}));
  }

  void read_gradient(std::int64_t row, std::int64_t t, int count, State* g) const {
    if (f_.gy) {
      read_samples(g, f_.gy.row(f_.batch, row) + t * f_.gy.step, f_.gy.step, count);
    } else {
      for (int k = 0; k < count; ++k) g[k] = State(0);
    }
  }
  void put_gradient_of_row(std::int64_t row, std::int64_t t, int count, const State* g, State* sums) const {
    if (sums != nullptr) {
      for (int k = 0; k < count; ++k) sums[t + k] += g[k];
    } else if (f_.gx) {
      write_samples(f_.gx.row(f_.batch, row) + t * f_.gx.step, f_.gx.step, g, count);
    }
  }

  bool direct_row(std::int64_t row, State* sums) const {
    const auto sections = static_cast<std::size_t>(f_.sections);
    const auto stretches = static_cast<std::size_t>((f_.samples + stretch - 1) / stretch);
    Scratch scratch(Scratch::bytes<Section<State>>(sections) +
                    Scratch::bytes<State>(order * sections * (stretches + 1)) +
                    Scratch::bytes<State>(stretch * (sections + 2)) +
                    3 * Scratch::bytes<State>((order + 1) * sections) + Scratch::bytes<State>(order + direct_window));
    if (!scratch) return false;
    auto* section = scratch.take<Section<State>>(sections);
    State* states = scratch.take<State>(order * sections * (stretches + 1));  // at the beginning of each stretch
    State* u = scratch.take<State>(stretch * (sections + 2));                 // u_s at u + s * stretch, then v
    State *gb = scratch.take<State>((order + 1) * sections), *ga = scratch.take<State>((order + 1) * sections);
    State *v = scratch.take<State>((order + 1) * sections), *window = scratch.take<State>(order + direct_window);
    State* g = u + (sections + 1) * stretch;
    cascades_.read_row(row, section);
    for (std::size_t i = 0; i < (order + 1) * sections; ++i) gb[i] = ga[i] = State(0);
    read_states(f_.batch, f_.gzf, row, f_.sections, v);

    const Sample* x = f_.x.row(f_.batch, row);
    const auto run_stretch = [&](std::size_t i, State* z, auto) {
      const std::int64_t t = static_cast<std::int64_t>(i) * stretch, left = f_.samples - t;
      const int count = left < stretch ? static_cast<int>(left) : stretch;
      read_samples(u, x + t * f_.x.step, f_.x.step, count);
      for (int s = 0; s < f_.sections; ++s) {
        direct_filter(u + s * stretch, 1, u + (s + 1) * stretch, 1, count, order, section[s].b, section[s].a,
                      z + s * order);
      }
      return count;
    };
    read_states(f_.batch, f_.zi, row, f_.sections, states);
    there_and_back(stretches, states, order * sections, run_stretch, [&](std::size_t i, int count) {
      const std::int64_t t = static_cast<std::int64_t>(i) * stretch;
      read_gradient(row, t, count, g);
      for (int s = f_.sections - 1; s >= 0; --s) {
        const InputGradient<State, State> to{g, 1, nullptr};
        const State *in = u + s * stretch, *out = in + stretch;
        direct_backward<State, State>(g, 1, in, 1, out, 1, count, order, section[s].b, section[s].a, v + s * order,
                                      gb + s * (order + 1), ga + s * (order + 1), to, window);
      }
      put_gradient_of_row(row, t, count, g, sums);
    });
    State* to = totals_of(row);
    for (int s = 0; s < f_.sections; ++s)
      finish(section[s], gb + s * (order + 1), ga + s * (order + 1), to + s * coefficients);
    for (std::size_t k = 0; k < order * sections; ++k) to[coefficients * sections + k] = v[k];
    return true;
  }

  template <int depth>
  bool wavefront_row(std::int64_t row, double* sums) const {
    const auto sections = static_cast<std::size_t>(f_.sections), waves = (sections + depth - 1) / depth;
    const auto stretches = static_cast<std::size_t>((f_.samples + stretch - 1) / stretch);
    const std::size_t per_wave = 2 * (stretch + fill<depth>)*depth;  // of what is kept
    Scratch scratch(Scratch::bytes<Section<double>>(sections) + Scratch::bytes<double>(order * sections) +
                    Scratch::bytes<WaveSections<depth>>(waves) +
                    Scratch::bytes<Wave<depth>>(order * waves * (stretches + 1)) +
                    Scratch::bytes<Wave<depth>>(order * waves) + 2 * Scratch::bytes<Wave<depth>>((order + 1) * waves) +
                    Scratch::bytes<double>(stretch) + Scratch::bytes<double>(per_wave * waves));
    if (!scratch) return false;
    auto* section = scratch.take<Section<double>>(sections);
    double* z = scratch.take<double>(order * sections);
    auto* wave = scratch.take<WaveSections<depth>>(waves);
    Wave<depth>* states =
        scratch.take<Wave<depth>>(order * waves * (stretches + 1));  // at the beginning of each stretch
    Wave<depth>*v = scratch.take<Wave<depth>>(order * waves), *gb = scratch.take<Wave<depth>>((order + 1) * waves),
    *ga = scratch.take<Wave<depth>>((order + 1) * waves);
    double *u = scratch.take<double>(stretch), *kept = scratch.take<double>(per_wave * waves);
    cascades_.read_row(row, section);
    read_states(f_.batch, f_.gzf, row, f_.sections, z);
    to_waves(section, z, f_.sections, wave, v);
    read_states(f_.batch, f_.zi, row, f_.sections, z);
    to_waves(section, z, f_.sections, wave, states);
    for (std::size_t i = 0; i < (order + 1) * waves; ++i) gb[i] = ga[i] = Wave<depth>{};

    const Sample* x = f_.x.row(f_.batch, row);
    const auto run_stretch = [&](std::size_t i, Wave<depth>* z, auto keep) {
      const std::int64_t t = static_cast<std::int64_t>(i) * stretch, left = f_.samples - t;
      const int count = left < stretch ? static_cast<int>(left) : stretch;
      read_samples(u, x + t * f_.x.step, f_.x.step, count);
      for (std::size_t w = 0; w < waves; ++w)
        wave_filter<keep.value>(u, u, count, wave[w], z + order * w, kept + w * per_wave);
      return count;
    };
    there_and_back(stretches, states, order * waves, run_stretch, [&](std::size_t i, int count) {
      const std::int64_t t = static_cast<std::int64_t>(i) * stretch;
      read_gradient(row, t, count, u);
      for (std::size_t w = waves; w-- > 0;)
        wave_backward(u, count, wave[w], kept + w * per_wave, v + order * w, gb + (order + 1) * w,
                      ga + (order + 1) * w);
      put_gradient_of_row(row, t, count, u, sums);
    });
    double* to = totals_of(row);
    for (int s = 0; s < f_.sections; ++s) {
      const int w = s / depth, at = s % depth;
      double one_gb[order + 1], one_ga[order + 1];
      for (int k = 0; k <= order; ++k) {
        one_gb[k] = gb[w * (order + 1) + k].of(at);
        one_ga[k] = ga[w * (order + 1) + k].of(at);
      }
      finish(section[s], one_gb, one_ga, to + s * coefficients);
      for (int k = 0; k < order; ++k) to[coefficients * sections + s * order + k] = v[w * order + k].of(at);
    }
    return true;
  }

  bool group_rows(std::int64_t first, int used, double* sums) const {
    const auto sections = static_cast<std::size_t>(f_.sections);
    const auto tiles = static_cast<std::size_t>((f_.samples + tile_rows - 1) / tile_rows);
    constexpr std::size_t tile_size = tile_rows * lanes;
    const std::size_t per_tile = order * sections * lanes, gradients = (order + 1) * sections * lanes;
    Scratch scratch(TileCascade::bytes(sections) + Scratch::bytes<double>(per_tile * (tiles + 1)) +
                    Scratch::bytes<double>(per_tile) + 2 * Scratch::bytes<double>(gradients) +
                    Scratch::bytes<double>(tile_size * (sections + 2)));
    if (!scratch) return false;
    TileCascade cascade(scratch, f_.sections);
    double* states = scratch.take<double>(per_tile * (tiles + 1));  // at the beginning of each tile
    double* v = scratch.take<double>(per_tile);
    double *gb = scratch.take<double>(gradients), *ga = scratch.take<double>(gradients);
    double* u = scratch.take<double>(tile_size * (sections + 2));  // u_s at u + s * tile_size, then the gradient
    double* g_tile = u + (sections + 1) * tile_size;
    for (std::size_t i = 0; i < gradients; ++i) gb[i] = ga[i] = 0;

    const Sample *g[lanes], *x[lanes];
    Sample* gx[lanes];
    for (int lane = 0; lane < lanes; ++lane) {  // lanes without a row repeat the last one, with a gradient of zero
      const std::int64_t row = first + (lane < used ? lane : used - 1);
      g[lane] = f_.gy ? f_.gy.row(f_.batch, row) : nullptr;
      x[lane] = f_.x.row(f_.batch, row);
      gx[lane] = f_.gx ? f_.gx.row(f_.batch, row) : nullptr;
      cascades_.read_row(row, cascade.section);
      cascade.set_lane(lane);
      read_states(f_.batch, f_.zi, row, f_.sections, states + lane, lanes);
      read_states(f_.batch, f_.gzf, row, f_.sections, v + lane, lanes);
    }
    clear_lanes(v, used, order * f_.sections);
    cascade.look_at_gains();
    const bool shared = all_the_same(x);

    const auto run_tile = [&](std::size_t i, double* z, auto keep) {
      constexpr std::size_t between = keep.value ? tile_size : 0;
      const std::int64_t t = static_cast<std::int64_t>(i) * tile_rows, left = f_.samples - t;
      const int count = left < tile_rows ? static_cast<int>(left) : tile_rows;
      const Sample* at[lanes];
      for (int lane = 0; lane < lanes; ++lane) at[lane] = x[lane] + t * f_.x.step;
      load_tile_or_shared(u, at, shared, f_.x.step, count);
      for (int s = 0; s < f_.sections; ++s) cascade.filter(s, u + s * between, u + (s + 1) * between, count, z);
      return count;
    };
    there_and_back(tiles, states, per_tile, run_tile, [&](std::size_t i, int count) {
      const std::int64_t t = static_cast<std::int64_t>(i) * tile_rows;
      Sample* to[lanes];
      for (int lane = 0; lane < lanes; ++lane) to[lane] = f_.gx ? gx[lane] + t * f_.gx.step : nullptr;
      if (f_.gy) {
        const Sample* at[lanes];
        for (int lane = 0; lane < lanes; ++lane) at[lane] = g[lane] + t * f_.gy.step;
        load_tile<true, -ahead_in_rows>(g_tile, at, f_.gy.step, count);
        if (used < lanes) clear_lanes(g_tile, used, count);
      } else {
        std::memset(g_tile, 0, sizeof(double) * tile_size);
      }
      for (int s = f_.sections - 1; s >= 0; --s) {
        const auto pass = [&](auto correlate) {
          const double* in = u + s * tile_size;
          const int at = s * (order + 1) * lanes;
          backward_in_place<order, correlate.value>(
              g_tile, OfReversedTile<double>{in, count}, OfReversedTile<double>{in + tile_size, count}, count,
              cascade.b_of(s), cascade.a_of(s), v + s * order * lanes, gb + at, ga + at);
        };
        f_.gsos ? pass(Choice<true>{}) : pass(Choice<false>{});
      }
      put_gradient<ahead_in_rows>(to, used, f_.gx.step, count, sums != nullptr ? sums + t : nullptr,
                                  [&](int k) TORCH_IIR_INLINE_LAMBDA { return load_pair(g_tile + k * lanes); });
    });

    for (int lane = 0; lane < used; ++lane) {
      cascades_.read_row(first + lane, cascade.section);
      double* to = totals_of(first + lane);
      for (int s = 0; s < f_.sections; ++s) {
        double one_gb[order + 1], one_ga[order + 1];
        for (int k = 0; k <= order; ++k) {
          one_gb[k] = gb[(s * (order + 1) + k) * lanes + lane];
          one_ga[k] = ga[(s * (order + 1) + k) * lanes + lane];
        }
        finish(cascade.section[s], one_gb, one_ga, to + s * coefficients);
        for (int k = 0; k < order; ++k) to[coefficients * sections + s * order + k] = v[(s * order + k) * lanes + lane];
      }
    }
    return true;
  }

  SOSFiltBackward<Sample, State> f_;
  Cascades<State> cascades_;
  std::size_t totals_per_row_;
  Algorithm algorithm_ = Algorithm::direct;
  std::int64_t sharing_ = 1;  // rows with one input's gradient
  State* totals_ = nullptr;   // per row: those of sos, then those of zi
};

// ---- entry points --------------------------------------------------------------------------------------------

}  // namespace

Status sosfilt(const SOSFilt<float>& f, Algorithm algorithm, const Context& context) noexcept {
  return Forward<float, double>(f, context).run(algorithm);
}
Status sosfilt(const SOSFilt<double>& f, Algorithm algorithm, const Context& context) noexcept {
  return Forward<double, double>(f, context).run(algorithm);
}
Status sosfilt(const SOSFilt<Half>& f, Algorithm algorithm, const Context& context) noexcept {
  return Forward<Half, double>(f, context).run(algorithm);
}
Status sosfilt(const SOSFilt<BFloat16>& f, Algorithm algorithm, const Context& context) noexcept {
  return Forward<BFloat16, double>(f, context).run(algorithm);
}
Status sosfilt(const SOSFilt<std::complex<double>, std::complex<double>>& f, Algorithm algorithm,
               const Context& context) noexcept {
  const SOSFilt<Complex, Complex> g{f.batch,           f.samples,        f.sections,      as_complex(f.x),
                                    as_complex(f.sos), as_complex(f.zi), as_complex(f.y), as_complex(f.zf)};
  return Forward<Complex, Complex>(g, context).run(algorithm);
}

Status sosfilt_backward(const SOSFiltBackward<float>& f, Algorithm algorithm, const Context& context) noexcept {
  return Backward<float, double>(f).run(algorithm, context);
}
Status sosfilt_backward(const SOSFiltBackward<double>& f, Algorithm algorithm, const Context& context) noexcept {
  return Backward<double, double>(f).run(algorithm, context);
}
Status sosfilt_backward(const SOSFiltBackward<Half>& f, Algorithm algorithm, const Context& context) noexcept {
  return Backward<Half, double>(f).run(algorithm, context);
}
Status sosfilt_backward(const SOSFiltBackward<BFloat16>& f, Algorithm algorithm, const Context& context) noexcept {
  return Backward<BFloat16, double>(f).run(algorithm, context);
}
Status sosfilt_backward(const SOSFiltBackward<std::complex<double>, std::complex<double>>& f, Algorithm algorithm,
                        const Context& context) noexcept {
  const SOSFiltBackward<Complex, Complex> g{f.batch,           f.samples,          f.sections,        as_complex(f.gy),
                                            as_complex(f.gzf), as_complex(f.x),    as_complex(f.sos), as_complex(f.zi),
                                            as_complex(f.gx),  as_complex(f.gsos), as_complex(f.gzi)};
  return Backward<Complex, Complex>(g).run(algorithm, context);
}

}  // namespace torch_iir::TORCH_IIR_ISA
