// What the tests of the plans share: arrays of any sizes in every layout, operands of the one-shot functions from their
// views, threads, and the checks that filters with coefficients of their own, lfilter and sosfilt, have in common.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "check.h"
#include "reference.h"
#include "torch_iir/instruction_sets.h"
#include "torch_iir/plan.h"

namespace torch_iir {

// Sanitizers, and a long double that the machine does not have, take their time.
inline constexpr bool slow = sanitized || std::numeric_limits<long double>::digits > 64;

using Vector = std::vector<long double>;

inline std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }
inline const char* name_of(Algorithm algorithm) { return algorithm_names[static_cast<int>(algorithm)]; }

// What every plan is: a handle that moves, and whose functions throw nothing.
template <class Plan>
constexpr bool is_a_handle =
    std::is_nothrow_default_constructible_v<Plan> && std::is_nothrow_move_constructible_v<Plan> &&
    std::is_nothrow_move_assignable_v<Plan> && std::is_nothrow_destructible_v<Plan> &&
    !std::is_copy_constructible_v<Plan> && !std::is_copy_assignable_v<Plan> && !std::is_convertible_v<Plan, bool> &&
    noexcept(Plan().reset()) && noexcept(Plan().algorithm()) && noexcept(Plan().isa()) &&
    noexcept(static_cast<bool>(Plan()));

// ------------------------------------------------------------------------------------------------------------- arrays

inline Sizes operator+(const Sizes& first, const Sizes& second) {
  Sizes result = first;
  for (int d = 0; d < second.dims; ++d) result.size[result.dims++] = second[d];
  return result;
}

// Of two shapes the one that both broadcast to.
inline Sizes broadcast_of(const Sizes& p, const Sizes& q) {
  Sizes result = p.dims > q.dims ? p : q;
  for (int d = 1; d <= result.dims; ++d) {
    const std::int64_t of_p = d <= p.dims ? p[p.dims - d] : 1, of_q = d <= q.dims ? q[q.dims - d] : 1;
    result.size[result.dims - d] = of_p == 1 ? of_q : of_p;
  }
  return result;
}

// Which element of an array, row-major, element `number` of the shape that it is broadcast to comes from.
inline std::int64_t source_of(const Sizes& array, const Sizes& shape, std::int64_t number) {
  std::int64_t result = 0, step = 1;
  for (int d = 1; d <= shape.dims; ++d) {
    const std::int64_t at = number % shape[shape.dims - d];
    number /= shape[shape.dims - d];
    if (d > array.dims) continue;
    if (array[array.dims - d] != 1) result += at * step;
    step *= array[array.dims - d];
  }
  return result;
}

// How an array lies in memory; interleaved: its last dimension outermost.
enum class Lie { planar, gaps, interleaved, backwards };
inline constexpr int lies = 4;

// An array with a margin of untouchable values around and between.
template <class T>
class Array {
 public:
  explicit Array(const Sizes& sizes, Lie lie = Lie::planar) : sizes_(sizes) {
    std::int64_t step = lie == Lie::gaps ? 3 : 1;
    if (lie == Lie::interleaved && sizes.dims > 0) {
      stride_[sizes.dims - 1] = 1;
      for (int d = 0; d < sizes.dims - 1; ++d) stride_[sizes.dims - 1] *= std::max<std::int64_t>(sizes[d], 1);
    }
    for (int d = sizes.dims - 1 - (lie == Lie::interleaved); d >= 0; --d) {
      stride_[d] = step;
      step *= std::max<std::int64_t>(sizes[d], 1);
      if (lie == Lie::gaps) ++step;
    }
    std::int64_t reach = 0;
    for (int d = 0; d < sizes.dims; ++d) {
      reach += stride_[d] * std::max<std::int64_t>(sizes[d] - 1, 0);
      if (lie == Lie::backwards) stride_[d] = -stride_[d];
    }
    memory_.resize(size(reach + 1 + 2 * margin));
    std::memset(static_cast<void*>(memory_.data()), untouched, memory_.size() * sizeof(T));
    first_ = lie == Lie::backwards ? margin + reach : margin;
    if (lie == Lie::planar || sizes.dims == 0) return;
    std::int64_t index[max_view_dims] = {}, at = first_;
    for (std::int64_t i = 0; i < count(); ++i) {
      places_.push_back(at);
      for (int d = sizes.dims - 1; d >= 0; --d) {
        at += stride_[d];
        if (++index[d] < sizes[d]) break;
        at -= sizes[d] * stride_[d];
        index[d] = 0;
      }
    }
  }

  // Row-major.
  T& operator[](std::int64_t number) { return memory_[size(is_planar() ? first_ + number : places_[size(number)])]; }
  std::int64_t count() const { return sizes_.count(); }
  const Sizes& sizes() const { return sizes_; }

