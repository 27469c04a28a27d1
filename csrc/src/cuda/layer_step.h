// What kernels hold of a linearised step of a layer.
#pragma once

#include "algorithms/stack.h"
#include "cuda/feeds.h"
#include "cuda/tile.h"
#include "lsc/host_device.h"

namespace lsc::cuda {

// The step of one layer, linearised at N points. H units, n inputs, S states, P pre-activations and Q parameters per
// unit; state 0 is a function of the others where `derived`, and the V free states are those.
template <class T>
struct LayerStep {
  Index H = 0, n = 0;
  int S = 0, P = 0, Q = 0;
  bool derived = false;
  Feeds input_feed, recurrent_feed;
  const T* input_weight = nullptr;      // [input blocks * H, n]
  const T* recurrent_weight = nullptr;  // [recurrent blocks * H, H]
  const T* coefficients = nullptr;      // [N, S, P + S + Q, H]
  const T* slopes = nullptr;            // [N, V + Q, H] of state 0, where derived

  LSC_HD Index V() const { return derived ? S - 1 : S; }
  LSC_HD StateRange free_states() const { return {derived ? 1 : 0, V()}; }
  LSC_HD StateRange handed_up() const { return {0, 1}; }
  // d next state / d p, then / d s, then / d the units' parameters: [P + S + Q, H].
  LSC_HD const T* local(Index point, Index state) const { return coefficients + (point * S + state) * (P + S + Q) * H; }
  LSC_HD const T* slopes_of(Index point) const { return slopes + point * (V() + Q) * H; }
  // Of the products for a tile.
  LSC_HD Index scratch_elements() const { return kTile * (P + (derived ? S : 0)) * H; }
};

// What feeds a step's pre-activations.
enum class Path { input, recurrent };

// The blocks of one path, and which pre-activation each of them feeds.
template <class T>
struct PathWeights {
  Feeds block;
  const T* weight;  // [blocks * H, size]
  Index size;

  LSC_HD PathWeights(const LayerStep<T>& step, Path path)
      : block(path == Path::input ? step.input_feed : step.recurrent_feed),
        weight(path == Path::input ? step.input_weight : step.recurrent_weight),
        size(path == Path::input ? step.n : step.H) {}
};

// J of one layer at N points: how `outputs` change along a direction. `below` is the layer below, of the diagonal
// alone.
template <class T>
struct StepProducts {
  using Number = T;
  Direction direction = Direction::time;
  LayerStep<T> step, below;
  StateRange outputs;
  Index points = 0, rows = 0, columns = 0;

  // What a tile needs beside its vectors.
  LSC_HD Index scratch_elements() const {
    if (direction != Direction::diagonal) return step.scratch_elements();
    const Index own = step.scratch_elements(), other = below.scratch_elements();
    return kTile * step.H + (own > other ? own : other);
  }
};

}  // namespace lsc::cuda
