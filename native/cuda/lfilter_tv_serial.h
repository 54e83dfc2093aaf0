// The recurrence whose coefficients change, one step after another: any order, and complex numbers.
//
// Blocks      one of a row; order 0, which is no recurrence, is a thread for each sample
// Cost        a barrier a step, N / threads multiply-adds of each thread: slow, and meant for what nothing else takes
// Races       a step reads z at its own place, which nobody writes before the barrier after it, and each thread adds to
//             places of its own
#pragma once

#include "lfilter_tv_recurrence.h"

namespace torch_iir::cuda {

template <class State, bool backward>
TORCH_IIR_GPU Computed<State> recurrence_tap(const Recurrence<State>& r, std::int64_t row, std::int64_t t, int lag) {
  const Computed<State> value = tap(r.a, row, t, lag - r.a.first);
  return backward ? conjugate(value) : value;
}

template <class State, bool backward>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(256, 4) tv_pointwise(Recurrence<State> r) {
  const std::int64_t steps = r.steps(), count = r.rows * steps;
  for (std::int64_t i = block() * threads() + thread(); i < count; i += blocks() * threads()) {
    const std::int64_t row = i / steps, t = r.begin + i % steps;
    Computed<State> value = r.load_in(r.in.row(r.batch, row), t);
    if (r.a.first == 0) {
      const Computed<State> a0 = recurrence_tap<State, backward>(r, r.a.row(r.batch, row), t, 0);
      value = value * (Computed<State>(1.0) / a0);
    }
    r.store_out(r.out.row(r.batch, row), t, value);
  }
}

// Of a block: pending values, past outputs, and what a piece of steps takes in.
inline std::int64_t serial_numbers(std::int64_t order, int threads) { return 2 * order + 1 + 2 * threads; }

template <class State, bool backward>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(1024, 1) tv_serial(Recurrence<State> r, Computed<State>* memory) {
  using Value = Computed<State>;
  const int order = r.order(), places = order + 1, width = threads();
  Value* const z =
      memory != nullptr ? memory + block() * (2 * order + 1 + 2 * width) : reinterpret_cast<Value*>(shared_memory());
  Value *const past = z + places, *const in = past + order, *const inverse = in + width;
  const std::int64_t steps = r.steps();
  for (std::int64_t row = block(); row < r.rows; row += blocks()) {
    const std::int64_t a = r.a.row(r.batch, row), x = r.in.row(r.batch, row), out = r.out.row(r.batch, row);
    const std::int64_t from = r.from.row(r.batch, row), to = r.to.row(r.batch, row);
    sync();
    for (int j = thread(); j < order; j += width) {
      const Value state = r.from ? load(r.from, from + j * r.from.step) : Value(0.0);
      z[j] = backward ? state : Value(0.0);
      past[order - 1 - j] = state;  // of step n at n modulo the order
    }
    if (thread() == 0) z[order] = Value(0.0);
    sync();
    // What comes before the first sample has its output already.
    const std::int64_t first = backward ? 0 : -order;
    const auto coefficient = [&](std::int64_t n, int k) {
      const std::int64_t t = r.template time<backward>(n);
      if (n >= steps || (!backward && (t + k < r.begin || t + k >= r.end))) return Value(0.0);
      return recurrence_tap<State, backward>(r, a, backward ? t : t + k, k);
    };
    const int own = thread() + 1;
    Value next = own <= order ? coefficient(first, own) : Value(0.0);
    int at = 0;  // the place of this step
    for (std::int64_t n = first; n < steps; ++n) {
      const auto inside = static_cast<int>(n >= 0 ? n % width : 0);
      if (n >= 0 && inside == 0) {
        const std::int64_t mine = n + thread(), t = r.template time<backward>(mine);
        if (mine < steps) {
          in[thread()] = r.load_in(x, t);
          inverse[thread()] = r.a.first == 0 ? Value(1.0) / recurrence_tap<State, backward>(r, a, t, 0) : Value(1.0);
        }
        sync();
      }
      const Value v = n < 0 ? past[n + order] : (z[at] + in[inside]) * inverse[inside];
      const Value now = next;
      if (own <= order) next = coefficient(n + 1, own);  // under way until the next step
      for (int k = own; k <= order; k += width) {
        const int place = at + k < places ? at + k : at + k - places;
        const Value before = k == order ? Value(0.0) : z[place];  // its last value was that of the step before
        z[place] = before - (k == own ? now : coefficient(n, k)) * v;
      }
      if (thread() == 0 && n >= 0) {
        r.store_out(out, r.template time<backward>(n), v);
        if (!backward) past[n % order] = v;
      }
      at = at + 1 < places ? at + 1 : 0;
      sync();
    }
    if (r.to) {
      for (int j = thread(); j < order; j += width) {
        const std::int64_t n = steps - 1 - j;
        store(r.to, to + j * r.to.step, backward ? z[(at + j) % places] : past[(n + order) % order]);
      }
    }
  }
}

template <class State, bool backward>
Status run_serial(const Recurrence<State>& r, const Queue& queue, Again& memory) {
  using Value = Computed<State>;
  const int order = r.order();
  if (order == 0) {
    const std::int64_t count = r.rows * r.steps(), needed = (count + 255) / 256;
    return count == 0 ? Status::ok
                      : launch(queue, {minimum(needed, most_blocks), 256}, tv_pointwise<State, backward>, r);
  }
  const int threads = minimum((order + 31) / 32 * 32, 1024);
  const std::int64_t bytes = serial_numbers(order, threads) * static_cast<std::int64_t>(sizeof(Value));
  if (bytes <= 48 << 10)
    return launch(queue, {minimum(r.rows, most_blocks), threads, bytes}, tv_serial<State, backward>, r, nullptr);
  const std::int64_t blocks = minimum<std::int64_t>(r.rows, 2 * device().processors);
  auto* const data = reinterpret_cast<Value*>(memory.take(blocks * bytes / static_cast<std::int64_t>(sizeof(double))));
  if (!memory.ok()) return Status::out_of_memory;
  return launch(queue, {blocks, threads}, tv_serial<State, backward>, r, data);
}

}  // namespace torch_iir::cuda
