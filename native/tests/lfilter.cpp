// lfilter and lfilter_backward against a plain reference in long double: every algorithm on every instruction set that
// the machine has, at sizes around every boundary.
#include "torch_iir/lfilter.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "check.h"
#include "torch_iir/broadcast.h"
#include "torch_iir/instruction_sets.h"

using namespace torch_iir;

namespace {

using Complex = std::complex<double>;

// ---------------------------------------------------------------------------------------------------------- numbers

// The type in which the reference of a sample type computes, and the rounding of one sample.
template <class Sample>
struct Number {
  using Exact = long double;
  static constexpr long double epsilon = std::numeric_limits<Sample>::epsilon();
};
template <>
struct Number<Half> {
  using Exact = long double;
  static constexpr long double epsilon = 0x1p-10L;
};
template <>
struct Number<BFloat16> {
  using Exact = long double;
  static constexpr long double epsilon = 0x1p-7L;
};
template <>
struct Number<Complex> {
  using Exact = std::complex<long double>;
  static constexpr long double epsilon = std::numeric_limits<double>::epsilon();
};
template <class Sample>
using Exact = typename Number<Sample>::Exact;

std::uint32_t bits(float value) {
  std::uint32_t result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}
float from_bits(std::uint32_t value) {
  float result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}

template <class Sample>
Sample sample(Exact<Sample> value) {
  if constexpr (std::is_same_v<Sample, Half>) {  // inputs of these tests are exact in half, so truncation will do
    const std::uint32_t f = bits(static_cast<float>(value));
    const int exponent = static_cast<int>((f >> 23) & 255) - 127 + 15;
    const std::uint32_t sign = (f >> 16) & 0x8000;
    return {static_cast<std::uint16_t>(exponent <= 0 ? sign : sign | (exponent << 10) | ((f >> 13) & 0x3ff))};
  } else if constexpr (std::is_same_v<Sample, BFloat16>) {
    return {static_cast<std::uint16_t>(bits(static_cast<float>(value)) >> 16)};
  } else {
    return static_cast<Sample>(value);
  }
}

template <class Sample>
Exact<Sample> exact(Sample value) {
  if constexpr (std::is_same_v<Sample, Half>) {
    const int exponent = (value.bits >> 10) & 31;
    const long double fraction = (value.bits & 0x3ff) / 1024.0L;
    if (exponent == 31) return fraction != 0 ? std::nanl("") : value.bits >> 15 ? -INFINITY : INFINITY;
    const long double magnitude = exponent == 0 ? std::ldexp(fraction, -14) : std::ldexp(1 + fraction, exponent - 15);
    return value.bits >> 15 ? -magnitude : magnitude;
  } else if constexpr (std::is_same_v<Sample, BFloat16>) {
    return from_bits(static_cast<std::uint32_t>(value.bits) << 16);
  } else {
    return Exact<Sample>(value);
  }
}

long double conj(long double value) { return value; }
std::complex<long double> conj(std::complex<long double> value) { return std::conj(value); }

std::mt19937_64 random_bits{20};

// On a grid of 1/128 in (-1, 1), exact in every sample type but BFloat16, which truncates it once.
long double grid() { return static_cast<long double>(static_cast<std::int64_t>(random_bits() % 255) - 127) / 128; }
template <class T>
T random_value() {
  if constexpr (std::is_same_v<T, std::complex<long double>>) {
    const long double real = grid();
    return T(real, grid());
  } else {
    return static_cast<T>(grid());
  }
}

// --------------------------------------------------------------------------------------------------------- reference

template <class E>
struct Reference {
  std::vector<E> y, zf, v, gx, gb, ga, gzi;
  long double y_error = 0, zf_error = 0, gx_error = 0, gb_error = 0, ga_error = 0, gzi_error = 0;
};

template <class E>
long double largest(const std::vector<E>& values) {
  long double result = 0;
  for (const E& value : values) result = std::max(result, std::abs(value));
  return result;
}
template <class E>
long double sum_of_magnitudes(const std::vector<E>& values) {
  long double result = 0;
  for (const E& value : values) result += std::abs(value);
  return result;
}

// y and zf, and how far a sound kernel in double may be from them: each sample rounds its sum of products once per
// term, and 1/A carries the rounding on, so that it grows at most by the absolute sum of 1/A's impulse response.
template <class E>
void filter(std::vector<E> b, std::vector<E> a, const std::vector<E>& x, const std::vector<E>& zi, Reference<E>& out) {
  const std::size_t order = std::max(a.size(), b.size()) - 1, samples = x.size();
  const E a0 = a[0];
  a.resize(order + 1);
  b.resize(order + 1);
  for (E& value : a) value /= a0;
  for (E& value : b) value /= a0;
  std::vector<E> z = zi;
  z.resize(order + 1);
  out.y.resize(samples);
  for (std::size_t t = 0; t < samples; ++t) {
    const E y = b[0] * x[t] + z[0];
    for (std::size_t k = 1; k <= order; ++k) z[k - 1] = b[k] * x[t] - a[k] * y + (k < order ? z[k] : E(0));
    out.y[t] = y;
  }
  z.resize(order);
  out.zf = z;

  std::vector<E> h(samples + order + 1);
  for (std::size_t t = 0; t < h.size(); ++t) {
    h[t] = t == 0 ? 1 : 0;
    for (std::size_t k = 1; k <= std::min(order, t); ++k) h[t] -= a[k] * h[t - k];
  }
  const long double term = sum_of_magnitudes(b) * largest(x) + largest(zi) + sum_of_magnitudes(a) * largest(out.y);
  const long double rounding = std::numeric_limits<double>::epsilon() * static_cast<long double>(order + 2) * term;
  out.y_error = sum_of_magnitudes(h) * rounding;
  out.zf_error = sum_of_magnitudes(a) * out.y_error + rounding;
}

// Gradients of one row.
template <class E>
void filter_backward(std::vector<E> b, std::vector<E> a, const std::vector<E>& x, const std::vector<E>& y,
                     const std::vector<E>& gy, const std::vector<E>& gzf, Reference<E>& out) {
  const std::size_t order = std::max(a.size(), b.size()) - 1, samples = x.size();
  const std::size_t b_length = b.size(), a_length = a.size();
  const E a0 = a[0];
  a.resize(order + 1);
  b.resize(order + 1);
  for (E& value : a) value /= a0;
  for (E& value : b) value /= a0;
  std::vector<E> v(samples + order);
  for (std::size_t j = 0; j < order; ++j) v[samples + j] = gzf[j];
  for (std::size_t t = samples; t-- > 0;) {
    v[t] = gy[t];
    for (std::size_t k = 1; k <= order; ++k) v[t] -= conj(a[k]) * v[t + k];
  }
  out.gx.assign(samples, E(0));
  out.gb.assign(order + 1, E(0));
  out.ga.assign(order + 1, E(0));
  out.gzi.assign(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(order));
  for (std::size_t k = 0; k <= order; ++k) {
    for (std::size_t t = 0; t < samples; ++t) {
      out.gx[t] += (t + k < v.size() ? conj(b[k]) * v[t + k] : E(0));
      if (t + k < v.size()) out.gb[k] += v[t + k] * conj(x[t]);
      if (t + k < v.size() && k > 0) out.ga[k] -= v[t + k] * conj(y[t]);
    }
  }

  std::vector<E> h(samples + order + 1);
  for (std::size_t t = 0; t < h.size(); ++t) {
    h[t] = t == 0 ? 1 : 0;
    for (std::size_t k = 1; k <= std::min(order, t); ++k) h[t] -= a[k] * h[t - k];
  }
  const long double epsilon = std::numeric_limits<double>::epsilon();
  const long double rounding =
      epsilon * static_cast<long double>(order + 2) * (largest(gy) + largest(gzf) + sum_of_magnitudes(a) * largest(v));
  const long double v_error = sum_of_magnitudes(h) * rounding;
  out.gzi_error = v_error;
  out.gx_error = sum_of_magnitudes(b) * (v_error + static_cast<long double>(order + 1) * epsilon * largest(v));
  const auto correlation = [&](const std::vector<E>& with) {
    return (v_error + 32 * epsilon * largest(v)) * sum_of_magnitudes(with);
  };
  const long double scale = 1 / std::abs(a0);
  out.gb_error = correlation(x) * scale;
  out.ga_error = correlation(y) * scale;
  // a0 divides every coefficient, so its gradient sums over all of them.
  E ga0 = 0;
  for (std::size_t k = 0; k <= order; ++k) ga0 -= out.gb[k] * conj(b[k]) + out.ga[k] * conj(a[k]);
  out.ga_error += scale * static_cast<long double>(order + 1) *
                  (correlation(x) * largest(b) + correlation(y) * largest(a) +
                   epsilon * (largest(out.gb) * largest(b) + largest(out.ga) * largest(a)));
  out.ga[0] = ga0;
  for (E& value : out.gb) value /= conj(a0);
  for (E& value : out.ga) value /= conj(a0);
  out.gb.resize(b_length);
  out.ga.resize(a_length);
}

// A stable polynomial of this degree with poles at radius 0.5 to 0.9, spread over the angles, times a0.
template <class E>
std::vector<E> denominator(int degree, long double a0) {
  std::vector<E> a{E(1)};
  const auto multiply = [&a](const std::vector<E>& by) {
    std::vector<E> product(a.size() + by.size() - 1);
    for (std::size_t i = 0; i < a.size(); ++i)
      for (std::size_t k = 0; k < by.size(); ++k) product[i + k] += a[i] * by[k];
    a = product;
  };
  for (int i = 0; i < degree / 2; ++i) {
    const long double radius = 0.7L + 0.2L * grid();
    const long double angle = std::numbers::pi_v<long double> * (i + 0.5L + 0.2L * grid()) / (degree / 2);
    multiply({E(1), E(-2 * radius * std::cos(angle)), E(radius * radius)});
  }
  if (degree % 2 != 0) multiply({E(1), E(0.8L * grid())});
  if constexpr (std::is_same_v<E, std::complex<long double>>) {  // turned, so that the coefficients are complex
    const E turn = std::polar(1.0L, 0.3L);
    E power = 1;
    for (E& value : a) value *= power, power *= turn;
  }
  for (E& value : a) value = sample<std::conditional_t<std::is_same_v<E, long double>, double, Complex>>(value * a0);
  return a;
}

// ------------------------------------------------------------------------------------------------------------- memory

// How an operand lies in memory.
enum class Layout { contiguous, strided, backwards, broadcast };

// rows × length values of T in one layout, with a margin of untouchable values around and between.
template <class T>
class Block {
 public:
  Block(std::int64_t rows, std::int64_t length, Layout layout) : rows_(rows), length_(length), layout_(layout) {
    step = layout == Layout::strided ? 3 : layout == Layout::backwards ? -1 : 1;
    const std::int64_t extent = std::abs(step) * std::max<std::int64_t>(length, 1) + margin;
    stride = layout == Layout::broadcast ? 0 : layout == Layout::backwards ? -extent : extent;
    memory_.resize(static_cast<std::size_t>(extent * std::max<std::int64_t>(rows, 1) + 2 * margin));
    std::memset(static_cast<void*>(memory_.data()), 0x5a, memory_.size() * sizeof(T));
    before_ = memory_;
    first_ = margin + (step < 0 ? std::max<std::int64_t>(length, 1) - 1 : 0) + (stride < 0 ? extent * (rows - 1) : 0);
  }

