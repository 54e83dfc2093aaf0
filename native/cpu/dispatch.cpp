// Chooses the instruction set when the library loads, and forwards the public functions to its kernels.
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "isa.h"
#include "torch_iir/instruction_sets.h"

namespace torch_iir {

#define TORCH_IIR_DECLARE_FOR(isa, name, choice, ...)                             \
  namespace isa {                                                                 \
  Status name(const __VA_ARGS__&, TORCH_IIR_AND(choice) const Context&) noexcept; \
  }
#define TORCH_IIR_DECLARE(name, choice, ...) TORCH_IIR_EACH_ISA(TORCH_IIR_DECLARE_FOR, name, choice, __VA_ARGS__)
TORCH_IIR_EACH_KERNEL(TORCH_IIR_DECLARE)

namespace {

// What the flags that CMakeLists.txt gives to each instruction set ask of the machine. GCC and clang look at what the
// operating system saves on a context switch, too. Processors with these features have the others of their level.
namespace supports {
#if defined(__x86_64__)
bool baseline() { return true; }
bool avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2");
}
bool avx512() {
  return avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#elif defined(__aarch64__)
bool neon() { return true; }  // part of the architecture
#else
bool baseline() { return true; }
#endif
}  // namespace supports

#define TORCH_IIR_ENTRY(isa, ...) InstructionSet{#isa, supports::isa()},
const auto& sets() {
  static const auto list = [] {
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
    return std::to_array<InstructionSet>({TORCH_IIR_EACH_ISA(TORCH_IIR_ENTRY, )});
  }();
  return list;
}

int find(const char* name) noexcept {
  for (int i = 0; i < static_cast<int>(sets().size()); ++i)
    if (std::strcmp(name, sets()[i].name) == 0 && sets()[i].supported) return i;
  return -1;
}

char error[512] = "";

int choose() noexcept {
  int best = 0;
  for (int i = 0; i < static_cast<int>(sets().size()); ++i)
    if (sets()[i].supported) best = i;
  const char* asked = std::getenv("TORCH_IIR_ISA");
  if (asked == nullptr || *asked == '\0') return best;
  if (const int index = find(asked); index >= 0) return index;
  int length = std::snprintf(error, sizeof error, "TORCH_IIR_ISA is \"%.60s\"; this machine runs", asked);
  for (const auto& set : sets())
    if (set.supported) length += std::snprintf(error + length, sizeof error - length, " %s", set.name);
  std::fprintf(stderr, "torch_iir: %s\n", error);
  return best;
}

std::atomic<int> current{choose()};

}  // namespace

std::span<const InstructionSet> instruction_sets() noexcept { return sets(); }
const char* isa() noexcept { return sets()[current.load(std::memory_order_relaxed)].name; }
const char* isa_error() noexcept { return *error ? error : nullptr; }

bool set_isa(const char* name) noexcept {
  const int index = find(name);
  if (index < 0) return false;
  current.store(index, std::memory_order_relaxed);
  return true;
}

const char* compiler() noexcept {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

int current_isa() noexcept { return current.load(std::memory_order_relaxed); }

#define TORCH_IIR_ADDRESS(isa, name, ...) &isa::name,
#define TORCH_IIR_PARAMETER(...) __VA_OPT__(__VA_ARGS__ method, )
#define TORCH_IIR_PASSED(...) __VA_OPT__(method, )
#define TORCH_IIR_DEFINE(name, choice, ...)                                                                          \
  Status name(int isa, const __VA_ARGS__& parameters, TORCH_IIR_PARAMETER(choice) const Context& context) noexcept { \
    using Function = Status (*)(const __VA_ARGS__&, TORCH_IIR_AND(choice) const Context&) noexcept;                  \
    static constexpr Function functions[] = {TORCH_IIR_EACH_ISA(TORCH_IIR_ADDRESS, name)};                           \
    return functions[isa](parameters, TORCH_IIR_PASSED(choice) context);                                             \
  }                                                                                                                  \
  Status name(const __VA_ARGS__& parameters, TORCH_IIR_PARAMETER(choice) ParallelFor parallel_for) noexcept {        \
    return name(current_isa(), parameters, TORCH_IIR_PASSED(choice) parallel_for);                                   \
  }
TORCH_IIR_EACH_KERNEL(TORCH_IIR_DEFINE)

}  // namespace torch_iir
