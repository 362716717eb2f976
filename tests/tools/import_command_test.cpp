// ctest-labels: noasan
//
// import: a process, a core dump, a program. LeakSanitizer cannot run in what is traced.
#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tools/command.hpp"

namespace holdfast::test {
namespace {

using ImportCommand = CommandTest;

// A program that waits: cat, on a pipe that says nothing.
class Waiting {
  public:
    Waiting() {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0) stop_test("pipe2");
        input_ = ends[1];
        pid_ = fork();
        if (pid_ == 0) {
            dup2(ends[0], STDIN_FILENO);
            execlp("cat", "cat", nullptr);
            _exit(127);
        }
        close(ends[0]);
        // It is cat, and no longer this program, once it waits in read(2).
        while (std::filesystem::read_symlink("/proc/" + std::to_string(pid_) + "/exe") ==
               std::filesystem::read_symlink("/proc/self/exe"))
            usleep(1000);
        usleep(50'000);
    }
    ~Waiting() {
        close(input_);
        waitpid(pid_, nullptr, 0);
    }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;
    std::string pid() const { return std::to_string(pid_); }
    std::string memory_map() const {
        std::ostringstream text;
        text << std::ifstream("/proc/" + pid() + "/maps").rdbuf();
        return text.str();
    }

  private:
    pid_t pid_ = -1;
    int input_ = -1;
};

// The range and permissions of each line that ends with the name.
std::vector<std::string> ranges_of(const std::string& maps, const std::string& name) {
    std::vector<std::string> ranges;
    std::istringstream lines(maps);
    for (std::string line; std::getline(lines, line);)
        if (line.ends_with(" " + name)) ranges.push_back(line.substr(0, line.find('p')));
    return ranges;
}

TEST_F(ImportCommand, AProcess) {
    create_pool();
    const Waiting process;
    const auto report = json({"import", path(), "cat", "--pid", process.pid()});
    EXPECT_GT(report.at("mapped_bytes"), report.at("stored_bytes"));
    EXPECT_GT(report.at("stored_bytes"), 0);
    EXPECT_GT(report.at("seconds"), 0.0);

    const std::string ours = well({"maps", path(), "cat"}), theirs = process.memory_map();
    for (const std::string& name :
         {std::filesystem::read_symlink("/proc/" + process.pid() + "/exe").string(),
          std::string("[stack]"), std::string("[heap]")}) {
        EXPECT_FALSE(ranges_of(theirs, name).empty()) << name;
        EXPECT_EQ(ranges_of(ours, name), ranges_of(theirs, name)) << name;
    }
    EXPECT_EQ(kill(std::atoi(process.pid().c_str()), 0), 0);

    fails({"import", path(), "cat", "--pid", process.pid()}, 3, "already_exists", "cat");
    const std::string text = well({"import", path(), "again", "--pid", process.pid()});
    EXPECT_NE(text.find("stored"), std::string::npos);
}

TEST_F(ImportCommand, AProgram) {
    create_pool();
    const auto report = json({"import", path(), "program", "--elf", HOLDFAST_COMMAND});
    EXPECT_GT(report.at("mapped_bytes"), 0);
    const auto entry = report.at("entry_point").get<std::string>();
    EXPECT_EQ(json({"translate", path(), "program", entry}).at(0).at("prot").get<std::string>()[2],
              'x');
    const std::string start = json({"maps", path(), "program"}).at(0).at("start");
    EXPECT_EQ(well({"read", path(), "program", start, "4"}),
              "\x7f"
              "ELF");
}

TEST_F(ImportCommand, ACoreDump) {
    create_pool();
    const Waiting process;
    const std::string prefix = path() + "-core";
    const std::string core = prefix + "." + process.pid();
    if (std::system(("gcore -o " + prefix + " " + process.pid() + " >/dev/null 2>&1").c_str()) != 0)
        GTEST_SKIP() << "gcore, of gdb, is not there or may not trace";
    const auto report = json({"import", path(), "cat", "--core", core});
    std::filesystem::remove(core);
    EXPECT_GT(report.at("stored_bytes"), 0);
    EXPECT_FALSE(report.contains("entry_point"));
    EXPECT_FALSE(json({"maps", path(), "cat"}).empty());
}

TEST_F(ImportCommand, WhatCannotBeImportedLeavesNothing) {
    create_pool();
    fails({"import", path(), "none", "--pid", "4194304"}, 3, "not_found", "4194304");
    fails({"import", path(), "none", "--elf", "/no/such/program"}, 3, "not_found",
          "/no/such/program");
    fails({"import", path(), "none", "--elf", "/etc/passwd"}, 2, "invalid_argument", "/etc/passwd");
    fails({"import", path(), "none", "--core", HOLDFAST_COMMAND}, 2, "invalid_argument",
          HOLDFAST_COMMAND);
    EXPECT_EQ(well({"space", "list", path()}), "");
    EXPECT_TRUE(json({"verify", path()}).at("clean"));
}

}  // namespace
}  // namespace holdfast::test
