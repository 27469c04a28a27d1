// Stacks that take turns on one thread of the host.
#pragma once

#include <ucontext.h>

#include <csetjmp>
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define LSC_FIBERS_UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LSC_FIBERS_UNDER_ASAN 1
#endif
#endif

namespace lsc::emulator {

class Fiber {
 public:
  // The stack of the caller.
  Fiber() = default;
  // A stack of its own above a page that nobody may touch, for as long as the program runs. `body` never returns.
  explicit Fiber(void (*body)());
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Goes on in `to`, or starts it, and returns when someone switches back. `this` is the fiber that runs.
  void switch_to(Fiber& to);

 private:
  static void enter();
  void arrive();

  void (*body_)() = nullptr;
  ucontext_t context_;
#if LSC_FIBERS_UNDER_ASAN
  void* fake_stack_ = nullptr;
  const void* stack_ = nullptr;
  std::size_t stack_bytes_ = 0;
#else
  std::jmp_buf jump_;
  bool started_ = true;
#endif
};

}  // namespace lsc::emulator
