// Damped Newton method on the dual problem of nnls for a bank, several columns at once in the lanes.
//
// With D = diag(x > 0), or diag(x) under a prior, the equation F(λ) = A x(λ) + μ λ − b = 0 has the tridiagonal
// derivative J = A D Aᵀ + μ. A step solves (J + δ diag) λ⁺ = …, by elimination from both ends, which halves the chain
// of dependent operations. It is kept if the dual objective falls, or at least descends along the step; δ falls after
// such a step, and rises after one that is not kept. Without damping the active sets of some columns cycle.
//
// μ begins large and falls tenfold as soon as F is small: outside the cone of what A can make of x ≥ 0, λ grows as 1/μ,
// and from afar the damped steps would take hundreds.
//
// A lane whose column is done takes the next one. The entries x follow from λ in a pass of their own (write_x).
#pragma once

#include "nnls_bank.h"
#include "rows.h"
#include "torch_iir/nnls.h"
#include "tridiagonal.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

using Bits = Vector<std::uint64_t, width>;

// e^v, to about 2 units in the last place; 0 where that is not a normal number. From 709 on it stays what it is there,
// so that 0 times it is 0.
TORCH_IIR_INLINE Doubles exponential(Doubles v) {
  constexpr double log2e = 1.4426950408889634, ln2_high = 6.93147180369123816490e-01,
                   ln2_low = 1.90821492927058770002e-10, shift = 0x1.8p52;
  v = v > 709.0 ? everywhere(709.0) : v;
  const Doubles shifted = v * log2e + shift;  // the integer nearest to v / ln 2, in the low bits
  const Doubles k = shifted - shift;
  const Doubles r = (v - k * ln2_high) - k * ln2_low;
  constexpr double inverse_factorial[] = {
      1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
      1.0 / 120,       1.0 / 24,       1.0 / 6,       0.5,          1.0,         1.0};
  Doubles y = everywhere(inverse_factorial[0]);
#pragma GCC unroll 12
  for (int i = 1; i < 13; ++i) y = y * r + inverse_factorial[i];
  const Bits scaled = __builtin_bit_cast(Bits, y) + (__builtin_bit_cast(Bits, shifted) << 52);
  Doubles result = __builtin_bit_cast(Doubles, scaled);
  result = v < -708.0 ? Doubles{} : result;
  return v == v ? result : v;
}

// A power of two near |value|, and its inverse: scaling by it rounds nothing.
struct Unit {
  double up = 1, down = 1;
  explicit Unit(double value) {
    if (!(value > 0)) return;
    int exponent = static_cast<int>(__builtin_bit_cast(std::uint64_t, value) >> 52) - 1023;
    exponent = exponent > 1020 ? 1020 : exponent < -1020 ? -1020 : exponent;
    up = __builtin_bit_cast(double, static_cast<std::uint64_t>(1023 + exponent) << 52);
    down = __builtin_bit_cast(double, static_cast<std::uint64_t>(1023 - exponent) << 52);
  }
};

template <class Sample, bool entropy>
class Newton {
 public:
  Newton(const NNLS<Sample>& f, const Bank& bank, const Context& context) : f_(f), bank_(bank), context_(context) {}

  // Solves the columns [first, last), all of which have this bank, or those of them that failed before, in the memory
  // of group number `group`. False if there was none.
  bool run(std::int64_t first, std::int64_t last, std::int64_t group, bool only_failed, bool careful) {
    const std::int64_t tile = bank_.rows * lanes;
    constexpr int tiles = entropy ? 11 : 9;
    const std::size_t prior_tile = entropy ? static_cast<std::size_t>(bank_.filled * lanes) : 0;
    Scratch scratch(tiles * Scratch::bytes<double>(tile) + Scratch::bytes<double>(prior_tile), context_, group);
    if (!scratch) return false;
    b_ = scratch.take<double>(tile);
    for (State* state : {&now_, &next_}) {
      state->dual = scratch.take<double>(tile);
      state->diagonal = scratch.take<double>(tile);
      state->beside = scratch.take<double>(tile);
      state->rest = entropy ? scratch.take<double>(tile) : b_;
    }
    factor_ = scratch.take<double>(tile);
    partial_ = scratch.take<double>(tile);
    if constexpr (entropy) prior_ = scratch.take<double>(prior_tile);

    next_column_ = first;
    last_column_ = last;
    only_failed_ = only_failed;
    careful_ = careful;
    active_ = 0;
    for (int lane = 0; lane < lanes; ++lane) fill(lane);
    while (active_ > 0) {
      solve();
      evaluate();
      decide();
    }
    return true;
  }

