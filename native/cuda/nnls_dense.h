// Any matrix A of non-negative least squares, a block to each column of the problem: the products of A with a vector,
// and, for weights W ≥ 0,
//
//   u = (A W Aᵀ + μ)⁻¹ (A W g + h),   p = W (g − Aᵀu)
//
// by Cholesky's method: of this m × m matrix, or, where W has s < m positive weights, of the s × s one that comes of
// eliminating u in place of p,
//
//   q = (W½AᵀA W½ + μ)⁻¹ (μ W½g − W½Aᵀh),   p = W½q,   u = (A p + h) / μ
//
// which is cheaper, and the only accurate one: p is then of the size of μ, a difference of nearly equal numbers above.
// The same method as that of the kernel for the CPU (native/cpu/nnls_dense.h), with sums in another order.
//
// A is read where it lies. Vectors, and the factor of min(m, n)² numbers, lie in memory of the block's own; 34 KB of
// shared memory hold the tiles of 32 × 32 that factors are computed in. Counted for 128 × 1025: 8.4 · 10⁶ multiply-adds
// a factor, in which a thread reads 6 numbers of shared memory for 8 of them.
//
// Races: none. Vectors are written between two barriers of the block and read after the second; every function here
// that writes ends with one.
#pragma once

#include "nnls_problem.h"

namespace torch_iir::cuda {

inline constexpr int most_dense_threads = 256;

// Small problems take small blocks, so that many are resident. A matter of the size alone: so are the bits.
inline int dense_threads(std::int64_t m, std::int64_t n) {
  const std::int64_t elements = m * n;
  return elements <= 1 << 10 ? 32 : elements <= 1 << 12 ? 64 : elements <= 1 << 14 ? 128 : most_dense_threads;
}

inline constexpr int panel = 32, panel_pitch = panel + 1;  // neighbours in a column in different banks

struct DenseShared {
  double left[panel * panel_pitch], right[panel * panel_pitch], tile[panel * panel_pitch],
      diagonal[panel * panel_pitch];
  double slots[most_dense_threads / warp_size];
  std::int64_t support;
};
static_assert(sizeof(DenseShared) <= 48 << 10);

enum class Reduction { sum, largest, least };

template <Reduction how>
TORCH_IIR_GPU double reduced(double a, double b) {  // nan is passed over, but in sums
  if constexpr (how == Reduction::sum) return a + b;
  else if constexpr (how == Reduction::largest) return b > a ? b : a;
  else return b < a ? b : a;
}
// Over the block, the same bits in every thread.
template <Reduction how>
TORCH_IIR_GPU double reduce(DenseShared& shared, double value) {
  TORCH_IIR_UNROLL
  for (int mask = 1; mask < warp_size; mask *= 2) {
    const double other = shuffle_xor(value, mask);
    value = lane() & mask ? reduced<how>(other, value) : reduced<how>(value, other);
  }
  const int warps = threads() / warp_size;
  if (warps == 1) return value;
  if (lane() == 0) shared.slots[warp()] = value;
  sync();
  value = shared.slots[0];
  for (int w = 1; w < warps; ++w) value = reduced<how>(value, shared.slots[w]);
  sync();
  return value;
}
TORCH_IIR_GPU double block_sum(DenseShared& shared, double value) { return reduce<Reduction::sum>(shared, value); }
TORCH_IIR_GPU double block_largest(DenseShared& shared, double value) {
  return reduce<Reduction::largest>(shared, value);
}

// The matrix of a row of the batch.
struct DenseMatrix {
  const AnyMatrices<const double>& a;
  std::int64_t at, m, n;

  TORCH_IIR_GPU double operator()(std::int64_t i, std::int64_t j) const {
    return load(a, at + i * a.down + j * a.step);
  }

