// holdfast_bench: the benchmarks, and after them one table of ratios against the peers that were
// measured in the same run. Takes Google Benchmark's options; for a quick look at one subject:
//
//     ./dev bench --benchmark_filter=^translate/ --benchmark_repetitions=3
//     ./dev bench --benchmark_filter=counts
//
// and one of its own: --rounds=N measures everything N times, each with pools made anew; the table
// then has the medians over the rounds, of the ratios too.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "scratch_file.hpp"
#include "suite.hpp"

namespace {

using holdfast::bench::Subject;
using holdfast::bench::Suite;

// One line a benchmark: the median of its repetitions and how far they were apart.
class MedianReporter final : public benchmark::BenchmarkReporter {
  public:
    explicit MedianReporter(Suite& suite) : suite_(suite) {}

    bool ReportContext(const Context& context) override {
        if (!context_) {
            PrintBasicContext(&GetErrorStream(), context);
            fmt::print("{:<44} {:>13} {:>13} {:>13} {:>12}\n", "benchmark", "median ns", "least ns",
                       "most ns", "repetitions");
        }
        if (!context_) context_.emplace(context);
        return true;
    }

    void ReportRuns(const std::vector<Run>& runs) override {
        std::vector<double> times;
        std::string name;
        for (const Run& run : runs) {
            if (run.run_type != Run::RT_Iteration) continue;
            all_.push_back(run);
            name = run.run_name.function_name;
            if (run.error_occurred) {
                fmt::print("{:<44} failed: {}\n", name, run.error_message);
                failed_ = true;
                continue;
            }
            // A benchmark that times itself does so in CPU time, see `measure`.
            const bool times_itself = !run.run_name.time_type.empty();
            times.push_back((times_itself ? run.real_accumulated_time : run.cpu_accumulated_time) *
                            1e9 / static_cast<double>(run.iterations));
            suite_.record(name, times.back());
        }
        if (times.empty()) return;
        std::sort(times.begin(), times.end());
        fmt::print("{:<44} {:>13.1f} {:>13.1f} {:>13.1f} {:>12}\n", name, times[times.size() / 2],
                   times.front(), times.back(), times.size());
        std::fflush(stdout);
    }

    // Google Benchmark would begin the file anew with each subject.
    void write_json(const std::string& path) {
        std::ofstream file(path);
        benchmark::JSONReporter json;
        json.SetOutputStream(&file);
        json.SetErrorStream(&file);
        if (context_) json.ReportContext(*context_);
        json.ReportRuns(all_);
        json.Finalize();
    }
    bool any() const { return !all_.empty(); }
    bool failed() const { return failed_; }

  private:
    Suite& suite_;
    std::optional<Context> context_;
    std::vector<Run> all_;
    bool failed_ = false;
};

int run(int argc, char** argv) {
    constexpr std::string_view kOut = "--benchmark_out=", kRounds = "--rounds=";
    // Ours first: what the caller gives overrides it.
    std::vector<std::string> arguments = {argv[0], "--benchmark_enable_random_interleaving=true",
                                          "--benchmark_repetitions=9", "--benchmark_min_time=0.05"};
    std::string json_path;
    int rounds = 1;
    for (int i = 1; i < argc; ++i) {
        const std::string_view argument = argv[i];
        if (argument.starts_with(kOut))
            json_path = argument.substr(kOut.size());
        else if (argument.starts_with(kRounds))
            rounds = std::atoi(argv[i] + kRounds.size());
        else
            arguments.emplace_back(argument);
    }
    std::vector<char*> pointers;
    pointers.reserve(arguments.size() + 1);
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    int count = static_cast<int>(pointers.size());
    pointers.push_back(nullptr);
    benchmark::Initialize(&count, pointers.data());
    if (benchmark::ReportUnrecognizedArguments(count, pointers.data())) return 2;

    holdfast::bench::remove_scratch_files_on_signals();
    Suite suite;
    MedianReporter reporter(suite);
    const std::array subjects = {
        holdfast::bench::open_subject(),      holdfast::bench::translate_subject(),
        holdfast::bench::tlb_subject(),       holdfast::bench::map_one_subject(),
        holdfast::bench::map_range_subject(), holdfast::bench::fork_subject(),
        holdfast::bench::faults_subject(),    holdfast::bench::verify_subject()};
    const std::string filter = benchmark::GetBenchmarkFilter();
    for (int round = 0; round < rounds; ++round) {
        suite.begin_round();
        for (const Subject& subject : subjects) {
            subject.add(suite);
            if (suite.selects_any(filter)) benchmark::RunSpecifiedBenchmarks(&reporter);
            suite.forget_names();
            benchmark::ClearRegisteredBenchmarks();
            subject.clean_up();
        }
    }
    // "counts" selects what no clock measures.
    const bool counts =
        filter == "counts" || (reporter.any() && (filter.empty() || filter == "all"));
    if (counts) holdfast::bench::add_table_bytes(suite);
    suite.print();
    if (counts) holdfast::bench::print_persist_counts();
    if (!json_path.empty()) reporter.write_json(json_path);
    return reporter.failed() ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        fmt::print(stderr, "holdfast_bench: {}\n", error.what());
        return 3;
    }
}
