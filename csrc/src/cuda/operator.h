// What kernels hold of N dense matrices.
#pragma once

#include "algorithms/backend.h"
#include "lsc/host_device.h"

namespace lsc::cuda {

// matrices [points, rows, columns], in the device's memory.
template <class T>
struct MatrixProducts {
  using Number = T;
  Index points = 0, rows = 0, columns = 0;
  const T* matrices = nullptr;

  LSC_HD Index scratch_elements() const { return 0; }
};

}  // namespace lsc::cuda
