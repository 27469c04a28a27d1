// The arithmetic behind real_schur.h, for the host and the device.
//
// A chain of reflectors, each of which waits for the one before: its latency is the time. So a step first brings up to
// date what the next reflector is made from, and leaves the rest to be done beside it. Rows are updated in aligned
// blocks, and the few columns at the bulge one by one: a block that reads what was just written in parts would stall.
#pragma once

#include <cmath>

#include "algorithms/real_schur.h"
#include "lsc/host_device.h"

namespace lsc {
inline namespace LSC_ISA {

// Blocks says what a few neighbouring numbers are: Block, kSize of them (2 or 4), with + - * by element and by a
// number, [] to read one, and the functions magnitude, larger and store_unaligned.
template <class Blocks>
class SchurFactor {
 public:
  // `scratch` is what these three write on the way.
  static LSC_HD bool factor(int m, const double* A, int row, double precision, RealSchur& schur,
                            SchurScratch& scratch) {
    schur.m = m;
    const int width = schur.width = round_up(m);
    for (int i = 0; i < m + 3; ++i)
      for (int j = 0; j < 2 * width; j += kBlock) block(schur.TZ + i * kRow + j) = Block{};
    for (int i = 0; i < m; ++i) {
      for (int j = 0; j < m; ++j) schur.TZ[i * kRow + j] = A[i * row + j];
      schur.TZ[i * kRow + width + i] = 1;
    }
    const double size = largest(schur);
    // 2^exponent <= size < 2^(exponent + 1), so far as both scales are normal numbers.
    int exponent = size == 0 ? 0 : std::ilogb(size);
    exponent = exponent < -1000 ? -1000 : exponent > 1000 ? 1000 : exponent;
    schur.scale = std::ldexp(1.0, exponent);
    const double inverse = std::ldexp(1.0, -exponent);
    Block squares = {};
    for (int i = 0; i < m; ++i)
      for (int j = 0; j < width; j += kBlock) {
        Block& entries = block(schur.TZ + i * kRow + j);
        entries *= inverse;
        squares += entries * entries;
      }
    if (!(total(squares) < 1 / kTiny)) return false;  // not finite
    schur.frobenius = root(total(squares)) * schur.scale;
    to_hessenberg(schur, scratch.reflector);
    if (!to_quasi_triangular(schur, precision)) return false;
    schur.size = largest(schur);
    for (int i = 0; i < m; ++i) {
      const double* at = schur.TZ + i * kRow + i;
      if (i + 1 == m || at[kRow] == 0) {
        schur.real[i] = at[0] * schur.scale;
        schur.imaginary[i] = 0;
        schur.modulus[i] = magnitude(schur.real[i]);
        continue;
      }
      const double half = (at[0] - at[kRow + 1]) / 2, mean = (at[0] + at[kRow + 1]) / 2;
      const double square = larger(0, -(half * half + at[1] * at[kRow]));
      schur.real[i] = schur.real[i + 1] = mean * schur.scale;
      schur.imaginary[i] = root(square) * schur.scale;
      schur.imaginary[i + 1] = -schur.imaginary[i];
      schur.modulus[i] = schur.modulus[i + 1] = root(mean * mean + square) * schur.scale;
      ++i;
    }
    return true;
  }

  // From the bottom up.
  static LSC_HD void right_vector(const RealSchur& schur, int i, SchurVector& result, SchurScratch& scratch) {
    Substitution s(schur, i, scratch);
    const int last = s.pair(i) ? i + 1 : i;
    const auto find_right_side = [&](int row) {
      Block real = {}, imaginary = {};
      for (int j = row / kBlock * kBlock; j <= last; j += kBlock) {
        const Block& t = block(schur.TZ + row * kRow + j);
        real -= t * block(s.x.real + j);
        imaginary -= t * block(s.x.imaginary + j);
      }
      s.right.real[row] = total(real);
      s.right.imaginary[row] = total(imaginary);
    };
    int row = last - 1;
    if (s.pair(row)) {
      s.set(last, {s.t(last, row), 0});
      s.set(row, s.lambda - Number{s.t(last, last), 0});
      --row;
    } else {
      s.set(last, {1, 0});
    }
    for (; row >= 0; --row) {
      find_right_side(row);
      if (s.pair(row - 1)) {
        find_right_side(--row);
        s.solve_pair(row, s.t(row, row + 1), s.t(row + 1, row));
      } else {
        s.solve(row);
      }
    }
    s.expand(0, last + 1, result);
  }

  // From the top down; what is known of y' T is subtracted from all right sides below at once.
  static LSC_HD void left_vector(const RealSchur& schur, int i, SchurVector& result, SchurScratch& scratch) {
    Substitution s(schur, i, scratch);
    const auto subtract = [&](int row) {
      const double real = s.x.real[row], imaginary = s.x.imaginary[row];
      for (int j = row / kBlock * kBlock; j < schur.width; j += kBlock) {
        const Block& t = block(schur.TZ + row * kRow + j);
        block(s.right.real + j) -= real * t;
        block(s.right.imaginary + j) -= imaginary * t;
      }
    };
    const int first = s.pair(i - 1) ? i - 1 : i;
    int row = first;
    if (s.pair(row)) {
      s.set(row, {s.t(row + 1, row), 0});
      s.set(row + 1, s.lambda - Number{s.t(row, row), 0});
      subtract(row++);
    } else {
      s.set(row, {1, 0});
    }
    for (subtract(row++); row < schur.m; subtract(row++)) {
      if (s.pair(row)) {
        s.solve_pair(row, s.t(row + 1, row), s.t(row, row + 1));
        subtract(row++);
      } else {
        s.solve(row);
      }
    }
    s.expand(first, schur.m, result);
  }

 private:
  using Block = typename Blocks::Block;
  static constexpr int kRow = RealSchur::kRow, kBlock = Blocks::kSize;
  static constexpr double kEpsilon = 0x1p-52;
  // Entries are near 1: what is below this is zero, and its square is not.
  static constexpr double kTiny = 1e-70;

  static LSC_HD Block& block(double* p) { return *reinterpret_cast<Block*>(p); }
  static LSC_HD const Block& block(const double* p) { return *reinterpret_cast<const Block*>(p); }
  static LSC_HD double total(const Block& b) {
    double sum = b[0] + b[1];
    for (int l = 2; l < kBlock; l += 2) sum += b[l] + b[l + 1];
    return sum;
  }

  // Four numbers in blocks.
  static constexpr int kPerFour = 4 / kBlock;
  struct Four {
    Block part[kPerFour];
  };
  static LSC_HD Four four(double a, double b, double c, double d) {
    if constexpr (kBlock == 4)
      return {{Block{a, b, c, d}}};
    else
      return {{Block{a, b}, Block{c, d}}};
  }

  static LSC_HD double magnitude(double x) { return std::fabs(x); }
  static LSC_HD double root(double x) { return std::sqrt(x); }
  static LSC_HD double larger(double x, double y) { return x > y ? x : y; }
  static LSC_HD constexpr int round_up(int i) { return (i + kBlock - 1) / kBlock * kBlock; }

  // I - g u u' maps x to `image` e_1.
  struct Reflector {
    double u[3], g, image;
  };

  static LSC_HD Reflector reflector(double x0, double x1, double x2) {
    const double square = x0 * x0 + (x1 * x1 + x2 * x2);
    if (square < kTiny * kTiny * kTiny * kTiny) return {{0, 0, 0}, 0, 0};
    const double length = root(square), signed_length = std::copysign(length, x0);
    return {{x0 + signed_length, x1, x2}, 1 / (square + magnitude(x0) * length), -signed_length};
  }

  // (a, b, c) <- (a, b, c) - g u u' (a, b, c)
  template <class Value>
  static LSC_HD inline __attribute__((always_inline)) void reflect(const Reflector& q, Value& a, Value& b, Value& c) {
    const Value sum = q.g * (q.u[0] * a + q.u[1] * b + q.u[2] * c);
    a -= sum * q.u[0];
    b -= sum * q.u[1];
    c -= sum * q.u[2];
  }

  static LSC_HD void reflect_rows(const Reflector& q, double* row, int begin, int end) {
    for (int j = begin; j < end; j += kBlock)
      reflect(q, block(row + j), block(row + kRow + j), block(row + 2 * kRow + j));
  }

  // q on columns 0 .. 2, then r on columns 1 .. 3, of the rows up to and with `last`: as the product of both, row i of
  // it e_i - q.u_i a - r.u_i b. Inlined, so that a reflector stays in registers: copied, it would be read as a block.
  static LSC_HD inline __attribute__((always_inline)) void reflect_columns(const Reflector& q, const Reflector& r,
                                                                           double* row, const double* last) {
    const double overlap = q.g * r.g * (q.u[1] * r.u[0] + q.u[2] * r.u[1]);
    const Four u = four(q.u[0], q.u[1], q.u[2], 0), v = four(0, r.u[0], r.u[1], r.u[2]);
    Four p[4] = {four(1, 0, 0, 0), four(0, 1, 0, 0), four(0, 0, 1, 0), four(0, 0, 0, 1)};
    for (int l = 0; l < kPerFour; ++l) {
      const Block a = q.g * u.part[l] - overlap * v.part[l], b = r.g * v.part[l];
      for (int i = 0; i < 3; ++i) {
        p[i].part[l] -= q.u[i] * a;
        p[i + 1].part[l] -= r.u[i] * b;
      }
    }
    for (; row <= last; row += kRow) {
      const double x[4] = {row[0], row[1], row[2], row[3]};
      for (int l = 0; l < kPerFour; ++l) {
        const Block sum = (x[0] * p[0].part[l] + x[1] * p[1].part[l]) + (x[2] * p[2].part[l] + x[3] * p[3].part[l]);
        Blocks::store_unaligned(row + l * kBlock, sum);
      }
    }
  }

  // Largest |entry|; what pads a row is 0.
  static LSC_HD double largest(const RealSchur& schur) {
    Block sizes = {};
    for (int i = 0; i < schur.m; ++i)
      for (int j = 0; j < schur.m; j += kBlock) {
        const Block& entries = block(schur.TZ + i * kRow + j);
        sizes = Blocks::larger(Blocks::magnitude(entries), sizes);
      }
    double size = 0;
    for (int l = 0; l < kBlock; ++l) size = larger(size, sizes[l]);
    return size;
  }

  static LSC_HD void to_hessenberg(RealSchur& schur, double* w) {
    const int m = schur.m, width = schur.width;
    double* T = schur.TZ;
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
        for (int j = k / kBlock * kBlock; j < 2 * width; j += kBlock) {
          Block s = {};
          for (int i = k + 1; i < end; ++i) s += w[i] * block(T + i * kRow + j);
          s *= g;
          for (int i = k + 1; i < end; ++i) block(T + i * kRow + j) -= w[i] * s;
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
  static LSC_HD void split_real_pair(RealSchur& schur, int row) {
    double* T = schur.TZ;
    double* at = T + row * kRow + row;
    const double a = at[0], b = at[1], c = at[kRow], d = at[kRow + 1];
    const double half = (a - d) / 2, discriminant = half * half + b * c;
    if (discriminant < 0) return;
    const double shift = half + std::copysign(root(discriminant), half);  // lambda - d
    const double length = root(shift * shift + c * c);
    if (length == 0) return;
    const double cosine = shift / length, sine = c / length;  // (lambda - d, c) is the eigenvector
    const auto rotate = [&](auto& x, auto& y) {
      const auto before = x;
      x = cosine * x + sine * y;
      y = cosine * y - sine * before;
    };
    for (int j = row / kBlock * kBlock; j < 2 * schur.width; j += kBlock)
      rotate(block(T + row * kRow + j), block(T + (row + 1) * kRow + j));
    for (int i = 0; i <= row + 1; ++i) rotate(T[i * kRow + row], T[i * kRow + row + 1]);
    at[kRow] = 0;
  }

  // One implicit double-shift step on rows low .. high; x is the first column of the shifted square. The last reflector
  // is of two rows only; its third element is 0 and leaves row and column high + 1 as they are.
  static LSC_HD void chase(RealSchur& schur, int low, int high, double x0, double x1, double x2) {
    double* T = schur.TZ;
    const int end = 2 * schur.width;
    Reflector q = reflector(x0, x1, x2), before = q;
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
      reflect_rows(q, T + k * kRow, aligned, end);
      // The rows above wait for the second reflector of a pair, but for the one that only the second reaches.
      if ((k - low) % 2 == 1) {
        reflect(q, corner[0], corner[1], corner[2]);
        reflect_columns(before, q, T + k - 1, corner - kRow);
      } else if (k + 1 == high) {
        reflect_columns(q, {{0, 0, 0}, 0, 0}, T + k, corner);
      }
      before = q;
      q = next;
    }
  }

  static LSC_HD bool to_quasi_triangular(RealSchur& schur, double precision) {
    const auto t = [&](int i, int j) -> double& { return schur.TZ[i * kRow + j]; };
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
        const double shift = half == 0 ? d : d - b * c / (half + std::copysign(root(discriminant), half));
        trace = 2 * shift;
        determinant = shift * shift;
      }
      const double p = t(low, low), q = t(low + 1, low + 1), below = t(low + 1, low);
      chase(schur, low, high, p * (p - trace) + determinant + t(low, low + 1) * below, below * (p + q - trace),
            below * t(low + 2, low + 1));
    }
    return true;
  }

  struct Number {
    double real, imaginary;
  };
  friend LSC_HD Number operator-(const Number& a, const Number& b) {
    return {a.real - b.real, a.imaginary - b.imaginary};
  }
  friend LSC_HD Number operator*(const Number& a, const Number& b) {
    return {a.real * b.real - a.imaginary * b.imaginary, a.real * b.imaginary + a.imaginary * b.real};
  }
  static LSC_HD double square(const Number& a) { return a.real * a.real + a.imaginary * a.imaginary; }
  // Where b is as good as 0, a repeated eigenvalue, the limit of a small perturbation.
  static LSC_HD Number divide(const Number& a, Number b, double small) {
    if (square(b) < small * small) b = {small, 0};
    const double inverse = 1 / square(b);
    return {(a.real * b.real + a.imaginary * b.imaginary) * inverse,
            (a.imaginary * b.real - a.real * b.imaginary) * inverse};
  }

  // A vector x in the making: solves (T - lambda I) x = 0, or its transpose, one diagonal block at a time.
  struct Substitution {
    const RealSchur& schur;
    Number lambda;
    double small;
    SchurVector &x, &right;  // right: what is known of the right sides

    LSC_HD Substitution(const RealSchur& of, int i, SchurScratch& scratch)
        : schur(of),
          lambda{of.real[i] / of.scale, of.imaginary[i] / of.scale},
          small(larger(kEpsilon * of.size, kTiny)),
          x(scratch.x),
          right(scratch.right) {
      for (int j = 0; j < of.width; ++j) x.real[j] = x.imaginary[j] = right.real[j] = right.imaginary[j] = 0;
    }

    LSC_HD double t(int i, int j) const { return schur.t(i, j); }
    LSC_HD bool pair(int i) const { return i >= 0 && i + 1 < schur.m && t(i + 1, i) != 0; }  // a 2 x 2 block at i
    LSC_HD Number pivot(int i) const { return Number{t(i, i), 0} - lambda; }
    LSC_HD void set(int i, const Number& value) {
      x.real[i] = value.real;
      x.imaginary[i] = value.imaginary;
    }
    LSC_HD void keep_small(int i) {
      if (square({x.real[i], x.imaginary[i]}) < 1e200) return;
      for (int j = 0; j < schur.width; ++j) {
        x.real[j] *= 1e-100;
        x.imaginary[j] *= 1e-100;
        right.real[j] *= 1e-100;
        right.imaginary[j] *= 1e-100;
      }
    }

    LSC_HD void solve(int i) {
      set(i, divide({right.real[i], right.imaginary[i]}, pivot(i), small));
      keep_small(i);
    }
    // Of the 2 x 2 block at i, whose off-diagonal elements are b and c.
    LSC_HD void solve_pair(int i, double b, double c) {
      const Number p = pivot(i), q = pivot(i + 1), determinant = p * q - Number{b * c, 0};
      const Number first = {right.real[i], right.imaginary[i]}, second = {right.real[i + 1], right.imaginary[i + 1]};
      set(i, divide(q * first - Number{b, 0} * second, determinant, small * small));
      set(i + 1, divide(p * second - Number{c, 0} * first, determinant, small * small));
      keep_small(i);
      keep_small(i + 1);
    }

    // result = Z x, of unit length.
    LSC_HD void expand(int begin, int end, SchurVector& result) const {
      double squares = 0;
      for (int j = begin; j < end; ++j) squares += square({x.real[j], x.imaginary[j]});
      const double inverse = squares > 0 ? 1 / root(squares) : 0;
      for (int j = 0; j < schur.width; j += kBlock) {
        Block real = {}, imaginary = {};
        for (int c = begin; c < end; ++c) {
          const Block& z = block(schur.TZ + c * kRow + schur.width + j);
          real += x.real[c] * z;
          imaginary += x.imaginary[c] * z;
        }
        block(result.real + j) = real * inverse;
        block(result.imaginary + j) = imaginary * inverse;
      }
    }
  };
};

}  // namespace LSC_ISA
}  // namespace lsc
