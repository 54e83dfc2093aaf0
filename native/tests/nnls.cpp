// nnls and nnls_derivative on every instruction set that the machine has: what the kernels return is put into the
// equations that it has to solve, in long double, and compared with the exact solution of an active-set method.
#include "torch_iir/nnls.h"

#include <string>
#include <utility>

#include "check.h"
#include "reference.h"
#include "torch_iir/instruction_sets.h"
#if defined(TORCH_IIR_EMULATED)
#include "emulator/scheduler.h"
#endif

using namespace torch_iir;

namespace {

// Under sanitizers, and where long double is computed by software: fewer cases.
constexpr bool slow = sanitized || std::numeric_limits<long double>::digits > 64;

// What the emulator leaves to chance.
void other_machine([[maybe_unused]] std::uint64_t seed) {
#if defined(TORCH_IIR_EMULATED)
  cuda::emulator::machine().seed = seed;
#endif
}

using Vector = std::vector<long double>;

constexpr long double rounding = std::numeric_limits<double>::epsilon();
constexpr long double exact_rounding = std::numeric_limits<long double>::epsilon();

// What a result may be off where it is too small to be accurate, and from where on it is infinite.
template <class Sample>
constexpr long double smallest = std::is_same_v<Sample, double> ? std::numeric_limits<double>::min() : tiny<Sample>;
template <class Sample>
constexpr long double most = std::is_same_v<Sample, Half>     ? 65504.0L
                             : std::is_same_v<Sample, double> ? std::numeric_limits<double>::max()
                                                              : 0x1.fep127L;

std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

long double dot(const Vector& p, const Vector& q) {
  long double result = 0;
  for (std::size_t i = 0; i < p.size(); ++i) result += p[i] * q[i];
  return result;
}
long double norm(const Vector& values) { return std::sqrt(dot(values, values)); }

template <class F, class... Vectors>
Vector each(F f, const Vector& first, const Vectors&... others) {
  Vector result(first.size());
  for (std::size_t i = 0; i < result.size(); ++i) result[i] = f(first[i], others[i]...);
  return result;
}
Vector magnitudes(const Vector& values) {
  return each([](long double value) { return std::abs(value); }, values);
}
Vector positive_part(const Vector& values) {
  return each([](long double value) { return value > 0 ? value : 0; }, values);
}

// Of m × n entries those that are not zero, by column.
struct Matrix {
  struct Entry {
    std::size_t row;
    long double value;
  };
  std::size_t m;
  std::vector<std::vector<Entry>> columns;

  Vector times(const Vector& x) const {
    Vector result(m);
    for (std::size_t j = 0; j < columns.size(); ++j)
      for (const Entry& e : columns[j]) result[e.row] += e.value * x[j];
    return result;
  }
  Vector transposed_times(const Vector& dual) const {
    Vector result(columns.size());
    for (std::size_t j = 0; j < columns.size(); ++j)
      for (const Entry& e : columns[j]) result[j] += e.value * dual[e.row];
    return result;
  }
  // |A| |x| and |A|ᵀ|λ|, which is what rounding is relative to.
  Vector terms_of(const Vector& x) const {
    Vector result(m);
    for (std::size_t j = 0; j < columns.size(); ++j)
      for (const Entry& e : columns[j]) result[e.row] += std::abs(e.value * x[j]);
    return result;
  }
  Vector transposed_terms_of(const Vector& dual) const {
    Vector result(columns.size());
    for (std::size_t j = 0; j < columns.size(); ++j)
      for (const Entry& e : columns[j]) result[j] += std::abs(e.value * dual[e.row]);
    return result;
  }
  bool banded() const {
    return std::ranges::all_of(columns, [](const auto& column) {
      return (column.size() < 2 || (column.size() == 2 && column[1].row == column[0].row + 1)) &&
             std::ranges::all_of(column, [](const Entry& e) { return e.value > 0; });
    });
  }
  // max (A Aᵀ)_ii
  long double largest_diagonal() const {
    Vector diagonal(m);
    for (const auto& column : columns)
      for (const Entry& e : column) diagonal[e.row] += e.value * e.value;
    return largest(diagonal);
  }
  // max |A_j|, over the columns
  long double largest_column() const {
    long double result = 0;
    for (const auto& column : columns) {
      long double sum = 0;
      for (const Entry& e : column) sum += e.value * e.value;
      result = std::max(result, std::sqrt(sum));
    }
    return result;
  }
  // Of AᵀA, from below.
  long double largest_eigenvalue() const {
    Vector v(columns.size(), 1);
    long double result = 0;
    for (std::size_t j = 0; j < v.size(); ++j) v[j] += 0.1L * static_cast<long double>(j % 7);
    for (int i = 0; i < 100 && norm(v) > 0; ++i) {
      const long double length = norm(v);
      for (long double& value : v) value /= length;
      v = transposed_times(times(v));
      result = norm(v);
    }
    return result;
  }
  // How often a sound kernel rounds what it computes with the matrix: once for each term of the longest of its sums,
  // and a few times more.
  long double roundings() const {
    std::vector<std::size_t> count(m + 1);
    std::size_t longest = 0;
    for (const auto& column : columns) {
      longest = std::max(longest, column.size());
      for (const Entry& e : column) longest = std::max(longest, ++count[e.row]);
    }
    return static_cast<long double>(longest + 16);
  }
};

// --------------------------------------------------------------------------------------------------------- reference

// (A diag(w) Aᵀ + μ)⁻¹ right, as LDLᵀ.
Vector solve(const Matrix& a, const Vector& w, long double mu, Vector right) {
  const std::size_t m = a.m;
  Vector l(m * m);
  for (std::size_t i = 0; i < m; ++i) l[i * m + i] = mu;
  for (std::size_t j = 0; j < w.size(); ++j) {
    for (std::size_t p = 0; p < a.columns[j].size(); ++p)
      for (std::size_t q = 0; q <= p; ++q)
        l[a.columns[j][p].row * m + a.columns[j][q].row] += w[j] * a.columns[j][p].value * a.columns[j][q].value;
  }
  for (std::size_t k = 0; k < m; ++k) {
    for (std::size_t i = k + 1; i < m; ++i) {
      if (l[i * m + k] == 0) continue;
      const long double factor = l[i * m + k] / l[k * m + k];
      for (std::size_t j = k + 1; j <= i; ++j) l[i * m + j] -= factor * l[j * m + k];
      right[i] -= factor * right[k];
    }
  }
  for (std::size_t k = m; k-- > 0;) {
    for (std::size_t i = k + 1; i < m; ++i) right[k] -= l[i * m + k] * right[i];
    right[k] /= l[k * m + k];
  }
  return right;
}

// F(λ) = A x + μ λ − b, and by how much rounding changes it: x by the given part of itself for each unit of |A|ᵀ|λ|.
struct Residual {
  Vector value;
  long double noise, length;  // length: |F|₂ at most, for it is itself computed

  Residual(const Matrix& a, const Vector& b, long double mu, const Vector& x, const Vector& dual, const Vector& spread,
           long double epsilon)
      : value(a.times(x)) {
    Vector terms = a.terms_of(spread);
    for (std::size_t i = 0; i < b.size(); ++i) {
      value[i] += mu * dual[i] - b[i];
      terms[i] += mu * std::abs(dual[i]) + std::abs(b[i]);
    }
    noise = a.roundings() * epsilon * largest(terms);
    length = norm(value) + std::sqrt(static_cast<long double>(a.m)) * noise * (exact_rounding / epsilon);
  }
  Residual(const Matrix& a, const Vector& b, long double mu, const Vector& dual, long double epsilon)
      : Residual(a, b, mu, positive_part(a.transposed_times(dual)), dual, a.transposed_terms_of(dual), epsilon) {}
  Residual(const Matrix& a, const Vector& b, long double mu, const Vector& prior, const Vector& dual,
           long double epsilon)
      : Residual(a, b, mu, entropy_x(a, prior, dual), dual,
                 each([](long double x, long double s) { return x * (1 + s); }, entropy_x(a, prior, dual),
                      a.transposed_terms_of(dual)),
                 epsilon) {}

