// Li et al., "Independently recurrent neural network (IndRNN)", 2018: each unit feeds back to itself alone.
#pragma once

#include "lsc/cell.h"

namespace lsc {
inline namespace LSC_ISA {
namespace cells::ind_rnn {

struct IndRnn : GatedCell {
  static constexpr const char* kName = "ind_rnn";
  static constexpr int kStates = 1;
  static constexpr int kPreactivations = 1;
  static constexpr int kUnitParameters = 1;  // u, the recurrent weight
  static constexpr Feed kFeeds[1] = {{0, kNone}};

  template <class T>
  LSC_HD static void step(const T* p, const T* s, const T* w, T* next) {
    next[0] = relu(p[0] + w[0] * s[0]);
  }
};

using Exported = CellList<IndRnn>;

}  // namespace cells::ind_rnn
}  // namespace LSC_ISA
}  // namespace lsc
