#include "spectra.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <numeric>

#include "torch_iir/spectra.h"

namespace torch_iir::ops {

// ---- on any device: the rest for CUDA is in spectra_cuda.cpp --------------------------------------------------------

std::int64_t fast_length(std::int64_t least) {
  std::int64_t best = 2;
  while (best < least) best *= 2;
  for (std::int64_t fives = 2; fives < best; fives *= 5) {
    for (std::int64_t n = fives; n < best; n *= 3) {
      std::int64_t even = n;
      while (even < least) even *= 2;
      best = std::min(best, even);
    }
  }
  return best;
}

void put_shared_last(Batch& batch, std::initializer_list<const std::int64_t*> of,
                     std::initializer_list<std::int64_t*> strides) {
  int order[max_batch_dims];
  std::iota(order, order + batch.dims, 0);
  std::stable_partition(order, order + batch.dims, [&](int d) {
    return std::any_of(of.begin(), of.end(), [d](const std::int64_t* stride) { return stride[d] != 0; });
  });
  const auto permute = [&](std::int64_t* values) {
    const std::vector<std::int64_t> old(values, values + batch.dims);
    for (int d = 0; d < batch.dims; ++d) values[d] = old[static_cast<std::size_t>(order[d])];
  };
  permute(batch.size);
  for (std::int64_t* stride : strides) permute(stride);
}

Distinct::Distinct(const Batch& batch, std::initializer_list<const std::int64_t*> strides) {
  std::int64_t next = 1;
  for (int d = batch.dims - 1; d >= 0; --d) {
    if (std::all_of(strides.begin(), strides.end(), [d](const std::int64_t* s) { return s[d] == 0; })) continue;
    weight_[d] = next;
    next *= batch.size[d];
  }
  const std::int64_t rows = batch.rows();
  count_ = rows == 0 ? 0 : next;
  if constexpr (!on_cpu) return;
  of_row_.resize(static_cast<std::size_t>(rows));
  first_.assign(static_cast<std::size_t>(count_), -1);
  for (std::int64_t row = 0; row < rows; ++row) {
    std::int64_t number = 0, left = row;
    for (int d = batch.dims - 1; d >= 0; --d) {
      number += left % batch.size[d] * weight_[d];
      left /= batch.size[d];
    }
    of_row_[static_cast<std::size_t>(row)] = number;
    std::int64_t& first = first_[static_cast<std::size_t>(number)];
    if (first < 0) first = row;
  }
}

Samples::Samples(void* data_, DType dtype_, std::int64_t length_, std::int64_t step_, const std::int64_t* batch_stride,
                 const Batch& batch)
    : data(data_), dtype(dtype_), length(length_), step(step_) {
  std::copy_n(batch_stride, batch.dims, stride);
}

Array inverse(const Array& spectra, std::int64_t n, bool real) {
  return real ? fft_c2r(spectra, n, Norm::by_n) : fft_c2c(spectra, false, Norm::by_n);
}

#if !defined(TORCH_IIR_DEVICE_CUDA)

// ---- on the CPU -----------------------------------------------------------------------------------------------------

namespace {

constexpr std::int64_t bytes_at_once = 16 << 20;  // of spectra: fewer would make more plans, which cost as much as a
                                                  // few rows do; more would not stay in the caches

using torch::headeronly::ScalarType;

template <class T>
constexpr ScalarType scalar_type = std::is_same_v<T, float>                 ? ScalarType::Float
                                   : std::is_same_v<T, double>              ? ScalarType::Double
                                   : std::is_same_v<T, std::complex<float>> ? ScalarType::ComplexFloat
                                                                            : ScalarType::ComplexDouble;

std::complex<double>* begin_of(const Array& sums, std::int64_t index, std::int64_t bins) {
  return numbers<std::complex<double>>(sums) + index * bins;
}

bool finite(const auto* numbers, std::int64_t count) {
  using T = std::remove_const_t<Real<std::remove_cvref_t<decltype(*numbers)>>>;
  const T* values = reinterpret_cast<const T*>(numbers);
  count *= static_cast<std::int64_t>(sizeof(*numbers) / sizeof(T));
  T sums[16] = {};  // side by side, for vectors
  std::int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int j = 0; j < 16; ++j) sums[j] += values[i + j] * 0;
  }
  for (; i < count; ++i) sums[0] += values[i] * 0;
  return std::all_of(std::begin(sums), std::end(sums), [](T sum) { return sum == 0; });
}

// To the samples [at, at + count) of a row.
template <class C>
void write_samples(const C* values, std::int64_t at, std::int64_t count, std::int64_t row, const Destination& to) {
  std::int64_t stretch_begin = 0;
  for (const Samples* stretch = &to.to; stretch != nullptr; stretch = stretch->rest) {
    const std::int64_t low = std::clamp(stretch_begin, at, at + count),
                       high = std::clamp(stretch_begin + stretch->length, at, at + count);
    if (high > low) {
      convert_to(stretch->dtype, values + (low - at), high - low, stretch->row(to.batch, row, low - stretch_begin),
                 stretch->step);
    }
    stretch_begin += stretch->length;
  }
}

}  // namespace

