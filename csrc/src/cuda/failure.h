// Errors of the CUDA runtime as exceptions. Included by .cu files alone.
#pragma once

#include <cuda_runtime.h>

namespace lsc::cuda {

// Throws std::runtime_error with `what` was done, what CUDA says and what to do about it.
void check(cudaError_t status, const char* what);

}  // namespace lsc::cuda