  static Vector entropy_x(const Matrix& a, const Vector& prior, const Vector& dual) {
    return each([](long double w, long double s) { return w > 0 ? w * std::exp(s) : 0; }, prior,
                a.transposed_times(dual));
  }
};

struct Solution {
  Vector x, dual;
  long double residual;  // |F|₂
};

// The active set by exchanging all that is wrong, and only the last of it where that does not help (Murty's rule, which
// ends). Entries whose sign is a matter of rounding are left as they are.
Solution least_squares(const Matrix& a, const Vector& b, long double mu) {
  Vector active(a.columns.size(), 1), dual;
  std::size_t fewest = active.size() + 1;
  int patience = 3;
  for (int step = 0; step < 1000; ++step) {
    dual = solve(a, active, mu, b);
    const Vector sign = a.transposed_times(dual), spread = a.transposed_terms_of(dual);
    std::vector<std::size_t> wrong;
    for (std::size_t j = 0; j < active.size(); ++j) {
      if ((active[j] != 0 ? -sign[j] : sign[j]) > 64 * exact_rounding * spread[j]) wrong.push_back(j);
    }
    if (wrong.empty()) break;
    if (wrong.size() < fewest) {
      fewest = wrong.size();
      patience = 3;
    } else if (patience > 0) {
      --patience;
    } else {
      wrong = {wrong.back()};
    }
    for (const std::size_t j : wrong) active[j] = 1 - active[j];
  }
  const Residual f(a, b, mu, dual, exact_rounding);
  CHECK(largest(f.value) <= f.noise, "least squares", a.m, active.size());
  return {positive_part(a.transposed_times(dual)), dual, f.length};
}

// The minimum of Σ x + ½ μ |λ|² − bᵀλ, which is strictly convex.
Solution maximum_entropy(const Matrix& a, const Vector& b, long double mu, const Vector& prior) {
  Vector dual(a.m);
  Residual f(a, b, mu, prior, dual, exact_rounding);
  for (int i = 0; i < 1000 && largest(f.value) > f.noise; ++i) {
    const Vector step = solve(a, Residual::entropy_x(a, prior, dual), mu, f.value);
    const long double slope = dot(f.value, step);
    Vector next;
    for (long double length = 1; length > 0; length /= 2) {  // not far beyond the minimum along the step
      next = each([&](long double at, long double by) { return at - length * by; }, dual, step);
      f = Residual(a, b, mu, prior, next, exact_rounding);
      if (-dot(f.value, step) <= slope / 2) break;
    }
    dual = next;
  }
  CHECK(largest(f.value) <= 64 * f.noise, "maximum entropy", a.m, prior.size());
  return {Residual::entropy_x(a, prior, dual), dual, f.length};
}

// ---------------------------------------------------------------------------------------------------------- operands

// A matrix for each row of the grid. Across its columns, memory may run against the order of Block's parts (transposed)
// or stand still (repeated).
enum class Way { along, transposed, repeated };

template <class T>
class Operand {
 public:
  Operand(Grid grid, int rows, int columns, Layout layout, Shared shared = {}, Way way = Way::along)
      : block_(grid, way == Way::transposed ? rows : columns, layout, shared, way == Way::transposed ? columns : rows),
        rows_(rows),
        way_(way) {}

  T& at(int row, int i, int j) {
    if (way_ == Way::transposed) return block_.at(row, i, j);
    return block_.at(row, way_ == Way::repeated ? 0 : j, i);
  }
  Vector column(int row, int j) {
    Vector result;
    for (int i = 0; i < rows_; ++i) result.push_back(exact(at(row, i, j)));
    return result;
  }
  bool is_nan(int row, int j) {
    return std::ranges::all_of(column(row, j), [](long double value) { return std::isnan(value); });
  }
  Matrices<T> output() { return directed(block_.rows()); }
  Matrices<const T> input() { return directed(block_.input()); }

  bool same_bits(const Operand& other) const { return block_.same_bits(other.block_); }
  bool same_bits(Operand& other, int row, int j) {
    for (int i = 0; i < rows_; ++i)
      if (std::memcmp(&at(row, i, j), &other.at(row, i, j), sizeof(T)) != 0) return false;
    return true;
  }
  bool intact() { return block_.intact(); }

 private:
  template <class U>
  Matrices<U> directed(Rows<U> rows) const {
    Matrices<U> result{rows, block_.part()};
    if (way_ == Way::transposed) std::swap(result.step, result.down);
    if (way_ == Way::repeated) result.step = 0;
    return result;
  }

  Block<T> block_;
  int rows_;
  Way way_;
};

enum class Shape {
  bank,      // triangles on a mel scale, as torchaudio's; some may be too narrow to have an entry
  adjacent,  // any matrix that newton takes, in no order
  by_row,    // something else in every row of the batch: bank or adjacent
  dense,
  signs,      // dense, with negative entries
  dependent,  // of low rank, with columns and rows of zeros
  far,        // adjacent, but for one column: entries in rows 0 and 2
  three,      // … in rows 0, 1 and 2
  negative,   // … one entry, negative
};
constexpr bool is_banded(Shape shape) { return shape <= Shape::by_row; }

// What is in the columns of b and mu, one kind after the other.
enum Kind : int { cone, noisy, random, zero, below, small, great, bad_b, bad_mu, bad_prior };
// So many of them.
enum class Kinds : int { ordinary = small, any = bad_b, broken = bad_prior + 1 };

struct Case {
  int m, n, k;
  Shape shape = Shape::adjacent;
  Kinds kinds = Kinds::any;
  int outer = 1, inner = 1;
  Layout layout = Layout::contiguous;
  Shared shared_a = {}, shared_b = {}, shared_mu = {}, shared_prior = {};
  Way a = Way::along, b = Way::along, mu = Way::along, prior = Way::along, x = Way::along;
  bool entropy = false, outcome = true;
  double tolerance = 1e-9;

  // Columns of other sizes need a μ and a prior of their own where there is a prior.
  Kinds kinds_used() const {
    const auto one = [](Way way, Shared shared) { return way == Way::repeated || shared.outer || shared.inner; };
    const bool shares = one(b, shared_b) || one(mu, shared_mu) || one(prior, shared_prior);
    return shares ? std::min(kinds, entropy ? Kinds::ordinary : Kinds::any) : kinds;
  }
  std::string text() const {
    const auto number = [](auto value) { return std::to_string(static_cast<int>(value)) + ' '; };
    return number(m) + "x " + number(n) + "k " + number(k) + "shape " + number(shape) + "kinds " + number(kinds) +
           "batch " + number(outer) + number(inner) + "layout " + number(layout) + "ways " + number(a) + number(b) +
           number(mu) + number(prior) + number(x) + (entropy ? "entropy " : "");
  }
};

int one_of(int count) { return static_cast<int>(random_bits() % size(count)); }
bool coin() { return one_of(2) == 0; }

// In (0, 1], exact in half.
double weight() { return (1 + one_of(128)) / 128.0; }

double triangle(int m, int n, int row, int bin) {
  const auto mel = [](double f) { return 2595 * std::log10(1 + f / 700); };
  const double low = mel(60), high = mel(7600), step = (high - low) / (m + 1);
  const double f = 8000.0 * bin / std::max(n - 1, 1);
  const auto edge = [&](int i) { return 700 * (std::pow(10, (low + step * i) / 2595) - 1); };
  const double up = (f - edge(row)) / (edge(row + 1) - edge(row)),
               down = (edge(row + 2) - f) / (edge(row + 2) - edge(row + 1));
  return std::max(0.0, std::min(up, down));
}

template <class Sample>
struct Inputs {
  Case c;
  Grid grid{c.outer, c.inner};
  Operand<double> a{grid, c.m, c.n, c.layout, c.shared_a, c.a};
  Operand<Sample> b{grid, c.m, c.k, c.layout, c.shared_b, c.b};
  Operand<double> mu{grid, 1, c.k, c.layout, c.shared_mu, c.mu};
  Operand<Sample> prior{grid, c.n, c.k, c.layout, c.shared_prior, c.prior};

  explicit Inputs(const Case& given) : c(given) {
    for (int row = 0; row < grid.rows(); ++row) fill_a(row);
    for (int row = 0; row < grid.rows(); ++row) {
      const Matrix matrix = matrix_of(row);
      const long double diagonal = matrix.largest_diagonal();
      for (int j = 0; j < c.k; ++j) fill_column(matrix, diagonal > 0 ? diagonal : 1, row, j);
    }
  }

