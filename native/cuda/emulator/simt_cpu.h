// simt.h on the CPU: threads are fibers of one system thread, which switches at the places where threads wait for each
// other. See scheduler.h.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "emulator/scheduler.h"

#define TORCH_IIR_KERNEL
#define TORCH_IIR_BOUNDS(threads, blocks)
#define TORCH_IIR_GPU inline
#define TORCH_IIR_UNROLL
#define TORCH_IIR_NO_UNROLL

namespace torch_iir::cuda {

using std::fma;
using std::isfinite;
using std::memcpy;

inline int thread() { return emulator::thread(); }
inline int threads() { return emulator::threads(); }
inline std::int64_t block() { return emulator::block(); }
inline std::int64_t blocks() { return emulator::blocks(); }
inline unsigned char* shared_memory() { return emulator::shared_memory(emulator::cluster_rank()); }

inline void sync() { emulator::block_barrier(false); }
inline bool sync_any(bool value) { return emulator::block_barrier(value); }

template <class T>
T exchange(T value, int from, const char* what) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = emulator::warp_exchange(bits, from, what);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
inline void sync_warp() { static_cast<void>(emulator::warp_exchange(0, 0, "sync_warp")); }
template <class T>
T shuffle(T value, int from) {
  return exchange(value, from & 31, "shuffle");
}
template <class T>
T shuffle_up(T value, int by) {
  const int lane = thread() % 32;
  return exchange(value, lane >= by ? lane - by : lane, "shuffle_up");
}
template <class T>
T shuffle_down(T value, int by) {
  const int lane = thread() % 32;
  return exchange(value, lane + by < 32 ? lane + by : lane, "shuffle_down");
}
template <class T>
T shuffle_xor(T value, int mask) {
  return exchange(value, (thread() % 32) ^ mask, "shuffle_xor");
}
inline unsigned ballot(bool value) { return emulator::warp_ballot(value); }
inline bool warp_any(bool value) { return emulator::warp_ballot(value) != 0; }
inline bool warp_all(bool value) { return emulator::warp_ballot(!value) == 0; }

template <int bytes>
void copy_async(void* shared, const void* global) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16);
  emulator::copy_async(shared, global, bytes);
}
inline void commit_async() { emulator::commit_async(); }
template <int groups>
void wait_async() {
  emulator::wait_async(groups);
}

inline unsigned fetch_add(unsigned* counter, unsigned by) {
  const unsigned old = *counter;
  *counter += by;
  return old;
}

struct Word;
inline void store_word(Word* to, double value, std::uint64_t flag) {
  std::memcpy(static_cast<void*>(to), &value, 8);
  std::memcpy(reinterpret_cast<char*>(to) + 8, &flag, 8);
}
inline void load_word(const Word* from, double& value, std::uint64_t& flag) {
  std::memcpy(&value, static_cast<const void*>(from), 8);
  std::memcpy(&flag, reinterpret_cast<const char*>(from) + 8, 8);
}
inline void pause() { emulator::pause(); }

inline int cluster_rank() { return emulator::cluster_rank(); }
inline void cluster_sync() { emulator::cluster_barrier(); }
template <class T>
T* in_cluster(T* shared, int rank) {
  return reinterpret_cast<T*>(emulator::shared_memory(rank) +
                              (reinterpret_cast<unsigned char*>(shared) - shared_memory()));
}

// To fewer bits, rounded once: the float in between is rounded to odd.
inline float float_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || std::isnan(value) || std::isinf(nearest)) return nearest;
  std::uint32_t bits = std::bit_cast<std::uint32_t>(nearest);
  if (std::fabs(static_cast<double>(nearest)) > std::fabs(value)) --bits;  // towards zero
  return std::bit_cast<float>(bits | 1);
}
inline double half_to_double(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double magnitude = exponent == 31  ? (mantissa ? NAN : INFINITY)
                           : exponent == 0 ? std::ldexp(mantissa, -24)
                                           : std::ldexp(1024 + mantissa, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}
inline std::uint16_t half_of(double value) {
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return 0x7fff;
  const double magnitude = std::fabs(value);
  if (magnitude >= 65520) return sign | 0x7c00;
  if (magnitude < std::ldexp(1, -14))
    return sign | static_cast<std::uint16_t>(std::nearbyint(std::ldexp(magnitude, 24)));
  int exponent;
  const double fraction = std::frexp(magnitude, &exponent);                          // in [0.5, 1)
  const auto mantissa = static_cast<int>(std::nearbyint(std::ldexp(fraction, 11)));  // 1024 … 2048
  return static_cast<std::uint16_t>(sign + ((exponent + 13) << 10) + mantissa);
}
inline double bfloat16_to_double(std::uint16_t bits) {
  return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16));
}
inline std::uint16_t bfloat16_of(double value) {
  if (std::isnan(value)) return 0x7fff;
  std::uint32_t bits = std::bit_cast<std::uint32_t>(float_to_odd(value));
  if (std::isinf(value) || (bits & 0x7f800000) == 0x7f800000) return static_cast<std::uint16_t>(bits >> 16);
  bits += 0x7fff + (bits >> 16 & 1);
  return static_cast<std::uint16_t>(bits >> 16);
}

}  // namespace torch_iir::cuda
