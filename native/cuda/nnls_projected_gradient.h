// Non-negative least squares with any matrix, by accelerated projected gradients (Beck and Teboulle, SIAM J. Imaging
// Sciences 2, 2009) with adaptive restarts (O'Donoghue and Candès, Found. Comput. Math. 15, 2015):
//
//   x⁺ = max(y − ∇(y) / (D + μ), 0),   y⁺ = x⁺ + β (x⁺ − x),   D = c |A|ᵀ|A| 1 ≥ AᵀA
//
// The gradient is taken at x, where the stopping rule needs it; that at y follows from the last two, as it is linear.
//
// Gradients alone take hundreds or thousands of steps to many digits. After a few of them, and again whenever they have
// cost about as much, up to ten Newton steps on the entries x > 0 are taken, bent at the bounds (Lawson and Hanson,
// 1974; Bertsekas, SIAM J. Control and Optimization 20, 1982); what should grow again shows in the gradient steps after
// them. Where there are many solutions these find one, not the one of least norm; that is computed, by Newton's method
// on the dual problem, only when the tolerance is so small that it tells them apart.
//
// A block to each column, with steps, constants and rules of stopping of the kernel for the CPU
// (native/cpu/nnls_projected_gradient.h); sums are in another order. Counted, not measured, for 128 × 1025: a gradient
// step reads A twice, 1 MB of the second cache in float32; a Newton step computes a factor of 8.4 · 10⁶ multiply-adds,
// some 10⁵ cycles of a multiprocessor, which is where the time goes.
#pragma once

#include "nnls_dense.h"

namespace torch_iir::cuda {

// What the steps and the stopping rule need of the matrices of a stretch.
struct GradientMatrices {
  double* norm;   // of each: the largest eigenvalue of AᵀA; nan for one that is not finite
  double* curve;  // D, n for each
  double* work;   // 2 n + m for each block

  static TORCH_IIR_HOST_DEVICE constexpr std::int64_t work_doubles(std::int64_t m, std::int64_t n) { return 2 * n + m; }
};

// Of diag(scale) AᵀA diag(scale), by power iteration, to about a percent.
TORCH_IIR_GPU double largest_eigenvalue(const DenseMatrix& a, DenseShared& shared, const double* scale, double* vector,
                                        double* product) {
  double value = 0, length = 0;
  for (std::int64_t j = thread(); j < a.n; j += threads()) {
    vector[j] = scale[j] * (1 + 0.1 * static_cast<double>(j * 7 % 11));
    length += vector[j] * vector[j];
  }
  length = block_sum(shared, length);
  for (int i = 0; i < 60; ++i) {
    const double before = value;
    for (std::int64_t j = thread(); j < a.n; j += threads()) vector[j] *= scale[j];
    sync();
    a.times(vector, product);
    double energy = 0;
    for (std::int64_t row = thread(); row < a.m; row += threads()) energy += product[row] * product[row];
    energy = block_sum(shared, energy);
    if (!(energy > 0)) return 0;
    value = energy / length;
    if (value - before < 1e-3 * value) break;
    a.transposed_times(product, vector);
    length = 0;
    for (std::int64_t j = thread(); j < a.n; j += threads()) {
      vector[j] *= scale[j] / sqrt(energy);
      length += vector[j] * vector[j];
    }
    length = block_sum(shared, length);
  }
  sync();
  return value;
}

// A block to each matrix.
static TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(most_dense_threads, 2)
    gradient_matrices(NNLSProblem p, Stretch stretch, Choice choice, GradientMatrices matrices) {
  if (!choice.any()) return;
  auto& shared = *reinterpret_cast<DenseShared*>(shared_memory());
  const std::int64_t m = p.m, n = p.n;
  double* const own = matrices.work + block() * GradientMatrices::work_doubles(m, n);
  double *const scale = own, *const vector = scale + n, *const product = vector + n;
  for (std::int64_t matrix = block(); matrix < stretch.matrices; matrix += blocks()) {
    const DenseMatrix a{p.a, p.a.row(p.batch, (stretch.first_matrix + matrix) * p.sharing), m, n};
    double* const curve = matrices.curve + matrix * n;
    bool finite = true, positive = true;
    for (std::int64_t i = warp(); i < m; i += threads() / warp_size) {
      double sum = 0;
      for (std::int64_t j = lane(); j < n; j += warp_size) {
        const double value = a(i, j);
        finite &= isfinite(value);
        positive &= value >= 0;
        sum += fabs(value);
      }
      sum = warp_sum(sum);
      if (lane() == 0) product[i] = sum;
    }
    finite = !sync_any(!finite);
    positive = !sync_any(!positive);
    double norm = not_a_number;
    if (finite) {
      a.transposed_times<true>(product, curve);
      for (std::int64_t j = thread(); j < n; j += threads()) scale[j] = 1;
      norm = largest_eigenvalue(a, shared, scale, vector, product);
      if (!positive) {  // else D⁻¹AᵀA has rows that sum to 1, and so the largest eigenvalue 1
        for (std::int64_t j = thread(); j < n; j += threads()) scale[j] = curve[j] > 0 ? 1 / sqrt(curve[j]) : 0;
        const double share = 1.1 * largest_eigenvalue(a, shared, scale, vector, product);  // it is from below
        for (std::int64_t j = thread(); j < n; j += threads()) curve[j] *= share < 1 ? share : 1;
      }
    }
    if (thread() == 0) matrices.norm[matrix] = norm;
    sync();
  }
}

class ProjectedGradient {
 public:
  static TORCH_IIR_HOST_DEVICE constexpr std::int64_t doubles(std::int64_t m, std::int64_t n) {
    return WeightedSystem::doubles(m, n) + 8 * n + 5 * m;
  }
  TORCH_IIR_GPU ProjectedGradient(const NNLSProblem& call, const DenseMatrix& a, DenseShared& shared, double norm,
                                  const double* curve, double* memory)
      : call_(call), a_(a), shared_(shared), norm_(norm), curve_(curve), system_(a, shared, memory) {
    memory += WeightedSystem::doubles(a.m, a.n);
    for (double** vector : {&x_, &last_x_, &gradient_, &slope_, &weight_, &p_, &step_, &work_}) {
      *vector = memory;
      memory += a.n;
    }
    for (double** vector : {&b_, &rest_, &dual_, &product_, &u_}) {
      *vector = memory;
      memory += a.m;
    }
  }

