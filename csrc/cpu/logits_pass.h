// The logits pass on the CPU: tokens' logits of any dtype with the kernels of this machine's instruction set.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "core/loss_params.h"
#include "cpu/loss_kernel.h"
#include "cpu/softcap_kernel.h"

namespace elastic::cpu {

// The member of a table of kernels for T = float, c10::BFloat16, c10::Half or double.
template <class Table>
const auto& for_type(const Table& table, float) {
  return table.f32;
}
template <class Table>
const auto& for_type(const Table& table, c10::BFloat16) {
  return table.bf16;
}
template <class Table>
const auto& for_type(const Table& table, c10::Half) {
  return table.f16;
}
template <class Table>
const auto& for_type(const Table& table, double) {
  return table.f64;
}

// Calls fn(T{}) with the C++ type of the logits; A as in loss_params.h.
template <class A, class Fn>
void with_logits_type(Scalar dtype, Fn fn) {
  if constexpr (sizeof(A) == sizeof(double)) {
    fn(double{});
  } else {
    switch (dtype) {
      case Scalar::BF16:
        return fn(c10::BFloat16{});
      case Scalar::F16:
        return fn(c10::Half{});
      default:
        fn(float{});
    }
  }
}

template <class T>
const T* row_of(const LogitsChunk& chunk, int64_t i) {
  return static_cast<const T*>(chunk.logits) + i * chunk.row_stride;
}

template <class T>
T* gradient_row(const LogitsChunk& chunk, int64_t i) {
  return chunk.gradient == nullptr ? nullptr : static_cast<T*>(chunk.gradient) + i * chunk.gradient_stride;
}

template <class A>
A inv_temperature(const Softmax<A>& softmax, int64_t token) {
  return softmax.temperatures != nullptr ? 1 / softmax.temperatures[token] : A(1 / softmax.temperature);
}

template <class T>
void write_zeros(T* out, int64_t vocab) {
  std::memset(static_cast<void*>(out), 0, static_cast<size_t>(vocab) * sizeof(T));
}

// A row's distribution: p = exp((x - max) / temperature - log_sum).
template <class A>
struct RowSummary {
  A max;  // of the capped logits
  A log_sum;
  A entropy;
};

// At most 0: the maximum is exact, log_sum never negative. Halves, because finite logits can be further apart
// than the largest float.
template <class A>
A logprob_of(const RowSummary<A>& row, A x, A inv_temperature) {
  return (x / 2 - row.max / 2) * (2 * inv_temperature) - row.log_sum;
}

template <class A>
struct TargetStats {
  A logprob;
  RowSummary<A> row;
};

// A row of floats aligned to cache lines: stores that straddle two lines take a fifth of the whole op's time.
template <class A>
class ScratchRow {
 public:
  A* resize(int64_t n) {  // the same size again keeps the contents
    constexpr size_t LINE_BYTES = 64;
    memory_.resize(static_cast<size_t>(n) * sizeof(A) + LINE_BYTES);
    void* at = memory_.data();
    size_t room = memory_.size();
    return data_ = static_cast<A*>(std::align(LINE_BYTES, static_cast<size_t>(n) * sizeof(A), at, room));
  }
  A* data() const { return data_; }

 private:
  std::vector<char> memory_;
  A* data_ = nullptr;
};

// One thread's pass over tokens' logits; owns the scratch rows that 16-bit logits, a soft cap and kept sets
// need. T is how logits lie in memory, A how they are computed.
template <class T, class A>
class LogitsPass {
 public:
  explicit LogitsPass(const Softmax<A>& softmax)
      : softmax_(softmax),
        kernels_(for_type(ELASTIC_SELECT(loss_kernels), T{})),
        computed_(for_type(ELASTIC_SELECT(loss_kernels), A{})),
        softcap_(for_type(ELASTIC_SELECT(softcap_kernels), T{})) {}

  // With `out`, exps are stored, there or in scratch, for write_stored(); out may be the row.
  TargetStats<A> read(const T* row, int64_t token, T* out = nullptr) {
    const Support& on = read_ = support(row, token);
    const A inv = inv_temperature(softmax_, token);
    A* exps = out != nullptr ? exps_for(on, out) : nullptr;
    A x;
    if (is_capped()) {
      const A* z = capped(on);
      x = z[on.target];
      stats_ = computed_.stats(z, on.n, inv, exps, shifts_.data());
    } else {
      x = static_cast<A>(on.row[on.target]);  // before exps overwrite it
      stats_ = kernels_.stats(on.row, on.n, inv, exps, shifts_.data());
    }
    const RowSummary<A> summary{stats_.max, stats_.log_sum, stats_.log_sum - stats_.mean};
    return {logprob_of(summary, x, inv), summary};
  }

