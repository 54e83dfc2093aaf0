// Damped Newton method on the dual problem of nnls for a bank, a warp to each column.
//
// With D = diag(x > 0), or diag(x) under a prior, the equation F(λ) = A x(λ) + μ λ − b = 0 has the tridiagonal
// derivative J = A D Aᵀ + μ. A step solves (J + δ diag) λ⁺ = …. It is kept if the dual objective falls, or at least
// descends along the step; δ falls after such a step, and rises after one that is not kept. Without damping the active
// sets of some columns cycle.
//
// μ begins large and falls tenfold as soon as F is small: outside the cone of what A can make of x ≥ 0, λ grows as 1/μ,
// and from afar the damped steps would take hundreds.
//
// The steps, the constants and the rules of stopping are those of the kernel for the CPU (native/cpu/nnls_newton.h),
// which has columns in the lanes of vectors and sums in another order: same steps, not the same bits.
//
// Counted, not measured, for 128 rows, 1025 entries, 11 700 columns without a prior: 8 vectors of 1 KB of shared memory
// and 96 registers, so that 20 warps are on a multiprocessor; some 1100 instructions and 4500 cycles of latency a step,
// of which a third each are elimination, the reduction of 32 rows, and sums. 16 steps of 11 700 columns are then
// 0.25 ms of issue slots on 132 multiprocessors, and as much of latency. x is written apart, neighbouring columns in
// the lanes: 48 MB. With a prior, 11 vectors and the prior itself: 19 KB, 150 registers, 11 warps; a step takes an
// exponential for every entry, some 60 instructions, in rounds of one segment a lane. A warp is a block of its own, so
// that the next column begins when any is done.
//
// Races: none, as a warp shares nothing with others. Within it, lanes read what others wrote after sync_warp() alone.
#pragma once

#include "nnls_bank.h"
#include "nnls_tridiagonal.h"

namespace torch_iir::cuda {

// By how much a warp's columns are scaled: a power of two near |value|, and its inverse, which round nothing.
struct Unit {
  double up = 1, down = 1;

  TORCH_IIR_GPU explicit Unit(double value) {
    if (!(value > 0)) return;
    const int exponent = maximum(minimum(ilogb(value), 1020), -1020);
    up = ldexp(1.0, exponent);
    down = ldexp(1.0, -exponent);
  }
};

// e^v; 0 where that is not a normal number. From 709 on it stays what it is there, so that 0 times it is 0.
TORCH_IIR_GPU double exponential(double v) {
  const double result = exp(v > 709 ? 709.0 : v);
  return v < -708 ? 0.0 : result;
}

// What a warp works in: vectors of m numbers, and a prior of n.
template <bool prior>
struct NewtonMemory {
  static constexpr int vectors = prior ? 11 : 8;

  struct State {
    double *dual, *diagonal, *beside, *rest;  // rest: b − A x + A D Aᵀ λ, with a prior
  };
  State now, next;
  double *b, *second, *second_product, *weights;

  static TORCH_IIR_HOST_DEVICE constexpr std::int64_t doubles(std::int64_t m, std::int64_t n) {
    return vectors * m + (prior ? n : 0);
  }
  TORCH_IIR_GPU NewtonMemory(double* memory, std::int64_t m) {
    const auto vector = [&](int i) { return memory + i * m; };
    now = {vector(0), vector(1), vector(2), vector(3)};
    next = {vector(4), vector(5), vector(6), vector(prior ? 8 : 3)};
    b = prior ? vector(9) : vector(3);
    second = vector(7);
    second_product = prior ? vector(10) : nullptr;
    weights = prior ? vector(11) : nullptr;
  }
};

// What a column asks for.
struct NewtonColumn {
  double mu, unit, largest_b;  // μ and max |b| in the scale that is computed in; unit: that of λ
};

struct NewtonSettings {
  double tolerance;
  int max_iterations;
  int m;
  double largest_diagonal;  // of A Aᵀ
  bool careful;
};

template <bool entropy, class Memory>
class Newton {
 public:
  TORCH_IIR_GPU Newton(const Banks::Bank& bank, const NewtonSettings& settings, const NewtonColumn& column,
                       Memory& memory)
      : bank_(bank), settings_(settings), column_(column), memory_(memory), now_(memory.now), next_(memory.next) {}

