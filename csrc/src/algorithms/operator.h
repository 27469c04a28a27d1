// The contract of a batch of N Jacobians known by their products alone.
#pragma once

#include "algorithms/backend.h"

namespace lsc {

enum class Product { matvec, rmatvec };

template <class T>
class Operator {
 public:
  virtual ~Operator() = default;
  virtual Index points() const = 0;
  virtual Index rows() const = 0;
  virtual Index columns() const = 0;

  // Row j of out <- J[point[j]] v_j (matvec, v_j has `columns` elements) or its transpose times v_j (rmatvec), j <
  // count. Row j of the result depends on row j of v alone. `scratch` has room for scratch(count) elements. Called by
  // several workers at once where `concurrent`.
  virtual void apply(Product product, Index count, const Index* point, const T* v, T* out, T* scratch) const = 0;
  virtual Index scratch(Index) const { return 0; }
  virtual bool concurrent() const { return true; }
};

// N dense matrices, matrices [N, rows, columns].
template <class T>
class MatrixOperator : public Operator<T> {
 public:
  MatrixOperator(const LinearKernels<T>& linear, Index points, Index rows, Index columns, const T* matrices)
      : linear_(linear), points_(points), rows_(rows), columns_(columns), matrices_(matrices) {}

  Index points() const override { return points_; }
  Index rows() const override { return rows_; }
  Index columns() const override { return columns_; }

  void apply(Product product, Index count, const Index* point, const T* v, T* out, T*) const override {
    for (Index j = 0; j < count; ++j) {
      const T* matrix = matrices_ + point[j] * rows_ * columns_;
      if (product == Product::matvec) {
        for (Index i = 0; i < rows_; ++i)
          out[j * rows_ + i] = linear_.dot(columns_, matrix + i * columns_, v + j * columns_);
      } else {
        T* target = out + j * columns_;
        for (Index i = 0; i < columns_; ++i) target[i] = T(0);
        for (Index i = 0; i < rows_; ++i) linear_.axpy(columns_, v[j * rows_ + i], matrix + i * columns_, target);
      }
    }
  }

 private:
  const LinearKernels<T>& linear_;
  Index points_, rows_, columns_;
  const T* matrices_;
};

}  // namespace lsc
