// Opening costs the same whatever is mapped: counted from outside, by trapping the first access to
// every page of the pool.
// ctest-labels: noasan
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include "support/page_touches.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;

struct Touches {
    std::uint64_t open = 0;        // Store::open
    std::uint64_t first_read = 0;  // and open_space, and the first translated read
    std::uint64_t watched_bytes = 0;
};

constexpr VirtAddr kPlace{0x5000'0000'0000};

// In a process of its own, so that nothing is warm.
Touches count(const std::string& path) {
    int ends[2];
    if (pipe(ends) != 0) std::abort();
    if (const pid_t child = fork(); child == 0) {
        Touches touches;
        const PageTouches pages(path);
        const auto store = Store::open(path, {.emulation = PmemEmulation::on});
        if (!store) _exit(1);
        touches.open = pages.count();
        const auto space = store->open_space("space");
        std::uint64_t word = 0;
        if (!space || !space->read(kPlace, std::as_writable_bytes(std::span(&word, 1)))) _exit(2);
        if (word != 0x600d) _exit(3);
        touches.first_read = pages.count();
        touches.watched_bytes = pages.watched_bytes();
        if (write(ends[1], &touches, sizeof touches) != sizeof touches) _exit(4);
        _exit(0);
    }
    close(ends[1]);
    Touches touches;
    const bool complete = read(ends[0], &touches, sizeof touches) == sizeof touches;
    close(ends[0]);
    int status = 0;
    wait(&status);
    EXPECT_TRUE(complete && WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    return touches;
}

Touches count_after(const std::function<void(Store&, Space&)>& fill) {
    const TemporaryPool pool;
    {
        Store store = pool.create(128_MiB);
        Space space = value_of(store.create_space("space"));
        must(space.map({kPlace, kPageSize}, protection::rw));
        const std::uint64_t word = 0x600d;
        must(space.write(kPlace, std::as_bytes(std::span(&word, 1))));
        must(space.persist({kPlace, sizeof word}));
        fill(store, space);
        expect_clean(store);
    }
    // libpmemobj's recovery of the process that has just closed is not what is counted.
    pool.open();
    return count(pool.path());
}

void map_pages(Space& space, std::uint64_t pages) {
    const Range source{VirtAddr(0x10'0000'0000), 512 * kPageSize};
    must(space.map(source, protection::rw));
    must(space.map_shared({kPlace + 2_MiB, pages * kPageSize}, protection::rw, space, source));
}

TEST(Open, TouchesTheSamePagesWhateverIsMapped) {
    const Touches one = count_after([](Store&, Space&) {});
    const Touches thousand = count_after([](Store&, Space& space) { map_pages(space, 1000); });
    const Touches million = count_after([](Store&, Space& space) { map_pages(space, 1'000'000); });
    const Touches limbo = count_after([](Store& store, Space& space) {
        // Many records, and large ones: nothing of it may be looked at by open.
        for (int i = 0; i < 600; ++i) {
            Transaction transaction = store.begin();
            const Range range{VirtAddr(0x20'0000'0000), 40 * kPageSize};
            must(transaction.map(space, range, protection::rw));
            must(transaction.commit());
            Transaction removal = store.begin();
            must(removal.unmap(space, range));
            must(removal.commit());
        }
        map_pages(space, 500'000);
        must(space.unmap({kPlace + 2_MiB, 500'000 * kPageSize}));
        EXPECT_GT(value_of(store.info()).frames.limbo, 900u) << "limbo is not long";
    });
    const Touches spaces = count_after([](Store& store, Space&) {
        for (int i = 0; i < 500; ++i) value_of(store.create_space(fmt::format("s{}", i)));
    });
    // Another physical base: every entry of every table has to change, and none does by opening.
    const Touches moved = count_after([](Store& store, Space& space) {
        map_pages(space, 1'000'000);
        must(store.move_region(0));
    });
    for (const auto& [name, touches] : {std::pair("1 page", one),
                                        {"1,000 pages", thousand},
                                        {"1,000,000 pages", million},
                                        {"long limbo", limbo},
                                        {"500 spaces", spaces},
                                        {"moved", moved}})
        fmt::print("{:>16}: open touches {} pages, with the first read {}\n", name, touches.open,
                   touches.first_read);
    ASSERT_EQ(one.watched_bytes, 128_MiB) << "the pool's mapping was not watched";
    ASSERT_GT(one.open, 1u);
    EXPECT_EQ(one.open, thousand.open);
    EXPECT_EQ(one.open, million.open);
    EXPECT_EQ(one.open, limbo.open);
    EXPECT_EQ(one.open, spaces.open);
    EXPECT_EQ(one.open, moved.open);
    // The first read walks one path (the directory, a space record, four tables) and checks the
    // entries on it, which looks at the metadata of their targets. A constant, whatever is mapped
    // beside the path.
    for (const Touches& touches : {thousand, million, limbo, spaces, moved}) {
        EXPECT_LE(touches.first_read - touches.open, one.first_read - one.open + 4 * 3);
    }
}

// Regions that are there, missing or moved: looking at each costs the same, whatever it holds.
TEST(Open, TouchesTheSamePagesWhateverIsInItsRegions) {
    const TemporaryPool file;
    const auto with_region = [&](std::uint64_t pages, bool missing) {
        std::filesystem::remove(file.path());
        const auto fill = [&](Store& store, Space& space) {
            const unsigned region = value_of(
                store.add_external_region(file.path(), {.size_bytes = 64_MiB, .sparse = true}));
            must(space.map({VirtAddr(0x30'0000'0000), pages * kPageSize}, protection::rw,
                           {.region = region}));
            if (missing) std::filesystem::remove(file.path());
        };
        return count_after(fill);
    };
    const std::uint64_t few = with_region(1, false).open, many = with_region(10'000, false).open;
    const std::uint64_t few_lost = with_region(1, true).open,
                        many_lost = with_region(10'000, true).open;
    fmt::print("open touches {} and {} pages; with the region missing, {} and {}\n", few, many,
               few_lost, many_lost);
    EXPECT_EQ(few, many);
    EXPECT_EQ(few_lost, many_lost);
}

}  // namespace
}  // namespace holdfast::test
