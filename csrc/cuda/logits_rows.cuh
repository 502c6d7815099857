// One block a row of logits: softmax statistics and gradient, streaming the row from memory and then from L2.
//
// Threads stride over the row, so neighbours read neighbours; any V, any row stride, 64-bit offsets.
// Reductions are trees of fixed shape (common.cuh): results are bitwise repeatable. Kept simple on purpose:
// three reads and one write an element where a resident row would need one and one.
#pragma once

#include <cmath>
#include <cstring>

#include "core/loss_params.h"
#include "cuda/common.cuh"

namespace elastic::cuda {

constexpr int ROW_THREADS = 256;
constexpr size_t ROW_SMEM = ROW_THREADS / WARP * sizeof(double);  // the widest thing a block reduces

// 16-bit floats as they lie in memory; conversions by bits, so that both compilers agree.
struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

__device__ __forceinline__ float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}
__device__ __forceinline__ uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

__device__ __forceinline__ float load_float(float x) { return x; }
__device__ __forceinline__ float load_float(Bf16 x) { return float_of(static_cast<uint32_t>(x.bits) << 16); }
__device__ __forceinline__ float load_float(F16 x) {
  const uint32_t sign = (x.bits & 0x8000u) << 16, rest = x.bits & 0x7FFFu;
  if (rest >= 0x7C00u) return float_of(sign | 0x7F800000u | rest << 13);
  const float size = float_of(rest << 13) * 0x1p112f;  // moves the exponent's bias, exact for subnormals too
  return float_of(sign | bits_of(size));
}

__device__ __forceinline__ void store_float(float* at, float x) { *at = x; }
__device__ __forceinline__ void store_float(Bf16* at, float x) {  // round to nearest even; NaN stays NaN
  uint32_t bits = bits_of(x);
  bits = x != x ? 0x7FC00000u : bits + 0x7FFFu + (bits >> 16 & 1u);
  at->bits = static_cast<uint16_t>(bits >> 16);
}
__device__ __forceinline__ void store_float(F16* at, float x) {  // likewise
  const uint32_t sign = bits_of(x) >> 16 & 0x8000u, size = bits_of(x) & 0x7FFFFFFFu;
  uint32_t bits;
  if (size >= 0x47800000u)  // from 65,536 on, inf and NaN
    bits = x != x ? 0x7E00u : 0x7C00u;
  else if (size < 0x38800000u)  // subnormal: adding 0.5 leaves 2^-24 as the last bit
    bits = bits_of(float_of(size) + 0.5f) - 0x3F000000u;
  else
    bits = (size - 0x38000000u + 0xFFFu + (size >> 13 & 1u)) >> 13;
  at->bits = static_cast<uint16_t>(sign | bits);
}

// A token's logit on its way to the softmax; SPEC section 5.
struct Transform {
  float softcap;  // 0: none
  float inv_temperature;
  __device__ __forceinline__ float cap(float x) const {
    return softcap > 0 ? softcap * tanhf(x / softcap) : x;
  }
  // d cap(x) / dx, given cap(x)
  __device__ __forceinline__ float slope(float capped) const {
    return softcap > 0 ? (1 - capped / softcap) * (1 + capped / softcap) : 1.f;
  }
};

__device__ __forceinline__ Transform transform_of(const Softmax<float>& softmax, int64_t token) {
  return {static_cast<float>(softmax.softcap), softmax.temperatures != nullptr
                                                   ? 1 / softmax.temperatures[token]
                                                   : static_cast<float>(1 / softmax.temperature)};
}

struct Max {  // NaN wins
  __device__ __forceinline__ float operator()(float a, float b) const { return a > b || a != a ? a : b; }
};

struct RowStats {
  float max;      // of x
  float log_sum;  // log sum exp(z), z = (x - max) / temperature
  float mean;     // sum p z
};

