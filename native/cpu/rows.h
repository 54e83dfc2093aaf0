// What the kernels share in running over the rows of a batch.
#pragma once

#include <initializer_list>
#include <type_traits>

#include "scratch.h"
#include "simd.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

template <class F>
void parallel(const ParallelFor& parallel_for, std::int64_t count, std::int64_t grain, F& body) {
  if (parallel_for.run == nullptr || count <= grain) return body(0, count);
  parallel_for.run(
      parallel_for.context, count, grain,
      [](void* argument, std::int64_t first, std::int64_t last) { (*static_cast<F*>(argument))(first, last); }, &body);
}

// Tasks of about this many samples are worth a thread of their own.
inline constexpr std::int64_t samples_per_task = 1 << 15;
std::int64_t grain_for(std::int64_t samples_per_item) {
  return samples_per_item >= samples_per_task ? 1
                                              : samples_per_task / (samples_per_item > 0 ? samples_per_item : 1) + 1;
}

// work(first, last) for ranges of [0, count), on the threads that there are. False means that there was no memory.
template <class Work>
Status for_ranges(const ParallelFor& parallel_for, std::int64_t count, std::int64_t grain, Work work) {
  int failed = 0;
  auto body = [&](std::int64_t first, std::int64_t last) {
    if (!work(first, last)) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
  };
  parallel(parallel_for, count, grain, body);
  return failed != 0 ? Status::out_of_memory : Status::ok;
}

// work(first, count) for groups of up to `group` rows, likewise.
template <class Work>
Status for_groups(const ParallelFor& parallel_for, std::int64_t rows, std::int64_t group, std::int64_t samples_per_row,
                  Work work) {
  return for_ranges(parallel_for, (rows + group - 1) / group, grain_for(samples_per_row * group),
                    [&](std::int64_t first, std::int64_t last) {
                      const FlushToZero flush;
                      bool success = true;
                      for (std::int64_t i = first; i < last; ++i) {
                        const std::int64_t row = i * group, left = rows - row;
                        success &= work(row, left < group ? left : group);
                      }
                      return success;
                    });
}

// The batch without the dimensions in which an operand is the same.
template <class T>
Batch distinct(Batch batch, const Rows<T>& operand) {
  for (int d = 0; d < batch.dims; ++d) {
    if (operand.stride[d] == 0) batch.size[d] = 1;
  }
  return batch;
}

// Moves the batch dimensions in which rows share an operand to the end, for every operand that has one of `strides`,
// and returns how many rows in a row then share it.
template <class T>
std::int64_t share(Batch& batch, const Rows<T>& operand, std::initializer_list<std::int64_t*> strides) {
  if (!operand) return 1;
  int dims[max_batch_dims], next = 0;
  std::int64_t sharing = 1;
  const auto shared = [&](int d) { return operand.stride[d] == 0 && batch.size[d] != 1; };
  for (int d = 0; d < batch.dims; ++d) {
    if (!shared(d)) dims[next++] = d;
  }
  for (int d = 0; d < batch.dims; ++d) {
    if (!shared(d)) continue;
    dims[next++] = d;
    sharing *= batch.size[d];
  }
  const auto permute_dims = [&](std::int64_t* values) {
    std::int64_t old[max_batch_dims];
    for (int d = 0; d < batch.dims; ++d) old[d] = values[d];
    for (int d = 0; d < batch.dims; ++d) values[d] = old[dims[d]];
  };
  for (std::int64_t* stride : strides) permute_dims(stride);
  permute_dims(batch.size);
  return sharing;
}

// Where column `number` begins, those of all rows counted together, k in each; null where there is no operand.
template <class T>
T* column_of(const Rows<T>& operand, const Batch& batch, std::int64_t k, std::int64_t number) {
  return operand ? operand.row(batch, number / k) + number % k * operand.step : nullptr;
}

