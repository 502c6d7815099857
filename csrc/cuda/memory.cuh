// Ways to move memory: bounds-checked spans (checked on the CPU only), 16-byte vectors, streaming access, and
// bulk copies from global to shared memory that a barrier waits for (sm_90 and later; kernels for older ones
// must not reach them).
//
//   barrier_init(&bar, 1); barrier_init_fence();  __syncthreads();           one thread, then all
//   barrier_expect_bytes(&bar, bytes); bulk_copy(row, logits, bytes, &bar);  one thread
//   barrier_wait(&bar, 0);                                                   whoever reads row
//
// The k-th use of a barrier waits for parity k & 1, counted from 0.
#pragma once

#include <cstdint>
#include <cstring>

#include "cuda/common.cuh"

namespace elastic::cuda {

using Barrier = uint64_t;  // in shared memory

// `length` elements from `data` on, which a kernel may index from 0. The CPU build stops a kernel that leaves
// it; on a device it is a pointer.
template <class T>
class Span {
 public:
  Span() = default;
#ifdef __CUDACC__
  __host__ __device__ __forceinline__ Span(T* data, int64_t length) : data_(data) {}
  __device__ __forceinline__ T& operator[](int64_t i) const { return data_[i]; }
#else
  Span(T* data, int64_t length) : data_(data), length_(length) {}
  T& operator[](int64_t i) const {
    if (i < 0 || i >= length_) cuda_on_cpu::out_of_bounds(i, length_);
    return data_[i];
  }
#endif
  __host__ __device__ __forceinline__ T* data() const { return data_; }

 private:
  T* data_ = nullptr;
#ifndef __CUDACC__
  int64_t length_ = 0;
#endif
};

// A value that one instruction moves.
template <class T>
struct alignas(16) Vector {
  static constexpr int LANES = 16 / sizeof(T);
  T lanes[LANES];
};

#ifdef __CUDACC__

namespace detail {
template <size_t bytes>
struct Word;
template <>
struct Word<1> {
  using type = unsigned char;
};
template <>
struct Word<2> {
  using type = unsigned short;
};
template <>
struct Word<4> {
  using type = unsigned int;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<16> {
  using type = uint4;
};

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
}  // namespace detail

// For what is read once, or not read again before it would have left the cache: evicted first. T has 1, 2, 4,
// 8 or 16 bytes and lies aligned to its size.
template <class T>
__device__ __forceinline__ T load_streaming(const T* at) {
  using Word = typename detail::Word<sizeof(T)>::type;
  const Word word = __ldcs(reinterpret_cast<const Word*>(at));
  T value;
  memcpy(&value, &word, sizeof(T));
  return value;
}

template <class T>
__device__ __forceinline__ void store_streaming(T* at, T value) {
  using Word = typename detail::Word<sizeof(T)>::type;
  Word word;
  memcpy(&word, &value, sizeof(T));
  __stcs(reinterpret_cast<Word*>(at), word);
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

// One thread. A phase of the barrier ends after `arrivals` calls of barrier_expect_bytes and their bytes.
__device__ __forceinline__ void barrier_init(Barrier* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(detail::shared_address(barrier)), "r"(arrivals)
               : "memory");
}

// The thread that initialised barriers, before the __syncthreads() or cluster_sync() that shows them to
// others: makes them visible to bulk copies too.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::: "memory");
}

// Arrives, and lets the phase wait for `bytes` of bulk copies more; 0 only arrives.
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

// Begins a copy to this block's shared memory; both ends aligned to 16 bytes, `bytes` a multiple of 16. The
// bytes are there once the barrier's phase ended, in no order before.
__device__ __forceinline__ void bulk_copy(void* shared, const void* global, uint32_t bytes,
                                          Barrier* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          detail::shared_address(shared)),
      "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(detail::shared_address(barrier))
      : "memory");
}

#else  // a kernel that gets here was launched on a device it is not for

__device__ __forceinline__ void barrier_init(Barrier*, unsigned) { __trap(); }
__device__ __forceinline__ void barrier_init_fence() { __trap(); }
__device__ __forceinline__ void barrier_expect_bytes(Barrier*, uint32_t) { __trap(); }
__device__ __forceinline__ void barrier_wait(Barrier*, unsigned) { __trap(); }
__device__ __forceinline__ void bulk_copy(void*, const void*, uint32_t, Barrier*) { __trap(); }

#endif
#else

using cuda_on_cpu::barrier_expect_bytes;
using cuda_on_cpu::barrier_init;
using cuda_on_cpu::barrier_init_fence;
using cuda_on_cpu::barrier_wait;
using cuda_on_cpu::bulk_copy;
using cuda_on_cpu::load_streaming;
using cuda_on_cpu::store_streaming;

#endif

}  // namespace elastic::cuda