void* Samples::row(const Batch& batch, std::int64_t row, std::int64_t at) const {
  std::int64_t elements = at * step;
  for (int d = batch.dims - 1; d >= 0; --d) {
    elements += row % batch.size[d] * stride[d];
    row /= batch.size[d];
  }
  return offset(data, dtype, elements);
}

void for_each_range(std::int64_t count, std::int64_t samples_per_item, const Body& body) {
  constexpr std::int64_t samples_per_task = 1 << 16;
  const std::int64_t grain = std::max<std::int64_t>(samples_per_task / std::max<std::int64_t>(samples_per_item, 1), 1);
  const auto call = [](void* argument, std::int64_t first, std::int64_t last) {
    (*static_cast<const Body*>(argument))(first, last);
  };
  const ParallelFor torch_threads = parallel_for();
  torch_threads.run(torch_threads.context, count, grain, call, const_cast<Body*>(&body));
}

template <class T>
Array empty_rows(std::int64_t rows, std::int64_t length) {
  return torch::stable::empty(std::vector<std::int64_t>{rows, length}, scalar_type<T>);
}

template <class C>
Array WindowSpectra<C>::make(std::int64_t first, std::int64_t count) const {
  const std::int64_t n = this->n_, pieces = this->pieces_;
  const Array values = empty_rows<C>(count, n);
  for_each_range(count, n, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t i = from; i < to; ++i) {
      const std::int64_t row = this->rows_.first((first + i) / pieces);
      C* const window = numbers<C>(values) + i * n;
      // In the numbers of the row: the window, and in it what a stretch of samples has.
      const std::int64_t begin = windows_.begin + (first + i) % pieces * windows_.hop, end = begin + windows_.length;
      std::int64_t at = begin, stretch_begin = 0;
      for (const Samples* stretch = &samples_; stretch != nullptr; stretch = stretch->rest) {
        const std::int64_t low = std::clamp(stretch_begin, at, end),
                           high = std::clamp(stretch_begin + stretch->length, low, end);
        if (stretch->data != nullptr && high > low) {
          std::fill(window + (at - begin), window + (low - begin), C{});
          convert_from(stretch->dtype, stretch->row(batch_, row, low - stretch_begin), stretch->step, high - low,
                       window + (low - begin));
          at = high;
        }
        stretch_begin += stretch->length;
      }
      std::fill(window + (at - begin), window + n, C{});
    }
  });
  if constexpr (is_real<C>) {
    return fft_r2c(values, Norm::none);
  } else {
    return fft_c2c(values, true, Norm::none);
  }
}

template <class C>
void multiply(const OnDevice&, const Batch& batch, std::int64_t pieces, std::int64_t n, Spectra<C>& x,
              std::span<const Product<C>> products) {
  using Z = Spectral<C>;
  const std::int64_t items = batch.rows() * pieces, bins = bins_of<C>(n);
  std::vector<Array> sums(products.size());
  const auto added_up = [&](const Product<C>& p) { return p.results.count() * p.pieces < items; };
  const auto serves_several = [&](const Spectra<C>& s) { return s.count() < items; };
  if (serves_several(x)) x.hold(0, x.count());
  for (std::size_t p = 0; p < products.size(); ++p) {
    if (serves_several(products[p].factor)) products[p].factor.hold(0, products[p].factor.count());
    if (!added_up(products[p])) continue;
    sums[p] = empty_rows<std::complex<double>>(products[p].results.count() * products[p].pieces, bins);
    torch::stable::zero_(sums[p]);
  }

  const std::int64_t most = std::max<std::int64_t>(bytes_at_once / (bins * std::int64_t{sizeof(Z)}), 1);
  std::vector<const Z*> from, by;
  std::vector<Z*> to;
  std::vector<std::complex<double>*> to_sum;
  for (std::int64_t first = 0; first < items; first += most) {
    const std::int64_t count = std::min(most, items - first);
    if (!serves_several(x)) x.hold(first, count);
    from.clear();
    for (std::int64_t i = first; i < first + count; ++i) from.push_back(x.at(x.id(i / pieces, i % pieces)));
    for (std::size_t p = 0; p < products.size(); ++p) {
      const Product<C>& product = products[p];
      if (!serves_several(product.factor)) product.factor.hold(first, count);
      by.clear();
      for (std::int64_t i = first; i < first + count; ++i)
        by.push_back(product.factor.at(product.factor.id(i / pieces, i % pieces)));
      const auto run = [&](auto kernel, auto* const* results) {
        kernel.count = count;
        kernel.bins = bins;
        kernel.conjugate = product.conjugate;
        kernel.x = from.data();
        kernel.h = by.data();
        kernel.y = results;
        check(spectral_product(kernel, parallel_for()), Algorithm::automatic, "");
      };
      if (added_up(product)) {
        to_sum.clear();
        for (std::int64_t i = first; i < first + count; ++i) {
          const std::int64_t result = product.results.of_row(i / pieces) * product.pieces;
          to_sum.push_back(begin_of(sums[p], result + (product.pieces == 1 ? 0 : i % pieces), bins));
        }
        SpectralProduct<Real<C>, double> kernel;
        kernel.add = true;
        run(kernel, to_sum.data());
      } else {
        const Array spectra = empty_rows<Z>(count, bins);
        to.clear();
        for (std::int64_t i = 0; i < count; ++i) to.push_back(numbers<Z>(spectra) + i * bins);
        run(SpectralProduct<Real<C>>{}, to.data());
        product.deliver(first, count, spectra);
      }
    }
  }

  const std::int64_t most_sums = std::max<std::int64_t>(most / 2, 1);
  for (std::size_t p = 0; p < products.size(); ++p) {
    if (!added_up(products[p])) continue;
    const std::int64_t results = products[p].results.count() * products[p].pieces;
    for (std::int64_t first = 0; first < results; first += most_sums) {
      const std::int64_t count = std::min(most_sums, results - first);
      products[p].deliver(first, count, torch::stable::narrow(sums[p], 0, first, count));
    }
  }
}

