// The ring: persistent clusters take one token after another, and copies never stop while threads compute.
// The warps of a CTA have roles that only barriers tie together, so each works on another token, or part of
// one:
//
//   mover    1 thread   bulk copies of logits into a ring of slots, R chunks ahead; bulk stores out of it
//   count    warps      statistics of each chunk as it lands: unit u is warp u % COUNT's (logits_units.cuh)
//   combine  1 warp     units of all CTAs of the cluster -> the token's statistics -> the task's plan
//   emit     warps      the gradient of each chunk, from its slot: back into the slot, or to memory
//
// 2^log2_ranks CTAs share a token, a slice each; a slice is `chunks` chunks of 2^log2_chunk units, a chunk is
// a slot. A chunk stays in its slot until emit has used it, so with a gradient the ring holds a slice and
// more (host: ring_launch); without one, count is a chunk's last reader, and slices may be of any length. Per
// logit: one read, and with a gradient one write, as the logits pass has it (logits_pass.cuh), with the same
// bits.
//
// Instructions in the main loops (sm_90, by cuobjdump): statistics as in logits_units.cuh; gradient 203 for
// 32 bfloat16 logits, of them 32 MUFU, 96 FADD/FMUL, 33 to unpack, 16 to pack, and 91 for 16 float32 logits.
//
// Barriers, all in shared memory; the k-th open token uses place k % OPEN of those that have OPEN:
//   full[slot]      mover's arrival and the bytes       -> count, emit: the chunk is there
//   used[slot]      the warps that read it last         -> mover: stored from, then loaded into
//   counted[OPEN]   count's warps                       -> combine: this CTA's units are there
//   exchanged[OPEN] combine's arrival, the peers' bytes -> combine: the others' too
//   joined[OPEN]    combine                             -> count: the units may be overwritten
//   planned[OPEN]   combine                             -> emit: the plan stands
// Nothing gets two phases ahead: emit uses a token's first chunk only with its plan in registers, and a slot
// of OPEN tokens later is filled after that (slots <= OPEN chunks); peers post token k + 1 having read all of
// k.
#pragma once

#include "cuda/barrier.cuh"
#include "cuda/cluster.cuh"
#include "cuda/logits_launch.h"
#include "cuda/logits_units.cuh"

namespace elastic::cuda {

constexpr int RING_OPEN = 4;  // tokens between their statistics and their gradient

// Warps. With a gradient 16 in all, so that each thread may have 128 registers.
template <bool EMITS>
struct RingRoles {
  static constexpr int COUNT = EMITS ? 8 : 16, EMIT = EMITS ? 6 : 0;
  static constexpr int COMBINE = COUNT + EMIT, MOVER = COMBINE + 1, THREADS = (MOVER + 1) * WARP;
  static_assert((COUNT & (COUNT - 1)) == 0);
};

template <class Inputs>
struct RingShared {
  Barrier full[MOST_SLOTS];
  Barrier used[MOST_SLOTS];
  Barrier counted[RING_OPEN];
  Barrier exchanged[RING_OPEN];
  Barrier joined[RING_OPEN];
  Barrier planned[RING_OPEN];
  UnitStats unit[RING_OPEN][UNITS];  // this CTA's and its peers'
  Plan plan[RING_OPEN];
  Inputs inputs;
};

// A place in the ring, and which of its uses this is.
struct RingSlot {
  int index = 0;
  unsigned parity = 0;
  __device__ __forceinline__ void next(int slots) {
    if (++index < slots) return;
    index = 0;
    parity ^= 1;
  }
};

// What all roles know.
template <class Task>
struct Ring {
  using T = typename Task::Element;
  using Shared = RingShared<typename Task::Inputs>;
  const Task& task;
  const RingShape& shape;
  Shared* shared;
  Vec16* slots;
  int64_t first, step;  // this cluster's tokens
  int rank, ranks, chunks;

  __device__ __forceinline__ Ring(const Task& task, const RingShape& shape)
      : task(task),
        shape(shape),
        shared(block_smem<Shared>()),
        slots(reinterpret_cast<Vec16*>(block_smem<char>() + RING_HEADER_BYTES)),
        first(blockIdx.x >> shape.log2_ranks),
        step(gridDim.x >> shape.log2_ranks),
        rank(static_cast<int>(cluster_rank())),
        ranks(1 << shape.log2_ranks),
        chunks(UNITS >> shape.log2_ranks >> shape.log2_chunk) {
    static_assert(sizeof(Shared) <= RING_HEADER_BYTES);
  }

  __device__ __forceinline__ int first_unit(int chunk) const {
    return ((rank * chunks) + chunk) << shape.log2_chunk;
  }
  // Vectors [begin(chunk), begin(chunk + 1)) of the token are in a chunk; it may be empty.
  __device__ __forceinline__ int32_t begin(const LogitsLayout& layout, int chunk) const {
    return layout.begin(first_unit(chunk));
  }
  __device__ __forceinline__ Vec16* at(const RingSlot& slot) const {
    return slots + slot.index * shape.slot_vectors;
  }

  // read(token, logits, k) for the cluster's tokens in order, k counts those whose logits are read;
  // skipped(logits) for the others.
  template <class Read, class Skipped>
  __device__ __forceinline__ void each_token(const Read& read, const Skipped& skipped) const {
    unsigned k = 0;
    for (int64_t token = first; token < shape.tokens; token += step) {
      const TokenLogits<T> logits = task.logits(token);
      if (logits.counted)
        read(token, logits, k++);
      else
        skipped(logits);
    }
  }
};

// The chunks that a CTA reads, in order.
template <class Task>
struct RingChunks {
  using T = typename Task::Element;
  const Ring<Task>& ring;
  int64_t token;
  int chunk = 0;
  TokenLogits<T> logits;
  LogitsLayout layout;

  __device__ __forceinline__ explicit RingChunks(const Ring<Task>& ring) : ring(ring), token(ring.first) {
    find();
  }
  __device__ __forceinline__ bool more() const { return token < ring.shape.tokens; }
  __device__ __forceinline__ void next() {
    if (++chunk < ring.chunks) return;
    chunk = 0;
    token += ring.step;
    find();
  }
  __device__ __forceinline__ int32_t begin() const { return ring.begin(layout, chunk); }
  __device__ __forceinline__ uint32_t bytes() const {
    return static_cast<uint32_t>(ring.begin(layout, chunk + 1) - begin()) * sizeof(Vec16);
  }

 private:
  // The next token that is read, from `token` on.
  __device__ __forceinline__ void find() {
    for (; more(); token += ring.step) {
      logits = ring.task.logits(token);
      if (logits.counted) break;
    }
    if (more()) layout = LogitsLayout::of<T>(logits.values, logits.vocab);
  }
};

}  // namespace elastic::cuda
