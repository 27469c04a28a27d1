// Feng et al., "Were RNNs all we needed?", 2024: gate z and candidate see the input only, so the recurrence is
// diagonal.
#pragma once

#include "lsc/cell.h"

namespace lsc {
inline namespace LSC_ISA {
namespace cells::min_gru {

struct MinGru : GatedCell {
  static constexpr const char* kName = "min_gru";
  static constexpr int kStates = 1;
  static constexpr int kPreactivations = 2;
  static constexpr Feed kFeeds[2] = {{0, kNone}, {1, kNone}};

  template <class T>
  LSC_HD static void step(const T* p, const T* s, const T*, T* next) {
    const T z = sigmoid(p[0]);
    next[0] = s[0] + z * (p[1] - s[0]);
  }
};

using Exported = CellList<MinGru>;

}  // namespace cells::min_gru
}  // namespace LSC_ISA
}  // namespace lsc
