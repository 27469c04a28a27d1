// A stack as the kernels of one launch see it, and which part of it a block walks. Letters as in algorithms/stack.h.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "algorithms/stack.h"
#include "cuda/execution.h"
#include "cuda/feeds.h"
#include "cuda/fused/cell_switch.h"
#include "cuda/fused/plan.h"
#include "cuda/fused/resident.h"
#include "cuda/launch.h"
#include "cuda/precision.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

// What block number `number` walks: units from `first` on of a slice of a layer, for sequences from first_row on.
struct Walker {
  int layer, slice, part;
  bool by_input, by_state;
  Index first, first_row;
  int units, rows;

  LSC_HD Walker(const Sharing& sharing, const StackShape& shape, int number) {
    by_input = by_state = true;
    if (sharing.apart) {
      by_input = number % 2 == 0;
      by_state = !by_input;
      number /= 2;
    }
    slice = number % sharing.slices;
    layer = number / sharing.slices % int(shape.L);
    part = number / sharing.slices / int(shape.L);
    first = Index(slice) * sharing.units;
    first_row = part * sharing.part_rows;
    units = int(shape.H - first < sharing.units ? shape.H - first : sharing.units);
    rows = int(shape.B - first_row < sharing.part_rows ? shape.B - first_row : sharing.part_rows);
  }
};

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
  Index gate_layer, gate_step;  // between the gates of layers and of steps; 0 where only the last ones are kept
  Sharing sharing;

  LSC_HD Index state_stride() const { return shape.B * shape.H; }
  LSC_HD Index place_of_state(Index layer, Index t, Index b) const {
    return (((layer * (shape.T + 1) + t) * S) * shape.B + b) * shape.H;
  }
  LSC_HD T* state(Index layer, Index t, Index b) const { return states + place_of_state(layer, t, b); }
  LSC_HD T* gate(Index layer, Index t, Index b) const {
    return gates + layer * gate_layer + t * gate_step + b * P * shape.H;
  }
  LSC_HD Index input_size(Index layer) const { return layer == 0 ? shape.I : shape.H; }
  LSC_HD ResidentRows<T> rows_by_input(Index layer, Index first, int units, bool transposed = false) const {
    return {layers[layer].weight_ih, input_size(layer), shape.H, first, units, P, input_feed, transposed};
  }
  LSC_HD ResidentRows<T> rows_by_state(Index layer, Index first, int units, bool transposed = false) const {
    return {layers[layer].weight_hh, shape.H, shape.H, first, units, P, recurrent_feed, transposed};
  }
};

// Without states, gates and how it is shared.
template <class T>
FusedStack<T> fused_stack(const CellShape& cell, const std::string& cell_name,
                          const std::vector<LayerParameters<const T>>& layers, const StackShape& shape) {
  FusedStack<T> stack = {};
  stack.shape = shape;
  stack.cell = EveryCell::number_of(cell_name);
  stack.S = cell.states;
  stack.P = cell.preactivations;
  stack.Q = cell.unit_parameters;
  stack.derived = cell.derived;
  stack.input_feed = Feeds(cell, &Feed::input);
  stack.recurrent_feed = Feeds(cell, &Feed::recurrent);
  stack.gate_step = shape.B * cell.preactivations * shape.H;
  stack.gate_layer = shape.T * stack.gate_step;
  std::copy_n(layers.begin(), std::min<std::size_t>(layers.size(), kMostFusedLayers), stack.layers);
  return stack;
}

