// The emulator itself: what threads tell each other arrives, and each kind of mistake in how they wait is found.
#include "emulator/scheduler.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "carry.h"
#include "check.h"
#include "launch.h"
#include "numbers.h"

using namespace torch_iir;
using namespace torch_iir::cuda;

namespace {

emulator::Machine& machine() { return emulator::machine(); }

// Runs a kernel under several seeds; each must end well.
template <class Kernel>
void runs(const char* what, const emulator::Grid& grid, const Kernel& kernel) {
  for (machine().seed = 1; machine().seed <= 5; ++machine().seed) {
    CHECK(emulator::run(grid, kernel), what, machine().error);
    machine().error.clear();
  }
}

// One of some seeds must end with this error.
template <class Kernel>
void fails(const char* error, const emulator::Grid& grid, const Kernel& kernel) {
  bool found = false;
  for (machine().seed = 1; machine().seed <= 20 && !found; ++machine().seed) {
    machine().error.clear();
    found = !emulator::run(grid, kernel) && machine().error.find(error) != std::string::npos;
  }
  CHECK(found, error, "got", machine().error);
  machine().error.clear();
}

void threads_and_warps() {
  std::vector<int> seen(1000 * 96);
  runs("every thread of every block", {1000, 96, 0, 1},
       [&] { ++seen[static_cast<std::size_t>(block() * threads() + thread())]; });
  CHECK(std::ranges::all_of(seen, [](int times) { return times == 5; }));

  runs("shuffles", {1, 64, 0, 1}, [] {
    const double mine = thread();
    CHECK(shuffle(mine, 3) == warp() * 32 + 3);
    CHECK(shuffle_up(mine, 2) == (lane() < 2 ? mine : mine - 2));
    CHECK(shuffle_down(mine, 5) == (lane() > 26 ? mine : mine + 5));
    CHECK(shuffle_xor(thread(), 9) == (thread() ^ 9));
    CHECK(ballot(lane() % 3 == 0) == 0x49249249u);
    CHECK(warp_any(lane() == 7) && !warp_any(false) && warp_all(true) && !warp_all(lane() != 0));
  });
}

void blocks_and_clusters() {
  runs("shared memory", {7, 128, 128 * sizeof(int), 1}, [] {
    auto* const values = reinterpret_cast<int*>(shared_memory());
    CHECK(values[thread()] == -1);
    values[thread()] = thread();
    sync();
    CHECK(values[127 - thread()] == 127 - thread());
    CHECK(sync_any(thread() == 5) && !sync_any(false));
  });
  runs("clusters", {12, 32, sizeof(int), 4}, [] {
    auto* const value = reinterpret_cast<int*>(shared_memory());
    if (thread() == 0) *value = static_cast<int>(block());
    cluster_sync();
    CHECK(cluster_rank() == block() % 4);
    for (int rank = 0; rank < 4; ++rank) CHECK(*in_cluster(value, rank) == block() / 4 * 4 + rank);
    cluster_sync();
  });
  // A block waits for one that drew a lower ticket, with fewer blocks resident than there are.
  for (machine().resident_blocks = 1; machine().resident_blocks <= 3; ++machine().resident_blocks) {
    unsigned ticket = 0;
    std::vector<Word> words(50 * 5 + 1);
    words[0].flag = 1;
    runs("tickets", {50, 32, sizeof(unsigned), 1}, [&] {
      auto* const mine = reinterpret_cast<unsigned*>(shared_memory());
      if (thread() == 0) *mine = fetch_add(&ticket, 1);
      sync();
      double value;
      std::uint64_t flag;
      for (load_word(&words[*mine], value, flag); flag == 0; load_word(&words[*mine], value, flag)) pause();
      if (thread() == 0) store_word(&words[*mine + 1], value + 1, 1);
    });
    CHECK(words[250].value == 250);
  }
  machine().resident_blocks = 3;
}

void mistakes() {
  fails("wait for ever", {1, 64, 0, 1}, [] {
    if (thread() < 32) sync();
  });
  fails("wait for ever", {1, 32, 0, 1}, [] {
    if (thread() != 3) shuffle(1, 0);
  });
  fails("meets", {1, 32, 0, 1}, [] {
    if (thread() < 16) {
      shuffle(1, 0);
    } else {
      shuffle_up(1, 1);
    }
  });
  fails("wait for ever", {2, 32, 0, 2}, [] {
    if (cluster_rank() == 0) cluster_sync();
  });
  fails("misaligned", {1, 32, 64, 1}, [] {
    static const double data[2] = {};
    copy_async<8>(shared_memory() + 4, data);
  });
  fails("asynchronous copies", {1, 32, 64, 1}, [] {
    static const double data[2] = {};
    copy_async<8>(shared_memory(), data);
    commit_async();
  });
  fails("no such block", {2, 32, 64, 2}, [] { in_cluster(shared_memory(), 2); });
  fails("threads of a block", {1, 33, 0, 1}, [] {});
  fails("shared memory", {1, 32, 1 << 20, 1}, [] {});
  machine().clusters = false;
  fails("cluster", {2, 32, 0, 2}, [] {});
  machine().clusters = true;

  // Without the barrier between them, some order of the threads shows that one reads what another has not written.
  bool seen = false;
  for (machine().seed = 1; machine().seed <= 20; ++machine().seed) {
    emulator::run({1, 64, 64 * sizeof(float), 1}, [&] {
      auto* const values = reinterpret_cast<float*>(shared_memory());
      values[thread()] = 1;
      if (std::isnan(values[63 - thread()])) seen = true;
    });
  }
  CHECK(seen);
  // An asynchronous copy is not there before it is waited for.
  runs("late copies", {1, 32, 32 * sizeof(float), 1}, [] {
    static const float data[32] = {};
    auto* const values = reinterpret_cast<float*>(shared_memory());
    copy_async<4>(values + thread(), data + thread());
    commit_async();
    CHECK(std::isnan(values[thread()]));
    wait_async<0>();
    CHECK(values[thread()] == 0);
  });
}

void halves() {
  for (int bits = 0; bits < 0x10000; ++bits) {
    const auto all = static_cast<std::uint16_t>(bits);
    const double half = half_to_double(all), bfloat = bfloat16_to_double(all);
    CHECK(std::isnan(half) ? std::isnan(half_to_double(half_of(half))) : half_of(half) == all, bits);
    CHECK(std::isnan(bfloat) ? std::isnan(bfloat16_to_double(bfloat16_of(bfloat))) : bfloat16_of(bfloat) == all, bits);
    const double next = half_to_double(static_cast<std::uint16_t>(all + 1));
    if (std::isfinite(half) && std::isfinite(next) && (bits & 0x7fff) != 0x7fff) {  // ties go to the even one
      const double between = (half + next) / 2;
      CHECK(half_of(between) == (bits & 1 ? all + 1 : all), bits);
      CHECK(half_of(std::nextafter(between, next)) == all + 1 && half_of(std::nextafter(between, half)) == all, bits);
    }
  }
  CHECK(bfloat16_of(1 + 0x1p-8 + 0x1p-40) == 0x3f81 && bfloat16_of(1 + 0x1p-8) == 0x3f80);
  CHECK(half_of(65519.9) == 0x7bff && half_of(65520) == 0x7c00 && half_of(-1e300) == 0xfc00);
  const Complex quotient = Complex(1e300, 1e300) / Complex(1e300, 1e300);
  CHECK(std::abs(quotient.re - 1) < 1e-15 && std::abs(quotient.im) < 1e-15);
}

// --- carry.h against products of matrices in long double

template <int N>
using Exact = std::vector<long double>;  // N × N

template <int N>
Exact<N> product(const Exact<N>& a, const Exact<N>& b) {
  Exact<N> result(N * N);
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < N; ++j)
      for (int k = 0; k < N; ++k) result[i * N + j] += a[i * N + k] * b[k * N + j];
  return result;
}

