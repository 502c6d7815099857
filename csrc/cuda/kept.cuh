// Tokens with a kept set, whose distribution is over a few ids. The logits pass leaves their logits unread
// and their gradient zero; here they are gathered, with the same statistics and slopes.
//
// A warp takes a token, a lane every 32nd id of its set: two or three gathers of 32 bytes per id, where a
// whole row would be hundreds of kilobytes. The order of sums depends on the set alone. The gradient may lie
// over the logits, so it waits in scratch: kept_kernel gathers, the logits pass writes its zeros, then
// spread_kernel brings the slopes to their places.
//
// The host has not seen ids and offsets. Those out of range are not followed, and make the token NaN.
#pragma once

#include "cuda/logits_launch.cuh"

namespace elastic::cuda {

constexpr int KEPT_THREADS = 256, KEPT_TOKENS = KEPT_THREADS / WARP;

template <class T>
__device__ __forceinline__ float kept_logit(const TokenLogits<T>& logits, int32_t id) {
  return id >= 0 && id < logits.vocab ? to_float(logits.values[id]) : NAN;
}

// The token's statistics, in every lane. `has_target` becomes whether the target is among the ids.
template <class T, bool SOFTCAP>
__device__ __forceinline__ LogitsStats kept_stats(const TokenLogits<T>& logits, const KeptSet& kept,
                                                  const Transform<SOFTCAP>& transform, int32_t target,
                                                  bool& has_target) {
  Online all;
  if (kept.count < 0) all.sum = NAN;
  int32_t found = 0;
  for (int64_t k = static_cast<int>(threadIdx.x) % WARP; k < kept.count; k += WARP) {
    const float x[1] = {transform.capped(kept_logit(logits, kept.ids[k]))};
    all.add(x, x[0], transform.scale);
    found += kept.ids[k] == target;
  }
  all = all.join_warp(transform.scale);
  has_target = warp_reduce(found, Sum()) > 0;
  return LogitsStats(all);
}

// PLANS: the token's statistics are known from an earlier pass.
template <class Task, class Transform>
__device__ __forceinline__ Plan kept_plan(const Task& task, int64_t i,
                                          const TokenLogits<typename Task::Element>& logits,
                                          const KeptSet& kept, const Transform& transform) {
  if constexpr (Task::PLANS) {
    return task.plan(i, transform);
  } else {
    typename Task::Inputs in = task.inputs(i, logits);
    bool has_target;
    const LogitsStats stats = kept_stats(logits, kept, transform, in.target, has_target);
    if (!has_target) in.target = -1;
    return task.combine(i, in, logits, stats, transform, threadIdx.x % WARP == 0);
  }
}

template <class Task>
__global__ void __launch_bounds__(KEPT_THREADS, 1) kept_kernel(Task task, LogitsChunk chunk) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * KEPT_TOKENS + threadIdx.x / WARP;
  if (i >= chunk.tokens) return;
  const KeptSets& sets = task.p.softmax.kept;
  const KeptSet kept = kept_set(sets, token_of(chunk, i));
  if (kept.count == 0) return;
  const TokenLogits<typename Task::Element> logits = task.logits(i);
  const Transform<Task::SOFTCAP> transform(logits.inv_temperature, logits.softcap);
  Plan plan = zeros_plan();
  if (task.counted(i)) plan = kept_plan(task, i, logits, kept, transform);
  if (logits.gradient == nullptr || kept.count < 0) return;
  if constexpr (Task::WRITES) {
    const Span<float> slopes_of(task.p.kept_gradient + (kept.ids - sets.ids), kept.count);
    for (int64_t k = static_cast<int>(threadIdx.x) % WARP; k < kept.count; k += WARP) {
      float x[1] = {0.f};
      if (plan.emit != Emit::ZEROS) {
        x[0] = kept_logit(logits, kept.ids[k]);
        slopes<true>(transform, plan, x);  // without an entropy slope b is 0
        if (kept.ids[k] == plan.target) x[0] = plan.target_slope;
      }
      slopes_of[k] = x[0];
    }
  }
}

template <class T>
__global__ void __launch_bounds__(KEPT_THREADS)
    spread_kernel(LogitsChunk chunk, KeptSets sets, const float* slopes, int64_t vocab) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * KEPT_TOKENS + threadIdx.x / WARP;
  if (i >= chunk.tokens) return;
  const KeptSet kept = kept_set(sets, token_of(chunk, i));
  const Span<T> out(static_cast<T*>(chunk.gradient) + i * chunk.gradient_stride, vocab);
  for (int64_t k = static_cast<int>(threadIdx.x) % WARP; k < kept.count; k += WARP) {
    const int32_t id = kept.ids[k];
    if (id >= 0 && id < vocab) out[id] = from_float<T>(slopes[kept.ids - sets.ids + k]);
  }
}

// pass(), the launch of a logits pass, with the kept sets' kernels around it. `writes`: it writes a gradient.
template <class Task, class Pass>
LaunchResult with_kept_sets(const Task& task, const LogitsChunk& chunk, bool writes, cudaStream_t stream,
                            const Pass& pass) {
  const Softmax<float>& softmax = task.p.softmax;
  if (softmax.kept.offsets == nullptr) return pass();
  const Grid grid{dim3(static_cast<unsigned>((chunk.tokens + KEPT_TOKENS - 1) / KEPT_TOKENS)),
                  dim3(KEPT_THREADS)};
  if (const LaunchResult result = launch<kept_kernel<Task>>(grid, stream, task, chunk); !result)
    return result;
  if (const LaunchResult result = pass(); !result || !writes) return result;
  if constexpr (Task::WRITES)
    return launch<spread_kernel<typename Task::Element>>(
        grid, stream, chunk, softmax.kept, static_cast<const float*>(task.p.kept_gradient), softmax.vocab);
  return {cudaSuccess, "kept_kernel"};
}

}  // namespace elastic::cuda
