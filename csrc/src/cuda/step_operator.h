// Jacobians of a layer's step on the device: their linearisation, their products and the gradients of bilinear forms.
// As algorithms/step_operator.h; all memory is the caller's and stays on the device.
#pragma once

#include "cuda/cells.h"
#include "cuda/layer_step.h"

namespace lsc::cuda {

// What a linearisation leaves behind: [N, S, P + S + Q, H], and [N, V + Q, H] where state 0 is derived.
template <class T>
struct LinearizationMemory {
  T* coefficients = nullptr;
  T* slopes = nullptr;
};

// The points (t[i], b[i]), i < count, of a trajectory's grid; the pointers are the device's.
struct GridPoints {
  const std::int64_t* t = nullptr;
  const std::int64_t* b = nullptr;
  Index count = 0;
};

// The step of one layer at points of a trajectory.
template <class T>
class LinearizedStep {
 public:
  LinearizedStep() = default;
  LinearizedStep(const CellShape& cell, const LayerParameters<const T>& layer, const Trajectory<T>& trajectory, Index l,
                 const GridPoints& points, const LinearizationMemory<T>& memory);

  const LayerStep<T>& step() const { return step_; }

  // Fills the memory.
  void linearize(const Execution& execution) const;

  // Scratch of bilinear_gradient for so many pairs.
  struct Scratch {
    T* upstream;         // [count, S, H], u of all next states
    T* ds;               // [count, S, H], the direction: the change of all states
    T* dp;               // [count, P, H], and that of the pre-activations
    T* g;                // [count, P, H] = u' (d next / d p)
    T* through_derived;  // [count, H] = d phi / d (the change of the derived state)
    T* q;                // [count, P, H] = d phi / d p
    T* r;                // [count, S, H] = d phi / d states
    T* m;                // [count, Q, H] = d phi / d the units' parameters
    T* h;                // [count, H], state 0
    T* x;                // [count, n], what the layer was fed
  };
  Scratch scratch(Workspace& workspace, Index count) const;

  // phi = sum_j u_j' (J[point[j]] v_j), with J the input's or the recurrent product. Adds d phi / d parameters to
  // `gradient`, and, where not null, writes d phi / d the states before the step [count, S, H] and d phi / d the input
  // [count, n].
  template <Path kPath>
  void bilinear_gradient(const Execution& execution, Index count, const std::int64_t* point, const T* u,
                         StateRange outputs, const T* v, const LayerParameters<T>& gradient, T* states, T* input,
                         const Scratch& scratch) const;

 private:
  // Rows of chosen points, or of all where `point` is null.
  Rows grid_rows(const std::int64_t* point, Index t_stride, Index b_stride) const;
  UnitArray<const T> gates(const std::int64_t* point) const;
  UnitArray<const T> states(const std::int64_t* point) const;

  const CellLaunches<T>* cell_ = nullptr;
  LayerStep<T> step_;
  Trajectory<T> trajectory_;
  Index layer_ = 0;
  const T* unit_ = nullptr;  // [Q, H]
  GridPoints points_;
  LinearizationMemory<T> memory_;
};

// J of one layer l at N points, along a direction of the grid.
template <class T>
class StepOperator {
 public:
  // The memory `below` is used by the diagonal alone.
  StepOperator(const CellShape& cell, const std::vector<LayerParameters<const T>>& layers,
               const Trajectory<T>& trajectory, Index l, Direction direction, const GridPoints& points,
               const LinearizationMemory<T>& own, const LinearizationMemory<T>& below);

  const StepProducts<T>& products() const { return products_; }

  // To be called before all else.
  void linearize(const Execution& execution) const;

  // d phi / d everything for phi = sum_j u_j' J[point[j]] v_j, added to the parameters' gradients of this layer and of
  // the layer below (used by the diagonal alone). The four optional outputs are per pair: states before the step
  // [count, S, H] and input [count, n], of this layer and of the layer below.
  void bilinear_gradient(Execution& execution, Index count, const std::int64_t* point, const T* u, const T* v,
                         const LayerParameters<T>& gradient, const LayerParameters<T>& gradient_below, T* states,
                         T* input, T* states_below, T* input_below) const;

 private:
  LinearizedStep<T> step_, below_;
  StepProducts<T> products_;
};

}  // namespace lsc::cuda
