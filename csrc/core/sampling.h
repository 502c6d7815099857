// The arithmetic of drawing a token, the same bits on every device and instruction set (SPEC section 4).
//
// With M the row's largest logit and t the temperature, token i has the integer weight
//     w_i = floor(2^40 exp((x_i - M) / t)).
// Integer sums are exact in any order, so tiles, threads, clusters and vector widths cannot change a total, a
// threshold or a draw. All devices get the same w_i because exp is a polynomial of single precision fused
// multiply-adds, which IEEE 754 fixes to the bit; nothing here may be contracted or reassociated. A token
// less likely than 2^-40 of the likeliest has weight 0 and is never drawn. 2^22 weights sum below 2^63.
//
// The draw is the first token whose cumulated weight exceeds floor(u total). Top-k keeps the tokens with
// x >= the k-th largest logit; top-p those with x >= v, the largest v with sum of w over x >= v reaching
// ceil(p total) of what top-k left; min-p then those with w >= ceil(min_p 2^40). A threshold is a logit, so
// ties are all kept.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/host_device.h"

namespace elastic::sampling {

constexpr int WEIGHT_BITS = 40;
constexpr uint64_t LARGEST_WEIGHT = uint64_t(1) << WEIGHT_BITS;
constexpr int64_t TILE = 2048;  // elements whose weights are summed together on the way to a total
constexpr int64_t LARGEST_VOCAB = 1 << 22;
constexpr float LOWEST_POWER = -62.0f;   // 2^this has weight 0, and is far from denormal
constexpr float ROUNDING = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer

// 2^f = 1 + f (P1 + f (P2 + ...)) on [-1/2, 1/2]: relative error 1.1e-7, and exactly 1 at 0.
constexpr float P1 = 0x1.62e42ap-1f, P2 = 0x1.ebf9bcp-3f, P3 = 0x1.c6b752p-5f, P4 = 0x1.3cea88p-7f,
                P5 = 0x1.5bba14p-10f;

// Single operations that no compiler may fuse with their neighbours.
ELASTIC_HD float subtract(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fsub_rn(a, b);
#else
  return a - b;
#endif
}
ELASTIC_HD float multiply(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
ELASTIC_HD double multiply(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}
ELASTIC_HD double add(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dadd_rn(a, b);
#else
  return a + b;
#endif
}

ELASTIC_HD uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits;
}
ELASTIC_HD float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

// log2(e) / temperature, finite and above 0, so that (x - M) * this is never NaN.
ELASTIC_HD float power_scale(double temperature) {
  const double scale = 1.4426950408889634 / temperature;
  return float(scale > 1e38 ? 1e38 : scale < 1e-37 ? 1e-37 : scale);
}

// fma(a, b, c) in single precision on a processor without one. The product is exact in double; the sum is
// rounded to odd (Boldo and Melquiond 2008), so that rounding it to single is the only rounding that shows.
ELASTIC_HD float fma_by_double(float a, float b, float c) {
  const double product = double(a) * b, sum = product + c;
  const double kept = sum - product, error = (product - (sum - kept)) + (double(c) - kept);
  uint64_t bits;
  memcpy(&bits, &sum, sizeof(bits));
  const uint64_t away = (error > 0) == (sum > 0);  // else the truth lies towards zero from the sum
  bits = error != 0 && (bits & 1) == 0 ? (away ? bits | 1 : bits - 1) : bits;
  double odd;
  memcpy(&odd, &bits, sizeof(odd));
  return float(odd);
}

ELASTIC_HD float fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#elif defined(__FP_FAST_FMAF)
  return __builtin_fmaf(a, b, c);
#else
  return fma_by_double(a, b, c);
#endif
}

// 2^((x - max) scale), about, as a normal float from 2^-63 to 1, for a logit x <= max, both finite or x =
// -inf.
ELASTIC_HD float power(float x, float max, float scale) {
  float y = multiply(subtract(x, max), scale);
  y = y > LOWEST_POWER ? y : LOWEST_POWER;
  const float rounded = y + ROUNDING, n = subtract(rounded, ROUNDING), f = subtract(y, n);
  float p = fused(P5, f, P4);
  p = fused(p, f, P3);
  p = fused(p, f, P2);
  p = fused(p, f, P1);
  p = fused(p, f, 1.0f);
  return float_of(bits_of(p) + (bits_of(rounded) << 23));  // p 2^n: the low bits of `rounded` are n
}

// floor(2^40 p) of such a power, by shifting the 24 bits of its mantissa.
ELASTIC_HD uint64_t weight_of(float power) {
  const uint32_t bits = bits_of(power);
  const uint64_t mantissa = (bits & 0x7FFFFFu) | 0x800000u;
  return (mantissa << (WEIGHT_BITS - 23)) >> (127 - int(bits >> 23));
}

// w of a logit x <= max, both finite or x = -inf.
ELASTIC_HD uint64_t weight(float x, float max, float scale) { return weight_of(power(x, max, scale)); }

// A total order of logits as unsigned integers, equal logits (also 0 and -0) equal.
ELASTIC_HD uint32_t ordered(float x) {
  const uint32_t bits = bits_of(x + 0.0f);
  return bits ^ (uint32_t(int32_t(bits) >> 31) | 0x80000000u);  // no branch: signs cannot be predicted
}
ELASTIC_HD float logit_of(uint32_t key) { return float_of(key ^ (key >> 31 ? 0x80000000u : 0xFFFFFFFFu)); }

ELASTIC_HD uint64_t high_product(uint64_t a, uint64_t b) {
#ifdef __CUDA_ARCH__
  return __umul64hi(a, b);
#else
  return uint64_t((unsigned __int128)a * b >> 64);
#endif
}

// floor(random / 2^53 * total), below total.
ELASTIC_HD uint64_t target_of(uint64_t random53, uint64_t total) {
  return high_product(random53 << 11, total);
}

// The mass that top-p must reach: ceil(p total), from 1 to total.
ELASTIC_HD uint64_t mass_needed(double p, uint64_t total) {
  const double mass = ceil(multiply(p, double(total)));
  return mass < 1 ? 1 : mass < double(total) ? uint64_t(mass) : total;
}

// The smallest weight that min-p keeps; the largest weight always stays.
ELASTIC_HD uint64_t smallest_kept(double min_p) { return uint64_t(ceil(min_p * double(LARGEST_WEIGHT))); }

// log(total / 2^40) for total >= 2^40, within a unit in the last place of double: 2 atanh((m - 1) / (m + 1))
// by its series for the mantissa m in [sqrt(1/2), sqrt(2)]. A libm would differ between devices.
ELASTIC_HD double log_mass(uint64_t total) {
  int exponent = 0;
  double m = multiply(double(total), 0x1p-40);
  while (m > 1.4142135623730951) {
    m *= 0.5;
    exponent++;
  }
  const double s = add(m, -1.0) / add(m, 1.0), q = multiply(s, s);
  double series = 1.0 / 23;
  for (int k = 21; k > 0; k -= 2) series = add(multiply(series, q), 1.0 / k);
  return add(multiply(exponent, 0.6931471805599453), multiply(multiply(2.0, s), series));
}

// Logprob of a logit under weights that sum to total; never above 0.
ELASTIC_HD float logprob(float x, float max, double temperature, uint64_t total) {
  return float(add(add(x, -double(max)) / temperature, -log_mass(total)));
}

}  // namespace elastic::sampling
