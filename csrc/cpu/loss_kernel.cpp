// Row kernels of the loss ops, compiled once per instruction set.
//
// A row is cut into blocks of 4,096 elements, which stay in L1 while they are visited twice: maximum, then
// exp / sum / entropy. Storing exp(z - block max) leaves one multiplication an element for the gradient, with
// one factor a block, so the whole op costs one exp an element and a row is read from memory once. Bytes per
// element, forward and gradient: read 4 + write 4 (float32), read 2 + write 2 (16 bits).
//
// exp errs by a few ulp; the sums average that out, and the tests hold the op to float64. No std::
// templates here: an inline function compiled for AVX-512 could be the copy the linker keeps for everybody.
#include "cpu/loss_kernel.h"

#include "cpu/vector_rows.h"

namespace elastic::cpu {
namespace {

template <class T>
float block_maximum(const T* p, int64_t n) {
  Vec a, b, m0(LOW), m1(LOW), m2(LOW), m3(LOW);
  int64_t i = 0;
  for (; i + 2 * STEP <= n; i += 2 * STEP) {
    load_pair(p + i, a, b);
    m0 = at::vec::maximum(m0, a);
    m1 = at::vec::maximum(m1, b);
    load_pair(p + i + STEP, a, b);
    m2 = at::vec::maximum(m2, a);
    m3 = at::vec::maximum(m3, b);
  }
  for (; i < n; i += STEP) {
    if (i + STEP <= n)
      load_pair(p + i, a, b);
    else
      load_rest(p + i, n - i, a, b);
    m0 = at::vec::maximum(m0, a);
    m1 = at::vec::maximum(m1, b);
  }
  return max_of(at::vec::maximum(at::vec::maximum(m0, m1), at::vec::maximum(m2, m3)));
}

struct BlockSums {
  float exps;     // sum e
  float entropy;  // sum e z
};

// One vector's share: e = exp((x - max) / temperature), and the two sums.
struct Accumulator {
  Vec exps = Vec(0.f), entropy = Vec(0.f);
  Vec add(const Vec& x, const Vec& shift, const Vec& inv_temperature) {
    const Vec z = at::vec::clamp_min((x - shift) * inv_temperature, Vec(LOWEST_Z));
    const Vec e = exp_bounded(z);
    exps = exps + e;
    entropy = at::vec::fmadd(e, z, entropy);
    return e;
  }
};

template <bool STORE, class T>
BlockSums block_sums(const T* p, int64_t n, float shift, float inv_temperature, float* out) {
  const Vec vshift(shift), vinv(inv_temperature);
  Accumulator s0, s1, s2, s3;
  Vec a, b;
  int64_t i = 0;
  for (; i + 2 * STEP <= n; i += 2 * STEP) {
    Vec c, d;
    load_pair(p + i, a, b);
    load_pair(p + i + STEP, c, d);
    a = s0.add(a, vshift, vinv);
    b = s1.add(b, vshift, vinv);
    c = s2.add(c, vshift, vinv);
    d = s3.add(d, vshift, vinv);
    if constexpr (STORE) {
      store_pair(out + i, a, b);
      store_pair(out + i + STEP, c, d);
    }
  }
  for (; i < n; i += STEP) {
    const bool whole = i + STEP <= n;
    if (whole)
      load_pair(p + i, a, b);
    else
      load_rest(p + i, n - i, a, b);
    a = s0.add(a, vshift, vinv);
    b = s1.add(b, vshift, vinv);
    if constexpr (STORE) {
      if (whole)
        store_pair(out + i, a, b);
      else
        store_rest(out + i, n - i, a, b);
    }
  }
  return {sum_of((s0.exps + s1.exps) + (s2.exps + s3.exps)),
          sum_of((s0.entropy + s1.entropy) + (s2.entropy + s3.entropy))};
}

// Joins blocks in index order: sums relative to the running maximum, in double (38 blocks a row).
struct Merge {
  double max = -INFINITY, exps = 0, entropy = 0;
  bool bad = false;  // NaN or +inf was seen

  void add(double block_max, double block_exps, double block_entropy, double inv_temperature) {
    if (!(block_max < INFINITY)) bad = true;
    if (bad || block_max == -INFINITY) return;
    if (max == -INFINITY) {
      max = block_max, exps = block_exps, entropy = block_entropy;
    } else if (block_max > max) {
      const double z = (max - block_max) * inv_temperature, f = ::exp(z);
      entropy = (entropy + z * exps) * f + block_entropy;
      exps = exps * f + block_exps;
      max = block_max;
    } else {
      const double z = (block_max - max) * inv_temperature, f = ::exp(z);
      entropy += (block_entropy + z * block_exps) * f;
      exps += block_exps * f;
    }
  }