  T& at(std::int64_t row, std::int64_t i) {
    return memory_[static_cast<std::size_t>(first_ + row * stride + i * step)];
  }
  T* data() { return memory_.data() + first_; }
  bool broadcasts() const { return layout_ == Layout::broadcast; }

  // Nothing but the rows was written.
  bool intact() {
    for (std::int64_t row = 0; row < (broadcasts() ? 1 : rows_); ++row)
      for (std::int64_t i = 0; i < length_; ++i) std::memset(static_cast<void*>(&at(row, i)), 0x5a, sizeof(T));
    return std::memcmp(memory_.data(), before_.data(), memory_.size() * sizeof(T)) == 0;
  }

  std::int64_t step, stride;

 private:
  static constexpr std::int64_t margin = 5;
  std::int64_t rows_, length_;
  Layout layout_;
  std::int64_t first_ = 0;
  std::vector<T> memory_, before_;
};

// --------------------------------------------------------------------------------------------------------------- cases

struct Case {
  int rows, samples, b_length, a_length;
  Layout layout = Layout::contiguous;
  bool shared_x = false, shared_filter = false, zi = true, gzf = true;
  long double a0 = 1;

  int order() const { return std::max(b_length, a_length) - 1; }
  std::string text() const {
    return "rows " + std::to_string(rows) + " samples " + std::to_string(samples) + " b " + std::to_string(b_length) +
           " a " + std::to_string(a_length) + " layout " + std::to_string(static_cast<int>(layout)) +
           (shared_x ? " shared x" : "") + (shared_filter ? " shared filter" : "") + (zi ? " zi" : "") +
           (gzf ? " gzf" : "");
  }
};

constexpr Algorithm algorithms[] = {Algorithm::automatic, Algorithm::direct, Algorithm::rows, Algorithm::segments,
                                    Algorithm::blocks};
constexpr const char* names[] = {"automatic", "direct", "rows", "segments", "blocks"};

// Where an algorithm may decline.
bool may_decline(Algorithm algorithm, int order, bool complex) {
  if (algorithm == Algorithm::automatic || algorithm == Algorithm::direct) return false;
  return complex || (algorithm == Algorithm::segments && (order < 1 || order > 6));
}

// Splits the work in two, backwards: the result must not depend on it.
void two_halves(void*, std::int64_t count, std::int64_t, ParallelFor::Body body, void* argument) {
  body(argument, count / 2, count);
  if (count / 2 > 0) body(argument, 0, count / 2);
}

// A tenth of the bound suffices for these filters, whose poles are no closer to the unit circle than 0.1; near it, the
// algorithms differ in how far they let rounding grow, and the accuracy table of the Python tests tells.
constexpr long double slack = 1;
template <class T, class E>
long double distance(Block<T>& block, std::int64_t row, const std::vector<E>& reference, long double epsilon,
                     long double tolerance) {
  // Elementwise: |computed − exact| less the rounding of the result itself.
  long double result = 0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const long double error = std::abs(exact<T>(block.at(row, static_cast<std::int64_t>(i))) - reference[i]);
    const long double rounding = epsilon * std::abs(reference[i]);
    if (!(error <= tolerance + rounding)) result = std::max(result, std::isnan(error) ? INFINITY : error - rounding);
  }
  return result;
}

