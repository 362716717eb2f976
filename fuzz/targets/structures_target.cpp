#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <optional>
#include <set>

#include "faults/structures.hpp"
#include "format/build_record.hpp"
#include "format/limbo.hpp"
#include "format/space_record.hpp"
#include "format/superblock.hpp"
#include "memory/build_log.hpp"
#include "store/store_state.hpp"
#include "table/walk.hpp"
#include "targets/byte_source.hpp"
#include "targets/pool_image.hpp"
#include "targets/targets.hpp"

namespace holdfast::crash {
namespace {

using namespace format;

constexpr std::uint64_t kPoolBytes = std::uint64_t{10} << 20;
constexpr std::size_t kDataFrames = 100;

// What the undamaged store gives for a page.
struct Page {
    std::expected<Translation, Fault> found;
    std::uint64_t word = 0;  // the first one in it
};
using Pages = std::map<std::uint64_t, Page>;  // by address

void must(const Result<void>& done) {
    if (!done) throw std::runtime_error(done.error().message);
}
template <typename T>
T must(Result<T> made) {
    if (!made) throw std::runtime_error(made.error().message);
    return std::move(*made);
}

std::uint64_t word_at(std::span<const std::byte> bytes, std::uint64_t offset) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + offset, sizeof word);
    return word;
}

// Some of everything, and the places of it.
class Fixture {
  public:
    Fixture() : image_(make_pool_image(kPoolBytes, [](Store store) { fill(store); })) {
        const Store store = must(open_image(image_));
        survey(store);
    }

    CrashImage& image() { return image_; }
    const std::vector<Structure>& places(StructureKind kind) const {
        return places_[static_cast<std::size_t>(kind)];
    }
    const std::map<std::string, Pages>& spaces() const { return spaces_; }

