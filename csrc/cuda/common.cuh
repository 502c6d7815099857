// One accessor for shared memory, one launch function, reductions: what every kernel file needs. Sources that
// use shared memory, launches and barriers only through these, memory.cuh, barrier.cuh and cluster.cuh also
// compile for the CPU (tests/cuda_on_cpu, where a thread is a fiber).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <utility>

#include "cuda/launch_result.h"
#ifdef __CUDACC__
#include <array>
#include <atomic>
#include <map>
#include <mutex>
#endif

namespace elastic::cuda {

constexpr int WARP = 32;

// The block's dynamic shared memory, seen as one struct or array; its size goes to launch().
template <class T>
__device__ __forceinline__ T* block_smem() {
  static_assert(alignof(T) <= 16, "shared memory is aligned to 16 bytes");
#ifdef __CUDACC__
  extern __shared__ __align__(16) unsigned char elastic_smem[];
#else
  void* elastic_smem = cuda_on_cpu::shared_memory();
#endif
  return reinterpret_cast<T*>(elastic_smem);
}

struct Grid {
  dim3 blocks;
  dim3 threads;           // of a block
  size_t smem_bytes = 0;  // dynamic shared memory of a block
  unsigned cluster = 1;  // blocks along x that form a cluster (sm_90 and later); blocks.x is a multiple of it
};

// "f<T>", without the namespaces in front: the compiler's own spelling of launch's template argument.
template <auto kernel>
std::string_view kernel_name() {
  const std::string_view text = __PRETTY_FUNCTION__;  // "... kernel_name() [with auto kernel = a::f<T>; ..."
  const std::string_view opening = "kernel = ";
  std::string_view name = text.substr(text.rfind(opening) + opening.size());
  name = name.substr(0, name.find_first_of(";]"));
  const size_t scope = name.substr(0, name.find('<')).rfind("::");
  return scope == std::string_view::npos ? name : name.substr(scope + 2);
}

#ifdef __CUDACC__

constexpr size_t SMEM_WITHOUT_ASKING = 48 * 1024;
constexpr unsigned PORTABLE_CLUSTER = 8;

// Lets `kernel` use all the shared memory a block can have and clusters of 16, once on each device.
template <auto kernel>
cudaError_t allow_large(const Grid& grid) {
  static std::atomic<uint64_t> allowed_smem{0}, allowed_cluster{0};  // one bit per device
  int device = 0, bytes = 0;
  cudaError_t error = cudaGetDevice(&device);
  const uint64_t bit = uint64_t(1) << (device & 63);
  if (error == cudaSuccess && grid.smem_bytes > SMEM_WITHOUT_ASKING && !(allowed_smem & bit)) {
    error = cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (error == cudaSuccess)
      error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error == cudaSuccess) allowed_smem |= bit;
  }
  if (error == cudaSuccess && grid.cluster > PORTABLE_CLUSTER && !(allowed_cluster & bit)) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    if (error == cudaSuccess) allowed_cluster |= bit;
  }
  return error;
}

// A launch's configuration; `cluster` has to live as long as it.
inline cudaLaunchConfig_t configuration(const Grid& grid, cudaStream_t stream, cudaLaunchAttribute* cluster) {
  *cluster = {};
  cluster->id = cudaLaunchAttributeClusterDimension;
  cluster->val.clusterDim.x = grid.cluster;
  cluster->val.clusterDim.y = cluster->val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks;
  config.blockDim = grid.threads;
  config.dynamicSmemBytes = grid.smem_bytes;
  config.stream = stream;
  config.attrs = cluster;
  config.numAttrs = grid.cluster > 1;
  return config;
}

template <auto kernel, class... Args>
cudaError_t start(const Grid& grid, cudaStream_t stream, Args&&... args) {
  if (grid.smem_bytes > SMEM_WITHOUT_ASKING || grid.cluster > PORTABLE_CLUSTER)
    if (const cudaError_t error = allow_large<kernel>(grid); error != cudaSuccess) return error;
  cudaLaunchAttribute cluster;
  const cudaLaunchConfig_t config = configuration(grid, stream, &cluster);
  return cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
}

