// A layer without recurrence, y = phi(W x + b), as a cell that never reads its state.
#pragma once

#include "lsc/cell.h"

namespace lsc {
inline namespace LSC_ISA {
namespace cells::feed_forward {

struct Shape : GatedCell {
  static constexpr int kStates = 1;
  static constexpr int kPreactivations = 1;
  static constexpr Feed kFeeds[1] = {{0, kNone}};
};

#define LSC_FEED_FORWARD(type, name, phi)                              \
  struct type : Shape {                                                \
    static constexpr const char* kName = name;                         \
    template <class T>                                                 \
    LSC_HD static void step(const T* p, const T*, const T*, T* next) { \
      next[0] = phi;                                                   \
    }                                                                  \
  };
LSC_FEED_FORWARD(Identity, "feed_forward_identity", p[0])
LSC_FEED_FORWARD(Tanh, "feed_forward_tanh", tanh(p[0]))
LSC_FEED_FORWARD(Relu, "feed_forward_relu", relu(p[0]))
LSC_FEED_FORWARD(Sigmoid, "feed_forward_sigmoid", sigmoid(p[0]))
LSC_FEED_FORWARD(Sin, "feed_forward_sin", sin(p[0]))
LSC_FEED_FORWARD(Cos, "feed_forward_cos", cos(p[0]))
LSC_FEED_FORWARD(Gelu, "feed_forward_gelu", gelu(p[0]))
LSC_FEED_FORWARD(Swish, "feed_forward_swish", p[0] * sigmoid(p[0]))
#undef LSC_FEED_FORWARD

using Exported = CellList<Identity, Tanh, Relu, Sigmoid, Sin, Cos, Gelu, Swish>;

}  // namespace cells::feed_forward
}  // namespace LSC_ISA
}  // namespace lsc
