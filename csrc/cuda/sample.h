// Launcher of sampling. Pointers are device memory, the stream is the caller's. Nothing here waits, allocates
// or reads device memory, so a CUDA graph may capture it. One launch, one more for counts, one more for kept
// ids.
#pragma once

#include "core/sampling_params.h"
#include "cuda/launch_result.h"

namespace elastic::cuda {

// Fills kept_ids and kept_counts from kept_rows; a launch of sample()'s.
LaunchResult list_kept_ids(const sampling::SampleParams& params, cudaStream_t stream);

LaunchResult sample(const sampling::SampleParams& params, cudaStream_t stream);

}  // namespace elastic::cuda
