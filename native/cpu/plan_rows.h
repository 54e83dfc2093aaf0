// What the plans share: memory, and the way from views of any shape to rows that kernels run through.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <span>
#include <utility>

#include "context.h"
#include "torch_iir/view.h"

namespace torch_iir {

// Memory that a plan owns; null where there was none.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~Buffer() { std::free(data_); }

  // Zeros. False, and the buffer is empty, if there is no memory.
  bool allocate(std::int64_t count) {
    constexpr std::size_t alignment = 64;
    constexpr auto most = (std::numeric_limits<std::size_t>::max() / 2 - alignment) / sizeof(T);
    std::free(std::exchange(data_, nullptr));
    if (count < 0 || static_cast<std::uint64_t>(count) > most) return false;
    const std::size_t bytes = (static_cast<std::size_t>(count) * sizeof(T) / alignment + 1) * alignment;
    data_ = static_cast<T*>(std::aligned_alloc(alignment, bytes));
    if (data_ != nullptr) std::fill_n(reinterpret_cast<char*>(data_), bytes, char{});  // its pages, too, are there now
    return data_ != nullptr;
  }

  T* get() const { return data_; }
  T& operator[](std::int64_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
};

// The first `dims − core` sizes of a view.
inline Sizes leading(const Sizes& sizes, int core) {
  Sizes result = sizes;
  result.dims = sizes.dims < core ? -1 : sizes.dims - core;
  std::fill(result.size + std::max(result.dims, 0), result.size + max_view_dims, 0);
  return result;
}

// Whether sizes are sizes, and few enough elements to count.
inline Status check_sizes(const Sizes& sizes) {
  if (sizes.dims < 0) return Status::wrong_shape;
  std::int64_t count = 1;
  bool empty = false;
  for (int d = 0; d < sizes.dims; ++d) {
    if (sizes[d] < 0) return Status::out_of_range;
    empty |= sizes[d] == 0;
  }
  for (int d = 0; d < sizes.dims && !empty; ++d) {
    if (__builtin_mul_overflow(count, sizes[d], &count)) return Status::out_of_range;
  }
  return Status::ok;
}

// Broadcasts `with` into `sizes`.
inline Status broadcast_into(Sizes& sizes, const Sizes& with) {
  if (with.dims < 0) return Status::wrong_shape;
  Sizes result;
  result.dims = std::max(sizes.dims, with.dims);
  for (int d = 1; d <= result.dims; ++d) {  // from the last one
    const std::int64_t p = d <= sizes.dims ? sizes[sizes.dims - d] : 1, q = d <= with.dims ? with[with.dims - d] : 1;
    if (p != q && p != 1 && q != 1) return Status::wrong_shape;
    result.size[result.dims - d] = p == 1 ? q : p;
  }
  sizes = result;
  return Status::ok;
}

// The rows of a plan, in the order in which its kernel has them: those that share an input come one after the other,
// so that they are computed in the lanes of one vector.
class PlanRows {
 public:
  PlanRows() = default;
  PlanRows(const Sizes& inputs, const Sizes& outputs) : outputs_(outputs), count_(outputs.count()) {
    int next = 0;
    const auto shared = [&](int d) {
      const int own = d - (outputs.dims - inputs.dims);
      return outputs[d] != 1 && (own < 0 || inputs[own] == 1);
    };
    for (const bool take_shared : {false, true}) {
      for (int d = 0; d < outputs.dims; ++d) {
        if (shared(d) == take_shared) order_[next++] = d;
      }
    }
  }

  const Sizes& outputs() const { return outputs_; }
  std::int64_t count() const { return count_; }

  // Whether an array of these leading sizes broadcasts to the outputs.
  bool take(const Sizes& sizes) const {
    Sizes result = outputs_;
    return broadcast_into(result, sizes) == Status::ok && result == outputs_;
  }

