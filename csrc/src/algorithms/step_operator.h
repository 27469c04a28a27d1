// Products with the Jacobians of a layer's step, from its local coefficients and two dense products; no matrix is
// formed. See docs/math/jacobian-products.md.
#pragma once

#include <algorithm>

#include "algorithms/operator.h"
#include "algorithms/weight_gradients.h"

namespace lsc {

// One (t, b) of a sequence.
struct GridPoint {
  Index t, b;
};

// The step of one layer, linearised at N points. `recurrent` products go through the V states [V, H] that are free, all
// S of them or, where state 0 is derived, the others; `input` products through what the layer is fed [n].
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
        unit_(layer.unit, layer.unit ? layer.unit + cell.unit_parameters * trajectory.shape.H : layer.unit),
        points_(points),
        H_(trajectory.shape.H),
        n_(trajectory.shape.input_size(l)),
        S_(cell.states),
        P_(cell.preactivations),
        Q_(cell.unit_parameters),
        D_(cell.derived ? 1 : 0),
        V_(S_ - D_),
        K_(P_ + S_ + Q_),
        input_weights_(backend.linear, cell.input_blocks, H_, n_, layer.weight_ih),
        recurrent_weights_(backend.linear, cell.recurrent_blocks, H_, H_, layer.weight_hh),
        coefficients_(points.size() * std::size_t(S_ * K_ * H_)),
        slopes_(points.size() * std::size_t(D_ * (V_ + Q_) * H_)) {
    const int threads = useful_threads(backend.threads, 10.0 * double(coefficients_.size()));
    parallel_ranges(threads, Index(points.size()), backend.poll, [&](Index begin, Index end, const Poll&) {
      for (Index i = begin; i < end; ++i) {
        kernels_.linearize(H_, H_, gate(i), state(i), trajectory_.state_stride(), unit_.data(), coefficients(i));
        if (D_) kernels_.derive_linearize(H_, H_, state(i), trajectory_.state_stride(), unit_.data(), slopes(i));
      }
    });
  }

  Index points() const { return Index(points_.size()); }
  Index units() const { return H_; }
  StateRange handed_up() const { return {0, 1}; }
  StateRange free_states() const { return {D_, V_}; }
  Index input_size() const { return n_; }

  // Elements of `scratch` that a product of `count` points needs.
  Index scratch(Index count) const { return count * (P_ + D_ * S_) * H_; }

  // ds_next [count, outputs.count, H] <- along a change of the free states, v [count, V, H].
  void recurrent(Index count, const Index* point, const T* v, StateRange outputs, T* out, T* scratch) const {
    T* dp = scratch;
    if (D_) {
      all_states(count, point, v, scratch + count * P_ * H_);
      v = scratch + count * P_ * H_;
    }
    recurrent_pre_activations(count, v, dp);
    for (Index j = 0; j < count; ++j)
      for (Index i = 0; i < outputs.count; ++i) {
        const T* own = local(point[j], outputs.first + i);
        Terms terms = gate_terms(own, dp + j * P_ * H_, &Feed::recurrent);
        for (Index s = 0; s < S_; ++s) terms.add(own + (P_ + s) * H_, v + (j * S_ + s) * H_);
        sum(terms, out + (j * outputs.count + i) * H_);
      }
  }

  // The transpose: u [count, outputs.count, H] -> [count, V, H].
  void recurrent_transposed(Index count, const Index* point, const T* u, StateRange outputs, T* out, T* scratch) const {
    if (!D_) {
      recurrent_transposed_to_all(count, point, u, outputs, out, scratch);
      return;
    }
    T* all = scratch + count * P_ * H_;
    recurrent_transposed_to_all(count, point, u, outputs, all, scratch);
    for (Index j = 0; j < count; ++j) {
      const T* from = all + j * S_ * H_;
      std::copy_n(from + H_, V_ * H_, out + j * V_ * H_);
      for (Index s = 0; s < V_; ++s) linear_.multiply_add(H_, slopes(point[j]) + s * H_, from, out + (j * V_ + s) * H_);
    }
  }

  // ds_next [count, outputs.count, H] <- along a change of the input, v [count, n].
  void input(Index count, const Index* point, const T* v, StateRange outputs, T* out, T* scratch) const {
    input_pre_activations(count, v, scratch);
    for (Index j = 0; j < count; ++j)
      for (Index i = 0; i < outputs.count; ++i)
        sum(gate_terms(local(point[j], outputs.first + i), scratch + j * P_ * H_, &Feed::input),
            out + (j * outputs.count + i) * H_);
  }

