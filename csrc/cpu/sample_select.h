// Candidates of one row: tokens in index order, and exact thresholds among them by radix selection.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>

#include "core/sampling.h"
#include "cpu/sample_kernel.h"

namespace elastic::cpu {

// Memory that grows and is not initialised.
template <class T>
class Buffer {
 public:
  T* at_least(int64_t size) {
    if (size > size_) {
      data_.reset(new T[size_t(size)]);
      size_ = size;
    }
    return data_.get();
  }
  T* data() { return data_.get(); }

 private:
  std::unique_ptr<T[]> data_;
  int64_t size_ = 0;
};

struct Candidates {
  int64_t count = 0;
  bool weighed = false;
  Buffer<float> values;
  Buffer<int32_t> ids;
  Buffer<uint64_t> weights;
  Buffer<float> boundary;  // logits that a selection still looks at, and where they stand in the list
  Buffer<int32_t> places;

  void clear(int64_t capacity) {
    count = 0;
    weighed = false;
    values.at_least(capacity + GATHER_SLACK);
    ids.at_least(capacity + GATHER_SLACK);
  }
};

inline const SampleRowKernels<float>& row_kernels_of(float) { return ELASTIC_SELECT(sample_kernels).f32; }
inline const SampleRowKernels<c10::BFloat16>& row_kernels_of(c10::BFloat16) {
  return ELASTIC_SELECT(sample_kernels).bf16;
}
inline const SampleRowKernels<c10::Half>& row_kernels_of(c10::Half) {
  return ELASTIC_SELECT(sample_kernels).f16;
}

// Appends the tokens of row[0 .. n) whose logit is at least `bound`; the first has id `first_id`.
template <class T>
void append_at_least(Candidates& list, const T* row, int64_t n, int64_t first_id, float bound) {
  list.count += row_kernels_of(T{}).gather(row, n, int32_t(first_id), bound, INFINITY,
                                           list.values.data() + list.count, list.ids.data() + list.count);
}

void weigh_candidates(Candidates& list, float max, float scale);
uint64_t total_weight(Candidates& list);

struct Threshold {
  float logit;
  uint64_t mass;  // of the tokens at or above
};

// The largest logit v such that `needed` tokens, or tokens of mass `needed`, are at least v; -inf if all of
// them are not enough.
Threshold count_threshold(Candidates& list, uint64_t needed);
Threshold mass_threshold(Candidates& list, uint64_t needed);

// Drops the tokens below a threshold, and those of a smaller weight.
void keep_from(Candidates& list, float threshold);
void keep_from(Candidates& list, float threshold, uint64_t smallest);

// The first token at or above the threshold with which the cumulated weight of such tokens exceeds target;
// together they weigh more than target.
int64_t first_above(Candidates& list, float threshold, uint64_t target);

}  // namespace elastic::cpu
