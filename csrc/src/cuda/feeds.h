// Which block of a layer's weights feeds each pre-activation, in one word: kernels look it up by a number that they do
// not know when they are compiled, and an array would be put into memory for that.
#pragma once

#include "algorithms/backend.h"
#include "lsc/host_device.h"

namespace lsc::cuda {

class Feeds {
 public:
  Feeds() = default;
  // By the input (&Feed::input) or the state (&Feed::recurrent).
  Feeds(const CellShape& cell, int Feed::* by) {
    for (int k = 0; k < cell.preactivations; ++k) {
      const auto block = std::uint64_t(std::uint8_t(cell.feeds[std::size_t(k)].*by));
      blocks_ = (blocks_ & ~(std::uint64_t(0xff) << 8 * k)) | block << 8 * k;
    }
  }

  // kNone where there is none.
  LSC_HD int operator[](int k) const { return int(std::int8_t(blocks_ >> 8 * k)); }

 private:
  static_assert(kMaxPreactivations <= 8 && kNone == -1);
  std::uint64_t blocks_ = ~std::uint64_t(0);
};

}  // namespace lsc::cuda
