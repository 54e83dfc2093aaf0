// lfilter_tv and lfilter_tv_backward against a plain reference in long double: every algorithm on every instruction set
// that the machine has, at sizes around every boundary.
#include "torch_iir/lfilter_tv.h"

#include <array>
#include <initializer_list>
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

// Sanitizers, a long double that the machine does not have, and kernels on the emulator take their time.
constexpr bool slow = sanitized || emulated || std::numeric_limits<long double>::digits > 64;

// How often coefficients are given.
enum class Frames {
  one,
  all,       // T of them, or ⌈T / period⌉
  one_more,  // what the last one moves towards, for a period above 1
  more,      // and some that no sample reaches
  repeated,  // as `all`, but each lies where the first does
};
constexpr Frames every_frames[] = {Frames::one, Frames::all, Frames::one_more, Frames::more, Frames::repeated};

// The gradients that are wanted.
enum Gradient { gx = 1, gb = 2, ga = 4, gzx = 8, gzi = 16, every_gradient = 31 };

struct Case {
  Grid grid{1, 1};
  int samples, order;  // the largest lag of a
  int b_length = -1;   // no b
  int a_first = 1, b_first = 0;
  int period = 1;
  Frames a_frames = Frames::all, b_frames = Frames::all;
  Layout layout = Layout::contiguous, a_layout = Layout::contiguous, b_layout = Layout::contiguous;
  Shared x = {}, b = {}, a = {}, zx = {}, zi = {};
  bool has_zx = true, has_zi = true, has_zf = true, has_gy = true, has_gzf = true;
  int wanted = every_gradient;
  bool resonant = false;  // poles that move; else coefficients that have nothing to do with the frame before
  bool still = false;     // x and gy are one sample, at a step of 0

  int a_length() const { return order > 0 ? order + 1 - a_first : 1 - a_first; }
  int b_order() const { return b_length > 0 ? b_first + b_length - 1 : 0; }
  int frames_of(Frames frames) const {
    if (frames == Frames::one) return 1;
    const int count = (samples + period - 1) / period;
    return period == 1 || frames == Frames::all || frames == Frames::repeated
               ? count
               : count + (frames == Frames::more ? 3 : 1);
  }
  std::string text() const {
    const auto shares = [](Shared shared) {
      return std::string(shared.outer ? "o" : "-") + (shared.inner ? "i" : "-");
    };
    std::string text = std::to_string(grid.outer) + " x " + std::to_string(grid.inner) + " rows, samples " +
                       std::to_string(samples) + " order " + std::to_string(order) + " a first " +
                       std::to_string(a_first) + " b first " + std::to_string(b_first) + " length " +
                       std::to_string(b_length) + " period " + std::to_string(period) + " frames";
    for (const Frames frames : {a_frames, b_frames}) text += ' ' + std::to_string(static_cast<int>(frames));
    text += " layouts";
    for (const Layout one : {layout, a_layout, b_layout}) text += ' ' + std::to_string(static_cast<int>(one));
    text += " shared";
    for (const Shared one : {x, b, a, zx, zi}) text += ' ' + shares(one);
    text += " given";
    for (const bool one : {has_zx, has_zi, has_zf, has_gy, has_gzf}) text += one ? '1' : '0';
    return text + " wanted " + std::to_string(wanted) + (resonant ? " resonant" : "") + (still ? " still" : "");
  }
};

constexpr Algorithm algorithms[] = {Algorithm::direct,   Algorithm::rows,      Algorithm::segments,
                                    Algorithm::blocks,   Algorithm::wavefront, Algorithm::clusters,
                                    Algorithm::lookback, Algorithm::automatic};

// The machine that the emulator is has clusters.
bool has_clusters() { return std::string(isa()) == instruction_sets()[0].name; }

const char* name_of(Algorithm algorithm) { return algorithm_names[static_cast<int>(algorithm)]; }

// Order 0 is no recurrence, and samples that have to be converted do not go into lanes.
template <class Sample>
bool takes(Algorithm algorithm, int order) {
  constexpr bool complex = std::is_same_v<Sample, Complex>, in_lanes = std::is_floating_point_v<Sample>;
  if (algorithm == Algorithm::automatic || algorithm == Algorithm::direct) return true;
  if constexpr (emulated) {
    return !complex && order > 0 &&
           ((algorithm == Algorithm::rows && order <= 2) ||
            (algorithm == Algorithm::clusters && order <= 2 && has_clusters()) ||
            (algorithm == Algorithm::lookback && order <= 32));
  }
  return !complex && order > 0 &&
         (algorithm == Algorithm::blocks || (in_lanes && ((algorithm == Algorithm::rows && order <= 16) ||
                                                          (algorithm == Algorithm::segments && order <= 2))));
}

// f(algorithm, where) for all that take the filter, on every instruction set; on the emulator, which computes all of
// them in one way, a machine without clusters takes what is chosen for it.
template <class Sample, class F>
void for_each_kernel(int order, F f) {
  for (const InstructionSet& set : instruction_sets()) {
    if (!set_isa(set.name)) continue;
    const bool chosen = emulated && !has_clusters();
    for (const Algorithm algorithm : algorithms)
      if ((algorithm == Algorithm::automatic) == chosen && takes<Sample>(algorithm, order))
        f(algorithm, std::string(set.name) + ' ' + name_of(algorithm) + ' ');
  }
}

template <class T>
T one_of(std::initializer_list<T> values) {
  return values.begin()[random_bits() % values.size()];
}
bool one_in(unsigned n) { return random_bits() % n == 0; }
// On the emulator, one of n cases.
bool left_out(unsigned n) { return emulated && !one_in(n); }
Shared any_sharing() { return {one_in(2), one_in(2)}; }

// --------------------------------------------------------------------------------------------------------- operands

template <class T>
Matrices<T> matrices(Block<T>& block) {
  return {block.rows(), block.part()};
}

// What a case's operands hold.
template <class Sample, class Coefficient>
struct Inputs {
  using E = Exact<Sample>;
  using State = StateOf<E>;

  Case c;
  Block<Sample> x{c.grid, c.samples, c.layout, c.x}, gy{c.grid, c.samples, c.layout};
  Block<Coefficient> a{c.grid, c.a_length(), c.a_layout, c.a, c.frames_of(c.a_frames)};
  Block<Coefficient> b{c.grid, std::max(c.b_length, 0), c.b_layout, c.b, c.frames_of(c.b_frames)};
  Block<State> zx{c.grid, c.b_order(), c.layout, c.zx}, zi{c.grid, c.order, c.layout, c.zi};
  Block<State> gzf{c.grid, c.order, c.layout};