 private:
  // Found by counting steps over mel spectra of music and speech, as they are and perturbed.
  static constexpr double first_mu = 1e-3;                                 // of the largest element of A Aᵀ
  static constexpr double stage_tolerance = 0.03;                          // of the column: the F at which μ falls
  static constexpr double stage_factor = 0.1, careful_stage_factor = 0.3;  // by which it falls
  static constexpr double first_damping = 300;                             // of the least
  static constexpr double damping_rise = 10, damping_fall = 3;

  struct State {
    double *dual, *diagonal, *beside, *rest;  // rest: b − A x + A D Aᵀ λ, which is b without a prior
  };

  template <class T>
  T* top(const Rows<T>& operand, std::int64_t column) const {
    return column_of(operand, f_.batch, f_.k, column);
  }

  // The next column into the lane; without one, the lane idles on a problem that is solved.
  void fill(int lane) {
    while (next_column_ < last_column_) {
      const std::int64_t column = next_column_++;
      if (only_failed_ && *top(f_.outcome, column) != Outcome::failed) continue;
      if (begin(lane, column)) return;
      double* dual = top(f_.dual, column);
      for (std::int64_t i = 0; i < f_.m; ++i) dual[i * f_.dual.down] = not_a_number;
      *top(f_.outcome, column) = Outcome::failed;
    }
    column_[lane] = -1;
    mu_[lane] = last_mu_[lane] = 1;
    damping_[lane] = 0;
    for (std::int64_t i = 0; i < bank_.rows; ++i) {
      const std::int64_t at = i * lanes + lane;
      b_[at] = now_.rest[at] = now_.dual[at] = now_.beside[at] = 0;
      now_.diagonal[at] = 1;
    }
    if constexpr (entropy) {
      for (std::int64_t j = 0; j < bank_.filled; ++j) prior_[j * lanes + lane] = 0;
    }
  }

  // Reads a column. False if it is not finite.
  bool begin(int lane, std::int64_t column) {
    const Sample *b = top(f_.b, column), *prior = top(f_.prior, column);
    const double mu = *top(f_.mu, column);
    double largest = 0, finite = 0;
    for (std::int64_t i = 0; i < f_.m; ++i) {
      const double value = read(b[i * f_.b.down]);
      b_[i * lanes + lane] = value;
      largest = __builtin_fabs(value) > largest ? __builtin_fabs(value) : largest;
      finite += value * 0;
    }
    for (std::int64_t i = f_.m; i < bank_.rows; ++i) b_[i * lanes + lane] = 0;
    const Unit unit(largest);
    for (std::int64_t j = 0; j < (prior != nullptr ? bank_.columns : 0); ++j) {
      const double value = read(prior[bank_.entries[j].column * f_.prior.down]);
      finite += value >= 0 ? value * 0 : not_a_number;
      if constexpr (entropy) {
        if (j < bank_.filled) prior_[j * lanes + lane] = value * unit.down;
      }
    }
    if (!(finite == 0 && mu > 0 && mu * 0 == 0)) return false;

    column_[lane] = column;
    unit_[lane] = entropy ? 1 : unit.up;  // of λ
    last_mu_[lane] = entropy ? mu * unit.down : mu;
    const double first = first_mu * bank_.largest;
    mu_[lane] = entropy || last_mu_[lane] > first ? last_mu_[lane] : first;
    largest_b_[lane] = largest * unit.down;
    damping_[lane] = 0;
    iterations_[lane] = 0;
    objective_[lane] = infinity;
    ++active_;
    for (std::int64_t i = 0; i < bank_.rows; ++i) {
      const std::int64_t at = i * lanes + lane;
      b_[at] *= unit.down;
      now_.dual[at] = 0;
      now_.diagonal[at] = bank_.diagonal[i];  // as if all x were positive
      now_.beside[at] = bank_.beside[i];
    }
    if constexpr (entropy) begin_with_prior(lane);
    return true;
  }

