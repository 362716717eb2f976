#include "support/virtual_machine.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

namespace holdfast::test {
namespace {

constexpr const char* kDevice = "/dev/kvm";

// SDM vol. 3A, 2.5 and 2.2.1.
constexpr std::uint64_t kCr0Protected = 1u << 0, kCr0ExtensionType = 1u << 4,
                        kCr0NumericError = 1u << 5, kCr0WriteProtect = 1u << 16,
                        kCr0Paging = 1u << 31;
constexpr std::uint64_t kCr4PhysicalAddressExtension = 1u << 5, kCr4FiveLevels = 1u << 12;
constexpr std::uint64_t kEferSystemCall = 1u << 0, kEferLongMode = 1u << 8,
                        kEferLongModeActive = 1u << 10, kEferNoExecute = 1u << 11;
// SDM vol. 2A, CPUID: leaf 7, ECX.
constexpr std::uint32_t kCpuidFiveLevels = 1u << 16;

template <typename Argument>
int control(const FileDescriptor& file, unsigned long request, Argument argument,
            const char* name) {
    const int result = ioctl(file.number(), request, argument);
    if (result < 0) throw std::system_error(errno, std::generic_category(), name);
    return result;
}

FileDescriptor open_device() { return FileDescriptor(open(kDevice, O_RDWR | O_CLOEXEC)); }

// KVM's list of processor features: a head and entries. The kernel's own `kvm_cpuid2` ends in a
// flexible array that its macro makes one byte too long in C++, and with it both the layout and the
// requests' numbers, which encode the size, come out wrong.
struct FeatureList {
    static constexpr std::uint32_t kMax = 256;

    std::uint32_t count = kMax;
    std::uint32_t padding = 0;
    std::array<kvm_cpuid_entry2, kMax> entries{};

    bool has_five_levels() const {
        for (const kvm_cpuid_entry2& entry : std::span(entries).first(count))
            if (entry.function == 7 && entry.index == 0) return entry.ecx & kCpuidFiveLevels;
        return false;
    }
};
static_assert(offsetof(FeatureList, entries) == 8);
constexpr unsigned long kGetSupportedFeatures = _IOWR(KVMIO, 0x05, std::uint64_t),
                        kSetFeatures = _IOW(KVMIO, 0x90, std::uint64_t);

FeatureList supported_features(const FileDescriptor& kvm) {
    FeatureList features;
    control(kvm, kGetSupportedFeatures, &features, "KVM_GET_SUPPORTED_CPUID");
    return features;
}

kvm_segment segment(std::uint16_t selector, bool code) {
    kvm_segment result{};
    result.limit = 0xffff'ffff;
    result.selector = selector;
    result.type = code ? 0xb : 0x3;  // accessed; execute and read, or read and write
    result.present = 1;
    result.dpl = selector & 3;
    result.s = 1;
    result.l = code;
    result.db = !code;
    result.g = 1;
    return result;
}

// One parameter of a kernel module, empty where the module is not loaded.
std::string module_parameter(const std::string& path) {
    std::ifstream file("/sys/module/" + path);
    std::string value;
    file >> value;
    return value;
}

}  // namespace

FileDescriptor::~FileDescriptor() {
    if (number_ >= 0) close(number_);
}

FileDescriptor::FileDescriptor(FileDescriptor&& other) noexcept
    : number_(std::exchange(other.number_, -1)) {}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
}

std::optional<std::string> VirtualMachine::unavailable_reason() {
    const FileDescriptor kvm = open_device();
    if (kvm.number() < 0)
        return fmt::format("cannot open {}: {}", kDevice, std::generic_category().message(errno));
    const int version = ioctl(kvm.number(), KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION)
        return fmt::format("{} has API version {}, not {}", kDevice, version, KVM_API_VERSION);
    const FileDescriptor machine(ioctl(kvm.number(), KVM_CREATE_VM, 0));
    if (machine.number() < 0)
        return fmt::format("{} makes no virtual machine: {}", kDevice,
                           std::generic_category().message(errno));
    return std::nullopt;
}

bool VirtualMachine::supports(Levels levels) {
    switch (levels) {
        case Levels::three:
            return false;  // 64-bit mode has four levels or five (SDM vol. 3A, 4.5)
        case Levels::four:
            return true;
        case Levels::five:
            return supported_features(open_device()).has_five_levels();
    }
    return false;
}

std::string VirtualMachine::walker() {
    for (const char* parameter : {"kvm_intel/parameters/ept", "kvm_amd/parameters/npt"}) {
        const std::string value = module_parameter(parameter);
        if (value == "Y" || value == "1")
            return fmt::format("the processor walks the tables ({} = {})", parameter, value);
    }
    return "KVM walks the tables and shadows them (no EPT, no NPT); what it does not emulate, the "
           "processor runs on the shadow";
}

