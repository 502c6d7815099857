// The token on which a random mass falls, once SampledRow::weigh() has noted the masses of a row's segments:
// by CTA, by segment, then by all threads of the CTA in that segment, a vector each.
#pragma once

#include "cuda/sample_row.cuh"

namespace elastic::cuda {

// The lane whose mass the target falls on; the target goes on inside it.
__device__ __forceinline__ int pick_lane(Mass mass, Mass& target) {
  const Mass before = exclusive_scan(mass);
  const unsigned hit = __ballot_sync(~0u, before <= target && target < before + mass);
  const int owner = __ffs(static_cast<int>(hit)) - 1;
  target -= from_lane(before, owner);
  return owner;
}

// Among the loose logits from lane `first` on, each with its mass.
template <class Row>
__device__ __forceinline__ int32_t locate_loose(const Row& row, Mass mass, Mass target, int first) {
  const int owner = pick_lane(row.lane >= first ? mass : 0, target);
  return row.rank == 0 && row.warp == 0 && row.lane == owner ? row.loose : -1;
}

// In vectors [begin, end).
template <class Row>
__device__ __forceinline__ int32_t locate_in(const Row& row, int32_t begin, int32_t end, Mass target,
                                             const Kept& kept) {
  constexpr int E = Row::E;
  for (;; begin += row.threads) {
    const int32_t v = begin + row.thread;
    float x[E];
    unpack<typename Row::Element>(v < end ? row.vector(v) : lowest_logits<typename Row::Element>(), x);
    Mass sum = 0;
    for (int e = 0; e < E; e++) sum += row.kept_weight(x[e], kept);
    const Mass before = exclusive_scan(sum);
    if (row.lane == WARP - 1) row.own->warp_mass[row.warp] = before + sum;
    __syncthreads();
    const Mass of_warp = row.lane < row.warps ? row.own->warp_mass[row.lane] : 0;
    const Mass all = warp_reduce(of_warp, Sum());
    __syncthreads();  // the next turn writes warp_mass
    if (target >= all) {
      target -= all;
      continue;
    }
    if (pick_lane(of_warp, target) != row.warp || target < before || target >= before + sum) return -1;
    target -= before;
    int e = 0;
    for (Mass weight; e < E - 1 && target >= (weight = row.kept_weight(x[e], kept)); e++) target -= weight;
    return row.layout.head + v * E + e;
  }
}

// The first index whose cumulated weight exceeds target, in the thread that finds it; elsewhere -1. Rows
// begin and end with loose logits, whose masses all CTAs read from the first.
template <class Row>
__device__ __forceinline__ int32_t locate(const Row& row, Mass target, const Kept& kept) {
  const Mass loose = row.loose_mass_of_lane();
  const Mass head = warp_reduce(row.lane < row.layout.head ? loose : 0, Sum());
  if (target < head) return locate_loose(row, loose, target, 0);
  target -= head;
  const Mass of_rank = row.mass_of_rank(row.own->segment_mass), vectors = warp_reduce(of_rank, Sum());
  if (target >= vectors) return locate_loose(row, loose, target - vectors, row.layout.head);
  if (pick_lane(of_rank, target) != row.rank) return -1;
  const int w = pick_lane(row.lane < row.warps ? row.own->segment_mass[row.lane] : 0, target);
  return locate_in(row, row.segment_begin(w), row.segment_begin(w + 1), target, kept);
}

}  // namespace elastic::cuda
