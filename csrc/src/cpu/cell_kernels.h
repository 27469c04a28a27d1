// A cell's row functions: algorithms/unit_functions.h, a vector of units at a time.
//
// A unit meets the same instructions wherever in a row it stands: what is left of a row after its whole vectors is
// padded to one and goes through the very same function. So any split of a row gives the same numbers, bit for bit.
#pragma once

#include "algorithms/unit_functions.h"
#include "cpu/dispatch.h"
#include "cpu/lanes.h"

// What it calls is inlined into it, and it is neither inlined nor cloned itself: a copy could be contracted otherwise.
#if defined(__clang__)
#define LSC_ONE_COPY __attribute__((noinline, flatten))
#else
#define LSC_ONE_COPY __attribute__((noinline, noclone, flatten))
#endif

namespace lsc {
inline namespace LSC_ISA {

// `count` rows of units, `stride` apart.
template <class T>
struct Source {
  const T* first;
  Index stride;
  int count;

  Lanes<T> operator()(int row, Index u) const { return Lanes<T>(load(first + row * stride + u)); }
};

template <class T>
struct Target {
  T* first;
  Index stride;
  int count;

  void set(int row, Index u, const Lanes<T>& value) const { store(first + row * stride + u, value.v); }
};

// Runs whole(n', sources, targets), which takes whole vectors of units, over n units. kSources and kTargets bound the
// rows of all sources and of all targets. Rows that are added to are sources too.
template <class T, int kSources, int kTargets, int kFrom, int kTo>
inline void over_units(Index n, const Source<T> (&sources)[kFrom], const Target<T> (&targets)[kTo],
                       void (*whole)(Index, const Source<T>*, const Target<T>*)) {
  constexpr int lanes = Lanes<T>::kCount;
  const Index done = n / lanes * lanes, rest = n - done;
  if (done > 0) whole(done, sources, targets);
  if (rest == 0) return;
  T from[kSources][lanes] = {}, to[kTargets][lanes];
  Source<T> padded_sources[kFrom];
  Target<T> padded_targets[kTo];
  T(*row)[lanes] = from;
  for (int i = 0; i < kFrom; ++i) {
    padded_sources[i] = {row[0], lanes, sources[i].count};
    for (int k = 0; k < sources[i].count; ++k, ++row)
      for (Index u = 0; u < rest; ++u) (*row)[u] = sources[i].first[k * sources[i].stride + done + u];
  }
  row = to;
  for (int i = 0; i < kTo; ++i) {
    padded_targets[i] = {row[0], lanes, targets[i].count};
    row += targets[i].count;
  }
  whole(lanes, padded_sources, padded_targets);
  for (int i = 0; i < kTo; ++i)
    for (int k = 0; k < targets[i].count; ++k)
      for (Index u = 0; u < rest; ++u)
        targets[i].first[k * targets[i].stride + done + u] = padded_targets[i].first[k * lanes + u];
}

template <class Cell, class T>
struct CellRows {
  using L = Lanes<T>;
  using Unit = UnitFunctions<Cell, L>;
  static constexpr int S = Unit::S, P = Unit::P, Q = Unit::Q, K = Unit::K;

  // All N rows at units u, u + 1, ..
  template <int N>
  static void take(const Source<T>& source, Index u, L* to) {
    for (int k = 0; k < N; ++k) to[k] = source(k, u);
  }
  template <int N>
  static void put(const L* from, Index u, const Target<T>& target) {
    for (int k = 0; k < N; ++k) target.set(k, u, from[k]);
  }
  // The arguments of a unit: pre-activations, states, parameters.
  static void take_arguments(const Source<T>& p, const Source<T>& s, const Source<T>& w, Index u, L* to) {
    take<P>(p, u, to);
    take<S>(s, u, to + P);
    take<Q>(w, u, to + P + S);
  }

  LSC_ONE_COPY static void step_whole(Index n, const Source<T>* sources, const Target<T>* targets) {
    const Source<T> p = sources[0], s = sources[1], w = sources[2];
    const Target<T> next = targets[0];
    for (Index u = 0; u < n; u += L::kCount) {
      L unit[K], result[S];
      take_arguments(p, s, w, u, unit);
      Unit::step(unit, result);
      put<S>(result, u, next);
    }
  }
  static void step(Index n, Index stride, const T* p, const T* s, Index state_stride, const T* w, T* next,
                   Index next_stride) {
    over_units<T, K, S>(n, {{p, stride, P}, {s, state_stride, S}, {w, stride, Q}}, {{next, next_stride, S}},
                        step_whole);
  }

  LSC_ONE_COPY static void linearize_whole(Index n, const Source<T>* sources, const Target<T>* targets) {
    const Source<T> p = sources[0], s = sources[1], w = sources[2];
    const Target<T> coefficients = targets[0];
    for (Index u = 0; u < n; u += L::kCount) {
      L unit[K], result[S * K];
      take_arguments(p, s, w, u, unit);
      Unit::linearize(unit, result);
      put<S * K>(result, u, coefficients);
    }
  }
  static void linearize(Index n, Index stride, const T* p, const T* s, Index state_stride, const T* w,
                        T* coefficients) {
    over_units<T, K, S * K>(n, {{p, stride, P}, {s, state_stride, S}, {w, stride, Q}}, {{coefficients, stride, S * K}},
                            linearize_whole);
  }

  LSC_ONE_COPY static void pull_whole(Index n, const Source<T>* sources, const Target<T>* targets) {
    const Source<T> p = sources[0], s = sources[1], w = sources[2], gradient = sources[3], before = sources[4];
    const Target<T> dp = targets[0], ds = targets[1], dw = targets[2];
    for (Index u = 0; u < n; u += L::kCount) {
      L unit[K], upstream[S], added[S], result[K];
      take_arguments(p, s, w, u, unit);
      take<S>(gradient, u, upstream);
      take<S>(before, u, added);
      Unit::pull(unit, upstream, added, result);
      put<P>(result, u, dp);
      put<S>(result + P, u, ds);
      put<Q>(result + P + S, u, dw);
    }
  }
  static void pull(Index n, Index stride, const T* p, const T* s, Index state_stride, const T* w, const T* u,
                   Index u_stride, T* dp, T* ds, Index ds_stride, T* dw) {
    over_units<T, K + 2 * S, K>(
        n, {{p, stride, P}, {s, state_stride, S}, {w, stride, Q}, {u, u_stride, S}, {ds, ds_stride, S}},
        {{dp, stride, P}, {ds, ds_stride, S}, {dw, stride, Q}}, pull_whole);
  }

  LSC_ONE_COPY static void second_order_whole(Index n, const Source<T>* sources, const Target<T>* targets) {
    const Source<T> p = sources[0], s = sources[1], w = sources[2], dp = sources[3], ds = sources[4],
                    weight = sources[5];
    const Target<T> q = targets[0], r = targets[1], m = targets[2];
    for (Index u = 0; u < n; u += L::kCount) {
      L unit[K], direction[P + S], upstream[S], result[K];
      take_arguments(p, s, w, u, unit);
      take<P>(dp, u, direction);
      take<S>(ds, u, direction + P);
      take<S>(weight, u, upstream);
      Unit::second_order(unit, direction, upstream, result);
      put<P>(result, u, q);
      put<S>(result + P, u, r);
      put<Q>(result + P + S, u, m);
    }
  }
  static void second_order(Index n, Index stride, const T* p, const T* s, Index state_stride, const T* w, const T* dp,
                           const T* ds, const T* u, T* q, T* r, T* m) {
    over_units<T, K + P + 2 * S, K>(
        n, {{p, stride, P}, {s, state_stride, S}, {w, stride, Q}, {dp, stride, P}, {ds, stride, S}, {u, stride, S}},
        {{q, stride, P}, {r, stride, S}, {m, stride, Q}}, second_order_whole);
  }

  LSC_ONE_COPY static void derive_linearize_whole(Index n, const Source<T>* sources, const Target<T>* targets) {
    const Source<T> s = sources[0], w = sources[1];
    const Target<T> slopes = targets[0];
    for (Index u = 0; u < n; u += L::kCount) {
      L unit[S + Q], result[S - 1 + Q];
      take<S>(s, u, unit);
      take<Q>(w, u, unit + S);
      Unit::derive_linearize(unit, result);
      put<S - 1 + Q>(result, u, slopes);
    }
  }
  static void derive_linearize(Index n, Index stride, const T* s, Index state_stride, const T* w, T* slopes) {
    over_units<T, S + Q, S + Q>(n, {{s, state_stride, S}, {w, stride, Q}}, {{slopes, stride, S - 1 + Q}},
                                derive_linearize_whole);
  }

  LSC_ONE_COPY static void derive_second_order_whole(Index n, const Source<T>* sources, const Target<T>* targets) {
    const Source<T> s = sources[0], w = sources[1], ds = sources[2], weight = sources[3], r_before = sources[4],
                    m_before = sources[5];
    const Target<T> r = targets[0], m = targets[1];
    for (Index u = 0; u < n; u += L::kCount) {
      L unit[S + Q], direction[S], result[S + Q];
      take<S>(s, u, unit);
      take<Q>(w, u, unit + S);
      take<S>(ds, u, direction);
      take<S>(r_before, u, result);
      take<Q>(m_before, u, result + S);
      Unit::derive_second_order(unit, direction, weight(0, u), result);
      put<S>(result, u, r);
      put<Q>(result + S, u, m);
    }
  }
  static void derive_second_order(Index n, Index stride, const T* s, Index state_stride, const T* w, const T* ds,
                                  const T* u, T* r, T* m) {
    over_units<T, 3 * S + 2 * Q + 1, S + Q>(
        n, {{s, state_stride, S}, {w, stride, Q}, {ds, stride, S}, {u, stride, 1}, {r, stride, S}, {m, stride, Q}},
        {{r, stride, S}, {m, stride, Q}}, derive_second_order_whole);
  }

  static constexpr CellKernels<T> table() {
    if constexpr (Cell::kDerived)
      return {step, linearize, pull, second_order, derive_linearize, derive_second_order};
    else
      return {step, linearize, pull, second_order, nullptr, nullptr};
  }
};

template <class List>
struct CellTable;

// Whether every pre-activation comes from at least one product.
constexpr bool all_fed(const Feed* feeds, int count) {
  for (int k = 0; k < count; ++k)
    if (feeds[k].input == kNone && feeds[k].recurrent == kNone) return false;
  return true;
}

template <class... Cells>
struct CellTable<CellList<Cells...>> {
  static_assert(((Cells::kStates <= kMaxStates && Cells::kPreactivations <= kMaxPreactivations &&
                  Cells::kUnitParameters <= kMaxUnitParameters && all_fed(Cells::kFeeds, Cells::kPreactivations)) &&
                 ...));
  static constexpr cpu::CompiledCell kCells[] = {
      {Cells::kName, Cells::kStates, Cells::kPreactivations, Cells::kUnitParameters, Cells::kDerived, Cells::kFeeds,
       CellRows<Cells, float>::table(), CellRows<Cells, double>::table()}...};
  static constexpr cpu::CompiledCells kTable = {kCells, sizeof...(Cells)};
};

}  // namespace LSC_ISA
}  // namespace lsc

#undef LSC_ONE_COPY
