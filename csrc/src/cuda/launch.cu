#include <atomic>

#include "cuda/launch.h"
#include "cuda/mma.h"

#if !defined(LSC_EMULATED)
#include "cuda/failure.h"
#endif

namespace lsc::cuda {
namespace {

std::atomic<std::uint64_t> launched{0};

}  // namespace

void count_launch() { ++launched; }
std::uint64_t launches() { return launched; }

#if defined(LSC_EMULATED)

DeviceGuard::DeviceGuard(int device) : device_(device), before_(device) {}
DeviceGuard::~DeviceGuard() = default;
int processors(int) { return 2; }

namespace {

int compute_capability(int) { return tensor_cores() ? 80 : 75; }

}  // namespace

#else

namespace {

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device), "device");
  return value;
}

// Ten times the major number plus the minor one.
int compute_capability(int device) {
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor, device) +
         attribute(cudaDevAttrComputeCapabilityMinor, device);
}

}  // namespace

DeviceGuard::DeviceGuard(int device) : device_(device) {
  check(cudaGetDevice(&before_), "device");
  if (device_ != before_) check(cudaSetDevice(device_), "device");
}
DeviceGuard::~DeviceGuard() {
  if (device_ != before_) cudaSetDevice(before_);
}

int processors(int device) { return attribute(cudaDevAttrMultiProcessorCount, device); }

std::size_t most_shared_bytes_of(int device, const void* kernel) {
  cudaFuncAttributes attributes;
  check(cudaFuncGetAttributes(&attributes, kernel), "device");
  const std::size_t most = std::size_t(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return most > attributes.sharedSizeBytes ? most - attributes.sharedSizeBytes : 0;
}

Index resident_blocks_of(int device, const void* kernel, int threads, std::size_t shared_bytes) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)), "device");
  int each = 0;
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, shared_bytes), "device");
  return Index(each) * processors(device);
}

void launch_memory(const Execution& execution, const Launch& shape, const void* kernel, void** arguments) {
  constexpr std::size_t kWithoutAsking = 48 * 1024;
  if (shape.shared_bytes > kWithoutAsking)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shape.shared_bytes)),
          shape.name);
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(unsigned(shape.grid.x), unsigned(shape.grid.y), unsigned(shape.grid.z));
  config.blockDim = dim3(unsigned(shape.threads));
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = static_cast<cudaStream_t>(execution.stream);
  cudaLaunchAttribute cooperative = {};
  cooperative.id = cudaLaunchAttributeCooperative;
  cooperative.val.cooperative = 1;
  config.attrs = &cooperative;
  config.numAttrs = shape.cooperative ? 1 : 0;
  check(cudaLaunchKernelExC(&config, kernel, arguments), shape.name);
  count_launch();
}

#endif

bool has_tensor_cores(int device) { return compute_capability(device) >= 80; }

void require_precision(const Execution& execution) {
  if (execution.precision == Precision::fp32 || has_tensor_cores(execution.device)) return;
  const char* names[] = {"fp32", "tf32", "fp16", "bf16"};
  const int capability = compute_capability(execution.device);
  throw std::invalid_argument(std::string("precision: expected fp32, or compute capability 8.0 or newer, got ") +
                              names[int(execution.precision)] + " on a device of compute capability " +
                              std::to_string(capability / 10) + "." + std::to_string(capability % 10));
}

}  // namespace lsc::cuda
