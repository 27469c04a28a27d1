// What a call of the CUDA backend gets beside its data, and how it launches kernels. Nothing here knows CUDA's types.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "algorithms/backend.h"

namespace lsc::cuda {

// How the operands of float32 products are rounded; sums are float32. float64 products are float64.
enum class Precision { fp32, tf32, fp16, bf16 };

// The caller's scratch memory, handed out piece by piece. Without memory it only counts, so that a function that takes
// all its pieces first tells what it needs.
class Workspace {
 public:
  Workspace(void* memory, std::size_t bytes) : memory_(static_cast<char*>(memory)), bytes_(bytes) {}

  template <class T>
  T* take(Index count) {
    constexpr std::size_t kAlign = 256;
    const std::size_t begin = (taken_ + kAlign - 1) / kAlign * kAlign;
    taken_ = begin + std::size_t(count) * sizeof(T);
    if (!memory_) return nullptr;
    if (taken_ > bytes_)
      throw std::invalid_argument("workspace: expected at least " + std::to_string(taken_) + " bytes, got " +
                                  std::to_string(bytes_));
    return reinterpret_cast<T*>(memory_ + begin);
  }
  bool counting() const { return memory_ == nullptr; }
  std::size_t taken() const { return taken_; }

 private:
  char* memory_;
  std::size_t bytes_;
  std::size_t taken_ = 0;
};

// One call. A function over it takes all its pieces of `workspace` first and returns where that is counting. `barrier`
// [2] is the state of grid barriers, zero before its first use and used by one launch at a time; without it, no launch
// does the steps of others.
struct Execution {
  int device;
  void* stream;
  Precision precision;
  Workspace workspace;
  unsigned* barrier = nullptr;
};

struct Grid {
  Index x = 1, y = 1, z = 1;
};

// Blocks of so many threads each and what they share.
struct Launch {
  const char* name;
  Grid grid;
  int threads;
  std::size_t shared_bytes = 0;
  bool cooperative = false;
};

// Makes a device current for as long as it lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int device_, before_;
};

// The number of multiprocessors.
int processors(int device);

// How many kernels this process has launched.
std::uint64_t launches();

// Whether float32 products run on tensor cores: compute capability 8.0 and newer.
bool has_tensor_cores(int device);

// Throws std::invalid_argument where the execution's precision takes tensor cores and its device has none.
void require_precision(const Execution& execution);

}  // namespace lsc::cuda
