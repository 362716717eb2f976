#include "store/transaction_state.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bitset>
#include <cstring>

#include "memory/reader_section.hpp"

namespace holdfast::detail {

using format::SpaceRecord;
using table::Entry;
using table::page_index;
using table::PageRange;
using table::TableEditor;

TransactionState::TransactionState(std::shared_ptr<StoreState> store)
    : store_(std::move(store)), session_(store_->services) {}

Result<void> TransactionState::spoiled_by(Result<void> outcome) {
    if (!outcome) spoiled_ = outcome.error();
    return outcome;
}

// --- joining ---

Result<TransactionState::Joined*> TransactionState::join(const std::shared_ptr<SpaceState>& space,
                                                         bool waits) {
    if (spoiled_) return std::unexpected(*spoiled_);
    session_.charge_to(space->record);
    for (Joined& joined : joined_) {
        if (joined.space != space) continue;
        if (joined.removed)
            return fail(
                ErrorCode::stale,
                fmt::format("space \"{}\" was removed in this transaction", space->shown_name()));
        return &joined;
    }
    if (space->store != store_)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("space \"{}\" belongs to another store than the transaction",
                                space->shown_name()));
    if (auto begun = store_->begin_changes(); !begun) return std::unexpected(begun.error());
    begin_charging();
    // Waiting is safe if this space comes after all that are held already: everybody who waits
    // then waits for somebody further on, and there is no circle.
    const auto comes_after = [&](const Joined& held) { return held.space->record < space->record; };
    const bool may_wait = waits && std::all_of(joined_.begin(), joined_.end(), comes_after);
    switch (space->writer.lock(may_wait)) {
        case space::WriterLock::Outcome::locked:
            break;
        case space::WriterLock::Outcome::held_by_this_thread:
            return fail(ErrorCode::busy,
                        fmt::format("space \"{}\" is held by another transaction of this thread; "
                                    "commit or abort that one first",
                                    space->shown_name()));
        case space::WriterLock::Outcome::would_wait:
            return fail(ErrorCode::busy,
                        fmt::format("space \"{}\" is held by another transaction; abort this one "
                                    "and try again",
                                    space->shown_name()));
    }
    const table::Root root = space->root();
    if (root.entry.is_empty()) {
        space->writer.unlock();
        return fail(ErrorCode::stale,
                    fmt::format("space \"{}\" was removed, or its creation was not committed",
                                space->shown_name()));
    }
    joined_.push_back(Joined{.space = space,
                             .root = root,
                             .annotations = space::Annotations(*store_->pool, space->annotations)});
    return &joined_.back();
}

Result<void> TransactionState::join_directory() {
    if (spoiled_) return std::unexpected(*spoiled_);
    if (holds_directory_) return {};
    if (auto begun = store_->begin_changes(); !begun) return begun;
    begin_charging();
    // The directory comes before every space.
    if (store_->directory_writer.lock(joined_.empty()) != space::WriterLock::Outcome::locked)
        return fail(ErrorCode::busy,
                    "the directory of spaces is held by another transaction; abort this one and "
                    "try again");
    holds_directory_ = true;
    return {};
}

// --- ranges ---

Result<memory::Placement> TransactionState::placement(const Joined& joined,
                                                      std::optional<unsigned> wish) const {
    const auto wished = region_on_medium(wish);
    if (!wished) return std::unexpected(wished.error());
    const std::uint8_t region =
        *wished != 0 ? *wished : joined.new_region.value_or(joined.space->preferred_region);
    if (region == 0) return memory::Placement{};
    // The pool's own regions are one and the same.
    const std::uint8_t index = region - 1;
    const auto regions = store_->memory.regions();
    if (index >= regions.size() || regions[index].kind() == RegionKind::pool)
        return memory::Placement{};
    return memory::Placement{index};
}

