// The vector kernels against naive loops, at sizes around the panels and tiles, into memory filled with NaN.
#include "algorithms/packed_matrix.h"
#include "model.h"

namespace lsc::test {
namespace {

constexpr Index kSizes[] = {1, 3, 31, 33, 65};

template <class T>
constexpr double kTol = 64 * double(std::numeric_limits<T>::epsilon());

// Rows of C and of A lie further apart than they are wide; what lies between must stay as it was.
template <class T>
void multiply_at(Index m, Index n, Index k, bool transposed_a, bool transposed_b, bool accumulate) {
  const Index gap = 2, c_row = n + gap;
  const std::vector<T> a = normal<T>(1, m * k), b = normal<T>(2, k * n), before = normal<T>(3, m * c_row);
  std::vector<T> c = accumulate ? before : nan_filled<T>(m * c_row);
  const Index a_row = transposed_a ? 1 : k, a_column = transposed_a ? m : 1;
  const Index b_row = transposed_b ? 1 : n, b_column = transposed_b ? k : 1;
  const PackedMatrix<T> packed(cpu::linear_kernels<T>(), k, n, b.data(), b_row, b_column);
  packed.multiply(m, a.data(), a_row, a_column, c.data(), c_row, accumulate);
  for (Index i = 0; i < m; ++i) {
    for (Index j = 0; j < n; ++j) {
      double sum = accumulate ? double(before[std::size_t(i * c_row + j)]) : 0, size = 1;
      for (Index l = 0; l < k; ++l) {
        const double term =
            double(a[std::size_t(i * a_row + l * a_column)]) * double(b[std::size_t(l * b_row + j * b_column)]);
        sum += term;
        size += std::abs(term);
      }
      CHECK_NEAR(c[std::size_t(i * c_row + j)] / size, sum / size, kTol<T>);
    }
    for (Index j = n; j < c_row; ++j) {
      const T kept = c[std::size_t(i * c_row + j)];
      CHECK(accumulate ? kept == before[std::size_t(i * c_row + j)] : std::isnan(kept));
    }
  }
}

template <class T>
void multiply() {
  for (const Index m : kSizes)
    for (const Index n : kSizes)
      for (const Index k : kSizes)
        for (int variant = 0; variant < 8; ++variant) multiply_at<T>(m, n, k, variant & 1, variant & 2, variant & 4);
}

// Row i of the product depends on row i of A alone, bit for bit.
template <class T>
void rows_are_independent() {
  const Index m = 33, n = 31, k = 65;
  const std::vector<T> a = normal<T>(1, m * k), b = normal<T>(2, k * n);
  const PackedMatrix<T> packed(cpu::linear_kernels<T>(), k, n, b.data(), n, 1);
  std::vector<T> together = nan_filled<T>(m * n), alone = nan_filled<T>(m * n);
  packed.multiply(m, a.data(), k, 1, together.data(), n, false);
  for (Index i = 0; i < m; ++i) packed.multiply(1, a.data() + i * k, k, 1, alone.data() + i * n, n, false);
  CHECK(together == alone);
}

template <class T>
void vectors() {
  const LinearKernels<T>& linear = cpu::linear_kernels<T>();
  for (const Index n : kSizes) {
    const std::vector<T> x = normal<T>(1, n), y = normal<T>(2, n), z = normal<T>(3, n);
    const T alpha = T(0.75);
    double sum = 0, size = 1;
    std::vector<T> added = y, scaled = nan_filled<T>(n), fused = z;
    linear.axpy(n, alpha, x.data(), added.data());
    linear.scale(n, alpha, x.data(), scaled.data());
    linear.multiply_add(n, x.data(), y.data(), fused.data());
    for (std::size_t i = 0; i < std::size_t(n); ++i) {
      sum += double(x[i]) * double(y[i]);
      size += std::abs(double(x[i]) * double(y[i]));
      CHECK_NEAR(added[i], double(y[i]) + 0.75 * double(x[i]), kTol<T>);
      CHECK_NEAR(scaled[i], 0.75 * double(x[i]), kTol<T>);
      CHECK_NEAR(fused[i], double(z[i]) + double(x[i]) * double(y[i]), kTol<T>);
    }
    CHECK_NEAR(linear.dot(n, x.data(), y.data()) / size, sum / size, kTol<T>);
  }
}

// Against a chain of multiply_add, and the same from a row cut anywhere.
template <class T>
void multiply_add_many() {
  const LinearKernels<T>& linear = cpu::linear_kernels<T>();
  constexpr int count = 3;
  for (const Index n : kSizes)
    for (const bool accumulate : {false, true}) {
      const std::vector<T> factors = normal<T>(1, 2 * count * n), before = normal<T>(2, n);
      std::vector<T> chain = accumulate ? before : std::vector<T>(std::size_t(n));
      const auto from = [&](Index cut, Index end, T* c) {
        const T *a[count], *b[count];
        for (int k = 0; k < count; ++k) {
          a[k] = factors.data() + 2 * k * n + cut;
          b[k] = factors.data() + (2 * k + 1) * n + cut;
        }
        linear.multiply_add_many(end - cut, count, a, b, accumulate, c + cut);
      };
      for (int k = 0; k < count; ++k)
        linear.multiply_add(n, factors.data() + 2 * k * n, factors.data() + (2 * k + 1) * n, chain.data());
      std::vector<T> whole = accumulate ? before : nan_filled<T>(n);
      from(0, n, whole.data());
      for (std::size_t i = 0; i < std::size_t(n); ++i) CHECK_NEAR(whole[i], chain[i], kTol<T>);
      for (Index cut = 0; cut <= n; ++cut) {
        std::vector<T> parts = accumulate ? before : nan_filled<T>(n);
        from(0, cut, parts.data());
        from(cut, n, parts.data());
        CHECK(parts == whole);
      }
    }
}

// Against the same steps one by one; the vectors need not be orthogonal, so that the order of the steps shows.
template <class T>
void orthogonalise() {
  const LinearKernels<T>& linear = cpu::linear_kernels<T>();
  for (const Index n : kSizes)
    for (const Index count : {0, 1, 4}) {
      std::vector<T> v = normal<T>(1, count * n), w = normal<T>(2, n);
      for (T& x : v) x /= T(std::sqrt(double(n)));
      std::vector<double> expected(w.begin(), w.end()), coefficients(std::size_t(count), 0.5);
      const double left = double(linear.orthogonalise(n, count, v.data(), w.data(), coefficients.data()));
      for (Index i = 0; i < count; ++i) {
        double overlap = 0;
        for (Index j = 0; j < n; ++j) overlap += double(v[std::size_t(i * n + j)]) * expected[std::size_t(j)];
        for (Index j = 0; j < n; ++j) expected[std::size_t(j)] -= overlap * double(v[std::size_t(i * n + j)]);
        CHECK_NEAR(coefficients[std::size_t(i)], 0.5 + overlap, 16 * kTol<T>);
      }
      double squares = 0;
      for (std::size_t j = 0; j < std::size_t(n); ++j) {
        CHECK_NEAR(w[j], expected[j], 16 * kTol<T>);
        squares += expected[j] * expected[j];
      }
      CHECK_NEAR(left, squares, 16 * kTol<T>);
    }
}

void nothing_to_do() {
  const LinearKernels<double>& linear = cpu::linear_kernels<double>();
  CHECK(linear.dot(0, nullptr, nullptr) == 0);
  double c = 3;
  const PackedMatrix<double> packed(linear, 0, 1, nullptr, 1, 1);
  packed.multiply(1, nullptr, 0, 1, &c, 1, true);
  CHECK(c == 3);
  packed.multiply(1, nullptr, 0, 1, &c, 1, false);
  CHECK(c == 0);
}

void nan_passes_through() {
  const std::vector<double> a = {kNan<double>, 1}, b = {0, 1};
  double c = 0;
  PackedMatrix<double>(cpu::linear_kernels<double>(), 2, 1, b.data(), 1, 1).multiply(1, a.data(), 2, 1, &c, 1, false);
  CHECK(std::isnan(c));
}

}  // namespace
}  // namespace lsc::test

int main() {
  using namespace lsc::test;
  return run({{"multiply, float", multiply<float>},
              {"multiply, double", multiply<double>},
              {"rows are independent, float", rows_are_independent<float>},
              {"rows are independent, double", rows_are_independent<double>},
              {"vectors, float", vectors<float>},
              {"vectors, double", vectors<double>},
              {"multiply and add many, float", multiply_add_many<float>},
              {"multiply and add many, double", multiply_add_many<double>},
              {"orthogonalise, float", orthogonalise<float>},
              {"orthogonalise, double", orthogonalise<double>},
              {"nothing to do", nothing_to_do},
              {"NaN passes through", nan_passes_through}});
}
