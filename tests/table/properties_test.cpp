// Properties of translation, and of the validated walk on tables that were tampered with.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <set>
#include <vector>

#include "format/entry.hpp"
#include "format/frame_metadata.hpp"
#include "space/space_state.hpp"
#include "store/store_state.hpp"
#include "support/temporary_pool.hpp"
#include "table/walk.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using format::Entry;

// The tables of a space, looked at and tampered with from below the API.
class Tables {
  public:
    explicit Tables(const Space& space)
        : memory(space.state().store->memory), root(space.state().root()) {}

    // The word of the entry that translates `address` at `level`.
    std::uint64_t* entry(VirtAddr address, unsigned level) const {
        FrameNumber table = root.entry.frame();
        for (unsigned at = root.top(); at > level; --at)
            table = Entry(memory.table(table)[format::slot_of(address, at)]).frame();
        return memory.table(table) + format::slot_of(address, level);
    }
    FrameNumber table_of(VirtAddr address, unsigned level) const {
        const auto host = reinterpret_cast<std::byte*>(entry(address, level));
        const memory::Region& region = memory.regions().front();
        return region.base() +
               static_cast<std::uint64_t>(host - region.host(region.base())) / kPageSize;
    }
    std::uint16_t generation(FrameNumber frame) const {
        return format::FrameMetadata::generation_of(*memory.metadata(frame).word0);
    }
    // Tampering goes on behind the back of the volatile "was validated" bits; as after a restart.
    void forget_validation(VirtAddr address) const {
        for (unsigned level = 1; level <= root.top(); ++level) {
            const FrameNumber table = table_of(address, level);
            memory.window_of(table)->set_validated(table, false);
        }
    }

    const memory::PhysicalMemory& memory;
    table::Root root;
};

TEST(Translation, EffectivePermissionIsTheAndAlongThePath) {
    const TemporaryPool pool;
    Store store = pool.create();
    Space space = value_of(store.create_space("space"));
    const VirtAddr address{0x1234'5678'9000};
    must(space.map({address, kPageSize}, Protection(15)));
    const Tables tables(space);
    // At each level above the leaf, take each permission away; the leaf permits everything.
    for (unsigned level = 2; level <= 4; ++level)
        for (std::uint8_t mask = 0; mask < 8; ++mask) {
            const Protection above(static_cast<std::uint8_t>(Protection::kRead | mask << 1));
            std::uint64_t* const word = tables.entry(address, level);
            const std::uint64_t before = *word;
            *word = Entry(before)
                        .with_protection(above, table::place_of(tables.root, address, level),
                                         tables.generation(Entry(before).frame()))
                        .bits();
            tables.forget_validation(address);
            const auto found = space.translate(address);
            ASSERT_TRUE(found) << found.error().to_string();
            EXPECT_EQ(found->protection, above) << "level " << level;
            *word = before;
        }
}

