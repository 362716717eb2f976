#include "support/access_prober.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <utility>

#include "support/temporary_pool.hpp"
#include "support/virtual_machine.hpp"

// The guest's kernel. It never returns from an exception: the handler notes how the access ended,
// takes the next record, and begins anew with an empty stack.
//
// An access of the supervisor that goes through continues at label 5, one of user mode at an int3:
// KVM without virtualization emulates CPL 0, and its emulator knows no int3.
//
//   rsi  where a landing jumps to
//   r12  the user-mode page
//   r13  top of the stack
//   r14  how many records are left
//   r15  the record at hand (`Record` below)
//
// RBX has the address: with RSP or RBP as its base an access to a non-canonical address would end
// in #SS instead of #GP (SDM vol. 1, 3.3.7.1).
asm(R"(
    .pushsection .rodata
    .balign 16
holdfast_guest_kernel:
    test    %r14, %r14
    jz      3f
    mov     0(%r15), %rbx
    mov     8(%r15), %ecx
    mov     16(%r15), %rdx
    xor     %eax, %eax
    cmpl    $0, 12(%r15)
    jne     2f
    lea     5f(%rip), %rsi
    cmp     $1, %ecx
    jb      0f
    je      1f
    jmp     *%rbx
0:  mov     (%rbx), %rax
    jmp     5f
1:  mov     %rdx, (%rbx)
    jmp     5f
2:  shl     $4, %ecx
    add     %r12, %rcx
    lea     holdfast_guest_user_landed - holdfast_guest_user(%r12), %rsi
    push    $0x23
    push    $0
    push    $2
    push    $0x1b
    push    %rcx
    iretq
3:  hlt
    jmp     3b

    # 16 bytes for each of the 32 vectors. Those without an error code (SDM vol. 3A, table 6-1; 29
    # and 30 have one with AMD) push a zero for it.
    .balign 16
holdfast_guest_vectors:
    .set    vector, 0
    .rept   32
    .balign 16
    .if     (1 << vector) & 0x60227d00
    .else
    push    $0
    .endif
    push    $vector
    jmp     4f
    .set    vector, vector + 1
    .endr
4:  mov     %rax, 24(%r15)
    pop     %rax
    mov     %eax, 32(%r15)
    pop     %rax
    mov     %rax, 40(%r15)
    mov     8(%rsp), %rax
    mov     %eax, 36(%r15)
    mov     %cr2, %rax
    mov     %rax, 48(%r15)
6:  mov     %r13, %rsp
    add     $64, %r15
    dec     %r14
    jmp     holdfast_guest_kernel
5:  mov     %rax, 24(%r15)
    movl    $3, 32(%r15)
    movl    $0x08, 36(%r15)
    jmp     6b
holdfast_guest_kernel_end:

    # One access each 16 bytes, in the order of AccessKind; runs at CPL 3.
    .balign 16
holdfast_guest_user:
    mov     (%rbx), %rax
    int3
    .balign 16
    mov     %rdx, (%rbx)
    int3
    .balign 16
    jmp     *%rbx
    .balign 16
holdfast_guest_user_landed:
    int3
holdfast_guest_user_end:
    .popsection
)");

extern "C" {
extern const std::byte holdfast_guest_kernel[], holdfast_guest_vectors[],
    holdfast_guest_kernel_end[], holdfast_guest_user[], holdfast_guest_user_end[];
}

