// Supervisor objects (include/holdfast/supervisor.hpp): a half that many spaces have by reference.
//
// The object is a space with tables of its own lineage. All tables that its root links to in the
// upper half, one for each of the 256 slots, are made with it, and none is ever replaced
// (table::TablePosition::is_pinned). So a space that shares the half links to them once, when it is
// made, and whatever the object maps from then on is there for all of them with the commit that
// maps it. These links are not counted: the tables are there as long as the object, which cannot be
// removed while a space shares it, and so neither making nor removing such a space touches their
// metadata.
#include <fmt/format.h>

#include <algorithm>

#include "store/transaction_state.hpp"

namespace holdfast::detail {

using format::SpaceRecord;
using table::Entry;
using table::TablePosition;

namespace {

constexpr unsigned kFirstUpperSlot = format::kEntriesPerTable / 2;

bool is_upper(VirtAddr address) { return address.bits() >> 63 != 0; }

}  // namespace

const std::shared_ptr<SpaceState>& TransactionState::responsible_for(
    const std::shared_ptr<SpaceState>& space, VirtAddr address) {
    return space->supervisor != nullptr && is_upper(address) ? space->supervisor : space;
}

Result<void> TransactionState::check_half(const SpaceState& space, const char* action, Range range,
                                          std::optional<Protection> protection) {
    if (space.shares_upper_half() && is_upper(range.start))
        return fail(ErrorCode::permission_denied,
                    fmt::format("cannot {} {:#x} in space \"{}\": the upper half is the supervisor "
                                "object's{}; change it there",
                                action, range.start.bits(), space.name(),
                                space.supervisor ? " \"" + space.supervisor->name() + "\"" : ""));
    if (!space.is_supervisor()) return {};
    if (!is_upper(range.start))
        return fail(ErrorCode::invalid_argument,
                    fmt::format("cannot {} {:#x} in \"{}\": a supervisor object has the upper half "
                                "only",
                                action, range.start.bits(), space.name()));
    if (protection && protection->user())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("cannot {} {:#x} in \"{}\": what a supervisor object maps is not "
                                "for user programs; leave out u",
                                action, range.start.bits(), space.name()));
    return {};
}

Result<std::shared_ptr<SpaceState>> TransactionState::named_supervisor(
    const SpaceOptions& options) {
    if (options.is_supervisor)
        return fail(ErrorCode::invalid_argument,
                    "a supervisor object does not share the half of another");
    auto supervisor = named(options.supervisor);
    if (!supervisor) return supervisor;
    if (!(*supervisor)->is_supervisor() || (*supervisor)->levels != options.levels)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("\"{}\" is no supervisor object with {} levels of tables",
                                options.supervisor, static_cast<int>(options.levels)));
    // Held to the end, so that nobody removes it meanwhile.
    if (auto joined = join(*supervisor); !joined) return std::unexpected(joined.error());
    return supervisor;
}

Result<void> TransactionState::make_half(table::TakenFrame root, Levels levels,
                                         format::OwnerId owner) {
    const TablePosition position{static_cast<unsigned>(levels), owner, 0, owner};
    for (unsigned slot = kFirstUpperSlot; slot < format::kEntriesPerTable; ++slot) {
        auto table = session_.take_table(position.child(slot));
        if (!table) return std::unexpected(table.error());
        session_.store_entry(root.frame, slot,
                             Entry::table(table->frame, position.entry(slot), table->generation));
    }
    session_.flush_entries(root.frame, kFirstUpperSlot, format::kEntriesPerTable);
    return {};
}

Result<void> TransactionState::link_half(table::TakenFrame root, SpaceRecord& record,
                                         const std::shared_ptr<SpaceState>& supervisor) {
    const auto metadata = session_.metadata_of(supervisor->record);
    if (!metadata) return std::unexpected(metadata.error());
    record.supervisor = store_->memory.metadata(supervisor->record).home.value();
    record.supervisor_owner = supervisor->owner;
    record.supervisor_generation = metadata->generation;
    const auto joined = join(supervisor);
    if (!joined) return std::unexpected(joined.error());
    const FrameNumber half = (*joined)->root.entry.frame();
    const TablePosition position{record.levels, record.owner, 0, supervisor->owner};
    for (unsigned slot = kFirstUpperSlot; slot < format::kEntriesPerTable; ++slot) {
        // Empty where a damaged table was cut off by `repair`.
        const Entry link = session_.load_entry(half, slot);
        if (link.is_empty()) continue;
        const auto table = session_.metadata_of(link.frame());
        if (!table) return std::unexpected(table.error());
        session_.store_entry(root.frame, slot,
                             Entry::table(store_->memory.current(link.frame()),
                                          position.entry(slot), table->generation));
    }
    session_.flush_entries(root.frame, kFirstUpperSlot, format::kEntriesPerTable);
    return {};
}

Result<void> TransactionState::check_unshared(const SpaceState& supervisor) {
    std::string sharing;
    // By this very transaction: it shares nothing any more when that commits.
    const auto is_removed = [&](format::OwnerId owner) {
        return std::any_of(joined_.begin(), joined_.end(), [&](const Joined& joined) {
            return joined.removed && joined.space->owner == owner;
        });
    };
    {
        const std::shared_lock lock(store_->directory_map);
        store_->visit_records([&](std::string_view name, const SpaceRecord* record) {
            if (record != nullptr && record->kind != format::SpaceKind::supervisor &&
                record->supervisor_owner == supervisor.owner && sharing.empty() &&
                !is_removed(record->owner))
                sharing = name;
        });
    }
    for (const Joined& joined : joined_)
        if (joined.created && !joined.removed && joined.space->shares_upper_half() &&
            joined.space->upper_owner == supervisor.owner)
            sharing = joined.space->name();
    if (sharing.empty()) return {};
    return fail(
        ErrorCode::busy,
        fmt::format("{}: the supervisor object \"{}\" cannot be removed while \"{}\" shares "
                    "its half; remove that first",
                    store_->pool->path(), supervisor.name(), sharing));
}

}  // namespace holdfast::detail
