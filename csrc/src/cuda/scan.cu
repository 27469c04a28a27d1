// The diagonal recurrence. Time is cut into chunks whose length the number of steps decides: what enters a chunk is
// what entered the one before, times the product of its transitions, plus what it makes of a state of zero. Where there
// are many numbers, one thread takes one of them through all steps. Where there are few, one thread takes one chunk of
// one number: what each chunk does, then what enters each, then each chunk again from there. Both do the same
// arithmetic, so how many numbers there are changes no bit.
#include "cuda/launch.h"
#include "cuda/number.h"
#include "cuda/scan.h"

namespace lsc::cuda {
namespace {

constexpr int kThreads = 128;
constexpr Index kManyNumbers = 1 << 15, kShortestChunk = 32, kFewestChunks = 4;

// Chunks are about as many as a chunk has steps, as one thread goes through either.
Index chunk_length(Index steps) {
  Index length = kShortestChunk;
  while (2 * length * length < steps) length *= 2;
  return length;
}

// Steps are counted as they are taken. Number i of step t lies at t * stride + i.
template <class Number>
struct Recurrence {
  Index steps, numbers, stride, length;
  Index period;  // of the numbers of a constant transition
  Index delay;   // step t takes the transition that stands at step t - delay
  bool conjugate;
  const Number *transition, *inputs, *initial;
  Number* states;

  LSC_DEVICE Index end(Index begin) const { return begin + length < steps ? begin + length : steps; }
};

// What a chunk does to the state h that enters it: product h + end.
template <class Number>
struct Effect {
  Number product, end;
};

// One number of a recurrence.
template <bool kConstant, class Number>
class Track {
 public:
  LSC_DEVICE Track(const Recurrence<Number>& x, Index i) : x_(x), i_(i), constant_() {
    if (kConstant) constant_ = factor(x.transition[i % x.period]);
  }

  // use(t, a_t, b_t) for each step.
  template <class Use>
  LSC_DEVICE void each(Index first, Index last, const Use& use) const {
    each_step<Step>(
        first, last,
        [this](Index t) {
          return Step{kConstant ? constant_ : factor(x_.transition[at(t - x_.delay)]), x_.inputs[at(t)]};
        },
        [&use](Index t, const Step& step) { use(t, step.a, step.b); });
  }

  LSC_DEVICE void write(Index t, const Number& state) const { x_.states[at(t)] = state; }

  // Each returns the last state; `write` and `start`, from the beginning of time, leave all of them in memory.
  LSC_DEVICE Number follow(Index first, Index last, Number state) const {
    each(first, last, [&](Index, const Number& a, const Number& b) { state = advance(a, state, b); });
    return state;
  }
  LSC_DEVICE Number write(Index first, Index last, Number state) const {
    each(first, last, [&](Index t, const Number& a, const Number& b) {
      state = advance(a, state, b);
      write(t, state);
    });
    return state;
  }
  LSC_DEVICE Number start(Index last) const {
    if (x_.initial) return write(0, last, x_.initial[i_]);
    const Number first = x_.inputs[at(0)];
    write(0, first);
    return write(1, last, first);
  }

  LSC_DEVICE static Effect<Number> nothing() { return {Number{1}, Number{}}; }
  LSC_DEVICE static void add(const Number& a, const Number& b, Effect<Number>& effect) {
    effect.product = advance(a, effect.product, Number{});
    effect.end = advance(a, effect.end, b);
  }
  // What leaves a chunk. `followed()` is that step by step, asked for where a product is too large for its type: times
  // a state of zero it would be NaN.
  template <class Followed>
  LSC_DEVICE static Number leaving(const Effect<Number>& effect, const Number& entered, const Followed& followed) {
    const Number state = advance(effect.product, entered, effect.end);
    return finite(state) ? state : followed();
  }

 private:
  struct Step {
    Number a, b;
  };

  LSC_DEVICE Index at(Index t) const { return t * x_.stride + i_; }
  LSC_DEVICE Number factor(const Number& a) const { return x_.conjugate ? conjugate(a) : a; }