  explicit Inputs(const Case& given) : c(given) {
    for (Block<Sample>* block : {&x, &gy}) block->fill([] { return sample<Sample>(random_value<E>()); });
    for (int row = 0; row < c.grid.rows() && c.still; ++row)
      for (int t = 0; t < c.samples; ++t)
        for (Block<Sample>* block : {&x, &gy}) block->at(row, t) = block->at(row, 0);
    for (Block<State>* block : {&zx, &zi, &gzf}) block->fill([] { return static_cast<State>(random_value<E>()); });
    b.fill([] { return sample<Coefficient>(random_value<E>()); });
    for (int row = 0; row < c.grid.rows(); ++row) fill_a(row);
  }

  LFilterTV<Sample, Coefficient, State> forward(Block<Sample>& y, Block<State>& zf) {
    LFilterTV<Sample, Coefficient, State> f;
    f.batch = c.grid.batch();
    f.samples = c.samples;
    f.period = c.period;
    f.x = samples_of(x);
    f.b = b_taps();
    f.a = taps(a, c.a_length(), c.a_first, c.a_frames);
    if (c.has_zx) f.zx = zx.input();
    if (c.has_zi) f.zi = zi.input();
    f.y = y.rows();
    if (c.has_zf) f.zf = zf.rows();
    return f;
  }
  template <class Outputs>
  LFilterTVBackward<Sample, Coefficient, State> backward(Outputs& out) {
    LFilterTVBackward<Sample, Coefficient, State> f;
    f.batch = c.grid.batch();
    f.samples = c.samples;
    f.period = c.period;
    if (c.has_gy) f.gy = samples_of(gy);
    if (c.has_gzf) f.gzf = gzf.input();
    f.x = samples_of(x);
    f.y = out.y.input();
    f.b = b_taps();
    f.a = taps(a, c.a_length(), c.a_first, c.a_frames);
    if (c.has_zx) f.zx = zx.input();
    if (c.has_zi) f.zi = zi.input();
    if ((c.wanted & gx) != 0) f.gx = out.gx.rows();
    if ((c.wanted & gb) != 0 && c.b_length >= 0) f.gb = matrices(out.gb);
    if ((c.wanted & ga) != 0) f.ga = matrices(out.ga);
    if ((c.wanted & gzx) != 0) f.gzx = out.gzx.rows();
    if ((c.wanted & gzi) != 0) f.gzi = out.gzi.rows();
    return f;
  }

  FilterTV<E> row(int row) {
    FilterTV<E> f;
    f.period = static_cast<std::size_t>(c.period);
    f.x = x.values(row);
    f.zx = c.has_zx ? zx.values(row) : std::vector<E>(static_cast<std::size_t>(c.b_order()));
    f.zi = c.has_zi ? zi.values(row) : std::vector<E>(static_cast<std::size_t>(c.order));
    f.a = {frames(a, row, c.a_frames), c.a_length(), c.a_first, E(1)};
    if (c.b_length >= 0) f.b = {frames(b, row, c.b_frames), c.b_length, c.b_first, E(0)};
    return f;
  }

 private:
  Rows<const Sample> samples_of(Block<Sample>& block) const {
    Rows<const Sample> rows = block.input();
    if (c.still) rows.step = 0;
    return rows;
  }
  Taps<const Coefficient> taps(Block<Coefficient>& block, int length, int first, Frames frames) const {
    const std::int64_t down = frames == Frames::repeated ? 0 : block.part();
    return {{block.input(), down}, length, first, c.frames_of(frames)};
  }
  Taps<const Coefficient> b_taps() {
    return c.b_length >= 0 ? taps(b, c.b_length, c.b_first, c.b_frames) : Taps<const Coefficient>{};
  }
  std::vector<std::vector<E>> frames(Block<Coefficient>& block, int row, Frames frames) const {
    std::vector<std::vector<E>> result;
    for (int f = 0; f < c.frames_of(frames); ++f)
      result.push_back(block.values(row, frames == Frames::repeated ? 0 : f));
    return result;
  }

  // Without poles to go by, stable because the magnitudes beside a0 sum to less than it.
  void fill_a(int row) {
    E direction = one_in(2) ? 1 : -1;  // the same for all frames, so that between them a0 is not 0
    if constexpr (std::is_same_v<State, Complex>) direction = std::polar(1.0L, 0.7L);
    const std::vector<E> poles = denominator<E>(c.order, 1);
    const long double phase = grid();
    for (int f = 0; f < c.frames_of(c.a_frames); ++f) {
      const E a0 = c.a_first == 0 ? direction * (1 + std::abs(random_value<E>())) : E(1);
      std::vector<E> now(static_cast<std::size_t>(c.order) + 1);
      if (c.resonant) {
        const long double time = static_cast<long double>(f) * c.period / 100 + phase;
        const long double radius = 0.95L + 0.05L * std::cos(std::numbers::pi_v<long double> * time);
        long double power = 1;
        for (std::size_t k = 1; k < now.size(); ++k) now[k] = poles[k] * (power *= radius);
      } else {
        for (std::size_t k = 1; k < now.size(); ++k) now[k] = random_value<E>();
        const long double sum = sum_of_magnitudes(now);
        for (E& value : now) value *= 0.9L / std::max(sum, 0.1L);
      }
      for (int j = 0; j < c.a_length(); ++j) {
        const int lag = c.a_first + j;
        a.at(row, j, f) = sample<Coefficient>(lag == 0 ? a0 : a0 * now[static_cast<std::size_t>(lag)]);
      }
    }
  }
};

template <class Sample, class Coefficient>
struct Outputs {
  using State = StateOf<Exact<Sample>>;
  Block<Sample> y, gx;
  Block<State> zf, gzx, gzi;
  Block<Coefficient> gb, ga;

