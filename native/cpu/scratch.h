// Working memory of a kernel call: one aligned allocation, or a piece of a plan's, handed out piece by piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "context.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

class Scratch {
 public:
  static constexpr std::size_t alignment = 64;

  explicit Scratch(std::size_t bytes)
      : owned_(bytes == 0 ? nullptr : static_cast<char*>(std::aligned_alloc(alignment, rounded(bytes)))),
        next_(owned_),
        success_(bytes == 0 || owned_ != nullptr) {}

  // That of group number `group` of the rows, which a plan keeps.
  Scratch(std::size_t bytes, const Context& context, std::int64_t group)
      : Scratch(context.step == Step::everything ? bytes : 0) {
    if (context.step == Step::measure) {
      if (context.needs->bytes < rounded(bytes)) context.needs->bytes = rounded(bytes);
      if (context.needs->groups <= group) context.needs->groups = group + 1;
      success_ = false;
    } else if (context.step != Step::everything) {
      next_ = context.memory + static_cast<std::size_t>(group) * context.bytes;
      success_ = bytes <= context.bytes;
    }
  }
  ~Scratch() { std::free(owned_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  explicit operator bool() const { return success_; }

  // Room for `count` values, uninitialised. What is taken in all must have been announced to the constructor by
  // `bytes`.
  template <class T>
  T* take(std::size_t count) {
    T* piece = reinterpret_cast<T*>(next_);
    next_ += bytes<T>(count);
    return piece;
  }
  template <class T>
  static constexpr std::size_t bytes(std::size_t count) {
    return rounded(count * sizeof(T));
  }

 private:
  static constexpr std::size_t rounded(std::size_t n) { return (n + alignment - 1) / alignment * alignment; }
  char *owned_, *next_;
  bool success_;
};

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
