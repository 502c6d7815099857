// One row of logits in a cluster of CTAs, for sampling: passes over it, integer sums, exact thresholds.
//
// Storage and peers are those of the logits pass (logits_pass.cuh): the row lies in the shared memory of a
// cluster, a slice a CTA, or is streamed again from L2 by each pass. Weights are integers (core/sampling.h),
// so no result depends on the cluster's size, the number of threads or the order of atomics.
#pragma once

#include "core/sampling_params.h"
#include "cuda/logits_launch.cuh"
#include "cuda/mass.cuh"

namespace elastic::cuda {

constexpr int LOG2_BINS = 11, BINS = 1 << LOG2_BINS;
constexpr int LOOSE = 16;  // at least the elements of a row outside its vectors

// What a CTA keeps behind its slice of the row.
struct SampleShared {
  Mass unit_mass[UNITS];
  Mass loose_mass[LOOSE];
  float warp_max[WARP];
  int32_t warp_first[WARP];
  float max;      // of this CTA's slice
  int32_t first;  // index of the row's maximum in it
  // Masked ids: lists [begin, end).
  int32_t lists;
  const int32_t* list_begin[budget::MOST_LISTS];
  const int32_t* list_end[budget::MOST_LISTS];
  // A selection's boundary bin, and the mass it must still give.
  int32_t bin;
  Mass needed;
  // Rows with filters only:
  Mass bins[BINS];  // of this CTA
  Mass sums[BINS];  // of the cluster
};
constexpr size_t SAMPLE_BYTES = offsetof(SampleShared, bins);

// What the filters leave of a row: logits of at least this order, weights of at least this size.
struct Kept {
  uint32_t key;
  Mass weight;
};

template <class T, class Storage, class Peers>
struct SampledRow {
  static constexpr int E = PER_VECTOR<T>;
  static constexpr int AHEAD = Storage::AHEAD > 2 ? 2 : Storage::AHEAD;  // registers of more would spill
  const T* logits;
  LogitsLayout layout;
  Storage load;
  SampleShared* own;
  int rank, ranks, log2_units;
  int warp, warps, lane;
  int32_t loose;
  int32_t lists = 0;  // of masked ids
  float max = 0.f, scale = 0.f;

  template <class Inputs>
  __device__ __forceinline__ SampledRow(const T* logits, int32_t vocab, int log2_ranks, int32_t room,
                                        PassShared<Inputs>* shared, SampleShared* own)
      : logits(logits),
        layout(LogitsLayout::of<T>(logits, vocab)),
        load(logits, layout, Peers::rank() << (LOG2_UNITS - log2_ranks), LOG2_UNITS - log2_ranks, room,
             shared),
        own(own),
        rank(Peers::rank()),
        ranks(1 << log2_ranks),
        log2_units(LOG2_UNITS - log2_ranks),
        warp(static_cast<int>(threadIdx.x) / WARP),
        warps(static_cast<int>(blockDim.x) / WARP),
        lane(static_cast<int>(threadIdx.x) % WARP),
        loose(Peers::rank() == 0 ? loose_element(layout, vocab) : -1) {}

  __device__ __forceinline__ int first_unit() const { return rank << log2_units; }
  // Bit e: the token at index i + e is masked, e below E.
  __device__ __forceinline__ uint32_t masked_from(int32_t i) const {
    uint32_t bits = 0;
#pragma unroll 1
    for (int32_t l = 0; l < lists; l++) {
      const int32_t* end = own->list_end[l];
#pragma unroll 1
      for (const int32_t* id = own->list_begin[l]; id != end; id++)
        bits |= uint32_t(*id - i) < E ? 1u << (*id - i) : 0u;
    }
    return bits;
  }
  // The logits of a vector, the first at index i. The mask comes first: with the logits in registers beside
  // its loops they spill.
  __device__ __forceinline__ void read(int32_t i, const Vec16& q, float (&x)[E]) const {
    const uint32_t hidden = masked_from(i);
    unpack<T>(q, x);
    if (hidden == 0) return;
#pragma unroll
    for (int e = 0; e < E; e++) x[e] = hidden >> e & 1 ? -INFINITY : x[e];
  }
  __device__ __forceinline__ float loose_logit() const {
    return masked_from(loose) & 1 ? -INFINITY : to_float(logits[loose]);
  }

  // use(index, logit) for this lane's share of a unit, and of the CTA's slice. Passes behind the FIRST find
  // the row, or part of it, on chip.
  template <bool FIRST = false, class Use>
  __device__ __forceinline__ void visit_unit(int u, const Use& use) const {
    const auto fetch = [&](int32_t v) { return FIRST ? load.first(v) : load(v); };
    each_vector<AHEAD>(layout.begin(u), layout.begin(u + 1), fetch, [&](int32_t v, const Vec16& q) {
      float x[E];
      const int32_t i = layout.head + v * E;
      read(i, q, x);
#pragma unroll
      for (int e = 0; e < E; e++) use(i + e, x[e]);
    });
  }
  template <bool FIRST = false, class Use>
  __device__ __forceinline__ void visit(const Use& use) const {
    if (loose >= 0) use(loose, loose_logit());
    for (int u = warp; u < 1 << log2_units; u += warps) {
      load.wait(u);
      visit_unit<FIRST>(first_unit() + u, use);
    }
  }

