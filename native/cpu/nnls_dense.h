// Any matrix A of non-negative least squares: how it is packed, its products with a vector, and, for weights W ≥ 0,
//
//   u = (A W Aᵀ + μ)⁻¹ (A W g + h),   p = W (g − Aᵀu)
//
// by Cholesky's method: of this m × m matrix, or, where W has s < m positive weights, of the s × s one that comes of
// eliminating u in place of p,
//
//   q = (W½AᵀA W½ + μ)⁻¹ (μ W½g − W½Aᵀh),   p = W½q,   u = (A p + h) / μ
//
// which is cheaper, and the only accurate one: p is then of the size of μ, a difference of nearly equal numbers above.
#pragma once

#include "rows.h"
#include "torch_iir/nnls.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

// Rows of a matrix that stand side by side in memory, and are computed on together: as many as leave room for two
// vectors of sums each.
inline constexpr int panel_rows = vector_bytes == 64 ? 8 : 4;
inline constexpr int panel_vectors = panel_rows / width;

constexpr std::int64_t in_panels(std::int64_t rows) { return (rows + panel_rows - 1) / panel_rows; }
constexpr std::int64_t padded(std::int64_t rows) { return in_panels(rows) * panel_rows; }

// A matrix in panels, row p · panel_rows + r of column j at panel(p)[j · panel_rows + r]. What is there beyond its rows
// and columns is zero.
struct Panels {
  double* data;
  std::int64_t count, columns;

  double* panel(std::int64_t p) const { return data + p * columns * panel_rows; }
};

// to = M x
void times(const Panels& matrix, const double* x, double* to) {
  for (std::int64_t p = 0; p < matrix.count; ++p) {
    const double* from = matrix.panel(p);
    Doubles sum[4][panel_vectors] = {};
    std::int64_t j = 0;
    const auto add = [&](int chain) TORCH_IIR_INLINE_LAMBDA {
#pragma GCC unroll 4
      for (int v = 0; v < panel_vectors; ++v) {
        sum[chain][v] += everywhere(x[j]) * load<Doubles>(from + j * panel_rows + v * width);
      }
      ++j;
    };
    while (j + 4 <= matrix.columns) {
#pragma GCC unroll 4
      for (int chain = 0; chain < 4; ++chain) add(chain);
    }
    while (j < matrix.columns) add(0);
#pragma GCC unroll 4
    for (int v = 0; v < panel_vectors; ++v) {
      store(to + p * panel_rows + v * width, sum[0][v] + sum[1][v] + (sum[2][v] + sum[3][v]));
    }
  }
}

// to = Mᵀ x, with `absolute` |M|ᵀ|x|. The columns, and `to`, have room for whole panels.
template <bool absolute = false>
void transposed_times(const Panels& matrix, const double* x, double* to) {
  const auto taken = [](Doubles v) TORCH_IIR_INLINE_LAMBDA { return absolute ? magnitude(v) : v; };
  for (std::int64_t j = 0; j < matrix.columns; j += width) {
    Doubles sum[width] = {};
    for (std::int64_t p = 0; p < matrix.count; ++p) {
      const double* from = matrix.panel(p) + j * panel_rows;
#pragma GCC unroll 4
      for (int v = 0; v < panel_vectors; ++v) {
        const Doubles factor = taken(load<Doubles>(x + p * panel_rows + v * width));
#pragma GCC unroll 8
        for (int i = 0; i < width; ++i) {
          sum[i] += factor * taken(load<Doubles>(from + i * panel_rows + v * width));
        }
      }
    }
    store(to + j, sums_of(sum));
  }
}

// sum[q][c] += Σ_j left[j][c] · right_q[j], the vector of the rows of a panel, for `count` panels from `right` on.
template <int count>
TORCH_IIR_INLINE void add_products(Doubles (&sum)[count][panel_rows][panel_vectors], const double* left,
                                   const double* right, std::int64_t between, std::int64_t length) {
  for (std::int64_t j = 0; j < length; ++j) {
#pragma GCC unroll 4
    for (int i = 0; i < count * panel_vectors; ++i) {
      const int q = i / panel_vectors, v = i % panel_vectors;
      const Doubles rows = load<Doubles>(right + q * between + j * panel_rows + v * width);
#pragma GCC unroll 8
      for (int c = 0; c < panel_rows; ++c) sum[q][c][v] += everywhere(left[j * panel_rows + c]) * rows;
    }
  }
}

