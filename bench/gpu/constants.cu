// Measures what the design of recurrent kernels rests on: how long a time step takes where its state is passed on
// within one block, through a cluster's shared memory, or through L2; what a grid barrier and a launch in a graph cost;
// copy bandwidth; the rates of multiply-adds with and without tensor cores. One JSON object on standard output; a
// figure whose result is wrong is not there, and its name is among "wrong".
//
// The step is h <- tanh(W h) for kRows sequences side by side, W [H, H] and h in fp16, sums in float32: the least that
// a recurrent layer does. A warp holds 16 rows of W in registers for all steps.
#include <cooperative_groups.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace cg = cooperative_groups;

namespace {

constexpr int kRows = 8;         // sequences: the columns of one mma
constexpr int kPolls = 1 << 17;  // looks at a flag before a kernel gives up

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(status));
  std::exit(1);
}

template <class T>
struct DeviceArray {
  T* data = nullptr;
  explicit DeviceArray(std::size_t count) { check(cudaMalloc(&data, count * sizeof(T)), "allocation"); }
  DeviceArray(const std::vector<T>& host) : DeviceArray(host.size()) {
    check(cudaMemcpy(data, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice), "copy");
  }
  ~DeviceArray() { cudaFree(data); }
  DeviceArray(const DeviceArray&) = delete;
  std::vector<T> host(std::size_t count) const {
    std::vector<T> result(count);
    check(cudaMemcpy(result.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost), "copy");
    return result;
  }
};

// Seconds of one run: the median of nine, after two that do not count.
double seconds_of(const std::function<void()>& run) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "event");
  check(cudaEventCreate(&end), "event");
  std::vector<double> times;
  for (int i = 0; i < 11; ++i) {
    check(cudaEventRecord(begin), "event");
    run();
    check(cudaEventRecord(end), "event");
    check(cudaEventSynchronize(end), "run");
    check(cudaGetLastError(), "launch");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end), "event");
    if (i >= 2) times.push_back(milliseconds * 1e-3);
  }
  std::sort(times.begin(), times.end());
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return times[times.size() / 2];
}

// D [16, 8] += A [16, 16] B [16, 8], fragments as the PTX ISA lays out m16n8k16.
__device__ void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ std::uint32_t pair_at(const __half* p) { return *reinterpret_cast<const std::uint32_t*>(p); }

// A warp's 16 rows of W, and what it makes of a state h [kRows, H] whose rows lie `h_row` apart.
template <int H>
struct WarpRows {
  std::uint32_t a[H / 16][4];

  __device__ void load(const __half* w, int first) {
    const int group = threadIdx.x % 32 / 4, in_group = threadIdx.x % 4;
    for (int k = 0; k < H / 16; ++k) {
      const __half* at = w + (first + group) * H + 16 * k + 2 * in_group;
      a[k][0] = pair_at(at);
      a[k][1] = pair_at(at + 8 * H);
      a[k][2] = pair_at(at + 8);
      a[k][3] = pair_at(at + 8 * H + 8);
    }
  }
  // d[0], d[1]: row `group` of the warp's, sequences 2 in_group and the next; d[2], d[3]: row group + 8.
  __device__ void multiply(const __half* h, int h_row, float (&d)[4]) const {
    const int group = threadIdx.x % 32 / 4, in_group = threadIdx.x % 4;
    float odd[4] = {0, 0, 0, 0};
    for (int i = 0; i < 4; ++i) d[i] = 0;
#pragma unroll
    for (int k = 0; k < H / 16; ++k) {
      const __half* at = h + group * h_row + 16 * k + 2 * in_group;
      const std::uint32_t b[2] = {pair_at(at), pair_at(at + 8)};
      mma(k % 2 ? odd : d, a[k], b);
    }
    for (int i = 0; i < 4; ++i) d[i] = tanhf(d[i] + odd[i]);
  }
};

constexpr int kPad = 8;  // halves between rows, so that their banks differ

