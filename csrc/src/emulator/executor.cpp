#include "emulator/executor.h"

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace lsc::emulator {
namespace {

constexpr std::size_t kStack = 256 * 1024;
constexpr int kWarp = 32;

enum class Wait { none, warp, block, grid, finished };

struct Block;

struct Fiber {
  ucontext_t context;
  ThreadIndex index;
  Block* block;
  Wait wait = Wait::none;
  std::uint64_t handed = 0;
  std::vector<std::uint32_t> words;
  bool predicate = false;
};

struct Block {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::map<std::pair<std::string, int>, std::vector<unsigned char>> shared;
  std::vector<unsigned char> dynamic;
  std::vector<std::uint64_t> handed;  // of all threads at their last warp operation
  std::vector<std::vector<std::uint32_t>> words;
  bool any = false;
};

struct State {
  const cuda::Launch* shape = nullptr;
  const std::function<void()>* kernel = nullptr;
  Fiber* running = nullptr;
  ucontext_t scheduler;
  std::exception_ptr failure;
  std::vector<std::unique_ptr<char[]>> stacks;
};

State state;
std::mt19937_64 order(0);

void body() {
  try {
    (*state.kernel)();
  } catch (...) {
    if (!state.failure) state.failure = std::current_exception();
  }
  state.running->wait = Wait::finished;
  swapcontext(&state.running->context, &state.scheduler);
}

void pause(Wait wait) {
  Fiber* self = state.running;
  self->wait = wait;
  swapcontext(&self->context, &state.scheduler);
}

// Lets those go on whose company is complete.
bool release(std::vector<std::unique_ptr<Block>>& blocks) {
  bool any = false, grid = true;
  for (auto& block : blocks) {
    bool all = true;
    const std::size_t count = block->fibers.size();
    for (std::size_t w = 0; w < count; w += kWarp) {
      const std::size_t end = std::min(count, w + kWarp);
      bool ready = true, some = false;
      for (std::size_t i = w; i < end; ++i) {
        ready = ready && block->fibers[i]->wait == Wait::warp;
        some = some || block->fibers[i]->wait == Wait::warp;
      }
      if (!ready || !some) continue;
      for (std::size_t i = w; i < end; ++i) {
        block->handed[i] = block->fibers[i]->handed;
        block->words[i] = block->fibers[i]->words;
        block->fibers[i]->wait = Wait::none;
      }
      any = true;
    }
    bool at_barrier = false, predicate = false;
    for (auto& fiber : block->fibers) {
      if (fiber->wait == Wait::block) {
        at_barrier = true;
        predicate = predicate || fiber->predicate;
      } else if (fiber->wait != Wait::finished) {
        all = false;
      }
      if (fiber->wait != Wait::grid) grid = false;
    }
    if (all && at_barrier) {
      block->any = predicate;
      for (auto& fiber : block->fibers)
        if (fiber->wait == Wait::block) fiber->wait = Wait::none;
      any = true;
    }
  }
  if (grid)
    for (auto& block : blocks)
      for (auto& fiber : block->fibers) {
        fiber->wait = Wait::none;
        any = true;
      }
  return any;
}

void run_blocks(std::vector<std::unique_ptr<Block>>& blocks) {
  std::vector<Fiber*> all;
  std::size_t stack = 0;
  for (auto& block : blocks)
    for (auto& fiber : block->fibers) {
      if (stack == state.stacks.size()) state.stacks.emplace_back(new char[kStack]);
      getcontext(&fiber->context);
      fiber->context.uc_stack.ss_sp = state.stacks[stack++].get();
      fiber->context.uc_stack.ss_size = kStack;
      fiber->context.uc_link = nullptr;
      makecontext(&fiber->context, body, 0);
      all.push_back(fiber.get());
    }
  for (;;) {
    std::shuffle(all.begin(), all.end(), order);
    bool progress = false, finished = true;
    for (Fiber* fiber : all) {
      if (fiber->wait != Wait::none) continue;
      state.running = fiber;
      swapcontext(&state.scheduler, &fiber->context);
      state.running = nullptr;
      progress = true;
      if (state.failure) std::rethrow_exception(std::exchange(state.failure, nullptr));
    }
    for (Fiber* fiber : all) finished = finished && fiber->wait == Wait::finished;
    if (finished) return;
    if (!release(blocks) && !progress) throw Fault(std::string(state.shape->name) + ": deadlock");
  }
}

}  // namespace

void set_seed(std::uint64_t seed) { order.seed(seed); }

void run(const cuda::Launch& shape, const std::function<void()>& kernel) {
  state.shape = &shape;
  state.kernel = &kernel;
  std::vector<std::array<int, 3>> places;
  for (int z = 0; z < int(shape.grid.z); ++z)
    for (int y = 0; y < int(shape.grid.y); ++y)
      for (int x = 0; x < int(shape.grid.x); ++x) places.push_back({x, y, z});
  std::shuffle(places.begin(), places.end(), order);
  std::vector<std::unique_ptr<Block>> together;
  for (std::size_t p = 0; p < places.size(); ++p) {
    auto block = std::make_unique<Block>();
    block->dynamic.resize(shape.shared_bytes + 64);
    block->handed.resize(std::size_t(shape.threads));
    block->words.resize(std::size_t(shape.threads));
    for (int t = 0; t < shape.threads; ++t) {
      auto fiber = std::make_unique<Fiber>();
      fiber->block = block.get();
      fiber->index = {t,
                      shape.threads,
                      {places[p][0], places[p][1], places[p][2]},
                      {int(shape.grid.x), int(shape.grid.y), int(shape.grid.z)}};
      block->fibers.push_back(std::move(fiber));
    }
    together.push_back(std::move(block));
    if (shape.cooperative && p + 1 < places.size()) continue;
    run_blocks(together);
    together.clear();
  }
}

const ThreadIndex& current() { return state.running->index; }
void block_barrier() {
  state.running->predicate = false;
  pause(Wait::block);
}
bool block_barrier_or(bool p) {
  state.running->predicate = p;
  pause(Wait::block);
  return state.running->block->any;
}
void warp_barrier() { pause(Wait::warp); }
void grid_barrier() { pause(Wait::grid); }

std::uint64_t exchange(std::uint64_t value, int from) {
  state.running->handed = value;
  pause(Wait::warp);
  const Fiber* self = state.running;
  return self->block->handed[std::size_t(self->index.thread / kWarp * kWarp + from % kWarp)];
}

unsigned ballot(bool p) {
  state.running->handed = p;
  pause(Wait::warp);
  const Fiber* self = state.running;
  const std::size_t first = std::size_t(self->index.thread / kWarp * kWarp);
  unsigned bits = 0;
  for (std::size_t i = first; i < self->block->handed.size() && i < first + kWarp; ++i)
    bits |= unsigned(self->block->handed[i]) << (i - first);
  return bits;
}

void gather(const std::uint32_t* words, int count, std::uint32_t* all) {
  state.running->words.assign(words, words + count);
  pause(Wait::warp);
  const Fiber* self = state.running;
  const std::size_t first = std::size_t(self->index.thread / kWarp * kWarp);
  for (std::size_t i = 0; i < kWarp && first + i < self->block->words.size(); ++i)
    std::copy_n(self->block->words[first + i].begin(), count, all + i * std::size_t(count));
}

unsigned char* static_shared(const char* file, int line, std::size_t bytes) {
  auto& memory = state.running->block->shared[{file, line}];
  if (memory.empty()) memory.resize(bytes + 64);
  return memory.data();
}

unsigned char* dynamic_shared(std::size_t offset) { return state.running->block->dynamic.data() + offset; }

}  // namespace lsc::emulator
