// Looking at ranges of a space: what is mapped where, where there is room, what a program may
// touch.
//
//     auto place = find_hole(space, 64_MiB, {.alignment_bytes = 2_MiB});
//     if (auto fine = check_user_range(space, pointer, length, protection::w); !fine) …
//
// Thread safety: as Space::maps; the answer is of a moment, and others may map and unmap after it.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>

#include "holdfast/error.hpp"
#include "holdfast/fault.hpp"
#include "holdfast/space.hpp"
#include "holdfast/types.hpp"

namespace holdfast {

// The lower half of a space's addresses, without the first page, which nobody maps by accident.
// (As on x86-64: user programs have the lower half, the kernel the upper one.)
constexpr Range user_half(Levels levels) {
    return {VirtAddr(kPageSize),
            (std::uint64_t{1} << (virtual_address_bits(levels) - 1)) - kPageSize};
}

// The line of `Space::maps` that the address is in, or nothing. Proportional to its length, not to
// the space. Errors: as Space::maps.
Result<std::optional<Mapping>> find_mapping(const Space& space, VirtAddr address);

struct HoleOptions {
    std::uint64_t alignment_bytes = kPageSize;  // a power of two, of the hole's first byte
    std::optional<Range> within = {};           // the user half, if it is not given
};
// The lowest range of so many bytes in which nothing is mapped, or nothing. A whole subtree that is
// empty, or mapped by one entry, costs one look. Errors: invalid_argument (a size that is 0 or no
// multiple of 4096, an alignment that is no power of two of at least 4096), stale.
Result<std::optional<VirtAddr>> find_hole(const Space& space, std::uint64_t size_bytes,
                                          const HoleOptions& options = {});

// Whether a user program may access all of the range: what a kernel asks of a pointer that it was
// given, before it follows it (Linux's access_ok, and then the pages). All of the range has to lie
// in the user half and be mapped with `u` and what `access` says; pages that get a frame, or one of
// their own, at the first access are well. Otherwise the first page's fault. An empty range is well
// wherever it is in the user half.
std::expected<void, Fault> check_user_range(const Space& space, VirtAddr address,
                                            std::uint64_t size_bytes, Protection access);

}  // namespace holdfast
