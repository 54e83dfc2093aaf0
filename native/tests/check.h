// As much of a test framework as these tests need: CHECK(condition, what to print…) counts, and result() sums up.
#pragma once

#include <iostream>

// Sanitizers take their time.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif

// The kernels are those for CUDA, which the emulator runs: for tests of what only one kind has, or can afford.
#if defined(TORCH_IIR_EMULATED)
inline constexpr bool emulated = true;
#else
inline constexpr bool emulated = false;
#endif

namespace check {

inline long passed = 0, failed = 0;

template <class... Parts>
bool report(bool condition, const char* text, const char* file, int line, const Parts&... parts) {
  ++(condition ? passed : failed);
  constexpr int most_shown = 40;
  if (!condition && failed <= most_shown) {
    std::cerr << file << ':' << line << ": not " << text;
    ((std::cerr << ' ' << parts), ...);
    std::cerr << '\n';
  }
  return condition;
}

inline int result() {
  std::cout << passed << " passed, " << failed << " failed\n";
  return failed == 0 && passed > 0 ? 0 : 1;
}

}  // namespace check

#define CHECK(condition, ...) check::report((condition), #condition, __FILE__, __LINE__ __VA_OPT__(, ) __VA_ARGS__)
