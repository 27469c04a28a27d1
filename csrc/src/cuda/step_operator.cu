#include "cuda/apply.h"
#include "cuda/launch.h"
#include "cuda/product.h"
#include "cuda/step_operator.h"
#include "cuda/step_product.h"

namespace lsc::cuda {
namespace {

constexpr int kThreads = 256;

// One thread takes one unit of one pair: what second_order reads of it, and what its products start from. Bit k of
// `on_path`: whether pre-activation k is.
template <Path kPath, class T>
LSC_KERNEL prepare_kernel(LayerStep<T> step, unsigned on_path, Index count, const std::int64_t* point, const T* u,
                          StateRange outputs, const T* v, typename LinearizedStep<T>::Scratch to) {
  const Index H = step.H, i = Index(block()) * threads() + thread(), j = i / H, unit = i % H;
  if (j >= count) return;
  const Index at = Index(point[j]), S = step.S, P = step.P, V = step.V();
  u += j * outputs.count * H;
  for (Index s = 0; s < S; ++s) {
    const Index o = s - outputs.first;
    to.upstream[(j * S + s) * H + unit] = o >= 0 && o < outputs.count ? u[o * H + unit] : T(0);
  }
  for (int k = 0; k < P; ++k) {
    const bool used = (on_path >> k & 1) != 0;
    to.g[(j * P + k) * H + unit] = used ? output_terms(step, at, outputs, k, unit, u) : T(0);
    if (!used) to.dp[(j * P + k) * H + unit] = 0;
  }
  const T* free = v + j * V * H;
  for (Index s = 0; s < S; ++s) {
    T change = 0;
    if (kPath == Path::recurrent)
      change = s < S - V ? derived_change(step, at, unit, free) : free[(s - S + V) * H + unit];
    to.ds[(j * S + s) * H + unit] = change;
  }
  if (step.derived && kPath == Path::recurrent)
    to.through_derived[j * H + unit] = output_terms(step, at, outputs, P, unit, u);
}

// State 0 is a function of the others: its gradient, row 0 of r [count, S, H], becomes theirs and that of m [count, Q,
// H].
template <class T>
LSC_KERNEL pull_through_derived_kernel(LayerStep<T> step, Index count, const std::int64_t* point, T* r, T* m) {
  const Index H = step.H, i = Index(block()) * threads() + thread(), j = i / H, unit = i % H;
  if (j >= count) return;
  const T* slopes = step.slopes_of(Index(point[j])) + unit;
  T* row = r + j * step.S * H + unit;
  const T derived = row[0];
  for (Index s = 0; s < step.V(); ++s) row[(1 + s) * H] += slopes[s * H] * derived;
  for (Index k = 0; k < step.Q; ++k) m[(j * step.Q + k) * H + unit] += slopes[(step.V() + k) * H] * derived;
  row[0] = 0;
}

// to [count, n] <- rows of `from`.
template <class T>
LSC_KERNEL gather_kernel(Index count, Index n, const T* from, Rows rows, T* to) {
  const Index i = Index(block()) * threads() + thread();
  if (i < count * n) to[i] = from[rows.offset(i / n) + i % n];
}

// target [n] += the sum of the rows of source, `row` elements apart. A warp takes every eighth row of 32 columns.
template <class T>
LSC_KERNEL add_rows_kernel(Index count, Index n, const T* source, Index row, T* target) {
  constexpr int kWarps = kThreads / 32;
  LSC_SHARED(T, partial, kThreads);
  const Index column = Index(block()) * 32 + lane();
  T sum = 0;
  if (column < n)
    for (Index j = warp(); j < count; j += kWarps) sum += source[j * row + column];
  partial[thread()] = sum;
  barrier();
  if (warp() > 0 || column >= n) return;
  T total = target[column];
  for (int w = 0; w < kWarps; ++w) total += partial[w * 32 + lane()];
  target[column] = total;
}

template <class T>
void gather(const Execution& execution, Index count, Index n, const T* from, const Rows& rows, T* to) {
  launch(execution, {"gather", {covering(count * n, kThreads)}, kThreads}, gather_kernel<T>, count, n, from, rows, to);
}
template <class T>
void add_rows(const Execution& execution, Index count, Index n, const T* source, Index row, T* target) {
  launch(execution, {"add_rows", {covering(n, 32)}, kThreads}, add_rows_kernel<T>, count, n, source, row, target);
}

// The dense products of all pairs, of the pre-activations that one of the weights feeds.
template <Path kPath, class T>
struct PathProducts {
  const Execution& execution;
  const LayerStep<T>& step;
  Index count;

