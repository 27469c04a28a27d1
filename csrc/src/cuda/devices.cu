#include <sstream>
#include <stdexcept>

#include "cuda/devices.h"
#include "cuda/execution.h"
#include "cuda/remedy.h"

#if !defined(LSC_EMULATED)
#include "cuda/failure.h"
#endif

namespace lsc::cuda {

#if defined(LSC_EMULATED)

int device_count() { return 1; }
std::string why_no_device() { return ""; }
Device device_info(int index) {
  if (index != 0) throw std::invalid_argument("device: expected 0, got " + std::to_string(index));
  return {"emulated", 8, 0, processors(0), 0, 0, 0};
}
int driver_version() { return 0; }
int runtime_version() { return 0; }
std::vector<std::string> architectures() { return {"sm_80"}; }

#else

namespace {

std::string gpu_name(int device) {
  int major = 0, minor = 0;
  if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess)
    return "";
  return "sm_" + std::to_string(major) + std::to_string(minor);
}

std::string explain(cudaError_t status) {
  int device = 0;
  std::string gpu;
  if (cudaGetDevice(&device) == cudaSuccess) gpu = gpu_name(device);
  cudaGetLastError();  // it is reported here; the next call starts clean
  const std::string advice = remedy(int(status), {driver_version(), runtime_version(), gpu, architectures()});
  return std::string(cudaGetErrorString(status)) + " (CUDA error " + std::to_string(int(status)) + ")" +
         (advice.empty() ? "" : "; " + advice);
}

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + explain(status));
}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

std::string why_no_device() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) return explain(status);
  return count > 0 ? "" : explain(cudaErrorNoDevice);
}

Device device_info(int index) {
  int count = 0;
  check(cudaGetDeviceCount(&count), "device");
  if (index < 0 || index >= count)
    throw std::invalid_argument("device: expected one of 0 to " + std::to_string(count - 1) + ", got " +
                                std::to_string(index));
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "device");
  return {properties.name,
          properties.major,
          properties.minor,
          properties.multiProcessorCount,
          properties.totalGlobalMem,
          properties.sharedMemPerBlockOptin,
          properties.regsPerMultiprocessor};
}

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

int runtime_version() { return CUDART_VERSION; }

std::vector<std::string> architectures() {
  std::vector<std::string> names;
  std::istringstream compiled(LSC_CUDA_ARCHITECTURES);
  for (std::string name; std::getline(compiled, name, ',');) names.push_back(name);
  return names;
}

#endif

}  // namespace lsc::cuda
