// Lanes<T>: as many units of a row as a vector holds, as one number. A cell's `step` evaluates on it and on duals of it
// as it does on T. The method and the error bounds of exp, tanh and sigmoid: docs/math/pointwise-functions.md.
#pragma once

#include "cpu/vector.h"
#include "lsc/math.h"

namespace lsc {
inline namespace LSC_ISA {

template <class T>
struct Lanes {
  using Vector = typename VectorOf<T>::type;
  static constexpr int kCount = VectorOf<T>::kLanes;
  Vector v;

  Lanes() = default;
  Lanes(double constant) : v(Vector{} + T(constant)) {}
  explicit Lanes(Vector vector) : v(vector) {}

  friend Lanes operator+(const Lanes& a, const Lanes& b) { return Lanes(a.v + b.v); }
  friend Lanes operator-(const Lanes& a, const Lanes& b) { return Lanes(a.v - b.v); }
  friend Lanes operator*(const Lanes& a, const Lanes& b) { return Lanes(a.v * b.v); }
  friend Lanes operator/(const Lanes& a, const Lanes& b) { return Lanes(a.v / b.v); }
  friend Lanes operator-(const Lanes& a) { return Lanes(-a.v); }
};

template <class T>
inline typename VectorOf<T>::Bits bits(const Lanes<T>& x) {
  return reinterpret_cast<typename VectorOf<T>::Bits>(x.v);
}

template <class T>
inline Lanes<T> from_bits(typename VectorOf<T>::Bits b) {
  return Lanes<T>(reinterpret_cast<typename VectorOf<T>::type>(b));
}

// All bits but the sign.
template <class T>
inline constexpr typename VectorOf<T>::Word kMagnitude = ~typename VectorOf<T>::Word(0) >> 1;

template <class T>
inline Lanes<T> abs(const Lanes<T>& x) {
  return from_bits<T>(bits(x) & kMagnitude<T>);
}

// |magnitude| with the sign of `sign`.
template <class T>
inline Lanes<T> with_sign(const Lanes<T>& magnitude, const Lanes<T>& sign) {
  return from_bits<T>((bits(magnitude) & kMagnitude<T>) | (bits(sign) & ~kMagnitude<T>));
}

// Both let NaN through.
template <class T>
inline Lanes<T> at_most(const Lanes<T>& x, double limit) {
  const Lanes<T> l(limit);
  return Lanes<T>(l.v < x.v ? l.v : x.v);
}
template <class T>
inline Lanes<T> at_least(const Lanes<T>& x, double limit) {
  const Lanes<T> l(limit);
  return Lanes<T>(l.v > x.v ? l.v : x.v);
}

template <class T>
inline Lanes<T> relu(const Lanes<T>& x) {
  return at_least(x, 0.0);
}

template <class T>
inline Lanes<T> step_at_zero(const Lanes<T>& x) {
  const Lanes<T> zero(0.0), one(1.0);
  return Lanes<T>(x.v > zero.v ? one.v : x.v <= zero.v ? zero.v : x.v);
}

template <class T>
inline Lanes<T> detach(const Lanes<T>& x) {
  return x;
}

// What a number format needs for 2^n exp(r) with |r| <= log(2) / 2.
template <class T>
struct Exponential;

template <>
struct Exponential<float> {
  static constexpr int kMantissaBits = 23, kBias = 127;
  // Beyond these, exp is 0 and infinite.
  static constexpr double kLeast = -104, kMost = 89;
  // From here on tanh is 1.
  static constexpr double kFlat = 9.1;
  // exp(x) 2^kLift is normal down to kLeast.
  static constexpr int kLift = 64;
  // log(2) in two parts; the first one times any n of the range is exact.
  static constexpr double kLog2 = 0.693145751953125, kLog2Rest = 1.4286068203094287e-06;
  // q in expm1(r) = r + r^2 q(r), of least relative error of expm1.
  static constexpr int kTerms = 5;
  static constexpr double kSeries[kTerms] = {0.49999997, 0.16666543, 0.0416672, 0.0083665205, 0.0013882521};
};

template <>
struct Exponential<double> {
  static constexpr int kMantissaBits = 52, kBias = 1023;
  static constexpr double kLeast = -746, kMost = 710;
  static constexpr double kFlat = 19.1;
  static constexpr int kLift = 512;
  static constexpr double kLog2 = 0.693147180559663, kLog2Rest = 2.823529170886685e-13;
  static constexpr int kTerms = 10;
  static constexpr double kSeries[kTerms] = {0.5000000000000006,    0.1666666666666659,    0.04166666666657672,
                                             0.00833333333338941,   0.0013888888931573844, 0.00019841269719381638,
                                             2.480150526425059e-05, 2.755740716614595e-06, 2.7626041291590623e-07,
                                             2.505390507049403e-08};
};

constexpr double power_of_two(int power) {
  double result = 1;
  for (; power > 0; --power) result *= 2;
  for (; power < 0; ++power) result /= 2;
  return result;
}

// Added to a number, it leaves the nearest whole n, and its last bits are the exponent field of 2^(n + lift).
template <class T, int lift>
inline constexpr double kRounder = 1.5 * power_of_two(Exponential<T>::kMantissaBits) + Exponential<T>::kBias + lift;

// 2^(n + lift) from kRounder + n.
template <class T>
inline Lanes<T> scale_of(const Lanes<T>& rounded) {
  return from_bits<T>(bits(rounded) << Exponential<T>::kMantissaBits);
}

// x = n log(2) + r: kRounder + n, and expm1(r).
template <class T>
struct Reduced {
  Lanes<T> rounded, expm1;
};

template <int lift, class T>
inline Reduced<T> reduce(const Lanes<T>& x) {
  using E = Exponential<T>;
  const Lanes<T> rounder(kRounder<T, lift>);
  const Lanes<T> rounded = x * Lanes<T>(1.4426950408889634) + rounder;
  const Lanes<T> n = rounded - rounder;
  const Lanes<T> r = (x - n * Lanes<T>(E::kLog2)) - n * Lanes<T>(E::kLog2Rest);
  // Even and odd terms are two chains, which run side by side.
  const Lanes<T> square = r * r;
  constexpr int last = E::kTerms - 1;
  Lanes<T> sum(E::kSeries[last]), other(E::kSeries[last - 1]);
  for (int k = last - 2; k >= 0; k -= 2) sum = sum * square + Lanes<T>(E::kSeries[k]);
  for (int k = last - 3; k >= 0; k -= 2) other = other * square + Lanes<T>(E::kSeries[k]);
  const Lanes<T> q = last % 2 == 0 ? r * other + sum : r * sum + other;
  return {rounded, square * q + r};
}

// In two factors, as neither the largest nor the smallest scale is a normal number.
template <class T>
inline Lanes<T> exp(const Lanes<T>& x) {
  using E = Exponential<T>;
  const Reduced<T> reduced = reduce<0>(at_least(at_most(x, E::kMost), E::kLeast));
  const Lanes<T> rounder(kRounder<T, 0>);
  const Lanes<T> n = reduced.rounded - rounder;
  const Lanes<T> half = n * Lanes<T>(0.5) + rounder;
  const Lanes<T> scale = scale_of(half), rest = scale_of((n - (half - rounder)) + rounder);
  return (reduced.expm1 * scale + scale) * rest;
}

// With z = exp(-|x|): 1 / (1 + z), and z / (1 + z) where x < 0, which keeps its digits as it goes to 0.
template <class T>
inline Lanes<T> sigmoid(const Lanes<T>& x) {
  using E = Exponential<T>;
  constexpr double lowered = power_of_two(-E::kLift);
  const Reduced<T> reduced = reduce<E::kLift>(at_least(-abs(x), E::kLeast));
  const Lanes<T> scale = scale_of(reduced.rounded);
  const Lanes<T> z = (reduced.expm1 * scale + scale) * Lanes<T>(lowered);
  const Lanes<T> zero(0.0), one(1.0);
  return Lanes<T>(x.v < zero.v ? z.v : one.v) / (one + z);
}

// With m = expm1(-2 |x|): -m / (2 + m), which keeps its digits as x goes to 0.
template <class T>
inline Lanes<T> tanh(const Lanes<T>& x) {
  const Reduced<T> reduced = reduce<0>(at_most(abs(x), Exponential<T>::kFlat) * Lanes<T>(-2.0));
  const Lanes<T> scale = scale_of(reduced.rounded);
  const Lanes<T> m = reduced.expm1 * scale + (scale - Lanes<T>(1.0));
  return with_sign(m / (m + Lanes<T>(2.0)), x);
}

template <class T>
inline Lanes<T> lane_by_lane(T (*f)(T), const Lanes<T>& x) {
  Lanes<T> result;
  for (int l = 0; l < Lanes<T>::kCount; ++l) result.v[l] = f(x.v[l]);
  return result;
}

template <class T>
inline Lanes<T> sin(const Lanes<T>& x) {
  return lane_by_lane<T>(sin, x);
}
template <class T>
inline Lanes<T> cos(const Lanes<T>& x) {
  return lane_by_lane<T>(cos, x);
}
template <class T>
inline Lanes<T> normal_cdf(const Lanes<T>& x) {
  return lane_by_lane<T>(normal_cdf, x);
}

}  // namespace LSC_ISA
}  // namespace lsc
