// Checks shared by the loss ops. Each raises ValueError or TypeError as `op: argument: expected ..., got ...`
// before anything is allocated. Contents (ids, offsets) are read on the CPU only. On a device the host would
// have to wait; there a bad id or offset makes the token's results, and with them the loss, NaN.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <optional>
#include <string_view>

#include "binding/checks.h"
#include "core/loss_params.h"
#include "head/chunked_head.h"

namespace elastic {

// Most tokens, rows and ids of one call: a launch has no larger grid, and no larger batch fits a device.
constexpr int64_t MOST_ROWS = (int64_t{1} << 31) - 1;

// float32, bfloat16, float16 or (CPU) float64.
void check_float(const char* op, const char* name, const at::Tensor& tensor);

// check_float and [N, V]; rows may be strided, elements of a row not. `written`: rows must not overlap.
void check_logits(const char* op, const at::Tensor& logits, bool written);

// Hidden states [N, H], weight [V, H] and bias [V] of one dtype and device; at least one token a chunk.
void check_head(const char* op, const Head& head, std::optional<int64_t> chunk_tokens);

// [count + 1] int64 from 0 to `end`, never decreasing.
void check_offsets(const char* op, const char* name, const at::Tensor& offsets, int64_t end,
                   const char* end_name, const at::Tensor& beside);

// Ids of tokens that count must be in [0, V); the others are never read.
void check_targets(const char* op, int64_t tokens, int64_t vocab, const at::Tensor& beside,
                   const at::Tensor& targets, const std::optional<at::Tensor>& mask);

// The sets of N tokens, both tensors or neither: offsets [N + 1] into ids, which ascend within a token and
// hold the target of every token that counts.
void check_kept(const char* op, int64_t tokens, int64_t vocab, const at::Tensor& targets,
                const std::optional<at::Tensor>& mask, const std::optional<at::Tensor>& kept_ids,
                const std::optional<at::Tensor>& kept_offsets);
KeptSets kept_sets(const std::optional<at::Tensor>& kept_ids, const std::optional<at::Tensor>& kept_offsets);

// All but dtype and shape of the rewards.
void check_rewards(const char* op, const at::Tensor& rewards, const at::Tensor& group_offsets,
                   const char* eps_name, double eps, int64_t pass_k);
Advantage advantage_kind(const char* op, const char* argument, std::string_view name);

// From 1e-30 to 1e30 (is_supported_factor).
void check_positive(const char* op, const char* name, double value);
void check_temperature(const char* op, int64_t tokens, const at::Tensor& beside, double temperature,
                       const std::optional<at::Tensor>& temperatures);

// float32, or float64 for float64 logits.
at::ScalarType float_type(const at::Tensor& logits);

template <class A>
const A* optional_ptr(const std::optional<at::Tensor>& tensor) {
  return tensor.has_value() ? tensor->const_data_ptr<A>() : nullptr;
}

}  // namespace elastic
