// The spectral radius of one Jacobian J from products J v alone. See docs/math/radius.md.
//
// A short power iteration damps the bulk of the spectrum; then Arnoldi with modified Gram-Schmidt keeps
//     J V = V H + f e_m',   V' V = I,  f orthogonal to V
// and restarts thickly (Krylov-Schur; Stewart, SIAM J. Matrix Anal. Appl. 23, 2002) until the leading Ritz pairs have
// settled. The iteration asks for one product at a time (`product`, `input`, `output`, `advance`), so a driver can
// gather the requests of many points into one block product and every point has its own fate.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <vector>

#include "algorithms/backend.h"
#include "algorithms/operator.h"
#include "algorithms/real_schur.h"
#include "lsc/philox.h"
#include "lsc/status.h"

namespace lsc {

using Complex = std::complex<double>;

struct RadiusOptions {
  double tol = 1e-3;        // 0: fixed work, max_matvecs products and one factorisation for every point
  Index max_matvecs = 600;  // of one side
  std::uint64_t seed = 0;
};

struct RadiusResult {
  double radius = std::numeric_limits<double>::quiet_NaN();
  Complex eigenvalue = {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::quiet_NaN()};
  double residual = std::numeric_limits<double>::infinity();   // |J x - lambda x| / |lambda|, x of unit length
  double condition = std::numeric_limits<double>::infinity();  // 1 / |y' x| of the Ritz value in H
  Index num_matvecs = 0;
  Status status = Status::max_matvecs;
};

template <class T>
class RadiusIteration {
 public:
  // Sizes of the search space; measured rates behind them are in docs/design/0004.
  static constexpr Index kFilterSteps = 24;
  static constexpr Index kLeading = 8, kOrder = 32, kKeep = 14;
  static constexpr Index kWideLeading = 16, kWideOrder = 40, kWideKeep = 22;
  static constexpr double kRing = 0.97;
  static constexpr double kCompanionTol =
      0.03;  // residual at which the Ritz values beside the reported one count as found
  static constexpr Index kGrowthSteps = 32, kNormSteps = 10;
  static constexpr double kNearby = 0.5;  // smaller Ritz values, zeros of a low rank say, cast no doubt on the largest
  // What the eigenvalues of H may lose: far less than the rounding of the products that H is made from.
  static constexpr double kPrecision =
      std::max(double(std::numeric_limits<T>::epsilon()) / 1024, std::numeric_limits<double>::epsilon());
  static constexpr double kDoubtful = 1e3;  // condition from which a second start must confirm the first

  RadiusIteration(const LinearKernels<T>& linear, Index n, const RadiusOptions& options)
      : linear_(linear), n_(n), options_(options) {
    const Index largest = fixed() ? order() : kWideOrder;
    h_row_ = largest;
    basis_.resize(std::size_t((largest + 1) * n));
    if (!fixed()) rotated_.resize(std::size_t((kWideKeep + 2) * n));  // a complex pair may overshoot by one
    power_.resize(std::size_t(n));
    output_.resize(std::size_t(n));
    h_.resize(std::size_t((largest + 1) * largest));
  }

  // `point` numbers the start vectors. With a target, looks for the Ritz value nearest to it instead of the largest.
  void start(std::uint64_t point, Complex target = {}, bool has_target = false) {
    point_ = point;
    target_ = target;
    has_target_ = has_target;
    draw_ = 0;
    wide_ = growth_done_ = false;
    first_radius_ = -1;
    ritz_size_ = 0;
    result_ = RadiusResult{};
    if (n_ == 0) {
      result_.radius = result_.residual = 0;
      result_.eigenvalue = 0;
      result_.condition = 1;
      finish(Status::converged);
      return;
    }
    begin();
  }

  bool done() const { return phase_ == Phase::done; }
  Product product() const { return phase_ == Phase::norm_back ? Product::rmatvec : Product::matvec; }
  const T* input() const {
    if (phase_ == Phase::filter) return basis(0);
    return phase_ == Phase::arnoldi ? basis(step_) : power_.data();
  }
  T* output() { return output_.data(); }
  const RadiusResult& result() const { return result_; }

