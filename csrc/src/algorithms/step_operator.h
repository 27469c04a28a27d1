// Products with the Jacobians of a layer's step, from its local coefficients and two dense products; no matrix is
// formed. See docs/math/jacobian-products.md.
#pragma once

#include <algorithm>

#include "algorithms/backward.h"
#include "algorithms/operator.h"
#include "algorithms/packed_matrix.h"
#include "algorithms/stack.h"

namespace lsc {

// One (t, b) of a sequence.
struct GridPoint {
  Index t, b;
};

// The step of one layer, linearised at N points. `recurrent` products go through the states [S, H], `input` products
// through what the layer is fed [n].
template <class T>
class LinearizedStep {
 public:
  LinearizedStep(const Backend<T>& backend, const CellShape& cell, const CellKernels<T>& kernels,
                 const LayerParameters<const T>& layer, const Trajectory<T>& trajectory, Index l,
                 const std::vector<GridPoint>& points)
      : cell_(cell),
        kernels_(kernels),
        linear_(backend.linear),
        trajectory_(trajectory),
        layer_(l),
        points_(points),
        H_(trajectory.shape.H),
        n_(trajectory.shape.input_size(l)),
        S_(cell.states),
        P_(cell.preactivations),
        K_(S_ + P_),
        input_weights_(backend.linear, cell.input_blocks, H_, n_, layer.weight_ih, true),
        recurrent_weights_(backend.linear, cell.recurrent_blocks, H_, H_, layer.weight_hh, true),
        coefficients_(std::size_t(points.size()) * std::size_t(S_ * K_ * H_)) {
    const int threads = useful_threads(backend.threads, 10.0 * double(coefficients_.size()));
    parallel_ranges(threads, Index(points.size()), backend.poll, [&](Index begin, Index end, const Poll&) {
      for (Index i = begin; i < end; ++i)
        kernels_.linearize(H_, gate(i), state(i), trajectory_.state_stride(), coefficients(i));
    });
  }

  Index points() const { return Index(points_.size()); }
  Index units() const { return H_; }
  Index states() const { return S_; }
  Index input_size() const { return n_; }

  // ds_next [count, outputs, H] <- along a change of the states, v [count, S, H]; the first `outputs` states only.
  void recurrent(Index count, const Index* point, const T* v, Index outputs, T* out) const {
    std::vector<T> dp(std::size_t(count * P_ * H_));
    recurrent_pre_activations(count, v, dp.data());
    for (Index j = 0; j < count; ++j)
      for (Index i = 0; i < outputs; ++i) {
        T* target = out + (j * outputs + i) * H_;
        const T* local = coefficients(point[j]) + i * K_ * H_;
        std::fill(target, target + H_, T(0));
        add_gates(local, dp.data() + j * P_ * H_, &Feed::recurrent, target);
        for (Index s = 0; s < S_; ++s) linear_.multiply_add(H_, local + (P_ + s) * H_, v + (j * S_ + s) * H_, target);
      }
  }

  // The transpose: u [count, outputs, H] -> [count, S, H].
  void recurrent_transposed(Index count, const Index* point, const T* u, Index outputs, T* out) const {
    std::vector<T> g(std::size_t(count * P_ * H_));
    gate_gradients(count, point, u, outputs, &Feed::recurrent, g.data());
    for (Index j = 0; j < count; ++j)
      for (Index s = 0; s < S_; ++s) {
        T* target = out + (j * S_ + s) * H_;
        std::fill(target, target + H_, T(0));
        for (Index i = 0; i < outputs; ++i)
          linear_.multiply_add(H_, coefficients(point[j]) + (i * K_ + P_ + s) * H_, u + (j * outputs + i) * H_, target);
      }
    for (Index k = 0; k < P_; ++k)
      if (const int block = feed(k).recurrent; block != kNone)
        recurrent_weights_.transposed[std::size_t(block)].multiply(count, g.data() + k * H_, P_ * H_, 1, out, S_ * H_,
                                                                   true);
  }