  Matrix matrix_of(int row) {
    Matrix result{size(c.m), {}};
    for (int j = 0; j < c.n; ++j) {
      result.columns.emplace_back();
      for (int i = 0; i < c.m; ++i)
        if (a.at(row, i, j) != 0) result.columns.back().push_back({size(i), a.at(row, i, j)});
    }
    return result;
  }
  long double mu_of(int row, int j) { return mu.at(row, 0, j); }
  bool broken(int row, int j) {
    const auto finite = [](const Vector& values) {
      return std::ranges::all_of(values, [](long double value) { return std::isfinite(value); });
    };
    return !finite(b.column(row, j)) || !(mu_of(row, j) > 0) || (c.entropy && !finite(prior.column(row, j)));
  }

 private:
  void fill_a(int row) {
    const Shape shape = c.shape != Shape::by_row ? c.shape : row % 2 == 0 ? Shape::adjacent : Shape::bank;
    for (int j = 0; j < c.n; ++j) {
      for (int i = 0; i < c.m; ++i) {
        double& entry = a.at(row, i, j);
        entry = 0;
        if (shape == Shape::bank) entry = triangle(c.m, c.n, i, j);
        if (shape == Shape::dense) entry = weight();
        if (shape == Shape::signs) entry = static_cast<double>(grid_value());
        if (shape == Shape::dependent && i % 5 != 3 && j % 4 != 2) entry = (1 + i / 5 * 0.5) * (1 + j % 3);
      }
      if (shape != Shape::adjacent && shape < Shape::far) continue;
      const int entries = one_of(8);  // none, one, or two
      const int i = one_of(std::max(c.m, 1));
      if (entries > 0 && i < c.m) a.at(row, i, j) = weight();
      if (entries > 2 && i + 1 < c.m) a.at(row, i + 1, j) = weight();
    }
    if (shape >= Shape::far) {
      const int j = c.n / 2;
      for (int i = 0; i < c.m; ++i) a.at(row, i, j) = 0;
      if (shape != Shape::negative) a.at(row, 0, j) = a.at(row, 2, j) = 0.5;
      if (shape != Shape::far) a.at(row, 1, j) = shape == Shape::three ? 0.25 : -0.25;
    }
  }
  static long double grid_value() { return torch_iir::grid(); }

  void fill_column(const Matrix& matrix, long double diagonal, int row, int j) {
    const int kind = (row + j) % static_cast<int>(c.kinds_used());
    const long double unit = kind == small ? std::ldexp(1.0L, deep()) : kind == great ? std::ldexp(1.0L, high()) : 1;
    Vector x(size(c.n));
    for (long double& value : x) value = one_of(4) == 0 ? 0 : weight();
    Vector column = matrix.times(x);
    for (long double& value : column) {
      if (kind == noisy) value *= 1 + grid_value();
      if (kind == random || (kind == small && !c.entropy)) value = grid_value();
      if (kind == zero) value = 0;
      if (kind == below) value = -weight();
    }
    for (int i = 0; i < c.m; ++i) b.at(row, i, j) = sample<Sample>(unit * column[size(i)]);
    const Vector smooth = envelope(matrix, column);
    for (int i = 0; i < c.n; ++i) {
      const bool any = kind == random || kind == zero || kind == below;
      prior.at(row, i, j) = sample<Sample>(unit * (any ? (i % 11 == 10 ? 0 : 1) : smooth[size(i)]) * weight());
    }
    const int power = one_of(9) - 9;  // relative to max (A Aᵀ)_ii
    mu.at(row, 0, j) = static_cast<double>(diagonal * (c.entropy ? unit : 1) * std::pow(10.0L, power));
    if (kind == bad_b && c.m > 0) b.at(row, j % c.m, j) = bad(j);
    if (kind == bad_mu) mu.at(row, 0, j) = j % 3 == 0 ? 0.0 : j % 3 == 1 ? -1.0 : std::nan("");
    if (kind != bad_prior) return;
    for (int i = 0; i < c.n; ++i) {  // of a column of A that has an entry: what the others are nobody asks
      if (matrix.columns[size(i)].empty()) continue;
      prior.at(row, i, j) = bad(j);
      break;
    }
  }
  // Aᵀ(b / A 1) / Aᵀ1, which is 0 wherever b wants it.
  static Vector envelope(const Matrix& matrix, const Vector& column) {
    const auto ratio = [](long double x, long double y) { return y > 0 ? std::max(x, 0.0L) / y : 0; };
    const Vector ones(matrix.columns.size(), 1);
    return each(ratio, matrix.transposed_times(each(ratio, column, matrix.times(ones))),
                matrix.transposed_times(Vector(matrix.m, 1)));
  }
  // Powers of two of columns that are small and great: as far as storage goes, and what is computed from them.
  int deep() const {
    return std::is_same_v<Sample, Half> ? -7 : !std::is_same_v<Sample, double> ? -117 : c.entropy ? -950 : -1000;
  }
  static int high() { return std::is_same_v<Sample, Half> ? 2 : std::is_same_v<Sample, double> ? 960 : 100; }
  static Sample bad(int j) {
    const float value = j % 3 == 0 ? std::nanf("") : j % 3 == 1 ? INFINITY : -INFINITY;
    if constexpr (std::is_same_v<Sample, Half>) {
      return {static_cast<std::uint16_t>(j % 3 == 0 ? 0x7e00 : j % 3 == 1 ? 0x7c00 : 0xfc00)};
    } else {
      return sample<Sample>(value);
    }
  }
};

template <class Sample>
struct Outputs {
  Operand<Sample> x;
  Operand<double> dual;
  Operand<Outcome> outcome;

  explicit Outputs(const Inputs<Sample>& in)
      : x(in.grid, in.c.n, in.c.k, in.c.layout, {}, in.c.x),
        dual(in.grid, in.c.m, in.c.k, in.c.layout, {}, in.c.x == Way::along ? Way::transposed : Way::along),
        outcome(in.grid, 1, in.c.k, in.c.layout) {}

  bool same_bits(const Outputs& other) const {
    return x.same_bits(other.x) && dual.same_bits(other.dual) && outcome.same_bits(other.outcome);
  }
  bool same_bits(Outputs& other, int row, int j) {
    return x.same_bits(other.x, row, j) && dual.same_bits(other.dual, row, j) &&
           outcome.same_bits(other.outcome, row, j);
  }
  bool intact() { return x.intact() && dual.intact() && outcome.intact(); }
};

constexpr const char* solver_names[] = {"automatic ", "newton ", "projected_gradient "};

template <class Sample>
NNLS<Sample> problem(Inputs<Sample>& in, Outputs<Sample>& out) {
  NNLS<Sample> f;
  f.batch = in.grid.batch();
  f.m = in.c.m;
  f.n = in.c.n;
  f.k = in.c.k;
  f.tolerance = in.c.tolerance;
  f.max_iterations = emulated ? 300 : 10000;
  f.a = in.a.input();
  f.b = in.b.input();
  f.mu = in.mu.input();
  if (in.c.entropy) f.prior = in.prior.input();
  f.x = out.x.output();
  f.dual = out.dual.output();
  f.outcome = out.outcome.output();
  return f;
}

// f(solver, where) for all that take the problem, on every instruction set. Machines of the emulator differ in what
// blocks see of each other, which here is nothing: one of them will do.
template <class F>
void for_each_kernel(bool banded, bool entropy, F f) {
  for (const InstructionSet& set : instruction_sets()) {
    if (!set_isa(set.name) || (emulated && &set != instruction_sets().data())) continue;
    for (const NNLSSolver solver : {NNLSSolver::newton, NNLSSolver::projected_gradient}) {
      if (solver == NNLSSolver::newton ? !banded : entropy) continue;
      f(solver, std::string(set.name) + ' ' + solver_names[static_cast<int>(solver)]);
    }
  }
}

// ------------------------------------------------------------------------------------------------------ one column

// 0 if every value is as far from what is wanted as allowed, or else by how much the worst exceeds it.
template <class Sample>
long double excess(const Vector& values, const Vector& wanted, const Vector& allowed) {
  long double result = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const long double error = std::abs(values[i] - wanted[i]);
    if (error <= allowed[i] || (wanted[i] + allowed[i] > most<Sample> && values[i] > 0)) continue;
    result = std::max(result, std::isnan(error) ? INFINITY : error - allowed[i]);
  }
  return result;
}

