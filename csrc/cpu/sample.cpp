// Draws one token per row (core/sampling.h has the definition).
//
// Without filters: maximum, tile sums, the tile that holds the target, the token inside it. With filters,
// bounds from the first two passes reduce the row to a list of candidates that may survive them; thresholds
// are then selected exactly among these.
#include "cpu/sample.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "cpu/sample_kernel.h"
#include "cpu/sample_select.h"

namespace elastic::cpu {
namespace {

using sampling::Drawn;
using sampling::Filters;
using sampling::SampleParams;
using sampling::TILE;

constexpr int64_t ELEMENTS_PER_THREAD = 65536;  // fewer are not worth waking a thread
constexpr Drawn UNUSABLE{-1, NAN, NAN};

int64_t tiles_of(int64_t vocab) { return (vocab + TILE - 1) / TILE; }

// Memory of one thread, kept between calls; it grows to what the largest row needed.
template <class T>
struct Scratch {
  Buffer<float> maxima;
  Buffer<uint64_t> sums;
  Buffer<T> masked;
  Candidates candidates;
};

// A row of logits, its largest one, and its weights summed by tile.
template <class T>
struct Weighed {
  const T* row;
  int64_t vocab;
  const float* maxima;
  const uint64_t* sums;
  float max;
  float scale;
  uint64_t total;

