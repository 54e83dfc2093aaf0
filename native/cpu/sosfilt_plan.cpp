#include "torch_iir/sosfilt_plan.h"

#include <limits>
#include <new>
#include <utility>

#include "stream_plan.h"

namespace torch_iir {
namespace {

constexpr int coefficients = 6, a0 = 3, states = 2;  // of a section; a0 is where it stands

}  // namespace

template <class Sample>
struct SOSFiltPlan<Sample>::Made : Stream<SOSFilt<Sample>, Sample, 2> {
  Coefficients sos;
};

template <class Sample>
SOSFiltPlan<Sample>::SOSFiltPlan() noexcept = default;
template <class Sample>
SOSFiltPlan<Sample>::SOSFiltPlan(SOSFiltPlan&&) noexcept = default;
template <class Sample>
SOSFiltPlan<Sample>& SOSFiltPlan<Sample>::operator=(SOSFiltPlan&&) noexcept = default;
template <class Sample>
SOSFiltPlan<Sample>::~SOSFiltPlan() = default;
template <class Sample>
SOSFiltPlan<Sample>::operator bool() const noexcept {
  return made_ != nullptr;
}

template <class Sample>
Status SOSFiltPlan<Sample>::make(const View<const double>& sos, const Sizes& channels,
                                 const PlanOptions& options) noexcept {
  made_.reset();
  constexpr std::int64_t most = std::numeric_limits<int>::max() / coefficients;
  for (const Sizes* sizes : {&channels, &sos.sizes}) {
    if (const Status status = check_sizes(*sizes); status != Status::ok) return status;
  }
  if (sos.dims() < 2 || sos.sizes[sos.dims() - 1] != coefficients) return Status::wrong_shape;
  const std::int64_t sections = sos.sizes[sos.dims() - 2];
  Sizes outputs = channels;
  if (sections < 1) return Status::wrong_shape;
  if (const Status status = broadcast_into(outputs, leading(sos.sizes, 2)); status != Status::ok) return status;
  if (outputs.dims + states > max_view_dims) return Status::wrong_shape;
  if (sections > most || options.block < 0) return Status::out_of_range;
  if (const Status status = check_sizes(outputs); status != Status::ok) return status;
  if (lacks_data(sos.sizes, sos.data)) return Status::no_data;
  if (some_is_zero(sos, a0)) return Status::zero_a0;

  std::unique_ptr<Made> made(new (std::nothrow) Made);
  if (made == nullptr) return Status::out_of_memory;
  made->kernel.sections = static_cast<int>(sections);
  if (const Status status = made->begin(channels, outputs, {sections, states}, options); status != Status::ok)
    return status;
  const PlanRows& rows = made->rows();
  if (!made->sos.allocate(sos, 2, rows.count())) return Status::out_of_memory;
  made->sos.copy(sos, rows);
  made->sos.attach(made->kernel.sos);
  made->kernel.sos.down = coefficients;
  const Status status = made->finish(options.algorithm == Algorithm::automatic
                                         ? sosfilt_plan_algorithm(rows.count(), options.block, made->kernel.sections)
                                         : options.algorithm);
  if (status == Status::ok) made_ = std::move(made);
  return status;
}

template <class Sample>
Status SOSFiltPlan<Sample>::run(const View<const Sample>& x, const View<Sample>& y) noexcept {
  return made_ != nullptr ? made_->run(x, y) : Status::not_made;
}
template <class Sample>
Status SOSFiltPlan<Sample>::run(const Sample* const* x, Sample* const* y, std::int64_t samples) noexcept {
  return made_ != nullptr ? made_->run(x, y, samples) : Status::not_made;
}

template <class Sample>
Status SOSFiltPlan<Sample>::set_coefficients(const View<const double>& sos) noexcept {
  if (made_ == nullptr) return Status::not_made;
  if (const Status status = made_->sos.check(sos); status != Status::ok) return status;
  if (some_is_zero(sos, a0)) return Status::zero_a0;
  made_->sos.copy(sos, made_->rows());
  return made_->reload();
}

template <class Sample>
Status SOSFiltPlan<Sample>::set_state(const View<const double>& zi) noexcept {
  return made_ != nullptr ? made_->set_state(zi) : Status::not_made;
}
template <class Sample>
Status SOSFiltPlan<Sample>::state(const View<double>& zf) noexcept {
  return made_ != nullptr ? made_->state(zf) : Status::not_made;
}
template <class Sample>
Status SOSFiltPlan<Sample>::reset() noexcept {
  return made_ != nullptr ? made_->load({}) : Status::not_made;
}

template <class Sample>
Sizes SOSFiltPlan<Sample>::outputs() const noexcept {
  return made_ != nullptr ? made_->rows().outputs() : Sizes();
}
template <class Sample>
int SOSFiltPlan<Sample>::sections() const noexcept {
  return made_ != nullptr ? made_->kernel.sections : 0;
}
template <class Sample>
Algorithm SOSFiltPlan<Sample>::algorithm() const noexcept {
  return made_ != nullptr ? made_->algorithm() : Algorithm::automatic;
}
template <class Sample>
const char* SOSFiltPlan<Sample>::isa() const noexcept {
  return made_ != nullptr ? made_->isa() : "";
}

template class SOSFiltPlan<float>;
template class SOSFiltPlan<double>;

}  // namespace torch_iir
