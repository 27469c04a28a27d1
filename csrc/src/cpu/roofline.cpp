// The machine's peak rate of multiply-adds for one instruction set; CMake compiles this file once for each.
//
// Twelve chains that never meet, more than latency times units on the processors at hand, all in registers.
#include "cpu/vector.h"

namespace lsc {
inline namespace LSC_ISA {
namespace {

template <class T>
T multiply_add_chains(Index rounds, T factor, T addend) {
  using Vector = typename VectorOf<T>::type;
  const Vector a = Vector{} + factor, b = Vector{} + addend;
  // By name: compilers spill an array of vectors where they do not unroll its loops.
  Vector x0 = b, x1 = b + T(1), x2 = b + T(2), x3 = b + T(3), x4 = b + T(4), x5 = b + T(5);
  Vector x6 = b + T(6), x7 = b + T(7), x8 = b + T(8), x9 = b + T(9), x10 = b + T(10), x11 = b + T(11);
  for (Index i = 0; i < rounds; ++i) {
    x0 = x0 * a + b, x1 = x1 * a + b, x2 = x2 * a + b, x3 = x3 * a + b, x4 = x4 * a + b, x5 = x5 * a + b;
    x6 = x6 * a + b, x7 = x7 * a + b, x8 = x8 * a + b, x9 = x9 * a + b, x10 = x10 * a + b, x11 = x11 * a + b;
  }
  const Vector total = ((x0 + x1) + (x2 + x3)) + ((x4 + x5) + (x6 + x7)) + ((x8 + x9) + (x10 + x11));
  T result = T(0);
  for (int l = 0; l < VectorOf<T>::kLanes; ++l) result += total[l];
  return result;
}

template <class T>
constexpr RooflineKernels<T> kTable = {2 * 12 * VectorOf<T>::kLanes, multiply_add_chains<T>};

}  // namespace
}  // namespace LSC_ISA

namespace cpu::LSC_ISA {
extern const RooflineKernels<float> roofline_float;
extern const RooflineKernels<double> roofline_double;
constexpr RooflineKernels<float> roofline_float = kTable<float>;
constexpr RooflineKernels<double> roofline_double = kTable<double>;
}  // namespace cpu::LSC_ISA
}  // namespace lsc
