#include "store/transaction_state.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bitset>
#include <cstring>

namespace holdfast::detail {

using format::SpaceRecord;
using table::Entry;
using table::page_index;
using table::PageRange;
using table::TableEditor;

namespace {

// Renames are rare and rewrite the checksummed part of the record as a whole.
void write_record(pool::TransactionScope& scope, SpaceRecord* record, SpaceRecord changed) {
    changed.checksum = changed.computed_checksum();
    scope.write(record, std::as_bytes(std::span(&changed, 1)).first(offsetof(SpaceRecord, root)));
}

void set_name(SpaceRecord& record, const std::string& name) {
    std::memset(record.name, 0, sizeof record.name);
    std::memcpy(record.name, name.data(), name.size());
    record.name_length = static_cast<std::uint16_t>(name.size());
}

Result<void> check_name(const std::string& name) {
    const bool fine = !name.empty() && name.size() <= format::kSpaceNameMax &&
                      std::none_of(name.begin(), name.end(),
                                   [](unsigned char c) { return c < 0x20 || c == 0x7f; });
    if (fine) return {};
    return fail(ErrorCode::invalid_argument,
                fmt::format("\"{}\" cannot be the name of a space: 1 to {} bytes, no control "
                            "characters",
                            name, format::kSpaceNameMax));
}

}  // namespace

TransactionState::TransactionState(std::shared_ptr<StoreState> store)
    : store_(std::move(store)), session_(store_->services) {}

Result<void> TransactionState::spoiled_by(Result<void> outcome) {
    if (!outcome) spoiled_ = outcome.error();
    return outcome;
}

// --- joining ---

Result<TransactionState::Joined*> TransactionState::join(const std::shared_ptr<SpaceState>& space) {
    if (spoiled_) return std::unexpected(*spoiled_);
    for (Joined& joined : joined_) {
        if (joined.space != space) continue;
        if (joined.removed)
            return fail(ErrorCode::stale,
                        fmt::format("space \"{}\" was removed in this transaction", space->name()));
        return &joined;
    }
    if (space->store != store_)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("space \"{}\" belongs to another store than the transaction",
                                space->name()));
    if (auto begun = store_->begin_changes(); !begun) return std::unexpected(begun.error());
    // Waiting is safe if this space comes after all that are held already: everybody who waits
    // then waits for somebody further on, and there is no circle.
    const auto comes_after = [&](const Joined& held) { return held.space->record < space->record; };
    const bool may_wait = std::all_of(joined_.begin(), joined_.end(), comes_after);
    switch (space->writer.lock(may_wait)) {
        case space::WriterLock::Outcome::locked:
            break;
        case space::WriterLock::Outcome::held_by_this_thread:
            return fail(ErrorCode::busy,
                        fmt::format("space \"{}\" is held by another transaction of this thread; "
                                    "commit or abort that one first",
                                    space->name()));
        case space::WriterLock::Outcome::would_wait:
            return fail(ErrorCode::busy,
                        fmt::format("space \"{}\" is held by another transaction; abort this one "
                                    "and try again",
                                    space->name()));
    }
    const table::Root root = space->root();
    if (root.entry.is_empty()) {
        space->writer.unlock();
        return fail(ErrorCode::stale,
                    fmt::format("space \"{}\" was removed, or its creation was not committed",
                                space->name()));
    }
    joined_.push_back(Joined{.space = space,
                             .root = root,
                             .annotations = space::Annotations(*store_->pool, space->annotations),
                             .created = false,
                             .removed = false,
                             .changes_translations = false,
                             .new_name = {},
                             .new_region = {}});
    return &joined_.back();
}

Result<void> TransactionState::join_directory() {
    if (spoiled_) return std::unexpected(*spoiled_);
    if (holds_directory_) return {};
    if (auto begun = store_->begin_changes(); !begun) return begun;
    // The directory comes before every space.
    if (store_->directory_writer.lock(joined_.empty()) != space::WriterLock::Outcome::locked)
        return fail(ErrorCode::busy,
                    "the directory of spaces is held by another transaction; abort this one and "
                    "try again");
    holds_directory_ = true;
    return {};
}

// --- names ---

Result<std::optional<FrameNumber>> TransactionState::look_up(const std::string& name) const {
    if (const auto changed = names_.find(name); changed != names_.end()) return changed->second;
    const std::shared_lock lock(store_->directory_map);
    const auto value = store_->directory().get(name);
    if (!value) return std::nullopt;
    std::uint64_t frame = 0;
    if (value->size() == sizeof frame) std::memcpy(&frame, value->data(), sizeof frame);
    return store_->memory.current(FrameNumber(frame));
}