template <int N>
struct SharedOfCarry {
  Powers<N> powers;
  WarpStates<N, 4> states;
  Vector<N> entry;
};

template <int N>
Matrix<N> transition(double radius) {
  Matrix<N> a{};
  for (int i = 0; i < N; ++i) {
    for (int j = 0; j < N; ++j) a.m[i][j] = radius * std::sin(1.0 + 3 * i + 7 * j) / (N > 1 ? N / 2.0 : 1);
  }
  return a;
}

template <int N>
void powers_of_a_matrix(int K) {
  const Matrix<N> a = transition<N>(0.99);
  Exact<N> exact(&a.m[0][0], &a.m[0][0] + N * N);
  long double largest = 1;
  const auto same = [&](const Matrix<N>& m, const char* what) {
    for (int i = 0; i < N * N; ++i) {
      const long double error = std::abs(m.m[i / N][i % N] - exact[i]);
      CHECK(error <= 1e-11L * largest, what, "N", N, "K", K, i, error);
    }
  };
  const auto square = [&](int times) {
    for (; times > 0; --times) exact = product<N>(exact, exact);
  };
  SharedOfCarry<N> result;
  CHECK(emulator::run({1, 128, sizeof(result), 1}, [&] {
    auto& shared = *reinterpret_cast<SharedOfCarry<N>*>(shared_memory());
    if (thread() == 0) shared.powers.tile = a;
    sync();
    CHECK(build(shared.powers, K, true));
    if (thread() == 0) result = shared;
  }));
  square(static_cast<int>(std::log2(K)));
  for (int j = 0; j <= lane_steps; ++j) {
    same(result.powers.lanes[j], "lanes");
    square(1);
  }
  square(1);  // four warps: one more than the last step above
  same(result.powers.tile, "tile");
  for (int j = 0; j <= look_steps; ++j) {
    same(result.powers.look[j], "look");
    square(1);
  }
}

