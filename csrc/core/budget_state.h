// What the budget machine reads and writes: a row's state, a budget's table row, a token's entry.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace elastic::budget {

enum Source : uint8_t { SAMPLED = 0, FORCED = 1, PAD = 2 };
enum Phase : int32_t { OPENING = 0, THINKING = 1, CLOSING = 2, NOTICE = 3, SOLUTION = 4, DONE = 5 };
enum Finish : int32_t { RUNNING = 0, STOP = 1, SOLUTION_BUDGET = 2, TOTAL_BUDGET = 3 };
// Bits of a token's entry: flags, the places it can take in start markers and in natural ends, and what it
// leaves of a character (R21): 0 nothing (or nothing is known of its bytes), 1 to 3 the bytes that its last
// character still needs, 4 + k if it consists of k bytes that continue one. The sign bit: the token ends a
// marker and begins one of the other kind ("></" in "<think></think>"). TEXT_BEFORE_START: it can be a start
// marker's first token, with other text in front of the marker.
enum TokenFlag : int32_t {
  EOS = 1,
  WHITESPACE = 2,
  TEXT_BEFORE_START = 4
};  // five more: boundary sets (R13)
constexpr int START_SHIFT = 8;
constexpr int END_SHIFT = 32;
constexpr int CHARACTER_SHIFT = 60;
constexpr int32_t START_PLACES = 0xFFFFFF;  // of all start markers
constexpr int32_t END_PLACES = 0xFFFFFFF;   // of all natural ends
constexpr int32_t CONTINUES = 4;

constexpr int STATE_WIDTH = 8;
constexpr uint8_t NO_HINT = 255;
constexpr int32_t LONGEST_SPELLING = 24;
constexpr int32_t MOST_WAITED = 3;  // R21
// White space before the start marker is free (R9), but a row that samples nothing else has to end (R5).
constexpr int OPENING_WHITESPACE_LIMIT = 32;

// Columns of a table row. `*_AT` are columns of the same row where a list starts. Texts end in -1 and follow
// each other: F up to and including its end marker; for every spelling of that marker, the marker and what of
// F belongs to it; the rest of F, which may be empty; the extension; the notices. Other lists stand behind
// the texts, the start markers' spellings first. A limit that does not exist is INT32_MAX.
enum Column : int {
  THINKING_LIMIT = 0,  // t
  SOLUTION_LIMIT = 1,  // s
  TOTAL_LIMIT = 2,     // c
  MIN_THINKING = 3,    // R11
  MAX_EXTENSIONS = 4,  // R11
  GRACE = 5,           // R13
  BOUNDARY_MASK = 6,   // R13: bit in the token flags, 0 for none
  EOS_STOPS = 7,       // R6: on_eos="stop"
  FORBID_REOPEN = 8,   // R8: last places of start markers that may not be taken, 0 under "count"
  FORBID_RECLOSE = 9,  // R20: last places of the ends that open nothing, likewise
  WHOLE_CHARACTERS = 10,
  PAD_ID = 11,
  START_COUNT = 12,
  STARTS_AT = 13,     // START_COUNT spellings
  START_FIRSTS = 14,  // bits of their first places ...
  START_LASTS = 15,   // ... and of their last ones
  END_COUNT = 16,
  ENDS_AT = 17,  // END_COUNT spellings, the end marker's own first
  END_FIRSTS = 18,
  END_LASTS = 19,
  CLOSING_AT = 20,  // F up to and including its end marker
  TAIL_AT = 21,     // F behind it
  EXTENSION_AT = 22,
  NOTICE_COUNT = 23,
  NOTICES_AT = 24,  // NOTICE_COUNT pairs (used thinking tokens, column of the text), ascending
  HEADER_WIDTH = 25,
};

// Columns of one spelling's record.
enum SpellingColumn : int {
  FIRST_BIT = 0,
  LENGTH = 1,
  LEADING_SPACE = 2,  // of a start marker: its leading tokens that are white space
  OPENS = 2,          // of an end: 1 if it belongs to the solution (R18)
  AT = 3,  // column of its ids; of an end: of what is forced where it is in progress (R3), 0: nothing is
  LAST_COUNT = 4,  // tokens that can complete it ...
  LAST_AT = 5,     // ... and where they stand
  SPELLING_WIDTH = 6,
};

// What every row shares. Host or device pointers.
struct Tables {
  const int32_t* rows;         // [count, width]
  const int64_t* token_flags;  // [vocab]; ids outside have no flag and no place in a marker
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
  int32_t ended;       // 1 while thinking has been ended from outside and goes on (R22)
  int32_t pending;     // bytes that the character in progress still needs (R21)
  int32_t whitespace;  // white space tokens passed while OPENING
  int32_t waited;    // tokens that cuts have waited for a whole character; in THINKING one waits if any (R21)
  int32_t thinking;  // sampled thinking tokens; those of a marker in progress count until it completes
  int32_t solution;  // sampled solution tokens; in OPENING those of a start marker in progress
  int32_t match;     // bits, of the ends (THINKING) or of the start markers (OPENING, SOLUTION)
  int32_t extensions;  // used so far
  int32_t notices;     // used so far
  int32_t reclose;     // bits of the ends in the solution behind a cut (R20)
  int32_t forced;      // column of the next forced id, 0 for none
};

// The table row of its budget.
ELASTIC_HD const int32_t* table_of(const Row& row, const Tables& tables) {
  return tables.rows + row.budget * tables.width;
}