Result<std::shared_ptr<SpaceState>> TransactionState::named(const std::string& name) {
    auto frame = look_up(name);
    if (!frame) return std::unexpected(frame.error());
    if (!*frame)
        return fail(ErrorCode::not_found,
                    fmt::format("{}: no space named \"{}\"; `space list` shows the names",
                                store_->pool->path(), name));
    for (const auto& joined : joined_)
        if (joined.space->record == **frame) return joined.space;
    return store_->find_space(name);
}

Result<format::OwnerId> TransactionState::next_owner() {
    std::uint64_t* const word = &store_->memory.superblock().next_owner;
    const auto next = format::CheckedWord::decode(session_.load(word), format::kSeedNextOwner);
    if (!next)
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the next owner id fails its check", store_->pool->path()));
    constexpr std::uint64_t kIds = format::kOwnerCount - 1;  // 0 is nobody
    std::uint64_t counter = *next;
    if (counter >= kIds) {
        // The ids have been round once: pass over those in use, by a space or in limbo.
        auto used = std::make_unique<std::bitset<format::kOwnerCount>>();
        const std::shared_lock lock(store_->directory_map);
        store_->directory().visit("", [&](std::string_view, std::string_view value) {
            std::uint64_t frame = 0;
            if (value.size() == sizeof frame) std::memcpy(&frame, value.data(), sizeof frame);
            if (const SpaceRecord* record = store_->space_record(FrameNumber(frame)))
                used->set(record->owner % format::kOwnerCount);
            return true;
        });
        if (auto done = store_->limbo.visit(
                [&](const format::LimboRecord& record) {
                    used->set(record.owner % format::kOwnerCount);
                },
                [](FrameNumber) {});
            !done)
            return std::unexpected(done.error());
        for (const auto& joined : joined_) used->set(joined.space->owner);
        std::uint64_t tried = 0;
        while (tried < kIds && used->test(1 + counter % kIds)) ++counter, ++tried;
        if (tried == kIds)
            return fail(ErrorCode::no_space,
                        fmt::format("{}: all {} owner ids are in use; remove a space",
                                    store_->pool->path(), kIds));
    }
    session_.store_undo(word, format::CheckedWord::encode(counter + 1, format::kSeedNextOwner));
    return static_cast<format::OwnerId>(1 + counter % kIds);
}

Result<std::shared_ptr<SpaceState>> TransactionState::create_space(const std::string& name,
                                                                   const SpaceOptions& options) {
    if (auto fine = check_name(name); !fine) return std::unexpected(fine.error());
    if (options.levels < Levels::three || options.levels > Levels::five)
        return fail(ErrorCode::invalid_argument, "a space has 3, 4 or 5 levels of tables");
    if (auto joined = join_directory(); !joined) return std::unexpected(joined.error());
    auto existing = look_up(name);
    if (!existing) return std::unexpected(existing.error());
    if (*existing)
        return fail(ErrorCode::already_exists,
                    fmt::format("{}: a space named \"{}\" exists already; open it, or choose "
                                "another name",
                                store_->pool->path(), name));
    const auto spoil = [&](Error error) {
        spoiled_ = error;
        return std::unexpected(std::move(error));
    };
    const auto region = region_on_medium(options.region);
    if (!region) return std::unexpected(region.error());
    auto owner = next_owner();
    if (!owner) return spoil(owner.error());
    auto record_frame = session_.take(format::FrameKind::space_record, *owner, 0);
    if (!record_frame) return spoil(record_frame.error());
    const unsigned top = static_cast<unsigned>(options.levels);
    auto root_table = session_.take_table({top, *owner, 0});
    if (!root_table) return spoil(root_table.error());

    // The record is fresh: in place, flushed, and reachable only by the commit.
    SpaceRecord record{};
    record.magic = format::kSpaceMagic;
    record.owner = *owner;
    record.levels = static_cast<std::uint8_t>(options.levels);
    record.kind = format::SpaceKind::address_space;
    record.created_epoch = store_->boot_epoch();
    set_name(record, name);
    record.preferred_region = *region;
    record.checksum = record.computed_checksum();
    const Entry root_entry =
        Entry::table(root_table->frame, table::Root::place_of_root(options.levels, *owner),
                     root_table->generation);
    record.root = root_entry.bits();
    store_->pool->copy(store_->memory.host(record_frame->frame), &record, sizeof record);

    auto space =
        std::make_shared<SpaceState>(store_, record_frame->frame, options.levels, *owner, name);
    space->preferred_region = *region;
    space->writer.lock(true);  // nobody else can know it
    joined_.push_back(Joined{.space = space,
                             .root = {root_entry, options.levels, *owner},
                             .annotations = space::Annotations(*store_->pool, 0),
                             .created = true,
                             .removed = false,
                             .changes_translations = false,
                             .new_name = {},
                             .new_region = {}});
    names_[name] = record_frame->frame;
    return space;
}

