// sosfilt and its gradient: reads the parameters, chooses the algorithm, runs it over the rows.
#include "torch_iir/sosfilt.h"

#include <type_traits>

#include "lfilter_direct.h"
#include "rows.h"
#include "scratch.h"
#include "simd.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

inline constexpr int order = 2;      // of a section
inline constexpr int stretch = 512;  // samples for which the signals between the sections are kept at a time

// The coefficients of a section divided by its a0.
template <class State>
struct Section {
  State b[order + 1], a[order + 1];
  State a0;
};

template <class State>
struct Cascades {
  const Batch& batch;
  const Sections<const State>& sos;
  int sections;

  void read_row(std::int64_t row, Section<State>* to) const {
    const State* from = sos.row(batch, row);
    for (int s = 0; s < sections; ++s, from += sos.section) {
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
        if (from[s * sos.section + (order + 1) * sos.step] == State(0)) return true;
      }
    }
    return false;
  }
};

// A row's states, z[s * order + k], from and to where they are kept. Null: zero, not wanted.
template <class State>
void read_states(const Batch& batch, const Sections<const State>& states, std::int64_t row, int sections, State* z) {
  const State* from = states ? states.row(batch, row) : nullptr;
  for (int s = 0; s < sections; ++s) {
    for (int k = 0; k < order; ++k)
      z[s * order + k] = from != nullptr ? from[s * states.section + k * states.step] : State(0);
  }
}
template <class State>
void write_states(const Batch& batch, const Sections<State>& states, std::int64_t row, int sections, const State* z) {
  if (!states) return;
  State* to = states.row(batch, row);
  for (int s = 0; s < sections; ++s) {
    for (int k = 0; k < order; ++k) to[s * states.section + k * states.step] = z[s * order + k];
  }
}

// ---- forward -------------------------------------------------------------------------------------------------

template <class Sample, class State>
class Forward {
 public:
  explicit Forward(const SOSFilt<Sample, State>& f) : f_(f), cascades_{f.batch, f.sos, f.sections} {}

  Status run(Algorithm algorithm, const ParallelFor& parallel_for) {
    const std::int64_t rows = f_.batch.rows();
    if (rows == 0) return Status::ok;
    if (cascades_.some_a0_is_zero()) return Status::zero_a0;
    if (algorithm == Algorithm::automatic) algorithm = Algorithm::direct;
    if (algorithm != Algorithm::direct) return Status::unsupported;
    int failed = 0;
    auto body = [&](std::int64_t first, std::int64_t last) {
      const FlushToZero flush;
      for (std::int64_t row = first; row < last; ++row) {
        if (!direct_row(row)) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
      }
    };
    parallel(parallel_for, rows, grain_for(f_.samples * f_.sections), body);
    return failed != 0 ? Status::out_of_memory : Status::ok;
  }

 private:
  bool direct_row(std::int64_t row) const {
    const auto sections = static_cast<std::size_t>(f_.sections);
    Scratch scratch(Scratch::bytes<Section<State>>(sections) + Scratch::bytes<State>(order * sections) +
                    Scratch::bytes<State>(stretch));
    if (!scratch) return false;
    auto* section = scratch.take<Section<State>>(sections);
    State *z = scratch.take<State>(order * sections), *u = scratch.take<State>(stretch);
    cascades_.read_row(row, section);
    read_states(f_.batch, f_.zi, row, f_.sections, z);
    const Sample* x = f_.x.row(f_.batch, row);
    Sample* y = f_.y.row(f_.batch, row);
    for (std::int64_t t = 0; t < f_.samples; t += stretch) {
      const int count = f_.samples - t < stretch ? static_cast<int>(f_.samples - t) : stretch;
      read_samples(u, x + t * f_.x.step, f_.x.step, count);
      for (int s = 0; s < f_.sections; ++s) {
        direct_filter(u, 1, u, 1, count, order, section[s].b, section[s].a, z + s * order);
      }
      write_samples(y + t * f_.y.step, f_.y.step, u, count);
    }
    write_states(f_.batch, f_.zf, row, f_.sections, z);
    return true;
  }

  const SOSFilt<Sample, State>& f_;
  Cascades<State> cascades_;
};

// ---- backward ------------------------------------------------------------------------------------------------

template <class Sample, class State>
class Backward {
 public:
  explicit Backward(const SOSFiltBackward<Sample, State>& f)
      : f_(f),
        cascades_{f_.batch, f_.sos, f.sections},
        totals_per_row_((6 + order) * static_cast<std::size_t>(f.sections)) {
    sharing_ = share_input(f_.batch, f_.gx,
                           {f_.gy.stride, f_.gzf.stride, f_.x.stride, f_.sos.stride, f_.zi.stride, f_.gsos.stride,
                            f_.gzi.stride, f_.gx.stride});
  }

