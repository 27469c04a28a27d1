// States of a diagonal recurrence and their derivatives by its transition in one pass that keeps neither: what is left
// of a sequence of any length is the last of each and sums of squares.
#pragma once

#include <algorithm>
#include <vector>

#include "algorithms/scan.h"

namespace lsc {

// transition [N]; inputs [T, B, N]; state and derivative [B, N], advanced; squares [B, N] of each, added to. Numbers of
// `shape` as of DiagonalScan, forward and with a constant transition; a complex number has two squares. Steps are taken
// in eights from the first, so a sequence in pieces of whole eights has the same bits.
template <class T>
void sensitivity_scan(const Backend<T>& backend, const ScanKernels<T>& kernels, const ScanShape& shape,
                      const T* transition, const T* inputs, T* state, T* derivative, double* state_squares,
                      double* derivative_squares) {
  const Index row = shape.row(), numbers = shape.B > 0 ? row / shape.B : 0;
  if (shape.T == 0 || row == 0) return;
  std::vector<T> repeated;
  for (Index b = 0; b < shape.B; ++b) repeated.insert(repeated.end(), transition, transition + numbers);
  const auto kernel = shape.complex ? kernels.complex_sensitivity : kernels.real_sensitivity;
  // A page of a row at a time, as the plain scan.
  constexpr Index kPiece = 4096 / Index(sizeof(T)), kEights = 8;
  const Index pieces = (row + kPiece - 1) / kPiece;
  const int threads = useful_threads(backend.threads, 8.0 * double(shape.T) * double(row));
  parallel_ranges(threads, pieces, backend.poll, [&](Index begin, Index end, const Poll& poll) {
    const Index first = begin * kPiece, n = std::min(end * kPiece, row) - first;
    const Index block = (steps_per_poll(n) + kEights - 1) / kEights * kEights;
    for (Index t = 0; t < shape.T; t += block) {
      if (poll()) return;
      kernel(std::min(block, shape.T - t), n, repeated.data() + first, inputs + t * row + first, row, state + first,
             derivative + first, state_squares + first, derivative_squares + first);
    }
  });
}

}  // namespace lsc
