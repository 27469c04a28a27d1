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

}  // namespace LSC_ISA
}  // namespace lsc