Vector difference(const Vector& p, const Vector& q) {
  return each([](long double a, long double b) { return a - b; }, p, q);
}

// How many columns of good data were solved, of how many, in the form that was asked for.
struct Tally {
  long columns = 0, solved = 0;

  Tally& operator+=(const Tally& other) {
    columns += other.columns;
    solved += other.solved;
    return *this;
  }
};

// One column of a result, and the equations that it has to fulfil. With F = A x + μλ − b for the x of a λ, the
// monotonicity of both problems bounds how far that λ is from the solution λ*, whatever the condition of A:
//
//   |λ − λ*| ≤ |F| / μ,  |A (x − x*)| ≤ |F|, and without a prior |x − x*| ≤ |F| / 2√μ, ½|A x − b|² + ½μ|x|² ≤ … + |F|².
template <class Sample>
class Column {
 public:
  Column(Inputs<Sample>& in, Outputs<Sample>& out, const Matrix& a, int row, int j, std::string where)
      : c_(in.c),
        a_(a),
        b_(in.b.column(row, j)),
        mu_(in.mu_of(row, j)),
        x_(out.x.column(row, j)),
        dual_(out.dual.column(row, j)),
        outcome_(out.outcome.at(row, 0, j)),
        where_(std::move(where)) {
    if (c_.entropy) prior_ = in.prior.column(row, j);
  }

  void check_broken() {
    const auto nan = [](const Vector& values) {
      return std::ranges::all_of(values, [](long double value) { return std::isnan(value); });
    };
    CHECK(nan(x_) && nan(dual_) && outcome_ == Outcome::failed, where_);
  }

  void check_newton(Solution& least, Solution& entropic) {
    if (outcome_ == Outcome::entropy) return check_entropy(entropic);
    const Vector s = a_.transposed_times(dual_), spread = a_.transposed_terms_of(dual_);
    const Vector wanted = positive_part(s);
    const Vector error =
        each([](long double x, long double terms) { return stored(x) + 8 * rounding * terms; }, wanted, spread);
    check_x(wanted, error);
    const Residual f(a_, b_, mu_, dual_, rounding);
    const long double limit = c_.tolerance * largest(b_);
    if (outcome_ == Outcome::failed) {
      // Of use all the same: the dual objective is not above that of λ = 0.
      const long double objective = (dot(wanted, wanted) + mu_ * dot(dual_, dual_)) / 2 - dot(b_, dual_);
      CHECK(objective <= f.noise * sum_of_magnitudes(dual_), where_, objective);
      return;
    }
    CHECK(largest(f.value) <= limit + f.noise, where_, largest(f.value), limit, f.noise);

    // μ of a column with a prior has another unit, and may here be too small for the reference.
    if (c_.entropy && mu_ < 1e-12L * a_.largest_diagonal()) return;
    if (least.dual.size() != b_.size() || b_.empty()) least = least_squares(a_, b_, mu_);
    const long double residual = f.length + least.residual;
    check_dual(least, residual);
    if (largest(wanted) > most<Sample>) return;
    const long double x_error = residual / (2 * std::sqrt(mu_)) + norm(error);
    CHECK(norm(difference(x_, least.x)) <= x_error, where_, "x", norm(difference(x_, least.x)), x_error);
    check_product(least, residual, error);
    check_objective(least, residual * residual, error);
  }

  // With r = min(x, gradient / L), the same monotonicity gives |x − x*|² μ + |A (x − x*)|² ≤ |r|² (√(L + μ) + L / √μ)².
  void check_projected_gradient(Solution& least) {
    const Vector error = each([](long double x) { return stored(x); }, x_);
    CHECK(std::ranges::all_of(x_, [](long double x) { return x >= 0 && x <= most<Sample>; }), where_);
    const Vector fit = difference(a_.times(x_), b_), gradient = gradient_of(fit);
    Vector noise = a_.terms_of(x_), fit_error = a_.terms_of(error);
    for (std::size_t i = 0; i < noise.size(); ++i) fit_error[i] += noise_factor() * (noise[i] + std::abs(b_[i]));
    CHECK(excess<double>(each([this](long double dual) { return mu_ * dual; }, dual_), difference(b_, a_.times(x_)),
                         fit_error) == 0,
          where_, "dual");

    const long double l = a_.largest_eigenvalue();
    const Vector from_fit = a_.transposed_terms_of(fit_error);
    long double worst = 0, unavoidable = 0;
    for (std::size_t j = 0; j < x_.size(); ++j) {
      worst = std::max(worst, std::abs(std::min(l * x_[j], gradient[j])));
      unavoidable = std::max({unavoidable, l * error[j], from_fit[j] + mu_ * (error[j] + noise_factor() * x_[j])});
    }
    const long double limit = 1.1L * c_.tolerance * largest(a_.transposed_terms_of(b_));
    if (outcome_ == Outcome::failed) {
      CHECK(worst + unavoidable >= limit / 1.2L, where_, "failed");
      CHECK(objective_of(x_) <= dot(b_, b_) / 2 + dot(magnitudes(gradient), error) + norm(b_) * norm(fit_error),
            where_);
      return;
    }
    CHECK(outcome_ == Outcome::solved && worst <= limit + unavoidable, where_, worst, limit, unavoidable);
    if (!(l > 0)) return;
    if (least.dual.size() != b_.size() || b_.empty()) least = least_squares(a_, b_, mu_);
    const long double allowed = limit + unavoidable, count = std::sqrt(static_cast<long double>(x_.size()));
    const long double energy =
        count * allowed / l * (std::sqrt(l + mu_) + l / std::sqrt(mu_)) + 2 * least.residual * (1 + l / mu_);
    const long double distance = norm(difference(x_, least.x));
    CHECK(distance <= energy / std::sqrt(mu_), where_, "x", distance, energy / std::sqrt(mu_));
    const long double product = norm(a_.times(difference(x_, least.x)));
    CHECK(product <= energy, where_, "A x", product, energy);
    check_objective(least, allowed * (count * energy / std::sqrt(mu_) + sum_of_magnitudes(gradient) / l), error);
  }

 private:
  static long double stored(long double x) { return Number<Sample>::epsilon * x + smallest<Sample>; }
  long double noise_factor() const { return a_.roundings() * rounding; }

  void check_entropy(Solution& entropic) {
    const Vector wanted = Residual::entropy_x(a_, prior_, dual_);
    const Vector error = each(
        [](long double x, long double w, long double terms) {  // e^v may be 0 where it is not a normal number
          return stored(x) + 8 * rounding * x * (1 + terms) + 2 * smallest<double> * w;
        },
        wanted, prior_, a_.transposed_terms_of(dual_));
    CHECK(c_.entropy, where_);
    check_x(wanted, error);
    const Residual f(a_, b_, mu_, prior_, dual_, rounding);
    const long double limit = c_.tolerance * largest(b_);
    CHECK(largest(f.value) <= limit + f.noise, where_, largest(f.value), limit, f.noise);

    if (entropic.dual.size() != b_.size() || b_.empty()) entropic = maximum_entropy(a_, b_, mu_, prior_);
    const long double residual = f.length + entropic.residual;
    check_dual(entropic, residual);
    check_product(entropic, residual, error);
    const long double exponent = a_.largest_column() * residual / mu_;
    if (!(exponent < 1)) return;
    check_x(entropic.x,
            each([&](long double x, long double e) { return x * std::expm1(exponent) + e; }, entropic.x, error));
  }

