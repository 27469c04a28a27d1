// The products of the device code on the emulator: number formats, layouts of the tensor cores, tiles and strides,
// against loops in float64.
#include "cuda/product.h"

#include <functional>
#include <random>
#include <vector>

#include "check.h"
#include "cuda/half.h"
#include "cuda/launch.h"
#include "cuda/mma.h"
#include "cuda/tile_product.h"
#include "lsc/philox.h"

namespace lsc::test {
namespace {

using namespace cuda;

constexpr Index kSizes[] = {1, 3, 7, 31, 33, 65};
constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <class T>
constexpr T kNan = std::numeric_limits<T>::quiet_NaN();

template <class T>
std::vector<T> normal(std::uint64_t seed, Index size) {
  std::vector<T> values(static_cast<std::size_t>(size));
  fill_normal(seed, 0, 0, size, values.data());
  return values;
}

template <class T>
std::vector<T> nan_filled(Index size) {
  return std::vector<T>(std::size_t(size), kNan<T>);
}

template <class T>
double tolerance(Precision precision) {
  if (sizeof(T) == 8) return 1e-14;
  switch (precision) {
    case Precision::fp32:
      return 1e-6;
    case Precision::tf32:
    case Precision::fp16:
      return 1e-3;
    case Precision::bf16:
      return 1e-2;
  }
  return 0;
}

Execution execution(Precision precision = Precision::fp32) { return {0, nullptr, precision, {nullptr, 0}}; }

// Without tensor cores as long as it lives, as on a device of compute capability 7.5.
struct OldDevice {
  OldDevice() { emulator::set_tensor_cores(false); }
  ~OldDevice() { emulator::set_tensor_cores(true); }
};

struct Variant {
  const char* name;
  Precision precision;
  bool tensor_cores;
};
constexpr Variant kVariants[] = {{"fp32", Precision::fp32, true},
                                 {"tf32", Precision::tf32, true},
                                 {"fp16", Precision::fp16, true},
                                 {"bf16", Precision::bf16, true},
                                 {"plain", Precision::fp32, false}};

template <class T>
void each_variant(const std::function<void(const Variant&)>& body) {
  for (const Variant& variant : kVariants) {
    if (sizeof(T) == 8 && variant.tensor_cores) continue;
    emulator::set_tensor_cores(variant.tensor_cores);
    body(variant);
  }
  emulator::set_tensor_cores(true);
}

template <class Values, class Expected>
double relative_error(const Values& values, const Expected& expected) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    error += std::pow(double(values[i]) - double(expected[i]), 2);
    size += std::pow(double(expected[i]), 2);
  }
  return error == 0 ? 0 : std::sqrt(error / size);
}

// x to `digits` binary digits, with no exponent of its last digit below `lowest`, by a definition that knows no bits.
double rounded(double x, int digits, int lowest, double largest) {
  if (x == 0 || !std::isfinite(x)) return x;
  int exponent;
  std::frexp(x, &exponent);
  const int unit = std::max(exponent - digits, lowest);
  const double near = std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
  return std::abs(near) > largest ? std::copysign(double(kInfinity), x) : near;
}

void check_same(float value, double expected, float x) {
  const bool same = std::isnan(expected) ? std::isnan(value)
                                         : double(value) == expected && std::signbit(value) == std::signbit(expected);
  char text[128];
  std::snprintf(text, sizeof text, "rounding %.9g: expected %.9g, got %.9g", double(x), expected, double(value));
  report(same, __FILE__, __LINE__, text);
}

void check_roundings(float x) {
  check_same(from_fp16(to_fp16(x)), rounded(x, 11, -24, 65504), x);
  check_same(from_bf16(to_bf16(x)), rounded(x, 8, -133, std::ldexp(255, 120)), x);
  check_same(float_of(to_tf32(x)), rounded(x, 11, -136, std::ldexp(2047, 117)), x);
  CHECK((to_tf32(x) & 0x1fff) == 0);
}

