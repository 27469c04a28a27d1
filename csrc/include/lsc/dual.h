// Dual<T, K>: a value with K directional derivatives. Evaluating a function on it gives the function's derivative along
// each direction; Dual<Dual<T, 1>, K> gives second derivatives (docs/math/dual-numbers.md).
#pragma once

#include "lsc/host_device.h"

namespace lsc {
inline namespace LSC_ISA {

template <class T, int K>
struct Dual {
  T value;
  T partial[K];

  Dual() = default;
  LSC_HD Dual(double constant) : value(T(constant)) {
    for (int k = 0; k < K; ++k) partial[k] = T(0.0);
  }

  LSC_HD friend Dual operator+(const Dual& a, const Dual& b) {
    Dual c;
    c.value = a.value + b.value;
    for (int k = 0; k < K; ++k) c.partial[k] = a.partial[k] + b.partial[k];
    return c;
  }
  LSC_HD friend Dual operator-(const Dual& a, const Dual& b) {
    Dual c;
    c.value = a.value - b.value;
    for (int k = 0; k < K; ++k) c.partial[k] = a.partial[k] - b.partial[k];
    return c;
  }
  LSC_HD friend Dual operator*(const Dual& a, const Dual& b) {
    Dual c;
    c.value = a.value * b.value;
    for (int k = 0; k < K; ++k) c.partial[k] = a.partial[k] * b.value + a.value * b.partial[k];
    return c;
  }
  LSC_HD friend Dual operator/(const Dual& a, const Dual& b) {
    Dual c;
    c.value = a.value / b.value;
    for (int k = 0; k < K; ++k) c.partial[k] = (a.partial[k] - c.value * b.partial[k]) / b.value;
    return c;
  }
  LSC_HD friend Dual operator-(const Dual& a) { return Dual(0.0) - a; }
};

// The dual of y = f(x) given y and the slope f'(x).
template <class T, int K>
LSC_HD Dual<T, K> chain(const Dual<T, K>& x, const T& y, const T& slope) {
  Dual<T, K> result;
  result.value = y;
  for (int k = 0; k < K; ++k) result.partial[k] = slope * x.partial[k];
  return result;
}

}  // namespace LSC_ISA
}  // namespace lsc
