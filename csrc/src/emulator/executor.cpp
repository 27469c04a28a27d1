#include "emulator/executor.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "emulator/fiber.h"

namespace lsc::emulator {

Turn* turn = nullptr;

namespace {

constexpr int kWarp = 32;
constexpr int kMostThreads = 1024;
constexpr Index kMostBlocks = 2147483647, kMostBlocksAcross = 65535;
constexpr std::size_t kStaticAlignment = 16;

// A fiber whose launch is over is sent home with this.
struct Cancelled {};

enum class Wait { no, warp, block, spin, finished };

struct Copy {
  View to;
  const void* from;
  int bytes, commit;
  unsigned char held[16];
};

struct Warp;
struct Block;

struct Thread : Turn {
  Block* block;
  Warp* warp;
  Fiber* fiber = nullptr;  // null before it began and after it ended
  Wait wait;
  Place place;
  bool in_grid_barrier;
  Place grid_barrier;
  int commits;
  std::vector<Copy> copies;
};

// What lanes hand over: one side is filled while the other is read.
struct Exchange {
  std::uint64_t values[kWarp];
  unsigned bits;
  std::vector<std::uint32_t> words;
};

enum class Operation { barrier, shuffle, ballot, gather };

struct Warp {
  int first, lanes;
  std::uint64_t clock;
  int arrived;
  Operation operation;
  int size;
  Exchange sides[2];
  int filling = 0;

  Exchange& read() { return sides[filling ^ 1]; }
};

struct Block {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  SharedMemory shared;
  std::uint64_t clock = 0;  // no warp's was larger when the block ended
  int count, unfinished;
  int arrived;
  bool with_predicate, any, result;
  Thread* first_arrived;
};

std::string text(const int* at) {
  return "(" + std::to_string(at[0]) + ", " + std::to_string(at[1]) + ", " + std::to_string(at[2]) + ")";
}

std::string text(const Place& place) {
  const char* name = std::strrchr(place.file, '/');
  return std::string(name ? name + 1 : place.file) + ":" + std::to_string(place.line);
}

// A splitmix64 sequence.
class Draw {
 public:
  void seed(std::uint64_t seed) { state_ = seed; }
  // Below `count`, 1 <= count < 2^32.
  std::size_t below(std::size_t count) {
    state_ += 0x9e3779b97f4a7c15u;
    std::uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return std::size_t(((x ^ (x >> 31)) >> 32) * count >> 32);
  }

 private:
  std::uint64_t state_ = 0;
};

class Executor {
 public:
  std::mutex one_launch;
  Draw draw;
  std::uint64_t seed = 0;
  Mishaps mishaps;
  std::int64_t published = 0;

  void run(const cuda::Launch& shape, const std::function<void()>& kernel);

  Thread& self() const { return *static_cast<Thread*>(turn); }
  const cuda::Launch& shape() const { return *shape_; }
  std::uint64_t launches() const { return launches_; }
  std::string where(const int* block) const;

  void arrive_at_warp(Operation operation, int size, Place place);
  bool arrive_at_block(bool with_predicate, bool p, Place place);
  void interleave();
  void spin(Place place);
  void stop_spinning() { idle_ = 0; }
  std::uint32_t place_array(StaticArray& array);
  const StaticArray* array_at(std::uint32_t at) const;

 private:
  static void work();
  void check(const cuda::Launch& shape) const;
  void begin_block(Block& block);
  void run_thread();
  void make_ready(Thread& thread);
  void release(Thread* threads, int count);
  Thread* pick();
  void pause();
  void go_to(Fiber& from, Thread& thread);
  void cancel();
  std::string what_is_stuck() const;