  // The row's largest logit; +inf where one is NaN or +inf.
  template <bool FIRST>
  __device__ __forceinline__ void find_max() {
    float best = -INFINITY;
    visit<FIRST>([&](int32_t, float x) { best = fmaxf(best, x < INFINITY ? x : INFINITY); });
    const Span<float> warp_max(own->warp_max, WARP);
    best = warp_reduce(best, Max());
    if (lane == 0) warp_max[warp] = best;
    __syncthreads();
    if (warp == 0) {
      best = warp_reduce(lane < warps ? warp_max[lane] : -INFINITY, Max());
      if (lane == 0) own->max = best;
    }
    Peers::sync();
    max = -INFINITY;
    for (int peer = 0; peer < ranks; peer++) max = fmaxf(max, *Peers::of(&own->max, peer));
    Peers::sync();  // the next maximum goes to the same place
  }
  __device__ __forceinline__ bool usable() const { return max > -INFINITY && max < INFINITY; }

  // The first index of the maximum.
  __device__ __forceinline__ int32_t first_maximum() const {
    int32_t first = INT32_MAX;
    visit([&](int32_t i, float x) { first = x == max && i < first ? i : first; });
    const auto smaller = [](int32_t a, int32_t b) { return a < b ? a : b; };
    const Span<int32_t> warp_first(own->warp_first, WARP);
    first = warp_reduce(first, smaller);
    if (lane == 0) warp_first[warp] = first;
    __syncthreads();
    if (warp == 0) {
      first = warp_reduce(lane < warps ? warp_first[lane] : INT32_MAX, smaller);
      if (lane == 0) own->first = first;
    }
    Peers::sync();
    first = INT32_MAX;
    for (int peer = 0; peer < ranks; peer++) first = smaller(first, *Peers::of(&own->first, peer));
    return first;
  }

  __device__ __forceinline__ Mass weight(float x, const Kept& kept) const {
    const Mass w = sampling::weight(x, max, scale);
    return sampling::ordered(x) >= kept.key && w >= kept.weight ? w : 0;
  }

  // Weighs the kept tokens, unit by unit; returns their total.
  __device__ __forceinline__ Mass weigh(const Kept& kept) {
    const Span<Mass> unit_mass(own->unit_mass, 1 << log2_units), loose_mass(own->loose_mass, LOOSE);
    if (rank == 0 && threadIdx.x < LOOSE)
      loose_mass[threadIdx.x] = loose >= 0 ? weight(loose_logit(), kept) : 0;
    for (int u = warp; u < 1 << log2_units; u += warps) {
      Mass sum = 0;
      load.wait(u);
      visit_unit(first_unit() + u, [&](int32_t, float x) { sum += weight(x, kept); });
      sum = warp_reduce(sum, Sum());
      if (lane == 0) unit_mass[u] = sum;
    }
    Peers::sync();
    Mass total = lane < LOOSE ? Peers::of(own->loose_mass, 0)[lane] : 0;
#pragma unroll
    for (int i = 0; i < UNITS / WARP; i++) total += mass_of_unit(lane * (UNITS / WARP) + i);
    return warp_reduce(total, Sum());
  }
  __device__ __forceinline__ Mass mass_of_unit(int u) const {
    return Peers::of(own->unit_mass, u >> log2_units)[u & ((1 << log2_units) - 1)];
  }

