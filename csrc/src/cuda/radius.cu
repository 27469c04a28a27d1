#include <algorithm>
#include <new>
#include <string>

#include "cuda/launch.h"
#include "cuda/matrix_product.h"
#include "cuda/radius.h"
#include "cuda/step_product.h"
#include "cuda/vector_unit.h"

namespace lsc::cuda {
namespace {

constexpr Index kBlocksPerProcessor = 1;  // the serial program takes most of the registers

template <class T>
using Iteration = RadiusIteration<T, VectorUnit<T>>;

// What blocks work with; each warp has an iteration, and each block room for the vectors of its tile.
template <class T>
struct RadiusWorkspace {
  unsigned long long* queue;
  Iteration<T>* iterations;  // [blocks, kTile], as the next three
  RadiusScratch* scratch;
  T* vectors;
  double* h;
  std::int64_t* points;
  T* input;  // [blocks, kTile, n]
  T* output;
  T* products;  // [blocks, scratch of the products]
};

LSC_KERNEL reset_kernel(unsigned long long* queue) {
  if (thread() == 0) *queue = 0;
}

// The serial program, lane 0's. Not inlined, so that the kernels share it.
template <class T>
LSC_DEVICE __attribute__((noinline)) void start(Iteration<T>& iteration, std::uint64_t point, Eigenvalue target,
                                                bool has_target) {
  iteration.start(point, target, has_target);
}

template <class T>
LSC_DEVICE __attribute__((noinline)) void advance(Iteration<T>& iteration, RadiusScratch& scratch) {
  iteration.advance(scratch);
}

template <class T>
LSC_DEVICE __attribute__((noinline)) void write_vector(const Iteration<T>& iteration, T* x) {
  iteration.ritz_vector(x);
}

template <class T>
LSC_DEVICE void write(const RadiusResults<T>& results, Index i, Index n, const Iteration<T>& iteration) {
  const RadiusEstimate& found = iteration.result();
  results.radius[i] = found.radius;
  results.eigenvalue[i] = found.eigenvalue;
  results.residual[i] = found.residual;
  results.condition[i] = found.condition;
  results.num_matvecs[i] = std::int32_t(found.num_matvecs);
  results.status[i] = std::uint8_t(found.status);
  if (results.vectors) write_vector(iteration, results.vectors + i * 2 * n);
}

// A block advances kTile iterations side by side, one a warp: it gathers what they ask for into one product, and a warp
// whose point is done takes the next one from the queue.
template <class Products, class T>
LSC_KERNEL radius_kernel(LSC_ARGUMENT Products products, LSC_ARGUMENT RadiusOptions options, Index count,
                         RadiusTargets targets, RadiusResults<T> results, RadiusWorkspace<T> work,
                         Precision precision) {
  constexpr int kNothing = -1;
  LSC_SHARED(VectorOrder<T>, mailboxes, kTile);
  LSC_SHARED(int, wanted, kTile);
  const Index n = products.rows, slot = Index(block()) * kTile + warp();
  const VectorUnit<T> unit(mailboxes + warp());
  Iteration<T>* const iteration = work.iterations + slot;
  std::int64_t* const points = work.points + Index(block()) * kTile;
  T* const input = work.input + Index(block()) * kTile * n;
  T* const output = work.output + Index(block()) * kTile * n;
  T* const scratch = work.products + block() * products.scratch_elements();
  Index item = 0, point = 0;  // lane 0's
  if (lane() == 0)
    new (iteration) Iteration<T>(unit, n, options,
                                 {work.vectors + slot * RadiusMemory<T>::vectors_needed(n, options) * n,
                                  work.h + slot * RadiusMemory<T>::h_needed(n, options)});
  for (;;) {
    unit.run([&] {
      while (iteration->done()) {
        item = Index(atomic_add(work.queue, 1ull));
        if (item >= count) break;
        point = targets.point ? Index(targets.point[item]) : item;
        start(*iteration, targets.first + std::uint64_t(point),
              targets.eigenvalue ? targets.eigenvalue[item] : Eigenvalue{}, targets.eigenvalue != nullptr);
        if (iteration->done()) write(results, item, n, *iteration);
      }
      wanted[warp()] = iteration->done() ? kNothing : int(iteration->product());
    });
    barrier();
    const int own = wanted[warp()];
    int sizes[2] = {}, position = 0;  // of the two tiles, and where this warp's vector is in its own
    for (int i = 0; i < kTile; ++i) {
      const int other = wanted[i];
      position += i < warp() && other == own;
      sizes[0] += other == 0;
      sizes[1] += other == 1;
    }
    if (sizes[0] + sizes[1] == 0) return;
    for (int product = 0; product < 2; ++product) {
      const int size = product == 0 ? sizes[0] : sizes[1];
      if (size == 0) continue;
      if (own == product)
        unit.run([&] {
          unit.copy(n, iteration->input(), input + position * n);
          points[position] = point;
        });
      barrier();
      const bool transpose = (lsc::Product(product) == lsc::Product::rmatvec) != targets.transposed;
      apply_tile(precision, products, transpose, size, points, input, output, scratch);
      if (own == product)
        unit.run([&] {
          unit.copy(n, output + position * n, iteration->output());
          advance(*iteration, work.scratch[slot]);
          if (iteration->done()) write(results, item, n, *iteration);
        });
    }
    barrier();
  }
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
  const Index slots = blocks * kTile;
  Workspace& workspace = execution.workspace;
  RadiusWorkspace<T> work;
  work.queue = workspace.take<unsigned long long>(1);
  work.iterations = workspace.take<Iteration<T>>(slots);
  work.scratch = workspace.take<RadiusScratch>(slots);
  work.vectors = workspace.take<T>(slots * RadiusMemory<T>::vectors_needed(n, options) * n);
  work.h = workspace.take<double>(slots * RadiusMemory<T>::h_needed(n, options));
  work.points = workspace.take<std::int64_t>(slots);
  work.input = workspace.take<T>(slots * n);
  work.output = workspace.take<T>(slots * n);
  work.products = workspace.take<T>(blocks * products.scratch_elements());
  if (workspace.counting()) return;
  launch(execution, {"reset", {1}, 32}, reset_kernel, work.queue);
  launch(execution, {"radius", {blocks}, kTileThreads}, radius_kernel<Products, T>, products, options, count, targets,
         results, work, execution.precision);
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
