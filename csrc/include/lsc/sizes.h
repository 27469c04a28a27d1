// Products of sizes that refuse to overflow.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace lsc {

// The product of non-negative extents; throws std::invalid_argument where one is negative or 2^62 is passed.
inline std::int64_t checked_size(const char* what, std::initializer_list<std::int64_t> extents) {
  std::int64_t size = 1;
  for (const std::int64_t extent : extents) {
    if (extent < 0)
      throw std::invalid_argument(std::string(what) + ": expected extents >= 0, got " + std::to_string(extent));
    if (extent != 0 && size > (std::int64_t{1} << 62) / extent)
      throw std::invalid_argument(std::string(what) + ": expected fewer than 2^62 elements, got an overflow");
    size *= extent;
  }
  return size;
}

}  // namespace lsc
