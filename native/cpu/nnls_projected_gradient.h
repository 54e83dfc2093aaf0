// Non-negative least squares with any matrix, by accelerated projected gradients (Beck and Teboulle, SIAM J. Imaging
// Sciences 2, 2009) with adaptive restarts (O'Donoghue and Candès, Found. Comput. Math. 15, 2015):
//
//   x⁺ = max(y − ∇(y) / (D + μ), 0),   y⁺ = x⁺ + β (x⁺ − x),   D = c |A|ᵀ|A| 1 ≥ AᵀA
//
// A column stands in each lane, and a lane whose column is done takes the next one. The gradient is taken at x, where
// the stopping rule needs it; that at y follows from the last two, as it is linear.
//
// Gradients alone take hundreds or thousands of steps to many digits. After a few of them, and again whenever they have
// cost about as much, up to ten Newton steps on the entries x > 0 are taken, bent at the bounds (Lawson and Hanson,
// 1974; Bertsekas, SIAM J. Control and Optimization 20, 1982); what should grow again shows in the gradient steps after
// them. Where there are many solutions these find one, not the one of least norm; that is computed, by Newton's method
// on the dual problem, only when the tolerance is so small that it tells them apart.
#pragma once

#include "nnls_dense.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

// A matrix with what the steps and the stopping rule need of it.
class GradientMatrix : public DenseMatrix {
 public:
  double norm;          // the largest eigenvalue of AᵀA
  const double* curve;  // D

  GradientMatrix(std::int64_t rows, std::int64_t columns)
      : DenseMatrix(rows, columns),
        norm(0),
        work_(3 * Scratch::bytes<double>(padded(n)) + Scratch::bytes<double>(padded(m))) {
    for (double** piece : {&curve_, &scale_, &vector_}) *piece = work_.take<double>(padded(n));
    product_ = work_.take<double>(padded(m));
    curve = curve_;
  }
  explicit operator bool() const { return DenseMatrix::operator bool() && work_; }

  void pack(const Matrices<const double>& a, const Batch& batch, std::int64_t row) {
    if (!DenseMatrix::pack(a, batch, row) || !finite) return;
    bool positive = true;
    for (std::int64_t i = 0; i < padded(m); ++i) {
      double& sum = product_[i] = 0;
      for (std::int64_t j = 0; j < n; ++j) {
        const double value = panels.panel(i / panel_rows)[j * panel_rows + i % panel_rows];
        positive &= value >= 0;
        sum += __builtin_fabs(value);
      }
    }
    transposed_times<true>(panels, product_, curve_);
    for (std::int64_t j = 0; j < padded(n); ++j) scale_[j] = 1;
    norm = largest_eigenvalue();
    if (positive) return;  // D⁻¹AᵀA has rows that sum to 1, and so the largest eigenvalue 1
    for (std::int64_t j = 0; j < padded(n); ++j) scale_[j] = curve_[j] > 0 ? 1 / __builtin_sqrt(curve_[j]) : 0;
    const double share = 1.1 * largest_eigenvalue();  // the estimate is from below
    for (std::int64_t j = 0; j < n; ++j) curve_[j] *= share < 1 ? share : 1;
  }

 private:
  // Of diag(scale) AᵀA diag(scale), by power iteration, to about a percent.
  double largest_eigenvalue() {
    double value = 0, length = 0;
    for (std::int64_t j = 0; j < padded(n); ++j) {
      vector_[j] = scale_[j] * (1 + 0.1 * static_cast<double>(j * 7 % 11));
      length += vector_[j] * vector_[j];
    }
    for (int i = 0; i < 60; ++i) {
      const double before = value;
      for (std::int64_t j = 0; j < padded(n); ++j) vector_[j] *= scale_[j];
      times(panels, vector_, product_);
      double energy = 0;
      for (std::int64_t row = 0; row < padded(m); ++row) energy += product_[row] * product_[row];
      if (!(energy > 0)) return 0;
      value = energy / length;
      if (value - before < 1e-3 * value) break;
      transposed_times(panels, product_, vector_);
      length = 0;
      for (std::int64_t j = 0; j < padded(n); ++j) {
        vector_[j] *= scale_[j] / __builtin_sqrt(energy);
        length += vector_[j] * vector_[j];
      }
    }
    return value;
  }

