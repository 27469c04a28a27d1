// The forward pass of a stack and the radii of its steps in one cooperative launch.
//
// Chosen where plan.h finds room for the walking blocks and leaves others to the radii. It must equal forward() and
// then estimate_radii() bit for bit: the sums run over the same chunks, and a point's radius depends on nothing but the
// point.
//
// The first blocks walk (walk_role.h). All others, and those that have finished, take points from a queue in the order
// of their steps, wait for the step, linearise it and iterate (radius_role.h).
#pragma once

#include <string>
#include <vector>

#include "algorithms/radius_iteration.h"
#include "algorithms/stack.h"
#include "cuda/execution.h"
#include "cuda/fused/plan.h"
#include "cuda/radius.h"

namespace lsc::cuda {

template <class T>
Plan plan_forward_radii(const Execution& execution, const std::string& cell_name, const CellShape& cell,
                        const StackShape& shape);

// Of every item, in the device's memory and in the order in which blocks take them: its layer, step and batch row, the
// seed and the number of its start vector, and where its results go.
struct FusedItems {
  Index count = 0;
  const std::int64_t *layer = nullptr, *t = nullptr, *b = nullptr, *seed = nullptr, *vector = nullptr,
                     *output = nullptr;
};

// The direction is time, depth or diagonal. The trajectory has gates. Where lefts.radius is not null, an iteration with
// the transposed Jacobian follows for every point whose radius is finite and above zero: towards the eigenvalue that
// was found, as T has it, from the next seed. Throws std::invalid_argument where plan_forward_radii() has a reason.
template <class T>
void forward_radii(Execution& execution, const std::string& cell_name, const CellShape& cell,
                   const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory,
                   Direction direction, const FusedItems& items, const RadiusOptions& options,
                   const RadiusResults<T>& results, const RadiusResults<T>& lefts);

}  // namespace lsc::cuda
