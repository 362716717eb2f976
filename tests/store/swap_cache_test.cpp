// ctest-labels: tsan
//
// The swap cache (memory/swap_cache.hpp): what is in the swap region already is not written there
// again, and what was written since is.
#include <gtest/gtest.h>

#include "holdfast/inspect.hpp"
#include "holdfast/reclaim.hpp"
#include "holdfast/snapshot.hpp"
#include "store/store_state.hpp"
#include "support/reclaim_fixture.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;

class SwapCache : public Reclaim {
  protected:
    static constexpr std::uint64_t kPages = 8;
    // All pages were sent out and have come back.
    SwapCache() {
        add_swap();
        must(space.map({kStart, kPages * kPageSize}, protection::rw));
        fill(space, kPages);
        send_out(0);
        bring_back();
    }
    void bring_back() {
        for (std::uint64_t at = 0; at < kPages; ++at) must(space.fault(page(at), protection::r));
    }
    std::uint64_t* entry_of(std::uint64_t number) {
        const memory::PhysicalMemory& memory = store.state().memory;
        FrameNumber table = space.state().root().entry.frame();
        for (unsigned level = 4; level > 1; --level)
            table = table::Entry(memory.table(table)[format::slot_of(page(number), level)]).frame();
        return memory.table(table) + format::slot_of(page(number), 1);
    }
    void send_out(std::uint64_t clean) {
        const std::uint64_t before = space.frame_use().evicted_clean;
        EXPECT_EQ(value_of(space.evict(kPages * kPageSize)), kPages * kPageSize);
        EXPECT_EQ(space.frame_use().evicted_clean - before, clean);
    }
};

TEST_F(SwapCache, APageThatWasOnlyReadIsNotWrittenAgain) {
    for (int round = 0; round < 3; ++round) {
        for (std::uint64_t at = 0; at < kPages; ++at) EXPECT_EQ(get(space, page(at)), at + 1);
        send_out(kPages);
        expect_filled(space, kPages);
        bring_back();
    }
    expect_filled(space, kPages);
}

TEST_F(SwapCache, WhateverWritesMakesAPageDirty) {
    put(space, page(1), 101);
    const auto bytes = space.frame_bytes(page(2));
    ASSERT_TRUE(bytes);
    (*bytes)[0] = std::byte{102};
    const std::uint64_t word = 103;
    const std::array force = {PokePiece{page(3), std::as_bytes(std::span(&word, 1))}};
    EXPECT_FALSE(value_of(poke(space, force, PokePolicy::force)).fault);
    must(space.protect({page(4), kPageSize}, protection::r));  // no write
    send_out(kPages - 3);
    const std::array<std::uint64_t, kPages> wanted = {1, 101, 102, 103, 5, 6, 7, 8};
    for (std::uint64_t at = 0; at < kPages; ++at) EXPECT_EQ(get(space, page(at)), wanted[at]) << at;
}

// D that a writer sets while a commit replaces the entry is lost with it; the write is not.
TEST_F(SwapCache, ALostDMakesNoPageClean) {
    put(space, page(5), 66);
    pool::clear_bits(entry_of(5), table::Entry::kDirty);
    send_out(kPages - 1);
    EXPECT_EQ(get(space, page(5)), 66u);
}

// As a processor does it.
TEST_F(SwapCache, DOfTheEntryMakesAPageDirty) {
    const memory::PhysicalMemory& memory = store.state().memory;
    {
        const memory::ReaderSection section;
        const auto found = space.translate(page(5));
        ASSERT_TRUE(found);
        *memory.host(found->physical.frame()) = std::byte{66};
        pool::store_word(entry_of(5), *entry_of(5) | table::Entry::kDirty);
    }
    send_out(kPages - 1);
    EXPECT_EQ(get(space, page(5)), 66u);
}

// A slot that others have had holds what they have put there, also if they came to nothing.
TEST_F(SwapCache, ASlotThatWasGivenAwayIsNoCopy) {
    Space other = value_of(store.create_space("other"));
    must(other.map({kStart, 2048 * kPageSize}, protection::rw, {.lazy = true}));
    const std::uint64_t word = 9;
    for (std::uint64_t at = 0; at < 2048; ++at) {
        must(other.write(page(at), std::as_bytes(std::span(&word, 1))));
        if (at % 64 == 63) value_of(other.evict(64 * kPageSize));
    }
    EXPECT_EQ(other.frame_use().swapped_bytes, 8_MiB) << "all of it";
    // Free again, with the other's bytes.
    must(other.unmap({kStart, 2048 * kPageSize}));
    value_of(store.release_limbo());
    send_out(0);
    expect_filled(space, kPages);
}

TEST_F(SwapCache, IsOfOneProcess) {
    space = Space(nullptr);
    store = Store(nullptr);
    store = pool.open();
    space = value_of(store.open_space("space"));
    send_out(0);
    expect_filled(space, kPages);
}

// The slots are a fork's, too: they hold what they do as long as it has them.
TEST_F(SwapCache, OfPagesThatAForkStillHasThere) {
    send_out(kPages);
    const Space fork = value_of(store.fork_space("space", "fork"));
    bring_back();
    put(space, page(0), 77);
    send_out(0);  // the slots are taken
    expect_filled(fork, kPages);
    EXPECT_EQ(get(space, page(0)), 77u);
    for (std::uint64_t at = 1; at < kPages; ++at) EXPECT_EQ(get(space, page(at)), at + 1);
}

}  // namespace
}  // namespace holdfast::test