// All of W in one block; the state stays in its shared memory.
template <int H>
__global__ void __launch_bounds__(2 * H) one_block(const __half* w, const __half* h0, __half* h_end, int steps) {
  __shared__ __align__(16) __half h[2][kRows][H + kPad];
  const int group = threadIdx.x % 32 / 4, in_group = threadIdx.x % 4, first = threadIdx.x / 32 * 16;
  WarpRows<H> rows;
  rows.load(w, first);
  for (int i = threadIdx.x; i < kRows * H; i += blockDim.x) h[0][i / H][i % H] = h0[i];
  __syncthreads();
  for (int t = 0; t < steps; ++t) {
    float d[4];
    rows.multiply(&h[t % 2][0][0], H + kPad, d);
    for (int i = 0; i < 4; ++i) h[(t + 1) % 2][2 * in_group + i % 2][first + group + i / 2 * 8] = __float2half_rn(d[i]);
    __syncthreads();
  }
  for (int i = threadIdx.x; i < kRows * H; i += blockDim.x) h_end[i] = h[steps % 2][i / H][i % H];
}

// W split over the blocks of a cluster; each writes its part of the next state into everybody's shared memory, and the
// cluster's barrier orders the steps.
template <int H, int C>
__global__ void __launch_bounds__(2 * H / C)
    cluster_barrier(const __half* w, const __half* h0, __half* h_end, int steps) {
#if __CUDA_ARCH__ >= 900
  __shared__ __align__(16) __half h[2][kRows][H + kPad];
  cg::cluster_group cluster = cg::this_cluster();
  const int group = threadIdx.x % 32 / 4, in_group = threadIdx.x % 4;
  const int first = int(cluster.block_rank()) * (H / C) + int(threadIdx.x) / 32 * 16;
  WarpRows<H> rows;
  rows.load(w, first);
  for (int i = threadIdx.x; i < kRows * H; i += blockDim.x) h[0][i / H][i % H] = h0[i];
  cluster.sync();
  for (int t = 0; t < steps; ++t) {
    float d[4];
    rows.multiply(&h[t % 2][0][0], H + kPad, d);
    for (int peer = 0; peer < C; ++peer) {
      __half* theirs = cluster.map_shared_rank(&h[(t + 1) % 2][0][0], peer);
      for (int i = 0; i < 4; ++i)
        theirs[(2 * in_group + i % 2) * (H + kPad) + first + group + i / 2 * 8] = __float2half_rn(d[i]);
    }
    cluster.sync();
  }
  if (cluster.block_rank() == 0)
    for (int i = threadIdx.x; i < kRows * H; i += blockDim.x) h_end[i] = h[steps % 2][i / H][i % H];
#endif
}

[[maybe_unused]] __device__ unsigned shared_address(const void* p) { return unsigned(__cvta_generic_to_shared(p)); }

