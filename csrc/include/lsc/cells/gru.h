// Cho et al. 2014 in torch's form: gates r, z, n; r multiplies the recurrent product of n after its bias is added.
#pragma once

#include "lsc/cell.h"

namespace lsc {
inline namespace LSC_ISA {
namespace cells::gru {

struct Gru : GatedCell {
  static constexpr const char* kName = "gru";
  static constexpr int kStates = 1;
  static constexpr int kPreactivations = 4;
  static constexpr Feed kFeeds[4] = {{0, 0}, {1, 1}, {2, kNone}, {kNone, 2}};

  template <class T>
  LSC_HD static void step(const T* p, const T* s, const T*, T* next) {
    const T r = sigmoid(p[0]);
    const T z = sigmoid(p[1]);
    const T n = tanh(p[2] + r * p[3]);
    next[0] = n + z * (s[0] - n);
  }
};

using Exported = CellList<Gru>;

}  // namespace cells::gru
}  // namespace LSC_ISA
}  // namespace lsc
