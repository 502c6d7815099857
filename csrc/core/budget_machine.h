// The budget machine: which token a row emits next, given the token that was sampled for it.
//
// One transition function, for host and device, is the only truth (SPEC section 2, rules R1-R17). The CPU op,
// the CUDA op and the fused sampler call it. A row is 8 int32; nothing of the token history is kept, because
// KMP positions say all that matters about it: O(1) amortised a step, also for markers overlapping
// themselves. Each distinct budget is one row of an int32 table, written by elastic/machine.py, which names
// the same fields. No torch, no allocation, no exceptions: compiled by g++ and by nvcc.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace elastic::budget {

enum Source : uint8_t { SAMPLED = 0, FORCED = 1, PAD = 2 };
enum Phase : int32_t { OPENING = 0, THINKING = 1, CLOSING = 2, NOTICE = 3, SOLUTION = 4, DONE = 5 };
enum Finish : int32_t { RUNNING = 0, STOP = 1, SOLUTION_BUDGET = 2, TOTAL_BUDGET = 3 };
enum TokenFlag : uint8_t { EOS = 1, WHITESPACE = 2 };  // the other six bits: boundary sets of R13

constexpr int STATE_WIDTH = 8;
constexpr uint8_t NO_HINT = 255;
// White space before the start marker is free (R9), but a row that samples nothing else has to end (R5).
constexpr int OPENING_WHITESPACE_LIMIT = 32;

// Columns of a table row. `*_AT` are columns of the same row where a list of ids starts; text lists end in
// -1. Limits that do not exist are INT32_MAX.
enum Column : int {
  THINKING_LIMIT = 0,  // t
  SOLUTION_LIMIT = 1,  // s
  TOTAL_LIMIT = 2,     // c
  MIN_THINKING = 3,    // R11
  MAX_EXTENSIONS = 4,  // R11
  GRACE = 5,           // R13
  BOUNDARY_MASK = 6,   // R13: bit in the token flags, 0 for none
  EOS_STOPS = 7,       // R6: on_eos="stop"
  FORBID_REOPEN = 8,   // R8: on_reopen="forbid"
  PAD_ID = 9,
  START_LENGTH = 10,
  START_AT = 11,          // START_LENGTH ids
  START_BORDERS_AT = 12,  // START_LENGTH + 1 KMP borders
  START_WHITESPACE = 13,  // leading tokens of the start marker that are white space
  END_LENGTH = 14,
  END_AT = 15,
  END_BORDERS_AT = 16,
  CLOSING_AT = 17,         // F
  CLOSING_MARKER_AT = 18,  // the end marker in F
  CLOSING_TAIL_AT = 19,    // behind the end marker in F
  EXTENSION_AT = 20,
  NOTICE_COUNT = 21,
  NOTICES_AT = 22,  // NOTICE_COUNT pairs (used thinking tokens, column of the text), ascending
  HEADER_WIDTH = 23,
};

// What every row shares. Host or device pointers.
struct Tables {
  const int32_t* rows;         // [count, width]
  const uint8_t* token_flags;  // [vocab]; ids outside have no flag
  int64_t count;
  int64_t width;
  int64_t vocab;
};

struct Row {
  int32_t budget;      // row of the table
  int32_t phase;       // of the token emitted next
  int32_t last_phase;  // of the token emitted last
  int32_t finish;
  int32_t cut;         // 1 once closing tokens were forced
  int32_t whitespace;  // white space tokens passed while OPENING
  int32_t thinking;    // sampled thinking tokens; those of a marker in progress count until it completes
  int32_t solution;    // sampled solution tokens; in OPENING those of a start marker in progress
  int32_t match;  // tokens matched of the end marker (THINKING) or of the start marker (OPENING, SOLUTION)
  int32_t extensions;  // used so far
  int32_t notices;     // used so far
  int32_t forced;      // column of the next forced id, 0 for none
};

struct Emitted {
  int64_t token;
  uint8_t source;
};

ELASTIC_HD Row load(const int32_t* state) {
  const int32_t bits = state[1];
  return Row{state[0], bits & 15, bits >> 4 & 15, bits >> 8 & 15, bits >> 12 & 1, bits >> 16 & 255,
             state[2], state[3],  state[4],       state[5],       state[6],       state[7]};
}

ELASTIC_HD void store(const Row& row, int32_t* state) {
  state[0] = row.budget;
  state[1] = row.phase | row.last_phase << 4 | row.finish << 8 | row.cut << 12 | row.whitespace << 16;
  state[2] = row.thinking;
  state[3] = row.solution;
  state[4] = row.match;
  state[5] = row.extensions;
  state[6] = row.notices;
  state[7] = row.forced;
}