  // Leaves λ in now(), in the scale of the column.
  TORCH_IIR_GPU Outcome run() {
    begin();
    const double first = first_mu * settings_.largest_diagonal;
    mu_ = entropy || column_.mu > first ? column_.mu : first;
    double damping = 0, objective = infinity;
    for (int iteration = 1;; ++iteration) {
      solve(damping);
      const Step step = evaluate();
      // Without a prior, an undamped step that leaves the active set as it was solves the equation: what is left of
      // F is rounding.
      const bool settled = !entropy && damping == 0 && !step.differs;
      const double rounding = 16 * epsilon * step.largest_term;
      const bool last_stage = mu_ <= column_.mu;
      const double limit = (last_stage ? settings_.tolerance : stage_tolerance) * column_.largest_b;
      const bool finite = step.slope - step.slope == 0;  // comparisons pass over nans in F
      // Damping below this changes nothing that μ would leave undecided.
      const double least_damping = entropy ? 1e-6 : mu_ / settings_.largest_diagonal;
      if (finite && (settled || step.largest <= limit || step.largest < rounding)) {
        accept();
        if (last_stage) return entropy ? Outcome::entropy : Outcome::solved;
        const double fallen = (settings_.careful ? careful_stage_factor : stage_factor) * mu_;
        mu_ = fallen > column_.mu ? fallen : column_.mu;
        // With less μ the objective is less: where it was bounds the step, carefully. Unbounded, the first step of a
        // stage may go uphill, which saves half of the steps, and fails once in some ten thousand columns.
        objective = settings_.careful ? step.objective : infinity;
        damping = 0;
      } else if (step.objective <= objective || step.slope <= 0) {
        accept();
        objective = step.objective;
        damping = damping <= least_damping ? 0 : damping / damping_fall;
      } else {
        damping = damping == 0 ? first_damping * least_damping : damping * damping_rise;
      }
      if (iteration >= settings_.max_iterations) return Outcome::failed;
    }
  }
  TORCH_IIR_GPU const double* dual() const { return now_.dual; }

 private:
  using State = typename Memory::State;

  // Found by counting steps over mel spectra of music and speech, as they are and perturbed.
  static constexpr double first_mu = 1e-3;                                 // of the largest element of A Aᵀ
  static constexpr double stage_tolerance = 0.03;                          // of the column: the F at which μ falls
  static constexpr double stage_factor = 0.1, careful_stage_factor = 0.3;  // by which it falls
  static constexpr double first_damping = 300;                             // of the least
  static constexpr double damping_rise = 10, damping_fall = 3;

  struct Step {
    double largest = 0, largest_term = 0, objective = 0, slope = 0;
    bool differs = false;
  };

  TORCH_IIR_GPU void accept() {
    const State previous = now_;
    now_ = next_;
    next_ = previous;
  }

  // With a prior: next_ at λ = 0, where x is the prior, becomes now_. Without: as if all x were positive.
  TORCH_IIR_GPU void begin() {
    const int m = settings_.m;
    if constexpr (entropy) {
      for (int i = lane(); i < m; i += warp_size) now_.dual[i] = next_.dual[i] = 0;
      sync_warp();
      mu_ = 0;
      static_cast<void>(evaluate());
      accept();
    } else {
      for (int i = lane(); i < m; i += warp_size) {
        now_.dual[i] = 0;
        now_.diagonal[i] = bank_.diagonal(i);
        now_.beside[i] = bank_.total[i].pq;
      }
      sync_warp();
    }
  }

  // next_.dual from now_. What belongs to next_ otherwise is not there yet: its memory serves elimination.
  TORCH_IIR_GPU void solve(double damping) {
    const auto row = [&](std::int64_t i) -> TridiagonalRow {
      const double diagonal = now_.diagonal[i], rest = entropy ? now_.rest[i] : memory_.b[i];
      if (damping == 0) return {diagonal + mu_, rest};
      const double extra = damping * (entropy ? diagonal : bank_.diagonal(i));
      return {diagonal + mu_ + extra, fma(extra, now_.dual[i], rest)};
    };
    solve_tridiagonal(settings_.m, row, now_.beside, next_.diagonal, next_.beside, next_.dual);
  }

