#include "algorithms/real_schur.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lsc {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

// A reflector I - beta w w' with w[0] = 1 that maps x [3 or 2] to a multiple of e_1.
struct Reflector {
  double w[3] = {1, 0, 0};
  double beta = 0;

  Reflector(const double* x, int size) {
    double tail = 0;
    for (int i = 1; i < size; ++i) tail += x[i] * x[i];
    if (tail == 0) return;
    const double length = std::sqrt(x[0] * x[0] + tail);
    const double head = x[0] <= 0 ? x[0] - length : -tail / (x[0] + length);
    beta = 2 * head * head / (tail + head * head);
    for (int i = 1; i < size; ++i) w[i] = x[i] / head;
  }
};

bool finite(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

// x with (T - lambda I) x = 0 for upper quasi-triangular T; `last` is the bottom row of lambda's diagonal block.
void back_substitute(int m, const double* T, Complex lambda, int last, Complex* x) {
  const auto t = [&](int i, int j) { return T[i * m + j]; };
  double norm = 0;
  for (int i = 0; i < m * m; ++i) norm = std::max(norm, std::abs(T[i]));
  const double small = std::max(kEpsilon * norm, std::numeric_limits<double>::min());
  std::fill(x, x + m, Complex(0));
  int top = last;
  if (last > 0 && t(last, last - 1) != 0) {
    top = last - 1;
    x[last] = t(last, top);
    x[top] = lambda - t(last, last);
  } else {
    x[last] = 1;
  }
  for (int i = top - 1; i >= 0; --i) {
    const bool pair = i > 0 && t(i, i - 1) != 0;
    Complex low = 0, high = 0;  // -(T x) of rows i and i - 1, from the entries already known
    for (int j = i + 1; j <= last; ++j) {
      low -= t(i, j) * x[j];
      if (pair) high -= t(i - 1, j) * x[j];
    }
    if (!pair) {
      Complex pivot = t(i, i) - lambda;
      if (std::abs(pivot) < small) pivot = small;  // a repeated eigenvalue: the limit of a small perturbation
      x[i] = low / pivot;
    } else {
      const Complex a = t(i - 1, i - 1) - lambda, d = t(i, i) - lambda;
      const double b = t(i - 1, i), c = t(i, i - 1);
      Complex determinant = a * d - b * c;
      if (std::abs(determinant) < small * small) determinant = small * small;
      x[i - 1] = (d * high - b * low) / determinant;
      x[i] = (a * low - c * high) / determinant;
      --i;
    }
    double largest = 0;
    for (int j = std::max(i, 0); j <= last; ++j) largest = std::max(largest, std::abs(x[j]));
    if (largest > 1e100)
      for (int j = std::max(i, 0); j <= last; ++j) x[j] /= largest;
  }
}

void normalise(int m, Complex* x) {
  double largest = 0, sum = 0;
  for (int i = 0; i < m; ++i) largest = std::max(largest, std::abs(x[i]));
  if (largest == 0) return;
  for (int i = 0; i < m; ++i) sum += std::norm(x[i] / largest);
  const double scale = 1 / (largest * std::sqrt(sum));
  for (int i = 0; i < m; ++i) x[i] *= scale;
}

}  // namespace

bool RealSchur::factor(int size, const double* A) {
  m = size;
  T.assign(A, A + std::size_t(m * m));
  eigenvalues.assign(std::size_t(m), Complex(0));
  Z.assign(std::size_t(m * m), 0.0);
  for (int i = 0; i < m; ++i) Z[std::size_t(i * m + i)] = 1;
  if (!finite(T)) return false;
  to_hessenberg();
  if (!to_quasi_triangular() || !finite(T)) return false;
  for (int i = 0; i < m; ++i) {
    const auto t = [&](int r, int c) { return T[std::size_t(r * m + c)]; };
    if (i + 1 < m && t(i + 1, i) != 0) {
      const double half = (t(i, i) - t(i + 1, i + 1)) / 2, mean = (t(i, i) + t(i + 1, i + 1)) / 2;
      const double imaginary = std::sqrt(std::max(0.0, -(half * half + t(i, i + 1) * t(i + 1, i))));
      eigenvalues[std::size_t(i)] = {mean, imaginary};
      eigenvalues[std::size_t(i + 1)] = {mean, -imaginary};
      ++i;
    } else {
      eigenvalues[std::size_t(i)] = t(i, i);
    }
  }
  return true;
}

