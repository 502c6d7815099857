// The budget machine: which token a row emits next, given the token that was sampled for it.
//
// One transition function, for host and device, is the only truth (SPEC section 2, rules R1-R17). The CPU op,
// the CUDA op and the fused sampler call it. A row is 8 int32, and no token history is kept: a set of bits,
// bit i for "the last i+1 tokens are the first i+1 of the marker", says all that matters about it. It is
// advanced by a shift and a mask (shift-and matching): O(1) a step, also for markers that overlap themselves,
// and several tokens may stand for one place of the marker, which KMP borders cannot do. Each distinct budget
// is one row of an int32 table, written by elastic/machine.py, which names the same fields. No torch, no
// allocation, no exceptions: compiled by g++ and by nvcc.
#pragma once

#include "core/budget_state.h"

namespace elastic::budget {

ELASTIC_HD void finish(Row& row, int32_t reason) {
  row.phase = DONE;
  row.finish = reason;
}

// The finish reason of a row that may sample no further solution token (R7, R14), or RUNNING.
ELASTIC_HD int32_t solution_spent(const Row& row, const int32_t* table) {
  if (row.solution >= table[SOLUTION_LIMIT]) return SOLUTION_BUDGET;
  return int64_t(row.thinking) + row.solution >= table[TOTAL_LIMIT] ? TOTAL_BUDGET : RUNNING;
}

ELASTIC_HD void end_solution_token(Row& row, const int32_t* table, bool eos) {
  const int32_t reason = eos ? int32_t(STOP) : solution_spent(row, table);
  if (reason != RUNNING) finish(row, reason);
}

// Forces F, or what is left of it behind an end marker in progress, whose tokens are given back (R1, R3).
ELASTIC_HD void begin_closing(Row& row, const int32_t* table) {
  const int32_t begun = matched(row.match);
  row.thinking -= begun;
  row.forced = begun > 0 ? table[CLOSING_MARKER_AT] + begun : table[CLOSING_AT];
  row.match = 0;
  row.cut = 1;
  row.phase = CLOSING;
}

// Thinking goes on: a due notice first (R12), which waits while an end marker is in progress.
ELASTIC_HD void continue_thinking(Row& row, const int32_t* table) {
  row.phase = THINKING;
  row.forced = 0;
  if (row.match != 0 || row.notices >= table[NOTICE_COUNT] || row.thinking >= table[THINKING_LIMIT]) return;
  const int32_t* notice = table + table[NOTICES_AT] + 2 * row.notices;
  if (row.thinking < notice[0]) return;
  row.notices++;
  row.forced = notice[1];
  row.phase = NOTICE;
}

ELASTIC_HD void enter_thinking(Row& row, const int32_t* table) {
  row.match = 0;
  row.solution = 0;
  if (table[THINKING_LIMIT] == 0) {
    begin_closing(row, table);  // R9
  } else {
    continue_thinking(row, table);
  }
}

ELASTIC_HD void enter_solution(Row& row) {
  row.phase = SOLUTION;
  row.match = 0;
  row.forced = 0;
}

// A row before its first token. CLOSING and NOTICE are no places to start: they read as THINKING. An index
// outside the tables gives a row that is DONE and only emits padding.
ELASTIC_HD Row initial(const Tables& tables, int64_t budget, int64_t start) {
  const bool known = budget >= 0 && budget < tables.count && start >= OPENING && start <= DONE;
  int32_t phase = known ? int32_t(start) : int32_t(DONE);
  if (phase == CLOSING || phase == NOTICE) phase = THINKING;
  Row row{};
  row.budget = known ? int32_t(budget) : 0;
  row.phase = row.last_phase = phase;
  if (phase == THINKING) enter_thinking(row, table_of(row, tables));
  return row;
}

// The id that the row emits next whatever is sampled, or -1. A finished row gives its padding id.
ELASTIC_HD int32_t next_forced(const Row& row, const int32_t* table) {
  if (row.phase == DONE) return table[PAD_ID];
  return row.forced != 0 ? table[row.forced] : -1;
}

// Whether the tokens that complete a start marker may not be sampled next (R8, on_reopen="forbid").
ELASTIC_HD bool forbids_start(const Row& row, const int32_t* table) {
  return row.phase == SOLUTION && table[FORBID_REOPEN] &&
         completes(advance(row.match, PLACES), table[START_LENGTH]);
}

ELASTIC_HD Emitted emit_forced(Row& row, const Tables& tables, const int32_t* table) {
  const int32_t at = row.forced++;
  const int32_t token = table[at];
  const bool ends = table[row.forced] < 0;
  if (row.phase == NOTICE) {
    row.last_phase = NOTICE;
    if (ends) continue_thinking(row, table);
    return {token, FORCED};
  }
  // Behind the end marker F is solution text (R4), and a start marker may begin in it.
  const bool behind = at >= table[CLOSING_TAIL_AT];
  row.last_phase = behind ? SOLUTION : CLOSING;
  if (behind) row.match = advance(row.match, look_up(tables, token).start_places);
  if (ends) {
    row.phase = SOLUTION;
    row.forced = 0;
  }
  return {token, FORCED};
}

// An early end marker or EOS gives way to the extension while there is one left (R11).
ELASTIC_HD bool wants_extension(const Row& row, const int32_t* table) {
  return row.thinking - matched(row.match) < table[MIN_THINKING] && row.extensions < table[MAX_EXTENSIONS];
}

ELASTIC_HD Emitted emit_extension(Row& row, const Tables& tables, const int32_t* table) {
  row.extensions++;
  row.forced = table[EXTENSION_AT];
  row.match = 0;  // an unfinished marker stays as thinking text
  row.phase = NOTICE;
  return emit_forced(row, tables, table);
}

// White space and the start marker are free, other text opens the solution and counts there (R9). The tokens
// of a start marker in progress count until it completes; once they have spent the solution budget, what
// would overspend it is replaced by the rest of the marker.
ELASTIC_HD Emitted step_opening(Row& row, const Tables& tables, const int32_t* table, Token token) {
  const int32_t begun = row.match, before = matched(begun), free_tokens = table[START_WHITESPACE];
  uint8_t source = SAMPLED;
  // Text in front of a marker is text: such a token begins no marker here, though it may in the solution.
  row.match = advance(begun, token.flags & TEXT_BEFORE_START ? token.start_places & ~1 : token.start_places);
  if (matched(row.match) != before + 1 && before > free_tokens && solution_spent(row, table) != RUNNING) {
    token = look_up(tables, table[table[START_AT] + before]);
    row.match = advance(begun, token.start_places);
    source = FORCED;
  }
  row.last_phase = OPENING;
  if (completes(row.match, table[START_LENGTH])) {
    enter_thinking(row, table);
    return {token.id, source};
  }
  // Tokens that can no longer belong to a start marker are white space, or the solution begins.
  const int32_t after = matched(row.match), dropped = before + 1 - after;
  const bool blank = after > 0 ? dropped <= free_tokens : before <= free_tokens && (token.flags & WHITESPACE);
  if (dropped == 0 || (blank && row.whitespace + dropped <= OPENING_WHITESPACE_LIMIT)) {
    row.whitespace += dropped;
    row.solution = after > free_tokens ? after - free_tokens : 0;
    return {token.id, source};
  }
  row.match = advance(begun, token.start_places);
  row.phase = row.last_phase = SOLUTION;
  row.solution += 1;
  end_solution_token(row, table, token.flags & EOS);
  return {token.id, source};
}

ELASTIC_HD Emitted step_thinking(Row& row, const Tables& tables, const int32_t* table, const Token& token) {
  const bool eos = token.flags & EOS;
  const int32_t length = table[END_LENGTH], limit = table[THINKING_LIMIT];
  const int32_t match = advance(row.match, token.end_places);
  const bool ends = completes(match, length);
  if ((eos || ends) && wants_extension(row, table)) return emit_extension(row, tables, table);
  if (eos && !table[EOS_STOPS]) {
    begin_closing(row, table);  // R6
    return emit_forced(row, tables, table);
  }
  row.last_phase = THINKING;
  row.thinking++;
  row.match = match;
  if (eos) {
    finish(row, STOP);
  } else if (ends) {
    row.thinking -= length;  // R2
    enter_solution(row);
  } else if (row.thinking >= limit &&
             (row.thinking - limit >= table[GRACE] || (token.flags & table[BOUNDARY_MASK]))) {
    begin_closing(row, table);
  } else if (row.thinking >= table[TOTAL_LIMIT]) {
    finish(row, TOTAL_BUDGET);  // unlimited thinking under a total: the hard cut of the vanilla method
  } else {
    continue_thinking(row, table);
  }
  return {token.id, SAMPLED};
}

ELASTIC_HD Emitted step_solution(Row& row, const int32_t* table, const Token& token) {
  row.last_phase = SOLUTION;
  row.solution++;
  row.match = advance(row.match, token.start_places);
  end_solution_token(row, table, token.flags & EOS);
  return {token.id, SAMPLED};
}

// (state, sampled token) -> (state, emitted token, source).
ELASTIC_HD Emitted transition(Row& row, const Tables& tables, int64_t sampled) {
  const int32_t* table = table_of(row, tables);
  if (row.phase == DONE) {
    row.last_phase = DONE;
    return {table[PAD_ID], PAD};
  }
  if (row.forced != 0) return emit_forced(row, tables, table);
  const Token token = look_up(tables, sampled);
  if (row.phase == OPENING) return step_opening(row, tables, table, token);
  if (row.phase == THINKING) return step_thinking(row, tables, table, token);
  return step_solution(row, table, token);
}

// One token of a history (R10). `hint` is its recorded source, or NO_HINT. Returns false, leaving the row as
// it was, if a row under this budget cannot have emitted it there. Without a hint a token that replaced an
// EOS or an early end marker reads as sampled: nothing in the ids tells them apart.
ELASTIC_HD bool replay_token(Row& row, const Tables& tables, int64_t token, uint8_t hint, Emitted& out) {
  const int32_t* table = table_of(row, tables);
  Row next = row;
  if (hint == FORCED && row.phase == THINKING) {
    if (wants_extension(row, table)) {
      out = emit_extension(next, tables, table);
    } else if (!table[EOS_STOPS]) {
      begin_closing(next, table);
      out = emit_forced(next, tables, table);
    } else {
      return false;
    }
  } else {
    // In OPENING only a token that continues no marker can have been replaced: -1 is one.
    out = transition(next, tables, hint == FORCED && row.phase == OPENING ? -1 : token);
  }
  if (out.token != token || (hint != NO_HINT && hint != out.source)) return false;
  row = next;
  return true;
}

}  // namespace elastic::budget
