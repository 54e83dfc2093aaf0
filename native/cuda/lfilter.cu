// lfilter on CUDA: which kernel a problem takes.
#include "lfilter_bank.h"
#include "lfilter_tiles.h"
#include "lfilter_wide.h"

namespace torch_iir::cuda {
namespace {

// Order 0: y = b[0] / a[0] · x. A block has so many samples of a row.
constexpr int gain_threads = 256, gain_samples = 16 * gain_threads;

template <class Sample>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(gain_threads, 1)
    lfilter_gain(LFilter<Sample> p, std::int64_t parts, std::int64_t parts_of_row, Format<Sample> format) {
  for (std::int64_t part = block(); part < parts; part += blocks()) {
    const std::int64_t row = part / parts_of_row, first = part % parts_of_row * gain_samples;
    const double gain = load(p.b, row_offset(p.b, p.batch, row)) / load(p.a, row_offset(p.a, p.batch, row));
    const Sample* const x = row_pointer(p.x, p.batch, row) + first * p.x.step;
    Sample* const y = row_pointer(p.y, p.batch, row) + first * p.y.step;
    const int count = static_cast<int>(minimum<std::int64_t>(p.samples - first, gain_samples));
    for (int i = thread(); i < count; i += gain_threads)
      y[i * p.y.step] = format.narrow(gain * format.widen(x[i * p.x.step]));
  }
}

template <class Sample>
Status run_gain(const LFilter<Sample>& p, const Queue& queue, Format<Sample> format) {
  const std::int64_t parts_of_row = (p.samples + gain_samples - 1) / gain_samples;
  const std::int64_t parts = p.batch.rows() * parts_of_row;
  if (parts == 0) return Status::ok;
  return launch(queue, {minimum(parts, most_blocks), gain_threads}, lfilter_gain<Sample>, p, parts, parts_of_row,
                format);
}

template <class Sample, int N>
Status run_tiles(const LFilter<Sample>& p, const Queue& queue, Algorithm algorithm, Format<Sample> format) {
  constexpr int tile = LFilterTiles<Sample, N>::tile;
  const Device here = device();
  const Plan plan = plan_lfilter(p.batch.rows(), (p.samples + tile - 1) / tile, here, algorithm);
  if (plan.form == Form::cluster && !here.clusters) return Status::unsupported;
  return run_lfilter_tiles<Sample, N>(p, queue, plan.form, plan.cluster_size, format);
}

template <class Sample>
Status run(const LFilter<Sample>& p, const Queue& queue, Algorithm algorithm, Format<Sample> format = {}) {
  if (p.batch.rows() == 0) return Status::ok;
  const int order = maximum(p.b_length, p.a_length) - 1;
  if (order == 0) return run_gain(p, queue, format);
  if constexpr (std::is_same_v<Sample, Half>) {
    if (order <= 2) return run_tiles<Sample, 2>(p, queue, algorithm, format);
  } else {
    if (order <= 2 && algorithm == Algorithm::automatic) {
      const Status status = run_lfilter_bank(p, queue);
      if (status != Status::unsupported) return status;
    }
    if (order <= 2) return run_tiles<Sample, 2>(p, queue, algorithm, format);
    if (order <= 4) return run_tiles<Sample, 4>(p, queue, algorithm, format);
  }
  return run_tiles<Sample, 8>(p, queue, algorithm, format);
}

// Of the algorithms' names some are the CPU's alone.
bool offered(Algorithm algorithm) {
  return algorithm == Algorithm::automatic || algorithm == Algorithm::direct || algorithm == Algorithm::rows ||
         algorithm == Algorithm::clusters || algorithm == Algorithm::lookback;
}

template <class Sample, class State>
Status choose(const LFilter<Sample, State>& p, const Queue& queue, Algorithm algorithm) {
  if (!offered(algorithm)) return Status::unsupported;
  constexpr int most_in_tiles = 8;
  const int order = maximum(p.b_length, p.a_length) - 1;
  if constexpr (std::is_same_v<State, double>) {
    if (order <= most_in_tiles && algorithm != Algorithm::direct) {
      if constexpr (std::is_same_v<Sample, BFloat16>) {
        LFilter<Half> bits;  // p, its samples as what they are to the kernels
        bits.batch = p.batch;
        bits.samples = p.samples;
        bits.b_length = p.b_length;
        bits.a_length = p.a_length;
        bits.b = p.b;
        bits.a = p.a;
        bits.zi = p.zi;
        bits.zf = p.zf;
        bits.x = rows_as<const Half>(p.x);
        bits.y = rows_as<Half>(p.y);
        return run(bits, queue, algorithm, Format<Half>{true});
      } else {
        return run(p, queue, algorithm);
      }
    }
  }
  return run_lfilter_wide(p, queue, algorithm);
}

}  // namespace

Status lfilter(const LFilter<float>& p, const Queue& queue, Algorithm algorithm) noexcept {
  return choose(p, queue, algorithm);
}
Status lfilter(const LFilter<double>& p, const Queue& queue, Algorithm algorithm) noexcept {
  return choose(p, queue, algorithm);
}
Status lfilter(const LFilter<Half>& p, const Queue& queue, Algorithm algorithm) noexcept {
  return choose(p, queue, algorithm);
}
Status lfilter(const LFilter<BFloat16>& p, const Queue& queue, Algorithm algorithm) noexcept {
  return choose(p, queue, algorithm);
}
Status lfilter(const LFilter<std::complex<double>, std::complex<double>>& p, const Queue& queue,
               Algorithm algorithm) noexcept {
  return choose(p, queue, algorithm);
}

}  // namespace torch_iir::cuda
