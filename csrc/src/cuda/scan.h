// Linear recurrences over time on the device; shapes and meaning are those of algorithms/scan.h. What becomes of a
// number depends on that number and the count of steps alone, bit for bit.
#pragma once

#include "algorithms/scan.h"
#include "cuda/execution.h"

namespace lsc::cuda {

// Without an initial state (null) the first state is the first input, and no transition is read for it.
template <class T>
void scan(Execution& execution, const ScanShape& shape, const T* transition, const T* inputs, const T* initial,
          T* states);

template <class T>
void block_scan(Execution& execution, const BlockScanShape& shape, const T* blocks, const T* inputs, const T* initial,
                T* states);

}  // namespace lsc::cuda
