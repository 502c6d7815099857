// Barriers in shared memory (mbarriers), and copies that run beside the threads and report to them (sm_90 and
// later; kernels for older devices must not reach any of this: HAS_BARRIERS).
//
//   barrier_init(&bar, 1); barrier_init_fence();  __syncthreads();           one thread, then all
//   barrier_expect_bytes(&bar, bytes); bulk_copy(row, logits, bytes, &bar);  one thread
//   barrier_wait(&bar, 0);                                                   whoever reads row
//
// The k-th use of a barrier waits for parity k & 1, counted from 0. A barrier may be one phase ahead of who
// waits for it, never two: then the parity is the old one's.
//
// Bulk copies see shared memory by a way of their own (the async proxy). What a bulk copy brought is seen by
// who waited for its barrier. What threads wrote is seen by a bulk store only if each of them has called
// bulk_store_fence() before it told the storing thread, through a barrier, that it is done.
#pragma once

#include <cstdint>

#include "cuda/common.cuh"

namespace elastic::cuda {

using Barrier = uint64_t;  // in shared memory

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr bool HAS_BARRIERS = false;
#else
constexpr bool HAS_BARRIERS = true;
#endif

#ifndef __CUDACC__

using cuda_on_cpu::barrier_arrive;
using cuda_on_cpu::barrier_expect_bytes;
using cuda_on_cpu::barrier_init;
using cuda_on_cpu::barrier_init_fence;
using cuda_on_cpu::barrier_wait;
using cuda_on_cpu::barrier_wait_for_peers;
using cuda_on_cpu::bulk_copy;
using cuda_on_cpu::bulk_copy_streaming;
using cuda_on_cpu::bulk_store_fence;
using cuda_on_cpu::bulk_store_streaming;
using cuda_on_cpu::bulk_stores_left_shared;
using cuda_on_cpu::bulk_stores_wait;
using cuda_on_cpu::store_to_peer;
using cuda_on_cpu::trap;

#else

__device__ __forceinline__ void trap() { __trap(); }

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

namespace detail {
__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// For what is not read again.
__device__ __forceinline__ uint64_t evict_first() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
}  // namespace detail

// One thread. A phase ends after so many arrivals (of barrier_arrive and barrier_expect_bytes) and the bytes
// that were announced in it.
__device__ __forceinline__ void barrier_init(Barrier* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(detail::shared_address(barrier)), "r"(arrivals)
               : "memory");
}

// The thread that initialised barriers, before the __syncthreads() or cluster_sync() that shows them to
// others: makes them visible to copies too.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::: "memory");
}

// What this thread did before is seen by who waits for the phase.
__device__ __forceinline__ void barrier_arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(detail::shared_address(barrier))
               : "memory");
}

// Arrives, and lets the phase wait for `bytes` more of copies that name this barrier.
__device__ __forceinline__ void barrier_expect_bytes(Barrier* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(
                   detail::shared_address(barrier)),
               "r"(bytes)
               : "memory");
}

// Returns once the phase of this parity has ended.
__device__ __forceinline__ void barrier_wait(Barrier* barrier, unsigned parity) {
  const uint32_t address = detail::shared_address(barrier);
  uint32_t ended;
  do {
    asm volatile(
        "{\n\t.reg .pred p;\n\t"
        "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2;\n\t"
        "selp.u32 %0, 1, 0, p;\n\t}"
        : "=r"(ended)
        : "r"(address), "r"(parity)
        : "memory");
  } while (ended == 0);
}

// The same where peers of the cluster store to this block: sees what they stored.
__device__ __forceinline__ void barrier_wait_for_peers(Barrier* barrier, unsigned parity) {
  const uint32_t address = detail::shared_address(barrier);
  uint32_t ended;
  do {
    asm volatile(
        "{\n\t.reg .pred p;\n\t"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n\t"
        "selp.u32 %0, 1, 0, p;\n\t}"
        : "=r"(ended)
        : "r"(address), "r"(parity)
        : "memory");
  } while (ended == 0);
}

// Begins a copy to this block's shared memory; both ends aligned to 16 bytes, `bytes` a multiple of 16 and
// not 0. The bytes are there once the barrier's phase ended, in no order before.
__device__ __forceinline__ void bulk_copy(void* shared, const void* global, uint32_t bytes,
                                          Barrier* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          detail::shared_address(shared)),
      "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(detail::shared_address(barrier))
      : "memory");
}

// The same for what is not read again.
__device__ __forceinline__ void bulk_copy_streaming(void* shared, const void* global, uint32_t bytes,
                                                    Barrier* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, "
      "[%3], "
      "%4;" ::"r"(detail::shared_address(shared)),
      "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(detail::shared_address(barrier)),
      "l"(detail::evict_first())
      : "memory");
}

// Every thread that wrote to these bytes of shared memory: they may be stored from there.
__device__ __forceinline__ void bulk_store_fence(const void*, uint32_t) {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Begins a copy from this block's shared memory, as a group of its own; alignment as of bulk_copy. Stores of
// one thread are waited for by that thread.
__device__ __forceinline__ void bulk_store_streaming(void* global, const void* shared, uint32_t bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group.L2::cache_hint [%0], [%1], %2, %3;" ::"l"(
                   __cvta_generic_to_global(global)),
               "r"(detail::shared_address(shared)), "r"(bytes), "l"(detail::evict_first())
               : "memory");
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Until all of this thread's stores but the last `but` no longer need shared memory.
template <int but>
__device__ __forceinline__ void bulk_stores_left_shared() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(but) : "memory");
}

// Until all of this thread's stores are done.
__device__ __forceinline__ void bulk_stores_wait() {
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

// Stores 16 bytes to where `at`, a place in this block's shared memory, lies in that of block `rank` of the
// cluster, and reports them to that block's barrier.
template <class T>
__device__ __forceinline__ void store_to_peer(T* at, const T& value, Barrier* barrier, unsigned rank) {
  static_assert(sizeof(T) == 16);
  uint32_t words[4], address, theirs;
  memcpy(words, &value, sizeof(T));
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(detail::shared_address(at)), "r"(rank));
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(theirs)
      : "r"(detail::shared_address(barrier)), "r"(rank));
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
          address),
      "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3]), "r"(theirs)
      : "memory");
}

#else  // a kernel that gets here was launched on a device it is not for

__device__ __forceinline__ void barrier_init(Barrier*, unsigned) { trap(); }
__device__ __forceinline__ void barrier_init_fence() { trap(); }
__device__ __forceinline__ void barrier_expect_bytes(Barrier*, uint32_t) { trap(); }
__device__ __forceinline__ void barrier_wait(Barrier*, unsigned) { trap(); }
__device__ __forceinline__ void bulk_copy(void*, const void*, uint32_t, Barrier*) { trap(); }

#endif
#endif

}  // namespace elastic::cuda
