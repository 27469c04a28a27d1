// How a few orthonormal vectors grow along chains of Jacobians, by repeated QR decomposition (Benettin et al. 1980):
// the logarithms of R's diagonal add up to finite-time Lyapunov exponents.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "algorithms/memory.h"
#include "algorithms/operator.h"
#include "lsc/philox.h"

namespace lsc {

struct ChainGrowth {
  Index chains = 0, steps = 0, vectors = 0;  // vectors <= n of each chain
  Index every = 1;                           // products between two decompositions
  std::uint64_t seed = 0;                    // of the vectors that take the place of those that vanish
};

// One chain's vectors [vectors, n] become orthonormal; logs [vectors] get the logarithms of their lengths apart from
// those before them added. One that vanished has -infinity and goes on as a fresh one, one that is not finite NaN.
template <class T>
void orthonormalise(const LinearKernels<T>& linear, const ChainGrowth& growth, Index chain, Index n, T* vectors,
                    double* logs) {
  std::vector<double> coefficients(static_cast<std::size_t>(growth.vectors));
  constexpr std::uint32_t kMostDraws = 8;
  for (Index j = 0; j < growth.vectors; ++j) {
    T* w = vectors + j * n;
    double square = double(linear.orthogonalise(n, j, vectors, w, coefficients.data()));
    logs[j] += 0.5 * std::log(square);
    for (std::uint32_t draw = 0; draw < kMostDraws && !(square > 0) && std::isfinite(square); ++draw) {
      fill_normal(growth.seed, std::uint64_t(chain * growth.vectors + j), draw, n, w);
      square = double(linear.orthogonalise(n, j, vectors, w, coefficients.data()));
    }
    if (square > 0 && std::isfinite(square)) {
      linear.scale(n, T(1 / std::sqrt(square)), w, w);
    } else {
      std::fill_n(w, n, T(0));
      logs[j] = std::numeric_limits<double>::quiet_NaN();
    }
  }
}

// Vectors q [chains, vectors, n], orthonormal in each chain, go along point[0, chain], point[1, chain] .. [steps,
// chains]; logs [chains, vectors] are added to. A chain's numbers depend on the chain alone, bit for bit.
template <class T>
void chain_growth(const Backend<T>& backend, const Operator<T>& jacobian, const ChainGrowth& growth, const Index* point,
                  T* q, double* logs) {
  const Index n = jacobian.rows(), k = growth.vectors;
  if (growth.chains == 0 || k == 0 || n == 0) return;
  constexpr Index kTile = 24;
  const Index width = std::max<Index>(1, kTile / k), tiles = (growth.chains + width - 1) / width;
  const int threads = jacobian.concurrent() ? backend.threads : 1;
  parallel_ranges(threads, tiles, backend.poll, [&](Index begin, Index end, const Poll& poll) {
    const Memory<T> product(width * k * n), scratch(jacobian.scratch(width * k));
    std::vector<Index> at(static_cast<std::size_t>(width * k));
    for (Index tile = begin; tile < end; ++tile) {
      const Index first = tile * width, count = std::min(width, growth.chains - first);
      T* own = q + first * k * n;
      for (Index step = 0; step < growth.steps; ++step) {
        if (poll()) return;
        for (Index i = 0; i < count * k; ++i) at[std::size_t(i)] = point[step * growth.chains + first + i / k];
        jacobian.apply(Product::matvec, count * k, at.data(), own, product.data(), scratch.data());
        std::copy_n(product.data(), count * k * n, own);
        if ((step + 1) % growth.every != 0 && step + 1 < growth.steps) continue;
        for (Index c = 0; c < count; ++c)
          orthonormalise(backend.linear, growth, first + c, n, own + c * k * n, logs + (first + c) * k);
      }
    }
  });
}

}  // namespace lsc
