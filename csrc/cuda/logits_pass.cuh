// One pass over a token's logits: load -> statistics -> combine -> emit. Loss and logprobs are tasks of it.
//
// Storage. Resident (sm_90 and newer): the logits lie in the shared memory of a cluster of CTAs, a slice
// each. One thread asks for the slice in four bulk copies on four barriers; statistics run on what has landed
// while the rest is under way; the gradient is computed from the same slice and streamed out. Memory sees one
// read and, with a gradient, one write. Streamed: plain 16-byte loads; what shared memory can take is kept
// there for the gradient, the rest is read again, from L2 as long as what is in flight fits there. Peers.
// Cluster: every CTA reads all units' statistics through distributed shared memory and combines them itself:
// the objective is a few hundred instructions of one thread, less than a second trip to a peer. Solo: one CTA
// has all logits of the token.
//
// Logits need no alignment: elements before the first and behind the last whole vector have lanes of their
// own. In place is safe: a vector is written by the thread that read it last, and the target's logit is read
// before a barrier that precedes every write.
//
// Instructions for 8 resident bf16 logits (sm_90, main loops): statistics 49 (logits_units.cuh), gradient 51,
// of them 1 LDS.128, 8 MUFU, 24 FADD/FMUL, 8 to unpack, 4 to pack, 1 STG.128. Neighbouring lanes take
// neighbouring vectors: no bank conflicts, whole lines. At one read and one write an H200 has time for 220
// instructions, 27 of them MUFU.
#pragma once

#include "cuda/barrier.cuh"
#include "cuda/logits_launch.h"
#include "cuda/logits_units.cuh"

namespace elastic::cuda {

constexpr int MAX_PASS_THREADS = 1024;  // with it ptxas keeps 64 registers: 1,024 threads an SM, any split
constexpr int LOG2_CHUNKS = 2, CHUNKS = 1 << LOG2_CHUNKS;

struct Cluster {
  static __device__ __forceinline__ int rank() { return static_cast<int>(cluster_rank()); }
  static __device__ __forceinline__ void sync() { cluster_sync(); }
  static __device__ __forceinline__ void arrive() { cluster_arrive(); }
  static __device__ __forceinline__ void wait() { cluster_wait(); }
  template <class S>
  static __device__ __forceinline__ const S* of(S* shared, int rank) {
    return peer(shared, static_cast<unsigned>(rank));
  }
};

struct Solo {
  static __device__ __forceinline__ int rank() { return 0; }
  static __device__ __forceinline__ void sync() { __syncthreads(); }
  static __device__ __forceinline__ void arrive() {}
  static __device__ __forceinline__ void wait() {}
  template <class S>
  static __device__ __forceinline__ const S* of(S* shared, int) {
    return shared;
  }
};

template <class Inputs>
struct PassShared {
  Barrier landed[CHUNKS];
  UnitStats unit[UNITS];
  Plan plan;
  Inputs inputs;
};

// Where vectors of logits go in shared memory.
__device__ __forceinline__ Vec16* slice_of(void* shared) {
  return reinterpret_cast<Vec16*>(static_cast<char*>(shared) + PASS_HEADER_BYTES);
}

// The slice of the logits that this CTA holds: units [first_unit, first_unit + units).
struct Resident {
  static constexpr int AHEAD = 1;
  Span<Vec16> slice;
  Barrier* landed;
  int32_t begin;
  int log2_chunk;  // units per chunk

  template <class T, class Inputs>
  __device__ __forceinline__ Resident(const T* logits, const LogitsLayout& layout, int first_unit,
                                      int log2_units, int32_t, PassShared<Inputs>* shared)
      : slice(slice_of(shared), layout.begin(first_unit + (1 << log2_units)) - layout.begin(first_unit)),
        landed(shared->landed),
        begin(layout.begin(first_unit)),
        log2_chunk(log2_units - LOG2_CHUNKS) {
    if (threadIdx.x != 0) return;
    for (int c = 0; c < CHUNKS; c++) barrier_init(landed + c, 1);
    barrier_init_fence();
    for (int c = 0; c < CHUNKS; c++) {
      const int u = first_unit + (c << log2_chunk);
      const int32_t from = layout.begin(u), end = layout.begin(u + (1 << log2_chunk));
      const uint32_t bytes = static_cast<uint32_t>(end - from) * sizeof(Vec16);
      barrier_expect_bytes(landed + c, bytes);
      if (bytes > 0)
        bulk_copy(&slice[from - begin], reinterpret_cast<const Vec16*>(logits + layout.head) + from, bytes,
                  landed + c);
    }
  }
  __device__ __forceinline__ void wait(int unit) const { barrier_wait(landed + (unit >> log2_chunk), 0); }
  __device__ __forceinline__ Vec16 first(int32_t v) const { return (*this)(v); }
  __device__ __forceinline__ Vec16 operator()(int32_t v) const { return slice[v - begin]; }
};

// The logits stay in memory, except that shared memory keeps the first vectors, as many as it can hold, from
// the first read on. A lane reads again only what it has read itself, so no barrier is needed.
struct Streamed {
  static constexpr int AHEAD = 4;
  const Vec16* body;
  Span<Vec16> kept;
  int32_t kept_vectors;

