// What the loss ops are told: plain structs, filled by csrc/binding, read by csrc/cpu and csrc/cuda.
//
// N tokens of a packed batch, R rows (completions), K groups, V vocabulary. A is the type of every per-token
// and per-row float: float for float32 and bfloat16 logits, double for float64 ones.
#pragma once

#include <cstdint>

namespace elastic {

enum class Scalar : int32_t { F32, BF16, F64 };
enum class Loss : int32_t { GRPO, BNPO, DR_GRPO, DAPO, GSPO, CISPO, SAPO };
enum class Kl : int32_t { K1, K2, K3 };
enum class Advantage : int32_t { GROUP, NONE, BATCH, RLOO, MAXRL, PASSK };

// How exp(old - engine), the mismatch between the trainer's and the sampling engine's logprobs, becomes a
// weight.
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
  bool engine_rows;   // one weight a row, from the sum of its tokens' mismatches
  double engine_low;  // bounds of the weight
  double engine_high;
};

// Logits and how a row of them is read.
template <class A>
struct LogitsView {
  Scalar dtype;
  const void* logits;      // [N, V], last stride 1
  int64_t row_stride;      // elements
  int64_t tokens;          // N
  int64_t vocab;           // V
  const int64_t* targets;  // [N]
  double temperature;      // of every token, unless
  const A* temperatures;   // [N] or null
};

template <class A>
struct LogprobParams {
  LogitsView<A> view;
  A* logprobs;   // [N]
  A* entropy;    // [N]
  A* logsumexp;  // [N]
};

template <class A>
struct LogprobBackwardParams {
  LogitsView<A> view;
  const A* logsumexp;      // [N]
  const A* entropy;        // [N]
  const A* grad_logprobs;  // [N] or null
  const A* grad_entropy;   // [N] or null
  void* gradient;          // [N, V] contiguous, dtype of the logits
};

template <class A>
struct GrpoParams {
  LogitsView<A> view;
  void* gradient;              // [N, V], dtype of the logits; may be the logits; null: loss only
  int64_t gradient_stride;     // elements between rows
  int64_t rows;                // R
  const int64_t* row_offsets;  // [R + 1]
  const bool* mask;            // [N] or null: every token counts
  const A* old_logprobs;       // [N]
  const A* ref_logprobs;       // [N] or null
  const A* engine_logprobs;    // [N] or null: the policy term is not weighted
  const A* advantages;         // [R]
  Objective objective;
  A* logprobs;       // [N]
  A* entropy;        // [N]
  A* loss;           // scalar
  A* clip_fraction;  // scalar
  A* kl;             // scalar
};

}  // namespace elastic