  explicit Outputs(const Inputs<Sample, Coefficient>& in)
      : y(in.c.grid, in.c.samples, in.c.layout),
        gx(in.c.grid, in.c.samples, in.c.layout, in.c.x),
        zf(in.c.grid, in.c.order, in.c.layout),
        gzx(in.c.grid, in.c.b_order(), in.c.layout, in.c.zx),
        gzi(in.c.grid, in.c.order, in.c.layout, in.c.zi),
        gb(in.c.grid, std::max(in.c.b_length, 0), in.c.b_layout, in.c.b, in.c.frames_of(in.c.b_frames)),
        ga(in.c.grid, in.c.a_length(), in.c.a_layout, in.c.a, in.c.frames_of(in.c.a_frames)) {}

  bool same_bits(const Outputs& other) const {
    return y.same_bits(other.y) && gx.same_bits(other.gx) && zf.same_bits(other.zf) && gzx.same_bits(other.gzx) &&
           gzi.same_bits(other.gzi) && gb.same_bits(other.gb) && ga.same_bits(other.ga);
  }
  bool intact() {
    return y.intact() && gx.intact() && zf.intact() && gzx.intact() && gzi.intact() && gb.intact() && ga.intact();
  }
};

template <class Sample, class Coefficient>
void compute(Inputs<Sample, Coefficient>& in, Outputs<Sample, Coefficient>& out, Algorithm algorithm,
             ParallelFor parallel, const std::string& where) {
  CHECK(lfilter_tv(in.forward(out.y, out.zf), algorithm, parallel) == Status::ok, where);
  CHECK(lfilter_tv_backward(in.backward(out), algorithm, parallel) == Status::ok, where);
}

// --------------------------------------------------------------------------------------------------------------- cases

// What several rows share is summed where its owner is.
template <class E>
struct Expected {
  std::vector<ReferenceTV<E>> rows, sums;
};

template <class Sample, class Coefficient>
Expected<Exact<Sample>> expected(Inputs<Sample, Coefficient>& in, Outputs<Sample, Coefficient>& stored) {
  using E = Exact<Sample>;
  Expected<E> result;
  result.sums.resize(static_cast<std::size_t>(in.c.grid.rows()));
  for (int row = 0; row < in.c.grid.rows(); ++row) {
    const FilterTV<E> f = in.row(row);
    ReferenceTV<E>& r = result.rows.emplace_back();
    filter(f, r);
    for (int t = 0; t < in.c.samples; ++t) stored.y.at(row, t) = sample<Sample>(r.y.value[static_cast<std::size_t>(t)]);
    const std::vector<E> no_gy(f.x.size()), no_gzf(f.zi.size());
    filter_backward(f, stored.y.values(row), in.c.has_gy ? in.gy.values(row) : no_gy,
                    in.c.has_gzf ? in.gzf.values(row) : no_gzf, r);
    result.sums[stored.gx.owner(row)].gx.add(r.gx);
    result.sums[stored.gb.owner(row)].gb.add(r.gb);
    result.sums[stored.ga.owner(row)].ga.add(r.ga);
    result.sums[stored.gzx.owner(row)].gzx.add(r.gzx);
    result.sums[stored.gzi.owner(row)].gzi.add(r.gzi);
  }
  return result;
}

// The worst of a row's values, as Block::excess has it, in all parts.
template <class T>
long double excess(Block<T>& block, int row, int parts, const Bounded<Exact<T>>& want, long double tolerance) {
  long double result = 0;
  const auto length = static_cast<std::ptrdiff_t>(want.value.size()) / std::max(parts, 1);
  for (std::ptrdiff_t part = 0; part < parts; ++part) {
    const auto begin = want.value.begin() + part * length;
    const Bounded<Exact<T>> one{{begin, begin + length}, want.error};
    result = std::max(result, block.excess(row, part, one, Number<T>::epsilon, tolerance));
  }
  return result;
}

template <class Sample, class Coefficient>
void run(const Case& c) {
  using E = Exact<Sample>;
  using State = StateOf<E>;
  Inputs<Sample, Coefficient> in(c);
  Outputs<Sample, Coefficient> stored(in);
  const Expected<E> expect = expected(in, stored);

  for_each_kernel<Sample>(c.order, [&](Algorithm algorithm, const std::string& kernel) {
    const auto compare = [&]<class T>(Block<T>& block, int row, int parts, const Bounded<E>& want, const char* what) {
      const long double tolerance = want.error + tiny<T>, wrong = excess(block, row, parts, want, tolerance);
      CHECK(wrong == 0, kernel + c.text(), what, "row", row, "error", wrong, "tolerance", tolerance);
    };
    const auto of_row = [&](int row) -> const ReferenceTV<E>& { return expect.rows[static_cast<std::size_t>(row)]; };

    Outputs<Sample, Coefficient> out(in);
    if (!CHECK(lfilter_tv(in.forward(out.y, out.zf), algorithm, {two_halves, nullptr}) == Status::ok,
               kernel + c.text()))
      return;
    for (int row = 0; row < c.grid.rows(); ++row) {
      const ReferenceTV<E>& r = of_row(row);
      compare(out.y, row, 1, r.y, "y");
      if (c.has_zf) compare(out.zf, row, 1, r.zf, "zf");
    }

    for (int row = 0; row < c.grid.rows(); ++row)
      for (int t = 0; t < c.samples; ++t) out.y.at(row, t) = stored.y.at(row, t);
    if (!CHECK(lfilter_tv_backward(in.backward(out), algorithm, {two_halves, nullptr}) == Status::ok,
               kernel + c.text()))
      return;
    for (int row = 0; row < c.grid.rows(); ++row) {
      if ((c.wanted & gx) != 0) compare(out.gx, row, 1, expect.sums[out.gx.owner(row)].gx, "gx");
      if ((c.wanted & gb) != 0 && c.b_length >= 0)
        compare(out.gb, row, c.frames_of(c.b_frames), expect.sums[out.gb.owner(row)].gb, "gb");
      if ((c.wanted & ga) != 0) compare(out.ga, row, c.frames_of(c.a_frames), expect.sums[out.ga.owner(row)].ga, "ga");
      if ((c.wanted & gzx) != 0) compare(out.gzx, row, 1, expect.sums[out.gzx.owner(row)].gzx, "gzx");
      if ((c.wanted & gzi) != 0) compare(out.gzi, row, 1, expect.sums[out.gzi.owner(row)].gzi, "gzi");
    }
    CHECK(out.intact(), kernel + c.text());

    // In two pieces, cut at a frame; the state of the first becomes that of the second where it lies.
    const int frames_before = c.samples / c.period / 3, cut = frames_before * c.period;
    Block<State> state(c.grid, c.order, c.layout), past(c.grid, c.b_order(), c.layout);
    for (int row = 0; row < c.grid.rows(); ++row) {
      for (int j = 0; j < c.order; ++j) state.at(row, j) = c.has_zi ? in.zi.at(row, j) : State(0);
      for (int j = 0; j < c.b_order(); ++j) {
        if (cut > j) past.at(row, j) = static_cast<State>(exact<Sample>(in.x.at(row, cut - 1 - j)));
        if (cut <= j) past.at(row, j) = c.has_zx ? in.zx.at(row, j - cut) : State(0);
      }
    }
    LFilterTV<Sample, Coefficient, State> piece = in.forward(out.y, state);
    piece.zi = state.input();
    piece.zf = state.rows();
    piece.samples = cut;
    for (Taps<const Coefficient>* taps : {&piece.b, &piece.a})
      if (taps->frames > 1) taps->frames = std::min<std::int64_t>(taps->frames, frames_before + (c.period > 1 ? 1 : 0));
    CHECK(lfilter_tv(piece, algorithm) == Status::ok, kernel + c.text());
    piece = in.forward(out.y, state);
    piece.zi = state.input();
    piece.zf = state.rows();
    piece.zx = past.input();
    piece.samples = c.samples - cut;
    piece.x.data += cut * piece.x.step;
    piece.y.data += cut * piece.y.step;
    for (Taps<const Coefficient>* taps : {&piece.b, &piece.a}) {
      if (taps->frames <= 1) continue;
      taps->data += frames_before * taps->down;
      taps->frames -= frames_before;
    }
    CHECK(lfilter_tv(piece, algorithm) == Status::ok, kernel + c.text());
    for (int row = 0; row < c.grid.rows(); ++row) {
      compare(out.y, row, 1, of_row(row).y, "y in pieces");
      compare(state, row, 1, of_row(row).zf, "zf in pieces");
    }
    CHECK(out.y.intact() && state.intact(), kernel + c.text());
  });
}

