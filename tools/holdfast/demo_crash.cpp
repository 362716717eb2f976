// Chapter 2: the writer is killed in the middle of transactions, and nothing is torn or lost.
//
// Three processes: `demo` kills and judges, `demo-writer` changes the spaces and says so through a
// pipe, `demo-check` opens the pool afterwards, as new as a process can be.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <random>
#include <sstream>
#include <thread>

#include "arguments.hpp"
#include "demo.hpp"
#include "demo_child.hpp"
#include "demo_workload.hpp"
#include "output.hpp"
#include "quantity.hpp"

namespace holdfast::tool::demo {
namespace {

using Clock = std::chrono::steady_clock;

struct Spaces {
    Store store;
    Space program;
    Space ledger;
};

Result<Spaces> open_spaces(const std::string& pool) {
    const auto store = Store::open(pool, {.emulation = PmemEmulation::on});
    if (!store) return std::unexpected(store.error());
    const auto program = store->open_space(kProgramSpace);
    if (!program) return std::unexpected(program.error());
    const auto ledger = store->open_space(kLedgerSpace);
    if (!ledger) return std::unexpected(ledger.error());
    return Spaces{*store, *program, *ledger};
}

// The number of the last transaction; 0 before the first.
Result<std::uint64_t> last_transaction(const Space& ledger) {
    std::uint64_t number = 0;
    if (auto found = ledger.translate(Workload::kLedgerPage);
        !found && found.error().kind == FaultKind::not_mapped)
        return number;
    if (auto copied =
            ledger.read(Workload::kLedgerPage, std::as_writable_bytes(std::span(&number, 1)));
        !copied)
        return std::unexpected(copied.error());
    return number;
}

// What the writer says: a transaction begins, a transaction was acknowledged. Eight bytes, which a
// pipe never tears.
struct Report {
    std::uint64_t word = 0;

