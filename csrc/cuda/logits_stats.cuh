// Softmax statistics of a token, in one pass and in an order that no launch shape changes.
//
// Its logits are cut into UNITS stretches of equal length. One warp takes a unit, a lane every 32nd vector of
// it with a running maximum of its own; five shuffles join the lanes; the units are joined by one warp, in a
// fixed tree. So the result depends on the logits alone, not on cluster size, number of threads or storage.
//
// All exponents are in base 2: d = (x - max) log2(e) / temperature, with `max` the largest capped logit x
// itself, which no offset of the logits can round. It starts at the lowest float, which lets -inf and the
// lowest float itself differ. NaN and +inf need no branch: they end up in `sum` and `max`.
#pragma once

#include "cuda/cluster.cuh"
#include "cuda/logit.cuh"

namespace elastic::cuda {

constexpr int LOG2_UNITS = 7, UNITS = 1 << LOG2_UNITS;
constexpr float LOWEST = -3.402823466e38f;
// Logprobs and entropies below this, which a float sum over a vocabulary cannot tell from 0, are exactly 0.
constexpr float RESOLUTION = 2.4e-7f;
// 2^NEGLIGIBLE is 0, and times NEGLIGIBLE it still is: keeps 0 * -inf out.
constexpr float NEGLIGIBLE = -200.f;

// Layout of a token's logits: `head` of them up to a 16-byte boundary, whole vectors, `tail` behind.
struct LogitsLayout {
  int32_t head;
  int32_t tail;
  int32_t vectors;
  int32_t unit;  // vectors per unit; the last units may be shorter or empty

  template <class T>
  static __device__ __forceinline__ LogitsLayout of(const T* first, int32_t vocab) {
    constexpr int E = PER_VECTOR<T>;
    const int32_t past = static_cast<int32_t>(reinterpret_cast<uintptr_t>(first) / sizeof(T)) & (E - 1);
    const int32_t gap = (E - past) & (E - 1), head = gap < vocab ? gap : vocab;
    const int32_t vectors = (vocab - head) / E;
    return {head, vocab - head - vectors * E, vectors, (vectors + UNITS - 1) / UNITS};
  }
  __device__ __forceinline__ int32_t begin(int u) const { return u * unit < vectors ? u * unit : vectors; }
};

struct Max {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

template <int N>
__device__ __forceinline__ float largest(const float* x) {
  if constexpr (N == 1)
    return x[0];
  else
    return fmaxf(largest<N / 2>(x), largest<N - N / 2>(x + N / 2));
}

struct Online {
  float max = LOWEST;
  float sum = 0.f;       // of 2^d
  float weighted = 0.f;  // of 2^d d

  __device__ __forceinline__ void rescale(float to, float scale) {
    const float delta = fmaxf((max - to) * scale, NEGLIGIBLE), factor = exp2_fast(delta);
    weighted = factor * fmaf(delta, sum, weighted);
    sum = factor * sum;
    max = to;
  }

  // x: capped logits; scale: log2(e) / temperature. Without BOUNDED, a d of -inf makes `weighted` NaN.
  template <bool BOUNDED, int N>
  __device__ __forceinline__ void add(const float (&x)[N], float scale) {
    rescale(fmaxf(max, largest<N>(x)), scale);
    constexpr int CHAINS = N < 4 ? 1 : 4;  // short ones: latency
    float sums[CHAINS], products[CHAINS];
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float d = (x[i] - max) * scale, bounded = BOUNDED ? fmaxf(d, NEGLIGIBLE) : d;
      const float e = exp2_fast(d);
      const int c = i % CHAINS;
      sums[c] = i < CHAINS ? e : sums[c] + e;
      products[c] = i < CHAINS ? e * bounded : fmaf(e, bounded, products[c]);
    }
#pragma unroll
    for (int c = 0; c < CHAINS; c++) {
      sum += sums[c];
      weighted += products[c];
    }
  }

  // The whole warp's, in every lane.
  __device__ __forceinline__ void join_warp(float scale) {
    rescale(warp_reduce(max, Max()), scale);
    sum = warp_reduce(sum, Sum());
    weighted = warp_reduce(weighted, Sum());
  }
};

// One unit's statistics in shared memory: sixteen bytes, one access.
struct alignas(16) UnitStats {
  float max, sum, weighted, unused;
};

// Logprob of a capped logit, from the token's maximum and log_sum in nats. Halves, because finite logits can
// be further apart than the largest float.
__device__ __forceinline__ float logprob_of(float x, float inv_temperature, float max, float log_sum) {
  const float l = fmaf(0.5f * x - 0.5f * max, 2.f * inv_temperature, -log_sum);
  return l > -RESOLUTION ? 0.f : l;
}

// log2 p = d - log2_sum. NaN in every field for logits with NaN, +inf, or nothing but -inf.
struct LogitsStats {
  float max;
  float log2_sum;
  float sum;
  float entropy;  // in nats

  __device__ __forceinline__ explicit LogitsStats(const Online& all) {
    const bool legal = all.sum > 0.f && all.max < INFINITY;
    max = legal ? all.max : NAN;
    sum = legal ? all.sum : NAN;
    log2_sum = log2f(sum);
    const float h = (log2_sum - all.weighted / sum) * LN_2;
    entropy = h < RESOLUTION ? 0.f : h;
  }
  __device__ __forceinline__ float log_sum() const { return log2_sum * LN_2; }  // in nats
  __device__ __forceinline__ float logprob(float x, float inv_temperature) const {
    return logprob_of(x, inv_temperature, max, log_sum());
  }
};

}  // namespace elastic::cuda
