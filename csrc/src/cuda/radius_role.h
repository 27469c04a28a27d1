// Blocks that iterate: each advances kTile radius iterations side by side, one a warp, gathers what they ask for into
// products, and gives a warp whose point is done the next item of a queue.
//
// Where items come from is the Source's:
//   count                     how many there are
//   transposed                whether left vectors are looked for
//   kLeft                     whether they may be looked for after the right ones
//   prepare(item)             all lanes of the warp; returns the point that products know the item by
//   group(item)               products are shared by items of one group
//   seed(item), vector(item), has_target(), target(item), output(item)   as lane 0 asks for them
//   apply(precision, group, transpose, count, points, v, out, scratch)   all threads of the block
#pragma once

#include <climits>
#include <new>

#include "cuda/execution.h"
#include "cuda/radius.h"
#include "cuda/tile.h"
#include "cuda/vector_unit.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

template <class T>
using Iteration = RadiusIteration<T, VectorUnit<T>>;

// What blocks work with; each warp has an iteration, and each block room for the vectors of its tile.
template <class T>
struct RadiusWorkspace {
  unsigned long long* queue;
  Iteration<T>* iterations;  // [blocks, kTile], as the next three
  RadiusScratch* scratch;
  T* vectors;
  double* h;
  std::int64_t* points;
  T* input;  // [blocks, kTile, n]
  T* output;
  T* products;  // [blocks, product_elements]
  Index product_elements;
};

template <class T>
RadiusWorkspace<T> radius_workspace(Workspace& workspace, Index blocks, Index n, const RadiusOptions& options,
                                    Index product_elements) {
  const Index slots = blocks * kTile;
  RadiusWorkspace<T> work;
  work.queue = workspace.take<unsigned long long>(1);
  work.iterations = workspace.take<Iteration<T>>(slots);
  work.scratch = workspace.take<RadiusScratch>(slots);
  work.vectors = workspace.take<T>(slots * RadiusMemory<T>::vectors_needed(n, options) * n);
  work.h = workspace.take<double>(slots * RadiusMemory<T>::h_needed(n, options));
  work.points = workspace.take<std::int64_t>(slots);
  work.input = workspace.take<T>(slots * n);
  work.output = workspace.take<T>(slots * n);
  work.products = workspace.take<T>(blocks * product_elements);
  work.product_elements = product_elements;
  return work;
}

// The serial program, lane 0's. Not inlined, so that the kernels share it.
template <class T>
LSC_DEVICE __attribute__((noinline)) void start(Iteration<T>& iteration, std::uint64_t seed, std::uint64_t vector,
                                                Eigenvalue target, bool has_target) {
  iteration.start_from(seed, vector, target, has_target);
}

template <class T>
LSC_DEVICE __attribute__((noinline)) void advance(Iteration<T>& iteration, RadiusScratch& scratch) {
  iteration.advance(scratch);
}

template <class T>
LSC_DEVICE __attribute__((noinline)) void write_vector(const Iteration<T>& iteration, T* x) {
  iteration.ritz_vector(x);
}

template <class T>
LSC_DEVICE void write(const RadiusResults<T>& results, Index i, Index n, const Iteration<T>& iteration) {
  const RadiusEstimate& found = iteration.result();
  results.radius[i] = found.radius;
  results.eigenvalue[i] = found.eigenvalue;
  results.residual[i] = found.residual;
  results.condition[i] = found.condition;
  results.num_matvecs[i] = std::int32_t(found.num_matvecs);
  results.status[i] = std::uint8_t(found.status);
  if (results.vectors) write_vector(iteration, results.vectors + i * 2 * n);
}

// Whether left vectors are worth looking for.
LSC_DEVICE bool is_positive(const RadiusEstimate& found) {
  return found.radius > 0 && found.radius - found.radius == 0;
}

// All kTileThreads threads of a block; the queue begins at zero. Choice as of tile_product(). `lefts` as of
// fused/forward_radii.h.
template <class Choice, class Source, class T>
LSC_DEVICE void radius_role(const Source& source, Index n, const RadiusOptions& options,
                            const RadiusResults<T>& results, const RadiusResults<T>& lefts,
                            const RadiusWorkspace<T>& work, Choice precision) {
  constexpr int kNothing = -1;
  LSC_SHARED(VectorOrder<T>, mailboxes, kTile);
  LSC_SHARED(int, wanted, kTile);
  const Index slot = Index(block()) * kTile + warp();
  const VectorUnit<T> unit(mailboxes + warp());
  Iteration<T>* const iteration = work.iterations + slot;
  std::int64_t* const points = work.points + Index(block()) * kTile;
  T* const input = work.input + Index(block()) * kTile * n;
  T* const output = work.output + Index(block()) * kTile * n;
  T* const scratch = work.products + block() * work.product_elements;
  Index item = 0, point = 0;
  bool more = true, begun = false, left = false;
  if (lane() == 0)
    new (iteration) Iteration<T>(unit, n, options,
                                 {work.vectors + slot * RadiusMemory<T>::vectors_needed(n, options) * n,
                                  work.h + slot * RadiusMemory<T>::h_needed(n, options)});
  warp_barrier();
  for (;;) {
    while (more && iteration->done()) {
      if constexpr (Source::kLeft) {
        // Asked of lane 0, which alone runs on.
        const bool worth = lane() == 0 && begun && !left && lefts.radius && is_positive(iteration->result());
        left = shuffle(int(worth), 0) != 0;
        if (left) {
          unit.run([&] {
            const Eigenvalue found = iteration->result().eigenvalue;
            const Eigenvalue target = {double(T(found.real)), double(T(found.imaginary))};
            start(*iteration, source.seed(item) + 1, source.vector(item), target, true);
            if (iteration->done()) write(lefts, source.output(item), n, *iteration);
          });
          continue;
        }
        begun = true;
      }
      unsigned long long taken = 0;
      if (lane() == 0) taken = atomic_add(work.queue, 1ull);
      item = Index(shuffle(taken, 0));
      more = item < source.count;
      if (!more) break;
      point = source.prepare(item);
      unit.run([&] {
        start(*iteration, source.seed(item), source.vector(item), source.target(item), source.has_target());
        if (iteration->done()) write(results, source.output(item), n, *iteration);
      });
    }
    if (lane() == 0) {
      const bool transpose = (iteration->product() == lsc::Product::rmatvec) != (source.transposed || left);
      wanted[warp()] = more ? 2 * source.group(item) + int(transpose) : kNothing;
    }
    barrier();
    const int own = wanted[warp()];
    bool any = false;
    for (int last = kNothing;;) {
      int key = INT_MAX, size = 0, position = 0;
      for (int i = 0; i < kTile; ++i) {
        const int other = wanted[i];
        if (other > last && other < key) key = other;
      }
      if (key == INT_MAX) break;
      for (int i = 0; i < kTile; ++i) {
        const bool alike = wanted[i] == key;
        size += alike;
        position += alike && i < warp();
      }
      if (own == key)
        unit.run([&] {
          unit.copy(n, iteration->input(), input + position * n);
          points[position] = point;
        });
      barrier();
      source.apply(precision, key / 2, key % 2 == 1, size, points, input, output, scratch);
      if (own == key)
        unit.run([&] {
          unit.copy(n, output + position * n, iteration->output());
          advance(*iteration, work.scratch[slot]);
          if (iteration->done()) write(left ? lefts : results, source.output(item), n, *iteration);
        });
      last = key;
      any = true;
    }
    if (!any) return;
    barrier();
  }
}

}  // namespace LSC_ISA
}  // namespace lsc::cuda
