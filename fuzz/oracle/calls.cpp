#include "oracle/calls.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <map>
#include <optional>
#include <tuple>

#include "space/space_state.hpp"
#include "store/store_state.hpp"

namespace holdfast::oracle {

using Verb = Call::Verb;

std::string Call::to_string() const {
    constexpr std::array kNames = {"create",
                                   "create_supervisor",
                                   "create_sharing",
                                   "fork",
                                   "snapshot",
                                   "rollback",
                                   "rename",
                                   "remove",
                                   "map",
                                   "map_lazy",
                                   "map_guard",
                                   "map_huge",
                                   "lazy_huge",
                                   "promote",
                                   "map_stack",
                                   "map_shared",
                                   "unmap",
                                   "protect",
                                   "write",
                                   "write_unpersisted",
                                   "map_file",
                                   "map_file_shared",
                                   "map_device",
                                   "fault",
                                   "sync",
                                   "evict",
                                   "mark",
                                   "prefer",
                                   "grow",
                                   "release_limbo",
                                   "add_volatile",
                                   "add_device",
                                   "detach",
                                   "attach",
                                   "move",
                                   "finish_moves",
                                   "overcommit"};
    return fmt::format("{}({}, {}, {:#x}+{:#x}, {})", kNames[static_cast<std::size_t>(verb)], space,
                       other, range.start.bits(), range.size_bytes, protection.to_string());
}

Calls random_calls(Random& random, std::uint64_t word) {
    return chosen_calls([&](std::uint64_t end) { return random() % end; }, word);
}

Calls chosen_calls(const Choose& below, std::uint64_t word) {
    // Around the edges of tables and subtrees, in both halves, so that calls meet each other.
    constexpr std::array<std::uint64_t, 6> kPlaces = {0x0,
                                                      0x1f'd000,
                                                      0x3fff'e000,
                                                      0x7fff'ffc0'0000,
                                                      0xffff'8000'0000'0000,
                                                      0xffff'ffff'ffc0'0000};
    constexpr std::array<std::uint64_t, 8> kPages = {1, 1, 2, 5, 40, 512, 700, 1300};
    constexpr std::array<const char*, 3> kSpaces = {"a", "b", "c"};
    constexpr std::array<Verb, 31> kVerbs = {
        Verb::map_stack, Verb::map_stack, Verb::map_huge, Verb::map_guard, Verb::fork,
        Verb::fork,      Verb::fork,      Verb::snapshot, Verb::rollback,  Verb::create,
        Verb::create,    Verb::rename,    Verb::remove,   Verb::map,       Verb::map,
        Verb::map,       Verb::map,       Verb::map_lazy, Verb::map_lazy,  Verb::map_shared,
        Verb::unmap,     Verb::unmap,     Verb::unmap,    Verb::protect,   Verb::protect,
        Verb::protect,   Verb::write,     Verb::write,    Verb::write,     Verb::fault,
        Verb::fault};
    Calls calls;
    const std::uint64_t count = below(4) == 0 ? 2 + below(3) : 1;
    while (calls.size() < count) {
        Call call;
        call.verb = kVerbs[below(kVerbs.size())];
        // Not part of transactions, or not of those that have made the space.
        if (count > 1 &&
            (call.verb == Verb::write || call.verb == Verb::rollback || call.verb == Verb::fault))
            continue;
        call.space = kSpaces[below(kSpaces.size())];
        call.other = kSpaces[below(kSpaces.size())];
        call.range = {VirtAddr(kPlaces[below(kPlaces.size())] + below(900) * kPageSize),
                      kPages[below(kPages.size())] * kPageSize};
        if (call.verb == Verb::map_huge)
            call.range = {VirtAddr(call.range.start.bits() & ~(bytes(PageSize::size_2MiB) - 1)),
                          (1 + below(2)) * bytes(PageSize::size_2MiB)};
        call.source = {VirtAddr(kPlaces[below(kPlaces.size())]), (1 + below(3)) * kPageSize};
        call.protection = Protection(static_cast<std::uint8_t>(1 | below(16)));
        call.name = below(2) == 0 ? "" : "name";
        call.word = word;
        calls.push_back(call);
    }
    return calls;
}

namespace {

template <typename T>
Result<void> without_value(const Result<T>& result) {
    if (!result) return std::unexpected(result.error());
    return {};
}

// What its file holds is nothing to the pool: it has no name any more when this returns, and the
// next opening finds the region missing.
Result<void> add_device(Store& store, std::uint64_t size_bytes) {
    static std::atomic<unsigned> number = 0;
    const std::string path = fmt::format("/dev/shm/holdfast-device-{}-{}", getpid(), number++);
    const auto added = store.add_device_region(path, {.size_bytes = size_bytes, .sparse = true});
    std::ignore = store.regions();  // which opens it
    unlink(path.c_str());
    return without_value(added);
}

Result<void> run_on_store(Store& store, const Call& call) {
    const auto region = static_cast<unsigned>(call.word);
    switch (call.verb) {
        case Verb::grow:
            return store.grow(call.word);
        case Verb::release_limbo:
            return without_value(store.release_limbo(call.word));
        case Verb::add_volatile:
            return without_value(store.add_volatile_region(call.word, LossPolicy::zero));
        case Verb::add_device:
            return add_device(store, call.word);
        case Verb::detach:
            return store.detach_region(region);
        case Verb::attach:
            return store.replace_region(region, "");
        case Verb::move:
            return store.move_region(region);
        case Verb::overcommit:
            return set_overcommit(store, overcommit_of(call.word));
        default:
            return store.finish_moves();
    }
}

Result<void> prefer(const Space& space, unsigned region, Transaction* transaction) {
    if (transaction != nullptr) return transaction->prefer_region(space, region);
    Transaction own = Store(space.state().store).begin();
    if (auto done = own.prefer_region(space, region); !done) return done;
    return own.commit();
}

SpaceOptions options_of(const Call& call) {
    SpaceOptions options{.levels = call.levels};
    if (call.verb == Verb::create_supervisor) options.is_supervisor = true;
    if (call.verb == Verb::create_sharing) options.supervisor = call.other;
    return options;
}

// The same call through a transaction or directly.
template <typename Doer, typename OpenSpace>
Result<void> run_one(Doer& doer, const Call& call, const OpenSpace& open) {
    switch (call.verb) {
        case Verb::create:
        case Verb::create_supervisor:
        case Verb::create_sharing:
            return without_value(doer.create_space(call.space, options_of(call)));
        case Verb::rename:
            return doer.rename_space(call.space, call.other);
        case Verb::remove:
            return doer.remove_space(call.space);
        default:
            break;
    }
    if constexpr (std::is_same_v<Doer, Store>)
        if (call.is_of_store()) return run_on_store(doer, call);
    if constexpr (std::is_same_v<Doer, Store>) {
        if (call.verb == Verb::fork) return without_value(doer.fork_space(call.space, call.other));
        if (call.verb == Verb::snapshot)
            return without_value(doer.create_snapshot(call.space, call.other));
        if (call.verb == Verb::rollback) return doer.rollback(call.space, call.other);
    }
    auto space = open(call.space);
    if (!space) return std::unexpected(space.error());
    if (call.verb == Verb::write || call.verb == Verb::write_unpersisted) {
        // Only ever outside transactions.
        auto done = space->write(call.range.start, std::as_bytes(std::span(&call.word, 1)));
        if (!done || call.verb == Verb::write_unpersisted) return done;
        return space->persist({call.range.start, sizeof call.word});
    }
    // Of these the same is true.
    if (call.verb == Verb::fault) return space->fault(call.range.start, protection::r);
    if (call.verb == Verb::sync) return space->sync(call.range);
    if (call.verb == Verb::mark) return without_value(space->handle(call.range));
    if (call.verb == Verb::evict) return without_value(space->evict(call.word * kPageSize));
    if (call.verb == Verb::promote) return without_value(space->promote(call.range));
    const bool huge = call.verb == Verb::map_huge || call.verb == Verb::lazy_huge;
    Transaction* transaction = nullptr;
    if constexpr (std::is_same_v<Doer, Transaction>) transaction = &doer;
    MapOptions options{.lazy = call.verb == Verb::map_lazy || call.verb == Verb::lazy_huge,
                       .guard = call.verb == Verb::map_guard,
                       .page_size = huge ? PageSize::size_2MiB : PageSize::size_4KiB,
                       .name = call.name};
    const bool is_file = call.verb == Verb::map_file || call.verb == Verb::map_file_shared;
    if (is_file) {
        options.name.clear();
        options.file = FileMapping{.path = path_of_model_file(call.name),
                                   .offset = call.word * kPageSize,
                                   .shared = call.verb == Verb::map_file_shared};
    }
    if (call.verb == Verb::map_device) {
        DeviceMapping device{.offset = call.word * kPageSize};
        for (const RegionInfo& region : Store(space->state().store).regions())
            if (region.kind == RegionKind::device) device.region = region.index;
        options.device = device;
    }
    if (call.verb == Verb::map_stack)
        options.grows_down = GrowsDown{.guard_bytes = kStackGuardPages * kPageSize};
    switch (call.verb) {
        case Verb::map:
        case Verb::map_lazy:
        case Verb::map_guard:
        case Verb::map_huge:
        case Verb::lazy_huge:
        case Verb::map_file:
        case Verb::map_file_shared:
        case Verb::map_device:
        case Verb::map_stack:
            return transaction != nullptr
                       ? transaction->map(*space, call.range, call.protection, options)
                       : space->map(call.range, call.protection, options);
        case Verb::map_shared: {
            auto source = open(call.other);
            if (!source) return std::unexpected(source.error());
            return transaction != nullptr
                       ? transaction->map_shared(*space, call.range, call.protection, *source,
                                                 call.source, options)
                       : space->map_shared(call.range, call.protection, *source, call.source,
                                           options);
        }
        case Verb::prefer:
            return prefer(*space, static_cast<unsigned>(call.word), transaction);
        case Verb::unmap:
            return transaction != nullptr ? transaction->unmap(*space, call.range)
                                          : space->unmap(call.range);
        default:
            return transaction != nullptr
                       ? transaction->protect(*space, call.range, call.protection)
                       : space->protect(call.range, call.protection);
    }
}

}  // namespace

Result<void> run(Store& store, const Calls& calls) {
    if (calls.size() == 1)
        return run_one(store, calls.front(),
                       [&](const std::string& name) { return store.open_space(name); });
    Transaction transaction = store.begin();
    // Names that the transaction itself has made or moved are not in the store yet.
    std::map<std::string, std::optional<Space>> own;
    const auto open = [&](const std::string& name) -> Result<Space> {
        const auto found = own.find(name);
        if (found == own.end()) return store.open_space(name);
        if (found->second) return *found->second;
        return fail(ErrorCode::not_found, "removed in this transaction");
    };
    for (const Call& call : calls) {
        if (call.verb <= Verb::create_sharing) {
            auto made = transaction.create_space(call.space, options_of(call));
            if (!made) return std::unexpected(made.error());
            own[call.space] = *made;
            continue;
        }
        if (call.verb == Verb::fork || call.verb == Verb::snapshot) {
            auto source = open(call.space);
            if (!source) return std::unexpected(source.error());
            auto made = call.verb == Verb::fork ? transaction.fork_space(*source, call.other)
                                                : transaction.create_snapshot(*source, call.other);
            if (!made) return std::unexpected(made.error());
            own[call.other] = *made;
            continue;
        }
        if (call.verb == Verb::rollback) {
            auto changed = open(call.space), source = open(call.other);
            for (const auto& each : {changed, source})
                if (!each) return std::unexpected(each.error());
            if (auto done = transaction.rollback(*changed, *source); !done) return done;
            continue;
        }
        std::optional<Space> moved;
        if (call.verb == Verb::rename)
            if (auto space = open(call.space)) moved = *space;
        if (auto done = run_one(transaction, call, open); !done) return done;
        if (call.verb == Verb::rename) {
            own[call.space] = std::nullopt;
            own[call.other] = moved;
        }
        if (call.verb == Verb::remove) own[call.space] = std::nullopt;
    }
    return transaction.commit();
}

namespace {

std::optional<ErrorCode> run_one(Model& model, const Call& call) {
    if (call.verb == Verb::overcommit) model.overcommit = overcommit_of(call.word);
    if (call.is_of_store()) return std::nullopt;
    const bool names_only = call.verb <= Verb::remove;
    if (!names_only && !model.spaces.contains(call.space)) return ErrorCode::not_found;
    switch (call.verb) {
        case Verb::create:
            return model.create(call.space, call.levels);
        case Verb::create_supervisor:
            return model.create_supervisor(call.space, call.levels);
        case Verb::create_sharing:
            return model.create_sharing(call.space, call.levels, call.other);
        case Verb::fork:
        case Verb::snapshot:
            return model.fork(call.space, call.other, call.verb == Verb::snapshot);
        case Verb::rollback:
            return model.rollback(call.space, call.other);
        case Verb::rename:
            return model.rename(call.space, call.other);
        case Verb::remove:
            return model.remove(call.space);
        case Verb::map:
        case Verb::map_lazy:
            return model.map(call.space, call.range, call.protection, call.verb == Verb::map_lazy);
        case Verb::map_guard:
            return model.map_guard(call.space, call.range);
        case Verb::map_huge:
        case Verb::lazy_huge:
            return model.map_huge(call.space, call.range, call.protection,
                                  call.verb == Verb::lazy_huge);
        case Verb::promote:
            return model.promote(call.space, call.range);
        case Verb::evict:
            return model.evict(call.space);
        case Verb::map_stack:
            return model.map_stack(call.space, call.range, call.protection, kStackGuardPages);
        case Verb::map_shared:
            if (!model.spaces.contains(call.other)) return ErrorCode::not_found;
            return model.map_shared(call.space, call.range, call.protection, call.other,
                                    call.source);
        case Verb::unmap:
            return model.unmap(call.space, call.range);
        case Verb::protect:
            return model.protect(call.space, call.range, call.protection);
        case Verb::write:
        case Verb::write_unpersisted:
            return model.write(call.space, call.range.start, call.word,
                               call.verb == Verb::write_unpersisted);
        case Verb::map_file:
        case Verb::map_file_shared:
            return model.map_file(call.space, call.range, call.protection, {call.name, call.word},
                                  call.verb == Verb::map_file_shared);
        case Verb::map_device:
            return model.map_device(call.space, call.range, call.protection, call.word);
        case Verb::fault:
            return model.load(call.space, call.range.start);
        case Verb::sync:
            return model.sync(call.space, call.range);
        default:
            return std::nullopt;  // a mark or a wish changes no page
    }
}

}  // namespace

std::optional<ErrorCode> run(Model& model, const Calls& calls) {
    if (calls.size() == 1) return run_one(model, calls.front());
    Model next = model;
    for (const Call& call : calls)
        if (const auto error = run_one(next, call)) return error;
    model = std::move(next);
    return std::nullopt;
}

std::vector<Model> states_during(const Model& before, const Calls& calls) {
    std::vector<Model> states = {before};
    Model after = before;
    run(after, calls);
    const Call& first = calls.front();
    const auto space = before.spaces.find(first.space);
    const bool writes = first.verb == Verb::write || first.verb == Verb::write_unpersisted;
    if (calls.size() == 1 && writes && space != before.spaces.end()) {
        const auto pages = before.pages_of(space->second);
        const auto page = pages.find(first.range.start.bits() >> 12);
        if (page != pages.end() && page->second.frame == 0) {
            Model between = before;
            between.load(first.space, first.range.start);
            states.push_back(std::move(between));
        }
    }
    states.push_back(std::move(after));
    return states;
}

std::vector<Model> states_after_crash(const std::vector<Model>& states) {
    std::vector<Model> all;
    for (const Model& state : states) {
        std::vector<Model> left = {state};
        for (const auto& [frame, word] : state.unpersisted) {
            const std::size_t count = left.size();
            for (std::size_t i = 0; i < count; ++i) {
                left.push_back(left[i]);
                left.back().contents[frame] = word;
            }
        }
        // What such a state has, it has durably. As it was meant to be comes last.
        for (auto each = left.rbegin(); each != left.rend(); ++each) {
            each->unpersisted.clear();
            all.push_back(std::move(*each));
        }
    }
    return all;
}

}  // namespace holdfast::oracle