  View<T> view() {
    View<T> result(memory_.data() + first_, sizes_);
    std::copy_n(stride_, sizes_.dims, result.stride);
    return result;
  }
  View<const T> input() { return view(); }
  // Elements [first, first + count) of dimension d, counted from the last.
  View<T> piece(std::int64_t first, std::int64_t count, int d = 1) {
    View<T> result = view();
    result.data += first * result.stride[sizes_.dims - d];
    result.sizes.size[sizes_.dims - d] = count;
    return result;
  }
  // To each row of an array whose rows lie in one piece.
  std::vector<T*> pointers(std::int64_t first = 0) {
    std::vector<T*> result;
    const std::int64_t length = sizes_[sizes_.dims - 1];
    for (std::int64_t row = 0; row < count() / std::max<std::int64_t>(length, 1); ++row)
      result.push_back(&(*this)[row * length] + first);
    return result;
  }

  template <class Value>
  Array& fill(Value value) {
    for (std::int64_t i = 0; i < count(); ++i) (*this)[i] = value();
    return *this;
  }
  Array& fill_randomly() {
    return fill([] { return static_cast<T>(grid()); });
  }
  Array& copy(Array& other) {
    std::int64_t i = 0;
    return fill([&] { return other[i++]; });
  }
  // So many values from row `row` on.
  Vector values(std::int64_t row, std::int64_t length) {
    Vector result;
    for (std::int64_t i = 0; i < length; ++i) result.push_back(static_cast<long double>((*this)[row * length + i]));
    return result;
  }

  bool same_bits(Array& other) {
    if (is_planar() && other.is_planar())
      return std::memcmp(&memory_[size(first_)], &other.memory_[size(first_)], size(count()) * sizeof(T)) == 0;
    for (std::int64_t i = 0; i < count(); ++i)
      if (std::memcmp(&(*this)[i], &other[i], sizeof(T)) != 0) return false;
    return true;
  }
  // Nothing was written but what is part of the array. Overwrites that.
  bool intact() {
    for (std::int64_t i = 0; i < count(); ++i) std::memset(static_cast<void*>(&(*this)[i]), untouched, sizeof(T));
    return is_untouched();
  }
  bool is_untouched() const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(memory_.data());
    return std::all_of(bytes, bytes + memory_.size() * sizeof(T), [](unsigned char byte) { return byte == untouched; });
  }

 private:
  static constexpr std::int64_t margin = 5;
  static constexpr int untouched = 0x5a;

  bool is_planar() const { return places_.empty(); }

  Sizes sizes_;
  std::int64_t stride_[max_view_dims] = {}, first_;
  std::vector<std::int64_t> places_;  // of the elements, unless they are neighbours
  std::vector<T> memory_;
};

// By how much the worst value exceeds what is allowed; 0 if none does. Rounding is relative to the value, `error` not.
template <class Sample>
long double excess(Sample value, long double wanted, long double error) {
  const long double rounding = std::is_same_v<Sample, float> ? Number<float>::epsilon * std::abs(wanted) : 0;
  const long double off = std::abs(static_cast<long double>(value) - wanted);
  return off <= error + rounding + tiny<Sample> ? 0 : std::isnan(off) ? INFINITY : off - rounding;
}

// Operands of the one-shot functions: the rows of an array, broadcast to the batch, its last `inner` dimensions apart.
inline Batch batch_of(const Sizes& sizes) {
  Batch batch;
  batch.dims = sizes.dims;
  std::copy_n(sizes.size, sizes.dims, batch.size);
  return batch;
}
template <class T>
Rows<T> rows_of(const View<T>& view, int inner, const Sizes& all) {
  Rows<T> rows;
  rows.data = view.data;
  rows.step = view.stride[view.dims() - 1];
  const int leading = view.dims() - inner;
  for (int d = 1; d <= std::min(leading, all.dims); ++d)
    if (view.sizes[leading - d] != 1) rows.stride[all.dims - d] = view.stride[leading - d];
  return rows;
}
template <class T>
Matrices<T> matrices_of(const View<T>& view, const Sizes& all) {
  return {rows_of(view, 2, all), view.stride[view.dims() - 2]};
}

// ------------------------------------------------------------------------------------------------------------ threads

// A thread for each of three uneven ranges, however short, the last one started first.
inline void threads(void* context, std::int64_t count, std::int64_t, ParallelFor::Body body, void* argument) {
  ++*static_cast<long*>(context);
  const std::int64_t cuts[] = {0, count / 5, count / 5 + (count + 1) / 2, count};
  std::vector<std::thread> running;
  for (std::size_t i = 3; i-- > 0;) {
    if (cuts[i] == cuts[i + 1]) continue;
    running.emplace_back([=, from = cuts[i], to = cuts[i + 1]] { body(argument, from, to); });
  }
  for (std::thread& thread : running) thread.join();
}
// One by one, in no order.
inline void in_disorder(void* context, std::int64_t count, std::int64_t, ParallelFor::Body body, void* argument) {
  ++*static_cast<long*>(context);
  for (const int of_three : {2, 0, 1})
    for (std::int64_t i = count; i-- > 0;)
      if (i % 3 == of_three) body(argument, i, i + 1);
}