#endif

// How many of the clusters of `grid` the current device runs at once: the grid of a persistent kernel. At
// least 1; a launch that cannot be says so itself. Asked once for each shape and device: the answer takes
// microseconds.
template <auto kernel>
int resident_clusters(const Grid& grid) {
#ifdef __CUDACC__
  static std::mutex mutex;
  static std::map<std::array<int64_t, 3>, int> known;
  int device = 0, clusters = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 1;
  const std::lock_guard lock(mutex);
  const std::array<int64_t, 3> shape{device, static_cast<int64_t>(grid.smem_bytes), grid.cluster};
  if (const auto found = known.find(shape); found != known.end()) return found->second;
  cudaLaunchAttribute cluster;
  cudaLaunchConfig_t config = configuration(grid, nullptr, &cluster);
  config.numAttrs = 1;  // also of one
  cudaError_t error = allow_large<kernel>(grid);
  if (error == cudaSuccess) error = cudaOccupancyMaxActiveClusters(&clusters, kernel, &config);
  if (error != cudaSuccess) cudaGetLastError();
  return known[shape] = clusters > 0 ? clusters : 1;
#else
  return cuda_on_cpu::resident_clusters();
#endif
}

// Starts `kernel`: launch<kernel>({blocks, threads, bytes, cluster}, stream, arguments...). No blocks are no
// work, not an error.
template <auto kernel, class... Args>
LaunchResult launch(const Grid& grid, cudaStream_t stream, Args... args) {
  const std::string_view name = kernel_name<kernel>();
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return {cudaSuccess, name};
#ifdef __CUDACC__
  const cudaError_t error = start<kernel>(grid, stream, args...);
  if (error != cudaSuccess) cudaGetLastError();  // reported here; cleared, so that nobody reports it again
#else
  const auto thread = [&] { kernel(args...); };
  const cudaError_t error =
      cuda_on_cpu::launch(name, grid.blocks, grid.threads, grid.smem_bytes, grid.cluster, thread);
#endif
  return {error, name};
}

// The value of the lane whose number differs from this one's in the bits of `lanes`; whole warps only.
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int lanes) {
  static_assert(sizeof(T) % 4 == 0, "shuffled in words");
  uint32_t words[sizeof(T) / 4];
  memcpy(words, &value, sizeof(T));
#pragma unroll
  for (size_t i = 0; i < sizeof(T) / 4; i++) words[i] = __shfl_xor_sync(~0u, words[i], lanes);
  memcpy(&value, words, sizeof(T));
  return value;
}

// Combines the values of each group of `width` neighbouring lanes, a power of two. Every lane gets the
// result, and all the same bits where op(a, b) is op(b, a); the order depends on nothing but `width`.
template <int width = WARP, class T, class Op>
__device__ __forceinline__ T warp_reduce(T value, Op op) {
  static_assert(width <= WARP && (width & (width - 1)) == 0);
#pragma unroll
  for (int lanes = width / 2; lanes > 0; lanes /= 2) value = op(value, shuffle_xor(value, lanes));
  return value;
}

// Combines one value per thread in an order that depends only on the block's size; every thread gets the
// result. `scratch` is [THREADS / WARP] in shared memory; it may be reused after the call.
template <int THREADS, class T, class Op>
__device__ __forceinline__ T block_reduce(T value, T* scratch, Op op) {
  constexpr int WARPS = THREADS / WARP;
  static_assert(THREADS % WARP == 0 && (WARPS & (WARPS - 1)) == 0, "a power of two of whole warps");
  value = warp_reduce(value, op);
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = value;
  __syncthreads();
  value = warp_reduce<WARPS>(scratch[threadIdx.x % WARPS], op);
  __syncthreads();  // nobody may write to scratch for the next reduction while others still read it
  return value;
}

struct Sum {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};

}  // namespace elastic::cuda
