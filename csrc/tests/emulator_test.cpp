// The emulator of device code: what it runs comes out as plain code has it, in any order of the threads, and each of
// its detectors finds a bug planted for it, naming kernel, block and thread, and is silent where the bug is mended.
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "cuda/launch.h"
#include "cuda/litmus.h"
#include "cuda/ordering.h"
#include "emulator/fiber.h"

namespace lsc::cuda {
namespace {

constexpr std::uint64_t kSeeds = 20;

Execution execution() { return {0, nullptr, Precision::fp32, Workspace(nullptr, 0)}; }

template <class... P, class... A>
void run(const Launch& shape, void (*kernel)(P...), A... arguments) {
  launch(execution(), shape, kernel, arguments...);
}

// What the emulator says of the launch; empty where it finds nothing.
template <class... P, class... A>
std::string fault_of(const Launch& shape, void (*kernel)(P...), A... arguments) {
  try {
    run(shape, kernel, arguments...);
  } catch (const emulator::Fault& fault) {
    return fault.what();
  }
  return "";
}

// One of `either` and all of `all` are in the message.
void expect_fault(const std::string& message, const std::vector<std::string>& all, int line,
                  const std::vector<std::string>& either = {""}) {
  bool one = false;
  for (const std::string& piece : either) one = one || message.find(piece) != std::string::npos;
  test::report(one, __FILE__, line, "expected a fault with one of '" + either[0] + "', ..., got '" + message + "'");
  for (const std::string& piece : all)
    test::report(message.find(piece) != std::string::npos, __FILE__, line,
                 "expected a fault with '" + piece + "', got '" + message + "'");
}

// The kernel, whose argument plants a bug in block 1, is caught with all of `pieces` by every seed, and passes without
// it.
void expect_caught(const Launch& shape, void (*kernel)(bool), int line, const std::vector<std::string>& pieces) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    emulator::set_seed(seed);
    std::vector<std::string> all = pieces;
    all.push_back(std::string("kernel ") + shape.name + ", block (1, 0, 0)");
    expect_fault(fault_of(shape, kernel, true), all, line);
    const std::string clean = fault_of(shape, kernel, false);
    test::report(clean.empty(), __FILE__, line, "expected the mended kernel to pass, got '" + clean + "'");
  }
}

#define CAUGHT(shape, kernel, ...) expect_caught(shape, kernel, __LINE__, {__VA_ARGS__})

template <class Body>
void for_seeds(Body body) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    emulator::set_seed(seed);
    body();
  }
}

// out [warps] <- sums over the warps, of any number of lanes.
LSC_KERNEL warp_sums_kernel(const float* x, float* out) {
  const int lanes = threads() - warp() * 32 < 32 ? threads() - warp() * 32 : 32;
  float sum = x[thread()];
  for (int step = 16; step > 0; step /= 2) {
    const float other = shuffle(sum, lane() + step < lanes ? lane() + step : lane());
    if (lane() + step < lanes) sum += other;
  }
  const double whole = shuffle(double(sum), 0);
  if (lane() == 0) out[warp()] = float(whole);
}

void warps_sum_by_shuffles() {
  for (const int threads : {1, 3, 31, 32, 33, 65, 1024}) {
    std::vector<float> x(std::size_t(threads), 0);
    std::iota(x.begin(), x.end(), 1.f);
    for_seeds([&] {
      std::vector<float> out(std::size_t(threads + 31) / 32, NAN);
      run({"warp_sums", {1}, threads}, warp_sums_kernel, x.data(), out.data());
      for (std::size_t w = 0; w < out.size(); ++w) {
        float expected = 0;
        for (std::size_t i = 32 * w; i < std::min(x.size(), 32 * w + 32); ++i) expected += x[i];
        CHECK_NEAR(out[w], expected, 0);
      }
    });
  }
}

LSC_KERNEL votes_kernel(unsigned* bits, int* any, int* words) {
  bits[thread()] = ballot(thread() % 3 == 0);
  any[thread()] = barrier_or(thread() == 37) + 2 * barrier_or(thread() > 1000);
  const std::uint32_t own[2] = {std::uint32_t(thread()), 7};
  std::uint32_t all[64];
  emulator::gather(own, 2, all);
  words[thread()] = 0;
  for (int i = 0; i < 32; ++i) words[thread()] += int(all[2 * i] * all[2 * i + 1]);
  words[thread()] += int(shuffle_xor(float(thread()), 1));
}