  // Σ vector[t] · element t of a row or column that begins at `from`, over t = first, first + by … below `count`.
  template <bool absolute>
  TORCH_IIR_GPU double product(std::int64_t from, std::int64_t step, const double* vector, std::int64_t first,
                               std::int64_t count, std::int64_t by) const {
    constexpr int together = 4;  // loads under way
    double sum = 0;
    std::int64_t t = first;
    for (; t + (together - 1) * by < count; t += together * by) {
      double value[together];
      TORCH_IIR_UNROLL
      for (int c = 0; c < together; ++c) value[c] = load(a, from + (t + c * by) * step);
      TORCH_IIR_UNROLL
      for (int c = 0; c < together; ++c) sum = add<absolute>(value[c], vector[t + c * by], sum);
    }
    for (; t < count; t += by) sum = add<absolute>(load(a, from + t * step), vector[t], sum);
    return sum;
  }

  // to = A x, a warp to a row.
  TORCH_IIR_GPU void times(const double* x, double* to) const {
    for (std::int64_t i = warp(); i < m; i += threads() / warp_size) {
      const double sum = warp_sum(product<false>(at + i * a.down, a.step, x, lane(), n, warp_size));
      if (lane() == 0) to[i] = sum;
    }
    sync();
  }
  // to = Aᵀ x, with `absolute` |A|ᵀ|x|, a thread to a column.
  template <bool absolute = false>
  TORCH_IIR_GPU void transposed_times(const double* x, double* to) const {
    for (std::int64_t j = thread(); j < n; j += threads()) {
      to[j] = product<absolute>(at + j * a.step, a.down, x, 0, m, 1);
    }
    sync();
  }

 private:
  template <bool absolute>
  static TORCH_IIR_GPU double add(double x, double y, double sum) {
    return absolute ? fma(fabs(x), fabs(y), sum) : fma(x, y, sum);
  }
};

// The system above.
class WeightedSystem {
 public:
  static TORCH_IIR_HOST_DEVICE constexpr std::int64_t doubles(std::int64_t m, std::int64_t n) {
    const std::int64_t order = minimum(m, n);
    return order * order + 4 * n + m + n;  // index_ takes a double each
  }
  TORCH_IIR_GPU WeightedSystem(const DenseMatrix& a, DenseShared& shared, double* memory) : a_(a), shared_(shared) {
    const std::int64_t order = minimum(a.m, a.n);
    l_ = memory;
    root_ = l_ + order * order;
    of_g_ = root_ + a.n;
    q_ = of_g_ + a.n;
    rest_ = q_ + a.n;  // of m or n
    index_ = reinterpret_cast<std::int64_t*>(rest_ + a.m + a.n);
  }

  TORCH_IIR_GPU void factor(const double* weight, double mu) {
    mu_ = mu;
    find_support(weight);
    small_ = support_ < a_.m;
    order_ = small_ ? support_ : a_.m;
    const std::int64_t panels = (order_ + panel - 1) / panel, depth = small_ ? a_.m : support_;
    for (std::int64_t p = 0; p < panels; ++p) {
      for (std::int64_t q = p; q < panels; ++q) {
        for (int i = thread(); i < panel * panel_pitch; i += threads()) shared_.tile[i] = 0;
        sync();
        // L Lᵀ = V Vᵀ + μ with V = A W½, or W½Aᵀ.
        for (std::int64_t from = 0; from < depth; from += panel) {
          const int count = static_cast<int>(minimum<std::int64_t>(panel, depth - from));
          stage(shared_.left, p, count, small_, [&](std::int64_t row, int t) { return v(row, from + t); });
          if (q != p) stage(shared_.right, q, count, small_, [&](std::int64_t row, int t) { return v(row, from + t); });
          sync();
          add_products(p, q, count, 1);
          sync();
        }
        for (std::int64_t from = 0; from < p * panel; from += panel) {
          stage(shared_.left, p, panel, false, [&](std::int64_t row, int t) { return l_[row * order_ + from + t]; });
          if (q != p) {
            stage(shared_.right, q, panel, false, [&](std::int64_t row, int t) { return l_[row * order_ + from + t]; });
          }
          sync();
          add_products(p, q, panel, -1);
          sync();
        }
        if (warp() == 0) {
          if (q == p) {
            factor_diagonal(p);
          } else {
            divide(p, q);
          }
        }
        sync();
        const double* const result = q == p ? shared_.diagonal : shared_.tile;
        const int rows = rows_of(q), columns = rows_of(p);
        for (int i = thread(); i < panel * panel; i += threads()) {
          const int r = i / panel, c = i % panel;
          if (r < rows && c < columns) l_[(q * panel + r) * order_ + p * panel + c] = result[r * panel_pitch + c];
        }
        sync();
      }
    }
  }

