// InverseMelPlan on NumPy arrays, and the bank of mel filters.
#include <cmath>
#include <cstdint>
#include <string>

#include "docs.h"
#include "module.h"
#include "plan.h"
#include "torch_iir/inverse_mel_plan.h"

namespace torch_iir::python {
namespace {

constexpr const char* tie_breaks[] = {"min_norm", "entropy"};
constexpr const char* mel_scales[] = {"htk", "slaney"};

class InverseMelOwner : public Owner<InverseMelPlan> {
 public:
  InverseMelOwner(const py::object& given, std::int64_t max_frames, const py::object& dtype,
                  const std::string& tie_break, std::optional<double> tolerance, int max_iterations, int threads)
      : Owner(dtype, threads), max_frames_(max_frames), tie_break_(one_of(tie_breaks, "tie_break", tie_break)) {
    if (tolerance && !(*tolerance > 0 && std::isfinite(*tolerance)))
      throw py::value_error("tolerance must be positive and finite, got " + std::string(py::str(py::cast(*tolerance))));
    const auto array = doubles("fb", given);
    const auto fb = to_read<double>("fb", array);
    const InverseMelOptions options{static_cast<TieBreak>(tie_break_), tolerance.value_or(0), max_iterations,
                                    parallel_for()};
    Meaning meaning;
    meaning.unsupported =
        "fb must be a bank of mel filters: finite, not negative, at most two mels at a frequency, and these neighbours";
    meaning.wrong_shape = "fb must have the shape (n_freqs, n_mels), got " + text(array);
    meaning.out_of_range = "max_frames and max_iterations must be at least 1, got " + std::to_string(max_frames) +
                           " and " + std::to_string(max_iterations);
    settle(use([&](auto& plan) { return without_gil([&] { return plan.make(fb, max_frames, options); }); }), meaning);
    n_freqs_ = fb.sizes[0];
    n_mels_ = fb.sizes[1];
  }

  py::array run(const py::object& given_mel, const py::object& given_out) {
    return use([&](auto& plan) {
      using Sample = sample_t<decltype(plan)>;
      const auto mel_array = samples<Sample>("mel", given_mel);
      if (mel_array.ndim() != 2 || mel_array.shape(0) != n_mels_ || mel_array.shape(1) > max_frames_)
        throw py::value_error("mel must have the shape " + text({n_mels_}, "frames") + " with at most " +
                              std::to_string(max_frames_) + " frames, got " + text(mel_array));
      const auto mel = to_read<Sample>("mel", mel_array);
      auto out = output<Sample>(given_out, {n_freqs_, mel.sizes[1]});
      if (!given_out.is_none()) check_overlap("mel", mel_array, out, InPlace::no);
      const auto spectrum = to_write<Sample>("out", out);
      const Status status = without_gil([&] { return plan.run(mel, spectrum); });
      if (status != Status::ok) raise(status, {});
      frames_ = mel.sizes[1];
      return out;
    });
  }

  py::array outcome() {
    return use([&](auto& plan) {
      py::array_t<std::int32_t> result(frames_);
      for (std::int64_t frame = 0; frame < frames_; ++frame)
        result.mutable_at(frame) = static_cast<std::int32_t>(plan.outcome(frame));
      return py::array(result);
    });
  }
  std::int64_t failed() {
    return use([](auto& plan) { return plan.failed(); });
  }

  std::int64_t n_freqs() const { return n_freqs_; }
  std::int64_t n_mels() const { return n_mels_; }
  std::int64_t max_frames() const { return max_frames_; }
  const char* tie_break() const { return tie_breaks[tie_break_]; }

  std::string repr() const {
    return "InverseMelPlan(n_freqs=" + std::to_string(n_freqs_) + ", n_mels=" + std::to_string(n_mels_) +
           ", max_frames=" + std::to_string(max_frames_) + ", dtype=" + std::string(py::str(dtype())) +
           ", tie_break='" + tie_break() + "', threads=" + std::to_string(threads()) + ')';
  }

