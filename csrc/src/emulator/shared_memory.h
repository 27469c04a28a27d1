// The shared memory of a block and, for each of its words, who wrote it and who read it since. A barrier orders all
// threads of the block, an operation of a warp orders its lanes; everything else that touches the same bytes, one of
// them writing, is a race.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace lsc::emulator {

// A thread of the block at the clock of its warp. Clocks never fall, from block to block either.
struct Moment {
  std::uint64_t clock, thread;
};

// Bytes [begin, end) of a block's shared memory, seen from byte `at` on.
struct View {
  std::int64_t at = 0;
  std::uint32_t begin = 0, end = 0;
};

// An array of a kernel, and where the launch that it was last met in has put it.
struct StaticArray {
  const char* name;
  std::size_t bytes, element;
  std::uint64_t launch = 0;
  std::uint32_t begin = 0;
};

class SharedMemory {
 public:
  static constexpr std::size_t kMostStatic = 48 * 1024, kMost = 227 * 1024;
  // Dynamic memory follows what static arrays may take.
  static constexpr std::uint32_t kDynamic = kMostStatic;

  // A block begins, at this clock: nothing is written.
  void begin(std::size_t dynamic_bytes, std::uint64_t clock);
  // What happened before `clock` is ordered before all that follows.
  void settle(std::uint64_t clock) {
    settled_ = clock << kThreadBits;
    settled_reads_ = clock << kReadBits;
  }

  // The bytes at a place, for reading or writing. Faults where that is wrong.
  template <std::size_t kBytes>
  const void* read(std::uint32_t at, Moment now) {
    if constexpr (kBytes % kWord == 0) {
      bool quick = at % kWord == 0;
      Cell* cells = words_.get() + at / kWord;
      const std::uint64_t own = written(now).write;
      for (std::size_t w = 0; w < kBytes / kWord; ++w)
        quick =
            quick && !split_[at / kWord + w] && (cells[w].write - first_ < settled_ - first_ || cells[w].write == own);
      if (quick) {
        for (std::size_t w = 0; w < kBytes / kWord; ++w) note_read(cells[w], now);
        return data_.get() + at;
      }
    }
    check_read(at, kBytes, now);
    return data_.get() + at;
  }
  template <std::size_t kBytes>
  void* write(std::uint32_t at, Moment now) {
    if constexpr (kBytes % kWord == 0) {
      bool quick = at % kWord == 0;
      Cell* cells = words_.get() + at / kWord;
      const std::uint64_t own = written(now).write, own_read = readers(now, kOne, now.thread);
      for (std::size_t w = 0; w < kBytes / kWord; ++w)
        quick = quick && !split_[at / kWord + w] && (cells[w].write < settled_ || cells[w].write == own) &&
                (cells[w].read < settled_reads_ || cells[w].read == own_read);
      if (quick) {
        for (std::size_t w = 0; w < kBytes / kWord; ++w) cells[w] = written(now);
        return data_.get() + at;
      }
    }
    check_write(at, kBytes, now);
    return data_.get() + at;
  }

  // From now on the bytes are written by a copy of the thread, until it lands.
  void begin_copy(std::uint32_t at, std::size_t bytes, Moment now);
  void land_copy(std::uint32_t at, const void* from, std::size_t bytes, Moment now);

 private:
  static constexpr std::size_t kWord = 4;
  static constexpr int kThreadBits = 10, kReadBits = 22;
  static constexpr std::uint64_t kThread = (1u << kThreadBits) - 1, kInFlight = std::uint64_t(1) << 63;
  // Of reads that nothing orders yet.
  enum Readers : std::uint64_t { kOne = 0, kLanes = 1, kWarps = 2 };

  // write: clock, thread; or in flight, thread. read: clock, Readers, another thread, a thread. 0: never.
  struct Cell {
    std::uint64_t write, read;
  };

  static Cell written(Moment now) { return {now.clock << kThreadBits | now.thread, 0}; }
  static std::uint64_t readers(Moment now, Readers kind, std::uint64_t first) {
    return now.clock << kReadBits | kind << (2 * kThreadBits) | now.thread << kThreadBits | first;
  }
  void note_read(Cell& cell, Moment now) const {
    const std::uint64_t first = cell.read & kThread, kind = cell.read >> (2 * kThreadBits) & 3;
    if (cell.read < settled_reads_)
      cell.read = readers(now, kOne, now.thread);
    else if (kind == kWarps)
      return;
    else if (first / 32 != now.thread / 32)
      cell.read = readers(now, kWarps, first);
    else if (cell.read >> kReadBits != now.clock)
      cell.read = readers(now, kOne, now.thread);
    else if (first != now.thread)
      cell.read = readers(now, kLanes, first);
  }

  template <class Visit>
  void for_each_cell(std::uint32_t at, std::size_t bytes, Visit visit);
  void check_read(std::uint32_t at, std::size_t bytes, Moment now);
  void check_write(std::uint32_t at, std::size_t bytes, Moment now);
  bool ordered(std::uint64_t write, Moment now) const;

  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::size_t capacity_ = 0;
  std::unique_ptr<unsigned char[], Free> data_;
  // A word is looked after as a whole until a part of it is used alone: then its bytes are.
  std::unique_ptr<Cell[], Free> words_, bytes_;
  std::unique_ptr<bool[], Free> split_;
  std::uint64_t first_ = 0, settled_ = 0, settled_reads_ = 0;
};

}  // namespace lsc::emulator
