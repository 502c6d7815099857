// token_logprobs and its backward: rows are independent and distributed over threads.
#include <ATen/Parallel.h>

#include "cpu/logits_pass.h"
#include "cpu/loss.h"

namespace elastic::cpu {

template <class A>
void token_logprobs(const LogprobParams<A>& params) {
  const LogitsChunk& chunk = params.chunk;
  with_logits_type<A>(chunk.dtype, [&](auto type) {
    using T = decltype(type);
    at::parallel_for(0, chunk.tokens, token_grain(params.softmax.vocab), [&](int64_t begin, int64_t end) {
      LogitsPass<T, A> pass(params.softmax);
      for (int64_t t = begin; t < end; t++) {
        const TargetStats<A> stats = pass.read(row_of<T>(chunk, t), t);
        params.logprobs[t] = stats.logprob;
        params.entropy[t] = stats.row.entropy;
        params.maximum[t] = stats.row.max;
        params.log_sum[t] = stats.row.log_sum;
      }
    });
  });
}

template <class A>
void token_logprobs_backward(const LogprobBackwardParams<A>& params) {
  const LogitsChunk& chunk = params.chunk;
  const int64_t vocab = params.softmax.vocab;
  with_logits_type<A>(chunk.dtype, [&](auto type) {
    using T = decltype(type);
    at::parallel_for(0, chunk.tokens, token_grain(vocab), [&](int64_t begin, int64_t end) {
      LogitsPass<T, A> pass(params.softmax);
      for (int64_t t = begin; t < end; t++) {
        const T* row = row_of<T>(chunk, t);
        T* out = gradient_row<T>(chunk, t);
        const A d_logprob = params.grad_logprobs != nullptr ? params.grad_logprobs[t] : A(0);
        const A d_entropy = params.grad_entropy != nullptr ? params.grad_entropy[t] : A(0);
        if (d_logprob == 0 && d_entropy == 0) {
          write_zeros(out, vocab);
          continue;
        }
        const RowSummary<A> summary{params.maximum[t], params.log_sum[t], params.entropy[t]};
        pass.write(row, t, summary, d_logprob, d_entropy, out);
      }
    });
  });
}

template void token_logprobs(const LogprobParams<float>&);
template void token_logprobs(const LogprobParams<double>&);
template void token_logprobs_backward(const LogprobBackwardParams<float>&);
template void token_logprobs_backward(const LogprobBackwardParams<double>&);

}  // namespace elastic::cpu
