// The kernels are compiled once for each instruction set; the best one that the machine has is chosen when the library
// loads. The environment variable TORCH_IIR_ISA names another. Where it names none that this machine can run, the best
// one is used, a line on stderr says so, and isa_error() returns that line (the Python packages raise it as
// ImportError).
#pragma once

#include <span>

#include "torch_iir/export.h"

namespace torch_iir {

struct InstructionSet {
  const char* name;  // "baseline", "avx2", "avx512"; "neon"
  bool supported;    // by this machine and its operating system
};

// Those compiled into the library, from the most portable to the fastest.
TORCH_IIR_API std::span<const InstructionSet> instruction_sets() noexcept;

// The one in use.
TORCH_IIR_API const char* isa() noexcept;

// Uses another one from the next call on. False, and nothing changes, if it is unknown or this machine lacks it.
TORCH_IIR_API bool set_isa(const char* name) noexcept;

// What is wrong with TORCH_IIR_ISA, or null.
TORCH_IIR_API const char* isa_error() noexcept;

// The compiler that built the library, with its version.
TORCH_IIR_API const char* compiler() noexcept;

}  // namespace torch_iir
