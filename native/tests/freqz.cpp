// freqz and freqz_backward against a plain reference in long double, on every instruction set that the machine has, at
// sizes around every boundary.
#include "torch_iir/freqz.h"

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "reference.h"
#include "torch_iir/instruction_sets.h"

#if defined(TORCH_IIR_EMULATED)
#include "emulator/scheduler.h"
#endif

namespace torch_iir {

template <>
struct Number<std::complex<float>> {
  using Exact = std::complex<long double>;
  static constexpr long double epsilon = std::numeric_limits<float>::epsilon();
};

}  // namespace torch_iir

using namespace torch_iir;

namespace {

using Wide = std::complex<long double>;

constexpr long double epsilon = std::numeric_limits<double>::epsilon();
constexpr long double pi = std::numbers::pi_v<long double>;

// What the sections are.
enum class Kind {
  general,
  huge,    // coefficients around 1e30
  small,   // around 1e-30
  uneven,  // gains that differ by 60 orders of magnitude, and make up for each other
  zeros,   // sections that are 0 where w is: one of them, two of them, at all angles
  edge,    // double zeros at z = ±1
  poles,   // pairs of radius about 0.9999 at several angles, 0 and π among them
};

struct Case {
  int rows, angles, sections;
  int b_length = 3, a_length = 3;
  int outer = 1;
  Layout layout = Layout::contiguous;
  Shared shared_b = {}, shared_a = {}, shared_w = {};
  bool summed = true;  // gradients are over the rows that share the operand; else each row has its own
  bool grid = false;
  int wanted = 7;  // bits: gb, ga, gw
  Kind kind = Kind::general;

  std::string text() const {
    const auto shares = [](Shared shared, const char* what) {
      return std::string(what) + (shared.outer ? "o" : "-") + (shared.inner ? "i" : "-");
    };
    return "rows " + std::to_string(outer) + " × " + std::to_string(rows) + " angles " + std::to_string(angles) +
           " sections " + std::to_string(sections) + " of " + std::to_string(b_length) + " / " +
           std::to_string(a_length) + " layout " + std::to_string(static_cast<int>(layout)) + shares(shared_b, " b ") +
           shares(shared_a, " a ") + shares(shared_w, " w ") + (summed ? "" : " apart") + (grid ? " grid" : "") +
           " wanted " + std::to_string(wanted) + " kind " + std::to_string(static_cast<int>(kind));
  }
};

// --------------------------------------------------------------------------------------------------------- operands

// On the grid of random_value, but never next to 0.
template <class E>
E unit_value() {
  return E(random_bits() % 2 != 0 ? 1.25L : -1.25L) + random_value<E>();
}

// What a case's operands hold.
template <class Value, class E>
struct Inputs {
  using State = StateOf<E>;

  Case c;
  Grid grid{c.outer, c.rows};
  Block<State> b{grid, c.b_length, c.layout, c.shared_b, c.sections};
  Block<State> a{grid, c.a_length, c.layout, c.shared_a, c.sections};
  Block<double> w{grid, c.angles, c.layout, c.shared_w};
  Block<std::complex<Value>> g{grid, c.angles, c.layout};
  double step = 0;

  explicit Inputs(const Case& given) : c(given) {
    g.fill([] { return sample<std::complex<Value>>(random_value<Wide>()); });
    step = c.angles > 1 ? static_cast<double>(pi / (c.angles - 1)) : 0.5;
    for (int row = 0; row < grid.rows(); ++row) {
      for (int i = 0; i < c.angles; ++i) w.at(row, i) = angle(i);
      for (int s = 0; s < c.sections; ++s) {
        const std::vector<E> numerator = random_numerator(s), poles = random_denominator(s);
        for (int k = 0; k < c.b_length; ++k)
          b.at(row, k, s) = static_cast<State>(numerator[static_cast<std::size_t>(k)]);
        for (int k = 0; k < c.a_length; ++k) a.at(row, k, s) = static_cast<State>(poles[static_cast<std::size_t>(k)]);
      }
    }
  }

  long double angle_at(int row, int i) {
    return c.grid ? static_cast<long double>(step) * i : static_cast<long double>(w.at(row, i));
  }