void short_patterns_survive() {
  for (std::uint32_t i = 0; i < 1 << 16; ++i) {
    const auto bits = std::uint16_t(i);
    const float half = from_fp16(bits), brain = from_bf16(bits);
    CHECK(std::isnan(half) ? (bits & 0x7fff) > 0x7c00 && to_fp16(half) == 0x7fff : to_fp16(half) == bits);
    CHECK(std::isnan(brain) ? (bits & 0x7fff) > 0x7f80 && to_bf16(brain) == 0x7fff : to_bf16(brain) == bits);
  }
}

void roundings_of_float32() {
  std::mt19937 draw(1);
  for (int i = 0; i < 200000; ++i) check_roundings(float_of(std::uint32_t(draw())));
  // Around every number of each format and half way between neighbours, where ties are.
  for (std::uint32_t i = 0; i < 1 << 16; ++i)
    for (const std::uint32_t low : {0x0000u, 0x0001u, 0x0fffu, 0x1000u, 0x1001u, 0x3000u, 0x7fffu, 0x8000u, 0x8001u})
      check_roundings(float_of(i << 16 | low));
  for (std::uint32_t i = 0; i < 1 << 12; ++i)  // fp16's subnormals and their ties
    for (const int side : {-1, 0, 1}) check_roundings(float_of(bits_of(float(i) * 0x1p-26f) + std::uint32_t(side)));
}

void packs_the_first_number_low() {
  CHECK(pack_fp16(1, -2) == 0xc0003c00u);
  CHECK(pack_bf16(1, -2) == 0xc0003f80u);
}

using Mma = void (*)(float (&)[4], const std::uint32_t (&)[4], const std::uint32_t (&)[2]);

LSC_KERNEL mma_kernel(Mma mma, int numbers, const float* a, const float* b, float* c) {
  const int depth = 8 * numbers;
  const auto word = [&](const float* x, int row, int at) {
    const float* first = x + row * depth + at * numbers;
    if (mma == mma_tf32) return bits_of(first[0]) | 0x1fff;  // what it must not read
    return mma == mma_fp16 ? pack_fp16(first[0], first[1]) : pack_bf16(first[0], first[1]);
  };
  std::uint32_t left[4], right[2];
  for (int e = 0; e < 4; ++e) left[e] = word(a, left_row(e), left_word(e));
  for (int e = 0; e < 2; ++e) right[e] = word(b, right_column(), right_word(e));
  float sums[4];
  for (int e = 0; e < 4; ++e) sums[e] = c[sum_row(e) * 8 + sum_column(e)];
  mma(sums, left, right);
  for (int e = 0; e < 4; ++e) c[sum_row(e) * 8 + sum_column(e)] = sums[e];
}

// Small integers, which all formats and sums hold exactly: a wrong place shows, and nothing else does.
void layouts() {
  for (const Mma mma : {Mma(mma_tf32), Mma(mma_fp16), Mma(mma_bf16)}) {
    const int numbers = mma == Mma(mma_tf32) ? 1 : 2, depth = 8 * numbers;
    std::mt19937 draw(2);
    std::vector<float> a(std::size_t(16 * depth)), b(std::size_t(8 * depth)), c(128);
    for (auto* values : {&a, &b, &c})
      for (float& x : *values) x = float(int(draw() % 255) - 127);
    std::vector<double> expected(c.begin(), c.end());
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 8; ++j)
        for (int k = 0; k < depth; ++k)
          expected[std::size_t(i * 8 + j)] +=
              double(a[std::size_t(i * depth + k)]) * double(b[std::size_t(j * depth + k)]);
    launch(execution(), {"mma", {1}, 32}, mma_kernel, mma, numbers, a.data(), b.data(), c.data());
    CHECK(relative_error(c, expected) == 0);
  }
}