Result<void> TransactionState::rename_space(const std::string& from, const std::string& to) {
    if (auto fine = check_name(to); !fine) return fine;
    if (auto joined = join_directory(); !joined) return joined;
    auto space = named(from);
    if (!space) return std::unexpected(space.error());
    auto target = look_up(to);
    if (!target) return std::unexpected(target.error());
    if (*target)
        return fail(ErrorCode::already_exists,
                    fmt::format("{}: a space named \"{}\" exists already; choose another name",
                                store_->pool->path(), to));
    auto joined = join(*space);
    if (!joined) return std::unexpected(joined.error());
    (*joined)->new_name = to;
    names_[from] = std::nullopt;
    names_[to] = (*space)->record;
    return {};
}

Result<std::uint8_t> TransactionState::region_on_medium(std::optional<unsigned> region) const {
    if (!region) return std::uint8_t{0};
    if (*region < store_->memory.regions().size()) return static_cast<std::uint8_t>(*region + 1);
    return fail(ErrorCode::not_found,
                fmt::format("{}: there is no region {}; `region list` shows those there are",
                            store_->pool->path(), *region));
}

Result<void> TransactionState::prefer_region(const std::shared_ptr<SpaceState>& space,
                                             std::optional<unsigned> region) {
    const auto on_medium = region_on_medium(region);
    if (!on_medium) return std::unexpected(on_medium.error());
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    (*joined)->new_region = *on_medium;
    return {};
}

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

Result<void> TransactionState::remove_space(const std::string& name) {
    if (auto joined = join_directory(); !joined) return joined;
    auto space = named(name);
    if (!space) return std::unexpected(space.error());
    auto joined = join(*space);
    if (!joined) return std::unexpected(joined.error());
    const table::Root& root = (*joined)->root;
    const auto table_metadata = session_.metadata(root.entry.frame());
    const auto record_metadata = session_.metadata((*space)->record);
    if (!table_metadata || !record_metadata)
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the root of space \"{}\" fails its checks; run `repair`",
                                store_->pool->path(), name));
    session_.may_take_held_back();
    // Both records go with the commit; the tables below follow by and by. The space record is
    // pushed first and so released last.
    session_.detach(format::LimboKind::space, {root.top(), root.owner, 0},
                    {(*space)->record, record_metadata->generation});
    session_.detach(format::LimboKind::subtree, {root.top(), root.owner, 0},
                    {root.entry.frame(), table_metadata->generation});
    (*joined)->removed = true;
    (*joined)->changes_translations = true;
    names_[name] = std::nullopt;
    return {};
}

// --- ranges ---

Result<void> TransactionState::check(const Joined& joined, const char* action, Range range,
                                     std::optional<Protection> protection, PageRange& pages) const {
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
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    PageRange pages;
    if (auto fine = check(**joined, "map", range, protection, pages); !fine) return fine;
    TableEditor editor(session_, (*joined)->root);
    auto place = unmapped_place(editor, **joined, pages);
    if (!place) return std::unexpected(place.error());
    const auto where = placement(**joined, options.region);
    if (!where) return std::unexpected(where.error());
    if (auto done = annotate(**joined, pages, options); !done) return done;
    return spoiled_by(options.lazy ? editor.map_lazy(*place, protection)
                                   : editor.map(*place, protection, *where));
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
        if (!found->entry.is_present())
            return fail(
                ErrorCode::not_mapped,
                fmt::format("{:#x} has no frame in space \"{}\"; map or write it first",
                            table::address_of_page(page, source->levels).bits(), source->name()));
        frames.push_back(found->entry.frame());
    }
    if (auto done = annotate(joined, pages, options); !done) return done;
    return spoiled_by(editor.map_frames(*place, protection, frames));
}

