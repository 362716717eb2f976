#include "demo_child.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

namespace holdfast::tool::demo {
namespace {

[[noreturn]] void become(const std::string& file, std::vector<char*>& arguments, int input,
                         int output, pid_t parent) {
    // Should the demo be killed, this process goes as well.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    for (const int signal_number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE})
        signal(signal_number, SIG_DFL);
    dup2(input, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    execvp(file.c_str(), arguments.data());
    _exit(127);
}

std::string how_it_ended(int status) {
    if (WIFSIGNALED(status)) return fmt::format("signal {}", WTERMSIG(status));
    if (WEXITSTATUS(status) == 127) return "could not be started";
    return fmt::format("exit status {}", WEXITSTATUS(status));
}

}  // namespace

Child::Child(pid_t pid, std::string program, int input, int output)
    : process_(pid), program_(std::move(program)), input_(input), output_(output) {}

Child::Child(Child&& other) noexcept
    : process_(std::move(other.process_)),
      program_(std::move(other.program_)),
      input_(std::exchange(other.input_, -1)),
      output_(std::exchange(other.output_, -1)) {}

Child::~Child() {
    if (input_ >= 0) close(input_);
    if (output_ >= 0) close(output_);
}

Result<Child> Child::start_file(const std::string& file, const std::vector<std::string>& command) {
    std::array<int, 2> input{}, output{};
    if (pipe2(input.data(), O_CLOEXEC) != 0 || pipe2(output.data(), O_CLOEXEC) != 0)
        return fail(ErrorCode::io, fmt::format("pipe: {}", std::strerror(errno)));
    std::vector<char*> arguments;
    arguments.reserve(command.size() + 1);
    for (const std::string& argument : command)
        arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid == 0) become(file, arguments, input[0], output[1], parent);
    close(input[0]);
    close(output[1]);
    fcntl(output[0], F_SETPIPE_SZ,
          1 << 20);  // so that it need not wait for us; or as large as may be
    if (pid > 0) return Child(pid, command.front(), input[1], output[0]);
    close(input[1]);
    close(output[0]);
    return fail(ErrorCode::io, fmt::format("fork: {}", std::strerror(errno)));
}

Result<Child> Child::start(const std::vector<std::string>& command) {
    return start_file(command.front(), command);
}

Result<Child> Child::start_self(const std::vector<std::string>& arguments) {
    std::vector<std::string> command = {"holdfast"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return start_file("/proc/self/exe", command);
}

std::size_t Child::read_until(Clock::time_point deadline, std::span<std::byte> buffer,
                              bool& ended) {
    ended = false;
    for (;;) {
        const auto left = std::max(deadline - Clock::now(), Clock::duration::zero());
        const auto seconds = std::chrono::floor<std::chrono::seconds>(left);
        const timespec timeout{.tv_sec = seconds.count(), .tv_nsec = (left - seconds).count()};
        pollfd waiting{.fd = output_, .events = POLLIN, .revents = 0};
        const int ready = ppoll(&waiting, 1, &timeout, nullptr);
        if (ready < 0 && errno == EINTR) continue;
        if (ready == 0) return 0;
        const ssize_t got = read(output_, buffer.data(), buffer.size());
        if (got < 0 && errno == EINTR) continue;
        ended = got <= 0;
        return got > 0 ? static_cast<std::size_t>(got) : 0;
    }
}

Result<std::string> Child::read_line() {
    const auto deadline = Clock::now() + std::chrono::seconds(10);
    std::string line;
    for (;;) {
        std::byte letter{};
        bool ended = false;
        if (read_until(deadline, {&letter, 1}, ended) == 0)
            return fail(ErrorCode::io, fmt::format("{} {} before it had said a whole line",
                                                   program_, ended ? "ended" : "took ten seconds"));
        if (letter == std::byte{'\n'}) return line;
        line += static_cast<char>(letter);
    }
}

void Child::write_line(const std::string& line) {
    const std::string text = line + '\n';
    // A child that is gone will be noticed when it does not answer.
    [[maybe_unused]] const ssize_t written = write(input_, text.data(), text.size());
}

bool Child::kill() {
    ::kill(process_.pid(), SIGKILL);
    const int status = process_.wait();
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

Result<std::string> Child::finish() {
    close(std::exchange(input_, -1));
    std::string text;
    std::array<std::byte, 4096> buffer{};
    for (bool ended = false; !ended;) {
        const std::size_t got = read_until(Clock::now() + std::chrono::minutes(1), buffer, ended);
        text.append(reinterpret_cast<const char*>(buffer.data()), got);
    }
    const int status = process_.wait();
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return text;
    return fail(ErrorCode::io, fmt::format("{} ended: {}", program_, how_it_ended(status)));
}

}  // namespace holdfast::tool::demo
