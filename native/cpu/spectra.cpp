// Products of spectra: numbers lie as pairs, so that a vector holds the real and imaginary parts of half as many.
#include "torch_iir/spectra.h"

#include "rows.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

inline constexpr std::int64_t bins_at_once = 1024;

// The real or imaginary parts in both places of each pair, and the parts exchanged.
template <bool imaginary>
struct Both {
  static constexpr int of(int i) { return i / 2 * 2 + (imaginary ? 1 : 0); }
};
struct Exchanged {
  static constexpr int of(int i) { return i % 2 == 0 ? i + 1 : i - 1; }
};

template <class T, int n>
struct Pairs {
  using V = Vector<T, n>;
  static constexpr auto all = std::make_index_sequence<n>{};

  static V signs(bool conjugate) {  // of the imaginary parts of h in the product's real and imaginary part
    V result{};
    for (int i = 0; i < n; ++i) result[i] = (i % 2 == 0) == conjugate ? 1 : -1;
    return result;
  }
  TORCH_IIR_INLINE static V product(V x, V h, V signs) {
    return x * permute<Both<false>>(h, h, all) +
           permute<Exchanged>(x, x, all) * (permute<Both<true>>(h, h, all) * signs);
  }
};

template <class Value, class Sum>
void multiply(const Value* x, const Value* h, Sum* y, std::int64_t numbers, bool conjugate, bool add) {
  // Sums in double take what fills a vector of doubles.
  constexpr int n = std::is_same_v<Value, Sum> ? vector_bytes / static_cast<int>(sizeof(Value)) : width;
  using P = Pairs<Sum, n>;
  using V = typename P::V;
  const V signs = P::signs(conjugate);
  const auto number = [](const Value* from) {
    if constexpr (std::is_same_v<Value, Sum>) {
      return load<V>(from);
    } else {
      return load_doubles(from);
    }
  };
  const std::int64_t values = 2 * numbers;
  std::int64_t i = 0;
  for (; i + n <= values; i += n) {
    const V product = P::product(number(x + i), number(h + i), signs);
    store(y + i, add ? load<V>(y + i) + product : product);
  }
  for (; i < values; i += 2) {
    const Sum re = h[i], im = conjugate ? -h[i + 1] : h[i + 1], x_re = x[i], x_im = x[i + 1];
    y[i] = (add ? y[i] : 0) + (x_re * re - x_im * im);
    y[i + 1] = (add ? y[i + 1] : 0) + (x_re * im + x_im * re);
  }
}

template <class Value, class Sum>
Status run(const SpectralProduct<Value, Sum>& f, const ParallelFor& parallel_for) {
  const std::int64_t blocks = (f.bins + bins_at_once - 1) / bins_at_once;
  // Products that are added up share their y: each block of bins has one thread, which takes the rows in order.
  const std::int64_t rows = f.add ? f.count : 1, tasks = f.add ? blocks : blocks * f.count;
  return for_ranges(parallel_for, tasks, grain_for(rows * bins_at_once), [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t task = first; task < last; ++task) {
      const std::int64_t begin = task % blocks * bins_at_once;
      const std::int64_t count = f.bins - begin < bins_at_once ? f.bins - begin : bins_at_once;
      for (std::int64_t i = task / blocks; i < task / blocks + rows; ++i) {
        multiply(reinterpret_cast<const Value*>(f.x[i] + begin), reinterpret_cast<const Value*>(f.h[i] + begin),
                 reinterpret_cast<Sum*>(f.y[i] + begin), count, f.conjugate, f.add);
      }
    }
    return true;
  });
}

}  // namespace

Status spectral_product(const SpectralProduct<float>& f, const Context& c) noexcept { return run(f, c); }
Status spectral_product(const SpectralProduct<double>& f, const Context& c) noexcept { return run(f, c); }
Status spectral_product(const SpectralProduct<float, double>& f, const Context& c) noexcept { return run(f, c); }

}  // namespace torch_iir::TORCH_IIR_ISA
