// The block diagonal recurrence: a thread takes one row of a block for a few sequences, a thread block all rows of it,
// and the state goes from step to step through shared memory. A sum runs over the columns in order, from the input on.
#include "cuda/launch.h"
#include "cuda/number.h"
#include "cuda/scan.h"

namespace lsc::cuda {
namespace {

constexpr int kThreads = 128, kTransposeThreads = 256, kWideThreads = 512;
constexpr Index kMostRows = 512, kManyPairs = 1024, kMostRowsOfMany = 128;
constexpr std::size_t kSharedBytes = 48 * 1024;

// Steps are counted as they are taken. The state of sequence b and block k at step t lies at t * stride + b * row + k
// m.
template <class Number>
struct Blocks {
  Index steps, sequences, stride, row;
  int m, groups;         // a thread block takes `groups` times as many sequences as a thread
  Index tiles;           // of sequences
  const Number* blocks;  // by columns where they are read from global memory
  const Number *inputs, *initial;
  Number* states;
};

template <int kSequences, class Number>
struct Several {
  Number of[kSequences];
};

template <bool kShared, int kSequences, class Number>
LSC_KERNEL block_scan_kernel(Blocks<Number> x) {
  using Item = Several<kSequences, Number>;
  const int m = x.m, i = thread() % m, mine = thread() / m * kSequences, sequences = x.groups * kSequences;
  const Index k = block() / x.tiles, b = block() % x.tiles * sequences + mine;
  const Number* global = x.blocks + k * m * m;
  const Shared<Number> shared = dynamic_shared<Number>(0);
  if (kShared)
    for (int e = thread(); e < m * m; e += threads()) shared[e % m * m + e / m] = global[e];
  // Two buffers [m, sequences] in turn, one barrier a step.
  Shared<Number> now = shared + (kShared ? m * m : 0), next = now + m * sequences;

  const auto at = [&](int s) { return (b + s < x.sequences ? b + s : x.sequences - 1) * x.row + k * m + i; };
  const auto input = [&](Index t) {
    Item item;
    for (int s = 0; s < kSequences; ++s) item.of[s] = x.inputs[t * x.stride + at(s)];
    return item;
  };
  const auto write = [&](Index t, const Item& item) {
    for (int s = 0; s < kSequences; ++s)
      if (b + s < x.sequences) x.states[t * x.stride + at(s)] = item.of[s];
  };
  const auto share = [&](const Shared<Number>& to, const Item& item) {
    for (int s = 0; s < kSequences; ++s) to[i * sequences + mine + s] = item.of[s];
    barrier();
  };

  if (x.initial) {
    Item item;
    for (int s = 0; s < kSequences; ++s) item.of[s] = x.initial[at(s)];
    share(now, item);
  } else {
    const Item item = input(0);
    write(0, item);
    share(now, item);
  }
  each_step<Item>(x.initial ? 0 : 1, x.steps, input, [&](Index t, Item sum) {
    for (int j = 0; j < m; ++j) {
      Number a;
      if (kShared)
        a = shared[j * m + i];
      else
        a = global[j * m + i];
      for (int s = 0; s < kSequences; ++s) {
        const Number h = now[j * sequences + mine + s];
        sum.of[s] = advance(a, h, sum.of[s]);
      }
    }
    write(t, sum);
    share(next, sum);
    const Shared<Number> before = now;
    now = next;
    next = before;
  });
}

// Rows beyond what threads a block has: states are read where they were written.
template <class Number>
LSC_KERNEL wide_block_scan_kernel(Blocks<Number> x) {
  const Index m = x.m, k = block() / x.sequences, offset = block() % x.sequences * x.row + k * m;
  const Number* block = x.blocks + k * m * m;
  const Number* before = x.initial ? x.initial + offset : nullptr;
  for (Index t = 0; t < x.steps; ++t) {
    const Index at = t * x.stride + offset;
    for (Index i = thread(); i < m; i += threads()) {
      Number sum = x.inputs[at + i];
      if (before)
        for (Index j = 0; j < m; ++j) sum = advance(block[j * m + i], before[j], sum);
      x.states[at + i] = sum;
    }
    barrier();
    before = x.states + at;
  }
}

// to [K, m, m] <- each block of `from` by columns.
template <class Number>
LSC_KERNEL transpose_blocks_kernel(Index count, Index m, const Number* from, Number* to) {
  const Index e = Index(block()) * threads() + thread();
  if (e >= count * m * m) return;
  const Index k = e / (m * m), row = e / m % m, column = e % m;
  to[k * m * m + column * m + row] = from[e];
}

template <class Number>
const Number* transposed(const Execution& execution, const BlockScanShape& shape, const Number* blocks,
                         Number* memory) {
  launch(execution, {"transpose_blocks", {covering(shape.K * shape.m * shape.m, kTransposeThreads)}, kTransposeThreads},
         transpose_blocks_kernel<Number>, shape.K, shape.m, blocks, memory);
  return memory;
}

template <int kSequences, class Number>
void run(Execution& execution, const BlockScanShape& shape, Blocks<Number> x) {
  const Index m = shape.m;
  const Index groups = std::max<Index>(1, std::min(kThreads / m, covering(shape.B, kSequences)));
  const std::size_t matrix = std::size_t(m * m) * sizeof(Number);
  const std::size_t states = std::size_t(2 * groups * kSequences * m) * sizeof(Number);
  const bool shared = matrix + states <= kSharedBytes;
  Number* columns = shared ? nullptr : execution.workspace.take<Number>(shape.K * m * m);
  if (execution.workspace.counting()) return;
  x.groups = int(groups), x.tiles = covering(shape.B, groups * kSequences);
  if (!shared) x.blocks = transposed(execution, shape, x.blocks, columns);
  launch(execution, {"block_scan", {shape.K * x.tiles}, int(m * groups), states + (shared ? matrix : 0)},
         shared ? block_scan_kernel<true, kSequences, Number> : block_scan_kernel<false, kSequences, Number>, x);
}

template <class Number>
void run_wide(Execution& execution, const BlockScanShape& shape, Blocks<Number> x) {
  Number* columns = execution.workspace.take<Number>(shape.K * shape.m * shape.m);
  if (execution.workspace.counting()) return;
  x.blocks = transposed(execution, shape, x.blocks, columns);
  launch(execution, {"wide_block_scan", {shape.K * shape.B}, kWideThreads}, wide_block_scan_kernel<Number>, x);
}

template <class Number, class T>
void block_scan_of(Execution& execution, const BlockScanShape& shape, const T* blocks, const T* inputs,
                   const T* initial, T* states) {
  const Index row = shape.K * shape.m, numbers = shape.B * row;
  if (shape.T == 0 || numbers == 0) return;
  const Index first = shape.reverse ? (shape.T - 1) * numbers : 0;
  Blocks<Number> x;
  x.steps = shape.T, x.sequences = shape.B, x.stride = shape.reverse ? -numbers : numbers, x.row = row;
  x.m = int(shape.m), x.groups = 1, x.tiles = shape.B;
  x.blocks = reinterpret_cast<const Number*>(blocks);
  x.inputs = reinterpret_cast<const Number*>(inputs) + first;
  x.initial = reinterpret_cast<const Number*>(initial);
  x.states = reinterpret_cast<Number*>(states) + first;
  if (shape.m > kMostRows)
    run_wide(execution, shape, x);
  else if (shape.K * shape.B >= kManyPairs && shape.m <= kMostRowsOfMany)
    run<4>(execution, shape, x);
  else
    run<1>(execution, shape, x);
}

}  // namespace

template <class T>
void block_scan(Execution& execution, const BlockScanShape& shape, const T* blocks, const T* inputs, const T* initial,
                T* states) {
  if (shape.complex)
    block_scan_of<Complex<T>>(execution, shape, blocks, inputs, initial, states);
  else
    block_scan_of<T>(execution, shape, blocks, inputs, initial, states);
}

template void block_scan(Execution&, const BlockScanShape&, const float*, const float*, const float*, float*);
template void block_scan(Execution&, const BlockScanShape&, const double*, const double*, const double*, double*);

}  // namespace lsc::cuda
