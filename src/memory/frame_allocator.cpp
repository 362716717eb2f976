#include "memory/frame_allocator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "memory/reader_section.hpp"

namespace holdfast::memory {

using format::FrameKind;
using format::FrameMetadata;

namespace {

constexpr std::uint64_t kChunkFrames = FreeChunk::kFrames;
constexpr std::uint64_t kHugeFrames1GiB = format::frames_of(FrameKind::huge_1GiB);
constexpr std::uint64_t kChunksPer1GiB = kHugeFrames1GiB / kChunkFrames;

unsigned place_in_chunk(FrameNumber frame) {
    return static_cast<unsigned>(frame.value() % kChunkFrames);
}

}  // namespace

void FrameAllocator::know_regions() {
    const auto regions = memory_.regions();
    while (regions_.size() < regions.size()) {
        const Region& region = regions[regions_.size()];
        RegionChunks chunks;
        chunks.chunks.resize((region.end().value() - 1) / kChunkFrames -
                             region.base().value() / kChunkFrames + 1);
        regions_.push_back(std::move(chunks));
    }
}

FrameNumber FrameAllocator::chunk_base(std::size_t region, std::size_t chunk) const {
    return FrameNumber((memory_.regions()[region].base().value() / kChunkFrames + chunk) *
                       kChunkFrames);
}

Extent FrameAllocator::chunk_extent(std::size_t region_index, std::size_t chunk) const {
    const Region& region = memory_.regions()[region_index];
    const FrameNumber base = chunk_base(region_index, chunk);
    const FrameNumber first = std::max(base, region.base());
    return {first, std::min(base + kChunkFrames, region.end()) - first};
}

std::size_t FrameAllocator::chunk_of(std::size_t region, FrameNumber frame) const {
    return frame.value() / kChunkFrames - chunk_base(region, 0).value() / kChunkFrames;
}

Result<FreeChunk*> FrameAllocator::chunk_at(std::size_t region_index, std::size_t chunk_index) {
    std::unique_ptr<FreeChunk>& slot = regions_[region_index].chunks[chunk_index];
    if (slot) return slot.get();
    const Region& region = memory_.regions()[region_index];
    const Extent extent = chunk_extent(region_index, chunk_index);
    if (auto done = memory_.initialize_metadata(region, extent.end() - region.base()); !done)
        return std::unexpected(done.error());
    slot = read_chunk(region_index, chunk_index, &damaged_);
    return slot.get();
}

std::unique_ptr<FreeChunk> FrameAllocator::read_chunk(std::size_t region_index,
                                                      std::size_t chunk_index,
                                                      std::uint64_t* damaged) const {
    const Region& region = memory_.regions()[region_index];
    const Extent extent = chunk_extent(region_index, chunk_index);
    const FrameNumber untouched = region.base() + region.initialized();
    auto chunk = std::make_unique<FreeChunk>();
    FrameNumber frame = extent.first;
    // All of the chunk may be part of 1 GiB.
    if (const auto huge = memory_.huge_frame_around(frame)) frame = huge->end();
    while (frame < extent.end()) {
        FrameKind kind = FrameKind::free;
        if (frame < untouched) {
            const MetadataWords words = region.metadata(frame);
            const std::uint64_t word0 = pool::load_word(words.word0);
            const std::uint64_t word1 = pool::load_word(words.word1());
            if (!FrameMetadata::is_valid(words.home, word0, word1)) {
                if (damaged != nullptr) ++*damaged;  // never given out; `verify` names it
                // It may have said that what follows is part of a huge frame.
                const std::uint64_t huge = format::frames_of(FrameKind::huge_2MiB);
                frame = frame + (frame.value() % huge == 0 ? huge : 1);
                continue;
            }
            kind = FrameMetadata::kind_of(word0);
        }
        if (kind == FrameKind::free && !is_withheld(frame)) chunk->put(place_in_chunk(frame));
        frame = frame + format::frames_of(kind);
    }
    return chunk;
}

bool FrameAllocator::is_withheld(FrameNumber frame) const {
    return std::any_of(withheld_.begin(), withheld_.end(),
                       [&](const Extent& extent) { return extent.contains(frame); });
}

Result<std::vector<Extent>> FrameAllocator::allocate(std::uint64_t count, Placement placement) {
    const std::scoped_lock lock(mutex_);
    if (!holding_back_) {
        holding_back_ = true;
        if (const auto extents = allocate_locked(kHeldBack, {}))
            for (const Extent& extent : *extents) put_locked(extent);
    }
    return allocate_locked(count, placement);
}

Error FrameAllocator::not_enough(std::uint64_t wanted, std::uint64_t found) const {
    return {ErrorCode::no_space,
            fmt::format("{}: not enough free frames in the store: {} are needed, and {} were "
                        "found; unmap something, or make a larger pool",
                        memory_.pool().path(), wanted, found)};
}

Result<FrameNumber> FrameAllocator::allocate_held_back() {
    const std::scoped_lock lock(mutex_);
    if (held_back_.empty()) return std::unexpected(not_enough(1, 0));
    const FrameNumber frame = held_back_.back();
    held_back_.pop_back();
    return frame;
}

// One round over the region's chunks from its hint on. Whole blocks for whoever wants that many.
Result<std::uint64_t> FrameAllocator::take_from_region(std::size_t region, std::uint64_t wanted,
                                                       std::vector<Extent>& out) {
    RegionChunks& chunks = regions_[region];
    std::uint64_t taken = 0;
    for (std::size_t round = 0; round < chunks.chunks.size() && taken < wanted; ++round) {
        if (round != 0) chunks.hint = (chunks.hint + 1) % chunks.chunks.size();
        auto chunk = chunk_at(region, chunks.hint);
        if (!chunk) return std::unexpected(chunk.error());
        while (taken < wanted) {
            FreeChunk::Run run;
            if (wanted - taken >= FreeChunk::kBlockFrames) run = (*chunk)->take_block();
            if (run.count == 0)
                run = (*chunk)->take_run(static_cast<unsigned>(
                    std::min<std::uint64_t>(wanted - taken, FreeChunk::kBlockFrames)));
            if (run.count == 0) break;
            taken += run.count;
            const FrameNumber first = chunk_base(region, chunks.hint) + run.first;
            if (!out.empty() && out.back().end() == first &&
                out.back().count + run.count <= Extent::kCountMax)
                out.back().count += run.count;
            else
                out.push_back({first, run.count});
        }
    }
    return taken;
}

Result<std::optional<Extent>> FrameAllocator::take_huge_from_region(std::size_t region,
                                                                    unsigned level) {
    const RegionChunks& chunks = regions_[region];
    const auto give = [&](FrameNumber first) {
        return std::optional(Extent{first, std::uint64_t{1} << (9 * (level - 1))});
    };
    for (std::size_t i = 0; i < chunks.chunks.size(); ++i) {
        // Those of 2 MiB from where others came from last; those of 1 GiB from the first aligned
        // chunk on.
        const std::size_t index = level == 2 ? (chunks.hint + i) % chunks.chunks.size() : i;
        if (level == 2) {
            auto chunk = chunk_at(region, index);
            if (!chunk) return std::unexpected(chunk.error());
            const FreeChunk::Run block = (*chunk)->take_block();
            if (block.count != 0) return give(chunk_base(region, index) + block.first);
            continue;
        }
        if (chunk_base(region, index).value() % kHugeFrames1GiB != 0) continue;
        if (index + kChunksPer1GiB > chunks.chunks.size()) break;
        bool all_free = true;
        for (std::size_t k = 0; k < kChunksPer1GiB && all_free; ++k) {
            auto chunk = chunk_at(region, index + k);
            if (!chunk) return std::unexpected(chunk.error());
            all_free = (*chunk)->is_all_free();
        }
        if (!all_free) continue;
        for (std::size_t k = 0; k < kChunksPer1GiB; ++k) chunks.chunks[index + k]->take_all();
        return give(chunk_base(region, index));
    }
    return std::nullopt;
}

// Whoever is given a frame will want to write to it.
bool FrameAllocator::may_give(std::size_t region) const {
    return region < regions_.size() && memory_.regions()[region].state() == RegionState::attached;
}

template <typename Take>
Result<void> FrameAllocator::each_region(Placement placement, const Take& take) {
    know_regions();
    Result<bool> enough = false;
    if (!placement.is_pool() && may_give(placement.region)) enough = take(placement.region);
    const std::size_t first = hint_region_;
    for (std::size_t i = 0; !placement.only && enough && !*enough && i < regions_.size(); ++i) {
        const std::size_t region = (first + i) % regions_.size();
        if (memory_.regions()[region].kind() != RegionKind::pool || !may_give(region)) continue;
        hint_region_ = region;
        enough = take(region);
    }
    if (!enough) return std::unexpected(enough.error());
    return {};
}

Result<std::vector<Extent>> FrameAllocator::allocate_locked(std::uint64_t count,
                                                            Placement placement) {
    std::vector<Extent> extents;
    std::uint64_t taken = 0;
    auto done = each_region(placement, [&](std::size_t region) -> Result<bool> {
        auto more = take_from_region(region, count - taken, extents);
        if (!more) return std::unexpected(more.error());
        taken += *more;
        return taken == count;
    });
    if (done && taken < count) done = std::unexpected(not_enough(count, taken));
    if (done) return extents;
    for (const Extent& extent : extents) put_locked(extent);
    return std::unexpected(done.error());
}

Result<Extent> FrameAllocator::allocate_huge(unsigned level, Placement placement) {
    const std::scoped_lock lock(mutex_);
    std::optional<Extent> found;
    auto done = each_region(placement, [&](std::size_t region) -> Result<bool> {
        auto taken = take_huge_from_region(region, level);
        if (!taken) return std::unexpected(taken.error());
        found = *taken;
        return found.has_value();
    });
    if (!done) return std::unexpected(done.error());
    if (found) return *found;
    std::uint64_t in_pieces = 0;
    for (const RegionChunks& region : regions_)
        for (const auto& chunk : region.chunks) in_pieces += chunk ? chunk->count() : 0;
    return fail(
        ErrorCode::no_space,
        fmt::format("{}: no {} of free memory lie in one piece ({} frames of 4 KiB are free "
                    "in pieces); use smaller pages, unmap something, or make a larger pool",
                    memory_.pool().path(), level == 2 ? "2 MiB" : "1 GiB", in_pieces));
}

std::optional<FrameNumber> FrameAllocator::take_next_to_hint(std::size_t region) {
    if (!may_give(region)) return std::nullopt;
    const RegionChunks& chunks = regions_[region];
    FreeChunk* const chunk = chunks.chunks[chunks.hint].get();
    unsigned at = 0;
    if (chunk == nullptr || !chunk->take_near_last(at)) return std::nullopt;
    return chunk_base(region, chunks.hint) + at;
}

Result<FrameNumber> FrameAllocator::allocate_one(Placement placement) {
    {
        const std::scoped_lock lock(mutex_);
        if (const auto frame =
                take_next_to_hint(placement.is_pool() ? hint_region_ : placement.region))
            return *frame;
    }
    auto extents = allocate(1, placement);
    if (!extents) return std::unexpected(extents.error());
    return extents->front().first;
}

bool FrameAllocator::allocate_again(FrameNumber frame) {
    const std::scoped_lock lock(mutex_);
    know_regions();
    const auto regions = memory_.regions();
    for (std::size_t i = 0; i < regions.size(); ++i) {
        if (!regions[i].contains(frame)) continue;
        FreeChunk* const chunk = regions_[i].chunks[chunk_of(i, frame)].get();
        if (!may_give(i) || chunk == nullptr || !chunk->is_free(place_in_chunk(frame)))
            return false;
        chunk->take_one(place_in_chunk(frame));
        return true;
    }
    return false;
}

// What is known of frames while they are in use.
void FrameAllocator::forget(FrameNumber first, std::uint64_t count) {
    for (FrameNumber frame = first; frame < first + count; frame = frame + 1) {
        if (charges_.is_on()) charges_.release(frame);
        memory_.swap_cache().forget(frame);
    }
}

void FrameAllocator::put_locked(Extent extent, bool was_withheld) {
    know_regions();
    const auto regions = memory_.regions();
    const auto is_inside = [&](FrameNumber frame) { return extent.contains(frame); };
    const bool may_be_held_back = std::ranges::any_of(held_back_, is_inside);
    for (FrameNumber frame = extent.first; frame < extent.end(); frame = frame + 1) {
        std::size_t region = 0;
        while (region < regions.size() && !regions[region].contains(frame)) ++region;
        if (region == regions.size()) continue;
        const FrameNumber end = std::min(extent.end(), regions[region].end());
        // A whole block at once, if each of its frames would go the plain way below.
        const auto put_block = [&](FreeChunk* chunk) {
            const unsigned block = place_in_chunk(frame) / FreeChunk::kBlockFrames;
            if (place_in_chunk(frame) % FreeChunk::kBlockFrames != 0 ||
                end - frame < FreeChunk::kBlockFrames || chunk == nullptr ||
                !chunk->has_none_of(block) || may_be_held_back || !withheld_.empty() ||
                was_withheld || (holding_back_ && held_back_.size() < kHeldBack))
                return false;
            chunk->put_block(block);
            return true;
        };
        for (; frame < end; frame = frame + 1) {
            // A chunk that was not read yet will find the frame by its metadata.
            FreeChunk* const chunk = regions_[region].chunks[chunk_of(region, frame)].get();
            if (put_block(chunk)) {
                forget(frame, FreeChunk::kBlockFrames);
                frame = frame + (FreeChunk::kBlockFrames - 1);
                continue;
            }
            forget(frame, 1);
            if (chunk == nullptr || chunk->is_free(place_in_chunk(frame)) ||
                (may_be_held_back && std::ranges::find(held_back_, frame) != held_back_.end()) ||
                (!withheld_.empty() && is_withheld(frame)) ||
                (was_withheld && memory_.huge_frame_around(frame)))
                continue;
            if (holding_back_ && held_back_.size() < kHeldBack &&
                regions[region].kind() == RegionKind::pool)
                held_back_.push_back(frame);
            else
                chunk->put(place_in_chunk(frame));
        }
        frame = FrameNumber(end.value() - 1);
    }
}

void FrameAllocator::give_back(Extent extent) {
    const std::scoped_lock lock(mutex_);
    put_locked(extent);
}

void FrameAllocator::retire(Extent extent) {
    if (charges_.is_on()) charges_.release(extent.first);
    bool collect = false;
    {
        const std::scoped_lock lock(mutex_);
        if (!retired_.empty() && retired_.back().end() == extent.first)
            retired_.back().count += extent.count;
        else
            retired_.push_back(extent);
        retired_frames_ += extent.count;
        collect = retired_frames_ >= 4096;
    }
    if (collect) collect_retired();
}

bool FrameAllocator::collect_retired() {
    // Who comes second waits for what the first is about to give back.
    const std::scoped_lock collecting(collecting_);
    std::vector<Extent> retired;
    {
        const std::scoped_lock lock(mutex_);
        retired.swap(retired_);
        retired_frames_ = 0;
    }
    if (retired.empty()) return false;
    ReaderSection::wait_for_readers();
    const std::scoped_lock lock(mutex_);
    for (const Extent& extent : retired) put_locked(extent);
    return true;
}

Result<void> FrameAllocator::prepare_release(Extent extent) {
    const std::scoped_lock lock(mutex_);
    know_regions();
    const auto regions = memory_.regions();
    for (std::size_t i = 0; i < regions.size(); ++i) {
        if (!regions[i].contains(extent.first)) continue;
        const std::size_t last = chunk_of(i, FrameNumber(extent.end().value() - 1));
        for (std::size_t chunk = chunk_of(i, extent.first); chunk <= last; ++chunk)
            if (auto read = chunk_at(i, chunk); !read) return std::unexpected(read.error());
    }
    return {};
}

void FrameAllocator::withhold(Extent extent) {
    const std::scoped_lock lock(mutex_);
    withheld_.push_back(extent);
}

void FrameAllocator::give_back_withheld(Extent extent) {
    const std::scoped_lock lock(mutex_);
    std::erase(withheld_, extent);
    put_locked(extent, true);
}

Result<void> FrameAllocator::initialize(const Region& region, std::uint64_t frames) {
    const std::scoped_lock lock(mutex_);
    return memory_.initialize_metadata(region, frames);
}

FreeFrames FrameAllocator::count_free(bool for_anybody) {
    collect_retired();
    const std::scoped_lock lock(mutex_);
    know_regions();
    FreeFrames free{.frames = held_back_.size()};
    for (std::size_t region = 0; region < regions_.size(); ++region) {
        if (memory_.regions()[region].has_fixed_frames()) continue;
        if (for_anybody &&
            (memory_.regions()[region].kind() != RegionKind::pool || !may_give(region)))
            continue;
        std::uint64_t all_free_in_a_row = 0;
        for (std::size_t k = 0; k < regions_[region].chunks.size(); ++k) {
            std::unique_ptr<FreeChunk> read;
            const FreeChunk* chunk = regions_[region].chunks[k].get();
            if (chunk == nullptr) {
                read = read_chunk(region, k, nullptr);
                chunk = read.get();
            }
            free.frames += chunk->count();
            free.huge_2MiB += chunk->whole_blocks();
            if (chunk_base(region, k).value() % kHugeFrames1GiB == 0) all_free_in_a_row = 0;
            all_free_in_a_row = chunk->is_all_free() ? all_free_in_a_row + 1 : 0;
            if (all_free_in_a_row == kChunksPer1GiB) ++free.huge_1GiB;
        }
    }
    return free;
}

}  // namespace holdfast::memory
