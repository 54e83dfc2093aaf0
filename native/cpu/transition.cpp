#include "torch_iir/transition.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <utility>

namespace torch_iir {
namespace {

using Limb = std::uint64_t;
__extension__ using Wide = unsigned __int128;

constexpr int limbs = 4, precision = 64 * limbs;
constexpr int sum_limbs = 2 * limbs + 1;  // of a sum of products, and its sign

// Magnitude and sign: (−1)^negative Σ limb[i] 2^(64 i).
struct Integer {
  Limb limb[limbs] = {};
  bool negative = false;

  bool zero() const {
    return std::all_of(limb, limb + limbs, [](Limb value) { return value == 0; });
  }
};

// A sum of products, in two's complement.
struct Sum {
  Limb limb[sum_limbs] = {};

  void add_product(const Integer& left, const Integer& right) {
    Limb product[2 * limbs] = {};
    for (int i = 0; i < limbs; ++i) {
      Limb carry = 0;
      for (int j = 0; j < limbs; ++j) {
        const Wide value = static_cast<Wide>(left.limb[i]) * right.limb[j] + product[i + j] + carry;
        product[i + j] = static_cast<Limb>(value);
        carry = static_cast<Limb>(value >> 64);
      }
      product[i + limbs] = carry;
    }
    const bool minus = left.negative != right.negative;
    const Limb flip = minus ? ~Limb{0} : 0;
    Limb carry = minus ? 1 : 0;
    for (int i = 0; i < sum_limbs; ++i) {
      const Wide value = static_cast<Wide>(limb[i]) + ((i < 2 * limbs ? product[i] : 0) ^ flip) + carry;
      limb[i] = static_cast<Limb>(value);
      carry = static_cast<Limb>(value >> 64);
    }
  }

  bool negative() const { return limb[sum_limbs - 1] >> 63 != 0; }

  void negate() {
    Limb carry = 1;
    for (Limb& value : limb) {
      value = ~value + carry;
      carry = carry != 0 && value == 0 ? 1 : 0;
    }
  }

  // Of one that is not negative, as in what follows.
  int bits() const {
    for (int i = sum_limbs; i-- > 0;)
      if (limb[i] != 0) return 64 * i + static_cast<int>(std::bit_width(limb[i]));
    return 0;
  }

  // The integer that a shift to the right leaves, of so few bits that it is one.
  Integer shifted(int by) const {
    Integer result;
    const int whole = by / 64, part = by % 64;
    for (int i = 0; i < limbs && i + whole < sum_limbs; ++i) {
      result.limb[i] = limb[i + whole] >> part;
      if (part != 0 && i + whole + 1 < sum_limbs) result.limb[i] |= limb[i + whole + 1] << (64 - part);
    }
    return result;
  }
};

// Integers times 2^exponent.
struct Matrix {
  Integer* entry;
  std::int64_t exponent = 0;
};

class Powers {
 public:
  explicit Powers(std::int64_t size)
      : size_(size),
        count_(size * size),
        integers_(new (std::nothrow) Integer[static_cast<std::size_t>(2 * count_)]),
        sums_(new (std::nothrow) Sum[static_cast<std::size_t>(count_)]) {}

  explicit operator bool() const { return integers_ != nullptr && sums_ != nullptr; }

  void operator()(const double* matrix, std::int64_t n, double* power, double* rest) {
    if (!std::all_of(matrix, matrix + count_, [](double value) { return std::isfinite(value); })) {
      std::fill_n(power, count_, std::numeric_limits<double>::quiet_NaN());
      if (rest != nullptr) std::fill_n(rest, count_, 0);
      return;
    }
    if (n == 0) {
      for (std::int64_t i = 0; i < count_; ++i) power[i] = i % (size_ + 1) == 0 ? 1 : 0;
      if (rest != nullptr) std::fill_n(rest, count_, 0);
      return;
    }
    Matrix base{integers_.get()}, result{integers_.get() + count_};
    take(matrix, base);
    std::copy_n(base.entry, count_, result.entry);
    result.exponent = base.exponent;
    for (int bit = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(n))) - 1; bit-- > 0;) {
      multiply(result, result);
      if ((n >> bit & 1) != 0) multiply(result, base);
    }
    for (std::int64_t i = 0; i < count_; ++i) {
      const auto [upper, lower] = to_doubles(result.entry[i], result.exponent);
      power[i] = upper;
      if (rest != nullptr) rest[i] = lower;
    }
  }

