#pragma once

#include "cuda/device.h"
#include "lsc/host_device.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

// The sum over the warp's lanes, the same for each of them.
template <class T>
LSC_DEVICE T warp_sum(T value) {
  for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}

}  // namespace LSC_ISA
}  // namespace lsc::cuda