  // Takes the product that was written to output().
  void advance() {
    if (product() == Product::matvec) ++result_.num_matvecs;
    const double length = norm(output());
    if (!std::isfinite(length)) {
      const Index used = result_.num_matvecs;
      result_ = RadiusResult{};
      result_.num_matvecs = used;
      ritz_size_ = 0;
      return finish(Status::nonfinite);
    }
    switch (phase_) {
      case Phase::filter:
        return advance_filter(length);
      case Phase::arnoldi:
        return advance_arnoldi(length);
      case Phase::growth:
        return advance_growth(length);
      case Phase::norm:
      case Phase::norm_back:
        return advance_norm(length);
      case Phase::done:
        return;
    }
  }

  // The Ritz vector of the result, x [2, n]: real part, imaginary part; of unit length. Zero where there is none.
  void ritz_vector(T* x) const {
    std::fill(x, x + 2 * n_, T(0));
    for (Index i = 0; i < ritz_size_; ++i) {
      linear_.axpy(n_, T(ritz_.real[i]), basis(i), x);
      linear_.axpy(n_, T(ritz_.imaginary[i]), basis(i), x + n_);
    }
  }

 private:
  enum class Phase { filter, arnoldi, growth, norm, norm_back, done };

  T* basis(Index i) { return basis_.data() + i * n_; }
  const T* basis(Index i) const { return basis_.data() + i * n_; }
  double& h(Index i, Index j) { return h_[std::size_t(i * h_row_ + j)]; }
  double* h_row(Index i) { return h_.data() + i * h_row_; }
  double norm(const T* x) const { return std::sqrt(double(linear_.dot(n_, x, x))); }
  bool fixed() const { return options_.tol == 0; }
  Index order() const {
    if (fixed()) return std::min(n_, std::max<Index>(1, std::min<Index>(kOrder, options_.max_matvecs / 5)));
    return std::min<Index>(wide_ ? kWideOrder : kOrder, n_);
  }
  Index filter_steps() const {
    return fixed() ? options_.max_matvecs - order() : std::min<Index>(kFilterSteps, options_.max_matvecs / 2);
  }
  Index leading() const { return wide_ ? kWideLeading : kLeading; }

  void finish(Status status) {
    result_.status = status;
    phase_ = Phase::done;
  }

  // The first step from a fresh vector.
  void begin() {
    step_ = 0;
    zeros_ = closes_ = 0;
    beta_ = scale_ = 0;
    phase_ = filter_steps() > 0 ? Phase::filter : Phase::arnoldi;
    random_unit(basis(0));
  }

  void random_unit(T* v) {
    fill_normal(options_.seed, point_, draw_++, n_, v);
    linear_.scale(n_, T(1 / norm(v)), v, v);
  }

  bool out_of_budget() const { return result_.num_matvecs >= options_.max_matvecs; }

  void advance_filter(double length) {
    if (length == 0) {  // J^k v = 0 exactly
      if (++zeros_ == 2) {
        result_.radius = result_.residual = 0;
        result_.eigenvalue = 0;
        result_.condition = 1;
        return finish(Status::converged);
      }
      step_ = 0;
      if (out_of_budget()) return finish(Status::max_matvecs);
      return random_unit(basis(0));
    }
    linear_.scale(n_, T(1 / length), output(), basis(0));
    if (++step_ < filter_steps()) return;
    phase_ = Phase::arnoldi;
    step_ = 0;
  }

  // w <- w - V h, twice where much cancels ("twice is enough"), and coefficients += h; returns what is left of w.
  double orthogonalise(T* w, Index count, double length, double* coefficients) {
    for (int pass = 0; pass < 3; ++pass) {
      const double left = std::sqrt(double(linear_.orthogonalise(n_, count, basis(0), w, coefficients)));
      if (left > 0.5 * length) return left;
      length = left;
    }
    return length;
  }

