// Products with the Jacobians of a layer's step for a tile of points, by one block: as LinearizedStep and StepOperator
// of algorithms/step_operator.h, from the same coefficients.
#pragma once

#include "cuda/layer_step.h"
#include "cuda/tile_product.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

template <Path kPath, class T>
LSC_DEVICE int fed(const LayerStep<T>& step, int k) {
  return kPath == Path::input ? step.input_feed[k] : step.recurrent_feed[k];
}
template <Path kPath, class T>
LSC_DEVICE const T* weight(const LayerStep<T>& step) {
  return kPath == Path::input ? step.input_weight : step.recurrent_weight;
}
template <Path kPath, class T>
LSC_DEVICE Index fed_size(const LayerStep<T>& step) {
  return kPath == Path::input ? step.n : step.H;
}

// body(first, size) for every run of pre-activations that neighbouring blocks feed: one product serves them.
template <Path kPath, class T, class Body>
LSC_DEVICE void each_run(const LayerStep<T>& step, const Body& body) {
  for (int first = 0, end = 0; first < step.P; first = end) {
    end = first + 1;
    if (fed<kPath>(step, first) == kNone) continue;
    while (end < step.P && fed<kPath>(step, end) == fed<kPath>(step, end - 1) + 1) ++end;
    body(first, end - first);
  }
}

// body(row of the tile, state, unit) for the threads' shares of [count, states, H].
template <class Body>
LSC_DEVICE void each_unit(int count, Index states, Index H, const Body& body) {
  for (Index i = thread(); i < count * states * H; i += threads()) body(i / (states * H), i / H % states, i % H);
}

// dp [count, P, H], the blocks on the path, along v: rows of what is fed, v_row apart.
template <Path kPath, class T>
LSC_DEVICE void pre_activations(Precision precision, const LayerStep<T>& step, int count, const T* v, Index v_row,
                                T* dp) {
  const Index H = step.H, size = fed_size<kPath>(step);
  each_run<kPath>(step, [&](int first, int blocks) {
    tile_product(precision, blocks * H, size, weight<kPath>(step) + fed<kPath>(step, first) * H * size, size, 1, count,
                 v, v_row, false, dp + first * H, step.P * H);
  });
  barrier();
}

// The transpose: g [count, P, H] to rows of what is fed, out_row apart.
template <Path kPath, class T>
LSC_DEVICE void pre_activations_transposed(Precision precision, const LayerStep<T>& step, int count, const T* g,
                                           bool accumulate, T* out, Index out_row) {
  const Index H = step.H, size = fed_size<kPath>(step);
  each_run<kPath>(step, [&](int first, int blocks) {
    tile_product(precision, size, blocks * H, weight<kPath>(step) + fed<kPath>(step, first) * H * size, 1, size, count,
                 g + first * H, step.P * H, accumulate, out, out_row);
    accumulate = true;
    barrier();
  });
}

