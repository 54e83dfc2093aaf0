// lfilter and lfilter_backward against a plain reference in long double: every algorithm on every instruction set that
// the machine has, at sizes around every boundary. The kernels for CUDA take the same tests on the emulator, at fewer
// sizes, and some of their own.
#include "torch_iir/lfilter.h"

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "reference.h"
#include "torch_iir/instruction_sets.h"
#if defined(TORCH_IIR_EMULATED)
#include <cmath>
#include <limits>
#include <numbers>

#include "emulator/scheduler.h"
#include "torch_iir/cuda.h"
#endif

using namespace torch_iir;

namespace {

struct Case {
  int rows, samples, b_length, a_length;
  int signals = 1;  // that each of the rows' filters is given
  Layout layout = Layout::contiguous;
  Shared shared_x = {}, shared_filter = {};
  bool zi = true, gzf = true;
  long double a0 = 1;

  int order() const { return std::max(b_length, a_length) - 1; }
  std::string text() const {
    const auto shares = [](Shared shared, const char* what) {
      return shared.outer || shared.inner
                 ? std::string(" shared ") + what + (shared.outer ? " outer" : "") + (shared.inner ? " inner" : "")
                 : "";
    };
    return "signals " + std::to_string(signals) + " rows " + std::to_string(rows) + " samples " +
           std::to_string(samples) + " b " + std::to_string(b_length) + " a " + std::to_string(a_length) + " layout " +
           std::to_string(static_cast<int>(layout)) + shares(shared_x, "x") + shares(shared_filter, "filter") +
           (zi ? " zi" : "") + (gzf ? " gzf" : "");
  }
};

constexpr Algorithm on_cpu[] = {Algorithm::automatic, Algorithm::direct, Algorithm::rows, Algorithm::segments,
                                Algorithm::blocks};
constexpr Algorithm on_cuda[] = {Algorithm::automatic, Algorithm::direct, Algorithm::rows, Algorithm::clusters,
                                 Algorithm::lookback};
constexpr std::span<const Algorithm> algorithms = emulated ? on_cuda : on_cpu;

// Where an algorithm may decline.
bool may_decline(Algorithm algorithm, int order, bool complex) {
  if (algorithm == Algorithm::automatic || algorithm == Algorithm::direct) return false;
  if (emulated) return complex || order > 8 || algorithm == Algorithm::clusters;  // which not every machine has
  return complex || (algorithm == Algorithm::segments && (order < 1 || order > 6));
}

template <class Sample>
void run(const Case& c) {
  using E = Exact<Sample>;
  using State = StateOf<E>;
  constexpr bool complex = std::is_same_v<State, Complex>;
  constexpr long double epsilon = Number<Sample>::epsilon;
  const int order = c.order();
  const Grid grid{c.signals, c.rows};
  const int rows = grid.rows();

  Block<Sample> x(grid, c.samples, c.layout, c.shared_x), gy(grid, c.samples, c.layout);
  Block<State> b(grid, c.b_length, c.layout, c.shared_filter), a(grid, c.a_length, c.layout, c.shared_filter);
  Block<State> zi(grid, order, c.layout), gzf(grid, order, c.layout);
  x.fill([] { return sample<Sample>(random_value<E>()); });
  gy.fill([] { return sample<Sample>(random_value<E>()); });
  for (Block<State>* block : {&b, &zi, &gzf}) block->fill([] { return static_cast<State>(random_value<E>()); });
  for (int row = 0; row < rows; ++row) {
    const std::vector<E> poles = denominator<E>(c.a_length - 1, c.a0);
    for (int k = 0; k < c.a_length; ++k) a.at(row, k) = static_cast<State>(poles[static_cast<std::size_t>(k)]);
  }

  // The reference, and y as the samples that backward is given. What several rows share is summed where its owner is.
  const std::vector<E> zeros(static_cast<std::size_t>(order));
  std::vector<Reference<E>> reference(static_cast<std::size_t>(rows)), sums(reference.size());
  Block<Sample> y_given(grid, c.samples, c.layout);
  for (int row = 0; row < rows; ++row) {
    Reference<E>& r = reference[static_cast<std::size_t>(row)];
    filter(b.values(row), a.values(row), x.values(row), c.zi ? zi.values(row) : zeros, r);
    for (int t = 0; t < c.samples; ++t) y_given.at(row, t) = sample<Sample>(r.y.value[static_cast<std::size_t>(t)]);
    filter_backward(b.values(row), a.values(row), x.values(row), y_given.values(row), gy.values(row),
                    c.gzf ? gzf.values(row) : zeros, r);
    sums[x.owner(row)].gx.add(r.gx);
    sums[b.owner(row)].gb.add(r.gb);
    sums[a.owner(row)].ga.add(r.ga);
  }

  for (const InstructionSet& set : instruction_sets()) {
    if (!set_isa(set.name)) continue;
    for (const Algorithm algorithm : algorithms) {
      const bool as_before = algorithm == Algorithm::direct || algorithm == Algorithm::rows;  // on another machine
      if (emulated && as_before && &set != &instruction_sets().front()) continue;
      const auto where = [&] {
        return std::string(set.name) + ' ' + algorithm_names[static_cast<int>(algorithm)] + ' ' + c.text();
      };
      const auto compare = [&](auto& block, int row, const Bounded<E>& want, long double eps, const char* what) {
        const long double tolerance = want.error + tiny<Sample>, excess = block.excess(row, 0, want, eps, tolerance);
        CHECK(excess == 0, where(), what, "row", row, "error", excess, "tolerance", tolerance);
      };

      Block<Sample> y(grid, c.samples, c.layout);
      Block<State> zf(grid, order, c.layout);
      LFilter<Sample, State> forward;
      forward.batch = grid.batch();
      forward.samples = c.samples;
      forward.b_length = c.b_length;
      forward.a_length = c.a_length;
      forward.x = x.input();
      forward.b = b.input();
      forward.a = a.input();
      if (c.zi) forward.zi = zi.input();
      forward.y = y.rows();
      forward.zf = zf.rows();
      const Status status = lfilter(forward, algorithm, {two_halves, nullptr});
      if (status == Status::unsupported) {
        CHECK(may_decline(algorithm, order, complex), where());
        continue;
      }
      if (!CHECK(status == Status::ok, where(), static_cast<int>(status))) continue;
      for (int row = 0; row < rows; ++row) {
        const Reference<E>& r = reference[static_cast<std::size_t>(row)];
        compare(y, row, r.y, epsilon, "y");
        compare(zf, row, r.zf, 0, "zf");
      }
      CHECK(y.intact() && zf.intact(), where());

      Block<Sample> gx(grid, c.samples, c.layout, c.shared_x);
      Block<State> gb(grid, c.b_length, c.layout, c.shared_filter), ga(grid, c.a_length, c.layout, c.shared_filter);
      Block<State> gzi(grid, order, c.layout);
      LFilterBackward<Sample, State> backward;
      backward.batch = grid.batch();
      backward.samples = c.samples;
      backward.b_length = c.b_length;
      backward.a_length = c.a_length;
      backward.gy = gy.input();
      if (c.gzf) backward.gzf = gzf.input();
      backward.x = x.input();
      backward.y = y_given.input();
      backward.b = b.input();
      backward.a = a.input();
      backward.gx = gx.rows();
      backward.gb = gb.rows();
      backward.ga = ga.rows();
      backward.gzi = gzi.rows();
      const Status status_backward = lfilter_backward(backward, algorithm, {two_halves, nullptr});
      if (status_backward == Status::unsupported) {
        CHECK(may_decline(algorithm, order, complex), where());
        continue;
      }
      if (!CHECK(status_backward == Status::ok, where())) continue;
      for (int row = 0; row < rows; ++row) {
        compare(gx, row, sums[gx.owner(row)].gx, epsilon, "gx");
        compare(gb, row, sums[gb.owner(row)].gb, 0, "gb");
        compare(ga, row, sums[ga.owner(row)].ga, 0, "ga");
        compare(gzi, row, reference[static_cast<std::size_t>(row)].gzi, 0, "gzi");
      }
      CHECK(gx.intact() && gb.intact() && ga.intact() && gzi.intact(), where());
    }
  }
}

// Of this size, with everything else by turns.
Case varied(int rows, int samples, int order, int count) {
  Case c{rows, samples, order + 1, order + 1};
  c.layout = static_cast<Layout>(count % 3);
  if (count % 5 == 4) c.shared_x = by_all;
  if (count % 4 != 3) c.shared_filter = by_all;
  c.zi = count % 7 != 0;
  c.gzf = count % 6 != 0;
  c.a0 = count % 9 == 8 ? 2 : 1;
  if (count % 8 == 3) c.b_length = std::max(1, order / 2);
  if (count % 8 == 6) c.a_length = std::max(1, order / 2);
  return c;
}

void every_size() {
  if constexpr (emulated) return;
  const int samples[] = {0,  1,  2,  3,   7,   8,   9,   15,  16,  17,   31,   32,   33,
                         63, 64, 65, 127, 128, 129, 255, 256, 257, 1000, 1279, 1288, 2593};
  const int orders[] = {0, 1, 2, 3, 4, 5, 7, 8, 10, 12, 13, 16, 17, 32, 33, 64};
  int count = 0;
  for (const int order : orders) {
    for (const int t : samples) {
      for (const int rows : {1, 3, 17}) {
        if (rows > 1 && t > (order > 16 ? 129 : 1000)) continue;  // costs time, and is no boundary of its own
        Case c = varied(rows, t, order, count++);
        run<double>(c);
        run<float>(c);
      }
    }
  }
}

// Around a thread's samples, a warp's, a tile's and, with all others, what the blocks of a cluster have at a time.
void every_size_of_tiles() {
  if constexpr (!emulated) return;
  int count = 0;
  for (const int order : {0, 1, 2, 3, 4, 5, 8, 9, 16, 33}) {
    for (const int t : {0, 1, 2, 7, 16, 31, 33, 129, 513, 1025}) {
      if (order > 8 && t > 200) continue;
      run<double>(varied(1 + 2 * (count % 2), t, order, count));
      run<float>(varied(3 - 2 * (count % 2), t, order, count));
      ++count;
    }
  }
  for (const int order : {0, 1, 2, 4, 7}) {
    for (const int t : {2049, 4095, 4097, 8200, 33000}) {
      if (t > 8200 && order != 2) continue;
      if (count % 2 == 0) run<double>(varied(1, t, order, count));
      else run<float>(varied(1, t, order, count));
      ++count;
    }
  }
}

void every_number_of_rows() {
  for (int rows = 1; rows <= (emulated ? 18 : 33); rows += emulated ? (rows < 3 ? 1 : 15) : rows < 17 ? 1 : 16) {
    for (const int order : {1, 2, 5, 10}) {
      if (emulated && (order % 5 == 0) != (rows == 2)) continue;
      for (const bool shared : {false, true}) {
        Case c{rows, 150, order + 1, order + 1};
        if (shared) c.shared_x = by_all;
        run<float>(c);
        c.layout = static_cast<Layout>(rows % 3);
        c.shared_x = {};
        if (shared) c.shared_filter = by_all;
        run<double>(c);
      }
    }
  }
}

void every_type() {
  for (const int t : {0, 1, 5, 64, 333}) {
    for (const int order : {0, 1, 2, 7}) {
      for (const int rows : {1, 2, 19}) {
        if (emulated && rows > 2 && (t != 5 || order != 2)) continue;
        Case c{rows, t, order + 1, order + 1};
        c.layout = static_cast<Layout>((t + rows) % 3);
        if (rows == 2) c.shared_filter = by_all;
        run<Half>(c);
        run<BFloat16>(c);
        c.a0 = 2;
        run<Complex>(c);
      }
    }
  }
}

// Any a0 but powers of 2 rounds the normalised coefficients: compare with what the algorithms agree on instead.
void a0_is_divided_out() {
  for (const InstructionSet& set : instruction_sets()) {
    if (!set_isa(set.name)) continue;
    const double b[] = {0.3, -0.2, 0.1}, a[] = {3.0, -1.5, 0.75}, b_1[] = {0.1, -0.2 / 3, 0.1 / 3},
                 a_1[] = {1, -0.5, 0.25};
    std::vector<double> x(100), y(100), y_1(100);
    for (double& value : x) value = static_cast<double>(grid());
    LFilter<double> f;
    f.samples = 100;
    f.b_length = f.a_length = 3;
    f.x = {x.data()};
    f.b = {b};
    f.a = {a};
    f.y = {y.data()};
    CHECK(lfilter(f) == Status::ok);
    f.b = {b_1};
    f.a = {a_1};
    f.y = {y_1.data()};
    CHECK(lfilter(f) == Status::ok);
    for (std::size_t t = 0; t < y.size(); ++t) CHECK(std::abs(y[t] - y_1[t]) < 1e-15, set.name, t, y[t] - y_1[t]);

    const double zero[] = {0.0, 1.0, 1.0};
    f.a = {zero};
    for (const Algorithm algorithm : algorithms) {
      const Status status = lfilter(f, algorithm);
      if (!emulated) CHECK(status == Status::zero_a0, set.name);
      else if (status == Status::ok) CHECK(!std::isfinite(y_1[0]) && !std::isfinite(y_1[99]), set.name);
      else CHECK(may_decline(algorithm, 2, false), set.name);
    }
  }
}

// Banks: the filters of a signal stand side by side or apart, lanes are left over or not, and the signals' gradients
// are sums over filters, the filters' over signals.
void banks() {
  int count = 0;
  for (const int filters : {1, 5, 16, 17, 33}) {
    for (int order = 1; order <= 7; ++order) {
      for (const int samples : {70, 300}) {
        const bool enough = filters == 5 ? samples == 300 : filters == 17 && samples == 70;
        if (emulated && (order % 3 != 2 || !enough)) continue;
        Case c{filters, samples, order + 1, order + 1};
        c.signals = 2;
        c.layout = static_cast<Layout>(count++ % 3);
        c.zi = c.gzf = count % 2 == 0;
        c.shared_x = {false, true};  // [signals, 1, T] through [filters, K]
        c.shared_filter = {true, false};
        run<float>(c);
        std::swap(c.signals, c.rows);  // [signals, T] through [filters, 1, K]
        c.shared_x = {true, false};
        c.shared_filter = {false, true};
        run<double>(c);
      }
    }
  }
}

#if defined(TORCH_IIR_EMULATED)

// ------------------------------------------------------------------------------------------ of the kernels for CUDA

constexpr Algorithm forms[] = {Algorithm::automatic, Algorithm::rows, Algorithm::clusters, Algorithm::lookback};

// What the emulator is like, until the end of the scope.
class OnMachine {
 public:
  explicit OnMachine(int processors, std::uint64_t seed = 1, int resident_blocks = 3) : before_(machine()) {
    machine().processors = processors;
    machine().seed = seed;
    machine().resident_blocks = resident_blocks;
    machine().clusters = true;
  }
  ~OnMachine() { machine() = before_; }