bool Destination::store(const Distinct& results, std::int64_t first, std::int64_t count, const Array& values) const {
  const std::int64_t n = values.size(1);
  std::atomic<bool> all_finite{true};
  const auto write = [&]<class C>(C*) {
    for_each_range(count, per_piece, [&](std::int64_t range_first, std::int64_t range_last) {
      std::vector<C> sum(plus ? static_cast<std::size_t>(per_piece) : 0);
      for (std::int64_t i = range_first; i < range_last; ++i) {
        const std::int64_t row = results.first((first + i) / pieces), at = begin + (first + i) % pieces * per_piece;
        const std::int64_t length = std::min(per_piece, end - at);
        C* numbers_of_row = numbers<C>(values) + i * n + from;
        if (plus && at < plus->length) {
          const std::int64_t both = std::min(length, plus->length - at);
          convert_from(plus->dtype, plus->row(batch, row, at), plus->step, both, sum.data());
          for (std::int64_t k = 0; k < both; ++k) numbers_of_row[k] += sum[static_cast<std::size_t>(k)];
        }
        if (!finite(numbers_of_row, length)) all_finite = false;
        write_samples(numbers_of_row, at, length, row, *this);
      }
    });
  };
  switch (values.scalar_type()) {
    case ScalarType::Float: write(static_cast<float*>(nullptr)); break;
    case ScalarType::Double: write(static_cast<double*>(nullptr)); break;
    case ScalarType::ComplexFloat: write(static_cast<std::complex<float>*>(nullptr)); break;
    default: write(static_cast<std::complex<double>*>(nullptr));
  }
  return all_finite;
}

void Destination::clear(const Distinct& results) const {
  const std::int64_t length = to.whole_length();
  std::vector<std::complex<double>> values(static_cast<std::size_t>(length));
  for (std::int64_t i = 0; i < results.count(); ++i) {
    const std::int64_t row = results.first(i);
    if (plus) {
      convert_from(plus->dtype, plus->row(batch, row), plus->step, std::min(plus->length, length), values.data());
    }
    write_samples(values.data(), 0, length, row, *this);
  }
}

OwnMatrices own_matrices(const OnDevice&, const Batch& batch, const Distinct& rows, std::int64_t first,
                         std::int64_t count, const SmallIn<double>& values, const std::int64_t* stride,
                         std::int64_t sections, std::int64_t length) {
  const auto matrices = matrices_of<false>(values.data, values.down(), values.step(), stride, batch);
  std::vector<double> own;
  own.reserve(static_cast<std::size_t>(count * sections * length));
  for (std::int64_t i = first; i < first + count; ++i) {
    const double* from = matrices.row(batch, rows.first(i));
    for (std::int64_t s = 0; s < sections; ++s) {
      for (std::int64_t k = 0; k < length; ++k) own.push_back(from[s * matrices.down + k * matrices.step]);
    }
  }
  return own;
}

void weigh(const OnDevice&, const Array& products, std::int64_t count, std::int64_t n, std::complex<double>* to) {
  const std::int64_t bins = bins_of<double>(n);
  const double scale = 2 / static_cast<double>(n);
  const auto run = [&](const auto* from) {
    for_each_range(count, bins, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row) {
        std::complex<double>* weighed = to + row * bins;
        for (std::int64_t k = 0; k < bins; ++k) weighed[k] = std::complex<double>(from[row * bins + k]) * scale;
        weighed[0] *= 0.5;
        if (n % 2 == 0) weighed[bins - 1] *= 0.5;
      }
    });
  };
  if (products.scalar_type() == ScalarType::ComplexFloat) {
    run(numbers<std::complex<float>>(products));
  } else {
    run(numbers<std::complex<double>>(products));
  }
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

#endif

}  // namespace torch_iir::ops