void RealSchur::to_hessenberg() {
  std::vector<double> w(static_cast<std::size_t>(m));
  for (int k = 0; k + 2 < m; ++k) {
    double tail = 0;
    for (int i = k + 2; i < m; ++i) tail += T[std::size_t(i * m + k)] * T[std::size_t(i * m + k)];
    if (tail == 0) continue;
    const double first = T[std::size_t((k + 1) * m + k)], length = std::sqrt(first * first + tail);
    const double head = first <= 0 ? first - length : -tail / (first + length);
    const double beta = 2 * head * head / (tail + head * head);
    for (int i = k + 1; i < m; ++i) w[std::size_t(i)] = i == k + 1 ? 1 : T[std::size_t(i * m + k)] / head;
    // T <- Q T Q, Z <- Z Q with Q = I - beta w w' on rows and columns k + 1 .. m - 1.
    std::vector<double> sum(static_cast<std::size_t>(m), 0.0);
    for (int i = k + 1; i < m; ++i)
      for (int j = k; j < m; ++j) sum[std::size_t(j)] += w[std::size_t(i)] * T[std::size_t(i * m + j)];
    for (int i = k + 1; i < m; ++i)
      for (int j = k; j < m; ++j) T[std::size_t(i * m + j)] -= beta * w[std::size_t(i)] * sum[std::size_t(j)];
    for (std::vector<double>* matrix : {&T, &Z})
      for (int i = 0; i < m; ++i) {
        double* row = matrix->data() + i * m;
        double s = 0;
        for (int j = k + 1; j < m; ++j) s += row[j] * w[std::size_t(j)];
        for (int j = k + 1; j < m; ++j) row[j] -= beta * s * w[std::size_t(j)];
      }
    for (int i = k + 2; i < m; ++i) T[std::size_t(i * m + k)] = 0;
  }
}

bool RealSchur::to_quasi_triangular() {
  const auto t = [&](int i, int j) -> double& { return T[std::size_t(i * m + j)]; };
  int high = m - 1, iterations = 0;
  while (high > 0) {
    int low = high;
    for (; low > 0; --low) {
      double scale = std::abs(t(low - 1, low - 1)) + std::abs(t(low, low));
      if (scale == 0) scale = std::abs(t(low - 1, low)) + std::numeric_limits<double>::min();
      if (std::abs(t(low, low - 1)) <= kEpsilon * scale) {
        t(low, low - 1) = 0;
        break;
      }
    }
    if (low == high) {
      --high;
      iterations = 0;
      continue;
    }
    if (low == high - 1) {
      split_real_pair(low);
      high -= 2;
      iterations = 0;
      continue;
    }
    if (++iterations > 150) return false;  // 60 gave up on 2 of 48,000 random matrices
    double trace = t(high - 1, high - 1) + t(high, high);
    double determinant = t(high - 1, high - 1) * t(high, high) - t(high - 1, high) * t(high, high - 1);
    if (iterations % 10 == 0) {  // an exceptional shift breaks a cycle
      const double size = std::abs(t(high, high - 1)) + std::abs(t(high - 1, high - 2));
      trace = 1.5 * size;
      determinant = size * size;
    }
    double column[3] = {t(low, low) * (t(low, low) - trace) + determinant + t(low, low + 1) * t(low + 1, low),
                        t(low + 1, low) * (t(low, low) + t(low + 1, low + 1) - trace),
                        t(low + 1, low) * t(low + 2, low + 1)};
    for (int k = low; k < high; ++k) {
      const int size = k + 2 <= high ? 3 : 2;
      const Reflector q(column, size);
      if (q.beta != 0) {
        for (int j = std::max(k - 1, low); j < m; ++j) {
          double sum = 0;
          for (int i = 0; i < size; ++i) sum += q.w[i] * t(k + i, j);
          for (int i = 0; i < size; ++i) t(k + i, j) -= q.beta * sum * q.w[i];
        }
        const int bottom = std::min(k + 3, high);
        for (int i = 0; i <= bottom; ++i) {
          double sum = 0;
          for (int j = 0; j < size; ++j) sum += t(i, k + j) * q.w[j];
          for (int j = 0; j < size; ++j) t(i, k + j) -= q.beta * sum * q.w[j];
        }
        for (int i = 0; i < m; ++i) {
          double* row = Z.data() + i * m + k;
          double sum = 0;
          for (int j = 0; j < size; ++j) sum += row[j] * q.w[j];
          for (int j = 0; j < size; ++j) row[j] -= q.beta * sum * q.w[j];
        }
      }
      if (k > low)
        for (int i = 1; i < size; ++i) t(k + i, k - 1) = 0;
      for (int i = 0; i < 3; ++i) column[i] = k + 1 + i <= high ? t(k + 1 + i, k) : 0;
    }
  }
  return true;
}

