// Parts of budget_machine.h's transition function: moves between phases, a row's end, and its first state.
#pragma once

#include "core/budget_state.h"

namespace elastic::budget {

ELASTIC_HD void finish(Row& row, int32_t reason) {
  row.phase = DONE;
  row.finish = reason;
  row.ended = 0;
}

// What a sampled token leaves of a character (R21).
ELASTIC_HD void read_bytes(Row& row, const int32_t* table, const Token& token) {
  if (!table[WHOLE_CHARACTERS]) return;
  const int32_t left = row.pending - (token.character - CONTINUES);
  row.pending = token.character < CONTINUES ? token.character : left > 0 ? left : 0;
}

// Whether a cut that is due waits for the character in progress (R21): one more token is sampled then.
ELASTIC_HD bool waits(Row& row) {
  if (row.pending == 0 || row.waited >= MOST_WAITED) return false;
  row.waited++;
  return true;
}

// The finish reason of a row that may sample no further solution token (R7, R14), or RUNNING.
ELASTIC_HD int32_t solution_spent(const Row& row, const int32_t* table) {
  if (row.solution >= table[SOLUTION_LIMIT]) return SOLUTION_BUDGET;
  return int64_t(row.thinking) + row.solution >= table[TOTAL_LIMIT] ? TOTAL_BUDGET : RUNNING;
}

ELASTIC_HD void end_solution_token(Row& row, const int32_t* table, bool eos) {
  if (eos) return finish(row, STOP);
  const int32_t reason = solution_spent(row, table);
  if (reason != RUNNING && !waits(row)) finish(row, reason);
}

// Takes a marker's tokens out of the thinking count, which may be too low for that in a foreign state.
ELASTIC_HD void give_back(Row& row, int32_t tokens) {
  row.thinking = row.thinking > tokens ? row.thinking - tokens : 0;
}

// Forces F (R1), or its rest behind an end marker in progress, whose tokens do not count as thinking (R3).
ELASTIC_HD void begin_closing(Row& row, const int32_t* table) {
  const Longest begun = longest_end(row.match, table, /*forced_only=*/true);
  give_back(row, begun.tokens);
  row.forced = begun.tokens > 0 ? begun.spelling[AT] + begun.tokens : table[CLOSING_AT];
  row.match = row.ended = 0;
  row.cut = 1;
  row.phase = CLOSING;
}

ELASTIC_HD void cut_thinking(Row& row, const int32_t* table) {
  row.phase = THINKING;
  row.forced = 0;
  if (!waits(row)) begin_closing(row, table);
}

// Thinking goes on: a due notice first (R12), which waits while an end marker is in progress.
ELASTIC_HD void continue_thinking(Row& row, const int32_t* table) {
  if (row.ended) return cut_thinking(row, table);
  row.phase = THINKING;
  row.forced = 0;
  if (row.match != 0 || row.notices >= table[NOTICE_COUNT] || row.thinking >= table[THINKING_LIMIT]) return;
  const int32_t* notice = table + table[NOTICES_AT] + 2 * row.notices;
  if (row.thinking < notice[0]) return;
  row.notices++;
  row.forced = notice[1];
  row.phase = NOTICE;
}

// `begun`: places of an end that begins in the very token that opens thinking.
ELASTIC_HD void enter_thinking(Row& row, const int32_t* table, int32_t begun = 0) {
  row.match = begun;
  row.solution = 0;
  if (row.thinking >= table[THINKING_LIMIT]) {
    cut_thinking(row, table);  // R9, R19
  } else {
    continue_thinking(row, table);
  }
}

ELASTIC_HD void enter_solution(Row& row, int32_t forced = 0) {
  row.phase = SOLUTION;
  row.match = row.ended = 0;
  row.forced = forced;
}

// Counts tokens already thought (R19) as if the row had sampled them. Notices at a lower count are past.
ELASTIC_HD void count_used(Row& row, const int32_t* table, int64_t used) {
  const int64_t t = table[THINKING_LIMIT];
  for (const int64_t most :
       {t > 0 ? t + table[GRACE] : 0, int64_t(table[TOTAL_LIMIT]), int64_t(INT32_MAX - 1)})
    used = used < most ? used : most;
  row.thinking = int32_t(used);
  const int32_t* notice = table + table[NOTICES_AT];
  while (row.notices < table[NOTICE_COUNT] && notice[2 * row.notices] < row.thinking) row.notices++;
}

// A row before its first token, with `used` thinking tokens behind it. CLOSING and NOTICE, in which no row
// starts, read as THINKING. Illegal values give a row that is DONE and only emits padding.
ELASTIC_HD Row initial(const Tables& tables, int64_t budget, int64_t start, int64_t used) {
  const bool known = budget >= 0 && budget < tables.count && start >= OPENING && start <= DONE && used >= 0 &&
                     (used == 0 || start != OPENING);
  int32_t phase = known ? int32_t(start) : int32_t(DONE);
  if (phase == CLOSING || phase == NOTICE) phase = THINKING;
  Row row{};
  row.budget = budget >= 0 && budget < tables.count ? int32_t(budget) : 0;
  row.phase = row.last_phase = phase;
  if (phase == OPENING || phase == DONE) return row;
  const int32_t* table = table_of(row, tables);
  count_used(row, table, used);
  const int32_t reason = solution_spent(row, table);
  if (reason != RUNNING) {
    finish(row, reason);
  } else if (phase == THINKING) {
    enter_thinking(row, table);
  }
  return row;
}

// Thinking is to end at the next step, as if the budget were spent (R22).
ELASTIC_HD void end_thinking(Row& row) {
  if (row.ended || (row.phase != OPENING && row.phase != THINKING && row.phase != NOTICE)) return;
  row.ended = 1;
  if (row.phase == THINKING && row.waited == 0) waits(row);  // else a cut waits already
}

// Begins the closing that `end_thinking`, which has no table at hand, asked for.
ELASTIC_HD void settle(Row& row, const int32_t* table) {
  if (row.ended && row.phase == THINKING && row.waited == 0) begin_closing(row, table);
}

}  // namespace elastic::budget
