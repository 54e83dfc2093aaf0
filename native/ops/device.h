// Where the operators of this library run. Each source of an operator is compiled for the CPU, and, where
// TORCH_IIR_DEVICE_CUDA is defined, once more for CUDA. What differs has the same name in both:
//
//   kernels                    the namespace of the kernels and of their parameters
//   OnDevice                   that the arguments are on one device; runs a kernel there
//   View, Fresh                arguments and outputs in the tensors' own memory
//   As, Into                   arguments and outputs of which the kernel sees one type
//   SmallIn, SmallOut          coefficients and states: as As and Into for kernels that convert nothing themselves
//   empty…, fill_zero          fresh outputs
#pragma once

#if defined(TORCH_IIR_DEVICE_CUDA)
#include "device_cuda.h"
#else
#include "device_cpu.h"
#endif