  void advance_arnoldi(double length) {
    double column[kWideOrder] = {};
    T* w = output();
    double left = orthogonalise(w, step_ + 1, length, column);
    for (Index i = 0; i <= step_; ++i) h(i, step_) = column[i];
    scale_ = std::max(scale_, length);
    const Index m = step_ + 1;
    bool complete = m == n_;
    if (!complete && left <= 8 * double(std::numeric_limits<T>::epsilon()) * scale_) {
      left = 0;  // the space is invariant: look for what it misses, once
      complete = ++closes_ == 2;
      if (!complete) {
        random_unit(w);
        double unused[kWideOrder] = {};
        const double fresh = orthogonalise(w, m, 1.0, unused);
        complete = fresh == 0;
        if (!complete) linear_.scale(n_, T(1 / fresh), w, basis(m));
      }
    } else if (!complete) {
      linear_.scale(n_, T(1 / left), w, basis(m));
    }
    beta_ = complete ? 0 : left;
    if (!complete) {
      for (Index j = 0; j < step_; ++j) h(m, j) = 0;
      h(m, step_) = left;
    }
    step_ = m;
    if (complete || m >= order() || out_of_budget()) analyse(m, complete);
  }

  // The Ritz values of H, of order m, from the largest modulus down, but for a target's nearest, which comes first.
  struct RitzValues {
    RealSchur schur;
    int rank[kWideOrder];
    Complex operator[](int i) const { return {schur.real[i], schur.imaginary[i]}; }
  };

  bool find_ritz_values(Index m, RitzValues& ritz) {
    if (!linear_.schur->factor(int(m), h_.data(), int(h_row_), kPrecision, ritz.schur)) return false;
    const double* const modulus = ritz.schur.modulus;
    for (int i = 0; i < int(m); ++i) {
      int at = i;
      for (; at > 0 && modulus[ritz.rank[at - 1]] < modulus[i]; --at) ritz.rank[at] = ritz.rank[at - 1];
      ritz.rank[at] = i;
    }
    if (has_target_) {
      int* const nearest = std::min_element(ritz.rank, ritz.rank + m, [&](int a, int b) {
        return std::abs(ritz[a] - target_) < std::abs(ritz[b] - target_);
      });
      std::rotate(ritz.rank, nearest, nearest + 1);
    }
    return true;
  }

