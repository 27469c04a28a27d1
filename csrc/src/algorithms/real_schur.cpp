// The real Schur form for one instruction set; CMake compiles this file once for each.
#include "algorithms/real_schur.h"

#include "algorithms/real_schur_factor.h"

namespace lsc {
inline namespace LSC_ISA {
namespace {

struct VectorBlocks {
#if defined(__AVX__)
  static constexpr int kSize = 4;
#else
  static constexpr int kSize = 2;
#endif
  typedef double Block __attribute__((vector_size(kSize * sizeof(double)), aligned(kSize * sizeof(double)), may_alias));

  static Block magnitude(const Block& a) { return a < 0 ? -a : a; }
  static Block larger(const Block& a, const Block& b) { return a > b ? a : b; }
  static void store_unaligned(double* to, const Block& a) { __builtin_memcpy(to, &a, sizeof a); }
};

using Factor = SchurFactor<VectorBlocks>;

bool factor(int m, const double* A, int row, double precision, RealSchur& schur) {
  SchurScratch scratch;
  return Factor::factor(m, A, row, precision, schur, scratch);
}

void right_vector(const RealSchur& schur, int i, SchurVector& x) {
  SchurScratch scratch;
  Factor::right_vector(schur, i, x, scratch);
}

void left_vector(const RealSchur& schur, int i, SchurVector& y) {
  SchurScratch scratch;
  Factor::left_vector(schur, i, y, scratch);
}

constexpr SchurKernels kTable = {factor, right_vector, left_vector};

}  // namespace
}  // namespace LSC_ISA

namespace cpu::LSC_ISA {
extern const SchurKernels schur;
constexpr SchurKernels schur = kTable;
}  // namespace cpu::LSC_ISA
}  // namespace lsc
