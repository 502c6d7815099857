// Checks of the budget machine's tensors, shared by every op that takes a state.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/budget_check.h"

namespace elastic {

// `token_flags` null for ops that look at no token.
budget::Tables checked_tables(const char* op, const at::Tensor& tables, const at::Tensor* token_flags,
                              const at::Tensor& beside);

// On a device a row's state moves as two 16-byte words.
void check_alignment(const char* op, const at::Tensor& state);

// [rows, 8] int32, and on the host every row a state that the tables could have led to. On a device that
// check would have to wait; kernels take a row that does not fit as DONE.
void check_state(const char* op, const at::Tensor& state, int64_t rows, const budget::Tables& tables,
                 const at::Tensor& beside);

// The same for a state that is only read: copied where its strides or alignment do not suit the kernels.
at::Tensor readable_state(const char* op, const at::Tensor& state, int64_t rows, const budget::Tables& tables,
                          const at::Tensor& beside);

}  // namespace elastic
