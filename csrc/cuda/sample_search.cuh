// Thresholds of top-k and top-p, without atomics: S (sample_bracket.cuh) at a few pivots is summed in
// registers.
//
// First each thread's largest logit: S over these alone bounds the threshold from below, tightly where few
// tokens are kept, the usual case. What lies above is gathered, each thread's logits in a list of its own,
// and the search ends in the lists. Where much of a row is kept the bound fails; then pivots go over the
// whole row until the logits of the bracket fit the lists, and the first pivots are guessed.
//
// A pass at four pivots over the row takes 28 (bf16) or 29 (fp32) instructions per logit on sm_90, 11 of them
// for the pivots.
#pragma once

#include "cuda/sample_bracket.cuh"
#include "cuda/sample_row.cuh"

namespace elastic::cuda {

constexpr int LIST_BYTES = 32 * 1024;
constexpr int FINISH = 64;  // logits that are compared all with all
constexpr int BOUND_TURNS = 3;

// What a CTA keeps of a search, behind RowShared.
struct SearchShared {
  Mass finish_mass[FINISH];
  float finish_logit[FINISH];
  alignas(16) char list[LIST_BYTES];
};

struct Gathered {
  int32_t listed, lost;
  __device__ __forceinline__ Gathered operator+(const Gathered& other) const {
    return {listed + other.listed, lost + other.lost};
  }
};

struct MaxKey {
  __device__ __forceinline__ uint32_t operator()(uint32_t a, uint32_t b) const { return a > b ? a : b; }
};

template <class Row>
struct Search {
  using T = typename Row::Element;
  static constexpr int E = Row::E;
  Row& row;
  SearchShared* own;
  // This thread has so many listed logits, of those in [key, list_top); -1: there is no list.
  int32_t listed = -1;
  uint32_t list_top = 0;
  int32_t list_size = 0;  // of all threads
  // Of the search under way: whether each logit counts as 1 or by its weight; S(list_top).
  bool counts = false;
  Mass above_list = 0;

  __device__ __forceinline__ T& item(int32_t i) const {
    return reinterpret_cast<T*>(own->list)[i * row.threads + row.thread];
  }
  __device__ __forceinline__ int32_t list_room() const {
    return LIST_BYTES / static_cast<int32_t>(sizeof(T)) / row.threads;
  }
  static __device__ __forceinline__ bool in(float x, float lo, float hi) { return x >= lo && x < hi; }

  // use(logit) for this thread's share of the lists, of the row, of either.
  template <class Use>
  __device__ __forceinline__ void each_listed(const Use& use) const {
#pragma unroll 1
    for (int32_t i = 0; i < listed; i++) use(to_float(item(i)));
  }
  template <class Use>
  __device__ __forceinline__ void each(const Use& use) const {
    if (listed >= 0) return each_listed(use);
    use(row.loose_logit);
    row.each_vector_of_warp([&](int32_t, const Vec16& q) {
      float x[E];
      unpack<T>(q, x);
#pragma unroll
      for (int e = 0; e < E; e++) use(x[e]);
    });
  }

  // S at the pivots over the logits that visit(use) visits; the row's own where they are listed.
  template <class Visit>
  __device__ __forceinline__ PivotSums sums_at(const uint32_t (&pivots)[PIVOTS], const Visit& visit) const {
    typename Row::Weights sums[PIVOTS];
    float pivot[PIVOTS];
#pragma unroll
    for (int j = 0; j < PIVOTS; j++) pivot[j] = sampling::logit_of(pivots[j]);
    visit([&](float x) {
      const float power = counts ? 0x1p-40f : sampling::power(x, row.max, row.scale);  // a weight of 1
      const auto term = Row::Weights::term(power);
#pragma unroll
      for (int j = 0; j < PIVOTS; j++) sums[j].add_from(term, x, pivot[j]);
    });
    PivotSums all;
#pragma unroll
    for (int j = 0; j < PIVOTS; j++) all.at[j] = sums[j].mass();
    all = row.reduce(all, PivotSums{}, Sum());
#pragma unroll
    for (int j = 0; j < PIVOTS; j++) all.at[j] += listed >= 0 ? above_list : 0;
    return all;
  }