// As before, but no barrier: asynchronous stores count the bytes that arrive, and a block goes on when the whole state
// is there. Whoever has all of h[t] knows that everybody has read h[t - 1], so two buffers are enough.
template <int H, int C>
__global__ void __launch_bounds__(2 * H / C)
    cluster_stores(const __half* w, const __half* h0, __half* h_end, int steps, int* gave_up) {
#if __CUDA_ARCH__ >= 900
  __shared__ __align__(16) __half h[2][kRows][H + kPad];
  __shared__ __align__(16) __half own[kRows][H / C];
  __shared__ __align__(8) std::uint64_t arrived[2];
  cg::cluster_group cluster = cg::this_cluster();
  const int group = threadIdx.x % 32 / 4, in_group = threadIdx.x % 4, local = int(threadIdx.x) / 32 * 16;
  const int rank = int(cluster.block_rank()), first = rank * (H / C);
  constexpr unsigned kBytes = kRows * H * sizeof(__half);
  WarpRows<H> rows;
  rows.load(w, first + local);
  for (int i = threadIdx.x; i < kRows * H; i += blockDim.x) h[0][i / H][i % H] = h0[i];
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&arrived[i])) : "memory");
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&arrived[i])),
                   "r"(kBytes)
                   : "memory");
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  cluster.sync();
  bool fine = true;
  for (int t = 0; t < steps; ++t) {
    float d[4];
    rows.multiply(&h[t % 2][0][0], H + kPad, d);
    for (int i = 0; i < 4; ++i) own[2 * in_group + i % 2][local + group + i / 2 * 8] = __float2half_rn(d[i]);
    __syncthreads();
    const int next = (t + 1) % 2;
    // Eight bytes, four units of one sequence, to one peer.
    constexpr int kPieces = kRows * (H / C) / 4;
    for (int i = threadIdx.x; i < kPieces * C; i += blockDim.x) {
      const int peer = i / kPieces, piece = i % kPieces, row = piece / (H / C / 4), column = piece % (H / C / 4) * 4;
      unsigned to, flag;
      asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                   : "=r"(to)
                   : "r"(shared_address(&h[next][row][first + column])), "r"(peer));
      asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                   : "=r"(flag)
                   : "r"(shared_address(&arrived[next])), "r"(peer));
      const std::uint64_t value = *reinterpret_cast<const std::uint64_t*>(&own[row][column]);
      asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b64 [%0], %1, [%2];" ::"r"(to), "l"(value),
                   "r"(flag)
                   : "memory");
    }
    // Step t is the (t / 2)-th use of its barrier.
    const unsigned parity = unsigned(t / 2) % 2;
    unsigned done = 0;
    for (int polls = 0; fine && !done && polls < kPolls; ++polls)
      asm volatile(
          "{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; "
          "}"
          : "=r"(done)
          : "r"(shared_address(&arrived[next])), "r"(parity)
          : "memory");
    fine = fine && done;
    __syncthreads();  // nobody still waits for the phase that the next arrival opens
    if (threadIdx.x == 0)
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&arrived[next])),
                   "r"(kBytes)
                   : "memory");
  }
  if (!fine) *gave_up = 1;
  if (rank == 0)
    for (int i = threadIdx.x; i < kRows * H; i += blockDim.x) h_end[i] = h[steps % 2][i / H][i % H];
  cluster.sync();
#endif
}

// W split over the blocks of a grid. A word of the state that travels through L2 is half its own flag: two units of one
// sequence, and the step that they belong to. Readers look at the data itself until the step is the one they want.
template <int H, int C>
__global__ void __launch_bounds__(2 * H / C) through_l2(const __half* w, const __half* h0, __half* h_end,
                                                        std::uint64_t* words, unsigned epoch, int steps, int* gave_up) {
  __shared__ __align__(16) __half h[kRows][H + kPad];
  const int group = threadIdx.x % 32 / 4, in_group = threadIdx.x % 4;
  const int first = int(blockIdx.x) * (H / C) + int(threadIdx.x) / 32 * 16;
  WarpRows<H> rows;
  rows.load(w, first);
  for (int i = threadIdx.x; i < kRows * H; i += blockDim.x) h[i / H][i % H] = h0[i];
  __syncthreads();
  constexpr int kWords = kRows * H / 2;
  bool fine = true;
  for (int t = 0; t < steps; ++t) {
    float d[4];
    rows.multiply(&h[0][0], H + kPad, d);
    volatile std::uint64_t* next = words + (t + 1) % 2 * kWords;
    const std::uint64_t tag = std::uint64_t(epoch + unsigned(t) + 1) << 32;
    // Rows group and group + 1 are neighbours in a word: lanes of the even group take those of the odd one.
    for (int i = 0; i < 4; ++i) {
      const float above = __shfl_down_sync(0xffffffffu, d[i], 4);
      if (group % 2) continue;
      const __half2 both = __floats2half2_rn(d[i], above);
      const int row = 2 * in_group + i % 2, column = first + group + i / 2 * 8;
      next[(row * H + column) / 2] = tag | *reinterpret_cast<const std::uint32_t*>(&both);
    }
    __syncthreads();  // everybody is done with h
    for (int i = threadIdx.x; i < kWords; i += blockDim.x) {
      std::uint64_t word = 0;
      int polls = 0;
      do word = next[i];
      while (word >> 32 != tag >> 32 && fine && ++polls < kPolls);
      fine = word >> 32 == tag >> 32;
      *reinterpret_cast<std::uint32_t*>(&h[2 * i / H][2 * i % H]) = std::uint32_t(word);
    }
    __syncthreads();
  }
  if (!fine) *gave_up = 1;
  if (blockIdx.x == 0)
    for (int i = threadIdx.x; i < kRows * H; i += blockDim.x) h_end[i] = h[i / H][i % H];
}

