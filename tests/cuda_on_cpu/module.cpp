// The Python module. Importing it registers torch.ops.elastic_cuda_on_cpu.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "controls.h"
#include "cuda/logits_launch.h"
#include "launch.h"

namespace py = pybind11;
using elastic::cuda::Control;

namespace {

const Control& find(const std::string& fault) {
  for (const Control& control : elastic::cuda::controls())
    if (control.fault == fault) return control;
  throw std::invalid_argument("no control named " + fault);
}

// Reverses `in` by the control; RuntimeError if the shim objected.
py::array_t<float> run_control(const std::string& fault, bool sound, const py::array_t<float>& in) {
  const Control& control = find(fault);
  if (in.size() != control.count) throw std::invalid_argument("expected " + std::to_string(control.count));
  py::array_t<float> out(in.size());
  const auto result = (sound ? control.sound : control.faulty)(in.data(), out.mutable_data());
  if (!result) throw std::runtime_error(std::string(result.kernel) + ": " + cudaGetErrorString(result.error));
  return out;
}

// (resident, cluster, threads, shared bytes) for rows of a dtype and length.
py::tuple logits_launch(const py::object& dtype, int64_t vocab, bool gradient) {
  const bool wide = py::str(dtype).cast<std::string>() == "torch.float32";
  const auto shape =
      elastic::cuda::logits_launch(wide ? elastic::Scalar::F32 : elastic::Scalar::BF16, vocab, gradient);
  return py::make_tuple(shape.resident, shape.cluster, shape.threads, shape.shared_bytes);
}

}  // namespace

PYBIND11_MODULE(_cuda_on_cpu, m) {
  m.def("set_seed", cuda_on_cpu::set_seed, "Schedules from here on follow from this seed alone.");
  m.def("launches", cuda_on_cpu::launches, "Launches that ran to their end, by kernel.");
  m.def(
      "set_device",
      [](int capability, int block_kb, int sm_kb) {
        cuda_on_cpu::device = {capability, block_kb * 1024, sm_kb * 1024};
      },
      py::arg("capability") = 9, py::arg("block_kb") = 227, py::arg("sm_kb") = 228,
      "What the device pretends to be: its major compute capability (8 knows no clusters, 9 does), and the "
      "shared memory that a block and an SM have.");
  m.def(
      "set_logits_launch",
      [](int cluster, int threads, const std::string& kernel) {
        return elastic::cuda::set_logits_launch(cluster, threads, elastic::cuda::logits_kernel_named(kernel));
      },
      py::arg("cluster"), py::arg("threads"), py::arg("kernel") = "table", "As elastic._C's.");
  m.def("logits_launch", logits_launch, py::arg("dtype"), py::arg("vocab"), py::arg("gradient"));
  m.def("controls", [] {
    py::dict sizes;
    for (const Control& control : elastic::cuda::controls()) sizes[control.fault] = control.count;
    return sizes;
  });
  m.def("run_control", run_control, py::arg("fault"), py::arg("sound"), py::arg("values"));
}
