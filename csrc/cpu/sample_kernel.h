// Passes over one row of logits for sampling: vectorised, one thread, no memory of their own.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>

#include "cpu/dispatch.h"

namespace elastic::cpu {

// Groups of a tile whose maxima the first pass keeps, as bounds with which later passes skip most of the row.
constexpr int64_t TILE_GROUPS = 16;
constexpr int64_t GATHER_SLACK = 16;  // elements that `gather` may write behind the last one it counts

template <class T>
struct SampleRowKernels {
  // The largest logit, NaN if one is NaN. maxima [tiles, TILE_GROUPS]: of disjoint groups, -inf if empty.
  float (*maximum)(const T* row, int64_t n, float* maxima);
  // sums [tiles]: of the weights (core/sampling.h) of each tile.
  void (*tile_sums)(const T* row, int64_t n, float max, float scale, uint64_t* sums);
  // The logits with low <= x < high and their ids, which start at first_id, in order; returns how many. Both
  // outputs have room for n + GATHER_SLACK.
  int64_t (*gather)(const T* row, int64_t n, int32_t first_id, float low, float high, float* values,
                    int32_t* ids);
};

struct SampleKernels {
  SampleRowKernels<float> f32;
  SampleRowKernels<c10::BFloat16> bf16;
  SampleRowKernels<c10::Half> f16;
  // weights [n] of values.
  void (*weights)(const float* values, int64_t n, float max, float scale, uint64_t* weights);
};

ELASTIC_DECLARE(SampleKernels, sample_kernels)

}  // namespace elastic::cpu
