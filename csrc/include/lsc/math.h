// The scalar functions that cells are written with, for float, double and duals of them.
#pragma once

#include <cmath>

#include "lsc/dual.h"

namespace lsc {
inline namespace LSC_ISA {

LSC_HD inline float tanh(float x) { return std::tanh(x); }
LSC_HD inline double tanh(double x) { return std::tanh(x); }

LSC_HD inline float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }
LSC_HD inline double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// max(x, 0) that lets NaN through.
LSC_HD inline float relu(float x) { return x < 0.0f ? 0.0f : x; }
LSC_HD inline double relu(double x) { return x < 0.0 ? 0.0 : x; }

// d relu / dx, 0 at the kink as in torch; NaN stays NaN, so that no finite Jacobian hides it.
LSC_HD inline float step_at_zero(float x) { return x > 0.0f ? 1.0f : x <= 0.0f ? 0.0f : x; }
LSC_HD inline double step_at_zero(double x) { return x > 0.0 ? 1.0 : x <= 0.0 ? 0.0 : x; }

template <class T, int K>
LSC_HD Dual<T, K> tanh(const Dual<T, K>& x) {
  const T y = tanh(x.value);
  return chain(x, y, T(1.0) - y * y);
}

template <class T, int K>
LSC_HD Dual<T, K> sigmoid(const Dual<T, K>& x) {
  const T y = sigmoid(x.value);
  return chain(x, y, y * (T(1.0) - y));
}

template <class T, int K>
LSC_HD Dual<T, K> step_at_zero(const Dual<T, K>& x) {
  Dual<T, K> result(0.0);
  result.value = step_at_zero(x.value);
  return result;
}

template <class T, int K>
LSC_HD Dual<T, K> relu(const Dual<T, K>& x) {
  return chain(x, relu(x.value), step_at_zero(x.value));
}

LSC_HD inline float sin(float x) { return std::sin(x); }
LSC_HD inline double sin(double x) { return std::sin(x); }
LSC_HD inline float cos(float x) { return std::cos(x); }
LSC_HD inline double cos(double x) { return std::cos(x); }

template <class T, int K>
LSC_HD Dual<T, K> sin(const Dual<T, K>& x) {
  return chain(x, sin(x.value), cos(x.value));
}

template <class T, int K>
LSC_HD Dual<T, K> cos(const Dual<T, K>& x) {
  return chain(x, cos(x.value), -sin(x.value));
}

LSC_HD inline float exp(float x) { return std::exp(x); }
LSC_HD inline double exp(double x) { return std::exp(x); }

template <class T, int K>
LSC_HD Dual<T, K> exp(const Dual<T, K>& x) {
  const T y = exp(x.value);
  return chain(x, y, y);
}

// The distribution function of the standard normal distribution.
LSC_HD inline float normal_cdf(float x) { return 0.5f * std::erfc(-0.70710678118654752f * x); }
LSC_HD inline double normal_cdf(double x) { return 0.5 * std::erfc(-0.70710678118654752 * x); }

template <class T, int K>
LSC_HD Dual<T, K> normal_cdf(const Dual<T, K>& x) {
  return chain(x, normal_cdf(x.value), T(0.39894228040143268) * exp(T(-0.5) * x.value * x.value));
}

// Hendrycks & Gimpel, "Gaussian error linear units", 2016, exact.
template <class T>
LSC_HD T gelu(const T& x) {
  return x * normal_cdf(x);
}

// x as data: no derivative of any order goes through it.
LSC_HD inline float detach(float x) { return x; }
LSC_HD inline double detach(double x) { return x; }

template <class T, int K>
LSC_HD Dual<T, K> detach(const Dual<T, K>& x) {
  Dual<T, K> result(0.0);
  result.value = detach(x.value);
  return result;
}

// |x|, with the slope 0 at 0.
LSC_HD inline float abs(float x) { return std::fabs(x); }
LSC_HD inline double abs(double x) { return std::fabs(x); }

template <class T, int K>
LSC_HD Dual<T, K> abs(const Dual<T, K>& x) {
  return chain(x, abs(x.value), step_at_zero(x.value) - step_at_zero(-x.value));
}

// 1 where x > 0, else 0; NaN stays NaN. Its derivative is a surrogate, 0.5 / (1 + 2 |x|)^2, the shape of a fast
// sigmoid's (Zenke & Ganguli, 2018) with the dampening of Bellec et al.
template <class T>
LSC_HD T spike(const T& x) {
  return step_at_zero(x);
}

template <class T, int K>
LSC_HD Dual<T, K> spike(const Dual<T, K>& x) {
  const T width = T(1.0) + T(2.0) * abs(x.value);
  return chain(x, spike(x.value), T(0.5) / (width * width));
}

}  // namespace LSC_ISA
}  // namespace lsc
