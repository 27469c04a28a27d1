#include <algorithm>
#include <type_traits>

#include "cuda/apply.h"
#include "cuda/launch.h"
#include "cuda/matrix_product.h"
#include "cuda/step_product.h"

namespace lsc::cuda {
namespace {

constexpr Index kBlocksPerProcessor = 4;

// Blocks take the tiles in turn. Each has scratch of its own, and room for the numbers of its points where it is point
// j for row j.
template <Precision kPrecision, class Products, class T>
LSC_KERNEL apply_kernel(LSC_ARGUMENT Products products, bool transposed, Index count, const std::int64_t* point,
                        const T* v, T* out, T* scratch, std::int64_t* numbers) {
  const Index v_row = transposed ? products.rows : products.columns;
  const Index out_row = transposed ? products.columns : products.rows;
  scratch += block() * products.scratch_elements();
  numbers += block() * kTile;
  for (Index first = Index(block()) * kTile; first < count; first += Index(blocks()) * kTile) {
    const int size = int(count - first < kTile ? count - first : kTile);
    if (!point) {
      if (thread() < size) numbers[thread()] = first + thread();
      barrier();
    }
    apply_tile(ThePrecision<kPrecision>(), products, transposed, size, point ? point + first : numbers,
               v + first * v_row, out + first * out_row, scratch);
  }
}

}  // namespace

template <class Products, class T>
void apply(Execution& execution, const Products& products, bool transposed, Index count, const std::int64_t* point,
           const T* v, T* out) {
  if (sizeof(T) == sizeof(float)) require_precision(execution);
  const Index blocks = std::min(covering(count, kTile), kBlocksPerProcessor * processors(execution.device));
  T* scratch = execution.workspace.take<T>(blocks * products.scratch_elements());
  std::int64_t* numbers = execution.workspace.take<std::int64_t>(point ? 0 : blocks * kTile);
  if (execution.workspace.counting()) return;
  const auto run = [&](auto kernel) {
    launch(execution, {"apply", {blocks}, kTileThreads}, kernel, products, transposed, count, point, v, out, scratch,
           numbers);
  };
  if constexpr (std::is_same_v<Products, StepProducts<float>>) {
    switch (execution.precision) {
      case Precision::tf32:
        return run(apply_kernel<Precision::tf32, Products, T>);
      case Precision::fp16:
        return run(apply_kernel<Precision::fp16, Products, T>);
      case Precision::bf16:
        return run(apply_kernel<Precision::bf16, Products, T>);
      case Precision::fp32:
        break;
    }
  }
  run(apply_kernel<Precision::fp32, Products, T>);
}

#define LSC_APPLY(Products, T) \
  template void apply(Execution&, const Products<T>&, bool, Index, const std::int64_t*, const T*, T*)
LSC_APPLY(StepProducts, float);
LSC_APPLY(StepProducts, double);
LSC_APPLY(MatrixProducts, float);
LSC_APPLY(MatrixProducts, double);
#undef LSC_APPLY

}  // namespace lsc::cuda