  // ds_next [count, outputs, H] <- along a change of the input, v [count, n].
  void input(Index count, const Index* point, const T* v, Index outputs, T* out) const {
    std::vector<T> dp(std::size_t(count * P_ * H_));
    input_pre_activations(count, v, dp.data());
    for (Index j = 0; j < count; ++j)
      for (Index i = 0; i < outputs; ++i) {
        T* target = out + (j * outputs + i) * H_;
        std::fill(target, target + H_, T(0));
        add_gates(coefficients(point[j]) + i * K_ * H_, dp.data() + j * P_ * H_, &Feed::input, target);
      }
  }

  // The transpose: u [count, outputs, H] -> [count, n].
  void input_transposed(Index count, const Index* point, const T* u, Index outputs, T* out) const {
    std::vector<T> g(std::size_t(count * P_ * H_));
    gate_gradients(count, point, u, outputs, &Feed::input, g.data());
    std::fill(out, out + count * n_, T(0));
    for (Index k = 0; k < P_; ++k)
      if (const int block = feed(k).input; block != kNone)
        input_weights_.transposed[std::size_t(block)].multiply(count, g.data() + k * H_, P_ * H_, 1, out, n_, true);
  }

  // phi = sum_j u_j' (J[point[j]] v_j), with J the recurrent or the input product. Adds d phi / d parameters to
  // `gradient` (its explicit dependence: states and inputs are data), and, where not null, writes d phi / d the states
  // before the step [count, S, H] and d phi / d the input [count, n]. See docs/math/radius-gradient.md.
  void bilinear_gradient(const Backend<T>& backend, bool through_input, Index count, const Index* point, const T* u,
                         Index outputs, const T* v, const LayerParameters<T>& gradient, T* state_gradient,
                         T* input_gradient) const {
    const Index row_size = P_ * H_;
    std::vector<T> dp(std::size_t(count * row_size)), g(std::size_t(count * row_size)),
        q(std::size_t(count * row_size));
    std::vector<T> ds(std::size_t(count * S_ * H_)), r(std::size_t(count * S_ * H_)), fed(std::size_t(count * n_));
    std::vector<T> h(std::size_t(count * H_)), h_direction(through_input ? 0 : std::size_t(count * H_));
    if (through_input) {
      input_pre_activations(count, v, dp.data());
    } else {
      recurrent_pre_activations(count, v, dp.data());
      std::copy_n(v, count * S_ * H_, ds.data());
      for (Index j = 0; j < count; ++j) std::copy_n(v + j * S_ * H_, H_, h_direction.data() + j * H_);
    }
    gate_gradients(count, point, u, outputs, through_input ? &Feed::input : &Feed::recurrent, g.data());
    const int threads = useful_threads(backend.threads, 40.0 * double(count * S_ * K_ * H_));
    parallel_ranges(threads, count, backend.poll, [&](Index begin, Index end, const Poll&) {
      std::vector<T> weights(std::size_t(S_ * H_));
      for (Index j = begin; j < end; ++j) {
        std::copy_n(u + j * outputs * H_, outputs * H_, weights.data());
        kernels_.second_order(H_, gate(point[j]), state(point[j]), trajectory_.state_stride(), dp.data() + j * row_size,
                              ds.data() + j * S_ * H_, weights.data(), q.data() + j * row_size, r.data() + j * S_ * H_);
        std::copy_n(state(point[j]), H_, h.data() + j * H_);
        std::copy_n(input_row(point[j]), n_, fed.data() + j * n_);
      }
    });
    const auto input_block = [](const Feed& f) { return f.input; };
    const auto recurrent_block = [](const Feed& f) { return f.recurrent; };
    // Through the point of linearisation: q against what each product was fed.
    weight_gradients(backend, cell_, count, H_, n_, q.data(), fed.data(), input_block, true, gradient.weight_ih,
                     gradient.bias_ih);
    weight_gradients(backend, cell_, count, H_, H_, q.data(), h.data(), recurrent_block, true, gradient.weight_hh,
                     gradient.bias_hh);
    // Through the product itself: g against the direction.
    if (through_input)
      weight_gradients<T>(backend, cell_, count, H_, n_, g.data(), v, input_block, true, gradient.weight_ih, nullptr);
    else
      weight_gradients<T>(backend, cell_, count, H_, H_, g.data(), h_direction.data(), recurrent_block, true,
                          gradient.weight_hh, nullptr);
    if (state_gradient) {
      std::copy(r.begin(), r.end(), state_gradient);
      for (Index k = 0; k < P_; ++k)
        if (const int block = feed(k).recurrent; block != kNone)
          recurrent_weights_.transposed[std::size_t(block)].multiply(count, q.data() + k * H_, row_size, 1,
                                                                     state_gradient, S_ * H_, true);
    }
    if (input_gradient) {
      std::fill(input_gradient, input_gradient + count * n_, T(0));
      for (Index k = 0; k < P_; ++k)
        if (const int block = feed(k).input; block != kNone)
          input_weights_.transposed[std::size_t(block)].multiply(count, q.data() + k * H_, row_size, 1, input_gradient,
                                                                 n_, true);
    }
  }

