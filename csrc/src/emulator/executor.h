// Runs a kernel on the host, one fiber a thread, and says what is wrong with it. Several blocks are under way at once,
// all of them in a cooperative launch; which thread goes on where several can is drawn.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

#include "cuda/execution.h"
#include "emulator/shared_memory.h"

namespace lsc::emulator {

// What a kernel did wrong: the kernel, the block and the thread, and what it is.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The order in which threads take their turns, by this number.
void set_seed(std::uint64_t seed);

// What goes wrong from here on: threads of block `stalled` along x go on only where hardly another can, and number
// `lost` of what kernels publish, counted from 0, is not written. -1 is none.
struct Mishaps {
  int stalled = -1;
  std::int64_t lost = -1;
};
void set_mishaps(const Mishaps& mishaps);
// Asked once before each publication.
bool is_lost();

// Throws Fault, or what a kernel throws; the next launch starts clean.
void run(const cuda::Launch& shape, const std::function<void()>& kernel);

struct ThreadIndex {
  int thread, threads, block[3], blocks[3];
};

// The thread whose turn it is. `clock` counts the barriers and operations that its warp took part in.
struct Turn {
  ThreadIndex index;
  SharedMemory* shared;
  const std::uint64_t* clock;

  Moment now() const { return {*clock, std::uint64_t(index.thread)}; }
};
extern Turn* turn;
inline const ThreadIndex& current() { return turn->index; }

// A fault of the thread whose turn it is.
[[noreturn]] void fault(const std::string& what);

// A line of the source.
struct Place {
  const char* file;
  int line;
  static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

void block_barrier(Place place = Place::here());
bool block_barrier_or(bool p, Place place = Place::here());
void warp_barrier(Place place = Place::here());
// Hands `bytes` bytes of `value` to the other lanes and returns what lane `from` (modulo 32) handed over.
std::uint64_t exchange(std::uint64_t value, int from, int bytes = 8, Place place = Place::here());
unsigned ballot(bool p, Place place = Place::here());
// Hands `count` words to the other lanes; all [32, count] <- those of every lane, zeros of lanes that do not exist.
void gather(const std::uint32_t* words, int count, std::uint32_t* all, Place place = Place::here());

// What is between the two is the grid barrier: it needs a cooperative launch along x, and whoever waits there is said
// to wait at the grid barrier of `place`.
void begin_grid_barrier(Place place);
void end_grid_barrier();

// Lets others have a turn, now and then: before an operation on memory whose order among threads matters.
void interleave();

// One more turn of a thread that waits for what others write, and the end of its waiting. A launch in which all that
// still happens is waiting is a deadlock.
void spin(Place place);
void stop_spinning();

// Copies from global into shared memory by the thread: begun, counted, landed but for the last `remaining` commits.
void begin_copy(const View& to, const void* from, int bytes, std::size_t element);
void commit_copies();
void wait_copies(int remaining);

// The block's memory for an array of its kernel, and a place in it by the array's name.
View static_shared(StaticArray& array);
// The dynamic shared memory from byte `offset` on; with a count, only so many elements of it.
View dynamic_shared(std::size_t offset, std::size_t element, std::size_t alignment, std::ptrdiff_t count);
std::string shared_name(std::uint32_t at);
[[noreturn]] void out_of_bounds(const View& view, std::ptrdiff_t i, std::size_t element);

}  // namespace lsc::emulator
