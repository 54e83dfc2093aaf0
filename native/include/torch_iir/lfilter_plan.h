// lfilter and banks of filters, block after block: see torch_iir/plan.h, and torch_iir/lfilter.h for the equation.
//
//   const double b[] = {0.2, 0.4, 0.2}, a[] = {1.0, -0.9, 0.5};
//   LFilterPlan<float> filter;
//   Status status = filter.make(b, a, {2});                                  // two channels, one filter
//   status = filter.run(View<const float>(in, {2, 64}), View<float>(out, {2, 64}));
#pragma once

#include <cstdint>
#include <memory>

#include "torch_iir/plan.h"

namespace torch_iir {

// Sample is float or double.
template <class Sample>
class LFilterPlan {
 public:
  TORCH_IIR_API LFilterPlan() noexcept;
  TORCH_IIR_API LFilterPlan(LFilterPlan&&) noexcept;
  TORCH_IIR_API LFilterPlan& operator=(LFilterPlan&&) noexcept;
  TORCH_IIR_API ~LFilterPlan();

  // b [..., len b] and a [..., len a], with an a[0] that is not 0; copied. At rest.
  TORCH_IIR_API Status make(const View<const double>& b, const View<const double>& a, const Sizes& channels,
                            const PlanOptions& = {}) noexcept;
  TORCH_IIR_API explicit operator bool() const noexcept;  // made?

  // x [channels…, T] to y [outputs…, T].
  TORCH_IIR_API Status run(const View<const Sample>& x, const View<Sample>& y) noexcept;
  // The same with a pointer for each channel and one for each output, in row-major order; their samples are neighbours.
  TORCH_IIR_API Status run(const Sample* const* x, Sample* const* y, std::int64_t samples) noexcept;

  // Other coefficients, of the very sizes of those that make() was given, from the next run on. The state stays.
  TORCH_IIR_API Status set_coefficients(const View<const double>& b, const View<const double>& a) noexcept;

  // The state, as zi and zf of lfilter: [..., order], which broadcasts to [outputs…, order] when it is set.
  TORCH_IIR_API Status set_state(const View<const double>& zi) noexcept;
  TORCH_IIR_API Status state(const View<double>& zf) noexcept;  // [outputs…, order]
  TORCH_IIR_API Status reset() noexcept;                        // at rest

  // What make() found; of an empty plan: no dimensions, 0, automatic, "".
  TORCH_IIR_API Sizes outputs() const noexcept;
  TORCH_IIR_API int order() const noexcept;
  TORCH_IIR_API Algorithm algorithm() const noexcept;
  TORCH_IIR_API const char* isa() const noexcept;

 private:
  struct Made;
  std::unique_ptr<Made> made_;
};

extern template class LFilterPlan<float>;
extern template class LFilterPlan<double>;

}  // namespace torch_iir
