// replay-trace: figures of traces that are known, of traces that valgrind makes, and what it
// refuses.
#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tools/command.hpp"

namespace holdfast::test {
namespace {

constexpr std::uint64_t kStart = 0x30'0000'0000;

std::string sweep(std::uint64_t pages, const char* kind = " L") {
    std::string text = "==1== Lackey, an example Valgrind tool\n";
    for (std::uint64_t i = 0; i < pages; ++i)
        text += fmt::format("{} {:08x},8\n", kind, kStart + i * 4096);
    return text;
}

std::string content(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
}

class ReplayCommand : public CommandTest {
  protected:
    ~ReplayCommand() override { std::filesystem::remove(trace_path()); }
    std::string trace_path() const { return path() + "-trace"; }
    void write_trace(const std::string& text) const {
        std::ofstream(trace_path(), std::ios::binary) << text;
    }
    // Runs the program under lackey; what it said, apart from the trace, is dropped.
    bool make_trace(const std::string& options, const std::string& program) const {
        return std::system(("valgrind --tool=lackey --trace-mem=yes " + options +
                            " --log-file=" + trace_path() + " " + program + " >/dev/null 2>&1")
                               .c_str()) == 0;
    }
    static bool has_valgrind() { return std::system("valgrind --version >/dev/null 2>&1") == 0; }
};

TEST_F(ReplayCommand, ASweepOfStandardInput) {
    const auto report = json({"replay-trace", "--new", "-"}, sweep(1024));
    EXPECT_EQ(report.at("trace").at("loads"), 1024);
    EXPECT_EQ(report.at("trace").at("accesses"), 1024);
    EXPECT_EQ(report.at("trace").at("skipped_lines"), 1);
    EXPECT_EQ(report.at("touched_bytes"), 1024 * 8);
    const auto &small = report.at("runs").at(0), &large = report.at("runs").at(1);
    EXPECT_EQ(small.at("page_size"), 4096);
    EXPECT_EQ(small.at("misses"), 1024);
    EXPECT_EQ(small.at("compulsory_misses"), 1024);
    EXPECT_EQ(small.at("miss_ratio"), 1.0);
    EXPECT_EQ(small.at("reach_bytes"), 1024 * 4096);
    EXPECT_EQ(small.at("walk").at("entries_per_walk"), 4.0);
    EXPECT_EQ(small.at("walk").at("entries_read_with_caches"), 1024 + 3 + 1);
    EXPECT_EQ(small.at("tables"), 5);
    EXPECT_EQ(large.at("page_size"), 2 << 20);
    EXPECT_EQ(large.at("misses"), 2);
    EXPECT_EQ(large.at("hits"), 1022);
    EXPECT_EQ(large.at("tables"), 3);

    std::vector<std::uint64_t> sizes;
    for (const auto& cost : report.at("page_sizes")) sizes.push_back(cost.at("page_size"));
    EXPECT_EQ(sizes.front(), 4096u);
    EXPECT_EQ(sizes.back(), 1u << 30);
    const auto& first = report.at("page_sizes").at(0);
    EXPECT_EQ(first.at("wasted_bytes"), 1024 * 4088);
    EXPECT_EQ(first.at("table_bytes"), 5 * 4096);
    EXPECT_EQ(first.at("metadata_bytes"), 16 * (1024 + 5));
    EXPECT_EQ(first.at("on_x86"), true);
    EXPECT_EQ(report.at("page_sizes").at(1).at("on_x86"), false);

    const std::string text = well({"replay-trace", "--new", "-"}, sweep(1024));
    EXPECT_NE(text.find("1 024 loads"), std::string::npos) << text;
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm"))
        EXPECT_EQ(entry.path().string().find("holdfast-replay"), std::string::npos);
}

TEST_F(ReplayCommand, ItsOptions) {
    write_trace(sweep(64) + sweep(64, "I "));
    const auto report =
        json({"replay-trace", "--new", trace_path(), "--tlb", "4KiB=32x32,2MiB=0x1",
              "--replacement", "fifo", "--walk-caches", "0,0", "--accesses", "data"});
    EXPECT_EQ(report.at("trace").at("instructions"), 0);
    EXPECT_EQ(report.at("tlb").at("4KiB").at("entries"), 32);
    EXPECT_EQ(report.at("tlb").at("4KiB").at("ways"), 32);
    EXPECT_EQ(report.at("tlb").at("replacement"), "fifo");
    EXPECT_EQ(report.at("walk_caches"), (std::vector<int>{0, 0, 4, 4}));
    EXPECT_EQ(report.at("runs").at(0).at("evictions"), 32);
    EXPECT_EQ(report.at("runs").at(1).at("misses"), 64);
    // Level 4 alone is cached: a walk reads the three below it.
    EXPECT_EQ(report.at("runs").at(0).at("walk").at("entries_read_with_caches"), 4 + 63 * 3);
    const auto both = json({"replay-trace", "--new", trace_path(), "--levels", "5"});
    EXPECT_EQ(both.at("runs").at(0).at("hits"), 64);
    EXPECT_EQ(both.at("runs").at(0).at("walk").at("entries_per_walk"), 5.0);
}

TEST_F(ReplayCommand, ThroughASpaceAsItIsWhichKeepsEveryByte) {
    create_space();
    well({"map", path(), "editor", fmt::format("{:#x}", kStart), "16KiB", "--prot", "r"});
    const std::string before = content(path());
    write_trace(sweep(8) + sweep(2, " S"));
    const auto report = json({"replay-trace", path(), "editor", trace_path()});
    EXPECT_EQ(report.at("runs").at(0).at("mapped_on_demand"), 4);
    EXPECT_EQ(report.at("runs").at(0).at("misses"), 8);
    EXPECT_EQ(report.at("runs").at(0).at("faults").at("protection"), 2);
    const auto fresh = json({"replay-trace", path(), "--new", trace_path()});
    EXPECT_EQ(fresh.at("runs").at(0).at("mapped_on_demand"), 8);
    EXPECT_TRUE(fresh.at("runs").at(0).at("faults").empty());
    EXPECT_EQ(content(path()), before);
}

TEST_F(ReplayCommand, WhatItRefuses) {
    create_space();
    write_trace(" L 04,4\nhello\n");
    fails({"replay-trace", "--new", trace_path()}, 2, "invalid_argument",
          "line 2: \"hello\" is no access");
    write_trace(" L 8000000000000000,4\n");
    fails({"replay-trace", "--new", trace_path()}, 2, "invalid_argument",
          "line 1: 0x8000000000000000 is not canonical");
    write_trace("");
    EXPECT_EQ(json({"replay-trace", "--new", trace_path()}).at("trace").at("accesses"), 0);
    fails({"replay-trace", path(), "nobody", trace_path()}, 3, "not_found", "nobody");
    fails({"replay-trace", "--new", "/no/such/trace"}, 3, "not_found", "/no/such/trace");
    fails({"replay-trace", path() + "-none", "editor", trace_path()}, 3, "not_found", "-none");
    fails({"replay-trace", trace_path()}, 2, "invalid_argument", "--new");
    fails({"replay-trace", "--new", "a", "b", "c"}, 2, "invalid_argument", "--new");
    for (const char* tlb : {"64", "4KiB=64", "4KiB=64x", "8KiB=64x4", "4KiB=65x4", "4KiB=0x1", ""})
        fails({"replay-trace", "--new", trace_path(), "--tlb", tlb}, 2, "invalid_argument",
              "--tlb");
    fails({"replay-trace", "--new", trace_path(), "--replacement", "best"}, 2, "invalid_argument",
          "lru, fifo or random");
    fails({"replay-trace", "--new", trace_path(), "--walk-caches", "1,2,3,4,5"}, 2,
          "invalid_argument", "--walk-caches");
    std::string sparse;
    for (std::uint64_t i = 0; i < 20'000; ++i) sparse += fmt::format(" L {:x},8\n", i << 21);
    write_trace(sparse);
    fails({"replay-trace", "--new", trace_path(), "--pool-size", "16MiB"}, 3, "no_space",
          "--pool-size");
}

TEST_F(ReplayCommand, ARealTraceOfAProgramWithKnownAccesses) {
    if (!has_valgrind()) GTEST_SKIP() << "valgrind is not installed";
    constexpr int kPages = 1500, kRounds = 3;
    ASSERT_TRUE(make_trace("", fmt::format("{} {} {}", HOLDFAST_PAGE_SWEEP, kPages, kRounds)));
    // The loop alone: nothing else of the program lies there.
    std::string loop;
    std::istringstream lines(content(trace_path()));
    for (std::string line; std::getline(lines, line);)
        if (line.starts_with(" L 30") && line.size() == std::string(" L 3000000000,8").size())
            loop += line + "\n";
    const auto once = json({"replay-trace", "--new", "-", "--tlb", "4KiB=2048x4"}, loop);
    EXPECT_EQ(once.at("trace").at("loads"), kPages * kRounds);
    EXPECT_EQ(once.at("runs").at(0).at("misses"), kPages);
    EXPECT_EQ(once.at("runs").at(0).at("compulsory_misses"), kPages);
    EXPECT_EQ(once.at("runs").at(1).at("misses"), (kPages + 511) / 512);
    EXPECT_EQ(once.at("touched_bytes"), kPages * 8);
    const auto never = json({"replay-trace", "--new", "-", "--tlb", "4KiB=64x64"}, loop);
    EXPECT_EQ(never.at("runs").at(0).at("misses"), kPages * kRounds);

    // The program as a whole: loader, library and all.
    const auto whole = json({"replay-trace", "--new", trace_path()});
    EXPECT_GE(whole.at("runs").at(0).at("compulsory_misses"), kPages);
    EXPECT_GT(whole.at("trace").at("instructions"), kPages * kRounds);
    EXPECT_EQ(whole.at("runs").at(0).at("tables"), whole.at("page_sizes").at(0).at("tables"));
    EXPECT_LT(whole.at("runs").at(1).at("misses"), whole.at("runs").at(0).at("misses"));
}

TEST_F(ReplayCommand, ARealTraceHasAsManyAccessesAsLackeyCounts) {
    if (!has_valgrind()) GTEST_SKIP() << "valgrind is not installed";
    ASSERT_TRUE(make_trace("--basic-counts=yes", "/bin/true"));
    const auto report = json({"replay-trace", "--new", trace_path()});
    // "==7==   guest instrs:        128,822"
    std::uint64_t counted = 0;
    std::istringstream lines(content(trace_path()));
    for (std::string line; std::getline(lines, line);)
        if (const auto at = line.find("guest instrs:"); at != std::string::npos)
            for (const char letter : line.substr(at))
                if (letter >= '0' && letter <= '9')
                    counted = 10 * counted + static_cast<std::uint64_t>(letter - '0');
    EXPECT_GT(counted, 10'000u);
    EXPECT_EQ(report.at("trace").at("instructions"), counted);
    const auto& run = report.at("runs").at(0);
    EXPECT_EQ(run.at("lookups"),
              run.at("hits").get<std::uint64_t>() + run.at("misses").get<std::uint64_t>());
    EXPECT_TRUE(run.at("faults").empty());
    EXPECT_LT(run.at("miss_ratio"), 0.01);
}

}  // namespace
}  // namespace holdfast::test
