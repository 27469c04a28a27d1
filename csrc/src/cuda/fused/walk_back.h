// The backward pass of a stack through all its steps in one cooperative launch; what sums over steps is left to
// products after it. Chosen as the forward pass is (walk.h); it must equal what launches for every step give, bit for
// bit.
#pragma once

#include <string>
#include <vector>

#include "algorithms/stack.h"
#include "cuda/execution.h"
#include "cuda/fused/plan.h"

namespace lsc::cuda {

template <class T>
Plan plan_walk_back(const Execution& execution, const std::string& cell_name, const CellShape& cell,
                    const StackShape& shape);

// state_gradients as of backward(); leaves gate_gradients [L, T, B, P, H] and unit_gradients [L, T, B, Q, H].
template <class T>
void walk_backward(Execution& execution, const Plan& plan, const std::string& cell_name, const CellShape& cell,
                   const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory,
                   T* state_gradients, T* gate_gradients, T* unit_gradients);

}  // namespace lsc::cuda
