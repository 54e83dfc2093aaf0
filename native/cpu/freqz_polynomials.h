// The polynomials of a rational filter at many angles at once, and the gradients of their coefficients.
//
// Each is divided by a power of two first, so that no product of many comes near overflow.
#pragma once

#include <cmath>
#include <limits>

#include "rows.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

// A complex number in each lane.
struct Wide {
  Doubles re, im;
};
TORCH_IIR_INLINE Wide operator*(const Wide& p, const Wide& q) {
  return {p.re * q.re - p.im * q.im, p.re * q.im + p.im * q.re};
}
TORCH_IIR_INLINE Wide operator-(const Wide& p) { return {-p.re, -p.im}; }
TORCH_IIR_INLINE Wide reciprocal(const Wide& p) {
  const Doubles scale = 1 / (p.re * p.re + p.im * p.im);
  return {p.re * scale, -p.im * scale};
}

// Cosines and sines of a block of angles w. `versine` is cos w as a difference from the nearer of ±1, exact to rounding
// where that is small: 1 − cos w = 2 sin² w/2, or, negative, −1 − cos w = −2 cos² w/2.
class Angles {
 public:
  static std::size_t bytes(int count) { return 3 * Scratch::bytes<double>(static_cast<std::size_t>(count)); }
  Angles(Scratch& scratch, int count)
      : cosine(scratch.take<double>(static_cast<std::size_t>(count))),
        sine(scratch.take<double>(static_cast<std::size_t>(count))),
        versine(scratch.take<double>(static_cast<std::size_t>(count))) {}

  double *cosine, *sine, *versine;

  void set(int i, double half) { set(i, std::cos(half), std::sin(half)); }

  // The angles 2 · half_step · (first + i): most of them turned from one that libm was asked for.
  void set_grid(int count, double half_step, std::int64_t first) {
    constexpr int stretch = 32;
    double c[stretch], s[stretch];
    for (int i = 0; i < stretch && i < count; ++i) {
      c[i] = std::cos(half_step * i);
      s[i] = std::sin(half_step * i);
    }
    for (int begin = 0; begin < count; begin += stretch) {
      const double half = half_step * static_cast<double>(first + begin);
      const double c0 = std::cos(half), s0 = std::sin(half);
      const int end = count - begin < stretch ? count - begin : stretch;
      for (int i = 0; i < end; ++i) set(begin + i, c0 * c[i] - s0 * s[i], s0 * c[i] + c0 * s[i]);
    }
  }

  // What is computed on beyond the last angle.
  void pad(int count, int to) {
    for (int i = count; i < to; ++i) set(i, 1.0, 0.0);
  }

 private:
  TORCH_IIR_INLINE void set(int i, double half_cosine, double half_sine) {
    const bool right = half_cosine * half_cosine >= half_sine * half_sine;
    // Never 0 on the left: its sign tells the side.
    const double v = right ? 2 * half_sine * half_sine : -2 * half_cosine * half_cosine - 0x1p-1000;
    versine[i] = v;
    cosine[i] = (right ? 1 : -1) - v;
    sine[i] = 2 * half_sine * half_cosine;
  }
};

// c0 + c1 z^−1 + c2 z^−2, times z: c1 + (c0 + c2) cos w + j (c0 − c2) sin w. The factor z is the same in all sections
// and cancels between numerator and denominator.
template <class Coefficient>
struct Centred {
  static constexpr bool complex = !std::is_same_v<Coefficient, double>;
  static constexpr int values(int) { return 4; }
  static constexpr int sums(int) { return complex ? 6 : 3; }

  const Coefficient* v;  // at cos w = 1, at cos w = −1, c0 + c2, c0 − c2
  int length;

