// The stages of the GRPO loss that read no logits, and group_advantage. Each reads every per-token float
// once: about 30 bytes per token, where a token's logits are hundreds of thousands.
//
// - count_kernel: one block per row counts unmasked tokens and engine mismatch and checks the row's offsets;
//   one more block computes group advantages.
// - plan_kernel: one block sums the batch's tokens and sets every row's factor. In the others each thread
//   finds one token's row and work, and writes the outputs of a token that is not read.
// - rows_kernel (gspo): one block per row computes the slopes of its tokens, which share a ratio.
// - end_kernel: one block computes the scalars.
//
// Counts are integers; sums run in index order per thread and by a fixed tree across threads. Offsets that do
// not fit turn every factor into NaN. Nothing is read or written outside the tensors.
#include "core/group_advantage.h"
#include "core/grpo_scratch.h"
#include "cuda/common.cuh"
#include "cuda/loss.h"

namespace elastic::cuda {
namespace {

constexpr int THREADS = 256;
constexpr size_t SMEM = THREADS / WARP * sizeof(double);  // the widest type that a block reduces

using Params = GrpoParams<float>;
using Scratch = GrpoScratch<float>;

// All groups by one block, one thread per group: rewards are few. Rows that no fitting group covers stay NaN.
__device__ void all_advantages(Advantage kind, const float* rewards, const int64_t* offsets, int64_t groups,
                               int64_t rows, double eps, int64_t pass_k, float* advantages) {
  double* scratch = block_smem<double>();
  const int64_t first = threadIdx.x;
  double sum = 0, squares = 0;
  for (int64_t r = first; r < rows; r += THREADS) {
    advantages[r] = NAN;
    sum += static_cast<double>(rewards[r]);
  }
  const double mean = block_reduce<THREADS>(sum, scratch, Sum()) / static_cast<double>(rows);
  for (int64_t r = first; r < rows; r += THREADS) {
    const double d = static_cast<double>(rewards[r]) - mean;
    squares += d * d;
  }
  squares = block_reduce<THREADS>(squares, scratch, Sum());
  const BatchSpread batch{1, rows > 1 ? sqrt(squares / static_cast<double>(rows - 1)) : 0};
  if (offsets[0] != 0 || offsets[groups] != rows) return;
  for (int64_t k = first; k < groups; k += THREADS) {
    const int64_t begin = offsets[k], end = offsets[k + 1];
    if (begin < 0 || end < begin || end > rows) continue;
    group_advantages(kind, rewards + begin, end - begin, eps, pass_k, batch, advantages + begin);
  }
}

// The second bound: with the first alone ptxas saves registers until it spills.
__global__ void __launch_bounds__(THREADS, 1)
    advantage_kernel(Advantage kind, const float* rewards, const int64_t* offsets, int64_t groups,
                     int64_t rows, double eps, int64_t pass_k, float* advantages) {
  all_advantages(kind, rewards, offsets, groups, rows, eps, pass_k, advantages);
}

// The row of [begin, end) that holds a token, or -1; safe for offsets in any order.
__device__ int64_t find_row(const Params& p, int64_t token) {
  int64_t low = 0, high = p.rows;  // the first row whose end lies behind the token
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (p.row_offsets[middle + 1] > token)
      high = middle;
    else
      low = middle + 1;
  }
  return low < p.rows && p.row_offsets[low] <= token && token < p.row_offsets[low + 1] ? low : -1;
}

__device__ void count_row(const Params& p, const Scratch& s, int64_t row) {
  const int64_t begin = p.row_offsets[row], end = p.row_offsets[row + 1];
  const bool fits = begin >= 0 && begin <= end && end <= p.tokens && (row > 0 || begin == 0) &&
                    (row < p.rows - 1 || end == p.tokens);
  int64_t tokens = 0;
  double mismatch = 0;
  for (int64_t t = begin + threadIdx.x; fits && t < end; t += THREADS) {
    if (!counts(p, t)) continue;
    tokens++;
    if (p.engine_logprobs != nullptr)
      mismatch += static_cast<double>(p.old_logprobs[t] - p.engine_logprobs[t]);
  }
  tokens = block_reduce<THREADS>(tokens, block_smem<int64_t>(), Sum());
  mismatch = block_reduce<THREADS>(mismatch, block_smem<double>(), Sum());
  if (threadIdx.x != 0) return;
  const float weight =
      p.objective.engine_rows ? engine_weight(p.objective, static_cast<float>(mismatch)) : 1.f;
  s.rows[row] = {fits ? tokens : -1, 0.f, weight};
}

__global__ void __launch_bounds__(THREADS, 1) count_kernel(Params p) {
  if (blockIdx.x < p.rows) return count_row(p, grpo_scratch(p), blockIdx.x);
  all_advantages(p.advantage, p.rewards, p.group_offsets, p.groups, p.rows, p.advantage_eps, p.pass_k,
                 p.advantages);
}

__device__ void scale_rows(const Params& p, const Scratch& s) {
  int64_t* scratch = block_smem<int64_t>();
  int64_t tokens = 0, misfits = 0;
  for (int64_t r = threadIdx.x; r < p.rows; r += THREADS) {
    tokens += s.rows[r].tokens;
    misfits += s.rows[r].tokens < 0;
  }
  tokens = block_reduce<THREADS>(tokens, scratch, Sum());
  misfits = block_reduce<THREADS>(misfits, scratch, Sum());
  for (int64_t r = threadIdx.x; r < p.rows; r += THREADS)
    s.rows[r].scale =
        misfits > 0 ? NAN : static_cast<float>(token_scale(p.objective, p.rows, s.rows[r].tokens, tokens));
  if (threadIdx.x == 0) *s.unmasked = tokens;
}

__global__ void __launch_bounds__(THREADS) plan_kernel(Params p) {
  const Scratch s = grpo_scratch(p);
  if (blockIdx.x == 0) return scale_rows(p, s);
  const int64_t token = static_cast<int64_t>(blockIdx.x - 1) * THREADS + threadIdx.x;
  if (token >= p.tokens) return;
  const int64_t row = find_row(p, token);
  const Work work = work_of(p, counts(p, token), row >= 0 ? p.advantages[row] : NAN);
  const TokenTerms<float> terms = unset_terms<float>(work);
  s.row_of[token] = row;
  s.work[token] = work;
  s.terms[token] = terms;
  p.logprobs[token] = terms.loss;
  p.entropy[token] = terms.loss;
}

__global__ void __launch_bounds__(THREADS) rows_kernel(Params p) {
  const Scratch s = grpo_scratch(p);
  const int64_t row = blockIdx.x, begin = p.row_offsets[row], end = p.row_offsets[row + 1];
  const RowState<float> state = s.rows[row];
  if (state.tokens < 0) return;
  double* scratch = block_smem<double>();
  const double count = static_cast<double>(state.tokens > 0 ? state.tokens : 1);
  double sum = 0, shared = 0;
  for (int64_t t = begin + threadIdx.x; t < end; t += THREADS)
    if (s.work[t] != Work::SKIP) sum += static_cast<double>(p.logprobs[t] - p.old_logprobs[t]);
  const float mean = static_cast<float>(block_reduce<THREADS>(sum, scratch, Sum()) / count);
  for (int64_t t = begin + threadIdx.x; t < end; t += THREADS) {
    if (s.work[t] == Work::SKIP) continue;
    const TokenInput<float> in = token_input(p, t, row, state.scale, state.weight);
    s.terms[t] = token_terms(p.objective, in, mean);
    shared += static_cast<double>(s.terms[t].shared_slope);
  }
  const float slope = static_cast<float>(block_reduce<THREADS>(shared, scratch, Sum()) / count);
  for (int64_t t = begin + threadIdx.x; t < end; t += THREADS)  // each thread revisits its own tokens
    if (s.work[t] != Work::SKIP) s.terms[t].slope += slope;
}

__global__ void __launch_bounds__(THREADS) end_kernel(Params p) {
  const Scratch s = grpo_scratch(p);
  double* scratch = block_smem<double>();
  double loss = 0, kl = 0, clipped = 0;
  for (int64_t t = threadIdx.x; t < p.tokens; t += THREADS) {
    loss += static_cast<double>(s.terms[t].loss);
    kl += static_cast<double>(s.terms[t].kl);
    clipped += s.terms[t].clipped;
  }
  loss = block_reduce<THREADS>(loss, scratch, Sum());
  kl = block_reduce<THREADS>(kl, scratch, Sum());
  clipped = block_reduce<THREADS>(clipped, scratch, Sum());
  if (threadIdx.x != 0) return;
  const double count = static_cast<double>(*s.unmasked > 0 ? *s.unmasked : 1);
  *p.loss = static_cast<float>(loss);
  *p.kl = static_cast<float>(kl / count);
  *p.clip_fraction = static_cast<float>(clipped / count);
}

dim3 blocks(int64_t count) { return dim3(static_cast<unsigned>(count)); }

}  // namespace

