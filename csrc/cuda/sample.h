// Launcher of sampling. Pointers are device memory, the stream is the caller's. Nothing here waits, allocates
// or reads device memory, so a CUDA graph may capture it. Two launches, or one where no counts are asked for.
#pragma once

#include "core/sampling_params.h"
#include "cuda/launch_result.h"

namespace elastic::cuda {

LaunchResult sample(const sampling::SampleParams& params, cudaStream_t stream);

}  // namespace elastic::cuda
