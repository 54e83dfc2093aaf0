#include "torch_iir/lfilter_plan.h"

#include <limits>
#include <new>
#include <utility>

#include "stream_plan.h"

namespace torch_iir {

template <class Sample>
struct LFilterPlan<Sample>::Made : Stream<LFilter<Sample>, Sample, 1> {
  Coefficients b, a;
  int order = 0;
};

template <class Sample>
LFilterPlan<Sample>::LFilterPlan() noexcept = default;
template <class Sample>
LFilterPlan<Sample>::LFilterPlan(LFilterPlan&&) noexcept = default;
template <class Sample>
LFilterPlan<Sample>& LFilterPlan<Sample>::operator=(LFilterPlan&&) noexcept = default;
template <class Sample>
LFilterPlan<Sample>::~LFilterPlan() = default;
template <class Sample>
LFilterPlan<Sample>::operator bool() const noexcept {
  return made_ != nullptr;
}

template <class Sample>
Status LFilterPlan<Sample>::make(const View<const double>& b, const View<const double>& a, const Sizes& channels,
                                 const PlanOptions& options) noexcept {
  made_.reset();
  constexpr std::int64_t most = std::numeric_limits<int>::max() / 2;
  Sizes outputs = channels;
  for (const Sizes* sizes : {&channels, &b.sizes, &a.sizes}) {
    if (const Status status = check_sizes(*sizes); status != Status::ok) return status;
  }
  if (b.dims() < 1 || a.dims() < 1) return Status::wrong_shape;
  const std::int64_t b_length = b.sizes[b.dims() - 1], a_length = a.sizes[a.dims() - 1];
  if (b_length < 1 || a_length < 1) return Status::wrong_shape;
  for (const Sizes* sizes : {&b.sizes, &a.sizes}) {
    if (const Status status = broadcast_into(outputs, leading(*sizes, 1)); status != Status::ok) return status;
  }
  if (outputs.dims + 1 > max_view_dims) return Status::wrong_shape;
  if (b_length > most || a_length > most || options.block < 0) return Status::out_of_range;
  if (const Status status = check_sizes(outputs); status != Status::ok) return status;
  if (lacks_data(b.sizes, b.data) || lacks_data(a.sizes, a.data)) return Status::no_data;
  if (some_is_zero(a, 0)) return Status::zero_a0;

  std::unique_ptr<Made> made(new (std::nothrow) Made);
  if (made == nullptr) return Status::out_of_memory;
  made->order = static_cast<int>(std::max(b_length, a_length)) - 1;
  made->kernel.b_length = static_cast<int>(b_length);
  made->kernel.a_length = static_cast<int>(a_length);
  if (const Status status = made->begin(channels, outputs, {made->order}, options); status != Status::ok) return status;
  const PlanRows& rows = made->rows();
  if (!made->b.allocate(b, 1, rows.count()) || !made->a.allocate(a, 1, rows.count())) return Status::out_of_memory;
  made->b.copy(b, rows);
  made->a.copy(a, rows);
  made->b.attach(made->kernel.b);
  made->a.attach(made->kernel.a);
  const Status status = made->finish(options.algorithm == Algorithm::automatic
                                         ? lfilter_plan_algorithm(rows.count(), options.block, made->order)
                                         : options.algorithm);
  if (status == Status::ok) made_ = std::move(made);
  return status;
}

template <class Sample>
Status LFilterPlan<Sample>::run(const View<const Sample>& x, const View<Sample>& y) noexcept {
  return made_ != nullptr ? made_->run(x, y) : Status::not_made;
}
template <class Sample>
Status LFilterPlan<Sample>::run(const Sample* const* x, Sample* const* y, std::int64_t samples) noexcept {
  return made_ != nullptr ? made_->run(x, y, samples) : Status::not_made;
}

template <class Sample>
Status LFilterPlan<Sample>::set_coefficients(const View<const double>& b, const View<const double>& a) noexcept {
  if (made_ == nullptr) return Status::not_made;
  if (const Status status = made_->b.check(b); status != Status::ok) return status;
  if (const Status status = made_->a.check(a); status != Status::ok) return status;
  if (some_is_zero(a, 0)) return Status::zero_a0;
  made_->b.copy(b, made_->rows());
  made_->a.copy(a, made_->rows());
  return made_->reload();
}

template <class Sample>
Status LFilterPlan<Sample>::set_state(const View<const double>& zi) noexcept {
  return made_ != nullptr ? made_->set_state(zi) : Status::not_made;
}
template <class Sample>
Status LFilterPlan<Sample>::state(const View<double>& zf) noexcept {
  return made_ != nullptr ? made_->state(zf) : Status::not_made;
}
template <class Sample>
Status LFilterPlan<Sample>::reset() noexcept {
  return made_ != nullptr ? made_->load({}) : Status::not_made;
}

template <class Sample>
Sizes LFilterPlan<Sample>::outputs() const noexcept {
  return made_ != nullptr ? made_->rows().outputs() : Sizes();
}
template <class Sample>
int LFilterPlan<Sample>::order() const noexcept {
  return made_ != nullptr ? made_->order : 0;
}
template <class Sample>
Algorithm LFilterPlan<Sample>::algorithm() const noexcept {
  return made_ != nullptr ? made_->algorithm() : Algorithm::automatic;
}
template <class Sample>
const char* LFilterPlan<Sample>::isa() const noexcept {
  return made_ != nullptr ? made_->isa() : "";
}

template class LFilterPlan<float>;
template class LFilterPlan<double>;

}  // namespace torch_iir
