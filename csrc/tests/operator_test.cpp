// Products with step Jacobians: by hand for Elman, against central differences of one forward step for every cell and
// direction, and the adjoint identity <u, J v> = <J' u, v>. The gradient of u' J v likewise.
#include "algorithms/step_operator.h"
#include "model.h"

namespace lsc::test {
namespace {

constexpr Direction kDirections[] = {Direction::time, Direction::depth, Direction::diagonal, Direction::input};

std::string label(const std::string& cell, Direction direction) {
  return cell + ", direction " + std::to_string(int(direction));
}

std::vector<GridPoint> grid(const StackShape& shape) {
  std::vector<GridPoint> points;
  for (Index t = 0; t < shape.T; ++t)
    for (Index b = 0; b < shape.B; ++b) points.push_back({t, b});
  return points;
}

StepOperator<double> make(Model<double>& model, Index layer, Direction direction, int threads = 1) {
  return StepOperator<double>(backend<double>(threads), model.cell, model.kernels, model.parameters(),
                              model.trajectory(), layer, direction, grid(model.shape));
}

std::vector<Index> all_points(const Operator<double>& jacobian) {
  std::vector<Index> points;
  for (Index i = 0; i < jacobian.points(); ++i) points.push_back(i);
  return points;
}

std::vector<double> product(const Operator<double>& jacobian, Product kind, const std::vector<double>& v) {
  const std::vector<Index> points = all_points(jacobian);
  std::vector<double> out =
      nan_filled<double>(jacobian.points() * (kind == Product::matvec ? jacobian.rows() : jacobian.columns()));
  const Memory<double> scratch(jacobian.scratch(jacobian.points()));
  jacobian.apply(kind, jacobian.points(), points.data(), v.data(), out.data(), scratch.data());
  return out;
}

// J = diag(1 - tanh(p)^2) W_hh.
void elman_by_hand() {
  Model<double> model("rnn_tanh", {1, 1, 1, 3, 1});
  const double W[3][3] = {{0.5, -1, 2}, {0, 0.25, 1}, {-0.75, 1.5, 0.1}};
  std::copy_n(&W[0][0], 9, model.layers[0].array[1].begin());
  model.layers[0].array[0] = {1, 2, 3};
  model.layers[0].array[2] = {0.1, 0.2, -0.3};
  model.layers[0].array[3] = {0, 0.1, 0};
  model.x = {0.5};
  std::copy_n(std::vector<double>{0, 0, 0}.begin(), 3, model.states.begin());
  model.run();
  const double p[3] = {0.6, 1.3, 1.2};
  const StepOperator<double> jacobian = make(model, 0, Direction::time);
  for (std::size_t j = 0; j < 3; ++j) {
    std::vector<double> unit(3, 0.0);
    unit[j] = 1;
    const std::vector<double> column = product(jacobian, Product::matvec, unit);
    const std::vector<double> row = product(jacobian, Product::rmatvec, unit);
    for (std::size_t i = 0; i < 3; ++i) {
      const auto slope = [&](std::size_t unit_index) { return 1 - std::pow(std::tanh(p[unit_index]), 2); };
      CHECK_NEAR(column[i], slope(i) * W[i][j], 1e-15);
      CHECK_NEAR(row[i], slope(j) * W[j][i], 1e-15);
    }
  }
}

void adjoint() {
  const StackShape shape = {3, 4, 7, 33, 2};
  for (const std::string& name : cpu::cell_names()) {
    Model<double> model(name, shape);
    model.run();
    for (const Direction direction : kDirections)
      for (Index layer = direction == Direction::diagonal ? 1 : 0; layer < shape.L; ++layer) {
        const StepOperator<double> jacobian = make(model, layer, direction);
        const std::vector<double> v = normal<double>(21, jacobian.points() * jacobian.columns());
        const std::vector<double> u = normal<double>(22, jacobian.points() * jacobian.rows());
        const double forward = dot(u, product(jacobian, Product::matvec, v));
        const double transposed = dot(product(jacobian, Product::rmatvec, u), v);
        report_near(forward, transposed, 1e-11, label(name, direction).c_str(), int(layer), "<u, J v>");
      }
  }
}

// One step of two layers: the states after it, as a function of the states before it and of x.
const StackShape kOneStep = {1, 2, 3, 4, 2};

struct Slot {
  std::vector<double>* memory;
  Index begin, stride, blocks, size;  // element [block * size + i] lies at begin + block * stride + i
};

Slot state_slot(Model<double>& model, Index layer, Index t, Index b, Index states) {
  const Index begin = model.trajectory().state(layer, t, b) - model.states.data();
  return {&model.states, begin, model.trajectory().state_stride(), states, model.shape.H};
}

std::vector<double> gathered(const Slot& slot) {
  std::vector<double> values;
  for (Index block = 0; block < slot.blocks; ++block)
    for (Index i = 0; i < slot.size; ++i)
      values.push_back((*slot.memory)[std::size_t(slot.begin + block * slot.stride + i)]);
  return values;
}

void add(const Slot& slot, const std::vector<double>& direction, double factor) {
  for (Index block = 0; block < slot.blocks; ++block)
    for (Index i = 0; i < slot.size; ++i)
      (*slot.memory)[std::size_t(slot.begin + block * slot.stride + i)] +=
          factor * direction[std::size_t(block * slot.size + i)];
}

void products_are_derivatives() {
  constexpr double kStep = 1e-6;
  for (const std::string& name : smooth_cells())
    for (const Direction direction : kDirections) {
      Model<double> model(name, kOneStep);
      model.run();
      const Index layer = direction == Direction::diagonal ? 1 : 0, S = model.cell.states;
      const StepOperator<double> jacobian = make(model, layer, direction);
      const std::vector<double> v = normal<double>(23, jacobian.points() * jacobian.columns());
      const std::vector<double> found = product(jacobian, Product::matvec, v);
      for (Index b = 0; b < model.shape.B; ++b) {
        const bool from_input = direction == Direction::depth || direction == Direction::input;
        const Slot from =
            from_input ? Slot{&model.x, b * model.shape.I, 0, 1, model.shape.I} : state_slot(model, 0, 0, b, S);
        const Slot to = state_slot(model, layer, 1, b, direction == Direction::depth ? 1 : S);
        const std::vector<double> along(v.begin() + b * jacobian.columns(), v.begin() + (b + 1) * jacobian.columns());
        add(from, along, kStep);
        model.run();
        const std::vector<double> above = gathered(to);
        add(from, along, -2 * kStep);
        model.run();
        const std::vector<double> below = gathered(to);
        add(from, along, kStep);
        for (Index i = 0; i < jacobian.rows(); ++i)
          report_near(found[std::size_t(b * jacobian.rows() + i)],
                      (above[std::size_t(i)] - below[std::size_t(i)]) / (2 * kStep), 1e-8,
                      label(name, direction).c_str(), int(i), "J v");
      }
    }
}

// phi = sum u' J v as a function of one layer's parameters, states before the step and input, while everything else
// about the trajectory is data.
void bilinear_gradient() {
  for (const std::string& name : smooth_cells())
    for (const Direction direction : kDirections) {
      Model<double> model(name, kOneStep), moved(name, kOneStep);
      model.run();
      const Index own = direction == Direction::diagonal ? 1 : 0, B = kOneStep.B, H = kOneStep.H, S = model.cell.states;
      const StepOperator<double> jacobian = make(model, own, direction);
      const std::vector<double> v = normal<double>(31, B * jacobian.columns());
      const std::vector<double> u = normal<double>(32, B * jacobian.rows());

      LayerMemory<double> gradient[2];
      for (Index l = 0; l < 2; ++l)
        for (std::size_t which = 0; which < kArrays; ++which)
          gradient[l].array[which].assign(std::size_t(model.sizes(l)[which]), 0.0);
      std::vector<double> states = nan_filled<double>(B * S * H), states_below = states;
      std::vector<double> input = nan_filled<double>(B * kOneStep.input_size(own));
      std::vector<double> input_below = nan_filled<double>(B * kOneStep.I);
      const std::vector<Index> points = all_points(jacobian);
      jacobian.bilinear_gradient(backend<double>(), B, points.data(), u.data(), v.data(), gradient[own].view<double>(),
                                 gradient[0].view<double>(), states.data(), input.data(), states_below.data(),
                                 input_below.data());

      for (Index l = 0; l <= own; ++l) {
        moved.x = model.x;
        moved.states = model.states;
        const Index gate_size = Index(model.gates.size()) / kOneStep.L;
        const auto phi = [&] {
          Model<double> mixed = model;
          moved.run();
          mixed.layers[std::size_t(l)] = moved.layers[std::size_t(l)];
          std::copy_n(moved.gates.begin() + l * gate_size, gate_size, mixed.gates.begin() + l * gate_size);
          for (Index b = 0; b < B; ++b) {
            const Slot slot = state_slot(mixed, l, 0, b, S);
            const std::vector<double> before = gathered(slot), now = gathered(state_slot(moved, l, 0, b, S));
            add(slot, before, -1);
            add(slot, now, 1);
          }
          mixed.x = l == 0 ? moved.x : model.x;
          return dot(u, product(make(mixed, own, direction), Product::matvec, v));
        };
        const std::string what = label(name, direction) + ", layer " + std::to_string(l);
        for (int which = 0; which < kArrays; ++which)
          check_near(gradient[l].array[which], central_differences(moved.layers[std::size_t(l)].array[which], phi),
                     1e-7, what + ", parameter " + std::to_string(which));
        const std::vector<double> by_state = central_differences(moved.states, phi);
        const std::vector<double>& found = l == own ? states : states_below;
        for (Index b = 0; b < B; ++b) {
          const Slot slot = state_slot(moved, l, 0, b, S);
          for (Index s = 0; s < S; ++s)
            for (Index i = 0; i < H; ++i)
              report_near(found[std::size_t((b * S + s) * H + i)],
                          by_state[std::size_t(slot.begin + s * slot.stride + i)], 1e-7, what.c_str(), int(i),
                          "states before the step");
        }
        if (l == 0) check_near(l == own ? input : input_below, central_differences(moved.x, phi), 1e-7, what + ", x");
        moved.layers = model.layers;
      }
    }
}

void threads_change_nothing() {
  const StackShape shape = {3, 4, 7, 33, 2};
  for (const std::string& name : cpu::cell_names()) {
    Model<double> model(name, shape);
    model.run();
    const StepOperator<double> one = make(model, 1, Direction::time, 1), three = make(model, 1, Direction::time, 3);
    const std::vector<double> v = normal<double>(24, one.points() * one.columns());
    const std::vector<double> together = product(one, Product::matvec, v);
    CHECK(together == product(three, Product::matvec, v));
    const Memory<double> scratch(one.scratch(1));
    std::vector<double> alone = nan_filled<double>(one.points() * one.rows());
    for (Index i = 0; i < one.points(); ++i)
      one.apply(Product::matvec, 1, &i, v.data() + i * one.columns(), alone.data() + i * one.rows(), scratch.data());
    CHECK(together == alone);
  }
}

}  // namespace
}  // namespace lsc::test

int main() {
  using namespace lsc::test;
  return run({{"Elman by hand", elman_by_hand},
              {"adjoint", adjoint},
              {"products are derivatives", products_are_derivatives},
              {"bilinear gradient", bilinear_gradient},
              {"threads and companions change nothing", threads_change_nothing}});
}
