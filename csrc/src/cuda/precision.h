// A precision as a type, for code that is compiled for each.
#pragma once

#include <type_traits>

#include "cuda/execution.h"

namespace lsc::cuda {

template <Precision kPrecision>
using ThePrecision = std::integral_constant<Precision, kPrecision>;

// body(ThePrecision) of the products of T, of which float64 has but one.
template <class T, class Body>
void with_precision(Precision precision, const Body& body) {
  if constexpr (std::is_same_v<T, float>) {
    switch (precision) {
      case Precision::tf32:
        return body(ThePrecision<Precision::tf32>());
      case Precision::fp16:
        return body(ThePrecision<Precision::fp16>());
      case Precision::bf16:
        return body(ThePrecision<Precision::bf16>());
      case Precision::fp32:
        break;
    }
  }
  body(ThePrecision<Precision::fp32>());
}

}  // namespace lsc::cuda
