// Spectral radii of matrices whose eigenvalues are known.
#include "algorithms/radius_batch.h"
#include "model.h"

namespace lsc::test {
namespace {

using Matrix = std::vector<double>;

struct Answer {
  std::vector<RadiusResult> results;
  std::vector<double> vectors;
};

Answer estimate(Index n, const Matrix& matrices, const RadiusTargets& targets = {}, int threads = 1,
                Index max_matvecs = 600) {
  const Index count = n == 0 ? 1 : Index(matrices.size()) / (n * n);
  const MatrixOperator<double> jacobian(cpu::linear_kernels<double>(), count, n, n, matrices.data());
  RadiusOptions options;
  options.seed = 11;
  options.max_matvecs = max_matvecs;
  Answer answer{std::vector<RadiusResult>(std::size_t(count)), nan_filled<double>(count * 2 * n)};
  estimate_radii(backend<double>(threads), jacobian, options, count, targets, answer.results.data(),
                 answer.vectors.data());
  return answer;
}

RadiusResult radius_of(Index n, const Matrix& matrix) { return estimate(n, matrix).results[0]; }

Matrix diagonal(const std::vector<double>& values) {
  Matrix matrix(values.size() * values.size(), 0.0);
  for (std::size_t i = 0; i < values.size(); ++i) matrix[i * (values.size() + 1)] = values[i];
  return matrix;
}

// Blocks r [cos, -sin; sin, cos] with the given radii.
Matrix rotations(const std::vector<double>& radii) {
  const std::size_t n = 2 * radii.size();
  Matrix matrix(n * n, 0.0);
  for (std::size_t i = 0; i < radii.size(); ++i) {
    const double angle = 0.3 + 0.7 * double(i), c = radii[i] * std::cos(angle), s = radii[i] * std::sin(angle);
    const std::size_t at = 2 * i * (n + 1);
    matrix[at] = matrix[at + n + 1] = c;
    matrix[at + 1] = -s;
    matrix[at + n] = s;
  }
  return matrix;
}

void rotation() {
  for (const double radius : {0.5, 1.0, 3.0}) {
    const RadiusResult result = radius_of(2, rotations({radius}));
    CHECK_NEAR(result.radius, radius, 1e-12);
    CHECK_NEAR(std::abs(result.eigenvalue.real()), std::abs(radius * std::cos(0.3)), 1e-12);
    CHECK(result.status == Status::converged);
  }
  std::vector<double> radii;
  for (int i = 0; i < 30; ++i) radii.push_back(0.95 - 0.02 * i);
  const RadiusResult result = radius_of(60, rotations(radii));
  CHECK_NEAR(result.radius, 0.95, 1e-3);
  CHECK(result.status == Status::converged);
}

// Every eigenvalue on the unit circle: growth and largest singular value agree.
void ring() {
  const RadiusResult result = radius_of(200, rotations(std::vector<double>(100, 1.0)));
  CHECK_NEAR(result.radius, 1, 1e-3);
  CHECK(result.status == Status::converged);
}

void zero() {
  for (const Index n : {1, 2, 40}) {
    const RadiusResult result = radius_of(n, Matrix(std::size_t(n * n), 0.0));
    CHECK(result.radius == 0);
    CHECK(result.residual == 0);
    CHECK(result.status == Status::converged);
  }
}

// J^k v is exactly 0 after at most n products.
void nilpotent() {
  for (const Index n : {2, 3, 20}) {
    Matrix shift(std::size_t(n * n), 0.0);
    for (Index i = 0; i + 1 < n; ++i) shift[std::size_t(i * n + i + 1)] = 2;
    const RadiusResult result = radius_of(n, shift);
    CHECK(result.radius == 0);
    CHECK(result.status == Status::converged);
  }
}

void diagonals() {
  CHECK_NEAR(radius_of(1, {-0.7}).radius, 0.7, 1e-14);
  const RadiusResult negative = radius_of(3, diagonal({0.5, -2, 1}));
  CHECK_NEAR(negative.radius, 2, 1e-12);
  CHECK_NEAR(negative.eigenvalue.real(), -2, 1e-12);
  std::vector<double> values;
  for (int i = 0; i < 100; ++i) values.push_back(std::pow(0.9, i));
  const RadiusResult result = radius_of(100, diagonal(values));
  CHECK_NEAR(result.radius, 1, 1e-3);
  CHECK(result.status == Status::converged);
  const RadiusResult identity = radius_of(50, diagonal(std::vector<double>(50, 1.0)));
  CHECK_NEAR(identity.radius, 1, 1e-12);
  CHECK(identity.status == Status::converged);
}

void empty() {
  const RadiusResult result = radius_of(0, {});
  CHECK(result.radius == 0);
  CHECK(result.status == Status::converged);
}

void not_finite() {
  const RadiusResult result = radius_of(3, diagonal({1, kNan<double>, 1}));
  CHECK(std::isnan(result.radius));
  CHECK(result.status == Status::nonfinite);
  CHECK(radius_of(2, diagonal({1, std::numeric_limits<double>::infinity()})).status == Status::nonfinite);
}

void ritz_vector() {
  const Index n = 24;
  const Matrix matrix = normal<double>(3, n * n);
  const Answer answer = estimate(n, matrix);
  const Complex lambda = answer.results[0].eigenvalue;
  CHECK(answer.results[0].status == Status::converged);
  double length = 0, residual = 0;
  for (Index i = 0; i < n; ++i) {
    const auto x = [&](Index j) { return Complex(answer.vectors[std::size_t(j)], answer.vectors[std::size_t(n + j)]); };
    Complex difference = -lambda * x(i);
    for (Index j = 0; j < n; ++j) difference += matrix[std::size_t(i * n + j)] * x(j);
    length += std::norm(x(i));
    residual += std::norm(difference);
  }
  CHECK_NEAR(length, 1, 1e-10);
  CHECK(std::sqrt(residual) <= 1e-3 * std::abs(lambda));
}

// The left vector is asked for by its eigenvalue, on J'.
void targets() {
  const Index n = 24;
  const Matrix matrix = normal<double>(3, n * n);
  const Complex wanted = estimate(n, matrix).results[0].eigenvalue;
  RadiusTargets left;
  left.eigenvalue = &wanted;
  left.transposed = true;
  const RadiusResult result = estimate(n, matrix, left).results[0];
  CHECK(result.status == Status::converged);
  CHECK_NEAR(std::abs(result.eigenvalue - wanted) / std::abs(wanted), 0, 1e-3);
}

void same(const RadiusResult& a, const RadiusResult& b) {
  CHECK(a.radius == b.radius);
  CHECK(a.eigenvalue == b.eigenvalue);
  CHECK(a.residual == b.residual);
  CHECK(a.num_matvecs == b.num_matvecs);
  CHECK(a.status == b.status);
}

void threads_and_companions_change_nothing() {
  const Index n = 48, count = 60;
  Matrix matrices = normal<double>(4, n * n * count);
  const Answer one = estimate(n, matrices, {}, 1), three = estimate(n, matrices, {}, 3);
  CHECK(one.vectors == three.vectors);
  for (std::size_t i = 0; i < std::size_t(count); ++i) same(one.results[i], three.results[i]);
  const Index chosen = 41;
  const MatrixOperator<double> jacobian(cpu::linear_kernels<double>(), count, n, n, matrices.data());
  RadiusTargets targets;
  targets.point = &chosen;
  RadiusOptions options;
  options.seed = 11;
  RadiusResult alone;
  estimate_radii<double>(backend<double>(), jacobian, options, 1, targets, &alone, nullptr);
  same(alone, one.results[std::size_t(chosen)]);
}

void budget() {
  const Index n = 200;
  const RadiusResult result = estimate(n, normal<double>(6, n * n), {}, 1, 30).results[0];
  CHECK(result.num_matvecs <= 30);
  CHECK(result.status != Status::converged);
  CHECK(std::isfinite(result.radius));
}

void rectangular_is_refused() {
  const Matrix matrix(6, 1.0);
  const MatrixOperator<double> jacobian(cpu::linear_kernels<double>(), 1, 2, 3, matrix.data());
  RadiusResult result;
  CHECK_THROWS(estimate_radii<double>(backend<double>(), jacobian, {}, 1, {}, &result, nullptr), std::invalid_argument);
}

}  // namespace
}  // namespace lsc::test

int main() {
  using namespace lsc::test;
  return run({{"rotation", rotation},
              {"ring", ring},
              {"zero", zero},
              {"nilpotent", nilpotent},
              {"diagonal", diagonals},
              {"empty", empty},
              {"not finite", not_finite},
              {"Ritz vector", ritz_vector},
              {"targets", targets},
              {"threads and companions change nothing", threads_and_companions_change_nothing},
              {"budget", budget},
              {"a rectangular operator is refused", rectangular_is_refused}});
}
