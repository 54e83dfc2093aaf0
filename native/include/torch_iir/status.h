// How a call went. Functions of torch_iir throw nothing.
#pragma once

#include "torch_iir/export.h"

namespace torch_iir {

enum class [[nodiscard]] Status : int {
  ok = 0,
  zero_a0,        // some filter's a[0] is 0: nothing was computed
  out_of_memory,  // memory could not be allocated
  unsupported,    // the algorithm or solver that was asked for cannot run this problem
  device_failed,  // CUDA refused a launch
  // of plans and views alone
  not_made,      // the plan is empty: make() was not called, or failed
  wrong_shape,   // a view has other sizes than the plan, or sizes that do not broadcast
  no_data,       // a view that is not empty has no memory
  out_of_range,  // a number has no sense: a size below 0, a rate that is not positive
};

// A sentence for it, in English.
[[nodiscard]] TORCH_IIR_API const char* message(Status) noexcept;

}  // namespace torch_iir