  void check_x(const Vector& wanted, const Vector& error) {
    const long double too_far = excess<Sample>(x_, wanted, error);
    CHECK(too_far == 0, where_, "x", too_far);
  }
  void check_dual(const Solution& exact, long double residual) {
    const long double distance = norm(difference(dual_, exact.dual));
    CHECK(distance <= residual / mu_, where_, "dual", distance, residual / mu_);
  }
  void check_product(const Solution& exact, long double residual, const Vector& error) {
    const long double distance = norm(a_.times(difference(x_, exact.x)));
    const long double limit = residual + norm(a_.terms_of(error));
    CHECK(distance <= limit, where_, "A x", distance, limit);
  }
  void check_objective(const Solution& exact, long double slack, const Vector& error) {
    const Vector gradient = gradient_of(difference(a_.times(x_), b_)), through = a_.terms_of(error);
    const long double best = objective_of(exact.x);
    slack += dot(magnitudes(gradient), error) + dot(through, through) + mu_ * dot(error, error) +
             64 * exact_rounding * (dot(b_, b_) + best);
    CHECK(objective_of(x_) <= best + slack, where_, "objective", objective_of(x_) - best, slack);
  }
  Vector gradient_of(const Vector& fit) const {
    return each([this](long double g, long double x) { return g + mu_ * x; }, a_.transposed_times(fit), x_);
  }
  long double objective_of(const Vector& x) const {
    const Vector fit = difference(a_.times(x), b_);
    return (dot(fit, fit) + mu_ * dot(x, x)) / 2;
  }

  const Case& c_;
  const Matrix& a_;
  Vector b_;
  long double mu_;
  Vector x_, dual_;
  Outcome outcome_;
  Vector prior_;
  std::string where_;
};

// --------------------------------------------------------------------------------------------------------------- cases

// What a case is solved for, and what it is compared with.
template <class Sample>
struct Problem {
  Inputs<Sample> in;
  std::vector<Matrix> a;
  bool banded;
  std::vector<Solution> least, entropic;  // computed when they are first needed

  explicit Problem(const Case& c) : in(c), least(size(in.grid.rows()) * size(c.k)), entropic(least.size()) {
    for (int row = 0; row < in.grid.rows(); ++row) a.push_back(in.matrix_of(row));
    banded = std::ranges::all_of(a, &Matrix::banded);
  }

  Tally check(Outputs<Sample>& out, NNLSSolver solver, const std::string& where) {
    Tally tally;
    for (int row = 0; row < in.grid.rows(); ++row) {
      for (int j = 0; j < in.c.k; ++j) {
        Column<Sample> column(in, out, a[size(row)], row, j,
                              where + "row " + std::to_string(row) + " column " + std::to_string(j));
        if (in.broken(row, j)) {
          column.check_broken();
          continue;
        }
        const Vector b = in.b.column(row, j);
        if (in.c.entropy && std::ranges::any_of(b, [](long double value) { return value < 0; })) {
          // No x ≥ 0 has such an A x, and λ grows as 1 / μ: either form will do.
        } else {
          ++tally.columns;
          tally.solved += out.outcome.at(row, 0, j) == (in.c.entropy ? Outcome::entropy : Outcome::solved);
        }
        const std::size_t at = size(row) * size(in.c.k) + size(j);
        if (solver == NNLSSolver::newton) {
          column.check_newton(least[at], entropic[at]);
        } else {
          column.check_projected_gradient(least[at]);
        }
      }
    }
    return tally;
  }
};

template <class Sample>
Tally run(const Case& c) {
  Problem<Sample> p(c);
  Inputs<Sample>& in = p.in;
  CHECK(p.banded || !is_banded(c.shape), c.text());
  Tally tally;
  for_each_kernel(p.banded, c.entropy, [&](NNLSSolver solver, const std::string& kernel) {
    const std::string where = kernel + c.text();
    Outputs<Sample> out(in), again(in);
    CHECK(nnls(problem(in, out), solver, {two_halves, nullptr}) == Status::ok, where);
    if ((solver == NNLSSolver::newton) == p.banded)
      CHECK(nnls(problem(in, again)) == Status::ok && again.same_bits(out), where, "automatic");
    if (!c.outcome) {
      Outputs<Sample> without(in);
      NNLS<Sample> f = problem(in, without);
      f.outcome = {};
      CHECK(nnls(f, solver) == Status::ok, where);
      CHECK(without.x.same_bits(out.x) && without.dual.same_bits(out.dual), where, "without outcome");
      CHECK(without.intact(), where);
    }
    tally += p.check(out, solver, where);
    CHECK(out.intact(), where);
  });
  return tally;
}

// --------------------------------------------------------------------------------------------------------- derivative

// What an nnls_derivative is given, and what it may leave out.
struct Wanted {
  bool support = true, g = true, h = true, p = true;
};

template <class Sample>
struct DerivativeInputs : Inputs<Sample> {
  Wanted wanted;
  Operand<Sample> w, g;
  Operand<double> h;

  DerivativeInputs(const Case& c, const Wanted& given)
      : Inputs<Sample>(c),
        wanted(given),
        w(this->grid, c.n, c.k, c.layout, c.shared_prior, c.prior),
        g(this->grid, c.n, c.k, c.layout, {}, c.b),
        h(this->grid, c.m, c.k, c.layout, c.shared_b, c.b) {
    for (int row = 0; row < this->grid.rows(); ++row) {
      for (int j = 0; j < c.k; ++j) {
        for (int i = 0; i < c.n; ++i) {
          const int power = std::is_same_v<Sample, Half> ? 0 : one_of(17) - 12;
          const long double value = one_of(4) == 0 ? 0 : std::ldexp(grid() + 0.25L, power);
          w.at(row, i, j) = sample<Sample>(value);
          g.at(row, i, j) = sample<Sample>(grid());
        }
        for (int i = 0; i < c.m; ++i) h.at(row, i, j) = static_cast<double>(grid());
      }
    }
  }
};

template <class Sample>
struct DerivativeOutputs {
  Operand<double> u;
  Operand<Sample> p;

  explicit DerivativeOutputs(const Inputs<Sample>& in)
      : u(in.grid, in.c.m, in.c.k, in.c.layout, {}, in.c.x),
        p(in.grid, in.c.n, in.c.k, in.c.layout, {}, in.c.x == Way::along ? Way::transposed : Way::along) {}
  bool same_bits(const DerivativeOutputs& other) const { return u.same_bits(other.u) && p.same_bits(other.p); }
  bool same_bits(DerivativeOutputs& other, int row, int j) {
    return u.same_bits(other.u, row, j) && p.same_bits(other.p, row, j);
  }
  bool intact() { return u.intact() && p.intact(); }
};

template <class Sample>
NNLSDerivative<Sample> problem(DerivativeInputs<Sample>& in, DerivativeOutputs<Sample>& out) {
  NNLSDerivative<Sample> f;
  f.batch = in.grid.batch();
  f.m = in.c.m;
  f.n = in.c.n;
  f.k = in.c.k;
  f.support = in.wanted.support;
  f.a = in.a.input();
  f.mu = in.mu.input();
  f.w = in.w.input();
  if (in.wanted.g) f.g = in.g.input();
  if (in.wanted.h) f.h = in.h.input();
  f.u = out.u.output();
  if (in.wanted.p) f.p = out.p.output();
  return f;
}

