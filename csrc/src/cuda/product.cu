#include "cuda/launch.h"
#include "cuda/mma.h"
#include "cuda/product.h"
#include "cuda/staging.h"

namespace lsc::cuda {
namespace {

// The tile of C that a block computes, as B' A': n along the rows of the tensor cores' tiles, and m along their
// columns, of which there are as few as 8. The terms and the k of each lie one behind the other in `stages`.
struct Tiling {
  Index across;  // blocks along n; the others are along m
  Index stages;  // of one term
};

template <class T>
struct Operands {
  Strided<T> left, right;

  LSC_DEVICE Operands(const Product<T>& x, Index part)
      : left{x.b + x.b_offset[part], x.b_column, x.b_row, x.n, x.k},
        right{x.a + x.a_offset[part], x.a_row, x.a_column, x.m, x.k} {}
};

template <class T>
LSC_DEVICE T start_of(const Product<T>& x, Index i, Index j) {
  if (!x.start || i >= x.m || j >= x.n) return T(0);
  return x.start[x.start_offset[block_z()] + i * x.start_row + j * x.start_column];
}

template <class T>
LSC_DEVICE void finish(const Product<T>& x, Index i, Index j, T sum) {
  if (i < x.m && j < x.n) x.c[x.c_offset[block_z()] + i * x.c_row + j] = sum;
}

// Numbers along k that are summed up from zero on the tensor cores, which do not round to nearest, before they are
// added to the sum in float32. It is the same for all tiles, so that none of them shows in the result.
constexpr int kChunk = 32;

// kAlongN x kAlongM warps, each on kRight tiles of 16 x 8. With kSplit > 1 there are as many for each tile, each on its
// own chunk of k, and the first of them adds up the chunks in order.
template <int kRight_, int kAlongN_, int kAlongM_, int kSplit_>
struct TensorShape {
  static constexpr int kRight = kRight_, kAlongN = kAlongN_, kSplit = kSplit_,
                       kThreads = 32 * kAlongN_ * kAlongM_ * kSplit_;
  static constexpr int kN = kAlongN_ * kMmaRows, kM = kAlongM_ * kRight_ * kMmaColumns, kDepth = kSplit_ * kChunk;
  static_assert(kSplit_ == 1 || kAlongN_ * kAlongM_ == 1, "sums are handed over within one tile");
};

template <Precision kPrecision, class Shape>
LSC_KERNEL multiply_on_tensor_cores(Product<float> x, Tiling tiling) {
  if (!tensor_cores()) return;  // never launched there, and so not compiled for it
  using Core = TensorCore<kPrecision>;
  constexpr int kRight = Shape::kRight, kSplit = Shape::kSplit;
  constexpr int kChunkWords = kChunk / Core::kNumbers, kWords = kSplit * kChunkWords, kStride = kWords + 4;
  LSC_SHARED(std::uint32_t, left, 2 * Shape::kN * kStride);
  LSC_SHARED(std::uint32_t, right, 2 * Shape::kM * kStride);

  const int chunk = warp() % kSplit, left_row0 = warp() / kSplit % Shape::kAlongN * kMmaRows;
  const int right_column0 = warp() / kSplit / Shape::kAlongN * kRight * kMmaColumns;
  const Index j0 = block() % tiling.across * Shape::kN, i0 = block() / tiling.across * Shape::kM;
  const auto i_of = [&](int r, int e) { return i0 + right_column0 + r * kMmaColumns + sum_column(e); };
  const auto j_of = [&](int e) { return j0 + left_row0 + sum_row(e); };

  float sums[kRight][4];
  LSC_UNROLL for (int r = 0; r < kRight; ++r) LSC_UNROLL for (int e = 0; e < 4; ++e) sums[r][e] =
      start_of(x, i_of(r, e), j_of(e));

  Staging<Core, Shape::kN, kWords, Shape::kThreads> next_left(thread());
  Staging<Core, Shape::kM, kWords, Shape::kThreads> next_right(thread());
  const Index stages = x.terms * tiling.stages;
  const auto load = [&](Index stage) {
    const Operands<float> from(x, block_z() * x.terms + stage / tiling.stages);
    const Index k = stage % tiling.stages * Shape::kDepth;
    next_left.load(from.left, j0, k);
    next_right.load(from.right, i0, k);
  };
  if (stages > 0) load(0);
  for (Index stage = 0; stage < stages; ++stage) {
    const Shared<std::uint32_t> staged_left = left + stage % 2 * Shape::kN * kStride;
    const Shared<std::uint32_t> staged_right = right + stage % 2 * Shape::kM * kStride;
    next_left.store(staged_left, kStride);
    next_right.store(staged_right, kStride);
    barrier();
    if (stage + 1 < stages) load(stage + 1);

    float part[kRight][4] = {};
    multiply_staged<Core, kChunkWords>(part, staged_left + (left_row0 * kStride + chunk * kChunkWords), kStride,
                                       staged_right + (right_column0 * kStride + chunk * kChunkWords), kStride);
    if constexpr (kSplit == 1) {
      LSC_UNROLL for (int r = 0; r < kRight; ++r) LSC_UNROLL for (int e = 0; e < 4; ++e) sums[r][e] += part[r][e];
    } else {
      LSC_SHARED(float, parts, kSplit * kRight * 4 * 32);
      LSC_UNROLL for (int r = 0; r < kRight; ++r) LSC_UNROLL for (int e = 0; e < 4; ++e)
          parts[((chunk * kRight + r) * 4 + e) * 32 + lane()] = part[r][e];
      barrier();
      if (chunk > 0) continue;
      LSC_UNROLL for (int c = 0; c < kSplit; ++c) LSC_UNROLL for (int r = 0; r < kRight; ++r)
          LSC_UNROLL for (int e = 0; e < 4; ++e) sums[r][e] += parts[((c * kRight + r) * 4 + e) * 32 + lane()];
    }
  }
  if (chunk > 0) return;
  LSC_UNROLL for (int r = 0; r < kRight; ++r) LSC_UNROLL for (int e = 0; e < 4; ++e)
      finish(x, i_of(r, e), j_of(e), sums[r][e]);
}

// Multiply-adds of the ordinary units; a thread takes kN x kM / kThreads elements, kAcross of them apart along n.
constexpr int kPlainThreads = 256, kPlainDepth = 32;

template <class T, int kN, int kM, int kAcross>
LSC_KERNEL multiply_plainly(Product<T> x, Tiling tiling) {
  constexpr int kDown = kPlainThreads / kAcross, kColumns = kN / kAcross, kRows = kM / kDown, kStride = kPlainDepth + 1;
  LSC_SHARED(T, left, kN * kStride);
  LSC_SHARED(T, right, kM * kStride);
  const Index j0 = block() % tiling.across * kN, i0 = block() / tiling.across * kM;
  const int j = thread() % kAcross, i = thread() / kAcross;

  T sums[kRows][kColumns];
  LSC_UNROLL for (int r = 0; r < kRows; ++r) LSC_UNROLL for (int c = 0; c < kColumns; ++c) sums[r][c] =
      start_of(x, i0 + i + r * kDown, j0 + j + c * kAcross);

  Staging<AsIs<T>, kN, kPlainDepth, kPlainThreads> next_left(thread());
  Staging<AsIs<T>, kM, kPlainDepth, kPlainThreads> next_right(thread());
  const Index stages = x.terms * tiling.stages;
  const auto load = [&](Index stage) {
    const Operands<T> from(x, block_z() * x.terms + stage / tiling.stages);
    const Index k = stage % tiling.stages * kPlainDepth;
    next_left.load(from.left, j0, k);
    next_right.load(from.right, i0, k);
  };
  if (stages > 0) load(0);
  for (Index stage = 0; stage < stages; ++stage) {
    next_left.store(left, kStride);
    next_right.store(right, kStride);
    barrier();
    if (stage + 1 < stages) load(stage + 1);
    for (int k = 0; k < kPlainDepth; ++k) {
      T a[kRows], b[kColumns];
      LSC_UNROLL for (int r = 0; r < kRows; ++r) a[r] = right[(i + r * kDown) * kStride + k];
      LSC_UNROLL for (int c = 0; c < kColumns; ++c) b[c] = left[(j + c * kAcross) * kStride + k];
      LSC_UNROLL for (int r = 0; r < kRows; ++r) LSC_UNROLL for (int c = 0; c < kColumns; ++c) sums[r][c] +=
          a[r] * b[c];
    }
    barrier();
  }
  LSC_UNROLL for (int r = 0; r < kRows; ++r) LSC_UNROLL for (int c = 0; c < kColumns; ++c)
      finish(x, i0 + i + r * kDown, j0 + j + c * kAcross, sums[r][c]);
}

// Tiles of 64 x 64 where they keep all multiprocessors busy.
template <class T>
bool many(const Execution& execution, const Product<T>& x) {
  return covering(x.m, 64) * covering(x.n, 64) * x.groups >= processors(execution.device);
}

template <class T, int kN, int kM, int kAcross>
void launch_plain(const Execution& execution, const Product<T>& x) {
  const Tiling tiling = {covering(x.n, kN), covering(x.k, kPlainDepth)};
  launch(execution, {"multiply", {tiling.across * covering(x.m, kM), 1, x.groups}, kPlainThreads},
         multiply_plainly<T, kN, kM, kAcross>, x, tiling);
}

template <class T>
void multiply_plain(const Execution& execution, const Product<T>& x) {
  if (many(execution, x) && x.m > 8)
    launch_plain<T, 64, 64, 16>(execution, x);
  else
    launch_plain<T, 32, 8, 32>(execution, x);
}

template <Precision kPrecision, class Shape>
void launch_tensor(const Execution& execution, const Product<float>& x) {
  const Tiling tiling = {covering(x.n, Shape::kN), covering(x.k, Shape::kDepth)};
  launch(execution, {"multiply", {tiling.across * covering(x.m, Shape::kM), 1, x.groups}, Shape::kThreads},
         multiply_on_tensor_cores<kPrecision, Shape>, x, tiling);
}

template <Precision kPrecision>
void multiply_tensor(const Execution& execution, const Product<float>& x) {
  if (x.m <= 8)
    launch_tensor<kPrecision, TensorShape<1, 1, 1, 4>>(execution, x);  // 16 x 8
  else if (many(execution, x))
    launch_tensor<kPrecision, TensorShape<4, 4, 2, 1>>(execution, x);  // 64 x 64
  else
    launch_tensor<kPrecision, TensorShape<2, 2, 2, 1>>(execution, x);  // 32 x 32
}

}  // namespace

template <>
void multiply(const Execution& execution, const Product<double>& product) {
  multiply_plain(execution, product);
}

template <>
void multiply(const Execution& execution, const Product<float>& product) {
  require_precision(execution);
  if (!has_tensor_cores(execution.device)) return multiply_plain(execution, product);
  switch (execution.precision) {
    case Precision::fp32:
      return multiply_tensor<Precision::fp32>(execution, product);
    case Precision::tf32:
      return multiply_tensor<Precision::tf32>(execution, product);
    case Precision::fp16:
      return multiply_tensor<Precision::fp16>(execution, product);
    case Precision::bf16:
      return multiply_tensor<Precision::bf16>(execution, product);
  }
}

}  // namespace lsc::cuda
