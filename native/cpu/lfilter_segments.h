// One row cut into segments, the segments in SIMD lanes: order ≤ register_order.
//
// The state after a segment is M z + d, with z the state before it, M the one-step matrix to the power of the segment's
// length and d the state that the segment's samples leave in a filter at rest. For a tile of `lanes` segments: every d by
// dot products with a table of weights (no chain from sample to sample), then a scan over the lanes for the entry states,
// then every segment by the direct form from its true entry state. All of it is in double: carries in float would be
// amplified without bound by poles near the unit circle.
//
// Cost: 3 order + 1 multiply-adds a sample, against the direct form's 2 order + 1, but `lanes` samples at a time.
#pragma once

#include "lfilter_tiles.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

inline constexpr int segment_length = 128;

template <int order>
struct SegmentTables {
  static constexpr int n = order > 0 ? order : 1;
  double weights[segment_length * n];  // weights[t * order + j]: what sample t adds to state j at the segment's end
  double step[n * n];                  // state before → state after one sample without input

  // `input` is the state that a unit sample leaves. False if a power overflows: the tables are then of no use.
  bool build(const double (&one_step)[n * n], const double (&input)[n]) {
    std::memcpy(step, one_step, sizeof(step));
    double* w = weights + (segment_length - 1) * order;
    for (int j = 0; j < order; ++j) w[j] = input[j];
    for (; w > weights; w -= order) {
      for (int i = 0; i < order; ++i) {
        double next = 0;
        for (int j = 0; j < order; ++j) next += step[i * order + j] * w[j];
        (w - order)[i] = next;
      }
    }
    double probe = 0, m[n * n];
    power(segment_length, m);
    for (int i = 0; i < order * order; ++i) probe += m[i] * 0;
    for (int i = 0; i < segment_length * order; ++i) probe += weights[i] * 0;
    return probe == 0;
  }

  // result = step^exponent
  void power(int exponent, double (&result)[n * n]) const {
    double base[n * n], product[n * n];
    std::memcpy(base, step, sizeof(base));
    for (int i = 0; i < order; ++i) {
      for (int j = 0; j < order; ++j) result[i * order + j] = i == j;
    }
    const auto multiply = [&](const double* p, const double* q, double* to) {
      for (int i = 0; i < order; ++i) {
        for (int j = 0; j < order; ++j) {
          double total = 0;
          for (int k = 0; k < order; ++k) total += p[i * order + k] * q[k * order + j];
          product[i * order + j] = total;
        }
      }
      std::memcpy(to, product, sizeof(product));
    };
    for (; exponent > 0; exponent >>= 1) {
      if (exponent & 1) multiply(result, base, result);
      multiply(base, base, base);
    }
  }
};

// entry[j][lane] = the state with which each lane's segment of `count` samples begins; `state` moves past all of them.
template <int order, class T>
void scan_segments(const T* tile, int count, const SegmentTables<order>& tables, const double* power, double* state, double* entry) {
  if constexpr (order > 0) {
    const double* w = tables.weights + (segment_length - count) * order;
    for (int first = 0; first < lanes; first += width) {
      Doubles even[order] = {}, odd[order] = {};
      int t = 0;
      for (; t + 2 <= count; t += 2) {
        const Doubles p = load_doubles(tile + t * lanes + first), q = load_doubles(tile + (t + 1) * lanes + first);
#pragma GCC unroll 8
        for (int j = 0; j < order; ++j) {
          even[j] += w[t * order + j] * p;
          odd[j] += w[(t + 1) * order + j] * q;
        }
      }
      for (; t < count; ++t) {
        const Doubles p = load_doubles(tile + t * lanes + first);
        for (int j = 0; j < order; ++j) even[j] += w[t * order + j] * p;
      }
      for (int j = 0; j < order; ++j) store_doubles(entry + j * lanes + first, even[j] + odd[j]);
    }
    for (int lane = 0; lane < lanes; ++lane) {
      double after[order];
      for (int i = 0; i < order; ++i) {
        after[i] = entry[i * lanes + lane];
        for (int j = 0; j < order; ++j) after[i] += power[i * order + j] * state[j];
      }
      for (int i = 0; i < order; ++i) {
        entry[i * lanes + lane] = state[i];
        state[i] = after[i];
      }
    }
  }
}

}  // namespace
}  // namespace torch_iir::TORCH_IIR_ISA
