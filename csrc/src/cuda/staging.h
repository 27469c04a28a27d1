// How a tile of a matrix with any strides comes into shared memory: read side by side from global memory into
// registers, while the block still multiplies with what came before, and put down from there as words in rows.
#pragma once

#include "cuda/device.h"
#include "cuda/execution.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

// Element (i, k) is at[i * row + k * column], i < rows, k < depth.
template <class T>
struct Strided {
  const T* at;
  Index row, column, rows, depth;
};

// Numbers as they are; the formats of the tensor cores are in cuda/mma.h.
template <class T>
struct AsIs {
  using Number = T;
  using Word = T;
  static constexpr int kNumbers = 1;
  static LSC_DEVICE T word(const T* x) { return x[0]; }
};

// One thread's part of kRows rows of kWords words, each Format::kNumbers numbers along k; zeros beyond the matrix. A
// warp reads along the rows of the matrix, or where its columns are closer together 8 rows by 4 words, whole sectors of
// memory either way. Rows that are 4 words of 32 bits apart modulo 32 are put down without bank conflicts.
template <class Format, int kRows, int kWords, int kThreads>
class Staging {
 public:
  using Number = typename Format::Number;
  using Word = typename Format::Word;

  // `index` < kThreads says which thread of those that share the tile this one is.
  LSC_DEVICE explicit Staging(int index) : index_(index) {}

  LSC_DEVICE void load(const Strided<Number>& from, Index first_row, Index first_k) {
    down_ = from.row < from.column;
    const Number* corner = from.at + first_row * from.row + first_k * from.column;
    const Index rows = from.rows - first_row, depth = from.depth - first_k;
    LSC_UNROLL for (int i = 0; i < kEach; ++i) {
      const int r = row(i);
      LSC_UNROLL for (int e = 0; e < Format::kNumbers; ++e) {
        const int k = word(i) * Format::kNumbers + e;
        held_[i * Format::kNumbers + e] = r < rows && k < depth ? corner[r * from.row + k * from.column] : Number(0);
      }
    }
  }

  LSC_DEVICE void store(Shared<Word> to, int stride) const {
    LSC_UNROLL for (int i = 0; i < kEach; ++i) to[row(i) * stride + word(i)] =
        Format::word(held_ + i * Format::kNumbers);
  }

 private:
  static_assert(kRows % 8 == 0 && kWords % 4 == 0 && kRows * kWords % kThreads == 0 && kThreads % 32 == 0);
  static constexpr int kEach = kRows * kWords / kThreads, kPatchesDown = kRows / 8;

  LSC_DEVICE int row(int i) const {
    const int at = index_ + i * kThreads;
    return down_ ? at / 32 % kPatchesDown * 8 + at % 8 : at / kWords;
  }
  LSC_DEVICE int word(int i) const {
    const int at = index_ + i * kThreads;
    return down_ ? at / 32 / kPatchesDown * 4 + at % 32 / 8 : at % kWords;
  }

  int index_;
  bool down_ = false;
  Number held_[kEach * Format::kNumbers];
};

}  // namespace LSC_ISA
}  // namespace lsc::cuda
