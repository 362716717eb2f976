// Forks, snapshots and the way back: spaces of one lineage, which share tables until one of them
// writes (table/table_editor.hpp).
//
// All of them are one commit, which is constant in what is mapped: the source's root table has at
// most 512 links, which permit no writing from then on, and the tables below it one reference more.
// A crash before it leaves the source as it was and two frames that are free; a crash after it both
// spaces. Names of ranges are copied, one by one.
#include <fmt/format.h>

#include <array>

#include "store/transaction_state.hpp"

namespace holdfast::detail {

using format::SpaceRecord;
using table::Entry;
using table::TableEditor;

Result<void> TransactionState::check_change(const SpaceState& space) {
    if (!space.is_snapshot) return {};
    return fail(
        ErrorCode::permission_denied,
        fmt::format("\"{}\" is a snapshot, which nobody changes; fork it, and change the fork",
                    space.name()));
}

Result<std::shared_ptr<SpaceState>> TransactionState::fork_space(
    const std::shared_ptr<SpaceState>& source, const std::string& name, format::SpaceKind kind) {
    if (auto fine = check_unused(name); !fine) return std::unexpected(fine.error());
    auto from = join(source);
    if (!from) return std::unexpected(from.error());
    if (source->is_supervisor())
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("\"{}\" is a supervisor object, which is there once: it has no forks "
                        "and snapshots; create spaces that share it",
                        source->name()));
    const auto spoil = [&](Error error) {
        spoiled_ = error;
        return std::unexpected(std::move(error));
    };
    auto record_frame = session_.take(format::FrameKind::space_record, source->owner, 0);
    if (!record_frame) return spoil(record_frame.error());
    auto root_table = TableEditor(session_, (*from)->root).share_root();
    if (!root_table) return spoil(root_table.error());
    (*from)->shares = true;
    (*from)->changed.add_all(source->levels);
    space::Annotations annotations(*store_->pool, 0);
    if (auto done = annotations.become((*from)->annotations); !done) return spoil(done.error());
    SpaceRecord record{};
    record.owner = source->owner;
    record.levels = static_cast<std::uint8_t>(source->levels);
    record.kind = kind;
    const auto* const origin =
        reinterpret_cast<const SpaceRecord*>(store_->memory.host(source->record));
    record.supervisor = origin->supervisor;
    record.supervisor_owner = origin->supervisor_owner;
    record.supervisor_generation = origin->supervisor_generation;
    record.preferred_region = (*from)->new_region.value_or(source->preferred_region);
    if (kind == format::SpaceKind::snapshot) {
        const auto metadata = session_.metadata_of(source->record);
        if (!metadata) return spoil(metadata.error());
        record.origin = store_->memory.metadata(source->record).home.value();
        record.origin_generation = metadata->generation;
    }
    // The first write of either to what they share takes a frame.
    const std::int64_t pages = charge_of(**from);
    auto space = make_space(name, record, *record_frame, *root_table, source->supervisor);
    if (!space) return space;
    joined_.back().annotations = std::move(annotations);
    if (auto fine = charge(joined_.back(), pages); !fine) return spoil(fine.error());
    return space;
}

Result<void> TransactionState::rollback(const std::shared_ptr<SpaceState>& space,
                                        const std::shared_ptr<SpaceState>& snapshot) {
    // Whichever comes first is joined first, see `join`.
    for (const auto& each : snapshot->record < space->record ? std::array{snapshot, space}
                                                             : std::array{space, snapshot})
        if (auto done = join(each); !done) return std::unexpected(done.error());
    Joined& joined = **join(space);
    Joined& from = **join(snapshot);
    if (auto fine = check_change(*space); !fine) return fine;
    if (!snapshot->is_snapshot || snapshot->owner != space->owner)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("\"{}\" is no snapshot of \"{}\" or of what it was forked from",
                                snapshot->name(), space->name()));
    if (joined.created)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("space \"{}\" is not committed yet, and has nothing to go back to",
                                space->name()));
    // A refusal changes nothing: the transaction may go on.
    if (auto fine = charge(joined, charge_of(from) - charge_of(joined)); !fine) return fine;
    if (auto done = spoiled_by(joined.annotations.become(from.annotations)); !done) return done;
    session_.may_take_held_back();
    auto root_table = TableEditor(session_, from.root).share_root();
    if (!root_table) return spoiled_by(std::unexpected(root_table.error()));
    from.shares = true;
    const auto old = session_.metadata_of(joined.root.entry.frame());
    if (!old) return spoiled_by(std::unexpected(old.error()));
    session_.detach(format::LimboKind::subtree, {joined.root.top(), joined.root.owner, 0},
                    {joined.root.entry.frame(), old->generation});
    joined.root.entry =
        Entry::table(root_table->frame, joined.root.place(), root_table->generation);
    auto* const record = reinterpret_cast<SpaceRecord*>(store_->memory.host(space->record));
    // One word, which readers follow: a crash leaves the space with all of its old tables, or with
    // all of the snapshot's.
    session_.store_publish(&record->root, joined.root.entry.bits());
    joined.changed.add_all(space->levels);
    joined.new_root = true;
    return {};
}

}  // namespace holdfast::detail