struct Shape {
  Index m, n, k;
  bool transposed_a = false, transposed_b = false;
  Index gap = 0;        // between rows of A, B and C
  Index unaligned = 0;  // numbers before the first of A, B and C
  int groups = 1, terms = 1;
  enum Start { none, own, same, broadcast } start = none;
};

// Parts lie one after another; what lies between rows of C must stay as it was.
template <class T>
void check_product(const Shape& s, const Variant& variant) {
  const Index a_rows = s.transposed_a ? s.k : s.m, a_width = (s.transposed_a ? s.m : s.k) + s.gap;
  const Index b_rows = s.transposed_b ? s.n : s.k, b_width = (s.transposed_b ? s.k : s.n) + s.gap;
  const Index c_width = s.n + s.gap, parts = s.groups * s.terms;
  const std::vector<T> a = normal<T>(1, s.unaligned + parts * a_rows * a_width);
  const std::vector<T> b = normal<T>(2, s.unaligned + parts * b_rows * b_width);
  const std::vector<T> start = normal<T>(3, s.unaligned + s.groups * std::max<Index>(1, s.m) * c_width);
  std::vector<T> c = s.start == Shape::same ? start : nan_filled<T>(Index(start.size()));
  const std::vector<T> before = c;

  Product<T> x;
  x.m = s.m, x.n = s.n, x.k = s.k;
  x.a = a.data(), x.b = b.data(), x.c = c.data();
  x.a_row = s.transposed_a ? 1 : a_width, x.a_column = s.transposed_a ? a_width : 1;
  x.b_row = s.transposed_b ? 1 : b_width, x.b_column = s.transposed_b ? b_width : 1;
  x.c_row = c_width;
  x.groups = s.groups, x.terms = s.terms;
  if (s.start != Shape::none) {
    x.start = s.start == Shape::same ? c.data() : start.data();
    x.start_row = s.start == Shape::broadcast ? 0 : c_width;
  }
  for (int p = 0; p < parts; ++p) {
    x.a_offset[p] = s.unaligned + (parts - 1 - p) * a_rows * a_width;
    x.b_offset[p] = s.unaligned + p * b_rows * b_width;
  }
  for (int g = 0; g < s.groups; ++g) x.c_offset[g] = x.start_offset[g] = s.unaligned + g * s.m * c_width;
  multiply(execution(variant.precision), x);

  std::vector<double> values, expected;
  bool kept = true;
  for (int g = 0; g < s.groups; ++g)
    for (Index i = 0; i < s.m; ++i)
      for (Index j = 0; j < c_width; ++j) {
        const auto at = std::size_t(x.c_offset[g] + i * c_width + j);
        if (j >= s.n) {
          kept = kept && (s.start == Shape::same ? c[at] == before[at] : std::isnan(c[at]));
          continue;
        }
        double sum = 0;
        if (s.start != Shape::none)
          sum = double(start[std::size_t(x.start_offset[g] + i * x.start_row + j * x.start_column)]);
        for (int p = g * s.terms; p < (g + 1) * s.terms; ++p)
          for (Index k = 0; k < s.k; ++k)
            sum += double(a[std::size_t(x.a_offset[p] + i * x.a_row + k * x.a_column)]) *
                   double(b[std::size_t(x.b_offset[p] + k * x.b_row + j * x.b_column)]);
        values.push_back(double(c[at]));
        expected.push_back(sum);
      }
  const double error = relative_error(values, expected), most = tolerance<T>(variant.precision);
  char text[256];
  std::snprintf(text, sizeof text,
                "%s, m %d n %d k %d, transposed %d %d, gap %d, groups %d terms %d, start %d: error %g", variant.name,
                int(s.m), int(s.n), int(s.k), s.transposed_a, s.transposed_b, int(s.gap), s.groups, s.terms,
                int(s.start), error);
  report(error <= most, __FILE__, __LINE__, text);
  report(kept, __FILE__, __LINE__, std::string("between the rows of C: ") + text);
}

