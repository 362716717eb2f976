#include "subjects/store_workload.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <span>

#include "oracle/compare.hpp"
#include "oracle/model_file_system.hpp"
#include "store/repair.hpp"
#include "store/store_state.hpp"
#include "subjects/lean_pool.hpp"

namespace holdfast::crash {
namespace {

using oracle::Call;
using oracle::Calls;
using Verb = Call::Verb;

constexpr OpenOptions kOpen{.emulation = PmemEmulation::on};

Result<void> run_calls(Store& store, const Step& step) {
    const auto done = oracle::run(store, step.calls);
    const std::string first = step.calls.front().to_string();
    if (step.finds_full && (done || done.error().code != ErrorCode::no_space))
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} should find the store full, but {}", first,
                                done ? "there is room" : "says " + done.error().message));
    if (!step.finds_full && !done)
        return fail(done.error().code, fmt::format("{}: {}", first, done.error().message));
    return {};
}

// In place, and not on a copy first: the harness sees what is read and written of the file itself.
Result<RepairReport> repair(const std::string& path) {
    return detail::repair_at_once(path, {.emulation = PmemEmulation::on, .threads = 1}, false);
}

Result<void> run_steps(std::optional<Store>& store, const std::string& path,
                       const std::vector<Step>& steps, Operations* operations) {
    for (const Step& step : steps) {
        if (operations != nullptr) operations->begin();
        if (step.reopens()) store.reset();
        if (!store && !step.repairs) {
            auto opened = Store::open(path, kOpen);
            if (!opened) return std::unexpected(opened.error());
            store = std::move(*opened);
        }
        if (step.damage) {
            auto planted = step.damage->plant(*store);
            store.reset();
            if (!planted) return planted;
        } else if (step.repairs) {
            store.reset();
            auto repaired = repair(path);
            if (!repaired) return std::unexpected(repaired.error());
        } else if (step.reopens()) {
            // It is open again.
        } else if (auto done = run_calls(*store, step); !done) {
            return done;
        }
        if (operations != nullptr) operations->acknowledge();
    }
    return {};
}

// `after` is called after each, and after each step of a sync, with the number of the step that has
// begun then.
void run_steps(oracle::Model& model, const std::vector<Step>& steps,
               const std::function<void(std::size_t)>& after) {
    for (std::size_t i = 0; i < steps.size(); ++i) {
        const Step& step = steps[i];
        const bool syncs = step.calls.size() == 1 && step.calls.front().verb == Verb::sync;
        if (syncs)
            model.sync(step.calls.front().space, step.calls.front().range, [&] { after(i); });
        else if (!step.calls.empty() && !step.finds_full)
            oracle::run(model, step.calls);
        if (step.damage) step.damage->apply(model);
        after(i + 1);
    }
}

