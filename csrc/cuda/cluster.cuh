// Blocks that run together and read each other's shared memory (sm_90 and later). Elsewhere, and in a launch
// without clusters, every block is a cluster of its own, so one source serves both.
//
// Peers may access a block's shared memory from the cluster's first synchronisation until the block exits. So
// a kernel that uses peer() ends with cluster_sync(), or with cluster_arrive() behind its last access and
// then cluster_wait().
#pragma once

#include <cstdint>

#include "cuda/common.cuh"

namespace elastic::cuda {

#ifndef __CUDACC__

using cuda_on_cpu::cluster_arrive;
using cuda_on_cpu::cluster_rank;
using cuda_on_cpu::cluster_size;
using cuda_on_cpu::cluster_wait;
using cuda_on_cpu::peer;

#elif !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

__device__ __forceinline__ unsigned cluster_rank() {
  unsigned rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

__device__ __forceinline__ unsigned cluster_size() {
  unsigned size;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
}

// Every thread of every block: what it wrote before is seen by whoever returns from the cluster_wait() after.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Where `shared`, a place in this block's shared memory, lies in that of block `rank` of the cluster.
template <class T>
__device__ __forceinline__ T* peer(T* shared, unsigned rank) {
  uint64_t address;
  asm("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(shared), "r"(rank));
  return reinterpret_cast<T*>(address);
}

#else

__device__ __forceinline__ unsigned cluster_rank() { return 0; }
__device__ __forceinline__ unsigned cluster_size() { return 1; }
__device__ __forceinline__ void cluster_arrive() {}
__device__ __forceinline__ void cluster_wait() { __syncthreads(); }
template <class T>
__device__ __forceinline__ T* peer(T* shared, unsigned) {
  return shared;
}

#endif

__device__ __forceinline__ void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}

}  // namespace elastic::cuda