  TORCH_IIR_GPU void run(std::int64_t row, std::int64_t j) {
    const std::int64_t m = a_.m, n = a_.n, least = minimum(m, n);
    const std::int64_t b = column_at(call_.b, call_.batch, row, j);
    mu_ = load(call_.mu, column_at(call_.mu, call_.batch, row, j));
    bool finite = norm_ == norm_ && mu_ > 0 && mu_ < infinity;
    double largest = 0;
    for (std::int64_t i = thread(); i < m; i += threads()) {
      b_[i] = load(call_.b, b + i * call_.b.down);
      finite &= isfinite(b_[i]);
      largest = fabs(b_[i]) > largest ? fabs(b_[i]) : largest;
    }
    largest = block_largest(shared_, largest);
    if (sync_any(!finite)) {
      write(row, j, not_a_number, x_, not_a_number, rest_, Outcome::failed);
      return;
    }
    scale_ = largest > 0 ? largest : 1;
    for (std::int64_t i = thread(); i < m; i += threads()) b_[i] /= scale_;
    for (std::int64_t i = thread(); i < n; i += threads()) x_[i] = last_x_[i] = gradient_[i] = 0;
    sync();
    a_.transposed_times<true>(b_, work_);
    size_ = 0;
    for (std::int64_t i = thread(); i < n; i += threads()) size_ = work_[i] > size_ ? work_[i] : size_;
    size_ = block_largest(shared_, size_);

    const std::int64_t first_newton = maximum<std::int64_t>(least / 3, 8);
    const std::int64_t between_newton = maximum<std::int64_t>(least / 3, 2);
    iteration_ = 0;
    least_norm_at_ = 0;
    t_ = 1;
    for (std::int64_t newton_at = first_newton;;) {
      residual();
      const bool valid = step();
      const bool solved = error_ <= call_.tolerance * size_;
      if (solved || !valid || iteration_ >= call_.max_iterations) {  // the x that was judged, not the one after it
        const double scale = valid ? scale_ : not_a_number;
        write(row, j, scale, last_x_, -scale / mu_, rest_, solved && valid ? Outcome::solved : Outcome::failed);
        return;
      }
      if (++iteration_ >= newton_at) {
        newton();
        newton_at = iteration_ + between_newton;
      }
    }
  }

 private:
  TORCH_IIR_GPU void write(std::int64_t row, std::int64_t j, double x_scale, const double* x, double dual_scale,
                           const double* dual, Outcome outcome) {
    const bool known = x_scale == x_scale;
    const std::int64_t to_x = column_at(call_.x, call_.batch, row, j);
    for (std::int64_t i = thread(); i < a_.n; i += threads()) {
      store(call_.x, to_x + i * call_.x.down, known ? x_scale * x[i] : not_a_number);
    }
    if (call_.dual) {
      double* const to = column_at(call_.dual, call_.batch, row, j);
      for (std::int64_t i = thread(); i < a_.m; i += threads()) {
        to[i * call_.dual.down] = known ? dual_scale * dual[i] : not_a_number;
      }
    }
    if (call_.outcome && thread() == 0) *column_at(call_.outcome, call_.batch, row, j) = outcome;
    sync();
  }