// The rest of a case, at random.
void vary(Case& c) {
  c.a_first = one_in(3) ? 0 : 1;
  c.b_first = one_in(3) ? 1 : 0;
  c.b_length = one_in(2) ? -1 : one_of({0, 1, 2, 3, 4, 9, 33});
  c.period = one_in(2) ? 1 : one_of({2, 5, 80});
  c.a_frames = one_in(2) ? Frames::all : one_of({Frames::one, Frames::one_more, Frames::more, Frames::repeated});
  c.b_frames = one_in(2) ? Frames::all : one_of({Frames::one, Frames::one_more, Frames::more, Frames::repeated});
  c.layout = static_cast<Layout>(random_bits() % 3);
  c.a_layout = static_cast<Layout>(random_bits() % 4);
  c.b_layout = static_cast<Layout>(random_bits() % 4);
  for (Shared* shared : {&c.x, &c.b, &c.a, &c.zx, &c.zi})
    if (one_in(3)) *shared = any_sharing();
  for (bool* given : {&c.has_zx, &c.has_zi, &c.has_zf, &c.has_gy, &c.has_gzf}) *given = !one_in(6);
  c.wanted = one_in(3) ? static_cast<int>(random_bits() % 32) : every_gradient;
  c.resonant = c.order <= 8 && c.a_frames != Frames::repeated && one_in(2);
  c.still = one_in(8);
}

Grid any_grid() {
  const int rows = one_of({1, 1, 2, 11, 12, 13, 14, 15, 16, 17, 33});
  return rows % 2 == 0 && one_in(2) ? Grid{2, rows / 2} : rows == 33 ? Grid{3, 11} : Grid{1, rows};
}

void every_size() {
  const long most = emulated ? 3000 : slow ? 10000 : 200000;  // products of a case: what is longer only costs time
  for (const int order : {0, 1, 2, 3, 4, 5, 6, 8, 9, 15, 16, 17, 31, 32, 33}) {
    std::vector<int> samples{0,  1,  2,   3,   7,   8,   9,   15,  16,  17,   31,   32,   33,   63,
                             64, 65, 127, 128, 129, 255, 256, 257, 511, 1000, 1919, 1920, 1921, 4100};
    for (const int around : {order - 1, order, order + 1})
      if (around > 3) samples.push_back(around);
    if (emulated) samples.insert(samples.end(), {7, 8, 9, 1023, 1024, 1025, 2049});  // tiles of threads and of blocks
    for (const int t : samples) {
      if (emulated ? left_out(t > 2000 ? 24 : t > 200 ? 14 : 10) : slow && t > 64 && (order + t) % 2 == 0) continue;
      for (int repeat = 0; repeat < (slow ? 1 : 3); ++repeat) {
        Case c{any_grid(), t, order};
        vary(c);
        if (long{t} * (order + std::max(c.b_length, 0) + 2) * c.grid.rows() > most) c.grid = {1, one_of({1, 2})};
        one_in(2) ? run<double, double>(c) : one_in(2) ? run<float, float>(c) : run<float, double>(c);
      }
    }
  }
  for (const int order : {100, 1030}) {
    for (const int t : {1, order - 1, order, order + 1, 1200}) {
      if (emulated && (order == 1030 ? t != 1 : t == 1200)) continue;
      Case c{{1, one_of({1, 2})}, t, order};
      vary(c);
      run<double, double>(c);
      c.grid = {1, 1};
      if (!emulated) run<float, float>(c);
    }
  }
  if constexpr (emulated) {  // clusters that take more than one turn, chunks in groups
    for (const int order : {1, 2, 4, 20}) {
      Case c{{1, 1}, order <= 2 ? 9000 : 4100, order};
      c.resonant = true;
      run<float, float>(c);
      vary(c);
      run<double, double>(c);
    }
  }
}

void every_number_of_rows() {
  for (int rows = 1; rows <= 33; rows += rows < 18 ? 1 : 15) {
    for (const int order : {1, 2, 3, 7, 16}) {
      if (left_out(12)) continue;
      Case c{{1, rows}, 150, order};
      vary(c);
      run<float, float>(c);
      vary(c);
      run<double, double>(c);
    }
  }
}