  // Ends the iteration, or restarts it.
  void analyse(Index m, bool complete) {
    RitzValues ritz;
    if (!find_ritz_values(m, ritz)) return finish(Status::breakdown);
    const RealSchur& schur = ritz.schur;
    const int* rank = ritz.rank;
    const int best = rank[0];
    const double size = schur.modulus[best];
    SchurVector x, y;
    // Rounding in the products limits what any residual can show.
    const double floor = double(std::numeric_limits<T>::epsilon()) * schur.frobenius;
    const auto residual = [&](int i, SchurVector& vector) {
      linear_.schur->right_vector(schur, i, vector);
      return beta_ * std::abs(Complex(vector.real[m - 1], vector.imaginary[m - 1])) + floor;
    };
    const auto relative = [&](double r) {
      return r == 0 ? 0 : size == 0 ? std::numeric_limits<double>::infinity() : r / size;
    };
    const auto condition = [&](int i, const SchurVector& right) {
      linear_.schur->left_vector(schur, i, y);
      double real = 0, imaginary = 0;
      for (Index r = 0; r < m; ++r) {
        real += y.real[r] * right.real[r] - y.imaginary[r] * right.imaginary[r];
        imaginary += y.real[r] * right.imaginary[r] + y.imaginary[r] * right.real[r];
      }
      const double overlap = std::abs(Complex(real, imaginary));
      return overlap > 0 ? 1 / overlap : std::numeric_limits<double>::infinity();
    };
    const double best_residual = relative(residual(best, ritz_));
    ritz_size_ = m;
    result_.eigenvalue = ritz[best];
    result_.radius = size;
    result_.residual = best_residual;
    result_.condition = condition(best, ritz_);

    if (fixed()) return finish(Status::max_matvecs);

    bool settled = best_residual < options_.tol;
    if (has_target_) {
      settled = settled && std::abs(result_.eigenvalue - target_) <= options_.tol * std::abs(target_);
    } else {
      wide_ = wide_ || (m > kLeading && schur.modulus[rank[kLeading - 1]] > kRing * size);
      for (Index i = 1; settled && i < std::min(leading(), m); ++i)
        if (schur.imaginary[rank[i]] >= 0)
          settled = relative(residual(rank[i], x)) < std::max(options_.tol, kCompanionTol);
      settled = settled && (complete || m >= leading());
    }
    bool certain = settled && result_.residual * result_.condition < options_.tol;
    // "Residual times condition" is first-order perturbation theory, which ends where rounding times condition squared
    // reaches 1; and H may understate the conditions, since the left vectors of J need not lie in the space. So none of
    // the leading Ritz values may be that ill-conditioned, and one that is doubtful must come out again from a fresh
    // start: what rounding put there does not.
    // Where the space is all there is, its conditions are exact.
    if (certain && !has_target_ && m == n_) certain = relative(floor) * result_.condition * result_.condition < 1;
    if (certain && !has_target_ && m < n_) {
      double worst = result_.condition;
      for (Index i = 1; i < std::min(leading(), m); ++i) {
        const int other = rank[i];
        if (schur.imaginary[other] < 0 || schur.modulus[other] < kNearby * size) continue;
        linear_.schur->right_vector(schur, other, x);
        worst = std::max(worst, condition(other, x));
      }
      certain = relative(floor) * worst * worst < 1;
      if (certain && worst > kDoubtful && first_radius_ < 0 &&
          result_.num_matvecs + kFilterSteps + order() <= options_.max_matvecs) {
        first_radius_ = size;
        return begin();
      }
      certain =
          certain && (first_radius_ < 0 ? worst <= kDoubtful : std::abs(size - first_radius_) <= options_.tol * size);
    }
    if (certain) return finish(Status::converged);
    if (complete || (settled && best_residual <= 2 * relative(floor)))
      return finish(settled ? Status::ill_conditioned : Status::max_matvecs);
    if (out_of_budget()) return finish(settled ? Status::ill_conditioned : Status::max_matvecs);
    if (!has_target_ && wide_ && !growth_done_ &&
        result_.num_matvecs + kGrowthSteps + kNormSteps <= options_.max_matvecs) {
      growth_done_ = true;
      std::copy_n(basis(0), n_, power_.data());
      paused_order_ = m;
      growth_ = 0;
      step_ = 0;
      phase_ = Phase::growth;
      return;
    }
    restart(m, ritz);
  }

  // Keeps an orthonormal basis of the invariant subspace of H that the first Ritz values span.
  void restart(Index m, const RitzValues& ritz) {
    const Index wanted = std::min<Index>(wide_ ? kWideKeep : kKeep, m - 2);
    double kept[kWideKeep + 1][kWideOrder];
    Index p = 0;
    SchurVector x;
    for (Index i = 0; i < m && p < wanted; ++i) {
      const int index = ritz.rank[i];
      const double imaginary = ritz.schur.imaginary[index];
      if (imaginary < 0) continue;  // its pair spans the same plane
      linear_.schur->right_vector(ritz.schur, index, x);
      p += add_orthonormal(m, x.real, p, kept);
      if (imaginary > 0) p += add_orthonormal(m, x.imaginary, p, kept);
    }
    for (Index i = 0; i < p; ++i) {
      T* target = rotated_.data() + i * n_;
      std::fill(target, target + n_, T(0));
      for (Index j = 0; j < m; ++j) linear_.axpy(n_, T(kept[i][j]), basis(j), target);
    }
    std::copy_n(basis(m), n_, rotated_.data() + p * n_);
    std::copy_n(rotated_.data(), (p + 1) * n_, basis_.data());
    // S = Z' H Z, and f's row in the new coordinates: beta times the last row of Z. Sums run along rows.
    double projected[kWideKeep + 1][kWideKeep + 1] = {};
    for (Index i = 0; i < p; ++i) {
      double zh[kWideOrder] = {};
      for (Index r = 0; r < m; ++r)
        for (Index c = 0; c < m; ++c) zh[c] += kept[i][r] * h(r, c);
      for (Index j = 0; j < p; ++j) projected[i][j] = inner(m, zh, kept[j]);
    }
    for (Index i = 0; i < p; ++i) std::copy_n(projected[i], p, h_row(i));
    for (Index j = 0; j < p; ++j) h(p, j) = beta_ * kept[j][m - 1];
    step_ = p;
    phase_ = Phase::arnoldi;
  }

