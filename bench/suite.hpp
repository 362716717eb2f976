// How the benchmarks are put together: subjects, which register benchmarks and say what is to be
// compared with what, and the table of ratios that is printed at the end.
//
// The subjects run one after the other, so that the pools of one are gone before the next makes its
// own; within a subject the repetitions of all benchmarks are shuffled (Google Benchmark's random
// interleaving), so that a noisy moment of the machine hits all peers alike. Every figure is the
// median of the repetitions, and CPU time of the measuring thread, the kernel's part included:
// nothing here waits for a device, and on a shared machine the time on the wall is the neighbours'.
#pragma once

#include <benchmark/benchmark.h>
#include <time.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/error.hpp"

namespace holdfast::bench {

struct Goal {
    enum class Kind {
        none,      // reported only, as measured / peer
        factor,    // reported only, as peer / measured
        at_most,   // measured / peer, or the figure itself, is to be at most `bound`
        at_least,  // peer / measured is to be at least `bound`
        below,     // measured / peer is to be below `bound`
    };
    Kind kind = Kind::none;
    double bound = 0;
};
constexpr Goal at_most(double bound) { return {Goal::Kind::at_most, bound}; }
constexpr Goal at_least(double bound) { return {Goal::Kind::at_least, bound}; }
constexpr Goal below(double bound) { return {Goal::Kind::below, bound}; }
inline constexpr Goal kNoGoal{}, kFactor{Goal::Kind::factor};

// One line of the table.
struct Comparison {
    std::string what;
    std::string measured;  // name of a benchmark
    std::string peer;      // name of a benchmark; empty for a figure that stands alone
    std::string against;   // the peer in words
    Goal goal = kNoGoal;
};

class Suite {
  public:
    using Body = std::function<void(benchmark::State&)>;
    // Registers a benchmark.
    benchmark::internal::Benchmark* add(const std::string& name, const Body& body);
    void compare(Comparison comparison);
    // A figure that no clock measures.
    void figure(const std::string& what, double value, const std::string& unit, Goal goal);

    // --- for main and the reporter ---
    // Each round measures everything anew; the table has the medians over the rounds.
    void begin_round() { rounds_.emplace_back(); }
    void record(const std::string& name, double nanoseconds) {
        rounds_.back()[name].push_back(nanoseconds);
    }
    // Whether the filter of the command line selects a benchmark of those registered since the
    // last `forget_names`.
    bool selects_any(const std::string& filter) const;
    void forget_names() { names_.clear(); }
    void print() const;

  private:
    struct Line {
        Comparison comparison;
        double value = 0;
        std::string unit = {};  // empty for a comparison
    };
    // One number a repetition, for each benchmark.
    using Round = std::map<std::string, std::vector<double>>;

    // The median over the rounds of what `of` makes of one, or nothing if no round has it.
    std::optional<double> over_rounds(
        const std::function<std::optional<double>(const Round&)>& of) const;

    std::vector<std::string> names_;
    std::vector<Line> lines_;
    std::vector<Round> rounds_;
};

struct Subject {
    const char* name;
    void (*add)(Suite& suite);
    // Releases pools and other memory.
    void (*clean_up)();
};

double median(std::vector<double> values);

// A failure of what the benchmarks build upon ends the program with its message.
[[noreturn]] void stop(const std::string& message);
template <typename T>
T value_of(Result<T> result) {
    if (!result) stop(result.error().message);
    return std::move(*result);
}
inline void must(const Result<void>& result) {
    if (!result) stop(result.error().message);
}

// Makes the compiler believe that a word is needed, in a register: a look-up is not left half done.
inline void keep(std::uint64_t word) { asm volatile("" : : "r"(word)); }

// CPU time of this thread so far.
inline double cpu_seconds() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Runs `timed` once an iteration and measures it alone; `after` runs outside the measurement. For
// benchmarks that are registered with UseManualTime().
template <typename Timed, typename After>
void measure(benchmark::State& state, const Timed& timed, const After& after) {
    for (auto _ : state) {
        const double start = cpu_seconds();
        timed();
        state.SetIterationTime(cpu_seconds() - start);
        after();
    }
}

// The subjects, each in the file of its name.
Subject open_subject();
Subject translate_subject();
Subject tlb_subject();
Subject map_one_subject();
Subject map_range_subject();
Subject fork_subject();
Subject faults_subject();
Subject verify_subject();

// What no clock measures: bytes of tables and metadata a mapped page; and, in a table of its own,
// flushes, fences and log bytes of each durable operation.
void add_table_bytes(Suite& suite);
void print_persist_counts();

}  // namespace holdfast::bench
