// Every op schema of the package. Implementations register themselves beside their checks, in the other
// files of this directory; fake kernels and autograd are registered in elastic/ops/.
#include <torch/library.h>

TORCH_LIBRARY(elastic, m) {
  // ---- budget machine (csrc/binding/budget.cpp, elastic/ops/budget.py) ----
  m.def("new_state(Tensor budgets, Tensor phases, Tensor tables) -> Tensor");
  m.def(
      "budget_step_(Tensor(a!) tokens, Tensor(b!) state, Tensor tables, Tensor token_flags, "
      "Tensor(c!)? active=None) -> Tensor");
  m.def("force_logits_(Tensor(a!) logits, Tensor state, Tensor tables) -> ()");
  m.def(
      "replay(Tensor tokens, Tensor lengths, Tensor state, Tensor tables, Tensor token_flags, "
      "Tensor? source=None) -> (Tensor phase, Tensor source, Tensor state, Tensor mismatch)");

  // ---- losses (csrc/binding/loss.cpp, elastic/ops/loss.py) ----
}
