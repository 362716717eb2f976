// Forks beside each other: writers of one lineage copy, take over and drop the same tables at the
// same time, and nobody sees another's bytes.
// ctest-labels: tsan
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <optional>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include "memory/reader_section.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;

constexpr VirtAddr kStart{0x3fff'0000};  // over the edge of two tables

VirtAddr page(std::uint64_t number) { return kStart + number * kPageSize; }

void fill(std::array<std::byte, kPageSize>& bytes, std::uint64_t stamp) {
    for (std::size_t at = 0; at < bytes.size(); at += 8) std::memcpy(&bytes[at], &stamp, 8);
}

// Of a page that holds one stamp; nothing if it does not.
std::optional<std::uint64_t> stamp_of(std::span<const std::byte> bytes) {
    std::uint64_t first = 0;
    std::memcpy(&first, bytes.data(), 8);
    for (std::size_t at = 8; at < bytes.size(); at += 8)
        if (std::memcmp(&bytes[at], bytes.data(), 8) != 0) return std::nullopt;
    return first;
}

TEST(ForkConcurrency, WritersOfOneLineageDoNotSeeEachOther) {
    const TemporaryPool pool;
    Store store = pool.create(128_MiB);
    constexpr unsigned kSpaces = 3;
    constexpr std::uint64_t kPages = 48;
    constexpr int kRounds = 12;
    std::atomic<std::uint64_t> wrong = 0;
    for (int round = 0; round < kRounds; ++round) {
        Space first = value_of(store.create_space("0"));
        must(first.map({kStart, kPages * kPageSize}, protection::rw));
        std::vector<Space> spaces = {first};
        for (unsigned i = 1; i < kSpaces; ++i)
            spaces.push_back(value_of(store.fork_space("0", std::to_string(i))));
        std::vector<std::thread> threads;
        for (unsigned number = 0; number < kSpaces; ++number)
            threads.emplace_back([&, number] {
                Space space = spaces[number];
                std::mt19937_64 random(static_cast<std::uint64_t>(round) * kSpaces + number);
                std::array<std::uint64_t, kPages> last{};
                std::array<std::byte, kPageSize> bytes;
                for (std::uint64_t i = 1; i <= 60; ++i) {
                    const std::uint64_t at = random() % kPages;
                    if (random() % 16 == 0) {
                        must(space.unmap({page(at), kPageSize}));
                        must(space.map({page(at), kPageSize}, protection::rw));
                        last[at] = 0;
                    }
                    const std::uint64_t stamp = (std::uint64_t{number} + 1) << 32 | i;
                    fill(bytes, stamp);
                    must(space.write(page(at), bytes));
                    last[at] = stamp;
                    const std::uint64_t other = random() % kPages;
                    must(space.read(page(other), bytes));
                    if (stamp_of(bytes) != last[other]) ++wrong;
                }
                for (std::uint64_t at = 0; at < kPages; ++at) {
                    must(space.read(page(at), bytes));
                    if (stamp_of(bytes) != last[at]) ++wrong;
                }
            });
        for (std::thread& thread : threads) thread.join();
        ASSERT_EQ(wrong, 0u) << "in round " << round;
        expect_clean(store);
        spaces.clear();
        for (unsigned i = 0; i < kSpaces; ++i) must(store.remove_space(std::to_string(i)));
    }
    value_of(store.release_limbo());
    const VerifyReport report = store.verify();
    EXPECT_EQ(report.frames_free, report.frames_total);
}

TEST(ForkConcurrency, ASnapshotStandsStillBesideAWriter) {
    const TemporaryPool pool;
    Store store = pool.create(128_MiB);
    Space space = value_of(store.create_space("space"));
    must(space.map({kStart, 4 * kPageSize}, protection::rw));
    std::atomic<bool> done = false;
    std::atomic<std::uint64_t> written = 0;
    std::thread writer([&] {
        std::array<std::byte, kPageSize> bytes;
        for (std::uint64_t stamp = 1; !done; ++stamp) {
            fill(bytes, stamp);
            must(space.write(page(stamp % 4), bytes));
            written = stamp;
        }
    });
    for (int i = 0; i < 40; ++i) {
        const std::string name = fmt::format("s{}", i);
        const Space kept = value_of(store.create_snapshot("space", name));
        std::array<std::array<std::byte, kPageSize>, 4> before, after;
        for (std::uint64_t at = 0; at < 4; ++at) must(kept.read(page(at), before[at]));
        const std::uint64_t so_far = written;
        while (written < so_far + 8) std::this_thread::yield();
        for (std::uint64_t at = 0; at < 4; ++at) {
            must(kept.read(page(at), after[at]));
            EXPECT_EQ(std::memcmp(before[at].data(), after[at].data(), kPageSize), 0)
                << "a write came through to " << name;
        }
    }
    done = true;
    writer.join();
    expect_clean(store);
    for (int i = 0; i < 40; ++i) must(store.remove_space(fmt::format("s{}", i)));
    value_of(store.release_limbo());
    expect_clean(store);
}

// A reader of the space that was forked from may still be in a page when the other space, which has
// it alone by now, writes to it.
TEST(ForkConcurrency, ReadersOfWhatWasCopiedSeeNoneOfTheOthersBytes) {
    const TemporaryPool pool;
    Store store = pool.create(128_MiB);
    Space space = value_of(store.create_space("space"));
    must(space.map({kStart, kPageSize}, protection::rw));
    std::array<std::byte, kPageSize> bytes;
    fill(bytes, 1);
    must(space.write(kStart, bytes));
    std::atomic<bool> done = false;
    std::atomic<std::uint64_t> wrong = 0;
    // The first bytes are written meanwhile, by their own space; nobody writes the others there.
    constexpr std::size_t kWritten = 64;
    std::thread reader([&] {
        std::array<std::byte, kPageSize - kWritten> seen;
        while (!done) {
            must(space.read(kStart + kWritten, seen));
            if (stamp_of(seen) != 1) ++wrong;
        }
    });
    for (int i = 0; i < 150; ++i) {
        Space fork = value_of(store.fork_space("space", "fork"));
        fill(bytes, 1);
        // The space has a copy now, and the fork the page.
        must(space.write(kStart, std::span(bytes).first(kWritten)));
        fill(bytes, 2);
        must(fork.write(kStart, bytes));
        fork = space;
        must(store.remove_space("fork"));
    }
    done = true;
    reader.join();
    EXPECT_EQ(wrong, 0u);
    expect_clean(store);
}

// Whether the call returns while somebody is in a page, as a reader or as a writer is. One that
// waits for them cannot, however long we look.
bool returns_beside_a_reader(const std::function<void()>& call) {
    std::atomic<bool> returned = false;
    std::thread caller;
    bool early = false;
    {
        const memory::ReaderSection section;
        caller = std::thread([&] {
            call();
            returned = true;
        });
        for (int look = 0; look < 100 && !early; ++look) {
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
            early = returned;
        }
    }
    caller.join();
    return early;
}

TEST(ForkConcurrency, AForkWaitsForThoseWhoAreWriting) {
    const TemporaryPool pool;
    Store store = pool.create();
    Space space = value_of(store.create_space("space"));
    must(space.map({kStart, kPageSize}, protection::rw));
    EXPECT_FALSE(returns_beside_a_reader([&] { value_of(store.fork_space("space", "fork")); }));
    EXPECT_FALSE(
        returns_beside_a_reader([&] { value_of(store.create_snapshot("space", "snapshot")); }));
    // Nobody else has to wait.
    EXPECT_TRUE(
        returns_beside_a_reader([&] { must(space.map({page(1), kPageSize}, protection::rw)); }));
}

TEST(ForkConcurrency, WhatOthersHaveCopiedIsWrittenWhenTheirReadersHaveLeft) {
    const TemporaryPool pool;
    Store store = pool.create();
    Space space = value_of(store.create_space("space"));
    must(space.map({kStart, 2 * kPageSize}, protection::rw));
    Space fork = value_of(store.fork_space("space", "fork"));
    std::array<std::byte, 8> bytes{};
    must(space.write(kStart, bytes));
    // The tables and the page are the fork's alone now; a reader of the space may be in them.
    EXPECT_FALSE(returns_beside_a_reader([&] { must(fork.write(kStart, bytes)); }));
    // After that grace period there is nobody to wait for.
    EXPECT_TRUE(returns_beside_a_reader([&] { must(fork.write(page(1), bytes)); }));
}

}  // namespace
}  // namespace holdfast::test
