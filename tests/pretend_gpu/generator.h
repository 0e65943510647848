// A random generator of the device: another sequence than the CPU's for the same seed.
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/Generator.h>

#include <atomic>
#include <cstring>

#include "memory.h"

namespace pretend {

// CUDA draws with Philox and the CPU with a Mersenne twister: equal seeds give other numbers. A
// test that compares the device with the CPU draw by draw sets this to 0.
inline std::atomic<uint64_t>& salt() {
  static std::atomic<uint64_t> value{0x5eed};
  return value;
}

class DeviceGenerator final : public c10::GeneratorImpl {
 public:
  explicit DeviceGenerator(uint64_t seed = c10::default_rng_seed_val)
      : c10::GeneratorImpl(kDevice, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)),
        host_(at::detail::createCPUGenerator(seed ^ salt())) {}

  // The generator that CPU kernels draw from in this one's place.
  const at::Generator& host() const { return host_; }

  void set_current_seed(uint64_t seed) override { host_.set_current_seed(seed ^ salt()); }
  uint64_t current_seed() const override { return host_.current_seed() ^ salt(); }
  uint64_t seed() override { return host_.seed() ^ salt(); }

  void set_offset(uint64_t /*offset*/) override { TORCH_CHECK(false, "no offsets here"); }
  uint64_t get_offset() const override { TORCH_CHECK(false, "no offsets here"); }

  // A state is the host's and some bytes more: as with CUDA's, neither device takes the other's.
  void set_state(const c10::TensorImpl& state) override {
    at::detail::check_rng_state(state);
    const auto host = host_.unsafeGetGeneratorImpl()->get_state();
    TORCH_CHECK(state.numel() == host->numel() + kMark, "RNG state is wrong size");
    std::memcpy(host->mutable_data(), state.data(), host->numel());
    host_.unsafeGetGeneratorImpl()->set_state(*host);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    const auto host = host_.unsafeGetGeneratorImpl()->get_state();
    const at::TensorBase state = at::detail::empty_cpu({host->numel() + kMark}, at::kByte);
    std::memset(state.mutable_data_ptr(), 0, state.numel());
    std::memcpy(state.mutable_data_ptr(), host->data(), host->numel());
    return state.getIntrusivePtr();
  }

 private:
  static constexpr int64_t kMark = 16;

  explicit DeviceGenerator(at::Generator host) : DeviceGenerator() { host_ = std::move(host); }

  DeviceGenerator* clone_impl() const override { return new DeviceGenerator(host_.clone()); }

  at::Generator host_;
};

inline const at::Generator& default_generator() {
  static const auto* generator = new at::Generator(at::make_generator<DeviceGenerator>());
  return *generator;
}

}  // namespace pretend
