// The CUDA devices of this machine, and the ones that this build has code for. Nothing here makes a context.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace lsc::cuda {

struct Device {
  std::string name;
  int major, minor;  // compute capability
  int multiprocessors;
  std::size_t memory;                         // bytes
  std::size_t shared_memory_per_block_optin;  // bytes
  int registers_per_multiprocessor;           // of 32 bits
};

// 0 without a driver.
int device_count();
// Why there is none, and what to do; empty where there is one.
std::string why_no_device();
// Throws std::invalid_argument where there is no such device.
Device device_info(int index);

// As CUDA counts them: 13000 is 13.0. The driver's is the newest that it supports, 0 without one.
int driver_version();
int runtime_version();
inline std::string version_name(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// "sm_80" for code of a GPU, "compute_90" for PTX, which newer GPUs' drivers compile.
std::vector<std::string> architectures();

}  // namespace lsc::cuda