  // After weigh(), the first index whose cumulated weight exceeds target. Called by the first warp of every
  // CTA; -1 except in the CTA whose slice holds it.
  __device__ __forceinline__ int32_t locate(Mass target, const Kept& kept) const {
    const Mass mine = lane < LOOSE ? Peers::of(own->loose_mass, 0)[lane] : 0;
    const Mass head = warp_reduce(lane < layout.head ? mine : 0, Sum());
    if (target < head) return locate_loose(mine, target, 0);
    target -= head;
    Mass sum = 0;
    for (int i = 0; i < UNITS / WARP; i++) sum += mass_of_unit(lane * (UNITS / WARP) + i);
    const Mass before = exclusive_scan(sum);
    const unsigned hit = __ballot_sync(~0u, before <= target && target < before + sum);
    if (hit == 0) return locate_loose(mine, target - from_lane(before + sum, WARP - 1), layout.head);
    const int owner = __ffs(static_cast<int>(hit)) - 1;
    target -= from_lane(before, owner);
    int u = owner * (UNITS / WARP);
    for (; target >= mass_of_unit(u); u++) target -= mass_of_unit(u);
    if (u >> log2_units != rank) return -1;
    return locate_in_unit(u, target, kept);
  }
  // Among the loose elements from lane `first` on.
  __device__ __forceinline__ int32_t locate_loose(Mass mine, Mass target, int first) const {
    const Mass sum = lane >= first ? mine : 0, before = exclusive_scan(sum);
    const unsigned hit = __ballot_sync(~0u, before <= target && target < before + sum);
    const int32_t found = __shfl_sync(~0u, loose, __ffs(static_cast<int>(hit)) - 1);
    return rank == 0 ? found : -1;
  }
  __device__ __forceinline__ int32_t locate_in_unit(int u, Mass target, const Kept& kept) const {
    for (int32_t v = layout.begin(u);; v += WARP) {
      float x[E];
      Mass sum = 0;
      const int32_t i = layout.head + (v + lane) * E;
      if (v + lane < layout.begin(u + 1)) {
        read(i, load(v + lane), x);
        for (int e = 0; e < E; e++) sum += weight(x[e], kept);
      }
      const Mass before = exclusive_scan(sum);
      const bool here = before <= target && target < before + sum;
      const unsigned hit = __ballot_sync(~0u, here);
      int32_t found = i;
      if (here) {
        Mass rest = target - before;
        for (int e = 0; e < E; e++) {
          const Mass w = weight(x[e], kept);
          if (rest < w) {
            found = i + e;
            break;
          }
          rest -= w;
        }
      }
      if (hit != 0) return __shfl_sync(~0u, found, __ffs(static_cast<int>(hit)) - 1);
      target -= from_lane(before + sum, WARP - 1);
    }
  }

  // The order of the largest logit v such that the masses of tokens x >= v reach `needed`; 0 if all of them
  // do not. Level 0 bins by distance from the maximum, 32 bins per power of two, which spreads the tokens
  // over many bins; the levels below are a radix selection among the boundary bin's tokens.
  template <class MassOf>
  __device__ __forceinline__ uint32_t threshold(Mass needed, const MassOf& mass_of) const {
    const float bin_scale = scale * 32.f;
    const auto far_bin = [&](float x) { return BINS - 1 - int(fminf((max - x) * bin_scale, BINS - 1)); };
    const Span<Mass> bins(own->bins, BINS), sums(own->sums, BINS);
    int far = 0;
    uint32_t key = 0;
    for (int level = 0; level < 4; level++) {
      const int shift = level == 1 ? 32 - LOG2_BINS : level == 2 ? 32 - 2 * LOG2_BINS : 0;
      const uint32_t above = level <= 1 ? 0u : ~0u << (level == 2 ? 32 - LOG2_BINS : 32 - 2 * LOG2_BINS);
      for (int b = static_cast<int>(threadIdx.x); b < BINS; b += static_cast<int>(blockDim.x)) bins[b] = 0;
      __syncthreads();
      visit([&](int32_t, float x) {
        const int at = far_bin(x);
        const uint32_t order = sampling::ordered(x);
        if (level > 0 && (at != far || ((order ^ key) & above) != 0)) return;
        const Mass mass = mass_of(x);
        if (mass > 0) atomicAdd(&bins[level == 0 ? at : int(order >> shift & (BINS - 1))], mass);
      });
      Peers::sync();
      for (int b = static_cast<int>(threadIdx.x); b < BINS; b += static_cast<int>(blockDim.x)) {
        Mass sum = 0;
        for (int peer = 0; peer < ranks; peer++) sum += Peers::of(own->bins, peer)[b];
        sums[b] = sum;
      }
      Peers::sync();  // bins are cleared for the next level
      if (warp == 0) find_boundary(needed);
      __syncthreads();
      if (own->bin < 0) return 0;
      needed = own->needed;
      if (level == 0)
        far = own->bin;
      else
        key |= static_cast<uint32_t>(own->bin) << shift;
      __syncthreads();  // own->bin is read before the next level writes it
    }
    return key;
  }

  // One warp: the bin in which the sums from the top reach `needed`, and what is left of `needed` there.
  __device__ __forceinline__ void find_boundary(Mass needed) const {
    constexpr int PER_LANE = BINS / WARP;
    const Span<Mass> sums(own->sums, BINS);
    const int top = BINS - 1 - lane * PER_LANE;
    Mass sum = 0;
    for (int i = 0; i < PER_LANE; i++) sum += sums[top - ((i + lane) & (PER_LANE - 1))];  // spread over banks
    const Mass before = exclusive_scan(sum);
    const bool here = before < needed && needed <= before + sum;
    const unsigned hit = __ballot_sync(~0u, here);
    if (hit == 0 && lane == 0) own->bin = -1;
    if (!here) return;
    Mass rest = needed - before;
    int bin = top;
    for (; sums[bin] < rest; bin--) rest -= sums[bin];
    own->bin = bin;
    own->needed = rest;
  }
};

}  // namespace elastic::cuda
