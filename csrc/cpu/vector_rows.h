// Vectors of any dtype and exp, for kernels over rows of floats. Only *_kernel.cpp files include it; each is
// compiled once per instruction set, so everything here has internal linkage.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own AVX-512 intrinsics (bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <math.h>

namespace elastic::cpu {
namespace {

using Vec = at::vec::Vectorized<float>;
constexpr int64_t W = Vec::size();
constexpr int64_t STEP = 2 * W;  // one 16-bit vector is two float vectors
constexpr float LOW = -INFINITY;
constexpr float LOG2_E = 1.44269504f;
constexpr float LN_2 = 0.693147182f;
// 2^t is exactly 0 here and below; bounding t turns 0 * -inf in the entropy into 0.
constexpr float LOWEST_T = -200.0f;

// 2^r on [-1/2, 1/2] with the constant fixed to 1, relative error below 2e-7 in float32.
constexpr float P1 = 0.693147f, P2 = 0.24022242f, P3 = 0.055507336f, P4 = 0.009671513f, P5 = 0.0013264727f;

// 2^t for LOWEST_T <= t < 127: exactly 1 at 0, 0 below the smallest normal number, NaN for NaN and +inf.
// at::vec's exp_u20 spends half its instructions on arguments that cannot occur here.
#if defined(CPU_CAPABILITY_AVX512)
inline Vec exp2_bounded(const Vec& t) {
  const __m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(t, n);
  __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(P5), _mm512_set1_ps(P4));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(P3));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(P2));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(P1));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}
#elif defined(CPU_CAPABILITY_AVX2)
inline Vec exp2_bounded(const Vec& t) {
  const __m256 n = _mm256_round_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 r = _mm256_sub_ps(t, n);
  __m256 p = _mm256_fmadd_ps(r, _mm256_set1_ps(P5), _mm256_set1_ps(P4));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(P3));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(P2));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(P1));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  // 2^n by adding n to the exponent; where that would leave the normal numbers the result is 0, NaN stays.
  const __m256i scaled =
      _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23));
  const __m256 normal = _mm256_cmp_ps(t, _mm256_set1_ps(-125.5f), _CMP_NLT_UQ);
  const __m256 nan = _mm256_cmp_ps(r, r, _CMP_UNORD_Q);
  return _mm256_blendv_ps(_mm256_and_ps(_mm256_castsi256_ps(scaled), normal), r, nan);
}
#else
inline Vec exp2_bounded(const Vec& t) {  // plain arithmetic, which the compiler vectorises
  constexpr float ROUND = 12582912.0f;   // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  float lane[W];
  t.store(lane);
  for (int64_t i = 0; i < W; i++) {
    const float biased = lane[i] + ROUND, r = lane[i] - (biased - ROUND);
    const float p = ((((P5 * r + P4) * r + P3) * r + P2) * r + P1) * r + 1.0f;
    const uint32_t scaled = __builtin_bit_cast(uint32_t, p) + (__builtin_bit_cast(uint32_t, biased) << 23);
    const float value = lane[i] < -125.5f ? 0.0f : __builtin_bit_cast(float, scaled);
    lane[i] = r == r ? value : r;
  }
  return Vec::loadu(lane);
}
#endif

inline float sum_of(const Vec& v) {
  float lane[W];
  v.store(lane);
  float sum = lane[0];
  for (int64_t i = 1; i < W; i++) sum += lane[i];
  return sum;
}

// NaN wins, as a NaN of its own: at::vec's has all bits set, which rounding to bfloat16 would turn into 0.
inline float max_of(const Vec& v) {
  float lane[W];
  v.store(lane);
  float best = lane[0];
  for (int64_t i = 1; i < W; i++) best = lane[i] > best || lane[i] != lane[i] ? lane[i] : best;
  return best == best ? best : NAN;
}

