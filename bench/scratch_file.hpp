// Files in memory for the benchmarks' pools: removed at the end, when a signal ends the program,
// and, after a SIGKILL, by the next run.
#pragma once

#include <string>

namespace holdfast::bench {

// A path in /dev/shm at which no file is yet. Also removes what LMDB puts beside its file.
class ScratchFile {
  public:
    ScratchFile();
    ~ScratchFile();
    ScratchFile(const ScratchFile&) = delete;
    ScratchFile& operator=(const ScratchFile&) = delete;

    const std::string& path() const { return path_; }
    void remove() const;

  private:
    unsigned slot_;
    std::string path_;
};

// To be called once, before the first ScratchFile.
void remove_scratch_files_on_signals();

}  // namespace holdfast::bench
