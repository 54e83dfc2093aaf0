// SIMD for the kernels, by the compiler's vector types: one source for every instruction set.
//
// The kernels work on `lanes` signals at once, one in each lane: as many as a vector holds floats. In double, where all
// arithmetic is done, they fill two vectors. A tile holds lanes side by side, tile[t * lanes + lane]; signals are loaded
// into tiles and stored from them by transposing square blocks in registers.
//
// Everything stands in an unnamed namespace: nothing compiled for one instruction set may be visible to the linker.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "torch_iir/batch.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace torch_iir::TORCH_IIR_ISA {
namespace {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif

template <class T, int n>
struct VectorType {
  typedef T type __attribute__((vector_size(n * sizeof(T))));
};
template <class T, int n>
using Vector = typename VectorType<T, n>::type;

inline constexpr int width = vector_bytes / static_cast<int>(sizeof(double));  // doubles in a vector
inline constexpr int lanes = 2 * width;                                       // floats in a vector
using Doubles = Vector<double, width>;
using Floats = Vector<float, lanes>;

#define TORCH_IIR_INLINE __attribute__((always_inline)) inline

template <class V, class T>
TORCH_IIR_INLINE V load(const T* from) {
  V value;
  std::memcpy(&value, from, sizeof(V));
  return value;
}

template <class V, class T>
TORCH_IIR_INLINE void store(T* to, V value) {
  std::memcpy(to, &value, sizeof(V));
}

// `width` neighbours as doubles, and back.
TORCH_IIR_INLINE Doubles load_doubles(const double* from) { return load<Doubles>(from); }
TORCH_IIR_INLINE Doubles load_doubles(const float* from) {
  return __builtin_convertvector(load<Vector<float, width>>(from), Doubles);
}
TORCH_IIR_INLINE void store_doubles(double* to, Doubles value) { store(to, value); }
TORCH_IIR_INLINE void store_doubles(float* to, Doubles value) {
  store(to, __builtin_convertvector(value, Vector<float, width>));
}

TORCH_IIR_INLINE double sum(Doubles v) {
  double total = 0;
  for (int i = 0; i < width; ++i) total += v[i];
  return total;
}

// ---- one sample of any storage to and from the state's type ----------------------------------------------------------

// A complex number with the layout of std::complex<double>, whose operators are library templates and so weak symbols.
struct Complex {
  double re = 0, im = 0;
  Complex() = default;
  TORCH_IIR_INLINE Complex(double r, double i = 0) : re(r), im(i) {}
  TORCH_IIR_INLINE Complex& operator+=(Complex o) {
    re += o.re;
    im += o.im;
    return *this;
  }
  TORCH_IIR_INLINE Complex& operator-=(Complex o) {
    re -= o.re;
    im -= o.im;
    return *this;
  }
  friend TORCH_IIR_INLINE Complex operator+(Complex p, Complex q) { return p += q; }
  friend TORCH_IIR_INLINE Complex operator-(Complex p, Complex q) { return p -= q; }
  friend TORCH_IIR_INLINE Complex operator-(Complex p) { return {-p.re, -p.im}; }
  friend TORCH_IIR_INLINE Complex operator*(Complex p, Complex q) {
    return {p.re * q.re - p.im * q.im, p.re * q.im + p.im * q.re};
  }
  friend TORCH_IIR_INLINE Complex operator/(Complex p, Complex q) {
    const double scale = 1 / (q.re * q.re + q.im * q.im);
    return {(p.re * q.re + p.im * q.im) * scale, (p.im * q.re - p.re * q.im) * scale};
  }
  friend TORCH_IIR_INLINE bool operator==(Complex p, Complex q) { return p.re == q.re && p.im == q.im; }
};

TORCH_IIR_INLINE double conjugate(double v) { return v; }
TORCH_IIR_INLINE Complex conjugate(Complex v) { return {v.re, -v.im}; }

TORCH_IIR_INLINE float float_of_bits(std::uint32_t bits) { return __builtin_bit_cast(float, bits); }

TORCH_IIR_INLINE double read(float v) { return v; }
TORCH_IIR_INLINE double read(double v) { return v; }
TORCH_IIR_INLINE Complex read(Complex v) { return v; }
TORCH_IIR_INLINE double read(BFloat16 v) { return float_of_bits(std::uint32_t{v.bits} << 16); }
TORCH_IIR_INLINE double read(Half v) {
  const std::uint32_t sign = std::uint32_t{v.bits & 0x8000u} << 16, rest = v.bits & 0x7fffu;
  if (rest >= 0x7c00u) return float_of_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13);  // inf and nan
  const double magnitude = rest >= 0x400u ? float_of_bits((rest << 13) + 0x38000000u) : rest * 0x1p-24;
  return sign != 0 ? -magnitude : magnitude;
}

