#include "python/operators.h"

#include <algorithm>
#include <memory>
#include <variant>

#include "algorithms/chain_growth.h"
#include "algorithms/chain_operator.h"
#include "algorithms/radius_batch.h"
#include "algorithms/step_operator.h"
#include "lsc/philox.h"
#include "python/result_buffers.h"
#include "python/step_arguments.h"

namespace lsc::python {
namespace {

// A Jacobian that only a Python function can multiply with, for many points at once. `function(transpose, count)` reads
// the first `count` rows of v [N, n] and of index [N], the point of each row, and writes those of out [N, n].
template <class T>
class CallbackOperator : public Operator<T> {
 public:
  CallbackOperator(Index points, Index n, std::int64_t* index, T* v, T* out, py::function function)
      : points_(points), n_(n), index_(index), v_(v), out_(out), function_(std::move(function)) {}
  ~CallbackOperator() override {
    const py::gil_scoped_acquire lock;
    function_ = py::function();
  }

  Index points() const override { return points_; }
  Index rows() const override { return n_; }
  Index columns() const override { return n_; }
  bool concurrent() const override { return false; }

  void apply(Product product, Index count, const Index* point, const T* v, T* out, T*) const override {
    for (Index begin = 0; begin < count; begin += points_) {
      const Index size = std::min(points_, count - begin);
      std::copy_n(point + begin, size, index_);
      std::copy_n(v + begin * n_, size * n_, v_);
      {
        const py::gil_scoped_acquire lock;
        function_(product == Product::rmatvec, size);
      }
      std::copy_n(out_, size * n_, out + begin * n_);
    }
  }

 private:
  Index points_, n_;
  std::int64_t* index_;
  T* v_;
  T* out_;
  py::function function_;
};

class AnyOperator {
 public:
  template <class T>
  explicit AnyOperator(std::unique_ptr<Operator<T>> held) : held_(std::move(held)) {}

  Index points() const {
    return visit([](const auto& op) { return op.points(); });
  }
  Index rows() const {
    return visit([](const auto& op) { return op.rows(); });
  }
  Index columns() const {
    return visit([](const auto& op) { return op.columns(); });
  }

  void apply(bool transpose, const OptionalBuffer& indices, Index count, const Buffer& v, const Buffer& out,
             int threads) const {
    visit_typed([&](const auto& op, auto zero) {
      using T = decltype(zero);
      const Index in_size = transpose ? op.rows() : op.columns(), out_size = transpose ? op.columns() : op.rows();
      const std::vector<Index> points = checked_points(indices, count);
      const T* source = data<const T>("v", v, checked_size("v", {count, in_size}));
      T* target = data<T>("out", out, checked_size("out", {count, out_size}));
      const Backend<T> backend = make_backend<T>(threads);
      release_and_run([&] {
        const double operations = 4.0 * double(count * op.rows()) * double(op.columns());
        const int useful = op.concurrent() ? useful_threads(threads, operations) : 1;
        parallel_ranges(useful, count, backend.poll, [&](Index begin, Index end, const Poll&) {
          if (begin == end) return;
          const Memory<T> scratch(op.scratch(end - begin));
          op.apply(transpose ? Product::rmatvec : Product::matvec, end - begin, points.data() + begin,
                   source + begin * in_size, target + begin * out_size, scratch.data());
        });
      });
    });
  }

