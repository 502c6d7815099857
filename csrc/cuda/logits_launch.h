// How a logits pass is laid over the GPU: chosen by vocabulary and device, or set by hand for tuning.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/loss_params.h"

namespace elastic::cuda {

struct LogitsLaunch {
  bool resident;        // false: streamed, one CTA per token
  int cluster;          // CTAs per token
  int threads;          // per CTA
  size_t shared_bytes;  // per CTA
};

// Shared memory of a resident logits pass besides the slice of the logits.
constexpr size_t PASS_HEADER_BYTES = 2304;

// For tokens of `vocab` logits on the current device. `rereads`: the pass needs them a second time.
LogitsLaunch logits_launch(Scalar dtype, int64_t vocab, bool rereads);

// Shared memory that one CTA may have on the current device.
size_t most_shared_bytes();

// Whether the current device adds doubles at half the rate of floats, not at a small part of it.
bool fast_doubles();

// Overrides the table, on every device. cluster: 1, 2, 4, 8 or 16 keeps logits resident, 0 streams them, -1
// is the table's. threads: a multiple of 32 up to 1,024, 0 is the table's. False for any other value.
bool set_logits_launch(int cluster, int threads);

}  // namespace elastic::cuda
