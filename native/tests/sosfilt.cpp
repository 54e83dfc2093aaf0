// sosfilt and sosfilt_backward against a plain reference in long double: every algorithm on every instruction set that
// the machine has, at sizes around every boundary. The kernels for CUDA take the same tests on the emulator, at the
// boundaries that they have, and some of their own.
#include "torch_iir/sosfilt.h"

#include <span>
#include <string>
#include <utility>

#include "check.h"
#include "reference.h"
#include "torch_iir/instruction_sets.h"
#if defined(TORCH_IIR_EMULATED)
#include "emulator/scheduler.h"
#endif

using namespace torch_iir;

namespace {

constexpr int order = 2, coefficients = 6;

// What kernels may treat apart: b[0] and b[2] of the sections.
enum class Zeros {
  anywhere,
  on_circle,  // b[2] = ±b[0]
  monic,      // b[0] = 1, every other one on the circle
  delay,      // b[0] = 0 in every other one
  uneven,     // gains that differ by 50 orders of magnitude, and make up for each other
  extreme,    // by 200
  by_row,     // something else in every row
};

struct Case {
  int rows, samples, sections;
  int signals = 1;  // that each of the rows' cascades is given
  Layout layout = Layout::contiguous;
  Shared shared_x = {}, shared_sos = {}, shared_zi = {};
  bool zi = true, zf = true, gy = true, gzf = true;
  int wanted = 7;  // bits: gx, gsos, gzi
  long double a0 = 1;
  Zeros zeros = Zeros::anywhere;

  std::string text() const {
    const auto shares = [](Shared shared, const char* what) {
      return std::string(what) + (shared.outer ? "o" : "-") + (shared.inner ? "i" : "-");
    };
    return "signals " + std::to_string(signals) + " rows " + std::to_string(rows) + " samples " +
           std::to_string(samples) + " sections " + std::to_string(sections) + " layout " +
           std::to_string(static_cast<int>(layout)) + shares(shared_x, " x ") + shares(shared_sos, " sos ") +
           shares(shared_zi, " zi ") + (zi ? " zi" : "") + (zf ? " zf" : "") + (gy ? " gy" : "") + (gzf ? " gzf" : "") +
           " wanted " + std::to_string(wanted) + " zeros " + std::to_string(static_cast<int>(zeros));
  }
};

constexpr Algorithm on_cpu[] = {Algorithm::direct,   Algorithm::rows,   Algorithm::wavefront,
                                Algorithm::segments, Algorithm::blocks, Algorithm::automatic};
constexpr Algorithm on_cuda[] = {Algorithm::direct,   Algorithm::rows,     Algorithm::clusters,
                                 Algorithm::lookback, Algorithm::segments, Algorithm::automatic};
constexpr std::span<const Algorithm> algorithms = emulated ? on_cuda : on_cpu;

bool has_clusters() {
#if defined(TORCH_IIR_EMULATED)
  return cuda::emulator::machine().clusters;
#else
  return false;
#endif
}

bool takes(Algorithm algorithm, bool complex) {
  if (algorithm == Algorithm::automatic || algorithm == Algorithm::direct) return true;
  if (emulated) {
    return !complex && (algorithm == Algorithm::rows || algorithm == Algorithm::lookback ||
                        (algorithm == Algorithm::clusters && has_clusters()));
  }
  return !complex &&
         (algorithm == Algorithm::rows || algorithm == Algorithm::wavefront || algorithm == Algorithm::segments);
}

// f(algorithm, where) for all that take the filter, on every instruction set.
template <class F>
void for_each_kernel(bool complex, F f) {
  for (const InstructionSet& set : instruction_sets()) {
    if (!set_isa(set.name)) continue;
    for (const Algorithm algorithm : algorithms) {
      if (algorithm == Algorithm::automatic || !takes(algorithm, complex)) continue;
      // To be given one block at a time is a matter of blocks that look at each other alone.
      if (emulated && !has_clusters() && algorithm != Algorithm::lookback) continue;
      f(algorithm, std::string(set.name) + ' ' + algorithm_names[static_cast<int>(algorithm)] + ' ');
    }
  }
}

// --------------------------------------------------------------------------------------------------------- operands

// What a case's operands hold.
template <class Sample>
struct Inputs {
  using E = Exact<Sample>;
  using State = StateOf<E>;

