// Rows of a matrix that stay in a block's shared memory, and their product with a few vectors at a time: what a step
// multiplies with where all steps are one launch. Every sum is over the same chunks in the same order as that of
// tile_product() and of multiply(), so that all three give the same bits.
#pragma once

#include <type_traits>

#include "cuda/device.h"
#include "cuda/execution.h"
#include "cuda/feeds.h"
#include "cuda/mma.h"
#include "cuda/ordering.h"
#include "cuda/staging.h"
#include "cuda/tile.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

// How numbers stand in shared memory: kChunk of them along k are multiplied at a time. kChunkClocks is what a warp
// takes for a chunk of 16 x 8, by the latency of its instructions (modelled).
template <class T>
struct OnOrdinaryUnits : AsIs<T> {
  static constexpr bool kTensorCores = false;
  static constexpr int kChunk = 16, kWords = 16, kPad = 1, kChunkClocks = 40 * int(sizeof(T));
};

template <Precision kPrecision>
struct OnTensorCores : TensorCore<kPrecision> {
  static constexpr bool kTensorCores = true;
  static constexpr int kChunk = 32, kWords = kChunk / TensorCore<kPrecision>::kNumbers, kPad = 4;
  // So many chunks are under way together, each a chain of products of 33 clocks.
  static constexpr int kTogether = 4, kProducts = kPrecision == Precision::fp32 ? 12 : kWords / kMmaWords;
  static constexpr int kChunkClocks = 33 * kProducts / kTogether;
};

// The rows that give `units` of a layer's units what they get from one of the layer's weights [blocks * H, size]; unit
// `first` is the first of them. A block of the weights feeds the pre-activation that `feed` has it for.
//   forward     a group of rows for each such pre-activation: its block's rows, of `size` numbers
//   transposed  one group: the columns of all such blocks side by side, of H numbers each
// A group is filled up to whole tiles of 16 rows, a block's numbers to whole chunks.
template <class T>
struct ResidentRows {
  const T* weight;
  Index size, H, first;
  int units, P;
  Feeds feed;
  bool transposed;

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
  LSC_HD int tiles_of_group() const { return (units + 15) / 16; }
  LSC_HD int tiles() const { return (transposed ? (blocks() > 0) : blocks()) * tiles_of_group(); }
  // Of one row: how many pieces, and how many numbers each.
  LSC_HD int pieces() const { return transposed ? blocks() : 1; }
  LSC_HD Index depth() const { return transposed ? H : size; }
  LSC_DEVICE T number(int row, int piece, Index k) const {
    const int group = row / (tiles_of_group() * 16), unit = row % (tiles_of_group() * 16);
    if (unit >= units || k >= depth()) return T(0);
    const Index block = feed[preactivation(transposed ? piece : group)];
    return transposed ? weight[(block * H + k) * size + first + unit] : weight[(block * H + first + unit) * size + k];
  }
};

template <class Format>
LSC_HD int piece_words(Index depth) {
  return int((depth + Format::kChunk - 1) / Format::kChunk) * Format::kWords;
}
// Words between rows, and between staged vectors.
template <class Format, class T>
LSC_HD int resident_stride(const ResidentRows<T>& rows) {
  return rows.pieces() * piece_words<Format>(rows.depth()) + Format::kPad;
}
template <class Format, class T>
LSC_HD int resident_words(const ResidentRows<T>& rows) {
  return rows.tiles() * 16 * resident_stride<Format>(rows);
}
template <class Format, class T>
LSC_HD int staged_words(const ResidentRows<T>& rows) {
  return kTile * resident_stride<Format>(rows);
}

// All threads; to be followed by a barrier.
template <class Format, class T>
LSC_DEVICE void load_rows(const ResidentRows<T>& rows, Shared<typename Format::Word> to) {
  const int stride = resident_stride<Format>(rows), words = stride - Format::kPad, all = rows.tiles() * 16;
  const int of_piece = piece_words<Format>(rows.depth());
  for (int i = thread(); i < all * words; i += threads()) {
    const int row = i / words, word = i % words;
    T numbers[Format::kNumbers];
    LSC_UNROLL for (int e = 0; e < Format::kNumbers; ++e) numbers[e] =
        rows.number(row, word / of_piece, Index(word % of_piece) * Format::kNumbers + e);
    to[row * stride + word] = Format::word(numbers);
  }
}

// A few vectors in global memory: piece p of vector b begins at at[b * row + piece(p)], of `depth` numbers. Where other
// blocks write them in this launch, they are awaited.
template <class T>
struct FedVectors {
  const T* at;
  Index row;
  int count;
  bool awaited;
};

