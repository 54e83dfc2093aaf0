// LFilterTVPlan against the one-shot lfilter_tv, bit for bit, and against the reference in long double: every algorithm
// on every instruction set that the machine has.
#include "torch_iir/lfilter_tv_plan.h"

#include "plans.h"
#include "torch_iir/lfilter_tv.h"

using namespace torch_iir;

namespace {

struct Case {
  TimeVaryingFilter filter;
  Sizes channels, of_b = {}, of_a = {};  // leading dimensions
  Lie lie = Lie::planar;                 // of coefficients
  bool one_frame = false;

  int order() const { return filter.a_length > 0 ? filter.a_first + filter.a_length - 1 : 0; }
  int b_order() const { return filter.b_length > 0 ? filter.b_first + filter.b_length - 1 : 0; }
  std::int64_t frames(std::int64_t samples) const {
    if (one_frame) return 1;
    return filter.period == 1 ? samples : (samples + filter.period - 1) / filter.period + 1;
  }
  std::string text() const {
    std::string text = "b " + std::to_string(filter.b_first) + " + " + std::to_string(filter.b_length) + " a " +
                       std::to_string(filter.a_first) + " + " + std::to_string(filter.a_length) + " period " +
                       std::to_string(filter.period) + " lie " + std::to_string(static_cast<int>(lie)) +
                       (one_frame ? " one frame" : "") + " channels";
    for (int d = 0; d < channels.dims; ++d) text += ' ' + std::to_string(channels[d]);
    return text + ' ';
  }
  std::vector<Algorithm> algorithms() const {
    std::vector<Algorithm> result{Algorithm::automatic, Algorithm::direct};
    if (order() > 0) result.push_back(Algorithm::blocks);
    if (order() > 0 && order() <= 16) result.push_back(Algorithm::rows);
    if (order() > 0 && order() <= 2) result.push_back(Algorithm::segments);
    return result;
  }
};

template <class F>
void for_each_algorithm(const Case& c, F f) {
  for_each_isa([&](const std::string& isa) {
    for (const Algorithm algorithm : c.algorithms()) f(algorithm, isa + name_of(algorithm) + ' ' + c.text());
  });
}

// A signal with its coefficients and the state before it, and what is to become of them.
template <class Sample>
struct Trial {
  using Plan = LFilterTVPlan<Sample>;

  Case c;
  std::int64_t samples;
  Array<Sample> x, b, a;
  Array<double> zx, zi;
  std::vector<ReferenceTV<long double>> rows;

  Trial(const Case& given, std::int64_t count, Lie lie = Lie::planar, bool at_rest = false)
      : c(given),
        samples(count),
        x(c.channels + Sizes{count}, lie),
        b(c.of_b + Sizes{c.frames(count), c.filter.b_length}, c.lie),
        a(c.of_a + Sizes{c.frames(count), c.filter.a_length}, c.lie),
        zx(c.channels + Sizes{c.b_order()}, lie),
        zi(c.channels + Sizes{c.order()}, lie) {
    for (Array<Sample>* array : {&x, &b}) array->fill_randomly();
    for (Array<double>* state : {&zx, &zi}) state->fill([&] { return at_rest ? 0.0 : static_cast<double>(grid()); });
    // Without poles to go by, stable because the magnitudes beside a0 sum to less than it.
    const int length = c.filter.a_length;
    for (std::int64_t frame = 0; frame < a.count() / std::max(length, 1); ++frame) {
      const long double a0 = c.filter.a_first == 0 ? 1 + std::abs(grid()) : 1;
      Vector now(size(length));
      for (long double& value : now) value = grid();
      const long double scale = 0.9L * a0 / std::max(sum_of_magnitudes(now), 0.1L);
      for (int k = 0; k < length; ++k)
        a[frame * length + k] = static_cast<Sample>(c.filter.a_first == 0 && k == 0 ? a0 : scale * now[size(k)]);
    }
    for (std::int64_t row = 0; row < c.channels.count(); ++row) {
      FilterTV<long double> f;
      f.period = size(c.filter.period);
      f.x = x.values(row, samples);
      f.zx = zx.values(row, c.b_order());
      f.zi = zi.values(row, c.order());
      f.a = {frames(a, c.of_a, row, length), length, c.filter.a_first, 1};
      if (c.filter.b_length > 0)
        f.b = {frames(b, c.of_b, row, c.filter.b_length), c.filter.b_length, c.filter.b_first, 0};
      filter(f, rows.emplace_back());
    }
  }

