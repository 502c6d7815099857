// The Python module: what was built, and which CPU kernels run. Importing it registers the op library.
#include <pybind11/pybind11.h>

#include "cpu/dispatch.h"
#include "head/chunk_size.h"
#ifdef ELASTIC_WITH_CUDA
#include "cuda/logits_launch.h"
#endif

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
  m.def("default_chunk_tokens", &elastic::default_chunk_tokens, py::arg("tokens"), py::arg("token_bytes"),
        py::arg("sum_bytes"), py::arg("free_bytes"),
        "Tokens per chunk of linear_grpo_loss without chunk_tokens, where `free_bytes` are free, a token's "
        "logits take `token_bytes` and summing over chunks takes `sum_bytes`. free_bytes 0: on the CPU.");
#ifdef ELASTIC_WITH_CUDA
  m.def(
      "set_logits_launch",
      [](int cluster, int threads, const std::string& kernel) {
        return elastic::cuda::set_logits_launch(cluster, threads, elastic::cuda::logits_kernel_named(kernel));
      },
      py::arg("cluster") = -1, py::arg("threads") = 0, py::arg("kernel") = "table",
      "How ops lay a token's logits over a CUDA device from now on: so many CTAs hold them in shared memory "
      "(1, 2, 4, 8 or 16; 0: one streams them; -1: chosen by their number) with so many threads each (a "
      "multiple of 32 up to 1,024; 0: chosen), by the logits pass (kernel \"pass\") or the ring (\"ring\", "
      "\"ring_direct\"; its threads are fixed: 0). \"table\" with -1 and 0 is the launch table. For tuning. "
      "False, and nothing changes, if these are not such numbers; ValueError for another kernel.");
  m.def(
      "logits_launch",
      [](const std::string& dtype, int64_t vocab, bool gradient) {
        const auto scalar = dtype == "float32"    ? elastic::Scalar::F32
                            : dtype == "bfloat16" ? elastic::Scalar::BF16
                            : dtype == "float16"  ? elastic::Scalar::F16
                                                  : throw py::value_error(
                                                        "logits_launch: dtype: expected float32, "
                                                        "bfloat16 or float16, got " +
                                                        dtype);
        elastic::LogitsChunk chunk{};  // of many tokens, in place
        chunk.dtype = scalar;
        chunk.tokens = 1 << 20;
        const auto choice = elastic::cuda::choose_launch(chunk, vocab, /*softcap=*/false, gradient);
        py::dict info;
        info["kernel"] = std::string(elastic::cuda::name_of(choice.kernel));
        if (choice.kernel == elastic::cuda::LogitsKernel::PASS) {
          info["resident"] = choice.pass.resident;
          info["cluster"] = choice.pass.cluster;
          info["threads"] = choice.pass.threads;
          info["shared_bytes"] = choice.pass.shared_bytes;
        } else {
          info["cluster"] = 1 << choice.ring.log2_ranks;
          info["slots"] = choice.ring.slots;
          info["slot_bytes"] = choice.ring.slot_vectors * 16;
          info["shared_bytes"] = choice.ring_bytes;
        }
        return info;
      },
      py::arg("dtype"), py::arg("vocab"), py::arg("gradient") = true,
      "The kernel and shape that passes over many tokens of `vocab` logits get on the current CUDA device.");
#endif
}
