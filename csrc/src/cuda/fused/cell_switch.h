// One kernel for all cells: which of them it runs is an argument.
#pragma once

#include <string>

#include "algorithms/unit_functions.h"
#include "cuda/all_cells.h"
#include "cuda/device.h"

namespace lsc::cuda {
inline namespace LSC_ISA {

template <class Cell>
struct CellTag {
  using Type = Cell;
};

template <class List>
struct CellSwitch;
template <class... Cells>
struct CellSwitch<CellList<Cells...>> {
  // body(CellTag of cell number `cell`).
  template <class Body>
  static LSC_DEVICE void call(int cell, const Body& body) {
    int number = 0;
    ((cell == number++ ? body(CellTag<Cells>()) : void()), ...);
  }

  // -1 where there is none of that name.
  static int number_of(const std::string& name) {
    int number = 0, found = -1;
    ((name == Cells::kName ? void(found = number++) : void(++number)), ...);
    return found;
  }
};

using EveryCell = CellSwitch<AllCells>;

}  // namespace LSC_ISA
}  // namespace lsc::cuda
