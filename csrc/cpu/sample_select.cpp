// Radix selection of thresholds: eleven, eleven and ten bits of the ordered logit from the top, a histogram
// of masses each time, and only the tokens of the boundary bin are looked at again.
#include "cpu/sample_select.h"

#include <algorithm>
#include <cmath>

namespace elastic::cpu {
namespace {

constexpr uint32_t BINS = 1u << 11;
constexpr int FIRST_SHIFT = 21, SHIFTS[] = {10, 0};

// Finds the bin in which the mass from the top reaches `needed`, and subtracts the mass above that bin from
// `needed`. False if all the mass is not enough.
template <class Bin, class Mass>
bool boundary_bin(int64_t n, Bin bin_of, Mass mass_of, uint64_t& needed, uint32_t& bin) {
  // Two histograms: successive tokens often share a bin, and an addition to a bin waits for the previous one.
  uint64_t histogram[2][BINS] = {};
  for (int64_t i = 0; i < n; i++) histogram[i & 1][bin_of(i)] += mass_of(i);
  for (bin = BINS - 1;; bin--) {
    const uint64_t mass = histogram[0][bin] + histogram[1][bin];
    if (mass >= needed) return true;
    needed -= mass;
    if (bin == 0) return false;
  }
}

template <class Mass>
Threshold threshold(Candidates& list, uint64_t needed, Mass mass_of) {
  const float* values = list.values.data();
  const uint64_t wanted = needed;
  uint32_t bin;
  const auto first_bin = [=](int64_t i) { return sampling::ordered(values[i]) >> FIRST_SHIFT; };
  if (!boundary_bin(list.count, first_bin, mass_of, needed, bin)) return {-INFINITY, wanted - needed};
  // The keys below that of -inf would be NaN.
  uint32_t key = std::max(bin << FIRST_SHIFT, sampling::ordered(-INFINITY));
  float* boundary = list.boundary.at_least(list.count + GATHER_SLACK);
  int32_t* places = list.places.at_least(list.count + GATHER_SLACK);
  int64_t left = row_kernels_of(0.0f).gather(values, list.count, 0, sampling::logit_of(key),
                                             sampling::logit_of((bin + 1) << FIRST_SHIFT), boundary, places);
  key = bin << FIRST_SHIFT;
  for (const int shift : SHIFTS) {
    const auto next_bin = [=](int64_t i) { return (sampling::ordered(boundary[i]) - key) >> shift; };
    boundary_bin(left, next_bin, [=](int64_t i) { return mass_of(places[i]); }, needed, bin);
    int64_t kept = 0;
    for (int64_t i = 0; i < left; i++) {
      const bool stays = next_bin(i) == bin;
      boundary[kept] = boundary[i];
      places[kept] = places[i];
      kept += stays;
    }
    key += bin << shift;
    left = kept;
  }
  uint64_t mass = wanted - needed;
  for (int64_t i = 0; i < left; i++) mass += mass_of(places[i]);
  return {sampling::logit_of(key), mass};
}

template <class Kept>
void keep(Candidates& list, Kept kept) {
  float* values = list.values.data();
  int32_t* ids = list.ids.data();
  uint64_t* weights = list.weighed ? list.weights.data() : nullptr;
  int64_t count = 0;
  for (int64_t i = 0; i < list.count; i++) {
    const bool stays = kept(i);
    values[count] = values[i];
    ids[count] = ids[i];
    if (weights != nullptr) weights[count] = weights[i];
    count += stays;
  }
  list.count = count;
}

}  // namespace

void weigh_candidates(Candidates& list, float max, float scale) {
  uint64_t* weights = list.weights.at_least(list.count);
  ELASTIC_SELECT(sample_kernels).weights(list.values.data(), list.count, max, scale, weights);
  list.weighed = true;
}

uint64_t total_weight(Candidates& list) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < list.count; i++) sum += list.weights.data()[i];
  return sum;
}

Threshold count_threshold(Candidates& list, uint64_t needed) {
  return threshold(list, needed, [](int64_t) -> uint64_t { return 1; });
}

Threshold mass_threshold(Candidates& list, uint64_t needed) {
  const uint64_t* weights = list.weights.data();
  return threshold(list, needed, [weights](int64_t i) { return weights[i]; });
}

void keep_from(Candidates& list, float threshold) {
  const float* values = list.values.data();
  keep(list, [=](int64_t i) { return values[i] >= threshold; });
}

void keep_from(Candidates& list, float threshold, uint64_t smallest) {
  const float* values = list.values.data();
  const uint64_t* weights = list.weights.data();
  keep(list, [=](int64_t i) { return values[i] >= threshold && weights[i] >= smallest; });
}

int64_t first_above(Candidates& list, float threshold, uint64_t target) {
  const float* values = list.values.data();
  const uint64_t* weights = list.weights.data();
  int64_t i = 0;
  for (;; i++) {
    const uint64_t weight = weights[i] & -uint64_t(values[i] >= threshold);  // no branch to mispredict
    if (weight > target) return i;
    target -= weight;
  }
}

}  // namespace elastic::cpu
