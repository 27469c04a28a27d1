// A cell's three row functions, each an evaluation of its `step` on another number type.
#pragma once

#include "cpu/dispatch.h"
#include "lsc/cell.h"

namespace lsc {
inline namespace LSC_ISA {

template <class Cell, class T>
struct CellRows {
  static constexpr int S = Cell::kStates, P = Cell::kPreactivations, K = P + S;

  static void step(Index H, const T* p, const T* s, Index state_stride, T* next, Index next_stride) {
    for (Index u = 0; u < H; ++u) {
      T unit_p[P], unit_s[S], unit_next[S];
      for (int k = 0; k < P; ++k) unit_p[k] = p[k * H + u];
      for (int j = 0; j < S; ++j) unit_s[j] = s[j * state_stride + u];
      Cell::step(unit_p, unit_s, unit_next);
      for (int i = 0; i < S; ++i) next[i * next_stride + u] = unit_next[i];
    }
  }

  // One evaluation with a direction for every argument gives the whole local Jacobian.
  static void linearize(Index H, const T* p, const T* s, Index state_stride, T* coefficients) {
    using D = Dual<T, K>;
    for (Index u = 0; u < H; ++u) {
      D argument[K], next[S];
      for (int k = 0; k < K; ++k) {
        argument[k] = D(0.0);
        argument[k].value = k < P ? p[k * H + u] : s[(k - P) * state_stride + u];
        argument[k].partial[k] = T(1);
      }
      Cell::step(argument, argument + P, next);
      for (int i = 0; i < S; ++i)
        for (int k = 0; k < K; ++k) coefficients[(i * K + k) * H + u] = next[i].partial[k];
    }
  }

  // Inner dual: along (dp, ds). Outer dual: one direction for every argument.
  static void second_order(Index H, const T* p, const T* s, Index state_stride, const T* dp, const T* ds,
                           const T* u_rows, T* q, T* r) {
    using Inner = Dual<T, 1>;
    using Outer = Dual<Inner, K>;
    for (Index u = 0; u < H; ++u) {
      Outer argument[K], next[S];
      for (int k = 0; k < K; ++k) {
        argument[k] = Outer(0.0);
        argument[k].value.value = k < P ? p[k * H + u] : s[(k - P) * state_stride + u];
        argument[k].value.partial[0] = k < P ? dp[k * H + u] : ds[(k - P) * H + u];
        argument[k].partial[k] = Inner(1.0);
      }
      Cell::step(argument, argument + P, next);
      for (int k = 0; k < K; ++k) {
        T gradient = T(0);
        for (int i = 0; i < S; ++i) gradient += u_rows[i * H + u] * next[i].partial[k].partial[0];
        (k < P ? q[k * H + u] : r[(k - P) * H + u]) = gradient;
      }
    }
  }

  static constexpr CellKernels<T> kTable = {step, linearize, second_order};
};

template <class List>
struct CellTable;

template <class... Cells>
struct CellTable<CellList<Cells...>> {
  static_assert(((Cells::kStates <= kMaxStates && Cells::kPreactivations <= kMaxPreactivations) && ...));
  static constexpr cpu::CompiledCell kCells[] = {{Cells::kName, Cells::kStates, Cells::kPreactivations, Cells::kFeeds,
                                                  CellRows<Cells, float>::kTable, CellRows<Cells, double>::kTable}...};
  static constexpr cpu::CompiledCells kTable = {kCells, sizeof...(Cells)};
};

}  // namespace LSC_ISA
}  // namespace lsc
