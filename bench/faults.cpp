// Demand-zero faults, huge pages, and where their frames come from.
//
// Peers: the kernel's fault on a page of a tmpfs file that has to be made, as ours has, and on one
// that is there; mapping the same range with pages of 4 KiB; libpmemobj's allocator, which reserves
// and cancels, so that neither side makes anything durable. Unmapping, and the release of what that
// leaves in limbo, are outside the measurement.
#include <fcntl.h>
#include <fmt/format.h>
#include <libpmemobj.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <vector>

#include "peers.hpp"
#include "store/store_state.hpp"
#include "suite.hpp"

namespace holdfast::bench {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20, kGiB = std::uint64_t{1} << 30;
constexpr VirtAddr kStart{0x40'0000'0000};
constexpr std::uint64_t kFaults = 4096;

struct Pages {
    Pages() : store(kGiB + kGiB / 4) {
        store.touch_all_frames();
        space = store.space("space");
    }
    void unmap(std::uint64_t size_bytes) {
        must(space->unmap({kStart, size_bytes}));
        value_of(store.store().release_limbo());
    }
    StoreFixture store;
    std::optional<Space> space;
};

std::unique_ptr<Pages> pages;

Pages& at() {
    if (!pages) pages = std::make_unique<Pages>();
    return *pages;
}

// Each iteration is one fault of kFaults.
void fault_ours(benchmark::State& state) {
    Space& space = *at().space;
    std::uint64_t next = kFaults;
    bool mapped = false;
    for (auto _ : state) {
        if (next == kFaults) {
            if (mapped) at().unmap(kFaults * kPageSize);
            must(space.map({kStart, kFaults * kPageSize}, protection::rw, {.lazy = true}));
            mapped = true;
            next = 0;
        }
        const double start = cpu_seconds();
        must(space.fault(kStart + next++ * kPageSize, protection::w));
        state.SetIterationTime(cpu_seconds() - start);
    }
    if (mapped) at().unmap(kFaults * kPageSize);
}

void fault_kernel(benchmark::State& state, bool page_is_there) {
    const ScratchFile file;
    const int number = open(file.path().c_str(), O_RDWR | O_CREAT, 0600);
    if (number < 0 || ftruncate(number, kFaults * kPageSize) != 0) stop("no file for the peer");
    if (page_is_there && posix_fallocate(number, 0, kFaults * kPageSize) != 0)
        stop("no room for the peer");
    char* bytes = nullptr;
    std::uint64_t next = kFaults;
    for (auto _ : state) {
        if (next == kFaults) {
            if (bytes != nullptr) munmap(bytes, kFaults * kPageSize);
            if (!page_is_there &&
                (ftruncate(number, 0) != 0 || ftruncate(number, kFaults * kPageSize) != 0))
                stop("the peer's file cannot be emptied");
            void* const mapped =
                mmap(nullptr, kFaults * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, number, 0);
            if (mapped == MAP_FAILED) stop("the peer's file cannot be mapped");
            bytes = static_cast<char*>(mapped);
            madvise(bytes, kFaults * kPageSize, MADV_RANDOM);
            next = 0;
        }
        const double start = cpu_seconds();
        static_cast<volatile char*>(bytes)[next++ * kPageSize] = 1;
        state.SetIterationTime(cpu_seconds() - start);
    }
    if (bytes != nullptr) munmap(bytes, kFaults * kPageSize);
    close(number);
}

void map_gib(benchmark::State& state, PageSize size) {
    Pages& here = at();
    measure(
        state, [&] { must(here.space->map({kStart, kGiB}, protection::rw, {.page_size = size})); },
        [&] { here.unmap(kGiB); });
}

// 64 of 2 MiB, taken and given back.
constexpr std::size_t kBlocks = 64;

void allocate_ours(benchmark::State& state, unsigned level) {
    memory::FrameAllocator& allocator = at().store.store().state().allocator;
    std::vector<memory::Extent> taken(kBlocks);
    for (auto _ : state) {
        for (memory::Extent& each : taken)
            each = level == 2 ? value_of(allocator.allocate_huge(2))
                              : memory::Extent{value_of(allocator.allocate_one()), 1};
        for (const memory::Extent& each : taken) allocator.give_back(each);
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kBlocks));
}

void allocate_libpmemobj(benchmark::State& state, std::size_t size_bytes) {
    const BarePool pool(512 * kMiB);
    std::vector<pobj_action> actions(kBlocks);
    for (auto _ : state) {
        for (pobj_action& each : actions)
            if (OID_IS_NULL(pmemobj_reserve(pool.get(), &each, size_bytes, 0)))
                stop("no room for the peer of the allocator");
        pmemobj_cancel(pool.get(), actions.data(), actions.size());
    }
}

void add(Suite& suite) {
    suite.add("faults/ours", fault_ours)->UseManualTime()->Iterations(4 * kFaults);
    suite.add("faults/kernel", [](benchmark::State& state) { fault_kernel(state, false); })
        ->UseManualTime()
        ->Iterations(4 * kFaults);
    suite.add("faults/kernel, there", [](benchmark::State& state) { fault_kernel(state, true); })
        ->UseManualTime()
        ->Iterations(4 * kFaults);
    suite.compare({"demand-zero fault, durable", "faults/ours", "faults/kernel",
                   "minor fault on a tmpfs file, the page made", kFactor});
    suite.compare({"demand-zero fault, durable", "faults/ours", "faults/kernel, there",
                   "minor fault on a tmpfs file, the page there", kFactor});
    for (const auto& [name, size] : {std::pair{"faults/map 4KiB", PageSize::size_4KiB},
                                     {"faults/map 2MiB", PageSize::size_2MiB}})
        suite.add(name, [size](benchmark::State& state) { map_gib(state, size); })
            ->UseManualTime()
            ->Iterations(4);
    suite.compare({"map 1 GiB in pages of 2 MiB", "faults/map 2MiB", "faults/map 4KiB",
                   "the same in pages of 4 KiB", kFactor});
    suite.add("faults/allocate 2MiB", [](benchmark::State& state) { allocate_ours(state, 2); });
    suite.add("faults/libpmemobj 2MiB",
              [](benchmark::State& state) { allocate_libpmemobj(state, 2 * kMiB - 64); });
    suite.add("faults/allocate 4KiB", [](benchmark::State& state) { allocate_ours(state, 1); });
    suite.add("faults/libpmemobj 4KiB",
              [](benchmark::State& state) { allocate_libpmemobj(state, kPageSize - 64); });
    suite.compare({"take and give back 64 x 2 MiB", "faults/allocate 2MiB",
                   "faults/libpmemobj 2MiB", "libpmemobj, reserve and cancel", kFactor});
    suite.compare({"take and give back 64 x 4 KiB", "faults/allocate 4KiB",
                   "faults/libpmemobj 4KiB", "libpmemobj, reserve and cancel", kFactor});
}

void clean_up() { pages.reset(); }

}  // namespace

Subject faults_subject() { return {"faults", add, clean_up}; }

}  // namespace holdfast::bench
