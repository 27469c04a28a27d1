// Linear recurrences over time: h_t = a_t h_{t-1} + b_t with a diagonal transition, h_t = A h_{t-1} + b_t with a block
// diagonal one. Lanes, the B * N numbers of a step, never meet, so workers split them. Where there are too few to split
// and many steps, workers take chunks of time instead: what each chunk does to the state that enters it, then the
// states that enter, then each chunk again from there. Sizes alone decide this, so results are the same for any thread
// count.
#pragma once

#include <algorithm>
#include <cmath>

#include "algorithms/block_order.h"
#include "algorithms/memory.h"
#include "algorithms/packed_matrix.h"

namespace lsc {

// inputs and states [T, B, N], initial [B, N]; in memory a complex number is (re, im).
struct ScanShape {
  Index T = 0, B = 0, N = 0;
  bool complex = false;
  bool reverse = false;   // from the last step to the first
  bool constant = false;  // transition [N] instead of [T, B, N]
  // Step by the conjugate of the transition that stands where the step leaves, not of where it arrives: the recurrence
  // that carries gradients back. Takes no initial state.
  bool adjoint = false;

  // Numbers in a step.
  Index row() const { return B * N * (complex ? 2 : 1); }
};

// Steps between two polls, for rows of so many numbers.
inline Index steps_per_poll(Index numbers) { return std::max<Index>(1, 65536 / std::max<Index>(1, numbers)); }

// The diagonal recurrence over memory that lies as ScanShape says, steps counted as they are taken.
template <class T>
class DiagonalScan {
 public:
  // Without an initial state (null) the first state is the first input, and no transition is read for it.
  DiagonalScan(const Backend<T>& backend, const ScanKernels<T>& kernels, const ScanShape& shape, const T* transition,
               const T* inputs, const T* initial, T* states)
      : backend_(backend), shape_(shape), row_(shape.row()), initial_(initial) {
    kernel_ = !shape.complex ? kernels.real : shape.adjoint ? kernels.conjugate : kernels.complex;
    chain_ = shape.complex ? kernels.complex : kernels.real;
    stride_ = shape.reverse ? -row_ : row_;
    const Index first = shape.reverse && shape.T > 0 ? (shape.T - 1) * row_ : 0;
    inputs_ = inputs + first;
    states_ = states + first;
    if (shape.constant) {
      const Index numbers = shape.B > 0 ? row_ / shape.B : 0;
      for (Index b = 0; b < shape.B; ++b) repeated_.insert(repeated_.end(), transition, transition + numbers);
      transition_ = repeated_.data();
    } else {
      transition_ = transition + first;
      transition_stride_ = stride_;
    }
  }

  void run() const {
    if (shape_.T == 0 || row_ == 0) return;
    if (row_ < kFewNumbers && shape_.T * row_ >= kLongWork) {
      if (!run_chunks())
        run_workers(1, 1, backend_.poll,
                    [&](int, const Poll& poll) { run_steps(0, shape_.T, 0, row_, initial_, poll); });
      return;
    }
    const Index pieces = (row_ + kPiece - 1) / kPiece;
    const int threads = useful_threads(backend_.threads, operations());
    parallel_ranges(threads, pieces, backend_.poll, [&](Index begin, Index end, const Poll& poll) {
      for (Index piece = begin; piece < end; piece += kTilePieces)
        run_steps(0, shape_.T, piece * kPiece, std::min({(piece + kTilePieces) * kPiece, end * kPiece, row_}), initial_,
                  poll);
    });
  }

 private:
  // Numbers of a row that a worker takes: less than a page of each row is slower than one worker alone, as memory is
  // then read in jumps. A tile of pieces is walked through time at once, so that a step finds the last in cache.
  static constexpr Index kPiece = 4096 / Index(sizeof(T)), kTilePieces = 8;
  static constexpr Index kFewNumbers = 512 / Index(sizeof(T)), kLongWork = 1 << 20, kChunkNumbers = 1 << 16;

  double operations() const { return 4.0 * double(shape_.T) * double(row_); }
  const T* transition_at(Index t) const { return transition_ + (shape_.adjoint ? t - 1 : t) * transition_stride_; }

  // States of steps [first, last), numbers [begin, end) of each row; `before` [row] is the state they start from.
  void run_steps(Index first, Index last, Index begin, Index end, const T* before, const Poll& poll) const {
    const Index n = end - begin, block = steps_per_poll(n);
    if (!before && first < last) {
      std::copy_n(inputs_ + first * stride_ + begin, n, states_ + first * stride_ + begin);
      before = states_ + first * stride_;
      ++first;
    }
    for (Index t = first; t < last; t += block) {
      if (poll()) return;
      const Index steps = std::min(block, last - t);
      kernel_(steps, n, transition_at(t) + begin, transition_stride_, inputs_ + t * stride_ + begin, stride_,
              before + begin, states_ + t * stride_ + begin, stride_);
      before = states_ + (t + steps - 1) * stride_;
    }
  }

