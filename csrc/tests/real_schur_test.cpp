// The real Schur form: A = Z T Z' with orthogonal Z and quasi-triangular T, and eigenvectors from it.
#include "algorithms/real_schur.h"

#include "model.h"

namespace lsc::test {
namespace {

using Matrix = std::vector<double>;

double largest(const Matrix& A) {
  double size = 0;
  for (const double a : A) size = std::max(size, std::abs(a));
  return size;
}

// Every property that holds for any matrix; residuals are relative to the largest entry.
RealSchur checked(int m, const Matrix& A, double tol = 1e-12) {
  RealSchur schur;
  CHECK(schur.factor(m, A.data()));
  const double size = largest(A) * m;
  const auto at = [m](const Matrix& M, int i, int j) { return M[std::size_t(i * m + j)]; };
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < m; ++j) {
      double orthogonal = 0, product = 0;
      for (int k = 0; k < m; ++k) {
        orthogonal += at(schur.Z, i, k) * at(schur.Z, j, k);
        for (int l = 0; l < m; ++l) product += at(schur.Z, i, k) * at(schur.T, k, l) * at(schur.Z, j, l);
      }
      CHECK_NEAR(orthogonal, i == j, tol);
      CHECK_NEAR(product / size, at(A, i, j) / size, tol);
      if (j + 1 < i) CHECK(at(schur.T, i, j) == 0);
    }
  CHECK(int(schur.eigenvalues.size()) == m);
  for (int i = 0; i + 2 < m; ++i) CHECK(at(schur.T, i + 1, i) == 0 || at(schur.T, i + 2, i + 1) == 0);
  Complex sum = 0;
  double trace = 0;
  std::vector<Complex> x(static_cast<std::size_t>(m)), y(static_cast<std::size_t>(m));
  for (int i = 0; i < m; ++i) {
    const Complex lambda = schur.eigenvalues[std::size_t(i)];
    sum += lambda;
    trace += at(A, i, i);
    schur.right_vector(i, x.data());
    schur.left_vector(i, y.data());
    double x_length = 0, y_length = 0;
    for (int r = 0; r < m; ++r) {
      Complex right = -lambda * x[std::size_t(r)], left = -lambda * y[std::size_t(r)];
      for (int c = 0; c < m; ++c) {
        right += at(A, r, c) * x[std::size_t(c)];
        left += at(A, c, r) * y[std::size_t(c)];
      }
      CHECK_NEAR(std::abs(right) / size, 0, tol);
      CHECK_NEAR(std::abs(left) / size, 0, tol);
      x_length += std::norm(x[std::size_t(r)]);
      y_length += std::norm(y[std::size_t(r)]);
    }
    CHECK_NEAR(x_length, 1, tol);
    CHECK_NEAR(y_length, 1, tol);
  }
  CHECK_NEAR(sum.real() / size, trace / size, tol);
  CHECK_NEAR(sum.imag() / size, 0, tol);
  return schur;
}

void random_matrices() {
  for (const int m : {1, 2, 3, 4, 5, 8, 17, 32, 40})
    for (std::uint64_t seed = 0; seed < 5; ++seed) checked(m, normal<double>(seed, m * m));
}

void one_by_one() {
  const RealSchur schur = checked(1, {-2.5});
  CHECK(schur.eigenvalues[0] == Complex(-2.5));
}

void complex_pair() {
  const RealSchur schur = checked(2, {3, -4, 4, 3});
  CHECK_NEAR(std::abs(schur.eigenvalues[0]), 5, 1e-14);
  CHECK_NEAR(schur.eigenvalues[0].real(), 3, 1e-14);
  CHECK_NEAR(std::abs(schur.eigenvalues[0].imag()), 4, 1e-14);
  CHECK(schur.eigenvalues[0] == std::conj(schur.eigenvalues[1]));
}

// The eigenvalues of the companion matrix of x^4 - 1: 1, -1, i, -i. Plain shifts can stall on it.
void roots_of_unity() {
  const RealSchur schur = checked(4, {0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0});
  for (const Complex& lambda : schur.eigenvalues) {
    CHECK_NEAR(std::abs(lambda), 1, 1e-13);
    CHECK_NEAR(std::abs(lambda * lambda * lambda * lambda - 1.0), 0, 1e-13);
  }
}

void triangular() {
  const RealSchur schur = checked(3, {1, 2, 3, 0, 4, 5, 0, 0, 6});
  double product = 1;
  for (const Complex& lambda : schur.eigenvalues) {
    CHECK(lambda.imag() == 0);
    product *= lambda.real();
  }
  CHECK_NEAR(product, 24, 1e-12);
}

// A Jordan block of size m has its eigenvalue to the m-th root of rounding only; the factorisation is exact all the
// same.
void defective() {
  const RealSchur schur = checked(3, {2, 1, 0, 0, 2, 1, 0, 0, 2});
  for (const Complex& lambda : schur.eigenvalues) CHECK_NEAR(std::abs(lambda - 2.0), 0, 1e-4);
  Matrix similar = {2, 1, 0, 0, 2, 1, 0, 0, 2};
  const double c = 0.6, s = 0.8;  // rotated, so that the iteration has work to do
  for (int j = 0; j < 3; ++j) {
    const double a = similar[std::size_t(j)], b = similar[std::size_t(6 + j)];
    similar[std::size_t(j)] = c * a - s * b;
    similar[std::size_t(6 + j)] = s * a + c * b;
  }
  for (int i = 0; i < 3; ++i) {
    const double a = similar[std::size_t(3 * i)], b = similar[std::size_t(3 * i + 2)];
    similar[std::size_t(3 * i)] = c * a - s * b;
    similar[std::size_t(3 * i + 2)] = s * a + c * b;
  }
  for (const Complex& lambda : checked(3, similar).eigenvalues) CHECK_NEAR(std::abs(lambda - 2.0), 0, 1e-4);
}

void special() {
  Matrix identity(25, 0.0), ones(25, 1.0), symmetric = normal<double>(3, 25);
  for (int i = 0; i < 5; ++i) {
    identity[std::size_t(6 * i)] = 1;
    for (int j = 0; j < i; ++j) symmetric[std::size_t(5 * i + j)] = symmetric[std::size_t(5 * j + i)];
  }
  checked(5, identity);
  checked(5, ones);
  for (const Complex& lambda : checked(5, symmetric).eigenvalues) CHECK(std::abs(lambda.imag()) < 1e-7);
  RealSchur schur;
  CHECK(schur.factor(4, Matrix(16, 0.0).data()));
  for (const Complex& lambda : schur.eigenvalues) CHECK(lambda == 0.0);
}

void scales() {
  for (const double scale : {1e-60, 1e60}) {
    Matrix matrix = normal<double>(4, 25);
    for (double& value : matrix) value *= scale;
    checked(5, matrix);
  }
}

void not_finite() {
  RealSchur schur;
  for (const double bad : {kNan<double>, std::numeric_limits<double>::infinity()}) {
    const double A[] = {1, bad, 0, 1};
    CHECK(!schur.factor(2, A));
  }
  const double A[] = {1, 2, 3, 4};
  CHECK(schur.factor(2, A));
}

}  // namespace
}  // namespace lsc::test

int main() {
  using namespace lsc::test;
  return run({{"random matrices", random_matrices},
              {"1 x 1", one_by_one},
              {"a complex pair", complex_pair},
              {"roots of unity", roots_of_unity},
              {"triangular", triangular},
              {"defective", defective},
              {"zero, identity, ones, symmetric", special},
              {"tiny, huge", scales},
              {"not finite", not_finite}});
}
