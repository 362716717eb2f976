// ctest-labels: noasan
//
// What becomes of a finding, with a bug planted in a workload's calls: a token that replays it, a
// shorter workload with a token of its own, and a soak that stops.
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include "tools/command.hpp"

namespace holdfast::test {
namespace {

namespace fs = std::filesystem;

class Folder {
  public:
    Folder()
        : path_(fs::path(testing::TempDir()) / ("holdfast-finding-" + std::to_string(getpid()))) {
        fs::create_directories(path_);
        before_ = fs::current_path();
        fs::current_path(path_);
    }
    ~Folder() {
        fs::current_path(before_);
        fs::remove_all(path_);
    }

  private:
    fs::path path_, before_;
};

std::string token_of(const nlohmann::json& result) {
    return result["violations"].at(0)["token"].get<std::string>();
}

TEST(Finding, IsReplayedAndShortened) {
    const Folder folder;
    std::ofstream("long.txt") << "create a\nmap a 0x40000000 6 rw\nmap a 0x50000000 3 rw\n"
                                 "create b\nmap b 0x40000000 2 rw\noperations\n"
                                 "map b 0x41000000 3 rw\nwrite a 0x50000000 7\n"
                                 "protect a 0x40001000 2 r\nmap a 0x60000000 1 rw\n";
    const std::string plant = "drop_flush:protect";
    const Command found = run({"--json", "crash", "run", "--workload", "long.txt", "--plant", plant,
                               "--per-window", "50", "--depth", "1"});
    ASSERT_EQ(found.status, 1) << found.output << found.errors;
    const std::string token = token_of(found.json());

    const Command again = run({"--json", "crash", "replay", token, "--plant", plant});
    ASSERT_EQ(again.status, 1) << again.output << again.errors;
    EXPECT_EQ(again.json()["violations"].at(0)["text"], found.json()["violations"].at(0)["text"]);
    // Without the bug that state cannot come about, or is right.
    EXPECT_NE(run({"crash", "replay", token}).status, 1);

    const Command shrunk =
        run({"--json", "crash", "shrink", token, "--plant", plant, "--out", "short.txt"});
    ASSERT_EQ(shrunk.status, 1) << shrunk.output << shrunk.errors;
    std::ifstream file("short.txt");
    std::stringstream text;
    text << file.rdbuf();
    // Only that call fails, and it needs its space and pages.
    const std::string shortest = text.str();
    EXPECT_NE(shortest.find("operations\nprotect a 0x40001000 2 r\n"), std::string::npos)
        << shortest;
    EXPECT_EQ(shortest.find("create b"), std::string::npos) << shortest;
    EXPECT_EQ(shortest.find("write"), std::string::npos) << shortest;
    const nlohmann::json result = shrunk.json()["result"];
    EXPECT_LE(result["violations"].at(0)["lines"].size(), 2U);

    const Command last = run({"--json", "crash", "replay", token_of(result), "--plant", plant});
    ASSERT_EQ(last.status, 1) << last.output << last.errors;
    EXPECT_EQ(last.json()["violations"].at(0)["text"], result["violations"].at(0)["text"]);
}

TEST(Finding, IsNoneWithoutABug) {
    const Folder folder;
    std::ofstream("short.txt") << "create a\noperations\nmap a 0x40000000 1 rw\n";
    const Command found = run({"--json", "crash", "run", "--workload", "short.txt", "--plant",
                               "drop_fence:unmap", "--per-window", "5", "--depth", "1"});
    EXPECT_EQ(found.status, 0) << "nothing is unmapped: " << found.output;
    EXPECT_EQ(run({"crash", "run", "--plant", "nonsense"}).status, 2);
    EXPECT_EQ(
        run({"crash", "run", "--run", "true", "--check", "true", "--plant", "drop_fence"}).status,
        2);
}

TEST(Soak, StopsAtAFindingWithItsToken) {
    const auto soak = [](const std::string& environment) {
        const std::string command =
            "cd " HOLDFAST_SOURCE_FOLDER
            " && HOLDFAST_SKIP_SETUP=1 HOLDFAST_SEED=6 HOLDFAST_COMMAND=" HOLDFAST_COMMAND " " +
            environment + " ./dev soak 3 --depth 1 --per-window 30 2>&1; echo \"status $?\"";
        std::string output;
        FILE* const pipe = popen(command.c_str(), "r");
        char part[4096];
        for (std::size_t size; (size = fread(part, 1, sizeof part, pipe)) != 0;)
            output.append(part, size);
        pclose(pipe);
        return output;
    };
    const std::string stopped = soak("HOLDFAST_CRASH_PLANT=drop_flush");
    EXPECT_NE(stopped.find("status 1"), std::string::npos) << stopped;
    EXPECT_NE(stopped.find("mix-6 failed after 0 workloads"), std::string::npos) << stopped;
    EXPECT_NE(stopped.find("HOLDFAST_SEED=6"), std::string::npos) << stopped;
    EXPECT_TRUE(std::regex_search(stopped, std::regex("hf1:mix-6:[^ ]+"))) << stopped;

    const std::string well = soak("");
    EXPECT_NE(well.find("status 0"), std::string::npos) << well;
    EXPECT_NE(well.find("no violation"), std::string::npos) << well;
}

}  // namespace
}  // namespace holdfast::test
