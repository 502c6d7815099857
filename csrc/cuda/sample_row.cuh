// One row of logits in a cluster of CTAs, for sampling: its maximum and its weights.
//
// Storage and peers are those of the logits pass (logits_pass.cuh): the row lies in the shared memory of a
// cluster, a slice a CTA, or one CTA reads it again in each pass. A warp takes a segment of its CTA's
// vectors; what a row has outside whole vectors is loose, one logit a thread of the first CTA. Weights are
// integers (core/sampling.h), so no result depends on how the row is divided.
//
// Instructions per logit of the main loops (sm_90, resident; bf16 / fp32): find_max 0.6 / 1.8, weigh 17 / 16
// in doubles and 24 in integers, filtered 22 in vectors that hold a kept logit and 1 / 2 in others.
#pragma once

#include "core/sampling_params.h"
#include "cuda/logits_launch.cuh"
#include "cuda/packed_max.cuh"
#include "cuda/weight_sum.cuh"

namespace elastic::cuda {

constexpr int MOST_WARPS = 16;  // of a CTA
constexpr int LOOSE = 16;       // at least the logits of a row outside its vectors

// What all threads of a cluster combine.
struct alignas(16) Reduced {
  char bytes[32];
};

// What a CTA keeps behind its slice of the row.
struct RowShared {
  sampling::Filters filters;
  budget::Masked masked;
  Mass segment_mass[MOST_WARPS];
  Mass warp_mass[MOST_WARPS];
  Mass loose_mass[LOOSE];
  Reduced of_warp[MOST_WARPS];
  Reduced of_block[2];
  // Masked ids: lists [begin, end); whether a segment holds one.
  int32_t lists;
  int32_t dirty[MOST_WARPS];
  const int32_t* list_begin[budget::MOST_LISTS];
  const int32_t* list_end[budget::MOST_LISTS];
};

// What the filters leave of a row: logits from `logit` up whose power is at least `power`.
struct Kept {
  float logit = -INFINITY;
  float power = 0.f;
};

struct Extremes {
  float largest;   // of the row; NaN if it holds one
  float smallest;  // of the threads' largest
};
struct ExtremesJoin {
  __device__ __forceinline__ Extremes operator()(const Extremes& a, const Extremes& b) const {
    return {MaxOrNan()(a.largest, b.largest), fminf(a.smallest, b.smallest)};
  }
};

template <class T, class Storage, class Peers, class WeightSum>
struct SampledRow {
  using Element = T;
  using Weights = WeightSum;
  static constexpr int E = PER_VECTOR<T>;
  static constexpr bool RESIDENT = std::is_same_v<Storage, Resident>;
  const T* logits;
  LogitsLayout layout;
  Storage load;
  RowShared* own;
  int rank, ranks, log2_units;
  int thread, threads, warp, warps, lane;
  int32_t first_vector, last_vector, segment;  // of this CTA; vectors of a segment
  int32_t loose;                               // index of this thread's loose logit, or -1
  float loose_logit;                           // -inf if there is none
  int32_t lists = 0;                           // of masked ids that reads must leave out
  int turn = 0;
  float max = 0.f, scale = 0.f;
  float thread_max = 0.f;  // of the logits that this thread saw in find_max()

  template <class Inputs>
  __device__ __forceinline__ SampledRow(const T* logits, int32_t vocab, int log2_ranks, int32_t room,
                                        PassShared<Inputs>* shared, RowShared* own)
      : logits(logits),
        layout(LogitsLayout::of<T>(logits, vocab)),
        load(logits, layout, Peers::rank() << (LOG2_UNITS - log2_ranks), LOG2_UNITS - log2_ranks, room,
             shared),
        own(own),
        rank(Peers::rank()),
        ranks(1 << log2_ranks),
        log2_units(LOG2_UNITS - log2_ranks),
        thread(static_cast<int>(threadIdx.x)),
        threads(static_cast<int>(blockDim.x)),
        warp(thread / WARP),
        warps(threads / WARP),
        lane(thread % WARP),
        first_vector(layout.begin(rank << log2_units)),
        last_vector(layout.begin((rank + 1) << log2_units)),
        segment((last_vector - first_vector + warps - 1) / warps),
        loose(rank == 0 ? loose_element(layout, vocab) : -1),
        loose_logit(loose >= 0 ? to_float(logits[loose]) : -INFINITY) {}

  __device__ __forceinline__ int32_t segment_begin(int w) const {
    const int32_t v = first_vector + w * segment;
    return v < last_vector ? v : last_vector;
  }

