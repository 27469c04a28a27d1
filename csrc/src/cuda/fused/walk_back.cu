#include "cuda/fused/walk_back.h"
#include "cuda/fused/walk_back_role.h"

namespace lsc::cuda {
namespace {

template <Precision kPrecision, class T>
LSC_KERNEL walk_back_kernel(LSC_ARGUMENT FusedStack<T> stack, FlowingBack<T> flow, GridBarrier* state) {
  prepare_walk_back(stack, flow);
  grid_barrier(state);
  with_format<kPrecision, T>([&](auto format) { walk_back<decltype(format)>(stack, flow); });
}

}  // namespace

template <class T>
Plan plan_walk_back(const Execution& execution, const std::string& cell_name, const CellShape& cell,
                    const StackShape& shape) {
  return plan_launch<T>(execution, cell_name, cell, shape, true, 1,
                        [](auto precision) { return walk_back_kernel<decltype(precision)::value, T>; });
}

template <class T>
void walk_backward(Execution& execution, const Plan& plan, const std::string& cell_name, const CellShape& cell,
                   const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory,
                   T* state_gradients, T* gate_gradients, T* unit_gradients) {
  FusedStack<T> stack = fused_stack<T>(cell, cell_name, layers, trajectory.shape);
  stack.states = trajectory.states;
  stack.gates = trajectory.gates;
  stack.sharing = plan.sharing;
  const FlowingBack<T> flow = {state_gradients, gate_gradients, unit_gradients};
  const Launch launched = {
      "walk_back", {plan.sharing.walking(trajectory.shape.L)}, kTileThreads, plan.shared_bytes, true};
  with_precision<T>(execution.precision, [&](auto precision) {
    launch(execution, launched, walk_back_kernel<decltype(precision)::value, T>, stack, flow,
           reinterpret_cast<GridBarrier*>(execution.barrier));
  });
}

#define LSC_WALK_BACK(T)                                                                                      \
  template Plan plan_walk_back<T>(const Execution&, const std::string&, const CellShape&, const StackShape&); \
  template void walk_backward(Execution&, const Plan&, const std::string&, const CellShape&,                  \
                              const std::vector<LayerParameters<const T>>&, const Trajectory<T>&, T*, T*, T*)
LSC_WALK_BACK(float);
LSC_WALK_BACK(double);
#undef LSC_WALK_BACK

}  // namespace lsc::cuda
