#include "cuda/launch.h"
#include "cuda/start_vectors.h"
#include "lsc/philox.h"

namespace lsc::cuda {
namespace {

constexpr int kThreads = 128;

// One thread draws four numbers.
template <class T>
LSC_KERNEL start_vectors_kernel(std::uint64_t seed, std::uint64_t first, Index count, Index n, T* out) {
  const Index fours = (n + 3) / 4, i = Index(block()) * threads() + thread();
  if (i >= count * fours) return;
  const Index row = i / fours, four = i % fours;
  T drawn[4];
  normal_four(seed, first + std::uint64_t(row), 0, std::uint64_t(four), drawn);
  for (Index k = 0; k < 4 && 4 * four + k < n; ++k) out[row * n + 4 * four + k] = drawn[k];
}

}  // namespace

template <class T>
void start_vectors(const Execution& execution, std::uint64_t seed, std::uint64_t first, Index count, Index n, T* out) {
  launch(execution, {"start_vectors", {covering(count * ((n + 3) / 4), kThreads)}, kThreads}, start_vectors_kernel<T>,
         seed, first, count, n, out);
}

template void start_vectors(const Execution&, std::uint64_t, std::uint64_t, Index, Index, float*);
template void start_vectors(const Execution&, std::uint64_t, std::uint64_t, Index, Index, double*);

}  // namespace lsc::cuda
