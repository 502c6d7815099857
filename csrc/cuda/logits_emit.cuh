// The writing half of a logits pass: what to write for a token whose statistics are known, and the gradient.
#pragma once

#include "cuda/logits_stats.cuh"

namespace elastic::cuda {

// What a task says about a token's logits before any of them is read.
template <class T>
struct TokenLogits {
  const T* values;  // [V]
  T* gradient;      // [V], may be the logits, or null
  int32_t vocab;
  float inv_temperature;
  float softcap;  // 0: none
  bool counted;   // false: the logits are not read, their gradient is zero
};

// What is written, decided by one thread for the whole CTA: 2^d (a + b d) with d = (x - max) scale, times the
// softcap's slope. The target's own element is computed apart, to avoid cancellation.
enum class Emit : int32_t { NOTHING, ZEROS, SLOPES, ENTROPY_SLOPES };
struct Plan {
  Emit emit;
  int32_t target;
  float target_slope;
  float max;
  float a;
  float b;
};

__device__ __forceinline__ Plan zeros_plan() {
  Plan plan{};
  plan.emit = Emit::ZEROS;
  return plan;
}

// d/dx of logprob d_logprob + entropy d_entropy; p = 2^d density, density = 2^-log2_sum. `target` < 0: none.
template <bool SOFTCAP>
__device__ __forceinline__ Plan slopes_plan(const Transform<SOFTCAP>& transform, float max, float density,
                                            float log2_sum, int32_t target, float target_cap_slope,
                                            float logprob, float entropy, float d_logprob, float d_entropy) {
  const float inv = transform.inv_temperature;
  const float a = -(d_logprob + d_entropy * entropy) * inv, b = -d_entropy * inv * LN_2;
  const float q = expf(logprob), entropy_part = q > 0.f ? q * (entropy + logprob) * d_entropy : 0.f;
  Plan plan;
  plan.emit = d_entropy != 0.f ? Emit::ENTROPY_SLOPES : Emit::SLOPES;
  plan.target = target;
  plan.target_slope = (-expm1f(logprob) * d_logprob - entropy_part) * inv * target_cap_slope;
  plan.max = max;
  plan.a = fmaf(-b, log2_sum, a) * density;
  plan.b = b * density;
  return plan;
}

// The same from what was saved of a token's statistics (log_sum in nats). `logprob` is the target's, or NaN.
template <bool SOFTCAP>
__device__ __forceinline__ Plan saved_plan(const Transform<SOFTCAP>& transform, float max, float log_sum,
                                           int32_t target, float target_cap_slope, float logprob,
                                           float entropy, float d_logprob, float d_entropy) {
  const float log2_sum = log_sum * LOG2_E;
  return slopes_plan(transform, max, exp2f(-log2_sum), log2_sum, target, target_cap_slope, logprob, entropy,
                     d_logprob, d_entropy);
}

// One thread's share of a CTA's vectors, units in the order in which they are read.
template <int AHEAD, class Load, class Use>
__device__ __forceinline__ void each_vector(int32_t begin, int32_t end, const Load& load, const Use& use) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % WARP;
  for (int32_t v = begin + lane; v < end; v += WARP * AHEAD) {
    Vec16 q[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
      if (AHEAD == 1 || v + WARP * i < end) q[i] = load(v + WARP * i);
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
      if (AHEAD == 1 || v + WARP * i < end) use(v + WARP * i, q[i]);
  }
}

// Logits outside the vectors, one for each of the first threads `t` of those that share a token, or -1.
__device__ __forceinline__ int32_t loose_element(const LogitsLayout& layout, int32_t vocab, int32_t t) {
  if (t < layout.head) return t;
  return t < layout.head + layout.tail ? vocab - layout.tail + (t - layout.head) : -1;
}
__device__ __forceinline__ int32_t loose_element(const LogitsLayout& layout, int32_t vocab) {
  return loose_element(layout, vocab, static_cast<int32_t>(threadIdx.x));
}

// Logits, or their gradient, to be written: the elements, and as vectors those behind the first `head`.
template <class T>
struct WrittenLogits {
  Span<T> elements;
  Span<Vec16> vectors;
  int32_t head;

  __device__ __forceinline__ WrittenLogits(T* first, int32_t vocab, const LogitsLayout& layout)
      : elements(first, vocab),
        vectors(reinterpret_cast<Vec16*>(first + layout.head), layout.vectors),
        head(layout.head) {}