// With ρ = (A W Aᵀ + μ) u − A W g − h: |u − u*| ≤ |ρ| / μ, |√W Aᵀ(u − u*)| ≤ |ρ| / 2√μ.
template <class Sample>
void check_derivative(DerivativeInputs<Sample>& in, DerivativeOutputs<Sample>& out, const Matrix& a, int row, int j,
                      NNLSSolver solver, const std::string& where) {
  const long double mu = in.mu_of(row, j);
  const Vector w =
      each([&](long double value) { return value > 0 ? (in.wanted.support ? 1 : value) : 0; }, in.w.column(row, j));
  const Vector g = in.wanted.g ? in.g.column(row, j) : Vector(w.size());
  const Vector h = in.wanted.h ? in.h.column(row, j) : Vector(a.m);
  const Vector u = out.u.column(row, j), p = out.p.column(row, j);

  Vector diagonal(a.m);
  for (std::size_t i = 0; i < w.size(); ++i)
    for (const Matrix::Entry& e : a.columns[i]) diagonal[e.row] += w[i] * e.value * e.value;
  const auto times = [](long double x, long double y) { return x * y; };
  const Vector driven = a.times(each(times, w, g)), applied = a.times(each(times, w, a.transposed_times(u)));
  const Vector right = each([](long double x, long double y) { return x + y; }, driven, h);
  Vector residual(a.m), terms = a.terms_of(each(times, w, g));
  // Where u is got from p, as (A p + h) / μ, it is accurate for its largest element only.
  if (solver != NNLSSolver::newton && in.wanted.h) diagonal.assign(a.m, largest(diagonal));
  long double reach = 0;  // of a row to all others: |J_ij| ≤ √J_ii √J_jj
  for (std::size_t i = 0; i < a.m; ++i) reach += std::sqrt(diagonal[i]) * std::abs(u[i]);
  for (std::size_t i = 0; i < a.m; ++i) {
    residual[i] = applied[i] + mu * u[i] - right[i];
    terms[i] += std::sqrt(diagonal[i]) * reach + mu * std::abs(u[i]) + std::abs(h[i]);
  }
  long double noise = (a.roundings() + static_cast<long double>(a.m)) * rounding * largest(terms);
  if (solver != NNLSSolver::newton &&
      std::ranges::count_if(w, [](long double v) { return v > 0; }) < static_cast<long>(a.m)) {
    // u = (A p + h) / μ
    Vector sum =
        a.terms_of(each(times, w, each([](long double x, long double y) { return x - y; }, g, a.transposed_times(u))));
    for (std::size_t i = 0; i < a.m; ++i) sum[i] += std::abs(h[i]);
    noise += a.roundings() * rounding * largest(sum) * largest(diagonal) / mu;
  }
  CHECK(largest(residual) <= noise, where, "u", largest(residual), noise);

  const Vector exact = solve(a, w, mu, right);
  Vector exact_residual = a.times(each(times, w, a.transposed_times(exact)));
  for (std::size_t i = 0; i < a.m; ++i) exact_residual[i] += mu * exact[i] - right[i];
  CHECK(largest(exact_residual) <= noise / 64, where, "reference", largest(exact_residual), noise);
  const long double off =
      norm(residual) + norm(exact_residual) + static_cast<long double>(a.m) * noise / rounding * exact_rounding;
  CHECK(norm(difference(u, exact)) <= off / mu, where, "u", norm(difference(u, exact)), off / mu);
  if (!in.wanted.p) return;
  const Vector pulled = a.transposed_times(exact), spread = a.transposed_terms_of(u);
  const Vector wanted = each([](long double v, long double x, long double y) { return v * (x - y); }, w, g, pulled);
  Vector allowed(w.size());
  for (std::size_t i = 0; i < w.size(); ++i) {
    allowed[i] = Number<Sample>::epsilon * std::abs(wanted[i]) + smallest<Sample> +
                 a.roundings() * rounding * w[i] * (std::abs(g[i]) + spread[i]) +
                 std::sqrt(w[i]) * off / (2 * std::sqrt(mu)) * (1 + Number<Sample>::epsilon);
  }
  const long double too_far = excess<Sample>(p, wanted, allowed);
  CHECK(too_far == 0, where, "p", too_far);
}

template <class Sample>
void run_derivative(const Case& c, const Wanted& wanted) {
  DerivativeInputs<Sample> in(c, wanted);
  std::vector<Matrix> a;
  for (int row = 0; row < in.grid.rows(); ++row) a.push_back(in.matrix_of(row));
  const bool banded = std::ranges::all_of(a, &Matrix::banded);
  for_each_kernel(banded, false, [&](NNLSSolver solver, const std::string& kernel) {
    const std::string where = kernel + "derivative " + (wanted.support ? "support " : "weights ") +
                              (wanted.g ? "g " : "") + (wanted.h ? "h " : "") + (wanted.p ? "p " : "") + c.text();
    DerivativeOutputs<Sample> out(in), again(in);
    CHECK(nnls_derivative(problem(in, out), solver, {two_halves, nullptr}) == Status::ok, where);
    if ((solver == NNLSSolver::newton) == banded)
      CHECK(nnls_derivative(problem(in, again)) == Status::ok && again.same_bits(out), where);
    for (int row = 0; row < in.grid.rows(); ++row) {
      for (int j = 0; j < c.k; ++j) {
        check_derivative(in, out, a[size(row)], row, j, solver,
                         where + "row " + std::to_string(row) + " column " + std::to_string(j));
      }
    }
    CHECK(out.intact(), where);
  });
}

// --------------------------------------------------------------------------------------------------------------- sizes

// c on one of the sample types, and its derivative.
Tally run_all(const Case& c) {
  const auto run_both = [&]<class Sample>(Sample) {
    Case whole = c;
    whole.kinds = Kinds::any;
    whole.entropy = false;
    run_derivative<Sample>(whole, {coin(), one_of(5) > 0, one_of(5) > 0, one_of(5) > 0});
    return run<Sample>(c);
  };
  switch (one_of(6)) {
    case 0: return run_both(Half{});
    case 1: return run_both(BFloat16{});
    case 2:
    case 3: return run_both(float{});
    default: return run_both(double{});
  }
}

// How c lies in memory, and what of it is wanted.
Case vary(Case c) {
  const auto way = [] { return static_cast<Way>(std::max(one_of(6) - 3, 0)); };
  c.kinds = one_of(3) == 0 ? Kinds::broken : Kinds::any;
  c.layout = static_cast<Layout>(one_of(3));
  c.a = coin() ? Way::along : Way::transposed;
  c.x = coin() ? Way::along : Way::transposed;
  c.b = way();
  c.mu = one_of(3) == 0 ? Way::repeated : Way::along;
  c.prior = way();
  c.outcome = one_of(8) > 0;
  c.tolerance = one_of(9) == 0 ? 1e-3 : one_of(9) == 0 ? 1e-10 : 1e-9;
  return c;
}

// All but so few columns are solved in the form that was asked for. Of the others the outcome says so.
void expect(const Tally& tally, double most_unsolved, const char* what) {
  const long unsolved = tally.columns - tally.solved;
  CHECK(tally.columns > 0 && static_cast<double>(unsolved) <= most_unsolved * static_cast<double>(tally.columns), what,
        unsolved, tally.columns);
}

// Vectors have 2, 4 or 8 numbers, and two of them are computed on at once. On CUDA the 32 threads of a warp have 1, 3,
// 5 … neighbouring rows each, and 8 columns of the derivative are computed on together.
void every_size() {
  using Sizes = std::vector<int>;
  Tally least, entropic;
  for (const int m : emulated ? Sizes{0, 1, 2, 3, 31, 32, 33, 97} : Sizes{0, 1, 2, 3, 4, 7, 40}) {
    for (const int n : emulated ? Sizes{0, 3, 50} : Sizes{0, 1, 2, 3, 9, 50}) {
      for (const int k : emulated ? Sizes{0, 1, 2, 9} : Sizes{0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 65}) {
        if (slow && m * n * k > 3000) continue;
        if (emulated && m * n * k > 5000) continue;
        Case c = vary({m, n, k});
        least += run_all(c);
        c.entropy = true;
        entropic += run_all(c);
      }
    }
  }
  expect(least, 0.001, "every size");
  expect(entropic, 0.02, "every size, entropy");
}

void banks() {
  bool empty_row = false;
  Tally least, entropic;
  for (const auto& [m, n] : {std::pair{20, 101}, {80, 201}, {40, 33}}) {
    for (const int k : {1, 9, 20}) {
      if ((slow || emulated) && m * k > 400) continue;
      Case c = vary({m, n, k});
      c.shape = Shape::bank;
      least += run_all(c);
      for (const long double sum : Problem<double>(c).a[0].times(Vector(size(n), 1))) empty_row |= sum == 0;
      c.entropy = true;
      entropic += run_all(c);
    }
  }
  CHECK(empty_row);
  expect(least, 0.001, "banks");
  expect(entropic, 0.1, "banks, entropy");
}

void batches() {
  for (const Shape shape : {Shape::adjacent, Shape::by_row, Shape::dense}) {
    for (const Shared shared_a : {Shared{}, by_all, Shared{true, false}, Shared{false, true}}) {
      for (const int round : {0, 1, 2}) {
        if (emulated && coin()) continue;
        Case c = vary({5, 12, emulated ? 2 : 11});
        c.shape = shape;
        c.outer = 2;
        c.inner = 3;
        c.shared_a = shared_a;
        if (round == 0) c.shared_b = {coin(), coin()};
        if (round == 1) c.shared_mu = {coin(), coin()};
        if (round == 2) c.shared_prior = {coin(), coin()};
        run_all(c);
        c.entropy = is_banded(shape);
        run_all(c);
      }
    }
  }
}

