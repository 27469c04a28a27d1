#include "cuda/fused/forward_radii.h"
#include "cuda/fused/walk_role.h"
#include "cuda/radius_role.h"
#include "cuda/step_product.h"

namespace lsc::cuda {
namespace {

// Of the blocks that the device holds, walking ones take no more than this: radii need the rest (modelled).
constexpr double kWalkingShare = 0.75;

// A block's linearised steps: of the items of its warps, and of the layer below them.
template <class T>
struct Linearized {
  T *coefficients, *slopes, *below_coefficients, *below_slopes;
};

// The points that blocks take; a block knows one by the warp that has it.
template <class T>
struct SteppedPoints {
  static constexpr bool kLeft = true;
  FusedStack<T> stack;
  WalkCounters counters;
  FusedItems items;
  Direction direction;
  Linearized<T> all;  // of every block
  Index count;
  bool transposed;

  LSC_HD Index coefficient_elements() const { return stack.S * (stack.P + stack.S + stack.Q) * stack.shape.H; }
  LSC_HD Index slope_elements() const { return stack.derived ? (stack.S - 1 + stack.Q) * stack.shape.H : 0; }

  LSC_DEVICE Index prepare(Index item) const {
    const int layer = int(items.layer[item]);
    const Index t = items.t[item], b = items.b[item], slot = Index(block()) * kTile + warp();
    await_layer(stack, counters, layer, t + 1, b);
    if (direction == Direction::diagonal) await_layer(stack, counters, layer - 1, t + 1, b);
    linearize(layer, t, b, all.coefficients + slot * coefficient_elements(), all.slopes + slot * slope_elements());
    if (direction == Direction::diagonal)
      linearize(layer - 1, t, b, all.below_coefficients + slot * coefficient_elements(),
                all.below_slopes + slot * slope_elements());
    warp_barrier();
    return warp();
  }
  LSC_DEVICE int group(Index item) const { return int(items.layer[item]); }
  LSC_DEVICE std::uint64_t seed(Index item) const { return std::uint64_t(items.seed[item]); }
  LSC_DEVICE std::uint64_t vector(Index item) const { return std::uint64_t(items.vector[item]); }
  LSC_DEVICE bool has_target() const { return false; }
  LSC_DEVICE Eigenvalue target(Index) const { return {}; }
  LSC_DEVICE Index output(Index item) const { return Index(items.output[item]); }
  template <class Choice>
  LSC_DEVICE void apply(Choice precision, int group, bool transpose, int size, const std::int64_t* point, const T* v,
                        T* out, T* scratch) const {
    const Index first = Index(block()) * kTile;
    StepProducts<T> products;
    products.direction = direction;
    products.step =
        step_of(group, all.coefficients + first * coefficient_elements(), all.slopes + first * slope_elements());
    if (direction == Direction::diagonal)
      products.below = step_of(group - 1, all.below_coefficients + first * coefficient_elements(),
                               all.below_slopes + first * slope_elements());
    products.outputs = direction == Direction::depth ? products.step.handed_up() : products.step.free_states();
    apply_tile(precision, products, transpose, size, point, v, out, scratch);
  }

  LSC_HD LayerStep<T> step_of(int layer, const T* coefficients, const T* slopes) const {
    LayerStep<T> step;
    step.H = stack.shape.H;
    step.n = stack.input_size(layer);
    step.S = stack.S;
    step.P = stack.P;
    step.Q = stack.Q;
    step.derived = stack.derived;
    step.input_feed = stack.input_feed;
    step.recurrent_feed = stack.recurrent_feed;
    step.input_weight = stack.layers[layer].weight_ih;
    step.recurrent_weight = stack.layers[layer].weight_hh;
    step.coefficients = coefficients;
    step.slopes = slopes;
    return step;
  }