  Freqz<Value, State> forward(Block<std::complex<Value>>& h) {
    Freqz<Value, State> f;
    f.batch = grid.batch();
    f.angles = c.angles;
    f.sections = c.sections;
    f.b_length = c.b_length;
    f.a_length = c.a_length;
    f.b = sections_in(b);
    f.a = sections_in(a);
    if (c.grid) {
      f.step = step;
    } else {
      f.w = w.input();
    }
    f.h = h.rows();
    return f;
  }
  FreqzBackward<Value, State> backward(Block<State>& gb, Block<State>& ga, Block<double>& gw) {
    FreqzBackward<Value, State> f;
    f.batch = grid.batch();
    f.angles = c.angles;
    f.sections = c.sections;
    f.b_length = c.b_length;
    f.a_length = c.a_length;
    f.g = g.input();
    f.b = sections_in(b);
    f.a = sections_in(a);
    if (c.grid) {
      f.step = step;
    } else {
      f.w = w.input();
    }
    if ((c.wanted & 1) != 0) f.gb = sections(gb);
    if ((c.wanted & 2) != 0) f.ga = sections(ga);
    if ((c.wanted & 4) != 0) f.gw = gw.rows();
    return f;
  }

 private:
  // Of every size, with special ones between them: 0, what is nearest to π and π / 2, and both sides of 0 and π.
  double angle(int i) const {
    const long double random = between_ones();
    const double near = std::ldexp(1.0, -(i / 4 % 30));
    if (c.kind == Kind::edge || c.kind == Kind::poles) {
      if (i % 4 == 0) return i == 0 ? 0 : near;
      if (i % 4 == 1) return i == 1 ? static_cast<double>(pi) : static_cast<double>(pi) - near;
      if (i % 4 == 2) return -near;
      return static_cast<double>(7 * random);
    }
    switch (i % 16) {
      case 0: return 0;
      case 5: return static_cast<double>(pi);
      case 10: return static_cast<double>(-pi / 2);
      case 15: return static_cast<double>(1e5L * random);
      default: return static_cast<double>(7 * random);
    }
  }
  static long double between_ones() {
    return static_cast<long double>(static_cast<std::int64_t>(random_bits() >> 11)) / 0x1p52L - 1;
  }

  // The scale of both, and what b has on top of it.
  long double scale() const { return c.kind == Kind::huge ? 1e30L : c.kind == Kind::small ? 1e-30L : 1; }
  long double gain(int s) const {
    if (c.kind != Kind::uneven || s == c.sections - 1 - s) return 1;
    return s < c.sections / 2 ? 1e30L : s >= c.sections - c.sections / 2 ? 1e-30L : 1;
  }

  // Of gain about 1 at most angles, so that long cascades stay in the range of a float.
  std::vector<E> random_numerator(int s) const {
    std::vector<E> result(static_cast<std::size_t>(c.b_length));
    const long double size = 1.25L * std::sqrt(static_cast<long double>(c.b_length));
    for (E& value : result) value = static_cast<State>(unit_value<E>() / size);
    const auto be = [&result](E b0, E b1, E b2) {
      std::ranges::fill(result, E(0));
      const E from[] = {b0, b1, b2};
      std::copy_n(from, std::min<std::size_t>(result.size(), 3), result.begin());
    };
    const E b0 = result[0];
    if (c.kind == Kind::zeros) {
      if (s % 4 == 0) be(b0, -b0, 0);                                             // 0 where w is
      if (s % 4 == 1) c.b_length == 2 ? be(b0, -b0, 0) : be(b0, E(-2) * b0, b0);  // twice
      if (s % 4 == 2 && c.b_length > 2) be(b0, 0, -b0);                           // and next to where it is π
      if (s == 11) be(0, 0, 0);
    }
    if (c.kind == Kind::edge) be(b0, E(s % 2 != 0 ? 2 : -2) * b0, b0);
    for (E& value : result) value *= scale() * gain(s);
    return result;
  }

