// lfilter and lfilter_backward against a plain reference in long double: every algorithm on every instruction set that
// the machine has, at sizes around every boundary.
#include "torch_iir/lfilter.h"

#include <string>
#include <utility>

#include "check.h"
#include "reference.h"
#include "torch_iir/instruction_sets.h"

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

constexpr Algorithm algorithms[] = {Algorithm::automatic, Algorithm::direct, Algorithm::rows, Algorithm::segments,
                                    Algorithm::blocks};

// Where an algorithm may decline.
bool may_decline(Algorithm algorithm, int order, bool complex) {
  if (algorithm == Algorithm::automatic || algorithm == Algorithm::direct) return false;
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

void every_size() {
  const int samples[] = {0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000};
  const int orders[] = {0, 1, 2, 3, 4, 5, 8, 10, 16, 32, 33, 64};
  int count = 0;
  for (const int order : orders) {
    for (const int t : samples) {
      for (const int rows : {1, 3, 17}) {
        if (rows > 1 && order > 16 && t > 129) continue;  // costs time, and is no boundary of its own
        Case c{rows, t, order + 1, order + 1};
        c.layout = static_cast<Layout>(count % 3);
        if (count % 5 == 4) c.shared_x = by_all;
        if (count % 4 != 3) c.shared_filter = by_all;
        c.zi = count % 7 != 0;
        c.gzf = count % 6 != 0;
        c.a0 = count % 9 == 8 ? 2 : 1;
        if (count % 8 == 3) c.b_length = std::max(1, order / 2);
        if (count % 8 == 6) c.a_length = std::max(1, order / 2);
        ++count;
        run<double>(c);
        run<float>(c);
      }
    }
  }
}

void every_number_of_rows() {
  for (int rows = 1; rows <= 33; rows += rows < 17 ? 1 : 16) {
    for (const int order : {1, 2, 5, 10}) {
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
    for (const Algorithm algorithm : algorithms) CHECK(lfilter(f, algorithm) == Status::zero_a0, set.name);
  }
}

// Banks: the filters of a signal stand side by side or apart, lanes are left over or not, and the signals' gradients
// are sums over filters, the filters' over signals.
void banks() {
  int count = 0;
  for (const int filters : {1, 5, 16, 17, 33}) {
    for (int order = 1; order <= 7; ++order) {
      for (const int samples : {70, 300}) {
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

}  // namespace

int main() {
  every_size();
  every_number_of_rows();
  every_type();
  banks();
  a0_is_divided_out();
  return check::result();
}
