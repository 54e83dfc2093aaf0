#include "torch_iir/lfilter_tv_plan.h"

#include <limits>
#include <new>
#include <utility>

#include "isa.h"
#include "plan_rows.h"
#include "torch_iir/instruction_sets.h"

namespace torch_iir {

template <class Sample>
struct LFilterTVPlan<Sample>::Made {
  using Kernel = LFilterTV<Sample, Sample>;

  // Points the coefficients at a view; Status::ok if it fits blocks of so many samples.
  Status attach(Taps<const Sample>& taps, const View<const Sample>& view, const Sample** places, std::int64_t samples) {
    if (taps.length == 0) return view.sizes.count() == (view.dims() == 0) ? Status::ok : Status::wrong_shape;
    const int frame = view.dims() - 2;
    if (frame < 0 || view.sizes[frame + 1] != taps.length) return Status::wrong_shape;
    if (!rows.take(leading(view.sizes, 2))) return Status::wrong_shape;
    const std::int64_t frames = view.sizes[frame], period = kernel.period;
    const std::int64_t wanted = samples / period + (samples % period != 0);
    if (frames != 1 && (period == 1 ? frames != wanted : frames < wanted)) return Status::wrong_shape;
    if (lacks_data(view.sizes, view.data)) return Status::no_data;
    rows.place(view, 2, places);
    taps.each = places;
    taps.stride[0] = 1;
    taps.step = view.stride[frame + 1];
    taps.down = view.stride[frame];
    taps.frames = frames;
    return Status::ok;
  }

  Status call(Step step) {
    Context now = context;
    now.step = step;
    return lfilter_tv(isa, kernel, algorithm, now);
  }

  void rest() {
    std::fill_n(past_x.get(), rows.count() * kernel.b.largest_lag(), 0.0);
    std::fill_n(past_y.get(), rows.count() * kernel.a.largest_lag(), 0.0);
  }

  Status check_state(const View<const double>& state, const Taps<const Sample>& taps) const {
    if (taps.largest_lag() == 0 && state.dims() == 0) return Status::ok;
    if (state.dims() < 1 || state.sizes[state.dims() - 1] != taps.largest_lag()) return Status::wrong_shape;
    if (!rows.take(leading(state.sizes, 1))) return Status::wrong_shape;
    return lacks_data(state.sizes, state.data) ? Status::no_data : Status::ok;
  }
  // Between a view of states and the plan's own; use(view's element, plan's).
  template <class T, class Use>
  void for_states(const View<T>& view, const Taps<const Sample>& taps, double* own, Use use) const {
    const int lags = taps.largest_lag();
    if (lags == 0) return;
    const std::int64_t step = view.stride[view.dims() - 1];
    rows.for_each(leading(view.sizes, 1), view.stride, [&](std::int64_t row, std::int64_t at) {
      for (int k = 0; k < lags; ++k) use(view.data[at + k * step], own[row * lags + k]);
    });
  }

  // The inputs that the next block will look back at.
  void remember(std::int64_t samples) {
    const int lags = kernel.b.largest_lag();
    for (std::int64_t row = 0; row < rows.count(); ++row) {
      double* past = past_x.get() + row * lags;
      const Sample* end = x[row] + (samples - 1) * kernel.x.step;
      for (std::int64_t j = lags - 1; j >= 0; --j)
        past[j] = j < samples ? static_cast<double>(end[-j * kernel.x.step]) : past[j - samples];
    }
  }

