// CPU entry points of the loss ops. Pointers were checked by csrc/binding; nothing here throws but bad_alloc.
#pragma once

#include "core/loss_params.h"

namespace elastic::cpu {

// A is float (float32, bfloat16 logits) or double (float64 logits).
template <class A>
void token_logprobs(const LogprobParams<A>& params);
template <class A>
void token_logprobs_backward(const LogprobBackwardParams<A>& params);
template <class A>
void grpo_loss(const GrpoParams<A>& params);
template <class A>
void group_advantage(Advantage kind, const A* rewards, const int64_t* group_offsets, int64_t groups,
                     double eps, int64_t pass_k, A* advantages);

}  // namespace elastic::cpu
