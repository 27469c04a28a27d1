// A checked longjmp takes a switch to another stack for a mistake.
#undef _FORTIFY_SOURCE

#include "emulator/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

#if LSC_FIBERS_UNDER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace lsc::emulator {
namespace {

constexpr std::size_t kStack = 256 * 1024;

Fiber* target = nullptr;
#if LSC_FIBERS_UNDER_ASAN
Fiber* left = nullptr;
#endif

char* new_stack() {
  const std::size_t page = std::size_t(sysconf(_SC_PAGESIZE));
  void* memory =
      mmap(nullptr, page + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) throw std::bad_alloc();
  return static_cast<char*>(memory) + page;
}

}  // namespace

Fiber::Fiber(void (*body)()) : body_(body) {
  // Stacks that begin at the same place of a page would share few lines of the cache.
  static std::size_t made = 0;
  const std::size_t shift = made++ % 12 * 320;
  char* stack = new_stack();
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack;
  context_.uc_stack.ss_size = kStack - shift;
  context_.uc_link = nullptr;
  makecontext(&context_, &Fiber::enter, 0);
#if LSC_FIBERS_UNDER_ASAN
  stack_ = stack;
  stack_bytes_ = kStack;
  // It would take the stack that it finds here for unused and forget what is on it at every switch.
  context_.uc_stack.ss_sp = nullptr;
  context_.uc_stack.ss_size = 0;
#else
  started_ = false;
#endif
}

void Fiber::enter() {
  Fiber* self = target;
  self->arrive();
  self->body_();
}

#if LSC_FIBERS_UNDER_ASAN

void Fiber::arrive() { __sanitizer_finish_switch_fiber(fake_stack_, &left->stack_, &left->stack_bytes_); }

void Fiber::switch_to(Fiber& to) {
  target = &to;
  left = this;
  __sanitizer_start_switch_fiber(&fake_stack_, to.stack_, to.stack_bytes_);
  swapcontext(&context_, &to.context_);
  arrive();
}

#else

void Fiber::arrive() {}

void Fiber::switch_to(Fiber& to) {
  if (_setjmp(jump_) != 0) return;
  if (to.started_) _longjmp(to.jump_, 1);
  to.started_ = true;
  target = &to;
  setcontext(&to.context_);
}

#endif

}  // namespace lsc::emulator
