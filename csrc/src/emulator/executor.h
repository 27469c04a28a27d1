// Runs a kernel on the host, one fiber a thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>

#include "cuda/execution.h"

namespace lsc::emulator {

// What a kernel did wrong: the kernel, the block and the thread, and what it is.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The order in which threads take their turns, by this number.
void set_seed(std::uint64_t seed);

void run(const cuda::Launch& shape, const std::function<void()>& kernel);

struct ThreadIndex {
  int thread, threads, block[3], blocks[3];
};
const ThreadIndex& current();

void block_barrier();
bool block_barrier_or(bool p);
void warp_barrier();
void grid_barrier();
// Hands `value` to the other lanes and returns what lane `from` handed over.
std::uint64_t exchange(std::uint64_t value, int from);
unsigned ballot(bool p);
// Hands `count` words to the other lanes; all [32, count] <- those of every lane.
void gather(const std::uint32_t* words, int count, std::uint32_t* all);
// Static shared memory of the block, one piece for each (file, line).
unsigned char* static_shared(const char* file, int line, std::size_t bytes);
unsigned char* dynamic_shared(std::size_t offset);

}  // namespace lsc::emulator
