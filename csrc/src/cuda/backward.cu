// The backward pass of a stack: the transposed Jacobian of every step from the last to the first, of all layers in one
// launch or of each from the top in launches of its own; then what sums over all steps.
#include "cuda/backward.h"
#include "cuda/cells.h"
#include "cuda/fed_blocks.h"
#include "cuda/fused/walk_back.h"
#include "cuda/launch.h"
#include "cuda/rows.h"

namespace lsc::cuda {

template <class T>
void backward(Execution& execution, const std::string& cell_name, const CellShape& cell,
              const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory, T* state_gradients,
              T* x_gradient, const std::vector<LayerParameters<T>>& gradients) {
  const StackShape& shape = trajectory.shape;
  const Index B = shape.B, H = shape.H, rows = shape.T * B, row_size = cell.preactivations * H;
  const Index unit_size = cell.unit_parameters * H, step = trajectory.state_stride() * cell.states;
  const bool scattered = cell.states > 1;
  Trajectory<T> flowing = trajectory;
  flowing.states = state_gradients;  // the same addresses, in the gradient's memory
  if (sizeof(T) == sizeof(float)) require_precision(execution);
  const Plan plan = plan_walk_back<T>(execution, cell_name, cell, shape);
  const bool in_one = plan.reason.empty() && plan.pays;
  const Index kept = in_one ? shape.L : 1;                                   // layers whose gradients there are at once
  T* const all_gates = execution.workspace.take<T>(kept * rows * row_size);  // [kept, T, B, P, H]
  T* const all_units = execution.workspace.take<T>(kept * rows * unit_size);  // [kept, T, B, Q, H]
  T* const side_by_side = execution.workspace.take<T>(scattered ? rows * H : 0);
  T* const partial = execution.workspace.take<T>(slices_of(rows) * std::max(row_size, unit_size));
  if (execution.workspace.counting()) return;

  // State 0 of layer l after step t - 1 + shift, rows t-major.
  const auto outputs = [&](Index l, Index shift) -> const T* {
    const T* first = trajectory.state(l, shift, 0);
    if (!scattered) return first;
    copy_steps(execution, shape.T, B * H, first, step, false, side_by_side, B * H);
    return side_by_side;
  };
  const auto sum_biases = [&](const FedBlocks& fed, T* gradient) {
    for (int i = 0; gradient && i < fed.count; ++i)
      sum_rows(execution, slices_of(rows), H, partial + fed.preactivation[i] * H, row_size,
               gradient + fed.block[i] * H);
  };

  const FedBlocks by_input = fed_blocks(cell, &Feed::input), by_state = fed_blocks(cell, &Feed::recurrent);
  const CellLaunches<T>& launches = cell_launches<T>(cell_name);
  if (in_one)
    walk_backward(execution, plan, cell_name, cell, layers, trajectory, state_gradients, all_gates, all_units);
  for (Index l = shape.L - 1; l >= 0; --l) {
    T* const gate_gradients = all_gates + (in_one ? l : 0) * rows * row_size;
    T* const unit_gradients = all_units + (in_one ? l : 0) * rows * unit_size;
    const LayerParameters<const T>& layer = layers[std::size_t(l)];
    const LayerParameters<T>& gradient = gradients[std::size_t(l)];
    const Index n = shape.input_size(l);
    for (Index t = shape.T - 1; t >= 0 && !in_one; --t) {
      T* dp = gate_gradients + t * B * row_size;
      T* before = flowing.state(l, t, 0);
      launches.pull(execution, B, H, {trajectory.gate(l, t, 0), H, {row_size}}, {trajectory.state(l, t, 0), B * H, {H}},
                    layer.unit, {flowing.state(l, t + 1, 0), B * H, {H}}, {dp, H, {row_size}}, {before, B * H, {H}},
                    {unit_gradients + t * B * unit_size, H, {unit_size}});
      multiply_blocks_transposed(execution, by_state, B, H, H, dp, row_size, layer.weight_hh, before, before);
    }

    if (gradient.weight_ih)
      multiply_outer(execution, by_input, rows, H, n, gate_gradients, row_size,
                     l == 0 ? trajectory.x : outputs(l - 1, 1), gradient.weight_ih);
    if (gradient.weight_hh)
      multiply_outer(execution, by_state, rows, H, H, gate_gradients, row_size, outputs(l, 0), gradient.weight_hh);
    if (gradient.bias_ih || gradient.bias_hh) {
      sum_slices(execution, rows, row_size, gate_gradients, row_size, partial);
      sum_biases(by_input, gradient.bias_ih);
      sum_biases(by_state, gradient.bias_hh);
    }
    if (gradient.unit) {
      sum_slices(execution, rows, unit_size, unit_gradients, unit_size, partial);
      sum_rows(execution, slices_of(rows), unit_size, partial, unit_size, gradient.unit);
    }

    // What the layer was fed: x_gradient, or an addition to the flow of the layer below.
    if (l > 0 && in_one) continue;
    T* const below = l == 0 ? nullptr : flowing.state(l - 1, 1, 0);
    T* const target = l == 0 ? x_gradient : scattered ? side_by_side : below;
    multiply_blocks_transposed<T>(execution, by_input, rows, H, n, gate_gradients, row_size, layer.weight_ih,
                                  target == below ? below : nullptr, target);
    if (l > 0 && scattered) copy_steps(execution, shape.T, B * H, target, B * H, true, below, step);
  }
}

template void backward(Execution&, const std::string&, const CellShape&,
                       const std::vector<LayerParameters<const float>>&, const Trajectory<float>&, float*, float*,
                       const std::vector<LayerParameters<float>>&);
template void backward(Execution&, const std::string&, const CellShape&,
                       const std::vector<LayerParameters<const double>>&, const Trajectory<double>&, double*, double*,
                       const std::vector<LayerParameters<double>>&);

}  // namespace lsc::cuda
