// Looking into another space and changing bytes there, as a debugger does with a stopped program
// (ptrace(2), process_vm_readv(2)): many pieces at once, and whatever their protection.
//
//     std::array pieces = {PeekPiece{frame, stack}, PeekPiece{globals, data}};
//     auto read = peek(space, pieces);   // how many bytes, in the order of the pieces
//
// The space should not be running: the bytes of each page are of one moment, those of several pages
// are not. Works on snapshots, too, but for `poke`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "holdfast/error.hpp"
#include "holdfast/fault.hpp"
#include "holdfast/space.hpp"
#include "holdfast/types.hpp"

namespace holdfast {

struct PeekPiece {
    VirtAddr address;
    std::span<std::byte> bytes;
};
struct PokePiece {
    VirtAddr address;
    std::span<const std::byte> bytes;
};

struct Transferred {
    std::uint64_t size_bytes = 0;     // so many bytes, in the order of the pieces
    std::optional<Fault> fault = {};  // and why no more
};

// Reads until the end or the first byte that cannot be read; demand-zero pages are zeros and get no
// frame, and pages of files are read, and not loaded. Any page that is mapped can be read.
Transferred peek(const Space& space, std::span<const PeekPiece> pieces);

enum class PokePolicy : std::uint8_t {
    permitted,  // only where the mapping permits writing
    // Also where it does not, so as to set a breakpoint: the page gets a frame of its own first, if
    // forks or snapshots share it. Not where it is mapped shared (Space::map_shared) without `w`,
    // which others would see.
    force,
};
// Writes, and makes durable what was written: by its return, and before the error it may return
// instead, all of it is on the medium. Not failure-atomic: a crash may leave any of the bytes.
// Errors: permission_denied (a snapshot), no_space, damaged, io; a fault is none.
Result<Transferred> poke(Space space, std::span<const PokePiece> pieces,
                         PokePolicy policy = PokePolicy::permitted);

}  // namespace holdfast