// A plan at rest filters x [rows, samples], which drives it beyond all bounds, twice and in pieces, as the direct form
// did, to so many roundings a sample.
template <class Plan>
void grows_like(Array<double>& direct, int roundings, Plan& plan, Array<double>& x, const Sizes& sizes,
                const std::string& where) {
  constexpr double largest = std::numeric_limits<double>::max();
  const std::int64_t samples = sizes[1];
  Array<double> y(sizes), first(sizes);
  for (const bool again : {false, true}) {
    for (std::int64_t t = 0; t < samples; t += 300)
      CHECK(plan.run(x.piece(t, 300), y.piece(t, 300)) == Status::ok, where);
    for (std::int64_t i = 0; i < y.count(); ++i) {
      const double allowed =
          roundings * static_cast<double>(samples) * std::numeric_limits<double>::epsilon() * direct[i];
      if (direct[i] > largest / 4 || !std::isfinite(direct[i])) {
        CHECK(!(std::abs(y[i]) < largest / 16), where, again, i, y[i], direct[i]);
      } else {
        CHECK(std::abs(y[i] - direct[i]) <= allowed, where, again, i, y[i], direct[i]);
      }
    }
    if (again) CHECK(y.same_bits(first), where);
    first.copy(y);
    CHECK(plan.reset() == Status::ok, where);
  }
}

// ------------------------------------------------------------------------- filters that have coefficients of their own

// What a row is to be, and its state after it, with how far a sound kernel may be from each.
struct Expected {
  Vector y, z, z_error;
  long double error = 0;
};

// A class `Filter`, see lfilter_plan.cpp and sosfilt_plan.cpp, has
//
//   Sample, Plan
//   channels, outputs, state_sizes: Sizes
//   algorithms: all that take it
//   text()                                 for messages
//   make(plan, options), change(plan)      with its coefficients; to others of the same shapes
//   one_shot(algorithm, x, y, zi, zf)      the kernel's own function
//   expected(row, x, z, z_error, changed)  the reference
inline std::string where_of(const char* isa, Algorithm algorithm) {
  return std::string(isa) + ' ' + name_of(algorithm) + ' ';
}

// f(algorithm, where) for `automatic` and all that take the filter, on every instruction set.
template <class Filter, class F>
void for_each_kernel(Filter& filter, F f) {
  for (const InstructionSet& set : instruction_sets()) {
    if (!set_isa(set.name)) continue;
    for (const Algorithm algorithm : filter.algorithms) f(algorithm, where_of(set.name, algorithm) + filter.text());
  }
}
template <class Filter>
PlanOptions options_of(const Filter&, Algorithm algorithm, std::int64_t block = 64) {
  PlanOptions options;
  options.block = block;
  options.algorithm = algorithm;
  return options;
}

// A signal, the state before it, and what is to become of them.
template <class Filter>
struct Trial {
  using Sample = typename Filter::Sample;

  Filter& filter;
  std::int64_t samples, change;  // at which other coefficients are set; −1: never
  std::int64_t states = 0;       // of a row
  Array<Sample> x;
  Array<double> zi;
  std::vector<Expected> rows;

  Trial(Filter& given, std::int64_t count, Lie lie, bool at_rest, std::int64_t changed_at = -1)
      : filter(given),
        samples(count),
        change(changed_at),
        x(filter.channels + Sizes{count}, lie),
        zi(filter.state_sizes, lie) {
    x.fill_randomly();
    zi.fill([&] { return at_rest ? 0.0 : static_cast<double>(grid()); });
    const std::int64_t outputs = filter.outputs.count();
    if (outputs > 0) states = filter.state_sizes.count() / outputs;
    for (std::int64_t row = 0; row < outputs; ++row) rows.push_back(expected(row, count));
  }
  // After the first `count` samples.
  Expected expected(std::int64_t row, std::int64_t count) {
    Vector all = x.values(source_of(filter.channels, filter.outputs, row), samples);
    all.resize(size(count));
    const Vector no_error(size(states));
    if (change < 0 || change > count) return filter.expected(row, all, zi.values(row, states), no_error, false);
    const auto cut = all.begin() + change;
    Expected result = filter.expected(row, {all.begin(), cut}, zi.values(row, states), no_error, false);
    const Expected rest = filter.expected(row, {cut, all.end()}, result.z, result.z_error, true);
    result.y.insert(result.y.end(), rest.y.begin(), rest.y.end());
    result.error = std::max(result.error, rest.error);
    result.z = rest.z;
    result.z_error = rest.z_error;
    return result;
  }