  std::vector<E> random_denominator(int s) const {
    const auto length = static_cast<std::size_t>(c.a_length);
    std::vector<E> result;
    if (c.kind == Kind::poles && c.a_length > 2) {
      constexpr std::array<long double, 6> at{0, 1e-4L, 1, pi / 2, pi - 1e-3L, pi};
      const long double radius = 0.9999L + 0.00002L * torch_iir::grid();
      result = {E(1), E(-2 * radius * std::cos(at[static_cast<std::size_t>(s) % at.size()])), E(radius * radius)};
    } else if (length > 100) {  // without zeros near the circle, where that of a product of so many factors rounds
      result = {E(1)};
      while (result.size() < length)
        result.push_back(static_cast<State>(unit_value<E>() / (5 * static_cast<long double>(length))));
    } else {
      result = denominator<E>(s % 4 == 3 ? std::max(c.a_length - 2, 0) : c.a_length - 1, s % 3 == 2 ? -2 : 1);
    }
    result.resize(length);
    for (E& value : result) value *= scale();
    return result;
  }
};

template <class Value, class E>
struct Outputs {
  using State = StateOf<E>;
  Block<std::complex<Value>> h;
  Block<State> gb, ga;
  Block<double> gw;

  explicit Outputs(const Inputs<Value, E>& in)
      : h(in.grid, in.c.angles, in.c.layout),
        gb(in.grid, in.c.b_length, in.c.layout, in.c.summed ? in.c.shared_b : Shared{}, in.c.sections),
        ga(in.grid, in.c.a_length, in.c.layout, in.c.summed ? in.c.shared_a : Shared{}, in.c.sections),
        gw(in.grid, in.c.angles, in.c.layout, in.c.summed ? in.c.shared_w : Shared{}) {}

  bool same_bits(const Outputs& other) const {
    return h.same_bits(other.h) && gb.same_bits(other.gb) && ga.same_bits(other.ga) && gw.same_bits(other.gw);
  }
  bool intact() { return h.intact() && gb.intact() && ga.intact() && gw.intact(); }
};

template <class Value, class E>
void compute(Inputs<Value, E>& in, Outputs<Value, E>& out, ParallelFor parallel, const std::string& where) {
  CHECK(freqz(in.forward(out.h), parallel) == Status::ok, where);
  CHECK(freqz_backward(in.backward(out.gb, out.ga, out.gw), parallel) == Status::ok, where);
}

// --------------------------------------------------------------------------------------------------------- reference

// Values, and how far each of a kernel's may be from its own.
struct Values {
  std::vector<Wide> value;
  std::vector<long double> error;

  explicit Values(std::size_t count = 0) : value(count), error(count) {}
  void add(const Values& other) {
    value.resize(other.value.size());
    error.resize(other.value.size());
    for (std::size_t i = 0; i < value.size(); ++i) value[i] += other.value[i], error[i] += other.error[i];
  }
};

// An angle, and how far from it a kernel may compute: k · step rounds, and so does a turn from one angle to the next.
struct Angle {
  long double w, error;
  Wide delay;  // e^−jw
  Wide shift;  // e^−jw ∓ 1, the smaller: exact to rounding

  explicit Angle(long double at, bool rounded) : w(at), error(rounded ? 3 * epsilon * std::abs(at) : 0) {
    const long double sine = std::sin(w), s = std::sin(w / 2), c = std::cos(w / 2);
    delay = {std::cos(w), -sine};
    shift = {delay.real() > 0 ? -2 * s * s : 2 * c * c, -sine};
  }
};

// A polynomial and its derivative by w at an angle, and how far a sound kernel may be from them.
struct Polynomial {
  Wide value, slope;
  long double error, slope_error;
  long double slope_size;  // of the terms

  template <class E>
  Polynomial(const std::vector<E>& c, const Angle& at, bool centred) {
    const auto length = static_cast<long double>(c.size());
    long double size = 0, moved = 0;
    slope_size = 0;
    for (std::size_t k = c.size(); k-- > 0;) {
      const auto lag = static_cast<long double>(k);
      value = value * at.delay + Wide(c[k]);
      slope = slope * at.delay + Wide(0, -lag) * Wide(c[k]);
      size += std::abs(c[k]);
      moved += lag * std::abs(c[k]);
      slope_size += (lag + 1) * std::abs(c[k]);
    }
    error = (2 * length + 4) * epsilon * size;
    slope_error = (2 * length + 4) * epsilon * slope_size;
    if (centred) {
      // b0 + b1 e^−jw + b2 e^−2jw about e^−jw = ±1, where what is left of the terms is all that rounds.
      std::array<Wide, 3> b{};
      for (std::size_t k = 0; k < c.size(); ++k) b[k] = c[k];
      const long double sign = at.delay.real() > 0 ? 1 : -1;
      const Wide outer = b[0] + b[2], middle = b[1] + sign * outer;
      value = sign * middle + at.shift * (b[1] + 2 * sign * b[2] + at.shift * b[2]);
      error = 8 * epsilon *
              (std::abs(middle) + std::abs(outer * at.shift.real()) + std::abs((b[0] - b[2]) * at.shift.imag()));
    }
    error += at.error * moved;
    slope_error += at.error * length * moved;
  }
};

// From what a magnitude is at least and to what it is at most.
struct Range {
  long double least = 1, most = 1;