// value = 0 for the first `length` elements of every distinct row.
template <class T>
void clear(const Batch& batch, const Rows<T>& values, std::int64_t length) {
  if (!values) return;
  const Batch own = distinct(batch, values);
  const std::int64_t rows = own.rows();
  for (std::int64_t row = 0; row < rows; ++row) {
    T* to = values.row(own, row);
    for (std::int64_t k = 0; k < length; ++k) to[k * values.step] = T{};
  }
}

// work(row, count, sums) for rows [first, first + count), `at_once` at a time. Where they share one gradient of the
// input, it is what they add to `sums`; else that is null, and each row stores its own. False if work says so.
template <class State, class Sample, class Work>
bool with_shared_gradient(const Batch& batch, const Rows<Sample>& gradient, std::int64_t samples, bool shared,
                          std::int64_t first, std::int64_t count, std::int64_t at_once, Work work) {
  const std::size_t length = shared ? static_cast<std::size_t>(samples) : 0;
  Scratch scratch(Scratch::bytes<State>(length));
  if (!scratch) return false;
  State* const sums = shared ? scratch.take<State>(length) : nullptr;
  for (std::size_t t = 0; t < length; ++t) sums[t] = State(0);
  for (std::int64_t done = 0; done < count; done += at_once) {
    if (!work(first + done, count - done < at_once ? count - done : at_once, sums)) return false;
  }
  if (shared) {
    Sample* to = gradient.row(batch, first);
    for (std::int64_t t = 0; t < samples; ++t) write(to[t * gradient.step], sums[t]);
  }
  return true;
}

// From the gradients of normalised coefficients (ga without its sign) to those of the given ones: b/a0 and a/a0 depend
// on a0, too.
template <class State>
void finish_gradients(int order, const State* b, const State* a, State a0, const State* gb, const State* ga,
                      State* to_b, State* to_a) {
  const State scale = State(1) / conjugate(a0);
  State of_a0(0);
  for (int k = 0; k <= order; ++k) {
    to_b[k] = gb[k] * scale;
    of_a0 -= gb[k] * conjugate(b[k]);
    if (k == 0) continue;
    to_a[k] = -ga[k] * scale;
    of_a0 += ga[k] * conjugate(a[k]);
  }
  to_a[0] = of_a0 * scale;
}

// to[i] = from[i * step], and back. Neighbours, in either direction, get loops of their own: vectors.
template <class State, class Sample>
[[gnu::noinline]] void read_samples(State* to, const Sample* from, std::int64_t step, int count) {
  if (step == 1) {
    for (int i = 0; i < count; ++i) to[i] = read(from[i]);
  } else if (step == -1) {
    for (int i = 0; i < count; ++i) to[i] = read(from[-i]);
  } else {
    for (int i = 0; i < count; ++i) to[i] = read(from[i * step]);
  }
}
template <class State, class Sample>
[[gnu::noinline]] void write_samples(Sample* to, std::int64_t step, const State* from, int count) {
  if (step == 1) {
    for (int i = 0; i < count; ++i) write(to[i], from[i]);
  } else if (step == -1) {
    for (int i = 0; i < count; ++i) write(to[-i], from[i]);
  } else {
    for (int i = 0; i < count; ++i) write(to[i * step], from[i]);
  }
}

// Views of std::complex<double>, which has the layout of Complex by its definition.
template <class To, class From>
To with_layout_of(const From& view) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(static_cast<void*>(&result), &view, sizeof(result));
  return result;
}
template <class T>
using ComplexLike = std::conditional_t<std::is_const_v<T>, const Complex, Complex>;
template <class T>
Rows<ComplexLike<T>> as_complex(const Rows<T>& rows) {
  return with_layout_of<Rows<ComplexLike<T>>>(rows);
}
template <class T>
Matrices<ComplexLike<T>> as_complex(const Matrices<T>& matrices) {
  return with_layout_of<Matrices<ComplexLike<T>>>(matrices);
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