  void radii(double tol, Index max_matvecs, std::uint64_t seed, const OptionalBuffer& indices, Index count,
             const OptionalBuffer& targets, bool transposed, const ResultBuffers& out, int threads,
             std::uint64_t first) const {
    visit_typed([&](const auto& op, auto zero) {
      using T = decltype(zero);
      double* radius = data<double>("radius", out.radius, count);
      const std::vector<Index> points = checked_points(indices, count);
      Complex* eigenvalue = reinterpret_cast<Complex*>(data<double>("eigenvalue", out.eigenvalue, 2 * count));
      double* residual = data<double>("residual", out.residual, count);
      double* condition = data<double>("condition", out.condition, count);
      std::int32_t* num_matvecs = data<std::int32_t>("num_matvecs", out.num_matvecs, count);
      std::uint8_t* status = data<std::uint8_t>("status", out.status, count);
      T* vectors = data<T>("vectors", out.vectors, checked_size("vectors", {count, 2, op.rows()}));
      RadiusTargets goals;
      goals.point = points.data();
      goals.eigenvalue = reinterpret_cast<const Complex*>(data<const double>("targets", targets, 2 * count));
      goals.transposed = transposed;
      goals.first = first;
      RadiusOptions options;
      options.tol = tol;
      options.max_matvecs = max_matvecs;
      options.seed = seed;
      std::vector<RadiusResult> results(static_cast<std::size_t>(count));
      const Backend<T> backend = make_backend<T>(threads);
      release_and_run([&] { estimate_radii<T>(backend, op, options, count, goals, results.data(), vectors); });
      for (Index i = 0; i < count; ++i) {
        const RadiusResult& result = results[std::size_t(i)];
        radius[i] = result.radius;
        eigenvalue[i] = result.eigenvalue;
        residual[i] = result.residual;
        condition[i] = result.condition;
        num_matvecs[i] = std::int32_t(result.num_matvecs);
        status[i] = std::uint8_t(result.status);
      }
    });
  }

  // Products of K of these: chains [count, K] of points, scales [count] of each factor. This operator must outlive it.
  std::unique_ptr<AnyOperator> chain(const Buffer& chains, Index count, Index length, const Buffer& scales,
                                     bool gram) const {
    if (rows() != columns())
      throw std::invalid_argument("operator: expected square Jacobians, got " + std::to_string(rows()) + " x " +
                                  std::to_string(columns()));
    if (length < 1) throw std::invalid_argument("chains: expected at least one factor, got 0");
    const std::int64_t size = checked_size("chains", {count, length});
    std::vector<Index> points = checked_points(OptionalBuffer(chains), size);
    const double* given = data<const double>("scales", scales, count);
    std::vector<double> factors(given, given + count);
    std::unique_ptr<AnyOperator> made;
    visit_typed([&](const auto& op, auto zero) {
      using T = decltype(zero);
      std::unique_ptr<Operator<T>> held =
          std::make_unique<ChainOperator<T>>(op, count, length, std::move(points), std::move(factors), gram);
      made = std::make_unique<AnyOperator>(std::move(held));
    });
    return made;
  }

  void growth(const Buffer& points, Index steps, Index chains, Index vectors, Index every, std::uint64_t seed,
              const Buffer& q, const Buffer& logs, int threads) const {
    visit_typed([&](const auto& op, auto zero) {
      using T = decltype(zero);
      if (op.rows() != op.columns())
        throw std::invalid_argument("operator: expected square Jacobians, got " + std::to_string(op.rows()) + " x " +
                                    std::to_string(op.columns()));
      if (vectors < 1 || vectors > op.rows())
        throw std::invalid_argument("vectors: expected 1 .. " + std::to_string(op.rows()) + ", got " +
                                    std::to_string(vectors));
      if (every < 1) throw std::invalid_argument("every: expected at least 1, got " + std::to_string(every));
      const std::vector<Index> at = checked_points(OptionalBuffer(points), checked_size("points", {steps, chains}));
      T* vector = data<T>("q", q, checked_size("q", {chains, vectors, op.rows()}));
      double* sums = data<double>("logs", logs, checked_size("logs", {chains, vectors}));
      const Backend<T> backend = make_backend<T>(threads);
      release_and_run(
          [&] { chain_growth<T>(backend, op, {chains, steps, vectors, every, seed}, at.data(), vector, sums); });
    });
  }

  template <class F>
  void visit_typed(F&& f) const {
    if (const auto* single = std::get_if<std::unique_ptr<Operator<float>>>(&held_))
      f(**single, float{});
    else
      f(*std::get<std::unique_ptr<Operator<double>>>(held_), double{});
  }

 private:
  template <class F>
  Index visit(F&& f) const {
    return std::visit([&](const auto& held) -> Index { return f(*held); }, held_);
  }

