// The words of cuda/device.h for a host compiler.
#pragma once

#include <cstring>
#include <type_traits>

#include "emulator/executor.h"

#define LSC_KERNEL inline void
#define LSC_ARGUMENT const
#define LSC_DEVICE inline

namespace lsc::cuda {

// A view of nothing, or of an array of the block: it reaches no other, and every access is checked.
template <class T>
class Shared {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Shared() = default;
  explicit Shared(const emulator::View& view) : view_(view) {}

  class Reference {
   public:
    explicit Reference(std::uint32_t at) : at_(at) {}
    operator T() const {
      return *static_cast<const T*>(emulator::turn->shared->read<sizeof(T)>(at_, emulator::turn->now()));
    }
    const Reference& operator=(const T& value) const {
      *static_cast<T*>(emulator::turn->shared->write<sizeof(T)>(at_, emulator::turn->now())) = value;
      return *this;
    }
    const Reference& operator=(const Reference& other) const { return *this = T(other); }
    const Reference& operator+=(const T& value) const { return *this = T(*this) + value; }
    const Reference& operator-=(const T& value) const { return *this = T(*this) - value; }
    const Reference& operator*=(const T& value) const { return *this = T(*this) * value; }
    const Reference& operator/=(const T& value) const { return *this = T(*this) / value; }

   private:
    std::uint32_t at_;
  };

  Reference operator[](std::ptrdiff_t i) const {
    const std::int64_t at = view_.at + i * std::int64_t(sizeof(T));
    if (at < view_.begin || at + std::int64_t(sizeof(T)) > view_.end) emulator::out_of_bounds(view_, i, sizeof(T));
    return Reference(std::uint32_t(at));
  }
  Shared operator+(std::ptrdiff_t offset) const {
    emulator::View moved = view_;
    moved.at += offset * std::ptrdiff_t(sizeof(T));
    return Shared(moved);
  }

 private:
  template <int Bytes, class U>
  friend void copy_async(Shared<U> to, const U* from);
  emulator::View view_;
};

#define LSC_SHARED(T, name, count)                                                                             \
  static ::lsc::emulator::StaticArray name##_array = {#name, std::size_t(count) * sizeof(T), sizeof(T), 0, 0}; \
  const ::lsc::cuda::Shared<T> name(::lsc::emulator::static_shared(name##_array))

template <class T>
Shared<T> dynamic_shared(std::size_t bytes, std::ptrdiff_t count = -1) {
  return Shared<T>(emulator::dynamic_shared(bytes, sizeof(T), alignof(T), count));
}

inline int thread() { return emulator::current().thread; }
inline int threads() { return emulator::current().threads; }
inline int lane() { return thread() % 32; }
inline int warp() { return thread() / 32; }
inline int block() { return emulator::current().block[0]; }
inline int block_y() { return emulator::current().block[1]; }
inline int block_z() { return emulator::current().block[2]; }
inline int blocks() { return emulator::current().blocks[0]; }

inline void barrier(emulator::Place place = emulator::Place::here()) { emulator::block_barrier(place); }
inline bool barrier_or(bool p, emulator::Place place = emulator::Place::here()) {
  return emulator::block_barrier_or(p, place);
}
inline void warp_barrier(emulator::Place place = emulator::Place::here()) { emulator::warp_barrier(place); }

template <class T>
T shuffle(T value, int from, emulator::Place place = emulator::Place::here()) {
  static_assert(sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = emulator::exchange(bits, from, int(sizeof(T)), place);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
template <class T>
T shuffle_xor(T value, int mask, emulator::Place place = emulator::Place::here()) {
  return shuffle(value, lane() ^ mask, place);
}
inline unsigned ballot(bool p, emulator::Place place = emulator::Place::here()) { return emulator::ballot(p, place); }

inline int atomic_add(int* p, int value) {
  emulator::interleave();
  const int before = *p;
  *p = int(unsigned(before) + unsigned(value));
  return before;
}
inline unsigned atomic_add(unsigned* p, unsigned value) {
  emulator::interleave();
  const unsigned before = *p;
  *p += value;
  return before;
}
inline unsigned long long atomic_add(unsigned long long* p, unsigned long long value) {
  emulator::interleave();
  const unsigned long long before = *p;
  *p += value;
  return before;
}

template <int Bytes, class T>
void copy_async(Shared<T> to, const T* from) {
  emulator::begin_copy(to.view_, from, Bytes, sizeof(T));
}
inline void commit_copies() { emulator::commit_copies(); }
template <int N>
void wait_copies() {
  emulator::wait_copies(N);
}

}  // namespace lsc::cuda
