// Shared by all tasks of a logits pass: which token's logits are where, and how they are transformed.
#pragma once

#include "core/loss_params.h"
#include "cuda/logits_emit.cuh"

namespace elastic::cuda {

template <class T, bool SOFTCAP_>
struct LogitsTask {
  using Element = T;
  static constexpr bool SOFTCAP = SOFTCAP_;

  // `counted`: the token's logits are asked for; those of a kept set are read by kept_kernel.
  static __device__ __forceinline__ TokenLogits<T> logits_of(const Softmax<float>& softmax,
                                                             const LogitsChunk& chunk, int64_t i,
                                                             int64_t token, bool with_gradient,
                                                             bool counted) {
    float inv = static_cast<float>(1. / softmax.temperature);
    if (softmax.temperatures != nullptr) {  // the host has not checked these
      const float temperature = softmax.temperatures[token];
      inv = is_supported_factor(temperature) ? 1.f / temperature : NAN;
    }
    T* gradient = static_cast<T*>(chunk.gradient);
    return {static_cast<const T*>(chunk.logits) + i * chunk.row_stride,
            with_gradient && gradient != nullptr ? gradient + i * chunk.gradient_stride : nullptr,
            static_cast<int32_t>(softmax.vocab),
            inv,
            static_cast<float>(softmax.softcap),
            counted && kept_set(softmax.kept, token).count == 0};
  }

  // The token's target, or -1 if its id is out of range.
  static __device__ __forceinline__ int32_t target_of(const Softmax<float>& softmax, int64_t token) {
    const int64_t id = softmax.targets[token];
    return id >= 0 && id < softmax.vocab ? static_cast<int32_t>(id) : -1;
  }
};

}  // namespace elastic::cuda