 private:
  const T* gate(Index i) const {
    return trajectory_.gate(layer_, points_[std::size_t(i)].t, points_[std::size_t(i)].b);
  }
  const T* state(Index i) const {
    return trajectory_.state(layer_, points_[std::size_t(i)].t, points_[std::size_t(i)].b);
  }
  const T* input_row(Index i) const {
    return trajectory_.input(layer_, points_[std::size_t(i)].t, points_[std::size_t(i)].b);
  }
  // [S, P + S, H] of point i.
  const T* coefficients(Index i) const { return coefficients_.data() + i * S_ * K_ * H_; }
  T* coefficients(Index i) { return coefficients_.data() + i * S_ * K_ * H_; }
  const Feed& feed(Index k) const { return cell_.feeds[std::size_t(k)]; }

  // dp [count, P, H] along v [count, S, H]; blocks without a recurrent feed stay zero.
  void recurrent_pre_activations(Index count, const T* v, T* dp) const {
    for (Index k = 0; k < P_; ++k)
      if (const int block = feed(k).recurrent; block != kNone)
        recurrent_weights_.forward[std::size_t(block)].multiply(count, v, S_ * H_, 1, dp + k * H_, P_ * H_, false);
  }
  void input_pre_activations(Index count, const T* v, T* dp) const {
    for (Index k = 0; k < P_; ++k)
      if (const int block = feed(k).input; block != kNone)
        input_weights_.forward[std::size_t(block)].multiply(count, v, n_, 1, dp + k * H_, P_ * H_, false);
  }
  void add_gates(const T* local, const T* dp, int Feed::* path, T* target) const {
    for (Index k = 0; k < P_; ++k)
      if (feed(k).*path != kNone) linear_.multiply_add(H_, local + k * H_, dp + k * H_, target);
  }
  // g [count, P, H] = u' (d next / d p), for the blocks on the path.
  void gate_gradients(Index count, const Index* point, const T* u, Index outputs, int Feed::* path, T* g) const {
    std::fill(g, g + count * P_ * H_, T(0));
    for (Index j = 0; j < count; ++j)
      for (Index i = 0; i < outputs; ++i)
        for (Index k = 0; k < P_; ++k)
          if (feed(k).*path != kNone)
            linear_.multiply_add(H_, coefficients(point[j]) + (i * K_ + k) * H_, u + (j * outputs + i) * H_,
                                 g + (j * P_ + k) * H_);
  }