Result<void> TransactionState::check(const Joined& joined, const char* action, Range range,
                                     std::optional<Protection> protection, PageRange& pages) const {
    if (auto fine = check_change(*joined.space); !fine) return fine;
    const Levels levels = joined.space->levels;
    const auto refuse = [&](const char* why) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("cannot {} {:#x}..{:#x} in space \"{}\": {}", action,
                                range.start.bits(), range.end().bits(), joined.space->name(), why));
    };
    if (range.size_bytes == 0) return refuse("the range is empty");
    if (!range.start.is_page_aligned() || range.size_bytes % kPageSize != 0)
        return refuse("start and length must be multiples of 4096");
    const VirtAddr last = range.start + (range.size_bytes - 1);
    if (last < range.start) return refuse("the range wraps around the end of the address space");
    if (VirtAddr::truncated(range.start.bits(), levels) != range.start ||
        VirtAddr::truncated(last.bits(), levels) != last ||
        (range.start.bits() >> 63) != (last.bits() >> 63))
        return refuse("the range is not canonical for the levels of the space");
    if (protection && !protection->readable())
        return refuse("a present page can always be read on x86-64, so the protection needs r");
    if (auto fine = check_half(*joined.space, action, range, protection); !fine) return fine;
    pages.begin = page_index(range.start, levels);
    pages.end = pages.begin + range.pages();
    return {};
}

Result<TableEditor::Place> TransactionState::unmapped_place(TableEditor& editor,
                                                            const Joined& joined,
                                                            PageRange pages) const {
    auto place = editor.place_of(pages);
    if (!place) return place;
    auto mapped = editor.first_mapped(*place);
    if (!mapped) return std::unexpected(mapped.error());
    if (!*mapped) return place;
    return fail(ErrorCode::overlap,
                fmt::format("{:#x} is mapped already in space \"{}\"; unmap it first, or choose "
                            "another range",
                            table::address_of_page(**mapped, joined.space->levels).bits(),
                            joined.space->name()));
}

Result<TableEditor::Place> TransactionState::mapped_place(TableEditor& editor, const Joined& joined,
                                                          PageRange pages) const {
    auto place = editor.place_of(pages);
    if (!place) return place;
    auto hole = editor.first_hole(*place);
    if (!hole) return std::unexpected(hole.error());
    if (!*hole) return place;
    return fail(ErrorCode::not_mapped,
                fmt::format("nothing is mapped at {:#x} in space \"{}\"; a range is taken whole or "
                            "not at all",
                            table::address_of_page(**hole, joined.space->levels).bits(),
                            joined.space->name()));
}

Result<void> TransactionState::annotate(Joined& joined, PageRange pages,
                                        const MapOptions& options) {
    if (options.name.empty()) return {};
    return joined.annotations.add({.first_page = pages.begin,
                                   .page_count = pages.count(),
                                   .name_offset = options.name_offset,
                                   .name = options.name});
}

Result<void> TransactionState::map(const std::shared_ptr<SpaceState>& space, Range range,
                                   Protection protection, const MapOptions& options) {
    if (options.file) return map_file(space, range, protection, options);
    if (options.device) return map_device(space, range, protection, options);
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    PageRange pages;
    const auto needed = options.guard ? std::nullopt : std::optional(protection);
    if (auto fine = check(**joined, "map", range, needed, pages); !fine) return fine;
    if (auto fine = check_page_size(**joined, range, options); !fine) return fine;
    const unsigned leaf_level = table::level_of(options.page_size);
    if (options.grows_down)
        if (auto fine = check_stack(pages, options); !fine) return fine;
    TableEditor editor(session_, (*joined)->root);
    auto place = unmapped_place(editor, **joined, pages);
    if (!place) return std::unexpected(place.error());
    const auto where = placement(**joined, options.region);
    if (!where) return std::unexpected(where.error());
    if (!options.guard && !options.lazy && !options.grows_down) {
        if (auto room = make_way(**joined, pages.count()); !room) return room;
        // Pages may have left their tables meanwhile.
        place = editor.place_of(pages);
        if (!place) return std::unexpected(place.error());
    }
    const std::uint64_t charged = options.guard || !protection.writable() ? 0
                                  : options.grows_down
                                      ? options.grows_down->mapped_bytes >> kPageShift
                                      : pages.count();
    // A refusal changes nothing: the transaction may go on.
    if (auto fine = charge(**joined, static_cast<std::int64_t>(charged)); !fine) return fine;
    if (auto done = spoiled_by(annotate(**joined, pages, options)); !done) return done;
    if (options.grows_down)
        return spoiled_by(map_stack(editor, pages, protection, *options.grows_down));
    if (options.guard)
        return spoiled_by(editor.map_absent(*place, format::AbsentKind::guard, Protection()));
    if (options.lazy)
        return spoiled_by(
            editor.map_absent(*place, format::AbsentKind::demand_zero, protection, leaf_level - 1));
    return spoiled_by(editor.map(*place, protection, *where, leaf_level));
}

