// Mixed precision: the operators that CUDA's autocast casts, and how.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "rules.h"

// Declared in ATen/autocast_mode.h, which would double the time that this takes to compile.
namespace at::autocast {
TORCH_API at::ScalarType get_autocast_dtype(at::DeviceType device_type);
TORCH_API at::Tensor cached_cast(at::ScalarType to_type, const at::Tensor& tensor,
                                 at::DeviceType device_type);
}  // namespace at::autocast

namespace pretend {

// The lists of ATen/autocast_mode.h; test_device.py compares them with the installed header.
// AT_FORALL_LOWER_PRECISION_FP: computed in the lower precision, where tensor cores are.
constexpr const char* kLowerPrecision[] = {
    "_convolution.deprecated", "_convolution", "conv1d", "conv2d", "conv3d", "conv_tbc",
    "conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input", "convolution", "prelu",
    "addmm", "addmv", "addr", "matmul", "einsum", "mm", "mv", "linalg_vecdot", "linear", "addbmm",
    "baddbmm", "bmm", "chain_matmul", "linalg_multi_dot", "_thnn_fused_lstm_cell",
    "_thnn_fused_gru_cell", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
    "_scaled_dot_product_flash_attention", "scaled_dot_product_attention"};

// AT_FORALL_FP32, and the two norms of AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE.
constexpr const char* kSinglePrecision[] = {
    "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p",
    "reciprocal", "rsqrt", "sinh", "tan", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar",
    "softplus", "layer_norm", "native_layer_norm", "rms_norm", "group_norm", "frobenius_norm.dim",
    "nuclear_norm", "nuclear_norm.dim", "cosine_similarity", "poisson_nll_loss",
    "cosine_embedding_loss", "nll_loss", "nll_loss2d", "hinge_embedding_loss", "kl_div", "l1_loss",
    "smooth_l1_loss", "huber_loss", "mse_loss", "margin_ranking_loss", "multilabel_margin_loss",
    "soft_margin_loss", "triplet_margin_loss", "multi_margin_loss",
    "binary_cross_entropy_with_logits", "dist", "pdist", "cdist", "renorm", "logsumexp",
    "upsample_nearest1d", "_upsample_nearest_exact1d", "upsample_nearest2d",
    "_upsample_nearest_exact2d", "upsample_nearest3d", "_upsample_nearest_exact3d",
    "upsample_linear1d", "upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_trilinear3d",
    "upsample_bicubic2d", "_upsample_bicubic2d_aa", "norm.Scalar", "norm.ScalarOpt_dim"};

// AT_FORALL_FP32_SET_OPT_DTYPE: given their `dtype` argument, where the caller gave none.
constexpr const char* kSinglePrecisionResult[] = {
    "prod", "prod.dim_int", "softmax.int", "log_softmax.int", "cumprod", "cumsum",
    "linalg_vector_norm", "linalg_matrix_norm", "linalg_matrix_norm.str_ord", "sum",
    "sum.dim_IntList"};

// AT_FORALL_PROMOTE: computed in the widest precision among their tensors.
constexpr const char* kWidest[] = {"addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot",
                                   "vdot", "grid_sampler", "index_put", "tensordot",
                                   "scatter_add"};

// Whether autocast may touch it: floating point, but never double.
inline bool is_castable(const at::Tensor& tensor) {
  return on_device(tensor) && tensor.is_floating_point() && tensor.scalar_type() != at::kDouble;
}

inline void cast_tensors(const Call& call, at::ScalarType to) {
  for (size_t i = 0; i < call.size(); ++i) {
    replace_tensors(call.value(i), [&](const at::Tensor& tensor) {
      return is_castable(tensor) ? at::autocast::cached_cast(to, tensor, kType) : tensor;
    });
  }
}

inline void in_lower_precision(const Call& call) {
  cast_tensors(call, at::autocast::get_autocast_dtype(kType));
}

inline void in_single_precision(const Call& call) { cast_tensors(call, at::kFloat); }

inline void with_single_precision_result(const Call& call) {
  if (!is_castable(call.value(0).toTensor())) return;
  for (size_t i = 0; i < call.size(); ++i) {
    c10::IValue& value = call.value(i);
    if (call.argument(i).name() == "dtype" && value.isNone()) value = at::kFloat;
  }
}

inline void in_widest_precision(const Call& call) {
  at::ScalarType widest = at::autocast::get_autocast_dtype(kType);
  for (size_t i = 0; i < call.size(); ++i) {
    each_tensor(call.value(i), [&](const at::Tensor& tensor) {
      if (is_castable(tensor) && tensor.scalar_type() == at::kFloat) widest = at::kFloat;
    });
  }
  cast_tensors(call, widest);
}

// The kernel of an operator under autocast: prepare its arguments, then call it without autocast.
template <void (*prepare)(const Call&)>
void autocast(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard off(c10::DispatchKey::AutocastPrivateUse1);
  prepare(Call(op, stack));
  op.callBoxed(stack);
}

inline void refuse(const Call& call) {
  TORCH_CHECK(false, call.name(), " and torch.nn.BCELoss are unsafe to autocast. Use ",
              "binary_cross_entropy_with_logits or torch.nn.BCEWithLogitsLoss.");
}

template <void (*prepare)(const Call&), size_t n>
void register_autocast(torch::Library& library, const char* const (&names)[n]) {
  for (const char* name : names) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&autocast<prepare>>());
  }
}

}  // namespace pretend
