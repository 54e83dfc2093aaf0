#include "torch_iir/inverse_mel_plan.h"

#include <cmath>
#include <limits>
#include <new>
#include <utility>

#include "isa.h"
#include "plan_rows.h"

namespace torch_iir {
namespace {

// Slaney's scale: linear up to 1000 Hz, three mels for 200 Hz; logarithmic above, 27 mels for a factor of 6.4.
constexpr double break_hertz = 1000, break_mel = 15;
const double per_mel = std::log(6.4) / 27;

double to_mel(MelScale scale, double f) {
  if (scale == MelScale::htk) return 2595 * std::log10(1 + f / 700);
  return f < break_hertz ? 3 * f / 200 : break_mel + std::log(f / break_hertz) / per_mel;
}
double to_hertz(MelScale scale, double mel) {
  if (scale == MelScale::htk) return 700 * (std::pow(10, mel / 2595) - 1);
  return mel < break_mel ? 200 * mel / 3 : break_hertz * std::exp(per_mel * (mel - break_mel));
}

// Those of the Python package: with less regularisation, frames that are far from any mel spectrum may fail.
template <class Sample>
constexpr bool is_double = std::is_same_v<Sample, double>;
template <class Sample>
constexpr double default_tolerance = is_double<Sample> ? 1e-9 : 1e-6;
template <class Sample>
constexpr double regularization = is_double<Sample> ? 2e-10 : 1e-8;
constexpr double entropy_regularization = 1e-8;

double positive(double value) { return value == 0 ? 1 : value; }  // what is divided by it is 0 then, too

// A problem's operand without gaps, rows × columns.
template <class T>
void attach(Matrices<T>& operand, T* data, std::int64_t columns) {
  operand.data = data;
  operand.step = 1;
  operand.down = columns;
}

}  // namespace

Status melscale_fbanks(const View<double>& fb, double f_min, double f_max, double sample_rate, MelNorm norm,
                       MelScale scale) noexcept {
  if (const Status status = check_sizes(fb.sizes); status != Status::ok) return status;
  if (fb.dims() != 2) return Status::wrong_shape;
  const std::int64_t freqs = fb.sizes[0], mels = fb.sizes[1];
  const bool rate = sample_rate > 0 && std::isfinite(sample_rate);
  if (freqs < 2 || mels < 1) return Status::wrong_shape;
  if (!rate || !(f_min >= 0 && f_min < f_max && std::isfinite(f_max))) return Status::out_of_range;
  if (!fb) return Status::no_data;
  const double low = to_mel(scale, f_min), high = to_mel(scale, f_max);
  const auto edge = [&](std::int64_t i) {  // the ends unrounded: what lies there has weight 0
    if (i == 0 || i == mels + 1) return i == 0 ? f_min : f_max;
    return to_hertz(scale, low + (high - low) * static_cast<double>(i) / static_cast<double>(mels + 1));
  };
  for (std::int64_t i = 0; i <= mels; ++i) {
    if (!(edge(i) < edge(i + 1))) return Status::out_of_range;  // too many triangles for double precision
  }
  for (std::int64_t i = 0; i < mels; ++i) {
    const double left = edge(i), middle = edge(i + 1), right = edge(i + 2);
    const double height = norm == MelNorm::slaney ? 2 / (right - left) : 1;
    for (std::int64_t k = 0; k < freqs; ++k) {
      const double f = sample_rate / 2 * static_cast<double>(k) / static_cast<double>(freqs - 1);
      const double weight = std::fmin((f - left) / (middle - left), (right - f) / (right - middle));
      fb.data[k * fb.stride[0] + i * fb.stride[1]] = height * std::fmax(weight, 0);
    }
  }
  return Status::ok;
}

template <class Sample>
struct InverseMelPlan<Sample>::Made {
  // The two mels at most that a frequency belongs to.
  struct Frequency {
    std::int64_t mel = 0;
    double weight = 0, next_weight = 0;
    double sum = 1;  // of its weights
  };

  Status call(Step step) {
    Context now = context;
    now.step = step;
    if (step != Step::run) now.run = nullptr;  // only a run is worth threads
    return nnls(isa, kernel, NNLSSolver::newton, now);
  }

