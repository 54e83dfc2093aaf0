// What plans promise beside numbers: views and sizes, sentences for statuses, and that after make() nothing allocates,
// locks or calls the operating system, whatever is in the signal. Allocations and locks are counted in the place of the
// C library's own functions; system calls kill a child process.
#include "plans.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <memory>
#include <span>

#include "torch_iir/inverse_mel_plan.h"
#include "torch_iir/lfilter_plan.h"
#include "torch_iir/lfilter_tv_plan.h"
#include "torch_iir/sosfilt_plan.h"

#if defined(__linux__)
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

// Sanitizers have functions of their own in that place.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TORCH_IIR_ADDRESS_SANITIZER
#endif
#endif
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(TORCH_IIR_ADDRESS_SANITIZER)
#define TORCH_IIR_COUNTS
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace {

long counted = 0;  // allocations, releases and locks

}  // namespace

#if defined(TORCH_IIR_COUNTS)
#define TORCH_IIR_IN_PLACE_OF_LIBC extern "C" __attribute__((visibility("default")))

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);
}

TORCH_IIR_IN_PLACE_OF_LIBC void* malloc(std::size_t size) noexcept {
  ++counted;
  return __libc_malloc(size);
}
TORCH_IIR_IN_PLACE_OF_LIBC void* calloc(std::size_t count, std::size_t size) noexcept {
  ++counted;
  return __libc_calloc(count, size);
}
TORCH_IIR_IN_PLACE_OF_LIBC void* realloc(void* memory, std::size_t size) noexcept {
  ++counted;
  return __libc_realloc(memory, size);
}
TORCH_IIR_IN_PLACE_OF_LIBC void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  ++counted;
  return __libc_memalign(alignment, size);
}
TORCH_IIR_IN_PLACE_OF_LIBC void* memalign(std::size_t alignment, std::size_t size) noexcept {
  ++counted;
  return __libc_memalign(alignment, size);
}
TORCH_IIR_IN_PLACE_OF_LIBC int posix_memalign(void** memory, std::size_t alignment, std::size_t size) noexcept {
  ++counted;
  *memory = __libc_memalign(alignment, size);
  return *memory == nullptr ? ENOMEM : 0;
}
TORCH_IIR_IN_PLACE_OF_LIBC void free(void* memory) noexcept {
  if (memory != nullptr) ++counted;
  __libc_free(memory);
}
TORCH_IIR_IN_PLACE_OF_LIBC int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
  static int (*lock)(pthread_mutex_t*) = nullptr;
  if (lock == nullptr) lock = reinterpret_cast<int (*)(pthread_mutex_t*)>(dlsym(RTLD_NEXT, "pthread_mutex_lock"));
  ++counted;
  return lock(mutex);
}
#endif

using namespace torch_iir;