 private:
  std::int64_t n_freqs_ = 0, n_mels_ = 0, max_frames_, frames_ = 0;  // frames of the last run
  int tie_break_;
};

std::int64_t whole_number(const char* name, const py::object& given, std::int64_t least) {
  if (PyIndex_Check(given.ptr()) == 0)
    throw py::type_error(std::string(name) + " must be an integer, got " + std::string(py::repr(given)));
  const auto number = given.cast<std::int64_t>();
  if (number < least)
    throw py::value_error(std::string(name) + " must be at least " + std::to_string(least) + ", got " +
                          std::to_string(number));
  return number;
}

// Numbers are objects until they are found right, for sentences that have them as the caller wrote them.
double real_number(const py::object& given) {
  const double number = PyFloat_AsDouble(given.ptr());
  if (number == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return number;
}

py::array melscale_fbanks_of(const py::object& n_freqs, const py::object& f_min, const py::object& f_max,
                             const py::object& n_mels, const py::object& sample_rate, const py::object& norm,
                             const std::string& mel_scale) {
  const Sizes sizes{whole_number("n_freqs", n_freqs, 2), whole_number("n_mels", n_mels, 1)};
  const double rate = real_number(sample_rate), low = real_number(f_min), high = real_number(f_max);
  const auto got = [&] { return "f_min " + std::string(py::str(f_min)) + ", f_max " + std::string(py::str(f_max)); };
  if (!(rate > 0 && std::isfinite(rate)))
    throw py::value_error("sample_rate must be positive and finite, got " + std::string(py::str(sample_rate)));
  if (!(low >= 0 && low < high && std::isfinite(high)))
    throw py::value_error("f_min and f_max must rise from 0 or above, got " + got());
  if (!norm.is_none() && !norm.equal(py::str("slaney")))
    throw py::value_error("norm must be None or 'slaney', got " + std::string(py::repr(norm)));
  const auto scale = static_cast<MelScale>(one_of(mel_scales, "mel_scale", mel_scale));
  auto fb = new_array<double>(sizes);
  const auto view = to_write<double>("fb", fb);
  const Status status = without_gil(
      [&] { return melscale_fbanks(view, low, high, rate, norm.is_none() ? MelNorm::none : MelNorm::slaney, scale); });
  if (status != Status::ok)
    raise(status, {.out_of_range = "f_min and f_max must leave room for n_mels, got " + got() + ", n_mels " +
                                   std::to_string(sizes[1])});
  std::int64_t empty = 0;
  for (std::int64_t mel = 0; mel < sizes[1]; ++mel) {
    bool any = false;
    for (std::int64_t f = 0; f < sizes[0] && !any; ++f) any = view.data[f * sizes[1] + mel] > 0;
    empty += any ? 0 : 1;
  }
  if (empty > 0) {
    const std::string count = std::to_string(sizes[1]);
    const std::string warning =
        std::to_string(empty) + " of " + count + " mel filters contain no frequency and are empty: n_mels (" + count +
        ") is too high, n_freqs (" + std::to_string(sizes[0]) + ") too low, or f_max beyond half of sample_rate";
    if (PyErr_WarnEx(PyExc_UserWarning, warning.c_str(), 1) != 0) throw py::error_already_set();
  }
  return fb;
}

}  // namespace

void add_inverse_mel(py::module_& module) {
  py::options options;
  options.disable_function_signatures();
  py::class_<InverseMelOwner> plan(module, "InverseMelPlan", docs::inverse_mel_plan);
  make_generic(plan);
  plan.def(py::init<const py::object&, std::int64_t, const py::object&, const std::string&, std::optional<double>, int,
                    int>(),
           py::arg("fb"), py::arg("max_frames"), py::kw_only(),
           py::arg_v("dtype", py::module_::import("numpy").attr("float32"), "numpy.float32"),
           py::arg("tie_break") = "min_norm", py::arg("tolerance") = py::none(), py::arg("max_iterations") = 1000,
           py::arg("threads") = 1)
      .def("run", &InverseMelOwner::run, py::arg("mel"), py::arg("out") = py::none(), docs::run_mel)
      .def_property_readonly("outcome", &InverseMelOwner::outcome,
                             "How the frames of the last run ended, (frames,), int32: 0 by non-negative least squares, "
                             "1 by maximum entropy, 2 failed.")
      .def_property_readonly(
          "failed", &InverseMelOwner::failed,
          "How many frames of the last run failed: they did not reach the tolerance and are the best "
          "that was found, or they are not finite, and NaN.")
      .def_property_readonly("n_freqs", &InverseMelOwner::n_freqs, "Frequencies of a spectrum.")
      .def_property_readonly("n_mels", &InverseMelOwner::n_mels, "Mels of a mel spectrum.")
      .def_property_readonly("max_frames", &InverseMelOwner::max_frames, "The most frames of a run.")
      .def_property_readonly("tie_break", &InverseMelOwner::tie_break, "Which of the many spectra.")
      .def_property_readonly("dtype", &InverseMelOwner::dtype, "The dtype of the spectra.")
      .def_property_readonly("threads", &InverseMelOwner::threads, "Threads that a run spreads over.")
      .def("__repr__", &InverseMelOwner::repr);
  module.def("melscale_fbanks", &melscale_fbanks_of, py::arg("n_freqs"), py::arg("f_min"), py::arg("f_max"),
             py::arg("n_mels"), py::arg("sample_rate"), py::arg("norm") = py::none(), py::arg("mel_scale") = "htk",
             docs::melscale_fbanks);
}

}  // namespace torch_iir::python
