// Whether a row's state can be one that these tables led to.
//
// The state of another machine would send the transition function outside the tables. The ops refuse it on
// the host, naming row and field; on a device, where nobody has read it before, such a row is DONE.
#pragma once

#include "core/budget_state.h"

namespace elastic::budget {

// Of a row's state, in the order they are checked; NONE: all of them fit.
enum class Field : int {
  BUDGET,
  PHASE,
  LAST_PHASE,
  FINISH,
  CUT,
  WHITESPACE,
  MATCH,
  THINKING,
  SOLUTION,
  EXTENSIONS,
  NOTICES,
  FORCED,
  NONE
};

struct Range {
  int32_t value, least, most;
};

// Bits of a complete marker lead to another phase, but for a start marker in solution text.
ELASTIC_HD int32_t most_match(const Row& row, const int32_t* table) {
  if (row.phase == OPENING) return (1 << (table[START_LENGTH] - 1)) - 1;
  if (row.phase == THINKING) return (1 << (table[END_LENGTH] - 1)) - 1;
  return row.phase == NOTICE ? 0 : row.phase == DONE ? PLACES : (1 << table[START_LENGTH]) - 1;
}

// A counter is stepped before it is compared.
ELASTIC_HD int32_t countable(int64_t most) { return most < INT32_MAX ? int32_t(most) : INT32_MAX - 1; }

// The tokens of an end marker in progress are among them; the last one that may be sampled ends thinking.
ELASTIC_HD Range thinking_range(const Row& row, const int32_t* table) {
  const bool goes_on = row.phase == THINKING || row.phase == NOTICE;
  return {row.thinking, row.phase == THINKING ? matched(row.match) : 0,
          countable(int64_t(table[THINKING_LIMIT]) + table[GRACE] - goes_on)};
}

// In OPENING those of a start marker in progress; thinking begins with none.
ELASTIC_HD Range solution_range(const Row& row, const int32_t* table) {
  if (row.phase == SOLUTION || row.phase == DONE)
    return {row.solution, 0, countable(int64_t(table[SOLUTION_LIMIT]) - (row.phase == SOLUTION))};
  const int32_t begun = row.phase == OPENING ? matched(row.match) - table[START_WHITESPACE] : 0;
  return {row.solution, begun > 0 ? begun : 0, begun > 0 ? begun : 0};
}

// Only a row in CLOSING or NOTICE forces a token. F stands in front of the extension, that in front of the
// notices, and those in front of the start marker; each ends in one end mark.
ELASTIC_HD Range forced_range(const Row& row, const int32_t* table) {
  if (row.phase == CLOSING) return {row.forced, table[CLOSING_AT], table[EXTENSION_AT] - 2};
  if (row.phase == NOTICE) return {row.forced, table[EXTENSION_AT], table[START_AT] - 2};
  return {row.forced, 0, 0};
}

// The table's columns are read for fields behind BUDGET, which must fit.
ELASTIC_HD Range range_of(Field field, const Row& row, const Tables& tables) {
  const int32_t* table = table_of(row, tables);
  switch (field) {
    case Field::BUDGET:
      return {row.budget, 0, int32_t(tables.count - 1)};
    case Field::PHASE:
      return {row.phase, OPENING, DONE};
    case Field::LAST_PHASE:
      return {row.last_phase, OPENING, DONE};
    case Field::FINISH:
      return {row.finish, RUNNING, TOTAL_BUDGET};
    case Field::CUT:
      return {row.cut, 0, 1};
    case Field::WHITESPACE:
      return {row.whitespace, 0, OPENING_WHITESPACE_LIMIT};
    case Field::MATCH:
      return {row.match, 0, most_match(row, table)};
    case Field::THINKING:
      return thinking_range(row, table);
    case Field::SOLUTION:
      return solution_range(row, table);
    case Field::EXTENSIONS:
      return {row.extensions, 0, table[MAX_EXTENSIONS]};
    case Field::NOTICES:
      return {row.notices, 0, table[NOTICE_COUNT]};
    default:
      return forced_range(row, table);
  }
}

// The first field that does not fit.
ELASTIC_HD Field misfit(const Row& row, const Tables& tables) {
  for (int f = 0; f < int(Field::NONE); f++) {
    const Range range = range_of(Field(f), row, tables);
    if (range.value < range.least || range.value > range.most) return Field(f);
  }
  // Between two texts of the notices stands an end mark.
  const bool ended = row.forced != 0 && table_of(row, tables)[row.forced] < 0;
  return ended ? Field::FORCED : Field::NONE;
}

// The row of a state; DONE under a known budget where the state does not fit.
ELASTIC_HD Row load(const int32_t* state, const Tables& tables) {
  const Row row = load(state);
  if (misfit(row, tables) == Field::NONE) return row;
  Row done{};
  done.budget = row.budget >= 0 && row.budget < tables.count ? row.budget : 0;
  done.phase = done.last_phase = DONE;
  return done;
}

}  // namespace elastic::budget
