// Sampling on host memory: rows are independent and distributed over threads.
#pragma once

#include "core/sampling_params.h"

namespace elastic::cpu {

// Returns the first row of unusable logits, -1 if there is none. Without a `broken` to write it to, such a
// row leaves every state as it was.
int64_t sample(const sampling::SampleParams& params);

}  // namespace elastic::cpu
