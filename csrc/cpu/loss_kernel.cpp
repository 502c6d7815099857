// Row kernels of the loss ops, compiled once per instruction set.
//
// A row is read from memory once, in blocks of 4,096 elements: e = 2^t, sum e and sum e t in one pass, with t
// relative to a shift found in the row's first block. A block that exceeds the shift by much is done again,
// relative to its own maximum; with a model's logits that happens once or twice per row at most. Storing e
// leaves one multiplication per element for the gradient, with one factor per block. Bytes per element,
// forward and gradient: read 4 + write 4 (float32), read 2 + write 2 (16 bits).
//
// exp errs by a few ulp, which sums average out; tests compare the op with float64. No std:: templates here:
// the linker could keep an inline function compiled for AVX-512 for all instruction sets.
#include "cpu/loss_kernel.h"

#include "cpu/vector_rows.h"

namespace elastic::cpu {
namespace {

// How far t may rise above 0 before a block is done again: the rounding of t grows with it.
constexpr float HEADROOM = 8;

// How far ahead of the arithmetic memory is fetched; the hardware's own prefetcher stops at page ends.
constexpr int64_t AHEAD_BYTES = 4096;
constexpr int64_t LINE_BYTES = 64;

template <class T>
float block_maximum(const T* p, int64_t n) {
  Vec a, b;
  lane_maxima(p, n, a, b);
  return max_of(at::vec::maximum(a, b));
}

struct BlockSums {
  float max;   // of x; a NaN may be missed here, and shows in the sums
  float exps;  // sum e
  float logs;  // sum e t
};

// One vector's share: e = 2^t, t = (x - shift) scale, and the sums.
struct Accumulator {
  Vec max = Vec(LOW), exps = Vec(0.f), logs = Vec(0.f);
  Vec add(const Vec& x, const Vec& shift, const Vec& scale) {
    max = at::vec::clamp_min(x, max);
    const Vec t = at::vec::clamp_min((x - shift) * scale, Vec(LOWEST_T));
    const Vec e = exp2_bounded(t);
    exps = exps + e;
    logs = at::vec::fmadd(e, t, logs);
    return e;
  }
  void add(const Accumulator& other) {
    max = at::vec::clamp_min(other.max, max);
    exps = exps + other.exps;
    logs = logs + other.logs;
  }
};

// With STORE, out gets the exps, in the order of lanes that scale_exps expects.
template <bool STORE, class T>
BlockSums block_sums(const T* p, int64_t n, float shift, float scale, float* out) {
  const Vec vshift(shift), vscale(scale);
  Accumulator s0, s1, s2, s3;
  Vec a, b;
  int64_t i = 0;
  for (; i + 2 * STEP <= n; i += 2 * STEP) {
    Vec c, d;
    for (int64_t byte = 0; byte < static_cast<int64_t>(2 * STEP * sizeof(T)); byte += LINE_BYTES)
      __builtin_prefetch(reinterpret_cast<const char*>(p + i) + AHEAD_BYTES + byte);
    load_lanes(p + i, a, b);
    load_lanes(p + i + STEP, c, d);
    a = s0.add(a, vshift, vscale);
    b = s1.add(b, vshift, vscale);
    c = s2.add(c, vshift, vscale);
    d = s3.add(d, vshift, vscale);
    if constexpr (STORE) {
      store_pair(out + i, a, b);
      store_pair(out + i + STEP, c, d);
    }
  }
  for (; i < n; i += STEP) {
    const bool whole = i + STEP <= n;
    if (whole)
      load_lanes(p + i, a, b);
    else
      load_rest(p + i, n - i, a, b);
    a = s0.add(a, vshift, vscale);
    b = s1.add(b, vshift, vscale);
    if constexpr (STORE) {
      if (whole)
        store_pair(out + i, a, b);
      else
        store_rest(out + i, n - i, a, b);
    }
  }
  s0.add(s1);
  s2.add(s3);
  s0.add(s2);
  return {max_of(s0.max), sum_of(s0.exps), sum_of(s0.logs)};
}

// Joins blocks in index order, in double: sums relative to one shift, in units of x.
struct RowSums {
  double shift = 0, exps = 0, logs = 0;
  float max = LOW;

