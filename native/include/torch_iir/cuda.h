// The operations on a CUDA device: the same parameters as on the CPU, with pointers into the memory of the device, and
// a queue in place of the threads.
//
// Operands    coefficients and states may be of any type (AnyOperands): they are converted as they are read
// Order       everything is put into the queue, and has not happened yet when a function returns. None waits for the
//             device, so that all can be captured in a CUDA graph
// Bits        the same run to run on a device: no sum depends on which thread came first
// Zero a[0]   is not looked for, as that would wait for the device: the result is inf or nan
// Banks       nor is it known here whether newton can solve for a matrix: where it is asked for, or there is a prior,
//             and it cannot, the columns are nan and their outcomes Outcome::failed
// Rows        begin at a pointer and strides: `each` is for plans on the CPU
#pragma once

#include <complex>
#include <cstdint>

#include "torch_iir/algorithm.h"
#include "torch_iir/dtype.h"
#include "torch_iir/export.h"
#include "torch_iir/freqz.h"
#include "torch_iir/lfilter.h"
#include "torch_iir/lfilter_tv.h"
#include "torch_iir/nnls.h"
#include "torch_iir/sosfilt.h"

namespace torch_iir {

// Compute capabilities with machine code in the library, as "90" or "90;100".
TORCH_IIR_API const char* cuda_architectures() noexcept;

}  // namespace torch_iir

namespace torch_iir::cuda {

// Where work is put: a stream of the current device, and memory of that device for what kernels leave each other.
struct Queue {
  void* stream = nullptr;  // a cudaStream_t
  // So many bytes, aligned to 256, which nothing else may use until all that is in the stream when the function returns
  // has run; null if there are none. The caller frees them.
  void* (*allocate)(void* context, std::int64_t bytes) = nullptr;
  void* context = nullptr;
};

template <class Sample, class State = double>
using LFilter = torch_iir::LFilter<Sample, State, AnyOperands>;
template <class Sample, class State = double>
using LFilterBackward = torch_iir::LFilterBackward<Sample, State, AnyOperands>;
template <class Sample, class Coefficient = Sample, class State = double>
using LFilterTV = torch_iir::LFilterTV<Sample, Coefficient, State, AnyOperands>;
template <class Sample, class Coefficient = Sample, class State = double>
using LFilterTVBackward = torch_iir::LFilterTVBackward<Sample, Coefficient, State, AnyOperands>;
template <class Sample, class State = double>
using SOSFilt = torch_iir::SOSFilt<Sample, State, AnyOperands>;
template <class Sample, class State = double>
using SOSFiltBackward = torch_iir::SOSFiltBackward<Sample, State, AnyOperands>;
template <class Sample>
using NNLS = torch_iir::NNLS<Sample, AnyOperands>;
template <class Sample>
using NNLSDerivative = torch_iir::NNLSDerivative<Sample, AnyOperands>;
template <class Value, class Coefficient = double>
using Freqz = torch_iir::Freqz<Value, Coefficient, AnyOperands>;
template <class Value, class Coefficient = double>
using FreqzBackward = torch_iir::FreqzBackward<Value, Coefficient, AnyOperands>;

#define TORCH_IIR_CUDA_FILTER(Name, function)                                                                    \
  TORCH_IIR_API Status function(const Name<float>&, const Queue&, Algorithm = Algorithm::automatic) noexcept;    \
  TORCH_IIR_API Status function(const Name<double>&, const Queue&, Algorithm = Algorithm::automatic) noexcept;   \
  TORCH_IIR_API Status function(const Name<Half>&, const Queue&, Algorithm = Algorithm::automatic) noexcept;     \
  TORCH_IIR_API Status function(const Name<BFloat16>&, const Queue&, Algorithm = Algorithm::automatic) noexcept; \
  TORCH_IIR_API Status function(const Name<std::complex<double>, std::complex<double>>&, const Queue&,           \
                                Algorithm = Algorithm::automatic) noexcept;
TORCH_IIR_CUDA_FILTER(LFilter, lfilter)
TORCH_IIR_CUDA_FILTER(LFilterBackward, lfilter_backward)
TORCH_IIR_CUDA_FILTER(SOSFilt, sosfilt)
TORCH_IIR_CUDA_FILTER(SOSFiltBackward, sosfilt_backward)
#undef TORCH_IIR_CUDA_FILTER

#define TORCH_IIR_CUDA_LFILTER_TV(...)                                                          \
  TORCH_IIR_API Status lfilter_tv(const LFilterTV<__VA_ARGS__>&, const Queue&,                  \
                                  Algorithm = Algorithm::automatic) noexcept;                   \
  TORCH_IIR_API Status lfilter_tv_backward(const LFilterTVBackward<__VA_ARGS__>&, const Queue&, \
                                           Algorithm = Algorithm::automatic) noexcept;
TORCH_IIR_CUDA_LFILTER_TV(float)
TORCH_IIR_CUDA_LFILTER_TV(float, double)
TORCH_IIR_CUDA_LFILTER_TV(double)
TORCH_IIR_CUDA_LFILTER_TV(Half)
TORCH_IIR_CUDA_LFILTER_TV(Half, double)
TORCH_IIR_CUDA_LFILTER_TV(BFloat16)
TORCH_IIR_CUDA_LFILTER_TV(BFloat16, double)
TORCH_IIR_CUDA_LFILTER_TV(std::complex<double>, std::complex<double>, std::complex<double>)
#undef TORCH_IIR_CUDA_LFILTER_TV

#define TORCH_IIR_CUDA_NNLS(Sample)                                                                          \
  TORCH_IIR_API Status nnls(const NNLS<Sample>&, const Queue&, NNLSSolver = NNLSSolver::automatic) noexcept; \
  TORCH_IIR_API Status nnls_derivative(const NNLSDerivative<Sample>&, const Queue&,                          \
                                       NNLSSolver = NNLSSolver::automatic) noexcept;
TORCH_IIR_CUDA_NNLS(float)
TORCH_IIR_CUDA_NNLS(double)
TORCH_IIR_CUDA_NNLS(Half)
TORCH_IIR_CUDA_NNLS(BFloat16)
#undef TORCH_IIR_CUDA_NNLS

#define TORCH_IIR_CUDA_FREQZ(...)                                               \
  TORCH_IIR_API Status freqz(const Freqz<__VA_ARGS__>&, const Queue&) noexcept; \
  TORCH_IIR_API Status freqz_backward(const FreqzBackward<__VA_ARGS__>&, const Queue&) noexcept;
TORCH_IIR_CUDA_FREQZ(float)
TORCH_IIR_CUDA_FREQZ(double)
TORCH_IIR_CUDA_FREQZ(float, std::complex<double>)
TORCH_IIR_CUDA_FREQZ(double, std::complex<double>)
#undef TORCH_IIR_CUDA_FREQZ

}  // namespace torch_iir::cuda
