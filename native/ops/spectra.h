// Filtering by way of spectra: windows of many rows are transformed by torch's FFT, multiplied, and transformed back,
// some megabytes at a time.
//
// An operand has a spectrum for each of its distinct rows and, where rows are cut into pieces, for each piece of them.
// An item is one product: a row of the batch and a piece. Operands that serve several items are transformed once, ahead
// of all; products that belong to one result are added up in double before the transform back.
#pragma once

#include <complex>
#include <cstdint>
#include <functional>
#include <span>
#include <type_traits>
#include <vector>

#include "fft.h"
#include "storage.h"

namespace torch_iir::ops {

// C is float, double or a complex number of them: what is transformed.
template <class C>
inline constexpr bool is_real = std::is_floating_point_v<C>;
template <class C>
using Real = decltype(std::real(C()));
template <class C>
using Spectral = std::complex<Real<C>>;

// The bins of a transform of n numbers.
template <class C>
constexpr std::int64_t bins_of(std::int64_t n) {
  return is_real<C> ? n / 2 + 1 : n;
}

// The smallest even number from `least` on without prime factors above 5: what FFTs are fast at.
std::int64_t fast_length(std::int64_t least);

// Moves the dimensions in which all of `of` have stride 0 to the end of a batch, for all of `strides`: rows that share
// a result then follow each other.
void put_shared_last(Batch& batch, std::initializer_list<const std::int64_t*> of,
                     std::initializer_list<std::int64_t*> strides);

// The rows that an operand, or several together, have over a batch.
class Distinct {
 public:
  Distinct(const Batch& batch, std::initializer_list<const std::int64_t*> strides);

  std::int64_t count() const { return count_; }
  // By how much the number changes from a row to the next in a dimension: 0 where they are the same.
  const std::int64_t* weight() const { return weight_; }

  // On the CPU: the number of the one that a row of the batch sees, and the first row that sees it.
  std::int64_t of_row(std::int64_t row) const { return of_row_[static_cast<std::size_t>(row)]; }
  std::int64_t first(std::int64_t number) const { return first_[static_cast<std::size_t>(number)]; }

 private:
  std::int64_t count_ = 0, weight_[max_batch_dims] = {};
  std::vector<std::int64_t> of_row_, first_;
};

// Samples of each row of a batch, of any dtype; beyond them there are zeros, or where `rest` continues them.
struct Samples {
  void* data = nullptr;  // null: zeros
  DType dtype = DType::float32;
  std::int64_t length = 0, step = 1;
  Strides stride = {};
  const Samples* rest = nullptr;

  Samples() = default;
  Samples(void* data, DType dtype, std::int64_t length, std::int64_t step, const std::int64_t* batch_stride,
          const Batch& batch);
  Samples(const Tensor& tensor, const std::int64_t* batch_stride, const Batch& batch)
      : Samples(tensor.data, tensor.dtype, tensor.length(), tensor.stride[tensor.dims - 1], batch_stride, batch) {}

  std::int64_t whole_length() const { return length + (rest ? rest->whole_length() : 0); }
  // On the CPU: sample number `at` of a row.
  void* row(const Batch& batch, std::int64_t row, std::int64_t at = 0) const;
};

// On the CPU: runs body(first, last) over ranges of [0, count) on torch's threads.
using Body = std::function<void(std::int64_t, std::int64_t)>;
void for_each_range(std::int64_t count, std::int64_t samples_per_item, const Body& body);

// A fresh tensor of rows, on the current device: float, double or complex numbers of them.
template <class T>
Array empty_rows(std::int64_t rows, std::int64_t length);
template <class T>
T* numbers(const Array& array) {
  return static_cast<T*>(array.data_ptr());
}

// The spectra of an operand. `id` numbers them; those from the first of a hold() on are in memory.
template <class C>
class Spectra {
 public:
  Spectra(Distinct rows, std::int64_t n, std::int64_t pieces) : rows_(std::move(rows)), n_(n), pieces_(pieces) {}
  virtual ~Spectra() = default;

