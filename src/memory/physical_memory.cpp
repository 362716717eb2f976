#include "memory/physical_memory.hpp"

#include <fmt/format.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

namespace holdfast::memory {

using format::CheckedWord;
using format::FrameKind;
using format::RegionKindOnMedium;
using format::RegionRecord;
using format::RegionStateOnMedium;

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

// Whether the record can be true. A checksum fits whatever wrote it.
bool is_possible(const pool::Pool& pool, const RegionRecord& record) {
    const bool has_frames_in_pool =
        record.kind != RegionKindOnMedium::pool ||
        (record.frames_offset % kPageSize == 0 &&
         pool.holds(record.frames_offset, record.frame_count << kPageShift));
    return record.kind >= RegionKindOnMedium::pool && record.kind <= RegionKindOnMedium::device &&
           (record.state == RegionStateOnMedium::attached ||
            record.state == RegionStateOnMedium::detached) &&
           record.loss_policy <= format::LossPolicyOnMedium::zero &&
           record.window_frames <= kFrameNumberEnd &&
           record.base_frame <= kFrameNumberEnd - record.window_frames &&
           record.frame_count <= record.window_frames && record.initialized <= record.frame_count &&
           record.metadata_offset % sizeof(std::uint64_t) == 0 &&
           pool.holds(record.metadata_offset, record.frame_count * format::kFrameMetadataBytes) &&
           has_frames_in_pool;
}

Error no_random_bytes() {
    return {ErrorCode::io, "the system gave no random bytes for a region's UUID"};
}

std::span<const std::byte> bytes_of(const RegionRecord& record) {
    return std::as_bytes(std::span(&record, 1));
}

void put_word(pool::TransactionScope& scope, std::uint64_t& word, std::uint64_t value,
              std::uint32_t seed) {
    const std::uint64_t encoded = CheckedWord::encode(value, seed);
    scope.write(&word, std::as_bytes(std::span(&encoded, 1)));
}

}  // namespace

void change_record(pool::TransactionScope& scope, RegionRecord& on_medium,
                   const std::function<void(RegionRecord&)>& change) {
    RegionRecord record = on_medium;
    change(record);
    record.checksum = record.computed_checksum();
    scope.write(&on_medium, bytes_of(record));
}

std::string Region::trouble() const {
    if (state() == RegionState::detached)
        return fmt::format("region {} is detached; `region replace` attaches it again", index_);
    return trouble_;
}

FrameNumber PhysicalMemory::current_of(FrameNumber frame) const {
    const std::size_t count = former_count_.load(std::memory_order_acquire);
    for (std::size_t i = 0; i < count; ++i)
        if (!former_[i].is_gone && frame.value() - former_[i].first < former_[i].count)
            return former_[i].region->base() + (frame.value() - former_[i].first);
    return frame;
}

std::optional<FrameNumber> PhysicalMemory::at_home(FrameNumber home) const {
    for (const Region& region : regions())
        if (home.value() - region.record().home_frame < region.frame_count())
            return region.base() + (home.value() - region.record().home_frame);
    return std::nullopt;
}

std::optional<FrameNumber> PhysicalMemory::zero_frame() const {
    const std::uint64_t word = pool::load_word(&superblock_.zero_frame);
    const auto home = word != 0 ? CheckedWord::decode(word, format::kSeedZeroFrame) : std::nullopt;
    const auto frame = home ? at_home(FrameNumber(*home)) : std::nullopt;
    const auto metadata = frame ? valid_metadata(*frame) : std::nullopt;
    if (!metadata || metadata->kind != FrameKind::data || !metadata->is_fixed())
        return std::nullopt;
    return frame;
}

const Region* PhysicalMemory::replaced_region(FrameNumber frame) const {
    const std::size_t count = former_count_.load(std::memory_order_acquire);
    for (std::size_t i = 0; i < count; ++i)
        if (former_[i].is_gone && frame.value() - former_[i].first < former_[i].count)
            return former_[i].region;
    return nullptr;
}