  Scratch work_;
  double *curve_, *scale_, *vector_, *product_;
};

template <class Sample>
class ProjectedGradient {
 public:
  static std::size_t bytes(std::int64_t m, std::int64_t n) {
    return WeightedSystem::bytes(m, n) + 3 * Scratch::bytes<double>(padded(n) * lanes) +
           2 * Scratch::bytes<double>(padded(m) * lanes) + 6 * Scratch::bytes<double>(padded(n)) +
           4 * Scratch::bytes<double>(padded(m));
  }
  ProjectedGradient(const NNLS<Sample>& call, const GradientMatrix& a, Scratch& scratch)
      : call_(call), a_(a), m_(padded(a.m)), n_(padded(a.n)), system_(scratch, a) {
    for (double** tile : {&x_, &last_x_, &gradient_}) *tile = zeros(scratch, n_ * lanes);
    for (double** tile : {&b_, &rest_}) *tile = zeros(scratch, m_ * lanes);
    for (double** one : {&one_x_, &one_gradient_, &one_weight_, &one_p_, &one_step_, &one_work_}) {
      *one = zeros(scratch, n_);
    }
    for (double** one : {&one_b_, &one_rest_, &one_product_, &one_u_}) *one = zeros(scratch, m_);
    const std::int64_t least = a.m < a.n ? a.m : a.n;
    first_newton_ = static_cast<int>(least / 3 > 8 ? least / 3 : 8);
    between_newton_ = static_cast<int>(least / 3 > 2 ? least / 3 : 2);
  }

  // The columns [first, last).
  void run(std::int64_t first, std::int64_t last) {
    next_ = first;
    end_ = last;
    busy_ = 0;
    for (int lane = 0; lane < lanes; ++lane) fill(lane);
    while (busy_ > 0) {
      residual();
      step();
      for (int lane = 0; lane < lanes; ++lane) {
        if (number_[lane] < 0) continue;
        const bool solved = error_[lane] <= call_.tolerance * size_[lane], valid = restart_[lane] == restart_[lane];
        if (solved || !valid || iteration_[lane] >= call_.max_iterations) {
          finish(lane, valid, solved && valid ? Outcome::solved : Outcome::failed);
          --busy_;
          fill(lane);
        } else if (++iteration_[lane] >= newton_at_[lane]) {
          newton(lane);
        }
      }
    }
  }

 private:
  static double* zeros(Scratch& scratch, std::int64_t count) {
    double* values = scratch.take<double>(count);
    for (std::int64_t i = 0; i < count; ++i) values[i] = 0;
    return values;
  }

  template <class T>
  T* top(const Rows<T>& operand, std::int64_t number) const {
    return column_of(operand, call_.batch, call_.k, number);
  }

  // The next column into a lane, if there is one.
  void fill(int lane) {
    number_[lane] = -1;
    t_[lane] = mu_[lane] = 1;
    for (; number_[lane] < 0 && next_ < end_; ++next_) {
      const Sample* from = top(call_.b, next_);
      const double mu = *top(call_.mu, next_);
      double zero = mu * 0, largest = 0;
      for (std::int64_t i = 0; i < a_.m; ++i) {
        one_b_[i] = read(from[i * call_.b.down]);
        zero += one_b_[i] * 0;
        const double size = __builtin_fabs(one_b_[i]);
        largest = size > largest ? size : largest;
      }
      if (!(a_.finite && mu > 0 && zero == 0)) {
        write_results(
            next_, [](std::int64_t) { return not_a_number; }, [](std::int64_t) { return not_a_number; },
            Outcome::failed);
        continue;
      }
      number_[lane] = next_;
      mu_[lane] = mu;
      scale_[lane] = largest > 0 ? largest : 1;
      iteration_[lane] = 0;
      newton_at_[lane] = first_newton_;
      least_norm_at_[lane] = 0;
      ++busy_;
    }
    const bool used = number_[lane] >= 0;
    for (std::int64_t i = 0; i < a_.m; ++i) {
      b_[i * lanes + lane] = one_b_[i] = used ? one_b_[i] / scale_[lane] : 0;
    }
    for (std::int64_t j = 0; j < n_; ++j) x_[j * lanes + lane] = 0;
    if (!used) return;
    transposed_times<true>(a_.panels, one_b_, one_work_);
    double largest = 0;
    for (std::int64_t j = 0; j < n_; ++j) largest = one_work_[j] > largest ? one_work_[j] : largest;
    size_[lane] = largest;
  }

