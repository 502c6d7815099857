// Budget ops: the transition function of core/budget_machine.h, one thread per row.
//
// budget_step is one block for any batch: up to 1,024 rows have a thread each, beyond that threads stride.
// One block can count the rows still running with __syncthreads_count and store the count once: no atomics,
// no memset before, no second launch. Bytes per row: 32 of state read and written as two 16-byte words each,
// 8 of token read and written, 1 of source, and the few table entries that the row's phase needs.
//
// force_logits writes V elements for a forced row and none, or a few, for the others: each block reads the
// row's 32 bytes of state first and returns where there is nothing to force or to mask. A forced row is
// filled with 16-byte stores by the blocks of its grid column; its elements before the first 16-byte boundary
// and behind the last are stored one by one. Stores are not streaming: the sampler reads the row from L2.
#include "cuda/budget.h"
#include "cuda/common.cuh"
#include "cuda/memory.cuh"

namespace elastic::cuda {
namespace {

constexpr int ROW_THREADS = 128;
constexpr int STEP_THREADS = 1024;
constexpr int FORCE_THREADS = 256;
constexpr int FORCE_VECTORS_PER_THREAD = 4;
constexpr int64_t FORCE_VECTORS = int64_t(FORCE_THREADS) * FORCE_VECTORS_PER_THREAD;  // of a block

__global__ void __launch_bounds__(ROW_THREADS) new_state_kernel(budget::NewStateParams p) {
  const int64_t r = int64_t(blockIdx.x) * ROW_THREADS + threadIdx.x;
  if (r < p.rows) budget::new_state_row(p, r);
}

__global__ void __launch_bounds__(ROW_THREADS) end_thinking_kernel(budget::EndThinkingParams p) {
  const int64_t i = int64_t(blockIdx.x) * ROW_THREADS + threadIdx.x;
  if (i < p.count) budget::end_thinking_row(p, i);
}

// The second bound of these two: with the first alone ptxas saves registers until it spills.
__global__ void __launch_bounds__(STEP_THREADS, 1) budget_step_kernel(budget::StepParams p) {
  int active = 0;
  // Every thread takes every turn: the count below is a barrier.
  for (int64_t first = 0; first < p.rows; first += blockDim.x) {
    const int64_t r = first + threadIdx.x;
    const bool running = r < p.rows && budget::step_row(p, r);
    active += __syncthreads_count(running);
  }
  if (threadIdx.x == 0 && p.active != nullptr) *p.active = active;
}

// Fills a row with -inf, and 0 at `forced`; `block`, one of the row's blocks, does its share.
template <class Bits>
__device__ __forceinline__ void fill_forced(Span<Bits> row, int64_t vocab, int64_t forced,
                                            Bits negative_infinity, int64_t block) {
  constexpr int LANES = Vector<Bits>::LANES;
  // Rows of an odd vocabulary, or of a slice, begin anywhere.
  const int64_t misaligned = int64_t(reinterpret_cast<uintptr_t>(row.data()) % 16 / sizeof(Bits));
  const int64_t to_boundary = misaligned == 0 ? 0 : LANES - misaligned;
  const int64_t head = to_boundary < vocab ? to_boundary : vocab;
  const int64_t vectors = (vocab - head) / LANES;
  Vector<Bits> fill;
#pragma unroll
  for (int i = 0; i < LANES; i++) fill.lanes[i] = negative_infinity;
  const Span<Vector<Bits>> body(reinterpret_cast<Vector<Bits>*>(row.data() + head), vectors);
#pragma unroll
  for (int i = 0; i < FORCE_VECTORS_PER_THREAD; i++) {
    const int64_t v = block * FORCE_VECTORS + i * FORCE_THREADS + threadIdx.x;
    if (v >= vectors) break;
    body[v] = fill;
    const int64_t first = head + v * LANES;
    if (forced >= first && forced < first + LANES) row[forced] = Bits(0);  // behind this thread's own store
  }
  if (block > 0) return;
  const int64_t tail = head + vectors * LANES;
  for (int64_t v = threadIdx.x; v < head; v += FORCE_THREADS)
    row[v] = v == forced ? Bits(0) : negative_infinity;
  for (int64_t v = tail + threadIdx.x; v < vocab; v += FORCE_THREADS)
    row[v] = v == forced ? Bits(0) : negative_infinity;
}

template <class Bits>
__global__ void __launch_bounds__(FORCE_THREADS) force_logits_kernel(budget::ForceParams p) {
  const int64_t r = blockIdx.x;
  const budget::Row row = budget::load(p.state + r * budget::STATE_WIDTH, p.tables);
  const int32_t* table = budget::table_of(row, p.tables);
  const Span<Bits> logits(static_cast<Bits*>(p.logits) + r * p.row_stride, p.vocab);
  const Bits negative_infinity = Bits(p.negative_infinity);
  const int32_t forced = budget::next_forced(row, table);
  if (forced >= 0) return fill_forced(logits, p.vocab, forced, negative_infinity, blockIdx.y);
  if (blockIdx.y > 0) return;
  budget::each_list(budget::masked_next(row, table), [&](const int32_t* ids, int32_t count) {
    for (int32_t i = int32_t(threadIdx.x); i < count; i += FORCE_THREADS) {
      if (ids[i] < p.vocab) logits[ids[i]] = negative_infinity;
    }
  });
}

__global__ void __launch_bounds__(ROW_THREADS) forced_next_kernel(budget::ForcedNextParams p) {
  const int64_t r = int64_t(blockIdx.x) * ROW_THREADS + threadIdx.x;
  if (r < p.rows) budget::forced_next_row(p, r);
}

__global__ void __launch_bounds__(ROW_THREADS, 4) replay_kernel(budget::ReplayParams p) {
  const int64_t r = int64_t(blockIdx.x) * ROW_THREADS + threadIdx.x;
  if (r < p.rows) budget::replay_row(p, r);
}

dim3 blocks_for(int64_t rows) { return dim3(unsigned((rows + ROW_THREADS - 1) / ROW_THREADS)); }

}  // namespace

LaunchResult new_state(const budget::NewStateParams& p, cudaStream_t stream) {
  return launch<new_state_kernel>({blocks_for(p.rows), dim3(ROW_THREADS)}, stream, p);
}

LaunchResult end_thinking(const budget::EndThinkingParams& p, cudaStream_t stream) {
  return launch<end_thinking_kernel>({blocks_for(p.count), dim3(ROW_THREADS)}, stream, p);
}

LaunchResult budget_step(const budget::StepParams& p, cudaStream_t stream) {
  // An empty batch still stores its count of zero.
  const int64_t rows = p.rows < 1 ? 1 : p.rows;
  const unsigned threads = rows >= STEP_THREADS ? STEP_THREADS : unsigned((rows + WARP - 1) / WARP * WARP);
  return launch<budget_step_kernel>({dim3(1), dim3(threads)}, stream, p);
}

LaunchResult force_logits(const budget::ForceParams& p, cudaStream_t stream) {
  const int64_t tile = FORCE_VECTORS * 16 / p.element_bytes;
  const dim3 grid(unsigned(p.rows), unsigned((p.vocab + tile - 1) / tile));
  const dim3 block(FORCE_THREADS);
  if (p.element_bytes == 2) return launch<force_logits_kernel<uint16_t>>({grid, block}, stream, p);
  if (p.element_bytes == 4) return launch<force_logits_kernel<uint32_t>>({grid, block}, stream, p);
  return launch<force_logits_kernel<uint64_t>>({grid, block}, stream, p);
}

LaunchResult forced_next(const budget::ForcedNextParams& p, cudaStream_t stream) {
  return launch<forced_next_kernel>({blocks_for(p.rows), dim3(ROW_THREADS)}, stream, p);
}

LaunchResult replay(const budget::ReplayParams& p, cudaStream_t stream) {
  return launch<replay_kernel>({blocks_for(p.rows), dim3(ROW_THREADS)}, stream, p);
}

}  // namespace elastic::cuda
