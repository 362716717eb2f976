// What a transaction does to the directory: spaces made, renamed, removed, and what their records
// say.
#include <fmt/format.h>

#include <algorithm>
#include <bitset>
#include <cstring>

#include "store/transaction_state.hpp"

namespace holdfast::detail {

using format::SpaceRecord;
using table::Entry;

namespace {

// Renames are rare and rewrite the checksummed part of the record as a whole.
void write_record(pool::TransactionScope& scope, SpaceRecord* record, SpaceRecord changed) {
    changed.checksum = changed.computed_checksum();
    scope.write(record, std::as_bytes(std::span(&changed, 1)).first(offsetof(SpaceRecord, root)));
}

void write_file_record(pool::TransactionScope& scope, SpaceRecord* record, const KnownFile& file) {
    const format::FileRecord changed = file.on_medium();
    scope.write(reinterpret_cast<std::byte*>(record) + format::kFileRecordAt,
                std::as_bytes(std::span(&changed, 1)).first(changed.used_bytes()));
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
    if (auto fine = store_->check_name_of_space(name); !fine) return std::unexpected(fine.error());
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

Result<void> TransactionState::check_unused(const std::string& name) {
    if (auto fine = check_name(name); !fine) return fine;
    if (auto joined = join_directory(); !joined) return joined;
    auto existing = look_up(name);
    if (!existing) return std::unexpected(existing.error());
    if (*existing)
        return fail(ErrorCode::already_exists,
                    fmt::format("{}: a space named \"{}\" exists already; open it, or choose "
                                "another name",
                                store_->pool->path(), name));
    return {};
}

Result<std::shared_ptr<SpaceState>> TransactionState::make_space(
    const std::string& name, SpaceRecord record, table::TakenFrame record_frame,
    table::TakenFrame root_table, std::shared_ptr<SpaceState> supervisor) {
    record.magic = format::kSpaceMagic;
    record.created_epoch = store_->boot_epoch();
    set_name(record, name);
    record.checksum = record.computed_checksum();
    const auto levels = static_cast<Levels>(record.levels);
    const Entry root_entry = Entry::table(
        root_table.frame, table::Root::place_of_root(levels, record.owner), root_table.generation);
    record.root = root_entry.bits();
    // The record is fresh: in place, flushed, and reachable only by the commit.
    store_->pool->copy(store_->memory.host(record_frame.frame), &record, sizeof record);

    auto space = std::make_shared<SpaceState>(store_, record_frame.frame, record);
    space->supervisor = std::move(supervisor);
    space->writer.lock(true);  // nobody else can know it
    Joined joined{.space = space,
                  .root = {root_entry, levels, record.owner, record.upper_owner()},
                  .annotations = space::Annotations(*store_->pool, 0)};
    joined.created = true;
    joined_.push_back(std::move(joined));
    names_[name] = record_frame.frame;
    return space;
}

Result<std::shared_ptr<SpaceState>> TransactionState::create_space(const std::string& name,
                                                                   const SpaceOptions& options) {
    if (options.levels < Levels::three || options.levels > Levels::five)
        return fail(ErrorCode::invalid_argument, "a space has 3, 4 or 5 levels of tables");
    if (auto fine = check_unused(name); !fine) return std::unexpected(fine.error());
    const auto region = region_on_medium(options.region);
    if (!region) return std::unexpected(region.error());
    const auto spoil = [&](Error error) {
        spoiled_ = error;
        return std::unexpected(std::move(error));
    };
    std::shared_ptr<SpaceState> supervisor;
    if (!options.supervisor.empty()) {
        auto found = named_supervisor(options);
        if (!found) return found;
        supervisor = std::move(*found);
    }
    auto owner = next_owner();
    if (!owner) return spoil(owner.error());
    // All of the tables of the half at once: they need no log.
    if (options.is_supervisor)
        if (auto done = session_.reserve(format::kEntriesPerTable / 2 + 2); !done)
            return spoil(done.error());
    auto record_frame = session_.take(format::FrameKind::space_record, *owner, 0);
    if (!record_frame) return spoil(record_frame.error());
    auto root_table = session_.take_table({static_cast<unsigned>(options.levels), *owner, 0});
    if (!root_table) return spoil(root_table.error());
    SpaceRecord record{};
    record.owner = *owner;
    record.levels = static_cast<std::uint8_t>(options.levels);
    record.kind =
        options.is_supervisor ? format::SpaceKind::supervisor : format::SpaceKind::address_space;
    record.preferred_region = *region;
    if (options.is_supervisor)
        if (auto done = make_half(*root_table, options.levels, *owner); !done)
            return spoil(done.error());
    if (supervisor)
        if (auto done = link_half(*root_table, record, supervisor); !done)
            return spoil(done.error());
    return make_space(name, record, *record_frame, *root_table, std::move(supervisor));
}

Result<void> TransactionState::rename_space(const std::string& from, const std::string& to) {
    if (auto fine = check_name(to); !fine) return fine;
    if (auto joined = join_directory(); !joined) return joined;
    auto space = named(from);
    if (!space) return std::unexpected(space.error());
    if (auto fine = check_unused(to); !fine) return fine;
    auto joined = join(*space);
    if (!joined) return std::unexpected(joined.error());
    (*joined)->new_name = to;
    names_[from] = std::nullopt;
    names_[to] = (*space)->record;
    return {};
}

Result<std::uint8_t> TransactionState::region_on_medium(std::optional<unsigned> region) const {
    if (!region) return std::uint8_t{0};
    if (*region < store_->memory.regions().size() &&
        !store_->memory.regions()[*region].gives_frames())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}: region {} is {}, and pages are not put there",
                                store_->pool->path(), *region,
                                store_->memory.regions()[*region].kind() == RegionKind::swap
                                    ? "for pages that are swapped"
                                    : "a device's"));
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
    if (auto fine = check_change(*space); !fine) return fine;
    (*joined)->new_region = *on_medium;
    return {};
}

