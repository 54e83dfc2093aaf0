// sosfilt on CUDA: which kernel a problem takes.
#include "sosfilt_tiles.h"

namespace torch_iir::cuda {
namespace {

template <class Sample>
Status run(const SOSFilt<Sample>& p, const Queue& queue, Algorithm algorithm, bool brain = false) {
  using Tiles = SectionTiles<Sample>;
  if (!has_form(algorithm, false)) return Status::unsupported;
  const std::int64_t rows = p.batch.rows();
  if (rows == 0) return Status::ok;
  SectionForm form = section_form(algorithm, rows, (p.samples + Tiles::tile - 1) / Tiles::tile);
  if (form != SectionForm::direct && too_many_sections<Tiles>(p.sections)) {
    if (algorithm != Algorithm::automatic) return Status::unsupported;
    form = SectionForm::direct;
  }
  return sosfilt_states(p, queue, form, brain, {});
}

template <class Sample>
Status run_form(const SOSFilt<Sample>& p, const Queue& queue, SectionForm form, bool brain,
                const EntryStates<double>& save) {
  return form == SectionForm::direct ? run_sosfilt_directly(p, queue, brain, save)
                                     : run_sosfilt_tiles(p, queue, form, brain, save);
}

template <class Sample>
SOSFilt<Half> in_halves(const SOSFilt<Sample>& p) {
  return {p.batch, p.samples, p.sections, as_half(p.x), p.sos, p.zi, as_half(p.y), p.zf};
}

}  // namespace

Status sosfilt_states(const SOSFilt<float>& p, const Queue& queue, SectionForm form, bool brain,
                      const EntryStates<double>& save) {
  return run_form(p, queue, form, brain, save);
}
Status sosfilt_states(const SOSFilt<double>& p, const Queue& queue, SectionForm form, bool brain,
                      const EntryStates<double>& save) {
  return run_form(p, queue, form, brain, save);
}
Status sosfilt_states(const SOSFilt<Half>& p, const Queue& queue, SectionForm form, bool brain,
                      const EntryStates<double>& save) {
  return run_form(p, queue, form, brain, save);
}
Status sosfilt_states(const SOSFilt<std::complex<double>, std::complex<double>>& p, const Queue& queue, SectionForm,
                      bool brain, const EntryStates<Complex>& save) {
  return run_sosfilt_directly(p, queue, brain, save);
}

Status sosfilt(const SOSFilt<float>& p, const Queue& queue, Algorithm algorithm) noexcept {
  return run(p, queue, algorithm);
}
Status sosfilt(const SOSFilt<double>& p, const Queue& queue, Algorithm algorithm) noexcept {
  return run(p, queue, algorithm);
}
Status sosfilt(const SOSFilt<Half>& p, const Queue& queue, Algorithm algorithm) noexcept {
  return run(in_halves(p), queue, algorithm);
}
Status sosfilt(const SOSFilt<BFloat16>& p, const Queue& queue, Algorithm algorithm) noexcept {
  return run(in_halves(p), queue, algorithm, true);
}
Status sosfilt(const SOSFilt<std::complex<double>, std::complex<double>>& p, const Queue& queue,
               Algorithm algorithm) noexcept {
  if (!has_form(algorithm, true)) return Status::unsupported;
  return p.batch.rows() == 0 ? Status::ok : sosfilt_states(p, queue, SectionForm::direct, false, {});
}

}  // namespace torch_iir::cuda
