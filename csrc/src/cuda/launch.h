// Launches of kernels on a stream. Included by .cu files alone.
#pragma once

#include <tuple>
#include <utility>

#include "cuda/device.h"
#include "cuda/execution.h"

namespace lsc::cuda {

void count_launch();

#if defined(LSC_EMULATED)

template <class... P, class... A>
void launch(const Execution&, const Launch& shape, void (*kernel)(P...), A&&... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  const std::tuple<P...> held(std::forward<A>(arguments)...);
  count_launch();
  emulator::run(shape, [&] { std::apply(kernel, held); });
}

#else

// Throws std::runtime_error with the kernel's name and what CUDA says.
void launch_memory(const Execution& execution, const Launch& shape, const void* kernel, void** arguments);

template <class... P, class... A>
void launch(const Execution& execution, const Launch& shape, void (*kernel)(P...), A&&... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  std::tuple<P...> held(std::forward<A>(arguments)...);
  std::apply(
      [&](P&... each) {
        void* addresses[] = {static_cast<void*>(&each)..., nullptr};
        launch_memory(execution, shape, reinterpret_cast<const void*>(kernel), addresses);
      },
      held);
}

#endif

#if defined(LSC_EMULATED)

template <class... P>
std::size_t most_shared_bytes(int, void (*)(P...)) {
  return emulator::SharedMemory::kMost - emulator::SharedMemory::kMostStatic;
}
template <class... P>
Index resident_blocks(int, void (*)(P...), int, std::size_t) {
  return 8;
}

#else

std::size_t most_shared_bytes_of(int device, const void* kernel);
Index resident_blocks_of(int device, const void* kernel, int threads, std::size_t shared_bytes);

// Dynamic shared memory that a block of a kernel can have on a device.
template <class... P>
std::size_t most_shared_bytes(int device, void (*kernel)(P...)) {
  return most_shared_bytes_of(device, reinterpret_cast<const void*>(kernel));
}
// Blocks that are on the device at once, as many as a cooperative launch may have.
template <class... P>
Index resident_blocks(int device, void (*kernel)(P...), int threads, std::size_t shared_bytes) {
  return resident_blocks_of(device, reinterpret_cast<const void*>(kernel), threads, shared_bytes);
}

#endif

// Blocks of `size` that cover `count`.
inline Index covering(Index count, Index size) { return (count + size - 1) / size; }

}  // namespace lsc::cuda
