// Products with the Jacobians of a layer's step for a tile of points, by one block: as LinearizedStep and StepOperator
// of algorithms/step_operator.h, from the same coefficients.
#pragma once

#include "cuda/layer_step.h"
#include "cuda/tile_product.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

// body(row of the tile, state, unit) for the threads' shares of [count, states, H].
template <class Body>
LSC_DEVICE void each_unit(int count, Index states, Index H, const Body& body) {
  for (Index i = thread(); i < count * states * H; i += threads()) body(i / (states * H), i / H % states, i % H);
}

// The change of next state `state` of a unit through its pre-activations, dp [P, H].
template <class T>
LSC_DEVICE T gate_terms(const LayerStep<T>& step, const PathWeights<T>& fed, Index point, Index state, Index unit,
                        const T* dp) {
  const T* own = step.local(point, state) + unit;
  T sum = 0;
  for (int k = 0; k < step.P; ++k)
    if (fed.block[k] != kNone) sum += own[k * step.H] * dp[k * step.H + unit];
  return sum;
}

// What argument `k` of a unit gets back from the outputs' u [outputs.count, H].
template <class T>
LSC_DEVICE T output_terms(const LayerStep<T>& step, Index point, StateRange outputs, Index k, Index unit, const T* u) {
  T sum = 0;
  for (Index o = 0; o < outputs.count; ++o)
    sum += step.local(point, outputs.first + o)[k * step.H + unit] * u[o * step.H + unit];
  return sum;
}

// The change of derived state 0 of a unit along that of the free ones, v [V, H].
template <class T>
LSC_DEVICE T derived_change(const LayerStep<T>& step, Index point, Index unit, const T* v) {
  T sum = 0;
  for (Index s = 0; s < step.V(); ++s) sum += step.slopes_of(point)[s * step.H + unit] * v[s * step.H + unit];
  return sum;
}

// One layer's part of a product, along one path: from a change of its input [n] or free states [V, H] to that of its
// outputs [outputs.count, H], or back where transposed.
template <class T>
struct StepPart {
  const LayerStep<T>& step;
  Path path;
  StateRange outputs;
};

// v and out have `count` rows without gaps.
template <class Choice, class T>
LSC_DEVICE void apply_part(Choice precision, const StepPart<T>& part, bool transposed, int count,
                           const std::int64_t* point, const T* v, T* out, T* scratch) {
  const LayerStep<T>& step = part.step;
  const PathWeights<T> fed(step, part.path);
  const StateRange outputs = part.outputs;
  const Index H = step.H, S = step.S, V = step.V();
  const bool recurrent = part.path == Path::recurrent, through_derived = recurrent && step.derived;
  T* const gates = scratch;  // [count, P, H]: changes of the pre-activations, or what they get back
  T* const all = through_derived ? scratch + count * step.P * H : out;  // [count, S, H]: of every state

  if (transposed) {
    each_unit(count, step.P, H, [&](Index j, Index k, Index unit) {
      if (fed.block[k] != kNone)
        gates[(j * step.P + k) * H + unit] =
            output_terms(step, Index(point[j]), outputs, k, unit, v + j * outputs.count * H);
    });
    if (recurrent)
      each_unit(count, S, H, [&](Index j, Index s, Index unit) {
        all[(j * S + s) * H + unit] =
            output_terms(step, Index(point[j]), outputs, step.P + s, unit, v + j * outputs.count * H);
      });
    barrier();
  } else if (through_derived) {
    each_unit(count, S, H, [&](Index j, Index s, Index unit) {
      const T* free = v + j * V * H;
      all[(j * S + s) * H + unit] =
          s == 0 ? derived_change(step, Index(point[j]), unit, free) : free[(s - 1) * H + unit];
    });
    barrier();
    v = all;
  }

  const Index fed_row = recurrent ? S * H : step.n;  // between what is fed of two points: the handed up state is first
  bool accumulate = transposed && recurrent;
  for (int first = 0, end = 0; first < step.P; first = end) {
    end = first + 1;
    if (fed.block[first] == kNone) continue;
    // One product serves a run of pre-activations that neighbouring blocks fed.
    while (end < step.P && fed.block[end] == fed.block[end - 1] + 1) ++end;
    const T* weight = fed.weight + fed.block[first] * H * fed.size;
    const Index blocks = (end - first) * H;
    tile_product(precision, transposed ? fed.size : blocks, transposed ? blocks : fed.size, weight,
                 transposed ? 1 : fed.size, transposed ? fed.size : 1, count, transposed ? gates + first * H : v,
                 transposed ? step.P * H : fed_row, accumulate, transposed ? all : gates + first * H,
                 transposed ? fed_row : step.P * H);
    accumulate = transposed;
    barrier();
  }

  if (!transposed)
    each_unit(count, outputs.count, H, [&](Index j, Index i, Index unit) {
      const Index state = outputs.first + i;
      const T* own = step.local(Index(point[j]), state) + unit;
      T sum = gate_terms(step, fed, Index(point[j]), state, unit, gates + j * step.P * H);
      if (recurrent)
        for (Index s = 0; s < S; ++s) sum += own[(step.P + s) * H] * v[(j * S + s) * H + unit];
      out[(j * outputs.count + i) * H + unit] = sum;
    });
  else if (through_derived)
    each_unit(count, V, H, [&](Index j, Index s, Index unit) {
      const T* from = all + j * S * H + unit;
      out[(j * V + s) * H + unit] = from[(1 + s) * H] + step.slopes_of(Index(point[j]))[s * H + unit] * from[0];
    });
  barrier();
}

// Row j of out <- J[point[j]] v_j, or its transpose times v_j, j < count <= kTile. v [count, columns], out [count,
// rows] (transposed: the other way round), `point` and scratch [scratch_elements()] are in global memory and do not
// overlap. All kTileThreads threads of the block take part; what they read must be seen by all before, and out is seen
// by all when they return. Row j of out depends on row j of v alone, bit for bit.
template <class Choice, class T>
LSC_DEVICE void apply_tile(Choice precision, const StepProducts<T>& products, bool transposed, int count,
                           const std::int64_t* point, const T* v, T* out, T* scratch) {
  const bool diagonal = products.direction == Direction::diagonal;
  T* const between = scratch;  // what the lower layer hands up, or its gradient
  T* const rest = scratch + (diagonal ? kTile * products.step.H : 0);
  // Of the diagonal, the lower layer's states and then the upper one's input, and back from the upper one.
  const int parts = diagonal ? 2 : 1;
  for (int i = 0; i < parts; ++i) {
    const bool lower = diagonal && (i == 0) != transposed;
    const LayerStep<T>& step = lower ? products.below : products.step;
    const Path path = lower || products.direction == Direction::time ? Path::recurrent : Path::input;
    const StepPart<T> part = {step, path, lower ? step.handed_up() : products.outputs};
    apply_part(precision, part, transposed, count, point, i == 0 ? v : between, i + 1 == parts ? out : between, rest);
  }
}

}  // namespace LSC_ISA
}  // namespace lsc::cuda
