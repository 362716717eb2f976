#include "mutants/mutant_classes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "campaign/explore.hpp"
#include "mutants/ledger.hpp"
#include "mutants/lint.hpp"
#include "mutants/systematic.hpp"
#include "mutants/trace_mutation.hpp"
#include "subjects/store_workload.hpp"
#include "subjects/workloads.hpp"
#include "tracer/snapshots.hpp"

namespace holdfast::crash {

// An instance names what is planted and where: "KIND in WORKLOAD" for a bug in a trace of a store's
// workload, "KIND in ledger" for one in the ledger's, "snapshot KIND in WORKLOAD" at libpmemobj's
// boundary, and "ledger BUG" for a switch in the ledger's source.
const std::vector<MutantClass>& mutant_classes() {
    static const std::vector<MutantClass> all = {
        {1,
         "missing flush",
         {"drop_flush in map_one", "drop_flush in unmap_shared", "drop_flush in ledger"}},
        {2,
         "missing fence before the commit flag",
         {"drop_fence in map_one", "drop_fence in ledger"}},
        {3,
         "flag stored before its data is flushed",
         {"delay_flush in map_one", "delay_flush in ledger"}},
        {4, "wrong order within one line", {"swap_stores in ledger"}},
        {5,
         "flush of the wrong or too short range",
         {"shift_flush in map_one", "shorten_flush in map_range"}},
        {6,
         "store between flush and fence",
         {"store_after_flush in map_one", "store_after_flush in ledger"}},
        {7,
         "missing undo snapshot, or taken after the store",
         {"snapshot drop in long_transaction", "snapshot late in long_transaction"}},
        {8, "snapshot too small", {"snapshot shorten in long_transaction"}},
        {9, "redundant flush (lint)", {"duplicate_flush in map_one"}},
        {10, "transaction never committed", {"ledger never_committed"}},
        {11, "torn two-word update", {"ledger torn_pair"}},
        {12, "misaligned store over two lines", {"ledger misaligned_commit"}},
        {13,
         "non-temporal copy without drain",
         {"drop_fence in write_page", "cached_copy in create_space"}},
        {14, "count not atomic with its entry", {"ledger count_apart_from_bitmap"}},
        {15,
         "allocate-then-publish gap, free before unlink",
         {"drop_store in map_one", "ledger publish_before_fill", "ledger remove_before_unpublish"}},
        {16, "recovery not idempotent", {"ledger recovery_not_idempotent"}},
        {17, "inverted recovery condition", {"ledger inverted_recovery"}},
        {18, "recovery reads bytes never written", {"ledger reads_unwritten"}},
        {19, "volatile pointer in the pool", {"ledger volatile_pointer"}},
        {20, "stale generation accepted after restart", {"ledger stale_lock"}},
        {21,
         "acknowledged before durable",
         {"acknowledge_early in write_page", "acknowledge_early in ledger"}},
        {22, "crash in creation", {"acknowledge_early in create_store", "ledger creation_order"}},
        {23, "checksum not verified", {"ledger unverified_checksum"}},
        {24, "the first operation after recovery fails", {"ledger log_not_reset"}},
        {25, "log of a large transaction chains", {"drop_flush in long_transaction"}},
        {26, "right only with eADR", {"drop_all_flushes in ledger"}},
    };
    return all;
}

namespace {

// Of a systematic instance so many places at most, spread over those of the trace that are not
// redundant on sight.
constexpr std::size_t kPlacesPerInstance = 8;
constexpr std::uint32_t kSnapshotsTried = 40;

struct Instance {
    std::string what, where;  // "drop_flush", "map_one"
    bool snapshot = false;
};

Instance instance_of(const std::string& text) {
    if (text.starts_with("ledger ")) return {text.substr(7), "ledger", false};
    Instance instance;
    instance.snapshot = text.starts_with("snapshot ");
    const std::string rest = instance.snapshot ? text.substr(9) : text;
    const std::size_t in = rest.find(" in ");
    instance.what = rest.substr(0, in);
    instance.where = rest.substr(in + 4);
    return instance;
}

std::optional<TraceMutation::Kind> trace_kind_of(const std::string& name) {
    for (std::uint8_t i = 0; i < kTraceMutationKinds; ++i)
        if (name == to_string(static_cast<TraceMutation::Kind>(i)))
            return static_cast<TraceMutation::Kind>(i);
    return std::nullopt;
}

std::optional<LedgerBug> ledger_bug_of(const std::string& name) {
    for (auto bug = LedgerBug::none; bug <= LedgerBug::creation_order;
         bug = static_cast<LedgerBug>(static_cast<int>(bug) + 1))
        if (name == to_string(bug)) return bug;
    return std::nullopt;
}

// A store's workload whose run has a bug at libpmemobj's boundary.
class WithSnapshotBug final : public Subject {
  public:
    WithSnapshotBug(StoreWorkload workload, SnapshotBug bug)
        : workload_(std::move(workload)), bug_(bug) {}
    std::string name() const override { return workload_.name() + "-snapshot"; }
    Result<void> set_up(const std::string& path) override { return workload_.set_up(path); }
    Result<void> run(const std::string& path, Operations& operations) override {
        plant(bug_);
        return workload_.run(path, operations);
    }
    std::string check(const std::string& path, const Moment& moment) override {
        return workload_.check(path, moment);
    }

