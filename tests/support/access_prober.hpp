// Lets an x86-64 processor access addresses of a space: a virtual machine whose memory is the
// store's regions at their physical bases, and whose CR3 is the space's root.
//
// The guest's kernel (code, descriptors, stack, the list of accesses) lies in the space itself, at
// addresses which the caller sets aside: it is mapped and filled through holdfast's own interface,
// so that already the guest's first instruction is fetched through tables of holdfast.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "holdfast/store.hpp"

namespace holdfast::test {

enum class AccessKind : std::uint32_t { read, write, execute };
enum class Privilege : std::uint32_t { supervisor, user };

// One access of 8 bytes that lie in one page. What is executed must be a `landing`.
struct Access {
    VirtAddr address{};
    AccessKind kind{};
    Privilege privilege{};
    std::uint64_t value = 0;  // what a write stores

    std::string to_string() const;
};

// SDM vol. 3A, 6.15.
namespace vector {
inline constexpr std::uint32_t kBreakpoint = 3, kGeneralProtection = 13, kPageFault = 14;
}

// The error code of a page fault (SDM vol. 3A, 4.7).
namespace page_fault {
inline constexpr std::uint64_t kPresent = 1, kWrite = 2, kUser = 4, kFetch = 16;
}

// How an access ended.
struct Outcome {
    Privilege privilege{};  // at which it ended
    // kBreakpoint if the access went through: in user mode it ends in one.
    std::uint32_t vector = vector::kBreakpoint;
    std::uint64_t error_code = 0;
    VirtAddr fault_address{};  // CR2, of a page fault; otherwise 0
    std::uint64_t value = 0;   // what was read, or put down by the landing; otherwise 0

    std::string to_string() const;
    friend bool operator==(const Outcome&, const Outcome&) = default;
};

// Eight bytes of code for an access that executes: puts `mark` down as the outcome's value, so that
// the outcome says which frame was fetched from, and goes back to the guest's kernel.
std::uint64_t landing(std::uint32_t mark);
std::uint32_t mark_of(std::uint64_t landing_code);

class AccessProber {
  public:
    // How many accesses one run of the processor makes; longer lists take several.
    static constexpr std::size_t kBatch = 4096;
    // What the guest's kernel takes of the space, from `base` on.
    static Range footprint(VirtAddr base);

    // `install` maps the footprint in the space first; the constructor finds it there, say after
    // the store was opened again.
    static AccessProber install(const Store& store, Space space, VirtAddr base);
    AccessProber(Store store, Space space, VirtAddr base);

    // Makes the accesses, in order, on a machine that has been switched on just now, so that
    // neither a TLB nor a shadow of the tables remembers what they were before. (Where KVM shadows
    // them, loading CR3 again does not make it notice what the host has changed in them since.)
    std::vector<Outcome> run(std::span<const Access> accesses);

  private:
    Store store_;
    Space space_;
    VirtAddr base_;
};

}  // namespace holdfast::test