  Range operator*(const Range& other) const { return {least * other.least, most * other.most}; }
  long double error(long double roundings) const { return most - least + roundings * epsilon * most; }
};

Range at_most(long double value, long double error) { return {value, value + error}; }
Range inverse(long double value, long double error) {
  return {1 / value, error < value ? 1 / (value - error) : INFINITY};
}

struct Reference {
  Values h, gw;
  std::vector<Values> gb, ga;
};

// Of one row. Relative errors add up over the sections; the sums over all angles round once for each of their terms at
// most, in practice by a walk.
template <class Value, class E>
Reference reference_of(Inputs<Value, E>& in, int row) {
  const Case& c = in.c;
  const auto count = static_cast<std::size_t>(c.sections), angles = static_cast<std::size_t>(c.angles);
  const auto b_length = static_cast<std::size_t>(c.b_length), a_length = static_cast<std::size_t>(c.a_length);
  const bool centred = c.b_length <= 3 && c.a_length <= 3;
  const long double roundings = 8 * (c.sections + 1) + 2 * (c.b_length + c.a_length);
  const long double adding = roundings + 16 + std::sqrt(static_cast<long double>(c.angles) * in.grid.rows());
  std::vector<std::vector<E>> b(count), a(count);
  for (std::size_t s = 0; s < count; ++s) {
    b[s] = in.b.values(row, static_cast<std::int64_t>(s));
    a[s] = in.a.values(row, static_cast<std::int64_t>(s));
  }

  Reference result{Values(angles), Values(angles), {}, {}};
  result.gb.assign(count, Values(b_length));
  result.ga.assign(count, Values(a_length));
  std::vector<Wide> others(count);
  std::vector<Range> other_sizes(count);
  std::vector<Polynomial> numerators, denominators;
  for (std::size_t i = 0; i < angles; ++i) {
    const Angle at(in.angle_at(row, static_cast<int>(i)), c.grid);
    numerators.clear();
    denominators.clear();
    Wide product = 1;
    Range size;
    const auto range = [&](std::size_t s) {
      const Polynomial &n = numerators[s], &d = denominators[s];
      return at_most(std::abs(n.value), n.error) * inverse(std::abs(d.value), d.error);
    };
    for (std::size_t s = 0; s < count; ++s) {
      numerators.emplace_back(b[s], at, centred);
      denominators.emplace_back(a[s], at, centred);
      others[s] = product;
      other_sizes[s] = size;
      product *= numerators[s].value / denominators[s].value;
      size = size * range(s);
    }
    result.h.value[i] = product;
    result.h.error[i] = size.error(roundings);

    const Wide g(in.g.at(row, static_cast<std::int64_t>(i)));
    product = 1;
    size = {};
    Wide slope;
    for (std::size_t s = count; s-- > 0;) {
      const Polynomial &n = numerators[s], &d = denominators[s];
      const Range one = inverse(std::abs(d.value), d.error), ratio = range(s);
      const Wide of_b = others[s] * product / d.value, of_a = -of_b * (n.value / d.value);
      const Range b_size = other_sizes[s] * size * one, a_size = b_size * ratio;
      product *= n.value / d.value;
      size = size * ratio;
      slope += of_b * n.slope + of_a * d.slope;
      const Range b_slope = b_size * at_most(n.slope_size, n.slope_error),
                  a_slope = a_size * at_most(d.slope_size, d.slope_error);
      result.gw.error[i] += std::abs(g) * (b_slope.error(roundings) + a_slope.error(roundings));

      const auto add = [&](const Wide& factor, const Range& term, Values& to) {
        Wide power = 1;
        const auto length = static_cast<long double>(to.value.size());
        const long double error = std::abs(g) * (term.error(adding) + at.error * length * term.most);
        for (std::size_t k = 0; k < to.value.size(); ++k) {
          const Wide value = g * conj(factor * power);
          to.value[k] += std::is_same_v<E, long double> ? Wide(value.real()) : value;
          to.error[k] += error;
          power *= at.delay;
        }
      };
      add(of_b, b_size, result.gb[s]);
      add(of_a, a_size, result.ga[s]);
    }
    result.gw.value[i] = (g * conj(slope)).real();
  }
  return result;
}

// How many values there were, and how many of them had a bound that says something.
long values = 0, bounded = 0;

template <class T>
void compare(Block<T>& block, int row, std::int64_t part, const Values& want, const std::string& where,
             const char* what) {
  constexpr long double rounding = Number<T>::epsilon;
  for (std::size_t i = 0; i < want.value.size(); ++i) {
    const auto value = exact<T>(block.at(row, static_cast<std::int64_t>(i), part));
    const long double tolerance = want.error[i] + rounding * std::abs(want.value[i]) + tiny<float>;
    const long double error = std::abs(Wide(value) - want.value[i]);
    ++values;
    if (want.error[i] <= 1e-3L * std::abs(want.value[i])) ++bounded;
    CHECK(error <= tolerance, where, what, "row", row, "section", part, "number", i, "is", value, "not", want.value[i],
          "error", error, "tolerance", tolerance);
  }
}

// --------------------------------------------------------------------------------------------------------------- cases

template <class Value, class E = long double>
void run(const Case& given) {
  Case c = given;
  if (c.grid) c.wanted &= 3;
  Inputs<Value, E> in(c);
  const int rows = in.grid.rows();

  // What several rows share is summed where its owner is.
  const Outputs<Value, E> owners(in);
  std::vector<Reference> reference, sums(static_cast<std::size_t>(rows));
  for (int row = 0; row < rows; ++row) {
    const Reference& r = reference.emplace_back(reference_of(in, row));
    const auto add = [](std::vector<Values>& to, const std::vector<Values>& from) {
      to.resize(from.size());
      for (std::size_t s = 0; s < from.size(); ++s) to[s].add(from[s]);
    };
    add(sums[owners.gb.owner(row)].gb, r.gb);
    add(sums[owners.ga.owner(row)].ga, r.ga);
    sums[owners.gw.owner(row)].gw.add(r.gw);
  }

  for_each_isa([&](const std::string& isa) {
    const std::string where = isa + c.text();
    Outputs<Value, E> out(in);
    compute(in, out, {two_halves, nullptr}, where);
    for (int row = 0; row < rows; ++row) {
      compare(out.h, row, 0, reference[static_cast<std::size_t>(row)].h, where, "h");
      const auto compare_sections = [&](auto& block, const std::vector<Values>& want, const char* what) {
        for (std::size_t s = 0; s < want.size(); ++s)
          compare(block, row, static_cast<std::int64_t>(s), want[s], where, what);
      };
      if ((c.wanted & 1) != 0) compare_sections(out.gb, sums[out.gb.owner(row)].gb, "gb");
      if ((c.wanted & 2) != 0) compare_sections(out.ga, sums[out.ga.owner(row)].ga, "ga");
      if ((c.wanted & 4) != 0) compare(out.gw, row, 0, sums[out.gw.owner(row)].gw, where, "gw");
    }
    // What was not asked for was not written, nor what is between the values.
    if ((c.wanted & 1) == 0) CHECK(out.gb.same_bits(owners.gb), where);
    if ((c.wanted & 2) == 0) CHECK(out.ga.same_bits(owners.ga), where);
    if ((c.wanted & 4) == 0) CHECK(out.gw.same_bits(owners.gw), where);
    CHECK(out.intact(), where);
  });
}

constexpr Shared shares[] = {{}, {true, true}, {true, false}, {false, true}};

// A vector has 2 to 8 angles, 32 at most go through at once, and a block has 512; forwards, 8 sections at a time.
// On CUDA, a block has 128 angles at a time, or 256, and 4 sections of real coefficients or 2 of complex ones.
void every_size() {
  const std::vector<int> angles =
      emulated ? std::vector{0, 1, 2, 33, 127, 128, 129, 256, 257, 513, 1100}
               : std::vector{0,  1,  2,  3,  4,  5,   7,   8,   9,   15,  16,  17,   31,   32,   33,  63,
                             64, 65, 95, 96, 97, 127, 128, 129, 511, 512, 513, 1023, 1024, 1025, 4097};
  // Angles of all sections and rows: what is longer only costs time.
  const long most = emulated ? 2500 : sanitized ? 3000 : 20000;
  int count = 0;
  for (const int w : angles) {
    for (const int sections : {1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 20}) {
      if (emulated ? sections == 7 || sections == 16 || sections == 20 : sections == 4 || sections == 5) continue;
      for (const int rows : {1, 3, 6}) {
        if (long{w} * sections * rows > most && rows * sections > 1) continue;
        Case c{rows, w, sections};
        ++count;
        if (rows == 6) c.outer = 2, c.rows = 3;
        c.layout = static_cast<Layout>(count % 4);
        c.b_length = count / 2 % 3 + 1;
        c.a_length = count / 6 % 3 + 1;
        if (count % 2 != 0) c.b_length = c.a_length = 3;
        c.shared_b = shares[count % 4];
        c.shared_a = shares[count / 4 % 4];
        c.shared_w = shares[count / 3 % 4];
        c.summed = count % 5 != 0;
        c.grid = count % 7 == 0;
        c.wanted = count % 3 != 1 ? 7 : count / 3 % 8;
        count % 2 != 0 ? run<double>(c) : run<float>(c);
      }
    }
  }
}

// Polynomials of more than three coefficients are evaluated in another way.
void every_length() {
  int count = 0;
  for (const int b_length : {1, 2, 3, 4, 5, 40}) {
    for (const int a_length : {1, 2, 3, 4, 5, 40}) {
      for (const int w : {1, 8, 33, 130}) {
        if (emulated && w != 130) continue;
        Case c{2, w, b_length + a_length > 40 ? 2 : 3, b_length, a_length};
        ++count;
        c.layout = static_cast<Layout>(count % 4);
        c.outer = count % 3 == 0 ? 2 : 1;
        c.shared_b = shares[count / 2 % 4];
        c.shared_a = shares[count / 3 % 4];
        c.shared_w = shares[count % 4];
        c.grid = count % 5 == 0;
        c.wanted = count % 4 != 0 ? 7 : count / 4 % 8;
        run<double>(c);
        c.kind = count % 2 != 0 ? Kind::zeros : Kind::uneven;
        count % 3 != 0 ? run<double, Wide>(c) : run<float, Wide>(c);
      }
    }
  }
  for (const auto& [b_length, a_length] : {std::pair{5, 3}, {3, 5}, {40, 1}, {1, 40}}) {
    Case c{1, 600, 1, b_length, a_length};
    run<float>(c);
    run<double, Wide>(c);
  }
}

// On CUDA, coefficients are read in windows, of 32 sections of up to 3 and of 512 coefficients of longer ones.
// Gradients
// of up to 256 numbers stay with a block to the end. Blocks have several rows where there are many.
void every_window() {
  int count = 0;
  for (const int sections : {31, 32, 33, 65}) {
    for (const int w : {5, 140}) {
      Case c{2, w, sections};
      c.shared_b.inner = ++count % 2 != 0;
      c.layout = static_cast<Layout>(count % 4);
      run<double>(c);
      run<double, Wide>(c);
    }
  }
  for (const auto& [b_length, a_length] :
       {std::pair{4, 508}, {5, 508}, {252, 4}, {124, 5}, {257, 256}, {511, 1}, {512, 1}, {513, 2}, {1, 700}}) {
    for (const int sections : {1, 2, 5}) {
      if (sections > 1 && b_length > 124) continue;
      Case c{2, sections == 1 ? 150 : 20, sections, b_length, a_length > 100 && sections > 1 ? 6 : a_length};
      c.shared_b.inner = c.shared_a.inner = ++count % 2 != 0;
      run<double>(c);
      run<double, Wide>(c);
    }
  }
  for (const int sections : {1, 3, 40}) {
    for (const Shared shared : shares) {
      Case c{sections == 40 ? 5 : 45, 3, sections};
      c.outer = 3;
      c.shared_w = shared;
      c.shared_b = shares[++count % 4];
      c.b_length = count % 3 != 0 ? 3 : 4;
      run<double>(c);
    }
  }
}

void every_type() {
  int count = 0;
  for (const int w : {1, 2, 9, 64, 513}) {
    for (const int sections : {1, 2, 9}) {
      for (const int rows : {1, 4}) {
        Case c{rows, w, sections};
        ++count;
        c.layout = static_cast<Layout>(count % 4);
        c.shared_b = shares[count % 4];
        c.shared_a = shares[count / 2 % 4];
        c.b_length = count % 3 + 1;
        c.a_length = count / 2 % 3 + 1;
        c.grid = count % 2 == 0;
        run<float, Wide>(c);
        c.grid = !c.grid;
        run<double, Wide>(c);
      }
    }
  }
}

// Zeros where an angle is, next to it, poles near the circle, and coefficients of any scale.
void every_kind() {
  for (const Kind kind : {Kind::huge, Kind::small, Kind::uneven, Kind::zeros, Kind::edge, Kind::poles}) {
    for (const int sections : {1, 2, 3, 6, 8, 9, 12}) {
      if (emulated && (sections == 2 || sections == 6 || sections == 8)) continue;
      for (const int length : {2, 3, 4, 5}) {
        if ((kind == Kind::edge || kind == Kind::poles) && (length == 2 || sections > 9)) continue;
        Case c{2, 120, sections, length, length};
        c.kind = kind;
        c.layout = static_cast<Layout>(sections % 4);
        c.shared_b.inner = sections % 2 != 0;
        run<double>(c);
        run<double, Wide>(c);
        c.grid = true;
        c.angles = 33;
        run<double>(c);
      }
    }
  }
  CHECK(bounded * 20 > values * 19, "bounds that say nothing:", values - bounded, "of", values);
}

// As exact as rounding lets it be, where the response is some 10⁻¹⁶ of the coefficients: at both ends of the circle.
void double_zeros() {
  for_each_isa([&](const std::string& isa) {
    for (const bool at_pi : {false, true}) {
      std::array<double, 3> b{3, at_pi ? 6.0 : -6.0, 3}, a{1, 0, 0};
      std::array<double, 27> w;
      std::array<Complex, 27> h;
      for (std::size_t i = 0; i < w.size(); ++i)
        w[i] = (at_pi ? std::numbers::pi : 0) - std::ldexp(1.25, -static_cast<int>(i));
      Freqz<double> f;
      f.angles = static_cast<std::int64_t>(w.size());
      f.b_length = f.a_length = 3;
      f.b.data = b.data();
      f.a.data = a.data();
      f.w.data = w.data();
      f.h.data = h.data();
      CHECK(freqz(f) == Status::ok, isa);
      for (std::size_t i = 0; i < w.size(); ++i) {
        const long double half = w[i] / 2.0L, root = at_pi ? std::cos(half) : std::sin(half);
        const Wide want = std::polar(12 * root * root, -2 * half) * (at_pi ? 1.0L : -1.0L);
        CHECK(std::abs(Wide(h[i]) - want) <= 16 * epsilon * std::abs(want), isa, "at", w[i], h[i], want);
      }
    }
  });
}

// A pole on an angle makes no number of h there, and of no other angle, filter or gradient.
void poles_on_an_angle() {
  for (const int length : {3, 4}) {
    Inputs<double, long double> in(Case{3, 37, 2, length, length});
    constexpr int struck = 1, angle = 16;  // where w is 0, as it is at 0 and 32
    for (int k = 0; k < length; ++k) in.a.at(struck, k, 1) = k == 0 ? 1 : k == 2 ? -1 : 0;
    for (const int i : {0, 32}) in.w.at(struck, i) = 1;
    for_each_isa([&](const std::string& isa) {
      Outputs<double, long double> out(in);
      compute(in, out, {}, isa);
      const auto finite = [](Complex value) { return std::isfinite(value.real()) && std::isfinite(value.imag()); };
      for (int row = 0; row < 3; ++row) {
        for (int i = 0; i < 37; ++i) {
          const bool expected = row != struck || i != angle;
          CHECK(finite(out.h.at(row, i)) == expected, isa, "h", row, i, out.h.at(row, i));
          CHECK(std::isfinite(out.gw.at(row, i)) == expected, isa, "gw", row, i);
        }
        for (int s = 0; s < 2; ++s) {
          CHECK(std::isfinite(out.gb.at(row, 0, s)) == (row != struck), isa, "gb", row, s);
          CHECK(std::isfinite(out.ga.at(row, 0, s)) == (row != struck), isa, "ga", row, s);
        }
      }
      // Nor does a coefficient that is none.
      const double one = in.b.at(0, 1, 0);
      in.b.at(0, 1, 0) = std::nan("");
      compute(in, out, {}, isa);
      in.b.at(0, 1, 0) = one;
      for (int i = 0; i < 37; ++i)
        CHECK(!finite(out.h.at(0, i)) && finite(out.h.at(2, i)), isa, "h", i, out.h.at(0, i), out.h.at(2, i));
      CHECK(!std::isfinite(out.ga.at(0, 0, 1)) && std::isfinite(out.ga.at(2, 0, 1)), isa);
    });
  }
}

// In pieces of 1, 2, 3, … of the count, the last first.
void odd_pieces(void*, std::int64_t count, std::int64_t, ParallelFor::Body body, void* argument) {
  std::int64_t length = 1;
  for (std::int64_t last = count; last > 0; last -= length++)
    body(argument, std::max<std::int64_t>(last - length, 0), last);
}

// Whatever the threads do, whoever shares what.
template <class Value, class E>
void the_same_bits(const Case& c) {
  Inputs<Value, E> in(c);
#if defined(TORCH_IIR_EMULATED)
  Outputs<Value, E> first(in);
  compute(in, first, {}, c.text());
  for_each_isa([&](const std::string& isa) {
    for (const std::uint64_t seed : {2, 3}) {
      cuda::emulator::machine().seed = seed;
      Outputs<Value, E> other(in);
      compute(in, other, {}, isa + c.text());
      CHECK(first.same_bits(other), isa, c.text(), "seed", seed);
    }
    cuda::emulator::machine().seed = 1;
  });
  return;
#endif
  for_each_isa([&](const std::string& isa) {
    const std::string where = isa + c.text();
    Outputs<Value, E> serial(in);
    compute(in, serial, {}, where);
    for (const auto split : {two_halves, one_by_one, odd_pieces}) {
      Outputs<Value, E> other(in);
      compute(in, other, {split, nullptr}, where);
      CHECK(serial.same_bits(other), where);
    }
  });
}

void every_split() {
  for (const Shared shared : shares) {
    Case c{5, emulated ? 140 : 1100, 9};
    c.outer = 2;
    c.shared_b = shared;
    c.shared_w = {shared.inner, shared.outer};
    the_same_bits<float, long double>(c);
    c.shared_a = shared;
    c.shared_w = by_all;
    c.sections = 2;
    c.b_length = 5;
    the_same_bits<double, Wide>(c);
  }
  Case c{1, emulated ? 1500 : 16385, 8};
  c.grid = true;
  c.wanted = 3;
  the_same_bits<float, long double>(c);
}

// Of nothing: sums over no angle or no row are 0.
void nothing() {
  for (const auto& [outer, rows, angles] : {std::array{1, 2, 0}, {0, 2, 5}}) {
    Case c{rows, angles, 2};
    c.outer = outer;
    c.shared_b = by_all;
    c.shared_a = by_all;
    c.shared_w = by_all;
    Inputs<float, long double> in(c);
    for_each_isa([&, angles = angles](const std::string& isa) {
      const std::string where = isa + c.text();
      Outputs<float, long double> out(in), untouched(in);
      compute(in, out, {two_halves, nullptr}, where);
      for (int s = 0; s < 2; ++s)
        for (int k = 0; k < 3; ++k) CHECK(out.gb.at(0, k, s) == 0 && out.ga.at(0, k, s) == 0, where, s, k);
      for (int i = 0; i < angles; ++i) CHECK(out.gw.at(0, i) == 0, where, i);
      CHECK(out.h.same_bits(untouched.h), where);
    });
  }
}

}  // namespace

int main() {
  every_size();
  every_length();
  if (emulated) every_window();
  every_type();
  every_kind();
  double_zeros();
  poles_on_an_angle();
  every_split();
  nothing();
  return check::result();
}