 protected:
  std::vector<Index> checked_points(const OptionalBuffer& indices, Index count) const {
    std::vector<Index> points(static_cast<std::size_t>(checked_size("count", {count})));
    const std::int64_t* given = data<const std::int64_t>("indices", indices, count);
    for (Index i = 0; i < count; ++i) {
      points[std::size_t(i)] = given ? Index(given[i]) : i;
      if (points[std::size_t(i)] < 0 || points[std::size_t(i)] >= this->points())
        throw std::invalid_argument("indices: expected 0 .. " + std::to_string(this->points() - 1) + ", got " +
                                    std::to_string(points[std::size_t(i)]));
    }
    return points;
  }

 private:
  std::variant<std::unique_ptr<Operator<float>>, std::unique_ptr<Operator<double>>> held_;
};

class AnyStepOperator : public AnyOperator {
 public:
  template <class T>
  AnyStepOperator(std::unique_ptr<Operator<T>> held, const CellShape& cell, const StackShape& shape, Index layer,
                  bool diagonal)
      : AnyOperator(std::move(held)), cell_(cell), shape_(shape), layer_(layer), diagonal_(diagonal) {}

  // Adds d phi / d parameters for phi = sum_j u_j' J[indices[j]] v_j, and writes what a change of the data would do.
  void bilinear_gradient(const Buffer& indices, Index count, const Buffer& u, const Buffer& v,
                         const std::vector<OptionalBuffer>& gradient, const std::vector<OptionalBuffer>& gradient_below,
                         const OptionalBuffer& states, const OptionalBuffer& input, const OptionalBuffer& states_below,
                         const OptionalBuffer& input_below, int threads) const {
    visit_typed([&](const auto& op, auto zero) {
      using T = decltype(zero);
      const auto& step = static_cast<const StepOperator<T>&>(op);
      const std::vector<Index> points = checked_points(indices, count);
      const T* left = data<const T>("u", u, checked_size("u", {count, op.rows()}));
      const T* right = data<const T>("v", v, checked_size("v", {count, op.columns()}));
      const BilinearGradients<T> out = bilinear_gradients<T>(cell_, shape_, layer_, diagonal_, count, gradient,
                                                             gradient_below, states, input, states_below, input_below);
      const Backend<T> backend = make_backend<T>(threads);
      if (count == 0) return;
      release_and_run([&] {
        step.bilinear_gradient(backend, count, points.data(), left, right, out.own, out.below, out.states, out.input,
                               out.states_below, out.input_below);
      });
    });
  }

 private:
  CellShape cell_;
  StackShape shape_;
  Index layer_;
  bool diagonal_;
};

std::unique_ptr<AnyStepOperator> step_operator(const std::string& cell_name, const std::string& dtype,
                                               const Sizes& sizes, const Buffer& x, const LayerBuffers& weights,
                                               const Buffer& states, const Buffer& gates, Index layer,
                                               const std::string& direction, const Buffer& t, const Buffer& b,
                                               Index count, int threads) {
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const StepArguments<T> given =
        step_arguments<T>(cell_name, sizes, x, weights, states, gates, layer, direction, t, b, count);
    std::vector<GridPoint> points;
    for (Index i = 0; i < count; ++i) {
      if (given.t[i] < 0 || given.t[i] >= given.shape.T || given.b[i] < 0 || given.b[i] >= given.shape.B)
        throw std::invalid_argument("points: expected 0 <= t < T and 0 <= b < B, got (" + std::to_string(given.t[i]) +
                                    ", " + std::to_string(given.b[i]) + ")");
      points.push_back({Index(given.t[i]), Index(given.b[i])});
    }
    const Backend<T> backend = make_backend<T>(threads);
    std::unique_ptr<Operator<T>> held;
    release_and_run([&] {
      held = std::make_unique<StepOperator<T>>(backend, cpu::cell_shape(cell_name), cpu::cell_kernels<T>(cell_name),
                                               given.layers, given.trajectory, layer, given.direction, points);
    });
    return std::make_unique<AnyStepOperator>(std::move(held), given.cell, given.shape, layer,
                                             given.direction == Direction::diagonal);
  });
}

std::unique_ptr<AnyOperator> matrix_operator(const std::string& dtype, Index points, Index rows, Index columns,
                                             const Buffer& matrices) {
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* memory = data<const T>("matrices", matrices, checked_size("matrices", {points, rows, columns}));
    std::unique_ptr<Operator<T>> held =
        std::make_unique<MatrixOperator<T>>(cpu::linear_kernels<T>(), points, rows, columns, memory);
    return std::make_unique<AnyOperator>(std::move(held));
  });
}