// L with L Lᵀ = V Vᵀ + μ, panel by panel: the products with V and with the part of L that is known are taken together.
// The inverse stands on the diagonal.
class Cholesky {
 public:
  Panels l;

  void factor(const Panels& v, double mu) {
    l.count = v.count;
    l.columns = v.count * panel_rows;
    for (std::int64_t p = 0; p < l.count; ++p) {
      std::int64_t q = p;
      for (; q + at_once <= l.count; q += at_once) columns_of<at_once>(v, p, q);
      for (; q < l.count; ++q) columns_of<1>(v, p, q);
      double* diagonal = l.panel(p) + p * panel_rows * panel_rows;
      factor_diagonal(diagonal, mu);
      for (q = p + 1; q < l.count; ++q) divide(l.panel(q) + p * panel_rows * panel_rows, diagonal);
    }
  }

  // x = (L Lᵀ)⁻¹ x
  void solve(double* x) const {
    for (std::int64_t p = 0; p < l.count; ++p) {
      const double* row = l.panel(p);
      double* here = x + p * panel_rows;
      Doubles sum[2][panel_vectors] = {};
      for (std::int64_t j = 0; j < p * panel_rows; j += 2) {
#pragma GCC unroll 4
        for (int i = 0; i < 2 * panel_vectors; ++i) {
          const int chain = i % 2, v = i / 2;
          sum[chain][v] += everywhere(x[j + chain]) * load<Doubles>(row + (j + chain) * panel_rows + v * width);
        }
      }
#pragma GCC unroll 4
      for (int v = 0; v < panel_vectors; ++v) {
        store(here + v * width, load<Doubles>(here + v * width) - (sum[0][v] + sum[1][v]));
      }
      const double* diagonal = row + p * panel_rows * panel_rows;
      for (int c = 0; c < panel_rows; ++c) {
        here[c] *= diagonal[c * panel_rows + c];
        for (int r = c + 1; r < panel_rows; ++r) here[r] -= diagonal[c * panel_rows + r] * here[c];
      }
    }
    for (std::int64_t p = l.count - 1; p >= 0; --p) {
      double* here = x + p * panel_rows;
      Doubles sum[panel_rows] = {};
      for (std::int64_t q = p + 1; q < l.count; ++q) {
        const double* below = l.panel(q) + p * panel_rows * panel_rows;
#pragma GCC unroll 4
        for (int v = 0; v < panel_vectors; ++v) {
          const Doubles factor = load<Doubles>(x + q * panel_rows + v * width);
#pragma GCC unroll 8
          for (int c = 0; c < panel_rows; ++c) sum[c] += factor * load<Doubles>(below + c * panel_rows + v * width);
        }
      }
      const double* diagonal = l.panel(p) + p * panel_rows * panel_rows;
      for (int c = panel_rows - 1; c >= 0; --c) {
        double value = here[c] - TORCH_IIR_ISA::sum(sum[c]);
        for (int r = c + 1; r < panel_rows; ++r) value -= diagonal[c * panel_rows + r] * here[r];
        here[c] = value * diagonal[c * panel_rows + c];
      }
    }
  }

 private:
  // Panels that are computed together: enough sums to hide the latency of adding to them.
  static constexpr int at_once = panel_vectors == 1 ? 2 : 1;

  template <int count>
  void columns_of(const Panels& v, std::int64_t p, std::int64_t q) {
    Doubles sum[count][panel_rows][panel_vectors] = {};
    add_products<count>(sum, l.panel(p), l.panel(q), l.columns * panel_rows, p * panel_rows);
#pragma GCC unroll 16
    for (int i = 0; i < count * panel_rows * panel_vectors; ++i) {
      Doubles& value = sum[i / (panel_rows * panel_vectors)][i / panel_vectors % panel_rows][i % panel_vectors];
      value = -value;
    }
    add_products<count>(sum, v.panel(p), v.panel(q), v.columns * panel_rows, v.columns);
#pragma GCC unroll 16
    for (int i = 0; i < count * panel_rows * panel_vectors; ++i) {
      const int which = i / (panel_rows * panel_vectors), c = i / panel_vectors % panel_rows, part = i % panel_vectors;
      store(l.panel(q + which) + (p * panel_rows + c) * panel_rows + part * width, sum[which][c][part]);
    }
  }

