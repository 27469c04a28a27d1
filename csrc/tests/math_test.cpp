// exp, tanh and sigmoid of every instruction set against the C library in a wider type. `math_test --all` takes every
// number of single precision.
#include <cstdint>
#include <cstring>
#include <mutex>

#include "model.h"

namespace lsc::test {
namespace {

constexpr double kUlps = 4;
bool every_number = false;

template <class T>
struct Precision;

template <>
struct Precision<float> {
  using Wide = double;
  using Word = std::uint32_t;
};

template <>
struct Precision<double> {
  using Wide = long double;
  using Word = std::uint64_t;
};

template <class T>
using Wide = typename Precision<T>::Wide;
template <class T>
using Word = typename Precision<T>::Word;

template <class T>
struct Function {
  const char* name;
  void (*tested)(Index n, const T* x, T* y);
  Wide<T> (*witness)(Wide<T> x);
};

template <class T>
std::vector<Function<T>> functions() {
  const cpu::PointwiseKernels<T>& kernels = *cpu::kernel_tables<T>().pointwise;
  return {{"exp", kernels.exp, [](Wide<T> x) { return std::exp(x); }},
          {"tanh", kernels.tanh, [](Wide<T> x) { return std::tanh(x); }},
          {"sigmoid", kernels.sigmoid, [](Wide<T> x) { return 1 / (1 + std::exp(-x)); }}};
}

template <class T>
T from_word(Word<T> word) {
  T x;
  std::memcpy(&x, &word, sizeof x);
  return x;
}

template <class T>
Word<T> to_word(T x) {
  Word<T> word;
  std::memcpy(&word, &x, sizeof word);
  return word;
}

// In units of the last place of `expected`, denormals included. Infinity stands for the number that would follow the
// largest one. NaN is near NaN alone.
template <class T>
double ulps(T value, Wide<T> expected) {
  using Limits = std::numeric_limits<T>;
  if (std::isnan(value) || std::isnan(expected))
    return std::isnan(value) && std::isnan(expected) ? 0 : std::numeric_limits<double>::infinity();
  const Wide<T> overflow = std::ldexp(Wide<T>(1), Limits::max_exponent);
  const Wide<T> y = std::isinf(value) ? std::copysign(overflow, Wide<T>(value)) : Wide<T>(value);
  if (std::fabs(expected) > overflow) expected = std::copysign(overflow, expected);
  int exponent = Limits::min_exponent;
  if (expected != 0) exponent = std::max(exponent, std::ilogb(expected) + 1);
  return double(std::fabs(std::ldexp(y - expected, Limits::digits - exponent)));
}

template <class T>
struct Worst {
  double error = 0;
  T x = 0, y = 0;

