// What the kernels share in running over the rows of a batch.
#pragma once

#include <initializer_list>
#include <type_traits>

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

// The batch without the dimensions in which an operand is the same.
template <class T>
Batch distinct(Batch batch, const Rows<T>& operand) {
  for (int d = 0; d < batch.dims; ++d) {
    if (operand.stride[d] == 0) batch.size[d] = 1;
  }
  return batch;
}

// Moves the batch dimensions in which rows share their input's gradient to the end, for every operand that has one of
// `strides`, and returns how many rows in a row then share one.
template <class Sample>
std::int64_t share_input(Batch& batch, const Rows<Sample>& gradient, std::initializer_list<std::int64_t*> strides) {
  if (!gradient) return 1;
  int dims[max_batch_dims], next = 0;
  std::int64_t sharing = 1;
  const auto shared = [&](int d) { return gradient.stride[d] == 0 && batch.size[d] != 1; };
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

// to[i] = from[i * step], and back. Neighbours, in either direction, get loops of their own: vectors.
template <class State, class Sample>
void read_samples(State* to, const Sample* from, std::int64_t step, int count) {
  if (step == 1) {
    for (int i = 0; i < count; ++i) to[i] = read(from[i]);
  } else if (step == -1) {
    for (int i = 0; i < count; ++i) to[i] = read(from[-i]);
  } else {
    for (int i = 0; i < count; ++i) to[i] = read(from[i * step]);
  }
}
template <class State, class Sample>
void write_samples(Sample* to, std::int64_t step, const State* from, int count) {
  if (step == 1) {
    for (int i = 0; i < count; ++i) write(to[i], from[i]);
  } else if (step == -1) {
    for (int i = 0; i < count; ++i) write(to[-i], from[i]);
  } else {
    for (int i = 0; i < count; ++i) write(to[i * step], from[i]);
  }
}

template <class T>
Rows<Complex> as_complex(const Rows<T>& rows) {
  Rows<Complex> result;  // std::complex<double> has this layout by its definition
  std::memcpy(static_cast<void*>(&result), &rows, sizeof(result));
  return result;
}
template <class T>
Rows<const Complex> as_complex(const Rows<const T>& rows) {
  Rows<const Complex> result;
  std::memcpy(static_cast<void*>(&result), &rows, sizeof(result));
  return result;
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
