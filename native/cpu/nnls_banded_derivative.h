// The linear system of the derivatives of nnls for a bank, neighbouring columns in the lanes: one elimination each.
#pragma once

#include "nnls_bank.h"
#include "torch_iir/nnls.h"
#include "tridiagonal.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

template <class Sample>
class BandedDerivative {
 public:
  BandedDerivative(const NNLSDerivative<Sample>& f, const Bank& bank) : f_(f), bank_(bank) {}

  // The columns [first, last) of one row of the batch. False if there was no memory.
  bool run(std::int64_t row, std::int64_t first, std::int64_t last) {
    const std::int64_t tile = bank_.rows * lanes;
    Scratch scratch(6 * Scratch::bytes<double>(tile));
    if (!scratch) return false;
    for (double** piece : {&diagonal_, &beside_, &right_, &factor_, &partial_, &u_}) {
      *piece = scratch.take<double>(tile);
    }
    w_ = f_.w.row(f_.batch, row);
    g_ = f_.g ? f_.g.row(f_.batch, row) : nullptr;
    const double* mu = f_.mu.row(f_.batch, row);
    double* u = f_.u.row(f_.batch, row);
    for (std::int64_t column = first; column < last; column += lanes) {
      const std::int64_t left = last - column;
      const std::int64_t count[2] = {left < width ? left : width, left < width   ? 0
                                                                  : left < lanes ? left - width
                                                                                 : width};
      gather(row, column, count);
      const Doubles mus[2] = {load_some(mu + column * f_.mu.step, f_.mu.step, count[0]),
                              load_some(mu + (column + width) * f_.mu.step, f_.mu.step, count[1])};
      const auto row_of = [&](std::int64_t i, int v) TORCH_IIR_INLINE_LAMBDA {
        const std::int64_t at = i * lanes + v * width;
        return Row{load<Doubles>(diagonal_ + at) + mus[v], load<Doubles>(right_ + at)};
      };
      solve_tridiagonal(bank_.rows, row_of, beside_, factor_, partial_, u_);
      for (std::int64_t i = 0; i < f_.m; ++i) {
        for (int v = 0; v < 2; ++v) {
          store_some(u + i * f_.u.down + (column + v * width) * f_.u.step, f_.u.step,
                     load<Doubles>(u_ + i * lanes + v * width), count[v]);
        }
      }
      if (f_.p) project(row, column, count);
    }
    return true;
  }

 private:
  TORCH_IIR_INLINE Doubles weight(std::int64_t j, std::int64_t column, std::int64_t count) const {
    const Doubles w = load_some(w_ + j * f_.w.down + column * f_.w.step, f_.w.step, count);
    if (f_.support) return w > 0 ? everywhere(1) : w == w ? Doubles{} : w;
    return w < 0 ? Doubles{} : w;
  }
  TORCH_IIR_INLINE Doubles gradient(std::int64_t j, std::int64_t column, std::int64_t count) const {
    return g_ == nullptr ? Doubles{} : load_some(g_ + j * f_.g.down + column * f_.g.step, f_.g.step, count);
  }

  // A W Aᵀ and A W g + h.
  void gather(std::int64_t row, std::int64_t column, const std::int64_t (&count)[2]) {
    const double* h = f_.h ? f_.h.row(f_.batch, row) : nullptr;
    for (int v = 0; v < 2; ++v) {
      const std::int64_t at_column = column + v * width;
      const auto start = [&](std::int64_t i) {
        return h == nullptr || i >= f_.m ? Doubles{}
                                         : load_some(h + i * f_.h.down + at_column * f_.h.step, f_.h.step, count[v]);
      };
      Doubles diagonal = {}, right = start(0);
      for (std::int64_t s = 0; s < bank_.rows; ++s) {
        Doubles beside = {}, next_diagonal = {}, next_right = {};
        if (s + 1 < bank_.rows) {
          next_right = start(s + 1);
          for (std::int64_t j = bank_.begin(s); j < bank_.end(s); ++j) {
            const Bank::Entry& entry = bank_.entries[j];
            const Doubles w = weight(entry.column, at_column, count[v]);
            const Doubles wg = w * gradient(entry.column, at_column, count[v]);
            diagonal += bank_.weights[j].pp * w;
            beside += bank_.weights[j].pq * w;
            next_diagonal += bank_.weights[j].qq * w;
            right += entry.p * wg;
            next_right += entry.q * wg;
          }
        }
        const std::int64_t at = s * lanes + v * width;
        store(diagonal_ + at, diagonal);
        store(beside_ + at, beside);
        store(right_ + at, right);
        diagonal = next_diagonal;
        right = next_right;
      }
    }
  }

  // p = W (g − Aᵀu).
  void project(std::int64_t row, std::int64_t column, const std::int64_t (&count)[2]) {
    Sample* p = f_.p.row(f_.batch, row);
    const auto write_column = [&](std::int64_t s, const Bank::Entry& entry) TORCH_IIR_INLINE_LAMBDA {
      for (int v = 0; v < 2; ++v) {
        const std::int64_t at = s * lanes + v * width, at_column = column + v * width;
        const Doubles applied = entry.p * load<Doubles>(u_ + at) + entry.q * load<Doubles>(u_ + at + lanes);
        const Doubles value =
            weight(entry.column, at_column, count[v]) * (gradient(entry.column, at_column, count[v]) - applied);
        store_some(p + entry.column * f_.p.down + at_column * f_.p.step, f_.p.step, value, count[v]);
      }
    };
    for (std::int64_t s = 0; s < bank_.segments(); ++s) {
      for (std::int64_t j = bank_.begin(s); j < bank_.end(s); ++j) write_column(s, bank_.entries[j]);
    }
    for (std::int64_t j = bank_.filled; j < bank_.columns; ++j) write_column(0, bank_.entries[j]);
  }

  const NNLSDerivative<Sample>& f_;
  const Bank& bank_;
  const Sample *w_ = nullptr, *g_ = nullptr;
  double *diagonal_ = nullptr, *beside_ = nullptr, *right_ = nullptr, *factor_ = nullptr, *partial_ = nullptr,
         *u_ = nullptr;
};

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
