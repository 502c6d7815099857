// Barriers, shuffles and votes. All threads that take part must come to the same place in the source; threads
// that have left the kernel cannot take part. Hardware lets some of that pass, CUDA's rules do not.
#pragma once

#include <cstdint>
#include <cstring>

#include "scheduler.h"

namespace cuda_on_cpu {

enum class Vote { COUNT, ANY, ALL };
int sync_block(Vote vote, bool value, Place place);

enum class Collective { SYNC, SHUFFLE, BALLOT, MATCH };
// What this lane gets once all lanes of `mask` have come; `source`: the lane a shuffle reads.
uint64_t meet(Collective kind, unsigned mask, uint64_t value, unsigned source, Place place);

unsigned lane();

template <class T>
T shuffle(unsigned mask, T value, unsigned source, Place place) {
  static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  word = meet(Collective::SHUFFLE, mask, word, source, place);
  std::memcpy(&value, &word, sizeof(T));
  return value;
}

// A lane outside the group of `width` lanes: a shuffle then returns the lane's own value.
inline unsigned in_group(int source, int width) {
  const int first = static_cast<int>(lane()) / width * width;
  return source >= first && source < first + width ? static_cast<unsigned>(source) : lane();
}

}  // namespace cuda_on_cpu

#define CUDA_ON_CPU_PLACE ::cuda_on_cpu::Place place = ::cuda_on_cpu::Place::current()

inline void __syncthreads(CUDA_ON_CPU_PLACE) {
  ::cuda_on_cpu::sync_block(::cuda_on_cpu::Vote::COUNT, false, place);
}
inline int __syncthreads_count(int value, CUDA_ON_CPU_PLACE) {
  return ::cuda_on_cpu::sync_block(::cuda_on_cpu::Vote::COUNT, value != 0, place);
}
inline int __syncthreads_or(int value, CUDA_ON_CPU_PLACE) {
  return ::cuda_on_cpu::sync_block(::cuda_on_cpu::Vote::ANY, value != 0, place);
}
inline int __syncthreads_and(int value, CUDA_ON_CPU_PLACE) {
  return ::cuda_on_cpu::sync_block(::cuda_on_cpu::Vote::ALL, value != 0, place);
}

inline void __syncwarp(unsigned mask = ~0u, CUDA_ON_CPU_PLACE) {
  ::cuda_on_cpu::meet(::cuda_on_cpu::Collective::SYNC, mask, 0, 0, place);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_ON_CPU_PLACE) {
  const unsigned first = ::cuda_on_cpu::lane() / width * width;
  return ::cuda_on_cpu::shuffle(mask, value, first + static_cast<unsigned>(source & (width - 1)), place);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, CUDA_ON_CPU_PLACE) {
  const int source = static_cast<int>(::cuda_on_cpu::lane()) ^ lanes;
  return ::cuda_on_cpu::shuffle(mask, value, ::cuda_on_cpu::in_group(source, width), place);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_ON_CPU_PLACE) {
  const int source = static_cast<int>(::cuda_on_cpu::lane() + delta);
  return ::cuda_on_cpu::shuffle(mask, value, ::cuda_on_cpu::in_group(source, width), place);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_ON_CPU_PLACE) {
  const int source = static_cast<int>(::cuda_on_cpu::lane()) - static_cast<int>(delta);
  return ::cuda_on_cpu::shuffle(mask, value, ::cuda_on_cpu::in_group(source, width), place);
}

inline unsigned __ballot_sync(unsigned mask, int value, CUDA_ON_CPU_PLACE) {
  const uint64_t word = value != 0;
  return static_cast<unsigned>(::cuda_on_cpu::meet(::cuda_on_cpu::Collective::BALLOT, mask, word, 0, place));
}
inline int __any_sync(unsigned mask, int value, CUDA_ON_CPU_PLACE) {
  return __ballot_sync(mask, value, place) != 0;
}
inline int __all_sync(unsigned mask, int value, CUDA_ON_CPU_PLACE) {
  return __ballot_sync(mask, value == 0, place) == 0;
}
// Lanes whose value has the same bits as this lane's.
template <class T>
unsigned __match_any_sync(unsigned mask, T value, CUDA_ON_CPU_PLACE) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  return static_cast<unsigned>(::cuda_on_cpu::meet(::cuda_on_cpu::Collective::MATCH, mask, word, 0, place));
}

#undef CUDA_ON_CPU_PLACE
