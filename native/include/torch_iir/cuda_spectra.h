// What filters by way of spectra are on a CUDA device between torch's transforms: rows are cut into windows, spectra
// multiplied, and samples put back. As in cuda.h, everything is put into the queue, and nothing waits for it.
//
// A batch here has only the dimensions in which an operand has rows of its own: they are numbered, row-major. A row may
// be cut into pieces: number i is piece i % pieces of row i / pieces. Some of the numbers are computed at a time, those
// from `first` on.
//
// Precision   of windows and spectra as they are stored; products and sums are computed in double
// Layout      any strides and steps for samples; windows and spectra one after another
// Bits        the same run to run: no sum depends on which thread came first
#pragma once

#include <complex>
#include <cstdint>

#include "torch_iir/cuda.h"

namespace torch_iir::cuda {

// to[i][t] = sample begin + piece · hop + t of the row, for t < length, where there is such a sample; else 0
struct Gather {
  Batch batch;
  AnyRows<const std::complex<double>> from;
  std::int64_t samples = 0;
  std::int64_t pieces = 1, first = 0, count = 0;
  std::int64_t begin = 0, hop = 0, length = 0;
  std::int64_t n = 0;  // numbers of a window
  void* to = nullptr;
  DType dtype = DType::float32;  // of the windows: not of 16 bits
};

// sample begin + piece · per_piece + t of the row = from[i][offset + t], for t < per_piece, as far as `end`
struct Scatter {
  Batch batch;
  const void* from = nullptr;  // null: zeros
  DType dtype = DType::float32;
  std::int64_t n = 0, offset = 0;
  std::int64_t pieces = 1, first = 0, count = 0;
  std::int64_t begin = 0, per_piece = 0, end = 0;
  AnyRows<std::complex<double>> to;
};

// The spectra of an operand: `weight` says how many of them on it is to the next in each dimension of a batch, 0 where
// it has the same. With pieces 1, those of a row have the same.
struct Spectra {
  const void* data = nullptr;  // from number `first` on
  std::int64_t first = 0, pieces = 1;
  std::int64_t weight[max_batch_dims] = {};
};

// y[i] = x[i] h[i] or x[i] conj(h[i]) for each item, which is a row of the whole batch and a piece.
struct SpectralProducts {
  Batch batch;
  std::int64_t pieces = 1, first = 0, count = 0, bins = 0;
  bool conjugate = false;
  DType dtype = DType::complex64;  // of x, h and y
  Spectra x, h;
  void* y = nullptr;
};

// Adds the products of items to the sums of the results that they belong to, in double: sums is results × slices ×
// bins, and a result the sum of its slices. `result` has pieces 1 where all pieces of a row belong to the same.
struct SpectralSums : SpectralProducts {
  Spectra result;
  std::int64_t results = 0, slices = 1;
  bool add = false;  // to what is there
};

// How many slices make enough work for the device.
TORCH_IIR_API std::int64_t spectral_slices(std::int64_t results, std::int64_t items, std::int64_t bins) noexcept;

// y[i][k] = scale · Σ over the slices, or, weighed, half of it at the bins 0 and, of an even number of points, n / 2.
// In
// place if there is one slice.
struct SpectralResults {
  std::int64_t results = 0, slices = 1, bins = 0, n = 0;
  double scale = 1;
  bool weighed = false;
  DType dtype = DType::complex128;  // of x; y is complex128
  const void* x = nullptr;
  void* y = nullptr;
};

TORCH_IIR_API Status gather(const Gather&, const Queue&) noexcept;
TORCH_IIR_API Status scatter(const Scatter&, const Queue&) noexcept;
TORCH_IIR_API Status spectral_products(const SpectralProducts&, const Queue&) noexcept;
TORCH_IIR_API Status spectral_sums(const SpectralSums&, const Queue&) noexcept;
TORCH_IIR_API Status spectral_results(const SpectralResults&, const Queue&) noexcept;

}  // namespace torch_iir::cuda
