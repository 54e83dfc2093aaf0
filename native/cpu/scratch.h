// Working memory of a kernel call: one aligned allocation, handed out piece by piece.
#pragma once

#include <cstddef>
#include <cstdlib>

namespace torch_iir::TORCH_IIR_ISA {
namespace {

class Scratch {
 public:
  static constexpr std::size_t alignment = 64;

  explicit Scratch(std::size_t bytes)
      : base_(bytes == 0 ? nullptr : static_cast<char*>(std::aligned_alloc(alignment, rounded(bytes)))),
        next_(base_),
        success_(bytes == 0 || base_ != nullptr) {}
  ~Scratch() { std::free(base_); }
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
  char *base_, *next_;
  bool success_;
};

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
