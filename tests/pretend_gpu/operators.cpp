// The device's operators: each checks CUDA's rules and then runs the CPU's kernel on its memory.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/copy.h>
#include <torch/library.h>

#include <memory>
#include <vector>

#include "autocast.h"
#include "generator.h"
#include "host_view.h"
#include "rules.h"
#include "traffic.h"

namespace pretend {
namespace {

// Lets the CPU's global generator stand in for the device's during one operator. Some, such as
// `native_dropout`, draw from the global one of their device without having it as an argument.
class GlobalDraws {
 public:
  GlobalDraws() : cpu_(at::detail::getDefaultCPUGenerator()), before_(cpu_.clone()) {
    move(device(), cpu_);
  }
  ~GlobalDraws() {
    move(cpu_, device());
    move(before_, cpu_);
  }
  GlobalDraws(const GlobalDraws&) = delete;
  GlobalDraws& operator=(const GlobalDraws&) = delete;

 private:
  static at::Generator device() { return default_generator().get<DeviceGenerator>()->host(); }

  static void move(const at::Generator& from, const at::Generator& to) {
    auto* source = from.get<at::CPUGeneratorImpl>();
    auto* target = to.get<at::CPUGeneratorImpl>();
    target->set_engine(source->engine());
    target->set_next_float_normal_sample(source->next_float_normal_sample());
    target->set_next_double_normal_sample(source->next_double_normal_sample());
  }

  at::Generator cpu_;
  at::Generator before_;
};

at::Generator host_generator(const c10::IValue& value) {
  const at::Generator generator = value.isNone() ? default_generator() : value.toGenerator();
  TORCH_CHECK(generator.device().type() == kType, "Expected a '", kType,
              "' device type for generator but found '", generator.device().type(), "'");
  return generator.get<DeviceGenerator>()->host();
}

// Puts in the host's place of everything that belongs to the device. Returns whether the operator
// has a generator among its arguments.
bool lend_arguments(const Call& call, HostView& view) {
  bool has_generator = false;
  for (size_t i = 0; i < call.size(); ++i) {
    c10::IValue& value = call.value(i);
    replace_tensors(value, [&](const at::Tensor& tensor) { return view.host(tensor); });
    if (call.argument(i).name() == "generator") {
      value = host_generator(value);
      has_generator = true;
    } else if (value.isStorage()) {
      value = view.host(value.toStorage());
    } else if (value.isDevice() && value.toDevice().type() == kType) {
      value = c10::Device(c10::DeviceType::CPU);
    }
  }
  return has_generator;
}

void take_results(const c10::OperatorHandle& op, torch::jit::Stack* stack, const HostView& view) {
  const size_t count = op.schema().returns().size();
  for (size_t i = stack->size() - count; i < stack->size(); ++i) {
    replace_tensors((*stack)[i], [&](const at::Tensor& tensor) { return view.own(tensor); });
  }
}

// Runs the CPU's kernel of an operator on the device's memory, below autograd and autocast.
void run_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const Call call(op, stack);
  HostView view;
  const bool has_generator = lend_arguments(call, view);
  {
    const c10::impl::ExcludeDispatchKeyGuard below(c10::autograd_dispatch_keyset_with_ADInplaceOrView |
                                                   c10::autocast_dispatch_keyset);
    std::unique_ptr<GlobalDraws> draws;
    if (!has_generator && call.has_tag(at::Tag::nondeterministic_seeded)) {
      draws = std::make_unique<GlobalDraws>();
    }
    op.redispatchBoxed(kHostKeys, stack);
  }
  view.settle();
  take_results(op, stack, view);
}

// The kernel of every operator that has none below.
void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const Call call(op, stack);
  check_generator(call);
  check_devices(call);
  note_traffic(call);
  run_on_host(op, stack);
}

// Fresh memory is no zeros: every float is NaN, and an integer is nothing that anyone expects.
at::Tensor poisoned(at::Tensor tensor) {
  const int byte = tensor.is_floating_point() ? 0xff : 0xcb;
  const size_t bytes = tensor.storage().nbytes();
  if (bytes > 0) std::memset(tensor.storage().mutable_data(), byte, bytes);
  return tensor;
}

void check_options(std::optional<at::Layout> layout, std::optional<at::Device> device,
                   std::optional<bool> pinned) {
  check_device(device.value_or(kDevice));
  TORCH_CHECK(layout.value_or(at::kStrided) == at::kStrided, "the pretended device is dense only");
  TORCH_CHECK(!pinned.value_or(false), "Only dense CPU tensors can be pinned");
}