ELASTIC_HD uint8_t flags_of(const Tables& tables, int64_t token) {
  return token >= 0 && token < tables.vocab ? tables.token_flags[token] : uint8_t(0);
}

// One KMP step: the longest prefix of the marker that the emitted tokens, with `token` behind them, end in.
ELASTIC_HD int32_t advance(const int32_t* marker, const int32_t* borders, int32_t length, int32_t match,
                           int64_t token) {
  while (match > 0 && (match == length || marker[match] != token)) match = borders[match];
  return marker[match] == token ? match + 1 : 0;
}

ELASTIC_HD int32_t advance_start(const int32_t* table, int32_t match, int64_t token) {
  return advance(table + table[START_AT], table + table[START_BORDERS_AT], table[START_LENGTH], match, token);
}

ELASTIC_HD int32_t advance_end(const int32_t* table, int32_t match, int64_t token) {
  return advance(table + table[END_AT], table + table[END_BORDERS_AT], table[END_LENGTH], match, token);
}

ELASTIC_HD void finish(Row& row, int32_t reason) {
  row.phase = DONE;
  row.finish = reason;
}

// Ends the row if a budget of sampled tokens is spent (R7, R14).
ELASTIC_HD void check_solution_limits(Row& row, const int32_t* table) {
  if (row.solution >= table[SOLUTION_LIMIT]) {
    finish(row, SOLUTION_BUDGET);
  } else if (int64_t(row.thinking) + row.solution >= table[TOTAL_LIMIT]) {
    finish(row, TOTAL_BUDGET);
  }
}

// Forces F, or what is left of it behind an end marker in progress, whose tokens are given back (R1, R3).
ELASTIC_HD void begin_closing(Row& row, const int32_t* table) {
  row.thinking -= row.match;
  row.forced = row.match > 0 ? table[CLOSING_MARKER_AT] + row.match : table[CLOSING_AT];
  row.match = 0;
  row.cut = 1;
  row.phase = CLOSING;
}

