// Every operator: its schema and its CPU implementation. The CUDA ones are registered in native/cuda/registration.cpp,
// what concerns Python (fake, autograd, vmap) in torch_iir/ops.
#include <torch/csrc/stable/library.h>

#include <string>

#include "fft.h"
#include "fftconvolve.h"
#include "freqz.h"
#include "large_outputs.h"
#include "lfilter.h"
#include "lfilter_fsm.h"
#include "lfilter_tv.h"
#include "nnls.h"
#include "sosfilt.h"
#include "tensor.h"
#include "transition.h"

STABLE_TORCH_LIBRARY(torch_iir, library) {
  for (const char* name : {"fft", "ifft", "rfft", "irfft"}) {
    library.def((std::string(name) + "(Tensor input, SymInt n, int norm) -> Tensor").c_str());
    library.def((std::string(name) + "_adjoint(Tensor input, SymInt n, SymInt length, int norm) -> Tensor").c_str());
  }
  library.def(
      "fftconvolve(Tensor in1, Tensor in2, SymInt start, SymInt size, bool reverse=False, int summed=0, SymInt n_fft=0)"
      " -> Tensor");
  library.def("freqz(Tensor b, Tensor a, Tensor w, bool wide) -> Tensor");
  library.def(
      "freqz_backward(Tensor g, Tensor b, Tensor a, Tensor w, int output_mask) -> (Tensor gb, Tensor ga, Tensor gw)");
  library.def("lfilter(Tensor x, Tensor b, Tensor a, Tensor? zi=None) -> (Tensor y, Tensor zf)");
  library.def(
      "lfilter_backward(Tensor? gy, Tensor? gzf, Tensor x, Tensor b, Tensor a, Tensor? zi, Tensor y, int output_mask)"
      " -> (Tensor gx, Tensor gb, Tensor ga, Tensor gzi)");
  library.def("lfilter_fsm(Tensor x, Tensor b, Tensor a, SymInt n_fft=0) -> Tensor");
  library.def(
      "lfilter_fsm_backward(Tensor gy, Tensor x, Tensor b, Tensor a, SymInt n_fft, int output_mask)"
      " -> (Tensor gx, Tensor gb, Tensor ga)");
  library.def(
      "lfilter_tv(Tensor x, Tensor? b, Tensor a, Tensor? zx=None, Tensor? zi=None, int b_first=0, int a_first=1, "
      "SymInt period=1) -> (Tensor y, Tensor zf)");
  library.def(
      "lfilter_tv_backward(Tensor? gy, Tensor? gzf, Tensor x, Tensor? b, Tensor a, Tensor? zx, Tensor? zi, Tensor y, "
      "int b_first, int a_first, SymInt period, int output_mask)"
      " -> (Tensor gx, Tensor gb, Tensor ga, Tensor gzx, Tensor gzi)");
  library.def(
      "nnls(Tensor b, Tensor a, Tensor mu, Tensor? prior, int solver, float tolerance, int max_iterations)"
      " -> (Tensor x, Tensor dual, Tensor outcome)");
  library.def(
      "nnls_derivative(Tensor? g, Tensor? h, Tensor w, Tensor a, Tensor mu, bool support, int solver, bool needs_p)"
      " -> (Tensor u, Tensor p)");
  library.def("sosfilt(Tensor x, Tensor sos, Tensor? zi=None) -> (Tensor y, Tensor zf)");
  library.def(
      "sosfilt_backward(Tensor? gy, Tensor? gzf, Tensor x, Tensor sos, Tensor? zi, int output_mask)"
      " -> (Tensor gx, Tensor gsos, Tensor gzi)");
  library.def("_empty_cache() -> int");
  library.def("_force_algorithm(int algorithm) -> int");
  library.def("_matrix_power(Tensor matrix, SymInt n) -> (Tensor power, Tensor rest)");
  library.def("_chained_states(Tensor power, Tensor? rest, Tensor inputs, Tensor first) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(torch_iir, CPU, library) {
  library.impl("fftconvolve", TORCH_BOX(&torch_iir::ops::fftconvolve));
  library.impl("freqz", TORCH_BOX(&torch_iir::ops::freqz));
  library.impl("freqz_backward", TORCH_BOX(&torch_iir::ops::freqz_backward));
  library.impl("lfilter", TORCH_BOX(&torch_iir::ops::lfilter));
  library.impl("lfilter_backward", TORCH_BOX(&torch_iir::ops::lfilter_backward));
  library.impl("lfilter_fsm", TORCH_BOX(&torch_iir::ops::lfilter_fsm));
  library.impl("lfilter_fsm_backward", TORCH_BOX(&torch_iir::ops::lfilter_fsm_backward));
  library.impl("lfilter_tv", TORCH_BOX(&torch_iir::ops::lfilter_tv));
  library.impl("lfilter_tv_backward", TORCH_BOX(&torch_iir::ops::lfilter_tv_backward));
  library.impl("nnls", TORCH_BOX(&torch_iir::ops::nnls));
  library.impl("nnls_derivative", TORCH_BOX(&torch_iir::ops::nnls_derivative));
  library.impl("sosfilt", TORCH_BOX(&torch_iir::ops::sosfilt));
  library.impl("sosfilt_backward", TORCH_BOX(&torch_iir::ops::sosfilt_backward));
  library.impl("_matrix_power", TORCH_BOX(&torch_iir::ops::matrix_power));
  library.impl("_chained_states", TORCH_BOX(&torch_iir::ops::chained_states));
}

STABLE_TORCH_LIBRARY_IMPL(torch_iir, CompositeExplicitAutograd, library) {
  library.impl("fft", TORCH_BOX(&torch_iir::ops::fft));
  library.impl("ifft", TORCH_BOX(&torch_iir::ops::ifft));
  library.impl("rfft", TORCH_BOX(&torch_iir::ops::rfft));
  library.impl("irfft", TORCH_BOX(&torch_iir::ops::irfft));
  library.impl("fft_adjoint", TORCH_BOX(&torch_iir::ops::fft_adjoint));
  library.impl("ifft_adjoint", TORCH_BOX(&torch_iir::ops::ifft_adjoint));
  library.impl("rfft_adjoint", TORCH_BOX(&torch_iir::ops::rfft_adjoint));
  library.impl("irfft_adjoint", TORCH_BOX(&torch_iir::ops::irfft_adjoint));
  library.impl("_empty_cache", TORCH_BOX(&torch_iir::ops::empty_cache));
  library.impl("_force_algorithm", TORCH_BOX(&torch_iir::ops::force_algorithm));
}