  Case c;
  Grid grid{c.signals, c.rows};
  Block<Sample> x{grid, c.samples, c.layout, c.shared_x}, gy{grid, c.samples, c.layout};
  Block<State> sos{grid, coefficients, c.layout, c.shared_sos, c.sections};
  Block<State> zi{grid, order, c.layout, c.shared_zi, c.sections}, gzf{grid, order, c.layout, {}, c.sections};

  explicit Inputs(const Case& given) : c(given) {
    x.fill([] { return sample<Sample>(random_value<E>()); });
    gy.fill([] { return sample<Sample>(random_value<E>()); });
    zi.fill([] { return static_cast<State>(random_value<E>()); });
    gzf.fill([] { return static_cast<State>(random_value<E>()); });
    for (int row = 0; row < grid.rows(); ++row) {
      for (int s = 0; s < c.sections; ++s) {
        const std::vector<E> section = random_section(row, s);
        for (int k = 0; k < coefficients; ++k)
          sos.at(row, k, s) = static_cast<State>(section[static_cast<std::size_t>(k)]);
      }
    }
  }

  SOSFilt<Sample, State> forward(Block<Sample>& y, Block<State>& zf) {
    SOSFilt<Sample, State> f;
    f.batch = grid.batch();
    f.samples = c.samples;
    f.sections = c.sections;
    f.x = x.input();
    f.sos = sections_in(sos);
    if (c.zi) f.zi = sections_in(zi);
    f.y = y.rows();
    if (c.zf) f.zf = sections(zf);
    return f;
  }
  SOSFiltBackward<Sample, State> backward(Block<Sample>& gx, Block<State>& gsos, Block<State>& gzi) {
    SOSFiltBackward<Sample, State> f;
    f.batch = grid.batch();
    f.samples = c.samples;
    f.sections = c.sections;
    if (c.gy) f.gy = gy.input();
    if (c.gzf) f.gzf = sections_in(gzf);
    f.x = x.input();
    f.sos = sections_in(sos);
    if (c.zi) f.zi = sections_in(zi);
    if ((c.wanted & 1) != 0) f.gx = gx.rows();
    if ((c.wanted & 2) != 0) f.gsos = sections(gsos);
    if ((c.wanted & 4) != 0) f.gzi = sections(gzi);
    return f;
  }

 private:
  // Of gain 1 for white noise, so that signals keep their size through a cascade of any length; but see Zeros.
  std::vector<E> random_section(int row, int s) const {
    const Zeros zeros = c.zeros != Zeros::by_row ? c.zeros : static_cast<Zeros>(row % static_cast<int>(Zeros::by_row));
    const bool odd = s % 2 != 0;
    std::vector<E> b{E(1.5L) + random_value<E>(), random_value<E>(), random_value<E>()};
    std::vector<E> a = denominator<E>(s % 4 == 3 ? 1 : order, c.a0);
    a.resize(order + 1);
    if (zeros == Zeros::delay && odd) b[0] = 0;
    if (zeros == Zeros::monic) b[0] = c.a0;
    if (zeros == Zeros::on_circle || (zeros == Zeros::monic && odd)) b[2] = random_bits() % 2 != 0 ? b[0] : -b[0];
    if (zeros != Zeros::monic) {
      std::vector<E> unit = b, normal = a, impulse(200), z(order);
      normalise(unit, normal);
      impulse[0] = 1;
      long double energy = 0;
      for (const E& value : response(unit, normal, impulse, z)) energy += std::norm(value);
      const long double uneven = zeros == Zeros::uneven ? 1e25L : zeros == Zeros::extreme ? 1e100L : 1;
      for (E& value : b) value = static_cast<State>(value / std::sqrt(energy) * (odd ? uneven : 1 / uneven));
    }
    b.insert(b.end(), a.begin(), a.end());
    return b;
  }
};

template <class Sample>
struct Outputs {
  using State = StateOf<Exact<Sample>>;
  Block<Sample> y, gx;
  Block<State> zf, gsos, gzi;

  explicit Outputs(const Inputs<Sample>& in)
      : y(in.grid, in.c.samples, in.c.layout),
        gx(in.grid, in.c.samples, in.c.layout, in.c.shared_x),
        zf(in.grid, order, in.c.layout, {}, in.c.sections),
        gsos(in.grid, coefficients, in.c.layout, in.c.shared_sos, in.c.sections),
        gzi(in.grid, order, in.c.layout, in.c.shared_zi, in.c.sections) {}

