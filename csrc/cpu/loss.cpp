// grpo_loss on the CPU: per token the row's statistics, the objective's slope, the gradient; threads share
// out tokens, and sums run in index order afterwards, so results do not depend on the number of threads.
//
// A token-level objective without entropy bonus knows the token's slope as soon as its row was read: exps are
// stored on the way (in the output row, or in a float32 scratch row for bfloat16) and scaled, all in L2.
// gspo and the entropy bonus need a second read: gspo because no slope is known before the whole completion
// was seen, the bonus because its gradient has log p in it, which stored exps do not give back cheaply.
#include "cpu/loss.h"

#include <ATen/Parallel.h>

#include "core/grpo_objective.h"
#include "cpu/logits_rows.h"

namespace elastic::cpu {
namespace {

template <class A>
struct Batch {
  const GrpoParams<A>& params;
  std::vector<TokenTerms<A>> terms;  // [N]
  std::vector<A> logsumexp;          // [N]
  std::vector<A> row_scale;          // [R]
  std::vector<A> row_weight;         // [R] engine weights, where a row has one
  std::vector<int64_t> row_tokens;   // [R] unmasked ones
  int64_t unmasked = 0;

  explicit Batch(const GrpoParams<A>& p)
      : params(p),
        terms(p.view.tokens),
        logsumexp(p.view.tokens),
        row_scale(p.rows),
        row_weight(p.rows, A(1)),
        row_tokens(p.rows) {
    for (int64_t r = 0; r < p.rows; r++) {
      double mismatch = 0;
      for (int64_t t = p.row_offsets[r]; t < p.row_offsets[r + 1]; t++) {
        if (!counts(t)) continue;
        row_tokens[r]++;
        if (p.engine_logprobs != nullptr) mismatch += double(p.old_logprobs[t] - p.engine_logprobs[t]);
      }
      unmasked += row_tokens[r];
      if (p.objective.engine_rows) row_weight[r] = engine_weight(p.objective, A(mismatch));
    }
    for (int64_t r = 0; r < p.rows; r++)
      row_scale[r] = A(token_scale(p.objective, p.rows, row_tokens[r], unmasked));
  }

