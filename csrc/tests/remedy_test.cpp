// What an error of CUDA says to do names what was found.
#include "cuda/remedy.h"

#include "check.h"

namespace lsc::test {
namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

const cuda::Circumstances kFound = {12040, 13000, "sm_86", {"sm_90", "compute_90"}};

void drivers() {
  const std::string old = cuda::remedy(35, kFound);
  CHECK(has(old, "supports CUDA 12.4, this build needs 13.0") && has(old, "update the driver"));
  cuda::Circumstances none = kFound;
  none.driver = 0;
  CHECK(has(cuda::remedy(35, none), "no NVIDIA driver was found: install one that supports CUDA 13.0"));
  CHECK(has(cuda::remedy(100, kFound), "CUDA_VISIBLE_DEVICES"));
}

void architectures() {
  for (const int error : {209, 218, 222}) {
    const std::string text = cuda::remedy(error, kFound);
    CHECK(has(text, "this GPU is sm_86; this build has [sm_90, compute_90]"));
    CHECK(has(text, "LSC_CUDA_ARCHITECTURES=86 pip install"));
  }
  cuda::Circumstances unknown = kFound;
  unknown.gpu = "";
  CHECK(has(cuda::remedy(209, unknown), "LSC_CUDA_ARCHITECTURES=native"));
}

void memory() { CHECK(has(cuda::remedy(2, kFound), "too little free memory")); }

void others_speak_for_themselves() { CHECK(cuda::remedy(719, kFound).empty()); }

void versions() {
  CHECK(cuda::version_name(13000) == "13.0");
  CHECK(cuda::version_name(12090) == "12.9");
  CHECK(cuda::version_name(0) == "0.0");
}

}  // namespace
}  // namespace lsc::test

int main() {
  using namespace lsc::test;
  return run({{"drivers", drivers},
              {"architectures", architectures},
              {"memory", memory},
              {"others speak for themselves", others_speak_for_themselves},
              {"versions", versions}});
}
