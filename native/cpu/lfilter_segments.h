// One row cut into segments, the segments in SIMD lanes: order ≤ register_order.
//
// The state after a segment is M z + d, with z the state before it, M the one-step matrix to the power of the segment's
// length and d the state that the segment's samples leave in a filter at rest. For a tile of `lanes` segments: every d
// by dot products with a table of weights (no chain from sample to sample), then a scan over the lanes for the entry
// states, then every segment by the direct form from its true entry state. All of it is in double: carries in float
// would be amplified without bound by poles near the unit circle.
//
// Cost: 3 order + 1 multiply-adds a sample, against the direct form's 2 order + 1, but `lanes` samples at a time.
#pragma once

#include "lfilter_tiles.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

// Not a power of two: the segments' rows would fall on few sets of the cache.
inline constexpr int segment_length = 240;
inline constexpr int next_tile = lanes * segment_length;  // samples from a segment to the next tile's

// How long segments of so many samples are; 0: too few samples to cut.
inline int segment_in(std::int64_t samples) {
  return samples >= lanes * segment_length ? segment_length
         : samples >= lanes * 8            ? static_cast<int>(samples / lanes)
                                           : 0;
}

// high + low, with low the part that high has no room for.
struct Extended {
  double high = 0, low = 0;
};

// A product that the compiler shall not merge into a multiply-add: its rounding is what we are after.
TORCH_IIR_INLINE double as_rounded(double product) {
#if defined(__x86_64__)
  asm("" : "+x"(product));
#elif defined(__aarch64__)
  asm("" : "+w"(product));
#endif
  return product;
}

// A sum in extended precision: of products, or of doubles. From `high` to `high` there is one multiply-add; what it
// rounds off is found beside that chain.
class ExtendedSum {
 public:
  TORCH_IIR_INLINE explicit ExtendedSum(double start = 0) : sum_(start) {}
  TORCH_IIR_INLINE void add_product(Extended p, Extended q) {
    const double sum = __builtin_fma(p.high, q.high, sum_);
    const double product = as_rounded(p.high * q.high), error = __builtin_fma(p.high, q.high, -product);
    const double plain = sum_ + product, part = plain - sum_;  // Knuth's two-sum
    const double lost = (sum_ - (plain - part)) + (product - part);
    rest_ += (plain - sum) + (lost + error + (p.high * q.low + p.low * q.high));
    sum_ = sum;
  }
  TORCH_IIR_INLINE Extended value() const { return {sum_, rest_}; }
  TORCH_IIR_INLINE Extended normalised() const {  // |low| ≤ half an ulp of high
    const double high = sum_ + rest_;
    return {high, rest_ - (high - sum_)};
  }

 private:
  double sum_, rest_ = 0;
};

template <int order>
struct SegmentTables {
  static constexpr int n = order > 0 ? order : 1;
  using Matrix = Extended[n * n];

  int length;                          // of the longest segment
  double weights[segment_length * n];  // weights[t * order + j]: what sample t adds to state j at that segment's end
  double step[n * n];                  // state before → state after one sample without input
  Matrix whole;                        // step^length

  // `input` is the state that a unit sample leaves. False if a power overflows: the tables are then of no use.
  bool build(int longest, const double (&one_step)[n * n], const double (&input)[n]) {
    length = longest;
    std::memcpy(step, one_step, sizeof(step));
    double* w = weights + (length - 1) * order;
    for (int j = 0; j < order; ++j) w[j] = input[j];
    for (; w > weights; w -= order) {
      for (int i = 0; i < order; ++i) {
        double next = 0;
        for (int j = 0; j < order; ++j) next += step[i * order + j] * w[j];
        (w - order)[i] = next;
      }
    }
    double probe = 0;
    power(length, whole);
    for (const Extended& element : whole) probe += element.high * 0 + element.low * 0;
    for (int i = 0; i < length * order; ++i) probe += weights[i] * 0;
    return probe == 0;
  }

  // result = step^exponent
  void power(int exponent, Matrix& result) const {
    Matrix base;
    for (int i = 0; i < order * order; ++i) {
      base[i] = {step[i], 0};
      result[i] = {i % (order + 1) == 0 ? 1.0 : 0.0, 0};
    }
    for (; exponent > 0; exponent >>= 1) {
      if (exponent & 1) multiply(result, base);
      if (exponent > 1) multiply(base, base);
    }
  }

 private:
  static void multiply(Matrix& p, const Matrix& q) {  // p ← p q; p may be q
    Matrix product;
    for (int i = 0; i < order; ++i) {
      for (int j = 0; j < order; ++j) {
        ExtendedSum total;
        for (int k = 0; k < order; ++k) total.add_product(p[i * order + k], q[k * order + j]);
        product[i * order + j] = total.normalised();
      }
    }
    std::memcpy(&p, &product, sizeof(p));
  }
};

// Loads a segment of `count` samples into each lane; ends[j][lane] = the state that it leaves in a filter at rest.
template <bool reversed, int order, class Sample>
void load_segments(Tile<Sample>* tile, const Sample* const (&rows)[lanes], std::int64_t step, int count,
                   const SegmentTables<order>& tables, double* ends) {
  const double* w = tables.weights + (tables.length - count) * order;
  Pair sums[order] = {};
  load_tile<reversed, reversed ? -next_tile : next_tile>(tile, rows, step, count, [&](int t) {
    const Pair x = load_pair(tile + t * lanes);
#pragma GCC unroll 8
    for (int j = 0; j < order; ++j) {
      sums[j].low += w[t * order + j] * x.low;
      sums[j].high += w[t * order + j] * x.high;
    }
  });
  for (int j = 0; j < order; ++j) store_pair(ends + j * lanes, sums[j]);
}

// From what each lane's segment leaves at rest to the state with which it begins; `state` moves past all of them.
template <int order>
void scan_segments(const Extended* power, Extended* state, double* entry) {
  Extended now[order];
  for (int i = 0; i < order; ++i) now[i] = state[i];
  for (int lane = 0; lane < lanes; ++lane) {
    Extended after[order];
#pragma GCC unroll 8
    for (int i = 0; i < order; ++i) {
      ExtendedSum total(entry[i * lanes + lane]);
#pragma GCC unroll 8
      for (int j = 0; j < order; ++j) total.add_product(power[i * order + j], now[j]);
      after[i] = total.value();
    }
    for (int i = 0; i < order; ++i) {
      entry[i * lanes + lane] = now[i].high + now[i].low;
      now[i] = after[i];
    }
  }
  for (int i = 0; i < order; ++i) state[i] = now[i];
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
