// ctest-labels: tsan
//
// Supervisor objects, and spaces that share their half (supervisor.hpp).
#include "holdfast/supervisor.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <array>
#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "holdfast/inspect.hpp"
#include "holdfast/ranges.hpp"
#include "holdfast/snapshot.hpp"
#include "holdfast/tlb.hpp"
#include "store/store_state.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
using testing::HasSubstr;

constexpr VirtAddr kHalf{0xffff'8000'0000'0000};
constexpr VirtAddr kLow{0x4000'0000};

Range upper(std::uint64_t first, std::uint64_t count) {
    return {kHalf + first * kPageSize, count * kPageSize};
}

void write(Space space, VirtAddr at, std::uint64_t word) {
    must(space.write(at, std::as_bytes(std::span(&word, 1))));
}
std::uint64_t word_at(const Space& space, VirtAddr at) {
    std::uint64_t word = 0;
    must(space.read(at, std::as_writable_bytes(std::span(&word, 1))));
    return word;
}

class Supervisor : public testing::Test {
  protected:
    Supervisor()
        : store(pool.create()),
          kernel(value_of(store.create_space("kernel", {.is_supervisor = true}))),
          one(value_of(store.create_space("one", {.supervisor = "kernel"}))) {}
    const TemporaryPool pool;
    Store store;
    Space kernel, one;
};

TEST_F(Supervisor, WhatItMapsIsThereForAllAtOnce) {
    const Space two = value_of(store.create_space("two", {.supervisor = "kernel"}));
    const Space apart = value_of(store.create_space("apart"));
    const std::uint64_t frames = store.verify().frames_reachable;
    must(kernel.map(upper(0, 3), protection::rw, {.name = "kernel text"}));
    must(kernel.map(upper(1 << 27, 1), protection::rx));  // another slot of the root
    // Data, and two tables each: that of the slot is there from the start.
    EXPECT_EQ(store.verify().frames_reachable - frames, 4u + 2 * 2);
    write(kernel, kHalf + 8, 77);
    for (const Space& space : {kernel, one, two}) {
        EXPECT_EQ(word_at(space, kHalf + 8), 77u);
        EXPECT_EQ(space.translate(kHalf)->physical, kernel.translate(kHalf)->physical);
        EXPECT_TRUE(space.translate(upper(1 << 27, 1).start)->protection.executable());
        EXPECT_EQ(value_of(space.maps()), value_of(kernel.maps()));
    }
    EXPECT_EQ(value_of(one.maps())[0].name, "kernel text");
    EXPECT_EQ(apart.translate(kHalf).error().kind, FaultKind::not_mapped);
    write(one, kHalf + 16, 78);
    EXPECT_EQ(word_at(two, kHalf + 16), 78u);
    must(kernel.protect(upper(0, 1), protection::r));
    EXPECT_FALSE(one.translate(kHalf)->protection.writable());
    must(kernel.unmap(upper(0, 2)));
    EXPECT_EQ(two.translate(kHalf).error().kind, FaultKind::not_mapped);
    EXPECT_TRUE(two.translate(upper(2, 1).start));
    EXPECT_EQ(supervisor_of(one)->name(), "kernel");
    EXPECT_FALSE(supervisor_of(apart));
    EXPECT_TRUE(is_supervisor(kernel));
    EXPECT_EQ(one.info().supervisor, "kernel");
    EXPECT_EQ(one.info().mapped_bytes, 0u);
    EXPECT_EQ(one.info().tables, 1u);
    expect_clean(store);
}

TEST_F(Supervisor, IsChangedThroughItselfAlone) {
    must(kernel.map(upper(0, 2), protection::rw));
    const auto denied = [](const auto& outcome) {
        ASSERT_FALSE(outcome);
        EXPECT_EQ(outcome.error().code, ErrorCode::permission_denied);
        EXPECT_THAT(outcome.error().message, HasSubstr("kernel"));
    };
    denied(one.map(upper(5, 1), protection::rw));
    denied(one.map(upper(5, 1), {}, {.guard = true}));
    denied(one.unmap(upper(0, 1)));
    denied(one.protect(upper(0, 1), protection::r));
    denied(one.handle(upper(0, 1)));
    Space apart = value_of(store.create_space("apart"));
    denied(apart.map_shared({kLow, kPageSize}, protection::r, one, upper(0, 1)));
    for (const auto& wrong : {kernel.map({kLow, kPageSize}, protection::rw),
                              kernel.map(upper(5, 1), protection::r | protection::u),
                              kernel.protect(upper(0, 1), protection::rw | protection::u)}) {
        ASSERT_FALSE(wrong);
        EXPECT_EQ(wrong.error().code, ErrorCode::invalid_argument);
    }
    EXPECT_EQ(check_user_range(one, kHalf, 8, protection::r).error().kind,
              FaultKind::non_canonical);
    EXPECT_EQ(one.translate(kHalf, protection::r | protection::u).error().kind,
              FaultKind::protection);
    EXPECT_EQ(store.create_space("two", {.supervisor = "one"}).error().code,
              ErrorCode::invalid_argument);
    EXPECT_EQ(store.create_space("two", {.supervisor = "nobody"}).error().code,
              ErrorCode::not_found);
    EXPECT_EQ(
        store.create_space("two", {.levels = Levels::three, .supervisor = "kernel"}).error().code,
        ErrorCode::invalid_argument);
    EXPECT_EQ(
        store.create_space("two", {.supervisor = "kernel", .is_supervisor = true}).error().code,
        ErrorCode::invalid_argument);
    EXPECT_EQ(store.fork_space("kernel", "two").error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(store.create_snapshot("kernel", "two").error().code, ErrorCode::invalid_argument);
    EXPECT_FALSE(store.open_space("two"));
    expect_clean(store);
}

TEST_F(Supervisor, FaultsOfAnyoneAreItsOwn) {
    const Space two = value_of(store.create_space("two", {.supervisor = "kernel"}));
    must(kernel.map(upper(0, 600), protection::rw, {.lazy = true}));
    must(kernel.map(upper(2000, 600), protection::rw,
                    {.grows_down = GrowsDown{.guard_bytes = kPageSize}}));
    EXPECT_EQ(one.translate(kHalf).error().kind, FaultKind::demand_zero);
    write(one, kHalf, 5);
    EXPECT_EQ(word_at(two, kHalf), 5u);
    must(one.fault(upper(599, 1).start, protection::r));
    EXPECT_TRUE(two.translate(upper(599, 1).start));
    write(one, upper(2300, 1).start, 6);
    EXPECT_EQ(word_at(kernel, upper(2300, 1).start), 6u);
    EXPECT_EQ(two.translate(upper(2299, 1).start).error().kind, FaultKind::stack_room);
    const std::array<std::byte, 1> byte{std::byte{9}};
    const std::array pieces = {PokePiece{upper(7, 1).start, byte}};
    EXPECT_FALSE(value_of(poke(one, pieces, PokePolicy::force)).fault);
    EXPECT_EQ(word_at(two, upper(7, 1).start), 9u);
    expect_clean(store);
}

TEST_F(Supervisor, ForksAndSnapshotsShareItUncopied) {
    must(kernel.map(upper(0, 2), protection::rw));
    must(one.map({kLow, 2 * kPageSize}, protection::rw));
    Space fork = value_of(store.fork_space("one", "fork"));
    Space kept = value_of(store.create_snapshot("one", "kept"));
    for (const Space& space : {one, fork, kept}) {
        EXPECT_FALSE(space.translate(kHalf)->copy_on_write);
        EXPECT_EQ(*space.translate(kHalf), *kernel.translate(kHalf));
    }
    must(kernel.map(upper(10, 1), protection::rw));
    write(fork, upper(10, 1).start, 3);
    EXPECT_EQ(word_at(one, upper(10, 1).start), 3u);
    EXPECT_EQ(word_at(kept, upper(10, 1).start), 3u);
    std::uint64_t word = 4;
    EXPECT_EQ(kept.write(kHalf, std::as_bytes(std::span(&word, 1))).error().code,
              ErrorCode::permission_denied);
    write(one, kLow, 1);
    write(fork, kLow, 2);
    EXPECT_EQ(value_of(differences(one, fork)).size(), 1u);
    must(store.rollback("one", "kept"));
    EXPECT_EQ(word_at(one, kLow), 0u);
    EXPECT_EQ(word_at(one, upper(10, 1).start), 3u);
    must(kernel.unmap(upper(10, 1)));
    EXPECT_FALSE(one.translate(upper(10, 1).start));
    value_of(store.release_limbo());
    EXPECT_TRUE(kernel.translate(kHalf)) << "limbo has released what was not its own";
    expect_clean(store);
}

TEST_F(Supervisor, CannotGoWhileItIsShared) {
    must(kernel.map(upper(0, 700), protection::rw));
    value_of(store.create_snapshot("one", "kept"));
    const auto busy = [&] {
        const auto removed = store.remove_space("kernel");
        EXPECT_FALSE(removed);
        return removed ? ErrorCode::io : removed.error().code;
    };
    EXPECT_EQ(busy(), ErrorCode::busy);
    must(store.remove_space("one"));
    EXPECT_EQ(busy(), ErrorCode::busy);
    {
        Transaction transaction = store.begin();
        value_of(transaction.create_space("made", {.supervisor = "kernel"}));
        EXPECT_EQ(transaction.remove_space("kernel").error().code, ErrorCode::busy);
    }
    must(store.remove_space("kept"));
    must(store.remove_space("kernel"));
    expect_clean(store);  // roots in limbo still link to what was the object's
    // The object's tables go first, and its frames are others' while a root still names them.
    value_of(store.release_limbo(300));
    {
        Space taker = value_of(store.create_space("taker"));
        while (taker.map({VirtAddr(taker.info().mapped_bytes), 64 * kPageSize}, protection::rw)) {
        }
        expect_clean(store);
        must(store.remove_space("taker"));
    }
    value_of(store.release_limbo());
    expect_clean(store);
    const VerifyReport report = store.verify();
    EXPECT_EQ(report.frames_free, report.frames_total);
}

// No call replaces a table that other roots link to, nor lets it go when it is empty.
TEST_F(Supervisor, KeepsItsTablesWhateverIsChanged) {
    const std::uint64_t slot_pages = std::uint64_t{1} << 27, half_pages = 4 * slot_pages;
    must(kernel.map(upper(0, half_pages), protection::rw, {.lazy = true}));
    EXPECT_EQ(one.translate(upper(half_pages - 1, 1).start).error().kind, FaultKind::demand_zero);
    write(one, upper(3 * slot_pages + 5, 1).start, 8);
    must(kernel.protect(upper(0, half_pages), protection::r));
    EXPECT_EQ(one.translate(upper(3 * slot_pages + 5, 1).start)->protection, protection::r);
    must(kernel.unmap(upper(slot_pages - 7, 2 * slot_pages + 20)));
    EXPECT_FALSE(one.translate(upper(slot_pages + 3, 1).start));
    must(kernel.unmap(upper(0, half_pages)));
    EXPECT_TRUE(value_of(one.maps()).empty());
    must(kernel.map(upper(slot_pages, 3), protection::rw));
    write(kernel, upper(slot_pages, 1).start, 9);
    EXPECT_EQ(word_at(one, upper(slot_pages, 1).start), 9u);
    value_of(store.release_limbo());
    EXPECT_EQ(word_at(one, upper(slot_pages, 1).start), 9u);
    expect_clean(store);
}

TEST_F(Supervisor, HasHugePages) {
    const Range huge{kHalf + 4_MiB, 4_MiB};
    must(kernel.map(huge, protection::rw, {.page_size = PageSize::size_2MiB}));
    EXPECT_EQ(one.translate(huge.start)->page_size, PageSize::size_2MiB);
    write(one, huge.start + 3_MiB, 5);
    must(kernel.protect({huge.start + 2_MiB, kPageSize}, protection::r));
    EXPECT_EQ(one.translate(huge.start + 3_MiB)->page_size, PageSize::size_4KiB);
    EXPECT_EQ(word_at(one, huge.start + 3_MiB), 5u);
    must(kernel.protect({huge.start + 2_MiB, kPageSize}, protection::rw));
    EXPECT_EQ(value_of(kernel.promote(huge)), 4_MiB);
    EXPECT_EQ(one.translate(huge.start + 3_MiB)->page_size, PageSize::size_2MiB);
    EXPECT_EQ(word_at(one, huge.start + 3_MiB), 5u);
    EXPECT_EQ(one.promote(huge).error().code, ErrorCode::permission_denied);
    write(one, huge.start + 3_MiB, 6);
    EXPECT_EQ(word_at(kernel, huge.start + 3_MiB), 6u);
    must(kernel.unmap(huge));
    // One in the root itself would be in one root only.
    Space three =
        value_of(store.create_space("three", {.levels = Levels::three, .is_supervisor = true}));
    EXPECT_EQ(three
                  .map({VirtAddr(0xffff'ffc0'0000'0000), 1_GiB}, protection::rw,
                       {.lazy = true, .page_size = PageSize::size_1GiB})
                  .error()
                  .code,
              ErrorCode::invalid_argument);
    value_of(store.release_limbo());
    expect_clean(store);
}

TEST_F(Supervisor, IsSoAfterARestartAndWithAllLevels) {
    for (const Levels levels : {Levels::three, Levels::five}) {
        const VirtAddr start =
            VirtAddr::truncated(std::uint64_t{1} << (virtual_address_bits(levels) - 1), levels);
        const std::string name = "kernel " + std::to_string(static_cast<int>(levels));
        Space object =
            value_of(store.create_space(name, {.levels = levels, .is_supervisor = true}));
        const Space space =
            value_of(store.create_space(name + " one", {.levels = levels, .supervisor = name}));
        must(object.map({start, kPageSize}, protection::rw));
        write(space, start, 1);
        EXPECT_EQ(word_at(object, start), 1u);
    }
    must(kernel.map(upper(0, 2), protection::rw));
    write(one, kHalf, 4);
    must(one.persist({kHalf, 8}));
    kernel = one = Space(nullptr);
    store = Store(nullptr);
    store = pool.open();
    one = value_of(store.open_space("one"));
    EXPECT_EQ(word_at(one, kHalf), 4u);
    EXPECT_EQ(one.map(upper(5, 1), protection::rw).error().code, ErrorCode::permission_denied);
    Space two = value_of(store.create_space("two", {.supervisor = "kernel"}));
    EXPECT_EQ(word_at(two, kHalf), 4u);
    must(store.rename_space("kernel", "renamed"));
    EXPECT_EQ(supervisor_of(two)->name(), "renamed");
    kernel = value_of(store.open_space("renamed"));
    must(kernel.unmap(upper(0, 1)));
    EXPECT_FALSE(one.translate(kHalf));
    expect_clean(store);
}

TEST_F(Supervisor, ATlbForgetsWhatTheObjectChanges) {
    const Space two = value_of(store.create_space("two", {.supervisor = "kernel"}));
    must(kernel.map(upper(0, 2), protection::rw));
    must(one.map({kLow, kPageSize}, protection::rw));
    for (const std::uint32_t spaces : {64u, 2u, 1u}) {
        Tlb tlb = value_of(Tlb::create(one, {.spaces = spaces}));
        EXPECT_TRUE(tlb.translate(kHalf));
        EXPECT_TRUE(tlb.translate(kLow));
        const std::uint64_t misses = tlb.misses();
        EXPECT_TRUE(tlb.translate(kLow));
        EXPECT_EQ(tlb.misses(), misses);
        if (spaces == 64) {
            // Like a processor's global entries, those of the half are for all.
            tlb.switch_to(two);
            EXPECT_TRUE(tlb.translate(kHalf));
            EXPECT_EQ(tlb.misses(), misses);
            tlb.switch_to(one);
        }
        must(kernel.protect(upper(0, 1), protection::r));
        EXPECT_FALSE(tlb.translate(kHalf)->protection.writable());
        must(kernel.unmap(upper(0, 1)));
        EXPECT_FALSE(tlb.translate(kHalf));
        must(kernel.map(upper(0, 1), protection::rw));
        EXPECT_TRUE(tlb.translate(kHalf));
        EXPECT_TRUE(tlb.translate(kLow));
    }
}

TEST_F(Supervisor, TheLastSpaceAndTheObjectAreRemovedByOneTransaction) {
    const std::uint64_t free_before = store.verify().frames_free;
    value_of(store.create_space("object", {.is_supervisor = true}));
    value_of(store.create_space("first", {.supervisor = "object"}));
    value_of(store.create_space("second", {.supervisor = "object"}));
    {
        Transaction transaction = store.begin();
        must(transaction.remove_space("first"));
        must(transaction.rename_space("second", "third"));
        const auto refused = transaction.remove_space("object");
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, ErrorCode::busy);
        EXPECT_EQ(refused.error().message.find("\"first\""), std::string::npos);
    }
    Transaction transaction = store.begin();
    must(transaction.remove_space("first"));
    must(transaction.remove_space("second"));
    must(transaction.remove_space("object"));
    must(transaction.commit());
    value_of(store.release_limbo());
    expect_clean(store);
    EXPECT_EQ(store.verify().frames_free, free_before);
}

TEST_F(Supervisor, ReadersOfManySpacesSeeEachPageOldOrNew) {
    std::vector<Space> spaces;
    for (int i = 0; i < 2; ++i)
        spaces.push_back(
            value_of(store.create_space("space " + std::to_string(i), {.supervisor = "kernel"})));
    std::atomic<bool> done = false;
    std::atomic<std::uint64_t> wrong = 0;
    std::vector<std::thread> readers;
    for (const Space& space : spaces)
        readers.emplace_back([&, space] {
            Tlb tlb(space);
            for (std::uint64_t i = 0; !done; ++i) {
                const VirtAddr at = upper(i % 700, 1).start;
                for (const auto& found : {space.translate(at), tlb.translate(at)})
                    if (!found && found.error().kind != FaultKind::not_mapped) ++wrong;
            }
        });
    for (int round = 0; round < 60; ++round) {
        must(kernel.map(upper(static_cast<std::uint64_t>(round), 600), protection::rw));
        must(kernel.protect(upper(static_cast<std::uint64_t>(round), 300), protection::r));
        must(kernel.unmap(upper(0, 700)));
    }
    done = true;
    for (std::thread& reader : readers) reader.join();
    EXPECT_EQ(wrong, 0u);
    expect_clean(store);
}

// What repair cuts off of the half is gone for all, and nothing is mapped there that some would not
// see.
TEST_F(Supervisor, ALostTableOfTheHalfStaysLost) {
    must(kernel.map(upper(0, 1), protection::rw));
    must(kernel.map(upper(1 << 27, 1), protection::rw));
    const std::uint64_t link = store.state().memory.table(kernel.root().frame())[256];
    const memory::MetadataWords words = store.state().memory.metadata(format::Entry(link).frame());
    holdfast::pool::store_word(words.word0, holdfast::pool::load_word(words.word0) ^ 0x100);
    store.state().pool->flush(words.word0, 8);
    store.state().pool->drain();
    kernel = one = Space(nullptr);
    store = Store(nullptr);
    const RepairReport report =
        value_of(repair_file(pool.path(), {.emulation = PmemEmulation::on}));
    EXPECT_GE(report.repaired.size(), 2u) << "the object's, and the other space's";
    EXPECT_TRUE(report.after.clean());
    store = pool.open();
    kernel = value_of(store.open_space("kernel"));
    one = value_of(store.open_space("one"));
    EXPECT_FALSE(one.translate(kHalf));
    EXPECT_TRUE(one.translate(upper(1 << 27, 1).start));
    EXPECT_EQ(kernel.map(upper(0, 1), protection::rw).error().code, ErrorCode::damaged);
    EXPECT_EQ(kernel.map(upper(0, 1 << 27), protection::rw, {.lazy = true}).error().code,
              ErrorCode::damaged);
    must(kernel.map(upper((1 << 27) + 1, 1), protection::rw));
    const Space two = value_of(store.create_space("two", {.supervisor = "kernel"}));
    EXPECT_TRUE(two.translate(upper((1 << 27) + 1, 1).start));
    expect_clean(store);
}

// Whatever the object, its spaces and their forks do, each page of the half is the same for all.
RC_GTEST_PROP(SupervisorProperty, TheHalfIsTheSameForAll, (std::uint32_t seed)) {
    const TemporaryPool pool;
    Store store = pool.create(24_MiB);
    Space kernel = value_of(store.create_space("kernel", {.is_supervisor = true}));
    value_of(store.create_space("a", {.supervisor = "kernel"}));
    std::mt19937 random(seed);
    const auto below = [&](std::uint64_t end) { return random() % end; };
    std::map<std::uint64_t, std::uint64_t> words;  // of pages that are mapped
    int names = 0;
    constexpr std::array<std::uint64_t, 3> kPlaces = {0, 500, (1 << 27) - 3};
    for (int step = 0; step < 40; ++step) {
        const std::uint64_t first = kPlaces[below(3)] + below(30), count = 1 + below(40);
        const auto names_now = value_of(store.space_names());
        const std::string name = names_now[below(names_now.size())];
        Space space = value_of(store.open_space(name));
        switch (below(7)) {
            case 0:
            case 1: {
                const bool lazy = below(2) == 0;
                if (!kernel.map(upper(first, count), protection::rw, {.lazy = lazy})) break;
                for (std::uint64_t page = first; page < first + count; ++page) words[page] = 0;
                break;
            }
            case 2:
                must(kernel.unmap(upper(first, count)));
                words.erase(words.lower_bound(first), words.lower_bound(first + count));
                break;
            case 3:
                if (!words.contains(first)) break;
                write(space, upper(first, 1).start, words[first] = 1000u + step);
                break;
            case 4:
                if (name != "kernel" && names < 4)
                    value_of(store.fork_space(name, "fork " + std::to_string(names++)));
                break;
            case 5:
                if (name != "kernel" && names_now.size() > 2) must(store.remove_space(name));
                break;
            default:
                value_of(store.release_limbo());
        }
    }
    for (const std::string& name : value_of(store.space_names())) {
        const Space space = value_of(store.open_space(name));
        std::uint64_t pages = 0;
        for (const Mapping& mapping : value_of(space.maps())) pages += mapping.range.pages();
        RC_ASSERT(pages == words.size());
        for (const auto& [page, word] : words)
            RC_ASSERT(word_at(space, upper(page, 1).start) == word);
    }
    const VerifyReport report = store.verify();
    for (const Finding& finding : report.findings) RC_FAIL(finding.what + ": " + finding.detail);
    RC_ASSERT(report.frames_reachable + report.frames_limbo + report.frames_free ==
              report.frames_total);
}

}  // namespace
}  // namespace holdfast::test
