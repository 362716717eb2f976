#include "holdfast/replay.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <tuple>
#include <utility>

#include "mmu/touched_bytes.hpp"
#include "mmu/walk_caches.hpp"
#include "table/walk.hpp"

namespace holdfast {

using mmu::TouchedBytes;
using mmu::WalkCaches;

namespace {

constexpr Protection kEverything = protection::rwx | protection::u;

Protection access_of(AccessKind kind) {
    switch (kind) {
        case AccessKind::load:
            return protection::r;
        case AccessKind::store:
            return protection::w;
        case AccessKind::modify:
            return protection::rw;
        case AccessKind::instruction:
            return protection::x;
    }
    return {};
}

// A space's tables, behind a Tlb.
class Subject {
  public:
    Subject(Space space, Tlb tlb, unsigned device, PageSize page_size)
        : space_(std::move(space)), tlb_(std::move(tlb)), device_(device), page_size_(page_size) {}

    std::expected<Translation, Fault> translate(VirtAddr address, Protection access) {
        return tlb_.translate(address, access);
    }
    // Maps the page of an address that faulted so, with a frame; false if that is not for us.
    Result<bool> resolve(const Fault& fault) {
        const std::uint64_t size = bytes(page_size_);
        const Range page{VirtAddr(fault.address.bits() & ~(size - 1)), size};
        if (fault.kind == FaultKind::not_mapped) {
            auto mapped =
                space_.map(page, kEverything,
                           {.page_size = page_size_, .device = DeviceMapping{.region = device_}});
            if (!mapped) return std::unexpected(mapped.error());
            return true;
        }
        // The first write gives a page its frame, or one of its own.
        const bool is_first = fault.kind == FaultKind::demand_zero ||
                              fault.kind == FaultKind::stack_room ||
                              fault.kind == FaultKind::copy_on_write;
        if (!is_first || !fault.protection.writable()) return false;
        if (auto done = space_.fault(fault.address, protection::w); !done)
            return std::unexpected(done.error());
        return true;
    }
    // So far, of whatever outcome.
    std::uint64_t walks() const { return tlb_.misses(); }
    void count(PageSizeRun& run) {
        const TlbCounters counters = tlb_.counters();
        run.hits = counters.hits();
        run.evictions = counters.evictions;
        run.tables = space_.info().tables;
        run.reach_bytes = tlb_.reach_bytes();
    }

  private:
    Space space_;
    Tlb tlb_;
    unsigned device_;
    PageSize page_size_;
};

// Sums up what a run does to its subject.
class Runner {
  public:
    Runner(Subject subject, PageSize page_size, Levels levels, const WalkCacheSizes& walk_caches)
        : subject_(std::move(subject)), levels_(levels), walk_caches_(walk_caches) {
        run_.page_size = page_size;
    }

    // One look-up for each page that the access touches.
    Result<void> run(const TraceAccess& access) {
        const std::uint64_t page_mask = ~(bytes(run_.page_size) - 1);
        const Protection needed = access_of(access.kind);
        const VirtAddr last = access.address + (access.size_bytes - 1);
        if (auto done = look_up(access.address, needed); !done) return done;
        for (std::uint64_t page = access.address.bits() & page_mask;
             page != (last.bits() & page_mask);) {
            page += bytes(run_.page_size);
            if (auto done = look_up(VirtAddr(page), needed); !done) return done;
        }
        return {};
    }

    PageSizeRun result() {
        PageSizeRun result = run_;
        subject_.count(result);
        return result;
    }

  private:
    Result<void> look_up(VirtAddr address, Protection access) {
        ++run_.lookups;
        const std::uint64_t walks_before = subject_.walks();
        auto found = subject_.translate(address, access);
        if (subject_.walks() == walks_before) [[likely]]
            return {};
        if (!found) {
            // A fault that is set right counts as the one miss that it would have been.
            const auto resolved = subject_.resolve(found.error());
            if (!resolved) return std::unexpected(resolved.error());
            if (*resolved) {
                ++run_.mapped_on_demand;
                found = subject_.translate(address, access);
            }
        }
        if (!found) {
            if (found.error().is_damage())
                return fail(ErrorCode::damaged, found.error().to_string());
            ++run_.faults[found.error().kind];
            return {};
        }
        ++run_.misses;
        const unsigned leaf_level = table::level_of(found->page_size);
        run_.entries_read += static_cast<unsigned>(levels_) - leaf_level + 1;
        run_.entries_read_cached += walk_caches_.walk(address, levels_, leaf_level);
        return {};
    }

