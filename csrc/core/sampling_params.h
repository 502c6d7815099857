// Arguments of the sampling op, the same on the host and on the device. B rows, V vocabulary.
#pragma once

#include "core/budget_params.h"
#include "core/loss_params.h"
#include "core/philox.h"
#include "core/sampling.h"

namespace elastic::sampling {

// How one row is drawn. Filters that are off: top_k 0, top_p 1, min_p 0.
struct Filters {
  double temperature;  // 0: argmax
  int64_t top_k;
  double top_p;
  double min_p;
};

ELASTIC_HD bool filters_any(const Filters& f) {
  return f.temperature != 0 && (f.top_k > 0 || f.top_p < 1 || f.min_p > 0);
}
// Of the softmax that full logprobs are taken from.
ELASTIC_HD double softmax_temperature(const Filters& f) { return f.temperature == 0 ? 1.0 : f.temperature; }
ELASTIC_HD bool legal(const Filters& f) {
  return f.temperature >= 0 && f.temperature < INFINITY && f.top_k >= 0 && f.top_p > 0 && f.top_p <= 1 &&
         f.min_p >= 0 && f.min_p <= 1;
}

// What the filters left of a row: the ids whose logit is at least `logit` and that min-p keeps, but for
// masked ones and those of weight 0, which are never drawn.
struct KeptRow {
  bool filtered;  // false: the row has no such set
  float max;      // the row's largest logit that may be drawn
  float logit;
  budget::Masked masked;
};

struct SampleParams {
  const void* logits;  // [B, V], rows `row_stride` elements apart
  Scalar dtype;        // F32, BF16 or F16
  int64_t rows;
  int64_t vocab;
  int64_t row_stride;
  const int64_t* seeds;       // [B]
  const int64_t* positions;   // [B] tokens that the row's completion holds so far
  Filters all;                // of every row, unless the row has its own:
  const double* temperature;  // [B] or null, and so the next three
  const int64_t* top_k;
  const double* top_p;
  const double* min_p;

  budget::Tables tables;  // of the budget machine; unused without state
  int32_t* state;         // [B, STATE_WIDTH] in and out, or null: rows without a budget
  int32_t* active;        // [1], written: rows that are not DONE; null if nobody asks
  int32_t* broken;        // [1]: where it is 0, 1 + the first row of unusable logits; null if nobody asks

  int64_t* tokens;       // [B], written
  float* logprobs;       // [B], written: under the distribution drawn from; 0 where the token was not drawn
  float* full_logprobs;  // [B], written: under the softmax at the row's temperature; likewise
  uint8_t* source;       // [B], written with state
  uint8_t* phase;        // [B], written with state: of the token emitted

  int64_t most_kept;     // K; 0: nobody asks what filters left
  int32_t* kept_ids;     // [B, K], written where a row has at most K: ascending
  int32_t* kept_counts;  // [B], written: their number, also above K; 0: no filter, or the token was not drawn
  KeptRow* kept_rows;    // [B] scratch of the CUDA kernels, all zero
};

ELASTIC_HD Filters filters_of(const SampleParams& p, int64_t r) {
  return {p.temperature != nullptr ? p.temperature[r] : p.all.temperature,
          p.top_k != nullptr ? p.top_k[r] : p.all.top_k, p.top_p != nullptr ? p.top_p[r] : p.all.top_p,
          p.min_p != nullptr ? p.min_p[r] : p.all.min_p};
}

// What the budget says about a row before its logits are looked at.
struct Orders {
  bool draws;             // false: forced or finished, the logits are not read
  budget::Masked masked;  // tokens that may not be drawn (R8, R20)
};

ELASTIC_HD Orders orders_of(const SampleParams& p, int64_t r) {
  if (p.state == nullptr) return {true, {nullptr, 0, 0}};
  const budget::Row row = budget::load(p.state + r * budget::STATE_WIDTH, p.tables);
  const int32_t* table = budget::table_of(row, p.tables);
  if (budget::next_forced(row, table) >= 0) return {false, {nullptr, 0, 0}};
  return {true, budget::masked_next(row, table)};
}

struct Drawn {
  int64_t token;  // -1: the logits are unusable
  float logprob;
  float full_logprob;
};

// A row that cannot be drawn takes no step: no token was sampled that its budget could count.
ELASTIC_HD void emit_broken_row(const SampleParams& p, int64_t r) {
  p.tokens[r] = 0;  // an id that a model can take, until the host sees the flag
  p.logprobs[r] = p.full_logprobs[r] = NAN;
  if (p.state == nullptr) return;
  const budget::Row row = budget::load(p.state + r * budget::STATE_WIDTH);
  p.tokens[r] = budget::table_of(row, p.tables)[budget::PAD_ID];
  p.source[r] = budget::PAD;
  p.phase[r] = uint8_t(row.last_phase);
}

// Writes what a row emits and moves its state on. `drawn` is ignored where the budget forces a token.
ELASTIC_HD void emit_logits(const SampleParams& p, int64_t r, const Drawn& drawn) {
  if (drawn.token < 0) return emit_broken_row(p, r);
  p.tokens[r] = drawn.token;
  bool sampled = true;
  if (p.state != nullptr) {
    budget::step_row({p.tables, p.tokens, p.state, p.source, nullptr, p.rows}, r);
    p.phase[r] = uint8_t(budget::load(p.state + r * budget::STATE_WIDTH).last_phase);
    sampled = p.source[r] == budget::SAMPLED;  // an EOS that was replaced is not what was emitted
  }
  p.logprobs[r] = sampled ? drawn.logprob : 0.0f;
  p.full_logprobs[r] = sampled ? drawn.full_logprob : 0.0f;
}

}  // namespace elastic::sampling
