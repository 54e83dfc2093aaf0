// The functions of core by the kernels for CUDA, on the emulator: what tests the ones tests the others. In place of
// instruction sets there are machines that differ in what the emulator leaves to chance.
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <string_view>
#include <vector>

#include "emulator/scheduler.h"
#include "torch_iir/cuda.h"
#include "torch_iir/instruction_sets.h"

namespace torch_iir {
namespace {

constexpr InstructionSet machines[] = {{"cuda", true}, {"cuda, one block at a time, no clusters", true}};
int chosen = 0;

class Memory {
 public:
  cuda::Queue queue() { return {nullptr, allocate, this}; }

 private:
  static void* allocate(void* context, std::int64_t bytes) {
    auto& blocks = static_cast<Memory*>(context)->blocks_;
    blocks.emplace_back(std::aligned_alloc(256, static_cast<std::size_t>((bytes + 255) / 256 * 256)), std::free);
    std::memset(blocks.back().get(), 0xff, static_cast<std::size_t>(bytes));  // nobody may count on zeros
    return blocks.back().get();
  }
  std::vector<std::unique_ptr<void, void (*)(void*)>> blocks_;
};

template <class Call>
Status on_emulator(const Call& call) {
  Memory memory;
  cuda::emulator::Machine& machine = cuda::emulator::machine();
  const Status status = call(memory.queue());
  if (!machine.error.empty()) {
    std::cerr << "emulator: " << machine.error << '\n';
    machine.error.clear();
  }
  return status;
}

template <class To, class From>
To any(const From& p) {  // the same fields, by name, would be the same lines again
  To to;
  to.batch = p.batch;
#define TORCH_IIR_FIELD(name) \
  if constexpr (requires { p.name; }) to.name = p.name;
  // clang-format off
  TORCH_IIR_FIELD(samples) TORCH_IIR_FIELD(b_length) TORCH_IIR_FIELD(a_length) TORCH_IIR_FIELD(sections)
  TORCH_IIR_FIELD(period) TORCH_IIR_FIELD(m) TORCH_IIR_FIELD(n) TORCH_IIR_FIELD(k) TORCH_IIR_FIELD(tolerance)
  TORCH_IIR_FIELD(max_iterations)
  TORCH_IIR_FIELD(support) TORCH_IIR_FIELD(angles) TORCH_IIR_FIELD(step) TORCH_IIR_FIELD(x) TORCH_IIR_FIELD(y)
  TORCH_IIR_FIELD(gx) TORCH_IIR_FIELD(gy) TORCH_IIR_FIELD(b) TORCH_IIR_FIELD(a) TORCH_IIR_FIELD(sos)
  TORCH_IIR_FIELD(zi) TORCH_IIR_FIELD(zf) TORCH_IIR_FIELD(zx) TORCH_IIR_FIELD(gzf) TORCH_IIR_FIELD(gzi)
  TORCH_IIR_FIELD(gzx) TORCH_IIR_FIELD(gb) TORCH_IIR_FIELD(ga) TORCH_IIR_FIELD(gsos) TORCH_IIR_FIELD(mu)
  TORCH_IIR_FIELD(prior) TORCH_IIR_FIELD(dual) TORCH_IIR_FIELD(outcome) TORCH_IIR_FIELD(w) TORCH_IIR_FIELD(g)
  TORCH_IIR_FIELD(h) TORCH_IIR_FIELD(u) TORCH_IIR_FIELD(p) TORCH_IIR_FIELD(gw);
  // clang-format on
#undef TORCH_IIR_FIELD
  return to;
}

}  // namespace

std::span<const InstructionSet> instruction_sets() noexcept { return machines; }
const char* isa() noexcept { return machines[chosen].name; }
bool set_isa(const char* name) noexcept {
  for (int i = 0; i < static_cast<int>(std::size(machines)); ++i) {
    if (std::string_view(name) != machines[i].name) continue;
    chosen = i;
    cuda::emulator::machine().resident_blocks = i == 0 ? 3 : 1;
    cuda::emulator::machine().clusters = i == 0;
    return true;
  }
  return false;
}

Algorithm lfilter_algorithm(std::int64_t, std::int64_t, int, bool) noexcept { return Algorithm::automatic; }
Algorithm sosfilt_algorithm(std::int64_t, std::int64_t, int, bool) noexcept { return Algorithm::automatic; }
Algorithm lfilter_tv_algorithm(std::int64_t, std::int64_t, int, bool) noexcept { return Algorithm::automatic; }

// Each test links the kernels that it needs.
#define TORCH_IIR_ON_CUDA(Name, function, ...)                                                                        \
  Status function(const Name<__VA_ARGS__>& p, Algorithm algorithm, ParallelFor) noexcept {                            \
    return on_emulator(                                                                                               \
        [&](const cuda::Queue& queue) { return cuda::function(any<cuda::Name<__VA_ARGS__>>(p), queue, algorithm); }); \
  }
#define TORCH_IIR_ON_CUDA_FILTER(Name, function) \
  TORCH_IIR_ON_CUDA(Name, function, float)       \
  TORCH_IIR_ON_CUDA(Name, function, double)      \
  TORCH_IIR_ON_CUDA(Name, function, Half)        \
  TORCH_IIR_ON_CUDA(Name, function, BFloat16)    \
  TORCH_IIR_ON_CUDA(Name, function, std::complex<double>, std::complex<double>)
#define TORCH_IIR_ON_CUDA_TV(...)                       \
  TORCH_IIR_ON_CUDA(LFilterTV, lfilter_tv, __VA_ARGS__) \
  TORCH_IIR_ON_CUDA(LFilterTVBackward, lfilter_tv_backward, __VA_ARGS__)
#define TORCH_IIR_ON_CUDA_NNLS(Name, function, Sample)                                                        \
  Status function(const Name<Sample>& p, NNLSSolver solver, ParallelFor) noexcept {                           \
    return on_emulator(                                                                                       \
        [&](const cuda::Queue& queue) { return cuda::function(any<cuda::Name<Sample>>(p), queue, solver); }); \
  }
#define TORCH_IIR_ON_CUDA_FREQZ(Name, function, ...)                                                       \
  Status function(const Name<__VA_ARGS__>& p, ParallelFor) noexcept {                                      \
    return on_emulator(                                                                                    \
        [&](const cuda::Queue& queue) { return cuda::function(any<cuda::Name<__VA_ARGS__>>(p), queue); }); \
  }

#if defined(TORCH_IIR_TEST_LFILTER)
TORCH_IIR_ON_CUDA_FILTER(LFilter, lfilter)
TORCH_IIR_ON_CUDA_FILTER(LFilterBackward, lfilter_backward)
#elif defined(TORCH_IIR_TEST_SOSFILT)
TORCH_IIR_ON_CUDA_FILTER(SOSFilt, sosfilt)
TORCH_IIR_ON_CUDA_FILTER(SOSFiltBackward, sosfilt_backward)
#elif defined(TORCH_IIR_TEST_LFILTER_TV)
TORCH_IIR_ON_CUDA_TV(float)
TORCH_IIR_ON_CUDA_TV(float, double)
TORCH_IIR_ON_CUDA_TV(double)
TORCH_IIR_ON_CUDA_TV(Half)
TORCH_IIR_ON_CUDA_TV(Half, double)
TORCH_IIR_ON_CUDA_TV(BFloat16)
TORCH_IIR_ON_CUDA_TV(BFloat16, double)
TORCH_IIR_ON_CUDA_TV(std::complex<double>, std::complex<double>, std::complex<double>)
#elif defined(TORCH_IIR_TEST_NNLS)
TORCH_IIR_ON_CUDA_NNLS(NNLS, nnls, float)
TORCH_IIR_ON_CUDA_NNLS(NNLS, nnls, double)
TORCH_IIR_ON_CUDA_NNLS(NNLS, nnls, Half)
TORCH_IIR_ON_CUDA_NNLS(NNLS, nnls, BFloat16)
TORCH_IIR_ON_CUDA_NNLS(NNLSDerivative, nnls_derivative, float)
TORCH_IIR_ON_CUDA_NNLS(NNLSDerivative, nnls_derivative, double)
TORCH_IIR_ON_CUDA_NNLS(NNLSDerivative, nnls_derivative, Half)
TORCH_IIR_ON_CUDA_NNLS(NNLSDerivative, nnls_derivative, BFloat16)
#elif defined(TORCH_IIR_TEST_FREQZ)
TORCH_IIR_ON_CUDA_FREQZ(Freqz, freqz, float)
TORCH_IIR_ON_CUDA_FREQZ(Freqz, freqz, double)
TORCH_IIR_ON_CUDA_FREQZ(Freqz, freqz, float, std::complex<double>)
TORCH_IIR_ON_CUDA_FREQZ(Freqz, freqz, double, std::complex<double>)
TORCH_IIR_ON_CUDA_FREQZ(FreqzBackward, freqz_backward, float)
TORCH_IIR_ON_CUDA_FREQZ(FreqzBackward, freqz_backward, double)
TORCH_IIR_ON_CUDA_FREQZ(FreqzBackward, freqz_backward, float, std::complex<double>)
TORCH_IIR_ON_CUDA_FREQZ(FreqzBackward, freqz_backward, double, std::complex<double>)
#endif

}  // namespace torch_iir
