#include "binding/checks.h"

#include <c10/core/ScalarType.h>

#include <sstream>

namespace elastic {
namespace {

std::string describe(at::IntArrayRef shape, at::ScalarType dtype, const at::Device& device) {
  std::ostringstream text;
  text << shape << ' ' << dtype_name(dtype) << " on " << device;
  return text.str();
}

}  // namespace

std::string dtype_name(at::ScalarType dtype) { return std::string(c10::getDtypeNames(dtype).first); }

std::string describe(const at::Tensor& tensor) {
  return describe(tensor.sizes(), tensor.scalar_type(), tensor.device());
}

void expect(const char* op, const char* name, const at::Tensor& tensor, at::IntArrayRef shape,
            at::ScalarType dtype, const at::Tensor& beside) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, op, ": ", name, ": expected ",
                   describe(shape, dtype, beside.device()), ", got ", describe(tensor));
  TORCH_CHECK_VALUE(tensor.sizes() == shape && tensor.device() == beside.device(), op, ": ", name,
                    ": expected ", describe(shape, dtype, beside.device()), ", got ", describe(tensor));
  TORCH_CHECK_VALUE(tensor.is_contiguous(), op, ": ", name, ": expected a contiguous tensor, got strides ",
                    tensor.strides());
}

void check_rows(const char* op, const char* name, const at::Tensor& matrix, bool written) {
  // One row has no meaningful row stride, and a row of one element no column stride.
  TORCH_CHECK_VALUE(matrix.size(1) <= 1 || matrix.stride(1) == 1, op, ": ", name,
                    ": expected a last dimension of stride 1, got strides ", matrix.strides());
  TORCH_CHECK_VALUE(!written || matrix.size(0) <= 1 || matrix.stride(0) >= matrix.size(1), op, ": ", name,
                    ": expected rows that do not overlap, got strides ", matrix.strides());
}

Scalar scalar_type(const at::Tensor& logits) {
  switch (logits.scalar_type()) {
    case at::kBFloat16:
      return Scalar::BF16;
    case at::kHalf:
      return Scalar::F16;
    case at::kDouble:
      return Scalar::F64;
    default:
      return Scalar::F32;
  }
}

}  // namespace elastic
