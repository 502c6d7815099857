// One row of logits: softmax statistics and gradient. Vectorised, one thread, no memory of its own.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>

#include "cpu/dispatch.h"

namespace elastic::cpu {

// Elements handled at a time: 16 KB of float32 stays in L1 between the passes over a block.
constexpr int64_t LOSS_BLOCK = 4096;
constexpr int64_t loss_blocks(int64_t vocab) { return (vocab + LOSS_BLOCK - 1) / LOSS_BLOCK; }

// Of z = (x - max) / temperature, which is at most 0. A row that holds NaN or +inf, or nothing but -inf,
// gives NaN in every field, and so in everything derived from it.
template <class A>
struct RowStats {
  A max;      // max x
  A log_sum;  // log sum exp(z), at least 0
  A mean;     // sum p z; the entropy is log_sum - mean
};

// T is how logits lie in memory, A how they are computed.
template <class T, class A>
struct RowKernels {
  // Reads a row. `exps` null: statistics only. Otherwise exps gets exp((x - shift of x's block) /
  // temperature) of every x of a block, in an order of its own, and shifts [loss_blocks(n)]; exps may be the
  // row itself.
  RowStats<A> (*stats)(const T* row, int64_t n, A inv_temperature, A* exps, A* shifts);
  // out[i] = factor p[i], from what stats() stored; out may be exps.
  void (*scale_exps)(const A* exps, const A* shifts, int64_t n, A inv_temperature, const RowStats<A>& stats,
                     A factor, T* out);
  // out[i] = p[i] (a + b log p[i]) from the row itself, one more exp per element; out may be the row.
  // max and log_sum as in RowStats.
  void (*gradient)(const T* row, int64_t n, A inv_temperature, A max, A log_sum, A a, A b, T* out);
};

struct LossKernels {
  RowKernels<float, float> f32;
  RowKernels<c10::BFloat16, float> bf16;
  RowKernels<c10::Half, float> f16;
  RowKernels<double, double> f64;
};

ELASTIC_DECLARE(LossKernels, loss_kernels)

}  // namespace elastic::cpu
