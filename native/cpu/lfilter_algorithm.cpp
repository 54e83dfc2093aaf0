// Which of lfilter's algorithms runs: one rule for all instruction sets. The README's table is measured with it.
#include "torch_iir/lfilter.h"

namespace torch_iir {

Algorithm lfilter_algorithm(std::int64_t rows, std::int64_t samples, int order, bool complex) noexcept {
  constexpr int most_in_registers = 6;  // segments: up to here the state lives in registers
  constexpr int most_in_cache = 1024;   // rows, blocks: up to here histories and tables stay in the caches
  if (complex || order == 0 || order > most_in_cache || samples < 96) return Algorithm::direct;
  if (rows >= 12) return Algorithm::rows;
  if (order <= most_in_registers) return samples >= 256 ? Algorithm::segments : Algorithm::direct;
  return Algorithm::blocks;
}

}  // namespace torch_iir
