#include "holdfast/space.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "memory/reader_section.hpp"
#include "space/space_access.hpp"
#include "store/mapped_files.hpp"
#include "store/store_state.hpp"
#include "store/transaction_state.hpp"
#include "table/visit.hpp"

namespace holdfast {

using detail::TransactionState;

namespace {

Error error_of(Fault fault, const char* action, const detail::SpaceState& space) {
    fault = detail::refined(space, fault);
    const bool is_refused = fault.kind == FaultKind::protection ||
                            fault.kind == FaultKind::copy_on_write ||
                            fault.kind == FaultKind::guard;
    const ErrorCode code = is_refused          ? ErrorCode::permission_denied
                           : fault.is_loss()   ? ErrorCode::lost
                           : fault.is_damage() ? ErrorCode::damaged
                                               : ErrorCode::not_mapped;
    std::string message =
        fmt::format("cannot {} in space \"{}\": {}", action, space.name(), fault.to_string());
    if (fault.region) {
        const std::string& trouble = space.store->memory.regions()[*fault.region].trouble();
        if (!trouble.empty()) message += "; " + trouble;
    }
    if (is_file_loss(fault.kind) || fault.kind == FaultKind::file_end)
        message += "; " + detail::file_trouble(space, fault);
    return {code, std::move(message)};
}

// A call that finds too few frames takes them from whom the policies say, and is done again; but
// not one that promises more than there may be (overcommit.hpp), which `call` says in its argument.
// `pages` are what it takes at most; 0 for what is not to cost anybody else.
template <typename Call>
Result<void> with_reclaim(const std::shared_ptr<detail::SpaceState>& space,
                          const detail::SpaceState& asked, std::uint64_t pages, const Call& call) {
    for (std::uint64_t rounds = 1024 + pages;; --rounds) {
        bool is_promise = false;
        Result<void> done = call(is_promise);
        if (done || done.error().code != ErrorCode::no_space || is_promise || rounds == 0 ||
            !space->store->reclaim_for(space, asked, pages))
            return done;
    }
}

// What follows the fault, if anything can: afterwards the access is permitted, or has another
// fault.
Result<void> resolve(const std::shared_ptr<detail::SpaceState>& of, const Fault& fault,
                     Protection access, const char* action) {
    // In a supervisor half it is the object's, whoever has met it.
    const auto& space = TransactionState::responsible_for(of, fault.address);
    const bool demand_zero = fault.kind == FaultKind::demand_zero,
               copy_on_write = fault.kind == FaultKind::copy_on_write,
               swapped = fault.kind == FaultKind::swapped,
               file_backed = fault.kind == FaultKind::file_backed,
               stack_room = fault.kind == FaultKind::stack_room;
    // Whatever the page is now, in memory or not: it would be no other answer if it had a frame.
    if ((file_backed || swapped || demand_zero || stack_room) &&
        !fault.protection.permits(access)) {
        Fault refused = fault;
        refused.kind = FaultKind::protection;
        return std::unexpected(error_of(refused, action, *space));
    }
    if (!(demand_zero || copy_on_write || swapped || file_backed || stack_room) ||
        !fault.protection.permits(access))
        return std::unexpected(error_of(fault, action, *space));
    return with_reclaim(space, *of, 1, [&](bool& is_promise) -> Result<void> {
        if (file_backed) return detail::load_page(space, fault);
        TransactionState transaction(space->store);
        if (stack_room) {
            const auto grown =
                transaction.grow_stack(space, fault.address, access.permits(protection::w));
            is_promise = transaction.is_refused_by_policy();
            if (!grown) return std::unexpected(grown.error());
            if (*grown) return transaction.commit();
            Fault refused = fault;
            refused.kind = FaultKind::guard;
            return std::unexpected(error_of(refused, action, *space));
        }
        auto done = demand_zero ? transaction.populate(space, fault.address, access.writable())
                    : swapped   ? transaction.swap_in(space, fault.address)
                                : transaction.unshare(space, fault.address);
        return done ? transaction.commit() : done;
    });
}

}  // namespace

Result<void> Space::map(Range range, Protection protection, const MapOptions& options) {
    // Whole huge frames are not had by that, and what needs tables only is not to cost anybody.
    const bool is_small = options.page_size == PageSize::size_4KiB && !options.lazy &&
                          !options.guard && !options.grows_down && !options.file && !options.device;
    const std::uint64_t pages = is_small ? range.pages() : 0;
    return with_reclaim(state_, *state_, pages, [&](bool& is_promise) -> Result<void> {
        TransactionState transaction(state_->store);
        auto done = transaction.map(state_, range, protection, options);
        is_promise = transaction.is_refused_by_policy();
        return done ? transaction.commit() : done;
    });
}

Result<void> Space::map_shared(Range range, Protection protection, const Space& source,
                               Range source_range, const MapOptions& options) {
    TransactionState transaction(state_->store);
    if (auto done =
            transaction.map_shared(state_, range, protection, source.state_, source_range, options);
        !done)
        return done;
    return transaction.commit();
}

Result<void> Space::unmap(Range range) {
    TransactionState transaction(state_->store);
    if (auto done = transaction.unmap(state_, range); !done) return done;
    return transaction.commit();
}

Result<void> Space::protect(Range range, Protection protection) {
    TransactionState transaction(state_->store);
    if (auto done = transaction.protect(state_, range, protection); !done) return done;
    return transaction.commit();
}

Result<std::uint64_t> Space::promote(Range range) {
    return TransactionState(state_->store).promote(state_, range);
}

std::expected<Translation, Fault> Space::translate(VirtAddr address) const {
    auto found = space::translate(state_->store->memory, *state_, address);
    if (!found && found.error().kind == FaultKind::file_backed)
        found.error() = detail::refined(*state_, found.error());
    return found;
}

std::expected<Translation, Fault> Space::translate(VirtAddr address, Protection access) const {
    auto found = translate(address);
    if (!found || found->protection.permits(access)) return found;
    return std::unexpected(space::refused(*found, access, address));
}

Result<void> Space::read(VirtAddr address, std::span<std::byte> destination) const {
    while (!destination.empty()) {
        const auto copied = space::read(state_->store->memory, *state_, address, destination);
        destination = destination.subspan(copied.size_bytes);
        address = address + copied.size_bytes;
        if (!copied.fault) continue;
        const bool file_backed = copied.fault->kind == FaultKind::file_backed;
        if (!file_backed && copied.fault->kind != FaultKind::stack_room)
            return std::unexpected(error_of(*copied.fault, "read", *state_));
        // The first access to a page of a file. Nobody changes a snapshot, so that it has to be
        // read again there.
        if (!file_backed || !state_->is_snapshot) {
            if (auto done = resolve(state_, *copied.fault, protection::r, "read"); !done)
                return done;
            continue;
        }
        const std::size_t size =
            std::min<std::size_t>(destination.size(), kPageSize - address.page_offset());
        if (auto done = detail::read_file_page(*state_, *copied.fault, destination.first(size));
            !done)
            return done;
        destination = destination.subspan(size);
        address = address + size;
    }
    return {};
}

Result<void> Space::write(VirtAddr address, std::span<const std::byte> source) {
    if (auto begun = state_->store->begin_data_changes(); !begun) return begun;
    // All other pages of a snapshot are copied on write.
    if (state_->is_snapshot && &state_->responsible_for(address) != state_.get())
        if (auto fine = TransactionState::check_change(*state_); !fine) return fine;
    while (!source.empty()) {
        const auto copied = space::write(state_->store->memory, *state_, address, source);
        source = source.subspan(copied.size_bytes);
        address = address + copied.size_bytes;
        if (!copied.fault) continue;
        // The first write to the page: it gets its frame, durably, and then the bytes.
        if (auto done = resolve(state_, *copied.fault, protection::w, "write"); !done) return done;
    }
    return {};
}

Result<void> Space::fault(VirtAddr address, Protection access) {
    for (;;) {
        // A page of a file is looked at by `resolve`, and not here, too.
        const auto found = space::translate(state_->store->memory, *state_, address);
        if (found && found->protection.permits(access)) return {};
        const Fault fault = found ? space::refused(*found, access, address) : found.error();
        if (auto done = resolve(state_, fault, access, "access"); !done) return done;
    }
}

Result<void> Space::persist(Range range) {
    const auto copied = space::flush(state_->store->memory, *state_, range.start, range.size_bytes);
    state_->store->pool->drain();
    if (copied.fault) return std::unexpected(error_of(*copied.fault, "persist", *state_));
    return {};
}

std::expected<std::span<std::byte>, Fault> Space::frame_bytes(VirtAddr page) {
    // If this fails, so will the next change, which says why.
    std::ignore = state_->store->begin_data_changes();
    auto found = translate(page.page_floor());
    if (!found && found.error().kind == FaultKind::swapped &&
        fault(page.page_floor(), protection::r))
        found = translate(page.page_floor());
    if (found && found->copy_on_write) {
        if (!fault(page.page_floor(), protection::w))
            return std::unexpected(space::refused(*found, protection::w, page));
        found = translate(page.page_floor());
    }
    const memory::PhysicalMemory& memory = state_->store->memory;
    if (found && !found->protection.writable()) {
        // Forks and snapshots may have it too, or all, as the frame of zeros, and nothing in the
        // entry says so.
        TransactionState transaction(state_->store);
        if (!transaction.unshare(state_, page) || !transaction.commit())
            return std::unexpected(space::refused(*found, protection::w, page));
        found = translate(page.page_floor());
    }
    if (!found) return std::unexpected(found.error());
    if (memory.tracks_accesses()) {
        // Whenever the caller writes, from here on the page is dirty.
        const memory::ReaderSection section;
        table::mark_accessed(memory, state_->root(), page, true);
    }
    return std::span(memory.host(found->physical.frame()), kPageSize);
}

std::expected<std::span<const std::byte>, Fault> Space::frame_view(VirtAddr page) const {
    auto found = translate(page.page_floor());
    if (!found) return std::unexpected(found.error());
    return std::span<const std::byte>(state_->store->memory.host(found->physical.frame()),
                                      kPageSize);
}

Result<Handle> Space::handle() const { return state_->store->handle_of(*state_, 0, {}); }

Result<Handle> Space::handle(Range range) {
    TransactionState transaction(state_->store);
    const auto mark = transaction.mark(state_, range);
    if (!mark) return std::unexpected(mark.error());
    auto handle = state_->store->handle_of(*state_, *mark, range);
    if (!handle) return handle;
    if (auto done = transaction.commit(); !done) return std::unexpected(done.error());
    return handle;
}

Result<std::vector<Mapping>> Space::maps() const {
    return detail::with_paths(*state_->store, space::maps(state_->store->memory, *state_,
                                                          table::all_pages(state_->levels)));
}

std::string Space::name() const { return state_->name(); }
bool Space::is_snapshot() const { return state_->is_snapshot; }
Levels Space::levels() const { return state_->levels; }
PhysAddr Space::root() const { return PhysAddr::of(state_->root().entry.frame()); }
SpaceInfo Space::info() const { return space::info(state_->store->memory, *state_); }

}  // namespace holdfast