// m and n meet in all sizes, k in one of them; all triples would only take longer.
template <class T>
void products() {
  each_variant<T>([](const Variant& variant) {
    int i = 0;
    for (const Index m : kSizes)
      for (const Index n : kSizes) {
        const Index k = kSizes[++i % 6];
        check_product<T>({m, n, k, (i & 1) != 0, (i & 2) != 0}, variant);
      }
    for (const bool transposed_a : {false, true})
      for (const bool transposed_b : {false, true})
        for (const Index m : {5, 33, 65}) check_product<T>({m, 65, 133, transposed_a, transposed_b, 3, 1}, variant);
  });
}

template <class T>
void starts_groups_and_terms() {
  each_variant<T>([](const Variant& variant) {
    for (const Shape::Start start : {Shape::none, Shape::own, Shape::same, Shape::broadcast})
      for (const Index m : {3, 31}) check_product<T>({m, 33, 31, false, true, 2, 1, 3, 2, start}, variant);
  });
}

template <class T>
void empty_extents() {
  each_variant<T>([](const Variant& variant) {
    for (const Shape::Start start : {Shape::none, Shape::own, Shape::broadcast})
      for (const Index m : {0, 3, 9}) {
        check_product<T>({m, 7, 0, false, false, 1, 0, 2, 2, start}, variant);
        check_product<T>({m, 0, 7, false, false, 1, 0, 2, 2, start}, variant);
      }
  });
}

template <class T>
std::vector<T> product_of(Precision precision, Index m, Index n, Index k, const T* a, const T* b) {
  std::vector<T> c = nan_filled<T>(m * n);
  Product<T> x;
  x.m = m, x.n = n, x.k = k;
  x.a = a, x.b = b, x.c = c.data();
  x.a_row = k, x.b_row = x.c_row = n;
  multiply(execution(precision), x);
  return c;
}

template <class T>
bool same_bits(const T* a, const T* b, Index count) {
  return std::memcmp(a, b, std::size_t(count) * sizeof(T)) == 0;
}

// A row alone and among 7, 32 and 69 others, i.e. in each of the shapes of tiles, and beside rows that are not finite.
template <class T>
void rows_are_independent() {
  const Index n = 31, k = 133;
  each_variant<T>([&](const Variant& variant) {
    std::vector<T> a = normal<T>(1, 70 * k), b = normal<T>(2, k * n);
    const std::vector<T> one = product_of<T>(variant.precision, 1, n, k, a.data() + 5 * k, b.data());
    for (const Index m : {8, 33, 70}) {
      const std::vector<T> many = product_of<T>(variant.precision, m, n, k, a.data(), b.data());
      CHECK(same_bits(&many[5 * n], one.data(), n));
    }
    for (Index i = 0; i < 70 * k; ++i)
      if (i / k != 5) a[std::size_t(i)] = i % 3 == 0 ? T(kInfinity) : i % 3 == 1 ? kNan<T> : T(1e30);
    for (const Index m : {8, 33, 70}) {
      const std::vector<T> many = product_of<T>(variant.precision, m, n, k, a.data(), b.data());
      CHECK(same_bits(&many[5 * n], one.data(), n));
      CHECK(std::isnan(many[4 * n]) && std::isnan(many[6 * n]));
    }
  });
}

