// Plans: filters that are made once and run block after block, in real time.
//
//   SOSFiltPlan<float> equaliser;                              // empty
//   if (Status s = equaliser.make(sos, {channels}); s != Status::ok) return fail(message(s));
//   …
//   status = equaliser.run(in, out);                           // on the audio thread, for every block
//
// make() allocates, brings the coefficients into the form that the kernels read, and chooses the algorithm and the
// instruction set, for good. All else that a plan does allocates and frees nothing, takes no lock, makes no system
// call, throws nothing, and takes a time that is bounded by the sizes (and, of InverseMelPlan, by max_iterations): it
// may be called on an audio thread. So may std::swap of two plans, by which one that another thread made comes into
// use. Being destroyed, or assigned to, frees. Where make() fails, the plan is empty.
//
// The state stays in the plan between two runs: a signal in pieces, of any lengths, is filtered as if at once. It may
// be read, written and cleared; a NaN stays in it until then. A block without samples changes nothing. What a plan
// refuses, a run, coefficients or a state, leaves everything as it was.
//
// Shapes      time last, leading dimensions broadcast, as in the operators. `channels` are the leading dimensions of
//             the input; those of the output are them and the coefficients' broadcast together: {32} channels and a sos
//             of [S, 6] are 32 signals through one cascade, {32, 1} and a b of [128, 3] are a bank, whose output is
//             32 × 128. A view has up to 8 dimensions, of outputs and of states, too
// Layout      any strides for what is read; outputs must not overlap themselves. Blocks may be views of interleaved
//             samples, or one pointer for each channel, as plug-ins get them
// In place    y may be x, the very same view or pointers, where each output has an input of its own; else they must
//             not overlap
// Precision   double inside, whatever Sample is: that of the one-shot functions, whose kernels these are. Subnormals
//             count as 0; the caller's floating-point mode is what it was
// Threads     a plan is used by one thread at a time; different plans by different threads. A run spreads its rows over
//             the threads of `parallel_for`, where that is given, and the bits are the same; that it may be called on
//             an audio thread is then up to `parallel_for`. Nothing but run() calls it
#pragma once

#include <cstdint>

#include "torch_iir/algorithm.h"
#include "torch_iir/batch.h"
#include "torch_iir/export.h"
#include "torch_iir/status.h"
#include "torch_iir/view.h"

namespace torch_iir {

struct PlanOptions {
  std::int64_t block = 64;                     // samples of a usual run, by which `automatic` chooses; others work, too
  Algorithm algorithm = Algorithm::automatic;  // one that cannot run the filter is Status::unsupported
  ParallelFor parallel_for = {};               // default: the calling thread alone
};

}  // namespace torch_iir
