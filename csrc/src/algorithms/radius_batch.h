// Many points at once: each worker keeps a tile of iterations busy, gathers what they ask for into one block product,
// and takes the next point from a queue when one is done. Which points share a tile changes no number.
#pragma once

#include <algorithm>
#include <atomic>
#include <complex>
#include <stdexcept>
#include <string>
#include <vector>

#include "algorithms/memory.h"
#include "algorithms/radius_iteration.h"
#include "lsc/philox.h"

namespace lsc {

using Complex = std::complex<double>;

// A RadiusEstimate as the processor's callers read it.
struct RadiusResult {
  double radius = RadiusEstimate::kNan;
  Complex eigenvalue = {RadiusEstimate::kNan, RadiusEstimate::kNan};
  double residual = RadiusEstimate::kInfinity;
  double condition = RadiusEstimate::kInfinity;
  Index num_matvecs = 0;
  Status status = Status::max_matvecs;
};

inline RadiusResult result_of(const RadiusEstimate& e) {
  return {e.radius, {e.eigenvalue.real, e.eigenvalue.imaginary}, e.residual, e.condition, e.num_matvecs, e.status};
}

// What an iteration computes with on the processor.
template <class T>
class HostLinear {
 public:
  explicit HostLinear(const LinearKernels<T>& kernels) : kernels_(&kernels) {}

  T dot(Index n, const T* x, const T* y) const { return kernels_->dot(n, x, y); }
  void scale(Index n, T alpha, const T* x, T* y) const { kernels_->scale(n, alpha, x, y); }
  T orthogonalise(Index n, Index count, const T* v, T* w, double* coefficients) const {
    return kernels_->orthogonalise(n, count, v, w, coefficients);
  }
  void combine(Index n, Index count, const double* coefficients, const T* v, T* out) const {
    std::fill_n(out, n, T(0));
    for (Index i = 0; i < count; ++i) kernels_->axpy(n, T(coefficients[i]), v + i * n, out);
  }
  void copy(Index n, const T* x, T* y) const { std::copy_n(x, n, y); }
  void fill_normal(std::uint64_t seed, std::uint64_t point, std::uint32_t draw, Index n, T* v) const {
    lsc::fill_normal(seed, point, draw, n, v);
  }
  bool factor(int m, const double* A, int row, double precision, RadiusScratch& scratch) const {
    return kernels_->schur->factor(m, A, row, precision, scratch.schur);
  }
  void right_vector(int i, RadiusScratch& scratch, SchurVector& x) const {
    kernels_->schur->right_vector(scratch.schur, i, x);
  }
  void left_vector(int i, RadiusScratch& scratch, SchurVector& y) const {
    kernels_->schur->left_vector(scratch.schur, i, y);
  }

 private:
  const LinearKernels<T>* kernels_;
};

// The iterations that one worker keeps busy, and their memory.
template <class T>
class RadiusTile {
 public:
  using Iteration = RadiusIteration<T, HostLinear<T>>;

  RadiusTile(const LinearKernels<T>& kernels, Index width, Index n, const RadiusOptions& options)
      : vectors_(width * RadiusMemory<T>::vectors_needed(n, options) * n),
        h_(width * RadiusMemory<T>::h_needed(n, options)) {
    for (Index i = 0; i < width; ++i)
      iterations_.emplace_back(HostLinear<T>(kernels), n, options,
                               RadiusMemory<T>{vectors_.data() + i * RadiusMemory<T>::vectors_needed(n, options) * n,
                                               h_.data() + i * RadiusMemory<T>::h_needed(n, options)});
  }
  Iteration& operator[](Index slot) { return iterations_[std::size_t(slot)]; }

 private:
  Memory<T> vectors_;
  Memory<double> h_;
  std::vector<Iteration> iterations_;
};

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
    RadiusTile<T> tile(backend.linear, width, n, options);
    std::vector<Index> item(static_cast<std::size_t>(width)), slots(static_cast<std::size_t>(width));
    std::vector<Index> points(static_cast<std::size_t>(width));
    const Memory<T> block(width * n), product(width * n), scratch(jacobian.scratch(width));
    const auto point_of = [&](Index i) { return targets.point ? targets.point[i] : i; };
    // Hands slots their next items; returns how many are at work.
    const auto refill = [&] {
      Index busy = 0;
      for (Index slot = 0; slot < width; ++slot) {
        auto& iteration = tile[slot];
        while (iteration.done()) {
          const Index i = queue++;
          if (i >= count) break;
          item[std::size_t(slot)] = i;
          const Complex target = targets.eigenvalue ? targets.eigenvalue[i] : Complex{};
          iteration.start(targets.first + std::uint64_t(point_of(i)), {target.real(), target.imag()},
                          targets.eigenvalue != nullptr);
          if (iteration.done()) results[i] = result_of(iteration.result());
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
          const auto& iteration = tile[slot];
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
          RadiusScratch small;
          for (Index j = begin; j < end; ++j) {
            auto& iteration = tile[slots[std::size_t(j)]];
            std::copy_n(product.data() + j * n, n, iteration.output());
            iteration.advance(small);
            if (!iteration.done()) continue;
            const Index i = item[std::size_t(slots[std::size_t(j)])];
            results[i] = result_of(iteration.result());
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
