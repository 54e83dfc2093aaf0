// freqz and freqz_backward on CUDA.
//
// Forwards, a block has some hundred angles, cosine and sine of which it takes once, and one filter after another.
// The gradient of the angles is the same with derivatives carried along, and summed over the filters.
//
// The gradients of the coefficients are sums over angles. A block has a few sections of a filter, whose sums are in
// registers of its threads, and angle after angle. With N = Π B_s and D = Π A_s, of these sections, and u = conj(g) / D
// times the response of all other sections,
//
//   ∂L/∂B_s = u Π_{j≠s} B_j        ∂L/∂A_s = −u N / D Π_{j≠s} A_j
//
// so that nothing is divided by a B_s, and one number inverted for all. Blocks leave their sums in scratch memory, and
// a second kernel adds them up, block after block, over the rows that share a gradient, too.
//
// Nothing is shared between blocks but what a kernel leaves for the next one, so that no access races; in a block, what
// threads leave each other in shared memory lies between two barriers.
//
// Counted, not measured, for real coefficients, sections of at most 3, operations of the pipe for doubles, of which a
// multiprocessor of compute capability 9.0 starts 64 a cycle:
//   forwards    12 a section and angle, 22 for every 8 sections, 28 an angle for each group of filters; writes 8 or 16
//               bytes an angle. 128 filters × 8 sections × 16385 angles: 201 + 46 + 8 M, 18 µs, while the 17 MB that
//               are
//               written take 4
//   backwards   37 a section and angle up to 4 sections, 54 for 8, 28 an angle; reads 8 or 16 bytes an angle for every
//   4
//               sections. The same filters: 0.97 G, 67 µs, while the 34 MB that are read take 8
// Blocks have 128 threads. Forwards, 2.3 KB of shared memory (complex 4.3, longer sections 4 and 8) and 104 registers
// (138), so that 4 blocks (3) are on a multiprocessor; backwards 3 KB (5, 28 and 32) and 164 registers, 92 for one
// section, so that there are 3 and 5. There are about 8 blocks a multiprocessor, if there are as many angles.
#include "freqz_sections.h"
#include "launch.h"

namespace torch_iir::cuda {
namespace {

// ---- complex rows of either precision -------------------------------------------------------------------------------

template <class T>
struct Responses : AnyRows<T> {
  bool aligned = false;  // each number to its own size, as the language does not promise
  Responses() = default;
  template <class Value>
  explicit Responses(const Rows<Value>& rows)
      : AnyRows<T>(rows.data, sizeof(*rows.data) == 8 ? DType::complex64 : DType::complex128, rows.step),
        aligned(reinterpret_cast<std::uintptr_t>(rows.data) % sizeof(*rows.data) == 0) {
    for (int d = 0; d < max_batch_dims; ++d) this->stride[d] = rows.stride[d];
  }
};

TORCH_IIR_GPU Complex load_number(const Responses<const std::complex<double>>& rows, std::int64_t at) {
  return rows.aligned ? load_pair(rows.data, rows.dtype == DType::complex128, at) : load(rows, at);
}
TORCH_IIR_GPU void store_number(const Responses<std::complex<double>>& rows, std::int64_t at, Complex value) {
  rows.aligned ? store_pair(rows.data, rows.dtype == DType::complex128, at, value) : store(rows, at, value);
}

struct Angles {
  std::int64_t count = 0;
  AnyRows<const double> w;  // null: k · step
  double step = 0;

