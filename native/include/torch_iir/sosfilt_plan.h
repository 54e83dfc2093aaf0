// Cascades of second-order sections, block after block: see torch_iir/plan.h, and torch_iir/sosfilt.h for the equation.
//
//   std::vector<double> sos(sections * 6);                                   // rows b0 b1 b2 a0 a1 a2
//   SOSFiltPlan<float> equaliser;
//   Status status = equaliser.make({sos.data(), {sections, 6}}, {2});        // two channels, one cascade
//   status = equaliser.run(View<const float>(in, {2, 64}), View<float>(out, {2, 64}));
#pragma once

#include <cstdint>
#include <memory>

#include "torch_iir/plan.h"

namespace torch_iir {

// Sample is float or double.
template <class Sample>
class SOSFiltPlan {
 public:
  TORCH_IIR_API SOSFiltPlan() noexcept;
  TORCH_IIR_API SOSFiltPlan(SOSFiltPlan&&) noexcept;
  TORCH_IIR_API SOSFiltPlan& operator=(SOSFiltPlan&&) noexcept;
  TORCH_IIR_API ~SOSFiltPlan();

  // sos [..., S, 6], S ≥ 1, with a0 that are not 0; copied. At rest.
  TORCH_IIR_API Status make(const View<const double>& sos, const Sizes& channels, const PlanOptions& = {}) noexcept;
  TORCH_IIR_API explicit operator bool() const noexcept;  // made?

  // x [channels…, T] to y [outputs…, T].
  TORCH_IIR_API Status run(const View<const Sample>& x, const View<Sample>& y) noexcept;
  // The same with a pointer for each channel and one for each output, in row-major order; their samples are neighbours.
  TORCH_IIR_API Status run(const Sample* const* x, Sample* const* y, std::int64_t samples) noexcept;

  // Other coefficients, of the very sizes of those that make() was given, from the next run on. The state stays.
  TORCH_IIR_API Status set_coefficients(const View<const double>& sos) noexcept;

  // The state, as zi and zf of sosfilt: [..., S, 2], which broadcasts to [outputs…, S, 2] when it is set.
  TORCH_IIR_API Status set_state(const View<const double>& zi) noexcept;
  TORCH_IIR_API Status state(const View<double>& zf) noexcept;  // [outputs…, S, 2]
  TORCH_IIR_API Status reset() noexcept;                        // at rest

  // What make() found; of an empty plan: no dimensions, 0, automatic, "".
  TORCH_IIR_API Sizes outputs() const noexcept;
  TORCH_IIR_API int sections() const noexcept;
  TORCH_IIR_API Algorithm algorithm() const noexcept;
  TORCH_IIR_API const char* isa() const noexcept;

 private:
  struct Made;
  std::unique_ptr<Made> made_;
};

extern template class SOSFiltPlan<float>;
extern template class SOSFiltPlan<double>;

}  // namespace torch_iir
