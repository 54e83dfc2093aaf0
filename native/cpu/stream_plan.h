// What the plans of lfilter and of sosfilt have in common: signals go through row by row, and a state stays behind.
#pragma once

#include "isa.h"
#include "plan_rows.h"
#include "torch_iir/instruction_sets.h"
#include "torch_iir/plan.h"

namespace torch_iir {

// What `automatic` stands for in a plan, for runs of so many samples.
Algorithm lfilter_plan_algorithm(std::int64_t rows, std::int64_t block, int order) noexcept;
Algorithm sosfilt_plan_algorithm(std::int64_t rows, std::int64_t block, int sections) noexcept;

// Kernel is LFilter<Sample> or SOSFilt<Sample>; a row's state has `state_dims` dimensions.
template <class Kernel, class Sample, int state_dims>
class Stream {
 public:
  // From here on `kernel` knows its rows, and the coefficients wait to be loaded. `outputs` are the channels and the
  // coefficients, broadcast together; `state` are the sizes of a row's.
  Status begin(const Sizes& channels, const Sizes& outputs, const Sizes& state, const PlanOptions& options) {
    isa_ = current_isa();
    context_ = Context(options.parallel_for);
    channels_ = channels;
    rows_ = PlanRows(channels, outputs);
    state_ = state;
    kernel.batch.dims = 1;
    kernel.batch.size[0] = rows_.count();
    kernel.samples = options.block;
    const std::int64_t count = rows_.count();
    if (!x_.allocate(count) || !y_.allocate(count) || !states_.allocate(count) || !input_of_.allocate(count) ||
        !output_of_.allocate(count) || !kept_state_.allocate(count * state.count()))
      return Status::out_of_memory;
    kernel.x.each = x_.get();
    kernel.y.each = y_.get();
    kernel.x.stride[0] = kernel.y.stride[0] = 1;  // that no row is another's
    const View<const char> inputs(nullptr, channels), results(nullptr, outputs);
    rows_.for_each(inputs.sizes, inputs.stride, [&](std::int64_t row, std::int64_t at) { input_of_[row] = at; });
    rows_.for_each(results.sizes, results.stride, [&](std::int64_t row, std::int64_t at) { output_of_[row] = at; });
    return Status::ok;
  }

  // The rest of make(), when the coefficients are in their places.
  Status finish(Algorithm algorithm) {
    algorithm_ = algorithm;
    const auto measure = [&](Step step) { return call(kernel, step); };
    if (const Status status = take_memory(context_, memory_, measure); status != Status::ok) return status;
    return load({});
  }

  Status run(const View<const Sample>& x, const View<Sample>& y) {
    if (!(leading(x.sizes, 1) == channels_) || !(leading(y.sizes, 1) == rows_.outputs())) return Status::wrong_shape;
    const int time = channels_.dims, out_time = rows_.outputs().dims;
    if (x.sizes[time] != y.sizes[out_time]) return Status::wrong_shape;
    if (x.sizes[time] < 0) return Status::out_of_range;
    if (lacks_data(x.sizes, x.data) || lacks_data(y.sizes, y.data)) return Status::no_data;
    rows_.place(x, 1, x_.get());
    rows_.place(y, 1, y_.get());
    kernel.x.step = x.stride[time];
    kernel.y.step = y.stride[out_time];
    return run(x.sizes[time]);
  }

  Status run(const Sample* const* x, Sample* const* y, std::int64_t samples) {
    if (samples < 0) return Status::out_of_range;
    if (samples == 0 || rows_.count() == 0) return Status::ok;
    if (x == nullptr || y == nullptr) return Status::no_data;
    bool complete = true;
    for (std::int64_t row = 0; row < rows_.count(); ++row) {
      x_[row] = x[input_of_[row]];
      y_[row] = y[output_of_[row]];
      complete &= x_[row] != nullptr && y_[row] != nullptr;
    }
    if (!complete) return Status::no_data;
    kernel.x.step = kernel.y.step = 1;
    return run(samples);
  }

  // Coefficients and state into the kernel's memory; an empty view: at rest.
  Status load(const View<const double>& zi) {
    Kernel k = kernel;
    if (zi) attach(k.zi, zi, const_cast<const double**>(states_.get()));
    return call(k, Step::load);
  }
  Status store(const View<double>& zf) {
    Kernel k = kernel;
    attach(k.zf, zf, states_.get());
    return call(k, Step::store);
  }

  // The coefficients have changed where they lie: takes them over, and keeps the state.
  Status reload() {
    Sizes sizes = rows_.outputs();
    for (int d = 0; d < state_dims; ++d) sizes.size[sizes.dims++] = state_[d];
    const View<double> kept(kept_state_.get(), sizes);
    const Status status = store(kept);
    return status == Status::ok ? load(kept) : status;
  }

  Status set_state(const View<const double>& zi) {
    if (zi.sizes.dims < state_dims || !rows_.take(leading(zi.sizes, state_dims)) || !is_state(zi.sizes))
      return Status::wrong_shape;
    if (lacks_data(zi.sizes, zi.data)) return Status::no_data;
    return load(zi);
  }
  Status state(const View<double>& zf) {
    if (!(leading(zf.sizes, state_dims) == rows_.outputs()) || !is_state(zf.sizes)) return Status::wrong_shape;
    if (zf.sizes.count() == 0) return Status::ok;
    return zf ? store(zf) : Status::no_data;
  }

  const PlanRows& rows() const { return rows_; }
  Algorithm algorithm() const { return algorithm_; }
  const char* isa() const { return instruction_sets()[isa_].name; }

  Kernel kernel;

 private:
  Status run(std::int64_t samples) {
    if (samples == 0 || rows_.count() == 0) return Status::ok;
    kernel.samples = samples;
    return call(kernel, Step::run);
  }

  // Only a run is worth threads.
  Status call(const Kernel& k, Step step) {
    Context context = context_;
    if (step != Step::run) context.run = nullptr;
    context.step = step;
    if constexpr (state_dims == 1) {
      return lfilter(isa_, k, algorithm_, context);
    } else {
      return sosfilt(isa_, k, algorithm_, context);
    }
  }

  bool is_state(const Sizes& sizes) const {
    for (int d = 0; d < state_dims; ++d) {
      if (sizes[sizes.dims - state_dims + d] != state_[d]) return false;
    }
    return true;
  }
  template <class Operand, class T>
  void attach(Operand& operand, const View<T>& view, T** rows) const {
    rows_.place(view, state_dims, rows);
    operand.each = rows;
    operand.stride[0] = 1;
    operand.step = view.stride[view.sizes.dims - 1];
    if constexpr (state_dims == 2) operand.down = view.stride[view.sizes.dims - 2];
  }

  int isa_ = 0;
  Algorithm algorithm_ = Algorithm::automatic;
  Context context_{ParallelFor{}};
  Sizes channels_, state_;
  PlanRows rows_;
  Buffer<const Sample*> x_;
  Buffer<Sample*> y_;
  Buffer<double*> states_;
  Buffer<std::int64_t> input_of_, output_of_;  // of each row, among channels and outputs in row-major order
  Buffer<double> kept_state_;                  // while coefficients change
  Buffer<char> memory_;
};

}  // namespace torch_iir
