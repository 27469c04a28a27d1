// Launches of kernels on a stream. Included by .cu files alone.
#pragma once

#include <tuple>
#include <utility>

#include "cuda/device.h"
#include "cuda/execution.h"

namespace lsc::cuda {

#if defined(LSC_EMULATED)

template <class... P, class... A>
void launch(const Execution&, const Launch& shape, void (*kernel)(P...), A&&... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  const std::tuple<P...> held(std::forward<A>(arguments)...);
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

// Blocks of `size` that cover `count`.
inline Index covering(Index count, Index size) { return (count + size - 1) / size; }

}  // namespace lsc::cuda
