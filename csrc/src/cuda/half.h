// The short number formats of the tensor cores as bit patterns. Rounding is to the nearest, ties to even; infinities
// and NaN stay what they are, what is too large becomes infinity.
//
//   fp16   1 sign, 5 exponent, 10 mantissa bits        bf16   1, 8, 7: the upper half of a float32
//   tf32   1, 8, 10: a float32 whose low 13 bits are zero
#pragma once

#include <cstdint>
#include <cstring>

#include "lsc/host_device.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

LSC_HD inline std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

LSC_HD inline float float_of(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline constexpr std::uint32_t kInfinityBits = 0x7f800000, kMagnitudeBits = 0x7fffffff;
inline constexpr std::uint16_t kShortNan = 0x7fff;  // what the device makes of every NaN

LSC_HD inline bool is_finite(std::uint32_t bits) { return (bits & kInfinityBits) != kInfinityBits; }
LSC_HD inline bool is_nan(std::uint32_t bits) { return (bits & kMagnitudeBits) > kInfinityBits; }

LSC_HD inline std::uint32_t to_tf32(float x) {
  const std::uint32_t bits = bits_of(x), quiet = 0x00400000, kept = 0xffffe000;
  return (is_nan(bits) ? bits | quiet : bits + 0xfff + (bits >> 13 & 1)) & kept;
}

LSC_HD inline std::uint16_t to_bf16(float x) {
#if __CUDA_ARCH__ >= 800
  std::uint16_t out;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out) : "f"(x));
  return out;
#else
  const std::uint32_t bits = bits_of(x);
  return is_nan(bits) ? kShortNan : std::uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#endif
}

LSC_HD inline float from_bf16(std::uint16_t bits) { return float_of(std::uint32_t(bits) << 16); }

LSC_HD inline std::uint16_t to_fp16(float x) {
#if defined(__CUDA_ARCH__)
  std::uint16_t out;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(x));
  return out;
#else
  const std::uint32_t bits = bits_of(x), magnitude = bits & kMagnitudeBits;
  const auto sign = std::uint16_t(bits >> 16 & 0x8000);
  if (is_nan(bits)) return kShortNan;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65520 and more
  if (magnitude >= 0x38800000)                        // 2^-14 and more; the exponents' biases are 112 apart
    return sign | std::uint16_t((magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13);
  const std::uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000, shift = 126 - (magnitude >> 23);
  if (shift > 24) return sign;  // less than half of 2^-24, the smallest there is
  return sign | std::uint16_t((mantissa + (1u << (shift - 1)) - 1 + (mantissa >> shift & 1)) >> shift);
#endif
}

LSC_HD inline float from_fp16(std::uint16_t bits) {
#if defined(__CUDA_ARCH__)
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
#else
  const std::uint32_t sign = std::uint32_t(bits & 0x8000) << 16, exponent = bits >> 10 & 0x1f, mantissa = bits & 0x3ff;
  if (exponent == 0) return float_of(sign | bits_of(float(mantissa) * 0x1p-24f));
  return float_of(sign | (exponent == 0x1f ? kInfinityBits : (exponent + 112) << 23) | mantissa << 13);
#endif
}

// Two numbers in one word, the first in its lower half.
LSC_HD inline std::uint32_t pack_fp16(float first, float second) {
#if __CUDA_ARCH__ >= 800
  std::uint32_t out;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(second), "f"(first));
  return out;
#else
  return to_fp16(first) | std::uint32_t(to_fp16(second)) << 16;
#endif
}

LSC_HD inline std::uint32_t pack_bf16(float first, float second) {
#if __CUDA_ARCH__ >= 800
  std::uint32_t out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(second), "f"(first));
  return out;
#else
  return to_bf16(first) | std::uint32_t(to_bf16(second)) << 16;
#endif
}

}  // namespace LSC_ISA
}  // namespace lsc::cuda
