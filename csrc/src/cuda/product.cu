#include "cuda/launch.h"
#include "cuda/product.h"

namespace lsc::cuda {
namespace {

constexpr int kThreads = 128;

// One thread takes one element of C.
template <class T>
LSC_KERNEL multiply_kernel(Product<T> x) {
  const Index i = Index(block()) * threads() + thread(), g = block_z();
  if (i >= x.m * x.n) return;
  const Index row = i / x.n, column = i % x.n;
  T sum = x.start ? x.start[x.start_offset[g] + row * x.start_row + column * x.start_column] : T(0);
  for (int r = 0; r < x.terms; ++r) {
    const T* a = x.a + x.a_offset[g * x.terms + r] + row * x.a_row;
    const T* b = x.b + x.b_offset[g * x.terms + r] + column * x.b_column;
    for (Index k = 0; k < x.k; ++k) sum += a[k * x.a_column] * b[k * x.b_row];
  }
  x.c[x.c_offset[g] + row * x.c_row + column] = sum;
}

}  // namespace

template <class T>
void multiply(const Execution& execution, const Product<T>& product) {
  launch(execution, {"multiply", {covering(product.m * product.n, kThreads), 1, product.groups}, kThreads},
         multiply_kernel<T>, product);
}

template void multiply(const Execution&, const Product<float>&);
template void multiply(const Execution&, const Product<double>&);

}  // namespace lsc::cuda
