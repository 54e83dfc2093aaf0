// Which algorithm runs: one rule for all instruction sets. The README's tables are measured with it.
#include "stream_plan.h"
#include "torch_iir/lfilter_tv.h"

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
  if (rows >= 12) return Algorithm::rows;
  // Segments cost by the section, and each has tables to build; a wavefront costs the same for eight sections as for
  // one.
  return samples >= (sections <= 4 ? 2048 : 4096) * std::int64_t{sections} ? Algorithm::segments : Algorithm::wavefront;
}

// Plans have paid for tables and transposed coefficients before: what remains is what a block costs. A vector of rows
// costs the same, full or not, and competes with that many runs of one row, whose fixed part is the larger the shorter
// the block.
Algorithm lfilter_plan_algorithm(std::int64_t rows, std::int64_t block, int order) noexcept {
  constexpr int most_in_registers = 6, most_in_rows = 16, most_in_cache = 1024;
  constexpr std::int64_t short_block = 192;
  if (order == 0 || order > most_in_cache) return Algorithm::direct;
  const std::int64_t worth_blocks = std::int64_t{8} * order > 96 ? std::int64_t{8} * order : 96;
  if (order <= most_in_registers ? rows >= (block < short_block ? 4 : 8)
                                 : rows >= 8 && (order <= most_in_rows || (rows >= 12 && block >= worth_blocks)))
    return Algorithm::rows;
  if (order <= most_in_registers && block >= (order <= 2 ? 128 : 48 * order * order)) return Algorithm::segments;
  return order <= 2 || block < worth_blocks ? Algorithm::direct : Algorithm::blocks;
}

Algorithm sosfilt_plan_algorithm(std::int64_t rows, std::int64_t block, int sections) noexcept {
  constexpr std::int64_t short_block = 192;
  if (sections == 1) {
    const Algorithm one = lfilter_plan_algorithm(rows, block, 2);
    return one == Algorithm::direct && block >= 32 ? Algorithm::wavefront : one;
  }
  if (rows >= (block < short_block ? 4 : sections <= 4 ? 8 : 12)) return Algorithm::rows;
  return block < 8 ? Algorithm::direct : Algorithm::wavefront;
}

Algorithm lfilter_tv_algorithm(std::int64_t rows, std::int64_t samples, int order, bool complex) noexcept {
  constexpr int most_in_segments = 2, most_in_lanes = 16, most_in_registers = 6;
  if (complex || order == 0) return Algorithm::direct;
  if (rows >= (order <= most_in_registers ? 8 : 12) && samples >= 32 && order <= most_in_lanes) return Algorithm::rows;
  if (order <= most_in_segments && samples >= 256) return Algorithm::segments;
  return order <= most_in_registers || samples < 32 ? Algorithm::direct : Algorithm::blocks;
}

}  // namespace torch_iir
