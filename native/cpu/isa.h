// Which kernels there are, and for which instruction sets they are compiled. dispatch.cpp makes the public functions of
// these two lists; the kernels' source files are listed in CMakeLists.txt.
#pragma once

#include "torch_iir/batch.h"
#include "torch_iir/lfilter.h"
#include "torch_iir/sosfilt.h"

// F(isa, …) for each instruction set, from the most portable to the fastest, as CMakeLists.txt compiles them.
#if defined(__x86_64__)
#define TORCH_IIR_EACH_ISA(F, ...) F(baseline, __VA_ARGS__) F(avx2, __VA_ARGS__) F(avx512, __VA_ARGS__)
#elif defined(__aarch64__)
#define TORCH_IIR_EACH_ISA(F, ...) F(neon, __VA_ARGS__)
#else
#define TORCH_IIR_EACH_ISA(F, ...) F(baseline, __VA_ARGS__)
#endif

// K(function, parameters) for each kernel.
#define TORCH_IIR_EACH_KERNEL(K)                                                   \
  K(lfilter, LFilter<float>)                                                       \
  K(lfilter, LFilter<double>)                                                      \
  K(lfilter, LFilter<Half>)                                                        \
  K(lfilter, LFilter<BFloat16>)                                                    \
  K(lfilter, LFilter<std::complex<double>, std::complex<double>>)                  \
  K(lfilter_backward, LFilterBackward<float>)                                      \
  K(lfilter_backward, LFilterBackward<double>)                                     \
  K(lfilter_backward, LFilterBackward<Half>)                                       \
  K(lfilter_backward, LFilterBackward<BFloat16>)                                   \
  K(lfilter_backward, LFilterBackward<std::complex<double>, std::complex<double>>) \
  K(sosfilt, SOSFilt<float>)                                                       \
  K(sosfilt, SOSFilt<double>)                                                      \
  K(sosfilt, SOSFilt<Half>)                                                        \
  K(sosfilt, SOSFilt<BFloat16>)                                                    \
  K(sosfilt, SOSFilt<std::complex<double>, std::complex<double>>)                  \
  K(sosfilt_backward, SOSFiltBackward<float>)                                      \
  K(sosfilt_backward, SOSFiltBackward<double>)                                     \
  K(sosfilt_backward, SOSFiltBackward<Half>)                                       \
  K(sosfilt_backward, SOSFiltBackward<BFloat16>)                                   \
  K(sosfilt_backward, SOSFiltBackward<std::complex<double>, std::complex<double>>)