void votes_and_gathers_reach_all() {
  constexpr int kThreads = 40;
  for_seeds([&] {
    std::vector<unsigned> bits(kThreads);
    std::vector<int> any(kThreads), words(kThreads);
    run({"votes", {1}, kThreads}, votes_kernel, bits.data(), any.data(), words.data());
    for (int t = 0; t < kThreads; ++t) {
      const int first = t / 32 * 32, last = std::min(kThreads, first + 32);
      unsigned expected = 0;
      int sum = 0;
      for (int i = first; i < last; ++i) {
        if (i % 3 == 0) expected |= 1u << (i - first);
        sum += 7 * i;
      }
      CHECK(bits[std::size_t(t)] == expected);
      CHECK(any[std::size_t(t)] == 1);
      CHECK(words[std::size_t(t)] == sum + (t ^ 1));
    }
  });
}

LSC_KERNEL scan_kernel(const int* x, int* out) {
  LSC_SHARED(int, sums, 1024);
  const int i = thread();
  sums[i] = x[block() * threads() + i];
  for (int step = 1; step < threads(); step *= 2) {
    barrier();
    const int before = i >= step ? int(sums[i - step]) : 0;
    barrier();
    sums[i] += before;
  }
  barrier();
  out[block() * threads() + i] = sums[threads() - 1] - sums[i];
}

void blocks_scan_in_shared_memory() {
  constexpr int kBlocks = 9;
  for (const int threads : {1, 33, 100}) {
    std::vector<int> x(std::size_t(kBlocks * threads), 0);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = int(i * i % 17);
    for_seeds([&] {
      std::vector<int> out(x.size(), -1);
      run({"scan", {kBlocks}, threads}, scan_kernel, x.data(), out.data());
      for (int b = 0; b < kBlocks; ++b)
        for (int i = 0; i < threads; ++i)
          CHECK(out[std::size_t(b * threads + i)] ==
                std::accumulate(x.begin() + b * threads + i + 1, x.begin() + (b + 1) * threads, 0));
    });
  }
}

LSC_KERNEL grid_sum_kernel(const int* x, int* partial, int* out, GridBarrier* state) {
  if (thread() == 0) partial[block()] = x[block()];
  grid_barrier(state);
  int sum = 0;
  for (int b = 0; b < blocks(); ++b) sum += partial[b];
  grid_barrier(state);
  if (thread() == 0) partial[block()] = sum + block();
  grid_barrier(state);
  if (thread() == 1) out[block()] = partial[(block() + 1) % blocks()];
}

void a_grid_sums_over_barriers() {
  GridBarrier state = {0, 0xfffffff0u};
  for_seeds([&] {
    for (const int blocks : {1, 2, 7, 24}) {
      std::vector<int> x(std::size_t(blocks), 0), partial(x.size(), -1), out(x.size(), -1);
      std::iota(x.begin(), x.end(), 5);
      run({"grid_sum", {blocks}, 33, 0, true}, grid_sum_kernel, x.data(), partial.data(), out.data(), &state);
      const int sum = std::accumulate(x.begin(), x.end(), 0);
      for (int b = 0; b < blocks; ++b) CHECK(out[std::size_t(b)] == sum + (b + 1) % blocks);
    }
  });
  CHECK(state.arrived == 0);
  CHECK(state.epoch == 0xfffffff0u + unsigned(kSeeds) * 4 * 3);
}

// out [threads] <- sums over `stages` stages of what each stage's copies bring.
LSC_KERNEL pipeline_kernel(int stages, const float* x, float* out) {
  const Shared<float> buffer = dynamic_shared<float>(64);
  const int n = 4 * threads(), i = thread();
  const auto fetch = [&](int stage) {
    if (stage < stages) copy_async<16>(buffer + (stage % 2 * n + 4 * i), x + stage * n + 4 * i);
    commit_copies();
  };
  fetch(0);
  float sum = 0;
  for (int stage = 0; stage < stages; ++stage) {
    fetch(stage + 1);
    wait_copies<1>();
    barrier();
    const int mirror = stage % 2 * n + 4 * (threads() - 1 - i);
    for (int k = 0; k < 4; ++k) sum += buffer[mirror + k];
    barrier();
  }
  wait_copies<0>();
  out[i] = sum;
}

void copies_run_ahead_of_a_pipeline() {
  constexpr int kThreads = 40, kStages = 5;
  alignas(16) static float x[kStages * 4 * kThreads];
  std::iota(std::begin(x), std::end(x), 0.f);
  for_seeds([&] {
    std::vector<float> out(kThreads, NAN);
    run({"pipeline", {1}, kThreads, 64 + 2 * 16 * kThreads}, pipeline_kernel, kStages, x, out.data());
    for (int i = 0; i < kThreads; ++i) {
      float expected = 0;
      for (int stage = 0; stage < kStages; ++stage)
        for (int k = 0; k < 4; ++k) expected += x[(stage * kThreads + kThreads - 1 - i) * 4 + k];
      CHECK_NEAR(out[std::size_t(i)], expected, 0);
    }
  });
}

