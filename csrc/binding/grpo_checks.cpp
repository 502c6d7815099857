// The checks of the GRPO losses' arguments.
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "binding/grpo.h"
#include "binding/loss_checks.h"

namespace elastic {
namespace {

using at::Tensor;

Loss loss_type(const char* op, std::string_view name) {
  if (name == "grpo") return Loss::GRPO;
  if (name == "bnpo") return Loss::BNPO;
  if (name == "dr_grpo") return Loss::DR_GRPO;
  if (name == "dapo") return Loss::DAPO;
  if (name == "gspo") return Loss::GSPO;
  if (name == "cispo") return Loss::CISPO;
  if (name == "sapo") return Loss::SAPO;
  TORCH_CHECK_VALUE(false, op, ": loss: expected grpo, bnpo, dr_grpo, dapo, gspo, cispo or sapo, got '", name,
                    "'");
}

Kl kl_type(const char* op, std::string_view name) {
  if (name == "k1") return Kl::K1;
  if (name == "k2") return Kl::K2;
  if (name == "k3") return Kl::K3;
  TORCH_CHECK_VALUE(false, op, ": kl: expected k1, k2 or k3, got '", name, "'");
}

EngineMode engine_mode_type(const char* op, std::string_view name) {
  if (name == "truncate") return EngineMode::TRUNCATE;
  if (name == "mask") return EngineMode::MASK;
  TORCH_CHECK_VALUE(false, op, ": engine_mode: expected truncate or mask, got '", name, "'");
}

// The ranges of GRPO_OPTIONS: how an error names them, and whether a value lies in them.
struct Range {
  const char* expected;
  bool (*holds)(double value);
};
constexpr Range ANY{"", [](double) { return true; }};
constexpr Range FROM_0_TO_1{"a value in [0, 1]", [](double x) { return x >= 0 && x <= 1; }};
constexpr Range FINITE{"a finite value", [](double x) { return std::isfinite(x); }};
constexpr Range FINITE_FROM_0{"a finite value of at least 0",
                              [](double x) { return std::isfinite(x) && x >= 0; }};
constexpr Range ABOVE_0{"a value above 0", [](double x) { return x > 0; }};
constexpr Range ABOVE_1{"a value above 1", [](double x) { return x > 1; }};
constexpr Range AT_LEAST_0{"at least 0", [](double x) { return x >= 0; }};
constexpr Range AT_LEAST_1{"at least 1", [](double x) { return x >= 1; }};
constexpr Range FACTOR{"a value from 1e-30 to 1e30", [](double x) { return is_supported_factor(x); }};

template <class Value>
void check_range(const char* op, const char* name, const Value& value, const Range& range) {
  if constexpr (std::is_arithmetic_v<Value>)
    TORCH_CHECK_VALUE(range.holds(static_cast<double>(value)), op, ": ", name, ": expected ", range.expected,
                      ", got ", value);
}
template <class Value>
void check_range(const char* op, const char* name, const std::optional<Value>& value, const Range& range) {
  if (value.has_value()) check_range(op, name, *value, range);
}

void check_options(const char* op, const GrpoArguments& a) {
#define GRPO_CHECK(schema, type, name, range) check_range(op, #name, a.name, range);
  GRPO_OPTIONS(GRPO_CHECK)
#undef GRPO_CHECK
  TORCH_CHECK_VALUE(a.engine_low >= 0 && a.engine_low <= a.engine_high, op,
                    ": engine_low: expected 0 <= engine_low <= engine_high, got ", a.engine_low, " and ",
                    a.engine_high);
  TORCH_CHECK_VALUE(a.loss != "dr_grpo" || a.max_length.has_value(), op,
                    ": max_length: expected a length, which dr_grpo divides by, got None");
}

// The count of a whole step. It may be 0; the denominator is then 1, as for an empty batch.
double denominator(std::optional<int64_t> value) {
  return value.has_value() ? static_cast<double>(std::max<int64_t>(*value, 1)) : -1;
}

void check_advantages(const char* op, const Tensor& beside, int64_t rows, const GrpoArguments& a) {
  TORCH_CHECK_VALUE(a.advantages.has_value() != a.rewards.has_value() &&
                        a.rewards.has_value() == a.group_offsets.has_value(),
                    op, ": advantages: expected exactly one of advantages and (rewards, group_offsets), got ",
                    a.advantages.has_value() ? "both" : "neither");
  if (a.advantages.has_value())
    return expect(op, "advantages", *a.advantages, {rows}, float_type(beside), beside);
  advantage_kind(op, "advantage", a.advantage);
  expect(op, "rewards", *a.rewards, {rows}, float_type(beside), beside);
  check_rewards(op, *a.rewards, *a.group_offsets, "advantage_eps", a.advantage_eps, a.pass_k);
}

}  // namespace

Objective check_grpo(const char* op, int64_t tokens, int64_t vocab, const Tensor& beside,
                     const GrpoArguments& a) {
  check_targets(op, tokens, vocab, beside, a.targets, a.mask);
  check_kept(op, tokens, vocab, a.targets, a.mask, a.kept_ids, a.kept_offsets);
  check_offsets(op, "row_offsets", a.row_offsets, tokens, "N", beside);
  const int64_t rows = a.row_offsets.size(0) - 1;
  TORCH_CHECK_VALUE(rows < MOST_ROWS, op, ": row_offsets: expected fewer than ", MOST_ROWS, " rows, got ",
                    rows);
  check_temperature(op, tokens, beside, a.temperature, a.temperatures);
  const at::ScalarType dtype = float_type(beside);
  expect(op, "old_logprobs", a.old_logprobs, {tokens}, dtype, beside);
  check_advantages(op, beside, rows, a);
  if (a.ref_logprobs.has_value()) expect(op, "ref_logprobs", *a.ref_logprobs, {tokens}, dtype, beside);
  if (a.engine_logprobs.has_value())
    expect(op, "engine_logprobs", *a.engine_logprobs, {tokens}, dtype, beside);
  TORCH_CHECK_VALUE(a.kl_coef == 0 || a.ref_logprobs.has_value(), op,
                    ": ref_logprobs: expected a tensor with kl_coef = ", a.kl_coef, ", got None");
  const double none = std::numeric_limits<double>::infinity();
  const Objective objective{.loss = loss_type(op, a.loss),
                            .kl = kl_type(op, a.kl),
                            .kl_weighted = a.kl_weighted,
                            .clip_low = a.clip_low,
                            .clip_high = a.clip_high,
                            .delta = a.delta.value_or(none),
                            .dual_clip = a.dual_clip.value_or(none),
                            .kl_coef = a.kl_coef,
                            .entropy_coef = a.entropy_coef,
                            .tau_positive = a.tau_positive,
                            .tau_negative = a.tau_negative,
                            .num_tokens = denominator(a.num_tokens),
                            .num_rows = denominator(a.num_rows),
                            .max_length = a.max_length.has_value() ? double(*a.max_length) : -1,
                            .engine_mode = engine_mode_type(op, a.engine_mode),
                            .engine_rows = a.engine_rows,
                            .engine_low = a.engine_low,
                            .engine_high = a.engine_high};
  check_options(op, a);
  return objective;
}

}  // namespace elastic