  // Raises b.lo to what the threads' largest logits reach alone, if they do.
  __device__ __forceinline__ bool bound(Bracket& b, Mass needed) const {
    const uint32_t lowest = b.lo;
    Bracket of_maxima = b;
#pragma unroll 1
    for (int turn = 0; turn < BOUND_TURNS && of_maxima.hi - of_maxima.lo > 1; turn++) {
      uint32_t pivots[PIVOTS];
      of_maxima.spread(turn, pivots);
      of_maxima.narrow(needed, pivots, sums_at(pivots, [&](const auto& use) { use(row.thread_max); }));
      if (of_maxima.lo == lowest) return false;
    }
    b.lo = of_maxima.lo;
    return true;
  }

  // Lists the bracket's logits if every thread has room for its own.
  __device__ __forceinline__ void gather(Bracket& b) {
    const float lo = sampling::logit_of(b.lo), hi = sampling::logit_of(b.hi);
    const int32_t most = list_room() - E;
    int32_t count = 0, lost = 0;
    if (in(row.loose_logit, lo, hi)) item(count++) = from_float<T>(row.loose_logit);
    row.each_vector_of_warp([&](int32_t, const Vec16& q) {
      if (!(largest_logit<T>(q) >= lo)) return;
      if (count > most) lost = 1, count = 0;
      float x[E];
      unpack<T>(q, x);
#pragma unroll
      for (int e = 0; e < E; e++)
        if (in(x[e], lo, hi)) item(count++) = from_float<T>(x[e]);
    });
    const Gathered all = row.reduce(Gathered{count, lost}, Gathered{0, 0}, Sum());
    if (all.lost > 0) return;
    listed = count, list_size = all.listed;
    list_top = b.hi, above_list = b.at_hi;
    if (counts) b.at_lo = b.at_hi + static_cast<Mass>(list_size);
  }

  // About so many logits lie in the bracket, or fewer.
  __device__ __forceinline__ int32_t size(const Bracket& b) const {
    Mass most = b.at_lo - b.at_hi;
    const Mass least = counts ? 1 : sampling::weight(sampling::logit_of(b.lo), row.max, row.scale);
    if (least > 1) most = static_cast<Mass>(static_cast<double>(most) / static_cast<double>(least)) + 1;
    const int32_t all = listed >= 0 ? list_size : INT32_MAX;
    return most < static_cast<Mass>(all) ? static_cast<int32_t>(most) : all;
  }

  // Moves the bracket's ends to logits that there are: of equal logits one key remains.
  __device__ __forceinline__ void tighten(Bracket& b) const {
    const float lo = sampling::logit_of(b.lo), hi = sampling::logit_of(b.hi);
    float least = INFINITY, most = -INFINITY;
    each([&](float x) {
      least = in(x, lo, hi) ? fminf(least, x) : least;
      most = in(x, lo, hi) ? fmaxf(most, x) : most;
    });
    const Extremes ends = row.reduce(Extremes{most, least}, Extremes{-INFINITY, INFINITY}, ExtremesJoin());
    b.lo = sampling::ordered(ends.smallest), b.hi = sampling::ordered(ends.largest) + 1;
  }

  // Few listed logits: every CTA gets them all and compares all with all. False where they are too many.
  __device__ __forceinline__ bool finish(const Bracket& b, Mass needed, uint32_t& key) {
    const float lo = sampling::logit_of(b.lo), hi = sampling::logit_of(b.hi);
    uint32_t mine = 0;
    each_listed([&](float x) { mine += in(x, lo, hi); });
    int32_t all;
    int32_t at = row.count_before(mine, all);
    if (all > FINISH) return false;
    each_listed([&](float x) {
      if (!in(x, lo, hi)) return;
      for (int peer = 0; peer < row.ranks; peer++) *row.of_peer(own->finish_logit + at, peer) = x;
      at++;
    });
    row.sync();
    for (int i = row.thread; i < all; i += row.threads)
      own->finish_mass[i] = counts ? 1 : sampling::weight(own->finish_logit[i], row.max, row.scale);
    __syncthreads();
    key = b.lo;
    for (int i = row.thread; i < all; i += row.threads) {
      const float x = own->finish_logit[i];
      Mass sum = b.at_hi;
#pragma unroll 4
      for (int j = 0; j < all; j++) sum += own->finish_logit[j] >= x ? own->finish_mass[j] : 0;
      if (sum >= needed) key = MaxKey()(key, sampling::ordered(x));
    }
    key = row.reduce(key, 0u, MaxKey());
    return true;
  }

