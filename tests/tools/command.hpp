// Runs the command `holdfast` as a process, and keeps what it said and how it ended.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/temporary_pool.hpp"

namespace holdfast::test {

struct Command {
    int status = -1;  // of exit; -1 if a signal ended it
    std::string output;
    std::string errors;

    nlohmann::json json() const { return nlohmann::json::parse(output); }
};

using TemporaryFile = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

inline TemporaryFile file_with(const std::string& content) {
    TemporaryFile file(std::tmpfile(), std::fclose);
    if (!file || std::fwrite(content.data(), 1, content.size(), file.get()) != content.size() ||
        std::fflush(file.get()) != 0)
        stop_test("no temporary file");
    std::fseek(file.get(), 0, SEEK_SET);
    return file;
}

inline std::string content_of(const TemporaryFile& file) {
    std::string content;
    std::fseek(file.get(), 0, SEEK_SET);
    for (int letter; (letter = std::fgetc(file.get())) != EOF;)
        content += static_cast<char>(letter);
    return content;
}

// Starts the command with these files as its standard input, output and errors.
inline pid_t start_command(const std::vector<std::string>& arguments, int input, int output,
                           int errors) {
    std::vector<std::string> words = {HOLDFAST_COMMAND};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> pointers;
    pointers.reserve(words.size() + 1);
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    const pid_t child = fork();
    if (child != 0) return child;
    dup2(input, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(errors, STDERR_FILENO);
    execv(HOLDFAST_COMMAND, pointers.data());
    _exit(127);
}

inline int wait_for(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

inline Command run(const std::vector<std::string>& arguments, const std::string& input = "") {
    const TemporaryFile in = file_with(input), out = file_with(""), err = file_with("");
    Command command;
    command.status =
        wait_for(start_command(arguments, fileno(in.get()), fileno(out.get()), fileno(err.get())));
    command.output = content_of(out);
    command.errors = content_of(err);
    return command;
}

// Failures say one line on standard error and, here, what it was in JSON on standard output.
inline void expect_failure(const std::vector<std::string>& arguments, int status,
                           const std::string& code, const std::string& words,
                           const std::string& input = "") {
    const Command plain = run(arguments, input);
    EXPECT_EQ(plain.status, status) << plain.errors;
    EXPECT_EQ(plain.output, "");
    EXPECT_EQ(plain.errors.find("holdfast: "), 0u) << plain.errors;
    EXPECT_EQ(plain.errors.find('\n'), plain.errors.size() - 1) << plain.errors;
    EXPECT_NE(plain.errors.find(words), std::string::npos) << plain.errors;

    std::vector<std::string> with_json = arguments;
    with_json.insert(with_json.begin(), "--json");
    const Command json = run(with_json, input);
    EXPECT_EQ(json.status, status);
    const nlohmann::json error = json.json().at("error");
    EXPECT_EQ(error.at("code"), code);
    EXPECT_EQ("holdfast: " + error.at("message").get<std::string>() + "\n", json.errors);
}

// A pool in emulated PMem, and the command on it.
class CommandTest : public testing::Test {
  protected:
    const std::string& path() const { return pool_.path(); }
    const TemporaryPool& pool() const { return pool_; }

    // Runs what has to succeed, in silence, and returns its output.
    std::string well(std::vector<std::string> arguments, const std::string& input = "") const {
        arguments.insert(arguments.begin(), "--emulate-pmem");
        const Command command = run(arguments, input);
        EXPECT_EQ(command.status, 0) << command.errors;
        EXPECT_EQ(command.errors, "");
        return command.output;
    }
    nlohmann::json json(std::vector<std::string> arguments, const std::string& input = "") const {
        arguments.insert(arguments.begin(), "--json");
        return nlohmann::json::parse(well(std::move(arguments), input));
    }
    void fails(std::vector<std::string> arguments, int status, const std::string& code,
               const std::string& words, const std::string& input = "") const {
        arguments.insert(arguments.begin(), "--emulate-pmem");
        expect_failure(arguments, status, code, words, input);
    }
    void create_pool(const std::string& size = "64MiB") const {
        EXPECT_EQ(well({"create", path(), "--size", size}), "");
    }
    // A pool with one empty space.
    void create_space(const std::string& name = "editor") const {
        create_pool();
        EXPECT_EQ(well({"space", "create", path(), name}), "");
    }

  private:
    TemporaryPool pool_;
};

}  // namespace holdfast::test