  private:
    StoreWorkload workload_;
    SnapshotBug bug_;
};

class MutantRunner {
  public:
    MutantRunner(const Options& options, bool first_only)
        : options_(options), first_only_(first_only) {
        options_.stop_after_violations = 1;
    }

    Result<MutantResult> run(const MutantClass& of, const std::string& text) {
        // Recovery is crashed too where it is small: of a store it multiplies the states.
        options_.depth = text.find("ledger") != std::string::npos ? 2 : 1;
        result_ = {.class_number = of.number,
                   .class_name = of.name,
                   .instance = text,
                   .modes = {},
                   .text = {}};
        const Instance instance = instance_of(text);
        Result<void> done{};
        if (instance.snapshot)
            done = plant_snapshots(instance);
        else if (const auto kind = trace_kind_of(instance.what))
            done = plant_in_trace(instance, *kind);
        else
            done = plant_in_ledger(instance);
        if (!done) return std::unexpected(done.error());
        return result_;
    }

  private:
    Result<std::unique_ptr<Subject>> subject_of(const std::string& where) {
        if (where == "ledger") return std::make_unique<Ledger>();
        auto script = find_workload(where);
        if (!script) return std::unexpected(script.error());
        return std::make_unique<StoreWorkload>(std::move(*script));
    }

    // Explores the planted run; once one is caught, the weaker modes too.
    Result<void> try_one(Subject& subject, const TracedRun& planted, const Options& options) {
        ++result_.planted;
        auto outcome = explore(subject, planted, options);
        if (!outcome) return std::unexpected(outcome.error());
        if (outcome->violations.empty()) return {};
        ++result_.caught;
        if (result_.caught > 1) return {};
        result_.states = outcome->states;
        result_.seconds = outcome->seconds;
        result_.text = outcome->violations.front().text;
        if (first_only_) return {};
        for (const Exploration mode :
             {Exploration::program_order, Exploration::flushed_only, Exploration::sampled}) {
            Options weaker = options;
            weaker.exploration = mode;
            auto seen = explore(subject, planted, weaker);
            if (!seen) return std::unexpected(seen.error());
            if (!seen->violations.empty()) result_.modes.push_back(mode);
        }
        result_.modes.push_back(Exploration::full);
        return {};
    }

    Result<void> plant_in_trace(const Instance& instance, TraceMutation::Kind kind) {
        auto subject = subject_of(instance.where);
        if (!subject) return std::unexpected(subject.error());
        auto run = trace_run(**subject, options_.seconds_per_run, {});
        if (!run) return std::unexpected(run.error());
        std::vector<TraceMutation> places = places_for(run->trace, kind);
        // Most flushes of a long transaction are of lines that are flushed again.
        std::erase_if(places, [&](const TraceMutation& place) {
            return redundant_on_sight(run->trace, place).has_value();
        });
        const std::size_t step = places.size() / kPlacesPerInstance + 1;
        for (std::size_t i = 0; i < places.size(); i += step) {
            TracedRun planted{.initial_image = run->initial_image,
                              .trace = mutated(run->trace, places[i]),
                              .fingerprint = 0};
            if (kind == TraceMutation::Kind::duplicate_flush) {
                lint_one(*run, planted);
                continue;
            }
            if (kind == TraceMutation::Kind::drop_all_flushes)
                if (auto right = right_with_eadr(**subject, planted); !right) return right;
            if (auto done = try_one(**subject, planted, options_); !done) return done;
            if (is_enough()) break;
        }
        return {};
    }