struct Emitted {
  int64_t token;
  uint8_t source;
};

// A row's state in memory. On a device it is aligned (the binding checks that), so that it moves as two
// 16-byte words instead of eight loads.
struct alignas(16) Words {
  int32_t at[STATE_WIDTH];
};

ELASTIC_HD Row load(const int32_t* state) {
#ifdef __CUDA_ARCH__
  const Words words = *reinterpret_cast<const Words*>(state);
  const int32_t* at = words.at;
#else
  const int32_t* at = state;
#endif
  const int32_t bits = at[1];
  Row row;
  row.budget = at[0];
  row.phase = bits & 15;
  row.last_phase = bits >> 4 & 15;
  row.finish = bits >> 8 & 15;
  row.cut = bits >> 12 & 1;
  row.ended = bits >> 13 & 1;
  row.pending = bits >> 14 & 3;
  row.whitespace = bits >> 16 & 63;
  row.waited = bits >> 22;  // takes the bits that must be 0 along, for budget_check.h to see
  row.thinking = at[2];
  row.solution = at[3];
  row.match = at[4];
  row.extensions = at[5] & 0xFFFF;
  row.notices = at[5] >> 16;
  row.reclose = at[6];
  row.forced = at[7];
  return row;
}

ELASTIC_HD void store(const Row& row, int32_t* state) {
  const int32_t bits = row.phase | row.last_phase << 4 | row.finish << 8 | row.cut << 12 | row.ended << 13 |
                       row.pending << 14 | row.whitespace << 16 | row.waited << 22;
  const Words words{{row.budget, bits, row.thinking, row.solution, row.match,
                     row.extensions | row.notices << 16, row.reclose, row.forced}};
#ifdef __CUDA_ARCH__
  *reinterpret_cast<Words*>(state) = words;
#else
  for (int i = 0; i < STATE_WIDTH; i++) state[i] = words.at[i];
#endif
}

struct Token {
  int64_t id;
  int32_t flags;
  int32_t start_places;
  int32_t end_places;
  int32_t character;
  bool joins;
};

ELASTIC_HD Token look_up(const Tables& tables, int64_t id) {
  const int64_t bits = id >= 0 && id < tables.vocab ? tables.token_flags[id] : 0;
  return {id,
          int32_t(bits & 255),
          int32_t(bits >> START_SHIFT & START_PLACES),
          int32_t(bits >> END_SHIFT & END_PLACES),
          int32_t(bits >> CHARACTER_SHIFT & 7),
          bits < 0};
}

// Places reached behind a token that can take `places`.
ELASTIC_HD int32_t advance(int32_t match, int32_t firsts, int32_t places) {
  return (match << 1 | firsts) & places;
}

// 1 + the highest bit, 0 if there is none.
ELASTIC_HD int32_t bit_length(int32_t bits) {
#ifdef __CUDA_ARCH__
  return 32 - __clz(bits);
#else
  return bits == 0 ? 0 : 32 - __builtin_clz(uint32_t(bits));
#endif
}

struct Longest {
  const int32_t* spelling;
  int32_t tokens;
};

// The spelling that a match has reached furthest into, and its tokens there; the first of equal ones. Only
// this loop depends on the number of spellings, and markers are seldom in progress.
ELASTIC_HD Longest longest(int32_t match, const int32_t* spelling, int32_t count, bool forced_only = false) {
  Longest best{spelling, 0};
  for (int32_t i = 0; match != 0 && i < count; i++, spelling += SPELLING_WIDTH) {
    const int32_t tokens = bit_length(match >> spelling[FIRST_BIT] & ((1 << spelling[LENGTH]) - 1));
    if (tokens > best.tokens && !(forced_only && spelling[AT] == 0)) best = {spelling, tokens};
  }
  return best;
}

ELASTIC_HD Longest longest_start(int32_t match, const int32_t* table) {
  return longest(match, table + table[STARTS_AT], table[START_COUNT]);
}

ELASTIC_HD Longest longest_end(int32_t match, const int32_t* table, bool forced_only = false) {
  return longest(match, table + table[ENDS_AT], table[END_COUNT], forced_only);
}

// The tokens that may not be sampled next: bits of last places, in start markers (R8) and in ends (R20).
struct Masked {
  const int32_t* table;
  int32_t starts;
  int32_t ends;
};
constexpr int MOST_LISTS = 24 + 28;  // at most one list per place

ELASTIC_HD bool any(const Masked& masked) { return (masked.starts | masked.ends) != 0; }

template <class Use>
ELASTIC_HD void each_completed(const int32_t* table, const int32_t* spelling, int32_t lasts, const Use& use) {
  for (; lasts != 0; spelling += SPELLING_WIDTH) {
    const int32_t last = 1 << (spelling[FIRST_BIT] + spelling[LENGTH] - 1);
    if (lasts & last) use(table + spelling[LAST_AT], spelling[LAST_COUNT]);
    lasts &= ~last;
  }
}

// use(ids, count), for each spelling that a masked token would complete.
template <class Use>
ELASTIC_HD void each_list(const Masked& masked, const Use& use) {
  const int32_t* table = masked.table;
  each_completed(table, table + table[STARTS_AT], masked.starts, use);
  each_completed(table, table + table[ENDS_AT], masked.ends, use);
}

}  // namespace elastic::budget