void PhysicalMemory::close_to_allocation(unsigned index) {
    regions_[index].look();
    regions_[index].state_.store(RegionState::detached, std::memory_order_release);
}

void PhysicalMemory::outlive(unsigned index) {
    regions_[index].is_outlived_.store(true, std::memory_order_release);
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
    if (!format::FrameMetadata::is_valid(words.home, word0, word1)) return std::nullopt;
    return format::FrameMetadata::decode(word0, word1);
}

std::optional<format::Extent> PhysicalMemory::huge_frame_around(FrameNumber frame) const {
    const Region* const region = region_of(frame);
    if (region == nullptr) return std::nullopt;
    for (const FrameKind kind : {FrameKind::huge_2MiB, FrameKind::huge_1GiB}) {
        const std::uint64_t count = format::frames_of(kind);
        const FrameNumber head(frame.value() & ~(count - 1));
        if (head == frame || !region->contains(head) ||
            head - region->base() >= region->initialized())
            continue;
        const auto metadata = valid_metadata(head);
        if (metadata && metadata->kind == kind) return format::Extent{head, count};
    }
    return std::nullopt;
}

// --- out of reach ---

namespace {

FaultKind fault_of(RegionState state) {
    switch (state) {
        case RegionState::detached:
            return FaultKind::region_detached;
        case RegionState::replaced:
            return FaultKind::region_replaced;
        case RegionState::shrunk:
            return FaultKind::region_shrunk;
        case RegionState::outdated:
            return FaultKind::region_outdated;
        default:
            return FaultKind::region_missing;
    }
}

}  // namespace

std::optional<FaultKind> PhysicalMemory::elsewhere_out_of_reach(FrameNumber frame) const {
    const Region* const region = region_of(frame);
    if (region == nullptr)
        return replaced_region(frame) != nullptr ? FaultKind::region_replaced
                                                 : FaultKind::no_region;
    frame = current(frame);
    if (region->host(frame) == nullptr) return fault_of(region->state());
    if (region->kind() != RegionKind::volatile_memory) return std::nullopt;
    const Window& window = *window_of(frame);
    if (window.is_filled(frame)) return std::nullopt;
    if (region->record().loss_policy == format::LossPolicyOnMedium::fault)
        return FaultKind::volatile_lost;
    // In use since an earlier process, so nobody in this one has written to it: it is still the
    // zeros that the kernel gave. Whoever else finds that at the same time says the same.
    window.set_filled(frame, true);
    return std::nullopt;
}

void PhysicalMemory::set_filled(FrameNumber frame, bool filled) const {
    if (windows_[0].contains(frame)) return;  // the pool's own
    const Region* const region = region_of(frame);
    if (region == nullptr || region->kind() != RegionKind::volatile_memory) return;
    window_of(frame)->set_filled(frame, filled);
}

// --- taking up ---

Result<void> PhysicalMemory::attach() {
    const auto count = CheckedWord::decode(superblock_.region_count, format::kSeedRegionCount);
    if (!count || *count == 0 || *count > format::kMaxRegions)
        return fail(
            ErrorCode::damaged,
            fmt::format("{}: the number of regions fails its check; restore a copy", pool_.path()));
    for (unsigned i = 0; i < *count; ++i)
        if (auto done = take_up(i); !done) return done;
    return {};
}