  std::int64_t count() const { return rows_.count() * pieces_; }
  std::int64_t id(std::int64_t row, std::int64_t piece) const {
    return rows_.of_row(row) * pieces_ + (pieces_ == 1 ? 0 : piece);
  }
  const Spectral<C>* at(std::int64_t id) const { return values_ + (id - first_) * bins_of<C>(n_); }
  const Distinct& rows() const { return rows_; }
  std::int64_t pieces() const { return pieces_; }
  std::int64_t held() const { return first_; }  // the number of the first one in memory
  void hold(std::int64_t first, std::int64_t count) {
    held_ = make(first, count);
    values_ = numbers<Spectral<C>>(held_);
    first_ = first;
  }

 protected:
  virtual Array make(std::int64_t first, std::int64_t count) const = 0;

  Distinct rows_;
  std::int64_t n_, pieces_;

 private:
  Array held_;
  const Spectral<C>* values_ = nullptr;
  std::int64_t first_ = 0;
};

// Spectra of samples: piece p is a window of `length` of them, from begin + p · hop on, and zeros up to n.
struct Windows {
  std::int64_t begin = 0, hop = 0, length = 0, pieces = 1;
};
template <class C>
class WindowSpectra : public Spectra<C> {
 public:
  WindowSpectra(const OnDevice& on, const Batch& batch, const Samples& samples, std::int64_t n, Windows windows)
      : Spectra<C>(Distinct(batch, {samples.stride, (samples.rest ? samples.rest : &samples)->stride}), n,
                   windows.pieces),
        on_(on),
        batch_(batch),
        samples_(samples),
        windows_(windows) {}

 protected:
  Array make(std::int64_t first, std::int64_t count) const override;

 private:
  const OnDevice& on_;
  const Batch& batch_;
  const Samples& samples_;
  Windows windows_;
};

// What becomes of products: results, numbered by their rows and pieces.
template <class C>
struct Product {
  Spectra<C>& factor;
  bool conjugate;  // the factor
  Distinct results;
  std::int64_t pieces;  // of a result; 1 where a row has more of them: they are added up
  // Takes the spectra of `count` results from number `first` on: of C's precision or, if they were added up, double.
  std::function<void(std::int64_t first, std::int64_t count, const Array& spectra)> deliver;
};

// x times each factor, for all rows of the batch and all pieces.
template <class C>
void multiply(const OnDevice& on, const Batch& batch, std::int64_t pieces, std::int64_t n, Spectra<C>& x,
              std::span<const Product<C>> products);

// n samples again for each spectrum, of its precision.
Array inverse(const Array& spectra, std::int64_t n, bool real);

// The matrices that the distinct rows [first, first + count) of a batch have, one after another, in double.
#if defined(TORCH_IIR_DEVICE_CUDA)
using OwnMatrices = Array;
inline const double* numbers_of(const Array& array) { return numbers<double>(array); }
#else
using OwnMatrices = std::vector<double>;
inline const double* numbers_of(const std::vector<double>& values) { return values.data(); }
#endif
OwnMatrices own_matrices(const OnDevice& on, const Batch& batch, const Distinct& rows, std::int64_t first,
                         std::int64_t count, const SmallIn<double>& values, const std::int64_t* stride,
                         std::int64_t sections, std::int64_t length);

// Products of the spectra of n real numbers, single or double, by the weights of their bins: 2 / n, and half of it at
// the bins 0 and n / 2, which stand for themselves alone.
void weigh(const OnDevice& on, const Array& products, std::int64_t count, std::int64_t n, std::complex<double>* to);

// Where results go back to samples: piece p of a row is its samples [begin + p · per_piece, … + per_piece), up to
// `end`, and the numbers of a result from `from` on. The samples of `plus`, if there are any, are added.
struct Destination {
  const OnDevice& on;
  const Batch& batch;
  const Samples& to;
  const Samples* plus = nullptr;  // on the CPU
  std::int64_t pieces = 1, begin = 0, per_piece = 0, end = 0, from = 0;

  // False if a number is not finite, where nobody has to wait for the device to know. `values` begins with the result
  // number `first`.
  bool store(const Distinct& results, std::int64_t first, std::int64_t count, const Array& values) const;
  // Zeros, or what is in `plus`, everywhere: for what no piece comes to.
  void clear(const Distinct& results) const;
};

}  // namespace torch_iir::ops
