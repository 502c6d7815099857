// token_logprobs, its backward, and group_advantage. One block a row of logits; one block for all groups.
#include "core/group_advantage.h"
#include "cuda/logits_rows.cuh"
#include "cuda/loss.h"

namespace elastic::cuda {
namespace {

constexpr int GROUP_THREADS = 256;

template <class T>
__global__ void __launch_bounds__(ROW_THREADS) logprobs_kernel(LogprobParams<float> p) {
  const int64_t token = blockIdx.x;
  const TargetStats stats = target_stats<T>(p.view, token);
  if (threadIdx.x != 0) return;
  p.logprobs[token] = stats.logprob;
  p.entropy[token] = stats.entropy;
  p.logsumexp[token] = stats.logsumexp;
}

template <class T>
__global__ void __launch_bounds__(ROW_THREADS) logprobs_backward_kernel(LogprobBackwardParams<float> p) {
  const int64_t token = blockIdx.x, target = p.view.targets[token];
  T* out = static_cast<T*>(p.gradient) + token * p.view.vocab;
  const float d_logprob = p.grad_logprobs != nullptr ? p.grad_logprobs[token] : 0.f;
  const float d_entropy = p.grad_entropy != nullptr ? p.grad_entropy[token] : 0.f;
  if (d_logprob == 0 && d_entropy == 0) return write_zeros(out, p.view.vocab);
  const T* row = row_of<T>(p.view, token);
  const float inv = inv_temperature(p.view, token);
  const bool known = target >= 0 && target < p.view.vocab;
  const float logsumexp = known ? p.logsumexp[token] : NAN;
  const float logprob = known ? load_float(row[target]) * inv - logsumexp : NAN;
  write_gradient(row, p.view.vocab, target, inv, logsumexp, logprob, p.entropy[token], d_logprob, d_entropy,
                 out);
}

// Rewards are few: one block, a thread a group. Rows that no legal group covers stay NaN. The second bound:
// with the first alone ptxas saves registers until it spills.
__global__ void __launch_bounds__(GROUP_THREADS, 1)
    group_advantage_kernel(Advantage kind, const float* rewards, const int64_t* offsets, int64_t groups,
                           int64_t rows, double eps, int64_t pass_k, float* advantages) {
  double* scratch = block_smem<double>();
  const int64_t first = threadIdx.x;
  double sum = 0, squares = 0;
  for (int64_t r = first; r < rows; r += GROUP_THREADS) {
    advantages[r] = NAN;
    sum += static_cast<double>(rewards[r]);
  }
  const double mean = block_reduce<GROUP_THREADS>(sum, scratch, Sum()) / static_cast<double>(rows);
  for (int64_t r = first; r < rows; r += GROUP_THREADS) {
    const double d = static_cast<double>(rewards[r]) - mean;
    squares += d * d;
  }
  squares = block_reduce<GROUP_THREADS>(squares, scratch, Sum());
  const double deviation = rows > 1 ? sqrt(squares / static_cast<double>(rows - 1)) : 0;
  if (offsets[0] != 0 || offsets[groups] != rows) return;
  for (int64_t k = first; k < groups; k += GROUP_THREADS) {
    const int64_t begin = offsets[k], end = offsets[k + 1];
    if (begin < 0 || end < begin || end > rows) continue;
    group_advantages(kind, rewards + begin, end - begin, eps, pass_k, deviation, advantages + begin);
  }
}

template <class T>
__global__ void __launch_bounds__(ROW_THREADS)
    scale_kernel(T* values, int64_t vocab, int64_t row_stride, const float* factor) {
  const float f = *factor;
  if (f == 1) return;  // backward() of the loss itself: a launch, no traffic
  T* row = values + static_cast<int64_t>(blockIdx.x) * row_stride;
  for (int64_t i = threadIdx.x; i < vocab; i += ROW_THREADS) store_float(row + i, load_float(row[i]) * f);
}

dim3 blocks(int64_t count) { return dim3(static_cast<unsigned>(count)); }

}  // namespace

LaunchResult token_logprobs(const LogprobParams<float>& p, cudaStream_t stream) {
  const Grid grid{blocks(p.view.tokens), dim3(ROW_THREADS), ROW_SMEM};
  if (p.view.dtype == Scalar::BF16) return launch<logprobs_kernel<Bf16>>(grid, stream, p);
  return launch<logprobs_kernel<float>>(grid, stream, p);
}

LaunchResult token_logprobs_backward(const LogprobBackwardParams<float>& p, cudaStream_t stream) {
  const Grid grid{blocks(p.view.tokens), dim3(ROW_THREADS), ROW_SMEM};
  if (p.view.dtype == Scalar::BF16) return launch<logprobs_backward_kernel<Bf16>>(grid, stream, p);
  return launch<logprobs_backward_kernel<float>>(grid, stream, p);
}

LaunchResult group_advantage(Advantage kind, const float* rewards, const int64_t* group_offsets,
                             int64_t groups, int64_t rows, double eps, int64_t pass_k, float* advantages,
                             cudaStream_t stream) {
  const Grid grid{blocks(rows > 0 ? 1 : 0), dim3(GROUP_THREADS), GROUP_THREADS / WARP * sizeof(double)};
  return launch<group_advantage_kernel>(grid, stream, kind, rewards, group_offsets, groups, rows, eps, pass_k,
                                        advantages);
}

LaunchResult scale(Scalar dtype, void* values, int64_t rows, int64_t vocab, int64_t row_stride,
                   const float* factor, cudaStream_t stream) {
  const Grid grid{blocks(rows), dim3(ROW_THREADS)};
  if (dtype == Scalar::BF16)
    return launch<scale_kernel<Bf16>>(grid, stream, static_cast<Bf16*>(values), vocab, row_stride, factor);
  return launch<scale_kernel<float>>(grid, stream, static_cast<float*>(values), vocab, row_stride, factor);
}

}  // namespace elastic::cuda