  // Mean and deviation of a vector a thread.
  __device__ __forceinline__ NormalRow normal_row() const {
    Moments m{0.f, 0.f, 0.f};
    const int32_t v = row.segment_begin(row.warp) + row.lane;
    if (v < row.segment_begin(row.warp + 1)) {
      float x[E];
      unpack<T>(row.vector(v), x);
#pragma unroll
      for (int e = 0; e < E; e++)
        if (x[e] > -1e18f) m = m + Moments{x[e], x[e] * x[e], 1.f};
    }
    return NormalRow(row.reduce(m, Moments{0.f, 0.f, 0.f}, Sum()));
  }

  // Pivots where nothing is known of the row.
  __device__ __forceinline__ void guess(const Bracket& b, Mass needed, uint32_t (&pivots)[PIVOTS]) const {
    const NormalRow normal = normal_row();
    const float rest = static_cast<float>(b.at_lo - needed), all = static_cast<float>(b.at_lo);
    if (counts)
      b.around(normal.left_by_count(rest / all), normal.deviation * 0.05f, normal.deviation * 0.4f, pivots);
    else  // the largest weight may lie outside the normal row
      b.around(normal.left_by_mass(rest / fmaxf(all - 0x1p40f, 1.f), row.max, row.scale),
               normal.deviation * 0.12f, normal.deviation * 0.5f, pivots);
  }

  // The largest key v in the bracket with S(v) >= needed, S(b.lo) at most at_lo. bounded: S may be tried on
  // the threads' largest logits first.
  __device__ __forceinline__ uint32_t threshold(Bracket b, Mass needed, bool bounded) {
    if (listed >= 0 && list_top < b.hi) listed = -1;  // S(list_top) is not known
    above_list = 0;
    bool gathers = listed < 0 && bounded && bound(b, needed);
    int32_t fits = row.all_threads() * (list_room() / 3), finishes = FINISH;
#pragma unroll 1
    for (int turn = 0; b.hi - b.lo > 1; turn++) {
      if (listed < 0 && (gathers || size(b) <= fits)) {
        gather(b);
        gathers = false;
        fits = size(b) / 2;
      }
      uint32_t key;
      if (listed >= 0 && size(b) <= finishes) {
        if (finish(b, needed, key)) return key;
        finishes = size(b) / 2;
      }
      uint32_t pivots[PIVOTS];
      if (turn == 0 && listed < 0)
        guess(b, needed, pivots);
      else
        b.propose(needed, turn, pivots);
      b.narrow(needed, pivots, sums_at(pivots, [&](const auto& use) { each(use); }));
      if (turn % 2 == 1 && b.hi - b.lo > 1) tighten(b);
    }
    return b.lo;
  }

  // The key of the least logit that a filter keeps: top-k, or top-p of logits from `least` on, which weigh
  // `total`. smallest_max: of the threads' largest logits.
  __device__ __forceinline__ uint32_t least_kept(bool by_count, const sampling::Filters& f, int32_t vocab,
                                                 float smallest_max, uint32_t least, Mass total) {
    counts = by_count;
    Mass needed;
    float lowest;
    bool bounded = true;
    if (counts) {
      needed = static_cast<Mass>(f.top_k), total = static_cast<Mass>(vocab);
      bounded = needed <= static_cast<Mass>(row.all_threads() / 4);
      lowest = bounded ? smallest_max : -INFINITY;
    } else {
      needed = sampling::mass_needed(f.top_p, total);
      // All logits so many bits below the maximum weigh less than what may be left out, or nothing.
      const float left_out = fmaxf(static_cast<float>(total - needed), 0.5f);
      const float bits = fminf(log2f(static_cast<float>(vocab) / left_out) + 41.f, 42.f);
      lowest = row.max - bits / row.scale;
      if (lowest == row.max) lowest = -INFINITY;
    }
    least = MaxKey()(least, sampling::ordered(lowest));
    return threshold({least, sampling::ordered(row.max) + 1, total, 0}, needed, bounded);
  }
};

}  // namespace elastic::cuda
