#include <algorithm>
#include <type_traits>

#include "cuda/cell_launches.h"
#include "cuda/cell_switch.h"
#include "cuda/forward_radii.h"
#include "cuda/launch.h"
#include "cuda/ordering.h"
#include "cuda/radius_role.h"
#include "cuda/resident.h"
#include "cuda/step_product.h"

namespace lsc::cuda {
namespace {

// A stack and how blocks share it; letters as in algorithms/stack.h.
template <class T>
struct FusedStack {
  StackShape shape;
  int cell, S, P, Q;
  bool derived;
  Feeds input_feed, recurrent_feed;
  LayerParameters<const T> layers[kMostFusedLayers];
  const T* x;
  T* states;
  T* gates;
  int units, slices;
  unsigned* progress;  // [L, slices]: how many steps a slice of a layer has done

  LSC_HD Index state_stride() const { return shape.B * shape.H; }
  LSC_HD T* state(Index layer, Index t, Index b) const {
    return states + (((layer * (shape.T + 1) + t) * S) * shape.B + b) * shape.H;
  }
  LSC_HD T* gate(Index layer, Index t, Index b) const {
    return gates + (((layer * shape.T + t) * shape.B + b) * P) * shape.H;
  }
  LSC_HD Index input_size(Index layer) const { return layer == 0 ? shape.I : shape.H; }
  LSC_HD ResidentRows<T> rows_by_input(int layer, Index first, int count) const {
    return {layers[layer].weight_ih, input_size(layer), shape.H, first, count, P, input_feed};
  }
  LSC_HD ResidentRows<T> rows_by_state(int layer, Index first, int count) const {
    return {layers[layer].weight_hh, shape.H, shape.H, first, count, P, recurrent_feed};
  }
};

// All slices of a layer have done `steps` steps, and all threads of the block see what they wrote.
LSC_DEVICE void wait_for(const unsigned* progress, int slices, Index steps) {
  for (int i = thread(); i < slices; i += threads()) await(progress + i, unsigned(steps));
  barrier();
}

// Words of shared memory that a walking block of `units` units takes.
template <class Format, class T>
LSC_HD int walk_words(const FusedStack<T>& stack, int layer, int units) {
  const ResidentRows<T> by_input = stack.rows_by_input(layer, 0, units),
                        by_state = stack.rows_by_state(layer, 0, units);
  const int staged = kTileThreads / 32 * kTile * (Format::kWords + Format::kPad);
  return staged + by_input.tiles() * 16 * resident_stride<Format>(by_input.size) +
         by_state.tiles() * 16 * resident_stride<Format>(by_state.size);
}

template <class T>
LSC_DEVICE T start_of(const FusedStack<T>& stack, const LayerParameters<const T>& layer, int k, Index u) {
  const int by_input = stack.input_feed[k], by_state = stack.recurrent_feed[k];
  const T ih = layer.bias_ih && by_input != kNone ? layer.bias_ih[by_input * stack.shape.H + u] : T(0);
  const T hh = layer.bias_hh && by_state != kNone ? layer.bias_hh[by_state * stack.shape.H + u] : T(0);
  return ih + hh;
}

// One step of one unit of one sequence.
template <class T>
LSC_DEVICE void step_unit(const FusedStack<T>& stack, int l, Index t, Index b, Index u) {
  const Index H = stack.shape.H, part = stack.state_stride();
  const T *p = stack.gate(l, t, b), *s = stack.state(l, t, b), *w = stack.layers[l].unit;
  T* next = stack.state(l, t + 1, b);
  EveryCell::call(stack.cell, [&](auto tag) {
    using Units = CellRows<typename decltype(tag)::Type, T>;
    const Place at = {0, u};
    T unit[Units::K], target[Units::S];
    Units::arguments(at, H, {p, H, {}}, {s, part, {}}, w, unit);
    Units::Unit::step(unit, target);
    store<Units::S>(target, at, UnitArray<T>{next, part, {}});
  });
}

// All threads of a walking block.
template <class Format, class T>
LSC_DEVICE void walk(const FusedStack<T>& stack) {
  using Word = typename Format::Word;
  const Index B = stack.shape.B, H = stack.shape.H, row = stack.P * H;
  const int layer = block() / stack.slices, slice = block() % stack.slices;
  const Index first = Index(slice) * stack.units;
  const int units = int(H - first < stack.units ? H - first : stack.units);
  const LayerParameters<const T>& own = stack.layers[layer];
  const ResidentRows<T> by_input = stack.rows_by_input(layer, first, units);
  const ResidentRows<T> by_state = stack.rows_by_state(layer, first, units);
  const Shared<Word> staged = dynamic_shared<Word>(0);
  const Shared<Word> input_rows = staged + kTileThreads / 32 * kTile * (Format::kWords + Format::kPad);
  const Shared<Word> state_rows = input_rows + by_input.tiles() * 16 * resident_stride<Format>(by_input.size);
  load_rows<Format>(by_input, input_rows);
  load_rows<Format>(by_state, state_rows);
  barrier();

  for (Index t = 0; t < stack.shape.T; ++t) {
    if (layer > 0) wait_for(stack.progress + (layer - 1) * stack.slices, stack.slices, t + 1);
    for (Index b = 0; b < B; b += kTile) {
      const int count = int(B - b < kTile ? B - b : kTile);
      const T* fed = layer == 0 ? stack.x + (t * B + b) * stack.shape.I : stack.state(layer - 1, t + 1, b);
      T* gates = stack.gate(layer, t, b);
      multiply_rows<Format>(
          by_input, input_rows, staged, count, fed, by_input.size,
          [&](int k, int j, int) { return start_of(stack, own, k, first + j); },
          [&](int k, int j, int i, T sum) { gates[i * row + k * H + first + j] = sum; });
      for (int k = 0; k < stack.P; ++k)
        if (stack.input_feed[k] == kNone)
          for (int i = thread(); i < count * units; i += threads())
            gates[i / units * row + k * H + first + i % units] = start_of(stack, own, k, first + i % units);
    }
    wait_for(stack.progress + layer * stack.slices, stack.slices, t);
    for (Index b = 0; b < B; b += kTile) {
      const int count = int(B - b < kTile ? B - b : kTile);
      T* gates = stack.gate(layer, t, b);
      multiply_rows<Format>(
          by_state, state_rows, staged, count, stack.state(layer, t, b), H,
          [&](int k, int j, int i) { return gates[i * row + k * H + first + j]; },
          [&](int k, int j, int i, T sum) { gates[i * row + k * H + first + j] = sum; });
    }
    barrier();
    for (Index i = thread(); i < B * units; i += threads()) step_unit(stack, layer, t, i / units, first + i % units);
    barrier();
    if (thread() == 0) publish(stack.progress + layer * stack.slices + slice, unsigned(t + 1));
  }
}

// A block's linearised steps: of the items of its warps, and of the layer below them.
template <class T>
struct Linearized {
  T *coefficients, *slopes, *below_coefficients, *below_slopes;
};

// The points that blocks take; a block knows one by the warp that has it.
template <class T>
struct SteppedPoints {
  FusedStack<T> stack;
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
    // The layer below is ahead.
    for (int i = lane(); i < stack.slices; i += 32) await(stack.progress + layer * stack.slices + i, unsigned(t + 1));
    warp_barrier();
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
    products.outputs = products.step.free_states();
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
                                RadiusResults<T> results, RadiusWorkspace<T> work, GridBarrier* state) {
  const FusedStack<T>& stack = points.stack;
  const int walking = int(stack.shape.L) * stack.slices;
  if (block() == 0) {
    for (int i = thread(); i < walking; i += threads()) stack.progress[i] = 0;
    if (thread() == 0) *work.queue = 0;
  }
  grid_barrier(state);
  if (block() < walking) {
    if constexpr (std::is_same_v<T, float>) {
      if (tensor_cores())
        walk<OnTensorCores<kPrecision>>(stack);
      else
        walk<OnOrdinaryUnits<T>>(stack);
    } else {
      walk<OnOrdinaryUnits<T>>(stack);
    }
  }
  radius_role(points, n, options, results, work, ThePrecision<kPrecision>());
}

// body(ThePrecision) of the products of T.
template <class T, class Body>
void with_precision(Precision precision, const Body& body) {
  if constexpr (std::is_same_v<T, float>) {
    switch (precision) {
      case Precision::tf32:
        return body(ThePrecision<Precision::tf32>());
      case Precision::fp16:
        return body(ThePrecision<Precision::fp16>());
      case Precision::bf16:
        return body(ThePrecision<Precision::bf16>());
      case Precision::fp32:
        break;
    }
  }
  body(ThePrecision<Precision::fp32>());
}

template <class T>
FusedStack<T> stack_of(const std::string& cell_name, const CellShape& cell, const StackShape& shape) {
  FusedStack<T> stack = {};
  stack.shape = shape;
  stack.cell = EveryCell::number_of(cell_name);
  stack.S = cell.states;
  stack.P = cell.preactivations;
  stack.Q = cell.unit_parameters;
  stack.derived = cell.derived;
  stack.input_feed = Feeds(cell, &Feed::input);
  stack.recurrent_feed = Feeds(cell, &Feed::recurrent);
  return stack;
}

// Of shared memory, for the layer that takes most.
template <class Format, class T>
std::size_t walk_bytes(const FusedStack<T>& stack, int units) {
  int most = 0;
  for (int layer = 0; layer < int(stack.shape.L); ++layer)
    most = std::max(most, walk_words<Format>(stack, layer, int(std::min<Index>(units, stack.shape.H))));
  return std::size_t(most) * sizeof(typename Format::Word);
}

// How a stack is shared out over blocks; where it is not, why.
struct FusedPlan {
  std::string reason;
  int units = 0, slices = 0;
  Index blocks = 0;
  std::size_t shared_bytes = 0;
};

// A block multiplies all rows of a batch one tile after the other.
constexpr Index kMostFusedBatch = 64;
constexpr int kUnits[] = {16, 32, 64, 128, 256};

// Modelled, not measured: the fewest units that leave a quarter of the resident blocks to the radii, since a step takes
// as long as its largest product.
template <Precision kPrecision, class T>
FusedPlan plan_of(const Execution& execution, const FusedStack<T>& stack) {
  FusedPlan plan;
  const auto kernel = forward_radii_kernel<kPrecision, T>;
  const std::size_t most = most_shared_bytes(execution.device, kernel);
  for (const int units : kUnits) {
    plan.units = units;
    plan.slices = int(covering(stack.shape.H, units));
    plan.shared_bytes = walk_bytes<OnOrdinaryUnits<T>>(stack, units);
    if constexpr (std::is_same_v<T, float>)
      if (has_tensor_cores(execution.device)) plan.shared_bytes = walk_bytes<OnTensorCores<kPrecision>>(stack, units);
    if (plan.shared_bytes > most) break;
    plan.blocks = resident_blocks(execution.device, kernel, kTileThreads, plan.shared_bytes);
    if (stack.shape.L * plan.slices <= plan.blocks * 3 / 4) return plan;
  }
  plan.reason = "weights that the blocks of the device do not hold";
  return plan;
}

template <class T>
FusedPlan plan_of(const Execution& execution, const std::string& cell_name, const CellShape& cell,
                  const StackShape& shape) {
  FusedPlan plan;
  if (shape.T == 0 || shape.B == 0 || shape.L == 0) plan.reason = "no steps";
  if (shape.L > kMostFusedLayers) plan.reason = "more than " + std::to_string(kMostFusedLayers) + " layers";
  if (shape.B > kMostFusedBatch) plan.reason = "a batch of more than " + std::to_string(kMostFusedBatch);
  if (!plan.reason.empty()) return plan;
  with_precision<T>(execution.precision, [&](auto precision) {
    plan = plan_of<decltype(precision)::value>(execution, stack_of<T>(cell_name, cell, shape));
  });
  return plan;
}

template <class T>
void launch_fused(const Execution& execution, const FusedPlan& plan, const SteppedPoints<T>& points, Index n,
                  const RadiusOptions& options, const RadiusResults<T>& results, const RadiusWorkspace<T>& work,
                  GridBarrier* state) {
  const Launch shape = {"forward_radii", {plan.blocks}, kTileThreads, plan.shared_bytes, true};
  with_precision<T>(execution.precision, [&](auto precision) {
    launch(execution, shape, forward_radii_kernel<decltype(precision)::value, T>, points, n, options, results, work,
           state);
  });
}

}  // namespace

template <class T>
std::string why_not_fused(const Execution& execution, const std::string& cell_name, const CellShape& cell,
                          const StackShape& shape) {
  return plan_of<T>(execution, cell_name, cell, shape).reason;
}

template <class T>
void forward_radii(Execution& execution, const std::string& cell_name, const CellShape& cell,
                   const std::vector<LayerParameters<const T>>& layers, const Trajectory<T>& trajectory,
                   Direction direction, const FusedItems& items, const RadiusOptions& options,
                   const RadiusResults<T>& results, unsigned* barrier) {
  if (direction != Direction::time && direction != Direction::diagonal)
    throw std::invalid_argument("direction: expected time or diagonal");
  if (sizeof(T) == sizeof(float)) require_precision(execution);
  const FusedPlan plan = plan_of<T>(execution, cell_name, cell, trajectory.shape);
  if (!plan.reason.empty())
    throw std::invalid_argument("forward_radii: expected a stack that one launch can hold, got " + plan.reason);
  SteppedPoints<T> points = {};
  FusedStack<T>& stack = points.stack;
  stack = stack_of<T>(cell_name, cell, trajectory.shape);
  std::copy(layers.begin(), layers.end(), stack.layers);
  stack.x = trajectory.x;
  stack.states = trajectory.states;
  stack.gates = trajectory.gates;
  stack.units = plan.units;
  stack.slices = plan.slices;
  points.items = items;
  points.direction = direction;
  points.count = items.count;

  Workspace& workspace = execution.workspace;
  const Index slots = plan.blocks * kTile, below = direction == Direction::diagonal ? slots : 0;
  stack.progress = workspace.take<unsigned>(trajectory.shape.L * plan.slices);
  points.all.coefficients = workspace.take<T>(slots * points.coefficient_elements());
  points.all.slopes = workspace.take<T>(slots * points.slope_elements());
  points.all.below_coefficients = workspace.take<T>(below * points.coefficient_elements());
  points.all.below_slopes = workspace.take<T>(below * points.slope_elements());
  StepProducts<T> products;
  products.direction = direction;
  products.step = products.below = points.step_of(0, nullptr, nullptr);
  const Index n = products.step.V() * trajectory.shape.H;
  const RadiusWorkspace<T> work = radius_workspace<T>(workspace, plan.blocks, n, options, products.scratch_elements());
  if (workspace.counting()) return;
  launch_fused(execution, plan, points, n, options, results, work, reinterpret_cast<GridBarrier*>(barrier));
}

#define LSC_FORWARD_RADII(T)                                                                                        \
  template std::string why_not_fused<T>(const Execution&, const std::string&, const CellShape&, const StackShape&); \
  template void forward_radii(Execution&, const std::string&, const CellShape&,                                     \
                              const std::vector<LayerParameters<const T>>&, const Trajectory<T>&, Direction,        \
                              const FusedItems&, const RadiusOptions&, const RadiusResults<T>&, unsigned*)
LSC_FORWARD_RADII(float);
LSC_FORWARD_RADII(double);
#undef LSC_FORWARD_RADII

}  // namespace lsc::cuda
