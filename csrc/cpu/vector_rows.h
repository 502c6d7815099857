// What kernels that walk rows of floats share: vectors of any dtype, and exp. Only *_kernel.cpp files include
// it, each of which is compiled once per instruction set, so everything here has internal linkage.
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
// exp is exactly 0 here and below; bounding z turns 0 * -inf in the entropy into 0.
constexpr float LOWEST_Z = -200.0f;

// exp of LOWEST_Z <= z <= about 0, exactly 1 at 0. exp_u20 spends half its instructions on arguments that
// cannot occur here and on building 2^n by integers, which AVX-512 does in one: the whole op runs 1.3 times
// faster.
inline Vec exp_bounded(const Vec& z) {
#ifdef CPU_CAPABILITY_AVX512
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(z, _mm512_set1_ps(1.44269504f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693147182f), z);
  // exp(r) on [-ln 2 / 2, ln 2 / 2] with the constant fixed to 1, relative error below 1.4e-7
  __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(8.290272e-3f), _mm512_set1_ps(4.1898161e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6667639e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.9999148e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.999997e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
#else
  return z.exp_u20();
#endif
}

inline float sum_of(const Vec& v) {
  float lane[W];
  v.store(lane);
  float sum = lane[0];
  for (int64_t i = 1; i < W; i++) sum += lane[i];
  return sum;
}

inline float max_of(const Vec& v) {  // NaN wins
  float lane[W];
  v.store(lane);
  float best = lane[0];
  for (int64_t i = 1; i < W; i++) best = lane[i] > best || lane[i] != lane[i] ? lane[i] : best;
  return best;
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

// The last `rest` < STEP elements as a whole step, filled up with -inf: maximum, exp and sums pass over
// those.
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

}  // namespace
}  // namespace elastic::cpu
