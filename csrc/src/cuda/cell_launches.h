// The kernels of a cell, made from its header. One thread takes one unit of one row.
#pragma once

#include "algorithms/unit_functions.h"
#include "cuda/cells.h"
#include "cuda/launch.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

inline constexpr int kUnitsPerBlock = 128;

// The unit that a thread takes; row < 0 where there is none.
struct Place {
  Index row, u;
};
LSC_DEVICE Place place(Index count, Index H) {
  const Index i = Index(block()) * threads() + thread();
  return i < count * H ? Place{i / H, i % H} : Place{-1, 0};
}

template <int N, class T>
LSC_DEVICE void load(const UnitArray<const T>& from, const Place& at, T* to) {
  for (int k = 0; k < N; ++k) to[k] = from.data[from.rows.offset(at.row) + k * from.part + at.u];
}
template <int N, class T>
LSC_DEVICE void load(const UnitArray<T>& from, const Place& at, T* to) {
  for (int k = 0; k < N; ++k) to[k] = from.data[from.rows.offset(at.row) + k * from.part + at.u];
}
template <int N, class T>
LSC_DEVICE void store(const T* from, const Place& at, const UnitArray<T>& to) {
  for (int k = 0; k < N; ++k) to.data[to.rows.offset(at.row) + k * to.part + at.u] = from[k];
}
template <int N, class T>
LSC_DEVICE void load_parameters(const T* w, Index H, Index u, T* to) {
  for (int k = 0; k < N; ++k) to[k] = w[k * H + u];
}

template <class Cell, class T>
struct CellRows {
  using Unit = UnitFunctions<Cell, T>;
  using In = UnitArray<const T>;
  using Out = UnitArray<T>;
  static constexpr int S = Unit::S, P = Unit::P, Q = Unit::Q, K = Unit::K;

  LSC_DEVICE static void arguments(const Place& at, Index H, const In& p, const In& s, const T* w, T* unit) {
    load<P>(p, at, unit);
    load<S>(s, at, unit + P);
    load_parameters<Q>(w, H, at.u, unit + P + S);
  }
};

template <class Cell, class T>
LSC_KERNEL step_kernel(Index count, Index H, UnitArray<const T> p, UnitArray<const T> s, const T* w,
                       UnitArray<T> next) {
  using Rows = CellRows<Cell, T>;
  const Place at = place(count, H);
  if (at.row < 0) return;
  T unit[Rows::K], target[Rows::S];
  Rows::arguments(at, H, p, s, w, unit);
  Rows::Unit::step(unit, target);
  store<Rows::S>(target, at, next);
}

template <class Cell, class T>
LSC_KERNEL linearize_kernel(Index count, Index H, UnitArray<const T> p, UnitArray<const T> s, const T* w,
                            UnitArray<T> coefficients) {
  using Rows = CellRows<Cell, T>;
  const Place at = place(count, H);
  if (at.row < 0) return;
  T unit[Rows::K], target[Rows::S * Rows::K];
  Rows::arguments(at, H, p, s, w, unit);
  Rows::Unit::linearize(unit, target);
  store<Rows::S * Rows::K>(target, at, coefficients);
}

template <class Cell, class T>
LSC_KERNEL pull_kernel(Index count, Index H, UnitArray<const T> p, UnitArray<const T> s, const T* w,
                       UnitArray<const T> u, UnitArray<T> dp, UnitArray<T> ds, UnitArray<T> dw) {
  using Rows = CellRows<Cell, T>;
  const Place at = place(count, H);
  if (at.row < 0) return;
  T unit[Rows::K], upstream[Rows::S], before[Rows::S], target[Rows::K];
  Rows::arguments(at, H, p, s, w, unit);
  load<Rows::S>(u, at, upstream);
  load<Rows::S>(ds, at, before);
  Rows::Unit::pull(unit, upstream, before, target);
  store<Rows::P>(target, at, dp);
  store<Rows::S>(target + Rows::P, at, ds);
  store<Rows::Q>(target + Rows::P + Rows::S, at, dw);
}

template <class Cell, class T>
LSC_KERNEL second_order_kernel(Index count, Index H, UnitArray<const T> p, UnitArray<const T> s, const T* w,
                               UnitArray<const T> dp, UnitArray<const T> ds, UnitArray<const T> u, UnitArray<T> q,
                               UnitArray<T> r, UnitArray<T> m) {
  using Rows = CellRows<Cell, T>;
  const Place at = place(count, H);
  if (at.row < 0) return;
  T unit[Rows::K], direction[Rows::P + Rows::S], upstream[Rows::S], target[Rows::K];
  Rows::arguments(at, H, p, s, w, unit);
  load<Rows::P>(dp, at, direction);
  load<Rows::S>(ds, at, direction + Rows::P);
  load<Rows::S>(u, at, upstream);
  Rows::Unit::second_order(unit, direction, upstream, target);
  store<Rows::P>(target, at, q);
  store<Rows::S>(target + Rows::P, at, r);
  store<Rows::Q>(target + Rows::P + Rows::S, at, m);
}

