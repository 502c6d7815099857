// Logits as they lie in memory, sixteen bytes at a time, and the transform that every pass applies to them:
// conversion to float, softcap, temperature. Exponents are in base 2: log2(e) is part of the factor.
#pragma once

#include <cmath>
#include <cstring>

#include "cuda/common.cuh"
#include "cuda/memory.cuh"

namespace elastic::cuda {

constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

__device__ __forceinline__ float float_of_bits(uint32_t bits) {
#ifdef __CUDACC__
  return __uint_as_float(bits);
#else
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
#endif
}
__device__ __forceinline__ uint32_t bits_of_float(float value) {
#ifdef __CUDACC__
  return __float_as_uint(value);
#else
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
#endif
}

// 2^x to 2 ulp; results below 2^-126 are 0.
__device__ __forceinline__ float exp2_fast(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  const float y = std::exp2(x);
  return y < 1.17549435e-38f ? 0.f : y;  // a NaN stays one
#endif
}

// Two floats in one 32-bit word, the first in the low half. larger(): of each half; a NaN loses.
template <class T>
struct Pair;

#ifndef __CUDACC__
template <class P>
uint32_t larger_pair(uint32_t a, uint32_t b) {
  float x[2], y[2];
  P::unpack(a, x);
  P::unpack(b, y);
  return P::pack(fmaxf(x[0], y[0]), fmaxf(x[1], y[1]));
}
#endif

template <>
struct Pair<Bf16> {
  static __device__ __forceinline__ void unpack(uint32_t word, float* x) {
    x[0] = float_of_bits(word << 16);
    x[1] = float_of_bits(word & 0xFFFF0000u);
  }
  static __device__ __forceinline__ uint32_t pack(float a, float b) {
#ifdef __CUDACC__
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(b), "f"(a));
    return word;
#else
    return half(a) | half(b) << 16;
#endif
  }
  static __device__ __forceinline__ uint32_t larger(uint32_t a, uint32_t b) {
#ifdef __CUDACC__
    uint32_t word;
    asm("max.bf16x2 %0, %1, %2;" : "=r"(word) : "r"(a), "r"(b));
    return word;
#else
    return larger_pair<Pair>(a, b);
#endif
  }
#ifndef __CUDACC__
  static __device__ uint32_t half(float x) {  // round to nearest even
    const uint32_t bits = bits_of_float(x);
    return x != x ? 0x7FFFu : (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  }
#endif
};

template <>
struct Pair<F16> {
  static __device__ __forceinline__ void unpack(uint32_t word, float* x) {
#ifdef __CUDACC__
    asm("{.reg .f16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b;}"
        : "=f"(x[0]), "=f"(x[1])
        : "r"(word));
#else
    _Float16 half[2];
    memcpy(half, &word, sizeof(half));
    x[0] = static_cast<float>(half[0]);
    x[1] = static_cast<float>(half[1]);
#endif
  }
  static __device__ __forceinline__ uint32_t pack(float a, float b) {
    uint32_t word;
#ifdef __CUDACC__
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(b), "f"(a));
#else
    const _Float16 half[2] = {static_cast<_Float16>(a), static_cast<_Float16>(b)};
    memcpy(&word, half, sizeof(word));
#endif
    return word;
  }
  static __device__ __forceinline__ uint32_t larger(uint32_t a, uint32_t b) {
#ifdef __CUDACC__
    uint32_t word;
    asm("max.f16x2 %0, %1, %2;" : "=r"(word) : "r"(a), "r"(b));
    return word;
#else
    return larger_pair<Pair>(a, b);
#endif
  }
};

using Vec16 = Vector<uint32_t>;

// Elements of T in a 16-byte vector.
template <class T>
constexpr int PER_VECTOR = int(sizeof(Vec16) / sizeof(T));

template <class T>
__device__ __forceinline__ void unpack(const Vec16& v, float* x) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if constexpr (sizeof(T) == 4)
      x[i] = float_of_bits(v.lanes[i]);
    else
      Pair<T>::unpack(v.lanes[i], x + 2 * i);
  }
}

template <int N>
__device__ __forceinline__ float largest(const float* x) {
  if constexpr (N == 1)
    return x[0];
  else
    return fmaxf(largest<N / 2>(x), largest<N - N / 2>(x + N / 2));
}

// Of all logits in N vectors; 16-bit ones are compared two at a time.
template <class T, int N>
__device__ __forceinline__ float largest(const Vec16 (&v)[N]) {
  if constexpr (sizeof(T) == 4) {
    float x[4 * N];
#pragma unroll
    for (int i = 0; i < N; i++) unpack<T>(v[i], x + 4 * i);
    return largest<4 * N>(x);
  } else {
    uint32_t top[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      top[i] = v[0].lanes[i];
#pragma unroll
      for (int k = 1; k < N; k++) top[i] = Pair<T>::larger(top[i], v[k].lanes[i]);
    }
    float x[2];
    Pair<T>::unpack(Pair<T>::larger(Pair<T>::larger(top[0], top[1]), Pair<T>::larger(top[2], top[3])), x);
    return fmaxf(x[0], x[1]);
  }
}

template <class T>
__device__ __forceinline__ Vec16 pack(const float (&x)[PER_VECTOR<T>]) {
  Vec16 v;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if constexpr (sizeof(T) == 4)
      v.lanes[i] = bits_of_float(x[i]);
    else
      v.lanes[i] = Pair<T>::pack(x[2 * i], x[2 * i + 1]);
  }
  return v;
}

template <class T>
__device__ __forceinline__ float to_float(T x) {
  if constexpr (sizeof(T) == 4) {
    return x;
  } else {
    float pair[2];
    Pair<T>::unpack(x.bits, pair);
    return pair[0];
  }
}

template <class T>
__device__ __forceinline__ T from_float(float x) {
  if constexpr (sizeof(T) == 4)
    return x;
  else
    return T{static_cast<uint16_t>(Pair<T>::pack(x, 0.f))};
}

// z = softcap(x) / temperature, where softcap(x) = cap tanh(x / cap).
template <bool SOFTCAP>
struct Transform {
  float inv_temperature;
  float scale;  // log2(e) / temperature
  float cap;    // read only with SOFTCAP
  float inv_cap;

  __device__ __forceinline__ Transform(float inv_temperature, float softcap)
      : inv_temperature(inv_temperature),
        scale(inv_temperature * LOG2_E),
        cap(softcap),
        inv_cap(SOFTCAP ? 1.f / softcap : 0.f) {}

  // The capped logit; `slope` becomes d capped / dx.
  __device__ __forceinline__ float capped(float x, float& slope) const {
    if constexpr (SOFTCAP) {
      const float t = tanhf(x * inv_cap);
      slope = fmaf(-t, t, 1.f);
      return cap * t;
    } else {
      slope = 1.f;
      return x;
    }
  }
  __device__ __forceinline__ float capped(float x) const {
    float slope;
    return capped(x, slope);
  }
};

}  // namespace elastic::cuda