  // The state at λ = 0, where x is the prior.
  void begin_with_prior(int lane) {
    for (std::int64_t i = 0; i < bank_.rows; ++i) {
      now_.diagonal[i * lanes + lane] = now_.beside[i * lanes + lane] = 0;
      now_.rest[i * lanes + lane] = b_[i * lanes + lane];
    }
    for (std::int64_t s = 0; s < bank_.segments(); ++s) {
      const std::int64_t at = s * lanes + lane;
      for (std::int64_t j = bank_.begin(s); j < bank_.end(s); ++j) {
        const double x = prior_[j * lanes + lane];
        now_.diagonal[at] += bank_.weights[j].pp * x;
        now_.beside[at] += bank_.weights[j].pq * x;
        now_.diagonal[at + lanes] += bank_.weights[j].qq * x;
        now_.rest[at] -= bank_.entries[j].p * x;
        now_.rest[at + lanes] -= bank_.entries[j].q * x;
      }
    }
  }

  // next_.dual from now_.
  void solve() {
    Doubles mu[2], damping[2];
    for (int v = 0; v < 2; ++v) {
      mu[v] = load<Doubles>(mu_ + v * width);
      damping[v] = load<Doubles>(damping_ + v * width);
    }
    const auto row = [&](std::int64_t i, int v) TORCH_IIR_INLINE_LAMBDA {
      const std::int64_t at = i * lanes + v * width;
      const Doubles diagonal = load<Doubles>(now_.diagonal + at);
      const Doubles extra = damping[v] * (entropy ? diagonal : everywhere(bank_.diagonal[i]));
      return Row{diagonal + mu[v] + extra, load<Doubles>(now_.rest + at) + extra * load<Doubles>(now_.dual + at)};
    };
    solve_tridiagonal(bank_.rows, row, now_.beside, factor_, partial_, next_.dual);
  }

  // The sums over a segment's columns: of x-weighted p², p q, q², and with a prior of x p, x q and x.
  struct Sums {
    Doubles pp = {}, pq = {}, qq = {}, p = {}, q = {}, all = {};
  };

  TORCH_IIR_INLINE void add_segment(std::int64_t s, int v, Doubles first, Doubles second, Sums& sums) const {
    if constexpr (entropy) {
      for (std::int64_t j = bank_.begin(s); j < bank_.end(s); ++j) {
        const double p = bank_.entries[j].p, q = bank_.entries[j].q;
        const Doubles x = load<Doubles>(prior_ + j * lanes + v * width) * exponential(p * first + q * second);
        sums.all += x;
        sums.p += p * x;
        sums.q += q * x;
        sums.pp += bank_.weights[j].pp * x;
        sums.pq += bank_.weights[j].pq * x;
        sums.qq += bank_.weights[j].qq * x;
      }
    } else {
      const auto add = [&](const Bank::Weights& weights, Doubles sign) TORCH_IIR_INLINE_LAMBDA {
        const auto positive = sign > 0;
        sums.pp = positive ? sums.pp + weights.pp : sums.pp;
        sums.pq = positive ? sums.pq + weights.pq : sums.pq;
        sums.qq = positive ? sums.qq + weights.qq : sums.qq;
      };
      const Bank::Weights* weights = bank_.weights + bank_.begin(s);
      for (; weights < bank_.weights + bank_.middle(s); ++weights) add(*weights, first + weights->ratio * second);
      for (; weights < bank_.weights + bank_.end(s); ++weights) add(*weights, weights->ratio * first + second);
    }
  }

