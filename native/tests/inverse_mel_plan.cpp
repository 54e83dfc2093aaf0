// melscale_fbanks against its formula in long double, and InverseMelPlan against the one-shot nnls, bit for bit, and
// against the conditions that a solution has to fulfil.
#include "torch_iir/inverse_mel_plan.h"

#include <tuple>

#include "plans.h"

using namespace torch_iir;

namespace {

// ----------------------------------------------------------------------------------------------------------- triangles

long double to_mel(long double f, MelScale scale) {
  if (scale == MelScale::htk) return 2595 * std::log10(1 + f / 700);
  return f < 1000 ? 3 * f / 200 : 15 + 27 * std::log(f / 1000) / std::log(6.4L);
}
long double to_hertz(long double mel, MelScale scale) {
  if (scale == MelScale::htk) return 700 * (std::pow(10.0L, mel / 2595) - 1);
  return mel < 15 ? 200 * mel / 3 : 1000 * std::exp(std::log(6.4L) / 27 * (mel - 15));
}

struct Bank {
  std::int64_t n_freqs, n_mels;
  double f_min, f_max, sample_rate;
  MelNorm norm = MelNorm::none;
  MelScale scale = MelScale::htk;

  Status make(const View<double>& fb) const { return melscale_fbanks(fb, f_min, f_max, sample_rate, norm, scale); }
  Array<double> made(Lie lie = Lie::planar) const {
    Array<double> fb({n_freqs, n_mels}, lie);
    CHECK(make(fb.view()) == Status::ok, n_freqs, n_mels);
    return fb;
  }
};

void triangles() {
  const double epsilon = std::numeric_limits<double>::epsilon();
  int count = 0;
  for (Bank bank : {Bank{513, 80, 0, 8000, 16000},
                    {101, 64, 0, 8000, 16000},
                    {130, 40, 20, 7600, 16000},
                    {2, 1, 0, 10, 20},
                    {513, 128, 30, 22050, 44100},
                    {65, 20, 100, 12000, 16000},
                    {100, 7, 0.5, 300, 11025.5}}) {
    const std::int64_t n_freqs = bank.n_freqs, n_mels = bank.n_mels;
    const double f_min = bank.f_min, f_max = bank.f_max;
    for (const MelNorm norm : {MelNorm::none, MelNorm::slaney}) {
      for (const MelScale scale : {MelScale::htk, MelScale::slaney}) {
        bank.norm = norm;
        bank.scale = scale;
        Array<double> fb = bank.made(static_cast<Lie>(count++ % lies));
        const std::string where = std::to_string(n_freqs) + " x " + std::to_string(n_mels) + ' ' +
                                  std::to_string(static_cast<int>(norm)) + std::to_string(static_cast<int>(scale));
        const long double low = to_mel(f_min, scale), high = to_mel(f_max, scale);
        const auto edge = [&](std::int64_t i) {
          return i == 0 ? f_min : i > n_mels ? f_max : to_hertz(low + (high - low) * i / (n_mels + 1), scale);
        };
        for (std::int64_t k = 0; k < n_freqs; ++k) {
          const long double f = static_cast<long double>(bank.sample_rate) / 2 * k / (n_freqs - 1);
          long double sum = 0;
          std::int64_t first = -1, last = -1;
          for (std::int64_t i = 0; i < n_mels; ++i) {
            const long double left = edge(i), middle = edge(i + 1), right = edge(i + 2);
            const long double height = norm == MelNorm::slaney ? 2 / (right - left) : 1;
            const long double wanted =
                height * std::max(0.0L, std::min((f - left) / (middle - left), (right - f) / (right - middle)));
            // A frequency and the edges are rounded, and a few times more where they come from mels.
            const long double narrow = std::min(middle - left, right - middle);
            const long double allowed = 64 * epsilon * height * (f_max + 700 + f) / narrow;
            const double value = fb[k * n_mels + i];
            CHECK(std::abs(value - wanted) <= allowed, where, k, i, value, wanted);
            CHECK(value >= 0 && !(std::signbit(value)), where, k, i, value);
            if (value == 0) continue;
            if (first < 0) first = i;
            last = i;
            sum += value / height;
          }
          CHECK(last - first <= 1, where, "neighbours alone, and two of them", k, first, last);
          if (f > edge(1) && f < edge(n_mels))
            CHECK(std::abs(sum - 1) < 1e-9, where, "rise and fall make up for each other", k, sum);
          if (f <= f_min || f >= f_max) CHECK(sum == 0, where, "beyond the ends", k, sum);
        }
        CHECK(fb.intact(), where);
      }
    }
  }
}

void wrong_triangles() {
  const double nan = std::nan(""), infinite = INFINITY;
  Array<double> fb({33, 8});
  const auto refused = [&](const View<double>& view, Status status, double f_min, double f_max, double rate) {
    CHECK(melscale_fbanks(view, f_min, f_max, rate) == status && fb.is_untouched(), f_min, f_max, rate);
  };
  for (const auto& [f_min, f_max, rate] : {std::tuple{0.0, 0.0, 16000.0},
                                           {4000.0, 4000.0, 16000.0},
                                           {5000.0, 4000.0, 16000.0},
                                           {-1.0, 4000.0, 16000.0},
                                           {0.0, 4000.0, 0.0},
                                           {0.0, 4000.0, -16000.0},
                                           {nan, 4000.0, 16000.0},
                                           {0.0, nan, 16000.0},
                                           {0.0, 4000.0, nan},
                                           {0.0, infinite, 16000.0},
                                           {0.0, 4000.0, infinite},
                                           {-infinite, 4000.0, 16000.0},
                                           {4000.0, 4000.0000000000009, 16000.0}})
    refused(fb.view(), Status::out_of_range, f_min, f_max, rate);
  const auto of = [&](const Sizes& sizes) { return View<double>(&fb[0], sizes); };
  refused(of({1, 8}), Status::wrong_shape, 0, 4000, 8000);
  refused(of({33, 0}), Status::wrong_shape, 0, 4000, 8000);
  refused(of({264}), Status::wrong_shape, 0, 4000, 8000);
  refused(of({1, 33, 8}), Status::wrong_shape, 0, 4000, 8000);
  refused({}, Status::wrong_shape, 0, 4000, 8000);
  refused(of({33, -8}), Status::out_of_range, 0, 4000, 8000);
  refused(View<double>(&fb[0], {33, 8}, {1}), Status::wrong_shape, 0, 4000, 8000);
  refused(View<double>(nullptr, {33, 8}), Status::no_data, 0, 4000, 8000);
}

// ------------------------------------------------------------------------------------------------------------- inverse

// Mel spectra of every kind: of a spectrum, of none, silent, negative, tiny, huge.
template <class Sample>
Array<Sample> mels_of(Array<double>& fb, std::int64_t frames, Lie lie) {
  const std::int64_t n_freqs = fb.sizes()[0], n_mels = fb.sizes()[1];
  Array<Sample> mel({n_mels, frames}, lie);
  for (std::int64_t j = 0; j < frames; ++j) {
    Vector spectrum(size(n_freqs));
    for (long double& value : spectrum) value = std::max(grid(), 0.0L);
    const long double unit = j % 7 == 4 ? 0x1p-40L : j % 7 == 5 ? 0x1p40L : 1;
    for (std::int64_t i = 0; i < n_mels; ++i) {
      long double sum = 0;
      for (std::int64_t k = 0; k < n_freqs; ++k)
        sum += static_cast<long double>(fb[k * n_mels + i]) * spectrum[size(k)];
      if (j % 7 == 1) sum *= 1 + grid() / 4;
      if (j % 7 == 2) sum = 0;
      if (j % 7 == 3) sum = grid();
      if (j % 7 == 6) sum = -1 - grid();
      mel[i * frames + j] = static_cast<Sample>(unit * sum);
    }
  }
  return mel;
}

double largest_square(Array<double>& fb) {
  double result = 0;
  for (std::int64_t i = 0; i < fb.sizes()[1]; ++i) {
    double sum = 0;
    for (std::int64_t k = 0; k < fb.sizes()[0]; ++k) sum += std::pow(fb[k * fb.sizes()[1] + i], 2);
    result = std::max(result, sum);
  }
  return result;
}

template <class Sample>
constexpr double default_tolerance = std::is_same_v<Sample, double> ? 1e-9 : 1e-6;
template <class Sample>
constexpr double regularization = std::is_same_v<Sample, double> ? 2e-10 : 1e-8;

template <class Sample>
struct Solution {
  Array<Sample> x;
  Array<double> dual;
  Array<Outcome> outcome;
};
template <class Sample>
Solution<Sample> one_shot(Array<double>& fb, Array<Sample>& mel, double mu, double tolerance,
                          Array<Sample>* prior = nullptr) {
  const std::int64_t frames = mel.sizes()[1];
  Solution<Sample> result{Array<Sample>({fb.sizes()[0], frames}), Array<double>({fb.sizes()[1], frames}),
                          Array<Outcome>(Sizes{frames})};
  const auto columns = []<class T>(const View<T>& view) { return matrices_of(view, {}); };
  const auto transposed = [](Matrices<const double> of) {
    std::swap(of.step, of.down);
    return of;
  };
  NNLS<Sample> f;
  f.m = fb.sizes()[1];
  f.n = fb.sizes()[0];
  f.k = frames;
  f.tolerance = tolerance;
  f.max_iterations = 1000;
  f.a = transposed(columns(fb.input()));
  f.b = columns(mel.input());
  f.mu.data = &mu;
  f.mu.step = 0;
  if (prior != nullptr) f.prior = columns(prior->input());
  f.x = columns(result.x.view());
  f.dual = columns(result.dual.view());
  f.outcome.data = &result.outcome[0];
  CHECK(nnls(f, NNLSSolver::newton) == Status::ok);
  return result;
}

const Bank banks[] = {{129, 20, 0, 8000, 16000},
                      {65, 40, 60, 7600, 16000, MelNorm::slaney, MelScale::slaney},
                      {201, 33, 0, 4000, 16000, MelNorm::none, MelScale::slaney},
                      {2, 1, 0, 20, 20}};

// The solution of least norm: the one-shot function's, and one that fulfils Karush, Kuhn and Tucker's conditions, for
// F = A x + μλ − b, x = max(Aᵀλ, 0), |F|∞ ≤ tolerance |b|∞: the gradient g = Aᵀ(A x − b) + μ x is AᵀF where x > 0, and
// no less elsewhere.
template <class Sample>
void least_norm() {
  int count = 0;
  for (const Bank& bank : banks) {
    Array<double> fb = bank.made(static_cast<Lie>(count % lies));
    const std::int64_t n_freqs = bank.n_freqs, n_mels = bank.n_mels, frames = slow ? 8 : 29;
    const double mu = regularization<Sample> * largest_square(fb);
    Array<Sample> mel = mels_of<Sample>(fb, frames, static_cast<Lie>(++count % lies));
    for_each_isa([&](const std::string& where) {
      Solution<Sample> want = one_shot(fb, mel, mu, default_tolerance<Sample>);
      InverseMelPlan<Sample> plan;
      CHECK(plan.make(fb.input(), frames) == Status::ok && plan, where);
      CHECK(plan.failed() == 0, where);
      Array<Sample> x({n_freqs, frames}, static_cast<Lie>(count % lies));
      CHECK(plan.run(mel.input(), x.view()) == Status::ok, where);
      CHECK(x.same_bits(want.x), where, n_freqs, n_mels, "one-shot function");
      std::int64_t failed = 0;
      for (std::int64_t j = 0; j < frames; ++j) {
        CHECK(plan.outcome(j) == want.outcome[j], where, j);
        failed += want.outcome[j] == Outcome::failed;
      }
      CHECK(plan.failed() == failed && failed <= frames / 20, where, plan.failed(), failed);

      for (std::int64_t j = 0; j < frames; ++j) {
        if (plan.outcome(j) != Outcome::solved) continue;
        Vector dual;
        for (std::int64_t i = 0; i < n_mels; ++i) dual.push_back(want.dual[i * frames + j]);
        Vector spread(size(n_freqs));  // |A|ᵀ|λ|, by which rounding changes x
        for (std::int64_t k = 0; k < n_freqs; ++k)
          for (std::int64_t i = 0; i < n_mels; ++i) spread[size(k)] += fb[k * n_mels + i] * std::abs(dual[size(i)]);
        Vector residual(size(n_mels));  // A x − b
        long double most = 0, noise = 0;
        for (std::int64_t i = 0; i < n_mels; ++i) {
          const long double b = static_cast<long double>(mel[i * frames + j]);
          long double sum = 0, stored = 0, computed = mu * std::abs(dual[size(i)]) + std::abs(b);
          for (std::int64_t k = 0; k < n_freqs; ++k) {
            const long double weight = fb[k * n_mels + i];
            sum += weight * static_cast<long double>(x[k * frames + j]);
            computed += weight * spread[size(k)];
          }
          if (std::is_same_v<Sample, float>) stored = Number<float>::epsilon * sum;
          noise = std::max(noise, static_cast<long double>(n_freqs + 16) * Number<double>::epsilon * computed + stored);
          residual[size(i)] = sum - b;
          most = std::max(most, std::abs(b));
        }
        for (std::int64_t k = 0; k < n_freqs; ++k) {
          const long double value = static_cast<long double>(x[k * frames + j]);
          long double gradient = mu * value, weight = 0;
          for (std::int64_t i = 0; i < n_mels; ++i) {
            gradient += static_cast<long double>(fb[k * n_mels + i]) * residual[size(i)];
            weight += fb[k * n_mels + i];
          }
          const long double allowed = weight * (default_tolerance<Sample> * most + noise) +
                                      mu * Number<Sample>::epsilon * (value + spread[size(k)]) + tiny<float>;
          CHECK(value >= 0 && gradient >= -allowed && (value == 0 || gradient <= allowed), where, n_freqs, j, k, value,
                gradient, allowed);
        }
      }
      CHECK(x.intact(), where);
    });
  }
}

// The one of maximum entropy is S = E exp(Aᵀλ) with A S + μλ = max(M, 0), where E spreads each mel evenly over its
// triangle. Two of residuals F have (see nnls.h) Σ (√S − √S')² ≤ (|F| + |F'|)² / 4μ.
void entropy() {
  for (const Bank& bank : banks) {
    Array<double> fb = bank.made();
    const std::int64_t n_freqs = bank.n_freqs, n_mels = bank.n_mels, frames = slow ? 8 : 29;
    Array<double> mel = mels_of<double>(fb, frames, Lie::planar);
    const double square = largest_square(fb), mu = 1e-8 * square;
    double greatest = 0;
    for (std::int64_t i = 0; i < fb.count(); ++i) greatest = std::max(greatest, fb[i]);
    Array<double> b({n_mels, frames}), prior({n_freqs, frames});
    Array<float> in_float({n_mels, frames});
    std::vector<double> scale;
    for (std::int64_t j = 0; j < frames; ++j) {
      double most = 0;
      for (std::int64_t i = 0; i < n_mels; ++i) most = std::max(most, mel[i * frames + j]);
      scale.push_back(most > 0 ? most / (square / greatest) : 1);
      Vector share;
      for (std::int64_t i = 0; i < n_mels; ++i) {
        long double area = 0;
        for (std::int64_t k = 0; k < n_freqs; ++k) area += fb[k * n_mels + i];
        b[i * frames + j] = std::max(mel[i * frames + j], 0.0) / scale.back();
        share.push_back(area > 0 ? b[i * frames + j] / area : 0);
        in_float[i * frames + j] = static_cast<float>(mel[i * frames + j]);
      }
      for (std::int64_t k = 0; k < n_freqs; ++k) {
        long double sum = 0, weights = 0;
        for (std::int64_t i = 0; i < n_mels; ++i) {
          weights += fb[k * n_mels + i];
          sum += fb[k * n_mels + i] * share[size(i)];
        }
        prior[k * frames + j] = static_cast<double>(weights > 0 ? sum / weights : 0);
      }
    }
    for_each_isa([&](const std::string& where) {
      Solution<double> want = one_shot(fb, b, mu, 1e-9, &prior);
      InverseMelPlan<double> plan;
      CHECK(plan.make(fb.input(), frames, {.tie_break = TieBreak::entropy}) == Status::ok, where);
      Array<double> x({n_freqs, frames}, Lie::interleaved);
      CHECK(plan.run(mel.input(), x.view()) == Status::ok, where);
      InverseMelPlan<float> of_floats;
      CHECK(of_floats.make(fb.input(), frames, {.tie_break = TieBreak::entropy, .tolerance = 1e-9}) == Status::ok);
      Array<float> rounded({n_freqs, frames});
      CHECK(of_floats.run(in_float.input(), rounded.view()) == Status::ok, where);
      std::int64_t entropic = 0;
      for (std::int64_t j = 0; j < frames; ++j) {
        // Whether what is far from any mel spectrum has such a solution is a matter of rounding.
        const bool far = j % 7 == 1 || j % 7 == 3;
        CHECK(plan.outcome(j) == want.outcome[j] || far, where, n_freqs, j);
        if (plan.outcome(j) != Outcome::entropy || want.outcome[j] != Outcome::entropy) continue;
        ++entropic;
        long double apart = 0, apart_in_float = 0, sum = 0;
        for (std::int64_t k = 0; k < n_freqs; ++k) {
          const long double root = std::sqrt(static_cast<long double>(want.x[k * frames + j])),
                            own = std::sqrt(static_cast<long double>(x[k * frames + j]) / scale[size(j)]),
                            in_single = std::sqrt(static_cast<long double>(rounded[k * frames + j]) / scale[size(j)]);
          apart += std::pow(own - root, 2);
          apart_in_float += std::pow(in_single - root, 2);
          sum += root * root;
        }
        // |F|₂ of both: the tolerance, and the rounding of what goes in and comes out.
        const auto allowed = [&](long double epsilon) {
          const long double residual =
              std::sqrt(static_cast<long double>(n_mels)) * (1e-9L + epsilon * 8) * square / greatest;
          return residual * residual / mu + epsilon * epsilon * sum;
        };
        CHECK(apart <= allowed(0x1p-50L), where, n_freqs, j, apart, allowed(0x1p-50L));
        if (of_floats.outcome(j) == Outcome::entropy)
          CHECK(apart_in_float <= allowed(0x1p-23L), where, n_freqs, j, apart_in_float, allowed(0x1p-23L));
      }
      CHECK(entropic >= frames / 2, where, n_freqs, entropic);
      CHECK(x.intact(), where);
    });
  }
}

// A frame is what it is whatever stands beside it, how many there are, and which thread has it.
template <class Sample>
void the_same_bits() {
  Array<double> fb = banks[0].made();
  const std::int64_t n_freqs = banks[0].n_freqs, frames = slow ? 40 : 300;
  Array<Sample> mel = mels_of<Sample>(fb, frames, Lie::planar);
  mel[2 * frames + 5] = std::numeric_limits<Sample>::quiet_NaN();
  mel[0 * frames + 11] = std::numeric_limits<Sample>::infinity();
  mel[3 * frames + 21] = -std::numeric_limits<Sample>::infinity();
  for (const TieBreak tie_break : {TieBreak::min_norm, TieBreak::entropy}) {
    for_each_isa([&](const std::string& isa) {
      const std::string where = isa + (tie_break == TieBreak::entropy ? "entropy " : "min_norm ");
      InverseMelPlan<Sample> plan, small;
      CHECK(plan.make(fb.input(), frames, {.tie_break = tie_break}) == Status::ok, where);
      CHECK(small.make(fb.input(), 17, {.tie_break = tie_break}) == Status::ok, where);
      Array<Sample> want({n_freqs, frames}), x({n_freqs, frames});
      CHECK(plan.run(mel.input(), want.view()) == Status::ok, where);
      std::vector<Outcome> outcomes;
      for (std::int64_t j = 0; j < frames; ++j) outcomes.push_back(plan.outcome(j));
      for (const std::int64_t j : {5, 11, 21}) {
        CHECK(plan.outcome(j) == Outcome::failed, where, j);
        for (std::int64_t k = 0; k < n_freqs; ++k) CHECK(std::isnan(want[k * frames + j]), where, j, k);
      }
      const std::int64_t failed = std::ranges::count(outcomes, Outcome::failed);
      CHECK(plan.failed() == failed && failed < frames / 4, where, plan.failed(), failed);
      for (const auto hook : {&threads, &in_disorder}) {
        long calls = 0;
        InverseMelPlan<Sample> threaded;
        CHECK(threaded.make(fb.input(), frames, {.tie_break = tie_break, .parallel_for = {hook, &calls}}) == Status::ok,
              where);
        CHECK(threaded.run(mel.input(), x.view()) == Status::ok && x.same_bits(want), where, "threads");
        CHECK((calls > 0 || slow) && threaded.failed() == failed, where, calls, threaded.failed());
      }
      const std::int64_t lengths[] = {1, 17, 0, 3, 16};
      for (std::int64_t j = 0, i = 0; j < frames; ++i) {
        const std::int64_t count = std::min(lengths[i % std::ssize(lengths)], frames - j);
        CHECK(small.run(mel.piece(j, count), x.piece(j, count)) == Status::ok, where, count);
        CHECK(small.failed() == std::count(outcomes.begin() + j, outcomes.begin() + j + count, Outcome::failed), where);
        for (std::int64_t k = 0; k < count; ++k) CHECK(small.outcome(k) == outcomes[size(j + k)], where, j, k);
        j += count;
      }
      CHECK(x.same_bits(want), where, "in pieces");

      // Made under this instruction set, run under others, moved.
      const std::string own = isa.substr(0, isa.size() - 1);
      InverseMelPlan<Sample> moved = std::move(plan);
      CHECK(!plan && plan.run(mel.input(), x.view()) == Status::not_made, where);  // NOLINT(bugprone-use-after-move)
      for (const InstructionSet& set : instruction_sets()) {
        if (!set_isa(set.name)) continue;
        CHECK(moved.run(mel.input(), x.view()) == Status::ok && x.same_bits(want), where, set.name);
      }
      CHECK(set_isa(own.c_str()));
      InverseMelPlan<Sample>& self = moved;
      moved = std::move(self);
      small = std::move(moved);
      CHECK(small.run(mel.input(), x.view()) == Status::ok && x.same_bits(want), where, "moved");
    });
  }
}

void refusals() {
  static_assert(std::is_nothrow_move_constructible_v<InverseMelPlan<float>> &&
                std::is_nothrow_move_assignable_v<InverseMelPlan<float>> &&
                !std::is_copy_constructible_v<InverseMelPlan<float>> &&
                noexcept(InverseMelPlan<float>().run(View<const float>(), View<float>())) &&
                noexcept(InverseMelPlan<float>().make(View<const double>(), 1)) &&
                noexcept(InverseMelPlan<float>().outcome(0)) && noexcept(InverseMelPlan<float>().failed()));
  Array<double> fb = Bank{33, 8, 0, 4000, 8000}.made();
  Array<float> mel = mels_of<float>(fb, 5, Lie::gaps), x({33, 5});
  InverseMelPlan<float> plan;
  CHECK(!plan && plan.run(mel.input(), x.view()) == Status::not_made && plan.failed() == 0 && x.is_untouched());
  CHECK(plan.outcome(0) == Outcome::failed && plan.outcome(-1) == Outcome::failed);

  const auto made = [&](const View<const double>& bank, std::int64_t frames, const InverseMelOptions& options,
                        Status status, const char* what) {
    CHECK(plan.make(fb.input(), 5) == Status::ok, what);
    CHECK(plan.make(bank, frames, options) == status && static_cast<bool>(plan) == (status == Status::ok), what);
  };
  const View<const double> bank = fb.input();
  const auto of = [&](const Sizes& sizes) { return View<const double>(bank.data, sizes); };
  for_each_isa([&](const std::string&) {
    made(bank, 0, {}, Status::out_of_range, "no frames");
    made(bank, -1, {}, Status::out_of_range, "frames below 0");
    for (const double tolerance : {-1e-9, std::nan(""), double{INFINITY}})
      made(bank, 5, {.tolerance = tolerance}, Status::out_of_range, "tolerance");
    for (const int iterations : {0, -1}) made(bank, 5, {.max_iterations = iterations}, Status::out_of_range, "steps");
    made(of({264}), 5, {}, Status::wrong_shape, "one dimension");
    made(of({1, 33, 8}), 5, {}, Status::wrong_shape, "three dimensions");
    made({}, 5, {}, Status::wrong_shape, "no dimensions");
    made(View<const double>(bank.data, {33, 8}, {8}), 5, {}, Status::wrong_shape, "one stride");
    made(of({33, -8}), 5, {}, Status::out_of_range, "mels below 0");
    made(View<const double>(nullptr, {33, 8}), 5, {}, Status::no_data, "nowhere");
    const auto broken = [&](std::int64_t at, double value, const char* what) {
      const double before = std::exchange(fb[at], value);
      InverseMelPlan<float> other;
      CHECK(other.make(bank, 5) == Status::unsupported && !other, what);
      fb[at] = before;
    };
    broken(10 * 8 + 1, std::nan(""), "a weight that is not a number");
    broken(10 * 8 + 1, INFINITY, "a weight that is infinite");
    broken(10 * 8 + 1, -0.5, "a weight below 0");
    broken(1 * 8 + 7, 0.5, "two mels that are no neighbours");

    made(bank, 5, {}, Status::ok, "a bank");
    const auto refused = [&](const View<const float>& in, const View<float>& out, Status status, const char* what) {
      CHECK(plan.run(in, out) == status && x.is_untouched(), what);
    };
    const auto resized = [](auto view, int d, std::int64_t to) {
      view.sizes.size[d] = to;
      return view;
    };
    const auto nowhere = [](auto view) {
      view.data = nullptr;
      return view;
    };
    refused(resized(mel.input(), 1, 4), x.view(), Status::wrong_shape, "fewer frames in");
    refused(mel.input(), resized(x.view(), 1, 4), Status::wrong_shape, "fewer frames out");
    refused(resized(mel.input(), 1, 6), resized(x.view(), 1, 6), Status::wrong_shape, "more than max_frames");
    refused(resized(mel.input(), 0, 7), x.view(), Status::wrong_shape, "fewer mels");
    refused(mel.input(), resized(x.view(), 0, 32), Status::wrong_shape, "fewer frequencies");
    refused({}, x.view(), Status::wrong_shape, "no mels");
    refused(resized(mel.input(), 1, -5), resized(x.view(), 1, -5), Status::out_of_range, "frames below 0");
    refused(nowhere(mel.input()), x.view(), Status::no_data, "mels are nowhere");
    refused(mel.input(), nowhere(x.view()), Status::no_data, "the spectrum is nowhere");
    refused(nowhere(resized(mel.input(), 1, 0)), nowhere(resized(x.view(), 1, 0)), Status::ok, "no frames");
    CHECK(plan.failed() == 0 && plan.outcome(0) == Outcome::failed, "of a run of no frames");
    CHECK(plan.run(mel.input(), x.view()) == Status::ok && plan.outcome(0) == Outcome::solved);
    CHECK(plan.outcome(5) == Outcome::failed && plan.outcome(-1) == Outcome::failed, "beyond the last run");
    Array<float> one({33, 5}), few({33, 5});
    CHECK(plan.make(bank, 5, {.max_iterations = 1}) == Status::ok && plan.run(mel.input(), few.view()) == Status::ok);
    CHECK(plan.failed() > 0, "with one step");
    for (std::int64_t i = 0; i < few.count(); ++i) CHECK(few[i] >= 0, "of use all the same", i, few[i]);
    CHECK(x.intact());
  });
}

}  // namespace

int main() {
  triangles();
  wrong_triangles();
  least_norm<float>();
  least_norm<double>();
  entropy();
  the_same_bits<float>();
  the_same_bits<double>();
  refusals();
  return check::result();
}