Result<void> TransactionState::unmap(const std::shared_ptr<SpaceState>& space, Range range) {
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    PageRange pages;
    if (auto fine = check(**joined, "unmap", range, {}, pages); !fine) return fine;
    if (auto done = (*joined)->annotations.cut(pages); !done) return done;
    (*joined)->changes_translations = true;
    session_.may_take_held_back();
    return spoiled_by(TableEditor(session_, (*joined)->root).unmap(pages));
}

Result<void> TransactionState::protect(const std::shared_ptr<SpaceState>& space, Range range,
                                       Protection protection) {
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    PageRange pages;
    if (auto fine = check(**joined, "protect", range, protection, pages); !fine) return fine;
    TableEditor editor(session_, (*joined)->root);
    const auto place = mapped_place(editor, **joined, pages);
    if (!place) return std::unexpected(place.error());
    (*joined)->changes_translations = true;
    return spoiled_by(editor.protect(*place, protection));
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

Result<void> TransactionState::populate(const std::shared_ptr<SpaceState>& space,
                                        VirtAddr address) {
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    const auto where = placement(**joined);
    if (!where) return std::unexpected(where.error());
    return spoiled_by(TableEditor(session_, (*joined)->root)
                          .populate(page_index(address, space->levels), *where));
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
        const FrameNumber frame = found->entry.frame();
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
    const std::uint64_t offset_mask = format::entry_span_bytes(found->level) - 1;
    return Translation{
        PhysAddr(PhysAddr::of(found->entry.frame()).bits() | (address.bits() & offset_mask)),
        static_cast<PageSize>(kPageShift + 9 * (found->level - 1)), found->entry.protection()};
}

// --- the end ---

bool TransactionState::has_names() const {
    return !names_.empty() || std::any_of(joined_.begin(), joined_.end(), [](const auto& joined) {
        return !joined.removed && (joined.annotations.changed() || joined.new_region);
    });
}

Result<void> TransactionState::apply_names(pool::TransactionScope& scope) {
    pool::OrderedMap directory = store_->directory();
    for (const auto& [name, frame] : names_) {
        if (frame) {
            const std::uint64_t value = frame->value();
            directory.put(scope, name, {reinterpret_cast<const char*>(&value), sizeof value});
        } else if (directory.get(name)) {
            directory.erase(scope, name);
        }
    }
    for (const auto& joined : joined_) {
        if (joined.removed) continue;
        auto* const record =
            reinterpret_cast<SpaceRecord*>(store_->memory.host(joined.space->record));
        SpaceRecord changed = *record;
        if (joined.new_name) set_name(changed, *joined.new_name);
        if (joined.new_region) changed.preferred_region = *joined.new_region;
        if (joined.annotations.changed())
            changed.annotations_offset = joined.annotations.apply(scope);
        if (joined.new_name || joined.new_region ||
            changed.annotations_offset != record->annotations_offset)
            write_record(scope, record, changed);
    }
    return {};
}

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
        if (session_.needs_commit_lock()) commit_lock.emplace(*store_);
        std::unique_lock<std::shared_mutex> directory_lock;
        if (!names_.empty()) directory_lock = std::unique_lock(store_->directory_map);
        std::vector<std::unique_lock<std::shared_mutex>> name_locks;
        if (body)
            for (const auto& joined : joined_) name_locks.emplace_back(joined.space->names);
        done = session_.commit(body);
        if (done && body)
            for (const auto& joined : joined_)
                joined.space->annotations =
                    reinterpret_cast<const SpaceRecord*>(store_->memory.host(joined.space->record))
                        ->annotations_offset;
    }
    if (!done) {
        abort();
        return done;
    }
    // Durable; now the volatile side follows, before this call returns.
    for (const auto& joined : joined_) {
        SpaceState& space = *joined.space;
        if (joined.new_name) space.rename(*joined.new_name);
        if (joined.new_region) space.preferred_region = *joined.new_region;
        if (joined.removed) {
            space.root_bits.store(0, std::memory_order_release);
            store_->forget_space(space.record);
        } else if (joined.created) {
            space.root_bits.store(joined.root.entry.bits(), std::memory_order_release);
            store_->remember_space(joined.space);
        }
        if (joined.changes_translations) space.generation.fetch_add(1, std::memory_order_acq_rel);
    }
    let_go();
    store_->release_some();
    return {};
}

void TransactionState::abort() {
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