  TORCH_IIR_GPU double at(std::int64_t row, std::int64_t k) const {
    return w ? load(w, row + k * w.step) : step * static_cast<double>(k);
  }
};

// ---- forwards, and the gradient of the angles -----------------------------------------------------------------------

// Rows lie so that those that share what a block keeps, angles or a sum, follow each other: `sharing` of them. A task
// is
// some of these rows and a chunk of angles.
template <class State>
struct Forwards {
  Cascades<State> filters;
  Angles angles;
  std::int64_t sharing = 1, rows_at_once = 1, slices = 1, chunks = 1, tasks = 0;
  Responses<std::complex<double>> h;
  Responses<const std::complex<double>> g;  // for the gradient of the angles
  AnyRows<double> gw;
  double* partial = nullptr;  // owners × slices × angles, where a sum has several tasks
};

template <class Element>
inline constexpr int angles_of_thread = std::is_same_v<Element, Complex> ? 2 : 1;

// Element is Complex, or Dual for the gradient of the angles.
template <class State, template <class> class Form, class Element>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(freqz_threads, Form<State>::resident) respond(Forwards<State> p) {
  constexpr int count = angles_of_thread<Element>;
  constexpr bool slopes = std::is_same_v<Element, Dual>;
  auto& shared = *reinterpret_cast<typename Form<State>::Shared*>(shared_memory());
  const int sections = p.filters.sections;
  for (std::int64_t task = block(); task < p.tasks; task += blocks()) {
    const std::int64_t chunk = task % p.chunks, slice = task / p.chunks % p.slices;
    const std::int64_t owner = task / p.chunks / p.slices;
    const std::int64_t first = owner * p.sharing + slice * p.rows_at_once;
    const std::int64_t last = minimum(first + p.rows_at_once, (owner + 1) * p.sharing);
    std::int64_t k[count];
    TORCH_IIR_UNROLL
    for (int i = 0; i < count; ++i) k[i] = (chunk * count + i) * freqz_threads + thread();
    Angle angles[count];
    std::int64_t angles_row = -1;
    double sum = 0;

    Form<State> form(p.filters, shared, first, last - first);
    std::int64_t unit = 0;
    for (std::int64_t row = first; row < last; ++row) {
      const std::int64_t w_row = p.angles.w ? offset_of(p.filters.batch, p.angles.w.stride, row) : 0;
      if (row == first || w_row != angles_row) {
        TORCH_IIR_UNROLL
        for (int i = 0; i < count; ++i)  // a thread beyond the last angle has that one
          angles[i] = Angle::of(p.angles.at(w_row, minimum(k[i], p.angles.count - 1)));
        angles_row = w_row;
      }
      Element h[count];
      int exponents[count];
      TORCH_IIR_UNROLL
      for (int i = 0; i < count; ++i) {
        h[i] = Element(Complex(1.0));
        exponents[i] = 0;
      }
      for (int s = 0; s < sections;) {
        const int end = minimum(s + sections_at_once, sections);
        Element n[count], d[count];
        TORCH_IIR_UNROLL
        for (int i = 0; i < count; ++i) n[i] = d[i] = Element(Complex(1.0));
        TORCH_IIR_NO_UNROLL
        for (; s < end; ++s, ++unit) {
          Element b[count], a[count];
          form.evaluate(unit, angles, b, a, exponents);
          TORCH_IIR_UNROLL
          for (int i = 0; i < count; ++i) {
            n[i] = n[i] * b[i];
            d[i] = d[i] * a[i];
          }
        }
        TORCH_IIR_UNROLL
        for (int i = 0; i < count; ++i) h[i] = h[i] * (n[i] * reciprocal(d[i]));
      }
      if constexpr (slopes) {
        if (k[0] < p.angles.count) {
          const std::int64_t g_row = offset_of(p.filters.batch, p.g.stride, row);
          const Complex g = load_number(p.g, g_row + k[0] * p.g.step), slope = h[0].slope;
          sum += scaled(g.re * slope.re + g.im * slope.im, exponents[0]);
        }
      } else {
        const std::int64_t h_row = offset_of(p.filters.batch, p.h.stride, row);
        TORCH_IIR_UNROLL
        for (int i = 0; i < count; ++i) {
          if (k[i] < p.angles.count) store_number(p.h, h_row + k[i] * p.h.step, scaled(h[i], exponents[i]));
        }
      }
    }
    if constexpr (slopes) {
      if (k[0] < p.angles.count) {
        if (p.partial != nullptr) {
          p.partial[(owner * p.slices + slice) * p.angles.count + k[0]] = sum;
        } else {
          store(p.gw, offset_of(p.filters.batch, p.gw.stride, owner * p.sharing) + k[0] * p.gw.step, sum);
        }
      }
    }
  }
}

// gw, from the sums of tasks. Of rows only those are in the batch that own a gradient.
struct AngleSums {
  Batch batch;
  std::int64_t angles = 0, slices = 0;
  const double* partial = nullptr;
  AnyRows<double> gw;
};

TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(freqz_threads, 1) add_angles(AngleSums p) {
  const std::int64_t count = p.batch.rows() * p.angles;
  for (std::int64_t i = block() * freqz_threads + thread(); i < count; i += blocks() * freqz_threads) {
    const std::int64_t row = i / p.angles, k = i % p.angles;
    double sum = 0;
    for (std::int64_t slice = 0; slice < p.slices; ++slice) sum += p.partial[(row * p.slices + slice) * p.angles + k];
    store(p.gw, offset_of(p.batch, p.gw.stride, row) + k * p.gw.step, sum);
  }
}

// ---- the gradients of coefficients ----------------------------------------------------------------------------------

// A result is the gradient of one filter, over `sharing` rows that follow each other. Its items, rows × angles, are cut
// into slices; a task is a slice, and a slab of sections.
template <class State>
struct Backwards {
  Cascades<State> filters;
  Angles angles;
  Responses<const std::complex<double>> g;
  std::int64_t sharing = 1, slices = 1, per_slice = 0, slabs = 1, tasks = 0;
  Computed<State>* partial = nullptr;  // results × coefficients (all b, then all a) × slices
};

struct Task {
  std::int64_t slab, slice, result;

