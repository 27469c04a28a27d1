// The forward pass of a stack and the radii of its steps in one cooperative launch.
//
// Chosen where the recurrent blocks fit on the device beside each other, each with its slice of a layer's weights in
// shared memory; why_not_fused() is the one place that decides. It must equal forward() and then estimate_radii()
// bit for bit: the sums run over the same chunks, and a point's radius depends on nothing but the point.
//
// The first L * slices blocks walk: block (l, s) computes `units` units of layer l at every step, as soon as the layer
// below has the step and its own layer the one before. All others, and those that have finished, take points from
// a queue in the order of their steps, wait for the step, linearise it and iterate.
#pragma once

#include <string>
#include <vector>

#include "algorithms/radius_iteration.h"
#include "algorithms/stack.h"
#include "cuda/execution.h"
#include "cuda/radius.h"

namespace lsc::cuda {

inline constexpr int kMostFusedLayers = 16;

// Why one launch cannot hold a stack, empty where it can: otherwise the caller makes two passes.
template <class T>
std::string why_not_fused(const Execution& execution, const std::string& cell_name, const CellShape& cell,
                          const StackShape& shape);

// Of every item, in the device's memory and in the order in which blocks take them: its layer, step and batch row, the
// seed and the number of its start vector, and where its results go.
struct FusedItems {
  Index count = 0;
  const std::int64_t *layer = nullptr, *t = nullptr, *b = nullptr, *seed = nullptr, *vector = nullptr,
                     *output = nullptr;
};

// The direction is time or diagonal. The trajectory has gates. `barrier` [2] is zero before its first use and used by
// one launch at a time. Throws std::invalid_argument where
// why_not_fused() has a reason.
template <class T>
void forward_radii(Execution& execution, const std::string& cell_name, const CellShape& cell,
                   const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory,
                   Direction direction, const FusedItems& items, const RadiusOptions& options,
                   const RadiusResults<T>& results, unsigned* barrier);

}  // namespace lsc::cuda
