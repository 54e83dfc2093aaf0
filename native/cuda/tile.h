// Samples of a row between global memory and the registers of a block's threads, by way of shared memory: threads read
// and write global memory side by side, and have K consecutive samples each.
//
// In shared memory the samples of a thread lie one after the other, then 16 bytes of nothing: 8 threads that access 16
// bytes each at the same place of theirs do so in 32 different banks.
#pragma once

#include <cstdint>
#include <cstring>

#include "numbers.h"
#include "simt.h"

namespace torch_iir::cuda {

template <class Sample, int K, int block_threads>
struct Tile {
  static_assert(K * sizeof(Sample) % 16 == 0);
  static constexpr int samples = K * block_threads;
  static constexpr int per_chunk = 16 / sizeof(Sample);
  static constexpr int chunks = K / per_chunk;  // of a thread
  static constexpr int bytes_of_thread = K * sizeof(Sample) + 16;
  static constexpr std::int64_t bytes = std::int64_t{block_threads} * bytes_of_thread;

  struct alignas(16) Chunk {
    unsigned char bytes[16];
  };

  unsigned char* memory;  // `bytes` of shared memory, aligned to 16

  TORCH_IIR_GPU Sample* place(int sample) const {
    return reinterpret_cast<Sample*>(memory + sample / K * bytes_of_thread) + sample % K;
  }

  // Begins to fetch `count` samples, at most a tile, that lie `step` apart from `from` on. They are there after
  // arrive().
  TORCH_IIR_GPU void fetch(const Sample* from, std::int64_t step, int count) const {
    int done = 0;
    if (step == 1 && reinterpret_cast<std::uintptr_t>(from) % 16 == 0) {
      done = count / per_chunk * per_chunk;
      for (int i = thread() * per_chunk; i < done; i += block_threads * per_chunk) copy_async<16>(place(i), from + i);
    } else if (sizeof(Sample) >= 4 && step == 1) {
      done = count;
      if constexpr (sizeof(Sample) == 4 || sizeof(Sample) == 8) {
        for (int i = thread(); i < done; i += block_threads)
          copy_async<static_cast<int>(sizeof(Sample))>(place(i), from + i);
      } else {
        done = 0;
      }
    }
    commit_async();
    for (int i = done + thread(); i < count; i += block_threads) *place(i) = from[i * step];
  }
  // For the whole block.
  static TORCH_IIR_GPU void arrive() {
    wait_async<0>();
    sync();
  }

  // This thread's samples; those from `count` on are zeros.
  TORCH_IIR_GPU void read(Sample (&samples_of_thread)[K], int count) const {
    const auto* const chunk = reinterpret_cast<const Chunk*>(memory + thread() * bytes_of_thread);
    TORCH_IIR_UNROLL
    for (int c = 0; c < chunks; ++c) {
      const Chunk values = chunk[c];
      memcpy(&samples_of_thread[c * per_chunk], &values, 16);
    }
    if (count < K) {
      TORCH_IIR_UNROLL
      for (int k = 0; k < K; ++k) {
        if (k >= count) samples_of_thread[k] = Sample{};
      }
    }
  }
  TORCH_IIR_GPU void write(const Sample (&samples_of_thread)[K]) const {
    auto* const chunk = reinterpret_cast<Chunk*>(memory + thread() * bytes_of_thread);
    TORCH_IIR_UNROLL
    for (int c = 0; c < chunks; ++c) {
      Chunk values;
      memcpy(&values, &samples_of_thread[c * per_chunk], 16);
      chunk[c] = values;
    }
  }

  // Of all threads, after a barrier: `count` samples to contiguous memory.
  TORCH_IIR_GPU void send(Sample* to, int count) const {
    int done = 0;
    if (reinterpret_cast<std::uintptr_t>(to) % 16 == 0) {
      done = count / per_chunk * per_chunk;
      for (int i = thread() * per_chunk; i < done; i += block_threads * per_chunk)
        *reinterpret_cast<Chunk*>(to + i) = *reinterpret_cast<const Chunk*>(place(i));
    }
    for (int i = done + thread(); i < count; i += block_threads) to[i] = *place(i);
  }
  // To memory in which they lie `step` apart.
  TORCH_IIR_GPU void send(Sample* to, std::int64_t step, int count) const {
    if (step == 1) return send(to, count);
    for (int i = thread(); i < count; i += block_threads) to[i * step] = *place(i);
  }
};

}  // namespace torch_iir::cuda