// Thinking goes on: a due notice first (R12), which waits while an end marker is in progress.
ELASTIC_HD void continue_thinking(Row& row, const int32_t* table) {
  row.phase = THINKING;
  row.forced = 0;
  if (row.match > 0 || row.notices >= table[NOTICE_COUNT] || row.thinking >= table[THINKING_LIMIT]) return;
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
ELASTIC_HD Row initial(const Tables& tables, int64_t budget, int32_t phase) {
  const bool known = budget >= 0 && budget < tables.count && phase >= OPENING && phase <= DONE;
  if (!known) phase = DONE;
  if (phase == CLOSING || phase == NOTICE) phase = THINKING;
  Row row{};
  row.budget = known ? int32_t(budget) : 0;
  row.phase = row.last_phase = phase;
  if (phase == THINKING) enter_thinking(row, tables.rows + row.budget * tables.width);
  return row;
}

// The id that the row emits next whatever is sampled, or -1. A finished row gives its padding id.
ELASTIC_HD int32_t next_forced(const Row& row, const int32_t* table) {
  if (row.phase == DONE) return table[PAD_ID];
  return row.forced != 0 ? table[row.forced] : -1;
}

// The id that may not be sampled next (R8, on_reopen="forbid"), or -1: the start marker's last token where it
// would complete the marker.
ELASTIC_HD int32_t next_masked(const Row& row, const int32_t* table) {
  if (row.phase != SOLUTION || !table[FORBID_REOPEN]) return -1;
  const int32_t length = table[START_LENGTH];
  const int32_t last = table[table[START_AT] + length - 1];
  return advance_start(table, row.match, last) == length ? last : -1;
}

ELASTIC_HD Emitted emit_forced(Row& row, const int32_t* table) {
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
  if (behind) row.match = advance_start(table, row.match, token);
  if (ends) {
    row.phase = SOLUTION;
    row.forced = 0;
  }
  return {token, FORCED};
}

// An early end marker or EOS gives way to the extension while there is one left (R11).
ELASTIC_HD bool wants_extension(const Row& row, const int32_t* table) {
  return row.thinking - row.match < table[MIN_THINKING] && row.extensions < table[MAX_EXTENSIONS];
}

ELASTIC_HD Emitted emit_extension(Row& row, const int32_t* table) {
  row.extensions++;
  row.forced = table[EXTENSION_AT];
  row.match = 0;  // an unfinished marker stays as thinking text
  row.phase = NOTICE;
  return emit_forced(row, table);
}

ELASTIC_HD Emitted step_opening(Row& row, const int32_t* table, int64_t token, uint8_t flags) {
  const int32_t before = row.match, free_tokens = table[START_WHITESPACE];
  const bool eos = flags & EOS;
  row.last_phase = OPENING;
  row.match = eos ? 0 : advance_start(table, before, token);
  if (row.match == table[START_LENGTH]) {
    enter_thinking(row, table);
    return {token, SAMPLED};
  }
  // Tokens that can no longer belong to a start marker: white space is free, other text opens the solution.
  const int32_t dropped = before + 1 - row.match;
  const bool blank = row.match > 0 ? dropped <= free_tokens : before <= free_tokens && (flags & WHITESPACE);
  if (!eos && (dropped == 0 || (blank && row.whitespace + dropped <= OPENING_WHITESPACE_LIMIT))) {
    row.whitespace += dropped;
    row.solution = row.match > free_tokens ? row.match - free_tokens : 0;
    check_solution_limits(row, table);
    return {token, SAMPLED};
  }
  row.phase = row.last_phase = SOLUTION;
  row.solution += 1;
  if (eos) {
    finish(row, STOP);
  } else {
    check_solution_limits(row, table);
  }
  return {token, SAMPLED};
}

ELASTIC_HD Emitted step_thinking(Row& row, const int32_t* table, int64_t token, uint8_t flags) {
  const bool eos = flags & EOS;
  const int32_t length = table[END_LENGTH];
  const int32_t match = eos ? 0 : advance_end(table, row.match, token);
  if ((eos || match == length) && wants_extension(row, table)) return emit_extension(row, table);
  if (eos && !table[EOS_STOPS]) {
    begin_closing(row, table);  // R6
    return emit_forced(row, table);
  }
  row.last_phase = THINKING;
  row.thinking++;
  row.match = match;
  const int32_t limit = table[THINKING_LIMIT];
  if (eos) {
    finish(row, STOP);
  } else if (match == length) {
    row.thinking -= length;  // R2
    enter_solution(row);
  } else if (row.thinking >= limit &&
             (row.thinking - limit >= table[GRACE] || (flags & table[BOUNDARY_MASK]))) {
    begin_closing(row, table);
  } else if (row.thinking >= table[TOTAL_LIMIT]) {
    finish(row, TOTAL_BUDGET);  // unlimited thinking under a total: the hard cut of the vanilla method
  } else {
    continue_thinking(row, table);
  }
  return {token, SAMPLED};
}

ELASTIC_HD Emitted step_solution(Row& row, const int32_t* table, int64_t token, uint8_t flags) {
  row.last_phase = SOLUTION;
  row.solution++;
  row.match = advance_start(table, row.match, token);
  if (flags & EOS) {
    finish(row, STOP);
  } else {
    check_solution_limits(row, table);
  }
  return {token, SAMPLED};
}

// (state, sampled token) -> (state, emitted token, source).
ELASTIC_HD Emitted transition(Row& row, const Tables& tables, int64_t token) {
  const int32_t* table = tables.rows + row.budget * tables.width;
  if (row.phase == DONE) {
    row.last_phase = DONE;
    return {table[PAD_ID], PAD};
  }
  if (row.forced != 0) return emit_forced(row, table);
  const uint8_t flags = flags_of(tables, token);
  if (row.phase == OPENING) return step_opening(row, table, token, flags);
  if (row.phase == THINKING) return step_thinking(row, table, token, flags);
  return step_solution(row, table, token, flags);
}

// One token of a history (R10). `hint` is its recorded source, or NO_HINT. Returns false, leaving the row as
// it was, if a row under this budget cannot have emitted it there. Without a hint a token that replaced an
// EOS or an early end marker reads as sampled: nothing in the ids tells them apart.
ELASTIC_HD bool replay_token(Row& row, const Tables& tables, int64_t token, uint8_t hint, Emitted& out) {
  const int32_t* table = tables.rows + row.budget * tables.width;
  Row next = row;
  if (hint == FORCED && row.phase == THINKING) {
    if (wants_extension(row, table)) {
      out = emit_extension(next, table);
    } else if (!table[EOS_STOPS]) {
      begin_closing(next, table);
      out = emit_forced(next, table);
    } else {
      return false;
    }
  } else {
    out = transition(next, tables, token);
  }
  if (out.token != token || (hint != NO_HINT && hint != out.source)) return false;
  row = next;
  return true;
}

}  // namespace elastic::budget
