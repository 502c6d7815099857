// Checks shared by all ops. They raise before any work, as `op: argument: expected ..., got ...`: TypeError
// for dtypes, ValueError for the rest.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <string>

#include "core/loss_params.h"

namespace elastic {

// torch's name of a dtype without the module: "int64", never "Long".
std::string dtype_name(at::ScalarType dtype);

// "[2, 3] int64 on cpu".
std::string describe(const at::Tensor& tensor);

// `shape` and `dtype` exactly, contiguous, on the device of `beside`.
void expect(const char* op, const char* name, const at::Tensor& tensor, at::IntArrayRef shape,
            at::ScalarType dtype, const at::Tensor& beside);

// [rows, columns]: rows may be strided, elements of a row not. `written`: rows must not overlap either.
void check_rows(const char* op, const char* name, const at::Tensor& matrix, bool written);

// The kernels' name for the dtype of logits that passed their op's check.
Scalar scalar_type(const at::Tensor& logits);

// Call before an op writes a tensor: a backward that has saved the tensor then raises.
inline void bump_version(const at::Tensor& tensor) { tensor.unsafeGetTensorImpl()->bump_version(); }

}  // namespace elastic