  template <class A>
  RowStats<A> stats() const {
    if (bad || max == -INFINITY) return {A(NAN), A(NAN), A(NAN)};
    return {A(max), A(::log(exps)), A(entropy / exps)};
  }
};

template <class T>
RowStats<float> stats(const T* row, int64_t n, float inv_temperature, float* exps, float* block_max) {
  Merge merge;
  for (int64_t begin = 0, block = 0; begin < n; begin += LOSS_BLOCK, block++) {
    const int64_t length = n - begin < LOSS_BLOCK ? n - begin : LOSS_BLOCK;
    const float max = block_maximum(row + begin, length);
    const float shift = max == LOW ? 0.f : max;  // a block of -inf: exp(-inf - 0), not exp(-inf + inf)
    BlockSums sums;
    if (exps != nullptr) {
      sums = block_sums<true>(row + begin, length, shift, inv_temperature, exps + begin);
      block_max[block] = max;
    } else {
      sums = block_sums<false>(row + begin, length, shift, inv_temperature, nullptr);
    }
    merge.add(max, sums.exps, sums.entropy, inv_temperature);
  }
  return merge.stats<float>();
}

template <class T>
void scale_exps(const float* exps, const float* block_max, int64_t n, float inv_temperature,
                const RowStats<float>& stats, float factor, T* out) {
  for (int64_t begin = 0, block = 0; begin < n; begin += LOSS_BLOCK, block++) {
    const int64_t end = n - begin < LOSS_BLOCK ? n : begin + LOSS_BLOCK;
    const Vec f(factor * ::expf((block_max[block] - stats.max) * inv_temperature - stats.log_sum));
    Vec a, b;
    int64_t i = begin;
    for (; i + STEP <= end; i += STEP) {
      load_pair(exps + i, a, b);
      store_pair(out + i, a * f, b * f);
    }
    if (i < end) {
      load_rest(exps + i, end - i, a, b);
      store_rest(out + i, end - i, a * f, b * f);
    }
  }
}

template <class T>
void gradient(const T* row, int64_t n, float inv_temperature, float logsumexp, float a, float b, T* out) {
  const Vec inv(inv_temperature), shift(-logsumexp), va(a), vb(b), lowest(LOWEST_Z);
  // p (a + b log p), 0 where p is 0
  const auto slope = [&](const Vec& x) {
    const Vec logp = at::vec::clamp_min(at::vec::fmadd(x, inv, shift), lowest);
    return exp_bounded(logp) * at::vec::fmadd(vb, logp, va);
  };
  Vec x, y;
  int64_t i = 0;
  for (; i + STEP <= n; i += STEP) {
    load_pair(row + i, x, y);
    store_pair(out + i, slope(x), slope(y));
  }
  if (i < n) {
    load_rest(row + i, n - i, x, y);
    store_rest(out + i, n - i, slope(x), slope(y));
  }
}

// float64 serves gradcheck: plain loops.
RowStats<double> stats_f64(const double* row, int64_t n, double inv_temperature, double* exps,
                           double* block_max) {
  double max = -INFINITY, sum = 0, entropy = 0;
  for (int64_t i = 0; i < n; i++) max = row[i] > max || row[i] != row[i] ? row[i] : max;
  for (int64_t i = 0; i < n && max > -INFINITY && max < INFINITY; i++) {
    const double z = (row[i] - max) * inv_temperature, e = ::exp(z);
    sum += e;
    entropy += e > 0 ? e * z : 0;
    if (exps != nullptr) exps[i] = e;
  }
  if (exps != nullptr)
    for (int64_t block = 0; block < loss_blocks(n); block++) block_max[block] = max;
  Merge merge;
  merge.add(max, sum, entropy, inv_temperature);
  return merge.stats<double>();
}

void scale_exps_f64(const double* exps, const double* block_max, int64_t n, double inv_temperature,
                    const RowStats<double>& stats, double factor, double* out) {
  const double f = factor * ::exp((block_max[0] - stats.max) * inv_temperature - stats.log_sum);
  for (int64_t i = 0; i < n; i++) out[i] = exps[i] * f;
}

void gradient_f64(const double* row, int64_t n, double inv_temperature, double logsumexp, double a, double b,
                  double* out) {
  for (int64_t i = 0; i < n; i++) {
    const double logp = row[i] * inv_temperature - logsumexp, p = ::exp(logp);
    out[i] = p == 0 ? 0 : p * (a + b * logp);
  }
}

}  // namespace

extern const LossKernels ELASTIC_ISA_SYMBOL(loss_kernels){
    {stats<float>, scale_exps<float>, gradient<float>},
    {stats<c10::BFloat16>, scale_exps<c10::BFloat16>, gradient<c10::BFloat16>},
    {stats<c10::Half>, scale_exps<c10::Half>, gradient<c10::Half>},
    {stats_f64, scale_exps_f64, gradient_f64}};

}  // namespace elastic::cpu
