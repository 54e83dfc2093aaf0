// What the tests of filters share: numbers of every storage, operands in every layout, and the recurrence and its
// gradient in long double, with how far a sound kernel in double may be from them.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>
#include <limits>
#include <numbers>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "torch_iir/batch.h"
#include "torch_iir/instruction_sets.h"

namespace torch_iir {

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
// Of coefficients and states.
template <class E>
using StateOf = std::conditional_t<std::is_same_v<E, long double>, double, Complex>;

// Below it a result keeps no relative accuracy: the smallest positive half is 2^-24, kernels flush what is subnormal.
template <class Sample>
constexpr long double tiny = std::is_same_v<Sample, Half> ? 0x1p-24L : std::numeric_limits<float>::min();

inline std::uint32_t bits(float value) {
  std::uint32_t result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}
inline float from_bits(std::uint32_t value) {
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

inline long double conj(long double value) { return value; }
inline std::complex<long double> conj(std::complex<long double> value) { return std::conj(value); }

inline std::mt19937_64 random_bits{20};

// On a grid of 1/128 in (-1, 1), exact in every sample type but BFloat16, which truncates it once.
inline long double grid() {
  return static_cast<long double>(static_cast<std::int64_t>(random_bits() % 255) - 127) / 128;
}
template <class E>
E random_value() {
  if constexpr (std::is_same_v<E, std::complex<long double>>) {
    const long double real = grid();
    return E(real, grid());
  } else {
    return grid();
  }
}

// --------------------------------------------------------------------------------------------------------- reference

// Values, and how far each of a kernel's may be from them.
template <class E>
struct Bounded {
  std::vector<E> value;
  long double error = 0;

  void add(const Bounded& other) {
    value.resize(other.value.size());
    for (std::size_t i = 0; i < value.size(); ++i) value[i] += other.value[i];
    error += other.error;
  }
};

// Of one row.
template <class E>
struct Reference {
  Bounded<E> y, zf, gx, gb, ga, gzi;
  std::vector<E> v;
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

template <class E>
void normalise(std::vector<E>& b, std::vector<E>& a) {
  const std::size_t length = std::max(a.size(), b.size());
  const E a0 = a[0];
  for (std::vector<E>* values : {&b, &a}) {
    values->resize(length);
    for (E& value : *values) value /= a0;
  }
}

// y of the filter b, a (normalised) from state z, which is left as it is after the last sample.
template <class E>
std::vector<E> response(const std::vector<E>& b, const std::vector<E>& a, const std::vector<E>& x, std::vector<E>& z) {
  const std::size_t order = a.size() - 1;
  std::vector<E> y(x.size());
  z.resize(order + 1);
  for (std::size_t t = 0; t < x.size(); ++t) {
    y[t] = b[0] * x[t] + z[0];
    for (std::size_t k = 1; k <= order; ++k) z[k - 1] = b[k] * x[t] - a[k] * y[t] + (k < order ? z[k] : E(0));
  }
  z.resize(order);
  return y;
}

// Σ |h| of the impulse response of 1/A: how much it lets an error grow at most. a is normalised.
template <class E>
long double all_pole_gain(const std::vector<E>& a, std::size_t length) {
  std::vector<E> impulse(length), one(a.size()), z(a.size() - 1);
  impulse[0] = one[0] = 1;
  return sum_of_magnitudes(response(one, a, impulse, z));
}

// y and zf, and how far a sound kernel in double may be from them: each sample rounds its sum of products once per
// term, and 1/A carries the rounding on, so that it grows at most by the absolute sum of 1/A's impulse response.
template <class E>
void filter(std::vector<E> b, std::vector<E> a, const std::vector<E>& x, const std::vector<E>& zi, Reference<E>& out) {
  const std::size_t order = std::max(a.size(), b.size()) - 1;
  normalise(b, a);
  out.zf.value = zi;
  out.y.value = response(b, a, x, out.zf.value);
  const long double term =
      sum_of_magnitudes(b) * largest(x) + largest(zi) + sum_of_magnitudes(a) * largest(out.y.value);
  const long double rounding = std::numeric_limits<double>::epsilon() * static_cast<long double>(order + 2) * term;
  out.y.error = all_pole_gain(a, x.size() + order + 1) * rounding;
  out.zf.error = sum_of_magnitudes(a) * out.y.error + rounding;
}

// The gradients.
template <class E>
void filter_backward(std::vector<E> b, std::vector<E> a, const std::vector<E>& x, const std::vector<E>& y,
                     const std::vector<E>& gy, const std::vector<E>& gzf, Reference<E>& out) {
  const std::size_t order = std::max(a.size(), b.size()) - 1, samples = x.size();
  const std::size_t b_length = b.size(), a_length = a.size();
  const E a0 = a[0];
  normalise(b, a);
  std::vector<E>& v = out.v;
  v.assign(samples + order, E(0));
  for (std::size_t j = 0; j < order; ++j) v[samples + j] = gzf[j];
  for (std::size_t t = samples; t-- > 0;) {
    v[t] = gy[t];
    for (std::size_t k = 1; k <= order; ++k) v[t] -= conj(a[k]) * v[t + k];
  }
  std::vector<E>&gx = out.gx.value, &gb = out.gb.value, &ga = out.ga.value;
  gx.assign(samples, E(0));
  gb.assign(order + 1, E(0));
  ga.assign(order + 1, E(0));
  out.gzi.value.assign(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(order));
  for (std::size_t k = 0; k <= order; ++k) {
    for (std::size_t t = 0; t < samples && t + k < v.size(); ++t) {
      gx[t] += conj(b[k]) * v[t + k];
      gb[k] += v[t + k] * conj(x[t]);
      if (k > 0) ga[k] -= v[t + k] * conj(y[t]);
    }
  }

  const long double epsilon = std::numeric_limits<double>::epsilon();
  const long double rounding =
      epsilon * static_cast<long double>(order + 2) * (largest(gy) + largest(gzf) + sum_of_magnitudes(a) * largest(v));
  const long double v_error = all_pole_gain(a, samples + order + 1) * rounding;
  out.gzi.error = v_error;
  out.gx.error = sum_of_magnitudes(b) * (v_error + static_cast<long double>(order + 1) * epsilon * largest(v));
  const auto correlation = [&](const std::vector<E>& with) {
    return (v_error + 32 * epsilon * largest(v)) * sum_of_magnitudes(with);
  };
  const long double scale = 1 / std::abs(a0);
  out.gb.error = correlation(x) * scale;
  out.ga.error = correlation(y) * scale;
  // a0 divides every coefficient, so its gradient sums over all of them.
  E ga0 = 0;
  for (std::size_t k = 0; k <= order; ++k) ga0 -= gb[k] * conj(b[k]) + ga[k] * conj(a[k]);
  out.ga.error += scale * static_cast<long double>(order + 1) *
                  (correlation(x) * largest(b) + correlation(y) * largest(a) +
                   epsilon * (largest(gb) * largest(b) + largest(ga) * largest(a)));
  ga[0] = ga0;
  for (E& value : gb) value /= conj(a0);
  for (E& value : ga) value /= conj(a0);
  gb.resize(b_length);
  ga.resize(a_length);
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
  for (E& value : a) value = static_cast<StateOf<E>>(value * a0);
  return a;
}

// -------------------------------------------------------------------------------- reference of what changes over time

// Coefficients by frame, those of the lags from `first` on.
template <class E>
struct TapsTV {
  std::vector<std::vector<E>> frames;
  int length = 0, first = 0;
  E otherwise = 1;  // lag 0, if it is not among them: 1 of a, and where there is no b
};

// A row of the recurrence whose coefficients change.
template <class E>
struct FilterTV {
  std::size_t period = 1;
  TapsTV<E> b, a;
  std::vector<E> x, zx, zi;
};

template <class E>
struct ReferenceTV {
  Bounded<E> y, zf, gx, gb, ga, gzx, gzi;  // gb and ga: frame after frame
};

// Sample t lies between two frames, or on one.
struct Instant {
  std::size_t frame, next;
  long double weight;  // of the next

  Instant(std::size_t t, std::size_t frames, std::size_t period)
      : frame(std::min(t / period, frames - 1)),
        next(std::min(frame + 1, frames - 1)),
        weight(static_cast<long double>(t % period) / static_cast<long double>(period)) {}
};

// The coefficients of all lags from 0 on, sample after sample.
template <class E>
struct LagsTV {
  std::size_t order = 0, samples = 0;
  std::vector<E> values;
  long double sum = 0;  // the most that the magnitudes of a frame's coefficients sum to

  const E* at(std::size_t t) const { return values.data() + t * (order + 1); }

  LagsTV(const TapsTV<E>& taps, std::size_t count, std::size_t period) : samples(count) {
    const auto length = static_cast<std::size_t>(taps.length), first = static_cast<std::size_t>(taps.first);
    if (length > 0) order = first + length - 1;
    values.resize((order + 1) * samples);
    for (std::size_t t = 0; t < samples; ++t) {
      E* out = &values[t * (order + 1)];
      out[0] = taps.otherwise;
      const Instant i(t, taps.frames.size(), period);
      for (std::size_t j = 0; j < length; ++j)
        out[first + j] = (1 - i.weight) * taps.frames[i.frame][j] + i.weight * taps.frames[i.next][j];
    }
    const long double rest = first > 0 || length == 0 ? std::abs(taps.otherwise) : 0;
    for (const std::vector<E>& frame : taps.frames) sum = std::max(sum, rest + sum_of_magnitudes(frame));
    if (taps.frames.empty()) sum = rest;
  }
};

// What came before the signal, the newest first, and the signal.
template <class E>
std::vector<E> continued(const std::vector<E>& past, const std::vector<E>& signal) {
  std::vector<E> result(past.rbegin(), past.rend());
  result.insert(result.end(), signal.begin(), signal.end());
  return result;
}

// y = drive / A, with its past before it.
template <class E>
std::vector<E> all_pole(const LagsTV<E>& a, const std::vector<E>& drive, const std::vector<E>& zi) {
  std::vector<E> y = continued(zi, drive);
  for (std::size_t t = 0; t < a.samples; ++t) {
    E* now = &y[a.order + t];
    const E* taps = a.at(t);
    for (std::size_t k = 1; k <= a.order; ++k) *now -= taps[k] * now[-static_cast<std::ptrdiff_t>(k)];
    *now /= taps[0];
  }
  return y;
}

// v: Aᴴ v = g, where g also has the times before the first sample; there, g − Aᴴ v is left.
template <class E>
std::vector<E> all_pole_adjoint(const LagsTV<E>& a, std::vector<E>& g) {
  std::vector<E> v(a.samples);
  for (std::size_t t = a.samples; t-- > 0;) {
    E* now = &g[a.order + t];
    const E* taps = a.at(t);
    v[t] = *now / conj(taps[0]);
    if (v[t] == E(0)) continue;
    for (std::size_t k = 1; k <= a.order; ++k) now[-static_cast<std::ptrdiff_t>(k)] -= conj(taps[k]) * v[t];
  }
  return v;
}

// How much 1/A, or its adjoint, lets errors grow: the absolute sum of its responses, at some of the samples. Between
// them it may be more.
template <class E>
long double all_pole_gain(const LagsTV<E>& a, bool adjoint) {
  long double result = 0;
  for (std::size_t quarter = 1; quarter <= 4; ++quarter) {
    if (a.samples * quarter < 4) continue;
    const std::size_t t = a.samples * quarter / 4 - 1;
    std::vector<E> impulse(adjoint ? a.samples : a.order + a.samples);
    impulse[adjoint ? a.samples - 1 - t : a.order + t] = 1;
    result = std::max(result, sum_of_magnitudes(adjoint ? all_pole(a, impulse, std::vector<E>(a.order))
                                                        : all_pole_adjoint(a, impulse)));
  }
  return 4 * result;
}

// y and zf. Each sample rounds its sum of products once per term, and 1/A carries the rounding on.
template <class E>
void filter(const FilterTV<E>& f, ReferenceTV<E>& out) {
  const std::size_t samples = f.x.size();
  const LagsTV<E> b(f.b, samples, f.period), a(f.a, samples, f.period);
  const std::vector<E> x = continued(f.zx, f.x);
  std::vector<E> drive(samples);
  for (std::size_t t = 0; t < samples; ++t)
    for (std::size_t k = 0; k <= b.order; ++k) drive[t] += b.at(t)[k] * x[b.order + t - k];
  const std::vector<E> y = all_pole(a, drive, f.zi);
  out.y.value.assign(y.begin() + static_cast<std::ptrdiff_t>(a.order), y.end());
  out.zf.value.assign(y.rbegin(), y.rbegin() + static_cast<std::ptrdiff_t>(a.order));
  const long double term = b.sum * largest(x) + a.sum * largest(y);
  const long double rounding =
      std::numeric_limits<double>::epsilon() * static_cast<long double>(b.order + a.order + 4) * term;
  out.y.error = out.zf.error = all_pole_gain(a, false) * rounding;
}

// The gradients, given y as it was stored.
template <class E>
void filter_backward(const FilterTV<E>& f, const std::vector<E>& y_stored, const std::vector<E>& gy,
                     const std::vector<E>& gzf, ReferenceTV<E>& out) {
  const std::size_t samples = f.x.size();
  const LagsTV<E> b(f.b, samples, f.period), a(f.a, samples, f.period);
  const std::vector<E> x = continued(f.zx, f.x), y = continued(f.zi, y_stored);
  std::vector<E> g = continued(std::vector<E>(a.order), gy);
  for (std::size_t j = 0; j < a.order; ++j) g[g.size() - 1 - j] += gzf[j];
  const std::vector<E> v = all_pole_adjoint(a, g);

  std::vector<E> gx(x.size());
  for (std::size_t t = 0; t < samples; ++t)
    for (std::size_t k = 0; k <= b.order; ++k) gx[b.order + t - k] += conj(b.at(t)[k]) * v[t];
  out.gx.value.assign(gx.begin() + static_cast<std::ptrdiff_t>(b.order), gx.end());
  out.gzx.value.assign(gx.rend() - static_cast<std::ptrdiff_t>(b.order), gx.rend());
  out.gzi.value.assign(g.rend() - static_cast<std::ptrdiff_t>(a.order), g.rend());

  const long double epsilon = std::numeric_limits<double>::epsilon();
  const long double rounding =
      epsilon * static_cast<long double>(a.order + 4) * (largest(gy) + largest(gzf) + a.sum * largest(v));
  const long double v_error = all_pole_gain(a, true) * rounding;
  const auto spread = [&](const LagsTV<E>& by) {
    return by.sum * (v_error + static_cast<long double>(by.order + 2) * epsilon * largest(v));
  };
  out.gx.error = out.gzx.error = spread(b);
  out.gzi.error = spread(a) + epsilon * largest(gzf);

  // By frame: the sum of what its samples give it.
  const auto correlate = [&](const TapsTV<E>& taps, const std::vector<E>& with, E sign, Bounded<E>& to) {
    const auto length = static_cast<std::size_t>(taps.length), first = static_cast<std::size_t>(taps.first);
    to.value.assign(taps.frames.size() * length, E(0));
    for (std::size_t t = 0; t < samples && length > 0; ++t) {
      const Instant i(t, taps.frames.size(), f.period);
      for (std::size_t j = 0; j < length; ++j) {
        const E product = sign * v[t] * conj(with[with.size() - samples + t - first - j]);
        to.value[i.frame * length + j] += (1 - i.weight) * product;
        to.value[i.next * length + j] += i.weight * product;
      }
    }
    const std::size_t reach = taps.frames.size() == 1 ? samples : std::min(samples, 2 * f.period);
    to.error = static_cast<long double>(reach) * largest(with) * (v_error + 32 * epsilon * largest(v));
  };
  correlate(f.b, x, E(1), out.gb);
  correlate(f.a, y, E(-1), out.ga);
}

// ------------------------------------------------------------------------------------------------------------- memory

// The rows of a test: two dimensions of a batch, in either of which an operand may be the same.
struct Grid {
  int outer = 1, inner = 1;

  int rows() const { return outer * inner; }
  Batch batch() const { return {2, {outer, inner}}; }
};
struct Shared {
  bool outer = false, inner = false;
};
constexpr Shared by_all{true, true};

// How an operand lies in memory; transposed: that its parts are neighbours.
enum class Layout { contiguous, strided, backwards, transposed };

// For each row of the grid, `parts` times `length` values of T in one layout, with a margin of untouchable values
// around and between.
template <class T>
class Block {
 public:
  Block(Grid grid, std::int64_t length, Layout layout, Shared shared = {}, std::int64_t parts = 1)
      : grid_(grid), shared_(shared), parts_(parts), length_(length) {
    const std::int64_t direction = layout == Layout::backwards ? -1 : 1;
    const bool transposed = layout == Layout::transposed;
    const std::int64_t step = layout == Layout::strided ? 3 : transposed ? std::max<std::int64_t>(parts, 1) : 1;
    const std::int64_t all = step * std::max<std::int64_t>(length, 1), part = transposed ? 1 : all + margin;
    const std::int64_t row = (transposed ? all : part * parts) + margin;
    memory_.resize(static_cast<std::size_t>(row * std::max(grid.rows(), 1) + 2 * margin));
    std::memset(static_cast<void*>(memory_.data()), untouched, memory_.size() * sizeof(T));
    before_ = memory_;
    rows_.data = direction > 0 ? memory_.data() + margin : memory_.data() + memory_.size() - 1 - margin;
    rows_.step = direction * step;
    rows_.stride[0] = shared.outer ? 0 : direction * row * grid.inner;
    rows_.stride[1] = shared.inner ? 0 : direction * row;
    part_ = direction * part;
  }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  T& at(int row, std::int64_t i, std::int64_t part = 0) {
    return rows_.data[row / grid_.inner * rows_.stride[0] + row % grid_.inner * rows_.stride[1] + part * part_ +
                      i * rows_.step];
  }
  template <class Value>
  void fill(Value value) {
    for_each([&](T& at) { at = value(); });
  }
  std::vector<Exact<T>> values(int row, std::int64_t part = 0) {
    std::vector<Exact<T>> result;
    for (std::int64_t i = 0; i < length_; ++i) result.push_back(exact(at(row, i, part)));
    return result;
  }

  Rows<T> rows() { return rows_; }
  Rows<const T> input() {
    Rows<const T> result{rows_.data, rows_.step};
    std::copy_n(rows_.stride, max_batch_dims, result.stride);
    return result;
  }
  std::int64_t part() const { return part_; }

  // The first of the rows that have this row's memory.
  std::size_t owner(int row) const {
    return static_cast<std::size_t>((shared_.outer ? 0 : row / grid_.inner * grid_.inner) +
                                    (shared_.inner ? 0 : row % grid_.inner));
  }
  bool same_bits(const Block& other) const {
    return std::memcmp(memory_.data(), other.memory_.data(), memory_.size() * sizeof(T)) == 0;
  }
  // Nothing but the rows was written. Overwrites them.
  bool intact() {
    for_each([](T& at) { std::memset(static_cast<void*>(&at), untouched, sizeof(T)); });
    return same_bits_as(before_);
  }

  // By how much the worst of a row's values exceeds what is allowed: the rounding of the value itself and the error of
  // what was computed before it. 0 if none does.
  long double excess(int row, std::int64_t part, const Bounded<Exact<T>>& reference, long double epsilon,
                     long double tolerance) {
    long double result = 0;
    for (std::size_t i = 0; i < reference.value.size(); ++i) {
      const long double error = std::abs(exact<T>(at(row, static_cast<std::int64_t>(i), part)) - reference.value[i]);
      const long double rounding = epsilon * std::abs(reference.value[i]);
      if (!(error <= tolerance + rounding)) result = std::max(result, std::isnan(error) ? INFINITY : error - rounding);
    }
    return result;
  }

 private:
  static constexpr std::int64_t margin = 5;
  static constexpr int untouched = 0x5a;

  template <class F>
  void for_each(F f) {
    for (int row = 0; row < grid_.rows(); ++row)
      for (std::int64_t part = 0; part < parts_; ++part)
        for (std::int64_t i = 0; i < length_; ++i) f(at(row, i, part));
  }
  bool same_bits_as(const std::vector<T>& other) const {
    return std::memcmp(memory_.data(), other.data(), memory_.size() * sizeof(T)) == 0;
  }

  Grid grid_;
  Shared shared_;
  std::int64_t parts_, length_, part_;
  Rows<T> rows_;
  std::vector<T> memory_, before_;
};

// Sections in blocks: a part for each.
template <class T>
Matrices<T> sections(Block<T>& block) {
  return {block.rows(), block.part()};
}
template <class T>
Matrices<const T> sections_in(Block<T>& block) {
  return {block.input(), block.part()};
}

// f(its name and a space) for every instruction set that the machine has.
template <class F>
void for_each_isa(F f) {
  for (const InstructionSet& set : instruction_sets())
    if (set_isa(set.name)) f(std::string(set.name) + ' ');
}

// ------------------------------------------------------------------------------------------------------------ threads

// Orders in which a kernel's work may come to run: the result must not depend on it.
inline void two_halves(void*, std::int64_t count, std::int64_t, ParallelFor::Body body, void* argument) {
  body(argument, count / 2, count);
  if (count / 2 > 0) body(argument, 0, count / 2);
}
inline void one_by_one(void*, std::int64_t count, std::int64_t, ParallelFor::Body body, void* argument) {
  for (std::int64_t i = count; i-- > 0;) body(argument, i, i + 1);
}

}  // namespace torch_iir
