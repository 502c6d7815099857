// Sums of integer weights (core/sampling.h), 64 bits, over the lanes of a warp.
#pragma once

#include "cuda/common.cuh"

namespace elastic::cuda {

using Mass = unsigned long long;  // what atomicAdd takes

__device__ __forceinline__ Mass exclusive_scan(Mass value) {
  Mass sum = value;
#pragma unroll
  for (int lanes = 1; lanes < WARP; lanes *= 2) {
    const uint32_t low = __shfl_up_sync(~0u, uint32_t(sum), lanes);
    const uint32_t high = __shfl_up_sync(~0u, uint32_t(sum >> 32), lanes);
    if (static_cast<int>(threadIdx.x) % WARP >= lanes) sum += Mass(high) << 32 | low;
  }
  return sum - value;
}

__device__ __forceinline__ Mass from_lane(Mass value, int lane) {
  const uint32_t low = __shfl_sync(~0u, uint32_t(value), lane);
  const uint32_t high = __shfl_sync(~0u, uint32_t(value >> 32), lane);
  return Mass(high) << 32 | low;
}

}  // namespace elastic::cuda