  Status run(Algorithm algorithm, const ParallelFor& parallel_for) {
    const std::int64_t rows = f_.batch.rows();
    clear_sections(f_.gsos, 6);
    clear_sections(f_.gzi, order);
    if (rows == 0) {
      clear(f_.batch, f_.gx, f_.samples);
      return Status::ok;
    }
    if (cascades_.some_a0_is_zero()) return Status::zero_a0;
    if (algorithm == Algorithm::automatic) algorithm = Algorithm::direct;
    if (algorithm != Algorithm::direct) return Status::unsupported;

    Scratch totals(Scratch::bytes<State>(static_cast<std::size_t>(rows) * totals_per_row_));
    if (!totals) return Status::out_of_memory;
    totals_ = totals.template take<State>(static_cast<std::size_t>(rows) * totals_per_row_);
    int failed = 0;
    auto body = [&](std::int64_t first, std::int64_t last) {
      const FlushToZero flush;
      for (std::int64_t i = first; i < last; ++i) {
        if (!task(i * sharing_)) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
      }
    };
    parallel(parallel_for, rows / sharing_, grain_for(f_.samples * f_.sections * sharing_), body);
    if (failed != 0) return Status::out_of_memory;
    for (std::int64_t row = 0; row < rows; ++row) add_up(row);  // in this order, whatever the threads: the same bits
    return Status::ok;
  }

 private:
  void clear_sections(Sections<State> values, int length) const {
    for (int s = 0; values && s < f_.sections; ++s) {
      clear(f_.batch, values, length);
      values.data += values.section;
    }
  }
  State* totals_of(std::int64_t row) const { return totals_ + static_cast<std::size_t>(row) * totals_per_row_; }

  void add_up(std::int64_t row) const {
    const State* from = totals_of(row);
    const auto add = [&](const Sections<State>& gradient, int length) {
      State* to = gradient ? gradient.row(f_.batch, row) : nullptr;
      for (int s = 0; s < f_.sections; ++s, from += length) {
        for (int k = 0; to != nullptr && k < length; ++k) to[s * gradient.section + k * gradient.step] += from[k];
      }
    };
    add(f_.gsos, 6);
    add(f_.gzi, order);
  }

  // From the gradients of a normalised section (ga without its sign) to those of the given one: b/a0 and a/a0 depend on
  // a0, too.
  static void finish(const Section<State>& section, const State* gb, const State* ga, State* to) {
    const State scale = State(1) / conjugate(section.a0);
    State of_a0(0);
    for (int k = 0; k <= order; ++k) {
      to[k] = gb[k] * scale;
      of_a0 -= gb[k] * conjugate(section.b[k]);
      if (k == 0) continue;
      to[order + 1 + k] = -ga[k] * scale;
      of_a0 += ga[k] * conjugate(section.a[k]);
    }
    to[order + 1] = of_a0 * scale;
  }

