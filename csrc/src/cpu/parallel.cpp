// The workers of algorithms/backend.h on OpenMP: where torch was loaded first, in the runtime that torch loaded. Serial
// in a forked child.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "cpu/dispatch.h"

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace lsc {
namespace {

// A forked child inherits the pool's bookkeeping but none of its threads: using it would wait for ever.
std::atomic<bool> in_forked_child{false};

// Registered when the module loads: torch may start the pool before our first call.
[[maybe_unused]] const bool watching_forks = [] {
#if defined(__unix__) || defined(__APPLE__)
  return pthread_atfork(nullptr, nullptr, [] { in_forked_child = true; }) == 0;
#else
  return false;
#endif
}();

// Inside a body that has company: what its worker asks. Work that is started there stays on that worker and asks the
// same, for its own poll belongs to another thread.
thread_local const Poll* enclosing = nullptr;

// Whether the other workers of a run are done.
class Finish {
 public:
  void one_more() {
    const std::lock_guard<std::mutex> lock(guard_);
    ++done_;
    changed_.notify_one();
  }

  // Waits until `others` are done or `poll` stops the run. Awake for as long as it takes to fall asleep and be woken,
  // asleep from then on, up to a poll every few milliseconds.
  void wait_for(int others, const Poll& poll) {
    using namespace std::chrono;
    const auto tired = steady_clock::now() + microseconds(50);
    while (done_ < others && steady_clock::now() < tired) std::this_thread::yield();
    std::unique_lock<std::mutex> lock(guard_);
    while (!changed_.wait_for(lock, milliseconds(5), [&] { return done_ >= others; })) {
      lock.unlock();
      if (poll()) return;
      lock.lock();
    }
  }

 private:
  std::mutex guard_;
  std::condition_variable changed_;
  std::atomic<int> done_{0};
};

}  // namespace

void run_workers(int threads, std::int64_t work_items, const Poll& own_poll,
                 const std::function<void(int, const Poll&)>& body) {
  const bool serial = in_forked_child || enclosing;
  const int workers = serial ? 1 : int(std::max<std::int64_t>(1, std::min<std::int64_t>(threads, work_items)));
  const Poll& poll = enclosing ? *enclosing : own_poll;
  std::atomic<bool> stop{false};
  std::exception_ptr failure;
  std::mutex guard;
  Finish finish;
  const auto work = [&](int worker, int company) {
    const Poll watch = [&, worker] {
      if (worker == 0 && poll && !stop && poll()) stop = true;
      return stop.load(std::memory_order_relaxed);
    };
    const Poll* const outside = enclosing;
    if (company > 1) enclosing = &watch;
    try {
      body(worker, watch);
      if (worker == 0 && company > 1 && poll) finish.wait_for(company - 1, watch);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(guard);
      if (!failure) failure = std::current_exception();
      stop = true;
    }
    enclosing = outside;
    if (worker > 0) finish.one_more();
  };
  if (workers == 1) {
    work(0, 1);
  } else {
#if defined(_OPENMP)
#pragma omp parallel num_threads(workers)
    work(omp_get_thread_num(), omp_get_num_threads());
#else
    work(0, 1);
#endif
  }
  if (failure) std::rethrow_exception(failure);
  if (stop) throw Interrupted{};
}

void parallel_ranges(int threads, std::int64_t count, const Poll& poll,
                     const std::function<void(std::int64_t, std::int64_t, const Poll&)>& body) {
  const std::int64_t ranges = std::max<std::int64_t>(1, std::min<std::int64_t>(threads, count));
  std::atomic<std::int64_t> next{0};
  run_workers(threads, ranges, poll, [&](int, const Poll& watch) {
    for (std::int64_t i = next++; i < ranges; i = next++) body(count * i / ranges, count * (i + 1) / ranges, watch);
  });
}

namespace {

// What a member of a team throws when another one failed.
struct Abandoned {};

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

// Spins while the others are likely to come at once, then gives the core away: it may be theirs.
template <class Done>
void Team::until(const Done& done) {
  constexpr int kSpins = 1000;
  for (int spins = 0; !done(); ++spins) {
    if (shared_.broken.load(std::memory_order_relaxed)) throw Abandoned{};
    if (spins < kSpins) {
      pause();
    } else {
      if (number_ == 0 && poll_ && poll_()) throw Interrupted{};
      std::this_thread::yield();
    }
  }
}

void Team::meet() {
  if (size() == 1) return;
  const unsigned round = shared_.round.load(std::memory_order_relaxed);
  if (shared_.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == size()) {
    shared_.arrived.store(0, std::memory_order_relaxed);
    shared_.round.store(round + 1, std::memory_order_release);
  } else {
    until([&] { return shared_.round.load(std::memory_order_acquire) != round; });
  }
}

void Team::wait(const std::atomic<Index>& progress, Index value) {
  until([&] { return progress.load(std::memory_order_acquire) >= value; });
}

void Team::check() {
  if (number_ == 0 && poll_ && poll_()) throw Interrupted{};
  if (shared_.broken.load(std::memory_order_relaxed)) throw Abandoned{};
}

void run_team(int threads, const Poll& own_poll, const std::function<void(Team&)>& body) {
  const Poll& poll = enclosing ? *enclosing : own_poll;
  Team::Shared shared;
  std::exception_ptr failure;
  std::mutex guard;
  const auto work = [&](int number) {
    Team team(number, shared, poll);
    const Poll watch = [&, number] { return shared.broken || (number == 0 && poll && poll()); };
    const Poll* const outside = enclosing;
    if (shared.size > 1) enclosing = &watch;
    try {
      body(team);
      team.meet();  // whoever polls is there until the last has finished
    } catch (const Abandoned&) {
    } catch (...) {
      const std::lock_guard<std::mutex> lock(guard);
      if (!failure) failure = std::current_exception();
      shared.broken = true;
    }
    enclosing = outside;
  };
#if defined(_OPENMP)
  if (threads > 1 && !in_forked_child && !enclosing) {
#pragma omp parallel num_threads(threads)
    {
      // Fewer threads may have come than were asked for.
#pragma omp single
      shared.size = omp_get_num_threads();
      work(omp_get_thread_num());
    }
  } else {
    work(0);
  }
#else
  work(0);
#endif
  if (failure) std::rethrow_exception(failure);
}

namespace cpu {
const char* thread_runtime() {
#if defined(_OPENMP)
  return "openmp";
#else
  return "serial";
#endif
}
}  // namespace cpu

}  // namespace lsc
