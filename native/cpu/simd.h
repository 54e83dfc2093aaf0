// SIMD for the kernels, by the compiler's vector types: one source for every instruction set.
//
// The kernels work on `lanes` signals at once, one in each lane: as many as a vector holds floats. In double, where all
// arithmetic is done, they fill two vectors. A tile holds lanes side by side, tile[t * lanes + lane]; signals are
// loaded into tiles and stored from them by transposing square blocks in registers.
//
// Everything stands in an unnamed namespace: nothing compiled for one instruction set may be visible to the linker.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "torch_iir/batch.h"

#if defined(__x86_64__)
#include <immintrin.h>
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
inline constexpr int lanes = 2 * width;                                        // floats in a vector
using Doubles = Vector<double, width>;
using Floats = Vector<float, lanes>;

// Whether there are 32 vector registers, or 16.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr bool many_registers = true;
#else
inline constexpr bool many_registers = false;
#endif

#define TORCH_IIR_INLINE __attribute__((always_inline)) inline
#define TORCH_IIR_INLINE_LAMBDA __attribute__((always_inline))

inline constexpr int cache_line = 64;
inline constexpr int first_cache = 3, second_cache = 2;  // to fetch into, as __builtin_prefetch wants it

// Constants that a generic lambda can take.
template <bool b>
struct Choice {
  static constexpr bool value = b;
};
template <int n>
struct Number {
  static constexpr int value = n;
};

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
#if defined(__AVX512F__)
  // GCC 12 makes two halves of the generic conversion, and warns of the undefined register in the unmasked intrinsic.
  return (Doubles)_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(from));
#else
  return __builtin_convertvector(load<Vector<float, width>>(from), Doubles);
#endif
}
TORCH_IIR_INLINE void store_doubles(double* to, Doubles value) { store(to, value); }
TORCH_IIR_INLINE void store_doubles(float* to, Doubles value) {
  store(to, __builtin_convertvector(value, Vector<float, width>));
}

inline constexpr double not_a_number = __builtin_nan(""), infinity = __builtin_inf();

TORCH_IIR_INLINE Doubles everywhere(double value) { return value - Doubles{}; }  // + would not do: −0 + 0 is 0

TORCH_IIR_INLINE Doubles magnitude(Doubles v) { return v < 0 ? -v : v; }
TORCH_IIR_INLINE Doubles larger(Doubles p, Doubles q) { return p > q ? p : q; }  // q where one is a nan

TORCH_IIR_INLINE double sum(Doubles v) {
  double total = 0;
  for (int i = 0; i < width; ++i) total += v[i];
  return total;
}

// p q + r, rounded once; and p q, rounded and not merged into a sum. For numbers and vectors up to a register's size.
template <class T>
TORCH_IIR_INLINE T multiply_add(T p, T q, T r) {
  if constexpr (std::is_same_v<T, double>) {
    return __builtin_fma(p, q, r);
  } else {
#if defined(__FMA__) || defined(__aarch64__)
    return p * q + r;  // merged, since the kernels are compiled with -ffp-contract=fast
#else
    T result;
    for (std::size_t i = 0; i < sizeof(T) / sizeof(double); ++i) result[i] = __builtin_fma(p[i], q[i], r[i]);
    return result;
#endif
  }
}
template <class T>
TORCH_IIR_INLINE T rounded_product(T p, T q) {
  T product = p * q;
#if defined(__x86_64__)
  asm("" : "+v"(product));
#elif defined(__aarch64__)
  asm("" : "+w"(product));
#endif
  return product;
}

// Every value is finite.
TORCH_IIR_INLINE bool finite(const double* values, std::int64_t count) {
  constexpr int at_once = 4;  // chains of additions
  Doubles probes[at_once] = {};
  std::int64_t i = 0;
  for (; i + at_once * width <= count; i += at_once * width) {
#pragma GCC unroll 4
    for (int k = 0; k < at_once; ++k) probes[k] += load_doubles(values + i + k * width) * 0;
  }
  for (; i + width <= count; i += width) probes[0] += load_doubles(values + i) * 0;
  double rest = sum((probes[0] + probes[1]) + (probes[2] + probes[3]));
  for (; i < count; ++i) rest += values[i] * 0;
  return rest == 0;
}

// ---- one sample of any storage to and from the state's type --------------------------------------------------

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

// The value itself, in a register, computed here: the compiler neither puts it off, which keeps what it is computed
// from in registers, nor does a conversion again at the next use.
template <class V>
TORCH_IIR_INLINE V kept(V value) {
#if defined(__AVX512F__)
  asm("" : "+v"(value));
#endif
  return value;
}

