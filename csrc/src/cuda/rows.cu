#include "cuda/launch.h"
#include "cuda/rows.h"

namespace lsc::cuda {
namespace {

constexpr int kThreads = 256, kLanes = 32, kWarps = kThreads / kLanes;

template <class T>
LSC_KERNEL copy_steps_kernel(Index steps, Index count, const T* from, Index from_step, bool accumulate, T* to,
                             Index to_step) {
  const Index i = Index(block()) * threads() + thread();
  if (i >= steps * count) return;
  const Index t = i / count, element = i % count;
  T* const target = to + t * to_step + element;
  const T value = from[t * from_step + element];
  *target = accumulate ? *target + value : value;
}

// A lane takes a column and a warp every eighth row of the slice.
template <class T>
LSC_KERNEL sum_slices_kernel(Index rows, Index n, const T* source, Index source_row, Index slice, T* target) {
  LSC_SHARED(T, of_warps, kThreads);
  const Index column = Index(block()) * kLanes + lane(), first = Index(block_y()) * slice;
  const Index end = first + slice < rows ? first + slice : rows;
  T sum = T(0);
  if (column < n)
    for (Index row = first + warp(); row < end; row += kWarps) sum += source[row * source_row + column];
  of_warps[thread()] = sum;
  barrier();
  if (warp() > 0 || column >= n) return;
  for (int w = 1; w < kWarps; ++w) sum += T(of_warps[w * kLanes + lane()]);
  target[Index(block_y()) * n + column] = sum;
}

template <class T>
void sum(const Execution& execution, Index rows, Index n, const T* source, Index source_row, Index slice, Index slices,
         T* target) {
  launch(execution, {"sum_rows", {covering(n, kLanes), slices}, kThreads}, sum_slices_kernel<T>, rows, n, source,
         source_row, slice, target);
}

}  // namespace

template <class T>
void copy_steps(const Execution& execution, Index steps, Index count, const T* from, Index from_step, bool accumulate,
                T* to, Index to_step) {
  launch(execution, {"copy_steps", {covering(steps * count, kThreads)}, kThreads}, copy_steps_kernel<T>, steps, count,
         from, from_step, accumulate, to, to_step);
}

template <class T>
void sum_slices(const Execution& execution, Index rows, Index n, const T* source, Index source_row, T* target) {
  sum(execution, rows, n, source, source_row, slice_of(rows), slices_of(rows), target);
}

template <class T>
void sum_rows(const Execution& execution, Index rows, Index n, const T* source, Index source_row, T* target) {
  sum(execution, rows, n, source, source_row, rows, Index(1), target);
}

#define LSC_ROWS(T)                                                                           \
  template void copy_steps(const Execution&, Index, Index, const T*, Index, bool, T*, Index); \
  template void sum_slices(const Execution&, Index, Index, const T*, Index, T*);              \
  template void sum_rows(const Execution&, Index, Index, const T*, Index, T*)
LSC_ROWS(float);
LSC_ROWS(double);
#undef LSC_ROWS

}  // namespace lsc::cuda