  // Four chains hide the latency of an addition.
  static double inner(Index m, const double* x, const double* y) {
    double sum[4] = {};
    Index i = 0;
    for (; i + 4 <= m; i += 4)
      for (int c = 0; c < 4; ++c) sum[c] += x[i + c] * y[i + c];
    for (; i < m; ++i) sum[0] += x[i] * y[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }

  // Appends what is new in z to the p vectors that are kept; returns how many that are, 0 or 1.
  static Index add_orthonormal(Index m, const double* z, Index p, double (*kept)[kWideOrder]) {
    double* const fresh = kept[p];
    std::copy_n(z, m, fresh);
    const double before = std::sqrt(inner(m, fresh, fresh));
    if (before == 0) return 0;
    for (int pass = 0; pass < 2; ++pass)
      for (Index k = 0; k < p; ++k) {
        const double overlap = inner(m, fresh, kept[k]);
        for (Index i = 0; i < m; ++i) fresh[i] -= overlap * kept[k][i];
      }
    const double after = std::sqrt(inner(m, fresh, fresh));
    if (after < 1e-6 * before) return 0;  // near-defective: the direction is already kept
    for (Index i = 0; i < m; ++i) fresh[i] /= after;
    return 1;
  }

  // An orthogonal Jacobian has no leading eigenvalue to settle on, but its growth is its radius: where the largest
  // singular value is no larger than the growth of a vector, the two bracket the radius. The singular value is sought
  // from the vector that grew, which is the best start known and cannot come out below its growth unless that is
  // fading.
  void advance_growth(double length) {
    if (length == 0) return resume();
    growth_ += std::log(length);
    linear_.scale(n_, T(1 / length), output(), power_.data());
    if (++step_ < kGrowthSteps) return;
    growth_ = std::exp(growth_ / double(kGrowthSteps));
    step_ = 0;
    phase_ = Phase::norm;
  }

  void advance_norm(double length) {
    if (length == 0) return resume();
    linear_.scale(n_, T(1 / length), output(), power_.data());
    if (phase_ == Phase::norm) {
      phase_ = Phase::norm_back;
      return;
    }
    if (++step_ < kNormSteps) {
      phase_ = Phase::norm;
      return;
    }
    const double excess = length / growth_ - 1;  // |J' u| bounds the largest singular value from below
    if (std::abs(excess) <= options_.tol) {
      ritz_size_ = 0;
      result_.radius = growth_;
      result_.residual = std::abs(excess);
      result_.condition = 1;
      result_.eigenvalue = {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::quiet_NaN()};
      return finish(Status::converged);
    }
    resume();
  }

  void resume() {
    if (out_of_budget()) return finish(Status::max_matvecs);
    RitzValues ritz;  // once more: H is as it was
    if (!find_ritz_values(paused_order_, ritz)) return finish(Status::breakdown);
    restart(paused_order_, ritz);
  }

  const LinearKernels<T>& linear_;
  Index n_;
  RadiusOptions options_;
  std::vector<T> basis_, rotated_, power_, output_;
  std::vector<double> h_;
  Index h_row_ = 0;
  SchurVector ritz_;  // of the result, in the coordinates of the basis
  Index ritz_size_ = 0;
  RadiusResult result_;
  Phase phase_ = Phase::done;
  Complex target_;
  bool has_target_ = false, wide_ = false, growth_done_ = false;
  std::uint64_t point_ = 0;
  std::uint32_t draw_ = 0;
  Index step_ = 0;
  int zeros_ = 0, closes_ = 0;
  double beta_ = 0, scale_ = 0, growth_ = 0;
  double first_radius_ = -1;  // what the first start found where it was doubtful; negative: nothing
  Index paused_order_ = 0;
};

}  // namespace lsc
