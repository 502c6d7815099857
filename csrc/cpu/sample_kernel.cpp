// Row kernels of sampling, compiled once per instruction set, without contraction (CMakeLists.txt): every set
// computes the weights of core/sampling.h to the bit.
//
// A row is read from memory once for its maximum and then from the cache for its weights: 4 (float32) or 2
// bytes per element from memory.
#include "cpu/sample_kernel.h"

#include "core/sampling.h"
#include "cpu/vector_rows.h"

namespace elastic::cpu {
namespace {

namespace sampling = elastic::sampling;
using sampling::TILE;

// Weights of one vector, and sums of them.
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)

#ifdef CPU_CAPABILITY_AVX512
using Whole = __m512i;  // 8 x 64 bits
Whole zero() { return _mm512_setzero_si512(); }
Whole plus(Whole a, Whole b) { return _mm512_add_epi64(a, b); }
void store(uint64_t* at, Whole w) { _mm512_storeu_si512(at, w); }

// 2^40 2^y as floats, y = (x - max) scale.
__m512 powers(__m512 x, __m512 max, __m512 scale) {
  const __m512 y =
      _mm512_max_ps(_mm512_mul_ps(_mm512_sub_ps(x, max), scale), _mm512_set1_ps(sampling::LOWEST_POWER));
  const __m512 n = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(y, n);
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(sampling::P5), f, _mm512_set1_ps(sampling::P4));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(sampling::P3));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(sampling::P2));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(sampling::P1));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, _mm512_add_ps(n, _mm512_set1_ps(float(sampling::WEIGHT_BITS))));
}
void to_whole(__m512 v, Whole& low, Whole& high) {
  low = _mm512_cvttps_epi64(_mm512_castps512_ps256(v));
  high = _mm512_cvttps_epi64(_mm512_extractf32x8_ps(v, 1));
}
#else
using Whole = __m256i;  // 4 x 64 bits
Whole zero() { return _mm256_setzero_si256(); }
Whole plus(Whole a, Whole b) { return _mm256_add_epi64(a, b); }
void store(uint64_t* at, Whole w) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), w); }

__m256 powers(__m256 x, __m256 max, __m256 scale) {
  const __m256 y =
      _mm256_max_ps(_mm256_mul_ps(_mm256_sub_ps(x, max), scale), _mm256_set1_ps(sampling::LOWEST_POWER));
  const __m256 n = _mm256_round_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 f = _mm256_sub_ps(y, n);
  __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(sampling::P5), f, _mm256_set1_ps(sampling::P4));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(sampling::P3));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(sampling::P2));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(sampling::P1));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(sampling::WEIGHT_BITS));
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(exponent, 23)));
}
// No conversion to 64-bit integers here: adding 2^52 to an integer double leaves it in the low bits.
Whole to_whole(__m128 floored) {
  const __m256d magic = _mm256_set1_pd(0x1p52);
  const __m256d sum = _mm256_add_pd(_mm256_cvtps_pd(floored), magic);
  return _mm256_xor_si256(_mm256_castpd_si256(sum), _mm256_castpd_si256(magic));
}
void to_whole(__m256 v, Whole& low, Whole& high) {
  const __m256 floored = _mm256_floor_ps(v);
  low = to_whole(_mm256_castps256_ps128(floored));
  high = to_whole(_mm256_extractf128_ps(floored, 1));
}
#endif

struct Row {  // what the weights of a row are relative to
  Vec max, scale;
  Row(float max, float scale) : max(max), scale(scale) {}
};

struct Sum {
  Whole low = zero(), high = zero();
  void add(const Vec& x, const Row& row) {
    Whole a, b;
    to_whole(powers(x, row.max, row.scale), a, b);
    low = plus(low, a);
    high = plus(high, b);
  }
  uint64_t total() const {
    uint64_t lane[W];
    store(lane, low);
    store(lane + W / 2, high);
    uint64_t sum = 0;
    for (int64_t i = 0; i < W; i++) sum += lane[i];
    return sum;
  }
};

void store_weights(const Vec& x, const Row& row, uint64_t* out) {
  Whole low, high;
  to_whole(powers(x, row.max, row.scale), low, high);
  store(out, low);
  store(out + W / 2, high);
}

#else

