// How a stack is shared out over the blocks of one launch, and when it is not: the one place that decides it.
//
// A block walks `units` units of one layer for some of the sequences, a "part" of the batch, through all steps. It
// keeps the rows of both of the layer's weights that these units need in shared memory or, where two blocks have a
// slice `apart`, those of one: then one computes what the input gives, ahead of the other, which has the states.
//
// Of all ways that fit, the one whose step is shortest by a model of the latencies below; none of them was measured.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "algorithms/stack.h"

namespace lsc::cuda {

inline constexpr int kMostFusedLayers = 16;

struct Sharing {
  int units = 0, slices = 0, parts = 0;
  Index part_rows = 0;
  bool apart = false;

  LSC_HD Index walking(Index layers) const { return layers * slices * parts * (apart ? 2 : 1); }
};

// What a layer's product asks of a block: words of shared memory in bytes, and clocks for a tile of sequences.
struct ProductNeeds {
  std::size_t resident_bytes = 0, staged_bytes = 0;
  double clocks = 0;
};

// Of the layer that asks for most, with `units` units to a block.
struct StepNeeds {
  ProductNeeds by_input, by_state;
};

struct Planning {
  StackShape shape;
  std::function<StepNeeds(int units)> needs;
  // How many blocks with so much shared memory are on the device at once, 0 for too much.
  std::function<Index(std::size_t bytes)> resident;
  double share = 1;  // of those blocks, for walking
  bool can_be_apart = true;
  Index weights = 0;  // numbers in a layer's weights
};

struct Plan {
  std::string reason;  // why there is none, or empty
  Sharing sharing;
  Index blocks = 0;
  std::size_t shared_bytes = 0;
  bool pays = false;  // by the model, against a launch for every step
};

Plan plan(const Planning& planning);

// What a plan depends on.
struct PlanKey {
  const void* kernel;
  int device, cell;
  bool tensor_cores;
  StackShape shape;

  friend bool operator<(const PlanKey& a, const PlanKey& b);
};

// The plan of a key, made but once: asking CUDA what fits takes longer than a short launch.
Plan remembered(const PlanKey& key, const std::function<Plan()>& make);

}  // namespace lsc::cuda
