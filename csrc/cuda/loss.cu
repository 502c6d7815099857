// The token stages of the GRPO loss: one block a row of logits.
//
// grpo_chunk reads a row three times (twice from L2) and writes its gradient once; where rows share a ratio
// it reads twice and leaves the gradient to grpo_chunk_gradient, which reads once and writes once. Rows of
// tokens that are skipped are not read; rows without a slope are only zero-filled.
//
// A token that no fitting row holds has NaN terms, and so a NaN gradient: bad input cannot pass for a loss.
#include "core/grpo_scratch.h"
#include "cuda/logits_rows.cuh"
#include "cuda/loss.h"

namespace elastic::cuda {
namespace {

using Params = GrpoParams<float>;

template <class T>
__device__ void write_row(const Params& p, const GrpoScratch<float>& s, const T* row, int64_t token,
                          const TargetStats& stats, T* out) {
  const float slope = s.terms[token].slope, entropy_slope = s.terms[token].entropy_slope;
  if (slope == 0 && entropy_slope == 0) return write_zeros(out, p.softmax.vocab);
  write_gradient(row, p.softmax, token, stats, slope, entropy_slope, out);
}

template <class T>
__global__ void __launch_bounds__(ROW_THREADS, 4) chunk_kernel(Params p, LogitsChunk chunk) {
  const GrpoScratch<float> s = grpo_scratch(p);
  const int64_t i = blockIdx.x, token = token_of(chunk, i), row_index = s.row_of[token];
  const T* row = row_of<T>(chunk, i);
  const bool writes = chunk.gradient != nullptr && !is_row_level(p.objective);
  if (s.work[token] == Work::SKIP) {
    if (writes) write_zeros(gradient_row<T>(chunk, i), p.softmax.vocab);
    return;
  }
  const TargetStats stats = target_stats(p.softmax, row, token);
  if (threadIdx.x == 0) {
    p.logprobs[token] = stats.logprob;
    p.entropy[token] = stats.entropy;
    s.logsumexp[token] = stats.logsumexp;
    if (!is_row_level(p.objective) && row_index >= 0) {
      const RowState<float> state = s.rows[row_index];
      const TokenInput<float> in = token_input(p, token, row_index, state.scale, state.weight);
      s.terms[token] = token_terms(p.objective, in, 0.f);
    }
  }
  if (!writes) return;
  __syncthreads();  // the terms
  write_row(p, s, row, token, stats, gradient_row<T>(chunk, i));
}

template <class T>
__global__ void __launch_bounds__(ROW_THREADS, 4) chunk_gradient_kernel(Params p, LogitsChunk chunk) {
  const GrpoScratch<float> s = grpo_scratch(p);
  const int64_t i = blockIdx.x, token = token_of(chunk, i);
  const TargetStats stats{p.logprobs[token], p.entropy[token], s.logsumexp[token]};
  write_row(p, s, row_of<T>(chunk, i), token, stats, gradient_row<T>(chunk, i));
}

dim3 blocks(int64_t count) { return dim3(static_cast<unsigned>(count)); }

}  // namespace

LaunchResult grpo_chunk(const Params& p, const LogitsChunk& chunk, cudaStream_t stream) {
  const Grid grid{blocks(chunk.tokens), dim3(ROW_THREADS), ROW_SMEM};
  return ELASTIC_LAUNCH(chunk.dtype, chunk_kernel, grid, stream, p, chunk);
}

LaunchResult grpo_chunk_gradient(const Params& p, const LogitsChunk& chunk, cudaStream_t stream) {
  const Grid grid{blocks(chunk.tokens), dim3(ROW_THREADS), ROW_SMEM};
  return ELASTIC_LAUNCH(chunk.dtype, chunk_gradient_kernel, grid, stream, p, chunk);
}

}  // namespace elastic::cuda
