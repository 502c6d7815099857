// Launchers of the budget kernels. Pointers are device memory, the stream is the caller's; each returns the
// launch's own error. Nothing here waits, allocates or reads device memory, so a CUDA graph may capture it.
#pragma once

#include "core/budget_params.h"
#include "cuda/launch_result.h"

namespace elastic::cuda {

LaunchResult new_state(const budget::NewStateParams& params, cudaStream_t stream);
LaunchResult end_thinking(const budget::EndThinkingParams& params, cudaStream_t stream);
LaunchResult budget_step(const budget::StepParams& params, cudaStream_t stream);
LaunchResult force_logits(const budget::ForceParams& params, cudaStream_t stream);
LaunchResult forced_next(const budget::ForcedNextParams& params, cudaStream_t stream);
LaunchResult replay(const budget::ReplayParams& params, cudaStream_t stream);

}  // namespace elastic::cuda
