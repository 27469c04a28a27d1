// What to do about an error of CUDA, in words.
#pragma once

#include <string>
#include <vector>

#include "cuda/devices.h"

namespace lsc::cuda {

struct Circumstances {
  int driver, runtime;                     // versions: 13000 is 13.0; no driver: 0
  std::string gpu;                         // "sm_90"; empty where it does not matter
  std::vector<std::string> architectures;  // of this build
};

// Empty where CUDA's own words have to do. `error` is a cudaError_t.
inline std::string remedy(int error, const Circumstances& found) {
  switch (error) {
    case 2:
      return "the device has too little free memory: make the batch or the sample of points smaller, or free tensors "
             "and call torch.cuda.empty_cache()";
    case 35: {
      const std::string needed = version_name(found.runtime);
      if (found.driver == 0)
        return "no NVIDIA driver was found: install one that supports CUDA " + needed + ", or use cpu tensors";
      return "the NVIDIA driver supports CUDA " + version_name(found.driver) + ", this build needs " + needed +
             ": update the driver, or build lsc_ext with a CUDA toolkit no newer than the driver";
    }
    case 100:
      return "no CUDA device is visible: check nvidia-smi and CUDA_VISIBLE_DEVICES, or use cpu tensors";
    case 209:    // no code for this GPU
    case 218:    // PTX that cannot be compiled
    case 222: {  // PTX newer than the driver
      std::string list;
      for (const std::string& name : found.architectures) list += (list.empty() ? "" : ", ") + name;
      const std::string number = found.gpu.empty() ? "native" : found.gpu.substr(3);
      return "this GPU is " + (found.gpu.empty() ? "unknown" : found.gpu) + "; this build has [" + list +
             "]: build it again, LSC_CUDA=ON LSC_CUDA_ARCHITECTURES=" + number + " pip install --force-reinstall .";
    }
    default:
      return "";
  }
}

}  // namespace lsc::cuda
