// Many points at once: each worker keeps a tile of iterations busy, gathers what they ask for into one block product,
// and takes the next point from a queue when one is done. Which points share a tile changes no number.
#pragma once

#include <atomic>
#include <memory>
#include <stdexcept>

#include "algorithms/memory.h"
#include "algorithms/radius_iteration.h"

namespace lsc {

struct RadiusTargets {
  const Index* point = nullptr;         // which points to work on; null: all
  const Complex* eigenvalue = nullptr;  // look for the Ritz value nearest to this; null: the largest
  bool transposed = false;              // iterate on J' (its Ritz vectors are J's left vectors)
  std::uint64_t first = 0;              // the number of point 0's start vector: those of a part follow those before it
};

// results [count]; vectors [count, 2, n] or null: the Ritz vectors.
template <class T>
void estimate_radii(const Backend<T>& backend, const Operator<T>& jacobian, const RadiusOptions& options, Index count,
                    const RadiusTargets& targets, RadiusResult* results, T* vectors) {
  const Index n = jacobian.rows();
  if (jacobian.columns() != n)
    throw std::invalid_argument("operator: expected square Jacobians, got " + std::to_string(n) + " x " +
                                std::to_string(jacobian.columns()));
  constexpr Index kTile = 24;
  // An operator that serves one caller at a time gets wide blocks from one worker, and the workers share what follows.
  constexpr Index kWide = 1024;
  const bool concurrent = jacobian.concurrent();
  const int threads = concurrent ? backend.threads : 1;
  const Index width = concurrent ? std::min(kTile, (count + threads - 1) / threads) : std::min(kWide, count);
  std::atomic<Index> queue{0};
  run_workers(threads, count, backend.poll, [&](int, const Poll& poll) {
    std::vector<std::unique_ptr<RadiusIteration<T>>> tile;
    std::vector<Index> item(static_cast<std::size_t>(width)), slots(static_cast<std::size_t>(width));
    std::vector<Index> points(static_cast<std::size_t>(width));
    const Memory<T> block(width * n), product(width * n), scratch(jacobian.scratch(width));
    for (Index i = 0; i < width; ++i) tile.push_back(std::make_unique<RadiusIteration<T>>(backend.linear, n, options));
    const auto point_of = [&](Index i) { return targets.point ? targets.point[i] : i; };
    // Hands slots their next items; returns how many are at work.
    const auto refill = [&] {
      Index busy = 0;
      for (Index slot = 0; slot < width; ++slot) {
        RadiusIteration<T>& iteration = *tile[std::size_t(slot)];
        while (iteration.done()) {
          const Index i = queue++;
          if (i >= count) break;
          item[std::size_t(slot)] = i;
          iteration.start(targets.first + std::uint64_t(point_of(i)),
                          targets.eigenvalue ? targets.eigenvalue[i] : Complex{}, targets.eigenvalue != nullptr);
          if (iteration.done()) results[i] = iteration.result();
        }
        busy += !iteration.done();
      }
      return busy;
    };
    while (refill() > 0) {
      if (poll()) return;
      for (const Product wanted : {Product::matvec, Product::rmatvec}) {
        Index size = 0;
        for (Index slot = 0; slot < width; ++slot) {
          const RadiusIteration<T>& iteration = *tile[std::size_t(slot)];
          if (iteration.done() || iteration.product() != wanted) continue;
          std::copy_n(iteration.input(), n, block.data() + size * n);
          points[std::size_t(size)] = point_of(item[std::size_t(slot)]);
          slots[std::size_t(size++)] = slot;
        }
        if (size == 0) continue;
        const bool transpose = (wanted == Product::rmatvec) != targets.transposed;
        jacobian.apply(transpose ? Product::rmatvec : Product::matvec, size, points.data(), block.data(),
                       product.data(), scratch.data());
        const auto take_in = [&](Index begin, Index end, const Poll&) {
          for (Index j = begin; j < end; ++j) {
            RadiusIteration<T>& iteration = *tile[std::size_t(slots[std::size_t(j)])];
            std::copy_n(product.data() + j * n, n, iteration.output());
            iteration.advance();
            if (!iteration.done()) continue;
            const Index i = item[std::size_t(slots[std::size_t(j)])];
            results[i] = iteration.result();
            if (vectors) iteration.ritz_vector(vectors + i * 2 * n);
          }
        };
        if (concurrent)
          take_in(0, size, poll);
        else
          parallel_ranges(useful_threads(backend.threads, 50.0 * double(size * n)), size, {}, take_in);
      }
    }
  });
}

}  // namespace lsc
