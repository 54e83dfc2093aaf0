// From mel spectra back to spectra, block after block of frames: non-negative least squares on a bank of mel filters,
// see torch_iir/nnls.h for the problem and the solver, and torch_iir/plan.h for what a plan is.
//
//   std::vector<double> fb(513 * 80);
//   Status status = melscale_fbanks({fb.data(), {513, 80}}, 0, 8000, 16000);
//   InverseMelPlan<float> inverse;
//   status = inverse.make({fb.data(), {513, 80}}, frames);
//   status = inverse.run(View<const float>(mel, {80, frames}), View<float>(spectrum, {513, frames}));
#pragma once

#include <cstdint>
#include <memory>

#include "torch_iir/nnls.h"
#include "torch_iir/plan.h"

namespace torch_iir {

enum class MelScale : int { htk = 0, slaney };  // 2595 log₁₀(1 + f/700); linear up to 1000 Hz, logarithmic above
enum class MelNorm : int { none = 0, slaney };  // triangles of height 1; of area 1 over Hz

// The triangles that turn a spectrum into a mel spectrum: fb [n_freqs ≥ 2, n_mels ≥ 1], of frequencies from 0 to half
// the sample rate. As melscale_fbanks of the Python package. Rates and frequencies in Hz, 0 ≤ f_min < f_max.
TORCH_IIR_API Status melscale_fbanks(const View<double>& fb, double f_min, double f_max, double sample_rate,
                                     MelNorm = MelNorm::none, MelScale = MelScale::htk) noexcept;

// Which of the many spectra that have one mel spectrum.
enum class TieBreak : int {
  min_norm = 0,  // that of least norm
  entropy,       // the smooth one, of least relative entropy to the mels spread evenly over their triangles
};

// The problem's μ is 2e-10 (double) or 1e-8 (float, and entropy) of the largest squared norm of a triangle. For
// entropy, each frame is scaled to a largest mel of that norm over the largest weight.
struct InverseMelOptions {
  TieBreak tie_break = TieBreak::min_norm;
  double tolerance = 0;  // at which residual a frame is solved, relative to its largest mel; 0: 1e-9 for double, else
                         // 1e-6
  int max_iterations = 1000;
  ParallelFor parallel_for = {};
};

// Sample is float or double.
template <class Sample>
class InverseMelPlan {
 public:
  TORCH_IIR_API InverseMelPlan() noexcept;
  TORCH_IIR_API InverseMelPlan(InverseMelPlan&&) noexcept;
  TORCH_IIR_API InverseMelPlan& operator=(InverseMelPlan&&) noexcept;
  TORCH_IIR_API ~InverseMelPlan();

  // fb [n_freqs, n_mels], ≥ 0, at most two mels at a frequency, and these neighbours; copied. Status::unsupported for
  // others. Up to max_frames ≥ 1 frames a run.
  TORCH_IIR_API Status make(const View<const double>& fb, std::int64_t max_frames,
                            const InverseMelOptions& = {}) noexcept;
  TORCH_IIR_API explicit operator bool() const noexcept;  // made?

  // mel [n_mels, frames] to spectrum [n_freqs, frames], of any strides, not in place. Frames that are not finite become
  // NaN. How long a frame takes depends on its values.
  TORCH_IIR_API Status run(const View<const Sample>& mel, const View<Sample>& spectrum) noexcept;

  // How frame number `frame` of the last run ended (failed, where there was none), and how many of them failed.
  TORCH_IIR_API Outcome outcome(std::int64_t frame) const noexcept;
  TORCH_IIR_API std::int64_t failed() const noexcept;

 private:
  struct Made;
  std::unique_ptr<Made> made_;
};

extern template class InverseMelPlan<float>;
extern template class InverseMelPlan<double>;

}  // namespace torch_iir
