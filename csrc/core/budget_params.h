// Arguments of the budget kernels, the same on the host and on the device. B rows, V vocabulary, T tokens.
#pragma once

#include "core/budget_check.h"
#include "core/budget_machine.h"

namespace elastic::budget {

struct NewStateParams {
  Tables tables;
  const int64_t* budgets;  // [B] row of the table
  const int64_t* phases;   // [B] Phase to start in
  const int64_t* used;     // [B] tokens already thought, or null
  int32_t* state;          // [B, STATE_WIDTH], written
  int64_t rows;
};

struct EndThinkingParams {
  const int64_t* indices;  // [count] rows of the state; those outside are left out. Or null:
  const bool* mask;        // [count = rows] whether the row's thinking ends
  int32_t* state;          // [B, STATE_WIDTH]
  int64_t count;
  int64_t rows;
};

struct StepParams {
  Tables tables;
  int64_t* tokens;  // [B] in: sampled, out: emitted
  int32_t* state;   // [B, STATE_WIDTH]
  uint8_t* source;  // [B], written
  int32_t* active;  // [1], written: rows that are not DONE; or null
  int64_t rows;
};

struct ForceParams {
  Tables tables;
  void* logits;          // [B, V], elements of `element_bytes`; rows `row_stride` elements apart
  const int32_t* state;  // [B, STATE_WIDTH]
  int64_t rows;
  int64_t vocab;
  int64_t row_stride;
  int32_t element_bytes;       // 2, 4 or 8
  uint64_t negative_infinity;  // its bit pattern; +0.0 is all zeros in every type
};

struct ForcedNextParams {
  Tables tables;
  const int32_t* state;  // [B, STATE_WIDTH]
  int32_t* forced;       // [B], written: ids, -1 for none
  int64_t rows;
};

struct ReplayParams {
  Tables tables;
  const int64_t* tokens;   // [R, T]
  const int64_t* lengths;  // [R]
  const uint8_t* hints;    // [R, T] recorded sources, or null
  const int64_t* ended;    // [R] token in front of which thinking is ended from outside, -1: none; or null
  int32_t* state;          // [R, STATE_WIDTH] in: before the first token, out: behind the last
  uint8_t* phase;          // [R, T], written up to the length; the caller fills the rest
  uint8_t* source;         // [R, T], likewise
  int64_t* mismatch;       // [R], written: first position the budget cannot have emitted, or -1
  int64_t rows;
  int64_t tokens_per_row;
};

// Bodies shared by both devices, one row each.

ELASTIC_HD void new_state_row(const NewStateParams& p, int64_t r) {
  const int64_t used = p.used == nullptr ? 0 : p.used[r];
  store(initial(p.tables, p.budgets[r], p.phases[r], used), p.state + r * STATE_WIDTH);
}

// `i` counts the indices or the rows of the mask. An index given twice writes the same twice.
ELASTIC_HD void end_thinking_row(const EndThinkingParams& p, int64_t i) {
  const int64_t r = p.indices == nullptr ? i : p.indices[i];
  if (r < 0 || r >= p.rows || (p.mask != nullptr && !p.mask[i])) return;
  Row row = load(p.state + r * STATE_WIDTH);
  end_thinking(row);
  store(row, p.state + r * STATE_WIDTH);
}

ELASTIC_HD void forced_next_row(const ForcedNextParams& p, int64_t r) {
  const Row row = load(p.state + r * STATE_WIDTH, p.tables);
  p.forced[r] = next_forced(row, table_of(row, p.tables));
}

// Returns whether the row goes on.
ELASTIC_HD bool step_row(const StepParams& p, int64_t r) {
  Row row = load(p.state + r * STATE_WIDTH, p.tables);
  const Emitted out = transition(row, p.tables, p.tokens[r]);
  store(row, p.state + r * STATE_WIDTH);
  p.tokens[r] = out.token;
  p.source[r] = out.source;
  return row.phase != DONE;
}

ELASTIC_HD void replay_row(const ReplayParams& p, int64_t r) {
  Row row = load_known(p.state + r * STATE_WIDTH, p.tables);
  const int64_t base = r * p.tokens_per_row;
  const int64_t ended = p.ended == nullptr ? -1 : p.ended[r];
  // The CPU op refuses longer lengths; on a device nobody has read them.
  const int64_t length = p.lengths[r] < p.tokens_per_row ? p.lengths[r] : p.tokens_per_row;
  int64_t wrong = -1;
  for (int64_t i = 0; i < length; i++) {
    Emitted out;
    const uint8_t hint = p.hints == nullptr ? NO_HINT : p.hints[base + i];
    if (i == ended) end_thinking(row);
    if (!replay_token(row, p.tables, p.tokens[base + i], hint, out)) {
      wrong = i;
      break;
    }
    p.phase[base + i] = uint8_t(row.last_phase);
    p.source[base + i] = out.source;
  }
  if (wrong < 0 && ended == length) end_thinking(row);
  p.mismatch[r] = wrong;
  store(row, p.state + r * STATE_WIDTH);
}

}  // namespace elastic::budget