  static void factor_diagonal(double* block, double mu) {
    for (int c = 0; c < panel_rows; ++c) {
      double* column = block + c * panel_rows;
      double pivot = column[c] + mu;
      if (pivot < mu) pivot = mu;  // which none is, but for rounding
      const double inverse = 1 / __builtin_sqrt(pivot);
      column[c] = inverse;
      for (int r = c + 1; r < panel_rows; ++r) column[r] *= inverse;
      for (int next = c + 1; next < panel_rows; ++next) {
        for (int r = next; r < panel_rows; ++r) block[next * panel_rows + r] -= column[r] * column[next];
      }
    }
  }

  static void divide(double* block, const double* diagonal) {
#pragma GCC unroll 4
    for (int v = 0; v < panel_vectors; ++v) {
      Doubles column[panel_rows];
#pragma GCC unroll 8
      for (int c = 0; c < panel_rows; ++c) {
        Doubles value = load<Doubles>(block + c * panel_rows + v * width);
#pragma GCC unroll 8
        for (int t = 0; t < c; ++t) value -= column[t] * everywhere(diagonal[t * panel_rows + c]);
        column[c] = value * everywhere(diagonal[c * panel_rows + c]);
        store(block + c * panel_rows + v * width, column[c]);
      }
    }
  }
};

// The matrix of a call, packed.
class DenseMatrix {
 public:
  std::int64_t m, n;
  Panels panels;
  bool finite = true;

  DenseMatrix(std::int64_t rows, std::int64_t columns)
      : m(rows), n(columns), scratch_(Scratch::bytes<double>(padded(m) * padded(n))), packed_(nullptr) {
    panels = {scratch_.take<double>(padded(m) * padded(n)), in_panels(m), padded(n)};
  }
  explicit operator bool() const { return static_cast<bool>(scratch_); }

  // False: it is the one that was packed last.
  bool pack(const Matrices<const double>& a, const Batch& batch, std::int64_t row) {
    const double* from = a.row(batch, row);
    if (from == packed_ && from != nullptr) return false;
    packed_ = from;
    double zero = 0;
    for (std::int64_t p = 0; p < panels.count; ++p) {
      double* to = panels.panel(p);
      for (std::int64_t j = 0; j < panels.columns; ++j) {
        for (int r = 0; r < panel_rows; ++r) {
          const std::int64_t i = p * panel_rows + r;
          const double value = i < m && j < n ? from[i * a.down + j * a.step] : 0;
          zero += value * 0;
          to[j * panel_rows + r] = value;
        }
      }
    }
    finite = zero == 0;
    return true;
  }

 private:
  Scratch scratch_;
  const double* packed_;
};

// The system above, for one column at a time.
class WeightedSystem {
 public:
  static std::size_t bytes(std::int64_t m, std::int64_t n) {
    const std::int64_t order = padded(m < n ? m : n);
    return Scratch::bytes<double>(padded(m) * padded(n)) + Scratch::bytes<double>(order * order) +
           3 * Scratch::bytes<double>(padded(n)) + Scratch::bytes<double>(padded(m)) + Scratch::bytes<std::int64_t>(n);
  }
  WeightedSystem(Scratch& scratch, const DenseMatrix& a) : a_(a) {
    const std::int64_t m = padded(a.m), n = padded(a.n), order = m < n ? m : n;
    v_.data = scratch.take<double>(m * n);
    cholesky_.l.data = scratch.take<double>(order * order);
    for (double** piece : {&root_, &of_g_, &q_}) *piece = scratch.take<double>(n);
    rest_ = scratch.take<double>(m);
    index_ = scratch.take<std::int64_t>(a.n);
  }