  template <class T>
  __device__ __forceinline__ Streamed(const T* logits, const LogitsLayout& layout)
      : body(reinterpret_cast<const Vec16*>(logits + layout.head)), kept_vectors(0) {}
  template <class T, class Inputs>
  __device__ __forceinline__ Streamed(const T* logits, const LogitsLayout& layout, int, int, int32_t room,
                                      PassShared<Inputs>* shared)
      : Streamed(logits, layout) {
    kept_vectors = room < layout.vectors ? room : layout.vectors;
    kept = Span<Vec16>(slice_of(shared), kept_vectors);
  }
  __device__ __forceinline__ void wait(int) const {}
  __device__ __forceinline__ Vec16 first(int32_t v) const {
    const Vec16 q = body[v];
    if (v < kept_vectors) kept[v] = q;
    return q;
  }
  __device__ __forceinline__ Vec16 operator()(int32_t v) const {
    return v < kept_vectors ? kept[v] : body[v];
  }
};

// 2^log2_ranks CTAs per token; `room`: vectors of streamed logits that shared memory can hold.
template <class Storage, class Peers, class Task>
__device__ __forceinline__ void logits_pass(const Task& task, int log2_ranks, int32_t room) {
  using T = typename Task::Element;
  static_assert(sizeof(PassShared<typename Task::Inputs>) <= PASS_HEADER_BYTES);
  constexpr bool SOFTCAP = Task::SOFTCAP;
  auto* shared = block_smem<PassShared<typename Task::Inputs>>();
  const int rank = Peers::rank(), ranks = 1 << log2_ranks;
  const int64_t index = blockIdx.x >> log2_ranks;
  const int32_t threads = static_cast<int32_t>(blockDim.x), thread = static_cast<int32_t>(threadIdx.x);
  const TokenLogits<T> logits = task.logits(index);
  const auto zeros = [&] {
    write_zeros(logits.gradient, logits.vocab, rank * threads + thread, ranks * threads);
  };
  if (!logits.counted) {
    if (logits.gradient != nullptr) zeros();
    return;
  }

  // load
  const LogitsLayout layout = LogitsLayout::of<T>(logits.values, logits.vocab);
  const int log2_units = LOG2_UNITS - log2_ranks, units = 1 << log2_units, first_unit = rank << log2_units;
  const Storage load(logits.values, layout, first_unit, log2_units, room, shared);
  const Transform<SOFTCAP> transform(logits.inv_temperature, logits.softcap);
  __syncthreads();
  if (threadIdx.x == 0) shared->inputs = task.inputs(index, logits);

  // statistics
  const int warp = static_cast<int>(threadIdx.x) / WARP, warps = static_cast<int>(blockDim.x) / WARP;
  const Span<UnitStats> unit_count(shared->unit, units);
  const int32_t loose = rank == 0 ? loose_element(layout, logits.vocab) : -1;
  const auto first = [&](int32_t v) { return load.first(v); };
  for (int u = warp; u < units; u += warps) {
    load.wait(u);
    const int32_t begin = layout.begin(first_unit + u), end = layout.begin(first_unit + u + 1);
    const int32_t also = u == 0 ? loose : -1;
    const UnitStats stats = unit_stats(first, logits, transform, begin, end, also);
    if (thread % WARP == 0) unit_count[u] = stats;
  }
  Peers::sync();

  // combine
  if (warp == 0) {
    const auto unit = [&](int u) { return Peers::of(shared->unit, u >> log2_units)[u & (units - 1)]; };
    // Peers may go on: before combine's stores, for which the arrival would wait.
    const Online all = join_units(unit, [] { Peers::arrive(); }, transform.scale);
    if (threadIdx.x == 0)
      shared->plan = task.combine(index, shared->inputs, logits, LogitsStats(all), transform, rank == 0);
  } else {
    Peers::arrive();
  }
  __syncthreads();

  // emit
  const Plan plan = shared->plan;
  if (plan.emit == Emit::ZEROS) {
    zeros();
  } else if (plan.emit != Emit::NOTHING) {
    emit_logits(load, layout, logits, transform, plan, rank, log2_units, loose);
  }
  Peers::wait();  // peers may still be reading this CTA's statistics
}

template <class Storage, class Peers, class Task>
__global__ void __launch_bounds__(MAX_PASS_THREADS) logits_kernel(Task task, int log2_ranks, int32_t room) {
  if constexpr (std::is_same_v<Storage, Resident> && !HAS_BARRIERS)
    trap();
  else
    logits_pass<Storage, Peers>(task, log2_ranks, room);
}

// The gradient of tokens whose statistics are known: 1 read, 1 write. 2^log2_parts independent CTAs per
// token. The task plans from the token's statistics, not its logits: in place, another CTA may have
// overwritten them.
template <class Task>
__global__ void __launch_bounds__(MAX_PASS_THREADS) gradient_kernel(Task task, int log2_parts) {
  using T = typename Task::Element;
  auto* shared = block_smem<Plan>();
  const int parts = 1 << log2_parts, part = static_cast<int>(blockIdx.x) & (parts - 1);
  const int64_t index = blockIdx.x >> log2_parts;
  const TokenLogits<T> logits = task.logits(index);
  if (!logits.counted) {
    const int32_t threads = static_cast<int32_t>(blockDim.x);
    return write_zeros(logits.gradient, logits.vocab, part * threads + static_cast<int32_t>(threadIdx.x),
                       parts * threads);
  }
  const LogitsLayout layout = LogitsLayout::of<T>(logits.values, logits.vocab);
  const Transform<Task::SOFTCAP> transform(logits.inv_temperature, logits.softcap);
  if (threadIdx.x == 0) *shared = task.plan(index, transform);
  __syncthreads();
  const Plan plan = *shared;
  const int32_t loose = part == 0 ? loose_element(layout, logits.vocab) : -1;
  emit_logits(Streamed(logits.values, layout), layout, logits, transform, plan, part, LOG2_UNITS - log2_parts,
              loose);
}

}  // namespace elastic::cuda
