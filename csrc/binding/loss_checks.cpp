#include "binding/loss_checks.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "binding/device.h"

namespace elastic {

using at::Tensor;

void check_float(const char* op, const char* name, const Tensor& tensor) {
  const at::ScalarType dtype = tensor.scalar_type();
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf ||
                       (dtype == at::kDouble && !runs_on_cuda(tensor)),
                   op, ": ", name, ": expected float32, bfloat16, float16 or, on the CPU, float64, got ",
                   describe(tensor));
}

void check_logits(const char* op, const Tensor& logits, bool written) {
  check_float(op, "logits", logits);
  TORCH_CHECK_VALUE(logits.dim() == 2, op, ": logits: expected [N, V], got ", describe(logits));
  TORCH_CHECK_VALUE(logits.size(0) <= MOST_ROWS && logits.size(1) <= MOST_ROWS, op,
                    ": logits: expected at most ", MOST_ROWS, " rows and ids, got ", describe(logits));
  TORCH_CHECK_VALUE(logits.size(0) == 0 || logits.size(1) > 0, op,
                    ": logits: expected a vocabulary of at least one id, got ", describe(logits));
  check_rows(op, "logits", logits, written);
}

void check_head(const char* op, const Head& head, std::optional<int64_t> chunk_tokens) {
  const Tensor &hidden = head.hidden, &weight = head.weight;
  check_float(op, "hidden", hidden);
  TORCH_CHECK_VALUE(hidden.dim() == 2, op, ": hidden: expected [N, H], got ", describe(hidden));
  TORCH_CHECK_TYPE(weight.scalar_type() == hidden.scalar_type(), op,
                   ": weight: expected the dtype of hidden, ", describe(hidden), ", got ", describe(weight));
  TORCH_CHECK_VALUE(
      weight.dim() == 2 && weight.size(1) == hidden.size(1) && weight.device() == hidden.device(), op,
      ": weight: expected [V, ", hidden.size(1), "] on ", hidden.device(), ", got ", describe(weight));
  TORCH_CHECK_VALUE(weight.size(0) > 0 || hidden.size(0) == 0, op,
                    ": weight: expected a vocabulary of at least one id, got ", describe(weight));
  TORCH_CHECK_VALUE(hidden.size(0) <= MOST_ROWS && weight.size(0) <= MOST_ROWS, op,
                    ": hidden: expected at most ", MOST_ROWS, " tokens and ids, got ", describe(hidden),
                    " and ", describe(weight));
  if (head.bias.has_value()) expect(op, "bias", *head.bias, {weight.size(0)}, hidden.scalar_type(), hidden);
  TORCH_CHECK_VALUE(chunk_tokens.value_or(1) >= 1, op, ": chunk_tokens: expected at least 1, got ",
                    *chunk_tokens);
}

void check_offsets(const char* op, const char* name, const Tensor& offsets, int64_t end, const char* end_name,
                   const Tensor& beside) {
  TORCH_CHECK_VALUE(offsets.dim() == 1 && offsets.size(0) >= 1, op, ": ", name,
                    ": expected one dimension of at least one offset, got ", describe(offsets));
  expect(op, name, offsets, offsets.sizes(), at::kLong, beside);
  if (runs_on_cuda(offsets)) return;
  const int64_t* data = offsets.const_data_ptr<int64_t>();
  const int64_t last = offsets.size(0) - 1;
  TORCH_CHECK_VALUE(data[0] == 0, op, ": ", name, ": expected to start at 0, got ", data[0]);
  for (int64_t i = 0; i < last; i++)
    TORCH_CHECK_VALUE(data[i] <= data[i + 1], op, ": ", name, ": expected never to decrease, got ", data[i],
                      " then ", data[i + 1], " at index ", i + 1);
  TORCH_CHECK_VALUE(data[last] == end, op, ": ", name, ": expected to end at ", end_name, " = ", end,
                    ", got ", data[last]);
}

void check_targets(const char* op, int64_t tokens, int64_t vocab, const Tensor& beside, const Tensor& targets,
                   const std::optional<Tensor>& mask) {
  expect(op, "targets", targets, {tokens}, at::kLong, beside);
  if (mask.has_value()) expect(op, "mask", *mask, {tokens}, at::kBool, beside);
  if (runs_on_cuda(beside)) return;
  const int64_t* ids = targets.const_data_ptr<int64_t>();
  const bool* counts = optional_ptr<bool>(mask);
  for (int64_t t = 0; t < tokens; t++)
    TORCH_CHECK_VALUE((ids[t] >= 0 && ids[t] < vocab) || (counts != nullptr && !counts[t]), op,
                      ": targets: expected ids in [0, ", vocab, "), got ", ids[t], " at token ", t);
}

