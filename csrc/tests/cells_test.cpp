// Duals: first and second derivatives of every compiled cell against central differences. Vectors: every kernel of
// every cell against the cell's header on single numbers, at sizes around the vectors.
#include "lsc/every_cell.h"
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

// Rows of units, further apart than they are long; what lies between is NaN, and must stay so.
template <class T>
struct Rows {
  Index count, length, stride;
  std::vector<T> data;

  Rows(Index row_count, Index row_length, Index gap)
      : count(row_count), length(row_length), stride(row_length + gap), data(nan_filled<T>(count * stride)) {}
  Rows(Index row_count, Index row_length, Index gap, std::uint64_t seed) : Rows(row_count, row_length, gap) {
    const std::vector<T> values = normal<T>(seed, count * length);
    for (Index i = 0; i < count; ++i)
      for (Index u = 0; u < length; ++u) at(i, u) = values[std::size_t(i * length + u)];
  }
  T& at(Index row, Index u) { return data[std::size_t(row * stride + u)]; }
  const T& at(Index row, Index u) const { return data[std::size_t(row * stride + u)]; }
  const T* from(Index u) const { return data.data() + u; }
  T* from(Index u) { return data.data() + u; }

  bool written() const {
    for (Index i = 0; i < count; ++i)
      for (Index u = 0; u < stride; ++u)
        if (std::isnan(at(i, u)) != (u >= length)) return false;
    return true;
  }
  friend bool operator==(const Rows& a, const Rows& b) {
    for (Index i = 0; i < a.count; ++i)
      for (Index u = 0; u < a.length; ++u)
        if (a.at(i, u) != b.at(i, u)) return false;
    return true;
  }
};

// What every kernel makes of n units.
template <class T>
struct Outputs {
  Rows<T> next, coefficients, dp, ds, dw, q, r, m, slopes, derived_r, derived_m;
};

template <class T>
struct Units {
  static constexpr Index kGap = 2;
  CellShape cell;
  const CellKernels<T>& kernels;
  Index n, S, P, Q, K;
  Rows<T> p, s, w, u, dp, ds;

  Units(const std::string& name, Index units)
      : cell(cpu::cell_shape(name)),
        kernels(cpu::cell_kernels<T>(name)),
        n(units),
        S(cell.states),
        P(cell.preactivations),
        Q(cell.unit_parameters),
        K(P + S + Q),
        p(P, n, kGap, 1),
        s(S, n, 5, 2),
        w(Q, n, kGap, 3),
        u(S, n, kGap, 4),
        dp(P, n, kGap, 5),
        ds(S, n, kGap, 6) {}

  Outputs<T> empty() const {
    const Index derived = cell.derived ? 1 : 0;
    return {{S, n, 3},
            {S * K, n, kGap},
            {P, n, kGap},
            {S, n, 1, 7},
            {Q, n, kGap},
            {P, n, kGap},
            {S, n, kGap},
            {Q, n, kGap},
            {derived * (S - 1 + Q), n, kGap},
            {derived * S, n, kGap, 8},
            {derived * Q, n, kGap, 9}};
  }
  void run(Index begin, Index end, Outputs<T>& to) const {
    const Index count = end - begin, stride = p.stride;
    const T *p_ = p.from(begin), *s_ = s.from(begin), *w_ = Q > 0 ? w.from(begin) : nullptr, *u_ = u.from(begin);
    kernels.step(count, stride, p_, s_, s.stride, w_, to.next.from(begin), to.next.stride);
    kernels.linearize(count, stride, p_, s_, s.stride, w_, to.coefficients.from(begin));
    kernels.pull(count, stride, p_, s_, s.stride, w_, u_, u.stride, to.dp.from(begin), to.ds.from(begin), to.ds.stride,
                 to.dw.from(begin));
    kernels.second_order(count, stride, p_, s_, s.stride, w_, dp.from(begin), ds.from(begin), u_, to.q.from(begin),
                         to.r.from(begin), to.m.from(begin));
    if (!cell.derived) return;
    kernels.derive_linearize(count, stride, s_, s.stride, w_, to.slopes.from(begin));
    kernels.derive_second_order(count, stride, s_, s.stride, w_, ds.from(begin), u_, to.derived_r.from(begin),
                                to.derived_m.from(begin));
  }
  Outputs<T> run() const {
    Outputs<T> outputs = empty();
    run(0, n, outputs);
    return outputs;
  }
};

template <class T, class Check>
void for_outputs(const Outputs<T>& a, const Outputs<T>& b, Check check) {
  check("step", a.next, b.next);
  check("linearize", a.coefficients, b.coefficients);
  check("pull, dp", a.dp, b.dp);
  check("pull, ds", a.ds, b.ds);
  check("pull, dw", a.dw, b.dw);
  check("second_order, q", a.q, b.q);
  check("second_order, r", a.r, b.r);
  check("second_order, m", a.m, b.m);
  check("derive_linearize", a.slopes, b.slopes);
  check("derive_second_order, r", a.derived_r, b.derived_r);
  check("derive_second_order, m", a.derived_m, b.derived_m);
}

