// The steps between transforms on CUDA: kernels of their own, in the stream of torch's transforms.
#include "torch_iir/cuda_spectra.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "spectra.h"

namespace torch_iir::ops {
namespace {

// Of spectra: enough to fill the device, and little beside its memory.
constexpr std::int64_t bytes_at_once = 128 << 20;

using torch::headeronly::ScalarType;

// What a kernel sees of a batch: the dimensions in which an operand has rows of its own, and its strides there.
template <class Rows>
Batch own_dims(const Batch& batch, const Distinct& rows, const std::int64_t* stride, Rows& to) {
  Batch own;
  for (int d = 0; d < batch.dims; ++d) {
    if (rows.weight()[d] == 0) continue;
    own.size[own.dims] = batch.size[d];
    to.stride[own.dims++] = stride[d];
  }
  return own;
}

DType dtype_of(const Array& array) {
  switch (array.scalar_type()) {
    case ScalarType::Float: return DType::float32;
    case ScalarType::Double: return DType::float64;
    case ScalarType::ComplexFloat: return DType::complex64;
    default: return DType::complex128;
  }
}

template <class Function, class Kernel>
void run(const OnDevice& on, const Function& function, const Kernel& kernel) {
  check(on.run(function, kernel), Algorithm::automatic, "");
}

template <class C>
cuda::Spectra held(const Spectra<C>& spectra, const Batch& batch) {
  cuda::Spectra result{spectra.at(spectra.held()), spectra.held(), spectra.pieces()};
  std::copy_n(spectra.rows().weight(), batch.dims, result.weight);
  return result;
}

}  // namespace

template <class T>
Array empty_rows(std::int64_t rows, std::int64_t length) {
  const std::int64_t size[] = {rows, length};
  return Array(empty(2, size, dtype_of<T>()).release());
}

template <class C>
Array WindowSpectra<C>::make(std::int64_t first, std::int64_t count) const {
  const Array values = empty_rows<C>(count, this->n_);
  cuda::Gather kernel;
  kernel.from = {samples_.data, samples_.dtype, samples_.step};
  kernel.batch = own_dims(batch_, this->rows_, samples_.stride, kernel.from);
  kernel.samples = samples_.length;
  kernel.pieces = this->pieces_;
  kernel.first = first;
  kernel.count = count;
  kernel.begin = windows_.begin;
  kernel.hop = windows_.hop;
  kernel.length = windows_.length;
  kernel.n = this->n_;
  kernel.to = values.data_ptr();
  kernel.dtype = dtype_of<C>();
  run(on_, cuda::gather, kernel);
  if constexpr (is_real<C>) {
    return torch::stable::contiguous(fft_r2c(values, Norm::none));
  } else {
    return torch::stable::contiguous(fft_c2c(values, true, Norm::none));
  }
}

template <class C>
void multiply(const OnDevice& on, const Batch& batch, std::int64_t pieces, std::int64_t n, Spectra<C>& x,
              std::span<const Product<C>> products) {
  using Z = Spectral<C>;
  struct Sum {
    Array array;
    std::int64_t slices = 0;  // 0: nothing is added up
  };
  const std::int64_t items = batch.rows() * pieces, bins = bins_of<C>(n);
  std::vector<Sum> sums(products.size());
  const auto results_of = [](const Product<C>& p) { return p.results.count() * p.pieces; };
  const auto serves_several = [&](const Spectra<C>& s) { return s.count() < items; };
  if (serves_several(x)) x.hold(0, x.count());
  for (std::size_t p = 0; p < products.size(); ++p) {
    if (serves_several(products[p].factor)) products[p].factor.hold(0, products[p].factor.count());
    const std::int64_t results = results_of(products[p]);
    if (results == items) continue;
    sums[p].slices = cuda::spectral_slices(results, items, bins);
    sums[p].array = empty_rows<std::complex<double>>(results * sums[p].slices, bins);
  }

  const std::int64_t most = std::max<std::int64_t>(bytes_at_once / (bins * std::int64_t{sizeof(Z)}), 1);
  for (std::int64_t first = 0; first < items; first += most) {
    const std::int64_t count = std::min(most, items - first);
    if (!serves_several(x)) x.hold(first, count);
    for (std::size_t p = 0; p < products.size(); ++p) {
      const Product<C>& product = products[p];
      if (!serves_several(product.factor)) product.factor.hold(first, count);
      cuda::SpectralSums kernel;
      kernel.batch = batch;
      kernel.pieces = pieces;
      kernel.first = first;
      kernel.count = count;
      kernel.bins = bins;
      kernel.conjugate = product.conjugate;
      kernel.dtype = dtype_of<Z>();
      kernel.x = held(x, batch);
      kernel.h = held(product.factor, batch);
      if (sums[p].slices > 0) {
        kernel.result.pieces = product.pieces;
        std::copy_n(product.results.weight(), batch.dims, kernel.result.weight);
        kernel.results = results_of(product);
        kernel.slices = sums[p].slices;
        kernel.add = first > 0;
        kernel.y = sums[p].array.data_ptr();
        run(on, cuda::spectral_sums, kernel);
      } else {
        const Array spectra = empty_rows<Z>(count, bins);
        kernel.y = spectra.data_ptr();
        run(on, cuda::spectral_products, kernel);
        product.deliver(first, count, spectra);
      }
    }
  }

  const std::int64_t most_sums = std::max<std::int64_t>(most / 2, 1);
  for (std::size_t p = 0; p < products.size(); ++p) {
    const std::int64_t results = results_of(products[p]), slices = sums[p].slices;
    if (slices == 0) continue;
    Array total = sums[p].array;
    if (slices > 1) {
      total = empty_rows<std::complex<double>>(results, bins);
      run(on, cuda::spectral_results,
          cuda::SpectralResults{results, slices, bins, n, 1, false, DType::complex128, sums[p].array.data_ptr(),
                                total.data_ptr()});
    }
    for (std::int64_t first = 0; first < results; first += most_sums) {
      const std::int64_t count = std::min(most_sums, results - first);
      products[p].deliver(first, count, torch::stable::narrow(total, 0, first, count));
    }
  }
}

OwnMatrices own_matrices(const OnDevice& on, const Batch& batch, const Distinct& rows, std::int64_t first,
                         std::int64_t count, const SmallIn<double>& values, const std::int64_t* stride,
                         std::int64_t sections, std::int64_t length) {
  const Array own = empty_rows<double>(count * sections, length);
  cuda::Gather kernel;
  kernel.from = {values.data.data, values.data.dtype, values.step()};
  kernel.batch = own_dims(batch, rows, stride, kernel.from);
  STD_TORCH_CHECK(kernel.batch.dims < max_batch_dims, "too many dimensions that cannot be merged: at most ",
                  max_batch_dims - 1, ", got ", kernel.batch.dims);
  kernel.from.stride[kernel.batch.dims] = values.down();  // sections are one more dimension, the innermost
  kernel.batch.size[kernel.batch.dims++] = sections;
  kernel.samples = kernel.length = kernel.n = length;
  kernel.first = first * sections;
  kernel.count = count * sections;
  kernel.to = own.data_ptr();
  kernel.dtype = DType::float64;
  run(on, cuda::gather, kernel);
  return own;
}

void weigh(const OnDevice& on, const Array& products, std::int64_t count, std::int64_t n, std::complex<double>* to) {
  run(on, cuda::spectral_results,
      cuda::SpectralResults{count, 1, bins_of<double>(n), n, 2 / static_cast<double>(n), true, dtype_of(products),
                            products.data_ptr(), to});
}

bool Destination::store(const Distinct& results, std::int64_t first, std::int64_t count, const Array& values) const {
  const Array from = torch::stable::contiguous(values);
  cuda::Scatter kernel;
  kernel.to = {to.data, to.dtype, to.step};
  kernel.batch = own_dims(batch, results, to.stride, kernel.to);
  kernel.from = from.data_ptr();
  kernel.dtype = dtype_of(from);
  kernel.n = from.size(1);
  kernel.offset = this->from;
  kernel.pieces = pieces;
  kernel.first = first;
  kernel.count = count;
  kernel.begin = begin;
  kernel.per_piece = per_piece;
  kernel.end = end;
  run(on, cuda::scatter, kernel);
  return true;
}

void Destination::clear(const Distinct& results) const {
  cuda::Scatter kernel;
  kernel.to = {to.data, to.dtype, to.step};
  kernel.batch = own_dims(batch, results, to.stride, kernel.to);
  kernel.count = results.count();
  kernel.per_piece = kernel.end = to.length;
  run(on, cuda::scatter, kernel);
}

template class WindowSpectra<float>;
template class WindowSpectra<double>;
template class WindowSpectra<std::complex<float>>;
template class WindowSpectra<std::complex<double>>;
template void multiply(const OnDevice&, const Batch&, std::int64_t, std::int64_t, Spectra<float>&,
                       std::span<const Product<float>>);
template void multiply(const OnDevice&, const Batch&, std::int64_t, std::int64_t, Spectra<double>&,
                       std::span<const Product<double>>);
template void multiply(const OnDevice&, const Batch&, std::int64_t, std::int64_t, Spectra<std::complex<float>>&,
                       std::span<const Product<std::complex<float>>>);
template void multiply(const OnDevice&, const Batch&, std::int64_t, std::int64_t, Spectra<std::complex<double>>&,
                       std::span<const Product<std::complex<double>>>);
template Array empty_rows<std::complex<float>>(std::int64_t, std::int64_t);
template Array empty_rows<std::complex<double>>(std::int64_t, std::int64_t);

}  // namespace torch_iir::ops
