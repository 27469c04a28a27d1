// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): random numbers as a pure function
// of (seed, counter), so a point's start vector does not depend on which thread or tile computes it.
#pragma once

#include <cmath>
#include <cstdint>

#include "lsc/host_device.h"

namespace lsc {
inline namespace LSC_ISA {

struct Philox {
  std::uint32_t word[4];
};

LSC_HD inline Philox philox(std::uint64_t seed, std::uint64_t high, std::uint64_t low) {
  Philox x = {{std::uint32_t(low), std::uint32_t(low >> 32), std::uint32_t(high), std::uint32_t(high >> 32)}};
  std::uint32_t key0 = std::uint32_t(seed), key1 = std::uint32_t(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * x.word[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * x.word[2];
    x = {{std::uint32_t(b >> 32) ^ x.word[1] ^ key0, std::uint32_t(b), std::uint32_t(a >> 32) ^ x.word[3] ^ key1,
          std::uint32_t(a)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return x;
}

// Numbers 4 i .. 4 i + 3 of the standard normal vector (Box-Muller) that (seed, point, draw) names.
template <class T>
LSC_HD void normal_four(std::uint64_t seed, std::uint64_t point, std::uint32_t draw, std::uint64_t i, T* v) {
  constexpr double kTwoPi = 6.283185307179586, kScale = 1.0 / 4294967296.0;
  const Philox random = philox(seed, point, (std::uint64_t{draw} << 32) | i);
  for (int half = 0; half < 2; ++half) {
    const double length = std::sqrt(-2.0 * std::log((random.word[2 * half] + 0.5) * kScale));
    const double angle = kTwoPi * (random.word[2 * half + 1] * kScale);
    v[2 * half] = T(length * std::cos(angle));
    v[2 * half + 1] = T(length * std::sin(angle));
  }
}

// Fills v[n] with that vector.
template <class T>
void fill_normal(std::uint64_t seed, std::uint64_t point, std::uint32_t draw, std::int64_t n, T* v) {
  for (std::int64_t i = 0; i < n; i += 4) {
    T four[4];
    normal_four(seed, point, draw, std::uint64_t(i / 4), four);
    for (std::int64_t k = 0; k < 4 && i + k < n; ++k) v[i + k] = four[k];
  }
}

}  // namespace LSC_ISA
}  // namespace lsc