  private:
    static void fill(Store& store) {
        Space a = must(store.create_space("a"));
        must(a.map({VirtAddr(0x1f'd000), 9 * kPageSize}, protection::rw, {.name = "over an edge"}));
        must(a.map({VirtAddr(0x4000'0000), 3 * kPageSize}, protection::rw | protection::u));
        must(a.map({VirtAddr(0x8000'0000), 1300 * kPageSize}, protection::rw, {.lazy = true}));
        must(a.map({VirtAddr(0xffff'8000'0000'0000), 2 * kPageSize}, protection::r));
        must(a.protect({VirtAddr(0x1f'e000), 2 * kPageSize}, protection::r));
        Space b = must(store.create_space("b", {.levels = Levels::three}));
        must(b.map_shared({VirtAddr(0x7000'0000), 5 * kPageSize}, protection::rw, a,
                          {VirtAddr(0x4000'0000), 3 * kPageSize}, {.name = "shared"}));
        must(b.map({VirtAddr(0x1000), 4 * kPageSize}, protection::rw));
        Space c = must(store.create_space("c", {.levels = Levels::five}));
        must(c.map({VirtAddr(0x00ab'cdef'0123'4000), 2 * kPageSize}, protection::rw));
        must(a.map({VirtAddr(0x1'0000'0000), 520 * kPageSize}, protection::rw));
        must(a.map({VirtAddr(0x2'0000'0000), 200 * kPageSize}, protection::rw, {.name = "going"}));
        Space gone = must(store.create_space("gone"));
        for (std::uint64_t i = 1; i < 4; ++i)
            must(gone.map({VirtAddr(i << 39), kPageSize}, protection::rw, {.name = "gone"}));
        std::uint64_t word = 0x1000;
        const auto fill = [&](Space& space, std::uint64_t at, std::uint64_t pages) {
            for (std::uint64_t page = 0; page < pages; ++page, ++word)
                must(space.write(VirtAddr(at + page * kPageSize),
                                 std::as_bytes(std::span(&word, 1))));
        };
        fill(a, 0x4000'0000, 3);
        fill(a, 0x8000'0000, 2);
        fill(b, 0x1000, 4);
        fill(c, 0x00ab'cdef'0123'4000, 2);
        // Limbo: shells of protected tables, whole subtrees, a space with names.
        must(a.protect({VirtAddr(0x1'0000'0000), 520 * kPageSize}, protection::r));
        must(a.unmap({VirtAddr(0x2'0000'0000), 200 * kPageSize}));
        must(store.remove_space("gone"));
        // A build that was interrupted.
        auto& builds = store.state().build_log;
        memory::Build build = must(builds.acquire());
        must(builds.reserve(build, 20));
        must(builds.reserve(build, 5));
    }

    void survey(const Store& store) {
        std::size_t data_frames = 0;
        for (Structure& structure : must(structures_of(store))) {
            // Metadata of data frames are all alike, and would be most of what is damaged.
            if (structure.name == "metadata of data" && ++data_frames > kDataFrames) continue;
            places_[static_cast<std::size_t>(structure.kind)].push_back(std::move(structure));
        }
        for (const std::string& name : must(store.space_names()))
            spaces_[name] = pages_of(must(store.open_space(name)));
        for (const auto& places : places_)
            if (places.empty()) throw std::runtime_error("the fuzzer's pool lacks a structure");
    }

    static Pages pages_of(const Space& space) {
        Pages pages;
        const auto add = [&](VirtAddr at) {
            Page page{space.translate(at), 0};
            if (page.found || page.found.error().kind == FaultKind::demand_zero)
                must(space.read(at, std::as_writable_bytes(std::span(&page.word, 1))));
            pages.emplace(at.bits(), page);
        };
        for (const Mapping& mapping : must(space.maps())) {
            // Of long ranges, the ends: every table and every structure is among them.
            for (std::uint64_t i = 0; i < mapping.range.pages(); ++i)
                if (i < 8 || i + 8 >= mapping.range.pages())
                    add(mapping.range.start + i * kPageSize);
            add(mapping.range.end());
        }
        return pages;
    }

    CrashImage image_;
    std::array<std::vector<Structure>, kStructureKinds> places_;
    std::map<std::string, Pages> spaces_;
};

// --- damage ---

class Damage {
  public:
    explicit Damage(Fixture& fixture) : fixture_(fixture), image_(fixture.image()) {}

    // What one part of the input says.
    void add(ByteSource& source) {
        const std::uint8_t what = source.byte();
        const auto kind = static_cast<StructureKind>(what % kStructureKinds);
        const auto& places = fixture_.places(kind);
        const Structure& place = places[source.below(places.size())];
        const std::uint64_t size = size_of(kind);
        const std::uint64_t at = source.byte() | std::uint64_t{source.byte()} << 8;
        std::uint64_t offset = at % size;
        std::vector<std::byte> bytes(
            std::min<std::uint64_t>(1 + source.byte() % 32, size - offset));
        switch (what >> 3 & 3) {
            case 0:
                for (std::byte& byte : bytes) byte = std::byte{source.byte()};
                break;
            case 1:
                for (std::size_t i = 0; i < bytes.size(); ++i)
                    bytes[i] = content()[place.offset + offset + i] ^ std::byte{source.byte()};
                break;
            default: {  // misdirected: the bytes of another one
                const Structure& other = places[source.below(places.size())];
                if ((what >> 3 & 3) == 3) {
                    offset = 0;
                    bytes.resize(size);
                }
                std::memcpy(bytes.data(), content().data() + other.offset + offset, bytes.size());
            }
        }
        image_.patch_bytes(place.offset + offset, bytes);
        touched_.emplace(kind, &place);
        if (what & 0x80) seal(kind, place, offset, bytes.size());
        keep_pointers(kind, place);
    }

    // Whether something differs from what was there, and passes its own check nevertheless; when
    // the store is open.
    bool is_forged(const memory::PhysicalMemory& memory) const {
        return std::any_of(touched_.begin(), touched_.end(), [&](const auto& touched) {
            return is_forged(memory, touched.first, *touched.second);
        });
    }
    unsigned flipped_bits() const {
        unsigned bits = 0;
        for (const auto& [kind, place] : touched_)
            for (std::uint64_t at = 0; at < size_of(kind); ++at)
                bits += static_cast<unsigned>(std::popcount(std::to_integer<std::uint8_t>(
                    content()[place->offset + at] ^ image_.base()[place->offset + at])));
        return bits;
    }
    bool seals_regions() const { return seals_regions_; }

  private:
    std::span<const std::byte> content() const { return image_.content(); }
    template <typename Record>
    static Record record_at(std::span<const std::byte> bytes, std::uint64_t offset) {
        Record record;
        std::memcpy(&record, bytes.data() + offset, sizeof record);
        return record;
    }
    template <typename Record>
    void put(std::uint64_t offset, const Record& record) {
        image_.patch_bytes(offset, std::as_bytes(std::span(&record, 1)));
    }
    bool is_changed(std::uint64_t offset, std::uint64_t size) const {
        return std::memcmp(content().data() + offset, image_.base().data() + offset, size) != 0;
    }

    // The generation of the frame, going by its metadata as it stands.
    std::uint16_t generation_of(FrameNumber frame) const {
        for (const Structure& place : fixture_.places(StructureKind::metadata))
            if (place.frame == frame)
                return FrameMetadata::generation_of(word_at(content(), place.offset));
        return 0;
    }
    Entry tagged(Entry entry, const EntryPlace& place) const {
        if (entry.is_empty()) return entry;
        return entry.with_protection(entry.protection(), place, generation_of(entry.frame()));
    }

    static std::uint32_t seed_of(std::uint64_t word) {
        constexpr std::uint32_t kSeeds[] = {kSeedBootEpoch, kSeedLimboHead, kSeedNextOwner,
                                            kSeedRegionCount, kSeedNextBase};
        constexpr std::uint64_t kFirstSlot =
            (offsetof(Superblock, build_slots) - offsetof(Superblock, boot_epoch)) / 8;
        if (word < std::size(kSeeds)) return kSeeds[word];
        return word < kFirstSlot ? 0
                                 : kSeedBuildSlot + static_cast<std::uint32_t>(word - kFirstSlot);
    }

    // Makes the checks of what was written fit.
    void seal(StructureKind kind, const Structure& place, std::uint64_t offset,
              std::uint64_t size) {
        const std::uint64_t first_word = offset / 8, end_word = (offset + size + 7) / 8;
        switch (kind) {
            case StructureKind::fixed_part:
                seal_record<Superblock>(place.offset);
                break;
            case StructureKind::superblock_words:
                for (std::uint64_t word = first_word; word < end_word; ++word)
                    seal_word(place.offset + 8 * word, seed_of(word));
                break;
            case StructureKind::region_record:
                seal_record<RegionRecord>(place.offset);
                break;
            case StructureKind::metadata: {
                const std::uint64_t words[] = {word_at(content(), place.offset),
                                               word_at(content(), place.offset + 8)};
                put(place.offset, FrameMetadata::decode(words[0], words[1]).word0(place.frame));
                break;
            }
            case StructureKind::table:
                for (std::uint64_t slot = first_word; slot < end_word; ++slot)
                    put(place.offset + 8 * slot,
                        tagged(Entry(word_at(content(), place.offset + 8 * slot)),
                               place.position.entry(static_cast<unsigned>(slot))));
                break;
            case StructureKind::space_record: {
                seal_record<SpaceRecord>(place.offset);
                auto record = record_at<SpaceRecord>(content(), place.offset);
                record.root = tagged(Entry(record.root),
                                     table::Root::place_of_root(static_cast<Levels>(record.levels),
                                                                record.owner))
                                  .bits();
                put(place.offset, record);
                break;
            }
            case StructureKind::limbo_page:
                seal_word(place.offset, kSeedLimboNext);
                seal_word(place.offset + 8, kSeedLimboCount);
                for (unsigned i = 0; i < 8; ++i)
                    seal_record<LimboRecord>(place.offset + offsetof(LimboPage, records) +
                                             i * sizeof(LimboRecord));
                break;
            case StructureKind::build_record:
                seal_record<BuildRecord>(place.offset);
                break;
        }
    }
    void seal_word(std::uint64_t offset, std::uint32_t seed) {
        put(offset, CheckedWord::encode(word_at(content(), offset), seed));
    }
    template <typename Record>
    void seal_record(std::uint64_t offset) {
        auto record = record_at<Record>(content(), offset);
        record.checksum = record.computed_checksum();
        put(offset, record);
    }
    template <typename Record>
    bool is_sealed(std::uint64_t offset) const {
        const auto record = record_at<Record>(content(), offset);
        return record.checksum == record.computed_checksum();
    }

    // Sealed pointers to libpmemobj's own go back to where they led.
    void keep_pointers(StructureKind kind, const Structure& place) {
        if (kind == StructureKind::fixed_part && is_sealed<Superblock>(place.offset)) {
            const std::uint64_t at = place.offset + offsetof(Superblock, directory_offset);
            put(at, word_at(image_.base(), at));
            seal_record<Superblock>(place.offset);
        }
        if (kind == StructureKind::space_record && is_sealed<SpaceRecord>(place.offset)) {
            const std::uint64_t at = place.offset + offsetof(SpaceRecord, annotations_offset);
            put(at, word_at(image_.base(), at));
            seal_record<SpaceRecord>(place.offset);
        }
        if (kind == StructureKind::region_record && is_sealed<RegionRecord>(place.offset) &&
            is_changed(place.offset, sizeof(RegionRecord)))
            seals_regions_ = true;
        if (kind == StructureKind::superblock_words && is_changed(place.offset, size_of(kind)))
            seals_regions_ = seals_regions_ || is_forged_word(place.offset + 24, kSeedRegionCount);
    }

    bool is_forged_word(std::uint64_t offset, std::uint32_t seed) const {
        return is_changed(offset, 8) && CheckedWord::decode(word_at(content(), offset), seed);
    }
    template <typename Record>
    bool is_forged_record(std::uint64_t offset) const {
        return is_changed(offset, sizeof(Record)) && is_sealed<Record>(offset);
    }

    bool is_forged(const memory::PhysicalMemory& memory, StructureKind kind,
                   const Structure& place) const {
        const std::uint64_t offset = place.offset;
        switch (kind) {
            case StructureKind::fixed_part:
                return is_changed(offset, size_of(StructureKind::fixed_part));  // the store is open
            case StructureKind::superblock_words:
                for (std::uint64_t word = 0; word < size_of(StructureKind::superblock_words) / 8;
                     ++word)
                    if (seed_of(word) != 0 && is_forged_word(offset + 8 * word, seed_of(word)))
                        return true;
                return false;
            case StructureKind::region_record:
                return is_forged_record<RegionRecord>(offset);
            case StructureKind::metadata: {
                const auto now = memory.valid_metadata(place.frame);
                const auto before = FrameMetadata::decode(word_at(image_.base(), offset),
                                                          word_at(image_.base(), offset + 8));
                return now && *now != before &&
                       (now->kind != FrameKind::free || before.kind != FrameKind::free ||
                        now->generation != before.generation);
            }
            case StructureKind::table:
                for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
                    const Entry now(word_at(content(), offset + 8 * slot));
                    const Entry before(word_at(image_.base(), offset + 8 * slot));
                    const std::uint64_t set_by_the_processor =
                        now.is_present() && before.is_present() ? Entry::kAccessed | Entry::kDirty
                                                                : 0;
                    if (((now.bits() ^ before.bits()) & ~set_by_the_processor) != 0 &&
                        !table::check_entry(memory, now, place.position, slot))
                        return true;
                }
                return false;
            case StructureKind::space_record: {
                const auto now = record_at<SpaceRecord>(content(), offset);
                const auto before = record_at<SpaceRecord>(image_.base(), offset);
                if (is_changed(offset, offsetof(SpaceRecord, root)) &&
                    is_sealed<SpaceRecord>(offset))
                    return true;
                return now.root != before.root &&
                       table::check_root(
                           memory, {Entry(now.root), static_cast<Levels>(now.levels), now.owner});
            }
            case StructureKind::limbo_page: {
                if (is_forged_word(offset, kSeedLimboNext) ||
                    is_forged_word(offset + 8, kSeedLimboCount))
                    return true;
                for (unsigned i = 0; i < kLimboRecordsPerPage; ++i)
                    if (is_forged_record<LimboRecord>(offset + offsetof(LimboPage, records) +
                                                      i * sizeof(LimboRecord)))
                        return true;
                return false;
            }
            case StructureKind::build_record:
                return is_forged_record<BuildRecord>(offset);
        }
        return false;
    }

    Fixture& fixture_;
    CrashImage& image_;
    std::set<std::pair<StructureKind, const Structure*>> touched_;
    bool seals_regions_ = false;
};

// --- what must hold ---

std::string check_pages(const Store& store, const std::string& name, const Pages& pages) {
    const auto space = store.open_space(name);
    if (!space)
        return space.error().code == ErrorCode::damaged ? "" : "opening: " + space.error().message;
    for (const auto& [address, expected] : pages) {
        const VirtAddr at(address);
        const auto wrong = [&](const std::string& what) {
            return fmt::format("{}: {:#x} {}", name, address, what);
        };
        const auto found = space->translate(at);
        if (found && (!expected.found || *found != *expected.found))
            return wrong(fmt::format("translates to {:#x}, {}", found->physical.bits(),
                                     found->protection.to_string()));
        if (!found && !found.error().is_damage() &&
            (expected.found || expected.found.error().kind != found.error().kind ||
             expected.found.error().protection != found.error().protection))
            return wrong("gives " + found.error().to_string());
        std::uint64_t word = 0;
        const auto read = space->read(at, std::as_writable_bytes(std::span(&word, 1)));
        if (read && word != expected.word) return wrong(fmt::format("reads as {:#x}", word));
        if (!read && expected.found && read.error().code != ErrorCode::damaged)
            return wrong("cannot be read: " + read.error().message);
    }
    return {};
}

std::string check_pages(const Store& store, const std::map<std::string, Pages>& spaces) {
    for (const auto& [name, pages] : spaces)
        if (std::string wrong = check_pages(store, name, pages); !wrong.empty()) return wrong;
    return {};
}

// For what they do to the process; each may report damage.
void read_all(const Store& store, const std::map<std::string, Pages>& spaces) {
    std::ignore = store.info();
    std::ignore = store.verify({.threads = 1});
    for (const auto& [name, pages] : spaces)
        if (const auto space = store.open_space(name)) {
            std::ignore = space->maps();
            for (const auto& [address, page] : pages) {
                std::uint64_t word = 0;
                std::ignore = space->translate(VirtAddr(address));
                std::ignore =
                    space->read(VirtAddr(address), std::as_writable_bytes(std::span(&word, 1)));
            }
        }
}

// Leaves the pages of "a" and "c" alone.
void change(Store& store) {
    const std::uint64_t word = ~std::uint64_t{0};
    const auto bytes = std::as_bytes(std::span(&word, 1));
    if (auto made = store.create_space("new")) {
        std::ignore = made->map({VirtAddr(0x20'0000), 30 * kPageSize}, protection::rw);
        std::ignore = made->write(VirtAddr(0x20'1000), bytes);
        std::ignore = made->map({VirtAddr(0x8000'0000), 600 * kPageSize}, protection::rw);
    }
    for (const char* const name : {"a", "b", "c"}) {
        auto space = store.open_space(name);
        if (!space) continue;
        // Beside what is there, in the same table, and elsewhere.
        for (const std::uint64_t at : {0x10'0000, 0x4010'0000, 0x5000'0000}) {
            std::ignore = space->map({VirtAddr(at), 2 * kPageSize}, protection::rw);
            std::ignore = space->write(VirtAddr(at), bytes);
            std::ignore = space->protect({VirtAddr(at), kPageSize}, protection::r);
            std::ignore = space->unmap({VirtAddr(at) + kPageSize, kPageSize});
        }
        std::ignore = space->map_shared({VirtAddr(0x6000'0000), 2 * kPageSize}, protection::r,
                                        *space, {VirtAddr(0x10'0000), kPageSize});
    }
    if (auto space = store.open_space("b")) {
        std::ignore = space->protect({VirtAddr(0x1000), 4 * kPageSize}, protection::r);
        std::ignore = space->unmap({VirtAddr(0x7000'0000), 3 * kPageSize});
    }
    std::ignore = store.rename_space("b", "d");
    std::ignore = store.remove_space("d");
    std::ignore = store.release_limbo();
    if (auto made = store.create_space("more"))
        std::ignore = made->map({VirtAddr(0x20'0000), 100 * kPageSize}, protection::rw);
}

std::string run_on(Fixture& fixture, const Damage& damage) {
    auto store = open_image(fixture.image());
    if (!store) return {};  // noticed
    const bool forged = damage.is_forged(store->state().memory);
    if (forged && damage.flipped_bits() == 1) return "one flipped bit passes for a forgery";
    if (!forged)
        if (std::string wrong = check_pages(*store, fixture.spaces()); !wrong.empty()) return wrong;
    read_all(*store, fixture.spaces());
    if (damage.seals_regions()) return {};
    change(*store);
    if (!forged)
        for (const char* const name : {"a", "c"})
            if (std::string wrong = check_pages(*store, name, fixture.spaces().at(name));
                !wrong.empty())
                return "after changes: " + wrong;
    read_all(*store, fixture.spaces());
    return {};
}

}  // namespace

std::string run_structures(std::span<const std::uint8_t> input) {
    static Fixture fixture;
    Damage damage(fixture);
    ByteSource source(input);
    for (unsigned i = 0; i < 16 && !source.empty(); ++i) damage.add(source);
    std::string wrong = run_on(fixture, damage);
    fixture.image().restore_by_comparing();
    return wrong;
}

}  // namespace holdfast::crash