  void factor(const double* weight, double mu) {
    mu_ = mu;
    support_ = 0;
    for (std::int64_t j = 0; j < a_.n; ++j) {
      if (!(weight[j] > 0)) continue;
      root_[support_] = __builtin_sqrt(weight[j]);
      index_[support_++] = j;
    }
    small_ = support_ < a_.m;
    if (small_) {  // V = W½Aᵀ
      v_.count = in_panels(support_);
      v_.columns = padded(a_.m);
      for (std::int64_t s = 0; s < padded(support_); ++s) {
        double* to = v_.panel(s / panel_rows) + s % panel_rows;
        for (std::int64_t i = 0; i < v_.columns; ++i) {
          to[i * panel_rows] = s < support_ ? root_[s] * at(i / panel_rows, index_[s])[i % panel_rows] : 0;
        }
      }
    } else {  // V = A W½
      v_.count = a_.panels.count;
      v_.columns = padded(support_);
      for (std::int64_t p = 0; p < v_.count; ++p) {
        double* to = v_.panel(p);
        for (std::int64_t s = 0; s < v_.columns; ++s) {
          for (int r = 0; r < panel_rows; ++r) {
            to[s * panel_rows + r] = s < support_ ? root_[s] * at(p, index_[s])[r] : 0;
          }
        }
      }
    }
    cholesky_.factor(v_, mu);
  }

  // g and p: n; h and u: m, with room for whole panels, zero in h. The solution is refined once: the products with V
  // forget less than those with itself.
  void solve(const double* g, const double* h, double* u, double* p) {
    for (std::int64_t s = 0; s < padded(support_); ++s) of_g_[s] = s < support_ ? root_[s] * g[index_[s]] : 0;
    const std::int64_t m = padded(a_.m), order = v_.count * panel_rows;
    if (small_) {
      for (std::int64_t s = 0; s < order; ++s) q_[s] = 0;
      for (std::int64_t i = 0; i < m; ++i) u[i] = h[i];  // μ u
      for (int pass = 0; pass < 2; ++pass) {
        times(v_, u, rest_);
        for (std::int64_t s = 0; s < order; ++s) rest_[s] = mu_ * (of_g_[s] - q_[s]) - rest_[s];
        cholesky_.solve(rest_);
        for (std::int64_t s = 0; s < order; ++s) q_[s] += rest_[s];
        transposed_times(v_, q_, u);
        for (std::int64_t i = 0; i < m; ++i) u[i] += h[i];
      }
      for (std::int64_t i = 0; i < m; ++i) u[i] /= mu_;
    } else {
      for (std::int64_t s = 0; s < padded(support_); ++s) q_[s] = of_g_[s];
      for (std::int64_t i = 0; i < m; ++i) u[i] = 0;
      for (int pass = 0; pass < 2; ++pass) {
        times(v_, q_, rest_);
        for (std::int64_t i = 0; i < m; ++i) rest_[i] += h[i] - mu_ * u[i];
        cholesky_.solve(rest_);
        for (std::int64_t i = 0; i < m; ++i) u[i] += rest_[i];
        transposed_times(v_, u, q_);
        for (std::int64_t s = 0; s < padded(support_); ++s) q_[s] = of_g_[s] - q_[s];
      }
    }
    for (std::int64_t j = 0; j < a_.n; ++j) p[j] = 0;
    for (std::int64_t s = 0; s < support_; ++s) p[index_[s]] = root_[s] * q_[s];
  }

 private:
  const double* at(std::int64_t p, std::int64_t j) const { return a_.panels.panel(p) + j * panel_rows; }

  const DenseMatrix& a_;
  Panels v_;
  Cholesky cholesky_;
  double *root_, *of_g_, *q_, *rest_;
  std::int64_t* index_;
  std::int64_t support_;
  double mu_;
  bool small_;
};

