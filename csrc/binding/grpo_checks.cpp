// The checks of the GRPO losses' arguments.
#include <algorithm>
#include <cmath>
#include <limits>

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

// Of a whole step, which may have none of them: the denominator is 1 then, as for a batch of none.
double denominator(const char* op, const char* name, std::optional<int64_t> value) {
  if (!value.has_value()) return -1;
  TORCH_CHECK_VALUE(*value >= 0, op, ": ", name, ": expected at least 0, got ", *value);
  return static_cast<double>(std::max<int64_t>(*value, 1));
}

double length(const char* op, std::optional<int64_t> value) {
  if (!value.has_value()) return -1;
  TORCH_CHECK_VALUE(*value >= 1, op, ": max_length: expected at least 1, got ", *value);
  return static_cast<double>(*value);
}

void check_bounds(const char* op, const Objective& o) {
  TORCH_CHECK_VALUE(o.clip_low >= 0 && o.clip_low <= 1, op, ": clip_low: expected a value in [0, 1], got ",
                    o.clip_low);
  TORCH_CHECK_VALUE(std::isfinite(o.clip_high) && o.clip_high >= 0, op,
                    ": clip_high: expected a finite value of at least 0, got ", o.clip_high);
  TORCH_CHECK_VALUE(o.delta > 0, op, ": delta: expected a value above 0, got ", o.delta);
  TORCH_CHECK_VALUE(o.dual_clip > 1, op, ": dual_clip: expected a value above 1, got ", o.dual_clip);
  TORCH_CHECK_VALUE(std::isfinite(o.kl_coef) && o.kl_coef >= 0, op,
                    ": kl_coef: expected a finite value of at least 0, got ", o.kl_coef);
  TORCH_CHECK_VALUE(std::isfinite(o.entropy_coef), op, ": entropy_coef: expected a finite value, got ",
                    o.entropy_coef);
  TORCH_CHECK_VALUE(o.engine_low >= 0 && o.engine_low <= o.engine_high, op,
                    ": engine_low: expected 0 <= engine_low <= engine_high, got ", o.engine_low, " and ",
                    o.engine_high);
  check_positive(op, "tau_positive", o.tau_positive);
  check_positive(op, "tau_negative", o.tau_negative);
  TORCH_CHECK_VALUE(o.loss != Loss::DR_GRPO || o.max_length >= 1, op,
                    ": max_length: expected a length, which dr_grpo divides by, got None");
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
  check_offsets(op, "row_offsets", a.row_offsets, tokens, "N", beside);
  const int64_t rows = a.row_offsets.size(0) - 1;
  TORCH_CHECK_VALUE(rows < MOST_ROWS, op, ": row_offsets: expected fewer than ", MOST_ROWS, " rows, got ",
                    rows);
  check_temperature(op, tokens, beside, a.temperature, a.temperatures);
  if (a.softcap.has_value()) check_positive(op, "softcap", *a.softcap);
  const at::ScalarType dtype = float_type(beside);
  expect(op, "old_logprobs", a.old_logprobs, {tokens}, dtype, beside);
  check_advantages(op, beside, rows, a);
  if (a.ref_logprobs.has_value()) expect(op, "ref_logprobs", *a.ref_logprobs, {tokens}, dtype, beside);
  if (a.engine_logprobs.has_value())
    expect(op, "engine_logprobs", *a.engine_logprobs, {tokens}, dtype, beside);
  TORCH_CHECK_VALUE(a.kl_coef == 0 || a.ref_logprobs.has_value(), op,
                    ": ref_logprobs: expected a tensor with kl_coef = ", a.kl_coef, ", got None");
  const double none = std::numeric_limits<double>::infinity();
  const Objective objective{loss_type(op, a.loss),
                            kl_type(op, a.kl),
                            a.kl_weighted,
                            a.clip_low,
                            a.clip_high,
                            a.delta.value_or(none),
                            a.dual_clip.value_or(none),
                            a.kl_coef,
                            a.entropy_coef,
                            a.tau_positive,
                            a.tau_negative,
                            denominator(op, "num_tokens", a.num_tokens),
                            denominator(op, "num_rows", a.num_rows),
                            length(op, a.max_length),
                            engine_mode_type(op, a.engine_mode),
                            a.engine_rows,
                            a.engine_low,
                            a.engine_high};
  check_bounds(op, objective);
  return objective;
}

}  // namespace elastic
