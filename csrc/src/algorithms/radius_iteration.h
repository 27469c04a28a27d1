// The spectral radius of one Jacobian J from products J v alone. See docs/math/radius.md.
//
// A short power iteration damps the bulk of the spectrum; then Arnoldi with modified Gram-Schmidt keeps
//     J V = V H + f e_m',   V' V = I,  f orthogonal to V
// and restarts thickly (Krylov-Schur; Stewart, SIAM J. Matrix Anal. Appl. 23, 2002) until the leading Ritz pairs have
// settled. The iteration asks for one product at a time (`product`, `input`, `output`, `advance`), so a driver can
// gather the requests of many points into one block product and every point has its own fate.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "algorithms/operator.h"
#include "algorithms/real_schur.h"
#include "lsc/host_device.h"
#include "lsc/status.h"

namespace lsc {

// A complex number where std::complex cannot go.
struct Eigenvalue {
  double real = 0, imaginary = 0;
};

LSC_HD inline double modulus(const Eigenvalue& z) { return std::hypot(z.real, z.imaginary); }
LSC_HD inline double distance(const Eigenvalue& a, const Eigenvalue& b) {
  return modulus({a.real - b.real, a.imaginary - b.imaginary});
}

struct RadiusOptions {
  double tol = 1e-3;        // 0: fixed work, max_matvecs products and one factorisation for every point
  Index max_matvecs = 600;  // of one side
  std::uint64_t seed = 0;
};

// What is known of a radius.
struct RadiusEstimate {
  static constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double radius = kNan;
  Eigenvalue eigenvalue = {kNan, kNan};
  double residual = kInfinity;   // |J x - lambda x| / |lambda|, x of unit length
  double condition = kInfinity;  // 1 / |y' x| of the Ritz value in H
  Index num_matvecs = 0;
  Status status = Status::max_matvecs;
};

// Sizes of the search space; measured rates behind them are in docs/design/0004.
struct RadiusRules {
  static constexpr Index kFilterSteps = 24;
  static constexpr Index kLeading = 8, kOrder = 32, kKeep = 14;
  static constexpr Index kWideLeading = 16, kWideOrder = 40, kWideKeep = 22;
  static constexpr double kRing = 0.97;
  static constexpr double kCompanionTol =
      0.03;  // residual at which the Ritz values beside the reported one count as found
  static constexpr Index kGrowthSteps = 32, kNormSteps = 10;
  static constexpr double kNearby = 0.5;  // smaller Ritz values, zeros of a low rank say, cast no doubt on the largest
  static constexpr double kDoubtful = 1e3;  // condition from which a second start must confirm the first

  static LSC_HD Index smaller(Index a, Index b) { return b < a ? b : a; }
  static LSC_HD double larger(double a, double b) { return a < b ? b : a; }
  // Of the Arnoldi factorisation whose budget is fixed.
  static LSC_HD Index fixed_order(Index n, Index max_matvecs) {
    const Index afforded = smaller(kOrder, max_matvecs / 5);
    return smaller(n, afforded < 1 ? 1 : afforded);
  }
};

// What an iteration writes on its way through the small eigenproblem and does not need again: iterations that advance
// one after another share it.
struct RadiusScratch {
  RealSchur schur;
  SchurScratch substitution;
  SchurVector x, y;
  int rank[RadiusRules::kWideOrder];
  double column[RadiusRules::kWideOrder];
  double kept[RadiusRules::kWideKeep + 1][RadiusRules::kWideOrder];
  double projected[RadiusRules::kWideKeep + 1][RadiusRules::kWideKeep + 1];
};

// The memory of one iteration over n x n Jacobians.
template <class T>
struct RadiusMemory {
  T* vectors = nullptr;  // [vectors_needed, n]
  double* h = nullptr;   // [h_needed]