 private:
  // The largest entry gets all the bits there are.
  void take(const double* matrix, Matrix& to) const {
    int top = std::numeric_limits<double>::min_exponent - precision, exponent = 0;  // less than any
    for (std::int64_t i = 0; i < count_; ++i)
      if (std::frexp(matrix[i], &exponent) != 0) top = std::max(top, exponent);
    to.exponent = top - precision;
    for (std::int64_t i = 0; i < count_; ++i) {
      const double mantissa = std::frexp(std::abs(matrix[i]), &exponent);
      Sum value;
      value.limb[limbs] = static_cast<Limb>(std::ldexp(mantissa, 63)) << 1;
      to.entry[i] = mantissa == 0 ? Integer{} : value.shifted(std::min(64 + top - exponent, 64 * sum_limbs));
      to.entry[i].negative = matrix[i] < 0;
    }
  }

  void multiply(Matrix& left, const Matrix& right) {
    int bits = 0;
    for (std::int64_t i = 0; i < count_; ++i) {
      const Integer *row = left.entry + i / size_ * size_, *column = right.entry + i % size_;
      Sum& sum = sums_[static_cast<std::size_t>(i)] = {};
      for (std::int64_t k = 0; k < size_; ++k) {
        const Integer &one = row[k], &other = column[k * size_];
        if (!one.zero() && !other.zero()) sum.add_product(one, other);
      }
    }
    for (std::int64_t i = 0; i < count_; ++i) {
      Sum& sum = sums_[static_cast<std::size_t>(i)];
      left.entry[i].negative = sum.negative();
      if (left.entry[i].negative) sum.negate();
      bits = std::max(bits, sum.bits());
    }
    const int excess = std::max(bits - precision, 0);
    for (std::int64_t i = 0; i < count_; ++i) {
      const bool negative = left.entry[i].negative;
      left.entry[i] = sums_[static_cast<std::size_t>(i)].shifted(excess);
      left.entry[i].negative = negative;
    }
    // Far beyond what a double holds, it does not matter how far.
    constexpr std::int64_t far = std::int64_t{1} << 60;
    left.exponent = std::clamp(left.exponent + right.exponent + excess, -far, far);
  }

  // Their sum is the value.
  static std::pair<double, double> to_doubles(const Integer& value, std::int64_t exponent) {
    for (int i = limbs; i-- > 0;) {
      if (value.limb[i] == 0) continue;
      const int free = std::countl_zero(value.limb[i]);
      const auto bits_from = [&](int limb) {  // 64 of them, from the highest that is set or from 64 below it
        const Limb upper = limb >= 0 ? value.limb[limb] << free : 0;
        return free == 0 || limb < 1 ? upper : upper | value.limb[limb - 1] >> (64 - free);
      };
      const Limb top = bits_from(i), next = bits_from(i - 1);
      const auto upper = static_cast<double>(top);
      const auto left =
          static_cast<double>(static_cast<std::int64_t>(static_cast<Wide>(top) - static_cast<Wide>(upper)));
      const double lower = left + std::ldexp(static_cast<double>(next), -64);
      constexpr std::int64_t range = 5000;  // of exponents, those of zero and infinity included
      const auto power = static_cast<int>(std::clamp(exponent + 64 * i - free, -range, range));
      const double sign = value.negative ? -1 : 1, result = sign * std::ldexp(upper, power);
      return {result, std::isfinite(result) ? sign * std::ldexp(lower, power) : 0};
    }
    return {0, 0};
  }

  std::int64_t size_, count_;
  std::unique_ptr<Integer[]> integers_;
  std::unique_ptr<Sum[]> sums_;
};

}  // namespace

Status matrix_power(const double* matrix, std::int64_t count, std::int64_t size, std::int64_t n, double* power,
                    double* rest) noexcept {
  if (count < 0 || size < 0 || n < 0) return Status::out_of_range;
  Powers powers(size);
  if (!powers) return Status::out_of_memory;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t at = i * size * size;
    powers(matrix + at, n, power + at, rest == nullptr ? nullptr : rest + at);
  }
  return Status::ok;
}

void chained_states(const double* power, const double* rest, const double* inputs, const double* first,
                    std::int64_t parts, std::int64_t size, double* states) noexcept {
  std::copy_n(first, size, states);
  for (std::int64_t row = 0; row < parts * size; ++row) {
    const double* state = states + row / size * size;
    double sum = inputs[row], lost = 0;  // by rounding
    for (std::int64_t k = 0; k < size; ++k) {
      if (state[k] == 0) continue;
      const double entry = power[row * size + k], product = entry * state[k];
      const double before = sum;
      sum += product;
      const double added = sum - before;
      lost += (before - (sum - added)) + (product - added) + std::fma(entry, state[k], -product);
      if (rest != nullptr) lost += rest[row * size + k] * state[k];
    }
    states[size + row] = std::isfinite(sum) ? sum + lost : sum;
  }
}

}  // namespace torch_iir
