// A warp that runs a serial program: lane 0 takes it step by step, and the others wait until it asks for a vector
// operation, which all lanes do together.
#pragma once

#include <cstdint>

#include "algorithms/radius_iteration.h"
#include "algorithms/real_schur_factor.h"
#include "cuda/device.h"
#include "cuda/warp_sum.h"
#include "lsc/philox.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

// Two numbers that are read and written at once.
struct PairBlocks {
  static constexpr int kSize = 2;
  struct alignas(16) Block {
    double a, b;

    LSC_HD double operator[](int i) const { return i == 0 ? a : b; }
    friend LSC_HD Block operator+(const Block& x, const Block& y) { return {x.a + y.a, x.b + y.b}; }
    friend LSC_HD Block operator-(const Block& x, const Block& y) { return {x.a - y.a, x.b - y.b}; }
    friend LSC_HD Block operator*(const Block& x, const Block& y) { return {x.a * y.a, x.b * y.b}; }
    friend LSC_HD Block operator*(double x, const Block& y) { return {x * y.a, x * y.b}; }
    friend LSC_HD Block operator*(const Block& x, double y) { return {x.a * y, x.b * y}; }
    LSC_HD Block& operator+=(const Block& x) { return *this = *this + x; }
    LSC_HD Block& operator-=(const Block& x) { return *this = *this - x; }
    LSC_HD Block& operator*=(double x) { return *this = *this * x; }
  };

  static LSC_HD Block magnitude(const Block& x) { return {std::fabs(x.a), std::fabs(x.b)}; }
  static LSC_HD Block larger(const Block& x, const Block& y) { return {x.a > y.a ? x.a : y.a, x.b > y.b ? x.b : y.b}; }
  static LSC_HD void store_unaligned(double* to, const Block& x) {
    to[0] = x.a;
    to[1] = x.b;
  }
};

enum class VectorTask { none, dot, scale, orthogonalise, combine, copy, fill_normal };

// An operation of Linear (algorithms/radius_iteration.h) with its arguments.
template <class T>
struct VectorOrder {
  VectorTask task = VectorTask::none;  // none: the lanes' turn is over
  std::uint32_t draw = 0;
  Index n = 0, count = 0;
  const T* x = nullptr;
  T* y = nullptr;
  double* sums = nullptr;
  const double* coefficients = nullptr;
  std::uint64_t seed = 0, point = 0;
  T alpha = 0;
};

// The Linear of a RadiusIteration whose program lane 0 runs.
template <class T>
class VectorUnit {
 public:
  // The mailbox is the warp's own.
  LSC_DEVICE explicit VectorUnit(Shared<VectorOrder<T>> mailbox) : mailbox_(mailbox) {}

  // All lanes call it; lane 0 runs the program. What any thread wrote before the last barrier is seen by the program,
  // and what it writes by all lanes afterwards.
  template <class Program>
  LSC_DEVICE void run(const Program& program) const {
    if (lane() == 0) {
      program();
      give({});
    } else {
      while (take().more) continue;
    }
  }

  LSC_DEVICE T dot(Index n, const T* x, const T* y) const {
    VectorOrder<T> order{VectorTask::dot};
    order.n = n;
    order.x = x;
    order.y = const_cast<T*>(y);
    return give(order);
  }
  LSC_DEVICE void scale(Index n, T alpha, const T* x, T* y) const {
    VectorOrder<T> order{VectorTask::scale};
    order.n = n;
    order.alpha = alpha;
    order.x = x;
    order.y = y;
    give(order);
  }
  LSC_DEVICE T orthogonalise(Index n, Index count, const T* v, T* w, double* coefficients) const {
    VectorOrder<T> order{VectorTask::orthogonalise};
    order.n = n;
    order.count = count;
    order.x = v;
    order.y = w;
    order.sums = coefficients;
    return give(order);
  }
  LSC_DEVICE void combine(Index n, Index count, const double* coefficients, const T* v, T* out) const {
    VectorOrder<T> order{VectorTask::combine};
    order.n = n;
    order.count = count;
    order.coefficients = coefficients;
    order.x = v;
    order.y = out;
    give(order);
  }
  LSC_DEVICE void copy(Index n, const T* x, T* y) const {
    VectorOrder<T> order{VectorTask::copy};
    order.n = n;
    order.x = x;
    order.y = y;
    give(order);
  }
  LSC_DEVICE void fill_normal(std::uint64_t seed, std::uint64_t point, std::uint32_t draw, Index n, T* v) const {
    VectorOrder<T> order{VectorTask::fill_normal, draw};
    order.n = n;
    order.seed = seed;
    order.point = point;
    order.y = v;
    give(order);
  }

