// The stages of the GRPO loss on the CPU: per token the row's statistics, the objective's slope, the
// gradient. Threads share out tokens, and sums run in index order afterwards, so results do not depend on the
// number of threads.
//
// A token-level objective without entropy bonus knows the token's slope as soon as its row was read: exps are
// stored on the way (in the output row, or in a float32 scratch row for 16-bit logits) and scaled, all in L2.
// gspo and the entropy bonus need a second read: gspo because no slope is known before the whole completion
// was seen, the bonus because its gradient contains log p, which is expensive to get from stored exps.
#include "cpu/loss.h"

#include <ATen/Parallel.h>

#include "core/grpo_scratch.h"
#include "cpu/logits_pass.h"

namespace elastic::cpu {
namespace {

template <class A>
void set_terms(const GrpoParams<A>& p, const GrpoScratch<A>& s, int64_t token, A mean_log_ratio) {
  const int64_t row = s.row_of[token];
  const RowState<A>& state = s.rows[row];
  const TokenInput<A> in = token_input(p, token, row, state.scale, state.weight);
  s.terms[token] = token_terms(p.objective, in, mean_log_ratio);
}

// One completion whose tokens share the geometric mean of their ratios (gspo).
template <class A>
void row_objective(const GrpoParams<A>& p, const GrpoScratch<A>& s, int64_t row) {
  const int64_t begin = p.row_offsets[row], end = p.row_offsets[row + 1];
  const double count = double(s.rows[row].tokens > 0 ? s.rows[row].tokens : 1);
  double sum = 0, shared = 0;
  for (int64_t t = begin; t < end; t++)
    if (s.work[t] != Work::SKIP) sum += double(p.logprobs[t] - p.old_logprobs[t]);
  for (int64_t t = begin; t < end; t++) {
    if (s.work[t] == Work::SKIP) continue;
    set_terms(p, s, t, A(sum / count));
    shared += double(s.terms[t].shared_slope);
  }
  for (int64_t t = begin; t < end; t++)
    if (s.work[t] != Work::SKIP) s.terms[t].slope += A(shared / count);
}

// Writes a token's gradient from its terms, reading its row once more.
template <class T, class A>
void write_row(LogitsPass<T, A>& pass, const GrpoParams<A>& p, const GrpoScratch<A>& s, const T* row,
               int64_t token, T* out) {
  const A slope = s.terms[token].slope, entropy_slope = s.terms[token].entropy_slope;
  if (slope == 0 && entropy_slope == 0) return write_zeros(out, p.softmax.vocab);
  const RowSummary<A> summary{s.maximum[token], s.log_sum[token], p.entropy[token]};
  pass.write(row, token, summary, slope, entropy_slope, out);
}

// Reads a row once; if tokens do not share ratios, writes its gradient while the row is in L2.
template <class T, class A>
void chunk_row(LogitsPass<T, A>& pass, const GrpoParams<A>& p, const GrpoScratch<A>& s,
               const LogitsChunk& chunk, int64_t i) {
  const int64_t token = token_of(chunk, i);
  const T* row = row_of<T>(chunk, i);
  T* out = is_row_level(p.objective) ? nullptr : gradient_row<T>(chunk, i);
  const Work work = s.work[token];
  if (work == Work::SKIP) {
    if (out != nullptr) write_zeros(out, p.softmax.vocab);
    return;
  }
  const bool stores = out != nullptr && work == Work::LEARN && p.objective.entropy_coef == 0;
  const TargetStats<A> stats = pass.read(row, token, stores ? out : nullptr);
  p.logprobs[token] = stats.logprob;
  p.entropy[token] = stats.row.entropy;
  s.maximum[token] = stats.row.max;
  s.log_sum[token] = stats.row.log_sum;
  if (is_row_level(p.objective)) return;
  set_terms(p, s, token, A(0));
  if (out == nullptr) return;
  const A slope = s.terms[token].slope;
  if (!stores)
    write_row(pass, p, s, row, token, out);
  else if (slope == 0)
    write_zeros(out, p.softmax.vocab);
  else
    pass.write_stored(token, stats.logprob, slope, out);
}

// Calls fn(pass, i) for every row of a chunk, in threads, with one LogitsPass<T, A> per thread.
template <class A, class Fn>
void for_rows(const GrpoParams<A>& p, const LogitsChunk& chunk, Fn fn) {
  with_logits_type<A>(chunk.dtype, [&](auto type) {
    at::parallel_for(0, chunk.tokens, token_grain(p.softmax.vocab), [&](int64_t begin, int64_t end) {
      LogitsPass<decltype(type), A> pass(p.softmax);
      for (int64_t i = begin; i < end; i++) fn(pass, i);
    });
  });
}

}  // namespace

template <class A>
void grpo_begin(const GrpoParams<A>& p) {
  if (p.rewards != nullptr)
    group_advantage(p.advantage, p.rewards, p.group_offsets, p.groups, p.advantage_eps, p.pass_k,
                    p.advantages);
  const GrpoScratch<A> s = grpo_scratch(p);
  int64_t unmasked = 0;
  for (int64_t row = 0; row < p.rows; row++) {
    int64_t tokens = 0;
    double mismatch = 0;
    for (int64_t t = p.row_offsets[row]; t < p.row_offsets[row + 1]; t++) {
      const bool counted = counts(p, t);
      tokens += counted;
      if (counted && p.engine_logprobs != nullptr)
        mismatch += double(p.old_logprobs[t] - p.engine_logprobs[t]);
      s.row_of[t] = row;
      s.work[t] = work_of(p, counted, p.advantages[row]);
      s.terms[t] = unset_terms<A>(s.work[t]);
      p.logprobs[t] = p.entropy[t] = s.terms[t].loss;
    }
    s.rows[row] = {tokens, A(0), p.objective.engine_rows ? engine_weight(p.objective, A(mismatch)) : A(1)};
    unmasked += tokens;
  }
  *s.unmasked = unmasked;
  for (int64_t row = 0; row < p.rows; row++)
    s.rows[row].scale = A(token_scale(p.objective, p.rows, s.rows[row].tokens, unmasked));
}

template <class A>
void grpo_chunk(const GrpoParams<A>& p, const LogitsChunk& chunk) {
  const GrpoScratch<A> s = grpo_scratch(p);
  for_rows(p, chunk, [&](auto& pass, int64_t i) { chunk_row(pass, p, s, chunk, i); });
}

template <class A>
void grpo_rows(const GrpoParams<A>& p) {
  const GrpoScratch<A> s = grpo_scratch(p);
  for (int64_t row = 0; row < p.rows; row++) row_objective(p, s, row);
}

template <class A>
void grpo_chunk_gradient(const GrpoParams<A>& p, const LogitsChunk& chunk) {
  const GrpoScratch<A> s = grpo_scratch(p);
  for_rows(p, chunk, [&]<class T>(LogitsPass<T, A>& pass, int64_t i) {
    write_row(pass, p, s, row_of<T>(chunk, i), token_of(chunk, i), gradient_row<T>(chunk, i));
  });
}

template <class A>
void grpo_end(const GrpoParams<A>& p) {
  const GrpoScratch<A> s = grpo_scratch(p);
  double loss = 0, kl = 0;
  int64_t clipped = 0;
  for (int64_t t = 0; t < p.tokens; t++) {
    loss += double(s.terms[t].loss);
    kl += double(s.terms[t].kl);
    clipped += s.terms[t].clipped;
  }
  const double count = *s.unmasked > 0 ? double(*s.unmasked) : 1;
  *p.loss = A(loss);
  *p.kl = A(kl / count);
  *p.clip_fraction = A(double(clipped) / count);
}

#define ELASTIC_INSTANTIATE(A)                                                 \
  template void grpo_begin(const GrpoParams<A>&);                              \
  template void grpo_chunk(const GrpoParams<A>&, const LogitsChunk&);          \
  template void grpo_rows(const GrpoParams<A>&);                               \
  template void grpo_chunk_gradient(const GrpoParams<A>&, const LogitsChunk&); \
  template void grpo_end(const GrpoParams<A>&);
ELASTIC_INSTANTIATE(float)
ELASTIC_INSTANTIATE(double)

}  // namespace elastic::cpu
