// One token's part of the GRPO family of losses: its value and its derivative with respect to the token's
// (or, for gspo, the row's mean) log ratio. The CPU and the CUDA op both call it, so they cannot disagree.
#pragma once

#include <cmath>

#include "core/host_device.h"
#include "core/loss_params.h"

namespace elastic {

// x and dx/dl, where l is the logprob and d = l - old the log ratio.
template <class A>
struct Term {
  A value;
  A slope;
};

template <class A>
struct PolicyTerm {
  A value;
  A slope;
  bool clipped;
};

// -min(min(rho, delta) A, clip(rho) A), bounded by dual_clip |A| where A < 0.
template <class A>
ELASTIC_HD PolicyTerm<A> clipped_term(const Objective& o, A ratio, A advantage) {
  const A low = A(1 - o.clip_low), high = A(1 + o.clip_high), delta = A(o.delta);
  const A plain = (ratio < delta ? ratio : delta) * advantage;
  const A kept = ratio < low ? low : (ratio > high ? high : ratio);
  const A clipped = kept * advantage;
  const bool outside = ratio < low || ratio > high;
  PolicyTerm<A> term;
  term.clipped = (ratio < low && advantage < 0) || (ratio > high && advantage > 0);
  if (plain <= clipped) {
    term.value = -plain;
    term.slope = ratio <= delta ? -ratio * advantage : A(0);
  } else {
    term.value = -clipped;
    term.slope = outside ? A(0) : -ratio * advantage;
  }
  if (advantage < 0 && term.value > -A(o.dual_clip) * advantage) {
    term.value = -A(o.dual_clip) * advantage;
    term.slope = 0;
  }
  return term;
}

// -A (4 / tau) sigmoid(tau (rho - 1))
template <class A>
ELASTIC_HD PolicyTerm<A> soft_gate_term(const Objective& o, A ratio, A advantage) {
  const A tau = A(advantage > 0 ? o.tau_positive : o.tau_negative);
  const A below =
      1 / (1 + std::exp(tau * (ratio - 1)));  // sigmoid(-z): keeps its digits where the gate is open
  const A gate = 1 / (1 + std::exp(-tau * (ratio - 1)));
  // Far out the gate is flat; 0 * inf must not appear where the ratio has overflowed.
  const A slope = below == 0 ? A(0) : -advantage * 4 * gate * below * ratio;
  return {-advantage * 4 / tau * gate, slope, false};
}

// The policy term before its constant weight, for an advantage other than 0. `log_ratio` is the token's, or
// the row's mean for gspo.
template <class A>
ELASTIC_HD PolicyTerm<A> policy_term(const Objective& o, A log_ratio, A logprob, A advantage) {
  const A ratio = std::exp(log_ratio);
  if (o.loss == Loss::SAPO) return soft_gate_term(o, ratio, advantage);
  if (o.loss != Loss::CISPO) return clipped_term(o, ratio, advantage);
  const A bound = A(o.clip_high);
  const A weight = (ratio > bound ? bound : ratio) * advantage;  // a constant: no gradient flows through it
  const A value = weight == 0 ? A(0) : -weight * logprob;        // rho l -> 0 as l -> -inf
  return {value, -weight, ratio > bound && advantage > 0};
}

// Estimators of KL(policy || reference) from one sample; x = logprob - reference logprob.
template <class A>
ELASTIC_HD Term<A> kl_term(Kl kind, A x) {
  switch (kind) {
    case Kl::K1:
      return {x, A(1)};
    case Kl::K2:
      return {x * x / 2, x};
    default: {
      const A e = std::expm1(-x);  // exp(-x) - 1 + x cancels near x = 0; expm1 keeps the digits
      return {x == -INFINITY ? e : e + x, -e};
    }
  }
}

// a b, where a zero wins over an infinity.
template <class A>
ELASTIC_HD A limit_product(A a, A b) {
  return (a == 0 && b == b) || (b == 0 && a == a) ? A(0) : a * b;
}

// rho KL and its derivative by l, at a fixed rho where the ratio is `shared`; `log_ref_ratio` is log(rho
// exp(-x)), ref - old where the ratio is the token's own. At l = -inf (rho 0, x -inf) the limits are 0, 0
// and, for k3, exp(ref - old). An infinite ratio times a KL of 0 is 0. Any other infinity shows.
template <class A>
ELASTIC_HD Term<A> weighted_kl_term(Kl kind, A x, A ratio, A log_ref_ratio, bool shared) {
  const Term<A> kl = kl_term(kind, x);
  Term<A> term{limit_product(ratio, kl.value), limit_product(ratio, kl.slope)};
  if (x == INFINITY) {  // also where rho has underflowed
    term = {x, kl.slope};
  } else if (kind == Kl::K3 && x < -1 && ratio <= 1) {  // exp(-x) may overflow where rho vanishes
    const A e = std::exp(log_ref_ratio);
    term = {e + limit_product(ratio, x - 1), ratio - e};
  }
  if (shared) return term;
  // Product rule: the ratio has a derivative too. For k3 the sum is rho x, whose digits the parts would lose.
  term.slope = kind == Kl::K3 && x != INFINITY ? limit_product(ratio, x) : term.slope + term.value;
  return term;
}

// Constant factor of the policy term: exp(old - engine), cut to the bounds, or 0 outside them.
template <class A>
ELASTIC_HD A engine_weight(const Objective& o, A log_weight) {
  const A weight = std::exp(log_weight), low = A(o.engine_low), high = A(o.engine_high);
  if (o.engine_mode == EngineMode::MASK && (weight < low || weight > high)) return 0;
  return weight < low ? low : (weight > high ? high : weight);  // NaN stays NaN
}

// True where one row's tokens share a ratio: no gradient can be written before the whole row was read.
ELASTIC_HD bool is_row_level(const Objective& o) { return o.loss == Loss::GSPO; }

// Factor of every token's term in a row, given the row's and the batch's number of unmasked tokens.
ELASTIC_HD double token_scale(const Objective& o, int64_t rows, int64_t row_tokens, int64_t batch_tokens) {
  const double in_row = row_tokens > 0 ? static_cast<double>(row_tokens) : 1;
  const double in_batch = batch_tokens > 0 ? static_cast<double>(batch_tokens) : 1;
  const double num_rows = o.num_rows >= 0 ? o.num_rows : static_cast<double>(rows);
  switch (o.loss) {
    case Loss::BNPO:
      return 1 / in_batch;
    case Loss::DR_GRPO:
      return 1 / (num_rows * o.max_length);
    case Loss::DAPO:
    case Loss::CISPO:
      return 1 / (o.num_tokens >= 0 ? o.num_tokens : in_batch);
    default:
      return 1 / (num_rows * in_row);
  }
}

// Everything about one unmasked token except the ratio its row may share.
template <class A>
struct TokenInput {
  A logprob;
  A entropy;
  A log_ratio;  // its own
  A advantage;
  A weight;         // engine weight
  A scale;          // token_scale()
  A over_ref;       // logprob - ref, with p.ref_logprobs
  A ref_log_ratio;  // ref - old, with p.ref_logprobs
  bool has_ref;
};

// What is known about a token before its logits are read.
template <class A>
struct TokenGiven {
  A old_logprob;
  A ref_logprob;     // read only with p.ref_logprobs
  A engine_logprob;  // read only with p.engine_logprobs
  A advantage;
  A scale;
  A row_weight;  // the row's engine weight, where rows have one
};

template <class A>
ELASTIC_HD TokenGiven<A> token_given(const GrpoParams<A>& p, int64_t token, int64_t row, A scale,
                                     A row_weight) {
  return {p.old_logprobs[token],
          p.ref_logprobs != nullptr ? p.ref_logprobs[token] : A(0),
          p.engine_logprobs != nullptr ? p.engine_logprobs[token] : A(0),
          p.advantages[row],
          scale,
          row_weight};
}

template <class A>
ELASTIC_HD TokenInput<A> token_input(const GrpoParams<A>& p, const TokenGiven<A>& given, A logprob,
                                     A entropy) {
  A weight = 1;
  if (p.engine_logprobs != nullptr)
    weight = p.objective.engine_rows ? given.row_weight
                                     : engine_weight(p.objective, given.old_logprob - given.engine_logprob);
  return {logprob,
          entropy,
          logprob - given.old_logprob,
          given.advantage,
          weight,
          given.scale,
          logprob - given.ref_logprob,
          given.ref_logprob - given.old_logprob,
          p.ref_logprobs != nullptr};
}

template <class A>
ELASTIC_HD TokenInput<A> token_input(const GrpoParams<A>& p, int64_t token, int64_t row, A scale,
                                     A row_weight) {
  return token_input(p, token_given(p, token, row, scale, row_weight), p.logprobs[token], p.entropy[token]);
}

// A token's part of the loss, and of the loss's derivatives.
template <class A>
struct TokenTerms {
  A loss;
  A slope;          // d loss / d logprob, at a fixed shared ratio
  A entropy_slope;  // d loss / d entropy
  A shared_slope;   // d loss / d (the row's mean log ratio), where the ratio is shared
  A kl;
  bool clipped;
};

template <class A>
ELASTIC_HD Term<A> token_kl(const Objective& o, const TokenInput<A>& in, A log_ratio) {
  if (!in.has_ref) return {0, 0};
  if (!o.kl_weighted) return kl_term(o.kl, in.over_ref);
  const bool shared = is_row_level(o);
  A log_ref_ratio = in.ref_log_ratio;
  if (shared) log_ref_ratio = in.over_ref == -INFINITY ? A(INFINITY) : log_ratio - in.over_ref;
  return weighted_kl_term(o.kl, in.over_ref, A(std::exp(log_ratio)), log_ref_ratio, shared);
}

// `mean_log_ratio` is the row's, read only where rows share a ratio.
template <class A>
ELASTIC_HD TokenTerms<A> token_terms(const Objective& o, const TokenInput<A>& in, A mean_log_ratio) {
  const bool shared = is_row_level(o);
  const A log_ratio = shared ? mean_log_ratio : in.log_ratio;
  const PolicyTerm<A> policy = policy_term(o, log_ratio, in.logprob, in.advantage);
  const Term<A> kl = token_kl(o, in, log_ratio);
  A value = 0, slope = 0, ratio_slope = 0;
  if (in.weight != 0 && in.advantage != 0) {
    value = in.weight * policy.value;
    ratio_slope = in.weight * policy.slope;
  } else if (log_ratio != log_ratio || in.weight != in.weight) {
    value = ratio_slope = NAN;  // a NaN in the input stays NaN; an infinity with factor 0 adds nothing
  }
  if (o.kl_coef != 0) {  // a KL that is only reported may be infinite
    value += A(o.kl_coef) * kl.value;
    slope += A(o.kl_coef) * kl.slope;
    if (o.kl_weighted && shared) ratio_slope += A(o.kl_coef) * kl.value;
  }
  if (o.entropy_coef != 0) value -= A(o.entropy_coef) * in.entropy;
  TokenTerms<A> terms;
  terms.loss = in.scale * value;
  terms.slope = in.scale * (shared ? slope : slope + ratio_slope);
  terms.entropy_slope = -in.scale * A(o.entropy_coef);
  terms.shared_slope = shared ? in.scale * ratio_slope : A(0);
  terms.kl = kl.value;
  terms.clipped = policy.clipped;
  return terms;
}

}  // namespace elastic
