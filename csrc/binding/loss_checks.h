// Checks shared by the loss ops. Each raises ValueError or TypeError as `op: argument: expected ..., got
// ...`, before anything is allocated. Contents (ids, offsets) are read on the CPU only: on a device a check
// would have to wait for it, so there a bad id or offset turns the token's results, and with them the loss,
// into NaN.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <optional>
#include <string>

#include "core/loss_params.h"

namespace elastic {

std::string describe(const at::Tensor& tensor);

// `shape` and `dtype` exactly, contiguous, on the device of `beside`.
void expect(const char* op, const char* name, const at::Tensor& tensor, at::IntArrayRef shape,
            at::ScalarType dtype, const at::Tensor& beside);

// [N, V] float32, bfloat16 or (CPU) float64; rows may be strided, elements of a row not. `written`: rows must
// not overlap either.
void check_logits(const char* op, const at::Tensor& logits, bool written);

// [count + 1] int64 from 0 to `end`, never decreasing.
void check_offsets(const char* op, const char* name, const at::Tensor& offsets, int64_t end,
                   const char* end_name, const at::Tensor& beside);

// Ids of tokens that count must be in [0, V); the others are never read.
void check_targets(const char* op, const at::Tensor& logits, const at::Tensor& targets,
                   const std::optional<at::Tensor>& mask);

void check_positive(const char* op, const char* name, double value);
void check_temperature(const char* op, const at::Tensor& logits, double temperature,
                       const std::optional<at::Tensor>& temperatures);

// float32, or float64 for float64 logits.
at::ScalarType float_type(const at::Tensor& logits);
Scalar scalar_type(const at::Tensor& logits);

template <class A>
const A* optional_ptr(const std::optional<at::Tensor>& tensor) {
  return tensor.has_value() ? tensor->const_data_ptr<A>() : nullptr;
}

template <class A>
LogitsView<A> logits_view(const at::Tensor& logits, const at::Tensor& targets, double temperature,
                          const std::optional<at::Tensor>& temperatures) {
  return {scalar_type(logits), logits.const_data_ptr(),
          logits.stride(0),    logits.size(0),
          logits.size(1),      targets.const_data_ptr<int64_t>(),
          temperature,         optional_ptr<A>(temperatures)};
}

}  // namespace elastic
