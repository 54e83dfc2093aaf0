// SOSFiltPlan against the one-shot sosfilt, bit for bit, and against the reference in long double: every algorithm on
// every instruction set that the machine has.
#include "torch_iir/sosfilt_plan.h"

#include "plans.h"
#include "torch_iir/sosfilt.h"

using namespace torch_iir;

namespace {

constexpr int order = 2, coefficients = 6;

// The gains b[0] of the sections, which kernels may move elsewhere and scale states for.
enum class Gains {
  anywhere,
  one,
  zero,     // of every other section
  uneven,   // that differ by 50 orders of magnitude, and make up for each other
  extreme,  // by 200: too much to be moved
  tiny,     // of all
  by_row,   // something else in every row
};

struct Case {
  Sizes channels, sos = {};  // leading dimensions
  int sections;
  Gains gains = Gains::anywhere, changed = Gains::anywhere;
  Lie lie = Lie::planar;
};

template <class S>
class Filter {
 public:
  using Sample = S;
  using Plan = SOSFiltPlan<Sample>;

  Sizes channels, outputs, state_sizes;
  std::vector<Algorithm> algorithms{Algorithm::automatic, Algorithm::direct, Algorithm::rows, Algorithm::wavefront,
                                    Algorithm::segments};
  bool recursive = true;

  explicit Filter(const Case& c)
      : channels(c.channels),
        outputs(broadcast_of(c.channels, c.sos)),
        state_sizes(outputs + Sizes{c.sections, order}),
        c_(c) {
    for (const bool changed : {false, true}) {
      for (std::int64_t row = 0; row < c.sos.count(); ++row) {
        for (int s = 0; s < c.sections; ++s) {
          const Vector section = random_section(changed ? c.changed : c.gains, row, s);
          for (int k = 0; k < coefficients; ++k)
            sos_[changed][(row * c.sections + s) * coefficients + k] = static_cast<double>(section[size(k)]);
        }
      }
    }
  }

  std::string text() const {
    std::string text =
        "sections " + std::to_string(c_.sections) + " gains " + std::to_string(static_cast<int>(c_.gains)) + " to " +
        std::to_string(static_cast<int>(c_.changed)) + " lie " + std::to_string(static_cast<int>(c_.lie)) + " channels";
    for (int d = 0; d < channels.dims; ++d) text += ' ' + std::to_string(channels[d]);
    text += " outputs";
    for (int d = 0; d < outputs.dims; ++d) text += ' ' + std::to_string(outputs[d]);
    return text + ' ';
  }
  Array<double>& sos() { return sos_[0]; }

  Status make(Plan& plan, const PlanOptions& options) { return plan.make(sos_[0].input(), channels, options); }
  Status change(Plan& plan) { return plan.set_coefficients(sos_[1].input()); }
  Status one_shot(Algorithm algorithm, const View<const Sample>& x, const View<Sample>& y, const View<const double>& zi,
                  const View<double>& zf) {
    SOSFilt<Sample> f;
    f.batch = batch_of(outputs);
    f.samples = y.sizes[y.dims() - 1];
    f.sections = c_.sections;
    f.x = rows_of(x, 1, outputs);
    f.sos = matrices_of(sos_[0].input(), outputs);
    f.zi = matrices_of(zi, outputs);
    f.y = rows_of(y, 1, outputs);
    f.zf = matrices_of(zf, outputs);
    return sosfilt(f, algorithm);
  }

  // Section by section. A section's own error goes through all that come after it.
  Expected expected(std::int64_t row, const Vector& x, const Vector& z, const Vector& z_error, bool changed) {
    const std::int64_t cascade = source_of(c_.sos, outputs, row);
    const auto count = size(c_.sections);
    const std::vector<Vector>& gains = gains_of(cascade, changed);
    Expected result;
    std::vector<long double> own(count), u_error(count + 1);
    Vector u = x;
    for (std::size_t s = 0; s < count; ++s) {
      auto [b, a] = section(cascade, s, changed);
      Reference<long double> r;
      filter(b, a, u, {z[order * s], z[order * s + 1]}, r);
      normalise(b, a);
      const long double before = z_error[order * s] + z_error[order * s + 1];
      own[s] = r.y.error + (before > 0 ? all_pole_gain(a, x.size() + a.size()) * before : 0);
      for (std::size_t q = 0; q <= s; ++q) u_error[s + 1] += gains[q + 1][s + 1] * own[q];
      const long double of_state =
          r.zf.error + sum_of_magnitudes(a) * u_error[s + 1] + sum_of_magnitudes(b) * u_error[s] + before;
      for (std::size_t k = 0; k < order; ++k) {
        result.z.push_back(r.zf.value[k]);
        result.z_error.push_back(of_state);
      }
      u = r.y.value;
    }
    result.y = u;
    result.error = u_error[count];
    return result;
  }