  // Of samples [t, t + count).
  Status run(Plan& plan, std::int64_t t, std::int64_t count, Array<Sample>& y) {
    return plan.run(x.piece(t, count), taps(b, t, count), taps(a, t, count), y.piece(t, count));
  }
  View<const Sample> taps(Array<Sample>& array, std::int64_t t, std::int64_t count) const {
    if (array.sizes()[array.sizes().dims - 1] == 0) return {};
    return c.one_frame ? array.view() : array.piece(t / c.filter.period, c.frames(count), 2);
  }
  Plan plan(Algorithm algorithm, const std::string& where, std::int64_t block = 64) {
    PlanOptions options;
    options.algorithm = algorithm;
    options.block = block;
    Plan plan;
    CHECK(plan.make(c.filter, c.channels, options) == Status::ok && plan, where);
    CHECK(plan.set_state(zx.input(), zi.input()) == Status::ok, where);
    return plan;
  }

  void check(Plan& plan, Array<Sample>& y, const std::string& where) {
    Array<double> past(zx.sizes(), Lie::gaps), zf(zi.sizes(), Lie::backwards);
    CHECK(plan.state(past.view(), zf.view()) == Status::ok, where);
    for (std::size_t row = 0; row < rows.size(); ++row) {
      const auto number = static_cast<std::int64_t>(row);
      const ReferenceTV<long double>& want = rows[row];
      long double worst = 0;
      for (std::size_t t = 0; t < want.y.value.size(); ++t)
        worst =
            std::max(worst, excess(y[number * samples + static_cast<std::int64_t>(t)], want.y.value[t], want.y.error));
      CHECK(worst == 0, where, "row", row, "error", worst, "allowed", want.y.error);
      for (std::int64_t k = 0; k < c.order(); ++k) {
        const long double wrong = excess(zf[number * c.order() + k], want.zf.value[size(k)], want.zf.error);
        CHECK(wrong == 0, where, "zf of row", row, k, "error", wrong, "allowed", want.zf.error);
      }
      for (std::int64_t k = 0; k < c.b_order(); ++k) {
        const double wanted = k < samples ? static_cast<double>(x[number * samples + samples - 1 - k])
                                          : zx[number * c.b_order() + k - samples];
        CHECK(past[number * c.b_order() + k] == wanted, where, "zx of row", row, k);
      }
    }
    CHECK(y.intact() && past.intact() && zf.intact(), where, "written beyond its output");
  }

  Status one_shot(Algorithm algorithm, const View<Sample>& y, const View<double>& zf) {
    LFilterTV<Sample> f;
    f.batch = batch_of(c.channels);
    f.samples = samples;
    f.period = c.filter.period;
    f.x = rows_of(x.input(), 1, c.channels);
    if (c.filter.b_length > 0)
      f.b = {matrices_of(b.input(), c.channels), c.filter.b_length, c.filter.b_first, c.frames(samples)};
    f.a.first = 1;
    if (c.filter.a_length > 0)
      f.a = {matrices_of(a.input(), c.channels), c.filter.a_length, c.filter.a_first, c.frames(samples)};
    f.zx = rows_of(zx.input(), 1, c.channels);
    f.zi = rows_of(zi.input(), 1, c.channels);
    f.y = rows_of(y, 1, c.channels);
    f.zf = rows_of(zf, 1, c.channels);
    return lfilter_tv(f, algorithm);
  }

