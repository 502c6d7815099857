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

// Sums of 2^d and 2^d d, d = (x - max) scale. For any logits: no product of a logit alone can overflow.
struct Online {
  float max = LOWEST;
  float sum = 0.f;
  float weighted = 0.f;

  __device__ __forceinline__ void rescale_by(float delta, float to) {
    const float bounded = fmaxf(delta, NEGLIGIBLE), factor = exp2_fast(bounded);
    weighted = factor * fmaf(bounded, sum, weighted);
    sum = factor * sum;
    max = to;
  }
  __device__ __forceinline__ void rescale(float to, float scale) { rescale_by((max - to) * scale, to); }

  // x: capped logits, the largest of them is `top`; scale: log2(e) / temperature.
  template <int N>
  __device__ __forceinline__ void add(const float (&x)[N], float top, float scale) {
    rescale(fmaxf(max, top), scale);
    add_terms(
        x, [&](float value) { return (value - max) * scale; }, [](float d) { return fmaxf(d, NEGLIGIBLE); });
  }

  // The whole warp's, in every lane.
  __device__ __forceinline__ Online join_warp(float scale) {
    rescale(warp_reduce(max, Max()), scale);
    return joined();
  }

 protected:
  // `bound` keeps 0 * -inf out, where that may come.
  template <int N, class Distance, class Bound>
  __device__ __forceinline__ void add_terms(const float (&x)[N], const Distance& distance,
                                            const Bound& bound) {
    constexpr int CHAINS = N < 4 ? 1 : 4;  // short ones: latency
    float sums[CHAINS], products[CHAINS];
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float d = distance(x[i]), e = exp2_fast(d);
      const int c = i % CHAINS;
      sums[c] = i < CHAINS ? e : sums[c] + e;
      products[c] = i < CHAINS ? e * bound(d) : fmaf(e, bound(d), products[c]);
    }
#pragma unroll
    for (int c = 0; c < CHAINS; c++) {
      sum += sums[c];
      weighted += products[c];
    }
  }
  __device__ __forceinline__ Online joined() const {
    Online all;
    all.max = max;
    all.sum = warp_reduce(sum, Sum());
    all.weighted = warp_reduce(weighted, Sum());
    return all;
  }
};

// The same in fewer instructions: d = x scale - shift is one FFMA. `shift` is max scale, rounded; all terms
// share its error, so that join_warp() takes it out exactly. Right where covers() says so: -inf makes
// `weighted` NaN, and the product of a large logit is too coarse.
struct FastOnline : Online {
  float shift = -INFINITY;

  template <int N>
  __device__ __forceinline__ void add(const float (&x)[N], float top, float scale) {
    const float to = fmaxf(max, top), by = to * scale;
    rescale_by(shift - by, to);
    shift = by;
    add_terms(x, [&](float value) { return fmaf(value, scale, -by); }, [](float d) { return d; });
  }
  __device__ __forceinline__ Online join_warp(float scale) {
    const float to = warp_reduce(max, Max());
    rescale_by(fmaf(-to, scale, shift), to);
    return joined();
  }
  static __device__ __forceinline__ bool covers(const Online& all, float scale) {
    constexpr float LARGE = 1e6f;
    return all.weighted == all.weighted && fabsf(all.max * scale) < LARGE;
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