  // Bit k: whether pre-activation k is fed.
  unsigned preactivations() const {
    unsigned bits = 0;
    each_block([&](int k, int) { bits |= 1u << k; });
    return bits;
  }

  // dp [count, P, H], the blocks on the path, along rows of what is fed.
  void forward(const T* v, Index v_row, T* dp) const {
    Product<T> product = empty();
    product.m = count, product.n = step.H, product.k = fed().size;
    product.a = v, product.a_row = v_row;
    product.b = fed().weight, product.b_row = 1, product.b_column = fed().size;
    product.c = dp, product.c_row = step.P * step.H;
    each_block([&](int k, int block) {
      product.b_offset[product.groups] = block * step.H * fed().size;
      product.c_offset[product.groups++] = k * step.H;
    });
    if (product.groups > 0) multiply(execution, product);
  }

  // Rows of what is fed, out_row apart, <- (accumulate ? themselves : 0) + the transpose of g [count, P, H].
  void transposed(const T* g, bool accumulate, T* out, Index out_row) const {
    Product<T> product = empty();
    product.groups = 1, product.terms = 0;
    product.m = count, product.n = fed().size, product.k = step.H;
    product.a = g, product.a_row = step.P * step.H;
    product.b = fed().weight, product.b_row = fed().size;
    product.c = out, product.c_row = out_row;
    if (accumulate) product.start = out, product.start_row = out_row;
    each_block([&](int k, int block) {
      product.a_offset[product.terms] = k * step.H;
      product.b_offset[product.terms++] = block * step.H * fed().size;
    });
    if (product.terms > 0) multiply(execution, product);
  }

  // weight_gradient += the sum over pairs of the outer products of g [count, P, H] and rows of what is fed;
  // bias_gradient += that of g. Either may be null.
  void add_gradients(const T* g, const T* v, Index v_row, T* weight_gradient, T* bias_gradient) const {
    Product<T> product = empty();
    product.m = step.H, product.n = fed().size, product.k = count;
    product.a = g, product.a_row = 1, product.a_column = step.P * step.H;
    product.b = v, product.b_row = v_row;
    product.start = weight_gradient, product.start_row = fed().size;
    product.c = weight_gradient, product.c_row = fed().size;
    each_block([&](int k, int block) {
      if (bias_gradient)
        add_rows(execution, count, step.H, g + k * step.H, step.P * step.H, bias_gradient + block * step.H);
      product.a_offset[product.groups] = k * step.H;
      product.start_offset[product.groups] = block * step.H * fed().size;
      product.c_offset[product.groups++] = block * step.H * fed().size;
    });
    if (weight_gradient && product.groups > 0) multiply(execution, product);
  }

