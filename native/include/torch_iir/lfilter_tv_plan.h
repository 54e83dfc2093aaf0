// Filters whose coefficients change from sample to sample or from frame to frame, block after block: see
// torch_iir/plan.h, and torch_iir/lfilter_tv.h for the equation.
//
//   LFilterTVPlan<float> synthesis;                                          // all-pole, order 24
//   Status status = synthesis.make({.a_length = 24}, {channels});
//   status = synthesis.run(x, {}, a, y);                                     // a [channels, T, 24], the lags 1 to 24
#pragma once

#include <cstdint>
#include <memory>

#include "torch_iir/plan.h"

namespace torch_iir {

// Which coefficients come with each block.
struct TimeVaryingFilter {
  int b_length = 0;         // coefficients of the input; 0: the drive is the input itself
  int b_first = 0;          // lag of the first of them, 0 or 1
  int a_length = 0;         // coefficients of the output
  int a_first = 1;          // 1: from lag 1 on, and a[t,0] is 1; 0: a[t,0] is given, too, and divided by
  std::int64_t period = 1;  // samples from frame to frame, in between linear interpolation
};

// Sample is float or double, of the signal and of its coefficients.
template <class Sample>
class LFilterTVPlan {
 public:
  TORCH_IIR_API LFilterTVPlan() noexcept;
  TORCH_IIR_API LFilterTVPlan(LFilterTVPlan&&) noexcept;
  TORCH_IIR_API LFilterTVPlan& operator=(LFilterTVPlan&&) noexcept;
  TORCH_IIR_API ~LFilterTVPlan();

  TORCH_IIR_API Status make(const TimeVaryingFilter&, const Sizes& channels, const PlanOptions& = {}) noexcept;
  TORCH_IIR_API explicit operator bool() const noexcept;  // made?

  // x and y [channels…, T]; b [..., frames, b_length] and a [..., frames, a_length], whose leading dimensions broadcast
  // to the channels. A period of 1: as many frames as samples. A longer one: ⌈T / period⌉ frames or more. A block that
  // another one follows is then a whole number of periods long, and has one frame more, the next block's first, towards
  // which its last one is interpolated. A single frame holds for all samples. {} where a length is 0.
  // Not in place where there is a b. A zero among the a[t,0] is Status::zero_a0: what was written is of no use, and the
  // plan is at rest.
  TORCH_IIR_API Status run(const View<const Sample>& x, const View<const Sample>& b, const View<const Sample>& a,
                           const View<Sample>& y) noexcept;

  // The state: past inputs [..., largest lag of b] and outputs [..., largest lag of a], the newest first. When they are
  // set, leading dimensions broadcast to the channels. {} where there is no lag.
  TORCH_IIR_API Status set_state(const View<const double>& zx, const View<const double>& zi) noexcept;
  TORCH_IIR_API Status state(const View<double>& zx, const View<double>& zf) noexcept;  // [channels…, …]
  TORCH_IIR_API Status reset() noexcept;                                                // at rest

  // What make() found; of an empty plan: automatic, "".
  TORCH_IIR_API Algorithm algorithm() const noexcept;
  TORCH_IIR_API const char* isa() const noexcept;

 private:
  struct Made;
  std::unique_ptr<Made> made_;
};

extern template class LFilterTVPlan<float>;
extern template class LFilterTVPlan<double>;

}  // namespace torch_iir