  // next_ at next_.dual, and what decides about the step. A lane has every 32nd row: neighbouring segments are of
  // similar length.
  TORCH_IIR_GPU Step evaluate() {
    const int m = settings_.m;
    Step step;
    for (int i = lane(); i < m; i += warp_size) {
      const double dual = next_.dual[i], after = i + 1 < m ? next_.dual[i + 1] : 0.0;
      Sums sums;
      if constexpr (entropy) {
        double product = 0, second_product = 0;
        for (int j = bank_.begin[i]; j < bank_.begin[i + 1]; ++j) {
          const double p = bank_.entries[j].p, q = bank_.entries[j].q;
          const double x = memory_.weights[j] * exponential(p * dual + q * after);
          step.objective += x;
          const double px = p * x, qx = q * x;
          product += px;
          second_product += qx;
          sums.pp = fma(p, px, sums.pp);
          sums.pq = fma(p, qx, sums.pq);
          sums.qq = fma(q, qx, sums.qq);
        }
        next_.rest[i] = product;
        memory_.second_product[i] = second_product;
      } else {
        sums = bank_.sums(i, dual, after);
      }
      next_.diagonal[i] = sums.pp;
      next_.beside[i] = sums.pq;
      memory_.second[i] = sums.qq;
    }
    sync_warp();
    for (int i = lane(); i < m; i += warp_size) {
      const bool above = i > 0, below = i + 1 < m;
      const double dual = next_.dual[i], b = memory_.b[i];
      const double diagonal = next_.diagonal[i] + (above ? memory_.second[i - 1] : 0.0);
      const double applied = diagonal * dual + ((above ? next_.beside[i - 1] * next_.dual[i - 1] : 0.0) +
                                                (below ? next_.beside[i] * next_.dual[i + 1] : 0.0));  // A D Aᵀ λ
      double residual, term;
      if constexpr (entropy) {
        const double product = next_.rest[i] + (above ? memory_.second_product[i - 1] : 0.0);
        term = product;
        residual = product + (mu_ * dual - b);
        next_.rest[i] = b - product + applied;
        step.objective += dual * (0.5 * mu_ * dual - b);
      } else {
        term = diagonal * dual;
        residual = applied + (mu_ * dual - b);
        step.objective += 0.5 * dual * (residual - b);
        step.differs |= diagonal != now_.diagonal[i] || next_.beside[i] != now_.beside[i];
      }
      step.largest = fabs(residual) > step.largest ? fabs(residual) : step.largest;
      step.largest_term = fabs(term) > step.largest_term ? fabs(term) : step.largest_term;
      step.slope += residual * (dual - now_.dual[i]);
      next_.diagonal[i] = diagonal;
    }
    step.largest = warp_largest(step.largest);
    step.largest_term = warp_largest(step.largest_term);
    step.objective = warp_sum(step.objective);
    step.slope = warp_sum(step.slope);
    step.differs = warp_any(step.differs);
    sync_warp();
    return step;
  }