  static void prepare(const Coefficient* c, int length, Coefficient* v) {
    const Coefficient c1 = length > 1 ? c[1] : Coefficient(0), c2 = length > 2 ? c[2] : Coefficient(0);
    // Next to a zero at z = ±1 the sums all but vanish: with what was rounded off, they are right to the last bits.
    Coefficient lost_even, lost;
    v[2] = sum_and_error(c[0], c2, lost_even);
    v[0] = sum_and_error(v[2], c1, lost);
    v[0] += lost + lost_even;
    v[1] = sum_and_error(-v[2], c1, lost);
    v[1] += lost - lost_even;
    v[3] = c[0] - c2;
  }

  TORCH_IIR_INLINE Wide at(const Angles& angles, int i) const {
    const Doubles versine = load_doubles(angles.versine + i), sine = load_doubles(angles.sine + i);
    const auto even = [&](double right, double left, double slope) {
      return (versine < 0 ? everywhere(left) : everywhere(right)) - slope * versine;
    };
    if constexpr (complex) {
      return {even(v[0].re, v[1].re, v[2].re) - v[3].im * sine, even(v[0].im, v[1].im, v[2].im) + v[3].re * sine};
    } else {
      return {even(v[0], v[1], v[2]), v[3] * sine};
    }
  }

  // Adds Re(e), Re(e) cos w, Im(e) sin w and, for complex coefficients, Im(e), Im(e) cos w, Re(e) sin w.
  template <int vectors, bool wants_w>
  TORCH_IIR_INLINE void add(const Angles& angles, int at, const Wide (&e)[vectors], Doubles* sums,
                            Doubles (&of_w)[vectors]) const {
    Doubles total[complex ? 6 : 3] = {};
#pragma GCC unroll 4
    for (int i = 0; i < vectors; ++i) {
      const Doubles c = load_doubles(angles.cosine + at + i * width), s = load_doubles(angles.sine + at + i * width);
      total[0] += e[i].re;
      total[1] += e[i].re * c;
      total[2] += e[i].im * s;
      if constexpr (complex) {
        total[3] += e[i].im;
        total[4] += e[i].im * c;
        total[5] += e[i].re * s;
      }
      if constexpr (wants_w && complex) {
        of_w[i] += e[i].re * (-v[2].re * s - v[3].im * c) - e[i].im * (v[3].re * c - v[2].im * s);
      } else if constexpr (wants_w) {
        of_w[i] -= e[i].re * (v[2] * s) + e[i].im * (v[3] * c);
      }
    }
    for (int i = 0; i < (complex ? 6 : 3); ++i) sums[i] += total[i];
  }

  void gradient(const Doubles* sums, Coefficient* to) const {
    const auto real = [&](int k) {
      return k == 1 ? sum(sums[0]) : sum(k == 0 ? sums[1] - sums[2] : sums[1] + sums[2]);
    };
    const auto imaginary = [&](int k) {
      return k == 1 ? sum(sums[3]) : sum(k == 0 ? sums[4] + sums[5] : sums[4] - sums[5]);
    };
    for (int k = 0; k < length; ++k) {
      if constexpr (complex) {
        to[k] = Complex(real(k), -imaginary(k));
      } else {
        to[k] = real(k);
      }
    }
  }

 private:
  static Complex sum_and_error(Complex p, Complex q, Complex& error) {
    Complex total;
    total.re = sum_and_error(p.re, q.re, error.re);
    total.im = sum_and_error(p.im, q.im, error.im);
    return total;
  }
  static double sum_and_error(double p, double q, double& error) {  // Knuth's
    const double total = p + q, of_q = total - p;
    error = (p - (total - of_q)) + (q - of_q);
    return total;
  }
};

// Any number of coefficients.
template <class Coefficient>
struct Horner {
  static constexpr bool complex = !std::is_same_v<Coefficient, double>;
  static constexpr int values(int length) { return length; }
  static constexpr int sums(int length) { return (complex ? 2 : 1) * length; }

  const Coefficient* v;
  int length;

  static void prepare(const Coefficient* c, int length, Coefficient* v) {
    for (int k = 0; k < length; ++k) v[k] = c[k];
  }

