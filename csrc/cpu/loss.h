// CPU entry points of the loss ops. Pointers were checked by csrc/binding; nothing here throws but bad_alloc.
#pragma once

#include "core/loss_params.h"

namespace elastic::cpu {

// A is float (float32, bfloat16, float16 logits) or double (float64 logits).
template <class A>
void token_logprobs(const LogprobParams<A>& params);
template <class A>
void token_logprobs_backward(const LogprobBackwardParams<A>& params);
template <class A>
void group_advantage(Advantage kind, const A* rewards, const int64_t* group_offsets, int64_t groups,
                     double eps, int64_t pass_k, A* advantages);

// The stages of the GRPO loss (core/loss_params.h).
template <class A>
void grpo_begin(const GrpoParams<A>& params);
template <class A>
void grpo_chunk(const GrpoParams<A>& params, const LogitsChunk& chunk);
template <class A>
void grpo_rows(const GrpoParams<A>& params);
template <class A>
void grpo_chunk_gradient(const GrpoParams<A>& params, const LogitsChunk& chunk);
template <class A>
void grpo_end(const GrpoParams<A>& params);

}  // namespace elastic::cpu
