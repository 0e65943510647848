// The device's tensors as CPU kernels see them for the length of one call.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>

#include <cstring>
#include <vector>

#include "memory.h"

namespace pretend {

inline const c10::DispatchKeySet kDeviceKeys(c10::DispatchKey::PrivateUse1);
inline const c10::DispatchKeySet kHostKeys(c10::DispatchKey::CPU);

inline bool on_device(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == kType;
}

// Makes a tensor over a storage, with the shape and flags of another one.
inline at::Tensor tensor_over(c10::Storage storage, c10::DispatchKeySet keys,
                              const at::Tensor& like) {
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), keys, like.dtype());
  auto* impl = tensor.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  if (like.is_conj()) impl->_set_conj(true);
  if (like.is_neg()) impl->_set_neg(true);
  return tensor;
}

// Moves a result that a CPU kernel has made into the device's memory, strides and all.
inline at::Tensor upload(const at::Tensor& host) {
  TORCH_CHECK(host.layout() == c10::kStrided, "the pretended device has no layout ", host.layout());
  at::Tensor own = at::detail::empty_strided_generic(
      host.sizes(), host.strides(), &Memory::instance(), kDeviceKeys, host.scalar_type());
  const size_t bytes = own.storage().nbytes();
  if (bytes > 0) std::memcpy(own.storage().mutable_data(), host.const_data_ptr(), bytes);
  return own;
}

// Lends the device's memory to CPU tensors, and carries back what a kernel did beyond writing into
// it. Tensors that share a storage on the device share one here: a kernel sees who aliases whom,
// and a view that it returns is known by its storage.
class HostView {
 public:
  // Returns the CPU tensor over the memory of a device's tensor; others pass.
  at::Tensor host(const at::Tensor& own) {
    if (!on_device(own)) return own;
    for (const auto& lent : tensors_) {
      if (lent.own.is_same(own)) return lent.host;
    }
    tensors_.push_back({own, tensor_over(host(own.storage()), kHostKeys, own)});
    return tensors_.back().host;
  }

  c10::Storage host(const c10::Storage& own) {
    if (own.device_type() != kType) return own;
    for (const auto& lent : storages_) {
      if (lent.own.is_alias_of(own)) return lent.host;
    }
    // Kernels may resize it: it then takes CPU memory of its own, which settle() notices.
    const c10::Storage lent(c10::Storage::use_byte_size_t(), own.nbytes(),
                            c10::DataPtr(own.mutable_data(), c10::Device(c10::DeviceType::CPU)),
                            c10::GetCPUAllocator(), /*resizable=*/true);
    storages_.push_back({own, lent, own.data(), own.nbytes()});
    return lent;
  }

  // Follows a kernel that has resized, reshaped or re-seated what it was lent.
  void settle() {
    for (auto& lent : storages_) {
      if (lent.host.data() != lent.data || lent.host.nbytes() != lent.bytes) refill(lent);
    }
    for (auto& lent : tensors_) follow(lent.own, lent.host);
  }

  // Returns the device's tensor for a result: one that was lent, a view of one, or a new one.
  at::Tensor own(const at::Tensor& result) const {
    if (!result.defined()) return result;
    for (const auto& lent : tensors_) {
      if (lent.host.is_same(result)) return lent.own;
    }
    const c10::Storage* storage = lender(result.storage());
    if (storage != nullptr) return tensor_over(*storage, kDeviceKeys, result);
    return upload(result);
  }

 private:
  struct LentTensor {
    at::Tensor own;
    at::Tensor host;
  };
  struct LentStorage {
    c10::Storage own;
    c10::Storage host;
    const void* data;
    size_t bytes;
  };

  const c10::Storage* lender(const c10::Storage& host) const {
    for (const auto& lent : storages_) {
      if (lent.host.is_alias_of(host)) return &lent.own;
    }
    return nullptr;
  }

  static void refill(LentStorage& lent) {
    const size_t bytes = lent.host.nbytes();
    c10::DataPtr fresh = Memory::instance().allocate(bytes);
    if (bytes > 0) std::memcpy(fresh.get(), lent.host.data(), bytes);
    lent.own.set_data_ptr_noswap(std::move(fresh));
    lent.own.set_nbytes(bytes);
  }

  void follow(const at::Tensor& own, const at::Tensor& host) const {
    auto* impl = own.unsafeGetTensorImpl();
    const c10::Storage* storage = lender(host.storage());
    TORCH_CHECK(storage != nullptr, "a CPU kernel has moved a tensor to memory of the host");
    if (!storage->is_alias_of(own.storage())) impl->set_storage_keep_dtype(*storage);
    const bool same = own.sizes().equals(host.sizes()) && own.strides().equals(host.strides()) &&
                      own.storage_offset() == host.storage_offset();
    if (!same) impl->set_sizes_and_strides(host.sizes(), host.strides(), host.storage_offset());
  }

  std::vector<LentTensor> tensors_;
  std::vector<LentStorage> storages_;
};

}  // namespace pretend
