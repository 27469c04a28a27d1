// What the machine can do at most: multiply-adds on registers and copies of memory, by so many workers at once. Work is
// done in windows of equal size and the best window counts, since whatever else runs only ever takes away.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>

#include "algorithms/backend.h"

namespace lsc {

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The shortest of the times that `window` takes, repeated for so many seconds and at least twice: the first warms up.
template <class Window>
double shortest_window(double seconds, Window&& window) {
  const auto start = std::chrono::steady_clock::now();
  double shortest = 0;
  for (int count = 0; count < 2 || seconds_since(start) < seconds; ++count) {
    const auto begin = std::chrono::steady_clock::now();
    window();
    const double spent = seconds_since(begin);
    shortest = shortest > 0 ? std::min(shortest, spent) : spent;
  }
  return shortest;
}

// Floating-point operations per second.
template <class T>
double fma_rate(const Backend<T>& backend, const RooflineKernels<T>& kernels, double seconds) {
  // Some ten milliseconds per window, cut into pieces between which a worker asks whether to stop.
  constexpr Index kRounds = 1 << 18, kPieces = 16;
  const volatile T factor = T(0.5), addend = T(0.25);  // unknown to the compiler
  const double shortest = shortest_window(seconds, [&] {
    parallel_ranges(backend.threads, backend.threads, backend.poll,
                    [&](std::int64_t begin, std::int64_t end, const Poll& stop) {
                      for (std::int64_t i = begin * kPieces; i < end * kPieces && !stop(); ++i)
                        kernels.multiply_add(kRounds, factor, addend);
                    });
  });
  return double(kernels.operations) * kRounds * kPieces * backend.threads / shortest;
}

// Bytes per second, read and written, of copies of `bytes` into memory that is there. One worker's share is one range.
inline double copy_rate(int threads, const Poll& poll, std::int64_t bytes, double seconds) {
  const std::unique_ptr<char[]> source(new char[std::size_t(bytes)]), target(new char[std::size_t(bytes)]);
  const auto in_ranges = [&](auto&& body) {
    parallel_ranges(threads, threads, poll, [&](std::int64_t begin, std::int64_t end, const Poll& stop) {
      const std::int64_t first = bytes / threads * begin, last = end == threads ? bytes : bytes / threads * end;
      if (!stop()) body(first, std::size_t(last - first));
    });
  };
  in_ranges([&](std::int64_t first, std::size_t count) { std::memset(source.get() + first, 1, count); });
  const double shortest = shortest_window(seconds, [&] {
    in_ranges(
        [&](std::int64_t first, std::size_t count) { std::memcpy(target.get() + first, source.get() + first, count); });
  });
  return 2.0 * double(bytes) / shortest;
}

}  // namespace lsc