template <class Sample>
void run(const Case& c) {
  using E = Exact<Sample>;
  using State = std::conditional_t<std::is_same_v<E, long double>, double, Complex>;
  constexpr bool complex = std::is_same_v<State, Complex>;
  // The smallest positive half is 2^-24: below, a result keeps no relative accuracy.
  const long double tiny = std::is_same_v<Sample, Half> ? 0x1p-24L : std::numeric_limits<float>::min();
  const long double epsilon = Number<Sample>::epsilon;
  const int order = c.order();

  // One row of everything for each row, or one for all.
  const auto fill = [](auto& block, std::int64_t rows, std::int64_t length, auto&& value) {
    for (std::int64_t row = 0; row < (block.broadcasts() ? 1 : rows); ++row)
      for (std::int64_t i = 0; i < length; ++i) block.at(row, i) = value(row, i);
  };
  const auto values = [](auto& block, std::int64_t row, std::int64_t length) {
    std::vector<E> result;
    for (std::int64_t i = 0; i < length; ++i) result.push_back(exact(block.at(row, i)));
    return result;
  };
  const Layout x_layout = c.shared_x ? Layout::broadcast : c.layout;
  const Layout filter_layout = c.shared_filter ? Layout::broadcast : c.layout;
  Block<Sample> x(c.rows, c.samples, x_layout), gy(c.rows, c.samples, c.layout);
  Block<State> b(c.rows, c.b_length, filter_layout), a(c.rows, c.a_length, filter_layout);
  Block<State> zi(c.rows, order, c.layout), gzf(c.rows, order, c.layout);
  const auto random_sample = [](std::int64_t, std::int64_t) { return sample<Sample>(random_value<E>()); };
  const auto random_state = [](std::int64_t, std::int64_t) { return static_cast<State>(random_value<E>()); };
  fill(x, c.rows, c.samples, random_sample);
  fill(gy, c.rows, c.samples, random_sample);
  fill(b, c.rows, c.b_length, random_state);
  fill(zi, c.rows, order, random_state);
  fill(gzf, c.rows, order, random_state);
  for (std::int64_t row = 0; row < (a.broadcasts() ? 1 : c.rows); ++row) {
    const std::vector<E> poles = denominator<E>(c.a_length - 1, c.a0);
    for (int k = 0; k < c.a_length; ++k) a.at(row, k) = static_cast<State>(poles[static_cast<std::size_t>(k)]);
  }

  // The reference, and y as the samples that backward is given.
  const std::vector<E> zeros(static_cast<std::size_t>(order));
  std::vector<Reference<E>> reference(static_cast<std::size_t>(c.rows));
  Block<Sample> y_given(c.rows, c.samples, c.layout);
  Reference<E> sum;  // over the rows that share an input
  sum.gx.resize(static_cast<std::size_t>(c.samples));
  sum.gb.resize(static_cast<std::size_t>(c.b_length));
  sum.ga.resize(static_cast<std::size_t>(c.a_length));
  for (int row = 0; row < c.rows; ++row) {
    Reference<E>& r = reference[static_cast<std::size_t>(row)];
    const auto x_row = values(x, row, c.samples), b_row = values(b, row, c.b_length),
               a_row = values(a, row, c.a_length);
    filter(b_row, a_row, x_row, c.zi ? values(zi, row, order) : zeros, r);
    for (int t = 0; t < c.samples; ++t) y_given.at(row, t) = sample<Sample>(r.y[static_cast<std::size_t>(t)]);
    filter_backward(b_row, a_row, x_row, values(y_given, row, c.samples), values(gy, row, c.samples),
                    c.gzf ? values(gzf, row, order) : zeros, r);
    const auto add = [](std::vector<E>& total, const std::vector<E>& part) {
      for (std::size_t i = 0; i < part.size(); ++i) total[i] += part[i];
    };
    add(sum.gx, r.gx);
    add(sum.gb, r.gb);
    add(sum.ga, r.ga);
    sum.gx_error += r.gx_error;
    sum.gb_error += r.gb_error;
    sum.ga_error += r.ga_error;
  }

  Batch batch;
  batch.dims = 1;
  batch.size[0] = c.rows;
  const auto view = []<class T>(Block<T>& block) { return Rows<T>{block.data(), block.step, {block.stride}}; };
  const auto input = []<class T>(Block<T>& block) { return Rows<const T>{block.data(), block.step, {block.stride}}; };

  for (const InstructionSet& set : instruction_sets()) {
    if (!set_isa(set.name)) continue;
    for (const Algorithm algorithm : algorithms) {
      const auto where = [&] {
        return std::string(set.name) + ' ' + names[static_cast<int>(algorithm)] + ' ' + c.text();
      };
      const auto compare = [&](auto& block, std::int64_t row, const std::vector<E>& exact_values, long double eps,
                               long double error, const char* what) {
        const long double tolerance = slack * error + tiny;
        const long double excess = distance(block, row, exact_values, eps, tolerance);
        CHECK(excess == 0, where(), what, "row", row, "error", excess, "tolerance", tolerance);
      };

      Block<Sample> y(c.rows, c.samples, c.layout == Layout::broadcast ? Layout::contiguous : c.layout);
      Block<State> zf(c.rows, order, c.layout == Layout::broadcast ? Layout::contiguous : c.layout);
      LFilter<Sample, State> forward;
      forward.batch = batch;
      forward.samples = c.samples;
      forward.b_length = c.b_length;
      forward.a_length = c.a_length;
      forward.x = input(x);
      forward.b = input(b);
      forward.a = input(a);
      if (c.zi) forward.zi = input(zi);
      forward.y = view(y);
      forward.zf = view(zf);
      const Status status = lfilter(forward, algorithm, {two_halves, nullptr});
      if (status == Status::unsupported) {
        CHECK(may_decline(algorithm, order, complex), where());
        continue;
      }
      if (!CHECK(status == Status::ok, where(), static_cast<int>(status))) continue;
      for (int row = 0; row < c.rows; ++row) {
        const Reference<E>& r = reference[static_cast<std::size_t>(row)];
        compare(y, row, r.y, epsilon, r.y_error, "y");
        compare(zf, row, r.zf, 0, r.zf_error, "zf");
      }
      CHECK(y.intact() && zf.intact(), where());

      Block<Sample> gx(c.rows, c.samples, x_layout);
      Block<State> gb(c.rows, c.b_length, filter_layout), ga(c.rows, c.a_length, filter_layout);
      Block<State> gzi(c.rows, order, c.layout == Layout::broadcast ? Layout::contiguous : c.layout);
      LFilterBackward<Sample, State> backward;
      backward.batch = batch;
      backward.samples = c.samples;
      backward.b_length = c.b_length;
      backward.a_length = c.a_length;
      backward.gy = input(gy);
      if (c.gzf) backward.gzf = input(gzf);
      backward.x = input(x);
      backward.y = input(y_given);
      backward.b = input(b);
      backward.a = input(a);
      backward.gx = view(gx);
      backward.gb = view(gb);
      backward.ga = view(ga);
      backward.gzi = view(gzi);
      const Status status_backward = lfilter_backward(backward, algorithm, {two_halves, nullptr});
      if (status_backward == Status::unsupported) {
        CHECK(may_decline(algorithm, order, complex), where());
        continue;
      }
      if (!CHECK(status_backward == Status::ok, where())) continue;
      for (int row = 0; row < c.rows; ++row) {
        const Reference<E>& r = reference[static_cast<std::size_t>(row)];
        const Reference<E>&of_x = c.shared_x ? sum : r, &of_filter = c.shared_filter ? sum : r;
        compare(gx, row, of_x.gx, epsilon, of_x.gx_error, "gx");
        compare(gb, row, of_filter.gb, 0, of_filter.gb_error, "gb");
        compare(ga, row, of_filter.ga, 0, of_filter.ga_error, "ga");
        compare(gzi, row, r.gzi, 0, r.gzi_error, "gzi");
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
        c.shared_x = count % 5 == 4;
        c.shared_filter = count % 4 != 3;
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
        c.shared_x = shared;
        run<float>(c);
        c.layout = static_cast<Layout>(rows % 3);
        c.shared_x = false;
        c.shared_filter = shared;
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
        c.shared_filter = rows == 2;
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

// A bank: x [2, 1, T], filters [3, K], over two batch dimensions; the sums go over one of them each.
void a_bank_over_two_dimensions() {
  constexpr int signals = 2, filters = 3, samples = 70;
  std::vector<double> x(signals * samples), b(filters * 3), a(filters * 3), gy(signals * filters * samples);
  for (auto* values : {&x, &b, &gy})
    for (double& value : *values) value = static_cast<double>(grid());
  for (int f = 0; f < filters; ++f) {
    const auto poles = denominator<long double>(2, 1);
    for (int k = 0; k < 3; ++k)
      a[static_cast<std::size_t>(3 * f + k)] = static_cast<double>(poles[static_cast<std::size_t>(k)]);
  }
  for (const InstructionSet& set : instruction_sets()) {
    if (!set_isa(set.name)) continue;
    for (const Algorithm algorithm : algorithms) {
      std::vector<double> y(gy.size()), gx(x.size()), gb(b.size()), ga(a.size());
      LFilter<double> forward;
      forward.batch = {2, {signals, filters}};
      forward.samples = samples;
      forward.b_length = forward.a_length = 3;
      forward.x = {x.data(), 1, {samples, 0}};
      forward.b = {b.data(), 1, {0, 3}};
      forward.a = {a.data(), 1, {0, 3}};
      forward.y = {y.data(), 1, {filters * samples, samples}};
      CHECK(lfilter(forward, algorithm) == Status::ok);
      LFilterBackward<double> backward;
      backward.batch = forward.batch;
      backward.samples = samples;
      backward.b_length = backward.a_length = 3;
      backward.gy = {gy.data(), 1, {filters * samples, samples}};
      backward.x = forward.x;
      backward.y = {y.data(), 1, {filters * samples, samples}};
      backward.b = forward.b;
      backward.a = forward.a;
      backward.gx = {gx.data(), 1, {samples, 0}};
      backward.gb = {gb.data(), 1, {0, 3}};
      backward.ga = {ga.data(), 1, {0, 3}};
      CHECK(lfilter_backward(backward, algorithm) == Status::ok);

      std::vector<long double> gx_sum(gx.size()), gb_sum(gb.size()), ga_sum(ga.size());
      for (int s = 0; s < signals; ++s) {
        for (int f = 0; f < filters; ++f) {
          const auto part = [](const std::vector<double>& values, int index, int length) {
            return std::vector<long double>(values.begin() + index * length, values.begin() + (index + 1) * length);
          };
          Reference<long double> r;
          const auto b_f = part(b, f, 3), a_f = part(a, f, 3), x_s = part(x, s, samples);
          filter(b_f, a_f, x_s, {0, 0}, r);
          const auto y_sf = part(y, s * filters + f, samples);
          for (int t = 0; t < samples; ++t)
            CHECK(std::abs(y_sf[static_cast<std::size_t>(t)] - r.y[static_cast<std::size_t>(t)]) <= slack * r.y_error);
          filter_backward(b_f, a_f, x_s, y_sf, part(gy, s * filters + f, samples), {0, 0}, r);
          for (int t = 0; t < samples; ++t)
            gx_sum[static_cast<std::size_t>(s * samples + t)] += r.gx[static_cast<std::size_t>(t)];
          for (int k = 0; k < 3; ++k) {
            gb_sum[static_cast<std::size_t>(3 * f + k)] += r.gb[static_cast<std::size_t>(k)];
            ga_sum[static_cast<std::size_t>(3 * f + k)] += r.ga[static_cast<std::size_t>(k)];
          }
        }
      }
      const auto compare = [&](const std::vector<double>& got, const std::vector<long double>& want, const char* what) {
        for (std::size_t i = 0; i < got.size(); ++i)
          CHECK(std::abs(got[i] - want[i]) <= 1e-12L * std::max(1.0L, largest(want)), set.name,
                names[static_cast<int>(algorithm)], what, i, got[i] - want[i]);
      };
      compare(gx, gx_sum, "gx");
      compare(gb, gb_sum, "gb");
      compare(ga, ga_sum, "ga");
    }
  }
}

}  // namespace

int main() {
  every_size();
  every_number_of_rows();
  every_type();
  a0_is_divided_out();
  a_bank_over_two_dimensions();
  return check::result();
}