  const cuda::Launch* shape_ = nullptr;
  const std::function<void()>* kernel_ = nullptr;
  std::uint64_t launches_ = 0;
  std::vector<std::uint32_t> order_;  // of the blocks; those from next_ on have not begun
  std::size_t next_ = 0;
  std::vector<std::unique_ptr<Block>> pool_;
  std::size_t resident_ = 0;
  std::vector<Thread*> ready_;
  std::size_t window_ = 1;  // who goes on is drawn from so many that were ready last
  std::deque<Thread*> spinning_;
  std::size_t idle_ = 0;  // turns of spinning threads since anything else happened
  std::vector<StaticArray*> arrays_;
  std::size_t static_bytes_ = 0;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_fibers_;
  Fiber launcher_;
  std::exception_ptr failure_;
  bool cancelling_ = false;
};

// Never destroyed: fibers stay where they wait as the program ends.
Executor& executor = *new Executor;

std::string Executor::where(const int* block) const {
  return std::string("kernel ") + shape_->name + ", block " + text(block);
}

void Executor::check(const cuda::Launch& shape) const {
  const auto wrong = [&](const std::string& what) { throw Fault(std::string("kernel ") + shape.name + ": " + what); };
  const auto within = [&](const char* name, Index value, Index most) {
    if (value < 1 || value > most)
      wrong(std::string(name) + ": expected 1 to " + std::to_string(most) + ", got " + std::to_string(value));
  };
  within("threads", shape.threads, kMostThreads);
  within("grid x", shape.grid.x, kMostBlocks);
  within("grid y", shape.grid.y, kMostBlocksAcross);
  within("grid z", shape.grid.z, kMostBlocksAcross);
  if (shape.shared_bytes > SharedMemory::kMost)
    wrong("dynamic shared memory: expected at most " + std::to_string(SharedMemory::kMost) + " bytes, got " +
          std::to_string(shape.shared_bytes));
}

void Executor::run(const cuda::Launch& shape, const std::function<void()>& kernel) {
  check(shape);
  shape_ = &shape;
  kernel_ = &kernel;
  ++launches_;
  arrays_.clear();
  static_bytes_ = 0;
  ready_.clear();
  spinning_.clear();
  idle_ = 0;

  order_.resize(std::size_t(shape.grid.x * shape.grid.y * shape.grid.z));
  for (std::size_t i = 0; i < order_.size(); ++i) {
    const std::size_t j = draw.below(i + 1);
    order_[i] = order_[j];
    order_[j] = std::uint32_t(i);
  }
  next_ = 0;
  constexpr std::size_t kMostResident = 4, kWindows[] = {1, 8, std::size_t(1) << 31};
  resident_ = std::min(order_.size(), shape.cooperative ? order_.size() : 1 + draw.below(kMostResident));
  window_ = kWindows[draw.below(3)];
  while (pool_.size() < resident_) pool_.push_back(std::make_unique<Block>());
  for (std::size_t b = 0; b < resident_; ++b) begin_block(*pool_[b]);

  if (Thread* thread = pick()) go_to(launcher_, *thread);
  turn = nullptr;
  const std::string stuck = failure_ ? "" : what_is_stuck();
  if (!failure_ && stuck.empty()) return;
  cancel();
  pool_.clear();
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  throw Fault(stuck);
}

// The next block of the order takes the place of one that is over.
void Executor::begin_block(Block& block) {
  const std::size_t at = order_[next_++], X = std::size_t(shape_->grid.x), Y = std::size_t(shape_->grid.y);
  const int count = shape_->threads, warps = (count + kWarp - 1) / kWarp;
  const std::uint64_t clock = block.clock + 1;
  if (block.threads.size() < std::size_t(count)) block.threads.resize(std::size_t(count));
  if (block.warps.size() < std::size_t(warps)) block.warps.resize(std::size_t(warps));
  block.shared.begin(shape_->shared_bytes, clock);
  block.clock = clock;
  block.count = block.unfinished = count;
  block.arrived = 0;
  for (int w = 0; w < warps; ++w) {
    Warp& warp = block.warps[std::size_t(w)];
    warp.first = w * kWarp;
    warp.lanes = std::min(kWarp, count - warp.first);
    warp.clock = clock;
    warp.arrived = 0;
    warp.sides[0].bits = warp.sides[1].bits = 0;
  }
  const ThreadIndex index = {0,
                             count,
                             {int(at % X), int(at / X % Y), int(at / X / Y)},
                             {int(shape_->grid.x), int(shape_->grid.y), int(shape_->grid.z)}};
  for (int t = 0; t < count; ++t) {
    Thread& thread = block.threads[std::size_t(t)];
    thread.index = index;
    thread.index.thread = t;
    thread.shared = &block.shared;
    thread.block = &block;
    thread.warp = &block.warps[std::size_t(t / kWarp)];
    thread.clock = &thread.warp->clock;
    thread.in_grid_barrier = false;
    thread.commits = 0;
    thread.copies.clear();
    make_ready(thread);
  }
  // Most of them are drawn from the end of the list.
  for (std::size_t i = 1; i < std::size_t(count); ++i)
    std::swap(ready_[ready_.size() - 1 - i], ready_[ready_.size() - 1 - draw.below(i + 1)]);
}

void Executor::make_ready(Thread& thread) {
  thread.wait = Wait::no;
  ready_.push_back(&thread);
}

// The thread to go on with, null where none can: all have finished or wait for ever.
Thread* Executor::pick() {
  constexpr std::size_t kSpinners = 8;
  if (!spinning_.empty() && (ready_.empty() || draw.below(kSpinners) == 0)) {
    if (ready_.empty() && idle_ >= spinning_.size()) return nullptr;
    Thread* thread = spinning_.front();
    spinning_.pop_front();
    ++idle_;
    return thread;
  }
  if (ready_.empty()) return nullptr;
  const std::size_t last = ready_.size() - 1;
  std::size_t drawn = window_ == 1 ? last : last - draw.below(std::min(window_, last + 1));
  const auto stalled = [&](std::size_t i) { return ready_[i]->index.block[0] == mishaps.stalled; };
  constexpr std::size_t kHardly = 256;
  if (mishaps.stalled >= 0 && stalled(drawn) && draw.below(kHardly) != 0) {
    std::size_t other = last + 1;
    while (other > 0 && stalled(other - 1)) --other;
    if (other > 0) drawn = other - 1;
  }
  std::swap(ready_[drawn], ready_[last]);
  Thread* thread = ready_.back();
  ready_.pop_back();
  idle_ = 0;
  return thread;
}

void Executor::go_to(Fiber& from, Thread& thread) {
  turn = &thread;
  if (!thread.fiber) {
    if (idle_fibers_.empty()) {
      fibers_.push_back(std::make_unique<Fiber>(&Executor::work));
      idle_fibers_.push_back(fibers_.back().get());
    }
    thread.fiber = idle_fibers_.back();
    idle_fibers_.pop_back();
  }
  from.switch_to(*thread.fiber);
}

// The thread, which is ready or waits, lets another go on until it is its turn again.
void Executor::pause() {
  Thread& thread = self();
  Thread* next = pick();
  if (next == &thread) return;
  if (next)
    go_to(*thread.fiber, *next);
  else
    thread.fiber->switch_to(launcher_);
  if (cancelling_) throw Cancelled();
}

// A fiber runs one thread after the other, as long as those it meets have not begun.
void Executor::work() {
  Executor& x = executor;
  for (;;) {
    Fiber& fiber = *x.self().fiber;
    x.run_thread();
    x.self().fiber = nullptr;
    Thread* next = x.cancelling_ || x.failure_ ? nullptr : x.pick();
    if (next && !next->fiber) {
      next->fiber = &fiber;
      turn = next;
      continue;
    }
    x.idle_fibers_.push_back(&fiber);
    if (next)
      x.go_to(fiber, *next);
    else
      fiber.switch_to(x.launcher_);
  }
}

void Executor::run_thread() {
  Thread& thread = self();
  try {
    (*kernel_)();
    if (!thread.copies.empty())
      fault("ends before its copy to " + shared_name(std::uint32_t(thread.copies[0].to.at)) + " has been waited for");
    thread.wait = Wait::finished;
    Block& block = *thread.block;
    if (--block.unfinished == 0) {
      for (int w = 0; w * kWarp < block.count; ++w)
        block.clock = std::max(block.clock, block.warps[std::size_t(w)].clock);
      if (next_ < order_.size()) begin_block(block);
    }
  } catch (const Cancelled&) {
  } catch (...) {
    failure_ = std::current_exception();
  }
}

// Sends every fiber home that is still under way.
void Executor::cancel() {
  cancelling_ = true;
  for (std::size_t b = 0; b < resident_; ++b)
    for (int t = 0; t < pool_[b]->count; ++t) {
      Thread& thread = pool_[b]->threads[std::size_t(t)];
      if (thread.fiber) go_to(launcher_, thread);
    }
  cancelling_ = false;
  turn = nullptr;
}

const char* waits_at(const Thread& thread) {
  if (thread.in_grid_barrier) return "waiting at the grid barrier";
  switch (thread.wait) {
    case Wait::warp:
      return "waiting at a warp operation";
    case Wait::block:
      return "waiting at the block barrier";
    case Wait::spin:
      return "waiting for a flag";
    default:
      return "finished";
  }
}

// Whether every thread has come to where other blocks have to go on.
bool only_waits_for_others(const Block& block) {
  return std::all_of(block.threads.begin(), block.threads.begin() + block.count,
                     [](const Thread& x) { return x.in_grid_barrier || x.wait == Wait::spin; });
}

// Of the first block that waits for ever, one with a mistake of its own before others, what its threads do, and how the
// others are; empty where all have finished.
std::string Executor::what_is_stuck() const {
  const Block* stuck = nullptr;
  std::size_t stuck_blocks = 0, finished_blocks = 0;
  std::vector<const Block*> finished;
  for (std::size_t b = 0; b < resident_; ++b) {
    const Block& block = *pool_[b];
    if (block.unfinished == 0) {
      ++finished_blocks;
      finished.push_back(&block);
      continue;
    }
    ++stuck_blocks;
    const auto rank = [](const Block& x) {
      const int* at = x.threads[0].index.block;
      return std::make_tuple(only_waits_for_others(x), at[2], at[1], at[0]);
    };
    if (!stuck || rank(block) < rank(*stuck)) stuck = &block;
  }
  if (!stuck) return "";

  bool partial = false, grid = false, spins = false;
  std::string states;
  for (int t = 0; t < stuck->count;) {
    const Thread& thread = stuck->threads[std::size_t(t)];
    const auto state = [](const Thread& x) {
      const Place& at = x.in_grid_barrier ? x.grid_barrier : x.place;
      return std::string(waits_at(x)) + (x.wait == Wait::finished ? "" : " (" + text(at) + ")");
    };
    int last = t;
    while (last + 1 < stuck->count && state(stuck->threads[std::size_t(last + 1)]) == state(thread)) ++last;
    if (!states.empty()) states += ", ";
    states += last == t ? "thread " + std::to_string(t) : "threads " + std::to_string(t) + "-" + std::to_string(last);
    states += " " + state(thread);
    grid = grid || thread.in_grid_barrier;
    spins = spins || (thread.wait == Wait::spin && !thread.in_grid_barrier);
    partial = partial || ((thread.wait == Wait::warp || thread.wait == Wait::block) && !thread.in_grid_barrier);
    t = last + 1;
  }
  std::string what = partial && !spins ? "not every thread reaches a barrier or an operation of a warp: "
                     : grid && !spins  ? "not every thread of the grid reaches the grid barrier: "
                                       : "deadlock: ";
  std::string message = where(stuck->threads[0].index.block) + ": " + what + states;
  if (finished_blocks > 0) {
    message += "; finished:";
    constexpr std::size_t kNamed = 4;
    for (std::size_t i = 0; i < std::min(kNamed, finished.size()); ++i)
      message += (i ? ", block " : " block ") + text(finished[i]->threads[0].index.block);
    if (finished.size() > kNamed) message += " and " + std::to_string(finished.size() - kNamed) + " more";
  }
  if (stuck_blocks > 1) message += "; " + std::to_string(stuck_blocks - 1) + " more blocks wait";
  if (next_ < order_.size())
    message += "; " + std::to_string(order_.size() - next_) + " blocks have not begun, and nothing makes them resident";
  return message + " (seed " + std::to_string(seed) + ")";
}

const char* name_of(Operation operation) {
  switch (operation) {
    case Operation::barrier:
      return "a barrier of the warp";
    case Operation::shuffle:
      return "a shuffle";
    case Operation::ballot:
      return "a ballot";
    default:
      return "a gather";
  }
}

// All of them go on. They are queued from anywhere on, in one direction or the other; who came last may stay in front.
void Executor::release(Thread* threads, int count) {
  Thread& last = self();
  const int first = int(draw.below(std::size_t(count)));
  const bool up = draw.below(2) == 0, stays = draw.below(2) == 0;
  for (int i = 0; i < count; ++i) {
    const int at = first + (up ? i : count - i);
    Thread& thread = threads[at < count ? at : at - count];
    if (!stays || &thread != &last) make_ready(thread);
  }
  last.wait = Wait::no;
  if (!stays) pause();
}

void Executor::arrive_at_warp(Operation operation, int size, Place place) {
  Thread& thread = self();
  Warp& warp = *thread.warp;
  Thread* lanes = thread.block->threads.data() + warp.first;
  if (warp.arrived > 0 && (operation != warp.operation || size != warp.size)) {
    const Thread* other = std::find_if(lanes, lanes + warp.lanes, [](const Thread& x) { return x.wait == Wait::warp; });
    fault(std::string(name_of(operation)) + " of " + std::to_string(size) + " bytes (" + text(place) + ") meets " +
          name_of(warp.operation) + " of " + std::to_string(warp.size) + " bytes (" + text(other->place) +
          ") of thread " + std::to_string(other->index.thread));
  }
  warp.operation = operation;
  warp.size = size;
  thread.wait = Wait::warp;
  thread.place = place;
  if (++warp.arrived < warp.lanes) return pause();
  warp.arrived = 0;
  warp.filling ^= 1;
  warp.sides[warp.filling].bits = 0;
  ++warp.clock;
  release(lanes, warp.lanes);
}

bool Executor::arrive_at_block(bool with_predicate, bool p, Place place) {
  Thread& thread = self();
  Block& block = *thread.block;
  if (block.arrived == 0) {
    block.first_arrived = &thread;
    block.with_predicate = with_predicate;
    block.any = false;
  } else if (const Place& other = block.first_arrived->place; block.with_predicate != with_predicate ||
                                                              other.line != place.line ||
                                                              std::strcmp(other.file, place.file) != 0) {
    fault("waits at the block barrier of " + text(place) + ", thread " +
          std::to_string(block.first_arrived->index.thread) + " at that of " + text(other));
  }
  block.any = block.any || p;
  thread.wait = Wait::block;
  thread.place = place;
  if (++block.arrived < block.count) {
    pause();
    return block.result;
  }
  block.arrived = 0;
  block.result = block.any;
  const int warps = (block.count + kWarp - 1) / kWarp;
  std::uint64_t clock = 0;
  for (int w = 0; w < warps; ++w) clock = std::max(clock, block.warps[std::size_t(w)].clock);
  for (int w = 0; w < warps; ++w) block.warps[std::size_t(w)].clock = clock + 1;
  block.shared.settle(clock + 1);
  release(block.threads.data(), block.count);
  return block.result;
}

void Executor::interleave() {
  constexpr std::size_t kSeldom = 4;
  if (draw.below(kSeldom) != 0) return;
  make_ready(self());
  pause();
}

void Executor::spin(Place place) {
  Thread& thread = self();
  thread.wait = Wait::spin;
  thread.place = place;
  spinning_.push_back(&thread);
  pause();
  thread.wait = Wait::no;
}

std::uint32_t Executor::place_array(StaticArray& array) {
  if (array.launch == launches_) return array.begin;
  const std::size_t begin = (static_bytes_ + kStaticAlignment - 1) / kStaticAlignment * kStaticAlignment;
  if (begin + array.bytes > SharedMemory::kMostStatic)
    fault("static shared memory: expected at most " + std::to_string(SharedMemory::kMostStatic) + " bytes, got " +
          std::to_string(begin + array.bytes) + " with " + array.name);
  if (begin + array.bytes + shape_->shared_bytes > SharedMemory::kMost)
    fault("shared memory: expected at most " + std::to_string(SharedMemory::kMost) + " bytes, got " +
          std::to_string(begin + array.bytes) + " of static arrays and " + std::to_string(shape_->shared_bytes) +
          " dynamic");
  static_bytes_ = begin + array.bytes;
  array.launch = launches_;
  array.begin = std::uint32_t(begin);
  arrays_.push_back(&array);
  return array.begin;
}

const StaticArray* Executor::array_at(std::uint32_t at) const {
  for (const StaticArray* array : arrays_)
    if (array->begin <= at && at < array->begin + array->bytes) return array;
  return nullptr;
}

}  // namespace

void set_seed(std::uint64_t seed) {
  executor.draw.seed(seed);
  executor.seed = seed;
}

void set_mishaps(const Mishaps& mishaps) {
  executor.mishaps = mishaps;
  executor.published = 0;
}

bool is_lost() { return executor.published++ == executor.mishaps.lost; }

void run(const cuda::Launch& shape, const std::function<void()>& kernel) {
  const std::lock_guard<std::mutex> alone(executor.one_launch);
  executor.run(shape, kernel);
}

void fault(const std::string& what) {
  throw Fault(executor.where(turn->index.block) + ", thread " + std::to_string(turn->index.thread) + ": " + what +
              " (seed " + std::to_string(executor.seed) + ")");
}

void block_barrier(Place place) { executor.arrive_at_block(false, false, place); }
bool block_barrier_or(bool p, Place place) { return executor.arrive_at_block(true, p, place); }
void warp_barrier(Place place) { executor.arrive_at_warp(Operation::barrier, 0, place); }

std::uint64_t exchange(std::uint64_t value, int from, int bytes, Place place) {
  Warp& warp = *executor.self().warp;
  const int lane = turn->index.thread % kWarp, other = from & (kWarp - 1);
  if (other >= warp.lanes)
    fault("shuffle (" + text(place) + ") from lane " + std::to_string(other) + " of a warp of " +
          std::to_string(warp.lanes));
  warp.sides[warp.filling].values[lane] = value;
  executor.arrive_at_warp(Operation::shuffle, bytes, place);
  return warp.read().values[other];
}

unsigned ballot(bool p, Place place) {
  Warp& warp = *executor.self().warp;
  warp.sides[warp.filling].bits |= unsigned(p) << turn->index.thread % kWarp;
  executor.arrive_at_warp(Operation::ballot, 0, place);
  return warp.read().bits;
}

void gather(const std::uint32_t* words, int count, std::uint32_t* all, Place place) {
  Warp& warp = *executor.self().warp;
  const int lane = turn->index.thread % kWarp;
  std::vector<std::uint32_t>& filled = warp.sides[warp.filling].words;
  if (warp.arrived == 0) filled.assign(std::size_t(count) * kWarp, 0);
  if (filled.size() == std::size_t(count) * kWarp) std::copy_n(words, count, filled.begin() + lane * count);
  executor.arrive_at_warp(Operation::gather, 4 * count, place);
  std::copy_n(warp.read().words.begin(), count * kWarp, all);
}

void begin_grid_barrier(Place place) {
  if (!executor.shape().cooperative) fault("grid barrier (" + text(place) + ") in a launch that is not cooperative");
  if (turn->index.blocks[1] != 1 || turn->index.blocks[2] != 1)
    fault("grid barrier (" + text(place) + "): expected a grid along x, got " + text(turn->index.blocks));
  executor.self().in_grid_barrier = true;
  executor.self().grid_barrier = place;
}
void end_grid_barrier() { executor.self().in_grid_barrier = false; }

void interleave() { executor.interleave(); }
void spin(Place place) { executor.spin(place); }
void stop_spinning() { executor.stop_spinning(); }

void begin_copy(const View& to, const void* from, int bytes, std::size_t element) {
  if ((bytes != 4 && bytes != 8 && bytes != 16) || std::size_t(bytes) % element != 0)
    fault("copy of " + std::to_string(bytes) + " bytes to elements of " + std::to_string(element) +
          ": expected 4, 8 or 16, and whole elements");
  if (to.at < to.begin || to.at + bytes > to.end) out_of_bounds(to, 0, std::size_t(bytes));
  const auto aligned = [bytes](std::uintptr_t address) { return address % std::uintptr_t(bytes) == 0; };
  if (!aligned(std::uintptr_t(to.at)) || !aligned(reinterpret_cast<std::uintptr_t>(from)))
    fault("copy of " + std::to_string(bytes) + " bytes from global memory to " + shared_name(std::uint32_t(to.at)) +
          ", one of which is not aligned to that");
  Thread& thread = executor.self();
  Copy copy = {to, from, bytes, thread.commits, {}};
  std::memcpy(copy.held, from, std::size_t(bytes));
  turn->shared->begin_copy(std::uint32_t(to.at), std::size_t(bytes), turn->now());
  thread.copies.push_back(copy);
}

void commit_copies() { ++executor.self().commits; }

void wait_copies(int remaining) {
  Thread& thread = executor.self();
  std::size_t landed = 0;
  for (; landed < thread.copies.size() && thread.copies[landed].commit < thread.commits - remaining; ++landed) {
    const Copy& copy = thread.copies[landed];
    if (std::memcmp(copy.held, copy.from, std::size_t(copy.bytes)) != 0)
      fault("global memory changed while a copy from it to " + shared_name(std::uint32_t(copy.to.at)) +
            " was on its way");
    turn->shared->land_copy(std::uint32_t(copy.to.at), copy.held, std::size_t(copy.bytes), turn->now());
  }
  thread.copies.erase(thread.copies.begin(), thread.copies.begin() + std::ptrdiff_t(landed));
}

View static_shared(StaticArray& array) {
  const std::uint32_t begin = executor.place_array(array);
  return {begin, begin, std::uint32_t(begin + array.bytes)};
}

View dynamic_shared(std::size_t offset, std::size_t element, std::size_t alignment, std::ptrdiff_t count) {
  const std::size_t all = executor.shape().shared_bytes;
  const std::size_t bytes = count < 0 ? all - std::min(all, offset) : std::size_t(count) * element;
  if (offset > all || bytes > all - offset)
    fault("dynamic shared memory: expected at most the launch's " + std::to_string(all) + " bytes, got bytes " +
          std::to_string(offset) + " to " + std::to_string(offset + bytes));
  if (offset % alignment != 0)
    fault("dynamic shared memory: expected an offset that is a multiple of " + std::to_string(alignment) + ", got " +
          std::to_string(offset));
  const std::uint32_t begin = std::uint32_t(SharedMemory::kDynamic + offset);
  return {begin, begin, std::uint32_t(begin + bytes)};
}

std::string shared_name(std::uint32_t at) {
  if (const StaticArray* array = executor.array_at(at))
    return std::string(array->name) + "[" + std::to_string((at - array->begin) / array->element) + "]";
  return "byte " + std::to_string(std::int64_t(at) - SharedMemory::kDynamic) + " of the dynamic shared memory";
}

void out_of_bounds(const View& view, std::ptrdiff_t i, std::size_t element) {
  if (view.begin == view.end) fault("access to element " + std::to_string(i) + " of a view of nothing");
  const std::int64_t size = std::int64_t(element), at = view.at - view.begin + i * size;
  const std::string what = "access to bytes " + std::to_string(at) + " to " + std::to_string(at + size) + " of ";
  const std::string extent = ", which has " + std::to_string(view.end - view.begin);
  if (const StaticArray* array = executor.array_at(view.begin)) fault(what + array->name + extent);
  fault(what + "the dynamic shared memory from byte " + std::to_string(view.begin - SharedMemory::kDynamic) + " on" +
        extent);
}

}  // namespace lsc::emulator