  // g and p: n; h and u: m. The solution is refined once: the products with V forget less than those with itself.
  TORCH_IIR_GPU void solve(const double* g, const double* h, double* u, double* p) {
    const auto each = [](std::int64_t count, auto&& work) {
      for (std::int64_t i = thread(); i < count; i += threads()) work(i);
      sync();
    };
    const std::int64_t m = a_.m, n = a_.n;
    each(support_, [&](std::int64_t s) {
      of_g_[s] = root_[s] * g[index_[s]];
      q_[s] = small_ ? 0 : of_g_[s];
    });
    each(m, [&](std::int64_t i) { u[i] = small_ ? h[i] : 0; });  // μ u, or u
    for (int pass = 0; pass < 2; ++pass) {
      if (small_) {
        weighted_transposed(u, rest_);
        each(support_, [&](std::int64_t s) { rest_[s] = mu_ * (of_g_[s] - q_[s]) - rest_[s]; });
        solve_factored(rest_);
        each(support_, [&](std::int64_t s) { q_[s] += rest_[s]; });
        weighted(q_, u);
        each(m, [&](std::int64_t i) { u[i] += h[i]; });
      } else {
        weighted(q_, rest_);
        each(m, [&](std::int64_t i) { rest_[i] += h[i] - mu_ * u[i]; });
        solve_factored(rest_);
        each(m, [&](std::int64_t i) { u[i] += rest_[i]; });
        weighted_transposed(u, q_);
        each(support_, [&](std::int64_t s) { q_[s] = of_g_[s] - q_[s]; });
      }
    }
    if (small_) each(m, [&](std::int64_t i) { u[i] /= mu_; });
    each(n, [&](std::int64_t j) { p[j] = 0; });
    each(support_, [&](std::int64_t s) { p[index_[s]] = root_[s] * q_[s]; });
  }

 private:
  TORCH_IIR_GPU int rows_of(std::int64_t p) const {
    return static_cast<int>(minimum<std::int64_t>(panel, order_ - p * panel));
  }

  // The positive weights, in their order, by one warp.
  TORCH_IIR_GPU void find_support(const double* weight) {
    sync();
    if (warp() == 0) {
      std::int64_t found = 0;
      for (std::int64_t first = 0; first < a_.n; first += warp_size) {
        const std::int64_t j = first + lane();
        const double value = j < a_.n ? weight[j] : 0.0;
        const unsigned all = ballot(value > 0);
        if (value > 0) {
          const std::int64_t s = found + count_bits(all & ((1u << lane()) - 1));
          root_[s] = sqrt(value);
          index_[s] = j;
        }
        found += count_bits(all);
      }
      if (lane() == 0) shared_.support = found;
    }
    sync();
    support_ = shared_.support;
  }

  TORCH_IIR_GPU double v(std::int64_t row, std::int64_t column) const {
    return small_ ? root_[row] * a_(column, index_[row]) : root_[column] * a_(row, index_[column]);
  }

  // Rows of panel p and `count` columns, column t of row r at [t][r]. Threads side by side have rows, or columns.
  template <class At>
  TORCH_IIR_GPU void stage(double* to, std::int64_t p, int count, bool rows_beside, At at) {
    const int rows = rows_of(p);
    for (int i = thread(); i < panel * panel; i += threads()) {
      const int r = rows_beside ? i % panel : i / panel, t = rows_beside ? i / panel : i % panel;
      to[t * panel_pitch + r] = r < rows && t < count ? at(p * panel + r, t) : 0.0;
    }
  }

