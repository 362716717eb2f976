#include "holdfast/inspect.hpp"

#include <algorithm>

#include "memory/reader_section.hpp"
#include "space/space_access.hpp"
#include "store/mapped_files.hpp"
#include "store/store_state.hpp"
#include "store/transaction_state.hpp"
#include "table/walk.hpp"

namespace holdfast {

using detail::SpaceState;
using detail::TransactionState;

Transferred peek(const Space& space, std::span<const PeekPiece> pieces) {
    Transferred done;
    SpaceState& state = space.state();
    for (const PeekPiece& piece : pieces) {
        VirtAddr address = piece.address;
        for (auto rest = piece.bytes; !rest.empty();) {
            const auto copied = space::read(state.store->memory, state, address, rest);
            std::size_t size = copied.size_bytes;
            // A page of a file is not loaded for somebody who only looks.
            if (copied.fault && copied.fault->kind == FaultKind::file_backed) {
                const auto page = rest.subspan(size).first(std::min<std::size_t>(
                    rest.size() - size, kPageSize - copied.fault->address.page_offset()));
                if (detail::read_file_page(state, *copied.fault, page))
                    size += page.size();
                else
                    done.fault = detail::refined(state, *copied.fault);
            } else {
                done.fault = copied.fault;
            }
            done.size_bytes += size;
            if (done.fault) return done;
            address = address + size;
            rest = rest.subspan(size);
        }
    }
    return done;
}

namespace {

// Writes to the page of `address`, whose protection is none of our business, up to its end.
Result<std::optional<Fault>> force_page(Space& space, VirtAddr address,
                                        std::span<const std::byte> bytes) {
    SpaceState& state = space.state();
    const memory::PhysicalMemory& memory = state.store->memory;
    if (const auto there = space.translate(address); !there) {
        if (there.error().kind == FaultKind::file_backed ||
            there.error().kind == FaultKind::swapped) {
            if (auto done = space.fault(address, protection::r); !done)
                return std::unexpected(done.error());
            return force_page(space, address, bytes);
        }
        const bool fills = there.error().kind == FaultKind::demand_zero;
        if (!fills) return there.error();
        TransactionState transaction(state.store);
        if (auto done = transaction.populate(space.shared_state(), address, true); !done)
            return std::unexpected(done.error());
        if (auto done = transaction.commit(); !done) return std::unexpected(done.error());
    }
    // Its own frame, unless it has one: a transaction that finds nothing to do commits nothing.
    TransactionState transaction(state.store);
    if (auto done = transaction.unshare(space.shared_state(), address); !done)
        return std::unexpected(done.error());
    if (auto done = transaction.commit(); !done) return std::unexpected(done.error());

    const memory::ReaderSection section;
    const auto found = table::walk(memory, state.root(), address);
    if (!found) return found.error();
    const auto metadata = memory.valid_metadata(found->physical.frame());
    const bool is_others =
        !metadata || metadata->references != 1 || metadata->kind == format::FrameKind::shared_data;
    if (is_others && !found->protection.writable())
        return space::refused(*found, protection::w, address);
    std::byte* const host = memory.host(found->physical.frame()) + address.page_offset();
    memory.pool().copy(host, bytes.data(), bytes.size());
    if (memory.tracks_accesses()) table::mark_accessed(memory, state.root(), address, true);
    return std::nullopt;
}

// Writes to the page of `address`, if its mapping permits it, and starts writing it back.
Result<std::optional<Fault>> write_page(Space& space, VirtAddr address,
                                        std::span<const std::byte> bytes) {
    const memory::PhysicalMemory& memory = space.state().store->memory;
    for (;;) {
        const auto copied = space::write(memory, space.state(), address, bytes);
        if (!copied.fault) {
            space::flush(memory, space.state(), address, bytes.size());
            return std::nullopt;
        }
        const FaultKind kind = copied.fault->kind;
        const bool is_first = kind == FaultKind::demand_zero || kind == FaultKind::copy_on_write ||
                              kind == FaultKind::file_backed || kind == FaultKind::stack_room ||
                              kind == FaultKind::swapped;
        if (!is_first || !copied.fault->protection.writable()) return copied.fault;
        if (auto done = space.fault(address, protection::w); !done)
            return std::unexpected(done.error());
    }
}

}  // namespace

Result<Transferred> poke(Space space, std::span<const PokePiece> pieces, PokePolicy policy) {
    if (auto fine = TransactionState::check_change(space.state()); !fine)
        return std::unexpected(fine.error());
    if (auto begun = space.state().store->begin_data_changes(); !begun)
        return std::unexpected(begun.error());
    // Whatever ends this: what was written until then is durable.
    struct DrainAtEnd {
        ~DrainAtEnd() { pool.drain(); }
        const pool::Pool& pool;
    } const drain{space.state().store->memory.pool()};
    Transferred done;
    for (const PokePiece& piece : pieces) {
        VirtAddr address = piece.address;
        for (auto rest = piece.bytes; !rest.empty();) {
            const auto page =
                rest.first(std::min<std::size_t>(rest.size(), kPageSize - address.page_offset()));
            const auto fault = policy == PokePolicy::force ? force_page(space, address, page)
                                                           : write_page(space, address, page);
            if (!fault) return std::unexpected(fault.error());
            done.fault = *fault;
            if (done.fault) return done;
            done.size_bytes += page.size();
            address = address + page.size();
            rest = rest.subspan(page.size());
        }
    }
    return done;
}

}  // namespace holdfast
