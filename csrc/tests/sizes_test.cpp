// Products of sizes that would overflow are refused.
#include "lsc/sizes.h"

#include "check.h"

namespace lsc::test {
namespace {

void products() {
  CHECK(checked_size("x", {}) == 1);
  CHECK(checked_size("x", {3, 4, 5}) == 60);
  CHECK(checked_size("x", {0, std::int64_t{1} << 61}) == 0);
  CHECK(checked_size("x", {std::int64_t{1} << 61, 2}) == std::int64_t{1} << 62);
}

void refused() {
  const std::int64_t huge = std::int64_t{1} << 32, largest = std::numeric_limits<std::int64_t>::max();
  CHECK_THROWS(checked_size("x", {huge, huge}), std::invalid_argument);
  CHECK_THROWS(checked_size("x", {largest}), std::invalid_argument);
  CHECK_THROWS(checked_size("x", {std::int64_t{1} << 61, 3}), std::invalid_argument);
  CHECK_THROWS(checked_size("x", {2, -1}), std::invalid_argument);
  CHECK_THROWS(checked_size("x", {std::numeric_limits<std::int64_t>::min()}), std::invalid_argument);
}

void the_message_names_the_argument() {
  try {
    checked_size("weights", {-3});
  } catch (const std::invalid_argument& error) {
    CHECK(std::string(error.what()) == "weights: expected extents >= 0, got -3");
  }
}

}  // namespace
}  // namespace lsc::test

int main() {
  using namespace lsc::test;
  return run({{"products", products},
              {"overflow and negative extents are refused", refused},
              {"the message names the argument", the_message_names_the_argument}});
}
