// The full check of a store, with one thread and with two.
//
// The peer reads the same tables once, all words of them, with as many threads: what the memory
// gives. A check reads 16 bytes of metadata a page beside the entry's 8, computes the checks of
// both, and counts. Two stores: 16 M pages that share 512 frames, so that tables are all there is
// to read (128 MiB); and 1 GiB of pages with a frame each. Times are the CPU time of all threads
// together, over their number: on a shared machine the clock shows the neighbours.
#include <fmt/format.h>

#include <atomic>
#include <memory>
#include <numeric>
#include <thread>

#include "peers.hpp"
#include "space/space_state.hpp"
#include "store/store_state.hpp"
#include "suite.hpp"
#include "table/visit.hpp"

namespace holdfast::bench {
namespace {

struct Checked {
    Checked(std::uint64_t pool_bytes, std::uint64_t page_count, bool shared)
        : store(pool_bytes), pages(page_count) {
        Space space = store.space("space");
        const VirtAddr start(0x10'0000'0000);
        if (shared)
            store.map_shared(space, start, pages);
        else
            must(space.map({start, pages * kPageSize}, protection::rw));
        const memory::PhysicalMemory& memory = store.store().state().memory;
        table::Visitor visitor;
        visitor.table = [&](FrameNumber table, const table::TablePosition&) {
            tables.push_back(memory.table(table));
        };
        table::visit(memory, space.state().root(), table::all_pages(space.levels()), visitor);
    }

    void verify(unsigned threads) {
        if (!store.store().verify({.threads = threads}).clean()) stop("the store is damaged");
    }
    void read(unsigned threads) {
        std::vector<std::jthread> readers;
        std::atomic<std::uint64_t> sum = 0;
        const auto part = [&](unsigned number) {
            std::uint64_t mine = 0;
            for (std::size_t i = number; i < tables.size(); i += threads)
                mine = std::accumulate(tables[i], tables[i] + format::kEntriesPerTable, mine);
            sum += mine;
        };
        for (unsigned number = 1; number < threads; ++number) readers.emplace_back(part, number);
        part(0);
        readers.clear();
        keep(sum);
    }

    StoreFixture store;
    const std::uint64_t pages;
    std::vector<const std::uint64_t*> tables;
};

double process_cpu_seconds() {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

std::unique_ptr<Checked> shared_frames, own_frames;

Checked& with_shared_frames() {
    if (!shared_frames)
        shared_frames = std::make_unique<Checked>(std::uint64_t{288} << 20, 16'000'000, true);
    return *shared_frames;
}
Checked& with_own_frames() {
    if (!own_frames)
        own_frames = std::make_unique<Checked>(std::uint64_t{1200} << 20, 262'144, false);
    return *own_frames;
}

void add_store(Suite& suite, const char* size, Checked& (*checked)()) {
    for (const unsigned threads : {1U, 2U}) {
        const auto name = [&](const char* what) {
            return fmt::format("verify/{}/{}/{}", what, size, threads);
        };
        const auto add = [&](const char* what, void (Checked::*work)(unsigned)) {
            suite
                .add(name(what),
                     [=](benchmark::State& state) {
                         Checked& store = checked();
                         for (auto _ : state) {
                             const double start = process_cpu_seconds();
                             (store.*work)(threads);
                             state.SetIterationTime((process_cpu_seconds() - start) / threads);
                         }
                         state.counters["pages_per_second"] =
                             benchmark::Counter(static_cast<double>(store.pages),
                                                benchmark::Counter::kIsIterationInvariantRate);
                     })
                ->UseManualTime()
                ->Iterations(1);
        };
        add("ours", &Checked::verify);
        add("read", &Checked::read);
        suite.compare(
            {fmt::format("verify, {}, {} thread{}", size, threads, threads == 1 ? "" : "s"),
             name("ours"), name("read"), "reading the same tables once", kNoGoal});
    }
}

void add(Suite& suite) {
    add_store(suite, "16M pages of shared frames", with_shared_frames);
    add_store(suite, "1 GiB of own frames", with_own_frames);
}

void clean_up() {
    shared_frames.reset();
    own_frames.reset();
}

}  // namespace

Subject verify_subject() { return {"verify", add, clean_up}; }

}  // namespace holdfast::bench