 private:
  // Of gain 1 for white noise, so that signals keep their size through a cascade of any length; but see Gains.
  Vector random_section(Gains kind, std::int64_t row, int s) const {
    const Gains gains = kind != Gains::by_row ? kind : static_cast<Gains>(row % static_cast<int>(Gains::by_row));
    const bool odd = s % 2 != 0;
    const long double a0 = s % 3 == 2 ? 4 : 1;
    Vector b{1.5L + grid(), grid(), grid()}, a = denominator<long double>(s % 4 == 3 ? 1 : order, a0);
    a.resize(order + 1);
    if (gains == Gains::zero && odd) b[0] = 0;
    if (gains == Gains::one) {
      b[0] = a0;
    } else {
      Vector unit = b, normal = a, impulse(200), z(order);
      impulse[0] = 1;
      normalise(unit, normal);
      long double power = 0;
      for (const long double value : response(unit, normal, impulse, z)) power += value * value;
      for (long double& value : b) value /= std::sqrt(power);
    }
    const long double by = gains == Gains::uneven    ? (odd ? 0x1p-170L : 0x1p170L)
                           : gains == Gains::extreme ? (odd ? 0x1p-660L : 0x1p660L)
                           : gains == Gains::tiny    ? 0x1p-13L
                                                     : 1;
    const bool alone = c_.sections == 1 || (c_.sections % 2 != 0 && s == c_.sections - 1);  // with nothing to make up
    for (long double& value : b) value *= alone && gains != Gains::tiny ? 1 : by;
    b.insert(b.end(), a.begin(), a.end());
    return b;
  }
  std::pair<Vector, Vector> section(std::int64_t cascade, std::size_t s, bool changed) {
    const Vector all = sos_[changed].values(cascade * c_.sections + static_cast<std::int64_t>(s), coefficients);
    return {{all.begin(), all.begin() + order + 1}, {all.begin() + order + 1, all.end()}};
  }
  // The absolute sum of the impulse response from the input of section q to that of section s. Poles are within 0.9:
  // what comes later is nothing.
  const std::vector<Vector>& gains_of(std::int64_t cascade, bool changed) {
    std::vector<std::vector<Vector>>& known = gains_[changed];
    known.resize(size(c_.sos.count()));
    std::vector<Vector>& gain = known[size(cascade)];
    if (!gain.empty()) return gain;
    const auto count = size(c_.sections);
    gain.assign(count + 1, Vector(count + 1));
    for (std::size_t q = 0; q <= count; ++q) {
      Vector impulse(slow ? 150 : 300);
      impulse[0] = 1;
      gain[q][q] = 1;
      for (std::size_t s = q; s < count; ++s) {
        auto [b, a] = section(cascade, s, changed);
        normalise(b, a);
        Vector z(order);
        impulse = response(b, a, impulse, z);
        gain[q][s + 1] = sum_of_magnitudes(impulse);
      }
    }
    return gain;
  }