  template <class State>
  TORCH_IIR_GPU Task(const Backwards<State>& p, std::int64_t number)
      : slab(number % p.slabs), slice(number / p.slabs % p.slices), result(number / p.slabs / p.slices) {}
};

// What a thread reads of an item.
struct Item {
  double w = 0;
  Complex g;
  bool valid = false;

  // Of no item there is the angle 0.
  template <class State>
  TORCH_IIR_GPU Item(const Backwards<State>& p, std::int64_t first_row, std::int64_t item, std::int64_t end)
      : valid(item < end) {
    if (!valid) return;
    const std::int64_t row = first_row + (p.sharing == 1 ? 0 : item / p.angles.count);
    const std::int64_t k = p.sharing == 1 ? item : item % p.angles.count;
    w = p.angles.at(p.angles.w ? offset_of(p.filters.batch, p.angles.w.stride, row) : 0, k);
    g = load_number(p.g, offset_of(p.filters.batch, p.g.stride, row) + k * p.g.step);
  }
};

// e_i = u Π_{j≠i} p_j
TORCH_IIR_GPU void all_but_own(const Complex (&p)[1], Complex u, Complex (&e)[1]) {
  static_cast<void>(p);
  e[0] = u;
}
TORCH_IIR_GPU void all_but_own(const Complex (&p)[2], Complex u, Complex (&e)[2]) {
  e[0] = u * p[1];
  e[1] = u * p[0];
}
TORCH_IIR_GPU void all_but_own(const Complex (&p)[4], Complex u, Complex (&e)[4]) {
  const Complex left = u * (p[0] * p[1]), right = u * (p[2] * p[3]);
  e[0] = right * p[1];
  e[1] = right * p[0];
  e[2] = left * p[3];
  e[3] = left * p[2];
}
template <int count>
TORCH_IIR_GPU Complex product(const Complex (&p)[count]) {
  if constexpr (count == 1) {
    return p[0];
  } else if constexpr (count == 2) {
    return p[0] * p[1];
  } else {
    return (p[0] * p[1]) * (p[2] * p[3]);
  }
}

// From the values of a slab's polynomials to what their gradients are sums of.
template <int slab>
TORCH_IIR_GPU void differentiate(const Complex (&n)[slab], const Complex (&d)[slab], Complex of_others,
                                 Complex (&of_b)[slab], Complex (&of_a)[slab]) {
  const Complex inverse = reciprocal(product(d)), u = of_others * inverse;
  all_but_own(n, u, of_b);
  all_but_own(d, -(u * (product(n) * inverse)), of_a);
}

// conj(g) times the response of all sections but those of a slab.
template <class Form>
TORCH_IIR_GPU Complex others(Form& form, int sections, int slab_begin, int slab_end, const Angle (&angle)[1], Complex g,
                             int& exponent) {
  Complex h = {g.re, -g.im};
  int exponents[1] = {0};
  for (int s = slab_begin == 0 ? slab_end : 0; s < sections;) {
    Complex n = 1.0, d = 1.0;
    TORCH_IIR_NO_UNROLL
    for (int at_once = 0; at_once < sections_at_once && s < sections; ++at_once) {
      Complex b[1], a[1];
      form.evaluate(s, angle, b, a, exponents);
      n = n * b[0];
      d = d * a[0];
      if (++s == slab_begin) s = slab_end;
    }
    h = h * (n * reciprocal(d));
  }
  exponent = exponents[0];
  return h;
}

// Sections of at most 3 coefficients, `slab` of them, whose sums threads have in registers.
template <class State, int slab>
struct SlabShared {
  typename Centred<State>::Shared filter;
  double sums[freqz_threads / warp_size][slab][2][Centred<State>::sums];
};

template <class State, int slab>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(freqz_threads, 3) sum_sections(Backwards<State> p) {
  using Form = Centred<State>;
  auto& shared = *reinterpret_cast<SlabShared<State, slab>*>(shared_memory());
  const int sections = p.filters.sections, b_length = p.filters.b_length, a_length = p.filters.a_length;
  for (std::int64_t number = block(); number < p.tasks; number += blocks()) {
    const Task task(p, number);
    const std::int64_t first_row = task.result * p.sharing, begin = task.slice * p.per_slice;
    const std::int64_t end = minimum(begin + p.per_slice, p.sharing * p.angles.count);
    const int slab_begin = static_cast<int>(task.slab) * slab, slab_end = minimum(slab_begin + slab, sections);
    double sums[slab][2][Form::sums] = {};
    Form form(p.filters, shared.filter, first_row, 1);

    Item next(p, first_row, begin + thread(), end);
    for (std::int64_t item = begin; item < end; item += freqz_threads) {
      const Item now = next;
      next = Item(p, first_row, item + freqz_threads + thread(), end);  // under way while this one is computed on
      const Angle angle[1] = {Angle::of(now.w)};
      int exponent;  // counted at the end
      const Complex of_others = others(form, sections, slab_begin, slab_end, angle, now.g, exponent);
      Complex n[slab], d[slab], of_b[slab], of_a[slab];
      TORCH_IIR_UNROLL
      for (int i = 0; i < slab; ++i) {
        Complex b[1], a[1];
        int exponents[1] = {0};
        form.evaluate(slab_begin + i, angle, b, a, exponents);  // beyond the last section: 1
        n[i] = b[0];
        d[i] = a[0];
      }
      differentiate(n, d, of_others, of_b, of_a);
      if (now.valid) {
        TORCH_IIR_UNROLL
        for (int i = 0; i < slab; ++i) {
          Form::add(angle[0], of_b[i], sums[i][0]);
          Form::add(angle[0], of_a[i], sums[i][1]);
        }
      }
    }

    TORCH_IIR_UNROLL
    for (int i = 0; i < slab; ++i) {
      TORCH_IIR_UNROLL
      for (int which = 0; which < 2; ++which) {
        TORCH_IIR_UNROLL
        for (int j = 0; j < Form::sums; ++j) {
          double sum = sums[i][which][j];
          TORCH_IIR_UNROLL
          for (int mask = warp_size / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
          if (lane() == 0) shared.sums[warp()][i][which][j] = sum;
        }
      }
    }
    int exponent = 0;
    for (int s = 0; s < sections; ++s) {
      form.ensure(s);
      exponent += form.exponent(s, 0) - form.exponent(s, 1);
    }
    form.ensure(slab_begin);
    sync();
    const int coefficients = (slab_end - slab_begin) * (b_length + a_length);
    for (int c = thread(); c < coefficients; c += freqz_threads) {
      const int i = c / (b_length + a_length), place = c % (b_length + a_length), which = place < b_length ? 0 : 1;
      const int k = which == 0 ? place : place - b_length;
      double total[Form::sums] = {};
      for (int w = 0; w < freqz_threads / warp_size; ++w) {
        TORCH_IIR_UNROLL
        for (int j = 0; j < Form::sums; ++j) total[j] += shared.sums[w][i][which][j];
      }
      const int section = slab_begin + i;
      const std::int64_t element = which == 0
                                       ? std::int64_t{section} * b_length + k
                                       : std::int64_t{sections} * b_length + std::int64_t{section} * a_length + k;
      const std::int64_t elements = std::int64_t{sections} * (b_length + a_length);
      p.partial[(task.result * elements + element) * p.slices + task.slice] =
          scaled(Form::gradient(total, k), exponent - form.exponent(section, which));
    }
  }
}

// Sections of any length. A thread's values of the slab, and then what the gradients are sums of, lie in shared memory;
// for every coefficient the latter is turned by e^−jw and summed over the warp, eight numbers at a time.
inline constexpr int long_slab = 4;
inline constexpr int sums_at_once = 256;  // that wait in shared memory

template <class State>
struct LongShared {
  typename Horner<State>::Shared filter;
  Complex polynomials[long_slab][2][freqz_threads];
  double sums[freqz_threads / warp_size][sums_at_once];
};

// The sum over the warp of number j of eight, for lanes 4 j … 4 j + 3.
TORCH_IIR_GPU double sum_over_warp(double (&values)[8]) {
  TORCH_IIR_UNROLL
  for (int kept = 4, mask = 16; kept > 0; kept /= 2, mask /= 2) {
    const bool upper = (lane() & mask) != 0;
    TORCH_IIR_UNROLL
    for (int j = 0; j < kept; ++j) {
      const double mine = upper ? values[j + kept] : values[j], other = upper ? values[j] : values[j + kept];
      values[j] = mine + shuffle_xor(other, mask);
    }
  }
  double sum = values[0];
  sum += shuffle_xor(sum, 2);
  return sum + shuffle_xor(sum, 1);
}

template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(freqz_threads, 3) sum_long_sections(Backwards<State> p) {
  using Form = Horner<State>;
  constexpr int parts = Form::complex ? 2 : 1, coefficients_at_once = 8 / parts;
  auto& shared = *reinterpret_cast<LongShared<State>*>(shared_memory());
  const int sections = p.filters.sections;
  const std::int64_t b_length = p.filters.b_length, a_length = p.filters.a_length;
  const std::int64_t elements = sections * (b_length + a_length);
  for (std::int64_t number = block(); number < p.tasks; number += blocks()) {
    const Task task(p, number);
    const std::int64_t first_row = task.result * p.sharing, begin = task.slice * p.per_slice;
    const std::int64_t end = minimum(begin + p.per_slice, p.sharing * p.angles.count);
    const int slab_begin = static_cast<int>(task.slab) * long_slab;
    const int slab_end = minimum(slab_begin + long_slab, sections);
    const std::int64_t of_b_alone = (slab_end - slab_begin) * b_length;
    Form form(p.filters, shared.filter, first_row, 1);
    for (int i = thread(); i < sums_at_once; i += freqz_threads) {
      for (auto& of_warp : shared.sums) of_warp[i] = 0;
    }
    sync();

    // Numbers [first, last) of the slab's go from shared memory to that of the device: the first time there is nothing
    // there. A number has the same thread each time.
    const auto flush = [&](std::int64_t first, std::int64_t last, bool fresh) {
      sync();
      auto* const partial = reinterpret_cast<double*>(p.partial);
      for (std::int64_t at = first + thread(); at < last; at += freqz_threads) {
        double sum = 0;
        for (auto& of_warp : shared.sums) {
          sum += of_warp[at - first];
          of_warp[at - first] = 0;
        }
        const std::int64_t in_slab = at / parts;
        const std::int64_t element = in_slab < of_b_alone
                                         ? slab_begin * b_length + in_slab
                                         : sections * b_length + slab_begin * a_length + (in_slab - of_b_alone);
        double& to = partial[((task.result * elements + element) * p.slices + task.slice) * parts + at % parts];
        to = fresh ? sum : to + sum;
      }
      sync();
    };
    const std::int64_t of_slab = (slab_end - slab_begin) * (b_length + a_length) * parts;
    // What a polynomial's last group of eight has too many is not there.
    const bool stays = of_slab <= sums_at_once;

    for (std::int64_t item = begin; item < end; item += freqz_threads) {
      const Item now(p, first_row, item + thread(), end);
      const Angle angle[1] = {Angle::of(now.w)};
      int exponent;
      const Complex of_others = others(form, sections, slab_begin, slab_end, angle, now.g, exponent);
      TORCH_IIR_NO_UNROLL
      for (int i = 0; i < slab_end - slab_begin; ++i) {
        Complex b[1], a[1];
        form.evaluate(slab_begin + i, angle, b, a);
        shared.polynomials[i][0][thread()] = b[0];
        shared.polynomials[i][1][thread()] = a[0];
      }
      Complex n[long_slab], d[long_slab], of_b[long_slab], of_a[long_slab];
      int n_exponents[long_slab], d_exponents[long_slab];
      TORCH_IIR_UNROLL
      for (int i = 0; i < long_slab; ++i) {
        const bool there = i < slab_end - slab_begin;
        n[i] = there ? shared.polynomials[i][0][thread()] : Complex(1.0);
        d[i] = there ? shared.polynomials[i][1][thread()] : Complex(1.0);
        n_exponents[i] = normalise(n[i]);
        d_exponents[i] = normalise(d[i]);
        exponent += n_exponents[i] - d_exponents[i];
      }
      differentiate(n, d, of_others, of_b, of_a);
      TORCH_IIR_UNROLL
      for (int i = 0; i < long_slab; ++i) {
        const Complex none = 0.0;
        shared.polynomials[i][0][thread()] = now.valid ? scaled(of_b[i], exponent - n_exponents[i]) : none;
        shared.polynomials[i][1][thread()] = now.valid ? scaled(of_a[i], exponent - d_exponents[i]) : none;
      }

      std::int64_t done = 0, window = 0;
      TORCH_IIR_NO_UNROLL
      for (int polynomial = 0; polynomial < 2 * (slab_end - slab_begin); ++polynomial) {
        const int which = polynomial < slab_end - slab_begin ? 0 : 1;
        const int i = which == 0 ? polynomial : polynomial - (slab_end - slab_begin);
        const std::int64_t length = which == 0 ? b_length : a_length;
        Complex turned = shared.polynomials[i][which][thread()];
        for (std::int64_t k = 0; k < length; k += coefficients_at_once) {
          const int count = static_cast<int>(minimum<std::int64_t>(length - k, coefficients_at_once)) * parts;
          if (done + count - window > sums_at_once) {
            flush(window, done, item == begin);
            window = done;
          }
          double values[8];
          TORCH_IIR_UNROLL
          for (int j = 0; j < 8; j += parts) {
            values[j] = turned.re;
            if constexpr (Form::complex) values[j + 1] = -turned.im;
            turned = Form::delayed(turned, angle[0]);
          }
          const double sum = sum_over_warp(values);
          if (lane() % 4 == 0 && lane() / 4 < count) shared.sums[warp()][done - window + lane() / 4] += sum;
          done += count;
        }
      }
      if (!stays) flush(window, done, item == begin);
    }
    if (stays) flush(0, of_slab, true);
  }
}

// A gradient from the sums of tasks: a warp for each number. Results are those of the rows that own one, `outer`, and
// of
// those that share it, `inner`.
template <class State>
struct CoefficientSums {
  Batch outer, inner;
  std::int64_t outer_stride[max_batch_dims] = {}, inner_stride[max_batch_dims] = {};  // in results
  int sections = 1, length = 1;
  std::int64_t slices = 0;               // 0: of nothing
  std::int64_t begin = 0, elements = 0;  // of these coefficients among all of a result's
  const Computed<State>* partial = nullptr;
  AnyMatrices<State> to;
};

template <class State>
TORCH_IIR_KERNEL void TORCH_IIR_BOUNDS(freqz_threads, 1) add_coefficients(CoefficientSums<State> p) {
  const std::int64_t own = std::int64_t{p.sections} * p.length, inner = p.slices == 0 ? 0 : p.inner.rows();
  const std::int64_t count = p.outer.rows() * own, step = blocks() * (freqz_threads / warp_size);
  for (std::int64_t i = block() * (freqz_threads / warp_size) + warp(); i < count; i += step) {
    const std::int64_t row = i / own, place = i % own, section = place / p.length, k = place % p.length;
    const std::int64_t first = offset_of(p.outer, p.outer_stride, row);
    Computed<State> sum = 0.0;
    const auto add = [&](std::int64_t result, std::int64_t slice) {
      sum = sum + p.partial[((first + result) * p.elements + p.begin + place) * p.slices + slice];
    };
    if (inner == 1) {
      for (std::int64_t slice = lane(); slice < p.slices; slice += warp_size) add(0, slice);
    } else {
      for (std::int64_t term = lane(); term < inner * p.slices; term += warp_size)
        add(offset_of(p.inner, p.inner_stride, term / p.slices), term % p.slices);
    }
    TORCH_IIR_UNROLL
    for (int mask = warp_size / 2; mask > 0; mask /= 2) {
      if constexpr (std::is_same_v<State, double>) {
        sum += shuffle_xor(sum, mask);
      } else {
        sum = sum + Complex(shuffle_xor(sum.re, mask), shuffle_xor(sum.im, mask));
      }
    }
    if (lane() == 0) store(p.to, offset_of(p.outer, p.to.stride, row) + section * p.to.down + k * p.to.step, sum);
  }
}

// ---- on the host ----------------------------------------------------------------------------------------------------

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The dimensions of a batch in another order: those that `last` says at the end. Dimensions of size 1 are left out.
struct Order {
  Batch batch;
  int from[max_batch_dims];
  int owner_dims = 0;
  std::int64_t owners = 1, sharing = 1;  // rows of the first dimensions, and of the last

  template <class Last>
  Order(const Batch& old, Last&& last) {
    for (const bool at_end : {false, true}) {
      for (int d = 0; d < old.dims; ++d) {
        if (old.size[d] == 1 || last(d) != at_end) continue;
        from[batch.dims] = d;
        batch.size[batch.dims++] = old.size[d];
        (at_end ? sharing : owners) *= old.size[d];
        if (!at_end) owner_dims = batch.dims;
      }
    }
  }
  template <class R>
  R of(R rows) const {
    const R old = rows;
    for (int d = 0; d < batch.dims; ++d) rows.stride[d] = old.stride[from[d]];
    return rows;
  }
  Batch owners_batch() const {
    Batch result = batch;
    result.dims = owner_dims;
    return result;
  }
  template <class State, class Problem>
  Cascades<State> filters(const Problem& f) const {
    Cascades<State> result;
    result.batch = batch;
    result.sections = f.sections;
    result.b_length = f.b_length;
    result.a_length = f.a_length;
    result.b = of(f.b);
    result.a = of(f.a);
    return result;
  }
  template <class Problem>
  Angles angles(const Problem& f) const {
    return {f.angles, of(f.w), f.step};
  }
};

template <class Problem>
bool short_sections(const Problem& f) {
  return f.b_length <= 3 && f.a_length <= 3;
}

// Blocks that fill the device, as far as there is work: fewer have longer tasks, and take what these share less often.
std::int64_t enough_blocks(std::int64_t per_processor) { return per_processor * device().processors; }

template <class Element, class State>
void cut(const Order& order, Forwards<State>& p) {
  p.sharing = order.sharing;
  p.chunks = ceil_div(p.angles.count, freqz_threads * angles_of_thread<Element>);
  p.rows_at_once =
      maximum<std::int64_t>(minimum(order.sharing, order.owners * order.sharing * p.chunks / enough_blocks(8)), 1);
  p.slices = ceil_div(order.sharing, p.rows_at_once);
  p.tasks = order.owners * p.slices * p.chunks;
}

template <class Element, class State>
Status launch_respond(const Queue& queue, const Forwards<State>& p, bool short_ones) {
  const std::int64_t blocks = minimum(p.tasks, most_blocks);
  return short_ones ? launch(queue, {blocks, freqz_threads, sizeof(typename Centred<State>::Shared)},
                             respond<State, Centred, Element>, p)
                    : launch(queue, {blocks, freqz_threads, sizeof(typename Horner<State>::Shared)},
                             respond<State, Horner, Element>, p);
}

template <class Value, class State>
Status run(const Freqz<Value, State>& f, const Queue& queue) {
  if (f.batch.rows() == 0 || f.angles == 0) return Status::ok;
  const Order order(f.batch, [&](int d) { return !f.w || f.w.stride[d] == 0; });
  Forwards<State> p;
  p.filters = order.filters<State>(f);
  p.angles = order.angles(f);
  p.h = order.of(Responses<std::complex<double>>(f.h));
  cut<Complex>(order, p);
  return launch_respond<Complex>(queue, p, short_sections(f));
}

// gw
template <class Value, class State>
Status run_angles(const FreqzBackward<Value, State>& f, const Queue& queue) {
  const Order order(f.batch, [&](int d) { return f.gw.stride[d] == 0; });
  const bool anything = f.batch.rows() > 0 && f.angles > 0;
  Scratch scratch(queue);
  Forwards<State> p;
  p.gw = order.of(f.gw);
  if (anything) {
    p.filters = order.filters<State>(f);
    p.angles = order.angles(f);
    p.g = order.of(Responses<const std::complex<double>>(f.g));
    cut<Dual>(order, p);
    if (p.slices > 1) p.partial = scratch.take<double>(order.owners * p.slices * f.angles);
    if (!scratch.ok()) return Status::out_of_memory;
    const Status status = launch_respond<Dual>(queue, p, short_sections(f));
    if (status != Status::ok || p.slices == 1) return status;
  }
  const AngleSums sums{order.owners_batch(), f.angles, anything ? p.slices : 0, p.partial, p.gw};
  const std::int64_t count = order.owners * f.angles;
  if (count == 0) return Status::ok;
  return launch(queue, {minimum(ceil_div(count, freqz_threads), most_blocks), freqz_threads}, add_angles, sums);
}

template <class State>
Status add_up(const Queue& queue, const Batch& results, const Backwards<State>& p, std::int64_t slices, int length,
              std::int64_t begin, std::int64_t elements, const AnyMatrices<State>& to) {
  CoefficientSums<State> sums;
  sums.sections = p.filters.sections;
  sums.length = length;
  sums.slices = slices;
  sums.begin = begin;
  sums.elements = elements;
  sums.partial = p.partial;
  sums.to = to;
  std::int64_t stride = 1;
  for (int d = results.dims - 1; d >= 0; --d) {
    Batch& batch = to.stride[d] == 0 ? sums.inner : sums.outer;
    std::int64_t* const strides = to.stride[d] == 0 ? sums.inner_stride : sums.outer_stride;
    for (int i = batch.dims++; i > 0; --i) {  // before those there are
      batch.size[i] = batch.size[i - 1];
      strides[i] = strides[i - 1];
    }
    batch.size[0] = results.size[d];
    strides[0] = stride;
    stride *= results.size[d];
  }
  for (int d = 0, i = 0; d < results.dims; ++d) {
    if (to.stride[d] != 0) sums.to.stride[i++] = to.stride[d];
  }
  const std::int64_t count = sums.outer.rows() * p.filters.sections * length;
  if (count == 0) return Status::ok;
  return launch(queue, {minimum(ceil_div(count, freqz_threads / warp_size), most_blocks), freqz_threads},
                add_coefficients<State>, sums);
}

template <class State, int slab>
Status launch_sums(const Queue& queue, const Backwards<State>& p) {
  return launch(queue, {minimum(p.tasks, most_blocks), freqz_threads, sizeof(SlabShared<State, slab>)},
                sum_sections<State, slab>, p);
}

template <class Value, class State>
Status run_coefficients(const FreqzBackward<Value, State>& f, const Queue& queue) {
  // Rows whose sums a block may add up: those of one filter.
  const Order order(f.batch, [&](int d) {
    return (!f.gb || f.gb.stride[d] == 0) && (!f.ga || f.ga.stride[d] == 0) && f.b.stride[d] == 0 && f.a.stride[d] == 0;
  });
  constexpr int most_slab = std::is_same_v<State, double> ? 4 : 2;
  const int slab = !short_sections(f) ? long_slab : f.sections == 1 ? 1 : most_slab;
  const std::int64_t per_section = std::int64_t{f.b_length} + f.a_length, elements = f.sections * per_section;
  const bool anything = f.batch.rows() > 0 && f.angles > 0;
  Scratch scratch(queue);
  Backwards<State> p;
  p.filters = order.filters<State>(f);
  p.slices = 0;
  if (anything) {
    p.angles = order.angles(f);
    p.g = order.of(Responses<const std::complex<double>>(f.g));
    p.sharing = order.sharing;
    p.slabs = ceil_div(f.sections, slab);
    // As many slices as make enough blocks, of some items for each thread, whose sums are not many.
    constexpr std::int64_t least_items = 4 * freqz_threads, most_sums = 1 << 21;
    const std::int64_t items = p.sharing * f.angles;
    p.slices = minimum(enough_blocks(8) / (order.owners * p.slabs), ceil_div(items, least_items));
    p.slices = maximum<std::int64_t>(minimum(p.slices, most_sums / (order.owners * elements)), 1);
    p.per_slice = ceil_div(ceil_div(items, p.slices), freqz_threads) * freqz_threads;
    p.slices = ceil_div(items, p.per_slice);
    p.tasks = order.owners * p.slices * p.slabs;
    p.partial = scratch.take<Computed<State>>(order.owners * elements * p.slices);
    if (!scratch.ok()) return Status::out_of_memory;
    Status status;
    if (!short_sections(f)) {
      status = launch(queue, {minimum(p.tasks, most_blocks), freqz_threads, sizeof(LongShared<State>)},
                      sum_long_sections<State>, p);
    } else {
      status = slab == 1 ? launch_sums<State, 1>(queue, p) : launch_sums<State, most_slab>(queue, p);
    }
    if (status != Status::ok) return status;
  }
  const Batch results = order.owners_batch();
  Status status = Status::ok;
  if (f.gb) status = add_up(queue, results, p, p.slices, f.b_length, 0, elements, order.of(f.gb));
  if (f.ga && status == Status::ok)
    status = add_up(queue, results, p, p.slices, f.a_length, std::int64_t{f.sections} * f.b_length, elements,
                    order.of(f.ga));
  return status;
}

template <class Value, class State>
Status run(const FreqzBackward<Value, State>& f, const Queue& queue) {
  Status status = Status::ok;
  if (f.gw) status = run_angles(f, queue);
  if (status == Status::ok && (f.gb || f.ga)) status = run_coefficients(f, queue);
  return status;
}

}  // namespace

#define TORCH_IIR_FREQZ(...)                                                                       \
  Status freqz(const Freqz<__VA_ARGS__>& f, const Queue& queue) noexcept { return run(f, queue); } \
  Status freqz_backward(const FreqzBackward<__VA_ARGS__>& f, const Queue& queue) noexcept { return run(f, queue); }

TORCH_IIR_FREQZ(float)
TORCH_IIR_FREQZ(double)
TORCH_IIR_FREQZ(float, std::complex<double>)
TORCH_IIR_FREQZ(double, std::complex<double>)

}  // namespace torch_iir::cuda
