#include "memory/physical_memory.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/random.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace holdfast::memory {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
constexpr std::uint64_t kFramesPerGiB = kGiB >> kPageShift;
// Below 4 GiB a virtual machine has its own devices and boot code.
constexpr std::uint64_t kFirstBase = 4 * kFramesPerGiB;
constexpr std::uint64_t kFrameNumberEnd = std::uint64_t{1} << 40;  // 52-bit physical addresses

// How many frames the smallest aligned range of 2^n frames has that covers all of these.
constexpr std::uint64_t aligned_range(std::uint64_t first, std::uint64_t count) {
    return std::uint64_t{1} << std::bit_width(first ^ (first + count - 1));
}

// Whether metadata and frames lie in the pool. A checksum fits whatever wrote it.
bool is_possible(const pool::Pool& pool, const format::RegionRecord& record) {
    return record.window_frames <= kFrameNumberEnd &&
           record.base_frame <= kFrameNumberEnd - record.window_frames &&
           record.frame_count <= record.window_frames && record.initialized <= record.frame_count &&
           record.frames_offset % kPageSize == 0 &&
           record.metadata_offset % sizeof(std::uint64_t) == 0 &&
           pool.holds(record.metadata_offset, record.frame_count * format::kFrameMetadataBytes) &&
           pool.holds(record.frames_offset, record.frame_count << kPageShift);
}

}  // namespace

void MarksUnmap::operator()(ValidatedMark* marks) const {
    munmap(static_cast<void*>(marks), size_bytes);
}

const Window* PhysicalMemory::other_window_of(FrameNumber frame) const {
    const std::size_t count = window_count_.load(std::memory_order_acquire);
    for (std::size_t i = 1; i < count; ++i)
        if (windows_[i].contains(frame)) return &windows_[i];
    return nullptr;
}

std::optional<format::FrameMetadata> PhysicalMemory::valid_metadata(FrameNumber frame) const {
    const MetadataWords words = metadata(frame);
    if (!words) return std::nullopt;
    const std::uint64_t word0 = pool::load_word(words.word0);
    const std::uint64_t word1 = pool::load_word(words.word1());
    if (!format::FrameMetadata::is_valid(frame, word0, word1)) return std::nullopt;
    return format::FrameMetadata::decode(word0, word1);
}

Result<void> PhysicalMemory::attach() {
    const auto count =
        format::CheckedWord::decode(superblock_.region_count, format::kSeedRegionCount);
    if (!count || *count == 0 || *count > format::kMaxRegions)
        return fail(
            ErrorCode::damaged,
            fmt::format("{}: the number of regions fails its check; restore a copy", pool_.path()));
    for (unsigned i = 0; i < *count; ++i)
        if (auto done = take_up(i); !done) return done;
    return {};
}

Result<void> PhysicalMemory::take_up(unsigned index) {
    const format::RegionRecord& record = superblock_.regions[index];
    if (record.checksum != record.computed_checksum())
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the record of region {} fails its checksum; restore a copy",
                                pool_.path(), index));
    if (record.kind != format::RegionKindOnMedium::pool)
        return fail(ErrorCode::unsupported,
                    fmt::format("{}: region {} is of kind {}, which this version does not attach",
                                pool_.path(), index, static_cast<unsigned>(record.kind)));
    if (!is_possible(pool_, record))
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the record of region {} names places that are not in the "
                                "pool; restore a copy",
                                pool_.path(), index));
    Region& region = regions_[index];
    region.record_ = &record;
    region.metadata_ = reinterpret_cast<std::uint64_t*>(pool_.at(record.metadata_offset));
    region.host_ = pool_.at(record.frames_offset);

    const std::size_t windows = window_count_.load(std::memory_order_relaxed);
    const bool covered = std::any_of(
        windows_.begin(), windows_.begin() + static_cast<std::ptrdiff_t>(windows),
        [&](const Window& window) {
            return window.contains(region.base()) && window.host(region.base()) == region.host_ &&
                   window.contains(region.end() + ~std::uint64_t{0});
        });
    if (!covered) {
        Window& window = windows_[windows];
        window.first_ = record.base_frame;
        window.host_ = region.host_;
        window.count_ = record.window_frames;
        window.first_mark_ = window.first_;
        std::uint64_t marks = window.count_;
        // Across a large power of two the aligned range would be far larger than the window; and
        // only the first window has use for it.
        const std::uint64_t aligned = aligned_range(window.first_, window.count_);
        const bool is_linked = windows == 0 && aligned / 16 <= window.count_;
        if (is_linked) {
            window.first_mark_ &= ~(aligned - 1);
            marks = aligned;
        }
        const std::size_t size_bytes = marks * sizeof(ValidatedMark);
        void* const memory = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED)
            return fail(ErrorCode::no_space, "no memory to mark the validated tables of a region");
        window.marks_ =
            decltype(window.marks_)(static_cast<ValidatedMark*>(memory), MarksUnmap{size_bytes});
        if (is_linked) linked_tables_ = LinkedTables(window, aligned);
        window_count_.store(windows + 1, std::memory_order_release);
    }
    region_count_.store(index + 1, std::memory_order_release);
    return {};
}

