// Filters block after block: plans, and beside them the one-shot functions that are handed their state again and again.
//
// A signal is blocks × channels × samples of a block, without gaps; blocks reach a plan as plug-ins get them, by a
// pointer for each channel.
#include <torch_iir/lfilter.h>
#include <torch_iir/lfilter_plan.h>
#include <torch_iir/sosfilt.h>
#include <torch_iir/sosfilt_plan.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

namespace {

using torch_iir::Status;

// Coefficients are rows b0 b1 b2 a0 a1 a2. A single row is a filter of order 2 for lfilter.
struct Shape {
  int sections, channels;
  std::int64_t block;
};

class Stream {
 public:
  virtual ~Stream() = default;
  virtual Status reset() noexcept = 0;  // at rest
  virtual Status run(const float* x, float* y) noexcept = 0;
};

template <class Plan>
class Planned : public Stream {
 public:
  explicit Planned(const Shape& shape) : shape_(shape), in_(shape.channels), out_(shape.channels) {}
  Status reset() noexcept override { return plan.reset(); }
  Status run(const float* x, float* y) noexcept override {
    for (int channel = 0; channel < shape_.channels; ++channel) {
      in_[channel] = x + channel * shape_.block;
      out_[channel] = y + channel * shape_.block;
    }
    return plan.run(in_.data(), out_.data(), shape_.block);
  }

  Plan plan;

 private:
  Shape shape_;
  std::vector<const float*> in_;
  std::vector<float*> out_;
};

template <class Filter>
class OneShot : public Stream {
 public:
  OneShot(const Shape& shape, const double* coefficients)
      : coefficients_(coefficients, coefficients + 6 * shape.sections), state_(shape.channels * shape.sections * 2) {
    filter.batch = {1, {shape.channels}};
    filter.samples = shape.block;
    filter.x.stride[0] = filter.y.stride[0] = shape.block;
    const auto of_a_channel = std::int64_t{2} * shape.sections;
    if constexpr (requires { filter.sos; }) {
      filter.sections = shape.sections;
      filter.sos = {{coefficients_.data()}, 6};
      filter.zi = {{state_.data(), 1, {of_a_channel}}, 2};
      filter.zf = {{state_.data(), 1, {of_a_channel}}, 2};
    } else {
      filter.b_length = filter.a_length = 3;
      filter.b = {coefficients_.data()};
      filter.a = {coefficients_.data() + 3};
      filter.zi = {state_.data(), 1, {of_a_channel}};
      filter.zf = {state_.data(), 1, {of_a_channel}};
    }
  }
  Status reset() noexcept override {
    state_.assign(state_.size(), 0);
    return Status::ok;
  }
  Status run(const float* x, float* y) noexcept override {
    filter.x.data = x;
    filter.y.data = y;
    if constexpr (requires { filter.sos; }) return torch_iir::sosfilt(filter);
    else return torch_iir::lfilter(filter);
  }

  Filter filter;

 private:
  std::vector<double> coefficients_, state_;
};

template <class Plan, class... Coefficients>
std::unique_ptr<Stream> planned(const Shape& shape, const Coefficients&... coefficients) {
  auto stream = std::make_unique<Planned<Plan>>(shape);
  torch_iir::PlanOptions options;
  options.block = shape.block;
  if (stream->plan.make(coefficients..., {shape.channels}, options) != Status::ok) return nullptr;
  return stream;
}

}  // namespace

extern "C" {

// Null where the filter cannot be made.
Stream* make_stream(bool cascade, bool plan, const double* coefficients, int sections, int channels,
                    std::int64_t block) {
  const Shape shape{sections, channels, block};
  using View = torch_iir::View<const double>;
  std::unique_ptr<Stream> stream;
  if (plan && cascade) {
    stream = planned<torch_iir::SOSFiltPlan<float>>(shape, View(coefficients, {sections, 6}));
  } else if (plan) {
    stream = planned<torch_iir::LFilterPlan<float>>(shape, View(coefficients, {3}), View(coefficients + 3, {3}));
  } else if (cascade) {
    stream = std::make_unique<OneShot<torch_iir::SOSFilt<float>>>(shape, coefficients);
  } else {
    stream = std::make_unique<OneShot<torch_iir::LFilter<float>>>(shape, coefficients);
  }
  return stream.release();
}

void free_stream(Stream* stream) { delete stream; }

// From rest; `size` is that of a block in all channels. Where `seconds` is not null, it receives those of each block.
// Returns a Status.
int play(Stream* stream, const float* x, float* y, std::int64_t blocks, std::int64_t size, double* seconds) {
  using Clock = std::chrono::steady_clock;
  Status status = stream->reset();
  for (std::int64_t block = 0; block < blocks && status == Status::ok; ++block) {
    if (seconds == nullptr) {
      status = stream->run(x + block * size, y + block * size);
    } else {
      const Clock::time_point start = Clock::now();
      status = stream->run(x + block * size, y + block * size);
      seconds[block] = std::chrono::duration<double>(Clock::now() - start).count();
    }
  }
  return static_cast<int>(status);
}

}  // extern "C"