  void check_y(Array<Sample>& y, const std::string& where) {
    for (std::size_t row = 0; row < rows.size(); ++row) {
      long double worst = 0;
      const Expected& want = rows[row];
      for (std::size_t t = 0; t < want.y.size(); ++t)
        worst = std::max(worst, excess(y[static_cast<std::int64_t>(row) * samples + static_cast<std::int64_t>(t)],
                                       want.y[t], want.error));
      CHECK(worst == 0, where, "samples", samples, "row", row, "error", worst, "allowed", want.error);
    }
  }
  void check_state(typename Filter::Plan& plan, std::int64_t count, const std::string& where) {
    Array<double> z(filter.state_sizes, static_cast<Lie>(count % lies));
    CHECK(plan.state(z.view()) == Status::ok, where);
    for (std::size_t row = 0; row < rows.size(); ++row) {
      const auto number = static_cast<std::int64_t>(row);
      const Expected want = count == samples ? rows[row] : expected(number, count);
      for (std::size_t k = 0; k < want.z.size(); ++k) {
        const double value = z[number * states + static_cast<std::int64_t>(k)];
        const long double wrong = excess(value, want.z[k], want.z_error[k]);
        CHECK(wrong == 0, where, "state after", count, "row", row, k, "error", wrong, "allowed", want.z_error[k]);
      }
    }
    CHECK(z.intact(), where);
  }
};

// A plan that is made, with the trial's state.
template <class Filter>
typename Filter::Plan plan_of(Trial<Filter>& trial, const PlanOptions& options, const std::string& where) {
  typename Filter::Plan plan;
  CHECK(trial.filter.make(plan, options) == Status::ok, where);
  CHECK(static_cast<bool>(plan) && plan.outputs() == trial.filter.outputs, where);
  CHECK(plan.set_state(trial.zi.input()) == Status::ok, where);
  return plan;
}

// The whole signal at once: as the one-shot function, bit for bit; by pointers, in place and after reset() the same.
template <class Filter>
void in_one_piece(Trial<Filter>& trial, Lie lie) {
  using Sample = typename Filter::Sample;
  Filter& filter = trial.filter;
  const Sizes sizes = filter.outputs + Sizes{trial.samples};
  for_each_kernel(filter, [&](Algorithm algorithm, const std::string& where) {
    auto plan = plan_of(trial, options_of(filter, algorithm), where);
    Array<Sample> y(sizes, lie), one_shot(sizes);
    Array<double> z(filter.state_sizes), zf(filter.state_sizes);
    CHECK(plan.run(trial.x.input(), y.view()) == Status::ok, where);
    trial.check_y(y, where);
    trial.check_state(plan, trial.samples, where);
    CHECK(plan.state(z.view()) == Status::ok, where);

    const Algorithm chosen = plan.algorithm();
    CHECK(chosen != Algorithm::automatic && (algorithm == Algorithm::automatic || chosen == algorithm), where,
          name_of(chosen));
    CHECK(std::ranges::find(filter.algorithms, chosen) != filter.algorithms.end(), where, name_of(chosen));
    CHECK(filter.one_shot(chosen, trial.x.input(), one_shot.view(), trial.zi.input(), zf.view()) == Status::ok, where);
    CHECK(y.same_bits(one_shot), where, "one-shot function, samples", trial.samples);
    CHECK(z.same_bits(zf), where, "one-shot function, state, samples", trial.samples);

    Array<Sample> planar(trial.x.sizes()), out(sizes);
    planar.copy(trial.x);
    const std::vector<Sample*> from = planar.pointers(), to = out.pointers();
    CHECK(plan.set_state(trial.zi.input()) == Status::ok, where);
    CHECK(plan.run(from.data(), to.data(), trial.samples) == Status::ok, where);
    CHECK(plan.state(zf.view()) == Status::ok, where);
    CHECK(out.same_bits(y) && zf.same_bits(z), where, "pointers, samples", trial.samples);

    if (filter.channels == filter.outputs) {
      Array<Sample> both(sizes, lie);
      both.copy(trial.x);
      CHECK(plan.set_state(trial.zi.input()) == Status::ok, where);
      CHECK(plan.run(both.view(), both.view()) == Status::ok, where);
      CHECK(both.same_bits(y), where, "in place, samples", trial.samples);
      CHECK(plan.set_state(trial.zi.input()) == Status::ok, where);
      CHECK(plan.run(from.data(), from.data(), trial.samples) == Status::ok, where);
      CHECK(planar.same_bits(y), where, "in place by pointers, samples", trial.samples);
    }
    CHECK(y.intact() && out.intact(), where, "written beyond its output");

    typename Filter::Plan fresh;
    Array<Sample> again(sizes);
    CHECK(filter.make(fresh, options_of(filter, algorithm)) == Status::ok && plan.reset() == Status::ok, where);
    CHECK(plan.run(trial.x.input(), out.view()) == Status::ok, where);
    CHECK(fresh.run(trial.x.input(), again.view()) == Status::ok, where);
    CHECK(plan.state(z.view()) == Status::ok && fresh.state(zf.view()) == Status::ok, where);
    CHECK(out.same_bits(again) && z.same_bits(zf), where, "reset(), samples", trial.samples);
  });
}

