// The forward pass of a stack in one cooperative launch. Chosen where plan.h finds a way that is shorter by its model;
// it must equal what launches for every step give, bit for bit.
#pragma once

#include <string>
#include <vector>

#include "algorithms/stack.h"
#include "cuda/execution.h"
#include "cuda/fused/plan.h"

namespace lsc::cuda {

template <class T>
Plan plan_walk(const Execution& execution, const std::string& cell_name, const CellShape& cell,
               const StackShape& shape);

// trajectory as of forward(); `plan` is that of plan_walk(), and has no reason against it.
template <class T>
void walk_forward(Execution& execution, const Plan& plan, const std::string& cell_name, const CellShape& cell,
                  const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory);

}  // namespace lsc::cuda
