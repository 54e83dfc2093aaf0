// The algorithm that is forced, once for the libraries of all devices.
#include <atomic>
#include <iterator>

#include "tensor.h"

namespace torch_iir::ops {
namespace {

std::atomic<int> forced{static_cast<int>(Algorithm::automatic)};

}  // namespace

Algorithm algorithm() { return static_cast<Algorithm>(forced.load(std::memory_order_relaxed)); }

std::int64_t force_algorithm(std::int64_t algorithm) {
  STD_TORCH_CHECK(0 <= algorithm && algorithm < static_cast<std::int64_t>(std::size(algorithm_names)),
                  "algorithm must be 0 to ", std::size(algorithm_names) - 1, ", got ", algorithm);
  return forced.exchange(static_cast<int>(algorithm));
}

}  // namespace torch_iir::ops