// ---- transposes ----------------------------------------------------------------------------------------------

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
  static constexpr int of(int i) { return i < n / 2 ? i + (upper ? n / 2 : 0) : i - n / 2 + (upper ? n / 2 : 0) + n; }
};
// The even (odd) groups of p, then those of q.
template <int n, int group, bool odd>
struct EveryOther {
  static constexpr int of(int i) {
    const int which = i / group, within = i % group, per = n / group / 2;
    return (which / per ? n : 0) + (which % per * 2 + (odd ? 1 : 0)) * group + within;
  }
};

// The elements from number `first` of p and q side by side.
template <int first>
struct Window {
  static constexpr int of(int i) { return i + first; }
};
// Neighbours of p, then of q: the even ones or the odd ones.
template <int n, bool odd>
struct Alternate {
  static constexpr int of(int i) { return 2 * i + (odd ? 1 : 0); }
};

// The sum of each vector, in the lane of its number.
template <int count = width>
TORCH_IIR_INLINE Doubles sums_of(const Doubles (&v)[count]) {
  if constexpr (count == 1) {
    return v[0];
  } else {
    constexpr auto all = std::make_index_sequence<width>{};
    Doubles pairs[count / 2];
#pragma GCC unroll 4
    for (int i = 0; i < count / 2; ++i) {
      const Doubles p = v[2 * i], q = v[2 * i + 1];
      pairs[i] = permute<Alternate<width, false>>(p, q, all) + permute<Alternate<width, true>>(p, q, all);
    }
    return sums_of<count / 2>(pairs);
  }
}

// A square of n vectors of n elements is transposed in two stages, so that its pieces can be interleaved with
// arithmetic: first each group of 16 bytes, among `group` vectors, then the groups, among `groups` vectors. Every
// permutation is a single instruction on x86 and on NEON.
template <class T>
struct Square {
  static constexpr int n = vector_bytes / static_cast<int>(sizeof(T));
  static constexpr int group = 16 / static_cast<int>(sizeof(T));  // vectors in a piece of the first stage
  static constexpr int groups = n / group;                        // vectors in a piece of the second
  using V = Vector<T, n>;
  static constexpr auto all = std::make_index_sequence<n>{};