LSC_KERNEL tickets_kernel(int* next, int* order, unsigned long long* sum) {
  const int place = (block_z() * 2 + block_y()) * 3 + block();
  const int ticket = atomic_add(next, 1);
  order[ticket] = place * threads() + thread();
  atomic_add(sum, (unsigned long long)(1) << 33);
}

std::vector<int> order_of(std::uint64_t seed) {
  constexpr int kThreads = 33, kBlocks = 3 * 2 * 2;
  emulator::set_seed(seed);
  int next = 0;
  unsigned long long sum = 0;
  std::vector<int> order(kThreads * kBlocks, -1);
  run({"tickets", {3, 2, 2}, kThreads}, tickets_kernel, &next, order.data(), &sum);
  CHECK(next == kThreads * kBlocks);
  CHECK(sum == (unsigned long long)(kThreads * kBlocks) << 33);
  return order;
}

void the_seed_decides_the_order() {
  std::set<std::vector<int>> orders;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const std::vector<int> order = order_of(seed);
    orders.insert(order);
    CHECK(order_of(seed) == order);
    std::vector<int> sorted = order;
    std::sort(sorted.begin(), sorted.end());
    for (std::size_t i = 0; i < sorted.size(); ++i) CHECK(sorted[i] == int(i));
  }
  CHECK(orders.size() == kSeeds);
}

// Blocks pass a number on while all of them are under way.
LSC_KERNEL relay_kernel(unsigned* flags, int* values) {
  if (thread() == 0) {
    if (block() > 0) await(flags + block() - 1, 3);
    values[block()] = block() > 0 ? values[block() - 1] + 1 : 10;
    publish(flags + block(), 3);
  }
  barrier();
}

void blocks_wait_for_flags() {
  for_seeds([&] {
    std::vector<unsigned> flags(12, 0);
    std::vector<int> values(12, 0);
    run({"relay", {12}, 2, 0, true}, relay_kernel, flags.data(), values.data());
    CHECK(values[11] == 21);
  });
}

// Each phase sees shared memory as it likes: numbers of another width, bytes, halves of neighbours.
LSC_KERNEL phases_kernel(double* out) {
  const int i = thread();
  const auto halves = dynamic_shared<std::uint16_t>(0, 64);
  const auto bytes = dynamic_shared<std::uint8_t>(0, 128);
  const auto numbers = dynamic_shared<double>(0, 16);
  halves[i] = std::uint16_t(i);
  warp_barrier();
  const int neighbour = halves[i ^ 1];
  barrier();
  bytes[i] = std::uint8_t(neighbour);
  barrier();
  const double own = double(bytes[i]) + bytes[i ^ 32];
  barrier();
  if (i < 16) numbers[i] = own;
  barrier();
  const double there = numbers[i % 16];
  barrier();
  halves[i] = std::uint16_t(there);
  out[i] = halves[i];
}

void phases_share_dynamic_memory() {
  for_seeds([&] {
    std::vector<double> out(64, NAN);
    run({"phases", {1}, 64, 128}, phases_kernel, out.data());
    for (int i = 0; i < 64; ++i) CHECK_NEAR(out[std::size_t(i)], (i % 16 ^ 1) + (i % 16 ^ 33), 0);
  });
}

void litmus_counts_nothing() {
  for_seeds([&] {
    Execution counting = execution();
    litmus(counting, 3, 5, nullptr);
    std::vector<char> memory(counting.workspace.taken(), char(0x5a));
    Execution on = {0, nullptr, Precision::fp32, Workspace(memory.data(), memory.size())};
    std::vector<unsigned long long> counts(kLitmusCounts, 99);
    litmus(on, 3, 5, counts.data());
    for (const unsigned long long count : counts) CHECK(count == 0);
  });
}

LSC_KERNEL half_barrier_kernel(bool bug) {
  if (bug && block() == 1 && thread() >= 40) return;
  barrier();
}

LSC_KERNEL two_barriers_kernel(bool bug) {
  if (bug && block() == 1 && thread() == 5)
    barrier();
  else
    barrier();
}

LSC_KERNEL barrier_and_vote_kernel(bool bug) {
  if (bug && block() == 1 && thread() < 32)
    barrier();
  else
    barrier_or(true);
}

LSC_KERNEL half_shuffle_kernel(bool bug) {
  if (bug && block() == 1 && thread() >= 48) return;
  shuffle(1.f, 0);
}

