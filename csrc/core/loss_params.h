// Arguments of the loss kernels: plain structs, filled by csrc/binding, read by csrc/cpu and csrc/cuda.
//
// N tokens of a packed batch, R rows (completions), K groups, V vocabulary. A is the type of every per-token
// and per-row float: double for float64 logits, float for the others.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace elastic {

enum class Scalar : int32_t { F32, BF16, F16, F64 };
enum class Loss : int32_t { GRPO, BNPO, DR_GRPO, DAPO, GSPO, CISPO, SAPO };
enum class Kl : int32_t { K1, K2, K3 };
enum class Advantage : int32_t { GROUP, NONE, BATCH, RLOO, MAXRL, PASSK };

// How exp(old - engine), the mismatch of the trainer's and the sampling engine's logprobs, becomes a weight.
enum class EngineMode : int32_t { TRUNCATE, MASK };

// The scalars of the objective; SPEC section 5 has the formulas.
struct Objective {
  Loss loss;
  Kl kl;
  bool kl_weighted;  // the KL term is multiplied by the importance ratio
  double clip_low;   // ratio is clipped to [1 - clip_low, 1 + clip_high]; cispo: to at most clip_high
  double clip_high;
  double delta;      // upper bound of the unclipped ratio; infinity: none
  double dual_clip;  // bound of the loss at negative advantage, as a multiple of it; infinity: none
  double kl_coef;
  double entropy_coef;
  double tau_positive;  // sapo's temperatures
  double tau_negative;
  double num_tokens;  // dapo, cispo: global number of unmasked tokens; negative: count this batch's
  double num_rows;    // grpo, gspo, sapo, dr_grpo: global number of rows; negative: R
  double max_length;  // dr_grpo
  EngineMode engine_mode;
  bool engine_rows;   // one weight per row, from the sum of its tokens' mismatches
  double engine_low;  // bounds of the weight
  double engine_high;
};

// Supported temperatures and soft caps: beyond, a reciprocal or its product with a logit may overflow.
ELASTIC_HD bool is_supported_factor(double value) {
  const float f = static_cast<float>(value);  // a float32 tensor's 1e30 is above the double's
  return f >= 1e-30f && f <= 1e30f;
}

// The ids among which tokens were drawn, where filters had dropped the others.
struct KeptSets {
  const int64_t* offsets;  // [N + 1], or null: no token has a set
  const int32_t* ids;      // [size], ascending within a token
  int64_t size;
};

struct KeptSet {
  const int32_t* ids;
  int64_t count;  // 0: none, which stands for the whole vocabulary; -1: offsets that do not fit
};

ELASTIC_HD KeptSet kept_set(const KeptSets& sets, int64_t token) {
  if (sets.offsets == nullptr) return {nullptr, 0};
  const int64_t begin = sets.offsets[token], end = sets.offsets[token + 1];
  if (begin < 0 || end < begin || end > sets.size) return {nullptr, -1};
  return {sets.ids + begin, end - begin};
}

// How a token's logits x become its distribution: softmax(softcap tanh(x / softcap) / temperature), over the
// ids of its kept set if it has one.
template <class A>
struct Softmax {
  int64_t vocab;           // V
  const int64_t* targets;  // [N]
  double temperature;      // of every token, unless
  const A* temperatures;   // [N] or null
  double softcap;          // 0: none
  KeptSets kept;
};

// Logits of n tokens that are at hand, and where their gradient goes.
struct LogitsChunk {
  Scalar dtype;
  const void* logits;       // [n, V], last stride 1
  int64_t row_stride;       // elements
  void* gradient;           // [n, V], dtype of the logits; may be the logits; null: none
  int64_t gradient_stride;  // elements
  int64_t tokens;           // n
  int64_t first;            // row i is token first + i, unless
  const int64_t* index;     // [n] the rows' tokens, all different, or null
};

ELASTIC_HD int64_t token_of(const LogitsChunk& chunk, int64_t i) {
  return chunk.index != nullptr ? chunk.index[i] : chunk.first + i;
}

template <class A>
struct LogprobParams {
  Softmax<A> softmax;
  LogitsChunk chunk;  // all N tokens
  A* logprobs;        // [N]
  A* entropy;         // [N]
  A* maximum;         // [N] the largest capped logit, exact
  A* log_sum;         // [N] log sum exp((x - maximum) / temperature); in one float the two would lose digits
};

template <class A>
struct LogprobBackwardParams {
  Softmax<A> softmax;
  LogitsChunk chunk;       // all N tokens, with a gradient
  const A* maximum;        // [N]
  const A* log_sum;        // [N]
  const A* entropy;        // [N]
  const A* grad_logprobs;  // [N] or null
  const A* grad_entropy;   // [N] or null
  A* kept_gradient;        // [kept.size] scratch of the CUDA kernels
};

// A batch of the GRPO loss, whose logits come in chunks. Stages, in this order: grpo_begin; grpo_chunk for
// every chunk; where rows share a ratio (is_row_level) grpo_rows and grpo_chunk_gradient for every chunk;
// grpo_end. Chunks together hold every token once; tokens whose Work is SKIP (grpo_scratch.h) may be missing.
template <class A>
struct GrpoParams {
  Softmax<A> softmax;
  int64_t tokens;                // N
  int64_t rows;                  // R
  const int64_t* row_offsets;    // [R + 1]
  const bool* mask;              // [N] or null: every token counts
  const A* old_logprobs;         // [N]
  const A* ref_logprobs;         // [N] or null
  const A* engine_logprobs;      // [N] or null: the policy term is not weighted
  const A* rewards;              // [R] or null: advantages are given
  const int64_t* group_offsets;  // [K + 1], with rewards
  int64_t groups;                // K
  Advantage advantage;           // with rewards, as the next two
  double advantage_eps;
  int64_t pass_k;
  A* advantages;  // [R], read; with rewards written by grpo_begin
  Objective objective;
  bool needs_gradient;       // false: chunks have none
  bool skip_zero_advantage;  // tokens that cannot have a gradient are not read
  A* logprobs;               // [N]
  A* entropy;                // [N]
  A* loss;                   // scalar
  A* clip_fraction;          // scalar
  A* kl;                     // scalar
  void* scratch;             // grpo_scratch_bytes<A>(N, R), aligned to 8
  A* kept_gradient;          // [kept.size] scratch of the CUDA kernels, with needs_gradient
};

}  // namespace elastic