Result<void> TransactionState::check_page_size(const Joined& joined, Range range,
                                               const MapOptions& options) {
    const std::uint64_t size = bytes(options.page_size);
    if (joined.space->is_supervisor() &&
        table::level_of(options.page_size) == static_cast<unsigned>(joined.space->levels))
        return fail(ErrorCode::invalid_argument,
                    fmt::format("cannot map pages of 1 GiB in \"{}\": with three levels of tables "
                                "they would stand in the root, of which the spaces that share the "
                                "half have their own; use 2 MiB, or four levels",
                                joined.space->name()));
    if (range.start.bits() % size == 0 && range.size_bytes % size == 0) return {};
    return fail(ErrorCode::invalid_argument,
                fmt::format("cannot map {:#x}..{:#x} in space \"{}\" with pages of {}: start and "
                            "length must be multiples of {:#x}",
                            range.start.bits(), range.end().bits(), joined.space->name(),
                            options.page_size == PageSize::size_2MiB ? "2 MiB" : "1 GiB", size));
}

// A new entry is taken for right, so what is lost must not get one.
Result<void> TransactionState::check_shareable(const SpaceState& source, std::uint64_t page,
                                               FrameNumber frame) const {
    const memory::PhysicalMemory& memory = store_->memory;
    std::optional<FaultKind> lost = memory.out_of_reach(memory.current(frame));
    const auto metadata = session_.metadata(memory.current(frame));
    if (!lost && metadata && metadata->kind == format::FrameKind::shared_data &&
        !metadata->is_fixed())
        lost = memory.file_out_of_reach(metadata->owner, metadata->index);
    if (!lost) return {};
    return fail(ErrorCode::lost,
                fmt::format("{:#x} of space \"{}\" cannot be shared: {}; `verify` says more",
                            table::address_of_page(page, source.levels).bits(), source.name(),
                            to_string(*lost)));
}

Result<void> TransactionState::map_shared(const std::shared_ptr<SpaceState>& space, Range range,
                                          Protection protection,
                                          const std::shared_ptr<SpaceState>& source,
                                          Range source_range, const MapOptions& options) {
    // Whichever comes first is joined first, see `join`.
    for (const auto& each :
         source->record < space->record ? std::array{source, space} : std::array{space, source})
        if (auto done = join(each); !done) return std::unexpected(done.error());
    Joined& joined = **join(space);
    Joined& from = **join(source);
    PageRange pages, source_pages;
    if (auto fine = check(joined, "map", range, protection, pages); !fine) return fine;
    if (auto fine = check(from, "share", source_range, {}, source_pages); !fine) return fine;
    if (source_pages.count() > format::kEntriesPerTable)
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("at most {} pages can be shared by one call, and {} were asked for: "
                        "each raises a reference count",
                        format::kEntriesPerTable, source_pages.count()));
    TableEditor editor(session_, joined.root);
    auto place = unmapped_place(editor, joined, pages);
    if (!place) return std::unexpected(place.error());
    TableEditor source_editor(session_, from.root);
    std::vector<FrameNumber> frames;
    for (std::uint64_t page = source_pages.begin; page < source_pages.end; ++page) {
        auto found = source_editor.find(page);
        if (!found) return std::unexpected(found.error());
        if (!found->entry.has_frame())
            return fail(
                ErrorCode::not_mapped,
                fmt::format("{:#x} has no frame in space \"{}\"; map or write it first",
                            table::address_of_page(page, source->levels).bits(), source->name()));
    }
    const auto where = placement(from);
    if (!where) return std::unexpected(where.error());
    // Those that the range has no room for stay the source's own.
    source_pages.end = std::min(source_pages.end, source_pages.begin + pages.count());
    const auto before = charged_pages(from, source_pages);
    if (!before) return std::unexpected(before.error());
    if (auto done = annotate(joined, pages, options); !done) return done;
    for (std::uint64_t page = source_pages.begin; page < source_pages.end; ++page) {
        // What is shared has frames of its own; what forks and snapshots share must not see what is
        // written from now on.
        if (auto done = source_editor.swap_in(page, *where); !done) return spoiled_by(done);
        if (auto done = source_editor.split_to_page(page); !done) return spoiled_by(done);
        if (auto done = source_editor.unshare_page(page, *where); !done) return spoiled_by(done);
        auto found = source_editor.find(page);
        if (!found) return spoiled_by(std::unexpected(found.error()));
        if (auto fine = check_shareable(*source, page, found->entry.frame()); !fine)
            return spoiled_by(fine);
        frames.push_back(found->entry.frame());
    }
    from.changed.add(source_pages.begin, source_pages.end);
    for (const PageRange& moved : source_editor.moved()) from.changed.add(moved.begin, moved.end);
    if (auto done = spoiled_by(editor.map_frames(*place, protection, frames)); !done) return done;
    return spoiled_by(charge_since(from, source_pages, *before));
}

