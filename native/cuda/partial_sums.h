// Gradients that are sums over rows: an operand whose stride is 0 in dimensions of the batch has one gradient for all
// rows that differ in these dimensions only.
//
// A kernel leaves what each row (and each part of it: a tile, a block) adds to the gradient in scratch memory, as it
// computes, in double. sum_partials() adds it up and stores it, in the type of the target. In which order depends on
// the numbers of rows and parts alone, never on which thread came first: the bits are the same run to run.
//
// Order       the terms of a target are those of its rows in their order, of each those of its parts in theirs. They
//             are cut into segments; the sums of segments are the terms of the next stage, until there is one segment.
//             In a segment, short vectors (coefficients, states) have a warp for each number, whose lanes take every
//             32nd term and are then added as a tree; long ones (samples) a thread that takes term after term
// Cost        one read of the partials; a launch for each factor of 1024 (256 for samples) of terms
// Races       none: each word is written by one thread of a launch, and read by launches behind it in the stream
#pragma once

#include "launch.h"
#include "numbers.h"
#include "simt.h"

namespace torch_iir::cuda {

// Which rows of a batch have a target in common. Targets and the rows that share one are numbered row-major, by the
// dimensions that are theirs.
struct Sharing {
  std::int64_t targets = 1, sharers = 1;  // rows = targets × sharers
  int dims = 0;
  std::int64_t size[max_batch_dims] = {};
  bool shared[max_batch_dims] = {};
  Batch distinct;  // the batch, of size 1 in the dimensions that are shared: for an operand's own row()