  // Columns of H.
  static LSC_HD Index columns(Index n, const RadiusOptions& options) {
    return options.tol == 0 ? RadiusRules::fixed_order(n, options.max_matvecs) : RadiusRules::kWideOrder;
  }
  // While it restarts, a complex pair may overshoot by one.
  static LSC_HD Index rotated(const RadiusOptions& options) {
    return options.tol == 0 ? 0 : RadiusRules::kWideKeep + 2;
  }
  // The basis, its rotation, one that grows, and a product.
  static LSC_HD Index vectors_needed(Index n, const RadiusOptions& options) {
    return columns(n, options) + 1 + rotated(options) + 2;
  }
  static LSC_HD Index h_needed(Index n, const RadiusOptions& options) {
    return (columns(n, options) + 1) * columns(n, options);
  }
};

// Linear is what the iteration computes with, on vectors of n numbers T in its memory:
//   T dot(n, x, y), scale(n, alpha, x, y), T orthogonalise(n, count, v, w, coefficients)   as LinearKernels
//   combine(n, count, coefficients, v, out)    out = the sum over i < count of coefficients[i] v_i, in that order
//   copy(n, x, y), fill_normal(seed, point, draw, n, v)
//   factor(m, A, row, precision, scratch), right_vector(i, scratch, x), left_vector(i, scratch, x)
// The last three are those of SchurKernels.
template <class T, class Linear>
class RadiusIteration : RadiusRules {
 public:
  // What the eigenvalues of H may lose: far less than the rounding of the products that H is made from.
  static constexpr double kEpsilon = std::numeric_limits<T>::epsilon();
  static constexpr double kDoubleEpsilon = std::numeric_limits<double>::epsilon();
  static constexpr double kPrecision = kEpsilon / 1024 > kDoubleEpsilon ? kEpsilon / 1024 : kDoubleEpsilon;

  LSC_HD RadiusIteration(const Linear& linear, Index n, const RadiusOptions& options, const RadiusMemory<T>& memory)
      : linear_(linear), n_(n), options_(options), h_(memory.h) {
    h_row_ = RadiusMemory<T>::columns(n, options);
    basis_ = memory.vectors;
    rotated_ = basis_ + (h_row_ + 1) * n;
    power_ = rotated_ + RadiusMemory<T>::rotated(options) * n;
    output_ = power_ + n;
  }

  // `point` numbers the start vectors. With a target, looks for the Ritz value nearest to it instead of the largest.
  LSC_HD void start(std::uint64_t point, Eigenvalue target = {}, bool has_target = false) {
    start_from(options_.seed, point, target, has_target);
  }
  // The same with another seed than the options'.
  LSC_HD void start_from(std::uint64_t seed, std::uint64_t point, Eigenvalue target, bool has_target) {
    seed_ = seed;
    point_ = point;
    target_ = target;
    has_target_ = has_target;
    draw_ = 0;
    wide_ = growth_done_ = false;
    first_radius_ = -1;
    ritz_size_ = 0;
    result_ = RadiusEstimate{};
    if (n_ == 0) {
      result_.radius = result_.residual = 0;
      result_.eigenvalue = {0, 0};
      result_.condition = 1;
      finish(Status::converged);
      return;
    }
    begin();
  }

  LSC_HD bool done() const { return phase_ == Phase::done; }
  LSC_HD Product product() const { return phase_ == Phase::norm_back ? Product::rmatvec : Product::matvec; }
  LSC_HD const T* input() const {
    if (phase_ == Phase::filter) return basis(0);
    return phase_ == Phase::arnoldi ? basis(step_) : power_;
  }
  LSC_HD T* output() { return output_; }
  LSC_HD const RadiusEstimate& result() const { return result_; }

