// Budget ops on host memory. Serial loops: a row takes some ten nanoseconds, so for any batch that a model
// can decode a second thread would cost more than it gains.
#pragma once

#include "core/budget_params.h"

namespace elastic::cpu {

void new_state(const budget::NewStateParams& params);
void end_thinking(const budget::EndThinkingParams& params);
void budget_step(const budget::StepParams& params);
void force_logits(const budget::ForceParams& params);
void forced_next(const budget::ForcedNextParams& params);
void replay(const budget::ReplayParams& params);

}  // namespace elastic::cpu
