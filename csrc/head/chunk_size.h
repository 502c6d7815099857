// How many tokens go through the head at once.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <optional>

namespace elastic {

// The caller's number, or the memory from which to choose one.
struct ChunkSize {
  std::optional<int64_t> tokens;
  int64_t free_bytes;  // 0: not asked, as of the host's memory
};

constexpr int64_t USUAL_CHUNK_TOKENS = 4096;

// For `tokens` whose gradients are summed over chunks: all of them at once if their logits take at most a
// quarter of the free memory, because nothing is summed then. Otherwise a power of two, so that a little more
// or less free memory does not change the bits of results.
// token_bytes: what the chunk's buffers hold of a token. sum_bytes: what summing over chunks takes besides.
inline int64_t default_chunk_tokens(int64_t tokens, int64_t token_bytes, int64_t sum_bytes,
                                    int64_t free_bytes) {
  constexpr int64_t SHARE = 4, LEAST = 256;  // fewer tokens leave the matrix products idle
  if (free_bytes <= 0) return USUAL_CHUNK_TOKENS;
  const int64_t room = free_bytes / SHARE;
  if (tokens <= std::max(room / token_bytes, LEAST)) return tokens;
  const int64_t beside_sum = std::max((room - sum_bytes) / token_bytes, LEAST);
  return static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(beside_sum)));
}

}  // namespace elastic
