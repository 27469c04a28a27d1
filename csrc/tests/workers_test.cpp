// Workers: who runs what, how a run stops, and what a forked child does.
#if defined(__unix__) || defined(__APPLE__)
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#endif

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

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

using Clock = std::chrono::steady_clock;

const bool parallel = cpu::thread_runtime() != std::string("serial");

// As many workers as asked, but no more than there are items, each with a number of its own.
void as_many_workers_as_asked() {
  for (const int threads : {1, 2, 3, 5})
    for (const std::int64_t items : {1, 4, 64}) {
      std::vector<std::atomic<int>> visits(64);
      run_workers(threads, items, {}, [&](int worker, const Poll&) { ++visits[std::size_t(worker)]; });
      const int expected = parallel ? int(std::min<std::int64_t>(threads, items)) : 1;
      for (int worker = 0; worker < 64; ++worker) CHECK(visits[std::size_t(worker)] == (worker < expected ? 1 : 0));
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

// Worker 0 alone may ask, so it must go on asking when its own share is done.
void poll_interrupts_workers_that_outlast_the_first() {
  if (!parallel) return;
  std::atomic<bool> first_is_done{false}, told{false};
  CHECK_THROWS(run_workers(
                   2, 2, [&] { return first_is_done.load(); },
                   [&](int worker, const Poll& poll) {
                     const auto deadline = Clock::now() + std::chrono::seconds(10);
                     if (worker == 0) first_is_done = true;
                     if (worker == 1)
                       while (!told && Clock::now() < deadline) told = poll();
                   }),
               Interrupted);
  CHECK(told);
}

#if defined(__unix__) || defined(__APPLE__)
double own_processor_seconds() {
  timespec used{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return double(used.tv_sec) + 1e-9 * double(used.tv_nsec);
}

void waiting_for_the_others_takes_no_processor_time() {
  double before = 0;
  run_workers(
      2, 2, [] { return false; },
      [&](int worker, const Poll&) {
        if (worker == 0) before = own_processor_seconds();
        if (worker == 1) std::this_thread::sleep_for(std::chrono::milliseconds(300));
      });
  CHECK(own_processor_seconds() - before < 0.05);
}
#endif

// A worker that starts workers does their work itself, and asks nobody but the run that it belongs to.
void work_inside_a_worker_is_serial() {
  std::atomic<int> outer{0}, inner{0}, elsewhere{0};
  const std::thread::id caller = std::this_thread::get_id();
  const Poll own = [&] {
    elsewhere += std::this_thread::get_id() != caller;
    return false;
  };
  run_workers(3, 3, own, [&](int, const Poll&) {
    ++outer;
    const std::thread::id here = std::this_thread::get_id();
    run_workers(4, 4, own, [&](int worker, const Poll& poll) {
      ++inner;
      elsewhere += worker != 0 || std::this_thread::get_id() != here;
      CHECK(!poll());
    });
  });
  CHECK(outer == (parallel ? 3 : 1));
  CHECK(inner == outer);
  CHECK(elsewhere == 0);
}

void poll_interrupts_work_inside_a_worker() {
  CHECK_THROWS(run_workers(
                   3, 3, [] { return true; },
                   [](int, const Poll&) {
                     run_workers(2, 2, {}, [](int, const Poll& poll) {
                       while (!poll()) continue;
                     });
                   }),
               Interrupted);
}

// No member passes a meeting before all have come to it, and what each wrote before is there.
void a_team_meets() {
  constexpr int rounds = 200;
  for (const int threads : {1, 2, 5}) {
    std::vector<std::vector<int>> written(64, std::vector<int>(rounds, 0));
    std::atomic<int> members{0}, wrong{0};
    run_team(threads, {}, [&](Team& team) {
      ++members;
      for (int round = 0; round < rounds; ++round) {
        written[std::size_t(team.number())][std::size_t(round)] = round + 1;
        team.meet();
        for (int other = 0; other < team.size(); ++other)
          wrong += written[std::size_t(other)][std::size_t(round)] != round + 1;
      }
    });
    CHECK(members == (parallel ? threads : 1));
    CHECK(wrong == 0);
  }
}

void a_team_shares_everything_out_once() {
  for (const Index count : {0, 1, 5, 64, 65})
    for (const Index grain : {1, 16}) {
      std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
      run_team(3, {}, [&](Team& team) {
        const Range share = team.share(count, grain);
        CHECK(share.begin % grain == 0 || share.size() == 0);
        for (Index i = share.begin; i < share.end; ++i) ++visits[std::size_t(i)];
      });
      for (const std::atomic<int>& visit : visits) CHECK(visit == 1);
    }
}

void a_member_that_throws_releases_those_who_wait() {
  const std::atomic<Index> never{0};
  CHECK_THROWS(run_team(3, {},
                        [&](Team& team) {
                          if (team.number() == team.size() - 1) throw std::domain_error("x");
                          if (team.number() == 0) team.meet();
                          team.wait(never, 1);
                        }),
               std::domain_error);
}

void poll_interrupts_a_team_that_waits() {
  if (!parallel) return;
  const std::atomic<Index> never{0};
  CHECK_THROWS(run_team(2, [] { return true; }, [&](Team& team) { team.wait(never, 1); }), Interrupted);
  CHECK_THROWS(run_team(
                   2, [] { return true; },
                   [&](Team&) {
                     run_workers(2, 2, {}, [](int worker, const Poll& poll) {
                       CHECK(worker == 0);
                       while (!poll()) continue;
                     });
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
      {"as many workers as asked", as_many_workers_as_asked},
      {"an exception reaches the caller", an_exception_reaches_the_caller},
      {"a poll interrupts all workers", poll_interrupts_all_workers},
      {"a poll interrupts workers that outlast the first", poll_interrupts_workers_that_outlast_the_first},
      {"work inside a worker is serial", work_inside_a_worker_is_serial},
      {"a poll interrupts work inside a worker", poll_interrupts_work_inside_a_worker},
      {"a team meets", a_team_meets},
      {"a team shares everything out once", a_team_shares_everything_out_once},
      {"a member that throws releases those who wait", a_member_that_throws_releases_those_who_wait},
      {"a poll interrupts a team that waits", poll_interrupts_a_team_that_waits},
      {"a poll interrupts algorithms", poll_interrupts_algorithms},
      {"work goes on after an interrupt", work_goes_on_after_an_interrupt},
#if defined(__unix__) || defined(__APPLE__)
      {"waiting for the others takes no processor time", waiting_for_the_others_takes_no_processor_time},
      {"a forked child computes the same", a_forked_child_computes_the_same},
#endif
  });
}
