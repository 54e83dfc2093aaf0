// LFilterPlan, SOSFiltPlan and LFilterTVPlan on NumPy arrays.
#include <algorithm>
#include <cstdint>
#include <string>

#include "docs.h"
#include "module.h"
#include "plan.h"
#include "torch_iir/lfilter_plan.h"
#include "torch_iir/lfilter_tv_plan.h"
#include "torch_iir/sosfilt_plan.h"

namespace torch_iir::python {
namespace {

// Filters whose coefficients stay what they are from sample to sample.
template <template <class> class Plan>
class ConstantFilter : public FilterOwner<Plan> {
 public:
  using FilterOwner<Plan>::FilterOwner;

  Sizes output_sizes() const {
    return this->look([](const auto& plan) { return plan.outputs(); });
  }
  py::tuple outputs() const { return tuple_of(output_sizes()); }

  py::array run(const py::object& given_x, const py::object& given_out) {
    return this->use([&](auto& plan) {
      using Sample = sample_t<decltype(plan)>;
      const auto x_array = samples<Sample>("x", given_x);
      const auto x = this->template signal<Sample>(x_array);
      auto out = output<Sample>(given_out, joined("out", plan.outputs(), {x.sizes[x.dims() - 1]}));
      if (!given_out.is_none()) check_overlap("x", x_array, out, InPlace::yes);
      const auto y = to_write<Sample>("out", out);
      const Status status = without_gil([&] { return plan.run(x, y); });
      if (status != Status::ok) raise(status, {});
      return out;
    });
  }

 protected:
  // `core` are the dimensions of one filter's state, of which the values are `what`.
  py::array state_of(std::initializer_list<std::int64_t> core) {
    return this->use([&](auto& plan) {
      auto state = new_array<double>(joined("state", plan.outputs(), core));
      this->settle(plan.state(to_write<double>("state", state)), {});
      return state;
    });
  }
  void set_state_of(const py::object& given, std::initializer_list<std::int64_t> core) {
    const auto state = doubles("state", given);
    this->use([&](auto& plan) {
      const auto sizes = joined("state", plan.outputs(), core);
      Meaning meaning;
      meaning.wrong_shape = "state must have a shape that broadcasts to " + text(sizes) + " and its last " +
                            (core.size() == 1 ? "dimension" : "two dimensions") + ", got " + text(state);
      this->settle(plan.set_state(to_read<double>("state", state)), meaning);
    });
  }
};

class LFilterOwner : public ConstantFilter<LFilterPlan> {
 public:
  LFilterOwner(const py::object& given_b, const py::object& given_a, const Channels& channels, const py::object& dtype,
               std::int64_t block, const std::string& algorithm, int threads)
      : ConstantFilter(channels, dtype, block, algorithm, threads) {
    const auto b_array = doubles("b", given_b), a_array = doubles("a", given_a);
    const auto b = to_read<double>("b", b_array), a = to_read<double>("a", a_array);
    settle(use([&](auto& plan) { return without_gil([&] { return plan.make(b, a, channels_, options_); }); }),
           meaning("b and a must have the shapes (..., len b) and (..., len a), at least one coefficient, and leading "
                   "dimensions that broadcast with each other and with channels to 7 at most, got b " +
                   text(b_array) + ", a " + text(a_array) + ", channels " + text(channels_)));
    b_sizes_ = b.sizes;
    a_sizes_ = a.sizes;
  }

  void set_coefficients(const py::object& given_b, const py::object& given_a) {
    const auto b_array = doubles("b", given_b), a_array = doubles("a", given_a);
    const auto b = to_read<double>("b", b_array), a = to_read<double>("a", a_array);
    settle(use([&](auto& plan) { return without_gil([&] { return plan.set_coefficients(b, a); }); }),
           meaning("b and a must have the shapes that the plan was made with, " + text(b_sizes_) + " and " +
                   text(a_sizes_) + ", got b " + text(b_array) + ", a " + text(a_array)));
  }

  int order() const {
    return look([](const auto& plan) { return plan.order(); });
  }
  py::array state() { return state_of({order()}); }
  void set_state(const py::object& state) { set_state_of(state, {order()}); }

