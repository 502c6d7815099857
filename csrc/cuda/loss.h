// Launchers of the loss kernels. Pointers are device memory, the stream is the caller's; each returns the
// launch's own error. Nothing here waits, allocates or reads device memory, so a CUDA graph may capture it.
#pragma once

#include "core/loss_params.h"
#include "cuda/launch_result.h"

namespace elastic::cuda {

LaunchResult token_logprobs(const LogprobParams<float>& params, cudaStream_t stream);
LaunchResult token_logprobs_backward(const LogprobBackwardParams<float>& params, cudaStream_t stream);

// The stages of the GRPO loss (core/loss_params.h). grpo_begin is two launches, each of the others one; where
// tokens have kept sets, those of a chunk are up to three (kept.cuh).
LaunchResult grpo_begin(const GrpoParams<float>& params, cudaStream_t stream);
LaunchResult grpo_chunk(const GrpoParams<float>& params, const LogitsChunk& chunk, cudaStream_t stream);
LaunchResult grpo_rows(const GrpoParams<float>& params, cudaStream_t stream);
LaunchResult grpo_chunk_gradient(const GrpoParams<float>& params, const LogitsChunk& chunk,
                                 cudaStream_t stream);
LaunchResult grpo_end(const GrpoParams<float>& params, cudaStream_t stream);

LaunchResult group_advantage(Advantage kind, const float* rewards, const int64_t* group_offsets,
                             int64_t groups, int64_t rows, double eps, int64_t pass_k, float* advantages,
                             cudaStream_t stream);

// Rows of values *= *factor; nothing is written where *factor, which only the device reads, is 1.
LaunchResult scale(Scalar dtype, void* values, int64_t rows, int64_t width, int64_t row_stride,
                   const float* factor, cudaStream_t stream);

}  // namespace elastic::cuda
