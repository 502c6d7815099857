// Draws one token per row and takes its budget step (core/sampling.h has the definition).
//
// A row goes to a cluster of CTAs that keeps it in shared memory (sm_90 and newer), or to one CTA that
// streams it (sample_row.cuh); a warp takes a unit of the row, a lane its 16-byte vectors. Passes: maximum,
// weights; with filters a histogram of masses on chip for each digit of a threshold, and the weights of what
// is kept. Then one unit is searched for the token. Row state is read first: for a forced or finished row no
// logits are read. Bytes per element from memory: 4 (float32) or 2, once where the row is resident, and from
// L2 for later passes where it is streamed.
//
// finish_kernel, one CTA: counts the rows that go on and names the first unusable one, without atomics.
#include "cuda/sample.h"
#include "cuda/sample_row.cuh"

namespace elastic::cuda {
namespace {

using sampling::Drawn;
using sampling::Filters;
using sampling::SampleParams;

// More would leave 64 registers per thread, which spill. So does a kernel without the second launch bound,
// for which ptxas saves registers.
constexpr int SAMPLE_THREADS = 512;

struct NoInputs {};

// What is kept under the filters.
template <class Sampled>
__device__ __forceinline__ Kept filter(Sampled& row, const Filters& f, int32_t vocab, Mass total) {
  Kept kept{0, 0};
  if (f.top_k > 0 && f.top_k < vocab) {
    kept.key = row.threshold(static_cast<Mass>(f.top_k), [](float) -> Mass { return 1; });
    if (f.top_p < 1) total = row.weigh(kept);
  }
  if (f.top_p < 1) {
    const uint32_t key =
        row.threshold(sampling::mass_needed(f.top_p, total), [&](float x) { return row.weight(x, kept); });
    kept.key = key > kept.key ? key : kept.key;
  }
  if (f.min_p > 0) kept.weight = sampling::smallest_kept(f.min_p);
  return kept;
}

template <class T, class Storage, class Peers>
__global__ void __launch_bounds__(SAMPLE_THREADS, 1)
    sample_kernel(SampleParams p, int log2_ranks, int32_t room, uint32_t own_offset) {
  auto* shared = block_smem<PassShared<NoInputs>>();
  auto* own = reinterpret_cast<SampleShared*>(reinterpret_cast<char*>(shared) + own_offset);
  const int64_t r = blockIdx.x >> log2_ranks;
  const int32_t vocab = static_cast<int32_t>(p.vocab);
  const bool first = Peers::rank() == 0 && threadIdx.x == 0;
  const sampling::Orders orders = sampling::orders_of(p, r);
  const Filters f = sampling::filters_of(p, r);
  if (!orders.draws || !sampling::legal(f)) {
    Peers::sync();  // all threads have read the state that one of them moves on
    if (first) sampling::emit_logits(p, r, orders.draws ? Drawn{-1, NAN, NAN} : Drawn{0, 0.f, 0.f});
    return;
  }
  const T* logits = static_cast<const T*>(p.logits) + r * p.row_stride;
  if (threadIdx.x == 0) own->lists = 0;
  SampledRow<T, Storage, Peers> row(logits, vocab, log2_ranks, room, shared, own);
  __syncthreads();  // the barriers of the copies are ready

  row.scale = sampling::power_scale(sampling::softmax_temperature(f));
  row.template find_max<true>();
  Drawn drawn{-1, NAN, NAN};
  if (!row.usable()) {
    if (first) sampling::emit_logits(p, r, drawn);
    return;
  }
  const float full_max = row.max;
  Kept kept{0, 0};
  const Mass full_total = row.weigh(kept);
  Mass total = full_total;
  if (budget::any(orders.masked)) {
    if (threadIdx.x == 0) {
      budget::each_list(orders.masked, [&](const int32_t* ids, int32_t count) {
        own->list_begin[own->lists] = ids;
        own->list_end[own->lists++] = ids + count;
      });
    }
    __syncthreads();
    row.lists = own->lists;
    row.template find_max<false>();
    if (!row.usable()) {
      if (first) sampling::emit_logits(p, r, drawn);
      Peers::sync();
      return;
    }
    total = row.weigh(kept);
  }

  int32_t token = -1;
  if (f.temperature == 0) {
    token = row.first_maximum();
    if (!first) token = -1;
  } else {
    if (sampling::filters_any(f)) {
      kept = filter(row, f, vocab, total);
      Peers::sync();
      total = row.weigh(kept);
    }
    const uint64_t target = sampling::target_of(row_random(p.seeds[r], p.positions[r]), total);
    if (row.warp == 0) token = row.locate(target, kept);
    if (row.lane != 0) token = -1;
  }
  if (token >= 0) {
    const float x = to_float(logits[token]);
    drawn.token = token;
    drawn.logprob = f.temperature == 0 ? 0.f : sampling::logprob(x, row.max, f.temperature, total);
    drawn.full_logprob = sampling::logprob(x, full_max, sampling::softmax_temperature(f), full_total);
    if (p.kept_rows != nullptr && sampling::filters_any(f))  // for kept_ids_kernel
      p.kept_rows[r] = {true, row.max, kept.key > 0 ? sampling::logit_of(kept.key) : -INFINITY,
                        orders.masked};
    sampling::emit_logits(p, r, drawn);
  }
  Peers::sync();  // peers may still be reading this CTA's sums
}

constexpr int FINISH_THREADS = 1024;

__global__ void __launch_bounds__(FINISH_THREADS, 1) finish_kernel(SampleParams p) {
  int active = 0;
  int64_t broken = -1;
  // Every thread takes every turn: the counts are barriers.
  for (int64_t begin = 0; begin < p.rows; begin += FINISH_THREADS) {
    const int64_t r = begin + threadIdx.x;
    const bool mine = r < p.rows;
    if (p.active != nullptr) {
      active +=
          __syncthreads_count(mine && budget::load(p.state + r * budget::STATE_WIDTH).phase != budget::DONE);
    }
    const bool unusable = mine && isnan(p.logprobs[r]);
    if (p.broken != nullptr && broken < 0 && __syncthreads_or(unusable)) {
      auto* least = block_smem<int>();
      if (threadIdx.x == 0) *least = FINISH_THREADS;
      __syncthreads();
      if (unusable) atomicMin(least, static_cast<int>(threadIdx.x));
      __syncthreads();
      broken = begin + *least;
    }
  }
  if (threadIdx.x != 0) return;
  if (p.active != nullptr) *p.active = active;
  if (p.broken != nullptr && broken >= 0 && *p.broken == 0) *p.broken = static_cast<int32_t>(broken) + 1;
}

template <class T>
LaunchResult sample_rows(const SampleParams& p, cudaStream_t stream) {
  const bool may_filter = p.temperature != nullptr || p.top_k != nullptr || p.top_p != nullptr ||
                          p.min_p != nullptr || sampling::filters_any(p.all);
  const size_t own_bytes = may_filter ? sizeof(SampleShared) : SAMPLE_BYTES;
  LogitsLaunch shape = logits_launch(p.dtype, p.vocab, /*rereads=*/true);
  if (shape.resident && shape.shared_bytes + own_bytes > most_shared_bytes())
    shape = {false, 1, SAMPLE_THREADS, PASS_HEADER_BYTES};
  if (!shape.resident)  // taken from the memory that would keep part of the row
    shape.shared_bytes =
        std::max(PASS_HEADER_BYTES, shape.shared_bytes - std::min(shape.shared_bytes, own_bytes));
  const int64_t ctas = p.rows * shape.cluster;
  if (ctas > INT32_MAX) return {cudaErrorInvalidConfiguration, "sample_kernel"};
  const Grid grid{dim3(static_cast<unsigned>(ctas)),
                  dim3(static_cast<unsigned>(std::min(shape.threads, SAMPLE_THREADS))),
                  shape.shared_bytes + own_bytes, static_cast<unsigned>(shape.cluster)};
  const int32_t room = static_cast<int32_t>((shape.shared_bytes - PASS_HEADER_BYTES) / sizeof(Vec16));
  const uint32_t offset = static_cast<uint32_t>(shape.shared_bytes);
  if (!shape.resident) return launch<sample_kernel<T, Streamed, Solo>>(grid, stream, p, 0, room, offset);
  return launch<sample_kernel<T, Resident, Cluster>>(grid, stream, p, log2_of(shape.cluster), room, offset);
}

}  // namespace

LaunchResult sample(const SampleParams& p, cudaStream_t stream) {
  const LaunchResult drawn = p.dtype == Scalar::F32    ? sample_rows<float>(p, stream)
                             : p.dtype == Scalar::BF16 ? sample_rows<Bf16>(p, stream)
                                                       : sample_rows<F16>(p, stream);
  if (!drawn) return drawn;
  if (p.most_kept > 0)
    if (const LaunchResult listed = list_kept_ids(p, stream); !listed) return listed;
  if (p.active == nullptr && p.broken == nullptr) return drawn;
  return launch<finish_kernel>({dim3(1), dim3(FINISH_THREADS), sizeof(int)}, stream, p);
}

}  // namespace elastic::cuda