// Everything that coefficients may look like, beside a drive of any kind.
void every_frame() {
  for (const int order : {0, 1, 2, 3, 17}) {
    for (const int period : {1, 2, 5, 80}) {
      for (const Frames a_frames : every_frames) {
        for (const Frames b_frames : every_frames) {
          if (left_out(8)) continue;
          Case c{one_in(2) ? Grid{1, 1} : Grid{1, emulated ? 3 : 17}, one_of({1, 79, 80, 81, 160, 171}), order};
          vary(c);
          c.b_length = one_of({-1, 0, 1, 2, 3, 4, 9});
          c.period = period;
          c.a_frames = a_frames;
          c.b_frames = b_frames;
          one_in(2) ? run<double, double>(c) : run<float, double>(c);
        }
      }
    }
  }
}

// Every operand the same for all of one dimension of the batch, or of both, and the gradients sums over it.
void every_sharing() {
  const Shared each[] = {{false, false}, {true, false}, {false, true}, {true, true}};
  int count = 0;
  for (const Shared x : each) {
    for (const Shared b : each) {
      for (const Shared a : each) {
        if (left_out(2)) continue;
        Case c{count % 2 == 0 ? Grid{3, 5} : Grid{2, emulated ? 3 : 17}, 37, 0};
        c.order = std::array{1, 2, 3, 17, 0}[static_cast<std::size_t>(count % 5)];
        vary(c);
        c.b_length = count % 4 == 3 ? -1 : 3;
        c.x = x;
        c.b = b;
        c.a = a;
        c.zx = each[count % 4];
        c.zi = each[count / 4 % 4];
        c.wanted = every_gradient;
        ++count % 3 == 0 ? run<float, float>(c) : run<double, double>(c);
      }
    }
  }
}

void every_part_wanted() {
  for (int wanted = 0; wanted <= every_gradient; ++wanted) {
    for (const int order : {0, 1, 2, 5, 17}) {
      if (left_out(3)) continue;
      Case c{one_in(2) ? Grid{1, 1} : Grid{2, emulated ? 2 : 9}, 90, order};
      vary(c);
      c.b_length = one_of({-1, 2, 3});
      c.wanted = wanted;
      wanted % 2 == 0 ? run<double, double>(c) : run<float, float>(c);
    }
  }
}

void every_type() {
  for (const int t : {0, 1, 5, 64, 333}) {
    for (const int order : {0, 1, 2, 7, 18}) {
      for (const Grid grid : {Grid{1, 1}, Grid{1, 2}, Grid{1, 19}}) {
        if (left_out(t == 333 || grid.inner == 19 ? 10 : 3)) continue;
        Case c{grid, t, order};
        vary(c);
        run<Half, Half>(c);
        run<Half, double>(c);
        vary(c);
        run<BFloat16, BFloat16>(c);
        run<BFloat16, double>(c);
        vary(c);
        run<Complex, Complex>(c);
      }
    }
  }
}

// Ranges of 1, 2, 3, 1, … rows: every other one, then the others.
void odd_ranges(void*, std::int64_t count, std::int64_t, ParallelFor::Body body, void* argument) {
  for (const int turn : {1, 0}) {
    std::int64_t first = 0;
    for (int i = 0; first < count; ++i) {
      const std::int64_t last = std::min(count, first + 1 + i % 3);
      if (i % 2 == turn) body(argument, first, last);
      first = last;
    }
  }
}

// Whatever the threads do, and `automatic` is the algorithm that it says.
void the_same_bits() {
  for (const int order : {0, 1, 2, 5, 20}) {
    for (int repeat = 0; repeat < (emulated ? 1 : 4); ++repeat) {
      Case c{emulated ? Grid{2, 2} : Grid{3, 12}, emulated ? 1100 : 300, order};
      vary(c);
      c.wanted = every_gradient;
      Inputs<float, float> in(c);
      for_each_kernel<double>(order, [&](Algorithm algorithm, const std::string& kernel) {
        const std::string where = kernel + c.text();
        Outputs<float, float> serial(in);
        compute(in, serial, algorithm, {}, where);
        for (const auto parallel : {two_halves, one_by_one, odd_ranges}) {
          Outputs<float, float> other(in);
#if defined(TORCH_IIR_EMULATED)
          ++cuda::emulator::machine().seed;  // other threads come first
#endif
          compute(in, other, algorithm, {parallel, nullptr}, where);
          CHECK(serial.same_bits(other), where);
          if (emulated) break;
        }
      });
    }
  }
  if constexpr (emulated) return;  // which form a device takes is its own
  for (const int order : {0, 1, 2, 3, 16, 17, 40}) {
    for (const int rows : {1, 7, 16, 40}) {
      for (const int samples : {5, 64, 700}) {
        Case c{{1, rows}, samples, order};
        c.b_length = 3;
        Inputs<double, double> in(c);
        const Algorithm chosen = lfilter_tv_algorithm(rows, samples, order);
        CHECK(chosen != Algorithm::automatic && takes<double>(chosen, order), rows, samples, order);
        Outputs<double, double> automatic(in), forced(in);
        compute(in, automatic, Algorithm::automatic, {}, "automatic");
        compute(in, forced, chosen, {}, "forced");
        CHECK(automatic.same_bits(forced), rows, samples, order, name_of(chosen));
        CHECK(lfilter_tv_algorithm(rows, samples, order, true) == Algorithm::direct, rows, samples, order);
      }
    }
  }
}

