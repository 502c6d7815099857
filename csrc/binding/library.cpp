// Every op schema of the package. Implementations register themselves beside their checks, in the other
// files of this directory; fake kernels and autograd are registered in elastic/ops/.
#include <torch/library.h>

TORCH_LIBRARY(elastic, m) {
  // ---- budget machine (csrc/binding/budget.cpp, elastic/ops/budget.py) ----

  // ---- losses (csrc/binding/loss.cpp, elastic/ops/loss.py) ----
}