 private:
  static cuda::emulator::Machine& machine() { return cuda::emulator::machine(); }
  cuda::emulator::Machine before_;
};

// Filters of one order over rows of samples, in memory that is aligned, but for `offset` samples. In a bank, every
// filter has every signal.
template <class Sample>
struct Problem {
  int signals, filters, samples, order;
  bool bank = false;
  int offset = 0;
  std::vector<Sample> x, y;
  std::vector<double> b, a, zi, zf;

  Problem(int signals_, int filters_, int samples_, int order_, bool bank_ = false)
      : signals(signals_), filters(filters_), samples(samples_), order(order_), bank(bank_) {
    const auto size = [](int count) { return static_cast<std::size_t>(count); };
    x.resize(size((bank ? signals : rows()) * samples + 4));
    for (Sample& value : x) value = sample<Sample>(grid());
    y.resize(size(rows() * samples + 4));
    for (int f = 0; f < filters; ++f) {
      for (const long double value : denominator<long double>(order, 1)) a.push_back(static_cast<double>(value));
      for (int k = 0; k <= order; ++k) b.push_back(static_cast<double>(grid()));
    }
    zi.resize(size(rows() * order));
    for (double& value : zi) value = static_cast<double>(grid());
    zf.resize(zi.size());
  }
  int rows() const { return signals * filters; }
  const Sample* x_row(int row) const {
    return x.data() + offset + static_cast<std::ptrdiff_t>(bank ? row / filters : row) * samples;
  }
  const Sample* y_row(int row) const { return y.data() + offset + static_cast<std::ptrdiff_t>(row) * samples; }