// Rounds a double to `keep` bits of fraction, to nearest even, through its bits. The caller has checked that the result
// is a normal number of the target format, where this is exact; infinities and nans pass.
TORCH_IIR_INLINE std::uint64_t rounded_bits(double v, int keep) {
  std::uint64_t bits = __builtin_bit_cast(std::uint64_t, v);
  const int drop = 52 - keep;
  return (bits + ((std::uint64_t{1} << (drop - 1)) - 1) + (bits >> drop & 1)) >> drop;
}

TORCH_IIR_INLINE void write(float& to, double v) { to = static_cast<float>(v); }
TORCH_IIR_INLINE void write(double& to, double v) { to = v; }
TORCH_IIR_INLINE void write(Complex& to, Complex v) { to = v; }
TORCH_IIR_INLINE void write(BFloat16& to, double v) {
  const std::uint16_t sign = __builtin_signbit(v) ? 0x8000 : 0;
  const double magnitude = __builtin_fabs(v);
  if (magnitude != magnitude) {
    to.bits = 0x7fc0;
  } else if (magnitude < 0x1p-126) {  // subnormal: flushed, as the kernels' arithmetic does
    to.bits = sign;
  } else {
    const std::uint64_t bits = rounded_bits(magnitude, 7) - (std::uint64_t{1023 - 127} << 7);
    to.bits = static_cast<std::uint16_t>(sign | (bits < 0x7f80 ? bits : 0x7f80));
  }
}
TORCH_IIR_INLINE void write(Half& to, double v) {
  const std::uint16_t sign = __builtin_signbit(v) ? 0x8000 : 0;
  const double magnitude = __builtin_fabs(v);
  if (magnitude != magnitude) {
    to.bits = 0x7e00;
  } else if (magnitude < 0x1p-14) {  // subnormal halves are frequent in audio and kept: a fixed point of 2^-24
    const double scaled = magnitude * 0x1p24 + 0x1p52;  // adding 2^52 rounds to an integer, to nearest even
    to.bits = static_cast<std::uint16_t>(sign | (__builtin_bit_cast(std::uint64_t, scaled) & 0x7ff));
  } else {
    const std::uint64_t bits = rounded_bits(magnitude, 10) - (std::uint64_t{1023 - 15} << 10);
    to.bits = static_cast<std::uint16_t>(sign | (bits < 0x7c00 ? bits : 0x7c00));
  }
}

// What a tile holds for a storage type: float stays, everything else is double.
template <class Sample>
struct TileOf {
  using type = double;
};
template <>
struct TileOf<float> {
  using type = float;
};
template <class Sample>
using Tile = typename TileOf<Sample>::type;

// ---- transposes ------------------------------------------------------------------------------------------------------

template <class Index, class V, std::size_t... i>
TORCH_IIR_INLINE V permute(V p, V q, std::index_sequence<i...>) {
  return __builtin_shufflevector(p, q, Index::of(static_cast<int>(i))...);
}

// The lower (or upper) halves of the 16-byte groups of two vectors, interleaved by `unit` elements.
template <int n, int group, int unit, bool upper>
struct Interleave {
  static constexpr int of(int i) {
    const int base = i / group * group, k = i % group / unit, within = i % unit;
    return (k % 2 ? n : 0) + base + (upper ? group / 2 : 0) + k / 2 * unit + within;
  }
};
// First the two lower (upper) groups of p, then those of q.
template <int n, int group, bool upper>
struct HalvesOf {
  static constexpr int of(int i) {
    return i < n / 2 ? i + (upper ? n / 2 : 0) : i - n / 2 + (upper ? n / 2 : 0) + n;
  }
};
// The even (odd) groups of p, then those of q.
template <int n, int group, bool odd>
struct EveryOther {
  static constexpr int of(int i) {
    const int which = i / group, within = i % group, per = n / group / 2;
    return (which / per ? n : 0) + (which % per * 2 + (odd ? 1 : 0)) * group + within;
  }
};

