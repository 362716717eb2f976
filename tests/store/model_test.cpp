// Random commands over several spaces, single and in transactions, with aborts and reopens, against
// a plain model. RapidCheck shrinks a failing sequence and prints the configuration that repeats it
// (RC_PARAMS).
// ctest-timeout: 900
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <array>
#include <sstream>

#include "support/model.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;

enum class Verb : std::uint8_t {
    create,
    fork,
    snapshot,
    rollback,
    rename,
    remove,
    map,
    map_lazy,
    map_stack,
    map_shared,
    unmap,
    protect,
    write,
    begin,
    commit,
    abort,
    reopen,
    release,
    kCount
};
constexpr std::array kVerbNames = {"create", "fork",    "snapshot", "rollback",  "rename",
                                   "remove", "map",     "map_lazy", "map_stack", "map_shared",
                                   "unmap",  "protect", "write",    "begin",     "commit",
                                   "abort",  "reopen",  "release"};

// Numbers that are taken modulo what is possible, so that every sequence, and every part of one,
// can be run.
struct Command {
    Verb verb{};
    std::uint8_t space = 0, other = 0, place = 0, length = 0, protection = 0;
    std::int16_t shift = 0;
};

std::ostream& operator<<(std::ostream& out, const Command& c) {
    return out << kVerbNames[static_cast<std::size_t>(c.verb)] << "(" << +c.space << "," << +c.other
               << "," << +c.place << "," << c.shift << "," << +c.length << "," << +c.protection
               << ")";
}

}  // namespace
}  // namespace holdfast::test

template <>
struct rc::Arbitrary<holdfast::test::Command> {
    static Gen<holdfast::test::Command> arbitrary() {
        using holdfast::test::Command;
        using holdfast::test::Verb;
        const auto verb = gen::weightedElement<Verb>({{3, Verb::create},
                                                      {4, Verb::fork},
                                                      {2, Verb::snapshot},
                                                      {2, Verb::rollback},
                                                      {1, Verb::rename},
                                                      {1, Verb::remove},
                                                      {8, Verb::map},
                                                      {4, Verb::map_lazy},
                                                      {3, Verb::map_stack},
                                                      {3, Verb::map_shared},
                                                      {7, Verb::unmap},
                                                      {5, Verb::protect},
                                                      {6, Verb::write},
                                                      {4, Verb::begin},
                                                      {4, Verb::commit},
                                                      {2, Verb::abort},
                                                      {1, Verb::reopen},
                                                      {1, Verb::release}});
        return gen::build<Command>(
            gen::set(&Command::verb, verb),
            gen::set(&Command::space, gen::inRange<std::uint8_t>(0, 4)),
            gen::set(&Command::other, gen::inRange<std::uint8_t>(0, 4)),
            gen::set(&Command::place, gen::inRange<std::uint8_t>(0, 8)),
            gen::set(&Command::length, gen::inRange<std::uint8_t>(0, 10)),
            gen::set(&Command::protection, gen::inRange<std::uint8_t>(0, 16)),
            gen::set(&Command::shift, gen::inRange<std::int16_t>(-6, 600)));
    }
};

namespace holdfast::test {
namespace {

class Machine {
  public:
    Machine() : store_(pool_.create(24_MiB)) {}

