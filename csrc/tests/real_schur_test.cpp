// The real Schur form: A = Z T Z' with orthogonal Z and quasi-triangular T, and eigenvectors from it.
#include "algorithms/real_schur.h"

#include <complex>

#include "model.h"

namespace lsc::test {
namespace {

using Complex = std::complex<double>;
using Matrix = std::vector<double>;

double largest(const Matrix& A) {
  double size = 0;
  for (const double a : A) size = std::max(size, std::abs(a));
  return size;
}

const SchurKernels& kernels() { return *cpu::linear_kernels<double>().schur; }

constexpr double kPrecision = std::numeric_limits<double>::epsilon();

bool factor(int m, const Matrix& A, RealSchur& schur, double precision = kPrecision) {
  return kernels().factor(m, A.data(), m, precision, schur);
}

Complex eigenvalue(const RealSchur& schur, int i) { return {schur.real[i], schur.imaginary[i]}; }

// The eigenvalues, once every property that holds for any matrix is checked. Residuals are relative to the largest
// entry.
std::vector<Complex> eigenvalues(int m, const Matrix& A, double tol = 1e-12, double precision = kPrecision) {
  RealSchur schur;
  CHECK(factor(m, A, schur, precision));
  const double size = largest(A) == 0 ? 1 : largest(A) * m;
  double squares = 0;
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < m; ++j) {
      double orthogonal = 0, product = 0;
      for (int k = 0; k < m; ++k) {
        orthogonal += schur.z(i, k) * schur.z(j, k);
        for (int l = 0; l < m; ++l) product += schur.z(i, k) * schur.t(k, l) * schur.z(j, l);
      }
      const double entry = A[std::size_t(i * m + j)] / size;
      squares += entry * entry;
      CHECK_NEAR(orthogonal, i == j, tol);
      CHECK_NEAR(product * (schur.scale / size), entry, tol);
      if (j + 1 < i) CHECK(schur.t(i, j) == 0);
    }
  CHECK_NEAR(schur.frobenius / size, std::sqrt(squares), tol);
  for (int i = 0; i + 2 < m; ++i) CHECK(schur.t(i + 1, i) == 0 || schur.t(i + 2, i + 1) == 0);
  std::vector<Complex> values;
  Complex sum = 0;
  double trace = 0;
  for (int i = 0; i < m; ++i) {
    const Complex lambda = eigenvalue(schur, i) / size;
    CHECK_NEAR(schur.modulus[i] / size, std::abs(lambda), 1e-14);
    values.push_back(eigenvalue(schur, i));
    sum += lambda;
    trace += A[std::size_t(i * m + i)] / size;
    SchurVector x, y;
    kernels().right_vector(schur, i, x);
    kernels().left_vector(schur, i, y);
    double x_length = 0, y_length = 0;
    for (int r = 0; r < m; ++r) {
      const Complex x_r(x.real[r], x.imaginary[r]), y_r(y.real[r], y.imaginary[r]);
      Complex right = -lambda * x_r, left = -lambda * y_r;
      for (int c = 0; c < m; ++c) {
        right += A[std::size_t(r * m + c)] / size * Complex(x.real[c], x.imaginary[c]);
        left += A[std::size_t(c * m + r)] / size * Complex(y.real[c], y.imaginary[c]);
      }
      CHECK_NEAR(std::abs(right), 0, tol);
      CHECK_NEAR(std::abs(left), 0, tol);
      x_length += std::norm(x_r);
      y_length += std::norm(y_r);
    }
    CHECK_NEAR(x_length, 1, tol);
    CHECK_NEAR(y_length, 1, tol);
  }
  CHECK_NEAR(sum.real(), trace, tol);
  CHECK_NEAR(sum.imag(), 0, tol);
  return values;
}

void random_matrices() {
  for (int m = 1; m <= RealSchur::kLargest; ++m)
    for (std::uint64_t seed = 0; seed < 3; ++seed) eigenvalues(m, normal<double>(seed, m * m));
}

// What Arnoldi hands over: Hessenberg, and after a restart a full block before it.
void hessenberg() {
  for (const int m : {2, 3, 16, 31, 40})
    for (const int block : {0, 1, m / 2}) {
      Matrix matrix = normal<double>(std::uint64_t(m), m * m);
      for (int i = 0; i < m; ++i)
        for (int j = 0; j + 1 < i; ++j)
          if (i > block) matrix[std::size_t(i * m + j)] = 0;
      eigenvalues(m, matrix);
    }
}

// A matrix that lies in a larger one, as H does in its space for more columns.
void rows_apart() {
  const Matrix matrix = normal<double>(1, 25);
  RealSchur whole, part;
  CHECK(kernels().factor(3, matrix.data(), 5, kPrecision, part));
  CHECK(factor(3,
               {matrix[0], matrix[1], matrix[2], matrix[5], matrix[6], matrix[7], matrix[10], matrix[11], matrix[12]},
               whole));
  for (int i = 0; i < 3; ++i) CHECK(eigenvalue(whole, i) == eigenvalue(part, i));
}

void precision() {
  for (const int m : {5, 16, 40}) eigenvalues(m, normal<double>(7, m * m), 1e-8, 1e-10);
}

void one_by_one() { CHECK(eigenvalues(1, {-2.5})[0] == Complex(-2.5)); }

void complex_pair() {
  const std::vector<Complex> values = eigenvalues(2, {3, -4, 4, 3});
  CHECK_NEAR(std::abs(values[0]), 5, 1e-14);
  CHECK_NEAR(values[0].real(), 3, 1e-14);
  CHECK_NEAR(std::abs(values[0].imag()), 4, 1e-14);
  CHECK(values[0] == std::conj(values[1]));
}

// The eigenvalues of the companion matrix of x^m - 1 are the m-th roots of unity. Plain shifts can stall on it.
void roots_of_unity() {
  for (int m = 2; m <= RealSchur::kLargest; ++m) {
    Matrix companion(std::size_t(m * m), 0.0);
    for (int i = 0; i < m; ++i) companion[std::size_t(i * m + (i + m - 1) % m)] = 1;
    for (const Complex& lambda : eigenvalues(m, companion)) {
      CHECK_NEAR(std::abs(lambda), 1, 1e-13);
      CHECK_NEAR(std::abs(std::pow(lambda, m) - 1.0), 0, 1e-11);
    }
  }
}

// Reflections of a random matrix's rows leave an orthogonal one.
void orthogonal() {
  for (const int m : {2, 7, 16, 32, 40}) {
    Matrix matrix(std::size_t(m * m), 0.0);
    for (int i = 0; i < m; ++i) matrix[std::size_t(i * (m + 1))] = 1;
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      const Matrix w = normal<double>(seed, m);
      double squares = 0;
      for (const double x : w) squares += x * x;
      for (int i = 0; i < m; ++i) {
        double sum = 0;
        for (int j = 0; j < m; ++j) sum += matrix[std::size_t(i * m + j)] * w[std::size_t(j)];
        for (int j = 0; j < m; ++j) matrix[std::size_t(i * m + j)] -= 2 * sum * w[std::size_t(j)] / squares;
      }
    }
    for (const Complex& lambda : eigenvalues(m, matrix)) CHECK_NEAR(std::abs(lambda), 1, 1e-13);
  }
}

