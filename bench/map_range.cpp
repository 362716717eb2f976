// Ranges mapped, protected and unmapped, durable when the call returns.
//
// The peer writes and flushes as many bytes with libpmem: for each page its 4 KiB, 16 bytes of
// frame metadata and an entry of 8 bytes, in one pmem_memset_persist over memory that was touched
// before; so it neither allocates nor could it be taken back. Our pool was touched before as well.
// What an unmap or protect leaves in limbo is released outside the measurement, and that is
// measured on its own.
#include <fcntl.h>
#include <fmt/format.h>
#include <libpmem.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>

#include "peers.hpp"
#include "suite.hpp"

namespace holdfast::bench {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
constexpr std::uint64_t kBytesPerPage = kPageSize + 16 + 8;
const VirtAddr kStart{0x10'0000'0000};

struct Ours {
    Ours() : store(kGiB + kGiB / 8) {
        store.touch_all_frames();
        space = store.space("space");
    }
    void clear(Range range) {
        must(space->unmap(range));
        value_of(store.store().release_limbo());
    }
    StoreFixture store;
    std::optional<Space> space;
};

// Memory of the same kind as the pool's.
struct Memory {
    Memory() {
        const int descriptor = open(file.path().c_str(), O_RDWR | O_CREAT, 0600);
        if (descriptor < 0 || ftruncate(descriptor, kSize) != 0) stop("no scratch file");
        void* const mapped =
            mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
        ::close(descriptor);
        if (mapped == MAP_FAILED) stop("no memory for the peer of map_range");
        bytes = static_cast<std::byte*>(mapped);
        pmem_memset_persist(bytes, 1, kSize);
    }
    ~Memory() { munmap(bytes, kSize); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    // Goes through all of the memory, as our allocator goes through the pool's free frames: or the
    // same 2 MiB would stay in the cache.
    std::byte* next(std::uint64_t pages) {
        const std::uint64_t size = pages * kBytesPerPage;
        if (at + size > kSize) at = 0;
        std::byte* const found = bytes + at;
        at += (size + kPageSize - 1) / kPageSize * kPageSize;
        return found;
    }

    static constexpr std::uint64_t kSize = kGiB / kPageSize * kBytesPerPage;
    ScratchFile file;
    std::uint64_t at = 0;
    std::byte* bytes = nullptr;
};

std::unique_ptr<Ours> ours;
std::unique_ptr<Memory> memory;

Ours& our_store() {
    if (!ours) ours = std::make_unique<Ours>();
    return *ours;
}

void add_size(Suite& suite, std::uint64_t pages, const char* size, int iterations) {
    const Range range{kStart, pages * kPageSize};
    const auto name = [&](const char* what) { return fmt::format("map_range/{}/{}", what, size); };
    const auto add = [&](const char* what, const Suite::Body& body) {
        suite.add(name(what), body)->UseManualTime()->Iterations(iterations);
    };
    add("map", [=](benchmark::State& state) {
        Ours& at = our_store();
        measure(
            state, [&] { must(at.space->map(range, protection::rw)); }, [&] { at.clear(range); });
    });
    add("protect", [=](benchmark::State& state) {
        Ours& at = our_store();
        must(at.space->map(range, protection::rw));
        Protection next = protection::r;
        measure(
            state, [&] { must(at.space->protect(range, next)); },
            [&] {
                next = next == protection::r ? protection::rw : protection::r;
                value_of(at.store.store().release_limbo());
            });
        at.clear(range);
    });
    add("unmap", [=](benchmark::State& state) {
        Ours& at = our_store();
        must(at.space->map(range, protection::rw));
        measure(
            state, [&] { must(at.space->unmap(range)); },
            [&] {
                value_of(at.store.store().release_limbo());
                must(at.space->map(range, protection::rw));
            });
        at.clear(range);
    });
    add("release", [=](benchmark::State& state) {
        Ours& at = our_store();
        must(at.space->map(range, protection::rw));
        must(at.space->unmap(range));
        measure(
            state, [&] { value_of(at.store.store().release_limbo()); },
            [&] {
                must(at.space->map(range, protection::rw));
                must(at.space->unmap(range));
            });
        value_of(at.store.store().release_limbo());
    });
    add("pmem", [=](benchmark::State& state) {
        if (!memory) memory = std::make_unique<Memory>();
        measure(
            state, [&] { pmem_memset_persist(memory->next(pages), 0, pages * kBytesPerPage); },
            [] {});
    });

    const char* const against = "writing + flushing as many bytes, libpmem";
    const auto compare = [&](const char* what, const char* verb, Goal goal) {
        suite.compare({fmt::format("{} {}", verb, size), name(what), name("pmem"), against, goal});
    };
    compare("map", "map", at_most(2));
    compare("protect", "protect", kNoGoal);
    compare("unmap", "unmap", kNoGoal);
    compare("release", "release what was unmapped,", kNoGoal);
}

void add(Suite& suite) {
    add_size(suite, 512, "512 pages", 64);
    add_size(suite, kGiB / kPageSize, "1 GiB", 1);
}

void clean_up() {
    ours.reset();
    memory.reset();
}

}  // namespace

Subject map_range_subject() { return {"map_range", add, clean_up}; }

}  // namespace holdfast::bench