    static constexpr Report begun(std::uint64_t transaction) { return {transaction << 1}; }
    static constexpr Report acknowledged(std::uint64_t transaction) {
        return {transaction << 1 | 1};
    }
    constexpr std::uint64_t transaction() const { return word >> 1; }
    constexpr bool is_acknowledgement() const { return word & 1; }
};

void say(Report report) { write_output(std::as_bytes(std::span(&report, 1))); }

// --- demo-writer ---

struct WriterArguments {
    std::string pool;
    std::uint64_t seed = 0;
};

Outcome write_forever(const Context&, const WriterArguments& arguments) {
    auto spaces = open_spaces(arguments.pool);
    if (!spaces) return std::unexpected(spaces.error());
    const auto last = last_transaction(spaces->ledger);
    if (!last) return std::unexpected(last.error());
    Workload workload(arguments.seed);
    while (workload.transaction() < *last) workload.advance();
    for (;;) {
        say(Report::begun(workload.transaction() + 1));
        Transaction change = spaces->store.begin();
        if (auto done = workload.advance(change, spaces->program, spaces->ledger); !done)
            return std::unexpected(done.error());
        if (auto done = change.commit(); !done) return std::unexpected(done.error());
        say(Report::acknowledged(workload.transaction()));
    }
}

// --- demo-check ---

struct CheckArguments {
    std::string pool;
    std::uint64_t seed = 0;
    std::uint64_t acknowledged = 0;
    std::uint64_t begun = 0;
    std::uint64_t fingerprint = 0;
};

Result<void> check_state(const Spaces& spaces, std::uint64_t found,
                         const CheckArguments& arguments) {
    if (found < arguments.acknowledged || found > arguments.begun)
        return fail(ErrorCode::damaged,
                    fmt::format("transaction {} is there; {} was acknowledged and {} begun", found,
                                arguments.acknowledged, arguments.begun));
    Workload workload(arguments.seed);
    while (workload.transaction() < found) workload.advance();
    if (auto same = workload.compare(spaces.program, spaces.ledger); !same) return same;
    const auto now = fingerprint(spaces.program);
    if (!now) return std::unexpected(now.error());
    if (*now != arguments.fingerprint)
        return fail(ErrorCode::damaged, "the imported program is not what it was");
    const VerifyReport report = spaces.store.verify();
    if (report.clean()) return {};
    const Finding& finding = report.findings.front();
    return fail(ErrorCode::damaged,
                fmt::format("verify has {} findings, the first: {}: {}", report.findings.size(),
                            finding.what, finding.detail));
}

// Answers with the transaction found and the nanoseconds from before open to after the first read.
Outcome check(const Context&, const CheckArguments& arguments) {
    const Clock::time_point begin = Clock::now();
    const auto spaces = open_spaces(arguments.pool);
    if (!spaces) return std::unexpected(spaces.error());
    const auto found = last_transaction(spaces->ledger);
    const auto elapsed = std::chrono::nanoseconds(Clock::now() - begin);
    if (!found) return std::unexpected(found.error());
    if (auto fine = check_state(*spaces, *found, arguments); !fine)
        return std::unexpected(fine.error());
    print("{} {}\n", *found, elapsed.count());
    return ExitStatus::well;
}

// --- demo ---

struct Killed {
    std::uint64_t begun = 0;
    std::uint64_t acknowledged = 0;
};

// Takes in what the writer says; false when it says no more.
bool listen(Child& writer, Clock::time_point deadline, Killed& state) {
    std::array<Report, 512> reports{};
    bool ended = false;
    // A read may end within a report.
    for (std::size_t filled = 0; !ended;) {
        const auto bytes = std::as_writable_bytes(std::span(reports));
        const std::size_t got = writer.read_until(deadline, bytes.subspan(filled), ended);
        if (got == 0) break;
        filled += got;
        if (filled % sizeof(Report) != 0) continue;
        for (std::size_t i = 0; i < filled / sizeof(Report); ++i)
            (reports[i].is_acknowledgement() ? state.acknowledged : state.begun) =
                reports[i].transaction();
        return true;
    }
    return false;
}

// Lets a writer work for some time after its first report, and kills it.
Result<Killed> kill_a_writer(const std::string& pool, std::uint64_t seed, Clock::duration time,
                             Killed state) {
    auto writer = Child::start_self({"demo-writer", pool, fmt::format("{}", seed)});
    if (!writer) return std::unexpected(writer.error());
    const auto patience = std::chrono::seconds(10);
    const bool works = listen(*writer, Clock::now() + patience, state);
    // Not by waiting for its reports: that would bind the moment to the ends of transactions.
    if (works) std::this_thread::sleep_for(time);
    if (!writer->kill() || !works)
        return fail(ErrorCode::io,
                    "the writer did not work until it was killed; if it said why, "
                    "that stands above");
    while (listen(*writer, Clock::now() + patience, state)) {
    }
    return state;
}

struct Checked {
    std::uint64_t transaction = 0;
    double open_seconds = 0;
};

Result<Checked> check_in_new_process(const std::string& pool, std::uint64_t seed, Killed killed,
                                     std::uint64_t fingerprint) {
    auto checker = Child::start_self(
        {"demo-check", pool, fmt::format("{}", seed), fmt::format("{}", killed.acknowledged),
         fmt::format("{}", killed.begun), fmt::format("{}", fingerprint)});
    if (!checker) return std::unexpected(checker.error());
    const auto answer = checker->finish();
    if (!answer) return std::unexpected(answer.error());
    Checked checked;
    std::istringstream words(*answer);
    words >> checked.transaction >> checked.open_seconds;
    checked.open_seconds /= 1e9;
    return checked;
}

struct Tally {
    std::uint64_t acknowledged = 0;
    unsigned in_flight = 0;  // killed between begin and acknowledgement
    unsigned as_before = 0;  // of these: the last acknowledged state was found
    unsigned as_after = 0;   // of these: the one in flight was found, whole
    std::vector<double> open_seconds;
};

void print_tally(const Tally& tally, std::uint64_t seed) {
    auto times = tally.open_seconds;
    std::sort(times.begin(), times.end());
    const std::size_t rounds = times.size();
    print("   {} transactions acknowledged, {} SIGKILLs, {} of them inside a transaction\n",
          format_count(tally.acknowledged), rounds, tally.in_flight);
    print(
        "   found in a new process: {} x the state before that transaction, {} x after it,\n"
        "   never a mix, nothing acknowledged lost; verify clean {} times of {};\n"
        "   the imported program unchanged, byte for byte, {} times of {}\n",
        tally.as_before, tally.as_after, rounds, rounds, rounds, rounds);
    print("   open to first read of the killed pool: median {}, slowest {}\n",
          format_duration(times[rounds / 2]), format_duration(times.back()));
    print(
        "   (`holdfast demo --seed {}` repeats the transactions; the moments stay the "
        "scheduler's)\n",
        seed);
}

Result<void> make_ledger(const std::string& pool) {
    auto store = Store::open(pool, {.emulation = PmemEmulation::on});
    if (!store) return std::unexpected(store.error());
    const auto ledger = store->create_space(kLedgerSpace);
    if (!ledger) return std::unexpected(ledger.error());
    return {};
}

}  // namespace

Outcome kill_writers(const std::string& pool, std::uint64_t fingerprint, std::uint64_t seed,
                     unsigned rounds) {
    print("\n2. Its writer is killed in the middle of transactions, {} times\n", rounds);
    if (rounds == 0) return ExitStatus::well;
    if (auto made = make_ledger(pool); !made) return std::unexpected(made.error());
    std::mt19937_64 random(seed);
    std::uniform_int_distribution<std::uint64_t> moment_us(0, 50'000);
    Tally tally;
    Killed state;
    for (unsigned round = 1; round <= rounds; ++round) {
        const auto killed =
            kill_a_writer(pool, seed, std::chrono::microseconds(moment_us(random)), state);
        if (!killed) return std::unexpected(killed.error());
        tally.acknowledged += killed->acknowledged - state.acknowledged;
        const auto checked = check_in_new_process(pool, seed, *killed, fingerprint);
        if (!checked) {
            print(
                "   round {} of {}, seed {}: FAILED after {} acknowledged transactions, {} "
                "begun\n",
                round, rounds, seed, killed->acknowledged, killed->begun);
            complain(checked.error().message);
            return ExitStatus::findings;
        }
        if (killed->begun > killed->acknowledged) {
            ++tally.in_flight;
            ++(checked->transaction == killed->acknowledged ? tally.as_before : tally.as_after);
        }
        tally.open_seconds.push_back(checked->open_seconds);
        state = {.begun = checked->transaction, .acknowledged = checked->transaction};
    }
    print_tally(tally, seed);
    return ExitStatus::well;
}

void add_crash_commands(CLI::App& app, Context& context) {
    constexpr const char* kHidden = "";
    add_command<WriterArguments>(
        app, context, "demo-writer", "",
        [](CLI::App& command, WriterArguments& arguments) {
            add_pool(command, arguments.pool);
            command.add_option("SEED", arguments.seed)->required();
        },
        write_forever)
        ->group(kHidden);
    add_command<CheckArguments>(
        app, context, "demo-check", "",
        [](CLI::App& command, CheckArguments& arguments) {
            add_pool(command, arguments.pool);
            command.add_option("SEED", arguments.seed)->required();
            command.add_option("ACKNOWLEDGED", arguments.acknowledged)->required();
            command.add_option("BEGUN", arguments.begun)->required();
            command.add_option("FINGERPRINT", arguments.fingerprint)->required();
        },
        check)
        ->group(kHidden);
}

}  // namespace holdfast::tool::demo
