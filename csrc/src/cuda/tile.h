// Points that a block works on side by side.
#pragma once

namespace lsc::cuda {

inline constexpr int kTile = 8;
inline constexpr int kTileThreads = 256;

}  // namespace lsc::cuda
