// Spiking neurons: LIF, and ALIF of Bellec et al., "Long short-term memory and learning-to-learn in networks of spiking
// neurons", 2018, with a smooth decay of the threshold (Herranz-Celotti & Rouat, arXiv 2308.12075). State 0 is the
// spike z; it follows from the others, so the Jacobians are those of (v) or (v, a) with the path through the spike
// inside. The reset is data: no derivative goes through it. ALIF with a bipolar beta is the same step from other
// parameters.
#pragma once

#include "lsc/cell.h"

namespace lsc {
inline namespace LSC_ISA {
namespace cells::spiking {

struct Lif : GatedCell {
  static constexpr const char* kName = "lif";
  static constexpr int kStates = 2;  // z, v
  static constexpr int kPreactivations = 1;
  static constexpr int kUnitParameters = 2;  // decay of v, threshold
  static constexpr bool kDerived = true;
  static constexpr Feed kFeeds[1] = {{0, 0}};

  template <class T>
  LSC_HD static T derive(const T* s, const T* w) {
    return spike(s[1] - w[1]);
  }
  template <class T>
  LSC_HD static void step(const T* p, const T* s, const T* w, T* next) {
    next[1] = w[0] * s[1] + p[0] - detach(w[1] * s[0]);
    next[0] = derive(next, w);
  }
};

struct Alif : GatedCell {
  static constexpr const char* kName = "alif";
  static constexpr int kStates = 3;  // z, v, a
  static constexpr int kPreactivations = 1;
  static constexpr int kUnitParameters = 4;  // decay of v, decay of a, threshold, beta
  static constexpr bool kDerived = true;
  static constexpr Feed kFeeds[1] = {{0, 0}};

  template <class T>
  LSC_HD static T derive(const T* s, const T* w) {
    return spike(s[1] - (w[2] + w[3] * s[2]));
  }
  template <class T>
  LSC_HD static void step(const T* p, const T* s, const T* w, T* next) {
    next[2] = s[0] + w[1] * (s[2] - s[0]);
    next[1] = w[0] * s[1] + p[0] - detach((w[2] + w[3] * next[2]) * s[0]);
    next[0] = derive(next, w);
  }
};

using Exported = CellList<Lif, Alif>;

}  // namespace cells::spiking
}  // namespace LSC_ISA
}  // namespace lsc