// In blocks of changing lengths, views and pointers in turns; other coefficients are set where the trial says so.
template <class Filter>
void in_pieces(Trial<Filter>& trial, int order) {
  using Sample = typename Filter::Sample;
  Filter& filter = trial.filter;
  const std::int64_t lengths[] = {0, 1, std::max(order - 1, 0), order, 7, 64, 65, 3, 0, 500, 130, 2};
  for_each_kernel(filter, [&](Algorithm algorithm, const std::string& where) {
    auto plan = plan_of(trial, options_of(filter, algorithm), where);
    Array<Sample> y(filter.outputs + Sizes{trial.samples}), planar(trial.x.sizes());
    planar.copy(trial.x);
    std::int64_t t = 0, piece = 0;
    while (t < trial.samples) {
      std::int64_t count = std::min(lengths[piece % std::ssize(lengths)], trial.samples - t);
      if (t < trial.change) count = std::min(count, trial.change - t);
      if (t == trial.change) CHECK(filter.change(plan) == Status::ok, where);
      if (piece++ % 2 == 0) {
        CHECK(plan.run(trial.x.piece(t, count), y.piece(t, count)) == Status::ok, where, "samples", count);
      } else {
        CHECK(plan.run(planar.pointers(t).data(), y.pointers(t).data(), count) == Status::ok, where);
      }
      t += count;
      if (piece == 4) trial.check_state(plan, t, where + "in pieces ");
    }
    trial.check_y(y, where + "in pieces ");
    trial.check_state(plan, trial.samples, where + "in pieces ");
    CHECK(y.intact(), where);
  });
}

// The same bits whatever the threads do, and however long a usual block is said to be.
template <class Filter>
void the_same_bits(Filter& filter, std::int64_t samples, bool threaded) {
  using Sample = typename Filter::Sample;
  Array<Sample> x(filter.channels + Sizes{samples});
  x.fill_randomly();
  for_each_kernel(filter, [&](Algorithm algorithm, const std::string& where) {
    const auto run = [&](const PlanOptions& options, Array<Sample>& y) {
      typename Filter::Plan plan;
      CHECK(filter.make(plan, options) == Status::ok, where);
      const std::int64_t half = samples / 2;
      CHECK(plan.run(x.piece(0, half), y.piece(0, half)) == Status::ok, where);
      CHECK(plan.run(x.piece(half, samples - half), y.piece(half, samples - half)) == Status::ok, where);
    };
    Array<Sample> serial(filter.outputs + Sizes{samples}), y(serial.sizes());
    run(options_of(filter, algorithm), serial);
    for (const auto hook : {&threads, &in_disorder}) {
      long calls = 0;
      PlanOptions options = options_of(filter, algorithm);
      options.parallel_for = {hook, &calls};
      run(options, y);
      CHECK(y.same_bits(serial) && (calls > 0 || !threaded), where, "threads", calls);
    }
    if (algorithm == Algorithm::automatic) return;
    for (const std::int64_t block : {0, 1, 31, 500, 100000}) {
      run(options_of(filter, algorithm, block), y);
      CHECK(y.same_bits(serial), where, "block", block);
    }
  });
}

