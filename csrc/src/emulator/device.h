// The words of cuda/device.h for a host compiler.
#pragma once

#include <cstring>

#include "emulator/executor.h"

#define LSC_KERNEL inline void
#define LSC_DEVICE inline

namespace lsc::cuda {

template <class T>
class Shared {
 public:
  Shared() : data_(nullptr) {}
  explicit Shared(T* data) : data_(data) {}

  class Reference {
   public:
    explicit Reference(T* at) : at_(at) {}
    operator T() const { return *at_; }
    const Reference& operator=(const T& value) const {
      *at_ = value;
      return *this;
    }
    const Reference& operator=(const Reference& other) const { return *this = T(other); }
    const Reference& operator+=(const T& value) const { return *this = T(*this) + value; }

   private:
    T* at_;
  };

  Reference operator[](std::ptrdiff_t i) const { return Reference(data_ + i); }
  Shared operator+(std::ptrdiff_t offset) const { return Shared(data_ + offset); }

 private:
  template <int Bytes, class U>
  friend void copy_async(Shared<U> to, const U* from);
  T* data_;
};

#define LSC_SHARED(T, name, count)   \
  const ::lsc::cuda::Shared<T> name( \
      reinterpret_cast<T*>(::lsc::emulator::static_shared(__FILE__, __LINE__, std::size_t(count) * sizeof(T))))

template <class T>
Shared<T> dynamic_shared(std::size_t bytes) {
  return Shared<T>(reinterpret_cast<T*>(emulator::dynamic_shared(bytes)));
}

inline int thread() { return emulator::current().thread; }
inline int threads() { return emulator::current().threads; }
inline int lane() { return thread() % 32; }
inline int warp() { return thread() / 32; }
inline int block() { return emulator::current().block[0]; }
inline int block_y() { return emulator::current().block[1]; }
inline int block_z() { return emulator::current().block[2]; }
inline int blocks() { return emulator::current().blocks[0]; }

inline void barrier() { emulator::block_barrier(); }
inline bool barrier_or(bool p) { return emulator::block_barrier_or(p); }
inline void warp_barrier() { emulator::warp_barrier(); }

template <class T>
T shuffle(T value, int from) {
  static_assert(sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = emulator::exchange(bits, from);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
template <class T>
T shuffle_xor(T value, int mask) {
  return shuffle(value, lane() ^ mask);
}
inline unsigned ballot(bool p) { return emulator::ballot(p); }

inline int atomic_add(int* p, int value) {
  const int before = *p;
  *p += value;
  return before;
}
inline unsigned long long atomic_add(unsigned long long* p, unsigned long long value) {
  const unsigned long long before = *p;
  *p += value;
  return before;
}

template <int Bytes, class T>
void copy_async(Shared<T> to, const T* from) {
  std::memcpy(to.data_, from, Bytes);
}
inline void commit_copies() {}
template <int N>
void wait_copies() {}

}  // namespace lsc::cuda
