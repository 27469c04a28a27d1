// Elman, "Finding structure in time", 1990: h' = phi(W_ih x + b_ih + W_hh h + b_hh).
#pragma once

#include "lsc/cell.h"

namespace lsc {
inline namespace LSC_ISA {
namespace cells::elman {

struct Shape : GatedCell {
  static constexpr int kStates = 1;
  static constexpr int kPreactivations = 1;
  static constexpr Feed kFeeds[1] = {{0, 0}};
};

struct Tanh : Shape {
  static constexpr const char* kName = "rnn_tanh";
  template <class T>
  LSC_HD static void step(const T* p, const T*, const T*, T* next) {
    next[0] = tanh(p[0]);
  }
};

struct Relu : Shape {
  static constexpr const char* kName = "rnn_relu";
  template <class T>
  LSC_HD static void step(const T* p, const T*, const T*, T* next) {
    next[0] = relu(p[0]);
  }
};

struct Sigmoid : Shape {
  static constexpr const char* kName = "rnn_sigmoid";
  template <class T>
  LSC_HD static void step(const T* p, const T*, const T*, T* next) {
    next[0] = sigmoid(p[0]);
  }
};

using Exported = CellList<Tanh, Relu, Sigmoid>;

}  // namespace cells::elman
}  // namespace LSC_ISA
}  // namespace lsc