  void move(double to, double scale) {
    const double rise = (shift - to) * scale, factor = ::exp2(rise);
    logs = exps > 0 ? (logs + rise * exps) * factor : 0;  // at first there is nothing to move, and no shift
    exps = exps > 0 ? exps * factor : 0;
    shift = to;
  }
  void add(const BlockSums& block) {
    exps += double(block.exps);
    logs += double(block.logs);
    max = block.max > max ? block.max : max;
  }
  // NaN in every field for NaN, +inf, or nothing but -inf.
  RowStats<float> stats(double inv_temperature) const {
    if (!(exps > 0)) return {NAN, NAN, NAN};
    const double drop = (shift - double(max)) * inv_temperature, log_sum = ::log(exps) + drop;
    return {max, float(log_sum < 0 ? 0 : log_sum), float(double(LN_2) * logs / exps + drop)};
  }
};

template <class T>
RowStats<float> stats(const T* row, int64_t n, float inv_temperature, float* exps, float* shifts) {
  const float scale = inv_temperature * LOG2_E;
  RowSums sums;
  bool started = false;  // whether anything above -inf was seen
  // In place a block may have to be read again, so its exps wait here until it is accepted.
  const bool in_place = static_cast<const void*>(exps) == static_cast<const void*>(row);
  alignas(64) float held[LOSS_BLOCK];
  for (int64_t begin = 0, block = 0; begin < n; begin += LOSS_BLOCK, block++) {
    const int64_t length = n - begin < LOSS_BLOCK ? n - begin : LOSS_BLOCK;
    const auto sums_at = [&](float shift) {
      return exps != nullptr
                 ? block_sums<true>(row + begin, length, shift, scale, in_place ? held : exps + begin)
                 : block_sums<false>(row + begin, length, shift, scale, nullptr);
    };
    if (!started) {
      const float max = block_maximum(row + begin, length);
      started = max != LOW;
      sums.shift = started ? double(max) : 0;  // -inf - 0, not -inf + inf
    }
    BlockSums found = sums_at(static_cast<float>(sums.shift));
    if ((found.max - static_cast<float>(sums.shift)) * scale > HEADROOM) {
      sums.move(double(found.max), double(scale));
      found = sums_at(found.max);
    }
    sums.add(found);
    if (in_place) __builtin_memcpy(exps + begin, held, length * sizeof(float));
    if (exps != nullptr) shifts[block] = started ? static_cast<float>(sums.shift) : LOW;
  }
  return sums.stats(double(inv_temperature));
}

template <class T>
void scale_exps(const float* exps, const float* shifts, int64_t n, float inv_temperature,
                const RowStats<float>& stats, float factor, T* out) {
  for (int64_t begin = 0, block = 0; begin < n; begin += LOSS_BLOCK, block++) {
    const int64_t end = n - begin < LOSS_BLOCK ? n : begin + LOSS_BLOCK;
    const Vec f(factor * ::expf((shifts[block] - stats.max) * inv_temperature - stats.log_sum));
    Vec a, b;
    int64_t i = begin;
    for (; i + STEP <= end; i += STEP) {
      load_pair(exps + i, a, b);
      store_lanes(out + i, a * f, b * f);
    }
    if (i < end) {
      load_rest(exps + i, end - i, a, b);
      store_rest(out + i, end - i, a * f, b * f);
    }
  }
}

template <class T>
void gradient(const T* row, int64_t n, float inv_temperature, float max, float log_sum, float a, float b,
              T* out) {
  const Vec inv(inv_temperature), shift(max), norm(-log_sum), va(a), vb(b);
  // p (a + b log p), 0 where p is 0
  const auto slope = [&](const Vec& x) {
    const Vec logp = at::vec::clamp_min(at::vec::fmadd(x - shift, inv, norm), Vec(LOWEST_T * LN_2));
    return exp2_bounded(logp * Vec(LOG2_E)) * at::vec::fmadd(vb, logp, va);
  };
  Vec x, y;
  int64_t i = 0;
  for (; i + STEP <= n; i += STEP) {
    load_lanes(row + i, x, y);
    store_lanes(out + i, slope(x), slope(y));
  }
  if (i < n) {
    load_rest(row + i, n - i, x, y);
    store_rest(out + i, n - i, slope(x), slope(y));
  }
}

// float64 is there for gradcheck: plain loops. The largest element is kept apart from the sum of the others,
// which would lose its digits beside it where a token is almost certain.
RowStats<double> stats_f64(const double* row, int64_t n, double inv_temperature, double* exps,
                           double* shifts) {
  int64_t largest = 0;
  for (int64_t i = 1; i < n; i++)
    if (row[i] > row[largest] || row[i] != row[i]) largest = i;
  const double max = row[largest];
  if (!(max > -INFINITY && max < INFINITY)) return {NAN, NAN, NAN};
  double others = 0, mean = 0;
  for (int64_t i = 0; i < n; i++) {
    const double z = (row[i] - max) * inv_temperature, e = ::exp(z);
    if (i != largest) others += e;
    mean += e > 0 ? e * z : 0;
    if (exps != nullptr) exps[i] = e;
  }
  if (exps != nullptr)
    for (int64_t block = 0; block < loss_blocks(n); block++) shifts[block] = max;
  return {max, ::log1p(others), mean / (1 + others)};
}

void scale_exps_f64(const double* exps, const double* shifts, int64_t n, double inv_temperature,
                    const RowStats<double>& stats, double factor, double* out) {
  const double f = factor * ::exp((shifts[0] - stats.max) * inv_temperature - stats.log_sum);
  for (int64_t i = 0; i < n; i++) out[i] = exps[i] * f;
}

void gradient_f64(const double* row, int64_t n, double inv_temperature, double max, double log_sum, double a,
                  double b, double* out) {
  for (int64_t i = 0; i < n; i++) {
    const double logp = (row[i] - max) * inv_temperature - log_sum, p = ::exp(logp);
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
