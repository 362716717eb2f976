// One page mapped, durable when the call returns; and one page unmapped.
//
// "Sequential" maps ascending pages below tables that exist, "random" maps pages in random order
// over 512 such tables. Every pool was touched before, so that nobody pays for the first touch of
// tmpfs memory.
//
// Peers: a bare libpmemobj transaction that snapshots and stores the same words, 16 bytes of
// metadata and an entry of 8 bytes, in arrays of its own pool at the same indexes. Our map zeroes
// the page's 4 KiB as well, so the peer is measured with that and without; and without it stands
// beside our map of a page that shares a frame, which has nothing to zero (but looks up its source,
// and changes 8 bytes of metadata). libpmemobj-cpp's radix tree and LMDB (MDB_NOSYNC and
// MDB_WRITEMAP, so not durable) insert the page's number and frame, and zero nothing.
#include <fmt/format.h>
#include <libpmem.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "peers.hpp"
#include "radix_map.hpp"
#include "suite.hpp"

namespace holdfast::bench {
namespace {

constexpr std::uint64_t kPoolBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kTables = 512;
// Pages a repetition maps; of each table's 512 the last stays mapped, so that the table stays.
constexpr std::uint64_t kCount = 32 * 511;
const VirtAddr kStart{0x10'0000'0000};

enum class Order { sequential, random };

std::vector<std::uint64_t> pages_in(Order order) {
    std::vector<std::uint64_t> pages;
    for (std::uint64_t page = 0; pages.size() < kTables * 511; ++page)
        if (page % 512 != 511) pages.push_back(page);
    if (order == Order::random)
        std::shuffle(pages.begin(), pages.end(), std::mt19937_64(1));  // the same in every run
    pages.resize(kCount);
    return pages;
}
const std::vector<std::uint64_t>& pages_of(Order order) {
    static const std::array lists = {pages_in(Order::sequential), pages_in(Order::random)};
    return lists[static_cast<std::size_t>(order)];
}

Range page_range(std::uint64_t page) { return {kStart + page * kPageSize, kPageSize}; }

struct Ours {
    Ours() : store(kPoolBytes) {
        store.touch_all_frames();
        space = store.space("space");
        source = store.space("source");
        for (std::uint64_t table = 0; table < kTables; ++table)
            must(space->map(page_range(table * 512 + 511), protection::rw));
        must(source->map(kSource, protection::rw));
    }
    void unmap_all() {
        for (std::uint64_t table = 0; table < kTables; ++table)
            must(space->unmap({page_range(table * 512).start, 511 * kPageSize}));
        value_of(store.store().release_limbo());
    }
    static constexpr Range kSource{VirtAddr(0x1000'0000), kPageSize};
    StoreFixture store;
    std::optional<Space> space, source;
};

struct Bare {
    static constexpr std::uint64_t kFrames = 40'000;
    Bare()
        : pool(kPoolBytes),
          frames(pool.allocate(kFrames * kPageSize)),
          metadata(reinterpret_cast<std::uint64_t*>(pool.allocate(kFrames * 16))),
          entries(reinterpret_cast<std::uint64_t*>(pool.allocate(kTables * 512 * 8))) {
        frames += -reinterpret_cast<std::uintptr_t>(frames) % kPageSize;
    }
    // Frames come one after the other, as ours do from a pool with free runs.
    void map(std::uint64_t page, bool zeroing) {
        const std::uint64_t frame = next_frame++ % (kFrames - 1);
        PMEMobjpool* const pop = pool.get();
        if (zeroing)
            pmemobj_memset(pop, frames + frame * kPageSize, 0, kPageSize, PMEMOBJ_F_MEM_NODRAIN);
        if (pmemobj_tx_begin(pop, nullptr, TX_PARAM_NONE) != 0) stop(pmemobj_errormsg());
        pmemobj_tx_add_range_direct(metadata + 2 * frame, 16);
        metadata[2 * frame] = page | 1;
        metadata[2 * frame + 1] = ~page;
        pmemobj_tx_add_range_direct(entries + page, 8);
        entries[page] = frame << kPageShift | 1;
        pmemobj_tx_commit();
        if (pmemobj_tx_end() != 0) stop(pmemobj_errormsg());
    }
    BarePool pool;
    std::byte* frames;
    std::uint64_t* metadata;
    std::uint64_t* entries;
    std::uint64_t next_frame = 0;
};

struct LmdbMap {
    LmdbMap() : lmdb(file.path(), kPoolBytes, Lmdb::Mode::create) {}
    ScratchFile file;
    Lmdb lmdb;
};

std::unique_ptr<Ours> ours;
std::unique_ptr<Bare> bare;
std::array<std::unique_ptr<RadixMap>, 2> radix;
std::array<std::unique_ptr<LmdbMap>, 2> lmdb;

template <typename Fixture, typename... Arguments>
Fixture& made(std::unique_ptr<Fixture>& fixture, const Arguments&... arguments) {
    if (!fixture) fixture = std::make_unique<Fixture>(arguments...);
    return *fixture;
}

// Runs `each` over the pages in order; as many iterations as there are pages.
template <typename Each>
void over_pages(benchmark::State& state, Order order, const Each& each) {
    auto page = pages_of(order).begin();
    for (auto _ : state) each(*page++);
}

void add_order(Suite& suite, Order order) {
    const char* const word = order == Order::sequential ? "sequential" : "random";
    const auto index = static_cast<std::size_t>(order);
    const auto name = [&](const char* peer) { return fmt::format("map_one/{}/{}", peer, word); };
    const auto add = [&](const char* peer, const Suite::Body& body) {
        suite.add(name(peer), body)->Iterations(kCount);
    };
    add("map", [=](benchmark::State& state) {
        Ours& at = made(ours);
        over_pages(state, order, [&](std::uint64_t page) {
            must(at.space->map(page_range(page), protection::rw));
        });
        at.unmap_all();
    });
    add("map_shared", [=](benchmark::State& state) {
        Ours& at = made(ours);
        over_pages(state, order, [&](std::uint64_t page) {
            must(at.space->map_shared(page_range(page), protection::rw, *at.source, Ours::kSource));
        });
        at.unmap_all();
    });
    add("unmap", [=](benchmark::State& state) {
        Ours& at = made(ours);
        for (const std::uint64_t page : pages_of(order))
            must(at.space->map(page_range(page), protection::rw));
        over_pages(state, order,
                   [&](std::uint64_t page) { must(at.space->unmap(page_range(page))); });
        value_of(at.store.store().release_limbo());
    });
    add("bare_zeroing", [=](benchmark::State& state) {
        over_pages(state, order, [&at = made(bare)](std::uint64_t page) { at.map(page, true); });
    });
    add("bare", [=](benchmark::State& state) {
        over_pages(state, order, [&at = made(bare)](std::uint64_t page) { at.map(page, false); });
    });
    // Each repetition inserts new keys, 512 tables further on; the maps only grow.
    add("radix_tree", [=](benchmark::State& state) {
        RadixMap& map = made(radix[index], kPoolBytes);
        static std::uint64_t base = 0;
        over_pages(state, order, [&](std::uint64_t page) { map.put(base + page, page << 12); });
        base += kTables * 512;
    });
    add("lmdb", [=](benchmark::State& state) {
        LmdbMap& map = made(lmdb[index]);
        static std::uint64_t base = 0;
        over_pages(state, order,
                   [&](std::uint64_t page) { map.lmdb.put(base + page, page << 12); });
        base += kTables * 512;
    });

    const std::string map = fmt::format("map 1 page, {}", word);
    suite.compare({map, name("map"), name("bare_zeroing"), "bare transaction, zeroing 4 KiB too",
                   at_most(1.2)});
    suite.compare({map, name("map"), name("bare"), "bare transaction, zeroing nothing", kNoGoal});
    suite.compare({map + ", frame shared", name("map_shared"), name("bare"),
                   "bare transaction, zeroing nothing", at_most(1.2)});
    suite.compare({map, name("map"), name("radix_tree"), "PMDK radix_tree insert", at_least(3)});
    suite.compare({map, name("map"), name("lmdb"), "LMDB put + commit, not durable", below(1)});
    suite.compare({fmt::format("unmap 1 page, {}", word), name("unmap"), name("bare"),
                   "bare transaction, zeroing nothing", kNoGoal});
}

void add(Suite& suite) {
    for (const Order order : {Order::sequential, Order::random}) add_order(suite, order);
    suite
        .add("map_one/zeroing_alone",
             [](benchmark::State& state) {
                 Bare& at = made(bare);
                 for (auto _ : state)
                     pmemobj_memset(at.pool.get(),
                                    at.frames + at.next_frame++ % (Bare::kFrames - 1) * kPageSize,
                                    0, kPageSize, PMEMOBJ_F_MEM_NODRAIN);
                 pmemobj_drain(at.pool.get());
             })
        ->Iterations(kCount);
    suite.compare({"zeroing 4 KiB alone", "map_one/zeroing_alone", "", "", kNoGoal});
}

void clean_up() {
    ours.reset();
    bare.reset();
    radix = {};
    lmdb = {};
}

}  // namespace

Subject map_one_subject() { return {"map_one", add, clean_up}; }

}  // namespace holdfast::bench