  // next_ at next_.dual, and what decides about the step.
  TORCH_IIR_INLINE void evaluate() {
    const std::int64_t rows = bank_.rows;
    for (int v = 0; v < 2; ++v) {
      const int part = v * width;
      const Doubles mu = load<Doubles>(mu_ + part);
      Doubles largest = {}, largest_term = {}, objective = {}, slope = {}, differs = {};
      Doubles before = {}, beside = {}, diagonal = {}, product = {};  // carried from row to row
      Doubles dual = load<Doubles>(next_.dual + part);
      for (std::int64_t i = 0; i < rows; ++i) {
        const std::int64_t at = i * lanes + part;
        Sums sums;
        Doubles after = {};
        if (i + 1 < rows) {
          after = load<Doubles>(next_.dual + at + lanes);
          add_segment(i, v, dual, after, sums);
        }
        diagonal += sums.pp;
        const Doubles b = load<Doubles>(b_ + at);
        const Doubles applied = diagonal * dual + (beside * before + sums.pq * after);  // A D Aᵀ λ
        Doubles residual, applied_x = {};
        if constexpr (entropy) {
          product += sums.p;
          applied_x = product;
          residual = product + (mu * dual - b);
          store(next_.rest + at, b - product + applied);
          objective += sums.all + dual * (0.5 * mu * dual - b);
          product = sums.q;
        } else {
          residual = applied + (mu * dual - b);
          objective += 0.5 * dual * (residual - b);
          differs += (diagonal != load<Doubles>(now_.diagonal + at)) | (sums.pq != load<Doubles>(now_.beside + at))
                         ? everywhere(1)
                         : Doubles{};
        }
        largest = larger(magnitude(residual), largest);
        largest_term = larger(magnitude(entropy ? applied_x : diagonal * dual), largest_term);
        slope += residual * (dual - load<Doubles>(now_.dual + at));
        store(next_.diagonal + at, diagonal);
        store(next_.beside + at, sums.pq);
        diagonal = sums.qq;
        beside = sums.pq;
        before = dual;
        dual = after;
      }
      store(largest_ + part, largest);
      store(largest_term_ + part, largest_term);
      store(next_objective_ + part, objective);
      store(slope_ + part, slope);
      store(differs_ + part, differs);
    }
  }

  void decide() {
    const State previous = now_;
    now_ = next_;
    next_ = previous;
    if constexpr (!entropy) now_.rest = b_;
    for (int lane = 0; lane < lanes; ++lane) {
      if (column_[lane] < 0) continue;
      ++iterations_[lane];
      // Without a prior, an undamped step that leaves the active set as it was solves the equation: what is left of
      // F is rounding.
      const bool settled = !entropy && damping_[lane] == 0 && differs_[lane] == 0;
      const double rounding = 16 * __DBL_EPSILON__ * largest_term_[lane];
      const bool last_stage = mu_[lane] <= last_mu_[lane];
      const double limit = (last_stage ? f_.tolerance : stage_tolerance) * largest_b_[lane];
      const bool finite = slope_[lane] - slope_[lane] == 0;  // comparisons pass over nans in F
      if (finite && (settled || largest_[lane] <= limit || largest_[lane] < rounding)) {
        if (last_stage) {
          finish(lane, entropy ? Outcome::entropy : Outcome::solved);
          continue;
        }
        const double fallen = (careful_ ? careful_stage_factor : stage_factor) * mu_[lane];
        mu_[lane] = fallen > last_mu_[lane] ? fallen : last_mu_[lane];
        // With less μ the objective is less: where it was bounds the step, carefully. Unbounded, the first step of a
        // stage may go uphill, which saves half of the steps, and fails once in some ten thousand columns.
        objective_[lane] = careful_ ? next_objective_[lane] : infinity;
        damping_[lane] = 0;
      } else if (next_objective_[lane] <= objective_[lane] || slope_[lane] <= 0) {
        objective_[lane] = next_objective_[lane];
        damping_[lane] = damping_[lane] <= least_damping(lane) ? 0 : damping_[lane] / damping_fall;
      } else {
        for (std::int64_t at = lane; at < bank_.rows * lanes; at += lanes) {
          now_.dual[at] = next_.dual[at];
          now_.diagonal[at] = next_.diagonal[at];
          now_.beside[at] = next_.beside[at];
          if constexpr (entropy) now_.rest[at] = next_.rest[at];
        }
        damping_[lane] = damping_[lane] == 0 ? first_damping * least_damping(lane) : damping_[lane] * damping_rise;
      }
      if (iterations_[lane] >= f_.max_iterations) finish(lane, Outcome::failed);
    }
  }

