// lfilter_tv on CUDA. Without b the drive is x, and all samples are one stretch. With b, stretches of the drive lie in
// scratch memory, in double: 32 MB at most unless rows are many, which stay in the second cache.
#include "lfilter_tv_run.h"

namespace torch_iir::cuda {
namespace {

inline constexpr int drive_threads = 256;

template <class State>
struct Drive {
  Batch batch;
  std::int64_t rows, begin, end;
  AnyTaps<State> b;
  AnyRows<const State> x, zx;
  AnyRows<State> to;
};

// B x of samples [begin, end): a thread for each sample of a row.
template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(drive_threads, 4) tv_drive(Drive<State> d) {
  using Value = Computed<State>;
  const std::int64_t length = d.end - d.begin, pieces = (length + threads() - 1) / threads();
  for (std::int64_t item = block(); item < d.rows * pieces; item += blocks()) {
    const std::int64_t row = item / pieces, t = d.begin + item % pieces * threads() + thread();
    if (t >= d.end) continue;
    const std::int64_t b = d.b.row(d.batch, row), x = d.x.row(d.batch, row), zx = d.zx.row(d.batch, row);
    Value sum = 0.0;
    for (int j = 0; j < d.b.length; ++j) {
      const std::int64_t from = t - d.b.first - j;
      const Value value = from >= 0 ? load(d.x, x + from * d.x.step)
                          : d.zx    ? load(d.zx, zx + (-1 - from) * d.zx.step)
                                    : Value(0.0);
      sum += tap(d.b, b, t, j) * value;
    }
    store(d.to, d.to.row(d.batch, row) + t - d.begin, sum);
  }
}

template <class State, class Sample, class Coefficient>
Status run(const LFilterTV<Sample, Coefficient, State>& p, const Queue& queue, Algorithm algorithm) {
  Recurrence<State> r;
  r.batch = p.batch;
  r.rows = p.batch.rows();
  if (r.rows == 0) return Status::ok;
  r.a = AnyTaps<State>(p.a, p.period);
  const int order = r.order();
  if (!takes_recurrence<State>(algorithm, order) || (p.a.first == 0 && p.a.length == 0)) return Status::unsupported;
  r.end = p.samples;
  r.in = any_type<const State>(p.x);
  r.out = any_type<State>(p.y);
  r.from = p.zi;
  r.to = p.zf;
  Scratch scratch(queue);
  Again memory(scratch);
  if (!p.b || p.samples == 0) return run_recurrence<State, false>(r, queue, algorithm, memory);

  const std::int64_t length = stretch_of(r.rows, p.samples, 0);
  auto* const drive = scratch.take<Computed<State>>(r.rows * length);
  auto* const between = scratch.take<Computed<State>>(length < p.samples ? r.rows * order : 0);
  if (!scratch.ok()) return Status::out_of_memory;
  Drive<State> d{
      p.batch, r.rows, 0, 0, AnyTaps<State>(p.b, p.period), r.in, p.zx, own_rows<State>(drive, p.batch, length)};
  r.in = own_rows<const State>(drive, p.batch, length);
  for (r.begin = 0; r.begin < p.samples; r.begin = r.end) {
    r.end = minimum(r.begin + length, p.samples);
    r.in_begin = d.begin = r.begin;
    d.end = r.end;
    if (r.begin > 0) r.from = own_rows<const State>(between, p.batch, order);
    r.to = r.end == p.samples ? p.zf : own_rows<State>(between, p.batch, order);
    const std::int64_t pieces = r.rows * ((r.steps() + drive_threads - 1) / drive_threads);
    Status status = launch(queue, {minimum(pieces, most_blocks), drive_threads}, tv_drive<State>, d);
    if (status == Status::ok) status = run_recurrence<State, false>(r, queue, algorithm, memory);
    if (status != Status::ok) return status;
  }
  return Status::ok;
}

}  // namespace

#define TORCH_IIR_INSTANTIATE(State, ...)                                                                \
  Status lfilter_tv(const LFilterTV<__VA_ARGS__>& p, const Queue& queue, Algorithm algorithm) noexcept { \
    return run<State>(p, queue, algorithm);                                                              \
  }
TORCH_IIR_INSTANTIATE(double, float)
TORCH_IIR_INSTANTIATE(double, float, double)
TORCH_IIR_INSTANTIATE(double, double)
TORCH_IIR_INSTANTIATE(double, Half)
TORCH_IIR_INSTANTIATE(double, Half, double)
TORCH_IIR_INSTANTIATE(double, BFloat16)
TORCH_IIR_INSTANTIATE(double, BFloat16, double)
TORCH_IIR_INSTANTIATE(std::complex<double>, std::complex<double>, std::complex<double>, std::complex<double>)
#undef TORCH_IIR_INSTANTIATE

}  // namespace torch_iir::cuda
