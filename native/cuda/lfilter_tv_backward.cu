// lfilter_tv_backward on CUDA: stretch after stretch, from the last to the first, the recurrence backwards leaves v in
// scratch memory, in double, 32 MB at most unless rows are many, and gradients are made of it while it is in the second
// cache. Counted, order 2 in float, all gradients of x and a: 12 bytes a sample to v, 8 + 20 to the gradients, of which
// gy, a, y, gx and ga, 28, come from memory or go there.
#include "lfilter_tv_gradients.h"
#include "lfilter_tv_run.h"

namespace torch_iir::cuda {
namespace {

// The gradient of one kind of coefficients.
template <class State>
class Coefficients {
 public:
  Coefficients(const TapGradient<State>& gradient, const Queue& queue, Scratch& scratch)
      : g_(gradient), queue_(queue), parts_(scratch) {
    wanted_ = g_.to && g_.length > 0 && g_.frames > 0;
    own_frames_ = g_.frames > 1 && g_.period == 1;
    if (!wanted_) return;
    g_.sharing = Sharing::of(static_cast<const AnyRows<State>&>(g_.to), g_.batch);
    if (!own_frames_) sums_ = scratch.take<Computed<State>>(numbers());
  }

  Status begin() {
    if (!wanted_ || own_frames_) return Status::ok;
    return set_zero(queue_, sums_, numbers() * static_cast<std::int64_t>(sizeof(Computed<State>)));
  }

  Status add(const Adjoint<State>& v) {
    const std::int64_t length = v.end - v.begin;
    if (!wanted_ || length == 0) return Status::ok;
    g_.v = v;
    const std::int64_t owners = g_.sharing.owners;
    if (own_frames_) {
      const std::int64_t pieces = owners * ((length * g_.length + gradient_threads - 1) / gradient_threads);
      return launch(queue_, {minimum(pieces, most_blocks), gradient_threads}, tv_tap_gradient<State>, g_);
    }
    if (g_.frames > 1) {
      const std::int64_t first = v.begin / g_.period, last = minimum((v.end - 1) / g_.period + 1, g_.frames - 1);
      const std::int64_t frames = last - first + 1;
      return launch(queue_, gradient_shape(owners * frames * warp_size), tv_frame_gradient<State>, g_, first, frames, 1,
                    sums_, nullptr);
    }
    const std::int64_t enough = 32 * device().processors / owners, most = length / 256;
    const std::int64_t pieces = maximum<std::int64_t>(minimum(enough, most), 1);
    constexpr auto doubles = static_cast<std::int64_t>(sizeof(Computed<State>) / sizeof(double));
    auto* const parts = reinterpret_cast<Computed<State>*>(parts_.take(owners * pieces * g_.length * doubles));
    if (!parts_.ok()) return Status::out_of_memory;
    const Status status = launch(queue_, gradient_shape(owners * pieces * warp_size), tv_frame_gradient<State>, g_, 0,
                                 1, pieces, sums_, parts);
    if (status != Status::ok) return status;
    return launch(queue_, gradient_shape(owners * g_.length), tv_add_parts<State>, owners, pieces, g_.length, parts,
                  sums_);
  }

  Status end() {
    if (!wanted_ || own_frames_) return Status::ok;
    return launch(queue_, gradient_shape(numbers()), tv_store_sums<State>, g_, sums_);
  }

 private:
  std::int64_t numbers() const { return g_.sharing.owners * g_.frames * g_.length; }