Result<void> TransactionState::unmap(const std::shared_ptr<SpaceState>& space, Range range) {
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    PageRange pages;
    if (auto fine = check(**joined, "unmap", range, {}, pages); !fine) return fine;
    const auto before = charged_pages(**joined, pages);
    if (!before) return std::unexpected(before.error());
    if (auto done = (*joined)->annotations.cut(pages); !done) return done;
    (*joined)->changed.add(pages.begin, pages.end);
    session_.may_take_held_back();
    TableEditor editor(session_, (*joined)->root);
    auto done = editor.unmap(pages);
    for (const PageRange& moved : editor.moved()) (*joined)->changed.add(moved.begin, moved.end);
    if (!done) return spoiled_by(std::move(done));
    return charge(**joined, -*before);
}

Result<void> TransactionState::protect(const std::shared_ptr<SpaceState>& space, Range range,
                                       Protection protection) {
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    PageRange pages;
    if (auto fine = check(**joined, "protect", range, protection, pages); !fine) return fine;
    TableEditor editor(session_, (*joined)->root);
    auto place = mapped_place(editor, **joined, pages);
    if (!place) return std::unexpected(place.error());
    const auto before = charged_pages(**joined, pages);
    if (!before) return std::unexpected(before.error());
    (*joined)->changed.add(pages.begin, pages.end);
    if (auto done = unshare_tables(**joined, pages); !done) return done;
    place = editor.place_of(pages);
    if (!place) return std::unexpected(place.error());
    auto done = editor.protect(*place, protection);
    for (const PageRange& moved : editor.moved()) (*joined)->changed.add(moved.begin, moved.end);
    if (!done) return spoiled_by(std::move(done));
    return spoiled_by(charge_since(**joined, pages, *before));
}

Result<std::uint64_t> TransactionState::mark(const std::shared_ptr<SpaceState>& space,
                                             Range range) {
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    PageRange pages;
    if (auto fine = check(**joined, "take a handle of", range, {}, pages); !fine)
        return std::unexpected(fine.error());
    TableEditor editor(session_, (*joined)->root);
    if (auto whole = mapped_place(editor, **joined, pages); !whole)
        return std::unexpected(whole.error());
    return (*joined)->annotations.mark(pages, store_->next_mark());
}

std::optional<table::TakenFrame> TransactionState::zero_for(bool for_writing) const {
    if (for_writing) return std::nullopt;
    const auto zero = store_->zero_frame();
    return zero ? std::optional(*zero) : std::nullopt;
}

Result<void> TransactionState::populate(const std::shared_ptr<SpaceState>& of, VirtAddr address,
                                        bool for_writing) {
    const std::shared_ptr<SpaceState>& space = responsible_for(of, address);
    if (auto fine = check_half(*space, "access", {address, 1}, {}); !fine) return fine;
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    if (auto fine = check_change(*space); !fine) return fine;
    if (const auto zero = zero_for(for_writing)) {
        const auto read = TableEditor(session_, (*joined)->root)
                              .populate_zero(page_index(address, space->levels), *zero);
        if (!read) return spoiled_by(std::unexpected(read.error()));
        if (*read) return {};
    }
    const auto where = placement(**joined);
    if (!where) return std::unexpected(where.error());
    if (auto room = make_way(**joined, 1); !room) return room;
    const unsigned largest = has_quota(**joined) ? 1 : format::kLeafLevelMax;
    return spoiled_by(TableEditor(session_, (*joined)->root)
                          .populate(page_index(address, space->levels), *where, largest));
}