    bool is_enough() const { return first_only_ && result_.caught != 0; }

    void lint_one(const TracedRun& run, const TracedRun& planted) {
        ++result_.planted;
        const auto before = redundant_flushes(run.trace), after = redundant_flushes(planted.trace);
        if (after.size() <= before.size()) return;
        ++result_.caught;
        result_.text = "a flush of lines that nothing was stored to since they were flushed";
    }

    // What has no flushes at all must be right where caches are saved, or it tells nothing.
    Result<void> right_with_eadr(Subject& subject, const TracedRun& planted) {
        Options eadr = options_;
        eadr.platform = Platform::eadr;
        auto outcome = explore(subject, planted, eadr);
        if (!outcome) return std::unexpected(outcome.error());
        if (!outcome->violations.empty())
            return fail(ErrorCode::damaged,
                        "the program is wrong with eADR too: " + outcome->violations.front().text);
        return {};
    }

    Result<void> plant_snapshots(const Instance& instance) {
        const auto kind = instance.what == "drop"      ? SnapshotBug::Kind::drop
                          : instance.what == "shorten" ? SnapshotBug::Kind::shorten
                                                       : SnapshotBug::Kind::late;
        std::uint64_t right = 0;
        for (std::uint32_t number = 0; number <= kSnapshotsTried; ++number) {
            auto script = find_workload(instance.where);
            if (!script) return std::unexpected(script.error());
            const SnapshotBug bug{number == 0 ? SnapshotBug::Kind::none : kind, number - 1};
            WithSnapshotBug subject(StoreWorkload(std::move(*script)), bug);
            auto run = trace_run(subject, options_.seconds_per_run, {});
            if (!run) return std::unexpected(run.error());
            if (number == 0) {
                right = run->fingerprint;
                continue;
            }
            if (run->fingerprint == right) continue;  // there is no such snapshot
            if (auto done = try_one(subject, *run, options_); !done) return done;
            if (result_.planted == kPlacesPerInstance || is_enough()) break;
        }
        return {};
    }

    Result<void> plant_in_ledger(const Instance& instance) {
        const auto bug = ledger_bug_of(instance.what);
        if (!bug)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("there is no bug \"{}\"", instance.what));
        Ledger ledger(*bug, bug == LedgerBug::creation_order);
        for (const std::optional<std::uint8_t> fill :
             {std::optional<std::uint8_t>(), std::optional<std::uint8_t>(0xa5)}) {
            auto run = trace_run(ledger, options_.seconds_per_run, fill);
            if (!run) return std::unexpected(run.error());
            if (auto done = try_one(ledger, *run, options_); !done) return done;
            if (result_.caught != 0) break;
            --result_.planted;  // the same bug, seen with another fill
        }
        if (result_.caught == 0) ++result_.planted;
        return {};
    }

    Options options_;
    bool first_only_;
    MutantResult result_;
};

}  // namespace

Result<std::vector<MutantResult>> run_mutants(const MutantOptions& options) {
    std::vector<MutantResult> results;
    for (const MutantClass& each : mutant_classes()) {
        const auto& classes = options.classes;
        if (!classes.empty() &&
            std::find(classes.begin(), classes.end(), each.number) == classes.end())
            continue;
        for (const std::string& instance : each.instances) {
            auto result = MutantRunner(options.explore, options.first_only).run(each, instance);
            if (!result) return std::unexpected(result.error());
            if (options.done) options.done(*result);
            results.push_back(std::move(*result));
        }
    }
    return results;
}

}  // namespace holdfast::crash
