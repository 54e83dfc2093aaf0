// freqz and its gradient: blocks of angles, the angles in SIMD lanes, all sections of a filter one after another in
// registers. Nothing is stored for a section but, backwards, what fits in the first cache.
#include "torch_iir/freqz.h"

#include <cmath>

#include "freqz_polynomials.h"
#include "rows.h"

namespace torch_iir::TORCH_IIR_ISA {
namespace {

// Complex numbers of the library are computed on as our own.
const Matrices<const double>& coefficients(const Matrices<const double>& c) { return c; }
const Matrices<double>& coefficients(const Matrices<double>& c) { return c; }
template <class T>
auto coefficients(const Matrices<T>& c) {
  return as_complex(c);
}

inline constexpr int angles_at_once = 512;  // a block, whose tables and results lie in the first cache
inline constexpr int sections_at_once =
    8;  // forwards: whose products are divided by each other once, far from overflow
#if defined(__AVX512F__)
inline constexpr int vectors_forwards = 4, vectors_backwards = 2;  // at once: as many as there are registers for
#else
inline constexpr int vectors_forwards = 2, vectors_backwards = 1;
#endif
static_assert(angles_at_once % (vectors_forwards * width) == 0);

// The work on a problem in tasks: a block of angles and a row, the rows of a block after each other.
template <class Problem>
struct Tasks {
  explicit Tasks(const Problem& f, std::int64_t rows_)
      : rows(rows_), blocks((f.angles + angles_at_once - 1) / angles_at_once) {}
  std::int64_t rows, blocks;
  std::int64_t count() const { return rows * blocks; }
};

// The angles of a block that rows share are tabulated once.
template <class Problem>
class Table {
 public:
  static std::size_t bytes() { return Angles::bytes(angles_at_once); }
  Table(const Problem& f, Scratch& scratch) : f_(f), angles_(scratch, angles_at_once) {}

  const Angles& of(std::int64_t row, std::int64_t first, int count) {
    const double* w = f_.w ? f_.w.row(f_.batch, row) : nullptr;
    if (first == first_ && w == w_) return angles_;
    if (w != nullptr) {
      for (int i = 0; i < count; ++i) angles_.set(i, 0.5 * w[(first + i) * f_.w.step]);
    } else {
      angles_.set_grid(count, 0.5 * f_.step, first);
    }
    angles_.pad(count, angles_at_once);
    first_ = first;
    w_ = w;
    return angles_;
  }

 private:
  const Problem& f_;
  Angles angles_;
  std::int64_t first_ = -1;
  const double* w_ = nullptr;
};

// ---- forwards ------------------------------------------------------------------------------------------------

// h, without the powers of two that the coefficients were divided by.
template <class Filter>
void respond(const Filter& filter, const Angles& angles, int count, double* re, double* im) {
  constexpr int vectors = vectors_forwards;
  for (int at = 0; at < count; at += vectors * width) {
    Wide h[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) h[v] = {everywhere(1), Doubles{}};
    for (int first = 0; first < filter.sections; first += sections_at_once) {
      const int last = filter.sections < first + sections_at_once ? filter.sections : first + sections_at_once;
      Wide n[vectors], d[vectors];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        n[v] = filter.b(first).at(angles, at + v * width);
        d[v] = filter.a(first).at(angles, at + v * width);
      }
      for (int s = first + 1; s < last; ++s) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
          n[v] = n[v] * filter.b(s).at(angles, at + v * width);
          d[v] = d[v] * filter.a(s).at(angles, at + v * width);
        }
      }
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) h[v] = h[v] * (n[v] * reciprocal(d[v]));
    }
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      store(re + at + v * width, h[v].re);
      store(im + at + v * width, h[v].im);
    }
  }
}

template <class Filter, class Problem>
Status forwards(const Problem& f, const ParallelFor& parallel_for) {
  using Value = typename std::remove_reference_t<decltype(*f.h.data)>::value_type;
  const auto b = coefficients(f.b), a = coefficients(f.a);
  const Tasks<Problem> tasks(f, f.batch.rows());
  const std::int64_t work = std::int64_t{angles_at_once} * f.sections * (f.b_length + f.a_length) / 8;
  return for_ranges(parallel_for, tasks.count(), grain_for(work), [&](std::int64_t first, std::int64_t last) {
    const FlushToZero flush;
    Scratch scratch(Table<Problem>::bytes() + Filter::bytes(f) + 2 * Scratch::bytes<double>(angles_at_once));
    if (!scratch) return false;
    Table<Problem> table(f, scratch);
    Filter filter(f, scratch);
    double *re = scratch.take<double>(angles_at_once), *im = scratch.take<double>(angles_at_once);
    for (std::int64_t task = first; task < last; ++task) {
      const std::int64_t row = task % tasks.rows, begin = task / tasks.rows * angles_at_once;
      const int count = static_cast<int>(f.angles - begin < angles_at_once ? f.angles - begin : angles_at_once);
      filter.read(f.batch, b, a, row);
      respond(filter, table.of(row, begin, count), count, re, im);
      const int half = filter.exponent() / 2;  // the whole power might be infinite where the product is not
      const double scale = std::ldexp(1.0, half), rest = std::ldexp(1.0, filter.exponent() - half);
      Value* values = reinterpret_cast<Value*>(f.h.row(f.batch, row) + begin * f.h.step);
      for (int i = 0; i < count; ++i) {
        values[2 * i * f.h.step] = static_cast<Value>(re[i] * scale * rest);
        values[2 * i * f.h.step + 1] = static_cast<Value>(im[i] * scale * rest);
      }
    }
    return true;
  });
}

