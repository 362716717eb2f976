// A small virtual machine with one processor in 64-bit mode, by way of Linux's KVM.
//
// It has no devices and no firmware: guest-physical memory is what `add_memory` gives it, and the
// processor starts wherever `Processor` says. Failures of KVM itself are exceptions, which end the
// test with their message; `unavailable_reason` tells beforehand whether there is a KVM to ask.
//
// Thread safety: one thread at a time.
#pragma once

#include <linux/kvm.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "holdfast/types.hpp"

namespace holdfast::test {

// A file descriptor that closes itself.
class FileDescriptor {
  public:
    FileDescriptor() = default;
    explicit FileDescriptor(int number) : number_(number) {}
    ~FileDescriptor();
    FileDescriptor(FileDescriptor&& other) noexcept;
    FileDescriptor& operator=(FileDescriptor&& other) noexcept;
    int number() const { return number_; }

  private:
    int number_ = -1;
};

// What the processor holds when it begins to run. Everything else is as after a reset.
struct ProcessorState {
    PhysAddr root;  // for CR3
    Levels levels = Levels::four;
    VirtAddr descriptor_table;  // of descriptor_table_bytes, laid out as `Selector` says
    std::uint16_t descriptor_table_bytes = 0;
    VirtAddr interrupt_table;  // of 16-byte gates
    std::uint16_t interrupt_table_bytes = 0;
    VirtAddr task_state;  // a 64-bit TSS
    kvm_regs registers{};
};

// The segment selectors that a guest's descriptor table must have, in this order after the null
// descriptor.
namespace selector {
inline constexpr std::uint16_t kKernelCode = 0x08, kKernelData = 0x10, kUserCode = 0x18 | 3,
                               kUserData = 0x20 | 3, kTaskState = 0x28;
}

class VirtualMachine {
  public:
    // Why there is no KVM for this process, in a sentence; nothing if there is one.
    static std::optional<std::string> unavailable_reason();
    // Whether the processor, and KVM on it, can walk tables of so many levels.
    static bool supports(Levels levels);
    // Who walks the guest's tables here: the processor itself, beside a second table of the host's
    // (EPT, NPT), or KVM in its place (shadow paging). Both are independent of holdfast; only the
    // first is silicon throughout.
    static std::string walker();
    // Addresses at which a guest's user mode does not get what its tables say, if there are any:
    // kvm_pvm, the KVM for processors without virtualization, runs the guest's user mode on the
    // processor and keeps one root entry of every table for itself, the lowest of the supervisor
    // half. (Tables without holdfast's tags fare no better there.)
    static std::optional<Range> taken_from_user_mode();

    VirtualMachine();
    ~VirtualMachine();
    VirtualMachine(const VirtualMachine&) = delete;
    VirtualMachine& operator=(const VirtualMachine&) = delete;

    // Makes `memory`, which must outlive the machine, the guest's memory at `base`; all aligned to
    // pages.
    void add_memory(PhysAddr base, std::span<const std::byte> memory);

    // Paging as SDM vol. 3A, 4.1 has it: CR0.WP = 1, EFER.NXE = 1, CR4.SMEP = SMAP = PGE = PKE = 0.
    void set_state(const ProcessorState& state);
    // Runs until the guest halts; any other exit is an exception that says where the guest was.
    void run_until_halt();

  private:
    std::string describe_exit() const;

    FileDescriptor kvm_, machine_, processor_;
    kvm_run* shared_ = nullptr;
    std::size_t shared_bytes_ = 0;
    std::uint32_t slots_ = 0;
};

}  // namespace holdfast::test
