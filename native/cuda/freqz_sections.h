// The polynomials of rational filters at angles, one angle or a few a thread, all threads of a block at the same
// section
// of the same filter: its coefficients come by way of shared memory, where all read the same number at a time.
//
// There are two forms. Both give a section's B and A as numbers of moderate size and powers of two, which are added up
// apart, so that no product of many comes near overflow.
//
//   Centred   up to 3 coefficients: c1 + (c0 + c2) cos w + j (c0 - c2) sin w, with cos w as a difference from ±1,
//   exact to
//             rounding also next to zeros at z = ±1. This is z C(z); the factor cancels between numerator and
//             denominator
//   Horner    any number of coefficients, one after the other
//
// Sections of several filters, and long polynomials, are staged window by window, in the order in which they are used.
// A window that holds all that a block needs is staged once.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "numbers.h"
#include "pairs.h"
#include "simt.h"

namespace torch_iir::cuda {

inline constexpr int freqz_threads = 128;   // of every block here
inline constexpr int sections_at_once = 8;  // whose products are divided by each other once, far from overflow

// ---- numbers -------------------------------------------------------------------------------------------------------

TORCH_IIR_GPU std::uint64_t bits_of(double value) {
  std::uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// 2^exponent, or 0 or inf, without a subnormal number in between.
TORCH_IIR_GPU double power_of_two(int exponent) {
  const auto bits = static_cast<std::uint64_t>(minimum(maximum(exponent, -1023), 1024) + 1023) << 52;
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// In two steps: the whole power might be infinite where the product is not.
TORCH_IIR_GPU double scaled(double value, int exponent) {
  const int half = exponent / 2;
  return value * power_of_two(half) * power_of_two(exponent - half);
}
TORCH_IIR_GPU Complex scaled(Complex value, int exponent) {
  const int half = exponent / 2;
  const double scale = power_of_two(half), rest = power_of_two(exponent - half);
  return {value.re * scale * rest, value.im * scale * rest};
}

// The larger of the exponents as they are stored, 0 … 2047.
TORCH_IIR_GPU int stored_exponent(double value) { return static_cast<int>(bits_of(value) >> 52 & 2047); }
TORCH_IIR_GPU int stored_exponent(Complex value) {
  return maximum(stored_exponent(value.re), stored_exponent(value.im));
}
// What to divide by, as a power of two, for a size of about 1: 0 for numbers that are 0, subnormal or not finite.
TORCH_IIR_GPU int exponent_of(int stored) { return stored == 0 || stored == 2047 ? 0 : minimum(stored - 1023, 1022); }

TORCH_IIR_GPU double times(double value, double by) { return value * by; }
TORCH_IIR_GPU Complex times(Complex value, double by) { return {value.re * by, value.im * by}; }

TORCH_IIR_GPU Complex reciprocal(Complex p) {
  const double scale = 1 / (p.re * p.re + p.im * p.im);
  return {p.re * scale, -p.im * scale};
}

// A value and its derivative by w.
struct Dual {
  Complex value, slope;

  Dual() = default;
  TORCH_IIR_HOST_DEVICE Dual(Complex value_, Complex slope_ = 0.0) : value(value_), slope(slope_) {}
};
TORCH_IIR_GPU Dual operator*(const Dual& p, const Dual& q) {
  return {p.value * q.value, p.slope * q.value + p.value * q.slope};
}
TORCH_IIR_GPU Dual reciprocal(const Dual& p) {
  const Complex inverse = reciprocal(p.value);
  return {inverse, -(p.slope * inverse * inverse)};
}

// Divides by a power of two, and returns its exponent.
TORCH_IIR_GPU int normalise(Complex& p) {
  const int exponent = exponent_of(stored_exponent(p));
  p = times(p, power_of_two(-exponent));
  return exponent;
}
TORCH_IIR_GPU int normalise(Dual& p) {
  const int exponent = exponent_of(maximum(stored_exponent(p.value), stored_exponent(p.slope)));
  const double by = power_of_two(-exponent);
  p.value = times(p.value, by);
  p.slope = times(p.slope, by);
  return exponent;
}

// ---- angles --------------------------------------------------------------------------------------------------------

// `versine` is cos w as a difference from the nearer of ±1, exact to rounding where that is small: 1 − cos w, or,
// negative, −1 − cos w.
struct Angle {
  double cosine, sine, versine;

  TORCH_IIR_GPU static Angle of(double w) {
    double c, s;
    sincos(0.5 * w, &s, &c);
    const bool right = c * c >= s * s;
    Angle angle;
    // Never 0 on the left: its sign tells the side.
    angle.versine = right ? 2 * s * s : -2 * c * c - 0x1p-1000;
    angle.cosine = (right ? 1 : -1) - angle.versine;
    angle.sine = 2 * s * c;
    return angle;
  }
};

// ---- filters -------------------------------------------------------------------------------------------------------

// State is double or std::complex<double>.
template <class State>
struct Cascades {
  Batch batch;
  int sections = 1, b_length = 1, a_length = 1;
  AnyMatrices<const State> b, a;
};

template <class State>
class Centred {
 public:
  using Number = Computed<State>;
  static constexpr bool complex = std::is_same_v<Number, Complex>;
  static constexpr int sums = complex ? 6 : 3;
  static constexpr int capacity = 32;  // sections of a window
  static constexpr int resident = 4;   // blocks of a multiprocessor that have registers

  struct alignas(16) Polynomial {
    Number side[2];    // at cos w = 1, at cos w = −1
    Number even, odd;  // c0 + c2, c0 − c2
  };
  struct Shared {
    Polynomial polynomials[capacity][2];  // B, A
    int exponents[capacity][2];
  };

  // The sections of rows [row, row + rows), one after another: unit 0, 1, …
  TORCH_IIR_GPU Centred(const Cascades<State>& cascades, Shared& shared, std::int64_t row, std::int64_t rows)
      : cascades_(cascades), shared_(shared), row_(row), units_(rows * cascades.sections) {}

  // For the whole block. Sections beyond the last are 1.
  TORCH_IIR_GPU void ensure(std::int64_t unit) {
    const std::int64_t first = unit / capacity * capacity;
    if (first != staged_) stage(first);
  }

  template <int count, class Element>
  TORCH_IIR_GPU void evaluate(std::int64_t unit, const Angle (&angles)[count], Element (&b)[count], Element (&a)[count],
                              int (&exponents)[count]) {
    ensure(unit);
    const int slot = static_cast<int>(unit - staged_);
    TORCH_IIR_UNROLL
    for (int i = 0; i < count; ++i) {
      put(shared_.polynomials[slot][0], angles[i], b[i]);
      put(shared_.polynomials[slot][1], angles[i], a[i]);
      exponents[i] += shared_.exponents[slot][0] - shared_.exponents[slot][1];
    }
  }

  TORCH_IIR_GPU int exponent(std::int64_t unit, int which) const { return shared_.exponents[unit - staged_][which]; }

  // Adds what all three, or fewer, gradients of the coefficients are made of: Re e, Re(e) cos w, Im(e) sin w and, for
  // complex coefficients, Im e, Im(e) cos w, Re(e) sin w.
  static TORCH_IIR_GPU void add(const Angle& angle, Complex e, double (&to)[sums]) {
    to[0] += e.re;
    to[1] = fma(e.re, angle.cosine, to[1]);
    to[2] = fma(e.im, angle.sine, to[2]);
    if constexpr (complex) {
      to[3] += e.im;
      to[4] = fma(e.im, angle.cosine, to[4]);
      to[5] = fma(e.re, angle.sine, to[5]);
    }
  }
  static TORCH_IIR_GPU Number gradient(const double* sum, int k) {
    const double re = k == 1 ? sum[0] : k == 0 ? sum[1] - sum[2] : sum[1] + sum[2];
    if constexpr (complex) {
      return {re, -(k == 1 ? sum[3] : k == 0 ? sum[4] + sum[5] : sum[4] - sum[5])};
    } else {
      return re;
    }
  }

 private:
  static TORCH_IIR_GPU Complex value(const Polynomial& p, const Angle& at) {
    const Number right = p.side[at.versine < 0 ? 1 : 0];
    if constexpr (complex) {
      return {fma(-p.even.re, at.versine, right.re) - p.odd.im * at.sine,
              fma(-p.even.im, at.versine, right.im) + p.odd.re * at.sine};
    } else {
      return {fma(-p.even, at.versine, right), p.odd * at.sine};
    }
  }
  static TORCH_IIR_GPU void put(const Polynomial& p, const Angle& at, Complex& to) { to = value(p, at); }
  static TORCH_IIR_GPU void put(const Polynomial& p, const Angle& at, Dual& to) {
    to.value = value(p, at);
    if constexpr (complex) {
      to.slope = {-p.even.re * at.sine - p.odd.im * at.cosine, p.odd.re * at.cosine - p.even.im * at.sine};
    } else {
      to.slope = {-p.even * at.sine, p.odd * at.cosine};
    }
  }

  static TORCH_IIR_GPU double sum_and_error(double p, double q, double& error) {  // Knuth's
    const double total = p + q, of_q = total - p;
    error = (p - (total - of_q)) + (q - of_q);
    return total;
  }
  static TORCH_IIR_GPU Complex sum_and_error(Complex p, Complex q, Complex& error) {
    Complex total;
    total.re = sum_and_error(p.re, q.re, error.re);
    total.im = sum_and_error(p.im, q.im, error.im);
    return total;
  }

  // A thread for each polynomial.
  TORCH_IIR_GPU void stage(std::int64_t first) {
    sync();  // nobody reads the window before any more
    for (int i = thread(); i < 2 * capacity; i += threads()) {
      const std::int64_t unit = first + i / 2;
      const int which = i % 2, length = which == 0 ? cascades_.b_length : cascades_.a_length;
      Number c[3] = {1.0, 0.0, 0.0};
      int exponent = 0;
      if (unit < units_) {
        const AnyMatrices<const State>& from = which == 0 ? cascades_.b : cascades_.a;
        const std::int64_t of_row = unit / cascades_.sections, section = unit % cascades_.sections;
        const std::int64_t at = offset_of(cascades_.batch, from.stride, row_ + of_row) + section * from.down;
        int stored = 0;
        TORCH_IIR_UNROLL
        for (int k = 0; k < 3; ++k) {
          c[k] = k < length ? load(from, at + k * from.step) : Number(0.0);
          if (stored_exponent(c[k]) != 2047) stored = maximum(stored, stored_exponent(c[k]));
        }
        exponent = exponent_of(stored);
        const double by = power_of_two(-exponent);
        TORCH_IIR_UNROLL
        for (int k = 0; k < 3; ++k) c[k] = times(c[k], by);
      }
      // Next to a zero at z = ±1 the sums all but vanish: with what was rounded off, they are right to the last bits.
      Polynomial p;
      Number lost_even, lost;
      p.even = sum_and_error(c[0], c[2], lost_even);
      p.side[0] = sum_and_error(p.even, c[1], lost);
      p.side[0] = p.side[0] + (lost + lost_even);
      p.side[1] = sum_and_error(-p.even, c[1], lost);
      p.side[1] = p.side[1] + (lost - lost_even);
      p.odd = c[0] - c[2];
      shared_.polynomials[i / 2][which] = p;
      shared_.exponents[i / 2][which] = exponent;
    }
    staged_ = first;
    sync();
  }

  const Cascades<State>& cascades_;
  Shared& shared_;
  std::int64_t row_, units_, staged_ = -1;
};

template <class State>
class Horner {
 public:
  using Number = Computed<State>;
  static constexpr bool complex = std::is_same_v<Number, Complex>;
  static constexpr int capacity = 512;  // coefficients of a window
  static constexpr int resident = 3;

  struct Shared {
    alignas(16) Number values[capacity];
  };

  // As of Centred. The coefficients of a section lie in the order in which they are used: the last of B first, then
  // A's.
  TORCH_IIR_GPU Horner(const Cascades<State>& cascades, Shared& shared, std::int64_t row, std::int64_t rows)
      : cascades_(cascades),
        shared_(shared),
        row_(row),
        per_unit_(std::int64_t{cascades.b_length} + cascades.a_length),
        values_(rows * cascades.sections * per_unit_) {}

  template <int count, class Element>
  TORCH_IIR_GPU void evaluate(std::int64_t unit, const Angle (&angles)[count], Element (&b)[count], Element (&a)[count],
                              int (&exponents)[count]) {
    evaluate(unit, angles, b, a);
    TORCH_IIR_UNROLL
    for (int i = 0; i < count; ++i) exponents[i] += normalise(b[i]) - normalise(a[i]);
  }
  // As they are, of whatever size.
  template <int count, class Element>
  TORCH_IIR_GPU void evaluate(std::int64_t unit, const Angle (&angles)[count], Element (&b)[count],
                              Element (&a)[count]) {
    // One loop for both: its code is there once.
    TORCH_IIR_NO_UNROLL
    for (int which = 0; which < 2; ++which) {
      Element sum[count];
      std::int64_t at = unit * per_unit_ + (which == 0 ? 0 : cascades_.b_length);
      std::int64_t left = which == 0 ? cascades_.b_length : cascades_.a_length;
      TORCH_IIR_UNROLL
      for (int i = 0; i < count; ++i) sum[i] = Element(Complex(0.0));
      while (left > 0) {
        if (at / capacity * capacity != staged_) stage(at / capacity * capacity);
        const int from = static_cast<int>(at - staged_);
        const int run = static_cast<int>(minimum<std::int64_t>(left, capacity - from));
        for (int j = from; j < from + run; ++j) {
          const Number value = shared_.values[j];
          TORCH_IIR_UNROLL
          for (int i = 0; i < count; ++i) step(sum[i], angles[i], value);
        }
        at += run;
        left -= run;
      }
      TORCH_IIR_UNROLL
      for (int i = 0; i < count; ++i) {
        finish(sum[i], angles[i]);
        if (which == 0) b[i] = sum[i];
        else a[i] = sum[i];
      }
    }
  }

  static TORCH_IIR_GPU Complex delayed(Complex p, const Angle& at) {  // p e^−jw
    return {fma(p.re, at.cosine, p.im * at.sine), fma(p.im, at.cosine, -p.re * at.sine)};
  }

 private:
  static TORCH_IIR_GPU Complex delayed_and(Complex p, const Angle& at, Complex plus) {
    return {fma(p.re, at.cosine, fma(p.im, at.sine, plus.re)), fma(p.im, at.cosine, fma(-p.re, at.sine, plus.im))};
  }
  static TORCH_IIR_GPU void step(Complex& sum, const Angle& at, Number value) {
    sum = delayed_and(sum, at, Complex(value));
  }
  // The slope is that by e^−jw until finish().
  static TORCH_IIR_GPU void step(Dual& sum, const Angle& at, Number value) {
    sum.slope = delayed_and(sum.slope, at, sum.value);
    sum.value = delayed_and(sum.value, at, Complex(value));
  }
  static TORCH_IIR_GPU void finish(Complex&, const Angle&) {}
  static TORCH_IIR_GPU void finish(Dual& sum, const Angle& at) {
    const Complex turned = delayed(sum.slope, at);
    sum.slope = {turned.im, -turned.re};
  }

  TORCH_IIR_GPU void stage(std::int64_t first) {
    sync();  // nobody reads the window before any more
    const int count = static_cast<int>(minimum<std::int64_t>(values_ - first, capacity));
    for (int i = thread(); i < count; i += threads()) {
      const std::int64_t unit = (first + i) / per_unit_, row = row_ + unit / cascades_.sections;
      const std::int64_t section = unit % cascades_.sections, place = (first + i) % per_unit_;
      const bool of_b = place < cascades_.b_length;
      const AnyMatrices<const State>& from = of_b ? cascades_.b : cascades_.a;
      const std::int64_t k = (of_b ? cascades_.b_length : per_unit_) - 1 - place;
      shared_.values[i] =
          load(from, offset_of(cascades_.batch, from.stride, row) + section * from.down + k * from.step);
    }
    staged_ = first;
    sync();
  }

  const Cascades<State>& cascades_;
  Shared& shared_;
  std::int64_t row_, per_unit_, values_, staged_ = -1;
};

}  // namespace torch_iir::cuda
