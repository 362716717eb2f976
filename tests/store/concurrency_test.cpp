// Readers take no lock and never see a half-made mapping; writers on different spaces run side by
// side and do not corrupt each other.
// ctest-labels: tsan
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstring>
#include <string>
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
    readers.reserve(2);
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
    threads.reserve(kWriters);
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

// --- frames that several spaces share ---

// Four spaces; two of them map the same page.
class SharedFrames : public testing::Test {
  protected:
    static constexpr Range kRange{VirtAddr(0x3fff'f000), kPageSize};

    SharedFrames()
        : store(pool.create(64_MiB)),
          source(value_of(store.create_space("source"))),
          other_source(value_of(store.create_space("other source"))),
          sharer(value_of(store.create_space("sharer"))),
          other_sharer(value_of(store.create_space("other sharer"))) {
        must(source.map(kRange, protection::rw));
        must(other_source.map_shared(kRange, protection::rw, source, kRange));
    }

    // What `verify` finds and, when nothing is mapped any more, that no frame is lost.
    void expect_counts_right() {
        expect_clean(store);
        for (Space* each : {&source, &other_source, &sharer, &other_sharer})
            if (each->translate(kRange.start)) must(each->unmap(kRange));
        value_of(store.release_limbo());
        expect_clean(store);
        const VerifyReport report = store.verify();
        EXPECT_EQ(report.frames_limbo, 0u);
        // Each space has its record and its root.
        EXPECT_EQ(report.frames_total - report.frames_free, 2 * 4u);
    }

    const TemporaryPool pool;
    Store store;
    Space source, other_source, sharer, other_sharer;
};

TEST_F(SharedFrames, TransactionsThatOverlapCountEveryReference) {
    // Neither of the two holds a space of the other's.
    Transaction one = store.begin(), other = store.begin();
    must(one.map_shared(sharer, kRange, protection::rw, source, kRange));
    must(other.map_shared(other_sharer, kRange, protection::rw, other_source, kRange));
    must(one.commit());
    must(other.commit());
    expect_clean(store);

    one = store.begin(), other = store.begin();
    must(one.unmap(source, kRange));
    must(one.unmap(sharer, kRange));
    must(other.unmap(other_source, kRange));
    must(other.unmap(other_sharer, kRange));
    must(other.commit());
    expect_clean(store);
    must(one.commit());
    expect_counts_right();
}

TEST_F(SharedFrames, AFrameIsFreedByItsLastReferenceAndNoEarlier) {
    // The page gets another reference between the call that drops one and its commit.
    Transaction transaction = store.begin();
    must(transaction.unmap(source, kRange));
    must(sharer.map_shared(kRange, protection::rw, other_source, kRange));
    must(transaction.commit());
    must(other_source.unmap(kRange));
    ASSERT_TRUE(sharer.translate(kRange.start));
    expect_clean(store);
    // And it loses all but one.
    must(source.map_shared(kRange, protection::rw, sharer, kRange));
    transaction = store.begin();
    must(transaction.unmap(source, kRange));
    must(sharer.unmap(kRange));
    expect_clean(store);
    must(transaction.commit());
    expect_counts_right();
}

TEST_F(SharedFrames, SeveralCallsOfATransactionAddUp) {
    Transaction transaction = store.begin();
    const Range next{kRange.end(), kPageSize};
    must(transaction.map(source, next, protection::rw));
    // Pages of before and of this very transaction: shared, passed on, and unmapped by whom they
    // were first.
    for (const Range page : {kRange, next}) {
        must(transaction.map_shared(sharer, page, protection::rw, source, page));
        must(transaction.unmap(source, page));
        must(transaction.map_shared(other_sharer, page, protection::rw, sharer, page));
        must(transaction.unmap(sharer, page));
        must(transaction.map_shared(sharer, page, protection::r, other_sharer, page));
    }
    must(other_source.unmap(kRange));
    must(transaction.commit());
    EXPECT_FALSE(source.translate(kRange.start));
    EXPECT_EQ(sharer.translate(next.start)->physical, other_sharer.translate(next.start)->physical);
    expect_clean(store);
    must(sharer.unmap(next));
    must(other_sharer.unmap(next));
    expect_counts_right();
}

TEST_F(SharedFrames, WritersOfDisjointSpacesLoseNoReference) {
    std::atomic<unsigned> wrong = 0;
    const auto share = [&](Space space, const Space& from) {
        for (int round = 0; round < 10 * kRounds; ++round) {
            if (!space.map_shared(kRange, protection::rw, from, kRange)) ++wrong;
            // Every other one changes its mind first.
            Transaction aborted = store.begin();
            if (!aborted.unmap(space, kRange)) ++wrong;
            if (round % 2 != 0) aborted.abort();
            if (!(round % 2 != 0 ? space.unmap(kRange) : aborted.commit())) ++wrong;
        }
    };
    std::thread one(share, sharer, source), other(share, other_sharer, other_source);
    one.join();
    other.join();
    EXPECT_EQ(wrong, 0u);
    expect_counts_right();
}

// Pages are mapped, filled with the mark of who owns them, shared, and unmapped by their first
// owner, directly and by way of limbo, while another shares them: it gets all of them or an error,
// and nobody else's page, even though a third takes whatever frames become free.
TEST_F(SharedFrames, ASourceThatIsUnmappedMeanwhileIsSharedWholeOrNotAtAll) {
    must(source.unmap(kRange));
    must(other_source.unmap(kRange));
    constexpr std::uint64_t kOwner = 0x1111, kThird = 0x3333;
    std::atomic<bool> done = false;
    std::atomic<std::uint64_t> wrong = 0, shared = 0, refused = 0;
    const auto map_filled = [&](Space& space, Range range, std::uint64_t mark) {
        std::array<std::byte, kPageSize> page;
        fill_page(page, mark);
        Transaction transaction = store.begin();
        must(transaction.map(space, range, protection::rw));
        for (std::uint64_t i = 0; i < range.pages(); ++i)
            must(transaction.fill(space, range.start + i * kPageSize, page));
        must(transaction.commit());
    };
    // One page; a few, which are unmapped directly; so many that they go to limbo.
    const auto range_of = [&](std::uint64_t round) {
        constexpr std::array<std::uint64_t, 3> kPages = {1, 9, 40};
        return Range{kRange.start, kPages[round % kPages.size()] * kPageSize};
    };
    const auto share = [&](Space space, const Space& from) {
        for (std::uint64_t round = 0; !done; ++round) {
            const Range range = range_of(round);
            if (auto mapped = space.map_shared(range, protection::r, from, range); !mapped) {
                if (mapped.error().code != ErrorCode::not_mapped) ++wrong;
                ++refused;
                continue;
            }
            ++shared;
            for (std::uint64_t i = 0; i < range.pages(); ++i) {
                std::uint64_t mark = 0;
                must(space.read(range.start + i * kPageSize,
                                std::as_writable_bytes(std::span(&mark, 1))));
                if (mark != kOwner) ++wrong;
            }
            must(space.unmap(range));
        }
    };
    std::thread sharing(share, sharer, source), sharing_on(share, other_sharer, sharer);
    std::thread third([&] {
        for (std::uint64_t round = 0; !done; ++round) {
            map_filled(other_source, range_of(round), kThird);
            must(other_source.unmap(range_of(round)));
            value_of(store.release_limbo());
        }
    });
    for (std::uint64_t round = 0; round < kRounds || (shared < kRounds && round < 100 * kRounds);
         ++round) {
        map_filled(source, range_of(round / 2), kOwner);
        std::this_thread::yield();
        must(source.unmap(range_of(round / 2)));
    }
    done = true;
    for (std::thread* each : {&sharing, &sharing_on, &third}) each->join();
    EXPECT_EQ(wrong, 0u);
    EXPECT_GT(shared, 0u);
    expect_counts_right();
}

TEST(Concurrency, VerifyAndInfoSeeTheStoreBetweenCommits) {
    const TemporaryPool pool;
    Store store = pool.create(32_MiB);
    std::atomic<bool> done = false;
    std::atomic<std::uint64_t> refused = 0;
    // Whatever changes the medium: single words, builds, aborted ones, limbo, names, growth of a
    // table's references; in two spaces that share frames.
    Space shared = value_of(store.create_space("shared"));
    must(shared.map({VirtAddr(0x1000), 4 * kPageSize}, protection::rw));
    const auto work = [&](unsigned number) {
        Space space = value_of(store.create_space("space " + std::to_string(number)));
        const VirtAddr at(0x4000'0000);
        for (unsigned round = 0; !done; ++round) {
            const Range range{at, (round % 3 == 0 ? 1 : round % 3 == 1 ? 40 : 600) * kPageSize};
            if (!space.map(range, protection::rw, {.name = "name"})) ++refused;
            std::ignore = space.protect(range, protection::r);
            if (round % 4 == 0) {
                Transaction aborted = store.begin();
                std::ignore =
                    aborted.map(space, {VirtAddr(0x8000'0000), 100 * kPageSize}, protection::rw);
            }
            std::ignore = space.map_shared({VirtAddr(0x1'0000'0000), 4 * kPageSize}, protection::rw,
                                           shared, {VirtAddr(0x1000), 4 * kPageSize});
            std::ignore = space.unmap({VirtAddr(0x1'0000'0000), 4 * kPageSize});
            must(space.unmap(range));
            if (round % 8 == 0) {
                const std::string name = "passing " + std::to_string(number);
                value_of(store.create_space(name));
                must(store.remove_space(name));
            }
        }
    };
    std::vector<std::thread> writers;
    for (unsigned number = 0; number < 2; ++number) writers.emplace_back(work, number);
    for (int round = 0; round < 40; ++round) {
        const VerifyReport report = store.verify({.threads = 2});
        for (const Finding& finding : report.findings)
            ADD_FAILURE() << finding.what << ": " << finding.detail;
        EXPECT_EQ(report.frames_total, report.frames_reachable + report.frames_limbo +
                                           report.frames_building + report.frames_free);
        const StoreInfo info = value_of(store.info());
        std::uint64_t tables = 0;
        for (const SpaceInfo& space : info.spaces) tables += space.tables;
        EXPECT_EQ(tables, info.tables) << "counted at different moments";
    }
    done = true;
    for (std::thread& writer : writers) writer.join();
    EXPECT_EQ(refused, 0u);
    expect_clean(store);
}

}  // namespace
}  // namespace holdfast::test