// float32's whole range of exponents, and what is not finite, as float32 itself has it.
void full_range() {
  const Index n = 9, k = 65;
  for (const Index m : {6, 24, 70})
    for (const bool tensor_cores : {true, false}) {
      emulator::set_tensor_cores(tensor_cores);
      std::vector<float> a = normal<float>(1, m * k), b = normal<float>(2, k * n);
      const float scales[] = {1e-30f, 1e30f, 1, 0, 1e-18f, 1e18f};
      for (Index i = 0; i < m * k; ++i) a[std::size_t(i)] *= scales[i / k % 6];
      for (Index i = 0; i < k * n; ++i) b[std::size_t(i)] *= i % n == 3 ? 1e-7f : i % n == 4 ? 1e7f : 1;
      for (Index j = 0; j < k; ++j) a[std::size_t(5 * k + j)] *= j % 2 ? 1e-15f : 1;  // within one row
      const std::vector<float> c = product_of<float>(Precision::fp32, m, n, k, a.data(), b.data());
      for (Index i = 0; i < m; ++i)
        for (Index j = 0; j < n; ++j) {
          double sum = 0, size = 0;
          for (Index l = 0; l < k; ++l) {
            const double term = double(a[std::size_t(i * k + l)]) * double(b[std::size_t(l * n + j)]);
            sum += term;
            size += term * term;
          }
          CHECK(std::abs(double(c[std::size_t(i * n + j)]) - sum) <= 1e-6 * std::sqrt(size));
        }

      for (const float odd : {kInfinity, -kInfinity, kNan<float>, 3.4028234e38f}) {
        std::vector<float> some = normal<float>(3, m * k), ones(std::size_t(k * n), 0.3f);
        some[std::size_t(2 * k + 11)] = odd;
        const std::vector<float> out = product_of<float>(Precision::fp32, m, n, k, some.data(), ones.data());
        const float expected = odd * 0.3f;
        for (Index i = 0; i < m; ++i)
          for (Index j = 0; j < n; ++j) {
            const float value = out[std::size_t(i * n + j)];
            if (i != 2)
              CHECK(std::isfinite(value));
            else if (std::isnan(odd))
              CHECK(std::isnan(value));
            else
              CHECK(value == expected || std::abs(value / expected - 1) < 1e-6f);
          }
      }
    }
  emulator::set_tensor_cores(true);
}

// Two thousand terms, of a half that cancels the other but for a thousandth: sums may not lose more than float32's do.
void long_sums() {
  const Index m = 9, n = 16, k = 2048;
  const std::vector<float> a = normal<float>(1, m * k), b = normal<float>(2, k * n);
  std::vector<double> expected(std::size_t(m * n));
  for (Index i = 0; i < m; ++i)
    for (Index j = 0; j < n; ++j)
      for (Index l = 0; l < k; ++l)
        expected[std::size_t(i * n + j)] += double(a[std::size_t(i * k + l)]) * double(b[std::size_t(l * n + j)]);
  const double error = relative_error(product_of<float>(Precision::fp32, m, n, k, a.data(), b.data()), expected);
  CHECK_NEAR(error, 0, 1e-6);
}

void precision_takes_tensor_cores() {
  const OldDevice old;
  const std::vector<float> a(4, 1), b(4, 1);
  for (const Precision precision : {Precision::tf32, Precision::fp16, Precision::bf16}) {
    std::string what;
    try {
      product_of<float>(precision, 2, 2, 2, a.data(), b.data());
    } catch (const std::invalid_argument& error) {
      what = error.what();
    }
    CHECK(what.find("precision: expected fp32") == 0 && what.find("8.0") < what.find("7.5"));
  }
  const std::vector<double> wide(4, 1);
  CHECK(product_of<double>(Precision::bf16, 2, 2, 2, wide.data(), wide.data())[0] == 2);
}

template <class T>
LSC_KERNEL tile_kernel(Precision precision, Index m, Index k, const T* a, Index a_row, Index a_column, int count,
                       const T* v, Index v_row, bool accumulate, T* out, Index out_row) {
  tile_product(precision, m, k, a, a_row, a_column, count, v, v_row, accumulate, out, out_row);
}

template <class T>
std::vector<T> tile_of(Precision precision, Index m, Index k, const T* a, bool transposed, int count, const T* v,
                       Index v_row, bool accumulate, std::vector<T> out, Index out_row) {
  launch(execution(precision), {"tile", {1}, kTileThreads}, tile_kernel<T>, precision, m, k, a, transposed ? 1 : k,
         transposed ? m : 1, count, v, v_row, accumulate, out.data(), out_row);
  return out;
}