  template <class X, class Dual>
  void write_results(std::int64_t number, X x, Dual dual, Outcome outcome) {
    Sample* to_x = top(call_.x, number);
    for (std::int64_t j = 0; j < a_.n; ++j) write(to_x[j * call_.x.down], x(j));
    double* to_dual = top(call_.dual, number);
    for (std::int64_t i = 0; to_dual != nullptr && i < a_.m; ++i) to_dual[i * call_.dual.down] = dual(i);
    if (call_.outcome) *top(call_.outcome, number) = outcome;
  }

  // The x that was judged, not the one after it.
  void finish(int lane, bool valid, Outcome outcome) {
    const double scale = valid ? scale_[lane] : not_a_number, dual_scale = -scale / mu_[lane];
    write_results(
        number_[lane], [&](std::int64_t j) { return scale * last_x_[j * lanes + lane]; },
        [&](std::int64_t i) { return dual_scale * rest_[i * lanes + lane]; }, outcome);
  }

  // rest = A x − b
  void residual() {
    for (std::int64_t p = 0; p < a_.panels.count; ++p) {
      const double* from = a_.panels.panel(p);
      Doubles sum[panel_rows][2];
#pragma GCC unroll 16
      for (int i = 0; i < 2 * panel_rows; ++i) {
        sum[i / 2][i % 2] = -load<Doubles>(b_ + p * panel_rows * lanes + i * width);
      }
      for (std::int64_t j = 0; j < n_; ++j) {
        const Pair x = load_pair(x_ + j * lanes);
#pragma GCC unroll 8
        for (int r = 0; r < panel_rows; ++r) {
          const Doubles factor = everywhere(from[j * panel_rows + r]);
          sum[r][0] += factor * x.low;
          sum[r][1] += factor * x.high;
        }
      }
#pragma GCC unroll 16
      for (int i = 0; i < 2 * panel_rows; ++i) {
        store(rest_ + p * panel_rows * lanes + i * width, sum[i / 2][i % 2]);
      }
    }
  }

