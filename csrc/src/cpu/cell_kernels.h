// A cell's row functions, each an evaluation of its `step` or `derive` on another number type.
#pragma once

#include "cpu/dispatch.h"
#include "lsc/cell.h"

namespace lsc {
inline namespace LSC_ISA {

template <class Cell, class T>
struct CellRows {
  static constexpr int S = Cell::kStates, P = Cell::kPreactivations, Q = Cell::kUnitParameters, K = P + S + Q;

  // Argument k of unit u: a pre-activation, a state or a parameter.
  static T argument(int k, Index u, Index H, const T* p, const T* s, Index state_stride, const T* w) {
    return k < P ? p[k * H + u] : k < P + S ? s[(k - P) * state_stride + u] : w[(k - P - S) * H + u];
  }

  static void step(Index H, const T* p, const T* s, Index state_stride, const T* w, T* next, Index next_stride) {
    for (Index u = 0; u < H; ++u) {
      T unit[K], unit_next[S];
      for (int k = 0; k < K; ++k) unit[k] = argument(k, u, H, p, s, state_stride, w);
      Cell::step(unit, unit + P, unit + P + S, unit_next);
      for (int i = 0; i < S; ++i) next[i * next_stride + u] = unit_next[i];
    }
  }

  // One evaluation with a direction for every argument gives the whole local Jacobian.
  static void linearize(Index H, const T* p, const T* s, Index state_stride, const T* w, T* coefficients) {
    using D = Dual<T, K>;
    for (Index u = 0; u < H; ++u) {
      D unit[K], next[S];
      for (int k = 0; k < K; ++k) {
        unit[k] = D(0.0);
        unit[k].value = argument(k, u, H, p, s, state_stride, w);
        unit[k].partial[k] = T(1);
      }
      Cell::step(unit, unit + P, unit + P + S, next);
      for (int i = 0; i < S; ++i)
        for (int k = 0; k < K; ++k) coefficients[(i * K + k) * H + u] = next[i].partial[k];
    }
  }

  // Inner dual: along (dp, ds). Outer dual: one direction for every argument.
  static void second_order(Index H, const T* p, const T* s, Index state_stride, const T* w, const T* dp, const T* ds,
                           const T* u_rows, T* q, T* r, T* m) {
    using Inner = Dual<T, 1>;
    using Outer = Dual<Inner, K>;
    for (Index u = 0; u < H; ++u) {
      Outer unit[K], next[S];
      for (int k = 0; k < K; ++k) {
        unit[k] = Outer(0.0);
        unit[k].value.value = argument(k, u, H, p, s, state_stride, w);
        unit[k].value.partial[0] = k < P ? dp[k * H + u] : k < P + S ? ds[(k - P) * H + u] : T(0);
        unit[k].partial[k] = Inner(1.0);
      }
      Cell::step(unit, unit + P, unit + P + S, next);
      for (int k = 0; k < K; ++k) {
        T gradient = T(0);
        for (int i = 0; i < S; ++i) gradient += u_rows[i * H + u] * next[i].partial[k].partial[0];
        (k < P ? q[k * H + u] : k < P + S ? r[(k - P) * H + u] : m[(k - P - S) * H + u]) = gradient;
      }
    }
  }

  static void derive_linearize(Index H, const T* s, Index state_stride, const T* w, T* slopes) {
    using D = Dual<T, S + Q>;
    for (Index u = 0; u < H; ++u) {
      D unit[S + Q];
      for (int k = 0; k < S + Q; ++k) {
        unit[k] = D(0.0);
        unit[k].value = argument(P + k, u, H, nullptr, s, state_stride, w);
        unit[k].partial[k] = T(1);
      }
      const D derived = Cell::derive(unit, unit + S);
      for (int j = 1; j < S + Q; ++j) slopes[(j - 1) * H + u] = derived.partial[j];
    }
  }

  static void derive_second_order(Index H, const T* s, Index state_stride, const T* w, const T* ds, const T* u_row,
                                  T* r, T* m) {
    using Inner = Dual<T, 1>;
    using Outer = Dual<Inner, S + Q>;
    for (Index u = 0; u < H; ++u) {
      Outer unit[S + Q];
      for (int k = 0; k < S + Q; ++k) {
        unit[k] = Outer(0.0);
        unit[k].value.value = argument(P + k, u, H, nullptr, s, state_stride, w);
        unit[k].value.partial[0] = k > 0 && k < S ? ds[k * H + u] : T(0);
        unit[k].partial[k] = Inner(1.0);
      }
      const Outer derived = Cell::derive(unit, unit + S);
      for (int k = 0; k < S + Q; ++k)
        (k < S ? r[k * H + u] : m[(k - S) * H + u]) += u_row[u] * derived.partial[k].partial[0];
    }
  }

  static constexpr CellKernels<T> table() {
    if constexpr (Cell::kDerived)
      return {step, linearize, second_order, derive_linearize, derive_second_order};
    else
      return {step, linearize, second_order, nullptr, nullptr};
  }
};

template <class List>
struct CellTable;

template <class... Cells>
struct CellTable<CellList<Cells...>> {
  static_assert(((Cells::kStates <= kMaxStates && Cells::kPreactivations <= kMaxPreactivations &&
                  Cells::kUnitParameters <= kMaxUnitParameters) &&
                 ...));
  static constexpr cpu::CompiledCell kCells[] = {
      {Cells::kName, Cells::kStates, Cells::kPreactivations, Cells::kUnitParameters, Cells::kDerived, Cells::kFeeds,
       CellRows<Cells, float>::table(), CellRows<Cells, double>::table()}...};
  static constexpr cpu::CompiledCells kTable = {kCells, sizeof...(Cells)};
};

}  // namespace LSC_ISA
}  // namespace lsc
