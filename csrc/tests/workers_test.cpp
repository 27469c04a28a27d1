// Workers: who runs what, how a run stops, and what a forked child does.
#if defined(__unix__) || defined(__APPLE__)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include <atomic>
#include <stdexcept>

#include "algorithms/radius_batch.h"
#include "model.h"

namespace lsc::test {
namespace {

void every_item_once() {
  for (const int threads : {1, 2, 5})
    for (const std::int64_t count : {0, 1, 3, 64}) {
      std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
      parallel_ranges(threads, count, {}, [&](std::int64_t begin, std::int64_t end, const Poll&) {
        for (std::int64_t i = begin; i < end; ++i) ++visits[std::size_t(i)];
      });
      for (const std::atomic<int>& visit : visits) CHECK(visit == 1);
    }
}

void an_exception_reaches_the_caller() {
  for (const int threads : {1, 3})
    CHECK_THROWS(
        parallel_ranges(threads, 8, {}, [](std::int64_t, std::int64_t, const Poll&) { throw std::domain_error("x"); }),
        std::domain_error);
}

// What worker 0 is told reaches the others.
void poll_interrupts_all_workers() {
  CHECK_THROWS(run_workers(
                   3, 3, [] { return true; },
                   [](int, const Poll& poll) {
                     while (!poll()) continue;
                   }),
               Interrupted);
}

void poll_interrupts_algorithms() {
  const Backend<double> stopping = backend<double>(1, [] { return true; });
  Model<double> model("gru", {4, 6, 3, 5, 2});
  CHECK_THROWS(forward(stopping, model.cell, model.kernels, model.parameters(), model.trajectory()), Interrupted);
  const Index n = 40, count = 8;
  const std::vector<double> matrices = normal<double>(1, n * n * count);
  const MatrixOperator<double> jacobian(cpu::linear_kernels<double>(), count, n, n, matrices.data());
  std::vector<RadiusResult> results(static_cast<std::size_t>(count));
  CHECK_THROWS(estimate_radii<double>(stopping, jacobian, {}, count, {}, results.data(), nullptr), Interrupted);
}

// An interrupted library works on.
void work_goes_on_after_an_interrupt() {
  Model<double> model("gru", {4, 6, 3, 5, 2});
  model.run(3);
  for (const double state : model.states) CHECK(std::isfinite(state));
}

#if defined(__unix__) || defined(__APPLE__)
void a_forked_child_computes_the_same() {
  Model<double> here("gru", {4, 6, 3, 5, 2}), there = here;
  here.run(3);
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    there.run(3);
    _exit(there.states == here.states ? 0 : 1);
  }
  int status = 1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
#endif

}  // namespace
}  // namespace lsc::test

int main() {
  using namespace lsc::test;
  return run({
      {"every item once", every_item_once},
      {"an exception reaches the caller", an_exception_reaches_the_caller},
      {"a poll interrupts all workers", poll_interrupts_all_workers},
      {"a poll interrupts algorithms", poll_interrupts_algorithms},
      {"work goes on after an interrupt", work_goes_on_after_an_interrupt},
#if defined(__unix__) || defined(__APPLE__)
      {"a forked child computes the same", a_forked_child_computes_the_same},
#endif
  });
}