  // The transpose: u [count, outputs.count, H] -> [count, n].
  void input_transposed(Index count, const Index* point, const T* u, StateRange outputs, T* out, T* scratch) const {
    gate_gradients(count, point, u, outputs, &Feed::input, scratch);
    std::fill(out, out + count * n_, T(0));
    for (Index k = 0; k < P_; ++k)
      if (const int block = feed(k).input; block != kNone)
        input_weights_.transposed(block).multiply(count, scratch + k * H_, P_ * H_, 1, out, n_, true);
  }

  // phi = sum_j u_j' (J[point[j]] v_j), with J the recurrent or the input product. Adds d phi / d parameters to
  // `gradient` (its explicit dependence: states and inputs are data), and, where not null, writes d phi / d the states
  // before the step [count, S, H] and d phi / d the input [count, n]. See docs/math/radius-gradient.md.
  void bilinear_gradient(const Backend<T>& backend, bool through_input, Index count, const Index* point, const T* u,
                         StateRange outputs, const T* free_v, const LayerParameters<T>& gradient, T* state_gradient,
                         T* input_gradient) const {
    const Index row_size = P_ * H_;
    const bool derived = D_ && !through_input;
    const Memory<T> expanded(derived ? count * S_ * H_ : 0), work(scratch(count));
    if (derived) all_states(count, point, free_v, expanded.data());
    const T* v = derived ? expanded.data() : free_v;
    // d phi / d (the change of the derived state), which depends on the point of linearisation once more.
    std::vector<T> through_derived(derived ? std::size_t(count * S_ * H_) : 0), m(std::size_t(count * Q_ * H_));
    if (derived) recurrent_transposed_to_all(count, point, u, outputs, through_derived.data(), work.data());
    std::vector<T> dp(std::size_t(count * row_size)), g(std::size_t(count * row_size)),
        q(std::size_t(count * row_size));
    std::vector<T> ds(std::size_t(count * S_ * H_)), r(std::size_t(count * S_ * H_)), fed(std::size_t(count * n_));
    std::vector<T> h(std::size_t(count * H_));
    if (through_input) {
      input_pre_activations(count, v, dp.data());
    } else {
      recurrent_pre_activations(count, v, dp.data());
      std::copy_n(v, count * S_ * H_, ds.data());
    }
    gate_gradients(count, point, u, outputs, through_input ? &Feed::input : &Feed::recurrent, g.data());
    const int threads = useful_threads(backend.threads, 40.0 * double(count * S_ * K_ * H_));
    parallel_ranges(threads, count, backend.poll, [&](Index begin, Index end, const Poll&) {
      std::vector<T> weights(std::size_t(S_ * H_));
      for (Index j = begin; j < end; ++j) {
        std::copy_n(u + j * outputs.count * H_, outputs.count * H_, weights.data() + outputs.first * H_);
        T* state_change = r.data() + j * S_ * H_;
        T* unit_change = m.data() + j * Q_ * H_;
        kernels_.second_order(H_, H_, gate(point[j]), state(point[j]), trajectory_.state_stride(), unit_.data(),
                              dp.data() + j * row_size, ds.data() + j * S_ * H_, weights.data(),
                              q.data() + j * row_size, state_change, unit_change);
        if (derived)
          kernels_.derive_second_order(H_, H_, state(point[j]), trajectory_.state_stride(), unit_.data(),
                                       ds.data() + j * S_ * H_, through_derived.data() + j * S_ * H_, state_change,
                                       unit_change);
        std::copy_n(state(point[j]), H_, h.data() + j * H_);
        std::copy_n(input_row(point[j]), n_, fed.data() + j * n_);
      }
    });
    const auto input_block = [](const Feed& f) { return f.input; };
    const auto recurrent_block = [](const Feed& f) { return f.recurrent; };
    // Through the point of linearisation: q against what each product was fed. Through the product itself: g against
    // the direction.
    PackedMatrix<T> fed_packed(linear_, count, n_), h_packed(linear_, count, H_);
    PackedMatrix<T> direction(linear_, count, through_input ? n_ : H_);
    const double operations = 2.0 * double(count * row_size) * double(n_ + 2 * H_);
    run_team(useful_threads(backend.threads, operations), backend.poll, [&](Team& team) {
      const Index width = linear_.panel_width;
      fed_packed.pack(fed.data(), n_, 1, team.share(n_, width));
      h_packed.pack(h.data(), H_, 1, team.share(H_, width));
      if (through_input)
        direction.pack(v, n_, 1, team.share(n_, width));
      else
        direction.pack(v, S_ * H_, 1, team.share(H_, width));
      team.meet();
      weight_gradients(team, cell_, count, H_, q.data(), fed_packed, input_block, true, gradient.weight_ih,
                       gradient.bias_ih);
      weight_gradients(team, cell_, count, H_, q.data(), h_packed, recurrent_block, true, gradient.weight_hh,
                       gradient.bias_hh);
      if (through_input)
        weight_gradients<T>(team, cell_, count, H_, g.data(), direction, input_block, true, gradient.weight_ih,
                            nullptr);
      else
        weight_gradients<T>(team, cell_, count, H_, g.data(), direction, recurrent_block, true, gradient.weight_hh,
                            nullptr);
    });
    if (state_gradient || D_) {
      for (Index k = 0; k < P_; ++k)
        if (const int block = feed(k).recurrent; block != kNone)
          recurrent_weights_.transposed(block).multiply(count, q.data() + k * H_, row_size, 1, r.data(), S_ * H_, true);
    }
    if (D_) pull_through_derived(count, point, r.data(), m.data());
    if (gradient.unit)
      run_team(1, backend.poll, [&](Team& team) { sum_rows(team, count, Q_ * H_, m.data(), true, gradient.unit); });
    if (state_gradient) std::copy(r.begin(), r.end(), state_gradient);
    if (input_gradient) {
      std::fill(input_gradient, input_gradient + count * n_, T(0));
      for (Index k = 0; k < P_; ++k)
        if (const int block = feed(k).input; block != kNone)
          input_weights_.transposed(block).multiply(count, q.data() + k * H_, row_size, 1, input_gradient, n_, true);
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
  // [S, P + S + Q, H] of point i.
  const T* coefficients(Index i) const { return coefficients_.data() + i * S_ * K_ * H_; }
  T* coefficients(Index i) { return coefficients_.data() + i * S_ * K_ * H_; }
  // Those of one next state, [P + S + Q, H].
  const T* local(Index i, Index state) const { return coefficients(i) + state * K_ * H_; }
  // d state 0 / d the others before the step, then / d the units' parameters, [V + Q, H].
  const T* slopes(Index i) const { return slopes_.data() + i * (V_ + Q_) * H_; }
  T* slopes(Index i) { return slopes_.data() + i * (V_ + Q_) * H_; }
  const Feed& feed(Index k) const { return cell_.feeds[std::size_t(k)]; }

  // Products of rows of H that are summed; cells have few.
  struct Terms {
    int count = 0;
    const T* a[kMaxStates + kMaxPreactivations];
    const T* b[kMaxStates + kMaxPreactivations];

    void add(const T* left, const T* right) {
      a[count] = left;
      b[count++] = right;
    }
  };
  void sum(const Terms& terms, T* target) const {
    linear_.multiply_add_many(H_, terms.count, terms.a, terms.b, false, target);
  }
  Terms gate_terms(const T* own, const T* dp, int Feed::* path) const {
    Terms terms;
    for (Index k = 0; k < P_; ++k)
      if (feed(k).*path != kNone) terms.add(own + k * H_, dp + k * H_);
    return terms;
  }
  // What coefficient k of the outputs hands back.
  Terms output_terms(Index i, Index k, StateRange outputs, const T* u) const {
    Terms terms;
    for (Index o = 0; o < outputs.count; ++o) terms.add(local(i, outputs.first + o) + k * H_, u + o * H_);
    return terms;
  }

  // all [count, S, H] <- the change of all states that goes with one of the free ones, v [count, V, H].
  void all_states(Index count, const Index* point, const T* v, T* all) const {
    for (Index j = 0; j < count; ++j) {
      T* target = all + j * S_ * H_;
      std::copy_n(v + j * V_ * H_, V_ * H_, target + H_);
      std::fill(target, target + H_, T(0));
      for (Index s = 0; s < V_; ++s) linear_.multiply_add(H_, slopes(point[j]) + s * H_, v + (j * V_ + s) * H_, target);
    }
  }

  // State 0 is a function of the others: its gradient, row 0 of r [count, S, H], becomes theirs and that of m [count,
  // Q, H].
  void pull_through_derived(Index count, const Index* point, T* r, T* m) const {
    for (Index j = 0; j < count; ++j) {
      T* row = r + j * S_ * H_;
      for (Index s = 0; s < V_; ++s) linear_.multiply_add(H_, slopes(point[j]) + s * H_, row, row + (1 + s) * H_);
      for (Index k = 0; k < Q_; ++k)
        linear_.multiply_add(H_, slopes(point[j]) + (V_ + k) * H_, row, m + (j * Q_ + k) * H_);
      std::fill(row, row + H_, T(0));
    }
  }

  void recurrent_transposed_to_all(Index count, const Index* point, const T* u, StateRange outputs, T* out,
                                   T* scratch) const {
    gate_gradients(count, point, u, outputs, &Feed::recurrent, scratch);
    for (Index j = 0; j < count; ++j)
      for (Index s = 0; s < S_; ++s)
        sum(output_terms(point[j], P_ + s, outputs, u + j * outputs.count * H_), out + (j * S_ + s) * H_);
    for (Index k = 0; k < P_; ++k)
      if (const int block = feed(k).recurrent; block != kNone)
        recurrent_weights_.transposed(block).multiply(count, scratch + k * H_, P_ * H_, 1, out, S_ * H_, true);
  }

  // dp [count, P, H] along v [count, S, H]; blocks without a recurrent feed stay zero.
  void recurrent_pre_activations(Index count, const T* v, T* dp) const {
    for (Index k = 0; k < P_; ++k)
      if (const int block = feed(k).recurrent; block != kNone)
        recurrent_weights_.forward(block).multiply(count, v, S_ * H_, 1, dp + k * H_, P_ * H_, false);
  }
  void input_pre_activations(Index count, const T* v, T* dp) const {
    for (Index k = 0; k < P_; ++k)
      if (const int block = feed(k).input; block != kNone)
        input_weights_.forward(block).multiply(count, v, n_, 1, dp + k * H_, P_ * H_, false);
  }
  // g [count, P, H] = u' (d next / d p), zero for the blocks that are not on the path.
  void gate_gradients(Index count, const Index* point, const T* u, StateRange outputs, int Feed::* path, T* g) const {
    for (Index j = 0; j < count; ++j)
      for (Index k = 0; k < P_; ++k)
        if (T* target = g + (j * P_ + k) * H_; feed(k).*path != kNone)
          sum(output_terms(point[j], k, outputs, u + j * outputs.count * H_), target);
        else
          std::fill(target, target + H_, T(0));
  }

  const CellShape& cell_;
  const CellKernels<T>& kernels_;
  const LinearKernels<T>& linear_;
  Trajectory<T> trajectory_;
  Index layer_;
  std::vector<T> unit_;  // [Q, H]
  std::vector<GridPoint> points_;
  Index H_, n_, S_, P_, Q_, D_, V_, K_;
  BlockWeights<T> input_weights_, recurrent_weights_;
  std::vector<T> coefficients_, slopes_;
};

// J of one layer l at N points, along a direction of the grid.
template <class T>
class StepOperator : public Operator<T> {
 public:
  StepOperator(const Backend<T>& backend, const CellShape& cell, const CellKernels<T>& kernels,
               const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory, Index l,
               Direction direction, const std::vector<GridPoint>& points)
      : direction_(direction), step_(backend, cell, kernels, layers[std::size_t(l)], trajectory, l, points) {
    if (direction == Direction::diagonal)
      below_.emplace_back(backend, cell, kernels, layers[std::size_t(l - 1)], trajectory, l - 1, points);
    outputs_ = direction == Direction::depth ? step_.handed_up() : step_.free_states();
  }

  Index points() const override { return step_.points(); }
  Index rows() const override { return outputs_.count * step_.units(); }
  Index columns() const override {
    return direction_ == Direction::depth || direction_ == Direction::input ? step_.input_size()
                                                                            : step_.free_states().count * step_.units();
  }

  Index scratch(Index count) const override {
    return direction_ == Direction::diagonal
               ? count * step_.units() + std::max(step_.scratch(count), below_[0].scratch(count))
               : step_.scratch(count);
  }

  void apply(Product product, Index count, const Index* point, const T* v, T* out, T* scratch) const override {
    const bool forward = product == Product::matvec;
    if (direction_ == Direction::time) {
      if (forward)
        step_.recurrent(count, point, v, outputs_, out, scratch);
      else
        step_.recurrent_transposed(count, point, v, outputs_, out, scratch);
    } else if (direction_ == Direction::diagonal) {
      T* between = scratch;  // what the lower layer hands up, or its gradient
      T* rest = scratch + count * step_.units();
      if (forward) {
        below_[0].recurrent(count, point, v, below_[0].handed_up(), between, rest);
        step_.input(count, point, between, outputs_, out, rest);
      } else {
        step_.input_transposed(count, point, v, outputs_, between, rest);
        below_[0].recurrent_transposed(count, point, between, below_[0].handed_up(), out, rest);
      }
    } else if (forward) {
      step_.input(count, point, v, outputs_, out, scratch);
    } else {
      step_.input_transposed(count, point, v, outputs_, out, scratch);
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
    const Memory<T> handed_up(count * step_.units()), handed_down(count * step_.units());
    const Memory<T> work(std::max(step_.scratch(count), below_[0].scratch(count)));
    below_[0].recurrent(count, point, v, below_[0].handed_up(), handed_up.data(), work.data());
    step_.input_transposed(count, point, u, outputs_, handed_down.data(), work.data());
    step_.bilinear_gradient(backend, true, count, point, u, outputs_, handed_up.data(), gradient, states, input);
    below_[0].bilinear_gradient(backend, false, count, point, handed_down.data(), below_[0].handed_up(), v,
                                gradient_below, states_below, input_below);
  }

 private:
  Direction direction_;
  LinearizedStep<T> step_;
  std::vector<LinearizedStep<T>> below_;
  StateRange outputs_{0, 0};
};

}  // namespace lsc
