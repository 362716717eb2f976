// ctest-labels: noasan
//
// `crash run` and `crash trace` on a program that holdfast is not linked to
// (examples/third_party/inventory.c): right and broken, and whatever may go wrong with commands.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "tools/command.hpp"

namespace holdfast::test {
namespace {

using Words = std::vector<std::string>;

#ifdef HOLDFAST_INVENTORY
const std::string kInventory = HOLDFAST_INVENTORY;
#else
const std::string kInventory;
#endif

// Folders of the command with this process id.
bool has_folder(pid_t process) {
    for (const auto& item : std::filesystem::directory_iterator("/dev/shm"))
        if (item.path().filename().string().starts_with("holdfast-crash-" +
                                                        std::to_string(process) + "-"))
            return true;
    return false;
}

class CrashProgram : public testing::Test {
  protected:
    void SetUp() override {
        if (kInventory.empty()) GTEST_SKIP() << "built without examples";
    }

    static Words crash_run(const std::string& set_up, const std::string& run,
                           const std::string& check, Words more = {}) {
        Words words = {"crash", "run", "--jobs", "2", "--per-window", "12"};
        words.insert(words.end(), {"--setup", set_up, "--run", run, "--check", check});
        words.insert(words.end(), more.begin(), more.end());
        return words;
    }
    static std::string inventory(const std::string& words) { return kInventory + " " + words; }

