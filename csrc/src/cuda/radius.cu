#include <algorithm>
#include <string>

#include "cuda/launch.h"
#include "cuda/matrix_product.h"
#include "cuda/radius.h"
#include "cuda/radius_role.h"
#include "cuda/step_product.h"

namespace lsc::cuda {
namespace {

constexpr Index kBlocksPerProcessor = 1;  // the serial program takes most of the registers

// The points of an operator: all, or those that are asked for.
template <class Products, class T>
struct OperatorPoints {
  static constexpr bool kLeft = false;
  Products products;
  RadiusTargets targets;
  Index count;
  bool transposed;
  std::uint64_t all_seed;

  LSC_DEVICE Index prepare(Index item) const { return targets.point ? Index(targets.point[item]) : item; }
  LSC_DEVICE int group(Index) const { return 0; }
  LSC_DEVICE std::uint64_t seed(Index) const { return all_seed; }
  LSC_DEVICE std::uint64_t vector(Index item) const { return targets.first + std::uint64_t(prepare(item)); }
  LSC_DEVICE bool has_target() const { return targets.eigenvalue != nullptr; }
  LSC_DEVICE Eigenvalue target(Index item) const {
    return targets.eigenvalue ? targets.eigenvalue[item] : Eigenvalue{};
  }
  LSC_DEVICE Index output(Index item) const { return item; }
  template <class Choice>
  LSC_DEVICE void apply(Choice precision, int, bool transpose, int size, const std::int64_t* point, const T* v, T* out,
                        T* scratch) const {
    apply_tile(precision, products, transpose, size, point, v, out, scratch);
  }
};

LSC_KERNEL reset_kernel(unsigned long long* queue) {
  if (thread() == 0) *queue = 0;
}

template <class Products, class T>
LSC_KERNEL radius_kernel(LSC_ARGUMENT OperatorPoints<Products, T> points, LSC_ARGUMENT RadiusOptions options,
                         RadiusResults<T> results, RadiusWorkspace<T> work, Precision precision) {
  radius_role(points, points.products.rows, options, results, {}, work, precision);
}

}  // namespace

template <class Products, class T>
void estimate_radii(Execution& execution, const Products& products, const RadiusOptions& options, Index count,
                    const RadiusTargets& targets, const RadiusResults<T>& results) {
  const Index n = products.rows;
  if (products.columns != n)
    throw std::invalid_argument("operator: expected square Jacobians, got " + std::to_string(n) + " x " +
                                std::to_string(products.columns));
  if (sizeof(T) == sizeof(float)) require_precision(execution);
  const Index blocks = std::min(covering(count, kTile), kBlocksPerProcessor * processors(execution.device));
  const RadiusWorkspace<T> work =
      radius_workspace<T>(execution.workspace, blocks, n, options, products.scratch_elements());
  if (execution.workspace.counting()) return;
  launch(execution, {"reset", {1}, 32}, reset_kernel, work.queue);
  const OperatorPoints<Products, T> points = {products, targets, count, targets.transposed, options.seed};
  launch(execution, {"radius", {blocks}, kTileThreads}, radius_kernel<Products, T>, points, options, results, work,
         execution.precision);
}

template void estimate_radii(Execution&, const MatrixProducts<float>&, const RadiusOptions&, Index,
                             const RadiusTargets&, const RadiusResults<float>&);
template void estimate_radii(Execution&, const MatrixProducts<double>&, const RadiusOptions&, Index,
                             const RadiusTargets&, const RadiusResults<double>&);
template void estimate_radii(Execution&, const StepProducts<float>&, const RadiusOptions&, Index, const RadiusTargets&,
                             const RadiusResults<float>&);
template void estimate_radii(Execution&, const StepProducts<double>&, const RadiusOptions&, Index, const RadiusTargets&,
                             const RadiusResults<double>&);

}  // namespace lsc::cuda