  // rest = A x − b
  TORCH_IIR_GPU void residual() {
    a_.times(x_, rest_);
    for (std::int64_t i = thread(); i < a_.m; i += threads()) rest_[i] -= b_[i];
    sync();
  }

  // From x and rest: the gradient, what the stopping rule says of x, and the next x. False: something is nan.
  TORCH_IIR_GPU bool step() {
    const double next_t = 0.5 + sqrt(0.25 + t_ * t_), beta = (t_ - 1) / next_t;
    a_.transposed_times(rest_, work_);
    double error = 0, restart = 0;
    for (std::int64_t j = thread(); j < a_.n; j += threads()) {
      const double x = x_[j], gradient = work_[j] + mu_ * x, bound = norm_ * x;
      const double least = bound < gradient ? bound : gradient;
      error = fabs(least) > error ? fabs(least) : error;
      const double y = x + beta * (x - last_x_[j]), slope = gradient + beta * (gradient - gradient_[j]);
      const double curve = curve_[j] + mu_;
      double next = y - slope / curve;
      next = next < 0 ? 0 : next;
      restart += curve * (y - next) * (next - x);
      last_x_[j] = next;
      gradient_[j] = gradient;
    }
    double* const now = x_;
    x_ = last_x_;
    last_x_ = now;
    error_ = block_largest(shared_, error);
    restart = block_sum(shared_, restart);
    t_ = restart > 0 ? 1 : next_t;
    sync();
    return restart == restart;
  }

  // From x to a better one.
  TORCH_IIR_GPU void newton() {
    double largest = 0, distance = 0;
    for (std::int64_t i = thread(); i < a_.m; i += threads()) {
      distance = fabs(rest_[i]) > distance ? fabs(rest_[i]) : distance;
    }
    for (std::int64_t j = thread(); j < a_.n; j += threads()) largest = x_[j] > largest ? x_[j] : largest;
    distance = block_largest(shared_, distance);
    largest = block_largest(shared_, largest);
    // Where the gradient is no more than μ x, only the norm is left to reduce. With A x = b, but for μ, x is far from
    // the least one.
    const bool norm_is_left = error_ < 4 * mu_ * largest;
    const bool reached = norm_is_left && sqrt(norm_) * distance < 1e5 * mu_ * largest;
    if (!(reached && iteration_ >= least_norm_at_ && least_norm())) {
      descend(norm_is_left ? 0 : 3e-4 * sqrt(error_ / size_) * norm_);
    }
    t_ = 1;
  }

  // Towards the minimum over the support of x, until no bound is in the way. Every step descends, or drops an entry.
  // The damping keeps steps short where x is one of many solutions: the one of least norm is on the far side of many
  // bounds.
  TORCH_IIR_GPU void descend(double damping) {
    bool inside = false;
    for (int i = 0; i < 10 && !inside && iteration_ < call_.max_iterations; ++i, ++iteration_) {
      a_.times(x_, product_);
      for (std::int64_t k = thread(); k < a_.m; k += threads()) dual_[k] = b_[k] - product_[k];
      sync();
      a_.transposed_times(dual_, slope_);
      for (std::int64_t j = thread(); j < a_.n; j += threads()) {
        slope_[j] = mu_ * x_[j] - slope_[j];
        weight_[j] = x_[j] > 0 ? 1 : 0;
        work_[j] = mu_ / (mu_ + damping) * x_[j];
      }
      sync();
      system_.factor(weight_, mu_ + damping);
      system_.solve(work_, dual_, u_, p_);
      double reach = 1;  // how far it is to the first bound
      for (std::int64_t j = thread(); j < a_.n; j += threads()) {
        if (p_[j] > x_[j] && x_[j] < reach * p_[j]) reach = x_[j] / p_[j];
      }
      reach = reduce<Reduction::least>(shared_, reach);
      inside = reach == 1;
      double alpha = 1;
      while (alpha > reach && !descends(alpha)) alpha = alpha > 0.01 ? alpha / 2 : reach;
      if (alpha < reach) alpha = reach;
      for (std::int64_t j = thread(); j < a_.n; j += threads()) {
        const bool dropped = p_[j] > 0 && x_[j] / p_[j] <= alpha;  // without rounding: one always is
        x_[j] = dropped ? 0 : x_[j] - alpha * p_[j];
      }
      sync();
    }
  }