    const std::string create_ = inventory("create {pool}");
    const std::string add_ = inventory("add {pool} 7 8");
    const std::string check_ = inventory("check {pool} 7 8");
};

nlohmann::json json_of(Words words, int status) {
    words.insert(words.begin(), "--json");
    const Command command = run(words);
    EXPECT_EQ(command.status, status) << command.errors << command.output;
    return command.json();
}

TEST_F(CrashProgram, TheRightOneHasNoViolations) {
    const auto outcome = json_of(crash_run(create_, add_, check_), 0);
    EXPECT_TRUE(outcome.at("violations").empty());
    EXPECT_GT(outcome.at("states"), 50);
    EXPECT_EQ(outcome.at("windows").back().at("acknowledged"), 2);
    // Coverage says why not every window was explored to its end.
    const auto& windows = outcome.at("windows");
    EXPECT_TRUE(std::any_of(windows.begin(), windows.end(), [](const auto& window) {
        return window.at("why_not").template get<std::string>().find("another process") !=
               std::string::npos;
    }));
}

TEST_F(CrashProgram, TheBrokenOneIsCaughtAndReplayed) {
    const std::string broken = inventory("add-broken {pool} 7 8");
    const auto outcome = json_of(crash_run(create_, broken, check_), 1);
    ASSERT_FALSE(outcome.at("violations").empty());
    const auto& violation = outcome.at("violations").front();
    EXPECT_NE(violation.at("text").get<std::string>().find("is torn"), std::string::npos);
    const std::string stack = violation.at("lines").dump();
    EXPECT_NE(stack.find("inventory.c"), std::string::npos) << stack;

    const Words replay = {"crash",   "replay",  violation.at("token"),
                          "--setup", create_,   "--run",
                          broken,    "--check", check_};
    const Command again = run(replay);
    EXPECT_EQ(again.status, 1) << again.errors;
    EXPECT_NE(again.output.find("is torn"), std::string::npos) << again.output;
    expect_failure({"crash", "replay", violation.at("token")}, 2, "invalid_argument",
                   "give its --setup, --run and --check");
}

TEST_F(CrashProgram, ChecksThatDieOrHangAreFindings) {
    const std::string end_of_run =
        "test \"$HOLDFAST_CRASH_ACKNOWLEDGED\" = 1 && test -e {pool} || ";
    const std::string add = inventory("add {pool} 7");
    auto words = crash_run(create_, add, end_of_run + "kill -SEGV $$");
    words.insert(words.end(), {"--states", "4"});
    auto outcome = json_of(words, 1);
    EXPECT_NE(outcome.at("violations").dump().find("signal 11"), std::string::npos);

    words = crash_run(create_, add, end_of_run + "sleep 1000");
    words.insert(words.end(), {"--states", "2", "--jobs", "1", "--seconds-per-check", "0.3"});
    words.erase(words.begin() + 2, words.begin() + 4);  // the first --jobs
    outcome = json_of(words, 1);
    EXPECT_NE(outcome.at("violations").dump().find("did not end within 0.3 s"), std::string::npos);
}

TEST_F(CrashProgram, APoolsetIsRefused) {
    expect_failure(crash_run("printf 'PMEMPOOLSET\n16M %s.part\n' {pool} > {pool}", "true {pool}",
                             "true {pool}"),
                   3, "unsupported", "let it make a pool of one file");
}

TEST_F(CrashProgram, TraceIsSummarisedPrintedAndExported) {
    const TemporaryPool trace, log, pool;
    // Two programs, one after the other.
    const auto summary =
        json_of({"crash", "trace", "--setup", create_, "--run",
                 inventory("add {pool} 7") + " && " + inventory("add {pool} 8"), "--out",
                 trace.path(), "--pmemcheck", log.path(), "--pool", pool.path()},
                0);
    EXPECT_EQ(summary.at("operations"), 2);
    EXPECT_EQ(summary.at("processes"), 2);
    EXPECT_GT(summary.at("stores"), 100);
    EXPECT_GT(summary.at("microseconds_per_store"), 0);

    const Command printed = run({"crash", "trace", "--print", trace.path()});
    EXPECT_EQ(printed.status, 0) << printed.errors;
    for (const char* words : {"begin operation 1", "acknowledge operation 1", "add (inventory.c:"})
        EXPECT_NE(printed.output.find(words), std::string::npos) << words;

    // Every store has a place in the program, also those that libraries make.
    std::istringstream lines(printed.output);
    for (std::string line; std::getline(lines, line);)
        if (line.find("  store ") != std::string::npos) {
            EXPECT_NE(line.find("(inventory.c:"), std::string::npos) << line;
        }

    std::string content;
    std::getline(std::ifstream(log.path()), content);
    EXPECT_EQ(content.find("START|"), 0u);
    EXPECT_NE(content.find("REGISTER_FILE;" + pool.path() + ";"), std::string::npos);
    EXPECT_EQ(content.substr(content.size() - 5), "|STOP");
}

TEST_F(CrashProgram, WithoutMarksTheRunIsOneOperation) {
    // No set-up either: the pool's creation is what is crashed.
    const auto summary = json_of({"crash", "trace", "--run", create_}, 0);
    EXPECT_EQ(summary.at("operations"), 1);
    EXPECT_EQ(summary.at("pool_bytes"), 8 << 20);
}

TEST_F(CrashProgram, WhatIsWrongWithCommandsIsASentence) {
    const auto fails = [](const Words& words, int status, const char* code, const char* sentence) {
        expect_failure(words, status, code, sentence);
    };
    fails(crash_run("echo so it is; exit 7; {pool}", add_, check_), 2, "invalid_argument",
          "ended with exit status 7: so it is");
    fails(crash_run("true {pool}", add_, check_), 2, "invalid_argument", "made no pool");
    fails(crash_run(create_, "sleep 1000; echo {pool}", check_, {"--seconds-per-run", "0.3"}), 3,
          "io", "did not end within 0.3 s");
    fails(crash_run(create_, "kill -SEGV $$; echo {pool}", check_), 2, "invalid_argument",
          "signal 11");
    fails(crash_run(create_, add_, "no_such_program {pool}"), 2, "invalid_argument",
          "cannot be run");
    fails(crash_run(create_, add_, inventory("check {pool} 5 6")), 2, "invalid_argument",
          "without a crash");
    fails(crash_run(create_, "true {pool}", check_), 2, "invalid_argument", "stored nothing");
    fails(crash_run(create_, inventory("add"), check_), 2, "invalid_argument", "{pool}");
    fails({"crash", "run", "--setup", create_, "--run", add_}, 2, "invalid_argument", "--check");
    fails({"crash", "trace", "--workload", "map_one", "--run", add_}, 2, "invalid_argument",
          "--workload");
}

TEST_F(CrashProgram, TracesOfOthersAreRefused) {
    const TemporaryPool trace;
    std::ofstream(trace.path()) << std::string("HFTRACE\0\x63\0\0\0", 12) << std::string(52, '\0');
    expect_failure({"crash", "trace", "--print", trace.path()}, 3, "unsupported", "version 99");
    std::ofstream(trace.path()) << "something else";
    expect_failure({"crash", "trace", "--print", trace.path()}, 2, "invalid_argument",
                   "is not a trace");
}

TEST_F(CrashProgram, AMissingPreloadIsNamed) {
    setenv("HOLDFAST_CRASH_PRELOAD", "/nowhere/preload.so", 1);
    expect_failure(crash_run(create_, add_, check_), 3, "not_found", "/nowhere/preload.so");
    unsetenv("HOLDFAST_CRASH_PRELOAD");
}

TEST_F(CrashProgram, ASignalLeavesNothingBehind) {
    const auto wait_until = [](const auto& condition) {
        for (int i = 0; i < 100 && !condition(); ++i)
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        return condition();
    };
    // In the middle of the run, where there is a folder; and of a check.
    const TemporaryPool mark;
    const std::string sleeps = "echo $$ > " + mark.path() + "; exec sleep 1000";
    const std::string is_over = "test \"$HOLDFAST_CRASH_ACKNOWLEDGED\" = 2 || { ";
    const Words in_run = crash_run(create_, sleeps + "; {pool}", check_);
    const Words in_check = crash_run(create_, add_, is_over + sleeps + "; {pool}; }");
    for (const auto& [words, signal_number] :
         {std::pair(in_run, SIGINT), std::pair(in_run, SIGTERM), std::pair(in_check, SIGINT)}) {
        std::ofstream(mark.path()).close();
        const TemporaryFile out = file_with(""), err = file_with("");
        const pid_t command =
            start_command(words, STDIN_FILENO, fileno(out.get()), fileno(err.get()));
        pid_t sleeper = 0;
        EXPECT_TRUE(wait_until([&] {
            std::ifstream(mark.path()) >> sleeper;
            return sleeper > 0;
        }));
        kill(command, signal_number);
        EXPECT_EQ(wait_for(command), 128 + signal_number);
        EXPECT_EQ(content_of(err), "holdfast: interrupted\n");
        EXPECT_FALSE(has_folder(command));
        EXPECT_TRUE(wait_until([&] { return sleeper > 0 && kill(sleeper, 0) != 0; }));
    }
}

}  // namespace
}  // namespace holdfast::test
