// What the budget machine reads and writes: a row's state, a budget's table row, a token's entry.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace elastic::budget {

enum Source : uint8_t { SAMPLED = 0, FORCED = 1, PAD = 2 };
enum Phase : int32_t { OPENING = 0, THINKING = 1, CLOSING = 2, NOTICE = 3, SOLUTION = 4, DONE = 5 };
enum Finish : int32_t { RUNNING = 0, STOP = 1, SOLUTION_BUDGET = 2, TOTAL_BUDGET = 3 };
// Bits of a token's entry: flags, then the places it can take in the start and in the end marker.
// TEXT_BEFORE_START: stands for the start marker's first token with other text in front of it.
enum TokenFlag : int32_t {
  EOS = 1,
  WHITESPACE = 2,
  TEXT_BEFORE_START = 4
};  // five more: boundary sets (R13)
constexpr int START_SHIFT = 8;
constexpr int END_SHIFT = 32;
constexpr int32_t PLACES = 0xFFFFFF;  // markers have at most 24 tokens

constexpr int STATE_WIDTH = 8;
constexpr uint8_t NO_HINT = 255;
// White space before the start marker is free (R9), but a row that samples nothing else has to end (R5).
constexpr int OPENING_WHITESPACE_LIMIT = 32;

// Columns of a table row. `*_AT` are columns of the same row where a list of ids starts; text lists end in
// -1 and follow each other: F, the extension, the notices, then the start marker. Limits that do not exist
// are INT32_MAX.
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
  START_WHITESPACE = 12,  // leading tokens of the start marker that are white space
  START_LAST_COUNT = 13,  // R8: tokens that can complete the start marker ...
  START_LAST_AT = 14,     // ... and where they stand
  END_LENGTH = 15,
  CLOSING_AT = 16,         // F
  CLOSING_MARKER_AT = 17,  // the end marker in F
  CLOSING_TAIL_AT = 18,    // behind the end marker in F
  EXTENSION_AT = 19,
  NOTICE_COUNT = 20,
  NOTICES_AT = 21,  // NOTICE_COUNT pairs (used thinking tokens, column of the text), ascending
  HEADER_WIDTH = 22,
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
  int32_t whitespace;  // white space tokens passed while OPENING
  int32_t thinking;    // sampled thinking tokens; those of a marker in progress count until it completes
  int32_t solution;    // sampled solution tokens; in OPENING those of a start marker in progress
  int32_t match;       // bits, of the end marker (THINKING) or of the start marker (OPENING, SOLUTION)
  int32_t extensions;  // used so far
  int32_t notices;     // used so far
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

// A row's state as it lies in memory. On a device it is aligned (the binding checks), so that it moves as two
// 16-byte words and not as eight loads.
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
  // The last two take the bits that must be 0 along, for budget_check.h to see.
  return Row{at[0], bits & 15, bits >> 4 & 15, bits >> 8 & 15, bits >> 12 & 15, bits >> 16,
             at[2], at[3],     at[4],          at[5],          at[6],           at[7]};
}

ELASTIC_HD void store(const Row& row, int32_t* state) {
  const int32_t bits =
      row.phase | row.last_phase << 4 | row.finish << 8 | row.cut << 12 | row.whitespace << 16;
  const Words words{
      {row.budget, bits, row.thinking, row.solution, row.match, row.extensions, row.notices, row.forced}};
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
};

ELASTIC_HD Token look_up(const Tables& tables, int64_t id) {
  const int64_t bits = id >= 0 && id < tables.vocab ? tables.token_flags[id] : 0;
  return {id, int32_t(bits & 255), int32_t(bits >> START_SHIFT & PLACES),
          int32_t(bits >> END_SHIFT & PLACES)};
}

ELASTIC_HD int32_t advance(int32_t match, int32_t places) { return (match << 1 | 1) & places; }

ELASTIC_HD bool completes(int32_t match, int32_t length) { return match >> (length - 1) & 1; }

// Tokens of the longest marker in progress: the highest bit.
ELASTIC_HD int32_t matched(int32_t match) {
#ifdef __CUDA_ARCH__
  return 32 - __clz(match);
#else
  return match == 0 ? 0 : 32 - __builtin_clz(uint32_t(match));
#endif
}

}  // namespace elastic::budget