  Case c_;
  Array<double> sos_[2]{Array<double>(c_.sos + Sizes{c_.sections, coefficients}, c_.lie),
                        Array<double>(c_.sos + Sizes{c_.sections, coefficients}, Lie::planar)};
  std::vector<std::vector<Vector>> gains_[2];
};

template <class Sample>
void run(const Case& c, int count) {
  Filter<Sample> filter(c);
  const auto lie = [&](int more) { return static_cast<Lie>((count + more) % lies); };
  const int few[] = {0, 1, 2, 3, 29, 33, 64, 129};
  for (const int samples : {few[count % std::ssize(few)], slow ? 65 : 300}) {
    Trial<Filter<Sample>> trial(filter, samples, lie(samples), count % 3 == 0);
    in_one_piece(trial, lie(1));
  }
  Trial<Filter<Sample>> pieces(filter, slow ? 150 : 640, lie(2), count % 2 == 0,
                               count % 3 == 0 ? -1 : 20 + 3 * count % 100);
  in_pieces(pieces, order);
}

void every_size() {
  const Case shapes[] = {
      {{}, {}, 1},      {{1}, {}, 1},        {{2}, {2}, 1},          {{11}, {}, 1},
      {{12}, {12}, 1},  {{16}, {1}, 1},      {{17}, {17}, 1},        {{33}, {}, 1},
      {{4, 1}, {5}, 1}, {{1}, {20}, 1},      {{2, 1, 3}, {4, 1}, 1}, {{2, 2, 1, 2}, {3, 1}, 1},
      {{0}, {}, 1},     {{3, 0}, {3, 1}, 1},
  };
  int count = 0;
  for (const int sections : {1, 2, 4, 5, 8, 9, 17}) {
    for (Case c : shapes) {
      c.sections = sections;
      c.gains = static_cast<Gains>(count % (static_cast<int>(Gains::by_row) + 1));
      c.changed = static_cast<Gains>(count / 2 % (static_cast<int>(Gains::by_row) + 1));
      c.lie = static_cast<Lie>(count / 3 % lies);
      ++count;
      if (c.channels.count() * c.sos.count() * sections > (slow ? 40 : 150)) continue;  // costs time
      const auto overflows = [](Gains gains) { return gains == Gains::uneven || gains >= Gains::extreme; };
      const bool in_double = overflows(c.gains) || overflows(c.changed);
      count % 2 == 0 || in_double ? run<double>(c, count) : run<float>(c, count);
    }
  }
}

// From any gains to any others, with a state that is not zero.
void every_change() {
  int count = 0;
  for (int from = 0; from <= static_cast<int>(Gains::by_row); ++from) {
    for (int to = 0; to <= static_cast<int>(Gains::by_row); ++to) {
      Case c{{7}, {7}, count % 3 == 0 ? 6 : 3, static_cast<Gains>(from), static_cast<Gains>(to)};
      ++count;
      if (slow && count % 4 != 0) continue;
      Filter<double> filter(c);
      Trial<Filter<double>> trial(filter, 120, Lie::planar, false, 1 + count);
      in_pieces(trial, order);
    }
  }
}

void threads_and_blocks() {
  Filter<float> small(Case{{3}, {3}, 3});
  the_same_bits(small, 200, false);
  Filter<double> rows(Case{{35}, {}, 2}), bank(Case{{2, 1}, {17}, 5}), one(Case{{35}, {}, 1});
  the_same_bits(rows, 4200, true);
  if (slow) return;
  the_same_bits(bank, 4200, true);
  the_same_bits(one, 4200, true);
}

void strikes() {
  for (const int sections : {1, 3, 9}) {
    Filter<double> rows(Case{{18}, {}, sections}), bank(Case{{3, 1}, {5}, sections});
    not_finite(rows);
    not_finite(bank);
    Filter<float> one(Case{{}, {}, sections});
    not_finite(one);
  }
}

// Beyond all bounds and back, by every algorithm like by the direct form: signals of one sign have nothing to cancel.
void overflows() {
  constexpr std::int64_t samples = 3000;
  const double sos[] = {1, 0.5, 0.25, 1, -1.5, -0.25, 0.5, 0.5, 0, 2, -0.5, 0};
  for (const std::int64_t sections : {1, 2}) {
    const View<const double> view(sos, {sections, coefficients});
    Array<double> x({3, samples}), direct({3, samples});
    x.fill([] { return 1 + static_cast<double>(grid()) / 2; });
    SOSFiltPlan<double> yardstick;
    CHECK(yardstick.make(view, {3}, {.algorithm = Algorithm::direct}) == Status::ok);
    CHECK(yardstick.run(x.input(), direct.view()) == Status::ok);
    for_each_isa([&](const std::string& isa) {
      for (const Algorithm algorithm :
           {Algorithm::automatic, Algorithm::direct, Algorithm::rows, Algorithm::wavefront, Algorithm::segments}) {
        const std::string where = isa + name_of(algorithm);
        SOSFiltPlan<double> plan;
        CHECK(plan.make(view, {3}, {.algorithm = algorithm}) == Status::ok, where);
        grows_like(direct, 32, plan, x, {3, samples}, where);
      }
    });
  }
}

void refusals() {
  static_assert(noexcept(SOSFiltPlan<float>().make({}, {})) && noexcept(SOSFiltPlan<float>().set_coefficients({})) &&
                noexcept(SOSFiltPlan<float>().sections()));
  const double unit[] = {1, 0, 0, 1, 0, 0};
  for (const int sections : {1, 3}) {
    Filter<float> filter(Case{{2, 1, 3}, {4, 1}, sections});
    for_each_kernel(filter, [&](Algorithm algorithm, const std::string& where) {
      Refusals<Filter<float>> refused(filter, algorithm, where);
      refused.runs();
      refused.states();

      SOSFiltPlan<float>& plan = refused.plan;
      const View<const double> sos = filter.sos().input();
      const PlanOptions options = options_of(filter, algorithm);
      const auto set = [&](const View<const double>& to, Status of_make, Status of_set, const char* what) {
        CHECK(plan.set_coefficients(to) == of_set, where, "set_coefficients", what);
        refused.same_state(what);
        refused.same_coefficients(what);
        SOSFiltPlan<float> other;
        CHECK(other.make(View<const double>(unit, {1, coefficients}), {2}) == Status::ok, where);
        CHECK(other.make(to, filter.channels, options) == of_make, where, "make", what);
        CHECK(static_cast<bool>(other) == (of_make == Status::ok), where, what);
      };
      const auto resized = [&](int d, std::int64_t to) {
        View<const double> view = sos;
        view.sizes.size[d] = to;
        return view;
      };
      for (const std::int64_t last : {std::int64_t{3}, filter.sos().count() - 3}) {
        double& a0 = filter.sos()[last];
        const double before = std::exchange(a0, last == 3 ? 0.0 : -0.0);
        set(sos, Status::zero_a0, Status::zero_a0, "zero_a0");
        a0 = before;
        refused.same_state("zero_a0");
        refused.same_coefficients("zero_a0");
      }
      View<const double> view = sos;
      view.data = nullptr;
      set(view, Status::no_data, Status::no_data, "nowhere");
      view = sos;
      view.sizes.dims = -1;
      set(view, Status::wrong_shape, Status::wrong_shape, "-1 dimensions");
      set({}, Status::wrong_shape, Status::wrong_shape, "no dimensions");
      set(View<const double>(sos.data, {6}), Status::wrong_shape, Status::wrong_shape, "one dimension");
      set(resized(3, 5), Status::wrong_shape, Status::wrong_shape, "five coefficients");
      set(resized(3, 7), Status::wrong_shape, Status::wrong_shape, "seven coefficients");
      set(resized(2, 0), Status::wrong_shape, Status::wrong_shape, "no sections");
      set(resized(2, -1), Status::out_of_range, Status::wrong_shape, "sections below 0");
      set(resized(0, 3), Status::ok, Status::wrong_shape, "other filters");
      set(View<const double>(sos.data, {sections, coefficients}), Status::ok, Status::wrong_shape, "fewer dimensions");
      if (sections > 1) set(resized(2, 2), Status::ok, Status::wrong_shape, "fewer sections");

      SOSFiltPlan<float> other;
      const auto made = [&](const Sizes& channels, Status status) {
        CHECK(other.make(sos, channels, options) == status, where, channels.dims);
        CHECK(static_cast<bool>(other) == (status == Status::ok), where, channels.dims);
        CHECK(other.sections() == (status == Status::ok ? sections : 0), where, other.sections());
      };
      made({2, 4, 2}, Status::ok);
      made({2, 3, 3}, Status::wrong_shape);
      made({-2, 1, 3}, Status::out_of_range);
      made({1, 1, 1, 1, 1, 1, 1, 1, 1}, Status::wrong_shape);  // too many
      made({1, 1, 1, 1, 1, 1, 1}, Status::wrong_shape);        // and two for the state
      made({1, 1, 1, 1, 1, 1}, Status::ok);
    });
  }
  Filter<double> three(Case{{2}, {}, 3}), one(Case{{2}, {}, 1});
  SOSFiltPlan<double> plan;
  for_each_isa([&](const std::string& where) {
    CHECK(three.make(plan, options_of(three, Algorithm::blocks)) == Status::unsupported && !plan, where);
    CHECK(one.make(plan, options_of(one, Algorithm::blocks)) == Status::unsupported && !plan, where);
  });
}

}  // namespace

int main() {
  every_size();
  every_change();
  threads_and_blocks();
  strikes();
  overflows();
  refusals();
  for (const int sections : {1, 5}) {
    Filter<float> bank(Case{{4, 1}, {5}, sections});
    Filter<double> rows(Case{{17}, {}, sections, Gains::uneven});
    handles(bank);
    handles(rows);
    state_broadcasts(rows, 2);
    Filter<double> deep(Case{{2, 1, 3}, {4, 1}, sections});
    state_broadcasts(deep, 2);
  }
  return check::result();
}
