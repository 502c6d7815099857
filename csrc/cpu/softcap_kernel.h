// The soft cap z = cap tanh(x / cap) of one row of logits, and the way back for gradients. A pass of its own
// into float32 scratch that stays in L2, so that rows without a cap pay nothing.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>

#include "cpu/dispatch.h"

namespace elastic::cpu {

template <class T, class A>
struct SoftcapRow {
  // out[i] = cap tanh(row[i] / cap)
  void (*forward)(const T* row, int64_t n, A cap, A* out);
  // out[i] = gradient[i] (1 - (z[i] / cap)^2), z what forward() wrote
  void (*backward)(const A* gradient, const A* z, int64_t n, A cap, T* out);
};

struct SoftcapKernels {
  SoftcapRow<float, float> f32;
  SoftcapRow<c10::BFloat16, float> bf16;
  SoftcapRow<c10::Half, float> f16;
  SoftcapRow<double, double> f64;
};

ELASTIC_DECLARE(SoftcapKernels, softcap_kernels)

}  // namespace elastic::cpu