    Subject subject_;
    Levels levels_;
    WalkCaches walk_caches_;
    PageSizeRun run_;
};

// A device region of one page of 2 MiB, which all pages that the replay maps share: what is counted
// needs no contents. Its file has no name any more when this returns.
Result<unsigned> add_frames(Store& store) {
    static std::atomic<unsigned> number = 0;
    std::error_code error;
    const auto folder = std::filesystem::temp_directory_path(error);
    if (error)
        return fail(ErrorCode::not_found, "no folder for temporary files; set TMPDIR to one");
    const std::string path = folder / fmt::format("holdfast-replay-{}-{}", getpid(), number++);
    const auto added =
        store.add_device_region(path, {.size_bytes = bytes(PageSize::size_2MiB), .sparse = true});
    std::ignore = store.regions();  // which opens it
    unlink(path.c_str());
    return added;
}

Result<Space> empty_space(Store& store, const std::string& name, Levels levels) {
    if (auto removed = store.remove_space(name);
        !removed && removed.error().code != ErrorCode::not_found)
        return std::unexpected(removed.error());
    return store.create_space(name, {.levels = levels});
}

double ratio(std::uint64_t a, std::uint64_t b) {
    return b == 0 ? 0 : static_cast<double>(a) / static_cast<double>(b);
}

}  // namespace

double PageSizeRun::entries_per_walk() const { return ratio(entries_read, misses); }
double PageSizeRun::entries_per_walk_cached() const { return ratio(entries_read_cached, misses); }

class TraceReplay::State {
  public:
    State(Levels levels_in, const ReplayOptions& options_in)
        : levels(levels_in), options(options_in) {}

    Levels levels;
    ReplayOptions options;
    std::vector<Runner> runners;
    TouchedBytes touched;
    ReplayReport counts;  // of accesses only
};

TraceReplay::TraceReplay(std::unique_ptr<State> state) : state_(std::move(state)) {}
TraceReplay::TraceReplay(TraceReplay&&) noexcept = default;
TraceReplay& TraceReplay::operator=(TraceReplay&&) noexcept = default;
TraceReplay::~TraceReplay() = default;

Result<TraceReplay> TraceReplay::create(Store& store, const Space& space,
                                        const ReplayOptions& options) {
    const auto device = add_frames(store);
    if (!device) return std::unexpected(device.error());
    auto of_huge_pages = empty_space(store, "replay-trace 2MiB", space.levels());
    if (!of_huge_pages) return std::unexpected(of_huge_pages.error());
    auto state = std::make_unique<State>(space.levels(), options);
    for (const auto& [size, tables] :
         {std::pair{PageSize::size_4KiB, space}, std::pair{PageSize::size_2MiB, *of_huge_pages}}) {
        auto tlb = Tlb::create(tables, {.geometries = options.tlb});
        if (!tlb) return std::unexpected(tlb.error());
        state->runners.emplace_back(Subject(tables, std::move(*tlb), *device, size), size,
                                    space.levels(), options.walk_caches);
    }
    return TraceReplay(std::move(state));
}

Result<void> TraceReplay::run(const TraceAccess& access) {
    State& state = *state_;
    const VirtAddr last = access.address + (access.size_bytes - 1);
    for (const VirtAddr at : {access.address, last})
        if (VirtAddr::truncated(at.bits(), state.levels) != at) [[unlikely]]
            return fail(ErrorCode::invalid_argument,
                        fmt::format("{:#x} is not canonical for {} levels of tables", at.bits(),
                                    static_cast<unsigned>(state.levels)));
    const bool is_instruction = access.kind == AccessKind::instruction;
    if (is_instruction ? !state.options.instructions : !state.options.data) return {};
    switch (access.kind) {
        case AccessKind::load:
            ++state.counts.loads;
            break;
        case AccessKind::store:
            ++state.counts.stores;
            break;
        case AccessKind::modify:
            ++state.counts.modifications;
            break;
        case AccessKind::instruction:
            ++state.counts.instructions;
            break;
    }
    state.touched.add(access.address, access.size_bytes);
    for (Runner& runner : state.runners)
        if (auto done = runner.run(access); !done) return done;
    return {};
}

ReplayReport TraceReplay::report() const {
    ReplayReport report = state_->counts;
    report.touched_bytes = state_->touched.bytes();
    for (const unsigned shift : {12, 14, 16, 18, 20, 21, 25, 30})
        report.costs.push_back(state_->touched.cost(shift, state_->levels));
    for (Runner& runner : state_->runners) {
        PageSizeRun run = runner.result();
        const auto cost = std::find_if(
            report.costs.begin(), report.costs.end(),
            [&](const PageSizeCost& each) { return each.page_bytes == bytes(run.page_size); });
        run.compulsory = cost->pages;
        report.runs.push_back(std::move(run));
    }
    return report;
}

}  // namespace holdfast