template <class T>
void tiles() {
  each_variant<T>([](const Variant& variant) {
    constexpr Index kDepths[] = {0, 1, 7, 33, 65};
    int i = 0;
    for (int count = 0; count <= kTile; ++count)
      for (const Index m : {1, 31, 65, 145}) {
        const Index k = kDepths[++i % 5], v_row = k + 3, out_row = m + 2;
        const bool transposed = i & 1, accumulate = i & 2;
        const std::vector<T> a = normal<T>(1, m * k), v = normal<T>(2, kTile * v_row);
        const std::vector<T> before = accumulate ? normal<T>(3, kTile * out_row) : nan_filled<T>(kTile * out_row);
        const std::vector<T> out = tile_of<T>(variant.precision, m, k, a.data(), transposed, count, v.data(), v_row,
                                              accumulate, before, out_row);
        std::vector<double> values, expected;
        for (Index j = 0; j < kTile; ++j)
          for (Index r = 0; r < out_row; ++r) {
            const auto at = std::size_t(j * out_row + r);
            if (j >= count || r >= m) {
              CHECK(same_bits(&out[at], &before[at], 1));
              continue;
            }
            double sum = accumulate ? double(before[at]) : 0;
            for (Index l = 0; l < k; ++l)
              sum += double(a[std::size_t(transposed ? l * m + r : r * k + l)]) * double(v[std::size_t(j * v_row + l)]);
            values.push_back(double(out[at]));
            expected.push_back(sum);
          }
        CHECK_NEAR(relative_error(values, expected), 0, tolerance<T>(variant.precision));
      }
  });
}

// Vector 2 among one to eight, in any place, beside vectors that are not finite.
template <class T>
void vectors_are_independent() {
  const Index m = 33, k = 65;
  each_variant<T>([&](const Variant& variant) {
    const std::vector<T> a = normal<T>(1, m * k), v = normal<T>(2, k);
    std::vector<T> many(std::size_t(kTile * k), kNan<T>);
    const std::vector<T> poisoned = nan_filled<T>(kTile * m);
    const std::vector<T> one = tile_of<T>(variant.precision, m, k, a.data(), false, 1, v.data(), k, false, poisoned, m);
    for (const int place : {0, 2, 7}) {
      std::copy(v.begin(), v.end(), many.begin() + place * k);
      const std::vector<T> out =
          tile_of<T>(variant.precision, m, k, a.data(), false, kTile, many.data(), k, false, poisoned, m);
      CHECK(same_bits(&out[std::size_t(place * m)], one.data(), m));
    }
  });
}

}  // namespace
}  // namespace lsc::test

int main() {
  using namespace lsc::test;
  return run({{"short patterns survive", short_patterns_survive},
              {"roundings of float32", roundings_of_float32},
              {"packs the first number low", packs_the_first_number_low},
              {"layouts of the tensor cores", layouts},
              {"products, float", products<float>},
              {"products, double", products<double>},
              {"starts, groups and terms, float", starts_groups_and_terms<float>},
              {"starts, groups and terms, double", starts_groups_and_terms<double>},
              {"empty extents, float", empty_extents<float>},
              {"empty extents, double", empty_extents<double>},
              {"rows are independent, float", rows_are_independent<float>},
              {"rows are independent, double", rows_are_independent<double>},
              {"float32's full range", full_range},
              {"long sums", long_sums},
              {"precision takes tensor cores", precision_takes_tensor_cores},
              {"tiles, float", tiles<float>},
              {"tiles, double", tiles<double>},
              {"vectors are independent, float", vectors_are_independent<float>},
              {"vectors are independent, double", vectors_are_independent<double>}});
}