// NaN in every field for a row with NaN, +inf, or nothing but -inf. Every thread returns the same.
template <class T>
__device__ RowStats row_stats(const T* row, int64_t vocab, Transform f) {
  float* scratch = block_smem<float>();
  const int64_t first = threadIdx.x;
  float max = -INFINITY;
  for (int64_t i = first; i < vocab; i += ROW_THREADS) max = Max()(max, f.cap(load_float(row[i])));
  max = block_reduce<ROW_THREADS>(max, scratch, Max());
  if (!(max > -INFINITY && max < INFINITY)) return {NAN, NAN, NAN};
  float sum = 0, weighted = 0;
  for (int64_t i = first; i < vocab; i += ROW_THREADS) {
    const float z = (f.cap(load_float(row[i])) - max) * f.inv_temperature, e = expf(z);
    sum += e;
    weighted += e > 0 ? e * z : 0;  // no 0 * -inf
  }
  sum = block_reduce<ROW_THREADS>(sum, scratch, Sum());
  weighted = block_reduce<ROW_THREADS>(weighted, scratch, Sum());
  return {max, logf(sum), weighted / sum};
}

template <class T>
__device__ __forceinline__ const T* row_of(const LogitsChunk& chunk, int64_t i) {
  return static_cast<const T*>(chunk.logits) + i * chunk.row_stride;
}

template <class T>
__device__ __forceinline__ T* gradient_row(const LogitsChunk& chunk, int64_t i) {
  return static_cast<T*>(chunk.gradient) + i * chunk.gradient_stride;
}

// What a row says about its target; an id out of range says NaN.
struct TargetStats {
  float logprob;
  float entropy;
  float logsumexp;
};

template <class T>
__device__ TargetStats target_stats(const Softmax<float>& softmax, const T* row, int64_t token) {
  const Transform f = transform_of(softmax, token);
  const RowStats stats = row_stats(row, softmax.vocab, f);
  const int64_t target = softmax.targets[token];
  const bool known = target >= 0 && target < softmax.vocab;
  const float x = known ? f.cap(load_float(row[target])) : NAN;
  return {(x - stats.max) * f.inv_temperature - stats.log_sum, stats.log_sum - stats.mean,
          stats.max * f.inv_temperature + stats.log_sum};
}

template <class T>
__device__ void write_zeros(T* out, int64_t vocab) {
  for (int64_t i = threadIdx.x; i < vocab; i += ROW_THREADS) store_float(out + i, 0.f);
}

// d/dx of l d_logprob + H d_entropy; out may be the row.
template <class T>
__device__ void write_gradient(const T* row, const Softmax<float>& softmax, int64_t token, TargetStats stats,
                               float d_logprob, float d_entropy, T* out) {
  const Transform f = transform_of(softmax, token);
  const float inv = f.inv_temperature;
  const float a = -(d_logprob + d_entropy * stats.entropy) * inv, b = -d_entropy * inv;
  for (int64_t i = threadIdx.x; i < softmax.vocab; i += ROW_THREADS) {
    const float x = f.cap(load_float(row[i])), logp = x * inv - stats.logsumexp, p = expf(logp);
    float slope = p > 0 ? p * (a + b * logp) : 0.f;
    if (p != p) slope = p;              // NaN rows stay NaN
    if (i == softmax.targets[token]) {  // 1 - p without cancellation
      const float q = expf(stats.logprob);
      const float entropy_part = q > 0 ? q * (stats.entropy + stats.logprob) * d_entropy : 0.f;
      slope = (-expm1f(stats.logprob) * d_logprob - entropy_part) * inv;
    }
    store_float(out + i, slope * f.slope(x));
  }
}

// Launches kernel<T> for the T of a dtype.
#define ELASTIC_LAUNCH(dtype, kernel, ...)                      \
  ((dtype) == Scalar::BF16  ? launch<kernel<Bf16>>(__VA_ARGS__) \
   : (dtype) == Scalar::F16 ? launch<kernel<F16>>(__VA_ARGS__)  \
                            : launch<kernel<float>>(__VA_ARGS__))

}  // namespace elastic::cuda
