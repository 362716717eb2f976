#include "memory/build_log.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "memory/metadata_flush.hpp"

namespace holdfast::memory {

using format::BuildRecord;
using format::CheckedWord;
using format::FrameMetadata;

namespace {
std::uint32_t seed(unsigned slot) { return format::kSeedBuildSlot + slot; }
}  // namespace

std::uint64_t* BuildLog::slot_word(const Build& build) const {
    return &memory_.superblock().build_slots[build.slot];
}
std::uint64_t BuildLog::empty_slot_word(unsigned slot) {
    return CheckedWord::encode(0, seed(slot));
}

Result<Build> BuildLog::acquire() {
    const std::scoped_lock lock(mutex_);
    const auto slot = static_cast<unsigned>(std::countr_one(occupied_));
    if (slot >= format::kBuildSlots)
        return fail(ErrorCode::busy,
                    fmt::format("{}: {} long operations are under way; try again when one is done",
                                memory_.pool().path(), format::kBuildSlots));
    occupied_ |= std::uint64_t{1} << slot;
    Build build;
    build.slot = slot;
    return build;
}

namespace {

std::uint64_t records_for(std::size_t extents) {
    return (extents + format::kExtentsPerRecord - 1) / format::kExtentsPerRecord;
}

// Takes the first `count` frames away from the extents.
std::vector<FrameNumber> take_first(std::vector<Extent>& extents, std::uint64_t count) {
    std::vector<FrameNumber> taken;
    while (taken.size() < count) {
        Extent& first = extents.front();
        taken.push_back(first.first);
        first = {first.first + 1, first.count - 1};
        if (first.count == 0) extents.erase(extents.begin());
    }
    return taken;
}

void append(std::vector<Extent>& extents, const std::vector<Extent>& more) {
    extents.insert(extents.end(), more.begin(), more.end());
}

}  // namespace

Result<void> BuildLog::reserve(Build& build, std::uint64_t count, Placement placement) {
    std::vector<Extent> extents;
    std::uint64_t record_count = 1;
    // The number of records depends on the number of extents, and each record wants a frame.
    for (;;) {
        auto allocated =
            allocator_.allocate(record_count + (placement.is_pool() ? count : std::uint64_t{0}));
        if (!allocated) return std::unexpected(allocated.error());
        extents = std::move(*allocated);
        if (!placement.is_pool()) {
            auto data = allocator_.allocate(count, placement);
            if (!data) {
                for (const Extent& extent : extents) allocator_.give_back(extent);
                return std::unexpected(data.error());
            }
            append(extents, *data);
        }
        const std::uint64_t needed = records_for(extents.size());
        if (needed <= record_count) break;
        for (const Extent& extent : extents) allocator_.give_back(extent);
        record_count = needed + 1;
    }
    // The records lie in the first frames, which are the pool's.
    std::vector<Extent> unused = extents;
    publish(build, extents, take_first(unused, record_count));
    append(placement.is_pool() ? build.unused : build.unused_data, unused);
    return {};
}

Result<void> BuildLog::reserve_huge(Build& build, unsigned level, std::uint64_t count,
                                    Placement placement) {
    std::vector<Extent> extents;
    std::vector<FrameNumber> huge;
    const auto give_back = [&] {
        for (const Extent& extent : extents) allocator_.give_back(extent);
    };
    for (std::uint64_t i = 0; i < count; ++i) {
        const auto extent = allocator_.allocate_huge(level, placement);
        if (!extent) {
            give_back();
            return std::unexpected(extent.error());
        }
        huge.push_back(extent->first);
        extents.push_back(*extent);
    }
    // Each of the records' frames may be an extent of its own.
    const std::uint64_t record_count = records_for(extents.size() + extents.size() / 64 + 2);
    auto records = allocator_.allocate(record_count);
    if (!records) {
        give_back();
        return std::unexpected(records.error());
    }
    append(extents, *records);
    publish(build, extents, take_first(*records, record_count));
    build.unused_huge[level].insert(build.unused_huge[level].end(), huge.begin(), huge.end());
    return {};
}

Result<void> BuildLog::name_parts(Build& build, Extent parts) {
    if (has_interrupted()) release_interrupted(~std::uint64_t{0});
    auto record = allocator_.allocate_one();
    // A part of a page can be unmapped also when the store is full.
    if (!record) record = allocator_.allocate_held_back();
    if (!record) return std::unexpected(record.error());
    build.parts.push_back(parts);
    publish(build, {{*record, 1}, parts}, {*record});
    return {};
}

void BuildLog::publish(Build& build, const std::vector<Extent>& extents,
                       const std::vector<FrameNumber>& record_frames) {
    const pool::Pool& pool = memory_.pool();
    std::size_t next_extent = 0;
    FrameNumber head = build.head;
    for (const FrameNumber frame : record_frames) {
        auto* const record = reinterpret_cast<BuildRecord*>(memory_.host(frame));
        record->next = head.value();
        record->count = 0;
        while (next_extent < extents.size() && record->count < format::kExtentsPerRecord)
            record->extents[record->count++] = extents[next_extent++].encoded();
        record->checksum = record->computed_checksum();
        pool.flush(record, 16 + record->count * sizeof(std::uint64_t));
        head = frame;
    }
    // A crash here leaves the frames free, and their content does not matter.
    pool.drain();
    std::uint64_t* const word = slot_word(build);
    pool::store_word(word, CheckedWord::encode(head.value(), seed(build.slot)));
    pool.flush(word, sizeof *word);
    // Only when the slot is durable may anything be written to the frames' metadata: a crash
    // before this fence must not leave a frame in use that no record names.
    pool.drain();
    build.head = head;
    for (const FrameNumber frame : record_frames) build.records.push_back({frame, 1});
    // Joined where they continue each other, so that looking a frame up stays cheap.
    for (const Extent& extent : extents) {
        if (std::ranges::find(build.parts, extent) != build.parts.end()) continue;
        if (!build.reserved.empty() && build.reserved.back().end() == extent.first)
            build.reserved.back().count += extent.count;
        else
            build.reserved.push_back(extent);
    }
}

void BuildLog::finish(Build& build) {
    for (const Extent& extent : build.unused) allocator_.give_back(extent);
    for (const Extent& extent : build.unused_data) allocator_.give_back(extent);
    for (const unsigned level : {2U, 3U})
        for (const FrameNumber first : build.unused_huge[level])
            allocator_.give_back({first, format::frames_of(format::leaf_kind(level))});
    for (const Extent& extent : build.records) allocator_.give_back(extent);
    const std::scoped_lock lock(mutex_);
    occupied_ &= ~(std::uint64_t{1} << build.slot);
}

void BuildLog::free_metadata(Extent extent) const {
    MetadataFlush flush(memory_);
    for (std::uint64_t i = 0; i < extent.count; ++i) {
        const FrameNumber frame = extent.first + i;
        const MetadataWords words = memory_.metadata(frame);
        if (!words) continue;
        // Whatever became of word 1, the generation in word 0 is one that was in use here; freeing
        // is one store, and doing it again changes nothing.
        const std::uint64_t free = FrameMetadata::free_word0(
            words.home, FrameMetadata::generation_of(pool::load_word(words.word0)));
        if (pool::load_word(words.word0) == free) continue;
        pool::store_word(words.word0, free);
        flush.add(frame);
        if (const Window* const window = memory_.window_of(frame))
            window->set_validated(frame, false);
    }
}

void BuildLog::clear_slot(unsigned slot) const {
    // All frames are free on the medium before the record that names them is forgotten; a crash in
    // between frees them once more.
    memory_.pool().drain();
    std::uint64_t* const word = &memory_.superblock().build_slots[slot];
    pool::store_word(word, empty_slot_word(slot));
    memory_.pool().flush(word, sizeof *word);
    memory_.pool().drain();
}

void BuildLog::abandon(Build& build) {
    if (build.head != FrameNumber{}) {
        for (const Extent& extent : build.reserved) free_metadata(extent);
        for (const Extent& extent : build.parts) free_metadata(extent);
        clear_slot(build.slot);
        for (const Extent& extent : build.reserved) allocator_.give_back(extent);
    }
    const std::scoped_lock lock(mutex_);
    occupied_ &= ~(std::uint64_t{1} << build.slot);
}

Result<std::vector<Extent>> BuildLog::read_slot(const PhysicalMemory& memory, unsigned slot,
                                                std::vector<FrameNumber>* records) {
    const auto damaged = [&](const char* what) {
        return fail(ErrorCode::damaged,
                    fmt::format("{}: build slot {}: {} fails its check; `verify` says more",
                                memory.pool().path(), slot, what));
    };
    const auto head =
        CheckedWord::decode(pool::load_word(&memory.superblock().build_slots[slot]), seed(slot));
    if (!head) return damaged("the slot");
    std::vector<Extent> extents;
    // Neither records nor what they name can be more than there is: a chain that leads back into
    // itself ends here.
    std::uint64_t records_left = 0;
    for (const Region& region : memory.regions()) records_left += region.frame_count();
    std::uint64_t frames_left = records_left;
    for (FrameNumber frame(*head); frame != FrameNumber{};) {
        if (memory.host(frame) == nullptr) return damaged("a record's frame number");
        const auto* const record = reinterpret_cast<const BuildRecord*>(memory.host(frame));
        if (record->count > format::kExtentsPerRecord ||
            record->checksum != record->computed_checksum())
            return damaged("a record");
        if (records != nullptr) records->push_back(frame);
        if (records_left-- == 0) return damaged("the chain of records");
        for (std::uint32_t i = 0; i < record->count; ++i) {
            Extent extent = Extent::decode(record->extents[i]);
            extent.first = memory.current(extent.first);
            extents.push_back(extent);
            if (extents.back().count > frames_left) return damaged("the number of frames");
            frames_left -= extents.back().count;
        }
        frame = FrameNumber(record->next);
    }
    return extents;
}

Result<void> BuildLog::find_interrupted() {
    const std::scoped_lock lock(mutex_);
    for (unsigned slot = 0; slot < format::kBuildSlots; ++slot) {
        auto extents = read_slot(memory_, slot);
        if (!extents) return std::unexpected(extents.error());
        if (extents->empty()) continue;
        for (const Extent& extent : *extents) allocator_.withhold(extent);
        occupied_ |= std::uint64_t{1} << slot;
        interrupted_.push_back({.slot = slot, .extents = std::move(*extents)});
    }
    any_interrupted_.store(!interrupted_.empty(), std::memory_order_release);
    return {};
}

std::uint64_t BuildLog::release_interrupted(std::uint64_t frames) {
    const std::scoped_lock lock(mutex_);
    while (!interrupted_.empty() && frames != 0) {
        Interrupted& build = interrupted_.back();
        if (build.extent < build.extents.size()) {
            const Extent& extent = build.extents[build.extent];
            const std::uint64_t count = std::min(frames, extent.count - build.frame);
            free_metadata({extent.first + build.frame, count});
            frames -= count;
            build.frame += count;
            if (build.frame == extent.count) {
                ++build.extent;
                build.frame = 0;
            }
            continue;
        }
        clear_slot(build.slot);
        // What was retired as part of a huge frame has had its grace period before it is free, and
        // is not given back a second time when it has been taken again.
        allocator_.collect_retired();
        for (const Extent& extent : build.extents) allocator_.give_back_withheld(extent);
        occupied_ &= ~(std::uint64_t{1} << build.slot);
        interrupted_.pop_back();
    }
    any_interrupted_.store(!interrupted_.empty(), std::memory_order_release);
    std::uint64_t left = 0;
    for (const Interrupted& build : interrupted_)
        for (std::size_t i = build.extent; i < build.extents.size(); ++i)
            left += build.extents[i].count - (i == build.extent ? build.frame : 0);
    return interrupted_.empty() ? 0 : std::max<std::uint64_t>(left, 1);
}

}  // namespace holdfast::memory