  __device__ __forceinline__ int32_t all_threads() const { return ranks * threads; }
  static __device__ __forceinline__ bool is_first_thread() { return Peers::rank() == 0 && threadIdx.x == 0; }
  static __device__ __forceinline__ void sync() { Peers::sync(); }
  template <class S>
  __device__ __forceinline__ S* of_peer(S* shared, int peer) const {
    return const_cast<S*>(Peers::of(shared, peer));
  }

  // Combines a value of every thread of the cluster; all get the result.
  template <class V, class Op>
  __device__ __forceinline__ V reduce(V value, V none, Op op) {
    static_assert(sizeof(V) <= sizeof(Reduced));
    value = warp_reduce(value, op);
    if (lane == 0) *reinterpret_cast<V*>(own->of_warp[warp].bytes) = value;
    __syncthreads();
    if (warp == 0) {
      value = warp_reduce(lane < warps ? *reinterpret_cast<const V*>(own->of_warp[lane].bytes) : none, op);
      if (lane == 0) *reinterpret_cast<V*>(own->of_block[turn].bytes) = value;
    }
    Peers::sync();
    value = none;
    if (lane < ranks) value = *reinterpret_cast<const V*>(Peers::of(own->of_block + turn, lane)->bytes);
    turn ^= 1;  // peers may still be reading this turn's
    return warp_reduce(value, op);
  }

  // Finds the row's largest logit, NaN where one is NaN, and returns the smallest of the threads' largest.
  // first: the row may still be on its way.
  __device__ __forceinline__ float find_max(bool first) {
    Vec16 best = lowest_logits<T>();
    const int log2_chunk = log2_units - LOG2_CHUNKS;
    const auto take = [&](int32_t v) { best = packed_max<T>(best, first ? load.first(v) : vector(v)); };
#pragma unroll 1
    for (int c = 0; c < CHUNKS; c++) {
      const int u = c << log2_chunk, begin = (rank << log2_units) + u;
      load.wait(u);
      const int32_t end = layout.begin(begin + (1 << log2_chunk));
      int32_t v = layout.begin(begin) + thread;
#pragma unroll 1
      for (; v + 3 * threads < end; v += 4 * threads) {
#pragma unroll
        for (int i = 0; i < 4; i++) take(v + i * threads);
      }
#pragma unroll 1
      for (; v < end; v += threads) take(v);
    }
    thread_max = MaxOrNan()(largest_logit<T>(best), loose_logit);
    const Extremes all =
        reduce(Extremes{thread_max, thread_max}, Extremes{-INFINITY, INFINITY}, ExtremesJoin());
    max = all.largest;
    return all.smallest;
  }
  __device__ __forceinline__ bool usable() const { return max > -INFINITY && max < INFINITY; }

  // A vector without its masked logits.
  __device__ __forceinline__ Vec16 vector(int32_t v) const {
    Vec16 q = load(v);
    if constexpr (!RESIDENT) {
      if (lists > 0) hide_in(q, layout.head + v * E);
    }
    return q;
  }
  __device__ __forceinline__ void hide_in(Vec16& q, int32_t i) const {
    uint32_t hidden = 0;  // bit e: the token at index i + e is masked
    each_masked(0, 1, [&](int32_t id) { hidden |= uint32_t(id - i) < E ? 1u << (id - i) : 0u; });
    if (hidden == 0) return;
    float x[E];
    unpack<T>(q, x);
#pragma unroll
    for (int e = 0; e < E; e++) x[e] = hidden >> e & 1 ? -INFINITY : x[e];
    q = pack<T>(x);
  }
  template <class Use>
  __device__ __forceinline__ void each_masked(int32_t from, int32_t step, const Use& use) const {
#pragma unroll 1
    for (int32_t l = 0; l < own->lists; l++) {
      const int32_t* end = own->list_end[l];
#pragma unroll 1
      for (const int32_t* id = own->list_begin[l] + from; id < end; id += step) use(*id);
    }
  }

