// LFilterPlan against the one-shot lfilter, bit for bit, and against the reference in long double: every algorithm on
// every instruction set that the machine has.
#include "torch_iir/lfilter_plan.h"

#include "plans.h"
#include "torch_iir/lfilter.h"

using namespace torch_iir;

namespace {

struct Case {
  Sizes channels, b = {}, a = {};  // leading dimensions
  int b_length, a_length;
  Lie lie = Lie::planar;

  int order() const { return std::max(b_length, a_length) - 1; }
};

template <class S>
class Filter {
 public:
  using Sample = S;
  using Plan = LFilterPlan<Sample>;

  Sizes channels, outputs, state_sizes;
  std::vector<Algorithm> algorithms{Algorithm::automatic, Algorithm::direct, Algorithm::rows, Algorithm::blocks};
  bool recursive;

  explicit Filter(const Case& c)
      : channels(c.channels),
        outputs(broadcast_of(broadcast_of(c.channels, c.b), c.a)),
        state_sizes(outputs + Sizes{c.order()}),
        recursive(c.a_length > 1),
        c_(c) {
    for (Array<double>& b : b_) b.fill_randomly();
    for (Array<double>& a : a_) {
      for (std::int64_t row = 0; row < c.a.count(); ++row) {
        const Vector poles = denominator<long double>(c.a_length - 1, row % 2 == 0 ? 1 : 2);
        for (int k = 0; k < c.a_length; ++k) a[row * c.a_length + k] = static_cast<double>(poles[size(k)]);
      }
    }
    if (c.order() >= 1 && c.order() <= 6) algorithms.push_back(Algorithm::segments);
    if (c.order() > 1024) algorithms = {Algorithm::automatic, Algorithm::direct};
  }
  // With these coefficients in place of the random ones.
  Filter(const Sizes& given, const std::vector<double>& b, const std::vector<double>& a)
      : Filter(Case{given, {}, {}, static_cast<int>(b.size()), static_cast<int>(a.size())}) {
    for (std::size_t k = 0; k < b.size(); ++k) b_[0][static_cast<std::int64_t>(k)] = b[k];
    for (std::size_t k = 0; k < a.size(); ++k) a_[0][static_cast<std::int64_t>(k)] = a[k];
  }

  std::string text() const {
    std::string text = "order " + std::to_string(c_.b_length - 1) + " / " + std::to_string(c_.a_length - 1) + " lie " +
                       std::to_string(static_cast<int>(c_.lie)) + " channels";
    for (int d = 0; d < channels.dims; ++d) text += ' ' + std::to_string(channels[d]);
    text += " outputs";
    for (int d = 0; d < outputs.dims; ++d) text += ' ' + std::to_string(outputs[d]);
    return text + ' ';
  }
  int order() const { return c_.order(); }
  Array<double>& b() { return b_[0]; }
  Array<double>& a() { return a_[0]; }

  Status make(Plan& plan, const PlanOptions& options) {
    return plan.make(b_[0].input(), a_[0].input(), channels, options);
  }
  Status change(Plan& plan) { return plan.set_coefficients(b_[1].input(), a_[1].input()); }
  Status one_shot(Algorithm algorithm, const View<const Sample>& x, const View<Sample>& y, const View<const double>& zi,
                  const View<double>& zf) {
    LFilter<Sample> f;
    f.batch = batch_of(outputs);
    f.samples = y.sizes[y.dims() - 1];
    f.b_length = c_.b_length;
    f.a_length = c_.a_length;
    f.x = rows_of(x, 1, outputs);
    f.b = rows_of(b_[0].input(), 1, outputs);
    f.a = rows_of(a_[0].input(), 1, outputs);
    f.zi = rows_of(zi, 1, outputs);
    f.y = rows_of(y, 1, outputs);
    f.zf = rows_of(zf, 1, outputs);
    return lfilter(f, algorithm);
  }
  Expected expected(std::int64_t row, const Vector& x, const Vector& z, const Vector& z_error, bool changed) {
    Vector b = b_[changed].values(source_of(c_.b, outputs, row), c_.b_length),
           a = a_[changed].values(source_of(c_.a, outputs, row), c_.a_length);
    Reference<long double> reference;
    filter(b, a, x, z, reference);
    normalise(b, a);
    const long double before = sum_of_magnitudes(z_error),
                      carried = before > 0 ? all_pole_gain(a, x.size() + a.size()) * before : 0;
    const long double of_state = reference.zf.error + sum_of_magnitudes(a) * carried + before;
    return {reference.y.value, reference.zf.value, Vector(z.size(), of_state), reference.y.error + carried};
  }