 private:
  static Product<T> empty() {
    Product<T> product;
    product.groups = 0;
    return product;
  }
  PathWeights<T> fed() const { return {step, kPath}; }
  template <class Body>
  void each_block(const Body& body) const {
    for (int k = 0; k < step.P; ++k)
      if (const int block = fed().block[k]; block != kNone) body(k, block);
  }
};

}  // namespace

template <class T>
LinearizedStep<T>::LinearizedStep(const CellShape& cell, const LayerParameters<const T>& layer,
                                  const Trajectory<T>& trajectory, Index l, const GridPoints& points,
                                  const LinearizationMemory<T>& memory)
    : cell_(&cell_launches<T>(cell.name)),
      trajectory_(trajectory),
      layer_(l),
      unit_(layer.unit),
      points_(points),
      memory_(memory) {
  step_.H = trajectory.shape.H;
  step_.n = trajectory.shape.input_size(l);
  step_.S = cell.states;
  step_.P = cell.preactivations;
  step_.Q = cell.unit_parameters;
  step_.derived = cell.derived;
  step_.input_feed = Feeds(cell, &Feed::input);
  step_.recurrent_feed = Feeds(cell, &Feed::recurrent);
  step_.input_weight = layer.weight_ih;
  step_.recurrent_weight = layer.weight_hh;
  step_.coefficients = memory.coefficients;
  step_.slopes = memory.slopes;
}

template <class T>
Rows LinearizedStep<T>::grid_rows(const std::int64_t* point, Index t_stride, Index b_stride) const {
  return {0, point, points_.t, points_.b, t_stride, b_stride};
}
template <class T>
UnitArray<const T> LinearizedStep<T>::gates(const std::int64_t* point) const {
  const Index row = step_.P * step_.H;
  return {trajectory_.gate(layer_, 0, 0), step_.H, grid_rows(point, trajectory_.shape.B * row, row)};
}
template <class T>
UnitArray<const T> LinearizedStep<T>::states(const std::int64_t* point) const {
  const Index part = trajectory_.state_stride();
  return {trajectory_.state(layer_, 0, 0), part, grid_rows(point, step_.S * part, step_.H)};
}

template <class T>
void LinearizedStep<T>::linearize(const Execution& execution) const {
  const Index H = step_.H, K = step_.P + step_.S + step_.Q;
  cell_->linearize(execution, points_.count, H, gates(nullptr), states(nullptr), unit_,
                   {memory_.coefficients, H, {step_.S * K * H}});
  if (step_.derived)
    cell_->derive_linearize(execution, points_.count, H, states(nullptr), unit_,
                            {memory_.slopes, H, {(step_.V() + step_.Q) * H}});
}

template <class T>
typename LinearizedStep<T>::Scratch LinearizedStep<T>::scratch(Workspace& workspace, Index count) const {
  const Index unit = count * step_.H;
  const auto take = [&](Index size) { return workspace.take<T>(size); };
  Scratch scratch;
  scratch.upstream = take(step_.S * unit);
  scratch.ds = take(step_.S * unit);
  scratch.dp = take(step_.P * unit);
  scratch.g = take(step_.P * unit);
  scratch.through_derived = take(step_.derived ? unit : 0);
  scratch.q = take(step_.P * unit);
  scratch.r = take(step_.S * unit);
  scratch.m = take(step_.Q * unit);
  scratch.h = take(unit);
  scratch.x = take(count * step_.n);
  return scratch;
}

template <class T>
template <Path kPath>
void LinearizedStep<T>::bilinear_gradient(const Execution& execution, Index count, const std::int64_t* point,
                                          const T* u, StateRange outputs, const T* v,
                                          const LayerParameters<T>& gradient, T* states_out, T* input_out,
                                          const Scratch& scratch) const {
  const Index H = step_.H, n = step_.n, S = step_.S, P = step_.P, Q = step_.Q, part = trajectory_.state_stride();
  const bool through_input = kPath == Path::input, derived = step_.derived && !through_input;
  const PathProducts<Path::input, T> by_input{execution, step_, count};
  const PathProducts<Path::recurrent, T> by_state{execution, step_, count};
  const PathProducts<kPath, T> on_path{execution, step_, count};
  const T* direction = through_input ? v : scratch.ds;  // of what the product multiplies with, direction_row apart
  const Index direction_row = through_input ? n : S * H;
  T* q = scratch.q;
  T* r = states_out ? states_out : scratch.r;

  launch(execution, {"prepare", {covering(count * H, kThreads)}, kThreads}, prepare_kernel<kPath, T>, step_,
         on_path.preactivations(), count, point, u, outputs, v, scratch);
  on_path.forward(direction, direction_row, scratch.dp);
  if (derived) on_path.transposed(scratch.g, true, scratch.through_derived, H);

  const auto rows = [&](T* data, Index parts) { return UnitArray<T>{data, H, {parts * H}}; };
  const auto read = [&](const T* data, Index parts) { return UnitArray<const T>{data, H, {parts * H}}; };
  cell_->second_order(execution, count, H, gates(point), states(point), unit_, read(scratch.dp, P), read(scratch.ds, S),
                      read(scratch.upstream, S), rows(q, P), rows(r, S), rows(scratch.m, Q));
  if (derived)
    cell_->derive_second_order(execution, count, H, states(point), unit_, read(scratch.ds, S),
                               read(scratch.through_derived, 1), rows(r, S), rows(scratch.m, Q));

  // Through the point of linearisation: q against what each product was fed. Through the product itself: g against
  // the direction.
  const Index B = trajectory_.shape.B;
  gather(execution, count, H, trajectory_.state(layer_, 0, 0), grid_rows(point, S * part, H), scratch.h);
  gather(execution, count, n, trajectory_.input(layer_, 0, 0),
         layer_ == 0 ? grid_rows(point, B * n, n) : grid_rows(point, S * part, H), scratch.x);
  by_input.add_gradients(q, scratch.x, n, gradient.weight_ih, gradient.bias_ih);
  by_state.add_gradients(q, scratch.h, H, gradient.weight_hh, gradient.bias_hh);
  on_path.add_gradients(scratch.g, direction, direction_row, through_input ? gradient.weight_ih : gradient.weight_hh,
                        nullptr);
  if (states_out || step_.derived) by_state.transposed(q, true, r, S * H);
  if (step_.derived)
    launch(execution, {"pull_through_derived", {covering(count * H, kThreads)}, kThreads},
           pull_through_derived_kernel<T>, step_, count, point, r, scratch.m);
  if (gradient.unit) add_rows(execution, count, Q * H, scratch.m, Q * H, gradient.unit);
  if (input_out) by_input.transposed(q, false, input_out, n);
}

template <class T>
StepOperator<T>::StepOperator(const CellShape& cell, const std::vector<LayerParameters<const T>>& layers,
                              const Trajectory<T>& trajectory, Index l, Direction direction, const GridPoints& points,
                              const LinearizationMemory<T>& own, const LinearizationMemory<T>& below)
    : step_(cell, layers[std::size_t(l)], trajectory, l, points, own) {
  if (direction == Direction::diagonal)
    below_ = LinearizedStep<T>(cell, layers[std::size_t(l - 1)], trajectory, l - 1, points, below);
  const LayerStep<T>& step = step_.step();
  const bool through_input = direction == Direction::depth || direction == Direction::input;
  products_.direction = direction;
  products_.step = step;
  products_.below = below_.step();
  products_.outputs = direction == Direction::depth ? step.handed_up() : step.free_states();
  products_.points = points.count;
  products_.rows = products_.outputs.count * step.H;
  products_.columns = through_input ? step.n : step.V() * step.H;
}

template <class T>
void StepOperator<T>::linearize(const Execution& execution) const {
  step_.linearize(execution);
  if (products_.direction == Direction::diagonal) below_.linearize(execution);
}

template <class T>
void StepOperator<T>::bilinear_gradient(Execution& execution, Index count, const std::int64_t* point, const T* u,
                                        const T* v, const LayerParameters<T>& gradient,
                                        const LayerParameters<T>& gradient_below, T* states, T* input, T* states_below,
                                        T* input_below) const {
  const auto scratch = step_.scratch(execution.workspace, count);
  const StateRange outputs = products_.outputs;
  if (products_.direction != Direction::diagonal) {
    if (execution.workspace.counting()) return;
    if (products_.direction == Direction::time)
      step_.template bilinear_gradient<Path::recurrent>(execution, count, point, u, outputs, v, gradient, states, input,
                                                        scratch);
    else
      step_.template bilinear_gradient<Path::input>(execution, count, point, u, outputs, v, gradient, states, input,
                                                    scratch);
    return;
  }
  const LayerStep<T>&step = step_.step(), &below = below_.step();
  const auto scratch_below = below_.scratch(execution.workspace, count);
  T* handed_up = execution.workspace.take<T>(count * step.H);
  T* handed_down = execution.workspace.take<T>(count * step.H);
  // What the lower layer hands up, and what of it comes back.
  StepProducts<T> up, down;
  up.direction = Direction::time, up.step = below, up.outputs = below.handed_up();
  up.points = products_.points, up.rows = step.H, up.columns = products_.columns;
  down.direction = Direction::input, down.step = step, down.outputs = outputs;
  down.points = products_.points, down.rows = products_.rows, down.columns = step.H;
  apply(execution, up, false, count, point, v, handed_up);
  apply(execution, down, true, count, point, u, handed_down);
  if (execution.workspace.counting()) return;
  step_.template bilinear_gradient<Path::input>(execution, count, point, u, outputs, handed_up, gradient, states, input,
                                                scratch);
  below_.template bilinear_gradient<Path::recurrent>(execution, count, point, handed_down, below.handed_up(), v,
                                                     gradient_below, states_below, input_below, scratch_below);
}

template class StepOperator<float>;
template class StepOperator<double>;

}  // namespace lsc::cuda
