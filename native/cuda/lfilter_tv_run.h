// Which kernel a recurrence with coefficients that change takes.
//
//   order 0, above 32, complex   one step after another (lfilter_tv_serial.h)
//   orders 1 and 2               tiles: a block a row where rows are enough for all multiprocessors, a cluster a row
//                                where there are some, else chunks
//   orders 3 to 32               warps: one a row where there are many rows or few samples, else chunks
//
// Forced: direct takes everything; rows and clusters are the tiles' forms; lookback is chunks, of real signals up to
// order 32.
#pragma once

#include "lfilter_tv_serial.h"
#include "lfilter_tv_tiles.h"
#include "lfilter_tv_warps.h"

namespace torch_iir::cuda {

// Whether the recurrence of that order can be computed so.
template <class State>
bool takes_recurrence(Algorithm algorithm, int order) {
  if (algorithm == Algorithm::automatic || algorithm == Algorithm::direct) return true;
  if (std::is_same_v<Computed<State>, Complex> || order == 0) return false;
  if (algorithm == Algorithm::rows) return order <= 2;
  if (algorithm == Algorithm::clusters) return order <= 2 && device().clusters;
  return algorithm == Algorithm::lookback && order <= warp_order;
}

inline Form form_of(Algorithm algorithm, std::int64_t rows, std::int64_t steps, const Device& here) {
  constexpr std::int64_t tile = TVTiles<float, 2, false>::tile;
  switch (algorithm) {
    case Algorithm::rows: return Form::row;
    case Algorithm::clusters: return Form::cluster;
    case Algorithm::lookback: return Form::chunks;
    default: break;
  }
  if (steps <= 2 * tile || rows >= 2 * here.processors) return Form::row;
  if (here.clusters && (8 * rows >= here.processors || steps <= 32 * tile)) return Form::cluster;
  return Form::chunks;
}

template <class State, bool backward>
Status run_recurrence(const Recurrence<State>& r, const Queue& queue, Algorithm algorithm, Again& memory) {
  if (r.rows == 0) return Status::ok;
  const int order = r.order();
  if constexpr (std::is_same_v<State, double>) {
    const Device here = device();
    if (order > 0 && order <= 2 && algorithm != Algorithm::direct) {
      const Form form = form_of(algorithm, r.rows, r.steps(), here);
      const bool one_behind_the_other =
          r.a.frames > 1 && r.a.period == 1 && r.a.first == 1 && r.a.down == order && (r.a.step == 1 || order == 1);
      const bool floats = r.in && r.in.dtype == DType::float32 && r.a.dtype == DType::float32 &&
                          (backward || r.out.dtype == DType::float32);
      if (one_behind_the_other && floats)
        return order == 1 ? run_tiles<float, 1, backward>(r, queue, form, memory)
                          : run_tiles<float, 2, backward>(r, queue, form, memory);
      return run_tiles<double, 2, backward>(r, queue, form, memory);
    }
    if (order > 0 && order <= warp_order) {
      const std::int64_t many = (order >= 16 ? 4 : 12) * here.processors;
      const bool whole =
          algorithm == Algorithm::direct || (algorithm == Algorithm::automatic && (r.rows >= many || r.steps() <= 256));
      return whole ? run_warps_directly<backward>(r, queue) : run_warps_chunked<backward>(r, queue, memory);
    }
  }
  return run_serial<State, backward>(r, queue, memory);
}

// So many samples of all rows have what kernels leave each other in double, at a time: most of it stays in the second
// cache. All that is left, where rows are many.
inline std::int64_t stretch_of(std::int64_t rows, std::int64_t samples, std::int64_t least) {
#ifdef __CUDACC__
  constexpr std::int64_t at_once = std::int64_t{1} << 22;
#else
  constexpr std::int64_t at_once = 1 << 10;  // on the emulator: so that small tests come to the borders of stretches
#endif
  const std::int64_t of_row = at_once / maximum<std::int64_t>(rows, 1), enough = maximum<std::int64_t>(least, 256);
  return minimum((maximum(of_row, enough) + 31) / 32 * 32, samples);
}

}  // namespace torch_iir::cuda
