// Units of a token's logits (logits_stats.cuh): one warp counts a unit, one warp joins all of them. Every
// kernel of the logits pass counts and joins by these functions, so their statistics have the same bits.
//
// Instructions per logit in the main loop (sm_90, by cuobjdump): 196 for 32 bfloat16 logits, of them 33 MUFU,
// 63 FFMA, 35 FADD, 37 to unpack, 12 for the maximum; 103 for 16 float32 logits, of them 17 MUFU. A single
// vector behind whole groups takes 64 or 35, joining a unit's lanes about 45.
#pragma once

#include "cuda/logits_emit.cuh"

namespace elastic::cuda {

// `use` gets one lane's vectors of [begin, end), GROUP at once, or one where fewer are left.
template <int GROUP, class Load, class Use>
__device__ __forceinline__ void each_group(int32_t begin, int32_t end, const Load& load, const Use& use) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % WARP;
  int32_t v = begin + lane;
  for (; v + WARP * (GROUP - 1) < end; v += WARP * GROUP) {
    Vec16 q[GROUP];
#pragma unroll
    for (int i = 0; i < GROUP; i++) q[i] = load(v + WARP * i);
    use(q);
  }
#pragma unroll 1
  for (; v < end; v += WARP) {
    const Vec16 one[1] = {load(v)};
    use(one);
  }
}

// The statistics of the unit that is vectors [begin, end), in every lane of the warp. `load(v)` gives a
// vector, Stats is Online or FastOnline; `loose`: this lane's element outside the vectors, or -1.
template <class Stats, class Load, bool SOFTCAP, class T>
__device__ __forceinline__ Online count_unit(const Load& load, const TokenLogits<T>& logits,
                                             const Transform<SOFTCAP>& transform, int32_t begin, int32_t end,
                                             int32_t loose) {
  constexpr int E = PER_VECTOR<T>;
  constexpr bool FAST = std::is_same_v<Stats, FastOnline>;
  constexpr int GROUP = SOFTCAP ? 8 / E : FAST ? 4 : 16 / E;  // tanh needs registers, what is rare no speed
  Stats stats;
  if (loose >= 0) {
    const float x[1] = {transform.capped(to_float(logits.values[loose]))};
    stats.add(x, x[0], transform.scale);
  }
  each_group<GROUP>(begin, end, load, [&](const auto& vectors) {
    constexpr int N = static_cast<int>(sizeof(vectors) / sizeof(Vec16));
    float x[N * E];
#pragma unroll
    for (int i = 0; i < N; i++) unpack<T>(vectors[i], x + i * E);
    if constexpr (SOFTCAP) {
#pragma unroll
      for (int i = 0; i < N * E; i++) x[i] = transform.capped(x[i]);
      stats.add(x, largest<N * E>(x), transform.scale);
    } else {
      stats.add(x, largest<T>(vectors), transform.scale);
    }
  });
  return stats.join_warp(transform.scale);
}

// The same whatever the logits are: those that the fast way does not cover are counted again.
template <class Load, bool SOFTCAP, class T>
__device__ __forceinline__ UnitStats unit_stats(const Load& load, const TokenLogits<T>& logits,
                                                const Transform<SOFTCAP>& transform, int32_t begin,
                                                int32_t end, int32_t loose) {
  Online stats = count_unit<FastOnline>(load, logits, transform, begin, end, loose);
  if (!FastOnline::covers(stats, transform.scale))
    stats = count_unit<Online>(load, logits, transform, begin, end, loose);
  return {stats.max, stats.sum, stats.weighted, 0.f};
}

// All units of a token joined by one warp, in every lane. unit(u) is read once; read() is called behind that.
template <class Unit, class Read>
__device__ __forceinline__ Online join_units(const Unit& unit, const Read& read, float scale) {
  constexpr int PER_LANE = UNITS / WARP;
  Online all;
  UnitStats own[PER_LANE];
  float top = LOWEST;
#pragma unroll
  for (int i = 0; i < PER_LANE; i++) {
    own[i] = unit(static_cast<int>(threadIdx.x) % WARP * PER_LANE + i);
    top = fmaxf(top, own[i].max);
  }
  read();
  all.max = top;
#pragma unroll
  for (int i = 0; i < PER_LANE; i++) {
    Online one;
    one.max = own[i].max;
    one.sum = own[i].sum;
    one.weighted = own[i].weighted;
    one.rescale(top, scale);
    all.sum += one.sum;
    all.weighted += one.weighted;
  }
  return all.join_warp(scale);
}

}  // namespace elastic::cuda
