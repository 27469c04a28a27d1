// A cell's row functions, each an evaluation of its `step` or `derive` on another number type, a vector of units at a
// time.
//
// A unit meets the same instructions wherever in a row it stands: what is left of a row after its whole vectors is
// padded to one and goes through the very same function. So any split of a row gives the same numbers, bit for bit.
#pragma once

#include "cpu/dispatch.h"
#include "cpu/lanes.h"
#include "lsc/cell.h"

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
  static constexpr int S = Cell::kStates, P = Cell::kPreactivations, Q = Cell::kUnitParameters, K = P + S + Q;
  using L = Lanes<T>;

  // Argument k of a unit: a pre-activation, a state or a parameter.
  static L argument(int k, Index u, const Source<T>& p, const Source<T>& s, const Source<T>& w) {
    return k < P ? p(k, u) : k < P + S ? s(k - P, u) : w(k - P - S, u);
  }

  LSC_ONE_COPY static void step_whole(Index n, const Source<T>* sources, const Target<T>* targets) {
    const Source<T> p = sources[0], s = sources[1], w = sources[2];
    const Target<T> next = targets[0];
    for (Index u = 0; u < n; u += L::kCount) {
      L unit[K], unit_next[S];
      for (int k = 0; k < K; ++k) unit[k] = argument(k, u, p, s, w);
      Cell::step(unit, unit + P, unit + P + S, unit_next);
      for (int i = 0; i < S; ++i) next.set(i, u, unit_next[i]);
    }
  }
  static void step(Index n, Index stride, const T* p, const T* s, Index state_stride, const T* w, T* next,
                   Index next_stride) {
    over_units<T, K, S>(n, {{p, stride, P}, {s, state_stride, S}, {w, stride, Q}}, {{next, next_stride, S}},
                        step_whole);
  }

  // One evaluation with a direction for every argument gives the whole local Jacobian.
  static void evaluate(Index u, const Source<T>& p, const Source<T>& s, const Source<T>& w, Dual<L, K>* next) {
    Dual<L, K> unit[K];
    for (int k = 0; k < K; ++k) {
      unit[k] = Dual<L, K>(0.0);
      unit[k].value = argument(k, u, p, s, w);
      unit[k].partial[k] = L(1.0);
    }
    Cell::step(unit, unit + P, unit + P + S, next);
  }

  LSC_ONE_COPY static void linearize_whole(Index n, const Source<T>* sources, const Target<T>* targets) {
    const Source<T> p = sources[0], s = sources[1], w = sources[2];
    const Target<T> coefficients = targets[0];
    for (Index u = 0; u < n; u += L::kCount) {
      Dual<L, K> next[S];
      evaluate(u, p, s, w, next);
      for (int i = 0; i < S; ++i)
        for (int k = 0; k < K; ++k) coefficients.set(i * K + k, u, next[i].partial[k]);
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
      Dual<L, K> next[S];
      evaluate(u, p, s, w, next);
      L weight[S];
      for (int i = 0; i < S; ++i) weight[i] = gradient(i, u);
      for (int k = 0; k < K; ++k) {
        const int first = k >= P && k < P + S ? 0 : 1;
        L sum = first == 0 ? before(k - P, u) : weight[0] * next[0].partial[k];
        for (int i = first; i < S; ++i) sum = sum + weight[i] * next[i].partial[k];
        if (k < P)
          dp.set(k, u, sum);
        else if (k < P + S)
          ds.set(k - P, u, sum);
        else
          dw.set(k - P - S, u, sum);
      }
    }
  }
  static void pull(Index n, Index stride, const T* p, const T* s, Index state_stride, const T* w, const T* u,
                   Index u_stride, T* dp, T* ds, Index ds_stride, T* dw) {
    over_units<T, K + 2 * S, K>(
        n, {{p, stride, P}, {s, state_stride, S}, {w, stride, Q}, {u, u_stride, S}, {ds, ds_stride, S}},
        {{dp, stride, P}, {ds, ds_stride, S}, {dw, stride, Q}}, pull_whole);
  }

  // Inner dual: along (dp, ds). Outer dual: one direction for every argument.
  LSC_ONE_COPY static void second_order_whole(Index n, const Source<T>* sources, const Target<T>* targets) {
    using Inner = Dual<L, 1>;
    using Outer = Dual<Inner, K>;
    const Source<T> p = sources[0], s = sources[1], w = sources[2], dp = sources[3], ds = sources[4],
                    weight = sources[5];
    const Target<T> q = targets[0], r = targets[1], m = targets[2];
    for (Index u = 0; u < n; u += L::kCount) {
      Outer unit[K], next[S];
      for (int k = 0; k < K; ++k) {
        unit[k] = Outer(0.0);
        unit[k].value.value = argument(k, u, p, s, w);
        if (k < P + S) unit[k].value.partial[0] = k < P ? dp(k, u) : ds(k - P, u);
        unit[k].partial[k] = Inner(1.0);
      }
      Cell::step(unit, unit + P, unit + P + S, next);
      for (int k = 0; k < K; ++k) {
        L sum = weight(0, u) * next[0].partial[k].partial[0];
        for (int i = 1; i < S; ++i) sum = sum + weight(i, u) * next[i].partial[k].partial[0];
        if (k < P)
          q.set(k, u, sum);
        else if (k < P + S)
          r.set(k - P, u, sum);
        else
          m.set(k - P - S, u, sum);
      }
    }
  }
  static void second_order(Index n, Index stride, const T* p, const T* s, Index state_stride, const T* w, const T* dp,
                           const T* ds, const T* u, T* q, T* r, T* m) {
    over_units<T, K + P + 2 * S, K>(
        n, {{p, stride, P}, {s, state_stride, S}, {w, stride, Q}, {dp, stride, P}, {ds, stride, S}, {u, stride, S}},
        {{q, stride, P}, {r, stride, S}, {m, stride, Q}}, second_order_whole);
  }

  LSC_ONE_COPY static void derive_linearize_whole(Index n, const Source<T>* sources, const Target<T>* targets) {
    using D = Dual<L, S + Q>;
    const Source<T> s = sources[0], w = sources[1];
    const Target<T> slopes = targets[0];
    for (Index u = 0; u < n; u += L::kCount) {
      D unit[S + Q];
      for (int k = 0; k < S + Q; ++k) {
        unit[k] = D(0.0);
        unit[k].value = k < S ? s(k, u) : w(k - S, u);
        unit[k].partial[k] = L(1.0);
      }
      const D derived = Cell::derive(unit, unit + S);
      for (int j = 1; j < S + Q; ++j) slopes.set(j - 1, u, derived.partial[j]);
    }
  }
  static void derive_linearize(Index n, Index stride, const T* s, Index state_stride, const T* w, T* slopes) {
    over_units<T, S + Q, S + Q>(n, {{s, state_stride, S}, {w, stride, Q}}, {{slopes, stride, S - 1 + Q}},
                                derive_linearize_whole);
  }

  LSC_ONE_COPY static void derive_second_order_whole(Index n, const Source<T>* sources, const Target<T>* targets) {
    using Inner = Dual<L, 1>;
    using Outer = Dual<Inner, S + Q>;
    const Source<T> s = sources[0], w = sources[1], ds = sources[2], weight = sources[3], r_before = sources[4],
                    m_before = sources[5];
    const Target<T> r = targets[0], m = targets[1];
    for (Index u = 0; u < n; u += L::kCount) {
      Outer unit[S + Q];
      for (int k = 0; k < S + Q; ++k) {
        unit[k] = Outer(0.0);
        unit[k].value.value = k < S ? s(k, u) : w(k - S, u);
        if (k > 0 && k < S) unit[k].value.partial[0] = ds(k, u);
        unit[k].partial[k] = Inner(1.0);
      }
      const Outer derived = Cell::derive(unit, unit + S);
      for (int k = 0; k < S; ++k) r.set(k, u, r_before(k, u) + weight(0, u) * derived.partial[k].partial[0]);
      for (int k = 0; k < Q; ++k) m.set(k, u, m_before(k, u) + weight(0, u) * derived.partial[S + k].partial[0]);
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