void triangular() {
  double product = 1;
  for (const Complex& lambda : eigenvalues(3, {1, 2, 3, 0, 4, 5, 0, 0, 6})) {
    CHECK(lambda.imag() == 0);
    product *= lambda.real();
  }
  CHECK_NEAR(product, 24, 1e-12);
}

// A Jordan block of size m has its eigenvalue to the m-th root of rounding only; the factorisation is exact all the
// same.
void defective() {
  for (const Complex& lambda : eigenvalues(3, {2, 1, 0, 0, 2, 1, 0, 0, 2})) CHECK_NEAR(std::abs(lambda - 2.0), 0, 1e-4);
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
  for (const Complex& lambda : eigenvalues(3, similar)) CHECK_NEAR(std::abs(lambda - 2.0), 0, 1e-4);
  for (const int m : {8, 16, 40}) {
    Matrix block(std::size_t(m * m), 0.0);
    for (int i = 0; i < m; ++i) {
      block[std::size_t(i * (m + 1))] = 0.5;
      if (i > 0) block[std::size_t(i * (m + 1) - 1)] = 1;
    }
    eigenvalues(m, block);
  }
}

void special() {
  Matrix identity(25, 0.0), ones(25, 1.0), symmetric = normal<double>(3, 25);
  for (int i = 0; i < 5; ++i) {
    identity[std::size_t(6 * i)] = 1;
    for (int j = 0; j < i; ++j) symmetric[std::size_t(5 * i + j)] = symmetric[std::size_t(5 * j + i)];
  }
  eigenvalues(5, identity);
  eigenvalues(5, ones);
  for (const Complex& lambda : eigenvalues(5, symmetric)) CHECK(std::abs(lambda.imag()) < 1e-7);
  for (const int m : {1, 4, 40})
    for (const Complex& lambda : eigenvalues(m, Matrix(std::size_t(m * m), 0.0))) CHECK(lambda == 0.0);
}

void scales() {
  const Matrix matrix = normal<double>(4, 25);
  const std::vector<Complex> expected = eigenvalues(5, matrix);
  for (const double scale : {1e-300, 1e-150, 1e-60, 1e60, 1e150, 1e300}) {
    Matrix scaled = matrix;
    for (double& value : scaled) value *= scale;
    const std::vector<Complex> values = eigenvalues(5, scaled);
    for (std::size_t i = 0; i < 5; ++i) CHECK_NEAR(std::abs(values[i] / scale - expected[i]), 0, 1e-12);
  }
}

// Blocks of very different size in one matrix.
void graded() {
  Matrix matrix = normal<double>(5, 64);
  for (int i = 0; i < 8; ++i)
    for (int j = 0; j < 8; ++j) matrix[std::size_t(8 * i + j)] *= std::pow(10.0, -20 * (i + j));
  eigenvalues(8, matrix);
  // Beside a 1, four roots of unity too small for any square to show.
  Matrix roots(25, 0.0);
  roots[0] = 1;
  for (int i = 0; i < 4; ++i) roots[std::size_t(5 * (i + 1) + 1 + (i + 3) % 4)] = 1e-100;
  eigenvalues(5, roots);
}

void not_finite() {
  RealSchur schur;
  for (const double bad : {kNan<double>, std::numeric_limits<double>::infinity()}) {
    CHECK(!factor(2, {1, bad, 0, 1}, schur));
  }
  CHECK(factor(2, {1, 2, 3, 4}, schur));
}

}  // namespace
}  // namespace lsc::test

int main() {
  using namespace lsc::test;
  return run({{"random matrices", random_matrices},
              {"Hessenberg", hessenberg},
              {"rows apart", rows_apart},
              {"precision", precision},
              {"1 x 1", one_by_one},
              {"a complex pair", complex_pair},
              {"roots of unity", roots_of_unity},
              {"orthogonal", orthogonal},
              {"triangular", triangular},
              {"defective", defective},
              {"zero, identity, ones, symmetric", special},
              {"tiny, huge", scales},
              {"graded", graded},
              {"not finite", not_finite}});
}
