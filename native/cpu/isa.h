// Which kernels there are, and for which instruction sets they are compiled. dispatch.cpp makes the public functions of
// these two lists; the kernels' source files are listed in CMakeLists.txt.
#pragma once

#include "context.h"
#include "torch_iir/batch.h"
#include "torch_iir/freqz.h"
#include "torch_iir/lfilter.h"
#include "torch_iir/lfilter_tv.h"
#include "torch_iir/nnls.h"
#include "torch_iir/sosfilt.h"
#include "torch_iir/spectra.h"

// F(isa, …) for each instruction set, from the most portable to the fastest, as torch_iir_kernels.cmake has them.
#if defined(TORCH_IIR_ONLY_ISA)  // under sanitizers
#define TORCH_IIR_CALL(F, isa, ...) F(isa, __VA_ARGS__)
#define TORCH_IIR_EACH_ISA(F, ...) TORCH_IIR_CALL(F, TORCH_IIR_ONLY_ISA, __VA_ARGS__)
#elif defined(__x86_64__)
#define TORCH_IIR_EACH_ISA(F, ...) F(baseline, __VA_ARGS__) F(avx2, __VA_ARGS__) F(avx512, __VA_ARGS__)
#elif defined(__aarch64__)
#define TORCH_IIR_EACH_ISA(F, ...) F(neon, __VA_ARGS__)
#else
#define TORCH_IIR_EACH_ISA(F, ...) F(baseline, __VA_ARGS__)
#endif

// K(function, what chooses between methods, if anything does, parameters) for each kernel.
#define TORCH_IIR_EACH_KERNEL(K)                                                                        \
  K(lfilter, Algorithm, LFilter<float>)                                                                 \
  K(lfilter, Algorithm, LFilter<double>)                                                                \
  K(lfilter, Algorithm, LFilter<Half>)                                                                  \
  K(lfilter, Algorithm, LFilter<BFloat16>)                                                              \
  K(lfilter, Algorithm, LFilter<std::complex<double>, std::complex<double>>)                            \
  K(lfilter_backward, Algorithm, LFilterBackward<float>)                                                \
  K(lfilter_backward, Algorithm, LFilterBackward<double>)                                               \
  K(lfilter_backward, Algorithm, LFilterBackward<Half>)                                                 \
  K(lfilter_backward, Algorithm, LFilterBackward<BFloat16>)                                             \
  K(lfilter_backward, Algorithm, LFilterBackward<std::complex<double>, std::complex<double>>)           \
  K(sosfilt, Algorithm, SOSFilt<float>)                                                                 \
  K(sosfilt, Algorithm, SOSFilt<double>)                                                                \
  K(sosfilt, Algorithm, SOSFilt<Half>)                                                                  \
  K(sosfilt, Algorithm, SOSFilt<BFloat16>)                                                              \
  K(sosfilt, Algorithm, SOSFilt<std::complex<double>, std::complex<double>>)                            \
  K(sosfilt_backward, Algorithm, SOSFiltBackward<float>)                                                \
  K(sosfilt_backward, Algorithm, SOSFiltBackward<double>)                                               \
  K(sosfilt_backward, Algorithm, SOSFiltBackward<Half>)                                                 \
  K(sosfilt_backward, Algorithm, SOSFiltBackward<BFloat16>)                                             \
  K(sosfilt_backward, Algorithm, SOSFiltBackward<std::complex<double>, std::complex<double>>)           \
  K(lfilter_tv, Algorithm, LFilterTV<float, float>)                                                     \
  K(lfilter_tv, Algorithm, LFilterTV<float, double>)                                                    \
  K(lfilter_tv, Algorithm, LFilterTV<double, double>)                                                   \
  K(lfilter_tv, Algorithm, LFilterTV<Half, Half>)                                                       \
  K(lfilter_tv, Algorithm, LFilterTV<Half, double>)                                                     \
  K(lfilter_tv, Algorithm, LFilterTV<BFloat16, BFloat16>)                                               \
  K(lfilter_tv, Algorithm, LFilterTV<BFloat16, double>)                                                 \
  K(lfilter_tv, Algorithm, LFilterTV<std::complex<double>, std::complex<double>, std::complex<double>>) \
  K(lfilter_tv_backward, Algorithm, LFilterTVBackward<float, float>)                                    \
  K(lfilter_tv_backward, Algorithm, LFilterTVBackward<float, double>)                                   \
  K(lfilter_tv_backward, Algorithm, LFilterTVBackward<double, double>)                                  \
  K(lfilter_tv_backward, Algorithm, LFilterTVBackward<Half, Half>)                                      \
  K(lfilter_tv_backward, Algorithm, LFilterTVBackward<Half, double>)                                    \
  K(lfilter_tv_backward, Algorithm, LFilterTVBackward<BFloat16, BFloat16>)                              \
  K(lfilter_tv_backward, Algorithm, LFilterTVBackward<BFloat16, double>)                                \
  K(lfilter_tv_backward, Algorithm,                                                                     \
    LFilterTVBackward<std::complex<double>, std::complex<double>, std::complex<double>>)                \
  K(nnls, NNLSSolver, NNLS<float>)                                                                      \
  K(nnls, NNLSSolver, NNLS<double>)                                                                     \
  K(nnls, NNLSSolver, NNLS<Half>)                                                                       \
  K(nnls, NNLSSolver, NNLS<BFloat16>)                                                                   \
  K(nnls_derivative, NNLSSolver, NNLSDerivative<float>)                                                 \
  K(nnls_derivative, NNLSSolver, NNLSDerivative<double>)                                                \
  K(nnls_derivative, NNLSSolver, NNLSDerivative<Half>)                                                  \
  K(nnls_derivative, NNLSSolver, NNLSDerivative<BFloat16>)                                              \
  K(freqz, , Freqz<float>)                                                                              \
  K(freqz, , Freqz<double>)                                                                             \
  K(freqz, , Freqz<float, std::complex<double>>)                                                        \
  K(freqz, , Freqz<double, std::complex<double>>)                                                       \
  K(freqz_backward, , FreqzBackward<float>)                                                             \
  K(freqz_backward, , FreqzBackward<double>)                                                            \
  K(freqz_backward, , FreqzBackward<float, std::complex<double>>)                                       \
  K(freqz_backward, , FreqzBackward<double, std::complex<double>>)                                      \
  K(spectral_product, , SpectralProduct<float>)                                                         \
  K(spectral_product, , SpectralProduct<double>)                                                        \
  K(spectral_product, , SpectralProduct<float, double>)

namespace torch_iir {

// The index, among those of TORCH_IIR_EACH_ISA, of the instruction set in use.
int current_isa() noexcept;

// Each kernel of the instruction set with that index: for plans, which stay with theirs. Defined in dispatch.cpp.
#define TORCH_IIR_AND(...) __VA_OPT__(__VA_ARGS__, )  // a choice that there may not be, and a comma
#define TORCH_IIR_OF_ISA(name, choice, ...) \
  Status name(int isa, const __VA_ARGS__&, TORCH_IIR_AND(choice) const Context&) noexcept;
TORCH_IIR_EACH_KERNEL(TORCH_IIR_OF_ISA)
#undef TORCH_IIR_OF_ISA

}  // namespace torch_iir
