// Sampling on host memory: rows are independent, threads share them out.
#pragma once

#include "core/sampling_params.h"

namespace elastic::cpu {

void sample(const sampling::SampleParams& params);

}  // namespace elastic::cpu
