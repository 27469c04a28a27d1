// A small dense real matrix to real Schur form, and eigenvectors from it. Golub & Van Loan, Matrix Computations, 4th
// ed., sections 7.4 (Hessenberg), 7.5 (implicit double shift) and 7.6 (eigenvectors by back substitution).
#pragma once

#include "lsc/host_device.h"

namespace lsc {

// A = scale Z T Z', Z orthogonal, T upper quasi-triangular: its 2 x 2 diagonal blocks are the complex pairs. What lies
// beyond the matrices is padding.
struct RealSchur {
  static constexpr int kLargest = 40;         // order
  static constexpr int kRow = 2 * kLargest;   // elements from one row to the next
  static constexpr int kRows = kLargest + 3;  // a reflector touches three rows, the last of them beyond the matrix
  int m = 0;
  int width = 0;                        // columns of T with their padding
  alignas(64) double TZ[kRows * kRow];  // [T, Z'] side by side: rows of both are combined alike
  double scale = 1;                     // a power of two that keeps T near 1
  double size = 0;                      // largest |entry| of T
  double frobenius = 0;                 // norm of A
  double real[kLargest], imaginary[kLargest], modulus[kLargest];  // eigenvalues of A, in the order of T's diagonal

  LSC_HD const double& t(int i, int j) const { return TZ[i * kRow + j]; }
  LSC_HD const double& z(int i, int j) const { return TZ[j * kRow + width + i]; }
};

// A complex vector of unit length.
struct SchurVector {
  alignas(64) double real[RealSchur::kLargest], imaginary[RealSchur::kLargest];
};

// What the functions below write on their way.
struct SchurScratch {
  alignas(64) double reflector[RealSchur::kLargest];
  SchurVector x, right;
};

// Compiled once per instruction set; cpu/ hands the table out with its LinearKernels.
struct SchurKernels {
  // A [m, m], its rows `row` apart, m <= kLargest. An element below the diagonal counts as 0 where it is below
  // `precision` (2^-52 or more) of its two neighbours on the diagonal. False where the shifted iteration did not
  // settle, or A holds a number that is not finite. Only the columns of A that are not upper Hessenberg cost a
  // reduction.
  bool (*factor)(int m, const double* A, int row, double precision, RealSchur& schur);
  // x [m] with A x = lambda_i x.
  void (*right_vector)(const RealSchur& schur, int i, SchurVector& x);
  // y [m] with A' y = lambda_i y (plain transpose).
  void (*left_vector)(const RealSchur& schur, int i, SchurVector& y);
};

}  // namespace lsc
