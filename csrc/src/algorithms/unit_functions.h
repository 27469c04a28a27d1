// What algorithms ask of one unit of a cell, each an evaluation of its `step` or `derive` on another number type.
// V is a number, or a vector of them for as many units.
//
// The K = P + S + Q arguments of a unit stand side by side: pre-activations, states, parameters. S, P, Q as in
// lsc/cell.h.
#pragma once

#include "lsc/cell.h"
#include "lsc/host_device.h"

namespace lsc {
inline namespace LSC_ISA {

template <class Cell, class V>
struct UnitFunctions {
  static constexpr int S = Cell::kStates, P = Cell::kPreactivations, Q = Cell::kUnitParameters, K = P + S + Q;

  LSC_HD static void step(const V* unit, V* next) { Cell::step(unit, unit + P, unit + P + S, next); }

  // coefficients [S, K] = d next / d arguments: one evaluation with a direction for every argument.
  LSC_HD static void linearize(const V* unit, V* coefficients) {
    Dual<V, K> next[S];
    evaluate(unit, next);
    for (int i = 0; i < S; ++i)
      for (int k = 0; k < K; ++k) coefficients[i * K + k] = next[i].partial[k];
  }

  // The transpose of that Jacobian on u [S]: target [P + S + Q], to whose S states what they hold is added.
  LSC_HD static void pull(const V* unit, const V* u, const V* before, V* target) {
    Dual<V, K> next[S];
    evaluate(unit, next);
    for (int k = 0; k < K; ++k) {
      const int first = k >= P && k < P + S ? 0 : 1;
      V sum = first == 0 ? before[k - P] : u[0] * next[0].partial[k];
      for (int i = first; i < S; ++i) sum = sum + u[i] * next[i].partial[k];
      target[k] = sum;
    }
  }

  // phi = sum_i u_i (d next_i along direction [P + S]): target [K] = d phi / d arguments. The inner dual goes along the
  // direction, the outer one has a direction for every argument.
  LSC_HD static void second_order(const V* unit, const V* direction, const V* u, V* target) {
    using Inner = Dual<V, 1>;
    using Outer = Dual<Inner, K>;
    Outer arguments[K], next[S];
    for (int k = 0; k < K; ++k) {
      arguments[k] = Outer(0.0);
      arguments[k].value.value = unit[k];
      if (k < P + S) arguments[k].value.partial[0] = direction[k];
      arguments[k].partial[k] = Inner(1.0);
    }
    Cell::step(arguments, arguments + P, arguments + P + S, next);
    for (int k = 0; k < K; ++k) {
      V sum = u[0] * next[0].partial[k].partial[0];
      for (int i = 1; i < S; ++i) sum = sum + u[i] * next[i].partial[k].partial[0];
      target[k] = sum;
    }
  }

  // Of a cell whose state 0 is derived, from its S states and Q parameters: slopes [S - 1 + Q] = d state 0 / d the
  // others, then / d parameters.
  LSC_HD static void derive_linearize(const V* unit, V* slopes) {
    using D = Dual<V, S + Q>;
    D arguments[S + Q];
    for (int k = 0; k < S + Q; ++k) {
      arguments[k] = D(0.0);
      arguments[k].value = unit[k];
      arguments[k].partial[k] = V(1.0);
    }
    const D derived = Cell::derive(arguments, arguments + S);
    for (int j = 1; j < S + Q; ++j) slopes[j - 1] = derived.partial[j];
  }

  // phi = u (d state 0 along ds [S], without its element 0): target [S + Q] += d phi / d states and parameters.
  LSC_HD static void derive_second_order(const V* unit, const V* ds, const V& u, V* target) {
    using Inner = Dual<V, 1>;
    using Outer = Dual<Inner, S + Q>;
    Outer arguments[S + Q];
    for (int k = 0; k < S + Q; ++k) {
      arguments[k] = Outer(0.0);
      arguments[k].value.value = unit[k];
      if (k > 0 && k < S) arguments[k].value.partial[0] = ds[k];
      arguments[k].partial[k] = Inner(1.0);
    }
    const Outer derived = Cell::derive(arguments, arguments + S);
    for (int k = 0; k < S + Q; ++k) target[k] = target[k] + u * derived.partial[k].partial[0];
  }

 private:
  LSC_HD static void evaluate(const V* unit, Dual<V, K>* next) {
    Dual<V, K> arguments[K];
    for (int k = 0; k < K; ++k) {
      arguments[k] = Dual<V, K>(0.0);
      arguments[k].value = unit[k];
      arguments[k].partial[k] = V(1.0);
    }
    Cell::step(arguments, arguments + P, arguments + P + S, next);
  }
};

}  // namespace LSC_ISA
}  // namespace lsc
