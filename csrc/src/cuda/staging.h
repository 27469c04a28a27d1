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
    if (down_)
      load_by<Down>(from, first_row, first_k);
    else
      load_by<Along>(from, first_row, first_k);
  }

  LSC_DEVICE void store(Shared<Word> to, int stride) const {
    if (down_)
      store_by<Down>(to, stride);
    else
      store_by<Along>(to, stride);
  }

 private:
  static constexpr int kEach = kRows * kWords / kThreads, kPatchesDown = kRows / 8, kWarps = kThreads / 32;
  static constexpr bool divides(int a, int b) { return a % b == 0 || b % a == 0; }
  static_assert(kRows % 8 == 0 && kWords % 4 == 0 && kRows * kWords % kThreads == 0 && kThreads % 32 == 0);
  static_assert(divides(kThreads, kWords) && divides(kWarps, kPatchesDown));

  // Where a thread's word i is: a place of the thread, and a step that is known when this is compiled.
  struct Along {
    static LSC_DEVICE int row(int index) { return index / kWords; }
    static LSC_DEVICE int word(int index) { return index % kWords; }
    static constexpr LSC_DEVICE int row_step(int i) { return i * kThreads / kWords; }
    static constexpr LSC_DEVICE int word_step(int i) { return i * kThreads % kWords; }
  };
  struct Down {
    static LSC_DEVICE int row(int index) { return index / 32 % kPatchesDown * 8 + index % 8; }
    static LSC_DEVICE int word(int index) { return index / 32 / kPatchesDown * 4 + index % 32 / 8; }
    static constexpr LSC_DEVICE int row_step(int i) { return i * kWarps % kPatchesDown * 8; }
    static constexpr LSC_DEVICE int word_step(int i) { return i * kWarps / kPatchesDown * 4; }
  };

  template <class Way>
  LSC_DEVICE void load_by(const Strided<Number>& from, Index first_row, Index first_k) {
    const Index row = first_row + Way::row(index_), k = first_k + Way::word(index_) * Format::kNumbers;
    const Number* own = from.at + row * from.row + k * from.column;
    const Index rows = from.rows - row, depth = from.depth - k;
    LSC_UNROLL for (int i = 0; i < kEach; ++i) LSC_UNROLL for (int e = 0; e < Format::kNumbers; ++e) {
      const int r = Way::row_step(i), step = Way::word_step(i) * Format::kNumbers + e;
      const bool inside = r < rows && step < depth;
      held_[i * Format::kNumbers + e] = inside ? own[r * from.row + step * from.column] : Number(0);
    }
  }

  template <class Way>
  LSC_DEVICE void store_by(Shared<Word> to, int stride) const {
    const Shared<Word> own = to + Way::row(index_) * stride + Way::word(index_);
    LSC_UNROLL for (int i = 0; i < kEach; ++i) own[Way::row_step(i) * stride + Way::word_step(i)] =
        Format::word(held_ + i * Format::kNumbers);
  }

  int index_;
  bool down_ = false;
  Number held_[kEach * Format::kNumbers];
};

}  // namespace LSC_ISA
}  // namespace lsc::cuda
