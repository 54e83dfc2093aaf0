#include "torch_iir/status.h"

namespace torch_iir {

const char* message(Status status) noexcept {
  switch (status) {
    case Status::ok: return "all went well";
    case Status::zero_a0: return "a[0] of a filter is zero: the filter is divided by it";
    case Status::out_of_memory: return "there is not enough memory";
    case Status::device_failed: return "the CUDA device refused a launch";
    case Status::unsupported: return "the algorithm or solver that was asked for cannot run this problem";
    case Status::not_made: return "the plan is empty: make() was not called, or failed";
    case Status::wrong_shape: return "the sizes of a view do not fit the plan, or do not broadcast";
    case Status::no_data: return "a view that is not empty has no memory";
    case Status::out_of_range: return "a number is out of its range";
  }
  return "not a status of torch_iir";
}

}  // namespace torch_iir