  const CellShape& cell_;
  const CellKernels<T>& kernels_;
  const LinearKernels<T>& linear_;
  Trajectory<T> trajectory_;
  Index layer_;
  std::vector<GridPoint> points_;
  Index H_, n_, S_, P_, K_;
  BlockWeights<T> input_weights_, recurrent_weights_;
  std::vector<T> coefficients_;
};

enum class Direction { time, depth, diagonal, input };

// J of one layer l at N points, along a direction of the grid:
//   time      d s[t, l] / d s[t-1, l]           [S H, S H]
//   depth     d y[t, l] / d (input of l at t)   [H, n]
//   input     d s[t, l] / d (input of l at t)   [S H, n]
//   diagonal  d s[t, l] / d s[t-1, l-1]         [S H, S H]: the time step of layer l-1, seen through the input of l
template <class T>
class StepOperator : public Operator<T> {
 public:
  StepOperator(const Backend<T>& backend, const CellShape& cell, const CellKernels<T>& kernels,
               const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory, Index l,
               Direction direction, const std::vector<GridPoint>& points)
      : direction_(direction), step_(backend, cell, kernels, layers[std::size_t(l)], trajectory, l, points) {
    if (direction == Direction::diagonal)
      below_.emplace_back(backend, cell, kernels, layers[std::size_t(l - 1)], trajectory, l - 1, points);
    outputs_ = direction == Direction::depth ? 1 : step_.states();
  }

  Index points() const override { return step_.points(); }
  Index rows() const override { return outputs_ * step_.units(); }
  Index columns() const override {
    return direction_ == Direction::depth || direction_ == Direction::input ? step_.input_size()
                                                                            : step_.states() * step_.units();
  }

  void apply(Product product, Index count, const Index* point, const T* v, T* out) const override {
    const bool forward = product == Product::matvec;
    if (direction_ == Direction::time) {
      if (forward)
        step_.recurrent(count, point, v, outputs_, out);
      else
        step_.recurrent_transposed(count, point, v, outputs_, out);
    } else if (direction_ == Direction::diagonal) {
      std::vector<T> handed_up(std::size_t(count * step_.units()));
      if (forward) {
        below_[0].recurrent(count, point, v, 1, handed_up.data());
        step_.input(count, point, handed_up.data(), outputs_, out);
      } else {
        step_.input_transposed(count, point, v, outputs_, handed_up.data());
        below_[0].recurrent_transposed(count, point, handed_up.data(), 1, out);
      }
    } else if (forward) {
      step_.input(count, point, v, outputs_, out);
    } else {
      step_.input_transposed(count, point, v, outputs_, out);
    }
  }

  // d phi / d everything for phi = sum_j u_j' J[point[j]] v_j, added to the parameters' gradients of this layer and of
  // the layer below (used by the diagonal alone). The four optional outputs are per pair: states before the step
  // [count, S, H] and input [count, n], of this layer and of the layer below.
  void bilinear_gradient(const Backend<T>& backend, Index count, const Index* point, const T* u, const T* v,
                         const LayerParameters<T>& gradient, const LayerParameters<T>& gradient_below, T* states,
                         T* input, T* states_below, T* input_below) const {
    if (direction_ != Direction::diagonal) {
      step_.bilinear_gradient(backend, direction_ != Direction::time, count, point, u, outputs_, v, gradient, states,
                              input);
      return;
    }
    std::vector<T> handed_up(std::size_t(count * step_.units())), handed_down(std::size_t(count * step_.units()));
    below_[0].recurrent(count, point, v, 1, handed_up.data());
    step_.input_transposed(count, point, u, outputs_, handed_down.data());
    step_.bilinear_gradient(backend, true, count, point, u, outputs_, handed_up.data(), gradient, states, input);
    below_[0].bilinear_gradient(backend, false, count, point, handed_down.data(), 1, v, gradient_below, states_below,
                                input_below);
  }

 private:
  Direction direction_;
  LinearizedStep<T> step_;
  std::vector<LinearizedStep<T>> below_;
  Index outputs_ = 0;
};

}  // namespace lsc