  bool usable() const { return max > -INFINITY && max < INFINITY; }
};

template <class T>
Weighed<T> weigh(const T* row, int64_t vocab, double temperature, Scratch<T>& scratch) {
  const int64_t tiles = tiles_of(vocab);
  float* maxima = scratch.maxima.at_least(tiles * TILE_GROUPS);
  uint64_t* sums = scratch.sums.at_least(tiles);
  const SampleRowKernels<T>& kernels = row_kernels_of(T{});
  Weighed<T> out{
      row, vocab, maxima, sums, kernels.maximum(row, vocab, maxima), sampling::power_scale(temperature), 0};
  if (!out.usable()) return out;
  kernels.tile_sums(row, vocab, out.max, out.scale, sums);
  for (int64_t tile = 0; tile < tiles; tile++) out.total += sums[tile];
  return out;
}

template <class T>
int64_t first_maximum(const Weighed<T>& w) {
  int64_t tile = 0;
  const auto best = [&] {
    const float* groups = w.maxima + tile * TILE_GROUPS;
    return *std::max_element(groups, groups + TILE_GROUPS);
  };
  while (best() != w.max) tile++;
  int64_t i = tile * TILE;
  while (static_cast<float>(w.row[i]) != w.max) i++;
  return i;
}

template <class T>
int64_t draw_unfiltered(const Weighed<T>& w, uint64_t random, Candidates& list) {
  uint64_t target = sampling::target_of(random, w.total);
  int64_t tile = 0;
  for (; target >= w.sums[tile]; tile++) target -= w.sums[tile];
  const int64_t begin = tile * TILE;
  list.clear(TILE);
  append_at_least(list, w.row + begin, std::min(TILE, w.vocab - begin), begin, -INFINITY);
  weigh_candidates(list, w.max, w.scale);
  return begin + first_above(list, -INFINITY, target);
}

// A logit below which no token can be kept. A filter's bound may not drop tokens that an earlier filter
// counts: top-p's is used without top-k only, min-p's unless both top-k and top-p are on.
template <class T>
float lower_bound(const Weighed<T>& w, const Filters& f, Candidates& list) {
  float bound = -INFINITY;
  if (f.top_k > 0) {
    // The k-th largest of the groups' maxima: k tokens are at least that large.
    const int64_t groups = tiles_of(w.vocab) * TILE_GROUPS;
    if (f.top_k <= groups) {
      float* copy = list.values.at_least(groups);
      std::copy(w.maxima, w.maxima + groups, copy);
      std::nth_element(copy, copy + f.top_k - 1, copy + groups, std::greater<float>());
      bound = copy[f.top_k - 1];
    }
  }
  double least_weight = 0;
  if (f.top_k == 0 && 1 - f.top_p > 1e-9) {
    // Even V tokens of less than this weight do not add up to the mass that top-p drops.
    least_weight = 0.99 * (1 - f.top_p) * double(w.total) / double(w.vocab);
  }
  if (f.top_k == 0 || f.top_p == 1) {
    least_weight = std::max(least_weight, double(sampling::smallest_kept(f.min_p)));
  }
  if (least_weight > 0) {
    // The margin covers the rounding of weights and of this.
    const double power = std::log2(least_weight) - sampling::WEIGHT_BITS - 0.01;
    const float logit = float(double(w.max) + power / double(w.scale));
    bound = std::max(bound, std::nextafter(logit, -INFINITY));
  }
  return bound;
}

template <class T>
void gather_candidates(const Weighed<T>& w, float bound, Candidates& list) {
  list.clear(w.vocab);
  for (int64_t tile = 0; tile < tiles_of(w.vocab); tile++) {
    const float* groups = w.maxima + tile * TILE_GROUPS;
    if (*std::max_element(groups, groups + TILE_GROUPS) < bound) continue;
    const int64_t begin = tile * TILE;
    append_at_least(list, w.row + begin, std::min(TILE, w.vocab - begin), begin, bound);
  }
}

// Weighs the candidates; returns the threshold at or above which they are kept, and their total weight.
template <class T>
Threshold filter(const Weighed<T>& w, const Filters& f, Candidates& list) {
  gather_candidates(w, lower_bound(w, f, list), list);
  if (f.top_k > 0 && f.top_k < list.count) keep_from(list, count_threshold(list, uint64_t(f.top_k)).logit);
  weigh_candidates(list, w.max, w.scale);
  Threshold kept{-INFINITY, 0};
  if (f.top_p < 1) {
    const uint64_t total = f.top_k > 0 ? total_weight(list) : w.total;
    kept = mass_threshold(list, sampling::mass_needed(f.top_p, total));
  }
  if (f.min_p > 0) keep_from(list, kept.logit, sampling::smallest_kept(f.min_p));
  if (f.min_p > 0 || f.top_p == 1) kept.mass = total_weight(list);
  return kept;
}

// `full`: the row that full logprobs refer to; `w`: the same row, or its copy with masked tokens. With
// `lists_kept` and filters the candidates are then the tokens that could have been drawn.
template <class T>
Drawn draw(const Weighed<T>& w, const Filters& f, uint64_t random, Scratch<T>& scratch, float full_max,
           uint64_t full_total, const T* full_row, bool lists_kept) {
  Candidates& list = scratch.candidates;
  int64_t token;
  float logprob = 0;
  if (f.temperature == 0) {
    token = first_maximum(w);
  } else {
    uint64_t total = w.total;
    if (filters_any(f)) {
      const Threshold kept = filter(w, f, list);
      total = kept.mass;
      if (lists_kept) keep_from(list, kept.logit, /*smallest=*/1);
      token = list.ids.data()[first_above(list, kept.logit, sampling::target_of(random, total))];
    } else {
      token = draw_unfiltered(w, random, list);
    }
    logprob = sampling::logprob(static_cast<float>(w.row[token]), w.max, f.temperature, total);
  }
  const float full =
      sampling::logprob(static_cast<float>(full_row[token]), full_max, softmax_temperature(f), full_total);
  return {token, logprob, full};
}

template <class T>
Drawn draw_row(const SampleParams& p, int64_t r, const sampling::Orders& orders, Scratch<T>& scratch) {
  const Filters f = filters_of(p, r);
  const T* row = static_cast<const T*>(p.logits) + r * p.row_stride;
  const uint64_t random = row_random(p.seeds[r], p.positions[r]);
  Weighed<T> w = weigh(row, p.vocab, softmax_temperature(f), scratch);
  if (!w.usable()) return UNUSABLE;
  const float full_max = w.max;
  const uint64_t full_total = w.total;
  if (budget::any(orders.masked)) {
    T* masked = scratch.masked.at_least(p.vocab);
    std::copy(row, row + p.vocab, masked);
    budget::each_list(orders.masked, [&](const int32_t* ids, int32_t count) {
      for (int32_t i = 0; i < count; i++) {
        if (ids[i] < p.vocab) masked[ids[i]] = T(-INFINITY);
      }
    });
    w = weigh<T>(masked, p.vocab, softmax_temperature(f), scratch);
    if (!w.usable()) return UNUSABLE;
  }
  return draw(w, f, random, scratch, full_max, full_total, row, p.most_kept > 0);
}

// The ids that the filters left of a row, which draw() has listed.
void write_kept(const SampleParams& p, int64_t r, Candidates& list) {
  p.kept_counts[r] = int32_t(list.count);
  if (list.count <= p.most_kept)
    std::copy(list.ids.data(), list.ids.data() + list.count, p.kept_ids + r * p.most_kept);
}

// Leaves what was drawn in the outputs; nothing else is written.
template <class T>
void draw_rows(const SampleParams& p) {
  const int64_t grain = std::max<int64_t>(1, ELEMENTS_PER_THREAD / p.vocab);
  at::parallel_for(0, p.rows, grain, [&](int64_t begin, int64_t end) {
    static thread_local Scratch<T> scratch;
    for (int64_t r = begin; r < end; r++) {
      const sampling::Orders orders = orders_of(p, r);
      const Drawn drawn = orders.draws ? draw_row<T>(p, r, orders, scratch) : Drawn{0, 0, 0};
      p.tokens[r] = drawn.token;
      p.logprobs[r] = drawn.logprob;
      p.full_logprobs[r] = drawn.full_logprob;
      if (p.most_kept == 0) continue;
      p.kept_counts[r] = 0;
      if (orders.draws && drawn.token >= 0 && filters_any(filters_of(p, r)))
        write_kept(p, r, scratch.candidates);
    }
  });
}

}  // namespace

int64_t sample(const SampleParams& p) {
  if (p.dtype == Scalar::F32) {
    draw_rows<float>(p);
  } else if (p.dtype == Scalar::BF16) {
    draw_rows<c10::BFloat16>(p);
  } else {
    draw_rows<c10::Half>(p);
  }
  const int64_t* unusable = std::find(p.tokens, p.tokens + p.rows, UNUSABLE.token);
  const int64_t broken = unusable == p.tokens + p.rows ? -1 : unusable - p.tokens;
  if (broken >= 0 && p.broken == nullptr) return broken;
  int32_t active = 0;
  for (int64_t r = 0; r < p.rows; r++) {
    emit_logits(p, r, {p.tokens[r], p.logprobs[r], p.full_logprobs[r]});
    if (p.state != nullptr) {
      if (p.most_kept > 0 && p.source[r] != budget::SAMPLED) p.kept_counts[r] = 0;
      active += budget::load(p.state + r * budget::STATE_WIDTH).phase != budget::DONE;
    }
  }
  if (p.active != nullptr) *p.active = active;
  if (broken >= 0 && *p.broken == 0) *p.broken = int32_t(broken + 1);
  return broken;
}

}  // namespace elastic::cpu
