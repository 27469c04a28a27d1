// One warp's matrix product on the tensor cores: sums [16, 8] += left [16, k] right [k, 8], sums in float32.
//
// The operands are handed over in 32-bit words: one number in tf32, two neighbours along k in fp16 and bf16. A product
// is 8 words deep, and in words the layout of the registers is the same for all three. Which word a lane holds as its
// element e:
//
//   left    4 words   row left_row, word left_word            sums    4 numbers   row sum_row, column sum_column
//   right   2 words   column right_column, word right_word
//
// Precision::fp32 splits every number into two of tf32, x = high + low to 22 bits and more over float32's whole range,
// and adds up three products: low * high, high * low, high * high.
#pragma once

#include "cuda/device.h"
#include "cuda/execution.h"
#include "cuda/half.h"

#if defined(LSC_EMULATED)
#include "emulator/mma.h"
#endif

namespace lsc::cuda {
inline namespace LSC_ISA {

// Whether this code runs on a device with tensor cores for these formats; has_tensor_cores() is what the host says.
LSC_DEVICE bool tensor_cores() {
#if defined(LSC_EMULATED)
  return emulator::tensor_cores();
#elif __CUDA_ARCH__ >= 800
  return true;
#else
  return false;
#endif
}

inline constexpr int kMmaRows = 16, kMmaColumns = 8, kMmaWords = 8;

LSC_DEVICE int left_row(int e) { return lane() / 4 + e % 2 * 8; }
LSC_DEVICE int left_word(int e) { return lane() % 4 + e / 2 * 4; }
LSC_DEVICE int right_column() { return lane() / 4; }
LSC_DEVICE int right_word(int e) { return lane() % 4 + e * 4; }
LSC_DEVICE int sum_row(int e) { return lane() / 4 + e / 2 * 8; }
LSC_DEVICE int sum_column(int e) { return lane() % 4 * 2 + e % 2; }

#if defined(LSC_EMULATED)
using emulator::mma_bf16;
using emulator::mma_fp16;
using emulator::mma_tf32;
#else

#if __CUDA_ARCH__ >= 800
#define LSC_MMA(shape, type)                                                \
  asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type      \
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "                  \
               "{%8, %9}, {%0, %1, %2, %3};"                                \
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]) \
               : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]))
#else
#define LSC_MMA(shape, type) __trap()
#endif

LSC_DEVICE void mma_tf32(float (&sums)[4], const std::uint32_t (&left)[4], const std::uint32_t (&right)[2]) {
  LSC_MMA("m16n8k8", "tf32");
}
LSC_DEVICE void mma_fp16(float (&sums)[4], const std::uint32_t (&left)[4], const std::uint32_t (&right)[2]) {
  LSC_MMA("m16n8k16", "f16");
}
LSC_DEVICE void mma_bf16(float (&sums)[4], const std::uint32_t (&left)[4], const std::uint32_t (&right)[2]) {
  LSC_MMA("m16n8k16", "bf16");
}
#undef LSC_MMA

#endif

// How numbers stand in words, and what a product makes of the words. An Operand is what one lane holds of one side.
struct Float32Words {
  using Number = float;
  using Word = std::uint32_t;
};

template <Precision>
struct TensorCore;

template <>
struct TensorCore<Precision::tf32> : Float32Words {
  static constexpr int kNumbers = 1;  // in a word
  static LSC_DEVICE std::uint32_t word(const float* x) { return to_tf32(x[0]); }
  template <int N>
  struct Operand {
    std::uint32_t words[N];
    LSC_DEVICE void set(int e, std::uint32_t word) { words[e] = word; }
  };
  static LSC_DEVICE void multiply(float (&sums)[4], const Operand<4>& left, const Operand<2>& right) {
    mma_tf32(sums, left.words, right.words);
  }
};

template <>
struct TensorCore<Precision::fp16> : Float32Words {
  static constexpr int kNumbers = 2;
  static LSC_DEVICE std::uint32_t word(const float* x) { return pack_fp16(x[0], x[1]); }
  template <int N>
  using Operand = TensorCore<Precision::tf32>::Operand<N>;
  static LSC_DEVICE void multiply(float (&sums)[4], const Operand<4>& left, const Operand<2>& right) {
    mma_fp16(sums, left.words, right.words);
  }
};

template <>
struct TensorCore<Precision::bf16> : Float32Words {
  static constexpr int kNumbers = 2;
  static LSC_DEVICE std::uint32_t word(const float* x) { return pack_bf16(x[0], x[1]); }
  template <int N>
  using Operand = TensorCore<Precision::tf32>::Operand<N>;
  static LSC_DEVICE void multiply(float (&sums)[4], const Operand<4>& left, const Operand<2>& right) {
    mma_bf16(sums, left.words, right.words);
  }
};

// Infinity times the zero of a low part, or times one of the other sign, would be NaN where float32 has an infinity:
// what is not finite takes part in high * high alone.
template <>
struct TensorCore<Precision::fp32> : Float32Words {
  static constexpr int kNumbers = 1;
  static LSC_DEVICE std::uint32_t word(const float* x) { return bits_of(x[0]); }
  template <int N>
  struct Operand {
    std::uint32_t high[N], low[N], finite[N];  // finite: high, or 0
    LSC_DEVICE void set(int e, std::uint32_t word) {
      const bool rest = is_finite(word);
      const std::uint32_t rounded = to_tf32(float_of(word));
      high[e] = is_finite(rounded) || !rest ? rounded : word & 0xffffe000;  // not up to infinity
      low[e] = rest ? bits_of(float_of(word) - float_of(high[e])) : 0;      // 12 bits, of which mma reads 11
      finite[e] = rest ? high[e] : 0;
    }
  };
  static LSC_DEVICE void multiply(float (&sums)[4], const Operand<4>& left, const Operand<2>& right) {
    mma_tf32(sums, left.low, right.finite);
    mma_tf32(sums, left.finite, right.low);
    mma_tf32(sums, left.high, right.high);
  }
};

// sums[r] [16, 8] += left [16, k] times tile r of right, kWords deep, from shared memory: row i of left begins at
// left[i * left_stride], column j of all right tiles at right[j * stride].
template <class Core, int kWords, int kRight>
LSC_DEVICE void multiply_staged(float (&sums)[kRight][4], Shared<std::uint32_t> left, int left_stride,
                                Shared<std::uint32_t> right, int stride) {
  LSC_UNROLL for (int word = 0; word < kWords; word += kMmaWords) {
    typename Core::template Operand<4> a;
    LSC_UNROLL for (int e = 0; e < 4; ++e) a.set(e, left[left_row(e) * left_stride + word + left_word(e)]);
    LSC_UNROLL for (int r = 0; r < kRight; ++r) {
      typename Core::template Operand<2> b;
      LSC_UNROLL for (int e = 0; e < 2; ++e)
          b.set(e, right[(r * kMmaColumns + right_column()) * stride + word + right_word(e)]);
      Core::multiply(sums[r], a, b);
    }
  }
}

}  // namespace LSC_ISA
}  // namespace lsc::cuda
