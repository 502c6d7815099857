// Sums in the registers of one thread, over logits or over those from a pivot up, of the weights
// w = floor(2^40 q), q = sampling::power(x, max, scale): in doubles or in integers.
//
// In doubles: a sum in [2^5, 2^6) has a last place of 2^-47, so sum + 2^-7 q, rounded down, grows by exactly
// 2^-47 w. That is one DFMA where the integer path shifts and adds 64 bits (9 instructions), and 2 a pivot
// where that takes 3. It is for devices whose double rate is half of their float rate (sm_80, 90, 100);
// elsewhere it is a sixty-fourth. 4,095 weights of 2^40 fit, more than shared memory holds for each thread of
// a single warp.
//
// term(q) is made once per logit; add(term) and add_from(term, x, pivot) once per sum.
#pragma once

#include "core/sampling.h"
#include "cuda/mass.cuh"

namespace elastic::cuda {

class DoubleSum {
 public:
  using Term = double;

  // q as a double by two integer instructions: the conversion's rate is a quarter of theirs.
  static __device__ __forceinline__ Term term(float q) {
    const uint32_t bits = sampling::bits_of(q);
    return __hiloint2double(static_cast<int>((bits >> 3) + (896u << 20)), static_cast<int>(bits << 29));
  }
  __device__ __forceinline__ void add(Term term) { sum_ = __fma_rd(term, 0x1p-7, sum_); }
  // A float's 1 is the upper half of the double 2^-7, so the comparison's result is the factor.
  __device__ __forceinline__ void add_from(Term term, float x, float pivot) {
    const float taken = x >= pivot ? 1.f : 0.f;
    sum_ = __fma_rd(term, __hiloint2double(__float_as_int(taken), 0), sum_);
  }
  __device__ __forceinline__ Mass mass() const {
    return static_cast<Mass>(__double_as_longlong(sum_) - __double_as_longlong(EMPTY));
  }

 private:
  static constexpr double EMPTY = 32.0;
  double sum_ = EMPTY;
};

class IntegerSum {
 public:
  using Term = Mass;
  static __device__ __forceinline__ Term term(float q) { return sampling::weight_of(q); }
  __device__ __forceinline__ void add(Term term) { sum_ += term; }
  __device__ __forceinline__ void add_from(Term term, float x, float pivot) { sum_ += x >= pivot ? term : 0; }
  __device__ __forceinline__ Mass mass() const { return sum_; }

 private:
  Mass sum_ = 0;
};

}  // namespace elastic::cuda