  bool same_bits(const Outputs& other) const {
    return y.same_bits(other.y) && gx.same_bits(other.gx) && zf.same_bits(other.zf) && gsos.same_bits(other.gsos) &&
           gzi.same_bits(other.gzi);
  }
  bool intact() { return y.intact() && gx.intact() && zf.intact() && gsos.intact() && gzi.intact(); }
};

template <class Sample>
void compute(Inputs<Sample>& in, Outputs<Sample>& out, Algorithm algorithm, ParallelFor parallel,
             const std::string& where) {
  CHECK(sosfilt(in.forward(out.y, out.zf), algorithm, parallel) == Status::ok, where);
  CHECK(sosfilt_backward(in.backward(out.gx, out.gsos, out.gzi), algorithm, parallel) == Status::ok, where);
}

// --------------------------------------------------------------------------------------------------------- reference

// Of one row: one section after the other.
template <class E>
struct CascadeReference {
  Bounded<E> y, gx;
  std::vector<Bounded<E>> zf, gsos, gzi;  // by section
};

// Each section adds the errors that it makes by itself, as reference.h bounds them, and the sections behind it (before
// it, on the way back) carry them on: they grow at most by the absolute sum of the impulse response of all of these.
template <class Sample>
CascadeReference<Exact<Sample>> reference_of(Inputs<Sample>& in, int row) {
  using E = Exact<Sample>;
  const Case& c = in.c;
  const auto count = static_cast<std::size_t>(c.sections);
  const std::vector<E> rest(order);
  std::vector<std::vector<E>> b(count), a(count), u{in.x.values(row)};
  std::vector<Reference<E>> own(count);
  for (std::size_t s = 0; s < count; ++s) {
    const auto part = static_cast<std::int64_t>(s);
    const std::vector<E> section = in.sos.values(row, part);
    b[s].assign(section.begin(), section.begin() + order + 1);
    a[s].assign(section.begin() + order + 1, section.end());
    filter(b[s], a[s], u[s], c.zi ? in.zi.values(row, part) : rest, own[s]);
    u.push_back(own[s].y.value);
  }
  std::vector<E> g = c.gy ? in.gy.values(row) : std::vector<E>(u[0].size());
  for (std::size_t s = count; s-- > 0;) {
    const auto part = static_cast<std::int64_t>(s);
    filter_backward(b[s], a[s], u[s], u[s + 1], g, c.gzf ? in.gzf.values(row, part) : rest, own[s]);
    g = own[s].gx.value;
  }

  // gain[q][r] of sections q to r − 1. Of an impulse response, 1000 samples are all: no pole is beyond 0.9.
  std::vector<std::vector<E>> unit = b, normal = a;
  for (std::size_t s = 0; s < count; ++s) normalise(unit[s], normal[s]);
  std::vector<std::vector<long double>> gain(count + 1, std::vector<long double>(count + 1));
  const std::size_t length = std::min<std::size_t>(u[0].size() + order + 1, 1000);
  for (std::size_t q = 0; q <= count; ++q) {
    std::vector<E> impulse(length);
    impulse[0] = 1;
    gain[q][q] = 1;
    for (std::size_t r = q; r < count; ++r) {
      std::vector<E> z(order);
      impulse = response(unit[r], normal[r], impulse, z);
      gain[q][r + 1] = sum_of_magnitudes(impulse);
    }
  }
  // Errors of the signals into section s, and of their gradients.
  std::vector<long double> u_error(count + 1), g_error(count + 1);
  for (std::size_t s = 0; s <= count; ++s) {
    for (std::size_t q = 0; q < s; ++q) u_error[s] += gain[q + 1][s] * own[q].y.error;
    for (std::size_t r = s; r < count; ++r) g_error[s] += gain[s][r] * own[r].gx.error;
  }

  CascadeReference<E> result;
  result.y = {u[count], u_error[count]};
  result.gx = {own[0].gx.value, g_error[0]};
  for (std::size_t s = 0; s < count; ++s) {
    Reference<E>& r = own[s];
    const long double v_error = all_pole_gain(normal[s], length) * g_error[s + 1];
    r.zf.error += sum_of_magnitudes(normal[s]) * u_error[s + 1] + sum_of_magnitudes(unit[s]) * u_error[s];
    r.gzi.error += v_error;
    const long double scale = 1 / std::abs(a[s][0]), v = sum_of_magnitudes(r.v),
                      gb_error = scale * (v_error * sum_of_magnitudes(u[s]) + v * u_error[s]),
                      ga_error = scale * (v_error * sum_of_magnitudes(u[s + 1]) + v * u_error[s + 1]);
    Bounded<E> gsos = r.gb;
    gsos.value.insert(gsos.value.end(), r.ga.value.begin(), r.ga.value.end());
    gsos.error += r.ga.error + gb_error * (1 + sum_of_magnitudes(unit[s])) +
                  ga_error * (1 + sum_of_magnitudes(normal[s]));  // a0's gradient is a sum over the others
    result.zf.push_back(r.zf);
    result.gsos.push_back(gsos);
    result.gzi.push_back(r.gzi);
  }
  return result;
}

// --------------------------------------------------------------------------------------------------------------- cases

template <class Sample>
void run(const Case& c) {
  using E = Exact<Sample>;
  using State = StateOf<E>;
  constexpr long double epsilon = Number<Sample>::epsilon;
  Inputs<Sample> in(c);
  const int rows = in.grid.rows();

  // What several rows share is summed where its owner is.
  std::vector<CascadeReference<E>> reference, sums(static_cast<std::size_t>(rows));
  const auto add = [](std::vector<Bounded<E>>& to, const std::vector<Bounded<E>>& from) {
    to.resize(from.size());
    for (std::size_t s = 0; s < from.size(); ++s) to[s].add(from[s]);
  };
  for (int row = 0; row < rows; ++row) {
    const CascadeReference<E>& r = reference.emplace_back(reference_of(in, row));
    sums[in.x.owner(row)].gx.add(r.gx);
    add(sums[in.sos.owner(row)].gsos, r.gsos);
    add(sums[in.zi.owner(row)].gzi, r.gzi);
  }

  for_each_kernel(std::is_same_v<State, Complex>, [&](Algorithm algorithm, const std::string& kernel) {
    const std::string where = kernel + c.text();
    const auto compare_one = [&](auto& block, int row, std::int64_t part, const Bounded<E>& want, long double eps,
                                 const char* what) {
      const long double tolerance = want.error + tiny<Sample>;
      const long double excess = block.excess(row, part, want, eps, tolerance);
      CHECK(excess == 0, where, what, "row", row, "section", part, "error", excess, "tolerance", tolerance);
    };
    const auto compare = [&](auto& block, int row, const std::vector<Bounded<E>>& want, const char* what) {
      for (std::size_t s = 0; s < want.size(); ++s)
        compare_one(block, row, static_cast<std::int64_t>(s), want[s], 0, what);
    };

    Outputs<Sample> out(in);
    compute(in, out, algorithm, {two_halves, nullptr}, where);
    for (int row = 0; row < rows; ++row) {
      const CascadeReference<E>& r = reference[static_cast<std::size_t>(row)];
      compare_one(out.y, row, 0, r.y, epsilon, "y");
      if (c.zf) compare(out.zf, row, r.zf, "zf");
      if ((c.wanted & 1) != 0) compare_one(out.gx, row, 0, sums[out.gx.owner(row)].gx, epsilon, "gx");
      if ((c.wanted & 2) != 0) compare(out.gsos, row, sums[out.gsos.owner(row)].gsos, "gsos");
      if ((c.wanted & 4) != 0) compare(out.gzi, row, sums[out.gzi.owner(row)].gzi, "gzi");
    }
    CHECK(out.intact(), where);

    // In two pieces; the state of the first becomes that of the second where it lies.
    Block<State> state(in.grid, order, c.layout, {}, c.sections);
    for (int row = 0; row < rows; ++row)
      for (int s = 0; s < c.sections; ++s)
        for (int k = 0; k < order; ++k) state.at(row, k, s) = c.zi ? in.zi.at(row, k, s) : State(0);
    SOSFilt<Sample, State> piece = in.forward(out.y, state);
    piece.zi = sections_in(state);
    piece.zf = sections(state);
    const std::int64_t cut = c.samples / 3;
    piece.samples = cut;
    CHECK(sosfilt(piece, algorithm) == Status::ok, where);
    piece.samples = c.samples - cut;
    piece.x.data += cut * piece.x.step;
    piece.y.data += cut * piece.y.step;
    CHECK(sosfilt(piece, algorithm) == Status::ok, where);
    for (int row = 0; row < rows; ++row) {
      const CascadeReference<E>& r = reference[static_cast<std::size_t>(row)];
      compare_one(out.y, row, 0, r.y, epsilon, "y in pieces");
      compare(state, row, r.zf, "zf in pieces");
    }
    CHECK(out.y.intact() && state.intact(), where);
  });
}

// With everything else by turns.
void run_varied(int rows, int samples, int sections, int count) {
  Case c{rows, samples, sections};
  c.layout = static_cast<Layout>(count % 3);
  if (count % 5 == 4) c.shared_x = by_all;
  if (count % 4 == 3) c.shared_sos = by_all;
  if (count % 11 == 0) c.shared_zi = by_all;
  c.zi = count % 7 != 0;
  c.zf = count % 10 != 0;
  c.gzf = count % 6 != 0;
  c.gy = count % 13 != 0;
  c.wanted = count % 3 != 1 ? 7 : count / 3 % 8;
  c.a0 = count % 9 == 8 ? 2 : 1;
  if (count % 3 == 0) c.zeros = static_cast<Zeros>(count / 3 % (static_cast<int>(Zeros::by_row) + 1));
  const bool overflows = c.zeros == Zeros::extreme || c.zeros == Zeros::by_row;  // in float, from the states on
  count % 2 != 0 || overflows ? run<double>(c) : run<float>(c);
}

// Tiles have 64 samples and stretches 512, or 1024 forwards; a wavefront has 8 sections, the last 35 samples behind the
// first, in steps of 5, or 4, the last 15 behind; 4, 8 or 16 segments have 8 to 160.
void every_size() {
  if constexpr (emulated) return;
  const int samples[] = {0,   1,   2,    3,    14,   15,   16,   29,   30,   31,   32,   33,  34,  35,
                         36,  63,  64,   65,   127,  128,  129,  511,  512,  513,  546,  547, 548, 639,
                         640, 641, 1025, 1279, 1280, 1281, 2559, 2560, 2561, 2687, 2688, 4125};
  const long most = sanitized ? 5000 : 60000;  // samples of all sections and rows: what is longer only costs time
  int count = 0;
  for (const int t : samples) {
    for (const int sections : {1, 2, 7, 8, 9, 16, 17}) {
      for (const int rows : {1, 2, 15, 16, 17, 33}) {
        if (long{t} * sections * rows > most && rows * sections > 2) continue;
        run_varied(rows, t, sections, ++count);
      }
    }
  }
}

// A thread has 32 samples, forwards, or 16, a warp 1024 or 512, a tile 4096 or 2048, a cluster at most 8 tiles, a group
// that looks back 256. Done directly, a stretch has 512.
void every_size_of_tiles() {
  if constexpr (!emulated) return;
  int count = 0;
  const auto sizes = [&](std::initializer_list<int> samples, std::initializer_list<int> sections, int rows) {
    for (const int t : samples) {
      for (const int s : sections) {
        ++count;
        run_varied(1 + count % rows, t, s, count);
      }
    }
  };
  sizes({0, 1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 511, 512, 513}, {1, 2, 4, 5}, 5);
  sizes({1023, 1025, 2047, 2048, 2049}, {1, 5}, 2);
  sizes({4095, 4096, 4097, 8193}, {1, 3}, 1);
  sizes({3, 70}, {31, 32, 33, 40}, 2);
  sizes({35000}, {1}, 1);
  sizes({20}, {3}, 40);
}

// Banks: see lfilter's test.
void banks() {
  int count = 0;
  for (const int cascades : {1, 5, 16, 17, 33}) {
    for (const int sections : {1, 2, 9}) {
      for (const int samples : {70, 150}) {
        if (emulated && (cascades == 16 || samples == 150 || (sections > 1 && cascades == 17) || cascades == 33))
          continue;
        Case c{cascades, samples, sections};
        c.signals = 2;
        c.layout = static_cast<Layout>(count++ % 3);
        c.zi = c.gzf = count % 2 == 0;
        c.shared_x = {false, true};  // [signals, 1, T] through [cascades, S, 6]
        c.shared_sos = {true, false};
        c.wanted = count % 5 == 0 ? 1 : 7;
        run<float>(c);
        std::swap(c.signals, c.rows);  // [signals, T] through [cascades, 1, S, 6]
        c.shared_x = {true, false};
        c.shared_sos = {false, true};
        c.shared_zi = {count % 2 == 0, count % 3 == 0};
        run<double>(c);
      }
    }
  }
}

void every_type() {
  for (const int t : {0, 1, 5, 64, 333, 600}) {
    for (const int sections : {1, 3, 10}) {
      for (const int rows : {1, 2, 19}) {
        if (emulated && ((rows == 19 && t != 5) || (sections == 10 && t > 64) || (rows == 2 && t == 333))) continue;
        Case c{rows, t, sections};
        c.layout = static_cast<Layout>((t + rows) % 3);
        if (rows == 2) c.shared_sos = by_all;
        if (rows == 19 && sections == 3) c.shared_x = by_all;
        run<Half>(c);
        run<BFloat16>(c);
        c.a0 = 2;
        run<Complex>(c);
      }
    }
  }
}

// What the emulator leaves to chance.
void other_chances() {
#if defined(TORCH_IIR_EMULATED)
  ++cuda::emulator::machine().seed;
#endif
}

// Whatever the threads do, and `automatic` is the algorithm that it says.
void the_same_bits() {
  for (const bool shared : {false, true}) {
    Case c{emulated ? 1 : 12, emulated ? 9000 : 700, emulated ? 2 : 5};
    c.signals = emulated ? 2 : 3;
    if (emulated && shared) c.rows = 2, c.samples = 2500;
    if (shared) c.shared_x = {true, false}, c.shared_sos = {false, true};
    Inputs<float> in(c);
    for_each_kernel(false, [&](Algorithm algorithm, const std::string& where) {
      Outputs<float> serial(in), halves(in), singles(in);
      compute(in, serial, algorithm, {}, where);
      other_chances();
      compute(in, halves, algorithm, {two_halves, nullptr}, where);
      other_chances();
      compute(in, singles, algorithm, {one_by_one, nullptr}, where);
      CHECK(serial.same_bits(halves) && serial.same_bits(singles), where, "shared", shared);
    });
  }
  if constexpr (emulated) return;
  for (const int rows : {1, 11, 12}) {
    for (const int samples : {31, 32, 100}) {
      Inputs<double> in(Case{rows, samples, 3});
      const Algorithm chosen = sosfilt_algorithm(rows, samples, 3);
      CHECK(chosen != Algorithm::automatic && takes(chosen, false), rows, samples);
      Outputs<double> automatic(in), forced(in);
      compute(in, automatic, Algorithm::automatic, {}, "automatic");
      compute(in, forced, chosen, {}, "forced");
      CHECK(automatic.same_bits(forced), rows, samples, algorithm_names[static_cast<int>(chosen)]);
    }
  }
}

constexpr int times_on_cpu[] = {0, 1, 63, 64, 300, 511, 512, 571, 599};
constexpr int times_on_cuda[] = {1, 1023, 2047, 2048, 4096};
constexpr std::span<const int> times = emulated ? std::span<const int>(times_on_cuda) : times_on_cpu;

// A NaN or an infinity reaches what depends on it, and nothing else: no earlier sample, no other row.
void not_finite() {
  constexpr int struck = 1;
  constexpr int rows = emulated ? 2 : 18;
  for (const int sections : {1, 3, 9}) {
    if (emulated && sections == 9) continue;
    const int samples = !emulated ? 600 : sections == 1 ? 4200 : 2100;
    Inputs<double> in(Case{rows, samples, sections});
    for_each_kernel(false, [&](Algorithm algorithm, const std::string& kernel) {
      Outputs<double> clean(in);
      compute(in, clean, algorithm, {}, kernel);
      const auto same = [&](Block<double>& now, Block<double>& before, int row, int first, int last, int part = 0) {
        for (int i = first; i < last; ++i)
          if (now.at(row, i, part) != before.at(row, i, part)) return false;
        return true;
      };
      const auto all_struck = [&](Block<double>& now, int first, int last) {
        for (int i = first; i < last; ++i)
          if (std::isfinite(now.at(struck, i))) return false;
        return true;
      };
      for (const double value : {std::nan(""), double{INFINITY}, -double{INFINITY}}) {
        for (const int t : times) {
          if (t >= samples || (emulated && (value < 0 || (value > 0 && t != 1) || (sections > 1 && t % 2 == 0))))
            continue;
          const std::string where =
              kernel + std::to_string(value) + " at " + std::to_string(t) + " sections " + std::to_string(sections);
          Outputs<double> out(in);
          const auto others_are_same = [&] {
            for (int row = 0; row < in.grid.rows(); ++row) {
              if (row == struck) continue;
              CHECK(same(out.y, clean.y, row, 0, samples) && same(out.gx, clean.gx, row, 0, samples), where, row);
              for (int s = 0; s < sections; ++s) {
                CHECK(same(out.zf, clean.zf, row, 0, order, s) && same(out.gzi, clean.gzi, row, 0, order, s) &&
                          same(out.gsos, clean.gsos, row, 0, coefficients, s),
                      where, row);
              }
            }
          };
          const double x = std::exchange(in.x.at(struck, t), value);
          compute(in, out, algorithm, {}, where);
          in.x.at(struck, t) = x;
          others_are_same();
          CHECK(same(out.y, clean.y, struck, 0, t) && all_struck(out.y, t, samples), where, "y");
          CHECK(same(out.gx, clean.gx, struck, 0, samples), where, "gx");
          CHECK(all_struck(out.gsos, 0, 1), where, "gsos");

          const double gy = std::exchange(in.gy.at(struck, t), value);
          compute(in, out, algorithm, {}, where);
          in.gy.at(struck, t) = gy;
          others_are_same();
          CHECK(same(out.gx, clean.gx, struck, t + 1, samples) && all_struck(out.gx, 0, t + 1), where, "gx");
          CHECK(all_struck(out.gsos, 0, 1) && all_struck(out.gzi, 0, 1), where, "gsos, gzi");
        }
      }
    });
  }
}

// Any a0 but powers of 2 rounds the normalised coefficients: compare with sections that were given so.
void a0_is_divided_out() {
  Inputs<double> in(Case{2, 100, 3});
  for_each_kernel(false, [&](Algorithm algorithm, const std::string& where) {
    Outputs<double> one(in), scaled(in);
    compute(in, one, algorithm, {}, where);
    const auto scale = [&](int s, double by) {
      for (int row = 0; row < 2; ++row)
        for (int k = 0; k < coefficients; ++k) in.sos.at(row, k, s) *= by;
    };
    scale(1, 3);
    compute(in, scaled, algorithm, {}, where);
    scale(1, 1 / 3.0);
    for (int row = 0; row < 2; ++row) {
      for (int t = 0; t < 100; ++t) {
        CHECK(std::abs(one.y.at(row, t) - scaled.y.at(row, t)) < 1e-13, where, t);
        CHECK(std::abs(one.gx.at(row, t) - scaled.gx.at(row, t)) < 1e-13, where, t);
      }
      for (int k = 0; k < coefficients; ++k)
        CHECK(std::abs(one.gsos.at(row, k, 1) - 3 * scaled.gsos.at(row, k, 1)) < 1e-12, where, k);
    }
  });
}

// Which nobody looks for, on CUDA: the row with a zero a0 is not finite.
template <class Sample>
void not_finite_from_zero_a0(Inputs<Sample>& in) {
  Outputs<Sample> out(in);
  compute(in, out, Algorithm::automatic, {}, "zero a0");
  for (int t = 0; t < in.c.samples; ++t) {
    CHECK(!std::isfinite(std::abs(exact<Sample>(out.y.at(16, t)))), t);
    CHECK(std::isfinite(std::abs(exact<Sample>(out.y.at(15, t)))), t);
  }
}

// Poles outside the unit circle: as the direct form has it, until that overflows; where the powers of a tile do before,
// it is the direct form.
void unstable() {
  for (const double radius : {1.02, 1.1, 2.0}) {
    Inputs<double> in(Case{2, emulated ? 5000 : 9000, 2});
    for (const double part : {0.9, 1.0}) {
      const int s = part < 1 ? 0 : 1;
      const double section[] = {0.5, 0.2, -0.1, 1, -2 * part * radius * std::cos(0.7), part * radius * part * radius};
      for (int k = 0; k < coefficients; ++k) in.sos.at(1, k, s) = section[k];
    }
    Outputs<double> direct(in);
    CHECK(set_isa(instruction_sets()[0].name));
    compute(in, direct, Algorithm::direct, {}, "direct");
    for_each_kernel(false, [&](Algorithm algorithm, const std::string& where) {
      Outputs<double> out(in);
      compute(in, out, algorithm, {}, where);
      const auto compare = [&](Block<double>& now, Block<double>& before, const auto& order, const char* what) {
        double largest = 0;
        bool finite = true;
        for (const int t : order) {
          const double want = before.at(1, t), have = now.at(1, t);
          finite = finite && std::isfinite(want);
          if (!finite) break;
          largest = std::max(largest, std::abs(want));
          CHECK(std::abs(have - want) <= 1e-10 * largest, where, what, radius, t, have, want);
        }
      };
      std::vector<int> there(static_cast<std::size_t>(in.c.samples));
      for (std::size_t t = 0; t < there.size(); ++t) there[t] = static_cast<int>(t);
      compare(out.y, direct.y, there, "y");
      compare(out.gx, direct.gx, std::vector<int>(there.rbegin(), there.rend()), "gx");
      for (int t = 0; t < in.c.samples; ++t)
        CHECK(std::abs(out.y.at(0, t) - direct.y.at(0, t)) < 1e-10, where, "the other row", t);
    });
  }
}

// More than shared memory has room for.
void very_many_sections() {
  Case c{2, 9, 600};
  c.zeros = Zeros::monic;
  Inputs<float> in(c);
  Outputs<float> direct(in), automatic(in);
  compute(in, direct, Algorithm::direct, {}, "direct");
  compute(in, automatic, Algorithm::automatic, {}, "automatic");
  if constexpr (!emulated) return;
  CHECK(direct.same_bits(automatic));
  CHECK(sosfilt(in.forward(direct.y, direct.zf), Algorithm::rows) == Status::unsupported);
  CHECK(sosfilt_backward(in.backward(direct.gx, direct.gsos, direct.gzi), Algorithm::rows) == Status::unsupported);
}

template <class Sample>
void refusals() {
  using State = StateOf<Exact<Sample>>;
  const auto all = [](Inputs<Sample>& in, Status status, const char* what) {
    Outputs<Sample> out(in);
    for (const InstructionSet& set : instruction_sets()) {
      if (!set_isa(set.name)) continue;
      for (const Algorithm algorithm : algorithms) {
        const Status want = takes(algorithm, std::is_same_v<State, Complex>) ? status : Status::unsupported;
        const char* name = algorithm_names[static_cast<int>(algorithm)];
        const Status forward = sosfilt(in.forward(out.y, out.zf), algorithm);
        const Status backward = sosfilt_backward(in.backward(out.gx, out.gsos, out.gzi), algorithm);
        // Of two faults either may be told.
        CHECK(forward == want || (status == Status::zero_a0 && forward == status), set.name, name, what);
        CHECK(backward == want || (status == Status::zero_a0 && backward == status), set.name, name, what);
      }
    }
  };
  for (const int sections : {1, 3}) {
    Inputs<Sample> in(Case{17, 40, sections});
    all(in, Status::ok, "a whole filter");
    in.sos.at(16, 3, sections - 1) = State(0);
    all(in, emulated ? Status::ok : Status::zero_a0, "the last a0");
    if constexpr (emulated) not_finite_from_zero_a0(in);
  }

  Inputs<Sample> none(Case{0, 40, 3});
  Outputs<Sample> nothing(none);
  CHECK(sosfilt(none.forward(nothing.y, nothing.zf)) == Status::ok);
  CHECK(sosfilt_backward(none.backward(nothing.gx, nothing.gsos, nothing.gzi)) == Status::ok);
}

}  // namespace

int main() {
  every_size();
  every_size_of_tiles();
  banks();
  every_type();
  the_same_bits();
  not_finite();
  a0_is_divided_out();
  unstable();
  very_many_sections();
  refusals<float>();
  refusals<Complex>();
  return check::result();
}
