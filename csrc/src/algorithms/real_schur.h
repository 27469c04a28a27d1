// A small dense real matrix to real Schur form, and eigenvectors from it. Golub & Van Loan, Matrix Computations, 4th
// ed., sections 7.4 (Hessenberg), 7.5 (implicit double shift) and 7.6 (eigenvectors by back substitution).
#pragma once

#include <complex>
#include <vector>

namespace lsc {

using Complex = std::complex<double>;

// A = Z T Z', Z orthogonal, T upper quasi-triangular: its 2 x 2 diagonal blocks are the complex pairs. Row-major, m x
// m.
struct RealSchur {
  int m = 0;
  std::vector<double> T, Z;
  std::vector<Complex> eigenvalues;  // in the order of T's diagonal

  // False where the shifted iteration did not settle, or A holds a number that is not finite.
  bool factor(int size, const double* A);

  // x [m] of unit length with A x = eigenvalues[i] x.
  void right_vector(int i, Complex* x) const;
  // y [m] of unit length with A' y = eigenvalues[i] y (plain transpose).
  void left_vector(int i, Complex* y) const;

 private:
  void to_hessenberg();
  bool to_quasi_triangular();
  void split_real_pair(int row);
};

}  // namespace lsc