namespace holdfast::test {
namespace {

// What the guest's code calls 0(%r15) … 48(%r15).
struct Record {
    std::uint64_t address = 0;
    AccessKind kind{};
    Privilege privilege{};
    std::uint64_t value_to_write = 0;
    std::uint64_t value = 0;
    std::uint32_t vector = 0;
    std::uint32_t code_segment = 0;
    std::uint64_t error_code = 0;
    std::uint64_t cr2 = 0;
    std::uint64_t reserved = 0;
};
static_assert(sizeof(Record) == 64 && offsetof(Record, vector) == 32 &&
              offsetof(Record, cr2) == 48);

// The pages of the footprint.
constexpr std::uint64_t kKernelPage = 0, kUserPage = 1, kTablesPage = 2, kStackPage = 3,
                        kRecordsPage = 4;
constexpr std::uint64_t kRecordPages = AccessProber::kBatch * sizeof(Record) / kPageSize;

constexpr unsigned kVectors = 32;

struct Gate {
    std::uint64_t low, high;
};

// What the tables page holds: descriptors, the task state with the stack that exceptions from CPL 3
// switch to, and the gates (SDM vol. 3A, 3.4.5, 8.7 and 6.14.1).
struct Tables {
    std::array<std::uint64_t, 7> descriptors;
    std::uint64_t reserved;
    std::array<std::uint32_t, 26> task_state;
    std::uint32_t reserved2[2];
    std::array<Gate, kVectors> gates;
};
static_assert(sizeof(Tables) <= kPageSize && offsetof(Tables, gates) % 16 == 0);

// Present and of 4 GiB; accessed already, so that the processor need not write the flag.
constexpr std::uint64_t kCodeDescriptor = 0x00af'9b00'0000'ffff,
                        kDataDescriptor = 0x00cf'9300'0000'ffff;
constexpr std::uint64_t descriptor_privilege(unsigned privilege) {
    return std::uint64_t{privilege} << 45;
}

Gate interrupt_gate(VirtAddr handler, unsigned privilege) {
    const std::uint64_t address = handler.bits();
    return {(address & 0xffff) | std::uint64_t{0x08} << 16 | std::uint64_t{0x8e} << 40 |
                descriptor_privilege(privilege) | (address >> 16 & 0xffff) << 48,
            address >> 32};
}

VirtAddr page_at(VirtAddr base, std::uint64_t page) { return base + page * kPageSize; }

Tables make_tables(VirtAddr base) {
    Tables tables{};
    const std::uint64_t task_state =
        page_at(base, kTablesPage).bits() + offsetof(Tables, task_state);
    // In the order of `selector`.
    tables.descriptors = {0,
                          kCodeDescriptor,
                          kDataDescriptor,
                          kCodeDescriptor | descriptor_privilege(3),
                          kDataDescriptor | descriptor_privilege(3),
                          103 | (task_state & 0xff'ffff) << 16 | std::uint64_t{0x8b} << 40 |
                              (task_state >> 24 & 0xff) << 56,
                          task_state >> 32};
    const std::uint64_t stack_top = page_at(base, kStackPage + 1).bits();
    tables.task_state[1] = static_cast<std::uint32_t>(stack_top);
    tables.task_state[2] = static_cast<std::uint32_t>(stack_top >> 32);
    tables.task_state[25] = sizeof(tables.task_state) << 16;  // no I/O permissions
    const VirtAddr vectors =
        page_at(base, kKernelPage) +
        static_cast<std::uint64_t>(holdfast_guest_vectors - holdfast_guest_kernel);
    for (unsigned vector = 0; vector < kVectors; ++vector)
        tables.gates[vector] =
            interrupt_gate(vectors + 16 * vector, vector == vector::kBreakpoint ? 3 : 0);
    return tables;
}

// In place, because code pages are not writable.
void fill(Space space, VirtAddr page, std::span<const std::byte> content) {
    const auto frame = space.frame_bytes(page);
    if (!frame) stop_test(frame.error().to_string());
    std::ranges::copy(content, frame->begin());
}

}  // namespace

std::string Access::to_string() const {
    constexpr std::array kinds = {"read", "write", "execute"};
    return fmt::format("{} at {:#x} as {}", kinds[static_cast<std::size_t>(kind)], address.bits(),
                       privilege == Privilege::user ? "user" : "supervisor");
}

std::string Outcome::to_string() const {
    constexpr std::uint64_t kKnown =
        page_fault::kPresent | page_fault::kWrite | page_fault::kUser | page_fault::kFetch;
    switch (vector) {
        case vector::kBreakpoint:
            return fmt::format("went through, value {:#x}", value);
        case vector::kPageFault:
            return fmt::format(
                "page fault at {:#x}: {}{}{}{}{}", fault_address.bits(),
                error_code & page_fault::kPresent ? "protection" : "not present",
                error_code & page_fault::kWrite ? ", write" : "",
                error_code & page_fault::kUser ? ", user" : "",
                error_code & page_fault::kFetch ? ", fetch" : "",
                (error_code & ~kKnown) != 0 ? fmt::format(" (error {:#x})", error_code) : "");
        default:
            return fmt::format("exception {}, error code {:#x}", vector, error_code);
    }
}

std::uint64_t landing(std::uint32_t mark) {
    // mov $mark, %eax; jmp *%rsi; nop
    return 0x90e6'ff00'0000'00b8 | std::uint64_t{mark} << 8;
}

std::uint32_t mark_of(std::uint64_t landing_code) {
    return static_cast<std::uint32_t>(landing_code >> 8);
}

Range AccessProber::footprint(VirtAddr base) {
    return {base, (kRecordsPage + kRecordPages) * kPageSize};
}

AccessProber AccessProber::install(const Store& store, Space space, VirtAddr base) {
    must(space.map({page_at(base, kKernelPage), kPageSize}, protection::rx));
    must(space.map({page_at(base, kUserPage), kPageSize}, protection::rx | protection::u));
    must(space.map({page_at(base, kTablesPage), (2 + kRecordPages) * kPageSize}, protection::rw));
    fill(space, page_at(base, kKernelPage), {holdfast_guest_kernel, holdfast_guest_kernel_end});
    fill(space, page_at(base, kUserPage), {holdfast_guest_user, holdfast_guest_user_end});
    const Tables tables = make_tables(base);
    fill(space, page_at(base, kTablesPage), std::as_bytes(std::span(&tables, 1)));
    return {store, std::move(space), base};
}

AccessProber::AccessProber(Store store, Space space, VirtAddr base)
    : store_(std::move(store)), space_(std::move(space)), base_(base) {}

std::vector<Outcome> AccessProber::run(std::span<const Access> accesses) {
    VirtualMachine machine;
    for (const RegionInfo& region : store_.regions())
        machine.add_memory(region.physical_base, {region.address, region.size_bytes});

    const VirtAddr tables = page_at(base_, kTablesPage);
    const VirtAddr records_at = page_at(base_, kRecordsPage);
    std::vector<Outcome> outcomes;
    outcomes.reserve(accesses.size());
    while (!accesses.empty()) {
        const auto batch = accesses.first(std::min(kBatch, accesses.size()));
        accesses = accesses.subspan(batch.size());
        std::vector<Record> records(batch.size());
        for (std::size_t i = 0; i < batch.size(); ++i) {
            records[i] = {.address = batch[i].address.bits(),
                          .kind = batch[i].kind,
                          .privilege = batch[i].privilege,
                          .value_to_write = batch[i].value,
                          .vector = ~std::uint32_t{0}};
        }
        must(space_.write(records_at, std::as_bytes(std::span(records))));

        ProcessorState state{
            .root = space_.root(),
            .levels = space_.levels(),
            .descriptor_table = tables + offsetof(Tables, descriptors),
            .descriptor_table_bytes = sizeof(Tables::descriptors),
            .interrupt_table = tables + offsetof(Tables, gates),
            .interrupt_table_bytes = sizeof(Tables::gates),
            .task_state = tables + offsetof(Tables, task_state),
        };
        state.registers.rip = page_at(base_, kKernelPage).bits();
        state.registers.rsp = state.registers.r13 = page_at(base_, kStackPage + 1).bits();
        state.registers.r12 = page_at(base_, kUserPage).bits();
        state.registers.r14 = batch.size();
        state.registers.r15 = records_at.bits();
        machine.set_state(state);
        machine.run_until_halt();

        must(space_.read(records_at, std::as_writable_bytes(std::span(records))));
        for (const Record& record : records) {
            const bool is_page_fault = record.vector == vector::kPageFault;
            outcomes.push_back({.privilege = (record.code_segment & 3) == 0 ? Privilege::supervisor
                                                                            : Privilege::user,
                                .vector = record.vector,
                                .error_code = record.error_code,
                                .fault_address = is_page_fault ? VirtAddr(record.cr2) : VirtAddr(),
                                .value = record.value});
        }
    }
    return outcomes;
}

}  // namespace holdfast::test