// A plan is what it was when it was made, wherever it is moved, and nothing that is refused changes it.
template <class Filter>
void handles(Filter& filter) {
  using Sample = typename Filter::Sample;
  using Plan = typename Filter::Plan;
  static_assert(is_a_handle<Plan> && noexcept(Plan().run(View<const Sample>(), View<Sample>())) &&
                noexcept(Plan().run(nullptr, nullptr, 0)) && noexcept(Plan().set_state(View<const double>())) &&
                noexcept(Plan().state(View<double>())) && noexcept(Plan().outputs()));
  Trial<Filter> trial(filter, 150, Lie::planar, false);
  const Sizes sizes = filter.outputs + Sizes{trial.samples};

  const auto is_empty = [&](Plan& plan, const std::string& where) {
    Array<Sample> y(sizes);
    Array<double> z(filter.state_sizes);
    CHECK(!plan && plan.outputs() == Sizes() && plan.algorithm() == Algorithm::automatic, where);
    CHECK(plan.isa() != nullptr && std::strlen(plan.isa()) == 0, where);
    CHECK(plan.run(trial.x.input(), y.view()) == Status::not_made, where);
    CHECK(plan.run(trial.x.pointers().data(), y.pointers().data(), trial.samples) == Status::not_made, where);
    CHECK(plan.run(View<const Sample>(), View<Sample>()) == Status::not_made, where);
    CHECK(filter.change(plan) == Status::not_made && plan.reset() == Status::not_made, where);
    CHECK(plan.set_state(trial.zi.input()) == Status::not_made && plan.state(z.view()) == Status::not_made, where);
    CHECK(y.is_untouched() && z.is_untouched(), where);
  };
  Plan never;
  is_empty(never, "never made");

  for (const InstructionSet& set : instruction_sets()) {
    if (!set_isa(set.name)) continue;
    for (const Algorithm algorithm : filter.algorithms) {
      const std::string where = where_of(set.name, algorithm) + filter.text();
      CHECK(set_isa(set.name));
      Array<Sample> want(sizes), y(sizes);
      Plan plan = plan_of(trial, options_of(filter, algorithm), where);
      const Algorithm chosen = plan.algorithm();
      CHECK(plan.run(trial.x.input(), want.view()) == Status::ok, where);
      CHECK(std::string(plan.isa()) == set.name, where, plan.isa());
      const auto still_runs = [&](Plan& moved, const char* what) {
        CHECK(static_cast<bool>(moved) && std::string(moved.isa()) == set.name, where, what);
        CHECK(moved.set_state(trial.zi.input()) == Status::ok, where, what);
        CHECK(moved.run(trial.x.input(), y.view()) == Status::ok, where, what);
        CHECK(y.same_bits(want), where, what);
      };

      for (const InstructionSet& other : instruction_sets()) {  // of another instruction set from here on
        if (!set_isa(other.name)) continue;
        still_runs(plan, "another instruction set");
        CHECK(filter.make(never, options_of(filter, algorithm)) == Status::ok, where);
        CHECK(std::string(never.isa()) == other.name, where);
        never = Plan();
      }
      is_empty(never, "assigned an empty one");

      // In the middle of a signal.
      CHECK(plan.set_state(trial.zi.input()) == Status::ok, where);
      CHECK(plan.run(trial.x.piece(0, 70), y.piece(0, 70)) == Status::ok, where);
      Plan constructed = std::move(plan);
      is_empty(plan, where + "moved from");  // NOLINT(bugprone-use-after-move)
      Plan assigned;
      CHECK(filter.make(assigned, options_of(filter, Algorithm::direct)) == Status::ok, where);
      assigned = std::move(constructed);
      CHECK(assigned.algorithm() == chosen, where, name_of(assigned.algorithm()));
      Plan& self = assigned;
      assigned = std::move(self);
      if (CHECK(static_cast<bool>(assigned), where, "moved to itself"))
        CHECK(assigned.run(trial.x.piece(70, 80), y.piece(70, 80)) == Status::ok, where);
      Array<Sample> in_two(sizes);
      CHECK(set_isa(set.name));
      plan = plan_of(trial, options_of(filter, algorithm), where);
      CHECK(plan.run(trial.x.piece(0, 70), in_two.piece(0, 70)) == Status::ok, where);
      CHECK(plan.run(trial.x.piece(70, 80), in_two.piece(70, 80)) == Status::ok, where);
      CHECK(y.same_bits(in_two), where, "moved in the middle");
      still_runs(assigned, "moved");
      std::swap(plan, assigned);
      still_runs(plan, "swapped");

      // Made again: at rest. And not made, for it is asked for what cannot be.
      CHECK(filter.make(plan, options_of(filter, algorithm)) == Status::ok, where);
      Array<double> z(filter.state_sizes);
      z.fill([] { return 1; });
      CHECK(plan.state(z.view()) == Status::ok, where);
      for (std::int64_t i = 0; i < z.count(); ++i) CHECK(z[i] == 0, where, "made again", i);
      still_runs(plan, "made again");
      for (const Algorithm wrong : {Algorithm::fft, static_cast<Algorithm>(99), static_cast<Algorithm>(-1)}) {
        CHECK(filter.make(plan, options_of(filter, wrong)) == Status::unsupported, where, static_cast<int>(wrong));
        is_empty(plan, where + "not made again");
        CHECK(filter.make(plan, options_of(filter, algorithm)) == Status::ok, where);
      }
      CHECK(filter.make(plan, options_of(filter, algorithm, -1)) == Status::out_of_range, where);
      is_empty(plan, where + "a block below 0");
    }
  }
}

