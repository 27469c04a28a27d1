// Linear recurrences against loops in double, over memory filled with NaN, for every option and at sizes around a
// vector, the split of lanes and the chunks of time.
#include "algorithms/scan.h"

#include <complex>
#include <utility>

#include "model.h"

namespace lsc::test {
namespace {

template <class T>
constexpr double kTol = 256 * double(std::numeric_limits<T>::epsilon());

using Complex = std::complex<double>;

// Number i of `values`, as a complex one.
template <class T>
Complex number(const std::vector<T>& values, bool is_complex, Index i) {
  if (!is_complex) return double(values[std::size_t(i)]);
  return {double(values[std::size_t(2 * i)]), double(values[std::size_t(2 * i + 1)])};
}

// The largest difference, relative where the expected number is larger than 1; NaN where one is NaN.
template <class T>
double worst_error(const std::vector<T>& found, bool is_complex, const std::vector<Complex>& expected) {
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const Complex difference = number(found, is_complex, Index(i)) - expected[i];
    const double size = std::max({1.0, std::abs(expected[i].real()), std::abs(expected[i].imag())});
    const double error = std::abs(difference.real()) + std::abs(difference.imag()) / size;
    if (!(error <= worst)) worst = error;
    if (std::isnan(error)) break;
  }
  return worst;
}

template <class T>
struct Problem {
  ScanShape shape;
  std::vector<T> transition, inputs, initial, states;

  Problem(const ScanShape& of, bool with_initial) : shape(of) {
    const Index width = shape.complex ? 2 : 1, all = shape.T * shape.row();
    transition = normal<T>(1, shape.constant ? shape.N * width : all);
    for (T& value : transition) value *= T(0.4);
    inputs = normal<T>(2, all);
    if (with_initial) initial = normal<T>(3, shape.row());
    states = nan_filled<T>(all);
  }

  void run(int threads, Poll poll = {}) {
    const Backend<T> own = backend<T>(threads, std::move(poll));
    DiagonalScan<T>(own, *cpu::kernel_tables<T>().scan, shape, transition.data(), inputs.data(),
                    initial.empty() ? nullptr : initial.data(), states.data())
        .run();
  }