// All threads; to be followed by a barrier. The loads of a thread are issued together, for each takes a way to the
// level-2 cache and back.
template <class Format, class T, class Piece>
LSC_DEVICE void stage(const ResidentRows<T>& rows, Shared<typename Format::Word> staged, const FedVectors<T>& vectors,
                      const Piece& piece) {
  constexpr int kAtOnce = 8 / Format::kNumbers;
  const int stride = resident_stride<Format>(rows), words = stride - Format::kPad;
  const int of_piece = piece_words<Format>(rows.depth());
  for (int begin = thread(); begin < kTile * words; begin += kAtOnce * threads()) {
    T numbers[kAtOnce][Format::kNumbers];
    const T* at[kAtOnce][Format::kNumbers];
    LSC_UNROLL for (int i = 0; i < kAtOnce; ++i) LSC_UNROLL for (int e = 0; e < Format::kNumbers; ++e) {
      const int place = begin + i * threads(), b = place / words, word = place % words;
      const Index k = Index(word % of_piece) * Format::kNumbers + e;
      at[i][e] =
          b < vectors.count && k < rows.depth() ? vectors.at + b * vectors.row + piece(word / of_piece) + k : nullptr;
      numbers[i][e] = at[i][e] ? peek(at[i][e]) : T(0);
    }
    LSC_UNROLL for (int i = 0; i < kAtOnce; ++i) {
      const int place = begin + i * threads(), b = place / words, word = place % words;
      if (place >= kTile * words) break;
      LSC_UNROLL for (int e = 0; e < Format::kNumbers; ++e) if (vectors.awaited && at[i][e]) numbers[i][e] =
          await_number(at[i][e], numbers[i][e]);
      staged[b * stride + word] = Format::word(numbers[i]);
    }
  }
}

// For unit j of group g and vector b < count: finish(g, j, b, start(g, j, b) + the sum over the pieces of row [g, j]
// times those of vector b). A warp waits for none other.
template <class Format, class T, class Start, class Finish>
LSC_DEVICE void multiply_rows(const ResidentRows<T>& rows, Shared<typename Format::Word> resident,
                              Shared<typename Format::Word> staged, int count, const Start& start,
                              const Finish& finish) {
  const int stride = resident_stride<Format>(rows), words = stride - Format::kPad;
  for (int tile = warp(); tile < rows.tiles(); tile += threads() / 32) {
    const int group = tile / rows.tiles_of_group(), first = tile % rows.tiles_of_group() * 16;
    const Shared<typename Format::Word> left = resident + tile * 16 * stride;
    // Element e of a lane is row(e) of the tile and vector column(e).
    const auto row = [&](int e) { return Format::kTensorCores ? sum_row(e) : lane() % 16; };
    const auto column = [&](int e) { return Format::kTensorCores ? sum_column(e) : lane() / 16 + 2 * e; };
    T sums[4];
    LSC_UNROLL for (int e = 0; e < 4; ++e) {
      const bool inside = first + row(e) < rows.units && column(e) < count;
      sums[e] = inside ? start(group, first + row(e), column(e)) : T(0);
    }
    if constexpr (Format::kTensorCores) {
      constexpr int kTogether = Format::kTogether, kWords = Format::kWords;
      for (int word = 0; word < words; word += kTogether * kWords) {
        float part[kTogether][1][4] = {};
        LSC_UNROLL for (int c = 0; c < kTogether; ++c) if (word + c * kWords < words) multiply_staged<Format, kWords>(
            part[c], left + (word + c * kWords), stride, staged + (word + c * kWords), stride);
        LSC_UNROLL for (int c = 0; c < kTogether; ++c) if (word + c * kWords < words)
            LSC_UNROLL for (int e = 0; e < 4; ++e) sums[e] += part[c][0][e];
      }
    } else {
      for (int word = 0; word < words; word += Format::kWords) {
        LSC_UNROLL for (int i = 0; i < Format::kWords; ++i) {
          const T number = left[row(0) * stride + word + i];
          LSC_UNROLL for (int e = 0; e < 4; ++e) sums[e] += number * staged[column(e) * stride + word + i];
        }
      }
    }
    LSC_UNROLL for (int e = 0; e < 4; ++e) if (first + row(e) < rows.units && column(e) < count)
        finish(group, first + row(e), column(e), sums[e]);
  }
}

}  // namespace LSC_ISA
}  // namespace lsc::cuda
