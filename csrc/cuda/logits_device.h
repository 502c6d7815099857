// What launches of the logits pass ask of a device.
#pragma once

#include "cuda/logits_launch.h"

namespace elastic::cuda {

struct LogitsDevice {
  int capability;    // major
  int most_cluster;  // CTAs of the largest cluster; 1: it has none, or the code that it runs
  size_t cta_bytes;  // shared memory that one CTA may have
  size_t sm_bytes;   // that all CTAs of an SM have
  bool fast_doubles;
};

LogitsDevice current_device();

// Fills in the ring's shape. cluster: -1 is the rules'. False where tokens of so many logits do not fit.
bool ring_launch(const LogitsChunk& chunk, int64_t vocab, bool emits, int cluster, LogitsChoice& choice);

}  // namespace elastic::cuda
