// What an algorithm may ask of the machine it runs on: dense products, vector arithmetic, the rows of a cell, and
// workers. The algorithms say what happens to a batch of points and know nothing else; cpu/ fills these tables, once
// per instruction set, with plain functions on raw pointers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lsc/cell.h"

namespace lsc {

using Index = std::ptrdiff_t;

// Dense linear algebra on row-major data.
template <class T>
struct LinearKernels {
  // Columns per packed panel. A packed [k, n] matrix takes k * round_up(n, panel_width) elements.
  Index panel_width;
  // packed <- B, where B[i, j] = b[i * row_stride + j * column_stride], i < k, j < n.
  void (*pack)(Index k, Index n, const T* b, Index row_stride, Index column_stride, T* packed);
  // C[i, j] = (accumulate ? C[i, j] : 0) + sum over k of A[i, k] B[k, j]; A[i, k] = a[i * a_row + k * a_column].
  // Row i of C depends on row i of A alone, bit for bit: any split of rows gives the same numbers.
  void (*multiply)(Index m, Index n, Index k, const T* a, Index a_row, Index a_column, const T* packed, T* c,
                   Index c_row, bool accumulate);
  T (*dot)(Index n, const T* x, const T* y);
  void (*axpy)(Index n, T alpha, const T* x, T* y);             // y += alpha x
  void (*scale)(Index n, T alpha, const T* x, T* y);            // y = alpha x
  void (*multiply_add)(Index n, const T* a, const T* b, T* c);  // c += a b, element by element
};

// Linear recurrences of independent numbers, side by side in rows of n:
//   h[t] = a[t] h[t - 1] + b[t] for t < steps, with h[-1] = before [n].
// Row t of a lies at a + t * a_row, and so for b and h; a stride may be negative, or 0 for one row that serves, or
// takes, every step. A complex number is two neighbours (re, im), and n counts both. What becomes of a number depends
// on that number alone, bit for bit: any split of a row gives the same.
template <class T>
struct ScanKernels {
  using Scan = void (*)(Index steps, Index n, const T* a, Index a_row, const T* b, Index b_row, const T* before, T* h,
                        Index h_row);
  Scan real;
  Scan complex;
  Scan conjugate;  // complex, by the conjugate of a
};

// What measures the peak of a processor and computes nothing of interest.
template <class T>
struct RooflineKernels {
  // Floating-point operations in a round.
  Index operations;
  // So many rounds of x = x * factor + addend on registers; returns a sum of all x, so that none is left out.
  T (*multiply_add)(Index rounds, T factor, T addend);
};

// One cell's per-unit function, over a row of H units. Within a row, pre-activation k of unit u is p[k * H + u], its
// parameter k is w[k * H + u]; state j is s[j * state_stride + u]. S, P, Q as in lsc/cell.h.
template <class T>
struct CellKernels {
  void (*step)(Index H, const T* p, const T* s, Index state_stride, const T* w, T* next, Index next_stride);
  // coefficients [S, P + S + Q, H]: d next[i] / d p[k], then d next[i] / d s[j], then d next[i] / d w[k].
  void (*linearize)(Index H, const T* p, const T* s, Index state_stride, const T* w, T* coefficients);
  // With phi = sum_i u_i (d next_i along (dp, ds)): q [P, H] = d phi / d p, r [S, H] = d phi / d s, m [Q, H] = d phi /
  // d w.
  void (*second_order)(Index H, const T* p, const T* s, Index state_stride, const T* w, const T* dp, const T* ds,
                       const T* u, T* q, T* r, T* m);
  // Of a cell whose state 0 is derived: slopes [S - 1 + Q, H] = d state 0 / d state 1, .., then / d w[k]; and, with phi
  // = u (d state 0 along ds), ds [S, H] without its row 0: r [S, H] += d phi / d s, m [Q, H] += d phi / d w. Else null.
  void (*derive_linearize)(Index H, const T* s, Index state_stride, const T* w, T* slopes);
  void (*derive_second_order)(Index H, const T* s, Index state_stride, const T* w, const T* ds, const T* u, T* r, T* m);
};

// What a cell is, apart from its arithmetic.
struct CellShape {
  std::string name;
  int states = 0;
  int preactivations = 0;
  int unit_parameters = 0;
  bool derived = false;
  std::vector<Feed> feeds;
  int input_blocks = 0;
  int recurrent_blocks = 0;
};

// Returns true when the caller wants the work to stop (Ctrl-C).
using Poll = std::function<bool()>;

// Thrown where a poll asked to stop; the binding turns it into the pending Python exception.
struct Interrupted {};

// Calls body(worker, poll) on min(threads, work_items) workers, worker 0 on the calling thread, and waits for all. Any
// worker may call the poll it is handed: it asks `poll` on worker 0 and tells the others. The first exception is
// rethrown here; an interrupt becomes Interrupted. Bodies share the work out among themselves: fewer workers may come
// than asked.
void run_workers(int threads, std::int64_t work_items, const Poll& poll,
                 const std::function<void(int worker, const Poll& poll)>& body);

// Splits [0, count) into contiguous ranges, at most one per thread, and runs body on each.
void parallel_ranges(int threads, std::int64_t count, const Poll& poll,
                     const std::function<void(std::int64_t begin, std::int64_t end, const Poll& poll)>& body);

// How many of `threads` are worth waking for so many floating-point operations: waking one costs microseconds on an
// idle machine and far more on a busy one.
inline int useful_threads(int threads, double operations) {
  constexpr double kOperationsPerThread = 1e6;
  return operations >= threads * kOperationsPerThread ? threads : 1 + int(operations / kOperationsPerThread);
}

// Everything an algorithm gets from its caller beside its data.
template <class T>
struct Backend {
  const LinearKernels<T>& linear;
  int threads;
  Poll poll;
};

}  // namespace lsc
