// Real and complex numbers of a linear recurrence, and steps of it whose loads are issued ahead.
#pragma once

#include "cuda/device.h"
#include "cuda/execution.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

template <class T>
struct alignas(2 * sizeof(T)) Complex {
  T re = 0, im = 0;
};

// a h + b
template <class T>
LSC_DEVICE T advance(T a, T h, T b) {
  return b + a * h;
}
template <class T>
LSC_DEVICE Complex<T> advance(const Complex<T>& a, const Complex<T>& h, const Complex<T>& b) {
  return {b.re + a.re * h.re - a.im * h.im, b.im + a.re * h.im + a.im * h.re};
}

template <class T>
LSC_DEVICE T conjugate(T a) {
  return a;
}
template <class T>
LSC_DEVICE Complex<T> conjugate(const Complex<T>& a) {
  return {a.re, -a.im};
}

template <class T>
LSC_DEVICE bool finite(T a) {
  return a - a == T(0);
}
template <class T>
LSC_DEVICE bool finite(const Complex<T>& a) {
  return finite(a.re) && finite(a.im);
}

// What a load brings that is used in one step; so many of them are under way as fit into a few registers.
template <class Item>
inline constexpr int kStepsAhead = sizeof(Item) < 64 ? int(64 / sizeof(Item)) : 1;

// use(t, load(t)) for t = first .. last - 1 in this order; the next steps are loaded before these are used.
template <class Item, class Load, class Use>
LSC_DEVICE void each_step(Index first, Index last, const Load& load, const Use& use) {
  constexpr int kAhead = kStepsAhead<Item>;
  if (first >= last) return;
  Item next[kAhead];
  for (int k = 0; k < kAhead; ++k) next[k] = load(first + k < last ? first + k : last - 1);
  for (Index t = first; t < last; t += kAhead) {
    Item now[kAhead];
    for (int k = 0; k < kAhead; ++k) now[k] = next[k];
    for (int k = 0; k < kAhead; ++k) next[k] = load(t + kAhead + k < last ? t + kAhead + k : last - 1);
    for (int k = 0; k < kAhead; ++k)
      if (t + k < last) use(t + k, now[k]);
  }
}

}  // namespace LSC_ISA
}  // namespace lsc::cuda
