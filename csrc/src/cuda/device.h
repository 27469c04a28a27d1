// The words that device code is written in. nvcc reads them as CUDA; a host compiler reads them as calls of the
// emulator, which runs a kernel with one fiber a thread (tests only). Device code uses nothing of CUDA but these.
//
//   LSC_KERNEL, LSC_DEVICE        a kernel, a function of the device
//   LSC_ARGUMENT                  before an argument of a kernel that it hands on by reference
//   LSC_UNROLL                    before a loop whose arrays are to stay in registers
//   thread(), threads()           of the block, one-dimensional; lane(), warp()
//   block(), blocks()             of the grid along x; block_y(), block_z() along the others
//   barrier()                     all threads of the block; barrier_or(p): whether p held for any of them
//   warp_barrier()                all lanes of the warp, and what each wrote before is seen by all
//   shuffle(v, lane), shuffle_xor(v, mask), ballot(p)   all lanes take part
//   atomic_add(p, v)              on 32- and 64-bit integers in global memory; returns what was there. What other
//                                 threads see of memory besides is in cuda/ordering.h
//   LSC_SHARED(T, name, count)    static shared memory, as a Shared<T> called name
//   dynamic_shared<T>(bytes, count)   a view of the launch's dynamic shared memory from a byte offset on; without a
//                                 count of elements to its end
//   copy_async<Bytes>(to, from)   Bytes 4, 8 or 16 from global to shared memory; commit_copies(), wait_copies<N>():
//                                 all but the last N commits are there, for this thread
//   mma_*                         one warp's matrix product on the tensor cores, in cuda/mma.h
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(LSC_EMULATED)
#define LSC_UNROLL
#include "emulator/device.h"
#else

#define LSC_UNROLL _Pragma("unroll")

#include <cuda_runtime.h>

#define LSC_KERNEL __global__ void
#define LSC_ARGUMENT const __grid_constant__
#define LSC_DEVICE __device__ inline

namespace lsc::cuda {

// Shared memory is reached through views alone: the emulator sees every access to them.
template <class T>
class Shared {
 public:
  LSC_DEVICE Shared() : data_(nullptr) {}
  LSC_DEVICE explicit Shared(T* data) : data_(data) {}
  LSC_DEVICE T& operator[](std::ptrdiff_t i) const { return data_[i]; }
  LSC_DEVICE Shared operator+(std::ptrdiff_t offset) const { return Shared(data_ + offset); }
  LSC_DEVICE T* address() const { return data_; }

 private:
  T* data_;
};

#define LSC_SHARED(T, name, count)                 \
  __shared__ __align__(16) T name##_memory[count]; \
  const ::lsc::cuda::Shared<T> name(name##_memory)

template <class T>
LSC_DEVICE Shared<T> dynamic_shared(std::size_t bytes, std::ptrdiff_t = -1) {
  extern __shared__ __align__(16) unsigned char memory[];
  return Shared<T>(reinterpret_cast<T*>(memory + bytes));
}

LSC_DEVICE int thread() { return int(threadIdx.x); }
LSC_DEVICE int threads() { return int(blockDim.x); }
LSC_DEVICE int lane() { return int(threadIdx.x % 32); }
LSC_DEVICE int warp() { return int(threadIdx.x / 32); }
LSC_DEVICE int block() { return int(blockIdx.x); }
LSC_DEVICE int block_y() { return int(blockIdx.y); }
LSC_DEVICE int block_z() { return int(blockIdx.z); }
LSC_DEVICE int blocks() { return int(gridDim.x); }

LSC_DEVICE void barrier() { __syncthreads(); }
LSC_DEVICE bool barrier_or(bool p) { return __syncthreads_or(p) != 0; }
LSC_DEVICE void warp_barrier() { __syncwarp(); }

inline constexpr unsigned kAllLanes = 0xffffffffu;
template <class T>
LSC_DEVICE T shuffle(T value, int from) {
  return __shfl_sync(kAllLanes, value, from);
}
template <class T>
LSC_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}
LSC_DEVICE unsigned ballot(bool p) { return __ballot_sync(kAllLanes, p); }

LSC_DEVICE int atomic_add(int* p, int value) { return atomicAdd(p, value); }
LSC_DEVICE unsigned atomic_add(unsigned* p, unsigned value) { return atomicAdd(p, value); }
LSC_DEVICE unsigned long long atomic_add(unsigned long long* p, unsigned long long value) {
  return atomicAdd(p, value);
}

template <int Bytes, class T>
LSC_DEVICE void copy_async(Shared<T> to, const T* from) {
#if __CUDA_ARCH__ >= 800
  const unsigned address = unsigned(__cvta_generic_to_shared(to.address()));
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(address), "l"(from), "n"(Bytes) : "memory");
#else
  for (int i = 0; i < Bytes / int(sizeof(T)); ++i) to[i] = from[i];
#endif
}
LSC_DEVICE void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int N>
LSC_DEVICE void wait_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

}  // namespace lsc::cuda

#endif
