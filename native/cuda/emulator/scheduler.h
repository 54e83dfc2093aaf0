// Runs a grid of threads on one thread of the CPU.
//
// Each thread is a fiber. It runs until it waits for others (a shuffle, a barrier, a pause in a loop that polls); then
// any other that can go on does, chosen at random. Some blocks are resident at a time and a new one, any one, begins
// when one ends. Shared memory begins as NaN. A mistake in how threads wait for each other ends the run with an error:
// a shuffle or a barrier that not all threads come to, threads that all wait.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace torch_iir::cuda::emulator {

// What the next runs are like. Tests change it; it belongs to the system thread.
struct Machine {
  std::uint64_t seed = 1;     // of all that is random
  int processors = 4;         // what kernels are told to choose their form by
  int resident_blocks = 3;    // at a time; a cluster is resident as a whole
  bool clusters = true;       // whether it has them
  std::int64_t launches = 0;  // so far
  std::string error;          // of the first run that failed since it was cleared
};
Machine& machine();

struct Grid {
  std::int64_t blocks = 1;
  int threads = 32;
  std::int64_t shared_bytes = 0;
  int cluster = 1;
};

// False if it failed; machine().error says how.
bool run(const Grid& grid, const std::function<void()>& kernel);

// --- for the threads themselves

int thread();
int threads();
std::int64_t block();
std::int64_t blocks();
int cluster_rank();
unsigned char* shared_memory(int rank);  // of a block of this cluster
bool block_barrier(bool value);
void cluster_barrier();
std::uint64_t warp_exchange(std::uint64_t bits, int from, const char* what);
unsigned warp_ballot(bool value);
void copy_async(void* shared, const void* global, int bytes);  // takes place as late as it may
void commit_async();
void wait_async(int groups);
void pause();

}  // namespace torch_iir::cuda::emulator