  // The rows from `first` that share one gradient of the input.
  bool task(std::int64_t first) const {
    const std::size_t shared = sharing_ > 1 ? static_cast<std::size_t>(f_.samples) : 0;
    Scratch scratch(Scratch::bytes<State>(shared));
    if (!scratch) return false;
    State* const sums = sharing_ > 1 ? scratch.take<State>(shared) : nullptr;
    for (std::int64_t t = 0; sums != nullptr && t < f_.samples; ++t) sums[t] = State(0);
    for (std::int64_t row = first; row < first + sharing_; ++row) {
      if (!direct_row(row, sums)) return false;
    }
    if (sums != nullptr) write_samples_of(f_.gx.row(f_.batch, first), sums);
    return true;
  }
  void write_samples_of(Sample* to, const State* from) const {
    for (std::int64_t t = 0; t < f_.samples; ++t) write(to[t * f_.gx.step], from[t]);
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
    const auto run_stretch = [&](std::size_t i, State* z) {
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
    for (std::size_t i = 0; i + 1 < stretches; ++i) {
      State* z = states + i * order * sections;
      for (std::size_t k = 0; k < order * sections; ++k) z[order * sections + k] = z[k];
      run_stretch(i, z + order * sections);
    }
    for (std::size_t i = stretches; i-- > 0;) {
      const int count = run_stretch(i, states + i * order * sections);
      const std::int64_t t = static_cast<std::int64_t>(i) * stretch;
      if (f_.gy) {
        read_samples(g, f_.gy.row(f_.batch, row) + t * f_.gy.step, f_.gy.step, count);
      } else {
        for (int k = 0; k < count; ++k) g[k] = State(0);
      }
      for (int s = f_.sections - 1; s >= 0; --s) {
        const InputGradient<State, State> to{g, 1, nullptr};
        const State *in = u + s * stretch, *out = in + stretch;
        direct_backward<State, State>(g, 1, in, 1, out, 1, count, order, section[s].b, section[s].a, v + s * order,
                                      gb + s * (order + 1), ga + s * (order + 1), to, window);
      }
      if (sums != nullptr) {
        for (int k = 0; k < count; ++k) sums[t + k] += g[k];
      } else if (f_.gx) {
        write_samples(f_.gx.row(f_.batch, row) + t * f_.gx.step, f_.gx.step, g, count);
      }
    }
    State* to = totals_of(row);
    for (int s = 0; s < f_.sections; ++s) finish(section[s], gb + s * (order + 1), ga + s * (order + 1), to + s * 6);
    for (std::size_t k = 0; k < order * sections; ++k) to[6 * sections + k] = v[k];
    return true;
  }

  SOSFiltBackward<Sample, State> f_;
  Cascades<State> cascades_;
  std::size_t totals_per_row_;
  std::int64_t sharing_ = 1;  // rows with one input's gradient
  State* totals_ = nullptr;   // per row: those of sos, then those of zi
};

// ---- entry points --------------------------------------------------------------------------------------------

template <class T>
auto sections_as_complex(const Sections<T>& sections) {
  const auto rows = as_complex(static_cast<const Rows<T>&>(sections));
  using Element = std::remove_reference_t<decltype(*rows.data)>;
  return Sections<Element>{rows, sections.section};
}

}  // namespace

Status sosfilt(const SOSFilt<float>& f, Algorithm algorithm, ParallelFor parallel_for) noexcept {
  return Forward<float, double>(f).run(algorithm, parallel_for);
}
Status sosfilt(const SOSFilt<double>& f, Algorithm algorithm, ParallelFor parallel_for) noexcept {
  return Forward<double, double>(f).run(algorithm, parallel_for);
}
Status sosfilt(const SOSFilt<Half>& f, Algorithm algorithm, ParallelFor parallel_for) noexcept {
  return Forward<Half, double>(f).run(algorithm, parallel_for);
}
Status sosfilt(const SOSFilt<BFloat16>& f, Algorithm algorithm, ParallelFor parallel_for) noexcept {
  return Forward<BFloat16, double>(f).run(algorithm, parallel_for);
}
Status sosfilt(const SOSFilt<std::complex<double>, std::complex<double>>& f, Algorithm algorithm,
               ParallelFor parallel_for) noexcept {
  const SOSFilt<Complex, Complex> g{f.batch,
                                    f.samples,
                                    f.sections,
                                    as_complex(f.x),
                                    sections_as_complex(f.sos),
                                    sections_as_complex(f.zi),
                                    as_complex(f.y),
                                    sections_as_complex(f.zf)};
  return Forward<Complex, Complex>(g).run(algorithm, parallel_for);
}

Status sosfilt_backward(const SOSFiltBackward<float>& f, Algorithm algorithm, ParallelFor parallel_for) noexcept {
  return Backward<float, double>(f).run(algorithm, parallel_for);
}
Status sosfilt_backward(const SOSFiltBackward<double>& f, Algorithm algorithm, ParallelFor parallel_for) noexcept {
  return Backward<double, double>(f).run(algorithm, parallel_for);
}
Status sosfilt_backward(const SOSFiltBackward<Half>& f, Algorithm algorithm, ParallelFor parallel_for) noexcept {
  return Backward<Half, double>(f).run(algorithm, parallel_for);
}
Status sosfilt_backward(const SOSFiltBackward<BFloat16>& f, Algorithm algorithm, ParallelFor parallel_for) noexcept {
  return Backward<BFloat16, double>(f).run(algorithm, parallel_for);
}
Status sosfilt_backward(const SOSFiltBackward<std::complex<double>, std::complex<double>>& f, Algorithm algorithm,
                        ParallelFor parallel_for) noexcept {
  const SOSFiltBackward<Complex, Complex> g{f.batch,
                                            f.samples,
                                            f.sections,
                                            as_complex(f.gy),
                                            sections_as_complex(f.gzf),
                                            as_complex(f.x),
                                            sections_as_complex(f.sos),
                                            sections_as_complex(f.zi),
                                            as_complex(f.gx),
                                            sections_as_complex(f.gsos),
                                            sections_as_complex(f.gzi)};
  return Backward<Complex, Complex>(g).run(algorithm, parallel_for);
}

}  // namespace torch_iir::TORCH_IIR_ISA