struct Row {
  float max, scale;
};

void store_weights(const Vec& x, const Row& row, uint64_t* out) {
  float lane[W];
  x.store(lane);
  for (int64_t i = 0; i < W; i++) out[i] = sampling::weight(lane[i], row.max, row.scale);
}

struct Sum {
  uint64_t sum = 0;
  void add(const Vec& x, const Row& row) {
    uint64_t lane[W];
    store_weights(x, row, lane);
    for (int64_t i = 0; i < W; i++) sum += lane[i];
  }
  uint64_t total() const { return sum; }
};

#endif

static_assert(W == TILE_GROUPS || 2 * W <= TILE_GROUPS);

template <class T>
float maximum(const T* row, int64_t n, float* maxima) {
  Vec all(LOW);
  for (int64_t begin = 0; begin < n; begin += TILE, maxima += TILE_GROUPS) {
    const int64_t end = n - begin < TILE ? n : begin + TILE;
    Vec m0, m1;
    lane_maxima(row + begin, end - begin, m0, m1);
    if constexpr (W == TILE_GROUPS) {
      m0 = at::vec::maximum(m0, m1);
      m0.store(maxima);
      all = at::vec::maximum(all, m0);
    } else {
      m0.store(maxima);
      m1.store(maxima + W);
      for (int64_t group = 2 * W; group < TILE_GROUPS; group++) maxima[group] = LOW;
      all = at::vec::maximum(all, at::vec::maximum(m0, m1));
    }
  }
  return max_of(all);
}

template <class T>
void tile_sums(const T* row, int64_t n, float max, float scale, uint64_t* sums) {
  const Row reference{max, scale};
  for (int64_t begin = 0; begin < n; begin += TILE) {
    const int64_t end = n - begin < TILE ? n : begin + TILE;
    Sum first, second;
    Vec a, b;
    for (int64_t i = begin; i < end; i += STEP) {
      if (i + STEP <= end)
        load_pair(row + i, a, b);
      else
        load_rest(row + i, end - i, a, b);
      first.add(a, reference);
      second.add(b, reference);
    }
    *sums++ = first.total() + second.total();
  }
}

template <class T>
int64_t gather(const T* row, int64_t n, int32_t first_id, float low, float high, float* values,
               int32_t* ids) {
  int64_t count = 0, i = 0;
#ifdef CPU_CAPABILITY_AVX512
  const __m512 least = _mm512_set1_ps(low), above = _mm512_set1_ps(high);
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const auto append = [&](__m512 x, int64_t at) {
    const __mmask16 kept =
        _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(x, least, _CMP_GE_OQ), x, above, _CMP_LT_OQ);
    const __m512i id = _mm512_add_epi32(lanes, _mm512_set1_epi32(first_id + int32_t(at)));
    // Compressing in a register and storing all of it beats a compressing store.
    _mm512_storeu_ps(values + count, _mm512_maskz_compress_ps(kept, x));
    _mm512_storeu_si512(ids + count, _mm512_maskz_compress_epi32(kept, id));
    count += __builtin_popcount(kept);
  };
  Vec a, b;
  for (; i + STEP <= n; i += STEP) {
    load_pair(row + i, a, b);
    append(a, i);
    append(b, i + W);
  }
#endif
  for (; i < n; i++) {  // no branch: where many pass it could not be predicted
    const float x = static_cast<float>(row[i]);
    values[count] = x;
    ids[count] = first_id + int32_t(i);
    count += (x >= low) & (x < high);
  }
  return count;
}

void weights(const float* values, int64_t n, float max, float scale, uint64_t* out) {
  const Row reference{max, scale};
  int64_t i = 0;
  for (; i + W <= n; i += W) store_weights(Vec::loadu(values + i), reference, out + i);
  for (; i < n; i++) out[i] = sampling::weight(values[i], max, scale);
}

template <class T>
constexpr SampleRowKernels<T> row_kernels_of() {
  return {maximum<T>, tile_sums<T>, gather<T>};
}

}  // namespace

extern const SampleKernels ELASTIC_ISA_SYMBOL(sample_kernels){
    row_kernels_of<float>(), row_kernels_of<c10::BFloat16>(), row_kernels_of<c10::Half>(), weights};

}  // namespace elastic::cpu
