// One sample after another: any order, storage and state. The yardstick for the other algorithms, and what remains of a
// row when they have taken all they can.
#pragma once

#include <type_traits>

#include "simd.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

// Transposed direct form II, z[0 … order) carried on. `fixed` is the order where it is known, else −1.
template <int fixed, class Sample, class State>
TORCH_IIR_INLINE void direct_loop(const Sample* x, std::int64_t x_step, Sample* y, std::int64_t y_step,
                                  std::int64_t samples, int any_order, const State* b, const State* a, State* z) {
  const int order = fixed >= 0 ? fixed : any_order;
  for (std::int64_t t = 0; t < samples; ++t) {
    const State in = read(x[t * x_step]);
    State out = b[0] * in;
    if (order > 0) {
      out += z[0];
      for (int k = 0; k + 1 < order; ++k) z[k] = z[k + 1] + b[k + 1] * in - a[k + 1] * out;
      z[order - 1] = b[order] * in - a[order] * out;
    }
    write(y[t * y_step], out);
  }
}

template <int order, class Sample, class State>
void direct_fixed(const Sample* x, std::int64_t x_step, Sample* y, std::int64_t y_step, std::int64_t samples,
                  const State* b, const State* a, State* z) {
  State local[order + 1], p[order + 1], m[order + 1];  // in registers: y may alias nothing the compiler can see
  for (int k = 0; k <= order; ++k) p[k] = b[k], m[k] = a[k];
  for (int k = 0; k < order; ++k) local[k] = z[k];
  direct_loop<order>(x, x_step, y, y_step, samples, order, p, m, local);
  for (int k = 0; k < order; ++k) z[k] = local[k];
}

template <std::size_t... i>
TORCH_IIR_INLINE Doubles from_next_lane(Doubles v, Doubles next, std::index_sequence<i...>) {
  return __builtin_shufflevector(v, next, static_cast<int>(i + 1)...);
}
template <std::size_t... i>
TORCH_IIR_INLINE Doubles first_lane(Doubles v, std::index_sequence<i...>) {
  return __builtin_shufflevector(v, v, static_cast<int>(i * 0)...);
}

// The same with the states in the lanes of `vectors` vectors, one after the other.
template <int vectors, class Sample>
void direct_in_vectors(const Sample* x, std::int64_t x_step, Sample* y, std::int64_t y_step, std::int64_t samples,
                       int order, const double* b, const double* a, double* z) {
  constexpr auto all = std::make_index_sequence<width>{};
  constexpr int most = vectors * width;
  alignas(64) double padded[3][most] = {};
  if (order > most) order = most;  // never so; the compiler wants to know
  for (int k = 0; k < order; ++k) padded[0][k] = b[k + 1], padded[1][k] = a[k + 1], padded[2][k] = z[k];
  Doubles p[vectors], m[vectors], s[vectors];
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) {
    p[v] = load_doubles(padded[0] + v * width);
    m[v] = load_doubles(padded[1] + v * width);
    s[v] = load_doubles(padded[2] + v * width);
  }
  const double b0 = b[0];
  for (std::int64_t t = 0; t < samples; ++t) {
    const Doubles in = Doubles{} + read(x[t * x_step]), out = first_lane(s[0], all) + b0 * in;
    write(y[t * y_step], out[0]);
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      const Doubles next = v + 1 < vectors ? s[v + 1] : Doubles{};
      s[v] = (from_next_lane(s[v], next, all) + p[v] * in) - m[v] * out;
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) store_doubles(padded[2] + v * width, s[v]);
  for (int k = 0; k < order; ++k) z[k] = padded[2][k];
}

