// What kernels hold of a batch of Jacobians. StepProducts (cuda/layer_step.h) and MatrixProducts have one shape:
//   Number, points, rows, columns
//   scratch_elements()    what a tile of products needs beside its vectors
//   apply_tile(precision, products, transposed, count, point, v, out, scratch)    in cuda/step_product.h and
//                         cuda/matrix_product.h, device code
#pragma once

#include "algorithms/backend.h"
#include "lsc/host_device.h"

namespace lsc::cuda {

// N dense matrices [N, rows, columns].
template <class T>
struct MatrixProducts {
  using Number = T;
  Index points = 0, rows = 0, columns = 0;
  const T* matrices = nullptr;

  LSC_HD Index scratch_elements() const { return 0; }
};

}  // namespace lsc::cuda
