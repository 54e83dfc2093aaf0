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

template <class C>
struct RealOf {
  using type = C;
};
template <class T>
struct RealOf<std::complex<T>> {
  using type = T;
};
template <class C>
inline constexpr bool is_real = std::is_floating_point_v<C>;
template <class C>
using Spectral = std::complex<typename RealOf<C>::type>;

// The bins that a transform of n real or complex numbers has.
template <class C>
std::int64_t bins_of(std::int64_t n) {
  return is_real<C> ? n / 2 + 1 : n;
}

// The smallest even number from `least` on without prime factors above 5: what FFTs are fast at.
std::int64_t fast_length(std::int64_t least);

// Which of an operand's distinct rows each row of the batch sees.
struct Distinct {
  Distinct(const Batch& batch, std::initializer_list<const std::int64_t*> strides);

  std::int64_t count = 1;
  std::vector<std::int64_t> of_row;  // the number of the distinct row
  std::vector<std::int64_t> first;   // a row of the batch that sees it
};

// Some rows' samples, of any dtype, that end at `length`.
struct Stretch {
  void* data = nullptr;
  DType dtype = DType::float32;
  std::int64_t length = 0, step = 1;
  Strides stride = {};

  void* row(const Batch& batch, std::int64_t row) const;
};

// Rows of samples: one stretch after another, and zeros before and beyond.
using Signal = std::vector<Stretch>;
std::int64_t length_of(const Signal& signal);

// Runs body(first, last) over ranges of [0, count) on torch's threads.
void for_each_range(std::int64_t count, std::int64_t grain, const std::function<void(std::int64_t, std::int64_t)>& body);

// A fresh tensor of rows.
template <class T>
Array empty_rows(std::int64_t rows, std::int64_t length);

// Spectra, numbered by distinct row and piece: those in memory are [first, first + count).
template <class C>
class Spectra {
 public:
  Spectra(const Batch& batch, std::initializer_list<const std::int64_t*> strides, std::int64_t n, std::int64_t pieces)
      : rows_(batch, strides), n_(n), pieces_(pieces) {}
  virtual ~Spectra() = default;

  std::int64_t count() const { return rows_.count * pieces_; }
  std::int64_t id(std::int64_t row, std::int64_t piece) const {
    return rows_.of_row[static_cast<std::size_t>(row)] * pieces_ + (pieces_ == 1 ? 0 : piece);
  }
  const Spectral<C>* at(std::int64_t id) const { return values_ + (id - first_) * bins_of<C>(n_); }
  void hold(std::int64_t first, std::int64_t count) {
    held_ = make(first, count);
    values_ = static_cast<const Spectral<C>*>(held_.data_ptr());
    first_ = first;
  }

 protected:
  virtual Array make(std::int64_t first, std::int64_t count) = 0;

  Distinct rows_;
  std::int64_t n_, pieces_;

 private:
  Array held_;
  const Spectral<C>* values_ = nullptr;
  std::int64_t first_ = 0;
};

// Those of windows of a signal: piece p is [begin + p · hop, … + length) of each row, and zeros up to n.
template <class C>
class Windows : public Spectra<C> {
 public:
  struct Cut {
    std::int64_t begin = 0, hop = 0, length = 0, pieces = 1;
  };
  Windows(const Batch& batch, const Signal& signal, std::initializer_list<const std::int64_t*> strides, std::int64_t n,
          Cut cut)
      : Spectra<C>(batch, strides, n, cut.pieces), batch_(batch), signal_(signal), cut_(cut) {}

 protected:
  Array make(std::int64_t first, std::int64_t count) override;

 private:
  const Batch& batch_;
  const Signal& signal_;
  Cut cut_;
};

// Results that products of spectra are: delivered in order of their numbers.
template <class C>
struct Product {
  Spectra<C>* factor;
  bool conjugate;  // the factor
  const Distinct& results;
  std::int64_t pieces = 1;  // of a result; 1 where there are more pieces than that: they are added up
  // Spectra of results [first, first + count): complex of C's precision, or complex128 if they were added up.
  std::function<void(std::int64_t first, std::int64_t count, Array spectra)> deliver;
};

// x times each factor, for all rows and pieces.
template <class C>
void multiply(const Batch& batch, std::int64_t pieces, std::int64_t n, Spectra<C>& x,
              std::span<Product<C>> products);

// Back to samples: n of them for each row of spectra.
template <class C>
Array inverse(const Array& spectra, std::int64_t n);

// Writes `count` samples from number `from` on into a row of a signal, from its sample `begin` on, adding those of
// `plus` first where there is such a row. False if one is not finite.
bool deliver_row(const Array& samples, std::int64_t row, std::int64_t from, std::int64_t count, const Batch& batch,
                 std::int64_t batch_row, const Stretch& to, std::int64_t begin, const Stretch* plus = nullptr);

}  // namespace torch_iir::ops