Result<void> PhysicalMemory::take_up(unsigned index) {
    const RegionRecord& record = superblock_.regions[index];
    if (record.checksum != record.computed_checksum())
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the record of region {} fails its checksum; `repair` puts one "
                                "flipped bit right; if there are more, restore a copy",
                                pool_.path(), index));
    if (!is_possible(pool_, record))
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the record of region {} names what cannot be in this pool; "
                                "restore a copy",
                                pool_.path(), index));
    Region& region = regions_[index];
    region.index_ = index;
    region.memory_ = this;
    region.record_ = record;
    region.metadata_ = reinterpret_cast<std::uint64_t*>(pool_.at(record.metadata_offset));
    region.initialized_.store(record.initialized, std::memory_order_relaxed);
    if (record.kind == RegionKindOnMedium::pool) {
        region.host_ = pool_.at(record.frames_offset);
        region.reachable_frames_ = record.frame_count;
        region.was_looked_at_.store(true, std::memory_order_release);
        const std::scoped_lock lock(looking_);
        if (!provide_window(region, record.window_frames))
            return fail(ErrorCode::no_space, "no memory to mark the validated tables of a region");
    } else if (record.kind != RegionKindOnMedium::volatile_memory) {
        has_files_.store(true, std::memory_order_release);
    }
    if (record.previous != format::PreviousBase::none) {
        const std::size_t count = former_count_.load(std::memory_order_relaxed);
        former_[count] = {.first = record.previous_base,
                          .count = record.frame_count,
                          .region = &region,
                          .is_gone = record.previous == format::PreviousBase::replaced};
        former_count_.store(count + 1, std::memory_order_release);
    }
    region_count_.store(index + 1, std::memory_order_release);
    return {};
}

void PhysicalMemory::look_at(unsigned index) const {
    const std::scoped_lock lock(looking_);
    Region& region = regions_[index];
    if (region.was_looked_at_.load(std::memory_order_relaxed)) return;
    if (region.record_.state == RegionStateOnMedium::detached)
        region.state_.store(RegionState::detached, std::memory_order_relaxed);
    else if (region.kind() != RegionKind::volatile_memory)
        attach_file(region);
    else
        attach_volatile(region);
    if (region.reachable_frames_ != 0 && !provide_window(region, region.reachable_frames_)) {
        region.reachable_frames_ = 0;
        region.state_.store(RegionState::missing, std::memory_order_relaxed);
        region.trouble_ = fmt::format("region {}: no memory to map it", index);
    }
    region.was_looked_at_.store(true, std::memory_order_release);
}

void PhysicalMemory::attach_file(Region& region) const {
    const auto path = region_path(pool_, region.record_);
    FoundFile found;
    if (path)
        found = find_region_file(superblock_, region.record_, *path, files_);
    else
        found.trouble = "the pool's record of the file's path fails its checksum";
    region.state_.store(found.state, std::memory_order_relaxed);
    if (found.state != RegionState::attached)
        region.trouble_ =
            fmt::format("region {} ({}) is {}: {}", region.index_, path ? *path : "unknown",
                        to_string(found.state), found.trouble);
    if (!found.memory) return;
    region.host_ = found.memory->data() + region.record_.file_offset;
    region.reachable_frames_ = found.reachable_frames;
    region.file_ = &pool_.adopt(std::move(found.memory));
}

void PhysicalMemory::attach_volatile(Region& region) const {
    auto memory = pool::ForeignMemory::anonymous(region.frame_count() << kPageShift);
    if (!memory) {
        region.state_.store(RegionState::missing, std::memory_order_relaxed);
        region.trouble_ =
            fmt::format("region {}: {}", region.index_, std::move(memory.error().message));
        return;
    }
    region.host_ = pool_.adopt(std::move(*memory)).data();
    region.reachable_frames_ = region.frame_count();
}

// So many frames from the region's base on are mapped in one piece.
bool PhysicalMemory::provide_window(const Region& region, std::uint64_t frames) const {
    const std::size_t windows = window_count_.load(std::memory_order_relaxed);
    for (std::size_t i = 0; i < windows; ++i)
        if (windows_[i].contains(region.base(), region.frame_count()) &&
            windows_[i].host(region.base()) == region.host_)
            return true;
    FrameNumber first_mark = region.base();
    std::uint64_t marks = frames;
    // Across a large power of two the aligned range would be far larger than the window; and only
    // the first window has use for it.
    const std::uint64_t aligned = aligned_range(region.base().value(), frames);
    const bool is_linked = windows == 0 && aligned / 16 <= frames;
    if (is_linked) {
        first_mark = FrameNumber(first_mark.value() & ~(aligned - 1));
        marks = aligned;
    }
    Window& window = windows_[windows];
    window = Window(region.base(), frames, region.host_, first_mark, marks);
    if (!window) return false;
    if (is_linked) linked_tables_ = LinkedTables(window, aligned);
    window_count_.store(windows + 1, std::memory_order_release);
    return true;
}

