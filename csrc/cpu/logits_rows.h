// Walks rows of logits of any dtype with the kernels of this machine's instruction set.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "core/loss_params.h"
#include "cpu/loss_kernel.h"

namespace elastic::cpu {

// Kernels for T = float, c10::BFloat16 or double.
inline const RowKernels<float, float>& row_kernels(float) { return ELASTIC_SELECT(loss_kernels).f32; }
inline const RowKernels<c10::BFloat16, float>& row_kernels(c10::BFloat16) {
  return ELASTIC_SELECT(loss_kernels).bf16;
}
inline const RowKernels<double, double>& row_kernels(double) { return ELASTIC_SELECT(loss_kernels).f64; }

// Calls fn(T{}) with the C++ type of the logits. Float accumulators serve float32 and bfloat16.
template <class Fn>
void with_logits_type(const LogitsView<float>& view, Fn fn) {
  if (view.dtype == Scalar::BF16)
    fn(c10::BFloat16{});
  else
    fn(float{});
}
template <class Fn>
void with_logits_type(const LogitsView<double>&, Fn fn) {
  fn(double{});
}

template <class T, class A>
const T* row_of(const LogitsView<A>& view, int64_t token) {
  return static_cast<const T*>(view.logits) + token * view.row_stride;
}

template <class A>
A inv_temperature(const LogitsView<A>& view, int64_t token) {
  return view.temperatures != nullptr ? 1 / view.temperatures[token] : A(1 / view.temperature);
}

// The logprob of x = the target's logit. At most 0: the maximum is exact and log_sum is never negative.
template <class A>
A target_logprob(const RowStats<A>& stats, A x, A inv) {
  return (x - stats.max) * inv - stats.log_sum;
}

template <class A>
A logsumexp(const RowStats<A>& stats, A inv) {
  return stats.max * inv + stats.log_sum;
}

// d/dx of l * d_logprob + H * d_entropy for one row, given its logsumexp:
//   ((x == target) - p) d_logprob - p (log p + H) d_entropy, over the temperature.
// The target's logit must have been read before if out is the row: `logprob` is passed in.
template <class T, class A>
void write_gradient(const T* row, int64_t vocab, int64_t target, A inv, A lse, A logprob, A entropy,
                    A d_logprob, A d_entropy, T* out) {
  const A a = -(d_logprob + d_entropy * entropy) * inv, b = -d_entropy * inv;
  row_kernels(T{}).gradient(row, vocab, inv, lse, a, b, out);
  const A p = std::exp(logprob), entropy_part = p > 0 ? p * (entropy + logprob) * d_entropy : A(0);
  out[target] = static_cast<T>((-std::expm1(logprob) * d_logprob - entropy_part) * inv);
}

template <class T>
void write_zeros(T* out, int64_t vocab) {
  std::memset(static_cast<void*>(out), 0, static_cast<size_t>(vocab) * sizeof(T));
}

// How many tokens a thread should take at least: about 64k elements, well above the cost of waking it.
inline int64_t token_grain(int64_t vocab) { return vocab > 65536 ? 1 : 65536 / (vocab > 0 ? vocab : 1); }

}  // namespace elastic::cpu