 private:
  Case c_;
  Array<double> b_[2]{Array<double>(c_.b + Sizes{c_.b_length}, c_.lie),
                      Array<double>(c_.b + Sizes{c_.b_length}, Lie::planar)};
  Array<double> a_[2]{Array<double>(c_.a + Sizes{c_.a_length}, c_.lie),
                      Array<double>(c_.a + Sizes{c_.a_length}, Lie::planar)};
};

template <class Sample>
void run(const Case& c, int count) {
  Filter<Sample> filter(c);
  const auto lie = [&](int more) { return static_cast<Lie>((count + more) % lies); };
  const int few[] = {0, 1, std::max(c.order() - 1, 0), c.order(), 7, 64, 129};
  for (const int samples : {few[count % std::ssize(few)], slow ? 65 : 300}) {
    Trial<Filter<Sample>> trial(filter, samples, lie(samples), count % 3 == 0);
    in_one_piece(trial, lie(1));
  }
  const int samples = (slow ? 150 : 640) + 2 * c.order();
  Trial<Filter<Sample>> pieces(filter, samples, lie(2), count % 2 == 0, count % 4 < 2 ? -1 : 20 + 3 * count % 100);
  in_pieces(pieces, c.order());
}

void every_size() {
  const Case shapes[] = {
      {{}, {}, {}, 1, 1},
      {{1}, {}, {}, 1, 1},
      {{2}, {}, {2}, 1, 1},
      {{11}, {11}, {11}, 1, 1},
      {{12}, {}, {}, 1, 1},
      {{16}, {1}, {16}, 1, 1},
      {{17}, {17}, {17}, 1, 1},
      {{33}, {}, {33}, 1, 1},
      {{4, 1}, {5}, {5}, 1, 1},  // banks
      {{1}, {20}, {20}, 1, 1},
      {{}, {20}, {20}, 1, 1},
      {{2, 1, 3}, {4, 1}, {2, 1, 1}, 1, 1},  // all kinds at once
      {{2, 2, 1, 1, 2}, {3, 1, 1}, {}, 1, 1},
      {{0}, {}, {}, 1, 1},
      {{3, 0}, {3, 1}, {}, 1, 1},
  };
  int count = 0;
  for (const int order : {0, 1, 2, 3, 6, 7, 10, 32, 100}) {
    for (Case c : shapes) {
      c.b_length = count % 4 == 1 ? order / 2 + 1 : count % 7 == 3 ? 1 : order + 1;
      c.a_length = c.b_length == order + 1 && count % 5 == 2 ? order / 3 + 1 : order + 1;
      c.lie = static_cast<Lie>(count / 2 % lies);
      ++count;
      if ((slow || order > 10) && c.channels.count() * c.b.count() > 16) continue;  // costs time
      if (order == 100 && count % 3 != 0) continue;
      count % 2 == 0 ? run<double>(c, count) : run<float>(c, count);
    }
  }
}

// Coefficients that are repeated through a stride of 0 are those of a bank of the same filters.
void a_stride_of_0() {
  static_assert(noexcept(LFilterPlan<float>().make({}, {}, {})) &&
                noexcept(LFilterPlan<float>().set_coefficients({}, {})) && noexcept(LFilterPlan<float>().order()));
  const double b[] = {0.5, -0.25, 0.125}, a[] = {2, -1, 0.5};
  const double b_five[] = {0.5, -0.25, 0.125, 0.5, -0.25, 0.125, 0.5, -0.25, 0.125},
               a_five[] = {2, -1, 0.5, 2, -1, 0.5, 2, -1, 0.5};
  std::vector<float> x(100), y(300), again(300);
  for (float& value : x) value = static_cast<float>(grid());
  for_each_isa([&](const std::string& where) {
    LFilterPlan<float> plan, bank;
    CHECK(plan.make(View<const double>(b, {3, 3}, {0, 1}), View<const double>(a, {3, 3}, {0, 1}), {}) == Status::ok);
    CHECK(bank.make(View<const double>(b_five, {3, 3}), View<const double>(a_five, {3, 3}), {1}) == Status::ok);
    CHECK(plan.outputs() == Sizes{3} && bank.outputs() == Sizes{3} && plan.order() == 2, where);
    CHECK(plan.run(x, View(y.data(), {3, 100})) == Status::ok, where);
    CHECK(bank.run(View<const float>(x.data(), {1, 100}, {-7, 1}), View(again.data(), {3, 100})) == Status::ok, where);
    CHECK(y == again, where);
    // One input for all, as a signal of its own for each.
    LFilterPlan<float> rows;
    CHECK(rows.make(b, a, {3}) == Status::ok);
    CHECK(rows.run(View<const float>(x.data(), {3, 100}, {0, 1}), View(again.data(), {3, 100})) == Status::ok, where);
    CHECK(y == again, where);
    // One sample again and again.
    CHECK(plan.reset() == Status::ok && bank.reset() == Status::ok);
    const std::vector<float> still(100, x[0]);
    CHECK(plan.run(View<const float>(x.data(), {100}, {0}), View(y.data(), {3, 100})) == Status::ok, where);
    CHECK(bank.run(View<const float>(still.data(), {1, 100}), View(again.data(), {3, 100})) == Status::ok, where);
    CHECK(y == again, where);
  });
}

void threads_and_blocks() {
  for (const int order : {1, 2, 7}) {
    Filter<float> small(Case{{3}, {3}, {}, order + 1, order + 1});
    the_same_bits(small, 200, false);
    if (slow && order != 2) continue;
    Filter<double> shared(Case{{35}, {}, {}, order + 1, order + 1}), bank(Case{{2, 1}, {17}, {17}, 3, order + 1});
    the_same_bits(shared, 4200, true);
    the_same_bits(bank, 4200, true);
  }
}

// Where kernels hand over to the direct form, the result is the direct form's.
void falls_back() {
  std::vector<double> close{1};  // poles at one place: predictions cancel
  for (int i = 0; i < 8; ++i) {
    close.push_back(0);
    for (std::size_t k = close.size(); k-- > 1;) close[k] -= 0.95 * close[k - 1];
  }
  struct Fallback {
    std::vector<double> a;
    Algorithm from;
  };
  for (const Fallback& one : {Fallback{{1, -1e200}, Algorithm::segments},
                              {{1, 0.5, 1e160}, Algorithm::segments},
                              {close, Algorithm::blocks},
                              {{1, -1e200, 1e210, 0}, Algorithm::blocks}}) {
    Filter<double> filter({2}, {1, 0.5}, one.a);
    for_each_isa([&](const std::string& isa) {
      const std::string where = isa + name_of(one.from) + ' ' + filter.text();
      Array<double> x({2, 1200}), y({2, 1200}), direct({2, 1200}), z(filter.state_sizes), of_direct(filter.state_sizes);
      x.fill_randomly();
      LFilterPlan<double> plan, yardstick;
      CHECK(filter.make(plan, options_of(filter, one.from)) == Status::ok, where);
      CHECK(filter.make(yardstick, options_of(filter, Algorithm::direct)) == Status::ok, where);
      for (const auto& [first, count] : {std::pair{0, 500}, {500, 7}, {507, 693}}) {
        CHECK(plan.run(x.piece(first, count), y.piece(first, count)) == Status::ok, where);
        CHECK(yardstick.run(x.piece(first, count), direct.piece(first, count)) == Status::ok, where);
      }
      CHECK(plan.state(z.view()) == Status::ok && yardstick.state(of_direct.view()) == Status::ok, where);
      const auto same = [](Array<double>& p, Array<double>& q) {
        for (std::int64_t i = 0; i < p.count(); ++i)
          if (p[i] != q[i] && !(std::isnan(p[i]) && std::isnan(q[i]))) return false;
        return true;
      };
      CHECK(same(y, direct) && same(z, of_direct), where);
    });
  }
}

// What is not finite makes blocks hand over after they have written: in place that must not cost the input.
template <class Sample>
void hands_over_in_place() {
  constexpr std::int64_t samples = 4000;
  Filter<Sample> filter(Case{{2}, {}, {}, 8, 11});
  for_each_kernel(filter, [&](Algorithm algorithm, const std::string& where) {
    for (const std::int64_t struck : {0, 1500, 3999}) {
      Array<Sample> x({2, samples}), y({2, samples}), both({2, samples});
      x.fill_randomly();
      x[samples + struck] = static_cast<Sample>(INFINITY);
      both.copy(x);
      LFilterPlan<Sample> plan;
      CHECK(filter.make(plan, options_of(filter, algorithm)) == Status::ok, where);
      CHECK(plan.run(x.input(), y.view()) == Status::ok && plan.reset() == Status::ok, where);
      CHECK(plan.run(both.view(), both.view()) == Status::ok, where);
      CHECK(both.same_bits(y), where, "struck at", struck);
      for (std::int64_t t = 0; t < samples; ++t)
        CHECK(std::isfinite(y[t]) && std::isfinite(y[samples + t]) == (t < struck), where, struck, t);
    }
  });
}

// Signals that grow beyond all bounds: of the same sign, so that no algorithm has anything to cancel.
void overflows() {
  for (const std::vector<double>& a :
       {std::vector{1.0, -1.5}, {1.0, -0.75, -0.75}, {1.0, 0.0, 0.0, -1.5, 0.0, -0.1, -0.1}}) {
    Filter<double> filter({3}, {1, 0.5}, a);
    constexpr std::int64_t samples = 3000;
    Array<double> x({3, samples}), direct({3, samples});
    x.fill([] { return 1 + static_cast<double>(grid()) / 2; });
    LFilterPlan<double> yardstick;
    CHECK(filter.make(yardstick, options_of(filter, Algorithm::direct)) == Status::ok);
    CHECK(yardstick.run(x.input(), direct.view()) == Status::ok);
    for_each_kernel(filter, [&](Algorithm algorithm, const std::string& where) {
      LFilterPlan<double> plan;
      CHECK(filter.make(plan, options_of(filter, algorithm)) == Status::ok, where);
      grows_like(direct, 16, plan, x, {3, samples}, where);
    });
  }
}

void strikes() {
  for (const auto& [b_length, a_length] : {std::pair{3, 3}, {1, 2}, {8, 8}, {4, 1}}) {
    Filter<double> rows(Case{{18}, {}, {}, b_length, a_length}), bank(Case{{3, 1}, {5}, {5}, b_length, a_length});
    not_finite(rows);
    not_finite(bank);
    Filter<float> one(Case{{}, {}, {}, b_length, a_length});
    not_finite(one);
  }
}

void refusals() {
  for (const int order : {2, 7}) {
    Filter<float> filter(Case{{2, 1, 3}, {4, 1}, {2, 1, 1}, order + 1, order + 1});
    for_each_kernel(filter, [&](Algorithm algorithm, const std::string& where) {
      Refusals<Filter<float>> refused(filter, algorithm, where);
      refused.runs();
      refused.states();

      LFilterPlan<float>& plan = refused.plan;
      const View<const double> b = filter.b().input(), a = filter.a().input();
      const auto both = [&](const View<const double>& to_b, const View<const double>& to_a, Status of_make,
                            Status of_set, const char* what) {
        CHECK(plan.set_coefficients(to_b, to_a) == of_set, where, "set_coefficients", what);
        refused.same_state(what);
        refused.same_coefficients(what);
        LFilterPlan<float> other;
        const PlanOptions options = options_of(filter, algorithm);
        CHECK(filter.make(other, options) == Status::ok, where);
        CHECK(other.make(to_b, to_a, filter.channels, options) == of_make, where, "make", what);
        CHECK(static_cast<bool>(other) == (of_make == Status::ok), where, what);
      };
      const auto resized = [](View<const double> view, int d, std::int64_t to) {
        view.sizes.size[d] = to;
        return view;
      };
      const auto nowhere = [](View<const double> view) {
        view.data = nullptr;
        return view;
      };
      const auto no_dims = [](View<const double> view) {
        view.sizes.dims = -1;
        return view;
      };
      for (const std::int64_t last : {std::int64_t{0}, a.sizes[a.dims() - 1] - 1}) {
        double& a0 = filter.a()[last / (order + 1) * (order + 1)];
        const double before = std::exchange(a0, last == 0 ? 0.0 : -0.0);
        CHECK(plan.set_coefficients(b, a) == Status::zero_a0, where);
        LFilterPlan<float> other;
        CHECK(filter.make(other, options_of(filter, algorithm)) == Status::zero_a0 && !other, where);
        a0 = before;
        refused.same_state("zero_a0");
        refused.same_coefficients("zero_a0");
      }
      both(nowhere(b), a, Status::no_data, Status::no_data, "b is nowhere");
      both(b, nowhere(a), Status::no_data, Status::no_data, "a is nowhere");
      both(no_dims(b), a, Status::wrong_shape, Status::wrong_shape, "b of -1 dimensions");
      both(b, no_dims(a), Status::wrong_shape, Status::wrong_shape, "a of -1 dimensions");
      both({}, a, Status::wrong_shape, Status::wrong_shape, "b of no dimensions");
      both(b, {}, Status::wrong_shape, Status::wrong_shape, "a of no dimensions");
      both(resized(b, 2, 0), a, Status::wrong_shape, Status::wrong_shape, "len b 0");
      both(b, resized(a, 3, 0), Status::wrong_shape, Status::wrong_shape, "len a 0");
      both(resized(b, 2, -3), a, Status::out_of_range, Status::wrong_shape, "len b below 0");
      both(b, resized(a, 0, -2), Status::out_of_range, Status::wrong_shape, "a size below 0");
      both(resized(b, 0, 3), a, Status::ok, Status::wrong_shape, "other filters");
      both(resized(b, 0, 1), a, Status::ok, Status::wrong_shape, "one filter");
      both(resized(b, 2, 2), a, Status::ok, Status::wrong_shape, "a shorter b");
      both(b, resized(a, 2, 2), Status::wrong_shape, Status::wrong_shape, "what does not broadcast");
      both(View<const double>(b.data, {order + 1}), a, Status::ok, Status::wrong_shape, "fewer dimensions");

      LFilterPlan<float> other;
      const PlanOptions options = options_of(filter, algorithm);
      const auto made = [&](const Sizes& channels, Status status) {
        CHECK(other.make(b, a, channels, options) == status, where, channels.dims, name_of(algorithm));
        CHECK(static_cast<bool>(other) == (status == Status::ok), where, channels.dims);
      };
      made({2, 1, 2}, Status::ok);
      made({2, 3, 3}, Status::wrong_shape);
      made({2, -1, 3}, Status::out_of_range);
      made({1, 1, 1, 1, 1, 1, 1, 1, 1}, Status::wrong_shape);  // too many
      made({1, 1, 1, 1, 1, 1, 1, 1}, Status::wrong_shape);     // and one for time
      made({1, 1, 1, 1, 1, 1, 1}, Status::ok);
    });
  }
  Filter<double> wavefront(Case{{2}, {}, {}, 3, 3}), far(Case{{2}, {}, {}, 1026, 3});
  LFilterPlan<double> plan;
  for_each_isa([&](const std::string& where) {
    CHECK(wavefront.make(plan, options_of(wavefront, Algorithm::wavefront)) == Status::unsupported, where);
    for (const Algorithm algorithm : {Algorithm::rows, Algorithm::segments, Algorithm::blocks})
      CHECK(far.make(plan, options_of(far, algorithm)) == Status::unsupported && !plan, where, name_of(algorithm));
    CHECK(far.make(plan, options_of(far, Algorithm::automatic)) == Status::ok && plan.order() == 1025, where);
    CHECK(plan.algorithm() == Algorithm::direct, where);
  });
}

}  // namespace

int main() {
  every_size();
  a_stride_of_0();
  threads_and_blocks();
  falls_back();
  hands_over_in_place<float>();
  hands_over_in_place<double>();
  overflows();
  strikes();
  refusals();
  for (const int order : {2, 8}) {
    Filter<float> bank(Case{{4, 1}, {5}, {5}, order + 1, order + 1});
    Filter<double> rows(Case{{17}, {}, {}, order + 1, order + 1});
    handles(bank);
    handles(rows);
    state_broadcasts(bank, 1);
    Filter<double> deep(Case{{2, 1, 3}, {4, 1}, {2, 1, 1}, order + 1, order + 1});
    state_broadcasts(deep, 1);
  }
  return check::result();
}