void powers_that_overflow() {
  CHECK(emulator::run({1, 128, sizeof(SharedOfCarry<2>), 1}, [] {
    auto& shared = *reinterpret_cast<SharedOfCarry<2>*>(shared_memory());
    if (thread() == 0) shared.powers.tile = {{{1.1, 0}, {0, 1}}};
    sync();
    CHECK(!build(shared.powers, 64, false));
  }));
}

// States through tiles by each form, against one step after another.
template <int N>
void carries(int tiles) {
  constexpr int block_threads = 128, K = 4;
  const Matrix<N> a = transition<N>(0.6);
  const auto left_behind = [](std::int64_t at, int i) { return std::sin(0.1 * static_cast<double>(at) + i); };
  // What each thread begins with, exactly; M = A^K.
  Exact<N> m(&a.m[0][0], &a.m[0][0] + N * N);
  for (int k = 1; k < K; k *= 2) m = product<N>(m, m);
  std::vector<long double> state(N, 0.5L), expected;
  for (std::int64_t at = 0; at < std::int64_t{tiles} * block_threads; ++at) {
    expected.insert(expected.end(), state.begin(), state.end());
    std::vector<long double> next(N);
    for (int i = 0; i < N; ++i) {
      next[i] = left_behind(at, i);
      for (int j = 0; j < N; ++j) next[i] += m[i * N + j] * state[j];
    }
    state = next;
  }
  std::vector<double> entered(expected.size());
  const auto tile_of = [&](SharedOfCarry<N>& shared, std::int64_t tile, const auto& enter) {
    const std::int64_t at = tile * block_threads + thread();
    Vector<N> s;
    for (int i = 0; i < N; ++i) s[i] = left_behind(at, i);
    const Vector<N> scanned = scan_warp(shared.powers, s);
    if (lane() == warp_size - 1) shared.states.total[warp()] = scanned;
    sync();
    const Vector<N> entry = enter(after_warps(shared.powers, shared.states, 4, zero_vector<N>()));
    const Vector<N> own =
        enter_thread(shared.powers, scanned, after_warps(shared.powers, shared.states, warp(), entry));
    for (int i = 0; i < N; ++i) entered[static_cast<std::size_t>(at * N + i)] = own[i];
    sync();
  };
  const auto prepare = [&](SharedOfCarry<N>& shared) {
    if (thread() == 0) shared.powers.tile = a;
    sync();
    CHECK(build(shared.powers, K, true));
  };
  Vector<N> first;
  for (int i = 0; i < N; ++i) first[i] = 0.5;
  const auto compare = [&](const char* form) {
    long double worst = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) worst = std::max(worst, std::abs(expected[i] - entered[i]));
    CHECK(worst < 1e-13L, form, "N", N, "tiles", tiles, "error", worst);
    std::ranges::fill(entered, NAN);
  };

  runs("row", {1, block_threads, sizeof(SharedOfCarry<N>), 1}, [&] {
    auto& shared = *reinterpret_cast<SharedOfCarry<N>*>(shared_memory());
    prepare(shared);
    RowCarry<N> carry{first};
    for (int tile = 0; tile < tiles; ++tile)
      tile_of(shared, tile, [&](const Vector<N>& total) { return carry.enter(shared.powers, total); });
  });
  compare("row");

  struct InCluster {
    SharedOfCarry<N> shared;
    typename ClusterCarry<N>::Shared carry;
  };
  runs("cluster", {4, block_threads, sizeof(InCluster), 4}, [&] {
    auto& all = *reinterpret_cast<InCluster*>(shared_memory());
    prepare(all.shared);
    ClusterCarry<N> carry{&all.carry, 4, 0, first};
    for (int tile = 0; tile < tiles; tile += 4) {
      if (tile + cluster_rank() < tiles) {
        tile_of(all.shared, tile + cluster_rank(),
                [&](const Vector<N>& total) { return carry.enter(all.shared.powers, total); });
      } else {
        static_cast<void>(carry.enter(all.shared.powers, zero_vector<N>()));
      }
    }
    carry.leave();
  });
  compare("cluster");

  std::vector<Word> totals, behind;
  unsigned ticket = 0;
  struct InOrder {
    SharedOfCarry<N> shared;
    unsigned ticket;
  };
  for (machine().seed = 1; machine().seed <= 3; ++machine().seed) {
    totals.assign(static_cast<std::size_t>(tiles) * N, {});
    behind.assign(static_cast<std::size_t>(tiles / look_group + 1) * N, {});
    ticket = 0;
    CHECK(emulator::run({std::min(tiles, 9), block_threads, sizeof(InOrder), 1},
                        [&] {
                          auto& all = *reinterpret_cast<InOrder*>(shared_memory());
                          prepare(all.shared);
                          for (;;) {
                            if (thread() == 0) all.ticket = fetch_add(&ticket, 1);
                            sync();
                            const std::int64_t tile = all.ticket;
                            sync();
                            if (tile >= tiles) return;
                            LookBack<N> carry{totals.data(), behind.data(), first, tile};
                            tile_of(all.shared, tile, [&](const Vector<N>& total) {
                              return carry.enter(all.shared.powers, total, &all.shared.entry);
                            });
                          }
                        }),
          machine().error);
    compare("lookback");
  }
}

}  // namespace

int main() {
  threads_and_warps();
  blocks_and_clusters();
  mistakes();
  halves();
  for (const int K : {1, 2, 16, 32}) {
    powers_of_a_matrix<1>(K);
    powers_of_a_matrix<2>(K);
    powers_of_a_matrix<4>(K);
    powers_of_a_matrix<8>(K);
  }
  powers_that_overflow();
  for (const int tiles : {1, 2, 4, 5, 8, 9, 31}) {
    carries<1>(tiles);
    carries<2>(tiles);
    carries<8>(tiles);
  }
  for (const int tiles : {255, 256, 257, 520}) carries<2>(tiles);
  return check::result();
}
