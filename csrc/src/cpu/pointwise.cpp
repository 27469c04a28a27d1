// exp, tanh and sigmoid over a row, for one instruction set; CMake compiles this file once for each.
#include "cpu/dispatch.h"
#include "cpu/lanes.h"

namespace lsc {
inline namespace LSC_ISA {
namespace {

template <class T, Lanes<T> (*f)(const Lanes<T>&)>
void over_row(Index n, const T* x, T* y) {
  constexpr Index lanes = Lanes<T>::kCount;
  Index i = 0;
  for (; i + lanes <= n; i += lanes) store(y + i, f(Lanes<T>(load(x + i))).v);
  if (i < n) store_first(y + i, f(Lanes<T>(load_first(x + i, n - i))).v, n - i);
}

template <class T>
constexpr cpu::PointwiseKernels<T> kTable = {over_row<T, exp>, over_row<T, tanh>, over_row<T, sigmoid>};

}  // namespace
}  // namespace LSC_ISA

namespace cpu::LSC_ISA {
extern const PointwiseKernels<float> pointwise_float;
extern const PointwiseKernels<double> pointwise_double;
constexpr PointwiseKernels<float> pointwise_float = kTable<float>;
constexpr PointwiseKernels<double> pointwise_double = kTable<double>;
}  // namespace cpu::LSC_ISA
}  // namespace lsc