  TORCH_IIR_INLINE static void within_groups(V* r) {  // r[0 … group)
    if constexpr (group == 4) {
      const V p = permute<Interleave<n, 4, 1, false>>(r[0], r[1], all),
              q = permute<Interleave<n, 4, 1, true>>(r[0], r[1], all);
      const V s = permute<Interleave<n, 4, 1, false>>(r[2], r[3], all),
              t = permute<Interleave<n, 4, 1, true>>(r[2], r[3], all);
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
  TORCH_IIR_INLINE static void among_groups(V* r) {  // r[0], r[group], r[2 group], …
    if constexpr (groups == 2) {
      const V p = r[0], q = r[group];
      r[0] = permute<HalvesOf<n, group, false>>(p, q, all);
      r[group] = permute<HalvesOf<n, group, true>>(p, q, all);
    } else if constexpr (groups == 4) {
      const V p = r[0], q = r[group], s = r[2 * group], t = r[3 * group];
      const V pq0 = permute<HalvesOf<n, group, false>>(p, q, all), pq1 = permute<HalvesOf<n, group, true>>(p, q, all);
      const V st0 = permute<HalvesOf<n, group, false>>(s, t, all), st1 = permute<HalvesOf<n, group, true>>(s, t, all);
      r[0] = permute<EveryOther<n, group, false>>(pq0, st0, all);
      r[group] = permute<EveryOther<n, group, true>>(pq0, st0, all);
      r[2 * group] = permute<EveryOther<n, group, false>>(pq1, st1, all);
      r[3 * group] = permute<EveryOther<n, group, true>>(pq1, st1, all);
    }
  }
};

// ---- tiles ---------------------------------------------------------------------------------------------------
//
// Between rows and tiles, in strips of as many samples as a square has. The arithmetic is handed in and done in
// between, a few samples at a time: permutations and multiply-adds then share the machine, which neither fills alone.
// Stores are the scarce resource (32 bytes a cycle on some cores that compute on 64), so that results go from registers
// to memory once.

// One sample of every lane.
struct Pair {
  Doubles low, high;
};
template <class T>
TORCH_IIR_INLINE Pair load_pair(const T* from) {
  return {load_doubles(from), load_doubles(from + width)};
}
template <class T>
TORCH_IIR_INLINE void store_pair(T* to, Pair value) {
  store_doubles(to, value.low);
  store_doubles(to + width, value.high);
}

// Vector number q of a sample of every lane, as stored.
template <class V, std::size_t... i>
TORCH_IIR_INLINE Floats joined(V low, V high, std::index_sequence<i...>) {
  return __builtin_shufflevector(low, high, i...);
}
TORCH_IIR_INLINE Floats narrowed(Pair value, float, int) {
  using Some = Vector<float, width>;
  const Some low = __builtin_convertvector(value.low, Some), high = __builtin_convertvector(value.high, Some);
#if defined(__AVX512DQ__)  // of the shuffle GCC makes two instructions
  return (Floats)_mm512_insertf32x8(_mm512_castps256_ps512((__m256)low), (__m256)high, 1);
#else
  return joined(low, high, std::make_index_sequence<lanes>{});
#endif
}
TORCH_IIR_INLINE Floats narrowed(Floats value, float, int) { return value; }
TORCH_IIR_INLINE Doubles narrowed(Pair value, double, int q) { return q == 0 ? value.low : value.high; }

// One sample of every lane as a tile holds it.
TORCH_IIR_INLINE Floats load_row(const float* from) { return load<Floats>(from); }
TORCH_IIR_INLINE Pair load_row(const double* from) { return load_pair(from); }

TORCH_IIR_INLINE void store_widened(float* to, Floats v) { store(to, v); }
TORCH_IIR_INLINE void store_widened(double* to, Doubles v) { store(to, v); }
TORCH_IIR_INLINE void store_widened(double* to, Floats v) {
  float values[lanes];
  store(values, v);
  store_pair(to, load_pair(values));
}

// Sample is stored as it is computed on.
template <class Sample>
inline constexpr bool plain = sizeof(Sample) == sizeof(Tile<Sample>);

template <class Sample>
TORCH_IIR_INLINE bool adjacent(Sample* const (&rows)[lanes]) {
  bool result = true;
  for (int lane = 1; lane < lanes; ++lane) result &= rows[lane] == rows[0] + lane;
  return result;
}

// The lanes read one input: the filters of a bank.
template <class Sample>
bool all_the_same(const Sample* const (&rows)[lanes]) {
  for (int lane = 1; lane < lanes; ++lane) {
    if (rows[lane] != rows[0]) return false;
  }
  return true;
}

struct Nothing {
  template <class... Arguments>
  TORCH_IIR_INLINE void operator()(const Arguments&...) const {}
};

// What has no vectors to be loaded by, for rows [first, count) of a tile. Not inlined: it is seldom, or slow anyway,
// and much code.
template <bool reversed, class Sample, class T>
[[gnu::noinline]] void load_one_by_one(T* tile, const Sample* const (&rows)[lanes], std::int64_t step, int first,
                                       int count) {
  for (int row = first; row < count; ++row) {
    const std::int64_t at = (reversed ? count - 1 - row : row) * step;
    for (int lane = 0; lane < lanes; ++lane) tile[row * lanes + lane] = static_cast<T>(read(rows[lane][at]));
  }
}
template <class Sample>
[[gnu::noinline]] void store_one_by_one(Sample* const (&rows)[lanes], int used, std::int64_t at, Pair pair) {
  alignas(64) double values[lanes];
  store_pair(values, pair);
  for (int lane = 0; lane < used; ++lane) write(rows[lane][at], values[lane]);
}
template <class Sample>
[[gnu::noinline]] void store_one_by_one(Sample* const (&rows)[lanes], int used, std::int64_t at, Floats row) {
  float values[lanes];
  store(values, row);
  for (int lane = 0; lane < used; ++lane) rows[lane][at] = values[lane];
}

// tile[t][lane] = rows[lane][t * step], t < count; reversed: tile[count − 1 − t][lane]. T is Tile<Sample> or double.
// consume(row) is called for each row of the tile, in order, when it is there. What comes `ahead` samples later in
// memory (0: nothing) is fetched into the first cache: these are more streams than the machine follows by itself.
template <bool reversed = false, int ahead = 0, class Sample, class T, class Consume = Nothing>
TORCH_IIR_INLINE void load_tile(T* tile, const Sample* const (&rows)[lanes], std::int64_t step, int count,
                                Consume consume = {}) {
  int row = 0;
  if constexpr (plain<Sample>) {
    using S = Square<Sample>;
    if (step == 1) {
      constexpr int squares = lanes / S::n, steps = squares * (S::groups + S::group);
      const int strips = count / S::n;
      // Strip `strip` is loaded and the one before it consumed.
      const auto advance = [&](int strip, auto loads, auto consumes) TORCH_IIR_INLINE_LAMBDA {
        typename S::V v[S::n] = {};
        const int t = reversed ? count - (strip + 1) * S::n : strip * S::n;
        T* to = tile + strip * S::n * lanes;
#pragma GCC unroll 16
        for (int s = 0; s < steps; ++s) {
          const int q = s / (S::groups + S::group), piece = s % (S::groups + S::group);
          if constexpr (loads.value) {
            if (piece < S::groups) {
#pragma GCC unroll 4
              for (int i = 0; i < S::group; ++i) {
                const Sample* from = rows[q * S::n + piece * S::group + i] + t;
                v[piece * S::group + i] = load<typename S::V>(from);
                if constexpr (ahead != 0) __builtin_prefetch(from + ahead, 0, first_cache);
              }
              S::within_groups(v + piece * S::group);
            } else {
              S::among_groups(v + piece - S::groups);
#pragma GCC unroll 4
              for (int g = 0; g < S::groups; ++g) {
                const int i = g * S::group + piece - S::groups;
                store_widened(to + (reversed ? S::n - 1 - i : i) * lanes + q * S::n, v[i]);
              }
            }
          }
          if constexpr (consumes.value) {
#pragma GCC unroll 16
            for (int i = s * S::n / steps; i < (s + 1) * S::n / steps; ++i) consume((strip - 1) * S::n + i);
          }
        }
      };
      if (strips > 0) {
        advance(0, Choice<true>{}, Choice<false>{});
        for (int strip = 1; strip < strips; ++strip) advance(strip, Choice<true>{}, Choice<true>{});
        advance(strips, Choice<false>{}, Choice<true>{});
      }
      row = strips * S::n;
    } else if (adjacent(rows)) {
      for (; row < count; ++row) {
        const Sample* from = rows[0] + (reversed ? count - 1 - row : row) * step;
        for (int at = 0; at < lanes; at += S::n) store_widened(tile + row * lanes + at, load<typename S::V>(from + at));
        consume(row);
      }
    }
  }
  if (row < count) load_one_by_one<reversed>(tile, rows, step, row, count);
  for (; row < count; ++row) consume(row);
}

// Lanes that carry no signal get zeros.
template <class T>
void clear_lanes(T* tile, int used, int count) {
  for (int t = 0; t < count; ++t) {
    for (int lane = used; lane < lanes; ++lane) tile[t * lanes + lane] = 0;
  }
}

// rows[lane][t * step] = produce(t) in the lane, t < count, lane < used; reversed: produce(count − 1 − t). produce(0),
// produce(1), … are called in this order, once each. `ahead` as above.
template <bool reversed = false, int ahead = 0, class Sample, class Produce>
TORCH_IIR_INLINE void store_rows(Sample* const (&rows)[lanes], int used, std::int64_t step, int count,
                                 Produce produce) {
  int row = 0;
  if constexpr (plain<Sample>) {
    using S = Square<Sample>;
    if (step == 1) {
      constexpr int squares = lanes / S::n;
      const int strips = count / S::n;
      for (int strip = 0; strip < strips; ++strip) {
        typename S::V v[squares][S::n];
#pragma GCC unroll 16
        for (int i = 0; i < S::n; ++i) {
          const auto value = produce(strip * S::n + i);
#pragma GCC unroll 2
          for (int q = 0; q < squares; ++q) v[q][reversed ? S::n - 1 - i : i] = kept(narrowed(value, Sample{}, q));
          if ((i + 1) % S::group == 0) {
#pragma GCC unroll 2
            for (int q = 0; q < squares; ++q) S::within_groups(v[q] + (reversed ? S::n - 1 - i : i + 1 - S::group));
          }
        }
        const int t = reversed ? count - (strip + 1) * S::n : strip * S::n;
#pragma GCC unroll 2
        for (int q = 0; q < squares; ++q) {
#pragma GCC unroll 4
          for (int i = 0; i < S::group; ++i) {
            S::among_groups(v[q] + i);
#pragma GCC unroll 4
            for (int g = 0; g < S::groups; ++g) {
              const int lane = q * S::n + g * S::group + i;
              if (lane < used) {
                store(rows[lane] + t, v[q][g * S::group + i]);
                if constexpr (ahead != 0) __builtin_prefetch(rows[lane] + t + ahead, 1, first_cache);
              }
            }
          }
        }
      }
      row = strips * S::n;
    }
  }
  for (; row < count; ++row) {
    store_one_by_one(rows, used, (reversed ? count - 1 - row : row) * step, produce(row));
  }
}

// Fetches, beside sample t of a tile, its share of what the rows hold `ahead` samples later: a line of one row here, of
// the next row with the next sample. Lines asked for all at once wait for each other.
template <bool to_write = false, int cache = first_cache, class Sample>
TORCH_IIR_INLINE void fetch_share(Sample* const (&rows)[lanes], int t, std::int64_t ahead) {
  constexpr int line = cache_line / static_cast<int>(sizeof(Sample));
  constexpr int share = lanes < line ? 1 : lanes / line, every = lanes < line ? line / lanes : 1;
  if (t % every != 0) return;
#pragma GCC unroll 4
  for (int q = 0; q < share; ++q) {
    __builtin_prefetch(rows[t % line / every * share + q] + (t - t % line + ahead), to_write, cache);
  }
}

// ---- subnormals ----------------------------------------------------------------------------------------------

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