Result<void> TransactionState::remove_space(const std::string& name) {
    if (auto joined = join_directory(); !joined) return joined;
    auto space = named(name);
    if (!space) return std::unexpected(space.error());
    return remove(*space, name);
}

Result<void> TransactionState::remove(const std::shared_ptr<SpaceState>& space,
                                      const std::string& name) {
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    if (space->is_supervisor())
        if (auto fine = check_unshared(*space); !fine) return fine;
    const table::Root& root = (*joined)->root;
    const auto table_metadata = session_.metadata(root.entry.frame());
    const auto record_metadata = session_.metadata(space->record);
    if (!table_metadata || !record_metadata)
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the root of space \"{}\" fails its checks; run `repair`",
                                store_->pool->path(), name));
    session_.may_take_held_back();
    // Both records go with the commit; the tables below follow by and by. The space record is
    // pushed first and so released last.
    session_.detach(format::LimboKind::space, {root.top(), root.owner, 0},
                    {space->record, record_metadata->generation});
    session_.detach(format::LimboKind::subtree, {root.top(), root.owner, 0},
                    {root.entry.frame(), table_metadata->generation});
    if (!space->is_snapshot)
        if (auto fine = charge(**joined, -charge_of(**joined)); !fine) return fine;
    (*joined)->removed = true;
    (*joined)->changed.add_all(space->levels);
    names_[name] = std::nullopt;
    return {};
}

bool TransactionState::has_names() const {
    return !names_.empty() || std::any_of(joined_.begin(), joined_.end(), [](const auto& joined) {
        return !joined.removed && (joined.annotations.changed() || joined.new_region ||
                                   joined.new_quota || joined.new_file);
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
        if (joined.new_quota) changed.quota_pages = *joined.new_quota;
        if (joined.annotations.changed())
            changed.annotations_offset = joined.annotations.apply(scope);
        if (joined.new_name || joined.new_region || joined.new_quota ||
            changed.annotations_offset != record->annotations_offset)
            write_record(scope, record, changed);
        if (joined.new_file) write_file_record(scope, record, *joined.new_file);
    }
    return {};
}

}  // namespace holdfast::detail
