// Non-negative least squares for batches of columns, its maximum-entropy relative, and the linear system of both
// derivatives.
//
//   x = argmin ½|A x − b|² + ½ μ |x|²  over x ≥ 0          λ = (b − A x) / μ,  x = max(Aᵀλ, 0)
//
// As μ → 0, x tends to the solution of least norm, which is unique. With a prior w ≥ 0, in its place
//
//   x = w · exp(Aᵀλ),  A x + μ λ = b
//
// which in the limit has the least relative entropy Σ x log(x / w) − x + w among all x with A x = b.
//
// Shapes      a: batch × m × n;  b, dual: batch × m × k;  x, prior: batch × n × k;  mu, outcome: batch × k. Each of
//             the k columns of b is a problem of its own
// Solvers     newton: for a ≥ 0 with at most two entries in a column, and these in adjacent rows (a bank of mel
//             filters): A D Aᵀ is then tridiagonal for every diagonal D, and a damped Newton method on the dual
//             problem costs O(m + n) a step. projected_gradient: any a, no prior; accelerated, with restarts and
//             diagonal steps; O(m n) a step. automatic: newton where all of a allow it. The derivative is solved
//             accordingly: newton by elimination, projected_gradient by dense factors
// Layout      any strides for what is read; what is written must not overlap itself or an input
// Precision   double inside. Columns are scaled by their largest element first
// Non-finite  a column that is not finite, or whose mu is not positive, gives NaN and Outcome::failed
// Threads     columns are independent; any split of them gives the same bits
#pragma once

#include "torch_iir/batch.h"
#include "torch_iir/export.h"

namespace torch_iir {

enum class NNLSSolver : int { automatic = 0, newton, projected_gradient };

// How a column ended.
enum class Outcome : std::int32_t {
  solved = 0,  // non-negative least squares
  entropy,     // maximum entropy
  failed,      // the tolerance was not reached. x is the best that was found, in form of non-negative least squares
};

// Sample is float, double, Half or BFloat16.
template <class Sample, class Operands = PlainOperands>
struct NNLS {
  Batch batch;
  std::int64_t m = 0, n = 0, k = 0;
  // newton: |A x + μλ − b|∞ ≤ tolerance · |b|∞, or the same entries positive in two steps that were not damped.
  // projected_gradient: max |min(L x, gradient)| ≤ tolerance · max Aᵀ|b|, with L = the largest eigenvalue of AᵀA.
  double tolerance = 1e-9;
  int max_iterations = 200;  // newton: and once more, more carefully, for columns that they did not suffice for
  typename Operands::template Matrices<const double> a;
  Matrices<const Sample> b;
  typename Operands::template Rows<const double> mu;
  Matrices<const Sample> prior;  // null: least squares
  Matrices<Sample> x;
  Matrices<double> dual;
  Rows<Outcome> outcome;  // null: not wanted
};

// The linear system of the derivatives: for W = diag(w), or, with `support`, W = diag(w > 0)
//
//   u = (A W Aᵀ + μ)⁻¹ (A W g + h),   p = W (g − Aᵀu)
//
// Along changes db, da and dmu, dual changes by u and x by −p, with g = −daᵀ λ and h = db − da x − dmu λ. The way
// back is this system again (torch_iir/ops/nnls.py).
template <class Sample, class Operands = PlainOperands>
struct NNLSDerivative {
  Batch batch;
  std::int64_t m = 0, n = 0, k = 0;
  bool support = true;
  typename Operands::template Matrices<const double> a;
  typename Operands::template Rows<const double> mu;
  Matrices<const Sample> w;  // n × k
  Matrices<const Sample> g;  // n × k; null: zero
  Matrices<const double> h;  // m × k; null: zero
  Matrices<double> u;        // m × k
  Matrices<Sample> p;        // n × k; null: not wanted
};

TORCH_IIR_API Status nnls(const NNLS<float>&, NNLSSolver = NNLSSolver::automatic, ParallelFor = {}) noexcept;
TORCH_IIR_API Status nnls(const NNLS<double>&, NNLSSolver = NNLSSolver::automatic, ParallelFor = {}) noexcept;
TORCH_IIR_API Status nnls(const NNLS<Half>&, NNLSSolver = NNLSSolver::automatic, ParallelFor = {}) noexcept;
TORCH_IIR_API Status nnls(const NNLS<BFloat16>&, NNLSSolver = NNLSSolver::automatic, ParallelFor = {}) noexcept;

TORCH_IIR_API Status nnls_derivative(const NNLSDerivative<float>&, NNLSSolver = NNLSSolver::automatic,
                                     ParallelFor = {}) noexcept;
TORCH_IIR_API Status nnls_derivative(const NNLSDerivative<double>&, NNLSSolver = NNLSSolver::automatic,
                                     ParallelFor = {}) noexcept;
TORCH_IIR_API Status nnls_derivative(const NNLSDerivative<Half>&, NNLSSolver = NNLSSolver::automatic,
                                     ParallelFor = {}) noexcept;
TORCH_IIR_API Status nnls_derivative(const NNLSDerivative<BFloat16>&, NNLSSolver = NNLSSolver::automatic,
                                     ParallelFor = {}) noexcept;

}  // namespace torch_iir