  // ALIGNED: relative to 16 bytes they lie as the logits of the layout do; in place that is always so.
  template <bool ALIGNED>
  __device__ __forceinline__ void store(int32_t v, const float (&x)[PER_VECTOR<T>]) const {
    constexpr int E = PER_VECTOR<T>;
    if constexpr (ALIGNED) {
      store_streaming(&vectors[v], pack<T>(x));
    } else {
#pragma unroll
      for (int i = 0; i < E; i++) elements[head + v * E + i] = from_float<T>(x[i]);
    }
  }
};

// Thread `t` of `threads` writes its share of a token's gradient of zeros.
template <class T>
__device__ __forceinline__ void write_zeros(T* gradient, int32_t vocab, int32_t t, int32_t threads) {
  const LogitsLayout layout = LogitsLayout::of<T>(gradient, vocab);
  const WrittenLogits<T> out(gradient, vocab, layout);
  const int32_t loose = loose_element(layout, vocab, t);
  if (loose >= 0) out.elements[loose] = from_float<T>(0.f);
  for (int64_t v = t; v < layout.vectors; v += threads) store_streaming(&out.vectors[v], Vec16{});
}

template <bool ENTROPY, bool SOFTCAP, int E>
__device__ __forceinline__ void slopes(const Transform<SOFTCAP>& transform, const Plan& plan, float (&x)[E]) {
#pragma unroll
  for (int i = 0; i < E; i++) {
    float cap_slope;
    const float d = (transform.capped(x[i], cap_slope) - plan.max) * transform.scale;
    const float e = exp2_fast(d);
    x[i] = ENTROPY ? e * fmaf(fmaxf(d, NEGLIGIBLE), plan.b, plan.a) : e * plan.a;
    if constexpr (SOFTCAP) x[i] *= cap_slope;
  }
}

// This CTA's share of the gradient: units [first, first + units), where `load` finds the logits.
template <class Load, bool SOFTCAP, class T>
__device__ __forceinline__ void emit_logits(const Load& load, const LogitsLayout& layout,
                                            const TokenLogits<T>& logits, const Transform<SOFTCAP>& transform,
                                            const Plan& plan, int rank, int log2_units, int32_t loose) {
  constexpr int E = PER_VECTOR<T>;
  const int warp = static_cast<int>(threadIdx.x) / WARP, warps = static_cast<int>(blockDim.x) / WARP;
  const int units = 1 << log2_units, first_unit = rank << log2_units;
  const bool aligned =
      (reinterpret_cast<uintptr_t>(logits.gradient) - reinterpret_cast<uintptr_t>(logits.values)) %
          sizeof(Vec16) ==
      0;
  const WrittenLogits<T> out(logits.gradient, logits.vocab, layout);
  const auto emit = [&](auto entropy, auto like_logits) {
    for (int u = warp; u < units; u += warps)
      each_vector<Load::AHEAD>(layout.begin(first_unit + u), layout.begin(first_unit + u + 1), load,
                               [&](int32_t v, const Vec16& q) {
                                 float x[E];
                                 unpack<T>(q, x);
                                 slopes<decltype(entropy)::value>(transform, plan, x);
                                 out.template store<decltype(like_logits)::value>(v, x);
                               });
    if (loose >= 0) {
      float x[1] = {to_float(logits.values[loose])};
      slopes<decltype(entropy)::value>(transform, plan, x);
      out.elements[loose] = from_float<T>(x[0]);
    }
  };
  const bool entropy = plan.emit == Emit::ENTROPY_SLOPES;
  if (aligned && !entropy) emit(std::false_type{}, std::true_type{});
  if (aligned && entropy) emit(std::true_type{}, std::true_type{});
  if (!aligned && !entropy) emit(std::false_type{}, std::false_type{});
  if (!aligned && entropy) emit(std::true_type{}, std::false_type{});
  // The target again, by the thread that has just written it.
  const int32_t body = plan.target - layout.head, v = body / E, u = layout.unit > 0 ? v / layout.unit : 0;
  const bool in_body = body >= 0 && v < layout.vectors;
  const bool mine = in_body ? u >> log2_units == rank && (u & (units - 1)) % warps == warp &&
                                  (v - layout.begin(u)) % WARP == static_cast<int32_t>(threadIdx.x) % WARP
                            : plan.target >= 0 && loose == plan.target;
  if (mine) out.elements[plan.target] = from_float<T>(plan.target_slope);
}

}  // namespace elastic::cuda