  std::string repr() const {
    return FilterOwner::repr("LFilterPlan", "order=" + std::to_string(order()) + ", outputs=" + text(output_sizes()));
  }

 private:
  Sizes b_sizes_, a_sizes_;
};

class SOSFiltOwner : public ConstantFilter<SOSFiltPlan> {
 public:
  SOSFiltOwner(const py::object& given, const Channels& channels, const py::object& dtype, std::int64_t block,
               const std::string& algorithm, int threads)
      : ConstantFilter(channels, dtype, block, algorithm, threads) {
    const auto array = doubles("sos", given);
    const auto sos = to_read<double>("sos", array);
    settle(
        use([&](auto& plan) { return without_gil([&] { return plan.make(sos, channels_, options_); }); }),
        meaning_of_sos("sos must have the shape (..., S, 6) with S at least 1, and leading dimensions that broadcast "
                       "with channels to 6 at most, got sos " +
                       text(array) + ", channels " + text(channels_)));
    sos_sizes_ = sos.sizes;
  }

  void set_coefficients(const py::object& given) {
    const auto array = doubles("sos", given);
    const auto sos = to_read<double>("sos", array);
    settle(use([&](auto& plan) { return without_gil([&] { return plan.set_coefficients(sos); }); }),
           meaning_of_sos("sos must have the shape that the plan was made with, " + text(sos_sizes_) + ", got " +
                          text(array)));
  }

  int sections() const {
    return look([](const auto& plan) { return plan.sections(); });
  }
  py::array state() { return state_of({sections(), 2}); }
  void set_state(const py::object& state) { set_state_of(state, {sections(), 2}); }

  std::string repr() const {
    return FilterOwner::repr("SOSFiltPlan",
                             "sections=" + std::to_string(sections()) + ", outputs=" + text(output_sizes()));
  }

 private:
  Meaning meaning_of_sos(const std::string& shapes) const {
    Meaning result = meaning(shapes);
    result.zero_a0 = "sos[..., 3]";
    return result;
  }

  Sizes sos_sizes_;
};

class LFilterTVOwner : public FilterOwner<LFilterTVPlan> {
 public:
  LFilterTVOwner(const Channels& channels, int a_length, int a_first, int b_length, int b_first, std::int64_t period,
                 const py::object& dtype, std::int64_t block, const std::string& algorithm, int threads)
      : FilterOwner(channels, dtype, block, algorithm, threads),
        filter_{.b_length = b_length, .b_first = b_first, .a_length = a_length, .a_first = a_first, .period = period} {
    Meaning wrong = meaning("channels must have at most 6 dimensions, got " + text(channels_));
    wrong.out_of_range =
        "a_length, b_length, block and channels must not be negative, a_first and b_first must be 0 or 1 and period at "
        "least 1, got " +
        facts() + ", block=" + std::to_string(block) + ", channels=" + text(channels_);
    settle(use([&](auto& plan) { return without_gil([&] { return plan.make(filter_, channels_, options_); }); }),
           wrong);
  }

  py::array run(const py::object& given_x, const py::object& given_a, const py::object& given_b,
                const py::object& given_out) {
    return use([&](auto& plan) {
      using Sample = sample_t<decltype(plan)>;
      const auto x_array = samples<Sample>("x", given_x);
      const auto x = signal<Sample>(x_array);
      const auto a_array = taps<Sample>("a", given_a, filter_.a_length);
      const auto b_array = taps<Sample>("b", given_b, filter_.b_length);
      const auto a = a_array ? to_read<Sample>("a", *a_array) : View<const Sample>();
      const auto b = b_array ? to_read<Sample>("b", *b_array) : View<const Sample>();
      auto out = output<Sample>(given_out, x.sizes);
      if (!given_out.is_none()) {
        check_overlap("x", x_array, out, b_array ? InPlace::no : InPlace::yes);
        if (a_array) check_overlap("a", *a_array, out, InPlace::no);
        if (b_array) check_overlap("b", *b_array, out, InPlace::no);
      }
      const auto y = to_write<Sample>("out", out);
      const Status status = without_gil([&] { return plan.run(x, b, a, y); });
      if (status != Status::ok) raise(status, {.wrong_shape = wrong_frames(x.sizes[x.dims() - 1], a_array, b_array)});
      return out;
    });
  }

