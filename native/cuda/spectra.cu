// What is between torch's transforms: windows, products of spectra and their sums, and samples again.
//
// A thread has one number at a time, and neighbours have neighbours in memory: all of it is a stream. Numbers that a
// thread sums it takes in the order of their indices. No block sees what another one writes; one kernel reads what
// another wrote because both are in the same queue.
//
// Counted, not measured: a window takes one read of its samples and one write, 8 bytes for float32; a product of
// float32
// spectra 24 bytes and 4 multiply-adds of doubles, a hundredth of what the bytes take; an added one 16 bytes, and 16
// for
// a sum. Blocks have 128 threads, no shared memory and 40 to 64 registers, so that 8 to 12 are on a multiprocessor.
#include "launch.h"
#include "numbers.h"
#include "pairs.h"
#include "torch_iir/cuda_spectra.h"

namespace torch_iir::cuda {
namespace {

constexpr int block_threads = 128;
constexpr int numbers_of_thread = 4;
constexpr std::int64_t chunk = block_threads * numbers_of_thread;  // numbers of a row that a block has at a time

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Calls body(row, number) for the numbers of some rows: a block has a chunk of a row at a time. prepare(row) gives what
// is the same for a row.
template <class Prepare, class Body>
TORCH_IIR_GPU void for_each_number(std::int64_t rows, std::int64_t length, const Prepare& prepare, const Body& body) {
  const std::int64_t chunks = (length + chunk - 1) / chunk, tasks = rows * chunks;
  for (std::int64_t task = block(); task < tasks; task += blocks()) {
    const std::int64_t row = task / chunks, begin = task % chunks * chunk + thread();
    const auto prepared = prepare(row);
    TORCH_IIR_UNROLL
    for (int i = 0; i < numbers_of_thread; ++i) {
      const std::int64_t at = begin + i * block_threads;
      if (at < length) body(prepared, at);
    }
  }
}

// What for_each_number takes.
Shape shape_for(std::int64_t rows, std::int64_t length) {
  return {minimum(rows * ceil_div(length, chunk), most_blocks), block_threads};
}

TORCH_IIR_GPU void store_window(void* to, DType dtype, std::int64_t at, Complex value) {
  switch (dtype) {
    case DType::float32: static_cast<float*>(to)[at] = static_cast<float>(value.re); return;
    case DType::float64: static_cast<double*>(to)[at] = value.re; return;
    default: store_pair(to, dtype == DType::complex128, at, value);
  }
}
TORCH_IIR_GPU Complex load_window(const void* from, DType dtype, std::int64_t at) {
  switch (dtype) {
    case DType::float32: return static_cast<const float*>(from)[at];
    case DType::float64: return static_cast<const double*>(from)[at];
    default: return load_pair(from, dtype == DType::complex128, at);
  }
}

TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(block_threads, 8) gather_windows(Gather p) {
  struct Window {
    std::int64_t row, begin, to;
  };
  for_each_number(
      p.count, p.n,
      [&](std::int64_t i) -> Window {
        const std::int64_t row = (p.first + i) / p.pieces, piece = (p.first + i) % p.pieces;
        return {offset_of(p.batch, p.from.stride, row), p.begin + piece * p.hop, i * p.n};
      },
      [&](const Window& window, std::int64_t t) {
        const std::int64_t sample = window.begin + t;
        const bool there = t < p.length && sample >= 0 && sample < p.samples;
        store_window(p.to, p.dtype, window.to + t,
                     there ? load(p.from, window.row + sample * p.from.step) : Complex(0.0));
      });
}

TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(block_threads, 8) scatter_windows(Scatter p) {
  struct Window {
    std::int64_t row, begin, from;
  };
  for_each_number(
      p.count, p.per_piece,
      [&](std::int64_t i) -> Window {
        const std::int64_t row = (p.first + i) / p.pieces, piece = (p.first + i) % p.pieces;
        return {offset_of(p.batch, p.to.stride, row), p.begin + piece * p.per_piece, i * p.n + p.offset};
      },
      [&](const Window& window, std::int64_t t) {
        const std::int64_t sample = window.begin + t;
        if (sample >= p.end) return;
        const Complex value = p.from == nullptr ? Complex(0.0) : load_window(p.from, p.dtype, window.from + t);
        store(p.to, window.row + sample * p.to.step, value);
      });
}

// The place of an operand's spectrum for an item.
TORCH_IIR_GPU std::int64_t place_of(const Batch& batch, const Spectra& spectra, std::int64_t row, std::int64_t piece) {
  return offset_of(batch, spectra.weight, row) * spectra.pieces + (spectra.pieces == 1 ? 0 : piece) - spectra.first;
}

TORCH_IIR_GPU Complex product_of(const SpectralProducts& p, std::int64_t x, std::int64_t h) {
  const bool wide = p.dtype == DType::complex128;
  const Complex factor = load_pair(p.h.data, wide, h);
  return load_pair(p.x.data, wide, x) * (p.conjugate ? conjugate(factor) : factor);
}

TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(block_threads, 8) multiply_spectra(SpectralProducts p) {
  struct Item {
    std::int64_t x, h, y;
  };
  for_each_number(
      p.count, p.bins,
      [&](std::int64_t i) -> Item {
        const std::int64_t row = (p.first + i) / p.pieces, piece = (p.first + i) % p.pieces;
        return {place_of(p.batch, p.x, row, piece) * p.bins, place_of(p.batch, p.h, row, piece) * p.bins, i * p.bins};
      },
      [&](const Item& item, std::int64_t k) {
        store_pair(p.y, p.dtype == DType::complex128, item.y + k, product_of(p, item.x + k, item.h + k));
      });
}

// The dimensions of the batch in which results differ, and those that are summed over, with what it is to the next in
// rows, spectra of x and of h.
struct Dims {
  Batch batch;
  std::int64_t row[max_batch_dims], x[max_batch_dims], h[max_batch_dims];
};
struct Sums {
  SpectralSums of;
  Dims outer, inner;
  std::int64_t terms = 0;  // of a result
};

TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(block_threads, 8) add_spectra(Sums p) {
  struct Result {
    std::int64_t row, x, h, piece, slice, to;
  };
  const SpectralSums& f = p.of;
  const std::int64_t last = f.first + f.count;
  const bool own_pieces = f.result.pieces > 1;  // a result is one piece of its rows
  for_each_number(
      f.results * f.slices, f.bins,
      [&](std::int64_t i) -> Result {
        const std::int64_t result = i / f.slices, row = own_pieces ? result / f.pieces : result;
        return {offset_of(p.outer.batch, p.outer.row, row),
                offset_of(p.outer.batch, p.outer.x, row),
                offset_of(p.outer.batch, p.outer.h, row),
                own_pieces ? result % f.pieces : 0,
                i % f.slices,
                i * f.bins};
      },
      [&](const Result& result, std::int64_t k) {
        Complex sum = f.add ? load_pair(f.y, true, result.to + k) : Complex(0.0);
        for (std::int64_t term = result.slice; term < p.terms; term += f.slices) {
          const std::int64_t inner = own_pieces || f.pieces == 1 ? term : term / f.pieces;
          const std::int64_t piece = own_pieces ? result.piece : f.pieces == 1 ? 0 : term % f.pieces;
          const std::int64_t item = (result.row + offset_of(p.inner.batch, p.inner.row, inner)) * f.pieces + piece;
          if (item < f.first || item >= last) continue;
          const auto place = [&](const Spectra& spectra, std::int64_t number) {
            return (number * spectra.pieces + (spectra.pieces == 1 ? 0 : piece) - spectra.first) * f.bins + k;
          };
          sum += product_of(f, place(f.x, result.x + offset_of(p.inner.batch, p.inner.x, inner)),
                            place(f.h, result.h + offset_of(p.inner.batch, p.inner.h, inner)));
        }
        store_pair(f.y, true, result.to + k, sum);
      });
}

TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(block_threads, 8) finish_spectra(SpectralResults p) {
  for_each_number(
      p.results, p.bins, [](std::int64_t i) { return i; },
      [&](std::int64_t i, std::int64_t k) {
        Complex sum = 0.0;
        for (std::int64_t slice = 0; slice < p.slices; ++slice)
          sum += load_pair(p.x, p.dtype == DType::complex128, (i * p.slices + slice) * p.bins + k);
        const double weight = p.weighed && (k == 0 || 2 * k == p.n) ? p.scale / 2 : p.scale;
        store_pair(p.y, true, i * p.bins + k, {sum.re * weight, sum.im * weight});
      });
}

}  // namespace

std::int64_t spectral_slices(std::int64_t results, std::int64_t items, std::int64_t bins) noexcept {
  constexpr std::int64_t blocks_per_processor = 16, least_terms = 4;
  const std::int64_t blocks = maximum<std::int64_t>(results * ceil_div(bins, chunk), 1);
  const std::int64_t terms = items / maximum<std::int64_t>(results, 1);
  return maximum<std::int64_t>(minimum(blocks_per_processor * device().processors / blocks, terms / least_terms), 1);
}

Status gather(const Gather& p, const Queue& queue) noexcept {
  if (p.count * p.n == 0) return Status::ok;
  return launch(queue, shape_for(p.count, p.n), gather_windows, p);
}

Status scatter(const Scatter& p, const Queue& queue) noexcept {
  if (p.count * p.per_piece == 0) return Status::ok;
  return launch(queue, shape_for(p.count, p.per_piece), scatter_windows, p);
}

Status spectral_products(const SpectralProducts& p, const Queue& queue) noexcept {
  if (p.count * p.bins == 0) return Status::ok;
  return launch(queue, shape_for(p.count, p.bins), multiply_spectra, p);
}

Status spectral_sums(const SpectralSums& p, const Queue& queue) noexcept {
  if (p.results * p.bins == 0) return Status::ok;
  Sums sums{p, {}, {}, p.result.pieces > 1 ? 1 : p.pieces};
  std::int64_t rows = 1, row_stride[max_batch_dims];
  for (int d = p.batch.dims - 1; d >= 0; --d) {
    row_stride[d] = rows;
    rows *= p.batch.size[d];
  }
  for (int d = 0; d < p.batch.dims; ++d) {
    const bool summed = p.result.weight[d] == 0;
    Dims& dims = summed ? sums.inner : sums.outer;
    const int i = dims.batch.dims++;
    dims.batch.size[i] = p.batch.size[d];
    dims.row[i] = row_stride[d];
    dims.x[i] = p.x.weight[d];
    dims.h[i] = p.h.weight[d];
    if (summed) sums.terms *= p.batch.size[d];
  }
  return launch(queue, shape_for(p.results * p.slices, p.bins), add_spectra, sums);
}

Status spectral_results(const SpectralResults& p, const Queue& queue) noexcept {
  if (p.results * p.bins == 0) return Status::ok;
  return launch(queue, shape_for(p.results, p.bins), finish_spectra, p);
}

}  // namespace torch_iir::cuda
