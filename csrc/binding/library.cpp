// Every op schema of the package. Implementations are registered in the other files of this directory, fake
// kernels and autograd in elastic/ops/.
#include "binding/device.h"
#include "binding/grpo_list.h"

#define SCHEMA_ARGUMENT(type, cpp_type, name, ...) ", " type " " #name
#define GRPO_SCHEMA GRPO_TENSORS(SCHEMA_ARGUMENT) ", *" GRPO_OPTIONS(SCHEMA_ARGUMENT)
// advantages is [0] where they were given
#define GRPO_RESULTS \
  "Tensor loss, Tensor logprobs, Tensor entropy, Tensor advantages, Tensor clip_fraction, Tensor kl"

ELASTIC_LIBRARY(m) {
  // ---- budget machine (csrc/binding/budget.cpp, elastic/ops/budget.py) ----
  m.def("new_state(Tensor rows, Tensor phase, Tensor tables, Tensor? thinking_used=None) -> Tensor");
  m.def("end_thinking_(Tensor(a!) state, Tensor rows) -> ()");
  m.def(
      "budget_step_(Tensor(a!) tokens, Tensor(b!) state, Tensor tables, Tensor token_flags, "
      "Tensor(c!)? active=None) -> Tensor");
  m.def("force_logits_(Tensor(a!) logits, Tensor state, Tensor tables) -> ()");
  m.def("forced_next(Tensor state, Tensor tables) -> Tensor");
  m.def(
      "replay(Tensor tokens, Tensor lengths, Tensor state, Tensor tables, Tensor token_flags, "
      "Tensor? source=None, Tensor? ended=None) -> (Tensor phase, Tensor source, Tensor state, Tensor "
      "mismatch)");

  // ---- sampling (csrc/binding/sample.cpp, elastic/ops/sample.py) ----
  m.def(
      "sample(Tensor logits, Tensor seeds, Tensor positions, *, float temperature, SymInt top_k, float "
      "top_p, "
      "float min_p, Tensor? temperatures, Tensor? top_ks, Tensor? top_ps, Tensor? min_ps, "
      "SymInt most_kept=0, Tensor(a!)? broken=None) -> (Tensor tokens, Tensor logprobs, Tensor "
      "full_logprobs, "
      "Tensor kept_ids, Tensor kept_counts)");
  m.def(  // with the budget step in it
      "sample_(Tensor logits, Tensor seeds, Tensor positions, Tensor(a!) state, Tensor tables, "
      "Tensor token_flags, *, float temperature, SymInt top_k, float top_p, float min_p, "
      "Tensor? temperatures, Tensor? top_ks, Tensor? top_ps, Tensor? min_ps, SymInt most_kept=0, "
      "Tensor(b!)? active=None, Tensor(c!)? broken=None) -> (Tensor tokens, Tensor logprobs, "
      "Tensor full_logprobs, Tensor source, Tensor phase, Tensor kept_ids, Tensor kept_counts)");

  // ---- losses (csrc/binding/{advantage,logprobs,loss,linear_loss}.cpp, elastic/ops/ likewise) ----
  m.def(
      "group_advantage(Tensor rewards, Tensor group_offsets, str kind, float eps, SymInt pass_k) -> Tensor");
  m.def(
      "token_logprobs(Tensor logits, Tensor targets, float temperature, Tensor? temperatures=None, "
      "float? softcap=None, Tensor? kept_ids=None, Tensor? kept_offsets=None) "
      "-> (Tensor logprobs, Tensor entropy, Tensor maximum, Tensor log_sum)");
  m.def(
      "token_logprobs_backward(Tensor logits, Tensor targets, Tensor maximum, Tensor log_sum, "
      "Tensor entropy, Tensor? grad_logprobs, Tensor? grad_entropy, float temperature, Tensor? "
      "temperatures=None, "
      "float? softcap=None, Tensor? kept_ids=None, Tensor? kept_offsets=None) -> Tensor");
  m.def("grpo_loss(Tensor logits" GRPO_SCHEMA ", bool needs_gradient) -> (" GRPO_RESULTS
        ", Tensor gradient)");
  m.def("grpo_loss_(Tensor(a!) logits" GRPO_SCHEMA  // writes the gradient over the logits
        ") -> (" GRPO_RESULTS ")");
  m.def("linear_grpo_loss(Tensor hidden, Tensor weight, Tensor? bias" GRPO_SCHEMA
        ", SymInt? chunk_tokens, bool gather, bool[3] needs_gradient) -> (" GRPO_RESULTS
        ", Tensor d_hidden, Tensor d_weight, Tensor d_bias)");
  m.def(
      "linear_token_logprobs(Tensor hidden, Tensor weight, Tensor? bias, Tensor targets, float temperature, "
      "Tensor? temperatures, float? softcap, Tensor? kept_ids, Tensor? kept_offsets, "
      "SymInt? chunk_tokens) "
      "-> (Tensor logprobs, Tensor entropy, Tensor maximum, Tensor log_sum)");
  m.def(
      "linear_token_logprobs_backward(Tensor hidden, Tensor weight, Tensor? bias, Tensor targets, "
      "Tensor maximum, Tensor log_sum, Tensor entropy, Tensor? grad_logprobs, Tensor? grad_entropy, "
      "float temperature, Tensor? temperatures, float? softcap, Tensor? kept_ids, Tensor? kept_offsets, "
      "SymInt? chunk_tokens, bool[3] needs_gradient) -> (Tensor d_hidden, Tensor d_weight, Tensor d_bias)");
  m.def("scale_(Tensor(a!) values, Tensor factor) -> ()");
}