  // tile += sign · right leftᵀ. A thread has 4 rows and 2 columns.
  TORCH_IIR_GPU void add_products(std::int64_t p, std::int64_t q, int count, double sign) {
    const int rows = rows_of(q), columns = rows_of(p);
    const double* const right = p == q ? shared_.left : shared_.right;
    for (int i = thread(); i < panel / 4 * (panel / 2); i += threads()) {
      const int r = i % (panel / 4) * 4, c = i / (panel / 4) * 2;
      if (r >= rows || c >= columns) continue;
      double sum[4][2] = {};
      for (int t = 0; t < count; ++t) {
        const double *const down = right + t * panel_pitch + r, *const across = shared_.left + t * panel_pitch + c;
        TORCH_IIR_UNROLL
        for (int e = 0; e < 8; ++e) sum[e / 2][e % 2] = fma(down[e / 2], across[e % 2], sum[e / 2][e % 2]);
      }
      TORCH_IIR_UNROLL
      for (int e = 0; e < 8; ++e) {
        double& to = shared_.tile[(r + e / 2) * panel_pitch + c + e % 2];
        to = fma(sign, sum[e / 2][e % 2], to);
      }
    }
  }

  // By a warp, a lane to a row. The inverse of L's elements stands on the diagonal.
  TORCH_IIR_GPU void factor_diagonal(std::int64_t p) {
    const int rows = rows_of(p), r = lane();
    double *const row = shared_.tile + r * panel_pitch, *const to = shared_.diagonal + r * panel_pitch;
    for (int c = 0; c < rows; ++c) {
      double pivot = shared_.tile[c * panel_pitch + c] + mu_;
      if (pivot < mu_) pivot = mu_;  // which none is, but for rounding
      const double inverse = 1 / sqrt(pivot);
      if (r == c) to[c] = inverse;
      if (r > c) to[c] = row[c] * inverse;
      sync_warp();
      for (int next = c + 1; next <= r && r < rows; ++next) {
        row[next] = fma(-to[c], shared_.diagonal[next * panel_pitch + c], row[next]);
      }
      sync_warp();
    }
  }

  // By a warp, a lane to a row of the tile of panel q: times the inverse of the diagonal's transposed factor.
  TORCH_IIR_GPU void divide(std::int64_t p, std::int64_t q) {
    if (lane() >= rows_of(q)) return;
    double* const row = shared_.tile + lane() * panel_pitch;
    for (int c = 0; c < rows_of(p); ++c) {
      const double* const of = shared_.diagonal + c * panel_pitch;
      double value = row[c];
      for (int t = 0; t < c; ++t) value = fma(-row[t], of[t], value);
      row[c] = value * of[c];
    }
  }

  // x = (L Lᵀ)⁻¹ x
  TORCH_IIR_GPU void solve_factored(double* x) {
    const std::int64_t panels = (order_ + panel - 1) / panel;
    const int warps = threads() / warp_size;
    for (std::int64_t p = 0; p < panels; ++p) {
      const int rows = rows_of(p);
      const std::int64_t first = p * panel;
      for (int r = warp(); r < rows; r += warps) {
        const double* const row = l_ + (first + r) * order_;
        double sum = 0;
        for (std::int64_t j = lane(); j < first; j += warp_size) sum = fma(row[j], x[j], sum);
        sum = warp_sum(sum);
        if (lane() == 0) x[first + r] -= sum;
      }
      sync();
      if (warp() == 0) {
        const int r = minimum(lane(), rows - 1);
        const double* const row = l_ + (first + r) * order_ + first;
        double value = x[first + r];
        for (int c = 0; c < rows; ++c) {
          const double solved = shuffle(value, c) * l_[(first + c) * order_ + first + c];
          value = r == c ? solved : r > c ? fma(-row[c], solved, value) : value;
        }
        if (lane() < rows) x[first + r] = value;
      }
      sync();
    }
    for (std::int64_t p = panels - 1; p >= 0; --p) {
      const int rows = rows_of(p), c = minimum(lane(), rows - 1);
      const std::int64_t first = p * panel;
      double sum = 0;
      for (std::int64_t i = first + panel + warp(); i < order_; i += warps) {
        sum = fma(l_[i * order_ + first + c], x[i], sum);
      }
      shared_.tile[warp() * panel_pitch + lane()] = sum;
      sync();
      if (warp() == 0) {
        double value = x[first + c];
        for (int w = 0; w < warps; ++w) value -= shared_.tile[w * panel_pitch + lane()];
        for (int r = rows - 1; r >= 0; --r) {
          const double* const row = l_ + (first + r) * order_ + first;
          const double solved = shuffle(value, r) * row[r];
          value = c == r ? solved : c < r ? fma(-row[c], solved, value) : value;
        }
        if (lane() < rows) x[first + c] = value;
      }
      sync();
    }
  }