// A NaN or an infinity reaches what depends on it, and nothing else: no earlier sample (no later one on the way back),
// no other row.
void not_finite() {
  constexpr int struck = 1, samples = emulated ? 1100 : 600;  // more than a tile
  using Operands = Inputs<double, double>;
  using Results = Outputs<double, double>;
  for (const int order : {1, 2, 5, 17}) {
    for (const Frames frames : {Frames::all, Frames::one}) {
      if (slow && (frames == Frames::all) != (order % 2 == 0)) continue;
      Case c{{1, emulated ? 2 : 18}, samples, order};
      c.b_length = order == 2 ? -1 : 3;
      c.a_frames = frames;
      Operands in(c);
      for_each_kernel<double>(order, [&](Algorithm algorithm, const std::string& kernel) {
        Results clean(in), out(in);
        compute(in, clean, algorithm, {}, kernel);
        std::string where;
        // What has to be as it was, from sample to sample, in all parts. A stretch of segments that is not finite is
        // computed once more, one sample after the other: that rounds in another way.
        const auto same = [&](auto part, int row, int first, int last, int parts) {
          const bool cut = algorithm == Algorithm::segments || (emulated && order <= 2);
          const double rounding = cut && row == struck ? 1e-14 : 0;
          for (int t = first; t < last; ++t) {
            for (int j = 0; j < std::max(parts, 1); ++j) {
              const double now = parts > 0 ? (out.*part).at(row, j, t) : (out.*part).at(row, t);
              const double before = parts > 0 ? (clean.*part).at(row, j, t) : (clean.*part).at(row, t);
              if (!(std::abs(now - before) <= rounding * (1 + std::abs(before)))) return false;
            }
          }
          return true;
        };
        const auto lost = [&](auto part, int first, int last) {
          for (int t = first; t < last; ++t)
            if (std::isfinite((out.*part).at(struck, t))) return false;
          return true;
        };
        const int a_parts = c.a_length(), b_parts = std::max(c.b_length, 0);
        const auto others_are_same = [&] {
          for (int row = 0; row < c.grid.rows(); ++row) {
            if (row == struck) continue;
            CHECK(same(&Results::y, row, 0, samples, 0) && same(&Results::gx, row, 0, samples, 0) &&
                      same(&Results::zf, row, 0, order, 0) && same(&Results::gzi, row, 0, order, 0) &&
                      same(&Results::gzx, row, 0, c.b_order(), 0) &&
                      same(&Results::ga, row, 0, c.frames_of(frames), a_parts) &&
                      (b_parts == 0 || same(&Results::gb, row, 0, samples, b_parts)),
                  where, row);
          }
        };
        for (const double value : {std::nan(""), double{INFINITY}, -double{INFINITY}}) {
          for (const int t : {0, 1, 7, 8, 63, 64, 76, 300, 511, 512, 571, 599, 1024, 1099}) {
            if (t >= samples || (slow && !emulated && t % 100 != 0 && t != 599)) continue;
            // The first of a tile forwards, and backwards.
            if (emulated && (value < 0 || (order == 5 && std::isnan(value)))) continue;
            if (emulated && t != 0 && t != 76 && t != 300 && t != 1024 && t != 1099) continue;
            where = kernel + "order " + std::to_string(order) + " frames " + std::to_string(static_cast<int>(frames)) +
                    ' ' + std::to_string(value) + " at " + std::to_string(t);
            const double x = std::exchange(in.x.at(struck, t), value);
            compute(in, out, algorithm, {}, where);
            in.x.at(struck, t) = x;
            others_are_same();
            CHECK(same(&Results::y, struck, 0, t, 0), where, "x: earlier y");
            CHECK(lost(&Results::y, t, samples), where, "x: later y");
            CHECK(same(&Results::gx, struck, 0, samples, 0), where, "x: gx");
            CHECK(b_parts == 0 || same(&Results::gb, struck, 0, t, b_parts), where, "x: earlier gb");

            const double gy = std::exchange(in.gy.at(struck, t), value);
            compute(in, out, algorithm, {}, where);
            in.gy.at(struck, t) = gy;
            others_are_same();
            CHECK(same(&Results::gx, struck, t + 1, samples, 0), where, "gy: later gx");
            CHECK(lost(&Results::gx, 0, t + 1) && lost(&Results::gzi, 0, 1), where, "gy: earlier gx");
            CHECK(frames == Frames::one || same(&Results::ga, struck, t + 1, samples, a_parts), where, "gy: later ga");
            CHECK(b_parts == 0 || same(&Results::gb, struck, t + 1, samples, b_parts), where, "gy: later gb");

            if (frames == Frames::one) continue;
            const int lag = 1 + t % order;
            const double a = std::exchange(in.a.at(struck, lag - 1, t), value);
            compute(in, out, algorithm, {}, where);
            in.a.at(struck, lag - 1, t) = a;
            others_are_same();
            CHECK(same(&Results::y, struck, 0, t, 0), where, "a: earlier y", lag);
            CHECK(lost(&Results::y, t, samples), where, "a: later y", lag);
            CHECK(same(&Results::gx, struck, std::max(t - lag + 1, 0), samples, 0), where, "a: later gx", lag);
            CHECK(lost(&Results::gx, 0, t - lag + 1), where, "a: earlier gx", lag);
          }
        }
      });
    }
  }
}

// Poles outside the unit circle: as the recurrence itself, until it overflows.
template <class Sample>
void unstable() {
  constexpr long double largest_sample = std::numeric_limits<Sample>::max();
  const std::vector<std::vector<long double>> polynomials = {
      {-1.1L}, {1.1L}, {-2}, {2}, {-1.1L, 0.1L}, {-1.5L, 1.21L}, {-2, 4}, {0, -4}, {-1.9L, 1, -0.4L, 0.1L, -0.02L}};
  for (const auto& polynomial : polynomials) {
    for (const int rows : {1, emulated ? 2 : 17}) {
      if (emulated && rows == 2 && std::is_same_v<Sample, float>) continue;
      Case c{{1, rows}, 1100, static_cast<int>(polynomial.size())};
      Inputs<Sample, double> in(c);
      for (int row = 0; row < rows; ++row)
        for (int t = 0; t < c.samples; ++t)
          for (int k = 0; k < c.order; ++k)
            in.a.at(row, k, t) = static_cast<double>(polynomial[static_cast<std::size_t>(k)] * (1 + grid() / 100));
      std::vector<ReferenceTV<long double>> reference(static_cast<std::size_t>(rows));
      for (int row = 0; row < rows; ++row) filter(in.row(row), reference[static_cast<std::size_t>(row)]);
      for_each_kernel<Sample>(c.order, [&](Algorithm algorithm, const std::string& kernel) {
        Outputs<Sample, double> out(in);
        CHECK(lfilter_tv(in.forward(out.y, out.zf), algorithm) == Status::ok, kernel);
        for (int row = 0; row < rows; ++row) {
          const std::vector<long double>& y = reference[static_cast<std::size_t>(row)].y.value;
          long double so_far = 1;
          int t = 0;
          for (; t < c.samples && so_far < largest_sample; ++t) {
            const long double want = y[static_cast<std::size_t>(t)], got = out.y.at(row, t);
            so_far = std::max(so_far, std::abs(want));
            if (so_far >= largest_sample / 1e6L) continue;  // its terms may overflow before it
            const long double tolerance = 1e-12L * so_far + Number<Sample>::epsilon * std::abs(want);
            CHECK(std::abs(got - want) <= tolerance, kernel, c.text(), "row", row, "sample", t, got, want);
          }
          for (; t < c.samples && std::is_same_v<Sample, double>; ++t)
            CHECK(!std::isfinite(exact<Sample>(out.y.at(row, t))), kernel, c.text(), "row", row, "sample", t);
        }
      });
    }
  }
}