// Matrices that newton does not take.
void any_matrix() {
  Tally tally;
  for (const auto& [m, n] : {std::pair{3, 1}, {3, 5}, {5, 3}, {8, 8}, {9, 17}, {20, 10}, {33, 40}}) {
    for (const Shape shape :
         {Shape::dense, Shape::signs, Shape::dependent, Shape::far, Shape::three, Shape::negative}) {
      for (const int k : {1, 8, 17}) {
        if (slow && m * n * k > 2000) continue;
        if (emulated && (k > 8 || coin())) continue;
        Case c = vary({m, n, emulated ? (k + 1) / 2 : k});
        c.shape = shape;
        tally += run_all(c);
      }
    }
  }
  expect(tally, 0.01, "any matrix");
}

// Small enough to be solved by hand.
void by_hand() {
  const double a[] = {1, 1}, mu = 1e-12;
  const float b = 2, prior[] = {1, 3};
  for (const bool entropy : {false, true}) {
    float x[2] = {};
    double dual = 0;
    Outcome outcome = Outcome::failed;
    NNLS<float> f;
    f.m = f.k = 1;
    f.n = 2;
    f.a.data = a;
    f.b.data = &b;
    f.mu.data = &mu;
    if (entropy) f.prior.data = prior;
    f.prior.down = f.x.down = 1;
    f.x.data = x;
    f.dual.data = &dual;
    f.outcome.data = &outcome;
    CHECK(nnls(f) == Status::ok && outcome == (entropy ? Outcome::entropy : Outcome::solved));
    CHECK(x[0] == (entropy ? 0.5F : 1) && x[1] == (entropy ? 1.5F : 1), x[0], x[1]);
    CHECK(std::abs(dual - (entropy ? -std::log(2) : 1)) < 1e-8, dual);
  }
}

// Columns whose threads, neighbours and lanes change.
struct Ranges {
  std::int64_t count = 0;

  ParallelFor one_by_one() {
    return {[](void* context, std::int64_t count, std::int64_t grain, ParallelFor::Body body, void* argument) {
              static_cast<Ranges*>(context)->count += count;
              torch_iir::one_by_one(nullptr, count, grain, body, argument);
            },
            this};
  }
};

template <class Sample>
void same_bits(Case c) {
  Inputs<Sample> in(c);
  for_each_kernel(is_banded(c.shape), c.entropy, [&](NNLSSolver solver, const std::string& kernel) {
    const std::string where = kernel + c.text();
    Outputs<Sample> serial(in), halves(in), singles(in), alone(in);
    Ranges ranges;
    CHECK(nnls(problem(in, serial), solver) == Status::ok, where);
    other_machine(7);
    CHECK(nnls(problem(in, halves), solver, {two_halves, nullptr}) == Status::ok, where);
    other_machine(1);
    CHECK(nnls(problem(in, singles), solver, ranges.one_by_one()) == Status::ok, where);
    CHECK(serial.same_bits(halves) && serial.same_bits(singles), where);
    CHECK(ranges.count > 1 || emulated, where, ranges.count);
    for (int row = 0; row < in.grid.rows(); ++row) {
      for (const int j : {0, 1, c.k / 2, c.k - 1}) {
        if (emulated && (j == 1 || row % 2 == 1)) continue;
        NNLS<Sample> f = problem(in, alone);
        f.batch = {};
        f.k = 1;
        f.a.data = f.a.row(in.grid.batch(), row);
        f.b.data = &in.b.at(row, 0, j);
        f.mu.data = &in.mu.at(row, 0, j);
        if (c.entropy) f.prior.data = &in.prior.at(row, 0, j);
        f.x.data = &alone.x.at(row, 0, j);
        f.dual.data = &alone.dual.at(row, 0, j);
        f.outcome.data = &alone.outcome.at(row, 0, j);
        CHECK(nnls(f, solver) == Status::ok && alone.same_bits(serial, row, j), where, "alone", row, j);
      }
    }
  });
}

template <class Sample>
void same_bits_of_derivative(const Case& c, const Wanted& wanted) {
  DerivativeInputs<Sample> in(c, wanted);
  for_each_kernel(is_banded(c.shape), false, [&](NNLSSolver solver, const std::string& kernel) {
    const std::string where = kernel + "derivative " + c.text();
    DerivativeOutputs<Sample> serial(in), halves(in), singles(in);
    Ranges ranges;
    CHECK(nnls_derivative(problem(in, serial), solver) == Status::ok, where);
    other_machine(7);
    CHECK(nnls_derivative(problem(in, halves), solver, {two_halves, nullptr}) == Status::ok, where);
    other_machine(1);
    CHECK(nnls_derivative(problem(in, singles), solver, ranges.one_by_one()) == Status::ok, where);
    CHECK(serial.same_bits(halves) && serial.same_bits(singles), where);
    CHECK(ranges.count > 1 || emulated, where, ranges.count);
  });
}

void the_same_bits() {
  for (const Shape shape : {Shape::bank, Shape::by_row, Shape::signs}) {
    for (const bool shared : {false, true}) {
      Case c{7, 19, emulated ? 5 : slow ? 180 : 300};  // more than a task
      c.shape = shape;
      c.kinds = Kinds::broken;
      c.outer = 2;
      c.inner = 2;
      if (shared) c.shared_a = {false, true};
      same_bits<float>(c);
      c.kinds = Kinds::any;
      same_bits_of_derivative<float>(c, {shared, true, true, true});
      c.entropy = is_banded(shape);
      same_bits<double>(c);
    }
  }
}

// What is not finite in a column stays in it.
void not_finite() {
  for (const Shape shape : {Shape::bank, Shape::dense}) {
    for (const bool entropy : {false, true}) {
      if (entropy && !is_banded(shape)) continue;
      Case c{6, 20, emulated ? 7 : 37};
      c.shape = shape;
      c.kinds = Kinds::ordinary;
      c.outer = 2;
      c.entropy = entropy;
      Inputs<double> in(c);
      for_each_kernel(is_banded(shape), entropy, [&](NNLSSolver solver, const std::string& where) {
        Outputs<double> clean(in), out(in);
        CHECK(nnls(problem(in, clean), solver) == Status::ok, where);
        const auto strike = [&](double& at, int row, int column) {
          for (const double value : {std::nan(""), double{INFINITY}, -double{INFINITY}}) {
            const double before = std::exchange(at, value);
            CHECK(nnls(problem(in, out), solver) == Status::ok, where);
            at = before;
            for (int r = 0; r < 2; ++r) {
              for (int j = 0; j < c.k; ++j) {
                if (r == row && j == column) {
                  CHECK(out.x.is_nan(r, j) && out.dual.is_nan(r, j) && out.outcome.at(r, 0, j) == Outcome::failed,
                        where, value, r, j);
                } else {
                  CHECK(out.same_bits(clean, r, j), where, value, r, j);
                }
              }
            }
          }
        };
        for (const int j : {0, 5, c.k - 1}) {
          if (emulated && j == 0) continue;
          strike(in.b.at(1, j % c.m, j), 1, j);
          strike(in.mu.at(0, 0, j), 0, j);
        }
        if (entropy) strike(in.prior.at(0, 10, 3), 0, 3);
      });
    }
  }
  for (const Shape shape : {Shape::bank, Shape::dense}) {
    Case c{6, 20, emulated ? 10 : 37};
    c.shape = shape;
    DerivativeInputs<double> in(c, {});
    for_each_kernel(is_banded(shape), false, [&](NNLSSolver solver, const std::string& where) {
      DerivativeOutputs<double> clean(in), out(in);
      CHECK(nnls_derivative(problem(in, clean), solver) == Status::ok, where);
      for (const int j : {0, 9, c.k - 1}) {
        for (double* at : {&in.h.at(0, 3, j), &in.g.at(0, 7, j), &in.w.at(0, 7, j)}) {
          const double before = std::exchange(*at, std::nan(""));
          CHECK(nnls_derivative(problem(in, out), solver) == Status::ok, where);
          if (at == &in.h.at(0, 3, j)) CHECK(std::isnan(out.u.at(0, 3, j)), where);
          *at = before;
          for (int other = 0; other < c.k; ++other)
            if (other != j) CHECK(out.same_bits(clean, 0, other), where, "derivative", j, other);
        }
      }
    });
  }
  // In A, where it also means that there is no bank.
  Case c{6, 20, 9};
  c.outer = 2;
  Inputs<double> in(c);
  in.a.at(1, 2, 3) = std::nan("");
  for (const InstructionSet& set : instruction_sets()) {
    if (!set_isa(set.name)) continue;
    Outputs<double> out(in);
    CHECK(nnls(problem(in, out), NNLSSolver::newton) == (emulated ? Status::ok : Status::unsupported), set.name);
    for (int j = 0; emulated && j < c.k; ++j) {
      for (int r = 0; r < 2; ++r) {
        CHECK(out.x.is_nan(r, j) && out.dual.is_nan(r, j) && out.outcome.at(r, 0, j) == Outcome::failed, set.name, j);
      }
    }
    CHECK(nnls(problem(in, out)) == Status::ok, set.name);
    for (int j = 0; j < c.k; ++j) {
      CHECK(out.x.is_nan(1, j) && out.dual.is_nan(1, j) && out.outcome.at(1, 0, j) == Outcome::failed, set.name, j);
      CHECK(!out.x.is_nan(0, j) && out.outcome.at(0, 0, j) == Outcome::solved, set.name, j);
    }
  }
}