template <class Cell, class T>
LSC_KERNEL derive_linearize_kernel(Index count, Index H, UnitArray<const T> s, const T* w, UnitArray<T> slopes) {
  using Rows = CellRows<Cell, T>;
  const Place at = place(count, H);
  if (at.row < 0) return;
  T unit[Rows::S + Rows::Q], target[Rows::S - 1 + Rows::Q];
  load<Rows::S>(s, at, unit);
  load_parameters<Rows::Q>(w, H, at.u, unit + Rows::S);
  Rows::Unit::derive_linearize(unit, target);
  store<Rows::S - 1 + Rows::Q>(target, at, slopes);
}

template <class Cell, class T>
LSC_KERNEL derive_second_order_kernel(Index count, Index H, UnitArray<const T> s, const T* w, UnitArray<const T> ds,
                                      UnitArray<const T> u, UnitArray<T> r, UnitArray<T> m) {
  using Rows = CellRows<Cell, T>;
  const Place at = place(count, H);
  if (at.row < 0) return;
  T unit[Rows::S + Rows::Q], direction[Rows::S], upstream[1], target[Rows::S + Rows::Q];
  load<Rows::S>(s, at, unit);
  load_parameters<Rows::Q>(w, H, at.u, unit + Rows::S);
  load<Rows::S>(ds, at, direction);
  load<1>(u, at, upstream);
  load<Rows::S>(r, at, target);
  load<Rows::Q>(m, at, target + Rows::S);
  Rows::Unit::derive_second_order(unit, direction, upstream[0], target);
  store<Rows::S>(target, at, r);
  store<Rows::Q>(target + Rows::S, at, m);
}

template <class Cell, class T>
struct CellLauncher {
  using In = UnitArray<const T>;
  using Out = UnitArray<T>;

  template <class... P, class... A>
  static void over_units(const Execution& execution, const char* name, Index count, Index H, void (*kernel)(P...),
                         const A&... arguments) {
    launch(execution, {name, {covering(count * H, kUnitsPerBlock)}, kUnitsPerBlock}, kernel, count, H, arguments...);
  }
  static void step(const Execution& execution, Index count, Index H, In p, In s, const T* w, Out next) {
    over_units(execution, "step", count, H, step_kernel<Cell, T>, p, s, w, next);
  }
  static void linearize(const Execution& execution, Index count, Index H, In p, In s, const T* w, Out coefficients) {
    over_units(execution, "linearize", count, H, linearize_kernel<Cell, T>, p, s, w, coefficients);
  }
  static void pull(const Execution& execution, Index count, Index H, In p, In s, const T* w, In u, Out dp, Out ds,
                   Out dw) {
    over_units(execution, "pull", count, H, pull_kernel<Cell, T>, p, s, w, u, dp, ds, dw);
  }
  static void second_order(const Execution& execution, Index count, Index H, In p, In s, const T* w, In dp, In ds, In u,
                           Out q, Out r, Out m) {
    over_units(execution, "second_order", count, H, second_order_kernel<Cell, T>, p, s, w, dp, ds, u, q, r, m);
  }
  static void derive_linearize(const Execution& execution, Index count, Index H, In s, const T* w, Out slopes) {
    over_units(execution, "derive_linearize", count, H, derive_linearize_kernel<Cell, T>, s, w, slopes);
  }
  static void derive_second_order(const Execution& execution, Index count, Index H, In s, const T* w, In ds, In u,
                                  Out r, Out m) {
    over_units(execution, "derive_second_order", count, H, derive_second_order_kernel<Cell, T>, s, w, ds, u, r, m);
  }

  static constexpr CellLaunches<T> table() {
    if constexpr (Cell::kDerived)
      return {step, linearize, pull, second_order, derive_linearize, derive_second_order};
    else
      return {step, linearize, pull, second_order, nullptr, nullptr};
  }
};

template <class List>
struct CellTable;
template <class... Cells>
struct CellTable<CellList<Cells...>> {
  static constexpr CompiledCell kCells[] = {
      {Cells::kName, CellLauncher<Cells, float>::table(), CellLauncher<Cells, double>::table()}...};
  static constexpr CompiledCells kTable = {kCells, sizeof...(Cells)};
};

}  // namespace LSC_ISA
}  // namespace lsc::cuda
