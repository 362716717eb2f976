// ctest-labels: noasan
//
// The demo tells its story, and leaves nothing behind. Its child is traced, where LeakSanitizer
// cannot run.
#include <signal.h>

#include <filesystem>
#include <fstream>

#include "tools/command.hpp"

namespace holdfast::test {
namespace {

// Pools of the demo with this process id.
bool has_pools(pid_t demo) {
    for (const auto& item : std::filesystem::directory_iterator("/dev/shm"))
        if (item.path().filename().string().starts_with("holdfast-demo-" + std::to_string(demo)))
            return true;
    return false;
}

std::vector<pid_t> children_of(pid_t parent) {
    const std::string pid = std::to_string(parent);
    std::ifstream file("/proc/" + pid + "/task/" + pid + "/children");
    std::vector<pid_t> children;
    for (pid_t child; file >> child;) children.push_back(child);
    return children;
}

// The writer that the demo runs at this moment, or 0.
pid_t writer_of(pid_t demo) {
    for (const pid_t child : children_of(demo)) {
        std::string line;
        std::getline(std::ifstream("/proc/" + std::to_string(child) + "/cmdline"), line);
        if (line.find("demo-writer") != std::string::npos) return child;
    }
    return 0;
}

TEST(Demo, TellsItsStory) {
    const TemporaryFile out = file_with(""), err = file_with("");
    const pid_t demo = start_command({"demo", "--rounds", "4", "--seed", "7"}, STDIN_FILENO,
                                     fileno(out.get()), fileno(err.get()));
    EXPECT_EQ(wait_for(demo), 0);
    EXPECT_EQ(content_of(err), "");
    const std::string story = content_of(out);
    for (const char* words :
         {"1. A running program moves in", "60000 records", "2. Its writer is killed", "4 SIGKILLs",
          "verify clean 4 times of 4", "--seed 7", "3. Opening against rebuilding", "1 000 000",
          "4. Every crash, not a lucky few", "; 0 wrong", "Caught after"})
        EXPECT_NE(story.find(words), std::string::npos) << words << " is missing in\n" << story;
    EXPECT_FALSE(has_pools(demo));
}

TEST(Demo, ASignalLeavesNothingBehind) {
    for (const int signal_number : {SIGINT, SIGTERM}) {
        const TemporaryFile out = file_with(""), err = file_with("");
        const pid_t demo = start_command({"demo", "--rounds", "10000"}, STDIN_FILENO,
                                         fileno(out.get()), fileno(err.get()));
        pid_t writer = 0;
        for (int i = 0; i < 10'000 && (writer = writer_of(demo)) == 0; ++i) usleep(1000);
        ASSERT_NE(writer, 0);
        EXPECT_TRUE(has_pools(demo));
        kill(demo, signal_number);
        int status = 0;
        waitpid(demo, &status, 0);
        EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signal_number);
        EXPECT_FALSE(has_pools(demo));
        // The writer is a zombie at most, until whoever adopts it has looked.
        std::string state;
        for (int i = 0; i < 5000; ++i) {
            std::ifstream file("/proc/" + std::to_string(writer) + "/stat");
            std::string ignored;
            if (!(file >> ignored >> ignored >> state) || state == "Z") break;
            usleep(1000);
        }
        EXPECT_TRUE(state.empty() || state == "Z" || kill(writer, 0) != 0) << state;
    }
}

}  // namespace
}  // namespace holdfast::test