TEST(Translation, BothHalvesOfTheWalkAgree) {
    for (const Levels levels : {Levels::three, Levels::four, Levels::five}) {
        const TemporaryPool pool;
        Store store = pool.create();
        Space space = value_of(store.create_space("space", {levels}));
        const VirtAddr upper = VirtAddr::truncated(~std::uint64_t{0} << 21, levels);
        must(space.map({VirtAddr(0x20'0000), 2_MiB + 3 * kPageSize}, protection::rx));
        must(space.map({VirtAddr(0x4000'0000), 4 * kPageSize}, protection::rw, {.lazy = true}));
        must(space.map({upper, 2_MiB}, protection::rw | protection::u));
        must(space.protect({upper + 5 * kPageSize, kPageSize}, protection::r));
        std::vector<VirtAddr> addresses = {VirtAddr(0), VirtAddr(0x4000'0123), VirtAddr(~0ull),
                                           VirtAddr(std::uint64_t{1} << 62)};
        for (std::uint64_t at = 0x1ff'fff; at < 0x50'0000; at += kPageSize - 1)
            addresses.emplace_back(at);
        for (std::uint64_t page = 0; page < 512; page += 5)
            addresses.push_back(upper + page * kPageSize + page);
        const Tables tables(space);
        for (int round = 0; round < 2; ++round)  // tables are validated in the first, at the latest
            for (const VirtAddr address : addresses) {
                const auto straight = table::walk(tables.memory, tables.root, address);
                const auto checking =
                    table::detail::walk_checking(tables.memory, tables.root, address);
                ASSERT_EQ(straight.has_value(), checking.has_value()) << address.bits();
                if (straight)
                    EXPECT_EQ(*straight, *checking) << address.bits();
                else
                    EXPECT_EQ(straight.error().to_string(), checking.error().to_string());
            }
    }
}

RC_GTEST_PROP(Translation, MappedRangesTranslateToTheirFramesAndNothingElseChanges, ()) {
    const TemporaryPool pool;
    Store store = pool.create(24_MiB);
    const auto levels = *rc::gen::element(Levels::three, Levels::four, Levels::five);
    Space space = value_of(store.create_space("space", {levels}));
    const std::uint64_t half = std::uint64_t{1} << (virtual_address_bits(levels) - 1);
    std::map<std::uint64_t, PhysAddr> mapped;
    std::set<std::uint64_t> frames;
    const auto count = *rc::gen::inRange(1, 8);
    for (int i = 0; i < count; ++i) {
        const auto pages = *rc::gen::inRange<std::uint64_t>(1, 700);
        const auto page = *rc::gen::inRange<std::uint64_t>(0, half / kPageSize - pages);
        const bool upper = *rc::gen::arbitrary<bool>();
        const VirtAddr start = VirtAddr::truncated(page * kPageSize + (upper ? half : 0), levels);
        const auto outcome = space.map({start, pages * kPageSize}, protection::rw);
        if (!outcome) {
            RC_ASSERT(outcome.error().code == ErrorCode::overlap ||
                      outcome.error().code == ErrorCode::no_space);
        } else {
            for (std::uint64_t k = 0; k < pages; ++k) {
                const VirtAddr at = start + k * kPageSize;
                const auto found = space.translate(at + 123);
                RC_ASSERT(found.has_value());
                RC_ASSERT(found->physical.bits() % kPageSize == 123u);
                RC_ASSERT(found->page_size == PageSize::size_4KiB);
                // Two addresses share a frame only when told to.
                RC_ASSERT(frames.insert(found->physical.frame().value()).second);
                mapped[at.bits()] = PhysAddr::of(found->physical.frame());
            }
        }
        for (const auto& [address, physical] : mapped) {
            const auto found = space.translate(VirtAddr(address));
            RC_ASSERT(found.has_value());
            RC_ASSERT(found->physical == physical);
        }
    }
    // Accounting adds up, and reopening changes nothing.
    RC_ASSERT(space.info().resident_bytes == mapped.size() * kPageSize);
    const std::string name = space.name();
    {
        const Space gone = std::move(space);
        const Store closed = std::move(store);
    }
    const Store again = pool.open();
    const Space reopened = value_of(again.open_space(name));
    RC_ASSERT(reopened.levels() == levels);
    for (const auto& [address, physical] : mapped) {
        const auto found = reopened.translate(VirtAddr(address));
        RC_ASSERT(found.has_value());
        RC_ASSERT(found->physical == physical);
    }
}

RC_GTEST_PROP(Translation, SpacesAreIsolated, ()) {
    const TemporaryPool pool;
    Store store = pool.create(24_MiB);
    Space a = value_of(store.create_space("a")), b = value_of(store.create_space("b"));
    const auto pages = *rc::gen::inRange<std::uint64_t>(1, 600);
    const Range range{VirtAddr(0x4000'0000 - 3 * kPageSize), pages * kPageSize};
    must(a.map(range, protection::rw));
    must(b.map(range, protection::rw));
    const auto at = range.start + *rc::gen::inRange<std::uint64_t>(0, pages) * kPageSize;
    const std::uint64_t word = *rc::gen::arbitrary<std::uint64_t>() | 1;
    must(a.write(at, std::as_bytes(std::span(&word, 1))));
    std::uint64_t seen = 1;
    must(b.read(at, std::as_writable_bytes(std::span(&seen, 1))));
    RC_ASSERT(seen == 0u);
    must(a.unmap(range));
    RC_ASSERT(b.translate(at).has_value());
    must(b.protect(range, protection::r));
    RC_ASSERT(!a.translate(at).has_value());
}

// A walk over damaged tables: noticed, never a silently wrong translation.
class Damage : public testing::Test {
  protected:
    Damage() : store(pool.create()), space(value_of(store.create_space("space"))) {
        must(space.map({kAddress, 3 * kPageSize}, protection::rw));
        must(space.map({kOther, kPageSize}, protection::rw));
    }
    FaultKind fault_at(VirtAddr address) {
        const Tables tables(space);
        for (unsigned level = 1; level <= 4; ++level)
            for (VirtAddr each : {kAddress, kOther}) {
                const FrameNumber table = tables.table_of(each, level);
                if (tables.memory.region_of(table) != nullptr)
                    tables.memory.window_of(table)->set_validated(table, false);
            }
        const auto found = space.translate(address);
        return found ? FaultKind::not_mapped : found.error().kind;
    }
    static constexpr VirtAddr kAddress{0x1234'5678'9000}, kOther{0x4000'0000'0000};
    const TemporaryPool pool;
    Store store;
    Space space;
};

TEST_F(Damage, EveryFlippedBitOfEveryEntryOnThePathIsNoticedOrHarmless) {
    const Tables tables(space);
    const auto right = space.translate(kAddress);
    ASSERT_TRUE(right);
    for (unsigned level = 1; level <= 4; ++level)
        for (unsigned bit = 0; bit < 64; ++bit) {
            std::uint64_t* const word = tables.entry(kAddress, level);
            const std::uint64_t before = *word;
            *word ^= std::uint64_t{1} << bit;
            // Not by way of the tampered entry: its tables are found by the original.
            for (unsigned each = 1; each <= 4; ++each) {
                *word = before;
                const FrameNumber table = tables.table_of(kAddress, each);
                tables.memory.window_of(table)->set_validated(table, false);
            }
            *word = before ^ std::uint64_t{1} << bit;
            const auto found = space.translate(kAddress);
            if (found) {
                EXPECT_EQ(*found, *right) << "level " << level << " bit " << bit;
                EXPECT_TRUE(bit == 5 || bit == 6) << "level " << level << " bit " << bit;
            } else {
                EXPECT_TRUE(found.error().is_damage()) << found.error().to_string();
            }
            // What does not lie behind the damage is still usable.
            EXPECT_TRUE(space.translate(kOther));
            *word = before;
        }
}

TEST_F(Damage, IsNoticedBeforeTheTableIsValidatedAndNeverRememberedAsWell) {
    const Tables tables(space);
    std::uint64_t* const word = tables.entry(kAddress, 1);
    *word ^= std::uint64_t{1} << 20;
    tables.forget_validation(kAddress);
    for (int walk = 0; walk < 300; ++walk) {
        ASSERT_FALSE(space.translate(kAddress)) << walk;
        ASSERT_TRUE(space.translate(kAddress + kPageSize)) << "its neighbour is lost, " << walk;
    }
    const FrameNumber table = tables.table_of(kAddress, 1);
    EXPECT_FALSE(tables.memory.window_of(table)->is_validated(table));
    *word ^= std::uint64_t{1} << 20;
    EXPECT_TRUE(space.translate(kAddress));
    EXPECT_TRUE(tables.memory.window_of(table)->is_validated(table));
}

TEST_F(Damage, AFreedAndReusedFrameIsNoticed) {
    const Tables tables(space);
    std::uint64_t* const word = tables.entry(kAddress, 1);
    const std::uint64_t stale = *word;
    must(space.unmap({kAddress, kPageSize}));
    value_of(store.release_limbo());
    *word = stale;
    EXPECT_EQ(fault_at(kAddress), FaultKind::stale_entry);
    // The same frame in use again, elsewhere.
    *word = 0;
    must(space.map({VirtAddr(0x7000'0000), 200 * kPageSize}, protection::rw));
    *word = stale;
    const FaultKind kind = fault_at(kAddress);
    EXPECT_TRUE(kind == FaultKind::stale_entry || kind == FaultKind::damaged_entry)
        << to_string(kind);
}

TEST_F(Damage, AMisdirectedTableIsNoticed) {
    const Tables tables(space);
    // The entry of one subtree over the entry of another at the same slot cannot be told by its tag
    // alone: the table's own metadata says where it belongs.
    for (unsigned level = 2; level <= 4; ++level) {
        std::uint64_t* const word = tables.entry(kAddress, level);
        const std::uint64_t before = *word;
        const FrameNumber wrong = Entry(*tables.entry(kOther, level)).frame();
        *word = Entry::table(wrong, table::place_of(tables.root, kAddress, level),
                             tables.generation(wrong))
                    .bits();
        tables.memory.window_of(tables.root.entry.frame())
            ->set_validated(tables.root.entry.frame(), false);
        for (unsigned above = level; above <= 4; ++above)
            tables.memory.window_of(tables.table_of(kAddress, above))
                ->set_validated(tables.table_of(kAddress, above), false);
        const auto found = space.translate(kAddress);
        ASSERT_FALSE(found) << "level " << level;
        EXPECT_EQ(found.error().kind, FaultKind::wrong_table) << found.error().to_string();
        *word = before;
    }
}

TEST_F(Damage, ALinkOutOfAllRegionsIsNoticedInAValidatedTableToo) {
    const Tables tables(space);
    const memory::Region& region = tables.memory.regions().front();
    const FrameNumber first = region.base(), beyond{first.value() + region.record().window_frames};
    for (int walk = 0; walk < 20; ++walk) ASSERT_TRUE(space.translate(kAddress));
    for (unsigned level = 1; level <= 4; ++level) {
        const FrameNumber table = tables.table_of(kAddress, level);
        ASSERT_TRUE(tables.memory.window_of(table)->is_validated(table));
    }
    for (unsigned level = 2; level <= 4; ++level)
        // The nearest are those that the walk's range of 2^n bytes has and the window has not.
        for (const FrameNumber frame :
             {beyond, beyond + 1, beyond + 4096, FrameNumber(first.value() - 1),
              FrameNumber(first.value() ^ (1u << 30)), FrameNumber(0),
              FrameNumber((1ull << 40) - 1)}) {
            std::uint64_t* const word = tables.entry(kAddress, level);
            const std::uint64_t before = *word;
            *word = (before & ~Entry::kFrameMask) | frame.value() << kPageShift;
            const auto found = space.translate(kAddress);
            ASSERT_FALSE(found) << "level " << level << " frame " << frame.value();
            EXPECT_EQ(found.error().kind, FaultKind::no_region) << found.error().to_string();
            *word = before;
        }
}

TEST_F(Damage, DamagedMetadataIsNoticed) {
    const Tables tables(space);
    const FrameNumber frame = space.translate(kAddress)->physical.frame();
    std::uint64_t* const word = tables.memory.metadata(frame).word0;
    for (unsigned bit = 0; bit < 128; ++bit) {
        word[bit / 64] ^= std::uint64_t{1} << bit % 64;
        EXPECT_EQ(fault_at(kAddress), FaultKind::damaged_metadata) << bit;
        EXPECT_EQ(fault_at(kAddress + kPageSize), FaultKind::not_mapped) << "its neighbour is lost";
        word[bit / 64] ^= std::uint64_t{1} << bit % 64;
    }
    word[0] = word[1] = 0;
    EXPECT_EQ(fault_at(kAddress), FaultKind::damaged_metadata) << "a lost line";
}

}  // namespace
}  // namespace holdfast::test
