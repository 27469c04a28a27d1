// The tensor cores on the host: what mma.sync does with the registers of a warp, by the formulas of the PTX ISA
// ("Matrix fragments for mma.m16n8k8" and "... mma.m16n8k16"). Sums are float32, one product after the other.
#pragma once

#include <algorithm>
#include <array>

#include "cuda/half.h"
#include "emulator/executor.h"

namespace lsc::emulator {

namespace mma {

inline bool present = true;

// One warp's A [16, k] and B [k, 8], gathered from the registers of its lanes: A's in words 0 .. 3, B's in 4 and 5.
template <int kDepth>
struct Operands {
  float a[16][kDepth], b[kDepth][8];
};

using Words = std::uint32_t[32][6];

inline void gather(const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], Words& all) {
  const std::uint32_t own[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  emulator::gather(own, 6, &all[0][0]);
}

inline void read_tf32(const Words& words, Operands<8>& x) {
  const auto number = [](std::uint32_t word) { return cuda::float_of(word & 0xffffe000); };
  for (int lane = 0; lane < 32; ++lane) {
    const int group_id = lane >> 2, thread_id_in_group = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = i == 0 || i == 2 ? group_id : group_id + 8;
      const int column = i == 0 || i == 1 ? thread_id_in_group : thread_id_in_group + 4;
      x.a[row][column] = number(words[lane][i]);
    }
    for (int i = 0; i < 2; ++i)
      x.b[i == 0 ? thread_id_in_group : thread_id_in_group + 4][group_id] = number(words[lane][4 + i]);
  }
}

template <class Number>
void read_halves(const Words& words, Operands<16>& x, Number number) {
  const auto half = [&](std::uint32_t word, int i) { return number(std::uint16_t(i % 2 == 0 ? word : word >> 16)); };
  for (int lane = 0; lane < 32; ++lane) {
    const int group_id = lane >> 2, thread_id_in_group = lane % 4;
    for (int i = 0; i < 8; ++i) {
      const int row = (0 <= i && i < 2) || (4 <= i && i < 6) ? group_id : group_id + 8;
      const int column = thread_id_in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
      x.a[row][column] = half(words[lane][i / 2], i);
    }
    for (int i = 0; i < 4; ++i)
      x.b[thread_id_in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group_id] = half(words[lane][4 + i / 2], i);
  }
}

// By value: GCC 12 drops the call where it gets a reference to the sums.
template <int kDepth>
std::array<float, 4> multiply(const Operands<kDepth>& x, std::array<float, 4> c, int lane) {
  const int group_id = lane >> 2, thread_id_in_group = lane % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = i < 2 ? group_id : group_id + 8, column = thread_id_in_group * 2 + (i & 1);
    for (int k = 0; k < kDepth; ++k) c[std::size_t(i)] += x.a[row][k] * x.b[k][column];
  }
  return c;
}

template <int kDepth>
void add_product(const Operands<kDepth>& x, float (&c)[4]) {
  const std::array<float, 4> sums = multiply(x, {c[0], c[1], c[2], c[3]}, current().thread % 32);
  std::copy(sums.begin(), sums.end(), c);
}

}  // namespace mma

// Whether the device stands for one with tensor cores, i.e. of compute capability 8.0 or newer.
inline bool tensor_cores() { return mma::present; }
inline void set_tensor_cores(bool present) { mma::present = present; }

inline void mma_tf32(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  mma::Words words;
  mma::gather(a, b, words);
  mma::Operands<8> x;
  mma::read_tf32(words, x);
  mma::add_product(x, c);
}

inline void mma_fp16(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  mma::Words words;
  mma::gather(a, b, words);
  mma::Operands<16> x;
  mma::read_halves(words, x, cuda::from_fp16);
  mma::add_product(x, c);
}

inline void mma_bf16(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  mma::Words words;
  mma::gather(a, b, words);
  mma::Operands<16> x;
  mma::read_halves(words, x, cuda::from_bf16);
  mma::add_product(x, c);
}

}  // namespace lsc::emulator