// What a segment or a block would grow to beyond all numbers does not matter where there is nothing to grow.
void unstable_silence() {
  constexpr int samples = emulated ? 2100 : 4100;
  for (const int order : {1, 2, 3, 17}) {
    for (const int rows : {1, emulated ? 2 : 17}) {
      for (const double pole : {2.0, -20.0, 1e30}) {
        if (emulated && (rows == 2) != (pole == 2)) continue;
        Case c{{1, rows}, samples, order};
        c.has_zi = c.has_gzf = false;
        Inputs<double, double> in(c);
        for (Block<double>* block : {&in.x, &in.gy}) block->fill([] { return 0.0; });
        for (int row = 0; row < rows; ++row) {
          for (int t = 0; t < samples; ++t)
            for (int k = 0; k < order; ++k) in.a.at(row, k, t) = k == 0 ? -pole : 0;
          in.x.at(row, samples - 9) = 1;
          in.gy.at(row, 8) = 1;
        }
        for_each_kernel<double>(order, [&](Algorithm algorithm, const std::string& kernel) {
          Outputs<double, double> out(in);
          compute(in, out, algorithm, {}, kernel);
          for (int row = 0; row < rows; ++row) {
            int wrong = 0;
            for (int t = 0; t < samples; ++t) {
              const int since = t - (samples - 9), until = 8 - t;
              const double y = since < 0 ? 0 : std::pow(pole, since), v = until < 0 ? 0 : std::pow(pole, until);
              wrong += !(std::abs(out.y.at(row, t) - y) <= 1e-13 * std::abs(y));
              wrong += !(std::abs(out.gx.at(row, t) - v) <= 1e-13 * std::abs(v));
            }
            CHECK(wrong == 0, kernel, c.text(), "pole", pole, "row", row, "wrong samples", wrong);
          }
        });
      }
    }
  }
}

void zero_a0() {
  if constexpr (emulated) {  // nobody looks for it: the sample is not finite, and those before it are as they were
    for (const int order : {0, 1, 2, 3, 33}) {
      Case c{{1, 2}, 100, order};
      c.a_first = 0;
      Inputs<double, double> in(c);
      for_each_kernel<double>(order, [&](Algorithm algorithm, const std::string& kernel) {
        Outputs<double, double> sound(in), out(in);
        compute(in, sound, algorithm, {}, kernel);
        const double was = std::exchange(in.a.at(1, 0, 50), 0.0);
        compute(in, out, algorithm, {}, kernel);
        in.a.at(1, 0, 50) = was;
        CHECK(!std::isfinite(out.y.at(1, 50)) && !std::isfinite(out.gx.at(1, 50)), kernel, order);
        for (int t = 0; t < c.samples; ++t) {
          const double rounding = 1e-14 * (1 + std::abs(sound.y.at(1, t)));
          CHECK(sound.y.at(0, t) == out.y.at(0, t), kernel, order, t);
          CHECK(t >= 50 || std::abs(sound.y.at(1, t) - out.y.at(1, t)) <= rounding, kernel, order, t);
        }
      });
    }
    return;
  }
  const auto all = [](auto& in, Status want, const char* what) {
    Outputs out(in);
    for_each_kernel<double>(in.c.order, [&](Algorithm algorithm, const std::string& kernel) {
      CHECK(lfilter_tv(in.forward(out.y, out.zf), algorithm, {two_halves, nullptr}) == want, kernel, in.c.text(), what);
      CHECK(lfilter_tv_backward(in.backward(out), algorithm, {two_halves, nullptr}) == want, kernel, in.c.text(), what);
    });
  };
  for (const int order : {0, 1, 2, 3, 17}) {
    for (const int rows : {1, 17}) {
      Case c{{1, rows}, 100, order};
      c.a_first = 0;
      {
        Inputs<float, float> in(c);
        all(in, Status::ok, "no zero");
        for (const int t : {0, 50, 99}) {
          const float was = std::exchange(in.a.at(rows - 1, 0, t), 0.0F);
          all(in, Status::zero_a0, "in one sample");
          in.a.at(rows - 1, 0, t) = was;
        }
      }
      c.a_frames = Frames::one;
      {
        Inputs<double, double> in(c);
        in.a.at(rows - 1, 0) = 0;
        all(in, Status::zero_a0, "in the only frame");
      }
      c.a_frames = Frames::more;
      c.period = 2;
      {
        Inputs<double, double> in(c);
        const double was = in.a.at(rows - 1, 0, 20);
        in.a.at(rows - 1, 0, 20) = -in.a.at(rows - 1, 0, 21);
        all(in, Status::zero_a0, "between two frames");
        in.a.at(rows - 1, 0, 20) = was;
        for (const int f : {50, 51, 52}) in.a.at(rows - 1, 0, f) = 0;
        all(in, Status::ok, "in frames that no sample reaches");
      }
    }
  }
}

template <class Sample, class Coefficient>
void refusals() {
  for (const int order : {0, 1, 2, 3, 16, 17, 33}) {
    for (const int rows : {0, 1, emulated ? 2 : 17}) {
      for (const int samples : {0, 40}) {
        Case c{{1, rows}, samples, order};
        Inputs<Sample, Coefficient> in(c);
        Outputs<Sample, Coefficient> out(in);
        for (const InstructionSet& set : instruction_sets()) {
          if (!set_isa(set.name)) continue;
          for (const Algorithm algorithm : algorithms) {
            const Status want = takes<Sample>(algorithm, order) ? Status::ok : Status::unsupported;
            const Status forward = lfilter_tv(in.forward(out.y, out.zf), algorithm);
            const Status backward = lfilter_tv_backward(in.backward(out), algorithm);
            // Where there is nothing to do, an algorithm may find that it can.
            const bool nothing = rows == 0 || samples == 0;
            CHECK(forward == want || (nothing && forward == Status::ok), set.name, name_of(algorithm), c.text());
            CHECK(backward == want || (nothing && backward == Status::ok), set.name, name_of(algorithm), c.text());
          }
        }
      }
    }
  }
}

// ------------------------------------------------------------------------------------------------------------ accuracy

