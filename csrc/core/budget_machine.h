// The budget machine: which token a row emits next, given the token that was sampled for it.
//
// One transition function for host and device implements SPEC section 2, rules R1-R22. The CPU op, the CUDA
// op and the fused sampler call it. A row is 8 int32. No token history is kept: a bit mask, whose bit i means
// "the last tokens match a marker up to place i", has all that matters of it. The mask holds the places of
// all spellings of all markers one after the other, and a shift and a mask advance them together (shift-and
// matching): O(1) per step, also for markers that overlap themselves. Several tokens may stand for one place
// of a marker, which KMP borders cannot express. A loop over spellings runs only where a marker begins,
// completes or is cut. Each distinct budget is one row of an int32 table, written by elastic/budget/table.py,
// which names the same columns. No torch, no allocation, no exceptions: compiled by g++ and by nvcc.
#pragma once

#include "core/budget_moves.h"

namespace elastic::budget {

// The id that the row emits next whatever is sampled, or -1. A finished row gives its padding id.
ELASTIC_HD int32_t next_forced(const Row& row, const int32_t* table) {
  if (row.phase == DONE) return table[PAD_ID];
  return row.forced != 0 ? table[row.forced] : -1;
}

// The tokens that may not be sampled next in a solution (R8, R20).
ELASTIC_HD Masked masked_next(const Row& row, const int32_t* table) {
  Masked masked{table, 0, 0};
  if (row.phase != SOLUTION) return masked;
  masked.starts = advance(row.match, table[START_FIRSTS], table[FORBID_REOPEN]);
  if (row.cut) masked.ends = advance(row.reclose, table[END_FIRSTS], table[FORBID_RECLOSE]);
  return masked;
}

ELASTIC_HD void read_solution_token(Row& row, const int32_t* table, const Token& token) {
  row.last_phase = SOLUTION;
  row.match = advance(row.match, table[START_FIRSTS], token.start_places);
  if (row.cut && table[FORBID_RECLOSE])
    row.reclose = advance(row.reclose, table[END_FIRSTS], token.end_places);
}

ELASTIC_HD Emitted emit_forced(Row& row, const Tables& tables, const int32_t* table) {
  const int32_t token = table[row.forced++];
  const bool ends = table[row.forced] < 0;
  row.last_phase = row.phase;
  row.pending = 0;
  // Behind the end marker F is solution text (R4), and a marker may begin in it.
  if (row.phase == SOLUTION) read_solution_token(row, table, look_up(tables, token));
  if (!ends) return {token, FORCED};
  if (row.phase == NOTICE) {
    continue_thinking(row, table);
  } else if (row.phase == CLOSING) {
    const int32_t tail = table[TAIL_AT];
    enter_solution(row, table[tail] < 0 ? 0 : tail);
  } else {
    row.forced = 0;
  }
  return {token, FORCED};
}

// An early end or EOS gives way to the extension while there is one left (R11), and no cut is due.
ELASTIC_HD bool wants_extension(const Row& row, const int32_t* table) {
  if (row.extensions >= table[MAX_EXTENSIONS] || row.ended || row.waited > 0) return false;
  return row.thinking - longest_end(row.match, table).tokens < table[MIN_THINKING];
}

ELASTIC_HD Emitted emit_extension(Row& row, const Tables& tables, const int32_t* table) {
  row.extensions++;
  row.forced = table[EXTENSION_AT];
  row.match = 0;  // an unfinished marker stays as thinking text
  row.phase = NOTICE;
  return emit_forced(row, tables, table);
}

// White space passed in OPENING once only the last `kept` tokens may belong to a start marker; `begun` is the
// marker in progress before the token. -1 where other text, or too much white space, precedes those tokens.
ELASTIC_HD int32_t space_before(const Row& row, const Longest& begun, int32_t kept, bool blank) {
  const int32_t dropped = begun.tokens + 1 - kept;
  const int32_t leading = begun.tokens > 0 ? begun.spelling[LEADING_SPACE] : 0;
  const bool free = kept > 0 ? dropped <= leading : begun.tokens <= leading && blank;
  const int32_t passed = row.whitespace + dropped;
  return dropped == 0 || (free && passed <= OPENING_WHITESPACE_LIMIT) ? passed : -1;
}

// Moves the row on if the token keeps it in OPENING or leads to THINKING; else false, and nothing changes.
ELASTIC_HD bool goes_on_opening(Row& row, const int32_t* table, const Longest& begun, const Token& token) {
  const int32_t match = advance(row.match, table[START_FIRSTS], token.start_places);
  const int32_t lasts = table[START_LASTS];
  const bool blank = token.flags & WHITESPACE;
  const int32_t complete = longest_start(match & lasts, table).tokens;
  if (complete > 0 && space_before(row, begun, complete, blank) >= 0) {
    enter_thinking(row, table, token.joins ? token.end_places & table[END_FIRSTS] & ~table[END_LASTS] : 0);
    return true;
  }
  const Longest now = longest_start(match & ~lasts, table);
  const int32_t passed = space_before(row, begun, now.tokens, blank);
  if (passed < 0) return false;
  const int32_t text = now.tokens - now.spelling[LEADING_SPACE];
  row.match = match & ~lasts;
  row.whitespace = passed;
  row.solution = text > 0 ? text : 0;
  return true;
}

// White space and the start marker are free, other text opens the solution and counts there (R9). The tokens
// of a start marker in progress count until it completes; once they have spent the solution budget, a token
// that would overspend it is replaced by the rest of the marker.
ELASTIC_HD Emitted step_opening(Row& row, const Tables& tables, const int32_t* table, Token token) {
  const Longest begun = longest_start(row.match, table);
  // Text in front of a marker is text: such a token begins no marker here, though it may in the solution.
  Token here = token;
  if (token.flags & TEXT_BEFORE_START) here.start_places &= ~table[START_FIRSTS];
  row.last_phase = OPENING;
  read_bytes(row, table, token);
  if (goes_on_opening(row, table, begun, here)) return {token.id, SAMPLED};
  if (begun.tokens > begun.spelling[LEADING_SPACE] && solution_spent(row, table) != RUNNING) {
    token = look_up(tables, table[begun.spelling[AT] + begun.tokens]);
    row.pending = 0;
    goes_on_opening(row, table, begun, token);
    return {token.id, FORCED};
  }
  row.phase = SOLUTION;
  row.ended = 0;
  row.solution++;
  read_solution_token(row, table, token);
  end_solution_token(row, table, token.flags & EOS);
  return {token.id, SAMPLED};
}

// The end's tokens do not count as thinking (R2); those of an end that opens something are solution (R18).
ELASTIC_HD void end_naturally(Row& row, const int32_t* table, const Token& token) {
  const Longest end = longest_end(row.match & table[END_LASTS], table);
  give_back(row, end.tokens);
  enter_solution(row);
  if (!end.spelling[OPENS]) {
    if (token.joins) row.match = token.start_places & table[START_FIRSTS];
    return;
  }
  row.solution = end.tokens;
  read_solution_token(row, table, token);
  end_solution_token(row, table, false);
}

// Whether thinking has to be cut behind the token just counted: R1, R13, R22. A cut that waits stays due.
ELASTIC_HD bool cut_due(const Row& row, const int32_t* table, const Token& token) {
  const int32_t over = row.thinking - table[THINKING_LIMIT];
  return row.ended ||
         (over >= 0 && (over >= table[GRACE] || row.waited > 0 || (token.flags & table[BOUNDARY_MASK])));
}

ELASTIC_HD Emitted step_thinking(Row& row, const Tables& tables, const int32_t* table, const Token& token) {
  const bool eos = token.flags & EOS;
  const int32_t match = advance(row.match, table[END_FIRSTS], token.end_places);
  const bool ends = match & table[END_LASTS];
  if ((eos || ends) && wants_extension(row, table)) return emit_extension(row, tables, table);
  if (eos && !table[EOS_STOPS]) {
    begin_closing(row, table);  // R6
    return emit_forced(row, tables, table);
  }
  row.last_phase = THINKING;
  row.thinking++;
  row.match = match;
  read_bytes(row, table, token);
  if (eos) {
    finish(row, STOP);
  } else if (ends) {
    end_naturally(row, table, token);
  } else if (row.thinking >= table[TOTAL_LIMIT] && row.thinking < table[THINKING_LIMIT]) {
    if (!waits(row)) finish(row, TOTAL_BUDGET);  // unlimited thinking under a total: the vanilla hard cut
  } else if (cut_due(row, table, token)) {
    cut_thinking(row, table);
  } else {
    continue_thinking(row, table);
  }
  return {token.id, SAMPLED};
}

ELASTIC_HD Emitted step_solution(Row& row, const int32_t* table, const Token& token) {
  row.solution++;
  read_bytes(row, table, token);
  read_solution_token(row, table, token);
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
  settle(next, table);
  if (hint == FORCED && next.phase == THINKING) {
    if (wants_extension(next, table)) {
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