LSC_KERNEL warp_and_block_kernel(bool bug) {
  if (bug && block() == 1 && thread() == 35)
    barrier();
  else
    warp_barrier();
  if (!bug) barrier();
}

LSC_KERNEL mixed_operations_kernel(bool bug) {
  if (bug && block() == 1 && thread() == 7)
    ballot(true);
  else
    shuffle_xor(1, 1);
}

LSC_KERNEL mixed_widths_kernel(bool bug) {
  if (bug && block() == 1 && thread() == 7)
    shuffle(1.0, 0);
  else
    shuffle(1.f, 0);
}

LSC_KERNEL missing_lane_kernel(bool bug) {
  if (thread() < 32 || !bug || block() != 1)
    shuffle(thread(), lane());
  else
    shuffle_xor(thread(), thread() == 39 ? 16 : 0);
}

void a_barrier_that_some_never_reach() {
  CAUGHT((Launch{"half", {3}, 64}), half_barrier_kernel,
         "threads 0-39 waiting at the block barrier (emulator_test.cpp:", "threads 40-63 finished");
  CAUGHT((Launch{"two", {3}, 64}), two_barriers_kernel, "thread 5", "waits at the block barrier of emulator_test.cpp:");
  CAUGHT((Launch{"vote", {3}, 64}), barrier_and_vote_kernel, "waits at the block barrier of emulator_test.cpp:");
}

void an_operation_that_some_lanes_never_reach() {
  CAUGHT((Launch{"half", {3}, 64}), half_shuffle_kernel, "threads 32-47 waiting at a warp operation",
         "threads 48-63 finished");
  CAUGHT((Launch{"levels", {3}, 64}), warp_and_block_kernel, "threads 32-34 waiting at a warp operation",
         "thread 35 waiting at the block barrier", "threads 36-63 waiting at a warp operation");
  CAUGHT((Launch{"mixed", {3}, 32}), mixed_operations_kernel, "thread", "a shuffle of 4 bytes", "a ballot");
  CAUGHT((Launch{"widths", {3}, 32}), mixed_widths_kernel, "a shuffle of 4 bytes", "a shuffle of 8 bytes", "thread 7");
  CAUGHT((Launch{"missing", {3}, 40}), missing_lane_kernel, "thread 39: shuffle", "from lane 23 of a warp of 8");
}

LSC_KERNEL skipped_grid_barrier_kernel(GridBarrier* state, bool bug) {
  if (bug && block() == 2) return;
  grid_barrier(state);
}

LSC_KERNEL partial_grid_barrier_kernel(GridBarrier* state, bool bug) {
  if (bug && block() == 2 && thread() > 7) return;
  grid_barrier(state);
}

void a_grid_barrier_that_some_never_reach() {
  const auto launched = [](const char* name, auto kernel, bool bug, bool cooperative, GridBarrier state, Grid grid) {
    return fault_of({name, grid, 33, 0, cooperative}, kernel, &state, bug);
  };
  for_seeds([&] {
    expect_fault(launched("skipped", skipped_grid_barrier_kernel, true, true, {0, 9}, {4}),
                 {"kernel skipped, block (0, 0, 0)", "not every thread of the grid reaches the grid barrier",
                  "threads 0-32 waiting at the grid barrier (emulator_test.cpp:", "finished: block (2, 0, 0)"},
                 __LINE__);
    expect_fault(
        launched("partial", partial_grid_barrier_kernel, true, true, {0, 9}, {4}),
        {"kernel partial, block (2, 0, 0)", "threads 0-7 waiting at the grid barrier", "threads 8-32 finished"},
        __LINE__);
    CHECK(launched("skipped", skipped_grid_barrier_kernel, false, true, {0, 9}, {4}).empty());
    CHECK(launched("partial", partial_grid_barrier_kernel, false, true, {0, 9}, {4}).empty());
    expect_fault(launched("alone", skipped_grid_barrier_kernel, false, false, {0, 9}, {4}),
                 {"kernel alone, block (", "in a launch that is not cooperative"}, __LINE__);
    expect_fault(launched("garbage", skipped_grid_barrier_kernel, false, true, {77, 9}, {4}),
                 {"expected a state that was zero once"}, __LINE__);
    expect_fault(launched("plane", skipped_grid_barrier_kernel, false, true, {0, 9}, {2, 2}),
                 {"expected a grid along x, got (2, 2, 1)"}, __LINE__);
  });
}

LSC_KERNEL waits_in_vain_kernel(bool bug) {
  unsigned flag = 4;
  if (thread() == 2) await(&flag, bug && block() == 1 ? 5 : 4);
  barrier();
}

