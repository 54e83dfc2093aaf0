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

// Samples in a segment, where there are enough. The longer, the rarer is the scan; but the tiles that an operation has
// at the same time are to stay in the first cache. Not powers of two: the rows would fall on few sets of it.
inline constexpr int segment_length = 112;          // of lfilter and its way back
inline constexpr int cascade_segment_length = 160;  // of sosfilt, which has a single tile
// From a segment to the next tile's.
constexpr int next_tile(int length) { return lanes * length; }

// How long segments of so many samples are; 0: too few samples to cut.
inline int segment_in(std::int64_t samples, int length = segment_length) {
  return samples >= lanes * length ? length : samples >= lanes * 8 ? static_cast<int>(samples / lanes) : 0;
}

// high + low, with low the part that high has no room for.
struct Extended {
  double high = 0, low = 0;
};

// A sum of products in extended precision, each of T, a number or several side by side. From `high` to `high` and from
// `low` to `low` there is one multiply-add for each product; what rounding takes off is found beside these chains.
template <class T>
class ExtendedSum {
 public:
  TORCH_IIR_INLINE explicit ExtendedSum(T start) : high_(start), low_(), lost_() {}
  TORCH_IIR_INLINE void add_product(T p, T p_low, T q, T q_low) {
    const T sum = multiply_add(p, q, high_);
    const T product = rounded_product(p, q), error = multiply_add(p, q, -product);
    const T plain = high_ + product, part = plain - high_;  // Knuth's two-sum
    lost_ += (plain - sum) + ((high_ - (plain - part)) + (product - part) + error + p_low * q);
    low_ += p * q_low;
    high_ = sum;
  }
  TORCH_IIR_INLINE T high() const { return high_; }
  TORCH_IIR_INLINE T low() const { return low_ + lost_; }

 private:
  T high_, low_, lost_;
};

template <int order>
struct SegmentTables {
  static constexpr int n = order > 0 ? order : 1;
  using Matrix = Extended[n * n];

  int length;                                  // of the longest segment
  double weights[cascade_segment_length * n];  // [t * order + j]: what sample t adds to state j at that segment's end
  double step[n * n];                          // state before → state after one sample without input
  int powered;                                 // the last segments' length
  Matrix latest;                               // step^powered

  // `input` is the state that a unit sample leaves. False if a power overflows: the tables are then of no use.
  bool build(int longest, const double (&one_step)[n * n], const double (&input)[n]) {
    length = longest;
    std::memcpy(step, one_step, sizeof(step));
    double w[n];
    for (int i = 0; i < order; ++i) w[i] = input[i];
    for (int t = length - 1; t >= 0; --t) {
      double next[n] = {};
#pragma GCC unroll 8
      for (int i = 0; i < order; ++i) {
        weights[t * order + i] = w[i];
#pragma GCC unroll 8
        for (int j = 0; j < order; ++j) next[i] += step[i * order + j] * w[j];
      }
#pragma GCC unroll 8
      for (int i = 0; i < order; ++i) w[i] = next[i];
    }
    power(length, latest);
    powered = length;
    double probe = 0;
    for (const Extended& element : latest) probe += element.high * 0 + element.low * 0;
    return probe == 0 && finite(weights, length * order);
  }

  // step^count: all segments but the last have the same length.
  const Extended* power_of(int count) {
    if (powered != count) power(count, latest);
    powered = count;
    return latest;
  }

 private:
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

  static void multiply(Matrix& p, const Matrix& q) {  // p ← p q; p may be q
    Matrix product;
    for (int i = 0; i < order; ++i) {
      for (int j = 0; j < order; ++j) {
        ExtendedSum<double> total(0);
        for (int k = 0; k < order; ++k) {
          const Extended left = p[i * order + k], right = q[k * order + j];
          total.add_product(left.high, left.low, right.high, right.low);
        }
        const double high = total.high() + total.low();
        product[i * order + j] = {high, total.low() - (high - total.high())};  // |low| ≤ half an ulp of high
      }
    }
    std::memcpy(&p, &product, sizeof(p));
  }
};

// The states that segments of `count` samples leave in a filter at rest, from x(0), x(1), …
template <int order>
class SegmentEnds {
 public:
  TORCH_IIR_INLINE SegmentEnds(const SegmentTables<order>& tables, int count)
      : weights_(tables.weights + (tables.length - count) * order) {}
  TORCH_IIR_INLINE void add(int t, Pair x) {
#pragma GCC unroll 8
    for (int j = 0; j < order; ++j) {
      sums_[j].low += weights_[t * order + j] * x.low;
      sums_[j].high += weights_[t * order + j] * x.high;
    }
  }
  TORCH_IIR_INLINE void finish(double* ends) const {
    for (int j = 0; j < order; ++j) store_pair(ends + j * lanes, sums_[j]);
  }

 private:
  const double* weights_;
  Pair sums_[order] = {};
};

// Loads a segment of `count` samples into each lane; ends[j][lane] = the state that it leaves in a filter at rest.
template <bool reversed, int length, int order, class T, class Sample>
void load_segments(T* tile, const Sample* const (&rows)[lanes], std::int64_t step, int count,
                   const SegmentTables<order>& tables, double* ends) {
  SegmentEnds<order> sums(tables, count);
  load_tile<reversed, reversed ? -next_tile(length) : next_tile(length)>(
      tile, rows, step, count, [&](int t) TORCH_IIR_INLINE_LAMBDA { sums.add(t, load_pair(tile + t * lanes)); });
  sums.finish(ends);
}

// From what each lane's segment leaves at rest to the state with which it begins; `state` moves past all of them. The
// states are computed side by side.
template <int order>
void scan_segments(const Extended* power, Extended* state, double* entry) {
  constexpr int n = order <= 2 || width == 2 ? 2 : order <= 4 ? 4 : width, vectors = (order + n - 1) / n;
  using Some = Vector<double, n>;
  alignas(64) double high[order][vectors * n] = {}, low[order][vectors * n] = {};  // the columns of `power`
  alignas(64) double now[vectors * n] = {}, rest[vectors * n] = {}, by_lane[lanes][vectors * n] = {};
  for (int i = 0; i < order; ++i) {
    for (int j = 0; j < order; ++j) high[j][i] = power[i * order + j].high, low[j][i] = power[i * order + j].low;
    now[i] = state[i].high, rest[i] = state[i].low;
    for (int lane = 0; lane < lanes; ++lane) by_lane[lane][i] = entry[i * lanes + lane];
  }
  Some head[vectors], tail[vectors];
  for (int v = 0; v < vectors; ++v) head[v] = load<Some>(now + v * n), tail[v] = load<Some>(rest + v * n);
  for (int lane = 0; lane < lanes; ++lane) {
    Some next[vectors], left[vectors];
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) {
      ExtendedSum<Some> total(load<Some>(by_lane[lane] + v * n));
#pragma GCC unroll 8
      for (int j = 0; j < order; ++j) {
        total.add_product(load<Some>(high[j] + v * n), load<Some>(low[j] + v * n), head[j / n][j % n] - Some{},
                          tail[j / n][j % n] - Some{});
      }
      next[v] = total.high(), left[v] = total.low();
    }
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) {
      store(by_lane[lane] + v * n, head[v] + tail[v]);
      head[v] = next[v], tail[v] = left[v];
    }
  }
  for (int v = 0; v < vectors; ++v) store(now + v * n, head[v]), store(rest + v * n, tail[v]);
  for (int i = 0; i < order; ++i) {
    for (int lane = 0; lane < lanes; ++lane) entry[i * lanes + lane] = by_lane[lane][i];
    state[i] = {now[i], rest[i]};
  }
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