  // From here on the row is without its masked tokens. Segments that held one are dirty.
  __device__ __forceinline__ void hide(const budget::Masked& masked) {
    if (thread == 0) {
      own->lists = 0;
      budget::each_list(masked, [&](const int32_t* ids, int32_t count) {
        own->list_begin[own->lists] = ids;
        own->list_end[own->lists++] = ids + count;
      });
    }
    if (thread < MOST_WARPS) own->dirty[thread] = 0;
    __syncthreads();
    lists = own->lists;
    each_masked(thread, threads, [&](int32_t id) {
      const int32_t i = id - layout.head, v = i / E;
      if (i < 0 || v < first_vector || v >= last_vector) return;
      own->dirty[(v - first_vector) / segment] = 1;
      if constexpr (RESIDENT)
        reinterpret_cast<T*>(&load.slice[v - first_vector])[i - v * E] = from_float<T>(-INFINITY);
    });
    if (loose >= 0)
      each_masked(0, 1, [&](int32_t id) { loose_logit = id == loose ? -INFINITY : loose_logit; });
    __syncthreads();
  }

  // use(vector's index, vector) for this thread's share of the row.
  template <class Use>
  __device__ __forceinline__ void each_vector_of_warp(const Use& use) const {
    each_vector<1>(segment_begin(warp), segment_begin(warp + 1), [&](int32_t v) { return vector(v); }, use);
  }

  // The first index of the maximum.
  __device__ __forceinline__ int32_t first_maximum() {
    int32_t first = loose_logit == max ? loose : INT32_MAX;
    each_vector_of_warp([&](int32_t v, const Vec16& q) {
      float x[E];
      unpack<T>(q, x);
#pragma unroll
      for (int e = 0; e < E; e++) {
        const int32_t i = layout.head + v * E + e;
        first = x[e] == max && i < first ? i : first;
      }
    });
    return reduce(first, INT32_MAX, [](int32_t a, int32_t b) { return a < b ? a : b; });
  }

  // The mass of what is kept; also noted by segment, of which only the dirty ones are weighed if asked so.
  template <bool FILTERED>
  __device__ __forceinline__ Mass weigh(const Kept& kept, bool only_dirty = false) {
    if (rank == 0 && thread < LOOSE) own->loose_mass[thread] = kept_weight(loose_logit, kept);
    if (!only_dirty || own->dirty[warp]) {
      WeightSum sum;
      each_vector_of_warp([&](int32_t, const Vec16& q) { add_vector<FILTERED>(sum, q, kept); });
      const Mass mass = warp_reduce(sum.mass(), Sum());
      if (lane == 0) own->segment_mass[warp] = mass;
    }
    Mass mine = lane == 0 ? own->segment_mass[warp] : 0;
    if (rank == 0 && thread < LOOSE) mine += own->loose_mass[thread];
    return reduce(mine, Mass(0), Sum());
  }
  template <bool FILTERED>
  __device__ __forceinline__ void add_vector(WeightSum& sum, const Vec16& q, const Kept& kept) const {
    if (FILTERED && largest_logit<T>(q) < kept.logit) return;
    float x[E];
    unpack<T>(q, x);
#pragma unroll
    for (int e = 0; e < E; e++) {
      const float power = sampling::power(x[e], max, scale);
      if constexpr (FILTERED)  // NaN is below every limit, -inf not below -inf
        sum.add_from(WeightSum::term(power), power >= kept.power ? x[e] : NAN, kept.logit);
      else
        sum.add(WeightSum::term(power));
    }
  }
  __device__ __forceinline__ Mass kept_weight(float x, const Kept& kept) const {
    const float power = sampling::power(x, max, scale);
    return x >= kept.logit && power >= kept.power ? sampling::weight_of(power) : 0;
  }

  __device__ __forceinline__ Mass loose_mass_of_lane() const {
    return lane < LOOSE ? Peers::of(own->loose_mass, 0)[lane] : 0;
  }
  // Of masses that every CTA has by warp, the sum of the CTA whose rank is this lane.
  __device__ __forceinline__ Mass mass_of_rank(Mass* by_warp) const {
    Mass sum = 0;
    if (lane < ranks)
      for (int w = 0; w < warps; w++) sum += Peers::of(by_warp, lane)[w];
    return sum;
  }
  // What the threads before this one count, and what all do.
  __device__ __forceinline__ int32_t count_before(uint32_t count, int32_t& all) const {
    Mass before = exclusive_scan(count);
    if (lane == WARP - 1) own->warp_mass[warp] = before + count;
    Peers::sync();
    const Mass of_rank = mass_of_rank(own->warp_mass), of_warp = lane < warps ? own->warp_mass[lane] : 0;
    before += from_lane(exclusive_scan(of_rank), rank) + from_lane(exclusive_scan(of_warp), warp);
    all = static_cast<int32_t>(warp_reduce(of_rank, Sum()));
    return static_cast<int32_t>(before);
  }
};

}  // namespace elastic::cuda
