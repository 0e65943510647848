// The device's memory: CPU memory, counted and capped as CUDA's caching allocator does it.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

namespace pretend {

constexpr c10::DeviceType kType = c10::DeviceType::PrivateUse1;
inline const c10::Device kDevice(kType, 0);

constexpr int64_t kMiB = int64_t{1} << 20;
// What a CUDA context takes beside the tensors; the driver counts it, torch does not.
constexpr int64_t kContext = 500 * kMiB;
// CUDA's caching allocator hands out multiples of this many bytes.
constexpr int64_t kBlock = 512;

inline void check_device(c10::Device device) {
  TORCH_CHECK(device.type() == kType && device.index() <= 0, "invalid device ordinal: ", device);
}

// Allocates blocks and keeps two counts of them. `allocated` is what tensors hold. `reserved` is
// what the process holds of the device: it grows with `allocated` and falls in emptyCache() alone,
// because blocks that tensors give back stay in the cache.
class Memory final : public c10::DeviceAllocator {
 public:
  static Memory& instance() {
    // Never destroyed: tensors that outlive main() still give their blocks back.
    static auto* memory = new Memory();
    return *memory;
  }

  c10::DataPtr allocate(size_t bytes) override {
    initialize();
    if (bytes == 0) return {nullptr, nullptr, &Memory::release, kDevice};
    const int64_t size = (static_cast<int64_t>(bytes) + kBlock - 1) / kBlock * kBlock;
    std::lock_guard<std::mutex> guard(mutex_);
    reserve(size);
    void* block = std::aligned_alloc(kBlock, size);
    TORCH_CHECK(block != nullptr, "the host has no ", size, " bytes for the pretended device");
    allocated_.increase(size);
    sizes_.emplace(block, size);
    return {block, block, &Memory::release, kDevice};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &Memory::release; }

  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }

  // Whether something has used the device in this process. A fork inherits no CUDA context.
  bool initialized() override { return owner_ == getpid(); }

  bool forked() const { return owner_ != 0 && owner_ != getpid(); }

  // Whether the process may see the device: CUDA's variable, by which Ray and this project hide
  // GPUs, has no effect once the device is initialised.
  bool visible() {
    const char* shown = std::getenv("CUDA_VISIBLE_DEVICES");
    return initialized() || shown == nullptr || (*shown != '\0' && std::string(shown) != "-1");
  }

  void initialize() {
    TORCH_CHECK(visible(), "No pretended GPUs are available");
    TORCH_CHECK(!forked(), "Cannot re-initialize the pretended GPU in forked subprocess. To use it ",
                "with multiprocessing, you must use the 'spawn' start method");
    owner_ = getpid();
  }

  void emptyCache(c10::MempoolId_t /*pool*/) override {
    std::lock_guard<std::mutex> guard(mutex_);
    reserved_.decrease(reserved_.current - allocated_.current);
  }

  // There is one stream, so that no block waits for another one.
  void recordStream(const c10::DataPtr& /*block*/, c10::Stream /*stream*/) override {}

  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex index) override {
    check_index(index);
    std::lock_guard<std::mutex> guard(mutex_);
    c10::CachingDeviceAllocator::DeviceStats stats;
    stats.allocated_bytes[0] = allocated_;
    stats.active_bytes[0] = allocated_;
    stats.reserved_bytes[0] = reserved_;
    return stats;
  }

  void resetAccumulatedStats(c10::DeviceIndex index) override {
    check_index(index);
    std::lock_guard<std::mutex> guard(mutex_);
    allocated_.reset_accumulated();
    reserved_.reset_accumulated();
  }

  void resetPeakStats(c10::DeviceIndex index) override {
    check_index(index);
    std::lock_guard<std::mutex> guard(mutex_);
    allocated_.reset_peak();
    reserved_.reset_peak();
  }

  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex index) override {
    initialize();
    check_index(index);
    std::lock_guard<std::mutex> guard(mutex_);
    return {static_cast<size_t>(total_ - kContext - reserved_.current),
            static_cast<size_t>(total_)};
  }

  // As torch.cuda.set_per_process_memory_fraction: a share of the whole, the context not counted.
  void set_fraction(double fraction) {
    std::lock_guard<std::mutex> guard(mutex_);
    allowed_ = static_cast<int64_t>(fraction * static_cast<double>(total_));
  }

 private:
  Memory() : total_(total_bytes()), allowed_(total_) {}

  static int64_t total_bytes() {
    const char* mib = std::getenv("PRETEND_GPU_MIB");
    return (mib == nullptr ? 16'000 : std::stoll(mib)) * kMiB;
  }

  static void release(void* block) {
    if (block == nullptr) return;
    Memory& memory = instance();
    std::lock_guard<std::mutex> guard(memory.mutex_);
    const auto entry = memory.sizes_.find(block);
    TORCH_INTERNAL_ASSERT(entry != memory.sizes_.end(), "this block is not of the device");
    memory.allocated_.decrease(entry->second);
    memory.sizes_.erase(entry);
    std::free(block);
  }

  // The words of CUDA's allocator, which has no statistics before it is initialised.
  void check_index(c10::DeviceIndex index) {
    TORCH_CHECK(initialized() && index == 0,
                "Invalid device argument ", static_cast<int>(index), ": did you call init?");
  }

  // Takes what the cache lacks from the device. Before it fails, CUDA's allocator gives its cache
  // back, so that only what tensors hold can stand in the way.
  void reserve(int64_t size) {
    const int64_t wanted = allocated_.current + size;
    const int64_t most = std::min(allowed_, total_ - kContext);
    TORCH_CHECK_WITH(
        OutOfMemoryError, wanted <= most, "pretend out of memory. Tried to allocate ", mib(size),
        ". GPU 0 has a total capacity of ", mib(total_), " of which ",
        mib(total_ - kContext - reserved_.current), " is free. ", mib(allowed_),
        " allowed; of the allocated memory ", mib(allocated_.current),
        " is allocated by PyTorch.");
    if (wanted > reserved_.current) reserved_.increase(wanted - reserved_.current);
  }

  static std::string mib(int64_t bytes) {
    return std::to_string(bytes / kMiB) + "." + std::to_string(bytes % kMiB * 10 / kMiB) + " MiB";
  }

  std::mutex mutex_;
  pid_t owner_ = 0;
  const int64_t total_;
  int64_t allowed_;
  c10::CachingAllocator::Stat allocated_;
  c10::CachingAllocator::Stat reserved_;
  std::unordered_map<void*, int64_t> sizes_;
};

}  // namespace pretend
