// What a call of a kernel has beside its parameters: threads, and, for plans, memory that lasts from call to call.
//
// A call does three things for each group of rows: it brings coefficients and states into the form that its loops read,
// runs, and writes the states back. All of it in one go, or, for a plan, one step a call; what lies in Scratch is
// still there at the next step. A plan's first call only measures how much that is.
#pragma once

#include <cstddef>

#include "torch_iir/batch.h"

namespace torch_iir {

enum class Step {
  everything,
  measure,  // says in *needs what it takes, and does none of them
  load,     // coefficients and zi
  run,      // x to y
  store,    // zf
};

struct Needs {
  std::size_t bytes = 0;    // of the group that needs most
  std::int64_t groups = 0;  // of rows
};

struct Context : ParallelFor {
  Context(const ParallelFor& parallel_for) : ParallelFor(parallel_for) {}  // implicit: a call that is not a plan's

  Step step = Step::everything;
  char* memory = nullptr;  // `bytes` for each group of rows; aligned as Scratch is
  std::size_t bytes = 0;
  Needs* needs = nullptr;

  [[gnu::always_inline]] bool loads() const { return step == Step::everything || step == Step::load; }
  [[gnu::always_inline]] bool runs() const { return step == Step::everything || step == Step::run; }
  [[gnu::always_inline]] bool stores() const { return step == Step::everything || step == Step::store; }
};

}  // namespace torch_iir