  // put(row, offset) for each row: where it begins in an array that broadcasts to the outputs, by its leading sizes.
  template <class Put>
  void for_each(const Sizes& sizes, const std::int64_t* stride, Put put) const {
    std::int64_t along[max_view_dims] = {}, index[max_view_dims] = {}, offset = 0;
    for (int i = 0; i < outputs_.dims; ++i) {
      const int own = order_[i] - (outputs_.dims - sizes.dims);
      along[i] = own >= 0 && sizes[own] != 1 ? stride[own] : 0;
    }
    for (std::int64_t row = 0; row < count_; ++row) {
      put(row, offset);
      for (int i = outputs_.dims - 1; i >= 0; --i) {
        offset += along[i];
        if (++index[i] < outputs_[order_[i]]) break;
        offset -= index[i] * along[i];
        index[i] = 0;
      }
    }
  }
  // A pointer to each row of a view that has `core` dimensions below the rows.
  template <class T>
  void place(const View<T>& view, int core, T** rows) const {
    for_each(leading(view.sizes, core), view.stride,
             [&](std::int64_t row, std::int64_t offset) { rows[row] = view.data + offset; });
  }

 private:
  Sizes outputs_;
  std::int64_t count_ = 0;
  int order_[max_view_dims] = {};
};

// Every element of a view, row-major: visit(element).
template <class T, class Visit>
void for_elements(const View<T>& view, Visit visit) {
  const PlanRows all(view.sizes, view.sizes);
  all.for_each(view.sizes, view.stride, [&](std::int64_t, std::int64_t offset) { visit(view.data[offset]); });
}

inline bool lacks_data(const Sizes& sizes, const void* data) { return data == nullptr && sizes.count() != 0; }

// A plan's own coefficients: a copy without gaps, for each row.
class Coefficients {
 public:
  // For a view of which the last `core` dimensions, one or two, are a filter's.
  bool allocate(const View<const double>& view, int core, std::int64_t rows) {
    sizes_ = view.sizes;
    core_ = core;
    for (int d = 0; d < core; ++d) length_ *= sizes_[sizes_.dims - 1 - d];
    std::int64_t count;
    return !__builtin_mul_overflow(length_, rows, &count) && values_.allocate(count);
  }

  // Another view than the one that these were allocated for?
  Status check(const View<const double>& view) const {
    if (!(view.sizes == sizes_)) return Status::wrong_shape;
    return lacks_data(view.sizes, view.data) ? Status::no_data : Status::ok;
  }
  void copy(const View<const double>& view, const PlanRows& rows) const {
    View<const double> one = view;  // filter
    one.sizes = Sizes(std::span(view.sizes.size + view.dims() - core_, static_cast<std::size_t>(core_)));
    std::copy_n(view.stride + view.dims() - core_, core_, one.stride);
    rows.for_each(leading(view.sizes, core_), view.stride, [&](std::int64_t row, std::int64_t offset) {
      double* to = values_.get() + row * length_;
      one.data = view.data + offset;
      for_elements(one, [&](double value) { *to++ = value; });
    });
  }

  // Points an operand of a kernel at them.
  template <class Operand>
  void attach(Operand& operand) const {
    operand.data = values_.get();
    operand.step = 1;
    operand.stride[0] = length_;
  }

 private:
  Sizes sizes_;
  int core_ = 0;
  std::int64_t length_ = 1;
  Buffer<double> values_;
};

// Whether element `at` of some filter, of those along the last dimension, is 0.
inline bool some_is_zero(const View<const double>& filters, std::int64_t at) {
  View<const double> elements = filters;
  elements.sizes = leading(filters.sizes, 1);
  elements.data += at * filters.stride[elements.sizes.dims];
  bool zero = false;
  for_elements(elements, [&](double value) { zero |= value == 0; });
  return zero;
}

// Measures what memory a kernel takes for a plan, and gives it that. `call` runs a step.
template <class Call>
Status take_memory(Context& context, Buffer<char>& memory, Call call) {
  Needs needs;
  context.needs = &needs;
  const Status status = call(Step::measure);
  context.needs = nullptr;
  if (status != Status::ok && status != Status::out_of_memory) return status;  // the latter is what it says to nothing
  std::int64_t bytes;
  if (__builtin_mul_overflow(needs.groups, static_cast<std::int64_t>(needs.bytes), &bytes) || !memory.allocate(bytes))
    return Status::out_of_memory;
  context.memory = memory.get();
  context.bytes = needs.bytes;
  return Status::ok;
}

}  // namespace torch_iir
