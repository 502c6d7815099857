// Starts a logits pass: the task's type from the logits' dtype and softcap, its shape from the launch table.
#pragma once

#include "cuda/logits_launch.h"
#include "cuda/logits_pass.cuh"
#include "cuda/logits_ring_kernel.cuh"
#include "cuda/logits_task.cuh"

namespace elastic::cuda {

// fn(T{}, std::bool_constant<has softcap>{}) for the type of the logits.
template <class Fn>
LaunchResult with_logits_type(Scalar dtype, double softcap, const Fn& fn) {
  const auto typed = [&](auto type) {
    return softcap > 0 ? fn(type, std::true_type{}) : fn(type, std::false_type{});
  };
  if (dtype == Scalar::BF16) return typed(Bf16{});
  if (dtype == Scalar::F16) return typed(F16{});
  return typed(float{});
}

inline int log2_of(int power_of_two) {
  int n = 0;
  while (1 << n < power_of_two) n++;
  return n;
}

template <class Task, bool EMITS>
LaunchResult launch_ring(const Task& task, const LogitsChoice& choice, cudaStream_t stream) {
  if (choice.ring.slots == 0) return {cudaErrorInvalidConfiguration, "ring_kernel"};
  const unsigned cluster = 1u << choice.ring.log2_ranks;
  Grid grid{dim3(cluster), dim3(RingRoles<EMITS>::THREADS), choice.ring_bytes, cluster};
  const int64_t clusters = resident_clusters<ring_kernel<Task, EMITS>>(grid), tokens = choice.ring.tokens;
  grid.blocks.x = static_cast<unsigned>(clusters < tokens ? clusters : tokens) * cluster;
  return launch<ring_kernel<Task, EMITS>>(grid, stream, task, choice.ring);
}

// EMITS: the task may write a gradient. `rereads`: it does. More than 2^31 - 1 logits per token are refused.
template <bool EMITS, class Task>
LaunchResult launch_pass(const Task& task, const LogitsChunk& chunk, int64_t vocab, bool rereads,
                         cudaStream_t stream) {
  const LogitsChoice choice = choose_launch(chunk, vocab, Task::SOFTCAP, rereads);
  if constexpr (!Task::SOFTCAP) {
    if (choice.kernel != LogitsKernel::PASS) {
      if constexpr (EMITS)
        if (rereads) return launch_ring<Task, true>(task, choice, stream);
      return launch_ring<Task, false>(task, choice, stream);
    }
  }
  const LogitsLaunch& shape = choice.pass;
  const int64_t ctas = chunk.tokens * shape.cluster;
  if (vocab > INT32_MAX || ctas > INT32_MAX) return {cudaErrorInvalidConfiguration, "logits_kernel"};
  const Grid grid{dim3(static_cast<unsigned>(ctas)), dim3(static_cast<unsigned>(shape.threads)),
                  shape.shared_bytes, static_cast<unsigned>(shape.cluster)};
  const int32_t room = static_cast<int32_t>((shape.shared_bytes - PASS_HEADER_BYTES) / sizeof(Vec16));
  if (!shape.resident) return launch<logits_kernel<Streamed, Solo, Task>>(grid, stream, task, 0, room);
  return launch<logits_kernel<Resident, Cluster, Task>>(grid, stream, task, log2_of(shape.cluster), room);
}

// Parts of a token for passes whose CTAs are independent: enough for a few tokens to fill a GPU.
constexpr int LOG2_PARTS = 3;
constexpr int PART_THREADS = 256;

template <class Task>
LaunchResult launch_gradient(const Task& task, const LogitsChunk& chunk, int64_t vocab, cudaStream_t stream) {
  const int64_t ctas = chunk.tokens << LOG2_PARTS;
  if (vocab > INT32_MAX || ctas > INT32_MAX) return {cudaErrorInvalidConfiguration, "gradient_kernel"};
  const Grid grid{dim3(static_cast<unsigned>(ctas)), dim3(PART_THREADS), sizeof(Plan)};
  return launch<gradient_kernel<Task>>(grid, stream, task, LOG2_PARTS);
}

}  // namespace elastic::cuda
