// Products with chosen Jacobians of an operator on the device.
#pragma once

#include "cuda/execution.h"
#include "cuda/layer_step.h"
#include "cuda/operator.h"

namespace lsc::cuda {

// Row j of out <- J[point[j]] v_j, or its transpose times v_j, j < count; `point` null: point j. `point`, v and out are
// the device's. Row j of out depends on row j of v alone, bit for bit.
template <class Products, class T>
void apply(Execution& execution, const Products& products, bool transposed, Index count, const std::int64_t* point,
           const T* v, T* out);

}  // namespace lsc::cuda