  void set_one(T* numbers) const {
    for (Index i = 0; i < row_; ++i) numbers[i] = shape_.complex && i % 2 == 1 ? T(0) : T(1);
  }

  // What steps [first, last) do to a state h that enters: product h + end, both [row]; a constant transition has its
  // product already.
  void summarise(Index first, Index last, const T* zeros, T* product, T* end, const Poll& poll) const {
    std::fill(end, end + row_, T(0));
    if (!shape_.constant) set_one(product);
    const Index block = steps_per_poll(row_);
    for (Index t = first; t < last; t += block) {
      if (poll()) return;
      const Index steps = std::min(block, last - t);
      kernel_(steps, row_, transition_at(t), transition_stride_, inputs_ + t * stride_, stride_, end, end, 0);
      if (!shape_.constant) kernel_(steps, row_, transition_at(t), transition_stride_, zeros, 0, product, product, 0);
    }
  }

  // A constant transition to this power, by squaring.
  void power(Index exponent, const T* zeros, T* result) const {
    std::vector<T> square(static_cast<std::size_t>(row_));
    set_one(result);
    kernel_(1, row_, transition_, 0, zeros, 0, result, square.data(), 0);
    for (; exponent > 0; exponent /= 2) {
      if (exponent % 2 == 1) chain_(1, row_, square.data(), 0, zeros, 0, result, result, 0);
      chain_(1, row_, square.data(), 0, zeros, 0, square.data(), square.data(), 0);
    }
  }

  // False, with nothing settled, where a product overflows: a state of zero would have become NaN.
  bool run_chunks() const {
    const Index length = std::max<Index>(1, kChunkNumbers / row_), chunks = (shape_.T + length - 1) / length;
    const int threads = useful_threads(backend_.threads, operations());
    std::vector<T> zeros(std::size_t(row_), T(0));
    std::vector<T> products(std::size_t(chunks * row_)), ends(std::size_t(chunks * row_));
    if (shape_.constant) {
      power(length, zeros.data(), products.data());
      for (Index chunk = 1; chunk < chunks; ++chunk) std::copy_n(products.data(), row_, products.data() + chunk * row_);
    }
    const auto last = [&](Index chunk) { return std::min((chunk + 1) * length, shape_.T); };
    // The first chunk knows what enters it, and nobody asks what the last one does.
    parallel_ranges(threads, chunks - 1, backend_.poll, [&](Index begin, Index end, const Poll& poll) {
      for (Index chunk = begin; chunk < end; ++chunk) {
        if (chunk == 0)
          run_steps(0, last(0), 0, row_, initial_, poll);
        else
          summarise(chunk * length, last(chunk), zeros.data(), products.data() + chunk * row_,
                    ends.data() + chunk * row_, poll);
      }
    });
    const auto finite = [](const std::vector<T>& values) {
      return std::all_of(values.begin(), values.end(), [](T value) { return std::isfinite(value); });
    };
    if (!finite(products) || !finite(ends)) return false;
    std::copy_n(states_ + (length - 1) * stride_, row_, ends.data());
    for (Index chunk = 1; chunk + 1 < chunks; ++chunk) {
      T* entered = ends.data() + chunk * row_;  // becomes what enters the next chunk
      chain_(1, row_, products.data() + chunk * row_, 0, entered, 0, entered - row_, entered, 0);
    }
    parallel_ranges(threads, chunks - 1, backend_.poll, [&](Index begin, Index end, const Poll& poll) {
      for (Index chunk = begin + 1; chunk < end + 1; ++chunk)
        run_steps(chunk * length, last(chunk), 0, row_, ends.data() + (chunk - 1) * row_, poll);
    });
    return true;
  }