Result<void> PhysicalMemory::initialize_metadata(const Region& region, std::uint64_t up_to) {
    using format::FrameMetadata;
    const std::uint64_t from = region.initialized();
    if (from >= up_to) return {};
    if (region.is_outlived_.load(std::memory_order_acquire))
        return fail(ErrorCode::busy, fmt::format("{}: region {} was changed; close the store and "
                                                 "open it again",
                                                 pool_.path(), region.index()));
    for (std::uint64_t at = from; at < up_to; ++at) {
        const MetadataWords words = region.metadata(region.base() + at);
        const FrameMetadata first = region.has_fixed_frames()
                                        ? FrameMetadata::of_device(at)
                                        : FrameMetadata{.kind = FrameKind::free};
        pool::store_word(words.word0, first.word0(words.home), std::memory_order_relaxed);
        pool::store_word(words.word1(), first.word1(), std::memory_order_relaxed);
    }
    pool_.flush(region.metadata(region.base() + from).word0,
                (up_to - from) * format::kFrameMetadataBytes);
    pool_.drain();
    // The records are durable before the mark says so. A crash before the mark's commit leaves the
    // old mark, and the next user writes the same records again: nothing above the mark is in use.
    pool::WriteSet none;
    auto done = pool_.commit(none, [&](pool::TransactionScope& scope) -> Result<void> {
        change_record(scope, superblock_.regions[region.index()],
                      [&](RegionRecord& record) { record.initialized = up_to; });
        return {};
    });
    if (done) regions_[region.index()].initialized_.store(up_to, std::memory_order_release);
    return done;
}

// --- pairing ---

Result<void> PhysicalMemory::begin_epoch(pool::WriteSet& writes) {
    struct Pair {
        const Region* region;
        std::uint64_t stamp = 0, next = 0;
    };
    std::vector<Pair> pairs;
    for (const Region& region : regions())
        if (region.reachable_frames() != 0 && region.file_ != nullptr)
            pairs.push_back({&region, stamp_of(*region.file_).value_or(0), random_stamp()});
    if (pairs.empty()) return pool_.commit(writes);
    const auto change_each = [&](pool::TransactionScope& scope, const auto& change) {
        for (const Pair& pair : pairs)
            change_record(scope, superblock_.regions[pair.region->index()],
                          [&](RegionRecord& record) { change(record, pair); });
    };
    // Three steps. A crash before the first commit leaves the old pair; between it and the end, a
    // header with either stamp, both of which the pool knows. What the header says now may be the
    // pending stamp of an opening that was interrupted right here: it is the pool's from now on.
    auto done = pool_.commit(writes, [&](pool::TransactionScope& scope) -> Result<void> {
        change_each(scope, [](RegionRecord& record, const Pair& pair) {
            record.stamp = pair.stamp;
            record.pending_stamp = pair.next;
        });
        return {};
    });
    if (!done) return done;
    for (const Pair& pair : pairs) {
        std::uint64_t* const word = &header_of(*pair.region->file_).stamp;
        pool::store_word(word, CheckedWord::encode(pair.next, format::kSeedRegionStamp));
        pool_.flush(word, sizeof *word);
    }
    // The headers are durable before the pool forgets their old stamps.
    pool_.drain();
    pool::WriteSet none;
    return pool_.commit(none, [&](pool::TransactionScope& scope) -> Result<void> {
        change_each(scope, [](RegionRecord& record, const Pair& pair) {
            record.stamp = pair.next;
            record.pending_stamp = 0;
        });
        return {};
    });
}

// --- adding ---

Result<std::uint64_t> PhysicalMemory::next_base() const {
    const auto next = CheckedWord::decode(superblock_.next_base, format::kSeedNextBase);
    if (next) return *next;
    return fail(ErrorCode::damaged,
                fmt::format("{}: the next physical base fails its check", pool_.path()));
}