    void run(const Command& command) {
        const std::array names = {"a", "b", "c", "d"};
        const std::string name = names[command.space % 4], other = names[command.other % 4];
        // Around the edges of tables, of subtrees and of the halves.
        constexpr std::array<std::uint64_t, 8> kPlaces = {0x0,
                                                          0x20'0000,
                                                          0x4000'0000,
                                                          0x7f'ffff'f000,
                                                          0x7fff'ffff'f000,
                                                          0x3f'ffe0'0000,
                                                          0xffff'8000'0000'0000,
                                                          0xffff'ffff'ffe0'0000};
        constexpr std::array<std::uint64_t, 10> kLengths = {1,   1,   2,   3,   17,
                                                            511, 512, 513, 600, 1030};
        const Range range{VirtAddr(kPlaces[command.place % 8] +
                                   static_cast<std::uint64_t>(std::int64_t{command.shift}) * 4096),
                          kLengths[command.length % 10] * 4096};
        const Protection protection(command.protection);
        switch (command.verb) {
            case Verb::begin:
                if (!transaction_) {
                    transaction_.emplace(store_->begin());
                    before_ = model_;
                }
                return;
            case Verb::commit:
                return commit();
            case Verb::abort:
                if (transaction_) abort();
                return;
            case Verb::reopen:
                if (transaction_) abort();
                store_.reset();
                store_.emplace(pool_.open());
                RC_ASSERT(agrees(*store_, model_));
                return;
            case Verb::release:
                if (!transaction_) value_of(store_->release_limbo());
                return;
            case Verb::create: {
                const auto levels = static_cast<Levels>(3 + command.protection % 3);
                Model next = model_;
                const auto expected = next.create(name, levels);
                const auto made = transaction_ ? transaction_->create_space(name, {levels})
                                               : store_->create_space(name, {levels});
                if (made && transaction_) created_.insert_or_assign(name, *made);
                return judge(made ? std::nullopt : std::optional(made.error()), expected, next);
            }
            case Verb::fork:
            case Verb::snapshot: {
                if (!model_.spaces.contains(name)) return;
                const bool snapshot = command.verb == Verb::snapshot;
                Model next = model_;
                const auto expected = next.fork(name, other, snapshot);
                const auto fork = [&](Transaction& transaction) {
                    return snapshot ? transaction.create_snapshot(open(name), other)
                                    : transaction.fork_space(open(name), other);
                };
                const auto made = transaction_ ? fork(*transaction_)
                                  : snapshot   ? store_->create_snapshot(name, other)
                                               : store_->fork_space(name, other);
                if (made && transaction_) created_.insert_or_assign(other, *made);
                return judge(made ? std::nullopt : std::optional(made.error()), expected, next);
            }
            case Verb::rollback: {
                // What this transaction has made has nothing to go back to.
                if (created_.contains(name) || !model_.spaces.contains(name) ||
                    !model_.spaces.contains(other))
                    return;
                Model next = model_;
                const auto expected = next.rollback(name, other);
                const auto outcome = transaction_ ? transaction_->rollback(open(name), open(other))
                                                  : store_->rollback(name, other);
                return judge(outcome ? std::nullopt : std::optional(outcome.error()), expected,
                             next);
            }
            case Verb::rename: {
                Model next = model_;
                const auto expected = next.rename(name, other);
                const auto outcome = transaction_ ? transaction_->rename_space(name, other)
                                                  : store_->rename_space(name, other);
                judge(outcome ? std::nullopt : std::optional(outcome.error()), expected, next);
                if (outcome && created_.contains(name)) {
                    created_.insert_or_assign(other, created_.at(name));
                    created_.erase(name);
                } else if (outcome && transaction_) {
                    created_.insert_or_assign(other, value_of(store_->open_space(renamed(name))));
                    renamed_[other] = renamed(name);
                }
                return;
            }
            case Verb::remove: {
                Model next = model_;
                const auto expected = next.remove(name);
                const auto outcome =
                    transaction_ ? transaction_->remove_space(name) : store_->remove_space(name);
                judge(outcome ? std::nullopt : std::optional(outcome.error()), expected, next);
                if (outcome) created_.erase(name);
                return;
            }
            default:
                break;
        }
        if (!model_.spaces.contains(name)) return;
        Space space = open(name);
        Model next = model_;
        std::optional<ErrorCode> expected;
        Result<void> outcome;
        switch (command.verb) {
            case Verb::map:
            case Verb::map_lazy: {
                const bool lazy = command.verb == Verb::map_lazy;
                const MapOptions options{.lazy = lazy,
                                         .name = command.other % 2 ? "named" : "",
                                         .name_offset = command.other * 4096u};
                expected = next.map(name, range, protection, lazy);
                outcome = transaction_ ? transaction_->map(space, range, protection, options)
                                       : space.map(range, protection, options);
                break;
            }
            case Verb::map_stack: {
                const std::uint64_t guard_pages = 1 + command.other;
                expected = next.map_stack(name, range, protection, guard_pages);
                const MapOptions options{.grows_down =
                                             GrowsDown{.guard_bytes = guard_pages * kPageSize}};
                outcome = transaction_ ? transaction_->map(space, range, protection, options)
                                       : space.map(range, protection, options);
                break;
            }
            case Verb::map_shared: {
                if (!model_.spaces.contains(other)) return;
                const Range source{VirtAddr(kPlaces[command.protection % 8]),
                                   std::min<std::uint64_t>(range.size_bytes, 3 * 4096)};
                expected = next.map_shared(name, range, protection, other, source);
                outcome = transaction_ ? transaction_->map_shared(space, range, protection,
                                                                  open(other), source)
                                       : space.map_shared(range, protection, open(other), source);
                break;
            }
            case Verb::unmap:
                expected = next.unmap(name, range);
                outcome = transaction_ ? transaction_->unmap(space, range) : space.unmap(range);
                break;
            case Verb::protect:
                expected = next.protect(name, range, protection);
                outcome = transaction_ ? transaction_->protect(space, range, protection)
                                       : space.protect(range, protection);
                break;
            case Verb::write: {
                if (transaction_) return;  // write is not part of transactions
                const std::uint64_t word = ++stamp_;
                expected = next.write(name, range.start, word);
                outcome = space.write(range.start, std::as_bytes(std::span(&word, 1)));
                if (outcome) must(space.persist({range.start, 8}));
                break;
            }
            default:
                break;
        }
        judge(outcome ? std::nullopt : std::optional(outcome.error()), expected, next);
        // A transaction sees its own changes, and nobody else does.
        if (transaction_ && outcome) {
            const auto page = model_.spaces.at(name).pages.find(range.start.bits() >> 12);
            const auto inside = transaction_->translate(space, range.start);
            const bool present =
                page != model_.spaces.at(name).pages.end() && page->second.frame != 0;
            RC_ASSERT(inside.has_value() == present);
            if (present) {
                const Protection permitted =
                    inside->copy_on_write ? inside->protection | protection::w : inside->protection;
                RC_ASSERT(permitted == page->second.protection);
            }
        }
    }

    void finish() {
        if (transaction_) abort();
        RC_ASSERT(agrees(*store_, model_));
        store_.reset();
        store_.emplace(pool_.open());
        RC_ASSERT(agrees(*store_, model_));
        // Unmap frees exactly once: with everything removed, every frame is free again.
        for (const auto& [name, space] : model_.spaces) must(store_->remove_space(name));
        value_of(store_->release_limbo());
        const VerifyReport report = store_->verify();
        RC_ASSERT(report.clean());
        RC_ASSERT(report.frames_free == report.frames_total);
    }

  private:
    std::string renamed(const std::string& name) const {
        const auto found = renamed_.find(name);
        return found == renamed_.end() ? name : found->second;
    }
    // Names that this transaction has made are not in the store yet.
    Space open(const std::string& name) {
        const auto made = created_.find(name);
        return made != created_.end() ? made->second : value_of(store_->open_space(name));
    }

    void judge(const std::optional<Error>& outcome, const std::optional<ErrorCode>& expected,
               const Model& next) {
        if (outcome && outcome->code == ErrorCode::no_space && !expected) {
            // The pool is small. Then nothing is changed, and a transaction is over.
            if (transaction_) abort();
            RC_ASSERT(agrees(*store_, model_));
            return;
        }
        if (outcome.has_value() != expected.has_value() || (outcome && outcome->code != *expected))
            RC_FAIL("returned " + (outcome ? outcome->message : std::string("success")) +
                    ", expected " + (expected ? to_string(*expected) : "success"));
        if (outcome) return;
        model_ = next;
        if (!transaction_ && ++calls_ % 4 == 0) RC_ASSERT(agrees(*store_, model_));
    }

    void commit() {
        if (!transaction_) return;
        const auto outcome = transaction_->commit();
        if (!outcome) {
            RC_ASSERT(outcome.error().code == ErrorCode::no_space);
            model_ = before_;
        }
        end();
        RC_ASSERT(agrees(*store_, model_));
    }
    void abort() {
        transaction_->abort();
        model_ = before_;
        end();
        RC_ASSERT(agrees(*store_, model_));
    }
    void end() {
        transaction_.reset();
        created_.clear();
        renamed_.clear();
    }

    TemporaryPool pool_;
    std::optional<Store> store_;
    Model model_, before_;
    std::optional<Transaction> transaction_;
    std::map<std::string, Space> created_;
    std::map<std::string, std::string> renamed_;
    std::uint64_t stamp_ = 0, calls_ = 0;
};

RC_GTEST_PROP(StoreModel, BehavesAsThePlainModel, (const std::vector<Command>& commands)) {
    Machine machine;
    machine.run({.verb = Verb::create, .space = 0, .protection = 1});
    for (const Command& command : commands) machine.run(command);
    machine.finish();
}

}  // namespace
}  // namespace holdfast::test