  // Scales the mels of each frame to the level that mu is meant for, and spreads them evenly over their triangles.
  void spread(const View<const Sample>& mel) {
    const std::int64_t frames = kernel.k;
    for (std::int64_t t = 0; t < frames; ++t) {
      const Sample* from = mel.data + t * mel.stride[1];
      Sample largest = 0;
      bool finite = true;
      for (std::int64_t i = 0; i < kernel.m; ++i) {
        const Sample value = from[i * mel.stride[0]];
        finite &= std::isfinite(value);
        scaled[i * frames + t] = value > 0 ? value : 0;
        largest = value > largest ? value : largest;
      }
      if (!finite) largest = std::numeric_limits<Sample>::quiet_NaN();  // and so all that is divided by it
      scale[t] = static_cast<Sample>(positive(largest)) / static_cast<Sample>(level);
      for (std::int64_t i = 0; i < kernel.m; ++i) scaled[i * frames + t] /= scale[t];
    }
    for (std::int64_t j = 0; j < kernel.n; ++j) {
      const Frequency& at = frequencies[j];
      const std::int64_t next = at.next_weight > 0 ? at.mel + 1 : at.mel;
      const double here = at.weight / at.sum / triangles[at.mel], beside = at.next_weight / at.sum / triangles[next];
      for (std::int64_t t = 0; t < frames; ++t) {
        prior[j * frames + t] =
            static_cast<Sample>(here * scaled[at.mel * frames + t] + beside * scaled[next * frames + t]);
      }
    }
  }