Result<unsigned> PhysicalMemory::room_for_region() const {
    const auto index = static_cast<unsigned>(regions().size());
    if (index != format::kMaxRegions) return index;
    return fail(ErrorCode::no_space, fmt::format("{}: {} regions already, and no more are possible",
                                                 pool_.path(), index));
}

void PhysicalMemory::write_region_count(pool::TransactionScope& scope, std::uint64_t count) const {
    put_word(scope, superblock_.region_count, count, format::kSeedRegionCount);
}
void PhysicalMemory::write_next_base(pool::TransactionScope& scope, std::uint64_t next_base) const {
    put_word(scope, superblock_.next_base, next_base, format::kSeedNextBase);
}

Result<void> PhysicalMemory::add_pool_region(std::uint64_t size_bytes,
                                             std::uint64_t reserve_bytes) {
    const std::scoped_lock lock(adding_);
    const auto first_index = room_for_region();
    if (!first_index) return std::unexpected(first_index.error());
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

    const auto next = next_base();
    if (!next) return std::unexpected(next.error());
    unsigned end_index = *first_index;
    const auto body = [&](pool::TransactionScope& scope) -> Result<void> {
        auto object = scope.allocate(object_bytes);
        if (!object) return std::unexpected(object.error());
        // Metadata of all frames first, then the frames, aligned in memory and so in the file: the
        // pool's own start is page-aligned.
        std::uint64_t frames = (object_bytes - 2 * kPageSize) / kPerFrame;
        pool::Offset metadata = (*object + 15) & ~std::uint64_t{15};
        pool::Offset place = (metadata + frames * format::kFrameMetadataBytes + kPageSize - 1) /
                             kPageSize * kPageSize;
        std::uint64_t base = *next;
        // One region for each part of a poolset that the object reaches into.
        while (frames != 0 && end_index < format::kMaxRegions) {
            auto record = new_record(place, frames, base);
            if (!record) return std::unexpected(record.error());
            record->metadata_offset = metadata;
            record->checksum = record->computed_checksum();
            scope.write(&superblock_.regions[end_index++], bytes_of(*record));
            metadata += record->frame_count * format::kFrameMetadataBytes;
            place += record->frame_count << kPageShift;
            frames -= record->frame_count;
        }
        write_region_count(scope, end_index);
        write_next_base(scope, base);
        return {};
    };
    // Commit point: the transaction's. A crash before it leaves neither object nor records. The
    // metadata needs no preparation, see `initialized` and FrameAllocator.
    pool::WriteSet none;
    if (auto done = pool_.commit(none, body); !done) return done;
    for (unsigned index = *first_index; index < end_index; ++index)
        if (auto done = take_up(index); !done) return done;
    return {};
}

// The record of a region at `place` of the pool, of at most `frames` frames and within one file;
// without its metadata's place and its checksum. Raises `next_base` if it needs a physical range of
// its own.
Result<RegionRecord> PhysicalMemory::new_record(pool::Offset place, std::uint64_t frames,
                                                std::uint64_t& next_base) const {
    std::uint64_t contiguous = 0;
    const auto location = pool_.locate(pool_.at(place), std::uint64_t{1} << 52, &contiguous);
    if (!location || contiguous < kPageSize)
        return fail(ErrorCode::io, "cannot find the pool's file in /proc/self/maps");
    RegionRecord record{};
    record.kind = RegionKindOnMedium::pool;
    record.state = RegionStateOnMedium::attached;
    if (getrandom(record.uuid, sizeof record.uuid, 0) != sizeof record.uuid)
        return std::unexpected(no_random_bytes());
    record.frames_offset = place;
    record.file_offset = location->offset;
    record.window_frames = contiguous >> kPageShift;
    record.frame_count = std::min(frames, record.window_frames);
    for (const Region& other : regions()) {
        // Behind another region of the same file: its physical range goes on here.
        if (other.kind() != RegionKind::pool || other.is_outlived_ || pool_.at(place) < other.host_)
            continue;
        const auto frames_on =
            static_cast<std::uint64_t>(pool_.at(place) - other.host_) / kPageSize;
        if (frames_on < other.record().window_frames)
            record.base_frame = other.record().base_frame + frames_on;
    }
    if (record.base_frame == 0)
        if (auto done = give_base(record, next_base); !done) return std::unexpected(done.error());
    record.home_frame = record.base_frame;
    return record;
}

