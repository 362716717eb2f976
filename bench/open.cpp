// How long it takes until the first byte of a saved space can be read.
//
// Every open of ours is timed up to the first eight bytes read through the tables; closing happens
// outside, and open with close is reported beside it. Peers: libpmemobj's own open of the very same
// pool; LMDB's open and first get; and what one would do without saved tables, which is to build
// them again in a fresh store, from a list of mappings. Our pages map 512 frames again and again,
// so such a list has an entry for every 512 pages, and the rebuild is one transaction over all of
// them; and since map_shared knows how to repeat its source, the rebuild by a single call is
// reported as well, as the fastest there can be.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "peers.hpp"
#include "suite.hpp"

namespace holdfast::bench {
namespace {

constexpr std::array<std::uint64_t, 4> kSizes = {1, 1'000, 1'000'000, 16'000'000};
constexpr std::array kSizeNames = {"1", "1k", "1M", "16M"};
const VirtAddr kStart{0x10'0000'0000};
// Opening a pool allocates a lot and asks the kernel for much, so single times scatter.
constexpr int kTurns = 60;

std::uint64_t pool_bytes(std::uint64_t pages) {
    return (std::uint64_t{96} << 20) + pages * 10;  // tables, metadata, and room to spare
}
VirtAddr middle(std::uint64_t pages) { return kStart + pages / 2 * kPageSize; }

// A closed pool with so many pages mapped, and an LMDB file with so many keys.
struct SavedPages {
    explicit SavedPages(std::uint64_t pages) : store(pool_bytes(pages)) {
        {
            Space space = store.space("space");
            store.map_shared(space, kStart, pages);
        }
        store.close();
        lmdb_bytes = (std::uint64_t{16} << 20) + pages * 48;
        Lmdb(lmdb_file.path(), lmdb_bytes, Lmdb::Mode::create).fill(pages);
    }
    StoreFixture store;
    ScratchFile lmdb_file;
    std::uint64_t lmdb_bytes = 0;
};

std::array<std::unique_ptr<SavedPages>, kSizes.size()> saved;

SavedPages& saved_pages(std::size_t size) {
    if (!saved[size]) saved[size] = std::make_unique<SavedPages>(kSizes[size]);
    return *saved[size];
}

Store open_and_read(const std::string& path, VirtAddr address) {
    Store store = value_of(open_emulated(path));
    std::array<std::byte, 8> bytes;
    must(value_of(store.open_space("space")).read(address, bytes));
    benchmark::DoNotOptimize(bytes);
    return store;
}

std::uint64_t lmdb_get(const Lmdb& lmdb, std::uint64_t key) { return Lmdb::Reader(lmdb).get(key); }

void rebuild_from_list(StoreFixture& fresh, Space& space, std::uint64_t pages) {
    Transaction transaction = fresh.store().begin();
    const Space source = fresh.space("source");
    for (std::uint64_t page = 0; page < pages; page += StoreFixture::kSourcePages) {
        const std::uint64_t count = std::min(StoreFixture::kSourcePages, pages - page);
        must(transaction.map_shared(space, {kStart + page * kPageSize, count * kPageSize},
                                    protection::rw, source, StoreFixture::source_range()));
    }
    must(transaction.commit());
}

// A pool for each repetition: its first touch is part of building tables anew.
void add_rebuilds(Suite& suite, std::uint64_t pages, const std::string& size) {
    const auto add = [&](const char* how, const auto& rebuild) {
        suite
            .add(fmt::format("open/{}/{}", how, size),
                 [=](benchmark::State& state) {
                     StoreFixture fresh(pool_bytes(pages));
                     Space space = fresh.space("space");
                     fresh.map_shared(space, VirtAddr(0), 1);  // makes the source
                     measure(
                         state,
                         [&] {
                             rebuild(fresh, space);
                             benchmark::DoNotOptimize(space.translate(middle(pages)));
                         },
                         [] {});
                 })
            ->UseManualTime()
            ->Iterations(1)
            ->Repetitions(pages > 1'000'000 ? 1 : 3);
    };
    add("rebuild",
        [=](StoreFixture& fresh, Space& space) { rebuild_from_list(fresh, space, pages); });
    add("rebuild_at_once",
        [=](StoreFixture& fresh, Space& space) { fresh.map_shared(space, kStart, pages); });
}

// Opens the pool by turns as a store and without anything of ours, so that both find the heap and
// the kernel in the same state, and records the medians of the turns under the four names.
void open_in_turns(benchmark::State& state, Suite& suite, const std::string& path,
                   std::uint64_t pages, const std::string& size) {
    std::vector<double> ours, ours_and_close, bare, bare_and_close;
    const auto open_ours = [&] {
        const double start = cpu_seconds();
        std::optional<Store> store = open_and_read(path, middle(pages));
        ours.push_back((cpu_seconds() - start) * 1e9);
        store.reset();
        ours_and_close.push_back((cpu_seconds() - start) * 1e9);
    };
    const auto open_bare_pool = [&] {
        const double start = cpu_seconds();
        PMEMobjpool* const pool = open_bare(path);
        bare.push_back((cpu_seconds() - start) * 1e9);
        pmemobj_close(pool);
        bare_and_close.push_back((cpu_seconds() - start) * 1e9);
    };
    bool ours_first = false;
    for (auto _ : state) {
        if (!ours_first) open_bare_pool();
        open_ours();
        if (ours_first) open_bare_pool();
        ours_first = !ours_first;
    }
    suite.record("open/holdfast/" + size, median(ours));
    suite.record("open/holdfast_and_close/" + size, median(ours_and_close));
    suite.record("open/pmemobj/" + size, median(bare));
    suite.record("open/pmemobj_and_close/" + size, median(bare_and_close));
}

void add_size(Suite& suite, std::size_t size) {
    const std::uint64_t pages = kSizes[size];
    const auto name = [&](const char* peer) {
        return fmt::format("open/{}/{}", peer, kSizeNames[size]);
    };
    suite
        .add(name("turns"),
             [=, &suite](benchmark::State& state) {
                 open_in_turns(state, suite, saved_pages(size).store.path(), pages,
                               kSizeNames[size]);
             })
        ->Iterations(kTurns);
    suite
        .add(name("lmdb"),
             [=](benchmark::State& state) {
                 const SavedPages& at = saved_pages(size);
                 std::unique_ptr<Lmdb> lmdb;
                 measure(
                     state,
                     [&] {
                         lmdb = std::make_unique<Lmdb>(at.lmdb_file.path(), at.lmdb_bytes,
                                                       Lmdb::Mode::open);
                         benchmark::DoNotOptimize(lmdb_get(*lmdb, pages / 2));
                     },
                     [&] { lmdb.reset(); });
             })
        ->UseManualTime();

    const std::string what =
        fmt::format("open to first read, {} page{}", kSizeNames[size], pages == 1 ? "" : "s");
    suite.compare(
        {what, name("holdfast"), name("pmemobj"), "pmemobj_open of the same pool", at_most(1.1)});
    if (pages >= 1'000'000) {
        add_rebuilds(suite, pages, kSizeNames[size]);
        const Goal goal = pages == 16'000'000 ? at_least(1000) : kFactor;
        suite.compare(
            {what, name("holdfast"), name("rebuild"), "rebuilding from a list of mappings", goal});
        suite.compare(
            {what, name("holdfast"), name("rebuild_at_once"), "rebuilding by a single call", goal});
    }
    suite.compare({what, name("holdfast"), name("lmdb"), "LMDB open + get", at_most(1)});
    suite.compare({what + ", and close", name("holdfast_and_close"), name("pmemobj_and_close"),
                   "pmemobj_open + pmemobj_close", kNoGoal});
}

// A closed pool with one page of its own, and external regions.
struct SavedRegions {
    explicit SavedRegions(unsigned regions) : store(pool_bytes(1)), files(regions) {
        Space space = store.space("space");
        store.map_shared(space, kStart, 1);
        for (const ScratchFile& file : files)
            value_of(store.store().add_external_region(
                file.path(), {.size_bytes = std::uint64_t{16} << 20, .sparse = true}));
        store.close();
    }
    StoreFixture store;
    std::vector<ScratchFile> files;
};

std::array<std::unique_ptr<SavedRegions>, 33> saved_regions;

void add_regions(Suite& suite, unsigned regions) {
    const std::string size = fmt::format("{}_regions", regions);
    suite
        .add("open/turns/" + size,
             [=, &suite](benchmark::State& state) {
                 auto& saved_here = saved_regions.at(regions);
                 if (!saved_here) saved_here = std::make_unique<SavedRegions>(regions);
                 open_in_turns(state, suite, saved_here->store.path(), 1, size);
             })
        ->Iterations(kTurns);
    suite.compare({fmt::format("open to first read, {} external regions", regions),
                   "open/holdfast/" + size, "open/pmemobj/" + size, "pmemobj_open of the same pool",
                   at_most(1.1)});
}

void add(Suite& suite) {
    for (const unsigned regions : {1U, 8U, 32U}) add_regions(suite, regions);
    for (std::size_t size = 0; size < kSizes.size(); ++size) add_size(suite, size);
    suite.compare({"open to first read, 16M pages", "open/holdfast/16M", "open/holdfast/1",
                   "the same with 1 page mapped", at_most(1.1)});
}

void clean_up() {
    saved = {};
    saved_regions = {};
}

}  // namespace

Subject open_subject() { return {"open", add, clean_up}; }

}  // namespace holdfast::bench