// A NaN or an infinity reaches what depends on it, and nothing else: no earlier sample, no other row. reset() ends it.
template <class Filter>
void not_finite(Filter& filter) {
  using Sample = typename Filter::Sample;
  constexpr std::int64_t samples = 600;
  const std::int64_t outputs = filter.outputs.count(), struck = filter.channels.count() / 2;
  Trial<Filter> trial(filter, samples, Lie::planar, true);
  Array<Sample>& x = trial.x;
  for_each_kernel(filter, [&](Algorithm algorithm, const std::string& where) {
    typename Filter::Plan plan;
    CHECK(filter.make(plan, options_of(filter, algorithm)) == Status::ok, where);
    Array<Sample> clean(filter.outputs + Sizes{samples}), y(clean.sizes());
    CHECK(plan.run(x.input(), clean.view()) == Status::ok, where);
    // Blocks are computed again from their beginning, sample by sample: up to rounding.
    const bool again_by_another = plan.algorithm() == Algorithm::blocks;
    for (const std::int64_t at : {0, 1, 7, 64, 511, 599}) {
      const Sample value = at % 3 == 0 ? std::numeric_limits<Sample>::quiet_NaN()
                                       : (at % 3 == 1 ? 1 : -1) * std::numeric_limits<Sample>::infinity();
      const Sample before = std::exchange(x[struck * samples + at], value);
      CHECK(plan.reset() == Status::ok && plan.run(x.input(), y.view()) == Status::ok, where);
      x[struck * samples + at] = before;
      for (std::int64_t row = 0; row < outputs; ++row) {
        const bool hit = source_of(filter.channels, filter.outputs, row) == struck;
        bool same = true, close = true, not_a_number = true;
        for (std::int64_t t = 0; t < samples; ++t) {
          const Sample now = y[row * samples + t], without = clean[row * samples + t];
          if (hit && t >= at) {
            not_a_number &= !std::isfinite(now);
          } else {
            same &= std::memcmp(&now, &without, sizeof now) == 0;
            close &= excess(now, static_cast<long double>(without), 2 * trial.rows[size(row)].error) == 0;
          }
        }
        CHECK(same || (close && hit && again_by_another), where, "struck at", at, "row", row, hit);
        CHECK(not_a_number || !filter.recursive, where, "struck at", at, "row", row);
      }
      CHECK(plan.run(x.input(), y.view()) == Status::ok, where);
      for (std::int64_t row = 0; row < outputs; ++row)
        CHECK(std::isfinite(y[row * samples]) == (source_of(filter.channels, filter.outputs, row) != struck) ||
                  !filter.recursive,
              where, "the state after it, row", row);
      CHECK(plan.reset() == Status::ok && plan.run(x.input(), y.view()) == Status::ok, where);
      CHECK(y.same_bits(clean), where, "after reset()");
    }
  });
}

// Where it is refused, a run changes neither output nor state.
template <class Filter>
class Refusals {
 public:
  using Sample = typename Filter::Sample;
  using Plan = typename Filter::Plan;

  Refusals(Filter& filter, Algorithm algorithm, std::string where)
      : where_(std::move(where)), filter_(filter), trial_(filter, 40, Lie::gaps, false) {
    plan = plan_of(trial_, options_of(filter, algorithm), where_);
  }

  Plan plan;

  // What is wrong with the shape of x and y, or with their memory.
  void runs() {
    const std::int64_t n = trial_.samples;
    Array<Sample> y(filter_.outputs + Sizes{n});
    const View<const Sample> x = trial_.x.input();
    const auto refused = [&](const View<const Sample>& in, const View<Sample>& out, Status status, const char* what) {
      CHECK(plan.run(in, out) == status, where_, what);
      CHECK(y.is_untouched(), where_, what);
      same_state(what);
    };
    const auto resized = [](auto view, int d, std::int64_t to) {
      view.sizes.size[d] = to;
      return view;
    };
    const int x_last = x.dims() - 1, y_last = y.sizes().dims - 1;
    refused(resized(x, x_last, n - 1), y.view(), Status::wrong_shape, "fewer samples in");
    refused(x, resized(y.view(), y_last, n - 1), Status::wrong_shape, "fewer samples out");
    refused(resized(x, x_last, 0), y.view(), Status::wrong_shape, "no samples in");
    refused({}, y.view(), Status::wrong_shape, "no x");
    refused(x, {}, Status::wrong_shape, "no y");
    for (int d = 0; d < x_last; ++d) {
      refused(resized(x, d, x.sizes[d] + 1), y.view(), Status::wrong_shape, "another channel");
      refused(resized(x, d, x.sizes[d] - 1), y.view(), Status::wrong_shape, "a channel less");
    }
    for (int d = 0; d < y_last; ++d) {
      refused(x, resized(y.view(), d, y.sizes()[d] + 1), Status::wrong_shape, "another output");
      refused(x, resized(y.view(), d, y.sizes()[d] - 1), Status::wrong_shape, "an output less");
    }
    View<const Sample> more = x;
    more.sizes = Sizes{1} + x.sizes;
    std::copy_n(x.stride, x.dims(), more.stride + 1);
    refused(more, y.view(), Status::wrong_shape, "another dimension");
    more.sizes.dims = -1;
    refused(more, y.view(), Status::wrong_shape, "-1 dimensions");
    refused(resized(x, x_last, -n), resized(y.view(), y_last, -n), Status::out_of_range, "samples below 0");
    View<const Sample> nowhere = x;
    nowhere.data = nullptr;
    refused(nowhere, y.view(), Status::no_data, "x is nowhere");
    View<Sample> to_nowhere = y.view();
    to_nowhere.data = nullptr;
    refused(x, to_nowhere, Status::no_data, "y is nowhere");

    Array<Sample> planar(trial_.x.sizes());
    const std::vector<Sample*> from = planar.pointers(), to = y.pointers();
    const auto pointers = [&](const Sample* const* in, Sample* const* out, std::int64_t count, Status status,
                              const char* what) {
      CHECK(plan.run(in, out, count) == status && y.is_untouched(), where_, what);
      same_state(what);
    };
    pointers(from.data(), to.data(), -1, Status::out_of_range, "samples below 0, pointers");
    pointers(nullptr, to.data(), n, Status::no_data, "no pointers to x");
    pointers(from.data(), nullptr, n, Status::no_data, "no pointers to y");
    for (const bool last : {false, true}) {
      std::vector<Sample*> one_is_null = from;
      (last ? one_is_null.back() : one_is_null.front()) = nullptr;
      pointers(one_is_null.data(), to.data(), n, Status::no_data, "a pointer to x");
      one_is_null = to;
      (last ? one_is_null.back() : one_is_null.front()) = nullptr;
      pointers(from.data(), one_is_null.data(), n, Status::no_data, "a pointer to y");
    }

    // Nothing to do is no fault.
    nowhere.sizes.size[x_last] = to_nowhere.sizes.size[y_last] = 0;
    refused(nowhere, to_nowhere, Status::ok, "no samples, nowhere");
    pointers(nullptr, nullptr, 0, Status::ok, "no samples, no pointers");
  }