std::unique_ptr<AnyOperator> callback_operator(const std::string& dtype, Index points, Index n, const Buffer& index,
                                               const Buffer& v, const Buffer& out, const py::function& function) {
  return dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t size = checked_size("v", {points, n});
    std::unique_ptr<Operator<T>> held =
        std::make_unique<CallbackOperator<T>>(points, n, data<std::int64_t>("index", index, points),
                                              data<T>("v", v, size), data<T>("out", out, size), function);
    return std::make_unique<AnyOperator>(std::move(held));
  });
}

// Row i of out [count, n] <- start vector first + i of `seed`, standard normal.
void start_vectors(const std::string& dtype, std::uint64_t seed, std::uint64_t first, Index count, Index n,
                   const Buffer& out, int threads) {
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    T* v = data<T>("out", out, checked_size("out", {count, n}));
    const Backend<T> backend = make_backend<T>(threads);
    release_and_run([&] {
      parallel_ranges(useful_threads(threads, 50.0 * double(count * n)), count, backend.poll,
                      [&](Index begin, Index end, const Poll& poll) {
                        for (Index i = begin; i < end && !poll(); ++i)
                          fill_normal(seed, first + std::uint64_t(i), 0, n, v + i * n);
                      });
    });
  });
}

}  // namespace

void bind_operators(py::module_& module) {
  bind_result_buffers<ResultBuffers>(module);
  py::class_<AnyOperator>(module, "Operator")
      .def_property_readonly("points", &AnyOperator::points)
      .def_property_readonly("rows", &AnyOperator::rows)
      .def_property_readonly("columns", &AnyOperator::columns)
      .def("apply", &AnyOperator::apply, py::arg("transpose"), py::arg("indices"), py::arg("count"), py::arg("v"),
           py::arg("out"), py::arg("threads"))
      .def("radii", &AnyOperator::radii, py::arg("tol"), py::arg("max_matvecs"), py::arg("seed"), py::arg("indices"),
           py::arg("count"), py::arg("targets"), py::arg("transposed"), py::arg("out"), py::arg("threads"),
           py::arg("first") = 0)
      .def("chain", &AnyOperator::chain, py::arg("chains"), py::arg("count"), py::arg("length"), py::arg("scales"),
           py::arg("gram"), py::keep_alive<0, 1>())
      .def("growth", &AnyOperator::growth, py::arg("points"), py::arg("steps"), py::arg("chains"), py::arg("vectors"),
           py::arg("every"), py::arg("seed"), py::arg("q"), py::arg("logs"), py::arg("threads"));
  py::class_<AnyStepOperator, AnyOperator>(module, "StepOperator")
      .def("bilinear_gradient", &AnyStepOperator::bilinear_gradient, py::arg("indices"), py::arg("count"), py::arg("u"),
           py::arg("v"), py::arg("gradient"), py::arg("gradient_below"), py::arg("states"), py::arg("input"),
           py::arg("states_below"), py::arg("input_below"), py::arg("threads"));
  module.def("step_operator", &step_operator, py::arg("cell"), py::arg("dtype"), py::arg("sizes"), py::arg("x"),
             py::arg("weights"), py::arg("states"), py::arg("gates"), py::arg("layer"), py::arg("direction"),
             py::arg("t"), py::arg("b"), py::arg("count"), py::arg("threads"));
  module.def("start_vectors", &start_vectors, py::arg("dtype"), py::arg("seed"), py::arg("first"), py::arg("count"),
             py::arg("n"), py::arg("out"), py::arg("threads"));
  module.def("matrix_operator", &matrix_operator, py::arg("dtype"), py::arg("points"), py::arg("rows"),
             py::arg("columns"), py::arg("matrices"));
  module.def("callback_operator", &callback_operator, py::arg("dtype"), py::arg("points"), py::arg("n"),
             py::arg("index"), py::arg("v"), py::arg("out"), py::arg("function"));
}

}  // namespace lsc::python