  int isa = 0;
  Context context{ParallelFor{}};
  NNLS<Sample> kernel;
  std::int64_t max_frames = 0;
  double level = 1;                       // of the largest mel, for entropy
  Buffer<double> a, mu, dual, triangles;  // [n_mels, n_freqs], [frames], [n_mels, frames]; sums of the triangles
  Buffer<Outcome> outcomes;
  Buffer<Frequency> frequencies;        // for entropy, as what follows: the mels, scaled; by what; their even spread
  Buffer<Sample> scaled, scale, prior;  // [n_mels, frames], [frames], [n_freqs, frames]
  Buffer<char> memory;
};

template <class Sample>
InverseMelPlan<Sample>::InverseMelPlan() noexcept = default;
template <class Sample>
InverseMelPlan<Sample>::InverseMelPlan(InverseMelPlan&&) noexcept = default;
template <class Sample>
InverseMelPlan<Sample>& InverseMelPlan<Sample>::operator=(InverseMelPlan&&) noexcept = default;
template <class Sample>
InverseMelPlan<Sample>::~InverseMelPlan() = default;
template <class Sample>
InverseMelPlan<Sample>::operator bool() const noexcept {
  return made_ != nullptr;
}

template <class Sample>
Status InverseMelPlan<Sample>::make(const View<const double>& fb, std::int64_t max_frames,
                                    const InverseMelOptions& options) noexcept {
  made_.reset();
  if (const Status status = check_sizes(fb.sizes); status != Status::ok) return status;
  if (fb.dims() != 2) return Status::wrong_shape;
  const std::int64_t n = fb.sizes[0], m = fb.sizes[1];
  const bool entropy = options.tie_break == TieBreak::entropy;
  if (n < 1 || m < 1) return Status::wrong_shape;
  if (max_frames < 1 || !(options.tolerance >= 0 && std::isfinite(options.tolerance)) || options.max_iterations < 1)
    return Status::out_of_range;
  for (const std::int64_t rows : {m, n}) {
    if (std::int64_t count; __builtin_mul_overflow(rows, max_frames, &count)) return Status::out_of_memory;
  }
  if (!fb) return Status::no_data;

  std::unique_ptr<Made> made(new (std::nothrow) Made);
  if (made == nullptr || !made->a.allocate(m * n) || !made->mu.allocate(max_frames) ||
      !made->dual.allocate(m * max_frames) || !made->outcomes.allocate(max_frames))
    return Status::out_of_memory;
  if (entropy &&
      (!made->triangles.allocate(m) || !made->frequencies.allocate(n) || !made->scaled.allocate(m * max_frames) ||
       !made->scale.allocate(max_frames) || !made->prior.allocate(n * max_frames)))
    return Status::out_of_memory;
  double largest = 0, square = 0;  // weight; squared norm of a triangle
  for (std::int64_t i = 0; i < m; ++i) {
    double norm = 0, sum = 0;
    for (std::int64_t j = 0; j < n; ++j) {
      const double weight = fb.data[j * fb.stride[0] + i * fb.stride[1]];
      made->a[i * n + j] = weight;
      norm += weight * weight;
      sum += weight;
      largest = std::fmax(largest, weight);
      if (!entropy || weight == 0) continue;
      auto& at = made->frequencies[j];
      if (at.weight == 0) {
        at.mel = i;
        at.weight = at.sum = weight;
      } else {
        at.next_weight = weight;
        at.sum += weight;
      }
    }
    square = std::fmax(square, norm);
    if (entropy) made->triangles[i] = positive(sum);
  }
  for (std::int64_t j = 0; entropy && j < n; ++j) made->frequencies[j].sum = positive(made->frequencies[j].sum);
  const double mu = square == 0 ? 1 : (entropy ? entropy_regularization : regularization<Sample>)*square;
  for (std::int64_t t = 0; t < max_frames; ++t) made->mu[t] = mu;

  made->isa = current_isa();
  made->context = Context(options.parallel_for);
  made->max_frames = max_frames;
  made->level = positive(square) / positive(largest);
  auto& kernel = made->kernel;
  kernel.m = m;
  kernel.n = n;
  kernel.k = max_frames;
  kernel.tolerance = options.tolerance > 0 ? options.tolerance : default_tolerance<Sample>;
  kernel.max_iterations = options.max_iterations;
  attach(kernel.a, static_cast<const double*>(made->a.get()), n);
  kernel.mu.data = made->mu.get();
  kernel.outcome.data = made->outcomes.get();
  attach(kernel.dual, made->dual.get(), max_frames);
  if (entropy) {
    attach(kernel.b, static_cast<const Sample*>(made->scaled.get()), max_frames);
    attach(kernel.prior, static_cast<const Sample*>(made->prior.get()), max_frames);
  }
  Status status = take_memory(made->context, made->memory, [&](Step step) { return made->call(step); });
  if (status == Status::ok) status = made->call(Step::load);
  kernel.k = 0;  // frames of the last run
  if (status == Status::ok) made_ = std::move(made);
  return status;
}

template <class Sample>
Status InverseMelPlan<Sample>::run(const View<const Sample>& mel, const View<Sample>& spectrum) noexcept {
  if (made_ == nullptr) return Status::not_made;
  Made& made = *made_;
  auto& kernel = made.kernel;
  if (mel.dims() != 2 || spectrum.dims() != 2 || mel.sizes[0] != kernel.m || spectrum.sizes[0] != kernel.n ||
      mel.sizes[1] != spectrum.sizes[1])
    return Status::wrong_shape;
  const std::int64_t frames = mel.sizes[1];
  if (frames < 0) return Status::out_of_range;
  if (frames > made.max_frames) return Status::wrong_shape;
  if (lacks_data(mel.sizes, mel.data) || lacks_data(spectrum.sizes, spectrum.data)) return Status::no_data;
  kernel.k = frames;
  if (frames == 0) return Status::ok;
  kernel.dual.down = frames;
  kernel.x.data = spectrum.data;
  kernel.x.down = spectrum.stride[0];
  kernel.x.step = spectrum.stride[1];
  const bool entropy = bool(kernel.prior);
  if (entropy) {
    made.spread(mel);
    kernel.b.down = kernel.prior.down = frames;
  } else {
    kernel.b.data = mel.data;
    kernel.b.down = mel.stride[0];
    kernel.b.step = mel.stride[1];
  }
  const Status status = made.call(Step::run);
  for (std::int64_t j = 0; entropy && j < kernel.n; ++j) {
    Sample* row = spectrum.data + j * kernel.x.down;
    for (std::int64_t t = 0; t < frames; ++t) row[t * kernel.x.step] *= made.scale[t];
  }
  return status;
}

template <class Sample>
Outcome InverseMelPlan<Sample>::outcome(std::int64_t frame) const noexcept {
  const bool known = made_ != nullptr && frame >= 0 && frame < made_->kernel.k;
  return known ? made_->outcomes[frame] : Outcome::failed;
}
template <class Sample>
std::int64_t InverseMelPlan<Sample>::failed() const noexcept {
  std::int64_t count = 0;
  for (std::int64_t t = 0; made_ != nullptr && t < made_->kernel.k; ++t) count += made_->outcomes[t] == Outcome::failed;
  return count;
}

template class InverseMelPlan<float>;
template class InverseMelPlan<double>;

}  // namespace torch_iir