// work(matrix, first, last) for ranges of the columns of all batch rows together, column c of row r being number
// r · k + c, each range with its matrix, on the threads that there are: they share the columns of one matrix where
// these are many times `grain`, else the matrices. Work says false when there was no memory.
template <class Matrix, class Work>
Status for_matrices(const Batch& batch, const Matrices<const double>& a, std::int64_t m, std::int64_t n, std::int64_t k,
                    std::int64_t grain, const ParallelFor& parallel_for, Work work) {
  std::int64_t columns = k;  // with the same matrix
  for (int d = batch.dims - 1; d >= 0 && (a.stride[d] == 0 || batch.size[d] == 1); --d) columns *= batch.size[d];
  const std::int64_t total = batch.rows() * k;
  if (total == 0) return Status::ok;
  if (columns == total || columns >= 4 * grain) {
    Matrix matrix(m, n);
    if (!matrix) return Status::out_of_memory;
    for (std::int64_t begin = 0; begin < total; begin += columns) {
      {
        const FlushToZero flush;
        matrix.pack(a, batch, begin / k);
      }
      const auto some = [&](std::int64_t first, std::int64_t last) {
        const FlushToZero flush;
        return work(matrix, begin + first, begin + last);
      };
      if (const Status status = for_ranges(parallel_for, columns, grain, some); status != Status::ok) return status;
    }
    return Status::ok;
  }
  return for_ranges(parallel_for, total / columns, grain / columns + 1, [&](std::int64_t first, std::int64_t last) {
    const FlushToZero flush;
    Matrix matrix(m, n);
    if (!matrix) return false;
    for (std::int64_t i = first; i < last; ++i) {
      matrix.pack(a, batch, i * columns / k);
      if (!work(matrix, i * columns, (i + 1) * columns)) return false;
    }
    return true;
  });
}

template <class Sample>
Status dense_derivative(const NNLSDerivative<Sample>& call, const ParallelFor& parallel_for) {
  const auto work = [&](const DenseMatrix& a, std::int64_t first, std::int64_t last) {
    const std::int64_t m = padded(a.m), n = padded(a.n);
    Scratch scratch(WeightedSystem::bytes(a.m, a.n) + 2 * Scratch::bytes<double>(m) + 3 * Scratch::bytes<double>(n));
    if (!scratch) return false;
    WeightedSystem system(scratch, a);
    double *h = scratch.take<double>(m), *u = scratch.take<double>(m);
    double *weight = scratch.take<double>(n), *g = scratch.take<double>(n), *p = scratch.take<double>(n);
    for (std::int64_t i = 0; i < m; ++i) h[i] = 0;
    for (std::int64_t number = first; number < last; ++number) {
      const auto top = [&](const auto& operand) { return column_of(operand, call.batch, call.k, number); };
      const Sample *from_w = top(call.w), *from_g = top(call.g);
      const double* from_h = top(call.h);
      const double mu = *top(call.mu);
      double zero = (mu > 0 ? mu : not_a_number) * 0;  // or NaN
      const auto checked = [&](double value) {
        zero += value * 0;
        return value;
      };
      for (std::int64_t j = 0; j < a.n; ++j) {
        weight[j] = checked(read(from_w[j * call.w.down]));
        if (call.support) weight[j] = weight[j] > 0;
        g[j] = from_g != nullptr ? checked(read(from_g[j * call.g.down])) : 0;
      }
      for (std::int64_t i = 0; i < a.m; ++i) h[i] = from_h != nullptr ? checked(from_h[i * call.h.down]) : 0;
      if (a.finite && zero == 0) {
        system.factor(weight, mu);
        system.solve(g, h, u, p);
      } else {
        for (std::int64_t i = 0; i < a.m; ++i) u[i] = not_a_number;
        for (std::int64_t j = 0; j < a.n; ++j) p[j] = not_a_number;
      }
      double* to_u = top(call.u);
      for (std::int64_t i = 0; i < a.m; ++i) to_u[i * call.u.down] = u[i];
      Sample* to_p = top(call.p);
      for (std::int64_t j = 0; to_p != nullptr && j < a.n; ++j) write(to_p[j * call.p.down], p[j]);
    }
    return true;
  };
  return for_matrices<DenseMatrix>(call.batch, call.a, call.m, call.n, call.k, grain_for(call.m * call.n), parallel_for,
                                   work);
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