// Calls that any store should be able to do, whatever happened to it; with spaces that are there.
std::vector<Calls> next_calls(const oracle::Model& model) {
    const std::string fresh = "after the crash";
    const auto call = [](Verb verb, const std::string& space, std::uint64_t address,
                         std::uint64_t pages, std::uint8_t protection, std::uint64_t word = 0) {
        Call made;
        made.verb = verb;
        made.space = space;
        made.range = {VirtAddr(address), pages * kPageSize};
        made.protection = Protection(protection);
        made.word = word;
        return Calls{made};
    };
    std::vector<Calls> calls = {
        call(Verb::create, fresh, 0, 0, 0),
        call(Verb::map, fresh, 0x7000'0000, 3, 3),
        call(Verb::write, fresh, 0x7000'1000, 1, 0, 0x0123'4567'89ab'cdef),
        call(Verb::unmap, fresh, 0x7000'0000, 1, 0),
    };
    for (const auto& [name, space] : model.spaces) {
        // A page in a table that exists, if one has room, and one elsewhere.
        if (!space.pages.empty()) {
            const std::uint64_t page = space.pages.begin()->first ^ 0x1f;
            if (!space.pages.contains(page)) {
                calls.push_back(call(Verb::map, name, page << 12, 1, 3));
                calls.push_back(call(Verb::write, name, page << 12, 1, 0, 77));
                calls.push_back(call(Verb::unmap, name, page << 12, 1, 0));
            }
            // Files: a page that is not loaded yet, and all that is to be synced.
            for (const auto& [number, each] : space.pages)
                if (each.frame == 0 && !each.file.name.empty()) {
                    calls.push_back(call(Verb::fault, name, number << 12, 1, 0));
                    break;
                }
            if (!model.files.empty())
                calls.push_back(call(Verb::sync, name, space.pages.begin()->first << 12,
                                     space.pages.rbegin()->first - space.pages.begin()->first + 1,
                                     0));
            calls.push_back(call(Verb::protect, name, space.pages.rbegin()->first << 12, 1, 1));
        }
    }
    return calls;
}

}  // namespace

// How often a process has begun to change the store, at least: each raises the boot epoch, and that
// is durable before anything else is changed. And how many regions were added.
class LeastCount {
  public:
    void reopen() { changed_ = false; }
    void count(const Step& step) {
        if (step.calls.empty()) return reopen();
        const bool changes =
            !step.finds_full &&
            std::any_of(step.calls.begin(), step.calls.end(), [](const Call& call) {
                return call.verb != Verb::write && call.verb != Verb::write_unpersisted &&
                       call.verb != Verb::fault && call.verb != Verb::sync &&
                       call.verb != Verb::grow && call.verb != Verb::release_limbo;
            });
        if (changes && !changed_) ++least_.epochs;
        changed_ = changed_ || changes;
        least_.regions += static_cast<std::uint64_t>(
            std::count_if(step.calls.begin(), step.calls.end(), [](const Call& call) {
                return call.verb == Verb::grow || call.verb == Verb::add_volatile ||
                       call.verb == Verb::add_device;
            }));
    }
    const StoreWorkload::Least& value() const { return least_; }

  private:
    StoreWorkload::Least least_;
    bool changed_ = false;
};

namespace {

std::string joined(const std::vector<std::string>& lines) {
    return fmt::format("{}", fmt::join(lines, "; "));
}

// Which of the models the store is, and if none, how it differs from the one that is nearest.
const oracle::Model* find_equal(const Store& store, const std::vector<oracle::Model>& models,
                                std::string* difference) {
    std::size_t fewest = ~std::size_t{0};
    for (std::size_t i = models.size(); i-- > 0;) {
        const std::vector<std::string> differences = oracle::compare(store, models[i]);
        if (differences.empty()) return &models[i];
        if (differences.size() >= fewest) continue;
        fewest = differences.size();
        *difference = fmt::format("neither before nor after; from {}: {}",
                                  i + 1 == models.size() ? "after"
                                  : i == 0               ? "before"
                                                         : "in between",
                                  joined(differences));
        if (models.size() == 1) *difference = "not what was acknowledged: " + joined(differences);
    }
    return nullptr;
}

}  // namespace

StoreWorkload::StoreWorkload(Script script)
    : script_(std::move(script)), files_(std::make_shared<oracle::ModelFileSystem>()) {
    oracle::Model model = script_.first_model();
    run_steps(model, script_.set_up, [](std::size_t) {});
    LeastCount least;
    for (const Step& step : script_.set_up) least.count(step);
    if (!script_.crashes_creation) least.reopen();
    const auto add = [&](std::size_t step) {
        models_.push_back(model);
        step_of_.push_back(step);
        least_.push_back(least.value());
    };
    add(0);
    // Creating the store is an operation, if it is crashed.
    if (script_.crashes_creation) add(0);
    run_steps(model, script_.operations, [&](std::size_t step) {
        if (step_of_.back() != step) least.count(script_.operations[step - 1]);
        add(step);
    });
}

void StoreWorkload::put_files(const Moment& moment, bool power_failed) const {
    if (script_.files.empty()) return;
    files_->install();
    files_->set(models_.at(moment.acknowledged).files, power_failed);
    files_->on_step = {};
}

Result<Store> StoreWorkload::create(const std::string& path) const {
    return Store::create(path, {.size_bytes = script_.pool_bytes,
                                .emulation = PmemEmulation::on,
                                .frames_bytes = script_.frames_bytes});
}

Result<void> StoreWorkload::set_up(const std::string& path) {
    if (!script_.files.empty()) {
        files_->install();
        files_->set(script_.first_model().files);
    }
    if (script_.crashes_creation) return {};
    {
        auto created = create(path);
        if (!created) return std::unexpected(created.error());
        std::optional<Store> store = std::move(*created);
        if (auto done = run_steps(store, path, script_.set_up, nullptr); !done) return done;
    }
    return script_.lanes == 0 ? Result<void>{} : make_lean(path, script_.lanes);
}

Result<void> StoreWorkload::run(const std::string& path, Operations& operations) {
    std::optional<Store> store;
    put_files({});
    // What is done to a file is seen outside, as the end of a call is.
    files_->on_step = [&] {
        operations.acknowledge();
        operations.begin();
    };
    struct Until {
        oracle::ModelFileSystem& files;
        ~Until() { files.on_step = {}; }
    } const until{*files_};
    if (script_.crashes_creation) {
        operations.begin();
        auto created = create(path);
        if (!created) return std::unexpected(created.error());
        store = std::move(*created);
        operations.acknowledge();
    } else if (script_.operations.empty() || !script_.operations.front().repairs) {
        auto opened = Store::open(path, kOpen);
        if (!opened) return std::unexpected(opened.error());
        store = std::move(*opened);
    }
    return run_steps(store, path, script_.operations, &operations);
}

std::vector<oracle::Model> StoreWorkload::allowed_at(const Moment& moment) const {
    const oracle::Model& before = models_.at(moment.acknowledged);
    const bool creating = script_.crashes_creation && moment.acknowledged == 0;
    std::vector<oracle::Model> states = {before};
    if (moment.in_flight && !creating) {
        const Step& step = script_.operations[step_of_.at(moment.acknowledged)];
        // A sync changes no space.
        if (!step.calls.empty() && !step.finds_full && step.calls.front().verb != Verb::sync)
            states = oracle::states_during(before, step.calls);
    }
    return oracle::states_after_crash(states);
}

std::optional<bool> StoreWorkload::is_after(const Store& store, const Moment& moment) const {
    const std::vector<oracle::Model> allowed = allowed_at(moment);
    std::string wrong;
    put_files(moment);
    const oracle::Model* const found = find_equal(store, allowed, &wrong);
    if (found == nullptr) return std::nullopt;
    return found == &allowed.back();
}

// The same states, with the files as they are if what was written and not synced is lost.
std::string StoreWorkload::check_unsynced(const std::string& path, const Moment& moment) const {
    for (const auto& [name, file] : models_.at(moment.acknowledged).files) {
        if (file.durable == file.now) continue;
        put_files(moment, true);
        const auto store = Store::open(path, kOpen);
        if (!store) return "cannot be opened: " + store.error().message;
        std::string wrong;
        if (find_equal(*store, allowed_at(moment), &wrong) == nullptr)
            return "without what was not synced: " + wrong;
        break;
    }
    return {};
}

std::string StoreWorkload::check(const std::string& path, const Moment& moment) {
    if (std::string wrong = check_unsynced(path, moment); !wrong.empty()) return wrong;
    put_files(moment);
    if (script_.repairs()) {
        // Whatever the interrupted repair had done: another one ends well, and a third has nothing
        // left to do.
        if (auto repaired = repair(path); !repaired)
            return "cannot be repaired: " + repaired.error().message;
        const auto again = repair(path);
        if (!again) return "cannot be repaired again: " + again.error().message;
        if (!again->repaired.empty())
            return "a repair has left something: " + again->repaired.front().detail;
    }
    auto store = Store::open(path, kOpen);
    const bool creating = script_.crashes_creation && moment.acknowledged == 0;
    if (!store) {
        // A store whose making was interrupted is refused; that is all it may be.
        if (creating && store.error().code != ErrorCode::io) return {};
        return "cannot be opened: " + store.error().message;
    }
    const std::vector<oracle::Model> allowed = allowed_at(moment);
    std::string wrong;
    const oracle::Model* const found = find_equal(*store, allowed, &wrong);
    if (found == nullptr) return wrong;
    if (const auto broken = oracle::broken_invariants(*store); !broken.empty())
        return joined(broken);
    // What a process has changed is there, so must be that it was another one.
    const Least& least = least_.at(moment.acknowledged);
    std::uint64_t least_epoch = least.epochs;
    const auto befores = std::span(allowed).first(
        std::size_t{1} << models_.at(moment.acknowledged).unpersisted.size());
    if (std::ranges::none_of(befores, [&](const oracle::Model& before) {
            return found == &before || oracle::compare(*store, before).empty();
        }))
        least_epoch = least_.at(moment.acknowledged + 1).epochs;
    if (const std::uint64_t epoch = store->state().boot_epoch(); epoch < least_epoch)
        return fmt::format("the boot epoch is {}, but what is there was changed in epoch {}", epoch,
                           least_epoch);
    if (const std::size_t regions = store->regions().size(); !creating && regions < least.regions)
        return fmt::format("there are {} regions, and {} were there when a call was acknowledged",
                           regions, least.regions);

    oracle::Model model = *found;
    for (const Calls& calls : next_calls(model)) {
        const auto expected = oracle::run(model, calls);
        const auto done = oracle::run(*store, calls);
        if (done.has_value() == !expected.has_value() &&
            (done.has_value() || done.error().code == *expected))
            continue;
        return fmt::format("does not go on: {} should {}, but {}", calls.front().to_string(),
                           expected ? fmt::format("say {}", to_string(*expected)) : "succeed",
                           done ? "succeeds" : "says " + done.error().message);
    }
    if (auto released = store->release_limbo(); !released)
        return "does not release limbo: " + released.error().message;
    // As often as one likes, however far an interrupted one had come.
    if (script_.moves())
        if (auto finished = store->finish_moves(); !finished)
            return "does not finish moves: " + finished.error().message;
    if (const auto differences = oracle::compare(*store, model); !differences.empty())
        return "after going on: " + joined(differences);
    for (const auto& [name, file] : model.files)
        if (files_->content(name).words != file.now.words)
            return fmt::format("after going on, the file {} does not have what was synced", name);
    VerifyReport report;
    if (const auto broken = oracle::broken_invariants(*store, &report); !broken.empty())
        return "after going on: " + joined(broken);
    if (report.frames_building != 0 || report.frames_limbo != 0)
        return fmt::format("after going on, {} frames stay reserved and {} in limbo",
                           report.frames_building, report.frames_limbo);
    return {};
}

Result<void> StoreWorkload::recover(const std::string& path) {
    // Which moment it was is not known here; recovery looks into no file.
    if (script_.repairs()) {
        auto repaired = repair(path);
        if (!repaired) return std::unexpected(repaired.error());
        return {};
    }
    auto store = Store::open(path, kOpen);
    // What a crash of the creation has left may be refused: nothing to recover then.
    if (!store) return {};
    if (auto released = store->release_limbo(); !released) return std::unexpected(released.error());
    if (script_.moves()) return store->finish_moves();
    return {};
}

}  // namespace holdfast::crash