  void states() {
    Array<double> other(filter_.state_sizes, Lie::gaps);
    other.fill([] { return 100; });
    View<double> z = other.view();
    const auto both = [&](const View<double>& view, Status of_set, Status of_get, const char* what) {
      CHECK(plan.set_state(view) == of_set, where_, "set_state", what);
      same_state(what);
      CHECK(plan.state(view) == of_get, where_, "state", what);
      same_state(what);
      for (std::int64_t i = 0; i < other.count(); ++i) CHECK(other[i] == 100, where_, "state", what, i);
    };
    const int last = z.dims() - 1;
    const auto wrong = [&](int d, std::int64_t to, Status status, const char* what) {
      View<double> view = z;
      view.sizes.size[d] = to;
      both(view, status, status, what);
    };
    wrong(last, z.sizes[last] + 1, Status::wrong_shape, "order + 1");
    wrong(last, z.sizes[last] - 1, Status::wrong_shape, "order - 1");
    wrong(last, -2, Status::wrong_shape, "order below 0");
    wrong(0, z.sizes[0] + 1, Status::wrong_shape, "another row");
    View<double> no_dims = z;
    no_dims.sizes.dims = -1;
    both(no_dims, Status::wrong_shape, Status::wrong_shape, "-1 dimensions");
    no_dims.sizes.dims = 0;
    both(no_dims, Status::wrong_shape, Status::wrong_shape, "0 dimensions");
    View<double> nowhere = z;
    nowhere.data = nullptr;
    both(nowhere, Status::no_data, Status::no_data, "nowhere");
  }

  // The state is the one that was set.
  void same_state(const char* what) {
    Array<double> z(filter_.state_sizes);
    CHECK(plan.state(z.view()) == Status::ok, where_, what);
    for (std::int64_t i = 0; i < z.count(); ++i)
      CHECK(std::abs(z[i] - trial_.zi[i]) <= 4 * std::numeric_limits<double>::epsilon() * std::abs(trial_.zi[i]),
            where_, "the state after", what, i, z[i], trial_.zi[i]);
  }
  // The coefficients are those that it was made with.
  void same_coefficients(const char* what) {
    Array<Sample> y(filter_.outputs + Sizes{trial_.samples});
    CHECK(plan.set_state(trial_.zi.input()) == Status::ok, where_, what);
    CHECK(plan.run(trial_.x.input(), y.view()) == Status::ok, where_, what);
    trial_.check_y(y, where_ + what);
    CHECK(plan.set_state(trial_.zi.input()) == Status::ok, where_, what);
  }

 private:
  std::string where_;
  Filter& filter_;
  Trial<Filter> trial_;
};

// What is set for all outputs, or for some dimensions of them.
template <class Filter>
void state_broadcasts(Filter& filter, int inner) {
  for_each_kernel(filter, [&](Algorithm algorithm, const std::string& where) {
    typename Filter::Plan plan;
    CHECK(filter.make(plan, options_of(filter, algorithm)) == Status::ok, where);
    const Sizes& all = filter.state_sizes;
    for (int leading = 0; leading <= all.dims - inner; ++leading) {
      for (const Lie lie : {Lie::planar, Lie::backwards}) {
        Sizes own;
        for (int d = all.dims - inner - leading; d < all.dims; ++d)
          own = own + Sizes{d == all.dims - inner - 1 && leading > 1 ? 1 : all[d]};
        Array<double> zi(own, lie), z(all);
        zi.fill_randomly();
        CHECK(plan.set_state(zi.input()) == Status::ok && plan.state(z.view()) == Status::ok, where, leading);
        for (std::int64_t i = 0; i < z.count(); ++i) {
          const double wanted = zi[source_of(own, all, i)];
          CHECK(std::abs(z[i] - wanted) <= 4 * std::numeric_limits<double>::epsilon() * std::abs(wanted), where,
                "leading", leading, i, z[i], wanted);
        }
      }
    }
  });
}

}  // namespace torch_iir
