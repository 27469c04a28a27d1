// Linear recurrences for one instruction set; CMake compiles this file once for each.
//
// A number meets the same operations wherever in a row it stands: what is left of a row after its whole vectors is
// padded to one. Every sum has one product in it, so contraction has nothing to choose.
#include <utility>

#include "cpu/vector.h"

namespace lsc {
inline namespace LSC_ISA {
namespace {

enum class Product { real, complex, conjugate };

// Rows of up to so many vectors stay in registers from step to step.
constexpr int kNarrow = 4;

// v[position(0)], v[position(1)], ..
template <class T, class Position, std::size_t... I>
inline typename VectorOf<T>::type permuted(typename VectorOf<T>::type v, Position position, std::index_sequence<I...>) {
#if defined(__clang__) || __GNUC__ >= 12
  (void)position;
  return __builtin_shufflevector(v, v, int(Position::at(I))...);
#else
  (void)position;
  return typename VectorOf<T>::type{v[Position::at(I)]...};
#endif
}

struct Real {
  static constexpr std::size_t at(std::size_t i) { return i & ~std::size_t(1); }
};
struct Imaginary {
  static constexpr std::size_t at(std::size_t i) { return i | 1; }
};
struct Swapped {
  static constexpr std::size_t at(std::size_t i) { return i ^ 1; }
};

template <class T, class Position>
inline typename VectorOf<T>::type permuted(typename VectorOf<T>::type v) {
  return permuted<T>(v, Position{}, std::make_index_sequence<std::size_t(VectorOf<T>::kLanes)>{});
}

// (-1, 1, -1, 1, ..), or its negative for the conjugate: what i (x + i y) = -y + i x takes.
template <class T, Product kind>
inline typename VectorOf<T>::type signs() {
  typename VectorOf<T>::type v{};
  for (int l = 0; l < VectorOf<T>::kLanes; ++l) v[l] = (l % 2 == 0) == (kind == Product::complex) ? T(-1) : T(1);
  return v;
}

// a h + b
template <class T, Product kind>
inline typename VectorOf<T>::type advance(typename VectorOf<T>::type a, typename VectorOf<T>::type h,
                                          typename VectorOf<T>::type b) {
  using Vector = typename VectorOf<T>::type;
  if constexpr (kind == Product::real) {
    return b + a * h;
  } else {
    const Vector turned = signs<T, kind>() * permuted<T, Imaginary>(a);
    const Vector sum = b + permuted<T, Real>(a) * h;
    return sum + turned * permuted<T, Swapped>(h);
  }
}

template <class T, Product kind, int Vectors>
void scan_narrow(Index steps, const T* a, Index a_row, const T* b, Index b_row, const T* before, T* h, Index h_row) {
  using Vector = typename VectorOf<T>::type;
  constexpr int lanes = VectorOf<T>::kLanes;
  Vector state[Vectors];
  for (int v = 0; v < Vectors; ++v) state[v] = load(before + v * lanes);
  for (Index t = 0; t < steps; ++t)
    for (int v = 0; v < Vectors; ++v) {
      const int at = v * lanes;
      state[v] = advance<T, kind>(load(a + t * a_row + at), state[v], load(b + t * b_row + at));
      store(h + t * h_row + at, state[v]);
    }
}

template <class T, Product kind>
void scan_wide(Index steps, Index n, const T* a, Index a_row, const T* b, Index b_row, const T* before, T* h,
               Index h_row) {
  for (Index t = 0; t < steps; ++t) {
    const T* previous = t == 0 ? before : h + (t - 1) * h_row;
    for (Index i = 0; i < n; i += VectorOf<T>::kLanes)
      store(h + t * h_row + i, advance<T, kind>(load(a + t * a_row + i), load(previous + i), load(b + t * b_row + i)));
  }
}

// The last numbers of a row, fewer than a vector has.
template <class T, Product kind>
void scan_rest(Index steps, Index n, const T* a, Index a_row, const T* b, Index b_row, const T* before, T* h,
               Index h_row) {
  using Vector = typename VectorOf<T>::type;
  Vector state = load_first(before, n), factor = load_first(a, n);
  for (Index t = 0; t < steps; ++t) {
    if (a_row != 0) factor = load_first(a + t * a_row, n);
    state = advance<T, kind>(factor, state, load_first(b + t * b_row, n));
    for (Index i = 0; i < n; ++i) h[t * h_row + i] = state[i];
  }
}

template <class T, Product kind>
void scan(Index steps, Index n, const T* a, Index a_row, const T* b, Index b_row, const T* before, T* h, Index h_row) {
  constexpr Index lanes = VectorOf<T>::kLanes;
  if (steps == 0) return;
  const Index whole = n / lanes * lanes;
  static_assert(kNarrow == 4);
  switch (whole / lanes) {
    case 0:
      break;
    case 1:
      scan_narrow<T, kind, 1>(steps, a, a_row, b, b_row, before, h, h_row);
      break;
    case 2:
      scan_narrow<T, kind, 2>(steps, a, a_row, b, b_row, before, h, h_row);
      break;
    case 3:
      scan_narrow<T, kind, 3>(steps, a, a_row, b, b_row, before, h, h_row);
      break;
    case 4:
      scan_narrow<T, kind, 4>(steps, a, a_row, b, b_row, before, h, h_row);
      break;
    default:
      scan_wide<T, kind>(steps, whole, a, a_row, b, b_row, before, h, h_row);
  }
  if (whole < n)
    scan_rest<T, kind>(steps, n - whole, a + whole, a_row, b + whole, b_row, before + whole, h + whole, h_row);
}

// Steps whose squares are added up in T before they are in double, while states stay in registers.
constexpr int kStepsTogether = 8;

// One vector of a row through a few steps; row(t) is its input at a step.
template <class T, Product kind, class Row>
inline void advance_sensitivity(int steps, typename VectorOf<T>::type a, const Row& row, typename VectorOf<T>::type& h,
                                typename VectorOf<T>::type& s, typename VectorOf<T>::type& h_squares,
                                typename VectorOf<T>::type& s_squares) {
  h_squares = s_squares = typename VectorOf<T>::type{};
  for (int t = 0; t < steps; ++t) {
    s = advance<T, kind>(a, s, h);
    h = advance<T, kind>(a, h, row(t));
    h_squares = h_squares + h * h;
    s_squares = s_squares + s * s;
  }
}

template <class T, Product kind>
void sensitivity(Index steps, Index n, const T* a, const T* b, Index b_row, T* h, T* s, double* h_squares,
                 double* s_squares) {
  using Vector = typename VectorOf<T>::type;
  constexpr Index lanes = VectorOf<T>::kLanes;
  const Index whole = n / lanes * lanes;
  for (Index t = 0; t < steps; t += kStepsTogether) {
    const int together = int(steps - t < kStepsTogether ? steps - t : kStepsTogether);
    const T* inputs = b + t * b_row;
    for (Index i = 0; i < n; i += lanes) {
      const Index count = i < whole ? lanes : n - i;
      Vector state, derivative, states, derivatives;
      if (count == lanes) {
        state = load(h + i), derivative = load(s + i);
        const auto row = [&](int step) { return load(inputs + step * b_row + i); };
        if (together == kStepsTogether)
          advance_sensitivity<T, kind>(kStepsTogether, load(a + i), row, state, derivative, states, derivatives);
        else
          advance_sensitivity<T, kind>(together, load(a + i), row, state, derivative, states, derivatives);
      } else {
        state = load_first(h + i, count), derivative = load_first(s + i, count);
        advance_sensitivity<T, kind>(
            together, load_first(a + i, count), [&](int step) { return load_first(inputs + step * b_row + i, count); },
            state, derivative, states, derivatives);
      }
      store_first(h + i, state, count);
      store_first(s + i, derivative, count);
      for (Index l = 0; l < count; ++l) {
        h_squares[i + l] += double(states[l]);
        s_squares[i + l] += double(derivatives[l]);
      }
    }
  }
}

template <class T>
constexpr ScanKernels<T> kTable = {scan<T, Product::real>, scan<T, Product::complex>, scan<T, Product::conjugate>,
                                   sensitivity<T, Product::real>, sensitivity<T, Product::complex>};

}  // namespace
}  // namespace LSC_ISA

namespace cpu::LSC_ISA {
extern const ScanKernels<float> scan_float;
extern const ScanKernels<double> scan_double;
constexpr ScanKernels<float> scan_float = kTable<float>;
constexpr ScanKernels<double> scan_double = kTable<double>;
}  // namespace cpu::LSC_ISA
}  // namespace lsc