Result<void> PhysicalMemory::give_base(RegionRecord& record, std::uint64_t& next_base) {
    const std::uint64_t from = std::max(next_base, kFirstBase);
    record.base_frame = (from + kFramesPerGiB - 1) / kFramesPerGiB * kFramesPerGiB +
                        record.file_offset % kGiB / kPageSize;
    if (record.base_frame + record.window_frames > kFrameNumberEnd)
        return fail(ErrorCode::no_space, "physical addresses of 52 bits are used up");
    next_base = record.base_frame + record.window_frames;
    return {};
}

// A region whose frames are not in the pool; everything but places and path is in the record.
Result<unsigned> PhysicalMemory::add_record(RegionRecord record, const std::string& path) {
    const auto index = room_for_region();
    if (!index) return index;
    auto next = next_base();
    if (!next) return std::unexpected(next.error());
    record.window_frames = record.frame_count;
    if (auto done = give_base(record, *next); !done) return std::unexpected(done.error());
    record.home_frame = record.base_frame;
    pool::WriteSet none;
    // Commit point of adding: this transaction's. A crash before it leaves, of an external region,
    // a file that no pool names; the file and its header are durable already.
    auto done = pool_.commit(none, [&](pool::TransactionScope& scope) -> Result<void> {
        auto metadata = scope.allocate(record.frame_count * format::kFrameMetadataBytes + 15);
        if (!metadata) return std::unexpected(metadata.error());
        record.metadata_offset = (*metadata + 15) & ~std::uint64_t{15};
        if (!path.empty()) {
            const std::string bytes = encode_path(stored_path(pool_, path));
            auto place = scope.allocate(bytes.size());
            if (!place) return std::unexpected(place.error());
            scope.write(pool_.at(*place), std::as_bytes(std::span(bytes)));
            record.path_offset = *place;
        }
        record.checksum = record.computed_checksum();
        scope.write(&superblock_.regions[*index], bytes_of(record));
        write_region_count(scope, *index + 1);
        write_next_base(scope, *next);
        return {};
    });
    if (!done) return std::unexpected(done.error());
    if (auto taken = take_up(*index); !taken) return std::unexpected(taken.error());
    return *index;
}

Result<unsigned> PhysicalMemory::add_external_region(const std::string& path,
                                                     const ExternalRegionOptions& options,
                                                     RegionKind kind) {
    const std::scoped_lock lock(adding_);
    if (auto index = room_for_region(); !index) return index;
    RegionRecord record{};
    record.kind = static_cast<RegionKindOnMedium>(kind);
    record.state = RegionStateOnMedium::attached;
    record.stamp = random_stamp();
    record.file_offset =
        kind == RegionKind::device ? format::kDeviceFramesOffset : format::kRegionFramesOffset;
    if (getrandom(record.uuid, sizeof record.uuid, 0) != sizeof record.uuid)
        return std::unexpected(no_random_bytes());
    auto made = make_region_file(superblock_, record, path, options, files_);
    if (!made) return std::unexpected(made.error());
    made->reset();
    auto index = add_record(record, path);
    if (!index && options.size_bytes != 0) unlink(path.c_str());
    return index;
}

Result<unsigned> PhysicalMemory::add_volatile_region(std::uint64_t size_bytes, LossPolicy loss) {
    const std::scoped_lock lock(adding_);
    RegionRecord record{};
    record.kind = RegionKindOnMedium::volatile_memory;
    record.state = RegionStateOnMedium::attached;
    record.loss_policy = static_cast<format::LossPolicyOnMedium>(loss);
    record.frame_count = size_bytes >> kPageShift;
    if (getrandom(record.uuid, sizeof record.uuid, 0) != sizeof record.uuid)
        return std::unexpected(no_random_bytes());
    return add_record(record, {});
}

}  // namespace holdfast::memory