  std::vector<Complex> expected() const {
    const Index lanes = shape.B * shape.N;
    std::vector<Complex> h(std::size_t(shape.T * lanes));
    for (Index lane = 0; lane < lanes; ++lane)
      for (Index step = 0; step < shape.T; ++step) {
        const Index t = shape.reverse ? shape.T - 1 - step : step, previous = shape.reverse ? t + 1 : t - 1;
        Complex& state = h[std::size_t(t * lanes + lane)];
        state = number(inputs, shape.complex, t * lanes + lane);
        if (step == 0 && initial.empty()) continue;
        const Index row = shape.adjoint ? previous : t;
        Complex a = number(transition, shape.complex, shape.constant ? lane % shape.N : row * lanes + lane);
        if (shape.adjoint) a = std::conj(a);
        state += a * (step == 0 ? number(initial, shape.complex, lane) : h[std::size_t(previous * lanes + lane)]);
      }
    return h;
  }
};

template <class T>
void check_against_loop(const ScanShape& shape, bool with_initial, int threads) {
  Problem<T> problem(shape, with_initial);
  problem.run(threads);
  CHECK_NEAR(worst_error(problem.states, shape.complex, problem.expected()), 0, kTol<T>);
}

template <class T>
void every_option_at(Index steps, Index sequences, Index lanes) {
  for (int options = 0; options < 16; ++options) {
    ScanShape shape;
    shape.T = steps, shape.B = sequences, shape.N = lanes;
    shape.complex = options & 1, shape.reverse = options & 2, shape.constant = options & 4, shape.adjoint = options & 8;
    check_against_loop<T>(shape, false, 2);
    if (!shape.adjoint) check_against_loop<T>(shape, true, 2);
  }
}

template <class T>
void diagonal() {
  for (const Index lanes : {1, 3, 31, 33, 65})
    for (const Index steps : {1, 2, 7}) every_option_at<T>(steps, 2, lanes);
  every_option_at<T>(3, 1, 10000);  // more than a tile
}

template <class T>
void chunks_of_time() {
  every_option_at<T>((1 << 20) / 22 + 1, 2, 11);
}

// In chunks, too, a product that overflows leaves a state of zero zero.
void overflowing_products() {
  ScanShape shape;
  shape.T = 1 << 20, shape.B = shape.N = 1, shape.constant = true;
  Problem<float> problem(shape, false);
  problem.transition = {3};
  std::fill(problem.inputs.begin(), problem.inputs.end(), 0.0f);
  problem.inputs.back() = 5;
  problem.run(2);
  CHECK(problem.states.front() == 0 && problem.states[std::size_t(shape.T - 2)] == 0 && problem.states.back() == 5);
}

template <class T>
void threads_change_nothing() {
  for (const Index steps : {9, (1 << 20) / 5})
    for (const Index lanes : {5, 1301}) {
      if (steps > 9 && lanes > 5) continue;
      ScanShape shape;
      shape.T = steps, shape.B = 1, shape.N = lanes, shape.complex = true;
      Problem<T> one(shape, true), three = one;
      one.run(1);
      three.run(3);
      CHECK(one.states == three.states);
    }
}

// A lane has the same bits wherever it stands and whoever stands beside it.
template <class T>
void lanes_are_independent() {
  ScanShape shape;
  shape.T = 5, shape.B = 1, shape.N = 67, shape.complex = true;
  Problem<T> together(shape, false);
  together.run(1);
  shape.N = 1;
  for (Index lane = 0; lane < 67; ++lane) {
    Problem<T> alone(shape, false);
    const auto pick = [&](const std::vector<T>& from, std::vector<T>& to) {
      for (Index t = 0; t < 5; ++t) std::copy_n(from.begin() + 2 * (67 * t + lane), 2, to.begin() + 2 * t);
    };
    pick(together.transition, alone.transition);
    pick(together.inputs, alone.inputs);
    alone.run(1);
    std::vector<T> expected(10);
    pick(together.states, expected);
    CHECK(alone.states == expected);
  }
}

void unused_transitions_are_not_read() {
  ScanShape shape;
  shape.T = 4, shape.B = 1, shape.N = 3;
  for (const bool adjoint : {false, true}) {
    shape.adjoint = adjoint;
    Problem<double> problem(shape, false);
    std::fill_n(problem.transition.begin() + (adjoint ? 9 : 0), 3, kNan<double>);
    problem.run(1);
    for (const double state : problem.states) CHECK(std::isfinite(state));
  }
}

void nothing_to_do() {
  for (const Index steps : {0, 2})
    for (const Index sequences : {0, 2})
      for (const Index lanes : {0, 2}) every_option_at<double>(steps, sequences, lanes);
}

void a_poll_interrupts() {
  ScanShape shape;
  shape.B = 1, shape.constant = true;
  for (const Index lanes : {2, 400}) {
    shape.T = 1 << 18, shape.N = lanes;
    Problem<float> problem(shape, false);
    CHECK_THROWS(problem.run(1, [] { return true; }), Interrupted);
  }
}

template <class T>
void blocks() {
  // Side by side in one handful and in two with a block left over, and one after another.
  for (const auto& [K, m] :
       std::vector<std::pair<Index, Index>>{{2, 1}, {2, 3}, {65, 2}, {67, 1}, {1, 3}, {2, 7}, {2, 17}, {2, 33}})
    for (int options = 0; options < 8; ++options)
      for (const int threads : {1, 3}) {
        BlockScanShape shape;
        shape.T = 5, shape.B = 3, shape.K = K, shape.m = m;
        shape.complex = options & 1, shape.reverse = options & 2;
        const bool with_initial = options & 4;
        const Index width = shape.complex ? 2 : 1, lanes = K * m, row = 3 * lanes;
        std::vector<T> transition = normal<T>(1, K * m * m * width);
        for (T& value : transition) value /= T(std::sqrt(2.0 * double(m)));
        const std::vector<T> inputs = normal<T>(2, 5 * row * width), initial = normal<T>(3, row * width);
        std::vector<T> states = nan_filled<T>(5 * row * width);
        block_scan(backend<T>(threads), *cpu::kernel_tables<T>().blocks, shape, transition.data(), inputs.data(),
                   with_initial ? initial.data() : nullptr, states.data());
        std::vector<Complex> expected(static_cast<std::size_t>(5 * row)), before(static_cast<std::size_t>(row));
        if (with_initial)
          for (Index i = 0; i < row; ++i) before[std::size_t(i)] = number(initial, shape.complex, i);
        for (Index step = 0; step < 5; ++step) {
          const Index t = shape.reverse ? 4 - step : step;
          std::vector<Complex> now(static_cast<std::size_t>(row));
          for (Index b = 0; b < 3; ++b)
            for (Index k = 0; k < K; ++k)
              for (Index i = 0; i < m; ++i) {
                const Index at = b * lanes + k * m + i;
                Complex sum = number(inputs, shape.complex, t * row + at);
                for (Index j = 0; j < m; ++j)
                  sum += number(transition, shape.complex, (k * m + i) * m + j) *
                         before[std::size_t(b * lanes + k * m + j)];
                now[std::size_t(at)] = expected[std::size_t(t * row + at)] = sum;
              }
          before = now;
        }
        CHECK_NEAR(worst_error(states, shape.complex, expected), 0, kTol<T>);
      }
}

}  // namespace
}  // namespace lsc::test

int main() {
  using namespace lsc::test;
  return run({{"diagonal, float", diagonal<float>},
              {"diagonal, double", diagonal<double>},
              {"chunks of time, float", chunks_of_time<float>},
              {"chunks of time, double", chunks_of_time<double>},
              {"overflowing products", overflowing_products},
              {"threads change nothing, float", threads_change_nothing<float>},
              {"threads change nothing, double", threads_change_nothing<double>},
              {"lanes are independent, float", lanes_are_independent<float>},
              {"lanes are independent, double", lanes_are_independent<double>},
              {"unused transitions are not read", unused_transitions_are_not_read},
              {"nothing to do", nothing_to_do},
              {"a poll interrupts", a_poll_interrupts},
              {"blocks, float", blocks<float>},
              {"blocks, double", blocks<double>}});
}
