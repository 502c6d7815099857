// Maxima of logits as they lie in memory, two 16-bit logits at a time. A NaN wins, so that one comparison at
// the end of a pass finds it.
#pragma once

#include "cuda/logit.cuh"

namespace elastic::cuda {

#ifndef __CUDACC__

inline float larger_or_nan(float a, float b) { return a != a || a > b ? a : b; }

// Of each logit in a 32-bit word.
template <class T>
inline uint32_t packed_max(uint32_t a, uint32_t b) {
  if constexpr (sizeof(T) == 4) {
    return bits_of_float(larger_or_nan(float_of_bits(a), float_of_bits(b)));
  } else {
    float x[2], y[2];
    Pair<T>::unpack(a, x);
    Pair<T>::unpack(b, y);
    return Pair<T>::pack(larger_or_nan(x[0], y[0]), larger_or_nan(x[1], y[1]));
  }
}

#else

template <class T>
__device__ __forceinline__ uint32_t packed_max(uint32_t a, uint32_t b) {
  uint32_t largest;
  if constexpr (sizeof(T) == 4)
    asm("max.NaN.f32 %0, %1, %2;" : "=r"(largest) : "r"(a), "r"(b));
  else if constexpr (std::is_same_v<T, Bf16>)
    asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(largest) : "r"(a), "r"(b));
  else
    asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(largest) : "r"(a), "r"(b));
  return largest;
}

#endif

template <class T>
__device__ __forceinline__ Vec16 packed_max(const Vec16& a, const Vec16& b) {
  Vec16 largest;
#pragma unroll
  for (int i = 0; i < 4; i++) largest.lanes[i] = packed_max<T>(a.lanes[i], b.lanes[i]);
  return largest;
}

// The largest of two logits, NaN if one of them is.
struct MaxOrNan {
  __device__ __forceinline__ float operator()(float a, float b) const {
    return float_of_bits(packed_max<float>(bits_of_float(a), bits_of_float(b)));
  }
};

// Of the logits in a vector.
template <class T>
__device__ __forceinline__ float largest_logit(const Vec16& q) {
  const uint32_t word =
      packed_max<T>(packed_max<T>(q.lanes[0], q.lanes[1]), packed_max<T>(q.lanes[2], q.lanes[3]));
  if constexpr (sizeof(T) == 4) {
    return float_of_bits(word);
  } else {
    float x[2];
    Pair<T>::unpack(word, x);
    return MaxOrNan()(x[0], x[1]);
  }
}

template <class T>
__device__ __forceinline__ Vec16 lowest_logits() {
  Vec16 q;
#pragma unroll
  for (int i = 0; i < 4; i++)
    q.lanes[i] = sizeof(T) == 4 ? 0xFF800000u : std::is_same_v<T, Bf16> ? 0xFF80FF80u : 0xFC00FC00u;
  return q;
}

}  // namespace elastic::cuda
