// Readers take no lock and never see a half-made mapping; writers on different spaces run side by
// side and do not corrupt each other.
// ctest-labels: tsan
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;

// Far fewer under ThreadSanitizer would do; the counts are small enough for both.
constexpr int kRounds = 300;

void fill_page(std::span<std::byte> page, std::uint64_t stamp) {
    for (std::size_t at = 0; at + 8 <= page.size(); at += 8)
        std::memcpy(page.data() + at, &stamp, 8);
}

TEST(Concurrency, ReadersSeeEachPageWholeOldOrNew) {
    const TemporaryPool pool;
    Store store = pool.create(64_MiB);
    Space space = value_of(store.create_space("space"));
    // The writer maps the range again and again, each time with pages that all hold one stamp,
    // filled before the mapping is committed. A reader that finds a page finds one stamp in all of
    // it.
    const Range range{VirtAddr(0x3fff'f000), 40 * kPageSize};
    std::atomic<bool> done = false;
    std::atomic<std::uint64_t> seen = 0, absent = 0, wrong = 0;
    std::vector<std::thread> readers;
    for (unsigned reader = 0; reader < 2; ++reader)
        readers.emplace_back([&, reader] {
            std::array<std::byte, kPageSize> page;
            std::uint64_t last = 0;
            for (std::uint64_t i = reader; !done; ++i) {
                const VirtAddr at = range.start + (i * 7 % range.pages()) * kPageSize;
                const auto read = space.read(at, page);
                if (!read) {
                    // Between unmap and map; anything but "not mapped" is an error.
                    if (read.error().code != ErrorCode::not_mapped) ++wrong;
                    ++absent;
                    continue;
                }
                std::uint64_t first = 0;
                std::memcpy(&first, page.data(), 8);
                for (std::size_t k = 8; k < page.size(); k += 8)
                    if (std::memcmp(page.data() + k, &first, 8) != 0) {
                        ++wrong;
                        break;
                    }
                // Stamps only grow, from zero (never seen) on.
                if (first < last || first == 0) ++wrong;
                last = first;
                ++seen;
            }
        });
    std::array<std::byte, kPageSize> page;
    for (std::uint64_t stamp = 1; stamp <= kRounds; ++stamp) {
        Transaction transaction = store.begin();
        if (stamp > 1) must(transaction.unmap(space, range));
        must(transaction.map(space, range, protection::rw));
        fill_page(page, stamp);
        for (std::uint64_t i = 0; i < range.pages(); ++i)
            must(transaction.fill(space, range.start + i * kPageSize, page));
        must(transaction.commit());
    }
    done = true;
    for (std::thread& reader : readers) reader.join();
    EXPECT_EQ(wrong, 0u);
    EXPECT_GT(seen, 100u);
    expect_clean(store);
}

TEST(Concurrency, ReadersSeeNothingOfATransactionUnderWay) {
    const TemporaryPool pool;
    Store store = pool.create(64_MiB);
    Space space = value_of(store.create_space("space"));
    const Range range{VirtAddr(0), 600 * kPageSize};
    must(space.map(range, protection::rw));
    Transaction transaction = store.begin();
    must(transaction.protect(space, range, protection::r));
    must(transaction.unmap(space, {VirtAddr(0), 20 * kPageSize}));
    EXPECT_FALSE(transaction.translate(space, VirtAddr(0)));
    EXPECT_EQ(space.translate(VirtAddr(0))->protection, protection::rw);
    EXPECT_EQ(space.translate(VirtAddr(599 * kPageSize))->protection, protection::rw);
    must(transaction.commit());
    EXPECT_FALSE(space.translate(VirtAddr(0)));
    EXPECT_EQ(space.translate(VirtAddr(599 * kPageSize))->protection, protection::r);
}

TEST(Concurrency, WritersOnDifferentSpacesDoNotMeet) {
    const TemporaryPool pool;
    Store store = pool.create(128_MiB);
    constexpr unsigned kWriters = 4;
    std::vector<std::thread> threads;
    std::atomic<unsigned> wrong = 0;
    for (unsigned writer = 0; writer < kWriters; ++writer)
        threads.emplace_back([&, writer] {
            const std::string name = "space " + std::to_string(writer);
            Space space = value_of(store.create_space(name));
            for (unsigned round = 0; round < kRounds / 4; ++round) {
                const std::uint64_t pages = 1 + (round * 37 + writer) % 700;
                const Range range{VirtAddr(0x20'0000 - 5 * kPageSize), pages * kPageSize};
                must(space.map(range, protection::rw));
                const std::uint64_t stamp = round << 8 | writer;
                const VirtAddr last = range.end() + (std::uint64_t{0} - 8);
                must(space.write(range.start, std::as_bytes(std::span(&stamp, 1))));
                must(space.write(last, std::as_bytes(std::span(&stamp, 1))));
                must(space.persist({range.start, 8}));
                std::uint64_t word = 0;
                for (const VirtAddr at : {range.start, last}) {
                    must(space.read(at, std::as_writable_bytes(std::span(&word, 1))));
                    if (word != stamp) ++wrong;
                }
                if (round % 3 == 0) must(space.protect(range, protection::r));
                must(space.unmap(range));
                if (round % 16 == 15) {
                    must(store.remove_space(name));
                    space = value_of(store.create_space(name));
                }
            }
        });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0u);
    expect_clean(store);
    value_of(store.release_limbo());
    const VerifyReport report = store.verify();
    EXPECT_TRUE(report.clean());
    EXPECT_EQ(report.frames_limbo, 0u);
}

TEST(Concurrency, ATlbNeverAnswersFromBeforeACompletedUnmap) {
    const TemporaryPool pool;
    Store store = pool.create(64_MiB);
    Space space = value_of(store.create_space("space"));
    const Range range{VirtAddr(0x10'0000), 8 * kPageSize};
    must(space.map(range, protection::rw));
    std::atomic<std::uint64_t> unmapped_rounds = 0;
    std::atomic<bool> done = false;
    std::atomic<std::uint64_t> wrong = 0, looked = 0;
    std::thread reader([&] {
        Tlb tlb(space);
        while (!done) {
            // Even: mapped; odd: unmapped. If the round did not change around the look-up, the
            // answer must be the round's.
            const std::uint64_t before = unmapped_rounds;
            const auto found = tlb.translate(range.start + 3 * kPageSize);
            if (unmapped_rounds == before && before % 2 == 1 && found) ++wrong;
            ++looked;
        }
    });
    for (int round = 0; round < kRounds; ++round) {
        must(space.unmap(range));
        ++unmapped_rounds;
        std::this_thread::yield();
        ++unmapped_rounds;
        must(space.map(range, protection::rw));
    }
    done = true;
    reader.join();
    EXPECT_EQ(wrong, 0u);
    EXPECT_GT(looked, 0u);
}

}  // namespace
}  // namespace holdfast::test
