// The ring's shape (logits_ring.cuh): as few CTAs a token as let two of them be in the ring at once, so that
// the next token's logits arrive while this one's gradient leaves; without a gradient one, whose ring holds a
// part of a token.
#include <algorithm>

#include "cuda/logits_device.h"
#include "cuda/logits_ring.cuh"

namespace elastic::cuda {
namespace {

// Of a chunk, at most, where that is a unit: small enough that few bytes wait for the rest of theirs, large
// enough for one copy after another to hide a barrier.
constexpr int64_t CHUNK_BYTES = 20 * 1024;
constexpr int64_t SLOT_VECTORS = 8;  // a slot is a multiple of it: 128 bytes

int log2_of(int64_t power_of_two) {
  int n = 0;
  while (int64_t(1) << n < power_of_two) n++;
  return n;
}

RingShape ring_of(const LogitsDevice& device, Scalar dtype, int64_t vocab, bool emits, int cluster) {
  const int64_t per_vector = dtype == Scalar::F32 ? 4 : 8, units = UNITS / cluster;
  const int64_t unit = (vocab / per_vector + UNITS - 1) / UNITS;  // vectors
  int64_t chunk = 1;                                              // units
  while (2 * chunk <= units && 2 * chunk * unit * static_cast<int64_t>(sizeof(Vec16)) <= CHUNK_BYTES)
    chunk *= 2;
  const int64_t vectors =
      std::max<int64_t>(1, (chunk * unit + SLOT_VECTORS - 1) / SLOT_VECTORS) * SLOT_VECTORS;
  const int64_t bytes = vectors * static_cast<int64_t>(sizeof(Vec16));
  const int64_t chunks = units / chunk;
  int64_t slots = (static_cast<int64_t>(device.cta_bytes) - static_cast<int64_t>(RING_HEADER_BYTES)) / bytes;
  slots = std::min<int64_t>({slots, MOST_SLOTS, emits ? RING_OPEN * chunks : MOST_SLOTS});
  RingShape ring{};
  ring.log2_ranks = log2_of(cluster);
  ring.log2_chunk = log2_of(chunk);
  ring.slots = static_cast<int32_t>(slots);
  ring.slot_vectors = static_cast<int32_t>(vectors);
  return ring;
}

int chunks(const RingShape& ring) { return UNITS >> ring.log2_ranks >> ring.log2_chunk; }

}  // namespace

bool ring_launch(const LogitsChunk& chunk, int64_t vocab, bool emits, int cluster, LogitsChoice& choice) {
  const LogitsDevice device = current_device();
  if (vocab > INT32_MAX || chunk.tokens > INT32_MAX || cluster > device.most_cluster) return false;
  RingShape ring = ring_of(device, chunk.dtype, vocab, emits, cluster > 0 ? cluster : 1);
  const int most = cluster < 0 && emits ? std::min(8, device.most_cluster) : 1;
  for (int next = 2; next <= most && ring.slots < 2 * chunks(ring); next *= 2)
    ring = ring_of(device, chunk.dtype, vocab, emits, next);
  if (ring.slots < (emits ? chunks(ring) + 1 : 2)) return false;
  ring.tokens = chunk.tokens;
  ring.bulk_stores = choice.kernel == LogitsKernel::RING;
  choice.ring = ring;
  choice.ring_bytes = RING_HEADER_BYTES + static_cast<size_t>(ring.slots) *
                                              static_cast<size_t>(ring.slot_vectors) * sizeof(Vec16);
  return true;
}

}  // namespace elastic::cuda
