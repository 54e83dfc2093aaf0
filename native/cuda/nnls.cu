// nnls and nnls_derivative on CUDA: what is launched, on which memory.
//
// Whether newton takes the matrices is found out on the device. With NNLSSolver::automatic the kernels of both methods
// are put into the queue, and those of the one that does not run return at once. Where newton is asked for, or there is
// a prior, and a matrix is no bank, nobody can say so without waiting: the results are nan, the outcomes failed.
//
// Memory      a bank takes about as much as 15 numbers for each of its columns. Where matrices are many, they are taken
//             in stretches, so that it is bounded; first of all their entries are then looked at in a launch of its
//             own, as one that is no bank decides for all. Blocks of the projected gradient, and columns too long for
//             shared memory, have memory of their own: as many of them run as there is memory within bounds
#include "nnls_banded_derivative.h"
#include "nnls_newton.h"
#include "nnls_projected_gradient.h"

namespace torch_iir::cuda {
namespace {

constexpr std::int64_t most_shared = 48 << 10;     // of a warp of newton: 4 of them fit on a multiprocessor then
constexpr std::int64_t most_together = 100 << 10;  // of a block of the derivative: 2 of them

std::int64_t at_most(std::int64_t count, std::int64_t bytes_of_one, std::int64_t bytes) {
  return maximum<std::int64_t>(minimum(count, bytes / maximum<std::int64_t>(bytes_of_one, 1)), 1);
}
// Bounds each kind of scratch memory, but for what one block or matrix needs: 66 MB on 132 multiprocessors.
std::int64_t most_bytes() { return std::int64_t{device().processors} * (512 << 10); }
std::int64_t bytes_of(std::int64_t doubles) { return doubles * static_cast<std::int64_t>(sizeof(double)); }
std::int64_t in_blocks(std::int64_t count, std::int64_t of) { return (count + of - 1) / of; }

// Rows and columns of a bank are counted in ints.
template <class Problem>
bool too_large_for_banks(const Problem& f) {
  constexpr std::int64_t most = std::numeric_limits<int>::max() - 1024;
  return f.m > most || f.n > most;
}

template <class Problem>
std::int64_t matrices_of(const Problem& p) {
  return p.batch.rows() / p.sharing;
}

// use(stretch) for all rows, so many matrices at a time, until one fails.
template <class Problem, class Use>
Status for_stretches(const Problem& p, std::int64_t at_a_time, Use&& use) {
  for (std::int64_t first = 0; first < matrices_of(p); first += at_a_time) {
    const std::int64_t matrices = minimum(at_a_time, matrices_of(p) - first);
    const Status status = use(Stretch{first, matrices, first * p.sharing, matrices * p.sharing});
    if (status != Status::ok) return status;
  }
  return Status::ok;
}

// Memory for the banks, and kernels that find them.
class BankFinder {
 public:
  template <class Problem>
  BankFinder(const Problem& p, const Queue& queue, Scratch& scratch)
      : queue_(queue), at_a_time_(at_most(matrices_of(p), Banks::bytes_of_one(p.m, p.n), most_bytes())) {
    banks_.m = p.m;
    banks_.n = p.n;
    banks_.take(scratch, at_a_time_);
    counters_ = 1 + at_a_time_ * (p.m + 1);
    banks_.violations = scratch.template take<unsigned>(counters_);
    banks_.count = banks_.violations + 1;
  }
  const Banks& banks() const { return banks_; }
  std::int64_t at_a_time() const { return at_a_time_; }

  // Says of all matrices what can be said before the first stretch.
  template <class Problem>
  Status begin(const Problem& p) {
    const Status status = set_zero(queue_, banks_.violations, sizeof(unsigned));
    if (status != Status::ok || at_a_time_ >= matrices_of(p)) return status;
    return look(p, {0, matrices_of(p), 0, p.batch.rows()}, true);
  }
  template <class Problem>
  Status find(const Problem& p, const Stretch& stretch) {
    Status status = set_zero(queue_, banks_.count, (counters_ - 1) * static_cast<std::int64_t>(sizeof(unsigned)));
    if (status == Status::ok) status = look(p, stretch, false);
    if (status != Status::ok) return status;
    return launch(queue_, {minimum(stretch.matrices * (p.m + 1), most_blocks), warp_size}, sort_entries, banks_,
                  stretch.matrices);
  }

 private:
  template <class Problem>
  Status look(const Problem& p, const Stretch& stretch, bool only_count) {
    const std::int64_t blocks = minimum(in_blocks(stretch.matrices * p.n, find_threads), most_blocks);
    if (blocks == 0) return Status::ok;
    return launch(queue_, {blocks, find_threads}, find_entries, p.a, p.batch, p.sharing, stretch.first_matrix,
                  stretch.matrices, banks_, only_count);
  }