// ---- backwards -----------------------------------------------------------------------------------------------

// With r_s = B_s / A_s, R_s the product of the r before s, W_s that of those after it and conj(g): ∂L/∂B_s is
// R_s W_s / A_s, and ∂L/∂A_s is this times −r_s.
template <bool wants_w, class Filter, class Sums>
void respond_backwards(const Filter& filter, const Angles& angles, int count, const double* g_re, const double* g_im,
                       Wide* work, Sums& sums, double* gw) {
  constexpr int vectors = vectors_backwards;
  for (int at = 0; at < count; at += vectors * width) {
    Wide product[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) product[v] = {everywhere(1), Doubles{}};
    Wide* kept = work;  // of each section: 1 / A, r, R
    for (int s = 0; s < filter.sections; ++s, kept += 3 * vectors) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        const Wide inverse = reciprocal(filter.a(s).at(angles, at + v * width));
        const Wide ratio = filter.b(s).at(angles, at + v * width) * inverse;
        kept[3 * v] = inverse;
        kept[3 * v + 1] = ratio;
        kept[3 * v + 2] = product[v];
        product[v] = product[v] * ratio;
      }
    }
    Doubles of_w[vectors] = {};
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      product[v] = {load_doubles(g_re + at + v * width), -load_doubles(g_im + at + v * width)};
    }
    for (int s = filter.sections - 1; s >= 0; --s) {
      kept -= 3 * vectors;
      Wide of_b[vectors], of_a[vectors];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        of_b[v] = kept[3 * v + 2] * product[v] * kept[3 * v];
        of_a[v] = -(of_b[v] * kept[3 * v + 1]);
        product[v] = product[v] * kept[3 * v + 1];
      }
      filter.b(s).template add<vectors, wants_w>(angles, at, of_b, sums.b(s), of_w);
      filter.a(s).template add<vectors, wants_w>(angles, at, of_a, sums.a(s), of_w);
    }
    if constexpr (wants_w) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) store(gw + at + v * width, of_w[v]);
    }
  }
}

template <class T>
void clear_sections(const Batch& batch, Matrices<T> sections, int count, int length) {
  for (int s = 0; s < count; ++s, sections.data += sections.down) clear(batch, sections, length);
}

template <class T>
void add_sections(const Batch& batch, const Matrices<T>& sections, std::int64_t row, int count, int length,
                  const T* sums) {
  if (!sections) return;
  T* to = sections.row(batch, row);
  for (int s = 0; s < count; ++s) {
    for (int k = 0; k < length; ++k) to[s * sections.down + k * sections.step] += *sums++;
  }
}

// The sums of blocks wait for all blocks of their rows, which are then added in order: for so many rows at a time.
template <class Filter, class Problem>
std::int64_t rows_at_once(const Problem& f, std::int64_t blocks) {
  constexpr std::int64_t most = 1 << 20;
  const std::int64_t rows = most / (Filter::gradients(f) * blocks);
  return rows < 1 ? 1 : rows;
}

