// lfilter_backward on CUDA: which kernel a problem takes.
//
// direct, order > 8, complex    lfilter_wide_backward.h
// several rows share gx         lfilter_bank_backward.h for order ≤ 2 in float and double
// else                          lfilter_backward_tiles.h: a block a row where there are many rows, a cluster of blocks
//                               where there are some, look-back where there are few
#include "lfilter_backward_tiles.h"
#include "lfilter_bank_backward.h"
#include "lfilter_wide_backward.h"

namespace torch_iir::cuda {
namespace {

constexpr int block_threads = 128;

// Sums over no rows.
template <class Sample, class State>
Status store_zeros(const LFilterBackward<Sample, State>& p, const Queue& queue) {
  Scratch scratch(queue);
  const int order = maximum(p.b_length, p.a_length) - 1;
  const auto none = [](std::int64_t length) { return Partials<Computed<State>>{nullptr, length}; };
  Status status = sum_partials(queue, scratch, p.batch, p.gb, none(p.b_length));
  if (status == Status::ok) status = sum_partials(queue, scratch, p.batch, p.ga, none(p.a_length));
  if (status == Status::ok) status = sum_partials(queue, scratch, p.batch, p.gzi, none(order));
  if (status == Status::ok) status = sum_partials(queue, scratch, p.batch, p.gx, none(p.samples));
  return status;
}

template <class Sample>
Status run(const LFilterBackward<Sample>& p, const Queue& queue, Algorithm algorithm, Format<Sample> format = {}) {
  const int order = maximum(p.b_length, p.a_length) - 1;
  constexpr int K = 64 / sizeof(Sample);
  if constexpr (std::is_same_v<Sample, Half>) {
    if (order <= 2) return run_lfilter_backward_tiles<Sample, 2, K, block_threads, 4>(p, queue, algorithm, format);
  } else {
    if (order <= 2 && algorithm == Algorithm::automatic) {
      const Status status = run_lfilter_bank_backward(p, queue);
      if (status != Status::unsupported) return status;
    }
    if (order <= 2) return run_lfilter_backward_tiles<Sample, 2, K, block_threads, 4>(p, queue, algorithm, format);
    if constexpr (std::is_same_v<Sample, float>) {  // a double's bytes leave time enough for the arithmetic of order 8
      if (order <= 4) return run_lfilter_backward_tiles<Sample, 4, K, block_threads, 3>(p, queue, algorithm, format);
    }
  }
  return run_lfilter_backward_tiles<Sample, 8, 2 * K, block_threads, 2>(p, queue, algorithm, format);
}

// Of each CPU algorithm's name, those that CUDA has none for.
bool offered(Algorithm algorithm) {
  return algorithm == Algorithm::automatic || algorithm == Algorithm::direct || algorithm == Algorithm::rows ||
         algorithm == Algorithm::clusters || algorithm == Algorithm::lookback;
}

template <class Sample, class State>
Status choose(const LFilterBackward<Sample, State>& p, const Queue& queue, Algorithm algorithm) {
  if (p.batch.rows() == 0) return store_zeros(p, queue);
  if (!offered(algorithm)) return Status::unsupported;
  constexpr int most_in_tiles = 8;
  const int order = maximum(p.b_length, p.a_length) - 1;
  if constexpr (std::is_same_v<State, double>) {
    if (order <= most_in_tiles && algorithm != Algorithm::direct) {
      if constexpr (std::is_same_v<Sample, BFloat16>) {
        LFilterBackward<Half> bits;  // p, its samples as what they are to the kernels
        bits.batch = p.batch;
        bits.samples = p.samples;
        bits.b_length = p.b_length;
        bits.a_length = p.a_length;
        bits.gzf = p.gzf;
        bits.b = p.b;
        bits.a = p.a;
        bits.gb = p.gb;
        bits.ga = p.ga;
        bits.gzi = p.gzi;
        bits.gy = rows_as<const Half>(p.gy);
        bits.x = rows_as<const Half>(p.x);
        bits.y = rows_as<const Half>(p.y);
        bits.gx = rows_as<Half>(p.gx);
        return run(bits, queue, algorithm, Format<Half>{true});
      } else {
        return run(p, queue, algorithm);
      }
    }
  }
  return run_lfilter_wide_backward(p, queue, algorithm);
}

}  // namespace

Status lfilter_backward(const LFilterBackward<float>& p, const Queue& queue, Algorithm algorithm) noexcept {
  return choose(p, queue, algorithm);
}
Status lfilter_backward(const LFilterBackward<double>& p, const Queue& queue, Algorithm algorithm) noexcept {
  return choose(p, queue, algorithm);
}
Status lfilter_backward(const LFilterBackward<Half>& p, const Queue& queue, Algorithm algorithm) noexcept {
  return choose(p, queue, algorithm);
}
Status lfilter_backward(const LFilterBackward<BFloat16>& p, const Queue& queue, Algorithm algorithm) noexcept {
  return choose(p, queue, algorithm);
}
Status lfilter_backward(const LFilterBackward<std::complex<double>, std::complex<double>>& p, const Queue& queue,
                        Algorithm algorithm) noexcept {
  return choose(p, queue, algorithm);
}

}  // namespace torch_iir::cuda