  // out = slope * d logprob / dx, right after read(row, token, out).
  void write_stored(int64_t token, A logprob, A slope, T* out) {
    const Support& on = read_;
    const A inv = inv_temperature(softmax_, token);
    const A at_target = -std::expm1(logprob) * slope * inv;  // 1 - p without cancellation
    A* exps = exps_for(on, out);
    T* to = gradient_for(on, out);
    if (!is_capped()) {
      kernels_.scale_exps(exps, shifts_.data(), on.n, inv, stats_, -slope * inv, to);
      to[on.target] = static_cast<T>(at_target);
    } else {
      computed_.scale_exps(exps, shifts_.data(), on.n, inv, stats_, -slope * inv, exps);
      exps[on.target] = at_target;
      softcap_.backward(exps, z_.data(), on.n, A(softmax_.softcap), to);
    }
    spread(on, to, out);
  }

  // out = d_logprob * d logprob / dx + d_entropy * d entropy / dx from the row itself, which out may be:
  //   ((x == target) - p) d_logprob - p (log p + H) d_entropy, over the temperature.
  void write(const T* row, int64_t token, const RowSummary<A>& summary, A d_logprob, A d_entropy, T* out) {
    const Support on = support(row, token);
    const A inv = inv_temperature(softmax_, token);
    const A a = -(d_logprob + d_entropy * summary.entropy) * inv, b = -d_entropy * inv;
    const auto at_target = [&](A x) {
      const A logprob = logprob_of(summary, x, inv), p = std::exp(logprob);
      const A entropy_part = p > 0 ? p * (summary.entropy + logprob) * d_entropy : A(0);
      return (-std::expm1(logprob) * d_logprob - entropy_part) * inv;
    };
    T* to = gradient_for(on, out);
    if (!is_capped()) {
      const A slope = at_target(static_cast<A>(on.row[on.target]));  // before the row may be overwritten
      kernels_.gradient(on.row, on.n, inv, summary.max, summary.log_sum, a, b, to);
      to[on.target] = static_cast<T>(slope);
    } else {
      A* gradient = scratch_.resize(on.n);
      const A* z = capped(on);
      computed_.gradient(z, on.n, inv, summary.max, summary.log_sum, a, b, gradient);
      gradient[on.target] = at_target(z[on.target]);
      softcap_.backward(gradient, z, on.n, A(softmax_.softcap), to);
    }
    spread(on, to, out);
  }

 private:
  // The logits that a token's distribution is over: its row, or those of its kept set side by side.
  struct Support {
    const T* row;
    int64_t n;
    int64_t target;  // where in the row the target stands
    KeptSet kept;
  };

  bool is_capped() const { return softmax_.softcap > 0; }

  Support support(const T* row, int64_t token) {
    const int64_t target = softmax_.targets[token];
    const KeptSet kept = kept_set(softmax_.kept, token);
    if (kept.count == 0) return {row, softmax_.vocab, target, kept};
    T* gathered = gathered_.resize(kept.count);
    for (int64_t i = 0; i < kept.count; i++) gathered[i] = row[kept.ids[i]];
    const int32_t* end = kept.ids + kept.count;
    return {gathered, kept.count, std::lower_bound(kept.ids, end, target) - kept.ids, kept};
  }

  // Where the gradient of the support's logits is computed: in place, or for spread() to bring there.
  T* gradient_for(const Support& on, T* out) { return on.kept.count == 0 ? out : spread_.resize(on.n); }

  void spread(const Support& on, const T* gradient, T* out) {
    if (on.kept.count == 0) return;
    write_zeros(out, softmax_.vocab);
    for (int64_t i = 0; i < on.n; i++) out[on.kept.ids[i]] = gradient[i];
  }

  const A* capped(const Support& on) {
    A* z = z_.resize(on.n);
    softcap_.forward(on.row, on.n, A(softmax_.softcap), z);
    return z;
  }

  A* exps_for(const Support& on, T* out) {
    shifts_.resize(loss_blocks(on.n));
    if constexpr (sizeof(T) == sizeof(A))
      if (!is_capped()) return reinterpret_cast<A*>(gradient_for(on, out));
    return scratch_.resize(on.n);
  }

  const Softmax<A>& softmax_;
  const RowKernels<T, A>& kernels_;
  const RowKernels<A, A>& computed_;
  const SoftcapRow<T, A>& softcap_;
  Support read_{};  // what read() has read
  RowStats<A> stats_{};
  std::vector<A> shifts_;
  ScratchRow<A> scratch_, z_;
  ScratchRow<T> gathered_, spread_;
};

// How many tokens a thread should take at least: about 64k elements, well above the cost of waking it.
inline int64_t token_grain(int64_t vocab) { return vocab > 65536 ? 1 : 65536 / (vocab > 0 ? vocab : 1); }

}  // namespace elastic::cpu
