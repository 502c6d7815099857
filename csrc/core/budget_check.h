// Whether a row's state can be one that these tables led to.
//
// The state of another machine would send the transition function outside the tables. On the host the ops
// refuse it, naming row and field; on a device, where the host cannot read it first, such a row is DONE. A
// state that fits still fits after every step. The check runs for every row at every step, so a bound is
// loose where the exact one would need a loop over a marker's spellings.
#pragma once

#include <utility>

#include "core/budget_machine.h"

namespace elastic::budget {

// Of a row's state, in the order they are checked; NONE: all of them fit.
enum class Field : int {
  BUDGET,
  PHASE,
  LAST_PHASE,
  FINISH,
  ENDED,
  PENDING,
  WHITESPACE,
  WAITED,
  MATCH,
  THINKING,
  SOLUTION,
  EXTENSIONS,
  NOTICES,
  RECLOSE,
  FORCED,
  NONE
};

struct Range {
  int32_t value, least, most;
};

// The bits of all places up to the highest of these.
ELASTIC_HD int32_t places_to(int32_t lasts) { return int32_t((uint32_t(1) << bit_length(lasts)) - 1); }

// Largest match in a phase: a complete marker leads to another phase, except a start marker in a solution.
ELASTIC_HD int32_t most_match(const Row& row, const int32_t* table) {
  if (row.phase == OPENING) return places_to(table[START_LASTS]) >> 1;
  if (row.phase == THINKING) return places_to(table[END_LASTS]) >> 1;
  if (row.phase == SOLUTION) return places_to(table[START_LASTS]);
  return row.phase == DONE ? END_PLACES : 0;
}

// A counter's bound, one below INT32_MAX at most: a counter is incremented before it is compared.
ELASTIC_HD int32_t countable(int64_t most) { return most < INT32_MAX ? int32_t(most) : INT32_MAX - 1; }

// While thinking goes on the count is below the limit: the last token that may be sampled ends thinking.
ELASTIC_HD Range thinking_range(const Row& row, const int32_t* table) {
  const bool goes_on = row.phase == THINKING || row.phase == NOTICE;
  return {row.thinking, 0, countable(int64_t(table[THINKING_LIMIT]) + table[GRACE] + row.waited - goes_on)};
}

// An end that opens the solution may be longer than the solution budget. In OPENING the count is that of a
// start marker in progress; thinking begins with 0.
ELASTIC_HD Range solution_range(const Row& row, const int32_t* table) {
  if (row.phase == SOLUTION || row.phase == DONE) {
    const int64_t over = row.phase == DONE || row.waited > 0 ? LONGEST_SPELLING : 0;
    return {row.solution, 0,
            countable(int64_t(table[SOLUTION_LIMIT]) + over + row.waited - (row.phase == SOLUTION))};
  }
  return {row.solution, 0, row.phase == OPENING ? LONGEST_SPELLING - 1 : 0};
}

// The texts follow each other, an end mark behind each; F behind its marker is forced in SOLUTION.
ELASTIC_HD Range forced_range(const Row& row, const int32_t* table) {
  if (row.phase == CLOSING) return {row.forced, table[CLOSING_AT], table[TAIL_AT] - 2};
  if (row.phase == NOTICE) return {row.forced, table[EXTENSION_AT], table[STARTS_AT] - 2};
  const bool tail = row.phase == SOLUTION && row.forced != 0 && table[TAIL_AT] < table[EXTENSION_AT] - 1;
  return tail ? Range{row.forced, table[TAIL_AT], table[EXTENSION_AT] - 2} : Range{row.forced, 0, 0};
}

template <Field F>
ELASTIC_HD Range range_of(const Row& row, const Tables& tables) {
  const int32_t* table = table_of(row, tables);
  const auto whole_characters = [&](int32_t most) { return table[WHOLE_CHARACTERS] ? most : 0; };
  if constexpr (F == Field::BUDGET) return {row.budget, 0, int32_t(tables.count - 1)};
  if constexpr (F == Field::PHASE) return {row.phase, OPENING, DONE};
  if constexpr (F == Field::LAST_PHASE) return {row.last_phase, OPENING, DONE};
  if constexpr (F == Field::FINISH) return {row.finish, RUNNING, TOTAL_BUDGET};
  if constexpr (F == Field::ENDED) return {row.ended, 0, row.phase <= NOTICE && row.phase != CLOSING};
  if constexpr (F == Field::PENDING) return {row.pending, 0, whole_characters(3)};
  if constexpr (F == Field::WHITESPACE) return {row.whitespace, 0, OPENING_WHITESPACE_LIMIT};
  if constexpr (F == Field::WAITED) return {row.waited, 0, whole_characters(MOST_WAITED)};
  if constexpr (F == Field::MATCH) return {row.match, 0, most_match(row, table)};
  if constexpr (F == Field::THINKING) return thinking_range(row, table);
  if constexpr (F == Field::SOLUTION) return solution_range(row, table);
  if constexpr (F == Field::EXTENSIONS) return {row.extensions, 0, table[MAX_EXTENSIONS]};
  if constexpr (F == Field::NOTICES) return {row.notices, 0, table[NOTICE_COUNT]};
  if constexpr (F == Field::RECLOSE)
    return {row.reclose, 0, row.phase >= SOLUTION ? places_to(table[END_LASTS]) : 0};
  if constexpr (F == Field::FORCED) return forced_range(row, table);
}

struct Misfit {
  Field field = Field::NONE;
  Range range{};
};

// In the range, but not the value of any row: a column between two texts, or a complete marker that would
// have led to another phase.
template <Field F>
ELASTIC_HD bool is_hole(const Row& row, const Tables& tables) {
  const int32_t* table = table_of(row, tables);
  if constexpr (F == Field::FORCED) return row.forced != 0 && table[row.forced] < 0;
  if constexpr (F == Field::MATCH) {
    const bool opening = row.phase == OPENING;
    return (opening || row.phase == THINKING) && (row.match & table[opening ? START_LASTS : END_LASTS]);
  }
  return false;
}

template <Field F>
ELASTIC_HD bool misses(const Row& row, const Tables& tables, Misfit& out) {
  const Range range = range_of<F>(row, tables);
  if (range.least <= range.value && range.value <= range.most && !is_hole<F>(row, tables)) return false;
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
  return first_misfit(row, tables, std::make_integer_sequence<int, int(Field::NONE)>());
}

// The row of a state; DONE under a known budget where the state does not fit.
ELASTIC_HD Row load_known(const int32_t* state, const Tables& tables) {
  const Row row = load(state);
  if (misfit(row, tables).field == Field::NONE) return row;
  Row done{};
  done.budget = row.budget >= 0 && row.budget < tables.count ? row.budget : 0;
  done.phase = done.last_phase = DONE;
  return done;
}

// The same; begins the closing if thinking was ended from outside.
ELASTIC_HD Row load(const int32_t* state, const Tables& tables) {
  Row row = load_known(state, tables);
  settle(row, table_of(row, tables));
  return row;
}

}  // namespace elastic::budget
