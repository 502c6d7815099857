// Whether a row's state can be one that these tables led to.
//
// The state of another machine would send the transition function outside the tables. The ops refuse it on
// the host, naming row and field; on a device, where nobody has read it before, such a row is DONE.
#pragma once

#include <utility>

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

template <Field F>
ELASTIC_HD Range range_of(const Row& row, const Tables& tables) {
  const int32_t* table = table_of(row, tables);
  if constexpr (F == Field::BUDGET) return {row.budget, 0, int32_t(tables.count - 1)};
  if constexpr (F == Field::PHASE) return {row.phase, OPENING, DONE};
  if constexpr (F == Field::LAST_PHASE) return {row.last_phase, OPENING, DONE};
  if constexpr (F == Field::FINISH) return {row.finish, RUNNING, TOTAL_BUDGET};
  if constexpr (F == Field::CUT) return {row.cut, 0, 1};
  if constexpr (F == Field::WHITESPACE) return {row.whitespace, 0, OPENING_WHITESPACE_LIMIT};
  if constexpr (F == Field::MATCH) return {row.match, 0, most_match(row, table)};
  if constexpr (F == Field::THINKING) return thinking_range(row, table);
  if constexpr (F == Field::SOLUTION) return solution_range(row, table);
  if constexpr (F == Field::EXTENSIONS) return {row.extensions, 0, table[MAX_EXTENSIONS]};
  if constexpr (F == Field::NOTICES) return {row.notices, 0, table[NOTICE_COUNT]};
  if constexpr (F == Field::FORCED) return forced_range(row, table);
}

struct Misfit {
  Field field = Field::NONE;
  Range range{};
};

template <Field F>
ELASTIC_HD bool misses(const Row& row, const Tables& tables, Misfit& out) {
  const Range range = range_of<F>(row, tables);
  if (range.least <= range.value && range.value <= range.most) return false;
  out = {F, range};
  return true;
}

// No table is read before the budget is known to fit.
template <int... F>
ELASTIC_HD Misfit first_misfit(const Row& row, const Tables& tables, std::integer_sequence<int, F...>) {
  Misfit out;
  (void)(misses<Field(F)>(row, tables, out) || ...);
  return out;
}

// The first field that does not fit.
ELASTIC_HD Misfit misfit(const Row& row, const Tables& tables) {
  const Misfit out = first_misfit(row, tables, std::make_integer_sequence<int, int(Field::NONE)>());
  // Between two texts of the notices stands an end mark.
  const bool ended = out.field == Field::NONE && row.forced != 0 && table_of(row, tables)[row.forced] < 0;
  return ended ? Misfit{Field::FORCED, range_of<Field::FORCED>(row, tables)} : out;
}

// The row of a state; DONE under a known budget where the state does not fit.
ELASTIC_HD Row load(const int32_t* state, const Tables& tables) {
  const Row row = load(state);
  if (misfit(row, tables).field == Field::NONE) return row;
  Row done{};
  done.budget = row.budget >= 0 && row.budget < tables.count ? row.budget : 0;
  done.phase = done.last_phase = DONE;
  return done;
}

}  // namespace elastic::budget
