#include "cuda/launch.h"

#if !defined(LSC_EMULATED)
#include "cuda/failure.h"
#endif

namespace lsc::cuda {

#if defined(LSC_EMULATED)

DeviceGuard::DeviceGuard(int device) : device_(device), before_(device) {}
DeviceGuard::~DeviceGuard() = default;
int processors(int) { return 2; }

#else

DeviceGuard::DeviceGuard(int device) : device_(device) {
  check(cudaGetDevice(&before_), "device");
  if (device_ != before_) check(cudaSetDevice(device_), "device");
}
DeviceGuard::~DeviceGuard() {
  if (device_ != before_) cudaSetDevice(before_);
}

int processors(int device) {
  int count = 0;
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "device");
  return count;
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
}

#endif

}  // namespace lsc::cuda