  Status run(Algorithm algorithm) {
    LFilter<Sample> f;
    f.batch = {2, {signals, filters}};
    f.samples = samples;
    f.b_length = f.a_length = order + 1;
    f.x = {x.data() + offset, 1, {bank ? samples : std::int64_t{samples} * filters, bank ? 0 : samples}};
    f.y = {y.data() + offset, 1, {std::int64_t{samples} * filters, samples}};
    f.b = {b.data(), 1, {0, order + 1}};
    f.a = {a.data(), 1, {0, order + 1}};
    f.zi = {zi.data(), 1, {std::int64_t{order} * filters, order}};
    f.zf = {zf.data(), 1, {std::int64_t{order} * filters, order}};
    return lfilter(f, algorithm);
  }
  Reference<long double> reference(int row, bool with_error = true) const {
    const auto part = [](const std::vector<double>& from, int which, int length) {
      return std::vector<long double>(from.begin() + which * length, from.begin() + (which + 1) * length);
    };
    std::vector<long double> signal;
    for (int t = 0; t < samples; ++t) signal.push_back(exact<Sample>(x_row(row)[t]));
    Reference<long double> result;
    const auto taps = [&](const std::vector<double>& from) { return part(from, row % filters, order + 1); };
    if (with_error) {
      filter(taps(b), taps(a), signal, part(zi, row, order), result);
    } else {
      result.zf.value = part(zi, row, order);
      result.y.value = response(taps(b), taps(a), signal, result.zf.value);
    }
    return result;
  }
  std::string text() const {
    return std::to_string(signals) + (bank ? " through " : " with ") + std::to_string(filters) + " filters of order " +
           std::to_string(order) + ", samples " + std::to_string(samples) + ", offset " + std::to_string(offset);
  }

