// A matrix times the vectors of a tile of points: what one block multiplies with between two of their steps.
#pragma once

#include <type_traits>

#include "cuda/device.h"
#include "cuda/execution.h"
#include "cuda/mma.h"
#include "cuda/precision.h"
#include "cuda/staging.h"
#include "cuda/tile.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

// A warp takes 16 rows at a time and stages its own pieces of A and v, so that no warp waits for another. `kDepth`
// numbers along k are staged at a time; rows in shared memory are kPad words apart.
template <class Format, int kDepth, int kPad>
struct TileStage {
  static constexpr int kWarps = kTileThreads / 32, kRows = 16, kWords = kDepth / Format::kNumbers;
  static constexpr int kStride = kWords + kPad;
  static constexpr int kShared = kWarps * (kRows + kTile) * kStride;

  Strided<typename Format::Number> a, v;
  Shared<typename Format::Word> a_staged, v_staged;
  Staging<Format, kRows, kWords, 32> a_next;
  Staging<Format, kTile, kWords, 32> v_next;

  LSC_DEVICE TileStage(const Strided<typename Format::Number>& left, const Strided<typename Format::Number>& right,
                       Shared<typename Format::Word> shared)
      : a(left),
        v(right),
        a_staged(shared + warp() * (kRows + kTile) * kStride),
        v_staged(a_staged + kRows * kStride),
        a_next(lane()),
        v_next(lane()) {}

  LSC_DEVICE void load(Index row, Index k) {
    a_next.load(a, row, k);
    v_next.load(v, 0, k);
  }

  // multiply() after multiply() along k, from row on.
  template <class Multiply>
  LSC_DEVICE void along_k(Index row, Multiply multiply) {
    if (a.depth > 0) load(row, 0);
    for (Index k = 0; k < a.depth; k += kDepth) {
      a_next.store(a_staged, kStride);
      v_next.store(v_staged, kStride);
      warp_barrier();
      if (k + kDepth < a.depth) load(row, k + kDepth);
      multiply();
      warp_barrier();
    }
  }
};

// What the products of a kernel stage in: one room for all of them, for the compiler adds up those that have different
// names, even if only one of them is used.
template <class Word>
LSC_DEVICE Shared<Word> tile_storage() {
  constexpr int kPlain = TileStage<AsIs<Word>, 16, 1>::kShared;
  constexpr int kOnTensorCores = sizeof(Word) == 4 ? TileStage<TensorCore<Precision::fp32>, 32, 4>::kShared : 0;
  LSC_SHARED(Word, shared, kPlain > kOnTensorCores ? kPlain : kOnTensorCores);
  return shared;
}

// Where a tile's result goes; row i of A and vector j.
template <class T>
struct TileResult {
  Index m;
  int count;
  bool accumulate;
  T* out;
  Index out_row;

  LSC_DEVICE T start(Index i, int j) const { return accumulate && i < m && j < count ? out[j * out_row + i] : T(0); }
  LSC_DEVICE void finish(Index i, int j, T sum) const {
    if (i < m && j < count) out[j * out_row + i] = sum;
  }
};

template <Precision kPrecision>
LSC_DEVICE void tile_product_on_tensor_cores(const Strided<float>& a, const Strided<float>& v,
                                             const TileResult<float>& result) {
  using Core = TensorCore<kPrecision>;
  using Stage = TileStage<Core, 32, 4>;
  Stage stage(a, v, tile_storage<std::uint32_t>());
  for (Index row = warp() * kMmaRows; row < a.rows; row += Stage::kWarps * kMmaRows) {
    float sums[4];
    LSC_UNROLL for (int e = 0; e < 4; ++e) sums[e] = result.start(row + sum_row(e), sum_column(e));
    stage.along_k(row, [&] {
      float part[1][4] = {};
      multiply_staged<Core, Stage::kWords>(part, stage.a_staged, Stage::kStride, stage.v_staged, Stage::kStride);
      LSC_UNROLL for (int e = 0; e < 4; ++e) sums[e] += part[0][e];
    });
    LSC_UNROLL for (int e = 0; e < 4; ++e) result.finish(row + sum_row(e), sum_column(e), sums[e]);
  }
}

// Lane l takes row l % 16 and every second vector from l / 16 on.
template <class T>
LSC_DEVICE void tile_product_plainly(const Strided<T>& a, const Strided<T>& v, const TileResult<T>& result) {
  using Stage = TileStage<AsIs<T>, 16, 1>;
  constexpr int kEach = kTile / 2;
  Stage stage(a, v, tile_storage<T>());
  const int i = lane() % 16, j = lane() / 16;
  for (Index row = warp() * Stage::kRows; row < a.rows; row += Stage::kWarps * Stage::kRows) {
    T sums[kEach];
    LSC_UNROLL for (int e = 0; e < kEach; ++e) sums[e] = result.start(row + i, j + 2 * e);
    stage.along_k(row, [&] {
      LSC_UNROLL for (int k = 0; k < Stage::kWords; ++k) {
        const T number = stage.a_staged[i * Stage::kStride + k];
        LSC_UNROLL for (int e = 0; e < kEach; ++e) sums[e] += number * stage.v_staged[(j + 2 * e) * Stage::kStride + k];
      }
    });
    LSC_UNROLL for (int e = 0; e < kEach; ++e) result.finish(row + i, j + 2 * e, sums[e]);
  }
}

// out[j * out_row + i] = (accumulate ? it : 0) + sum over k < K of A[i, k] v[j * v_row + k], i < m, j < count <= kTile,
// A[i, k] = a[i * a_row + k * a_column], all in global memory, `out` apart from A and v. All kTileThreads threads of
// the block take part; what they read must be seen by all before, and what they wrote is not until the next barrier.
// Row j of the result depends on row j of v alone, bit for bit. Where the device has no tensor cores, the ordinary
// units do it, and the precision must be fp32: the host asks require_precision() before it launches. Choice is
// Precision, or ThePrecision for code of one alone, which takes fewer registers.
template <class Choice, class T>
LSC_DEVICE void tile_product(Choice precision, Index m, Index k, const T* a, Index a_row, Index a_column, int count,
                             const T* v, Index v_row, bool accumulate, T* out, Index out_row) {
  const Strided<T> matrix = {a, a_row, a_column, m, k}, vectors = {v, v_row, 1, count, k};
  const TileResult<T> result = {m, count, accumulate, out, out_row};
  if constexpr (std::is_same_v<T, float>) {
    if (tensor_cores()) {
      switch (Precision(precision)) {
        case Precision::fp32:
          return tile_product_on_tensor_cores<Precision::fp32>(matrix, vectors, result);
        case Precision::tf32:
          return tile_product_on_tensor_cores<Precision::tf32>(matrix, vectors, result);
        case Precision::fp16:
          return tile_product_on_tensor_cores<Precision::fp16>(matrix, vectors, result);
        case Precision::bf16:
          return tile_product_on_tensor_cores<Precision::bf16>(matrix, vectors, result);
      }
      return;
    }
  }
  tile_product_plainly(matrix, vectors, result);
}

}  // namespace LSC_ISA
}  // namespace lsc::cuda