  // The small matrices are lane 0's alone.
  LSC_DEVICE __attribute__((noinline)) bool factor(int m, const double* A, int row, double precision,
                                                   RadiusScratch& scratch) const {
    return SchurFactor<PairBlocks>::factor(m, A, row, precision, scratch.schur, scratch.substitution);
  }
  LSC_DEVICE __attribute__((noinline)) void right_vector(int i, RadiusScratch& scratch, SchurVector& x) const {
    SchurFactor<PairBlocks>::right_vector(scratch.schur, i, x, scratch.substitution);
  }
  LSC_DEVICE __attribute__((noinline)) void left_vector(int i, RadiusScratch& scratch, SchurVector& y) const {
    SchurFactor<PairBlocks>::left_vector(scratch.schur, i, y, scratch.substitution);
  }

 private:
  struct Answer {
    T value;
    bool more;
  };

  LSC_DEVICE T give(const VectorOrder<T>& order) const {
    mailbox_[0] = order;
    return take().value;
  }

  // Not inlined: the lanes of a warp meet at one place of the program.
  LSC_DEVICE __attribute__((noinline)) Answer take() const {
    warp_barrier();
    const VectorOrder<T> order = mailbox_[0];
    T value = 0;
    switch (order.task) {
      case VectorTask::none:
        break;
      case VectorTask::dot:
        value = dot_by_lanes(order.n, order.x, order.y);
        break;
      case VectorTask::scale:
        for (Index i = lane(); i < order.n; i += 32) order.y[i] = order.alpha * order.x[i];
        break;
      case VectorTask::orthogonalise:
        value = orthogonalise_by_lanes(order);
        break;
      case VectorTask::combine:
        for (Index i = lane(); i < order.n; i += 32) {
          T sum = 0;
          for (Index j = 0; j < order.count; ++j) sum += T(order.coefficients[j]) * order.x[j * order.n + i];
          order.y[i] = sum;
        }
        break;
      case VectorTask::copy:
        for (Index i = lane(); i < order.n; i += 32) order.y[i] = order.x[i];
        break;
      case VectorTask::fill_normal:
        for (Index i = lane(); 4 * i < order.n; i += 32) {
          T four[4];
          normal_four(order.seed, order.point, order.draw, std::uint64_t(i), four);
          for (Index k = 0; k < 4; ++k)
            if (4 * i + k < order.n) order.y[4 * i + k] = four[k];
        }
        break;
    }
    warp_barrier();
    return {value, order.task != VectorTask::none};
  }

  static LSC_DEVICE T dot_by_lanes(Index n, const T* x, const T* y) {
    T sum = 0;
    for (Index i = lane(); i < n; i += 32) sum += x[i] * y[i];
    return warp_sum(sum);
  }

  // A lane meets only elements of w that it wrote itself.
  static LSC_DEVICE T orthogonalise_by_lanes(const VectorOrder<T>& order) {
    const Index n = order.n;
    T* w = order.y;
    T overlap = dot_by_lanes(n, order.count > 0 ? order.x : w, w);
    for (Index i = 0; i < order.count; ++i) {
      const T *v = order.x + i * n, *next = i + 1 < order.count ? v + n : w;
      if (lane() == 0) order.sums[i] += double(overlap);
      T sum = 0;
      for (Index k = lane(); k < n; k += 32) {
        w[k] -= overlap * v[k];
        sum += next[k] * w[k];
      }
      overlap = warp_sum(sum);
    }
    return overlap;
  }

  Shared<VectorOrder<T>> mailbox_;
};

}  // namespace LSC_ISA
}  // namespace lsc::cuda
