#include "table/edit_session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "table/limbo_stack.hpp"

namespace holdfast::table {

using format::FrameKind;
using format::FrameMetadata;

void EditSession::store_entry(FrameNumber table, unsigned slot, Entry entry) {
    std::uint64_t* const word = memory().table(table) + slot;
    if (is_fresh(table))
        pool::store_word(word, entry.bits(), std::memory_order_relaxed);
    else
        writes_.store(word, entry.bits(), pool::WordClass::publish);
}

void EditSession::flush_entries(FrameNumber table, unsigned first_slot, unsigned end_slot) const {
    memory().pool().flush(memory().table(table) + first_slot,
                          (end_slot - first_slot) * sizeof(std::uint64_t));
}

std::optional<FrameMetadata> EditSession::metadata(FrameNumber frame) const {
    const memory::MetadataWords words = memory().metadata(frame);
    if (!words) return std::nullopt;
    const std::uint64_t word0 = load(words.word0), word1 = load(words.word1());
    if (!FrameMetadata::is_valid(words.home, word0, word1)) return std::nullopt;
    return FrameMetadata::decode(word0, word1);
}

// Attempts again as long as room can be made, and once more after that: another thread may have
// made some between our last attempt and our finding none left to make. What others free and take
// again all the time does not keep us here for ever.
template <typename Attempt>
auto EditSession::while_room_is_made(std::uint64_t frames, const Attempt& attempt, bool of_huge) {
    std::uint64_t rounds = 1024 + frames;
    for (bool room = true; room && rounds != 0; --rounds) {
        auto outcome = attempt();
        if (outcome || outcome.error().code != ErrorCode::no_space) return outcome;
        room = services_.on_shortage(frames, of_huge);
    }
    return attempt();
}

Result<void> EditSession::begin_build() {
    if (build_) return {};
    auto build = services_.build_log.acquire();
    if (!build) return std::unexpected(build.error());
    build_ = std::move(*build);
    return {};
}

Result<void> EditSession::reserve_huge(unsigned level, std::uint64_t count,
                                       memory::Placement placement) {
    if (auto begun = begin_build(); !begun) return begun;
    return while_room_is_made(
        count * format::frames_of(format::leaf_kind(level)),
        [&] {
            const ChangeGate::Inside inside(services_.gate);
            return services_.build_log.reserve_huge(*build_, level, count, placement);
        },
        true);
}

Result<void> EditSession::reserve(std::uint64_t count, memory::Placement placement) {
    if (auto begun = begin_build(); !begun) return begun;
    return while_room_is_made(count, [&] {
        const ChangeGate::Inside inside(services_.gate);
        return services_.build_log.reserve(*build_, count, placement);
    });
}

Result<FrameNumber> EditSession::next_frame(memory::Placement placement, bool* from_build) {
    *from_build = false;
    const auto unused = [&]() -> std::vector<memory::Extent>* {
        if (!build_) return nullptr;
        auto& extents = placement.is_pool() ? build_->unused : build_->unused_data;
        return extents.empty() ? nullptr : &extents;
    };
    // So many frames one by one that a log of them would grow: reserve some at a time.
    if (unused() == nullptr && singles_.size() >= 2 * kFewFrames)
        // If there are not as many, one may still be had.
        std::ignore = reserve(16 * kFewFrames, placement);
    if (auto* const extents = unused()) {
        memory::Extent& extent = extents->front();
        const FrameNumber frame = extent.first;
        extent = {frame + 1, extent.count - 1};
        if (extent.count == 0) extents->erase(extents->begin());
        *from_build = true;
        return frame;
    }
    const auto allocate = [&] { return services_.allocator.allocate_one(placement); };
    auto frame = placement.only ? allocate() : while_room_is_made(1, allocate);
    if (!frame && may_take_held_back_) frame = services_.allocator.allocate_held_back();
    if (frame) singles_.push_back(*frame);
    return frame;
}

Result<TakenFrame> EditSession::take(FrameKind kind, OwnerId owner, std::uint64_t index,
                                     memory::Placement placement) {
    bool from_build = false;
    auto frame = next_frame(placement, &from_build);
    if (!frame) return std::unexpected(frame.error());
    return take_into_use(*frame, kind, owner, index, from_build);
}

std::optional<TakenFrame> EditSession::take_again(FrameNumber frame, OwnerId owner,
                                                  std::uint64_t index) {
    if (!services_.allocator.allocate_again(frame)) return std::nullopt;
    singles_.push_back(frame);
    return take_into_use(frame, FrameKind::data, owner, index, false);
}

Result<TakenFrame> EditSession::take_leaf(unsigned level, OwnerId owner, std::uint64_t index,
                                          memory::Placement placement) {
    const FrameKind kind = format::leaf_kind(level);
    if (level == 1) return take(kind, owner, index, placement);
    if (build_ && !build_->unused_huge[level].empty()) {
        const FrameNumber frame = build_->unused_huge[level].back();
        build_->unused_huge[level].pop_back();
        return take_into_use(frame, kind, owner, index, true);
    }
    const auto extent = while_room_is_made(
        format::frames_of(kind),
        [&] { return services_.allocator.allocate_huge(level, placement); }, true);
    if (!extent) return std::unexpected(extent.error());
    huge_ones_.push_back(*extent);
    return take_into_use(extent->first, kind, owner, index, false);
}

TakenFrame EditSession::take_into_use(FrameNumber frame, FrameKind kind, OwnerId owner,
                                      std::uint64_t index, bool from_build) {
    memory().set_filled(frame, true);
    if (payer_ && format::is_data(kind))
        services_.allocator.charges().charge(frame, format::frames_of(kind), *payer_);
    const memory::MetadataWords words = memory().metadata(frame);
    const auto generation =
        static_cast<std::uint16_t>(FrameMetadata::generation_of(load(words.word0)) + 1);
    const FrameMetadata metadata{
        .kind = kind, .references = 1, .generation = generation, .owner = owner, .index = index};
    // Word 1 in place: a crash before the commit leaves a frame that is free by its word 0, and a
    // free frame's word 1 means nothing.
    pool::store_word(words.word1(), metadata.word1(), std::memory_order_relaxed);
    metadata_flush_.add(frame);
    if (from_build) {
        // Word 0 too: until the commit clears the build slot, a crash frees this frame whatever its
        // metadata says, torn or whole.
        pool::store_word(words.word0, metadata.word0(words.home), std::memory_order_relaxed);
    } else {
        store_metadata(words, metadata.word0(words.home));
    }
    return TakenFrame{frame, generation};
}

Result<std::array<std::uint16_t, format::kEntriesPerTable>> EditSession::split(FrameNumber frame,
                                                                               unsigned level) {
    frame = memory().current(frame);
    auto metadata = metadata_of(frame);
    if (!metadata) return std::unexpected(metadata.error());
    if (auto begun = begin_build(); !begun) return std::unexpected(begun.error());
    const std::uint64_t frames = format::frames_of(metadata->kind);
    // Under a huge frame the records of its parts say "free". From here to the commit a crash makes
    // them say so again, whatever is written below, and the first one's record is of the huge frame
    // until the commit.
    const auto named = while_room_is_made(1, [&] {
        const ChangeGate::Inside inside(services_.gate);
        return services_.build_log.name_parts(*build_, {frame + 1, frames - 1});
    });
    if (!named) return std::unexpected(named.error());
    const FrameKind kind = format::leaf_kind(level - 1);
    // Parts of what volatile memory has lost are lost, too.
    const bool is_lost = memory().out_of_reach(frame).has_value();
    std::array<std::uint16_t, format::kEntriesPerTable> generations{metadata->generation};
    for (unsigned part = 1; part < format::kEntriesPerTable; ++part) {
        const std::uint64_t at = part * format::frames_of(kind);
        generations[part] =
            take_into_use(frame + at, kind, metadata->owner, metadata->index + at, true).generation;
        if (is_lost) memory().set_filled(frame + at, false);
    }
    metadata->kind = kind;
    if (payer_) services_.allocator.charges().charge(frame, format::frames_of(kind), *payer_);
    const memory::MetadataWords words = memory().metadata(frame);
    store_metadata(words, metadata->word0(words.home));
    return generations;
}

Result<TakenFrame> EditSession::take_table(const TablePosition& position) {
    auto taken = take(format::table_kind(position.level), position.owner, position.index);
    if (!taken) return taken;
    memory().pool().fill(memory().host(taken->frame), 0, kPageSize);
    taken_.push_back(taken->frame);
    return taken;
}

void EditSession::distrust(FrameNumber table) {
    taken_.erase(std::remove(taken_.begin(), taken_.end(), table), taken_.end());
}

bool EditSession::is_fresh(FrameNumber frame) const {
    if (std::find(singles_.begin(), singles_.end(), frame) != singles_.end()) return true;
    if (std::any_of(huge_ones_.begin(), huge_ones_.end(),
                    [&](const memory::Extent& extent) { return extent.contains(frame); }))
        return true;
    return build_ &&
           std::any_of(build_->reserved.begin(), build_->reserved.end(),
                       [&](const memory::Extent& extent) { return extent.contains(frame); });
}

// Word 1 keeps the value it has, and joins the write set so that the records of neighbouring frames
// are one piece and share a snapshot.
void EditSession::store_metadata(memory::MetadataWords words, std::uint64_t word0) {
    store_undo(words.word0, word0);
    store_undo(words.word1(), load(words.word1()));
}

Result<FrameMetadata> EditSession::metadata_of(FrameNumber frame) const {
    if (const auto metadata = this->metadata(frame); metadata && metadata->kind != FrameKind::free)
        return *metadata;
    return fail(ErrorCode::damaged,
                fmt::format("{}: the metadata of frame {:#x} fails its check; run `verify`",
                            memory().pool().path(), frame.value()));
}

Result<void> EditSession::free_with_commit(FrameNumber frame, const FrameMetadata& metadata) {
    const memory::Extent extent{frame, format::frames_of(metadata.kind)};
    if (auto done = services_.allocator.prepare_release(extent); !done) return done;
    // Of a huge frame too, whose parts say "free" already: a crash leaves all of it in use, or all
    // of it free.
    const memory::MetadataWords words = memory().metadata(frame);
    store_metadata(words, FrameMetadata::free_word0(words.home, metadata.generation));
    released_.push_back(extent);
    return {};
}

Result<void> EditSession::release(FrameNumber frame) {
    frame = memory().current(frame);
    // Of a frame whose region was given other memory, nothing is left to be freed.
    if (!memory().metadata(frame) && memory().replaced_region(frame) != nullptr) return {};
    const auto metadata = metadata_of(frame);
    if (!metadata) return std::unexpected(metadata.error());
    if (metadata->is_fixed()) return {};
    // Only one entry names it, which nobody but us can reach: nobody can add another.
    if (metadata->kind != FrameKind::shared_data && metadata->references == 1 &&
        pending_references(frame) == 0)
        return free_with_commit(frame, *metadata);
    reference_changes_.push_back({frame, -1});
    return {};
}

Result<TakenFrame> EditSession::add_references(FrameNumber frame, std::uint64_t count) {
    frame = memory().current(frame);
    auto metadata = metadata_of(frame);
    if (!metadata) return std::unexpected(metadata.error());
    if (metadata->is_fixed()) return TakenFrame{frame, metadata->generation};
    if (metadata->kind != FrameKind::shared_data) {
        // So far only we can reach it. In this session, it is shared from now on.
        metadata->kind = FrameKind::shared_data;
        const memory::MetadataWords words = memory().metadata(frame);
        store_metadata(words, metadata->word0(words.home));
    }
    reference_changes_.push_back({frame, static_cast<std::int64_t>(count)});
    return TakenFrame{frame, metadata->generation};
}

Result<FrameMetadata> EditSession::share(FrameNumber frame) {
    frame = memory().current(frame);
    auto metadata = metadata_of(frame);
    if (metadata && !metadata->is_fixed()) reference_changes_.push_back({frame, 1});
    return metadata;
}

void EditSession::drop_shared(FrameNumber frame) {
    const auto metadata = this->metadata(frame);
    if (!metadata || !metadata->is_fixed()) reference_changes_.push_back({frame, -1});
}

std::int64_t EditSession::pending_references(FrameNumber frame) const {
    std::int64_t pending = 0;
    for (const ReferenceChange& each : reference_changes_)
        if (each.frame == frame) pending += each.change;
    return pending;
}

Result<bool> EditSession::claim(FrameNumber frame) {
    frame = memory().current(frame);
    {
        const std::scoped_lock lock(services_.commit_mutex);
        const auto metadata = metadata_of(frame);
        if (!metadata) return std::unexpected(metadata.error());
        if (metadata->is_fixed() || metadata->references != 1 || pending_references(frame) != 0)
            return false;
    }
    services_.former_readers.wait();
    return true;
}

format::Sharing EditSession::sharing_of(FrameNumber frame, const FrameMetadata& metadata) const {
    const bool is_exclusive = metadata.kind == FrameKind::shared_data ||
                              (!metadata.is_fixed() && metadata.references == 1 &&
                               pending_references(memory().current(frame)) == 0);
    return is_exclusive ? format::Sharing::exclusive : format::Sharing::copy_on_write;
}

// What the changes make of the counts that are committed now, which under the commit lock are those
// that the commit will replace.
Result<void> EditSession::settle_reference_changes() {
    std::sort(reference_changes_.begin(), reference_changes_.end(),
              [](const ReferenceChange& a, const ReferenceChange& b) { return a.frame < b.frame; });
    for (auto next = reference_changes_.begin(); next != reference_changes_.end();) {
        const FrameNumber frame = next->frame;
        std::int64_t change = 0;
        for (; next != reference_changes_.end() && next->frame == frame; ++next)
            change += next->change;
        if (change == 0) continue;
        if (auto done = settle(frame, change); !done) return done;
    }
    return {};
}

Result<void> EditSession::settle(FrameNumber frame, std::int64_t change) {
    auto metadata = metadata_of(frame);
    if (!metadata) return std::unexpected(metadata.error());
    const std::int64_t references = metadata->references + change;
    if (references > FrameMetadata::kReferencesMax)
        return fail(ErrorCode::no_space,
                    fmt::format("{}: frame {:#x} is mapped {} times, and more than {} are not "
                                "possible",
                                memory().pool().path(), frame.value(), metadata->references,
                                FrameMetadata::kReferencesMax));
    const bool is_table = format::is_table(metadata->kind);
    if (references <= 0 && !is_table) {
        // Less than nothing is damage that was there before; `verify` finds what it has cost.
        return free_with_commit(frame, *metadata);
    }
    if (references <= 0)
        // Its last reference is limbo's now, which gives back those that the table holds.
        detached_.push_back(
            limbo_record(format::LimboKind::subtree,
                         {format::table_level(metadata->kind), metadata->owner, metadata->index},
                         {frame, metadata->generation}));
    else if (change < 0)
        leaves_readers_ = true;
    metadata->references = static_cast<std::uint32_t>(std::max<std::int64_t>(references, 1));
    const memory::MetadataWords words = memory().metadata(frame);
    store_metadata(words, metadata->word0(words.home));
    return {};
}

void EditSession::detach(format::LimboKind kind, const TablePosition& position,
                         const TakenFrame& frame) {
    detached_.push_back(limbo_record(kind, position, frame));
}

format::LimboRecord EditSession::limbo_record(format::LimboKind kind, const TablePosition& position,
                                              const TakenFrame& frame) {
    format::LimboRecord record{};
    record.entry =
        Entry::table(frame.frame,
                     {position.level + 1, format::kRootSlot, position.owner, position.index},
                     frame.generation)
            .bits();
    record.owner = position.owner;
    record.kind = kind;
    record.level = static_cast<std::uint8_t>(position.level);
    record.index = position.index;
    record.checksum = record.computed_checksum();
    return record;
}

Result<void> EditSession::commit(const pool::Pool::Body& body) {
    if (!reference_changes_.empty())
        if (auto done = settle_reference_changes(); !done) return done;
    for (const format::LimboRecord& record : detached_)
        if (auto done = services_.limbo.push(*this, record); !done) return done;
    // Before the commit: word 0 must not become durable without word 1, which its check covers.
    metadata_flush_.finish();
    if (build_) {
        store_undo(services_.build_log.slot_word(*build_),
                   memory::BuildLog::empty_slot_word(build_->slot));
    }
    // Before anybody can write to them, since a write makes the cache forget. Nobody takes the
    // slots before the commit, and if there is none the frames are given back and forgotten.
    for (const auto& [page, slot] : swapped_in_)
        memory().swap_cache().remember(page.frame, page.generation, slot);
    // Commit point: in here. What was flushed above is drained before it by libpmemobj's own
    // fence; a crash before it leaves the write set's words as they were and the build slot
    // occupied, a crash after it the new words and an empty slot.
    if (auto done = memory().pool().commit(writes_, body); !done) return done;

    for (const FrameNumber table : taken_) memory().window_of(table)->set_validated(table, true);
    services_.limbo.pushed(detached_.size());
    // Before the commit lock is let go, and so before anybody claims it.
    if (leaves_readers_) services_.former_readers.add();
    for (const memory::Extent& extent : released_) {
        if (const memory::Window* const window = memory().window_of(extent.first))
            window->set_validated(extent.first, false);
        services_.allocator.retire(extent);
    }
    if (build_) services_.build_log.finish(*build_);
    end();
    return {};
}

void EditSession::abort() {
    if (build_) {
        const ChangeGate::Inside inside(services_.gate);
        services_.build_log.abandon(*build_);
    }
    for (const FrameNumber frame : singles_) services_.allocator.give_back({frame, 1});
    for (const memory::Extent& extent : huge_ones_) services_.allocator.give_back(extent);
    end();
}

void EditSession::end() {
    writes_.clear();
    build_.reset();
    metadata_flush_.forget();
    singles_.clear();
    huge_ones_.clear();
    taken_.clear();
    released_.clear();
    detached_.clear();
    swapped_in_.clear();
    reference_changes_.clear();
    leaves_readers_ = false;
}

}  // namespace holdfast::table
