// Scratch memory.
#pragma once

#include <cstddef>
#include <new>

#include "algorithms/backend.h"

namespace lsc {

// `count` numbers on a cache line's boundary, not initialised.
template <class T>
class Memory {
 public:
  Memory() = default;
  explicit Memory(Index count)
      : data_(count > 0 ? static_cast<T*>(::operator new(std::size_t(count) * sizeof(T), kLine)) : nullptr) {}
  Memory(Memory&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  Memory& operator=(Memory&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~Memory() { ::operator delete(data_, kLine); }

  T* data() const { return data_; }

 private:
  static constexpr std::align_val_t kLine{64};
  T* data_ = nullptr;
};

}  // namespace lsc