  TORCH_IIR_HOST_DEVICE std::int64_t row(std::int64_t target, std::int64_t sharer) const {
    if (dims == 1) return shared[0] ? sharer : target;
    std::int64_t result = 0, weight = 1;
    for (int d = dims - 1; d >= 0; --d) {
      const std::int64_t from = shared[d] ? sharer : target, rest = from / size[d];  // no reference: it takes a stack
      result += (from - rest * size[d]) * weight;
      sharer = shared[d] ? rest : sharer;
      target = shared[d] ? target : rest;
      weight *= size[d];
    }
    return result;
  }
};

template <class T>
bool lies_anywhere(const Rows<T>& operand) {
  return operand.each != nullptr;
}
template <class T>
bool lies_anywhere(const AnyRows<T>&) {
  return false;
}

// Of Rows, AnyRows or AnyMatrices.
template <class Operand>
Sharing sharing_of(const Batch& batch, const Operand& operand) {
  Sharing result;
  result.distinct = batch;
  for (int d = 0; d < batch.dims; ++d) {
    if (batch.size[d] == 1) continue;
    const bool shared = operand.stride[d] == 0 && !lies_anywhere(operand);
    (shared ? result.sharers : result.targets) *= batch.size[d];
    if (shared) result.distinct.size[d] = 1;
    if (result.dims > 0 && result.shared[result.dims - 1] == shared) {  // one dimension, then
      result.size[result.dims - 1] *= batch.size[d];
    } else {
      result.size[result.dims] = batch.size[d];
      result.shared[result.dims++] = shared;
    }
  }
  return result;
}

template <class Operand>
bool is_shared(const Batch& batch, const Operand& operand) {
  return sharing_of(batch, operand).sharers != 1;
}

// What rows add to a target: `length` numbers for each of the `parts` of each row.
template <class Value>
struct Partials {
  const Value* data = nullptr;
  std::int64_t length = 0, parts = 1;
  std::int64_t row_stride = 0, part_stride = 0;  // in numbers; the numbers of a part stand side by side
};

// The targets: number i of row `row`.
template <class T, class Value>
TORCH_IIR_GPU void put_sum(const Rows<T>& to, const Batch& batch, std::int64_t row, std::int64_t i, std::int64_t,
                           Value value) {
  to.row(batch, row)[i * to.step] = narrow<T>(value);
}
template <class T, class Value>
TORCH_IIR_GPU void put_sum(const AnyRows<T>& to, const Batch& batch, std::int64_t row, std::int64_t i, std::int64_t,
                           Value value) {
  store(to, to.row(batch, row) + i * to.step, value);
}
template <class T, class Value>
TORCH_IIR_GPU void put_sum(const AnyMatrices<T>& to, const Batch& batch, std::int64_t row, std::int64_t i,
                           std::int64_t width, Value value) {
  store(to, to.row(batch, row) + i / width * to.down + i % width * to.step, value);
}

TORCH_IIR_GPU double shuffle_number(double value, int mask) { return shuffle_xor(value, mask); }
TORCH_IIR_GPU Complex shuffle_number(Complex value, int mask) {
  const double re = shuffle_xor(value.re, mask);
  return {re, shuffle_xor(value.im, mask)};
}

inline constexpr int sum_threads = 256;

// One item is one number of one segment of one target. It has `lanes` threads, 1 or 32.
template <class To, class Value>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(sum_threads, 1)
    add_partials(To to, Sharing sharing, Partials<Value> from, std::int64_t width, Value* sums, std::int64_t segments,
                 std::int64_t segment, int lanes) {
  const std::int64_t terms = sharing.sharers * from.parts, items = sharing.targets * segments * from.length;
  const std::int64_t at_once = blocks() * (sum_threads / lanes);
  for (std::int64_t item = (block() * sum_threads + thread()) / lanes; item < items; item += at_once) {
    const std::int64_t i = item % from.length, first = item / from.length % segments * segment;
    const std::int64_t target = item / from.length / segments, last = minimum(first + segment, terms);
    Value sum = 0.0;
    for (std::int64_t term = first + thread() % lanes; term < last; term += lanes) {
      const std::int64_t row = sharing.row(target, term / from.parts), part = term % from.parts;
      sum += from.data[row * from.row_stride + part * from.part_stride + i];
    }
    if (lanes == warp_size) {
      for (int mask = 1; mask < warp_size; mask *= 2) sum += shuffle_number(sum, mask);
    }
    if (thread() % lanes != 0) continue;
    if (segments == 1) {
      put_sum(to, sharing.distinct, target, i, width, sum);
    } else {
      sums[item] = sum;
    }
  }
}

// to = the sums, in stages; nothing if there is no target. The target may be shared by none: a conversion, then. Rows
// that are none add up to zero. `width`: of a row of AnyMatrices, in numbers.
template <class To, class Value>
[[nodiscard]] Status sum_partials(const Queue& queue, Scratch& scratch, const Batch& batch, const To& to,
                                  Partials<Value> partials, std::int64_t width = 1) {
  Sharing sharing = sharing_of(batch, to);
  if (!to || sharing.targets == 0 || partials.length == 0) return Status::ok;
  constexpr std::int64_t long_vector = 64;
  for (;;) {
    const std::int64_t terms = sharing.sharers * partials.parts;
    const bool by_warps = partials.length <= long_vector && terms > 4;
    const std::int64_t segment = by_warps ? 1024 : 256;
    const std::int64_t segments = maximum<std::int64_t>((terms + segment - 1) / segment, 1);
    const std::int64_t items = sharing.targets * segments * partials.length;
    const int lanes = by_warps ? warp_size : 1;
    Value* const sums = segments == 1 ? nullptr : scratch.take<Value>(items);
    if (!scratch.ok()) return Status::out_of_memory;
    const std::int64_t per_block = sum_threads / lanes, wanted = (items + per_block - 1) / per_block;
    const Status status = launch(queue, {minimum(wanted, most_blocks), sum_threads}, add_partials<To, Value>, to,
                                 sharing, partials, width, sums, segments, segment, lanes);
    if (status != Status::ok || segments == 1) return status;
    partials = {sums, partials.length, segments, segments * partials.length, partials.length};
    sharing.sharers = sharing.dims = 1;
    sharing.size[0] = sharing.targets;
    sharing.shared[0] = false;
  }
}

}  // namespace torch_iir::cuda
