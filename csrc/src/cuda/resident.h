// Rows of a matrix that stay in a block's shared memory, and their product with a few vectors at a time: what a
// recurrent step multiplies with. Every sum is over the same chunks in the same order as that of tile_product() and of
// multiply(), so that all three give the same bits.
#pragma once

#include <type_traits>

#include "cuda/device.h"
#include "cuda/execution.h"
#include "cuda/feeds.h"
#include "cuda/mma.h"
#include "cuda/staging.h"
#include "cuda/tile.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

// How numbers stand in shared memory: kChunk of them along k are multiplied at a time.
template <class T>
struct OnOrdinaryUnits : AsIs<T> {
  static constexpr bool kTensorCores = false;
  static constexpr int kChunk = 16, kWords = 16, kPad = 1;
};

template <Precision kPrecision>
struct OnTensorCores : TensorCore<kPrecision> {
  static constexpr bool kTensorCores = true;
  static constexpr int kChunk = 32, kWords = kChunk / TensorCore<kPrecision>::kNumbers, kPad = 4;
};

// Those rows of one of a layer's weights [blocks * H, size] that give `units` of its units their pre-activations, from
// unit `first` on: a block for each pre-activation that the weights feed, filled up to whole tiles of 16 rows.
template <class T>
struct ResidentRows {
  const T* weight;
  Index size, H, first;
  int units, P;
  Feeds feed;

  LSC_HD int blocks() const {
    int count = 0;
    for (int k = 0; k < P; ++k) count += feed[k] != kNone;
    return count;
  }
  // The pre-activation that block f feeds.
  LSC_HD int preactivation(int f) const {
    int k = 0;
    while (feed[k] == kNone || f-- > 0) ++k;
    return k;
  }
  LSC_HD int tiles_of_block() const { return (units + 15) / 16; }
  LSC_HD int tiles() const { return blocks() * tiles_of_block(); }
};

// Words between rows of `size` numbers, whole chunks.
template <class Format>
LSC_HD int resident_stride(Index size) {
  return int((size + Format::kChunk - 1) / Format::kChunk) * Format::kWords + Format::kPad;
}

// All threads; to be followed by a barrier.
template <class Format, class T>
LSC_DEVICE void load_rows(const ResidentRows<T>& rows, Shared<typename Format::Word> to) {
  const int stride = resident_stride<Format>(rows.size), words = stride - Format::kPad, all = rows.tiles() * 16;
  const int rows_of_block = rows.tiles_of_block() * 16;
  for (int i = thread(); i < all * words; i += threads()) {
    const int row = i / words, word = i % words, in_block = row % rows_of_block;
    const Index from = rows.feed[rows.preactivation(row / rows_of_block)] * rows.H + rows.first + in_block;
    T numbers[Format::kNumbers];
    LSC_UNROLL for (int e = 0; e < Format::kNumbers; ++e) {
      const Index k = Index(word) * Format::kNumbers + e;
      const bool inside = in_block < rows.units && k < rows.size;
      numbers[e] = inside ? rows.weight[from * rows.size + k] : T(0);
    }
    to[row * stride + word] = Format::word(numbers);
  }
}

// For unit j and pre-activation p of the rows and vector b < count: finish(p, j, b, start(p, j, b) + the sum over k of
// row[k] v[b * v_row + k]).
// `staged` has room for kTile rows of Format::kWords + Format::kPad words for each warp. A warp waits for none other.
template <class Format, class T, class Start, class Finish>
LSC_DEVICE void multiply_rows(const ResidentRows<T>& rows, Shared<typename Format::Word> resident,
                              Shared<typename Format::Word> staged, int count, const T* v, Index v_row,
                              const Start& start, const Finish& finish) {
  constexpr int kStride = Format::kWords + Format::kPad;
  const int stride = resident_stride<Format>(rows.size);
  const Strided<T> vectors = {v, v_row, 1, count, rows.size};
  const Shared<typename Format::Word> own = staged + warp() * kTile * kStride;
  for (int tile = warp(); tile < rows.tiles(); tile += threads() / 32) {
    const int p = rows.preactivation(tile / rows.tiles_of_block()), first = tile % rows.tiles_of_block() * 16;
    const Shared<typename Format::Word> left = resident + tile * 16 * stride;
    // Element e of a lane is row(e) of the tile and vector column(e).
    const auto row = [&](int e) { return Format::kTensorCores ? sum_row(e) : lane() % 16; };
    const auto column = [&](int e) { return Format::kTensorCores ? sum_column(e) : lane() / 16 + 2 * e; };
    T sums[4];
    LSC_UNROLL for (int e = 0; e < 4; ++e) {
      const bool inside = first + row(e) < rows.units && column(e) < count;
      sums[e] = inside ? start(p, first + row(e), column(e)) : T(0);
    }
    Staging<Format, kTile, Format::kWords, 32> next(lane());
    if (rows.size > 0) next.load(vectors, 0, 0);
    for (Index k = 0; k < rows.size; k += Format::kChunk) {
      next.store(own, kStride);
      warp_barrier();
      if (k + Format::kChunk < rows.size) next.load(vectors, 0, k + Format::kChunk);
      const Shared<typename Format::Word> chunk = left + int(k / Format::kChunk) * Format::kWords;
      if constexpr (Format::kTensorCores) {
        float part[1][4] = {};
        multiply_staged<Format, Format::kWords>(part, chunk, stride, own, kStride);
        LSC_UNROLL for (int e = 0; e < 4; ++e) sums[e] += part[0][e];
      } else {
        LSC_UNROLL for (int i = 0; i < Format::kWords; ++i) {
          const T number = chunk[row(0) * stride + i];
          LSC_UNROLL for (int e = 0; e < 4; ++e) sums[e] += number * own[column(e) * kStride + i];
        }
      }
      warp_barrier();
    }
    LSC_UNROLL for (int e = 0; e < 4; ++e) if (first + row(e) < rows.units && column(e) < count)
        finish(p, first + row(e), column(e), sums[e]);
  }
}

}  // namespace LSC_ISA
}  // namespace lsc::cuda