// Where cheaper arithmetic fails: poles close to the unit circle, and low frequencies. b and a over time, a0 = 1 and
// not there.
struct Design {
  const char* name;
  int frames;
  std::array<long double, 3> b;
  std::vector<std::array<long double, 2>> a;
};

std::vector<Design> designs(int samples) {
  const long double pi = std::numbers::pi_v<long double>, radius = 0.9999L;
  const auto resonator = [&](long double angle) { return std::array{-2 * radius * std::cos(angle), radius * radius}; };
  std::vector<Design> result;
  for (const int angle : {1, 2, 13, 24, 32, 48, 63, 80, 95})
    result.push_back({"r = .9999", 1, {1, 0, 0}, {resonator(pi * angle / 96)}});
  // The centre frequency goes up and down, three octaves wide.
  for (const long double centre : {0.01L, 0.1L, 1.0L}) {
    Design d{"r = .9999, sweeping", samples, {1, 0, 0}, {}};
    for (int t = 0; t < samples; ++t) d.a.push_back(resonator(centre * std::exp2(1.5L * std::sin(t / 300.0L))));
    result.push_back(d);
  }
  const auto biquad = [&](const char* name, long double rate, long double quality, std::array<long double, 3> b_of_cos,
                          std::array<long double, 3> b_of_one) {
    const long double w = 2 * pi * 20 / rate, alpha = std::sin(w) / (2 * quality), cos = std::cos(w);
    Design d{name, 1, {}, {{-2 * cos / (1 + alpha), (1 - alpha) / (1 + alpha)}}};
    for (std::size_t k = 0; k < 3; ++k) d.b[k] = (b_of_one[k] + b_of_cos[k] * cos) / (1 + alpha);
    result.push_back(d);
  };
  biquad("20 Hz, Q 10, lowpass", 44100, 10, {-0.5L, -1, -0.5L}, {0.5L, 1, 0.5L});
  biquad("20 Hz, Q 10, highpass", 44100, 10, {0.5L, -1, 0.5L}, {0.5L, -1, 0.5L});
  biquad("20 Hz, Q 10, notch", 44100, 10, {0, -2, 0}, {1, 0, 1});
  biquad("20 Hz, Butterworth", 44100, 1 / std::numbers::sqrt2_v<long double>, {-0.5L, -1, -0.5L}, {0.5L, 1, 0.5L});
  return result;
}

long double relative_rms(const std::vector<long double>& error, const std::vector<long double>& exact) {
  long double above = 0, below = 0;
  for (const long double value : error) above += value * value;
  for (const long double value : exact) below += value * value;
  return std::sqrt(above / below);
}

// float: what rounding the exact result leaves, 2.7e-8 on most signals, and hardly more. double: 1e-10, and twice that
// for gradients, where segments do not correct what the scan of their states loses.
template <class Sample>
void accuracy(std::initializer_list<int> all_rows) {
  constexpr int samples = 4096;
  constexpr bool narrow = std::is_same_v<Sample, float>;
  long double worst[std::size(algorithm_names)] = {};
  for (const Design& design : designs(samples)) {
    for (const int rows : all_rows) {
      Case c{{1, rows}, samples, 2};
      c.b_length = design.b[1] == 0 && design.b[2] == 0 ? -1 : 3;
      c.x = c.a = c.b = by_all;
      c.has_zi = c.has_zx = c.has_gzf = false;
      c.a_frames = design.frames > 1 ? Frames::all : one_of({Frames::one, Frames::all});
      c.b_frames = one_of({Frames::one, Frames::all});
      c.wanted = gx;
      Inputs<Sample, double> in(c);
      for (int f = 0; f < c.frames_of(c.a_frames); ++f)
        for (int k = 0; k < 2; ++k)
          in.a.at(0, k, f) = static_cast<double>(design.a[static_cast<std::size_t>(f % design.frames)][k]);
      for (int f = 0; f < c.frames_of(c.b_frames) && c.b_length > 0; ++f)
        for (int k = 0; k < 3; ++k) in.b.at(0, k, f) = static_cast<double>(design.b[static_cast<std::size_t>(k)]);
      for (int row = 1; row < rows; ++row)
        for (int t = 0; t < samples; ++t) in.gy.at(row, t) = Sample(0);  // gx sums over rows
      ReferenceTV<long double> r;
      const FilterTV<long double> f = in.row(0);
      filter(f, r);
      filter_backward(f, r.y.value, in.gy.values(0), std::vector<long double>(2), r);
      for_each_kernel<Sample>(2, [&](Algorithm algorithm, const std::string& kernel) {
        Outputs<Sample, double> out(in);
        compute(in, out, algorithm, {}, kernel);
        const auto measure = [&](const std::vector<long double>& got, const std::vector<long double>& want,
                                 long double in_double, const char* what) {
          std::vector<long double> error, rounding;
          for (std::size_t t = 0; t < want.size(); ++t) {
            error.push_back(got[t] - want[t]);
            rounding.push_back(static_cast<Sample>(want[t]) - want[t]);
          }
          const long double rms = relative_rms(error, want);
          const long double promise = narrow ? 1.02L * relative_rms(rounding, want) : in_double;
          CHECK(rms <= promise, kernel, design.name, c.text(), what, rms, "promise", promise);
          long double& so_far = worst[static_cast<int>(algorithm)];
          so_far = std::max(so_far, rms);
        };
        measure(out.y.values(rows - 1), r.y.value, 1e-10L, "y");
        measure(out.gx.values(0), r.gx.value, 2e-10L, "gx");
      });
    }
  }
  std::cout << (narrow ? "float " : "double") << " relative rms, the worst:";
  for (const Algorithm algorithm : algorithms)
    if (takes<Sample>(algorithm, 2) && algorithm != Algorithm::automatic)
      std::cout << "  " << name_of(algorithm) << ' ' << worst[static_cast<int>(algorithm)];
  std::cout << '\n';
}

}  // namespace

int main() {
  every_size();
  every_number_of_rows();
  every_frame();
  every_sharing();
  every_part_wanted();
  every_type();
  the_same_bits();
  not_finite();
  unstable<double>();
  unstable<float>();
  unstable_silence();
  zero_a0();
  refusals<float, double>();
  refusals<Half, Half>();
  refusals<Complex, Complex>();
  accuracy<float>({1, emulated ? 2 : 16});
  accuracy<double>({1, emulated ? 2 : 16});
  return check::result();
}
