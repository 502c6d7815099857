// The ids that filters left of each row (core/sampling_params.h), in index order.
//
// One block per row reads the row again, from L2 where it still lies there, a logit per thread at a time.
// What is kept was decided by sample_kernel; a warp's kept ids get their places from a ballot, warps from a
// sum over the block. A row that was not filtered, or whose token was not drawn, reads nothing.
#include "cuda/logits_launch.cuh"
#include "cuda/sample.h"

namespace elastic::cuda {
namespace {

using sampling::Filters;
using sampling::KeptRow;
using sampling::SampleParams;

constexpr int LIST_THREADS = 1024, LIST_WARPS = LIST_THREADS / WARP;

__device__ bool is_masked(const budget::Masked& masked, int32_t id) {
  bool found = false;
  if (!budget::any(masked)) return found;
  budget::each_list(masked, [&](const int32_t* ids, int32_t count) {
    for (int32_t i = 0; i < count; i++) found |= ids[i] == id;
  });
  return found;
}

template <class T>
__global__ void __launch_bounds__(LIST_THREADS, 1) kept_ids_kernel(SampleParams p) {
  const int64_t r = blockIdx.x;
  const KeptRow row = p.kept_rows[r];
  const bool drawn = p.state == nullptr || p.source[r] == budget::SAMPLED;
  if (!row.filtered || !drawn) {
    if (threadIdx.x == 0) p.kept_counts[r] = 0;
    return;
  }
  const Filters f = sampling::filters_of(p, r);
  const float scale = sampling::power_scale(f.temperature);
  const uint64_t least = f.min_p > 0 ? sampling::smallest_kept(f.min_p) : 1;
  const T* logits = static_cast<const T*>(p.logits) + r * p.row_stride;
  const Span<int32_t> ids(p.kept_ids + r * p.most_kept, p.most_kept);
  const Span<int> of_warp(block_smem<int>(), LIST_WARPS);
  const int warp = static_cast<int>(threadIdx.x) / WARP;
  const unsigned lower = (1u << (threadIdx.x % WARP)) - 1;
  int64_t count = 0;
  for (int64_t begin = 0; begin < p.vocab; begin += LIST_THREADS) {
    const int64_t id = begin + threadIdx.x;
    const float x = id < p.vocab ? to_float(logits[id]) : -INFINITY;
    const bool kept = id < p.vocab && x >= row.logit && x <= row.max &&
                      sampling::weight(x, row.max, scale) >= least &&
                      !is_masked(row.masked, static_cast<int32_t>(id));
    const unsigned votes = __ballot_sync(~0u, kept);
    if (!__syncthreads_or(votes != 0)) continue;
    if (threadIdx.x % WARP == 0) of_warp[warp] = __popc(votes);
    __syncthreads();
    int before = 0, all = 0;
    for (int w = 0; w < LIST_WARPS; w++) {
      before += w < warp ? of_warp[w] : 0;
      all += of_warp[w];
    }
    const int64_t place = count + before + __popc(votes & lower);
    if (kept && place < p.most_kept) ids[place] = static_cast<int32_t>(id);
    count += all;
    __syncthreads();  // of_warp is read
  }
  if (threadIdx.x == 0) p.kept_counts[r] = static_cast<int32_t>(count);
}

}  // namespace

LaunchResult list_kept_ids(const SampleParams& p, cudaStream_t stream) {
  const Grid grid{dim3(static_cast<unsigned>(p.rows)), dim3(LIST_THREADS), LIST_WARPS * sizeof(int)};
  return with_logits_type(
      p.dtype, 0, [&](auto type, auto) { return launch<kept_ids_kernel<decltype(type)>>(grid, stream, p); });
}

}  // namespace elastic::cuda
