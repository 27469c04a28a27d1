// What a linear network answers to an impulse, g[k] = C A^k B with A block diagonal, and the two derivatives of that:
// of a change of the matrices, and of a number that depends on g by all matrices. A chain of matrix-vector products in
// either direction of time for each input, and one product of their histories.
#pragma once

#include <algorithm>
#include <vector>

#include "algorithms/block_order.h"
#include "algorithms/memory.h"

namespace lsc {

// A [K, m, m], B [K m, I], C [O, K m], g [T, O, I].
struct ImpulseShape {
  Index T = 0, K = 0, m = 0, I = 0, O = 0;
};

template <class T>
class ImpulseResponse {
 public:
  ImpulseResponse(const Backend<T>& backend, const BlockKernels<T>& kernels, const ImpulseShape& shape, const T* A,
                  const T* C)
      : backend_(backend), shape_(shape), order_(kernels, shape.K, shape.m), A_(A), C_(order_.pack_rows(C, shape.O)) {}

  // Numbers that `states` has: [I, T, vector], in the order of the kernels.
  static Index states_size(const BlockKernels<T>& kernels, const ImpulseShape& shape) {
    return shape.I * shape.T * BlockOrder<T>(kernels, shape.K, shape.m).vector();
  }

  void run(const T* B, T* states, T* response) const {
    const std::vector<T> blocks = order_.pack_matrix(A_, false);
    for_inputs([&](Index i, const Poll& poll) {
      T* x = states + i * shape_.T * order_.vector();
      order_.pack(B + i, shape_.I, x);
      advance(blocks, x, poll, [](Index, T*) {});
      read_out(C_, i, x, response, false);
    });
  }

  // The change of `response` along changes of A, B and C.
  void push(const T* dA, const T* dB, const T* dC, const T* states, T* change) const {
    const std::vector<T> blocks = order_.pack_matrix(A_, false), moved = order_.pack_matrix(dA, false);
    const std::vector<T> out = order_.pack_rows(dC, shape_.O);
    for_inputs([&](Index i, const Poll& poll) {
      const T* x = states + i * shape_.T * order_.vector();
      const Memory<T> history(shape_.T * order_.vector());
      T* dx = history.data();
      order_.pack(dB + i, shape_.I, dx);
      advance(blocks, dx, poll, [&](Index t, T* next) { order_.multiply_add(moved, x + t * order_.vector(), next); });
      read_out(C_, i, dx, change, false);
      read_out(out, i, x, change, true);
    });
  }

  // Of slope [T, O, I] = d loss / d response: the gradients by A, B and C.
  void pull(const T* slope, const T* states, T* A_gradient, T* B_gradient, T* C_gradient) const {
    const std::vector<T> blocks = order_.pack_matrix(A_, true);
    const Index vector = order_.vector(), all = shape_.O * vector;
    const Index inputs = std::max<Index>(shape_.I, 1);
    std::vector<T> by_matrix(std::size_t(inputs * order_.matrix()), T(0)), by_rows(std::size_t(inputs * all), T(0));
    for_inputs([&](Index i, const Poll& poll) {
      const T* x = states + i * shape_.T * vector;
      const Memory<T> history(shape_.T * vector);
      T* p = history.data();
      for (Index t = shape_.T - 1; t >= 0; --t) {
        if (t % kStepsPerPoll == 0 && poll()) return;
        T* now = p + t * vector;
        std::fill_n(now, vector, T(0));
        for (Index o = 0; o < shape_.O; ++o) {
          const T weight = slope[(t * shape_.O + o) * shape_.I + i];
          backend_.linear.axpy(vector, weight, C_.data() + o * vector, now);
          backend_.linear.axpy(vector, weight, x + t * vector, by_rows.data() + i * all + o * vector);
        }
        if (t + 1 < shape_.T) order_.multiply_add(blocks, now + vector, now);
      }
      order_.add_products(shape_.T - 1, p + vector, x, by_matrix.data() + i * order_.matrix());
      order_.unpack(p, shape_.I, B_gradient + i);
    });
    // Inputs one after another, whoever took them.
    for (Index i = 1; i < shape_.I; ++i) {
      backend_.linear.axpy(order_.matrix(), T(1), by_matrix.data() + i * order_.matrix(), by_matrix.data());
      backend_.linear.axpy(all, T(1), by_rows.data() + i * all, by_rows.data());
    }
    order_.unpack_matrix(by_matrix.data(), A_gradient);
    for (Index o = 0; o < shape_.O; ++o)
      order_.unpack(by_rows.data() + o * vector, 1, C_gradient + o * shape_.K * shape_.m);
  }

 private:
  static constexpr Index kStepsPerPoll = 64;

  template <class F>
  void for_inputs(F&& f) const {
    const double operations = 2.0 * double(shape_.I * shape_.T) * double(order_.matrix());
    parallel_ranges(useful_threads(backend_.threads, operations), shape_.I, backend_.poll,
                    [&](Index begin, Index end, const Poll& poll) {
                      for (Index i = begin; i < end && !poll(); ++i) f(i, poll);
                    });
  }

  // x[t + 1] = A x[t] + what driven(t, x[t + 1]) adds, from x[0] on.
  template <class F>
  void advance(const std::vector<T>& blocks, T* x, const Poll& poll, F&& driven) const {
    const Index vector = order_.vector();
    for (Index t = 0; t + 1 < shape_.T; ++t) {
      if (t % kStepsPerPoll == 0 && poll()) return;
      T* next = x + (t + 1) * vector;
      std::fill_n(next, vector, T(0));
      order_.multiply_add(blocks, x + t * vector, next);
      driven(t, next);
    }
  }

  void read_out(const std::vector<T>& rows, Index i, const T* x, T* response, bool add) const {
    const Index vector = order_.vector();
    for (Index t = 0; t < shape_.T; ++t)
      for (Index o = 0; o < shape_.O; ++o) {
        T& entry = response[(t * shape_.O + o) * shape_.I + i];
        entry = (add ? entry : T(0)) + backend_.linear.dot(vector, rows.data() + o * vector, x + t * vector);
      }
  }

  const Backend<T>& backend_;
  ImpulseShape shape_;
  BlockOrder<T> order_;
  const T* A_;
  std::vector<T> C_;
};

}  // namespace lsc
