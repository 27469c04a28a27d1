#pragma once

#include <string>
#include <vector>

#include "algorithms/stack.h"
#include "cuda/execution.h"

namespace lsc::cuda {

// As algorithms/forward.h, on device memory: fills trajectory.states from slot 0 on, and trajectory.gates where that is
// not null. In one launch where fused/plan.h says that it pays.
template <class T>
void forward(Execution& execution, const std::string& cell_name, const CellShape& cell,
             const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory);

}  // namespace lsc::cuda
