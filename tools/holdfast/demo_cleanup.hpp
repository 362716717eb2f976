// What the demo must not leave behind: pools, which cost memory, and child processes. They go when
// their owners do, and also when a signal (Ctrl-C, SIGTERM, SIGHUP) ends the demo.
#pragma once

#include <sys/types.h>

#include <string>

namespace holdfast::tool::demo {

// From here on those signals clean up before they end the process.
void clean_up_on_signals();

// A path that is unlinked at the end. At most eight at a time.
class DoomedFile {
  public:
    explicit DoomedFile(std::string path);
    ~DoomedFile();
    DoomedFile(const DoomedFile&) = delete;
    DoomedFile& operator=(const DoomedFile&) = delete;

    const std::string& path() const { return path_; }

  private:
    std::string path_;
    std::size_t slot_;
};

// A child that gets SIGKILL at the end, unless it was waited for. At most eight at a time.
class DoomedProcess {
  public:
    explicit DoomedProcess(pid_t pid);
    ~DoomedProcess();
    DoomedProcess(DoomedProcess&& other) noexcept;
    DoomedProcess& operator=(DoomedProcess&&) = delete;

    pid_t pid() const { return pid_; }
    // Waits for its end; the status as waitpid(2) has it. Once only.
    int wait();

  private:
    pid_t pid_;
    std::size_t slot_ = 0;
};

// Removes pools of demos that got no chance to: their process is gone.
void sweep(const std::string& folder);

// A name for a pool of this process in the folder; `sweep` knows it.
std::string pool_path(const std::string& folder, const std::string& name);

}  // namespace holdfast::tool::demo