namespace {

// --------------------------------------------------------------------------------------------------------------- views

// Who may be a view of what.
template <class T, class From>
constexpr bool views = std::is_constructible_v<View<T>, From>;

static_assert(views<float, std::vector<float>&> && views<float, std::array<float, 3>&> &&
              views<float, std::span<float>> && views<float, float (&)[3]>);
static_assert(views<const float, std::vector<float>&> && views<const float, const std::vector<float>&> &&
              views<const float, std::span<const float>> && views<const float, const float (&)[3]> &&
              views<const float, std::vector<float>>);
static_assert(!views<float, const std::vector<float>&> && !views<float, std::span<const float>> &&
              !views<float, const float (&)[3]> && !views<float, std::vector<double>&> &&
              !views<const double, std::vector<float>&> && !views<float, int> && !views<float, Sizes>);
static_assert(std::is_convertible_v<View<float>, View<const float>> &&
              !std::is_constructible_v<View<float>, View<const float>> &&
              !std::is_constructible_v<View<double>, View<float>>);
static_assert(!std::is_convertible_v<View<float>, bool> && std::is_trivially_copyable_v<View<float>>);
static_assert(std::is_nothrow_constructible_v<View<float>, float*, Sizes> &&
              std::is_nothrow_constructible_v<View<float>, float*, Sizes, Sizes>);
static_assert(std::is_nothrow_constructible_v<View<const float>, std::vector<float>&>);

void sizes() {
  constexpr Sizes none, some{4, 0, 3}, most{1, 2, 3, 4, 5, 6, 7, 8}, more{1, 2, 3, 4, 5, 6, 7, 8, 9};
  static_assert(none.dims == 0 && none.count() == 1 && none == Sizes{});
  static_assert(some.dims == 3 && some[0] == 4 && some[2] == 3 && some.count() == 0);
  static_assert(most.dims == max_view_dims && most.count() == 40320 && more.dims == -1);
  static_assert(some == Sizes{4, 0, 3} && !(some == Sizes{4, 0}) && !(some == Sizes{4, 0, 2}) && !(none == Sizes{1}));
  static_assert(!(more == most) && more == more);
  const std::vector<std::int64_t> given{5, 6};
  CHECK((Sizes(std::span<const std::int64_t>(given)) == Sizes{5, 6}));
}

void layouts() {
  float memory[24];
  const View<float> planar(memory, {2, 3, 4});
  CHECK(planar.dims() == 3 && planar.stride[0] == 12 && planar.stride[1] == 4 && planar.stride[2] == 1);
  const View<float> interleaved(memory, {2, 3}, {1, 2});
  CHECK(interleaved.dims() == 2 && interleaved.stride[0] == 1 && interleaved.stride[1] == 2);
  CHECK(View<float>(memory, {2, 3}, {1}).dims() == -1 && View<float>(memory, {2}, {1, 2}).dims() == -1);
  CHECK(View<float>(memory, {2}, {}).dims() == -1 && View<float>(memory, {}, {1}).dims() == -1);
  CHECK(View<float>(memory, {1, 1, 1, 1, 1, 1, 1, 1, 1}).dims() == -1);
  const Sizes nine{1, 1, 1, 1, 1, 1, 1, 1, 1};
  CHECK(View<float>(memory, {1}, nine).dims() == -1 && View<float>(memory, nine, nine).dims() == -1);
  const View<float> scalar(memory, {}), empty;
  CHECK(scalar.dims() == 0 && scalar && empty.dims() == 0 && !empty && empty.data == nullptr);
  const View<float> no_rows(memory, {0, 4});
  CHECK(no_rows.sizes.count() == 0 && no_rows.stride[0] == 4 && no_rows.stride[1] == 1);

  const View<const float> constant = interleaved;
  CHECK(constant.data == memory && constant.sizes == interleaved.sizes && constant.stride[1] == 2);
  std::vector<double> vector(7);
  std::array<double, 3> array{};
  const View<double> of_vector(vector), of_array(array);
  const View<const double> of_span(std::span<const double>(vector).subspan(2));
  CHECK(of_vector.data == vector.data() && of_vector.sizes == Sizes{7} && of_vector.stride[0] == 1);
  CHECK(of_array.data == array.data() && of_array.sizes == Sizes{3});
  CHECK(of_span.data == vector.data() + 2 && of_span.sizes == Sizes{5});
  std::vector<float> none;
  CHECK(View<float>(none).sizes == Sizes{0});
}

void messages() {
  std::vector<std::string> seen;
  for (int status = 0; status <= static_cast<int>(Status::out_of_range); ++status) {
    const char* text = message(static_cast<Status>(status));
    if (!CHECK(text != nullptr && *text != '\0', status)) continue;
    CHECK(std::ranges::find(seen, text) == seen.end(), status, text);
    seen.emplace_back(text);
  }
  for (const int status : {-1, 1000}) CHECK(message(static_cast<Status>(status)) != nullptr, status);
}

// ------------------------------------------------------------------------------------------------------- on the thread

// What an audio thread may do with a plan: each returns whether it went as it should.
struct Act {
  std::string name;
  std::function<bool()> run;
};
std::vector<Act> acts;

// A signal of each kind, and numbers that kernels hand over to slower ways for.
enum class Content { ordinary, silent, subnormal, huge, nan, infinite };
constexpr Content contents[] = {Content::ordinary, Content::silent, Content::subnormal,
                                Content::huge,     Content::nan,    Content::infinite};

template <class Sample>
void fill(Array<Sample>& x, Content content) {
  using Limits = std::numeric_limits<Sample>;
  x.fill([&] {
    const auto value = static_cast<Sample>(grid());
    switch (content) {
      case Content::silent: return Sample(0);
      case Content::subnormal: return value * Limits::min();
      case Content::huge: return value * Limits::max();
      case Content::nan: return value > Sample(0.9) ? Limits::quiet_NaN() : value;
      case Content::infinite: return value > Sample(0.9) ? Limits::infinity() : value;
      default: return value;
    }
  });
}

// Handles may be moved about; `plan` is what it was when it returns.
template <class Plan>
bool moves(Plan& plan) {
  Plan other = std::move(plan);
  const bool moved = !plan && other;
  plan = std::move(other);
  Plan& self = plan;
  plan = std::move(self);
  std::swap(plan, other);
  std::swap(plan, other);
  return moved && plan && !other && other.reset() == Status::not_made;
}

constexpr int longest = 600;  // a usual block is 64
constexpr int lengths[] = {0, 1, 65, longest};

// A made plan with coefficients of its own: its runs, its state, set() to other coefficients and refused().
template <class Sample, class Plan, class Set, class Refused>
void add_filter(const std::string& name, const std::shared_ptr<Plan>& plan, const Sizes& channels, const Sizes& state,
                Set set, Refused refused) {
  struct Memory {
    Array<Sample> x, y, strided_x, strided_y;
    Array<double> z;
    std::vector<Sample*> from, to;
  };
  for (const Content content : contents) {
    const Sizes outputs = plan->outputs();
    const auto memory = std::make_shared<Memory>(Memory{Array<Sample>(channels + Sizes{longest}),
                                                        Array<Sample>(outputs + Sizes{longest}),
                                                        Array<Sample>(channels + Sizes{longest}, Lie::interleaved),
                                                        Array<Sample>(outputs + Sizes{longest}, Lie::backwards),
                                                        Array<double>(outputs + state),
                                                        {},
                                                        {}});
    fill(memory->x, content);
    memory->strided_x.copy(memory->x);
    memory->from = memory->x.pointers();
    memory->to = memory->y.pointers();
    acts.push_back({name + " content " + std::to_string(static_cast<int>(content)), [=] {
                      Memory& m = *memory;
                      bool ok = true;
                      for (const int n : lengths) {
                        ok &= plan->run(m.x.piece(0, n), m.y.piece(0, n)) == Status::ok;
                        ok &= plan->run(m.strided_x.piece(0, n), m.strided_y.piece(0, n)) == Status::ok;
                        ok &= plan->state(m.z.view()) == Status::ok;
                        ok &= set(*plan, 1) == Status::ok;
                        ok &= plan->run(m.from.data(), m.to.data(), n) == Status::ok;
                        ok &= plan->set_state(m.z.input()) == Status::ok;
                        ok &= set(*plan, 0) == Status::ok;
                      }
                      return ok;
                    }});
    acts.push_back({name + " reset, refusals, moves", [=] {
                      Memory& m = *memory;
                      bool ok = plan->reset() == Status::ok && refused(*plan);
                      ok &= plan->run(m.x.piece(0, 3), m.y.piece(0, 4)) == Status::wrong_shape;
                      ok &= plan->run(nullptr, nullptr, 3) == Status::no_data;
                      ok &= plan->set_state(View<double>()) != Status::ok;
                      ok &= plan->outputs().dims >= 0 && plan->algorithm() != Algorithm::automatic && *plan->isa() != 0;
                      return ok && moves(*plan);
                    }});
  }
}

template <class Sample>
void add_lfilter(const std::string& isa, Algorithm algorithm, int order, bool bank) {
  const auto plan = std::make_shared<LFilterPlan<Sample>>();
  const std::int64_t filters = bank ? 5 : 1;
  const auto b = std::make_shared<Array<double>>(Sizes{3, filters, order + 1});
  const auto a = std::make_shared<Array<double>>(Sizes{3, filters, order + 1});
  for (std::int64_t row = 0; row < 2 * filters; ++row) {
    const Vector poles = denominator<long double>(order, 1 + static_cast<long double>(row % 2));
    for (int k = 0; k <= order; ++k) (*a)[row * (order + 1) + k] = static_cast<double>(poles[size(k)]);
  }
  if (order > 0) (*a)[2 * filters * (order + 1) - 1] = 1e250;  // of the last that is changed to: kernels fall back
  for (std::int64_t k = 0; k < filters * (order + 1); ++k) (*a)[2 * filters * (order + 1) + k] = 0;
  b->fill_randomly();
  const auto part = [=](Array<double>& array, std::int64_t i) {
    const View<const double> all = array.input();
    return bank ? View<const double>(all.data + i * filters * (order + 1), {filters, order + 1})
                : View<const double>(all.data + i * (order + 1), {order + 1});
  };
  PlanOptions options;
  options.algorithm = algorithm;
  const Sizes channels = bank ? Sizes{2, 1} : Sizes{2};
  if (plan->make(part(*b, 0), part(*a, 0), channels, options) == Status::unsupported) return;
  const std::string name = isa + "lfilter " + name_of(algorithm) + " order " + std::to_string(order);
  const auto set = [=](LFilterPlan<Sample>& p, int i) { return p.set_coefficients(part(*b, i), part(*a, i)); };
  const auto refused = [=](LFilterPlan<Sample>& p) {
    return set(p, 2) == Status::zero_a0 && p.set_coefficients({}, part(*a, 0)) == Status::wrong_shape &&
           p.order() == order;
  };
  add_filter<Sample>(name, plan, channels, {order}, set, refused);
}

template <class Sample>
void add_sosfilt(const std::string& isa, Algorithm algorithm, int sections) {
  const auto plan = std::make_shared<SOSFiltPlan<Sample>>();
  const auto sos = std::make_shared<Array<double>>(Sizes{3, sections, 6});
  for (std::int64_t s = 0; s < 2 * sections; ++s) {
    const Vector poles = denominator<long double>(2, 1);
    const bool uneven = s >= sections;
    (*sos)[s * 6] = uneven ? (s % 2 == 0 ? 1e200 : 0) : 0.5;
    (*sos)[s * 6 + 1] = (*sos)[s * 6 + 2] = 0.25;
    for (std::int64_t k = 0; k < 3; ++k) (*sos)[s * 6 + 3 + k] = static_cast<double>(poles[size(k)]);
  }
  for (std::int64_t i = 2 * sections * 6; i < sos->count(); ++i) (*sos)[i] = 0;
  const auto part = [=](int i) { return View<const double>(&(*sos)[i * sections * 6], {sections, 6}); };
  PlanOptions options;
  options.algorithm = algorithm;
  if (plan->make(part(0), {13}, options) == Status::unsupported) return;
  const std::string name = isa + "sosfilt " + name_of(algorithm) + " sections " + std::to_string(sections);
  const auto set = [=](SOSFiltPlan<Sample>& p, int i) { return p.set_coefficients(part(i)); };
  const auto refused = [=](SOSFiltPlan<Sample>& p) {
    return set(p, 2) == Status::zero_a0 && p.set_coefficients({}) == Status::wrong_shape && p.sections() == sections;
  };
  add_filter<Sample>(name, plan, {13}, {sections, 2}, set, refused);
}

// Coefficients in every layout, at every sample, at some, and at one.
template <class Sample>
void add_lfilter_tv(const std::string& isa, Algorithm algorithm, int order, bool divided, int b_length,
                    std::int64_t period) {
  struct Memory {
    std::vector<std::unique_ptr<Array<Sample>>> b, a;
    Array<Sample> x, y, zeros;
    Array<double> zx, zi;
  };
  constexpr std::int64_t channels = 9;
  constexpr int longest = 200, lengths[] = {0, 1, 65, longest};
  const TimeVaryingFilter filter{
      .b_length = b_length, .a_length = order + divided, .a_first = divided ? 0 : 1, .period = period};
  const auto plan = std::make_shared<LFilterTVPlan<Sample>>();
  PlanOptions options;
  options.algorithm = algorithm;
  if (plan->make(filter, {channels}, options) == Status::unsupported) return;
  const std::string name = isa + "lfilter_tv " + name_of(algorithm) + " order " + std::to_string(order) + " b " +
                           std::to_string(b_length) + " period " + std::to_string(period);
  const auto frames = [=](std::int64_t n) { return period == 1 ? n : (n + period - 1) / period + 1; };
  for (const Content content : contents) {
    const std::int64_t most = frames(longest);
    const auto memory = std::make_shared<Memory>(Memory{{},
                                                        {},
                                                        Array<Sample>({channels, longest}),
                                                        Array<Sample>({channels, longest}),
                                                        Array<Sample>({most, filter.a_length}),
                                                        Array<double>({channels, std::max(b_length - 1, 0)}),
                                                        Array<double>({channels, order})});
    fill(memory->x, content);
    memory->zeros.fill([] { return Sample(0); });
    for (const Lie lie : {content < Content::huge ? Lie::planar : Lie::gaps, Lie::interleaved, Lie::backwards}) {
      memory->b.push_back(std::make_unique<Array<Sample>>(Sizes{channels, most, b_length}, lie));
      memory->a.push_back(std::make_unique<Array<Sample>>(Sizes{channels, most, filter.a_length}, lie));
      memory->b.back()->fill_randomly();
      memory->a.back()->fill([&] { return static_cast<Sample>(0.5L + grid() / 4) / static_cast<Sample>(order + 1); });
      if (lie == Lie::backwards) fill(*memory->a.back(), content);
    }
    acts.push_back({name + " content " + std::to_string(static_cast<int>(content)), [=] {
                      Memory& m = *memory;
                      bool ok = true;
                      for (std::size_t i = 0; i < m.a.size(); ++i) {
                        for (const int n : lengths) {
                          const auto run = [&](View<Sample> b, View<Sample> a) {
                            if (b_length == 0) b = {};
                            const Status status = plan->run(m.x.piece(0, n), b, a, m.y.piece(0, n));
                            ok &= status == Status::ok || (divided && status == Status::zero_a0);
                          };
                          run(m.b[i]->piece(0, frames(n), 2), m.a[i]->piece(0, frames(n), 2));
                          run(m.b[i]->piece(0, 1, 2), m.a[i]->piece(0, 1, 2));
                          View<Sample> b = m.b[i]->piece(0, frames(n), 2), a = m.a[i]->piece(0, frames(n), 2);
                          b.stride[1] = a.stride[1] = a.stride[0] = 0;  // the same again and again
                          run(b, a);
                          ok &= plan->state(m.zx.view(), m.zi.view()) == Status::ok;
                          ok &= plan->set_state(m.zx.input(), m.zi.input()) == Status::ok;
                        }
                      }
                      ok &= plan->run(m.x.piece(0, 3), {}, {}, m.y.piece(0, 4)) == Status::wrong_shape;
                      const Status status =
                          plan->run(m.x.input(), b_length > 0 ? m.b[0]->input() : View<const Sample>(), m.zeros.input(),
                                    m.y.view());
                      ok &= status == (divided ? Status::zero_a0 : Status::ok);
                      ok &=
                          plan->reset() == Status::ok && plan->algorithm() != Algorithm::automatic && *plan->isa() != 0;
                      return ok && moves(*plan);
                    }});
  }
}

template <class Sample>
void add_inverse_mel(const std::string& isa, TieBreak tie_break) {
  struct Memory {
    Array<double> fb{{65, 20}};
    Array<Sample> mel{{20, 40}}, spectrum{{65, 40}, Lie::interleaved};
    InverseMelPlan<Sample> plan;
  };
  for (const Content content : contents) {
    const auto memory = std::make_shared<Memory>();
    CHECK(melscale_fbanks(memory->fb.view(), 0, 8000, 16000) == Status::ok);
    CHECK(memory->plan.make(memory->fb.input(), 40, {.tie_break = tie_break}) == Status::ok);
    fill(memory->mel, content);
    acts.push_back({isa + "inverse mel, tie break " + std::to_string(static_cast<int>(tie_break)), [=] {
                      Memory& m = *memory;
                      bool ok = true;
                      for (const int n : {0, 1, 7, 40}) {
                        ok &= m.plan.run(m.mel.piece(0, n), m.spectrum.piece(0, n)) == Status::ok;
                        ok &= m.plan.failed() <= n;
                        ok &= n == 0 || static_cast<int>(m.plan.outcome(n - 1)) >= 0;
                      }
                      ok &= m.plan.run(m.mel.piece(0, 3), m.spectrum.piece(0, 4)) == Status::wrong_shape;
                      InverseMelPlan<Sample> other = std::move(m.plan);
                      m.plan = std::move(other);
                      return ok && m.plan && !other;  // NOLINT(bugprone-use-after-move)
                    }});
  }
}

void rehearse() {
  constexpr Algorithm algorithms[] = {Algorithm::direct, Algorithm::rows, Algorithm::segments, Algorithm::blocks,
                                      Algorithm::wavefront};
  for_each_isa([&](const std::string& isa) {
    for (const Algorithm algorithm : algorithms) {
      for (const int order : {0, 2, 6, 7, 40}) {
        add_lfilter<float>(isa, algorithm, order, true);
        if (!slow) add_lfilter<double>(isa, algorithm, order, false);
      }
      for (const int sections : {1, 3, 9}) {
        add_sosfilt<float>(isa, algorithm, sections);
        if (!slow) add_sosfilt<double>(isa, algorithm, sections);
      }
      int count = 0;
      for (const int order : {0, 1, 2, 3, 7, 20}) {
        for (const bool divided : {false, true}) {
          for (const int b_length : {0, 3}) {
            const std::int64_t period = count++ % 3 == 1 ? 10 : 1;
            if (slow && count % 2 != 0) continue;
            count % 2 == 0 ? add_lfilter_tv<double>(isa, algorithm, order, divided, b_length, period)
                           : add_lfilter_tv<float>(isa, algorithm, order, divided, b_length, period);
          }
        }
      }
    }
    for (const TieBreak tie_break : {TieBreak::min_norm, TieBreak::entropy}) {
      add_inverse_mel<float>(isa, tie_break);
      add_inverse_mel<double>(isa, tie_break);
    }
  });
}

// Numbers that a kernel flushes to zero are the caller's again.
bool subnormals_are_kept() {
  volatile double smallest = std::numeric_limits<double>::min();
  return smallest / 4 > 0;
}

// f(): how much it allocates, releases and locks.
template <class F>
long count(F f) {
  const long before = counted;
  f();
  return counted - before;
}

void nothing_is_allocated() {
#if defined(TORCH_IIR_COUNTS)
  // It counts what there is to count.
  std::vector<int> vector;
  void* volatile aligned = nullptr;
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  CHECK(count([&] { vector.push_back(1); }) == 1);
  CHECK(count([&] { aligned = std::aligned_alloc(64, 64); }) == 1 && count([&] { std::free(aligned); }) == 1);
  CHECK(count([&] { pthread_mutex_lock(&mutex); }) == 1 && pthread_mutex_unlock(&mutex) == 0);
  LFilterPlan<float> plan;
  Status made = Status::not_made;
  CHECK(count([&] { made = plan.make(std::vector{1.0}, std::vector{1.0, 0.5}, {2}); }) > 2 && made == Status::ok);
#else
  std::cout << "allocations are not counted here\n";
#endif
  const bool kept_before = subnormals_are_kept();
  for (const Act& act : acts) {
    bool ok = false;
    const long here = count([&] { ok = act.run(); });
    CHECK(ok && here == 0 && subnormals_are_kept() == kept_before, act.name, ok, here);
  }
}

// In a child process that may read, write and end, but make no other system call: how it ended, and at which act.
#if defined(__linux__)
int status_of_child(const std::vector<Act>& all, volatile std::size_t* at) {
  constexpr int no_seccomp = 77;
  const pid_t child = fork();
  if (child == 0) {
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) _exit(no_seccomp);
    long failed = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      *at = i;
      failed += !all[i].run();
    }
    syscall(SYS_exit, failed == 0 ? 0 : 1);
  }
  int status = 0;
  CHECK(child > 0 && waitpid(child, &status, 0) == child);
  return WIFEXITED(status) && WEXITSTATUS(status) == no_seccomp ? -1 : status;
}

