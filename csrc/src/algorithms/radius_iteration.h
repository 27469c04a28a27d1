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
#include <cstdint>
#include <limits>
#include <vector>

#include "algorithms/backend.h"
#include "algorithms/operator.h"
#include "algorithms/real_schur.h"
#include "lsc/philox.h"
#include "lsc/status.h"

namespace lsc {

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
  static constexpr double kDoubtful = 1e3;  // condition from which a second start must confirm the first

  RadiusIteration(const LinearKernels<T>& linear, Index n, const RadiusOptions& options)
      : linear_(linear), n_(n), options_(options) {
    basis_.resize(std::size_t((kWideOrder + 1) * n));
    rotated_.resize(std::size_t((kWideKeep + 2) * n));  // a complex pair may overshoot by one
    power_.resize(std::size_t(n));
    output_.resize(std::size_t(n));
    h_.assign(std::size_t((kWideOrder + 1) * kWideOrder), 0.0);
  }

  // `point` numbers the start vectors. With a target, looks for the Ritz value nearest to it instead of the largest.
  void start(std::uint64_t point, Complex target = {}, bool has_target = false) {
    point_ = point;
    target_ = target;
    has_target_ = has_target;
    draw_ = 0;
    wide_ = growth_done_ = false;
    first_radius_ = -1;
    ritz_.clear();
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
      ritz_.clear();
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
    for (std::size_t i = 0; i < ritz_.size(); ++i) {
      linear_.axpy(n_, T(ritz_[i].real()), basis(Index(i)), x);
      linear_.axpy(n_, T(ritz_[i].imag()), basis(Index(i)), x + n_);
    }
  }

 private:
  enum class Phase { filter, arnoldi, growth, norm, norm_back, done };

  T* basis(Index i) { return basis_.data() + i * n_; }
  const T* basis(Index i) const { return basis_.data() + i * n_; }
  double& h(Index i, Index j) { return h_[std::size_t(i * kWideOrder + j)]; }
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
    std::fill(h_.begin(), h_.end(), 0.0);
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