  // to = A W½ q
  TORCH_IIR_GPU void weighted(const double* q, double* to) {
    for (std::int64_t i = warp(); i < a_.m; i += threads() / warp_size) {
      double sum = 0;
      for (std::int64_t s = lane(); s < support_; s += warp_size) sum = fma(root_[s] * a_(i, index_[s]), q[s], sum);
      sum = warp_sum(sum);
      if (lane() == 0) to[i] = sum;
    }
    sync();
  }
  // to = W½Aᵀ u
  TORCH_IIR_GPU void weighted_transposed(const double* u, double* to) {
    for (std::int64_t s = thread(); s < support_; s += threads()) {
      to[s] = root_[s] * a_.product<false>(a_.at + index_[s] * a_.a.step, a_.a.down, u, 0, a_.m, 1);
    }
    sync();
  }

  const DenseMatrix& a_;
  DenseShared& shared_;
  double *l_, *root_, *of_g_, *q_, *rest_;
  std::int64_t* index_;
  std::int64_t support_ = 0, order_ = 0;
  double mu_ = 0;
  bool small_ = false;
};

// A column of the derivatives' system a block.
struct DenseDerivative {
  static TORCH_IIR_HOST_DEVICE constexpr std::int64_t doubles(std::int64_t m, std::int64_t n) {
    return WeightedSystem::doubles(m, n) + 2 * m + 3 * n;
  }
};

static TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(most_dense_threads, 2)
    dense_derivative(NNLSDerivativeProblem p, std::int64_t rows, Choice choice, double* memory) {
  if (!choice.any()) return;
  auto& shared = *reinterpret_cast<DenseShared*>(shared_memory());
  const std::int64_t m = p.m, n = p.n;
  double* const own = memory + block() * DenseDerivative::doubles(m, n);
  double *const weight = own + WeightedSystem::doubles(m, n), *const g = weight + n, *const to_p = g + n,
                *const h = to_p + n, *const u = h + m;
  for (std::int64_t number = block(); number < rows * p.k; number += blocks()) {
    const std::int64_t row = number / p.k, j = number % p.k;
    const DenseMatrix a{p.a, p.a.row(p.batch, row), m, n};
    const std::int64_t from_w = column_at(p.w, p.batch, row, j), from_g = p.g ? column_at(p.g, p.batch, row, j) : 0;
    const double* const from_h = p.h ? column_at(p.h, p.batch, row, j) : nullptr;
    const double mu = load(p.mu, column_at(p.mu, p.batch, row, j));
    bool finite = mu > 0 && mu < infinity;
    for (std::int64_t i = thread(); i < n; i += threads()) {
      const double w = load(p.w, from_w + i * p.w.down);
      weight[i] = p.support ? (w > 0 ? 1.0 : 0.0) : w;
      g[i] = p.g ? load(p.g, from_g + i * p.g.down) : 0.0;
      finite &= isfinite(w) && isfinite(g[i]);
    }
    for (std::int64_t i = thread(); i < m; i += threads()) {
      h[i] = from_h != nullptr ? from_h[i * p.h.down] : 0.0;
      finite &= isfinite(h[i]);
    }
    for (std::int64_t i = warp(); i < m; i += threads() / warp_size) {
      for (std::int64_t c = lane(); c < n; c += warp_size) finite &= isfinite(a(i, c));
    }
    const bool usable = !sync_any(!finite);
    if (usable) {
      WeightedSystem system(a, shared, own);
      system.factor(weight, mu);
      system.solve(g, h, u, to_p);
    }
    double* const out_u = column_at(p.u, p.batch, row, j);
    for (std::int64_t i = thread(); i < m; i += threads()) out_u[i * p.u.down] = usable ? u[i] : not_a_number;
    const std::int64_t out_p = p.p ? column_at(p.p, p.batch, row, j) : 0;
    for (std::int64_t i = thread(); p.p && i < n; i += threads()) {
      store(p.p, out_p + i * p.p.down, usable ? to_p[i] : not_a_number);
    }
    sync();
  }
}

}  // namespace torch_iir::cuda
