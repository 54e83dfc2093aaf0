// Gradients of sosfilt on CUDA: which kernels a problem takes, and the sums over rows behind them.
#include "sosfilt_backward_tiles.h"

namespace torch_iir::cuda {
namespace {

template <class Value>
std::int64_t bytes_of(std::int64_t count) {
  return count * static_cast<std::int64_t>(sizeof(Value));
}

template <class Sample, class State>
Status launch_directly(const SOSFiltBackward<Sample, State>& p, const Queue& queue, bool brain,
                       const SectionGradients<Computed<State>>& to) {
  using Value = Computed<State>;
  const std::int64_t blocks =
      minimum<std::int64_t>(to.sharing.targets * to.slices, 32 * static_cast<std::int64_t>(device().processors));
  Scratch scratch(queue);
  Value* const far = scratch.take<Value>(blocks * 7 * p.sections);
  if (!scratch.ok()) return Status::out_of_memory;
  const int slots =
      (to.entry.data != nullptr ? minimum(p.sections, most_signals_directly) + 1 : 1) + (to.in_slice > 1 ? 1 : 0);
  return launch(queue, {blocks, warp_size, bytes_of<Value>(slots * stretch_directly)},
                sosfilt_backward_directly<Sample, State>, p, brain, to, far);
}

// Storage of 16 bits is spared a kernel: rows or clusters do for it.
template <class Sample>
constexpr bool looks_back = sizeof(Sample) > 2;

template <class Sample>
Status launch_tiles(const SOSFiltBackward<Sample>& p, const Queue& queue, SectionForm form, bool brain, int cluster,
                    const SectionGradients<double>& to) {
  using Tiles = SectionTilesBack<Sample>;
  constexpr int threads = Tiles::block_threads;
  const std::int64_t rows = p.batch.rows(), tiles = (p.samples + Tiles::tile - 1) / Tiles::tile;
  const std::int64_t shared_bytes = Tiles::shared_bytes(p.sections, to.entry.data != nullptr, to.in_slice > 1);
  if (form != SectionForm::lookback) {
    const std::int64_t units = minimum(to.sharing.targets * to.slices, most_blocks / cluster);
    return launch(queue, {units * cluster, threads, shared_bytes, cluster},
                  sosfilt_backward_tiles<Sample, SectionForm::row>, p, rows, brain, cluster, to, SectionWords{});
  }
  if constexpr (looks_back<Sample>) {
    const std::int64_t groups = (tiles + look_group - 1) / look_group, at = 2 * rows * p.sections;
    const std::int64_t words = at * (tiles + groups);
    Scratch scratch(queue);
    Word* const memory = scratch.take<Word>(words + 1);
    if (!scratch.ok()) return Status::out_of_memory;
    const Status status = set_zero(queue, memory, bytes_of<Word>(words + 1));
    if (status != Status::ok) return status;
    return launch(queue,
                  {minimum<std::int64_t>(rows * tiles, 4 * std::int64_t{device().processors}), threads, shared_bytes},
                  sosfilt_backward_tiles<Sample, SectionForm::lookback>, p, rows, brain, 1, to,
                  SectionWords{reinterpret_cast<unsigned*>(memory + words), memory, memory + at * tiles});
  }
  return Status::unsupported;
}

// `gx`: p.gx, in its own type.
template <class Sample, class State, class GradientOfX>
Status run(const SOSFiltBackward<Sample, State>& p, const GradientOfX& gx, const Queue& queue, Algorithm algorithm,
           bool brain) {
  using Value = Computed<State>;
  constexpr bool complex = std::is_same_v<Value, Complex>;
  if (!has_form(algorithm, complex)) return Status::unsupported;
  const std::int64_t rows = p.batch.rows(), sections = p.sections;
  const Device here = device();
  SectionGradients<Value> to;
  if (p.gx) {
    to.sharing = sharing_of(p.batch, p.gx);
  } else {
    to.sharing.targets = to.sharing.size[0] = rows;
    to.sharing.dims = 1;
  }
  const bool shared = to.sharing.sharers > 1;

  SectionForm form = SectionForm::direct;
  if constexpr (!complex) {
    using Tiles = SectionTilesBack<Sample>;
    const std::int64_t tiles = (p.samples + Tiles::tile - 1) / Tiles::tile;
    form = section_form(algorithm, rows, tiles);
    if (form == SectionForm::lookback && !looks_back<Sample>)
      form = here.clusters ? SectionForm::cluster : SectionForm::row;
    if (shared && form != SectionForm::direct) form = SectionForm::row;  // for want of the sums between blocks
    if (form != SectionForm::direct && too_many_sections<Tiles>(sections)) {
      if (algorithm != Algorithm::automatic) return Status::unsupported;
      form = SectionForm::direct;
    }
    if (tiles == 0) form = SectionForm::direct;
    if (form == SectionForm::lookback && rows * tiles >= std::int64_t{1} << 31) return Status::unsupported;
  }
  const std::int64_t stretch = form == SectionForm::direct ? stretch_directly : stretch_between_states;
  const std::int64_t stretches = (p.samples + stretch - 1) / stretch;
  const int cluster = form == SectionForm::cluster ? section_cluster(rows, stretches, here) : 1;
  to.parts = cluster;
  if (form == SectionForm::lookback) to.parts = stretches;

  // As many slices as fill the device, of a quarter of the size of gy together.
  if (shared && rows > 0) {
    const std::int64_t most = to.sharing.sharers * static_cast<std::int64_t>(sizeof(Sample)) / (4 * bytes_of<Value>(1));
    const std::int64_t wanted = (2 * here.processors + to.sharing.targets - 1) / to.sharing.targets;
    const std::int64_t slices = maximum<std::int64_t>(minimum(most, wanted), 1);
    to.in_slice = (to.sharing.sharers + slices - 1) / slices;
    to.slices = (to.sharing.sharers + to.in_slice - 1) / to.in_slice;
  }

  Scratch scratch(queue);
  if (rows > 0) {
    if (p.gsos) {
      to.entry = {scratch.take<Value>(rows * maximum<std::int64_t>(stretches, 1) * 2 * sections), stretches,
                  p.sections};
      to.sos = scratch.take<Value>(rows * to.parts * sections * 6);
    }
    to.v = scratch.take<Value>(rows * sections * 2);
    if (to.slices > 1) to.gx = scratch.take<Value>(to.sharing.targets * to.slices * p.samples);
    if (!scratch.ok()) return Status::out_of_memory;
    Status status = Status::ok;
    if (p.gsos && p.samples > 0) {
      const SOSFilt<Sample, State> forward{p.batch, p.samples, p.sections, p.x, p.sos, p.zi, {}, {}};
      status = sosfilt_states(forward, queue, form, brain, to.entry);
    }
    if (status != Status::ok) return status;
    if constexpr (complex) {
      status = launch_directly(p, queue, brain, to);
    } else {
      status = form == SectionForm::direct ? launch_directly(p, queue, brain, to)
                                           : launch_tiles(p, queue, form, brain, cluster, to);
    }
    if (status != Status::ok) return status;
  }
  if (rows == 0 || to.slices > 1) {
    const Batch& batch = rows == 0 ? p.batch : to.sharing.distinct;
    const Partials<Value> parts{to.gx, p.samples, to.slices, to.slices * p.samples, p.samples};
    const Status status = sum_partials(queue, scratch, batch, gx, parts);
    if (status != Status::ok) return status;
  }
  const Partials<Value> of_sos{to.sos, 6 * sections, to.parts, to.parts * 6 * sections, 6 * sections};
  const Status status = sum_partials(queue, scratch, p.batch, p.gsos, of_sos, 6);
  if (status != Status::ok) return status;
  return sum_partials(queue, scratch, p.batch, p.gzi, Partials<Value>{to.v, 2 * sections, 1, 2 * sections, 0}, 2);
}

template <class Sample>
Status run_in_halves(const SOSFiltBackward<Sample>& p, const Queue& queue, Algorithm algorithm, bool brain) {
  const SOSFiltBackward<Half> halves{p.batch, p.samples, p.sections,    as_half(p.gy), p.gzf, as_half(p.x),
                                     p.sos,   p.zi,      as_half(p.gx), p.gsos,        p.gzi};
  return run(halves, p.gx, queue, algorithm, brain);
}

}  // namespace

Status sosfilt_backward(const SOSFiltBackward<float>& p, const Queue& queue, Algorithm algorithm) noexcept {
  return run(p, p.gx, queue, algorithm, false);
}
Status sosfilt_backward(const SOSFiltBackward<double>& p, const Queue& queue, Algorithm algorithm) noexcept {
  return run(p, p.gx, queue, algorithm, false);
}
Status sosfilt_backward(const SOSFiltBackward<Half>& p, const Queue& queue, Algorithm algorithm) noexcept {
  return run_in_halves(p, queue, algorithm, false);
}
Status sosfilt_backward(const SOSFiltBackward<BFloat16>& p, const Queue& queue, Algorithm algorithm) noexcept {
  return run_in_halves(p, queue, algorithm, true);
}
Status sosfilt_backward(const SOSFiltBackward<std::complex<double>, std::complex<double>>& p, const Queue& queue,
                        Algorithm algorithm) noexcept {
  return run(p, p.gx, queue, algorithm, false);
}

}  // namespace torch_iir::cuda
