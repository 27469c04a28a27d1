// Duals: first and second derivatives of every compiled cell against central differences.
#include "model.h"

namespace lsc::test {
namespace {

constexpr Index H = 5;

// One row of units: pre-activations p and states s side by side.
struct Row {
  const CellShape& cell;
  const CellKernels<double>& kernels;
  std::vector<double> argument;

  explicit Row(const std::string& name)
      : cell(cpu::cell_shape(name)),
        kernels(cpu::cell_kernels<double>(name)),
        argument(normal<double>(7, (cell.preactivations + cell.states) * H)) {}

  Index S() const { return cell.states; }
  Index K() const { return cell.states + cell.preactivations; }
  const double* p() const { return argument.data(); }
  const double* s() const { return argument.data() + cell.preactivations * H; }

  double next(Index state, Index unit) const {
    std::vector<double> result = nan_filled<double>(S() * H);
    kernels.step(H, p(), s(), H, result.data(), H);
    return result[std::size_t(state * H + unit)];
  }
  std::vector<double> coefficients() const {
    std::vector<double> result = nan_filled<double>(S() * K() * H);
    kernels.linearize(H, p(), s(), H, result.data());
    return result;
  }
};

void first_derivatives() {
  for (const std::string& name : cpu::cell_names()) {
    Row row(name);
    const std::vector<double> coefficients = row.coefficients();
    for (Index i = 0; i < row.S(); ++i)
      for (Index unit = 0; unit < H; ++unit) {
        const std::vector<double> slopes = central_differences(row.argument, [&] { return row.next(i, unit); });
        for (Index k = 0; k < row.K(); ++k)
          for (Index u = 0; u < H; ++u)
            CHECK_NEAR(slopes[std::size_t(k * H + u)],
                       u == unit ? coefficients[std::size_t((i * row.K() + k) * H + u)] : 0.0, 1e-8);
      }
  }
}

void second_derivatives() {
  for (const std::string& name : cpu::cell_names()) {
    Row row(name);
    const std::vector<double> direction = normal<double>(8, row.K() * H), u = normal<double>(9, row.S() * H);
    const double *dp = direction.data(), *ds = direction.data() + row.cell.preactivations * H;
    std::vector<double> gradient = nan_filled<double>(row.K() * H);
    row.kernels.second_order(H, row.p(), row.s(), H, dp, ds, u.data(), gradient.data(),
                             gradient.data() + row.cell.preactivations * H);
    const auto phi = [&] {
      const std::vector<double> coefficients = row.coefficients();
      double sum = 0;
      for (Index i = 0; i < row.S(); ++i)
        for (Index k = 0; k < row.K() * H; ++k)
          sum += u[std::size_t(i * H + k % H)] * coefficients[std::size_t(i * row.K() * H + k)] *
                 direction[std::size_t(k)];
      return sum;
    };
    check_near(gradient, central_differences(row.argument, phi), 1e-7, "second order of " + name);
  }
}

// Single precision evaluates the same formula.
void single_precision() {
  for (const std::string& name : cpu::cell_names()) {
    const Row row(name);
    const std::vector<float> argument(row.argument.begin(), row.argument.end());
    std::vector<float> next = nan_filled<float>(row.S() * H);
    cpu::cell_kernels<float>(name).step(H, argument.data(), argument.data() + row.cell.preactivations * H, H,
                                        next.data(), H);
    for (Index i = 0; i < row.S(); ++i)
      for (Index unit = 0; unit < H; ++unit) CHECK_NEAR(next[std::size_t(i * H + unit)], row.next(i, unit), 1e-5);
  }
}

void shapes() {
  for (const std::string& name : cpu::cell_names()) {
    const CellShape& cell = cpu::cell_shape(name);
    CHECK(cell.name == name);
    CHECK(cell.states >= 1 && cell.states <= kMaxStates);
    CHECK(Index(cell.feeds.size()) == cell.preactivations);
    CHECK(cell.input_blocks >= 1);
  }
}

void unknown_cell_names_the_known() {
  std::string message;
  try {
    cpu::cell_shape("no such cell");
  } catch (const std::invalid_argument& error) {
    message = error.what();
  }
  CHECK(message.find("no such cell") != std::string::npos);
  CHECK(!cpu::cell_names().empty());
  for (const std::string& name : cpu::cell_names()) CHECK(message.find(name) != std::string::npos);
}

}  // namespace
}  // namespace lsc::test

int main() {
  using namespace lsc::test;
  return run({{"first derivatives", first_derivatives},
              {"second derivatives", second_derivatives},
              {"single precision", single_precision},
              {"shapes", shapes},
              {"an unknown cell names the known ones", unknown_cell_names_the_known}});
}
