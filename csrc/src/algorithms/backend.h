// What an algorithm may ask of the machine it runs on: dense products, vector arithmetic, the rows of a cell, and
// workers. The algorithms say what happens to a batch of points and know nothing else; cpu/ fills these tables, once
// per instruction set, with plain functions on raw pointers.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "algorithms/real_schur.h"
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
  // C[i, j] = start[i * start_row + j] + sum over k of A[i, k] B[k, j]; A[i, k] = a[i * a_row + k * a_column]. `start`
  // may be C itself, or null for zeros. Row i of C depends on row i of A alone, bit for bit: any split of rows gives
  // the same numbers.
  void (*multiply)(Index m, Index n, Index k, const T* a, Index a_row, Index a_column, const T* packed, const T* start,
                   Index start_row, T* c, Index c_row);
  T (*dot)(Index n, const T* x, const T* y);
  // Modified Gram-Schmidt: for i < count in turn, h_i = v_i' w, w -= h_i v_i and coefficients[i] += h_i. Returns w' w.
  T (*orthogonalise)(Index n, Index count, const T* v, T* w, double* coefficients);
  void (*axpy)(Index n, T alpha, const T* x, T* y);             // y += alpha x
  void (*scale)(Index n, T alpha, const T* x, T* y);            // y = alpha x
  void (*multiply_add)(Index n, const T* a, const T* b, T* c);  // c += a b, element by element
  // c = (accumulate ? c : 0) + the sum over k < count of a[k] b[k], element by element, in the order of k. Any split of
  // the n elements gives the same numbers.
  void (*multiply_add_many)(Index n, int count, const T* const* a, const T* const* b, bool accumulate, T* c);
  const SchurKernels* schur;  // small matrices, in double whatever T is
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
  // h and its derivative s by a, s[t] = a s[t - 1] + h[t - 1], of a constant a [n]; both are advanced in place, and the
  // squares of every step's numbers are added to h_squares and s_squares [n]. Sums over eight steps at a time, counted
  // from the first, are in T. The complex derivative is that of a holomorphic function.
  using Sensitivity = void (*)(Index steps, Index n, const T* a, const T* b, Index b_row, T* h, T* s, double* h_squares,
                               double* s_squares);
  Sensitivity real_sensitivity;
  Sensitivity complex_sensitivity;
};

// Blocks of a block diagonal matrix and vectors in an order that whole vector registers go through: `width` blocks of
// m x m side by side, a multiple of `lanes`, or a single one whose `rows` are padded to one; else `rows` is m. Entry
// (r, c) of block k is blocks[(c * rows + r) * width + k], number r of block k of a vector x[r * width + k].
template <class T>
struct BlockKernels {
  Index lanes;
  // y += blocks x. Neither overlaps y.
  void (*multiply_add)(Index m, Index rows, Index width, const T* blocks, const T* x, T* y);
  // blocks += sum over t < steps of y[t] x[t]^T within each block; vectors lie `stride` apart.
  void (*add_products)(Index steps, Index m, Index rows, Index width, const T* y, const T* x, Index stride, T* blocks);
};

// What measures the peak of a processor and computes nothing of interest.
template <class T>
struct RooflineKernels {
  // Floating-point operations in a round.
  Index operations;
  // So many rounds of x = x * factor + addend on registers; returns a sum of all x, so that none is left out.
  T (*multiply_add)(Index rounds, T factor, T addend);
};

// One cell's per-unit function, over n units of a row. Pre-activation k of unit u is p[k * stride + u], its parameter k
// is w[k * stride + u]; state j is s[j * state_stride + u]. S, P, Q as in lsc/cell.h. Where a shape says [.., n], its
// rows lie `stride` apart, but for a stride of their own. What becomes of a unit depends on that unit alone, bit for
// bit: any split of a row gives the same.
template <class T>
struct CellKernels {
  void (*step)(Index n, Index stride, const T* p, const T* s, Index state_stride, const T* w, T* next,
               Index next_stride);
  // coefficients [S, P + S + Q, n]: d next[i] / d p[k], then d next[i] / d s[j], then d next[i] / d w[k].
  void (*linearize)(Index n, Index stride, const T* p, const T* s, Index state_stride, const T* w, T* coefficients);
  // The transpose of that Jacobian, without its coefficients: of u = d loss / d next [S, n], dp [P, n] = d loss / d p,
  // ds [S, n] += d loss / d s, dw [Q, n] = d loss / d w.
  void (*pull)(Index n, Index stride, const T* p, const T* s, Index state_stride, const T* w, const T* u,
               Index u_stride, T* dp, T* ds, Index ds_stride, T* dw);
  // With phi = sum_i u_i (d next_i along (dp, ds)): q [P, n] = d phi / d p, r [S, n] = d phi / d s, m [Q, n] = d phi /
  // d w.
  void (*second_order)(Index n, Index stride, const T* p, const T* s, Index state_stride, const T* w, const T* dp,
                       const T* ds, const T* u, T* q, T* r, T* m);
  // Of a cell whose state 0 is derived: slopes [S - 1 + Q, n] = d state 0 / d state 1, .., then / d w[k]; and, with phi
  // = u (d state 0 along ds), ds [S, n] without its row 0: r [S, n] += d phi / d s, m [Q, n] += d phi / d w. Else null.
  void (*derive_linearize)(Index n, Index stride, const T* s, Index state_stride, const T* w, T* slopes);
  void (*derive_second_order)(Index n, Index stride, const T* s, Index state_stride, const T* w, const T* ds,
                              const T* u, T* r, T* m);
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

// [begin, end)
struct Range {
  Index begin, end;
  Index size() const { return end - begin; }
};

// One of `size` workers that run one body side by side, in step. Whoever throws, or is asked to stop, takes the others
// along at their next `meet`, `wait` or `check`.
class Team {
 public:
  // What the members share.
  struct Shared {
    int size = 1;
    std::atomic<int> arrived{0};
    std::atomic<unsigned> round{0};
    std::atomic<bool> broken{false};
  };
  Team(int number, Shared& shared, const Poll& poll) : number_(number), shared_(shared), poll_(poll) {}

  int number() const { return number_; }
  int size() const { return shared_.size; }

  // Returns when all have come here, and what each wrote before is seen by all.
  void meet();
  // Returns when `progress` has reached `value`, and what was written before it did is seen.
  void wait(const std::atomic<Index>& progress, Index value);
  void check();

  // This worker's share of [0, count), in whole grains.
  Range share(Index count, Index grain = 1) const {
    const Index grains = (count + grain - 1) / grain;
    const auto at = [&](Index i) { return std::min(count, grains * i / size() * grain); };
    return {at(number_), at(number_ + 1)};
  }

 private:
  template <class Done>
  void until(const Done& done);

  int number_;
  Shared& shared_;
  const Poll& poll_;
};

// Runs body on a team of at most `threads`; the first exception is rethrown here, an interrupt becomes Interrupted.
void run_team(int threads, const Poll& poll, const std::function<void(Team&)>& body);

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