  bool counts(int64_t t) const { return params.mask == nullptr || params.mask[t]; }
  void set_terms(int64_t t, int64_t row, A mean_log_ratio) {
    const TokenInput<A> in = token_input(params, t, row, row_scale[row], row_weight[row]);
    terms[t] = token_terms(params.objective, in, mean_log_ratio);
  }
};

// Calls fn(token, row) for every token of [begin, end).
template <class A, class Fn>
void for_tokens(const GrpoParams<A>& p, int64_t begin, int64_t end, Fn fn) {
  int64_t row = 0;
  while (row < p.rows && p.row_offsets[row + 1] <= begin) row++;
  for (int64_t t = begin; t < end; t++) {
    while (p.row_offsets[row + 1] <= t) row++;
    fn(t, row);
  }
}

// One completion whose tokens share the geometric mean of their ratios (gspo).
template <class A>
void row_objective(Batch<A>& batch, int64_t row) {
  const GrpoParams<A>& p = batch.params;
  const int64_t begin = p.row_offsets[row], end = p.row_offsets[row + 1];
  const double count = double(batch.row_tokens[row] > 0 ? batch.row_tokens[row] : 1);
  double sum = 0, shared = 0;
  for (int64_t t = begin; t < end; t++)
    if (batch.counts(t)) sum += double(p.logprobs[t] - p.old_logprobs[t]);
  for (int64_t t = begin; t < end; t++) {
    if (!batch.counts(t)) continue;
    batch.set_terms(t, row, A(sum / count));
    shared += double(batch.terms[t].shared_slope);
  }
  for (int64_t t = begin; t < end; t++)
    if (batch.counts(t)) batch.terms[t].slope += A(shared / count);
}

// A masked token is never read: logprob, entropy and gradient are 0.
template <class T, class A>
void skip_token(Batch<A>& batch, int64_t t, T* out) {
  batch.params.logprobs[t] = 0;
  batch.params.entropy[t] = 0;
  if (out != nullptr) write_zeros(out, batch.params.view.vocab);
}

template <class T, class A>
T* gradient_row(const GrpoParams<A>& p, int64_t t) {
  return p.gradient == nullptr ? nullptr : static_cast<T*>(p.gradient) + t * p.gradient_stride;
}

// Fills logprobs, entropy and the token's logsumexp; returns the statistics.
template <class T, class A>
RowStats<A> read_row(Batch<A>& batch, int64_t t, A* exps, A* block_max) {
  const LogitsView<A>& view = batch.params.view;
  const T* row = row_of<T>(view, t);
  const A inv = inv_temperature(view, t),
          x = static_cast<A>(row[view.targets[t]]);  // before exps overwrite it
  const RowStats<A> stats = row_kernels(T{}).stats(row, view.vocab, inv, exps, block_max);
  batch.params.logprobs[t] = target_logprob(stats, x, inv);
  batch.params.entropy[t] = stats.log_sum - stats.mean;
  batch.logsumexp[t] = logsumexp(stats, inv);
  return stats;
}

template <class T, class A>
void write_row(const Batch<A>& batch, int64_t t, T* out) {
  const GrpoParams<A>& p = batch.params;
  const A slope = batch.terms[t].slope, entropy_slope = batch.terms[t].entropy_slope;
  if (slope == 0 && entropy_slope == 0) return write_zeros(out, p.view.vocab);
  write_gradient<T, A>(row_of<T>(p.view, t), p.view.vocab, p.view.targets[t], inv_temperature(p.view, t),
                       batch.logsumexp[t], p.logprobs[t], p.entropy[t], slope, entropy_slope, out);
}

// One read a row: statistics, slope, gradient while the row is in L2.
template <class T, class A>
void token_level(Batch<A>& batch) {
  const GrpoParams<A>& p = batch.params;
  const int64_t vocab = p.view.vocab;
  const bool keep_exps = p.gradient != nullptr && p.objective.entropy_coef == 0;
  at::parallel_for(0, p.view.tokens, token_grain(vocab), [&](int64_t begin, int64_t end) {
    std::vector<A> block_max(keep_exps ? loss_blocks(vocab) : 0);
    std::vector<A> scratch(keep_exps && sizeof(T) < sizeof(A) ? vocab : 0);
    for_tokens(p, begin, end, [&](int64_t t, int64_t row) {
      T* out = gradient_row<T>(p, t);
      if (!batch.counts(t)) return skip_token(batch, t, out);
      // Without advantage and KL there is no gradient to prepare for; the logprob is still reported.
      const bool keep = keep_exps && (p.advantages[row] != 0 || p.objective.kl_coef != 0);
      A* exps = nullptr;
      if (keep) exps = scratch.empty() ? reinterpret_cast<A*>(out) : scratch.data();
      const RowStats<A> stats = read_row<T, A>(batch, t, exps, block_max.data());
      batch.set_terms(t, row, A(0));
      if (out == nullptr) return;
      if (!keep) return write_row(batch, t, out);
      const A slope = batch.terms[t].slope, inv = inv_temperature(p.view, t);
      if (slope == 0) return write_zeros(out, vocab);
      row_kernels(T{}).scale_exps(exps, block_max.data(), vocab, inv, stats, -slope * inv, out);
      out[p.view.targets[t]] = static_cast<T>(-std::expm1(p.logprobs[t]) * slope * inv);
    });
  });
}

// Two reads a row: all statistics, then the completions' slopes, then the gradients.
template <class T, class A>
void row_level(Batch<A>& batch) {
  const GrpoParams<A>& p = batch.params;
  const int64_t grain = token_grain(p.view.vocab);
  at::parallel_for(0, p.view.tokens, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) {
      if (batch.counts(t))
        read_row<T, A>(batch, t, nullptr, nullptr);
      else
        skip_token(batch, t, gradient_row<T>(p, t));
    }
  });
  for (int64_t row = 0; row < p.rows; row++) row_objective(batch, row);
  if (p.gradient == nullptr) return;
  at::parallel_for(0, p.view.tokens, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++)
      if (batch.counts(t)) write_row(batch, t, gradient_row<T>(p, t));
  });
}

}  // namespace

template <class A>
void grpo_loss(const GrpoParams<A>& params) {
  Batch<A> batch(params);
  with_logits_type(params.view, [&](auto type) {
    using T = decltype(type);
    if (is_row_level(params.objective))
      row_level<T>(batch);
    else
      token_level<T>(batch);
  });
  double loss = 0, kl = 0;
  int64_t clipped = 0;
  for (const TokenTerms<A>& terms : batch.terms) {  // zeros where masked
    loss += double(terms.loss);
    kl += double(terms.kl);
    clipped += terms.clipped;
  }
  const double count = batch.unmasked > 0 ? double(batch.unmasked) : 1;
  *params.loss = A(loss);
  *params.kl = A(kl / count);
  *params.clip_fraction = A(double(clipped) / count);
}

template void grpo_loss(const GrpoParams<float>&);
template void grpo_loss(const GrpoParams<double>&);

}  // namespace elastic::cpu
