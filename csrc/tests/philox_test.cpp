// Philox4x32-10 against the known answers of its authors (Random123, kat_vectors), and the normal numbers made of it.
#include "lsc/philox.h"

#include "model.h"

namespace lsc::test {
namespace {

void known_answers() {
  const Philox zeros = philox(0, 0, 0);
  const std::uint32_t of_zeros[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  const std::uint64_t all = ~std::uint64_t{0};
  const Philox ones = philox(all, all, all);
  const std::uint32_t of_ones[] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
  // The digits of pi: counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0.
  const Philox pi = philox(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88);
  const std::uint32_t of_pi[] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
  for (int i = 0; i < 4; ++i) {
    CHECK(zeros.word[i] == of_zeros[i]);
    CHECK(ones.word[i] == of_ones[i]);
    CHECK(pi.word[i] == of_pi[i]);
  }
}

void moments() {
  const Index n = 100000;
  const std::vector<double> v = normal<double>(5, n);
  double mean = 0, square = 0, fourth = 0;
  for (const double x : v) {
    mean += x / double(n);
    square += x * x / double(n);
    fourth += x * x * x * x / double(n);
  }
  CHECK_NEAR(mean, 0, 0.02);
  CHECK_NEAR(square, 1, 0.03);
  CHECK_NEAR(fourth, 3, 0.1);
}

// A prefix does not depend on the length, nothing is written past it, and every coordinate of the numbering counts.
void numbering() {
  std::vector<double> v = nan_filled<double>(8), longer = nan_filled<double>(8);
  fill_normal(5, 6, 7, 8, longer.data());
  for (Index n = 0; n < 8; ++n) {
    std::fill(v.begin(), v.end(), kNan<double>);
    fill_normal(5, 6, 7, n, v.data());
    for (Index i = 0; i < 8; ++i)
      CHECK(i < n ? v[std::size_t(i)] == longer[std::size_t(i)] : std::isnan(v[std::size_t(i)]));
  }
  const std::uint64_t other[][3] = {{4, 6, 7}, {5, 5, 7}, {5, 6, 6}};
  for (const auto& [seed, point, draw] : other) {
    fill_normal(seed, point, std::uint32_t(draw), 8, v.data());
    for (std::size_t i = 0; i < 8; ++i) CHECK(v[i] != longer[i]);
  }
}

}  // namespace
}  // namespace lsc::test

int main() {
  using namespace lsc::test;
  return run({{"known answers", known_answers}, {"moments", moments}, {"numbering", numbering}});
}