// The change of next state `state` of a unit through its pre-activations, dp [P, H].
template <Path kPath, class T>
LSC_DEVICE T gate_terms(const LayerStep<T>& step, Index point, Index state, Index unit, const T* dp) {
  const T* own = step.local(point, state) + unit;
  T sum = 0;
  for (int k = 0; k < step.P; ++k)
    if (fed<kPath>(step, k) != kNone) sum += own[k * step.H] * dp[k * step.H + unit];
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

// g [count, P, H] = u' (d next / d p) of the blocks on the path.
template <Path kPath, class T>
LSC_DEVICE void gate_gradients(const LayerStep<T>& step, int count, const std::int64_t* point, const T* u,
                               StateRange outputs, T* g) {
  const Index H = step.H;
  each_unit(count, step.P, H, [&](Index j, Index k, Index unit) {
    if (fed<kPath>(step, int(k)) != kNone)
      g[(j * step.P + k) * H + unit] = output_terms(step, Index(point[j]), outputs, k, unit, u + j * outputs.count * H);
  });
}

// ds_next [count, outputs.count, H] <- along a change of the free states, v [count, V, H].
template <class T>
LSC_DEVICE void recurrent_product(Precision precision, const LayerStep<T>& step, int count, const std::int64_t* point,
                                  const T* v, StateRange outputs, T* out, T* scratch) {
  const Index H = step.H, S = step.S;
  T* dp = scratch;
  if (step.derived) {
    T* all = scratch + count * step.P * H;
    each_unit(count, S, H, [&](Index j, Index s, Index unit) {
      const T* free = v + j * (S - 1) * H;
      all[(j * S + s) * H + unit] =
          s == 0 ? derived_change(step, Index(point[j]), unit, free) : free[(s - 1) * H + unit];
    });
    v = all;
    barrier();
  }
  pre_activations<Path::recurrent>(precision, step, count, v, S * H, dp);
  each_unit(count, outputs.count, H, [&](Index j, Index i, Index unit) {
    const Index state = outputs.first + i;
    const T* own = step.local(Index(point[j]), state) + unit;
    T sum = gate_terms<Path::recurrent>(step, Index(point[j]), state, unit, dp + j * step.P * H);
    for (Index s = 0; s < S; ++s) sum += own[(step.P + s) * H] * v[(j * S + s) * H + unit];
    out[(j * outputs.count + i) * H + unit] = sum;
  });
  barrier();
}

// The transpose: u [count, outputs.count, H] -> [count, V, H].
template <class T>
LSC_DEVICE void recurrent_product_transposed(Precision precision, const LayerStep<T>& step, int count,
                                             const std::int64_t* point, const T* u, StateRange outputs, T* out,
                                             T* scratch) {
  const Index H = step.H, S = step.S, V = step.V();
  T* g = scratch;
  T* all = step.derived ? scratch + count * step.P * H : out;
  gate_gradients<Path::recurrent>(step, count, point, u, outputs, g);
  each_unit(count, S, H, [&](Index j, Index s, Index unit) {
    all[(j * S + s) * H + unit] =
        output_terms(step, Index(point[j]), outputs, step.P + s, unit, u + j * outputs.count * H);
  });
  barrier();
  pre_activations_transposed<Path::recurrent>(precision, step, count, g, true, all, S * H);
  if (!step.derived) return;
  each_unit(count, V, H, [&](Index j, Index s, Index unit) {
    const T* from = all + j * S * H + unit;
    out[(j * V + s) * H + unit] = from[(1 + s) * H] + step.slopes_of(Index(point[j]))[s * H + unit] * from[0];
  });
  barrier();
}

// ds_next [count, outputs.count, H] <- along a change of the input, v [count, n].
template <class T>
LSC_DEVICE void input_product(Precision precision, const LayerStep<T>& step, int count, const std::int64_t* point,
                              const T* v, StateRange outputs, T* out, T* scratch) {
  const Index H = step.H;
  pre_activations<Path::input>(precision, step, count, v, step.n, scratch);
  each_unit(count, outputs.count, H, [&](Index j, Index i, Index unit) {
    out[(j * outputs.count + i) * H + unit] =
        gate_terms<Path::input>(step, Index(point[j]), outputs.first + i, unit, scratch + j * step.P * H);
  });
  barrier();
}

// The transpose: u [count, outputs.count, H] -> [count, n].
template <class T>
LSC_DEVICE void input_product_transposed(Precision precision, const LayerStep<T>& step, int count,
                                         const std::int64_t* point, const T* u, StateRange outputs, T* out,
                                         T* scratch) {
  gate_gradients<Path::input>(step, count, point, u, outputs, scratch);
  barrier();
  pre_activations_transposed<Path::input>(precision, step, count, scratch, false, out, step.n);
}

// Row j of out <- J[point[j]] v_j, or its transpose times v_j, j < count <= kTile. v [count, columns], out [count,
// rows] (transposed: the other way round), `point` and scratch [scratch_elements()] are in global memory and do not
// overlap. All kTileThreads threads of the block take part; what they read must be seen by all before, and out is seen
// by all when they return. Row j of out depends on row j of v alone, bit for bit.
template <class T>
LSC_DEVICE void apply_tile(Precision precision, const StepProducts<T>& products, bool transposed, int count,
                           const std::int64_t* point, const T* v, T* out, T* scratch) {
  const LayerStep<T>& step = products.step;
  const StateRange outputs = products.outputs;
  if (products.direction == Direction::time) {
    if (transposed)
      recurrent_product_transposed(precision, step, count, point, v, outputs, out, scratch);
    else
      recurrent_product(precision, step, count, point, v, outputs, out, scratch);
  } else if (products.direction == Direction::diagonal) {
    const LayerStep<T>& below = products.below;
    T* between = scratch;  // what the lower layer hands up, or its gradient
    T* rest = scratch + kTile * step.H;
    if (transposed) {
      input_product_transposed(precision, step, count, point, v, outputs, between, rest);
      recurrent_product_transposed(precision, below, count, point, between, below.handed_up(), out, rest);
    } else {
      recurrent_product(precision, below, count, point, v, below.handed_up(), between, rest);
      input_product(precision, step, count, point, between, outputs, out, rest);
    }
  } else if (transposed) {
    input_product_transposed(precision, step, count, point, v, outputs, out, scratch);
  } else {
    input_product(precision, step, count, point, v, outputs, out, scratch);
  }
}

}  // namespace LSC_ISA
}  // namespace lsc::cuda