__global__ void grid_barriers(int count) {
  cg::grid_group grid = cg::this_grid();
  for (int i = 0; i < count; ++i) grid.sync();
}

__global__ void nothing() {}

__global__ void copy(const uint4* from, uint4* to, std::size_t count) {
  const std::size_t stride = std::size_t(gridDim.x) * blockDim.x;
  for (std::size_t i = std::size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) to[i] = from[i];
}

enum class Rate { fp16, bf16, tf32, fp32, fp64 };

// Rounds of eight independent products or multiply-adds a thread on registers.
template <Rate kRate>
__global__ void multiply_adds(int rounds, float* out) {
  float sum = 0;
  if constexpr (kRate == Rate::fp32 || kRate == Rate::fp64) {
    using T = typename std::conditional<kRate == Rate::fp64, double, float>::type;
    T x[8];
    for (int i = 0; i < 8; ++i) x[i] = T(threadIdx.x + i);
    for (int r = 0; r < rounds; ++r)
      for (int i = 0; i < 8; ++i) x[i] = x[i] * T(0.999) + T(0.5);
    for (int i = 0; i < 8; ++i) sum += float(x[i]);
  } else {
    float d[8][4] = {};
    // Pairs of random sign and mantissa: power, and with it the clock, depends on the numbers.
    std::uint32_t a[4], b[2];
    for (int i = 0; i < 6; ++i)
      (i < 4 ? a[i] : b[i - 4]) = 0x3c003c00u ^ ((threadIdx.x * 6u + unsigned(i) + 1) * 0x9E3779B9u & 0x83ff83ffu);
    for (int r = 0; r < rounds; ++r)
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        float (&x)[4] = d[i];
        if constexpr (kRate == Rate::fp16)
          mma(x, a, b);
        else if constexpr (kRate == Rate::bf16)
          asm volatile(
              "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
              "{%0, %1, %2, %3};"
              : "+f"(x[0]), "+f"(x[1]), "+f"(x[2]), "+f"(x[3])
              : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
        else
          asm volatile(
              "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
              "{%0, %1, %2, %3};"
              : "+f"(x[0]), "+f"(x[1]), "+f"(x[2]), "+f"(x[3])
              : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
      }
    for (int i = 0; i < 8; ++i)
      for (float x : d[i]) sum += x;
  }
  out[std::size_t(blockIdx.x) * blockDim.x + threadIdx.x] = sum;
}

// W and the first state of width H, and the state after some steps by a loop in double.
struct Network {
  int H;
  std::vector<__half> w, h;

  explicit Network(int width) : H(width), w(std::size_t(width) * width), h(std::size_t(kRows) * width) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (__half& x : w) x = __float2half(1.2f / std::sqrt(float(width)) * normal(random));
    for (__half& x : h) x = __float2half(0.5f * normal(random));
  }
  std::vector<double> after(int steps) const {
    std::vector<double> state(h.size()), next(h.size());
    for (std::size_t i = 0; i < h.size(); ++i) state[i] = __half2float(h[i]);
    for (int t = 0; t < steps; ++t) {
      for (int row = 0; row < kRows; ++row)
        for (int u = 0; u < H; ++u) {
          double sum = 0;
          for (int k = 0; k < H; ++k)
            sum += double(__half2float(w[std::size_t(u * H + k)])) * state[std::size_t(row * H + k)];
          next[std::size_t(row * H + u)] = std::tanh(sum);
        }
      state = next;
    }
    return state;
  }
};

struct Report {
  std::string figures, wrong;
  void add(const std::string& name, double value) {
    char text[160];
    std::snprintf(text, sizeof text, "%s\"%s\": %.6g", figures.empty() ? "" : ", ", name.c_str(), value);
    figures += text;
  }
  void refuse(const std::string& name) { wrong += (wrong.empty() ? "\"" : ", \"") + name + "\""; }
};

