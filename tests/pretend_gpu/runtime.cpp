// What torch asks of a device besides its kernels: memory, streams, generators and their registry.
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/core/Storage.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <set>

#include "generator.h"
#include "memory.h"

namespace pretend {
namespace {

c10::DeviceIndex device_count() { return Memory::instance().visible() ? 1 : 0; }

// One device with one stream, on which nothing is ever pending.
class Guard final : public c10::impl::DeviceGuardImplInterface {
 public:
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device device) const override {
    check_device(device);
    return kDevice;
  }
  c10::Device getDevice() const override { return kDevice; }
  void setDevice(c10::Device device) const override { check_device(device); }
  void uncheckedSetDevice(c10::Device /*device*/) const noexcept override {}
  c10::DeviceIndex deviceCount() const noexcept override { return device_count(); }

  c10::Stream getStream(c10::Device /*device*/) const override { return stream(); }
  c10::Stream getDefaultStream(c10::Device /*device*/) const override { return stream(); }
  c10::Stream getNewStream(c10::Device /*device*/, int /*priority*/) const override {
    return stream();
  }
  c10::Stream getStreamFromGlobalPool(c10::Device /*device*/, bool /*high*/) const override {
    return stream();
  }
  c10::Stream exchangeStream(c10::Stream /*next*/) const override { return stream(); }
  bool queryStream(const c10::Stream& /*stream*/) const override { return true; }
  void synchronizeStream(const c10::Stream& /*stream*/) const override {}
  void synchronizeDevice(c10::DeviceIndex /*index*/) const override {}

  void record(void** /*event*/, const c10::Stream& /*stream*/, c10::DeviceIndex /*index*/,
              c10::EventFlag /*flag*/) const override {}
  void block(void* /*event*/, const c10::Stream& /*stream*/) const override {}
  bool queryEvent(void* /*event*/) const override { return true; }
  void synchronizeEvent(void* /*event*/) const override {}

 private:
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
};

// Pinned memory is plain memory whose address is remembered.
class PinnedMemory final : public c10::Allocator {
 public:
  static PinnedMemory& instance() {
    static auto* memory = new PinnedMemory();
    return *memory;
  }

  c10::DataPtr allocate(size_t bytes) override {
    void* block = c10::alloc_cpu(bytes);
    std::lock_guard<std::mutex> guard(mutex_);
    if (block != nullptr) blocks_.insert(block);
    return {block, block, &PinnedMemory::release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &PinnedMemory::release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }

  bool holds(const void* block) {
    std::lock_guard<std::mutex> guard(mutex_);
    return blocks_.count(const_cast<void*>(block)) > 0;
  }

 private:
  static void release(void* block) {
    std::lock_guard<std::mutex> guard(instance().mutex_);
    instance().blocks_.erase(block);
    c10::free_cpu(block);
  }

  std::mutex mutex_;
  std::set<void*> blocks_;
};

class Hooks final : public at::PrivateUse1HooksInterface {
 public:
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return device_count() > 0; }
  void init() const override { Memory::instance().initialize(); }
  bool hasPrimaryContext(c10::DeviceIndex /*index*/) const override {
    return Memory::instance().initialized();
  }

  c10::DeviceIndex deviceCount() const override { return device_count(); }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex index) const override { check_device({kType, index}); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    check_device({kType, index});
    return 0;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override {
    return exchangeDevice(index);
  }
  c10::Device getDeviceFromPtr(void* /*data*/) const override { return kDevice; }

  const at::Generator& getDefaultGenerator(c10::DeviceIndex /*index*/) const override {
    return default_generator();
  }
  at::Generator getNewGenerator(c10::DeviceIndex /*index*/) const override {
    return at::make_generator<DeviceGenerator>();
  }

  at::Allocator* getPinnedMemoryAllocator() const override { return &PinnedMemory::instance(); }
  bool isPinnedPtr(const void* data) const override {
    return PinnedMemory::instance().holds(data);
  }

  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    c10::DataPtr fresh = Memory::instance().allocate(bytes);
    const size_t kept = std::min(bytes, storage.nbytes());
    if (kept > 0) std::memcpy(fresh.get(), storage.data(), kept);
    storage.set_data_ptr_noswap(std::move(fresh));
    storage.set_nbytes(bytes);
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Registration {
  Registration() {
    c10::SetAllocator(kType, &Memory::instance());
    static Hooks hooks;
    at::RegisterPrivateUse1HooksInterface(&hooks);
  }
} registration;

}  // namespace
}  // namespace pretend
