// What csrc/cuda/{common,memory,barrier,cluster}.cuh call where nvcc would see PTX. A check that fails ends
// the launch: launch() then returns cudaErrorLaunchFailure, and cudaGetErrorString() says what happened and
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

// How many clusters of a persistent kernel run at once: few, and never the same, so that each has many rows.
int resident_clusters();

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

// ---- barrier.cuh ----

void barrier_init(uint64_t* barrier, unsigned arrivals);
void barrier_init_fence();
void barrier_arrive(uint64_t* barrier);
void barrier_expect_bytes(uint64_t* barrier, uint32_t bytes);
void barrier_wait(uint64_t* barrier, unsigned parity, Place place = Place::current());
inline void barrier_wait_for_peers(uint64_t* barrier, unsigned parity, Place place = Place::current()) {
  barrier_wait(barrier, parity, place);
}
void bulk_copy(void* shared, const void* global, uint32_t bytes, uint64_t* barrier);
inline void bulk_copy_streaming(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  bulk_copy(shared, global, bytes, barrier);
}
void bulk_store_fence(const void* shared, uint32_t bytes);
void bulk_store_streaming(void* global, const void* shared, uint32_t bytes);
void bulk_stores_left_shared(unsigned but, Place place);
template <int but>
void bulk_stores_left_shared(Place place = Place::current()) {
  bulk_stores_left_shared(static_cast<unsigned>(but), place);
}
void bulk_stores_wait(Place place = Place::current());
void store_to_peer_16(void* at, const void* value, uint64_t* barrier, unsigned rank);
template <class T>
void store_to_peer(T* at, const T& value, uint64_t* barrier, unsigned rank) {
  static_assert(sizeof(T) == 16);
  store_to_peer_16(at, &value, barrier, rank);
}
[[noreturn]] inline void trap() { fail("trap"); }

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