  const Banks::Bank& bank_;
  const NewtonSettings& settings_;
  const NewtonColumn& column_;
  Memory& memory_;
  State now_, next_;
  double mu_ = 0;
};

// λ and the outcome of every column of a stretch. Vectors lie in shared memory, or where they are too long for it, in
// memory of each block's own.
template <bool prior, bool outside>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(warp_size, (prior || outside ? 12 : 20))
    newton_columns(NNLSProblem p, Stretch stretch, Banks banks, Choice choice, double* memory_outside) {
  const int usable = choice.banks();
  if (usable == 0) return;
  using Memory = NewtonMemory<prior>;
  const int m = static_cast<int>(p.m), n = static_cast<int>(p.n);
  double* own;
  if constexpr (outside) {
    own = memory_outside + block() * Memory::doubles(m, n);
  } else {
    own = reinterpret_cast<double*>(shared_memory());
  }
  std::int64_t of_matrix = -1;
  NewtonSettings settings{p.tolerance, p.max_iterations, m, 0, false};
  for (std::int64_t number = block(); number < stretch.rows * p.k; number += blocks()) {
    const std::int64_t row = stretch.first_row + number / p.k, j = number % p.k;
    double* const dual = column_at(p.dual, p.batch, row, j);
    Outcome* const outcome = p.outcome ? column_at(p.outcome, p.batch, row, j) : nullptr;
    const auto finish = [&](const double* from, double unit, Outcome how) {
      for (int i = lane(); i < m; i += warp_size) {
        dual[i * p.dual.down] = from == nullptr ? not_a_number : from[i] * unit;
      }
      if (lane() == 0 && outcome != nullptr) *outcome = how;
    };
    if (usable < 0) {
      finish(nullptr, 1, Outcome::failed);
      continue;
    }
    const std::int64_t matrix = row / p.sharing - stretch.first_matrix;
    const Banks::Bank bank = banks.bank(matrix);
    if (matrix != of_matrix) {
      double largest = 0;
      for (int i = lane(); i < m; i += warp_size) {
        const double diagonal = bank.diagonal(i);
        largest = diagonal > largest ? diagonal : largest;
      }
      settings.largest_diagonal = warp_largest(largest);
      of_matrix = matrix;
    }

    sync_warp();  // the memory is that of the column before
    Memory memory(own, m);
    const std::int64_t b = column_at(p.b, p.batch, row, j);
    const double mu = load(p.mu, column_at(p.mu, p.batch, row, j));
    double largest = 0;
    bool finite = mu > 0 && mu < infinity;
    for (int i = lane(); i < m; i += warp_size) {
      const double value = load(p.b, b + i * p.b.down);
      memory.b[i] = value;
      largest = fabs(value) > largest ? fabs(value) : largest;
      finite &= fabs(value) < infinity;
    }
    largest = warp_largest(largest);
    const Unit unit(largest);
    for (int i = lane(); i < m; i += warp_size) memory.b[i] *= unit.down;
    if constexpr (prior) {
      const std::int64_t from = column_at(p.prior, p.batch, row, j);
      for (int e = lane(); e < n; e += warp_size) {
        const double value = load(p.prior, from + bank.entries[e].column * p.prior.down);
        memory.weights[e] = value * unit.down;
        finite &= value >= 0 && value < infinity;
      }
    }
    if (!warp_all(finite)) {
      finish(nullptr, 1, Outcome::failed);
      continue;
    }
    sync_warp();

    if constexpr (prior) {
      const NewtonColumn column{mu * unit.down, 1, largest * unit.down};
      settings.careful = false;
      Newton<true, Memory> newton(bank, settings, column, memory);
      if (newton.run() == Outcome::entropy) {
        finish(newton.dual(), column.unit, Outcome::entropy);
        continue;
      }
    }
    const NewtonColumn column{mu, unit.up, largest * unit.down};
    for (int attempt = 0; attempt < 2; ++attempt) {
      settings.careful = attempt > 0;
      Newton<false, Memory> newton(bank, settings, column, memory);
      const Outcome how = newton.run();
      if (how == Outcome::failed && attempt == 0) continue;
      finish(newton.dual(), column.unit, how);
      break;
    }
  }
}

// ---- from λ to x

inline constexpr int write_threads = 128, write_slice = 64;

// x of a stretch, whose dual and outcome are there. A block has 128 columns and 64 entries of the bank, a thread a
// column, or the other way round: whichever lies side by side in memory.
template <bool prior>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(write_threads, 8)
    write_x(NNLSProblem p, Stretch stretch, Banks banks, Choice choice, bool columns_beside) {
  const int usable = choice.banks();
  if (usable == 0) return;
  const std::int64_t across = columns_beside ? p.k : p.n, along = columns_beside ? p.n : p.k;
  const std::int64_t tiles = (across + write_threads - 1) / write_threads;
  const std::int64_t slices = (along + write_slice - 1) / write_slice;
  for (std::int64_t item = block(); item < stretch.rows * tiles * slices; item += blocks()) {
    const std::int64_t row = stretch.first_row + item / (tiles * slices);
    const std::int64_t own = item % tiles * write_threads + thread(), first = item / tiles % slices * write_slice;
    if (own >= across) continue;
    const Banks::Bank bank = banks.bank(row / p.sharing - stretch.first_matrix);
    const double* const dual = p.dual.row(p.batch, row);
    const Outcome* const outcome = p.outcome ? p.outcome.row(p.batch, row) : nullptr;
    const std::int64_t x = p.x.row(p.batch, row), weights = prior ? p.prior.row(p.batch, row) : 0;
    const auto dual_at = [&](std::int64_t i, std::int64_t j) {
      return i < p.m ? dual[i * p.dual.down + j * p.dual.step] : 0.0;
    };
    const auto write = [&](const Banks::Entry& entry, std::int64_t j) {
      const double v = entry.p * dual_at(entry.segment, j) + entry.q * dual_at(entry.segment + 1, j);
      double value = v <= 0 ? 0.0 : v;
      if constexpr (prior) {
        if (outcome[j * p.outcome.step] == Outcome::entropy) {
          value = load(p.prior, weights + entry.column * p.prior.down + j * p.prior.step) * exponential(v);
        }
      }
      if (p.m == 0 && outcome[j * p.outcome.step] == Outcome::failed) value = not_a_number;  // no λ to bring it
      store(p.x, x + entry.column * p.x.down + j * p.x.step, value);
    };
    const auto entry_at = [&](std::int64_t e) {
      return usable > 0 ? bank.entries[e] : Banks::Entry{not_a_number, not_a_number, static_cast<int>(e), 0};
    };
    const std::int64_t last = minimum(first + write_slice, along);
    if (columns_beside) {
      for (std::int64_t e = first; e < last; ++e) write(entry_at(e), own);
    } else {
      const Banks::Entry entry = entry_at(own);
      for (std::int64_t j = first; j < last; ++j) write(entry, j);
    }
  }
}

}  // namespace torch_iir::cuda