void no_system_call() {
  void* shared = mmap(nullptr, sizeof(std::size_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (!CHECK(shared != MAP_FAILED)) return;
  auto* at = static_cast<volatile std::size_t*>(shared);
  const int of_caller = status_of_child({{"a system call", [] { return syscall(SYS_getppid) > 0; }}}, at);
  if (of_caller < 0) {
    std::cout << "system calls are not looked for: no seccomp here\n";
  } else {
    CHECK(WIFSIGNALED(of_caller) && WTERMSIG(of_caller) == SIGKILL, of_caller);
    const int status = status_of_child(acts, at);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, status, acts[*at].name);
  }
  munmap(shared, sizeof(std::size_t));
}
#endif

// Different plans in different threads, at the same time.
void threads_of_their_own() {
  constexpr std::int64_t samples = 2000;
  const std::vector<double> b{0.5, 0.25, 0.1, 0.05}, a{1, -0.5, 0.25, -0.1};
  Array<float> x({3, samples});
  x.fill_randomly();
  const auto run = [&](Array<float>& y) {
    LFilterPlan<float> plan;
    bool ok = plan.make(b, a, {3}) == Status::ok;
    for (std::int64_t t = 0; t < samples; t += 50) ok &= plan.run(x.piece(t, 50), y.piece(t, 50)) == Status::ok;
    return ok;
  };
  Array<float> want(x.sizes());
  CHECK(run(want));
  std::vector<Array<float>> results(4, want);
  bool ok[4] = {};
  std::vector<std::thread> running;
  for (std::size_t i = 0; i < results.size(); ++i)
    running.emplace_back([&, i] { ok[i] = run(results[i].fill([] { return 0; })); });
  for (std::thread& thread : running) thread.join();
  for (std::size_t i = 0; i < results.size(); ++i) CHECK(ok[i] && results[i].same_bits(want), i);
}

}  // namespace

int main() {
  sizes();
  layouts();
  messages();
  rehearse();
  nothing_is_allocated();
#if defined(__linux__)
  no_system_call();
#endif
  threads_of_their_own();
  return check::result();
}
