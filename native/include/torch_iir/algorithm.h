// The algorithms that one recurrence can be computed by.
#pragma once

namespace torch_iir {

// Which kernel runs. `automatic` chooses by rows, T and order; the README's table says how. One that is forced on a
// filter that it does not take gives Status::unsupported.
enum class Algorithm : int {
  automatic = 0,
  direct,     // one sample after another, transposed direct form II: any filter, the yardstick for the others
  rows,       // rows in SIMD lanes, which may read one input: a bank; real, order ≤ 1024
  segments,   // one row cut into segments, the segments in SIMD lanes, their entry states from a scan; real, order 1
              // to 6, or a cascade of sections
  blocks,     // one row, blocks of outputs at once from the past outputs by the block's impulse response; real,
              // order ≤ 1024
  wavefront,  // sosfilt: sections in SIMD lanes, each some samples behind the one before it; real
  fft,       // lfilter without a recursion, real: convolution in double by the FFT of torch, which the kernels have not
  clusters,  // on CUDA: one row by blocks of threads that run at the same time; `rows` is one block, there
  lookback,  // on CUDA: one row by any number of blocks, each of which looks back at those before it
};

inline constexpr const char* algorithm_names[] = {"automatic", "direct", "rows",     "segments", "blocks",
                                                  "wavefront", "fft",    "clusters", "lookback"};

}  // namespace torch_iir
