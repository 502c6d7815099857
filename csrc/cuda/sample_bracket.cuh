// The search for a threshold: between which logits it lies, and where to look next.
//
// S(v) is what the logits x >= v weigh together, or how many they are. Wanted is the largest v with
// S(v) >= needed. Logits are compared as keys (sampling::ordered), so brackets shrink to one key. The result
// is unique: where pivots lie only costs time.
#pragma once

#include "core/sampling.h"
#include "cuda/mass.cuh"

namespace elastic::cuda {

constexpr int PIVOTS = 4;  // at which S is known after one pass
constexpr int SMOOTH_TURNS = 12;

struct PivotSums {
  Mass at[PIVOTS];
  __device__ __forceinline__ PivotSums operator+(const PivotSums& other) const {
    PivotSums sum;
#pragma unroll
    for (int j = 0; j < PIVOTS; j++) sum.at[j] = at[j] + other.at[j];
    return sum;
  }
};

// S(lo) >= needed > S(hi). at_hi is S(hi); at_lo is at least S(lo), or S(lo) itself.
struct Bracket {
  uint32_t lo, hi;
  Mass at_lo, at_hi;

  __device__ __forceinline__ uint32_t inside(float x) const {
    const uint32_t key = sampling::ordered(x);
    return key <= lo ? lo + 1 : key >= hi ? hi - 1 : key;
  }
  __device__ __forceinline__ void around(float x, float near, float far, uint32_t (&pivots)[PIVOTS]) const {
    pivots[0] = inside(x - far);
    pivots[1] = inside(x - near);
    pivots[2] = inside(x + near);
    pivots[3] = inside(x + far);
  }
  // Pivots at equal distances: of logits, or of keys after many turns and where logits are infinite, which
  // spans any exponents.
  __device__ __forceinline__ bool smooth(int turn) const {
    return turn < SMOOTH_TURNS && hi - lo > PIVOTS + 1 && width() < INFINITY;
  }
  __device__ __forceinline__ float bottom() const { return sampling::logit_of(lo); }
  __device__ __forceinline__ float width() const { return sampling::logit_of(hi) - bottom(); }
  __device__ __forceinline__ void spread(int turn, uint32_t (&pivots)[PIVOTS]) const {
    const bool by_logit = smooth(turn);
#pragma unroll
    for (int j = 0; j < PIVOTS; j++) {
      const uint32_t parts = static_cast<uint32_t>(j + 1), keys = hi - lo;
      const uint32_t step =
          keys <= PIVOTS + 1 ? parts : static_cast<uint32_t>(uint64_t(keys) * parts / (PIVOTS + 1));
      const uint32_t key = lo + step < hi ? lo + step : hi - 1;
      pivots[j] = by_logit ? inside(bottom() + width() * (float(j + 1) / (PIVOTS + 1))) : key;
    }
  }
  // Two pivots around where S would reach `needed` if it were linear, two that cut the rest.
  __device__ __forceinline__ void propose(Mass needed, int turn, uint32_t (&pivots)[PIVOTS]) const {
    if (!smooth(turn)) return spread(turn, pivots);
    const double part = static_cast<double>(at_lo - needed) / static_cast<double>(at_lo - at_hi);
    const float x = bottom() + static_cast<float>(part) * width();
    pivots[0] = inside(bottom() + width() * (1.f / 3));
    pivots[1] = inside(bottom() + width() * (2.f / 3));
    pivots[2] = inside(x - width() * (1.f / 32));
    pivots[3] = inside(x + width() * (1.f / 32));
  }
  __device__ __forceinline__ void narrow(Mass needed, const uint32_t (&pivots)[PIVOTS],
                                         const PivotSums& sums) {
#pragma unroll
    for (int j = 0; j < PIVOTS; j++) {
      if (sums.at[j] >= needed) {
        if (pivots[j] > lo) lo = pivots[j], at_lo = sums.at[j];
      } else if (pivots[j] < hi) {
        hi = pivots[j], at_hi = sums.at[j];
      }
    }
  }
};

struct Moments {
  float sum, squares, count;
  __device__ __forceinline__ Moments operator+(const Moments& other) const {
    return {sum + other.sum, squares + other.squares, count + other.count};
  }
};

// A guess at a row whose threshold lies deep in it: normal.
struct NormalRow {
  float mean, deviation;

  __device__ __forceinline__ explicit NormalRow(const Moments& m)
      : mean(m.sum / fmaxf(m.count, 1.f)),
        deviation(sqrtf(fmaxf(m.squares / fmaxf(m.count, 1.f) - mean * mean, 0.f))) {}

  // What `part` of a normal variable's values lie below. Abramowitz and Stegun, Handbook, 26.2.23: off
  // by 4.5e-4.
  static __device__ __forceinline__ float quantile(float part) {
    const float tail = part > 0.5f ? 1.f - part : part, t = sqrtf(-2.f * logf(fmaxf(tail, 1e-30f)));
    const float z = t - (2.515517f + t * (0.802853f + t * 0.010328f)) /
                            (1.f + t * (1.432788f + t * (0.189269f + t * 0.001308f)));
    return part > 0.5f ? z : -z;
  }
  // The logit that `part` of all logits lie below.
  __device__ __forceinline__ float left_by_count(float part) const {
    return mean + deviation * quantile(part);
  }
  // The logit that `part` of all weights lie below, scale log2(e) / temperature: a normal row's weights are
  // normal around a mean that is higher by deviation^2 / temperature, and cut off at the row's maximum.
  __device__ __forceinline__ float left_by_mass(float part, float max, float scale) const {
    const float centre = mean + deviation * deviation * scale * 0.69314718f;
    const float above_max = deviation > 0.f ? 0.5f * erfcf((max - centre) / deviation * 0.70710678f) : 0.f;
    return centre + deviation * quantile(fminf(part * (1.f - above_max), 0.9999f));
  }
};

}  // namespace elastic::cuda
