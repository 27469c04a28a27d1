#pragma once

#include <vector>

#include "algorithms/stack.h"
#include "cuda/cells.h"

namespace lsc::cuda {

// As algorithms/forward.h, on device memory: fills trajectory.states from slot 0 on, and trajectory.gates where that is
// not null.
template <class T>
void forward(Execution& execution, const CellShape& cell, const CellLaunches<T>& launches,
             const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory);

}  // namespace lsc::cuda