LSC_KERNEL ring_kernel(unsigned* flags, int* started) {
  atomic_add(started, 1);
  publish(flags + block(), 1);
  await(flags + (block() + 1) % blocks(), 1);
}

LSC_KERNEL crossed_kernel(unsigned* flags, bool bug) {
  const int own = thread(), other = 1 - thread();
  if (!bug) publish(flags + own, 1);
  await(flags + other, 1);
  if (bug) publish(flags + own, 1);
}

void waiting_for_ever() {
  CAUGHT((Launch{"vain", {3}, 4}), waits_in_vain_kernel, "deadlock",
         "thread 2 waiting for a flag (emulator_test.cpp:", "threads 0-1 waiting at the block barrier");
  for_seeds([&] {
    std::vector<unsigned> flags(64, 0);
    int started = 0;
    expect_fault(fault_of({"ring", {64}, 1}, ring_kernel, flags.data(), &started),
                 {"kernel ring, block (", "deadlock: thread 0 waiting for a flag", "blocks have not begun"}, __LINE__);
    CHECK(started < 64);
    std::fill(flags.begin(), flags.end(), 0);
    CHECK(fault_of({"ring", {64}, 1, 0, true}, ring_kernel, flags.data(), &started).empty());

    std::fill(flags.begin(), flags.end(), 0);
    expect_fault(fault_of({"crossed", {1}, 2}, crossed_kernel, flags.data(), true),
                 {"kernel crossed, block (0, 0, 0): deadlock: threads 0-1 waiting for a flag"}, __LINE__);
    CHECK(fault_of({"crossed", {1}, 2}, crossed_kernel, flags.data(), false).empty());
  });
}

LSC_KERNEL beyond_kernel(bool bug) {
  LSC_SHARED(float, left, 32);
  LSC_SHARED(float, right, 32);
  left[thread()] = 1;
  right[thread()] = 2;
  if (block() == 1 && thread() == 7) left[bug ? 32 : 7] = 3;
}

LSC_KERNEL before_kernel(bool bug) {
  LSC_SHARED(double, left, 32);
  LSC_SHARED(double, right, 32);
  left[thread()] = 1;
  right[thread()] = 2;
  warp_barrier();
  const Shared<double> moved = right + 3;
  if (block() == 1 && thread() == 7) left[7] = moved[bug ? -4 : -3];
}

LSC_KERNEL dynamic_beyond_kernel(bool bug) {
  const auto view = dynamic_shared<float>(64);
  view[thread()] = 1;
  if (bug && block() == 1 && thread() == 31) view[32] = 1;
}

LSC_KERNEL dynamic_neighbour_kernel(bool bug) {
  const auto first = dynamic_shared<float>(0, 32);
  const auto second = dynamic_shared<float>(128, 16);
  first[thread()] = 1;
  if (thread() == 9) second[0] = 2;
  if (bug && block() == 1 && thread() == 9) first[32] = 1;
}

LSC_KERNEL nothing_kernel(bool bug) {
  Shared<float> view;
  if (!bug || block() != 1 || thread() != 3) view = dynamic_shared<float>(0);
  view[thread()] = 1;
}

LSC_KERNEL too_much_kernel(bool bug) { dynamic_shared<float>(0, bug && block() == 1 ? 49 : 48); }
LSC_KERNEL crooked_kernel(bool bug) { dynamic_shared<double>(bug && block() == 1 ? 12 : 16); }

void access_out_of_bounds() {
  CAUGHT((Launch{"beyond", {3}, 32}), beyond_kernel, "thread 7: access to bytes 128 to 132 of left, which has 128");
  CAUGHT((Launch{"before", {3}, 32}), before_kernel, "thread 7: access to bytes -8 to 0 of right, which has 256");
  CAUGHT((Launch{"dynamic", {3}, 32, 192}), dynamic_beyond_kernel,
         "thread 31: access to bytes 128 to 132 of the dynamic shared memory from byte 64 on, which has 128");
  CAUGHT((Launch{"neighbour", {3}, 32, 192}), dynamic_neighbour_kernel, "thread 9: access to bytes 128 to 132 of");
  CAUGHT((Launch{"nothing", {3}, 32, 192}), nothing_kernel, "thread 3: access to element 3 of a view of nothing");
  CAUGHT((Launch{"much", {3}, 1, 192}), too_much_kernel, "thread 0: dynamic shared memory: expected at most", "192");
  CAUGHT((Launch{"crooked", {3}, 1, 192}), crooked_kernel, "thread 0", "multiple of 8, got 12");
}