 private:
  // All lanes of a warp.
  LSC_DEVICE void linearize(int layer, Index t, Index b, T* coefficients, T* slopes) const {
    const Index H = stack.shape.H, part = stack.state_stride();
    const T *p = stack.gate(layer, t, b), *s = stack.state(layer, t, b), *w = stack.layers[layer].unit;
    EveryCell::call(stack.cell, [&](auto tag) {
      using Cell = typename decltype(tag)::Type;
      using Units = CellRows<Cell, T>;
      for (Index u = lane(); u < H; u += 32) {
        const Place at = {0, u};
        T unit[Units::K], target[Units::S * Units::K];
        Units::arguments(at, H, {p, H, {}}, {s, part, {}}, w, unit);
        Units::Unit::linearize(unit, target);
        store<Units::S * Units::K>(target, at, UnitArray<T>{coefficients, H, {}});
        if constexpr (Cell::kDerived) {
          constexpr int kSlopes = Units::S - 1 + Units::Q;
          T derived[kSlopes];
          Units::Unit::derive_linearize(unit + Units::P, derived);
          store<kSlopes>(derived, at, UnitArray<T>{slopes, H, {}});
        }
      }
    });
  }
};

// A kernel for each precision: one for all would need more registers than there are.
template <Precision kPrecision, class T>
LSC_KERNEL forward_radii_kernel(LSC_ARGUMENT SteppedPoints<T> points, Index n, LSC_ARGUMENT RadiusOptions options,
                                RadiusResults<T> results, RadiusResults<T> lefts, RadiusWorkspace<T> work,
                                GridBarrier* state) {
  prepare_walk(points.stack, points.counters);
  if (block() == 0 && thread() == 0) *work.queue = 0;
  grid_barrier(state);
  if (block() < points.stack.sharing.walking(points.stack.shape.L))
    with_format<kPrecision, T>([&](auto format) { walk<decltype(format)>(points.stack, points.counters); });
  radius_role(points, n, options, results, lefts, work, ThePrecision<kPrecision>());
}

template <class T>
void launch_forward_radii(const Execution& execution, const Plan& plan, const SteppedPoints<T>& points, Index n,
                          const RadiusOptions& options, const RadiusResults<T>& results, const RadiusResults<T>& lefts,
                          const RadiusWorkspace<T>& work) {
  const Launch launched = {"forward_radii", {plan.blocks}, kTileThreads, plan.shared_bytes, true};
  with_precision<T>(execution.precision, [&](auto precision) {
    launch(execution, launched, forward_radii_kernel<decltype(precision)::value, T>, points, n, options, results, lefts,
           work, reinterpret_cast<GridBarrier*>(execution.barrier));
  });
}

}  // namespace

template <class T>
Plan plan_forward_radii(const Execution& execution, const std::string& cell_name, const CellShape& cell,
                        const StackShape& shape) {
  return plan_launch<T>(execution, cell_name, cell, shape, false, kWalkingShare,
                        [](auto precision) { return forward_radii_kernel<decltype(precision)::value, T>; });
}

template <class T>
void forward_radii(Execution& execution, const std::string& cell_name, const CellShape& cell,
                   const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory,
                   Direction direction, const FusedItems& items, const RadiusOptions& options,
                   const RadiusResults<T>& results, const RadiusResults<T>& lefts) {
  if (direction == Direction::input) throw std::invalid_argument("direction: expected time, depth or diagonal");
  if (sizeof(T) == sizeof(float)) require_precision(execution);
  const Plan plan = plan_forward_radii<T>(execution, cell_name, cell, trajectory.shape);
  if (!plan.reason.empty())
    throw std::invalid_argument("forward_radii: expected a stack that one launch can hold, got " + plan.reason);
  SteppedPoints<T> points = {};
  FusedStack<T>& stack = points.stack;
  stack = fused_stack<T>(cell, cell_name, layers, trajectory.shape);
  stack.x = trajectory.x;
  stack.states = trajectory.states;
  stack.gates = trajectory.gates;
  stack.sharing = plan.sharing;
  points.items = items;
  points.direction = direction;
  points.count = items.count;

  Workspace& workspace = execution.workspace;
  const Index slots = plan.blocks * kTile, below = direction == Direction::diagonal ? slots : 0;
  const Index counted = WalkCounters::count(plan.sharing, trajectory.shape.L);
  points.counters.walked = workspace.take<unsigned>(counted);
  points.counters.fed = workspace.take<unsigned>(counted);
  points.all.coefficients = workspace.take<T>(slots * points.coefficient_elements());
  points.all.slopes = workspace.take<T>(slots * points.slope_elements());
  points.all.below_coefficients = workspace.take<T>(below * points.coefficient_elements());
  points.all.below_slopes = workspace.take<T>(below * points.slope_elements());
  StepProducts<T> products;
  products.direction = direction;
  products.step = products.below = points.step_of(0, nullptr, nullptr);
  const Index n = (direction == Direction::depth ? 1 : products.step.V()) * trajectory.shape.H;
  const RadiusWorkspace<T> work = radius_workspace<T>(workspace, plan.blocks, n, options, products.scratch_elements());
  if (workspace.counting()) return;
  launch_forward_radii(execution, plan, points, n, options, results, lefts, work);
}

#define LSC_FORWARD_RADII(T)                                                                                      \
  template Plan plan_forward_radii<T>(const Execution&, const std::string&, const CellShape&, const StackShape&); \
  template void forward_radii(Execution&, const std::string&, const CellShape&,                                   \
                              const std::vector<LayerParameters<const T>>&, const Trajectory<T>&, Direction,      \
                              const FusedItems&, const RadiusOptions&, const RadiusResults<T>&,                   \
                              const RadiusResults<T>&)
LSC_FORWARD_RADII(float);
LSC_FORWARD_RADII(double);
#undef LSC_FORWARD_RADII

}  // namespace lsc::cuda