  const Queue& queue_;
  std::int64_t at_a_time_, counters_ = 0;
  Banks banks_{};
};

// ---- nnls

template <bool prior>
Status run_newton(NNLSProblem p, const Queue& queue, Choice& choice, Scratch& scratch) {
  const std::int64_t rows = p.batch.rows();
  BankFinder finder(p, queue, scratch);
  if (!p.outcome && (prior || p.m == 0)) {  // it decides about x
    p.outcome.data = scratch.take<Outcome>(rows * p.k);
    std::int64_t length = p.k;
    for (int d = p.batch.dims - 1; d >= 0; --d) {
      p.outcome.stride[d] = length;
      length *= p.batch.size[d];
    }
  }
  const std::int64_t bytes = bytes_of(NewtonMemory<prior>::doubles(p.m, p.n));
  const bool outside = bytes > most_shared;
  const std::int64_t columns = minimum(finder.at_a_time(), matrices_of(p)) * p.sharing * p.k;
  std::int64_t most = most_blocks;
  double* memory = nullptr;
  if (outside) {
    most = at_most(minimum<std::int64_t>(columns, std::int64_t{16} * device().processors), bytes, most_bytes());
    memory = scratch.take<double>(most * NewtonMemory<prior>::doubles(p.m, p.n));
  }
  if (!scratch.ok()) return Status::out_of_memory;
  choice.violations = finder.banks().violations;
  if (const Status status = finder.begin(p); status != Status::ok) return status;
  const auto distance = [](std::int64_t step) { return step < 0 ? -step : step; };
  const bool columns_beside = p.k >= warp_size && distance(p.x.step) <= distance(p.x.down);
  const std::int64_t across = columns_beside ? p.k : p.n, along = columns_beside ? p.n : p.k;
  return for_stretches(p, finder.at_a_time(), [&](const Stretch& stretch) {
    Status status = finder.find(p, stretch);
    if (status != Status::ok) return status;
    status = launch(queue, {minimum(stretch.rows * p.k, most), warp_size, outside ? 0 : bytes},
                    outside ? newton_columns<prior, true> : newton_columns<prior, false>, p, stretch, finder.banks(),
                    choice, memory);
    const std::int64_t items = stretch.rows * in_blocks(across, write_threads) * in_blocks(along, write_slice);
    if (status != Status::ok || items == 0) return status;
    return launch(queue, {minimum(items, most_blocks), write_threads}, write_x<prior>, p, stretch, finder.banks(),
                  choice, columns_beside);
  });
}

Status run_projected_gradient(const NNLSProblem& p, const Queue& queue, const Choice& choice, Scratch& scratch) {
  const int threads = dense_threads(p.m, p.n);
  const std::int64_t processors = device().processors;
  const std::int64_t bytes_of_matrix = bytes_of(p.n + 1 + GradientMatrices::work_doubles(p.m, p.n));
  const std::int64_t at_a_time = at_most(matrices_of(p), bytes_of_matrix, most_bytes());
  const std::int64_t matrix_blocks = minimum(at_a_time, 4 * processors);
  const std::int64_t doubles = ProjectedGradient::doubles(p.m, p.n);
  const std::int64_t most =
      at_most(minimum(at_a_time * p.sharing * p.k, 6 * processors), bytes_of(doubles), most_bytes());
  GradientMatrices matrices;
  matrices.norm = scratch.take<double>(at_a_time);
  matrices.curve = scratch.take<double>(at_a_time * p.n);
  matrices.work = scratch.take<double>(matrix_blocks * GradientMatrices::work_doubles(p.m, p.n));
  double* const memory = scratch.take<double>(most * doubles);
  if (!scratch.ok()) return Status::out_of_memory;
  return for_stretches(p, at_a_time, [&](const Stretch& stretch) {
    const Status status = launch(queue, {minimum(stretch.matrices, matrix_blocks), threads, sizeof(DenseShared)},
                                 gradient_matrices, p, stretch, choice, matrices);
    if (status != Status::ok) return status;
    return launch(queue, {minimum(stretch.rows * p.k, most), threads, sizeof(DenseShared)}, projected_gradient, p,
                  stretch, choice, matrices, memory);
  });
}

template <class Sample>
Status run(const NNLS<Sample>& f, const Queue& queue, NNLSSolver solver) {
  if (f.batch.rows() == 0 || f.k == 0) return Status::ok;
  const bool gradient = solver == NNLSSolver::projected_gradient;
  if (gradient && f.prior) return Status::unsupported;
  NNLSProblem p{f.batch,
                f.m,
                f.n,
                f.k,
                1,
                f.tolerance,
                f.max_iterations,
                f.a,
                any_matrices<const double>(f.b),
                any_matrices<const double>(f.prior),
                f.mu,
                any_matrices<double>(f.x),
                f.dual,
                f.outcome};
  p.sharing = share(p.batch, p.a,
                    {p.a.stride, p.b.stride, p.prior.stride, p.mu.stride, p.x.stride, p.dual.stride, p.outcome.stride});
  Scratch scratch(queue);
  Choice choice;
  choice.instead = solver == NNLSSolver::automatic && !f.prior;
  if (too_large_for_banks(f)) {
    if (!gradient && !choice.instead) return Status::unsupported;
  } else if (!gradient) {
    const Status status =
        f.prior ? run_newton<true>(p, queue, choice, scratch) : run_newton<false>(p, queue, choice, scratch);
    if (status != Status::ok || !choice.instead) return status;
  }
  return run_projected_gradient(p, queue, choice, scratch);
}

// ---- the derivative

Status run_banded_derivative(const NNLSDerivativeProblem& p, const Queue& queue, Choice& choice, Scratch& scratch) {
  BankFinder finder(p, queue, scratch);
  const std::int64_t bytes = bytes_of(derivative_vectors * derivative_pitch(p.m));
  int columns = derivative_columns;
  while (columns > 1 && (columns * bytes > most_together || columns / 2 >= p.k)) columns /= 2;
  const bool outside = columns * bytes > most_together;
  const std::int64_t groups = in_blocks(p.k, columns);
  std::int64_t most = most_blocks;
  double* memory = nullptr;
  if (outside) {
    most = at_most(minimum<std::int64_t>(p.batch.rows() * groups, std::int64_t{16} * device().processors),
                   columns * bytes, most_bytes());
    memory = scratch.take<double>(most * columns * derivative_vectors * derivative_pitch(p.m));
  }
  if (!scratch.ok()) return Status::out_of_memory;
  choice.violations = finder.banks().violations;
  if (const Status status = finder.begin(p); status != Status::ok) return status;
  return for_stretches(p, finder.at_a_time(), [&](const Stretch& stretch) {
    const Status status = finder.find(p, stretch);
    if (status != Status::ok) return status;
    return launch(queue, {minimum(stretch.rows * groups, most), columns * warp_size, outside ? 0 : columns * bytes},
                  outside ? banded_derivative<true> : banded_derivative<false>, p, stretch, finder.banks(), choice,
                  memory);
  });
}

Status run_dense_derivative(const NNLSDerivativeProblem& p, const Queue& queue, const Choice& choice,
                            Scratch& scratch) {
  const std::int64_t rows = p.batch.rows(), processors = device().processors;
  const std::int64_t doubles = DenseDerivative::doubles(p.m, p.n);
  const std::int64_t most = at_most(minimum(rows * p.k, 6 * processors), bytes_of(doubles), most_bytes());
  double* const memory = scratch.take<double>(most * doubles);
  if (!scratch.ok()) return Status::out_of_memory;
  return launch(queue, {most, dense_threads(p.m, p.n), sizeof(DenseShared)}, dense_derivative, p, rows, choice, memory);
}

template <class Sample>
Status run(const NNLSDerivative<Sample>& f, const Queue& queue, NNLSSolver solver) {
  if (f.batch.rows() == 0 || f.k == 0) return Status::ok;
  NNLSDerivativeProblem p{f.batch,
                          f.m,
                          f.n,
                          f.k,
                          1,
                          f.support,
                          f.a,
                          any_matrices<const double>(f.w),
                          any_matrices<const double>(f.g),
                          f.mu,
                          f.h,
                          f.u,
                          any_matrices<double>(f.p)};
  p.sharing =
      share(p.batch, p.a, {p.a.stride, p.w.stride, p.g.stride, p.mu.stride, p.h.stride, p.u.stride, p.p.stride});
  Scratch scratch(queue);
  Choice choice;
  choice.instead = solver == NNLSSolver::automatic;
  if (too_large_for_banks(f)) {
    if (solver == NNLSSolver::newton) return Status::unsupported;
  } else if (solver != NNLSSolver::projected_gradient) {
    const Status status = run_banded_derivative(p, queue, choice, scratch);
    if (status != Status::ok || !choice.instead) return status;
  }
  return run_dense_derivative(p, queue, choice, scratch);
}

}  // namespace

#define TORCH_IIR_NNLS(Sample)                                                                                         \
  Status nnls(const NNLS<Sample>& f, const Queue& queue, NNLSSolver solver) noexcept { return run(f, queue, solver); } \
  Status nnls_derivative(const NNLSDerivative<Sample>& f, const Queue& queue, NNLSSolver solver) noexcept {            \
    return run(f, queue, solver);                                                                                      \
  }
TORCH_IIR_NNLS(float)
TORCH_IIR_NNLS(double)
TORCH_IIR_NNLS(Half)
TORCH_IIR_NNLS(BFloat16)
#undef TORCH_IIR_NNLS

}  // namespace torch_iir::cuda
