#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>

#include <algorithm>

#include "cpu/huge_pages.h"
#include "head/chunked_head.h"

namespace elastic {

using at::Tensor;

GradientSum::GradientSum(at::IntArrayRef shape, const at::TensorOptions& options, bool needed, bool several)
    : result_(at::empty(needed ? shape : at::IntArrayRef({0}), options)), needed_(needed) {
  const bool short_floats = result_.element_size() == 2;
  if (needed && several && short_floats) wide_ = at::empty(shape, options.dtype(at::kFloat));
  for (const Tensor& tensor : {result_, wide_})
    if (tensor.defined() && !tensor.is_cuda())
      cpu::prefer_huge_pages(tensor.mutable_data_ptr(), tensor.nbytes());
}

void GradientSum::add_product(const Tensor& a, const Tensor& b) {
  if (!wide_.defined()) {
    if (empty_)
      at::mm_out(result_, a, b);
    else
      at::addmm_out(result_, result_, a, b);
  } else if (result_.is_cuda()) {
    // the product's own accumulator starts from the sum; a factor of 0 leaves what is there unread
    at::addmm_out(wide_, wide_, a, b, at::kFloat, /*beta=*/empty_ ? 0 : 1);
  } else {
    at::mm_out(result_, a, b);  // rounded once per chunk: CPU products of 16 bits have no wider result
    add_rounded();
  }
  empty_ = false;
}

void GradientSum::add_rows(const Tensor& a) {
  Tensor& sum = wide_.defined() ? wide_ : result_;
  if (empty_) sum.zero_();
  sum.add_(at::sum(a, 0, /*keepdim=*/false, sum.scalar_type()));
  empty_ = false;
}

Tensor GradientSum::finish() {
  if (wide_.defined())
    result_.copy_(wide_);
  else if (empty_)
    result_.zero_();
  return result_;
}

// wide_ += result_, or = result_ at first, in slices that stay in cache: adding mixed dtypes at once takes
// six times as long.
void GradientSum::add_rounded() {
  constexpr int64_t ROWS = 1024;
  Tensor slice = at::empty({std::min(ROWS, wide_.size(0)), wide_.size(1)}, wide_.options());
  for (int64_t first = 0; first < wide_.size(0); first += ROWS) {
    const int64_t rows = std::min(ROWS, wide_.size(0) - first);
    Tensor sum = wide_.narrow(0, first, rows), part = slice.narrow(0, 0, rows);
    (empty_ ? sum : part).copy_(result_.narrow(0, first, rows));
    if (!empty_) sum.add_(part);
  }
}

}  // namespace elastic