inline void load_pair(const float* p, Vec& a, Vec& b) {
  a = Vec::loadu(p);
  b = Vec::loadu(p + W);
}
template <class T>  // c10::BFloat16 or c10::Half
void load_pair(const T* p, Vec& a, Vec& b) {
  const auto pair = at::vec::convert_to_float<T>(at::vec::Vectorized<T>::loadu(p));
  a = std::get<0>(pair);
  b = std::get<1>(pair);
}
inline void store_pair(float* p, const Vec& a, const Vec& b) {
  a.store(p);
  b.store(p + W);
}
template <class T>
void store_pair(T* p, const Vec& a, const Vec& b) {
  at::vec::convert_from_float<T>(a, b).store(p);
}

// The same 2 W elements in whichever order is cheap, for loops that do not depend on order; store_lanes
// restores it. bfloat16 splits into even and odd elements: two instructions instead of a shuffle.
template <class T>
void load_lanes(const T* p, Vec& a, Vec& b) {
  load_pair(p, a, b);
}
template <class T>
void store_lanes(T* p, const Vec& a, const Vec& b) {
  store_pair(p, a, b);
}

#if defined(CPU_CAPABILITY_AVX512)
inline void load_lanes(const c10::BFloat16* p, Vec& even, Vec& odd) {
  const __m512i both = _mm512_loadu_si512(p);
  even = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
  odd = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
}
// To nearest even by integers. Adding cannot turn a NaN that arithmetic made into an infinity: the low bits
// of its payload are zero.
inline __m512i rounded(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i last = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  return _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), last);
}
inline void store_lanes(c10::BFloat16* p, const Vec& even, const Vec& odd) {
  constexpr int A_OR_B_AND_C = 0xF8;
  _mm512_storeu_si512(
      p, _mm512_ternarylogic_epi32(_mm512_srli_epi32(rounded(even), 16), rounded(odd),
                                   _mm512_set1_epi32(static_cast<int>(0xFFFF0000u)), A_OR_B_AND_C));
}
#elif defined(CPU_CAPABILITY_AVX2)
inline void load_lanes(const c10::BFloat16* p, Vec& even, Vec& odd) {
  const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  even = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
  odd = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xFFFF0000u))));
}
inline __m256i rounded(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  return _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), last);
}
inline void store_lanes(c10::BFloat16* p, const Vec& even, const Vec& odd) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm256_blend_epi16(_mm256_srli_epi32(rounded(even), 16), rounded(odd), 0xAA));
}
#endif

// The last `rest` < STEP elements as a whole step, padded with -inf, which changes no maximum, exp or sum.
template <class T>
void load_rest(const T* p, int64_t rest, Vec& a, Vec& b) {
  float padded[STEP];
  for (int64_t i = 0; i < STEP; i++) padded[i] = i < rest ? static_cast<float>(p[i]) : LOW;
  load_pair(padded, a, b);
}
template <class T>
void store_rest(T* p, int64_t rest, const Vec& a, const Vec& b) {
  T padded[STEP];
  store_pair(padded, a, b);
  for (int64_t i = 0; i < rest; i++) p[i] = padded[i];
}

// The maximum of p[0, n) by lane: an element lies in the lane of `a` or `b` that its place in a step names.
template <class T>
void lane_maxima(const T* p, int64_t n, Vec& a, Vec& b) {
  Vec x, y, a1(LOW), b1(LOW);
  a = b = Vec(LOW);
  int64_t i = 0;
  for (; i + 2 * STEP <= n; i += 2 * STEP) {
    load_pair(p + i, x, y);
    a = at::vec::maximum(a, x);
    b = at::vec::maximum(b, y);
    load_pair(p + i + STEP, x, y);
    a1 = at::vec::maximum(a1, x);
    b1 = at::vec::maximum(b1, y);
  }
  for (; i < n; i += STEP) {
    if (i + STEP <= n)
      load_pair(p + i, x, y);
    else
      load_rest(p + i, n - i, x, y);
    a = at::vec::maximum(a, x);
    b = at::vec::maximum(b, y);
  }
  a = at::vec::maximum(a, a1);
  b = at::vec::maximum(b, b1);
}

}  // namespace
}  // namespace elastic::cpu
