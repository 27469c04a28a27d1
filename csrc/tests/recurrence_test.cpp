// Forward and backward of every cell: by hand for one Elman layer, against central differences for a small stack.
#include "algorithms/backward.h"
#include "model.h"

namespace lsc::test {
namespace {

const StackShape kShape = {3, 2, 3, 5, 2};  // T, B, I, H, L

void elman_by_hand() {
  Model<double> model("rnn_tanh", {1, 1, 1, 2, 1});
  model.layers[0].array[0] = {1, -1};
  model.layers[0].array[1] = {0.5, 0.25, -0.5, 1};
  model.layers[0].array[2] = {0.1, 0.2};
  model.layers[0].array[3] = {0, -0.3};
  model.x = {2};
  model.states[0] = 0.4;
  model.states[1] = -0.8;
  model.run();
  const double p0 = 2 + 0.5 * 0.4 - 0.25 * 0.8 + 0.1, p1 = -2 - 0.5 * 0.4 - 0.8 + 0.2 - 0.3;
  CHECK_NEAR(model.gates[0], p0, 1e-15);
  CHECK_NEAR(model.gates[1], p1, 1e-15);
  CHECK_NEAR(model.states[2], std::tanh(p0), 1e-15);
  CHECK_NEAR(model.states[3], std::tanh(p1), 1e-15);
}

struct Gradients {
  std::vector<double> states, x;
  std::vector<LayerMemory<double>> layers;
};

// Of loss = sum of weighting * states, the initial states apart.
Gradients gradients(Model<double>& model, const std::vector<double>& weighting, int threads) {
  Gradients result{weighting, nan_filled<double>(Index(model.x.size())), {}};
  std::vector<LayerParameters<double>> views;
  for (Index l = 0; l < model.shape.L; ++l) {
    LayerMemory<double> layer;
    for (std::size_t which = 0; which < kArrays; ++which)
      layer.array[which] = nan_filled<double>(model.sizes(l)[which]);
    result.layers.push_back(std::move(layer));
  }
  for (LayerMemory<double>& layer : result.layers) views.push_back(layer.view<double>());
  backward(backend<double>(threads), model.cell, model.kernels, model.parameters(), model.trajectory(),
           result.states.data(), result.x.data(), views);
  return result;
}

std::vector<double> loss_weighting(Model<double>& model) {
  std::vector<double> weighting = normal<double>(99, Index(model.states.size()));
  const Index slot = model.cell.states * model.shape.B * model.shape.H;
  for (Index l = 0; l < model.shape.L; ++l) std::fill_n(weighting.begin() + l * (model.shape.T + 1) * slot, slot, 0.0);
  return weighting;
}

void backward_is_the_gradient() {
  for (const std::string& name : smooth_cells()) {
    Model<double> model(name, kShape);
    const std::vector<double> weighting = loss_weighting(model);
    const auto loss = [&] {
      model.run();
      return dot(weighting, model.states);
    };
    loss();
    Gradients found = gradients(model, weighting, 1);
    check_near(found.x, central_differences(model.x, loss), 1e-7, name + ", x");
    for (std::size_t l = 0; l < model.layers.size(); ++l)
      for (int which = 0; which < kArrays; ++which)
        check_near(found.layers[l].array[which], central_differences(model.layers[l].array[which], loss), 1e-7,
                   name + ", parameter " + std::to_string(which) + " of layer " + std::to_string(l));
    const Index slot = model.cell.states * model.shape.B * model.shape.H;
    const std::vector<double> by_state = central_differences(model.states, loss);
    for (Index l = 0; l < model.shape.L; ++l)
      for (Index i = 0; i < slot; ++i) {
        const std::size_t at = std::size_t(l * (model.shape.T + 1) * slot + i);
        CHECK_NEAR(found.states[at], by_state[at], 1e-7);
      }
  }
}

void same_with_threads(const std::string& name, const StackShape& shape, int threads) {
  Model<double> one(name, shape), many(name, shape);
  one.run(1);
  many.run(threads);
  CHECK(one.states == many.states);
  CHECK(one.gates == many.gates);
  const std::vector<double> weighting = loss_weighting(one);
  const Gradients a = gradients(one, weighting, 1), b = gradients(many, weighting, threads);
  CHECK(a.states == b.states);
  CHECK(a.x == b.x);
  for (std::size_t l = 0; l < a.layers.size(); ++l)
    for (int which = 0; which < kArrays; ++which) CHECK(a.layers[l].array[which] == b.layers[l].array[which]);
}

// Large enough that several workers come, and each way of sharing the work out is taken.
void threads_change_nothing() {
  const StackShape rows = {12, 40, 3, 33, 2}, layers = {60, 3, 9, 65, 3}, units = {14, 2, 9, 210, 1};
  const StackShape units_of_two = {4, 3, 330, 330, 2};
  for (const std::string& name : cpu::cell_names()) {
    const CellShape& cell = cpu::cell_shape(name);
    CHECK(split_of(cell, rows, 3, true) == Split::batch);
    CHECK(split_of(cell, layers, 3, true) == Split::layers);
    CHECK(split_of(cell, layers, 3, false) == Split::batch);
    CHECK(split_of(cell, units, 2, true) == (cell.recurrent_blocks > 0 ? Split::units : Split::batch));
    CHECK(split_of(cell, units_of_two, 3, true) == (cell.recurrent_blocks > 0 ? Split::units : Split::layers));
    for (const int threads : {2, 3, 5})
      for (const StackShape& shape : {rows, layers, units, units_of_two}) same_with_threads(name, shape, threads);
  }
}

void without_biases_or_gates() {
  for (const std::string& name : cpu::cell_names()) {
    Model<double> model(name, kShape), bare(name, kShape);
    for (LayerMemory<double>& layer : model.layers)
      for (const int which : {2, 3}) std::fill(layer.array[which].begin(), layer.array[which].end(), 0.0);
    model.run();
    std::vector<LayerParameters<const double>> layers = bare.parameters();
    for (LayerParameters<const double>& layer : layers) layer.bias_ih = layer.bias_hh = nullptr;
    Trajectory<double> trajectory = bare.trajectory();
    trajectory.gates = nullptr;
    forward(backend<double>(), bare.cell, bare.kernels, layers, trajectory);
    CHECK(bare.states == model.states);
  }
}

void single_precision() {
  for (const std::string& name : cpu::cell_names()) {
    Model<double> exact(name, kShape);
    Model<float> rounded(name, kShape);
    exact.run();
    rounded.run();
    for (std::size_t i = 0; i < exact.states.size(); ++i) CHECK_NEAR(rounded.states[i], exact.states[i], 1e-5);
  }
}

void nothing_to_do() {
  for (const StackShape& shape :
       {StackShape{0, 2, 3, 5, 2}, StackShape{3, 0, 3, 5, 2}, StackShape{3, 2, 0, 5, 1}, StackShape{3, 2, 3, 0, 2}}) {
    Model<double> model("gru", shape);
    model.run(2);
    gradients(model, loss_weighting(model), 2);
    for (const double state : model.states) CHECK(std::isfinite(state));
  }
}

}  // namespace
}  // namespace lsc::test

int main() {
  using namespace lsc::test;
  return run({{"Elman by hand", elman_by_hand},
              {"backward is the gradient", backward_is_the_gradient},
              {"threads change nothing", threads_change_nothing},
              {"without biases or gates", without_biases_or_gates},
              {"single precision", single_precision},
              {"nothing to do", nothing_to_do}});
}
