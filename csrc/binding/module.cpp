// The Python module: what was built, and which CPU kernels run. Importing it registers the op library.
#include <pybind11/pybind11.h>

#include "cpu/dispatch.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.attr("__version__") = ELASTIC_VERSION;
  m.def(
      "build_info",
      [] {
        py::dict info;
        info["version"] = ELASTIC_VERSION;
        info["torch"] = ELASTIC_TORCH_VERSION;
        info["isas"] = ELASTIC_ISAS;
#ifdef ELASTIC_WITH_CUDA
        info["cuda"] = true;
        info["cuda_archs"] = ELASTIC_CUDA_ARCHS;
        info["nvcc"] = ELASTIC_NVCC_VERSION;
#else
        info["cuda"] = false;
        info["cuda_archs"] = "";
        info["nvcc"] = "";
#endif
        return info;
      },
      "Facts fixed when the extension was compiled.");
  m.def(
      "cpu_isa", [] { return elastic::cpu::isa_name(elastic::cpu::active_isa()); },
      "Instruction set of the CPU kernels in use: DEFAULT, AVX2 or AVX512.");
}