// Rotates the 2 x 2 block at `row` to triangular form where its eigenvalues are real.
void RealSchur::split_real_pair(int row) {
  const auto t = [&](int i, int j) -> double& { return T[std::size_t(i * m + j)]; };
  const double a = t(row, row), b = t(row, row + 1), c = t(row + 1, row), d = t(row + 1, row + 1);
  const double half = (a - d) / 2, discriminant = half * half + b * c;
  if (discriminant < 0) return;
  const double root = half >= 0 ? half + std::sqrt(discriminant) : half - std::sqrt(discriminant);  // lambda - d
  const double length = std::hypot(root, c);
  if (length == 0) return;
  const double cosine = root / length, sine = c / length;  // (lambda - d, c) is the eigenvector
  for (int j = 0; j < m; ++j) {
    const double x = t(row, j), y = t(row + 1, j);
    t(row, j) = cosine * x + sine * y;
    t(row + 1, j) = cosine * y - sine * x;
  }
  for (std::vector<double>* matrix : {&T, &Z})
    for (int i = 0; i < m; ++i) {
      double* entry = matrix->data() + i * m + row;
      const double x = entry[0], y = entry[1];
      entry[0] = cosine * x + sine * y;
      entry[1] = cosine * y - sine * x;
    }
  t(row + 1, row) = 0;
}

void RealSchur::right_vector(int i, Complex* x) const {
  const int last = eigenvalues[std::size_t(i)].imag() > 0 ? i + 1 : i;
  std::vector<Complex> local(static_cast<std::size_t>(m));
  back_substitute(m, T.data(), eigenvalues[std::size_t(i)], last, local.data());
  for (int r = 0; r < m; ++r) {
    Complex sum = 0;
    for (int c = 0; c <= last; ++c) sum += Z[std::size_t(r * m + c)] * local[std::size_t(c)];
    x[r] = sum;
  }
  normalise(m, x);
}

void RealSchur::left_vector(int i, Complex* y) const {
  // The transpose, read from its far corner, is upper quasi-triangular again.
  std::vector<double> flipped(static_cast<std::size_t>(m * m));
  for (int r = 0; r < m; ++r)
    for (int c = 0; c < m; ++c) flipped[std::size_t(r * m + c)] = T[std::size_t((m - 1 - c) * m + (m - 1 - r))];
  const int first = eigenvalues[std::size_t(i)].imag() < 0 ? i - 1 : i;
  std::vector<Complex> local(static_cast<std::size_t>(m));
  back_substitute(m, flipped.data(), eigenvalues[std::size_t(i)], m - 1 - first, local.data());
  for (int r = 0; r < m; ++r) {
    Complex sum = 0;
    for (int c = first; c < m; ++c) sum += Z[std::size_t(r * m + c)] * local[std::size_t(m - 1 - c)];
    y[r] = sum;
  }
  normalise(m, y);
}

}  // namespace lsc