  // Takes the product that was written to output().
  LSC_HD void advance(RadiusScratch& scratch) {
    scratch_ = &scratch;
    if (product() == Product::matvec) ++result_.num_matvecs;
    const double length = norm(output());
    if (!finite(length)) {
      const Index used = result_.num_matvecs;
      result_ = RadiusEstimate{};
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
  LSC_HD void ritz_vector(T* x) const {
    linear_.combine(n_, ritz_size_, ritz_.real, basis(0), x);
    linear_.combine(n_, ritz_size_, ritz_.imaginary, basis(0), x + n_);
  }

 private:
  enum class Phase { filter, arnoldi, growth, norm, norm_back, done };

  LSC_HD T* basis(Index i) const { return basis_ + i * n_; }
  LSC_HD double* h_row(Index i) const { return h_ + i * h_row_; }
  LSC_HD double& h(Index i, Index j) const { return h_row(i)[j]; }
  LSC_HD double norm(const T* x) const { return std::sqrt(double(linear_.dot(n_, x, x))); }
  static LSC_HD bool finite(double x) { return x - x == 0; }
  LSC_HD bool fixed() const { return options_.tol == 0; }
  LSC_HD Index order() const {
    if (fixed()) return fixed_order(n_, options_.max_matvecs);
    return smaller(wide_ ? kWideOrder : kOrder, n_);
  }
  LSC_HD Index filter_steps() const {
    return fixed() ? options_.max_matvecs - order() : smaller(kFilterSteps, options_.max_matvecs / 2);
  }
  LSC_HD Index leading() const { return wide_ ? kWideLeading : kLeading; }

  LSC_HD void finish(Status status) {
    result_.status = status;
    phase_ = Phase::done;
  }

  // The first step from a fresh vector.
  LSC_HD void begin() {
    step_ = 0;
    zeros_ = closes_ = 0;
    beta_ = scale_ = 0;
    phase_ = filter_steps() > 0 ? Phase::filter : Phase::arnoldi;
    random_unit(basis(0));
  }

  LSC_HD void random_unit(T* v) {
    linear_.fill_normal(seed_, point_, draw_++, n_, v);
    linear_.scale(n_, T(1 / norm(v)), v, v);
  }

  LSC_HD bool out_of_budget() const { return result_.num_matvecs >= options_.max_matvecs; }

  LSC_HD void advance_filter(double length) {
    if (length == 0) {  // J^k v = 0 exactly
      if (++zeros_ == 2) {
        result_.radius = result_.residual = 0;
        result_.eigenvalue = {0, 0};
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
  LSC_HD double orthogonalise(T* w, Index count, double length, double* coefficients) {
    for (int pass = 0; pass < 3; ++pass) {
      const double left = std::sqrt(double(linear_.orthogonalise(n_, count, basis(0), w, coefficients)));
      if (left > 0.5 * length) return left;
      length = left;
    }
    return length;
  }

  LSC_HD void advance_arnoldi(double length) {
    T* w = output();
    double* column = cleared_column(step_ + 1);
    double left = orthogonalise(w, step_ + 1, length, column);
    for (Index i = 0; i <= step_; ++i) h(i, step_) = column[i];
    scale_ = larger(scale_, length);
    const Index m = step_ + 1;
    bool complete = m == n_;
    if (!complete && left <= 8 * kEpsilon * scale_) {
      left = 0;  // the space is invariant: look for what it misses, once
      complete = ++closes_ == 2;
      if (!complete) {
        random_unit(w);
        const double fresh = orthogonalise(w, m, 1.0, cleared_column(m));
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

  LSC_HD double* cleared_column(Index count) const {
    for (Index i = 0; i < count; ++i) scratch_->column[i] = 0;
    return scratch_->column;
  }

  LSC_HD Eigenvalue ritz_value(int i) const { return {scratch_->schur.real[i], scratch_->schur.imaginary[i]}; }

  // The Ritz values of H, of order m, are those of scratch's schur; its rank sorts them from the largest modulus down,
  // but for a target's nearest, which comes first. False where there are none.
  LSC_HD bool find_ritz_values(Index m) {
    if (!linear_.factor(int(m), h_, int(h_row_), kPrecision, *scratch_)) return false;
    const double* const moduli = scratch_->schur.modulus;
    int* const rank = scratch_->rank;
    for (int i = 0; i < int(m); ++i) {
      int at = i;
      for (; at > 0 && moduli[rank[at - 1]] < moduli[i]; --at) rank[at] = rank[at - 1];
      rank[at] = i;
    }
    if (has_target_) {
      int nearest = 0;
      for (int i = 1; i < int(m); ++i)
        if (distance(ritz_value(rank[i]), target_) < distance(ritz_value(rank[nearest]), target_)) nearest = i;
      const int first = rank[nearest];
      for (int i = nearest; i > 0; --i) rank[i] = rank[i - 1];
      rank[0] = first;
    }
    return true;
  }

  // Ends the iteration, or restarts it.
  LSC_HD void analyse(Index m, bool complete) {
    if (!find_ritz_values(m)) return finish(Status::breakdown);
    const RealSchur& schur = scratch_->schur;
    const int* const rank = scratch_->rank;
    const int best = rank[0];
    const double size = schur.modulus[best];
    SchurVector &x = scratch_->x, &y = scratch_->y;
    // Rounding in the products limits what any residual can show.
    const double floor = kEpsilon * schur.frobenius;
    const auto residual = [&](int i, SchurVector& vector) {
      linear_.right_vector(i, *scratch_, vector);
      return beta_ * modulus({vector.real[m - 1], vector.imaginary[m - 1]}) + floor;
    };
    const auto relative = [&](double r) { return r == 0 ? 0 : size == 0 ? RadiusEstimate::kInfinity : r / size; };
    const auto condition = [&](int i, const SchurVector& right) {
      linear_.left_vector(i, *scratch_, y);
      double real = 0, imaginary = 0;
      for (Index r = 0; r < m; ++r) {
        real += y.real[r] * right.real[r] - y.imaginary[r] * right.imaginary[r];
        imaginary += y.real[r] * right.imaginary[r] + y.imaginary[r] * right.real[r];
      }
      const double overlap = modulus({real, imaginary});
      return overlap > 0 ? 1 / overlap : RadiusEstimate::kInfinity;
    };
    const double best_residual = relative(residual(best, ritz_));
    ritz_size_ = m;
    result_.eigenvalue = ritz_value(best);
    result_.radius = size;
    result_.residual = best_residual;
    result_.condition = condition(best, ritz_);

    if (fixed()) return finish(Status::max_matvecs);

    bool settled = best_residual < options_.tol;
    if (has_target_) {
      settled = settled && distance(result_.eigenvalue, target_) <= options_.tol * modulus(target_);
    } else {
      wide_ = wide_ || (m > kLeading && schur.modulus[rank[kLeading - 1]] > kRing * size);
      for (Index i = 1; settled && i < smaller(leading(), m); ++i)
        if (schur.imaginary[rank[i]] >= 0)
          settled = relative(residual(rank[i], x)) < larger(options_.tol, kCompanionTol);
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
      for (Index i = 1; i < smaller(leading(), m); ++i) {
        const int other = rank[i];
        if (schur.imaginary[other] < 0 || schur.modulus[other] < kNearby * size) continue;
        linear_.right_vector(other, *scratch_, x);
        worst = larger(worst, condition(other, x));
      }
      certain = relative(floor) * worst * worst < 1;
      if (certain && worst > kDoubtful && first_radius_ < 0 &&
          result_.num_matvecs + kFilterSteps + order() <= options_.max_matvecs) {
        first_radius_ = size;
        return begin();
      }
      certain =
          certain && (first_radius_ < 0 ? worst <= kDoubtful : std::fabs(size - first_radius_) <= options_.tol * size);
    }
    if (certain) return finish(Status::converged);
    if (complete || (settled && best_residual <= 2 * relative(floor)))
      return finish(settled ? Status::ill_conditioned : Status::max_matvecs);
    if (out_of_budget()) return finish(settled ? Status::ill_conditioned : Status::max_matvecs);
    if (!has_target_ && wide_ && !growth_done_ &&
        result_.num_matvecs + kGrowthSteps + kNormSteps <= options_.max_matvecs) {
      growth_done_ = true;
      linear_.copy(n_, basis(0), power_);
      paused_order_ = m;
      growth_ = 0;
      step_ = 0;
      phase_ = Phase::growth;
      return;
    }
    restart(m);
  }

  // Keeps an orthonormal basis of the invariant subspace of H that the first Ritz values span.
  LSC_HD void restart(Index m) {
    const RealSchur& schur = scratch_->schur;
    const Index wanted = smaller(wide_ ? kWideKeep : kKeep, m - 2);
    auto* const kept = scratch_->kept;
    SchurVector& x = scratch_->x;
    Index p = 0;
    for (Index i = 0; i < m && p < wanted; ++i) {
      const int index = scratch_->rank[i];
      const double imaginary = schur.imaginary[index];
      if (imaginary < 0) continue;  // its pair spans the same plane
      linear_.right_vector(index, *scratch_, x);
      p += add_orthonormal(m, x.real, p, kept);
      if (imaginary > 0) p += add_orthonormal(m, x.imaginary, p, kept);
    }
    for (Index i = 0; i < p; ++i) linear_.combine(n_, m, kept[i], basis(0), rotated_ + i * n_);
    linear_.copy(n_, basis(m), rotated_ + p * n_);
    linear_.copy((p + 1) * n_, rotated_, basis_);
    // S = Z' H Z, and f's row in the new coordinates: beta times the last row of Z. Sums run along rows.
    auto* const projected = scratch_->projected;
    for (Index i = 0; i < p; ++i) {
      double* const zh = cleared_column(m);
      for (Index r = 0; r < m; ++r)
        for (Index c = 0; c < m; ++c) zh[c] += kept[i][r] * h(r, c);
      for (Index j = 0; j < p; ++j) projected[i][j] = inner(m, zh, kept[j]);
    }
    for (Index i = 0; i < p; ++i)
      for (Index j = 0; j < p; ++j) h(i, j) = projected[i][j];
    for (Index j = 0; j < p; ++j) h(p, j) = beta_ * kept[j][m - 1];
    step_ = p;
    phase_ = Phase::arnoldi;
  }

  // Four chains hide the latency of an addition.
  static LSC_HD double inner(Index m, const double* x, const double* y) {
    double sum[4] = {};
    Index i = 0;
    for (; i + 4 <= m; i += 4)
      for (int c = 0; c < 4; ++c) sum[c] += x[i + c] * y[i + c];
    for (; i < m; ++i) sum[0] += x[i] * y[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }

  // Appends what is new in z to the p vectors that are kept; returns how many that are, 0 or 1.
  static LSC_HD Index add_orthonormal(Index m, const double* z, Index p, double (*kept)[kWideOrder]) {
    double* const fresh = kept[p];
    for (Index i = 0; i < m; ++i) fresh[i] = z[i];
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
  LSC_HD void advance_growth(double length) {
    if (length == 0) return resume();
    growth_ += std::log(length);
    linear_.scale(n_, T(1 / length), output(), power_);
    if (++step_ < kGrowthSteps) return;
    growth_ = std::exp(growth_ / double(kGrowthSteps));
    step_ = 0;
    phase_ = Phase::norm;
  }

  LSC_HD void advance_norm(double length) {
    if (length == 0) return resume();
    linear_.scale(n_, T(1 / length), output(), power_);
    if (phase_ == Phase::norm) {
      phase_ = Phase::norm_back;
      return;
    }
    if (++step_ < kNormSteps) {
      phase_ = Phase::norm;
      return;
    }
    const double excess = length / growth_ - 1;  // |J' u| bounds the largest singular value from below
    if (std::fabs(excess) <= options_.tol) {
      ritz_size_ = 0;
      result_.radius = growth_;
      result_.residual = std::fabs(excess);
      result_.condition = 1;
      result_.eigenvalue = {RadiusEstimate::kNan, RadiusEstimate::kNan};
      return finish(Status::converged);
    }
    resume();
  }

  LSC_HD void resume() {
    if (out_of_budget()) return finish(Status::max_matvecs);
    if (!find_ritz_values(paused_order_)) return finish(Status::breakdown);  // once more: H is as it was
    restart(paused_order_);
  }

  Linear linear_;
  Index n_;
  RadiusOptions options_;
  T *basis_, *rotated_, *power_, *output_;
  double* h_;
  Index h_row_;
  RadiusScratch* scratch_ = nullptr;
  SchurVector ritz_;  // of the result, in the coordinates of the basis
  Index ritz_size_ = 0;
  RadiusEstimate result_;
  Phase phase_ = Phase::done;
  Eigenvalue target_;
  bool has_target_ = false, wide_ = false, growth_done_ = false;
  std::uint64_t seed_ = 0, point_ = 0;
  std::uint32_t draw_ = 0;
  Index step_ = 0;
  int zeros_ = 0, closes_ = 0;
  double beta_ = 0, scale_ = 0, growth_ = 0;
  double first_radius_ = -1;  // what the first start found where it was doubtful; negative: nothing
  Index paused_order_ = 0;
};

}  // namespace lsc
