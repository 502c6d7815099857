// How a row pass is laid over the GPU: chosen by row size and device, or set by hand for tuning.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/loss_params.h"

namespace elastic::cuda {

struct RowLaunch {
  bool resident;        // false: streamed, one CTA a row
  int cluster;          // CTAs a row
  int threads;          // a CTA
  size_t shared_bytes;  // a CTA
};

// Shared memory of a resident row pass besides the slice of the row.
constexpr size_t ROW_HEADER_BYTES = 2304;

// For rows of `vocab` logits on the current device. `rereads`: the pass needs the row a second time.
RowLaunch row_launch(Scalar dtype, int64_t vocab, bool rereads);

// Shared memory that one CTA may have on the current device.
size_t most_shared_bytes();

// Overrides the table, on every device: cluster 1, 2, 4, 8 or 16 keeps rows resident, 0 streams them, -1 is
// the table again; threads a multiple of 32 up to 1,024, 0 is the table's. False if the values are none of
// these.
bool set_row_launch(int cluster, int threads);

}  // namespace elastic::cuda