  const Backend<T>& backend_;
  ScanShape shape_;
  Index row_, stride_ = 0, transition_stride_ = 0;
  typename ScanKernels<T>::Scan kernel_, chain_;
  std::vector<T> repeated_;
  const T *transition_ = nullptr, *inputs_ = nullptr, *initial_;
  T* states_ = nullptr;
};

// inputs and states [T, B, K m], initial [B, K m] or null for zeros, blocks [K, m, m].
struct BlockScanShape {
  Index T = 0, B = 0, K = 0, m = 0;
  bool complex = false;
  bool reverse = false;
};

// A block as a matrix of real numbers on interleaved vectors: entry z becomes ((re, -im), (im, re)).
template <class T>
std::vector<T> real_block(const BlockScanShape& shape, const T* block) {
  const Index m = shape.m;
  if (!shape.complex) return std::vector<T>(block, block + m * m);
  std::vector<T> real(std::size_t(4 * m * m));
  for (Index i = 0; i < m; ++i)
    for (Index j = 0; j < m; ++j) {
      const T re = block[2 * (i * m + j)], im = block[2 * (i * m + j) + 1];
      T* entry = real.data() + 4 * i * m + 2 * j;
      entry[0] = entry[2 * m + 1] = re;
      entry[1] = -im;
      entry[2 * m] = im;
    }
  return real;
}

// Small blocks, side by side in vector registers; workers split sequences and handfuls of blocks.
template <class T>
void scan_small_blocks(const Backend<T>& backend, const BlockKernels<T>& kernels, const BlockScanShape& shape, Index m,
                       const std::vector<T>& blocks, const T* inputs, const T* initial, T* states) {
  constexpr Index kTogether = 64;
  const Index step = shape.K * m, row = shape.B * step, groups = (shape.K + kTogether - 1) / kTogether;
  const Index stride = shape.reverse ? -row : row, first = shape.reverse ? (shape.T - 1) * row : 0;
  const double operations = 2.0 * double(shape.T * row) * double(m);
  parallel_ranges(useful_threads(backend.threads, operations), groups * shape.B, backend.poll,
                  [&](Index begin, Index end, const Poll& poll) {
                    for (Index pair = begin; pair < end; ++pair) {
                      const Index k = pair / shape.B * kTogether, offset = pair % shape.B * step + k * m;
                      // A lone block would go another way: it has a block of zeros beside it.
                      const Index count = std::min(kTogether, shape.K - k), side_by_side = std::max<Index>(count, 2);
                      std::vector<T> own(blocks.begin() + k * m * m, blocks.begin() + (k + count) * m * m);
                      own.resize(std::size_t(side_by_side * m * m), T(0));
                      const BlockOrder<T> order(kernels, side_by_side, m);
                      const std::vector<T> packed = order.pack_matrix(own.data(), false);
                      const Memory<T> memory(2 * order.vector());
                      std::vector<T> natural(std::size_t(side_by_side * m), T(0));
                      T *before = memory.data(), *after = before + order.vector();
                      if (initial) {
                        std::copy_n(initial + offset, count * m, natural.data());
                        order.pack(natural.data(), 1, before);
                      }
                      for (Index t = 0; t < shape.T; ++t) {
                        if (t % steps_per_poll(count * m) == 0 && poll()) return;
                        std::copy_n(inputs + first + t * stride + offset, count * m, natural.data());
                        order.pack(natural.data(), 1, after);
                        if (initial || t > 0) order.multiply_add(packed, before, after);
                        order.unpack(after, 1, natural.data());
                        std::copy_n(natural.data(), count * m, states + first + t * stride + offset);
                        std::swap(before, after);
                      }
                    }
                  });
}

// Workers split the K * B pairs of a block and a sequence.
template <class T>
void block_scan(const Backend<T>& backend, const BlockKernels<T>& kernels, const BlockScanShape& shape, const T* blocks,
                const T* inputs, const T* initial, T* states) {
  const Index T_ = shape.T, B = shape.B, m = shape.m * (shape.complex ? 2 : 1), step = shape.K * m, row = B * step;
  if (T_ == 0 || row == 0) return;
  std::vector<T> real;
  for (Index k = 0; k < shape.K; ++k) {
    const std::vector<T> block = real_block(shape, blocks + k * shape.m * m);
    real.insert(real.end(), block.begin(), block.end());
  }
  if (BlockOrder<T>::is_together(shape.K, m))
    return scan_small_blocks(backend, kernels, shape, m, real, inputs, initial, states);
  std::vector<PackedMatrix<T>> packed;
  for (Index k = 0; k < shape.K; ++k) packed.emplace_back(backend.linear, m, m, real.data() + k * m * m, 1, m);
  const Index stride = shape.reverse ? -row : row, first = shape.reverse ? (T_ - 1) * row : 0;
  const double operations = 2.0 * double(T_ * row) * double(m);
  parallel_ranges(useful_threads(backend.threads, operations), shape.K * B, backend.poll,
                  [&](Index begin, Index end, const Poll& poll) {
                    for (Index k = begin / B; k * B < end; ++k) {
                      const Index b = std::max<Index>(begin - k * B, 0), rows = std::min(end - k * B, B) - b;
                      const Index offset = b * step + k * m;
                      const T* before = initial ? initial + offset : nullptr;
                      for (Index t = 0; t < T_; ++t) {
                        if (poll()) return;
                        const T* source = inputs + first + t * stride + offset;
                        T* target = states + first + t * stride + offset;
                        for (Index i = 0; i < rows; ++i) std::copy_n(source + i * step, m, target + i * step);
                        if (before) packed[std::size_t(k)].multiply(rows, before, step, 1, target, step, true);
                        before = target;
                      }
                    }
                  });
}

}  // namespace lsc