Result<void> PhysicalMemory::add_pool_region(std::uint64_t size_bytes,
                                             std::uint64_t reserve_bytes) {
    const std::scoped_lock lock(adding_);
    const auto first_index = static_cast<unsigned>(regions().size());
    if (first_index == format::kMaxRegions)
        return fail(ErrorCode::no_space,
                    fmt::format("{}: {} regions already, and no more are possible", pool_.path(),
                                first_index));
    std::uint64_t object_bytes = pool_.largest_allocation(size_bytes + reserve_bytes);
    object_bytes = object_bytes > reserve_bytes ? object_bytes - reserve_bytes : 0;
    object_bytes = std::min(object_bytes, size_bytes);
    constexpr std::uint64_t kPerFrame = kPageSize + format::kFrameMetadataBytes;
    if (object_bytes < 2 * kPageSize + kPerFrame)
        return fail(
            ErrorCode::no_space,
            fmt::format("{}: the pool has no room for another region; make a larger one, or "
                        "extend its poolset",
                        pool_.path()));

    const auto next_base =
        format::CheckedWord::decode(superblock_.next_base, format::kSeedNextBase);
    if (!next_base)
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the next physical base fails its check", pool_.path()));
    unsigned end_index = first_index;
    const auto body = [&](pool::TransactionScope& scope) -> Result<void> {
        auto object = scope.allocate(object_bytes);
        if (!object) return std::unexpected(object.error());
        // Metadata of all frames first, then the frames, aligned in memory and so in the file: the
        // pool's own start is page-aligned.
        std::uint64_t frames = (object_bytes - 2 * kPageSize) / kPerFrame;
        pool::Offset metadata = (*object + 15) & ~std::uint64_t{15};
        pool::Offset place = (metadata + frames * format::kFrameMetadataBytes + kPageSize - 1) /
                             kPageSize * kPageSize;
        std::uint64_t base = *next_base;
        // One region for each part of a poolset that the object reaches into.
        while (frames != 0 && end_index < format::kMaxRegions) {
            auto record = new_record(place, frames, base);
            if (!record) return std::unexpected(record.error());
            record->metadata_offset = metadata;
            record->checksum = record->computed_checksum();
            scope.write(&superblock_.regions[end_index++], std::as_bytes(std::span(&*record, 1)));
            metadata += record->frame_count * format::kFrameMetadataBytes;
            place += record->frame_count << kPageShift;
            frames -= record->frame_count;
        }
        const auto put = [&](std::uint64_t& word, std::uint64_t value, std::uint32_t seed) {
            const std::uint64_t encoded = format::CheckedWord::encode(value, seed);
            scope.write(&word, std::as_bytes(std::span(&encoded, 1)));
        };
        put(superblock_.region_count, end_index, format::kSeedRegionCount);
        put(superblock_.next_base, base, format::kSeedNextBase);
        return {};
    };
    // Commit point: the transaction's. A crash before it leaves neither object nor records. The
    // metadata needs no preparation, see `initialized` and FrameAllocator.
    pool::WriteSet none;
    if (auto done = pool_.commit(none, body); !done) return done;
    for (unsigned index = first_index; index < end_index; ++index)
        if (auto done = take_up(index); !done) return done;
    return {};
}

// The record of a region at `place`, of at most `frames` frames and within one file; without its
// metadata's place and its checksum. Raises `next_base` if it needs a physical range of its own.
Result<format::RegionRecord> PhysicalMemory::new_record(pool::Offset place, std::uint64_t frames,
                                                        std::uint64_t& next_base) const {
    format::RegionRecord record{};
    record.kind = format::RegionKindOnMedium::pool;
    if (getrandom(record.uuid, sizeof record.uuid, 0) != sizeof record.uuid)
        return fail(ErrorCode::io, "the system gave no random bytes for a region's UUID");
    std::uint64_t contiguous = 0;
    const auto location = pool_.locate(pool_.at(place), std::uint64_t{1} << 52, &contiguous);
    if (!location || contiguous < kPageSize)
        return fail(ErrorCode::io, "cannot find the pool's file in /proc/self/maps");
    record.frames_offset = place;
    record.file_offset = location->offset;
    record.window_frames = contiguous >> kPageShift;
    record.frame_count = std::min(frames, record.window_frames);
    for (const Region& other : regions()) {
        // Behind another region of the same file: its physical range goes on here.
        if (pool_.at(place) < other.host_) continue;
        const auto frames_on =
            static_cast<std::uint64_t>(pool_.at(place) - other.host_) / kPageSize;
        if (frames_on < other.record().window_frames)
            record.base_frame = other.record().base_frame + frames_on;
    }
    if (record.base_frame == 0) {
        const std::uint64_t from = std::max(next_base, kFirstBase);
        record.base_frame = (from + kFramesPerGiB - 1) / kFramesPerGiB * kFramesPerGiB +
                            record.file_offset % kGiB / kPageSize;
        next_base = record.base_frame + record.window_frames;
    }
    if (record.base_frame + record.window_frames > kFrameNumberEnd)
        return fail(ErrorCode::no_space, "physical addresses of 52 bits are used up");
    return record;
}

}  // namespace holdfast::memory
