// What is known about the size of a head's chunks before the head runs.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "head/chunk_size.h"

namespace elastic {

// The caller's number, or the memory that new tensors on the device of `beside` may take: what the driver has
// left and what torch's allocator holds without using it. The host does not wait.
ChunkSize chunk_size(std::optional<int64_t> chunk_tokens, const at::Tensor& beside);

}  // namespace elastic
