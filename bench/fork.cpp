// Forks and snapshots, and the first write after one.
//
// Peers: fork(2) of a process that has touched 1 GiB (and its child's end, which is not measured),
// and copying the space's tables with libpmem. 1 GiB has a frame a page; 64 GiB are 16 M pages that
// share 512 frames: the tables are real, and are what a fork would have to copy. A fork's removal,
// and the release of what that leaves in limbo, are outside the measurement.
#include <fmt/format.h>
#include <libpmem.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "peers.hpp"
#include "space/space_state.hpp"
#include "store/store_state.hpp"
#include "suite.hpp"
#include "table/visit.hpp"

namespace holdfast::bench {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
constexpr VirtAddr kStart{0x10'0000'0000};

struct Forked {
    Forked(std::uint64_t pool_bytes, std::uint64_t page_count, bool shared)
        : store(pool_bytes), pages(page_count) {
        store.touch_all_frames();
        space = store.space("space");
        if (shared)
            store.map_shared(*space, kStart, pages);
        else
            must(space->map({kStart, pages * kPageSize}, protection::rw));
        const memory::PhysicalMemory& memory = store.store().state().memory;
        table::Visitor visitor;
        visitor.table = [&](FrameNumber table, const table::TablePosition&) {
            tables.push_back(memory.table(table));
        };
        table::visit(memory, space->state().root(), table::all_pages(space->levels()), visitor);
    }
    void fork() { value_of(store.store().fork_space("space", "fork")); }
    void remove() {
        must(store.store().remove_space("fork"));
        value_of(store.store().release_limbo());
    }
    StoreFixture store;
    const std::uint64_t pages;
    std::optional<Space> space;
    std::vector<std::uint64_t*> tables;
};

std::unique_ptr<Forked> own_frames, shared_frames;

Forked& one_gib() {
    if (!own_frames)
        own_frames = std::make_unique<Forked>(kGiB + kGiB / 4, kGiB / kPageSize, false);
    return *own_frames;
}
Forked& many_gib() {
    if (!shared_frames)
        shared_frames = std::make_unique<Forked>(288 * kGiB / 1024, 64 * kGiB / kPageSize, true);
    return *shared_frames;
}

void fork_process(benchmark::State& state) {
    void* const bytes =
        mmap(nullptr, kGiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED) stop("no memory for the peer of fork");
    // As the space's: pages of 4 KiB.
    madvise(bytes, kGiB, MADV_NOHUGEPAGE);
    for (std::uint64_t at = 0; at < kGiB; at += kPageSize) static_cast<char*>(bytes)[at] = 1;
    pid_t child = -1;
    measure(
        state,
        [&] {
            child = ::fork();
            if (child == 0) _exit(0);
        },
        [&] { waitpid(child, nullptr, 0); });
    munmap(bytes, kGiB);
}

void add_size(Suite& suite, const char* size, Forked& (*forked)()) {
    const auto name = [&](const char* what) { return fmt::format("fork/{}/{}", what, size); };
    suite
        .add(name("ours"),
             [=](benchmark::State& state) {
                 Forked& at = forked();
                 measure(state, [&] { at.fork(); }, [&] { at.remove(); });
             })
        ->UseManualTime()
        ->Iterations(50);
    suite
        .add(name("copy"),
             [=](benchmark::State& state) {
                 Forked& at = forked();
                 std::vector<std::byte> place(kPageSize * 4096);
                 measure(
                     state,
                     [&] {
                         std::size_t to = 0;
                         for (const std::uint64_t* const table : at.tables) {
                             pmem_memcpy_nodrain(place.data() + to, table, kPageSize);
                             to = (to + kPageSize) % place.size();
                         }
                         pmem_drain();
                     },
                     [] {});
             })
        ->UseManualTime()
        ->Iterations(2);
    suite.compare({fmt::format("fork of {}", size), name("ours"), name("copy"),
                   "copying its tables, libpmem", kFactor});
}

// The first write to a table's part of the space (a path is copied), and the next one beside it (a
// page is).
void add_first_writes(Suite& suite) {
    const auto add = [&](const char* name, double quantile, bool path) {
        suite
            .add(fmt::format("fork/{}", name),
                 [=](benchmark::State& state) {
                     Forked& at = one_gib();
                     for (auto _ : state) {
                         at.fork();
                         std::vector<double> times;
                         constexpr std::uint64_t kWord = 1;
                         for (std::uint64_t table = 0; table < 200; ++table)
                             for (std::uint64_t page = 0; page < 2; ++page) {
                                 const VirtAddr to = kStart + (table * 512 + page * 7) * kPageSize;
                                 const double start = cpu_seconds();
                                 must(at.space->write(to, std::as_bytes(std::span(&kWord, 1))));
                                 const double end = cpu_seconds();
                                 if ((page == 0) == path) times.push_back(end - start);
                             }
                         std::sort(times.begin(), times.end());
                         state.SetIterationTime(times[static_cast<std::size_t>(
                             quantile * static_cast<double>(times.size() - 1))]);
                         at.remove();
                     }
                 })
            ->UseManualTime()
            ->Iterations(3);
        suite.compare({fmt::format("first write after it, {}", name), fmt::format("fork/{}", name),
                       "", "", kNoGoal});
    };
    add("a table and a page copied, p50", 0.5, true);
    add("a table and a page copied, p99", 0.99, true);
    add("a page copied, p50", 0.5, false);
    add("a page copied, p99", 0.99, false);
}

void add(Suite& suite) {
    add_size(suite, "1 GiB", one_gib);
    suite.add("fork/process", fork_process)->UseManualTime()->Iterations(10);
    suite.compare({"fork of 1 GiB", "fork/ours/1 GiB", "fork/process",
                   "fork(2) of a process with 1 GiB touched", at_least(65)});
    add_size(suite, "64 GiB", many_gib);
    suite.compare({"fork of 64 GiB", "fork/ours/64 GiB", "fork/ours/1 GiB", "the same of 1 GiB",
                   at_most(1.1)});
    add_first_writes(suite);
}

void clean_up() {
    own_frames.reset();
    shared_frames.reset();
}

}  // namespace

Subject fork_subject() { return {"fork", add, clean_up}; }

}  // namespace holdfast::bench
