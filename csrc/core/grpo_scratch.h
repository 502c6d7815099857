// What the stages of the GRPO loss hand to one another, in one piece of memory on the logits' device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/grpo_objective.h"
#include "core/host_device.h"
#include "core/loss_params.h"

namespace elastic {

// What has to be done for a token.
enum class Work : uint8_t {
  SKIP,  // masked, or without gradient under skip_zero_advantage: nothing is read, outputs are 0
  READ,  // its statistics are reported; its gradient is 0
  LEARN
};

template <class A>
struct RowState {
  int64_t tokens;  // unmasked ones; -1: offsets that do not fit
  A scale;         // token_scale()
  A weight;        // engine weight, where rows have one
};

template <class A>
struct GrpoScratch {
  int64_t* unmasked;     // [1] tokens of the batch
  RowState<A>* rows;     // [R]
  int64_t* row_of;       // [N] -1: no fitting row holds the token
  TokenTerms<A>* terms;  // [N]
  A* maximum;            // [N] of the capped logits
  A* log_sum;            // [N] log sum exp((x - maximum) / temperature)
  A* cap_slope;  // [N] of the soft cap at the target; CUDA: in place the logit is gone when it is asked
  Work* work;    // [N]
};

template <class A>
ELASTIC_HD GrpoScratch<A> grpo_scratch(const GrpoParams<A>& p) {  // widest alignment first
  GrpoScratch<A> s;
  s.unmasked = static_cast<int64_t*>(p.scratch);
  s.rows = reinterpret_cast<RowState<A>*>(s.unmasked + 1);
  s.row_of = reinterpret_cast<int64_t*>(s.rows + p.rows);
  s.terms = reinterpret_cast<TokenTerms<A>*>(s.row_of + p.tokens);
  s.maximum = reinterpret_cast<A*>(s.terms + p.tokens);
  s.log_sum = s.maximum + p.tokens;
  s.cap_slope = s.log_sum + p.tokens;
  s.work = reinterpret_cast<Work*>(s.cap_slope + p.tokens);
  return s;
}

template <class A>
size_t grpo_scratch_bytes(int64_t tokens, int64_t rows) {
  return sizeof(int64_t) + sizeof(RowState<A>) * static_cast<size_t>(rows) +
         (sizeof(int64_t) + sizeof(TokenTerms<A>) + 3 * sizeof(A) + sizeof(Work)) *
             static_cast<size_t>(tokens);
}

// `advantage` is the row's. Where a row's tokens share a ratio, all of them have a gradient or none has.
template <class A>
ELASTIC_HD Work work_of(const GrpoParams<A>& p, bool counts, A advantage) {
  if (!counts) return Work::SKIP;
  const Objective& o = p.objective;
  if (advantage != 0 || o.kl_coef != 0 || o.entropy_coef != 0)
    return p.needs_gradient ? Work::LEARN : Work::READ;
  return p.skip_zero_advantage ? Work::SKIP : Work::READ;
}

template <class A>
ELASTIC_HD bool counts(const GrpoParams<A>& p, int64_t token) {
  return p.mask == nullptr || p.mask[token];
}

// A token's terms before its chunk was seen: 0 if it is skipped, else NaN, so that a forgotten one shows.
template <class A>
ELASTIC_HD TokenTerms<A> unset_terms(Work work) {
  const A value = work == Work::SKIP ? A(0) : A(NAN);
  return {value, value, value, value, value, false};
}

}  // namespace elastic