  // w <- w - V h, twice where much cancels ("twice is enough"); returns what is left of w.
  double orthogonalise(T* w, Index count, double length, double* coefficients) {
    for (int pass = 0; pass < 3; ++pass) {
      for (Index i = 0; i < count; ++i) {
        const T overlap = linear_.dot(n_, basis(i), w);
        linear_.axpy(n_, -overlap, basis(i), w);
        if (coefficients) coefficients[i] += double(overlap);
      }
      const double left = norm(w);
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
        const double fresh = orthogonalise(w, m, 1.0, nullptr);
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

  // Ritz pairs of H; ends the iteration, or restarts it.
  void analyse(Index m, bool complete) {
    std::vector<double> square(static_cast<std::size_t>(m * m));
    double frobenius = 0;
    for (Index i = 0; i < m; ++i)
      for (Index j = 0; j < m; ++j) {
        square[std::size_t(i * m + j)] = h(i, j);
        frobenius += h(i, j) * h(i, j);
      }
    frobenius = std::sqrt(frobenius);
    if (!schur_.factor(int(m), square.data())) return finish(Status::breakdown);
    const std::vector<Complex>& lambda = schur_.eigenvalues;
    std::vector<int> rank(static_cast<std::size_t>(m));
    for (Index i = 0; i < m; ++i) rank[std::size_t(i)] = int(i);
    std::stable_sort(rank.begin(), rank.end(), [&](int a, int b) { return modulus(lambda, a) > modulus(lambda, b); });
    if (has_target_) {
      const auto nearest = std::min_element(rank.begin(), rank.end(), [&](int a, int b) {
        return std::abs(lambda[std::size_t(a)] - target_) < std::abs(lambda[std::size_t(b)] - target_);
      });
      std::rotate(rank.begin(), nearest, nearest + 1);
    }
    const int best = rank[0];
    const double size = std::abs(lambda[std::size_t(best)]);
    std::vector<Complex> x(static_cast<std::size_t>(m)), y(static_cast<std::size_t>(m));
    // Rounding in the products limits what any residual can show.
    const double floor = double(std::numeric_limits<T>::epsilon()) * frobenius;
    const auto residual = [&](int i) {
      schur_.right_vector(i, x.data());
      return beta_ * std::abs(x[std::size_t(m - 1)]) + floor;
    };
    const auto relative = [&](double r) {
      return r == 0 ? 0 : size == 0 ? std::numeric_limits<double>::infinity() : r / size;
    };
    const auto condition = [&](int i) {  // of the pair whose right vector is in x
      schur_.left_vector(i, y.data());
      Complex overlap = 0;
      for (Index r = 0; r < m; ++r) overlap += y[std::size_t(r)] * x[std::size_t(r)];
      return std::abs(overlap) > 0 ? 1 / std::abs(overlap) : std::numeric_limits<double>::infinity();
    };
    const double best_residual = relative(residual(best));
    result_.eigenvalue = lambda[std::size_t(best)];
    result_.radius = size;
    result_.residual = best_residual;
    result_.condition = condition(best);
    ritz_ = x;

    if (fixed()) return finish(Status::max_matvecs);

    bool settled = best_residual < options_.tol;
    if (has_target_) {
      settled = settled && std::abs(lambda[std::size_t(best)] - target_) <= options_.tol * std::abs(target_);
    } else {
      wide_ = wide_ || (m > kLeading && modulus(lambda, rank[kLeading - 1]) > kRing * size);
      for (Index i = 1; settled && i < std::min(leading(), m); ++i)
        if (lambda[std::size_t(rank[std::size_t(i)])].imag() >= 0)
          settled = relative(residual(rank[std::size_t(i)])) < std::max(options_.tol, kCompanionTol);
      settled = settled && (complete || m >= leading());
    }
    bool certain = settled && result_.residual * result_.condition < options_.tol;
    // "Residual times condition" is first-order perturbation theory, which ends where rounding times condition squared
    // reaches 1; and H may understate the conditions, since the left vectors of J need not lie in the space. So none of
    // the leading Ritz values may be that ill-conditioned, and one that is doubtful must come out again from a fresh
    // start: what rounding put there does not.
    if (certain && !has_target_ && m < n_) {
      double worst = result_.condition;
      for (Index i = 1; i < std::min(leading(), m); ++i) {
        const int other = rank[std::size_t(i)];
        if (lambda[std::size_t(other)].imag() < 0 || modulus(lambda, other) < kNearby * size) continue;
        schur_.right_vector(other, x.data());
        worst = std::max(worst, condition(other));
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
      resume_ = {m, rank};
      growth_ = 0;
      step_ = 0;
      phase_ = Phase::growth;
      return;
    }
    restart(m, rank);
  }

  static double modulus(const std::vector<Complex>& lambda, int i) { return std::abs(lambda[std::size_t(i)]); }

  // Keeps an orthonormal basis of the invariant subspace of H that the first Ritz values span.
  void restart(Index m, const std::vector<int>& rank) {
    const Index wanted = std::min<Index>(wide_ ? kWideKeep : kKeep, m - 2);
    std::vector<std::vector<double>> kept;
    std::vector<Complex> x(static_cast<std::size_t>(m));
    for (Index i = 0; i < m && Index(kept.size()) < wanted; ++i) {
      const int index = rank[std::size_t(i)];
      const double imaginary = schur_.eigenvalues[std::size_t(index)].imag();
      if (imaginary < 0) continue;  // its pair spans the same plane
      schur_.right_vector(index, x.data());
      for (int part = 0; part < (imaginary > 0 ? 2 : 1); ++part) {
        std::vector<double> z(static_cast<std::size_t>(m));
        for (Index r = 0; r < m; ++r) z[std::size_t(r)] = part ? x[std::size_t(r)].imag() : x[std::size_t(r)].real();
        add_orthonormal(z, kept);
      }
    }
    const Index p = Index(kept.size());
    for (Index i = 0; i < p; ++i) {
      T* target = rotated_.data() + i * n_;
      std::fill(target, target + n_, T(0));
      for (Index j = 0; j < m; ++j) linear_.axpy(n_, T(kept[std::size_t(i)][std::size_t(j)]), basis(j), target);
    }
    std::copy_n(basis(m), n_, rotated_.data() + p * n_);
    std::copy_n(rotated_.data(), (p + 1) * n_, basis_.data());
    // S = Z' H Z, and f's row in the new coordinates: beta times the last row of Z.
    std::vector<double> hz(static_cast<std::size_t>(m));
    std::vector<double> projected(static_cast<std::size_t>(p * p));
    for (Index j = 0; j < p; ++j) {
      for (Index r = 0; r < m; ++r) {
        hz[std::size_t(r)] = 0;
        for (Index c = 0; c < m; ++c) hz[std::size_t(r)] += h(r, c) * kept[std::size_t(j)][std::size_t(c)];
      }
      for (Index i = 0; i < p; ++i) {
        double sum = 0;
        for (Index r = 0; r < m; ++r) sum += kept[std::size_t(i)][std::size_t(r)] * hz[std::size_t(r)];
        projected[std::size_t(i * p + j)] = sum;
      }
    }
    std::fill(h_.begin(), h_.end(), 0.0);
    for (Index i = 0; i < p; ++i)
      for (Index j = 0; j < p; ++j) h(i, j) = projected[std::size_t(i * p + j)];
    for (Index j = 0; j < p; ++j) h(p, j) = beta_ * kept[std::size_t(j)][std::size_t(m - 1)];
    step_ = p;
    phase_ = Phase::arnoldi;
  }

  static void add_orthonormal(std::vector<double>& z, std::vector<std::vector<double>>& kept) {
    const auto length = [&] {
      double sum = 0;
      for (const double v : z) sum += v * v;
      return std::sqrt(sum);
    };
    const double before = length();
    if (before == 0) return;
    for (int pass = 0; pass < 2; ++pass)
      for (const std::vector<double>& other : kept) {
        double overlap = 0;
        for (std::size_t i = 0; i < z.size(); ++i) overlap += z[i] * other[i];
        for (std::size_t i = 0; i < z.size(); ++i) z[i] -= overlap * other[i];
      }
    const double after = length();
    if (after < 1e-6 * before) return;  // near-defective: the direction is already kept
    for (double& v : z) v /= after;
    kept.push_back(z);
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
      ritz_.clear();
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
    restart(resume_.m, resume_.rank);
  }

  struct Paused {
    Index m = 0;
    std::vector<int> rank;
  };

  const LinearKernels<T>& linear_;
  Index n_;
  RadiusOptions options_;
  std::vector<T> basis_, rotated_, power_, output_;
  std::vector<double> h_;
  std::vector<Complex> ritz_;
  RealSchur schur_;
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
  Paused resume_;
};

}  // namespace lsc