  const Recurrence<Number>& x_;
  Index i_;
  Number constant_;
};

template <bool kConstant, class Number>
LSC_KERNEL scan_kernel(Recurrence<Number> x) {
  using Lane = Track<kConstant, Number>;
  const Index i = Index(block()) * threads() + thread();
  if (i >= x.numbers) return;
  const Lane lane(x, i);
  Number entered = lane.start(x.end(0));
  for (Index begin = x.length; begin < x.steps; begin += x.length) {
    Number state = entered;
    Effect<Number> effect = Lane::nothing();
    lane.each(begin, x.end(begin), [&](Index t, const Number& a, const Number& b) {
      state = advance(a, state, b);
      lane.write(t, state);
      Lane::add(a, b, effect);
    });
    entered = Lane::leaving(effect, entered, [&] { return state; });
  }
}

// Chunk c of [0, chunks - 1): the states of the first, the effect of each other at (c - 1) * numbers.
template <bool kConstant, class Number>
LSC_KERNEL scan_effects_kernel(Recurrence<Number> x, Index chunks, Effect<Number>* effects) {
  using Lane = Track<kConstant, Number>;
  const Index index = Index(block()) * threads() + thread();
  if (index >= (chunks - 1) * x.numbers) return;
  const Index chunk = index / x.numbers, begin = chunk * x.length;
  const Lane lane(x, index % x.numbers);
  if (chunk == 0) {
    lane.start(x.length);
    return;
  }
  Effect<Number> effect = Lane::nothing();
  lane.each(begin, begin + x.length, [&](Index, const Number& a, const Number& b) { Lane::add(a, b, effect); });
  effects[index - x.numbers] = effect;
}

// entering [chunks - 1, numbers] <- what enters each chunk but the first.
template <bool kConstant, class Number>
LSC_KERNEL scan_entering_kernel(Recurrence<Number> x, Index chunks, const Effect<Number>* effects, Number* entering) {
  using Lane = Track<kConstant, Number>;
  const Index i = Index(block()) * threads() + thread();
  if (i >= x.numbers) return;
  const Lane lane(x, i);
  Number entered = x.states[(x.length - 1) * x.stride + i];
  entering[i] = entered;
  each_step<Effect<Number>>(
      1, chunks - 1, [&](Index chunk) { return effects[(chunk - 1) * x.numbers + i]; },
      [&](Index chunk, const Effect<Number>& effect) {
        entered = Lane::leaving(effect, entered,
                                [&] { return lane.follow(chunk * x.length, (chunk + 1) * x.length, entered); });
        entering[chunk * x.numbers + i] = entered;
      });
}

template <bool kConstant, class Number>
LSC_KERNEL scan_chunks_kernel(Recurrence<Number> x, Index chunks, const Number* entering) {
  const Index index = Index(block()) * threads() + thread();
  if (index >= (chunks - 1) * x.numbers) return;
  const Index begin = (index / x.numbers + 1) * x.length;
  Track<kConstant, Number>(x, index % x.numbers).write(begin, x.end(begin), entering[index]);
}

template <bool kConstant, class Number>
void run(Execution& execution, const Recurrence<Number>& x) {
  const Index chunks = covering(x.steps, x.length);
  if (x.numbers >= kManyNumbers || chunks < kFewestChunks) {
    if (execution.workspace.counting() || x.steps == 0) return;
    launch(execution, {"scan", {covering(x.numbers, kThreads)}, kThreads}, scan_kernel<kConstant, Number>, x);
    return;
  }
  Effect<Number>* effects = execution.workspace.take<Effect<Number>>((chunks - 2) * x.numbers);
  Number* entering = execution.workspace.take<Number>((chunks - 1) * x.numbers);
  if (execution.workspace.counting()) return;
  const Grid all{covering((chunks - 1) * x.numbers, kThreads)}, one{covering(x.numbers, kThreads)};
  launch(execution, {"scan_effects", all, kThreads}, scan_effects_kernel<kConstant, Number>, x, chunks, effects);
  launch(execution, {"scan_entering", one, kThreads}, scan_entering_kernel<kConstant, Number>, x, chunks, effects,
         entering);
  launch(execution, {"scan_chunks", all, kThreads}, scan_chunks_kernel<kConstant, Number>, x, chunks, entering);
}

template <class Number, class T>
void scan_of(Execution& execution, const ScanShape& shape, const T* transition, const T* inputs, const T* initial,
             T* states) {
  const Index numbers = shape.B * shape.N;
  const Index first = shape.reverse && shape.T > 0 ? (shape.T - 1) * numbers : 0;
  Recurrence<Number> x;
  x.steps = shape.T, x.numbers = numbers, x.length = chunk_length(shape.T), x.period = shape.N;
  x.stride = shape.reverse ? -numbers : numbers;
  x.delay = shape.adjoint ? 1 : 0, x.conjugate = shape.adjoint;
  x.transition = reinterpret_cast<const Number*>(transition) + (shape.constant ? 0 : first);
  x.inputs = reinterpret_cast<const Number*>(inputs) + first;
  x.initial = reinterpret_cast<const Number*>(initial);
  x.states = reinterpret_cast<Number*>(states) + first;
  if (shape.constant)
    run<true>(execution, x);
  else
    run<false>(execution, x);
}

}  // namespace

template <class T>
void scan(Execution& execution, const ScanShape& shape, const T* transition, const T* inputs, const T* initial,
          T* states) {
  if (shape.complex)
    scan_of<Complex<T>>(execution, shape, transition, inputs, initial, states);
  else
    scan_of<T>(execution, shape, transition, inputs, initial, states);
}

template void scan(Execution&, const ScanShape&, const float*, const float*, const float*, float*);
template void scan(Execution&, const ScanShape&, const double*, const double*, const double*, double*);

}  // namespace lsc::cuda