constexpr Index kUnits[] = {1, 3, 31, 33, 65};

template <class T>
constexpr double kTol = 64 * double(std::numeric_limits<T>::epsilon());

// The same from the cell's header on T itself, one unit at a time.
template <class Cell, class T>
Outputs<T> one_by_one(const Units<T>& units) {
  constexpr int S = Cell::kStates, P = Cell::kPreactivations, Q = Cell::kUnitParameters, K = P + S + Q;
  using Outer = Dual<Dual<T, 1>, K>;
  Outputs<T> to = units.empty();
  const auto add = [](T& target, T value) { target = std::isnan(target) ? value : target + value; };
  for (Index u = 0; u < units.n; ++u) {
    Outer unit[K], next[S];
    T plain[K], plain_next[S];
    for (int k = 0; k < K; ++k) {
      plain[k] = k < P ? units.p.at(k, u) : k < P + S ? units.s.at(k - P, u) : units.w.at(k - P - S, u);
      unit[k] = Outer(0.0);
      unit[k].value.value = plain[k];
      unit[k].value.partial[0] = k < P ? units.dp.at(k, u) : k < P + S ? units.ds.at(k - P, u) : T(0);
      unit[k].partial[k] = Dual<T, 1>(1.0);
    }
    Cell::step(plain, plain + P, plain + P + S, plain_next);
    Cell::step(unit, unit + P, unit + P + S, next);
    for (int i = 0; i < S; ++i) {
      to.next.at(i, u) = plain_next[i];
      for (int k = 0; k < K; ++k) {
        const T slope = next[i].partial[k].value, bend = next[i].partial[k].partial[0], weight = units.u.at(i, u);
        to.coefficients.at(i * K + k, u) = slope;
        add(k < P ? to.dp.at(k, u) : k < P + S ? to.ds.at(k - P, u) : to.dw.at(k - P - S, u), weight * slope);
        add(k < P ? to.q.at(k, u) : k < P + S ? to.r.at(k - P, u) : to.m.at(k - P - S, u), weight * bend);
      }
    }
    if constexpr (Cell::kDerived) {
      unit[P].value.partial[0] = T(0);
      const Outer derived = Cell::derive(unit + P, unit + P + S);
      for (int j = 0; j < S + Q; ++j) {
        if (j > 0) to.slopes.at(j - 1, u) = derived.partial[P + j].value;
        add(j < S ? to.derived_r.at(j, u) : to.derived_m.at(j - S, u),
            units.u.at(0, u) * derived.partial[P + j].partial[0]);
      }
    }
  }
  return to;
}

template <class Cell, class T>
void vectors_agree_with_the_header_of() {
  for (const Index n : kUnits) {
    const Units<T> units(Cell::kName, n);
    for_outputs(
        units.run(), one_by_one<Cell>(units), [&](const char* what, const Rows<T>& value, const Rows<T>& expected) {
          const std::string name = std::string(Cell::kName) + ", " + what;
          report(value.written(), name.c_str(), int(n), "expected the units to be written, and nothing else");
          for (Index i = 0; i < value.count; ++i)
            for (Index u = 0; u < n; ++u)
              report_near(double(value.at(i, u)), double(expected.at(i, u)), kTol<T>, name.c_str(), int(u), "unit");
        });
  }
}

template <class T, class... Cells>
int vectors_agree_with_the_headers_of(CellList<Cells...>) {
  (vectors_agree_with_the_header_of<Cells, T>(), ...);
  return int(sizeof...(Cells));
}

template <class T>
void vectors_agree_with_the_headers() {
  int count = 0;
#define LSC_VISIT(file) count += vectors_agree_with_the_headers_of<T>(cells::file::Exported{});
  LSC_EVERY_CELL_FILE(LSC_VISIT)
#undef LSC_VISIT
  CHECK(count == int(cpu::cell_names().size()));
}

template <class T>
void splits_do_not_matter() {
  for (const std::string& name : cpu::cell_names()) {
    const Units<T> units(name, 65);
    const Outputs<T> whole = units.run();
    for (Index cut = 0; cut <= units.n; ++cut) {
      Outputs<T> parts = units.empty();
      units.run(0, cut, parts);
      units.run(cut, units.n, parts);
      for_outputs(whole, parts, [&](const char* what, const Rows<T>& a, const Rows<T>& b) {
        report(a == b, (name + ", " + what).c_str(), int(cut), "expected the same numbers from a row cut here");
      });
    }
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
              {"vectors agree with the headers, single precision", vectors_agree_with_the_headers<float>},
              {"vectors agree with the headers, double precision", vectors_agree_with_the_headers<double>},
              {"splits do not matter, single precision", splits_do_not_matter<float>},
              {"splits do not matter, double precision", splits_do_not_matter<double>},
              {"spiking by hand", spiking_by_hand},
              {"shapes", shapes},
              {"an unknown cell names the known ones", unknown_cell_names_the_known}});
}