// On CUDA, columns that are too long for shared memory, and more matrices than are looked at together.
void many_and_long() {
  if constexpr (!emulated) return;
  for (const int m : {600, 801, 2571}) {
    Case c{m, m + 5, 2};
    c.entropy = m == 600;
    const std::string where = "long " + c.text();
    if (m < 1000) {
      Problem<double> p(c);
      Outputs<double> out(p.in);
      CHECK(nnls(problem(p.in, out), NNLSSolver::newton) == Status::ok, where);
      const Tally tally = p.check(out, NNLSSolver::newton, where);
      CHECK((c.entropy || tally.solved == tally.columns) && out.intact(), where, tally.solved, tally.columns);
    }
    if (slow && m > 1000) continue;
    DerivativeInputs<double> in(c, {});
    DerivativeOutputs<double> out(in);
    CHECK(nnls_derivative(problem(in, out), NNLSSolver::newton) == Status::ok, where);
    const Matrix a = in.matrix_of(0);
    for (int j = 0; j < c.k; ++j) check_derivative(in, out, a, 0, j, NNLSSolver::newton, where);
    CHECK(out.intact(), where);
  }
#if defined(TORCH_IIR_EMULATED)
  const int processors = std::exchange(cuda::emulator::machine().processors, 1);  // and so little memory
  for (const Shape shape : {Shape::adjacent, Shape::dense, Shape::far}) {
    Case c{3, shape == Shape::adjacent ? 100 : 5000, 1};
    c.shape = shape;
    c.outer = shape == Shape::adjacent ? 60 : 6;
    Inputs<float> in(c);
    if (shape == Shape::far) in.a.at(0, 2, c.n / 2) = 0;  // which leaves others that are none
    Outputs<float> out(in), alone(in);
    CHECK(nnls(problem(in, out)) == Status::ok, c.text());
    for (int row = 0; row < c.outer; ++row) {
      NNLS<float> f = problem(in, alone);
      f.batch = {};
      f.a.data = f.a.row(in.grid.batch(), row);
      f.b.data = &in.b.at(row, 0, 0);
      f.mu.data = &in.mu.at(row, 0, 0);
      f.x.data = &alone.x.at(row, 0, 0);
      f.dual.data = &alone.dual.at(row, 0, 0);
      f.outcome.data = &alone.outcome.at(row, 0, 0);
      const NNLSSolver solver = shape == Shape::adjacent ? NNLSSolver::newton : NNLSSolver::projected_gradient;
      CHECK(nnls(f, solver) == Status::ok && alone.same_bits(out, row, 0), c.text(), row);
    }
  }
  cuda::emulator::machine().processors = processors;
#endif
}

// What is left when the iterations are used up is marked as failed, and of use.
void few_iterations() {
  for (const Shape shape : {Shape::bank, Shape::adjacent, Shape::dense}) {
    for (const bool entropy : {false, true}) {
      if (entropy && !is_banded(shape)) continue;
      Case c{12, 40, emulated ? 12 : 30};
      c.shape = shape;
      c.entropy = entropy;
      Problem<double> p(c);
      for_each_kernel(is_banded(shape), entropy, [&](NNLSSolver solver, const std::string& kernel) {
        long failed_at_first = 0;
        for (int iterations = 1; iterations < 20; iterations += emulated ? 3 : 1) {
          const std::string where = kernel + c.text() + "iterations " + std::to_string(iterations) + ' ';
          Outputs<double> out(p.in);
          NNLS<double> f = problem(p.in, out);
          f.max_iterations = iterations;
          CHECK(nnls(f, solver) == Status::ok, where);
          p.check(out, solver, where);
          for (int j = 0; j < c.k; ++j)
            failed_at_first += iterations == 1 && out.outcome.at(0, 0, j) == Outcome::failed;
        }
        CHECK(failed_at_first > c.k / 2, kernel, c.text(), failed_at_first);
      });
    }
  }
}

// Nothing is written then. On CUDA, which does not wait for the device to look at A, nans are.
void refusals() {
  for (const InstructionSet& set : instruction_sets()) {
    if (!set_isa(set.name)) continue;
    for (const Shape shape : {Shape::adjacent, Shape::dense, Shape::far, Shape::three, Shape::negative}) {
      for (const bool entropy : {false, true}) {
        for (const bool only_last : {false, true}) {
          Case c{4, 10, emulated ? 3 : 20};
          c.shape = only_last ? Shape::adjacent : shape;
          c.outer = 2;
          c.entropy = entropy;
          Inputs<float> in(c);
          if (only_last && !is_banded(shape)) in.a.at(1, 0, 0) = in.a.at(1, 3, 0) = 1;
          for (const NNLSSolver solver : {NNLSSolver::automatic, NNLSSolver::newton, NNLSSolver::projected_gradient}) {
            const bool taken = solver == NNLSSolver::projected_gradient ? !entropy
                               : solver == NNLSSolver::newton           ? is_banded(shape)
                                                                        : is_banded(shape) || !entropy;
            const Outputs<float> untouched(in);
            Outputs<float> out(in);
            const Status status = nnls(problem(in, out), solver);
            const bool found_late = emulated && solver != NNLSSolver::projected_gradient && !taken;
            CHECK(status == (taken || found_late ? Status::ok : Status::unsupported), set.name, c.text(),
                  static_cast<int>(solver));
            CHECK(out.same_bits(untouched) != (taken || found_late), set.name, c.text(), static_cast<int>(solver));
            for (int row = 0; found_late && row < 2; ++row) {
              for (int j = 0; j < c.k; ++j) {
                CHECK(out.x.is_nan(row, j) && out.dual.is_nan(row, j), set.name, c.text(), row, j);
                CHECK(out.outcome.at(row, 0, j) == Outcome::failed, set.name, c.text(), row, j);
              }
            }
          }
          DerivativeInputs<float> derivative(c, {});
          if (only_last && !is_banded(shape)) derivative.a.at(1, 0, 0) = derivative.a.at(1, 3, 0) = 1;
          for (const NNLSSolver solver : {NNLSSolver::automatic, NNLSSolver::newton, NNLSSolver::projected_gradient}) {
            const bool taken = solver != NNLSSolver::newton || is_banded(shape);
            const DerivativeOutputs<float> untouched(derivative);
            DerivativeOutputs<float> out(derivative);
            const Status status = nnls_derivative(problem(derivative, out), solver);
            const bool found_late = emulated && !taken;
            CHECK(status == (taken || found_late ? Status::ok : Status::unsupported), set.name, c.text(),
                  static_cast<int>(solver));
            CHECK(out.same_bits(untouched) != (taken || found_late), set.name, c.text(), static_cast<int>(solver));
            for (int row = 0; found_late && row < 2; ++row) {
              for (int j = 0; j < c.k; ++j) CHECK(out.u.is_nan(row, j) && out.p.is_nan(row, j), set.name, c.text());
            }
          }
        }
      }
    }
  }
  Case none{4, 10, 5};
  none.outer = 0;
  run_all(none);
}

}  // namespace

int main() {
  by_hand();
  every_size();
  banks();
  batches();
  any_matrix();
  the_same_bits();
  not_finite();
  many_and_long();
  few_iterations();
  refusals();
  return check::result();
}
