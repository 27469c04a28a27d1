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
//   stops
//                          the kernel with an error after tens of seconds
//   fence()
//   grid_barrier(state)    all threads of a cooperative launch along x wait for each other, and what any wrote before
//   is
//                          seen by all after. The state is zero before its first use; a barrier leaves it ready for the
//                          next, in this launch or another, of any size
#pragma once

#include "cuda/device.h"

namespace lsc::cuda {

#if defined(LSC_EMULATED)

inline void publish(unsigned* flag, unsigned value) {
  emulator::interleave();
  *flag = value;
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

#else

LSC_DEVICE void publish(unsigned* flag, unsigned value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}
LSC_DEVICE unsigned acquire(const unsigned* flag) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}
LSC_DEVICE void await(const unsigned* flag, unsigned value) {
  constexpr unsigned kMostPolls = 1u << 25;
  for (unsigned poll = 0; poll < kMostPolls; ++poll)
    if (int(acquire(flag) - value) >= 0) return;
  __trap();
}
LSC_DEVICE void fence() { asm volatile("fence.sc.gpu;" ::: "memory"); }

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
