#include "holdfast/replay.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "mmu/model_tables.hpp"
#include "mmu/touched_bytes.hpp"
#include "mmu/walk_caches.hpp"

namespace holdfast {

using mmu::ModelTables;
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

// Tables and a TLB before them.
class Subject {
  public:
    Subject() = default;
    Subject(const Subject&) = delete;
    Subject& operator=(const Subject&) = delete;
    virtual ~Subject() = default;

    virtual std::expected<Translation, Fault> translate(VirtAddr address, Protection access) = 0;
    // Maps the page of an address that faulted so, with a frame; false if that is not for us.
    virtual Result<bool> resolve(const Fault& fault) = 0;
    virtual std::uint64_t walks() const = 0;  // so far, of whatever outcome
    virtual std::uint64_t reach_bytes() = 0;
    virtual void count(PageSizeRun& run) = 0;  // hits, evictions, tables
};

// The store's own tables, behind a Tlb.
class SpaceSubject final : public Subject {
  public:
    SpaceSubject(Space space, Tlb tlb, Space frames, PageSize page_size)
        : space_(std::move(space)),
          tlb_(std::move(tlb)),
          frames_(std::move(frames)),
          page_size_(page_size) {}

    std::expected<Translation, Fault> translate(VirtAddr address, Protection access) override {
        return tlb_.translate(address, access);
    }
    Result<bool> resolve(const Fault& fault) override {
        const Range page{VirtAddr(fault.address.bits() & ~(bytes(page_size_) - 1)),
                         bytes(page_size_)};
        if (fault.kind == FaultKind::not_mapped) {
            auto mapped = space_.map_shared(page, kEverything, frames_, frame_range());
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
    std::uint64_t walks() const override { return tlb_.misses(); }
    std::uint64_t reach_bytes() override { return tlb_.reach_bytes(); }
    void count(PageSizeRun& run) override {
        const TlbCounters counters = tlb_.counters();
        run.hits = counters.hits();
        run.evictions = counters.evictions;
        run.tables = space_.info().tables;
        run.in_store = true;
    }
    // Where the space of that name has its frame.
    static constexpr Range frame_range() { return {VirtAddr(0x10'0000), kPageSize}; }

  private:
    Space space_;
    Tlb tlb_;
    Space frames_;
    PageSize page_size_;
};

class ModelSubject final : public Subject {
  public:
    ModelSubject(Levels levels, const TlbGeometries& tlb, PageSize page_size)
        : tables_(levels, page_size), cache_(tlb) {}

    std::expected<Translation, Fault> translate(VirtAddr address, Protection access) override {
        if (auto hit = cache_.find(kTag, address, access)) return *hit;
        ++walks_;
        auto found = tables_.walk(address);
        if (found) cache_.insert(kTag, address, *found);
        return found;
    }
    Result<bool> resolve(const Fault& fault) override {
        if (fault.kind != FaultKind::not_mapped) return false;
        tables_.map(fault.address, kEverything);
        return true;
    }
    std::uint64_t walks() const override { return walks_; }
    std::uint64_t reach_bytes() override { return cache_.reach_bytes(); }
    void count(PageSizeRun& run) override {
        for (const PageSize size : TranslationCache::kSizes) {
            run.hits += cache_.hits(size);
            run.evictions += cache_.evictions(size);
        }
        run.tables = tables_.tables();
    }

  private:
    static constexpr TlbTag kTag{1};
    ModelTables tables_;
    TranslationCache cache_;
    std::uint64_t walks_ = 0;
};

// Sums up what a run does to its subject.
class Runner {
  public:
    Runner(std::unique_ptr<Subject> subject, PageSize page_size, Levels levels,
           const WalkCacheSizes& walk_caches)
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

    PageSizeRun result() const {
        PageSizeRun result = run_;
        subject_->count(result);
        result.reach_bytes = subject_->reach_bytes();
        return result;
    }

  private:
    Result<void> look_up(VirtAddr address, Protection access) {
        ++run_.lookups;
        const std::uint64_t walks_before = subject_->walks();
        auto found = subject_->translate(address, access);
        if (subject_->walks() == walks_before) [[likely]]
            return {};
        if (!found) {
            // A fault that is set right counts as the one miss that it would have been.
            const auto resolved = subject_->resolve(found.error());
            if (!resolved) return std::unexpected(resolved.error());
            if (*resolved) {
                ++run_.mapped_on_demand;
                found = subject_->translate(address, access);
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

    std::unique_ptr<Subject> subject_;
    Levels levels_;
    WalkCaches walk_caches_;
    PageSizeRun run_;
};

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
    constexpr const char* kFrames = "replay-trace";
    auto tlb = Tlb::create(space, {.geometries = options.tlb});
    if (!tlb) return std::unexpected(tlb.error());
    auto frames = store.open_space(kFrames);
    if (!frames && frames.error().code == ErrorCode::not_found) {
        frames = store.create_space(kFrames);
        if (frames)
            if (auto done = frames->map(SpaceSubject::frame_range(), protection::r); !done)
                return std::unexpected(done.error());
    }
    if (!frames) return std::unexpected(frames.error());
    auto state = std::make_unique<State>(space.levels(), options);
    for (const PageSize size : {PageSize::size_4KiB, PageSize::size_2MiB}) {
        std::unique_ptr<Subject> subject;
        if (size == PageSize::size_4KiB)
            subject = std::make_unique<SpaceSubject>(space, std::move(*tlb), *frames, size);
        else
            subject = std::make_unique<ModelSubject>(space.levels(), options.tlb, size);
        state->runners.emplace_back(std::move(subject), size, space.levels(), options.walk_caches);
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
    for (const Runner& runner : state_->runners) {
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