  // Whether the objective is less at max(x − alpha p, 0), by its difference, which is not lost in its value.
  TORCH_IIR_GPU bool descends(double alpha) {
    double change = 0;
    for (std::int64_t j = thread(); j < a_.n; j += threads()) {
      const double next = x_[j] - alpha * p_[j], step = (next > 0 ? next : 0) - x_[j];
      step_[j] = step;
      change += step * (slope_[j] + 0.5 * mu_ * step);
    }
    sync();
    a_.times(step_, product_);
    for (std::int64_t i = thread(); i < a_.m; i += threads()) change += 0.5 * product_[i] * product_[i];
    const bool result = block_sum(shared_, change) < 0;
    sync();
    return result;
  }

  // The solution itself, by a damped Newton method on the dual problem: min ½|(Aᵀλ)₊|² + ½ μ|λ|² − bᵀλ, whose gradient
  // is A x + μλ − b with x = (Aᵀλ)₊. False: it was not found, and x is what it was.
  TORCH_IIR_GPU bool least_norm() {
    double damping = 0, objective = 0;
    for (std::int64_t k = thread(); k < a_.m; k += threads()) dual_[k] = 0;
    for (std::int64_t j = thread(); j < a_.n; j += threads()) {
      weight_[j] = x_[j] > 0 ? 1 : 0;
      step_[j] = 0;
    }
    sync();
    for (int i = 0; i < 50 && iteration_ < call_.max_iterations; ++i, ++iteration_) {
      for (std::int64_t k = thread(); k < a_.m; k += threads()) product_[k] = b_[k] + damping * dual_[k];
      sync();
      system_.factor(weight_, mu_ + damping);
      system_.solve(step_, product_, u_, p_);
      a_.transposed_times(u_, work_);
      double next = 0, slope = 0;
      bool differs = damping != 0;
      for (std::int64_t j = thread(); j < a_.n; j += threads()) {
        work_[j] = work_[j] > 0 ? work_[j] : 0;
        next += 0.5 * work_[j] * work_[j];
        differs |= (work_[j] > 0) != (weight_[j] > 0);
      }
      if (!sync_any(differs)) {
        for (std::int64_t j = thread(); j < a_.n; j += threads()) x_[j] = work_[j];
        sync();
        return true;
      }
      a_.times(work_, product_);
      for (std::int64_t k = thread(); k < a_.m; k += threads()) {
        next += u_[k] * (0.5 * mu_ * u_[k] - b_[k]);
        slope += (product_[k] + mu_ * u_[k] - b_[k]) * (u_[k] - dual_[k]);
      }
      next = block_sum(shared_, next);
      slope = block_sum(shared_, slope);
      sync();
      if (next < objective || slope <= 0) {
        for (std::int64_t k = thread(); k < a_.m; k += threads()) dual_[k] = u_[k];
        for (std::int64_t j = thread(); j < a_.n; j += threads()) weight_[j] = work_[j] > 0 ? 1 : 0;
        objective = next;
        damping = damping < 1e-7 * norm_ ? 0 : damping / 10;
      } else {
        damping = damping > 0 ? 10 * damping : 1e-4 * norm_;
      }
      sync();
    }
    least_norm_at_ = 2 * iteration_;
    return false;
  }

  const NNLSProblem& call_;
  const DenseMatrix& a_;
  DenseShared& shared_;
  const double norm_;
  const double* const curve_;
  WeightedSystem system_;
  double *x_, *last_x_, *gradient_, *slope_, *weight_, *p_, *step_, *work_;
  double *b_, *rest_, *dual_, *product_, *u_;
  std::int64_t iteration_ = 0, least_norm_at_ = 0;
  double scale_ = 1, size_ = 0;  // max |b|, then max |A|ᵀ|b|
  double t_ = 1, mu_ = 1, error_ = 0;
};

static TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(most_dense_threads, 2)
    projected_gradient(NNLSProblem p, Stretch stretch, Choice choice, GradientMatrices matrices, double* memory) {
  if (!choice.any()) return;
  auto& shared = *reinterpret_cast<DenseShared*>(shared_memory());
  double* const own = memory + block() * ProjectedGradient::doubles(p.m, p.n);
  for (std::int64_t number = block(); number < stretch.rows * p.k; number += blocks()) {
    const std::int64_t row = stretch.first_row + number / p.k;
    const std::int64_t matrix = row / p.sharing - stretch.first_matrix;
    const DenseMatrix a{p.a, p.a.row(p.batch, row), p.m, p.n};
    ProjectedGradient(p, a, shared, matrices.norm[matrix], matrices.curve + matrix * p.n, own).run(row, number % p.k);
  }
}

}  // namespace torch_iir::cuda