  int isa = 0;
  Algorithm algorithm = Algorithm::automatic;
  Context context{ParallelFor{}};
  PlanRows rows;
  Kernel kernel;
  Buffer<const Sample*> x, b, a;
  Buffer<Sample*> y;
  Buffer<double> past_x, past_y;  // [rows][largest lag], the newest first
  Buffer<char> memory;
};

template <class Sample>
LFilterTVPlan<Sample>::LFilterTVPlan() noexcept = default;
template <class Sample>
LFilterTVPlan<Sample>::LFilterTVPlan(LFilterTVPlan&&) noexcept = default;
template <class Sample>
LFilterTVPlan<Sample>& LFilterTVPlan<Sample>::operator=(LFilterTVPlan&&) noexcept = default;
template <class Sample>
LFilterTVPlan<Sample>::~LFilterTVPlan() = default;
template <class Sample>
LFilterTVPlan<Sample>::operator bool() const noexcept {
  return made_ != nullptr;
}

template <class Sample>
Status LFilterTVPlan<Sample>::make(const TimeVaryingFilter& filter, const Sizes& channels,
                                   const PlanOptions& options) noexcept {
  made_.reset();
  constexpr int most = std::numeric_limits<int>::max() / 2;
  if (const Status status = check_sizes(channels); status != Status::ok) return status;
  if (channels.dims + 2 > max_view_dims) return Status::wrong_shape;
  for (const auto& [length, first] : {std::pair(filter.b_length, filter.b_first), {filter.a_length, filter.a_first}}) {
    if (length < 0 || length > most || first < 0 || first > 1) return Status::out_of_range;
  }
  if (filter.period < 1 || options.block < 0) return Status::out_of_range;

  std::unique_ptr<Made> made(new (std::nothrow) Made);
  if (made == nullptr) return Status::out_of_memory;
  made->isa = current_isa();
  made->context = Context(options.parallel_for);
  made->rows = PlanRows(channels, channels);
  const std::int64_t rows = made->rows.count();
  auto& kernel = made->kernel;
  kernel.batch.dims = 1;
  kernel.batch.size[0] = rows;
  kernel.samples = options.block;
  kernel.period = filter.period;
  kernel.b.length = filter.b_length, kernel.b.first = filter.b_first;
  kernel.a.length = filter.a_length,
  kernel.a.first = filter.a_length == 0 ? 1 : filter.a_first;  // no a[t,0] to divide by
  const std::int64_t lags = kernel.b.largest_lag(), order = kernel.a.largest_lag();
  if (!made->x.allocate(rows) || !made->y.allocate(rows) || !made->b.allocate(rows) || !made->a.allocate(rows) ||
      !made->past_x.allocate(rows * lags) || !made->past_y.allocate(rows * order))
    return Status::out_of_memory;
  kernel.x.each = made->x.get();
  kernel.y.each = made->y.get();
  kernel.x.stride[0] = kernel.y.stride[0] = 1;  // that no row is another's
  kernel.zx.data = made->past_x.get();
  kernel.zx.stride[0] = lags;
  kernel.zi.data = kernel.zf.data = made->past_y.get();
  kernel.zi.stride[0] = kernel.zf.stride[0] = order;
  if (filter.b_length > 0) kernel.b.each = made->b.get();
  if (filter.a_length > 0) kernel.a.each = made->a.get();
  made->algorithm = options.algorithm == Algorithm::automatic
                        ? lfilter_tv_algorithm(rows, options.block, static_cast<int>(order))
                        : options.algorithm;
  // Measured with coefficients that are constant: those that lie as the kernel wants them need less.
  const Status status = take_memory(made->context, made->memory, [&](Step step) { return made->call(step); });
  if (status == Status::ok) made_ = std::move(made);
  return status;
}

template <class Sample>
Status LFilterTVPlan<Sample>::run(const View<const Sample>& x, const View<const Sample>& b, const View<const Sample>& a,
                                  const View<Sample>& y) noexcept {
  if (made_ == nullptr) return Status::not_made;
  Made& made = *made_;
  auto& kernel = made.kernel;
  const Sizes& channels = made.rows.outputs();
  const int time = channels.dims;
  if (!(leading(x.sizes, 1) == channels) || !(leading(y.sizes, 1) == channels) || x.sizes[time] != y.sizes[time])
    return Status::wrong_shape;
  const std::int64_t samples = x.sizes[time];
  if (samples < 0) return Status::out_of_range;
  if (lacks_data(x.sizes, x.data) || lacks_data(y.sizes, y.data)) return Status::no_data;
  if (const Status status = made.attach(kernel.b, b, made.b.get(), samples); status != Status::ok) return status;
  if (const Status status = made.attach(kernel.a, a, made.a.get(), samples); status != Status::ok) return status;
  if (samples == 0 || made.rows.count() == 0) return Status::ok;
  made.rows.place(x, 1, made.x.get());
  made.rows.place(y, 1, made.y.get());
  kernel.x.step = x.stride[time];
  kernel.y.step = y.stride[time];
  kernel.samples = samples;
  const Status status = made.call(Step::run);
  if (status == Status::ok) {
    made.remember(samples);
  } else {
    made.rest();
  }
  return status;
}

template <class Sample>
Status LFilterTVPlan<Sample>::set_state(const View<const double>& zx, const View<const double>& zi) noexcept {
  if (made_ == nullptr) return Status::not_made;
  if (const Status status = made_->check_state(zx, made_->kernel.b); status != Status::ok) return status;
  if (const Status status = made_->check_state(zi, made_->kernel.a); status != Status::ok) return status;
  const auto read = [](double from, double& to) { to = from; };
  made_->for_states(zx, made_->kernel.b, made_->past_x.get(), read);
  made_->for_states(zi, made_->kernel.a, made_->past_y.get(), read);
  return Status::ok;
}
template <class Sample>
Status LFilterTVPlan<Sample>::state(const View<double>& zx, const View<double>& zf) noexcept {
  if (made_ == nullptr) return Status::not_made;
  for (const auto& [view, taps] : {std::pair(&zx, &made_->kernel.b), {&zf, &made_->kernel.a}}) {
    if (view->dims() > 0 && !(leading(view->sizes, 1) == made_->rows.outputs())) return Status::wrong_shape;
    if (const Status status = made_->check_state(*view, *taps); status != Status::ok) return status;
  }
  const auto write = [](double& to, double from) { to = from; };
  made_->for_states(zx, made_->kernel.b, made_->past_x.get(), write);
  made_->for_states(zf, made_->kernel.a, made_->past_y.get(), write);
  return Status::ok;
}
template <class Sample>
Status LFilterTVPlan<Sample>::reset() noexcept {
  if (made_ == nullptr) return Status::not_made;
  made_->rest();
  return Status::ok;
}

template <class Sample>
Algorithm LFilterTVPlan<Sample>::algorithm() const noexcept {
  return made_ != nullptr ? made_->algorithm : Algorithm::automatic;
}
template <class Sample>
const char* LFilterTVPlan<Sample>::isa() const noexcept {
  return made_ != nullptr ? instruction_sets()[made_->isa].name : "";
}

template class LFilterTVPlan<float>;
template class LFilterTVPlan<double>;

}  // namespace torch_iir
