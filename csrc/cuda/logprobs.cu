// token_logprobs, its backward, and the scaling of a gradient that is already written.
//
// Per logit, token_logprobs, a logits pass (logits_pass.cuh) without a gradient, takes one read. The backward
// plans from the saved statistics: one read and one write, or only a write where no gradient flows back.
// scale: one read and one write, or nothing where the factor is 1.
#include "cuda/logits_launch.cuh"
#include "cuda/loss.h"

namespace elastic::cuda {
namespace {

template <class T, bool SOFTCAP>
struct LogprobTask : LogitsTask<T, SOFTCAP> {
  LogprobParams<float> p;

  struct Inputs {
    float logit;  // the target's
    int32_t target;
  };

  explicit LogprobTask(const LogprobParams<float>& p) : p(p) {}

  __device__ __forceinline__ TokenLogits<T> logits(int64_t i) const {
    return this->logits_of(p.softmax, p.chunk, i, i, /*with_gradient=*/false, /*counted=*/true);
  }
  __device__ __forceinline__ void skip(int64_t) const {}

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
  LogprobBackwardParams<float> p;

  explicit LogprobBackwardTask(const LogprobBackwardParams<float>& p) : p(p) {}

  __device__ __forceinline__ float d_logprob(int64_t i) const {
    return p.grad_logprobs != nullptr ? p.grad_logprobs[i] : 0.f;
  }
  __device__ __forceinline__ float d_entropy(int64_t i) const {
    return p.grad_entropy != nullptr ? p.grad_entropy[i] : 0.f;
  }
  __device__ __forceinline__ TokenLogits<T> logits(int64_t i) const {
    const bool flows = d_logprob(i) != 0 || d_entropy(i) != 0;
    return this->logits_of(p.softmax, p.chunk, i, i, /*with_gradient=*/true, flows);
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

template <class T>
__global__ void __launch_bounds__(PART_THREADS)
    scale_kernel(T* values, int32_t vocab, int64_t row_stride, const float* factor, int log2_parts) {
  constexpr int E = PER_VECTOR<T>;
  const float f = *factor;
  if (f == 1) return;  // backward() of the loss itself: a launch without memory traffic
  const int parts = 1 << log2_parts, part = static_cast<int>(blockIdx.x) & (parts - 1);
  T* first = values + static_cast<int64_t>(blockIdx.x >> log2_parts) * row_stride;
  const LogitsLayout layout = LogitsLayout::of<T>(first, vocab);
  const WrittenLogits<T> out(first, vocab, layout);
  const int warps = static_cast<int>(blockDim.x) / WARP, last = (part + 1) << (LOG2_UNITS - log2_parts);
  for (int u = (part << (LOG2_UNITS - log2_parts)) + static_cast<int>(threadIdx.x) / WARP; u < last;
       u += warps)
    each_vector<Streamed::AHEAD>(layout.begin(u), layout.begin(u + 1), Streamed(first, layout),
                                 [&](int32_t v, const Vec16& q) {
                                   float x[E];
                                   unpack<T>(q, x);
#pragma unroll
                                   for (int i = 0; i < E; i++) x[i] *= f;
                                   out.template store<true>(v, x);
                                 });
  const int32_t loose = part == 0 ? loose_element(layout, vocab) : -1;
  if (loose >= 0) out.elements[loose] = from_float<T>(to_float(first[loose]) * f);
}

}  // namespace

LaunchResult token_logprobs(const LogprobParams<float>& p, cudaStream_t stream) {
  return with_logits_type(p.chunk.dtype, p.softmax.softcap, [&](auto type, auto softcap) {
    using Task = LogprobTask<decltype(type), decltype(softcap)::value>;
    return launch_pass(Task(p), p.chunk, p.softmax.vocab, /*rereads=*/false, stream);
  });
}

LaunchResult token_logprobs_backward(const LogprobBackwardParams<float>& p, cudaStream_t stream) {
  return with_logits_type(p.chunk.dtype, p.softmax.softcap, [&](auto type, auto softcap) {
    using Task = LogprobBackwardTask<decltype(type), decltype(softcap)::value>;
    return launch_gradient(Task(p), p.chunk, p.softmax.vocab, stream);
  });
}

LaunchResult scale(Scalar dtype, void* values, int64_t rows, int64_t vocab, int64_t row_stride,
                   const float* factor, cudaStream_t stream) {
  if (vocab > INT32_MAX || rows > INT32_MAX >> LOG2_PARTS)
    return {cudaErrorInvalidConfiguration, "scale_kernel"};
  return with_logits_type(dtype, 0, [&](auto type, auto) {
    using T = decltype(type);
    const Grid grid{dim3(static_cast<unsigned>(rows << LOG2_PARTS)), dim3(PART_THREADS)};
    return launch<scale_kernel<T>>(grid, stream, static_cast<T*>(values), static_cast<int32_t>(vocab),
                                   row_stride, factor, LOG2_PARTS);
  });
}

}  // namespace elastic::cuda
