#include "memory/frame_allocator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "memory/reader_section.hpp"

namespace holdfast::memory {

using format::FrameKind;
using format::FrameMetadata;

void FrameAllocator::know_regions() {
    const auto regions = memory_.regions();
    while (regions_.size() < regions.size()) {
        const std::uint64_t frames = regions[regions_.size()].frame_count();
        RegionChunks chunks;
        chunks.chunks.resize((frames + kChunkFrames - 1) / kChunkFrames);
        regions_.push_back(std::move(chunks));
    }
}

std::uint64_t FrameAllocator::chunk_end(std::size_t region, std::size_t chunk) const {
    return std::min((chunk + 1) * kChunkFrames, memory_.regions()[region].frame_count());
}

Result<FrameAllocator::Chunk*> FrameAllocator::chunk_at(std::size_t region_index,
                                                        std::size_t chunk_index) {
    std::unique_ptr<Chunk>& slot = regions_[region_index].chunks[chunk_index];
    if (slot) return slot.get();

    const Region& region = memory_.regions()[region_index];
    const std::uint64_t begin = chunk_index * kChunkFrames;
    const std::uint64_t end = chunk_end(region_index, chunk_index);
    if (auto done = memory_.initialize_metadata(region, end); !done)
        return std::unexpected(done.error());

    auto chunk = std::make_unique<Chunk>();
    for (std::uint64_t at = begin; at < end; ++at) {
        const FrameNumber frame = region.base() + at;
        const MetadataWords words = region.metadata(frame);
        const std::uint64_t word0 = pool::load_word(words.word0);
        const std::uint64_t word1 = pool::load_word(words.word1());
        if (!FrameMetadata::is_valid(words.home, word0, word1)) {
            ++damaged_;  // never given out; `verify` names it
            continue;
        }
        const FrameMetadata metadata = FrameMetadata::decode(word0, word1);
        if (metadata.kind == FrameKind::huge_2MiB) at += 511;
        if (metadata.kind == FrameKind::huge_1GiB) at += 512 * 512 - 1;
        if (metadata.kind != FrameKind::free || is_withheld(frame)) continue;
        chunk->free_bits[(at - begin) / 64] |= std::uint64_t{1} << ((at - begin) % 64);
        ++chunk->free_count;
    }
    slot = std::move(chunk);
    return slot.get();
}

bool FrameAllocator::is_withheld(FrameNumber frame) const {
    return std::any_of(withheld_.begin(), withheld_.end(),
                       [&](const Extent& extent) { return extent.contains(frame); });
}

// Takes runs of free bits from the hint's word on, then from the chunk's start.
std::uint64_t FrameAllocator::take_from(Chunk& chunk, std::size_t& hint_word,
                                        FrameNumber chunk_base, std::uint64_t wanted,
                                        std::vector<Extent>& out) {
    std::uint64_t taken = 0;
    for (std::size_t word = hint_word; word < chunk.free_bits.size() && taken < wanted;) {
        std::uint64_t bits = chunk.free_bits[word];
        if (bits == 0) {
            ++word;
            continue;
        }
        const unsigned first = static_cast<unsigned>(std::countr_zero(bits));
        const std::uint64_t run = std::min<std::uint64_t>(
            static_cast<unsigned>(std::countr_one(bits >> first)), wanted - taken);
        const std::uint64_t mask = (run == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << run) - 1)
                                   << first;
        chunk.free_bits[word] &= ~mask;
        chunk.free_count -= run;
        taken += run;
        const FrameNumber frame = chunk_base + (word * 64 + first);
        if (!out.empty() && out.back().end() == frame &&
            out.back().count + run <= Extent::kCountMax)
            out.back().count += run;
        else
            out.push_back({frame, run});
        hint_word = word;
    }
    return taken;
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

// One round over the region's chunks from its hint on, and the hint's own chunk once more, whose
// words before the hint were passed over the first time.
Result<std::uint64_t> FrameAllocator::take_from_region(std::size_t region, std::uint64_t wanted,
                                                       std::vector<Extent>& out) {
    RegionChunks& chunks = regions_[region];
    std::uint64_t taken = 0;
    for (std::size_t round = 0; round <= chunks.chunks.size() && taken < wanted; ++round) {
        if (round != 0) {
            chunks.hint_word = 0;
            chunks.hint_chunk = (chunks.hint_chunk + 1) % chunks.chunks.size();
        }
        auto chunk = chunk_at(region, chunks.hint_chunk);
        if (!chunk) return std::unexpected(chunk.error());
        if ((*chunk)->free_count == 0) continue;
        taken += take_from(**chunk, chunks.hint_word,
                           memory_.regions()[region].base() + chunks.hint_chunk * kChunkFrames,
                           wanted - taken, out);
    }
    return taken;
}

// Whoever is given a frame will want to write to it.
bool FrameAllocator::may_give(std::size_t region) const {
    return region < regions_.size() && memory_.regions()[region].state() == RegionState::attached;
}

Result<std::vector<Extent>> FrameAllocator::allocate_locked(std::uint64_t count,
                                                            Placement placement) {
    know_regions();
    std::vector<Extent> extents;
    std::uint64_t taken = 0;
    const auto take = [&](std::size_t region) -> Result<void> {
        auto more = take_from_region(region, count - taken, extents);
        if (!more) return std::unexpected(more.error());
        taken += *more;
        return {};
    };
    Result<void> done;
    if (!placement.is_pool() && may_give(placement.region)) done = take(placement.region);
    const std::size_t first = hint_region_;
    for (std::size_t i = 0; done && i < regions_.size() && taken < count; ++i) {
        const std::size_t region = (first + i) % regions_.size();
        if (memory_.regions()[region].kind() != RegionKind::pool || !may_give(region)) continue;
        hint_region_ = region;
        done = take(region);
    }
    if (done && taken < count) done = std::unexpected(not_enough(count, taken));
    if (done) return extents;
    for (const Extent& extent : extents) put_locked(extent);
    return std::unexpected(done.error());
}

// Nearly always there is one in the word where the last one was.
std::optional<FrameNumber> FrameAllocator::take_next_to_hint(std::size_t region) {
    if (!may_give(region)) return std::nullopt;
    const RegionChunks& chunks = regions_[region];
    Chunk* const chunk = chunks.chunks[chunks.hint_chunk].get();
    if (chunk == nullptr || chunk->free_bits[chunks.hint_word] == 0) return std::nullopt;
    std::uint64_t& bits = chunk->free_bits[chunks.hint_word];
    const auto at = static_cast<unsigned>(std::countr_zero(bits));
    bits &= bits - 1;
    --chunk->free_count;
    return memory_.regions()[region].base() + chunks.hint_chunk * kChunkFrames +
           (chunks.hint_word * 64 + at);
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

void FrameAllocator::put_locked(Extent extent) {
    know_regions();
    for (std::uint64_t i = 0; i < extent.count; ++i) set_free(extent.first + i);
}

void FrameAllocator::set_free(FrameNumber frame) {
    const auto regions = memory_.regions();
    for (std::size_t i = 0; i < regions.size(); ++i) {
        if (!regions[i].contains(frame)) continue;
        const std::uint64_t at = frame - regions[i].base();
        // A chunk that was not read yet will find the frame by its metadata.
        Chunk* chunk = regions_[i].chunks[at / kChunkFrames].get();
        if (chunk == nullptr) return;
        std::uint64_t& bits = chunk->free_bits[at % kChunkFrames / 64];
        const std::uint64_t bit = std::uint64_t{1} << (at % 64);
        if ((bits & bit) != 0 || std::ranges::find(held_back_, frame) != held_back_.end()) return;
        if (holding_back_ && held_back_.size() < kHeldBack &&
            regions[i].kind() == RegionKind::pool) {
            held_back_.push_back(frame);
            return;
        }
        ++chunk->free_count;
        bits |= bit;
    }
}

void FrameAllocator::give_back(Extent extent) {
    const std::scoped_lock lock(mutex_);
    put_locked(extent);
}

void FrameAllocator::retire(Extent extent) {
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

Result<void> FrameAllocator::prepare_release(FrameNumber frame) {
    const std::scoped_lock lock(mutex_);
    know_regions();
    const auto regions = memory_.regions();
    for (std::size_t i = 0; i < regions.size(); ++i)
        if (regions[i].contains(frame)) {
            auto chunk = chunk_at(i, (frame - regions[i].base()) / kChunkFrames);
            if (!chunk) return std::unexpected(chunk.error());
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
    put_locked(extent);
}

Result<std::uint64_t> FrameAllocator::count_free() {
    collect_retired();
    const std::scoped_lock lock(mutex_);
    know_regions();
    std::uint64_t count = held_back_.size();
    for (std::size_t i = 0; i < regions_.size(); ++i)
        for (std::size_t k = 0; k < regions_[i].chunks.size(); ++k) {
            const std::uint64_t begin = k * kChunkFrames;
            if (regions_[i].chunks[k] == nullptr && memory_.regions()[i].initialized() <= begin) {
                count += chunk_end(i, k) - begin;  // never used, and need not be written to say so
                continue;
            }
            auto chunk = chunk_at(i, k);
            if (!chunk) return std::unexpected(chunk.error());
            count += (*chunk)->free_count;
        }
    return count;
}

}  // namespace holdfast::memory
