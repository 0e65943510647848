// A random generator of the device: another sequence than the CPU's for the same seed.
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Generator.h>

#include "memory.h"

namespace pretend {

class DeviceGenerator final : public c10::GeneratorImpl {
 public:
  explicit DeviceGenerator(uint64_t seed = c10::default_rng_seed_val)
      : c10::GeneratorImpl(kDevice, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)),
        host_(at::detail::createCPUGenerator(seed ^ kSalt)) {}

  // The generator that CPU kernels draw from in this one's place.
  const at::Generator& host() const { return host_; }

  void set_current_seed(uint64_t seed) override { host_.set_current_seed(seed ^ kSalt); }
  uint64_t current_seed() const override { return host_.current_seed() ^ kSalt; }
  uint64_t seed() override { return host_.seed() ^ kSalt; }

  void set_offset(uint64_t /*offset*/) override { TORCH_CHECK(false, "no offsets here"); }
  uint64_t get_offset() const override { TORCH_CHECK(false, "no offsets here"); }

  void set_state(const c10::TensorImpl& state) override {
    host_.unsafeGetGeneratorImpl()->set_state(state);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return host_.unsafeGetGeneratorImpl()->get_state();
  }

 private:
  // CUDA draws with Philox and the CPU with a Mersenne twister: equal seeds give other numbers.
  static constexpr uint64_t kSalt = 0x5eed;

  explicit DeviceGenerator(at::Generator host) : DeviceGenerator() { host_ = std::move(host); }

  DeviceGenerator* clone_impl() const override { return new DeviceGenerator(host_.clone()); }

  at::Generator host_;
};

inline const at::Generator& default_generator() {
  static const auto* generator = new at::Generator(at::make_generator<DeviceGenerator>());
  return *generator;
}

}  // namespace pretend