LSC_KERNEL unwritten_kernel(bool bug) {
  LSC_SHARED(float, x, 64);
  if (!bug || block() != 1 || thread() != 20) x[thread()] = 1;
  const auto bytes = dynamic_shared<std::uint8_t>(0);
  bytes[thread()] = 1;
  barrier();
  if (thread() == 3) x[63] = x[20];
}

LSC_KERNEL half_unwritten_kernel(bool bug) {
  const auto bytes = dynamic_shared<std::uint8_t>(0);
  for (int i = 0; i < (bug && block() == 1 ? 3 : 4); ++i) bytes[i] = 1;
  const auto word = dynamic_shared<float>(0);
  if (word[0] == 3) bytes[0] = 2;
}

void reads_of_what_nothing_wrote() {
  CAUGHT((Launch{"unwritten", {3}, 33, 33}), unwritten_kernel, "thread 3: read of x[20], which nothing has written");
  CAUGHT((Launch{"half", {3}, 1, 4}), half_unwritten_kernel,
         "thread 0: read of byte 3 of the dynamic shared memory, which nothing has written");
}

// Threads 5 and 40 meet, or not: 0 one writes and one reads, 1 both write, 2 of several readers one writes.
LSC_KERNEL race_kernel(int kind, bool bug) {
  LSC_SHARED(float, x, 64);
  x[thread()] = 0;
  barrier();
  bug = bug && block() == 1;
  const bool first = thread() == 5, second = thread() == 40;
  float sum = 0;
  if (first && kind < 2) x[9] = 1;
  if (first && kind == 2) sum = x[9];
  if (!bug) barrier();
  if (second && kind == 0) sum = x[9];
  if (second && kind == 1) x[9] = 2;
  if (second && kind == 2) x[9] = sum + x[9];
}

// Lanes of a warp, one after the other only where an operation of the warp is between.
LSC_KERNEL lanes_race_kernel(bool bug) {
  LSC_SHARED(std::uint16_t, x, 64);
  x[thread()] = 1;
  if (!bug || block() != 1) warp_barrier();
  if (thread() == 33) {
    const std::uint16_t other = x[34];
    x[33] = other;
  }
}

// Everyone reads, and one of the readers writes.
LSC_KERNEL readers_race_kernel(bool bug) {
  LSC_SHARED(double, x, 2);
  if (thread() == 0) x[0] = 1;
  barrier();
  const double seen = x[0];
  if (!bug || block() != 1) barrier();
  if (thread() == 17) x[0] = seen;
}

// An operation of a warp orders nobody else.
LSC_KERNEL warps_race_kernel(bool bug) {
  LSC_SHARED(int, x, 1);
  if (thread() == 70) x[0] = 1;
  warp_barrier();
  if (!bug || block() != 1) barrier();
  if (thread() == 3) x[0] = 2;
}

void unsynchronised_access() {
  for_seeds([&] {
    for (const int kind : {0, 1, 2}) {
      expect_fault(fault_of({"race", {3}, 64}, race_kernel, kind, true),
                   {"kernel race, block (1, 0, 0), thread", "race: ", "x[9] after", "with no barrier in between"},
                   __LINE__,
                   {"thread 5: race: read of x[9] after a write by thread 40",
                    "thread 5: race: write to x[9] after a read by thread 40",
                    "thread 5: race: write to x[9] after a write by thread 40",
                    "thread 40: race: read of x[9] after a write by thread 5",
                    "thread 40: race: write to x[9] after a write by thread 5",
                    "thread 40: race: write to x[9] after a read by thread 5"});
      CHECK(fault_of({"race", {3}, 64}, race_kernel, kind, false).empty());
    }
  });
  CAUGHT((Launch{"lanes", {3}, 64}), lanes_race_kernel, "thread 3", "x[34]");
  CAUGHT((Launch{"readers", {3}, 64}), readers_race_kernel, "race", "x[0]", "thread 17");
  CAUGHT((Launch{"warps", {3}, 96}), warps_race_kernel, "race: write to x[0] after a write by thread", "thread 3",
         "thread 70");
}

enum Plant { kNoWait, kNoCommit, kTooFew, kNoBarrier, kLeftOver, kCrooked, kCrookedFrom, kWidth, kChanged, kOverwrite };