template <class Sample, class State>
void direct_filter(const Sample* x, std::int64_t x_step, Sample* y, std::int64_t y_step, std::int64_t samples,
                   int order, const State* b, const State* a, State* z) {
  switch (order) {
    case 0: return direct_fixed<0>(x, x_step, y, y_step, samples, b, a, z);
    case 1: return direct_fixed<1>(x, x_step, y, y_step, samples, b, a, z);
    case 2: return direct_fixed<2>(x, x_step, y, y_step, samples, b, a, z);
    case 3: return direct_fixed<3>(x, x_step, y, y_step, samples, b, a, z);
    case 4: return direct_fixed<4>(x, x_step, y, y_step, samples, b, a, z);
    case 5: return direct_fixed<5>(x, x_step, y, y_step, samples, b, a, z);
    case 6: return direct_fixed<6>(x, x_step, y, y_step, samples, b, a, z);
  }
  if constexpr (std::is_same_v<State, double>) {
    switch ((order + width - 1) / width) {
      case 1: return direct_in_vectors<1>(x, x_step, y, y_step, samples, order, b, a, z);
      case 2: return direct_in_vectors<2>(x, x_step, y, y_step, samples, order, b, a, z);
      case 3: return direct_in_vectors<3>(x, x_step, y, y_step, samples, order, b, a, z);
      case 4: return direct_in_vectors<4>(x, x_step, y, y_step, samples, order, b, a, z);
      case 5: return direct_in_vectors<5>(x, x_step, y, y_step, samples, order, b, a, z);
      case 6: return direct_in_vectors<6>(x, x_step, y, y_step, samples, order, b, a, z);
      case 7: return direct_in_vectors<7>(x, x_step, y, y_step, samples, order, b, a, z);
      case 8: return direct_in_vectors<8>(x, x_step, y, y_step, samples, order, b, a, z);
    }
  }
  direct_loop<-1>(x, x_step, y, y_step, samples, order, b, a, z);
}

// Where a gradient of the input goes: stored, or added to sums over the rows that share the input.
template <class Sample, class State>
struct InputGradient {
  Sample* rows = nullptr;
  std::int64_t step = 1;
  State* sums = nullptr;  // contiguous

  explicit TORCH_IIR_INLINE operator bool() const { return rows != nullptr || sums != nullptr; }
  TORCH_IIR_INLINE void put(std::int64_t t, State value) const {
    if (sums != nullptr) {
      sums[t] += value;
    } else {
      write(rows[t * step], value);
    }
  }
};

inline constexpr int direct_window = 256;

// Backward over `samples` samples, the last first. v[k] = v[t + 1 + k] is carried; gb and ga are added to (ga without
// its sign). g may be null: zero. `window` has room for order + direct_window values.
template <class Sample, class State>
void direct_backward(const Sample* g, std::int64_t g_step, const Sample* x, std::int64_t x_step, const Sample* y,
                     std::int64_t y_step, std::int64_t samples, int order, const State* b, const State* a, State* v,
                     State* gb, State* ga, InputGradient<Sample, State> gx, State* window) {
  State* now = window + direct_window;  // now[1 + k] = v[k]; v slides down the window
  for (int k = 0; k < order; ++k) now[k] = v[k];
  for (std::int64_t t = samples - 1; t >= 0; --t) {
    if (now == window) {
      std::memmove(static_cast<void*>(window + direct_window), window, sizeof(State) * order);
      now += direct_window;
    }
    --now;
    State value = g != nullptr ? State(read(g[t * g_step])) : State(0);
    for (int k = order; k >= 1; --k) value -= conjugate(a[k]) * now[k];
    now[0] = value;
    if (gx) {
      State out = conjugate(b[0]) * value;
      for (int k = 1; k <= order; ++k) out += conjugate(b[k]) * now[k];
      gx.put(t, out);
    }
    if (gb != nullptr) {
      const State in = conjugate(State(read(x[t * x_step]))), past = conjugate(State(read(y[t * y_step])));
      for (int k = 0; k <= order; ++k) {
        gb[k] += in * now[k];
        ga[k] += past * now[k];
      }
    }
  }
  for (int k = 0; k < order; ++k) v[k] = now[k];
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