at::Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout> layout, std::optional<at::Device> device,
                 std::optional<bool> pinned, std::optional<at::MemoryFormat> format) {
  check_options(layout, device, pinned);
  return poisoned(at::detail::empty_generic(size, &Memory::instance(), kDeviceKeys,
                                            c10::dtype_or_default(dtype), format));
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride,
                         std::optional<at::ScalarType> dtype, std::optional<at::Layout> layout,
                         std::optional<at::Device> device, std::optional<bool> pinned) {
  check_options(layout, device, pinned);
  return poisoned(at::detail::empty_strided_generic(size, stride, &Memory::instance(), kDeviceKeys,
                                                    c10::dtype_or_default(dtype)));
}

// Both ways between host and device, and within the device. The host does not wait for a copy out
// that it says it will not wait for.
at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  if (on_device(from) && !on_device(to) && !non_blocking) Traffic::instance().note_read("aten::copy_");
  if (!on_device(from) && on_device(to)) Traffic::instance().note_write("aten::copy_");
  const c10::impl::ExcludeDispatchKeyGuard below(c10::autograd_dispatch_keyset_with_ADInplaceOrView);
  HostView view;
  view.host(to).copy_(view.host(from));
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  to.resize_(from.sizes());
  return copy_from(from, to, false);
}

c10::OperatorHandle operator_named(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
}

// torch asks a device of its own for these two in the place of CUDA's convolutions.
void convolution(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const Call call(op, stack);
  const at::Tensor input = call.value(0).toTensor();
  const at::Tensor weight = call.value(1).toTensor();
  check_devices(call);
  TORCH_CHECK(input.scalar_type() == weight.scalar_type(), "Input type (", input.toString(),
              ") and weight type (", weight.toString(), ") should be the same");
  static const auto on_host = operator_named("aten::convolution");
  run_on_host(on_host, stack);
}

void convolution_backward(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const Call call(op, stack);
  check_devices(call);
  // The CPU's operator has one argument more, the bias's sizes, behind gradient, input and weight.
  const at::Tensor weight = call.value(2).toTensor();
  const bool transposed = call.named("transposed").toBool();
  const int64_t groups = call.named("groups").toInt();
  const std::vector<int64_t> bias = {transposed ? weight.size(1) * groups : weight.size(0)};
  const auto first = stack->end() - static_cast<int64_t>(call.size());
  stack->insert(first + 3, c10::IValue(bias));
  static const auto on_host = operator_named("aten::convolution_backward");
  run_on_host(on_host, stack);
}

template <void (*kernel)(const c10::OperatorHandle&, torch::jit::Stack*)>
torch::CppFunction boxed() {
  return torch::CppFunction::makeFromBoxedFunction<kernel>();
}

c10::Dict<std::string, int64_t> as_dict(const Traffic::Counts& counts) {
  c10::Dict<std::string, int64_t> dict;
  for (const auto& [name, count] : counts) dict.insert(name, count);
  return dict;
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) { library.fallback(boxed<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("_copy_from", &copy_from);
  library.impl("_copy_from_and_resize", &copy_from_and_resize);
  library.impl("convolution_overrideable", boxed<&convolution>());
  library.impl("convolution_backward_overrideable", boxed<&convolution_backward>());
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, library) {
  register_autocast<&in_lower_precision>(library, kLowerPrecision);
  register_autocast<&in_single_precision>(library, kSinglePrecision);
  register_autocast<&with_single_precision_result>(library, kSinglePrecisionResult);
  register_autocast<&in_widest_precision>(library, kWidest);
  constexpr const char* banned[] = {"binary_cross_entropy"};
  register_autocast<&refuse>(library, banned);
}

// What install.py and counting.py call; torch.accelerator reaches the rest.
TORCH_LIBRARY(pretend, library) {
  library.def("initialize", [] { Memory::instance().initialize(); });
  library.def("visible", [] { return Memory::instance().visible(); });
  library.def("initialized", [] { return Memory::instance().initialized(); });
  library.def("forked", [] { return Memory::instance().forked(); });
  library.def("default_generator", [] { return default_generator(); });
  library.def("set_salt", [](int64_t value) { salt() = static_cast<uint64_t>(value); });
  library.def("set_fraction",
              [](double fraction) { Memory::instance().set_fraction(fraction); });
  library.def("reads", [] { return as_dict(Traffic::instance().reads()); });
  library.def("writes", [] { return as_dict(Traffic::instance().writes()); });
}

}  // namespace pretend

// Called through ctypes, which makes a C function of a Python one.
extern "C" void pretend_listen(pretend::Listener listener) {
  pretend::Traffic::instance().listen(listener);
}
