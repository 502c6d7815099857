// Draws one token per row and takes its budget step (core/sampling.h has the definition).
//
// A row goes to a cluster of CTAs that keeps it in shared memory (sm_90 and newer), or to one CTA that
// streams it (sample_row.cuh). Passes: maximum, weights; with filters those that find a threshold
// (sample_search.cuh), and the weights of what is kept, which skips vectors below the threshold. Then one
// segment is searched for the token. Row state is read first: for a forced or finished row no logits are
// read. Bytes per element from memory: 4 (float32) or 2, once where the row is resident, and from L2 for
// later passes where it is streamed.
//
// finish_kernel, one CTA: counts the rows that go on and names the first unusable one; without atomics unless
// there is one.
#include "cuda/sample.h"
#include "cuda/sample_locate.cuh"
#include "cuda/sample_search.cuh"

namespace elastic::cuda {
namespace {

using sampling::Drawn;
using sampling::Filters;
using sampling::SampleParams;

struct NoInputs {};

// What is kept under the filters; `total` becomes its mass.
template <class Row>
__device__ __forceinline__ Kept filter(Row& row, SearchShared* shared, float smallest_max, const Filters& f,
                                       int32_t vocab, Mass& total) {
  enum { TOP_K, TOP_P, MIN_P };
  Search<Row> search{row, shared};
  Kept kept;
#pragma unroll 1
  for (int filter = TOP_K; filter <= MIN_P; filter++) {  // a loop: one search is compiled, not two
    const bool by_count = filter == TOP_K;
    if (by_count ? f.top_k <= 0 || f.top_k >= vocab : filter == TOP_P ? f.top_p >= 1 : f.min_p <= 0) continue;
    if (filter == MIN_P) {
      kept.power = __double2float_ru(static_cast<double>(sampling::smallest_kept(f.min_p)) * 0x1p-40);
      // Logits below this have a smaller power: their vectors are skipped.
      kept.logit = fmaxf(kept.logit, row.max + (log2f(kept.power) - 1.f) / row.scale);
    } else {
      const uint32_t least = sampling::ordered(kept.logit);
      kept.logit = sampling::logit_of(search.least_kept(by_count, f, vocab, smallest_max, least, total));
    }
    total = row.template weigh<true>(kept);
  }
  return kept;
}

template <bool FILTERS>
constexpr int SAMPLE_THREADS =
    FILTERS ? 256 : 512;  // two such CTAs share an SM: 128 or 64 registers a thread

// Of the CTAs of a row one thread gets its token, or -1 where the row is unusable; the others NOT_MINE.
constexpr int64_t NOT_MINE = -2;

template <bool FILTERS, class Row>
__device__ __forceinline__ Drawn draw(Row& row, const SampleParams& p, int64_t r, const Filters& f,
                                      const budget::Masked& masked) {
  const bool first = Row::is_first_thread();
  const double temperature = sampling::softmax_temperature(f);
  row.scale = sampling::power_scale(temperature);
  float smallest_max, full_max = 0.f;
  Mass total, full_total = 0;
#pragma unroll 1
  for (bool whole = true;; whole = false) {  // and again without the masked tokens, if there are any
    smallest_max = row.find_max(whole);
    if (!row.usable()) return {first ? -1 : NOT_MINE, 0.f, 0.f};
    total = row.template weigh<false>({}, /*only_dirty=*/!whole && row.max == full_max);
    if (whole) full_max = row.max, full_total = total;
    if (!whole || !budget::any(masked)) break;
    row.hide(masked);
  }
  int32_t token;
  Kept kept;
  if (f.temperature == 0) {
    token = row.first_maximum();
    if (!first) token = -1;
  } else {
    if constexpr (FILTERS) {
      auto* shared = reinterpret_cast<SearchShared*>(row.own + 1);
      if (sampling::filters_any(f))
        kept = filter(row, shared, smallest_max, f, static_cast<int32_t>(p.vocab), total);
    }
    token = locate(row, sampling::target_of(row_random(p.seeds[r], p.positions[r]), total), kept);
  }
  if (token < 0) return {NOT_MINE, 0.f, 0.f};
  if (FILTERS && p.kept_rows != nullptr && sampling::filters_any(f))  // for kept_ids_kernel
    p.kept_rows[r] = {true, row.max, kept.logit, masked};
  const float x = to_float(row.logits[token]);
  return {token, f.temperature == 0 ? 0.f : sampling::logprob(x, row.max, temperature, total),
          sampling::logprob(x, full_max, temperature, full_total)};
}

template <bool FILTERS, class Row>
__device__ __forceinline__ void sample_row(const SampleParams& p, int log2_ranks, int32_t room,
                                           uint32_t own_offset) {
  auto* shared = block_smem<PassShared<NoInputs>>();
  auto* own = reinterpret_cast<RowShared*>(reinterpret_cast<char*>(shared) + own_offset);
  const int64_t r = blockIdx.x >> log2_ranks;
  const sampling::Orders orders = sampling::orders_of(p, r);
  if (threadIdx.x == 0) {  // there they take no registers
    own->filters = sampling::filters_of(p, r);
    own->masked = orders.masked;
  }
  __syncthreads();
  Drawn drawn{NOT_MINE, 0.f, 0.f};
  if (orders.draws && sampling::legal(own->filters)) {
    const auto* logits = static_cast<const typename Row::Element*>(p.logits) + r * p.row_stride;
    Row row(logits, static_cast<int32_t>(p.vocab), log2_ranks, room, shared, own);
    __syncthreads();  // the barriers of the copies are ready
    drawn = draw<FILTERS>(row, p, r, own->filters, own->masked);
  } else if (Row::is_first_thread()) {
    drawn.token = orders.draws ? -1 : 0;
  }
  Row::sync();  // all have read the state that one thread moves on, and the memory of their peers
  if (drawn.token != NOT_MINE) sampling::emit_logits(p, r, drawn);
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr bool HAS_CLUSTERS = false;
#else
constexpr bool HAS_CLUSTERS = true;
#endif

template <class T, class Storage, class Peers, class WeightSum, bool FILTERS>
__global__ void __launch_bounds__(SAMPLE_THREADS<FILTERS>, 2)
    sample_kernel(SampleParams p, int log2_ranks, int32_t room, uint32_t own_offset) {
  using Row = SampledRow<T, Storage, Peers, WeightSum>;
  if constexpr (HAS_CLUSTERS || !Row::RESIDENT) sample_row<FILTERS, Row>(p, log2_ranks, room, own_offset);
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

// Whether any row may have a filter, as far as the host knows.
bool may_filter(const SampleParams& p) {
  const Filters& all = p.all;
  return p.top_k != nullptr || p.top_p != nullptr || p.min_p != nullptr || all.top_k > 0 || all.top_p < 1 ||
         all.min_p > 0;
}

template <class T, bool FILTERS>
LaunchResult sample_rows(const SampleParams& p, cudaStream_t stream) {
  const size_t own_bytes = sizeof(RowShared) + (FILTERS ? sizeof(SearchShared) : 0);
  LogitsLaunch shape = logits_launch(p.dtype, p.vocab, /*rereads=*/true);
  const bool fits = shape.shared_bytes + own_bytes <= most_shared_bytes();
  if (shape.resident && (!fits || (FILTERS && !fast_doubles())))
    shape = {false, 1, SAMPLE_THREADS<FILTERS>, PASS_HEADER_BYTES};
  if (!shape.resident)  // taken from the memory that would keep part of the row
    shape.shared_bytes =
        std::max(PASS_HEADER_BYTES, shape.shared_bytes - std::min(shape.shared_bytes, own_bytes));
  const int64_t ctas = p.rows * shape.cluster;
  if (ctas > INT32_MAX) return {cudaErrorInvalidConfiguration, "sample_kernel"};
  const Grid grid{dim3(static_cast<unsigned>(ctas)),
                  dim3(static_cast<unsigned>(std::min(shape.threads, SAMPLE_THREADS<FILTERS>))),
                  shape.shared_bytes + own_bytes, static_cast<unsigned>(shape.cluster)};
  const int32_t room = static_cast<int32_t>((shape.shared_bytes - PASS_HEADER_BYTES) / sizeof(Vec16));
  const uint32_t offset = static_cast<uint32_t>(shape.shared_bytes);
  if (!shape.resident)
    return launch<sample_kernel<T, Streamed, Solo, IntegerSum, FILTERS>>(grid, stream, p, 0, room, offset);
  const int ranks = log2_of(shape.cluster);
  if constexpr (!FILTERS) {
    if (!fast_doubles())
      return launch<sample_kernel<T, Resident, Cluster, IntegerSum, FILTERS>>(grid, stream, p, ranks, room,
                                                                              offset);
  }
  return launch<sample_kernel<T, Resident, Cluster, DoubleSum, FILTERS>>(grid, stream, p, ranks, room,
                                                                         offset);
}

template <class T>
LaunchResult sample_rows(const SampleParams& p, cudaStream_t stream) {
  return may_filter(p) ? sample_rows<T, true>(p, stream) : sample_rows<T, false>(p, stream);
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
