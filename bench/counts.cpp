// What no clock measures: flushes, fences and log bytes of each durable operation, and bytes of
// tables and metadata for each mapped page.
#include <fmt/format.h>

#include <functional>
#include <memory>
#include <random>
#include <set>

#include "peers.hpp"
#include "store/store_state.hpp"
#include "suite.hpp"
#include "support/pmem_counters.hpp"

namespace holdfast::bench {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
constexpr std::uint64_t kTablePages = 512;
const VirtAddr kStart{0x10'0000'0000};

Range pages_at(std::uint64_t page, std::uint64_t count) {
    return {kStart + page * kPageSize, count * kPageSize};
}

// Runs operations one after the other in one store and prints what each costs. Limbo is empty
// before each, so that none pays for an earlier one.
class Counter {
  public:
    explicit Counter(StoreFixture& store) : store_(store) {}
    void operator()(const std::string& what, const std::function<void()>& operation) {
        value_of(store_.store().release_limbo());
        const void* const pool = store_.store().state().pool->at(0);
        const test::PmemCounts counts = test::counted(pool, operation);
        fmt::print("| {:<38} | {:>7} | {:>7} | {:>7} | {:>9} | {:>6} | {:>5} | {:>5} |\n", what,
                   counts.flush_calls, counts.flush_lines, counts.copy_calls, counts.copy_lines,
                   counts.fences, counts.undo_bytes, counts.redo_bytes);
    }

  private:
    StoreFixture& store_;
};

// --- bytes a mapped page ---

// Tables of the space and 16 bytes of metadata for every frame of them and of the data, by page.
double bytes_per_page(const Space& space) {
    const SpaceInfo info = space.info();
    const double pages = static_cast<double>(info.mapped_bytes >> kPageShift);
    const double frames =
        static_cast<double>(info.tables) + static_cast<double>(info.resident_bytes >> kPageShift);
    return (static_cast<double>(info.tables * kPageSize) + 16 * frames) / pages;
}

}  // namespace

void print_persist_counts() {
    StoreFixture store(kGiB + kGiB / 8);
    store.touch_all_frames();
    Space space = store.space("space");
    // A page that stays, so that its table and those above exist.
    must(space.map(pages_at(kTablePages - 1, 1), protection::rw));

    fmt::print(
        "\nPer operation: flushes (calls, lines), copies that flush (calls, lines), fences, and\n"
        "bytes written to libpmemobj's undo and redo logs. A copy of 64 lines is a page being "
        "zeroed.\n\n"
        "| {:<38} | {:>7} | {:>7} | {:>7} | {:>9} | {:>6} | {:>5} | {:>5} |\n"
        "|:{:-<38}-|-{:->7}:|-{:->7}:|-{:->7}:|-{:->9}:|-{:->6}:|-{:->5}:|-{:->5}:|\n",
        "operation", "flushes", "lines", "copies", "lines", "fences", "undo", "redo", "", "", "",
        "", "", "", "", "");
    Counter count(store);
    count("create_space", [&] { value_of(store.store().create_space("another")); });
    count("remove_space", [&] { must(store.store().remove_space("another")); });
    const auto map = [&](Range range) { must(space.map(range, protection::rw)); };
    const auto protect = [&](Range range) { must(space.protect(range, protection::r)); };
    const auto unmap = [&](Range range) { must(space.unmap(range)); };
    count("map 1 page", [&] { map(pages_at(0, 1)); });
    count("protect 1 page", [&] { protect(pages_at(0, 1)); });
    count("unmap 1 page", [&] { unmap(pages_at(0, 1)); });
    for (const std::uint64_t pages : {512, 65'536, 262'144}) {
        const Range range = pages_at(kTablePages, pages);
        count(fmt::format("map {} pages", pages), [&] { map(range); });
        count(fmt::format("protect {} pages", pages), [&] { protect(range); });
        count(fmt::format("unmap {} pages", pages), [&] { unmap(range); });
    }
    map(pages_at(8, 4));
    count("transaction: map, protect and unmap 1", [&] {
        Transaction transaction = store.store().begin();
        must(transaction.map(space, pages_at(0, 1), protection::rw));
        must(transaction.protect(space, pages_at(8, 1), protection::r));
        must(transaction.unmap(space, pages_at(10, 1)));
        must(transaction.commit());
    });
    count("write 8 bytes, persist", [&] {
        constexpr std::array<std::byte, 8> kBytes{};
        must(space.write(pages_at(11, 1).start, kBytes));
        must(space.persist({pages_at(11, 1).start, kBytes.size()}));
    });
}

void add_table_bytes(Suite& suite) {
    StoreFixture store(kGiB + kGiB / 8);
    const auto report = [&](const char* what, Goal goal, const auto& map_pages) {
        Space space = store.space("space");
        map_pages(space);
        suite.figure(fmt::format("tables + metadata, {}", what), bytes_per_page(space), "B/page",
                     goal);
        must(store.store().remove_space("space"));
        value_of(store.store().release_limbo());
    };
    report("dense 1 GiB", at_most(25),
           [](Space& space) { must(space.map(pages_at(0, kGiB / kPageSize), protection::rw)); });
    report("1 page in each 2 MiB of 64 GiB", kNoGoal, [](Space& space) {
        for (std::uint64_t table = 0; table < 32'768; ++table)
            must(space.map(pages_at(table * kTablePages, 1), protection::rw));
    });
    report("32,768 random pages of 1 GiB", kNoGoal, [](Space& space) {
        std::mt19937_64 random(1);  // the same in every run
        std::set<std::uint64_t> pages;
        while (pages.size() < 32'768) pages.insert(random() % (kGiB / kPageSize));
        for (const std::uint64_t page : pages) must(space.map(pages_at(page, 1), protection::rw));
    });
}

}  // namespace holdfast::bench
