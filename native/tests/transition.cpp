#include "torch_iir/transition.h"

#include <cmath>
#include <complex>
#include <limits>
#include <numbers>
#include <vector>

#include "check.h"

using namespace torch_iir;

namespace {

using Values = std::vector<double>;
constexpr double epsilon = std::numeric_limits<double>::epsilon();

Values power(const Values& matrix, std::int64_t size, std::int64_t n, Values* rest = nullptr) {
  Values result(matrix.size());
  if (rest != nullptr) rest->resize(matrix.size());
  CHECK(matrix_power(matrix.data(), static_cast<std::int64_t>(matrix.size()) / (size * size), size, n, result.data(),
                     rest == nullptr ? nullptr : rest->data()) == Status::ok);
  return result;
}

double distance(const Values& left, const Values& right) {
  double result = 0;
  for (std::size_t i = 0; i < left.size(); ++i) result = std::max(result, std::abs(left[i] - right[i]));
  return result;
}

// Entries that are integers: every power that a double holds is exact.
void integers_are_exact() {
  const Values matrix{1, 1, 1, 0};
  long double before = 1, number = 0;  // Fibonacci's
  for (std::int64_t n = 0; n <= 78; ++n) {
    const auto f = static_cast<double>(number);
    CHECK((power(matrix, 2, n) == Values{static_cast<double>(number + before), f, f, static_cast<double>(before)}), n);
    const long double next = before + number;
    before = number;
    number = next;
  }
  CHECK((power({-3}, 1, 33) == Values{-5559060566555523}));
  CHECK((power({-3}, 1, 32) == Values{1853020188851841}));
}

// Powers of a rotation that shrinks, from sines and cosines.
void rotations() {
  constexpr double radius = 0.9999, angle = 0.3;
  const Values matrix{radius * std::cos(angle), -radius * std::sin(angle), radius * std::sin(angle),
                      radius * std::cos(angle)};
  // The matrix as it is rounded.
  const long double modulus = std::hypot(static_cast<long double>(matrix[0]), static_cast<long double>(matrix[2]));
  const long double argument = std::atan2(static_cast<long double>(matrix[2]), static_cast<long double>(matrix[0]));
  for (const std::int64_t n : {1, 2, 3, 63, 64, 65, 1000, 99999}) {
    const auto turns = static_cast<long double>(n);
    const std::complex<long double> z =
        std::polar(std::pow(modulus, turns), std::fmod(argument * turns, 2 * std::numbers::pi_v<long double>));
    const auto re = static_cast<double>(z.real()), im = static_cast<double>(z.imag());
    CHECK(distance(power(matrix, 2, n), {re, -im, im, re}) <
              2 * epsilon * static_cast<double>(std::abs(z)) + 1e-19 * static_cast<double>(n),
          n);
  }
}

// (z − r)^order: powers of its companion rise far before they fall. By binomial coefficients, aⁿ acts on the impulse
// response C(n + order − 1, order − 1) rⁿ.
void close_poles() {
  constexpr int order = 8;
  constexpr double r = 1 - 1. / 64;  // its powers up to the order have 48 bits at most: the coefficients are exact
  Values a{1};
  for (int i = 0; i < order; ++i) {
    a.push_back(0);
    for (std::size_t k = a.size() - 1; k > 0; --k) a[k] -= r * a[k - 1];
  }
  constexpr std::size_t size = order;
  Values matrix(size * size);  // of transposed direct form II
  for (std::size_t i = 0; i < size; ++i) {
    matrix[i * size] = -a[i + 1];
    if (i + 1 < size) matrix[i * size + i + 1] = 1;
  }
  double largest = 0;
  for (const std::int64_t n : {1, 7, 8, 100, 450, 1000, 7000, 30000}) {
    // The output that state 0 leaves at the time n is what state 0 then is.
    long double response = std::pow(static_cast<long double>(r), static_cast<long double>(n));
    for (int k = 1; k < order; ++k) response *= static_cast<long double>(n + k) / k;
    const Values result = power(matrix, order, n);
    CHECK(std::abs(result[0] - static_cast<double>(response)) <= 1e-13 * static_cast<double>(response), n, result[0],
          response);
    for (const double value : result) largest = std::max(largest, std::abs(value));
  }
  CHECK(largest > 1e10, largest);
}

void what_leaves_the_range() {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  CHECK((power({2, 0, 0, 0.5}, 2, 1023) == Values{std::ldexp(1., 1023), 0, 0, 0}));  // beside 2^1023, 2^−1023 is none
  CHECK((power({2, 0, 0, -2}, 2, 1025) == Values{infinity, 0, 0, -infinity}));
  CHECK((power({-0.5}, 1, 1074) == Values{std::numeric_limits<double>::denorm_min()}));
  CHECK((power({-0.5}, 1, 5001) == Values{-0.}));
  CHECK((power({1}, 1, std::numeric_limits<std::int64_t>::max()) == Values{1}));
  CHECK((power({2}, 1, std::numeric_limits<std::int64_t>::max()) == Values{infinity}));
  CHECK((power({1e-308}, 1, std::numeric_limits<std::int64_t>::max()) == Values{0}));
  CHECK((power({0, 0, 0, 0}, 2, 3) == Values{0, 0, 0, 0}));
  CHECK((power({0, 1, 0, 0}, 2, 2) == Values{0, 0, 0, 0}));
  CHECK((power({1e300, 1e-300, 0, 1e300}, 2, 1) == Values{1e300, 0, 0, 1e300}));
  for (const double bad : {infinity, -infinity, std::numeric_limits<double>::quiet_NaN()})
    for (const double value : power({1, bad, 0, 1}, 2, 5)) CHECK(std::isnan(value));
}

void several_and_none() {
  const Values first{0.5, 0.25, -1, 0.125}, second{1, 2, 3, 4};
  Values both(first);
  both.insert(both.end(), second.begin(), second.end());
  Values expected = power(first, 2, 11);
  const Values other = power(second, 2, 11);
  expected.insert(expected.end(), other.begin(), other.end());
  CHECK(power(both, 2, 11) == expected);
  CHECK(matrix_power(both.data(), 2, 2, 11, both.data(), nullptr) == Status::ok && both == expected);  // in place
  CHECK((power({7, 8, 9, 10}, 2, 0) == Values{1, 0, 0, 1}));
  CHECK(matrix_power(nullptr, 0, 4, 3, nullptr, nullptr) == Status::ok);
  CHECK(matrix_power(nullptr, 3, 0, 3, nullptr, nullptr) == Status::ok);
  CHECK(matrix_power(both.data(), 1, 2, -1, both.data(), nullptr) == Status::out_of_range);
  CHECK(matrix_power(both.data(), -1, 2, 1, both.data(), nullptr) == Status::out_of_range);
  CHECK(matrix_power(both.data(), 1, -2, 1, both.data(), nullptr) == Status::out_of_range);
}

// What a double cannot hold of a power is the rest.
void twice_the_precision() {
  Values rest;
  const Values third = power({1. / 3}, 1, 2, &rest);
  const long double exact = static_cast<long double>(1. / 3) * (1. / 3);
  CHECK(static_cast<long double>(third[0]) + rest[0] == exact && rest[0] != 0);
  // An odd number of 106 bits, (2^53 − 1)^2 = 2^106 − 2^54 + 1.
  const double number = std::ldexp(1., 53) - 1;
  for (const double sign : {1., -1.}) {
    const Values square = power({0, sign * number, number, 0}, 2, 2, &rest);
    const double upper = std::ldexp(1., 106) - std::ldexp(1., 54);
    CHECK((square == Values{sign * upper, 0, 0, sign * upper}) && (rest == Values{sign, 0, 0, sign}), rest[0]);
  }
  CHECK((power({1e200}, 1, 2, &rest)[0] == std::numeric_limits<double>::infinity() && rest[0] == 0));
  CHECK((power({5}, 1, 0, &rest)[0] == 1 && rest[0] == 0));
}

Values states(const Values& matrices, const Values* rest, const Values& inputs, const Values& first) {
  const std::size_t size = first.size();
  Values result(inputs.size() + size);
  chained_states(matrices.data(), rest == nullptr ? nullptr : rest->data(), inputs.data(), first.data(),
                 size == 0 ? 3 : static_cast<std::int64_t>(inputs.size() / size), static_cast<std::int64_t>(size),
                 result.data());
  return result;
}

void chains() {
  const Values matrices{1, 2, 3, 4, 0, 1, -1, 0.5};
  CHECK((states(matrices, nullptr, {10, 20, -1, -2}, {1, 2}) == Values{1, 2, 15, 31, 30, -1.5}));
  CHECK((states({}, nullptr, {}, {1, 2}) == Values{1, 2}));
  CHECK(states({}, nullptr, {}, {}).empty());
  // What cancels leaves what doubles lose: in the products, in their sum, in the matrix.
  const double large = std::ldexp(1., 60);
  CHECK((states({large + 4096, -large, 0, 0}, nullptr, {1, 0}, {1, 1}) == Values{1, 1, 4097, 0}));
  CHECK((states({1. / 3, -1. / 3, 0, 0}, nullptr, {0, 0}, {1. / 3, 1. / 3}) == Values{1. / 3, 1. / 3, 0, 0}));
  const double third = 1. / 3, error = std::fma(third, third, -third * third);
  CHECK((states({third, -third * third, 0, 0}, nullptr, {0, 0}, {third, 1}) == Values{third, 1, error, 0}) &&
        error != 0);
  const Values rest{0, 0x1p-70, 0, 0};
  CHECK((states({1, -1, 0, 0}, &rest, {0, 0}, {8, 8}) == Values{8, 8, 0x1p-67, 0}));
  // What is not finite.
  constexpr double infinity = std::numeric_limits<double>::infinity();
  CHECK((states({infinity, 1, 1, infinity}, nullptr, {5, 0}, {0, 2}) == Values{0, 2, 7, infinity}));
  const Values bad = states({infinity, 1, 1, 0}, nullptr, {0, 0}, {1, -infinity});
  CHECK(std::isnan(bad[2]) && std::isnan(bad[3]));
}

}  // namespace

int main() {
  integers_are_exact();
  rotations();
  close_poles();
  what_leaves_the_range();
  several_and_none();
  twice_the_precision();
  chains();
  return check::result();
}
