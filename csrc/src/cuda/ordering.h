// The one place whose code depends on the order in which memory is seen. What a thread wrote before publish() is seen
// by whoever saw that flag by await() or acquire(); with a barrier() before the one and after the other, by all threads
// of the two blocks of what all threads of the first wrote. fence() orders what a thread wrote before it and what it
// reads after it, among all threads that fence.
//
// The emulator runs one thread at a time, each in the order of its program: it finds who waits for what never comes,
// but never a guarantee that is missing. Only a GPU can, by cuda/litmus.h.
//
//   publish(flag, value)   flags count up, modulo 2^32, and are waited for less than 2^31 ahead
//   acquire(flag)          what the flag is now; never waited with
//   await(flag, value)     returns when the flag has come to the value or passed it. On a device, who waits in vain
//                          stops the kernel with an error after tens of seconds
//   fence()
//   grid_barrier(state)    all threads of a cooperative launch along x wait for each other, and what any wrote before
//                          is seen by all after. The state is zero before its first use; a barrier leaves it ready for
//                          the next, in this launch or another, of any size
//
// Numbers that are their own flags, and order nothing else: one read from memory that other blocks write is either
// absent or there.
//
//   absent<T>()            what such memory holds before: a NaN of all ones, which is never written as a result
//   publish_number(p, x)   x, or another NaN for the absent one
//   peek(p)                what is there now
//   await_number(p, x)     x, what peek(p) was, or where that is absent what comes; who waits in vain, as by await()
#pragma once

#include <cstring>
#include <type_traits>

#include "cuda/device.h"

namespace lsc::cuda {

template <class T>
using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

template <class T>
LSC_DEVICE Bits<T> bits_of(T number) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
  Bits<T> bits;
  memcpy(&bits, &number, sizeof(T));
  return bits;
}
template <class T>
LSC_DEVICE T of_bits(Bits<T> bits) {
  T number;
  memcpy(&number, &bits, sizeof(T));
  return number;
}
template <class T>
LSC_DEVICE T absent() {
  return of_bits<T>(~Bits<T>(0));
}
template <class T>
LSC_DEVICE bool is_absent(T number) {
  return bits_of(number) == ~Bits<T>(0);
}
// The same NaN without its sign where the number is the absent one.
template <class T>
LSC_DEVICE T presentable(T number) {
  return is_absent(number) ? of_bits<T>(~Bits<T>(0) >> 1) : number;
}

#if defined(LSC_EMULATED)

inline void publish(unsigned* flag, unsigned value) {
  emulator::interleave();
  if (!emulator::is_lost()) *flag = value;
}
inline unsigned acquire(const unsigned* flag) {
  emulator::interleave();
  return *flag;
}
inline void await(const unsigned* flag, unsigned value, emulator::Place place = emulator::Place::here()) {
  emulator::interleave();
  while (int(*flag - value) < 0) emulator::spin(place);
  emulator::stop_spinning();
}
inline void fence() { emulator::interleave(); }

template <class T>
void publish_number(T* at, T number) {
  emulator::interleave();
  if (!emulator::is_lost()) *at = presentable(number);
}
template <class T>
T peek(const T* at) {
  return *at;
}
template <class T>
T await_number(const T* at, T seen, emulator::Place place = emulator::Place::here()) {
  if (!is_absent(seen)) return seen;
  while (is_absent(*at)) emulator::spin(place);
  emulator::stop_spinning();
  return *at;
}

#else

LSC_DEVICE void publish(unsigned* flag, unsigned value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}
LSC_DEVICE unsigned acquire(const unsigned* flag) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}
inline constexpr unsigned kMostPolls = 1u << 25;
LSC_DEVICE void await(const unsigned* flag, unsigned value) {
  for (unsigned poll = 0; poll < kMostPolls; ++poll)
    if (int(acquire(flag) - value) >= 0) return;
  __trap();
}
LSC_DEVICE void fence() { asm volatile("fence.sc.gpu;" ::: "memory"); }

LSC_DEVICE void store_bits(std::uint32_t* at, std::uint32_t bits) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(at), "r"(bits) : "memory");
}
LSC_DEVICE void store_bits(std::uint64_t* at, std::uint64_t bits) {
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(at), "l"(bits) : "memory");
}
LSC_DEVICE std::uint32_t load_bits(const std::uint32_t* at) {
  std::uint32_t bits;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(bits) : "l"(at) : "memory");
  return bits;
}
LSC_DEVICE std::uint64_t load_bits(const std::uint64_t* at) {
  std::uint64_t bits;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(bits) : "l"(at) : "memory");
  return bits;
}
template <class T>
LSC_DEVICE void publish_number(T* at, T number) {
  store_bits(reinterpret_cast<Bits<T>*>(at), bits_of(presentable(number)));
}
template <class T>
LSC_DEVICE T peek(const T* at) {
  return of_bits<T>(load_bits(reinterpret_cast<const Bits<T>*>(at)));
}
template <class T>
LSC_DEVICE T await_number(const T* at, T seen) {
  for (unsigned poll = 0; is_absent(seen); ++poll) {
    if (poll == kMostPolls) __trap();
    seen = peek(at);
  }
  return seen;
}

#endif

struct GridBarrier {
  unsigned arrived, epoch;
};

// The last block to arrive begins the next epoch, for which the others wait.
LSC_DEVICE void meet(GridBarrier* state) {
  barrier();
  if (thread() == 0) {
    const unsigned epoch = acquire(&state->epoch);
    fence();
    if (atomic_add(&state->arrived, 1u) == unsigned(blocks()) - 1) {
      fence();
      state->arrived = 0;
      publish(&state->epoch, epoch + 1);
    } else {
      await(&state->epoch, epoch + 1);
    }
  }
  barrier();
}

#if defined(LSC_EMULATED)

inline void grid_barrier(GridBarrier* state, emulator::Place place = emulator::Place::here()) {
  emulator::begin_grid_barrier(place);
  if (state->arrived >= unsigned(blocks())) emulator::fault("grid barrier: expected a state that was zero once");
  meet(state);
  emulator::end_grid_barrier();
}

#else

LSC_DEVICE void grid_barrier(GridBarrier* state) { meet(state); }

#endif

}  // namespace lsc::cuda
