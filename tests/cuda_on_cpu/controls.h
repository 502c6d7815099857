// The negative controls, by the name of their fault.
#pragma once

#include <vector>

#include "cuda/launch_result.h"

namespace elastic::cuda {

struct Control {
  using Reverse = LaunchResult(const float* in, float* out);  // out[i] = in[count - 1 - i]

  const char* fault;
  int count;
  Reverse* sound;
  Reverse* faulty;
};

std::vector<Control> store_controls();   // controls_stores.cu
const std::vector<Control>& controls();  // all

}  // namespace elastic::cuda