std::optional<Range> VirtualMachine::taken_from_user_mode() {
    if (!std::filesystem::exists("/sys/module/kvm_pvm")) return std::nullopt;
    return Range{VirtAddr(0xffff'8000'0000'0000), std::uint64_t{1} << 39};
}

VirtualMachine::VirtualMachine() : kvm_(open_device()) {
    machine_ = FileDescriptor(control(kvm_, KVM_CREATE_VM, 0, "KVM_CREATE_VM"));
    processor_ = FileDescriptor(control(machine_, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU"));
    // Without features the processor would have neither 64-bit mode nor NX.
    FeatureList features = supported_features(kvm_);
    control(processor_, kSetFeatures, &features, "KVM_SET_CPUID2");
    shared_bytes_ = static_cast<std::size_t>(
        control(kvm_, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE"));
    void* mapped =
        mmap(nullptr, shared_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, processor_.number(), 0);
    if (mapped == MAP_FAILED)
        throw std::system_error(errno, std::generic_category(), "mmap of the virtual processor");
    shared_ = static_cast<kvm_run*>(mapped);
}

VirtualMachine::~VirtualMachine() {
    if (shared_ != nullptr) munmap(shared_, shared_bytes_);
}

void VirtualMachine::add_memory(PhysAddr base, std::span<const std::byte> memory) {
    kvm_userspace_memory_region slot{};
    slot.slot = slots_++;
    slot.guest_phys_addr = base.bits();
    slot.memory_size = memory.size();
    slot.userspace_addr = reinterpret_cast<std::uintptr_t>(memory.data());
    control(machine_, KVM_SET_USER_MEMORY_REGION, &slot, "KVM_SET_USER_MEMORY_REGION");
}

void VirtualMachine::set_state(const ProcessorState& state) {
    kvm_sregs special{};
    control(processor_, KVM_GET_SREGS, &special, "KVM_GET_SREGS");
    special.cs = segment(selector::kKernelCode, true);
    special.ds = special.es = special.fs = special.gs = special.ss =
        segment(selector::kKernelData, false);
    special.ldt = {};
    special.ldt.unusable = 1;
    special.tr = {};
    special.tr.base = state.task_state.bits();
    special.tr.limit = 103;
    special.tr.selector = selector::kTaskState;
    special.tr.type = 0xb;  // busy 64-bit TSS
    special.tr.present = 1;
    special.gdt.base = state.descriptor_table.bits();
    special.gdt.limit = static_cast<std::uint16_t>(state.descriptor_table_bytes - 1);
    special.idt.base = state.interrupt_table.bits();
    special.idt.limit = static_cast<std::uint16_t>(state.interrupt_table_bytes - 1);
    special.cr0 =
        kCr0Protected | kCr0ExtensionType | kCr0NumericError | kCr0WriteProtect | kCr0Paging;
    special.cr3 = state.root.bits();
    special.cr4 =
        kCr4PhysicalAddressExtension | (state.levels == Levels::five ? kCr4FiveLevels : 0);
    special.efer = kEferSystemCall | kEferLongMode | kEferLongModeActive | kEferNoExecute;
    control(processor_, KVM_SET_SREGS, &special, "KVM_SET_SREGS");

    kvm_regs registers = state.registers;
    registers.rflags = 2;  // the bit that is always set; interrupts are off
    control(processor_, KVM_SET_REGS, &registers, "KVM_SET_REGS");
}

void VirtualMachine::run_until_halt() {
    for (;;) {
        if (ioctl(processor_.number(), KVM_RUN, 0) < 0) {
            if (errno == EINTR || errno == EAGAIN) continue;
            throw std::system_error(errno, std::generic_category(), "KVM_RUN: " + describe_exit());
        }
        if (shared_->exit_reason == KVM_EXIT_HLT) return;
        throw std::runtime_error("the guest did not halt: " + describe_exit());
    }
}

std::string VirtualMachine::describe_exit() const {
    kvm_regs registers{};
    kvm_sregs special{};
    control(processor_, KVM_GET_REGS, &registers, "KVM_GET_REGS");
    control(processor_, KVM_GET_SREGS, &special, "KVM_GET_SREGS");
    std::string detail;
    if (shared_->exit_reason == KVM_EXIT_MMIO)
        detail = fmt::format(", physical {:#x}", shared_->mmio.phys_addr);
    if (shared_->exit_reason == KVM_EXIT_INTERNAL_ERROR)
        detail = fmt::format(", suberror {}", shared_->internal.suberror);
    return fmt::format(
        "exit reason {}{}; rip {:#x}, rsp {:#x}, cs {:#x}, rbx {:#x}, r15 {:#x}, cr2 {:#x}",
        shared_->exit_reason, detail, registers.rip, registers.rsp, special.cs.selector,
        registers.rbx, registers.r15, special.cr2);
}

}  // namespace holdfast::test
