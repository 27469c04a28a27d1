// Matrices laid out for LinearKernels::multiply.
#pragma once

#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "algorithms/memory.h"

namespace lsc {

// B [k, n].
template <class T>
class PackedMatrix {
 public:
  // Room for B; `pack` fills it.
  PackedMatrix(const LinearKernels<T>& linear, Index k, Index n)
      : linear_(&linear),
        k_(k),
        n_(n),
        data_(k * ((n + linear.panel_width - 1) / linear.panel_width) * linear.panel_width) {}

  // Packs B[i, j] = b[i * row_stride + j * column_stride].
  PackedMatrix(const LinearKernels<T>& linear, Index k, Index n, const T* b, Index row_stride, Index column_stride)
      : PackedMatrix(linear, k, n) {
    pack(b, row_stride, column_stride, {0, n});
  }

  // Packs some columns of B, the first a multiple of the panel width. Parts may be packed side by side.
  void pack(const T* b, Index row_stride, Index column_stride, Range columns) {
    linear_->pack(k_, columns.size(), b + columns.begin * column_stride, row_stride, column_stride,
                  data_.data() + columns.begin * k_);
  }

  // C [m, n] (+)= A [m, k] B, A[i, l] = a[i * a_row + l * a_column].
  void multiply(Index m, const T* a, Index a_row, Index a_column, T* c, Index c_row, bool accumulate) const {
    multiply(m, a, a_row, a_column, accumulate ? c : nullptr, c_row, c, c_row, {0, n_});
  }

  // Some columns of C = start + A B; the first is a multiple of the panel width. start[i, j] = start[i * start_row +
  // j].
  void multiply(Index m, const T* a, Index a_row, Index a_column, const T* start, Index start_row, T* c, Index c_row,
                Range columns) const {
    linear_->multiply(m, columns.size(), k_, a, a_row, a_column, data_.data() + columns.begin * k_,
                      start ? start + columns.begin : nullptr, start_row, c + columns.begin, c_row);
  }

  Index columns() const { return n_; }

 private:
  const LinearKernels<T>* linear_;
  Index k_, n_;
  Memory<T> data_;
};

// A stack of blocks, weight [blocks * H, n], each packed on its own: as it is, x [., n] -> [., H], or transposed, g [.,
// H]
// -> [., n].
template <class T>
class PackedBlocks {
 public:
  PackedBlocks(const LinearKernels<T>& linear, int blocks, Index H, Index n, const T* weight, bool transposed)
      : H_(H), n_(n), weight_(weight), transposed_(transposed) {
    for (int block = 0; block < blocks; ++block) packed_.emplace_back(linear, transposed ? H : n, transposed ? n : H);
  }

  // This worker's share of the packing.
  void pack(const Team& team, Index panel_width) {
    for (std::size_t block = 0; block < packed_.size(); ++block) {
      const T* rows = weight_ + Index(block) * H_ * n_;
      packed_[block].pack(rows, transposed_ ? n_ : 1, transposed_ ? 1 : n_,
                          team.share(packed_[block].columns(), panel_width));
    }
  }

  const PackedMatrix<T>& operator[](int block) const { return packed_[std::size_t(block)]; }

 private:
  Index H_, n_;
  const T* weight_;
  bool transposed_;
  std::vector<PackedMatrix<T>> packed_;
};

// A copy of blocks; they and their transposes are packed when they are first asked for, by whichever worker asks.
template <class T>
class BlockWeights {
 public:
  BlockWeights(const LinearKernels<T>& linear, int blocks, Index H, Index n, const T* weight)
      : linear_(&linear),
        blocks_(blocks),
        H_(H),
        n_(n),
        weight_(blocks * H * n),
        forward_(new Packed),
        transposed_(new Packed) {
    std::copy_n(weight, blocks * H * n, weight_.data());
  }

  const PackedMatrix<T>& forward(int block) const { return packed(*forward_, false)[block]; }
  const PackedMatrix<T>& transposed(int block) const { return packed(*transposed_, true)[block]; }

 private:
  struct Packed {
    std::once_flag once;
    std::unique_ptr<PackedBlocks<T>> blocks;
  };

  const PackedBlocks<T>& packed(Packed& kept, bool transposed) const {
    std::call_once(kept.once, [&] {
      auto made = std::make_unique<PackedBlocks<T>>(*linear_, blocks_, H_, n_, weight_.data(), transposed);
      Team::Shared alone;
      const Poll none;
      made->pack(Team(0, alone, none), linear_->panel_width);
      kept.blocks = std::move(made);
    });
    return *kept.blocks;
  }

  const LinearKernels<T>* linear_;
  int blocks_;
  Index H_, n_;
  Memory<T> weight_;
  std::unique_ptr<Packed> forward_, transposed_;
};

}  // namespace lsc
