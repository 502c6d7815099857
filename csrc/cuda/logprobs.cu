// token_logprobs, its backward, and the scaling of a gradient. One block a row of logits.
#include "cuda/logits_rows.cuh"
#include "cuda/loss.h"

namespace elastic::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(ROW_THREADS, 4) logprobs_kernel(LogprobParams<float> p) {
  const int64_t token = blockIdx.x;
  const TargetStats stats = target_stats(p.softmax, row_of<T>(p.chunk, token), token);
  if (threadIdx.x != 0) return;
  p.logprobs[token] = stats.logprob;
  p.entropy[token] = stats.entropy;
  p.logsumexp[token] = stats.logsumexp;
}

template <class T>
__global__ void __launch_bounds__(ROW_THREADS, 4) logprobs_backward_kernel(LogprobBackwardParams<float> p) {
  const int64_t token = blockIdx.x, target = p.softmax.targets[token];
  const T* row = row_of<T>(p.chunk, token);
  T* out = gradient_row<T>(p.chunk, token);
  const float d_logprob = p.grad_logprobs != nullptr ? p.grad_logprobs[token] : 0.f;
  const float d_entropy = p.grad_entropy != nullptr ? p.grad_entropy[token] : 0.f;
  if (d_logprob == 0 && d_entropy == 0) return write_zeros(out, p.softmax.vocab);
  const Transform f = transform_of(p.softmax, token);
  const bool known = target >= 0 && target < p.softmax.vocab;
  const float logsumexp = known ? p.logsumexp[token] : NAN;
  const float logprob = known ? f.cap(load_float(row[target])) * f.inv_temperature - logsumexp : NAN;
  write_gradient(row, p.softmax, token, {logprob, p.entropy[token], logsumexp}, d_logprob, d_entropy, out);
}

template <class T>
__global__ void __launch_bounds__(ROW_THREADS, 4)
    scale_kernel(void* values, int64_t vocab, int64_t row_stride, const float* factor) {
  const float f = *factor;
  if (f == 1) return;  // backward() of the loss itself: a launch, no traffic
  T* row = static_cast<T*>(values) + static_cast<int64_t>(blockIdx.x) * row_stride;
  for (int64_t i = threadIdx.x; i < vocab; i += ROW_THREADS) store_float(row + i, load_float(row[i]) * f);
}

dim3 blocks(int64_t count) { return dim3(static_cast<unsigned>(count)); }

}  // namespace

LaunchResult token_logprobs(const LogprobParams<float>& p, cudaStream_t stream) {
  const Grid grid{blocks(p.chunk.tokens), dim3(ROW_THREADS), ROW_SMEM};
  return ELASTIC_LAUNCH(p.chunk.dtype, logprobs_kernel, grid, stream, p);
}

LaunchResult token_logprobs_backward(const LogprobBackwardParams<float>& p, cudaStream_t stream) {
  const Grid grid{blocks(p.chunk.tokens), dim3(ROW_THREADS), ROW_SMEM};
  return ELASTIC_LAUNCH(p.chunk.dtype, logprobs_backward_kernel, grid, stream, p);
}

LaunchResult scale(Scalar dtype, void* values, int64_t rows, int64_t vocab, int64_t row_stride,
                   const float* factor, cudaStream_t stream) {
  const Grid grid{blocks(rows), dim3(ROW_THREADS)};
  return ELASTIC_LAUNCH(dtype, scale_kernel, grid, stream, values, vocab, row_stride, factor);
}

}  // namespace elastic::cuda
