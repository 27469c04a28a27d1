// The real Schur form for one instruction set; CMake compiles this file once for each.
//
// A chain of reflectors, each of which waits for the one before: its latency is the time. So a step first brings up to
// date what the next reflector is made from, and leaves the rest to be done beside it. Rows are updated in aligned
// blocks, and the few columns at the bulge one by one: a block that reads what was just written in parts would stall.
#include "algorithms/real_schur.h"

#include <cstddef>

namespace lsc {
inline namespace LSC_ISA {
namespace {

constexpr int kRow = RealSchur::kRow;
#if defined(__AVX__)
constexpr int kBlock = 4;
#else
constexpr int kBlock = 2;
#endif
constexpr double kEpsilon = 0x1p-52;
// Entries are near 1: what is below this is zero, and its square is not.
constexpr double kTiny = 1e-70;

typedef double Block __attribute__((vector_size(kBlock * sizeof(double)), aligned(kBlock * sizeof(double)), may_alias));

Block& block(double* p) { return *reinterpret_cast<Block*>(p); }
const Block& block(const double* p) { return *reinterpret_cast<const Block*>(p); }
double total(const Block& b) {
  double sum = b[0] + b[1];
  for (int l = 2; l < kBlock; l += 2) sum += b[l] + b[l + 1];
  return sum;
}

double magnitude(double x) { return __builtin_fabs(x); }
double root(double x) { return __builtin_sqrt(x); }
double larger(double x, double y) { return x > y ? x : y; }
constexpr int round_up(int i) { return (i + kBlock - 1) / kBlock * kBlock; }

// I - g u u' maps x to `image` e_1.
struct Reflector {
  double u[3], g, image;
};

Reflector reflector(double x0, double x1, double x2) {
  const double square = x0 * x0 + (x1 * x1 + x2 * x2);
  if (square < kTiny * kTiny * kTiny * kTiny) return {{0, 0, 0}, 0, 0};
  const double length = root(square), signed_length = __builtin_copysign(length, x0);
  return {{x0 + signed_length, x1, x2}, 1 / (square + magnitude(x0) * length), -signed_length};
}

// (a, b, c) <- (a, b, c) - g u u' (a, b, c)
template <class Number>
inline __attribute__((always_inline)) void reflect(const Reflector& q, Number& a, Number& b, Number& c) {
  const Number sum = q.g * (q.u[0] * a + q.u[1] * b + q.u[2] * c);
  a -= sum * q.u[0];
  b -= sum * q.u[1];
  c -= sum * q.u[2];
}

void reflect_rows(const Reflector& q, double* row, int begin, int end) {
  for (int j = begin; j < end; j += kBlock)
    reflect(q, block(row + j), block(row + kRow + j), block(row + 2 * kRow + j));
}

// Largest |entry|; what pads a row is 0.
double largest(const RealSchur& schur) {
  Block sizes = {};
  for (int i = 0; i < schur.m; ++i)
    for (int j = 0; j < schur.m; j += kBlock) {
      const Block& entries = block(schur.T + i * kRow + j);
      const Block size = entries < 0 ? -entries : entries;
      sizes = size > sizes ? size : sizes;
    }
  double size = 0;
  for (int l = 0; l < kBlock; ++l) size = larger(size, sizes[l]);
  return size;
}

void to_hessenberg(RealSchur& schur) {
  const int m = schur.m, width = round_up(m);
  double* T = schur.T;
  double* const matrices[] = {T, schur.Zt};
  alignas(64) double w[kRow];
  for (int k = 0; k + 2 < m; ++k) {
    double tail = 0;
    int end = k + 2;  // of the reflector, w [k + 1, end)
    for (int i = k + 2; i < m; ++i) {
      const double x = T[i * kRow + k];
      if (x == 0) continue;
      tail += x * x;
      end = i + 1;
    }
    if (end == k + 2) continue;
    const double first = T[(k + 1) * kRow + k], square = first * first + tail;
    double image = 0;
    if (square >= kTiny * kTiny * kTiny * kTiny) {
      const double length = root(square), g = 1 / (square + magnitude(first) * length);
      image = first < 0 ? length : -length;
      for (int j = 0; j < width; ++j) w[j] = j > k && j < end ? T[j * kRow + k] : 0;
      w[k + 1] = first - image;
      // T <- Q T Q, Z <- Z Q with Q = I - g w w'.
      for (double* matrix : matrices)
        for (int j = 0; j < width; j += kBlock) {
          Block s = {};
          for (int i = k + 1; i < end; ++i) s += w[i] * block(matrix + i * kRow + j);
          s *= g;
          for (int i = k + 1; i < end; ++i) block(matrix + i * kRow + j) -= w[i] * s;
        }
      for (int i = 0; i < m; ++i) {
        double* row = T + i * kRow;
        Block s = {};
        for (int j = (k + 1) / kBlock * kBlock; j < end; j += kBlock) s += block(w + j) * block(row + j);
        const double all = g * total(s);
        for (int j = (k + 1) / kBlock * kBlock; j < end; j += kBlock) block(row + j) -= all * block(w + j);
      }
    }
    T[(k + 1) * kRow + k] = image;
    for (int i = k + 2; i < end; ++i) T[i * kRow + k] = 0;
  }
}

// Rotates the 2 x 2 block at `row` to triangular form where its eigenvalues are real.
void split_real_pair(RealSchur& schur, int row) {
  double* T = schur.T;
  double* at = T + row * kRow + row;
  const double a = at[0], b = at[1], c = at[kRow], d = at[kRow + 1];
  const double half = (a - d) / 2, discriminant = half * half + b * c;
  if (discriminant < 0) return;
  const double shift = half + __builtin_copysign(root(discriminant), half);  // lambda - d
  const double length = root(shift * shift + c * c);
  if (length == 0) return;
  const double cosine = shift / length, sine = c / length;  // (lambda - d, c) is the eigenvector
  const auto rotate = [&](auto& x, auto& y) {
    const auto before = x;
    x = cosine * x + sine * y;
    y = cosine * y - sine * before;
  };
  const int width = round_up(schur.m);
  double* const matrices[] = {T, schur.Zt};
  for (double* matrix : matrices)
    for (int j = 0; j < width; j += kBlock)
      rotate(block(matrix + row * kRow + j), block(matrix + (row + 1) * kRow + j));
  for (int i = 0; i <= row + 1; ++i) rotate(T[i * kRow + row], T[i * kRow + row + 1]);
  at[kRow] = 0;
}

// One implicit double-shift step on rows low .. high; x is the first column of the shifted square. The last reflector
// is of two rows only; its third element is 0 and leaves row and column high + 1 as they are.
void chase(RealSchur& schur, int low, int high, double x0, double x1, double x2) {
  double* T = schur.T;
  const int width = round_up(schur.m);
  Reflector q = reflector(x0, x1, x2);
  for (int k = low; k < high; ++k) {
    double* corner = T + k * kRow + k;
    if (k > low) {
      corner[-1] = q.image;
      corner[kRow - 1] = corner[2 * kRow - 1] = 0;
    }
    for (int j = 0; j < 3; ++j) reflect(q, corner[j], corner[kRow + j], corner[2 * kRow + j]);
    for (int i = 1; i <= 3; ++i) reflect(q, corner[i * kRow], corner[i * kRow + 1], corner[i * kRow + 2]);
    const Reflector next = reflector(corner[kRow], corner[2 * kRow], k + 3 <= high ? corner[3 * kRow] : 0);
    const int aligned = round_up(k + 3);
    for (int j = 3; j < aligned - k; ++j) reflect(q, corner[j], corner[kRow + j], corner[2 * kRow + j]);
    reflect_rows(q, T + k * kRow, aligned, width);
    for (double* row = T + k; row <= corner; row += kRow) reflect(q, row[0], row[1], row[2]);
    reflect_rows(q, schur.Zt + k * kRow, 0, width);
    q = next;
  }
}

bool to_quasi_triangular(RealSchur& schur, double precision) {
  const auto t = [&](int i, int j) -> double& { return schur.T[i * kRow + j]; };
  int high = schur.m - 1, iterations = 0;
  while (high > 0) {
    int low = high;
    for (; low > 0; --low) {
      const double below = magnitude(t(low, low - 1));
      if (below <= kTiny || below <= precision * (magnitude(t(low - 1, low - 1)) + magnitude(t(low, low)))) {
        t(low, low - 1) = 0;
        break;
      }
    }
    if (low >= high - 1) {
      if (low < high) split_real_pair(schur, low);
      high = low - 1;
      iterations = 0;
      continue;
    }
    if (++iterations > 150) return false;  // 60 gave up on 2 of 48,000 random matrices
    const double a = t(high - 1, high - 1), b = t(high - 1, high), c = t(high, high - 1), d = t(high, high);
    double trace = a + d, determinant = a * d - b * c;
    const double half = (a - d) / 2, discriminant = half * half + b * c;
    if (iterations % 10 == 0) {  // an exceptional shift breaks a cycle
      const double size = magnitude(c) + magnitude(t(high - 1, high - 2));
      trace = 1.5 * size;
      determinant = size * size;
    } else if (discriminant >= 0) {  // of two real shifts, the one near the corner twice
      const double shift = half == 0 ? d : d - b * c / (half + __builtin_copysign(root(discriminant), half));
      trace = 2 * shift;
      determinant = shift * shift;
    }
    const double p = t(low, low), q = t(low + 1, low + 1), below = t(low + 1, low);
    chase(schur, low, high, p * (p - trace) + determinant + t(low, low + 1) * below, below * (p + q - trace),
          below * t(low + 2, low + 1));
  }
  return true;
}

bool factor(int m, const double* A, int row, double precision, RealSchur& schur) {
  schur.m = m;
  const int width = round_up(m);
  for (int i = 0; i < m + 3; ++i)
    for (int j = 0; j < width; j += kBlock) block(schur.T + i * kRow + j) = block(schur.Zt + i * kRow + j) = Block{};
  for (int i = 0; i < m; ++i) {
    __builtin_memcpy(schur.T + i * kRow, A + i * row, std::size_t(m) * sizeof(double));
    schur.Zt[i * kRow + i] = 1;
  }
  const double size = largest(schur);
  // 2^exponent <= size < 2^(exponent + 1), so far as both scales are normal numbers.
  int exponent = size == 0 ? 0 : __builtin_ilogb(size);
  exponent = exponent < -1000 ? -1000 : exponent > 1000 ? 1000 : exponent;
  schur.scale = __builtin_ldexp(1.0, exponent);
  const double inverse = __builtin_ldexp(1.0, -exponent);
  Block squares = {};
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < width; j += kBlock) {
      Block& entries = block(schur.T + i * kRow + j);
      entries *= inverse;
      squares += entries * entries;
    }
  if (!(total(squares) < 1e6)) return false;  // not finite
  schur.frobenius = root(total(squares)) * schur.scale;
  to_hessenberg(schur);
  if (!to_quasi_triangular(schur, precision)) return false;
  schur.size = largest(schur);
  for (int i = 0; i < m; ++i) {
    const double* at = schur.T + i * kRow + i;
    schur.real[i] = at[0] * schur.scale;
    schur.imaginary[i] = 0;
    if (i + 1 == m || at[kRow] == 0) continue;
    const double half = (at[0] - at[kRow + 1]) / 2;
    schur.real[i] = schur.real[i + 1] = (at[0] + at[kRow + 1]) / 2 * schur.scale;
    schur.imaginary[i] = root(larger(0, -(half * half + at[1] * at[kRow]))) * schur.scale;
    schur.imaginary[i + 1] = -schur.imaginary[i];
    ++i;
  }
  return true;
}

struct Number {
  double real, imaginary;
};
Number operator-(const Number& a, const Number& b) { return {a.real - b.real, a.imaginary - b.imaginary}; }
Number operator*(const Number& a, const Number& b) {
  return {a.real * b.real - a.imaginary * b.imaginary, a.real * b.imaginary + a.imaginary * b.real};
}
double square(const Number& a) { return a.real * a.real + a.imaginary * a.imaginary; }
// Where b is as good as 0, a repeated eigenvalue, the limit of a small perturbation.
Number divide(const Number& a, Number b, double small) {
  if (square(b) < small * small) b = {small, 0};
  const double inverse = 1 / square(b);
  return {(a.real * b.real + a.imaginary * b.imaginary) * inverse,
          (a.imaginary * b.real - a.real * b.imaginary) * inverse};
}

// A vector in the making: solves (T - lambda I) x = 0, or its transpose, one diagonal block at a time.
struct Substitution {
  const RealSchur& schur;
  Number lambda;
  double small;
  SchurVector x;

  Substitution(const RealSchur& of, int i)
      : schur(of), lambda{of.real[i] / of.scale, of.imaginary[i] / of.scale}, small(larger(kEpsilon * of.size, kTiny)) {
    for (int j = 0; j < kRow; ++j) x.real[j] = x.imaginary[j] = 0;
  }

  double t(int i, int j) const { return schur.T[i * kRow + j]; }
  Number pivot(int i) const { return Number{t(i, i), 0} - lambda; }
  void set(int i, const Number& value) {
    x.real[i] = value.real;
    x.imaginary[i] = value.imaginary;
  }

  // Of the block at i: (T - lambda I) x = right side.
  void solve(int i, const Number& right) { set(i, divide(right, pivot(i), small)); }
  // Of the 2 x 2 block at i, whose off-diagonal elements are b and c.
  void solve_pair(int i, double b, double c, const Number& first, const Number& second) {
    const Number p = pivot(i), q = pivot(i + 1), determinant = p * q - Number{b * c, 0};
    set(i, divide(q * first - Number{b, 0} * second, determinant, small * small));
    set(i + 1, divide(p * second - Number{c, 0} * first, determinant, small * small));
  }

  bool too_large(int i) const { return square({x.real[i], x.imaginary[i]}) > 1e200; }
  void scale(double factor) {
    for (int j = 0; j < kRow; ++j) {
      x.real[j] *= factor;
      x.imaginary[j] *= factor;
    }
  }

  // result = Z x, of unit length.
  void expand(int begin, int end, SchurVector& result) const {
    const int m = schur.m, width = round_up(m);
    double squares = 0;
    for (int j = begin; j < end; ++j) squares += square({x.real[j], x.imaginary[j]});
    const double inverse = squares > 0 ? 1 / root(squares) : 0;
    for (int j = 0; j < width; j += kBlock) {
      Block real = {}, imaginary = {};
      for (int c = begin; c < end; ++c) {
        const Block& z = block(schur.Zt + c * kRow + j);
        real += x.real[c] * z;
        imaginary += x.imaginary[c] * z;
      }
      block(result.real + j) = real * inverse;
      block(result.imaginary + j) = imaginary * inverse;
    }
  }
};

// From the bottom up.
void right_vector(const RealSchur& schur, int i, SchurVector& result) {
  Substitution s(schur, i);
  const int last = schur.imaginary[i] > 0 ? i + 1 : i;
  const auto right_side = [&](int row) {
    Block real = {}, imaginary = {};
    for (int j = row / kBlock * kBlock; j <= last; j += kBlock) {
      const Block& t = block(schur.T + row * kRow + j);
      real -= t * block(s.x.real + j);
      imaginary -= t * block(s.x.imaginary + j);
    }
    return Number{total(real), total(imaginary)};
  };
  int row = last - 1;
  if (last > 0 && s.t(last, last - 1) != 0) {
    s.set(last, {s.t(last, last - 1), 0});
    s.set(last - 1, s.lambda - Number{s.t(last, last), 0});
    --row;
  } else {
    s.set(last, {1, 0});
  }
  for (; row >= 0; --row) {
    const Number right = right_side(row);
    if (row > 0 && s.t(row, row - 1) != 0) {
      --row;
      s.solve_pair(row, s.t(row, row + 1), s.t(row + 1, row), right_side(row), right);
      if (s.too_large(row + 1)) s.scale(1e-100);
    } else {
      s.solve(row, right);
    }
    if (s.too_large(row)) s.scale(1e-100);
  }
  s.expand(0, last + 1, result);
}

// From the top down; what is known of y' T is subtracted from the right sides of all rows below at once.
void left_vector(const RealSchur& schur, int i, SchurVector& result) {
  Substitution s(schur, i);
  const int m = schur.m, width = round_up(m), first = schur.imaginary[i] < 0 ? i - 1 : i;
  SchurVector right = s.x;
  const auto subtract = [&](int row) {
    for (int j = row / kBlock * kBlock; j < width; j += kBlock) {
      const Block& t = block(schur.T + row * kRow + j);
      block(right.real + j) -= s.x.real[row] * t;
      block(right.imaginary + j) -= s.x.imaginary[row] * t;
    }
  };
  const auto pair = [&](int row) { return row + 1 < m && s.t(row + 1, row) != 0; };
  int row = first;
  if (pair(row)) {
    s.set(row, {s.t(row + 1, row), 0});
    s.set(row + 1, s.lambda - Number{s.t(row, row), 0});
    subtract(row++);
  } else {
    s.set(row, {1, 0});
  }
  for (subtract(row++); row < m; subtract(row++)) {
    const Number here = {right.real[row], right.imaginary[row]};
    if (pair(row)) {
      s.solve_pair(row, s.t(row + 1, row), s.t(row, row + 1), here, {right.real[row + 1], right.imaginary[row + 1]});
      subtract(row++);
    } else {
      s.solve(row, here);
    }
  }
  s.expand(first, m, result);
}

constexpr SchurKernels kTable = {factor, right_vector, left_vector};

}  // namespace
}  // namespace LSC_ISA

namespace cpu::LSC_ISA {
extern const SchurKernels schur;
constexpr SchurKernels schur = kTable;
}  // namespace cpu::LSC_ISA
}  // namespace lsc