LaunchResult grpo_begin(const Params& p, cudaStream_t stream) {
  const int64_t advantage_blocks = p.rewards != nullptr && p.rows > 0;
  const Grid rows{blocks(p.rows + advantage_blocks), dim3(THREADS), SMEM};
  const LaunchResult result = launch<count_kernel>(rows, stream, p);
  if (!result) return result;
  const Grid tokens{blocks(1 + (p.tokens + THREADS - 1) / THREADS), dim3(THREADS), SMEM};
  return launch<plan_kernel>(tokens, stream, p);
}

LaunchResult grpo_rows(const Params& p, cudaStream_t stream) {
  return launch<rows_kernel>({blocks(p.rows), dim3(THREADS), SMEM}, stream, p);
}

LaunchResult grpo_end(const Params& p, cudaStream_t stream) {
  return launch<end_kernel>({blocks(1), dim3(THREADS), SMEM}, stream, p);
}

LaunchResult group_advantage(Advantage kind, const float* rewards, const int64_t* group_offsets,
                             int64_t groups, int64_t rows, double eps, int64_t pass_k, float* advantages,
                             cudaStream_t stream) {
  const Grid grid{blocks(rows > 0 ? 1 : 0), dim3(THREADS), SMEM};
  return launch<advantage_kernel>(grid, stream, kind, rewards, group_offsets, groups, rows, eps, pass_k,
                                  advantages);
}

}  // namespace elastic::cuda
