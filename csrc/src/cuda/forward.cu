// The forward pass of a stack. Where it is not one launch, layer by layer what the input gives to all steps in one
// product, then for every step the recurrent product and the cell.
#include "cuda/cells.h"
#include "cuda/fed_blocks.h"
#include "cuda/forward.h"
#include "cuda/fused/walk.h"
#include "cuda/launch.h"
#include "cuda/rows.h"

namespace lsc::cuda {
namespace {

constexpr int kThreads = 128;

// What one pre-activation starts at.
template <class T>
LSC_KERNEL sum_biases_kernel(Index H, const T* bias_ih, const T* bias_hh, T* start) {
  const Index u = Index(block()) * threads() + thread();
  if (u >= H) return;
  start[u] = (bias_ih ? bias_ih[u] : T(0)) + (bias_hh ? bias_hh[u] : T(0));
}

// start [P, H]
template <class T>
void sum_biases(const Execution& execution, const CellShape& cell, const LayerParameters<const T>& layer, Index H,
                T* start) {
  for (int k = 0; k < cell.preactivations; ++k) {
    const Feed feed = cell.feeds[std::size_t(k)];
    const T* ih = layer.bias_ih && feed.input != kNone ? layer.bias_ih + feed.input * H : nullptr;
    const T* hh = layer.bias_hh && feed.recurrent != kNone ? layer.bias_hh + feed.recurrent * H : nullptr;
    launch(execution, {"sum_biases", {covering(H, kThreads)}, kThreads}, sum_biases_kernel<T>, H, ih, hh,
           start + k * H);
  }
}

// The pre-activations that the input does not feed.
FedBlocks not_fed(const CellShape& cell) {
  FedBlocks rest;
  for (int k = 0; k < cell.preactivations; ++k)
    if (cell.feeds[std::size_t(k)].input == kNone) rest.preactivation[rest.count++] = k;
  return rest;
}

}  // namespace

template <class T>
void forward(Execution& execution, const std::string& cell_name, const CellShape& cell,
             const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory) {
  const StackShape& shape = trajectory.shape;
  if (sizeof(T) == sizeof(float)) require_precision(execution);
  if (const Plan plan = plan_walk<T>(execution, cell_name, cell, shape); plan.reason.empty() && plan.pays)
    return walk_forward(execution, plan, cell_name, cell, layers, trajectory);
  const CellLaunches<T>& launches = cell_launches<T>(cell_name);
  const Index B = shape.B, H = shape.H, rows = shape.T * B, row_size = cell.preactivations * H;
  const Index step = trajectory.state_stride() * cell.states;
  const bool scattered = cell.states > 1;
  T* const biases = execution.workspace.take<T>(row_size);
  T* const own_gates = execution.workspace.take<T>(trajectory.gates ? 0 : rows * row_size);
  T* const side_by_side = execution.workspace.take<T>(scattered && shape.L > 1 ? rows * H : 0);
  if (execution.workspace.counting()) return;

  const FedBlocks by_input = fed_blocks(cell, &Feed::input), by_state = fed_blocks(cell, &Feed::recurrent);
  for (Index l = 0; l < shape.L; ++l) {
    const LayerParameters<const T>& layer = layers[std::size_t(l)];
    T* gates = trajectory.gates ? trajectory.gate(l, 0, 0) : own_gates;
    const T* fed = trajectory.input(l, 0, 0);
    if (l > 0 && scattered) {
      copy_steps(execution, shape.T, B * H, fed, step, false, side_by_side, B * H);
      fed = side_by_side;
    }
    sum_biases(execution, cell, layer, H, biases);
    multiply_blocks(execution, by_input, rows, H, shape.input_size(l), fed, layer.weight_ih, biases, 0, gates,
                    row_size);
    multiply_blocks<T>(execution, not_fed(cell), rows, H, 0, nullptr, nullptr, biases, 0, gates, row_size);
    for (Index t = 0; t < shape.T; ++t, gates += B * row_size) {
      const T* s = trajectory.state(l, t, 0);
      multiply_blocks(execution, by_state, B, H, H, s, layer.weight_hh, gates, row_size, gates, row_size);
      launches.step(execution, B, H, {gates, H, {row_size}}, {s, B * H, {H}}, layer.unit,
                    {trajectory.state(l, t + 1, 0), B * H, {H}});
    }
  }
}

template void forward(Execution&, const std::string&, const CellShape&,
                      const std::vector<LayerParameters<const float>>&, const Trajectory<float>&);
template void forward(Execution&, const std::string&, const CellShape&,
                      const std::vector<LayerParameters<const double>>&, const Trajectory<double>&);

}  // namespace lsc::cuda
