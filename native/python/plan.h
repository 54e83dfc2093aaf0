// What the plans of Python share: samples of either dtype, threads of their own, one run at a time.
//
// The GIL is released while a plan works. Another thread that comes to the same plan meanwhile gets a RuntimeError: to
// wait would filter its block at some place in the stream that nobody chose.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "arrays.h"
#include "errors.h"
#include "thread_pool.h"
#include "torch_iir/plan.h"

namespace torch_iir::python {

template <class Plan>
struct SampleOf;
template <template <class> class Plan, class Sample>
struct SampleOf<Plan<Sample>> {
  using type = Sample;
};
template <class Plan>
using sample_t = typename SampleOf<std::remove_cvref_t<Plan>>::type;

using Channels = std::variant<std::int64_t, std::vector<std::int64_t>>;  // a number, or a shape

inline Sizes sizes_of(const Channels& channels) {
  if (const auto* number = std::get_if<std::int64_t>(&channels)) return {*number};
  const auto& shape = std::get<std::vector<std::int64_t>>(channels);
  if (shape.size() >= max_view_dims)
    throw py::value_error("channels must have at most " + std::to_string(max_view_dims - 1) + " dimensions, got " +
                          std::to_string(shape.size()));
  return Sizes(std::span(shape));
}

template <class Call>
Status without_gil(Call&& call) {
  const py::gil_scoped_release released;
  return call();
}

template <template <class> class Plan>
class Owner {
 public:
  Owner(const py::object& dtype, int threads) : threads_(threads) {
    const auto type = py::dtype::from_args(dtype);
    if (type.equal(py::dtype::of<double>())) plan_.template emplace<Plan<double>>();
    else if (!type.equal(py::dtype::of<float>()))
      throw py::type_error("dtype must be float32 or float64, got " + std::string(py::str(type)));
    if (threads < 1) throw py::value_error("threads must be at least 1, got " + std::to_string(threads));
    if (threads > 1) pool_.emplace(threads);
  }

  py::dtype dtype() const {
    return look([](const auto& plan) { return py::dtype::of<sample_t<decltype(plan)>>(); });
  }
  int threads() const { return threads_; }

  void reset() {
    use([](auto& plan) { settle(plan.reset(), {}); });
  }

 protected:
  // For what changes the plan, or reads what runs change.
  template <class Call>
  auto use(Call&& call) {
    struct Use {
      std::atomic_flag& flag;
      explicit Use(std::atomic_flag& used) : flag(used) {
        if (flag.test_and_set(std::memory_order_acquire))
          throw std::runtime_error("the plan is in use by another thread: each needs a plan of its own");
      }
      ~Use() { flag.clear(std::memory_order_release); }
    } const use(used_);
    return std::visit(call, plan_);
  }
  // For what make() found.
  template <class Call>
  auto look(Call&& call) const {
    return std::visit(call, plan_);
  }

  static void settle(Status status, const Meaning& meaning) {
    if (status != Status::ok) raise(status, meaning);
  }

  ParallelFor parallel_for() { return pool_ ? pool_->parallel_for() : ParallelFor{}; }

 private:
  std::optional<ThreadPool> pool_;  // outlives the plan
  std::variant<Plan<float>, Plan<double>> plan_;
  std::atomic_flag used_;
  int threads_;
};

// A filter over channels.
template <template <class> class Plan>
class FilterOwner : public Owner<Plan> {
 public:
  FilterOwner(const Channels& channels, const py::object& dtype, std::int64_t block, const std::string& algorithm,
              int threads)
      : Owner<Plan>(dtype, threads),
        channels_(sizes_of(channels)),
        options_{block, algorithm_of(algorithm), this->parallel_for()} {}

  py::tuple channels() const { return tuple_of(channels_); }
  const char* algorithm() const {
    return this->look([](const auto& plan) { return algorithm_names[static_cast<int>(plan.algorithm())]; });
  }
  const char* isa() const {
    return this->look([](const auto& plan) { return plan.isa(); });
  }

 protected:
  // What make() refuses.
  Meaning meaning(const std::string& shapes) const {
    Meaning meaning;
    meaning.unsupported = cannot_run(algorithm_names[static_cast<int>(options_.algorithm)]);
    meaning.wrong_shape = shapes;
    meaning.out_of_range = "channels and block must not be negative, got channels " + text(channels_) + ", block " +
                           std::to_string(options_.block);
    return meaning;
  }

  // The signal of a run; its last dimension is time.
  template <class Sample>
  View<const Sample> signal(const py::array& x) const {
    if (!(x.ndim() == channels_.dims + 1 && std::equal(channels_.size, channels_.size + channels_.dims, x.shape())))
      throw py::value_error("x must have the shape " + text(channels_, "T") + ", got " + text(x));
    return to_read<Sample>("x", x);
  }

  std::string repr(const char* name, const std::string& facts) const {
    return std::string(name) + '(' + facts + ", channels=" + text(channels_) +
           ", dtype=" + std::string(py::str(this->dtype())) + ", algorithm='" + algorithm() + "', isa='" + isa() +
           "', threads=" + std::to_string(this->threads()) + ')';
  }

  Sizes channels_;
  PlanOptions options_;
};

// What annotations say, SOSFiltPlan[np.float32], can be evaluated, as np.ndarray's.
template <class Class>
void make_generic(Class& of) {
  const auto classmethod = py::module_::import("builtins").attr("classmethod");
  of.attr("__class_getitem__") = classmethod(py::module_::import("types").attr("GenericAlias"));
}

}  // namespace torch_iir::python