  // Of zx and zf.
  std::pair<Sizes, Sizes> state_sizes() const {
    const auto largest_lag = [](int first, int length) { return length > 0 ? first + length - 1 : 0; };
    return {joined("state", channels_, {largest_lag(filter_.b_first, filter_.b_length)}),
            joined("state", channels_, {largest_lag(filter_.a_first, filter_.a_length)})};
  }
  py::tuple state() {
    return use([&](auto& plan) {
      const auto [zx_sizes, zf_sizes] = state_sizes();
      auto zx = new_array<double>(zx_sizes), zf = new_array<double>(zf_sizes);
      settle(plan.state(to_write<double>("zx", zx), to_write<double>("zf", zf)), {});
      return py::make_tuple(zx, zf);
    });
  }
  void set_state(const py::object& given) {
    if (!py::isinstance<py::sequence>(given) || py::len(given) != 2)
      throw py::type_error("state must be the pair (zx, zi), past inputs and past outputs");
    const auto zx = doubles("zx", given[py::int_(0)]), zi = doubles("zi", given[py::int_(1)]);
    const auto [zx_sizes, zi_sizes] = state_sizes();
    Meaning meaning;
    meaning.wrong_shape = "zx and zi must have shapes that broadcast to " + text(zx_sizes) + " and " + text(zi_sizes) +
                          " and their last dimensions, got zx " + text(zx) + ", zi " + text(zi);
    settle(use([&](auto& plan) { return plan.set_state(to_read<double>("zx", zx), to_read<double>("zi", zi)); }),
           meaning);
  }

  int order() const { return static_cast<int>(state_sizes().second[channels_.dims]); }

  std::string repr() const { return FilterOwner::repr("LFilterTVPlan", facts()); }

 private:
  // Coefficients of a run: None where there are none; a list, say, of a constant filter; large ones are not copied.
  template <class Sample>
  static std::optional<py::array> taps(const char* name, const py::object& given, int length) {
    if (given.is_none() != (length == 0))
      throw py::value_error(std::string(name) + (length == 0 ? " must be None: " : " must be given: ") + name +
                            "_length is " + std::to_string(length));
    if (given.is_none()) return std::nullopt;
    if (py::isinstance<py::array>(given)) return samples<Sample>(name, given);
    return py::array_t<Sample>(doubles(name, given));
  }

  std::string wrong_frames(std::int64_t samples, const std::optional<py::array>& a,
                           const std::optional<py::array>& b) const {
    const std::int64_t whole = (samples + filter_.period - 1) / filter_.period;
    std::string wanted, given;
    const auto add = [&](const char* name, const std::optional<py::array>& taps, int length) {
      if (!taps) return;
      wanted += std::string(wanted.empty() ? "" : " and ") + name + " (..., frames, " + std::to_string(length) + ')';
      given += std::string(", ") + name + ' ' + text(*taps);
    };
    add("a", a, filter_.a_length);
    add("b", b, filter_.b_length);
    return "coefficients must be " + wanted + " with 1 or " + std::to_string(whole) +
           (filter_.period > 1 ? " or more" : "") + " frames for " + std::to_string(samples) +
           " samples, and leading dimensions that broadcast to channels, " + text(channels_) + "; got period " +
           std::to_string(filter_.period) + given;
  }

  std::string facts() const {
    const auto fact = [](const char* name, std::int64_t value) {
      return std::string(name) + '=' + std::to_string(value);
    };
    return fact("a_length", filter_.a_length) + fact(", a_first", filter_.a_first) +
           fact(", b_length", filter_.b_length) + fact(", b_first", filter_.b_first) + fact(", period", filter_.period);
  }

