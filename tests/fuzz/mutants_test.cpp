// ctest-labels: noasan
// ctest-timeout: 600
//
// The harness is judged by planted bugs: of each class something must be caught, and the programs
// without bugs must give no report.
#include "mutants/mutant_classes.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <thread>

#include "mutants/ledger.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::crash {

static void PrintTo(const MutantClass& mutant, std::ostream* out) { *out << mutant.name; }

namespace {

using test::value_of;

class Mutant : public testing::TestWithParam<MutantClass> {};

TEST_P(Mutant, IsCaught) {
    const auto results = value_of(run_mutants(
        {.classes = {GetParam().number},
         .explore = {.states_per_window = 200, .jobs = std::thread::hardware_concurrency()},
         .first_only = true}));
    ASSERT_EQ(results.size(), GetParam().instances.size());
    for (const MutantResult& result : results) {
        EXPECT_GT(result.planted, 0U) << result.instance;
        EXPECT_GT(result.caught, 0U) << result.instance;
    }
}

INSTANTIATE_TEST_SUITE_P(Class, Mutant, testing::ValuesIn(mutant_classes()),
                         [](const testing::TestParamInfo<MutantClass>& test_case) {
                             return fmt::format("{:02}", test_case.param.number);
                         });

TEST(UnmutatedLedger, GivesNoReport) {
    for (const bool creation : {false, true})
        for (const std::optional<std::uint8_t> fill :
             {std::optional<std::uint8_t>(), std::optional<std::uint8_t>(0xa5)}) {
            Ledger ledger(LedgerBug::none, creation);
            const Outcome outcome = value_of(run(ledger, {.fill = fill, .jobs = 2}));
            for (const Violation& violation : outcome.violations)
                ADD_FAILURE() << violation.text << "\n  " << violation.token;
            EXPECT_GT(outcome.nested_states, 50U);
            for (const Coverage& window : outcome.windows) EXPECT_TRUE(window.exhaustive);
        }
}

TEST(Finding, IsReplayedByItsToken) {
    Ledger ledger(LedgerBug::torn_pair);
    const Outcome found = value_of(run(ledger, {.jobs = 2, .depth = 1}));
    ASSERT_FALSE(found.violations.empty());
    const Violation& violation = found.violations.front();
    const Outcome again = value_of(replay(ledger, violation.token, {}));
    ASSERT_EQ(again.violations.size(), 1U);
    EXPECT_EQ(again.violations.front().text, violation.text);
}

TEST(Finding, NamesTheFewestLinesAndTheirStores) {
    Ledger ledger(LedgerBug::publish_before_fill);
    const Outcome found = value_of(run(ledger, {.jobs = 2, .depth = 1}));
    ASSERT_FALSE(found.violations.empty());
    const Violation& violation = found.violations.front();
    // The bit is there and its record is not: that record's line is lost, and nothing else.
    ASSERT_LE(violation.lines.size(), 1U);
    if (!violation.lines.empty()) {
        EXPECT_FALSE(violation.lines.front().store.empty());
        EXPECT_FALSE(violation.lines.front().stack.empty());
    }
}

TEST(Finding, InRecoveryIsReplayedToo) {
    Ledger ledger(LedgerBug::recovery_not_idempotent);
    const Outcome found = value_of(run(ledger, {.jobs = 2}));
    ASSERT_FALSE(found.violations.empty());
    for (const Violation& violation : found.violations) {
        EXPECT_EQ(violation.depth, 2U);
        const Outcome again = value_of(replay(ledger, violation.token, {}));
        ASSERT_EQ(again.violations.size(), 1U) << violation.token;
        EXPECT_EQ(again.violations.front().text, violation.text);
    }
}

TEST(Token, OfAnotherBuildOrSubjectIsRefused) {
    Ledger ledger(LedgerBug::torn_pair), other(LedgerBug::stale_lock);
    const Outcome found = value_of(run(ledger, {.jobs = 2, .depth = 1}));
    std::string token = found.violations.front().token;
    const auto of_another = replay(other, token, {});
    ASSERT_FALSE(of_another);
    EXPECT_NE(of_another.error().message.find("not of ledger-stale_lock"), std::string::npos);
    const std::size_t fingerprint = token.find(':', 4) + 1;
    token[fingerprint] = token[fingerprint] == '1' ? '2' : '1';
    const auto of_another_build = replay(ledger, token, {});
    ASSERT_FALSE(of_another_build);
    EXPECT_NE(of_another_build.error().message.find("another build"), std::string::npos);
    EXPECT_FALSE(replay(ledger, "hf1:nonsense", {}));
}

// A subject whose check does what no check should.
class BadCheck final : public Subject {
  public:
    enum class Way : std::uint8_t { crashes, is_killed, exits, hangs, throws };
    explicit BadCheck(Way way) : way_(way) {}
    std::string name() const override { return "bad-check"; }
    Result<void> set_up(const std::string& path) override { return ledger_.set_up(path); }
    Result<void> run(const std::string& path, Operations& operations) override {
        return ledger_.run(path, operations);
    }
    std::string check(const std::string& path, const Moment& moment) override {
        // Only where the second operation is in flight.
        if (moment.acknowledged == 1 && moment.in_flight) {
            if (way_ == Way::crashes) std::abort();
            if (way_ == Way::is_killed) raise(SIGKILL);
            if (way_ == Way::exits) _exit(SIGALRM);  // which is no signal, and no hang
            if (way_ == Way::throws) throw std::runtime_error("thrown");
            for (;;) std::this_thread::yield();
        }
        return ledger_.check(path, moment);
    }

  private:
    Ledger ledger_;
    Way way_;
};

TEST(BadCheck, ThatCrashesHangsOrThrowsIsAFindingAndNotTheEnd) {
    using Kind = Violation::Kind;
    struct Case {
        BadCheck::Way way;
        Kind kind;
        const char* text;
    };
    for (const auto& [way, kind, text] :
         {Case{BadCheck::Way::crashes, Kind::died, "signal 6"},
          Case{BadCheck::Way::is_killed, Kind::died, "signal 9"},
          Case{BadCheck::Way::exits, Kind::died, "exit status 14"},
          Case{BadCheck::Way::hangs, Kind::hung, "did not end within"},
          Case{BadCheck::Way::throws, Kind::wrong, "thrown"}}) {
        BadCheck subject(way);
        const Outcome outcome = value_of(run(subject, {.states_per_window = 5,
                                                       .jobs = 2,
                                                       .depth = 1,
                                                       .seconds_per_check = 0.5,
                                                       .stop_after_violations = 1000}));
        ASSERT_FALSE(outcome.violations.empty());
        for (const Violation& violation : outcome.violations) {
            EXPECT_NE(violation.text.find(text), std::string::npos) << violation.text;
            EXPECT_EQ(violation.kind, kind) << violation.text;
            // A state that ends its process is replayed as any other, until the window is given up.
            if (violation.token.empty()) continue;
            const Outcome again =
                value_of(replay(subject, violation.token, {.seconds_per_check = 0.5}));
            ASSERT_EQ(again.violations.size(), 1U);
            EXPECT_FALSE(again.violations.front().text.empty());
            EXPECT_EQ(again.violations.front().kind, kind);
        }
        EXPECT_FALSE(outcome.violations.front().token.empty());
        EXPECT_TRUE(outcome.complete) << "the windows of the other operations were explored";
    }
}

}  // namespace
}  // namespace holdfast::crash
