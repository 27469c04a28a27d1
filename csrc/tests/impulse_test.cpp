// Responses to an impulse and their derivatives against loops in double, over memory filled with NaN, for blocks side
// by side and one after another.
#include "algorithms/impulse.h"

#include "model.h"

namespace lsc::test {
namespace {

template <class T>
constexpr double kTol = 512 * double(std::numeric_limits<T>::epsilon());

template <class T>
struct Problem {
  ImpulseShape shape;
  std::vector<T> A, B, C, states, response;

  explicit Problem(const ImpulseShape& of) : shape(of) {
    const Index n = shape.K * shape.m;
    A = normal<T>(1, n * shape.m), B = normal<T>(2, n * shape.I), C = normal<T>(3, shape.O * n);
    for (T& value : A) value *= T(0.3);
    states = nan_filled<T>(ImpulseResponse<T>::states_size(*cpu::kernel_tables<T>().blocks, shape));
    response = nan_filled<T>(shape.T * shape.O * shape.I);
  }

  ImpulseResponse<T> on(const Backend<T>& own) const {
    return {own, *cpu::kernel_tables<T>().blocks, shape, A.data(), C.data()};
  }

  // C A^k B by its definition, of any matrices.
  std::vector<double> expected(const std::vector<double>& a, const std::vector<double>& b,
                               const std::vector<double>& c) const {
    const Index n = shape.K * shape.m, m = shape.m;
    std::vector<double> found(std::size_t(shape.T * shape.O * shape.I));
    for (Index i = 0; i < shape.I; ++i) {
      std::vector<double> x(static_cast<std::size_t>(n)), next(x);
      for (Index r = 0; r < n; ++r) x[std::size_t(r)] = b[std::size_t(r * shape.I + i)];
      for (Index t = 0; t < shape.T; ++t) {
        for (Index o = 0; o < shape.O; ++o) {
          double sum = 0;
          for (Index r = 0; r < n; ++r) sum += c[std::size_t(o * n + r)] * x[std::size_t(r)];
          found[std::size_t((t * shape.O + o) * shape.I + i)] = sum;
        }
        for (Index r = 0; r < n; ++r) {
          double sum = 0;
          for (Index j = 0; j < m; ++j) sum += a[std::size_t(r * m + j)] * x[std::size_t(r / m * m + j)];
          next[std::size_t(r)] = sum;
        }
        x.swap(next);
      }
    }
    return found;
  }
};

template <class T>
std::vector<double> widened(const std::vector<T>& values) {
  return {values.begin(), values.end()};
}

std::vector<double> along(const std::vector<double>& at, const std::vector<double>& change, double step) {
  std::vector<double> moved(at);
  for (std::size_t i = 0; i < moved.size(); ++i) moved[i] += step * change[i];
  return moved;
}

template <class T>
double worst(const std::vector<T>& found, const std::vector<double>& expected) {
  double error = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double apart = std::abs(double(found[i]) - expected[i]) / std::max(1.0, std::abs(expected[i]));
    if (!(apart <= error)) error = apart;
  }
  return error;
}

const std::vector<ImpulseShape>& shapes() {
  static const std::vector<ImpulseShape> all = {{1, 1, 1, 1, 1},  {9, 1, 3, 2, 1}, {5, 1, 17, 1, 3}, {4, 1, 70, 2, 2},
                                                {6, 17, 2, 1, 1}, {5, 3, 7, 2, 2}, {4, 3, 8, 1, 2},  {3, 2, 33, 2, 1},
                                                {4, 5, 1, 1, 1},  {4, 2, 2, 0, 1}, {4, 2, 2, 1, 0}};
  return all;
}

template <class T>
void responses() {
  for (const ImpulseShape& shape : shapes()) {
    Problem<T> problem(shape);
    const Backend<T> own = backend<T>(2);
    problem.on(own).run(problem.B.data(), problem.states.data(), problem.response.data());
    CHECK_NEAR(worst(problem.response, problem.expected(widened(problem.A), widened(problem.B), widened(problem.C))), 0,
               kTol<T>);
  }
}

// The change along a direction is what the gradients by a slope say of it, and the difference of two responses.
template <class T>
void derivatives() {
  for (const ImpulseShape& shape : shapes()) {
    Problem<T> problem(shape);
    const Backend<T> own = backend<T>(2);
    const auto impulse = problem.on(own);
    impulse.run(problem.B.data(), problem.states.data(), problem.response.data());
    const std::vector<T> dA = normal<T>(4, Index(problem.A.size())), dB = normal<T>(5, Index(problem.B.size())),
                         dC = normal<T>(6, Index(problem.C.size()));
    std::vector<T> change = nan_filled<T>(Index(problem.response.size()));
    impulse.push(dA.data(), dB.data(), dC.data(), problem.states.data(), change.data());
    constexpr double kStep = 1e-6;
    const auto moved = [&](double step) {
      return problem.expected(along(widened(problem.A), widened(dA), step),
                              along(widened(problem.B), widened(dB), step),
                              along(widened(problem.C), widened(dC), step));
    };
    const std::vector<double> more = moved(kStep), less = moved(-kStep);
    std::vector<double> difference(more);
    for (std::size_t i = 0; i < more.size(); ++i) difference[i] = (more[i] - less[i]) / (2 * kStep);
    CHECK_NEAR(worst(change, difference), 0, std::max(kTol<T>, 1e-7));

    const std::vector<T> slope = normal<T>(7, Index(problem.response.size()));
    std::vector<T> gA = nan_filled<T>(Index(dA.size())), gB = nan_filled<T>(Index(dB.size())),
                   gC = nan_filled<T>(Index(dC.size()));
    impulse.pull(slope.data(), problem.states.data(), gA.data(), gB.data(), gC.data());
    double by_change = 0, by_gradient = 0, size = 1;
    for (std::size_t i = 0; i < slope.size(); ++i) by_change += double(slope[i]) * double(change[i]);
    const auto add = [&](const std::vector<T>& gradient, const std::vector<T>& direction) {
      for (std::size_t i = 0; i < gradient.size(); ++i) {
        by_gradient += double(gradient[i]) * double(direction[i]);
        size += std::abs(double(gradient[i]) * double(direction[i]));
      }
    };
    add(gA, dA), add(gB, dB), add(gC, dC);
    CHECK_NEAR((by_change - by_gradient) / size, 0, kTol<T>);
  }
}

void a_poll_interrupts() {
  Problem<double> problem({200, 1, 8, 1, 1});
  const Backend<double> own = backend<double>(1, [] { return true; });
  bool interrupted = false;
  try {
    problem.on(own).run(problem.B.data(), problem.states.data(), problem.response.data());
  } catch (const Interrupted&) {
    interrupted = true;
  }
  CHECK(interrupted);
}

}  // namespace
}  // namespace lsc::test

int main() {
  using namespace lsc::test;
  return run({{"responses, float", responses<float>},
              {"responses, double", responses<double>},
              {"derivatives, float", derivatives<float>},
              {"derivatives, double", derivatives<double>},
              {"a poll interrupts", a_poll_interrupts}});
}