LSC_KERNEL copy_kernel(int plant, float* from, float* out, bool bug) {
  LSC_SHARED(float, x, 16);
  bug = bug && block() == 1;
  const auto planted = [&](int p) { return bug && plant == p; };
  const int i = thread();
  from += 16 * block();
  const Shared<float> to = x + (4 * i + planted(kCrooked));
  const float* source = from + 4 * i;
  if (i == 2 && planted(kCrookedFrom)) source -= 1;
  if (i == 1 && planted(kCrooked))
    copy_async<8>(to, source);
  else if (!planted(kCrooked))
    copy_async<16>(to, source);
  if (i == 2 && planted(kWidth)) copy_async<4>(dynamic_shared<double>(0), reinterpret_cast<const double*>(from));
  if (!planted(kNoCommit)) commit_copies();
  if (i == 3 && planted(kOverwrite)) x[12] = 1;
  if (planted(kTooFew)) {
    wait_copies<1>();
  } else if (!planted(kNoWait)) {
    if (i == 1 && planted(kChanged)) from[4] = 7;
    wait_copies<0>();
  }
  if (i == 2 && planted(kLeftOver)) copy_async<4>(x + 8, from);
  if (planted(kLeftOver)) return;
  if (!planted(kNoBarrier)) barrier();
  if (i == 2) out[block()] = x[plant == kNoBarrier ? 0 : 8];
}

void copies_that_are_not_there_yet() {
  alignas(16) static float from[48];
  const auto planted = [&](int plant, bool bug) {
    std::iota(std::begin(from), std::end(from), 0.f);
    float out[3] = {NAN, NAN, NAN};
    const std::string fault = fault_of({"copy", {3}, 4, 16}, copy_kernel, plant, from, out, bug);
    if (!bug)
      for (int b = 0; b < 3; ++b) CHECK_NEAR(out[b], float(16 * b + (plant == kNoBarrier ? 0 : 8)), 0);
    return fault;
  };
  struct Expected {
    int plant;
    std::vector<std::string> pieces;
  };
  const std::string on_its_way = "into which a copy is on its way that only a wait of thread ";
  const std::vector<Expected> all = {
      {kNoWait, {"thread"}},
      {kNoCommit, {"thread"}},
      {kTooFew, {"thread"}},
      {kNoBarrier, {"thread 2: ", "read of x[0]"}},
      {kLeftOver, {"thread 2: ends before its copy to x[8] has been waited for"}},
      {kCrooked, {"thread 1: copy of 8 bytes from global memory to x[5], one of which is not aligned"}},
      {kCrookedFrom, {"thread 2: copy of 16 bytes from global memory to x[8], one of which is not aligned"}},
      {kWidth, {"thread 2: copy of 4 bytes to elements of 8"}},
      {kChanged, {"thread 1: global memory changed while a copy from it to x[4]"}},
      {kOverwrite, {"thread 3: write to x[12], " + on_its_way + "3"}},
  };
  for_seeds([&] {
    for (const Expected& expected : all) {
      std::vector<std::string> pieces = expected.pieces;
      pieces.push_back("kernel copy, block (1, 0, 0)");
      expect_fault(planted(expected.plant, true), pieces, __LINE__);
      CHECK(planted(expected.plant, false).empty());
    }
  });
}

LSC_KERNEL idle_kernel() {}
LSC_KERNEL large_kernel() { LSC_SHARED(double, large, 6145); }
LSC_KERNEL static_kernel() { LSC_SHARED(double, some, 512); }

void launches_out_of_limits() {
  constexpr std::size_t kMost = 227 * 1024;
  const auto refused = [](Launch shape, const char* what, int line) {
    expect_fault(fault_of(shape, idle_kernel), {"kernel idle", what}, line);
  };
  refused({"idle", {1}, 1025}, "threads: expected 1 to 1024, got 1025", __LINE__);
  refused({"idle", {1}, 0}, "threads: expected 1 to 1024, got 0", __LINE__);
  refused({"idle", {Index(1) << 31}, 1}, "grid x: expected 1 to 2147483647", __LINE__);
  refused({"idle", {1, 65536}, 1}, "grid y: expected 1 to 65535, got 65536", __LINE__);
  refused({"idle", {1, 1, 65536}, 1}, "grid z: expected 1 to 65535, got 65536", __LINE__);
  refused({"idle", {-1}, 1}, "grid x: expected 1", __LINE__);
  refused({"idle", {1}, 1, kMost + 1}, "dynamic shared memory: expected at most 232448 bytes", __LINE__);
  CHECK(fault_of({"idle", {1, 3, 2}, 1024, kMost}, idle_kernel).empty());
  expect_fault(fault_of({"large", {1}, 1}, large_kernel), {"kernel large, block (0, 0, 0), thread 0", "with large"},
               __LINE__);
  CHECK(fault_of({"static", {1}, 1, kMost - 4096}, static_kernel).empty());
  expect_fault(fault_of({"static", {1}, 1, kMost - 4095}, static_kernel),
               {"kernel static, block (0, 0, 0), thread 0: shared memory: expected at most 232448 bytes"}, __LINE__);
}

