// What every kernel file needs, and nothing else: one accessor for shared memory, one launch function, a few
// block-wide helpers. Kernels written against these also compile for the CPU with a shim in place of the CUDA
// runtime (a thread becomes a fiber), so shared memory, launches and barriers must not be reached otherwise.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "cuda_shim.h"  // tests/cuda_on_cpu
#endif

namespace elastic::cuda {

constexpr int WARP = 32;

#ifdef __CUDACC__

using Stream = cudaStream_t;
using Error = cudaError_t;

// The block's dynamic shared memory, seen as one struct; its size goes to launch().
template <class T>
__device__ __forceinline__ T* block_smem() {
  extern __shared__ __align__(16) unsigned char elastic_smem[];
  return reinterpret_cast<T*>(elastic_smem);
}

// Starts `kernel` and returns the launch's own error; the caller turns it into an exception.
template <class... Params, class... Args>
Error launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t smem_bytes, Stream stream,
             Args... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0)
    return cudaSuccess;  // an empty batch is no work, not an error
  kernel<<<grid, block, smem_bytes, stream>>>(static_cast<Params>(args)...);
  return cudaGetLastError();
}

#endif

// Combines one value a thread by `op` in an order that depends on nothing but the block's size, and returns
// the result to every thread. `scratch` is [THREADS] in shared memory; it may be reused after the call.
template <int THREADS, class T, class Op>
__device__ __forceinline__ T block_reduce(T value, T* scratch, Op op) {
  static_assert((THREADS & (THREADS - 1)) == 0, "a halving tree needs a power of two");
  const int t = static_cast<int>(threadIdx.x);
  scratch[t] = value;
  __syncthreads();
#pragma unroll
  for (int width = THREADS / 2; width > 0; width /= 2) {
    if (t < width) scratch[t] = op(scratch[t], scratch[t + width]);
    __syncthreads();
  }
  const T result = scratch[0];
  __syncthreads();  // nobody may overwrite scratch[0] for the next reduction while others still read it
  return result;
}

struct Sum {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};

}  // namespace elastic::cuda
