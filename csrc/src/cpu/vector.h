// Vectors of the instruction set that this unit is compiled for, as GCC and Clang extend the language.
#pragma once

#include <cstdint>
#include <type_traits>

#include "algorithms/backend.h"

namespace lsc {
inline namespace LSC_ISA {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64, kTileRows = 12, kTileVectors = 2;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32, kTileRows = 6, kTileVectors = 2;
#elif defined(__ARM_NEON)
inline constexpr int kVectorBytes = 16, kTileRows = 8, kTileVectors = 3;
#else
inline constexpr int kVectorBytes = 16, kTileRows = 4, kTileVectors = 2;
#endif

template <class T>
struct VectorOf {
  // Unaligned and free to alias its elements.
  typedef T type __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
  // The bit patterns of as many elements.
  using Word = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  typedef Word Bits __attribute__((vector_size(kVectorBytes)));
  static constexpr int kLanes = kVectorBytes / int(sizeof(T));
};

template <class T>
inline typename VectorOf<T>::type load(const T* p) {
  return *reinterpret_cast<const typename VectorOf<T>::type*>(p);
}

// The first `count` elements, then zeros.
template <class T>
inline typename VectorOf<T>::type load_first(const T* p, Index count) {
  T padded[VectorOf<T>::kLanes] = {};
  for (Index i = 0; i < count; ++i) padded[i] = p[i];
  return load(padded);
}

template <class T>
inline void store(T* p, typename VectorOf<T>::type v) {
  *reinterpret_cast<typename VectorOf<T>::type*>(p) = v;
}

template <class T>
inline void store_first(T* p, typename VectorOf<T>::type v, Index count) {
  for (Index i = 0; i < count; ++i) p[i] = v[i];
}

}  // namespace LSC_ISA
}  // namespace lsc
