// torch_iir::nnls and nnls_derivative: from tensors to the kernels' parameters.
#include "nnls.h"

#include <algorithm>
#include <limits>

#include "storage.h"
#include "torch_iir/nnls.h"

namespace torch_iir::ops {
namespace {

// An argument of real numbers with at least so many dimensions.
Tensor real(const char* name, Handle handle, int core) {
  Tensor tensor = argument(name, std::move(handle));
  STD_TORCH_CHECK(!tensor || !is_complex(tensor.dtype), name, " must be real");
  STD_TORCH_CHECK(!tensor || tensor.dims >= core, name, " must have at least ", core, " dimensions, got ",
                  describe({&tensor}));
  return tensor;
}

// Its last dimensions.
void check_core(const Tensor& tensor, std::initializer_list<std::int64_t> core, const Tensor& a) {
  STD_TORCH_CHECK(!tensor || std::equal(core.begin(), core.end(), tensor.size + tensor.dims - core.size()),
                  "shapes do not fit together: ", describe({&tensor, &a}));
}

NNLSSolver solver_of(std::int64_t number) {
  STD_TORCH_CHECK(0 <= number && number <= static_cast<std::int64_t>(NNLSSolver::projected_gradient),
                  "solver must be 0 (automatic), 1 (newton) or 2 (projected_gradient), got ", number);
  return static_cast<NNLSSolver>(number);
}

void check(Status status, NNLSSolver solver, bool prior) {
  if (status == Status::ok) return;
  STD_TORCH_CHECK(status != Status::out_of_memory, "out of memory");
  STD_TORCH_CHECK(status == Status::unsupported, message(status));
  STD_TORCH_CHECK(solver != NNLSSolver::projected_gradient || !prior, "the solver projected_gradient takes no prior");
  STD_TORCH_CHECK(false, "a must be banded for newton, and with a prior: not negative, with at most two entries in a ",
                  "column, and these in adjacent rows");
}

// The tensor of the batch's shape and these dimensions.
Handle empty_with(Shape& shape, std::initializer_list<std::int64_t> core, DType dtype) {
  std::copy(core.begin(), core.end(), shape.size + shape.dims);
  return empty(shape.dims + static_cast<int>(core.size()), shape.size, dtype);
}

template <class T>
Matrices<T> fresh_matrices(T* data, std::int64_t rows, std::int64_t columns, const Batch& batch) {
  Strides stride;
  row_major(batch, rows * columns, stride);
  return matrices_of<false>(data, columns, 1, stride, batch);
}

struct Problem {
  Tensor b, a, mu, prior;
  NNLSSolver solver;
  double tolerance;
  int max_iterations;
};

template <class T>
std::tuple<Returned, Returned, Returned> forward(const Problem& given) {
  const OnDevice on({&given.b, &given.a, &given.mu, &given.prior});
  const View<T> b(given.b), prior(given.prior);
  const SmallIn<double> a(given.a), mu(given.mu);
  const std::int64_t m = given.a.size[given.a.dims - 2], n = given.a.length(), k = given.b.length();
  check_core(given.b, {m, k}, given.a);
  check_core(given.mu, {k}, given.b);
  check_core(given.prior, {n, k}, given.a);

  Strides b_stride, a_stride, mu_stride, prior_stride, outcome_stride;
  const Operand operands[] = {b.operand(b_stride, 2), a.operand(a_stride, 2), mu.operand(mu_stride),
                              prior.operand(prior_stride, 2)};
  Shape shape;
  kernels::NNLS<T> kernel;
  Batch& batch = kernel.batch;
  ops::check(broadcast({operands, given.prior ? 4u : 3u}, shape, batch), {&given.b, &given.a, &given.mu, &given.prior});

  Handle x = empty_with(shape, {n, k}, given.b.dtype), dual = empty_with(shape, {m, k}, DType::float64);
  shape.size[shape.dims] = k;
  Handle outcome = empty_int32(shape.dims + 1, shape.size);

  kernel.m = m;
  kernel.n = n;
  kernel.k = k;
  kernel.tolerance = given.tolerance;
  kernel.max_iterations = given.max_iterations;
  kernel.a = matrices_of<false>(a.data, a.down(), a.step(), a_stride, batch);
  kernel.b = matrices_of<false>(b.data, b.down(), b.step(), b_stride, batch);
  kernel.mu = rows(mu.data, mu.step(), mu_stride, batch);
  if (given.prior) kernel.prior = matrices_of<false>(prior.data, prior.down(), prior.step(), prior_stride, batch);
  kernel.x = fresh_matrices(static_cast<T*>(data(x)), n, k, batch);
  kernel.dual = fresh_matrices(static_cast<double*>(data(dual)), m, k, batch);
  row_major(batch, k, outcome_stride);
  kernel.outcome = rows(static_cast<Outcome*>(data(outcome)), 1, outcome_stride, batch);
  const auto run = [](const auto&... with) { return kernels::nnls(with...); };
  check(on.run(run, kernel, given.solver), given.solver, bool(given.prior));
  return {Returned{x.release()}, Returned{dual.release()}, Returned{outcome.release()}};
}

struct System {
  Tensor g, h, w, a, mu;
  NNLSSolver solver;
  bool support, needs_p;
};

template <class T>
std::tuple<Returned, Returned> derivative(const System& given) {
  const OnDevice on({&given.w, &given.a, &given.mu, &given.g, &given.h});
  const View<T> g(given.g), w(given.w);
  const View<double> h(given.h);
  const SmallIn<double> a(given.a), mu(given.mu);
  const std::int64_t m = given.a.size[given.a.dims - 2], n = given.a.length(), k = given.w.length();
  check_core(given.w, {n, k}, given.a);
  check_core(given.g, {n, k}, given.a);
  check_core(given.h, {m, k}, given.a);
  check_core(given.mu, {k}, given.w);

  Strides g_stride, h_stride, w_stride, a_stride, mu_stride;
  Operand operands[5] = {w.operand(w_stride, 2), a.operand(a_stride, 2), mu.operand(mu_stride)};
  std::size_t count = 3;
  if (given.g) operands[count++] = g.operand(g_stride, 2);
  if (given.h) operands[count++] = h.operand(h_stride, 2);
  Shape shape;
  kernels::NNLSDerivative<T> kernel;
  Batch& batch = kernel.batch;
  ops::check(broadcast({operands, count}, shape, batch), {&given.g, &given.h, &given.w, &given.a, &given.mu});

  Handle u = empty_with(shape, {m, k}, DType::float64);
  Handle p = given.needs_p ? empty_with(shape, {n, k}, given.w.dtype) : empty_for_nothing(given.w.dtype);

  kernel.m = m;
  kernel.n = n;
  kernel.k = k;
  kernel.support = given.support;
  kernel.a = matrices_of<false>(a.data, a.down(), a.step(), a_stride, batch);
  kernel.mu = rows(mu.data, mu.step(), mu_stride, batch);
  kernel.w = matrices_of<false>(w.data, w.down(), w.step(), w_stride, batch);
  if (given.g) kernel.g = matrices_of<false>(g.data, g.down(), g.step(), g_stride, batch);
  if (given.h) kernel.h = matrices_of<false>(h.data, h.down(), h.step(), h_stride, batch);
  kernel.u = fresh_matrices(static_cast<double*>(data(u)), m, k, batch);
  if (given.needs_p) kernel.p = fresh_matrices(static_cast<T*>(data(p)), n, k, batch);
  const auto run = [](const auto&... with) { return kernels::nnls_derivative(with...); };
  check(on.run(run, kernel, given.solver), given.solver, false);
  return {Returned{u.release()}, Returned{p.release()}};
}

}  // namespace

std::tuple<Returned, Returned, Returned> nnls(AtenTensorHandle b, AtenTensorHandle a, AtenTensorHandle mu,
                                              std::optional<AtenTensorHandle> prior, std::int64_t solver,
                                              double tolerance, std::int64_t max_iterations) {
  Handle b_(b), a_(a), mu_(mu), prior_(prior.value_or(nullptr));
  STD_TORCH_CHECK(tolerance >= 0, "tolerance must not be negative, got ", tolerance);
  STD_TORCH_CHECK(1 <= max_iterations && max_iterations <= std::numeric_limits<int>::max(),
                  "max_iterations must be at least 1 and an int, got ", max_iterations);
  const Problem given{real("b", std::move(b_), 2),         real("a", std::move(a_), 2), real("mu", std::move(mu_), 1),
                      real("prior", std::move(prior_), 2), solver_of(solver),           tolerance,
                      static_cast<int>(max_iterations)};
  STD_TORCH_CHECK(!given.prior || given.prior.dtype == given.b.dtype, "prior must have the dtype of b");
  return visit_real(given.b.dtype, [&]<class T>() { return forward<T>(given); });
}

std::tuple<Returned, Returned> nnls_derivative(std::optional<AtenTensorHandle> g, std::optional<AtenTensorHandle> h,
                                               AtenTensorHandle w, AtenTensorHandle a, AtenTensorHandle mu,
                                               bool support, std::int64_t solver, bool needs_p) {
  Handle g_(g.value_or(nullptr)), h_(h.value_or(nullptr)), w_(w), a_(a), mu_(mu);
  const System given{real("g", std::move(g_), 2),
                     real("h", std::move(h_), 2),
                     real("w", std::move(w_), 2),
                     real("a", std::move(a_), 2),
                     real("mu", std::move(mu_), 1),
                     solver_of(solver),
                     support,
                     needs_p};
  STD_TORCH_CHECK(!given.g || given.g.dtype == given.w.dtype, "g must have the dtype of w");
  STD_TORCH_CHECK(!given.h || given.h.dtype == DType::float64, "h must be float64, as u is");
  return visit_real(given.w.dtype, [&]<class T>() { return derivative<T>(given); });
}

}  // namespace torch_iir::ops