// A warp reads a chunk's worth of words at a time, all threads 8 numbers each on one way to the level-2 cache
// (modelled).
template <class Format, class T>
ProductNeeds needs_of(const ResidentRows<T>& rows) {
  constexpr double kBarriers = 60, kWayToCache = 300;
  ProductNeeds needs;
  if (rows.tiles() == 0) return needs;
  needs.resident_bytes = std::size_t(resident_words<Format>(rows)) * sizeof(typename Format::Word);
  needs.staged_bytes = std::size_t(staged_words<Format>(rows)) * sizeof(typename Format::Word);
  const int chunks = rows.pieces() * piece_words<Format>(rows.depth()) / Format::kWords;
  needs.clocks = kBarriers + kWayToCache * double(covering(Index(chunks) * Format::kChunk * kTile, kTileThreads * 8)) +
                 double(covering(rows.tiles(), kTileThreads / 32) * chunks * Format::kChunkClocks);
  return needs;
}

// Of the products that a block makes forward, or of their transposes.
template <class Format, class T>
StepNeeds needs_of(const FusedStack<T>& stack, int units, bool transposed) {
  const auto more = [](ProductNeeds& most, const ProductNeeds& other) {
    most.resident_bytes = std::max(most.resident_bytes, other.resident_bytes);
    most.staged_bytes = std::max(most.staged_bytes, other.staged_bytes);
    most.clocks = std::max(most.clocks, other.clocks);
  };
  const int all = int(std::min<Index>(units, stack.shape.H));
  StepNeeds needs;
  for (Index layer = 0; layer < stack.shape.L; ++layer) {
    // Back from layer 0 to the input of the stack there is a product for all steps together.
    if (layer > 0 || !transposed)
      more(needs.by_input, needs_of<Format>(stack.rows_by_input(layer, 0, all, transposed)));
    more(needs.by_state, needs_of<Format>(stack.rows_by_state(layer, 0, all, transposed)));
  }
  return needs;
}

// How a kernel shares out a stack.
template <Precision kPrecision, class T, class... P>
Plan plan_for(const Execution& execution, const FusedStack<T>& stack, void (*kernel)(P...), bool transposed,
              double share) {
  const bool on_tensor_cores = std::is_same_v<T, float> && has_tensor_cores(execution.device);
  Planning planning;
  planning.shape = stack.shape;
  planning.share = share;
  planning.can_be_apart = !transposed;
  planning.weights = stack.rows_by_state(0, 0, 1).blocks() * stack.shape.H * stack.shape.H;
  planning.needs = [&](int units) {
    if constexpr (std::is_same_v<T, float>)
      if (on_tensor_cores) return needs_of<OnTensorCores<kPrecision>>(stack, units, transposed);
    return needs_of<OnOrdinaryUnits<T>>(stack, units, transposed);
  };
  planning.resident = [&](std::size_t bytes) {
    const std::size_t most = most_shared_bytes(execution.device, kernel);
    return bytes > most ? Index(0) : resident_blocks(execution.device, kernel, kTileThreads, bytes);
  };
  const PlanKey key = {reinterpret_cast<const void*>(kernel), execution.device, stack.cell, on_tensor_cores,
                       stack.shape};
  return remembered(key, [&] { return plan(planning); });
}

// The same of the kernel that kernel_of(ThePrecision) names.
template <class T, class KernelOf>
Plan plan_launch(const Execution& execution, const std::string& cell_name, const CellShape& cell,
                 const StackShape& shape, bool transposed, double share, const KernelOf& kernel_of) {
  Plan plan;
  if (!execution.barrier) {
    plan.reason = "launches for every step, which were asked for";
    return plan;
  }
  with_precision<T>(execution.precision, [&](auto precision) {
    plan = plan_for<decltype(precision)::value>(execution, fused_stack<T>(cell, cell_name, {}, shape),
                                                kernel_of(precision), transposed, share);
  });
  return plan;
}

// body(Format) of what the device multiplies with.
template <Precision kPrecision, class T, class Body>
LSC_DEVICE void with_format(const Body& body) {
  if constexpr (std::is_same_v<T, float>)
    if (tensor_cores()) return body(OnTensorCores<kPrecision>());
  body(OnOrdinaryUnits<T>());
}

}  // namespace LSC_ISA
}  // namespace lsc::cuda