  // From x and rest: the gradient, what the stopping rule says of x, and the next x.
  void step() {
    alignas(64) double beta[lanes], next_t[lanes];
    for (int lane = 0; lane < lanes; ++lane) {
      next_t[lane] = 0.5 + __builtin_sqrt(0.25 + t_[lane] * t_[lane]);
      beta[lane] = (t_[lane] - 1) / next_t[lane];
    }
    Doubles error[2] = {}, restart[2] = {};
    for (std::int64_t j = 0; j < n_; j += panel_rows) {
      Doubles sum[panel_rows][2] = {};
      for (std::int64_t p = 0; p < a_.panels.count; ++p) {
        const double *from = a_.panels.panel(p) + j * panel_rows, *rest = rest_ + p * panel_rows * lanes;
#pragma GCC unroll 2
        for (int r = 0; r < panel_rows; ++r) {
          const Pair value = load_pair(rest + r * lanes);
#pragma GCC unroll 8
          for (int c = 0; c < panel_rows; ++c) {
            const Doubles factor = everywhere(from[c * panel_rows + r]);
            sum[c][0] += factor * value.low;
            sum[c][1] += factor * value.high;
          }
        }
      }
#pragma GCC unroll 16
      for (int i = 0; i < 2 * panel_rows; ++i) {
        const int c = i / 2, v = i % 2;
        const std::int64_t at = (j + c) * lanes + v * width;
        const Doubles mu = load<Doubles>(mu_ + v * width), b = load<Doubles>(beta + v * width);
        const Doubles x = load<Doubles>(x_ + at), gradient = sum[c][v] + mu * x, bound = everywhere(a_.norm) * x;
        const Doubles least = bound < gradient ? bound : gradient;
        error[v] = larger(magnitude(least), error[v]);
        const Doubles y = x + b * (x - load<Doubles>(last_x_ + at));
        const Doubles slope = gradient + b * (gradient - load<Doubles>(gradient_ + at));
        const Doubles curve = everywhere(a_.curve[j + c]) + mu;
        Doubles next = y - slope / curve;
        next = next < 0 ? Doubles{} : next;
        restart[v] += curve * (y - next) * (next - x);
        store(last_x_ + at, next);
        store(gradient_ + at, gradient);
      }
    }
    double* const now = x_;
    x_ = last_x_;
    last_x_ = now;
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      store(error_ + v * width, error[v]);
      store(restart_ + v * width, restart[v]);
    }
    for (int lane = 0; lane < lanes; ++lane) t_[lane] = restart_[lane] > 0 ? 1 : next_t[lane];
  }

  // From x in the lane to a better one.
  void newton(int lane) {
    const double mu = mu_[lane];
    double largest = 0, distance = 0;
    for (std::int64_t i = 0; i < m_; ++i) {
      one_b_[i] = b_[i * lanes + lane];
      const double size = __builtin_fabs(rest_[i * lanes + lane]);
      distance = size > distance ? size : distance;
    }
    for (std::int64_t j = 0; j < n_; ++j) {
      one_x_[j] = x_[j * lanes + lane];
      largest = one_x_[j] > largest ? one_x_[j] : largest;
    }
    // Where the gradient is no more than μ x, only the norm is left to reduce. With A x = b, but for μ, x is far from
    // the least one.
    const bool norm_is_left = error_[lane] < 4 * mu * largest;
    const bool reached = norm_is_left && __builtin_sqrt(a_.norm) * distance < 1e5 * mu * largest;
    if (!(reached && iteration_[lane] >= least_norm_at_[lane] && least_norm(lane, mu))) {
      descend(lane, mu, norm_is_left ? 0 : 3e-4 * __builtin_sqrt(error_[lane] / size_[lane]) * a_.norm);
    }
    for (std::int64_t j = 0; j < a_.n; ++j) x_[j * lanes + lane] = one_x_[j];
    t_[lane] = 1;
    newton_at_[lane] = iteration_[lane] + between_newton_;
  }

  // Towards the minimum over the support of x, until no bound is in the way. Every step descends, or drops an entry.
  // The damping keeps steps short where x is one of many solutions: the one of least norm is on the far side of many
  // bounds.
  void descend(int lane, double mu, double damping) {
    bool inside = false;
    for (int i = 0; i < 10 && !inside && iteration_[lane] < call_.max_iterations; ++i, ++iteration_[lane]) {
      times(a_.panels, one_x_, one_product_);
      for (std::int64_t k = 0; k < m_; ++k) one_rest_[k] = one_b_[k] - one_product_[k];
      transposed_times(a_.panels, one_rest_, one_gradient_);
      for (std::int64_t j = 0; j < n_; ++j) {
        one_gradient_[j] = mu * one_x_[j] - one_gradient_[j];
        one_weight_[j] = one_x_[j] > 0;
        one_work_[j] = mu / (mu + damping) * one_x_[j];
      }
      system_.factor(one_weight_, mu + damping);
      system_.solve(one_work_, one_rest_, one_u_, one_p_);
      double reach = 1;  // how far it is to the first bound
      for (std::int64_t j = 0; j < a_.n; ++j) {
        if (one_p_[j] > one_x_[j] && one_x_[j] < reach * one_p_[j]) reach = one_x_[j] / one_p_[j];
      }
      inside = reach == 1;
      double alpha = 1;
      while (alpha > reach && !descends(alpha, mu)) alpha = alpha > 0.01 ? alpha / 2 : reach;
      if (alpha < reach) alpha = reach;
      for (std::int64_t j = 0; j < a_.n; ++j) {
        const bool dropped = one_p_[j] > 0 && one_x_[j] / one_p_[j] <= alpha;  // without rounding: one always is
        one_x_[j] = dropped ? 0 : one_x_[j] - alpha * one_p_[j];
      }
    }
  }

  // Whether the objective is less at max(x − alpha p, 0), by its difference, which is not lost in its value.
  bool descends(double alpha, double mu) {
    double change = 0;
    for (std::int64_t j = 0; j < a_.n; ++j) {
      const double next = one_x_[j] - alpha * one_p_[j], step = (next > 0 ? next : 0) - one_x_[j];
      one_step_[j] = step;
      change += step * (one_gradient_[j] + 0.5 * mu * step);
    }
    times(a_.panels, one_step_, one_product_);
    for (std::int64_t i = 0; i < a_.m; ++i) change += 0.5 * one_product_[i] * one_product_[i];
    return change < 0;
  }

  // The solution itself, by a damped Newton method on the dual problem: min ½|(Aᵀλ)₊|² + ½ μ|λ|² − bᵀλ, whose gradient
  // is A x + μλ − b with x = (Aᵀλ)₊. False: it was not found, and x is what it was.
  bool least_norm(int lane, double mu) {
    double* const dual = one_rest_;
    double damping = 0, objective = 0;
    for (std::int64_t k = 0; k < m_; ++k) dual[k] = 0;
    for (std::int64_t j = 0; j < n_; ++j) {
      one_weight_[j] = one_x_[j] > 0;
      one_step_[j] = 0;
    }
    for (int i = 0; i < 50 && iteration_[lane] < call_.max_iterations; ++i, ++iteration_[lane]) {
      for (std::int64_t k = 0; k < m_; ++k) one_product_[k] = one_b_[k] + damping * dual[k];
      system_.factor(one_weight_, mu + damping);
      system_.solve(one_step_, one_product_, one_u_, one_p_);
      transposed_times(a_.panels, one_u_, one_work_);
      double next = 0, slope = 0;
      bool same = damping == 0;
      for (std::int64_t j = 0; j < n_; ++j) {
        one_work_[j] = one_work_[j] > 0 ? one_work_[j] : 0;
        next += 0.5 * one_work_[j] * one_work_[j];
        same &= (one_work_[j] > 0) == (one_weight_[j] > 0);
      }
      if (same) {
        for (std::int64_t j = 0; j < n_; ++j) one_x_[j] = one_work_[j];
        return true;
      }
      times(a_.panels, one_work_, one_product_);
      for (std::int64_t k = 0; k < m_; ++k) {
        next += one_u_[k] * (0.5 * mu * one_u_[k] - one_b_[k]);
        slope += (one_product_[k] + mu * one_u_[k] - one_b_[k]) * (one_u_[k] - dual[k]);
      }
      if (next < objective || slope <= 0) {
        for (std::int64_t k = 0; k < m_; ++k) dual[k] = one_u_[k];
        for (std::int64_t j = 0; j < n_; ++j) one_weight_[j] = one_work_[j] > 0;
        objective = next;
        damping = damping < 1e-7 * a_.norm ? 0 : damping / 10;
      } else {
        damping = damping > 0 ? 10 * damping : 1e-4 * a_.norm;
      }
    }
    least_norm_at_[lane] = 2 * iteration_[lane];
    return false;
  }

  const NNLS<Sample>& call_;
  const GradientMatrix& a_;
  const std::int64_t m_, n_;
  WeightedSystem system_;
  int first_newton_, between_newton_;
  std::int64_t next_, end_;
  int busy_;
  double *x_, *last_x_, *gradient_, *b_, *rest_;  // tiles
  double *one_x_, *one_gradient_, *one_weight_, *one_p_, *one_step_, *one_work_, *one_b_, *one_rest_, *one_product_,
      *one_u_;

  std::int64_t number_[lanes];  // of the column; −1: none
  int iteration_[lanes], newton_at_[lanes], least_norm_at_[lanes];
  double scale_[lanes], size_[lanes];  // max |b|, then max |A|ᵀ|b|
  alignas(64) double t_[lanes], mu_[lanes], error_[lanes], restart_[lanes];
};

template <class Sample>
Status projected_gradient(const NNLS<Sample>& call, const ParallelFor& parallel_for) {
  const auto work = [&](const GradientMatrix& a, std::int64_t first, std::int64_t last) {
    Scratch scratch(ProjectedGradient<Sample>::bytes(a.m, a.n));
    if (!scratch) return false;
    ProjectedGradient<Sample>(call, a, scratch).run(first, last);
    return true;
  };
  return for_matrices<GradientMatrix>(call.batch, call.a, call.m, call.n, call.k, 2 * lanes, parallel_for, work);
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
