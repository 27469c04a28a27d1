#include "cuda/launch.h"
#include "cuda/litmus.h"
#include "cuda/ordering.h"

namespace lsc::cuda {
namespace {

constexpr int kThreads = 128;

// The two blocks of a pair, far from each other on the device.
struct Side {
  Index pair;
  int side;
};
LSC_DEVICE Side side_of(Index pairs) { return {block() % pairs, int(block() / pairs)}; }

template <class T>
LSC_KERNEL clear_kernel(Index count, T* out) {
  for (Index i = thread(); i < count; i += threads()) out[i] = 0;
}

// Side 0 sends the number of the round to side 1. values [pairs, threads], sent, received [pairs].
LSC_KERNEL message_passing_kernel(Index pairs, unsigned rounds, unsigned* values, unsigned* sent, unsigned* received,
                                  unsigned long long* count) {
  const auto [pair, side] = side_of(pairs);
  unsigned* value = values + pair * threads() + (threads() - 1 - thread());
  for (unsigned round = 1; round <= rounds; ++round) {
    if (side == 0) {
      *value = round;
      barrier();
      if (thread() == 0) {
        publish(sent + pair, round);
        await(received + pair, round);
      }
      barrier();
    } else {
      if (thread() == 0) await(sent + pair, round);
      barrier();
      if (*value != round) atomic_add(count, 1ull);
      barrier();
      if (thread() == 0) publish(received + pair, round);
    }
  }
}

// ready, stored, outcome [2, pairs]. An outcome is 2 * round, and 1 more where the other's store was missed.
LSC_KERNEL store_buffering_kernel(Index pairs, unsigned rounds, bool fenced, unsigned* ready, unsigned* stored,
                                  unsigned* outcome, unsigned long long* count) {
  if (thread() > 0) return;
  const auto [pair, side] = side_of(pairs);
  const Index own = side * pairs + pair, other = (1 - side) * pairs + pair;
  for (unsigned round = 1; round <= rounds; ++round) {
    publish(ready + own, round);
    await(ready + other, round);
    publish(stored + own, round);
    if (fenced) fence();
    const unsigned missed = acquire(stored + other) == round ? 0 : 1;
    publish(outcome + own, 2 * round + missed);
    if (side == 1) continue;
    await(outcome + other, 2 * round);
    if (missed && acquire(outcome + other) == 2 * round + 1) atomic_add(count, 1ull);
  }
}

// values [blocks, threads].
LSC_KERNEL grid_barrier_kernel(unsigned rounds, unsigned* values, GridBarrier* state, unsigned long long* count) {
  const Index next = (block() + 1) % blocks();
  for (unsigned round = 1; round <= rounds; ++round) {
    values[Index(block()) * threads() + thread()] = round;
    grid_barrier(state);
    if (values[next * threads() + (threads() - 1 - thread())] != round) atomic_add(count, 1ull);
    grid_barrier(state);
  }
}

template <class T>
void clear(const Execution& execution, Index count, T* out) {
  launch(execution, {"litmus_clear", {1}, kThreads}, clear_kernel<T>, count, out);
}

}  // namespace

void litmus(Execution& execution, Index pairs, Index rounds, unsigned long long* counts) {
  const Index blocks = 2 * pairs, words = blocks * kThreads;
  unsigned* values = execution.workspace.take<unsigned>(words);
  unsigned* flags = execution.workspace.take<unsigned>(3 * blocks);
  GridBarrier* state = execution.workspace.take<GridBarrier>(1);
  if (execution.workspace.counting()) return;
  const auto shape = [&](const char* name) { return Launch{name, {blocks}, kThreads, 0, true}; };
  const auto count = [&](Litmus which) { return counts + int(which); };
  const auto limit = unsigned(rounds);

  clear(execution, kLitmusCounts, counts);
  clear(execution, words, values);
  clear(execution, 3 * blocks, flags);
  launch(execution, shape("litmus_message_passing"), message_passing_kernel, pairs, limit, values, flags,
         flags + blocks, count(Litmus::message_passing));
  for (const bool fenced : {true, false}) {
    clear(execution, 3 * blocks, flags);
    launch(execution, shape("litmus_store_buffering"), store_buffering_kernel, pairs, limit, fenced, flags,
           flags + blocks, flags + 2 * blocks,
           count(fenced ? Litmus::store_buffering : Litmus::unfenced_store_buffering));
  }
  clear(execution, words, values);
  clear(execution, 2, &state->arrived);
  launch(execution, shape("litmus_grid_barrier"), grid_barrier_kernel, limit, values, state,
         count(Litmus::grid_barrier));
}

}  // namespace lsc::cuda
