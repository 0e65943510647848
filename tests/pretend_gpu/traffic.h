// A count of what passes between the host and the device, by operator.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace pretend {

// Called at each passage with "read" or "write" and the operator's name.
using Listener = void (*)(const char* kind, const char* name);

class Traffic {
 public:
  using Counts = std::map<std::string, int64_t>;

  static Traffic& instance() {
    static auto* traffic = new Traffic();
    return *traffic;
  }

  // The host waits until the device has computed what it asks for.
  void note_read(const std::string& name) { note("read", name, reads_); }

  // Bytes go from the host to the device.
  void note_write(const std::string& name) { note("write", name, writes_); }

  Counts reads() {
    std::lock_guard<std::mutex> guard(mutex_);
    return reads_;
  }

  Counts writes() {
    std::lock_guard<std::mutex> guard(mutex_);
    return writes_;
  }

  void listen(Listener listener) {
    std::lock_guard<std::mutex> guard(mutex_);
    listener_ = listener;
  }

 private:
  void note(const char* kind, const std::string& name, Counts& counts) {
    Listener listener = nullptr;
    {
      std::lock_guard<std::mutex> guard(mutex_);
      ++counts[name];
      listener = listener_;
    }
    // Outside the lock: the listener is Python's and takes the interpreter's lock.
    if (listener != nullptr) listener(kind, name.c_str());
  }

  std::mutex mutex_;
  Counts reads_;
  Counts writes_;
  Listener listener_ = nullptr;
};

}  // namespace pretend
