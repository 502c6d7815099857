#include "cpu/budget.h"

#include <algorithm>

namespace elastic::cpu {

void new_state(const budget::NewStateParams& p) {
  for (int64_t r = 0; r < p.rows; r++) budget::new_state_row(p, r);
}

void end_thinking(const budget::EndThinkingParams& p) {
  for (int64_t i = 0; i < p.count; i++) budget::end_thinking_row(p, i);
}

void budget_step(const budget::StepParams& p) {
  int32_t active = 0;
  for (int64_t r = 0; r < p.rows; r++) active += budget::step_row(p, r);
  if (p.active != nullptr) *p.active = active;
}

namespace {

template <class Bits>
void force_rows(const budget::ForceParams& p) {
  const Bits negative_infinity = Bits(p.negative_infinity);
  for (int64_t r = 0; r < p.rows; r++) {
    const budget::Row row = budget::load(p.state + r * budget::STATE_WIDTH, p.tables);
    const int32_t* table = budget::table_of(row, p.tables);
    Bits* logits = static_cast<Bits*>(p.logits) + r * p.row_stride;
    const int32_t forced = budget::next_forced(row, table);
    if (forced >= 0) {
      std::fill(logits, logits + p.vocab, negative_infinity);
      if (forced < p.vocab) logits[forced] = 0;
      continue;
    }
    budget::each_list(budget::masked_next(row, table), [&](const int32_t* ids, int32_t count) {
      for (int32_t i = 0; i < count; i++) {
        if (ids[i] < p.vocab) logits[ids[i]] = negative_infinity;
      }
    });
  }
}

}  // namespace

void force_logits(const budget::ForceParams& p) {
  if (p.element_bytes == 2) {
    force_rows<uint16_t>(p);
  } else if (p.element_bytes == 4) {
    force_rows<uint32_t>(p);
  } else {
    force_rows<uint64_t>(p);
  }
}

void forced_next(const budget::ForcedNextParams& p) {
  for (int64_t r = 0; r < p.rows; r++) budget::forced_next_row(p, r);
}

void replay(const budget::ReplayParams& p) {
  for (int64_t r = 0; r < p.rows; r++) budget::replay_row(p, r);
}

}  // namespace elastic::cpu