  TORCH_IIR_INLINE Wide at(const Angles& angles, int i) const {
    const Doubles c = load_doubles(angles.cosine + i), s = load_doubles(angles.sine + i);
    Wide result{};
    for (int k = length - 1; k >= 0; --k) {
      result = {result.re * c + result.im * s, result.im * c - result.re * s};
      if constexpr (complex) {
        result.re += v[k].re;
        result.im += v[k].im;
      } else {
        result.re += v[k];
      }
    }
    return result;
  }

  // Adds Re(e z^−k), and Im(e z^−k) for complex coefficients.
  template <int vectors, bool wants_w>
  TORCH_IIR_INLINE void add(const Angles& angles, int at, const Wide (&e)[vectors], Doubles* sums,
                            Doubles (&of_w)[vectors]) const {
    Wide power[vectors], derivative[vectors] = {};  // z^−k, and Σ k v_k z^−k
#pragma GCC unroll 4
    for (int i = 0; i < vectors; ++i) power[i] = {everywhere(1), Doubles{}};
    for (int k = 0; k < length; ++k) {
      Doubles re{}, im{};
#pragma GCC unroll 4
      for (int i = 0; i < vectors; ++i) {
        const Doubles c = load_doubles(angles.cosine + at + i * width), s = load_doubles(angles.sine + at + i * width);
        re += e[i].re * power[i].re - e[i].im * power[i].im;
        if constexpr (complex) im += e[i].re * power[i].im + e[i].im * power[i].re;
        if constexpr (wants_w && complex) {
          derivative[i].re += k * v[k].re * power[i].re - k * v[k].im * power[i].im;
          derivative[i].im += k * v[k].re * power[i].im + k * v[k].im * power[i].re;
        } else if constexpr (wants_w) {
          derivative[i].re += k * v[k] * power[i].re;
          derivative[i].im += k * v[k] * power[i].im;
        }
        power[i] = {power[i].re * c + power[i].im * s, power[i].im * c - power[i].re * s};
      }
      sums[k] += re;
      if constexpr (complex) sums[length + k] += im;
    }
    if constexpr (wants_w) {
#pragma GCC unroll 4
      for (int i = 0; i < vectors; ++i) of_w[i] += e[i].re * derivative[i].im + e[i].im * derivative[i].re;
    }
  }

  void gradient(const Doubles* sums, Coefficient* to) const {
    for (int k = 0; k < length; ++k) {
      if constexpr (complex) {
        to[k] = Complex(sum(sums[k]), -sum(sums[length + k]));
      } else {
        to[k] = sum(sums[k]);
      }
    }
  }
};

// The coefficients of one row's filter, prepared: 2^exponent Π_s b(s) / a(s).
template <class Coefficient_, template <class> class Form_>
class Filter {
 public:
  using Coefficient = Coefficient_;
  using Form = Form_<Coefficient>;

  template <class Problem>
  static std::size_t bytes(const Problem& f) {
    const int longest = f.b_length > f.a_length ? f.b_length : f.a_length;
    return Scratch::bytes<Coefficient>(room(longest)) +
           Scratch::bytes<Coefficient>(room(f.sections) * room(Form::values(f.b_length) + Form::values(f.a_length))) +
           Scratch::bytes<int>(room(2 * f.sections));
  }
  // How many coefficients there are.
  template <class Problem>
  static std::int64_t gradients(const Problem& f) {
    return std::int64_t{f.sections} * (f.b_length + f.a_length);
  }

  template <class Problem>
  Filter(const Problem& f, Scratch& scratch) : sections(f.sections), b_length_(f.b_length), a_length_(f.a_length) {
    scaled_ = scratch.take<Coefficient>(room(b_length_ > a_length_ ? b_length_ : a_length_));
    b_ = scratch.take<Coefficient>(room(sections) * room(Form::values(b_length_) + Form::values(a_length_)));
    a_ = b_ + std::int64_t{sections} * Form::values(b_length_);
    exponents_ = scratch.take<int>(room(2 * sections));
  }

