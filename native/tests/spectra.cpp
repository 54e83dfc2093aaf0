// spectral_product against a plain reference in long double, on every instruction set that the machine has, at sizes
// around every boundary.
#include "torch_iir/spectra.h"

#include <string>
#include <vector>

#include "check.h"
#include "reference.h"
#include "torch_iir/instruction_sets.h"

using namespace torch_iir;

namespace {

using Wide = std::complex<long double>;

struct Case {
  std::int64_t count, bins;
  bool conjugate = false, add = false;
  std::int64_t xs = 1, hs = 1, ys = 1;  // different rows of x, h and y: row i is number i % xs

  std::string text() const {
    return "count " + std::to_string(count) + " bins " + std::to_string(bins) + (conjugate ? " conjugate" : "") +
           (add ? " add" : "") + " of " + std::to_string(xs) + ' ' + std::to_string(hs) + ' ' + std::to_string(ys);
  }
};

// Rows one after the other with a number between them, so that most begin where no vector does.
template <class Value>
class Spectra {
 public:
  Spectra(std::int64_t rows, std::int64_t bins, std::int64_t count) : bins_(bins) {
    values_.resize(static_cast<std::size_t>(1 + rows * (bins + 1)));
    for (std::complex<Value>& value : values_) value = static_cast<std::complex<Value>>(random_value<Wide>());
    for (std::int64_t i = 0; i < count; ++i) pointers_.push_back(&at(i % rows, 0));
  }
  Spectra(const Spectra&) = delete;
  Spectra& operator=(const Spectra&) = delete;

  std::complex<Value>& at(std::int64_t row, std::int64_t bin) {
    return values_[static_cast<std::size_t>(1 + row * (bins_ + 1) + bin)];
  }
  std::complex<Value>* const* rows() const { return pointers_.data(); }
  const std::complex<Value>* const* inputs() {
    inputs_.assign(pointers_.begin(), pointers_.end());
    return inputs_.data();
  }
  void copy(const Spectra& from) { values_ = from.values_; }
  bool same_bits(const Spectra& other) const {
    return std::memcmp(static_cast<const void*>(values_.data()), static_cast<const void*>(other.values_.data()),
                       values_.size() * sizeof values_[0]) == 0;
  }

 private:
  std::int64_t bins_;
  std::vector<std::complex<Value>> values_;
  std::vector<std::complex<Value>*> pointers_;
  std::vector<const std::complex<Value>*> inputs_;
};

template <class Value, class Sum>
struct Problem {
  Case c;
  Spectra<Value> x, h;
  Spectra<Sum> before, y;

  explicit Problem(const Case& given)
      : c(given),
        x(c.xs, c.bins, c.count),
        h(c.hs, c.bins, c.count),
        before(c.ys, c.bins, c.count),
        y(c.ys, c.bins, c.count) {}