 private:
  std::vector<Vector> frames(Array<Sample>& array, const Sizes& leading, std::int64_t row, int length) const {
    std::vector<Vector> result;
    const std::int64_t count = c.frames(samples), first = source_of(leading, c.channels, row) * count;
    for (std::int64_t f = 0; f < count; ++f) result.push_back(array.values(first + f, length));
    return result;
  }
};

template <class Sample>
void in_one_piece(Trial<Sample>& trial, Lie lie) {
  const Case& c = trial.c;
  const Sizes sizes = c.channels + Sizes{trial.samples};
  for_each_algorithm(c, [&](Algorithm algorithm, const std::string& kernel) {
    const std::string where = kernel + "samples " + std::to_string(trial.samples) + ' ';
    LFilterTVPlan<Sample> plan = trial.plan(algorithm, where);
    const Algorithm chosen = plan.algorithm();
    CHECK(chosen != Algorithm::automatic && (algorithm == Algorithm::automatic || chosen == algorithm), where,
          name_of(chosen));
    Array<Sample> y(sizes, lie), one_shot(sizes);
    Array<double> past(trial.zx.sizes()), z(trial.zi.sizes()), zf(trial.zi.sizes());
    CHECK(trial.run(plan, 0, trial.samples, y) == Status::ok, where);
    CHECK(plan.state(past.view(), z.view()) == Status::ok, where);
    CHECK(trial.one_shot(chosen, one_shot.view(), zf.view()) == Status::ok, where);
    CHECK(y.same_bits(one_shot) && z.same_bits(zf), where, "one-shot function");
    if (c.filter.b_length == 0) {
      Array<Sample> both(sizes, lie);
      both.copy(trial.x);
      CHECK(plan.set_state(trial.zx.input(), trial.zi.input()) == Status::ok, where);
      CHECK(plan.run(both.view(), {}, trial.taps(trial.a, 0, trial.samples), both.view()) == Status::ok, where);
      CHECK(both.same_bits(y), where, "in place");
    }
    Array<Sample> again(sizes), fresh_y(sizes);
    LFilterTVPlan<Sample> fresh;
    PlanOptions options;
    options.algorithm = algorithm;
    CHECK(fresh.make(c.filter, c.channels, options) == Status::ok && plan.reset() == Status::ok, where);
    CHECK(trial.run(plan, 0, trial.samples, again) == Status::ok, where);
    CHECK(trial.run(fresh, 0, trial.samples, fresh_y) == Status::ok, where);
    CHECK(again.same_bits(fresh_y), where, "reset()");
    CHECK(plan.set_state(trial.zx.input(), trial.zi.input()) == Status::ok, where);
    CHECK(trial.run(plan, 0, trial.samples, again) == Status::ok && again.same_bits(y), where, "set_state()");
    trial.check(plan, y, where);
  });
}

// In blocks of changing lengths: whole periods, but for the last.
template <class Sample>
void in_pieces(Trial<Sample>& trial) {
  const std::int64_t period = trial.c.filter.period;
  const std::int64_t lengths[] = {0, 1, std::max(trial.c.order() - 1, 0), trial.c.order(), 7, 64, 65, 3, 500, 130, 2};
  for_each_algorithm(trial.c, [&](Algorithm algorithm, const std::string& where) {
    LFilterTVPlan<Sample> plan = trial.plan(algorithm, where);
    Array<Sample> y(trial.x.sizes());
    for (std::int64_t t = 0, i = 0; t < trial.samples; ++i) {
      const std::int64_t wanted = (lengths[i % std::ssize(lengths)] + period - 1) / period * period;
      const std::int64_t count = std::min(wanted, trial.samples - t);
      CHECK(trial.run(plan, t, count, y) == Status::ok, where, "samples", count);
      t += count;
    }
    trial.check(plan, y, where + "in pieces ");
  });
}

template <class Sample>
void run(const Case& c, int count) {
  const auto lie = [&](int more) { return static_cast<Lie>((count + more) % lies); };
  const int few[] = {0, 1, std::max(c.order() - 1, 0), c.order(), 7, 31, 64, 129};
  for (const int samples : {few[count % std::ssize(few)], slow ? 65 : 300}) {
    Trial<Sample> trial(c, samples, lie(samples), count % 3 == 0);
    in_one_piece(trial, lie(1));
  }
  Trial<Sample> pieces(c, slow ? 150 : 640 + 2 * c.order(), lie(2), count % 2 == 0);
  in_pieces(pieces);
}

void every_size() {
  struct Leading {
    Sizes channels, b = {}, a = {};
  };
  const Leading shapes[] = {{{}},         {{1}, {1}, {1}},         {{2}, {2}, {2}},  {{8}, {}, {8}},
                            {{11}, {11}}, {{17}, {1}, {}},         {{33}, {}, {33}}, {{2, 3, 2}, {3, 1}, {2, 1, 2}},
                            {{0}},        {{2, 0}, {2, 1}, {1, 1}}};
  int count = 0;
  for (const int order : {0, 1, 2, 3, 7, 10, 16, 17, 30}) {
    for (const Leading& shape : shapes) {
      Case c{{.a_length = order}, shape.channels, shape.b, shape.a};
      if (count % 3 == 1) c.filter.a_first = 0, c.filter.a_length = order + 1;
      c.filter.b_first = count / 2 % 2;
      c.filter.b_length = count % 2 == 0 ? 0 : count % 4 == 1 ? 3 : 1;
      c.filter.period = count % 5 == 2 ? 7 : count % 5 == 4 ? 80 : 1;
      c.one_frame = count % 7 == 3;
      c.lie = static_cast<Lie>(count / 3 % lies);
      ++count;
      if (slow && shape.channels.count() * (order + 1) > 60) continue;
      count % 2 == 0 ? run<double>(c, count) : run<float>(c, count);
      if (!slow && order <= 3) count % 2 == 0 ? run<float>(c, count) : run<double>(c, count);
    }
  }
}

// How coefficients lie, frame by frame: never the bits.
void layouts() {
  for (const int order : {1, 2, 5}) {
    for (const bool divided : {false, true}) {
      Case c{{.b_length = 2, .a_length = order + divided, .a_first = divided ? 0 : 1}, {9}, {9}, {9}};
      Trial<float> trial(c, 300);
      for_each_algorithm(c, [&](Algorithm algorithm, const std::string& where) {
        LFilterTVPlan<float> plan = trial.plan(algorithm, where);
        Array<float> want(trial.x.sizes()), y(trial.x.sizes());
        CHECK(trial.run(plan, 0, 300, want) == Status::ok, where);
        for (int i = 0; i < lies * lies; ++i) {
          Array<float> b(trial.b.sizes(), static_cast<Lie>(i / lies)), a(trial.a.sizes(), static_cast<Lie>(i % lies));
          b.copy(trial.b);
          a.copy(trial.a);
          CHECK(plan.set_state(trial.zx.input(), trial.zi.input()) == Status::ok, where);
          CHECK(plan.run(trial.x.input(), b.input(), a.input(), y.view()) == Status::ok, where, i);
          CHECK(y.same_bits(want), where, "layout", i);
        }
      });
    }
  }
}

void threads_and_blocks() {
  for (const int order : {2, 10}) {
    Case c{{.b_length = 2, .a_length = order}, {35}};
    Trial<double> trial(c, slow ? 500 : 2200);
    for_each_algorithm(c, [&](Algorithm algorithm, const std::string& where) {
      const auto run = [&](const PlanOptions& options, Array<double>& y) {
        LFilterTVPlan<double> plan;
        CHECK(plan.make(c.filter, c.channels, options) == Status::ok, where);
        CHECK(trial.run(plan, 0, trial.samples, y) == Status::ok, where);
      };
      PlanOptions options;
      options.algorithm = algorithm;
      Array<double> serial(trial.x.sizes()), y(trial.x.sizes());
      run(options, serial);
      for (const auto hook : {&threads, &in_disorder}) {
        long calls = 0;
        options.parallel_for = {hook, &calls};
        run(options, y);
        CHECK(y.same_bits(serial) && (calls > 0 || slow), where, "threads", calls);
      }
      options.parallel_for = {};
      for (const std::int64_t block : {0, 1, 500, 100000}) {
        options.block = block;
        run(options, y);
        CHECK(y.same_bits(serial) || algorithm == Algorithm::automatic, where, "block", block);
      }
    });
  }
}

void handles() {
  static_assert(is_a_handle<LFilterTVPlan<float>> && is_a_handle<LFilterTVPlan<double>> &&
                noexcept(LFilterTVPlan<float>().make({}, {})) &&
                noexcept(LFilterTVPlan<float>().run({}, {}, {}, View<float>())) &&
                noexcept(LFilterTVPlan<float>().set_state({}, {})) && noexcept(LFilterTVPlan<float>().state({}, {})));
  for (const int order : {2, 10}) {
    Case c{{.b_length = 2, .a_length = order}, {9}};
    Trial<float> trial(c, 150);
    const auto is_empty = [&](LFilterTVPlan<float>& plan, const std::string& where) {
      Array<float> y(trial.x.sizes());
      Array<double> past(trial.zx.sizes()), z(trial.zi.sizes());
      CHECK(!plan && plan.algorithm() == Algorithm::automatic && std::strlen(plan.isa()) == 0, where);
      CHECK(trial.run(plan, 0, 150, y) == Status::not_made && plan.reset() == Status::not_made, where);
      CHECK(plan.set_state(trial.zx.input(), trial.zi.input()) == Status::not_made, where);
      CHECK(plan.state(past.view(), z.view()) == Status::not_made, where);
      CHECK(y.is_untouched() && past.is_untouched() && z.is_untouched(), where);
    };
    LFilterTVPlan<float> never;
    is_empty(never, "never made");
    for (const InstructionSet& set : instruction_sets()) {
      for (const Algorithm algorithm : c.algorithms()) {
        if (!set_isa(set.name)) continue;
        const std::string where = where_of(set.name, algorithm) + c.text();
        LFilterTVPlan<float> plan = trial.plan(algorithm, where);
        const Algorithm chosen = plan.algorithm();
        Array<float> want(trial.x.sizes()), y(trial.x.sizes());
        CHECK(trial.run(plan, 0, 70, want) == Status::ok && trial.run(plan, 70, 80, want) == Status::ok, where);
        for (const InstructionSet& other : instruction_sets()) {
          if (!set_isa(other.name)) continue;
          CHECK(plan.set_state(trial.zx.input(), trial.zi.input()) == Status::ok, where);
          CHECK(trial.run(plan, 0, 70, y) == Status::ok, where);
          LFilterTVPlan<float> constructed = std::move(plan), assigned = trial.plan(Algorithm::direct, where);
          is_empty(plan, where + "moved from");  // NOLINT(bugprone-use-after-move)
          assigned = std::move(constructed);
          LFilterTVPlan<float>& self = assigned;
          assigned = std::move(self);
          CHECK(assigned.algorithm() == chosen && std::string(assigned.isa()) == set.name, where, assigned.isa());
          CHECK(trial.run(assigned, 70, 80, y) == Status::ok && y.same_bits(want), where, other.name);
          plan = std::move(assigned);
        }
        PlanOptions options;
        options.algorithm = Algorithm::wavefront;
        CHECK(plan.make(c.filter, c.channels, options) == Status::unsupported, where);
        is_empty(plan, where + "not made again");
      }
    }
  }
}

// A NaN or an infinity reaches no earlier sample and no other row, whether it is in the signal or in a coefficient; a
// number beyond all bounds is one like any other.
void not_finite() {
  constexpr std::int64_t samples = 600, struck = 4;
  for (const int order : {1, 2, 7}) {
    for (const bool with_b : {false, true}) {
      Case c{{.b_length = with_b ? 2 : 0, .a_length = order}, {9}, {9}, {9}};
      Trial<double> trial(c, samples, Lie::planar, true);
      for_each_algorithm(c, [&](Algorithm algorithm, const std::string& where) {
        LFilterTVPlan<double> plan = trial.plan(algorithm, where);
        Array<double> clean(trial.x.sizes()), y(trial.x.sizes());
        CHECK(trial.run(plan, 0, samples, clean) == Status::ok, where);
        for (const double value : {std::nan(""), double{INFINITY}, 1e300}) {
          for (const std::int64_t at : {0, 1, 64, 300, 599}) {
            for (double* target : {&trial.x[struck * samples + at], &trial.a[(struck * samples + at) * order]}) {
              const double before = std::exchange(*target, value);
              CHECK(plan.reset() == Status::ok && trial.run(plan, 0, samples, y) == Status::ok, where);
              *target = before;
              bool same = true;
              for (std::int64_t i = 0; i < y.count(); ++i)
                if (i / samples != struck || i % samples < at) same &= y[i] == clean[i];
              CHECK(same, where, "struck by", value, "at", at);
              if (target == &trial.x[struck * samples + at] && !(std::abs(value) < INFINITY))
                for (std::int64_t t = at; t < samples && order == 1; ++t)
                  CHECK(!std::isfinite(y[struck * samples + t]), where, value, at, t);
            }
          }
        }
        CHECK(plan.reset() == Status::ok && trial.run(plan, 0, samples, y) == Status::ok, where);
        CHECK(y.same_bits(clean), where, "after reset()");
      });
    }
  }
}

// Coefficients whose products overflow where the signal does not, and signals that grow beyond all bounds.
void falls_back() {
  constexpr std::int64_t samples = 700;
  for (const int order : {1, 2}) {
    for (const double size : {-1.5, -1e200}) {
      Case c{{.a_length = order}, {2}, {}, {2}};
      Trial<double> trial(c, samples, Lie::planar, true);
      trial.x.fill([] { return 1 + static_cast<double>(grid()) / 2; });
      trial.a.fill([&] { return size * (1 + static_cast<double>(grid()) / 4); });
      if (size < -2)
        for (std::int64_t t = 0; t < 2 * samples; ++t)  // every other sample forgets what was before it
          for (int k = 0; k < order && t % 2 == 0; ++k) trial.a[t * order + k] = 0;
      for_each_algorithm(c, [&](Algorithm algorithm, const std::string& where) {
        LFilterTVPlan<double> plan = trial.plan(algorithm, where), yardstick = trial.plan(Algorithm::direct, where);
        Array<double> y(trial.x.sizes()), direct(trial.x.sizes());
        CHECK(trial.run(plan, 0, 300, y) == Status::ok && trial.run(plan, 300, 400, y) == Status::ok, where);
        CHECK(trial.run(yardstick, 0, samples, direct) == Status::ok, where);
        for (std::int64_t i = 0; i < y.count(); ++i) {
          const double allowed = 8 * samples * std::numeric_limits<double>::epsilon() * direct[i];
          if (direct[i] < std::numeric_limits<double>::max() / 4) {
            CHECK(std::abs(y[i] - direct[i]) <= allowed, where, size, i, y[i], direct[i]);
          } else {
            CHECK(!(std::abs(y[i]) < std::numeric_limits<double>::max() / 16), where, size, i, y[i], direct[i]);
          }
        }
      });
    }
  }
}

void zeros_among_a0() {
  for (const int order : {1, 2, 7}) {
    for (const std::int64_t period : {1, 4}) {
      Case c{{.a_length = order + 1, .a_first = 0, .period = period}, {9}, {9}, {9}};
      Trial<float> trial(c, 200, Lie::planar, true);
      const std::int64_t frames = c.frames(200);
      for_each_algorithm(c, [&](Algorithm algorithm, const std::string& where) {
        LFilterTVPlan<float> plan = trial.plan(algorithm, where);
        Array<float> want(trial.x.sizes()), y(trial.x.sizes());
        Array<double> z(trial.zi.sizes());
        CHECK(trial.run(plan, 0, 200, want) == Status::ok, where);
        for (const std::int64_t at : {std::int64_t{0}, frames / 2, frames - (period > 1 ? 2 : 1)}) {
          float& a0 = trial.a[(5 * frames + at) * (order + 1)];
          const float before = std::exchange(a0, at == 0 ? -0.0F : 0.0F);
          CHECK(trial.run(plan, 0, 200, y) == Status::zero_a0, where, at);
          a0 = before;
          CHECK(plan.state(View<double>(nullptr, {9, 0}), z.view()) == Status::ok, where);
          for (std::int64_t i = 0; i < z.count(); ++i) CHECK(z[i] == 0, where, "at rest", at, i);
          CHECK(trial.run(plan, 0, 200, y) == Status::ok && y.same_bits(want), where, "after zero_a0", at);
          CHECK(plan.reset() == Status::ok, where);
        }
      });
    }
  }
}

void refusals() {
  for (const std::int64_t period : {1, 5}) {
    Case c{{.b_length = 2, .b_first = 1, .a_length = 3, .period = period}, {2, 3}, {3}, {2, 1}};
    Trial<double> trial(c, 40);
    for_each_algorithm(c, [&](Algorithm algorithm, const std::string& where) {
      LFilterTVPlan<double> plan = trial.plan(algorithm, where);
      Array<double> y(trial.x.sizes());
      const auto unchanged = [&](const char* what) {
        Array<double> past(trial.zx.sizes()), z(trial.zi.sizes());
        CHECK(y.is_untouched() && plan.state(past.view(), z.view()) == Status::ok, where, what);
        CHECK(past.same_bits(trial.zx) && z.same_bits(trial.zi), where, what);
      };
      const View<const double> x = trial.x.input(), b = trial.b.input(), a = trial.a.input();
      const auto refused = [&](const View<const double>& in, const View<const double>& with_b,
                               const View<const double>& with_a, const View<double>& out, Status status,
                               const char* what) {
        CHECK(plan.run(in, with_b, with_a, out) == status, where, what);
        unchanged(what);
      };
      const auto resized = [](auto view, int d, std::int64_t to) {
        view.sizes.size[view.dims() - d] = to;
        return view;
      };
      const auto nowhere = [](auto view) {
        view.data = nullptr;
        return view;
      };
      const auto no_dims = [](auto view) {
        view.sizes.dims = -1;
        return view;
      };
      const std::int64_t frames = c.frames(40);
      refused(resized(x, 1, 39), b, a, y.view(), Status::wrong_shape, "fewer samples in");
      refused(x, b, a, resized(y.view(), 1, 39), Status::wrong_shape, "fewer samples out");
      refused(resized(x, 2, 2), b, a, y.view(), Status::wrong_shape, "a channel less");
      refused(x, b, a, resized(y.view(), 3, 1), Status::wrong_shape, "an output less");
      refused(no_dims(x), b, a, y.view(), Status::wrong_shape, "x of -1 dimensions");
      refused(x, no_dims(b), a, y.view(), Status::wrong_shape, "b of -1 dimensions");
      refused(x, b, no_dims(a), y.view(), Status::wrong_shape, "a of -1 dimensions");
      refused(x, b, a, no_dims(y.view()), Status::wrong_shape, "y of -1 dimensions");
      refused(x, {}, a, y.view(), Status::wrong_shape, "no b");
      refused(x, b, {}, y.view(), Status::wrong_shape, "no a");
      refused(x, resized(b, 1, 1), a, y.view(), Status::wrong_shape, "len b");
      refused(x, b, resized(a, 1, 4), y.view(), Status::wrong_shape, "len a");
      refused(x, resized(b, 2, frames - 2), a, y.view(), Status::wrong_shape, "frames of b");
      refused(x, b, resized(a, 2, frames - 2), y.view(), Status::wrong_shape, "frames of a");
      refused(x, b, resized(a, 2, 0), y.view(), Status::wrong_shape, "no frames of a");
      if (period == 1) refused(x, b, resized(a, 2, frames + 1), y.view(), Status::wrong_shape, "more frames of a");
      refused(x, resized(b, 3, 2), a, y.view(), Status::wrong_shape, "b does not broadcast");
      refused(x, b, resized(a, 3, 2), y.view(), Status::wrong_shape, "a does not broadcast");
      refused(x, b, View<const double>(a.data, {4, 2, 1, frames, 3}), y.view(), Status::wrong_shape,
              "a has more dimensions than the channels");
      refused(x, b, resized(a, 2, -1), y.view(), Status::wrong_shape, "frames below 0");
      refused(nowhere(x), b, a, y.view(), Status::no_data, "x is nowhere");
      refused(x, nowhere(b), a, y.view(), Status::no_data, "b is nowhere");
      refused(x, b, nowhere(a), y.view(), Status::no_data, "a is nowhere");
      refused(x, b, a, nowhere(y.view()), Status::no_data, "y is nowhere");
      refused(nowhere(resized(x, 1, 0)), nowhere(resized(b, 2, 0)), nowhere(resized(a, 2, 0)),
              nowhere(resized(y.view(), 1, 0)), Status::ok, "no samples");
      refused(resized(x, 1, 0), resized(b, 2, 1), resized(a, 2, 1), resized(y.view(), 1, 0), Status::ok,
              "no samples, one frame");

      Array<double> other_zx(trial.zx.sizes()), other_zi(trial.zi.sizes());
      other_zx.fill([] { return 100; });
      other_zi.fill([] { return 100; });
      const auto states = [&](const View<double>& zx, const View<double>& zi, Status status, const char* what) {
        CHECK(plan.set_state(zx, zi) == status, where, "set_state", what);
        unchanged(what);
        CHECK(plan.state(zx, zi) == status, where, "state", what);
        unchanged(what);
        for (std::int64_t i = 0; i < other_zx.count(); ++i) CHECK(other_zx[i] == 100, where, "state", what, i);
        for (std::int64_t i = 0; i < other_zi.count(); ++i) CHECK(other_zi[i] == 100, where, "state", what, i);
      };
      const View<double> zx = other_zx.view(), zi = other_zi.view();
      states(resized(zx, 1, 1), zi, Status::wrong_shape, "zx");
      states(zx, resized(zi, 1, 2), Status::wrong_shape, "zi");
      states(resized(zx, 2, 2), zi, Status::wrong_shape, "rows of zx");
      states(zx, no_dims(zi), Status::wrong_shape, "zi of -1 dimensions");
      states(zx, resized(zi, 1, -1), Status::wrong_shape, "a size below 0");
      states(nowhere(zx), zi, Status::no_data, "zx is nowhere");
      states(zx, nowhere(zi), Status::no_data, "zi is nowhere");

      // What broadcasts.
      Array<double> one_zx(Sizes{2}), one_zi({3, 3}), past(zx.sizes), z(zi.sizes);
      one_zx.fill_randomly();
      one_zi.fill_randomly();
      CHECK(plan.set_state(one_zx.input(), one_zi.input()) == Status::ok, where);
      CHECK(plan.state(past.view(), z.view()) == Status::ok, where);
      for (std::int64_t i = 0; i < past.count(); ++i) CHECK(past[i] == one_zx[i % 2], where, i);
      for (std::int64_t i = 0; i < z.count(); ++i) CHECK(z[i] == one_zi[i % 9], where, i);
    });
  }

  LFilterTVPlan<float> plan;
  const auto made = [&](const TimeVaryingFilter& filter, const Sizes& channels, const PlanOptions& options,
                        Status status, const char* what) {
    CHECK(plan.make({.a_length = 1}, {1}) == Status::ok, what);
    CHECK(plan.make(filter, channels, options) == status && static_cast<bool>(plan) == (status == Status::ok), what);
  };
  for_each_isa([&](const std::string&) {
    made({}, {2}, {}, Status::ok, "neither b nor a");
    made({.b_length = -1, .a_length = 2}, {2}, {}, Status::out_of_range, "len b below 0");
    made({.a_length = -2}, {2}, {}, Status::out_of_range, "len a below 0");
    made({.b_length = 1, .b_first = 2, .a_length = 2}, {2}, {}, Status::out_of_range, "b from lag 2");
    made({.a_length = 2, .a_first = -1}, {2}, {}, Status::out_of_range, "a from lag -1");
    made({.a_length = 2, .a_first = 2}, {2}, {}, Status::out_of_range, "a from lag 2");
    made({.a_length = 2, .period = 0}, {2}, {}, Status::out_of_range, "period 0");
    made({.a_length = 2, .period = -5}, {2}, {}, Status::out_of_range, "period below 0");
    made({.a_length = 2}, {2, -1}, {}, Status::out_of_range, "channels below 0");
    made({.a_length = 2}, {2}, {.block = -1}, Status::out_of_range, "block below 0");
    made({.a_length = 2}, {1, 1, 1, 1, 1, 1, 1, 1, 1}, {}, Status::wrong_shape, "nine dimensions");
    made({.a_length = 2}, {1, 1, 1, 1, 1, 1, 1, 1}, {}, Status::wrong_shape, "no dimension for time");
    made({.a_length = 2}, {2}, {.algorithm = Algorithm::fft}, Status::unsupported, "fft");
    made({.a_length = 3}, {2}, {.algorithm = Algorithm::segments}, Status::unsupported, "segments of order 3");
    made({.a_length = 17}, {2}, {.algorithm = Algorithm::rows}, Status::unsupported, "rows of order 17");
    for (const Algorithm algorithm : {Algorithm::rows, Algorithm::segments, Algorithm::blocks})
      made({.a_length = 1, .a_first = 0}, {2}, {.algorithm = algorithm}, Status::unsupported, "order 0");
  });
}

// What the header shows: coefficients from lag 1 on, and no b.
void by_hand() {
  const double x[] = {1, 0, 0, 0, 0, 0}, a[] = {-0.5, -0.5, -0.25, -2, 1, 1};
  double y[6] = {};
  for_each_isa([&](const std::string& where) {
    LFilterTVPlan<double> plan;
    CHECK(plan.make({.a_length = 1}, {}) == Status::ok, where);
    CHECK(plan.run(x, {}, View<const double>(a, {6, 1}), y) == Status::ok, where);
    const double wanted[] = {1, 0.5, 0.125, 0.25, -0.25, 0.25};
    for (int t = 0; t < 6; ++t) CHECK(y[t] == wanted[t], where, t, y[t]);
    double z = 0;
    CHECK(plan.state({}, View<double>(&z, {1})) == Status::ok && z == 0.25, where, z);

    // Frames at samples 0 and 4, in between linear interpolation: b is 1, 2, 3, 4, 5, 5.
    const double b[] = {1, 5, 5}, ones[] = {1, 1, 1, 1, 1, 1};
    CHECK(plan.make({.b_length = 1, .period = 4}, {}) == Status::ok, where);
    CHECK(plan.run(ones, View<const double>(b, {3, 1}), {}, y) == Status::ok, where);
    for (int t = 0; t < 6; ++t) CHECK(y[t] == std::min(t + 1, 5), where, t, y[t]);
    CHECK(plan.run(ones, View<const double>(b, {2, 1}), {}, y) == Status::ok, where, "no frame to move to");
    for (int t = 0; t < 6; ++t) CHECK(y[t] == std::min(t + 1, 5), where, t, y[t]);

    // No coefficient of the output, wherever they would begin.
    for (const int a_first : {0, 1}) {
      CHECK(plan.make({.a_first = a_first}, {}) == Status::ok, where, a_first);
      CHECK(plan.run(x, {}, {}, y) == Status::ok, where, a_first);
      for (int t = 0; t < 6; ++t) CHECK(y[t] == x[t], where, a_first, t, y[t]);
    }
  });
}

}  // namespace

int main() {
  by_hand();
  every_size();
  layouts();
  threads_and_blocks();
  handles();
  not_finite();
  falls_back();
  zeros_among_a0();
  refusals();
  return check::result();
}