  void meet(const Worst& other) {
    if (!(other.error <= error)) *this = other;
  }
};

template <class T>
Worst<T> worst_of(const Function<T>& function, const std::vector<T>& x) {
  std::vector<T> y = nan_filled<T>(Index(x.size()));
  function.tested(Index(x.size()), x.data(), y.data());
  Worst<T> worst;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Worst<T> here = {ulps(y[i], function.witness(Wide<T>(x[i]))), x[i], y[i]};
    // No sign gets lost: that of tanh is the argument's, and the others have none.
    const bool sign = std::isnan(x[i]) || std::signbit(y[i]) == (function.name[0] == 't' && std::signbit(x[i]));
    worst.meet(sign ? here : Worst<T>{std::numeric_limits<double>::infinity(), x[i], y[i]});
  }
  return worst;
}

template <class T>
void hold(const Function<T>& function, const Worst<T>& worst) {
  char text[200];
  std::snprintf(text, sizeof text, "%s, %d bits, %s: %.3f ulp at %.17g (%a), where it is %.17g", function.name,
                int(8 * sizeof(T)), cpu::instruction_set().name, worst.error, double(worst.x), double(worst.x),
                double(worst.y));
  if (every_number) std::printf("%s\n", text);
  report(worst.error <= kUlps, __FILE__, __LINE__, text);
}

// The numbers around every x where a method changes: both zeros, the smallest and the largest numbers, infinities, NaN,
// the multiples of log(2) / 2 and of log(2) / 4, and the ends of what has a finite exponential.
template <class T>
std::vector<T> special() {
  using Limits = std::numeric_limits<T>;
  std::vector<T> centres = {T(0), Limits::denorm_min(), Limits::min(), Limits::max(), Limits::epsilon(), T(1)};
  for (const double end : {9.010913, 9.1, 88.72284, 89.0, 87.33655, 103.2789, 104.0, 19.06154, 19.1, 709.7827, 710.0,
                           708.3964, 744.4401, 745.1332, 746.0})
    centres.push_back(T(end));
  for (int k = 1; k < 2200; ++k) centres.push_back(T(k * 0.34657359027997265));
  for (int k = 1; k < 120; k += 2) centres.push_back(T(k * 0.17328679513998633));
  std::vector<T> x = {Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN(), -Limits::quiet_NaN()};
  constexpr int around = 40;
  for (const T centre : centres)
    for (int step = -around; step <= around; ++step) {
      const Word<T> word = to_word(centre) + Word<T>(step);
      x.push_back(from_word<T>(word));
      x.push_back(-from_word<T>(word));
    }
  return x;
}

template <class T>
void special_numbers() {
  const std::vector<T> x = special<T>();
  for (const Function<T>& function : functions<T>()) hold(function, worst_of(function, x));
}

// Every `stride`-th bit pattern of single precision.
void bit_patterns() {
  const std::int64_t stride = every_number ? 1 : 4099, count = (std::int64_t(1) << 32) / stride;
  constexpr std::int64_t block = 1 << 14;
  for (const Function<float>& function : functions<float>()) {
    Worst<float> worst;
    std::mutex one_at_a_time;
    parallel_ranges(every_number ? 2 : 1, count, {}, [&](std::int64_t begin, std::int64_t end, const Poll&) {
      std::vector<float> x;
      for (std::int64_t from = begin; from < end; from += block) {
        x.clear();
        for (std::int64_t i = from; i < std::min(from + block, end); ++i)
          x.push_back(from_word<float>(std::uint32_t(i * stride)));
        const Worst<float> here = worst_of(function, x);
        const std::lock_guard<std::mutex> lock(one_at_a_time);
        worst.meet(here);
      }
    });
    hold(function, worst);
  }
}

// Evenly over bit patterns, and over the arguments where the functions are neither 0, 1 nor infinite.
void double_precision_samples() {
  const Index count = every_number ? 20'000'000 : 200'000;
  for (const Function<double>& function : functions<double>()) {
    std::vector<double> x;
    for (Index i = 0; i < count; ++i) {
      const Philox random = philox(11, 0, std::uint64_t(i));
      const std::uint64_t word = std::uint64_t{random.word[0]} << 32 | random.word[1];
      const double unit = double(word >> 11) * 0x1p-52 - 1;  // in [-1, 1)
      x.push_back(i % 4 == 0 ? from_word<double>(word) : unit * (i % 4 == 1 ? 1 : i % 4 == 2 ? 20 : 750));
    }
    hold(function, worst_of(function, x));
  }
}

// The limits are exact.
template <class T>
void limits() {
  const T x[] = {-std::numeric_limits<T>::infinity(), std::numeric_limits<T>::infinity(), T(0)};
  const cpu::PointwiseKernels<T>& kernels = *cpu::kernel_tables<T>().pointwise;
  T exp[3], tanh[3], sigmoid[3];
  kernels.exp(3, x, exp);
  kernels.tanh(3, x, tanh);
  kernels.sigmoid(3, x, sigmoid);
  CHECK(exp[0] == 0 && exp[1] == x[1] && exp[2] == 1);
  CHECK(tanh[0] == -1 && tanh[1] == 1 && tanh[2] == 0);
  CHECK(sigmoid[0] == 0 && sigmoid[1] == 1 && sigmoid[2] == T(0.5));
}

// What stands at an element depends on that element alone.
template <class T>
void positions_do_not_matter() {
  const std::vector<T> x = normal<T>(5, 67);
  for (const Function<T>& function : functions<T>()) {
    std::vector<T> together = nan_filled<T>(67), alone = nan_filled<T>(67);
    function.tested(67, x.data(), together.data());
    for (Index i = 0; i < 67; ++i) function.tested(1, x.data() + i, alone.data() + i);
    CHECK(together == alone);
  }
}

}  // namespace
}  // namespace lsc::test

int main(int count, char** arguments) {
  using namespace lsc::test;
  every_number = count > 1 && std::strcmp(arguments[1], "--all") == 0;
  return run({{"special numbers, single precision", special_numbers<float>},
              {"special numbers, double precision", special_numbers<double>},
              {"bit patterns, single precision", bit_patterns},
              {"samples, double precision", double_precision_samples},
              {"limits, single precision", limits<float>},
              {"limits, double precision", limits<double>},
              {"positions do not matter, single precision", positions_do_not_matter<float>},
              {"positions do not matter, double precision", positions_do_not_matter<double>}});
}