  void check_against_reference(Algorithm algorithm) {
    const auto where = [&] { return std::string(algorithm_names[static_cast<int>(algorithm)]) + ' ' + text(); };
    std::fill(y.begin(), y.end(), sample<Sample>(-1));
    if (!CHECK(run(algorithm) == Status::ok, where())) return;
    CHECK(offset == 0 || exact<Sample>(y[0]) == -1, where());
    CHECK(exact<Sample>(y[static_cast<std::size_t>(offset + rows() * samples)]) == -1, where());
    for (int row = 0; row < rows(); row += rows() > 20 ? 7 : 1) {
      const Reference<long double> want = reference(row);
      int right = 0;  // samples
      for (; right < samples; ++right) {
        const long double value = want.y.value[static_cast<std::size_t>(right)];
        const long double allowed = want.y.error + tiny<Sample> + Number<Sample>::epsilon * std::abs(value);
        if (!(std::abs(exact<Sample>(y_row(row)[right]) - value) <= allowed)) break;
      }
      CHECK(right == samples, where(), "row", row, "sample", right);
      for (int i = 0; i < order; ++i) {
        const long double error =
            std::abs(zf[static_cast<std::size_t>(row * order + i)] - want.zf.value[static_cast<std::size_t>(i)]);
        CHECK(error <= want.zf.error, where(), "row", row, "state", i, error, want.zf.error);
      }
    }
  }
};

// Around what a thread, a warp, a tile and a cluster have, in rows that are aligned and in rows that are not.
template <class Sample>
void boundaries(int order) {
  const int K = (order > 4 ? 256 : 128) / static_cast<int>(sizeof(Sample)), tile = K * (order > 4 ? 64 : 128);
  const OnMachine machine(4);
  for (const int at : {K, 32 * K, tile, 2 * tile, 8 * tile}) {
    for (const int samples : {at - 1, at, at + 1}) {
      if (at == 2 * tile && samples == at) continue;
      Problem<Sample> p(1, at > tile ? 1 : 2, samples, order);
      p.offset = samples % 2;
      for (const Algorithm algorithm : forms) p.check_against_reference(algorithm);
    }
  }
}

// More tiles than are looked back at, and more rows than blocks.
void many_tiles() {
  const OnMachine machine(2);
  constexpr int group = 256 * 2048;
  for (const int samples : {group, 2 * group + 2049}) {
    if (sanitized && samples > group) continue;
    Problem<double> p(1, 1, samples, samples == group ? 1 : 2);
    p.check_against_reference(Algorithm::lookback);
  }
  for (const Algorithm algorithm : forms) {
    Problem<float> many(1, 50, 5000, 2);
    many.check_against_reference(algorithm);
  }
}

// Signals through filters: slices that are full or not, tiles one after another or spread over clusters.
template <class Sample>
void large_banks() {
  const int tile = 16384 / static_cast<int>(sizeof(Sample));
  for (const int processors : {2, 40}) {
    for (const int filters : {4, 9, 17}) {
      for (const int samples : {100, tile, 3 * tile + 5}) {
        if (samples > tile && filters == 17 && processors == 2) continue;
        const OnMachine machine(processors, static_cast<std::uint64_t>(filters));
        Problem<Sample> p(samples > tile ? 1 : 2, filters, samples, filters == 9 ? 1 : 2, true);
        p.offset = filters % 2;
        p.check_against_reference(Algorithm::automatic);
      }
    }
  }
}

// The same bits whoever comes first.
void any_order() {
  for (const bool bank : {false, true}) {
    Problem<float> p(bank ? 2 : 1, bank ? 6 : 2, 20000, 2, bank);
    for (const Algorithm algorithm : forms) {
      std::vector<float> first;
      for (const int seed : {1, 2, 3}) {
        const OnMachine machine(8, static_cast<std::uint64_t>(seed), 2 * seed - 1);
        std::fill(p.y.begin(), p.y.end(), 0.0f);
        CHECK(p.run(algorithm) == Status::ok, p.text());
        if (seed == 1) first = p.y;
        CHECK(std::memcmp(first.data(), p.y.data(), first.size() * sizeof(float)) == 0, p.text(), seed);
      }
    }
  }
}

// Poles outside the unit circle: the powers of the transition overflow long before the outputs do, or with them. Each
// sample adds a rounding of its own, and what is there already grows as the output does.
template <class Sample>
void unstable() {
  const OnMachine machine(4);
  for (const double radius : {1.001, 1.1, 2.0}) {
    for (const int order : {1, 2, 3, 6}) {
      for (const bool bank : {false, true}) {
        if (bank && order > 2) continue;
        Problem<Sample> p(1, bank ? 5 : 1, 9000, order, bank);
        // One filter grows; what stands beside it in a bank does not.
        for (int k = order; k > 0; --k)  // (1 − radius z⁻¹) in place of a pole of the others
          p.a[static_cast<std::size_t>(k)] = k == 1 ? -radius : 0.0;
        p.a[0] = 1;
        for (const Algorithm algorithm : forms) {
          if (bank && algorithm != Algorithm::automatic) continue;
          if (!CHECK(p.run(algorithm) == Status::ok)) continue;
          for (int row = 0; row < p.rows(); ++row) {
            const Reference<long double> want = p.reference(row, row > 0);
            long double largest_so_far = 0;
            int t = 0;
            for (; t < p.samples; ++t) {
              const long double value = want.y.value[static_cast<std::size_t>(t)], got = exact<Sample>(p.y_row(row)[t]);
              largest_so_far = std::max({largest_so_far, std::abs(value), 1.0L});
              const long double allowed =
                  row > 0 ? want.y.error + Number<Sample>::epsilon * std::abs(value)
                          : Number<Sample>::epsilon * std::abs(value) +
                                8 * (order + 2) * (t + 1) * Number<double>::epsilon * largest_so_far;
              const bool overflows = std::abs(value) > std::numeric_limits<Sample>::max() * 0.999L;
              const bool right = overflows ? !std::isfinite(got) || std::abs(got - value) <= allowed
                                           : std::abs(got - value) <= allowed;
              if (!right) break;
            }
            CHECK(t == p.samples, p.text(), algorithm_names[static_cast<int>(algorithm)], radius, "row", row, "at", t);
          }
        }
      }
    }
  }
}

// What is not finite changes nothing before it, and all that comes after.
void not_finite() {
  const OnMachine machine(4);
  constexpr int samples = 3 * 8192 + 100;
  for (const bool bank : {false, true}) {
    for (const int order : {1, 2, 8}) {
      if (bank && order > 2) continue;
      Problem<float> p(1, bank ? 4 : 1, samples, order, bank);
      for (const Algorithm algorithm : forms) {
        CHECK(p.run(algorithm) == Status::ok);
        const std::vector<float> clean = p.y;
        for (const int at : {0, 37, 4096, 9001, samples - 1}) {
          const std::size_t place = static_cast<std::size_t>(at);
          const float before = std::exchange(p.x[place], at % 2 != 0 ? NAN : INFINITY);
          CHECK(p.run(algorithm) == Status::ok);
          p.x[place] = before;
          for (int row = 0; row < p.rows(); ++row) {
            const auto first = static_cast<std::size_t>(row) * samples;
            CHECK(std::memcmp(&p.y[first], &clean[first], place * sizeof(float)) == 0, p.text(), at);
            CHECK(std::none_of(p.y.begin() + static_cast<std::ptrdiff_t>(first + place),
                               p.y.begin() + static_cast<std::ptrdiff_t>(first + samples),
                               [](float value) { return std::isfinite(value); }),
                  p.text(), at, algorithm_names[static_cast<int>(algorithm)]);
          }
        }
      }
    }
  }
}

// Poles so near the unit circle that float32 inside would not do: relative rms errors.
template <class Sample>
void accuracy() {
  const OnMachine machine(4);
  constexpr int samples = 30000, filters = 12;
  constexpr double pi = std::numbers::pi;
  double worst = 0;
  for (const bool bank : {false, true}) {
    Problem<Sample> p(1, filters, samples, 2, bank);
    for (int f = 0; f < filters; ++f) {
      double* const b = &p.b[static_cast<std::size_t>(3 * f)];
      double* const a = &p.a[static_cast<std::size_t>(3 * f)];
      const double w = 2 * pi * 20 / 44100, alpha = std::sin(w) / 20, c = std::cos(w);
      const double theta = f % 2 != 0 ? pi * f / 16 : pi * (f + 0.5) / 13;
      const auto put = [](double* to, double first, double second, double third, double a0) {
        to[0] = first / a0;
        to[1] = second / a0;
        to[2] = third / a0;
      };
      if (f < 4) {  // 20 Hz, Q 10: lowpass, highpass, notch, bandpass
        const double low = 1 - c, high = 1 + c;
        const double numerators[4][3] = {
            {low / 2, low, low / 2}, {high / 2, -high, high / 2}, {1, -2 * c, 1}, {alpha, 0, -alpha}};
        put(b, numerators[f][0], numerators[f][1], numerators[f][2], 1 + alpha);
        put(a, 1 + alpha, -2 * c, 1 - alpha, 1 + alpha);
      } else {
        put(a, 1, -2 * 0.9999 * std::cos(theta), 0.9999 * 0.9999, 1);
      }
    }
    std::fill(p.zi.begin(), p.zi.end(), 0.0);
    for (const Algorithm algorithm : forms) {
      if (bank && algorithm != Algorithm::automatic) continue;
      CHECK(p.run(algorithm) == Status::ok);
      for (int row = 0; row < p.rows(); ++row) {
        const Reference<long double> want = p.reference(row, false);
        long double error = 0, size = 0;
        for (int t = 0; t < samples; ++t) {
          const long double value = want.y.value[static_cast<std::size_t>(t)];
          error += (p.y_row(row)[t] - value) * (p.y_row(row)[t] - value);
          size += value * value;
        }
        const double relative = static_cast<double>(std::sqrt(error / size));
        worst = std::max(worst, relative);
        // A double has no rounding of its own to hide behind: 1/A carries on that of the samples before it.
        const std::vector<long double> poles(&p.a[static_cast<std::size_t>(3 * row)],
                                             &p.a[static_cast<std::size_t>(3 * row)] + 3);
        const double gain = static_cast<double>(all_pole_gain(poles, samples));
        const double allowed = sizeof(Sample) == 4 ? 1e-7 : 0x1p-52 * gain;
        CHECK(relative <= allowed, "row", row, algorithm_names[static_cast<int>(algorithm)], bank, relative, allowed);
      }
    }
  }
  std::cout << "relative rms error near the unit circle, " << (sizeof(Sample) == 4 ? "float" : "double") << ": "
            << worst << '\n';
}

// Coefficients and states of any type, on their own.
void small_operands_of_any_type() {
  const float b[] = {0.5f, 0.25f, -0.125f}, a[] = {2.0f, -0.5f, 0.25f};
  const double wide_b[] = {0.5, 0.25, -0.125}, wide_a[] = {2.0, -0.5, 0.25}, wide_zi[] = {1.0, -0.5};
  const std::uint16_t zi[] = {0x3c00, 0xb800};  // as halves
  std::vector<float> x(300), y(x.size()), want(x.size());
  std::vector<double> want_zf(2);
  for (float& value : x) value = static_cast<float>(grid());
  float zf[2] = {};
  cuda::LFilter<float> f;
  f.samples = 300;
  f.b_length = f.a_length = 3;
  f.x = {x.data()};
  f.y = {y.data()};
  f.b = {b, DType::float32};
  f.a = {a, DType::float32};
  f.zi = {zi, DType::float16};
  f.zf = {zf, DType::float32};
  CHECK(cuda::lfilter(f, {}, Algorithm::rows) == Status::ok);
  f.y = {want.data()};
  f.b = {wide_b, DType::float64};
  f.a = {wide_a, DType::float64};
  f.zi = {wide_zi, DType::float64};
  f.zf = {want_zf.data(), DType::float64};
  CHECK(cuda::lfilter(f, {}, Algorithm::rows) == Status::ok);
  CHECK(y == want && zf[0] == static_cast<float>(want_zf[0]) && zf[1] == static_cast<float>(want_zf[1]));
  CHECK(cuda::lfilter(f, {}, Algorithm::lookback) == Status::out_of_memory);
  CHECK(cuda::lfilter(f, {}, Algorithm::segments) == Status::unsupported);
}

// Orders above those of the tiles, and complex filters: around the ends of segments, of warps of them, of groups and of
// groups of groups; filters whose states do not fit in shared memory; rows that add to one gradient.
void wide_orders() {
  int count = 0;
  for (const int order : {9, 10, 16, 17, 31, 32, 33, 64, 200}) {
    for (const int t : {0, 1, 2, 15, 16, 17, 31, 33, 64, 65, 129, 257}) {
      if (order > 100 && t > 2) continue;  // these denominators are not stable any more
      ++count;
      if (sanitized && count % 4 != 0) continue;
      if (count % 2 == 0) {
        run<double>(varied(1 + count % 3, t, order, count));
      } else {
        run<float>(varied(1 + count % 3, t, order, count));
      }
      if (t % 16 == 1) run<Complex>(varied(1 + count % 3, t, order < 11 ? order - 8 : order, count));
      if (t % 16 == 15) run<Half>(varied(2, t, 12, count));
    }
  }
  run<double>({1, 40, 2801, 21});
  for (const int rows : {5, 40}) {
    Case c{rows, 70, 10, 10};
    c.shared_x = by_all;
    run<float>(c);
    c.shared_x = {};
    c.shared_filter = by_all;
    run<float>(c);
    c.layout = Layout::backwards;
    run<BFloat16>(c);
    run<Complex>({rows, 70, 4, 4});
  }
  for (const bool signals_first : {false, true}) {
    Case c{9, 150, 11, 11, 2};
    if (!signals_first) std::swap(c.signals, c.rows);
    c.shared_x = {!signals_first, signals_first};
    c.shared_filter = {signals_first, !signals_first};
    run<float>(c);
    run<double>(c);
  }
  run<float>(varied(3, 2100, 20, 0));
  run<Complex>(varied(2, 2100, 3, 1));
  if (!sanitized) run<float>(varied(1, 12400, 20, 0));
  const OnMachine machine(24);
  Problem<double> p(1, 1, sanitized ? 30000 : 600000, 9);
  p.check_against_reference(Algorithm::automatic);
}

// Poles close together: what carries a state over a segment cancels, and may do so beyond all use. The errors stay in
// proportion to those of the direct form.
void close_poles() {
  const OnMachine machine(8);
  constexpr int samples = 8000;
  for (const double radius : {0.9, 0.97, 0.9999}) {
    for (const double apart : {0.02, 0.06, 0.2}) {
      Problem<double> p(1, 1, samples, 10);
      std::vector<long double> a{1};
      for (int i = 0; i < 5; ++i) {
        const long double angle = 0.3L + apart * i, first = -2 * radius * std::cos(angle), second = radius * radius;
        std::vector<long double> product(a.size() + 2);
        for (std::size_t k = 0; k < a.size(); ++k) {
          product[k] += a[k];
          product[k + 1] += first * a[k];
          product[k + 2] += second * a[k];
        }
        a = product;
      }
      for (std::size_t k = 0; k < a.size(); ++k) p.a[k] = static_cast<double>(a[k]);
      const Reference<long double> want = p.reference(0, false);
      const auto error = [&](Algorithm algorithm) {
        CHECK(p.run(algorithm) == Status::ok);
        long double sum = 0, size = 0;
        for (int t = 0; t < samples; ++t) {
          const long double value = want.y.value[static_cast<std::size_t>(t)];
          sum += (p.y_row(0)[t] - value) * (p.y_row(0)[t] - value);
          size += value * value;
        }
        return static_cast<double>(std::sqrt(sum / size));
      };
      const double direct = error(Algorithm::direct), automatic = error(Algorithm::automatic);
      CHECK(automatic <= 32 * direct, radius, apart, automatic, direct);
    }
  }
}

// A bank in which one filter may be unstable, its powers overflowing, and an input that may not be finite at one place:
// as the direct form has it, the sums of gradients, too; and the same bits whoever comes first.
void wide_banks(int order, int samples, double radius, int bad, float value) {
  constexpr int filters = 9, grows = 3;
  Problem<float> p(1, filters, samples, order, true);
  for (int k = order; k > 0; --k) p.a[static_cast<std::size_t>(grows * (order + 1) + k)] = k == 1 ? -radius : 0.0;
  if (bad >= 0) p.x[static_cast<std::size_t>(bad)] = value;
  struct Result {
    std::vector<float> y, gx;
    std::vector<double> gb;
  };
  const auto results = [&](Algorithm algorithm, const std::vector<float>* y) {
    Result result;
    CHECK(p.run(algorithm) == Status::ok, p.text());
    result.y = p.y;
    if (y == nullptr) y = &result.y;
    result.gx.resize(p.x.size());
    result.gb.resize(p.b.size());
    LFilterBackward<float> g;
    g.batch = {1, {filters}};
    g.samples = samples;
    g.b_length = g.a_length = order + 1;
    g.gy = g.y = {y->data(), 1, {samples}};
    g.x = {p.x.data(), 1, {0}};
    g.b = {p.b.data(), 1, {order + 1}};
    g.a = {p.a.data(), 1, {order + 1}};
    g.gx = {result.gx.data(), 1, {0}};
    g.gb = {result.gb.data(), 1, {order + 1}};
    CHECK(lfilter_backward(g, algorithm) == Status::ok, p.text());
    return result;
  };
  const Result want = results(Algorithm::direct, nullptr);
  for (const Algorithm algorithm : {Algorithm::automatic, Algorithm::rows}) {
    Result got;
    for (const int seed : {1, 2}) {
      const OnMachine machine(4, static_cast<std::uint64_t>(seed), 2 * seed - 1);
      Result again = results(algorithm, &want.y);
      const auto same = [](const auto& a, const auto& b) {  // bits: NaN, too
        return std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0;
      };
      if (seed > 1) CHECK(same(got.y, again.y) && same(got.gx, again.gx) && same(got.gb, again.gb), p.text());
      got = std::move(again);
    }
    // Where one sum is not finite, the order of its terms decides between inf and nan, and a chain of states may have
    // made all of it so.
    const auto agrees = [](double value, double right, double largest, bool may_be_lost) {
      if (!std::isfinite(right)) return !std::isfinite(value);
      if (may_be_lost && !std::isfinite(value)) return true;
      return std::abs(value - right) <= 1e-6 * std::abs(right) + 1e-7 * largest;
    };
    for (int row = 0; row < filters; ++row) {
      double largest = 0;
      int t = 0;
      for (; t < samples; ++t) {
        const auto at = static_cast<std::size_t>(row * samples + t);
        if (std::isfinite(want.y[at])) largest = std::max<double>(largest, std::abs(want.y[at]));
        if (!agrees(got.y[at], want.y[at], largest, bad >= 0 && t > bad)) break;
      }
      CHECK(t == samples, p.text(), radius, "row", row, "sample", t);
    }
    double largest = 0;
    int t = samples - 1;
    for (; t >= 0; --t) {
      const auto at = static_cast<std::size_t>(t);
      if (std::isfinite(want.gx[at])) largest = std::max<double>(largest, std::abs(want.gx[at]));
      if (!agrees(got.gx[at], want.gx[at], largest, bad >= 0)) break;
    }
    CHECK(t < 0, p.text(), radius, "gx", t);
  }
}

// What gradients are asked for, of what, and on what machine.
struct Backward : Case {
  bool gx = true, gb = true, ga = true, gzi = true, gy = true;
  Shared shared_zi = {};
  double grow = 1;  // of the radius of the poles
  std::span<const Algorithm> algorithms = forms;
};

// Backward alone: each gradient by itself, without gy, sums of gzi, filters that are not stable; and the same bits from
// another machine.
template <class Sample>
void gradients(const Backward& c) {
  using E = long double;
  const int order = c.order();
  const Grid grid{c.signals, c.rows};
  const auto rows = static_cast<std::size_t>(grid.rows());
  Block<Sample> x(grid, c.samples, c.layout, c.shared_x), g(grid, c.samples, c.layout), y(grid, c.samples, c.layout);
  Block<double> b(grid, c.b_length, c.layout, c.shared_filter), a(grid, c.a_length, c.layout, c.shared_filter),
      gzf(grid, order, c.layout);
  x.fill([] { return sample<Sample>(random_value<E>()); });
  y.fill([] { return sample<Sample>(random_value<E>()); });
  g.fill([&] { return sample<Sample>(c.gy ? random_value<E>() : E(0)); });
  for (Block<double>* block : {&b, &gzf}) block->fill([] { return static_cast<double>(random_value<E>()); });
  struct Gradients {
    Block<Sample> x;
    Block<double> b, a, zi;
    Gradients(const Backward& of, Grid rows_)
        : x(rows_, of.samples, of.layout, of.shared_x),
          b(rows_, of.b_length, of.layout, of.shared_filter),
          a(rows_, of.a_length, of.layout, of.shared_filter),
          zi(rows_, of.order(), of.layout, of.shared_zi) {}
  } got(c, grid), again(c, grid);
  std::vector<Reference<E>> sums(rows);
  for (int row = 0; row < grid.rows(); ++row) {
    const std::vector<E> poles = denominator<E>(c.a_length - 1, 1);
    double power = 1;
    for (int k = 0; k < c.a_length; ++k, power *= c.grow)
      a.at(row, k) = power * static_cast<double>(poles[static_cast<std::size_t>(k)]);
  }
  for (int row = 0; row < grid.rows(); ++row) {
    Reference<E> r;
    const std::vector<E> zeros(static_cast<std::size_t>(order));
    filter_backward(b.values(row), a.values(row), x.values(row), y.values(row), g.values(row),
                    c.gzf ? gzf.values(row) : zeros, r);
    sums[x.owner(row)].gx.add(r.gx);
    sums[b.owner(row)].gb.add(r.gb);
    sums[a.owner(row)].ga.add(r.ga);
    sums[got.zi.owner(row)].gzi.add(r.gzi);
  }
  for (const Algorithm algorithm : c.algorithms) {
    const auto run = [&](Gradients& to) {
      LFilterBackward<Sample> p;
      p.batch = grid.batch();
      p.samples = c.samples;
      p.b_length = c.b_length;
      p.a_length = c.a_length;
      if (c.gy) p.gy = g.input();
      if (c.gzf) p.gzf = gzf.input();
      p.x = x.input();
      p.y = y.input();
      p.b = b.input();
      p.a = a.input();
      if (c.gx) p.gx = to.x.rows();
      if (c.gb) p.gb = to.b.rows();
      if (c.ga) p.ga = to.a.rows();
      if (c.gzi) p.gzi = to.zi.rows();
      return lfilter_backward(p, algorithm);
    };
    const OnMachine machine(4);
    if (!CHECK(run(got) == Status::ok, c.text(), algorithm_names[static_cast<int>(algorithm)])) continue;
    const auto compare = [&](bool wanted, auto& block, Bounded<E> Reference<E>::* of, E epsilon, const char* what) {
      for (int row = 0; row < grid.rows() && wanted; ++row) {
        const Bounded<E>& want = sums[block.owner(row)].*of;
        const E tolerance = want.error + tiny<Sample>, excess = block.excess(row, 0, want, epsilon, tolerance);
        CHECK(excess == 0, algorithm_names[static_cast<int>(algorithm)], c.text(), what, "row", row, "error", excess,
              "tolerance", tolerance);
      }
    };
    compare(c.gx, got.x, &Reference<E>::gx, Number<Sample>::epsilon, "gx");
    compare(c.gb, got.b, &Reference<E>::gb, 0, "gb");
    compare(c.ga, got.a, &Reference<E>::ga, 0, "ga");
    compare(c.gzi, got.zi, &Reference<E>::gzi, 0, "gzi");
    cuda::emulator::machine().seed += 12345;
    cuda::emulator::machine().resident_blocks = 7;
    CHECK(run(again) == Status::ok);
    CHECK(
        got.x.same_bits(again.x) && got.b.same_bits(again.b) && got.a.same_bits(again.a) && got.zi.same_bits(again.zi),
        "bits", c.text(), algorithm_names[static_cast<int>(algorithm)]);
    CHECK(got.x.intact() && got.b.intact() && got.a.intact() && got.zi.intact(), c.text());
    for (Block<double>* block : {&again.b, &again.a, &again.zi}) CHECK(block->intact());
    CHECK(again.x.intact());
  }
}

void gradients_of_every_kind() {
  const auto with = [](int rows, int samples, int order, auto&& change) {
    Backward c;
    c.rows = rows;
    c.samples = samples;
    c.b_length = c.a_length = order + 1;
    change(c);
    return c;
  };
  // Around a thread's samples, a tile's, those that a cluster has at a time. By turns some gradients alone.
  int count = 0;
  for (const int order : {0, 1, 2, 3, 6}) {
    for (const int t : {1, 17, 1025, 2047, order == 2 ? 9000 : 2049}) {
      const Backward c = with(1 + count % 2, t, order, [&](Backward& to) {
        const int wanted = count % 4 == 0 ? 15 : 1 + count * 7 % 15;
        to.gx = (wanted & 1) != 0;
        to.gb = (wanted & 2) != 0;
        to.ga = (wanted & 4) != 0;
        to.gzi = (wanted & 8) != 0;
        to.gy = count % 5 != 4;
        to.gzf = count % 3 != 1;
        to.layout = static_cast<Layout>(count % 3);
        if (count % 3 == 2) to.shared_zi = by_all;
        if (count % 4 == 1) to.shared_filter = by_all;
        if (count % 5 == 3) to.shared_x = by_all;
      });
      if (count % 7 == 6) gradients<Half>(c);
      else if (count % 2 == 0) gradients<float>(c);
      else gradients<double>(c);
      ++count;
    }
  }
  // More tiles than a group of look-back has, and many rows' sums.
  gradients<double>(with(1, 270000, 1, [](Backward& c) { c.algorithms = std::span(forms).last(1); }));
  gradients<double>(with(270, 5, 1, [](Backward& c) { c.shared_filter = c.shared_zi = by_all; }));
  // Banks: whole and left-over chunks of samples, filters that are more than a block's, signals, and none of the sums.
  for (const int samples : {128, 131, 2500}) {
    const auto bank = [](Backward& c) {
      c.signals = 2;
      c.shared_x = {false, true};
      c.shared_filter = {true, false};
      c.algorithms = std::span(forms).first(1);
    };
    gradients<float>(with(21, samples, 2, bank));
    gradients<double>(with(5, samples, 2, bank));
    gradients<double>(with(2, samples, 1, bank));
    gradients<float>(with(9, samples, 2, [&](Backward& c) {
      bank(c);
      c.gb = c.ga = c.gzi = false;
    }));
  }
  gradients<float>(with(150, 40, 2, [](Backward& c) {
    c.shared_x = by_all;
    c.algorithms = std::span(forms).first(1);
  }));
  // Poles outside the unit circle: powers overflow, or do not.
  for (const double grow : {1.3, 2.5}) {
    for (const int order : {1, 2, 6}) {
      for (const Shared shared_x : {Shared{}, by_all}) {
        gradients<double>(with(5, grow < 2 ? 1500 : 300, order, [&](Backward& c) {
          c.grow = grow;
          c.shared_x = shared_x;
        }));
      }
    }
  }
}

void on_cuda_alone() {
  for (const int order : {1, 2, 4, 8}) boundaries<float>(order);
  boundaries<double>(2);
  boundaries<double>(3);
  boundaries<double>(7);
  boundaries<Half>(2);
  boundaries<BFloat16>(5);
  many_tiles();
  large_banks<float>();
  large_banks<double>();
  any_order();
  unstable<float>();
  unstable<double>();
  not_finite();
  accuracy<float>();
  accuracy<double>();
  small_operands_of_any_type();
  gradients_of_every_kind();
  wide_orders();
  close_poles();
  for (const int order : {9, 20, 33}) {
    wide_banks(order, 700, 1.1, -1, 0);
    wide_banks(order, 700, 1e5, -1, 0);  // what a segment makes of a state overflows
    wide_banks(order, 500, 0.6, 300, order == 9 ? INFINITY : NAN);
  }
}

#else

void on_cuda_alone() {}

#endif

}  // namespace

int main() {
  every_size();
  every_size_of_tiles();
  every_number_of_rows();
  every_type();
  banks();
  a0_is_divided_out();
  on_cuda_alone();
  return check::result();
}
