// Stands in for the CUDA toolkit's header, so that g++ compiles csrc/cuda/*.cu and runs them on the CPU.
//
// A CUDA thread is a fiber, and one OS thread runs the fibers of one cluster of blocks after another in
// random order (scheduler.h). What a kernel may use stands in this file (language, types, scalar functions),
// in warp_block.h (barriers, shuffles, votes) and in hooks.h (what csrc/cuda/*.cuh call). What stands nowhere
// does not compile: __shared__ variables, float atomics, inline PTX.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

#include "hooks.h"
#include "warp_block.h"

// ---- where a thread is ----

#define threadIdx (::cuda_on_cpu::current->index)
#define blockIdx (::cuda_on_cpu::current->block->index)
#define blockDim (::cuda_on_cpu::block_dim)
#define gridDim (::cuda_on_cpu::grid_dim)

// ---- functions that C++ has under other names ----

using std::isfinite;
using std::isinf;
using std::isnan;
using std::max;
using std::min;

inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline uint32_t __float_as_uint(float x) { return std::bit_cast<uint32_t>(x); }
inline float __uint_as_float(uint32_t x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline double __hiloint2double(int high, int low) {
  return std::bit_cast<double>(static_cast<uint64_t>(static_cast<uint32_t>(high)) << 32 |
                               static_cast<uint32_t>(low));
}
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
// a b + c, rounded down; the product must be exact. Two-sum has the sum's error, whose sign decides.
inline double __fma_rd(double a, double b, double c) {
  const double product = a * b, sum = product + c;
  const double kept = sum - product, error = (product - (sum - kept)) + (c - kept);
  return error < 0 ? std::nextafter(sum, -INFINITY) : sum;
}
inline float __double2float_ru(double x) {
  const float nearest = static_cast<float>(x);
  return nearest < x ? std::nextafter(nearest, INFINITY) : nearest;
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}
template <class T>
T __ldg(const T* at) {
  return *at;
}

// ---- atomics: integers only, since float sums would depend on the order ----

#define CUDA_ON_CPU_ATOMIC(name, new_value)                                                   \
  template <class T>                                                                          \
  T name(T* at, std::type_identity_t<T> value) {                                              \
    static_assert(std::is_integral_v<T>, "float atomics depend on the order of the threads"); \
    ::cuda_on_cpu::may_yield();                                                               \
    const T old = *at;                                                                        \
    *at = new_value;                                                                          \
    return old;                                                                               \
  }
CUDA_ON_CPU_ATOMIC(atomicAdd, old + value)
CUDA_ON_CPU_ATOMIC(atomicSub, old - value)
CUDA_ON_CPU_ATOMIC(atomicMax, std::max(old, value))
CUDA_ON_CPU_ATOMIC(atomicMin, std::min(old, value))
CUDA_ON_CPU_ATOMIC(atomicOr, old | value)
CUDA_ON_CPU_ATOMIC(atomicAnd, old& value)
CUDA_ON_CPU_ATOMIC(atomicExch, value)
#undef CUDA_ON_CPU_ATOMIC

template <class T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>);
  ::cuda_on_cpu::may_yield();
  const T old = *at;
  if (old == expected) *at = value;
  return old;
}

inline void __threadfence() {}
inline void __threadfence_block() {}
