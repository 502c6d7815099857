// tanh by a polynomial near 0, where a quotient of exponentials would lose its digits, and by one exp
// elsewhere; relative error below 3e-7.
#include "cpu/softcap_kernel.h"

#include "cpu/vector_rows.h"

namespace elastic::cpu {
namespace {

Vec tanh_of(const Vec& u) {
  const Vec zero(0.f), one(1.f), square = u * u, size = u.abs();
  Vec p(-5.70498872745e-3f);  // Cephes' tanhf, |u| < 0.625
  p = at::vec::fmadd(p, square, Vec(2.06390887954e-2f));
  p = at::vec::fmadd(p, square, Vec(-5.37397155531e-2f));
  p = at::vec::fmadd(p, square, Vec(1.33314422036e-1f));
  p = at::vec::fmadd(p, square, Vec(-3.33332819422e-1f));
  const Vec near = at::vec::fmadd(p * square, u, u);
  const Vec e = exp2_bounded(at::vec::clamp_min(Vec(-2.f * LOG2_E) * size, Vec(LOWEST_T)));
  const Vec far = (one - e) / (one + e) * Vec::blendv(one, Vec(-1.f), u < zero);
  return Vec::blendv(far, near, size < Vec(0.625f));
}

template <class T>
void forward(const T* row, int64_t n, float cap, float* out) {
  const Vec c(cap), inv(1 / cap);
  Vec a, b;
  int64_t i = 0;
  for (; i + STEP <= n; i += STEP) {
    load_pair(row + i, a, b);
    store_pair(out + i, c * tanh_of(a * inv), c * tanh_of(b * inv));
  }
  if (i < n) {
    load_rest(row + i, n - i, a, b);
    store_rest(out + i, n - i, c * tanh_of(a * inv), c * tanh_of(b * inv));
  }
}

template <class T>
void backward(const float* gradient, const float* z, int64_t n, float cap, T* out) {
  const Vec inv(1 / cap), one(1.f);
  const auto slope = [&](const Vec& g, const Vec& y) {
    const Vec t = y * inv;
    return g * ((one - t) * (one + t));
  };
  Vec a, b, y0, y1;
  int64_t i = 0;
  for (; i + STEP <= n; i += STEP) {
    load_pair(gradient + i, a, b);
    load_pair(z + i, y0, y1);
    store_pair(out + i, slope(a, y0), slope(b, y1));
  }
  if (i < n) {
    load_rest(gradient + i, n - i, a, b);
    load_rest(z + i, n - i, y0, y1);
    store_rest(out + i, n - i, slope(a, y0), slope(b, y1));
  }
}

void forward_f64(const double* row, int64_t n, double cap, double* out) {
  for (int64_t i = 0; i < n; i++) out[i] = cap * ::tanh(row[i] / cap);
}

void backward_f64(const double* gradient, const double* z, int64_t n, double cap, double* out) {
  for (int64_t i = 0; i < n; i++) out[i] = gradient[i] * ((1 - z[i] / cap) * (1 + z[i] / cap));
}

}  // namespace

extern const SoftcapKernels ELASTIC_ISA_SYMBOL(softcap_kernels){
    {forward<float>, backward<float>},
    {forward<c10::BFloat16>, backward<c10::BFloat16>},
    {forward<c10::Half>, backward<c10::Half>},
    {forward_f64, backward_f64}};

}  // namespace elastic::cpu
