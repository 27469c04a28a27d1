// How blocks of a block diagonal matrix, and vectors, lie in memory for BlockKernels.
#pragma once

#include <algorithm>
#include <vector>

#include "algorithms/backend.h"

namespace lsc {

// Matrices and vectors in the order of BlockKernels: small blocks side by side, others one after another. Padding is
// zero.
template <class T>
class BlockOrder {
 public:
  // K blocks of m x m.
  BlockOrder(const BlockKernels<T>& kernels, Index K, Index m) : kernels_(kernels), K_(K), m_(m) {
    const auto padded = [&](Index count) { return (count + kernels.lanes - 1) / kernels.lanes * kernels.lanes; };
    const bool together = is_together(K, m);
    rows_ = together ? m_ : padded(m_);
    width_ = together ? padded(K_) : 1;
    groups_ = together ? 1 : K_;
  }

  static bool is_together(Index K, Index m) { return K > 1 && m < kSmall; }

  Index vector() const { return groups_ * rows_ * width_; }
  Index matrix() const { return m_ * vector(); }

  std::vector<T> pack_matrix(const T* blocks, bool transpose) const {
    std::vector<T> packed(std::size_t(matrix()), T(0));
    for_entries([&](Index entry, Index r, Index c, Index k) {
      packed[std::size_t(entry)] = blocks[transpose ? (k * m_ + c) * m_ + r : (k * m_ + r) * m_ + c];
    });
    return packed;
  }
  void unpack_matrix(const T* packed, T* blocks) const {
    for_entries([&](Index entry, Index r, Index c, Index k) { blocks[(k * m_ + r) * m_ + c] = packed[entry]; });
  }
  // Numbers `stride` apart.
  void pack(const T* source, Index stride, T* packed) const {
    std::fill_n(packed, vector(), T(0));
    for_numbers([&](Index at, Index number) { packed[at] = source[number * stride]; });
  }
  void unpack(const T* packed, Index stride, T* target) const {
    for_numbers([&](Index at, Index number) { target[number * stride] = packed[at]; });
  }
  std::vector<T> pack_rows(const T* matrix, Index count) const {
    std::vector<T> packed(std::size_t(count * vector()));
    for (Index o = 0; o < count; ++o) pack(matrix + o * K_ * m_, 1, packed.data() + o * vector());
    return packed;
  }

  void multiply_add(const std::vector<T>& blocks, const T* x, T* y) const {
    const Index size = rows_ * width_;
    for (Index g = 0; g < groups_; ++g)
      kernels_.multiply_add(m_, rows_, width_, blocks.data() + g * m_ * size, x + g * size, y + g * size);
  }
  void add_products(Index steps, const T* y, const T* x, T* blocks) const {
    const Index size = rows_ * width_;
    for (Index g = 0; g < groups_; ++g)
      kernels_.add_products(steps, m_, rows_, width_, y + g * size, x + g * size, vector(), blocks + g * m_ * size);
  }

 private:
  static constexpr Index kSmall = 8;

  Index place(Index k, Index size) const { return groups_ == 1 ? k : k * size; }
  template <class F>
  void for_entries(F&& f) const {
    for (Index k = 0; k < K_; ++k)
      for (Index c = 0; c < m_; ++c)
        for (Index r = 0; r < m_; ++r) f((c * rows_ + r) * width_ + place(k, m_ * rows_), r, c, k);
  }
  template <class F>
  void for_numbers(F&& f) const {
    for (Index k = 0; k < K_; ++k)
      for (Index r = 0; r < m_; ++r) f(r * width_ + place(k, rows_), k * m_ + r);
  }

  const BlockKernels<T>& kernels_;
  Index K_, m_, rows_ = 0, width_ = 0, groups_ = 0;
};

}  // namespace lsc