template <class Filter, class Problem>
Status backwards(const Problem& f, const ParallelFor& parallel_for) {
  using Value = typename std::remove_reference_t<decltype(*f.g.data)>::value_type;
  using Coefficient = typename Filter::Coefficient;
  const auto b = coefficients(f.b), a = coefficients(f.a);
  const auto gb = coefficients(f.gb), ga = coefficients(f.ga);
  clear_sections(f.batch, gb, f.sections, f.b_length);
  clear_sections(f.batch, ga, f.sections, f.a_length);
  clear(f.batch, f.gw, f.angles);
  const std::int64_t rows = f.batch.rows(), gradients = Filter::gradients(f);
  if (rows == 0 || f.angles == 0) return Status::ok;
  const std::int64_t blocks = Tasks<Problem>(f, rows).blocks, most = rows_at_once<Filter>(f, blocks);
  const bool wants_filter = f.gb || f.ga;
  Scratch partial(Scratch::bytes<Coefficient>(wants_filter ? (rows < most ? rows : most) * blocks * gradients : 0));
  if (!partial) return Status::out_of_memory;
  Coefficient* sums = partial.take<Coefficient>(wants_filter ? 1 : 0);
  for (std::int64_t from = 0; from < rows; from += most) {
    const Tasks<Problem> tasks(f, rows - from < most ? rows - from : most);
    // Rows may share a gradient of w: these are added up block by block.
    const std::int64_t per_item = f.gw ? tasks.rows : 1;
    const std::int64_t work = std::int64_t{angles_at_once} * f.sections * (f.b_length + f.a_length) / 2;
    const auto run = [&](std::int64_t first, std::int64_t last) {
      const FlushToZero flush;
      const int padded = angles_at_once;
      Scratch scratch(Table<Problem>::bytes() + Filter::bytes(f) + 3 * Scratch::bytes<double>(padded) +
                      Scratch::bytes<Wide>(3 * vectors_backwards * f.sections) + Filter::Sums::bytes(f));
      if (!scratch) return false;
      Table<Problem> table(f, scratch);
      Filter filter(f, scratch);
      double *re = scratch.take<double>(padded), *im = scratch.take<double>(padded), *gw = scratch.take<double>(padded);
      Wide* kept = scratch.take<Wide>(3 * vectors_backwards * f.sections);
      typename Filter::Sums block_sums(f, scratch);
      for (std::int64_t task = first * per_item; task < last * per_item; ++task) {
        const std::int64_t row = from + task % tasks.rows, begin = task / tasks.rows * angles_at_once;
        const int count = static_cast<int>(f.angles - begin < padded ? f.angles - begin : padded);
        const auto* g = f.g.row(f.batch, row) + begin * f.g.step;
        for (int i = 0; i < count; ++i) {
          const auto* pair = reinterpret_cast<const Value*>(g + i * f.g.step);
          re[i] = pair[0];
          im[i] = pair[1];
        }
        for (int i = count; i < padded; ++i) re[i] = im[i] = 0;
        filter.read(f.batch, b, a, row);
        const Angles& angles = table.of(row, begin, count);
        block_sums.clear();
        if (f.gw) {
          respond_backwards<true>(filter, angles, count, re, im, kept, block_sums, gw);
          double* to = f.gw.row(f.batch, row) + begin * f.gw.step;
          for (int i = 0; i < count; ++i) to[i * f.gw.step] += std::ldexp(gw[i], filter.exponent());
        } else {
          respond_backwards<false>(filter, angles, count, re, im, kept, block_sums, nullptr);
        }
        if (wants_filter) filter.finish(block_sums, sums + task * gradients);
      }
      return true;
    };
    const Status status = for_ranges(parallel_for, tasks.count() / per_item, grain_for(work * per_item), run);
    if (status != Status::ok) return status;
    if (!wants_filter) continue;
    for (std::int64_t task = 0; task < tasks.count(); ++task) {  // each row's blocks in order
      const std::int64_t row = from + task % tasks.rows;
      const Coefficient* sum = sums + task * gradients;
      add_sections(f.batch, gb, row, f.sections, f.b_length, sum);
      add_sections(f.batch, ga, row, f.sections, f.a_length, sum + std::int64_t{f.sections} * f.b_length);
    }
  }
  return Status::ok;
}

// ---- either form of the polynomials ---------------------------------------------------------------------------

template <class Problem>
bool short_sections(const Problem& f) {
  return f.b_length <= 3 && f.a_length <= 3;
}

template <class Value, class Coefficient>
Status run(const Freqz<Value, Coefficient>& f, const ParallelFor& parallel_for) {
  using Number = std::conditional_t<std::is_same_v<Coefficient, double>, double, Complex>;
  if (f.batch.rows() == 0 || f.angles == 0) return Status::ok;
  return short_sections(f) ? forwards<Filter<Number, Centred>>(f, parallel_for)
                           : forwards<Filter<Number, Horner>>(f, parallel_for);
}

template <class Value, class Coefficient>
Status run(const FreqzBackward<Value, Coefficient>& f, const ParallelFor& parallel_for) {
  using Number = std::conditional_t<std::is_same_v<Coefficient, double>, double, Complex>;
  return short_sections(f) ? backwards<Filter<Number, Centred>>(f, parallel_for)
                           : backwards<Filter<Number, Horner>>(f, parallel_for);
}

}  // namespace

#define TORCH_IIR_FREQZ(...)                                                                 \
  Status freqz(const Freqz<__VA_ARGS__>& f, const Context& c) noexcept { return run(f, c); } \
  Status freqz_backward(const FreqzBackward<__VA_ARGS__>& f, const Context& c) noexcept { return run(f, c); }

TORCH_IIR_FREQZ(float)
TORCH_IIR_FREQZ(double)
TORCH_IIR_FREQZ(float, std::complex<double>)
TORCH_IIR_FREQZ(double, std::complex<double>)

}  // namespace torch_iir::TORCH_IIR_ISA
