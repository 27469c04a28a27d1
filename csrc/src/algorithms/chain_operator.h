// Products of K Jacobians of another operator, known by their products alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "algorithms/operator.h"

namespace lsc {

// P[i] = (scale[i] J[chain[i, K-1]]) .. (scale[i] J[chain[i, 0]]) or, where `gram`, P[i]' P[i]. The base is square and
// outlives it.
template <class T>
class ChainOperator : public Operator<T> {
 public:
  // chains [points, K], K >= 1; scales [points].
  ChainOperator(const Operator<T>& base, Index points, Index K, std::vector<Index> chains, std::vector<double> scales,
                bool gram)
      : base_(base), points_(points), K_(K), chains_(std::move(chains)), scales_(std::move(scales)), gram_(gram) {}

  Index points() const override { return points_; }
  Index rows() const override { return base_.rows(); }
  Index columns() const override { return base_.rows(); }
  bool concurrent() const override { return base_.concurrent(); }
  Index scratch(Index count) const override { return 2 * count * rows() + base_.scratch(count); }

  void apply(Product product, Index count, const Index* point, const T* v, T* out, T* scratch) const override {
    T* between = scratch;
    T* rest = scratch + 2 * count * rows();
    if (!gram_) return along(product, count, point, v, out, between, rest);
    along(Product::matvec, count, point, v, out, between, rest);
    along(Product::rmatvec, count, point, out, out, between, rest);
  }

 private:
  // `between` has room for two blocks of vectors, of which one is read while the other is written.
  void along(Product product, Index count, const Index* point, const T* v, T* out, T* between, T* scratch) const {
    const Index n = rows();
    std::vector<Index> at(static_cast<std::size_t>(count));
    const T* from = v;
    for (Index k = 0; k < K_; ++k) {
      const Index step = product == Product::matvec ? k : K_ - 1 - k;
      for (Index j = 0; j < count; ++j) at[std::size_t(j)] = chains_[std::size_t(point[j] * K_ + step)];
      T* to = between + k % 2 * count * n;
      base_.apply(product, count, at.data(), from, to, scratch);
      for (Index j = 0; j < count; ++j) {
        const T scale = T(scales_[std::size_t(point[j])]);
        for (Index i = 0; i < n; ++i) to[j * n + i] *= scale;
      }
      from = to;
    }
    std::copy_n(from, count * n, out);
  }

  const Operator<T>& base_;
  Index points_, K_;
  std::vector<Index> chains_;
  std::vector<double> scales_;
  bool gram_;
};

}  // namespace lsc
