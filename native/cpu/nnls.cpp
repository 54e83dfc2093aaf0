// nnls and its derivative: which method runs, and on what. Banks, whose systems are tridiagonal: nnls_newton.h and
// nnls_banded_derivative.h; any matrix: nnls_projected_gradient.h and nnls_dense.h.
#include "torch_iir/nnls.h"

#include "nnls_banded_derivative.h"
#include "nnls_dense.h"
#include "nnls_newton.h"
#include "nnls_projected_gradient.h"
#include "rows.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

template <class Problem>
MatrixView matrix_of(const Problem& f, std::int64_t row) {
  return {f.a.row(f.batch, row), f.a.down, f.a.step, f.m, f.n};
}

// work(bank, row) for each matrix, which the `sharing` rows from `row` on have in common. Status::unsupported if one of
// them is no bank, before any work.
template <class Problem, class Work>
Status for_banks(const Problem& f, std::int64_t sharing, const Context& context, Work work) {
  const std::int64_t rows = f.batch.rows();
  const auto each = [&](auto&& use) {
    for (std::int64_t row = 0; row < rows; row += sharing) {
      Scratch scratch(Scratch::bytes<Bank>(1) + Bank::bytes(f.m, f.n), context, 0);  // a plan has one matrix
      if (context.step == Step::measure) return use(Bank::largest_of(f.m, f.n), row);
      if (!scratch) return Status::out_of_memory;
      Bank& bank = *scratch.take<Bank>(1);
      if (context.loads()) {
        bank = Bank();
        if (!bank.build(scratch, matrix_of(f, row))) return Status::unsupported;
      }
      if (!context.runs()) continue;
      if (const Status status = use(bank, row); status != Status::ok) return status;
    }
    return Status::ok;
  };
  if (rows > sharing) {
    const Status status = each([](const Bank&, std::int64_t) { return Status::ok; });
    if (status != Status::ok) return status;
  }
  return each(work);
}

// work(row, begin, end) for the columns [first, last), those of all rows counted together, in stretches of one row.
template <class Work>
void for_columns(std::int64_t k, std::int64_t first, std::int64_t last, Work work) {
  while (first < last) {
    const std::int64_t begin = first % k, left = last - first;
    const std::int64_t count = left < k - begin ? left : k - begin;
    work(first / k, begin, begin + count);
    first += count;
  }
}

// Columns of a bank that are worth a thread of their own.
inline constexpr std::int64_t columns_per_task = 64;

template <class Sample>
Status newton(NNLS<Sample> f, const Context& context) {
  // What ended how decides about x under a prior, wanted or not.
  Scratch outcomes(f.outcome ? 0 : Scratch::bytes<Outcome>(f.batch.rows() * f.k));
  if (!outcomes) return Status::out_of_memory;
  if (!f.outcome) {
    f.outcome.data = outcomes.take<Outcome>(f.batch.rows() * f.k);
    std::int64_t length = f.k;
    for (int d = f.batch.dims - 1; d >= 0; --d) {
      f.outcome.stride[d] = length;
      length *= f.batch.size[d];
    }
  }
  const std::int64_t sharing = share(
      f.batch, f.a, {f.a.stride, f.b.stride, f.mu.stride, f.prior.stride, f.x.stride, f.dual.stride, f.outcome.stride});
  return for_banks(f, sharing, context, [&](const Bank& bank, std::int64_t row) {
    const auto work = [&](std::int64_t first, std::int64_t last) {
      const std::int64_t group = 1 + first / columns_per_task;
      first += row * f.k;
      last += row * f.k;
      bool done = !f.prior || Newton<Sample, true>(f, bank, context).run(first, last, group, false, false);
      done = done && Newton<Sample, false>(f, bank, context).run(first, last, group, bool(f.prior), false);
      done = done && Newton<Sample, false>(f, bank, context).run(first, last, group, true, true);
      if (!done) return false;
      for_columns(f.k, first, last, [&](std::int64_t at, std::int64_t begin, std::int64_t end) {
        if (f.prior) {
          write_x<Sample, true>(f, bank, at, begin, end);
        } else {
          write_x<Sample, false>(f, bank, at, begin, end);
        }
      });
      return true;
    };
    if (context.step == Step::measure) return work(f.k - 1, f.k) ? Status::ok : Status::out_of_memory;
    // The ranges of a plan, which keeps memory for each, begin at multiples of columns_per_task whoever splits them.
    const std::int64_t unit = context.step == Step::everything ? 1 : columns_per_task, columns = sharing * f.k;
    return for_ranges(context, (columns + unit - 1) / unit, columns_per_task / unit,
                      [&](std::int64_t first, std::int64_t last) {
                        return work(first * unit, last * unit < columns ? last * unit : columns);
                      });
  });
}

template <class Sample>
Status banded_derivative(NNLSDerivative<Sample> f, const Context& context) {
  const std::int64_t sharing =
      share(f.batch, f.a, {f.a.stride, f.mu.stride, f.w.stride, f.g.stride, f.h.stride, f.u.stride, f.p.stride});
  return for_banks(f, sharing, context, [&](const Bank& bank, std::int64_t row) {
    const auto work = [&](std::int64_t first, std::int64_t last) {
      bool done = true;
      for_columns(f.k, row * f.k + first, row * f.k + last, [&](std::int64_t at, std::int64_t begin, std::int64_t end) {
        done = done && BandedDerivative<Sample>(f, bank).run(at, begin, end);
      });
      return done;
    };
    return for_ranges(context, sharing * f.k, columns_per_task, work);
  });
}

template <class Sample>
Status run(const NNLS<Sample>& f, NNLSSolver solver, const Context& context) {
  if (f.batch.rows() == 0 || f.k == 0) return Status::ok;
  const bool any_matrix = solver != NNLSSolver::newton && !f.prior;
  if (solver == NNLSSolver::projected_gradient) {
    return any_matrix ? projected_gradient(f, context) : Status::unsupported;
  }
  const Status status = newton(f, context);
  return status == Status::unsupported && any_matrix ? projected_gradient(f, context) : status;
}

template <class Sample>
Status run(const NNLSDerivative<Sample>& f, NNLSSolver solver, const Context& context) {
  if (f.batch.rows() == 0 || f.k == 0) return Status::ok;
  if (solver == NNLSSolver::projected_gradient) return dense_derivative(f, context);
  const Status status = banded_derivative(f, context);
  return status == Status::unsupported && solver == NNLSSolver::automatic ? dense_derivative(f, context) : status;
}

}  // namespace

#define TORCH_IIR_NNLS(Sample)                                                                         \
  Status nnls(const NNLS<Sample>& f, NNLSSolver s, const Context& c) noexcept { return run(f, s, c); } \
  Status nnls_derivative(const NNLSDerivative<Sample>& f, NNLSSolver s, const Context& c) noexcept {   \
    return run(f, s, c);                                                                               \
  }

TORCH_IIR_NNLS(float)
TORCH_IIR_NNLS(double)
TORCH_IIR_NNLS(Half)
TORCH_IIR_NNLS(BFloat16)

}  // namespace torch_iir::TORCH_IIR_ISA