// v[i][j] ↔ v[j][i] for n vectors of n elements: first within groups of 16 bytes, then the groups. Every permutation is a
// single instruction on x86 and on NEON.
template <class T, int n>
TORCH_IIR_INLINE void transpose(Vector<T, n> (&v)[n]) {
  using V = Vector<T, n>;
  constexpr int group = 16 / static_cast<int>(sizeof(T)), groups = n / group;
  constexpr auto all = std::make_index_sequence<n>{};
#pragma GCC unroll 16
  for (int g = 0; g < groups; ++g) {
    V* r = v + g * group;
    if constexpr (group == 4) {
      const V p = permute<Interleave<n, 4, 1, false>>(r[0], r[1], all), q = permute<Interleave<n, 4, 1, true>>(r[0], r[1], all);
      const V s = permute<Interleave<n, 4, 1, false>>(r[2], r[3], all), t = permute<Interleave<n, 4, 1, true>>(r[2], r[3], all);
      r[0] = permute<Interleave<n, 4, 2, false>>(p, s, all);
      r[1] = permute<Interleave<n, 4, 2, true>>(p, s, all);
      r[2] = permute<Interleave<n, 4, 2, false>>(q, t, all);
      r[3] = permute<Interleave<n, 4, 2, true>>(q, t, all);
    } else {
      const V p = r[0], q = r[1];
      r[0] = permute<Interleave<n, 2, 1, false>>(p, q, all);
      r[1] = permute<Interleave<n, 2, 1, true>>(p, q, all);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < group; ++i) {
    if constexpr (groups == 2) {
      const V p = v[i], q = v[group + i];
      v[i] = permute<HalvesOf<n, group, false>>(p, q, all);
      v[group + i] = permute<HalvesOf<n, group, true>>(p, q, all);
    } else if constexpr (groups == 4) {
      const V p = v[i], q = v[group + i], s = v[2 * group + i], t = v[3 * group + i];
      const V pq0 = permute<HalvesOf<n, group, false>>(p, q, all), pq1 = permute<HalvesOf<n, group, true>>(p, q, all);
      const V st0 = permute<HalvesOf<n, group, false>>(s, t, all), st1 = permute<HalvesOf<n, group, true>>(s, t, all);
      v[i] = permute<EveryOther<n, group, false>>(pq0, st0, all);
      v[group + i] = permute<EveryOther<n, group, true>>(pq0, st0, all);
      v[2 * group + i] = permute<EveryOther<n, group, false>>(pq1, st1, all);
      v[3 * group + i] = permute<EveryOther<n, group, true>>(pq1, st1, all);
    }
  }
}

// ---- tiles -----------------------------------------------------------------------------------------------------------

// tile[t][lane] = rows[lane][t * step], t < count; reversed: tile[count − 1 − t][lane].
template <bool reversed = false, class Sample>
TORCH_IIR_INLINE void load_tile(Tile<Sample>* tile, const Sample* const (&rows)[lanes], std::int64_t step, int count) {
  int t = 0;
  if constexpr (sizeof(Sample) == sizeof(Tile<Sample>)) {  // float and double: stored as computed on
    constexpr int square = vector_bytes / static_cast<int>(sizeof(Sample));
    if (step == 1) {
      for (; t + square <= count; t += square) {
        for (int first = 0; first < lanes; first += square) {
          Vector<Sample, square> v[square];
#pragma GCC unroll 16
          for (int i = 0; i < square; ++i) v[i] = load<Vector<Sample, square>>(rows[first + i] + t);
          transpose<Sample, square>(v);
#pragma GCC unroll 16
          for (int i = 0; i < square; ++i) store(tile + (reversed ? count - 1 - t - i : t + i) * lanes + first, v[i]);
        }
      }
    }
  }
  for (; t < count; ++t) {
    for (int lane = 0; lane < lanes; ++lane) {
      tile[(reversed ? count - 1 - t : t) * lanes + lane] = static_cast<Tile<Sample>>(read(rows[lane][t * step]));
    }
  }
}

// rows[lane][t * step] = tile[t][lane], t < count, lane < used; reversed: tile[count − 1 − t][lane].
template <bool reversed = false, class Sample>
TORCH_IIR_INLINE void store_tile(Sample* const (&rows)[lanes], int used, std::int64_t step, const Tile<Sample>* tile, int count) {
  int t = 0;
  if constexpr (sizeof(Sample) == sizeof(Tile<Sample>)) {
    constexpr int square = vector_bytes / static_cast<int>(sizeof(Sample));
    if (step == 1) {
      for (; t + square <= count; t += square) {
        for (int first = 0; first < used; first += square) {
          Vector<Sample, square> v[square];
#pragma GCC unroll 16
          for (int i = 0; i < square; ++i) {
            v[i] = load<Vector<Sample, square>>(tile + (reversed ? count - 1 - t - i : t + i) * lanes + first);
          }
          transpose<Sample, square>(v);
          if (first + square <= used) {
#pragma GCC unroll 16
            for (int i = 0; i < square; ++i) store(rows[first + i] + t, v[i]);
          } else {
#pragma GCC unroll 16
            for (int i = 0; i < square; ++i) {
              if (first + i < used) store(rows[first + i] + t, v[i]);
            }
          }
        }
      }
    }
  }
  for (; t < count; ++t) {
    for (int lane = 0; lane < used; ++lane) {
      write(rows[lane][t * step], tile[(reversed ? count - 1 - t : t) * lanes + lane]);
    }
  }
}

// ---- subnormals ------------------------------------------------------------------------------------------------------

// Subnormal numbers are flushed to zero while this lives: a tail that decays into silence is as fast as the rest.
class FlushToZero {
 public:
#if defined(__x86_64__)
  FlushToZero() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }  // FTZ, DAZ
  ~FlushToZero() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushToZero() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" : : "r"(saved_ | std::uint64_t{1} << 24));
  }
  ~FlushToZero() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }

 private:
  std::uint64_t saved_;
#else
  FlushToZero() {}
#endif
 public:
  FlushToZero(const FlushToZero&) = delete;
  FlushToZero& operator=(const FlushToZero&) = delete;
};

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
