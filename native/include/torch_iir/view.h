// Views of arrays that belong to somebody else: a pointer, sizes, and strides in elements. What the plans take.
//
//   std::vector<float> samples(channels * frames);
//   View<float> planar(samples.data(), {channels, frames});                      // row-major
//   View<float> interleaved(samples.data(), {channels, frames}, {1, channels});  // frame after frame
//   View<const double> one(b);                                                   // a std::array, vector or span
//
// A stride may be 0, the same element again and again, or negative.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <type_traits>

namespace torch_iir {

inline constexpr int max_view_dims = 8;

// The sizes of an array's dimensions, up to max_view_dims of them: {32, 2}. Where there were more, `dims` is −1, and
// whoever is given that says Status::wrong_shape.
struct Sizes {
  int dims = 0;
  std::int64_t size[max_view_dims] = {};

  constexpr Sizes() noexcept = default;
  template <std::integral... N>
  constexpr Sizes(N... sizes) noexcept : dims(sizeof...(N) <= max_view_dims ? static_cast<int>(sizeof...(N)) : -1) {
    int d = 0;
    ((d < dims ? void(size[d++] = static_cast<std::int64_t>(sizes)) : void()), ...);
  }
  constexpr explicit Sizes(std::span<const std::int64_t> sizes) noexcept
      : dims(sizes.size() <= max_view_dims ? static_cast<int>(sizes.size()) : -1) {
    if (dims > 0) std::copy(sizes.begin(), sizes.end(), size);
  }

  constexpr std::int64_t operator[](int d) const noexcept { return size[d]; }
  // Elements of an array of these sizes, where they can be counted.
  constexpr std::int64_t count() const noexcept {
    std::uint64_t product = dims < 0 ? 0 : 1;
    for (int d = 0; d < dims; ++d) product *= static_cast<std::uint64_t>(size[d]);
    return static_cast<std::int64_t>(product);
  }
  friend constexpr bool operator==(const Sizes& a, const Sizes& b) noexcept {
    return a.dims == b.dims && (a.dims <= 0 || std::equal(a.size, a.size + a.dims, b.size));
  }
};

template <class T>
struct View {
  T* data = nullptr;
  Sizes sizes;
  std::int64_t stride[max_view_dims] = {};  // between neighbours in each dimension, in elements

  constexpr View() noexcept = default;

  // Row-major, without gaps.
  constexpr View(T* pointer, const Sizes& array) noexcept : data(pointer), sizes(array) {
    std::uint64_t step = 1;
    for (int d = sizes.dims - 1; d >= 0; --d) {
      stride[d] = static_cast<std::int64_t>(step);
      step *= static_cast<std::uint64_t>(sizes[d]);
    }
  }

  // As many strides as sizes; else the view has −1 dimensions.
  constexpr View(T* pointer, const Sizes& array, const Sizes& strides) noexcept : data(pointer), sizes(array) {
    if (strides.dims != sizes.dims) sizes.dims = -1;
    for (int d = 0; d < sizes.dims; ++d) stride[d] = strides[d];
  }

  // One dimension: an array, a vector, a span.
  template <class Range>
    requires(!std::is_same_v<std::remove_cvref_t<Range>, View> && std::is_constructible_v<std::span<T>, Range&>)
  constexpr explicit(false) View(Range&& range) noexcept {
    const std::span<T> span(range);
    *this = View(span.data(), {static_cast<std::int64_t>(span.size())});
  }

  // The same elements, to read only.
  constexpr operator View<const T>() const noexcept
    requires(!std::is_const_v<T>)
  {
    View<const T> view;
    view.data = data;
    view.sizes = sizes;
    std::copy(stride, stride + max_view_dims, view.stride);
    return view;
  }

  constexpr explicit operator bool() const noexcept { return data != nullptr; }
  constexpr int dims() const noexcept { return sizes.dims; }
};

}  // namespace torch_iir
