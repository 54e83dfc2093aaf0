// A matrix with at most two entries in a column, both positive and in adjacent rows, as banks of overlapping triangles
// have: A D Aᵀ is tridiagonal for every diagonal D.
#pragma once

#include "scratch.h"
#include "simd.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

// Element (i, j) lies at data[i * down + j * step].
struct MatrixView {
  const double* data;
  std::int64_t down, step;
  std::int64_t m, n;
};

class Bank {
 public:
  // A column with the entries p in row s and q in row s + 1, as `segment` s has. The sign of p u + q v is that of
  // u + ratio v where p ≥ q, ratio = q / p, and else that of ratio u + v.
  struct Weights {
    double ratio, pp, pq, qq;
  };
  struct Entry {
    double p, q;
    std::int64_t column;
  };

  static std::size_t bytes(std::int64_t m, std::int64_t n) {
    return Scratch::bytes<Found>(n) + Scratch::bytes<Weights>(n) + Scratch::bytes<Entry>(n) +
           Scratch::bytes<std::int64_t>(2 * padded(m)) + 2 * Scratch::bytes<double>(padded(m));
  }

  // As much as any bank of that size: what memory is measured by.
  static Bank largest_of(std::int64_t m, std::int64_t n) {
    Bank bank;
    bank.rows = padded(m);
    bank.columns = bank.filled = n;
    return bank;
  }

  // Says whether the matrix is banded; the object is of use only then.
  bool build(Scratch& scratch, const MatrixView& a) {
    columns = a.n;
    rows = padded(a.m);
    found_ = scratch.take<Found>(a.n);
    weights = scratch.take<Weights>(a.n);
    entries = scratch.take<Entry>(a.n);
    begin_ = scratch.take<std::int64_t>(2 * rows);
    diagonal = scratch.take<double>(rows);
    beside = scratch.take<double>(rows);
    if (!find(a)) return false;
    sort();
    return true;
  }

  std::int64_t rows = 0;     // at least 2, the last of which may be none of the matrix's
  std::int64_t columns = 0;  // of the matrix; the first `filled` of weights and entries are those with an entry
  std::int64_t filled = 0;
  Weights* weights = nullptr;
  Entry* entries = nullptr;
  double *diagonal = nullptr, *beside = nullptr;  // of A Aᵀ: (s, s) and (s, s + 1)
  double largest = 0;                             // of the diagonal

  // The columns of segment s: first those with p ≥ q, then, from `middle`, the others.
  std::int64_t begin(std::int64_t s) const { return begin_[2 * s]; }
  std::int64_t middle(std::int64_t s) const { return begin_[2 * s + 1]; }
  std::int64_t end(std::int64_t s) const { return begin_[2 * s + 2]; }
  std::int64_t segments() const { return rows - 1; }

 private:
  struct Found {
    std::int64_t row;  // of the first entry; −1: none
    double p, q;
  };

  static std::int64_t padded(std::int64_t m) { return m < 2 ? 2 : m; }

  // add(i, value) for what is not zero, as long as it is true. Most is zero: neighbours are looked at together.
  template <class Add>
  static bool for_entries(const double* values, std::int64_t step, std::int64_t count, Add add) {
    constexpr int together = 8;
    for (std::int64_t i = 0; i < count;) {
      if (step == 1 && i + together <= count) {
        std::uint64_t bits[together], any = 0;
        std::memcpy(bits, values + i, sizeof(bits));
        for (std::uint64_t b : bits) any |= b;
        if (any << 1 == 0) {  // but for signs
          i += together;
          continue;
        }
      }
      const std::int64_t end = i + together < count ? i + together : count;
      for (; i < end; ++i) {
        if (values[i * step] != 0 && !add(i, values[i * step])) return false;
      }
    }
    return true;
  }

  bool find(const MatrixView& a) {
    for (std::int64_t j = 0; j < a.n; ++j) found_[j] = {-1, 0, 0};
    const auto add = [&](std::int64_t i, std::int64_t j, double value) {
      Found& found = found_[j];
      if (!(value > 0 && value - value == 0)) return value == 0;
      if (found.row < 0) {
        found.row = i;
        found.p = value;
        return true;
      }
      if (i != found.row + 1) return false;
      found.q = value;
      return true;
    };
    if (a.step < a.down) {
      for (std::int64_t i = 0; i < a.m; ++i) {
        const auto add_here = [&](std::int64_t j, double value) { return add(i, j, value); };
        if (!for_entries(a.data + i * a.down, a.step, a.n, add_here)) return false;
      }
    } else {
      for (std::int64_t j = 0; j < a.n; ++j) {
        const auto add_here = [&](std::int64_t i, double value) { return add(i, j, value); };
        if (!for_entries(a.data + j * a.step, a.down, a.m, add_here)) return false;
      }
    }
    return true;
  }

  struct Placed {
    std::int64_t segment;
    double p, q;
    std::int64_t group() const { return 2 * segment + (p < q ? 1 : 0); }
  };
  // A single entry in the last row stands second in the last segment, which is that of the row before.
  Placed place(const Found& found) const {
    return found.row < rows - 1 ? Placed{found.row, found.p, found.q} : Placed{rows - 2, 0, found.p};
  }

  void sort() {
    for (std::int64_t s = 0; s < 2 * rows; ++s) begin_[s] = 0;
    for (std::int64_t s = 0; s < rows; ++s) diagonal[s] = beside[s] = 0;
    for (std::int64_t j = 0; j < columns; ++j) {
      if (found_[j].row >= 0) ++begin_[place(found_[j]).group() + 1];
    }
    for (std::int64_t s = 1; s < 2 * rows; ++s) begin_[s] += begin_[s - 1];
    filled = begin_[2 * rows - 2];
    std::int64_t empty = filled;
    for (std::int64_t j = columns - 1; j >= 0; --j) {  // backwards, and each group filled from behind
      if (found_[j].row < 0) {
        entries[empty++] = {0, 0, j};
        continue;
      }
      const Placed placed = place(found_[j]);
      const double p = placed.p, q = placed.q;
      const std::int64_t at = --begin_[placed.group() + 1];
      entries[at] = {p, q, j};
      weights[at] = {p < q ? p / q : q / p, p * p, p * q, q * q};
      diagonal[placed.segment] += p * p;
      beside[placed.segment] += p * q;
      diagonal[placed.segment + 1] += q * q;
    }
    // What was counted at g + 1 is now the beginning of group g.
    for (std::int64_t s = 0; s < 2 * rows - 2; ++s) begin_[s] = begin_[s + 1];
    begin_[2 * rows - 2] = filled;
    largest = 0;
    for (std::int64_t s = 0; s < rows; ++s) largest = diagonal[s] > largest ? diagonal[s] : largest;
  }

  Found* found_ = nullptr;
  std::int64_t* begin_ = nullptr;
};

// count ≤ width neighbours, converted.
template <class Sample>
TORCH_IIR_INLINE void store_some(Sample* to, std::int64_t step, Doubles value, std::int64_t count) {
  if constexpr (plain<Sample>) {
    if (step == 1 && count == width) return store_doubles(to, value);
  }
  for (int i = 0; i < count; ++i) write(to[i * step], value[i]);
}
template <class Sample>
TORCH_IIR_INLINE Doubles load_some(const Sample* from, std::int64_t step, std::int64_t count) {
  if constexpr (plain<Sample>) {
    if (step == 1 && count == width) return load_doubles(from);
  }
  Doubles value = {};
  for (int i = 0; i < count; ++i) value[i] = read(from[i * step]);
  return value;
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