  TimeVaryingFilter filter_;
};

// What all three have.
template <class Owner, class Class>
void add_common(Class& plan) {
  make_generic(plan);
  plan.def("reset", &Owner::reset, "Puts the filter at rest.")
      .def_property_readonly("channels", &Owner::channels, "The leading dimensions of x.")
      .def_property_readonly("dtype", &Owner::dtype, "The dtype of the samples.")
      .def_property_readonly("algorithm", &Owner::algorithm, "The algorithm that was chosen when the plan was made.")
      .def_property_readonly("isa", &Owner::isa, "The instruction set that was in use when the plan was made.")
      .def_property_readonly("threads", &Owner::threads, "Threads that a run spreads over.")
      .def("__repr__", &Owner::repr);
}

}  // namespace

void add_filter_plans(py::module_& module) {
  py::options options;
  options.disable_function_signatures();
  const auto dtype = py::arg_v("dtype", py::module_::import("numpy").attr("float32"), "numpy.float32");
  const auto block = py::arg("block") = 64;
  const auto algorithm = py::arg("algorithm") = "automatic";
  const auto threads = py::arg("threads") = 1;
  const auto channels = py::arg("channels") = py::tuple();
  const auto none = [](const char* name) { return py::arg(name) = py::none(); };

  py::class_<LFilterOwner> lfilter(module, "LFilterPlan", docs::lfilter_plan);
  lfilter
      .def(py::init<const py::object&, const py::object&, const Channels&, const py::object&, std::int64_t,
                    const std::string&, int>(),
           py::arg("b"), py::arg("a"), channels, py::kw_only(), dtype, block, algorithm, threads)
      .def("run", &LFilterOwner::run, py::arg("x"), none("out"), docs::run)
      .def("set_coefficients", &LFilterOwner::set_coefficients, py::arg("b"), py::arg("a"),
           "Other coefficients of the same shapes, from the next run on. The state stays what it is.")
      .def_property("state", &LFilterOwner::state, &LFilterOwner::set_state,
                    "What is still to come, (*outputs, order), float64: zi and zf of scipy's lfilter. What is assigned "
                    "broadcasts to that.")
      .def_property_readonly("outputs", &LFilterOwner::outputs, "The leading dimensions of the output.")
      .def_property_readonly("order", &LFilterOwner::order, "max(len b, len a) - 1.");
  add_common<LFilterOwner>(lfilter);

  py::class_<SOSFiltOwner> sosfilt(module, "SOSFiltPlan", docs::sosfilt_plan);
  sosfilt
      .def(py::init<const py::object&, const Channels&, const py::object&, std::int64_t, const std::string&, int>(),
           py::arg("sos"), channels, py::kw_only(), dtype, block, algorithm, threads)
      .def("run", &SOSFiltOwner::run, py::arg("x"), none("out"), docs::run)
      .def("set_coefficients", &SOSFiltOwner::set_coefficients, py::arg("sos"),
           "Other coefficients of the same shape, from the next run on. The state stays what it is.")
      .def_property("state", &SOSFiltOwner::state, &SOSFiltOwner::set_state,
                    "The states of the sections, (*outputs, S, 2), float64: zi and zf of scipy's sosfilt, the section "
                    "next to last. What is assigned broadcasts to that.")
      .def_property_readonly("outputs", &SOSFiltOwner::outputs, "The leading dimensions of the output.")
      .def_property_readonly("sections", &SOSFiltOwner::sections, "S.");
  add_common<SOSFiltOwner>(sosfilt);

  py::class_<LFilterTVOwner> lfilter_tv(module, "LFilterTVPlan", docs::lfilter_tv_plan);
  lfilter_tv
      .def(py::init<const Channels&, int, int, int, int, std::int64_t, const py::object&, std::int64_t,
                    const std::string&, int>(),
           channels, py::kw_only(), py::arg("a_length"), py::arg("a_first") = 1, py::arg("b_length") = 0,
           py::arg("b_first") = 0, py::arg("period") = 1, dtype, block, algorithm, threads)
      .def("run", &LFilterTVOwner::run, py::arg("x"), none("a"), none("b"), none("out"), docs::run_tv)
      .def_property(
          "state", &LFilterTVOwner::state, &LFilterTVOwner::set_state,
          "The pair (zx, zi), float64, the newest first: past inputs, (*channels, largest lag of b), and past "
          "outputs, (*channels, largest lag of a). What is assigned broadcasts to that.")
      .def_property_readonly("order", &LFilterTVOwner::order, "The largest lag of a.");
  add_common<LFilterTVOwner>(lfilter_tv);
}

}  // namespace torch_iir::python
