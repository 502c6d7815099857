// grpo_loss: six launches, no host synchronisation, no float atomics.
//
//   count_rows   a block a row: unmasked tokens, engine mismatch, whether the row's offsets fit
//   scale_rows   one block: tokens of the batch, factor of every row
//   read_tokens  a block a token: logprob, entropy, logsumexp (reads the logits twice, the second time from
//   L2) objective    a block a row: slopes of every token write_tokens a block a token: gradient (reads the
//   logits once more, writes once) sum_tokens   one block: the scalars, in index order per thread and by a
//   fixed tree across threads
//
// A token that no legal row covers keeps NaN terms, and offsets that do not fit turn every factor into NaN:
// bad input cannot pass for a loss. Nothing is read or written outside the tensors.
#include "core/grpo_objective.h"
#include "cuda/logits_rows.cuh"
#include "cuda/loss.h"

namespace elastic::cuda {
namespace {

constexpr int COUNT_THREADS = 128;
constexpr int SUM_THREADS = 256;

struct RowState {
  int64_t tokens;   // unmasked
  double mismatch;  // sum of old - engine
  float scale;
  float weight;
  bool legal;
};

struct Scratch {
  TokenTerms<float>* terms;  // [N]
  float* logsumexp;          // [N]
  RowState* rows;            // [R]
  int64_t* unmasked;         // [1]
};

using Params = GrpoParams<float>;

__device__ __forceinline__ bool counts(const Params& p, int64_t token) {
  return p.mask == nullptr || p.mask[token];
}

__global__ void __launch_bounds__(COUNT_THREADS) count_rows_kernel(Params p, Scratch s) {
  const int64_t row = blockIdx.x, begin = p.row_offsets[row], end = p.row_offsets[row + 1];
  const bool legal = begin >= 0 && begin <= end && end <= p.view.tokens;
  int64_t tokens = 0;
  double mismatch = 0;
  for (int64_t t = begin + threadIdx.x; legal && t < end; t += COUNT_THREADS) {
    if (!counts(p, t)) continue;
    tokens++;
    if (p.engine_logprobs != nullptr)
      mismatch += static_cast<double>(p.old_logprobs[t] - p.engine_logprobs[t]);
  }
  tokens = block_reduce<COUNT_THREADS>(tokens, block_smem<int64_t>(), Sum());
  mismatch = block_reduce<COUNT_THREADS>(mismatch, block_smem<double>(), Sum());
  if (threadIdx.x != 0) return;
  const float weight =
      p.objective.engine_rows ? engine_weight(p.objective, static_cast<float>(mismatch)) : 1.f;
  s.rows[row] = {tokens, mismatch, 0.f, weight, legal};
}

__global__ void __launch_bounds__(SUM_THREADS) scale_rows_kernel(Params p, Scratch s) {
  int64_t* scratch = block_smem<int64_t>();
  int64_t tokens = 0, illegal = 0;
  for (int64_t r = threadIdx.x; r < p.rows; r += SUM_THREADS) {
    tokens += s.rows[r].tokens;
    illegal += !s.rows[r].legal;
  }
  tokens = block_reduce<SUM_THREADS>(tokens, scratch, Sum());
  illegal = block_reduce<SUM_THREADS>(illegal, scratch, Sum());
  for (int64_t r = threadIdx.x; r < p.rows; r += SUM_THREADS)
    s.rows[r].scale =
        illegal > 0 ? NAN : static_cast<float>(token_scale(p.objective, p.rows, s.rows[r].tokens, tokens));
  if (threadIdx.x == 0) *s.unmasked = tokens;
}

template <class T>
__global__ void __launch_bounds__(ROW_THREADS) read_tokens_kernel(Params p, Scratch s) {
  const int64_t token = blockIdx.x;
  const bool counted = counts(p, token);
  const TargetStats stats = counted ? target_stats<T>(p.view, token) : TargetStats{0, 0, 0};
  if (threadIdx.x != 0) return;
  p.logprobs[token] = stats.logprob;
  p.entropy[token] = stats.entropy;
  s.logsumexp[token] = stats.logsumexp;
  const float unset = counted ? NAN : 0.f;  // until a row claims the token
  s.terms[token] = {unset, unset, unset, unset, unset, false};
}

__global__ void __launch_bounds__(COUNT_THREADS) objective_kernel(Params p, Scratch s) {
  const int64_t row = blockIdx.x, begin = p.row_offsets[row], end = p.row_offsets[row + 1];
  const RowState state = s.rows[row];
  if (!state.legal) return;
  double* scratch = block_smem<double>();
  const double count = static_cast<double>(state.tokens > 0 ? state.tokens : 1);
  float mean_log_ratio = 0;
  if (is_row_level(p.objective)) {
    double sum = 0;
    for (int64_t t = begin + threadIdx.x; t < end; t += COUNT_THREADS)
      if (counts(p, t)) sum += static_cast<double>(p.logprobs[t] - p.old_logprobs[t]);
    mean_log_ratio = static_cast<float>(block_reduce<COUNT_THREADS>(sum, scratch, Sum()) / count);
  }
  double shared = 0;
  for (int64_t t = begin + threadIdx.x; t < end; t += COUNT_THREADS) {
    if (!counts(p, t)) continue;
    const TokenInput<float> in = token_input(p, t, row, state.scale, state.weight);
    const TokenTerms<float> terms = token_terms(p.objective, in, mean_log_ratio);
    shared += static_cast<double>(terms.shared_slope);
    s.terms[t] = terms;
  }
  if (!is_row_level(p.objective)) return;
  const float slope = static_cast<float>(block_reduce<COUNT_THREADS>(shared, scratch, Sum()) / count);
  for (int64_t t = begin + threadIdx.x; t < end; t += COUNT_THREADS)  // each thread revisits its own tokens
    if (counts(p, t)) s.terms[t].slope += slope;
}

template <class T>
__global__ void __launch_bounds__(ROW_THREADS) write_tokens_kernel(Params p, Scratch s) {
  const int64_t token = blockIdx.x;
  T* out = static_cast<T*>(p.gradient) + token * p.gradient_stride;
  const float slope = s.terms[token].slope, entropy_slope = s.terms[token].entropy_slope;
  if (!counts(p, token) || (slope == 0 && entropy_slope == 0)) return write_zeros(out, p.view.vocab);
  write_gradient(row_of<T>(p.view, token), p.view.vocab, p.view.targets[token],
                 inv_temperature(p.view, token), s.logsumexp[token], p.logprobs[token], p.entropy[token],
                 slope, entropy_slope, out);
}

__global__ void __launch_bounds__(SUM_THREADS) sum_tokens_kernel(Params p, Scratch s) {
  double* scratch = block_smem<double>();
  double loss = 0, kl = 0, clipped = 0;
  for (int64_t t = threadIdx.x; t < p.view.tokens; t += SUM_THREADS) {
    loss += static_cast<double>(s.terms[t].loss);
    kl += static_cast<double>(s.terms[t].kl);
    clipped += s.terms[t].clipped;
  }
  loss = block_reduce<SUM_THREADS>(loss, scratch, Sum());
  kl = block_reduce<SUM_THREADS>(kl, scratch, Sum());
  clipped = block_reduce<SUM_THREADS>(clipped, scratch, Sum());
  if (threadIdx.x != 0) return;
  const double count = static_cast<double>(*s.unmasked > 0 ? *s.unmasked : 1);
  *p.loss = static_cast<float>(loss);
  *p.kl = static_cast<float>(kl / count);
  *p.clip_fraction = static_cast<float>(clipped / count);
}

// Widest alignment first, so that every part lies where its type needs it.
Scratch split(void* memory, int64_t tokens, int64_t rows) {
  char* at = static_cast<char*>(memory);
  Scratch s;
  s.unmasked = reinterpret_cast<int64_t*>(at);
  at += sizeof(int64_t);
  s.rows = reinterpret_cast<RowState*>(at);
  at += sizeof(RowState) * static_cast<size_t>(rows);
  s.terms = reinterpret_cast<TokenTerms<float>*>(at);
  at += sizeof(TokenTerms<float>) * static_cast<size_t>(tokens);
  s.logsumexp = reinterpret_cast<float*>(at);
  return s;
}

dim3 blocks(int64_t count) { return dim3(static_cast<unsigned>(count)); }

}  // namespace

size_t grpo_scratch_bytes(int64_t tokens, int64_t rows) {
  return sizeof(int64_t) + sizeof(RowState) * static_cast<size_t>(rows) +
         (sizeof(TokenTerms<float>) + sizeof(float)) * static_cast<size_t>(tokens);
}

LaunchResult grpo_loss(const Params& p, void* memory, cudaStream_t stream) {
  const Scratch s = split(memory, p.view.tokens, p.rows);
  const bool bf16 = p.view.dtype == Scalar::BF16;
  const Grid rows{blocks(p.rows), dim3(COUNT_THREADS), COUNT_THREADS / WARP * sizeof(double)};
  const Grid tokens{blocks(p.view.tokens), dim3(ROW_THREADS), ROW_SMEM};
  const Grid one{blocks(1), dim3(SUM_THREADS), SUM_THREADS / WARP * sizeof(double)};
  LaunchResult result = launch<count_rows_kernel>(rows, stream, p, s);
  if (result) result = launch<scale_rows_kernel>(one, stream, p, s);
  if (result)
    result = bf16 ? launch<read_tokens_kernel<Bf16>>(tokens, stream, p, s)
                  : launch<read_tokens_kernel<float>>(tokens, stream, p, s);
  if (result) result = launch<objective_kernel>(rows, stream, p, s);
  if (result && p.gradient != nullptr)
    result = bf16 ? launch<write_tokens_kernel<Bf16>>(tokens, stream, p, s)
                  : launch<write_tokens_kernel<float>>(tokens, stream, p, s);
  if (result) result = launch<sum_tokens_kernel>(one, stream, p, s);
  return result;
}

}  // namespace elastic::cuda
