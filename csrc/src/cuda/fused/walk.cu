#include "cuda/fused/walk.h"
#include "cuda/fused/walk_role.h"

namespace lsc::cuda {
namespace {

template <Precision kPrecision, class T>
LSC_KERNEL walk_kernel(LSC_ARGUMENT FusedStack<T> stack, WalkCounters counters, GridBarrier* state) {
  prepare_walk(stack, counters);
  grid_barrier(state);
  with_format<kPrecision, T>([&](auto format) { walk<decltype(format)>(stack, counters); });
}

}  // namespace

template <class T>
Plan plan_walk(const Execution& execution, const std::string& cell_name, const CellShape& cell,
               const StackShape& shape) {
  return plan_launch<T>(execution, cell_name, cell, shape, false, 1,
                        [](auto precision) { return walk_kernel<decltype(precision)::value, T>; });
}

template <class T>
void walk_forward(Execution& execution, const Plan& plan, const std::string& cell_name, const CellShape& cell,
                  const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory) {
  const StackShape& shape = trajectory.shape;
  FusedStack<T> stack = fused_stack<T>(cell, cell_name, layers, shape);
  stack.x = trajectory.x;
  stack.states = trajectory.states;
  stack.gates = trajectory.gates;
  stack.sharing = plan.sharing;
  // A block reads its own gates alone, unless another one is ahead of it.
  if (!trajectory.gates && !plan.sharing.apart) {
    stack.gate_layer = stack.gate_step;
    stack.gate_step = 0;
  }
  if (!trajectory.gates) stack.gates = execution.workspace.template take<T>(shape.L * stack.gate_layer);
  const Index count = WalkCounters::count(plan.sharing, shape.L);
  const WalkCounters counters = {execution.workspace.template take<unsigned>(count),
                                 execution.workspace.template take<unsigned>(count)};
  if (execution.workspace.counting()) return;
  const Launch launched = {"walk", {plan.sharing.walking(shape.L)}, kTileThreads, plan.shared_bytes, true};
  with_precision<T>(execution.precision, [&](auto precision) {
    launch(execution, launched, walk_kernel<decltype(precision)::value, T>, stack, counters,
           reinterpret_cast<GridBarrier*>(execution.barrier));
  });
}

#define LSC_WALK(T)                                                                                      \
  template Plan plan_walk<T>(const Execution&, const std::string&, const CellShape&, const StackShape&); \
  template void walk_forward(Execution&, const Plan&, const std::string&, const CellShape&,              \
                             const std::vector<LayerParameters<const T>>&, const Trajectory<T>&)
LSC_WALK(float);
LSC_WALK(double);
#undef LSC_WALK

}  // namespace lsc::cuda