  TapGradient<State> g_;
  const Queue& queue_;
  Again parts_;
  bool wanted_, own_frames_;
  Computed<State>* sums_ = nullptr;
};

template <class State, class Sample, class Coefficient>
Status run(const LFilterTVBackward<Sample, Coefficient, State>& p, const Queue& queue, Algorithm algorithm) {
  Recurrence<State> r;
  r.batch = p.batch;
  r.rows = p.batch.rows();
  if (r.rows == 0) return Status::ok;
  r.a = AnyTaps<State>(p.a, p.period);
  const AnyTaps<State> b = p.b ? AnyTaps<State>(p.b, p.period) : AnyTaps<State>();
  const int order = r.order(), lag = b.largest_lag();
  if (!takes_recurrence<State>(algorithm, order) || (p.a.first == 0 && p.a.length == 0)) return Status::unsupported;
  r.in = any_type<const State>(p.gy);

  Scratch scratch(queue);
  Again memory(scratch);
  const std::int64_t length = maximum<std::int64_t>(stretch_of(r.rows, p.samples, lag), 1);
  Adjoint<State> v;
  v.pitch = length + lag;
  v.values = scratch.take<Computed<State>>(r.rows * v.pitch);
  auto* const states = scratch.take<Computed<State>>(r.rows * order);

  InputGradient<State> input{p.batch, p.samples, {}, {}, b, any_type<State>(p.gx)};
  const auto coefficients = [&](const auto& taps, const auto& to, const auto& signal, const auto& past, bool minus) {
    TapGradient<State> g;
    g.batch = p.batch;
    g.signal = any_type<const State>(signal);
    g.past = past;
    g.minus = minus;
    g.length = taps.length;
    g.first = taps.first;
    g.frames = taps.frames;
    g.period = p.period;
    g.to = AnyMatrices<State>(any_type<State>(static_cast<const Rows<Coefficient>&>(to)), to.down);
    return Coefficients<State>(g, queue, scratch);
  };
  Coefficients<State> of_b = coefficients(b, p.gb, p.x, p.zx, false), of_a = coefficients(p.a, p.ga, p.y, p.zi, true);
  if (!scratch.ok()) return Status::out_of_memory;

  Status status = of_b.begin();
  if (status == Status::ok) status = of_a.begin();
  const auto then = [&](auto step) {
    if (status == Status::ok) status = step();
  };
  r.from = p.gzf;
  r.to = own_rows<State>(states, p.batch, order);
  r.out = own_rows<State>(v.values, p.batch, v.pitch);
  // Each begins at a multiple of the length: only the one that comes first is shorter.
  std::int64_t begin = p.samples > 0 ? (p.samples - 1) / length * length : 0;
  for (r.end = p.samples;; begin -= length) {
    r.begin = r.out_begin = v.begin = begin;
    v.end = r.end;
    then([&] { return run_recurrence<State, true>(r, queue, algorithm, memory); });
    if (p.gx && r.steps() > 0) {
      input.v = v;
      input.sharing = Sharing::of(input.gx, p.batch);
      then([&] {
        const std::int64_t pieces = (r.steps() + gradient_threads - 1) / gradient_threads;
        return launch(queue, {minimum(input.sharing.owners * pieces, most_blocks), gradient_threads},
                      tv_input_gradient<State>, input);
      });
    }
    then([&] { return of_b.add(v); });
    then([&] { return of_a.add(v); });
    if (begin == 0) break;
    if (lag > 0 && (p.gx || p.gzx)) {
      then([&] {
        return launch(queue, gradient_shape(r.rows * lag), tv_keep<State>, r.rows, v.pitch, length, std::int64_t{lag},
                      v.values);
      });
    }
    r.end = begin;
    r.from = own_rows<const State>(states, p.batch, order);
  }
  then([&] { return of_b.end(); });
  then([&] { return of_a.end(); });
  if (p.gzx && lag > 0) {
    input.v = v;
    input.gx = p.gzx;
    input.sharing = Sharing::of(input.gx, p.batch);
    then(
        [&] { return launch(queue, gradient_shape(input.sharing.owners * lag), tv_past_gradient<State>, input, lag); });
  }
  if (p.gzi && order > 0) {
    const Sharing sharing = Sharing::of(p.gzi, p.batch);
    then([&] {
      return launch(queue, gradient_shape(sharing.owners * order), tv_state_gradient<State>, p.batch, sharing, states,
                    order, p.gzi);
    });
  }
  return status;
}

}  // namespace

#define TORCH_IIR_INSTANTIATE(State, ...)                                                 \
  Status lfilter_tv_backward(const LFilterTVBackward<__VA_ARGS__>& p, const Queue& queue, \
                             Algorithm algorithm) noexcept {                              \
    return run<State>(p, queue, algorithm);                                               \
  }
TORCH_IIR_INSTANTIATE(double, float)
TORCH_IIR_INSTANTIATE(double, float, double)
TORCH_IIR_INSTANTIATE(double, double)
TORCH_IIR_INSTANTIATE(double, Half)
TORCH_IIR_INSTANTIATE(double, Half, double)
TORCH_IIR_INSTANTIATE(double, BFloat16)
TORCH_IIR_INSTANTIATE(double, BFloat16, double)
TORCH_IIR_INSTANTIATE(std::complex<double>, std::complex<double>, std::complex<double>, std::complex<double>)
#undef TORCH_IIR_INSTANTIATE

}  // namespace torch_iir::cuda
