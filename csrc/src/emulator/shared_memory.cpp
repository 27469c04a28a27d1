#include "emulator/shared_memory.h"

#include <cstring>
#include <new>
#include <string>

#include "emulator/executor.h"

namespace lsc::emulator {
namespace {

template <class Array>
void allocate(Array& array, std::size_t count) {
  using T = typename Array::element_type;
  array.reset(static_cast<T*>(std::calloc(count, sizeof(T))));
  if (!array) throw std::bad_alloc();
}

[[noreturn]] void wrong(const char* access, std::uint32_t at, const char* before, std::uint64_t thread,
                        const char* after) {
  fault(access + shared_name(at) + before + std::to_string(thread) + after);
}

constexpr const char* kInBetween = ", with no barrier in between";

}  // namespace

void SharedMemory::begin(std::size_t dynamic_bytes, std::uint64_t clock) {
  const std::size_t bytes = (kDynamic + dynamic_bytes + kWord - 1) / kWord * kWord;
  if (bytes > capacity_) {
    constexpr std::size_t kAlignment = 1024;
    data_.reset(static_cast<unsigned char*>(
        std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment)));
    if (!data_) throw std::bad_alloc();
    allocate(words_, bytes / kWord);
    allocate(bytes_, bytes);
    allocate(split_, bytes / kWord);
    capacity_ = bytes;
  }
  first_ = clock << kThreadBits;
  settle(clock);
}

// Calls visit(cell, at) for what looks after the bytes, whole words where they are whole.
template <class Visit>
void SharedMemory::for_each_cell(std::uint32_t at, std::size_t bytes, Visit visit) {
  const std::uint32_t end = at + std::uint32_t(bytes);
  while (at < end) {
    const std::uint32_t word = at / kWord;
    const bool whole = at % kWord == 0 && end - at >= kWord;
    if (!whole && !split_[word]) {
      for (std::size_t b = 0; b < kWord; ++b) bytes_[word * kWord + b] = words_[word];
      split_[word] = true;
    }
    if (!split_[word])
      visit(words_[word], at);
    else
      for (std::uint32_t b = at; b < (whole ? at + kWord : at + 1); ++b) visit(bytes_[b], b);
    at += whole ? kWord : 1;
  }
}

bool SharedMemory::ordered(std::uint64_t write, Moment now) const {
  const std::uint64_t writer = write & kThread;
  return write < settled_ || writer == now.thread ||
         (writer / 32 == now.thread / 32 && write >> kThreadBits < now.clock);
}

void SharedMemory::check_read(std::uint32_t from, std::size_t bytes, Moment now) {
  for_each_cell(from, bytes, [&](Cell& cell, std::uint32_t at) {
    const std::uint64_t writer = cell.write & kThread;
    if (cell.write & kInFlight)
      wrong("read of ", at, ", into which a copy is on its way that only a wait of thread ", writer, " completes");
    if (cell.write < first_) fault("read of " + shared_name(at) + ", which nothing has written");
    if (!ordered(cell.write, now)) wrong("race: read of ", at, " after a write by thread ", writer, kInBetween);
    note_read(cell, now);
  });
}

void SharedMemory::check_write(std::uint32_t from, std::size_t bytes, Moment now) {
  for_each_cell(from, bytes, [&](Cell& cell, std::uint32_t at) {
    const std::uint64_t writer = cell.write & kThread;
    if (cell.write & kInFlight)
      wrong("write to ", at, ", into which a copy is on its way that only a wait of thread ", writer, " completes");
    if (!ordered(cell.write, now)) wrong("race: write to ", at, " after a write by thread ", writer, kInBetween);
    const std::uint64_t reader = cell.read & kThread, other = cell.read >> kThreadBits & kThread;
    const std::uint64_t kind = cell.read >> (2 * kThreadBits) & 3;
    const bool one_warp = kind != kWarps && reader / 32 == now.thread / 32;
    if (cell.read >= settled_reads_ && !(kind == kOne && reader == now.thread) &&
        !(one_warp && cell.read >> kReadBits < now.clock))
      wrong("race: write to ", at, " after a read by thread ", reader == now.thread ? other : reader, kInBetween);
    cell = written(now);
  });
  for (std::uint32_t word = (from + kWord - 1) / kWord; (word + 1) * kWord <= from + bytes; ++word) {
    words_[word] = written(now);
    split_[word] = false;
  }
}

void SharedMemory::begin_copy(std::uint32_t from, std::size_t bytes, Moment now) {
  check_write(from, bytes, now);
  for_each_cell(from, bytes, [&](Cell& cell, std::uint32_t) { cell.write = kInFlight | now.thread; });
}

void SharedMemory::land_copy(std::uint32_t to, const void* from, std::size_t bytes, Moment now) {
  std::memcpy(data_.get() + to, from, bytes);
  for_each_cell(to, bytes, [&](Cell& cell, std::uint32_t) { cell.write = written(now).write; });
}

}  // namespace lsc::emulator
