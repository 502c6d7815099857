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

// bfloat16 as it lies in memory; conversions by bits, so that both compilers agree.
struct Bf16 {
  uint16_t bits;
};

__device__ __forceinline__ float load_float(float x) { return x; }
__device__ __forceinline__ float load_float(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

__device__ __forceinline__ void store_float(float* at, float x) { *at = x; }
__device__ __forceinline__ void store_float(Bf16* at, float x) {  // round to nearest even; NaN stays NaN
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  bits = x != x ? 0x7FC00000u : bits + 0x7FFFu + (bits >> 16 & 1u);
  at->bits = static_cast<uint16_t>(bits >> 16);
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
__device__ RowStats row_stats(const T* row, int64_t vocab, float inv) {
  float* scratch = block_smem<float>();
  const int64_t first = threadIdx.x;
  float max = -INFINITY;
  for (int64_t i = first; i < vocab; i += ROW_THREADS) max = Max()(max, load_float(row[i]));
  max = block_reduce<ROW_THREADS>(max, scratch, Max());
  if (!(max > -INFINITY && max < INFINITY)) return {NAN, NAN, NAN};
  float sum = 0, weighted = 0;
  for (int64_t i = first; i < vocab; i += ROW_THREADS) {
    const float z = (load_float(row[i]) - max) * inv, e = expf(z);
    sum += e;
    weighted += e > 0 ? e * z : 0;  // no 0 * -inf
  }
  sum = block_reduce<ROW_THREADS>(sum, scratch, Sum());
  weighted = block_reduce<ROW_THREADS>(weighted, scratch, Sum());
  return {max, logf(sum), weighted / sum};
}

template <class A>
__device__ __forceinline__ float inv_temperature(const LogitsView<A>& view, int64_t token) {
  return view.temperatures != nullptr ? 1 / view.temperatures[token]
                                      : static_cast<float>(1 / view.temperature);
}

template <class T>
__device__ __forceinline__ const T* row_of(const LogitsView<float>& view, int64_t token) {
  return static_cast<const T*>(view.logits) + token * view.row_stride;
}

// What a row says about its target; an id out of range says NaN.
struct TargetStats {
  float logprob;
  float entropy;
  float logsumexp;
};

template <class T>
__device__ TargetStats target_stats(const LogitsView<float>& view, int64_t token) {
  const T* row = row_of<T>(view, token);
  const float inv = inv_temperature(view, token);
  const RowStats stats = row_stats(row, view.vocab, inv);
  const int64_t target = view.targets[token];
  const bool known = target >= 0 && target < view.vocab;
  const float logprob = known ? (load_float(row[target]) - stats.max) * inv - stats.log_sum : NAN;
  return {logprob, stats.log_sum - stats.mean, stats.max * inv + stats.log_sum};
}

template <class T>
__device__ void write_zeros(T* out, int64_t vocab) {
  for (int64_t i = threadIdx.x; i < vocab; i += ROW_THREADS) store_float(out + i, 0.f);
}

// d/dx of l d_logprob + H d_entropy; out may be the row.
template <class T>
__device__ void write_gradient(const T* row, int64_t vocab, int64_t target, float inv, float logsumexp,
                               float logprob, float entropy, float d_logprob, float d_entropy, T* out) {
  const float a = -(d_logprob + d_entropy * entropy) * inv, b = -d_entropy * inv;
  for (int64_t i = threadIdx.x; i < vocab; i += ROW_THREADS) {
    const float logp = load_float(row[i]) * inv - logsumexp, p = expf(logp);
    float slope = p > 0 ? p * (a + b * logp) : 0.f;
    if (p != p) slope = p;  // NaN rows stay NaN
    if (i == target) {      // 1 - p without cancellation
      const float q = expf(logprob), entropy_part = q > 0 ? q * (entropy + logprob) * d_entropy : 0.f;
      slope = (-expm1f(logprob) * d_logprob - entropy_part) * inv;
    }
    store_float(out + i, slope);
  }
}

}  // namespace elastic::cuda