struct Alive {
  static inline int count = 0;
  Alive() { ++count; }
  ~Alive() { --count; }
};

LSC_KERNEL throwing_kernel(int thrower, int* before) {
  const Alive alive;
  atomic_add(before, 1);
  barrier();
  if (thread() == thrower) throw std::logic_error("from a kernel");
  warp_barrier();
  barrier();
}

void an_exception_ends_a_launch_cleanly() {
  for_seeds([&] {
    for (const int thrower : {0, 31, 64}) {
      int before = 0;
      CHECK_THROWS(run({"throwing", {5}, 65}, throwing_kernel, thrower, &before), std::logic_error);
      CHECK(Alive::count == 0);
      before = 0;
      run({"throwing", {5}, 65}, throwing_kernel, -1, &before);
      CHECK(before == 5 * 65);
      CHECK(Alive::count == 0);
    }
  });
}

// What a child that runs `body` writes to its error output; whether it died, of a signal or with an error.
struct Death {
  bool died;
  std::string words;
};
template <class Body>
Death death_of(Body body) {
  int ends[2];
  if (pipe(ends) != 0) throw std::runtime_error("pipe");
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    close(ends[0]);
    body();
    _exit(0);
  }
  close(ends[1]);
  Death death = {false, ""};
  char buffer[4096];
  for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;) death.words.append(buffer, std::size_t(got));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  death.died = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
  return death;
}

__attribute__((noinline)) int sink(volatile int* at) { return *at; }

LSC_KERNEL heap_kernel(int* x, int n) {
  barrier();
  if (thread() == 3) sink(x + n);
  barrier();
}

__attribute__((noinline)) int deep(int levels) {
  volatile char frame[1024];
  frame[0] = char(levels);
  return levels == 0 ? 0 : deep(levels - 1) + frame[0];
}
LSC_KERNEL deep_kernel(int levels) { deep(levels); }

void a_stack_that_overflows_ends_the_process() {
  CHECK(!death_of([] { run({"deep", {1}, 4}, deep_kernel, 10); }).died);
  CHECK(death_of([] { run({"deep", {1}, 4}, deep_kernel, 2000); }).died);
}

void asan_sees_the_heap_from_a_fiber() {
#if LSC_FIBERS_UNDER_ASAN
  const auto beyond = [](int n) {
    return death_of([n] {
      std::vector<int> x(10);
      run({"heap", {2}, 33}, heap_kernel, x.data(), n);
    });
  };
  CHECK(!beyond(9).died);
  const Death death = beyond(10);
  CHECK(death.died);
  for (const char* piece : {"heap-buffer-overflow", "sink", "heap_kernel", "emulator::Fiber::enter"})
    test::report(death.words.find(piece) != std::string::npos, __FILE__, __LINE__,
                 "expected a report with '" + std::string(piece) + "', got '" + death.words + "'");
#endif
}

}  // namespace
}  // namespace lsc::cuda

int main() {
  using namespace lsc::cuda;
  return lsc::test::run({
      {"warps_sum_by_shuffles", warps_sum_by_shuffles},
      {"votes_and_gathers_reach_all", votes_and_gathers_reach_all},
      {"blocks_scan_in_shared_memory", blocks_scan_in_shared_memory},
      {"a_grid_sums_over_barriers", a_grid_sums_over_barriers},
      {"copies_run_ahead_of_a_pipeline", copies_run_ahead_of_a_pipeline},
      {"the_seed_decides_the_order", the_seed_decides_the_order},
      {"blocks_wait_for_flags", blocks_wait_for_flags},
      {"phases_share_dynamic_memory", phases_share_dynamic_memory},
      {"litmus_counts_nothing", litmus_counts_nothing},
      {"a_barrier_that_some_never_reach", a_barrier_that_some_never_reach},
      {"an_operation_that_some_lanes_never_reach", an_operation_that_some_lanes_never_reach},
      {"a_grid_barrier_that_some_never_reach", a_grid_barrier_that_some_never_reach},
      {"waiting_for_ever", waiting_for_ever},
      {"access_out_of_bounds", access_out_of_bounds},
      {"reads_of_what_nothing_wrote", reads_of_what_nothing_wrote},
      {"unsynchronised_access", unsynchronised_access},
      {"copies_that_are_not_there_yet", copies_that_are_not_there_yet},
      {"launches_out_of_limits", launches_out_of_limits},
      {"an_exception_ends_a_launch_cleanly", an_exception_ends_a_launch_cleanly},
      {"a_stack_that_overflows_ends_the_process", a_stack_that_overflows_ends_the_process},
      {"asan_sees_the_heap_from_a_fiber", asan_sees_the_heap_from_a_fiber},
  });
}
