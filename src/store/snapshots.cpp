// Snapshots as the store's directory has them, and what two spaces of a store differ in.
#include "holdfast/snapshot.hpp"

#include <shared_mutex>

#include "holdfast/store.hpp"
#include "space/differences.hpp"
#include "store/store_state.hpp"

namespace holdfast {

namespace {

using Make = Result<Space> (Transaction::*)(const Space& source, const std::string& name);

Result<Space> make_of(Store& store, const std::string& source_name, const std::string& name,
                      Make make) {
    const auto source = store.open_space(source_name);
    if (!source) return source;
    Transaction transaction = store.begin();
    auto made = (transaction.*make)(*source, name);
    if (!made) return made;
    if (auto done = transaction.commit(); !done) return std::unexpected(done.error());
    return made;
}

}  // namespace

Result<Space> Store::fork_space(const std::string& from, const std::string& to) {
    return make_of(*this, from, to, &Transaction::fork_space);
}

Result<Space> Store::create_snapshot(const std::string& space, const std::string& name) {
    return make_of(*this, space, name, &Transaction::create_snapshot);
}

Result<void> Store::rollback(const std::string& space_name, const std::string& snapshot_name) {
    const auto space = open_space(space_name), snapshot = open_space(snapshot_name);
    for (const auto& each : {space, snapshot})
        if (!each) return std::unexpected(each.error());
    Transaction transaction = begin();
    if (auto done = transaction.rollback(*space, *snapshot); !done) return done;
    return transaction.commit();
}

Result<std::vector<SnapshotInfo>> Store::snapshots(const std::string& of) const {
    if (!of.empty())
        if (const auto space = open_space(of); !space) return std::unexpected(space.error());
    const std::shared_lock lock(state_->directory_map);
    std::vector<SnapshotInfo> found;
    state_->visit_records([&](std::string_view name, const format::SpaceRecord* record) {
        if (record == nullptr || record->kind != format::SpaceKind::snapshot) return;
        SnapshotInfo info{
            .name = std::string(name), .of = {}, .created_epoch = record->created_epoch};
        if (const auto frame = state_->memory.at_home(FrameNumber(record->origin)))
            if (const auto metadata = state_->memory.valid_metadata(*frame);
                metadata && metadata->generation == record->origin_generation)
                if (const format::SpaceRecord* const origin = state_->space_record(*frame))
                    // A space that was removed has its record until that is released, but no name.
                    if (state_->directory().get(origin->name_view())) info.of = origin->name_view();
        if (of.empty() || info.of == of) found.push_back(std::move(info));
    });
    return found;
}

const char* to_string(Difference::Kind kind) {
    switch (kind) {
        case Difference::Kind::only_in_first:
            return "only_in_first";
        case Difference::Kind::only_in_second:
            return "only_in_second";
        case Difference::Kind::protection:
            return "protection";
        case Difference::Kind::content:
            return "content";
    }
    return "unknown";
}

Result<std::vector<Difference>> differences(const Space& first, const Space& second) {
    if (first.state().store != second.state().store)
        return fail(ErrorCode::invalid_argument, "the spaces are of different stores");
    return space::differences(first.state().store->memory, first.state(), second.state());
}

}  // namespace holdfast