  Status compute(ParallelFor parallel = {}) {
    y.copy(before);
    SpectralProduct<Value, Sum> f;
    f.count = c.count;
    f.bins = c.bins;
    f.conjugate = c.conjugate;
    f.add = c.add;
    f.x = x.inputs();
    f.h = h.inputs();
    f.y = y.rows();
    return spectral_product(f, parallel);
  }
};

// Each part of a product is two terms and their sum, each of which may round.
template <class Value, class Sum>
void run(const Case& c) {
  constexpr long double epsilon = std::numeric_limits<Value>::epsilon(), sums = std::numeric_limits<Sum>::epsilon();
  Problem<Value, Sum> p(c);
  const auto rows = static_cast<std::size_t>(c.ys), bins = static_cast<std::size_t>(c.bins);
  std::vector<Wide> want(rows * bins);
  std::vector<long double> size(rows * bins);
  for (std::int64_t row = 0; row < c.ys && c.add; ++row) {
    for (std::int64_t k = 0; k < c.bins; ++k) {
      const std::size_t at = static_cast<std::size_t>(row) * bins + static_cast<std::size_t>(k);
      want[at] = Wide(p.before.at(row, k));
      size[at] = std::abs(want[at]);
    }
  }
  for (std::int64_t i = 0; i < c.count; ++i) {
    for (std::int64_t k = 0; k < c.bins; ++k) {
      const std::size_t at = static_cast<std::size_t>(i % c.ys) * bins + static_cast<std::size_t>(k);
      const Wide x(p.x.at(i % c.xs, k)), h(p.h.at(i % c.hs, k));
      want[at] += x * (c.conjugate ? conj(h) : h);
      size[at] += std::abs(x * h);
    }
  }

  for_each_isa([&](const std::string& isa) {
    const std::string where = isa + c.text();
    CHECK(p.compute({two_halves, nullptr}) == Status::ok, where);
    const long double most = 2 * epsilon + static_cast<long double>(c.count + 1) * sums;
    for (std::int64_t row = 0; row < std::min(c.ys, c.count); ++row) {
      for (std::int64_t k = 0; k < c.bins; ++k) {
        const std::size_t at = static_cast<std::size_t>(row) * bins + static_cast<std::size_t>(k);
        const long double error = std::abs(Wide(p.y.at(row, k)) - want[at]);
        CHECK(error <= most * size[at], where, "row", row, "bin", k, p.y.at(row, k), want[at]);
      }
    }
    // Nothing but the rows was written.
    for (std::int64_t row = 0; row < std::min(c.ys, c.count); ++row)
      for (std::int64_t k = 0; k < c.bins; ++k) p.y.at(row, k) = p.before.at(row, k);
    CHECK(p.y.same_bits(p.before), where);
  });
}

// A vector has 1 to 8 numbers, a block 1024.
void every_size() {
  const std::int64_t bins[] = {0,  1,  2,  3,  4,   5,   7,   8,   9,   15,  16,   17,   31,   32,   33,  63,
                               64, 65, 97, 99, 127, 128, 129, 511, 512, 513, 1023, 1024, 1025, 2049, 4097};
  const std::int64_t most = sanitized ? 15000 : 60000;  // numbers of all rows: what is longer only costs time
  int count = 0;
  for (const std::int64_t k : bins) {
    for (const std::int64_t rows : {0, 1, 2, 5, 12}) {
      if (k * rows > most) continue;
      ++count;
      Case c{rows, k};
      c.conjugate = count % 2 == 0;
      c.xs = count % 3 == 0 ? 1 : std::max<std::int64_t>(rows, 1);
      c.hs = count % 4 == 0 ? std::max<std::int64_t>(rows, 1)
                            : std::min<std::int64_t>(count % 4, std::max<std::int64_t>(rows, 1));
      c.ys = std::max<std::int64_t>(rows, 1);
      run<float, float>(c);
      run<double, double>(c);
      c.add = true;
      c.conjugate = !c.conjugate;
      run<float, double>(c);
      run<double, double>(c);
      c.ys = std::min<std::int64_t>(1 + count % 3, c.ys);  // which others add to, too
      run<float, double>(c);
      run<double, double>(c);
    }
  }
}

// Whatever the threads do.
template <class Value, class Sum>
void the_same_bits(bool add) {
  for (const std::int64_t bins : {5, 1025, 8193}) {
    Case c{11, bins, true, add, 11, 3, add ? 2 : 11};
    Problem<Value, Sum> p(c);
    Spectra<Sum> serial(c.ys, c.bins, c.count);
    for_each_isa([&](const std::string& isa) {
      CHECK(p.compute() == Status::ok, isa);
      serial.copy(p.y);
      for (const auto split : {two_halves, one_by_one}) {
        CHECK(p.compute({split, nullptr}) == Status::ok, isa);
        CHECK(p.y.same_bits(serial), isa + c.text());
      }
    });
  }
}

// What is no number stays in its bin.
template <class Value, class Sum>
void not_finite(bool add) {
  constexpr std::int64_t bins = 37;
  for (const Value value : {std::numeric_limits<Value>::quiet_NaN(), std::numeric_limits<Value>::infinity()}) {
    for (const std::int64_t struck : {std::int64_t{0}, std::int64_t{17}, bins - 1}) {
      Problem<Value, Sum> p(Case{3, bins, false, add, 3, 3, 3});
      p.x.at(1, struck) = {value, value};
      p.h.at(1, struck) = {1, 2};
      for_each_isa([&](const std::string& isa) {
        CHECK(p.compute() == Status::ok, isa);
        for (std::int64_t row = 0; row < 3; ++row) {
          for (std::int64_t k = 0; k < bins; ++k) {
            const std::complex<Sum> y = p.y.at(row, k);
            const bool hit = row == 1 && k == struck;
            CHECK((std::isfinite(y.real()) && std::isfinite(y.imag())) != hit, isa, value, row, k, y);
          }
        }
      });
    }
  }
}

}  // namespace

int main() {
  every_size();
  the_same_bits<float, float>(false);
  the_same_bits<double, double>(false);
  the_same_bits<float, double>(true);
  the_same_bits<double, double>(true);
  not_finite<float, float>(false);
  not_finite<double, double>(false);
  not_finite<float, double>(true);
  return check::result();
}
