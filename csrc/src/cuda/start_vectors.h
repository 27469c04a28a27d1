#pragma once

#include "cuda/execution.h"

namespace lsc::cuda {

// Row i of out [count, n] <- start vector first + i of `seed`, standard normal (lsc/philox.h).
template <class T>
void start_vectors(const Execution& execution, std::uint64_t seed, std::uint64_t first, Index count, Index n, T* out);

}  // namespace lsc::cuda