constexpr int kChecked = 6, kSteps = 4096;

// Times run(steps, h_end) where what it does in a few steps is right.
void measure_step(Report& report, const std::string& name, const Network& network,
                  const std::function<void(int, __half*)>& run, const std::function<bool()>& failed) {
  DeviceArray<__half> end(network.h.size());
  check(cudaMemset(end.data, 0xff, network.h.size() * sizeof(__half)), "poison");
  run(kChecked, end.data);
  check(cudaDeviceSynchronize(), name.c_str());
  const std::vector<double> expected = network.after(kChecked);
  const std::vector<__half> found = end.host(network.h.size());
  double error = 0, size = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    error += std::pow(double(__half2float(found[i])) - expected[i], 2);
    size += expected[i] * expected[i];
  }
  if (!(std::sqrt(error / size) < 1e-2) || failed()) return report.refuse(name);
  const double seconds = seconds_of([&] { run(kSteps, end.data); });
  if (failed()) return report.refuse(name);
  report.add(name, seconds / kSteps * 1e6);
}

template <int H>
void single_block(Report& report) {
  const Network network(H);
  const DeviceArray<__half> w(network.w), h(network.h);
  measure_step(
      report, "single_block_step_us_H" + std::to_string(H), network,
      [&](int steps, __half* end) { one_block<H><<<1, 2 * H>>>(w.data, h.data, end, steps); }, [] { return false; });
}

template <int H, int C, class Kernel, class... Arguments>
cudaError_t launch_cluster(Kernel kernel, Arguments... arguments) {
  if (C > 8)
    if (const cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1))
      return status;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(C);
  config.blockDim = dim3(2 * H / C);
  cudaLaunchAttribute size = {};
  size.id = cudaLaunchAttributeClusterDimension;
  size.val.clusterDim.x = C;
  size.val.clusterDim.y = size.val.clusterDim.z = 1;
  config.attrs = &size;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

template <int H, int C>
void clusters(Report& report) {
  const Network network(H);
  const DeviceArray<__half> w(network.w), h(network.h);
  DeviceArray<int> gave_up(std::vector<int>{0});
  const auto failed = [&] { return gave_up.host(1)[0] != 0; };
  const __half *weights = w.data, *start = h.data;
  int* flag = gave_up.data;
  const std::string suffix = "_us_H" + std::to_string(H) + "_C" + std::to_string(C);
  measure_step(
      report, "cluster_barrier_step" + suffix, network,
      [&](int steps, __half* end) {
        check(launch_cluster<H, C>(cluster_barrier<H, C>, weights, start, end, steps), "cluster_barrier");
      },
      failed);
  measure_step(
      report, "cluster_store_step" + suffix, network,
      [&](int steps, __half* end) {
        check(launch_cluster<H, C>(cluster_stores<H, C>, weights, start, end, steps, flag), "cluster_stores");
      },
      failed);
}

template <int H, int C>
void flags_in_data(Report& report) {
  const Network network(H);
  const DeviceArray<__half> w(network.w), h(network.h);
  DeviceArray<int> gave_up(std::vector<int>{0});
  DeviceArray<std::uint64_t> words(std::vector<std::uint64_t>(std::size_t(kRows) * H, 0));
  unsigned epoch = 0;
  measure_step(
      report, "flag_in_data_step_us_H" + std::to_string(H) + "_blocks" + std::to_string(C), network,
      [&](int steps, __half* end) {
        const __half *weights = w.data, *start = h.data;
        std::uint64_t* passed = words.data;
        int* flag = gave_up.data;
        void* arguments[] = {&weights, &start, &end, &passed, &epoch, &steps, &flag};
        check(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(through_l2<H, C>), dim3(C), dim3(2 * H / C),
                                          arguments, 0, nullptr),
              "through_l2");
        epoch += unsigned(steps);
      },
      [&] { return gave_up.host(1)[0] != 0; });
}

