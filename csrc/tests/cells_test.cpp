// Duals: first and second derivatives of every compiled cell against central differences.
#include "model.h"

namespace lsc::test {
namespace {

constexpr Index H = 5;

// One row of units: pre-activations p, states s and parameters w side by side.
struct Row {
  const CellShape& cell;
  const CellKernels<double>& kernels;
  std::vector<double> argument;

  explicit Row(const std::string& name)
      : cell(cpu::cell_shape(name)), kernels(cpu::cell_kernels<double>(name)), argument(normal<double>(7, K() * H)) {}

  Index S() const { return cell.states; }
  Index K() const { return cell.preactivations + cell.states + cell.unit_parameters; }
  const double* p() const { return argument.data(); }
  const double* s() const { return p() + cell.preactivations * H; }
  const double* w() const { return s() + cell.states * H; }

  double next(Index state, Index unit) const {
    std::vector<double> result = nan_filled<double>(S() * H);
    kernels.step(H, H, p(), s(), H, w(), result.data(), H);
    return result[std::size_t(state * H + unit)];
  }
  std::vector<double> coefficients() const {
    std::vector<double> result = nan_filled<double>(S() * K() * H);
    kernels.linearize(H, H, p(), s(), H, w(), result.data());
    return result;
  }
};

void first_derivatives() {
  for (const std::string& name : smooth_cells()) {
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
  for (const std::string& name : smooth_cells()) {
    Row row(name);
    std::vector<double> direction = normal<double>(8, row.K() * H);
    const std::vector<double> u = normal<double>(9, row.S() * H);
    const double *dp = direction.data(), *ds = dp + row.cell.preactivations * H;
    std::fill(direction.begin() + (row.w() - row.p()), direction.end(), 0.0);  // parameters do not move
    std::vector<double> gradient = nan_filled<double>(row.K() * H);
    row.kernels.second_order(H, H, row.p(), row.s(), H, row.w(), dp, ds, u.data(), gradient.data(),
                             gradient.data() + (row.s() - row.p()), gradient.data() + (row.w() - row.p()));
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
    cpu::cell_kernels<float>(name).step(H, H, argument.data(), argument.data() + (row.s() - row.p()), H,
                                        argument.data() + (row.w() - row.p()), next.data(), H);
    for (Index i = 0; i < row.S(); ++i)
      for (Index unit = 0; unit < H; ++unit) CHECK_NEAR(next[std::size_t(i * H + unit)], row.next(i, unit), 1e-5);
  }
}

// With the surrogate slope s of a spike: d z / d v = s, d z / d a = -beta s; the reset passes nothing on.
void spiking_by_hand() {
  const CellKernels<double>& kernels = cpu::cell_kernels<double>("alif");
  const double p = 0.3, w[] = {0.9, 0.8, 0.5, 1.5};
  for (const double v : {0.1, 2.0}) {
    const double a = 0.25, z = v - (w[2] + w[3] * a) > 0 ? 1 : 0, s[] = {z, v, a};
    double next[3], local[3 * 8], slopes[6];
    kernels.step(1, 1, &p, s, 1, w, next, 1);
    const double next_a = w[1] * a + (1 - w[1]) * z, next_v = w[0] * v + p - (w[2] + w[3] * next_a) * z;
    const double distance = next_v - w[2] - w[3] * next_a;
    CHECK_NEAR(next[2], next_a, 1e-15);
    CHECK_NEAR(next[1], next_v, 1e-15);
    CHECK_NEAR(next[0], distance > 0 ? 1.0 : 0.0, 0);
    kernels.linearize(1, 1, &p, s, 1, w, local);
    const double slope = 0.5 / std::pow(1 + 2 * std::fabs(distance), 2);
    const double dv[] = {1, 0, w[0], 0, v, 0, 0, 0}, da[] = {0, 1 - w[1], 0, w[1], 0, a - z, 0, 0};
    for (int k = 0; k < 8; ++k) {
      const double dthreshold = k == 6 ? 1 : k == 7 ? next_a : 0;
      CHECK_NEAR(local[8 + k], dv[k], 1e-15);
      CHECK_NEAR(local[16 + k], da[k], 1e-15);
      CHECK_NEAR(local[k], slope * (dv[k] - w[3] * da[k] - dthreshold), 1e-15);
    }
    kernels.derive_linearize(1, 1, s, 1, w, slopes);
    const double before = 0.5 / std::pow(1 + 2 * std::fabs(v - w[2] - w[3] * a), 2);
    CHECK_NEAR(slopes[0], before, 1e-15);
    CHECK_NEAR(slopes[1], -w[3] * before, 1e-15);
    const double by_parameter[] = {0, 0, -before, -a * before};
    for (int k = 0; k < 4; ++k) CHECK_NEAR(slopes[2 + k], by_parameter[k], 1e-15);
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
              {"spiking by hand", spiking_by_hand},
              {"shapes", shapes},
              {"an unknown cell names the known ones", unknown_cell_names_the_known}});
}
