// CUDA's rules about who may meet whom in an operator, and what makes its host wait.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <string>
#include <unordered_set>

#include "host_view.h"
#include "traffic.h"

namespace pretend {

using Names = std::unordered_set<std::string>;

// An operator with its arguments, while they lie on the interpreter's stack.
class Call {
 public:
  Call(const c10::OperatorHandle& op, torch::jit::Stack* stack)
      : op_(op), stack_(stack), first_(stack->size() - op.schema().arguments().size()) {}

  const std::string& name() const { return op_.schema().name(); }
  bool has_tag(at::Tag tag) const { return op_.hasTag(tag); }
  size_t size() const { return op_.schema().arguments().size(); }
  c10::IValue& value(size_t i) const { return (*stack_)[first_ + i]; }
  const c10::Argument& argument(size_t i) const { return op_.schema().arguments()[i]; }

  bool is_written(size_t i) const {
    const auto* alias = argument(i).alias_info();
    return alias != nullptr && alias->isWrite();
  }

  // Returns the argument of that name, or None where the operator has none.
  c10::IValue named(const std::string& wanted) const {
    const auto i = op_.schema().argumentIndexWithName(wanted);
    return i.has_value() ? value(*i) : c10::IValue();
  }

 private:
  const c10::OperatorHandle& op_;
  torch::jit::Stack* stack_;
  size_t first_;
};

// Calls `visit` with each tensor of an argument, whether it is one, a list, or a list with gaps.
template <typename Visit>
void each_tensor(const c10::IValue& value, Visit visit) {
  if (value.isTensor()) {
    visit(value.toTensor());
  } else if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorList()) visit(tensor);
  } else if (value.isOptionalTensorList()) {
    for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorList()) {
      if (tensor.has_value()) visit(*tensor);
    }
  }
}

// Replaces each tensor of an argument by what `change` returns for it.
template <typename Change>
void replace_tensors(c10::IValue& value, Change change) {
  if (value.isTensor()) {
    value = change(value.toTensor());
  } else if (value.isTensorList()) {
    c10::List<at::Tensor> changed;
    for (const at::Tensor& tensor : value.toTensorList()) changed.push_back(change(tensor));
    value = std::move(changed);
  } else if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> changed;
    for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorList()) {
      changed.push_back(tensor.has_value() ? std::optional(change(*tensor)) : std::nullopt);
    }
    value = std::move(changed);
  }
}

inline bool writes_by_index(const Call& call) {
  static const Names names = {"aten::_index_put_impl_", "aten::index_put_", "aten::index_put",
                              "aten::_unsafe_index_put"};
  return names.count(call.name()) > 0;
}

inline bool indexes(const Call& call) {
  static const Names names = {"aten::index", "aten::_unsafe_index"};
  return writes_by_index(call) || names.count(call.name()) > 0;
}

// CUDA's kernels take one number of the host's (a CPU tensor without dimensions) where they work
// elementwise, and in the operators that are listed here.
inline bool takes_host_number(const Call& call) {
  static const Names names = {"aten::fill_", "aten::masked_fill", "aten::masked_fill_",
                              "aten::index_fill", "aten::index_fill_"};
  return call.has_tag(at::Tag::pointwise) || writes_by_index(call) || names.count(call.name()) > 0;
}

// Raises where a generator of the device is to draw for a tensor of the host.
inline void check_generator(const Call& call) {
  if (call.named("generator").isNone()) return;
  each_tensor(call.value(0), [](const at::Tensor& tensor) {
    TORCH_CHECK(on_device(tensor), "Expected a '", tensor.device().type(),
                "' device type for generator but found '", kType, "'");
  });
}

// Raises where CUDA would: an operator's tensors lie on one device, except for one number of the
// host's and for indices of the host's into a tensor of the device.
inline void check_devices(const Call& call) {
  int numbers = 0;
  for (size_t i = 0; i < call.size(); ++i) {
    const bool is_index = indexes(call) && call.argument(i).name() == "indices";
    each_tensor(call.value(i), [&](const at::Tensor& tensor) {
      if (!tensor.defined() || on_device(tensor) || is_index) return;
      const bool number = tensor.dim() == 0 && !call.is_written(i) && takes_host_number(call);
      TORCH_CHECK(number && ++numbers == 1,
                  "Expected all tensors to be on the same device, but found at least two devices, ",
                  kDevice, " and ", tensor.device(), "! (when checking argument for argument ",
                  call.argument(i).name(), " in method ", call.name(), ")");
    });
  }
  TORCH_CHECK(!indexes(call) || on_device(call.value(0).toTensor()),
              "indices should be either on cpu or on the same device as the indexed tensor (cpu)");
}

inline bool is_mask(const at::Tensor& index) {
  return index.scalar_type() == at::kBool || index.scalar_type() == at::kByte;
}

// Notes what index_put costs: a mask has to be counted by the host, unless one number of the host's
// goes into all its places (torch then fills by the mask); indices of the host's are sent over.
inline void note_index_put(const Call& call) {
  const at::Tensor values = call.named("values").toTensor();
  const bool fills = !on_device(values) && values.numel() == 1;
  bool masked = false;
  each_tensor(call.named("indices"), [&](const at::Tensor& index) {
    if (!index.defined()) return;
    if (!on_device(index)) Traffic::instance().note_write(call.name());
    masked = masked || (on_device(index) && is_mask(index));
  });
  if (masked && !fills) Traffic::instance().note_read(call.name());
  if (!on_device(values) && !(masked && fills)) Traffic::instance().note_write(call.name());
}

// Whether CUDA's kernel waits for the device before it can go on. Operators that are made of
// others, such as `allclose` and `x[mask]`, are seen through those.
inline bool waits(const Call& call) {
  static const Names always = {
      "aten::_local_scalar_dense", "aten::nonzero",           "aten::masked_select",
      "aten::equal",               "aten::bincount",          "aten::_unique",
      "aten::_unique2",            "aten::unique_dim",        "aten::unique_consecutive",
      "aten::unique_dim_consecutive"};
  if (always.count(call.name()) > 0) return true;
  if (call.name() == "aten::repeat_interleave") return call.named("output_size").isNone();
  // Without replacement it first asks whether the probabilities are any.
  if (call.name() == "aten::multinomial") {
    return !call.named("replacement").toBool() || call.named("num_samples").toInt() == 1;
  }
  // Without a range it first asks for the smallest and largest value.
  if (call.name() == "aten::histc") {
    return call.named("min").toScalar().equal(call.named("max").toScalar().toDouble());
  }
  // A number that lies on the device is fetched, as these kernels take it from the host.
  if (call.name() == "aten::masked_fill_" || call.name() == "aten::index_fill_") {
    const c10::IValue value = call.named("value");
    return value.isTensor() && on_device(value.toTensor());
  }
  return false;
}

inline void note_traffic(const Call& call) {
  if (writes_by_index(call)) note_index_put(call);
  if (waits(call)) Traffic::instance().note_read(call.name());
}

}  // namespace pretend
