// What csrc/cuda/{common,memory,cluster}.cuh call where nvcc would see PTX. A check that fails ends the
// launch: launch() then returns cudaErrorLaunchFailure, and cudaGetErrorString() says what happened and
// where.
#pragma once

#include <cstdint>
#include <string_view>

#include "scheduler.h"

namespace cuda_on_cpu {

// ---- common.cuh ----

// Runs the kernel to its end: `run(context)` is one thread. Errors of the grid are CUDA's own.
cudaError_t launch(std::string_view kernel, dim3 grid, dim3 block, size_t smem_bytes, unsigned cluster,
                   void (*run)(const void*), const void* context);

template <class Thread>
cudaError_t launch(std::string_view kernel, dim3 grid, dim3 block, size_t smem_bytes, unsigned cluster,
                   const Thread& thread) {
  return launch(
      kernel, grid, block, smem_bytes, cluster,
      [](const void* context) { (*static_cast<const Thread*>(context))(); }, &thread);
}

inline void* shared_memory() { return current->block->shared; }

// ---- memory.cuh ----

[[noreturn]] void out_of_bounds(int64_t index, int64_t length);
[[noreturn]] void misaligned(const void* address, size_t bytes);

template <class T>
void check_aligned(const T* at) {
  static_assert(sizeof(T) == 1 || sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
  if (reinterpret_cast<uintptr_t>(at) % sizeof(T) != 0) misaligned(at, sizeof(T));
}

template <class T>
T load_streaming(const T* at) {
  check_aligned(at);
  return *at;
}

template <class T>
void store_streaming(T* at, T value) {
  check_aligned(at);
  *at = value;
}

void barrier_init(uint64_t* barrier, unsigned arrivals);
void barrier_init_fence();
void barrier_expect_bytes(uint64_t* barrier, uint32_t bytes);
void barrier_wait(uint64_t* barrier, unsigned parity, Place place = Place::current());
void bulk_copy(void* shared, const void* global, uint32_t bytes, uint64_t* barrier);

// ---- cluster.cuh ----

unsigned cluster_rank();
unsigned cluster_size();
void cluster_arrive(Place place = Place::current());
void cluster_wait();
void* peer_address(void* shared, unsigned rank);

template <class T>
T* peer(T* shared, unsigned rank) {
  return static_cast<T*>(peer_address(shared, rank));
}

}  // namespace cuda_on_cpu
