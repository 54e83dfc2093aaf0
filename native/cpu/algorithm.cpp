// Which algorithm runs: one rule for all instruction sets. The README's tables are measured with it.
#include "torch_iir/lfilter.h"
#include "torch_iir/lfilter_tv.h"
#include "torch_iir/sosfilt.h"

namespace torch_iir {

Algorithm lfilter_algorithm(std::int64_t rows, std::int64_t samples, int order, bool complex) noexcept {
  constexpr int most_in_registers = 6;  // segments: up to here the state lives in registers
  constexpr int most_in_cache = 1024;   // rows, blocks: up to here histories and tables stay in the caches
  if (complex || order == 0 || order > most_in_cache) return Algorithm::direct;
  if (rows >= 12 && samples >= 32) return Algorithm::rows;
  if (samples < 96) return Algorithm::direct;
  // The powers of the transition matrix are to be earned back: order³ multiplications in extended precision each.
  const std::int64_t worth_segments = order <= 2 ? 256 : std::int64_t{128} * order * order * order;
  if (order <= most_in_registers && samples >= worth_segments) return Algorithm::segments;
  return order <= 2 ? Algorithm::direct : Algorithm::blocks;
}

Algorithm sosfilt_algorithm(std::int64_t rows, std::int64_t samples, int sections, bool complex) noexcept {
  if (sections == 1) return lfilter_algorithm(rows, samples, 2, complex);  // direct, rows or segments
  if (complex || samples < 32) return Algorithm::direct;
  return rows >= 12 ? Algorithm::rows : Algorithm::wavefront;
}

Algorithm lfilter_tv_algorithm(std::int64_t rows, std::int64_t samples, int order, bool complex) noexcept {
  constexpr int most_in_segments = 2, most_in_lanes = 16, most_in_registers = 6;
  if (complex || order == 0) return Algorithm::direct;
  if (rows >= (order <= most_in_registers ? 8 : 12) && samples >= 32 && order <= most_in_lanes) return Algorithm::rows;
  if (order <= most_in_segments && samples >= 256) return Algorithm::segments;
  return order <= most_in_registers || samples < 32 ? Algorithm::direct : Algorithm::blocks;
}

}  // namespace torch_iir
