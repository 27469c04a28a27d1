#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>

#include "cuda/fused/plan.h"
#include "cuda/launch.h"
#include "cuda/tile.h"

namespace lsc::cuda {
namespace {

// Modelled for a GPU of 132 multiprocessors at 1.75 GHz: a number's way to another block through the level-2 cache, a
// launch of a graph, what the level-2 cache gives in a clock and what all tensor cores multiply and add.
constexpr double kTrip = 1100, kLaunch = 2300, kBytesPerClock = 3100, kOperationsPerClock = 270e3;
constexpr int kUnits[] = {16, 32, 64, 128, 256};

// Clocks of one step where each is two launches: a tile of its product takes what it takes here, if not the weights'
// way from the level-2 cache or all the multiplications together take longer.
double clocks_apart(const Planning& planning) {
  const double weights = double(planning.weights);
  const double transfers = 4 * weights / kBytesPerClock;
  const double operations = 2 * weights * double(planning.shape.B) / kOperationsPerClock;
  return 2 * kLaunch + std::max({planning.needs(kUnits[0]).by_state.clocks, transfers, operations});
}

}  // namespace

Plan plan(const Planning& planning) {
  const StackShape& shape = planning.shape;
  Plan best;
  if (shape.T == 0 || shape.B == 0 || shape.L == 0) best.reason = "no steps";
  if (shape.L > kMostFusedLayers) best.reason = "more than " + std::to_string(kMostFusedLayers) + " layers";
  if (!best.reason.empty()) return best;
  const Index tiles = covering(shape.B, kTile);
  double shortest = 0;
  for (const int units : kUnits) {
    const StepNeeds needs = planning.needs(units);
    for (const bool apart : {false, true}) {
      if (apart && !planning.can_be_apart) continue;
      const std::size_t in = needs.by_input.resident_bytes, state = needs.by_state.resident_bytes;
      const std::size_t bytes = (apart ? std::max(in, state) : in + state) +
                                std::max(needs.by_input.staged_bytes, needs.by_state.staged_bytes);
      const Index blocks = planning.resident(bytes), most = Index(double(blocks) * planning.share);
      for (Index parts = 1; parts <= tiles; parts *= 2) {
        Sharing sharing;
        sharing.units = units;
        sharing.slices = int(covering(shape.H, units));
        sharing.part_rows = covering(tiles, parts) * kTile;
        sharing.parts = int(covering(shape.B, sharing.part_rows));
        sharing.apart = apart;
        if (sharing.walking(shape.L) > most) break;
        const double products = apart ? std::max(needs.by_input.clocks, needs.by_state.clocks)
                                      : needs.by_input.clocks + needs.by_state.clocks;
        const double clocks = kTrip + double(sharing.part_rows / kTile) * products;
        if (best.blocks > 0 && clocks >= shortest) continue;
        shortest = clocks;
        best.sharing = sharing;
        best.blocks = blocks;
        best.shared_bytes = bytes;
      }
    }
  }
  if (best.blocks == 0) best.reason = "weights that the blocks of the device do not hold";
  best.pays = best.reason.empty() &&
              double(shape.T + shape.L - 1) * shortest < double(shape.T * shape.L) * clocks_apart(planning);
  return best;
}

bool operator<(const PlanKey& a, const PlanKey& b) {
  const auto all = [](const PlanKey& key) {
    const StackShape& s = key.shape;
    return std::make_tuple(key.kernel, key.device, key.cell, key.tensor_cores, s.T, s.B, s.I, s.H, s.L);
  };
  return all(a) < all(b);
}

Plan remembered(const PlanKey& key, const std::function<Plan()>& make) {
  constexpr std::size_t kMost = 4096;
  static std::mutex alone;
  static std::map<PlanKey, Plan> plans;
  const std::lock_guard<std::mutex> lock(alone);
  const auto found = plans.find(key);
  if (found != plans.end()) return found->second;
  if (plans.size() >= kMost) plans.clear();
  return plans[key] = make();
}

}  // namespace lsc::cuda
