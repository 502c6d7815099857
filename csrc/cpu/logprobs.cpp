// token_logprobs and its backward: rows are independent, threads share them out.
#include <ATen/Parallel.h>

#include "cpu/logits_rows.h"
#include "cpu/loss.h"

namespace elastic::cpu {

template <class A>
void token_logprobs(const LogprobParams<A>& params) {
  const LogitsView<A>& view = params.view;
  with_logits_type(view, [&](auto type) {
    using T = decltype(type);
    at::parallel_for(0, view.tokens, token_grain(view.vocab), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; t++) {
        const T* row = row_of<T>(view, t);
        const A inv = inv_temperature(view, t);
        const RowStats<A> stats = row_kernels(T{}).stats(row, view.vocab, inv, nullptr, nullptr);
        params.logprobs[t] = target_logprob(stats, static_cast<A>(row[view.targets[t]]), inv);
        params.entropy[t] = stats.log_sum - stats.mean;
        params.logsumexp[t] = logsumexp(stats, inv);
      }
    });
  });
}

template <class A>
void token_logprobs_backward(const LogprobBackwardParams<A>& params) {
  const LogitsView<A>& view = params.view;
  with_logits_type(view, [&](auto type) {
    using T = decltype(type);
    at::parallel_for(0, view.tokens, token_grain(view.vocab), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; t++) {
        const T* row = row_of<T>(view, t);
        T* out = static_cast<T*>(params.gradient) + t * view.vocab;
        const A d_logprob = params.grad_logprobs != nullptr ? params.grad_logprobs[t] : A(0);
        const A d_entropy = params.grad_entropy != nullptr ? params.grad_entropy[t] : A(0);
        if (d_logprob == 0 && d_entropy == 0) {
          write_zeros(out, view.vocab);
          continue;
        }
        const A inv = inv_temperature(view, t), lse = params.logsumexp[t];
        const A logprob = static_cast<A>(row[view.targets[t]]) * inv - lse;
        write_gradient<T, A>(row, view.vocab, view.targets[t], inv, lse, logprob, params.entropy[t],
                             d_logprob, d_entropy, out);
      }
    });
  });
}

template void token_logprobs(const LogprobParams<float>&);
template void token_logprobs(const LogprobParams<double>&);
template void token_logprobs_backward(const LogprobBackwardParams<float>&);
template void token_logprobs_backward(const LogprobBackwardParams<double>&);

}  // namespace elastic::cpu
