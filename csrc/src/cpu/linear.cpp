// Dense linear algebra for one instruction set; CMake compiles this file once for each.
//
// The product keeps a tile of kTileRows x panel_width sums in registers and walks k once, broadcasting A against a
// packed panel of B. Each sum is a plain chain over k that starts at what it is added to, so a row's result does not
// depend on the rows beside it, nor on how k is cut.
#include <utility>

#include "cpu/vector.h"

namespace lsc {

namespace cpu::LSC_ISA {
extern const SchurKernels schur;
}

inline namespace LSC_ISA {
namespace {

template <class T>
constexpr Index kPanel = kTileVectors * VectorOf<T>::kLanes;

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define LSC_SHUFFLES  // GCC from 12, every Clang
#endif
#endif

#if defined(LSC_SHUFFLES)
// Element l of row r and element r of row l change places, in each square of kLanes rows: the halves of neighbours
// first, then of pairs, ..
template <class T, int Step, std::size_t... L>
void swap_neighbours(typename VectorOf<T>::type* rows, std::index_sequence<L...>) {
  constexpr int lanes = VectorOf<T>::kLanes;
  for (int r = 0; r < lanes; ++r) {
    if (r & Step) continue;
    const auto a = rows[r], b = rows[r + Step];
    rows[r] = __builtin_shufflevector(a, b, ((L & Step) == 0 ? L : lanes + L - Step)...);
    rows[r + Step] = __builtin_shufflevector(a, b, ((L & Step) == 0 ? L + Step : lanes + L)...);
  }
}

template <class T, int Step = 1>
void transpose(typename VectorOf<T>::type* rows) {
  if constexpr (Step < VectorOf<T>::kLanes) {
    swap_neighbours<T, Step>(rows, std::make_index_sequence<std::size_t(VectorOf<T>::kLanes)>());
    transpose<T, 2 * Step>(rows);
  }
}

#endif

template <class T>
void pack(Index k, Index n, const T* b, Index row_stride, Index column_stride, T* packed) {
  constexpr Index width = kPanel<T>, lanes = VectorOf<T>::kLanes;
  for (Index j0 = 0; j0 < n; j0 += width) {
    const Index columns = n - j0 < width ? n - j0 : width;
    const T* panel = b + j0 * column_stride;
    Index i = 0;
#if defined(LSC_SHUFFLES)
    if (row_stride == 1 && columns == width)
      for (; i + lanes <= k; i += lanes)
        for (Index j = 0; j < width; j += lanes) {
          typename VectorOf<T>::type rows[lanes];
          for (Index l = 0; l < lanes; ++l) rows[l] = load(panel + (j + l) * column_stride + i);
          transpose<T>(rows);
          for (Index l = 0; l < lanes; ++l) store(packed + (i + l) * width + j, rows[l]);
        }
#endif
    for (; i < k; ++i) {
      for (Index j = 0; j < columns; ++j) packed[i * width + j] = panel[i * row_stride + j * column_stride];
      for (Index j = columns; j < width; ++j) packed[i * width + j] = T(0);
    }
    packed += k * width;
  }
}

// C [Rows, columns] of `Panels` neighbouring panels, `panel_size` apart, the last of which may be cut. Few rows take
// several panels at once, so that there are always enough sums on their way to hide the latency of an addition.
template <class T, int Rows, int Panels>
void multiply_tile(Index columns, Index k, const T* a, Index a_row, Index a_column, const T* panel, Index panel_size,
                   const T* start, Index start_row, T* c, Index c_row) {
  using Vector = typename VectorOf<T>::type;
  constexpr int lanes = VectorOf<T>::kLanes, vectors = Panels * kTileVectors;
  const bool whole = columns == Panels * kPanel<T>;
  Vector sum[Rows][vectors];
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < vectors; ++v) sum[r][v] = Vector{};
  if (start) {
    for (int r = 0; r < Rows; ++r) {
      T row[Panels * kPanel<T>] = {};
      const T* source = start + r * start_row;
      if (!whole) {
        __builtin_memcpy(row, source, std::size_t(columns) * sizeof(T));
        source = row;
      }
      for (int v = 0; v < vectors; ++v) sum[r][v] = load(source + v * lanes);
    }
  }
  for (Index i = 0; i < k; ++i, a += a_column, panel += kPanel<T>)
    for (int r = 0; r < Rows; ++r) {
      const T scalar = a[r * a_row];
      for (int q = 0; q < Panels; ++q)
        for (int v = 0; v < kTileVectors; ++v)
          sum[r][q * kTileVectors + v] += scalar * load(panel + q * panel_size + v * lanes);
    }
  for (int r = 0; r < Rows; ++r) {
    T row[Panels * kPanel<T>];
    T* target = whole ? c + r * c_row : row;
    for (int v = 0; v < vectors; ++v) store(target + v * lanes, sum[r][v]);
    if (!whole) __builtin_memcpy(c + r * c_row, row, std::size_t(columns) * sizeof(T));
  }
}

// How many panels so many rows take at once.
constexpr int panels_beside(int rows) { return rows == 1 ? 4 : kTileRows / rows; }

// All columns of `rows` <= Rows rows.
template <class T, int Rows>
void multiply_rows(Index rows, Index n, Index k, const T* a, Index a_row, Index a_column, const T* packed,
                   Index panel_size, const T* start, Index start_row, T* c, Index c_row) {
  if constexpr (Rows > 0) {
    if (rows != Rows) {
      multiply_rows<T, Rows - 1>(rows, n, k, a, a_row, a_column, packed, panel_size, start, start_row, c, c_row);
      return;
    }
    constexpr int panels = panels_beside(Rows);
    constexpr Index width = panels * kPanel<T>;
    Index j = 0;
    for (; j + width - kPanel<T> < n; j += width, packed += panels * panel_size)
      multiply_tile<T, Rows, panels>(n - j < width ? n - j : width, k, a, a_row, a_column, packed, panel_size,
                                     start ? start + j : nullptr, start_row, c + j, c_row);
    for (; j < n; j += kPanel<T>, packed += panel_size)
      multiply_tile<T, Rows, 1>(n - j < kPanel<T> ? n - j : kPanel<T>, k, a, a_row, a_column, packed, panel_size,
                                start ? start + j : nullptr, start_row, c + j, c_row);
  }
}

// A panel serves all rows before the next one is read. What is left of the tiles shares the last of them evenly: two
// tiles of four rows are faster than one of six and one of two.
template <class T>
void multiply_block(Index m, Index n, Index k, const T* a, Index a_row, Index a_column, const T* packed,
                    Index panel_size, const T* start, Index start_row, T* c, Index c_row) {
  const auto start_at = [&](Index i, Index j) { return start ? start + i * start_row + j : nullptr; };
  const Index left = m % kTileRows;
  const Index whole = left > 0 && left <= kTileRows / 2 && m > kTileRows ? m - left - kTileRows : m - left;
  if (whole > 0)
    for (Index j = 0; j < n; j += kPanel<T>)
      for (Index i = 0; i < whole; i += kTileRows)
        multiply_tile<T, kTileRows, 1>(n - j < kPanel<T> ? n - j : kPanel<T>, k, a + i * a_row, a_row, a_column,
                                       packed + j / kPanel<T> * panel_size, panel_size, start_at(i, j), start_row,
                                       c + i * c_row + j, c_row);
  for (Index i = whole; i < m;) {
    const Index rows = m - i < kTileRows ? m - i : (m - i + 1) / 2;
    multiply_rows<T, kTileRows - 1>(rows, n, k, a + i * a_row, a_row, a_column, packed, panel_size, start_at(i, 0),
                                    start_row, c + i * c_row, c_row);
    i += rows;
  }
}

// Where a row of A is scattered over memory, blocks of A are copied together first.
template <class T>
void multiply(Index m, Index n, Index k, const T* a, Index a_row, Index a_column, const T* packed, const T* start,
              Index start_row, T* c, Index c_row) {
  const Index panel_size = k * kPanel<T>;
  constexpr Index rows = 4 * kTileRows, depth = 256;
  if (a_column == 1 || k < 8) {
    multiply_block(m, n, k, a, a_row, a_column, packed, panel_size, start, start_row, c, c_row);
    return;
  }
  T block[rows * depth];
  for (Index i0 = 0; i0 < m; i0 += rows)
    for (Index k0 = 0; k0 < k; k0 += depth) {
      const Index height = m - i0 < rows ? m - i0 : rows, length = k - k0 < depth ? k - k0 : depth;
      for (Index l = 0; l < length; ++l)
        for (Index i = 0; i < height; ++i) block[l * rows + i] = a[(i0 + i) * a_row + (k0 + l) * a_column];
      T* target = c + i0 * c_row;
      if (k0 > 0)
        multiply_block<T>(height, n, length, block, 1, rows, packed + k0 * kPanel<T>, panel_size, target, c_row, target,
                          c_row);
      else
        multiply_block<T>(height, n, length, block, 1, rows, packed, panel_size,
                          start ? start + i0 * start_row : nullptr, start_row, target, c_row);
    }
}

// Lanes [at, at + count), added up as a tree.
template <int count, class Vector>
auto sum_lanes(const Vector& v, int at = 0) {
  if constexpr (count == 1)
    return v[at];
  else
    return sum_lanes<count / 2>(v, at) + sum_lanes<count / 2>(v, at + count / 2);
}

// w += alpha v, and then the inner product of x and w; x may be w.
template <class T, bool update>
T update_and_dot(Index n, T alpha, const T* v, T* w, const T* x) {
  using Vector = typename VectorOf<T>::type;
  constexpr int lanes = VectorOf<T>::kLanes, chains = 4;
  Vector sum[chains] = {};
  const auto add = [&](Index i, int chain) {
    Vector y = load(w + i);
    if constexpr (update) {
      y += alpha * load(v + i);
      store(w + i, y);
    }
    sum[chain] += x == w ? y * y : load(x + i) * y;
  };
  Index i = 0;
  for (; i + chains * lanes <= n; i += chains * lanes)
    for (int c = 0; c < chains; ++c) add(i + c * lanes, c);
  for (; i + lanes <= n; i += lanes) add(i, 0);
  T result = sum_lanes<lanes>((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (; i < n; ++i) {
    if constexpr (update) w[i] += alpha * v[i];
    result += x[i] * w[i];
  }
  return result;
}

template <class T>
T dot(Index n, const T* x, const T* y) {
  return update_and_dot<T, false>(n, T(0), nullptr, const_cast<T*>(y), x);
}

template <class T>
T orthogonalise(Index n, Index count, const T* v, T* w, double* coefficients) {
  if (count == 0) return dot(n, w, w);
  T overlap = dot(n, v, w);
  for (Index i = 0; i < count; ++i) {
    coefficients[i] += double(overlap);
    overlap = update_and_dot<T, true>(n, -overlap, v + i * n, w, i + 1 < count ? v + (i + 1) * n : w);
  }
  return overlap;
}

template <class T>
void axpy(Index n, T alpha, const T* x, T* y) {
  for (Index i = 0; i < n; ++i) y[i] += alpha * x[i];
}

template <class T>
void scale(Index n, T alpha, const T* x, T* y) {
  for (Index i = 0; i < n; ++i) y[i] = alpha * x[i];
}

template <class T>
void multiply_add(Index n, const T* a, const T* b, T* c) {
  for (Index i = 0; i < n; ++i) c[i] += a[i] * b[i];
}

template <class T, int Vectors>
void multiply_add_block(Index at, int count, const T* const* a, const T* const* b, bool accumulate, T* c) {
  constexpr int lanes = VectorOf<T>::kLanes;
  typename VectorOf<T>::type sum[Vectors] = {};
  if (accumulate)
    for (int v = 0; v < Vectors; ++v) sum[v] = load(c + at + v * lanes);
  for (int k = 0; k < count; ++k)
    for (int v = 0; v < Vectors; ++v) sum[v] += load(a[k] + at + v * lanes) * load(b[k] + at + v * lanes);
  for (int v = 0; v < Vectors; ++v) store(c + at + v * lanes, sum[v]);
}

template <class T>
void multiply_add_many(Index n, int count, const T* const* a, const T* const* b, bool accumulate, T* c) {
  constexpr Index lanes = VectorOf<T>::kLanes;
  constexpr int vectors = 4;
  Index at = 0;
  for (; at + vectors * lanes <= n; at += vectors * lanes)
    multiply_add_block<T, vectors>(at, count, a, b, accumulate, c);
  for (; at + lanes <= n; at += lanes) multiply_add_block<T, 1>(at, count, a, b, accumulate, c);
  if (at == n) return;
  typename VectorOf<T>::type sum = {};
  if (accumulate) sum = load_first(c + at, n - at);
  for (int k = 0; k < count; ++k) sum += load_first(a[k] + at, n - at) * load_first(b[k] + at, n - at);
  store_first(c + at, sum, n - at);
}

template <class T>
constexpr LinearKernels<T> kTable = {kPanel<T>,
                                     pack<T>,
                                     multiply<T>,
                                     dot<T>,
                                     orthogonalise<T>,
                                     axpy<T>,
                                     scale<T>,
                                     multiply_add<T>,
                                     multiply_add_many<T>,
                                     &cpu::LSC_ISA::schur};

}  // namespace
}  // namespace LSC_ISA

namespace cpu::LSC_ISA {
extern const LinearKernels<float> linear_float;
extern const LinearKernels<double> linear_double;
constexpr LinearKernels<float> linear_float = kTable<float>;
constexpr LinearKernels<double> linear_double = kTable<double>;
}  // namespace cpu::LSC_ISA
}  // namespace lsc