  // Damping below this changes nothing that μ would leave undecided.
  double least_damping(int lane) const { return entropy ? 1e-6 : mu_[lane] / bank_.largest; }

  void finish(int lane, Outcome outcome) {
    double* dual = top(f_.dual, column_[lane]);
    for (std::int64_t i = 0; i < f_.m; ++i) dual[i * f_.dual.down] = now_.dual[i * lanes + lane] * unit_[lane];
    *top(f_.outcome, column_[lane]) = outcome;
    --active_;
    fill(lane);
  }

  const NNLS<Sample>& f_;
  const Bank& bank_;
  const Context& context_;
  std::int64_t next_column_ = 0, last_column_ = 0;
  bool only_failed_ = false, careful_ = false;
  int active_ = 0;

  // Tiles of bank_.rows × lanes.
  double *b_ = nullptr, *factor_ = nullptr, *partial_ = nullptr, *prior_ = nullptr;
  State now_ = {}, next_ = {};

  std::int64_t column_[lanes] = {};
  int iterations_[lanes] = {};
  alignas(64) double unit_[lanes] = {}, mu_[lanes] = {}, last_mu_[lanes] = {}, largest_b_[lanes] = {},
                     largest_term_[lanes] = {}, damping_[lanes] = {}, objective_[lanes] = {}, largest_[lanes] = {},
                     next_objective_[lanes] = {}, slope_[lanes] = {}, differs_[lanes] = {};
};

// ---- from λ to x ---------------------------------------------------------------------------------------------

// max(v, 0), nan where v is.
TORCH_IIR_INLINE Doubles not_negative(Doubles v) { return v <= 0 ? Doubles{} : v; }

// x of the columns [first, last) of one row, whose dual and outcome are there.
template <class Sample, bool entropy>
void write_x(const NNLS<Sample>& f, const Bank& bank, std::int64_t row, std::int64_t first, std::int64_t last) {
  const double* dual = f.dual.row(f.batch, row);
  Sample* x = f.x.row(f.batch, row);
  const Sample* prior = entropy ? f.prior.row(f.batch, row) : nullptr;
  const Outcome* outcome = f.outcome.row(f.batch, row);
  const auto dual_at = [&](std::int64_t i, std::int64_t column, std::int64_t count) TORCH_IIR_INLINE_LAMBDA {
    return i < f.m ? load_some(dual + i * f.dual.down + column * f.dual.step, f.dual.step, count) : Doubles{};
  };
  // A stretch of λ stays in the first cache while the columns of a segment are written from it.
  constexpr std::int64_t stretch = 512;
  for (std::int64_t from = first; from < last; from += stretch) {
    const std::int64_t to = from + stretch < last ? from + stretch : last;
    const auto write_column = [&](std::int64_t s, const Bank::Entry& entry) {
      for (std::int64_t column = from; column < to; column += width) {
        const std::int64_t count = to - column < width ? to - column : width;
        const Doubles v = entry.p * dual_at(s, column, count) + entry.q * dual_at(s + 1, column, count);
        Doubles value = not_negative(v);
        if (f.m == 0) {  // there is no dual to bring a nan
          for (int i = 0; i < count; ++i) {
            if (outcome[(column + i) * f.outcome.step] == Outcome::failed) {
              value[i] = not_a_number;
            }
          }
        }
        if constexpr (entropy) {
          const Sample* w = prior + entry.column * f.prior.down + column * f.prior.step;
          const Doubles smooth = load_some(w, f.prior.step, count) * exponential(v);
          for (int i = 0; i < count; ++i) {
            if (outcome[(column + i) * f.outcome.step] == Outcome::entropy) value[i] = smooth[i];
          }
        }
        store_some(x + entry.column * f.x.down + column * f.x.step, f.x.step, value, count);
      }
    };
    for (std::int64_t s = 0; s < bank.segments(); ++s) {
      for (std::int64_t j = bank.begin(s); j < bank.end(s); ++j) write_column(s, bank.entries[j]);
    }
    for (std::int64_t j = bank.filled; j < bank.columns; ++j) write_column(0, bank.entries[j]);  // 0 · λ
  }
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