Result<void> TransactionState::unshare(const std::shared_ptr<SpaceState>& of, VirtAddr address) {
    const std::shared_ptr<SpaceState>& space = responsible_for(of, address);
    if (auto fine = check_half(*space, "access", {address, 1}, {}); !fine) return fine;
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    if (auto fine = check_change(*space); !fine) return fine;
    const auto where = placement(**joined);
    if (!where) return std::unexpected(where.error());
    const std::uint64_t page = page_index(address, space->levels);
    if (has_quota(**joined)) {
        // Only a copy takes frames: a page that is the space's alone is just written again.
        const auto copied = TableEditor(session_, (*joined)->root).pages_to_copy(page);
        if (!copied) return std::unexpected(copied.error());
        if (*copied != 0)
            if (auto room = make_way(**joined, *copied); !room) return room;
    }
    (*joined)->changed.add(page, page + 1);
    TableEditor editor(session_, (*joined)->root);
    auto done = editor.unshare_page(page, *where);
    for (const PageRange& moved : editor.moved()) (*joined)->changed.add(moved.begin, moved.end);
    return spoiled_by(std::move(done));
}

// Before all tables of the range are replaced, for which they must be this space's alone. Nothing
// is translated otherwise by it, so that it may be many small commits before the one that counts:
// their logs do not grow with the range. Within a transaction that has changed tables already it is
// a part of that.
Result<void> TransactionState::unshare_tables(Joined& joined, PageRange pages) {
    if (!session_.is_idle()) {
        auto done = TableEditor(session_, joined.root).unshare_tables(pages, ~std::uint64_t{0});
        if (!done) return spoiled_by(std::unexpected(done.error()));
        return {};
    }
    for (bool any_left = true; any_left;) {
        table::EditSession step(store_->services);
        auto left = TableEditor(step, joined.root).unshare_tables(pages, kTablesUnsharedAtOnce);
        if (!left) return std::unexpected(left.error());
        if (step.is_idle()) return {};
        any_left = *left;
        if (auto done = commit_step(joined, step, {}); !done) return done;
    }
    return {};
}

Result<void> TransactionState::commit_step(const Joined& joined, table::EditSession& step,
                                           const space::ChangedPages& changed) {
    const table::ChangeGate::Inside inside(store_->gate);
    std::optional<StoreState::CommitLock> commit_lock;
    if (step.needs_commit_lock()) commit_lock.emplace(store_->commit_mutex);
    if (changed.empty()) return step.commit({});
    joined.space->changes.begin();
    auto done = step.commit({});
    joined.space->changes.end(done ? changed.all() : std::span<const space::ChangedPages::Pages>());
    return done;
}

Result<void> TransactionState::fill(const std::shared_ptr<SpaceState>& space, VirtAddr address,
                                    std::span<const std::byte> source) {
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    TableEditor editor(session_, (*joined)->root);
    while (!source.empty()) {
        if (VirtAddr::truncated(address.bits(), space->levels) != address)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("{:#x} is not canonical", address.bits()));
        auto found = editor.find(page_index(address, space->levels));
        if (!found) return std::unexpected(found.error());
        if (!found->entry.is_present())
            return fail(ErrorCode::not_mapped, fmt::format("{:#x} has no frame in space \"{}\"",
                                                           address.bits(), space->name()));
        const std::uint64_t page = page_index(address, space->levels);
        const FrameNumber frame = found->entry.frame() + page % table::entry_pages(found->level);
        if (!session_.is_fresh(frame))
            return fail(ErrorCode::invalid_argument,
                        fmt::format("the page at {:#x} was mapped before this transaction, which "
                                    "could not take the bytes back; use Space::write",
                                    address.bits()));
        const std::size_t size =
            std::min<std::size_t>(source.size(), kPageSize - address.page_offset());
        store_->pool->copy(store_->memory.host(frame) + address.page_offset(), source.data(), size);
        source = source.subspan(size);
        address = address + size;
    }
    return {};
}

