// Hochreiter & Schmidhuber 1997 with forget gates (Gers et al. 2000); gates in torch's order i, f, g, o; states h, c.
#pragma once

#include "lsc/cell.h"

namespace lsc {
inline namespace LSC_ISA {
namespace cells::lstm {

struct Lstm : GatedCell {
  static constexpr const char* kName = "lstm";
  static constexpr int kStates = 2;
  static constexpr int kPreactivations = 4;
  static constexpr Feed kFeeds[4] = {{0, 0}, {1, 1}, {2, 2}, {3, 3}};

  template <class T>
  LSC_HD static void step(const T* p, const T* s, const T*, T* next) {
    const T i = sigmoid(p[0]);
    const T f = sigmoid(p[1]);
    const T g = tanh(p[2]);
    const T o = sigmoid(p[3]);
    const T c = f * s[1] + i * g;
    next[0] = o * tanh(c);
    next[1] = c;
  }
};

using Exported = CellList<Lstm>;

}  // namespace cells::lstm
}  // namespace LSC_ISA
}  // namespace lsc
