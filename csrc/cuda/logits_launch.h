// How a logits pass is laid over the GPU: chosen by vocabulary and device, or set by hand for tuning.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/loss_params.h"

namespace elastic::cuda {

// Which kernel: PASS is logits_kernel (logits_pass.cuh), the others are ring_kernel (logits_ring.cuh), whose
// gradient leaves by bulk stores or, RING_DIRECT, by the threads' own. TABLE: whichever the table names.
enum class LogitsKernel : int { TABLE, PASS, RING, RING_DIRECT };

// "table", "pass", "ring", "ring_direct". Throws std::invalid_argument for another name.
LogitsKernel logits_kernel_named(std::string_view name);
std::string_view name_of(LogitsKernel kernel);

struct LogitsLaunch {
  bool resident;        // false: streamed, one CTA per token
  int cluster;          // CTAs per token
  int threads;          // per CTA
  size_t shared_bytes;  // per CTA
};

// Shared memory of a resident logits pass besides the slice of the logits.
constexpr size_t PASS_HEADER_BYTES = 2304;

// For tokens of `vocab` logits on the current device, by the rules. `rereads`: the pass needs them a second
// time.
LogitsLaunch logits_launch(Scalar dtype, int64_t vocab, bool rereads);

constexpr size_t RING_HEADER_BYTES = 9344;  // shared memory of a ring besides its slots
constexpr int MOST_SLOTS = 32;

// An argument of ring_kernel.
struct RingShape {
  int64_t tokens;
  int32_t log2_ranks;    // 2^n CTAs share a token
  int32_t log2_chunk;    // 2^n units are a chunk
  int32_t slots;         // chunks that shared memory holds; 0: a token does not fit
  int32_t slot_vectors;  // that a slot has room for
  bool bulk_stores;
};

// The kernel of one call and its shape.
struct LogitsChoice {
  LogitsKernel kernel;  // not TABLE
  LogitsLaunch pass;    // of PASS
  RingShape ring;       // of the others
  size_t ring_bytes;    // shared memory of a CTA
};

// The ring takes logits without a softcap, on devices of sm_90 and newer, whose gradient, if they get one,
// lies relative to 16 bytes as the logits do (in place it does); everything else is the pass's. `rereads`: a
// gradient is written.
LogitsChoice choose_launch(const LogitsChunk& chunk, int64_t vocab, bool softcap, bool rereads);

// Shared memory that one CTA may have on the current device.
size_t most_shared_bytes();

// Whether the current device adds doubles at half the rate of floats, not at a small part of it.
bool fast_doubles();

// Overrides the table, on every device. cluster: 1, 2, 4, 8 or 16 CTAs a token, 0 streams (PASS only), -1 is
// the rules'. threads (PASS only): a multiple of 32 up to 1,024, 0 is the rules'. With TABLE for the kernel,
// -1 and 0 are the measured table (logits_table.h) and then the rules, anything else is PASS. False for any
// other value.
bool set_logits_launch(int cluster, int threads, LogitsKernel kernel = LogitsKernel::TABLE);

}  // namespace elastic::cuda
