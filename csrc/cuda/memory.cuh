// Ways to move memory that a thread waits for: bounds-checked spans (checked on the CPU only), 16-byte
// vectors, streaming access. Copies that nobody waits for at once are in barrier.cuh.
#pragma once

#include <cstdint>
#include <cstring>

#include "cuda/common.cuh"

namespace elastic::cuda {

// `length` elements from `data` on, which a kernel may index from 0. The CPU build stops a kernel that leaves
// it; on a device it is a pointer.
template <class T>
class Span {
 public:
  Span() = default;
#ifdef __CUDACC__
  __host__ __device__ __forceinline__ Span(T* data, int64_t length) : data_(data) {}
  __device__ __forceinline__ T& operator[](int64_t i) const { return data_[i]; }
#else
  Span(T* data, int64_t length) : data_(data), length_(length) {}
  T& operator[](int64_t i) const {
    if (i < 0 || i >= length_) cuda_on_cpu::out_of_bounds(i, length_);
    return data_[i];
  }
#endif
  __host__ __device__ __forceinline__ T* data() const { return data_; }

 private:
  T* data_ = nullptr;
#ifndef __CUDACC__
  int64_t length_ = 0;
#endif
};

// A value that one instruction moves.
template <class T>
struct alignas(16) Vector {
  static constexpr int LANES = 16 / sizeof(T);
  T lanes[LANES];
};

#ifdef __CUDACC__

namespace detail {
template <size_t bytes>
struct Word;
template <>
struct Word<1> {
  using type = unsigned char;
};
template <>
struct Word<2> {
  using type = unsigned short;
};
template <>
struct Word<4> {
  using type = unsigned int;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<16> {
  using type = uint4;
};
}  // namespace detail

// For what is read once, or not read again before it would have left the cache: evicted first. T has 1, 2, 4,
// 8 or 16 bytes and lies aligned to its size.
template <class T>
__device__ __forceinline__ T load_streaming(const T* at) {
  using Word = typename detail::Word<sizeof(T)>::type;
  const Word word = __ldcs(reinterpret_cast<const Word*>(at));
  T value;
  memcpy(&value, &word, sizeof(T));
  return value;
}

template <class T>
__device__ __forceinline__ void store_streaming(T* at, T value) {
  using Word = typename detail::Word<sizeof(T)>::type;
  Word word;
  memcpy(&word, &value, sizeof(T));
  __stcs(reinterpret_cast<Word*>(at), word);
}

#else

using cuda_on_cpu::load_streaming;
using cuda_on_cpu::store_streaming;

#endif

}  // namespace elastic::cuda