  int sections;
  Form b(int s) const { return {b_ + std::int64_t{s} * Form::values(b_length_), b_length_}; }
  Form a(int s) const { return {a_ + std::int64_t{s} * Form::values(a_length_), a_length_}; }
  int exponent() const { return exponent_; }

  template <class T>
  void read(const Batch& batch, const Matrices<T>& b, const Matrices<T>& a, std::int64_t row) {
    exponent_ = 0;
    const T *of_b = b.row(batch, row), *of_a = a.row(batch, row);
    for (int s = 0; s < sections; ++s) {
      exponents_[2 * s] = prepare(of_b + s * b.down, b.step, b_length_, b_ + std::int64_t{s} * Form::values(b_length_));
      exponents_[2 * s + 1] =
          prepare(of_a + s * a.down, a.step, a_length_, a_ + std::int64_t{s} * Form::values(a_length_));
      exponent_ += exponents_[2 * s] - exponents_[2 * s + 1];
    }
  }

  // Sums over a block of angles, lane by lane.
  class Sums {
   public:
    template <class Problem>
    static std::size_t bytes(const Problem& f) {
      return Scratch::bytes<Doubles>(count(f));
    }
    template <class Problem>
    Sums(const Problem& f, Scratch& scratch)
        : per_b_(Form::sums(f.b_length)), per_a_(Form::sums(f.a_length)), count_(count(f)) {
      b_ = scratch.take<Doubles>(count_);
      a_ = b_ + std::int64_t{f.sections} * per_b_;
    }
    Doubles* b(int s) const { return b_ + std::int64_t{s} * per_b_; }
    Doubles* a(int s) const { return a_ + std::int64_t{s} * per_a_; }
    void clear() {
      for (std::size_t i = 0; i < count_; ++i) b_[i] = Doubles{};
    }

   private:
    template <class Problem>
    static std::size_t count(const Problem& f) {
      return room(f.sections) * room(Form::sums(f.b_length) + Form::sums(f.a_length));
    }
    int per_b_, per_a_;
    std::size_t count_;
    Doubles *b_, *a_;
  };

  // The gradients of all b, then of all a.
  void finish(const Sums& sums, Coefficient* to) const {
    for (int s = 0; s < sections; ++s, to += b_length_) {
      b(s).gradient(sums.b(s), to);
      scale(to, b_length_, exponent_ - exponents_[2 * s]);
    }
    for (int s = 0; s < sections; ++s, to += a_length_) {
      a(s).gradient(sums.a(s), to);
      scale(to, a_length_, exponent_ - exponents_[2 * s + 1]);
    }
  }

 private:
  static std::size_t room(int count) { return static_cast<std::size_t>(count); }

  static double size(double v) { return std::fabs(v); }
  static double size(Complex v) { return std::fmax(std::fabs(v.re), std::fabs(v.im)); }
  static double times(double v, int exponent) { return std::ldexp(v, exponent); }
  static Complex times(Complex v, int exponent) { return {std::ldexp(v.re, exponent), std::ldexp(v.im, exponent)}; }
  static void scale(Coefficient* values, int count, int exponent) {
    for (int k = 0; k < count; ++k) values[k] = times(values[k], exponent);
  }

  // Returns the exponent that the coefficients were divided by.
  template <class T>
  int prepare(const T* from, std::int64_t step, int length, Coefficient* to) {
    double largest = 0;
    for (int k = 0; k < length; ++k) {
      scaled_[k] = from[k * step];
      largest = std::fmax(largest, size(scaled_[k]));
    }
    int exponent = 0;
    if (largest > 0 && largest <= std::numeric_limits<double>::max()) std::frexp(largest, &exponent);
    scale(scaled_, length, -exponent);
    Form::prepare(scaled_, length, to);
    return exponent;
  }

  int b_length_, a_length_, exponent_ = 0;
  Coefficient *scaled_, *b_, *a_;
  int* exponents_;
};

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
