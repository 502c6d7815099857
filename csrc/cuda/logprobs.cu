// token_logprobs and its backward.
//
// Per logit, token_logprobs, a logits pass (logits_pass.cuh) without a gradient, takes one read. The backward
// plans from the saved statistics: one read and one write, or only a write where no gradient flows back.
#include "cuda/kept.cuh"
#include "cuda/logits_launch.cuh"
#include "cuda/loss.h"

namespace elastic::cuda {
namespace {

template <class T, bool SOFTCAP>
struct LogprobTask : LogitsTask<T, SOFTCAP> {
  static constexpr bool WRITES = false;
  static constexpr bool PLANS = false;
  LogprobParams<float> p;

  struct Inputs {
    float logit;  // the target's
    int32_t target;
  };

  explicit LogprobTask(const LogprobParams<float>& p) : p(p) {}

  __device__ __forceinline__ bool counted(int64_t) const { return true; }
  __device__ __forceinline__ TokenLogits<T> logits(int64_t i) const {
    return this->logits_of(p.softmax, p.chunk, i, i, /*with_gradient=*/false, counted(i));
  }

  __device__ __forceinline__ Inputs inputs(int64_t i, const TokenLogits<T>& logits) const {
    const int32_t target = this->target_of(p.softmax, i);
    return {target >= 0 ? to_float(logits.values[target]) : NAN, target};
  }

  __device__ __forceinline__ Plan combine(int64_t i, const Inputs& in, const TokenLogits<T>&,
                                          const LogitsStats& stats, const Transform<SOFTCAP>& transform,
                                          bool writes) const {
    if (writes) {
      p.logprobs[i] =
          in.target >= 0 ? stats.logprob(transform.capped(in.logit), transform.inv_temperature) : NAN;
      p.entropy[i] = stats.entropy;
      p.maximum[i] = stats.max;
      p.log_sum[i] = stats.log_sum();
    }
    return Plan{};
  }
};

template <class T, bool SOFTCAP>
struct LogprobBackwardTask : LogitsTask<T, SOFTCAP> {
  static constexpr bool WRITES = true;
  static constexpr bool PLANS = true;
  LogprobBackwardParams<float> p;

  explicit LogprobBackwardTask(const LogprobBackwardParams<float>& p) : p(p) {}

  __device__ __forceinline__ float d_logprob(int64_t i) const {
    return p.grad_logprobs != nullptr ? p.grad_logprobs[i] : 0.f;
  }
  __device__ __forceinline__ float d_entropy(int64_t i) const {
    return p.grad_entropy != nullptr ? p.grad_entropy[i] : 0.f;
  }
  __device__ __forceinline__ bool counted(int64_t i) const { return d_logprob(i) != 0 || d_entropy(i) != 0; }
  __device__ __forceinline__ TokenLogits<T> logits(int64_t i) const {
    return this->logits_of(p.softmax, p.chunk, i, i, /*with_gradient=*/true, counted(i));
  }
  __device__ __forceinline__ Plan plan(int64_t i, const Transform<SOFTCAP>& transform) const {
    const int32_t target = this->target_of(p.softmax, i);
    const float max = p.maximum[i], log_sum = p.log_sum[i];
    float logprob = NAN, cap_slope = NAN;
    if (target >= 0) {
      const T* logits = static_cast<const T*>(p.chunk.logits) + i * p.chunk.row_stride;
      const float x = transform.capped(to_float(logits[target]), cap_slope);
      logprob = logprob_of(x, transform.inv_temperature, max, log_sum);
    }
    return saved_plan(transform, target >= 0 ? max : NAN, log_sum, target, cap_slope, logprob, p.entropy[i],
                      d_logprob(i), d_entropy(i));
  }
};

}  // namespace

LaunchResult token_logprobs(const LogprobParams<float>& p, cudaStream_t stream) {
  return with_logits_type(p.chunk.dtype, p.softmax.softcap, [&](auto type, auto softcap) {
    using Task = LogprobTask<decltype(type), decltype(softcap)::value>;
    const Task task(p);
    return with_kept_sets(task, p.chunk, /*writes=*/false, stream, [&] {
      return launch_pass<false>(task, p.chunk, p.softmax.vocab, /*rereads=*/false, stream);
    });
  });
}

LaunchResult token_logprobs_backward(const LogprobBackwardParams<float>& p, cudaStream_t stream) {
  return with_logits_type(p.chunk.dtype, p.softmax.softcap, [&](auto type, auto softcap) {
    using Task = LogprobBackwardTask<decltype(type), decltype(softcap)::value>;
    const Task task(p);
    return with_kept_sets(task, p.chunk, /*writes=*/true, stream,
                          [&] { return launch_gradient(task, p.chunk, p.softmax.vocab, stream); });
  });
}

}  // namespace elastic::cuda
