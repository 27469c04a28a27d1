// One cell on the device: its per-unit functions over rows of H units, a kernel launch each.
#pragma once

#include "cuda/execution.h"
#include "lsc/host_device.h"

namespace lsc::cuda {

// Where row r of an array begins: side by side, or those of chosen points of a grid (t, b).
struct Rows {
  Index stride = 0;                     // elements from one row to the next
  const std::int64_t* point = nullptr;  // which point row r is; null: point r
  const std::int64_t* t = nullptr;      // of every point; null: rows side by side
  const std::int64_t* b = nullptr;
  Index t_stride = 0, b_stride = 0;

  LSC_HD Index offset(Index r) const {
    const Index i = point ? Index(point[r]) : r;
    return t ? Index(t[i]) * t_stride + Index(b[i]) * b_stride : i * stride;
  }
};

// Several numbers for each unit of a row: number k of unit u of row r is data[rows.offset(r) + k * part + u].
template <class T>
struct UnitArray {
  T* data = nullptr;
  Index part = 0;
  Rows rows;
};

// As CellKernels (algorithms/backend.h), over `count` rows of H units; w [Q, H] is the same for all rows.
template <class T>
struct CellLaunches {
  using In = UnitArray<const T>;
  using Out = UnitArray<T>;
  void (*step)(const Execution&, Index count, Index H, In p, In s, const T* w, Out next);
  void (*linearize)(const Execution&, Index count, Index H, In p, In s, const T* w, Out coefficients);
  // ds is added to.
  void (*pull)(const Execution&, Index count, Index H, In p, In s, const T* w, In u, Out dp, Out ds, Out dw);
  void (*second_order)(const Execution&, Index count, Index H, In p, In s, const T* w, In dp, In ds, In u, Out q, Out r,
                       Out m);
  void (*derive_linearize)(const Execution&, Index count, Index H, In s, const T* w, Out slopes);
  // r and m are added to; r's part 0 is left alone where it would get nothing.
  void (*derive_second_order)(const Execution&, Index count, Index H, In s, const T* w, In ds, In u, Out r, Out m);
};

struct CompiledCell {
  const char* name;
  CellLaunches<float> launches_float;
  CellLaunches<double> launches_double;
};
struct CompiledCells {
  const CompiledCell* cells;
  int count;
};

template <class T>
const CellLaunches<T>& cell_launches(const std::string& name);

}  // namespace lsc::cuda