void barriers_and_launches(Report& report, int processors) {
  int count = 1000;
  void* arguments[] = {&count};
  const double barriers = seconds_of([&] {
    check(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(grid_barriers), dim3(unsigned(processors)),
                                      dim3(256), arguments, 0, nullptr),
          "grid_barriers");
  });
  report.add("grid_barrier_us", barriers / count * 1e6);
  constexpr int kKernels = 200;
  cudaStream_t stream;
  check(cudaStreamCreate(&stream), "stream");
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  for (int i = 0; i < kKernels; ++i) nothing<<<1, 32, 0, stream>>>();
  check(cudaStreamEndCapture(stream, &graph), "capture");
  check(cudaGraphInstantiate(&executable, graph, 0), "graph");
  const double launches = seconds_of([&] { check(cudaGraphLaunch(executable, nullptr), "graph"); });
  report.add("graph_launch_us_per_kernel", launches / kKernels * 1e6);
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

void copies(Report& report, int processors) {
  const std::size_t bytes = std::size_t(1) << 30, count = bytes / sizeof(uint4);
  DeviceArray<uint4> from(count), to(count);
  check(cudaMemset(from.data, 0x5a, bytes), "fill");
  check(cudaMemset(to.data, 0, bytes), "fill");
  const double seconds = seconds_of([&] { copy<<<unsigned(16 * processors), 512>>>(from.data, to.data, count); });
  const std::vector<uint4> end = to.host(count);
  const bool all = std::all_of(end.begin(), end.end(), [](const uint4& x) {
    return x.x == 0x5a5a5a5au && x.y == x.x && x.z == x.x && x.w == x.x;
  });
  if (!all) return report.refuse("copy_gb_per_s");
  report.add("copy_gb_per_s", 2.0 * double(bytes) / seconds * 1e-9);
}

template <Rate kRate>
void rate(Report& report, const char* name, int processors, double operations_per_warp_round) {
  constexpr int kRounds = 20000;
  const unsigned blocks = unsigned(2 * processors), warps = 16;
  DeviceArray<float> out(std::size_t(blocks) * warps * 32);
  const double seconds = seconds_of([&] { multiply_adds<kRate><<<blocks, warps * 32>>>(kRounds, out.data); });
  report.add(std::string(name) + "_tflop_per_s",
             operations_per_warp_round * kRounds * warps * blocks / seconds * 1e-12);
}

}  // namespace

int main() {
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess || count == 0) {
    std::fprintf(stderr, "no CUDA device: %s\n", cudaGetErrorString(status));
    return 3;
  }
  cudaDeviceProp device;
  check(cudaGetDeviceProperties(&device, 0), "device");
  Report report;
  single_block<64>(report);
  single_block<128>(report);
  single_block<256>(report);
  if (device.major == 9) {
    clusters<256, 2>(report);
    clusters<256, 4>(report);
    clusters<256, 8>(report);
    clusters<256, 16>(report);
  }
  flags_in_data<256, 16>(report);
  flags_in_data<512, 32>(report);
  const int processors = device.multiProcessorCount;
  barriers_and_launches(report, processors);
  copies(report, processors);
  // One round is eight products of a warp: 2 * 16 * 8 * k operations each; or eight multiply-adds a lane.
  rate<Rate::fp16>(report, "mma_fp16", processors, 8 * 2.0 * 16 * 8 * 16);
  rate<Rate::bf16>(report, "mma_bf16", processors, 8 * 2.0 * 16 * 8 * 16);
  rate<Rate::tf32>(report, "mma_tf32", processors, 8 * 2.0 * 16 * 8 * 8);
  rate<Rate::fp32>(report, "fma_fp32", processors, 8 * 2.0 * 32);
  rate<Rate::fp64>(report, "fma_fp64", processors, 8 * 2.0 * 32);
  std::printf(
      "{\"device\": \"%s\", \"capability\": \"%d.%d\", \"multiprocessors\": %d, \"wrong\": [%s], "
      "\"figures\": {%s}}\n",
      device.name, device.major, device.minor, processors, report.wrong.c_str(), report.figures.c_str());
  return report.wrong.empty() ? 0 : 2;
}
