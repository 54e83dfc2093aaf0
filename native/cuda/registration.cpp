// The operators on CUDA. Their schemas are in native/ops/registration.cpp, their sources in native/ops: the same as for
// the CPU.
//
// With TORCH_IIR_EMULATED, for tests, they take the place of those for the CPU, in the process that loads this.
#include "fftconvolve.h"
#include "freqz.h"
#include "lfilter.h"
#include "lfilter_fsm.h"
#include "lfilter_tv.h"
#include "nnls.h"
#include "sosfilt.h"

namespace ops = torch_iir::ops;

#if defined(TORCH_IIR_EMULATED)
STABLE_TORCH_LIBRARY_IMPL(torch_iir, CPU, library) {
#else
STABLE_TORCH_LIBRARY_IMPL(torch_iir, CUDA, library) {
#endif
  library.impl("fftconvolve", TORCH_BOX(&ops::fftconvolve));
  library.impl("freqz", TORCH_BOX(&ops::freqz));
  library.impl("freqz_backward", TORCH_BOX(&ops::freqz_backward));
  library.impl("lfilter", TORCH_BOX(&ops::lfilter));
  library.impl("lfilter_backward", TORCH_BOX(&ops::lfilter_backward));
  library.impl("lfilter_fsm", TORCH_BOX(&ops::lfilter_fsm));
  library.impl("lfilter_fsm_backward", TORCH_BOX(&ops::lfilter_fsm_backward));
  library.impl("lfilter_tv", TORCH_BOX(&ops::lfilter_tv));
  library.impl("lfilter_tv_backward", TORCH_BOX(&ops::lfilter_tv_backward));
  library.impl("nnls", TORCH_BOX(&ops::nnls));
  library.impl("nnls_derivative", TORCH_BOX(&ops::nnls_derivative));
  library.impl("sosfilt", TORCH_BOX(&ops::sosfilt));
  library.impl("sosfilt_backward", TORCH_BOX(&ops::sosfilt_backward));
}