std::expected<Translation, Fault> TransactionState::translate(
    const std::shared_ptr<SpaceState>& space, VirtAddr address) {
    const auto fault = [&](FaultKind kind, unsigned level, Entry entry) {
        return std::unexpected(Fault{.kind = kind,
                                     .address = address,
                                     .level = static_cast<std::uint8_t>(level),
                                     .protection = entry.protection(),
                                     .entry = entry.bits()});
    };
    if (VirtAddr::truncated(address.bits(), space->levels) != address)
        return fault(FaultKind::non_canonical, 0, Entry());
    auto joined = join(space);
    if (!joined) return fault(FaultKind::not_mapped, 0, Entry());
    auto found = TableEditor(session_, (*joined)->root).find(page_index(address, space->levels));
    if (!found) return fault(FaultKind::wrong_table, 0, Entry());
    if (!found->entry.is_present())
        return std::unexpected(table::detail::absent_fault(found->entry, found->level, address));
    return table::detail::translation(found->entry, found->level, found->links, address);
}

// --- the end ---

Result<void> TransactionState::commit() {
    if (spoiled_) {
        const Error error = *spoiled_;
        abort();
        return std::unexpected(error);
    }
    pool::Pool::Body body;
    if (has_names()) body = [&](pool::TransactionScope& scope) { return apply_names(scope); };
    Result<void> done;
    {
        const table::ChangeGate::Inside inside(store_->gate);
        std::optional<StoreState::CommitLock> commit_lock;
        if (session_.needs_commit_lock()) commit_lock.emplace(store_->commit_mutex);
        std::unique_lock<std::shared_mutex> directory_lock;
        if (!names_.empty()) directory_lock = std::unique_lock(store_->directory_map);
        std::vector<std::unique_lock<std::shared_mutex>> name_locks;
        if (body)
            for (const auto& joined : joined_) name_locks.emplace_back(joined.space->names);
        // From here on, and until each space's changes are told below, nobody answers from memory.
        for (const auto& joined : joined_)
            if (!joined.changed.empty()) joined.space->changes.begin();
        done = session_.commit(body);
        if (done) settle_charge();
        if (done && body)
            for (const auto& joined : joined_)
                joined.space->annotations =
                    reinterpret_cast<const SpaceRecord*>(store_->memory.host(joined.space->record))
                        ->annotations_offset;
    }
    if (!done) {
        for (const auto& joined : joined_)
            if (!joined.changed.empty()) joined.space->changes.end({});
        abort();
        return done;
    }
    // Durable; now the volatile side follows, before this call returns.
    bool shares = false;
    for (const auto& joined : joined_) {
        shares = shares || joined.shares;
        SpaceState& space = *joined.space;
        if (joined.new_name) space.rename(*joined.new_name);
        if (joined.new_region) space.preferred_region = *joined.new_region;
        if (joined.new_quota) space.quota_pages = *joined.new_quota;
        if (space.is_file) told_files(joined);
        if (joined.removed) {
            space.root_bits.store(0, std::memory_order_release);
            store_->forget_space(space.record);
            store_->reclaim.forget(space.record);
            store_->allocator.charges().forget(space.record);
        } else if (joined.created || joined.new_root) {
            space.root_bits.store(joined.root.entry.bits(), std::memory_order_release);
            if (joined.created) store_->remember_space(joined.space);
        }
        if (!joined.changed.empty()) space.changes.end(joined.changed.all());
    }
    // Whoever was writing a page when it became shared has the right to end that; nobody begins.
    if (shares) memory::ReaderSection::wait_for_readers();
    let_go();
    store_->release_some();
    return {};
}

void TransactionState::abort() {
    give_charge_back();
    session_.abort();
    let_go();
}

void TransactionState::let_go() {
    for (const auto& joined : joined_) joined.space->writer.unlock();
    joined_.clear();
    if (holds_directory_) store_->directory_writer.unlock();
    holds_directory_ = false;
    names_.clear();
    spoiled_.reset();
}

}  // namespace holdfast::detail