void check_kept(const char* op, int64_t tokens, int64_t vocab, const Tensor& targets,
                const std::optional<Tensor>& mask, const std::optional<Tensor>& kept_ids,
                const std::optional<Tensor>& kept_offsets) {
  TORCH_CHECK_VALUE(kept_ids.has_value() == kept_offsets.has_value(), op,
                    ": kept_ids: expected kept_ids and kept_offsets together, got one of them");
  if (!kept_ids.has_value()) return;
  expect(op, "kept_ids", *kept_ids, {kept_ids->numel()}, at::kInt, targets);
  TORCH_CHECK_VALUE(kept_offsets->dim() == 1 && kept_offsets->size(0) == tokens + 1, op,
                    ": kept_offsets: expected [", tokens + 1, "], got ", describe(*kept_offsets));
  check_offsets(op, "kept_offsets", *kept_offsets, kept_ids->size(0), "the number of kept_ids", targets);
  if (runs_on_cuda(targets)) return;
  const KeptSets sets = kept_sets(kept_ids, kept_offsets);
  const int64_t* target = targets.const_data_ptr<int64_t>();
  const bool* counts = optional_ptr<bool>(mask);
  for (int64_t t = 0; t < tokens; t++) {
    const auto [ids, count] = kept_set(sets, t);
    if (count == 0) continue;
    const bool ascend = std::adjacent_find(ids, ids + count, std::greater_equal<>()) == ids + count;
    TORCH_CHECK_VALUE(ascend && ids[0] >= 0 && ids[count - 1] < vocab, op,
                      ": kept_ids: expected ascending ids in [0, ", vocab,
                      ") within a token, got others at token ", t);
    TORCH_CHECK_VALUE((counts != nullptr && !counts[t]) || std::binary_search(ids, ids + count, target[t]),
                      op, ": kept_ids: expected the target among a token's ids, got ", target[t],
                      " outside of them at token ", t);
  }
}

KeptSets kept_sets(const std::optional<Tensor>& kept_ids, const std::optional<Tensor>& kept_offsets) {
  if (!kept_ids.has_value()) return {nullptr, nullptr, 0};
  return {kept_offsets->const_data_ptr<int64_t>(), kept_ids->const_data_ptr<int32_t>(), kept_ids->size(0)};
}

void check_positive(const char* op, const char* name, double value) {
  TORCH_CHECK_VALUE(is_supported_factor(value), op, ": ", name, ": expected a value from 1e-30 to 1e30, got ",
                    value);
}

void check_temperature(const char* op, int64_t tokens, const Tensor& beside, double temperature,
                       const std::optional<Tensor>& temperatures) {
  check_positive(op, "temperature", temperature);
  if (!temperatures.has_value()) return;
  expect(op, "temperature", *temperatures, {tokens}, float_type(beside), beside);
  if (runs_on_cuda(beside)) return;
  for (int64_t t = 0; t < tokens; t++) {
    const double value = temperatures->scalar_type() == at::kDouble
                             ? temperatures->const_data_ptr<double>()[t]
                             : temperatures->const_data_ptr<float>()[t];
    TORCH_CHECK_VALUE(is_supported_factor(value), op,
                      ": temperature: expected values from 1e-30 to 1e30, got ", value, " at token ", t);
  }
}

Advantage advantage_kind(const char* op, const char* argument, std::string_view name) {
  if (name == "group") return Advantage::GROUP;
  if (name == "none") return Advantage::NONE;
  if (name == "batch") return Advantage::BATCH;
  if (name == "rloo") return Advantage::RLOO;
  if (name == "maxrl") return Advantage::MAXRL;
  if (name == "passk") return Advantage::PASSK;
  TORCH_CHECK_VALUE(false, op, ": ", argument, ": expected group, none, batch, rloo, maxrl or passk, got '",
                    name, "'");
}

void check_rewards(const char* op, const Tensor& rewards, const Tensor& group_offsets, const char* eps_name,
                   double eps, int64_t pass_k) {
  check_offsets(op, "group_offsets", group_offsets, rewards.size(0), "R", rewards);
  TORCH_CHECK_VALUE(std::isfinite(eps) && eps >= 0, op, ": ", eps_name,
                    ": expected a finite value of at least 0, got ", eps);
  TORCH_CHECK_VALUE(pass_k >= 1, op, ": pass_k: expected at least 1, got ", pass_k);
  if (runs_on_cuda(rewards)) return;
  const bool wide = rewards.scalar_type() == at::kDouble;
  for (int64_t i = 0; i < rewards.size(0); i++) {
    const double value = wide ? rewards.const_data_ptr<double>()[i] : rewards.const_data_ptr<float>()[i];
    TORCH_CHECK_VALUE(std::isfinite(value), op, ": rewards: expected finite values, got ", value, " in row ",
                      i);
  }
}

at::ScalarType float_type(const Tensor& logits) {
  return logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace elastic
